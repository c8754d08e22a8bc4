//! The sending side: requests in, files out.

use super::{Record, RoleError, Terms};
use crate::checksum::{BlockHash, Digest, SeedOrder};
use crate::delta;
use crate::file_list::FileList;
use crate::io_errors::IoErrors;
use crate::mux::{Multiplexer, Notice};
use crate::negotiate::Protocol;
use crate::sums::{DEFAULT_LIMIT, SumHead, SumReader, Sums};
use crate::token;
use crate::varint::{Index, IndexReader, IndexWriter, ReadError, Reader};

/// The client of an upload, once its list is sent.
///
/// ```text
/// Record -> Head -> Sums -> asked       a request for a file
///        -> Deleted                      statistics of deletions
/// ```
///
/// *Invariant:* a file is asked for at most once in each of the two phases, and only if it was listed as one.
pub struct Sender {
    terms: Terms,
    tokens: token::Writer,
    requests: IndexReader,
    answers: IndexWriter,
    /// For each entry whether it is a file, and in which phases it was asked for.
    files: Vec<u8>,
    step: Step,
    /// How many phases have ended.
    done: u8,
    /// The beginning of an item.
    pending: Vec<u8>,
    /// What went wrong since the list was sent.
    errors: IoErrors,
    deleted: Deletions,
    scratch: Vec<u8>,
}

enum Step {
    Record,
    Head { index: u32, record: Record },
    Sums { index: u32, record: Record, reader: SumReader },
    Deletions,
    Ended,
}

/// What the server wants.
#[derive(Debug)]
pub enum Ask {
    /// A file. The caller answers with [`Sender::begin`] and what follows that, or with [`Sender::refuse`], before it goes on.
    File(Box<Request>),
    /// An item was changed, or would be, without data; or, in a dry run, a file would be asked for. It is answered already.
    Item {
        /// The entry.
        index: u32,
        /// What became of it.
        record: Record,
    },
    /// So many phases have ended: after the first every file was asked for that differs, after the second those that arrived
    /// wrong were asked for again.
    PhaseEnded(u8),
    /// The dialogue is over; nothing more is written.
    Finished,
}

/// A request for a file.
#[derive(Debug)]
pub struct Request {
    /// Which entry.
    pub index: u32,
    /// What was said about it.
    pub record: Record,
    /// The sums of what the server has of it. There are none in append mode.
    pub sums: Sums,
    /// Whether the server overwrites those blocks as it writes the file.
    pub basis: delta::Basis,
    /// The offset in bytes from which on the file is wanted. Without append mode, 0.
    pub append_from: u64,
    head: SumHead,
}

/// How many things the server deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deletions {
    /// Regular files.
    pub files: u32,
    /// Directories.
    pub directories: u32,
    /// Symlinks.
    pub links: u32,
    /// Devices.
    pub devices: u32,
    /// Fifos and sockets.
    pub specials: u32,
}

const IS_FILE: u8 = 0x80;
/// Requests are taken in two phases.
const PHASES: u8 = 2;
const DELETIONS_MAX: i32 = 1 << 28;

impl Sender {
    /// Begins behind the list, which is the one that was sent. `level` is how hard the compressor tries, as in
    /// [`token::Writer::new`].
    ///
    /// # Errors
    /// The compressor is not there.
    pub fn new(terms: Terms, list: &FileList, level: Option<i32>) -> Result<Self, RoleError> {
        let files = (0..list.len() as u32).map(|index| if list.is_file(index) { IS_FILE } else { 0 });
        Ok(Self {
            tokens: token::Writer::new(terms.agreed.compressor, level)?,
            terms,
            requests: IndexReader::default(),
            answers: IndexWriter::default(),
            files: files.collect(),
            step: Step::Record,
            done: 0,
            pending: Vec::new(),
            errors: IoErrors::NONE,
            deleted: Deletions::default(),
            scratch: Vec::new(),
        })
    }

    /// What block sums are made with.
    #[must_use]
    pub fn block_hash(&self) -> BlockHash {
        block_hash(&self.terms)
    }

    /// What the server counted of its deletions, if it said so.
    #[must_use]
    pub fn deletions(&self) -> Deletions {
        self.deleted
    }

