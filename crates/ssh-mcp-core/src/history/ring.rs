//! The history of a stream: its newest bytes, in segments.
//!
//! Full segments are immutable and shared: the lock is held for taking handles of them and for copying from or into
//! the one segment that still grows, 64 KiB at most (`docs/adr/0005-ring.md`). A reader copies the rest after letting go
//! of it, so no reader delays the appender for longer than that.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use super::{
    Mark, Marked,
    segment::{Origin, Segment, View, offset},
};
use crate::{
    sync::{AtomicU64, Mutex, Notify, Ordering},
    watch::{Watch, Watchers},
};

/// The bytes of a stream, the oldest dropped beyond a limit. One task appends; anybody reads.
#[derive(Debug)]
pub struct ByteHistory {
    held: Mutex<Held>,
    watchers: Arc<Watchers>,
    /// Whether who appends waits for the readers behind floors, the first of them included.
    waits: bool,
    /// Rung when one of them has gone on.
    moved: Arc<Notify>,
}

/// The oldest part of a history from a position on, of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Where the window begins: what was asked for, at least `base`, at most `end`.
    pub start: u64,
    /// Where the next read goes on; offsets count all bytes, whatever the view.
    pub next: u64,
    /// Oldest offset held.
    pub base: u64,
    /// One past the newest offset.
    pub end: u64,
    /// Bytes between what was asked for and `base`, which are gone.
    pub gap: u64,
    /// Whether the end of the stream has been recorded.
    pub ended: bool,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Their origins in order, neighbours always different; the lengths add up to those of `bytes`.
    pub runs: Vec<(Origin, usize)>,
}

/// The newest bytes of a view, of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// How many bytes the view ever had; more than `bytes` has when some are left out.
    pub total: u64,
    /// Where the history stood.
    pub mark: Mark,
}

/// A reader for whom a history keeps its bytes beyond its limit, up to twice as many (`docs/subscriptions.md`, "Policies").
///
/// Dropping it lets them go.
#[derive(Debug)]
pub struct Floor {
    at: AtomicU64,
    moved: Arc<Notify>,
}

impl Floor {
    /// Keeps what lies behind `at` from now on.
    pub fn move_to(&self, at: u64) {
        // Pairs with the appender's look: bytes below it are dropped only when their reader has had them.
        self.at.store(at, Ordering::Release);
        self.moved.notify_one();
    }

    /// Keeps nothing.
    pub fn lift(&self) {
        self.move_to(u64::MAX);
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.moved.notify_one();
    }
}

#[derive(Debug)]
struct Held {
    /// Full segments, oldest first; the first may begin before `base`.
    full: VecDeque<Arc<Segment>>,
    /// The one that grows.
    last: Segment,
    /// The memory of one that was dropped, for the next: a stream at its limit needs no other.
    spare: Vec<u8>,
    base: u64,
    seq: u64,
    ended: bool,
    stdout_total: u64,
    stderr_total: u64,
    limit: usize,
    segment: usize,
    floors: Vec<Weak<Floor>>,
    /// There is to be a reader, and none has come.
    awaits_reader: bool,
}

