//! The record a request and its answer begin with.

use std::ops::{BitOr, BitOrAssign};

use crate::varint::{Malformed, ReadError, Reader, put_u16, put_vstring};

/// What a record says of an item: what differs, and what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct ItemFlags(u16);

impl ItemFlags {
    /// Content, target or device number differs.
    pub const CHANGED: Self = Self(0x0002);
    /// The size differs.
    pub const SIZE: Self = Self(0x0004);
    /// The time of modification differs.
    pub const TIME: Self = Self(0x0008);
    /// The permissions differ.
    pub const PERMISSIONS: Self = Self(0x0010);
    /// The owner differs.
    pub const OWNER: Self = Self(0x0020);
    /// The group differs.
    pub const GROUP: Self = Self(0x0040);
    /// A basis type follows.
    const BASIS_TYPE: Self = Self(0x0800);
    /// A name follows.
    const NAME: Self = Self(0x1000);
    /// The item was not there.
    pub const NEW: Self = Self(0x2000);
    /// The item was changed without data.
    pub const LOCAL: Self = Self(0x4000);
    /// Data is wanted.
    pub const TRANSFER: Self = Self(0x8000);

    /// The flags in a received number.
    #[must_use]
    pub fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The flags as a number.
    #[must_use]
    pub fn bits(self) -> u16 {
        self.0
    }

    /// All of `other` are set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for ItemFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for ItemFlags {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

/// The basis is the destination file itself.
pub(super) const TARGET: u8 = 0x80;
/// The basis is the file in the partial directory.
pub(super) const PARTIAL: u8 = 0x81;

/// What follows an index: flags, and what they announce. An answer repeats that of its request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// What differs, and what is wanted.
    pub flags: ItemFlags,
    /// Which file the sums are of, if it is not the destination (`docs/rsync-wire-dialogue.md`, *Records*).
    pub basis_type: Option<u8>,
    /// The name of another file. Never a path to be used.
    pub name: Option<Vec<u8>>,
}

/// The longest name in a record that is taken.
const NAME_MAX: usize = 4095;

impl Record {
    /// A record of flags alone.
    pub(super) fn of(flags: ItemFlags) -> Self {
        Self { flags, ..Self::default() }
    }

    pub(super) fn is_transfer(&self) -> bool {
        self.flags.contains(ItemFlags::TRANSFER)
    }

    pub(super) fn read(input: &mut Reader<'_>) -> Result<Self, ReadError> {
        let flags = ItemFlags(input.u16()?);
        let basis_type = if flags.contains(ItemFlags::BASIS_TYPE) { Some(input.byte()?) } else { None };
        let name = if flags.contains(ItemFlags::NAME) { Some(long_vstring(input)?.to_vec()) } else { None };
        Ok(Self { flags, basis_type, name })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_u16(out, self.flags.0);
        out.extend(self.basis_type);
        if let Some(name) = &self.name
            && put_vstring(out, name).is_err()
        {
            // Longer than strings of a handshake are, and read as such.
            let [low, high, ..] = name.len().to_le_bytes();
            out.extend_from_slice(&[0x80 | high, low]);
            out.extend_from_slice(name);
        }
    }
}

/// A short string may be longer in a record than in a handshake.
fn long_vstring<'a>(input: &mut Reader<'a>) -> Result<&'a [u8], ReadError> {
    let first = usize::from(input.byte()?);
    let length = if first < 0x80 { first } else { ((first & 0x7f) << 8) | usize::from(input.byte()?) };
    if length > NAME_MAX {
        return Err(Malformed::Vstring(length).into());
    }
    input.take(length)
}
