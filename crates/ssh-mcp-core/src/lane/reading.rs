//! Reads through a lane: its cursor, and only what its filter lets through.

use std::{ops::Range, time::Duration};

use super::{
    Form, Subject,
    machine::{End, Machine},
    queue::{Event, Lost},
};
use crate::{
    history::{History, View, Window},
    text,
};

/// How much a read takes, and of what.
#[derive(Debug, Clone, Copy)]
pub struct Take {
    /// Most bytes.
    pub max: usize,
    /// Which part of a command's output.
    pub view: View,
    /// Whether text must stay whole where the size cuts it.
    pub characters: Characters,
}

/// Whether a cut may fall inside a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Characters {
    /// It may not.
    Whole,
    /// Bytes are bytes.
    Any,
}

/// What a filter let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges {
    /// The bytes, joined; `start` and `next` are where the cursor was and is.
    pub window: Window,
    /// Whether the size kept something back.
    pub more: bool,
}

impl Machine {
    pub(super) fn read(
        &mut self,
        now: Duration,
        subject: &Subject<'_>,
        take: Take,
        plain: impl FnOnce(u64) -> (u64, u64),
    ) -> Option<Ranges> {
        self.advance(now, subject);
        if self.sieve.is_none() && self.tail.is_some() {
            self.take_in_tail();
        }
        match subject.history {
            History::Bytes(_) if self.sieve.is_some() || !self.queue.is_empty() => {
                let ranges = self.read_ranges(now, subject, take);
                self.was_read(ranges.window.next, ranges.window.bytes.len() as u64);
                Some(ranges)
            }
            History::Bytes(_) | History::Log(_) | History::State(_) => {
                self.tail = None;
                let (start, end) = plain(self.cursor);
                self.was_read(end, end.saturating_sub(start));
                None
            }
        }
    }

    pub(super) fn waiting(&mut self, now: Duration, subject: &Subject<'_>, behind: u64) -> Vec<Range<u64>> {
        self.advance(now, subject);
        if self.sieve.is_none() && self.tail.is_some() {
            self.take_in_tail();
        }
        let is_plain = self.sieve.is_none() && self.queue.is_empty();
        let plain = is_plain.then(|| self.cursor..self.limit(&subject.history.mark()));
        let cut = |range: Range<u64>| range.start.max(behind)..range.end;
        self.queue.ranges().chain(plain).map(cut).filter(|range| !range.is_empty()).collect()
    }

    /// The cursor never falls. What has been read need not be announced.
    fn was_read(&mut self, to: u64, bytes: u64) {
        if self.form != Form::Pull {
            return;
        }
        self.cursor = self.cursor.max(to);
        self.stats.bytes_sent += bytes;
        if self.cursor >= self.seen && self.end == End::Open {
            self.flush.forget();
        }
    }

    fn read_ranges(&mut self, now: Duration, subject: &Subject<'_>, take: Take) -> Ranges {
        let History::Bytes(history) = subject.history else { return Ranges::nothing(self.cursor) };
        let mark = history.mark();
        let mut window = Window {
            start: self.cursor,
            next: self.cursor,
            base: mark.base,
            end: mark.end,
            gap: 0,
            ended: mark.ended,
            bytes: Vec::new(),
            runs: Vec::new(),
        };
        while window.bytes.len() < take.max {
            if self.queue.is_empty() {
                // A full queue had kept it from looking further.
                self.advance(now, subject);
            }
            let Some(Event { range, kind, lost }) = self.queue.pop(0) else { break };
            let room = take.max - window.bytes.len();
            let mut part = history.read_until(range.end, take.view, range.start, room);
            let start = part.start.clamp(range.start, range.end);
            window.gap += lost.bytes + (start - range.start);
            if part.next < range.end {
                let cut = match (take.characters, take.view) {
                    (Characters::Whole, View::Merged) => text::incomplete_suffix(&part.bytes),
                    (Characters::Whole | Characters::Any, _) => 0,
                };
                // A character that is larger than the whole answer is cut all the same.
                if cut < part.bytes.len() || !window.bytes.is_empty() {
                    part = part.without_last(cut);
                }
                let rest = part.next.max(start)..range.end;
                self.queue.put_back(Event { range: rest, kind, lost: Lost::default() });
                window.append(part);
                break;
            }
            window.append(part);
        }
        if self.queue.is_empty() {
            // The cursor passes over what does not count.
            window.next = window.next.max(self.sieve.as_ref().map_or(self.seen, |sieve| sieve.unjudged()));
        }
        Ranges { window, more: !self.queue.is_empty() || self.unfinished }
    }
}

impl Ranges {
    fn nothing(at: u64) -> Self {
        let window = Window {
            start: at,
            next: at,
            base: at,
            end: at,
            gap: 0,
            ended: false,
            bytes: Vec::new(),
            runs: Vec::new(),
        };
        Self { window, more: false }
    }
}
