//! Whether the key a server shows is to be trusted, and which key types it is asked for first.
//!
//! The signature over the key exchange is russh's business and has been checked before. Here the key is held against
//! the user's `known_hosts` and the system's; the verdicts come from `openssh-files`, the policy from the request.
//!
//! A certificate is asked for where an authority is known for the host. One that does not vouch for it (unknown signer,
//! other host, run out) counts for nothing, and its key is judged as if it had been shown alone: so does OpenSSH.

use std::path::PathBuf;

use openssh_files::known_hosts::{self, Authority, Hashing, HostKey, HostName, KnownHosts, Learnt, Verdict};
use russh::keys::{Algorithm, Certificate, EcdsaCurve, HashAlg, PublicKey, PublicKeyOrCertificate};
use ssh_mcp_core::port::ssh::{ConnectError, HostKeyReport, HostKeyStatus, Transience, Unknown};
use ssh_mcp_core::quote;
use ssh_mcp_core::target::{Address, Hop, HostKeyPolicy, HostKeys, ShownKey};
use ssh_mcp_core::text::remote_words;

use crate::{algorithms, error};

mod certificate;

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
    address: Address,
    policy: HostKeyPolicy,
    /// What the user has accepted, of this host or others.
    accepted: Vec<ShownKey>,
    /// Where an unknown key is learnt.
    learn_into: Option<PathBuf>,
    hashing: Hashing,
    known: KnownHosts,
}

impl Trust {
    /// Reads the files for a hop; `global` are the system's where it names none, read after the user's.
    pub(crate) async fn from_files(
        hop: &Hop,
        accepted: &[ShownKey],
        global: &[PathBuf],
    ) -> Result<Self, ConnectError> {
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
        let about = host.clone();
        let known = blocking(move || KnownHosts::read_about(files, &about)).await?;
        let learn_into = user_files.first().cloned();
        let known = match (known, *policy) {
            (Ok(known), _) => known,
            // Nothing depends on the files then.
            (Err(_), HostKeyPolicy::DangerAcceptAny) => KnownHosts::default(),
            (Err(cause), HostKeyPolicy::Strict | HostKeyPolicy::Ask | HostKeyPolicy::AcceptNew) => {
                return Err(unusable(learn_into.as_deref(), &cause));
            }
        };
        let hashing = match hashed {
            None => Hashing::AsFile,
            Some(true) => Hashing::Hashed,
            Some(false) => Hashing::Plain,
        };
        let (address, accepted) = (address.clone(), accepted.to_vec());
        Ok(Self::Files(Check { host, address, policy: *policy, accepted, learn_into, hashing, known }))
    }

    /// Signatures to ask for of keys, and of certificates, the preferred ones first; `named` are those a configuration
    /// names. `ssh-rsa` signatures (SHA-1) are only among them where it does.
    ///
    /// Key types the host is known by come first: else a host known by its RSA key shows another one that nobody can
    /// check.
    pub(crate) fn preferred(&self, named: Option<&[String]>) -> (Vec<Algorithm>, Vec<Algorithm>) {
        let check = match self {
            Self::Files(check) => check,
            Self::Exactly(key) => return (algorithms(key.algorithm().as_str()), Vec::new()),
        };
        let wants = |wanted: algorithms::Shown| {
            let of = named.unwrap_or_default().iter().filter_map(|name| algorithms::host_key(name));
            of.filter(move |(_, shown)| *shown == wanted).map(|(algorithm, _)| algorithm).collect()
        };
        let keys = match named {
            Some(_) => wants(algorithms::Shown::Key),
            None => {
                let mut preferred: Vec<Algorithm> =
                    check.known.known_key_types(&check.host).into_iter().flat_map(algorithms).collect();
                for algorithm in TYPES.into_iter().flat_map(algorithms) {
                    if !preferred.contains(&algorithm) {
                        preferred.push(algorithm);
                    }
                }
                preferred
            }
        };
        let certificates = match named {
            _ if !check.known.has_authority(&check.host) => Vec::new(),
            Some(_) => wants(algorithms::Shown::Certificate),
            None => TYPES.into_iter().flat_map(algorithms).collect(),
        };
        (keys, certificates)
    }

    /// Judges what a host shows, and learns its key where the policy says so.
    pub(crate) async fn judge(&self, shown: &PublicKeyOrCertificate) -> Result<HostKeyReport, ConnectError> {
        let public = shown.public_key();
        let key = host_key(&public)?;
        match (self, shown.certificate()) {
            (Self::Files(check), None) => check.judge(&key, None).await,
            (Self::Files(check), Some(certificate)) => check.judge_certificate(&key, certificate).await,
            (Self::Exactly(expected), _) if expected.key_data() == public.key_data() => {
                Ok(report(&key, HostKeyStatus::Known))
            }
            (Self::Exactly(expected), _) => Err(ConnectError::ChangedHostKey {
                host: "a further connection".to_owned(),
                algorithm: key.algorithm().to_owned(),
                fingerprint: key.fingerprint(),
                known: format!("the first connection showed {}", expected.fingerprint(HashAlg::Sha256)),
                forget: None,
            }),
        }
    }
}

