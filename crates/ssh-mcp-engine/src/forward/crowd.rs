//! The connections of one forward as they see each other.

use std::sync::Arc;

use ssh_mcp_core::{kind::forward::allowance, sync::Mutex};
use tokio::sync::Notify;

/// Everybody who is on a line.
#[derive(Default)]
pub(super) struct Crowd {
    numbers: Mutex<Numbers>,
    /// Rings for those who have used up their allowance.
    changed: Notify,
}

#[derive(Debug, Clone, Copy, Default)]
struct Numbers {
    all: usize,
    /// Of them, those that have taken all they were given.
    waiting: usize,
    /// Of them, those that have used up their allowance.
    full: usize,
}

/// One connection's place; dropping it is leaving.
pub(super) struct Member {
    crowd: Arc<Crowd>,
    stands: Stands,
}

/// How one stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// It would take something.
    Waiting,
    /// It has not taken yet what it was given.
    Busy,
    /// Nor can it be given more.
    Full,
}

/// The others, as one of them sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Others {
    /// All of them.
    pub(super) all: usize,
    /// Those that have taken all they were given.
    pub(super) waiting: usize,
}

impl Crowd {
    /// One more, who waits.
    pub(super) fn join(self: &Arc<Self>) -> Member {
        self.change(|numbers| {
            numbers.all += 1;
            numbers.waiting += 1;
            true
        });
        Member { crowd: Arc::clone(self), stands: Stands::Waiting }
    }

    /// Ends when the others may have changed since it was made; rings only while somebody is full.
    pub(super) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// `change` says whether it has changed anything.
    fn change(&self, change: impl FnOnce(&mut Numbers) -> bool) -> Numbers {
        let (has_changed, numbers) = {
            let mut numbers = self.numbers.lock();
            (change(&mut numbers), *numbers)
        };
        // Nobody else minds.
        if has_changed && numbers.full > 0 {
            self.changed.notify_waiters();
        }
        numbers
    }
}

impl Member {
    /// Says how much it was given and has not taken; what the others are like.
    pub(super) fn look(&mut self, held: usize) -> Others {
        let Self { crowd, stands } = self;
        // Under one lock, so that somebody who comes or goes meanwhile finds it where it stands.
        let numbers = crowd.change(|numbers| {
            let now = match held {
                0 => Stands::Waiting,
                held if held < allowance(numbers.all.saturating_sub(1), false) => Stands::Busy,
                _ => Stands::Full,
            };
            let before = std::mem::replace(stands, now);
            numbers.move_one(before, now);
            before != now
        });
        let own = usize::from(*stands == Stands::Waiting);
        Others { all: numbers.all.saturating_sub(1), waiting: numbers.waiting.saturating_sub(own) }
    }

    /// Everybody, itself among them.
    pub(super) fn crowd(&self) -> Arc<Crowd> {
        Arc::clone(&self.crowd)
    }
}

impl Numbers {
    fn move_one(&mut self, from: Stands, to: Stands) {
        self.waiting -= usize::from(from == Stands::Waiting);
        self.full -= usize::from(from == Stands::Full);
        self.waiting += usize::from(to == Stands::Waiting);
        self.full += usize::from(to == Stands::Full);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let stands = self.stands;
        self.crowd.change(|numbers| {
            numbers.move_one(stands, Stands::Busy);
            numbers.all -= 1;
            true
        });
    }
}
