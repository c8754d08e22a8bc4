//! The engine through its outer face, on a scripted host in virtual time.
//!
//! `sessions`: opening, reuse, probes, ends. `commands`: how they end. `ladder`: how they are ended. `shells`, `transcripts`, `transfers`, `syncs`, `forwards`, `serials`. `life`:
//! timers, retention, memory, owners. `lanes`: who is told of what, and leaks. `waits`. `races`: what must hold in every order. `wire` has links the scripted host has not.

mod commands;
#[cfg(feature = "port_forward")]
mod forwards;
mod ladder;
mod lanes;
mod life;
mod races;
mod serials;
mod sessions;
mod shells;
mod syncs;
mod transcripts;
mod transfers;
mod waits;
mod wire;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use ssh_mcp_core::{
    history::View,
    kind::command::{Facts, Terminal},
    lifecycle::{AutoRelease, SessionState},
    owner::Owner,
    port::ssh::{Connector, Pty, PtySize},
    quote::Context,
    reason::Reason,
    registry::{Command, Expiry, Session, Shell},
    settings::Settings,
    target::{Address, Credentials, HostKeyPolicy, ShownKey, Target},
};
use ssh_mcp_testkit::{
    files::Shelf,
    host::{Script, ScriptedHost, defaults},
    mirror::ScriptedMirror,
    serial::ScriptedBus,
    transcripts::ScriptedDisk,
};

