//! Lanes: one client's subscription to one resource (`docs/subscriptions.md`).
//!
//! A [`Lane`] decides when there is something to say, what it is, and what is lost when its client is slow. It holds no
//! bytes: what waits is ranges of the resource's history, and bytes are copied out when the lane's turn has come. It never
//! waits, sends or reads a clock; a driver looks at it whenever the history moves or its deadline comes, and the mux of the
//! client takes one message at a time.
//!
//! ```text
//!   history moves ──> look ──> ask for a turn ──> take ──> (the transport) ──> sent
//!                      ^ deadline                  one message
//! ```
//!
//! | File | Holds |
//! | --- | --- |
//! | `flush` | when news becomes an announcement |
//! | `filter` | lines of a stream and which of them count |
//! | `queue` | what waits, and the four lag policies |
//! | `machine` | the lane: all of these together, pause, replay, end |
//! | `reading` | reads through a lane |
//! | `turns` | who speaks next to one client |
//! | `members` | the lanes of one client, and its end |
//! | `stats` | what lanes have done |
//!
//! *Invariant:* everything one lane knows changes under its own short lock, so whatever a caller asks of it happens at one
//! point of its order. No lane's lock is held while another's is taken, and none while anything is sent.

mod filter;
mod flush;
mod machine;
mod members;
mod queue;
mod reading;
mod stats;
mod turns;

#[cfg(test)]
#[cfg(ssh_mcp_loom)]
mod loom;
#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod model;
#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests;

use std::{ops::Range, time::Duration};

pub use filter::{Filter, FilterError};
pub use flush::{SETTLE, Timing};
pub use machine::{Beyond, Replayed};
pub use members::{Ended, Members};
pub use reading::{Characters, Ranges, Take};
pub use stats::{Report, Stats, Sums, Totals, millis};
pub use turns::Turns;

use crate::{
    history::{History, Origin},
    reason::Reason,
    sync::{Mutex, Notify},
    watch::Heeds,
};
use machine::Machine;

/// What a lane does when its queue is full (`docs/subscriptions.md`, "Policies").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LagPolicy {
    /// The history waits for the lane, within bounds; nothing is dropped.
    BlockSlow,
    /// The oldest event gives way to the new one.
    DropOldest,
    /// The new event is dropped.
    DropNewest,
    /// The queue is dropped, and the lane is brought up from the history.
    Snapshot,
}

impl LagPolicy {
    /// Every policy, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::Snapshot, Self::BlockSlow, Self::DropOldest, Self::DropNewest];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlockSlow => "block_slow",
            Self::DropOldest => "drop_oldest",
            Self::DropNewest => "drop_newest",
            Self::Snapshot => "snapshot",
        }
    }
}

/// When a lane closes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Never.
    Manual,
    /// So long after the end of its resource was delivered.
    AutoClose(Duration),
    /// So long after it was opened or last resumed.
    Lease(Duration),
}

impl Lifetime {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::AutoClose(_) => "auto_close",
            Self::Lease(_) => "lease",
        }
    }
}

/// What a lane's messages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Announcements; the client reads.
    Pull,
    /// The bytes themselves, so many in one message; of a log or a state there are announcements.
    Payload {
        /// Most bytes of one message.
        piece: usize,
    },
}

/// Where a lane begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At a position, or at the oldest one held.
    At(u64),
    /// Behind what there is.
    Now,
}

/// What a lane does once it has delivered the end of its resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// It stays: what there was can be read and replayed.
    Stay,
    /// It leaves: the resource was ended from outside, or had ended before the lane came.
    Leave,
}

/// What a lane is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Announcements or bytes.
    pub form: Form,
    /// Where it begins.
    pub start: Start,
    /// When it closes by itself.
    pub lifetime: Lifetime,
    /// Wait between the delivered end and the leaving of a lane that is read from.
    pub linger: Duration,
    /// What happens when it falls behind.
    pub policy: LagPolicy,
    /// Which lines count.
    pub filter: Option<Filter>,
    /// When it announces.
    pub timing: Timing,
    /// Events that may wait.
    pub queue: usize,
    /// How far back a resynchronisation reaches.
    pub window: u64,
    /// Longest time it holds the history back.
    pub block_timeout: Duration,
}

