//! Histories against a reference that forgets nothing, and their size in memory.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed},
};

use super::{ByteHistory, History, Keep, LogHistory, Mark, Origin, StateHistory, View};
use Origin::{Stderr, Stdout};

/// Everything a stream ever had, and where its history begins.
#[derive(Default)]
struct Reference {
    all: Vec<(Origin, u8)>,
    base: usize,
    seq: u64,
    ended: bool,
    limit: usize,
}

#[derive(Debug, Clone)]
enum Step {
    Append(Origin, usize),
    Trim(usize),
    Limit(usize),
    Finish,
    Read(View, usize, usize),
    Tail(View, usize),
}

impl Reference {
    fn trim(&mut self, newest: usize) {
        self.base = self.base.max(self.all.len().saturating_sub(newest));
    }

    fn mark(&self) -> Mark {
        Mark { base: self.base as u64, end: self.all.len() as u64, seq: self.seq, ended: self.ended }
    }

    fn check(&mut self, history: &ByteHistory, step: &Step) {
        match *step {
            Step::Append(origin, length) => {
                let bytes: Vec<_> =
                    (self.all.len()..self.all.len() + length).map(|at| (at % 251) as u8).collect();
                history.append(origin, &bytes);
                self.all.extend(bytes.into_iter().map(|byte| (origin, byte)));
                self.seq += u64::from(length > 0);
                self.trim(self.limit);
            }
            Step::Trim(newest) => {
                history.trim_to(newest);
                self.trim(newest);
            }
            Step::Limit(limit) => {
                history.set_limit(limit);
                self.limit = limit;
                self.trim(limit);
            }
            Step::Finish => {
                history.finish();
                self.ended = true;
            }
            Step::Read(view, from, max) => self.check_read(history, view, from, max),
            Step::Tail(view, max) => {
                let tail = history.tail(view, max);
                let seen = self.shown(view, self.base);
                assert_eq!(tail.bytes, seen[seen.len().saturating_sub(max)..]);
                assert_eq!(tail.total, self.shown(view, 0).len() as u64);
                assert_eq!(tail.mark, self.mark());
            }
        }
        assert_eq!(history.mark(), self.mark());
        assert_eq!(history.held(), self.all.len() - self.base);
    }

    fn check_read(&self, history: &ByteHistory, view: View, from: usize, max: usize) {
        let window = history.read_origin(view, from as u64, max);
        let start = from.max(self.base).min(self.all.len());
        assert_eq!(
            (window.start, window.base, window.end),
            (start as u64, self.mark().base, self.mark().end)
        );
        assert_eq!((window.gap, window.ended), (self.base.saturating_sub(from) as u64, self.ended));
        let mut expected = self.shown(view, start);
        expected.truncate(max);
        assert_eq!(window.bytes, expected);
        let next = window.next as usize;
        let passed = &self.all[start..next];
        assert_eq!(passed.iter().filter(|(origin, _)| view.shows(*origin)).count(), expected.len());
        assert!(window.bytes.len() == max || next == self.all.len(), "stopped at {next} for nothing");
        let origins: Vec<_> =
            passed.iter().map(|(origin, _)| *origin).filter(|origin| view.shows(*origin)).collect();
        let runs: Vec<_> = window.runs.iter().flat_map(|(origin, length)| vec![*origin; *length]).collect();
        assert_eq!(runs, origins);
        assert!(window.runs.windows(2).all(|pair| pair[0].0 != pair[1].0), "{:?}", window.runs);
    }

