//! Stories of a sync's course under every interleaving; the numbers are those of `docs/lifecycle.md` part 6.

use std::{sync::Arc, time::Duration};

use ::loom::thread;

use super::{Course, Event, Failure, Fault, Transport};
use crate::{
    lifecycle::{AutoRelease, Close, Lifecycle},
    port::mirror::{News, Skip},
    sync::OnceCell,
};

const NOW: Duration = Duration::ZERO;

fn skipped(path: &'static [u8]) -> News<'static> {
    News::Skipped { path, bytes: 1, because: Skip::Mtime }
}

/// lifecycle 6.49: a sync that is cancelled while it ends has one last event, and it says what its status says.
#[test]
fn a_cancel_and_a_natural_end_leave_one_last_event() {
    ::loom::model(|| {
        let life = Arc::new(Lifecycle::owned(AutoRelease::Off));
        let order = Arc::new(OnceCell::new());
        let course = Arc::new(Course::new(Transport::Wire, false));
        let caller = {
            let (life, order) = (Arc::clone(&life), Arc::clone(&order));
            thread::spawn(move || {
                if life.close() == Close::Won {
                    order.set(()).unwrap();
                }
            })
        };
        // News that come from another thread, at the end or behind it.
        let teller = {
            let course = Arc::clone(&course);
            thread::spawn(move || course.tell(NOW, skipped(b"late")))
        };
        let won = life.close() == Close::Won;
        if !won {
            caller.join().unwrap();
            assert!(order.get().is_some());
        }
        let cancelled = Fault::new(Failure::Cancelled, "ended".to_owned());
        course.close(NOW);
        course.finish(NOW, (!won).then_some(&cancelled), None);
        course.finish(NOW, None, Some("never told"));
        teller.join().unwrap();
        let window = course.log.read(0, usize::MAX);
        assert!(window.ended);
        let is_end =
            |event: &Event| matches!(event, Event::SyncCompleted { .. } | Event::SessionFailed { .. });
        assert_eq!(window.events.iter().filter(|(_, logged)| is_end(&logged.event)).count(), 1);
        let last = &window.events.last().unwrap().1.event;
        let expected = if won {
            Event::SyncCompleted { stats: course.stats(), delete_skipped: None }
        } else {
            Event::SessionFailed { code: "CANCELLED", detail: "ended".to_owned() }
        };
        assert_eq!(*last, expected);
    });
}

/// lifecycle 6.50: who reads the counters while files are counted sees none fall and never more done than there are.
#[test]
fn counters_only_rise_and_stay_once_closed() {
    ::loom::model(|| {
        let course = Arc::new(Course::new(Transport::Sftp, false));
        let teller = {
            let course = Arc::clone(&course);
            thread::spawn(move || {
                course.tell(NOW, News::Planned { files: 1, bytes: 1 });
                course.tell(NOW, skipped(b"a"));
                course.close(NOW);
                let last = course.stats();
                course.tell(NOW, skipped(b"late"));
                last
            })
        };
        let before = course.stats();
        let after = course.stats();
        for seen in [before, after] {
            assert!(seen.files_done <= seen.files_total, "{seen:?}");
        }
        assert!(before.files_done <= after.files_done && before.bytes_skipped <= after.bytes_skipped);
        assert!(before.files_total <= after.files_total);
        assert_eq!(teller.join().unwrap(), course.stats());
    });
}
