//! Host and client keys of a test server, made by `ssh-keygen` in the server's directory.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::layout::{self, User};

/// The pass phrase of [`ClientKey::Ed25519Encrypted`].
pub(crate) const PASSPHRASE: &str = "correct horse battery staple";

/// A host key the server may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostKey {
    /// `ssh-ed25519`
    Ed25519,
    /// `rsa-sha2-*`, 2048 bits
    Rsa,
    /// `ecdsa-sha2-nistp256`
    Ecdsa,
}

impl HostKey {
    /// All of them, in the order OpenSSH lists them by default.
    pub(crate) const ALL: [Self; 3] = [Self::Rsa, Self::Ecdsa, Self::Ed25519];

    /// The private key's file.
    pub(super) fn path(self, dir: &Path) -> PathBuf {
        dir.join(format!("host_{}", self.keygen_type()))
    }

    fn keygen_type(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Rsa => "rsa",
            Self::Ecdsa => "ecdsa",
        }
    }
}

/// A key to log in with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientKey {
    /// ed25519 in OpenSSH's own format, no pass phrase.
    Ed25519,
    /// ed25519 in OpenSSH's own format, under [`PASSPHRASE`].
    Ed25519Encrypted,
    /// RSA, 2048 bits, in PEM (PKCS#1).
    RsaPem,
    /// ECDSA nistp256 in PKCS#8.
    EcdsaPkcs8,
    /// A good ed25519 key that no user admits.
    Stranger,
}

impl ClientKey {
    /// Every key that logs in.
    pub(crate) const ADMITTED: [Self; 4] =
        [Self::Ed25519, Self::Ed25519Encrypted, Self::RsaPem, Self::EcdsaPkcs8];

    fn file_name(self) -> &'static str {
        match self {
            Self::Ed25519 => "client_ed25519",
            Self::Ed25519Encrypted => "client_ed25519_encrypted",
            Self::RsaPem => "client_rsa_pem",
            Self::EcdsaPkcs8 => "client_ecdsa_pkcs8",
            Self::Stranger => "client_stranger",
        }
    }

    fn keygen_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Ed25519 | Self::Stranger => &["-t", "ed25519", "-N", ""],
            // Few derivation rounds: the tests are about the format, not about the time it takes.
            Self::Ed25519Encrypted => &["-t", "ed25519", "-N", PASSPHRASE, "-a", "4"],
            Self::RsaPem => &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""],
            Self::EcdsaPkcs8 => &["-t", "ecdsa", "-m", "PKCS8", "-N", ""],
        }
    }
}

/// Makes a host key, in place of an earlier one if there is one.
pub(super) fn generate_host_key(dir: &Path, key: HostKey) {
    let path = key.path(dir);
    for old in [path.clone(), path.with_extension("pub")] {
        if old.exists() {
            fs::remove_file(&old).expect("our own file");
        }
    }
    let bits: &[&str] = if key == HostKey::Rsa { &["-b", "2048"] } else { &[] };
    keygen(&[&["-t", key.keygen_type(), "-N", ""], bits].concat(), &path);
}

/// `TYPE BASE64` of a host key.
pub(super) fn public_host_key(dir: &Path, key: HostKey) -> String {
    let line = fs::read_to_string(key.path(dir).with_extension("pub")).expect("ssh-keygen wrote it");
    line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// `SHA256:…` of a host key.
pub(super) fn fingerprint(dir: &Path, key: HostKey) -> String {
    let output =
        Command::new("ssh-keygen").arg("-lf").arg(key.path(dir)).output().expect("ssh-keygen starts");
    let line = String::from_utf8(output.stdout).expect("ssh-keygen prints text");
    line.split_whitespace().nth(1).expect("size, fingerprint, comment").to_owned()
}

/// The file of a client key; at first use it is generated and, unless a stranger's, admitted for both users.
pub(super) fn client_key(dir: &Path, key: ClientKey) -> PathBuf {
    let path = dir.join(key.file_name());
    if path.exists() {
        return path;
    }
    keygen(key.keygen_arguments(), &path);
    if key != ClientKey::Stranger {
        let public = fs::read(path.with_extension("pub")).expect("ssh-keygen wrote it");
        for user in User::BOTH {
            let admitted = layout::home(dir, user).join(".ssh/authorized_keys");
            let file = fs::OpenOptions::new().append(true).open(admitted);
            file.and_then(|mut file| file.write_all(&public)).expect("the home directory is ours");
        }
    }
    path
}

pub(super) fn keygen(arguments: &[&str], path: &Path) {
    let output = Command::new("ssh-keygen")
        .args(["-q", "-C", "ssh-mcp-test"])
        .args(arguments)
        .arg("-f")
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .expect("ssh-keygen starts");
    assert!(output.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&output.stderr));
}
