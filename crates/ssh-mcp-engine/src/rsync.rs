//! Syncs of two trees: which way one goes, the task that has it done, how it ends.
//!
//! What makes the trees equal is behind a port; what is counted and told is decided by core.

use std::{
    future::Future,
    io,
    path::{Component, Path, PathBuf},
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};

use ssh_mcp_core::{
    flight::Joined,
    id::{RsyncId, SessionId},
    kind::rsync::{Course, Failure, Fault, NoWay, Probe, Sides, Transport, Way, choose, probe, wire_only},
    lifecycle::{AutoRelease, Close, Confirmed, Lifecycle, SessionRef},
    owner::Owner,
    port::{
        BoxFuture,
        fs::{Kind, RemoteFs},
        mirror::{Broken, BrokenKind, Done, Job, Mirror, News, NewsDesk, Options},
        ssh::Channel,
    },
    quota::Quota,
    reason::Reason,
    registry::{Direction, Rsync, RsyncSpec, Session},
    target_names,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Cancel, Clock, Engine, Local, Missing, Observable, StartError, TransferError, command,
    session::while_open,
    transfer::file::{Refusal, blocking},
};

/// What a caller wants mirrored.
#[derive(Debug, Clone)]
pub struct SyncOrder {
    /// Where.
    pub session: SessionId,
    /// The two sides as the caller wrote them.
    pub sides: Sides,
    /// The path on this side, absolute.
    pub local: PathBuf,
    /// What of this machine's files may be used.
    pub here: Local,
    /// By which way.
    pub way: Way,
    /// What is done besides transferring.
    pub options: Options,
    /// Patterns of what is taken in spite of the others.
    pub include: Vec<String>,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// The most KiB of file data a second.
    pub bwlimit: Option<u64>,
    /// Longest run time; none is no limit.
    pub limit: Option<Duration>,
    /// Whether it ends when nobody observes it.
    pub auto_release: AutoRelease,
}

/// Why no sync was started, or why it ended before anything was done.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// As for everything that is started on a session.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The session's file service does not start.
    #[error("{0}")]
    NoService(String),
    /// The local side cannot be used.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// An argument makes no sense.
    #[error("{0}")]
    Argument(String),
    /// The way that was asked for cannot be taken.
    #[error(transparent)]
    NoWay(#[from] NoWay),
    /// It ended at once, and nothing was touched.
    #[error("{}", .0.detail)]
    Broken(Fault),
}

impl From<TransferError> for SyncError {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Start(error) => Self::Start(error),
            TransferError::NoService(cause) => Self::NoService(cause),
            TransferError::Refused(refusal) => Self::Refused(refusal),
        }
    }
}

/// A caller waits so long for the plan, or for the refusal that comes in its place.
const FIRST_WORDS: Duration = Duration::from_secs(2);

/// What was told to stop has so long to clean up (`docs/lifecycle.md`, "Close actions").
const STOPPING: Duration = Duration::from_secs(5);

impl Engine {
    /// Starts a sync and waits a moment for its plan. What cannot be is refused here, and then nothing was touched.
    ///
    /// # Errors
    /// See [`SyncError`].
    pub async fn sync(self: &Arc<Self>, owner: &Owner, order: SyncOrder) -> Result<Arc<Rsync>, SyncError> {
        let draining = || SyncError::Start(StartError::Draining);
        let rsync = self.creating(draining, self.start_sync(owner, order)).await?;
        _ = tokio::time::timeout(FIRST_WORDS, self.first_words(&rsync)).await;
        match self.refusal(&rsync) {
            Some(fault) => {
                // The caller never learns its identifier.
                self.registries.rsyncs.withdraw(rsync.spec.id);
                self.list_changed(owner);
                Err(SyncError::Broken(fault))
            }
            None => Ok(rsync),
        }
    }

    /// Resolves when a sync knows what there is to do, or has ended.
    async fn first_words(&self, rsync: &Rsync) {
        tokio::select! {
            biased;
            () = rsync.course.planned.notified() => {}
            () = self.sync_ended(rsync) => {}
        }
    }

    /// Why a sync ended before anything was done, if it did.
    fn refusal(&self, rsync: &Rsync) -> Option<Fault> {
        let fault = rsync.ending.get()?.facts.fault.clone()?;
        let is_refusal = match fault.failure {
            Failure::FeatureMissing | Failure::Refused => true,
            Failure::Protocol | Failure::Partial | Failure::ListTooLarge => !rsync.course.has_plan(),
            Failure::ConnectionLost | Failure::Timeout | Failure::Cancelled => false,
        };
        is_refusal.then_some(fault)
    }

