//! Transfers as callers see them: started, watched, ended.

use std::{
    future::Future,
    path::PathBuf,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ssh_mcp_core::{
    flight::Joined,
    id::{SessionId, TransferId},
    kind::transfer::{self, Failure, Fault, Hashed, Progress, Resume, STEP},
    lifecycle::{AutoRelease, Close, Confirmed, End, Lifecycle, SessionRef},
    owner::Owner,
    port::{
        BoxFuture,
        fs::{FsError, Kind, RemoteFs},
        ssh::ChannelError,
    },
    quota::Quota,
    reason::Reason,
    registry::{Direction, Session, Transfer, TransferFacts, TransferSpec, TransferStatus},
    target_names,
};

use super::{
    claims::Claims,
    file::{Destination, Download, Refusal, Sides, Upload, blocking},
    local::Local,
    remote::{Range, Remote, RemoteHash, shown},
    tree::{Pattern, Tree, TreeEnd, UnderWay},
};
use crate::{Cancel, Clock, Engine, Missing, Observable, StartError, Waited, command, session::while_open};

/// What a caller wants transferred.
#[derive(Debug, Clone)]
pub struct Order {
    /// Where.
    pub session: SessionId,
    /// From where to where.
    pub route: Route,
    /// What of this machine's files may be used.
    pub here: Local,
    /// Whether it goes on behind what is there.
    pub resume: Resume,
    /// Whether the hashes of both sides are compared.
    pub verify: bool,
    /// Whether each file takes its destination's place at once.
    pub atomic: bool,
    /// Whether permissions and times are those of the source.
    pub preserve: bool,
    /// Whether directories are transferred, and missing ones made.
    pub recursive: bool,
    /// Longest run time; none is no limit.
    pub limit: Option<Duration>,
    /// Whether it ends when nobody observes it.
    pub auto_release: AutoRelease,
    /// Wait before that, after the last lane left.
    pub grace: Duration,
}

/// From where to where. Paths of the far side are as a user writes them: from the login directory, if not from the root.
#[derive(Debug, Clone)]
pub enum Route {
    /// From here.
    Up {
        /// At least one.
        from: Vec<PathBuf>,
        /// On the far side.
        to: Vec<u8>,
    },
    /// To here.
    Down {
        /// On the far side, at least one.
        from: Vec<Vec<u8>>,
        /// Here.
        to: PathBuf,
    },
}

/// Why no transfer was started.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// As for everything that is started on a session.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The session's file service does not start.
    #[error("{0}")]
    NoService(String),
    /// What was asked for cannot be.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A file service that has not answered by then does not.
const SERVICE: Duration = Duration::from_secs(30);

/// Nothing moves for so long: the transfer is given up (`docs/transfers.md`).
const STALLED: Duration = Duration::from_secs(60);

/// A program that hashes is waited for so long, and a second longer for so many bytes.
const HASHING: (Duration, u64) = (Duration::from_secs(60), 20 << 20);

/// What is ready to move.
enum Work {
    Up(Box<Upload>),
    Down(Box<Download>),
    Many(Box<Tree>),
}

impl Engine {
    /// Starts a transfer. What cannot be is refused here, and then nothing was touched; with nothing to move it has ended
    /// when this answers.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub async fn transfer(
        self: &Arc<Self>,
        owner: &Owner,
        order: Order,
    ) -> Result<Arc<Transfer>, TransferError> {
        let draining = || TransferError::Start(StartError::Draining);
        let transfer = self.creating(draining, self.start_transfer(owner, order)).await?;
        if transfer.progress.read().bytes == transfer.spec.total && transfer.spec.files.is_none() {
            _ = tokio::time::timeout(STALLED, self.transfer_ended(&transfer)).await;
        }
        Ok(transfer)
    }

    async fn start_transfer(
        self: &Arc<Self>,
        owner: &Owner,
        order: Order,
    ) -> Result<Arc<Transfer>, TransferError> {
        let session = self.session(owner, order.session).map_err(StartError::Session)?;
        let hold = SessionRef::take(&session.life).ok_or_else(|| self.ending(&session))?;
        order.check_paths().await?;
        let limit = session.transfers.limit();
        let place = session.transfers.take().ok_or(StartError::TooManyTransfers { limit })?;
        order.check_sources().await?;
        let files = self.files(&session).await?;
        let there = Remote {
            hasher: Arc::new(SessionHash {
                session: Arc::clone(&session),
                no_program: Arc::clone(&session.files.no_hash_program),
            }),
            files,
            chunk: self.settings.sftp_chunk,
            depth: self.settings.sftp_pipeline,
            patience: STALLED,
        };
        let claims = Claims::new(Arc::clone(&self.written), &session.spec.target.to_string());
        let most_entries = usize::try_from(self.settings.rsync_file_list_limit).unwrap_or(usize::MAX);
        let sides = Sides { here: order.here.clone(), there, claims, most_entries };
        let prepared = while_open(&session, order.prepare(&sides)).await;
        let (work, local, remote) = prepared.ok_or_else(|| self.ending(&session))??;

        let (files, total, resumed) = match &work {
            Work::Up(upload) => (None, upload.total(), upload.resumed_from()),
            Work::Down(download) => (None, download.total(), download.resumed_from()),
            Work::Many(tree) => (Some(tree.count()), tree.total, 0),
        };
        let spec = TransferSpec {
            id: self.mint(),
            owner: owner.clone(),
            session: order.session,
            target: session.spec.target.to_string(),
            agent: session.spec.agent.clone(),
            direction: order.route.direction(),
            local,
            remote,
            files,
            total,
            started: self.clock.now(),
            grace: order.grace,
        };
        let transfer = Arc::new(Transfer::new(
            spec,
            Lifecycle::owned(order.auto_release),
            Arc::new(Progress::from(resumed)),
            Quota::new(self.settings.lanes_per_uri),
            (hold, place),
        ));
        self.registries.transfers.publish(Arc::clone(&transfer));
        self.list_changed(owner);
        // On an ending session either the cascade has found it, or it is refused here. Its task settles it either way.
        let refused = session.life.confirm() == Confirmed::Ending
            && transfer.stop(Reason::CascadeDisconnect) == Close::Won;
        let running = Running {
            clock: self.clock,
            session: Arc::clone(&session),
            transfer: Arc::clone(&transfer),
            limit: order.limit,
        };
        self.tasks.spawn(running.run(sides, work, order.pattern()));
        if refused {
            self.registries.transfers.withdraw(transfer.spec.id);
            self.list_changed(owner);
            return Err(self.ending(&session).into());
        }
        self.arm(Observable::Transfer(&transfer));
        Ok(transfer)
    }

    /// A transfer of the owner, live or retained.
    ///
    /// # Errors
    /// Unknown, of another owner, or past its retention.
    pub fn transfer_of(&self, owner: &Owner, id: TransferId) -> Result<Arc<Transfer>, Missing> {
        let transfer = self.look_up(&self.registries.transfers, owner, id)?;
        transfer.read.touch(self.clock.now());
        self.touch_session(transfer.spec.session);
        Ok(transfer)
    }

    /// Waits for a transfer's end as a casual observer. Dropping the future ends the wait only.
    pub async fn await_transfer(self: &Arc<Self>, transfer: &Arc<Transfer>, patience: Duration) -> Waited {
        let _observer = self.observe(Observable::Transfer(transfer));
        match tokio::time::timeout(patience, self.transfer_ended(transfer)).await {
            Ok(()) => Waited::Over,
            Err(_) => Waited::Patience,
        }
    }

    /// Ends a transfer and waits for that; what has arrived stays.
    pub async fn cancel_transfer(self: &Arc<Self>, transfer: &Arc<Transfer>) -> Cancel {
        let close = transfer.stop(Reason::Cancelled);
        self.transfer_ended(transfer).await;
        match close {
            Close::Won => Cancel::Done,
            Close::Lost => Cancel::AlreadyOver,
        }
    }

    /// Resolves when the end is recorded.
    pub(crate) async fn transfer_ended(&self, transfer: &Transfer) {
        let mut watch = transfer.changes.watch();
        // The last thing that is set: place and reference have been given back.
        while !transfer.changes.mark().ended {
            watch.changed().await;
        }
    }

    /// The file service of a session, started if it does not run.
    pub(crate) async fn files(
        self: &Arc<Self>,
        session: &Arc<Session>,
    ) -> Result<Arc<dyn RemoteFs>, TransferError> {
        loop {
            match session.files.join(self.clock.now()) {
                Joined::Ready(files) => return Ok(files),
                // Whoever started it may have failed for a reason of its own.
                Joined::Wait(wait) => _ = wait.outcome().await,
                Joined::Run(run) => {
                    let channel = match self.channel(session).await {
                        Ok(channel) => channel,
                        Err(StartError::Channel(
                            error @ (ChannelError::Refused { .. } | ChannelError::NoPlace { .. }),
                        )) => return Err(TransferError::NoService(error.to_string())),
                        Err(error) => return Err(error.into()),
                    };
                    let mounting = tokio::time::timeout(SERVICE, self.ports.files.mount(channel));
                    let mounted = while_open(session, mounting).await.ok_or_else(|| self.ending(session))?;
                    let files = mounted
                        .unwrap_or_else(|_| Err(silent()))
                        .map_err(|error| TransferError::NoService(error.cause))?;
                    run.complete(Arc::clone(&files));
                    return Ok(files);
                }
            }
        }
    }
}

