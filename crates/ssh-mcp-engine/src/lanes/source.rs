//! What a lane can be on: a resource of any kind, seen alike.

use std::{sync::Arc, time::Duration};

use ssh_mcp_core::{
    history::History,
    id::{CommandId, ForwardId, RsyncId, SerialId, SessionId, ShellId, TransferId},
    lane::Parting,
    lifecycle::Snapshot,
    owner::Owner,
    port::EndWords,
    quota::Quota,
    reason::Reason,
    registry::{Command, Entry, Forward, Found, Rsync, Serial, Session, Shell, Transfer},
    uri::{Resource, Scheme},
};

use crate::{
    Engine, Missing, Observable,
    observe::{LaneObserver, Watched},
};

/// A resource that produces something.
#[derive(Clone)]
pub enum Source {
    /// A command.
    Command(Arc<Command>),
    /// A shell.
    Shell(Arc<Shell>),
    /// A transfer.
    Transfer(Arc<Transfer>),
    /// A sync.
    Rsync(Arc<Rsync>),
    /// A forward.
    Forward(Arc<Forward>),
    /// A serial port.
    Serial(Arc<Serial>),
    /// A session.
    Session(Arc<Session>),
}

/// What becomes of a lane that wants in.
pub(super) enum Admitted {
    /// It hears of everything from here on; a session is not observed, its lanes are no references.
    Live(Option<LaneObserver>),
    /// The resource ended by itself: the lane is told what it left.
    Late,
    /// The resource can no longer be observed.
    Gone(Missing),
}

impl Source {
    pub(super) fn find(engine: &Engine, owner: &Owner, resource: Resource) -> Result<Self, Missing> {
        match resource.scheme {
            Scheme::Command => engine.command(owner, CommandId::from(resource.id)).map(Self::Command),
            Scheme::Shell => engine.shell(owner, ShellId::from(resource.id)).map(Self::Shell),
            Scheme::Transfer => engine.transfer_of(owner, TransferId::from(resource.id)).map(Self::Transfer),
            Scheme::Rsync => engine.rsync(owner, RsyncId::from(resource.id)).map(Self::Rsync),
            Scheme::Forward => engine.forward_of(owner, ForwardId::from(resource.id)).map(Self::Forward),
            Scheme::Serial => engine.serial(owner, SerialId::from(resource.id)).map(Self::Serial),
            Scheme::Session => {
                let sessions = &engine.registries.sessions;
                let id = SessionId::from(resource.id);
                match sessions.find(owner, id, engine.clock.now()) {
                    Found::Here(session) => {
                        // Naming it is a use of it; one that is ending can still be looked at.
                        _ = engine.touch(&session);
                        Ok(Self::Session(session))
                    }
                    Found::Gone(grave) => Err(engine.gone(sessions, owner, id, grave.reason, grave.ended)),
                    Found::Unknown => Err(engine.unknown(sessions, owner, id)),
                }
            }
        }
    }

    /// Which one it is.
    pub fn resource(&self) -> Resource {
        match self {
            Self::Command(command) => command.spec.id.into(),
            Self::Shell(shell) => shell.spec.id.into(),
            Self::Transfer(transfer) => transfer.spec.id.into(),
            Self::Rsync(rsync) => rsync.spec.id.into(),
            Self::Forward(forward) => forward.spec.id.into(),
            Self::Serial(serial) => serial.spec.id.into(),
            Self::Session(session) => session.spec.id.into(),
        }
    }

