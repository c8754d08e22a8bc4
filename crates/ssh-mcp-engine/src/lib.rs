//! The tasks of ssh-mcp: sessions, what runs on them, and serial ports, between the ports and the histories.
//!
//! One [`Engine`] holds everything: the registries, the timers, the way out. Its methods are what callers may ask,
//! one group per file: `connect` and `session` (open, probe, end), `command`, `shell`, `transfer`, `rsync`, `forward`, `serial`, `transcript`, `lanes`
//! and `peers` (who is told of what), `keep` (the ended), `wait`. What they ask for is
//! decided by core's words and machines; here is only what waits and moves bytes. A file that needs a comment about
//! the domain holds a rule that belongs in core.
//!
//! *Invariant:* every task is owned by the engine and ends with it; nothing here knows that MCP exists.

mod clock;
mod command;
mod connect;
#[cfg(feature = "port_forward")]
mod forward;
mod keep;
mod lanes;
mod leak;
mod observe;
mod peers;
mod reading;
mod rsync;
mod serial;
mod session;
mod shell;
mod tasks;
mod timers;
mod transcript;
pub mod transfer;
mod wait;

#[cfg(test)]
mod tests;

use std::{future::Future, sync::Arc, time::Duration};

pub use clock::Clock;
pub use command::{Cancel, Exec, Waited};
pub use connect::{Connect, ConnectAnswer, ConnectFailure, Goal, Progress, Reuse};
#[cfg(feature = "port_forward")]
pub use forward::{BindError, CloseForward, ForwardError, ForwardOrder};
pub use keep::Keep;
pub use lanes::{Body, Inline, LaneClosed, LaneEntry, LaneSums, OpenLane, OpenLaneError, Origin, Source};
pub use leak::Unobserved;
pub use observe::{CasualObserver, Observable};
pub use peers::{ListWatch, Peer, PeerGuard};
pub use rsync::{SyncError, SyncOrder};
pub use serial::{CloseSerial, OpenSerial, SerialError, SerialWriteError};
pub use session::{AgentDisconnected, Disconnected};
pub use shell::{CloseShell, Ensure, OpenShell, OpenedShell, Opening, ShellMatch, ShellWait, WriteError};
pub use timers::Drained;
pub use transfer::{
    local::Local,
    run::{Order, Route, TransferError},
};
pub use wait::{Place, Until, WaitItem, WaitOver};

use ssh_mcp_core::{
    history::ByteHistory,
    id::{CommandId, ForwardId, Id, SessionId, ShellId},
    kind::serial::OpenDevices,
    lifecycle::{Gate, Touched},
    owner::Owner,
    port::{
        Directory,
        fs::FsMount,
        mirror::Mirror,
        serial::SerialBus,
        ssh::{ChannelError, Connector, LinkLost},
        transcript::{TranscriptError, Transcripts},
    },
    quota::Quota,
    reason::Reason,
    registry::{Command, Entry, Forward, Found, Registries, Registry, Session, Shell},
    settings::Settings,
    sync::{AtomicBool, Ordering},
};
use tasks::Tasks;
use tokio_util::sync::CancellationToken;

/// What the engine needs from the outside world.
pub struct Ports {
    /// The way to SSH hosts.
    pub connector: Arc<dyn Connector>,
    /// The way to the files of a host.
    pub files: Arc<dyn FsMount>,
    /// What makes two trees equal.
    pub mirror: Arc<dyn Mirror>,
    /// The serial devices of this machine.
    pub serial: Arc<dyn SerialBus>,
    /// The place for transcripts.
    pub transcripts: Arc<dyn Transcripts>,
}

/// Everything that lives in one process of the product. Two of them can live side by side.
pub struct Engine {
    settings: Arc<Settings>,
    clock: Clock,
    registries: Registries,
    ports: Ports,
    tasks: Tasks,
    gate: Arc<Gate>,
    /// Cancelled when the gate is shut, so that calls inside it come out.
    draining: CancellationToken,
    sessions: Arc<Quota>,
    lanes: lanes::Lanes,
    lists: peers::Lists,
    /// Cancelled when a shutdown has closed every lane.
    silent: CancellationToken,
    keeps: Arc<keep::Keeps>,
    mint: clock::Mint,
    /// Serialises the check and the publication of shell names.
    names: ssh_mcp_core::sync::Mutex<()>,
    /// The destinations of transfers.
    written: Arc<transfer::claims::Taken>,
    /// The serial devices that are open here.
    devices: OpenDevices,
    /// Whether commands and shells wait for lanes that hold their histories back.
    waits_for_readers: AtomicBool,
}

