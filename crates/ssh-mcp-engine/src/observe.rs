//! Observation: lanes, and calls that read or wait while they do, count as observers (`docs/lifecycle.md`, Policy).

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use ssh_mcp_core::{
    lifecycle::{Epoch, Expired, Lifecycle, Observed, Released, State},
    reason::Reason,
    registry::{Closing, Command, Forward, Manner, Rsync, Serial, Shell, Transfer},
    target_names,
};

use crate::Engine;

/// Something that can be observed.
#[derive(Clone)]
pub enum Observable<'a> {
    /// A command.
    Command(&'a Arc<Command>),
    /// A shell.
    Shell(&'a Arc<Shell>),
    /// A transfer.
    Transfer(&'a Arc<Transfer>),
    /// A sync.
    Rsync(&'a Arc<Rsync>),
    /// A forward.
    Forward(&'a Arc<Forward>),
    /// A serial port.
    Serial(&'a Arc<Serial>),
}

/// A call that reads or waits; dropping it ends the observation.
pub struct CasualObserver {
    engine: Arc<Engine>,
    watched: Watched,
}

/// A lane on a live resource; dropping it ends the observation.
pub(crate) struct LaneObserver {
    engine: Weak<Engine>,
    watched: Watched,
}

#[derive(Clone)]
pub(crate) enum Watched {
    Command(Arc<Command>),
    Shell(Arc<Shell>),
    Transfer(Arc<Transfer>),
    Rsync(Arc<Rsync>),
    Forward(Arc<Forward>),
    Serial(Arc<Serial>),
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

    /// Observes a live resource for as long as a lane is on it; a closed one refuses.
    pub(crate) fn observe_by_lane(self: &Arc<Self>, watched: Watched) -> Option<LaneObserver> {
        match watched.life().observe() {
            Observed::Accepted => Some(LaneObserver { engine: Arc::downgrade(self), watched }),
            Observed::Refused => None,
        }
    }

    /// Starts the timer a resource that releases itself needs, if it needs one now.
    pub(crate) fn arm(self: &Arc<Self>, what: Observable<'_>) {
        let watched = Watched::from(what);
        if let Some(epoch) = watched.life().armed() {
            self.release_after(watched, epoch, self.settings.lifecycle_own_grace);
        }
    }

    /// Input is a sign of life: a running deadline begins anew.
    pub(crate) fn postpone(self: &Arc<Self>, what: Observable<'_>) {
        let watched = Watched::from(what);
        if let Some(epoch) = watched.life().push_deadline() {
            self.release_after(watched, epoch, self.settings.lifecycle_own_grace);
        }
    }

    /// A timer; one that fires late does nothing, because the epoch has moved on.
    fn release_after(&self, watched: Watched, epoch: Epoch, grace: Duration) {
        let at = self.clock.now() + grace;
        let clock = self.clock;
        // An epoch belongs to one state; if it is over already, the timer is void and its reason is nobody's.
        let reason = match watched.life().snapshot().state {
            State::Owned => Reason::NeverObserved,
            State::Observed | State::Releasing | State::Closed => Reason::UnsubscribeGraceElapsed,
        };
        if grace.is_zero() {
            return watched.expire(epoch, reason);
        }
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
            Released::ArmGrace(epoch) => {
                // A host that looks every ten seconds keeps what it looks at between two looks.
                let grace = self.engine.settings.lifecycle_own_grace;
                self.engine.release_after(self.watched.clone(), epoch, grace);
            }
            Released::Nothing => {}
            Released::Refused => report_conflict(),
        }
    }
}

impl Drop for LaneObserver {
    fn drop(&mut self) {
        // Without an engine nothing is timed any more.
        let Some(engine) = self.engine.upgrade() else { return };
        self.watched.note_unwatched(engine.clock.now());
        match self.watched.life().release() {
            Released::ArmGrace(epoch) => {
                let grace = self.watched.grace();
                engine.release_after(self.watched.clone(), epoch, grace);
            }
            Released::Nothing => {}
            Released::Refused => report_conflict(),
        }
    }
}

fn report_conflict() {
    tracing::error!(target: target_names::LIFECYCLE, code = "LIFECYCLE_STATE_CONFLICT", "left twice");
}

impl Watched {
    pub(crate) fn life(&self) -> &Lifecycle {
        match self {
            Self::Command(command) => &command.life,
            Self::Shell(shell) => &shell.life,
            Self::Transfer(transfer) => &transfer.life,
            Self::Rsync(rsync) => &rsync.life,
            Self::Forward(forward) => &forward.life,
            Self::Serial(serial) => &serial.life,
        }
    }

    fn note_read(&self, now: Duration) {
        match self {
            Self::Command(command) => command.read.touch(now),
            Self::Shell(shell) => shell.read.touch(now),
            Self::Transfer(transfer) => transfer.read.touch(now),
            Self::Rsync(rsync) => rsync.read.touch(now),
            Self::Forward(forward) => forward.read.touch(now),
            Self::Serial(serial) => serial.read.touch(now),
        }
    }

    fn note_unwatched(&self, now: Duration) {
        match self {
            Self::Command(command) => command.unwatched.touch(now),
            Self::Shell(shell) => shell.unwatched.touch(now),
            Self::Transfer(transfer) => transfer.unwatched.touch(now),
            Self::Rsync(rsync) => rsync.unwatched.touch(now),
            Self::Forward(forward) => forward.unwatched.touch(now),
            Self::Serial(serial) => serial.unwatched.touch(now),
        }
    }

    fn grace(&self) -> Duration {
        match self {
            Self::Command(command) => command.spec.grace,
            Self::Shell(shell) => shell.spec.grace,
            Self::Transfer(transfer) => transfer.spec.grace,
            Self::Rsync(rsync) => rsync.spec.grace,
            // It never releases itself.
            Self::Forward(_) => Duration::MAX,
            // It never releases itself.
            Self::Serial(_) => Duration::MAX,
        }
    }

    fn expire(&self, epoch: Epoch, reason: Reason) {
        if self.life().expire(epoch) == Expired::RunClose {
            self.grant_stop(reason);
        }
    }

    /// Hands the duty of a word that a timer has won to the task that runs it.
    pub(crate) fn grant_stop(&self, reason: Reason) {
        match self {
            Self::Command(command) => command.duty.give(reason),
            Self::Shell(shell) => shell.duty.give((reason, Manner::HangUp)),
            Self::Transfer(transfer) => transfer.duty.give(reason),
            Self::Rsync(rsync) => rsync.duty.give(reason),
            Self::Forward(forward) => forward.duty.give((reason, Closing::AtOnce)),
            Self::Serial(serial) => serial.duty.give(reason),
        }
    }
}

impl From<Observable<'_>> for Watched {
    fn from(what: Observable<'_>) -> Self {
        match what {
            Observable::Command(command) => Self::Command(Arc::clone(command)),
            Observable::Shell(shell) => Self::Shell(Arc::clone(shell)),
            Observable::Transfer(transfer) => Self::Transfer(Arc::clone(transfer)),
            Observable::Rsync(rsync) => Self::Rsync(Arc::clone(rsync)),
            Observable::Forward(forward) => Self::Forward(Arc::clone(forward)),
            Observable::Serial(serial) => Self::Serial(Arc::clone(serial)),
        }
    }
}