/// What a lane is on, of one moment.
pub struct Subject<'a> {
    /// What it produced.
    pub history: History<'a>,
    /// The body of a state, for a filter.
    pub body: &'a dyn Fn() -> String,
    /// What lanes do once they have delivered its end.
    pub parting: Parting,
}

/// What a look at a lane owes.
#[must_use = "a lane that asks waits for its turn, and one that is over is to be closed"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// It asks for a turn.
    pub asks: Asks,
    /// When to look again at the latest.
    pub wake: Option<Duration>,
    /// What of the history it has to look at before that.
    pub heeds: Heeds,
    /// Why it is to be closed.
    pub over: Option<Reason>,
}

/// Whether a lane is to be put into the queue for turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// It has something to say, and does not wait yet.
    Now,
    /// It has nothing to say, or waits already.
    No,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// A read would return something new.
    Updated,
    /// Bytes.
    Piece(Piece),
    /// Nothing follows: the resource has ended.
    End {
        /// Number of the message in its lane.
        seq: u64,
        /// Where the lane stands.
        cursor: u64,
        /// Bytes lost before the end.
        gap: u64,
        /// Events the policy dropped before the end.
        dropped: u64,
    },
    /// Nothing follows: the lane is closed.
    Closed {
        /// Number of the message in its lane.
        seq: u64,
        /// Where the lane stands.
        cursor: u64,
        /// Why.
        reason: Reason,
    },
}

/// A piece of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Number of the message in its lane, from 0.
    pub seq: u64,
    /// Where the bytes end; they begin as many before it.
    pub cursor_after: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Their origins in order, neighbours always different; the lengths add up to those of `bytes`.
    pub runs: Vec<(Origin, usize)>,
    /// Whether more of the same delivery follows.
    pub rest: Rest,
    /// Why it is delivered.
    pub why: Why,
    /// Bytes lost immediately before it.
    pub gap: u64,
    /// Events the policy dropped immediately before it.
    pub dropped: u64,
}

/// Whether a piece is the last of its delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// It is.
    Nothing,
    /// More follows.
    Follows,
}

/// Why a piece is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is news.
    News,
    /// A replay was asked for.
    Replay,
    /// The lane had fallen behind and is brought up from the history.
    Snapshot,
}

/// Whether the transport took a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handed {
    /// It did.
    Accepted,
    /// It did not: the message is to be sent again.
    Refused,
}

/// Whether something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It did.
    Yes,
    /// It was so already.
    No,
}

/// Whether a closer was the first.
#[must_use = "the winner does what closing a lane takes"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// It was.
    Won,
    /// Another was.
    Lost,
}

/// What a consumer should know about its lane; each is told once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notices {
    /// Bytes a resynchronisation could not cover, or the history had dropped (`LAG_DETECTED`).
    pub lost_bytes: u64,
    /// Events the policy dropped (`LANE_BUFFER_FULL`).
    pub dropped: u64,
    /// Times the lane used up the time it may hold the history back (`LAG_BACKPRESSURE`).
    pub gave_up: u64,
    /// Times the client took nothing for 5 s (`MUX_BACKPRESSURE`).
    pub stuck: u64,
}

/// One lane, shared by its driver, the mux of its client, and the calls that change it.
#[derive(Debug)]
pub struct Lane {
    machine: Mutex<Machine>,
    /// Rung for the driver when its deadline or its end has changed.
    bell: Notify,
}

impl Lane {
    /// A lane that begins now.
    pub fn open(options: Options, now: Duration, subject: &Subject<'_>) -> Self {
        Self { machine: Mutex::new(Machine::new(options, now, subject)), bell: Notify::new() }
    }

    /// The driver's look: the history may have moved, or a deadline come.
    pub fn look(&self, now: Duration, subject: &Subject<'_>) -> Look {
        let mut machine = self.machine.lock();
        let look = machine.look(now, subject);
        machine.arm(look.wake);
        look
    }

