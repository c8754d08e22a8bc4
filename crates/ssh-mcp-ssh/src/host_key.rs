//! Whether the key a server shows is to be trusted, and which key types it is asked for first.
//!
//! The signature over the key exchange is russh's business and has been checked before. Here the key is held against
//! the user's `known_hosts` and the system's; the verdicts come from `openssh-files`, the policy from the request.
//! Host certificates are not asked for, so none is ever judged.

use std::path::PathBuf;

use openssh_files::known_hosts::{self, Hashing, HostKey, HostName, KnownHosts, Learnt, Verdict};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey};
use ssh_mcp_core::port::ssh::{ConnectError, HostKeyReport, HostKeyStatus, Transience};
use ssh_mcp_core::target::{Hop, HostKeyPolicy, HostKeys};
use ssh_mcp_core::text::remote_words;

use crate::error;

/// How the key of one connection is judged.
pub(crate) enum Trust {
    /// By the files, for the first connection of a link.
    Files(Check),
    /// Only this key, for the further ones.
    Exactly(Box<PublicKey>),
}

/// A host, what is known of it, and what to do with a key that is not.
pub(crate) struct Check {
    host: HostName,
    policy: HostKeyPolicy,
    /// Where an unknown key is learnt.
    learn_into: Option<PathBuf>,
    hashing: Hashing,
    known: KnownHosts,
}

impl Trust {
    /// Reads the files for a hop; `global` are the system's where it names none, read after the user's.
    pub(crate) async fn from_files(hop: &Hop, global: &[PathBuf]) -> Result<Self, ConnectError> {
        let HostKeys { policy, user_files, global_files, hashed } = &hop.host_keys;
        let address = &hop.target.address;
        // An alias stands in the files as it is, whatever the port.
        let (name, port) = match &hop.host_key_name {
            Some(alias) => (alias, PLAIN_PORT),
            None => (&address.host, address.port),
        };
        let host = HostName::new(name, port)
            .map_err(|cause| error::failed(format!("{name}: {cause}"), Transience::Permanent))?;
        let global = global_files.as_deref().unwrap_or(global);
        let files: Vec<PathBuf> = user_files.iter().chain(global).cloned().collect();
        let known = blocking(move || KnownHosts::read_all(files)).await?;
        let learn_into = user_files.first().cloned();
        let known = match (known, *policy) {
            (Ok(known), _) => known,
            // Nothing depends on the files then.
            (Err(_), HostKeyPolicy::DangerAcceptAny) => KnownHosts::default(),
            (Err(cause), HostKeyPolicy::Strict | HostKeyPolicy::AcceptNew) => {
                return Err(unusable(learn_into.as_deref(), &cause));
            }
        };
        let hashing = match hashed {
            None => Hashing::AsFile,
            Some(true) => Hashing::Hashed,
            Some(false) => Hashing::Plain,
        };
        Ok(Self::Files(Check { host, policy: *policy, learn_into, hashing, known }))
    }

    /// Key types to ask for, those the host is known by first: else a host known by its RSA key shows another one
    /// that nobody can check. `ssh-rsa` signatures (SHA-1) are not among them.
    pub(crate) fn preferred(&self) -> Vec<Algorithm> {
        let known = match self {
            Self::Files(check) => check.known.known_key_types(&check.host),
            Self::Exactly(key) => return algorithms(key.algorithm().as_str()),
        };
        let mut preferred: Vec<Algorithm> = known.into_iter().flat_map(algorithms).collect();
        for algorithm in TYPES.into_iter().flat_map(algorithms) {
            if !preferred.contains(&algorithm) {
                preferred.push(algorithm);
            }
        }
        preferred
    }

    /// Judges a key, and learns it where the policy says so.
    pub(crate) async fn judge(&self, shown: &PublicKey) -> Result<HostKeyReport, ConnectError> {
        let blob = shown.to_bytes().map_err(|cause| broken(&cause.to_string()))?;
        let key = HostKey::parse(&blob).map_err(|cause| broken(&cause.to_string()))?;
        match self {
            Self::Files(check) => check.judge(&key).await,
            Self::Exactly(expected) if expected.key_data() == shown.key_data() => {
                Ok(report(&key, HostKeyStatus::Known))
            }
            Self::Exactly(expected) => Err(ConnectError::ChangedHostKey {
                host: "a further connection".to_owned(),
                algorithm: key.algorithm().to_owned(),
                fingerprint: key.fingerprint(),
                known: format!("the first connection showed {}", expected.fingerprint(HashAlg::Sha256)),
            }),
        }
    }
}