impl ByteHistory {
    /// An empty history that holds at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self::with_segments(limit, SEGMENT)
    }

    /// The same, but who appends is to wait for [`room`](Self::room): before the first reader has come, too, which so finds
    /// everything.
    #[must_use]
    pub fn waiting_for_readers(self) -> Self {
        self.held.lock().awaits_reader = true;
        Self { waits: true, ..self }
    }

    pub(super) fn with_segments(limit: usize, segment: usize) -> Self {
        let held = Held {
            full: VecDeque::new(),
            last: Segment::new(0, 0),
            spare: Vec::new(),
            base: 0,
            seq: 0,
            ended: false,
            stdout_total: 0,
            stderr_total: 0,
            limit,
            segment,
            floors: Vec::new(),
            awaits_reader: false,
        };
        Self { held: Mutex::new(held), watchers: Watchers::new(), waits: false, moved: Arc::default() }
    }

    /// Records a chunk and wakes the waiters; an empty one is nothing. Bytes that come after the end was recorded, from
    /// something a command left running, are kept like any others.
    pub fn append(&self, origin: Origin, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.held.lock().append(origin, bytes);
        self.watchers.wake();
    }

    /// Records the end, after everything that was appended before, and wakes the waiters.
    pub fn finish(&self) {
        {
            let mut held = self.held.lock();
            held.ended = true;
            held.spare = Vec::new();
            held.last.shrink();
        }
        self.watchers.wake_all();
    }

    /// The oldest bytes from `from` on, at most `max`.
    pub fn read(&self, from: u64, max: usize) -> Window {
        self.read_origin(View::Merged, from, max)
    }

    /// The oldest bytes of a view from `from` on, at most `max`. The window goes on to `end` when the view has no
    /// more.
    pub fn read_origin(&self, view: View, from: u64, max: usize) -> Window {
        self.read_until(u64::MAX, view, from, max)
    }

    /// The same, of what came before `until`.
    pub(crate) fn read_until(&self, until: u64, view: View, from: u64, max: usize) -> Window {
        let mut window = None;
        loop {
            let mut handles = Vec::new();
            let window = {
                let held = self.held.lock();
                let window = window.get_or_insert_with(|| held.window(from, until));
                let room = max - window.bytes.len();
                // Trimming may have passed the window while it was being copied; it ends there.
                if room == 0 || window.next == window.end || window.next < held.base {
                    break;
                }
                held.full_from(window.next, room, &mut handles);
                if handles.is_empty() {
                    window.take(&held.last, view, max);
                    break;
                }
                window
            };
            for segment in &handles {
                window.take(segment, view, max);
            }
        }
        window.unwrap_or_else(|| self.held.lock().window(from, until))
    }

    /// The newest `max` bytes of a view, and how many it ever had.
    pub fn tail(&self, view: View, max: usize) -> Tail {
        let (mark, total, from) = self.held.lock().newest(view, max);
        let window = self.read_until(mark.end, view, from, max);
        Tail { bytes: window.bytes, total, mark }
    }

    /// Where it stands.
    pub fn mark(&self) -> Mark {
        self.held.lock().mark()
    }

    /// How many bytes a view ever had.
    pub fn total(&self, view: View) -> u64 {
        self.held.lock().total(view)
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.held.lock().length()
    }

    /// A floor under what lies behind `at`, or behind `base` if that is further.
    pub fn hold_from(&self, at: u64) -> Arc<Floor> {
        let mut held = self.held.lock();
        let at = AtomicU64::new(at.max(held.base));
        let floor = Arc::new(Floor { at, moved: Arc::clone(&self.moved) });
        held.floors.retain(|floor| floor.strong_count() > 0);
        held.floors.push(Arc::downgrade(&floor));
        held.awaits_reader = false;
        drop(held);
        self.moved.notify_one();
        floor
    }

    /// Whether no reader behind a floor lacks more than half of what the history holds, or
    /// [none is waited for](Self::waiting_for_readers).
    pub fn has_room(&self) -> bool {
        if !self.waits {
            return true;
        }
        let held = self.held.lock();
        held.unread() <= held.limit / 2
    }

    /// Ends once it [has room](Self::has_room). One waiter: who appends.
    pub async fn room(&self) {
        while !self.has_room() {
            self.moved.notified().await;
        }
    }

    /// How many bytes are held while nobody is waited for.
    pub fn limit(&self) -> u64 {
        offset(self.held.lock().limit)
    }

    /// Drops all but the newest `newest` bytes, whoever waits for the others, and the memory they took; later bytes grow it to its limit again.
    pub fn trim_to(&self, newest: usize) {
        let mut held = self.held.lock();
        held.trim(newest);
        held.compact();
    }

    /// Holds at most `limit` bytes from now on.
    pub fn set_limit(&self, limit: usize) {
        let mut held = self.held.lock();
        held.limit = limit;
        held.trim(limit);
    }

    /// A waiter that is woken by each chunk, and by the end.
    pub fn watch(&self) -> Watch {
        self.watchers.watch()
    }

    #[cfg(test)]
    #[cfg(not(ssh_mcp_loom))]
    pub(super) fn footprint(&self) -> usize {
        let held = self.held.lock();
        let full: usize = held.full.iter().map(|segment| segment.footprint()).sum();
        full + held.last.footprint()
            + held.spare.capacity()
            + held.full.capacity() * size_of::<Arc<Segment>>()
    }
}

impl Marked for ByteHistory {
    fn mark(&self) -> Mark {
        ByteHistory::mark(self)
    }

    fn watch(&self) -> Watch {
        ByteHistory::watch(self)
    }
}

impl Window {
    /// The same without its last bytes.
    pub fn without_last(mut self, count: usize) -> Self {
        let mut left = count.min(self.bytes.len());
        self.bytes.truncate(self.bytes.len() - left);
        self.next -= offset(left);
        while let Some((_, last)) = self.runs.last_mut()
            && left > 0
        {
            let cut = left.min(*last);
            *last -= cut;
            left -= cut;
            if *last == 0 {
                self.runs.pop();
            }
        }
        self
    }

    /// Takes on the bytes of a later window, and stands where that one stands.
    pub(crate) fn append(&mut self, later: Window) {
        self.next = later.next;
        self.bytes.extend_from_slice(&later.bytes);
        for (origin, length) in later.runs {
            match self.runs.last_mut() {
                Some((last, before)) if *last == origin => *before += length,
                Some(_) | None => self.runs.push((origin, length)),
            }
        }
    }

