//! The sender's search: what of a source the other side already has.
//!
//! [`Search`] takes the sums of the basis, is fed the source in pieces of any size and gives [`Op`]s, of which it holds back
//! no more than about a block and [`LITERAL_MAX`] bytes. Rules of matching are in `docs/rsync-wire-delta.md`, *Matching*.
//!
//! *Invariant:* the operations of a search, one after the other, are the source, whatever the sums say. Sums of a hostile
//! peer can make a delta large, not wrong and not slow: strong sums that are taken in vain are paid for by the bytes that
//! went by, and when they are spent a position counts as unmatched.

use std::ops::Range;

use crate::checksum::{BlockHash, Rolling};
use crate::sums::Sums;

/// One step of making the source out of the basis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op<'a> {
    /// Bytes that the basis lacks, [`LITERAL_MAX`] at most and never none.
    Literal(&'a [u8]),
    /// The block of this index.
    Match(u32),
}

/// Where the receiving side writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Basis {
    /// Into a file of its own.
    Kept,
    /// Into the basis itself, so that blocks before the place that is written are gone.
    Overwritten,
}

/// What a search has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Bytes given as literals.
    pub literal: u64,
    /// Bytes given as matches.
    pub matched: u64,
    /// Positions whose rolling sum was looked up, because the filter let it through.
    pub lookups: u64,
    /// Strong sums that were taken of windows.
    pub strong_sums: u64,
    /// Blocks whose strong sum was compared with a window's.
    pub candidates: u64,
    /// Positions given up because too much had been tried in vain.
    pub given_up: u64,
}

/// Finds the blocks of a basis in a source.
#[derive(Debug)]
pub struct Search {
    sums: Sums,
    hash: BlockHash,
    basis: Basis,
    index: Index,
    /// The part of the source that is not given yet, behind some that is.
    buffer: Vec<u8>,
    /// Offset of the buffer in the source.
    offset: u64,
    /// Where the literal begins that is not given yet.
    literal: usize,
    /// Where the window begins; from `literal` to here nothing matched.
    at: usize,
    window: Window,
    /// A match at the window, which the literal before it has to precede: index and length.
    found: Option<(u32, usize)>,
    source: Source,
    /// The block behind the last match.
    expected: u32,
    /// Bytes hashed or compared in vain.
    wasted: u64,
    work: Work,
}

/// The rolling sum at the window: `Stale -> Ready -> Tested`, and on to `Ready` or `Tested` of a later position.
#[derive(Debug, Clone, Copy)]
enum Window {
    /// The window was set anew, or is not full.
    Stale,
    /// The window may match.
    Ready(Rolling),
    /// The window matches nothing.
    Tested(Rolling),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// More may come.
    Open,
    /// All is here.
    Ended,
    /// All is here and the short last block has been looked for.
    Searched,
}

impl Search {
    /// Begins at the start of a source. `hash` is what the sums were made with.
    pub fn new(sums: Sums, hash: BlockHash, basis: Basis) -> Self {
        let index = Index::new(&sums);
        Self {
            sums,
            hash,
            basis,
            index,
            buffer: Vec::new(),
            offset: 0,
            literal: 0,
            at: 0,
            window: Window::Stale,
            found: None,
            source: Source::Open,
            expected: 0,
            wasted: 0,
            work: Work::default(),
        }
    }

