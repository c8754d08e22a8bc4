//! The taking half of the receiving side.

use super::sender::Stop;
use super::{Record, RoleError, Terms};
use crate::checksum::Digest;
use crate::negotiate::Protocol;
use crate::sums::SumHead;
use crate::token::{self, Token};
use crate::varint::{Index, IndexReader, Least, Reader};

/// The client of a download as it takes what the server sends behind its list.
///
/// ```text
/// Record -> Head -> Tokens -> Digest -> Record      a file
///        -> Statistics                              what the server counted
/// ```
pub struct Receiver {
    terms: Terms,
    tokens: token::Reader,
    indexes: IndexReader,
    step: Step,
    /// How many phases have ended.
    done: u8,
    /// The beginning of an item.
    pending: Vec<u8>,
    statistics: Statistics,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Record,
    Head { index: u32, head: SumHead },
    Tokens { index: u32 },
    Digest { index: u32 },
    Statistics,
    Ended,
}

/// What the answer to a request has to be, made by [`Generator::request`](super::Generator::request).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub(super) record: Record,
    pub(super) head: SumHead,
}

impl Expected {
    /// How the basis was cut.
    #[must_use]
    pub fn head(&self) -> &SumHead {
        &self.head
    }
}

/// What has come from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival<'a> {
    /// A file begins; in a dry run that is all of it.
    Begin {
        /// The entry.
        index: u32,
        /// How its basis was cut.
        head: SumHead,
    },
    /// A part of the file that began.
    Token(Token<'a>),
    /// The file ends.
    End {
        /// The entry.
        index: u32,
        /// What its content hashes to.
        digest: Digest,
    },
    /// So many phases have ended. That no request of such a phase is unanswered is for the caller to check.
    PhaseEnded(u8),
    /// The server has said everything.
    Finished(Statistics),
}

/// What one call took and gave.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken<'a> {
    /// Bytes of the input that are done with.
    pub used: usize,
    /// What has come. None: all of the input is used, and more is needed.
    pub arrival: Option<Arrival<'a>>,
}

/// What the server counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Bytes it read.
    pub read: i64,
    /// Bytes it wrote.
    pub written: i64,
    /// Bytes of all listed files.
    pub size: i64,
    /// Milliseconds it took to make the list.
    pub list_made: i64,
    /// Milliseconds it took to send the list.
    pub list_sent: i64,
}

/// After this phase come the statistics.
const LAST_PHASE: u8 = 3;

impl Receiver {
    /// Begins behind the list.
    ///
    /// # Errors
    /// The decompressor is not there.
    pub fn new(terms: Terms) -> Result<Self, RoleError> {
        Ok(Self {
            tokens: token::Reader::new(terms.agreed.compressor)?,
            terms,
            indexes: IndexReader::default(),
            step: Step::Record,
            done: 0,
            pending: Vec::new(),
            statistics: Statistics::default(),
        })
    }

    /// The next arrival out of `input`, from pieces of any size. `take` gives away what the answer for an index has to be: each
    /// request once, and nothing for an index that was not asked for, which is an error then.
    ///
    /// # Errors
    /// The server broke the protocol; nothing that follows has a meaning.
    pub fn next_arrival<'a>(
        &'a mut self,
        input: &'a [u8],
        take: &mut dyn FnMut(u32) -> Option<Expected>,
    ) -> Result<Taken<'a>, RoleError> {
        let mut used = 0;
        while !matches!(self.step, Step::Ended) {
            if let Step::Tokens { index } = self.step {
                let step = self.tokens.next_token(input.get(used..).unwrap_or_default())?;
                if step.token == Some(Token::End) {
                    self.step = Step::Digest { index };
                }
                return Ok(Taken { used: used + step.used, arrival: step.token.map(Arrival::Token) });
            }
            // Items are short; byte by byte none is read beyond its end.
            let Some(&byte) = input.get(used) else { break };
            self.pending.push(byte);
            used += 1;
            match self.advance(take) {
                Ok(arrival) => {
                    self.pending.clear();
                    if arrival.is_some() {
                        return Ok(Taken { used, arrival });
                    }
                }
                Err(Stop::Incomplete) => {}
                Err(Stop::Wrong(error)) => return Err(error),
            }
        }
        Ok(Taken { used, arrival: None })
    }

    fn advance(
        &mut self,
        take: &mut dyn FnMut(u32) -> Option<Expected>,
    ) -> Result<Option<Arrival<'static>>, Stop> {
        let mut item = Reader::new(&self.pending);
        match self.step {
            Step::Record => {
                let mut indexes = self.indexes;
                let index = match indexes.read(&mut item)? {
                    Index::Done => {
                        self.indexes = indexes;
                        return Ok(Some(self.end_phase()));
                    }
                    Index::File(index) => index,
                    other @ (Index::ListsEnd | Index::Statistics | Index::Directory(_)) => {
                        return Err(RoleError::Index(other).into());
                    }
                };
                let record = Record::read(&mut item)?;
                self.indexes = indexes;
                let expected = take(index).ok_or(RoleError::Index(Index::File(index)))?;
                if expected.record != record {
                    return Err(RoleError::Answer(index).into());
                }
                if self.terms.dry_run {
                    return Ok(Some(Arrival::Begin { index, head: expected.head }));
                }
                self.step = Step::Head { index, head: expected.head };
                Ok(None)
            }
            Step::Head { index, head } => {
                let Some(bytes) = self.pending.first_chunk::<{ SumHead::WIRE_LEN }>() else {
                    return Err(Stop::Incomplete);
                };
                if *bytes != head.encode() {
                    return Err(RoleError::Answer(index).into());
                }
                let appends = self.terms.appends() && self.done == 0;
                self.tokens.begin(if appends { 0 } else { head.count() });
                self.step = Step::Tokens { index };
                Ok(Some(Arrival::Begin { index, head }))
            }
            Step::Digest { index } => {
                let Some(bytes) = self.pending.first_chunk() else { return Err(Stop::Incomplete) };
                self.step = Step::Record;
                Ok(Some(Arrival::End { index, digest: Digest::from_bytes(*bytes) }))
            }
            Step::Statistics => {
                let mut next = || -> Result<i64, Stop> {
                    let value = item.varlong(Least::Three)?;
                    if value < 0 { Err(RoleError::Statistics(value).into()) } else { Ok(value) }
                };
                self.statistics = Statistics {
                    read: next()?,
                    written: next()?,
                    size: next()?,
                    list_made: next()?,
                    list_sent: next()?,
                };
                if self.terms.agreed.protocol >= Protocol::V31 {
                    self.step = Step::Record;
                    return Ok(None);
                }
                self.step = Step::Ended;
                Ok(Some(Arrival::Finished(self.statistics)))
            }
            Step::Tokens { .. } | Step::Ended => Ok(None),
        }
    }

    fn end_phase(&mut self) -> Arrival<'static> {
        self.done += 1;
        if self.done > LAST_PHASE {
            self.step = Step::Ended;
            return Arrival::Finished(self.statistics);
        }
        if self.done == LAST_PHASE {
            self.step = Step::Statistics;
        }
        Arrival::PhaseEnded(self.done)
    }
}
