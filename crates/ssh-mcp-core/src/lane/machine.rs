//! The lane itself: what has been seen, what waits, what was taken, and how it ends.
//!
//! ```text
//!   cursor                          seen             end of the history
//!     |  in flight, queue, forming    |  not looked at  |
//! ```
//!
//! Owned by [`Lane`](super::Lane) under its lock. Time comes in; every public step is total.

mod delivery;
mod floor;
mod intake;
mod steering;

use std::{ops::Range, sync::Arc, time::Duration};

use super::{
    Asks, Closing, Filter, Form, LagPolicy, Lifetime, Look, Notices, Options, Parting, Report, Start, Stats,
    Subject,
    filter::Lines,
    flush::Flush,
    queue::{Event, Kind, Lost, Queue},
};
use crate::{
    history::{Floor, History, Mark},
    reason::Reason,
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

    pub(super) fn note_stuck(&mut self) {
        self.notices.stuck += 1;
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
