//! Stories of histories under every interleaving; the numbers are those of `docs/lifecycle.md` part 6.
//!
//! Segments of two bytes, so that a few bytes cross them. Byte `n` of every stream is the letter `n`, from standard
//! error at odd offsets, so that a window shows by itself whether it is what was appended there.

use std::sync::Arc;

use loom::{future::block_on, thread};

use super::{ByteHistory, Floor, Keep, LogHistory, Mark, Origin, View, Window};
use crate::watch::Heeds;

fn letters(limit: usize) -> Arc<ByteHistory> {
    Arc::new(ByteHistory::with_segments(limit, 2))
}

fn letter(at: u64) -> u8 {
    b'a' + u8::try_from(at).unwrap()
}

fn origin(at: u64) -> Origin {
    if at.is_multiple_of(2) { Origin::Stdout } else { Origin::Stderr }
}

fn append(history: &ByteHistory, letters: std::ops::Range<u64>) {
    for at in letters {
        history.append(origin(at), &[letter(at)]);
    }
}

/// lifecycle 6.1, 6.3: what every window must be.
fn assert_is_consistent(window: &Window, from: u64) {
    assert!(window.base <= window.end, "{window:?}");
    assert_eq!(window.start, from.max(window.base).min(window.end), "{window:?}");
    assert_eq!(window.gap, window.base.saturating_sub(from), "{window:?}");
    let expected: Vec<_> = (window.start..window.next).map(letter).collect();
    assert_eq!(window.bytes, expected, "{window:?}");
    let origins: Vec<_> = window.runs.iter().flat_map(|(of, length)| vec![*of; *length]).collect();
    let expected: Vec<_> = (window.start..window.next).map(origin).collect();
    assert_eq!(origins, expected, "{window:?}");
}

fn assert_never_falls(marks: &[Mark]) {
    for pair in marks.windows(2) {
        assert!(pair[0].base <= pair[1].base && pair[0].end <= pair[1].end && pair[0].seq <= pair[1].seq);
        assert!(pair[0].ended <= pair[1].ended);
    }
}

/// lifecycle 6.1
#[test]
fn readers_see_what_was_appended_at_each_offset() {
    loom::model(|| {
        let history = letters(3);
        append(&history, 0..2);
        let readers = [0, 1].map(|from| {
            let history = Arc::clone(&history);
            thread::spawn(move || assert_is_consistent(&history.read(from, 8), from))
        });
        append(&history, 2..5);
        for reader in readers {
            reader.join().unwrap();
        }
        let all = history.read(0, 8);
        assert_is_consistent(&all, 0);
        assert_eq!((all.base, all.next, all.end), (2, 5, 5));
    });
}

/// lifecycle 6.2
#[test]
fn a_trim_beside_an_append_loses_and_doubles_nothing_that_is_held() {
    loom::model(|| {
        let history = letters(8);
        append(&history, 0..3);
        let trimmer = {
            let history = Arc::clone(&history);
            thread::spawn(move || history.trim_to(1))
        };
        let looker = {
            let history = Arc::clone(&history);
            thread::spawn(move || {
                let marks = [history.mark(), history.mark()];
                assert_never_falls(&marks);
                let window = history.read(0, 8);
                assert_is_consistent(&window, 0);
                assert!(window.base >= marks[1].base && window.end >= marks[1].end);
            })
        };
        append(&history, 3..5);
        trimmer.join().unwrap();
        looker.join().unwrap();
        let all = history.read(0, 8);
        assert_is_consistent(&all, 0);
        assert_eq!(all.next, 5);
        assert!((2..=4).contains(&all.base));
    });
}

/// lifecycle 6.3
#[test]
fn a_reader_that_is_passed_by_trimming_gets_its_bytes_or_the_exact_gap() {
    loom::model(|| {
        let history = letters(4);
        append(&history, 0..4);
        let trimmer = {
            let history = Arc::clone(&history);
            thread::spawn(move || append(&history, 4..7))
        };
        let window = history.read(1, 8);
        assert_is_consistent(&window, 1);
        assert!(window.next > 1, "{window:?}");
        let view = history.read_origin(View::Stderr, 1, 8);
        let expected: Vec<_> = (view.start..view.next).filter(|at| at % 2 == 1).map(letter).collect();
        assert_eq!(view.bytes, expected, "{view:?}");
        trimmer.join().unwrap();
    });
}

