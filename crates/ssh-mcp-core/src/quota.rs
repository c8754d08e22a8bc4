//! Counted places: how many of something may exist at once (`docs/lifecycle.md` 6.38).
//!
//! Owned by whatever is limited (a session, the engine); a [`Place`] is owned by what takes it up. Which code a full
//! quota becomes is the caller's business.

use std::sync::Arc;

use crate::sync::{AtomicU32, Ordering};

/// A limit and how much of it is taken.
#[derive(Debug)]
pub struct Quota {
    limit: u32,
    taken: AtomicU32,
}

/// One place of a quota; dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    quota: Arc<Quota>,
}

impl Quota {
    /// A quota of `limit` places, none taken.
    pub fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self { limit, taken: AtomicU32::new(0) })
    }

    /// A quota that is never full in practice.
    pub fn unlimited() -> Arc<Self> {
        Self::new(u32::MAX)
    }

    /// Takes a place, if one is left. With N left, N of any number of simultaneous calls succeed.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        // Pairs with the drop of a place: who gets it sees what its last holder undid.
        self.taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
                (taken < self.limit).then(|| taken + 1)
            })
            .ok()
            .map(|_| Place { quota: Arc::clone(self) })
    }

    /// How many places there are.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// How many are taken at this moment.
    pub fn in_use(&self) -> u32 {
        self.taken.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.quota.taken.fetch_sub(1, Ordering::AcqRel);
    }
}