fn silent() -> FsError {
    let cause = format!("no answer within {} s", SERVICE.as_secs());
    FsError { kind: ssh_mcp_core::port::fs::FsErrorKind::Gone, cause }
}

impl Route {
    fn direction(&self) -> Direction {
        match self {
            Self::Up { .. } => Direction::Upload,
            Self::Down { .. } => Direction::Download,
        }
    }
}

impl Order {
    fn pattern(&self) -> Pattern {
        let Self { resume, verify, atomic, preserve, .. } = *self;
        Pattern { way: self.route.direction(), resume, verify, atomic, preserve }
    }

    /// What of the local side is not open is refused before anything else is looked at.
    async fn check_paths(&self) -> Result<(), Refusal> {
        let paths = match &self.route {
            Route::Up { from, .. } => from.clone(),
            Route::Down { to, .. } => vec![to.clone()],
        };
        let here = self.here.clone();
        blocking(move || paths.iter().try_for_each(|path| here.check(path))).await
    }

    /// Local sources are there, and of a kind that can be sent; that is looked at again when they are opened.
    async fn check_sources(&self) -> Result<(), Refusal> {
        let Route::Up { from, .. } = &self.route else { return Ok(()) };
        let (here, from, recursive) = (self.here.clone(), from.clone(), self.recursive);
        let check = move |path: &PathBuf| match here.look(path)?.kind {
            Kind::File => Ok(()),
            Kind::Directory if recursive => Ok(()),
            Kind::Directory | Kind::Link | Kind::Other => Err(Refusal::LocalNotFile(path.clone())),
        };
        blocking(move || from.iter().try_for_each(check)).await
    }

