//! Observation by calls: who reads or waits counts as an observer while it does (`docs/lifecycle.md`, Policy).
//!
//! Also the peer: one client connection and how far it has read each resource.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ssh_mcp_core::{
    cursor::Cursor,
    lifecycle::{Epoch, Expired, Lifecycle, Observed, Released, State},
    reason::Reason,
    registry::{Command, Manner, Shell},
    sync::Mutex,
    target_names,
    uri::Resource,
};
use uuid::Uuid;

use crate::Engine;

/// Something that can be observed.
#[derive(Clone)]
pub enum Observable<'a> {
    /// A command.
    Command(&'a Arc<Command>),
    /// A shell.
    Shell(&'a Arc<Shell>),
}

/// A call that reads or waits; dropping it ends the observation.
pub struct CasualObserver {
    engine: Arc<Engine>,
    watched: Watched,
}

#[derive(Clone)]
enum Watched {
    Command(Arc<Command>),
    Shell(Arc<Shell>),
}

impl Engine {
    /// Observes a live resource for the length of a call; an ended one is read without.
    pub fn observe(self: &Arc<Self>, what: Observable<'_>) -> Option<CasualObserver> {
        let watched = Watched::from(what);
        watched.note_read(self.clock.now());
        match watched.life().observe() {
            Observed::Accepted => Some(CasualObserver { engine: Arc::clone(self), watched }),
            Observed::Refused => None,
        }
    }

    /// Starts the timer a resource that releases itself needs, if it needs one now.
    pub(crate) fn arm(self: &Arc<Self>, what: Observable<'_>) {
        let watched = Watched::from(what);
        if let Some(epoch) = watched.life().armed() {
            self.release_after(watched, epoch);
        }
    }

    /// Input is a sign of life: a running deadline begins anew.
    pub(crate) fn postpone(self: &Arc<Self>, what: Observable<'_>) {
        let watched = Watched::from(what);
        if let Some(epoch) = watched.life().push_deadline() {
            self.release_after(watched, epoch);
        }
    }

    /// A timer with the own grace; one that fires late does nothing, because the epoch has moved on.
    fn release_after(&self, watched: Watched, epoch: Epoch) {
        let at = self.clock.now() + self.settings.lifecycle_own_grace;
        let clock = self.clock;
        // An epoch belongs to one state; if it is over already, the timer is void and its reason is nobody's.
        let reason = match watched.life().snapshot().state {
            State::Owned => Reason::NeverObserved,
            State::Observed | State::Releasing | State::Closed => Reason::UnsubscribeGraceElapsed,
        };
        self.tasks.spawn(async move {
            clock.sleep_until(at).await;
            watched.expire(epoch, reason);
        });
    }
}

impl Drop for CasualObserver {
    fn drop(&mut self) {
        self.watched.note_read(self.engine.clock.now());
        match self.watched.life().release() {
            Released::ArmGrace(epoch) => self.engine.release_after(self.watched.clone(), epoch),
            Released::Nothing => {}
            Released::Refused => {
                tracing::error!(target: target_names::LIFECYCLE, code = "LIFECYCLE_STATE_CONFLICT", "left twice");
            }
        }
    }
}

impl Watched {
    fn life(&self) -> &Lifecycle {
        match self {
            Self::Command(command) => &command.life,
            Self::Shell(shell) => &shell.life,
        }
    }

    fn note_read(&self, now: Duration) {
        match self {
            Self::Command(command) => command.read.touch(now),
            Self::Shell(shell) => shell.read.touch(now),
        }
    }

    fn expire(&self, epoch: Epoch, reason: Reason) {
        if self.life().expire(epoch) == Expired::RunClose {
            match self {
                Self::Command(command) => command.grant_stop(reason),
                Self::Shell(shell) => shell.grant_stop(reason, Manner::HangUp),
            }
        }
    }
}

impl From<Observable<'_>> for Watched {
    fn from(what: Observable<'_>) -> Self {
        match what {
            Observable::Command(command) => Self::Command(Arc::clone(command)),
            Observable::Shell(shell) => Self::Shell(Arc::clone(shell)),
        }
    }
}

/// One client connection: how far it has been given each resource without a hole.
#[derive(Debug, Default)]
pub struct Peer {
    // Identifiers sort by age, so the first entry is the oldest resource.
    cursors: Mutex<BTreeMap<Uuid, Arc<Cursor>>>,
}

impl Peer {
    /// More resources than this are not remembered; the oldest go first.
    const MOST: usize = 4096;

    /// A connection that has read nothing yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The automatic cursor of a resource.
    pub fn cursor(&self, resource: Resource) -> Arc<Cursor> {
        let mut cursors = self.cursors.lock();
        let cursor = Arc::clone(cursors.entry(resource.id).or_insert_with(|| Arc::new(Cursor::new())));
        if cursors.len() > Self::MOST {
            cursors.pop_first();
        }
        cursor
    }
}
