//! The life of a session: how many resources and calls hold it, and who ends it (`docs/lifecycle.md`, S1 to S8).
//!
//! Owned by the session's registry entry. References are [`SessionRef`] values in the entries of what runs on the
//! session. Times, the transport and the cascade over the resources are not here: the word decides who ends the
//! session, the winner does it.
//!
//! ```text
//!           take                 begin_disconnect (Idle: reap)        finish
//!   Idle <========> Active(n) ---------------------------> Releasing -------> Closed
//!        give_back     |                                                        ^
//!                      +---------------- lose_transport ------------------------+
//! ```

use std::sync::Arc;

use super::word::{Epoch, LOW_HALF, Packed, Word};
use crate::{
    sync::{AtomicBool, Ordering},
    watch::{Watch, Watchers},
};

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// Connected, nothing runs on it; inactivity counts.
    Idle,
    /// Something holds it; no timer ends it.
    Active,
    /// Being disconnected; takes nothing new.
    Releasing,
    /// The transport is gone.
    Closed,
}

/// What one look at the word shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSnapshot {
    /// Where it is in its life.
    pub state: SessionState,
    /// Resources and calls that hold it, below 2^30. Positive in *Releasing* and *Closed* while the cascade runs.
    pub refs: u32,
    /// Raised by each touch of an idle session and each time it becomes idle.
    pub epoch: Epoch,
}

/// Answer to a resource or call that wants the session.
#[must_use = "a refused call has to be told"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// One more reference.
    Accepted,
    /// The session is being disconnected or closed.
    Refused,
}

/// What giving a reference back came to.
#[must_use = "the step to zero starts the session's inactivity"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenBack {
    /// Others hold it.
    StillActive,
    /// Nobody holds it: its last activity is now, and the reaper may end it under this epoch.
    BecameIdle(Epoch),
    /// It is ending; this many references are left.
    Draining(u32),
    /// There was no reference: a defect, to be reported as `SESSION_REFCOUNT_UNDERFLOW`. Nothing changed.
    Underflow,
}

/// What a touch came to.
#[must_use = "a session that is ending cannot serve the call"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched {
    /// It came in time: a reaper that looked before it does not win.
    Kept,
    /// The session is ending or gone.
    TooLate,
}

/// What a reaper owes.
#[must_use = "the winner disconnects the session"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reap {
    /// The session is its to disconnect.
    Won,
    /// The session was used meanwhile, or is ending already.
    Void,
}

/// What somebody who ends a session owes.
#[must_use = "the winner ends the session, the others wait for it"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disconnect {
    /// It is its to end.
    Won,
    /// Another is at it: wait until the state is *Closed*.
    AlreadyReleasing,
    /// It is over.
    AlreadyClosed,
}

/// What the second look of a newcomer that has just listed itself shows.
#[must_use = "a newcomer on an ending session closes itself"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// Whoever ends the session from now on finds the newcomer in the list.
    Open,
    /// The session is ending, and the scan may have missed the newcomer.
    Ending,
}

/// The word of a session and those who wait for it to change.
#[derive(Debug)]
pub struct SessionLife {
    word: Word<SessionSnapshot>,
    watchers: Arc<Watchers>,
}

impl SessionLife {
    /// S1: a session that has just been connected, *Idle*.
    pub fn new() -> Self {
        let first = SessionSnapshot { state: SessionState::Idle, refs: 0, epoch: Epoch::FIRST };
        Self { word: Word::new(first), watchers: Watchers::new() }
    }

    /// The life at this moment, for showing it and for the reaper's first look.
    pub fn snapshot(&self) -> SessionSnapshot {
        self.word.peek()
    }

    /// A waiter that is woken when the session becomes idle, begins to end, has drained, or is closed.
    pub fn watch(&self) -> Watch {
        self.watchers.watch()
    }

    /// S2: `Idle | Active(n) -> Active(n + 1)`; `Releasing` and `Closed` refuse. [`SessionRef::take`] is this with a
    /// guard.
    pub fn take(&self) -> Taken {
        self.word.update(|now| match (now.state, now.refs) {
            (SessionState::Releasing | SessionState::Closed, _) | (_, MOST_REFS..) => (Taken::Refused, None),
            (SessionState::Idle | SessionState::Active, n) => {
                (Taken::Accepted, Some(SessionSnapshot { state: SessionState::Active, refs: n + 1, ..now }))
            }
        })
    }

    /// S3: `Active(n) -> Active(n - 1)`, `Active(1) -> Idle` with the next epoch; in `Releasing` and `Closed` only the
    /// count falls. Below zero it is refused.
    pub fn give_back(&self) -> GivenBack {
        let given = self.word.update(|now| match (now.state, now.refs) {
            (_, 0) | (SessionState::Idle, _) => (GivenBack::Underflow, None),
            (SessionState::Active, 1) => {
                let next = SessionSnapshot { state: SessionState::Idle, refs: 0, ..now }.next_epoch();
                (GivenBack::BecameIdle(next.epoch), Some(next))
            }
            (SessionState::Active, n) => {
                (GivenBack::StillActive, Some(SessionSnapshot { refs: n - 1, ..now }))
            }
            (SessionState::Releasing | SessionState::Closed, n) => {
                (GivenBack::Draining(n - 1), Some(SessionSnapshot { refs: n - 1, ..now }))
            }
        });
        if matches!(given, GivenBack::BecameIdle(_) | GivenBack::Draining(0)) {
            self.watchers.wake();
        }
        given
    }

