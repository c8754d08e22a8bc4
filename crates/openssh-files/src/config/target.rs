//! How a host is written: by name, with a user, with a port, as a URI.

use std::net::Ipv6Addr;

/// A host to connect to, as somebody names it: an alias of the configuration, a name or an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Whom to log in as, if it is said.
    pub user: Option<String>,
    /// Alias, name or address; an IPv6 address without its brackets.
    pub host: String,
    /// The port, if it is said.
    pub port: Option<u16>,
}

/// Why a text names no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No host in it.
    #[error("no host in {0:?}")]
    NoHost(String),
    /// An empty user, or one with characters that OpenSSH refuses.
    #[error("bad user name in {0:?}")]
    User(String),
    /// Characters that OpenSSH refuses, a leading dash among them.
    #[error("bad host name {0:?}")]
    Host(String),
    /// Not a number from 1 to 65535.
    #[error("bad port in {0:?}")]
    Port(String),
}

impl Target {
    /// Reads `host`, `user@host`, `host:port`, `[address]:port` or `ssh://user@host:port`.
    ///
    /// An IPv6 address may stand without brackets where no port follows. The user ends at the last `@`.
    pub fn parse(text: &str) -> Result<Target, TargetError> {
        let target = Target::split(text)?;
        check_host(&target.host)?;
        if let Some(user) = &target.user {
            check_user(user)?;
        }
        Ok(target)
    }

    /// [`Target::parse`] without its check of characters: for files, whose author may write what he likes.
    pub(super) fn split(text: &str) -> Result<Target, TargetError> {
        let uri = text.strip_prefix("ssh://");
        let (user, address) = match uri.unwrap_or(text).rsplit_once('@') {
            Some(("", _)) => return Err(TargetError::User(text.to_owned())),
            Some((user, address)) => (Some(user), address),
            None => (None, uri.unwrap_or(text)),
        };
        let address = uri.and(address.strip_suffix('/')).unwrap_or(address);
        let no_host = || TargetError::NoHost(text.to_owned());
        let bad_port = || TargetError::Port(text.to_owned());
        let (host, port) = match address.strip_prefix('[') {
            Some(bracketed) => {
                let (host, behind) = bracketed.split_once(']').ok_or_else(no_host)?;
                let port = match behind {
                    "" => None,
                    behind => Some(behind.strip_prefix(':').ok_or_else(bad_port)?),
                };
                (host, port)
            }
            None if is_ipv6(address) => (address, None),
            None => match address.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            },
        };
        if host.is_empty() || host.contains('/') {
            return Err(no_host());
        }
        let port = match port {
            None | Some("") => None,
            Some(port) => Some(super::setting::port(port).ok_or_else(bad_port)?),
        };
        let user = match (user, uri) {
            (Some(user), Some(_)) => Some(decoded(user).ok_or_else(|| TargetError::User(text.to_owned()))?),
            (user, _) => user.map(str::to_owned),
        };
        Ok(Target { user, host: host.to_owned(), port })
    }
}

/// True for an IPv6 address, with a zone or without.
fn is_ipv6(text: &str) -> bool {
    text.split_once('%').map_or(text, |(address, _)| address).parse::<Ipv6Addr>().is_ok()
}

/// Fails for host names that could mean something to a shell, as OpenSSH does: `%h` may stand in a `ProxyCommand`.
pub(super) fn check_host(host: &str) -> Result<(), TargetError> {
    let is_bad =
        |c: char| c.is_ascii_control() || c.is_whitespace() || SHELL.contains(c) || "$\\".contains(c);
    match host.is_empty() || host.starts_with('-') || host.contains(is_bad) {
        true => Err(TargetError::Host(host.to_owned())),
        false => Ok(()),
    }
}

/// The same for `%r`.
pub(super) fn check_user(user: &str) -> Result<(), TargetError> {
    let is_bad = |c: char| c.is_ascii_control() || SHELL.contains(c);
    // A blank may part words, and the next one would be a flag of whatever program gets it.
    let has_flag = user.split(char::is_whitespace).any(|word| word.starts_with('-'));
    match user.is_empty() || has_flag || user.ends_with('\\') || user.contains(is_bad) {
        true => Err(TargetError::User(user.to_owned())),
        false => Ok(()),
    }
}

const SHELL: &str = "'`\";&<>|(){}";

/// The user part of a URI: `%40` is a byte, what follows a `;` is about the connection and passed over.
fn decoded(user: &str) -> Option<String> {
    let mut bytes = user.split(';').next()?.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok().filter(|&byte| byte != 0)?
            }
            other => other,
        });
    }
    String::from_utf8(decoded).ok().filter(|user| !user.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{Target, TargetError};

    #[track_caller]
    fn check(text: &str, user: Option<&str>, host: &str, port: Option<u16>) {
        let expected = Target { user: user.map(str::to_owned), host: host.to_owned(), port };
        assert_eq!(Target::parse(text), Ok(expected), "{text:?}");
    }

    #[test]
    fn ways_to_name_a_host() {
        check("db", None, "db", None);
        check("db:2222", None, "db", Some(2222));
        check("me@db", Some("me"), "db", None);
        check("me@db:2222", Some("me"), "db", Some(2222));
        check("me@corp@db", Some("me@corp"), "db", None);
        check("2001:db8::1", None, "2001:db8::1", None);
        check("me@::1", Some("me"), "::1", None);
        check("[::1]", None, "::1", None);
        check("me@[::1]:22", Some("me"), "::1", Some(22));
        check("ssh://me@db:2222", Some("me"), "db", Some(2222));
        check("ssh://db/", None, "db", None);
        check("ssh://a%40b;x=y@db", Some("a@b"), "db", None);
        check("ssh://[::1]:22", None, "::1", Some(22));
        check("fe80::1%eth0", None, "fe80::1%eth0", None);
    }

    #[test]
    fn texts_that_name_none() {
        for text in
            ["", "me@", "@db", ":22", "[]", "ssh://", "ssh://a/b", "[::1", "ssh://%zz@a", "ssh://%00@a"]
        {
            assert!(Target::parse(text).is_err(), "{text:?}");
        }
        for text in ["db:0", "db:65536", "db:x", "db:1:2", "[db]22"] {
            assert_eq!(Target::parse(text), Err(TargetError::Port(text.to_owned())));
        }
        for host in ["-oProxyCommand=x", "a b", "a;b", "a$(b)", "a`b`", "a|b", "a\nb"] {
            assert_eq!(Target::parse(host), Err(TargetError::Host(host.to_owned())));
        }
        for user in ["-l", "a;b", "a'b", "a\\"] {
            assert_eq!(Target::parse(&format!("{user}@db")), Err(TargetError::User(user.to_owned())));
        }
    }
}
