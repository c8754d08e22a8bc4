//! A lane against a reference that forgets nothing: whatever is done to it, each position that counts is delivered or
//! told lost exactly once, in order, and the end comes last.
//!
//! The reference judges bytes as they are appended, the lane when it looks; both must come to the same. Where a filter
//! is used, the histories are long enough and the times short enough that they do: nothing is trimmed and no unfinished
//! line waits a second. Swaps of filters go with the policies that look at everything at once.

use std::ops::Range;

use proptest::{prelude::*, test_runner::RngSeed};

use super::{
    tests::{filter, options, subject},
    *,
};
use crate::{
    history::{ByteHistory, Origin, View},
    text,
};

const MS: Duration = Duration::from_millis(1);

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<u8>),
    /// Time passes and the driver looks in time; turns are handed out or not.
    Pass(u32, Mux),
    /// The mux hands out a turn, if the lane has asked.
    Take,
    /// The transport answers, if a message is in flight.
    Sent(Handed),
    Look,
    Pause,
    Resume,
    Swap(Option<&'static str>),
    /// From so many positions before the end, at most so many.
    Replay(u64, u64),
    Read(usize),
    Trim(usize),
    Finish,
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mux {
    Takes,
    Stands,
}

/// What of a stream counts, judged byte by byte.
#[derive(Debug, Default)]
struct Judge {
    filter: Option<&'static str>,
    /// The unfinished line.
    line: Vec<u8>,
    start: u64,
    counted: Vec<u64>,
}

impl Judge {
    fn from(start: u64, filter: Option<&'static str>) -> Self {
        Self { filter, start, ..Self::default() }
    }

    fn take(&mut self, byte: u8) {
        if self.line.last() == Some(&b'\r') && byte != b'\n' {
            self.end_line();
        }
        self.line.push(byte);
        if self.filter.is_none() || byte == b'\n' {
            self.end_line();
        }
    }

    fn end_line(&mut self) {
        let end = self.start + self.line.len() as u64;
        let text = text::strip_escapes(&self.line);
        if self.filter.is_none_or(|word| text.windows(word.len()).any(|part| part == word.as_bytes())) {
            self.counted.extend(self.start..end);
        }
        self.line.clear();
        self.start = end;
    }

    fn swap(&mut self, filter: Option<&'static str>) {
        self.filter = filter;
        if filter.is_none() {
            self.end_line();
        }
    }
}

/// A lane, its history, and what should come of them.
struct Play {
    history: ByteHistory,
    lane: Lane,
    options: Options,
    now: Duration,
    asked: bool,
    /// A message, the generation it was taken in, and where the history ended then.
    in_flight: Option<(Delivery, u32, u64)>,
    /// Raised by each replay.
    generation: u32,
    all: Vec<u8>,
    ended: Option<u64>,
    judge: Judge,
    /// How many of the positions that count have been delivered or told lost.
    accounted: usize,
    /// What had been appended when the last announcement of this generation was taken.
    announced: u64,
    paused: bool,
    closed: bool,
    seq: u64,
    told_end: bool,
    told_closed: bool,
    /// Whether something other than its own bounds may have cost the lane bytes.
    was_disturbed: bool,
    gave_up: u64,
    gap: u64,
    sent: u64,
    watermark: u64,
}

impl Play {
    fn new(options: Options, limit: usize, word: Option<&'static str>) -> Self {
        let history = ByteHistory::new(limit);
        let lane = Lane::open(options.clone(), Duration::ZERO, &subject(&history));
        Self {
            history,
            lane,
            options,
            now: Duration::ZERO,
            asked: false,
            in_flight: None,
            generation: 0,
            all: Vec::new(),
            ended: None,
            judge: Judge::from(0, word),
            accounted: 0,
            announced: 0,
            paused: false,
            closed: false,
            seq: 0,
            told_end: false,
            told_closed: false,
            was_disturbed: false,
            gave_up: 0,
            gap: 0,
            sent: 0,
            watermark: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            // A read goes on behind the end; what it finds there is not the lane's business.
            Step::Append(_) if self.ended.is_some() && self.options.form == Form::Pull => {}
            Step::Append(bytes) => self.append(&bytes),
            Step::Pass(ms, mux) => self.pass(ms, mux),
            Step::Take => self.take(),
            Step::Sent(handed) => self.sent(handed),
            Step::Look => _ = self.look(),
            Step::Pause => {
                let changed = self.lane.pause(self.now);
                assert_eq!(changed == Changed::Yes, !self.paused && !self.closed);
                self.paused |= !self.closed;
                self.was_disturbed = true;
            }
            Step::Resume => {
                let changed = self.lane.resume(self.now);
                assert_eq!(changed == Changed::Yes, self.paused && !self.closed);
                self.paused &= self.closed;
            }
            Step::Swap(word) => {
                let compiled = word.and_then(filter);
                self.lane.set_filter(self.now, &subject(&self.history), compiled);
                self.judge.swap(word);
            }
            Step::Replay(back, window) => self.replay(back, window),
            Step::Read(max) => self.read(max),
            Step::Trim(newest) => {
                self.history.trim_to(newest);
                self.was_disturbed = true;
            }
            Step::Finish => self.finish(),
            Step::Close => {
                let closing = self.lane.close(self.now, Reason::ManualClose);
                assert_eq!(closing == Closing::Won, !self.closed);
                self.closed = true;
            }
        }
        let report = self.lane.report();
        let bound = match self.options.form {
            Form::Pull => 1,
            // And the message that was refused.
            Form::Payload { .. } => self.options.queue as u64 + 1,
        };
        assert!(report.queue_depth <= bound, "{report:?}");
        assert!(report.queue_depth <= report.stats.queue_high_watermark, "{report:?}");
        assert!(self.watermark <= report.stats.queue_high_watermark);
        self.watermark = report.stats.queue_high_watermark;
        self.gave_up += self.lane.notices(self.now).gave_up;
    }

    fn append(&mut self, bytes: &[u8]) {
        self.history.append(Origin::Stdout, bytes);
        self.all.extend_from_slice(bytes);
        if self.ended.is_none() {
            bytes.iter().for_each(|byte| self.judge.take(*byte));
        }
    }

    fn finish(&mut self) {
        if self.ended.is_none() {
            self.history.finish();
            self.ended = Some(self.all.len() as u64);
            self.judge.end_line();
            // Bytes that come before the driver has looked would count as well.
            _ = self.look();
        }
    }

    fn look(&mut self) -> Look {
        let look = self.lane.look(self.now, &subject(&self.history));
        self.asked |= look.asks == Asks::Now;
        look
    }

    fn pass(&mut self, ms: u32, mux: Mux) {
        let until = self.now + ms * MS;
        for _ in 0..10_000 {
            let look = self.look();
            if mux == Mux::Takes && (self.asked || self.in_flight.is_some()) {
                self.take();
                self.sent(Handed::Accepted);
                continue;
            }
            match look.wake.filter(|wake| *wake <= until) {
                Some(wake) => self.now = wake.max(self.now),
                None => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("it never comes to rest");
    }

    fn take(&mut self) {
        if self.in_flight.is_some() || !std::mem::take(&mut self.asked) {
            return;
        }
        let Some(delivery) = self.lane.take(self.now, &subject(&self.history)) else { return };
        assert!(!self.paused || self.closed, "{delivery:?} while paused");
        assert_eq!(self.closed, matches!(delivery, Delivery::Closed { .. }));
        self.in_flight = Some((delivery, self.generation, self.all.len() as u64));
    }

    fn sent(&mut self, handed: Handed) {
        let Some((delivery, generation, end)) = self.in_flight.take() else { return };
        self.asked |= self.lane.sent(self.now, &subject(&self.history), handed) == Asks::Now;
        if handed == Handed::Refused {
            return;
        }
        assert!(!self.told_closed, "{delivery:?} after the last word");
        let is_current = generation == self.generation;
        assert!(!is_current || !self.told_end, "{delivery:?} after the end");
        match delivery {
            Delivery::Updated if is_current => self.announced = end,
            Delivery::Updated => {}
            Delivery::Piece(piece) => {
                self.count(piece.seq);
                let start = piece.cursor_after - piece.bytes.len() as u64;
                self.gap += piece.gap;
                self.sent += piece.bytes.len() as u64;
                assert_eq!(piece.bytes, self.all[start as usize..piece.cursor_after as usize]);
                if is_current {
                    self.account(piece.gap, start..piece.cursor_after);
                }
            }
            Delivery::End { seq, cursor, gap, .. } => {
                self.count(seq);
                self.gap += gap;
                assert_eq!(Some(cursor), self.ended);
                if is_current {
                    self.account(gap, cursor..cursor);
                    assert_eq!(self.accounted, self.judge.counted.len(), "the end is last");
                    self.told_end = true;
                }
            }
            Delivery::Closed { seq, .. } => {
                self.count(seq);
                self.told_closed = true;
            }
        }
    }

    fn count(&mut self, seq: u64) {
        assert_eq!(seq, self.seq);
        self.seq += 1;
    }

    /// So many positions that count are lost, and these ones are there.
    fn account(&mut self, gap: u64, range: Range<u64>) {
        let from = self.accounted + gap as usize;
        self.accounted = from + (range.end - range.start) as usize;
        let counted = self.judge.counted.get(from..self.accounted);
        let expected: Vec<_> = range.clone().collect();
        assert_eq!(counted, Some(&*expected), "{range:?} after a gap of {gap}: {:?}", self.judge.counted);
    }

    fn replay(&mut self, back: u64, window: u64) {
        if self.closed {
            return;
        }
        let end = self.ended.unwrap_or(self.all.len() as u64);
        let from = end.saturating_sub(back);
        let replayed = self.lane.replay(self.now, &subject(&self.history), from, window).unwrap();
        let base = self.history.mark().base.min(end);
        assert_eq!(replayed.start, from.max(base).max(end.saturating_sub(window)));
        assert_eq!((replayed.bytes, replayed.gap), (end - replayed.start, replayed.start - from));
        self.generation += 1;
        self.judge = Judge::from(replayed.start, self.judge.filter);
        self.all[replayed.start as usize..end as usize].iter().for_each(|byte| self.judge.take(*byte));
        if self.ended.is_some() {
            self.judge.end_line();
        }
        self.accounted = 0;
        self.announced = 0;
        self.told_end = false;
        self.was_disturbed = true;
    }

    fn read(&mut self, max: usize) {
        if self.closed {
            return;
        }
        let take = Take { max, view: View::Merged, characters: Characters::Any };
        let mut plain = None;
        let ranges = self.lane.read(self.now, &subject(&self.history), take, |at| {
            let window = self.history.read(at, max);
            let place = (window.start, window.next);
            plain = Some((at, window));
            place
        });
        if self.options.form != Form::Pull {
            return;
        }
        let (gap, bytes) = match (ranges, plain) {
            (Some(ranges), None) => (ranges.window.gap, ranges.window.bytes),
            (None, Some((at, window))) => (window.start - at, window.bytes),
            (ranges, plain) => panic!("{ranges:?} and {plain:?}"),
        };
        self.gap += gap;
        self.sent += bytes.len() as u64;
        let from = self.accounted + gap as usize;
        self.accounted = from + bytes.len();
        let counted = self.judge.counted.get(from..self.accounted);
        let expected: Option<Vec<_>> =
            counted.map(|counted| counted.iter().map(|at| self.all[*at as usize]).collect());
        assert_eq!(Some(bytes), expected);
    }

    /// The client takes everything, and time passes.
    fn settle(&mut self) {
        self.step(Step::Resume);
        self.step(Step::Pass(100, Mux::Takes));
        if self.ended.is_none() {
            // So that there is no unfinished line, and something behind every hole.
            self.append(b"ab\n");
        }
        self.step(Step::Pass(5000, Mux::Takes));
        let report = self.lane.report();
        let (is_pull, is_lossless) = match (self.options.form, self.options.policy) {
            (Form::Pull, _) => (true, true),
            (_, LagPolicy::Snapshot | LagPolicy::BlockSlow) => (false, true),
            (_, LagPolicy::DropOldest | LagPolicy::DropNewest) => (false, false),
        };
        if is_pull && !self.closed {
            let last = self.judge.counted.get(self.accounted..).and_then(|rest| rest.last());
            assert!(last.is_none_or(|last| *last < self.announced), "{last:?} is announced");
            while self.accounted < self.judge.counted.len() {
                let before = self.accounted;
                self.step(Step::Read(7));
                assert!(self.accounted > before);
            }
        }
        if !self.closed {
            assert_eq!(self.accounted, self.judge.counted.len(), "everything is told");
            assert_eq!(self.told_end || is_pull, self.ended.is_some() || is_pull);
            assert_eq!(self.lane.is_owed(), self.ended.is_none());
            assert_eq!(report.queue_depth, 0);
            assert!(is_pull || report.cursor == self.ended.unwrap_or(self.all.len() as u64));
        }
        assert_eq!(self.closed && !is_pull && !self.told_end, self.told_closed);
        assert!(!self.lane.owes_farewell());
        let stats = self.lane.report().stats;
        assert_eq!(stats.bytes_sent, self.sent);
        assert!(stats.gap_bytes == self.gap || !is_lossless && stats.gap_bytes < self.gap);
        let holds_back = !is_pull && self.options.policy == LagPolicy::BlockSlow;
        assert!(!holds_back || self.was_disturbed || self.gave_up > 0 || self.gap == 0);
    }
}

fn chunk() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => Just("a"),
        4 => Just("b"),
        4 => Just("\n"),
        1 => Just("\r"),
        1 => Just("\r\n"),
        1 => Just("\x1b[1m"),
        1 => Just("ä"),
        1 => Just("€"),
    ];
    proptest::collection::vec(part, 1..8).prop_map(|parts| parts.concat().into_bytes())
}

/// What happens to any lane; a pass of time is at most so long.
fn step(longest: u32) -> impl Strategy<Value = Step> {
    let handed = prop_oneof![3 => Just(Handed::Accepted), 1 => Just(Handed::Refused)];
    let mux = prop_oneof![Just(Mux::Takes), Just(Mux::Stands)];
    prop_oneof![
        10 => chunk().prop_map(Step::Append),
        6 => (0..longest, mux).prop_map(|(ms, mux)| Step::Pass(ms, mux)),
        5 => Just(Step::Take),
        5 => handed.prop_map(Step::Sent),
        8 => Just(Step::Look),
        1 => Just(Step::Pause),
        1 => Just(Step::Resume),
        2 => (0..20_usize).prop_map(Step::Read),
        1 => Just(Step::Finish),
    ]
}

fn replay() -> impl Strategy<Value = Step> {
    (0..60_u64, 0..60_u64).prop_map(|(back, window)| Step::Replay(back, window))
}

fn form() -> impl Strategy<Value = Form> {
    prop_oneof![Just(Form::Pull), (1..8_usize).prop_map(|piece| Form::Payload { piece })]
}

fn made(form: Form, policy: LagPolicy, queue: usize, bytes: Option<u64>) -> Options {
    let timing = Timing { debounce: 5 * MS, force: 100 * MS, bytes, keepalive: None };
    Options { policy, queue, timing, block_timeout: 30 * MS, ..options(form) }
}

fn play(mut play: Play, steps: Vec<Step>) {
    for step in steps {
        play.step(step);
    }
    play.settle();
}

fn repeatable() -> ProptestConfig {
    ProptestConfig {
        cases: 2000,
        rng_seed: RngSeed::Fixed(0x1a9e),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(repeatable())]

    #[test]
    fn every_position_is_delivered_or_told_lost_once(
        form in form(),
        policy in proptest::sample::select(&LagPolicy::ALL),
        queue in 1..5_usize,
        limit in 1..40_usize,
        window in prop_oneof![Just(6), Just(1 << 20)],
        bytes in proptest::option::of(1..10_u64),
        steps in proptest::collection::vec(
            prop_oneof![
                40 => step(400),
                1 => replay(),
                1 => (0..40_usize).prop_map(Step::Trim),
                1 => Just(Step::Close),
            ],
            1..60,
        ),
    ) {
        let options = Options { window, ..made(form, policy, queue, bytes) };
        play(Play::new(options, limit, None), steps);
    }

    #[test]
    fn every_line_that_matches_is_delivered_or_told_lost_once(
        form in form(),
        policy in proptest::sample::select(&LagPolicy::ALL),
        queue in 1..5_usize,
        bytes in proptest::option::of(1..10_u64),
        steps in proptest::collection::vec(
            prop_oneof![40 => step(20), 1 => replay(), 1 => Just(Step::Close)],
            1..50,
        ),
    ) {
        let options = Options { filter: filter("a"), ..made(form, policy, queue, bytes) };
        play(Play::new(options, 4096, Some("a")), steps);
    }

    /// lifecycle 6.35, by one thread: each line is judged by the filter in force when it ended.
    #[test]
    fn every_line_is_judged_by_the_filter_it_met(
        (form, policy, queue) in prop_oneof![
            Just((Form::Pull, LagPolicy::Snapshot, 64)),
            (1..8_usize, prop_oneof![Just(LagPolicy::DropOldest), Just(LagPolicy::DropNewest)], 1..5_usize)
                .prop_map(|(piece, policy, queue)| (Form::Payload { piece }, policy, queue)),
        ],
        word in proptest::option::of(Just("a")),
        steps in proptest::collection::vec(
            prop_oneof![
                20 => step(20),
                4 => proptest::option::of(prop_oneof![Just("a"), Just("b")]).prop_map(Step::Swap),
            ],
            1..50,
        ),
    ) {
        let options = Options { filter: word.and_then(filter), ..made(form, policy, queue, None) };
        play(Play::new(options, 4096, word), steps);
    }
}
