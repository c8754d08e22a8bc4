//! Where a session goes and what it may show to get in.
//!
//! Nothing here reads a file or resolves a name; the `ssh` adapter does.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A host and port as written in a call: `host`, `host:port`, `[v6]:port` or a bare IPv6 address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// Host name or IP literal, without brackets.
    pub host: String,
    /// TCP port, 22 where none was written.
    pub port: u16,
}

/// Text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing stands where the host should.
    #[error("the host is empty")]
    EmptyHost,
    /// What follows the colon is no port.
    #[error("the port is not a number from 1 to 65535")]
    BadPort,
    /// A bracket is missing, or something else stands behind it.
    #[error("the brackets are not closed")]
    BadBrackets,
    /// A character no host name has.
    #[error("the host has a character that is not allowed")]
    BadHost,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, behind) = rest.split_once(']').ok_or(AddressError::BadBrackets)?;
                match behind.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if behind.is_empty() => (host, None),
                    None => return Err(AddressError::BadBrackets),
                }
            }
            None => match text.split_once(':') {
                Some((host, port)) if !port.contains(':') => (host, Some(port)),
                Some(_) | None => (text, None),
            },
        };
        if host.is_empty() {
            return Err(AddressError::EmptyHost);
        }
        // A leading dash never starts a host name, and white space or `@` mean another field was pasted in.
        if host.starts_with('-')
            || host.chars().any(|c| c.is_whitespace() || c.is_control() || "@/[]'\"".contains(c))
        {
            return Err(AddressError::BadHost);
        }
        let port = match port {
            None => 22,
            Some(digits) => match digits.parse() {
                Ok(port) if port > 0 => port,
                Ok(_) | Err(_) => return Err(AddressError::BadPort),
            },
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// An account on a host: what makes two sessions interchangeable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Where the server listens.
    pub address: Address,
    /// Whom to log in as.
    pub username: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.username, self.address)
    }
}

/// A text that is never shown: no `Debug` of its content, no `Serialize`, wiped when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret over; the caller keeps no copy.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// What a session may show to be let in, and in which order.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// Private key files on this machine, in the order they are tried.
    pub key_files: Vec<KeyFile>,
    /// Certificates for keys of these files or of the agent; where none is named, those that lie beside the key files.
    pub certificate_files: Vec<PathBuf>,
    /// Opens the key files that are encrypted.
    pub key_passphrase: Option<Secret>,
    /// Answers password authentication, and hidden prompts of keyboard-interactive.
    pub password: Option<Secret>,
    /// The socket of a running agent (`SSH_AUTH_SOCK`).
    pub agent_socket: Option<PathBuf>,
    /// Which keys of the agent are tried.
    pub agent_keys: AgentKeys,
    /// What is tried at all, one after the other.
    pub order: Order,
    /// By what keys may sign, in the words of the protocol; `None` is everything but SHA-1.
    pub signatures: Option<Vec<String>>,
}

impl Credentials {
    /// One key file that must be usable, and nothing else.
    pub fn by_key(path: impl Into<PathBuf>) -> Self {
        Self { key_files: vec![KeyFile { path: path.into(), need: Need::Required }], ..Self::default() }
    }
}

/// A private key file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it means if it cannot be used.
    pub need: Need,
}

/// What it means if a key file cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The caller named it: the attempt fails.
    Required,
    /// A configuration or a default names it: the others are tried.
    IfUsable,
}

/// Which keys of an agent are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AgentKeys {
    /// All.
    #[default]
    All,
    /// Those of the key files (`IdentitiesOnly yes`).
    OfKeyFiles,
}

/// What can be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// Certificates, and keys that are named by a file; an agent may sign for them.
    NamedKeys,
    /// The password.
    Password,
    /// The password, as the answer to questions.
    KeyboardInteractive,
    /// The agent's other keys.
    AgentKeys,
}

/// What is tried, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order(pub Vec<Means>);

impl Default for Order {
    /// Keys that somebody named, the password by either door, then whatever the agent holds.
    fn default() -> Self {
        Self(vec![Means::NamedKeys, Means::Password, Means::KeyboardInteractive, Means::AgentKeys])
    }
}

/// One host on the way, the last one included: where it is, what to show there, and whom to believe it is.
#[derive(Debug, Clone)]
pub struct Hop {
    /// Account and host.
    pub target: Target,
    /// The name its key is looked up by, where that is not the host's (`HostKeyAlias`).
    pub host_key_name: Option<String>,
    /// What to show.
    pub credentials: Credentials,
    /// How its key is judged.
    pub host_keys: HostKeys,
    /// How the connection is made and kept.
    pub wire: Wire,
    /// What every channel of a session there begins with.
    pub lendings: Lendings,
}

/// What a session lends to the programs it runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lendings {
    /// Variables, of which the server takes those it likes.
    pub variables: Vec<(String, String)>,
    /// The socket of the agent that may be asked from there.
    pub agent: Option<PathBuf>,
}

