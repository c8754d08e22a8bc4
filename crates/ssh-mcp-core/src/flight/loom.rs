//! Stories of work that runs once, under every interleaving; the numbers are those of `docs/lifecycle.md` part 6.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use loom::{future::block_on, thread};

use super::{Claimed, Flight, Flights, Joined};

const NOW: Duration = Duration::ZERO;

struct Calls {
    flights: Arc<Flights<&'static str, u8, u32>>,
    runs: AtomicU32,
}

impl Calls {
    fn new() -> Arc<Self> {
        let flights = Flights::new(Duration::from_secs(1), 4);
        Arc::new(Self { flights, runs: AtomicU32::new(0) })
    }

    /// A call with key `k`: its answer, or none when it was refused.
    fn call(&self, digest: u8) -> Option<u32> {
        match self.flights.claim("k", digest, NOW) {
            Claimed::Run(run) => {
                let answer = 7 + self.runs.fetch_add(1, Relaxed);
                run.complete(answer, NOW);
                Some(answer)
            }
            Claimed::Wait(wait) => block_on(wait.outcome()),
            Claimed::Replay(answer) => Some(answer),
            Claimed::OtherDigest => None,
        }
    }
}

fn one_of(callers: usize) {
    let calls = Calls::new();
    let others: Vec<_> = (1..callers)
        .map(|_| {
            let calls = Arc::clone(&calls);
            thread::spawn(move || calls.call(1))
        })
        .collect();
    assert_eq!(calls.call(1), Some(7));
    for other in others {
        assert_eq!(other.join().unwrap(), Some(7));
    }
    assert_eq!(calls.runs.load(Relaxed), 1);
}

/// lifecycle 6.48
#[test]
fn of_two_calls_with_one_key_one_runs_and_both_get_its_answer() {
    loom::model(|| one_of(2));
}

/// lifecycle 6.48: three callers have too many orders to go through all, so each is interrupted three times at most
/// unless the script says otherwise.
#[test]
fn of_three_calls_with_one_key_one_runs_and_all_get_its_answer() {
    let mut bounded = loom::model::Builder::new();
    bounded.preemption_bound = bounded.preemption_bound.or(Some(3));
    bounded.check(|| one_of(3));
}

/// lifecycle 6.48
#[test]
fn a_call_with_the_same_key_and_other_arguments_is_refused() {
    loom::model(|| {
        let calls = Calls::new();
        let other = {
            let calls = Arc::clone(&calls);
            thread::spawn(move || calls.call(2))
        };
        let mine = calls.call(1);
        let answers = [mine, other.join().unwrap()];
        assert_eq!(answers.into_iter().flatten().collect::<Vec<_>>(), [7]);
        assert_eq!(calls.runs.load(Relaxed), 1);
    });
}

/// lifecycle 6.48: the first call ends without an answer that can be replayed.
#[test]
fn a_call_that_waits_for_a_run_without_answer_is_told_so() {
    loom::model(|| {
        let calls = Calls::new();
        let Claimed::Run(run) = calls.flights.claim("k", 1, NOW) else { unreachable!("a new key") };
        let other = {
            let calls = Arc::clone(&calls);
            thread::spawn(move || calls.call(1))
        };
        drop(run);
        let waited = other.join().unwrap().is_none();
        // Either it waited in vain, or it came later and ran itself.
        assert_eq!(calls.runs.load(Relaxed), u32::from(!waited));
        assert_eq!(calls.call(1), Some(7));
    });
}

/// lifecycle 6.51
#[test]
fn a_probe_asked_for_twice_at_once_runs_once() {
    loom::model(|| {
        let shared = Arc::new((Flight::new(), AtomicU32::new(0)));
        let probe = |(flight, runs): &(Arc<Flight<u32>>, AtomicU32)| match flight.join() {
            Joined::Run(run) => {
                let found = 7 + runs.fetch_add(1, Relaxed);
                run.complete(found);
                Some(found)
            }
            Joined::Wait(wait) => block_on(wait.outcome()),
            Joined::Ready(found) => Some(found),
        };
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || probe(&shared))
        };
        assert_eq!(probe(&shared), Some(7));
        assert_eq!(other.join().unwrap(), Some(7));
        assert_eq!(shared.0.value(), Some(7));
    });
}

/// lifecycle 6.51
#[test]
fn a_failed_probe_is_not_kept() {
    loom::model(|| {
        let flight = Flight::<u32>::new();
        let Joined::Run(failing) = flight.join() else { unreachable!("the first to ask") };
        let other = {
            let flight = Arc::clone(&flight);
            thread::spawn(move || match flight.join() {
                Joined::Run(run) => {
                    run.complete(1);
                    Some(1)
                }
                Joined::Wait(wait) => block_on(wait.outcome()),
                Joined::Ready(found) => panic!("{found} from a probe that failed"),
            })
        };
        drop(failing);
        assert_eq!(other.join().unwrap(), flight.value());
    });
}
