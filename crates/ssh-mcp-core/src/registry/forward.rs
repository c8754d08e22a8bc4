//! The entry of a forward.

use std::{sync::Arc, time::Duration};

use super::{Duty, Entry, LeakReport};
use crate::{
    activity::Activity,
    id::{ForwardId, Id, SessionId},
    kind::forward::{Passage, Traffic},
    lifecycle::{AutoRelease, Close, End, Ending, Lifecycle, SessionRef},
    owner::Owner,
    port::Glimpse,
    quota::{Place, Quota},
    reason::Reason,
    uri::Scheme,
};

/// A forward: its word, what goes through it, and what is known of its end.
pub struct Forward {
    /// What it was made of.
    pub spec: ForwardSpec,
    /// The word that decides who may observe or end it.
    pub life: Lifecycle,
    /// Its counters and its log.
    pub traffic: Traffic,
    /// Why and when it ended.
    pub ending: Ending<ForwardEnd>,
    /// Last movement.
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
    pub duty: Duty<(Reason, Closing)>,
}

/// The fixed facts of a forward.
#[derive(Debug, Clone)]
pub struct ForwardSpec {
    /// Its identifier.
    pub id: ForwardId,
    /// Whom it belongs to.
    pub owner: Owner,
    /// The session it runs on.
    pub session: SessionId,
    /// `user@host:port` of the session.
    pub target: String,
    /// The agent of the session.
    pub agent: Option<String>,
    /// Which side listens, on which port, and where connections go.
    pub passage: Passage,
    /// When it was opened, since the engine's start.
    pub started: Duration,
}

/// What becomes of the connections of a forward that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// They get a few seconds.
    Patient,
    /// They are reset at once.
    AtOnce,
}

/// What is known of a forward that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ForwardEnd {
    /// The words of whoever broke it.
    pub cause: Option<String>,
}

/// A forward's state in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardStatus {
    /// It takes connections.
    Active,
    /// It has ended.
    Stopped,
}

impl ForwardStatus {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Stopped => "stopped",
        }
    }
}

impl Forward {
    /// A forward that has just been opened. Nobody has to observe one, so it never releases itself.
    pub fn new(spec: ForwardSpec, lanes: Arc<Quota>, hold: (SessionRef, Place)) -> Self {
        let started = spec.started;
        Self {
            active: Activity::new(started),
            read: Activity::new(started),
            unwatched: Activity::new(started),
            lanes,
            leak: LeakReport::default(),
            spec,
            life: Lifecycle::owned(AutoRelease::Off),
            traffic: Traffic::default(),
            ending: Ending::new(),
            duty: Duty::new(hold),
        }
    }

    /// Asks for its end; whoever wins the word decides the reason.
    pub fn stop(&self, reason: Reason, closing: Closing) -> Close {
        let close = self.life.close();
        if close == Close::Won {
            self.duty.give((reason, closing));
        }
        close
    }

    /// What it is doing. It is not said to have ended before its last event can be read.
    pub fn status(&self) -> ForwardStatus {
        match self.traffic.log.mark().ended {
            true => ForwardStatus::Stopped,
            false => ForwardStatus::Active,
        }
    }

    /// Records the end, gives session and place back, and tells the log last; only the task that runs the forward may,
    /// once the word is closed and, if somebody else closed it, the order is there.
    pub fn settle(&self, now: Duration, cause: Option<String>) {
        let reason = self.duty.order().map_or(Reason::ConnectionLost, |(reason, _)| reason);
        // Settled once, by one task.
        _ = self.ending.record(End { reason, facts: ForwardEnd { cause: cause.clone() }, at: now });
        self.duty.let_go();
        self.traffic.stop(now, reason, cause);
    }
}

impl Entry for Forward {
    type Id = ForwardId;
    const SCHEME: Scheme = Scheme::Forward;

    fn id(&self) -> ForwardId {
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
        let ForwardSpec { target, passage, .. } = &self.spec;
        Glimpse {
            id: self.spec.id.as_uuid(),
            session: Some(self.spec.session.as_uuid()),
            agent: self.spec.agent.clone(),
            name: None,
            target: target.clone(),
            status: self.status().as_str(),
            description: format!("Forward over {target}: {passage}"),
            created: self.spec.started,
            ended: ended.map(|(_, at)| at),
            reason: ended.map(|(reason, _)| reason),
            active: self.active.last(),
            observers: self.life.snapshot().observers,
            bytes: self.traffic.bytes_to_remote().saturating_add(self.traffic.bytes_from_remote()),
            held: 0,
            passage: Some(passage.clone()),
        }
    }

    fn ended(&self) -> Option<(Reason, Duration)> {
        self.ending.get().map(|end| (end.reason, end.at))
    }
}
