//! A piece of a byte history: contiguous bytes and where each came from.
//!
//! A segment whose bytes share one origin says so once. One with both keeps a bit per byte: an eighth of the bytes,
//! however the remote side interleaves them, where a list of runs would cost many times the data for single bytes.

use std::ops::Range;

/// Which output of a command a byte came from. Terminals and serial lines have only the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Standard output, or everything of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which bytes of a stream are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// All, in the order they came.
    Merged,
    /// Standard output only.
    Stdout,
    /// Standard error only.
    Stderr,
}

impl View {
    /// Whether bytes of this origin are meant.
    pub fn shows(self, origin: Origin) -> bool {
        match (self, origin) {
            (View::Merged, _) | (View::Stdout, Origin::Stdout) | (View::Stderr, Origin::Stderr) => true,
            (View::Stdout, Origin::Stderr) | (View::Stderr, Origin::Stdout) => false,
        }
    }
}

/// Bytes from one absolute offset on.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) start: u64,
    bytes: Vec<u8>,
    origins: Origins,
}

#[derive(Debug)]
enum Origins {
    Uniform(Origin),
    /// One bit per byte, lowest first: set for standard error, clear or not there for standard output.
    Mixed(Vec<u64>),
}

impl Segment {
    pub(super) fn new(start: u64, capacity: usize) -> Self {
        Self { start, bytes: Vec::with_capacity(capacity), origins: Origins::Uniform(Origin::Stdout) }
    }

    /// An empty one in the memory of another.
    pub(super) fn reusing(start: u64, capacity: usize, mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        bytes.reserve_exact(capacity);
        Self { start, bytes, origins: Origins::Uniform(Origin::Stdout) }
    }

    /// Its memory.
    pub(super) fn into_memory(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn end(&self) -> u64 {
        self.start + offset(self.bytes.len())
    }

    /// Appends `more`, growing to `most` bytes of capacity at the outside.
    pub(super) fn push(&mut self, origin: Origin, more: &[u8], most: usize) {
        let at = self.bytes.len();
        let needed = at + more.len();
        if needed > self.bytes.capacity() {
            let wanted = (2 * self.bytes.capacity()).clamp(needed, most.max(needed));
            self.bytes.reserve_exact(wanted - at);
        }
        self.bytes.extend_from_slice(more);
        match &mut self.origins {
            Origins::Uniform(uniform) if at == 0 => *uniform = origin,
            Origins::Uniform(uniform) if *uniform == origin => {}
            Origins::Uniform(uniform) => {
                let mut bits = Vec::new();
                match *uniform {
                    Origin::Stdout => set(&mut bits, at..needed),
                    Origin::Stderr => set(&mut bits, 0..at),
                }
                self.origins = Origins::Mixed(bits);
            }
            Origins::Mixed(bits) => match origin {
                Origin::Stdout => {}
                Origin::Stderr => set(bits, at..needed),
            },
        }
    }

    /// The part of `[from, to)` that is in here, relative to the segment.
    pub(super) fn clip(&self, from: u64, to: u64) -> Range<usize> {
        let within = |at: u64| {
            usize::try_from(at.saturating_sub(self.start)).unwrap_or(usize::MAX).min(self.bytes.len())
        };
        within(from)..within(to)
    }

    /// The bytes of a range; empty where the range is not in here.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    /// The stretches of one origin in a range, in order.
    pub(super) fn runs(&self, range: Range<usize>) -> impl Iterator<Item = (Origin, Range<usize>)> + '_ {
        let Range { start: mut at, end } = range;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let (origin, to) = match &self.origins {
                Origins::Uniform(origin) => (*origin, end),
                Origins::Mixed(bits) => run(bits, at, end),
            };
            let run = at..to;
            at = to;
            Some((origin, run))
        })
    }

    /// How many bytes of a range a view shows.
    pub(super) fn count(&self, view: View, range: Range<usize>) -> usize {
        match (&self.origins, view) {
            (_, View::Merged) => range.len(),
            (Origins::Uniform(origin), _) if view.shows(*origin) => range.len(),
            (Origins::Uniform(_), View::Stdout | View::Stderr) => 0,
            (Origins::Mixed(bits), View::Stderr) => ones(bits, range),
            (Origins::Mixed(bits), View::Stdout) => range.len() - ones(bits, range),
        }
    }

    /// Where the newest `count` bytes of a view begin in a range that has as many.
    pub(super) fn newest(&self, view: View, count: usize, range: Range<usize>) -> usize {
        let (mut low, mut high) = (range.start, range.end);
        while high - low > 1 {
            let middle = low.midpoint(high);
            if self.count(view, middle..range.end) >= count {
                low = middle;
            } else {
                high = middle;
            }
        }
        if self.count(view, high..range.end) >= count { high } else { low }
    }

    /// Gives back what was set aside for growing.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        let words = self.bytes.len().div_ceil(WORD);
        if let Origins::Mixed(bits) = &mut self.origins {
            bits.truncate(words);
            bits.shrink_to_fit();
        }
    }

    /// A copy of the part from `from` on, in memory of its own size.
    pub(super) fn suffix(&self, from: u64) -> Self {
        let range = self.clip(from, u64::MAX);
        let mut rest = Self::new(self.start + offset(range.start), range.len());
        for (origin, run) in self.runs(range.clone()) {
            rest.push(origin, self.bytes(run), range.len());
        }
        rest
    }

    #[cfg(test)]
    #[cfg(not(ssh_mcp_loom))]
    pub(super) fn footprint(&self) -> usize {
        let origins = match &self.origins {
            Origins::Uniform(_) => 0,
            Origins::Mixed(bits) => bits.capacity() * size_of::<u64>(),
        };
        size_of::<Self>() + self.bytes.capacity() + origins
    }
}