    /// The mux has handed out a turn: the one message for it, if there still is one.
    pub fn take(&self, now: Duration, subject: &Subject<'_>) -> Option<Delivery> {
        let delivery = self.machine.lock().take(now, subject);
        if delivery.is_none() {
            // What it asked for has changed meanwhile: the driver finds out what comes next.
            self.bell.notify_one();
        }
        delivery
    }

    /// What became of the message taken; and whether the lane asks for its next turn.
    pub fn sent(&self, now: Duration, subject: &Subject<'_>, handed: Handed) -> Asks {
        let (look, earlier) = {
            let mut machine = self.machine.lock();
            machine.sent(now, handed);
            let look = machine.look(now, subject);
            let earlier = look.over.is_some() || machine.would_wake_earlier(look.wake);
            (look, earlier)
        };
        if earlier {
            self.bell.notify_one();
        }
        look.asks
    }

    /// The client has taken nothing for a while.
    pub fn note_stuck(&self) {
        self.machine.lock().note_stuck();
    }

    /// It is time for the driver to look again.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    /// Ends when the driver should look again for another reason than the history. One waiter.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Stops deliveries; at most the message already taken still goes out.
    pub fn pause(&self, now: Duration) -> Changed {
        let changed = self.machine.lock().pause(now);
        self.bell.notify_one();
        changed
    }

    /// Goes on, with what has waited first; a lease begins anew in any case.
    pub fn resume(&self, now: Duration) -> Changed {
        let changed = self.machine.lock().resume(now);
        self.bell.notify_one();
        changed
    }

    /// Swaps the filter. What waits stays as the old one judged it.
    pub fn set_filter(&self, now: Duration, subject: &Subject<'_>, filter: Option<Filter>) {
        self.machine.lock().set_filter(now, subject, filter);
        self.bell.notify_one();
    }

    /// Delivers again from `from` on, at most the newest `window` bytes.
    ///
    /// # Errors
    /// [`Beyond`] if there is nothing at `from` yet; then nothing changes.
    pub fn replay(
        &self,
        now: Duration,
        subject: &Subject<'_>,
        from: u64,
        window: u64,
    ) -> Result<Replayed, Beyond> {
        let replayed = self.machine.lock().replay(now, subject, from, window);
        self.bell.notify_one();
        replayed
    }

    /// Ends it. After this nothing is taken from it but one last word to a client that gets bytes.
    pub fn close(&self, now: Duration, reason: Reason) -> Closing {
        let closing = self.machine.lock().close(now, reason);
        self.bell.notify_one();
        closing
    }

    /// Whether the last word of a closed lane still waits for its turn.
    pub fn owes_farewell(&self) -> bool {
        self.machine.lock().owes_farewell()
    }

    /// Gives up the last word: nothing is sent any more.
    pub fn withhold_farewell(&self) {
        self.machine.lock().withhold_farewell();
    }

    /// Whether something is still to be delivered, so that its resource must be kept.
    pub fn is_owed(&self) -> bool {
        self.machine.lock().is_owed()
    }

    /// Whether it has been closed.
    pub fn is_closed(&self) -> bool {
        self.machine.lock().is_closed()
    }

    /// A read through the lane, which moves its cursor. Where a filter or a swap of filters stands between, the ranges
    /// that count come back; else `plain` is given the cursor and answers the window it took. A lane that is sent bytes
    /// stays where it is, and `plain` decides.
    pub fn read(
        &self,
        now: Duration,
        subject: &Subject<'_>,
        take: Take,
        plain: impl FnOnce(u64) -> (u64, u64),
    ) -> Option<Ranges> {
        let ranges = self.machine.lock().read(now, subject, take, plain);
        self.bell.notify_one();
        ranges
    }

    /// What a read through the lane would return, as ranges behind `behind`; a look that moves nothing.
    pub fn waiting(&self, now: Duration, subject: &Subject<'_>, behind: u64) -> Vec<Range<u64>> {
        self.machine.lock().waiting(now, subject, behind)
    }

    /// Its counters and how it is set.
    pub fn report(&self) -> Report {
        self.machine.lock().report()
    }

    /// What its consumer should know and has not been told.
    pub fn notices(&self, now: Duration) -> Notices {
        self.machine.lock().notices(now)
    }
}