    /// The dialogue is over: [`Ask::Finished`] was given.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.step, Step::Ended)
    }

    /// The next thing the server wants out of `input`, which is shortened by what was read. `None` when more bytes are needed.
    /// What needs no decision is answered into `out`.
    ///
    /// # Errors
    /// The server broke the protocol; nothing that follows has a meaning.
    pub fn next_ask(&mut self, input: &mut &[u8], out: &mut Multiplexer) -> Result<Option<Ask>, RoleError> {
        loop {
            if let Step::Sums { reader, .. } = &mut self.step {
                let used = reader.push(input);
                *input = input.get(used..).unwrap_or_default();
                if !reader.is_complete() {
                    return Ok(None);
                }
                let Step::Sums { index, record, reader } = std::mem::replace(&mut self.step, Step::Record)
                else {
                    return Ok(None);
                };
                let Ok(sums) = reader.finish() else { return Ok(None) };
                let head = *sums.head();
                return Ok(Some(self.asked(index, record, head, sums)));
            }
            // Items are short; byte by byte none is read beyond its end.
            let Some((&byte, rest)) = input.split_first() else { return Ok(None) };
            if matches!(self.step, Step::Ended) {
                return Ok(None);
            }
            self.pending.push(byte);
            *input = rest;
            match self.advance(out) {
                Ok(ask) => {
                    self.pending.clear();
                    if ask.is_some() {
                        return Ok(ask);
                    }
                }
                Err(Stop::Incomplete) => {}
                Err(Stop::Wrong(error)) => return Err(error),
            }
        }
    }

    /// Begins the answer to a request: what follows are its [`literal`](Self::literal)s and [`matched`](Self::matched) blocks,
    /// and its [`end`](Self::end).
    ///
    /// # Errors
    /// None that a request of [`next_ask`](Self::next_ask) leads to.
    pub fn begin(&mut self, request: &Request, out: &mut Multiplexer) -> Result<(), RoleError> {
        self.echo(request.index, &request.record, out)?;
        out.put_data(&request.head.encode());
        Ok(())
    }

    /// Bytes of the file that was begun.
    ///
    /// # Errors
    /// The compressor failed.
    pub fn literal(&mut self, bytes: &[u8], out: &mut Multiplexer) -> Result<(), RoleError> {
        self.tokens.literal(bytes, &mut self.scratch)?;
        self.flush(out);
        Ok(())
    }

    /// A block of the file that was begun, which the server has.
    ///
    /// # Errors
    /// The compressor failed.
    pub fn matched(&mut self, block: u32, out: &mut Multiplexer) -> Result<(), RoleError> {
        self.tokens.matched(block, &mut self.scratch)?;
        self.flush(out);
        Ok(())
    }

    /// Ends the file that was begun. A digest that is [`spoilt`](Digest::spoilt) makes the server throw it away.
    ///
    /// # Errors
    /// The compressor failed.
    pub fn end(&mut self, digest: Digest, out: &mut Multiplexer) -> Result<(), RoleError> {
        self.tokens.end(&mut self.scratch)?;
        self.flush(out);
        out.put_data(digest.as_bytes());
        Ok(())
    }

    /// Says that a file cannot be sent, because of these errors.
    pub fn refuse(&mut self, request: &Request, errors: IoErrors, out: &mut Multiplexer) {
        self.add_errors(errors);
        out.put_notice(Notice::NoSend(request.index));
    }

    /// Errors that the server is told of at the end.
    pub fn add_errors(&mut self, errors: IoErrors) {
        self.errors |= errors;
    }

    fn flush(&mut self, out: &mut Multiplexer) {
        out.put_data(&self.scratch);
        self.scratch.clear();
    }

    fn echo(&mut self, index: u32, record: &Record, out: &mut Multiplexer) -> Result<(), RoleError> {
        self.answers.put(&mut self.scratch, Index::File(index))?;
        record.put(&mut self.scratch);
        self.flush(out);
        Ok(())
    }

    /// Reads the item the step waits for.
    fn advance(&mut self, out: &mut Multiplexer) -> Result<Option<Ask>, Stop> {
        match &self.step {
            Step::Record => {
                let mut item = Reader::new(&self.pending);
                let mut requests = self.requests;
                let index = requests.read(&mut item)?;
                let index = match index {
                    Index::Done => {
                        self.requests = requests;
                        return Ok(Some(self.end_phase(out)));
                    }
                    Index::Statistics => {
                        self.requests = requests;
                        self.step = Step::Deletions;
                        return Ok(None);
                    }
                    Index::File(index) if self.done <= PHASES => index,
                    Index::File(_) | Index::ListsEnd | Index::Directory(_) => {
                        return Err(RoleError::Index(index).into());
                    }
                };
                let Some(&state) = self.files.get(index as usize) else {
                    return Err(RoleError::Index(Index::File(index)).into());
                };
                let record = Record::read(&mut item)?;
                self.requests = requests;
                if !record.is_transfer() {
                    self.echo(index, &record, out)?;
                    return Ok(Some(Ask::Item { index, record }));
                }
                let phase = 1 << self.done;
                if state & IS_FILE == 0 {
                    return Err(RoleError::NoFile(index).into());
                }
                if self.done >= PHASES || state & phase != 0 {
                    return Err(RoleError::OutOfTurn(index).into());
                }
                if let Some(state) = self.files.get_mut(index as usize) {
                    *state |= phase;
                }
                if self.terms.dry_run {
                    self.echo(index, &record, out)?;
                    return Ok(Some(Ask::Item { index, record }));
                }
                self.step = Step::Head { index, record };
                Ok(None)
            }
            Step::Head { .. } => {
                let Some(bytes) = self.pending.first_chunk() else { return Err(Stop::Incomplete) };
                let head = SumHead::decode(bytes, self.terms.agreed.checksum).map_err(RoleError::from)?;
                let Step::Head { index, record } = std::mem::replace(&mut self.step, Step::Record) else {
                    return Ok(None);
                };
                if self.appends() || head.count() == 0 {
                    return Ok(Some(self.asked(index, record, head, Sums::none())));
                }
                let reader = SumReader::new(head, DEFAULT_LIMIT).map_err(RoleError::from)?;
                self.step = Step::Sums { index, record, reader };
                Ok(None)
            }
            Step::Deletions => {
                let mut item = Reader::new(&self.pending);
                let mut counts = [0; 5];
                for count in &mut counts {
                    let value = item.varint()?;
                    *count = u32::try_from(value)
                        .ok()
                        .filter(|_| value <= DELETIONS_MAX)
                        .ok_or(RoleError::Statistics(i64::from(value)))?;
                }
                let [files, directories, links, devices, specials] = counts;
                self.deleted = Deletions { files, directories, links, devices, specials };
                self.step = Step::Record;
                Ok(None)
            }
            Step::Sums { .. } | Step::Ended => Ok(None),
        }
    }

    /// What arrived wrong is asked for again like any other file.
    fn appends(&self) -> bool {
        self.terms.appends() && self.done == 0
    }

    fn asked(&self, index: u32, record: Record, head: SumHead, sums: Sums) -> Ask {
        let basis = self.terms.basis_of(&record);
        let append_from = if self.appends() { head.basis_len() } else { 0 };
        Ask::File(Box::new(Request { index, record, sums, basis, append_from, head }))
    }

    /// Answers the end of a phase. The generator's last one has no answer.
    fn end_phase(&mut self, out: &mut Multiplexer) -> Ask {
        self.done += 1;
        let last = if self.terms.agreed.protocol >= Protocol::V31 { 5 } else { 4 };
        if self.done == last {
            self.step = Step::Ended;
            return Ask::Finished;
        }
        if self.done == PHASES + 1 && !self.errors.is_empty() {
            out.put_notice(Notice::IoErrors(self.errors));
        }
        // The end of a phase changes no state of the indexes.
        out.put_data(&[0]);
        Ask::PhaseEnded(self.done)
    }
}

/// What block sums are made with.
pub(super) fn block_hash(terms: &Terms) -> BlockHash {
    let order = if terms.agreed.flags.has_seed_first() { SeedOrder::First } else { SeedOrder::Last };
    BlockHash { algorithm: terms.agreed.checksum, seed: terms.agreed.seed, order }
}

/// Why an item was not read.
pub(super) enum Stop {
    Incomplete,
    Wrong(RoleError),
}

impl<E: Into<RoleError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Wrong(error.into())
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Incomplete => Self::Incomplete,
            ReadError::Wrong(wrong) => Self::Wrong(wrong.into()),
        }
    }
}