    /// Looks at both sides. The paths are those an answer shows.
    async fn prepare(&self, sides: &Sides) -> Result<(Work, String, String), Refusal> {
        let pattern = self.pattern();
        match &self.route {
            Route::Up { from, to } => {
                let to = absolute(&sides.there, to).await?;
                if let ([from], false) = (from.as_slice(), self.recursive) {
                    let ask = pattern.asking(from.clone(), to, Destination::Named);
                    let upload = Upload::prepare(sides, ask).await?;
                    let remote = shown(upload.destination());
                    return Ok((Work::Up(Box::new(upload)), from.display().to_string(), remote));
                }
                let local = joined(from.iter().map(|path| path.display().to_string()));
                let tree = Tree::up(sides, from.clone(), to.clone(), self.recursive).await?;
                Ok((Work::Many(Box::new(tree)), local, shown(&to)))
            }
            Route::Down { from, to } => {
                let mut sources = Vec::with_capacity(from.len());
                for source in from {
                    sources.push(absolute(&sides.there, source).await?);
                }
                let remote = joined(sources.iter().map(|source| shown(source)));
                if let ([source], false) = (sources.as_slice(), self.recursive) {
                    let ask = pattern.asking(to.clone(), source.clone(), Destination::Named);
                    let download = Download::prepare(sides, ask).await?;
                    let local = download.destination().display().to_string();
                    return Ok((Work::Down(Box::new(download)), local, remote));
                }
                let tree = Tree::down(sides, sources, to.clone(), self.recursive).await?;
                Ok((Work::Many(Box::new(tree)), to.display().to_string(), remote))
            }
        }
    }
}

