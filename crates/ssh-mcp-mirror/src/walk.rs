//! A sync over the file port, file by file: two lists are compared, and what differs is made equal.
//!
//! | File | Holds |
//! | --- | --- |
//! | `far` | the far tree: its paths, its list, what is removed there, what its server can do |
//! | `there` | the destination of an upload, and what is there before it |
//! | `change` | attributes there: which of them differ, and how they are set |
//! | `up` | this side's tree sent there |
//! | `down` | the far tree brought here; what is written here is `landing`'s |
//!
//! The far server gets many requests at a time: directories are listed side by side, up to sixteen files are under way,
//! and the data of all of them together fills the line. What a run has begun ends with it: its tasks are awaited, its
//! threads find their channels closed, and what was made for the time being removes itself when it is dropped.

mod change;
mod down;
mod far;
mod there;
mod up;

use std::{
    collections::VecDeque,
    panic::resume_unwind,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rsync_wire::file_list::{Entry, FileList, Kind};
use ssh_mcp_core::{
    kind::transfer::depth,
    port::{
        BoxFuture,
        fs::{FsError, FsErrorKind, Limits, RemoteFs},
        mirror::{Broken, BrokenKind, Devices, Done, FileFault, Job, News, NewsDesk, Skip},
    },
    registry::Direction,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::{JoinError, JoinSet, spawn_blocking},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    effort::Effort,
    landing::Fault,
    meant::{Meant, last_name},
};

/// Makes a tree equal to another over the file port. When `stop` resolves the run ends early.
///
/// # Errors
/// The run came to no end.
pub async fn walk(
    files: Arc<dyn RemoteFs>,
    job: Job,
    news: Arc<dyn NewsDesk>,
    stop: BoxFuture<'static, ()>,
) -> Result<Done, Broken> {
    let run = Arc::new(Run::new(files, job, news)?);
    let over = Over(run.clone());
    let mut tasks = JoinSet::new();
    let result = tokio::select! {
        biased;
        () = stop => Err(broken(BrokenKind::Stopped, "the sync was stopped")),
        () = run.silence() => {
            Err(broken(BrokenKind::Partial, &format!("nothing moved for {} s", SILENCE.as_secs())))
        }
        result = run.mirror(&mut tasks) => result,
    };
    drop(over);
    tasks.shutdown().await;
    if result.is_err() {
        let ended = async {
            // Nobody closes the semaphore.
            _ = run.threads.acquire_many(THREADS).await;
            // What was asked before is done when this is answered.
            _ = run.files.real_path(b".").await;
        };
        _ = timeout(FAREWELL, ended).await;
    }
    let touched = run.touched.load(Ordering::Relaxed);
    result.map_err(|broken| Broken { touched, ..broken })
}

/// Files under way at a time (`docs/transfers.md`).
const FILES: usize = 16;

/// Requests without data that are sent before the first of them is awaited.
const AT_ONCE: usize = 64;

/// Pieces of a file between its thread and the line.
const AHEAD: usize = 2;

/// Nothing moves for so long: the run is given up.
const SILENCE: Duration = Duration::from_secs(600);

/// How long a run that ends early waits for what it has begun.
const FAREWELL: Duration = Duration::from_secs(2);

/// A file's progress is told at most once in this time.
const NEWS_EVERY: Duration = Duration::from_millis(250);

/// The bandwidth limit holds over this time.
const SMOOTH: Duration = Duration::from_millis(60);

/// More threads than there ever are.
const THREADS: u32 = 1 << 16;

/// What is common to all that a run does.
struct Run {
    files: Arc<dyn RemoteFs>,
    job: Job,
    meant: Meant,
    news: Arc<dyn NewsDesk>,
    /// Bytes of one request.
    chunk: u32,
    /// Requests with data under way.
    window: Semaphore,
    /// When the next byte may go, if that is limited, and how many go in a second.
    pace: Option<(Mutex<Instant>, u64)>,
    /// Held by each thread as long as it works.
    threads: Arc<Semaphore>,
    /// Something was changed, or tried to be.
    touched: AtomicBool,
    /// For threads that would not notice its end otherwise.
    effort: Arc<Effort>,
}

impl Run {
    fn new(files: Arc<dyn RemoteFs>, job: Job, news: Arc<dyn NewsDesk>) -> Result<Self, Broken> {
        let options = &job.options;
        for (is_asked, feature) in [
            (options.hard_links, "hard links"),
            (options.checksum, "comparison by checksums"),
            (options.devices == Devices::Asked, "devices"),
        ] {
            if is_asked {
                let detail = format!("SFTP has no {feature}");
                return Err(broken(BrokenKind::FeatureMissing, &detail));
            }
        }
        let meant = Meant::by(&job)?;
        let Limits { read, write } = files.limits();
        let limit = match job.direction {
            Direction::Upload => write,
            Direction::Download => read,
        };
        let rate = job.bwlimit.map(|kib| kib.max(1).saturating_mul(1024));
        let smooth = |rate: u64| {
            u32::try_from(rate.saturating_mul(SMOOTH.as_millis() as u64) / 1000).unwrap_or(u32::MAX).max(512)
        };
        let chunk = rate.map_or(limit, |rate| smooth(rate).min(limit)).max(1);
        Ok(Self {
            chunk,
            window: Semaphore::new(depth(files.round_trip(), chunk).max(FILES)),
            pace: rate.map(|rate| (Mutex::new(Instant::now()), rate)),
            threads: Arc::new(Semaphore::new(THREADS as usize)),
            touched: AtomicBool::new(false),
            effort: Arc::default(),
            files,
            job,
            meant,
            news,
        })
    }

    async fn mirror(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Result<Done, Broken> {
        match self.job.direction {
            Direction::Upload => up::upload(self, tasks).await,
            Direction::Download => down::download(self, tasks).await,
        }
    }

    /// Resolves when nothing has moved for too long.
    async fn silence(&self) {
        const LOOKS: u32 = 60;
        let pulse = || self.files.pulse().wrapping_add(self.effort.beats());
        let (mut last, mut quiet) = (pulse(), 0);
        while quiet < LOOKS {
            sleep(SILENCE / LOOKS).await;
            let now = pulse();
            quiet = if now == last { quiet + 1 } else { 0 };
            last = now;
        }
    }

    /// Something is going to be changed.
    fn touch(&self) {
        self.touched.store(true, Ordering::Relaxed);
    }

    /// The list is complete.
    fn planned(&self, list: &FileList) {
        let is_file = |entry: &Entry| matches!(entry.kind, Kind::File { .. });
        let files = list.active().map(|(_, entry)| entry).filter(is_file);
        let (files, bytes) =
            files.fold((0, 0_u64), |(files, bytes), file| (files + 1, bytes.saturating_add(file.size)));
        self.news.tell(News::Planned { files, bytes });
    }

    fn skipped(&self, entry: &Entry, because: Skip) {
        self.news.tell(News::Skipped { path: &entry.name, bytes: entry.size, because });
    }

    fn failed(&self, fault: &Fault, planned: bool) {
        let Fault { path, word, detail } = fault;
        self.news.tell(News::Failed { path, fault: *word, detail, planned });
    }

    /// What the failure of one request means for the run.
    async fn lost(&self) -> Broken {
        match self.files.real_path(b".").await {
            Err(error) if error.kind == FsErrorKind::Protocol => broken(BrokenKind::Protocol, &error.cause),
            Err(error) => broken(BrokenKind::Lost, &error.cause),
            Ok(_) => broken(BrokenKind::Lost, "the file service has ended"),
        }
    }

    /// Fails if the service is gone: what is left would fail one by one.
    async fn check(&self) -> Result<(), Broken> {
        if self.files.is_gone() { Err(self.lost().await) } else { Ok(()) }
    }

    /// Waits until at most so many tasks run.
    async fn settle(&self, tasks: &mut JoinSet<()>, most: usize) -> Result<(), Broken> {
        while tasks.len() > most {
            joined(tasks.join_next().await)?;
            self.check().await?;
        }
        Ok(())
    }

    /// Begins something that waits for the disk, in a thread of its own.
    fn thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Broken>> {
        let held = self.threads.clone().try_acquire_owned();
        let work = spawn_blocking(move || {
            let done = work();
            drop(held);
            done
        });
        Box::pin(async { joined(Some(work.await)).and_then(|done| done.ok_or_else(shut_down)) })
    }

    /// A place for a request with data, once it is due.
    async fn slot(&self, due: Option<Instant>) -> Option<SemaphorePermit<'_>> {
        if let Some(due) = due {
            sleep_until(due).await;
        }
        // Nobody closes it.
        self.window.acquire().await.ok()
    }

    /// When the next bytes may go.
    fn due(&self, bytes: u64) -> Option<Instant> {
        let (next, rate) = self.pace.as_ref()?;
        let mut next = lock(next);
        let due = (*next).max(Instant::now());
        *next = due + Duration::from_secs_f64(bytes as f64 / *rate as f64);
        Some(due)
    }
}

/// Tells the threads of a run when it is over, or dropped.
struct Over(Arc<Run>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.effort.end();
    }
}

