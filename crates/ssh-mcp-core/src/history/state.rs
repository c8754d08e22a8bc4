//! The history of a state: one snapshot and how often it has changed.
//!
//! Reading takes no lock: the snapshot is swapped as a whole, so a reader has one that was true at some moment. Anybody
//! may record a change; each gets a sequence number of its own.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{Mark, Marked};
use crate::watch::{Watch, Watchers};

/// The newest snapshot of a state resource.
#[derive(Debug)]
pub struct StateHistory<T> {
    newest: ArcSwap<Stated<T>>,
    watchers: Arc<Watchers>,
}

/// A snapshot, of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stated<T> {
    /// The changes recorded up to here.
    pub seq: u64,
    /// Whether this is the last one.
    pub ended: bool,
    /// What was true.
    pub value: Arc<T>,
}

impl<T> StateHistory<T> {
    /// A state with its first value, sequence number 0.
    pub fn new(first: T) -> Self {
        let newest = ArcSwap::from_pointee(Stated { seq: 0, ended: false, value: Arc::new(first) });
        Self { newest, watchers: Watchers::new() }
    }

    /// Records a change and wakes the waiters. The answer is its sequence number; a state that has ended takes none.
    pub fn record(&self, value: T) -> Option<u64> {
        self.replace(value, false)
    }

    /// Records the last value and with it the end; only the first end counts.
    pub fn finish(&self, last: T) -> Option<u64> {
        self.replace(last, true)
    }

    /// The newest value.
    pub fn load(&self) -> Arc<T> {
        Arc::clone(&self.newest.load().value)
    }

    /// The newest value with its sequence number.
    pub fn read(&self) -> Arc<Stated<T>> {
        self.newest.load_full()
    }

    /// Where it stands: the one position of a state is its sequence number.
    pub fn mark(&self) -> Mark {
        let newest = self.newest.load();
        Mark { base: newest.seq, end: newest.seq, seq: newest.seq, ended: newest.ended }
    }

    /// A waiter that is woken by each change, and by the end.
    pub fn watch(&self) -> Watch {
        self.watchers.watch()
    }

    fn replace(&self, value: T, ended: bool) -> Option<u64> {
        let value = Arc::new(value);
        let before = self.newest.rcu(|newest| {
            if newest.ended {
                return Arc::clone(newest);
            }
            Arc::new(Stated { seq: newest.seq + 1, ended, value: Arc::clone(&value) })
        });
        if before.ended {
            return None;
        }
        // A state has no lock to order a waiter's change of mind; its changes are few.
        self.watchers.wake_all();
        Some(before.seq + 1)
    }
}

impl<T: Send + Sync> Marked for StateHistory<T> {
    fn mark(&self) -> Mark {
        StateHistory::mark(self)
    }

    fn watch(&self) -> Watch {
        StateHistory::watch(self)
    }
}
