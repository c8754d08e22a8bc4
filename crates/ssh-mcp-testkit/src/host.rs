//! `ScriptedHost`: the SSH port without a network, for the engine's tests in virtual time.
//!
//! A host answers each command by a [`Script`] chosen by what the command line contains, so prefixes and wrappings do
//! not matter. It behaves like a POSIX login shell where the engine relies on one: it answers the question of
//! [`login_shell`](ssh_mcp_core::kind::login_shell), prints the line of
//! [`pid_line`](ssh_mcp_core::kind::pid_line), and understands `kill -KILL -- -PID`. Everything asked of it is kept
//! ([`ScriptedHost::seen`]).
//!
//! Not here: any opinion of what the engine should do. That the fake is no kinder than a real server is shown by the
//! contract suite, which both pass.

mod channel;
mod line;
mod process;
mod script;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ssh_mcp_core::kind::forward::socks::Outcome;
use ssh_mcp_core::port::BoxFuture;
use ssh_mcp_core::port::forward::LineError;
use ssh_mcp_core::port::resolve::{Defaults, ResolveError, Resolved, TargetAsk};
use ssh_mcp_core::port::ssh::{
    ConnectError, ConnectRequest, Connected, Connector, HostKeyReport, HostKeyStatus, LinkLost, PtySize,
    Signal, Start,
};
use ssh_mcp_core::target::{Address, Compression, Credentials, HostKeyPolicy, Keepalive, Target};
use tokio::sync::Notify;
use tokio::time::Instant;

pub use line::{ANY_PORT, FarEnd};
pub use script::Script;

use channel::{Entry, Place, ScriptedLink, Session, Sessions};
use process::Process;

/// A scripted machine to connect to; clones are the same machine.
#[derive(Clone)]
pub struct ScriptedHost {
    host: Arc<Host>,
}

/// Something that was asked of the host, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// An attempt to connect, as `user@host:port`.
    Connected {
        /// Whom and where.
        target: String,
    },
    /// A channel was opened.
    Opened {
        /// Its number, from 1.
        channel: u32,
    },
    /// A program was asked for.
    Started {
        /// On which channel.
        channel: u32,
        /// The request.
        start: Start,
    },
    /// Input was taken.
    Input {
        /// On which channel.
        channel: u32,
        /// The bytes of one call.
        bytes: Bytes,
    },
    /// The end of input was announced.
    InputFinished {
        /// On which channel.
        channel: u32,
    },
    /// A signal was requested.
    Signal {
        /// On which channel.
        channel: u32,
        /// Which one.
        signal: Signal,
    },
    /// The terminal changed its size.
    Resized {
        /// On which channel.
        channel: u32,
        /// To what.
        size: PtySize,
    },
    /// The client closed a channel that was open.
    Closed {
        /// Which one.
        channel: u32,
    },
    /// The client ended the session.
    Disconnected,
    /// A line was opened.
    LineOpened,
    /// Its last holder let go of it.
    LineClosed,
    /// A connection to a place was asked for.
    Dialled {
        /// The place.
        to: Address,
        /// For whom.
        origin: Address,
    },
    /// A listener was asked for.
    Listening {
        /// Where.
        at: Address,
    },
    /// The listener was ended.
    Unlistened,
}

impl ScriptedHost {
    /// A host with a POSIX login shell, on which no command exists: each ends with status 127.
    pub fn new() -> Self {
        Self { host: Arc::default() }
    }

    /// What a command line that contains `key` does. The first match wins, hooks of [`on_match`](Self::on_match) before it.
    pub fn on(self, key: &str, script: Script) -> Self {
        self.host.with(|state| state.scripts.push((key.to_owned(), script)));
        self
    }

    /// Asks `hook` first; `None` leaves the command line to the rest.
    pub fn on_match(self, hook: impl Fn(&str) -> Option<Script> + Send + Sync + 'static) -> Self {
        self.host.with(|state| state.hooks.push(Arc::new(hook)));
        self
    }

    /// What a login shell does; without it, [`Script::shell`] with the prompt `$ `.
    pub fn on_shell(self, script: Script) -> Self {
        self.host.with(|state| state.shell = Some(script));
        self
    }

