//! One setting: a keyword that is honoured, with its value understood.
//!
//! The table in [`Setting::parse`] is the list of what is honoured. A bad value is found here, when a file is read, also
//! where its block is for other hosts, as OpenSSH does.

use std::time::Duration;

use super::problem::Problem;
use super::resolved::{HostKeyChecking, PubkeyAuthentication};
use super::target::Target;
use super::words;

/// What a line sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Setting {
    HostName(String),
    User(String),
    Port(u16),
    IdentityFile(String),
    CertificateFile(String),
    IdentitiesOnly(bool),
    IdentityAgent(String),
    ProxyJump(Option<Jumps>),
    ProxyCommand(Option<String>),
    ProxyUseFdpass(bool),
    HostKeyAlias(String),
    /// Empty for `none`.
    UserKnownHostsFile(Vec<String>),
    GlobalKnownHostsFile(Vec<String>),
    StrictHostKeyChecking(HostKeyChecking),
    AddressFamily(AddressFamily),
    BindAddress(String),
    /// `None` says nothing: a later line counts.
    ConnectTimeout(Option<Duration>),
    ServerAliveInterval(Option<Duration>),
    ServerAliveCountMax(u32),
    Compression(bool),
    ForwardAgent(bool),
    ForwardAgentTo(String),
    PreferredAuthentications(String),
    PubkeyAuthentication(PubkeyAuthentication),
    PasswordAuthentication(bool),
    KbdInteractiveAuthentication(bool),
    NumberOfPasswordPrompts(u32),
    SetEnv(Vec<(String, String)>),
    SendEnv(Vec<String>),
    HashKnownHosts(bool),
    Algorithms(AlgorithmKind, AlgorithmList),
    CanonicalizeHostname(Canonicalize),
    CanonicalDomains(Vec<String>),
    CanonicalizeMaxDots(u32),
}

/// The hosts of `ProxyJump`, first hop first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Jumps {
    pub(super) hops: Vec<Target>,
    /// All but the last as they were written, each with its comma: `ssh -G` prints them so.
    pub(super) written: String,
}

/// `AddressFamily`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressFamily {
    /// Whatever there is.
    #[default]
    Any,
    /// IPv4 only.
    Inet,
    /// IPv6 only.
    Inet6,
}

/// `CanonicalizeHostname`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Canonicalize {
    No,
    Yes,
    Always,
}

/// What an algorithm list is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlgorithmKind {
    /// `Ciphers`.
    Ciphers,
    /// `MACs`.
    Macs,
    /// `KexAlgorithms`.
    Kex,
    /// `HostKeyAlgorithms`.
    HostKey,
    /// `PubkeyAcceptedAlgorithms`.
    PubkeyAccepted,
}

/// An algorithm list as it was written; [`AlgorithmList::apply`] lays it on the lists of whoever speaks the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlgorithmList {
    /// What the names do to the list that is there.
    pub operation: Operation,
    /// Names; patterns where something is removed, and for keys.
    pub names: Vec<String>,
}

/// What the names of an algorithm list do to the list that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// They take its place.
    Replace,
    /// `+`: they follow it.
    Append,
    /// `-`: they leave it.
    Remove,
    /// `^`: they come first.
    Prefer,
}

impl AlgorithmList {
    /// The list that comes out, in order of preference and each name once; `default` is what is offered unasked, `known` is
    /// all that can be offered. Names that are not known are passed over.
    pub fn apply<'k>(&self, default: &[&'k str], known: &[&'k str]) -> Vec<&'k str> {
        let named = self.names.iter().flat_map(|name| {
            known.iter().filter(|known| crate::pattern::matches(name.as_bytes(), known.as_bytes()))
        });
        let mut list: Vec<&'k str> = Vec::new();
        let mut push = |name: &'k str| {
            if !list.contains(&name) {
                list.push(name);
            }
        };
        match self.operation {
            Operation::Replace => named.for_each(|name| push(name)),
            Operation::Append => default.iter().chain(named).for_each(|name| push(name)),
            Operation::Prefer => named.chain(default).for_each(|name| push(name)),
            Operation::Remove => {
                let removed: Vec<&&str> = named.collect();
                default.iter().filter(|name| !removed.contains(name)).for_each(|name| push(name));
            }
        }
        list
    }

    fn parse(text: &str, kind: AlgorithmKind) -> Option<AlgorithmList> {
        let (operation, names) = match text.split_at_checked(1) {
            Some(("+", names)) => (Operation::Append, names),
            Some(("-", names)) => (Operation::Remove, names),
            Some(("^", names)) => (Operation::Prefer, names),
            Some(_) | None => (Operation::Replace, text),
        };
        let names: Vec<String> =
            names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let is_key = matches!(kind, AlgorithmKind::HostKey | AlgorithmKind::PubkeyAccepted);
        let may_match = operation == Operation::Remove || is_key;
        let is_name = |name: &String| {
            name.bytes().all(|byte| match byte {
                b'*' | b'?' => may_match,
                byte => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'@' | b'_'),
            }) && !name.starts_with('-')
        };
        let is_list = names.iter().all(is_name) && (operation == Operation::Remove || !names.is_empty());
        is_list.then_some(AlgorithmList { operation, names })
    }
}

