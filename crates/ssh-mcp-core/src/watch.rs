//! Waiters: who is woken when a shared structure changes.
//!
//! Each waiter has a notifier of its own, and the structure it waits for keeps the set. A wake-up carries no data: the
//! waiter looks again, so wake-ups may be merged or spurious, but none is lost. The order that makes this true:
//! the changer publishes first and wakes second, the waiter registers first and looks second. What is waited for, and
//! for how long, is the waiter's business.

use std::{fmt, sync::Arc};

use crate::sync::{Mutex, Notify};

/// The set of waiters of one structure.
#[derive(Default)]
pub struct Watchers {
    // Copied on registration, so that waking holds no lock while it runs a waker, which may drop a task and with it
    // another watch of this very set.
    set: Mutex<Option<Arc<[Arc<Notify>]>>>,
}

impl Watchers {
    /// An empty set.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Registers a waiter. What changed before this call does not wake it.
    pub fn watch(self: &Arc<Self>) -> Watch {
        let own = Arc::new(Notify::new());
        {
            let mut set = self.set.lock();
            let others = set.as_deref().unwrap_or_default();
            *set = Some(others.iter().chain([&own]).cloned().collect());
        }
        Watch { watchers: Arc::clone(self), own }
    }

    /// Wakes every waiter. To be called after the change is visible.
    pub fn wake(&self) {
        let set = self.set.lock().clone();
        for waiter in set.iter().flat_map(|set| set.iter()) {
            waiter.notify_one();
        }
    }

    fn forget(&self, gone: &Arc<Notify>) {
        let mut set = self.set.lock();
        let rest: Arc<[_]> =
            set.iter().flat_map(|set| set.iter()).filter(|one| !Arc::ptr_eq(one, gone)).cloned().collect();
        *set = (!rest.is_empty()).then_some(rest);
    }
}

impl fmt::Debug for Watchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.set.lock().as_ref().map_or(0, |set| set.len());
        f.debug_struct("Watchers").field("count", &count).finish()
    }
}

/// One waiter; dropping it leaves the set.
#[derive(Debug)]
pub struct Watch {
    watchers: Arc<Watchers>,
    own: Arc<Notify>,
}

impl Watch {
    /// Ends when something changed since the watch was made or this call last ended. Safe to drop half-way.
    pub async fn changed(&mut self) {
        self.own.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watchers.forget(&self.own);
    }
}
