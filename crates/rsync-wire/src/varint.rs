//! Numbers, short strings and file indexes as they stand in the stream.
//!
//! Writers append to a `Vec<u8>`. A [`Reader`] walks over a byte slice and tells [`ReadError::Incomplete`], which is
//! mended by more bytes, apart from [`ReadError::Wrong`], which is not. Items are small, so a machine that meets
//! `Incomplete` parses the item again from its start. The layouts are in `docs/rsync-wire.md`, *Numbers*.

mod index;

pub use index::{Index, IndexReader, IndexWriter};

/// Why an item could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The bytes so far are the beginning of an item.
    #[error("the item is not complete")]
    Incomplete,
    /// No further byte makes this an item.
    #[error(transparent)]
    Wrong(#[from] Malformed),
}

/// What is wrong with an item of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The byte announces a number of more than 32 bits.
    #[error("byte {0:#04x} begins no 32-bit number")]
    Varint(u8),
    /// The byte announces a number of more than nine bytes.
    #[error("byte {0:#04x} begins no 64-bit number")]
    Varlong(u8),
    /// A file index is beyond 31 bits, or is a negative number without a meaning.
    #[error("{0} is no file index")]
    Index(i64),
    /// The byte stands where the difference of a file index must be and is none.
    #[error("byte {0:#04x} is no difference of file indexes")]
    IndexByte(u8),
    /// A short string is longer than [`VSTRING_MAX`].
    #[error("string of {0} bytes where 255 are the most")]
    Vstring(usize),
}

/// The least number of bytes a varlong takes: sizes use three, times use four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Least {
    /// For sizes and statistics.
    Three,
    /// For times.
    Four,
}

impl Least {
    fn bytes(self) -> usize {
        match self {
            Self::Three => 3,
            Self::Four => 4,
        }
    }
}

/// A string could not be written because it is longer than [`VSTRING_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("string of {0} bytes where 255 are the most")]
pub struct TooLong(pub usize);

/// The longest short string that is read or written.
pub const VSTRING_MAX: usize = 255;

/// Appends 32 bits, low byte first.
pub fn put_int32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends 16 bits, low byte first.
pub fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a number of 32 bits in one to five bytes.
pub fn put_varint(out: &mut Vec<u8>, value: i32) {
    let bytes = value.to_le_bytes();
    let bits = u32::BITS - value.cast_unsigned().leading_zeros();
    put_prefixed(out, &bytes, bits.div_ceil(8).max(1) as usize, 1);
}

/// Appends a number of 64 bits in three (or four) to nine bytes.
pub fn put_varlong(out: &mut Vec<u8>, value: i64, least: Least) {
    let bytes = value.to_le_bytes();
    let bits = u64::BITS - value.cast_unsigned().leading_zeros();
    let least = least.bytes();
    put_prefixed(out, &bytes, (bits.div_ceil(8) as usize).max(least), least);
}

/// Appends a string with its length before it, which takes one byte below 0x80 and two otherwise.
///
/// # Errors
/// The string is longer than [`VSTRING_MAX`].
pub fn put_vstring(out: &mut Vec<u8>, text: &[u8]) -> Result<(), TooLong> {
    match u8::try_from(text.len()) {
        Ok(length @ 0..0x80) => out.push(length),
        Ok(length) => out.extend_from_slice(&[0x80, length]),
        Err(_) => return Err(TooLong(text.len())),
    }
    out.extend_from_slice(text);
    Ok(())
}

/// The lowest `count` of `bytes` behind a first byte whose leading ones say how many more than `least` there are. The
/// highest of them moves into the first byte where the ones leave room.
fn put_prefixed(out: &mut Vec<u8>, bytes: &[u8], count: usize, least: usize) {
    let more = count - least;
    let Some((top, low)) = bytes.get(..count).and_then(<[u8]>::split_last) else { return };
    if u32::from(*top) < 1 << (7 - more) {
        out.push(ones(more) | top);
        out.extend_from_slice(low);
    } else {
        out.push(ones(more + 1));
        out.extend_from_slice(low);
        out.push(*top);
    }
}

/// A byte with that many leading ones.
fn ones(count: usize) -> u8 {
    !(0xff_u8.checked_shr(count as u32).unwrap_or(0))
}

/// A walk over received bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Reader<'a> {
    /// A walk from the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, length: bytes.len() }
    }

    /// How many bytes have been read.
    #[must_use]
    pub fn consumed(&self) -> usize {
        self.length - self.rest.len()
    }

    /// What has not been read.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], ReadError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(ReadError::Incomplete)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next byte.
    ///
    /// # Errors
    /// There is none.
    pub fn byte(&mut self) -> Result<u8, ReadError> {
        let (&byte, rest) = self.rest.split_first().ok_or(ReadError::Incomplete)?;
        self.rest = rest;
        Ok(byte)
    }

    /// Sixteen bits, low byte first.
    ///
    /// # Errors
    /// The bytes end early.
    pub fn u16(&mut self) -> Result<u16, ReadError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Thirty-two bits, low byte first.
    ///
    /// # Errors
    /// The bytes end early.
    pub fn int32(&mut self) -> Result<i32, ReadError> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    /// A number of 32 bits in one to five bytes.
    ///
    /// # Errors
    /// The bytes end early, or the first announces more than five.
    pub fn varint(&mut self) -> Result<i32, ReadError> {
        let first = self.byte()?;
        let more = first.leading_ones();
        if more > 4 {
            return Err(Malformed::Varint(first).into());
        }
        let value = self.prefixed(first, more, more as usize)?;
        Ok((value as u32).cast_signed())
    }

    /// A number of 64 bits in three (or four) to nine bytes.
    ///
    /// # Errors
    /// The bytes end early, or the first announces more than nine.
    pub fn varlong(&mut self, least: Least) -> Result<i64, ReadError> {
        let first = self.byte()?;
        let more = first.leading_ones().min(6);
        let low = least.bytes() - 1 + more as usize;
        if low > 8 {
            return Err(Malformed::Varlong(first).into());
        }
        Ok((self.prefixed(first, more, low)? as u64).cast_signed())
    }

    /// A string with its length before it.
    ///
    /// # Errors
    /// The bytes end early, or the length is above [`VSTRING_MAX`].
    pub fn vstring(&mut self) -> Result<&'a [u8], ReadError> {
        let first = usize::from(self.byte()?);
        let length = if first < 0x80 { first } else { ((first & 0x7f) << 8) | usize::from(self.byte()?) };
        if length > VSTRING_MAX {
            return Err(Malformed::Vstring(length).into());
        }
        self.take(length)
    }

    /// `low` bytes, low byte first, below the value bits of the first byte. Bits above the width of the caller's number
    /// are the caller's to drop.
    fn prefixed(&mut self, first: u8, more: u32, low: usize) -> Result<u128, ReadError> {
        let mut value = u128::from(first & !ones(more as usize));
        for &byte in self.take(low)?.iter().rev() {
            value = (value << 8) | u128::from(byte);
        }
        Ok(value)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let (&taken, rest) = self.rest.split_first_chunk().ok_or(ReadError::Incomplete)?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
