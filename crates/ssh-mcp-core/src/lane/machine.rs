//! The lane itself: what has been seen, what waits, what was taken, and how it ends.
//!
//! ```text
//!   cursor                          seen             end of the history
//!     |  in flight, queue, forming    |  not looked at  |
//! ```
//!
//! Owned by [`Lane`](super::Lane) under its lock. Time comes in; every public step is total.

use std::{ops::Range, sync::Arc, time::Duration};

use super::{
    Asks, Changed, Closing, Delivery, Filter, Form, Handed, LagPolicy, Lifetime, Look, Notices, Options,
    Parting, Piece, Report, Rest, Start, Stats, Subject, Why,
    filter::Lines,
    flush::Flush,
    queue::{Event, Kind, Lost, Pushed, Queue},
};
use crate::{
    history::{ByteHistory, Floor, History, Mark},
    reason::Reason,
    text,
    watch::Heeds,
};

/// Everything about one lane.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) form: Form,
    policy: LagPolicy,
    lifetime: Lifetime,
    linger: Duration,
    window: u64,
    block_timeout: Duration,
    pub(super) flush: Flush,
    pub(super) sieve: Option<Box<Sieve>>,
    /// Delivered, or read, up to here.
    pub(super) cursor: u64,
    /// Bytes before it are not waited for: they were delivered, were lost, or do not count.
    needed: u64,
    /// A line delivered in part counts up to here, whatever a filter would say of the rest.
    begun: u64,
    /// Looked at up to here: what lies before is delivered, waits, was lost or does not count.
    pub(super) seen: u64,
    /// Ranges that are to become events at the next flush.
    forming: Vec<Range<u64>>,
    pub(super) queue: Queue,
    /// The queue was discarded: at the next turn the lane is brought up from the history. Holds how many events were.
    behind: Option<u64>,
    /// Where a filtered replay or resynchronisation ends, and what its pieces are called.
    catch_up: Option<(u64, Kind)>,
    /// A resynchronisation has begun and is not through.
    recovering: bool,
    pub(super) end: End,
    closed: Option<Farewell>,
    paused: bool,
    /// In the queue for turns.
    asked: bool,
    taken: Option<Taken>,
    /// Raised by whatever makes positions start anew, so that a message in flight moves nothing afterwards.
    generation: u64,
    seq: u64,
    /// Holds the history back, for `block_slow`.
    floor: Option<Arc<Floor>>,
    blocked: Option<Duration>,
    expires: Option<Duration>,
    parting: Parting,
    /// Of a lane that is read from, and that lost its filter: what lies behind counts as it is.
    pub(super) tail: Option<u64>,
    /// Of a lane that is read from: the first line that counts and that the queue had no room for.
    pub(super) unread: Option<u64>,
    /// Lines are left that one look had no time for.
    pub(super) unfinished: bool,
    /// When the driver will look by itself.
    armed: Option<Duration>,
    pub(super) stats: Stats,
    notices: Notices,
    noticed: Option<Duration>,
}

/// A filter and the lines it is asked about.
#[derive(Debug)]
pub(super) struct Sieve {
    pub(super) filter: Filter,
    lines: Lines,
}

/// How far the end of the resource has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It goes on.
    Open,
    /// It has ended; what was produced up to here comes before the word of it.
    Coming(u64),
    /// The client was told, at this time.
    Delivered(u64, Duration),
}

/// The last word of a closed lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Farewell {
    Due(Reason),
    Done,
}

/// The message in flight.
#[derive(Debug)]
enum Taken {
    Announcement(Told, u64),
    Piece {
        event: Event,
        /// Where what it is the beginning of ends.
        of: u64,
        generation: u64,
    },
    End(Lost, u64),
    Farewell,
}

/// What an announcement said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    News,
    End,
}

/// Where a replay really begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// The first position delivered again.
    pub start: u64,
    /// Bytes from there to the end.
    pub bytes: u64,
    /// Bytes asked for that are gone, or lie before the window.
    pub gap: u64,
    /// Bytes asked for that are gone.
    pub gone: u64,
}

/// A position nothing has been produced at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beyond {
    /// One past the newest position.
    pub end: u64,
}

/// Bytes that one look searches for lines; more are left for the next one.
pub(super) const LOOK: u64 = 256 * 1024;
pub(super) const CHUNK: u64 = 32 * 1024;