    /// What it produces.
    pub fn history(&self) -> History<'_> {
        match self {
            Self::Command(command) => History::Bytes(&command.history),
            Self::Shell(shell) => History::Bytes(&shell.history),
            Self::Transfer(transfer) => History::State(&transfer.changes),
            Self::Rsync(rsync) => History::Log(&rsync.course.log),
            Self::Forward(forward) => History::Log(&forward.traffic.log),
            Self::Serial(serial) => History::Bytes(&serial.history),
            Self::Session(session) => History::State(&session.health),
        }
    }

    /// Its state in the words of `docs/resources.md`.
    pub fn status(&self) -> &'static str {
        match self {
            Self::Command(command) => command.status().as_str(),
            Self::Shell(shell) if shell.is_running() => "open",
            Self::Shell(_) => "closed",
            Self::Transfer(transfer) => transfer.status().as_str(),
            Self::Rsync(rsync) => rsync.status().as_str(),
            Self::Forward(forward) => forward.status().as_str(),
            Self::Serial(serial) if serial.is_open() => "open",
            Self::Serial(_) => "closed",
            Self::Session(session) => session.health.load().word.as_str(),
        }
    }

    /// How it ended, once that is known.
    pub fn end_words(&self) -> Option<EndWords> {
        let (reason, exit_code) = match self {
            Self::Command(command) => {
                let end = command.ending.get()?;
                (end.reason, end.facts.exit_code())
            }
            Self::Shell(shell) => (shell.ending.get()?.reason, None),
            Self::Transfer(transfer) => (transfer.ending.get()?.reason, None),
            Self::Rsync(rsync) => (rsync.ending.get()?.reason, None),
            Self::Forward(forward) => (forward.ending.get()?.reason, None),
            Self::Serial(serial) => (serial.ending.get()?.reason, None),
            Self::Session(session) => (session.ending.get()?.reason, None),
        };
        Some(EndWords { reason, exit_code })
    }

    /// The same for a call that waits: it can be observed while the call runs.
    pub(crate) fn observable(&self) -> Option<Observable<'_>> {
        match self {
            Self::Command(command) => Some(Observable::Command(command)),
            Self::Shell(shell) => Some(Observable::Shell(shell)),
            Self::Transfer(transfer) => Some(Observable::Transfer(transfer)),
            Self::Rsync(rsync) => Some(Observable::Rsync(rsync)),
            Self::Forward(forward) => Some(Observable::Forward(forward)),
            Self::Serial(serial) => Some(Observable::Serial(serial)),
            Self::Session(_) => None,
        }
    }

    pub(super) fn places(&self) -> &Arc<Quota> {
        match self {
            Self::Command(command) => &command.lanes,
            Self::Shell(shell) => &shell.lanes,
            Self::Transfer(transfer) => &transfer.lanes,
            Self::Rsync(rsync) => &rsync.lanes,
            Self::Forward(forward) => &forward.lanes,
            Self::Serial(serial) => &serial.lanes,
            Self::Session(session) => &session.lanes,
        }
    }

    pub(super) fn life(&self) -> Option<Snapshot> {
        match self {
            Self::Command(command) => Some(command.life.snapshot()),
            Self::Shell(shell) => Some(shell.life.snapshot()),
            Self::Transfer(transfer) => Some(transfer.life.snapshot()),
            Self::Rsync(rsync) => Some(rsync.life.snapshot()),
            Self::Forward(forward) => Some(forward.life.snapshot()),
            Self::Serial(serial) => Some(serial.life.snapshot()),
            Self::Session(_) => None,
        }
    }

    pub(super) fn grace(&self) -> Option<Duration> {
        match self {
            Self::Command(command) => Some(command.spec.grace),
            Self::Shell(shell) => Some(shell.spec.grace),
            Self::Transfer(transfer) => Some(transfer.spec.grace),
            Self::Rsync(rsync) => Some(rsync.spec.grace),
            Self::Forward(_) | Self::Serial(_) | Self::Session(_) => None,
        }
    }

    /// What its lanes do once they have delivered its end: what was ended from outside has nothing more for them.
    pub(super) fn parting(&self) -> Parting {
        match self.end_words() {
            Some(words) if !words.reason.is_own_end() => Parting::Leave,
            Some(_) | None => Parting::Stay,
        }
    }

    pub(super) fn admit(&self, engine: &Arc<Engine>) -> Admitted {
        let observed = |watched| engine.observe_by_lane(watched);
        // What ends by itself can still be read: `uptime` is over before anybody can subscribe.
        let late = |reason: Option<Reason>| match reason {
            // Without a reason it is ending by itself in this moment.
            None => Admitted::Late,
            Some(reason) if reason.is_own_end() => Admitted::Late,
            Some(reason) => Admitted::Gone(self.gone(engine, reason)),
        };
        match self {
            Self::Command(command) => match observed(Watched::Command(Arc::clone(command))) {
                Some(observer) => Admitted::Live(Some(observer)),
                None => late(command.ended().map(|(reason, _)| reason).or_else(|| command.duty.order())),
            },
            Self::Shell(shell) => match observed(Watched::Shell(Arc::clone(shell))) {
                Some(observer) => Admitted::Live(Some(observer)),
                None => {
                    let reason = shell.ended().map(|(reason, _)| reason);
                    let reason = reason.or_else(|| shell.duty.order().map(|(reason, _)| reason));
                    Admitted::Gone(self.gone(engine, reason.unwrap_or(Reason::RemoteClosed)))
                }
            },
            Self::Transfer(transfer) => match observed(Watched::Transfer(Arc::clone(transfer))) {
                Some(observer) => Admitted::Live(Some(observer)),
                None => late(transfer.ended().map(|(reason, _)| reason).or_else(|| transfer.duty.order())),
            },
            Self::Rsync(rsync) => match observed(Watched::Rsync(Arc::clone(rsync))) {
                Some(observer) => Admitted::Live(Some(observer)),
                None => late(rsync.ended().map(|(reason, _)| reason).or_else(|| rsync.duty.order())),
            },
            Self::Forward(forward) => match observed(Watched::Forward(Arc::clone(forward))) {
                Some(observer) => Admitted::Live(Some(observer)),
                None => {
                    let reason = forward.ended().map(|(reason, _)| reason);
                    let reason = reason.or_else(|| forward.duty.order().map(|(reason, _)| reason));
                    Admitted::Gone(self.gone(engine, reason.unwrap_or(Reason::ConnectionLost)))
                }
            },
            Self::Serial(serial) => match observed(Watched::Serial(Arc::clone(serial))) {
                Some(observer) => Admitted::Live(Some(observer)),
                None => {
                    let reason = serial.ended().map(|(reason, _)| reason).or_else(|| serial.duty.order());
                    Admitted::Gone(self.gone(engine, reason.unwrap_or(Reason::ConnectionLost)))
                }
            },
            Self::Session(session) => match session.ended() {
                None => Admitted::Live(None),
                Some((reason, _)) => Admitted::Gone(self.gone(engine, reason)),
            },
        }
    }

    fn gone(&self, engine: &Engine, reason: Reason) -> Missing {
        let registries = &engine.registries;
        let now = engine.clock.now();
        match self {
            Self::Command(command) => {
                let ended = command.ended().map_or(now, |(_, at)| at);
                engine.gone(&registries.commands, &command.spec.owner, command.spec.id, reason, ended)
            }
            Self::Shell(shell) => {
                let ended = shell.ended().map_or(now, |(_, at)| at);
                engine.gone(&registries.shells, &shell.spec.owner, shell.spec.id, reason, ended)
            }
            Self::Transfer(transfer) => {
                let ended = transfer.ended().map_or(now, |(_, at)| at);
                engine.gone(&registries.transfers, &transfer.spec.owner, transfer.spec.id, reason, ended)
            }
            Self::Rsync(rsync) => {
                let ended = rsync.ended().map_or(now, |(_, at)| at);
                engine.gone(&registries.rsyncs, &rsync.spec.owner, rsync.spec.id, reason, ended)
            }
            Self::Forward(forward) => {
                let ended = forward.ended().map_or(now, |(_, at)| at);
                engine.gone(&registries.forwards, &forward.spec.owner, forward.spec.id, reason, ended)
            }
            Self::Serial(serial) => {
                let ended = serial.ended().map_or(now, |(_, at)| at);
                engine.gone(&registries.serials, &serial.spec.owner, serial.spec.id, reason, ended)
            }
            Self::Session(session) => {
                let ended = session.ended().map_or(now, |(_, at)| at);
                engine.gone(&registries.sessions, &session.spec.owner, session.spec.id, reason, ended)
            }
        }
    }
}
