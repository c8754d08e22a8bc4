//! The files of OpenSSH's client, read and written the way OpenSSH does it.
//!
//! Plain functions over bytes and paths: no async runtime, no network, no environment. Whoever calls decides which files
//! to read and what a verdict means for a connection; this crate only says what the files say.
//!
//! In reading order:
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`config`] | what the client's configuration says about a host: the user's file, the system's, and a call's own options |
//! | [`known_hosts`] | which host has shown which key: look a key up, learn a new one |
//!
//! Deliberately absent: host certificates (lines marked `@cert-authority` are read and never vouch for a plain key, which
//! is what OpenSSH does with a plain key), key files, and anything that needs the private half of a key.
//!
//! # Example
//!
//! A client meets a host for the first time, learns its key, and is not fooled by another key later.
//!
//! ```
//! use openssh_files::known_hosts::{self, Hashing, HostKey, HostName, KnownHosts, Learnt, Verdict};
//!
//! # fn ed25519(fill: u8) -> Vec<u8> {
//! #     let mut blob = vec![0, 0, 0, 11];
//! #     blob.extend(b"ssh-ed25519");
//! #     blob.extend([0, 0, 0, 32]);
//! #     blob.extend([fill; 32]);
//! #     blob
//! # }
//! # let directory = tempfile::tempdir()?;
//! # let user_file = directory.path().join("ssh/known_hosts");
//! # let global_file = directory.path().join("missing");
//! # let blob_from_the_handshake = ed25519(7);
//! # let blob_of_somebody_else = ed25519(8);
//! // "db.example" on port 22 stands in the file as it is, any other port as "[db.example]:2222".
//! let host = HostName::new("DB.example", 2222)?;
//! assert_eq!(host.as_str(), "[db.example]:2222");
//!
//! // The key arrives as the wire blob of RFC 4253, section 6.6.
//! let key = HostKey::parse(&blob_from_the_handshake)?;
//! let known = KnownHosts::read_all([&user_file, &global_file])?;
//! assert_eq!(known.verdict(&host, &key), Verdict::Unknown);
//!
//! // The file is created if it is missing; under its lock the verdict is taken once more.
//! assert!(matches!(known_hosts::append(&user_file, &host, &key, Hashing::AsFile)?, Learnt::Added(_)));
//!
//! let known = KnownHosts::read(&user_file)?;
//! assert!(matches!(known.verdict(&host, &key), Verdict::Match(_)));
//! assert_eq!(known.known_key_types(&host), ["ssh-ed25519"]);
//!
//! let other = HostKey::parse(&blob_of_somebody_else)?;
//! assert!(matches!(known.verdict(&host, &other), Verdict::Changed { .. }));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod pattern;

pub mod config;
pub mod known_hosts;

use std::fs::Metadata;
use std::path::PathBuf;

/// A line of a file; prints as `file:line`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Path of the file, as it was given.
    pub file: PathBuf,
    /// Number of the line, from 1; comments and blank lines count.
    pub line: usize,
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// True for a directory, pipe or socket. Devices are let through, because `/dev/null` is a common way to say "none".
fn cannot_hold_lines(metadata: &Metadata) -> bool {
    metadata.is_dir() || is_pipe(metadata.file_type())
}

#[cfg(unix)]
fn is_pipe(kind: std::fs::FileType) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    kind.is_fifo() || kind.is_socket()
}

#[cfg(not(unix))]
fn is_pipe(_: std::fs::FileType) -> bool {
    false
}
