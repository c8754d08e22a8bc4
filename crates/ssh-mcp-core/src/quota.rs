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

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests {
    use super::Quota;

    #[test]
    fn a_full_quota_refuses_until_a_place_is_given_back() {
        let quota = Quota::new(2);
        let first = quota.take().unwrap();
        let second = quota.take().unwrap();
        assert!(quota.take().is_none());
        assert_eq!((quota.in_use(), quota.limit()), (2, 2));
        drop(first);
        assert!(quota.take().is_some());
        drop(second);
        assert_eq!(quota.in_use(), 0);
        assert!(Quota::new(0).take().is_none());
        assert!(Quota::unlimited().take().is_some());
    }
}

#[cfg(test)]
#[cfg(ssh_mcp_loom)]
mod loom {
    use std::sync::Arc;

    use loom::thread;

    use super::Quota;

    /// lifecycle 6.38
    #[test]
    fn of_three_who_ask_for_two_places_exactly_two_get_one() {
        loom::model(|| {
            let quota = Quota::new(2);
            let others = [(); 2].map(|()| {
                let quota = Arc::clone(&quota);
                thread::spawn(move || quota.take())
            });
            let mut places = vec![quota.take()];
            places.extend(others.into_iter().map(|other| other.join().unwrap()));
            assert_eq!(places.iter().flatten().count(), 2);
            assert_eq!(quota.in_use(), 2);
            drop(places);
            assert_eq!(quota.in_use(), 0);
        });
    }

    /// lifecycle 6.38
    #[test]
    fn a_place_given_back_at_the_limit_is_not_lost() {
        loom::model(|| {
            let quota = Quota::new(1);
            let place = quota.take().unwrap();
            let next = {
                let quota = Arc::clone(&quota);
                thread::spawn(move || quota.take())
            };
            drop(place);
            let next = next.join().unwrap();
            assert_eq!(quota.in_use(), u32::from(next.is_some()));
            drop(next);
            assert!(quota.take().is_some());
        });
    }
}