impl std::fmt::Display for AlgorithmList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.operation {
            Operation::Replace => "",
            Operation::Append => "+",
            Operation::Remove => "-",
            Operation::Prefer => "^",
        })?;
        f.write_str(&self.names.join(","))
    }
}

impl Setting {
    /// Reads what stands behind `keyword` (in lower case); `None` for keywords that are not honoured.
    pub(super) fn parse(keyword: &str, rest: &str) -> Result<Option<Setting>, Problem> {
        let one = |keyword| one(keyword, rest);
        let flag = |keyword| switch(keyword, &one(keyword)?, &YES_OR_NO);
        let setting = match keyword {
            "hostname" => Setting::HostName(one("HostName")?),
            "user" => Setting::User(one("User")?),
            "port" => {
                let text = one("Port")?;
                Setting::Port(port(&text).ok_or_else(|| Problem::value("Port", &text))?)
            }
            "identityfile" | "identityfile2" => Setting::IdentityFile(one("IdentityFile")?),
            "certificatefile" => Setting::CertificateFile(one("CertificateFile")?),
            "identitiesonly" => Setting::IdentitiesOnly(flag("IdentitiesOnly")?),
            "identityagent" => {
                let text = one("IdentityAgent")?;
                check_variable("IdentityAgent", &text)?;
                Setting::IdentityAgent(text)
            }
            "proxyjump" => Setting::ProxyJump(jumps(rest)?),
            "proxycommand" => Setting::ProxyCommand(command(rest)?),
            "proxyusefdpass" => Setting::ProxyUseFdpass(flag("ProxyUseFdpass")?),
            "hostkeyalias" => Setting::HostKeyAlias(one("HostKeyAlias")?.to_ascii_lowercase()),
            "userknownhostsfile" => Setting::UserKnownHostsFile(files("UserKnownHostsFile", rest)?),
            "globalknownhostsfile" => Setting::GlobalKnownHostsFile(files("GlobalKnownHostsFile", rest)?),
            "stricthostkeychecking" => Setting::StrictHostKeyChecking(switch(
                "StrictHostKeyChecking",
                &one("StrictHostKeyChecking")?,
                &[
                    ("yes", HostKeyChecking::Yes),
                    ("true", HostKeyChecking::Yes),
                    ("no", HostKeyChecking::No),
                    ("false", HostKeyChecking::No),
                    ("off", HostKeyChecking::No),
                    ("ask", HostKeyChecking::Ask),
                    ("accept-new", HostKeyChecking::AcceptNew),
                ],
            )?),
            "addressfamily" => Setting::AddressFamily(switch(
                "AddressFamily",
                &one("AddressFamily")?,
                &[
                    ("any", AddressFamily::Any),
                    ("inet", AddressFamily::Inet),
                    ("inet6", AddressFamily::Inet6),
                ],
            )?),
            "bindaddress" => Setting::BindAddress(one("BindAddress")?),
            "connecttimeout" => Setting::ConnectTimeout(time("ConnectTimeout", &one("ConnectTimeout")?)?),
            "serveraliveinterval" => {
                Setting::ServerAliveInterval(time("ServerAliveInterval", &one("ServerAliveInterval")?)?)
            }
            "serveralivecountmax" => {
                Setting::ServerAliveCountMax(count("ServerAliveCountMax", &one("ServerAliveCountMax")?)?)
            }
            "compression" => Setting::Compression(flag("Compression")?),
            "forwardagent" => {
                let text = one("ForwardAgent")?;
                match switch("ForwardAgent", &text, &YES_OR_NO) {
                    Ok(forward) => Setting::ForwardAgent(forward),
                    Err(_) => {
                        check_variable("ForwardAgent", &text)?;
                        Setting::ForwardAgentTo(text)
                    }
                }
            }
            "preferredauthentications" => Setting::PreferredAuthentications(one("PreferredAuthentications")?),
            "pubkeyauthentication" | "dsaauthentication" => Setting::PubkeyAuthentication(switch(
                "PubkeyAuthentication",
                &one("PubkeyAuthentication")?,
                &[
                    ("yes", PubkeyAuthentication::Yes),
                    ("true", PubkeyAuthentication::Yes),
                    ("no", PubkeyAuthentication::No),
                    ("false", PubkeyAuthentication::No),
                    ("unbound", PubkeyAuthentication::Unbound),
                    ("host-bound", PubkeyAuthentication::HostBound),
                ],
            )?),
            "passwordauthentication" => Setting::PasswordAuthentication(flag("PasswordAuthentication")?),
            "kbdinteractiveauthentication"
            | "challengeresponseauthentication"
            | "skeyauthentication"
            | "tisauthentication" => {
                Setting::KbdInteractiveAuthentication(flag("KbdInteractiveAuthentication")?)
            }
            "numberofpasswordprompts" => Setting::NumberOfPasswordPrompts(count(
                "NumberOfPasswordPrompts",
                &one("NumberOfPasswordPrompts")?,
            )?),
            "setenv" => Setting::SetEnv(variables(rest)?),
            "sendenv" => Setting::SendEnv(variable_names(rest)?),
            "hashknownhosts" => Setting::HashKnownHosts(flag("HashKnownHosts")?),
            "ciphers" => algorithms("Ciphers", AlgorithmKind::Ciphers, rest)?,
            "macs" => algorithms("MACs", AlgorithmKind::Macs, rest)?,
            "kexalgorithms" => algorithms("KexAlgorithms", AlgorithmKind::Kex, rest)?,
            "hostkeyalgorithms" => algorithms("HostKeyAlgorithms", AlgorithmKind::HostKey, rest)?,
            "pubkeyacceptedalgorithms" | "pubkeyacceptedkeytypes" => {
                algorithms("PubkeyAcceptedAlgorithms", AlgorithmKind::PubkeyAccepted, rest)?
            }
            "canonicalizehostname" => Setting::CanonicalizeHostname(switch(
                "CanonicalizeHostname",
                &one("CanonicalizeHostname")?,
                &[
                    ("yes", Canonicalize::Yes),
                    ("true", Canonicalize::Yes),
                    ("no", Canonicalize::No),
                    ("false", Canonicalize::No),
                    ("always", Canonicalize::Always),
                ],
            )?),
            "canonicaldomains" => {
                let mut domains = many("CanonicalDomains", rest)?;
                domains.retain(|domain| domain != "none");
                Setting::CanonicalDomains(domains)
            }
            "canonicalizemaxdots" => {
                Setting::CanonicalizeMaxDots(count("CanonicalizeMaxDots", &one("CanonicalizeMaxDots")?)?)
            }
            _ => return Ok(None),
        };
        Ok(Some(setting))
    }
}