    /// The login shell is not a POSIX one: no pid line, no answer to the question, no `kill`.
    pub fn with_foreign_shell(self) -> Self {
        self.host.with(|state| state.login_shell = LoginShell::Foreign);
        self
    }

    /// At most so many channels at a time, and no way round: further ones wait out their patience.
    pub fn with_places(self, places: usize) -> Self {
        self.host.with(|state| state.places = Some(places));
        self
    }

    /// The host key that is reported.
    pub fn with_host_key(self, report: HostKeyReport) -> Self {
        self.host.with(|state| state.host_key = report);
        self
    }

    /// Each attempt to connect takes this long.
    pub fn with_connect_time(self, time: Duration) -> Self {
        self.host.with(|state| state.connect_time = time);
        self
    }

    /// The next attempt to connect that is not spoken for fails with this.
    pub fn then_connect_fails(&self, error: ConnectError) {
        self.host.with(|state| state.connect_failures.push_back(error));
    }

    /// The next so many channels are refused.
    pub fn then_refuse_channels(&self, count: usize) {
        self.host.with(|state| state.refusals = count);
    }

    /// Pings are answered after this time, or never.
    pub fn then_ping(&self, answer: Option<Duration>) {
        self.host.with(|state| state.ping = answer);
    }

    /// Every connection breaks, with this cause.
    pub fn lose_connections(&self, cause: &str) {
        self.lose_lines(cause);
        for session in self.host.sessions() {
            self.host.lose(session.id, cause);
        }
    }

    /// The next line cannot be opened.
    pub fn then_refuse_line(&self, error: LineError) {
        self.host.with(|state| state.line_failures.push_back(error));
    }

    /// The next connection to a place that is asked for is refused, in these words.
    pub fn then_refuse_dial(&self, cause: &str, outcome: Outcome) {
        self.host.with(|state| state.dial_refusals.push_back((cause.to_owned(), outcome)));
    }

    /// The next listener is refused.
    pub fn then_refuse_listening(&self) {
        self.host.with(|state| state.refuses_to_listen = true);
    }

    /// The far end of the next connection to a place, once somebody asks for one.
    pub async fn far_end(&self) -> FarEnd {
        line::next_far_end(&self.host).await
    }

    /// Somebody comes to the listener of the newest line: the far end once it is let in, nothing if it is turned away.
    pub async fn arrive(&self, from: Address) -> Option<FarEnd> {
        let newest = self.lines().pop()?;
        newest.arrive(from).await
    }

    /// Where lines listen.
    pub fn listening(&self) -> Vec<Address> {
        self.lines().iter().filter_map(|line| line.listening()).collect()
    }

    /// Lines that are there.
    pub fn open_lines(&self) -> usize {
        self.lines().iter().filter(|line| !line.is_lost()).count()
    }

    /// Every line breaks, with this cause; sessions stay.
    pub fn lose_lines(&self, cause: &str) {
        self.lines().iter().for_each(|line| line.lose(cause));
    }

    fn lines(&self) -> Vec<Arc<line::Shared>> {
        self.host.with(|state| state.lines.iter().filter_map(std::sync::Weak::upgrade).collect())
    }

