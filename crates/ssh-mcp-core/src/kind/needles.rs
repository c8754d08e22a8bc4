//! Finding plain patterns in a terminal's output, with or without its escape sequences, however the output is cut.
//!
//! The match that ends first wins; of two that end at one byte, the pattern named first. What is kept between two
//! pieces is one byte less than the longest pattern, so the cost is that of one look at each byte per pattern.

use crate::text::Escapes;

/// The patterns and what they have seen of the stream.
#[derive(Debug)]
pub struct Needles<'a> {
    patterns: &'a [String],
    /// Bytes to keep: a pattern may straddle the border of two pieces by so many.
    keep: usize,
    /// The last bytes as they came.
    raw: Vec<u8>,
    /// The last bytes of text, and the offset each had.
    plain: Vec<u8>,
    places: Vec<u64>,
    escapes: Escapes,
    next: u64,
}

/// A pattern that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needle {
    /// Which of the patterns.
    pub pattern: usize,
    /// The offset just behind it.
    pub end: u64,
}

impl<'a> Needles<'a> {
    /// Patterns that have seen nothing; an empty one is never found.
    pub fn new(patterns: &'a [String]) -> Self {
        let longest = patterns.iter().map(String::len).max().unwrap_or_default();
        Self {
            patterns,
            keep: longest.saturating_sub(1),
            raw: Vec::new(),
            plain: Vec::new(),
            places: Vec::new(),
            escapes: Escapes::default(),
            next: 0,
        }
    }

    /// Looks at the bytes from offset `at` on. What was seen before counts as far as it joins them.
    pub fn look(&mut self, at: u64, bytes: &[u8]) -> Option<Needle> {
        if at != self.next {
            self.raw.clear();
            self.plain.clear();
            self.places.clear();
            self.escapes = Escapes::default();
        }
        self.next = at + bytes.len() as u64;

        self.raw.extend_from_slice(bytes);
        let raw_start = self.next - self.raw.len() as u64;
        let raw = first(self.patterns, &self.raw).map(|(end, n)| (raw_start + end as u64, n));
        for (place, byte) in (at..).zip(bytes) {
            if self.escapes.is_text(*byte) {
                self.plain.push(*byte);
                self.places.push(place);
            }
        }
        // Without a sequence in sight both are the same.
        let plain = match self.plain.len() == self.raw.len() && self.places.first() == Some(&raw_start) {
            true => None,
            false => first(self.patterns, &self.plain)
                .and_then(|(end, n)| Some((self.places.get(end.checked_sub(1)?)? + 1, n))),
        };
        let found = raw.into_iter().chain(plain).min();

        self.raw.drain(..self.raw.len().saturating_sub(self.keep));
        let seen = self.plain.len().saturating_sub(self.keep);
        self.plain.drain(..seen);
        self.places.drain(..seen);
        found.map(|(end, pattern)| Needle { pattern, end })
    }
}

/// The match that ends first: the place just behind it, and which pattern.
fn first(patterns: &[String], haystack: &[u8]) -> Option<(usize, usize)> {
    let found = patterns.iter().enumerate().filter_map(|(n, pattern)| {
        let end = find(haystack, pattern.as_bytes())?;
        Some((end, n))
    });
    found.min()
}

/// The place just behind the first occurrence.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let (head, tail) = needle.split_first()?;
    let mut from = 0;
    loop {
        from += haystack.get(from..)?.iter().position(|byte| byte == head)? + 1;
        if haystack.get(from..)?.starts_with(tail) {
            return Some(from + tail.len());
        }
    }
}

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(patterns: &[&str], text: &[u8], expected: Option<(usize, u64)>) {
        let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
        let found = Needles::new(&patterns).look(0, text).map(|found| (found.pattern, found.end));
        assert_eq!(found, expected, "{patterns:?} in {:?}", String::from_utf8_lossy(text));
    }

    #[test]
    fn the_match_that_ends_first_wins() {
        check(&["$ "], b"login: \r\nhost$ ", Some((0, 15)));
        check(&["b", "a"], b"xxab", Some((1, 3)));
        check(&["ab", "b"], b"ab", Some((0, 2)));
        check(&["aab"], b"aaab", Some((0, 4)));
        check(&["c"], b"ab", None);
        check(&[""], b"ab", None);
        check(&[], b"ab", None);
    }

    #[test]
    fn escape_sequences_neither_hide_nor_prevent_a_match() {
        check(&["done"], b"do\x1b[1mne\x1b[0m!", Some((0, 8)));
        check(&["\x1b[1m"], b"do\x1b[1mne", Some((0, 6)));
        check(&["ab"], b"a\x1b]0;a long title that says nothing at all\x07b", Some((0, 44)));
    }

    #[test]
    fn a_hole_in_the_stream_joins_nothing() {
        let patterns = ["ab".to_owned()];
        let mut needles = Needles::new(&patterns);
        assert_eq!(needles.look(0, b"a"), None);
        assert_eq!(needles.look(2, b"b"), None);
        assert_eq!(needles.look(3, b"ab"), Some(Needle { pattern: 0, end: 5 }));
    }

    proptest! {
        #[test]
        fn cutting_the_stream_anywhere_changes_nothing(
            text in "([ab]|\x1b\\[1m|\x1b\\]a\x07){0,40}",
            patterns in proptest::collection::vec("[ab]{1,5}", 1..4),
            cuts in proptest::collection::vec(0usize..160, 0..8),
        ) {
            let whole = Needles::new(&patterns).look(0, text.as_bytes());
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let mut needles = Needles::new(&patterns);
            let mut pieces = cuts.windows(2).map(|cut| (cut[0] as u64, &text.as_bytes()[cut[0]..cut[1]]));
            let found = pieces.find_map(|(at, piece)| needles.look(at, piece));
            prop_assert_eq!(found, whole);
        }
    }
}