/// Ranges that may be forming; more become events at once.
const FORMING: usize = 64;

impl Machine {
    pub(super) fn new(options: Options, now: Duration, subject: &Subject<'_>) -> Self {
        let Options { form, start, lifetime, linger, policy, filter, timing, queue, window, block_timeout } =
            options;
        let mark = subject.history.mark();
        let flush = Flush::new(timing, form, now);
        let form = match subject.history {
            History::Bytes(_) => form,
            // There are no bytes to send.
            History::Log(_) | History::State(_) => Form::Pull,
        };
        let at = match start {
            // A state has one position, its number: what it is now is new to who begins at the beginning.
            Start::At(at) if matches!(subject.history, History::State(_)) => at.min(mark.end),
            Start::At(at) => at.clamp(mark.base, mark.end),
            Start::Now => mark.end,
        };
        let floor = match (form, policy, &subject.history) {
            (Form::Payload { .. }, LagPolicy::BlockSlow, History::Bytes(bytes)) => Some(bytes.hold_from(at)),
            _ => None,
        };
        let expires = match lifetime {
            Lifetime::Lease(ttl) => Some(now + ttl),
            Lifetime::Manual | Lifetime::AutoClose(_) => None,
        };
        Self {
            form,
            policy,
            lifetime,
            linger,
            window,
            block_timeout,
            flush,
            sieve: filter.map(|filter| Sieve::boxed(filter, at)),
            cursor: at,
            needed: at,
            begun: at,
            seen: at,
            forming: Vec::new(),
            queue: Queue::new(queue, policy),
            behind: None,
            catch_up: None,
            recovering: false,
            end: End::Open,
            closed: None,
            paused: false,
            asked: false,
            taken: None,
            generation: 0,
            seq: 0,
            floor,
            blocked: None,
            expires,
            parting: Parting::Stay,
            tail: None,
            unread: None,
            unfinished: false,
            armed: None,
            stats: Stats::default(),
            notices: Notices::default(),
            noticed: None,
        }
    }

    pub(super) fn look(&mut self, now: Duration, subject: &Subject<'_>) -> Look {
        self.advance(now, subject);
        let asks = match self.is_ready(now) && !self.asked {
            true => {
                self.asked = true;
                Asks::Now
            }
            false => Asks::No,
        };
        let rests = self.rests(now);
        let heeds = if rests.is_some() { Heeds::TheEnd } else { Heeds::Everything };
        Look { asks, wake: self.wake().into_iter().chain(rests).min(), heeds, over: self.over(now) }
    }

    /// Until when it need not look at what comes: nothing but the end could make it speak.
    fn rests(&self, now: Duration) -> Option<Duration> {
        let is_plain = self.form == Form::Pull && self.sieve.is_none();
        let may_rest = is_plain && self.end == End::Open && self.closed.is_none();
        self.flush.rests().filter(|until| may_rest && now < *until)
    }

    /// The driver sleeps until then.
    pub(super) fn arm(&mut self, wake: Option<Duration>) {
        self.armed = wake;
    }

    pub(super) fn would_wake_earlier(&self, wake: Option<Duration>) -> bool {
        wake.is_some_and(|wake| self.armed.is_none_or(|armed| wake < armed))
    }

