//! The machines as tables: every state against every transition.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::{
    AutoRelease::{Off, On},
    Close, Confirmed, Disconnect, End, Ending, Epoch, Expired, Gate, GivenBack, Lifecycle, Observed, Reap,
    Released, SessionLife, SessionRef, SessionState, Shut, State, Taken, Touched,
};
use crate::reason::Reason;

/// State, observers, and by how much the epoch rose: what a row ends with.
type Seen = (State, u32, u32);

#[derive(Debug, PartialEq)]
enum Answer {
    Observed(Observed),
    Released(Released),
    Expired(Expired),
    Close(Close),
    Pushed(Option<Epoch>),
}

/// Leads a resource into a state by public transitions.
fn resource(flag: super::AutoRelease, state: State, observers: u32) -> Lifecycle {
    let life = Lifecycle::owned(flag);
    for _ in 0..observers {
        assert_eq!(life.observe(), Observed::Accepted);
    }
    match state {
        State::Owned | State::Observed => {}
        State::Releasing => {
            assert_eq!(life.observe(), Observed::Accepted);
            assert!(matches!(life.release(), Released::ArmGrace(_)));
        }
        State::Closed => assert_eq!(life.close(), Close::Won),
    }
    let now = life.snapshot();
    assert_eq!((now.state, now.observers, now.auto_release), (state, observers, flag));
    life
}

fn check(flag: super::AutoRelease, from: (State, u32), transition: &str, answer: &str, to: Seen) {
    let life = resource(flag, from.0, from.1);
    let before = life.snapshot().epoch;
    let next = before.next();
    let got = match transition {
        "observe" => Answer::Observed(life.observe()),
        "release" => Answer::Released(life.release()),
        "expire" => Answer::Expired(life.expire(before)),
        "expire of another timer" => Answer::Expired(life.expire(next)),
        "expire idle" => Answer::Expired(life.expire_idle()),
        "push" => Answer::Pushed(life.push_deadline()),
        "close" => Answer::Close(life.close()),
        other => panic!("no transition {other}"),
    };
    let wanted = match answer {
        "accepted" => Answer::Observed(Observed::Accepted),
        "refused" if transition == "observe" => Answer::Observed(Observed::Refused),
        "refused" => Answer::Released(Released::Refused),
        "nothing" => Answer::Released(Released::Nothing),
        "arm" => Answer::Released(Released::ArmGrace(next)),
        "run close" => Answer::Expired(Expired::RunClose),
        "void" => Answer::Expired(Expired::Void),
        "new epoch" => Answer::Pushed(Some(next)),
        "no timer" => Answer::Pushed(None),
        "won" => Answer::Close(Close::Won),
        "lost" => Answer::Close(Close::Lost),
        other => panic!("no answer {other}"),
    };
    let row = format!("{flag:?} {from:?} {transition}");
    assert_eq!(got, wanted, "{row}");
    let now = life.snapshot();
    let epoch = if to.2 == 0 { before } else { next };
    assert_eq!((now.state, now.observers, now.epoch), (to.0, to.1, epoch), "{row}");
    assert_eq!(now.auto_release, flag, "{row}");
}

