//! Keys over time: replay, refusal, age and number.

use std::{sync::Arc, time::Duration};

use super::{Claimed, Flight, Flights, Joined};

type Calls = Arc<Flights<&'static str, u8, &'static str>>;

/// What a call came to; a run is completed with the given answer, or fails without one.
fn check(calls: &Calls, at: u64, key: &'static str, digest: u8, answer: Option<&'static str>, came_to: &str) {
    let now = Duration::from_secs(at);
    let got = match calls.claim(key, digest, now) {
        Claimed::Run(run) => {
            if let Some(answer) = answer {
                run.complete(answer, now);
            }
            "ran".to_owned()
        }
        Claimed::Wait(_) => "waits".to_owned(),
        Claimed::Replay(value) => format!("replays {value}"),
        Claimed::OtherDigest => "refused".to_owned(),
    };
    assert_eq!(got, came_to, "{key} at {at}");
}

fn calls(most: usize) -> Calls {
    Flights::new(Duration::from_secs(300), most)
}

#[test]
fn an_answer_is_replayed_until_its_time_is_over() {
    let calls = calls(8);
    check(&calls, 0, "a", 1, Some("one"), "ran");
    check(&calls, 299, "a", 1, Some("two"), "replays one");
    check(&calls, 299, "a", 2, Some("two"), "refused");
    check(&calls, 300, "a", 2, Some("two"), "ran");
    check(&calls, 301, "a", 2, None, "replays two");
}

#[test]
fn a_call_without_answer_leaves_its_key_free() {
    let calls = calls(8);
    check(&calls, 0, "a", 1, None, "ran");
    check(&calls, 0, "a", 2, Some("two"), "ran");
    check(&calls, 0, "a", 2, None, "replays two");
}

#[test]
fn the_oldest_answer_goes_first_and_what_runs_stays() {
    let calls = calls(2);
    let running = calls.claim("slow", 1, Duration::ZERO);
    check(&calls, 1, "a", 1, Some("one"), "ran");
    check(&calls, 2, "b", 1, Some("two"), "ran");
    check(&calls, 3, "c", 1, Some("three"), "ran");
    check(&calls, 4, "b", 1, None, "replays two");
    check(&calls, 4, "c", 1, None, "replays three");
    check(&calls, 4, "slow", 1, None, "waits");
    check(&calls, 4, "slow", 2, None, "refused");
    check(&calls, 4, "a", 1, Some("four"), "ran");
    check(&calls, 5, "b", 1, None, "ran");
    drop(running);
    check(&calls, 6, "slow", 2, None, "ran");
}

#[test]
fn a_probe_has_a_value_once_a_run_brought_one() {
    let probe = Flight::new();
    assert_eq!(probe.value(), None);
    let Joined::Run(failing) = probe.join() else { panic!("nobody ran") };
    assert!(matches!(probe.join(), Joined::Wait(_)));
    drop(failing);
    let Joined::Run(run) = probe.join() else { panic!("the first run failed") };
    run.complete("bash");
    assert!(matches!(probe.join(), Joined::Ready("bash")));
    assert_eq!(probe.value(), Some("bash"));
}