use crate::{
    Connect, ConnectAnswer, ConnectFailure, Engine, Ensure, Exec, Goal, OpenShell, Opening, Ports, Reuse,
    StartError, Waited,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// An engine whose only host is `host`.
struct Rig {
    host: ScriptedHost,
    files: Shelf,
    mirror: ScriptedMirror,
    bus: ScriptedBus,
    engine: Arc<Engine>,
    owner: Owner,
}

fn rig(host: ScriptedHost) -> Rig {
    rig_with(host, |_| {})
}

fn rig_with(host: ScriptedHost, change: impl FnOnce(&mut Settings)) -> Rig {
    let connector = Arc::new(host.clone());
    rig_on(host, connector, change)
}

fn rig_on(host: ScriptedHost, connector: Arc<dyn Connector>, change: impl FnOnce(&mut Settings)) -> Rig {
    rig_keeping(ScriptedDisk::new(), host, connector, change)
}

fn rig_keeping(
    disk: ScriptedDisk,
    host: ScriptedHost,
    connector: Arc<dyn Connector>,
    change: impl FnOnce(&mut Settings),
) -> Rig {
    let mut settings = Settings::default();
    change(&mut settings);
    let files = Shelf::new();
    let mirror = ScriptedMirror::new();
    let bus = ScriptedBus::new();
    let ports = Ports {
        connector,
        files: Arc::new(files.clone()),
        mirror: Arc::new(mirror.clone()),
        serial: Arc::new(bus.clone()),
        transcripts: Arc::new(disk),
    };
    let engine = Engine::start(Arc::new(settings), ports, 7);
    Rig { host, files, mirror, bus, engine, owner: Owner::local() }
}

fn target() -> Target {
    Target { address: Address { host: "box".into(), port: 22 }, username: "me".into() }
}

fn to(target: Target) -> Option<Goal> {
    Some(Goal::Host(Box::new(defaults().hop(target, Credentials::default()))))
}

fn ask_connect(reuse: Reuse) -> Connect {
    Connect {
        goal: to(target()),
        session: None,
        timeout: Some(30 * SECOND),
        max_retries: 3,
        retry_delay: SECOND,
        overall: Some(50 * SECOND),
        name: None,
        agent: None,
        expiry: Expiry::After(300 * SECOND),
        reuse,
        accepted: Vec::new(),
    }
}

fn ask_exec(session: &Session, command: &str) -> Exec {
    Exec {
        session: session.spec.id,
        command: command.into(),
        context: Context::default(),
        terminal: Terminal::None,
        limit: Some(180 * SECOND),
        input: None,
        auto_release: AutoRelease::Off,
        grace: 2 * SECOND,
        history: 1 << 20,
    }
}

fn ask_shell(session: &Session) -> OpenShell {
    OpenShell {
        session: session.spec.id,
        pty: Pty { term: "xterm".into(), size: PtySize { cols: 80, rows: 24 } },
        context: Context::default(),
        inactivity: Some(600 * SECOND),
        history: 1 << 20,
        auto_release: AutoRelease::Off,
        grace: 2 * SECOND,
        name: None,
        ensure: Ensure::No,
        retention: HOUR,
        transcript: None,
    }
}

impl Rig {
    async fn ask(&self, ask: Connect) -> Result<ConnectAnswer, ConnectFailure> {
        self.engine.connect(&self.owner, ask, &|_, _| {}).await
    }

    async fn connect(&self) -> Arc<Session> {
        connected(self.ask(ask_connect(Reuse::ForceNew)).await)
    }

    async fn connect_for(&self, agent: &str) -> Arc<Session> {
        connected(self.ask(Connect { agent: Some(agent.into()), ..ask_connect(Reuse::ForceNew) }).await)
    }

    async fn exec(&self, session: &Session, command: &str) -> Arc<Command> {
        self.engine.exec(&self.owner, ask_exec(session, command)).await.unwrap()
    }

    /// Runs a command to its end.
    async fn run(&self, ask: Exec) -> Arc<Command> {
        let command = self.engine.exec(&self.owner, ask).await.unwrap();
        self.ended(&command).await;
        command
    }

    async fn ended(&self, command: &Arc<Command>) {
        assert_eq!(self.engine.await_command(command, 24 * HOUR).await, Waited::Over);
    }

    async fn open(&self, session: &Session) -> Arc<Shell> {
        self.engine.open_shell(&self.owner, ask_shell(session)).await.unwrap().shell
    }

    async fn open_named(
        &self,
        session: &Session,
        name: &str,
        ensure: Ensure,
    ) -> Result<(Arc<Shell>, Opening), StartError> {
        let ask = OpenShell { name: Some(name.into()), ensure, ..ask_shell(session) };
        self.engine.open_shell(&self.owner, ask).await.map(|opened| (opened.shell, opened.how))
    }

    async fn write(&self, shell: &Arc<Shell>, text: &str) {
        let sent = self.engine.write_shell(shell, None, Bytes::copy_from_slice(text.as_bytes())).await;
        assert_eq!(sent, Ok(text.len()));
    }

    /// The time since the engine's start.
    fn now(&self) -> Duration {
        self.engine.clock().now()
    }

    /// Lets tasks run for so long.
    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Nothing is left of a session but its record.
    fn check_left_nothing(&self, session: &Session) {
        let life = session.life.snapshot();
        assert_eq!((life.state, life.refs), (SessionState::Closed, 0));
        assert_eq!((session.commands.in_use(), session.shells.in_use()), (0, 0));
        assert_eq!(self.host.open_channels(), 0);
    }
}

fn connected(answer: Result<ConnectAnswer, ConnectFailure>) -> Arc<Session> {
    match answer.unwrap() {
        ConnectAnswer::Connected { session, .. } => session,
        ConnectAnswer::Reused { .. } | ConnectAnswer::Suggested { .. } => panic!("not connected"),
    }
}

fn facts(command: &Command) -> &Facts {
    &command.ending.get().expect("ended").facts
}

fn reason(command: &Command) -> Reason {
    command.ending.get().expect("ended").reason
}

fn shell_end(shell: &Shell) -> Reason {
    shell.ending.get().expect("ended").reason
}

fn output(command: &Command) -> String {
    String::from_utf8(command.history.read(0, usize::MAX).bytes).unwrap()
}

fn stderr(command: &Command) -> String {
    String::from_utf8(command.history.read_origin(View::Stderr, 0, usize::MAX).bytes).unwrap()
}

fn screen(shell: &Shell) -> String {
    String::from_utf8(shell.history.read(0, usize::MAX).bytes).unwrap()
}

/// Small numbers that differ from round to round and not from run to run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}