#[test]
fn every_transition_from_every_state_of_a_resource() {
    use State::{Closed, Observed as Watched, Owned, Releasing};
    for (flag, from, transition, answer, to) in [
        (Off, (Owned, 0), "observe", "accepted", (Watched, 1, 1)),
        (On, (Owned, 0), "observe", "accepted", (Watched, 1, 1)),
        (Off, (Watched, 1), "observe", "accepted", (Watched, 2, 0)),
        (On, (Watched, 2), "observe", "accepted", (Watched, 3, 0)),
        (On, (Releasing, 0), "observe", "accepted", (Watched, 1, 1)),
        (Off, (Closed, 0), "observe", "refused", (Closed, 0, 0)),
        (On, (Closed, 2), "observe", "refused", (Closed, 2, 0)),
        (Off, (Owned, 0), "release", "refused", (Owned, 0, 0)),
        (On, (Owned, 0), "release", "refused", (Owned, 0, 0)),
        (Off, (Watched, 1), "release", "nothing", (Owned, 0, 0)),
        (On, (Watched, 1), "release", "arm", (Releasing, 0, 1)),
        (Off, (Watched, 2), "release", "nothing", (Watched, 1, 0)),
        (On, (Watched, 2), "release", "nothing", (Watched, 1, 0)),
        (On, (Releasing, 0), "release", "refused", (Releasing, 0, 0)),
        (Off, (Closed, 0), "release", "refused", (Closed, 0, 0)),
        (On, (Closed, 1), "release", "nothing", (Closed, 0, 0)),
        (Off, (Owned, 0), "expire", "void", (Owned, 0, 0)),
        (On, (Owned, 0), "expire", "run close", (Closed, 0, 1)),
        (Off, (Watched, 1), "expire", "void", (Watched, 1, 0)),
        (On, (Watched, 1), "expire", "void", (Watched, 1, 0)),
        (On, (Releasing, 0), "expire", "run close", (Closed, 0, 1)),
        (On, (Closed, 0), "expire", "void", (Closed, 0, 0)),
        (On, (Owned, 0), "expire of another timer", "void", (Owned, 0, 0)),
        (On, (Releasing, 0), "expire of another timer", "void", (Releasing, 0, 0)),
        (Off, (Owned, 0), "expire idle", "run close", (Closed, 0, 1)),
        (On, (Owned, 0), "expire idle", "run close", (Closed, 0, 1)),
        (Off, (Watched, 1), "expire idle", "void", (Watched, 1, 0)),
        (On, (Releasing, 0), "expire idle", "void", (Releasing, 0, 0)),
        (Off, (Closed, 0), "expire idle", "void", (Closed, 0, 0)),
        (Off, (Owned, 0), "push", "no timer", (Owned, 0, 0)),
        (On, (Owned, 0), "push", "new epoch", (Owned, 0, 1)),
        (On, (Watched, 1), "push", "no timer", (Watched, 1, 0)),
        (On, (Releasing, 0), "push", "new epoch", (Releasing, 0, 1)),
        (On, (Closed, 0), "push", "no timer", (Closed, 0, 0)),
        (Off, (Owned, 0), "close", "won", (Closed, 0, 1)),
        (On, (Owned, 0), "close", "won", (Closed, 0, 1)),
        (Off, (Watched, 2), "close", "won", (Closed, 2, 1)),
        (On, (Watched, 1), "close", "won", (Closed, 1, 1)),
        (On, (Releasing, 0), "close", "won", (Closed, 0, 1)),
        (Off, (Closed, 1), "close", "lost", (Closed, 1, 0)),
    ] {
        check(flag, from, transition, answer, to);
    }
}

#[test]
fn a_timer_must_run_exactly_while_a_self_releasing_resource_is_unobserved() {
    for (flag, state, observers, armed) in [
        (Off, State::Owned, 0, false),
        (On, State::Owned, 0, true),
        (Off, State::Observed, 1, false),
        (On, State::Observed, 1, false),
        (On, State::Releasing, 0, true),
        (Off, State::Closed, 0, false),
        (On, State::Closed, 1, false),
    ] {
        let life = resource(flag, state, observers);
        let wanted = armed.then(|| life.snapshot().epoch);
        assert_eq!(life.armed(), wanted, "{flag:?} {state:?}");
    }
}

#[test]
fn a_pushed_deadline_makes_the_older_timer_void() {
    let life = Lifecycle::owned(On);
    let first = life.armed().unwrap();
    let second = life.push_deadline().unwrap();
    assert_eq!(life.expire(first), Expired::Void);
    assert_eq!(life.expire(second), Expired::RunClose);
}

