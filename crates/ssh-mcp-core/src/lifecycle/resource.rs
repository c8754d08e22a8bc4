//! The life of a resource: observed or not, releasing itself, closed (`docs/lifecycle.md`, R1 to R14).
//!
//! Owned by the resource's registry entry; anyone may ask for a transition, and only who is told to act acts. Timers,
//! close actions and reasons' meaning are not here: the word decides who wins, the winner does the work.
//!
//! ```text
//!            observe                    release, flag off
//!   Owned ------------> Observed(n) ----------------------> Owned
//!     |                  |   ^  |
//!     |                  |   |  | release, flag on
//!     |                  |   |  v
//!     |          observe |   +- Releasing
//!     |                  |          |
//!     +------ close -----+--- expire+-----> Closed
//! ```

use std::time::Duration;

use super::word::{Epoch, LOW_HALF, Packed, Word};
use crate::{reason::Reason, sync::OnceCell};

/// Where a resource is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It exists and nobody watches.
    Owned,
    /// At least one lane, or a call that waits or reads, is on it.
    Observed,
    /// The last observer left a resource that releases itself; everything still works on it.
    Releasing,
    /// The remote side is gone or going. Nothing follows.
    Closed,
}

/// Whether a resource closes itself once nobody observes it; set by its creator, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AutoRelease {
    /// It lives until somebody or something ends it.
    Off,
    /// Timers run while it has no observer.
    On,
}

/// What one look at the word shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Where it is in its life.
    pub state: State,
    /// Lanes and waiting calls on it, below 2^28.
    pub observers: u32,
    /// Whether it closes itself.
    pub auto_release: AutoRelease,
    /// Whether this time without an observer has been reported as a leak risk.
    pub leak: Leak,
    /// The epoch of its timers; while *Owned*, also the name of one unobserved episode.
    pub epoch: Epoch,
}

/// What the leak watcher has said about a time without an observer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Leak {
    /// Nothing.
    Unreported,
    /// That nobody observes the resource.
    Reported,
}

/// Answer to the leak watcher.
#[must_use = "one report is owed for each time without an observer"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The report is the caller's to make.
    Due,
    /// Somebody observes the resource, it has ended, or the report was made.
    Void,
}

/// Answer to an observer that comes.
#[must_use = "a refused observer has to be told"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// It counts; a timer that ran is void. It will hear of the end.
    Accepted,
    /// The resource is closed.
    Refused,
}

/// What an observer that leaves owes.
#[must_use = "the last observer of a self-releasing resource arms its timer"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// Nothing is to be done.
    Nothing,
    /// A grace timer is to be started with this epoch; with a grace of zero, `expire` is called at once.
    ArmGrace(Epoch),
    /// There was no observer to leave: a defect, to be reported as `LIFECYCLE_STATE_CONFLICT`.
    Refused,
}

/// What a timer that fired owes.
#[must_use = "the winner runs the close actions"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// It closed the resource: its owner runs the close actions.
    RunClose,
    /// It came too late, or for another epoch: nothing happened.
    Void,
}

/// What a closer owes.
#[must_use = "the winner runs the close actions"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// It closed the resource: it runs the close actions.
    Won,
    /// Another was first: nothing happened.
    Lost,
}

/// The word of a resource.
#[derive(Debug)]
pub struct Lifecycle {
    word: Word<Snapshot>,
}

impl Lifecycle {
    /// R1: a resource that exists and that nobody observes. With [`AutoRelease::On`] its own-grace timer is to be
    /// started with [`armed`](Self::armed).
    pub fn owned(auto_release: AutoRelease) -> Self {
        let first = Snapshot {
            state: State::Owned,
            observers: 0,
            auto_release,
            leak: Leak::Unreported,
            epoch: Epoch::FIRST,
        };
        Self { word: Word::new(first) }
    }

