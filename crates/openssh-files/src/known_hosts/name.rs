//! The name under which a host stands in known_hosts, and its hashed form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha1::Sha1;

use crate::pattern;

/// The name a host is looked up and learnt under, in lower case (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).
///
/// *Invariant:* holds no byte that could end a field or a line, or that a reader would take for a pattern, a marker, a
/// comment or a hash. So what is appended under this name is found under it again, and nothing else is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostName {
    name: String,
    bare: Option<String>,
}

/// Why a text cannot be a host name in known_hosts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostNameError {
    /// Nothing to look up.
    #[error("host name is empty")]
    Empty,
    /// A character that means something else in the file.
    #[error("host name holds {0:?}")]
    Forbidden(char),
    /// Longer than OpenSSH compares.
    #[error("host name is longer than {NAME_MAX} bytes")]
    TooLong,
}

impl HostName {
    /// The name of `host` on `port`: bare for port 22, else `[host]:port`; brackets around an IPv6 address are dropped first.
    pub fn new(host: &str, port: u16) -> Result<HostName, HostNameError> {
        let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let bare = checked(inner, |c| matches!(c, '[' | ']'))?;
        Ok(match port {
            SSH_PORT => HostName { name: bare, bare: None },
            port => HostName { name: format!("[{bare}]:{port}"), bare: Some(bare) },
        })
    }

    /// A name used instead of host and port, as `HostKeyAlias` in ssh_config(5); the port does not become part of it.
    pub fn alias(alias: &str) -> Result<HostName, HostNameError> {
        Ok(HostName { name: checked(alias, |_| false)?, bare: None })
    }

    /// The name as it stands in the file.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Whether a principal of a host certificate names this host: the port does not count, `*` and `?` do.
    pub fn is_principal(&self, principal: &str) -> bool {
        let name = self.bare.as_ref().unwrap_or(&self.name);
        pattern::matches(principal.to_ascii_lowercase().as_bytes(), name.as_bytes())
    }

    /// The name without its port, where it has one: OpenSSH falls back to it for a host not known under its port.
    pub(super) fn without_port(&self) -> Option<HostName> {
        let name = self.bare.clone()?;
        Some(HostName { name, bare: None })
    }
}

impl std::fmt::Display for HostName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// A host name hidden behind HMAC-SHA1: `|1|salt|hash`, both parts in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HashedName {
    salt: [u8; 20],
    hash: [u8; 20],
}

impl HashedName {
    pub(super) fn of(name: &HostName, salt: [u8; 20]) -> HashedName {
        HashedName { salt, hash: keyed(salt).chain_update(name.as_str()).finalize().into_bytes().into() }
    }

    /// Reads `|1|salt|hash`; `None` if any part of it has another form.
    pub(super) fn parse(field: &[u8]) -> Option<HashedName> {
        let mut parts = field.strip_prefix(MAGIC.as_bytes())?.splitn(2, |&byte| byte == b'|');
        let mut bytes = || twenty_bytes(parts.next()?);
        Some(HashedName { salt: bytes()?, hash: bytes()? })
    }

    /// Whether it hides one of these names; half of the work is the salt's, and is done once for all of them.
    pub(super) fn is_of_any<'a>(&self, names: impl IntoIterator<Item = &'a HostName>) -> bool {
        let keyed = keyed(self.salt);
        names
            .into_iter()
            .any(|name| keyed.clone().chain_update(name.as_str()).finalize().into_bytes()[..] == self.hash)
    }
}

impl std::fmt::Display for HashedName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{MAGIC}{}|{}", STANDARD.encode(self.salt), STANDARD.encode(self.hash))
    }
}

fn keyed(salt: [u8; 20]) -> Hmac<Sha1> {
    // HMAC fills a short key up with zeros to the 64 bytes of SHA-1's block: done here, the key cannot have a wrong size.
    let mut key = [0; 64];
    for (slot, byte) in key.iter_mut().zip(salt) {
        *slot = byte;
    }
    <Hmac<Sha1> as hmac::digest::KeyInit>::new(&key.into())
}

/// Twenty bytes in base64. A long file has tens of thousands of them, so none is put on the heap.
fn twenty_bytes(base64: &[u8]) -> Option<[u8; 20]> {
    // As much as the decoder wants for a text of this length; a longer text does not fit.
    let mut room = [0; 21];
    match STANDARD.decode_slice(base64, &mut room) {
        Ok(20) => room.first_chunk().copied(),
        Ok(_) | Err(_) => None,
    }
}

fn checked(text: &str, is_forbidden: impl Fn(char) -> bool) -> Result<String, HostNameError> {
    if text.is_empty() {
        return Err(HostNameError::Empty);
    }
    if text.len() > NAME_MAX {
        return Err(HostNameError::TooLong);
    }
    let special = |c: char| c.is_control() || c.is_whitespace() || ",*?!|#@".contains(c) || is_forbidden(c);
    match text.chars().find(|&c| special(c)) {
        Some(c) => Err(HostNameError::Forbidden(c)),
        None => Ok(text.to_ascii_lowercase()),
    }
}

const SSH_PORT: u16 = 22;
const MAGIC: &str = "|1|";

/// Below the length at which OpenSSH stops comparing patterns, with room for brackets and a port.
const NAME_MAX: usize = 1000;