#[test]
fn a_recorded_end_stays() {
    let ending = Ending::new();
    assert_eq!(ending.get(), None);
    let first = End { reason: Reason::Completed, facts: 0, at: Duration::from_secs(1) };
    let second = End { reason: Reason::Cancelled, facts: -1, at: Duration::from_secs(2) };
    assert_eq!(ending.record(first.clone()), Ok(()));
    assert_eq!(ending.record(second.clone()), Err(second));
    assert_eq!(ending.get(), Some(&first));
}

/// Leads a session into a state by public transitions.
fn session(state: SessionState, refs: u32) -> SessionLife {
    let life = SessionLife::new();
    for _ in 0..refs {
        assert_eq!(life.take(), Taken::Accepted);
    }
    match state {
        SessionState::Idle | SessionState::Active => {}
        SessionState::Releasing => assert_eq!(life.begin_disconnect(), Disconnect::Won),
        SessionState::Closed => {
            assert_eq!(life.begin_disconnect(), Disconnect::Won);
            life.finish();
        }
    }
    let now = life.snapshot();
    assert_eq!((now.state, now.refs), (state, refs));
    life
}

#[test]
fn every_transition_from_every_state_of_a_session() {
    use SessionState::{Active, Closed, Idle, Releasing};
    for (from, transition, answer, to) in [
        ((Idle, 0), "take", "Accepted", (Active, 1, 0)),
        ((Active, 1), "take", "Accepted", (Active, 2, 0)),
        ((Releasing, 0), "take", "Refused", (Releasing, 0, 0)),
        ((Releasing, 1), "take", "Refused", (Releasing, 1, 0)),
        ((Closed, 0), "take", "Refused", (Closed, 0, 0)),
        ((Idle, 0), "give back", "Underflow", (Idle, 0, 0)),
        ((Active, 1), "give back", "BecameIdle(next)", (Idle, 0, 1)),
        ((Active, 2), "give back", "StillActive", (Active, 1, 0)),
        ((Releasing, 0), "give back", "Underflow", (Releasing, 0, 0)),
        ((Releasing, 2), "give back", "Draining(1)", (Releasing, 1, 0)),
        ((Closed, 1), "give back", "Draining(0)", (Closed, 0, 0)),
        ((Closed, 0), "give back", "Underflow", (Closed, 0, 0)),
        ((Idle, 0), "touch", "Kept", (Idle, 0, 1)),
        ((Active, 1), "touch", "Kept", (Active, 1, 0)),
        ((Releasing, 0), "touch", "TooLate", (Releasing, 0, 0)),
        ((Closed, 0), "touch", "TooLate", (Closed, 0, 0)),
        ((Idle, 0), "reap", "Won", (Releasing, 0, 0)),
        ((Active, 1), "reap", "Void", (Active, 1, 0)),
        ((Releasing, 0), "reap", "Void", (Releasing, 0, 0)),
        ((Closed, 0), "reap", "Void", (Closed, 0, 0)),
        ((Idle, 0), "reap late", "Void", (Idle, 0, 0)),
        ((Idle, 0), "disconnect", "Won", (Releasing, 0, 0)),
        ((Active, 2), "disconnect", "Won", (Releasing, 2, 0)),
        ((Releasing, 1), "disconnect", "AlreadyReleasing", (Releasing, 1, 0)),
        ((Closed, 0), "disconnect", "AlreadyClosed", (Closed, 0, 0)),
        ((Idle, 0), "lose", "Won", (Closed, 0, 0)),
        ((Active, 2), "lose", "Won", (Closed, 2, 0)),
        ((Releasing, 1), "lose", "AlreadyReleasing", (Releasing, 1, 0)),
        ((Closed, 1), "lose", "AlreadyClosed", (Closed, 1, 0)),
        ((Idle, 0), "finish", "()", (Idle, 0, 0)),
        ((Active, 1), "finish", "()", (Active, 1, 0)),
        ((Releasing, 0), "finish", "()", (Closed, 0, 0)),
        ((Releasing, 2), "finish", "()", (Closed, 2, 0)),
        ((Closed, 0), "finish", "()", (Closed, 0, 0)),
        ((Idle, 0), "confirm", "Open", (Idle, 0, 0)),
        ((Active, 1), "confirm", "Open", (Active, 1, 0)),
        ((Releasing, 0), "confirm", "Ending", (Releasing, 0, 0)),
        ((Closed, 0), "confirm", "Ending", (Closed, 0, 0)),
    ] {
        let life = session(from.0, from.1);
        let before = life.snapshot().epoch;
        let got = match transition {
            "take" => format!("{:?}", life.take()),
            "give back" => match life.give_back() {
                GivenBack::BecameIdle(epoch) if epoch == before.next() => "BecameIdle(next)".to_owned(),
                GivenBack::BecameIdle(other) => format!("{other:?} after {before:?}"),
                other @ (GivenBack::StillActive | GivenBack::Draining(_) | GivenBack::Underflow) => {
                    format!("{other:?}")
                }
            },
            "touch" => format!("{:?}", life.touch()),
            "reap" => format!("{:?}", life.reap(before)),
            "reap late" => format!("{:?}", life.reap(before.next())),
            "disconnect" => format!("{:?}", life.begin_disconnect()),
            "lose" => format!("{:?}", life.lose_transport()),
            "finish" => format!("{:?}", life.finish()),
            "confirm" => format!("{:?}", life.confirm()),
            other => panic!("no transition {other}"),
        };
        let row = format!("{from:?} {transition}");
        assert_eq!(got, answer, "{row}");
        let now = life.snapshot();
        let epoch = if to.2 == 0 { before } else { before.next() };
        assert_eq!((now.state, now.refs, now.epoch), (to.0, to.1, epoch), "{row}");
    }
}

