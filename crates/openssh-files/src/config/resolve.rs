//! Which lines count for a host, and in which order.
//!
//! The first value of a keyword holds, so what a call lays before the files comes first. Where `Match final` stands
//! anywhere, or canonical names are asked for, everything is gone through a second time under the name to connect to;
//! what the first pass has set stays.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::condition::{self, Condition, Criterion, Test};
use super::options::{FILES_MAX, Options, ProxySetting};
use super::overrides::Overrides;
use super::resolved::{ForwardAgent, IdentityAgent, KeyFile, Proxy, Resolved, Written};
use super::setting::{AddressFamily, Jumps, Setting};
use super::target::{self, Target, TargetError};
use super::tokens::{ExpandError, Known, Tokens};
use super::{Config, Content, Local, ReadFile, Whose};
use crate::{Location, pattern};

/// Why a host cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The host or the user of the call is none that OpenSSH would take.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A value of a line that counts cannot be expanded.
    #[error("{}{keyword}: {error}", place(.at.as_ref()))]
    Expand {
        /// Where it stands; `None` for an option of the call.
        at: Option<Location>,
        /// Its keyword.
        keyword: &'static str,
        /// What is wrong.
        error: ExpandError,
    },
    /// More than 100 files of a kind count.
    #[error("{}more than {FILES_MAX} of {keyword}", place(.at.as_ref()))]
    TooManyFiles {
        /// Where one too many stands.
        at: Option<Location>,
        /// Their keyword.
        keyword: &'static str,
    },
    /// A file that is not the user's own asks for a program to be run.
    #[error("{at}: {keyword} is for the user's own configuration")]
    NotAllowed {
        /// Where it stands.
        at: Location,
        /// `Match exec` or `ProxyCommand`.
        keyword: &'static str,
    },
    /// A program of `Match exec` cannot be run.
    #[error("{at}: Match exec: {source}")]
    Exec {
        /// Where it stands.
        at: Location,
        /// What the system said.
        source: io::Error,
    },
    /// The last host to jump over is the host itself.
    #[error("jumphost loop via {0}")]
    JumpLoop(String),
    /// The name would have to be looked up in `CanonicalDomains`.
    #[error("CanonicalDomains are not looked up: give {0} a HostName")]
    CanonicalDomains(String),
}

fn place(at: Option<&Location>) -> String {
    at.map(|at| format!("{at}: ")).unwrap_or_default()
}

impl Config {
    /// What holds for `host`: an alias, a name or an address, without user and port, which are for [`Overrides`].
    pub fn resolve(
        &self,
        host: &str,
        overrides: &Overrides,
        local: &Local<'_>,
    ) -> Result<Resolved, ResolveError> {
        target::check_host(host)?;
        let mut options = Options::default();
        for setting in overrides.settings() {
            if let Setting::User(user) = setting {
                target::check_user(user)?;
            }
            options.set(setting, || None)?;
        }
        let mut pass = Pass { local, original: host, host: host.to_owned(), settled: None, options };
        for file in &self.files {
            pass.walk(file)?;
        }
        pass.settle()?;
        if self.mentions_final || pass.options.wants_canonical_name() {
            for file in &self.files {
                pass.walk(file)?;
            }
        }
        pass.finish()
    }
}

/// One way through all files.
struct Pass<'a> {
    local: &'a Local<'a>,
    original: &'a str,
    /// What `Host` lines are for: the host as it was asked for, then the name to connect to.
    host: String,
    /// The name to connect to, once it is known.
    settled: Option<String>,
    options: Options,
}