    async fn start_sync(self: &Arc<Self>, owner: &Owner, order: SyncOrder) -> Result<Arc<Rsync>, SyncError> {
        let session = self.session(owner, order.session).map_err(StartError::Session)?;
        let hold = SessionRef::take(&session.life).ok_or_else(|| self.ending(&session))?;
        let mirror = &self.ports.mirror;
        mirror.check_patterns(&order.include, &order.exclude).map_err(SyncError::Argument)?;
        let limit = session.transfers.limit();
        let place = session.transfers.take().ok_or(StartError::TooManyTransfers { limit })?;
        let local = order.local_side().await?;
        let transport = self.choose_way(&session, &order).await?;
        let line = match transport {
            Transport::Wire => Line::Wire(self.channel(&session).await?),
            Transport::Sftp => Line::Sftp(self.files(&session).await?),
        };

        let SyncOrder { sides, way, options, include, exclude, bwlimit, limit, auto_release, .. } = order;
        let may_change = way == Way::Auto && wire_only(&options).is_none() && transport == Transport::Wire;
        let spec = RsyncSpec {
            id: self.mint(),
            owner: owner.clone(),
            session: session.spec.id,
            target: session.spec.target.to_string(),
            agent: session.spec.agent.clone(),
            direction: sides.direction,
            local: local.display().to_string(),
            remote: sides.remote.clone(),
            dry_run: options.dry_run,
            delete: options.delete,
            started: self.clock.now(),
            grace: self.settings.lifecycle_grace,
        };
        let job = Job {
            direction: sides.direction,
            local,
            remote: sides.remote.into_bytes(),
            content: sides.content,
            // What is compressed once gains nothing by a second time.
            options: Options { compress: options.compress && !session.spec.compressed, ..options },
            include,
            exclude,
            bwlimit,
            list_limit: self.settings.rsync_file_list_limit,
            block_len: self.settings.rsync_block_size,
        };
        let rsync = Arc::new(Rsync::new(
            spec,
            Lifecycle::owned(auto_release),
            Course::new(transport, may_change),
            Quota::new(self.settings.lanes_per_uri),
            (hold, place),
        ));
        self.registries.rsyncs.publish(Arc::clone(&rsync));
        self.list_changed(owner);
        // On an ending session either the cascade has found it, or it is refused here. Its task settles it either way.
        let refused = session.life.confirm() == Confirmed::Ending
            && rsync.stop(Reason::CascadeDisconnect) == Close::Won;
        let running = Running {
            engine: Arc::downgrade(self),
            clock: self.clock,
            mirror: Arc::clone(mirror),
            session: Arc::clone(&session),
            rsync: Arc::clone(&rsync),
            limit,
            stop: CancellationToken::new(),
        };
        self.tasks.spawn(running.run(line, job));
        if refused {
            self.registries.rsyncs.withdraw(rsync.spec.id);
            self.list_changed(owner);
            return Err(self.ending(&session).into());
        }
        self.arm(Observable::Rsync(&rsync));
        Ok(rsync)
    }

    async fn choose_way(
        self: &Arc<Self>,
        session: &Arc<Session>,
        order: &SyncOrder,
    ) -> Result<Transport, SyncError> {
        let answer = match order.way {
            // Nothing depends on it.
            Way::Only(Transport::Sftp) => Probe::Missing { words: String::new() },
            Way::Auto | Way::Only(Transport::Wire) => self.ask_rsync(session).await?,
        };
        Ok(choose(order.way, &answer, &order.options)?)
    }

    /// What the host says of its rsync: asked once per session, by all who want to know at that time together. A host
    /// that gives no answer has none for this time.
    async fn ask_rsync(self: &Arc<Self>, session: &Arc<Session>) -> Result<Probe, StartError> {
        let patience = self.settings.rsync_probe_timeout;
        let silent = || {
            let words = format!("no answer to rsync --version within {} ms", patience.as_millis());
            Probe::Missing { words }
        };
        match session.rsync.join() {
            Joined::Ready(answer) => Ok(answer),
            Joined::Wait(wait) => {
                let outcome = while_open(session, wait.outcome()).await;
                Ok(outcome.ok_or_else(|| self.ending(session))?.unwrap_or_else(silent))
            }
            Joined::Run(run) => {
                let question = command::said_within(session, "rsync --version".to_owned(), patience);
                let said = while_open(session, tokio::time::timeout(patience, question)).await;
                let said = said.ok_or_else(|| self.ending(session))?;
                Ok(match said {
                    Ok(Some(said)) => {
                        let answer = probe(&said.output, &said.errors);
                        run.complete(answer.clone());
                        answer
                    }
                    Ok(None) | Err(_) => silent(),
                })
            }
        }
    }

