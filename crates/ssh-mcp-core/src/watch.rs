//! Waiters: who is woken when a shared structure changes.
//!
//! Each waiter has a notifier of its own, and the structure it waits for keeps the set. A wake-up carries no data: the
//! waiter looks again, so wake-ups may be merged or spurious, but none is lost. The order that makes this true:
//! the changer publishes first and wakes second, the waiter registers first and looks second. What is waited for, and
//! for how long, is the waiter's business.

use std::{fmt, sync::Arc};

use crate::sync::{AtomicBool, Mutex, Notify, Ordering};

/// The set of waiters of one structure.
#[derive(Default)]
pub struct Watchers {
    // Copied on registration, so that waking holds no lock while it runs a waker, which may drop a task and with it
    // another watch of this very set.
    set: Mutex<Option<Arc<[Arc<Waiter>]>>>,
}

/// What wakes a waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heeds {
    /// Every change.
    Everything,
    /// The end of what it waits for. Of anything else it finds out when it looks by itself.
    TheEnd,
}

#[derive(Debug)]
struct Waiter {
    bell: Notify,
    heeds_all: AtomicBool,
}

impl Watchers {
    /// An empty set.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Registers a waiter. What changed before this call does not wake it.
    pub fn watch(self: &Arc<Self>) -> Watch {
        let own = Arc::new(Waiter { bell: Notify::new(), heeds_all: AtomicBool::new(true) });
        {
            let mut set = self.set.lock();
            let others = set.as_deref().unwrap_or_default();
            *set = Some(others.iter().chain([&own]).cloned().collect());
        }
        Watch { watchers: Arc::clone(self), own }
    }

    /// Wakes every waiter that heeds everything. To be called after the change is visible.
    pub fn wake(&self) {
        // Pairs with `heed`: who began to heed everything before the change was made is seen here, since what changes is
        // behind a lock, and the waiter looks there after it began.
        self.wake_those(|waiter| waiter.heeds_all.load(Ordering::Acquire));
    }

    /// Wakes every waiter: the end has come. To be called after that is visible.
    pub fn wake_all(&self) {
        self.wake_those(|_| true);
    }

    fn wake_those(&self, is_meant: impl Fn(&Waiter) -> bool) {
        let set = self.set.lock().clone();
        for waiter in set.iter().flat_map(|set| set.iter()).filter(|waiter| is_meant(waiter)) {
            waiter.bell.notify_one();
        }
    }

    fn forget(&self, gone: &Arc<Waiter>) {
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
    own: Arc<Waiter>,
}

impl Watch {
    /// Ends when something changed since the watch was made or this call last ended. Safe to drop half-way.
    pub async fn changed(&mut self) {
        self.own.bell.notified().await;
    }

    /// What it is woken by from now on. Who begins to heed everything must look afterwards.
    pub fn heed(&self, heeds: Heeds) {
        self.own.heeds_all.store(heeds == Heeds::Everything, Ordering::Release);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watchers.forget(&self.own);
    }
}
