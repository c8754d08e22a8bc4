//! What waits in one lane, and what happens when it is too much: the lag policies of `docs/subscriptions.md`.
//!
//! An event is a range of positions, never bytes, so a full queue is small whatever the data rate. Owned by its lane alone.

use std::{collections::VecDeque, ops::Range};

use super::LagPolicy;

/// A range that is to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) range: Range<u64>,
    pub(super) kind: Kind,
    /// What is missing immediately before it.
    pub(super) lost: Lost,
}

/// Why a range is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is news.
    Live,
    /// A replay was asked for.
    Replay,
    /// The lane had fallen behind.
    Resync,
}

/// A hole in what is delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// Events the policy dropped.
    pub(super) events: u64,
    /// Bytes of them.
    dropped: u64,
    /// Bytes the history had dropped, or a resynchronisation did not reach.
    pub(super) gone: u64,
}

impl Lost {
    pub(super) fn gone(bytes: u64) -> Self {
        Self { gone: bytes, ..Self::default() }
    }

    pub(super) fn bytes(self) -> u64 {
        self.dropped + self.gone
    }

    pub(super) fn add(&mut self, other: Self) {
        self.events += other.events;
        self.dropped += other.dropped;
        self.gone += other.gone;
    }
}

/// What an event met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits.
    Queued,
    /// So many events are lost for it, or it is lost itself.
    Dropped(u64),
    /// So many events were discarded with it: the lane has to be brought up from the history.
    Behind(u64),
}

/// The events of one lane that wait for its turn.
#[derive(Debug)]
pub(super) struct Queue {
    events: VecDeque<Event>,
    capacity: usize,
    policy: LagPolicy,
    /// What is missing behind the last event.
    hole: Lost,
}

impl Queue {
    pub(super) fn new(capacity: usize, policy: LagPolicy) -> Self {
        Self { events: VecDeque::new(), capacity, policy, hole: Lost::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.events.len() >= self.capacity
    }

    /// Takes an event in, under the policy. `block_slow` never comes here with a full queue: it stops looking.
    pub(super) fn push(&mut self, range: Range<u64>, kind: Kind) -> Pushed {
        if !self.is_full() {
            let lost = std::mem::take(&mut self.hole);
            self.events.push_back(Event { range, kind, lost });
            return Pushed::Queued;
        }
        match self.policy {
            LagPolicy::DropOldest => {
                let mut lost = Lost::default();
                let mut events = 0;
                // A message that was refused may have made it one more than full.
                while self.is_full()
                    && let Some(gone) = self.events.pop_front()
                {
                    lost.add(gone.into_lost());
                    events += 1;
                }
                self.miss_first(lost);
                let lost = std::mem::take(&mut self.hole);
                self.events.push_back(Event { range, kind, lost });
                Pushed::Dropped(events)
            }
            LagPolicy::DropNewest => {
                let event = Event { range, kind, lost: Lost::default() };
                self.hole.add(event.into_lost());
                Pushed::Dropped(1)
            }
            LagPolicy::Snapshot | LagPolicy::BlockSlow => {
                let events = self.events.len() as u64 + 1;
                self.clear();
                Pushed::Behind(events)
            }
        }
    }

    /// Takes in a range that only a read takes out; it becomes part of the last one where it follows it.
    pub(super) fn extend(&mut self, range: Range<u64>) {
        match self.events.back_mut() {
            Some(last) if last.range.end == range.start => last.range.end = range.end,
            Some(_) | None => {
                let lost = std::mem::take(&mut self.hole);
                self.events.push_back(Event { range, kind: Kind::Live, lost });
            }
        }
    }

    /// Notes what is missing behind the last event.
    pub(super) fn miss(&mut self, lost: Lost) {
        self.hole.add(lost);
    }

    /// Notes what is missing before the next event, or behind the last one if there is none.
    pub(super) fn miss_first(&mut self, lost: Lost) {
        match self.events.front_mut() {
            Some(first) => first.lost.add(lost),
            None => self.hole.add(lost),
        }
    }

    /// The next event; those that follow it without a hole come along until it is `enough` long.
    pub(super) fn pop(&mut self, enough: u64) -> Option<Event> {
        let mut event = self.events.pop_front()?;
        while event.range.end - event.range.start < enough
            && let Some(next) = self.events.front()
            && next.range.start == event.range.end
            && next.kind == event.kind
            && next.lost == Lost::default()
        {
            event.range.end = next.range.end;
            self.events.pop_front();
        }
        Some(event)
    }

    /// What waits, in order.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.events.iter().map(|event| event.range.clone())
    }

    /// Puts back the rest of what is delivered in part.
    pub(super) fn put_back(&mut self, event: Event) {
        self.events.push_front(event);
    }

    /// Puts back what could not be delivered, together with its rest.
    pub(super) fn rejoin(&mut self, event: Event) {
        match self.events.front_mut() {
            Some(next)
                if next.range.start == event.range.end
                    && next.kind == event.kind
                    && next.lost == Lost::default() =>
            {
                next.range.start = event.range.start;
                next.lost = event.lost;
            }
            Some(_) | None => self.events.push_front(event),
        }
    }

    /// Whether something is missing behind the last event.
    pub(super) fn has_hole(&self) -> bool {
        self.hole != Lost::default()
    }

    /// What is missing behind the last event, once there is none left.
    pub(super) fn take_hole(&mut self) -> Lost {
        std::mem::take(&mut self.hole)
    }

    pub(super) fn clear(&mut self) {
        // The memory of an overflow is not kept.
        self.events = VecDeque::new();
        self.hole = Lost::default();
    }

    /// Whether a resynchronisation still waits in here.
    pub(super) fn holds_resync(&self) -> bool {
        self.events.iter().any(|event| event.kind == Kind::Resync)
    }
}

impl Event {
    fn into_lost(self) -> Lost {
        let mut lost = self.lost;
        lost.add(Lost { events: 1, dropped: self.range.end - self.range.start, gone: 0 });
        lost
    }
}
