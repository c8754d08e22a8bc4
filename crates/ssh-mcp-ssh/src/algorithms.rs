//! Algorithms by name: what a configuration can choose from, in the order OpenSSH prefers them in.
//!
//! `Ciphers +x` and its like are laid on these lists, so that a line means here what it means there. Where a configuration
//! says nothing, a connection keeps its own order, which knows what this processor is good at.

use openssh_files::config::{AlgorithmKind, Offer};
use russh::keys::Algorithm;

/// What there is of a kind.
pub fn offer(kind: AlgorithmKind) -> Offer<'static> {
    match kind {
        AlgorithmKind::Ciphers => Offer { default: CIPHERS.split_at(DEFAULT_CIPHERS).0, known: CIPHERS },
        AlgorithmKind::Macs => Offer { default: MACS, known: MACS },
        AlgorithmKind::Kex => Offer { default: KEX.split_at(DEFAULT_KEX).0, known: KEX },
        AlgorithmKind::HostKey => {
            Offer { default: HOST_KEYS.split_at(DEFAULT_HOST_KEYS).0, known: HOST_KEYS }
        }
        AlgorithmKind::PubkeyAccepted => {
            Offer { default: USER_KEYS.split_at(DEFAULT_USER_KEYS).0, known: USER_KEYS }
        }
    }
}

/// The algorithm a host signs with, and whether the name asks for a certificate of its key; `None` for names russh does
/// not know.
pub(crate) fn host_key(name: &str) -> Option<(Algorithm, Shown)> {
    let (plain, shown) = match name.strip_suffix("-cert-v01@openssh.com") {
        Some(plain) => (plain, Shown::Certificate),
        None => (name, Shown::Key),
    };
    Some((plain.parse().ok()?, shown))
}

/// What a host shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Its key.
    Key,
    /// A certificate of its key.
    Certificate,
}

/// Whether a name is that of a key exchange, and not of something that is announced beside them.
pub(crate) fn is_kex(name: &str) -> bool {
    KEX.contains(&name)
}

/// The first ones are offered unasked.
const CIPHERS: &[&str] = &[
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-cbc",
    "aes192-cbc",
    "aes256-cbc",
];

const DEFAULT_CIPHERS: usize = 6;

const MACS: &[&str] = &[
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha1-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
    "hmac-sha1",
];

const KEX: &[&str] = &[
    "mlkem768x25519-sha256",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group-exchange-sha256",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group18-sha512",
    "diffie-hellman-group14-sha256",
    "diffie-hellman-group14-sha1",
    "diffie-hellman-group1-sha1",
    "diffie-hellman-group-exchange-sha1",
];

const DEFAULT_KEX: usize = 10;

/// Certificates are asked for only of hosts that an authority is known for.
const HOST_KEYS: &[&str] = &[
    "ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp384-cert-v01@openssh.com",
    "ecdsa-sha2-nistp521-cert-v01@openssh.com",
    "rsa-sha2-512-cert-v01@openssh.com",
    "rsa-sha2-256-cert-v01@openssh.com",
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
    "ssh-rsa",
];

const DEFAULT_HOST_KEYS: usize = 12;

const USER_KEYS: &[&str] = &[
    "ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp384-cert-v01@openssh.com",
    "ecdsa-sha2-nistp521-cert-v01@openssh.com",
    "sk-ssh-ed25519-cert-v01@openssh.com",
    "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "rsa-sha2-512-cert-v01@openssh.com",
    "rsa-sha2-256-cert-v01@openssh.com",
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
    "ssh-rsa",
    "ssh-rsa-cert-v01@openssh.com",
];

const DEFAULT_USER_KEYS: usize = 16;

#[cfg(test)]
mod tests {
    use super::{CIPHERS, HOST_KEYS, KEX, MACS};

    #[test]
    fn every_name_is_one_that_russh_knows() {
        for name in CIPHERS {
            assert!(russh::cipher::Name::try_from(*name).is_ok(), "{name}");
        }
        for name in MACS {
            assert!(russh::mac::Name::try_from(*name).is_ok(), "{name}");
        }
        for name in KEX {
            assert!(russh::kex::Name::try_from(*name).is_ok(), "{name}");
        }
        for name in HOST_KEYS {
            let (algorithm, shown) = super::host_key(name).unwrap();
            let certificate = algorithm.to_certificate_type();
            let plain = algorithm.to_string();
            let expected = if shown == super::Shown::Certificate { &certificate } else { &plain };
            assert_eq!(name, expected);
        }
    }

    #[test]
    fn the_ones_that_only_stand_in_for_others_are_not_offered_unasked() {
        use openssh_files::config::AlgorithmKind;
        let last = |kind| super::offer(kind).default.last().copied();
        assert_eq!(last(AlgorithmKind::Ciphers), Some("aes256-gcm@openssh.com"));
        assert_eq!(last(AlgorithmKind::Kex), Some("diffie-hellman-group14-sha256"));
        assert_eq!(last(AlgorithmKind::HostKey), Some("rsa-sha2-256"));
        assert_eq!(last(AlgorithmKind::PubkeyAccepted), Some("rsa-sha2-256"));
    }
}
