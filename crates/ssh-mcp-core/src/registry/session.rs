//! The entry of an SSH session.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use super::Entry;
use crate::{
    activity::Activity,
    flight::{Flight, Joined},
    history::StateHistory,
    id::{Id, SessionId},
    kind::{login_shell::LoginShell, rsync::Probe},
    lifecycle::{Ending, SessionLife, SessionState},
    owner::Owner,
    port::{
        Glimpse,
        fs::RemoteFs,
        ssh::{HostKeyReport, Link},
    },
    quota::{Place, Quota},
    reason::Reason,
    sync::{AtomicBool, Mutex},
    target::{Route, Target},
    uri::Scheme,
};

/// A session: its word, its link, and the places of what runs on it.
pub struct Session {
    /// What it was made of.
    pub spec: SessionSpec,
    /// The word that decides who may use or end it.
    pub life: Arc<SessionLife>,
    /// The way to the host.
    pub link: Box<dyn Link>,
    /// Last use.
    pub active: Activity,
    /// What is known of the connection's health.
    pub health: StateHistory<Health>,
    /// Places for running commands.
    pub commands: Arc<Quota>,
    /// Places for open shells.
    pub shells: Arc<Quota>,
    /// Places for transfers and syncs under way.
    pub transfers: Arc<Quota>,
    /// Places for forwards.
    pub forwards: Arc<Quota>,
    /// Places for lanes on it.
    pub lanes: Arc<Quota>,
    /// Its files.
    pub files: Mount,
    /// Whether the login shell is a POSIX one; found out once.
    pub login_shell: Arc<Flight<LoginShell>>,
    /// What the host says of its rsync; found out once.
    pub rsync: Arc<Flight<Probe>>,
    /// Why and when it ended.
    pub ending: Ending<Cascade>,
    /// Its place among all sessions; given back when it has ended.
    pub place: Mutex<Option<Place>>,
}

/// The file service of a session: started once for all who need it, ended when nobody has needed it for a while, and
/// started again when the server has ended it.
pub struct Mount {
    files: Mutex<Arc<Flight<Arc<dyn RemoteFs>>>>,
    used: Activity,
    /// Whether the host was found to have no program that hashes files.
    pub no_hash_program: Arc<AtomicBool>,
}

/// A file service that nobody uses is ended after this time (`docs/transfers.md`).
const UNUSED: Duration = Duration::from_secs(60);

impl Mount {
    /// The service of a session that was opened at `now`; it is not started yet.
    pub fn new(now: Duration) -> Self {
        Self { files: Mutex::new(Flight::new()), used: Activity::new(now), no_hash_program: Arc::default() }
    }

    /// Takes the service, or starts it, or waits for whoever does.
    pub fn join(&self, now: Duration) -> Joined<Arc<dyn RemoteFs>> {
        self.used.touch(now);
        let mut files = self.files.lock();
        if files.value().is_some_and(|files| files.is_gone()) {
            *files = Flight::new();
        }
        files.join()
    }

    /// Ends the service if nobody has used it for a while.
    pub fn end_unused(&self, now: Duration) {
        let mut files = self.files.lock();
        let Some(running) = files.value() else { return };
        // The flight holds it, and so does this function.
        if Arc::strong_count(&running) > 2 {
            self.used.touch(now);
        } else if now >= self.used.last() + UNUSED {
            *files = Flight::new();
        }
    }

    /// Ends the service with its session.
    pub fn end(&self) {
        *self.files.lock() = Flight::new();
    }
}

/// The fixed facts of a session.
#[derive(Debug, Clone)]
pub struct SessionSpec {
    /// Its identifier.
    pub id: SessionId,
    /// Whom it belongs to.
    pub owner: Owner,
    /// Account and host.
    pub target: Target,
    /// The way there.
    pub route: Route,
    /// The agent it was made for.
    pub agent: Option<String>,
    /// Its label.
    pub name: Option<String>,
    /// Whether the inactivity timer applies.
    pub expiry: Expiry,
    /// When it was connected, since the engine's start.
    pub connected: Duration,
    /// The key the host showed.
    pub host_key: HostKeyReport,
    /// The method that let us in.
    pub auth_method: &'static str,
    /// Whether zlib is in use.
    pub compressed: bool,
}

/// What ended together with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cascade {
    /// Commands that were running.
    pub commands: u64,
    /// Shells that were open.
    pub shells: u64,
    /// Transfers that were under way.
    pub transfers: u64,
    /// Syncs that were under way.
    pub rsyncs: u64,
    /// Forwards that were open.
    pub forwards: u64,
}

/// Whether and when an idle session ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Never: it is persistent.
    Never,
    /// After so much time without use.
    After(Duration),
}

/// What is known of a session's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// In one word.
    pub word: HealthWord,
    /// When that was found out, since the engine's start.
    pub checked: Duration,
    /// The last round trip of a keepalive.
    pub round_trip: Option<Duration>,
}

/// A session's health in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthWord {
    /// The last keepalive was answered.
    Healthy,
    /// The last keepalive was not.
    Unhealthy,
    /// It has ended.
    Disconnected,
}

impl HealthWord {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Disconnected => "disconnected",
        }
    }
}

impl Session {
    /// When it will end by itself if nobody uses it, since the engine's start.
    pub fn expires(&self) -> Option<Duration> {
        match self.spec.expiry {
            Expiry::Never => None,
            Expiry::After(idle) => Some(self.active.last().saturating_add(idle)),
        }
    }

    /// Whether it takes calls.
    pub fn is_open(&self) -> bool {
        matches!(self.life.snapshot().state, SessionState::Idle | SessionState::Active)
    }
}

impl Entry for Session {
    type Id = SessionId;
    const SCHEME: Scheme = Scheme::Session;

    fn id(&self) -> SessionId {
        self.spec.id
    }

    fn owner(&self) -> &Owner {
        &self.spec.owner
    }

    fn session_id(&self) -> Option<SessionId> {
        Some(self.spec.id)
    }

    fn glimpse(&self) -> Glimpse {
        let ended = self.ended();
        Glimpse {
            id: self.spec.id.as_uuid(),
            session: Some(self.spec.id.as_uuid()),
            agent: self.spec.agent.clone(),
            name: self.spec.name.clone(),
            target: self.spec.target.to_string(),
            status: self.health.read().value.word.as_str(),
            description: format!("SSH session {}", self.spec.target),
            created: self.spec.connected,
            ended: ended.map(|(_, at)| at),
            reason: ended.map(|(reason, _)| reason),
            active: self.active.last(),
            observers: 0,
            bytes: 0,
            held: 0,
            passage: None,
        }
    }

    fn ended(&self) -> Option<(Reason, Duration)> {
        self.ending.get().map(|end| (end.reason, end.at))
    }
}
