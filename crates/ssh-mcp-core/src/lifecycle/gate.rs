//! The gate of an engine: what is being created passes it, and shutdown shuts it (`docs/lifecycle.md` 6.53).
//!
//! A creating call holds a [`Pass`] from before it asks for anything until what it made is listed. Shutdown shuts the
//! gate, waits until nobody is inside, and then finds everything there will ever be in the lists. Cancelling the calls
//! that are inside, and how long to wait for them, is the engine's business.

use std::sync::Arc;

use super::word::{LOW_HALF, Packed, Word};
use crate::watch::Watchers;

/// What somebody who shuts the gate owes.
#[must_use = "the first one runs the shutdown"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shut {
    /// It was open: the shutdown is the caller's to run.
    First,
    /// Another has shut it.
    Again,
}

/// Open or shut, and how many are inside.
#[derive(Debug)]
pub struct Gate {
    word: Word<Inside>,
    watchers: Arc<Watchers>,
}

/// Leave to create something; dropping it says that what was made is listed, or that nothing was made.
#[derive(Debug)]
pub struct Pass {
    gate: Arc<Gate>,
}

#[derive(Debug, Clone, Copy)]
struct Inside {
    shut: bool,
    count: u32,
}

impl Gate {
    /// An open gate with nobody inside.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { word: Word::new(Inside { shut: false, count: 0 }), watchers: Watchers::new() })
    }

    /// `open(n) -> open(n + 1)`; a shut gate lets nobody in.
    pub fn enter(self: &Arc<Self>) -> Option<Pass> {
        self.word
            .update(|now| match now {
                Inside { shut: true, .. } | Inside { count: u32::MAX, .. } => (false, None),
                Inside { shut: false, count } => (true, Some(Inside { count: count + 1, ..now })),
            })
            .then(|| Pass { gate: Arc::clone(self) })
    }

    /// `open(n) -> shut(n)`, for good.
    pub fn shut(&self) -> Shut {
        self.word.update(|now| {
            if now.shut { (Shut::Again, None) } else { (Shut::First, Some(Inside { shut: true, ..now })) }
        })
    }

    /// Whether it has been shut, for showing it.
    pub fn is_shut(&self) -> bool {
        self.word.peek().shut
    }

    /// Ends when nobody is inside. After [`shut`](Self::shut) that is for good, and everything made is listed.
    pub async fn emptied(&self) {
        let mut watch = self.watchers.watch();
        while self.word.peek().count > 0 {
            watch.changed().await;
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let left = self.gate.word.update(|now| {
            // A pass exists, so the count is positive.
            let count = now.count.saturating_sub(1);
            (count, Some(Inside { count, ..now }))
        });
        if left == 0 {
            self.gate.watchers.wake();
        }
    }
}

/// Bit 63 shut, lower half the count.
impl Packed for Inside {
    fn pack(self) -> u64 {
        u64::from(self.shut) << SHUT_SHIFT | u64::from(self.count)
    }

    fn unpack(bits: u64) -> Self {
        // The mask leaves 32 bits.
        let count = u32::try_from(bits & LOW_HALF).unwrap_or(u32::MAX);
        Self { shut: bits >> SHUT_SHIFT != 0, count }
    }
}

const SHUT_SHIFT: u32 = 63;