    /// Takes the next bytes of the source. Take all operations before the next push, or they pile up.
    pub fn push(&mut self, bytes: &[u8]) {
        // The remainder is moved only when it is the smaller half, so tiny pieces do not move it again and again.
        if self.literal >= self.buffer.len() / 2 {
            self.buffer.drain(..self.literal);
            self.offset += self.literal as u64;
            self.at -= self.literal;
            self.literal = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Says that the source ends here.
    pub fn finish(&mut self) {
        if self.source == Source::Open {
            self.source = Source::Ended;
        }
    }

    /// The next operation, if the bytes so far allow it. After [`Self::finish`], none means that the source is given in full.
    pub fn next_op(&mut self) -> Option<Op<'_>> {
        let literal = loop {
            if self.at - self.literal >= LITERAL_MAX {
                break self.take_literal();
            }
            if let Some((index, len)) = self.found {
                if self.literal < self.at {
                    break self.take_literal();
                }
                self.found = None;
                self.at += len;
                self.literal = self.at;
                self.window = Window::Stale;
                self.expected = index.saturating_add(1);
                self.work.matched += len as u64;
                return Some(Op::Match(index));
            }
            self.scan();
            if self.found.is_some() || self.at - self.literal >= LITERAL_MAX {
                continue;
            }
            match self.source {
                Source::Open => return None,
                Source::Ended => self.search_end(),
                Source::Searched if self.literal < self.at => break self.take_literal(),
                Source::Searched => return None,
            }
        };
        self.work.literal += literal.len() as u64;
        self.buffer.get(literal).map(Op::Literal)
    }

    /// What has been done so far.
    pub fn work(&self) -> Work {
        self.work
    }

    fn take_literal(&mut self) -> Range<usize> {
        let from = self.literal;
        self.literal = self.at.min(from + LITERAL_MAX);
        from..self.literal
    }

    /// Moves the window to the next match, to the longest literal, or to the end of the buffer.
    fn scan(&mut self) {
        let len = self.sums.head().block_len() as usize;
        let longest = self.literal + LITERAL_MAX;
        if self.index.is_empty() {
            // The only block may be a short one, which is looked for at the end.
            let short = self.sums.head().remainder() as usize;
            self.at = self.at.max(self.buffer.len().saturating_sub(short).min(longest));
            return;
        }
        loop {
            match self.window {
                Window::Stale => match self.buffer.get(self.at..self.at + len) {
                    Some(window) => self.window = Window::Ready(Rolling::of(window)),
                    None => return,
                },
                Window::Ready(rolling) => {
                    if let Some(index) = self.candidate(rolling.value(), len) {
                        self.found = Some((index, len));
                        return;
                    }
                    self.window = Window::Tested(rolling);
                }
                Window::Tested(rolling) => {
                    let to = longest.min(self.buffer.len().saturating_sub(len));
                    let leaving = self.buffer.get(self.at..to).unwrap_or_default();
                    let entering = self.buffer.get(self.at + len..).unwrap_or_default();
                    if leaving.is_empty() {
                        return;
                    }
                    let (steps, window) = self.index.roll(rolling, len as u32, leaving, entering);
                    self.at += steps;
                    self.window = window;
                }
            }
        }
    }

    /// A block of full length equal to the window, which has this rolling sum.
    fn candidate(&mut self, rolling: u32, len: usize) -> Option<u32> {
        self.work.lookups += 1;
        let first = self.first_usable();
        let expected = Some(self.expected).filter(|&index| {
            index >= first
                && self.index.holds(index)
                && self.sums.rolling().get(index as usize) == Some(&rolling)
        });
        let mut others = self.index.equal(rolling, first).peekable();
        if expected.is_none() && others.peek().is_none() {
            drop(others);
            self.index.absent = Some(rolling);
            return None;
        }
        if self.wasted > WASTE_AT_ONCE + WASTE_PER_BYTE * (self.offset + self.at as u64) {
            self.work.given_up += 1;
            return None;
        }
        let window = self.buffer.get(self.at..self.at + len)?;
        let strong = self.hash.strong(window);
        let strong = strong.prefix(self.sums.head().strong_len() as usize);
        self.work.strong_sums += 1;
        let mut compared = 0;
        let found = expected.into_iter().chain(others.take(MAX_CANDIDATES)).find(|&index| {
            compared += 1;
            self.sums.strong(index) == Some(strong)
        });
        self.work.candidates += compared;
        if found.is_none() {
            self.wasted += len as u64 + compared * WASTE_PER_CANDIDATE;
        }
        found
    }

    /// Looks for the short last block at the end of the source; what lies before it matches nothing.
    fn search_end(&mut self) {
        self.source = Source::Searched;
        let head = self.sums.head();
        let len = head.remainder() as usize;
        let last = head.count().checked_sub(1).filter(|&last| len > 0 && last >= self.first_usable_at(len));
        let tail = self.buffer.len().checked_sub(len).filter(|&from| from >= self.at);
        if let (Some(last), Some(from)) = (last, tail) {
            let window = self.buffer.get(from..).unwrap_or_default();
            if self.sums.rolling().get(last as usize) == Some(&Rolling::of(window).value()) {
                self.work.strong_sums += 1;
                self.work.candidates += 1;
                let strong = self.hash.strong(window);
                if self.sums.strong(last) == Some(strong.prefix(head.strong_len() as usize)) {
                    self.at = from;
                    self.found = Some((last, len));
                    return;
                }
            }
        }
        self.at = self.buffer.len();
    }

    /// The first block that is still there when the window is written.
    fn first_usable(&self) -> u32 {
        self.first_usable_from(self.offset + self.at as u64)
    }

    /// The same for the last `len` bytes of the buffer.
    fn first_usable_at(&self, len: usize) -> u32 {
        self.first_usable_from(self.offset + self.buffer.len().saturating_sub(len) as u64)
    }

    fn first_usable_from(&self, written: u64) -> u32 {
        match self.basis {
            Basis::Kept => 0,
            Basis::Overwritten => {
                let len = u64::from(self.sums.head().block_len().max(1));
                u32::try_from(written.div_ceil(len)).unwrap_or(u32::MAX)
            }
        }
    }
}

/// The blocks of full length by their rolling sums, in flat arrays.
///
/// Rolling sums are mixed by a bijection of 32 bits. The highest bits of a mixed sum are its place in the filter and its
/// bucket; the entries, mixed sum and index, are sorted, so equal sums lie side by side in the order of their blocks, and a
/// bucket that somebody filled on purpose is searched in logarithmic time.
#[derive(Debug)]
struct Index {
    filter: Vec<u64>,
    filter_shift: u32,
    /// Where a bucket begins in the entries, and at last where they end.
    buckets: Vec<u32>,
    bucket_shift: u32,
    entries: Vec<u64>,
    /// The sum that was last let through and not found. A long stretch of equal bytes has one sum at all its positions.
    absent: Option<u32>,
}

impl Index {
    fn new(sums: &Sums) -> Self {
        let head = sums.head();
        let full = head.count() - u32::from(head.remainder() > 0 && head.count() > 0);
        let mut entries: Vec<u64> =
            sums.rolling().iter().zip(0..full).map(|(&rolling, index)| entry(mix(rolling), index)).collect();
        entries.sort_unstable();

        let bits = full.max(1).ilog2();
        let filter_bits = (bits + 8).clamp(MIN_FILTER_BITS, MAX_FILTER_BITS);
        let bucket_bits = bits.clamp(1, MAX_BUCKET_BITS);
        let (filter_shift, bucket_shift) = (32 - filter_bits, 32 - bucket_bits);
        let mut filter = vec![0u64; if entries.is_empty() { 0 } else { 1 << (filter_bits - 6) }];
        let mut buckets = Vec::with_capacity((1 << bucket_bits) + 1);
        for (at, &entry) in entries.iter().enumerate() {
            let mixed = (entry >> 32) as u32;
            let bit = mixed >> filter_shift;
            if let Some(word) = filter.get_mut((bit >> 6) as usize) {
                *word |= 1 << (bit & 63);
            }
            while buckets.len() <= (mixed >> bucket_shift) as usize {
                buckets.push(at as u32);
            }
        }
        buckets.resize((1 << bucket_bits) + 1, entries.len() as u32);
        Self { filter, filter_shift, buckets, bucket_shift, entries, absent: None }
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a block has full length.
    fn holds(&self, index: u32) -> bool {
        (index as usize) < self.entries.len()
    }

    /// The blocks with a rolling sum, in order, beginning with `first`.
    fn equal(&self, rolling: u32, first: u32) -> impl Iterator<Item = u32> {
        let mixed = mix(rolling);
        let bucket = (mixed >> self.bucket_shift) as usize;
        let (from, to) = match self.buckets.get(bucket..) {
            Some([from, to, ..]) => (*from as usize, *to as usize),
            Some(_) | None => (0, 0),
        };
        let entries = self.entries.get(from..to).unwrap_or_default();
        let from = entries.partition_point(|&other| other < entry(mixed, first));
        let equal = entries.get(from..).unwrap_or_default();
        equal.iter().take_while(move |&&other| (other >> 32) as u32 == mixed).map(|&other| other as u32)
    }

    /// Moves a window of `len` bytes, one byte at least, to the next position that the filter lets through, or over all
    /// of `leaving`.
    fn roll(&self, mut rolling: Rolling, len: u32, leaving: &[u8], entering: &[u8]) -> (usize, Window) {
        let (filter, shift) = (self.filter.as_slice(), self.filter_shift);
        for (step, (&leaves, &enters)) in leaving.iter().zip(entering).enumerate() {
            rolling.roll(len, leaves, enters);
            let bit = mix(rolling.value()) >> shift;
            if filter.get((bit >> 6) as usize).is_some_and(|word| word >> (bit & 63) & 1 != 0)
                && self.absent != Some(rolling.value())
            {
                return (step + 1, Window::Ready(rolling));
            }
        }
        (leaving.len(), Window::Tested(rolling))
    }
}

#[inline]
const fn mix(rolling: u32) -> u32 {
    rolling.wrapping_mul(0x9e37_79b1)
}

const fn entry(mixed: u32, index: u32) -> u64 {
    (mixed as u64) << 32 | index as u64
}

/// The longest literal that every server takes, in bytes.
pub const LITERAL_MAX: usize = 32_768;

/// Blocks of one rolling sum that are compared with a window.
const MAX_CANDIDATES: usize = 1024;

/// What may be hashed and compared in vain: at once, for each byte of the source, and the price of a comparison in bytes.
const WASTE_AT_ONCE: u64 = 4 << 20;
const WASTE_PER_BYTE: u64 = 16;
const WASTE_PER_CANDIDATE: u64 = 16;

/// Up to 32768 blocks 128 places each at least, so that fewer than one position in a hundred is looked up in vain. 8 KiB at
/// least, within the first level of a cache, and 512 KiB at most, within the second.
const MIN_FILTER_BITS: u32 = 16;
const MAX_FILTER_BITS: u32 = 22;
const MAX_BUCKET_BITS: u32 = 24;

#[cfg(test)]
mod tests;
