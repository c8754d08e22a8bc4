//! Public keys of hosts as wire blobs: their type, their shape, their fingerprint.
//!
//! Only as much is read as decides whether OpenSSH would take the key at all. Whether a number is prime or a point lies
//! on its curve is the business of whoever checks signatures.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest as _, Sha256};

/// A host's public key in the wire form of RFC 4253, section 6.6, of a type known_hosts can hold.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HostKey {
    algorithm: &'static str,
    blob: Box<[u8]>,
}

/// Why a blob is not a host key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostKeyError {
    /// A type that does not stand in known_hosts; certificates are among them.
    #[error("host key type {0} has no place in known_hosts")]
    UnknownType(String),
    /// The bytes are not a key of the type they name.
    #[error("host key is malformed")]
    Malformed,
}

impl HostKey {
    /// Reads a blob as it arrives in the key exchange.
    pub fn parse(blob: &[u8]) -> Result<HostKey, HostKeyError> {
        let (name, rest) = field(blob).ok_or(HostKeyError::Malformed)?;
        let Some((algorithm, parts)) = TYPES.iter().find(|(known, _)| known.as_bytes() == name) else {
            return Err(match std::str::from_utf8(name) {
                Ok(name) if is_algorithm_name(name) => HostKeyError::UnknownType(name.to_owned()),
                _ => HostKeyError::Malformed,
            });
        };
        if blob.len() > BLOB_MAX || !has_shape(rest, parts) {
            return Err(HostKeyError::Malformed);
        }
        Ok(HostKey { algorithm, blob: blob.into() })
    }

    /// The name of the key's type, such as `ssh-ed25519`.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    /// The blob itself.
    pub fn as_blob(&self) -> &[u8] {
        &self.blob
    }

    /// `SHA256:` and the digest of the blob in base64 without padding, as OpenSSH prints it.
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(&self.blob)))
    }

    /// Reads the two fields of a line in known_hosts; `None` if OpenSSH would skip the line.
    pub(super) fn from_fields(algorithm: &[u8], base64: &[u8]) -> Option<HostKey> {
        if base64.len() > BLOB_MAX * 4 / 3 + 4 {
            return None;
        }
        let key = HostKey::parse(&STANDARD.decode(base64).ok()?).ok()?;
        let is_named_right = algorithm == key.algorithm.as_bytes()
            // The names of RSA's signature schemes (RFC 8332) stand for the key they are made with.
            || key.algorithm == "ssh-rsa" && matches!(algorithm, b"rsa-sha2-256" | b"rsa-sha2-512");
        is_named_right.then_some(key)
    }

    /// The two fields of a line in known_hosts.
    pub(super) fn to_fields(&self) -> String {
        format!("{} {}", self.algorithm, STANDARD.encode(&self.blob))
    }
}

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostKey({} {})", self.algorithm, self.fingerprint())
    }
}

/// What stands in one length-prefixed field of a key.
enum Part {
    /// Exactly this many bytes.
    Bytes(usize),
    /// Exactly this text.
    Text(&'static [u8]),
    /// An uncompressed point of an elliptic curve, of this length in all.
    Point(usize),
    /// A number that is not negative (RFC 4251, section 5).
    Number,
    /// An RSA modulus: OpenSSH takes none below 1,024 bits.
    Modulus,
    /// Any text.
    Any,
}

impl Part {
    fn accepts(&self, value: &[u8]) -> bool {
        match *self {
            Part::Bytes(length) => value.len() == length,
            Part::Text(text) => value == text,
            Part::Point(length) => value.len() == length && value.first() == Some(&4),
            Part::Number => value.first().is_none_or(|&byte| byte < 0x80),
            Part::Modulus => {
                let digits = value.strip_prefix(&[0]).unwrap_or(value);
                Part::Number.accepts(value)
                    && (digits.len() > 128 || digits.len() == 128 && digits.first() >= Some(&0x80))
            }
            Part::Any => true,
        }
    }
}

fn has_shape(mut rest: &[u8], parts: &[Part]) -> bool {
    for part in parts {
        let Some((value, after)) = field(rest) else { return false };
        if !part.accepts(value) {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

/// RFC 4251, section 6: printable ASCII of at most 64 characters.
fn is_algorithm_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Splits off one string of RFC 4251, section 5: a 32-bit length and that many bytes.
fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// The types of sshd(8) with their fields behind the name: RFC 4253 6.6, RFC 5656 3.1, RFC 8709 4, and OpenSSH's PROTOCOL.u2f.
const TYPES: &[(&str, &[Part])] = &[
    ("ssh-ed25519", &[Part::Bytes(32)]),
    ("ecdsa-sha2-nistp256", &[Part::Text(b"nistp256"), Part::Point(65)]),
    ("ecdsa-sha2-nistp384", &[Part::Text(b"nistp384"), Part::Point(97)]),
    ("ecdsa-sha2-nistp521", &[Part::Text(b"nistp521"), Part::Point(133)]),
    ("ssh-rsa", &[Part::Number, Part::Modulus]),
    ("ssh-dss", &[Part::Number, Part::Number, Part::Number, Part::Number]),
    ("sk-ssh-ed25519@openssh.com", &[Part::Bytes(32), Part::Any]),
    ("sk-ecdsa-sha2-nistp256@openssh.com", &[Part::Text(b"nistp256"), Part::Point(65), Part::Any]),
];

/// Above any key OpenSSH takes: RSA with 16,384 bits has little over 2 KiB.
const BLOB_MAX: usize = 16 << 10;
