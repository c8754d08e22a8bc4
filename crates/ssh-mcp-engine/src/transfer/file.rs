//! One file from one side to the other: what is looked at before a byte moves, and what is done around the bytes
//! (`docs/transfers.md`).
//!
//! [`Upload::prepare`] and [`Download::prepare`] refuse what cannot be; nothing is touched by a refusal. Their `run` moves the
//! bytes; what it leaves when it fails is a prefix of the source.

use std::{
    fs::{File, FileTimes, Permissions},
    io::{self, Seek, SeekFrom},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::PermissionsExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};
use ssh_mcp_core::{
    kind::transfer::{self, Failure, Overshoot, Plan, Resume},
    port::fs::{Attributes, Content, FsError, FsErrorKind, Kind, Links, Open, RemoteFile, Replaced},
};
use tokio::task::spawn_blocking;

pub use ssh_mcp_core::kind::transfer::{Fault, Outcome};

use super::{
    claims::{Claim, Claims},
    local::{Local, Look},
    remote::{Limit, Remote, VerifyMethod, fault, shown, shown_error},
    stream::{self, Flush, Hash, StreamError},
};

/// Both sides of a transfer.
#[derive(Clone)]
pub struct Sides {
    /// The files of this machine.
    pub here: Local,
    /// The far side.
    pub there: Remote,
    /// What other transfers write to.
    pub claims: Claims,
    /// Entries of a tree at most.
    pub most_entries: usize,
}

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The path on this side.
    pub local: PathBuf,
    /// The path on the far side, absolute.
    pub remote: Vec<u8>,
    /// What the path of the destination says.
    pub destination: Destination,
    /// Whether it goes on behind what is there.
    pub resume: Resume,
    /// Whether the hashes of both sides are compared.
    pub verify: bool,
    /// Whether it takes the destination's place at once.
    pub atomic: bool,
    /// Whether permissions and times are those of the source.
    pub preserve: bool,
}

/// What the path of a destination says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// As a user writes it: in a directory, the source goes below it under its own name.
    Named,
    /// The file itself.
    Exact,
    /// The file itself, in a directory that was just made: there is none yet.
    New,
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
    /// The local path lies below none of the directories that are open.
    #[error("{} is not below a directory that the operator opened", .0.display())]
    Outside(PathBuf),
    /// Another transfer writes to the destination.
    #[error("another transfer writes to {0}")]
    Busy(String),
    /// Two of several sources would go to one file.
    #[error("two sources have the destination {0}")]
    Twins(String),
    /// What several sources are to go into is no directory.
    #[error("{0} is no directory")]
    NoDirectory(String),
    /// There is more than one transfer can keep in mind.
    #[error(
        "there are more than {limit} files and directories, or their paths are too long to be kept in mind; the last \
         looked at is {path}"
    )]
    TooMany {
        /// Where it was given up.
        path: String,
        /// How many may be.
        limit: usize,
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

/// An upload that can begin.
pub struct Upload {
    ask: Ask,
    source: File,
    before: Look,
    /// Where the bytes go; the destination's own path comes at the end, if it is another one.
    target: Vec<u8>,
    plan: Plan,
    /// Bytes that are there and give their place to the new ones.
    freed: u64,
    permissions: Permitted,
    hash: Hash,
    /// What is there is the same as the source's beginning, by whose word.
    same: Option<VerifyMethod>,
    claim: Claim,
}

/// A download that can begin.
pub struct Download {
    ask: Ask,
    source: Box<dyn RemoteFile>,
    before: Attributes,
    total: u64,
    target: PathBuf,
    into: File,
    permissions: Permitted,
    plan: Plan,
    hash: Hash,
    /// What is there is the same as the source's beginning, by whose word.
    same: Option<VerifyMethod>,
    claim: Claim,
}

/// Permission bits of the file that is written.
#[derive(Debug, Clone, Copy)]
struct Permitted {
    /// Those it is made with, less the umask.
    made: u32,
    /// What becomes of them behind the last byte.
    then: Then,
}

/// What becomes of permission bits behind the last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// They stay.
    Same,
    /// Those go that only the transfer needed.
    Less(u32),
    /// Those of the file that is replaced.
    These(u32),
}

impl Permitted {
    /// Without these bits nobody but an administrator could continue what an interruption leaves.
    const NEEDED: u32 = 0o600;

    /// `replaced` is what the file takes the place of, `is_there` whether something stands where it is written.
    fn decide(source: u32, replaced: Option<u32>, is_there: bool) -> Self {
        let wanted = replaced.unwrap_or(source) & 0o777;
        let then = match (replaced, Self::NEEDED & !wanted) {
            (Some(_), _) => Then::These(wanted),
            (None, 1..) if !is_there => Then::Less(Self::NEEDED & !wanted),
            (None, _) => Then::Same,
        };
        Self { made: wanted | Self::NEEDED, then }
    }
}

