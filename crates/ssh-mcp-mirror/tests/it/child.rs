//! A channel of the SSH port over a process of this machine, which does what one over SSH does.

use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Pid, Signal as Kill, kill_process_group};
use ssh_mcp_core::history::Origin;
use ssh_mcp_core::port::BoxFuture;
use ssh_mcp_core::port::ssh::{
    Channel, ChannelControl, ChannelEvent, ChannelEvents, ChannelGone, LinkLost, PtySize, Signal, Start,
};
use ssh_mcp_core::registry::Direction;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::servers::{Age, Server};

/// What runs behind a channel, and what a test does to it.
#[derive(Clone)]
pub(crate) struct Setup {
    /// The rsync that a shell finds.
    pub(crate) server: Server,
    /// What the command line is made to say of the client.
    pub(crate) age: Age,
    /// What becomes of the command line before a shell gets it.
    pub(crate) command: Rewrite,
    /// The user and the group the command runs as, instead of the test's.
    pub(crate) run_as: Option<(u32, u32)>,
    /// A further group of that user.
    pub(crate) group: Option<u32>,
    /// Further variables.
    pub(crate) variables: Vec<(&'static str, String)>,
    /// The folder commands start in.
    pub(crate) home: std::path::PathBuf,
    /// How output arrives.
    pub(crate) delivery: Delivery,
    /// The output ends early.
    pub(crate) cut: Option<Cut>,
    /// What arrives is not what was sent.
    pub(crate) damage: Option<Damage>,
}

/// What becomes of a command line.
pub(crate) type Rewrite = Arc<dyn Fn(String) -> String + Send + Sync>;

/// How output arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// As it comes.
    AsItComes,
    /// One byte an event.
    ByteByByte,
}

/// Where and how output ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The process is killed once it has written so many bytes.
    Killed(usize),
    /// The connection is lost.
    Lost(usize),
}

/// Bytes that change on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Which way.
    pub(crate) direction: Direction,
    /// What is hit. It must not be cut in two by the ends of a piece, as what is short is not.
    pub(crate) pattern: &'static [u8],
    /// How often at most.
    pub(crate) times: usize,
}

impl Setup {
    /// Nothing special.
    pub(crate) fn new(server: &Server) -> Self {
        Self {
            server: server.clone(),
            age: Age::TODAY,
            command: Arc::new(|line| line),
            run_as: None,
            group: None,
            variables: Vec::new(),
            home: std::env::temp_dir(),
            delivery: Delivery::AsItComes,
            cut: None,
            damage: None,
        }
    }

    /// The server is told one more option.
    pub(crate) fn with_option(self, option: &str) -> Self {
        let option = format!(" {option} . ");
        Self { command: Arc::new(move |line| line.replacen(" . ", &option, 1)), ..self }
    }

    /// A channel on which nothing runs yet, and what a test may look at and do.
    pub(crate) fn open(self) -> (Channel, Process) {
        let (close, _) = watch::channel(false);
        let ends = Arc::new(Ends { close, input: Mutex::default() });
        let tamper = |direction| Tamper(self.damage.filter(|damage| damage.direction == direction));
        let (send, events) = mpsc::channel(1);
        let facts = Arc::new(Facts::default());
        let tasks = Arc::new(Mutex::new(JoinSet::new()));
        let control = Control {
            to_server: Arc::new(Mutex::new(tamper(Direction::Upload))),
            to_client: Mutex::new(Some(tamper(Direction::Download))),
            setup: self,
            ends: Arc::clone(&ends),
            events: Mutex::new(Some(send)),
            facts: Arc::clone(&facts),
            tasks: Arc::clone(&tasks),
        };
        let events = Events { events, facts: Arc::clone(&facts), _ends: ends, is_over: false };
        let channel = Channel { events: Box::new(events), control: Arc::new(control) };
        (channel, Process { facts, _tasks: tasks })
    }

