//! The entry of a command.

use std::{sync::Arc, time::Duration};

use super::{Duty, Entry, LeakReport};
use crate::{
    activity::Activity,
    history::ByteHistory,
    id::{CommandId, Id, SessionId},
    kind::command::{Facts, Status},
    lifecycle::{Close, Ending, Lifecycle, SessionRef},
    owner::Owner,
    port::Glimpse,
    quota::{Place, Quota},
    reason::Reason,
    text,
    uri::Scheme,
};

/// A command: its word, its output, and what is known of its end.
pub struct Command {
    /// What it was made of.
    pub spec: CommandSpec,
    /// The word that decides who may observe or end it.
    pub life: Lifecycle,
    /// Its output, both streams in the order of arrival.
    pub history: ByteHistory,
    /// Why, how and when it ended.
    pub ending: Ending<Facts>,
    /// Last output.
    pub active: Activity,
    /// Last look at it by a caller.
    pub read: Activity,
    /// When its last lane left.
    pub unwatched: Activity,
    /// Places for lanes on it.
    pub lanes: Arc<Quota>,
    /// Whether a leak report waits to be shown.
    pub leak: LeakReport,
    /// What the task that runs it is told and holds.
    pub duty: Duty<Reason>,
}

/// The fixed facts of a command.
#[derive(Debug, Clone)]
pub struct CommandSpec {
    /// Its identifier.
    pub id: CommandId,
    /// Whom it belongs to.
    pub owner: Owner,
    /// The session it runs on.
    pub session: SessionId,
    /// `user@host:port` of the session.
    pub target: String,
    /// The agent of the session.
    pub agent: Option<String>,
    /// The command as the caller wrote it.
    pub command: String,
    /// When it was started, since the engine's start.
    pub started: Duration,
    /// When its run time is over, since the engine's start.
    pub ends: Option<Duration>,
    /// Wait before it ends after its last observer left.
    pub grace: Duration,
}

impl Command {
    /// A command that has just been started.
    pub fn new(
        spec: CommandSpec,
        life: Lifecycle,
        history: ByteHistory,
        lanes: Arc<Quota>,
        hold: (SessionRef, Place),
    ) -> Self {
        Self {
            active: Activity::new(spec.started),
            read: Activity::new(spec.started),
            unwatched: Activity::new(spec.started),
            lanes,
            leak: LeakReport::default(),
            spec,
            life,
            history,
            ending: Ending::new(),
            duty: Duty::new(hold),
        }
    }

    /// Asks for its end; whoever wins the word decides the reason.
    pub fn stop(&self, reason: Reason) -> Close {
        let close = self.life.close();
        if close == Close::Won {
            self.duty.give(reason);
        }
        close
    }

    /// What it is doing.
    pub fn status(&self) -> Status {
        self.ending.get().map_or(Status::Running, |end| end.facts.status)
    }
}

impl Entry for Command {
    type Id = CommandId;
    const SCHEME: Scheme = Scheme::Command;

    fn id(&self) -> CommandId {
        self.spec.id
    }

    fn owner(&self) -> &Owner {
        &self.spec.owner
    }

    fn session_id(&self) -> Option<SessionId> {
        Some(self.spec.session)
    }

    fn glimpse(&self) -> Glimpse {
        let ended = self.ended();
        let mark = self.history.mark();
        Glimpse {
            id: self.spec.id.as_uuid(),
            session: Some(self.spec.session.as_uuid()),
            agent: self.spec.agent.clone(),
            name: None,
            target: self.spec.target.clone(),
            status: self.status().as_str(),
            description: format!(
                "Command on {}: {}",
                self.spec.target,
                text::cut(&text::one_line(&self.spec.command), 120)
            ),
            created: self.spec.started,
            ended: ended.map(|(_, at)| at),
            reason: ended.map(|(reason, _)| reason),
            active: self.active.last(),
            observers: self.life.snapshot().observers,
            bytes: mark.end,
            held: self.history.held(),
            passage: None,
        }
    }

    fn ended(&self) -> Option<(Reason, Duration)> {
        self.ending.get().map(|end| (end.reason, end.at))
    }
}