impl Then {
    /// What they become, of a file that has these.
    fn of(self, bits: u32) -> Option<u32> {
        let (bits, then) = match self {
            Self::Same => return None,
            Self::Less(more) => (bits & 0o7777, bits & 0o7777 & !more),
            Self::These(these) => (bits & 0o7777, these),
        };
        (bits != then).then_some(then)
    }
}

impl Upload {
    /// Looks at both sides.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn prepare(sides: &Sides, mut ask: Ask) -> Result<Self, Refusal> {
        let (here, from) = (sides.here.clone(), ask.local.clone());
        let (source, before) = blocking(move || here.open(&from)).await?;
        let remote = &sides.there;
        let mut there = match ask.destination {
            Destination::New => None,
            Destination::Named | Destination::Exact => remote.look(&ask.remote).await?,
        };
        if ask.destination == Destination::Named {
            let name = ask.local.file_name().unwrap_or_default().as_bytes();
            let destination = transfer::destination(&ask.remote, there.and_then(|there| there.kind()), name);
            if destination != ask.remote {
                there = remote.look(&destination).await?;
                ask.remote = destination;
            }
        }
        let claim = sides.claims.remote(&ask.remote)?;
        if there.is_some_and(|there| there.kind().is_some_and(|kind| kind != Kind::File)) {
            return Err(Refusal::RemoteNotFile(shown(&ask.remote)));
        }
        let target = if ask.atomic { part_of(&ask.remote) } else { ask.remote.clone() };
        let replaced = there.filter(|_| ask.atomic).and_then(|there| there.mode);
        if ask.atomic && ask.resume == Resume::Yes {
            there = remote.look(&target).await?;
        }
        let permissions = Permitted::decide(before.mode, replaced, there.is_some());
        let held = there.and_then(|there| there.size).unwrap_or(0);
        let plan = Plan::decide(ask.resume, held, before.size)?;
        let freed = if plan == Plan::Fresh && !ask.atomic { held } else { 0 };
        let (mut hash, mut same) = (ask.verify.then(Sha256::new), None);
        if let (Some(hash), held @ 1..) = (&mut hash, plan.resumed_from(before.size)) {
            let (begun, method) = remote.same_beginning(&target, (&ask.local, &source), held).await?;
            (*hash, same) = (begun, Some(method));
        }
        Ok(Self { ask, source, before, target, plan, freed, permissions, hash, same, claim })
    }

    /// Bytes of the source.
    pub fn total(&self) -> u64 {
        self.before.size
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
    pub async fn run(self, sides: &Sides, mut moved: impl FnMut(u64)) -> Result<Outcome, Fault> {
        let remote = &sides.there;
        let Self { ask, mut source, before, target, plan, freed, permissions, hash, same, claim: _claim } =
            self;
        let total = before.size;
        let from = plan.resumed_from(total);
        if plan == Plan::Complete && !ask.preserve && permissions.then == Then::Same {
            let not_atomic = take_place(remote, &target, &ask.remote).await?;
            return Ok(Outcome { verified: same, not_atomic, ..Outcome::default() });
        }
        if ask.destination == Destination::Named {
            remote.has_room(&target, (total - from).saturating_sub(freed)).await?;
        }
        let content = if plan == Plan::Fresh { Content::Truncate } else { Content::Keep };
        let how = Open::Write { content, permissions: permissions.made };
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
        let flow = remote.flow(Limit::Write);
        let hash = match stream::upload(source, &*file, (from, total), flow, hash, count).await {
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
            let times = again.metadata().map_err(|cause| local_fault(&ask.local, &cause))?.accessed();
            let modified = u32::try_from(before.modified.as_secs()).unwrap_or(u32::MAX);
            let same = Attributes {
                mode: Some(before.mode),
                times: Some((seconds(times), modified)),
                ..Attributes::default()
            };
            remote.answer(file.set_attributes(same)).await.map_err(|error| fault(&target, &error))?;
        } else if permissions.then != Then::Same {
            let now = remote.answer(file.attributes()).await.map_err(|error| fault(&target, &error))?;
            if let Some(mode) = now.mode.and_then(|mode| permissions.then.of(mode)) {
                let same = Attributes { mode: Some(mode), ..Attributes::default() };
                remote.answer(file.set_attributes(same)).await.map_err(|error| fault(&target, &error))?;
            }
        }
        remote.answer(file.close()).await.map_err(|error| fault(&target, &error))?;
        let after = blocking(move || Look::of(&again)).await;
        let after = after.map_err(|cause| local_fault(&ask.local, &cause))?;
        let source_changed = after.size != total || after.modified != before.modified;
        let verified = remote.verify(&target, (hash, total), source_changed).await?;
        let not_atomic = take_place(remote, &target, &ask.remote).await?;
        Ok(Outcome { verified, source_changed, not_atomic })
    }
}