/// lifecycle 6.7
#[test]
fn numbers_of_a_log_are_given_once_and_rise_for_each_thread() {
    loom::model(|| {
        let log = Arc::new(LogHistory::new(8, Keep::Newest));
        let take = |log: &LogHistory<()>| [log.append(()).unwrap(), log.append(()).unwrap()];
        let other = {
            let log = Arc::clone(&log);
            thread::spawn(move || take(&log))
        };
        let mine = take(&log);
        let theirs = other.join().unwrap();
        assert!(mine[0] < mine[1] && theirs[0] < theirs[1]);
        let mut all = [mine, theirs].concat();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
        let held: Vec<_> = log.read(0, 8).events.iter().map(|(number, _)| *number).collect();
        assert_eq!(held, all);
    });
}

/// lifecycle 6.9
#[test]
fn a_waiter_never_sleeps_with_bytes_unseen() {
    loom::model(|| {
        let history = letters(8);
        let waiter = {
            let history = Arc::clone(&history);
            thread::spawn(move || {
                // Deadlock would be the failure.
                block_on(async {
                    let mut watch = history.watch();
                    while history.mark().end < 2 {
                        watch.changed().await;
                    }
                });
            })
        };
        append(&history, 0..2);
        waiter.join().unwrap();
    });
}

/// lifecycle 6.9: of a waiter that rested.
#[test]
fn a_waiter_that_heeds_everything_again_never_sleeps_with_bytes_unseen() {
    loom::model(|| {
        let history = letters(8);
        let waiter = {
            let history = Arc::clone(&history);
            thread::spawn(move || {
                block_on(async {
                    let mut watch = history.watch();
                    watch.heed(Heeds::TheEnd);
                    watch.heed(Heeds::Everything);
                    while history.mark().end == 0 {
                        watch.changed().await;
                    }
                    watch.heed(Heeds::TheEnd);
                    while !history.mark().ended {
                        watch.changed().await;
                    }
                });
            })
        };
        append(&history, 0..1);
        history.finish();
        waiter.join().unwrap();
    });
}

/// lifecycle 6.9: the set of waiters changes while one of them is woken.
#[test]
fn a_waiter_is_woken_while_others_come_and_go() {
    loom::model(|| {
        let history = letters(8);
        let leaving = history.watch();
        let waiter = {
            let history = Arc::clone(&history);
            thread::spawn(move || {
                block_on(async {
                    let mut watch = history.watch();
                    while history.mark().end == 0 {
                        watch.changed().await;
                    }
                });
            })
        };
        let leaver = thread::spawn(move || drop(leaving));
        append(&history, 0..1);
        waiter.join().unwrap();
        leaver.join().unwrap();
    });
}

/// lifecycle 6.9: of who appends, while its slowest reader goes on, lifts its floor or leaves.
#[test]
fn who_appends_never_sleeps_with_room_unseen() {
    let ways: [fn(Arc<Floor>) -> Option<Arc<Floor>>; 3] = [
        |floor| {
            floor.move_to(1);
            Some(floor)
        },
        |floor| {
            floor.lift();
            Some(floor)
        },
        |floor| {
            drop(floor);
            None
        },
    ];
    for go_on in ways {
        loom::model(move || {
            let history = Arc::new(ByteHistory::with_segments(4, 2).waiting_for_readers());
            let floor = history.hold_from(0);
            append(&history, 0..3);
            let reader = thread::spawn(move || go_on(floor));
            // Deadlock would be the failure.
            block_on(history.room());
            append(&history, 3..5);
            let window = history.read(1, 8);
            assert_is_consistent(&window, 1);
            assert_eq!((window.gap, window.next), (0, 5));
            reader.join().unwrap();
        });
    }
}

/// lifecycle 6.10
#[test]
fn who_sees_the_end_can_read_every_byte_before_it() {
    loom::model(|| {
        let history = letters(8);
        append(&history, 0..1);
        let reader = {
            let history = Arc::clone(&history);
            thread::spawn(move || {
                let marked = history.mark().ended;
                let window = history.read(0, 8);
                assert_is_consistent(&window, 0);
                if marked || window.ended {
                    assert_eq!((window.next, window.ended), (3, true));
                }
            })
        };
        append(&history, 1..3);
        history.finish();
        reader.join().unwrap();
    });
}

/// lifecycle 6.10: of a log, whose end is its last event.
#[test]
fn the_last_event_of_a_log_is_its_end_and_nothing_follows() {
    loom::model(|| {
        let log = Arc::new(LogHistory::new(8, Keep::Newest));
        let late = {
            let log = Arc::clone(&log);
            thread::spawn(move || log.append("progress"))
        };
        let end = log.finish("end");
        let late = late.join().unwrap();
        let window = log.read(0, 8);
        assert!(window.ended);
        assert_eq!(
            window.events.last().map(|(number, event)| (*number, **event)),
            end.map(|end| (end, "end"))
        );
        assert_eq!(window.events.len(), 1 + usize::from(late.is_some()));
    });
}