/// A file that moves, for the news.
struct Moving<'a> {
    run: &'a Run,
    entry: &'a Entry,
    done: u64,
    told: Instant,
}

impl<'a> Moving<'a> {
    fn start(run: &'a Run, entry: &'a Entry) -> Self {
        run.news.tell(News::Started { path: &entry.name, total: entry.size });
        Self { run, entry, done: 0, told: Instant::now() }
    }

    fn moved(&mut self, bytes: u64) {
        self.done += bytes;
        if self.told.elapsed() >= NEWS_EVERY {
            self.told = Instant::now();
            let Entry { name, size, .. } = self.entry;
            self.run.news.tell(News::Moving { path: name, done: self.done, total: *size });
        }
    }

    /// Tells how it ended; of its bytes, so many were there before.
    fn end(self, result: Result<u64, Fault>) {
        match result {
            Ok(skipped) => {
                let transferred = self.done - skipped.min(self.done);
                self.run.news.tell(News::Completed { path: &self.entry.name, transferred, skipped });
            }
            Err(fault) => self.run.failed(&fault, true),
        }
    }
}

/// A request with data that has been sent: how many bytes, its place on the line, its answer.
type Sent<'a, T> = (u64, Option<SemaphorePermit<'a>>, BoxFuture<'static, Result<T, FsError>>);