/// Puts the half of a file in its place, if it is not there already; whether for a moment there was none.
async fn take_place(remote: &Remote, half: &[u8], place: &[u8]) -> Result<bool, Fault> {
    if half == place {
        return Ok(false);
    }
    let replaced =
        remote.answer(remote.files.replace(half, place)).await.map_err(|error| fault(place, &error))?;
    Ok(replaced == Replaced::InTwoSteps)
}

impl Download {
    /// Looks at both sides, and opens the destination.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn prepare(sides: &Sides, mut ask: Ask) -> Result<Self, Refusal> {
        let remote = &sides.there;
        let unseen = |error| Refusal::Remote { path: shown(&ask.remote), error };
        if ask.destination == Destination::Named {
            // What it is before it is opened: opening a pipe would wait for its other end.
            let there =
                remote.answer(remote.files.attributes(&ask.remote, Links::Follow)).await.map_err(unseen)?;
            if there.kind().is_some_and(|kind| kind != Kind::File) {
                return Err(Refusal::RemoteNotFile(shown(&ask.remote)));
            }
        }
        let source = remote.answer(remote.files.open(&ask.remote, Open::Read)).await.map_err(unseen)?;
        let before = remote.answer(source.attributes()).await.map_err(unseen)?;
        let total = before.size.ok_or_else(|| {
            let cause = "the server does not say how long the file is".to_owned();
            unseen(FsError { kind: FsErrorKind::Unsupported, cause })
        })?;

        let name = last_name(&ask.remote).to_vec();
        let (here, claims, named) = (sides.here.clone(), sides.claims.clone(), ask.local.clone());
        let (atomic, meant, mode) = (ask.atomic, ask.destination, before.mode.unwrap_or(0o666));
        let looked = blocking(move || {
            let destination = match meant {
                Destination::Named => {
                    let is = here.find(&named)?.map(|there| there.kind);
                    path(transfer::destination(named.as_os_str().as_bytes(), is, &name))
                }
                Destination::Exact | Destination::New => named,
            };
            let target = match atomic {
                true => path(part_of(destination.as_os_str().as_bytes())),
                false => destination.clone(),
            };
            let claim = claims.local(&here.identity(&destination))?;
            let replaced = if atomic { here.find(&destination)? } else { None };
            if replaced.as_ref().is_some_and(|there| there.kind != Kind::File) {
                return Err(Refusal::LocalNotFile(destination));
            }
            match here.find(&target)? {
                Some(there) if there.kind != Kind::File => Err(Refusal::LocalNotFile(target)),
                there => {
                    let replaced = replaced.map(|replaced| replaced.mode);
                    let permissions = Permitted::decide(mode, replaced, there.is_some());
                    Ok((destination, target, there.map_or(0, |there| there.size), permissions, claim))
                }
            }
        });
        let (destination, target, held, permissions, claim) = looked.await?;
        ask.local = destination;
        let plan = Plan::decide(ask.resume, held, total)?;
        let held = plan.resumed_from(total);
        let (mut hash, mut same) = (ask.verify.then(Sha256::new), None);
        if let (Some(hash), 1..) = (&mut hash, held) {
            let (here, at) = (sides.here.clone(), target.clone());
            let (prefix, _) = blocking(move || here.open(&at)).await?;
            let (begun, method) = remote.same_beginning(&ask.remote, (&target, &prefix), held).await?;
            (*hash, same) = (begun, Some(method));
        }
        let (here, at) = (sides.here.clone(), target.clone());
        let (truncate, mode) = (plan == Plan::Fresh, permissions.made);
        let opened = blocking(move || {
            let mut into = here.write(&at, truncate, mode)?;
            into.seek(SeekFrom::Start(held)).map_err(|cause| local(&at, cause))?;
            // Whoever asked may go away meanwhile; until here the destination is taken.
            Ok::<_, Refusal>((into, claim))
        });
        let (into, claim) = opened.await?;
        Ok(Self { ask, source, before, total, target, into, permissions, plan, hash, same, claim })
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
        sides: &Sides,
        mut moved: impl FnMut(u64) + Send + 'static,
    ) -> Result<Outcome, Fault> {
        let remote = &sides.there;
        let from = self.resumed_from();
        let Self { ask, source, before, total, target, into, permissions, plan, hash, same, claim } = self;
        // The threads that write outlive this future where it is dropped; as long as they do, nobody else writes there.
        let claim = Arc::new(claim);
        if plan == Plan::Complete && !ask.preserve && permissions.then == Then::Same {
            take_place_here(sides, target, ask.local, claim).await?;
            return Ok(Outcome { verified: same, ..Outcome::default() });
        }
        // Where it is not needed the thread that writes closes the file: that may wait for the disk.
        let ours = match (ask.preserve, permissions.then) {
            (false, Then::Same) => None,
            (true, _) | (false, Then::Less(_) | Then::These(_)) => {
                Some(into.try_clone().map_err(|cause| local_fault(&target, &cause))?)
            }
        };
        let flow = remote.flow(Limit::Read);
        // What takes another's place is whole on the disk before it does: a crash must not leave neither.
        let flush =
            if ask.destination == Destination::Named || ask.atomic { Flush::Now } else { Flush::Later };
        let writing = Arc::clone(&claim);
        let moved = move |bytes| {
            let _writing = &writing;
            moved(bytes);
        };
        let streamed = stream::download(&*source, into, (from, total), flow, hash, flush, moved).await;
        let (reached, hash) = streamed.map_err(|error| match error {
            StreamError::Remote(error) => fault(&ask.remote, &error),
            StreamError::Local(_) | StreamError::Stalled(_) => stream_fault(&target, &error),
        })?;
        let after = remote.answer(source.attributes()).await.map_err(|error| fault(&ask.remote, &error))?;
        let changed = |now: Attributes| {
            now.size != before.size || now.times.map(|(_, at)| at) != before.times.map(|(_, at)| at)
        };
        let source_changed = reached != total || changed(after);
        if let Some(ours) = ours {
            let preserve = ask.preserve;
            let kept = blocking(move || match preserve {
                true => keep(&ours, &before),
                false => match permissions.then.of(ours.metadata()?.permissions().mode()) {
                    Some(mode) => ours.set_permissions(Permissions::from_mode(mode)),
                    None => Ok(()),
                },
            });
            kept.await.map_err(|cause| local_fault(&target, &cause))?;
        }
        let verified = remote.verify(&ask.remote, (hash, total), source_changed).await?;
        take_place_here(sides, target, ask.local, claim).await?;
        Ok(Outcome { verified, source_changed, not_atomic: false })
    }
}