#[test]
fn a_touch_or_a_use_makes_an_older_look_of_the_reaper_void() {
    let life = SessionLife::new();
    let look = life.snapshot().epoch;
    assert_eq!(life.touch(), Touched::Kept);
    assert_eq!(life.reap(look), Reap::Void);
    let look = life.snapshot().epoch;
    assert_eq!(life.take(), Taken::Accepted);
    let GivenBack::BecameIdle(idle) = life.give_back() else { panic!("the only reference") };
    assert_eq!(life.reap(look), Reap::Void);
    assert_eq!(life.reap(idle), Reap::Won);
    assert_eq!(life.confirm(), Confirmed::Ending);
}

#[test]
fn a_reference_is_given_back_once_by_call_or_by_drop() {
    let life = Arc::new(SessionLife::new());
    let early = SessionRef::take(&life).unwrap();
    let late = SessionRef::take(&life).unwrap();
    assert_eq!(early.give_back(), Some(GivenBack::StillActive));
    assert_eq!(early.give_back(), None);
    drop(early);
    assert_eq!(life.snapshot().refs, 1);
    drop(late);
    assert_eq!(life.snapshot().state, SessionState::Idle);
    assert_eq!(life.begin_disconnect(), Disconnect::Won);
    assert!(SessionRef::take(&life).is_none());
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_waiter_hears_when_a_session_drains_and_closes() {
    let life = session(SessionState::Releasing, 2);
    let mut watch = life.watch();
    assert_eq!(life.give_back(), GivenBack::Draining(1));
    assert!(poll_once(watch.changed()).is_pending());
    assert_eq!(life.give_back(), GivenBack::Draining(0));
    assert!(poll_once(watch.changed()).is_ready());
    life.finish();
    assert!(poll_once(watch.changed()).is_ready());
    assert!(poll_once(watch.changed()).is_pending());
}

#[test]
fn a_shut_gate_lets_nobody_in_and_empties() {
    let gate = Gate::new();
    let inside = gate.enter().unwrap();
    assert!(!gate.is_shut());
    assert_eq!(gate.shut(), Shut::First);
    assert_eq!(gate.shut(), Shut::Again);
    assert!(gate.enter().is_none());
    assert!(poll_once(gate.emptied()).is_pending());
    drop(inside);
    assert!(poll_once(gate.emptied()).is_ready());
    assert!(gate.is_shut());
}
