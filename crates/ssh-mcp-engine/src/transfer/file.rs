//! One file from one side to the other: what is looked at before a byte moves, and what is done around the bytes
//! (`docs/transfers.md`).
//!
//! [`Upload::prepare`] and [`Download::prepare`] refuse what cannot be; nothing is touched by a refusal. Their `run` moves the
//! bytes; what it leaves when it fails is a prefix of the source.

use std::{
    fs::{self, File, FileTimes, Metadata, OpenOptions, Permissions},
    io::{self, Seek, SeekFrom},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};
use ssh_mcp_core::{
    kind::transfer::{self, Failure, Overshoot, Plan, Resume},
    port::fs::{Attributes, Content, FsError, FsErrorKind, Kind, Links, Open, RemoteFile, Replaced},
};
use tokio::task::spawn_blocking;

use super::{
    remote::{Limit, Remote, VerifyMethod, fault, shown, shown_error},
    stream::{self, Hash, StreamError},
};

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The path on this side.
    pub local: PathBuf,
    /// The path on the far side, absolute.
    pub remote: Vec<u8>,
    /// Whether it goes on behind what is there.
    pub resume: Resume,
    /// Whether the hashes of both sides are compared.
    pub verify: bool,
    /// Whether it takes the destination's place at once.
    pub atomic: bool,
    /// Whether permissions and times are those of the source.
    pub preserve: bool,
}

/// Why nothing was begun.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The local file, its path first.
    #[error("{}: {cause}", .path.display())]
    Local {
        /// The path.
        path: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// The local path is no regular file.
    #[error("{} is no regular file", .0.display())]
    LocalNotFile(PathBuf),
    /// The remote path cannot be looked at.
    #[error("{path}: {error}")]
    Remote {
        /// The path, as far as it is text.
        path: String,
        /// Why.
        error: FsError,
    },
    /// The remote path is no regular file.
    #[error("{0} is no regular file")]
    RemoteNotFile(String),
    /// The destination is longer than the source.
    #[error(transparent)]
    Overshoot(#[from] Overshoot),
    /// What the destination has is not how the source begins.
    #[error("the first {0} bytes of both sides differ")]
    ResumeMismatch(u64),
}

/// Why a transfer failed once it had begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Fault {
    /// In one word.
    pub failure: Failure,
    /// One line.
    pub reason: String,
}

/// What is worth saying of a transfer that succeeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How the hashes were compared.
    pub verified: Option<VerifyMethod>,
    /// The source was written while it was read.
    pub source_changed: bool,
    /// For a moment there was no destination.
    pub not_atomic: bool,
}

/// An upload that can begin.
pub struct Upload {
    ask: Ask,
    source: File,
    before: Metadata,
    /// Where the bytes go; the destination's own path comes at the end, if it is another one.
    target: Vec<u8>,
    plan: Plan,
    hash: Hash,
}

/// A download that can begin.
pub struct Download {
    ask: Ask,
    source: Box<dyn RemoteFile>,
    before: Attributes,
    total: u64,
    target: PathBuf,
    into: File,
    plan: Plan,
    hash: Hash,
}