fn joined(paths: impl Iterator<Item = String>) -> String {
    paths.collect::<Vec<_>>().join(", ")
}

/// A path of the far side from its root: what is relative, and `~`, begin at the login directory.
async fn absolute(remote: &Remote, path: &[u8]) -> Result<Vec<u8>, Refusal> {
    let below = match path {
        [b'/', ..] => return Ok(path.to_vec()),
        b"~" | b"." | b"" => b"",
        [b'~', b'/', below @ ..] | [b'.', b'/', below @ ..] => below,
        below => below,
    };
    let login = remote.answer(remote.files.real_path(b".")).await;
    let login = login.map_err(|error| Refusal::Remote { path: ".".to_owned(), error })?;
    let login = login.strip_suffix(b"/").unwrap_or(&login);
    Ok(match below {
        b"" if login.is_empty() => b"/".to_vec(),
        b"" => login.to_vec(),
        below => [login, b"/", below].concat(),
    })
}

/// Hashes on the far side by a command on the session.
struct SessionHash {
    session: Arc<Session>,
    /// It was asked, and has none.
    no_program: Arc<AtomicBool>,
}

impl RemoteHash for SessionHash {
    fn sha256(&self, path: &[u8], range: Range) -> BoxFuture<'static, Option<[u8; 32]>> {
        let (session, no_program) = (Arc::clone(&self.session), Arc::clone(&self.no_program));
        let (len, prefix) = match range {
            Range::First(len) => (len, Some(len)),
            Range::Whole(len) => (len, None),
        };
        // A shell takes text.
        let command = std::str::from_utf8(path).ok().map(|path| transfer::hash_command(path, prefix));
        let patience = HASHING.0 + Duration::from_secs(len / HASHING.1);
        Box::pin(async move {
            // Relaxed: at worst it is asked once more.
            if no_program.load(Ordering::Relaxed) {
                return None;
            }
            let output = command::collect_within(&session, command?, patience).await?;
            match transfer::hashed(&output) {
                Hashed::Sha256(hash) => Some(hash),
                Hashed::NoProgram => {
                    no_program.store(true, Ordering::Relaxed);
                    None
                }
                Hashed::Failed => None,
            }
        })
    }
}

/// The task of one transfer: the only one that records its end.
struct Running {
    clock: Clock,
    session: Arc<Session>,
    transfer: Arc<Transfer>,
    limit: Option<Duration>,
}

impl Running {
    async fn run(self, sides: Sides, work: Work, pattern: Pattern) {
        tracing::info!(
            target: target_names::MAIN,
            transfer_id = %self.transfer.spec.id,
            session_id = %self.transfer.spec.session,
            direction = self.transfer.spec.direction.as_str(),
            bytes = self.transfer.spec.total,
            "transfer started"
        );
        // What moves the bytes is gone behind this, and with it whatever it held, before anybody hears of the end.
        let mut under_way = UnderWay::new();
        let mut end = TreeEnd::default();
        let moving = work.run(sides, pattern, &self.transfer.progress, &mut under_way, &mut end);
        let over = self.until_the_end(moving).await;
        under_way.shutdown().await;
        if over == Over::Late {
            end.took_longer(self.limit.unwrap_or_default());
        }
        // Somebody may win at this very moment; its reason follows at once.
        if over != Over::Asked && self.transfer.life.close() == Close::Lost {
            while self.transfer.duty.order().is_none() {
                self.transfer.duty.told.notified().await;
            }
        }
        self.settle(end);
    }

