//! A real OpenSSH server, and the network and agent around it, for tests of the whole product.
//!
//! What is here: [`OpenSshd`] (one server in namespaces of its own, with two users: root, because most
//! servers are used as root, and an ordinary user, because sshd treats root specially and a test that only
//! logs in as root proves little), [`Proxy`] (a TCP hop that delays, freezes and cuts), [`Agent`] (an
//! `ssh-agent`), [`Authority`] (signs certificates), [`SecurityKey`] (an agent with an `sk-` key), [`Rsync`] (for its users, and as a client), [`LinePair`] (a serial line that is none), [`other`] (servers that are not
//! OpenSSH) and [`processes`] (what a test may look up about the machine's processes).
//!
//! Each value owns what it started and ends it on drop; if the test process is killed, the kernel does.
//! Nothing outside a temporary directory is written: users, run directory and logs of the server are mounts
//! in its own namespace. That needs root; without it, or without `sshd`, tests skip aloud and fail in CI.
//!
//! Not here: how the product is driven (`tests/it/client.rs`), and the server made of our own code, which is
//! `ssh_mcp_testkit::sshd`.

mod agent;
mod authority;
mod keys;
mod layout;
mod line;
pub(crate) mod other;
pub(crate) mod processes;
mod proxy;
mod rsync;
mod security_key;

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) use agent::{Agent, askpass};
pub(crate) use authority::Authority;
pub(crate) use keys::{ClientKey, HostKey, PASSPHRASE};
pub(crate) use layout::{KeyboardInteractive, Options, PasswordLogin, User};
pub(crate) use line::LinePair;
pub(crate) use proxy::Proxy;
pub(crate) use rsync::Rsync;
pub(crate) use security_key::SecurityKey;

/// One running `sshd` on loopback; everything it started ends when this is dropped.
pub(crate) struct OpenSshd {
    options: Options,
    dir: TempDir,
    password: String,
    sshd: PathBuf,
    port: u16,
    log: Arc<Log>,
    running: Option<Running>,
}

/// The supervising shell of a running server; see `namespace.sh`.
struct Running {
    supervisor: Child,
    /// The listener: first process of the PID namespace, seen from outside.
    listener: u32,
    reader: std::thread::JoinHandle<()>,
}

impl Running {
    /// Starts a server; whether it has said `ready` on standard error, and so listens.
    fn start(dir: &Path, log: &Arc<Log>, program: &Path, command: &[OsString], ready: &str) -> (Self, bool) {
        // Not run from where it lies: the adapter's own tests mount this module too, from another package.
        let script = dir.join("namespace.sh");
        fs::write(&script, include_str!("namespace.sh")).expect("the temporary directory is writable");
        let mut supervisor = Command::new("sh")
            .arg(script)
            .arg(dir)
            .args(command)
            .envs(layout::library_path(program))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let stderr = supervisor.stderr.take().expect("stderr is piped");
        log.begin();
        let to_fill = Arc::clone(log);
        let reader = std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| to_fill.push(line));
            to_fill.end();
        });
        let mut outer = String::new();
        let stdout = supervisor.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut outer).expect("the supervisor names its child");

        log.wait(START_LIMIT, |log| log.ended || log.has_said(ready));
        let is_listening = log.with(|log| log.has_said(ready));
        let parent = outer.trim().parse().expect("a process id");
        let listener = if is_listening { processes::children_of(parent).first().copied() } else { None };
        (Self { supervisor, listener: listener.unwrap_or(0), reader }, is_listening)
    }

    /// Ends the server, its connections and every process they left.
    fn stop(mut self) {
        drop(self.supervisor.stdin.take());
        self.supervisor.wait().expect("the supervisor is our child");
        self.reader.join().expect("the log reader does not panic");
    }
}