/// The arguments of a keyword; at least one.
pub(super) fn many(keyword: &'static str, rest: &str) -> Result<Vec<String>, Problem> {
    let words = words::arguments(rest).ok_or(Problem::Quotes(keyword))?;
    match words.is_empty() || words.iter().any(String::is_empty) {
        true => Err(Problem::NoArgument(keyword)),
        false => Ok(words),
    }
}

/// The one argument of a keyword.
fn one(keyword: &'static str, rest: &str) -> Result<String, Problem> {
    let mut words = many(keyword, rest)?;
    match words.len() {
        0 | 1 => words.pop().ok_or(Problem::NoArgument(keyword)),
        _ => Err(Problem::ExtraArguments(keyword)),
    }
}

/// One of a few words, in whatever case.
fn switch<T: Copy>(keyword: &'static str, text: &str, values: &[(&str, T)]) -> Result<T, Problem> {
    let found = values.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
    found.map(|(_, value)| *value).ok_or_else(|| Problem::value(keyword, text))
}

const YES_OR_NO: [(&str, bool); 4] = [("yes", true), ("true", true), ("no", false), ("false", false)];

/// A port from 1 to 65535; of the names of services OpenSSH takes, only its own.
pub(super) fn port(text: &str) -> Option<u16> {
    match text {
        "ssh" => Some(22),
        number => integer(number).and_then(|port| u16::try_from(port).ok()).filter(|&port| port != 0),
    }
}

/// A number that is not negative, the way C reads one: blanks and a sign may stand before it.
fn integer(text: &str) -> Option<u32> {
    let text = text.trim_ascii_start();
    let digits = text.strip_prefix('+').unwrap_or(text);
    match !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => digits.parse().ok().filter(|&number| number <= INTEGER_MAX),
        false => None,
    }
}

const INTEGER_MAX: u32 = i32::MAX.unsigned_abs();

fn count(keyword: &'static str, text: &str) -> Result<u32, Problem> {
    integer(text).ok_or_else(|| Problem::value(keyword, text))
}

