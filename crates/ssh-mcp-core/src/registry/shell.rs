//! The entry of an interactive shell.

use std::{sync::Arc, time::Duration};

use super::{Duty, Entry, LeakReport, Recording};
use crate::{
    activity::Activity,
    cursor::Cursor,
    history::ByteHistory,
    id::{Id, SessionId, ShellId},
    kind::{command::Exit, input::InputQueue, shell::Frame},
    lifecycle::{Close, Ending, Lifecycle, SessionRef},
    owner::Owner,
    port::{Glimpse, ssh::PtySize},
    quota::{Place, Quota},
    reason::Reason,
    sync::{AtomicU64, Ordering},
    uri::Scheme,
};

/// A shell: its word, its terminal's output, the input that waits, and what is known of its end.
pub struct Shell {
    /// What it was made of.
    pub spec: ShellSpec,
    /// The word that decides who may observe or end it.
    pub life: Lifecycle,
    /// What its terminal printed.
    pub history: ByteHistory,
    /// The transcript it is written to, if one was asked for.
    pub recording: Option<Recording>,
    /// How far the `ssh_shell_*` tools have drained the output; one place for all callers, as one terminal has.
    pub drained: Cursor,
    /// Input on its way to the far side.
    pub input: InputQueue<Frame>,
    /// Why and when it ended, and what the far side said.
    pub ending: Ending<Option<Exit>>,
    /// Last input or output.
    pub active: Activity,
    /// Last look at it by a caller.
    pub read: Activity,
    /// When its last lane left.
    pub unwatched: Activity,
    /// Places for lanes on it.
    pub lanes: Arc<Quota>,
    /// Whether a leak report waits to be shown.
    pub leak: LeakReport,
    size: AtomicU64,
    /// What the task that runs it is told and holds.
    pub duty: Duty<(Reason, Manner)>,
}

/// How a shell is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As when a terminal is hung up.
    HangUp,
    /// By a signal the shell cannot handle.
    Kill,
}

/// The fixed facts of a shell.
#[derive(Debug, Clone)]
pub struct ShellSpec {
    /// Its identifier.
    pub id: ShellId,
    /// Whom it belongs to.
    pub owner: Owner,
    /// The session it runs on.
    pub session: SessionId,
    /// `user@host:port` of the session.
    pub target: String,
    /// The agent of the session.
    pub agent: Option<String>,
    /// Its label, unique among the open shells of the target.
    pub name: Option<String>,
    /// Value of `TERM`.
    pub term: String,
    /// When it was opened, since the engine's start.
    pub opened: Duration,
    /// Time without input, output and observer after which it is closed.
    pub inactivity: Option<Duration>,
    /// Wait before it ends after its last observer left.
    pub grace: Duration,
    /// How long it stays readable after it has ended by itself.
    pub retention: Duration,
}

impl Shell {
    /// A shell that has just been opened.
    pub fn new(
        spec: ShellSpec,
        size: PtySize,
        life: Lifecycle,
        history: ByteHistory,
        recording: Option<Recording>,
        lanes: Arc<Quota>,
        hold: (SessionRef, Place),
    ) -> Self {
        Self {
            active: Activity::new(spec.opened),
            read: Activity::new(spec.opened),
            unwatched: Activity::new(spec.opened),
            lanes,
            leak: LeakReport::default(),
            spec,
            life,
            history,
            recording,
            drained: Cursor::new(),
            input: InputQueue::new(),
            ending: Ending::new(),
            size: AtomicU64::new(pack(size)),
            duty: Duty::new(hold),
        }
    }

    /// The terminal's size.
    pub fn size(&self) -> PtySize {
        // Relaxed: shown only.
        let packed = self.size.load(Ordering::Relaxed);
        PtySize { cols: (packed >> 32) as u32, rows: packed as u32 }
    }

    /// Notes the terminal's new size.
    pub fn resized(&self, size: PtySize) {
        self.size.store(pack(size), Ordering::Relaxed);
    }

    /// Asks for its end; whoever wins the word decides reason and manner.
    pub fn stop(&self, reason: Reason, manner: Manner) -> Close {
        let close = self.life.close();
        if close == Close::Won {
            self.duty.give((reason, manner));
        }
        close
    }

    /// Resolves when the end is recorded.
    pub async fn over(&self) {
        let mut watch = self.history.watch();
        // The history's mark is the last thing that is set: place and reference have been given back.
        while !self.history.mark().ended {
            watch.changed().await;
        }
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.ending.get().is_none()
    }
}

impl Entry for Shell {
    type Id = ShellId;
    const SCHEME: Scheme = Scheme::Shell;

    fn id(&self) -> ShellId {
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
        let PtySize { cols, rows } = self.size();
        Glimpse {
            id: self.spec.id.as_uuid(),
            session: Some(self.spec.session.as_uuid()),
            agent: self.spec.agent.clone(),
            name: self.spec.name.clone(),
            target: self.spec.target.clone(),
            status: if ended.is_some() { "closed" } else { "open" },
            description: format!("Shell on {}, {} {cols}x{rows}", self.spec.target, self.spec.term),
            created: self.spec.opened,
            ended: ended.map(|(_, at)| at),
            reason: ended.map(|(reason, _)| reason),
            active: self.active.last(),
            observers: self.life.snapshot().observers,
            bytes: self.history.mark().end,
            held: self.history.held(),
            passage: None,
        }
    }

    fn ended(&self) -> Option<(Reason, Duration)> {
        self.ending.get().map(|end| (end.reason, end.at))
    }
}

fn pack(size: PtySize) -> u64 {
    u64::from(size.cols) << 32 | u64::from(size.rows)
}
