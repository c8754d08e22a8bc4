//! What becomes of the connections of a forward: counters and events.

use std::time::Duration;

use serde::Serialize;

use crate::{
    history::{Keep, LogHistory},
    reason::Reason,
    sync::{AtomicU64, Mutex, Ordering},
};

/// Events of a forward that are held: the newest.
pub const KEPT: usize = 1024;

/// The counters of connections, of one moment.
///
/// *Invariant:* `accepted = closed + failed + open`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Connections that came in.
    pub accepted: u64,
    /// Connections that ended after they had been joined to their target.
    pub closed: u64,
    /// Connections that never were, or that were reset because they held others up.
    pub failed: u64,
    /// Connections that are there.
    pub open: u64,
}

/// How a connection ended that had been joined to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Parting {
    /// Both sides had said all they had to say.
    Finished,
    /// Whoever came in went away without a word.
    ClientGone,
    /// The target did.
    TargetGone,
    /// The forward ended.
    ForwardStopped,
    /// The connection to the server broke.
    ConnectionLost,
}

/// Why a connection failed, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// The target cannot be reached.
    TargetUnreachable,
    /// The client's SOCKS request cannot be served.
    SocksRefused,
    /// The client said nothing, or not enough, in time.
    HandshakeTimeout,
    /// It went away before it was joined to its target.
    ClientGone,
    /// It took nothing while others waited for it.
    SlowConsumer,
    /// The forward ended before it was joined to its target.
    ForwardStopped,
    /// No connection can be taken at the moment.
    AcceptFailed,
}

/// Something that has happened on a forward. `conn` counts from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A connection came in.
    Accepted {
        /// Which.
        conn: u64,
        /// From where.
        detail: Peer,
    },
    /// It is joined to its target.
    Connected {
        /// Which.
        conn: u64,
        /// To what.
        detail: Target,
    },
    /// It ended.
    Closed {
        /// Which.
        conn: u64,
        /// How, and what it carried.
        detail: Carried,
    },
    /// It failed, or none can be taken.
    Error {
        /// Which, if it is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        conn: Option<u64>,
        /// Why.
        detail: Why,
    },
    /// The forward ended; the last event.
    Stopped {
        /// Why.
        detail: Stop,
    },
}

/// Where a connection came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// Address and port.
    pub peer: String,
}

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Host and port.
    pub target: String,
}

/// What a connection carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Carried {
    /// Bytes that went to the server.
    pub bytes_to_remote: u64,
    /// Bytes that came from it.
    pub bytes_from_remote: u64,
    /// How long it was there.
    pub duration_ms: u64,
    /// How it ended.
    pub reason: Parting,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Why {
    /// In one word.
    pub code: Trouble,
    /// In one line.
    pub message: String,
    /// Where it was to go, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// Why a forward ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stop {
    /// In one word.
    pub reason: Reason,
    /// In the words of whoever broke it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// An event and its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// When, since the engine's start.
    pub at: Duration,
    /// What.
    pub event: Event,
}

/// The counters and the log of a forward. Its tasks tell; anybody reads.
pub struct Traffic {
    /// The log is only written under this lock, so that events and counters agree.
    counts: Mutex<Counts>,
    to_remote: AtomicU64,
    from_remote: AtomicU64,
    /// What has happened.
    pub log: LogHistory<Logged>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            counts: Mutex::default(),
            to_remote: AtomicU64::new(0),
            from_remote: AtomicU64::new(0),
            log: LogHistory::new(KEPT, Keep::Newest),
        }
    }
}

impl Traffic {
    /// A connection came in; its number.
    pub fn accepted(&self, now: Duration, peer: String) -> u64 {
        let mut counts = self.counts.lock();
        counts.accepted += 1;
        counts.open += 1;
        let conn = counts.accepted;
        self.record(now, Event::Accepted { conn, detail: Peer { peer } });
        conn
    }

    /// It is joined to its target.
    pub fn connected(&self, now: Duration, conn: u64, target: String) {
        let _counts = self.counts.lock();
        self.record(now, Event::Connected { conn, detail: Target { target } });
    }

    /// It ended.
    pub fn closed(&self, now: Duration, conn: u64, carried: Carried) {
        let mut counts = self.counts.lock();
        counts.closed += 1;
        counts.open = counts.open.saturating_sub(1);
        self.record(now, Event::Closed { conn, detail: carried });
    }

    /// It failed.
    pub fn failed(&self, now: Duration, conn: u64, why: Why) {
        let mut counts = self.counts.lock();
        counts.failed += 1;
        counts.open = counts.open.saturating_sub(1);
        self.record(now, Event::Error { conn: Some(conn), detail: why });
    }

    /// No connection can be taken at the moment.
    pub fn troubled(&self, now: Duration, message: String) {
        let _counts = self.counts.lock();
        let detail = Why { code: Trouble::AcceptFailed, message, target: None };
        self.record(now, Event::Error { conn: None, detail });
    }

    /// The forward ended; nothing is recorded behind it, and the second call does nothing.
    pub fn stop(&self, now: Duration, reason: Reason, message: Option<String>) {
        _ = self.log.finish(Logged { at: now, event: Event::Stopped { detail: Stop { reason, message } } });
    }

    /// Bytes went to the server.
    pub fn moved_to_remote(&self, bytes: u64) {
        // Relaxed: a statistic.
        self.to_remote.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes came from it.
    pub fn moved_from_remote(&self, bytes: u64) {
        self.from_remote.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The counters of connections.
    pub fn counts(&self) -> Counts {
        *self.counts.lock()
    }

    /// Bytes that went to the server, of all connections.
    pub fn bytes_to_remote(&self) -> u64 {
        self.to_remote.load(Ordering::Relaxed)
    }

    /// Bytes that came from it.
    pub fn bytes_from_remote(&self) -> u64 {
        self.from_remote.load(Ordering::Relaxed)
    }

    fn record(&self, now: Duration, event: Event) {
        // One that comes behind the end is told to nobody any more.
        _ = self.log.append(Logged { at: now, event });
    }
}