    /// Everything that was asked, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.host.with(|state| state.seen.clone())
    }

    /// How often somebody tried to connect.
    pub fn connects(&self) -> usize {
        self.seen().iter().filter(|seen| matches!(seen, Seen::Connected { .. })).count()
    }

    /// The command lines that were started, in order.
    pub fn command_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for seen in self.seen() {
            if let Seen::Started { start: Start::Exec { command, .. }, .. } = seen {
                lines.push(command);
            }
        }
        lines
    }

    /// The signals that were requested for command lines that contain `key`, in order.
    pub fn signals(&self, key: &str) -> Vec<Signal> {
        let channels = self.channels_of(key);
        let mut signals = Vec::new();
        for seen in self.seen() {
            if let Seen::Signal { channel, signal } = seen
                && channels.contains(&channel)
            {
                signals.push(signal);
            }
        }
        signals
    }

    /// All input that was taken by programs whose command line contains `key` (login shells: the empty key).
    pub fn input(&self, key: &str) -> Vec<u8> {
        let channels = self.channels_of(key);
        let mut input = Vec::new();
        for seen in self.seen() {
            if let Seen::Input { channel, bytes } = seen
                && channels.contains(&channel)
            {
                input.extend_from_slice(&bytes);
            }
        }
        input
    }

    /// Channels that neither side has closed.
    pub fn open_channels(&self) -> usize {
        self.host.with(|state| state.channels.values().filter(|entry| !entry.closed).count())
    }

    /// Processes that live and whose command line contains `key`, on open channels and closed ones.
    pub fn running(&self, key: &str) -> usize {
        let now = Instant::now();
        self.host.with(|state| {
            let processes = state.channels.values().filter_map(|entry| entry.process.as_ref());
            processes
                .filter(|process| without_tokens(&process.line).contains(key) && process.is_running(now))
                .count()
        })
    }

    fn channels_of(&self, key: &str) -> Vec<u32> {
        self.host.with(|state| {
            let of_key = |entry: &Entry| {
                entry.process.as_ref().is_some_and(|process| without_tokens(&process.line).contains(key))
            };
            state.channels.iter().filter(|(_, entry)| of_key(entry)).map(|(id, _)| *id).collect()
        })
    }
}

impl Default for ScriptedHost {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ScriptedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedHost").field("seen", &self.seen()).finish()
    }
}

impl Connector for ScriptedHost {
    fn resolve<'a>(&'a self, ask: &'a TargetAsk) -> BoxFuture<'a, Result<Resolved, ResolveError>> {
        Box::pin(async move { plainly(ask) })
    }

    fn connect<'a>(&'a self, request: &'a ConnectRequest) -> BoxFuture<'a, Result<Connected, ConnectError>> {
        Box::pin(async move {
            self.host.record(Seen::Connected { target: request.hop.target.to_string() });
            let (time, failure) =
                self.host.with(|state| (state.connect_time, state.connect_failures.pop_front()));
            if tokio::time::timeout(request.timeout, tokio::time::sleep(time)).await.is_err() {
                return Err(ConnectError::TimedOut { after: request.timeout });
            }
            if let Some(error) = failure {
                return Err(error);
            }
            let session = self.host.admit();
            Ok(Connected {
                link: Box::new(ScriptedLink { session }),
                host_key: self.host.with(|state| state.host_key.clone()),
                auth_method: "publickey",
                compressed: false,
            })
        })
    }
}

/// What holds where a test says nothing else.
pub fn defaults() -> Defaults {
    Defaults {
        agent_socket: None,
        host_key_policy: HostKeyPolicy::AcceptNew,
        known_hosts: "known_hosts".into(),
        compression: Compression::Off,
        keepalive: Keepalive { interval: Duration::from_secs(30), max: 3 },
    }
}

/// A target as somebody reads it who has no configuration: `host`, `user@host`, either with `:port`.
pub fn plainly(ask: &TargetAsk) -> Result<Resolved, ResolveError> {
    let (user, address) = match ask.target.rsplit_once('@') {
        Some((user, address)) => (Some(user.to_owned()), address),
        None => (None, ask.target.as_str()),
    };
    let mut address: Address =
        address.parse().map_err(|error| ResolveError::Call(format!("{}: {error}", ask.target)))?;
    address.port = ask.port.unwrap_or(address.port);
    let username = ask.username.clone().or(user).unwrap_or_else(|| "local".to_owned());
    let credentials = Credentials { password: ask.password.clone(), ..Credentials::default() };
    let mut hop = ask.defaults.hop(Target { address, username }, credentials);
    if let Some(policy) = ask.host_key_policy {
        hop.host_keys.policy = policy.max(hop.host_keys.policy);
    }
    Ok(Resolved { via: Vec::new(), hop, timeout: None })
}

/// The machine itself.
#[derive(Default)]
struct Host {
    state: Mutex<State>,
    /// Rings when a connection to a place was made.
    far_ends: Notify,
}

type Hook = Arc<dyn Fn(&str) -> Option<Script> + Send + Sync>;

