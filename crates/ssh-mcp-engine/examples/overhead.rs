//! What the engine itself costs, on a host that answers at once: time per command, output per second, input per write.
//!
//! `cargo run --release -p ssh-mcp-engine --example overhead`
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "it prints figures and has no errors to expect"
)]

use std::{
    collections::VecDeque,
    future::{pending, ready as at_once},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use ssh_mcp_core::{
    history::Origin,
    kind::command::Terminal,
    lifecycle::AutoRelease,
    owner::Owner,
    port::{
        BoxFuture,
        forward::{Line, LineError},
        resolve::{ResolveError, Resolved, TargetAsk},
        ssh::{
            Channel, ChannelControl, ChannelError, ChannelEvent, ChannelEvents, ChannelGone, ConnectError,
            ConnectRequest, Connected, Connector, HostKeyReport, HostKeyStatus, Link, LinkLost, Pty, PtySize,
            Signal, Start,
        },
    },
    quote,
    registry::{Expiry, Session},
    settings::Settings,
    sync::Mutex,
    target::{Address, Credentials, Target},
};
use ssh_mcp_engine::{Connect, ConnectAnswer, Engine, Ensure, Exec, Goal, OpenShell, Ports, Reuse};
use ssh_mcp_testkit::{
    files::Shelf,
    host::{defaults, plainly},
    mirror::ScriptedMirror,
    serial::ScriptedBus,
    transcripts::ScriptedDisk,
};
use tokio::task::coop::poll_proceed;

const CHUNK: usize = 32 * 1024;
const FLOOD: u64 = 4 << 30;

/// Every command ends at once with status 0; `flood` writes first; a shell takes all input and says nothing.
struct Instantly;

#[derive(Default)]
struct Wire {
    events: Mutex<VecDeque<ChannelEvent>>,
    flood: Mutex<u64>,
    reader: Mutex<Option<Waker>>,
}

struct Events(Arc<Wire>, Bytes);
struct Control(Arc<Wire>);

impl Connector for Instantly {
    fn resolve<'a>(&'a self, ask: &'a TargetAsk) -> BoxFuture<'a, Result<Resolved, ResolveError>> {
        Box::pin(async move { plainly(ask) })
    }

    fn connect<'a>(&'a self, _: &'a ConnectRequest) -> BoxFuture<'a, Result<Connected, ConnectError>> {
        let status = HostKeyStatus::Known;
        let host_key = HostKeyReport { algorithm: String::new(), fingerprint: String::new(), status };
        Box::pin(at_once(Ok(Connected {
            link: Box::new(Self),
            host_key,
            auth_method: "none",
            compressed: false,
        })))
    }
}

impl Link for Instantly {
    fn open(&self, _: Duration) -> BoxFuture<'_, Result<Channel, ChannelError>> {
        let wire = Arc::new(Wire::default());
        let events = Box::new(Events(Arc::clone(&wire), Bytes::from(vec![b'x'; CHUNK])));
        Box::pin(at_once(Ok(Channel { events, control: Arc::new(Control(wire)) })))
    }

    fn line(&self) -> BoxFuture<'_, Result<Box<dyn Line>, LineError>> {
        Box::pin(at_once(Err(LineError::NotAgain)))
    }

    fn ping(&self) -> BoxFuture<'_, Result<Duration, LinkLost>> {
        Box::pin(at_once(Ok(Duration::ZERO)))
    }

    fn lost(&self) -> BoxFuture<'_, LinkLost> {
        Box::pin(pending())
    }

    fn disconnect(&self) -> BoxFuture<'_, ()> {
        Box::pin(at_once(()))
    }
}

impl ChannelEvents for Events {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ChannelEvent> {
        *self.0.reader.lock() = Some(cx.waker().clone());
        {
            let mut left = self.0.flood.lock();
            if *left > 0 {
                // As a real channel does: a task that never yields would hold up all others.
                ready!(poll_proceed(cx)).made_progress();
                *left = left.saturating_sub(CHUNK as u64);
                return Poll::Ready(ChannelEvent::Data(Origin::Stdout, self.1.clone()));
            }
        }
        match self.0.events.lock().pop_front() {
            Some(event) => Poll::Ready(event),
            None => Poll::Pending,
        }
    }
}

