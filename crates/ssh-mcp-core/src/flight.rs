//! Work that runs once for everybody who asks: idempotency keys and capability probes (`docs/lifecycle.md` 6.48, 6.51).
//!
//! A [`Flight`] is one such piece of work: the first caller runs it, callers that come meanwhile wait, later ones get
//! the value. A run that ends without a value leaves no trace, so a failure is never cached. [`Flights`] keeps flights
//! under keys, with a digest of the arguments, a time to live and a bound. Times are the engine's clock; what runs and
//! what a refusal is called are not here.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use crate::{
    sync::{Mutex, OnceCell},
    watch::Watchers,
};

/// One piece of work and its value, once it has one.
pub struct Flight<V> {
    stage: Mutex<Stage<V>>,
}

/// What a caller of a flight is to do.
#[must_use = "a caller told to run has to run, or drop the run"]
pub enum Joined<V: Clone> {
    /// It is the first: it does the work.
    Run(Run<V>),
    /// Another is at work: it waits for the outcome.
    Wait(Wait<V>),
    /// The work has been done.
    Ready(V),
}

/// The duty to do the work; dropping it tells those who wait that there is no value.
pub struct Run<V: Clone> {
    flight: Arc<Flight<V>>,
    attempt: Arc<Attempt<V>>,
}

/// The outcome of somebody else's run, to be waited for.
pub struct Wait<V> {
    attempt: Arc<Attempt<V>>,
}

enum Stage<V> {
    Idle,
    Running(Arc<Attempt<V>>),
    Done(V),
}

/// One run, shared with those who wait for it. The outcome is none when the run ended without a value.
struct Attempt<V> {
    outcome: OnceCell<Option<V>>,
    watchers: Arc<Watchers>,
}

impl<V: Clone> Flight<V> {
    /// Work nobody has asked for yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { stage: Mutex::new(Stage::Idle) })
    }

    /// Runs, waits for a run, or takes the value: exactly one caller at a time is told to run.
    pub fn join(self: &Arc<Self>) -> Joined<V> {
        let mut stage = self.stage.lock();
        match &*stage {
            Stage::Done(value) => Joined::Ready(value.clone()),
            Stage::Running(attempt) => Joined::Wait(Wait { attempt: Arc::clone(attempt) }),
            Stage::Idle => {
                let attempt = Arc::new(Attempt { outcome: OnceCell::new(), watchers: Watchers::new() });
                *stage = Stage::Running(Arc::clone(&attempt));
                Joined::Run(Run { flight: Arc::clone(self), attempt })
            }
        }
    }

    /// The value, if the work has been done.
    pub fn value(&self) -> Option<V> {
        match &*self.stage.lock() {
            Stage::Done(value) => Some(value.clone()),
            Stage::Idle | Stage::Running(_) => None,
        }
    }
}

impl<V: Clone> Run<V> {
    /// Keeps the value and hands it to everybody who waits.
    pub fn complete(self, value: V) {
        *self.flight.stage.lock() = Stage::Done(value.clone());
        // The drop that follows finds the outcome written.
        self.attempt.end(Some(value));
    }
}

impl<V: Clone> Drop for Run<V> {
    fn drop(&mut self) {
        {
            let mut stage = self.flight.stage.lock();
            if let Stage::Running(_) = &*stage {
                *stage = Stage::Idle;
            }
        }
        self.attempt.end(None);
    }
}

impl<V: Clone> Wait<V> {
    /// The value of the run, or none when it ended without one. Safe to drop half-way.
    pub async fn outcome(&self) -> Option<V> {
        let mut watch = self.attempt.watchers.watch();
        loop {
            if let Some(outcome) = self.attempt.outcome.get() {
                return outcome.clone();
            }
            watch.changed().await;
        }
    }
}

impl<V> Attempt<V> {
    fn end(&self, outcome: Option<V>) {
        // The second end of a run that was completed and then dropped: the first one counts.
        if self.outcome.set(outcome).is_ok() {
            self.watchers.wake();
        }
    }
}

