//! Private keys from files: OpenSSH, PKCS#8, PEM (PKCS#1, SEC1) and PuTTY, encrypted or not.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(unix)]
use openssh_files::config::refuse_foreign_eyes;
use russh::keys::{self, Algorithm, Certificate, PrivateKey, PublicKey, ssh_key};
use ssh_mcp_core::port::ssh::ConnectError;
use ssh_mcp_core::target::{Credentials, KeyFile, Need, Secret};
#[cfg(unix)]
use ssh_mcp_core::target_names;
use ssh_mcp_core::text::remote_words;
use zeroize::Zeroizing;

/// What the files of a login come to.
#[derive(Default)]
pub(crate) struct Keys {
    /// The key files that exist, in their order.
    pub(crate) files: Vec<Loaded>,
    /// The certificates, those that were named or else those beside the key files.
    pub(crate) certificates: Vec<(PathBuf, Certificate)>,
    /// Why certificates were passed over.
    pub(crate) passed_over: Vec<String>,
}

/// One key file.
pub(crate) struct Loaded {
    pub(crate) path: PathBuf,
    pub(crate) need: Need,
    /// The public half, as far as it can be told: an agent may hold what the file does not give up.
    pub(crate) public: Option<PublicKey>,
    /// The key, or why it cannot be used.
    pub(crate) private: Result<Arc<PrivateKey>, String>,
}

/// Reads and opens the files of a login where it may take its time: deriving the key of an encrypted one costs 0.1 to
/// 0.3 s.
pub(crate) async fn load_all(credentials: &Credentials) -> Result<Keys, ConnectError> {
    let credentials = credentials.clone();
    let work = tokio::task::spawn_blocking(move || read_all(&credentials));
    work.await.map_err(|panic| ConnectError::Key {
        path: "key files".to_owned(),
        cause: remote_words(&panic.to_string()),
    })
}

fn read_all(credentials: &Credentials) -> Keys {
    let Credentials { key_files, certificate_files, key_passphrase, .. } = credentials;
    let mut keys = Keys::default();
    for KeyFile { path, need } in key_files {
        let private = read(path, key_passphrase.as_ref()).map(Arc::new);
        let public = match &private {
            Ok(key) => Some(key.public_key().clone()),
            Err(_) => public_half(path),
        };
        // A missing file is not worth a word, unless somebody wants it or its public half is there.
        if private.is_ok() || public.is_some() || *need == Need::Required || path.exists() {
            keys.files.push(Loaded { path: path.clone(), need: *need, public, private });
        }
    }
    if certificate_files.is_empty() {
        for file in key_files {
            let beside = with_suffix(&file.path, "-cert.pub");
            if let Ok(certificate) = read_certificate(&beside) {
                keys.certificates.push((beside, certificate));
            }
        }
    }
    for path in certificate_files {
        match read_certificate(path) {
            Ok(certificate) => keys.certificates.push((path.clone(), certificate)),
            Err(_) if !path.exists() => {}
            Err(cause) => {
                let cause = remote_words(&cause);
                keys.passed_over.push(format!("publickey (certificate {}: {cause})", path.display()));
            }
        }
    }
    keys
}

/// The public half of a key that stays closed: an encrypted file of OpenSSH's own format shows it; else it lies beside the
/// private one, or in its place, because `IdentityFile` may name either where an agent holds the rest.
fn public_half(path: &Path) -> Option<PublicKey> {
    let own = std::fs::read(path).ok().map(Zeroizing::new);
    let shown =
        own.and_then(|text| PrivateKey::from_openssh(&*text).ok()).map(|key| key.public_key().clone());
    shown.or_else(|| {
        [with_suffix(path, ".pub").as_path(), path].into_iter().find_map(|file| {
            let (text, _) = content(file).ok()?;
            PublicKey::from_openssh(text.trim()).ok()
        })
    })
}

fn read_certificate(path: &Path) -> Result<Certificate, String> {
    let (text, _) = content(path).map_err(|error| error.to_string())?;
    Certificate::from_openssh(text.trim()).map_err(|error| format!("it cannot be read: {error}"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn read(path: &Path, passphrase: Option<&Secret>) -> Result<PrivateKey, String> {
    let (text, metadata) = match content(path) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err("it is not a private key".to_owned());
        }
        Err(error) => return Err(error.to_string()),
    };
    if !is_public(&text) {
        refuse_open(path, &metadata)?;
    }
    // A pass phrase for a key that needs none is not looked at, as OpenSSH does; not every decoder leaves it alone.
    let needed = passphrase.filter(|_| is_encrypted(&text)).map(Secret::reveal);
    let key = keys::decode_secret_key(&text, needed).map_err(|error| cause(&text, passphrase, &error))?;
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that grows; the rest can sign")]
    match key.algorithm() {
        Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256 => {
            Err("the key lies in a security key and can be used through an agent only".to_owned())
        }
        Algorithm::Dsa => Err("DSA keys are not taken".to_owned()),
        _ => Ok(key),
    }
}

/// The text of a file, and what is known of that very file.
fn content(path: &Path) -> io::Result<(Zeroizing<String>, Metadata)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    // Enough at once: growing would leave copies behind that nobody wipes.
    let length = usize::try_from(metadata.len().min(LONGEST)).unwrap_or_default();
    let mut text = Zeroizing::new(String::with_capacity(length));
    file.take(LONGEST).read_to_string(&mut text)?;
    Ok((text, metadata))
}

#[cfg(unix)]
fn refuse_open(path: &Path, metadata: &Metadata) -> Result<(), String> {
    refuse_foreign_eyes(path, metadata, rustix::process::getuid().as_raw()).map_err(|error| {
        let mode = format_args!("{:04o}", error.mode);
        tracing::warn!(target: target_names::AUTH, %mode, "a private key is passed over: others may read it");
        error.to_string()
    })
}

#[cfg(not(unix))]
fn refuse_open(_: &Path, _: &Metadata) -> Result<(), String> {
    Ok(())
}

/// The libraries below name the layer that gave up, not the reason; the reason is found from what was given.
fn cause(text: &str, passphrase: Option<&Secret>, error: &keys::Error) -> String {
    if matches!(error, keys::Error::KeyIsEncrypted | keys::Error::SshKey(ssh_key::Error::Encrypted)) {
        return "it is encrypted and no pass phrase was given".to_owned();
    }
    let head = text.trim_start();
    let is_private = head.contains("PRIVATE KEY-----") || head.starts_with("PuTTY-User-Key-File-");
    if !is_private {
        return match is_public(head) {
            true => "it is a public key; the private one is needed".to_owned(),
            false => "it is not a private key in a known format".to_owned(),
        };
    }
    let is_encrypted = is_encrypted(head);
    match (is_encrypted, passphrase) {
        (true, None) => "it is encrypted and no pass phrase was given".to_owned(),
        (true, Some(_)) => {
            "the pass phrase is wrong, or the key is encrypted in a way that is not supported".to_owned()
        }
        (false, _) => format!("it cannot be read: {error}"),
    }
}

fn is_public(text: &str) -> bool {
    let head = text.trim_start();
    head.starts_with("ssh-") || head.starts_with("ecdsa-") || head.starts_with("sk-")
}

fn is_encrypted(text: &str) -> bool {
    // OpenSSH's own format says it in binary; what failed with a `Crypto` error there is encrypted.
    text.contains("ENCRYPTED")
        || text.contains("BEGIN OPENSSH PRIVATE KEY")
        || text.lines().any(|line| line.starts_with("Encryption: ") && !line.ends_with(": none"))
}

/// Far above any key.
const LONGEST: u64 = 1 << 20;
