//! What becomes of a sync: counters and events, made from the news of whoever runs it.

use std::{collections::HashMap, time::Duration};

use serde::Serialize;

use super::{Fault, Status, Transport};
use crate::{
    history::{Keep, LogHistory},
    port::mirror::{FileFault, News, Skip},
    sync::{Mutex, Notify},
    text,
};

/// Events of a sync that are held: the newest, and the first.
pub const KEPT: usize = 4096;

/// How often the progress of a file, and of the whole, is told.
const EVERY: Duration = Duration::from_millis(250);

/// The seven counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Stats {
    /// Regular files that are looked at.
    pub files_total: u64,
    /// Files that are there, or needed nothing.
    pub files_done: u64,
    /// Bytes of all files.
    pub bytes_total: u64,
    /// Bytes that crossed the line.
    pub bytes_transferred: u64,
    /// Bytes that had not to.
    pub bytes_skipped: u64,
    /// What the source did not have and is gone, or would be.
    pub files_deleted: u64,
    /// Files that failed, and with them directories, links and devices that did.
    pub files_failed: u64,
}

/// Something that has happened in a sync. Paths are relative to its root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// What there is to do is known.
    SessionStarted {
        /// By which way.
        transport: Transport,
        /// Files that will be looked at.
        files_planned: u64,
        /// Their bytes.
        bytes_planned: u64,
    },
    /// A file's data begins to move.
    FileStarted {
        /// The file.
        rel_path: String,
        /// Its bytes.
        bytes_total: u64,
    },
    /// So much of it is there.
    FileProgress {
        /// The file.
        rel_path: String,
        /// Bytes.
        bytes_done: u64,
        /// Its bytes.
        bytes_total: u64,
    },
    /// A file is there.
    FileCompleted {
        /// The file.
        rel_path: String,
        /// Bytes that crossed the line.
        bytes_transferred: u64,
        /// Bytes that had not to.
        bytes_skipped: u64,
    },
    /// A file needed nothing, or nothing is done.
    FileSkipped {
        /// The file.
        rel_path: String,
        /// Why.
        reason: &'static str,
    },
    /// A file failed; the sync goes on.
    FileFailed {
        /// The file.
        rel_path: String,
        /// Why, in one word.
        code: &'static str,
        /// Why, in one line.
        detail: String,
    },
    /// How far the whole is.
    SyncProgress {
        /// Files that are there.
        files_done: u64,
        /// Files.
        files_total: u64,
        /// Bytes that are there.
        bytes_done: u64,
        /// Bytes.
        bytes_total: u64,
    },
    /// The last event of a sync that came to its end.
    SyncCompleted {
        /// The counters.
        stats: Stats,
        /// Why nothing was deleted though that was asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        delete_skipped: Option<String>,
    },
    /// The last event of one that did not.
    SessionFailed {
        /// Why, in one word.
        code: &'static str,
        /// What a user is told.
        detail: String,
    },
}

/// An event and its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// When, since the engine's start.
    pub at: Duration,
    /// What.
    pub event: Event,
}

/// The counters and the log of a sync. Whoever runs it tells; anybody reads.
///
/// *Invariants (`docs/lifecycle.md` 6.49, 6.50):* no counter falls, `files_done` is at most `files_total`, and once the
/// course is closed nothing counts any more; the log has one last event.
pub struct Course {
    held: Mutex<Held>,
    /// What has happened.
    pub log: LogHistory<Logged>,
    /// Rung for whoever started the sync when it knows what there is to do.
    pub planned: Notify,
}

/// What changes together. The log is only written under its lock, so that events and counters agree.
struct Held {
    stage: Stage,
    has_plan: bool,
    transport: Transport,
    /// Whether another way may be tried, so that the first event has to wait for one that cannot be taken back.
    may_change: bool,
    /// The words of the server at which the first way broke.
    fell_back: Option<String>,
    stats: Stats,
    under_way: HashMap<Vec<u8>, UnderWay>,
    /// Bytes of the files under way.
    moving: u64,
    progress: Told,
    /// The most bytes that were told.
    bytes_told: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Pending,
    Probing,
    /// The list is complete; whether the first event has been recorded.
    Running(FirstEvent),
    /// Nothing counts any more.
    Closed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FirstEvent {
    Waits,
    Recorded,
}

/// A progress that is told again and again: the number of its newest event, and when the next is due.
#[derive(Clone, Copy)]
struct Told {
    newest: Option<u64>,
    due: Duration,
}

struct UnderWay {
    done: u64,
    told: Told,
}

impl Told {
    fn at(now: Duration) -> Self {
        Self { newest: None, due: now + EVERY }
    }