/// The answer to the oldest request, with the rest of it; never, if there is none.
async fn first<'a, T>(
    under_way: &mut VecDeque<Sent<'a, T>>,
) -> Result<(T, u64, Option<SemaphorePermit<'a>>), FsError> {
    let Some((.., oldest)) = under_way.front_mut() else { return std::future::pending().await };
    let answer = oldest.await;
    let (bytes, slot) = under_way.pop_front().map_or((0, None), |(bytes, slot, _)| (bytes, slot));
    Ok((answer?, bytes, slot))
}

/// What a task or thread came to; none, if there was none or the runtime shuts down.
fn joined<T>(ended: Option<Result<T, JoinError>>) -> Result<Option<T>, Broken> {
    match ended {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some(value)),
        Some(Err(error)) if error.is_panic() => resume_unwind(error.into_panic()),
        Some(Err(_)) => Err(shut_down()),
    }
}

fn shut_down() -> Broken {
    broken(BrokenKind::Stopped, "the program ends")
}

fn broken(kind: BrokenKind, detail: &str) -> Broken {
    Broken { kind, detail: detail.to_owned(), touched: false }
}

/// Why nothing is deleted in a run in which these were met.
fn delete_skipped(is_complete: bool, has_directories: bool) -> Option<String> {
    match (is_complete, has_directories) {
        (true, true) => None,
        (false, _) => Some("the source could not be read completely".to_owned()),
        (true, false) => Some("a directory failed".to_owned()),
    }
}

/// What is told of devices that are left out.
fn left_out(devices: u64) -> Option<String> {
    (devices > 0).then(|| format!("left out, as SFTP has none: devices, pipes and sockets ({devices})"))
}

fn remote_fault(path: &[u8], error: &FsError) -> Fault {
    let word = match error.kind {
        FsErrorKind::NotFound => FileFault::FileNotFound,
        FsErrorKind::Denied => FileFault::PermissionDenied,
        FsErrorKind::NoSpace
        | FsErrorKind::ReadOnly
        | FsErrorKind::Unsupported
        | FsErrorKind::Protocol
        | FsErrorKind::Gone
        | FsErrorKind::TimedOut
        | FsErrorKind::Failed => FileFault::IoError,
    };
    Fault { path: path.to_vec(), word, detail: error.cause.clone() }
}

/// The directory of a path of the list; that of the root is itself.
fn parent(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    slash.and_then(|at| path.get(..at)).unwrap_or(b".")
}

/// How deep a path of the list is.
fn level(path: &[u8]) -> usize {
    if path == b"." { 0 } else { 1 + path.iter().filter(|byte| **byte == b'/').count() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