/// An identifier that leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// Never seen, or forgotten.
    Unknown {
        /// Live identifiers nearest to it.
        nearest: Vec<String>,
    },
    /// It has ended.
    Gone {
        /// Why.
        reason: Reason,
        /// When, since the engine's start.
        ended: Duration,
        /// Live identifiers nearest to it.
        nearest: Vec<String>,
    },
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The session is unknown or ending.
    #[error("no such session")]
    Session(Missing),
    /// The session runs as many commands as it may.
    #[error("the session already runs {limit} commands")]
    TooManyCommands {
        /// How many it may.
        limit: u32,
    },
    /// The session holds as many shells as it may.
    #[error("the session already holds {limit} shells")]
    TooManyShells {
        /// How many it may.
        limit: u32,
    },
    /// The session has as many transfers and syncs under way as it may.
    #[error("the session already has {limit} transfers under way")]
    TooManyTransfers {
        /// How many it may.
        limit: u32,
    },
    /// The session has as many forwards as it may.
    #[error("the session already has {limit} forwards")]
    TooManyForwards {
        /// How many it may.
        limit: u32,
    },
    /// An open shell of the target has that name.
    #[error("a shell named {name} is open on that target")]
    NameInUse {
        /// The name.
        name: String,
        /// The shell that has it.
        shell: ShellId,
    },
    /// No channel could be had.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// No transcript could be made.
    #[error(transparent)]
    Transcript(#[from] TranscriptError),
    /// The server is stopping.
    #[error("the server is stopping")]
    Draining,
}

impl Engine {
    /// An engine with its timers running. Must be called inside a runtime.
    ///
    /// `seed` decides the jitter between connection attempts.
    pub fn start(settings: Arc<Settings>, ports: Ports, seed: u64) -> Arc<Self> {
        let sessions = settings.max_sessions.map_or_else(Quota::unlimited, Quota::new);
        let engine = Arc::new(Self {
            clock: Clock::start(),
            registries: Registries::default(),
            ports,
            tasks: Tasks::new(),
            gate: Gate::new(),
            draining: CancellationToken::new(),
            sessions,
            lanes: lanes::Lanes::new(settings.lanes_total),
            lists: peers::Lists::default(),
            silent: CancellationToken::new(),
            keeps: Arc::default(),
            mint: clock::Mint::new(seed),
            names: ssh_mcp_core::sync::Mutex::new(()),
            written: Arc::default(),
            devices: OpenDevices::default(),
            waits_for_readers: AtomicBool::new(false),
            settings,
        });
        timers::start(&engine);
        engine
    }

    /// The settings of the process.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The clock all times are measured by.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Everything that lives or is retained.
    pub fn registries(&self) -> &Registries {
        &self.registries
    }

    /// From now on commands and shells wait for the slowest lane that holds their history back, for as long as it takes:
    /// for a process whose one connection has nothing else to do, as a channel that is not read holds up all others.
    pub fn wait_for_readers(&self) {
        // Relaxed: whoever starts something afterwards was told so by other means.
        self.waits_for_readers.store(true, Ordering::Relaxed);
    }

    /// An empty history for the output of a command or a shell.
    pub(crate) fn stream(&self, limit: usize) -> ByteHistory {
        let history = ByteHistory::new(limit);
        match self.waits_for_readers.load(Ordering::Relaxed) {
            true => history.waiting_for_readers(),
            false => history,
        }
    }

    /// A fresh identifier.
    pub fn mint<I: Id>(&self) -> I {
        I::from(self.mint.uuid(self.clock.unix_millis()))
    }

    /// Whether the engine takes nothing new.
    pub fn is_draining(&self) -> bool {
        self.gate.is_shut()
    }

    /// Ends when a shutdown has closed every lane: who still speaks to a client may come to its end.
    pub async fn silenced(&self) {
        self.silent.cancelled().await;
    }

    /// Whether one more session would find a place.
    pub fn has_room(&self) -> bool {
        self.sessions.in_use() < self.sessions.limit()
    }

