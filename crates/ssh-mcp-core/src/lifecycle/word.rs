//! The packed word: everything that decides a life, in 64 bits that change together.
//!
//! *Invariant:* every write is a read-modify-write by [`Word::update`], the only compare-exchange loop of the crate's
//! machines, and so is the second look that closes a race ([`Word::confirm`]). A plain store or load beside them would
//! leave the order open (`docs/adr/0003-lifecycle-word.md`). What the bits mean is the business of the machine above.

use std::{fmt, marker::PhantomData};

use crate::sync::{AtomicU64, Ordering};

/// A value that fits a word.
pub(super) trait Packed: Copy {
    fn pack(self) -> u64;
    fn unpack(bits: u64) -> Self;
}

/// One atomic word that reads as a `P`.
pub(super) struct Word<P> {
    bits: AtomicU64,
    shape: PhantomData<fn() -> P>,
}

impl<P: Packed> Word<P> {
    pub(super) fn new(value: P) -> Self {
        Self { bits: AtomicU64::new(value.pack()), shape: PhantomData }
    }

    /// Applies one transition: `decide` is given the value, and answers the outcome and the next value, or none to
    /// leave it. It may be asked several times; the outcome of the last time counts.
    pub(super) fn update<R>(&self, mut decide: impl FnMut(P) -> (R, Option<P>)) -> R {
        let mut seen = self.bits.load(Ordering::Acquire);
        loop {
            let (outcome, next) = decide(P::unpack(seen));
            let Some(next) = next else { return outcome };
            // Pairs with itself and with `peek`: who sees the new word sees everything its writer did before.
            match self.bits.compare_exchange_weak(seen, next.pack(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return outcome,
                Err(newer) => seen = newer,
            }
        }
    }

    /// The value at some moment, for showing it and for arming timers; nobody acts on it without a transition.
    pub(super) fn peek(&self) -> P {
        P::unpack(self.bits.load(Ordering::Acquire))
    }

    /// Publish, then confirm: the value now, by a read-modify-write.
    ///
    /// A newcomer lists itself, then confirms the word of what it belongs to; the ending side swaps that word, then
    /// scans the list. Both touch the word by read-modify-write, so one comes first: either the scan finds the
    /// newcomer, or the newcomer sees the ending and closes itself. With a plain load both could miss.
    pub(super) fn confirm(&self) -> P {
        P::unpack(self.bits.fetch_or(0, Ordering::AcqRel))
    }
}

impl<P: Packed + fmt::Debug> fmt::Debug for Word<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.peek().fmt(f)
    }
}

/// The half of the word above the epoch's.
pub(super) const LOW_HALF: u64 = 0xffff_ffff;

/// Counts armings and cancellings of timers: a timer acts only if the word still has the epoch it was armed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u32);

impl Epoch {
    pub(super) const FIRST: Self = Self(0);

    pub(super) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    pub(super) fn pack(self) -> u64 {
        u64::from(self.0) << 32
    }

    pub(super) fn unpack(bits: u64) -> Self {
        // The shift leaves 32 bits.
        Self(u32::try_from(bits >> 32).unwrap_or(u32::MAX))
    }
}