    /// S4: any call that names the session. `Idle -> Idle` with the next epoch, `Active` stays; the others are too
    /// late. The caller records the time of the activity first, so that a reaper that sees the epoch sees the time.
    pub fn touch(&self) -> Touched {
        self.word.update(|now| match now.state {
            SessionState::Idle => (Touched::Kept, Some(now.next_epoch())),
            // References outrank every timer, so nothing has to be told to the reaper.
            SessionState::Active => (Touched::Kept, None),
            SessionState::Releasing | SessionState::Closed => (Touched::TooLate, None),
        })
    }

    /// S5: `Idle -> Releasing`, if the epoch is the one of the look that found the session expired; else nothing.
    pub fn reap(&self, epoch: Epoch) -> Reap {
        let reaped = self.word.update(|now| match now.state {
            SessionState::Idle if now.epoch == epoch => (Reap::Won, Some(now.releasing())),
            SessionState::Idle | SessionState::Active | SessionState::Releasing | SessionState::Closed => {
                (Reap::Void, None)
            }
        });
        if reaped == Reap::Won {
            self.watchers.wake();
        }
        reaped
    }

    /// S6: `Idle | Active(n) -> Releasing(n)`; one caller wins.
    pub fn begin_disconnect(&self) -> Disconnect {
        self.end_by(SessionSnapshot::releasing)
    }

    /// S7: `Idle | Active(n) -> Closed(n)`; the winner closes what ran on it with `connection_lost`. A session that is
    /// `Releasing` stays so: its transport ending is what the disconnecting side waits for.
    pub fn lose_transport(&self) -> Disconnect {
        self.end_by(|now| SessionSnapshot { state: SessionState::Closed, ..now })
    }

    /// S8: `Releasing -> Closed`, by the winner of the disconnect once the resources are closed and the transport has
    /// ended, or their time is up. References that are left go on draining. Elsewhere nothing happens.
    pub fn finish(&self) {
        self.word.update(|now| match now.state {
            SessionState::Releasing => ((), Some(SessionSnapshot { state: SessionState::Closed, ..now })),
            SessionState::Idle | SessionState::Active | SessionState::Closed => ((), None),
        });
        self.watchers.wake();
    }

    /// The second look of a newcomer that has taken its reference and listed itself: by read-modify-write, so that
    /// either it sees the ending here, or the ending side's scan of the list sees it.
    pub fn confirm(&self) -> Confirmed {
        match self.word.confirm().state {
            SessionState::Idle | SessionState::Active => Confirmed::Open,
            SessionState::Releasing | SessionState::Closed => Confirmed::Ending,
        }
    }

    fn end_by(&self, end: impl Fn(SessionSnapshot) -> SessionSnapshot) -> Disconnect {
        let ended = self.word.update(|now| match now.state {
            SessionState::Idle | SessionState::Active => (Disconnect::Won, Some(end(now))),
            SessionState::Releasing => (Disconnect::AlreadyReleasing, None),
            SessionState::Closed => (Disconnect::AlreadyClosed, None),
        });
        if ended == Disconnect::Won {
            self.watchers.wake();
        }
        ended
    }
}

impl Default for SessionLife {
    fn default() -> Self {
        Self::new()
    }
}

/// A reference to a session: held by a resource's entry or by a call in progress, given back exactly once.
#[derive(Debug)]
pub struct SessionRef {
    life: Arc<SessionLife>,
    given_back: AtomicBool,
}

impl SessionRef {
    /// Takes a reference, unless the session is ending.
    pub fn take(life: &Arc<SessionLife>) -> Option<Self> {
        match life.take() {
            Taken::Accepted => Some(Self { life: Arc::clone(life), given_back: AtomicBool::new(false) }),
            Taken::Refused => None,
        }
    }

    /// Gives the reference back ahead of the drop: the close actions of an entry that others may still hold. None if
    /// that has been done.
    pub fn give_back(&self) -> Option<GivenBack> {
        let before = self.given_back.swap(true, Ordering::AcqRel);
        (!before).then(|| self.life.give_back())
    }

    /// The session's life.
    pub fn life(&self) -> &Arc<SessionLife> {
        &self.life
    }
}

impl Drop for SessionRef {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl SessionSnapshot {
    fn next_epoch(self) -> Self {
        Self { epoch: self.epoch.next(), ..self }
    }

    fn releasing(self) -> Self {
        Self { state: SessionState::Releasing, ..self }
    }
}

/// Bits 0 and 1 state, bits 2 to 31 references, upper half epoch.
impl Packed for SessionSnapshot {
    fn pack(self) -> u64 {
        let state = match self.state {
            SessionState::Idle => 0,
            SessionState::Active => 1,
            SessionState::Releasing => 2,
            SessionState::Closed => 3,
        };
        state | u64::from(self.refs) << REFS_SHIFT | self.epoch.pack()
    }

    fn unpack(bits: u64) -> Self {
        let state = match bits & 0b11 {
            0 => SessionState::Idle,
            1 => SessionState::Active,
            2 => SessionState::Releasing,
            _ => SessionState::Closed,
        };
        // Thirty bits fit.
        let refs = u32::try_from((bits & LOW_HALF) >> REFS_SHIFT).unwrap_or(u32::MAX);
        Self { state, refs, epoch: Epoch::unpack(bits) }
    }
}

const REFS_SHIFT: u32 = 2;
const MOST_REFS: u32 = (1 << 30) - 1;