    fn command(&self, line: &str) -> Command {
        let mut command = match self.run_as {
            None => Command::new("sh"),
            Some((uid, gid)) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string()]);
                match self.group {
                    None => command.arg("--clear-groups"),
                    Some(group) => command.args(["--groups", &group.to_string()]),
                };
                command.arg("sh");
                command
            }
        };
        command.arg("-c").arg((self.command)(self.age.applied_to(line))).current_dir(&self.home);
        command.envs(self.server.rsync.environment()).envs(self.variables.iter().cloned());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        command
    }
}

/// The process behind a channel, for the test. Dropping it ends the process.
pub(crate) struct Process {
    facts: Arc<Facts>,
    _tasks: Arc<Mutex<JoinSet<()>>>,
}

/// What is known of a process.
#[derive(Default)]
struct Facts {
    group: watch::Sender<Option<Pid>>,
    status: watch::Sender<Option<ExitStatus>>,
    stderr: Mutex<Vec<u8>>,
    /// All output has been taken, to its end.
    is_drained: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Process {
    /// How the process ended, once it has; and everything it started has ended, too.
    pub(crate) async fn ended(&self) -> ExitStatus {
        let ended = async {
            let status = self.facts.status.subscribe().wait_for(Option::is_some).await.unwrap().unwrap();
            // A child of the process is not ours to wait for.
            while is_alive(self.group().unwrap()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            status
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("the process has ended")
    }

    /// What it wrote to its standard error.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.facts.stderr.lock().unwrap()).into_owned()
    }

    /// Whether all it wrote has been taken, to the end.
    pub(crate) fn is_drained(&self) -> bool {
        self.facts.is_drained.load(Ordering::Relaxed)
    }

    /// Bytes it was sent.
    pub(crate) fn sent(&self) -> u64 {
        self.facts.sent.load(Ordering::Relaxed)
    }

    /// Bytes it wrote.
    pub(crate) fn received(&self) -> u64 {
        self.facts.received.load(Ordering::Relaxed)
    }

    /// It goes no further.
    pub(crate) fn freeze(&self) {
        kill_process_group(self.group().unwrap(), Kill::STOP).unwrap();
    }

    /// It ends without a word.
    pub(crate) fn kill(&self) {
        kill_process_group(self.group().unwrap(), Kill::KILL).unwrap();
    }

    fn group(&self) -> Option<Pid> {
        *self.facts.group.borrow()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(group) = self.group() {
            // It may have ended.
            kill_process_group(group, Kill::KILL).ok();
        }
    }
}

/// What both halves of a channel hold: the last to go closes it.
struct Ends {
    close: watch::Sender<bool>,
    input: Mutex<Option<ChildStdin>>,
}

impl Ends {
    fn close(&self) {
        self.input.lock().unwrap().take();
        self.close.send_replace(true);
    }

    async fn closed(&self) {
        self.close.subscribe().wait_for(|is_closed| *is_closed).await.unwrap();
    }

    fn check(&self) -> Result<(), ChannelGone> {
        if *self.close.borrow() { Err(ChannelGone) } else { Ok(()) }
    }

    /// Writes some of the bytes; how many. A process that reads no more is sent what nobody gets, as over SSH.
    fn poll_write(&self, bytes: &[u8], cx: &mut Context<'_>) -> Poll<usize> {
        let mut input = self.input.lock().unwrap();
        let Some(stdin) = input.as_mut() else { return Poll::Ready(bytes.len()) };
        Pin::new(stdin).poll_write(cx, bytes).map(|written| {
            written.unwrap_or_else(|_| {
                *input = None;
                bytes.len()
            })
        })
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.close();
    }
}

struct Events {
    events: mpsc::Receiver<ChannelEvent>,
    facts: Arc<Facts>,
    _ends: Arc<Ends>,
    is_over: bool,
}

impl ChannelEvents for Events {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ChannelEvent> {
        if self.is_over {
            return Poll::Pending;
        }
        let event = std::task::ready!(self.events.poll_recv(cx)).unwrap_or(ChannelEvent::Closed);
        if event == ChannelEvent::Eof {
            self.facts.is_drained.store(true, Ordering::Relaxed);
        }
        self.is_over = matches!(event, ChannelEvent::Closed | ChannelEvent::Lost(_));
        Poll::Ready(event)
    }
}

struct Control {
    setup: Setup,
    to_server: Arc<Mutex<Tamper>>,
    to_client: Mutex<Option<Tamper>>,
    ends: Arc<Ends>,
    events: Mutex<Option<mpsc::Sender<ChannelEvent>>>,
    facts: Arc<Facts>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Control {
    fn begin(&self, line: &str) {
        let mut child = self.setup.command(line).spawn().expect("a shell starts");
        let group = i32::try_from(child.id().unwrap()).unwrap();
        self.facts.group.send_replace(Pid::from_raw(group));
        *self.ends.input.lock().unwrap() = child.stdin.take();
        let events = self.events.lock().unwrap().take().expect("started once");
        let running = Running {
            facts: Arc::clone(&self.facts),
            events,
            close: self.ends.close.clone(),
            setup: self.setup.clone(),
            tamper: Mutex::new(self.to_client.lock().unwrap().take().expect("started once")),
        };
        self.tasks.lock().unwrap().spawn(running.serve(child));
    }
}

impl ChannelControl for Control {
    fn start(&self, start: Start) -> BoxFuture<'static, Result<(), ChannelGone>> {
        let Start::Exec { command, pty: None } = start else { panic!("only commands run here: {start:?}") };
        let asked = self.ends.check().map(|()| self.begin(&command));
        Box::pin(async move { asked })
    }

    fn send(&self, bytes: Bytes) -> BoxFuture<'static, Result<(), ChannelGone>> {
        let (ends, facts) = (Arc::clone(&self.ends), Arc::clone(&self.facts));
        let tamper = Arc::clone(&self.to_server);
        Box::pin(async move {
            ends.check()?;
            let mut bytes = bytes.to_vec();
            tamper.lock().unwrap().apply(&mut bytes);
            let write = async {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let written = std::future::poll_fn(|cx| ends.poll_write(rest, cx)).await;
                    facts.sent.fetch_add(written as u64, Ordering::Relaxed);
                    rest = &rest[written..];
                }
            };
            tokio::select! {
                biased;
                () = ends.closed() => Err(ChannelGone),
                () = write => Ok(()),
            }
        })
    }