    /// A sync of the owner, live or retained.
    ///
    /// # Errors
    /// Unknown, of another owner, or past its retention.
    pub fn rsync(&self, owner: &Owner, id: RsyncId) -> Result<Arc<Rsync>, Missing> {
        let rsync = self.look_up(&self.registries.rsyncs, owner, id)?;
        rsync.read.touch(self.clock.now());
        self.touch_session(rsync.spec.session);
        Ok(rsync)
    }

    /// Ends a sync and waits for that.
    pub async fn cancel_sync(self: &Arc<Self>, rsync: &Arc<Rsync>) -> Cancel {
        let close = rsync.stop(Reason::Cancelled);
        self.sync_ended(rsync).await;
        match close {
            Close::Won => Cancel::Done,
            Close::Lost => Cancel::AlreadyOver,
        }
    }

    /// Resolves when the end is recorded.
    pub(crate) async fn sync_ended(&self, rsync: &Rsync) {
        let mut watch = rsync.course.log.watch();
        // The last thing that is set: place and reference have been given back.
        while !rsync.course.log.mark().ended {
            watch.changed().await;
        }
    }
}

impl SyncOrder {
    /// The path on this side, `.` and `..` resolved. A source must be there, and be something that can be sent.
    async fn local_side(&self) -> Result<PathBuf, SyncError> {
        if let (true, Some(why)) = (self.options.delete, self.sides.no_delete()) {
            return Err(SyncError::Argument(why.to_owned()));
        }
        let (here, asked, direction) = (self.here.clone(), self.local.clone(), self.sides.direction);
        let local = blocking(move || {
            here.check(&asked)?;
            let local = resolved(&asked).map_err(|cause| Refusal::Local { path: asked.clone(), cause })?;
            here.check(&local)?;
            match direction {
                Direction::Download => Ok(local),
                Direction::Upload => match here.look(&local)?.kind {
                    Kind::File | Kind::Directory => Ok(local),
                    Kind::Link | Kind::Other => Err(Refusal::LocalNotFile(local)),
                },
            }
        })
        .await?;
        let is_destination = self.sides.direction == Direction::Download;
        match self.options.delete && is_destination && local.parent().is_none() {
            true => Err(SyncError::Argument("delete at the root of a file system is refused".to_owned())),
            false => Ok(local),
        }
    }
}

/// A path without `.` and `..`. What stands before a `..` is looked up, because it may be a link.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let (mut real, mut below) = (PathBuf::new(), PathBuf::new());
    for part in path.components() {
        below.push(part);
        if part == Component::ParentDir {
            real = real.join(&below).canonicalize()?;
            below = PathBuf::new();
        }
    }
    // Nothing to join would add a slash.
    Ok(if below.as_os_str().is_empty() { real } else { real.join(below) })
}

/// What a sync runs over.
enum Line {
    Wire(Channel),
    Sftp(Arc<dyn RemoteFs>),
}

/// The task of one sync: the only one that records its end.
struct Running {
    engine: Weak<Engine>,
    clock: Clock,
    mirror: Arc<dyn Mirror>,
    session: Arc<Session>,
    rsync: Arc<Rsync>,
    limit: Option<Duration>,
    /// Whether whoever makes the trees equal is to stop.
    stop: CancellationToken,
}

/// Where the news of a sync go.
struct Desk {
    clock: Clock,
    session: Arc<Session>,
    rsync: Arc<Rsync>,
}

impl NewsDesk for Desk {
    fn tell(&self, news: News<'_>) {
        let now = self.clock.now();
        self.rsync.course.tell(now, news);
        self.rsync.active.touch(now);
        self.session.active.touch(now);
    }
}

