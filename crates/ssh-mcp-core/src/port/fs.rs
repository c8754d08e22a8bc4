//! The file port: files on the far side, by whatever protocol.
//!
//! Paths are bytes: names that are not UTF-8 are names all the same. A request goes out when its method is called, before
//! the future is polled, and requests go out in the order of the calls; so a caller keeps a line full by calling several
//! times before it awaits the first.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{BoxFuture, ssh::Channel};

/// Makes file systems out of channels on which nothing runs yet.
pub trait FsMount: Send + Sync {
    /// Starts the server's file service on a channel and agrees on a version with it.
    ///
    /// It waits as long as the server takes; dropping the future closes the channel.
    fn mount(&self, channel: Channel) -> BoxFuture<'static, Result<Arc<dyn RemoteFs>, FsError>>;
}

/// The files of one host. Calls run side by side; dropping it ends the service.
pub trait RemoteFs: Send + Sync {
    /// What one request may carry.
    fn limits(&self) -> Limits;

    /// How long the first answer took.
    fn round_trip(&self) -> Duration;

    /// Whether the service has ended, so that another mount is needed.
    fn is_gone(&self) -> bool;

    /// Rises whenever the service takes or gives something, for whomever: it is alive.
    fn pulse(&self) -> u64;

    /// The absolute path; that of `.` is the login directory.
    fn real_path(&self, path: &[u8]) -> BoxFuture<'static, Result<Vec<u8>, FsError>>;

    /// What a path is.
    fn attributes(&self, path: &[u8], links: Links) -> BoxFuture<'static, Result<Attributes, FsError>>;

    /// Changes what is set in `attributes`, and nothing else.
    fn set_attributes(&self, path: &[u8], attributes: Attributes) -> BoxFuture<'static, Result<(), FsError>>;

    /// Opens a file.
    fn open(&self, path: &[u8], how: Open) -> BoxFuture<'static, Result<Box<dyn RemoteFile>, FsError>>;

    /// Opens a directory to list it.
    fn open_dir(&self, path: &[u8]) -> BoxFuture<'static, Result<Box<dyn RemoteDir>, FsError>>;

    /// Makes a directory.
    fn make_dir(&self, path: &[u8], permissions: u32) -> BoxFuture<'static, Result<(), FsError>>;

    /// Removes what is no directory.
    fn remove(&self, path: &[u8]) -> BoxFuture<'static, Result<(), FsError>>;

    /// Removes an empty directory.
    fn remove_dir(&self, path: &[u8]) -> BoxFuture<'static, Result<(), FsError>>;

    /// Makes a symbolic link that leads to `target`.
    ///
    /// Of two orders of its names a server knows one, and takes the other for a link the other way round.
    fn make_link(
        &self,
        path: &[u8],
        target: &[u8],
        order: LinkOrder,
    ) -> BoxFuture<'static, Result<(), FsError>>;

    /// Where a symbolic link leads.
    fn read_link(&self, path: &[u8]) -> BoxFuture<'static, Result<Vec<u8>, FsError>>;

    /// Renames onto whatever is at `to`.
    fn replace(&self, from: &[u8], to: &[u8]) -> BoxFuture<'static, Result<Replaced, FsError>>;

    /// What there is room for on the file system of a path; none if the server does not say.
    fn space(&self, path: &[u8]) -> BoxFuture<'static, Result<Option<Space>, FsError>>;
}

/// An open file. It reads and writes at positions, so one does for both. Dropping it closes it.
pub trait RemoteFile: Send + Sync {
    /// At most `len` bytes at `offset`, in pieces; none at the end of the file.
    fn read(&self, offset: u64, len: u32) -> BoxFuture<'static, Result<Vec<Bytes>, FsError>>;

    /// Writes all of `data` at `offset`.
    fn write(&self, offset: u64, data: Bytes) -> BoxFuture<'static, Result<(), FsError>>;

    /// What the file is.
    fn attributes(&self) -> BoxFuture<'static, Result<Attributes, FsError>>;

    /// Changes what is set in `attributes`.
    fn set_attributes(&self, attributes: Attributes) -> BoxFuture<'static, Result<(), FsError>>;

    /// Flushes to disk, where the server can; resolves with whether it can.
    fn sync(&self) -> BoxFuture<'static, Result<Synced, FsError>>;

    /// That of its service.
    fn pulse(&self) -> u64;

    /// Closes it; what could not be written shows here at the latest.
    fn close(self: Box<Self>) -> BoxFuture<'static, Result<(), FsError>>;
}

/// An open directory.
pub trait RemoteDir: Send + Sync {
    /// Some further entries, `.` and `..` not among them; none at the end.
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Entry>, FsError>>;
}

/// What one request may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one read.
    pub read: u32,
    /// Bytes of one write.
    pub write: u32,
}

/// Whether a link is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// What it leads to.
    Follow,
    /// The link itself.
    Stay,
}

/// In which order a server wants the two names of a link that it is to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkOrder {
    /// Where the link leads, then its own path: OpenSSH and what follows it.
    TargetFirst,
    /// The link's own path first, as the draft has it.
    PathFirst,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// To read.
    Read,
    /// To write, and to read back. It is made if it is missing, with these permission bits less the server's umask.
    Write {
        /// What becomes of what is in it.
        content: Content,
        /// Permission bits.
        permissions: u32,
    },
}

/// What becomes of the content of a file that is opened to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// It stays.
    Keep,
    /// It goes.
    Truncate,
}

/// What is known of a file, or is to be changed of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Bytes.
    pub size: Option<u64>,
    /// Numbers of the owner and the group.
    pub owner: Option<(u32, u32)>,
    /// Type and permission bits as in `st_mode`.
    pub mode: Option<u32>,
    /// Times of the last access and the last change, in seconds since 1970.
    pub times: Option<(u32, u32)>,
}

/// Type bits of `st_mode` (POSIX, `<sys/stat.h>`).
const TYPE: u32 = 0o170_000;

impl Attributes {
    /// What kind of file it is; none if the server does not say.
    pub fn kind(&self) -> Option<Kind> {
        Some(match self.mode? & TYPE {
            0o100_000 => Kind::File,
            0o040_000 => Kind::Directory,
            0o120_000 => Kind::Link,
            _ => Kind::Other,
        })
    }
}

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Regular.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a pipe, a socket.
    Other,
}

/// What there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that an ordinary user may still write.
    pub free: u64,
    /// Whether nothing may be written at all.
    pub read_only: bool,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Vec<u8>,
    /// What it is; of a link, the link.
    pub attributes: Attributes,
}

/// How one file took another's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// At once.
    Atomically,
    /// For a moment there was none.
    InTwoSteps,
}

/// Whether a flush to disk was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synced {
    /// It was.
    Yes,
    /// The server cannot.
    Unsupported,
}

/// Why something could not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct FsError {
    /// By blame.
    pub kind: FsErrorKind,
    /// The server's words, one line.
    pub cause: String,
}

/// Why something could not be done, by blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsErrorKind {
    /// There is no such file.
    NotFound,
    /// The user may not.
    Denied,
    /// The disk or the quota is full.
    NoSpace,
    /// The file system is read-only.
    ReadOnly,
    /// The server does not know the request.
    Unsupported,
    /// The server broke the protocol.
    Protocol,
    /// The service or the connection has ended.
    Gone,
    /// It was waited for long enough.
    TimedOut,
    /// Anything else.
    Failed,
}
