//! Stories of lives under every interleaving; the numbers are those of `docs/lifecycle.md` part 6.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use loom::{future::block_on, thread};

use super::{
    AutoRelease, Close, Confirmed, Disconnect, End, Ending, Expired, Gate, GivenBack, Leak, Lifecycle,
    Observed, Reap, Released, Report, SessionLife, SessionRef, SessionState, Shut, Snapshot, State, Taken,
    Touched,
};
use crate::{
    history::{ByteHistory, Origin},
    reason::Reason,
    sync::{AtomicBool, AtomicU64, Ordering},
};

fn observed(auto_release: AutoRelease) -> Arc<Lifecycle> {
    let life = Arc::new(Lifecycle::owned(auto_release));
    assert_eq!(life.observe(), Observed::Accepted);
    life
}

fn releasing() -> (Arc<Lifecycle>, super::Epoch) {
    let life = observed(AutoRelease::On);
    let Released::ArmGrace(epoch) = life.release() else { unreachable!("the only observer left") };
    (life, epoch)
}

fn spawn<A, T>(shared: &Arc<A>, act: impl FnOnce(&Arc<A>) -> T + 'static) -> thread::JoinHandle<T>
where
    A: Send + Sync + 'static,
    T: 'static,
{
    let shared = Arc::clone(shared);
    thread::spawn(move || act(&shared))
}

fn assert_count_matches(now: Snapshot) {
    match now.state {
        State::Owned | State::Releasing => assert_eq!(now.observers, 0, "{now:?}"),
        State::Observed => assert!(now.observers >= 1, "{now:?}"),
        State::Closed => {}
    }
}

/// lifecycle 6.11
#[test]
fn state_and_count_agree_while_observers_come_and_go() {
    loom::model(|| {
        let life = observed(AutoRelease::Off);
        let guest = spawn(&life, |life| {
            assert_eq!(life.observe(), Observed::Accepted);
            life.release()
        });
        let looker = spawn(&life, |life| assert_count_matches(life.snapshot()));
        assert_eq!(life.release(), Released::Nothing);
        assert_count_matches(life.snapshot());
        assert_eq!(guest.join().unwrap(), Released::Nothing);
        looker.join().unwrap();
        let end = life.snapshot();
        assert_eq!((end.state, end.observers), (State::Owned, 0));
    });
}

/// lifecycle 6.11
#[test]
fn an_observer_that_stays_is_counted_however_the_other_leaves() {
    loom::model(|| {
        let life = observed(AutoRelease::Off);
        let newcomer = spawn(&life, |life| life.observe());
        assert_eq!(life.release(), Released::Nothing);
        assert_eq!(newcomer.join().unwrap(), Observed::Accepted);
        let end = life.snapshot();
        assert_eq!((end.state, end.observers), (State::Observed, 1));
    });
}

/// lifecycle 6.12
#[test]
fn no_timer_is_left_once_an_observer_has_stayed() {
    loom::model(|| {
        let life = observed(AutoRelease::On);
        let newcomer = spawn(&life, |life| life.observe());
        let released = life.release();
        assert_eq!(newcomer.join().unwrap(), Observed::Accepted);
        let end = life.snapshot();
        assert_eq!((end.state, end.observers), (State::Observed, 1));
        if let Released::ArmGrace(epoch) = released {
            assert_eq!(life.expire(epoch), Expired::Void);
        }
    });
}

/// lifecycle 6.12
#[test]
fn exactly_one_timer_is_alive_when_all_observers_have_left() {
    loom::model(|| {
        let life = observed(AutoRelease::On);
        let guest = spawn(&life, |life| {
            assert_eq!(life.observe(), Observed::Accepted);
            life.release()
        });
        let looker = spawn(&life, |life| assert_count_matches(life.snapshot()));
        let host = life.release();
        let guest = guest.join().unwrap();
        looker.join().unwrap();
        assert_eq!(life.snapshot().state, State::Releasing);
        let fired = [host, guest].into_iter().filter(|released| match released {
            Released::ArmGrace(epoch) => life.expire(*epoch) == Expired::RunClose,
            Released::Nothing => false,
            Released::Refused => unreachable!("each observer was counted"),
        });
        assert_eq!(fired.count(), 1);
    });
}

/// lifecycle 6.13
#[test]
fn a_late_observer_beats_the_grace_timer_or_is_refused() {
    loom::model(|| {
        let (life, epoch) = releasing();
        let late = spawn(&life, |life| life.observe() == Observed::Accepted);
        let closed = life.expire(epoch) == Expired::RunClose;
        assert_ne!(late.join().unwrap(), closed);
        let end = life.snapshot();
        assert_eq!(end.state, if closed { State::Closed } else { State::Observed });
    });
}

/// lifecycle 6.14
#[test]
fn a_timer_of_an_older_arming_does_nothing() {
    loom::model(|| {
        let (life, first) = releasing();
        let late = spawn(&life, move |life| life.expire(first));
        let back = life.observe();
        let second = match back {
            Observed::Accepted => Some(life.release()),
            Observed::Refused => None,
        };
        match (late.join().unwrap(), second) {
            // It fired before it was cancelled.
            (Expired::RunClose, None) => assert_eq!(life.snapshot().state, State::Closed),
            (Expired::Void, Some(Released::ArmGrace(second))) => {
                assert_eq!(life.snapshot().state, State::Releasing);
                assert_eq!(life.expire(second), Expired::RunClose);
            }
            (late, second) => panic!("{late:?} and {second:?}"),
        }
    });
}

/// lifecycle 6.14
#[test]
fn input_that_pushes_the_deadline_beats_the_timer_or_finds_it_closed() {
    loom::model(|| {
        let (life, first) = releasing();
        let timer = spawn(&life, move |life| life.expire(first));
        match life.push_deadline() {
            Some(second) => {
                assert_eq!(timer.join().unwrap(), Expired::Void);
                assert_eq!(life.armed(), Some(second));
            }
            None => assert_eq!(timer.join().unwrap(), Expired::RunClose),
        }
    });
}

/// lifecycle 6.15
#[test]
fn the_first_observer_beats_the_own_grace_timer_or_is_refused() {
    loom::model(|| {
        let life = Arc::new(Lifecycle::owned(AutoRelease::On));
        let epoch = life.armed().unwrap();
        let first = spawn(&life, |life| life.observe() == Observed::Accepted);
        let closed = life.expire(epoch) == Expired::RunClose;
        assert_ne!(first.join().unwrap(), closed);
    });
}

/// lifecycle 6.15: the inactivity timer, which has no epoch.
#[test]
fn the_first_observer_beats_the_inactivity_timer_or_is_refused() {
    loom::model(|| {
        let life = Arc::new(Lifecycle::owned(AutoRelease::Off));
        let first = spawn(&life, |life| life.observe() == Observed::Accepted);
        let closed = life.expire_idle() == Expired::RunClose;
        assert_ne!(first.join().unwrap(), closed);
    });
}

/// A resource on a session, as its entry holds it.
struct Entry {
    life: Lifecycle,
    ending: Ending<&'static str>,
    session: SessionRef,
    closings: AtomicU32,
}

impl Entry {
    fn on(session: &Arc<SessionLife>) -> Option<Arc<Self>> {
        let session = SessionRef::take(session)?;
        Some(Arc::new(Self {
            life: Lifecycle::owned(AutoRelease::On),
            ending: Ending::new(),
            session,
            closings: AtomicU32::new(0),
        }))
    }

    /// What the winner of the word does.
    fn run_close(&self, reason: Reason, facts: &'static str) {
        self.closings.fetch_add(1, Relaxed);
        assert!(self.ending.record(End { reason, facts, at: Duration::ZERO }).is_ok());
        assert_ne!(self.session.give_back(), None);
    }

    fn close(&self, reason: Reason, facts: &'static str) -> bool {
        let won = self.life.close() == Close::Won;
        if won {
            self.run_close(reason, facts);
        }
        won
    }
}

/// lifecycle 6.16
#[test]
fn one_of_three_closers_wins_and_closes_once() {
    loom::model(|| {
        let session = Arc::new(SessionLife::new());
        let entry = Entry::on(&session).unwrap();
        let epoch = entry.life.armed().unwrap();
        let asked = spawn(&entry, |entry| entry.close(Reason::ManualClose, ""));
        let timer = spawn(&entry, move |entry| {
            let won = entry.life.expire(epoch) == Expired::RunClose;
            if won {
                entry.run_close(Reason::NeverObserved, "");
            }
            won
        });
        let ended = entry.close(Reason::Completed, "");
        let (asked, timer) = (asked.join().unwrap(), timer.join().unwrap());
        assert_eq!([asked, timer, ended].into_iter().filter(|won| *won).count(), 1);
        assert_eq!(entry.closings.load(Relaxed), 1);
        let reason = entry.ending.get().unwrap().reason;
        assert_eq!((reason == Reason::ManualClose, reason == Reason::NeverObserved), (asked, timer));
        assert_eq!(session.snapshot().refs, 0);
    });
}

/// lifecycle 6.17
#[test]
fn status_and_reason_of_an_end_belong_together() {
    loom::model(|| {
        let session = Arc::new(SessionLife::new());
        let entry = Entry::on(&session).unwrap();
        let cancel = spawn(&entry, |entry| entry.close(Reason::Cancelled, "cancelled"));
        let reader = spawn(&entry, |entry| entry.ending.get().cloned());
        let ended = entry.close(Reason::Completed, "completed");
        assert_ne!(cancel.join().unwrap(), ended);
        let end = entry.ending.get().unwrap();
        assert_eq!(end.reason.as_str(), end.facts);
        if let Some(seen) = reader.join().unwrap() {
            assert_eq!(seen, *end);
        }
    });
}

/// lifecycle 6.8
#[test]
fn a_write_once_cell_keeps_what_a_reader_saw() {
    loom::model(|| {
        let ending = Arc::new(Ending::new());
        let end = |facts| End { reason: Reason::Failed, facts, at: Duration::ZERO };
        let first = spawn(&ending, move |ending| ending.record(end(1)).is_ok());
        let second = spawn(&ending, move |ending| ending.record(end(2)).is_ok());
        let early = ending.get().map(|end| end.facts);
        let later = ending.get().map(|end| end.facts);
        assert!(early.is_none() || early == later);
        let (first, second) = (first.join().unwrap(), second.join().unwrap());
        assert_ne!(first, second);
        let last = ending.get().map(|end| end.facts);
        assert_eq!(last, Some(if first { 1 } else { 2 }));
        assert!(later.is_none() || later == last);
    });
}

/// lifecycle 6.18
#[test]
fn an_accepted_observer_hears_of_the_end() {
    loom::model(|| {
        let shared = Arc::new((Lifecycle::owned(AutoRelease::Off), ByteHistory::new(8)));
        let observer = spawn(&shared, |shared| {
            let (life, history) = &**shared;
            if life.observe() == Observed::Refused {
                return;
            }
            // Deadlock would be the failure: an observer that nobody tells.
            block_on(async {
                let mut watch = history.watch();
                while !history.mark().ended {
                    watch.changed().await;
                }
            });
        });
        let (life, history) = &*shared;
        assert_eq!(life.close(), Close::Won);
        history.append(Origin::Stdout, b"!");
        history.finish();
        observer.join().unwrap();
        assert_eq!(life.observe(), Observed::Refused);
    });
}

/// One look of the leak watcher: the time without an observer it reported, if it did.
fn scan(life: &Lifecycle) -> Option<super::Epoch> {
    let seen = life.snapshot();
    (life.report_leak(seen.epoch) == Report::Due).then_some(seen.epoch)
}

/// lifecycle 6.19
#[test]
fn each_time_without_an_observer_is_reported_once_and_none_with_one() {
    loom::model(|| {
        let life = Arc::new(Lifecycle::owned(AutoRelease::Off));
        let other = spawn(&life, |life| scan(life));
        let guest = spawn(&life, |life| {
            assert_eq!(life.observe(), Observed::Accepted);
            assert_eq!(scan(life), None);
            assert_eq!(life.release(), Released::Nothing);
        });
        let mine = scan(&life);
        let theirs = other.join().unwrap();
        guest.join().unwrap();
        let reports: Vec<_> = [mine, theirs, scan(&life)].into_iter().flatten().collect();
        assert_eq!(reports.iter().collect::<HashSet<_>>().len(), reports.len(), "{reports:?}");
        assert_eq!(life.snapshot().leak, Leak::Reported);
        assert_eq!(scan(&life), None);
    });
}

/// lifecycle 6.20
#[test]
fn a_late_observer_beats_the_leak_watcher_or_is_refused() {
    loom::model(|| {
        let life = Arc::new(Lifecycle::owned(AutoRelease::Off));
        let epoch = life.snapshot().epoch;
        let late = spawn(&life, |life| life.observe() == Observed::Accepted);
        let closed = life.expire_leak(epoch) == Expired::RunClose;
        assert_ne!(late.join().unwrap(), closed);
        let end = life.snapshot();
        assert_eq!(end.state, if closed { State::Closed } else { State::Observed });
    });
}

/// lifecycle 6.20: an observer that came and left has begun a new time.
#[test]
fn an_observer_that_came_and_left_beats_the_leak_watcher_or_is_refused() {
    loom::model(|| {
        let life = Arc::new(Lifecycle::owned(AutoRelease::Off));
        let epoch = life.snapshot().epoch;
        let guest = spawn(&life, |life| {
            let came = life.observe() == Observed::Accepted;
            assert!(!came || life.release() == Released::Nothing);
            came
        });
        let closed = life.expire_leak(epoch) == Expired::RunClose;
        assert_ne!(guest.join().unwrap(), closed);
    });
}

/// lifecycle 6.21
#[test]
fn a_lane_that_comes_as_a_casual_observer_leaves_is_left_no_timer_of_it() {
    loom::model(|| {
        let life = observed(AutoRelease::On);
        let lane = spawn(&life, |life| life.observe());
        // A read that is over; its grace is the shorter one.
        let casual = life.release();
        assert_eq!(lane.join().unwrap(), Observed::Accepted);
        assert_eq!(life.armed(), None);
        let short = match casual {
            Released::ArmGrace(epoch) => Some(epoch),
            Released::Nothing => None,
            Released::Refused => unreachable!("it was counted"),
        };
        let fires_late = |life: &Lifecycle| short.is_none_or(|epoch| life.expire(epoch) == Expired::Void);
        assert!(fires_late(&life));
        let Released::ArmGrace(long) = life.release() else { unreachable!("the only observer left") };
        assert!(fires_late(&life));
        assert_eq!(life.armed(), Some(long));
    });
}

/// lifecycle 6.22
#[test]
fn two_closes_of_a_resource_cost_the_session_one_reference() {
    loom::model(|| {
        let session = Arc::new(SessionLife::new());
        let entry = Entry::on(&session).unwrap();
        let other = SessionRef::take(&session).unwrap();
        let cascade = spawn(&entry, |entry| entry.close(Reason::CascadeDisconnect, ""));
        let asked = entry.close(Reason::ManualClose, "");
        assert_ne!(cascade.join().unwrap(), asked);
        drop(entry);
        assert_eq!(session.snapshot().refs, 1);
        assert!(matches!(other.give_back(), Some(GivenBack::BecameIdle(_))));
    });
}

/// lifecycle 6.22: the guard alone, asked twice at once.
#[test]
fn a_reference_given_back_twice_at_once_counts_once() {
    loom::model(|| {
        let session = Arc::new(SessionLife::new());
        let other = SessionRef::take(&session).unwrap();
        let twice = Arc::new(SessionRef::take(&session).unwrap());
        let early = spawn(&twice, |twice| twice.give_back());
        let late = twice.give_back();
        assert_ne!(early.join().unwrap().is_some(), late.is_some());
        assert_eq!(session.snapshot().refs, 1);
        drop(other);
    });
}

/// A session and when it was last used, as the reaper sees them.
struct Used {
    life: SessionLife,
    last: AtomicU64,
}

const LONG_AGO: u64 = 0;
const NOW: u64 = 1;

impl Used {
    fn long_ago() -> Arc<Self> {
        Arc::new(Self { life: SessionLife::new(), last: AtomicU64::new(LONG_AGO) })
    }

    /// The reaper at the deadline: the look, the time, the swap.
    fn reap(&self) -> bool {
        let look = self.life.snapshot();
        let expired = look.state == SessionState::Idle && self.last.load(Relaxed) == LONG_AGO;
        expired && self.life.reap(look.epoch) == Reap::Won
    }
}

/// lifecycle 6.23
#[test]
fn the_reaper_never_wins_between_the_last_resource_and_the_next() {
    loom::model(|| {
        let session = Used::long_ago();
        assert_eq!(session.life.take(), Taken::Accepted);
        let next = spawn(&session, |session| session.life.take());
        let reaper = spawn(&session, |session| session.reap());
        session.last.store(NOW, Relaxed);
        assert!(matches!(session.life.give_back(), GivenBack::BecameIdle(_) | GivenBack::StillActive));
        assert!(!reaper.join().unwrap());
        assert_eq!(next.join().unwrap(), Taken::Accepted);
        let end = session.life.snapshot();
        assert_eq!((end.state, end.refs), (SessionState::Active, 1));
    });
}

/// lifecycle 6.24
#[test]
fn a_resource_at_the_deadline_keeps_the_session_or_is_refused() {
    loom::model(|| {
        let session = Used::long_ago();
        let created = spawn(&session, |session| {
            session.last.store(NOW, Relaxed);
            session.life.take() == Taken::Accepted
        });
        let reaped = session.reap();
        let created = created.join().unwrap();
        assert!(created || reaped, "neither");
        assert!(!(created && reaped), "a resource in a closed session");
        let end = session.life.snapshot();
        assert_eq!(end.state, if created { SessionState::Active } else { SessionState::Releasing });
    });
}

/// A session with room for one listed resource. The list is a flag beside it: as an index does, it orders nothing.
struct Listed {
    session: Arc<SessionLife>,
    entry: Arc<Entry>,
    listed: AtomicBool,
}

impl Listed {
    fn cascade(&self, reason: Reason) {
        if self.listed.load(Ordering::Acquire) {
            self.entry.close(reason, "");
        }
    }

    fn wait_until(&self, reached: impl Fn(super::SessionSnapshot) -> bool) {
        block_on(async {
            let mut watch = self.session.watch();
            while !reached(self.session.snapshot()) {
                watch.changed().await;
            }
        });
    }
}

/// lifecycle 6.25
#[test]
fn a_resource_created_during_a_disconnect_is_in_the_cascade_or_refused() {
    loom::model(|| {
        let session = Arc::new(SessionLife::new());
        let entry = Entry::on(&session).unwrap();
        // Its reference is taken; it races from here on with being listed.
        let shared = Arc::new(Listed { session, entry, listed: AtomicBool::new(false) });
        let creator = spawn(&shared, |shared| {
            shared.listed.store(true, Ordering::Release);
            if shared.session.confirm() == Confirmed::Ending {
                shared.entry.close(Reason::CascadeDisconnect, "");
            }
        });
        assert_eq!(shared.session.begin_disconnect(), Disconnect::Won);
        shared.cascade(Reason::CascadeDisconnect);
        // Deadlock would be the failure: a resource that neither side closes.
        shared.wait_until(|now| now.refs == 0);
        shared.session.finish();
        creator.join().unwrap();
        let end = shared.session.snapshot();
        assert_eq!((end.state, end.refs), (SessionState::Closed, 0));
        assert_eq!(shared.entry.life.snapshot().state, State::Closed);
        assert_eq!(shared.entry.closings.load(Relaxed), 1);
    });
}

/// lifecycle 6.25
#[test]
fn a_reference_taken_during_a_disconnect_is_drained_or_refused() {
    loom::model(|| {
        let session = Arc::new(SessionLife::new());
        let call = spawn(&session, |session| SessionRef::take(session).is_some());
        assert_eq!(session.begin_disconnect(), Disconnect::Won);
        block_on(async {
            let mut watch = session.watch();
            while session.snapshot().refs > 0 {
                watch.changed().await;
            }
        });
        session.finish();
        assert!(SessionRef::take(&session).is_none());
        call.join().unwrap();
        let end = session.snapshot();
        assert_eq!((end.state, end.refs), (SessionState::Closed, 0));
    });
}

/// lifecycle 6.26
#[test]
fn two_disconnects_end_the_transport_once_and_both_see_it_closed() {
    loom::model(|| {
        let shared = Arc::new((SessionLife::new(), AtomicU32::new(0)));
        fn disconnect((life, transports): &(SessionLife, AtomicU32)) {
            match life.begin_disconnect() {
                Disconnect::Won => {
                    transports.fetch_add(1, Relaxed);
                    life.finish();
                }
                Disconnect::AlreadyReleasing => block_on(async {
                    let mut watch = life.watch();
                    while life.snapshot().state != SessionState::Closed {
                        watch.changed().await;
                    }
                }),
                Disconnect::AlreadyClosed => {}
            }
            assert_eq!(life.snapshot().state, SessionState::Closed);
        }
        let other = spawn(&shared, |shared| disconnect(shared));
        disconnect(&shared);
        other.join().unwrap();
        assert_eq!(shared.1.load(Relaxed), 1);
    });
}

/// lifecycle 6.27
#[test]
fn a_transport_lost_during_a_disconnect_closes_each_resource_once() {
    loom::model(|| {
        let session = Arc::new(SessionLife::new());
        let entry = Entry::on(&session).unwrap();
        let shared = Arc::new(Listed { session, entry, listed: AtomicBool::new(true) });
        let loss = spawn(&shared, |shared| {
            let lost = shared.session.lose_transport() == Disconnect::Won;
            if lost {
                shared.cascade(Reason::ConnectionLost);
            }
            lost
        });
        let disconnected = shared.session.begin_disconnect() == Disconnect::Won;
        if disconnected {
            shared.cascade(Reason::CascadeDisconnect);
            shared.session.finish();
        }
        assert_ne!(loss.join().unwrap(), disconnected);
        assert_eq!(shared.entry.closings.load(Relaxed), 1);
        let end = shared.session.snapshot();
        assert_eq!((end.state, end.refs), (SessionState::Closed, 0));
        assert_eq!(shared.session.give_back(), GivenBack::Underflow);
    });
}

/// lifecycle 6.28
#[test]
fn a_touch_before_the_reapers_swap_keeps_the_session() {
    loom::model(|| {
        let session = Used::long_ago();
        let touched = spawn(&session, |session| {
            session.last.store(NOW, Relaxed);
            session.life.touch() == Touched::Kept
        });
        let reaped = session.reap();
        let kept = touched.join().unwrap();
        assert_ne!(kept, reaped);
    });
}

/// lifecycle 6.53
#[test]
fn what_passed_the_gate_before_a_shutdown_is_listed_when_it_has_emptied() {
    loom::model(|| {
        let shared = Arc::new((Gate::new(), AtomicBool::new(false)));
        let create = |(gate, listed): &(Arc<Gate>, AtomicBool)| {
            let Some(_inside) = gate.enter() else { return false };
            listed.store(true, Relaxed);
            true
        };
        let creator = spawn(&shared, move |shared| create(shared));
        let (gate, listed) = &*shared;
        assert_eq!(gate.shut(), Shut::First);
        block_on(gate.emptied());
        let found = listed.load(Relaxed);
        assert!(gate.enter().is_none());
        assert_eq!(creator.join().unwrap(), found);
    });
}
