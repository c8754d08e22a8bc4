//! What one lane has done, and all lanes together.

use std::time::Duration;

use super::LagPolicy;
use crate::sync::{AtomicU64, Ordering};

/// The counters of one lane (`docs/subscriptions.md`, "Statistics"). Counters only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages the transport accepted.
    pub events_sent: u64,
    /// Raw bytes in them; of a lane that is read from, bytes read through it.
    pub bytes_sent: u64,
    /// Events lost by policy.
    pub lagged_drops: u64,
    /// Resynchronisations completed.
    pub lagged_recoveries: u64,
    /// Bytes the history had dropped before the lane had them.
    pub gap_bytes: u64,
    /// Highest number of events that waited.
    pub queue_high_watermark: u64,
    /// Time the history was kept from dropping bytes for this lane.
    pub blocked: Duration,
    /// Announcements the byte threshold caused.
    pub byte_triggered_flushes: u64,
    /// Lines, events or changes the filter suppressed.
    pub filtered_events: u64,
    /// Messages that carried bytes.
    pub inline_events_sent: u64,
    /// Bytes in them.
    pub inline_bytes_sent: u64,
    /// Messages the transport refused.
    pub inline_events_failed: u64,
    /// When the last message was accepted.
    pub last_event: Option<Duration>,
}

/// One look at a lane.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its counters.
    pub stats: Stats,
    /// Events that wait now.
    pub queue_depth: u64,
    /// Where it stands.
    pub cursor: u64,
    /// Whether it is paused.
    pub paused: bool,
    /// Its policy.
    pub policy: LagPolicy,
    /// Its filter.
    pub filter: Option<String>,
    /// When its lease runs out.
    pub expires: Option<Duration>,
    /// Its window, after clamping.
    pub debounce: Duration,
    /// Its byte threshold, after clamping.
    pub bytes: Option<u64>,
}

/// Sums over lanes that have closed; those that live are added when asked.
#[derive(Debug, Default)]
pub struct Totals {
    events_sent: AtomicU64,
    bytes_sent: AtomicU64,
    lagged_drops: AtomicU64,
    lagged_recoveries: AtomicU64,
    queue_high_watermark: AtomicU64,
    blocked_ms: AtomicU64,
}

/// Sums over all lanes there ever were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Messages.
    pub events_sent: u64,
    /// Bytes.
    pub bytes_sent: u64,
    /// Events lost by policy.
    pub lagged_drops: u64,
    /// Resynchronisations.
    pub lagged_recoveries: u64,
    /// The highest of all high-water marks.
    pub queue_high_watermark: u64,
    /// Milliseconds histories were held back.
    pub blocked_ms: u64,
}

impl Totals {
    /// Adds a lane that has closed.
    pub fn add(&self, stats: &Stats) {
        // Relaxed throughout: numbers shown, they publish nothing else.
        self.events_sent.fetch_add(stats.events_sent, Ordering::Relaxed);
        self.bytes_sent.fetch_add(stats.bytes_sent, Ordering::Relaxed);
        self.lagged_drops.fetch_add(stats.lagged_drops, Ordering::Relaxed);
        self.lagged_recoveries.fetch_add(stats.lagged_recoveries, Ordering::Relaxed);
        self.queue_high_watermark.fetch_max(stats.queue_high_watermark, Ordering::Relaxed);
        self.blocked_ms.fetch_add(millis(stats.blocked), Ordering::Relaxed);
    }

    /// The sums, with those of the lanes that live.
    pub fn with<'a>(&self, live: impl Iterator<Item = &'a Stats>) -> Sums {
        let closed = Sums {
            events_sent: self.events_sent.load(Ordering::Relaxed),
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
            lagged_drops: self.lagged_drops.load(Ordering::Relaxed),
            lagged_recoveries: self.lagged_recoveries.load(Ordering::Relaxed),
            queue_high_watermark: self.queue_high_watermark.load(Ordering::Relaxed),
            blocked_ms: self.blocked_ms.load(Ordering::Relaxed),
        };
        live.fold(closed, |sums, stats| Sums {
            events_sent: sums.events_sent + stats.events_sent,
            bytes_sent: sums.bytes_sent + stats.bytes_sent,
            lagged_drops: sums.lagged_drops + stats.lagged_drops,
            lagged_recoveries: sums.lagged_recoveries + stats.lagged_recoveries,
            queue_high_watermark: sums.queue_high_watermark.max(stats.queue_high_watermark),
            blocked_ms: sums.blocked_ms + millis(stats.blocked),
        })
    }
}

/// A time in whole milliseconds.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
