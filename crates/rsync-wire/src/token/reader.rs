//! Tokens out of what arrives.

use flate2::{Decompress, FlushDecompress};
use zstd::stream::raw::{DParameter, Operation};

use super::{Compressor, FLUSH_TAIL, RECORD_MAX, SetUpError, Token, ZSTD_WINDOW_LOG_MAX, flag};

/// Reads the token streams of a connection, one file after the other, from pieces of any size.
///
/// Holds a record, a piece of output and the decompressor's history, however much a stream expands; what a file may become
/// in all is for the caller to limit.
pub struct Reader {
    decoder: Decoder,
    state: State,
    /// Number of blocks of the file's basis.
    count: u32,
    /// The last block that was matched.
    last: u32,
    /// Whether records came since the last match. Only zlibx has to know.
    in_literal: bool,
    /// The begun number, or the begun record of lz4.
    partial: Vec<u8>,
    output: Vec<u8>,
}

/// What one call took and gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'a> {
    /// Bytes of the input that are done with.
    pub used: usize,
    /// A token, which may have come without using input. None: all of the input is used and more is needed.
    pub token: Option<Token<'a>>,
}

/// Why a token stream cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The peer sent a flag that does not exist.
    #[error("token stream has unknown flag {0:#04x}")]
    UnknownFlag(u8),
    /// The peer names a block that the basis does not have.
    #[error("token names block {index} of {count}")]
    NoSuchBlock {
        /// The named block.
        index: i64,
        /// Number of blocks.
        count: u32,
    },
    /// The peer sent a record that the decompressor refuses.
    #[error("token stream has a {} record that cannot be decompressed", .0.name())]
    BadRecord(Compressor),
}