impl Check {
    async fn judge_certificate(
        &self,
        key: &HostKey,
        certificate: &Certificate,
    ) -> Result<HostKeyReport, ConnectError> {
        let signer = host_key(&PublicKey::from(certificate.signature_key().clone()))?;
        match self.known.authority(&self.host, key, &signer) {
            Authority::Revoked(at) => {
                let known = format!("{at} revokes this key or the signer of its certificate");
                Err(self.contradicted(key, &known, None))
            }
            Authority::Trusted(_) => match certificate::refusal(certificate, &self.host) {
                None => Ok(report(key, HostKeyStatus::Known)),
                Some(refusal) => self.judge(key, Some(refusal)).await,
            },
            Authority::Unknown => {
                let refusal = format!("its signer {} is not trusted with this host", signer.fingerprint());
                self.judge(key, Some(refusal)).await
            }
        }
    }

    /// Judges a key by itself; `certificate` says why the one it came with does not count.
    async fn judge(&self, key: &HostKey, certificate: Option<String>) -> Result<HostKeyReport, ConnectError> {
        let verdict = self.known.verdict(&self.host, key);
        match (verdict, self.policy) {
            (Verdict::Match(_), _) => Ok(report(key, HostKeyStatus::Known)),
            // Somebody took the trouble to write this down: no policy outranks it.
            (verdict @ Verdict::Revoked(_), _) => {
                Err(self.contradicted(key, &words(&verdict), self.forget(&verdict)))
            }
            (_, HostKeyPolicy::DangerAcceptAny) => Ok(report(key, HostKeyStatus::Unchecked)),
            (verdict @ (Verdict::Changed { .. } | Verdict::OtherTypesKnown { .. }), _) => {
                Err(self.contradicted(key, &words(&verdict), self.forget(&verdict)))
            }
            (Verdict::Unknown, HostKeyPolicy::Strict) => {
                Err(self.unknown(self.shown(key), Unknown::Refused, certificate))
            }
            (Verdict::Unknown, HostKeyPolicy::Ask) => {
                let shown = self.shown(key);
                let place = |key: &ShownKey| (key.name.clone(), key.address.clone());
                match self.accepted.iter().find(|accepted| place(accepted) == place(&shown)) {
                    Some(accepted) if *accepted == shown => self.learn(key).await,
                    // Between the question and the answer somebody else has come.
                    Some(accepted) => {
                        let known = format!("{} was accepted", accepted.fingerprint);
                        Err(self.contradicted(key, &known, None))
                    }
                    None => Err(self.unknown(shown, Unknown::Undecided, certificate)),
                }
            }
            (Verdict::Unknown, HostKeyPolicy::AcceptNew) => self.learn(key).await,
        }
    }

    fn shown(&self, key: &HostKey) -> ShownKey {
        ShownKey {
            name: self.host.to_string(),
            address: self.address.clone(),
            algorithm: key.algorithm().to_owned(),
            fingerprint: key.fingerprint(),
        }
    }

    fn unknown(&self, shown: ShownKey, verdict: Unknown, certificate: Option<String>) -> ConnectError {
        ConnectError::UnknownHostKey {
            host: self.host.to_string(),
            shown: Box::new(shown),
            verdict,
            certificate: certificate.map(|words| remote_words(&words)),
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
            Ok(Learnt::Refused(verdict)) => {
                Err(self.contradicted(key, &words(&verdict), self.forget(&verdict)))
            }
            Err(cause) => Err(unusable(self.learn_into.as_deref(), &cause)),
        }
    }

    /// What ssh-keygen(1) takes the keys of a changed host out with; a revocation is to stay.
    fn forget(&self, verdict: &Verdict) -> Option<String> {
        let at = match verdict {
            Verdict::Changed { at, .. } | Verdict::OtherTypesKnown { at, .. } => at,
            Verdict::Match(_) | Verdict::Unknown | Verdict::Revoked(_) => return None,
        };
        let file = quote::word(&at.file.display().to_string());
        Some(format!("ssh-keygen -f {file} -R {}", quote::word(self.host.as_str())))
    }

    fn contradicted(&self, key: &HostKey, known: &str, forget: Option<String>) -> ConnectError {
        ConnectError::ChangedHostKey {
            host: self.host.to_string(),
            algorithm: key.algorithm().to_owned(),
            fingerprint: key.fingerprint(),
            known: known.to_owned(),
            forget,
        }
    }
}

/// What speaks against a key.
fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Changed { at, known } => format!("{at} has {known}"),
        Verdict::OtherTypesKnown { types, at } => format!("{at} knows it by {} only", types.join(", ")),
        Verdict::Revoked(at) => format!("{at} revokes this key"),
        Verdict::Match(at) => at.to_string(),
        Verdict::Unknown => String::new(),
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

fn host_key(key: &PublicKey) -> Result<HostKey, ConnectError> {
    let blob = key.to_bytes().map_err(|cause| broken(&cause.to_string()))?;
    HostKey::parse(&blob).map_err(|cause| broken(&cause.to_string()))
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