    /// The life at this moment, for showing it; whoever wants to act asks for a transition.
    pub fn snapshot(&self) -> Snapshot {
        self.word.peek()
    }

    /// The epoch of the timer that must be running: own grace while *Owned*, grace while *Releasing*.
    pub fn armed(&self) -> Option<Epoch> {
        let now = self.word.peek();
        now.has_timer().then_some(now.epoch)
    }

    /// R2, R3, R6: `Owned | Observed(n) | Releasing -> Observed(n + 1)`; `Closed` refuses. Leaving *Owned* or
    /// *Releasing* raises the epoch, so a running timer is void and an unobserved episode is over.
    pub fn observe(&self) -> Observed {
        self.word.update(|now| match (now.state, now.observers) {
            (State::Closed, _) | (_, MOST_OBSERVERS..) => (Observed::Refused, None),
            (State::Observed, n) => (Observed::Accepted, Some(Snapshot { observers: n + 1, ..now })),
            (State::Owned | State::Releasing, n) => {
                let leak = Leak::Unreported;
                let next = Snapshot { state: State::Observed, observers: n + 1, leak, ..now };
                (Observed::Accepted, Some(next.next_epoch()))
            }
        })
    }

    /// R3, R4, R5: `Observed(1) -> Releasing` with the flag, `Observed(1) -> Owned` without it, `Observed(n) ->
    /// Observed(n - 1)`; in `Closed` only the count falls. Without an observer it is refused.
    pub fn release(&self) -> Released {
        self.word.update(|now| match (now.state, now.observers, now.auto_release) {
            (_, 0, _) | (State::Owned | State::Releasing, _, _) => (Released::Refused, None),
            (State::Closed, n, _) | (State::Observed, n @ 2.., _) => {
                (Released::Nothing, Some(Snapshot { observers: n - 1, ..now }))
            }
            (State::Observed, 1, AutoRelease::Off) => {
                (Released::Nothing, Some(Snapshot { state: State::Owned, observers: 0, ..now }))
            }
            (State::Observed, 1, AutoRelease::On) => {
                let next = Snapshot { state: State::Releasing, observers: 0, ..now }.next_epoch();
                (Released::ArmGrace(next.epoch), Some(next))
            }
        })
    }

    /// R7, R8: `Owned (with the flag) | Releasing -> Closed`, if the epoch is still the timer's; else nothing.
    pub fn expire(&self, epoch: Epoch) -> Expired {
        self.word.update(|now| {
            if now.has_timer() && now.epoch == epoch {
                (Expired::RunClose, Some(now.closed()))
            } else {
                (Expired::Void, None)
            }
        })
    }

    /// The leak watcher found nobody since `epoch`: `Owned` without the flag stays, reported once. An observer that has come
    /// raised the epoch.
    pub fn report_leak(&self, epoch: Epoch) -> Report {
        self.word.update(|now| match now.leaks_since(epoch) {
            true if now.leak == Leak::Unreported => {
                (Report::Due, Some(Snapshot { leak: Leak::Reported, ..now }))
            }
            true | false => (Report::Void, None),
        })
    }

    /// R13: `Owned -> Closed` without the flag, if nobody has observed it since `epoch`.
    pub fn expire_leak(&self, epoch: Epoch) -> Expired {
        self.word.update(|now| match now.leaks_since(epoch) {
            true => (Expired::RunClose, Some(now.closed())),
            false => (Expired::Void, None),
        })
    }

    /// R12: `Owned -> Closed`; an observer in any other state keeps the resource.
    pub fn expire_idle(&self) -> Expired {
        self.word.update(|now| match now.state {
            State::Owned => (Expired::RunClose, Some(now.closed())),
            State::Observed | State::Releasing | State::Closed => (Expired::Void, None),
        })
    }

