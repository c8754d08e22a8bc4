//! One message at a time: what is taken, and what becomes of it once the client has it or has refused it.

use std::time::Duration;

use super::{End, Farewell, Machine, Taken, Told};
use crate::{
    history::{ByteHistory, History},
    lane::{
        Delivery, Form, Handed, Piece, Rest, Subject, Why,
        filter::Lines,
        queue::{Event, Kind, Lost},
    },
    text,
};

impl Machine {
    /// The client has been told of bytes that are gone.
    pub(in crate::lane) fn note_gap(&mut self, bytes: u64) {
        self.stats.gap_bytes += bytes;
        self.notices.lost_bytes += bytes;
    }

    pub(in crate::lane) fn take(&mut self, now: Duration, subject: &Subject<'_>) -> Option<Delivery> {
        self.asked = false;
        if self.taken.is_some() {
            return None;
        }
        if let Some(farewell) = self.closed {
            let Farewell::Due(reason) = farewell else { return None };
            self.taken = Some(Taken::Farewell);
            return Some(Delivery::Closed { seq: self.seq, cursor: self.cursor, reason });
        }
        if self.paused {
            return None;
        }
        self.advance(now, subject);
        match (self.form, subject.history) {
            (Form::Payload { piece }, History::Bytes(bytes)) => self.take_piece(now, bytes, piece),
            (Form::Pull | Form::Payload { .. }, _) => self.announce(now),
        }
    }

    fn announce(&mut self, now: Duration) -> Option<Delivery> {
        let told = match self.end {
            End::Delivered(..) => return None,
            End::Coming(_) => Told::End,
            End::Open if self.flush.is_due(now) => Told::News,
            End::Open => return None,
        };
        self.flush.announced(now);
        self.taken = Some(Taken::Announcement(told, self.generation));
        Some(Delivery::Updated)
    }

    fn take_piece(&mut self, now: Duration, bytes: &ByteHistory, piece: usize) -> Option<Delivery> {
        if let Some(discarded) = self.behind.take() {
            self.catch_up_from_history(now, bytes, discarded);
        }
        while let Some(Event { range, kind, mut lost }) = self.queue.pop(piece as u64) {
            let wanted = usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(piece);
            let window = bytes.read(range.start, wanted);
            let start = window.start.clamp(range.start, range.end);
            let gone = start - range.start;
            lost.add(Lost::gone(gone));
            let room = usize::try_from(range.end - start).unwrap_or(usize::MAX);
            let beyond = window.bytes.len().saturating_sub(room);
            let mut window = window.without_last(beyond);
            if window.bytes.is_empty() {
                self.queue.miss_first(lost);
                continue;
            }
            if start + (window.bytes.len() as u64) < range.end {
                // A cut falls between characters, unless a character is all there is.
                let part = text::incomplete_suffix(&window.bytes);
                let cut = if part < window.bytes.len() { part } else { 0 };
                window = window.without_last(cut);
            }
            let end = start + window.bytes.len() as u64;
            let rest = end..range.end;
            let follows = if rest.is_empty() { Rest::Nothing } else { Rest::Follows };
            if follows == Rest::Follows {
                self.queue.put_back(Event { range: rest, kind, lost: Lost::default() });
            }
            let event = Event { range: start..end, kind, lost };
            self.taken = Some(Taken::Piece { event, of: range.end, generation: self.generation });
            return Some(Delivery::Piece(Piece {
                seq: self.seq,
                cursor_after: end,
                why: match kind {
                    Kind::Live => Why::News,
                    Kind::Replay => Why::Replay,
                    Kind::Resync => Why::Snapshot,
                },
                bytes: window.bytes,
                runs: window.runs,
                rest: follows,
                gap: lost.bytes(),
                dropped: lost.events,
            }));
        }
        let End::Coming(at) = self.end else { return None };
        if !self.is_through() {
            return None;
        }
        let lost = self.queue.take_hole();
        self.taken = Some(Taken::End(lost, self.generation));
        Some(Delivery::End { seq: self.seq, cursor: at, gap: lost.bytes(), dropped: lost.events })
    }