struct State {
    scripts: Vec<(String, Script)>,
    hooks: Vec<Hook>,
    shell: Option<Script>,
    login_shell: LoginShell,
    places: Option<usize>,
    refusals: usize,
    ping: Option<Duration>,
    host_key: HostKeyReport,
    connect_time: Duration,
    connect_failures: VecDeque<ConnectError>,
    channels: BTreeMap<u32, Entry>,
    sessions: Sessions,
    lost: HashMap<u32, LinkLost>,
    seen: Vec<Seen>,
    lines: Vec<std::sync::Weak<line::Shared>>,
    line_failures: VecDeque<LineError>,
    dial_refusals: VecDeque<(String, Outcome)>,
    refuses_to_listen: bool,
    far_ends: VecDeque<FarEnd>,
}

/// Not the engine's view of it: what it really is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LoginShell {
    Posix,
    Foreign,
}

impl Default for State {
    fn default() -> Self {
        Self {
            scripts: Vec::new(),
            hooks: Vec::new(),
            shell: None,
            login_shell: LoginShell::Posix,
            places: None,
            refusals: 0,
            ping: Some(Duration::from_micros(300)),
            host_key: HostKeyReport {
                algorithm: "ssh-ed25519".to_owned(),
                fingerprint: "SHA256:c2NyaXB0ZWQ".to_owned(),
                status: HostKeyStatus::Known,
            },
            connect_time: Duration::ZERO,
            connect_failures: VecDeque::new(),
            channels: BTreeMap::new(),
            sessions: Vec::new(),
            lost: HashMap::new(),
            seen: Vec::new(),
            lines: Vec::new(),
            line_failures: VecDeque::new(),
            dial_refusals: VecDeque::new(),
            refuses_to_listen: false,
            far_ends: VecDeque::new(),
        }
    }
}

impl Host {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, seen: Seen) {
        self.with(|state| state.seen.push(seen));
    }

    fn admit(self: &Arc<Self>) -> Arc<Session> {
        self.with(|state| {
            let id = u32::try_from(state.sessions.len()).unwrap_or(u32::MAX);
            let session = Arc::new(Session { host: Arc::clone(self), id, changed: Notify::new() });
            state.sessions.push(Arc::downgrade(&session));
            session
        })
    }

    fn sessions(&self) -> Vec<Arc<Session>> {
        self.with(|state| state.sessions.iter().filter_map(std::sync::Weak::upgrade).collect())
    }

    fn lost(&self, session: u32) -> Option<LinkLost> {
        self.with(|state| state.lost.get(&session).cloned())
    }

    fn lose(&self, session: u32, cause: &str) {
        self.with(|state| {
            state.lost.entry(session).or_insert_with(|| LinkLost { cause: cause.to_owned() });
            for entry in state.channels.values_mut().filter(|entry| entry.session == session) {
                entry.closed = true;
                entry.wake();
            }
        });
        for session in self.sessions() {
            session.changed.notify_waiters();
        }
    }

    /// Does something to a channel; numbers are never taken out of the table, so one is always there.
    fn channel<T>(&self, id: u32, act: impl FnOnce(&mut Entry) -> T) -> T {
        self.with(|state| act(state.channels.entry(id).or_insert_with(|| Entry::open(u32::MAX))))
    }

    fn place(&self, session: u32) -> Place {
        let now = Instant::now();
        self.with(|state| {
            if let Some(lost) = state.lost.get(&session) {
                return Place::Lost(lost.clone());
            }
            if state.refusals > 0 {
                state.refusals -= 1;
                return Place::Refused("scripted refusal".to_owned());
            }
            let taken: Vec<&Entry> = state
                .channels
                .values()
                .filter(|entry| entry.session == session && entry.holds_a_place(now))
                .collect();
            if state.places.is_some_and(|places| taken.len() >= places) {
                let ends = taken.iter().filter_map(|entry| entry.process.as_ref()?.ends_at());
                return Place::None { free_at: ends.filter(|end| *end > now).min() };
            }
            let id = u32::try_from(state.channels.len()).unwrap_or(u32::MAX).saturating_add(1);
            state.channels.insert(id, Entry::open(session));
            state.seen.push(Seen::Opened { channel: id });
            Place::Taken(id)
        })
    }

    fn start(&self, channel: u32, start: Start) {
        let now = Instant::now();
        let terminal = Entry::terminal(&start);
        let pid = FIRST_PID + channel;
        let (line, script) = match start {
            Start::Exec { command, .. } => {
                let script = self.script_of(&command, now);
                (command, script)
            }
            Start::Shell { .. } => {
                (String::new(), self.with(|state| state.shell.clone()).unwrap_or_else(|| Script::shell("$ ")))
            }
            Start::Subsystem(_) => (String::new(), Script::new().refusing("subsystem")),
        };
        let is_posix = self.with(|state| state.login_shell == LoginShell::Posix);
        let greeting =
            pid_token(&line).filter(|_| is_posix).map(|token| Bytes::from(format!("{token} {pid}\n")));
        let process = Process::start(script, line, pid, terminal, greeting, now);
        self.channel(channel, |entry| entry.process = Some(process));
    }

    fn input(&self, channel: u32, bytes: &[u8]) {
        let now = Instant::now();
        let scripts = self.with(|state| state.scripts.clone());
        self.channel(channel, |entry| {
            if let Some(process) = &mut entry.process {
                process.on_input(bytes, now, |line| find(&scripts, line));
            }
        });
    }

    fn script_of(&self, line: &str, now: Instant) -> Script {
        let hooks = self.with(|state| state.hooks.clone());
        // Outside the lock: a hook may look at the host.
        if let Some(script) = hooks.iter().find_map(|hook| hook(line)) {
            return script;
        }
        self.with(|state| {
            if let Some(script) = find(&state.scripts, line) {
                return script;
            }
            if state.login_shell == LoginShell::Posix {
                if let Some(answer) = login_shell_answer(line) {
                    return Script::prints(answer);
                }
                if line.contains("kill -KILL") {
                    return Script::exits(u32::from(state.kill(line, now) == 0));
                }
            }
            let program = line.split_whitespace().next_back().unwrap_or_default();
            Script::new().err(format!("sh: {program}: not found\n")).exit(127)
        })
    }
}

