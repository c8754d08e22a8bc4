//! Which keys and certificates are shown, in which order, and who signs for them: a plan without I/O.
//!
//! Each try counts at the server (`MaxAuthTries`), so what is likely to be right comes first: what a call names, then
//! certificates, then keys of files that the agent holds (somebody has loaded them on purpose), then those that only a file
//! holds. Other keys of the agent are a matter of their own. Each is shown once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use russh::keys::agent::AgentIdentity;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, PrivateKey, PublicKey};
use ssh_mcp_core::port::ssh::ConnectError;
use ssh_mcp_core::target::{AgentKeys, Need};
use ssh_mcp_core::text::remote_words;

use crate::key_file::{Keys, Loaded};

/// A key or certificate to show.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) shown: Shown,
    pub(crate) signer: Signer,
}

/// What the server sees.
#[derive(Clone)]
pub(crate) enum Shown {
    Key(PublicKey),
    Certificate(Box<Certificate>),
}

/// Who holds the private half.
#[derive(Clone)]
pub(crate) enum Signer {
    /// A file, which has been read.
    File(Arc<PrivateKey>),
    /// An agent at this socket, which calls it so.
    Agent(PathBuf, Box<AgentIdentity>),
}

/// What is shown, in order.
pub(crate) struct Plan {
    /// What a call, the configuration or a default names.
    pub(crate) named: Vec<Identity>,
    /// What the agent holds besides.
    pub(crate) others: Vec<Identity>,
    /// What was passed over, and why.
    pub(crate) passed_over: Vec<String>,
}

impl Identity {
    /// The key's kind.
    pub(crate) fn algorithm(&self) -> Algorithm {
        match &self.shown {
            Shown::Key(key) => key.algorithm(),
            Shown::Certificate(certificate) => certificate.algorithm(),
        }
    }

    /// How it is called among what was tried.
    pub(crate) fn name(&self) -> &'static str {
        match (&self.shown, &self.signer) {
            (Shown::Key(_), Signer::File(_)) => "publickey (key file)",
            (Shown::Key(_), Signer::Agent(..)) => "publickey (agent)",
            (Shown::Certificate(_), Signer::File(_)) => "publickey (certificate)",
            (Shown::Certificate(_), Signer::Agent(..)) => "publickey (certificate, agent)",
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (&self.shown, &other.shown) {
            (Shown::Key(one), Shown::Key(other)) => one.key_data() == other.key_data(),
            (Shown::Certificate(one), Shown::Certificate(other)) => one == other,
            (Shown::Key(_), Shown::Certificate(_)) | (Shown::Certificate(_), Shown::Key(_)) => false,
        }
    }
}

