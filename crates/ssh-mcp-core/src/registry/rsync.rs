//! The entry of a sync of two trees.

use std::{sync::Arc, time::Duration};

use super::{Direction, Duty, Entry, LeakReport};
use crate::{
    activity::Activity,
    id::{Id, RsyncId, SessionId},
    kind::rsync::{Course, Failure, Fault, Status},
    lifecycle::{Close, End, Ending, Lifecycle, SessionRef},
    owner::Owner,
    port::{Glimpse, mirror::Done},
    quota::{Place, Quota},
    reason::Reason,
    text,
    uri::Scheme,
};

/// A sync: its word, what becomes of it, and what is known of its end.
pub struct Rsync {
    /// What it was made of.
    pub spec: RsyncSpec,
    /// The word that decides who may observe or end it.
    pub life: Lifecycle,
    /// Its counters and its log.
    pub course: Course,
    /// Why, how and when it ended.
    pub ending: Ending<RsyncFacts>,
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
    pub duty: Duty<Reason>,
}

/// The fixed facts of a sync.
#[derive(Debug, Clone)]
pub struct RsyncSpec {
    /// Its identifier.
    pub id: RsyncId,
    /// Whom it belongs to.
    pub owner: Owner,
    /// The session it runs on.
    pub session: SessionId,
    /// `user@host:port` of the session.
    pub target: String,
    /// The agent of the session.
    pub agent: Option<String>,
    /// Which side is the source.
    pub direction: Direction,
    /// The path on this side, as far as it is text.
    pub local: String,
    /// The path on the far side, as the caller wrote it.
    pub remote: String,
    /// Whether nothing is changed.
    pub dry_run: bool,
    /// Whether what the source does not have goes.
    pub delete: bool,
    /// When it was started, since the engine's start.
    pub started: Duration,
    /// Wait before it ends after its last observer left.
    pub grace: Duration,
}

/// What is known of a sync that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RsyncFacts {
    /// How it ended.
    pub status: Status,
    /// Why it came to no end.
    pub fault: Option<Fault>,
    /// What whoever ran it said at its end.
    pub done: Done,
}

impl Rsync {
    /// A sync that has just been taken on.
    pub fn new(
        spec: RsyncSpec,
        life: Lifecycle,
        course: Course,
        lanes: Arc<Quota>,
        hold: (SessionRef, Place),
    ) -> Self {
        let started = spec.started;
        Self {
            active: Activity::new(started),
            read: Activity::new(started),
            unwatched: Activity::new(started),
            lanes,
            leak: LeakReport::default(),
            spec,
            life,
            course,
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

    /// What it is doing. It is not said to have ended before its last event can be read.
    pub fn status(&self) -> Status {
        let end = self.ending.get().filter(|_| self.course.log.mark().ended);
        end.map_or_else(|| self.course.status(), |end| end.facts.status)
    }

    /// Records the end, gives session and place back, and tells the log last; only the task that runs the sync may, once
    /// the word is closed and, if somebody else closed it, the order is there.
    pub fn settle(&self, now: Duration, outcome: Result<Done, Fault>) {
        let (status, reason, fault, done) = match (self.duty.order(), outcome) {
            (Some(Reason::ConnectionLost), _) => {
                let fault = Fault::new(Failure::ConnectionLost, "the connection ended".to_owned());
                (Status::Failed, Reason::ConnectionLost, Some(fault), Done::default())
            }
            (Some(reason), _) => {
                let fault = Fault::new(Failure::Cancelled, format!("ended: {reason}"));
                (Status::Cancelled, reason, Some(fault), Done::default())
            }
            (None, Ok(done)) => (Status::Completed, Reason::Completed, None, done),
            (None, Err(fault)) => {
                let reason = match fault.failure {
                    Failure::ConnectionLost => Reason::ConnectionLost,
                    Failure::Timeout => Reason::TimedOut,
                    Failure::Protocol
                    | Failure::Partial
                    | Failure::ListTooLarge
                    | Failure::FeatureMissing
                    | Failure::Refused
                    | Failure::Cancelled => Reason::Failed,
                };
                (Status::Failed, reason, Some(fault), Done::default())
            }
        };
        self.course.close(now);
        let delete_skipped = done.delete_skipped.clone();
        let facts = RsyncFacts { status, fault: fault.clone(), done };
        // Settled once, by one task.
        _ = self.ending.record(End { reason, facts, at: now });
        self.duty.let_go();
        self.course.finish(now, fault.as_ref(), delete_skipped.as_deref());
    }
}

impl Entry for Rsync {
    type Id = RsyncId;
    const SCHEME: Scheme = Scheme::Rsync;

    fn id(&self) -> RsyncId {
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
        let RsyncSpec { target, local, remote, direction, .. } = &self.spec;
        let (word, from, to) = match direction {
            Direction::Upload => ("Sync to", local, remote),
            Direction::Download => ("Sync from", remote, local),
        };
        let shown = |path: &str| match path {
            "" => "the login directory".to_owned(),
            path => text::cut(&text::one_line(path), 120).into_owned(),
        };
        Glimpse {
            id: self.spec.id.as_uuid(),
            session: Some(self.spec.session.as_uuid()),
            agent: self.spec.agent.clone(),
            name: None,
            target: target.clone(),
            status: self.status().as_str(),
            description: format!("{word} {target}: {} to {}", shown(from), shown(to)),
            created: self.spec.started,
            ended: ended.map(|(_, at)| at),
            reason: ended.map(|(reason, _)| reason),
            active: self.active.last(),
            observers: self.life.snapshot().observers,
            bytes: self.course.stats().bytes_transferred,
            held: 0,
            passage: None,
        }
    }

    fn ended(&self) -> Option<(Reason, Duration)> {
        self.ending.get().map(|end| (end.reason, end.at))
    }
}
