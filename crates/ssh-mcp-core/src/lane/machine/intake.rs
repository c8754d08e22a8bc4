//! What the history has beyond `seen`: judged by the filter, gathered by the flush policy, queued under the lag policy.

use std::{ops::Range, time::Duration};

use super::{CHUNK, End, FORMING, LOOK, Machine, Sieve};
use crate::{
    history::{ByteHistory, History},
    lane::{
        Form, LagPolicy, Subject,
        filter::Lines,
        queue::{Kind, Lost, Pushed},
    },
};

impl Machine {
    /// Takes in what the history has beyond `seen`.
    pub(in crate::lane) fn advance(&mut self, now: Duration, subject: &Subject<'_>) {
        if self.closed.is_some() {
            return;
        }
        self.parting = subject.parting;
        let mark = subject.history.mark();
        if self.end == End::Open && mark.ended {
            self.end = End::Coming(mark.end);
        }
        let until = self.limit(&mark);
        if let History::Bytes(bytes) = subject.history {
            self.mind_the_floor(now, &mark, bytes);
        }
        if self.behind.is_some() {
            return;
        }
        match (self.sieve.is_some(), subject.history) {
            (false, _) => self.see(now, until),
            (true, History::Bytes(bytes)) => self.see_lines(now, bytes, until),
            (true, History::Log(_) | History::State(_)) => self.see_body(now, subject.body, until),
        }
        let is_due = self.end != End::Open || self.flush.is_due(now);
        if is_due && matches!(self.form, Form::Payload { .. }) {
            self.form_events(now);
        }
        self.pass_over();
        self.stats.queue_high_watermark = self.stats.queue_high_watermark.max(self.waits());
    }

    /// Up to where it has been found out what counts.
    pub(in crate::lane) fn judged_to(&self) -> u64 {
        self.sieve.as_ref().map_or(self.seen, |sieve| sieve.lines.unjudged())
    }

    /// A lane that is sent bytes, and for which nothing waits, stands behind what does not count.
    fn pass_over(&mut self) {
        let waits = !self.queue.is_empty() || !self.forming.is_empty() || self.behind.is_some();
        if waits || self.taken.is_some() || self.form == Form::Pull {
            return;
        }
        self.needed = self.needed.max(self.judged_to());
        if !self.queue.has_hole() {
            self.cursor = self.needed;
        }
        self.move_floor();
    }

    fn see(&mut self, now: Duration, until: u64) {
        // Who blocks looks no further while its queue is full; the history waits.
        if until <= self.seen || self.is_lazy() && self.queue.is_full() {
            return;
        }
        let news = self.seen..until;
        self.seen = until;
        self.flush.on_news(now, news.end - news.start);
        if matches!(self.form, Form::Payload { .. }) {
            self.form_range(now, news);
        }
    }

    fn see_lines(&mut self, now: Duration, bytes: &ByteHistory, until: u64) {
        let Some(mut sieve) = self.sieve.take() else { return };
        let Sieve { filter, lines } = &mut *sieve;
        let mut budget = LOOK;
        while lines.at() < until && budget > 0 && !self.has_enough() {
            let wanted = CHUNK.min(until - lines.at());
            let window = bytes.read(lines.at(), usize::try_from(wanted).unwrap_or(usize::MAX));
            if window.start > lines.at() {
                let start = window.start.min(until);
                if self.unread.is_none() {
                    self.queue.miss(Lost::gone(start - lines.unjudged()));
                }
                *lines = Lines::from(start);
                continue;
            }
            if window.bytes.is_empty() {
                break;
            }
            lines.take(now, filter, &window.bytes, &mut |line, matched| self.judged(now, line, matched));
            budget = budget.saturating_sub(wanted);
        }
        let waited = lines.deadline().is_some_and(|deadline| deadline <= now);
        if lines.at() >= until && (waited || matches!(self.end, End::Coming(_))) {
            lines.finish(filter, &mut |line, matched| self.judged(now, line, matched));
        }
        self.seen = lines.at();
        self.unfinished = lines.at() < until && !self.has_enough();
        if self.catch_up.is_some_and(|(end, _)| self.seen >= end) {
            self.catch_up = None;
        }
        self.sieve = Some(sieve);
    }

    /// One line; the answer is whether to go on.
    fn judged(&mut self, now: Duration, line: Range<u64>, matched: bool) -> bool {
        if !matched {
            self.stats.filtered_events += 1;
            return true;
        }
        match (self.form, self.catch_up) {
            (Form::Pull, _) => {
                self.flush.on_news(now, line.end - line.start);
                match self.unread {
                    None if !self.queue.is_full() => self.queue.extend(line),
                    None => self.unread = Some(line.start),
                    Some(_) => {}
                }
            }
            (Form::Payload { .. }, Some((_, kind))) => self.push(line, kind),
            (Form::Payload { .. }, None) => {
                self.flush.on_news(now, line.end - line.start);
                self.form_range(now, line);
            }
        }
        !self.has_enough()
    }

    fn see_body(&mut self, now: Duration, body: &dyn Fn() -> String, until: u64) {
        if until <= self.seen {
            return;
        }
        let news = until - self.seen;
        self.seen = until;
        match self.sieve.as_ref().is_none_or(|sieve| sieve.filter.matches(body().as_bytes())) {
            true => self.flush.on_news(now, news),
            false => self.stats.filtered_events += 1,
        }
    }

    /// Whether it looks no further than its queue has room for: what lies beyond is in the history.
    fn is_lazy(&self) -> bool {
        let is_sent_bytes = matches!(self.form, Form::Payload { .. });
        is_sent_bytes && (self.policy == LagPolicy::BlockSlow || self.catch_up.is_some())
    }

    pub(super) fn has_enough(&self) -> bool {
        self.behind.is_some() || self.is_lazy() && self.queue.is_full()
    }

    fn form_range(&mut self, now: Duration, range: Range<u64>) {
        match self.forming.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            Some(_) | None => self.forming.push(range),
        }
        if self.forming.len() > FORMING {
            self.form_events(now);
        }
    }

    /// What has formed waits from here on. Who blocks keeps what its queue has no room for.
    pub(super) fn form_events(&mut self, now: Duration) {
        if self.forming.is_empty() {
            return;
        }
        let mut formed = std::mem::take(&mut self.forming).into_iter();
        while !self.has_enough()
            && let Some(range) = formed.next()
        {
            self.push(range, Kind::Live);
        }
        if self.behind.is_none() {
            self.forming.extend(formed);
        }
        if self.forming.is_empty() {
            self.flush.announced(now);
        }
    }

    pub(super) fn push(&mut self, range: Range<u64>, kind: Kind) {
        match self.queue.push(range, kind) {
            Pushed::Queued => {}
            Pushed::Dropped(events) => {
                self.stats.lagged_drops += events;
                self.notices.dropped += events;
            }
            Pushed::Behind(events) => self.fall_behind(events),
        }
        self.stats.queue_high_watermark = self.stats.queue_high_watermark.max(self.queue.len() as u64);
    }

    /// The queue is gone; the history has what was in it.
    pub(super) fn fall_behind(&mut self, events: u64) {
        self.behind = Some(events);
        self.catch_up = None;
        self.unfinished = false;
        self.forming = Vec::new();
        self.queue.clear();
        self.flush.forget();
    }
}
