//! Tokens from the sender's operations.

use flate2::{Compress, FlushCompress};
use zstd::stream::raw::{Operation, OutBuffer};
use zstd::zstd_safe;

use super::{Compressor, FLUSH_TAIL, RECORD_MAX, SetUpError, ZSTD_LEVEL_MAX, flag};
use crate::delta::LITERAL_MAX;

/// Writes the token streams of a connection, one file after the other.
pub struct Writer {
    encoder: Encoder,
    /// Matches that are not written yet: the first, and how many follow it.
    run: Option<(u32, u16)>,
    /// The last block that was written.
    last: u32,
    /// Compressed bytes of the literal that is being written.
    pending: Vec<u8>,
    /// Whether a literal is being written.
    in_literal: bool,
    scratch: Vec<u8>,
}

enum Encoder {
    Plain,
    Zlibx(Compress),
    Zstd(Box<zstd::stream::raw::Encoder<'static>>),
    Lz4,
}

/// Why a token cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The caller named a block that no file has.
    #[error("block index {0} is beyond 2^31 - 2")]
    BlockIndex(u32),
    /// The compressor failed.
    #[error("compressing with {} failed", .0.name())]
    Compressor(Compressor),
}

impl Writer {
    /// Begins a connection's streams. A level out of the compressor's range is taken to its nearest; lz4 has none.
    ///
    /// # Errors
    /// The compressor is the old zlib, or cannot be set up.
    pub fn new(compressor: Option<Compressor>, level: Option<i32>) -> Result<Self, SetUpError> {
        let encoder = match compressor {
            None => Encoder::Plain,
            Some(Compressor::Zlib) => return Err(SetUpError(Compressor::Zlib)),
            Some(Compressor::Zlibx) => {
                let level = level.unwrap_or(ZLIB_LEVEL).clamp(0, 9).unsigned_abs();
                Encoder::Zlibx(Compress::new(flate2::Compression::new(level), false))
            }
            Some(Compressor::Zstd) => {
                let level = level.unwrap_or(ZSTD_LEVEL).clamp(zstd_safe::min_c_level(), ZSTD_LEVEL_MAX);
                Encoder::Zstd(Box::new(
                    zstd::stream::raw::Encoder::new(level).map_err(|_| SetUpError(Compressor::Zstd))?,
                ))
            }
            Some(Compressor::Lz4) => Encoder::Lz4,
        };
        let scratch = match compressor {
            None => Vec::new(),
            Some(Compressor::Zlib | Compressor::Zlibx | Compressor::Zstd) => vec![0; SCRATCH],
            Some(Compressor::Lz4) => vec![0; lz4_flex::block::get_maximum_output_size(RECORD_MAX)],
        };
        Ok(Self { encoder, run: None, last: 0, pending: Vec::new(), in_literal: false, scratch })
    }