impl OpenSshd {
    /// A server with these options, or `None` after saying why this machine cannot run one (a failure in CI).
    pub(crate) fn start_or_skip(options: Options) -> Option<Self> {
        match layout::find_sshd() {
            Ok(sshd) => Some(Self::start(sshd, options)),
            Err(reason) => {
                skip_aloud(&reason);
                None
            }
        }
    }

    fn start(sshd: PathBuf, options: Options) -> Self {
        let dir = layout::temporary_directory();
        let password = layout::random_password();
        layout::write_users(dir.path(), &password, &options);
        for key in &options.host_keys {
            keys::generate_host_key(dir.path(), *key);
        }
        let log = Arc::default();
        let mut server = Self { options, dir, password, sshd, port: 0, log, running: None };
        // Between finding a free port and binding it, somebody else may take it: then another one will do.
        for _ in 0..BIND_ATTEMPTS {
            server.port = free_port();
            if server.run() {
                return server;
            }
        }
        panic!("sshd did not start:\n{}", server.logs().join("\n"));
    }

    /// Where the server listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The port of [`addr`](Self::addr).
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The password of both users, new for each server.
    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// The home directory of a user.
    pub(crate) fn home(&self, user: User) -> PathBuf {
        layout::home(self.dir.path(), user)
    }

    /// A client key that both users admit (except [`ClientKey::Stranger`]); generated at first use.
    pub(crate) fn client_key(&self, key: ClientKey) -> PathBuf {
        keys::client_key(self.dir.path(), key)
    }

    /// The `known_hosts` lines of this server, one per host key.
    pub(crate) fn known_hosts(&self) -> String {
        let lines = self.options.host_keys.iter().map(|key| {
            let public = keys::public_host_key(self.dir.path(), *key);
            format!("[{}]:{} {public}\n", Ipv4Addr::LOCALHOST, self.port)
        });
        lines.collect()
    }

    /// The `SHA256:…` fingerprint of a host key, as `ssh-keygen -l` prints it.
    pub(crate) fn host_key_fingerprint(&self, key: HostKey) -> String {
        keys::fingerprint(self.dir.path(), key)
    }

    /// The system's own client, ready for a command: this key, this server's host keys, never a question.
    pub(crate) fn client(&self, user: User, key: ClientKey) -> Command {
        let known_hosts = self.dir.path().join("client_known_hosts");
        fs::write(&known_hosts, self.known_hosts()).expect("the temporary directory is writable");
        let mut command = Command::new("ssh");
        command.args(["-F", "/dev/null", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]);
        command.arg("-o").arg(format!("UserKnownHostsFile={}", known_hosts.display()));
        command.args(["-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes"]);
        command.arg("-i").arg(self.client_key(key));
        command.arg("-p").arg(self.port.to_string());
        command.arg(format!("{}@{}", user.name(), Ipv4Addr::LOCALHOST));
        command.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null());
        command
    }

    /// What the server has logged so far (`LogLevel VERBOSE`), over all its restarts.
    pub(crate) fn logs(&self) -> Vec<String> {
        self.log.snapshot()
    }

    /// Waits until the server has logged a line with `needle`; false when `limit` passes first.
    pub(crate) fn wait_for_log(&self, needle: &str, limit: Duration) -> bool {
        self.log.wait(limit, |log| log.lines.iter().any(|line| line.contains(needle)))
    }

    /// The process id outside of a process that calls itself `inner` (the server has a PID namespace).
    pub(crate) fn host_pid(&self, inner: u32) -> Option<u32> {
        processes::pid_outside(self.listener(), inner)
    }

    /// Kills the server's side of every connection. The commands stay, as after a crash of sshd's children.
    pub(crate) fn kill_connections(&self) {
        let mut doomed = Vec::new();
        let mut parents = vec![self.listener()];
        while let Some(parent) = parents.pop() {
            for child in processes::children_of(parent) {
                // Monitor, network child and, from 9.8 on, `sshd-session`: all call themselves sshd.
                if processes::command_line(child).starts_with("sshd") {
                    doomed.push(child);
                    parents.push(child);
                }
            }
        }
        processes::kill(&doomed);
    }

    /// Ends the server, its connections and every process they left, at once; the port is closed then.
    pub(crate) fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
    }

    /// Stops the server and starts it again on the same port, with the same keys.
    pub(crate) fn restart(&mut self) {
        self.stop();
        // The port may serve for an instant as the near end of somebody's connection.
        assert!(
            processes::wait_until(START_LIMIT, || self.run()),
            "sshd did not start again on port {}:\n{}",
            self.port,
            self.logs().join("\n")
        );
    }

    /// As [`restart`](Self::restart), but every host key is a new one.
    pub(crate) fn restart_with_new_host_key(&mut self) {
        self.stop();
        for key in &self.options.host_keys {
            keys::generate_host_key(self.dir.path(), *key);
        }
        self.restart();
    }

    fn listener(&self) -> u32 {
        self.running.as_ref().expect("the server runs").listener
    }

    /// Starts on `self.port`; false if that port is taken.
    fn run(&mut self) -> bool {
        let dir = self.dir.path();
        layout::write_config(dir, self.port, &self.sshd, &self.options);
        let command = [
            self.sshd.as_os_str(),
            "-D".as_ref(),
            "-e".as_ref(),
            "-f".as_ref(),
            dir.join("sshd_config").as_os_str(),
        ]
        .map(ToOwned::to_owned);
        let (running, is_listening) = Running::start(dir, &self.log, &self.sshd, &command, SAYS_IT_LISTENS);
        self.running = Some(running);
        if !is_listening {
            self.stop();
        }
        is_listening
    }
}