    /// Records an event in the place of the one before it.
    fn tell(&mut self, log: &LogHistory<Logged>, now: Duration, event: Event) {
        let event = Logged { at: now, event };
        self.newest = match self.newest {
            Some(older) => log.supersede(older, event),
            None => log.append(event),
        };
        self.due = now + EVERY;
    }
}

impl Course {
    /// The course of a sync that begins; `may_change` if another way is tried when this one breaks at once.
    pub fn new(transport: Transport, may_change: bool) -> Self {
        let held = Held {
            stage: Stage::Pending,
            has_plan: false,
            transport,
            may_change,
            fell_back: None,
            stats: Stats::default(),
            under_way: HashMap::new(),
            moving: 0,
            progress: Told::at(Duration::ZERO),
            bytes_told: 0,
        };
        Self {
            held: Mutex::new(held),
            log: LogHistory::new(KEPT, Keep::FirstAndNewest),
            planned: Notify::new(),
        }
    }

    /// Both sides are looked at from now on.
    pub fn begin(&self) {
        let mut held = self.held.lock();
        if held.stage == Stage::Pending {
            held.stage = Stage::Probing;
        }
    }

    /// The first way broke at these words of the server. Whether another may be tried: nothing but the plan was told.
    pub fn fall_back(&self, transport: Transport, words: String) -> bool {
        let mut held = self.held.lock();
        let may = held.may_change
            && matches!(held.stage, Stage::Pending | Stage::Probing | Stage::Running(FirstEvent::Waits));
        if may {
            held.stage = Stage::Probing;
            held.has_plan = false;
            held.transport = transport;
            held.may_change = false;
            held.fell_back = Some(words);
        }
        may
    }

    /// Takes the news of a run.
    pub fn tell(&self, now: Duration, news: News<'_>) {
        let is_plan = matches!(news, News::Planned { .. });
        let mut held = self.held.lock();
        match held.stage {
            Stage::Closed => return,
            Stage::Pending | Stage::Probing | Stage::Running(_) => held.tell(&self.log, now, news),
        }
        drop(held);
        if is_plan {
            self.planned.notify_one();
        }
    }

    /// Whether it is known what there is to do.
    pub fn has_plan(&self) -> bool {
        self.held.lock().has_plan
    }

    /// The counters, of one moment.
    pub fn stats(&self) -> Stats {
        self.held.lock().stats
    }

    /// The way it goes now.
    pub fn transport(&self) -> Transport {
        self.held.lock().transport
    }

    /// The words of the server at which the first way broke, if another was taken.
    pub fn fell_back(&self) -> Option<String> {
        self.held.lock().fell_back.clone()
    }

    /// What it is doing, as long as it has not ended.
    pub fn status(&self) -> Status {
        match self.held.lock().stage {
            Stage::Pending => Status::Pending,
            Stage::Probing => Status::Probing,
            Stage::Running(_) | Stage::Closed => Status::Running,
        }
    }

    /// Ends the counting: what is told from here on is nothing.
    pub fn close(&self, now: Duration) {
        let mut held = self.held.lock();
        held.record_start(&self.log, now);
        held.stage = Stage::Closed;
        held.under_way = HashMap::new();
    }