/// Seconds, or a sum of numbers with units (sshd_config(5), TIME FORMATS); `None` for `none`.
fn time(keyword: &'static str, text: &str) -> Result<Option<Duration>, Problem> {
    if text == "none" {
        return Ok(None);
    }
    let seconds = seconds(text).ok_or_else(|| Problem::value(keyword, text))?;
    Ok(Some(Duration::from_secs(seconds.into())))
}

fn seconds(text: &str) -> Option<u32> {
    let mut total = 0_u32;
    let mut rest = text;
    while !rest.is_empty() {
        let sign = rest.len() - rest.trim_ascii_start().trim_start_matches('+').len();
        let digits = rest.get(sign..)?.find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |at| at + sign);
        let (number, behind) = rest.split_at_checked(digits)?;
        let mut units = behind.chars();
        let unit = match units.next().map(|unit| unit.to_ascii_lowercase()) {
            None | Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            Some('w') => 604_800,
            Some(_) => return None,
        };
        rest = units.as_str();
        total = total.checked_add(integer(number)?.checked_mul(unit)?).filter(|&sum| sum <= INTEGER_MAX)?;
    }
    (!text.is_empty()).then_some(total)
}

fn files(keyword: &'static str, rest: &str) -> Result<Vec<String>, Problem> {
    let mut files = many(keyword, rest)?;
    if files.iter().any(|file| file.eq_ignore_ascii_case("none")) {
        if files.len() > 1 {
            return Err(Problem::NoneAmongOthers(keyword));
        }
        files.clear();
    }
    match files.len() > KNOWN_HOSTS_MAX {
        true => Err(Problem::TooManyFiles { keyword, max: KNOWN_HOSTS_MAX }),
        false => Ok(files),
    }
}

const KNOWN_HOSTS_MAX: usize = 32;

/// `$NAME`, where it is the whole value, must be a name.
fn check_variable(keyword: &'static str, text: &str) -> Result<(), Problem> {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match text.strip_prefix('$') {
        Some(name) if !name.starts_with('{') && !is_name(name) => Err(Problem::value(keyword, text)),
        Some(_) | None => Ok(()),
    }
}

/// What stands behind a keyword whose value is the rest of its line.
fn raw(keyword: &'static str, rest: &str) -> Result<String, Problem> {
    // Its words are not used, but a line with an open quotation is refused all the same.
    if words::arguments(rest).ok_or(Problem::Quotes(keyword))?.is_empty() && !rest.starts_with('#') {
        return Err(Problem::NoArgument(keyword));
    }
    let is_between = |c: char| c == '=' || words::BLANKS.contains(&c);
    Ok(rest.trim_start_matches(is_between).trim_end_matches(words::BLANKS).to_owned())
}

fn command(rest: &str) -> Result<Option<String>, Problem> {
    let command = raw("ProxyCommand", rest)?;
    Ok((!command.eq_ignore_ascii_case("none")).then_some(command))
}

fn jumps(rest: &str) -> Result<Option<Jumps>, Problem> {
    let text = raw("ProxyJump", rest)?;
    if text.eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    let text = text.split(words::BLANKS).next().unwrap_or_default();
    let hop = |hop: &str| {
        let target = Target::split(hop).ok();
        // An address without brackets is refused here, where a port may follow.
        target
            .filter(|_| hop.contains('[') || hop.matches(':').count() <= usize::from(hop.contains("://")) + 1)
    };
    let hops: Option<Vec<Target>> = text.split(',').map(hop).collect();
    let hops = hops.ok_or_else(|| Problem::value("ProxyJump", text))?;
    let written = text.rfind(',').and_then(|at| text.get(..=at)).unwrap_or_default().to_owned();
    Ok(Some(Jumps { hops, written }))
}

fn variables(rest: &str) -> Result<Vec<(String, String)>, Problem> {
    let mut variables: Vec<(String, String)> = Vec::new();
    for word in many("SetEnv", rest)? {
        match word.split_once('=') {
            None | Some(("", _)) => return Err(Problem::value("SetEnv", &word)),
            Some((name, _)) if variables.iter().any(|(known, _)| known == name) => {}
            Some((name, value)) => variables.push((name.to_owned(), value.to_owned())),
        }
    }
    Ok(variables)
}

fn variable_names(rest: &str) -> Result<Vec<String>, Problem> {
    let names = many("SendEnv", rest)?;
    match names.iter().find(|name| name.contains('=')) {
        Some(bad) => Err(Problem::value("SendEnv", bad)),
        None => Ok(names),
    }
}

fn algorithms(keyword: &'static str, kind: AlgorithmKind, rest: &str) -> Result<Setting, Problem> {
    let text = one(keyword, rest)?;
    let list = AlgorithmList::parse(&text, kind).ok_or_else(|| Problem::value(keyword, &text))?;
    Ok(Setting::Algorithms(kind, list))
}
