//! What of a shell's output nobody has drained yet, and how a call takes its part of it.
//!
//! A shell has one drained cursor for all callers. A call looks at what lies behind it and claims what it shows with one
//! compare-and-swap, so two calls never get the same bytes (`docs/lifecycle.md` 6.4), but for what the first of them keeps
//! back. Text never ends inside a character whose rest may still come. Waiting is not here, nor is what an answer looks like.

use ssh_mcp_core::{
    cursor::Cursor,
    history::{ByteHistory, Mark},
    text,
};

/// A piece of output behind the drained cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Offset of its first byte.
    pub(super) start: u64,
    /// What a claim drains up to: just behind its last byte, or before the bytes that are kept back.
    pub(super) end: u64,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// Bytes that were held and not drained, this piece among them.
    pub(super) unread: u64,
    /// Bytes before it that had fallen out of the history before anybody drained them.
    pub(super) lost: u64,
    /// Older bytes still held that it passes over.
    pub(super) skipped: u64,
    /// Whether the budget kept something out of it.
    pub(super) cut: Cut,
}

/// Whether a budget kept something back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// It did not.
    Nothing,
    /// It did.
    Truncated,
}

/// Whether a call drains what it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drain {
    /// The next call goes on behind it.
    Shown,
    /// The next call sees it again.
    Nothing,
}

impl Piece {
    /// The newest `max` bytes behind `at` and before `until`.
    pub(super) fn newest(history: &ByteHistory, at: u64, until: u64, max: usize) -> Self {
        let Mark { base, end, .. } = history.mark();
        let end = end.min(until);
        let budget = max.saturating_add(LOOK_AROUND);
        let from = end.saturating_sub(budget as u64).max(base).max(at);
        let length = usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX).min(budget);
        let window = history.read(from, length);
        // A history that has dropped bytes since its mark was taken gives as many, but from further on.
        let within = usize::try_from(end.saturating_sub(window.start)).unwrap_or(usize::MAX);
        let looked_at = window.bytes.get(..within).unwrap_or(&window.bytes);
        let over = window.ended && end >= window.end;
        let partial = if over { 0 } else { text::incomplete_suffix(looked_at) };
        let whole = looked_at.get(..looked_at.len() - partial).unwrap_or_default();
        let older = whole.len().saturating_sub(max);
        let kept = whole.get(older..).unwrap_or_default();
        // What began before the first byte is no text without its beginning.
        let orphans = if window.start + older as u64 > at { text::orphaned_prefix(kept) } else { 0 };
        let bytes = kept.get(orphans..).unwrap_or_default();

        let start = window.start.max(at) + (older + orphans) as u64;
        let (lost, skipped) = match start > at {
            // A character whose beginning has gone is gone as well.
            true if window.start == window.base && older == 0 => (start - at, 0),
            true => {
                let lost = window.base.saturating_sub(at);
                (lost, start - at - lost)
            }
            false => (0, 0),
        };
        Self {
            start,
            end: start + bytes.len() as u64,
            bytes: bytes.to_vec(),
            unread: window.end.saturating_sub(at.max(window.base)),
            lost,
            skipped,
            cut: if skipped > 0 { Cut::Truncated } else { Cut::Nothing },
        }
    }

    /// The oldest `max` bytes behind `at`, and at least one character if there is one.
    pub(super) fn oldest(history: &ByteHistory, at: u64, max: usize) -> Self {
        let window = history.read(at, max.saturating_add(LOOK_AROUND));
        let orphans = if window.start > at { text::orphaned_prefix(&window.bytes) } else { 0 };
        let start = window.start.max(at) + orphans as u64;
        let mut bytes = window.bytes;
        bytes.drain(..orphans);
        let more = window.next < window.end;
        let partial = if window.ended && !more { 0 } else { text::incomplete_suffix(&bytes) };
        bytes.truncate(bytes.len() - partial);
        let kept = fit(&bytes, max);
        let cut = more || kept < bytes.len();
        bytes.truncate(kept);
        Self {
            start,
            end: start + kept as u64,
            bytes,
            unread: window.end.saturating_sub(at.max(window.base)),
            lost: start - at,
            skipped: 0,
            cut: if cut { Cut::Truncated } else { Cut::Nothing },
        }
    }

    /// The same bytes, of which a claim leaves those at the end that one of the patterns begins with: their rest may
    /// still come. Plain bytes are compared, so a beginning with an escape sequence within is not recognised, and no
    /// more than what is shown is looked at, so a small budget can cut a beginning off.
    pub(super) fn keeping_back(mut self, patterns: &[String]) -> Self {
        let begun = |pattern: &String| {
            let longest = pattern.len().saturating_sub(1).min(self.bytes.len());
            let begins = |length: &usize| {
                pattern.as_bytes().get(..*length).is_some_and(|head| self.bytes.ends_with(head))
            };
            (1..=longest).rev().find(begins)
        };
        self.end -= patterns.iter().filter_map(begun).max().unwrap_or(0) as u64;
        self
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Looks at what is behind the cursor, and claims it where it is to be drained; `look` is asked again when another call
/// was quicker.
pub(super) fn take(cursor: &Cursor, drain: Drain, mut look: impl FnMut(u64) -> Piece) -> Piece {
    match drain {
        Drain::Nothing => look(cursor.value()),
        Drain::Shown => {
            let mut piece = None;
            cursor.claim(|at| {
                let seen = look(at);
                let window = (seen.start, seen.end);
                piece = Some(seen);
                window
            });
            // A claim always looks at least once.
            piece.unwrap_or_else(|| look(cursor.value()))
        }
    }
}

/// Bytes behind `at` that can be shown now, and bytes there are: the difference is a character that is not complete.
pub(super) fn available(history: &ByteHistory, at: u64) -> (u64, u64) {
    let Mark { base, end, ended, .. } = history.mark();
    let unread = end.saturating_sub(at.max(base));
    let tail = history.read(end.saturating_sub(unread.min(LOOK_AROUND as u64)), LOOK_AROUND);
    let partial = if ended { 0 } else { text::incomplete_suffix(&tail.bytes) };
    (unread.saturating_sub(partial as u64), unread)
}

/// Characters behind the cursor. A byte of no character counts as one where it looks like a first byte, else not.
pub(super) async fn characters(history: &ByteHistory, cursor: &Cursor) -> u64 {
    let end = history.mark().end;
    let mut at = cursor.value();
    let mut characters = 0;
    loop {
        let window = history.read(at, CHUNK);
        let left = usize::try_from(end.saturating_sub(window.start)).unwrap_or(usize::MAX);
        let bytes = window.bytes.get(..left).unwrap_or(&window.bytes);
        characters += bytes.iter().filter(|byte| !matches!(byte, 0x80..=0xbf)).count() as u64;
        at = window.next;
        if at >= end || window.bytes.is_empty() {
            return characters;
        }
        // A history can be a gigabyte; others want to run too.
        tokio::task::yield_now().await;
    }
}

/// How many bytes of whole characters fit; one character at least.
fn fit(bytes: &[u8], max: usize) -> usize {
    let head = bytes.get(..max).unwrap_or(bytes);
    if head.len() == bytes.len() {
        return bytes.len();
    }
    let first = bytes
        .utf8_chunks()
        .next()
        .map_or(0, |chunk| chunk.valid().chars().next().map_or(chunk.invalid().len(), char::len_utf8));
    (head.len() - text::incomplete_suffix(head)).max(first)
}

/// Enough beyond a budget to see the whole character at its border.
const LOOK_AROUND: usize = 8;

/// What is counted at a time.
const CHUNK: usize = 256 * 1024;

#[cfg(test)]
mod tests;
