//! Well-formed keys of every type, made of nothing but their wire form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssh_files::known_hosts::HostKey;

/// An Ed25519 key whose 32 bytes are all `fill`.
pub(crate) fn ed25519(fill: u8) -> HostKey {
    HostKey::parse(&blob(&[b"ssh-ed25519", &[fill; 32]])).unwrap()
}

/// An RSA key of 2,048 bits.
pub(crate) fn rsa(fill: u8) -> HostKey {
    HostKey::parse(&blob(&[b"ssh-rsa", &[1, 0, 1], &[&[0, 0x80 | fill][..], &[fill; 255]].concat()])).unwrap()
}

/// An ECDSA key on P-256, or what looks like one.
pub(crate) fn ecdsa(fill: u8) -> HostKey {
    HostKey::parse(&blob(&[b"ecdsa-sha2-nistp256", b"nistp256", &[&[4][..], &[fill; 64]].concat()])).unwrap()
}

/// The strings of RFC 4251, section 5, one behind the other.
pub(crate) fn blob(fields: &[&[u8]]) -> Vec<u8> {
    let length = |field: &&[u8]| u32::try_from(field.len()).unwrap().to_be_bytes();
    fields.iter().flat_map(|field| [&length(field)[..], field].concat()).collect()
}

/// Type and base64, as a line of known_hosts has them.
pub(crate) fn fields(key: &HostKey) -> String {
    format!("{} {}", key.algorithm(), base64(key))
}

pub(crate) fn base64(key: &HostKey) -> String {
    STANDARD.encode(key.as_blob())
}