impl Upload {
    /// Looks at both sides.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn prepare(remote: &Remote, mut ask: Ask) -> Result<Self, Refusal> {
        let (source, before) = open_local(&ask.local).await?;
        let there = remote.look(&ask.remote).await?;
        let name = ask.local.file_name().unwrap_or_default().as_bytes();
        let destination = transfer::destination(&ask.remote, there.and_then(|there| there.kind()), name);
        let mut there = match destination == ask.remote {
            true => there,
            false => remote.look(&destination).await?,
        };
        ask.remote = destination;
        if there.is_some_and(|there| there.kind().is_some_and(|kind| kind != Kind::File)) {
            return Err(Refusal::RemoteNotFile(shown(&ask.remote)));
        }
        let target = if ask.atomic { part_of(&ask.remote) } else { ask.remote.clone() };
        if ask.atomic && ask.resume == Resume::Yes {
            there = remote.look(&target).await?;
        }
        let held = there.and_then(|there| there.size).unwrap_or(0);
        let plan = Plan::decide(ask.resume, held, before.len())?;
        let mut hash = ask.verify.then(Sha256::new);
        if let (Some(hash), held @ 1..) = (&mut hash, plan.resumed_from(before.len())) {
            *hash = remote.same_beginning(&target, (&ask.local, &source), held).await?;
        }
        Ok(Self { ask, source, before, target, plan, hash })
    }

    /// Bytes of the source.
    pub fn total(&self) -> u64 {
        self.before.len()
    }

    /// Bytes that need not be moved.
    pub fn resumed_from(&self) -> u64 {
        self.plan.resumed_from(self.total())
    }

    /// Where it goes in the end.
    pub fn destination(&self) -> &[u8] {
        &self.ask.remote
    }

    /// Moves the bytes. `moved` hears how many more are there.
    ///
    /// # Errors
    /// See [`Fault`]; what is there then is a prefix.
    pub async fn run(self, remote: &Remote, mut moved: impl FnMut(u64)) -> Result<Outcome, Fault> {
        let Self { ask, mut source, before, target, plan, hash } = self;
        let total = before.len();
        let from = plan.resumed_from(total);
        remote.has_room(&target, total - from).await?;
        let content = if plan == Plan::Fresh { Content::Truncate } else { Content::Keep };
        let how = Open::Write { content, permissions: before.mode() & 0o777 };
        let file =
            remote.answer(remote.files.open(&target, how)).await.map_err(|error| match error.kind {
                // The file would be made, so it is its directory that is not there.
                FsErrorKind::NotFound => {
                    Fault { failure: Failure::RemoteDirNotFound, reason: shown_error(&target, &error) }
                }
                FsErrorKind::Denied
                | FsErrorKind::NoSpace
                | FsErrorKind::ReadOnly
                | FsErrorKind::Unsupported
                | FsErrorKind::Protocol
                | FsErrorKind::Gone
                | FsErrorKind::TimedOut
                | FsErrorKind::Failed => fault(&target, &error),
            })?;
        source.seek(SeekFrom::Start(from)).map_err(|cause| local_fault(&ask.local, &cause))?;
        let again = source.try_clone().map_err(|cause| local_fault(&ask.local, &cause))?;
        let mut reached = from;
        let count = |bytes| {
            reached += bytes;
            moved(bytes);
        };
        let streamed = stream::upload(source, &*file, from, remote.flow(Limit::Write), hash, count).await;
        let hash = match streamed {
            Ok(hash) => hash,
            Err(StreamError::Remote(error)) => {
                let fault = remote.explained(&target, &error).await;
                // Writes behind the one that failed may have been done; what cannot be cut is left to a later verification.
                let prefix = Attributes { size: Some(reached), ..Attributes::default() };
                _ = remote.answer(file.set_attributes(prefix)).await;
                return Err(fault);
            }
            Err(error @ (StreamError::Local(_) | StreamError::Stalled(_))) => {
                return Err(stream_fault(&ask.local, &error));
            }
        };
        if ask.verify {
            remote.answer(file.sync()).await.map_err(|error| fault(&target, &error))?;
        }
        if ask.preserve {
            let same = Attributes {
                size: None,
                mode: Some(before.mode() & 0o7777),
                times: Some((seconds(before.accessed()), seconds(before.modified()))),
            };
            remote.answer(file.set_attributes(same)).await.map_err(|error| fault(&target, &error))?;
        }
        remote.answer(file.close()).await.map_err(|error| fault(&target, &error))?;
        let after = again.metadata().map_err(|cause| local_fault(&ask.local, &cause))?;
        let source_changed = after.len() != total || after.modified().ok() != before.modified().ok();
        let verified = remote.verify(&target, hash, source_changed).await?;
        let not_atomic = target != ask.remote
            && remote
                .answer(remote.files.replace(&target, &ask.remote))
                .await
                .map_err(|error| fault(&ask.remote, &error))?
                == Replaced::InTwoSteps;
        Ok(Outcome { verified, source_changed, not_atomic })
    }
}

impl Download {
    /// Looks at both sides, and opens the destination.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn prepare(remote: &Remote, mut ask: Ask) -> Result<Self, Refusal> {
        let unseen = |error| Refusal::Remote { path: shown(&ask.remote), error };
        // What it is before it is opened: opening a pipe would wait for its other end.
        let there =
            remote.answer(remote.files.attributes(&ask.remote, Links::Follow)).await.map_err(unseen)?;
        if there.kind().is_some_and(|kind| kind != Kind::File) {
            return Err(Refusal::RemoteNotFile(shown(&ask.remote)));
        }
        let source = remote.answer(remote.files.open(&ask.remote, Open::Read)).await.map_err(unseen)?;
        let before = remote.answer(source.attributes()).await.map_err(unseen)?;
        let total = before.size.ok_or_else(|| {
            let cause = "the server does not say how long the file is".to_owned();
            unseen(FsError { kind: FsErrorKind::Unsupported, cause })
        })?;

