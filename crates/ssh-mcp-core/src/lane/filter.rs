//! Filters: one regular expression, and the lines of a stream it is asked about (`docs/subscriptions.md`, "Filter").
//!
//! The expression runs in linear time. Escape sequences are left out of what it sees, never out of what is delivered.

use std::{ops::Range, time::Duration};

use memchr::memchr2;
use regex::bytes::{Regex, RegexBuilder};

use crate::text::Escapes;

/// Memory a compiled filter may take.
const COMPILED: usize = 1 << 20;

/// An unfinished line is judged when it is this long, or has waited this long.
const LONGEST: usize = 4096;
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// A compiled filter.
#[derive(Debug, Clone)]
pub struct Filter {
    expression: Regex,
}

/// Why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// It has more characters than the server takes.
    #[error("the expression has more than {limit} characters")]
    TooLong {
        /// How many it takes.
        limit: usize,
    },
    /// Compiled it would be too large.
    #[error("the compiled expression would take more than 1 MiB")]
    TooLarge,
    /// It does not compile.
    #[error("{0}")]
    Syntax(String),
}

impl Filter {
    /// Compiles an expression of at most `longest` characters.
    ///
    /// # Errors
    /// See [`FilterError`].
    pub fn compile(expression: &str, longest: usize) -> Result<Self, FilterError> {
        if expression.chars().count() > longest {
            return Err(FilterError::TooLong { limit: longest });
        }
        // Where the text is more than one line, its anchors are those of the lines.
        let mut builder = RegexBuilder::new(expression);
        let compiled =
            builder.multi_line(true).crlf(true).size_limit(COMPILED).dfa_size_limit(COMPILED).build();
        match compiled {
            Ok(expression) => Ok(Self { expression }),
            Err(regex::Error::CompiledTooBig(_)) => Err(FilterError::TooLarge),
            Err(error) => {
                // The last line says what is wrong, those before it draw an arrow.
                let text = error.to_string();
                let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
                Err(FilterError::Syntax(last.trim_start_matches("error: ").to_owned()))
            }
        }
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        self.expression.as_str()
    }

    /// Whether a text without escape sequences matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        self.expression.is_match(text)
    }
}

/// The lines of a stream, as far as they have been seen.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Where the unfinished line begins.
    start: u64,
    /// Where it ends so far.
    at: u64,
    /// Its text so far, without escape sequences.
    text: Vec<u8>,
    /// Begun anew with each line: a line is judged alike wherever the search for it began, and a sequence that nothing ends
    /// hides no more than its line.
    escapes: Escapes,
    /// It ends with a carriage return; a line feed behind it would belong to it.
    after_return: bool,
    /// When its first byte came.
    since: Duration,
}

/// A line and whether it matched; the answer is whether to go on.
pub(super) type OnLine<'a> = &'a mut dyn FnMut(Range<u64>, bool) -> bool;

impl Lines {
    pub(super) fn from(at: u64) -> Self {
        Self { start: at, at, ..Self::default() }
    }

    /// Where the next bytes are to come from.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Where what has not been judged begins.
    pub(super) fn unjudged(&self) -> u64 {
        self.start
    }

    /// When the unfinished line has waited long enough.
    pub(super) fn deadline(&self) -> Option<Duration> {
        (self.at > self.start).then(|| self.since + LONGEST_WAIT)
    }