impl Pass<'_> {
    fn walk(&mut self, file: &ReadFile) -> Result<(), ResolveError> {
        for block in &file.blocks {
            let holds = match &block.condition {
                None => true,
                Some(Condition::Host(patterns)) => condition::is_for(patterns, &self.host),
                Some(Condition::Match(criteria)) => self.all_hold(criteria, file, block.line)?,
            };
            if !holds {
                continue;
            }
            for item in &block.items {
                match &item.content {
                    Content::Include(files) => files.iter().try_for_each(|file| self.walk(file))?,
                    Content::Set(setting) => {
                        if self.options.set(setting, || Some(file.at(item.line)))?
                            && matches!(setting, Setting::ProxyCommand(Some(_)))
                            && file.whose == Whose::Foreign
                        {
                            return Err(not_allowed(file, item.line, "ProxyCommand"));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Stops at the first criterion that does not hold: what stands behind it is not run.
    fn all_hold(&self, criteria: &[Criterion], file: &ReadFile, line: usize) -> Result<bool, ResolveError> {
        for Criterion { negated, test } in criteria {
            let holds = match test {
                Test::All => true,
                Test::SecondPass => self.settled.is_some(),
                Test::Host(list) => is_listed(list, &self.target_host()?.to_ascii_lowercase()),
                Test::OriginalHost(list) => is_listed(list, &self.original.to_ascii_lowercase()),
                Test::User(list) => is_listed(list, self.user()),
                Test::LocalUser(list) => is_listed(list, self.local.user),
                Test::Exec(command) => self.exec(command, file, line)?,
            };
            if holds == *negated {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn exec(&self, command: &str, file: &ReadFile, line: usize) -> Result<bool, ResolveError> {
        const KEYWORD: &str = "Match exec";
        if file.whose != Whose::Own {
            return Err(not_allowed(file, line, KEYWORD));
        }
        let host = self.target_host()?;
        let command = self.tokens(&host).text(command, Known::All).map_err(|error| ResolveError::Expand {
            at: Some(file.at(line)),
            keyword: KEYWORD,
            error,
        })?;
        (self.local.exec)(&command).map_err(|source| ResolveError::Exec { at: file.at(line), source })
    }

    fn user(&self) -> &str {
        self.options.user.as_deref().unwrap_or(self.local.user)
    }

    /// The name to connect to, as far as it is known.
    fn target_host(&self) -> Result<String, ResolveError> {
        if let Some(settled) = &self.settled {
            return Ok(settled.clone());
        }
        let Some((name, at)) = &self.options.host_name else { return Ok(self.host.clone()) };
        self.tokens(&self.host).text(name, Known::HostName).map_err(|error| ResolveError::Expand {
            at: at.clone(),
            keyword: "HostName",
            error,
        })
    }

    fn tokens<'t>(&'t self, host: &'t str) -> Tokens<'t> {
        Tokens {
            local: self.local,
            host,
            original: self.original,
            port: self.options.port.unwrap_or(DEFAULT_PORT),
            user: self.user(),
            key_alias: self.options.host_key_alias.as_deref(),
        }
    }

    /// The end of the first pass: the name to connect to is known.
    fn settle(&mut self) -> Result<(), ResolveError> {
        let name = usual_form(self.target_host()?, self.options.address_family.unwrap_or_default());
        if self.options.needs_a_canonical_name(&name) {
            return Err(ResolveError::CanonicalDomains(name));
        }
        self.host.clone_from(&name);
        self.settled = Some(name);
        Ok(())
    }

    fn finish(self) -> Result<Resolved, ResolveError> {
        let host_name = self.target_host()?;
        let user = self.user().to_owned();
        let tokens = self.tokens(&host_name);
        let options = &self.options;
        let key_file = |written: &String| KeyFile { written: written.clone(), path: tokens.file(written) };
        let file = |keyword, text: &str, at: &Option<Location>| {
            tokens.file(text).map_err(|error| ResolveError::Expand { at: at.clone(), keyword, error })
        };

        let written_identities = match options.identity_files.is_empty() {
            true => DEFAULT_IDENTITIES.iter().map(|name| format!("~/.ssh/{name}")).collect(),
            false => options.identity_files.clone(),
        };
        let identity_agent = match &options.identity_agent {
            None => None,
            Some((text, _)) if text == "none" => Some(IdentityAgent::None),
            Some((text, _)) if text == "SSH_AUTH_SOCK" => Some(IdentityAgent::AuthSock),
            Some((text, at)) => Some(match variable(text) {
                Some(name) => IdentityAgent::Variable(name.to_owned()),
                None => IdentityAgent::Socket(file("IdentityAgent", text, at)?),
            }),
        };
        let forward_to = match &options.forward_agent_to {
            None => None,
            Some((text, at)) => Some(match variable(text) {
                Some(name) => (ForwardAgent::Variable(name.to_owned()), text.clone()),
                None => {
                    let socket = file("ForwardAgent", text, at)?;
                    (ForwardAgent::Socket(socket.clone()), socket)
                }
            }),
        };
        let (forward_agent, forward_written) = match (forward_to, options.forward_agent) {
            (Some((_, written)), Some(false)) => (ForwardAgent::No, written),
            (Some((agent, written)), Some(true) | None) => (agent, written),
            (None, Some(true)) => (ForwardAgent::Yes, "yes".to_owned()),
            (None, Some(false) | None) => (ForwardAgent::No, "no".to_owned()),
        };
        let user_known_hosts_files = match &options.user_known_hosts_files {
            None => None,
            Some((files, at)) => {
                let files = files.iter().map(|text| file("UserKnownHostsFile", text, at));
                Some(files.collect::<Result<_, _>>()?)
            }
        };
        let written = Written {
            home: self.local.home.to_owned(),
            identity_files: written_identities,
            forward_agent: forward_written,
            proxy: self.written_proxy(),
        };
        let is_named = |text: &&String| !text.eq_ignore_ascii_case("none");
        Ok(Resolved {
            original_host: self.original.to_owned(),
            port: tokens.port,
            identity_files: written.identity_files.iter().filter(is_named).map(key_file).collect(),
            are_identity_files_given: !options.identity_files.is_empty(),
            identities_only: options.identities_only.unwrap_or(false),
            identity_agent,
            certificate_files: options.certificate_files.iter().map(key_file).collect(),
            proxy: self.proxy(&tokens)?,
            host_key_alias: options.host_key_alias.clone(),
            user_known_hosts_files,
            global_known_hosts_files: options.global_known_hosts_files.clone(),
            strict_host_key_checking: options.strict_host_key_checking,
            address_family: options.address_family.unwrap_or_default(),
            bind_address: options.bind_address.clone(),
            connect_timeout: options.connect_timeout,
            server_alive_interval: options.server_alive_interval,
            server_alive_count_max: options.server_alive_count_max,
            compression: options.compression,
            forward_agent,
            preferred_authentications: options
                .preferred_authentications
                .as_ref()
                .map(|list| list.split(',').map(str::to_owned).collect()),
            pubkey_authentication: options.pubkey_authentication.unwrap_or_default(),
            password_authentication: options.password_authentication.unwrap_or(true),
            kbd_interactive_authentication: options.kbd_interactive_authentication.unwrap_or(true),
            number_of_password_prompts: options.number_of_password_prompts.unwrap_or(3),
            set_env: options.set_env.clone(),
            send_env: options.send_env.clone(),
            proxy_use_fdpass: options.proxy_use_fdpass.unwrap_or(false),
            hash_known_hosts: options.hash_known_hosts,
            algorithms: options.algorithms.clone(),
            written,
            user,
            host_name,
        })
    }

    /// The way to the host.
    fn proxy(&self, tokens: &Tokens<'_>) -> Result<Proxy, ResolveError> {
        let (hops, at) = match &self.options.proxy {
            None | Some(ProxySetting::None) => return Ok(Proxy::Direct),
            Some(ProxySetting::Command(command)) => {
                return Ok(Proxy::Command(tokens.text(command, Known::Proxy)));
            }
            Some(ProxySetting::Jump(Jumps { hops, .. }, at)) => (hops, at),
        };
        let is_me = |hop: &&Target| {
            hop.host == tokens.host
                && hop.port.unwrap_or(DEFAULT_PORT) == tokens.port
                && hop.user.as_deref().is_none_or(|user| user == tokens.user)
        };
        if let Some(hop) = hops.last().filter(is_me) {
            return Err(ResolveError::JumpLoop(hop.host.clone()));
        }
        let expand = |text: &str| {
            tokens.text(text, Known::Proxy).map_err(|error| ResolveError::Expand {
                at: at.clone(),
                keyword: "ProxyJump",
                error,
            })
        };
        let hop = |hop: &Target| -> Result<Target, ResolveError> {
            let user = hop.user.as_deref().map(expand).transpose()?;
            Ok(Target { user, host: expand(&hop.host)?, port: hop.port })
        };
        Ok(Proxy::Jump(hops.iter().map(hop).collect::<Result<_, _>>()?))
    }

    /// The same as `ssh -G` prints it: keyword and value.
    fn written_proxy(&self) -> Option<(&'static str, String)> {
        match self.options.proxy.as_ref()? {
            ProxySetting::None => None,
            ProxySetting::Command(command) => Some(("proxycommand", command.clone())),
            ProxySetting::Jump(Jumps { hops, written }, _) => {
                Some(("proxyjump", format!("{written}{}", as_hop(hops.last()?))))
            }
        }
    }
}

fn not_allowed(file: &ReadFile, line: usize, keyword: &'static str) -> ResolveError {
    ResolveError::NotAllowed { at: file.at(line), keyword }
}

fn is_listed(list: &str, text: &str) -> bool {
    pattern::list_matches(list.as_bytes(), text.as_bytes())
}

/// The name behind a `$` that is not the beginning of `${`.
fn variable(text: &str) -> Option<&str> {
    text.strip_prefix('$').filter(|name| !name.starts_with('{'))
}

fn as_hop(Target { user, host, port }: &Target) -> String {
    let user = user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    match host.contains(':') {
        true => format!("{user}[{host}]{port}"),
        false => format!("{user}{host}{port}"),
    }
}

/// A name in lower case, an address in the form it is usually printed in.
///
/// What looks like an address and is none, or one of the other family, stays as it is.
fn usual_form(name: String, family: AddressFamily) -> String {
    if name.contains([':', '%']) {
        let address = name.parse::<Ipv6Addr>().ok().filter(|_| family != AddressFamily::Inet);
        let usual = address.map(|address| address.to_string());
        return usual.filter(|usual| !usual.eq_ignore_ascii_case(&name)).unwrap_or(name);
    }
    match old_ipv4(&name).filter(|_| family != AddressFamily::Inet6) {
        Some(address) => address.to_string(),
        None => name.to_ascii_lowercase(),
    }
}

/// An IPv4 address in any of its old spellings: one to four numbers, the last of which fills what is left; decimal, octal
/// behind `0`, hexadecimal behind `0x`. The system would take them for the same addresses.
fn old_ipv4(text: &str) -> Option<Ipv4Addr> {
    let number = |text: &str| match text.strip_prefix('0') {
        _ if !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) => None,
        Some("") => Some(0),
        Some(digits) => match digits.strip_prefix(['x', 'X']) {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => u32::from_str_radix(digits, 8).ok(),
        },
        None => text.parse().ok(),
    };
    let parts: Vec<u32> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, bytes) = parts.split_last()?;
    let left = 4_usize.checked_sub(bytes.len()).filter(|&left| left > 0)?;
    let is_too_large = u64::from(*last) >> (8 * left) != 0 || bytes.iter().any(|&byte| byte > 255);
    let head = bytes.iter().zip([24, 16, 8]).fold(0, |sum, (byte, shift)| sum | byte << shift);
    (!is_too_large).then(|| Ipv4Addr::from(head | last))
}

const DEFAULT_PORT: u16 = 22;

/// What is tried where nothing is said, in OpenSSH's order.
const DEFAULT_IDENTITIES: [&str; 7] =
    ["id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk", "id_xmss", "id_dsa"];

#[cfg(test)]
mod tests {
    use super::{AddressFamily, usual_form};

    #[test]
    fn names_and_addresses_take_their_usual_form() {
        for (name, family, expected) in [
            ("FoO", AddressFamily::Any, "foo"),
            ("127.1", AddressFamily::Any, "127.0.0.1"),
            ("0X7F.1", AddressFamily::Inet, "127.0.0.1"),
            ("1.2.3", AddressFamily::Any, "1.2.0.3"),
            ("017.2.3.4", AddressFamily::Any, "15.2.3.4"),
            ("4294967295", AddressFamily::Any, "255.255.255.255"),
            ("4294967296", AddressFamily::Any, "4294967296"),
            ("256.1.1.1", AddressFamily::Any, "256.1.1.1"),
            ("1.2.3.4.5", AddressFamily::Any, "1.2.3.4.5"),
            ("127.1.", AddressFamily::Any, "127.1."),
            ("0x", AddressFamily::Any, "0x"),
            ("1.2.3.+4", AddressFamily::Any, "1.2.3.+4"),
            ("127.1", AddressFamily::Inet6, "127.1"),
            ("::0001", AddressFamily::Any, "::1"),
            ("::0001", AddressFamily::Inet, "::0001"),
            ("FE80::1", AddressFamily::Any, "FE80::1"),
            ("A:B", AddressFamily::Any, "A:B"),
            ("FoO%lo", AddressFamily::Any, "FoO%lo"),
        ] {
            assert_eq!(usual_form(name.to_owned(), family), expected, "{name}");
        }
    }
}