/// How a host's key is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKeys {
    /// What to do with an unknown one.
    pub policy: HostKeyPolicy,
    /// The user's `known_hosts` files; an unknown key is learnt into the first.
    pub user_files: Vec<PathBuf>,
    /// The system's, if not the usual ones.
    pub global_files: Option<Vec<PathBuf>>,
    /// Whether names are hidden in what is learnt; `None` goes by the file.
    pub hashed: Option<bool>,
}

/// How a connection is made and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    /// Whether zlib is offered.
    pub compression: Compression,
    /// How a dead peer is found out.
    pub keepalive: Keepalive,
    /// Which addresses of a name are tried.
    pub family: Family,
    /// The local address to connect from.
    pub bind_address: Option<String>,
    /// The program that is spoken through in place of a connection of our own.
    pub program: Option<Program>,
    /// What is offered in the key exchange, where the usual does not serve.
    pub algorithms: Algorithms,
}

/// A program whose input and output lead to a host (`ProxyCommand`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The shell that runs it.
    pub shell: PathBuf,
    /// Its command line.
    pub line: String,
}

/// Which addresses of a name are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// All.
    #[default]
    Any,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Algorithms by their names in the protocol, the preferred one first; `None` leaves the choice to the adapter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Algorithms {
    /// Key exchange.
    pub kex: Option<Vec<String>>,
    /// Ciphers.
    pub ciphers: Option<Vec<String>>,
    /// Message authentication codes.
    pub macs: Option<Vec<String>>,
    /// Signatures of the host.
    pub host_keys: Option<Vec<String>>,
}

/// What else makes two sessions to the same account interchangeable: the same private address behind two jump hosts is two
/// places.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Route {
    /// The hosts jumped over, the nearest first.
    pub via: Vec<Target>,
    /// The name the host's key is looked up by.
    pub host_key_name: Option<String>,
    /// The command line of the program that leads there.
    pub program: Option<String>,
    /// What programs there are lent.
    pub lendings: Lendings,
}

/// What to do with a host key that is not known (OpenSSH's `StrictHostKeyChecking`).
///
/// In order of strength: what a caller asks for and what the operator wants meet in the greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostKeyPolicy {
    /// Take any key, also a changed one, and learn nothing.
    DangerAcceptAny,
    /// Learn an unknown key and report it; refuse a changed one.
    AcceptNew,
    /// Learn an unknown key that the user has accepted; refuse any other.
    Ask,
    /// Refuse it.
    Strict,
}

/// The key a host shows, where nothing is known of the host: what a user is asked about, and what is accepted if the
/// answer is yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownKey {
    /// The name it is looked up and learnt by, as it stands in `known_hosts`: `host`, `[host]:port` or an alias.
    pub name: String,
    /// Where it was shown.
    pub address: Address,
    /// Algorithm name as in `known_hosts`.
    pub algorithm: String,
    /// `SHA256:` and the hash in unpadded base64.
    pub fingerprint: String,
}

/// Whether zlib is offered to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// When the TCP connect took 10 ms or longer: on a fast line zlib is the bottleneck.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// How a dead peer is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Time between two keepalives on a quiet connection.
    pub interval: Duration,
    /// Unanswered intervals after which the connection counts as lost.
    pub max: u32,
}

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(&str, u16), AddressError>) {
        let parsed = text.parse::<Address>();
        assert_eq!(parsed, expected.map(|(host, port)| Address { host: host.to_owned(), port }), "{text}");
    }

    #[test]
    fn addresses_as_people_write_them() {
        check("example.org", Ok(("example.org", 22)));
        check(" example.org:2222 ", Ok(("example.org", 2222)));
        check("192.0.2.1:22", Ok(("192.0.2.1", 22)));
        check("2001:db8::1", Ok(("2001:db8::1", 22)));
        check("[2001:db8::1]", Ok(("2001:db8::1", 22)));
        check("[2001:db8::1]:2200", Ok(("2001:db8::1", 2200)));
        check("fe80::1%eth0", Ok(("fe80::1%eth0", 22)));
    }

    #[test]
    fn addresses_that_are_refused() {
        check("", Err(AddressError::EmptyHost));
        check(":22", Err(AddressError::EmptyHost));
        check("host:0", Err(AddressError::BadPort));
        check("host:70000", Err(AddressError::BadPort));
        check("host:ssh", Err(AddressError::BadPort));
        check("[::1", Err(AddressError::BadBrackets));
        check("[::1]22", Err(AddressError::BadBrackets));
        check("user@host", Err(AddressError::BadHost));
        check("-oProxyCommand=x", Err(AddressError::BadHost));
        check("a b", Err(AddressError::BadHost));
    }

    #[test]
    fn an_address_prints_what_it_was_read_from() {
        for text in ["example.org:22", "[2001:db8::1]:2200"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let shown = format!(
            "{:?}",
            Credentials { password: Some(Secret::new("hunter2".into())), ..Credentials::default() }
        );
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