/// The origin at `at`, and where its stretch ends, at most `end`.
fn run(bits: &[u64], at: usize, end: usize) -> (Origin, usize) {
    let stderr = bits.get(at / WORD).is_some_and(|word| word >> (at % WORD) & 1 == 1);
    // Look for the first bit of the other kind, a word at a time.
    let flip = if stderr { u64::MAX } else { 0 };
    let mut next = at;
    while next < end {
        let word = bits.get(next / WORD).copied().unwrap_or(0) ^ flip;
        let others = word >> (next % WORD);
        if others != 0 {
            next += others.trailing_zeros() as usize;
            break;
        }
        next = (next / WORD + 1) * WORD;
    }
    (if stderr { Origin::Stderr } else { Origin::Stdout }, next.min(end))
}

fn set(bits: &mut Vec<u64>, range: Range<usize>) {
    if bits.len() < range.end.div_ceil(WORD) {
        bits.resize(range.end.div_ceil(WORD), 0);
    }
    for (index, mask) in masks(range) {
        if let Some(word) = bits.get_mut(index) {
            *word |= mask;
        }
    }
}

fn ones(bits: &[u64], range: Range<usize>) -> usize {
    masks(range)
        .map(|(index, mask)| (bits.get(index).copied().unwrap_or(0) & mask).count_ones() as usize)
        .sum()
}

/// The words a range of bits touches, and which of their bits are in it.
fn masks(range: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    (range.start / WORD..range.end.div_ceil(WORD)).map(move |index| {
        let from = range.start.saturating_sub(index * WORD);
        let to = (range.end - index * WORD).min(WORD);
        // An empty range touches a word with none of its bits.
        let ones = u64::MAX.checked_shr((WORD - (to - from)) as u32).unwrap_or(0);
        (index, ones << from)
    })
}

/// A length as a distance between offsets.
pub(super) fn offset(length: usize) -> u64 {
    // No memory is larger than 64 bits can say.
    u64::try_from(length).unwrap_or(u64::MAX)
}

const WORD: usize = 64;
