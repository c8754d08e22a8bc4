//! The work of a run as its threads and who waits for them see it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whether a run goes on, and that it does: a disk that is read for long moves nothing on the line.
#[derive(Debug, Default)]
pub struct Effort {
    is_over: AtomicBool,
    beats: AtomicU64,
}

impl Effort {
    /// The run is given up; whoever works for it ends soon.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Whether it is.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Something happens on this side.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// How often something has happened.
    #[must_use]
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }
}