impl Drop for OpenSshd {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("--- sshd said:\n{}\n---", self.logs().join("\n"));
        }
    }
}

/// Says on standard error, and in the file `SSH_MCP_SKIPS` names, why a test did nothing; panics in CI.
pub(crate) fn skip_aloud(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test").to_owned();
    assert!(std::env::var_os("CI").is_none(), "{test} must not be skipped in CI: {reason}");
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(path) = std::env::var_os("SSH_MCP_SKIPS") {
        use std::io::Write;
        let mut file =
            fs::OpenOptions::new().append(true).create(true).open(path).expect("the list of skips");
        // One write, because tests skip at the same time.
        file.write_all(format!("{test}: {reason}\n").as_bytes()).expect("the list of skips is writable");
    }
}

/// What sshd says once its port is open.
const SAYS_IT_LISTENS: &str = "Server listening on";

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// What the server wrote to standard error, shared with the thread that reads it.
#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    news: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: Vec<String>,
    /// Where the lines of the present run begin.
    run: usize,
    ended: bool,
}

impl LogState {
    /// Whether a line of the present run has it.
    fn has_said(&self, words: &str) -> bool {
        self.lines.iter().skip(self.run).any(|line| line.contains(words))
    }
}

impl Log {
    fn begin(&self) {
        let mut state = self.state.lock().expect("no holder panics");
        state.run = state.lines.len();
        state.ended = false;
    }

    fn push(&self, line: String) {
        self.state.lock().expect("no holder panics").lines.push(line);
        self.news.notify_all();
    }

    fn end(&self) {
        self.state.lock().expect("no holder panics").ended = true;
        self.news.notify_all();
    }

    fn with<T>(&self, look: impl FnOnce(&LogState) -> T) -> T {
        look(&self.state.lock().expect("no holder panics"))
    }

    fn snapshot(&self) -> Vec<String> {
        self.with(|state| state.lines.clone())
    }

    fn wait(&self, limit: Duration, is_done: impl Fn(&LogState) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock().expect("no holder panics");
        while !is_done(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            (state, _) = self.news.wait_timeout(state, left).expect("no holder panics");
        }
        true
    }
}

/// Generous, because test machines are busy; reached only when something is wrong.
const START_LIMIT: Duration = Duration::from_secs(30);
const BIND_ATTEMPTS: u32 = 5;