    /// Input pushes a running deadline out: the timer that runs is void, and one with the new epoch is to be started.
    /// `Owned (with the flag) | Releasing` stay with the next epoch; elsewhere no timer runs and nothing happens.
    #[must_use = "the deadline has to be armed anew"]
    pub fn push_deadline(&self) -> Option<Epoch> {
        self.word.update(|now| {
            if now.has_timer() {
                let next = now.next_epoch();
                (Some(next.epoch), Some(next))
            } else {
                (None, None)
            }
        })
    }

    /// R9, R10, R11, R14: `Owned | Observed | Releasing -> Closed`; the first closer wins. Observers keep counting.
    pub fn close(&self) -> Close {
        self.word.update(|now| match now.state {
            State::Owned | State::Observed | State::Releasing => (Close::Won, Some(now.closed())),
            State::Closed => (Close::Lost, None),
        })
    }
}

impl Snapshot {
    fn has_timer(self) -> bool {
        match self.state {
            State::Owned => self.auto_release == AutoRelease::On,
            State::Releasing => true,
            State::Observed | State::Closed => false,
        }
    }

    fn leaks_since(self, epoch: Epoch) -> bool {
        self.state == State::Owned && self.auto_release == AutoRelease::Off && self.epoch == epoch
    }

    fn next_epoch(self) -> Self {
        Self { epoch: self.epoch.next(), ..self }
    }

    fn closed(self) -> Self {
        Self { state: State::Closed, ..self }.next_epoch()
    }
}

/// Bits 0 and 1 state, bit 2 flag, bit 3 leak, bits 4 to 31 observers, upper half epoch.
impl Packed for Snapshot {
    fn pack(self) -> u64 {
        let state = match self.state {
            State::Owned => 0,
            State::Observed => 1,
            State::Releasing => 2,
            State::Closed => 3,
        };
        let flag = match self.auto_release {
            AutoRelease::Off => 0,
            AutoRelease::On => 1 << 2,
        };
        let leak = match self.leak {
            Leak::Unreported => 0,
            Leak::Reported => 1 << 3,
        };
        state | flag | leak | u64::from(self.observers) << OBSERVERS_SHIFT | self.epoch.pack()
    }

    fn unpack(bits: u64) -> Self {
        let state = match bits & 0b11 {
            0 => State::Owned,
            1 => State::Observed,
            2 => State::Releasing,
            _ => State::Closed,
        };
        let auto_release = if bits & 1 << 2 == 0 { AutoRelease::Off } else { AutoRelease::On };
        let leak = if bits & 1 << 3 == 0 { Leak::Unreported } else { Leak::Reported };
        // Twenty-eight bits fit.
        let observers = u32::try_from((bits & LOW_HALF) >> OBSERVERS_SHIFT).unwrap_or(u32::MAX);
        Self { state, observers, auto_release, leak, epoch: Epoch::unpack(bits) }
    }
}

const OBSERVERS_SHIFT: u32 = 4;
const MOST_OBSERVERS: u32 = (1 << 28) - 1;

/// How a resource ended: one record, so that reason and status cannot disagree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End<T> {
    /// Why.
    pub reason: Reason,
    /// What the kind knows about it: status, exit code, counts.
    pub facts: T,
    /// When, since the engine's clock began.
    pub at: Duration,
}

/// The write-once cell beside the word: empty until the winner of `-> Closed` has recorded the end.
#[derive(Debug)]
pub struct Ending<T>(OnceCell<End<T>>);

impl<T> Ending<T> {
    /// The cell of a resource that lives.
    pub fn new() -> Self {
        Self(OnceCell::new())
    }

    /// Records the end. Only the winner of the word calls this, so a second end, which comes back, is a defect.
    pub fn record(&self, end: End<T>) -> Result<(), End<T>> {
        self.0.set(end)
    }

    /// The end, once recorded. A word that says *Closed* may be a moment ahead of it.
    pub fn get(&self) -> Option<&End<T>> {
        self.0.get()
    }
}

impl<T> Default for Ending<T> {
    fn default() -> Self {
        Self::new()
    }
}