        let name = ask.remote.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
        let (named, atomic) = (ask.local.clone(), ask.atomic);
        let looked = blocking(move || {
            let destination = below(&named, &name);
            let target = match atomic {
                true => path(part_of(destination.as_os_str().as_bytes())),
                false => destination.clone(),
            };
            match fs::metadata(&target) {
                Ok(there) if !there.is_file() => Err(Refusal::LocalNotFile(target)),
                Ok(there) => Ok((destination, target, there.len())),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok((destination, target, 0)),
                Err(cause) => Err(local(&target, cause)),
            }
        });
        let (destination, target, held) = looked.await?;
        ask.local = destination;
        let plan = Plan::decide(ask.resume, held, total)?;
        let held = plan.resumed_from(total);
        let mut hash = ask.verify.then(Sha256::new);
        if let (Some(hash), 1..) = (&mut hash, held) {
            let (prefix, _) = open_local(&target).await?;
            *hash = remote.same_beginning(&ask.remote, (&target, &prefix), held).await?;
        }
        let (at, truncate, mode) =
            (target.clone(), plan == Plan::Fresh, before.mode.unwrap_or(0o666) & 0o777);
        let opened = blocking(move || {
            let mut options = OpenOptions::new();
            let mut into = options.write(true).create(true).truncate(truncate).mode(mode).open(at)?;
            into.seek(SeekFrom::Start(held))?;
            Ok(into)
        });
        let into = opened.await.map_err(|cause| local(&target, cause))?;
        Ok(Self { ask, source, before, total, target, into, plan, hash })
    }

    /// Bytes of the source.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes that need not be moved.
    pub fn resumed_from(&self) -> u64 {
        self.plan.resumed_from(self.total)
    }

    /// Where it goes in the end.
    pub fn destination(&self) -> &Path {
        &self.ask.local
    }

    /// Moves the bytes. `moved` hears how many more are there, in a thread of its own.
    ///
    /// # Errors
    /// See [`Fault`]; what is there then is a prefix.
    pub async fn run(
        self,
        remote: &Remote,
        moved: impl FnMut(u64) + Send + 'static,
    ) -> Result<Outcome, Fault> {
        let from = self.resumed_from();
        let Self { ask, source, before, total, target, into, hash, .. } = self;
        let ours = into.try_clone().map_err(|cause| local_fault(&target, &cause))?;
        let flow = remote.flow(Limit::Read);
        let streamed = stream::download(&*source, into, (from, total), flow, hash, moved).await;
        let (reached, hash) = streamed.map_err(|error| match error {
            StreamError::Remote(error) => fault(&ask.remote, &error),
            StreamError::Local(_) | StreamError::Stalled(_) => stream_fault(&target, &error),
        })?;
        let after = remote.answer(source.attributes()).await.map_err(|error| fault(&ask.remote, &error))?;
        let changed = |now: Attributes| {
            now.size != before.size || now.times.map(|(_, at)| at) != before.times.map(|(_, at)| at)
        };
        let source_changed = reached != total || changed(after);
        if ask.preserve {
            keep(&ours, &before).map_err(|cause| local_fault(&target, &cause))?;
        }
        let verified = remote.verify(&ask.remote, hash, source_changed).await?;
        if target != ask.local {
            let (from, to) = (target, ask.local.clone());
            let renamed = blocking(move || fs::rename(from, to)).await;
            renamed.map_err(|cause| local_fault(&ask.local, &cause))?;
        }
        Ok(Outcome { verified, source_changed, not_atomic: false })
    }
}

/// A regular file of this side, for reading.
async fn open_local(at: &Path) -> Result<(File, Metadata), Refusal> {
    let at = at.to_owned();
    blocking(move || {
        let looked = fs::metadata(&at).map_err(|cause| local(&at, cause))?;
        // Opening a pipe would wait for its other end.
        if !looked.is_file() {
            return Err(Refusal::LocalNotFile(at));
        }
        let file = File::open(&at).map_err(|cause| local(&at, cause))?;
        let before = file.metadata().map_err(|cause| local(&at, cause))?;
        Ok((file, before))
    })
    .await
}

/// Runs file work where it may wait; a panic in it is this task's as well.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
        // The runtime is shutting down and drops this task, too.
        Err(_) => std::future::pending().await,
    }
}

/// Permissions and times as the source has them.
fn keep(file: &File, source: &Attributes) -> io::Result<()> {
    if let Some(mode) = source.mode {
        file.set_permissions(Permissions::from_mode(mode & 0o7777))?;
    }
    if let Some((accessed, modified)) = source.times {
        let at = |secs: u32| SystemTime::UNIX_EPOCH + Duration::from_secs(secs.into());
        file.set_times(FileTimes::new().set_accessed(at(accessed)).set_modified(at(modified)))?;
    }
    Ok(())
}

fn seconds(time: io::Result<SystemTime>) -> u32 {
    let since = time.ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    u32::try_from(since.unwrap_or_default().as_secs()).unwrap_or(u32::MAX)
}

fn below(destination: &Path, name: &[u8]) -> PathBuf {
    let kind =
        fs::metadata(destination).ok().map(|there| if there.is_dir() { Kind::Directory } else { Kind::File });
    path(transfer::destination(destination.as_os_str().as_bytes(), kind, name))
}

fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes))
}

/// The half beside a file.
fn part_of(file: &[u8]) -> Vec<u8> {
    let name = file.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let folder = file.get(..file.len().saturating_sub(name.len())).unwrap_or_default();
    [folder, &transfer::part_name(name)].concat()
}

pub(super) fn local(path: &Path, cause: io::Error) -> Refusal {
    Refusal::Local { path: path.to_owned(), cause }
}

fn local_fault(path: &Path, cause: &io::Error) -> Fault {
    Fault { failure: cause.kind().into(), reason: format!("{}: {cause}", path.display()) }
}

fn stream_fault(path: &Path, error: &StreamError) -> Fault {
    let failure = match error {
        StreamError::Local(cause) => cause.kind().into(),
        StreamError::Remote(error) => error.kind.into(),
        StreamError::Stalled(_) => Failure::Timeout,
    };
    Fault { failure, reason: format!("{}: {error}", path.display()) }
}
