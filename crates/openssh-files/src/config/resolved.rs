//! The answer: what holds for one host.

use std::fmt::Write as _;
use std::time::Duration;

use super::setting::{AddressFamily, AlgorithmKind, AlgorithmList};
use super::target::Target;
use super::tokens::ExpandError;
use crate::pattern;

/// What the configuration says about a host.
///
/// `None` is "nothing is said": what holds then is for the caller, who may have settings of his own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resolved {
    /// The host as it was asked for.
    pub original_host: String,
    /// The name or address to connect to: in lower case, addresses in their usual form.
    pub host_name: String,
    /// Whom to log in as; the local user where nothing else is said.
    pub user: String,
    /// The port; 22 where nothing else is said.
    pub port: u16,
    /// Private keys to try, in this order; where none are named the default ones, most of which will not exist.
    pub identity_files: Vec<KeyFile>,
    /// True if a line or an option speaks of `IdentityFile`, if only to say `none`.
    pub are_identity_files_given: bool,
    /// Only the keys named here are tried, whatever an agent holds.
    pub identities_only: bool,
    /// The agent to ask; `None` is the one of the environment.
    pub identity_agent: Option<IdentityAgent>,
    /// Certificates to show.
    pub certificate_files: Vec<KeyFile>,
    /// The way to the host.
    pub proxy: Proxy,
    /// The program hands over a connection instead of carrying it.
    pub proxy_use_fdpass: bool,
    /// The name the host's key is looked up by, in lower case.
    pub host_key_alias: Option<String>,
    /// The user's known_hosts files; an empty list is `none`.
    pub user_known_hosts_files: Option<Vec<String>>,
    /// The system's known_hosts files; an empty list is `none`.
    pub global_known_hosts_files: Option<Vec<String>>,
    /// What happens with host keys that are not known.
    pub strict_host_key_checking: Option<HostKeyChecking>,
    /// Which addresses are tried.
    pub address_family: AddressFamily,
    /// The local address to connect from.
    pub bind_address: Option<String>,
    /// How long connecting may take.
    pub connect_timeout: Option<Duration>,
    /// After how much silence the server is asked whether it is there; zero is never.
    pub server_alive_interval: Option<Duration>,
    /// How many such questions may stay unanswered.
    pub server_alive_count_max: Option<u32>,
    /// Whether to compress.
    pub compression: Option<bool>,
    /// Whether the other side may use the agent, and which.
    pub forward_agent: ForwardAgent,
    /// Methods to log in by, in order of preference, as written.
    pub preferred_authentications: Option<Vec<String>>,
    /// Whether keys are tried.
    pub pubkey_authentication: PubkeyAuthentication,
    /// Whether a password is tried.
    pub password_authentication: bool,
    /// Whether questions of the server are answered.
    pub kbd_interactive_authentication: bool,
    /// How often a password is asked for.
    pub number_of_password_prompts: u32,
    /// Variables for the other side.
    pub set_env: Vec<(String, String)>,
    /// Patterns of local variables for the other side; [`Resolved::is_sent`] asks them.
    pub send_env: Vec<String>,
    /// Whether names are hidden in known_hosts.
    pub hash_known_hosts: Option<bool>,
    pub(super) algorithms: Vec<(AlgorithmKind, AlgorithmList)>,
    pub(super) written: Written,
}

/// A file whose name may hold tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// As it stands in the configuration.
    pub written: String,
    /// Where it is. An error is about this file alone.
    pub path: Result<String, ExpandError>,
}

/// `IdentityAgent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityAgent {
    /// `none`.
    None,
    /// The socket `SSH_AUTH_SOCK` names.
    AuthSock,
    /// The socket this variable names.
    Variable(String),
    /// This socket.
    Socket(String),
}

/// `ForwardAgent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardAgent {
    /// No agent.
    No,
    /// The one that is used to log in.
    Yes,
    /// The one at the socket this variable names.
    Variable(String),
    /// The one at this socket.
    Socket(String),
}