/// Plans a login.
///
/// # Errors
/// A key file that the caller named cannot be used, and no agent holds its key.
pub(crate) fn plan(
    keys: Keys,
    holdings: &[AgentIdentity],
    socket: Option<&Path>,
    wanted: AgentKeys,
) -> Result<Plan, ConnectError> {
    let Keys { files, certificates, mut passed_over } = keys;
    let at_agent = |identity: &AgentIdentity| {
        socket.map(|socket| Signer::Agent(socket.to_owned(), Box::new(identity.clone())))
    };
    let held = |key: &PublicKey| holdings.iter().find(|one| is_key(one, key)).and_then(at_agent);
    let mut ranked: Vec<(Rank, Identity)> = Vec::new();

    for (path, certificate) in certificates {
        let key = PublicKey::new(certificate.public_key().clone(), "");
        let file = files.iter().find(|file| is_of(file, &key));
        let signer = file
            .and_then(|file| file.private.as_ref().ok())
            .map(|key| Signer::File(Arc::clone(key)))
            .or_else(|| held(&key));
        match signer {
            Some(signer) => {
                let rank = Rank::new(file.map_or(Need::IfUsable, |file| file.need), Kind::Certificate);
                let shown = Shown::Certificate(Box::new(certificate));
                ranked.push((rank, Identity { shown, signer }));
            }
            None => {
                passed_over.push(format!("publickey (certificate {}: its key is missing)", path.display()))
            }
        }
    }
    // Certificates that only the agent knows, for keys that a file names.
    for identity in holdings {
        if let AgentIdentity::Certificate { certificate, .. } = identity
            && let Some(file) = files.iter().find(|file| is_of(file, &identity.public_key()))
            && let Some(signer) = at_agent(identity)
        {
            let shown = Shown::Certificate(Box::new(certificate.clone()));
            ranked.push((Rank::new(file.need, Kind::Certificate), Identity { shown, signer }));
        }
    }
    for Loaded { path, need, public, private } in &files {
        let by_agent = public.as_ref().and_then(held);
        let kind = if by_agent.is_some() { Kind::HeldKey } else { Kind::FileKey };
        let signer = match (private, by_agent) {
            (Ok(key), _) => Signer::File(Arc::clone(key)),
            (Err(_), Some(signer)) => signer,
            (Err(cause), None) if *need == Need::Required => {
                return Err(ConnectError::Key {
                    path: path.display().to_string(),
                    cause: remote_words(cause),
                });
            }
            (Err(cause), None) => {
                if path.exists() {
                    let cause = remote_words(cause);
                    passed_over.push(format!("publickey (key file {}: {cause})", path.display()));
                }
                continue;
            }
        };
        if let Some(key) = public {
            ranked.push((Rank::new(*need, kind), Identity { shown: Shown::Key(key.clone()), signer }));
        }
    }
    // Stable: within a rank the order is that of the files.
    ranked.sort_by_key(|(rank, _)| *rank);
    let mut named: Vec<Identity> = Vec::with_capacity(ranked.len());
    for (_, identity) in ranked {
        if !named.iter().any(|one| one.is_same(&identity)) {
            named.push(identity);
        }
    }
    let mut others: Vec<Identity> = Vec::new();
    if wanted == AgentKeys::All {
        for held in holdings {
            let shown = match held {
                AgentIdentity::PublicKey { key, .. } => Shown::Key(key.clone()),
                AgentIdentity::Certificate { certificate, .. } => {
                    Shown::Certificate(Box::new(certificate.clone()))
                }
            };
            let Some(signer) = at_agent(held) else { continue };
            let identity = Identity { shown, signer };
            if !named.iter().chain(&others).any(|one| one.is_same(&identity)) {
                others.push(identity);
            }
        }
    }
    Ok(Plan { named, others, passed_over })
}

fn is_of(file: &Loaded, key: &PublicKey) -> bool {
    file.public.as_ref().is_some_and(|public| public.key_data() == key.key_data())
}

/// Whether an agent can sign with this key by this entry; that of a plain key is preferred by being asked for first.
fn is_key(held: &AgentIdentity, key: &PublicKey) -> bool {
    matches!(held, AgentIdentity::PublicKey { key: held, .. } if held.key_data() == key.key_data())
}

/// What comes before what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_optional: bool,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Certificate,
    HeldKey,
    FileKey,
}

impl Rank {
    fn new(need: Need, kind: Kind) -> Self {
        Self { is_optional: need == Need::IfUsable, kind }
    }
}

/// What a server may have against a certificate, as far as it stands in the certificate itself.
pub(crate) fn objection(certificate: &Certificate, user: &str) -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let principals = certificate.valid_principals();
    if certificate.cert_type() != CertType::User {
        return Some("it is a host's, not a user's".to_owned());
    }
    if now >= certificate.valid_before() {
        return Some("it has expired".to_owned());
    }
    if now < certificate.valid_after() {
        return Some("it is not valid yet".to_owned());
    }
    match principals {
        [] => Some("it names no principal".to_owned()),
        names if names.iter().any(|name| name == user) => None,
        names => {
            let names = remote_words(&names.join(" "));
            Some(format!("it is for the principals {names}, not for {user}"))
        }
    }
}

#[cfg(test)]
mod tests;