async fn take_place_here(
    sides: &Sides,
    half: PathBuf,
    place: PathBuf,
    claim: Arc<Claim>,
) -> Result<(), Fault> {
    if half == place {
        return Ok(());
    }
    let here = sides.here.clone();
    let renamed = blocking(move || {
        let _claim = claim;
        here.rename(&half, &place)
    });
    renamed.await.map_err(Fault::from)
}

/// What was refused in the midst of a transfer has failed.
impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let failure = match &refusal {
            Refusal::Local { cause, .. } => cause.kind().into(),
            Refusal::Remote { error, .. } => error.kind.into(),
            Refusal::ResumeMismatch(_) => Failure::VerifyMismatch,
            Refusal::Outside(_) => Failure::PermissionDenied,
            Refusal::Busy(_)
            | Refusal::Twins(_)
            | Refusal::NoDirectory(_)
            | Refusal::TooMany { .. }
            | Refusal::LocalNotFile(_)
            | Refusal::RemoteNotFile(_)
            | Refusal::Overshoot(_) => Failure::IoError,
        };
        Self { failure, reason: refusal.to_string() }
    }
}

/// Runs file work where it may wait; a panic in it is this task's as well.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
        // The runtime is shutting down and drops this task, too.
        Err(_) => std::future::pending().await,
    }
}

/// Permissions and times as the source has them.
pub(super) fn keep(file: &File, source: &Attributes) -> io::Result<()> {
    if let Some(mode) = source.mode {
        file.set_permissions(Permissions::from_mode(mode & 0o7777))?;
    }
    if let Some((accessed, modified)) = source.times {
        let at = |secs: u32| SystemTime::UNIX_EPOCH + Duration::from_secs(secs.into());
        file.set_times(FileTimes::new().set_accessed(at(accessed)).set_modified(at(modified)))?;
    }
    Ok(())
}

fn since_epoch(time: io::Result<SystemTime>) -> Duration {
    let since = time.ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.unwrap_or_default()
}

fn seconds(time: io::Result<SystemTime>) -> u32 {
    u32::try_from(since_epoch(time).as_secs()).unwrap_or(u32::MAX)
}

pub(super) fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

pub(super) fn last_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// The half beside a file.
fn part_of(file: &[u8]) -> Vec<u8> {
    let name = last_name(file);
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
