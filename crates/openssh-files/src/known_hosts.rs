//! known_hosts (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT): what the files say about a host and the key it shows.
//!
//! [`KnownHosts`] is a snapshot of one or more files; whoever connects reads them anew each time, so nothing is cached
//! here. [`append`] is the only writer. Not here: the policy. A verdict says what stands in the files, the caller decides
//! whether an unknown key is learnt, refused or put to somebody.
//!
//! The reader is lenient as OpenSSH is: a line that cannot be read (unknown key type, broken base64, two markers) is
//! skipped and never hides the lines around it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod append;
mod key;
mod line;
mod name;

pub use crate::Location;
pub use append::{AppendError, Hashing, Learnt, append};
pub use key::{HostKey, HostKeyError};
pub use name::{HostName, HostNameError};

use line::{Hosts, Line, Marker, Subject};

/// What one or more known_hosts files say, of all hosts or of one.
#[derive(Debug, Default)]
pub struct KnownHosts {
    entries: Vec<Entry>,
    /// Whether any line hides whom it is about.
    hides_names: bool,
}

/// What the files say about a host that shows a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// The host is known by this very key; further keys listed for it do not matter.
    Match(Location),
    /// No key is known for the host.
    Unknown,
    /// The host is known, and every key of this type listed for it is another one.
    Changed {
        /// The first such line.
        at: Location,
        /// Fingerprint of the key on that line.
        known: String,
    },
    /// The host is known by keys of other types only.
    ///
    /// Callers refuse it like [`Verdict::Changed`], as OpenSSH does ("REMOTE HOST IDENTIFICATION HAS CHANGED"). To learn the
    /// key instead would be a way round pinning: an impostor only had to show a key of another type. A caller that asks for
    /// [`KnownHosts::known_key_types`] first in the key exchange sees this only where the host really lacks the key.
    OtherTypesKnown {
        /// Types of the keys listed, each once.
        types: Vec<&'static str>,
        /// The first such line.
        at: Location,
    },
    /// A line marked `@revoked` names this key for this host: refused under every policy.
    Revoked(Location),
}

/// What the files say about a host that shows a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Authority {
    /// A line marked `@cert-authority` trusts its signer with this host.
    Trusted(Location),
    /// No line does: the certificate counts for nothing, its key may still be known.
    Unknown,
    /// A line marked `@revoked` names the key or the signer for this host.
    Revoked(Location),
}

/// Why a known_hosts file could not be read; a missing file is none of them.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refused to open or read it.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, pipe or socket.
    #[error("{} is not a file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Longer than 64 MiB.
    #[error("{} is larger than {FILE_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

impl KnownHosts {
    /// Reads one file; a missing one is empty, any other failure is an error.
    pub fn read(path: impl AsRef<Path>) -> Result<KnownHosts, ReadError> {
        KnownHosts::read_all([path])
    }

    /// Reads several files as one, the user's first, then the global ones.
    pub fn read_all<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<KnownHosts, ReadError> {
        KnownHosts::read_each(paths, None)
    }

    /// The same of one host: lines about others are left out, and nothing can be said of those afterwards.
    ///
    /// To be preferred by who has one host in mind. A hashed name costs an HMAC to be looked at, which is done here, once
    /// for each line; and the keys of the others need not be decoded.
    pub fn read_about<P: AsRef<Path>>(
        paths: impl IntoIterator<Item = P>,
        host: &HostName,
    ) -> Result<KnownHosts, ReadError> {
        KnownHosts::read_each(paths, Some(&Names::of(host)))
    }