    /// Appends a literal of any length. With zlibx and zstd some of it is held back until the next match or end.
    ///
    /// # Errors
    /// The compressor failed.
    pub fn literal(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), WriteError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.write_run(out);
        self.in_literal = true;
        match &mut self.encoder {
            Encoder::Plain => {
                for piece in bytes.chunks(LITERAL_MAX) {
                    out.extend_from_slice(&(piece.len() as u32).to_le_bytes());
                    out.extend_from_slice(piece);
                }
            }
            Encoder::Lz4 => {
                for piece in bytes.chunks(RECORD_MAX) {
                    lz4(piece, &mut self.scratch, out)?;
                }
            }
            Encoder::Zlibx(deflate) => {
                let mut rest = bytes;
                loop {
                    let written = run(deflate, &mut rest, &mut self.scratch, FlushCompress::None)?;
                    self.pending.extend_from_slice(written);
                    // A flush would take output that is left here for its own, and end with it.
                    if rest.is_empty() && written.len() < SCRATCH {
                        break;
                    }
                }
            }
            Encoder::Zstd(encoder) => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let status = encoder
                        .run_on_buffers(rest, &mut self.scratch)
                        .map_err(|_| WriteError::Compressor(Compressor::Zstd))?;
                    rest = rest.get(status.bytes_read..).unwrap_or_default();
                    self.pending.extend(self.scratch.iter().take(status.bytes_written));
                }
            }
        }
        self.write_full_records(out);
        Ok(())
    }

    /// Appends a match. With a compressor it is held back for as long as matches follow each other.
    ///
    /// # Errors
    /// The index is beyond 2^31 - 2, or the compressor failed.
    pub fn matched(&mut self, index: u32, out: &mut Vec<u8>) -> Result<(), WriteError> {
        if index >= i32::MAX.cast_unsigned() {
            return Err(WriteError::BlockIndex(index));
        }
        if let Encoder::Plain = self.encoder {
            // Block 0 is -1, block 1 is -2: what complementing the index gives.
            out.extend_from_slice(&(!index).to_le_bytes());
            return Ok(());
        }
        self.end_literal(out)?;
        self.run = match self.run {
            Some((first, more)) if more < u16::MAX && first + u32::from(more) + 1 == index => {
                Some((first, more + 1))
            }
            Some(_) | None => {
                self.write_run(out);
                Some((index, 0))
            }
        };
        Ok(())
    }

    /// Ends the file with all that was held back, and begins the next.
    ///
    /// # Errors
    /// The compressor failed.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<(), WriteError> {
        self.end_literal(out)?;
        self.write_run(out);
        self.last = 0;
        match &mut self.encoder {
            Encoder::Plain => out.extend_from_slice(&[0; 4]),
            Encoder::Zlibx(deflate) => {
                deflate.reset();
                out.push(flag::END);
            }
            Encoder::Zstd(_) | Encoder::Lz4 => out.push(flag::END),
        }
        Ok(())
    }

    fn end_literal(&mut self, out: &mut Vec<u8>) -> Result<(), WriteError> {
        if !std::mem::take(&mut self.in_literal) {
            return Ok(());
        }
        match &mut self.encoder {
            Encoder::Plain | Encoder::Lz4 => {}
            Encoder::Zlibx(deflate) => {
                // A call that begins with output left over may give only that. So the flush that counts is one that begins
                // with none and does not fill the scratch; one too many is an empty block.
                let mut flush = FlushCompress::Sync;
                loop {
                    let written = run(deflate, &mut &[][..], &mut self.scratch, flush)?;
                    self.pending.extend_from_slice(written);
                    flush = match (written.len() < SCRATCH, flush) {
                        (true, FlushCompress::Sync) => break,
                        (true, _) => FlushCompress::Sync,
                        (false, _) => FlushCompress::None,
                    };
                }
                if !self.pending.ends_with(&FLUSH_TAIL) {
                    return Err(WriteError::Compressor(Compressor::Zlibx));
                }
                self.pending.truncate(self.pending.len() - FLUSH_TAIL.len());
            }
            Encoder::Zstd(encoder) => loop {
                let mut to = OutBuffer::around(self.scratch.as_mut_slice());
                let left = encoder.flush(&mut to).map_err(|_| WriteError::Compressor(Compressor::Zstd))?;
                self.pending.extend_from_slice(to.as_slice());
                if left == 0 {
                    break;
                }
            },
        }
        for piece in self.pending.chunks(RECORD_MAX) {
            record(piece, out);
        }
        self.pending.clear();
        Ok(())
    }

    /// Writes what fills a record and cannot be the end of a flush.
    fn write_full_records(&mut self, out: &mut Vec<u8>) {
        let spare = self.pending.len().saturating_sub(FLUSH_TAIL.len());
        let whole = spare - spare % RECORD_MAX;
        for piece in self.pending.get(..whole).unwrap_or_default().chunks(RECORD_MAX) {
            record(piece, out);
        }
        self.pending.drain(..whole);
    }

    fn write_run(&mut self, out: &mut Vec<u8>) {
        let Some((first, more)) = self.run.take() else { return };
        let near = first.checked_sub(self.last).filter(|&near| near <= u32::from(flag::LOW));
        match (near, more) {
            (Some(near), 0) => out.push(flag::NEAR_MATCH | near as u8),
            (Some(near), _) => out.push(flag::NEAR_RUN | near as u8),
            (None, 0) => out.push(flag::MATCH),
            (None, _) => out.push(flag::RUN),
        }
        if near.is_none() {
            out.extend_from_slice(&first.to_le_bytes());
        }
        if more > 0 {
            out.extend_from_slice(&more.to_le_bytes());
        }
        self.last = first + u32::from(more);
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let compressor = match self.encoder {
            Encoder::Plain => None,
            Encoder::Zlibx(_) => Some(Compressor::Zlibx),
            Encoder::Zstd(_) => Some(Compressor::Zstd),
            Encoder::Lz4 => Some(Compressor::Lz4),
        };
        f.debug_struct("Writer")
            .field("compressor", &compressor)
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}

/// One call of the deflater; takes what it read off `rest`.
fn run<'a>(
    deflate: &mut Compress,
    rest: &mut &[u8],
    scratch: &'a mut [u8],
    flush: FlushCompress,
) -> Result<&'a [u8], WriteError> {
    let before = (deflate.total_in(), deflate.total_out());
    deflate.compress(rest, scratch, flush).map_err(|_| WriteError::Compressor(Compressor::Zlibx))?;
    let (read, written) = (deflate.total_in() - before.0, deflate.total_out() - before.1);
    *rest = rest.get(read as usize..).unwrap_or_default();
    scratch.get(..written as usize).ok_or(WriteError::Compressor(Compressor::Zlibx))
}

/// One record, or two halves of it where it does not become short enough.
fn lz4(piece: &[u8], scratch: &mut [u8], out: &mut Vec<u8>) -> Result<(), WriteError> {
    let len = lz4_flex::block::compress_into(piece, scratch)
        .map_err(|_| WriteError::Compressor(Compressor::Lz4))?;
    match scratch.get(..len) {
        Some(block) if len <= RECORD_MAX => record(block, out),
        Some(_) | None => {
            let (first, second) = piece.split_at(piece.len() / 2);
            lz4(first, scratch, out)?;
            lz4(second, scratch, out)?;
        }
    }
    Ok(())
}

/// A record of at most [`RECORD_MAX`] bytes.
fn record(bytes: &[u8], out: &mut Vec<u8>) {
    let [.., high, low] = bytes.len().to_be_bytes();
    out.extend_from_slice(&[flag::DATA | high, low]);
    out.extend_from_slice(bytes);
}

const ZLIB_LEVEL: i32 = 6;

const ZSTD_LEVEL: i32 = 3;

const SCRATCH: usize = 16 << 10;
