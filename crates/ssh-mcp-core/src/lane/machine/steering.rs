//! What a client does to its lane: pause, resume, filter, replay.

use std::time::Duration;

use super::{Beyond, End, Machine, Replayed, Sieve};
use crate::{
    history::History,
    lane::{Changed, Filter, Form, Lifetime, Subject, filter::Lines, queue::Kind},
};

impl Machine {
    pub(in crate::lane) fn pause(&mut self, now: Duration) -> Changed {
        if self.paused || self.closed.is_some() {
            return Changed::No;
        }
        self.paused = true;
        self.lift_floor(now);
        Changed::Yes
    }

    pub(in crate::lane) fn resume(&mut self, now: Duration) -> Changed {
        if let (Lifetime::Lease(ttl), None) = (self.lifetime, self.closed) {
            self.expires = Some(now + ttl);
        }
        if !self.paused || self.closed.is_some() {
            return Changed::No;
        }
        self.paused = false;
        self.move_floor();
        Changed::Yes
    }

    pub(in crate::lane) fn set_filter(
        &mut self,
        now: Duration,
        subject: &Subject<'_>,
        filter: Option<Filter>,
    ) {
        self.advance(now, subject);
        // What has been judged stays as it is, whether it waits or is forming.
        self.form_events(now);
        let History::Bytes(_) = subject.history else {
            self.sieve = filter.map(|filter| Sieve::boxed(filter, self.seen));
            return;
        };
        let unread = self.unread.take();
        let from = unread.unwrap_or(self.judged_to());
        match (&mut self.sieve, filter) {
            (Some(sieve), Some(filter)) => {
                sieve.filter = filter;
                if unread.is_some() {
                    sieve.lines = Lines::from(from);
                }
            }
            (None, Some(filter)) => {
                self.take_in_tail();
                self.tail = None;
                self.sieve = Some(Sieve::boxed(filter, from));
            }
            (Some(_), None) => {
                self.sieve = None;
                self.seen = from;
                self.catch_up = None;
                self.unfinished = false;
                self.tail = Some(from).filter(|_| self.form == Form::Pull);
            }
            (None, None) => {}
        }
    }

    /// A lane that is read from and has no filter: what it has seen and nobody has read counts as it is.
    pub(in crate::lane) fn take_in_tail(&mut self) {
        if self.form == Form::Pull {
            let from = self.tail.unwrap_or(self.cursor);
            if from < self.seen {
                self.queue.extend(from..self.seen);
            }
            self.tail = Some(self.seen);
        }
    }

    pub(in crate::lane) fn replay(
        &mut self,
        now: Duration,
        subject: &Subject<'_>,
        from: u64,
        window: u64,
    ) -> Result<Replayed, Beyond> {
        let mark = subject.history.mark();
        let end = match self.form {
            Form::Payload { .. } => self.limit(&mark),
            // A read goes on behind the end.
            Form::Pull => mark.end,
        };
        if from > end {
            return Err(Beyond { end });
        }
        self.generation += 1;
        self.begun = 0;
        self.behind = None;
        self.recovering = false;
        self.tail = None;
        if let End::Delivered(at, _) = self.end {
            // The end belongs to what is delivered again.
            self.end = End::Coming(at);
        }
        if let History::State(_) = subject.history {
            // A state is one body, whatever its number.
            self.flush.on_news(now, 1);
            return Ok(Replayed { start: end, bytes: 0, gap: 0, gone: 0 });
        }
        let base = mark.base.min(end);
        let start = from.max(base).max(end.saturating_sub(window));
        match self.form {
            Form::Payload { .. } => self.begin_at(start, end, Kind::Replay),
            // Announced once as news, and read from there.
            Form::Pull => self.begin_at(start, start, Kind::Replay),
        }
        self.cursor = start;
        self.needed = start;
        self.move_floor();
        Ok(Replayed { start, bytes: end - start, gap: start - from, gone: base.saturating_sub(from) })
    }
}
