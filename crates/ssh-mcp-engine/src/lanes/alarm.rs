//! One alarm clock for all lanes: whoever wants to look again at a time is rung at it.
//!
//! Setting a timer of the runtime interrupts whichever thread waits for the next one. Lanes set theirs anew with every
//! announcement, and those under a flood keep one beat (`docs/subscriptions.md`, "Timing"), so one timer does for all.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};

use ssh_mcp_core::{
    id::SubId,
    sync::{Mutex, Notify},
};

use super::LaneEntry;
use crate::Clock;

#[derive(Default)]
pub(super) struct Alarm {
    times: Mutex<BTreeMap<(Duration, SubId), Weak<LaneEntry>>>,
    /// Rung when the first of them is earlier than it was.
    earlier: Notify,
}

/// The time one lane is to be rung at; none once this is dropped.
pub(super) struct Setting<'a> {
    alarm: &'a Alarm,
    lane: &'a Arc<LaneEntry>,
    at: Option<Duration>,
}

impl Alarm {
    pub(super) fn of<'a>(&'a self, lane: &'a Arc<LaneEntry>) -> Setting<'a> {
        Setting { alarm: self, lane, at: None }
    }

    /// Rings whom it is time to ring; the answer is when to come again.
    fn ring(&self, now: Duration) -> Option<Duration> {
        let mut times = self.times.lock();
        while let Some(first) = times.first_entry() {
            let (at, _) = *first.key();
            if at > now {
                return Some(at);
            }
            if let Some(lane) = first.remove().upgrade() {
                lane.lane.ring();
            }
        }
        None
    }
}

impl Setting<'_> {
    /// Rings the lane then, and not when it was set to before.
    pub(super) fn set(&mut self, at: Option<Duration>) {
        if self.at == at {
            return;
        }
        let mut times = self.alarm.times.lock();
        if let Some(before) = std::mem::replace(&mut self.at, at) {
            times.remove(&(before, self.lane.id));
        }
        if let Some(at) = at {
            let is_first = times.first_key_value().is_none_or(|((first, _), _)| at < *first);
            times.insert((at, self.lane.id), Arc::downgrade(self.lane));
            if is_first {
                self.alarm.earlier.notify_one();
            }
        }
    }
}

impl Drop for Setting<'_> {
    fn drop(&mut self) {
        self.set(None);
    }
}

/// The task of the alarm.
pub(crate) async fn run(alarm: Arc<Alarm>, clock: Clock) {
    let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
    loop {
        match alarm.ring(clock.now()) {
            None => alarm.earlier.notified().await,
            Some(at) => {
                timer.as_mut().reset(clock.instant(at));
                tokio::select! {
                    biased;
                    () = timer.as_mut() => {}
                    () = alarm.earlier.notified() => {}
                }
            }
        }
    }
}
