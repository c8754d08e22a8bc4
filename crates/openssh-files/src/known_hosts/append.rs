//! Learning: one more line at the end of a known_hosts file, by one write, under a lock.
//!
//! The lock is an advisory one on the file itself. It orders everybody who learns through this module, in this process
//! and in others. OpenSSH takes no lock, but writes its line in one piece to the end, so its lines and ours stay whole.
//! Not here: taking lines out or rewriting the file, which is left to `ssh-keygen`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::line::Subject;
use super::name::HashedName;
use super::{HostKey, HostName, KnownHosts, Location, ReadError, Verdict, check_kind, content};

/// Whether the host's name is readable in the new line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hashing {
    /// Readable (`HashKnownHosts no`).
    Plain,
    /// Hidden behind a salted hash (`HashKnownHosts yes`).
    Hashed,
    /// Hidden if the file hides any name already, else readable.
    AsFile,
}

/// What became of a key that was to be learnt.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Learnt {
    /// It stands in the file, in a line of its own.
    Added(Location),
    /// It stood in the file already, perhaps since a moment ago by somebody else's hand.
    Present(Location),
    /// Nothing was written, because the file speaks against the key: [`Verdict::Changed`],
    /// [`Verdict::OtherTypesKnown`] or [`Verdict::Revoked`].
    Refused(Verdict),
}

/// Why a key could not be learnt.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The directory of the file is missing and cannot be made.
    #[error("cannot create directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be opened for writing, or not be made.
    #[error("cannot open {} for writing", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be locked.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What stands in the file cannot be read, so nothing is added to it.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Lines of the file begin with keys, as those of `authorized_keys` do.
    #[error("{} is no known hosts file", path.display())]
    NotKnownHosts {
        /// The file.
        path: PathBuf,
    },
    /// The system gave no random bytes for a hash.
    #[error("no random bytes for a hashed host name")]
    Random(#[source] getrandom::Error),
    /// The line was not written, or only in part.
    #[error("cannot write to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Adds `key` for `host` to the file at `path`, unless the file knows the host already.
///
/// Waits for whoever else is learning into the same file; they hold the lock for one read and one write. A missing file
/// is made with mode 0600, missing directories above it with 0700. Only this one file is looked at: a key revoked in a
/// global file is for the caller to have refused before.
pub fn append(
    path: impl AsRef<Path>,
    host: &HostName,
    key: &HostKey,
    hashing: Hashing,
) -> Result<Learnt, AppendError> {
    let path = path.as_ref();
    let mut file = open_locked(path)?;
    let text = content(&file, path)?;
    if is_something_else(&text) {
        return Err(AppendError::NotKnownHosts { path: path.to_owned() });
    }
    let known = KnownHosts::parse_about(path, &text, host);
    match known.verdict(host, key) {
        Verdict::Unknown => {}
        Verdict::Match(at) => return Ok(Learnt::Present(at)),
        verdict @ (Verdict::Changed { .. } | Verdict::OtherTypesKnown { .. } | Verdict::Revoked(_)) => {
            return Ok(Learnt::Refused(verdict));
        }
    }
    let name = match hashing {
        Hashing::Hashed => hashed(host)?,
        Hashing::AsFile if known.hides_names => hashed(host)?,
        Hashing::AsFile | Hashing::Plain => host.to_string(),
    };
    let newline = if text.last().is_none_or(|&last| last == b'\n') { "" } else { "\n" };
    let line = format!("{newline}{name} {}\n", key.to_fields());
    // One write to the end of the file: a reader, or an OpenSSH that writes beside us, sees the whole line or none of it.
    file.write_all(line.as_bytes())
        .and_then(|()| file.flush())
        .map_err(|source| AppendError::Write { path: path.to_owned(), source })?;
    let ended = text.iter().filter(|&&byte| byte == b'\n').count() + newline.len();
    Ok(Learnt::Added(Location { file: path.to_owned(), line: ended + 1 }))
}

/// Whether a line begins with a key, as those of `authorized_keys` do: there the name of a host would be an option, and the
/// key would open this machine.
fn is_something_else(text: &[u8]) -> bool {
    text.split(|&byte| byte == b'\n').any(|line| {
        // As if a host stood before it.
        Subject::parse(&[b"h ", line].concat()).and_then(Subject::into_line).is_some()
    })
}

fn hashed(host: &HostName) -> Result<String, AppendError> {
    let mut salt = [0; 20];
    getrandom::fill(&mut salt).map_err(AppendError::Random)?;
    Ok(HashedName::of(host, salt).to_string())
}

/// The file, open and locked until it is dropped.
fn open_locked(path: &Path) -> Result<File, AppendError> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        private_directory(directory)
            .map_err(|source| AppendError::Directory { path: directory.to_owned(), source })?;
    }
    loop {
        match check_kind(path) {
            Ok(()) => {}
            // About to be made.
            Err(ReadError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(AppendError::Read(error)),
        }
        let file = private_file()
            .open(path)
            .map_err(|source| AppendError::Open { path: path.to_owned(), source })?;
        match file.lock() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // Some network file systems know no locks. One write to the end is still the best there is.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(file),
            Err(source) => return Err(AppendError::Lock { path: path.to_owned(), source }),
        }
        // `ssh-keygen -R` and `-H` put a new file in the place of the old one. Who waited for the lock of the old one
        // would write into a file that nobody reads any more.
        if is_still(&file, path).map_err(|source| AppendError::Lock { path: path.to_owned(), source })? {
            return Ok(file);
        }
    }
}

#[cfg(unix)]
fn private_directory(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

#[cfg(not(unix))]
fn private_directory(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)
}

#[cfg(unix)]
fn private_file() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    options
}

#[cfg(not(unix))]
fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    options
}

#[cfg(unix)]
fn is_still(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let held = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((held.dev(), held.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
fn is_still(_: &File, _: &Path) -> io::Result<bool> {
    // An open file cannot be replaced here.
    Ok(true)
}
