//! Token streams: literals and matches as they go over the wire, plain or compressed.
//!
//! Layouts are in `docs/rsync-wire-delta.md`, *Tokens*. A [`Writer`] and a [`Reader`] live as long as the connection, because
//! zstd's history goes on from file to file. Deliberately absent: the old `zlib`, whose history also takes in matched blocks.

mod reader;
mod writer;

pub use reader::{ReadError, Reader, Step};
pub use writer::{WriteError, Writer};

use crate::negotiate::Compressor;

/// One step of making a file out of its basis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// Bytes of the file.
    Literal(&'a [u8]),
    /// The block of this index, which is below the count of the file's sum head.
    Match(u32),
    /// The end of the file; its digest follows.
    End,
}

/// The compressor or decompressor could not be set up, or is not spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} cannot be set up", .0.name())]
pub struct SetUpError(pub Compressor);

mod flag {
    pub(super) const END: u8 = 0x00;
    pub(super) const MATCH: u8 = 0x20;
    pub(super) const RUN: u8 = 0x21;
    pub(super) const DATA: u8 = 0x40;
    pub(super) const NEAR_MATCH: u8 = 0x80;
    pub(super) const NEAR_RUN: u8 = 0xc0;
    /// What a near match, a near run or the high half of a length carries beside the flag.
    pub(super) const LOW: u8 = 0x3f;
}

/// The longest compressed record.
const RECORD_MAX: usize = 0x3fff;

/// What a sync flush ends with; it does not go over the wire.
const FLUSH_TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// 8 MiB, which is what zstd uses up to level 19.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

const ZSTD_LEVEL_MAX: i32 = 19;

#[cfg(test)]
mod tests;
