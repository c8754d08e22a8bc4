//! File indexes: differences to the last one, so that a walk over a list costs a byte per file.

use super::{Malformed, ReadError, Reader};

/// What an index on the wire says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Index {
    /// The file at this place of the sorted list, below 2^31.
    File(u32),
    /// The end of a phase (-1).
    Done,
    /// The end of all file lists (-2), only with incremental recursion.
    ListsEnd,
    /// Statistics of deletions follow (-3).
    Statistics,
    /// The list of this directory follows (-101 minus the number), only with incremental recursion.
    Directory(u32),
}

impl Index {
    fn try_from_number(number: i64) -> Result<Self, Malformed> {
        let wrong = Malformed::Index(number);
        match i32::try_from(number).map_err(|_| wrong)? {
            -1 => Ok(Self::Done),
            -2 => Ok(Self::ListsEnd),
            -3 => Ok(Self::Statistics),
            file @ 0.. => Ok(Self::File(file.cast_unsigned())),
            directory @ ..=-101 => Ok(Self::Directory((directory + 101).unsigned_abs())),
            -100..=-4 => Err(wrong),
        }
    }

    fn number(self) -> i64 {
        match self {
            Self::Done => -1,
            Self::ListsEnd => -2,
            Self::Statistics => -3,
            Self::File(file) => i64::from(file),
            Self::Directory(directory) => -101 - i64::from(directory),
        }
    }
}

/// The numbers the next difference counts from: one for files, one for the magnitudes of negative indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Last {
    file: i64,
    negative: i64,
}

const START: Last = Last { file: -1, negative: 1 };
const MAX: i64 = i32::MAX as i64;

/// Writes the indexes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexWriter(Last);

impl Default for IndexWriter {
    fn default() -> Self {
        Self(START)
    }
}

impl IndexWriter {
    /// Appends an index.
    ///
    /// # Errors
    /// The number does not fit 31 bits; nothing was written.
    pub fn put(&mut self, out: &mut Vec<u8>, index: Index) -> Result<(), Malformed> {
        let number = index.number();
        if number.abs() > MAX {
            return Err(Malformed::Index(number));
        }
        let last = match index {
            Index::Done => {
                out.push(0);
                return Ok(());
            }
            Index::File(_) => &mut self.0.file,
            Index::ListsEnd | Index::Statistics | Index::Directory(_) => {
                out.push(0xff);
                &mut self.0.negative
            }
        };
        let magnitude = number.abs();
        let difference = magnitude - *last;
        *last = magnitude;
        match (u8::try_from(difference), u16::try_from(difference)) {
            (Ok(byte @ 1..=253), _) => out.push(byte),
            (_, Ok(word @ 0..=0x7fff)) => {
                out.push(0xfe);
                out.extend_from_slice(&word.to_be_bytes());
            }
            _ => {
                let [high, rest @ ..] = (magnitude as u32).to_be_bytes();
                let [c, b, a] = rest;
                out.extend_from_slice(&[0xfe, high | 0x80, a, b, c]);
            }
        }
        Ok(())
    }
}

/// Reads the indexes of one direction.
///
/// A failed read changes nothing, so the item may be read again when it is complete; a record that holds more than the
/// index is read with a copy that replaces the original at the record's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexReader(Last);

impl Default for IndexReader {
    fn default() -> Self {
        Self(START)
    }
}

impl IndexReader {
    /// The next index.
    ///
    /// # Errors
    /// The bytes end early, are no difference, or lead to a number that is no index.
    pub fn read(&mut self, input: &mut Reader<'_>) -> Result<Index, ReadError> {
        let (is_negative, first) = match input.byte()? {
            0 => return Ok(Index::Done),
            0xff => (true, input.byte()?),
            first => (false, first),
        };
        let last = if is_negative { &mut self.0.negative } else { &mut self.0.file };
        let magnitude = match first {
            1..=0xfd => *last + i64::from(first),
            0xfe => match (input.byte()?, input.byte()?) {
                (high @ 0..0x80, low) => *last + i64::from(u16::from_be_bytes([high, low])),
                (high, a) => {
                    let (b, c) = (input.byte()?, input.byte()?);
                    i64::from(u32::from_le_bytes([a, b, c, high & 0x7f]))
                }
            },
            0 | 0xff => return Err(Malformed::IndexByte(first).into()),
        };
        // Refused as well: a file before the first, and a negative number that is none (0) or that has its own byte (-1).
        let least = if is_negative { 2 } else { 0 };
        if magnitude > MAX || magnitude < least {
            return Err(Malformed::Index(if is_negative { -magnitude } else { magnitude }).into());
        }
        let index = Index::try_from_number(if is_negative { -magnitude } else { magnitude })?;
        *last = magnitude;
        Ok(index)
    }
}