impl ChannelControl for Control {
    fn start(&self, start: Start) -> BoxFuture<'static, Result<(), ChannelGone>> {
        if let Start::Exec { command, .. } = start {
            let mut events = self.0.events.lock();
            if let Some((token, _)) =
                command.split_once(":$((6*7))").and_then(|(head, _)| head.rsplit_once('"'))
            {
                let answer =
                    command.replace(token, "").replace(":$((6*7)):${ssh_mcp_unset-posix}\"", ":42:posix\n");
                events.push_back(ChannelEvent::Data(
                    Origin::Stdout,
                    answer.trim_start_matches('"').to_owned().into(),
                ));
            }
            if let Some((token, _)) = command.strip_prefix("echo '").and_then(|rest| rest.split_once('\'')) {
                events.push_back(ChannelEvent::Data(Origin::Stderr, format!("{token} 4711\n").into()));
            }
            if command.contains("flood") {
                *self.0.flood.lock() = FLOOD;
            }
            events.extend([ChannelEvent::ExitStatus(0), ChannelEvent::Eof, ChannelEvent::Closed]);
        }
        if let Some(reader) = self.0.reader.lock().take() {
            reader.wake();
        }
        Box::pin(at_once(Ok(())))
    }

    fn send(&self, _: Bytes) -> BoxFuture<'static, Result<(), ChannelGone>> {
        Box::pin(at_once(Ok(())))
    }

    fn finish_input(&self) -> BoxFuture<'static, Result<(), ChannelGone>> {
        Box::pin(at_once(Ok(())))
    }

    fn signal(&self, _: Signal) -> BoxFuture<'static, Result<(), ChannelGone>> {
        Box::pin(at_once(Ok(())))
    }

    fn resize(&self, _: PtySize) -> BoxFuture<'static, Result<(), ChannelGone>> {
        Box::pin(at_once(Ok(())))
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        Box::pin(at_once(()))
    }
}

fn exec(session: &Session, command: &str) -> Exec {
    Exec {
        session: session.spec.id,
        command: command.into(),
        context: quote::Context::default(),
        terminal: Terminal::None,
        limit: Some(Duration::from_secs(180)),
        input: None,
        auto_release: AutoRelease::Off,
        grace: Duration::ZERO,
        history: 10 << 20,
    }
}

async fn run(engine: &Arc<Engine>, owner: &Owner, ask: Exec) -> Option<u32> {
    let command = engine.exec(owner, ask).await.unwrap();
    engine.await_command(&command, Duration::from_secs(600)).await;
    command.ending.get()?.facts.pid
}

/// Resident memory of this process, where the system tells (Linux).
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let ports = Ports {
        connector: Arc::new(Instantly),
        files: Arc::new(Shelf::new()),
        mirror: Arc::new(ScriptedMirror::new()),
        serial: Arc::new(ScriptedBus::new()),
        transcripts: Arc::new(ScriptedDisk::new()),
    };
    let engine = Engine::start(Arc::new(Settings::default()), ports, 1);
    let owner = Owner::local();
    let target = Target { address: Address { host: "h".into(), port: 22 }, username: "u".into() };
    let hop = defaults().hop(target, Credentials::default());
    let ask = Connect {
        goal: Some(Goal::Host(Box::new(hop))),
        session: None,
        timeout: Some(Duration::from_secs(1)),
        max_retries: 0,
        retry_delay: Duration::ZERO,
        overall: None,
        name: None,
        agent: None,
        expiry: Expiry::Never,
        reuse: Reuse::ForceNew,
        accepted: Vec::new(),
    };
    let Ok(ConnectAnswer::Connected { session, .. }) = engine.connect(&owner, ask, &|_, _| {}).await else {
        return;
    };
    let first = Instant::now();
    let pid = run(&engine, &owner, exec(&session, "true")).await;
    println!("first command (with the probe): {:?}, group {pid:?}", first.elapsed());

    const COMMANDS: u32 = 20_000;
    let began = Instant::now();
    for _ in 0..COMMANDS {
        run(&engine, &owner, exec(&session, "true")).await;
    }
    println!("one command after the other: {:?} each", began.elapsed() / COMMANDS);

    let began = Instant::now();
    let mut runners = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (engine, owner, session) = (Arc::clone(&engine), owner.clone(), Arc::clone(&session));
        runners.spawn(async move {
            for _ in 0..COMMANDS / 50 {
                run(&engine, &owner, exec(&session, "true")).await;
            }
        });
    }
    while runners.join_next().await.is_some() {}
    println!("fifty at a time: {:?} each", began.elapsed() / COMMANDS);

    let retained = u64::try_from(engine.registries().commands.len()).unwrap_or(u64::MAX);
    println!("memory for {retained} ended commands: {} bytes each", resident() / retained.max(1));

    let began = Instant::now();
    run(&engine, &owner, exec(&session, "flood")).await;
    println!("output: {:.2} GiB/s in chunks of 32 KiB", (FLOOD >> 30) as f64 / began.elapsed().as_secs_f64());

    let ask = OpenShell {
        session: session.spec.id,
        pty: Pty { term: "xterm".into(), size: PtySize { cols: 80, rows: 24 } },
        context: quote::Context::default(),
        inactivity: None,
        history: 10 << 20,
        auto_release: AutoRelease::Off,
        grace: Duration::ZERO,
        name: None,
        ensure: Ensure::No,
        retention: Duration::ZERO,
        transcript: None,
    };
    let shell = engine.open_shell(&owner, ask).await.unwrap().shell;
    let began = Instant::now();
    for _ in 0..100_000 {
        engine.write_shell(&shell, None, Bytes::from_static(b"echo hello\n")).await.unwrap();
    }
    println!("one write to a shell: {:?}", began.elapsed() / 100_000);
    let began = Instant::now();
    println!("stopped {:?} after {:?}", engine.shutdown().await, began.elapsed());
}