    /// From where the client stands to the end, as far as the window reaches and the history has it.
    fn catch_up_from_history(&mut self, now: Duration, bytes: &ByteHistory, discarded: u64) {
        let mark = bytes.mark();
        let end = self.limit(&mark).max(self.cursor);
        let from = self.cursor.max(mark.base).max(end.saturating_sub(self.window)).min(end);
        let gap = from - self.cursor;
        self.recovering = true;
        self.begin_at(from, end, Kind::Resync);
        if gap > 0 {
            self.stats.lagged_drops += discarded;
            self.queue.miss_first(Lost::gone(gap));
        }
        self.needed = from;
        self.move_floor();
        self.advance(
            now,
            &Subject { history: History::Bytes(bytes), body: &String::new, parting: self.parting },
        );
        self.note_recovery();
    }

    /// What waits is `from..end`, judged anew.
    pub(super) fn begin_at(&mut self, from: u64, end: u64, kind: Kind) {
        self.queue.clear();
        self.forming = Vec::new();
        self.flush.forget();
        self.catch_up = None;
        self.unread = None;
        self.seen = match &mut self.sieve {
            Some(sieve) => {
                let judged = self.begun.clamp(from, end);
                sieve.lines = Lines::from(judged);
                self.catch_up = (end > judged).then_some((end, kind));
                judged
            }
            None => end,
        };
        if self.seen > from {
            self.push(from..self.seen, kind);
        }
    }

    fn note_recovery(&mut self) {
        if self.recovering && self.behind.is_none() && self.catch_up.is_none() && !self.queue.holds_resync() {
            self.recovering = false;
            self.stats.lagged_recoveries += 1;
        }
    }

    pub(in crate::lane) fn sent(&mut self, now: Duration, handed: Handed) {
        let Some(taken) = self.taken.take() else { return };
        if handed == Handed::Accepted {
            self.stats.events_sent += 1;
            self.stats.last_event = Some(now);
            self.seq += 1;
        }
        match (taken, handed) {
            (Taken::Announcement(Told::End, generation), Handed::Accepted) => {
                self.end_delivered(now, generation);
            }
            (Taken::Announcement(Told::News, _), Handed::Accepted) => {}
            (Taken::Announcement(..), Handed::Refused) => self.flush.on_news(now, 0),
            (Taken::Piece { event, of, generation }, Handed::Accepted) => {
                let bytes = event.range.end - event.range.start;
                self.stats.bytes_sent += bytes;
                self.stats.inline_bytes_sent += bytes;
                self.stats.inline_events_sent += 1;
                self.note_gap(event.lost.gone);
                if generation == self.generation {
                    self.cursor = event.range.end;
                    self.needed = event.range.end;
                    self.begun = of;
                    self.move_floor();
                }
                self.note_recovery();
            }
            (Taken::Piece { event, generation, .. }, Handed::Refused) => {
                self.stats.inline_events_failed += 1;
                if self.may_put_back(generation) {
                    self.queue.rejoin(event);
                }
            }
            (Taken::End(lost, generation), Handed::Accepted) => {
                self.note_gap(lost.gone);
                self.end_delivered(now, generation);
            }
            (Taken::End(lost, generation), Handed::Refused) => {
                if self.may_put_back(generation) {
                    self.queue.miss_first(lost);
                }
            }
            (Taken::Farewell, Handed::Accepted) => self.withhold_farewell(),
            (Taken::Farewell, Handed::Refused) => {}
        }
    }

    /// Whether what was refused still waits: it does not once positions have started anew or what waits was discarded.
    fn may_put_back(&self, generation: u64) -> bool {
        generation == self.generation && self.behind.is_none() && self.closed.is_none()
    }

    /// A client that has been told of the end needs no other last word.
    fn end_delivered(&mut self, now: Duration, generation: u64) {
        let End::Coming(at) = self.end else { return };
        if generation == self.generation {
            self.end = End::Delivered(at, now);
            self.behind = None;
            if matches!(self.form, Form::Payload { .. }) {
                self.cursor = at;
            }
            self.lift_floor(now);
            self.withhold_farewell();
        }
    }
}