enum Decoder {
    Plain,
    Zlibx(Decompress),
    Zstd(Box<zstd::stream::raw::Decoder<'static>>),
    Lz4,
}

/// Between files, and then within one:
///
/// | state | goes to |
/// | --- | --- |
/// | `Idle` | `Token` by [`Reader::begin`] |
/// | `Token` | any of those below, `Idle` at the end |
/// | `Literal`, `Record` | `Token`, a record by way of `Drain` where its output is longer than the buffer |
/// | `Tail` | `Token` by way of `Drain` |
/// | `Number`, `Run` | `Token` |
#[derive(Debug, Clone, Copy)]
enum State {
    Idle,
    /// A flag, or a plain token, is next.
    Token,
    /// The rest of a token is next.
    Number(Number),
    /// The low half of a record's length is next.
    Length(u8),
    /// So much of a plain literal is to come.
    Literal(usize),
    /// So much of a record is to come.
    Record(usize),
    /// The decompressor may have more output for what it was given.
    Drain,
    /// So much of the flush's tail has been given to the decompressor.
    Tail(usize),
    /// So many matches follow the last one.
    Run(u16),
}

#[derive(Debug, Clone, Copy)]
enum Number {
    Match,
    Run,
    NearRun(u8),
}

/// A token before it borrows.
enum Found {
    Input { from: usize, to: usize },
    Output(usize),
    Match,
    End,
}

impl Reader {
    /// Begins a connection's streams.
    ///
    /// # Errors
    /// The compressor is the old zlib, or its decompressor cannot be set up.
    pub fn new(compressor: Option<Compressor>) -> Result<Self, SetUpError> {
        let decoder = match compressor {
            None => Decoder::Plain,
            Some(Compressor::Zlib) => return Err(SetUpError(Compressor::Zlib)),
            Some(Compressor::Zlibx) => Decoder::Zlibx(Decompress::new(false)),
            Some(Compressor::Zstd) => {
                let mut decoder =
                    zstd::stream::raw::Decoder::new().map_err(|_| SetUpError(Compressor::Zstd))?;
                decoder
                    .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))
                    .map_err(|_| SetUpError(Compressor::Zstd))?;
                Decoder::Zstd(Box::new(decoder))
            }
            Some(Compressor::Lz4) => Decoder::Lz4,
        };
        let output = match compressor {
            None => Vec::new(),
            Some(Compressor::Zlib | Compressor::Zlibx | Compressor::Zstd) => vec![0; OUTPUT],
            Some(Compressor::Lz4) => vec![0; LZ4_OUTPUT],
        };
        let state = State::Idle;
        Ok(Self { decoder, state, count: 0, last: 0, in_literal: false, partial: Vec::new(), output })
    }

    /// Begins a file whose sum head has so many blocks; 0 where there is no basis.
    pub fn begin(&mut self, count: u32) {
        self.state = State::Token;
        self.count = count;
        self.last = 0;
        self.in_literal = false;
        self.partial.clear();
        if let Decoder::Zlibx(inflate) = &mut self.decoder {
            inflate.reset(false);
        }
    }

    /// The next token. Between [`Token::End`] and [`Self::begin`] there is none.
    ///
    /// # Errors
    /// The peer broke the protocol; nothing that follows has a meaning.
    pub fn next_token<'a>(&'a mut self, input: &'a [u8]) -> Result<Step<'a>, ReadError> {
        let mut used = 0;
        let found = loop {
            let rest = input.get(used..).unwrap_or_default();
            let (taken, found) = self.step(rest, used)?;
            used += taken;
            if found.is_some() {
                break found;
            }
            let waits = match self.state {
                State::Idle => true,
                State::Drain | State::Tail(_) | State::Run(_) => false,
                State::Token | State::Number(_) | State::Length(_) | State::Literal(_) | State::Record(_) => {
                    used == input.len()
                }
            };
            if waits {
                break None;
            }
        };
        let token = found.map(|found| match found {
            Found::Input { from, to } => Token::Literal(input.get(from..to).unwrap_or_default()),
            Found::Output(len) => Token::Literal(self.output.get(..len).unwrap_or_default()),
            Found::Match => Token::Match(self.last),
            Found::End => Token::End,
        });
        Ok(Step { used, token })
    }

    /// One transition. `at` is where `rest` lies in the input.
    fn step(&mut self, rest: &[u8], at: usize) -> Result<(usize, Option<Found>), ReadError> {
        match self.state {
            State::Idle => Ok((0, None)),
            State::Token if rest.is_empty() => Ok((0, None)),
            State::Token => match self.decoder {
                Decoder::Plain => self.plain(rest),
                Decoder::Zlibx(_) | Decoder::Zstd(_) | Decoder::Lz4 => self.flag(rest),
            },
            State::Number(number) => self.number(number, rest),
            State::Length(high) => {
                let Some(&low) = rest.first() else { return Ok((0, None)) };
                self.state = match (usize::from(high) << 8 | usize::from(low), &self.decoder) {
                    (0, Decoder::Lz4) => return Err(ReadError::BadRecord(Compressor::Lz4)),
                    (0, Decoder::Plain | Decoder::Zlibx(_) | Decoder::Zstd(_)) => State::Token,
                    (len, _) => {
                        self.in_literal = true;
                        State::Record(len)
                    }
                };
                Ok((1, None))
            }
            State::Literal(left) => {
                let now = left.min(rest.len());
                self.state = if now == left { State::Token } else { State::Literal(left - now) };
                Ok((now, (now > 0).then_some(Found::Input { from: at, to: at + now })))
            }
            State::Record(_) if rest.is_empty() => Ok((0, None)),
            State::Record(left) => {
                let now = rest.get(..left.min(rest.len())).unwrap_or_default();
                if let Decoder::Lz4 = self.decoder {
                    return self.lz4(now, left);
                }
                let (read, written) = self.decompress(now)?;
                self.state = match left - read {
                    0 if written == self.output.len() => State::Drain,
                    0 => State::Token,
                    left => State::Record(left),
                };
                Ok((read, (written > 0).then_some(Found::Output(written))))
            }
            State::Drain => {
                let (_, written) = self.decompress(&[])?;
                if written < self.output.len() {
                    self.state = State::Token;
                }
                Ok((0, (written > 0).then_some(Found::Output(written))))
            }
            State::Tail(given) => {
                let (read, written) = self.decompress(FLUSH_TAIL.get(given..).unwrap_or_default())?;
                self.state = if given + read < FLUSH_TAIL.len() {
                    State::Tail(given + read)
                } else {
                    self.in_literal = false;
                    State::Drain
                };
                Ok((0, (written > 0).then_some(Found::Output(written))))
            }
            State::Run(left) => {
                self.last += 1;
                self.state = if left > 1 { State::Run(left - 1) } else { State::Token };
                Ok((0, Some(Found::Match)))
            }
        }
    }

    fn plain(&mut self, rest: &[u8]) -> Result<(usize, Option<Found>), ReadError> {
        let (used, number) = self.gather::<4>(rest);
        let Some(number) = number.map(i32::from_le_bytes) else { return Ok((used, None)) };
        let found = match usize::try_from(number) {
            Ok(0) => self.end(),
            Ok(len) => {
                self.state = State::Literal(len);
                None
            }
            Err(_) => Some(self.matched(!i64::from(number), 0)?),
        };
        Ok((used, found))
    }

    fn flag(&mut self, rest: &[u8]) -> Result<(usize, Option<Found>), ReadError> {
        let Some(&byte) = rest.first() else { return Ok((0, None)) };
        let low = byte & flag::LOW;
        let near = i64::from(self.last) + i64::from(low);
        if byte & !flag::LOW == flag::DATA {
            self.state = State::Length(low);
            return Ok((1, None));
        }
        if self.in_literal {
            if let Decoder::Zlibx(_) = self.decoder {
                // The flag itself is read when the literal is complete.
                self.state = State::Tail(0);
                return Ok((0, None));
            }
            self.in_literal = false;
        }
        let found = match byte {
            flag::END => self.end(),
            flag::MATCH => self.begin_number(Number::Match),
            flag::RUN => self.begin_number(Number::Run),
            flag::NEAR_MATCH..flag::NEAR_RUN => Some(self.matched(near, 0)?),
            flag::NEAR_RUN.. => self.begin_number(Number::NearRun(low)),
            other => return Err(ReadError::UnknownFlag(other)),
        };
        Ok((1, found))
    }

    fn begin_number(&mut self, number: Number) -> Option<Found> {
        self.state = State::Number(number);
        None
    }

    fn number(&mut self, number: Number, rest: &[u8]) -> Result<(usize, Option<Found>), ReadError> {
        let (used, token) = match number {
            Number::Match => {
                let (used, bytes) = self.gather::<4>(rest);
                (used, bytes.map(|index| (i64::from(i32::from_le_bytes(index)), 0)))
            }
            Number::Run => {
                let (used, bytes) = self.gather::<6>(rest);
                let run = bytes.map(|[a, b, c, d, more @ ..]| {
                    (i64::from(i32::from_le_bytes([a, b, c, d])), u16::from_le_bytes(more))
                });
                (used, run)
            }
            Number::NearRun(low) => {
                let (used, bytes) = self.gather::<2>(rest);
                let near = i64::from(self.last) + i64::from(low);
                (used, bytes.map(|more| (near, u16::from_le_bytes(more))))
            }
        };
        let found = token.map(|(first, more)| self.matched(first, more)).transpose()?;
        Ok((used, found))
    }

    /// Collects a number of `N` bytes.
    fn gather<const N: usize>(&mut self, rest: &[u8]) -> (usize, Option<[u8; N]>) {
        let missing = N.saturating_sub(self.partial.len()).min(rest.len());
        self.partial.extend(rest.iter().take(missing));
        match <[u8; N]>::try_from(self.partial.as_slice()) {
            Ok(number) => {
                self.partial.clear();
                (missing, Some(number))
            }
            Err(_) => (missing, None),
        }
    }

    fn matched(&mut self, index: i64, more: u16) -> Result<Found, ReadError> {
        let last = index + i64::from(more);
        let first = u32::try_from(index).ok().filter(|_| last < i64::from(self.count));
        let Some(first) = first else {
            let index = if index < 0 { index } else { last };
            return Err(ReadError::NoSuchBlock { index, count: self.count });
        };
        self.last = first;
        self.state = if more > 0 { State::Run(more) } else { State::Token };
        Ok(Found::Match)
    }

    fn end(&mut self) -> Option<Found> {
        self.state = State::Idle;
        Some(Found::End)
    }

    fn lz4(&mut self, now: &[u8], left: usize) -> Result<(usize, Option<Found>), ReadError> {
        if now.len() < left {
            self.partial.extend_from_slice(now);
            self.state = State::Record(left - now.len());
            return Ok((now.len(), None));
        }
        let record = if self.partial.is_empty() {
            now
        } else {
            self.partial.extend_from_slice(now);
            &self.partial
        };
        let len = lz4_flex::block::decompress_into(record, &mut self.output);
        self.partial.clear();
        self.state = State::Token;
        match len {
            Ok(0) | Err(_) => Err(ReadError::BadRecord(Compressor::Lz4)),
            Ok(len) => Ok((now.len(), Some(Found::Output(len)))),
        }
    }

    /// One call of the decompressor: bytes read and written. Refuses input of which nothing comes, as behind the end of a
    /// deflate stream.
    fn decompress(&mut self, input: &[u8]) -> Result<(usize, usize), ReadError> {
        let (done, compressor) = match &mut self.decoder {
            // These have nothing that goes on from record to record.
            Decoder::Plain | Decoder::Lz4 => (None, Compressor::Lz4),
            Decoder::Zlibx(inflate) => {
                let before = (inflate.total_in(), inflate.total_out());
                let status = inflate.decompress(input, &mut self.output, FlushDecompress::Sync).ok();
                let read = (inflate.total_in() - before.0) as usize;
                let written = (inflate.total_out() - before.1) as usize;
                (status.map(|_| (read, written)), Compressor::Zlibx)
            }
            Decoder::Zstd(decoder) => {
                let status = decoder.run_on_buffers(input, &mut self.output).ok();
                (status.map(|status| (status.bytes_read, status.bytes_written)), Compressor::Zstd)
            }
        };
        done.filter(|&done| input.is_empty() || done != (0, 0)).ok_or(ReadError::BadRecord(compressor))
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("state", &self.state)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

const OUTPUT: usize = 32 << 10;

/// What senders put into a record, 16383 bytes, and as much again.
const LZ4_OUTPUT: usize = 2 * (RECORD_MAX + 1) + 1024;