/// Flights under keys: `K` names the work, `D` is a digest of its arguments, `V` the value that is replayed.
pub struct Flights<K, D, V> {
    time_to_live: Duration,
    most: usize,
    index: Mutex<Index<K, D, V>>,
}

/// What a call with a key is to do.
#[must_use = "a call told to run has to run, or drop the run"]
pub enum Claimed<K: Eq + Hash + Clone, D, V: Clone> {
    /// The key is new: the call does its work.
    Run(KeyedRun<K, D, V>),
    /// The first call with this key still runs: wait for it, then replay. No outcome means that it ended without a
    /// result that can be replayed.
    Wait(Wait<V>),
    /// The first call's result.
    Replay(V),
    /// The key was used with other arguments.
    OtherDigest,
}

/// The duty to do the work of a key; dropping it forgets the key.
pub struct KeyedRun<K: Eq + Hash + Clone, D, V: Clone> {
    flights: Arc<Flights<K, D, V>>,
    key: K,
    /// Taken by `complete`; still there when the run is dropped without a value.
    run: Option<Run<V>>,
}

/// *Invariant:* each entry is either running, or done and named once in `done`.
struct Index<K, D, V> {
    entries: HashMap<K, Entry<D, V>>,
    /// Keys with a value and when they got it, oldest first.
    done: VecDeque<(K, Duration)>,
}

struct Entry<D, V> {
    digest: D,
    flight: Arc<Flight<V>>,
}

impl<K: Eq + Hash + Clone, D: PartialEq, V: Clone> Flights<K, D, V> {
    /// No keys yet. A value is replayed for `time_to_live` after it came; beyond `most` values the oldest is dropped.
    /// Work that still runs is never dropped.
    pub fn new(time_to_live: Duration, most: usize) -> Arc<Self> {
        let index = Index { entries: HashMap::new(), done: VecDeque::new() };
        Arc::new(Self { time_to_live, most, index: Mutex::new(index) })
    }

    /// Runs, waits, replays or is refused: of all calls with one key and digest, one runs. `now` is the engine's clock.
    pub fn claim(self: &Arc<Self>, key: K, digest: D, now: Duration) -> Claimed<K, D, V> {
        let mut index = self.index.lock();
        index.forget_while(|_, at| now.saturating_sub(at) >= self.time_to_live);
        let joined = match index.entries.get(&key) {
            Some(entry) if entry.digest != digest => return Claimed::OtherDigest,
            Some(entry) => entry.flight.join(),
            None => {
                let flight = Flight::new();
                let joined = flight.join();
                index.entries.insert(key.clone(), Entry { digest, flight });
                joined
            }
        };
        match joined {
            Joined::Run(run) => Claimed::Run(KeyedRun { flights: Arc::clone(self), key, run: Some(run) }),
            Joined::Wait(wait) => Claimed::Wait(wait),
            Joined::Ready(value) => Claimed::Replay(value),
        }
    }
}

impl<K: Eq + Hash + Clone, D, V: Clone> KeyedRun<K, D, V> {
    /// Keeps the value for replays and hands it to everybody who waits.
    pub fn complete(mut self, value: V, now: Duration) {
        let Some(run) = self.run.take() else { return };
        run.complete(value);
        let mut index = self.flights.index.lock();
        index.done.push_back((self.key.clone(), now));
        let most = self.flights.most;
        index.forget_while(|held, _| held > most);
    }
}

impl<K: Eq + Hash + Clone, D, V: Clone> Drop for KeyedRun<K, D, V> {
    fn drop(&mut self) {
        let Some(run) = self.run.take() else { return };
        // The key goes first: a call that comes after it starts anew, one that came before waits for this run's end.
        self.flights.index.lock().entries.remove(&self.key);
        drop(run);
    }
}

impl<K: Eq + Hash, D, V> Index<K, D, V> {
    /// Drops values from the oldest on, while `old` says so of how many are held and when the oldest came.
    fn forget_while(&mut self, old: impl Fn(usize, Duration) -> bool) {
        while let Some((_, at)) = self.done.front()
            && old(self.done.len(), *at)
            && let Some((key, _)) = self.done.pop_front()
        {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
#[cfg(ssh_mcp_loom)]
mod loom;
#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests;