    /// Takes on what a segment has of the view from `next` on, until the window is full.
    fn take(&mut self, segment: &Segment, view: View, max: usize) {
        let range = segment.clip(self.next, self.end);
        self.bytes.reserve(segment.count(view, range.clone()).min(max - self.bytes.len()));
        for (origin, mut run) in segment.runs(range) {
            let room = max - self.bytes.len();
            if room == 0 {
                return;
            }
            if view.shows(origin) {
                run.end = run.end.min(run.start.saturating_add(room));
                self.bytes.extend_from_slice(segment.bytes(run.clone()));
                match self.runs.last_mut() {
                    Some((last, length)) if *last == origin => *length += run.len(),
                    Some(_) | None => self.runs.push((origin, run.len())),
                }
            }
            self.next = segment.start + offset(run.end);
        }
    }
}

impl Held {
    fn append(&mut self, origin: Origin, mut bytes: &[u8]) {
        self.seq += 1;
        match origin {
            Origin::Stdout => self.stdout_total += offset(bytes.len()),
            Origin::Stderr => self.stderr_total += offset(bytes.len()),
        }
        while !bytes.is_empty() {
            if self.last.len() >= self.segment {
                self.seal();
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.segment - self.last.len()));
            self.last.push(origin, now, self.segment);
            bytes = later;
            self.trim(self.allowed());
        }
    }

    /// The growing segment is full: from here on it is shared. A stream that has filled one will fill more.
    fn seal(&mut self) {
        let next = Segment::reusing(self.last.end(), self.segment, std::mem::take(&mut self.spare));
        let mut full = std::mem::replace(&mut self.last, next);
        full.shrink();
        self.full.push_back(Arc::new(full));
    }

    /// How many of the newest bytes stay: the limit, and up to as many again for readers behind it.
    fn allowed(&self) -> usize {
        self.unread().clamp(self.limit, self.limit.saturating_mul(2))
    }

    /// How many bytes the slowest reader behind a floor has not had.
    fn unread(&self) -> usize {
        let floors = self.floors.iter().filter_map(Weak::upgrade);
        let nobody = if self.awaits_reader { 0 } else { u64::MAX };
        let lowest = floors.map(|floor| floor.at.load(Ordering::Acquire)).min().unwrap_or(nobody);
        usize::try_from(self.end().saturating_sub(lowest)).unwrap_or(usize::MAX)
    }

    fn trim(&mut self, newest: usize) {
        self.base = self.base.max(self.end().saturating_sub(offset(newest)));
        while self.full.front().is_some_and(|oldest| oldest.end() <= self.base) {
            // One that is being read goes with its reader.
            self.spare =
                self.full.pop_front().and_then(Arc::into_inner).map_or(Vec::new(), Segment::into_memory);
        }
    }

    /// Gives back the memory of what lies before `base` or was set aside for growing.
    fn compact(&mut self) {
        match self.full.front_mut() {
            Some(oldest) if oldest.start < self.base => *oldest = Arc::new(oldest.suffix(self.base)),
            Some(_) => {}
            None => self.last = self.last.suffix(self.base),
        }
        self.spare = Vec::new();
        self.last.shrink();
        self.full.shrink_to_fit();
    }

    /// An empty window at `from`, or as near to it as there is something, over what came before `until`.
    fn window(&self, from: u64, until: u64) -> Window {
        let Mark { base, end, ended, .. } = self.mark();
        let end = end.min(until);
        let start = from.max(base).min(end);
        let gap = base.saturating_sub(from);
        Window { start, next: start, base, end, gap, ended, bytes: Vec::new(), runs: Vec::new() }
    }

    /// Adds the full segments from `from` on that together have `room` bytes, or all there are.
    fn full_from(&self, from: u64, room: usize, handles: &mut Vec<Arc<Segment>>) {
        let first = self.full.partition_point(|segment| segment.end() <= from);
        for segment in self.full.range(first..) {
            handles.push(Arc::clone(segment));
            if segment.end() - from >= offset(room) {
                break;
            }
        }
    }

    /// Where the newest `max` bytes of a view begin.
    fn newest(&self, view: View, max: usize) -> (Mark, u64, u64) {
        let mut wanted = max;
        let newest_first = std::iter::once(&self.last).chain(self.full.iter().rev().map(Arc::as_ref));
        let mut from = self.end();
        for segment in newest_first {
            if wanted == 0 {
                break;
            }
            let range = segment.clip(self.base, u64::MAX);
            let has = segment.count(view, range.clone());
            let at = if has >= wanted { segment.newest(view, wanted, range) } else { range.start };
            from = segment.start + offset(at);
            wanted = wanted.saturating_sub(has);
        }
        (self.mark(), self.total(view), from)
    }

    fn mark(&self) -> Mark {
        Mark { base: self.base, end: self.end(), seq: self.seq, ended: self.ended }
    }

    fn end(&self) -> u64 {
        self.last.end()
    }

    fn length(&self) -> usize {
        usize::try_from(self.end() - self.base).unwrap_or(usize::MAX)
    }

    fn total(&self, view: View) -> u64 {
        match view {
            View::Merged => self.end(),
            View::Stdout => self.stdout_total,
            View::Stderr => self.stderr_total,
        }
    }
}

/// Bytes of a segment: the most that is ever copied while the lock is held.
const SEGMENT: usize = 64 * 1024;