    /// An open session of the owner; looking it up is a use of it.
    ///
    /// # Errors
    /// Unknown, of another owner, ending or ended.
    pub fn session(&self, owner: &Owner, id: SessionId) -> Result<Arc<Session>, Missing> {
        let session = self.look_up(&self.registries.sessions, owner, id)?;
        match self.touch(&session) {
            Touched::Kept => Ok(session),
            Touched::TooLate => Err(match session.ended() {
                Some((reason, ended)) => self.gone(&self.registries.sessions, owner, id, reason, ended),
                None => self.unknown(&self.registries.sessions, owner, id),
            }),
        }
    }

    /// A command of the owner, live or retained.
    ///
    /// # Errors
    /// Unknown, of another owner, or past its retention.
    pub fn command(&self, owner: &Owner, id: CommandId) -> Result<Arc<Command>, Missing> {
        let command = self.look_up(&self.registries.commands, owner, id)?;
        command.read.touch(self.clock.now());
        self.touch_session(command.spec.session);
        Ok(command)
    }

    /// A shell of the owner, live or retained.
    ///
    /// # Errors
    /// Unknown, of another owner, or past its retention.
    pub fn shell(&self, owner: &Owner, id: ShellId) -> Result<Arc<Shell>, Missing> {
        let shell = self.look_up(&self.registries.shells, owner, id)?;
        shell.read.touch(self.clock.now());
        self.touch_session(shell.spec.session);
        Ok(shell)
    }

    /// A forward of the owner, active or retained.
    ///
    /// # Errors
    /// Unknown, of another owner, or past its retention.
    pub fn forward_of(&self, owner: &Owner, id: ForwardId) -> Result<Arc<Forward>, Missing> {
        let forward = self.look_up(&self.registries.forwards, owner, id)?;
        forward.read.touch(self.clock.now());
        self.touch_session(forward.spec.session);
        Ok(forward)
    }

    /// Resolves when the end of a forward is recorded.
    pub(crate) async fn forward_ended(&self, forward: &Forward) {
        let mut watch = forward.traffic.log.watch();
        // The last thing that is set: place and reference have been given back.
        while !forward.traffic.log.mark().ended {
            watch.changed().await;
        }
    }

    /// Notes a use of a session through one of its resources.
    fn touch_session(&self, id: SessionId) {
        if let Some(session) = self.registries.sessions.entry(id) {
            // What has ended is used no more.
            let (Touched::Kept | Touched::TooLate) = self.touch(&session);
        }
    }

    /// Notes a use of a session: the time first, so that a reaper that sees the new epoch sees the time too.
    pub(crate) fn touch(&self, session: &Session) -> Touched {
        session.active.touch(self.clock.now());
        session.life.touch()
    }

    /// Runs a call that creates something, unless the engine is stopping; when it begins to stop, the call is dropped.
    ///
    /// *Invariant:* `call` does not wait between listing what it made and its answer, so that nothing made is lost.
    async fn creating<T, E>(
        &self,
        draining: impl Fn() -> E,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let _pass = self.gate.enter().ok_or_else(&draining)?;
        self.draining.run_until_cancelled(call).await.unwrap_or_else(|| Err(draining()))
    }

    fn look_up<E: Entry>(&self, registry: &Registry<E>, owner: &Owner, id: E::Id) -> Result<Arc<E>, Missing> {
        match registry.find(owner, id, self.clock.now()) {
            Found::Here(entry) => Ok(entry),
            Found::Gone(grave) => Err(self.gone(registry, owner, id, grave.reason, grave.ended)),
            Found::Unknown => Err(self.unknown(registry, owner, id)),
        }
    }

    fn unknown<E: Entry>(&self, registry: &Registry<E>, owner: &Owner, id: E::Id) -> Missing {
        Missing::Unknown { nearest: registry.nearest(owner, &id.to_string()) }
    }

    fn gone<E: Entry>(
        &self,
        at: &Registry<E>,
        owner: &Owner,
        id: E::Id,
        reason: Reason,
        ended: Duration,
    ) -> Missing {
        Missing::Gone { reason, ended, nearest: at.nearest(owner, &id.to_string()) }
    }
}

/// Whoever drops the last handle without a shutdown leaves no task behind.
impl Drop for Engine {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl From<LinkLost> for StartError {
    fn from(lost: LinkLost) -> Self {
        Self::Channel(ChannelError::Lost(lost))
    }
}
