//! The history of a log: its newest events, numbered from 0.
//!
//! Events are shared, so a reader takes handles and lets go of the lock. A superseded event (an older progress of the
//! same file) leaves its number unused; that is no gap, because nothing in it is unknown to who has the newer one.

use std::{collections::VecDeque, sync::Arc};

use super::{Mark, Marked, segment::offset};
use crate::{
    sync::Mutex,
    watch::{Watch, Watchers},
};

/// The events of a log, the oldest dropped beyond a limit.
#[derive(Debug)]
pub struct LogHistory<E> {
    held: Mutex<Held<E>>,
    watchers: Arc<Watchers>,
}

/// Which events a log never drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Keep {
    /// Only the limit counts.
    Newest,
    /// The first event says what the log is about and stays.
    FirstAndNewest,
}

/// The oldest part of a log from an event on, of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogWindow<E> {
    /// Where the window begins: what was asked for, at most `end`, and at least `base` unless the first event was
    /// kept and asked for.
    pub start: u64,
    /// Where the next read goes on.
    pub next: u64,
    /// Oldest number held, a kept first event aside.
    pub base: u64,
    /// One past the newest number.
    pub end: u64,
    /// Numbers between what was asked for and `base` whose events are gone.
    pub gap: u64,
    /// Whether the end of the log has been recorded.
    pub ended: bool,
    /// Events and their numbers, rising.
    pub events: Vec<(u64, Arc<E>)>,
}

#[derive(Debug)]
struct Held<E> {
    events: VecDeque<(u64, Arc<E>)>,
    /// Event 0, if it is to be kept.
    first: Option<Arc<E>>,
    base: u64,
    end: u64,
    ended: bool,
    limit: usize,
    keep: Keep,
}

impl<E> LogHistory<E> {
    /// An empty log that holds at most `limit` events, a kept first one aside.
    pub fn new(limit: usize, keep: Keep) -> Self {
        let held = Held { events: VecDeque::new(), first: None, base: 0, end: 0, ended: false, limit, keep };
        Self { held: Mutex::new(held), watchers: Watchers::new() }
    }

    /// Records an event and wakes the waiters. The answer is its number; a log that has ended takes none.
    pub fn append(&self, event: E) -> Option<u64> {
        self.record(None, event)
    }

    /// Records an event in the place of an older one that says less; the older one is dropped if it is still there.
    pub fn supersede(&self, older: u64, event: E) -> Option<u64> {
        self.record(Some(older), event)
    }

    /// Records the last event and with it the end; only the first end counts.
    pub fn finish(&self, last: E) -> Option<u64> {
        let number = self.held.lock().finish(last);
        self.watchers.wake_all();
        number
    }

    /// The oldest events from number `from` on, at most `max`.
    pub fn read(&self, from: u64, max: usize) -> LogWindow<E> {
        self.held.lock().read(from, max)
    }

    /// How many events are held, a kept first one aside.
    pub fn held(&self) -> usize {
        self.held.lock().events.len()
    }

    /// Where it stands. Numbers are the sequence.
    pub fn mark(&self) -> Mark {
        let held = self.held.lock();
        Mark { base: held.base, end: held.end, seq: held.end, ended: held.ended }
    }

    /// A waiter that is woken by each event, and by the end.
    pub fn watch(&self) -> Watch {
        self.watchers.watch()
    }

    fn record(&self, older: Option<u64>, event: E) -> Option<u64> {
        let number = self.held.lock().record(older, event)?;
        self.watchers.wake();
        Some(number)
    }
}

impl<E: Send + Sync> Marked for LogHistory<E> {
    fn mark(&self) -> Mark {
        LogHistory::mark(self)
    }

    fn watch(&self) -> Watch {
        LogHistory::watch(self)
    }
}

impl<E> Held<E> {
    fn record(&mut self, older: Option<u64>, event: E) -> Option<u64> {
        if self.ended {
            return None;
        }
        if let Some(older) = older
            && let Ok(at) = self.events.binary_search_by_key(&older, |(number, _)| *number)
        {
            self.events.remove(at);
        }
        let number = self.end;
        let event = Arc::new(event);
        if number == 0 && self.keep == Keep::FirstAndNewest {
            self.first = Some(Arc::clone(&event));
        }
        self.events.push_back((number, event));
        self.end += 1;
        while self.events.len() > self.limit
            && let Some((gone, _)) = self.events.pop_front()
        {
            self.base = gone + 1;
        }
        Some(number)
    }

    fn finish(&mut self, last: E) -> Option<u64> {
        let number = self.record(None, last)?;
        self.ended = true;
        Some(number)
    }

    fn read(&self, from: u64, max: usize) -> LogWindow<E> {
        let start = from.clamp(self.base, self.end);
        // Event 0 counts as kept once it has left the others.
        let kept =
            self.first.iter().filter(|_| from == 0 && self.base > 0).map(|event| (0, Arc::clone(event)));
        let kept_count = offset(kept.clone().count());
        let at = self.events.partition_point(|(number, _)| *number < start);
        let newer = self.events.range(at..).cloned();
        let events: Vec<_> = kept.chain(newer).take(max).collect();
        // Unused numbers at the end of the window are passed over, so that the next read does not meet them again.
        let all = events.len() == self.events.len() - at + usize::from(kept_count > 0);
        let next = if all { self.end } else { events.last().map_or(start, |(number, _)| number + 1) };
        LogWindow {
            start: if kept_count > 0 { 0 } else { start },
            next,
            base: self.base,
            end: self.end,
            gap: self.base.saturating_sub(from) - kept_count,
            ended: self.ended,
            events,
        }
    }
}
