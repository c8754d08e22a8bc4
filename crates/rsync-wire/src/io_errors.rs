//! The errors a sender met while it read its files, as one small set of bits.

use std::ops::{BitOr, BitOrAssign};

/// A set of [`GENERAL`](Self::GENERAL), [`VANISHED`](Self::VANISHED) and [`DELETE_LIMIT`](Self::DELETE_LIMIT). A receiving
/// side that is told of `GENERAL` before the end of the list does not delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct IoErrors(u8);

impl IoErrors {
    /// No error.
    pub const NONE: Self = Self(0);
    /// Something could not be read.
    pub const GENERAL: Self = Self(1);
    /// Something was gone when its turn came.
    pub const VANISHED: Self = Self(2);
    /// The limit of deletions was reached.
    pub const DELETE_LIMIT: Self = Self(4);

    /// The known bits of a received number; the others have no meaning.
    #[must_use]
    pub fn from_bits(bits: i32) -> Self {
        Self((bits & 7) as u8)
    }

    /// The set as a number.
    #[must_use]
    pub fn bits(self) -> i32 {
        i32::from(self.0)
    }

    /// Nothing is in the set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All of `other` is in the set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for IoErrors {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for IoErrors {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}