impl Check {
    async fn judge(&self, key: &HostKey) -> Result<HostKeyReport, ConnectError> {
        let verdict = self.known.verdict(&self.host, key);
        match (verdict, self.policy) {
            (Verdict::Match(_), _) => Ok(report(key, HostKeyStatus::Known)),
            // Somebody took the trouble to write this down: no policy outranks it.
            (verdict @ Verdict::Revoked(_), _) => Err(self.contradicted(key, &verdict)),
            (_, HostKeyPolicy::DangerAcceptAny) => Ok(report(key, HostKeyStatus::Unchecked)),
            (verdict @ (Verdict::Changed { .. } | Verdict::OtherTypesKnown { .. }), _) => {
                Err(self.contradicted(key, &verdict))
            }
            (Verdict::Unknown, HostKeyPolicy::Strict) => Err(ConnectError::UnknownHostKey {
                host: self.host.to_string(),
                algorithm: key.algorithm().to_owned(),
                fingerprint: key.fingerprint(),
            }),
            (Verdict::Unknown, HostKeyPolicy::AcceptNew) => self.learn(key).await,
        }
    }

    async fn learn(&self, key: &HostKey) -> Result<HostKeyReport, ConnectError> {
        // Nowhere to keep it: the next connection would know as little.
        let Some(file) = self.learn_into.clone() else { return Ok(report(key, HostKeyStatus::Unchecked)) };
        let (host, new, hashing) = (self.host.clone(), key.clone(), self.hashing);
        let learnt = blocking(move || known_hosts::append(&file, &host, &new, hashing)).await?;
        match learnt {
            Ok(Learnt::Added(_)) => Ok(report(key, HostKeyStatus::Learnt)),
            Ok(Learnt::Present(_)) => Ok(report(key, HostKeyStatus::Known)),
            Ok(Learnt::Refused(verdict)) => Err(self.contradicted(key, &verdict)),
            Err(cause) => Err(unusable(self.learn_into.as_deref(), &cause)),
        }
    }

    fn contradicted(&self, key: &HostKey, verdict: &Verdict) -> ConnectError {
        let known = match verdict {
            Verdict::Changed { at, known } => format!("{at} has {known}"),
            Verdict::OtherTypesKnown { types, at } => format!("{at} knows it by {} only", types.join(", ")),
            Verdict::Revoked(at) => format!("{at} revokes this key"),
            Verdict::Match(at) => at.to_string(),
            Verdict::Unknown => String::new(),
        };
        ConnectError::ChangedHostKey {
            host: self.host.to_string(),
            algorithm: key.algorithm().to_owned(),
            fingerprint: key.fingerprint(),
            known,
        }
    }
}

/// The files of `ssh_known_hosts` that OpenSSH reads for every user (`GlobalKnownHostsFile`, ssh_config(5)).
pub(crate) fn global_files() -> Vec<PathBuf> {
    vec!["/etc/ssh/ssh_known_hosts".into(), "/etc/ssh/ssh_known_hosts2".into()]
}

/// Signature algorithms of a key type as it stands in `known_hosts`; none for types we do not take.
fn algorithms(key_type: &str) -> Vec<Algorithm> {
    match key_type {
        "ssh-ed25519" => vec![Algorithm::Ed25519],
        "ecdsa-sha2-nistp256" => vec![Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }],
        "ecdsa-sha2-nistp384" => vec![Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 }],
        "ecdsa-sha2-nistp521" => vec![Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 }],
        "ssh-rsa" => vec![
            Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
            Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
        ],
        _ => Vec::new(),
    }
}

fn report(key: &HostKey, status: HostKeyStatus) -> HostKeyReport {
    HostKeyReport { algorithm: key.algorithm().to_owned(), fingerprint: key.fingerprint(), status }
}

fn broken(cause: &str) -> ConnectError {
    error::failed(format!("the host key cannot be read: {cause}"), Transience::Permanent)
}

fn unusable(path: Option<&std::path::Path>, cause: &dyn std::error::Error) -> ConnectError {
    let words = match cause.source() {
        Some(source) => format!("{cause}: {source}"),
        None => cause.to_string(),
    };
    let path = path.map_or_else(|| "known hosts".to_owned(), |path| path.display().to_string());
    ConnectError::KnownHosts { path, cause: remote_words(&words) }
}

/// Runs file work where it may wait; a panic in it comes out as a failure of the attempt.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ConnectError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|cause| error::failed(format!("reading known hosts: {cause}"), Transience::Permanent))
}

/// The port that leaves no trace in a name.
const PLAIN_PORT: u16 = 22;

/// In OpenSSH's order of preference.
const TYPES: [&str; 5] =
    ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"];
