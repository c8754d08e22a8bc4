//! The entry of a transfer of files.

use std::{sync::Arc, time::Duration};

use super::{Duty, Entry, LeakReport};
use crate::{
    activity::Activity,
    history::StateHistory,
    id::{Id, SessionId, TransferId},
    kind::transfer::{Fault, Outcome, Progress, Rate, Reached},
    lifecycle::{Close, Ending, Lifecycle, SessionRef},
    owner::Owner,
    port::Glimpse,
    quota::{Place, Quota},
    reason::Reason,
    sync::Mutex,
    text,
    uri::Scheme,
};

/// A transfer: its word, how far it is, and what is known of its end.
pub struct Transfer {
    /// What it was made of.
    pub spec: TransferSpec,
    /// The word that decides who may observe or end it.
    pub life: Lifecycle,
    /// How far it is, at this moment.
    pub progress: Arc<Progress>,
    /// That something has changed; what is true is in `progress` and `ending`.
    pub changes: StateHistory<()>,
    /// How fast it is.
    pub rate: Mutex<Rate>,
    /// Why, how and when it ended.
    pub ending: Ending<TransferFacts>,
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

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From here to the far side.
    Upload,
    /// From the far side to here.
    Download,
}

impl Direction {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Download => "download",
        }
    }
}

/// The fixed facts of a transfer.
#[derive(Debug, Clone)]
pub struct TransferSpec {
    /// Its identifier.
    pub id: TransferId,
    /// Whom it belongs to.
    pub owner: Owner,
    /// The session it runs on.
    pub session: SessionId,
    /// `user@host:port` of the session.
    pub target: String,
    /// The agent of the session.
    pub agent: Option<String>,
    /// Which way.
    pub direction: Direction,
    /// The path on this side, as far as it is text; of several sources, all of them.
    pub local: String,
    /// The path on the far side, likewise.
    pub remote: String,
    /// How many files, of several or of a directory.
    pub files: Option<u64>,
    /// Bytes of all sources.
    pub total: u64,
    /// When it was started, since the engine's start.
    pub started: Duration,
    /// Wait before it ends after its last observer left.
    pub grace: Duration,
}

/// What is known of a transfer that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferFacts {
    /// How it ended.
    pub status: TransferStatus,
    /// How far it had come.
    pub reached: Reached,
    /// Why it failed; of several files, the first.
    pub error: Option<Fault>,
    /// What is worth saying of the files that arrived.
    pub outcome: Outcome,
    /// The first files that failed, each with its path in front.
    pub failures: Vec<Fault>,
}

/// What a transfer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransferStatus {
    /// It runs.
    Running,
    /// Every byte is there.
    Completed,
    /// It could not be done.
    Failed,
    /// Somebody ended it.
    Cancelled,
}

impl TransferStatus {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Transfer {
    /// A transfer that has just been started.
    pub fn new(
        spec: TransferSpec,
        life: Lifecycle,
        progress: Arc<Progress>,
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
            progress,
            changes: StateHistory::new(()),
            rate: Mutex::new(Rate::since(started)),
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

    /// How far it is; once it has ended, for good.
    pub fn reached(&self) -> Reached {
        self.ending.get().map_or_else(|| self.progress.read(), |end| end.facts.reached)
    }

    /// What it is doing.
    pub fn status(&self) -> TransferStatus {
        self.ending.get().map_or(TransferStatus::Running, |end| end.facts.status)
    }
}

impl Entry for Transfer {
    type Id = TransferId;
    const SCHEME: Scheme = Scheme::Transfer;

    fn id(&self) -> TransferId {
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
        let TransferSpec { target, local, remote, direction, .. } = &self.spec;
        let (word, from, to) = match direction {
            Direction::Upload => ("Upload to", local, remote),
            Direction::Download => ("Download from", remote, local),
        };
        Glimpse {
            id: self.spec.id.as_uuid(),
            session: Some(self.spec.session.as_uuid()),
            agent: self.spec.agent.clone(),
            name: None,
            target: target.clone(),
            status: self.status().as_str(),
            description: format!(
                "{word} {target}: {} to {}",
                text::cut(&text::one_line(from), 120),
                text::cut(&text::one_line(to), 120)
            ),
            created: self.spec.started,
            ended: ended.map(|(_, at)| at),
            reason: ended.map(|(reason, _)| reason),
            active: self.active.last(),
            observers: self.life.snapshot().observers,
            bytes: self.reached().bytes,
            held: 0,
            passage: None,
        }
    }

    fn ended(&self) -> Option<(Reason, Duration)> {
        self.ending.get().map(|end| (end.reason, end.at))
    }
}