    /// Takes the bytes behind [`at`](Self::at) until they are used up, or `on_line` has enough.
    pub(super) fn take(&mut self, now: Duration, filter: &Filter, bytes: &[u8], on_line: OnLine<'_>) {
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            if self.after_return {
                // The line feed belongs to the line; anything else begins the next one.
                if *first == b'\n' {
                    rest = rest.get(1..).unwrap_or_default();
                    self.at += 1;
                }
                if !self.judge(filter, on_line) {
                    return;
                }
                continue;
            }
            if self.at == self.start {
                self.since = now;
            }
            let room = LONGEST - usize::try_from(self.at - self.start).unwrap_or(LONGEST).min(LONGEST);
            let near = rest.get(..room).unwrap_or(rest);
            let end = memchr2(b'\n', b'\r', near);
            let (line, behind) = rest.split_at(end.unwrap_or(near.len()));
            let escapes = &mut self.escapes;
            self.text.extend(line.iter().copied().filter(|byte| escapes.is_text(*byte)));
            self.at += line.len() as u64;
            rest = behind;
            let is_over = match (end, behind.first()) {
                (Some(_), Some(b'\r')) => {
                    self.at += 1;
                    self.after_return = true;
                    rest = behind.get(1..).unwrap_or_default();
                    false
                }
                (Some(_), _) => {
                    self.at += 1;
                    rest = behind.get(1..).unwrap_or_default();
                    true
                }
                (None, _) => near.len() == room,
            };
            if is_over && !self.judge(filter, on_line) {
                return;
            }
        }
    }

    /// Nothing more comes for now: judges the unfinished line.
    pub(super) fn finish(&mut self, filter: &Filter, on_line: OnLine<'_>) {
        if self.at > self.start {
            self.judge(filter, on_line);
        }
    }

    fn judge(&mut self, filter: &Filter, on_line: OnLine<'_>) -> bool {
        let matched = filter.matches(&self.text);
        self.text.clear();
        self.escapes = Escapes::default();
        self.after_return = false;
        let line = self.start..self.at;
        self.start = self.at;
        on_line(line, matched)
    }
}

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The lines that match, as text, when the bytes come in these pieces.
    fn matching(expression: &str, pieces: &[&[u8]]) -> Vec<String> {
        let filter = Filter::compile(expression, 1024).unwrap();
        let all = pieces.concat();
        let mut lines = Lines::from(0);
        let mut found = Vec::new();
        let mut on_line = |line: Range<u64>, matched: bool| {
            if matched {
                found
                    .push(String::from_utf8_lossy(&all[line.start as usize..line.end as usize]).into_owned());
            }
            true
        };
        for piece in pieces {
            lines.take(Duration::ZERO, &filter, piece, &mut on_line);
        }
        lines.finish(&filter, &mut on_line);
        assert_eq!(lines.at(), all.len() as u64);
        found
    }

    #[test]
    fn a_line_ends_at_any_of_the_three_endings() {
        assert_eq!(matching("a", &[b"a1\nb\r\na2\r\na3\ra4"]), ["a1\n", "a2\r\n", "a3\r", "a4"]);
        assert_eq!(matching("^$", &[b"\n\r\n\r"]), ["\n", "\r\n", "\r"]);
        assert_eq!(matching("a", &[b"a\r", b"\nb\n"]), ["a\r\n"]);
    }

    #[test]
    fn colours_do_not_hide_a_match_and_are_delivered() {
        assert_eq!(
            matching("^error: x$", &[b"\x1b[1;31mer", b"ror\x1b[0m: x\n"]),
            ["\x1b[1;31merror\x1b[0m: x\n"]
        );
        // A title that nothing ends.
        assert_eq!(matching("a", &[b"\x1b]0;a\na\n"]), ["a\n"]);
    }

    #[test]
    fn a_line_without_end_is_judged_in_pieces() {
        let long = [vec![b'x'; LONGEST - 1], b"y".to_vec(), b"rest\n".to_vec()].concat();
        assert_eq!(matching("y", &[&long]), [String::from_utf8(long[..LONGEST].to_vec()).unwrap()]);
    }

    #[test]
    fn who_has_enough_stops_behind_a_line() {
        let filter = Filter::compile("", 9).unwrap();
        let mut lines = Lines::from(7);
        lines.take(Duration::ZERO, &filter, b"one\ntwo\nthree", &mut |_, _| false);
        assert_eq!((lines.at(), lines.unjudged()), (11, 11));
    }

    #[test]
    fn what_waits_for_its_end_has_a_deadline() {
        let filter = Filter::compile("", 9).unwrap();
        let mut lines = Lines::from(0);
        assert_eq!(lines.deadline(), None);
        let at = Duration::from_secs(5);
        lines.take(at, &filter, b"login: ", &mut |_, _| true);
        lines.take(at * 2, &filter, b"x", &mut |_, _| true);
        assert_eq!(lines.deadline(), Some(at + LONGEST_WAIT));
        lines.finish(&filter, &mut |_, _| true);
        assert_eq!(lines.deadline(), None);
    }

    #[test]
    fn expressions_that_are_refused() {
        let refused = |text: &str| Filter::compile(text, 100).unwrap_err();
        assert_eq!(refused(&"x".repeat(101)), FilterError::TooLong { limit: 100 });
        assert_eq!(refused("(x{1000}){1000}"), FilterError::TooLarge);
        for text in ["(", "(?=x)", r"(x)\1"] {
            assert!(matches!(refused(text), FilterError::Syntax(why) if !why.is_empty()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn how_a_stream_is_cut_changes_no_line(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(0x1b), any::<u8>()], 0..60),
            cuts in proptest::collection::vec(0usize..60, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut from = 0;
            let mut pieces = Vec::new();
            for cut in cuts.into_iter().chain([bytes.len()]) {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            prop_assert_eq!(matching(".", &pieces), matching(".", &[&bytes]));
        }
    }
}