    fn read_each<P: AsRef<Path>>(
        paths: impl IntoIterator<Item = P>,
        only: Option<&Names>,
    ) -> Result<KnownHosts, ReadError> {
        let mut known = KnownHosts::default();
        for path in paths {
            let path = path.as_ref();
            let opened =
                check_kind(path).and_then(|()| File::open(path).map_err(|source| io_error(path, source)));
            match opened {
                Ok(file) => known.add(path, &content(&file, path)?, only),
                Err(ReadError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(known)
    }

    /// Reads the text of a file; `path` is only what locations will name.
    pub fn parse(path: impl AsRef<Path>, text: &[u8]) -> KnownHosts {
        let mut known = KnownHosts::default();
        known.add(path.as_ref(), text, None);
        known
    }

    /// The same of one host, as [`read_about`](Self::read_about).
    fn parse_about(path: &Path, text: &[u8], host: &HostName) -> KnownHosts {
        let mut known = KnownHosts::default();
        known.add(path, text, Some(&Names::of(host)));
        known
    }

    /// What the files say about `host` showing `key`.
    ///
    /// A revoked key is revoked wherever it says so; else one equal key anywhere is a match; else any other key of the host
    /// counts against it. A host on a port of its own that is not known under that port is looked up under its bare name
    /// once more, and a match or a revocation there holds, as with OpenSSH.
    pub fn verdict(&self, host: &HostName, key: &HostKey) -> Verdict {
        let verdict = self.verdict_by_name(host, key);
        let Some(bare) = host.without_port().filter(|_| verdict == Verdict::Unknown) else { return verdict };
        match self.verdict_by_name(&bare, key) {
            found @ (Verdict::Match(_) | Verdict::Revoked(_)) => found,
            Verdict::Unknown | Verdict::Changed { .. } | Verdict::OtherTypesKnown { .. } => Verdict::Unknown,
        }
    }

    /// The types of the keys known for `host`, each once, in the order of the files; revoked keys are left out.
    ///
    /// To be preferred in the key exchange, in this order: else a host known by its RSA key shows an Ed25519 key that
    /// nobody can check.
    pub fn known_key_types(&self, host: &HostName) -> Vec<&'static str> {
        let is_listed = |entry: &Entry| entry.line.marker == Marker::HostKey;
        match host.without_port() {
            Some(bare) if !self.entries_of(host).any(is_listed) => self.key_types_by_name(&bare),
            Some(_) | None => self.key_types_by_name(host),
        }
    }

    /// What the files say about `host` showing a certificate for `key` that `signer` has signed. Whether the certificate
    /// itself is good is not looked at.
    ///
    /// A host on a port of its own is looked up under both of its names.
    pub fn authority(&self, host: &HostName, key: &HostKey, signer: &HostKey) -> Authority {
        let mut trusted = None;
        for entry in self.entries_of_either(host) {
            let Line { marker, key: listed, .. } = &entry.line;
            match marker {
                Marker::Revoked if listed == key || listed == signer => {
                    return Authority::Revoked(entry.location());
                }
                Marker::CertAuthority if listed == signer => trusted = trusted.or(Some(entry)),
                Marker::Revoked | Marker::CertAuthority | Marker::HostKey => {}
            }
        }
        trusted.map_or(Authority::Unknown, |entry| Authority::Trusted(entry.location()))
    }

    /// Whether anybody is trusted to certify keys of `host`: to be asked before certificates are asked for.
    pub fn has_authority(&self, host: &HostName) -> bool {
        self.entries_of_either(host).any(|entry| entry.line.marker == Marker::CertAuthority)
    }

    fn verdict_by_name(&self, host: &HostName, key: &HostKey) -> Verdict {
        let (mut equal, mut same_type, mut first) = (None, None, None);
        let mut types = Vec::new();
        for entry in self.entries_of(host) {
            let Line { marker, key: listed, .. } = &entry.line;
            match marker {
                Marker::Revoked if listed == key => return Verdict::Revoked(entry.location()),
                Marker::Revoked | Marker::CertAuthority => {}
                Marker::HostKey if listed == key => equal = equal.or(Some(entry)),
                Marker::HostKey => {
                    if listed.algorithm() == key.algorithm() {
                        same_type = same_type.or(Some(entry));
                    }
                    first = first.or(Some(entry));
                    push_once(&mut types, listed.algorithm());
                }
            }
        }
        match (equal, same_type, first) {
            (Some(entry), _, _) => Verdict::Match(entry.location()),
            (None, Some(entry), _) => {
                Verdict::Changed { at: entry.location(), known: entry.line.key.fingerprint() }
            }
            (None, None, Some(entry)) => Verdict::OtherTypesKnown { types, at: entry.location() },
            (None, None, None) => Verdict::Unknown,
        }
    }

    fn key_types_by_name(&self, host: &HostName) -> Vec<&'static str> {
        let entries: Vec<&Entry> = self.entries_of(host).collect();
        let of = |marker| entries.iter().map(|entry| &entry.line).filter(move |line| line.marker == marker);
        let mut types = Vec::new();
        for line in of(Marker::HostKey) {
            if !of(Marker::Revoked).any(|revoked| revoked.key == line.key) {
                push_once(&mut types, line.key.algorithm());
            }
        }
        types
    }

    fn entries_of(&self, host: &HostName) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.line.hosts.include(host))
    }

    /// Under its name, and under the one without its port.
    fn entries_of_either(&self, host: &HostName) -> impl Iterator<Item = &Entry> {
        let names = Names::of(host);
        self.entries.iter().filter(move |entry| names.are_in(&entry.line.hosts))
    }

    fn add(&mut self, path: &Path, text: &[u8], only: Option<&Names>) {
        let file: Arc<Path> = path.into();
        for (text, number) in text.split(|&byte| byte == b'\n').zip(1..) {
            let Some(subject) = Subject::parse(text) else { continue };
            self.hides_names |= matches!(subject.hosts, Hosts::Hashed(_));
            let is_wanted = only.is_none_or(|names| names.are_in(&subject.hosts));
            if let Some(line) = is_wanted.then(|| subject.into_line()).flatten() {
                self.entries.push(Entry { line, file: Arc::clone(&file), number });
            }
        }
    }
}