    fn shown(&self, view: View, from: usize) -> Vec<u8> {
        self.all[from..].iter().filter(|(origin, _)| view.shows(*origin)).map(|(_, byte)| *byte).collect()
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let origin = prop_oneof![Just(Stdout), Just(Stderr)];
    let view = prop_oneof![Just(View::Merged), Just(View::Stdout), Just(View::Stderr)];
    let step = prop_oneof![
        12 => (origin, 0..150_usize).prop_map(|(origin, length)| Step::Append(origin, length)),
        1 => (0..300_usize).prop_map(Step::Trim),
        1 => (0..600_usize).prop_map(Step::Limit),
        1 => Just(Step::Finish),
        6 => (view.clone(), 0..3000_usize, 0..500_usize).prop_map(|(view, from, max)| Step::Read(view, from, max)),
        4 => (view, 0..500_usize).prop_map(|(view, max)| Step::Tail(view, max)),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(Config {
        cases: 1000,
        rng_seed: RngSeed::Fixed(0x5348),
        failure_persistence: None,
        ..Config::default()
    })]

    /// lifecycle 6.1 to 6.3, by one thread: windows, tails, gaps and views equal those of the reference.
    #[test]
    fn a_history_agrees_with_a_list_that_forgets_nothing(
        steps in steps(),
        limit in 0..600_usize,
        segment in 1..300_usize,
    ) {
        let history = ByteHistory::with_segments(limit, segment);
        let mut reference = Reference { limit, ..Reference::default() };
        for step in &steps {
            reference.check(&history, step);
        }
    }
}

const MIB: usize = 1024 * 1024;

#[test]
fn single_bytes_cost_little_more_than_themselves() {
    for origins in [[Stdout, Stdout], [Stdout, Stderr]] {
        let history = ByteHistory::new(MIB);
        for at in 0..2 * MIB {
            history.append(origins[at % 2], b"x");
        }
        let footprint = history.footprint();
        assert_eq!(history.held(), MIB);
        assert!(footprint <= MIB * 12 / 10 + 2 * 64 * 1024, "{footprint} bytes for {origins:?}");
    }
}

#[test]
fn a_short_output_takes_a_short_history() {
    let history = ByteHistory::new(10 * MIB);
    history.append(Stdout, b"total 0\n");
    history.append(Stderr, b"warning\n");
    history.finish();
    assert!(history.footprint() < 256, "{}", history.footprint());
}

#[test]
fn a_window_is_cut_with_its_origins() {
    let history = ByteHistory::new(MIB);
    history.append(Stdout, b"out");
    history.append(Stderr, b"e");
    history.append(Stdout, b"o");
    for (cut, bytes, runs) in [
        (0, &b"outeo"[..], &[(Stdout, 3), (Stderr, 1), (Stdout, 1)][..]),
        (1, b"oute", &[(Stdout, 3), (Stderr, 1)]),
        (3, b"ou", &[(Stdout, 2)]),
        (9, b"", &[]),
    ] {
        let window = history.read(0, 10).without_last(cut);
        assert_eq!((&window.bytes[..], &window.runs[..]), (bytes, runs), "{cut}");
        assert_eq!(window.next, bytes.len() as u64);
    }
}

#[test]
fn what_retention_drops_is_given_back() {
    let history = ByteHistory::new(10 * MIB);
    for _ in 0..100 {
        history.append(Stdout, &[0; 100_000]);
    }
    history.finish();
    history.trim_to(64 * 1024);
    assert_eq!(history.held(), 64 * 1024);
    assert!(history.footprint() <= 66 * 1024, "{}", history.footprint());
}

#[test]
fn bytes_that_come_after_the_end_are_kept() {
    let history = ByteHistory::new(MIB);
    history.append(Stdout, b"done\n");
    history.append(Stderr, b"!");
    history.finish();
    history.append(Stderr, b"from a child");
    let window = history.read(0, MIB);
    assert_eq!(window.bytes, b"done\n!from a child");
    assert_eq!(window.runs, [(Stdout, 5), (Stderr, 13)]);
    assert!(window.ended);
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn each_change_of_each_class_wakes_and_several_count_as_one() {
    let bytes = ByteHistory::new(MIB);
    let log = LogHistory::new(8, Keep::Newest);
    let state = StateHistory::new(0);
    let changes: [(History<'_>, &dyn Fn()); 3] = [
        (History::Bytes(&bytes), &|| bytes.append(Stdout, b"x")),
        (History::Log(&log), &|| assert!(log.append(1).is_some())),
        (History::State(&state), &|| assert!(state.record(1).is_some())),
    ];
    for (history, change) in changes {
        let mut watch = history.watch();
        assert!(poll_once(watch.changed()).is_pending(), "{history:?}");
        change();
        change();
        assert!(poll_once(watch.changed()).is_ready(), "{history:?}");
        assert!(poll_once(watch.changed()).is_pending(), "{history:?}");
        assert_eq!((history.mark().seq, history.mark().ended), (2, false), "{history:?}");
    }
}

#[test]
fn a_log_keeps_the_newest_and_counts_what_is_gone() {
    let log = LogHistory::new(3, Keep::Newest);
    for event in "abcde".chars() {
        assert!(log.append(event).is_some());
    }
    check_log(&log, 0, 8, "2:c 3:d 4:e", (2, 5, 2));
    check_log(&log, 3, 8, "3:d 4:e", (3, 5, 0));
    check_log(&log, 0, 2, "2:c 3:d", (2, 4, 2));
    check_log(&log, 9, 8, "", (5, 5, 0));
    assert_eq!(log.finish('!'), Some(5));
    assert_eq!(log.finish('?'), None);
    assert_eq!(log.append('?'), None);
    check_log(&log, 4, 8, "4:e 5:!", (4, 6, 0));
    assert_eq!(log.mark(), Mark { base: 3, end: 6, seq: 6, ended: true });
}

#[test]
fn a_superseded_event_leaves_its_number_unused() {
    let log = LogHistory::new(8, Keep::Newest);
    assert_eq!(log.append('a'), Some(0));
    assert_eq!(log.append('b'), Some(1));
    assert_eq!(log.supersede(1, 'c'), Some(2));
    assert_eq!(log.supersede(1, 'd'), Some(3));
    check_log(&log, 0, 8, "0:a 2:c 3:d", (0, 4, 0));
    check_log(&log, 1, 1, "2:c", (1, 3, 0));
    assert_eq!(log.supersede(3, 'e'), Some(4));
    check_log(&log, 3, 8, "4:e", (3, 5, 0));
}

#[test]
fn a_kept_first_event_is_given_to_who_begins_at_the_beginning() {
    let log = LogHistory::new(2, Keep::FirstAndNewest);
    for event in "abcd".chars() {
        assert!(log.append(event).is_some());
    }
    check_log(&log, 0, 8, "0:a 2:c 3:d", (0, 4, 1));
    check_log(&log, 0, 1, "0:a", (0, 1, 1));
    check_log(&log, 1, 8, "2:c 3:d", (2, 4, 1));
}

/// Reads, and compares events and (start, next, gap).
fn check_log(log: &LogHistory<char>, from: u64, max: usize, events: &str, place: (u64, u64, u64)) {
    let window = log.read(from, max);
    let seen: Vec<_> = window.events.iter().map(|(number, event)| format!("{number}:{event}")).collect();
    assert_eq!(seen.join(" "), events, "from {from}");
    assert_eq!((window.start, window.next, window.gap), place, "from {from}");
}

/// lifecycle 6.7: of a state, whose numbers the checker does not see, by 1,000 rounds of four threads.
#[test]
#[expect(clippy::disallowed_methods, reason = "the swap of a snapshot is checked by real threads")]
fn numbers_of_a_state_are_given_once_and_rise_for_each_thread() {
    const ROUNDS: u64 = 1000;
    let state = Arc::new(StateHistory::new(0));
    let mut all = std::thread::scope(|scope| {
        let threads = [(); 4].map(|()| {
            scope.spawn(|| {
                let mine: Vec<_> = (0..ROUNDS).map(|round| state.record(round).unwrap()).collect();
                assert!(mine.is_sorted_by(|one, next| one < next));
                mine
            })
        });
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    all.sort_unstable();
    assert!(all.into_iter().eq(1..=4 * ROUNDS));
    assert_eq!(state.finish(7), Some(4 * ROUNDS + 1));
    assert_eq!((*state.load(), state.record(8), state.read().ended), (7, None, true));
}

#[test]
fn room_is_what_the_slowest_reader_has_had() {
    let has_room =
        |history: &ByteHistory| pin!(history.room()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
    let history = ByteHistory::new(8).waiting_for_readers();
    history.append(Stdout, b"four");
    assert!(has_room(&history));
    history.append(Stderr, b"5");
    assert!(!has_room(&history), "the first reader is to find everything");
    let [slow, fast] = [0, 0].map(|at| history.hold_from(at));
    fast.move_to(5);
    assert!(!has_room(&history));
    slow.move_to(1);
    assert!(has_room(&history));
    history.append(Stdout, b"6");
    assert!(!has_room(&history));
    drop(slow);
    assert!(has_room(&history));

    let of_others = ByteHistory::new(8);
    let _floor = of_others.hold_from(0);
    of_others.append(Stdout, b"more than half");
    assert!(has_room(&of_others));
}
