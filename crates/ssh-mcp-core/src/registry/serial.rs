//! The entry of an open serial port.

use std::{sync::Arc, time::Duration};

use super::{Duty, Entry, LeakReport};
use crate::{
    activity::Activity,
    history::ByteHistory,
    id::{Id, SerialId, SessionId},
    kind::serial::{Claim, WriteQueue},
    lifecycle::{AutoRelease, Close, Ending, Lifecycle},
    owner::Owner,
    port::{
        Glimpse,
        serial::{LineLost, LineMode, Located},
    },
    quota::Quota,
    reason::Reason,
    sync::{AtomicU64, Ordering},
    uri::Scheme,
};

/// A serial port: its word, what it received, what waits to be written, and what is known of its end.
pub struct Serial {
    /// What it was made of.
    pub spec: SerialSpec,
    /// The word that decides who may observe or end it.
    pub life: Lifecycle,
    /// What was received.
    pub history: ByteHistory,
    /// What waits to be written.
    pub queue: WriteQueue,
    /// Why and when it ended, and the system's words where the device went away.
    pub ending: Ending<Option<LineLost>>,
    /// Last byte in or out.
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
    pub duty: Duty<Reason, Claim>,
    written: AtomicU64,
}

/// The fixed facts of a serial port.
#[derive(Debug, Clone)]
pub struct SerialSpec {
    /// Its identifier.
    pub id: SerialId,
    /// Whom it belongs to.
    pub owner: Owner,
    /// The name it was opened by.
    pub path: String,
    /// The device behind the name.
    pub device: Located,
    /// How it is run.
    pub mode: LineMode,
    /// Its label.
    pub label: Option<String>,
    /// When it was opened, since the engine's start.
    pub opened: Duration,
}

impl Serial {
    /// A port that has just been opened.
    pub fn new(spec: SerialSpec, history: ByteHistory, lanes: Arc<Quota>, claim: Claim) -> Self {
        let opened = spec.opened;
        Self {
            active: Activity::new(opened),
            read: Activity::new(opened),
            unwatched: Activity::new(opened),
            lanes,
            leak: LeakReport::default(),
            spec,
            // A port that closed by itself would let the board's next words go unheard.
            life: Lifecycle::owned(AutoRelease::Off),
            history,
            queue: WriteQueue::new(),
            ending: Ending::new(),
            duty: Duty::holding(claim),
            written: AtomicU64::new(0),
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

    /// Resolves when the end is recorded and the device is free.
    pub async fn over(&self) {
        let mut watch = self.history.watch();
        while !self.history.mark().ended {
            watch.changed().await;
        }
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.ending.get().is_none()
    }

    /// Notes bytes the driver has taken.
    pub fn note_written(&self, bytes: usize) {
        // Relaxed: shown only.
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes the driver has taken so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

impl Entry for Serial {
    type Id = SerialId;
    const SCHEME: Scheme = Scheme::Serial;

    fn id(&self) -> SerialId {
        self.spec.id
    }

    fn owner(&self) -> &Owner {
        &self.spec.owner
    }

    fn session_id(&self) -> Option<SessionId> {
        None
    }

    fn glimpse(&self) -> Glimpse {
        let ended = self.ended();
        let SerialSpec { path, mode, .. } = &self.spec;
        Glimpse {
            id: self.spec.id.as_uuid(),
            session: None,
            agent: None,
            name: self.spec.label.clone(),
            target: path.clone(),
            status: if ended.is_some() { "closed" } else { "open" },
            description: format!("Serial port {path}, {} baud {}", mode.baud, mode.framing()),
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
