//! When something was last used: a time that only rises.

use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};

/// The last use of a session or resource, in whole milliseconds since the engine's start.
#[derive(Debug)]
pub struct Activity(AtomicU64);

impl Activity {
    /// Used at `now` for the first time.
    pub fn new(now: Duration) -> Self {
        Self(AtomicU64::new(millis(now)))
    }

    /// Notes a use; an older one changes nothing.
    pub fn touch(&self, now: Duration) {
        // Relaxed: a time shown and compared with deadlines, it publishes nothing else.
        self.0.fetch_max(millis(now), Ordering::Relaxed);
    }

    /// The last use.
    pub fn last(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
