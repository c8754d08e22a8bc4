//! The mirror port: a tree on one side made equal to one on the other, by rsync or by the file service.
//!
//! Names are bytes. A run tells what becomes of each file while it goes on ([`News`]), and its totals at the end.

use std::{path::PathBuf, sync::Arc};

use super::{BoxFuture, fs::RemoteFs, ssh::Channel};
use crate::registry::Direction;

/// Makes trees equal. Runs side by side have nothing in common.
pub trait Mirror: Send + Sync {
    /// By rsync's protocol, with a server that is started on a channel on which nothing runs yet.
    ///
    /// When `stop` resolves, the run ends early: the channel is closed, temporary files are gone or kept as the job says,
    /// and the answer is [`BrokenKind::Stopped`]. Dropping the future does the same without waiting for it.
    fn wire(
        &self,
        channel: Channel,
        job: Job,
        news: Arc<dyn NewsDesk>,
        stop: BoxFuture<'static, ()>,
    ) -> BoxFuture<'static, Result<Done, Broken>>;

    /// Over the file service, file by file; `stop` as above.
    fn walk(
        &self,
        files: Arc<dyn RemoteFs>,
        job: Job,
        news: Arc<dyn NewsDesk>,
        stop: BoxFuture<'static, ()>,
    ) -> BoxFuture<'static, Result<Done, Broken>>;

    /// Whether the patterns of a job can be understood.
    ///
    /// # Errors
    /// The first that cannot, and why.
    fn check_patterns(&self, include: &[String], exclude: &[String]) -> Result<(), String>;
}

/// What is to be made equal, and how.
#[derive(Debug, Clone)]
pub struct Job {
    /// Which side is the source.
    pub direction: Direction,
    /// The path on this side, absolute.
    pub local: PathBuf,
    /// The path on the far side as a user writes it; relative ones start at the login directory, and so does the empty one.
    pub remote: Vec<u8>,
    /// Whether the source stands for its content, and not for itself below the destination.
    pub content: bool,
    /// What is done besides transferring.
    pub options: Options,
    /// Patterns of what is taken in spite of the others (`docs/mirror.md`).
    pub include: Vec<String>,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// The most KiB of file data a second.
    pub bwlimit: Option<u64>,
    /// The most entries of a list.
    pub list_limit: u32,
    /// The block length of deltas, instead of one that fits the file.
    pub block_len: Option<u32>,
}

/// What is done besides transferring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Directories with their content.
    pub recursive: bool,
    /// What the source does not have goes.
    pub delete: bool,
    /// Nothing is changed.
    pub dry_run: bool,
    /// Data is compressed on the way, where that is not done already.
    pub compress: bool,
    /// What has arrived of an interrupted file is kept for the next run.
    pub partial: bool,
    /// Content decides whether a file is up to date, not its time.
    pub checksum: bool,
    /// Permission bits.
    pub perms: bool,
    /// Times of the last change.
    pub mtime: bool,
    /// Owners, where the receiving side may set them.
    pub owner: bool,
    /// Groups, where the receiving side may set them.
    pub group: bool,
    /// Symlinks as symlinks; otherwise they are left out.
    pub links: bool,
    /// Files that are one file.
    pub hard_links: bool,
    /// Runs of zeros become holes.
    pub sparse: bool,
    /// Devices, fifos and sockets, where the receiving side may make them.
    pub devices: Devices,
}

/// Whether devices, fifos and sockets are mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Devices {
    /// They are left out.
    #[default]
    No,
    /// They are, where that can be done.
    Implied,
    /// They are, or nothing is.
    Asked,
}

/// Told what becomes of the files of a run. Called from any thread; never waits.
pub trait NewsDesk: Send + Sync {
    /// Something has happened.
    fn tell(&self, news: News<'_>);
}

/// What has happened in a run. Paths are relative to the root of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News<'a> {
    /// The list is complete: how many regular files will be looked at, and their bytes. Once, first.
    Planned {
        /// Files.
        files: u64,
        /// Bytes.
        bytes: u64,
    },
    /// A file's data begins to move.
    Started {
        /// The file.
        path: &'a [u8],
        /// Its bytes.
        total: u64,
    },
    /// So many bytes of it are there, moved or taken from what was there.
    Moving {
        /// The file.
        path: &'a [u8],
        /// Bytes.
        done: u64,
        /// Its bytes.
        total: u64,
    },
    /// A file is there whole.
    Completed {
        /// The file.
        path: &'a [u8],
        /// Bytes that crossed the line.
        transferred: u64,
        /// Bytes that were there before.
        skipped: u64,
    },
    /// A file needs nothing, or nothing is done.
    Skipped {
        /// The file.
        path: &'a [u8],
        /// Its bytes.
        bytes: u64,
        /// Why.
        because: Skip,
    },
    /// A file failed; the run goes on.
    Failed {
        /// The file.
        path: &'a [u8],
        /// Why, in one word.
        fault: FileFault,
        /// Why, in one line.
        detail: &'a str,
        /// Whether it counts among the files that were planned.
        planned: bool,
    },
    /// The source did not have it, so it is gone, or would be.
    Deleted {
        /// What is gone.
        path: &'a [u8],
        /// Whether nothing was done.
        dry_run: bool,
    },
}

/// Why a file needed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Skip {
    /// Size and content are equal.
    Size,
    /// Size and time are equal.
    Mtime,
    /// Nothing is changed in this run.
    DryRun,
}

/// Why a file failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileFault {
    /// One of the two sides may not.
    PermissionDenied,
    /// It is not there any more.
    FileNotFound,
    /// Anything else that a disk says.
    IoError,
    /// What arrived is not what was sent, twice.
    VerifyMismatch,
}

/// What is known at the end of a run that came to its end; files may have failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Done {
    /// Why nothing was deleted though that was asked for.
    pub delete_skipped: Option<String>,
    /// What else a user would want to know, one line each.
    pub notes: Vec<String>,
}

/// A run that came to no end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Broken {
    /// By blame.
    pub kind: BrokenKind,
    /// One line, with the far side's words in it.
    pub detail: String,
    /// Whether a file had been touched: if not, another way may be tried.
    pub touched: bool,
}

/// Why a run came to no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BrokenKind {
    /// The dialogue broke before data moved, or the far side is no rsync.
    Protocol,
    /// It was interrupted part-way.
    Partial,
    /// A list has more entries than the job allows.
    ListTooLarge,
    /// The way cannot do what was asked for; nothing was touched.
    FeatureMissing,
    /// What was asked for makes no sense with what is there, such as a source that is missing; nothing was touched.
    Refused,
    /// The connection is gone.
    Lost,
    /// It was stopped.
    Stopped,
}
