//! Automatic cursors: what one peer has been given of one resource without a hole (`docs/lifecycle.md` 6.4 to 6.6).
//!
//! Owned by the peer, one per resource. A cursor counts bytes of a stream or events of a log from the beginning of
//! the resource's life and never falls. What is copied out of the history is not here: a claim only decides who gets
//! which window.

use crate::sync::{AtomicU64, Ordering};

/// A position that only rises.
#[derive(Debug, Default)]
pub struct Cursor(AtomicU64);

impl Cursor {
    /// The cursor of a peer that has read nothing.
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The position at this moment.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Claims the next window: `window` is given the cursor and answers start and end of what to take from there; the
    /// end becomes the cursor. Concurrent claims get windows that do not overlap and leave nothing between them.
    ///
    /// `window` is asked again when another claim came between; what it said last counts. An end that is not beyond
    /// the cursor claims nothing.
    pub fn claim(&self, mut window: impl FnMut(u64) -> (u64, u64)) -> (u64, u64) {
        let mut at = self.value();
        loop {
            let (start, end) = window(at);
            if end <= at {
                return (start, end);
            }
            // Pairs with itself: who claims after this sees what the winner saw of the history, so it is not told
            // of an older end.
            match self.0.compare_exchange_weak(at, end, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return (start, end),
                Err(newer) => at = newer,
            }
        }
    }

    /// An explicit read was asked to start at `from` and returned everything held up to `to`: the cursor rises to
    /// `to`, if the read began at or before it. A look further ahead skips nothing.
    pub fn advance_contiguous(&self, from: u64, to: u64) {
        let mut at = self.value();
        while from <= at && at < to {
            match self.0.compare_exchange_weak(at, to, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(newer) => at = newer,
            }
        }
    }
}

#[cfg(test)]
#[cfg(ssh_mcp_loom)]
mod loom;