/// `ProxyJump` or `ProxyCommand`, whichever stands first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proxy {
    /// Straight to the host.
    Direct,
    /// Through these hosts, the nearest first; each is looked up for itself.
    Jump(Vec<Target>),
    /// Through a program; its command line with the tokens expanded, or why they could not be.
    Command(Result<String, ExpandError>),
}

/// `StrictHostKeyChecking`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKeyChecking {
    /// `yes`: unknown keys are refused.
    Yes,
    /// `accept-new`: unknown keys are learnt, changed ones refused.
    AcceptNew,
    /// `ask`: somebody decides about unknown keys.
    Ask,
    /// `no` and `off`: anything goes.
    No,
}

/// `PubkeyAuthentication`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PubkeyAuthentication {
    /// `yes`.
    #[default]
    Yes,
    /// `no`.
    No,
    /// `unbound`: without OpenSSH's extension that ties a signature to the host.
    Unbound,
    /// `host-bound`: with that extension.
    HostBound,
}

/// Algorithms somebody can offer, by the names of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer<'a> {
    /// What is offered unasked, in order of preference.
    pub default: &'a [&'a str],
    /// All that can be offered.
    pub known: &'a [&'a str],
}

/// What only `ssh -G` wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) home: String,
    pub(super) identity_files: Vec<String>,
    /// `ForwardAgent` as it is printed: a socket also where forwarding is off.
    pub(super) forward_agent: String,
    /// Keyword and value.
    pub(super) proxy: Option<(&'static str, String)>,
}

impl Resolved {
    /// What is said about a kind of algorithms.
    pub fn algorithms(&self, kind: AlgorithmKind) -> Option<&AlgorithmList> {
        self.algorithms.iter().find(|(of, _)| *of == kind).map(|(_, list)| list)
    }

    /// True if the local variable `name` is for the other side.
    pub fn is_sent(&self, name: &str) -> bool {
        self.send_env.iter().any(|wanted| pattern::matches(wanted.as_bytes(), name.as_bytes()))
    }

