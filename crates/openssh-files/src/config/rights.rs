//! Who may write a configuration, and read a private key: its owner, and nobody else.
//!
//! A line of a configuration may name a program to run, so whoever can write it can run programs as its reader.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

/// Whose files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user's numeric id. Files of the superuser are fine as well.
    pub uid: u32,
    /// A group that nobody else is in, if there is one: it may write, as Debian's OpenSSH allows.
    pub private_group: Option<u32>,
}

/// A file that others may write, or that is somebody else's; said in OpenSSH's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Bad owner or permissions on {}", .0.display())]
pub struct RightsError(pub PathBuf);

/// Refuses a file that somebody else owns, or that group or others may write.
///
/// To be given the [`Metadata`] of the opened file, not of its path, which may lead elsewhere by the time it is opened.
/// Devices pass: nobody writes configurations into `/dev/null`. Where the system has no such rights, everything passes.
pub fn refuse_foreign_hands(path: &Path, metadata: &Metadata, owner: &Owner) -> Result<(), RightsError> {
    match is_safe(metadata, owner) {
        true => Ok(()),
        false => Err(RightsError(path.to_owned())),
    }
}

/// A private key that others may read; said in OpenSSH's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "Permissions {mode:04o} for '{}' are too open. It is required that your private key files are NOT accessible by \
     others. This private key will be ignored.",
    path.display()
)]
pub struct TooOpenError {
    /// The file.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
}

/// Refuses a private key that group or others may read, write or run.
///
/// Only a file of `uid`'s own is looked at, as OpenSSH does: the superuser reads other users' keys, and whoever is shown
/// a key by a group of its own has no say in its mode. To be given the [`Metadata`] of the opened file.
pub fn refuse_foreign_eyes(path: &Path, metadata: &Metadata, uid: u32) -> Result<(), TooOpenError> {
    match open_mode(metadata, uid) {
        Some(mode) => Err(TooOpenError { path: path.to_owned(), mode }),
        None => Ok(()),
    }
}

#[cfg(unix)]
fn open_mode(metadata: &Metadata, uid: u32) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    let mode = metadata.mode() & 0o777;
    (metadata.uid() == uid && mode & 0o077 != 0).then_some(mode)
}

#[cfg(not(unix))]
fn open_mode(_: &Metadata, _: u32) -> Option<u32> {
    None
}

#[cfg(unix)]
fn is_safe(metadata: &Metadata, owner: &Owner) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    if !metadata.is_file() {
        return true;
    }
    let mine = metadata.uid() == 0 || metadata.uid() == owner.uid;
    let group_writes = metadata.mode() & 0o020 != 0 && owner.private_group != Some(metadata.gid());
    mine && !group_writes && metadata.mode() & 0o002 == 0
}

#[cfg(not(unix))]
fn is_safe(_: &Metadata, _: &Owner) -> bool {
    true
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn a_key_of_ones_own_is_for_ones_own_eyes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let check = |mode, other: u32| {
            file.as_file().set_permissions(Permissions::from_mode(mode)).unwrap();
            let metadata = file.as_file().metadata().unwrap();
            refuse_foreign_eyes(Path::new("/k"), &metadata, metadata.uid() + other)
                .map_err(|error| error.to_string())
        };
        for private in [0o600, 0o400, 0o700] {
            assert_eq!(check(private, 0), Ok(()));
        }
        for open in [0o644, 0o640, 0o610, 0o602, 0o666] {
            let words = check(open, 0).unwrap_err();
            assert!(words.starts_with(&format!("Permissions {open:04o} for '/k' are too open. ")), "{words}");
            // Somebody else's file is that one's business.
            assert_eq!(check(open, 1), Ok(()));
        }
    }
}
