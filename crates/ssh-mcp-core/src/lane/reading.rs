//! Reads through a lane: its cursor, and only what its filter lets through.

use std::{ops::Range, time::Duration};

use super::{
    Form, Subject,
    filter::Lines,
    machine::{CHUNK, End, LOOK, Machine},
    queue::{Event, Lost, Queue},
};
use crate::{
    history::{ByteHistory, History, View, Window},
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
        if self.form != Form::Pull {
            // What waits is for the turns.
            plain(self.cursor);
            return None;
        }
        if let History::Bytes(history) = subject.history
            && (self.sieve.is_some() || !self.queue.is_empty())
        {
            if self.sieve.is_none() {
                self.take_in_tail();
            }
            return Some(self.read_ranges(now, history, take));
        }
        if let Some(tail) = self.tail.take() {
            self.cursor = self.cursor.max(tail);
        }
        let (start, end) = plain(self.cursor);
        let gap = match subject.history {
            History::Bytes(_) => start.saturating_sub(self.cursor),
            History::Log(_) | History::State(_) => 0,
        };
        self.was_read(end, end.saturating_sub(start), gap);
        None
    }

    pub(super) fn waiting(&mut self, now: Duration, subject: &Subject<'_>, behind: u64) -> Vec<Range<u64>> {
        self.advance(now, subject);
        if self.sieve.is_none() && self.tail.is_some() {
            self.take_in_tail();
        }
        if let (History::Bytes(history), true) = (subject.history, self.queue.is_empty()) {
            self.take_in_unread(now, history);
        }
        let is_plain = self.sieve.is_none() && self.queue.is_empty();
        let from = self.cursor.max(self.tail.unwrap_or(0));
        let plain = is_plain.then(|| from..self.limit(&subject.history.mark()));
        let cut = |range: Range<u64>| range.start.max(behind)..range.end;
        self.queue.ranges().chain(plain).map(cut).filter(|range| !range.is_empty()).collect()
    }

    /// The cursor never falls. What has been read need not be announced.
    fn was_read(&mut self, to: u64, bytes: u64, gap: u64) {
        self.cursor = self.cursor.max(to);
        self.stats.bytes_sent += bytes;
        self.note_gap(gap);
        if self.cursor >= self.judged_to() && self.end == End::Open {
            self.flush.forget();
        }
    }

    fn read_ranges(&mut self, now: Duration, history: &ByteHistory, take: Take) -> Ranges {
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
                self.take_in_unread(now, history);
            }
            let Some(Event { range, kind, lost }) = self.queue.pop(0) else { break };
            let room = take.max - window.bytes.len();
            let mut part = history.read_until(range.end, take.view, range.start, room);
            let start = part.start.clamp(range.start, range.end);
            window.gap += lost.bytes() + (start - range.start);
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
            window.next = window.next.max(self.unread.unwrap_or(self.judged_to()));
        }
        self.was_read(window.next, window.bytes.len() as u64, window.gap);
        Ranges { window, more: !self.queue.is_empty() || self.unread.is_some() || self.unfinished }
    }

    /// Lines that found no room in the queue are in the history, and are judged again there.
    fn take_in_unread(&mut self, now: Duration, history: &ByteHistory) {
        let until = self.judged_to();
        let (Some(sieve), Some(from)) = (&self.sieve, self.unread.take()) else { return };
        let queue = &mut self.queue;
        let on_line = |queue: &mut Queue, line, matched| {
            if matched {
                queue.extend(line);
            }
            !queue.is_full()
        };
        let mut lines = Lines::from(from);
        let mut budget = LOOK;
        while lines.at() < until && budget > 0 && !queue.is_full() {
            let wanted = CHUNK.min(until - lines.at());
            let window = history.read(lines.at(), usize::try_from(wanted).unwrap_or(usize::MAX));
            let start = window.start.min(until);
            if start > lines.at() {
                queue.miss(Lost::gone(start - lines.unjudged()));
                lines = Lines::from(start);
                continue;
            }
            lines.take(now, &sieve.filter, &window.bytes, &mut |line, matched| on_line(queue, line, matched));
            budget = budget.saturating_sub(wanted);
        }
        if lines.at() >= until && !queue.is_full() {
            lines.finish(&sieve.filter, &mut |line, matched| on_line(queue, line, matched));
        }
        self.unread = Some(lines.unjudged()).filter(|at| *at < until);
    }
}