    /// Until it has ended, or has to.
    async fn until_the_end(&self, moving: impl Future<Output = ()>) -> Over {
        let deadline = self.limit.map(|limit| self.transfer.spec.started.saturating_add(limit));
        let mut moving = pin!(moving);
        let mut seen = self.transfer.progress.read();
        loop {
            let now = self.clock.now();
            let next = (now + STEP).min(deadline.unwrap_or(Duration::MAX));
            tokio::select! {
                biased;
                () = self.transfer.duty.told.notified() => return Over::Asked,
                () = &mut moving => return Over::ByItself,
                () = self.clock.sleep_until(next) => {}
            }
            let now = self.clock.now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Over::Late;
            }
            let reached = self.transfer.progress.read();
            self.transfer.rate.lock().note(now, reached.moved());
            if reached != seen {
                seen = reached;
                self.transfer.active.touch(now);
                self.session.active.touch(now);
                self.transfer.changes.record(());
            }
        }
    }

    /// Records the end, wakes who waits, gives session and place back.
    fn settle(&self, end: TreeEnd) {
        let TreeEnd { mut outcome, mut failures } = end;
        let (status, reason) = match self.transfer.duty.order() {
            Some(Reason::ConnectionLost) => {
                let reason = "the connection ended".to_owned();
                failures.insert(0, Fault { failure: Failure::ConnectionLost, reason });
                (TransferStatus::Failed, Reason::ConnectionLost)
            }
            Some(reason) => (TransferStatus::Cancelled, reason),
            None if failures.is_empty() => (TransferStatus::Completed, Reason::Completed),
            None => (TransferStatus::Failed, cause(&failures)),
        };
        if status != TransferStatus::Completed {
            // Said of some files, it would be taken for all of them.
            outcome.verified = None;
        }
        let error = failures.first().filter(|_| status == TransferStatus::Failed).cloned();
        let now = self.clock.now();
        let reached = self.transfer.progress.read();
        self.transfer.rate.lock().note(now, reached.moved());
        tracing::info!(
            target: target_names::MAIN,
            transfer_id = %self.transfer.spec.id,
            session_id = %self.transfer.spec.session,
            %reason,
            code = error.as_ref().map(|error| error.failure.as_str()),
            bytes = reached.moved(),
            duration_ms = (now - self.transfer.spec.started).as_millis() as u64,
            "transfer ended"
        );
        let facts = TransferFacts { status, reached, error, outcome, failures };
        // The task is the only one that records, and it settles once.
        _ = self.transfer.ending.record(End { reason, facts, at: now });
        self.session.active.touch(now);
        self.transfer.duty.let_go();
        self.transfer.changes.finish(());
    }
}

/// Why bytes do not move any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// It has come to its end.
    ByItself,
    /// Somebody ends it.
    Asked,
    /// It took longer than it may.
    Late,
}

/// The reason of an end with these failures.
fn cause(failures: &[Fault]) -> Reason {
    let has = |what| failures.iter().any(|fault| fault.failure == what);
    match (has(Failure::ConnectionLost), has(Failure::Timeout)) {
        (true, _) => Reason::ConnectionLost,
        (false, true) => Reason::TimedOut,
        (false, false) => Reason::Failed,
    }
}

impl Work {
    async fn run(
        self,
        sides: Sides,
        pattern: Pattern,
        progress: &Arc<Progress>,
        under_way: &mut UnderWay,
        end: &mut TreeEnd,
    ) {
        let counting = Arc::clone(progress);
        let moved = move |bytes| counting.add(bytes);
        let done = match self {
            Self::Up(upload) => upload.run(&sides, moved).await,
            Self::Down(download) => download.run(&sides, moved).await,
            Self::Many(tree) => return tree.run(sides, pattern, progress, under_way, end).await,
        };
        end.one(done, progress);
    }
}