    fn finish_input(&self) -> BoxFuture<'static, Result<(), ChannelGone>> {
        let finished = self.ends.check().map(|()| drop(self.ends.input.lock().unwrap().take()));
        Box::pin(async move { finished })
    }

    fn signal(&self, signal: Signal) -> BoxFuture<'static, Result<(), ChannelGone>> {
        let signal = match signal {
            Signal::Hup => Kill::HUP,
            Signal::Term => Kill::TERM,
            Signal::Kill => Kill::KILL,
        };
        if let Some(group) = *self.facts.group.borrow() {
            // It may have ended.
            kill_process_group(group, signal).ok();
        }
        let checked = self.ends.check();
        Box::pin(async move { checked })
    }

    fn resize(&self, _: PtySize) -> BoxFuture<'static, Result<(), ChannelGone>> {
        panic!("there is no terminal here")
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let ends = Arc::clone(&self.ends);
        Box::pin(async move { ends.close() })
    }
}

/// What the task of a process has.
struct Running {
    facts: Arc<Facts>,
    events: mpsc::Sender<ChannelEvent>,
    close: watch::Sender<bool>,
    setup: Setup,
    tamper: Mutex<Tamper>,
}

impl Running {
    async fn serve(self, mut child: Child) {
        let mut closing = self.close.subscribe();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let waiting = async {
            let status = child.wait().await.unwrap();
            self.facts.status.send_replace(Some(status));
            self.tell(exit_event(status)).await;
        };
        let reading = async {
            tokio::join!(self.pump(stdout, Origin::Stdout), self.pump(stderr, Origin::Stderr));
            self.tell(ChannelEvent::Eof).await;
        };
        let serving = async {
            self.tell(ChannelEvent::Started).await;
            tokio::join!(reading, waiting);
        };
        let is_closed = tokio::select! {
            biased;
            () = serving => false,
            _ = closing.wait_for(|is_closed| *is_closed) => true,
        };
        // The channel is closed for its reader once the events have no sender.
        let Self { facts, events, .. } = self;
        drop(events);
        if is_closed && facts.status.borrow().is_none() {
            let ended = tokio::time::timeout(GRACE, child.wait()).await;
            if ended.is_err() {
                kill_process_group(facts.group.borrow().unwrap(), Kill::KILL).unwrap();
            }
            facts.status.send_replace(Some(child.wait().await.unwrap()));
        }
    }