    /// One `keyword value` per line, as `ssh -G` prints them: the keywords that are honoured here, with OpenSSH's default
    /// where nothing is said.
    ///
    /// `offer` says what there is to choose algorithms from. Where it knows nothing about a kind, a list is printed as it is
    /// written, and only if there is one.
    pub fn to_lines<'a>(&self, offer: impl Fn(AlgorithmKind) -> Option<Offer<'a>>) -> String {
        let mut lines = Lines(String::new());
        lines.add("host", &self.original_host);
        lines.add("user", &self.user);
        lines.add("hostname", &self.host_name);
        lines.add("port", self.port);
        lines.add("addressfamily", self.address_family.as_str());
        lines.add("compression", yes_or_no(self.compression.unwrap_or(false)));
        lines.add("hashknownhosts", yes_or_no(self.hash_known_hosts.unwrap_or(false)));
        lines.add("identitiesonly", yes_or_no(self.identities_only));
        lines.add("kbdinteractiveauthentication", yes_or_no(self.kbd_interactive_authentication));
        lines.add("passwordauthentication", yes_or_no(self.password_authentication));
        lines.add("pubkeyauthentication", self.pubkey_authentication.as_str());
        let checking = self.strict_host_key_checking.unwrap_or(HostKeyChecking::Ask);
        lines.add("stricthostkeychecking", checking.as_str());
        lines.add("numberofpasswordprompts", self.number_of_password_prompts);
        lines.add("serveralivecountmax", self.server_alive_count_max.unwrap_or(3));
        lines.add("serveraliveinterval", self.server_alive_interval.unwrap_or_default().as_secs());
        lines.some("bindaddress", self.bind_address.as_ref());
        for (keyword, kind) in [
            ("ciphers", AlgorithmKind::Ciphers),
            ("hostkeyalgorithms", AlgorithmKind::HostKey),
            ("kexalgorithms", AlgorithmKind::Kex),
            ("macs", AlgorithmKind::Macs),
            ("pubkeyacceptedalgorithms", AlgorithmKind::PubkeyAccepted),
        ] {
            match (self.algorithms(kind), offer(kind)) {
                (Some(list), Some(offer)) => {
                    lines.add(keyword, list.apply(offer.default, offer.known).join(","));
                }
                (None, Some(offer)) => lines.add(keyword, offer.default.join(",")),
                (Some(list), None) => lines.add(keyword, list),
                (None, None) => {}
            }
        }
        lines.some("hostkeyalias", self.host_key_alias.as_ref());
        lines.some("identityagent", self.identity_agent.as_ref());
        lines.some(
            "preferredauthentications",
            self.preferred_authentications.as_ref().map(|list| list.join(",")),
        );
        lines.all("identityfile", &self.written.identity_files);
        lines.all("certificatefile", self.certificate_files.iter().map(|file| &file.written));
        lines.files("globalknownhostsfile", self.global_known_hosts_files.as_deref(), |name| {
            format!("/etc/ssh/ssh_{name}")
        });
        let home = self.written.home.trim_end_matches('/');
        lines.files("userknownhostsfile", self.user_known_hosts_files.as_deref(), |name| {
            format!("{home}/.ssh/{name}")
        });
        lines.all("sendenv", &self.send_env);
        lines.all("setenv", self.set_env.iter().map(|(name, value)| format!("{name}={value}")));
        lines.add("forwardagent", &self.written.forward_agent);
        match self.connect_timeout {
            Some(timeout) => lines.add("connecttimeout", timeout.as_secs()),
            None => lines.add("connecttimeout", "none"),
        }
        if let Some((keyword, value)) = &self.written.proxy {
            lines.add(keyword, value);
        }
        lines.0
    }
}

struct Lines(String);

impl Lines {
    fn add(&mut self, keyword: &str, value: impl std::fmt::Display) {
        // Writing into a text cannot fail.
        let _ = writeln!(self.0, "{keyword} {value}");
    }

    fn some(&mut self, keyword: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.add(keyword, value);
        }
    }

    fn all(&mut self, keyword: &str, values: impl IntoIterator<Item = impl std::fmt::Display>) {
        values.into_iter().for_each(|value| self.add(keyword, value));
    }

    fn files(&mut self, keyword: &str, files: Option<&[String]>, default: impl Fn(&str) -> String) {
        match files {
            None => self.add(keyword, ["known_hosts", "known_hosts2"].map(default).join(" ")),
            Some([]) => self.add(keyword, "none"),
            Some(files) => self.add(keyword, files.join(" ")),
        }
    }
}

fn yes_or_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

impl AddressFamily {
    /// Its value in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            AddressFamily::Any => "any",
            AddressFamily::Inet => "inet",
            AddressFamily::Inet6 => "inet6",
        }
    }
}

impl HostKeyChecking {
    fn as_str(self) -> &'static str {
        match self {
            HostKeyChecking::Yes => "true",
            HostKeyChecking::AcceptNew => "accept-new",
            HostKeyChecking::Ask => "ask",
            HostKeyChecking::No => "false",
        }
    }
}

impl PubkeyAuthentication {
    fn as_str(self) -> &'static str {
        match self {
            PubkeyAuthentication::Yes => "true",
            PubkeyAuthentication::No => "false",
            PubkeyAuthentication::Unbound => "unbound",
            PubkeyAuthentication::HostBound => "host-bound",
        }
    }
}

impl std::fmt::Display for IdentityAgent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            IdentityAgent::None => f.write_str("none"),
            IdentityAgent::AuthSock => f.write_str("SSH_AUTH_SOCK"),
            IdentityAgent::Variable(name) => write!(f, "${name}"),
            IdentityAgent::Socket(path) => f.write_str(path),
        }
    }
}