    /// Records the last event; the second call does nothing.
    pub fn finish(&self, now: Duration, fault: Option<&Fault>, delete_skipped: Option<&str>) {
        let event = match fault {
            Some(Fault { failure, detail }) => {
                Event::SessionFailed { code: failure.as_str(), detail: detail.clone() }
            }
            None => Event::SyncCompleted {
                stats: self.stats(),
                delete_skipped: delete_skipped.map(str::to_owned),
            },
        };
        _ = self.log.finish(Logged { at: now, event });
    }
}

impl Held {
    fn tell(&mut self, log: &LogHistory<Logged>, now: Duration, news: News<'_>) {
        if let News::Planned { files, bytes } = news {
            // A second way finds what the first has found; were it less, a counter would fall.
            self.stats.files_total = self.stats.files_total.max(files);
            self.stats.bytes_total = self.stats.bytes_total.max(bytes);
            self.has_plan = true;
            if self.stage != Stage::Running(FirstEvent::Recorded) {
                self.stage = Stage::Running(FirstEvent::Waits);
                self.progress = Told::at(now);
            }
            if !self.may_change {
                self.record_start(log, now);
            }
            return;
        }
        self.may_change = false;
        self.record_start(log, now);
        let record = |event| _ = log.append(Logged { at: now, event });
        match news {
            News::Planned { .. } => {}
            News::Started { path, total } => {
                self.under_way.insert(path.to_vec(), UnderWay { done: 0, told: Told::at(now) });
                record(Event::FileStarted { rel_path: shown(path), bytes_total: total });
            }
            News::Moving { path, done, total } => {
                let Some(file) = self.under_way.get_mut(path) else { return };
                self.moving = self.moving.saturating_sub(file.done).saturating_add(done);
                file.done = done;
                if now >= file.told.due {
                    let event =
                        Event::FileProgress { rel_path: shown(path), bytes_done: done, bytes_total: total };
                    file.told.tell(log, now, event);
                }
            }
            News::Completed { path, transferred, skipped } => {
                self.leave(path);
                self.count_done(transferred, skipped);
                record(Event::FileCompleted {
                    rel_path: shown(path),
                    bytes_transferred: transferred,
                    bytes_skipped: skipped,
                });
            }
            News::Skipped { path, bytes, because } => {
                self.leave(path);
                self.count_done(0, bytes);
                record(Event::FileSkipped { rel_path: shown(path), reason: reason(because) });
            }
            News::Failed { path, fault, detail, planned } => {
                self.leave(path);
                self.stats.files_failed += 1;
                let detail = text::remote_words(detail);
                record(Event::FileFailed { rel_path: shown(path), code: code(fault), detail });
                if !planned {
                    return;
                }
            }
            News::Deleted { path, dry_run } => {
                self.stats.files_deleted += 1;
                if dry_run {
                    record(Event::FileSkipped { rel_path: shown(path), reason: reason(Skip::DryRun) });
                }
                return;
            }
        }
        if now >= self.progress.due {
            let Stats { files_done, files_total, bytes_total, bytes_transferred, bytes_skipped, .. } =
                self.stats;
            self.bytes_told = self.bytes_told.max(bytes_transferred + bytes_skipped + self.moving);
            let bytes_done = self.bytes_told;
            let event = Event::SyncProgress { files_done, files_total, bytes_done, bytes_total };
            self.progress.tell(log, now, event);
        }
    }

    /// The first event, if it still waits.
    fn record_start(&mut self, log: &LogHistory<Logged>, now: Duration) {
        if self.stage == Stage::Running(FirstEvent::Waits) {
            self.stage = Stage::Running(FirstEvent::Recorded);
            let event = Event::SessionStarted {
                transport: self.transport,
                files_planned: self.stats.files_total,
                bytes_planned: self.stats.bytes_total,
            };
            _ = log.append(Logged { at: now, event });
        }
    }

    fn count_done(&mut self, transferred: u64, skipped: u64) {
        self.stats.files_done += 1;
        // Whoever runs it says how many there are before it says what became of them; should it be wrong, the sum is not.
        self.stats.files_total = self.stats.files_total.max(self.stats.files_done);
        self.stats.bytes_transferred += transferred;
        self.stats.bytes_skipped += skipped;
    }

    fn leave(&mut self, path: &[u8]) {
        if let Some(file) = self.under_way.remove(path) {
            self.moving = self.moving.saturating_sub(file.done);
        }
    }
}

fn shown(path: &[u8]) -> String {
    text::lossy(path).into_owned()
}

fn reason(skip: Skip) -> &'static str {
    match skip {
        Skip::Size => "size_match",
        Skip::Mtime => "mtime_match",
        Skip::DryRun => "dry_run",
    }
}

fn code(fault: FileFault) -> &'static str {
    match fault {
        FileFault::PermissionDenied => "PERMISSION_DENIED",
        FileFault::FileNotFound => "FILE_NOT_FOUND",
        FileFault::IoError => "IO_ERROR",
        FileFault::VerifyMismatch => "VERIFY_MISMATCH",
    }
}