    /// Takes in what the history has beyond `seen`.
    pub(super) fn advance(&mut self, now: Duration, subject: &Subject<'_>) {
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
    pub(super) fn judged_to(&self) -> u64 {
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

    /// How many events wait.
    fn waits(&self) -> u64 {
        match self.form {
            Form::Pull => u64::from(self.flush.has_news() || matches!(self.end, End::Coming(_))),
            Form::Payload { .. } => self.queue.len() as u64,
        }
    }

    /// The end of what is to be delivered: bytes that come after the end was recorded are nobody's news.
    pub(super) fn limit(&self, mark: &Mark) -> u64 {
        match self.end {
            End::Coming(at) | End::Delivered(at, _) => at,
            End::Open => mark.end,
        }
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

    fn has_enough(&self) -> bool {
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
    fn form_events(&mut self, now: Duration) {
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

    fn push(&mut self, range: Range<u64>, kind: Kind) {
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
    fn fall_behind(&mut self, events: u64) {
        self.behind = Some(events);
        self.catch_up = None;
        self.unfinished = false;
        self.forming = Vec::new();
        self.queue.clear();
        self.flush.forget();
    }

    /// The client has been told of bytes that are gone.
    pub(super) fn note_gap(&mut self, bytes: u64) {
        self.stats.gap_bytes += bytes;
        self.notices.lost_bytes += bytes;
    }

    /// A lane that blocks holds the history back within two bounds: the history's own, and a time.
    fn mind_the_floor(&mut self, now: Duration, mark: &Mark, bytes: &ByteHistory) {
        if self.floor.is_none() || !self.may_hold_back() {
            self.unblock(now);
            return;
        }
        // A message on its way is the transport's; the bounds are about those that wait.
        let taken = match &self.taken {
            Some(Taken::Piece { event, generation, .. }) if *generation == self.generation => event.range.end,
            _ => self.needed,
        };
        let is_beyond = mark.end.saturating_sub(taken) > bytes.limit();
        match (self.blocked, is_beyond) {
            (None, true) => self.blocked = Some(now),
            (Some(_), false) => self.unblock(now),
            (None, false) | (Some(_), true) => {}
        }
        let too_long = self.blocked.is_some_and(|since| now >= since + self.block_timeout);
        if too_long || is_beyond && mark.base > taken {
            self.notices.gave_up += 1;
            self.lift_floor(now);
            self.fall_behind(self.queue.len() as u64);
        }
    }

    fn unblock(&mut self, now: Duration) {
        if let Some(since) = self.blocked.take() {
            self.stats.blocked += now.saturating_sub(since);
        }
    }

    fn lift_floor(&mut self, now: Duration) {
        self.unblock(now);
        if let Some(floor) = &self.floor {
            floor.lift();
        }
    }

    fn move_floor(&self) {
        match &self.floor {
            Some(floor) if self.may_hold_back() => floor.move_to(self.needed),
            Some(floor) => floor.lift(),
            None => {}
        }
    }

    fn may_hold_back(&self) -> bool {
        let is_at_end = match self.end {
            End::Open => false,
            End::Coming(at) | End::Delivered(at, _) => self.needed >= at,
        };
        !self.paused && self.behind.is_none() && !is_at_end
    }

    /// Whether it has something to say.
    fn is_ready(&self, now: Duration) -> bool {
        match (self.closed, &self.taken) {
            (_, Some(_)) => false,
            (Some(Farewell::Due(_)), None) => true,
            (Some(Farewell::Done), None) => false,
            (None, None) if self.paused => false,
            (None, None) => match (self.form, self.end) {
                (_, End::Delivered(..)) => false,
                (Form::Pull, End::Coming(_)) => true,
                (Form::Pull, End::Open) => self.flush.is_due(now),
                (Form::Payload { .. }, _) => {
                    self.behind.is_some() || !self.queue.is_empty() || self.is_through()
                }
            },
        }
    }

    /// Everything before the end has been taken.
    fn is_through(&self) -> bool {
        match self.end {
            End::Coming(at) => {
                self.queue.is_empty() && self.forming.is_empty() && self.behind.is_none() && self.seen >= at
            }
            End::Open | End::Delivered(..) => false,
        }
    }

    /// When to look again by itself.
    fn wake(&self) -> Option<Duration> {
        if self.closed.is_some() {
            return None;
        }
        // A lane that waits for its turn, or may not speak, needs no reminder to speak; bytes form events all the same.
        let speaks = !self.paused && !self.asked && self.taken.is_none();
        let forms = matches!(self.form, Form::Payload { .. }) && !self.has_enough();
        let flush = self
            .flush
            .due()
            .filter(|_| self.end == End::Open && (speaks && self.form == Form::Pull || forms));
        let lines = match &self.sieve {
            Some(_) if self.unfinished => Some(Duration::ZERO),
            Some(sieve) if !self.has_enough() => sieve.lines.deadline(),
            Some(_) | None => None,
        };
        let blocked = self.blocked.map(|since| since + self.block_timeout);
        let live = [flush, lines, blocked].into_iter().flatten();
        live.chain(self.expires).chain(self.leaves()).min()
    }

    /// When it leaves after the delivered end.
    fn leaves(&self) -> Option<Duration> {
        let End::Delivered(_, at) = self.end else { return None };
        match (self.lifetime, self.parting, self.form) {
            (Lifetime::AutoClose(grace), _, _) => Some(at + grace),
            (Lifetime::Manual | Lifetime::Lease(_), Parting::Leave, Form::Pull) => Some(at + self.linger),
            (Lifetime::Manual | Lifetime::Lease(_), Parting::Leave, Form::Payload { .. }) => Some(at),
            (Lifetime::Manual | Lifetime::Lease(_), Parting::Stay, _) => None,
        }
    }

    fn over(&self, now: Duration) -> Option<Reason> {
        let is_past = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        if self.closed.is_some() {
            None
        } else if is_past(self.expires) {
            Some(Reason::LifetimeLeaseExpired)
        } else {
            is_past(self.leaves()).then_some(Reason::AutoClose)
        }
    }

    pub(super) fn take(&mut self, now: Duration, subject: &Subject<'_>) -> Option<Delivery> {
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
            let mut data = window.bytes;
            data.truncate(usize::try_from(range.end - start).unwrap_or(usize::MAX));
            if data.is_empty() {
                self.queue.miss_first(lost);
                continue;
            }
            if start + (data.len() as u64) < range.end {
                // A cut falls between characters, unless a character is all there is.
                let whole = data.len() - text::incomplete_suffix(&data);
                data.truncate(if whole > 0 { whole } else { data.len() });
            }
            let end = start + data.len() as u64;
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
                bytes: data,
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
    fn begin_at(&mut self, from: u64, end: u64, kind: Kind) {
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

    pub(super) fn sent(&mut self, now: Duration, handed: Handed) {
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

    pub(super) fn note_stuck(&mut self) {
        self.notices.stuck += 1;
    }

    pub(super) fn pause(&mut self, now: Duration) -> Changed {
        if self.paused || self.closed.is_some() {
            return Changed::No;
        }
        self.paused = true;
        self.lift_floor(now);
        Changed::Yes
    }

    pub(super) fn resume(&mut self, now: Duration) -> Changed {
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

    pub(super) fn set_filter(&mut self, now: Duration, subject: &Subject<'_>, filter: Option<Filter>) {
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
    pub(super) fn take_in_tail(&mut self) {
        if self.form == Form::Pull {
            let from = self.tail.unwrap_or(self.cursor);
            if from < self.seen {
                self.queue.extend(from..self.seen);
            }
            self.tail = Some(self.seen);
        }
    }

    pub(super) fn replay(
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

    pub(super) fn close(&mut self, now: Duration, reason: Reason) -> Closing {
        if self.closed.is_some() {
            return Closing::Lost;
        }
        let owes = matches!(self.form, Form::Payload { .. }) && !matches!(self.end, End::Delivered(..));
        self.closed = Some(if owes { Farewell::Due(reason) } else { Farewell::Done });
        self.lift_floor(now);
        self.floor = None;
        self.forming = Vec::new();
        self.queue.clear();
        Closing::Won
    }

    pub(super) fn owes_farewell(&self) -> bool {
        matches!(self.closed, Some(Farewell::Due(_)))
    }

    pub(super) fn withhold_farewell(&mut self) {
        if self.closed.is_some() {
            self.closed = Some(Farewell::Done);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    pub(super) fn is_owed(&self) -> bool {
        self.closed.is_none() && !matches!(self.end, End::Delivered(..))
    }

    pub(super) fn report(&self) -> Report {
        let timing = self.flush.timing();
        Report {
            stats: Stats { byte_triggered_flushes: self.flush.by_bytes(), ..self.stats },
            queue_depth: self.waits(),
            cursor: self.cursor,
            paused: self.paused,
            policy: self.policy,
            filter: self.sieve.as_ref().map(|sieve| sieve.filter.as_str().to_owned()),
            expires: self.expires.filter(|_| self.closed.is_none()),
            debounce: timing.debounce,
            bytes: timing.bytes,
        }
    }

    /// At most once a second.
    pub(super) fn notices(&mut self, now: Duration) -> Notices {
        let is_soon = self.noticed.is_some_and(|before| now < before + Duration::from_secs(1));
        if is_soon || self.notices == Notices::default() {
            return Notices::default();
        }
        self.noticed = Some(now);
        std::mem::take(&mut self.notices)
    }
}

impl Sieve {
    fn boxed(filter: Filter, at: u64) -> Box<Self> {
        Box::new(Self { filter, lines: Lines::from(at) })
    }
}