impl State {
    /// Ends the process groups that `line` names; how many there were.
    fn kill(&mut self, line: &str, now: Instant) -> usize {
        let mut killed = 0;
        for entry in self.channels.values_mut() {
            let Some(process) = &mut entry.process else { continue };
            let names_it = line.split_whitespace().any(|word| word == format!("-{}", process.pid));
            if names_it && process.is_running(now) {
                process.on_kill(Signal::Kill, now);
                killed += 1;
            }
            entry.wake();
        }
        killed
    }
}

fn find(scripts: &[(String, Script)], line: &str) -> Option<Script> {
    let line = without_tokens(line);
    scripts.iter().find(|(key, _)| line.contains(key)).map(|(_, script)| script.clone())
}

/// A line without the random hexadecimal tokens the engine puts in, which may spell any short key (`bad`).
fn without_tokens(line: &str) -> String {
    const MARK: &str = "ssh-mcp-";
    let mut parts = line.split(MARK);
    let mut rest = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        rest.push_str(MARK);
        let digits = part.chars().take(16).take_while(char::is_ascii_hexdigit).count();
        rest.push_str(part.get(if digits == 16 { 16 } else { 0 }..).unwrap_or_default());
    }
    rest
}

/// What a POSIX shell prints for `printf '%s\n' "TOKEN:$((6*7)):${unset-posix}"`.
fn login_shell_answer(line: &str) -> Option<String> {
    let (before, _) = line.split_once(":$((6*7)):")?;
    let (_, token) = before.rsplit_once('"')?;
    Some(format!("{token}:42:posix\n"))
}

/// The token in `echo 'TOKEN' $$ >&2; …`.
fn pid_token(line: &str) -> Option<&str> {
    let (token, _) = line.strip_prefix("echo ")?.split_once(" $$ >&2; ")?;
    Some(token.trim_matches('\''))
}

const FIRST_PID: u32 = 4000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_found_in_a_random_token() {
        let scripts = [("bad".to_owned(), Script::exits(2)), ("good".to_owned(), Script::exits(0))];
        let found = |line: &str| find(&scripts, line).is_some();
        assert!(!found("echo 'ssh-mcp-00bad00000000bad' $$ >&2; other"));
        assert!(found("echo 'ssh-mcp-00bad00000000bad' $$ >&2; bad"));
        assert!(found("ssh-mcp-bad"), "no token");
    }
}