impl Running {
    async fn run(self, line: Line, job: Job) {
        let spec = &self.rsync.spec;
        tracing::info!(
            target: target_names::RSYNC,
            rsync_id = %spec.id,
            session_id = %spec.session,
            direction = spec.direction.as_str(),
            transport = self.rsync.course.transport().as_str(),
            "sync started"
        );
        // Channel, files and whatever else is held are gone behind this, before anybody hears of the end.
        let outcome = self.until_the_end(self.mirror(line, job)).await;
        // Somebody may win at this very moment; its reason follows at once.
        if self.rsync.life.close() == Close::Lost {
            while self.rsync.duty.order().is_none() {
                self.rsync.duty.told.notified().await;
            }
        }
        let now = self.clock.now();
        self.session.active.touch(now);
        self.rsync.settle(now, outcome);
        self.log_end(now);
    }

    /// Until it has ended, or has to.
    async fn until_the_end(
        &self,
        mirroring: impl Future<Output = Result<Done, Fault>>,
    ) -> Result<Done, Fault> {
        let deadline =
            self.limit.map_or(Duration::MAX, |limit| self.rsync.spec.started.saturating_add(limit));
        let mut mirroring = pin!(mirroring);
        tokio::select! {
            biased;
            () = self.rsync.duty.told.notified() => {}
            outcome = &mut mirroring => return outcome,
            () = self.clock.sleep_until(deadline) => {}
        }
        self.stop.cancel();
        match tokio::time::timeout(STOPPING, mirroring).await {
            // It had come to its end already.
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) | Err(_) => {
                let limit = self.limit.unwrap_or_default().as_secs();
                Err(Fault::new(Failure::Timeout, format!("it took longer than timeout_secs={limit}")))
            }
        }
    }

    /// Makes the trees equal, by the other way if the first one breaks before anything was done.
    async fn mirror(&self, line: Line, job: Job) -> Result<Done, Fault> {
        self.rsync.course.begin();
        let desk: Arc<dyn NewsDesk> = Arc::new(Desk {
            clock: self.clock,
            session: Arc::clone(&self.session),
            rsync: Arc::clone(&self.rsync),
        });
        let outcome = match line {
            Line::Wire(channel) => {
                self.mirror.wire(channel, job.clone(), Arc::clone(&desk), self.stopped()).await
            }
            Line::Sftp(files) => {
                self.mirror.walk(files, job.clone(), Arc::clone(&desk), self.stopped()).await
            }
        };
        let broken = match outcome {
            Ok(done) => return Ok(done),
            Err(broken) => broken,
        };
        if broken.touched
            || broken.kind != BrokenKind::Protocol
            || !self.rsync.course.fall_back(Transport::Sftp, broken.detail.clone())
        {
            return Err(fault(broken));
        }
        tracing::warn!(
            target: target_names::RSYNC,
            code = "WIRE_FALLBACK",
            rsync_id = %self.rsync.spec.id,
            words = broken.detail,
            "rsync failed before the first file; the file service takes over"
        );
        let files = match self.stop.run_until_cancelled(self.files()).await {
            Some(Ok(files)) => files,
            Some(Err(cause)) => {
                return Err(Fault::new(Failure::Protocol, format!("{}; and {cause}", broken.detail)));
            }
            None => return Err(fault(broken)),
        };
        self.mirror.walk(files, job, desk, self.stopped()).await.map_err(fault)
    }

    async fn files(&self) -> Result<Arc<dyn RemoteFs>, SyncError> {
        let engine = self.engine.upgrade().ok_or(StartError::Draining)?;
        Ok(engine.files(&self.session).await?)
    }

    fn stopped(&self) -> BoxFuture<'static, ()> {
        Box::pin(self.stop.clone().cancelled_owned())
    }

    fn log_end(&self, now: Duration) {
        let Some(end) = self.rsync.ending.get() else { return };
        let fault = end.facts.fault.as_ref();
        let stats = self.rsync.course.stats();
        tracing::info!(
            target: target_names::RSYNC,
            rsync_id = %self.rsync.spec.id,
            session_id = %self.rsync.spec.session,
            reason = %end.reason,
            code = fault.map(|fault| fault.failure.as_str()),
            files = stats.files_done,
            failed = stats.files_failed,
            deleted = stats.files_deleted,
            bytes = stats.bytes_transferred,
            duration_ms = (now - self.rsync.spec.started).as_millis() as u64,
            "sync ended"
        );
    }
}

fn fault(broken: Broken) -> Fault {
    Fault::new(broken.kind.into(), broken.detail)
}