/// The names a host may stand under.
struct Names {
    own: HostName,
    bare: Option<HostName>,
}

impl Names {
    fn of(host: &HostName) -> Self {
        Self { own: host.clone(), bare: host.without_port() }
    }

    fn are_in(&self, hosts: &Hosts) -> bool {
        hosts.include_any(std::iter::once(&self.own).chain(&self.bare))
    }
}

/// A line and where it stands.
#[derive(Debug)]
struct Entry {
    line: Line,
    file: Arc<Path>,
    number: usize,
}

impl Entry {
    fn location(&self) -> Location {
        Location { file: self.file.to_path_buf(), line: self.number }
    }
}

/// Fails for what cannot hold lines, and for what cannot be looked at, missing files among them.
///
/// Asked before a file is opened: opening a pipe nobody writes to would wait for ever. Devices are let through, because
/// `/dev/null` is a common way to say "none".
fn check_kind(path: &Path) -> Result<(), ReadError> {
    let metadata = std::fs::metadata(path).map_err(|source| io_error(path, source))?;
    if crate::cannot_hold_lines(&metadata) {
        return Err(ReadError::NotAFile { path: path.to_owned() });
    }
    Ok(())
}

fn content(file: &File, path: &Path) -> Result<Vec<u8>, ReadError> {
    let mut text = Vec::new();
    let length = file.take(FILE_MAX + 1).read_to_end(&mut text).map_err(|source| io_error(path, source))?;
    match u64::try_from(length).is_ok_and(|length| length <= FILE_MAX) {
        true => Ok(text),
        false => Err(ReadError::TooLarge { path: path.to_owned() }),
    }
}

fn io_error(path: &Path, source: io::Error) -> ReadError {
    ReadError::Io { path: path.to_owned(), source }
}

fn push_once(types: &mut Vec<&'static str>, algorithm: &'static str) {
    if !types.contains(&algorithm) {
        types.push(algorithm);
    }
}

/// A bound on memory, far above any real file: some 200,000 keys.
const FILE_MAX: u64 = 64 << 20;