    async fn pump(&self, mut output: impl AsyncRead + Unpin, origin: Origin) {
        let mut buffer = vec![0; 32 * 1024];
        let mut left = match (origin, self.setup.cut) {
            (Origin::Stdout, Some(Cut::Killed(bytes) | Cut::Lost(bytes))) => bytes,
            (Origin::Stdout, None) | (Origin::Stderr, _) => usize::MAX,
        };
        while left > 0 {
            let length = output.read(&mut buffer).await.unwrap_or(0).min(left);
            if length == 0 {
                return;
            }
            left -= length;
            let bytes = &mut buffer[..length];
            if origin == Origin::Stdout {
                self.tamper.lock().unwrap().apply(bytes);
            }
            if origin == Origin::Stderr {
                self.facts.stderr.lock().unwrap().extend_from_slice(bytes);
            }
            self.facts.received.fetch_add(length as u64, Ordering::Relaxed);
            let step = match self.setup.delivery {
                Delivery::AsItComes => length,
                Delivery::ByteByByte => 1,
            };
            for piece in bytes.chunks(step) {
                self.tell(ChannelEvent::Data(origin, Bytes::copy_from_slice(piece))).await;
            }
        }
        if let Some(Cut::Lost(_)) = self.setup.cut {
            self.tell(ChannelEvent::Lost(LinkLost { cause: "cut by the test".to_owned() })).await;
            self.close.send_replace(true);
        }
        kill_process_group(self.facts.group.borrow().unwrap(), Kill::KILL).unwrap();
    }

    async fn tell(&self, event: ChannelEvent) {
        // The reader may have gone.
        self.events.send(event).await.ok();
    }
}

/// What changes bytes of one direction.
struct Tamper(Option<Damage>);

impl Tamper {
    fn apply(&mut self, bytes: &mut [u8]) {
        let Some(damage) = &mut self.0 else { return };
        for start in 0..=bytes.len().saturating_sub(damage.pattern.len()) {
            if damage.times > 0 && bytes[start..].starts_with(damage.pattern) {
                damage.times -= 1;
                bytes[start] ^= 1;
            }
        }
    }
}

/// Whether somebody of the group runs. The dead of others lie about until their parent, or the system, looks after them.
fn is_alive(group: Pid) -> bool {
    let group = group.as_raw_nonzero().to_string();
    std::fs::read_dir("/proc").unwrap().flatten().any(|process| {
        // Most are no processes, and a process may have gone meanwhile.
        let facts = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        // After the name, in parentheses: state, parent, group.
        let facts = facts.rsplit(") ").next().unwrap_or_default();
        let facts: Vec<_> = facts.split(' ').take(3).collect();
        matches!(facts[..], [state, _, of] if of == group && state != "Z" && state != "X")
    })
}

fn exit_event(status: ExitStatus) -> ChannelEvent {
    use std::os::unix::process::ExitStatusExt as _;
    match status.code() {
        Some(code) => ChannelEvent::ExitStatus(u32::try_from(code).unwrap()),
        None => {
            let name = match status.signal() {
                Some(9) => "KILL",
                Some(15) => "TERM",
                Some(1) => "HUP",
                Some(13) => "PIPE",
                other => panic!("an unforeseen signal: {other:?}"),
            };
            ChannelEvent::ExitSignal { name: name.to_owned() }
        }
    }
}

/// How long a process may outlive its channel. Over SSH it may live for ever.
const GRACE: Duration = Duration::from_secs(5);
/// How long a process that should end may take.
const PATIENCE: Duration = Duration::from_secs(20);
