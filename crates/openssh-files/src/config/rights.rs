//! Who may write a configuration: its reader, and nobody else.
//!
//! A line of it may name a program to run, so whoever can write it can run programs as its reader.

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
