//! Who belongs to something that can end: the lanes of a client (`docs/lifecycle.md` 6.46 and 6.47).
//!
//! Joining and the end exclude each other, so that nobody survives it: a newcomer is refused, or it is handed to whoever
//! ends the group. Who joins lists itself elsewhere first, and undoes that when refused.

use std::collections::BTreeMap;

use crate::sync::Mutex;

/// A group with an end.
#[derive(Debug)]
pub struct Members<K, T> {
    group: Mutex<Group<K, T>>,
}

#[derive(Debug)]
struct Group<K, T> {
    members: BTreeMap<K, T>,
    ended: bool,
}

/// The group has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended;

impl<K: Ord, T: Clone> Members<K, T> {
    /// An empty group.
    pub fn new() -> Self {
        Self { group: Mutex::new(Group { members: BTreeMap::new(), ended: false }) }
    }

    /// Takes a member in.
    ///
    /// # Errors
    /// If the group has ended; then nothing changes.
    pub fn join(&self, key: K, member: T) -> Result<(), Ended> {
        let mut group = self.group.lock();
        if group.ended {
            return Err(Ended);
        }
        group.members.insert(key, member);
        Ok(())
    }

    /// Lets a member go.
    pub fn leave(&self, key: &K) {
        let gone = self.group.lock().members.remove(key);
        // What it holds is dropped without the lock.
        drop(gone);
    }

    /// Ends the group: nobody joins any more, and who was in it is handed over, once.
    pub fn end(&self) -> Vec<T> {
        let mut group = self.group.lock();
        group.ended = true;
        std::mem::take(&mut group.members).into_values().collect()
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.group.lock().ended
    }

    /// The first member, by key, that fits.
    pub fn find(&self, fits: impl Fn(&T) -> bool) -> Option<T> {
        self.group.lock().members.values().find(|member| fits(member)).cloned()
    }

    /// Everybody, by key.
    pub fn all(&self) -> Vec<T> {
        self.group.lock().members.values().cloned().collect()
    }
}

impl<K: Ord, T: Clone> Default for Members<K, T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[cfg(ssh_mcp_loom)]
mod loom {
    use std::sync::Arc;

    use loom::thread;

    use super::Members;
    use crate::{
        quota::Quota,
        sync::{AtomicBool, Mutex, Ordering},
    };

    /// A lane as its client's group sees it: it holds a place until it is closed.
    struct Lane {
        closed: AtomicBool,
        place: Mutex<Option<crate::quota::Place>>,
    }

    impl Lane {
        fn close(&self) -> bool {
            let won = !self.closed.swap(true, Ordering::AcqRel);
            if won {
                drop(self.place.lock().take());
            }
            won
        }
    }

    type Group = Members<u32, Arc<Lane>>;

    fn open(group: &Group, quota: &Arc<Quota>, key: u32) -> Option<Arc<Lane>> {
        let place = quota.take()?;
        let lane = Arc::new(Lane { closed: AtomicBool::new(false), place: Mutex::new(Some(place)) });
        match group.join(key, Arc::clone(&lane)) {
            Ok(()) => Some(lane),
            Err(super::Ended) => {
                lane.close();
                None
            }
        }
    }

    /// lifecycle 6.46
    #[test]
    fn a_lane_that_opens_while_its_client_ends_is_refused_or_closed() {
        loom::model(|| {
            let (group, quota) = (Arc::new(Group::new()), Quota::new(9));
            let opener = thread::spawn({
                let (group, quota) = (Arc::clone(&group), Arc::clone(&quota));
                move || open(&group, &quota, 1)
            });
            group.end().iter().for_each(|lane| _ = lane.close());
            let opened = opener.join().unwrap();
            assert!(opened.is_none_or(|lane| lane.closed.load(Ordering::Acquire)));
            assert_eq!(quota.in_use(), 0);
            assert!(group.all().is_empty());
        });
    }

    /// lifecycle 6.47
    #[test]
    fn an_end_that_is_noticed_twice_closes_each_lane_once() {
        loom::model(|| {
            let (group, quota) = (Arc::new(Group::new()), Quota::new(9));
            open(&group, &quota, 1).unwrap();
            open(&group, &quota, 2).unwrap();
            let sweep = thread::spawn({
                let group = Arc::clone(&group);
                move || group.end().iter().filter(|lane| lane.close()).count()
            });
            let guard = group.end().iter().filter(|lane| lane.close()).count();
            assert_eq!(guard + sweep.join().unwrap(), 2);
            assert_eq!(quota.in_use(), 0);
        });
    }

    /// lifecycle 6.37
    #[test]
    fn a_lane_that_closes_at_the_limit_leaves_its_place_to_the_next() {
        loom::model(|| {
            let (group, quota) = (Arc::new(Group::new()), Quota::new(1));
            let first = open(&group, &quota, 1).unwrap();
            let second = thread::spawn({
                let (group, quota) = (Arc::clone(&group), Arc::clone(&quota));
                move || open(&group, &quota, 2)
            });
            assert!(first.close());
            group.leave(&1);
            let second = second.join().unwrap();
            assert_eq!(quota.in_use(), u32::from(second.is_some()));
            if let Some(second) = second {
                second.close();
            }
            assert!(open(&group, &quota, 3).is_some());
        });
    }
}
