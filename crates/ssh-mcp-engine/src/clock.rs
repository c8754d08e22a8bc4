//! The clock, and identifiers, which need one.
//!
//! The only place that reads time. Monotonic time is the runtime's, so tests can step it; wall time is the start's plus
//! what has elapsed since, so both step together.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ssh_mcp_core::sync::{AtomicU64, Ordering};
use tokio::time::Instant;
use uuid::Uuid;

/// Time since the engine's start, and what the wall clock said then.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    wall: SystemTime,
}

impl Clock {
    pub(crate) fn start() -> Self {
        // The one reading of the wall clock; all else is added to it.
        let wall = SystemTime::now();
        Self { start: Instant::now(), wall }
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The wall-clock time of a moment.
    pub fn wall(&self, at: Duration) -> SystemTime {
        self.wall.checked_add(at).unwrap_or(self.wall)
    }

    /// The runtime's form of a moment; one too far off for it is a year away.
    pub(crate) fn instant(&self, at: Duration) -> Instant {
        const YEAR: Duration = Duration::from_secs(365 * 86_400);
        self.start
            .checked_add(at)
            .filter(|at| *at < Instant::now() + YEAR)
            .unwrap_or_else(|| Instant::now() + YEAR)
    }

    /// Ends at a moment.
    pub async fn sleep_until(&self, at: Duration) {
        tokio::time::sleep_until(self.instant(at)).await;
    }

    pub(crate) fn unix_millis(&self) -> u64 {
        let since = self.wall(self.now()).duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Makes UUIDs of version 7 (RFC 9562, 5.7) that rise strictly within the process.
#[derive(Debug)]
pub(crate) struct Mint {
    /// Milliseconds in the upper 52 bits, a counter in the 12 bits the format calls `rand_a`.
    last: AtomicU64,
    seeds: AtomicU64,
}

impl Mint {
    pub(crate) fn new(seed: u64) -> Self {
        Self { last: AtomicU64::new(0), seeds: AtomicU64::new(seed) }
    }

    pub(crate) fn uuid(&self, unix_millis: u64) -> Uuid {
        let floor = unix_millis << 12;
        let next = |last: u64| Some(floor.max(last + 1));
        // Relaxed: the number itself is all that is shared.
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or(floor);
        let stamp = floor.max(last + 1);
        let head = (stamp >> 12) << 16 | 0x7000 | (stamp & 0xfff);
        Uuid::from_u64_pair(head, random() >> 2 | 1 << 63)
    }

    /// A seed for one series of waits.
    pub(crate) fn seed(&self) -> u64 {
        self.seeds.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }
}

/// Eight bytes nobody can guess.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without random bytes an identifier still is unique by its counter.
    _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_rise_and_are_of_version_seven() {
        let mint = Mint::new(1);
        let ids: Vec<_> = (0..10_000).map(|_| mint.uuid(1_700_000_000_000)).collect();
        assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(ids.iter().all(|id| id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122));
        assert!(mint.uuid(1_700_000_100_000) > ids[9_999]);
    }
}
