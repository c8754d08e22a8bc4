//! One session channel of the embedded server: from its requests to a process and back.
//!
//! The task owns the process, its streams and the channel. Bytes are moved by tasks of its own, so that a
//! signal gets through while output waits for the client's window or input for the process.

use std::io;
use std::process::{ExitStatus, Stdio};

use bytes::Bytes;
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::process::{Group, Mark};
use super::tty::{Terminal, TerminalRequest};
use super::{Facts, Signals};

/// Serves a channel until it is closed and its process has ended.
pub(super) async fn serve(channel: Channel<Msg>, session: &Handle, facts: &Facts, mark: &Mark) {
    let (mut requests, answers) = channel.split();
    let Some(wish) = read_wish(&mut requests).await else { return };
    let (out, err) = (answers.make_writer_ext(None), answers.make_writer_ext(Some(EXTENDED_DATA_STDERR)));
    match Program::start(wish, facts, mark, out, err) {
        Ok(program) => program.run(requests, &answers, session).await,
        Err(error) => refuse(&answers, &error).await,
    }
}

/// What the client asked for before it asked for a program.
struct Wish {
    terminal: Option<TerminalRequest>,
    environment: Vec<(String, String)>,
    /// `None` is the interactive shell.
    command: Option<Vec<u8>>,
}

/// Reads requests up to the one that starts a program; `None` if the channel is closed before.
#[expect(clippy::wildcard_enum_match_arm, reason = "russh's enum: both sides' messages, open for more")]
async fn read_wish(requests: &mut ChannelReadHalf) -> Option<Wish> {
    let mut wish = Wish { terminal: None, environment: Vec::new(), command: None };
    loop {
        match requests.wait().await? {
            ChannelMsg::RequestPty { term, col_width, row_height, terminal_modes, .. } => {
                wish.environment.push(("TERM".into(), term));
                wish.terminal =
                    Some(TerminalRequest { columns: col_width, rows: row_height, modes: terminal_modes });
            }
            ChannelMsg::SetEnv { variable_name, variable_value, .. } => {
                wish.environment.push((variable_name, variable_value));
            }
            ChannelMsg::Exec { command, .. } => {
                wish.command = Some(command);
                return Some(wish);
            }
            ChannelMsg::RequestShell { .. } => return Some(wish),
            ChannelMsg::Close => return None,
            // Requests that `handler.rs` has refused, and news about the window.
            _ => {}
        }
    }
}

/// A running process, and the tasks that move its bytes.
struct Program {
    child: Child,
    group: Group,
    signals: Signals,
    /// To the task that writes; dropping it closes the process's standard input.
    input: Option<mpsc::Sender<Input>>,
    has_terminal: bool,
    outputs: JoinSet<()>,
    feeder: JoinSet<()>,
}

/// What goes to the process in order: bytes, and sizes of the terminal.
enum Input {
    Bytes(Bytes),
    Size { columns: u32, rows: u32 },
}

enum Event {
    Request(Option<ChannelMsg>),
    Exited(io::Result<ExitStatus>),
    OutputEnded,
}

impl Program {
    fn start<W>(wish: Wish, facts: &Facts, mark: &Mark, out: W, err: W) -> io::Result<Self>
    where
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let command = command(&wish, facts, mark);
        let (input, queue) = mpsc::channel(INPUT_QUEUE);
        let (mut outputs, mut feeder) = (JoinSet::new(), JoinSet::new());
        let has_terminal = wish.terminal.is_some();
        let child = if let Some(request) = wish.terminal {
            let (terminal, child) = Terminal::start(&request, command)?;
            let (reader, writer) = terminal.into_split();
            outputs.spawn(pump(reader, out));
            feeder.spawn(feed_terminal(queue, writer));
            child
        } else {
            let mut child = in_own_group(command).spawn()?;
            if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
                outputs.spawn(pump(stdout, out));
                outputs.spawn(pump(stderr, err));
            }
            if let Some(stdin) = child.stdin.take() {
                feeder.spawn(feed(queue, stdin));
            }
            child
        };
        let group = Group::led_by(&child)?;
        let signals = facts.config.signals;
        Ok(Self { child, group, signals, input: Some(input), has_terminal, outputs, feeder })
    }

    async fn run(mut self, mut requests: ChannelReadHalf, answers: &ChannelWriteHalf<Msg>, session: &Handle) {
        let mut has_exited = false;
        // As sshd: the channel ends when the process has exited and nobody holds its output open.
        while !has_exited || !self.outputs.is_empty() {
            let event = tokio::select! {
                request = requests.wait() => Event::Request(request),
                status = self.child.wait(), if !has_exited => Event::Exited(status),
                _ = self.outputs.join_next(), if !self.outputs.is_empty() => Event::OutputEnded,
            };
            match event {
                Event::Request(None | Some(ChannelMsg::Close)) => {
                    return self.outlive_channel(has_exited).await;
                }
                Event::Request(Some(request)) => self.on_request(request).await,
                Event::Exited(status) => {
                    has_exited = true;
                    self.group.leader_has_ended();
                    report(status, answers, session).await;
                    if self.has_terminal {
                        // Its leader is gone: whoever else holds the terminal has been hung up.
                        let drained = async { while self.outputs.join_next().await.is_some() {} };
                        tokio::time::timeout(TERMINAL_DRAIN, drained).await.ok();
                        self.outputs.shutdown().await;
                    }
                }
                Event::OutputEnded => {}
            }
        }
        // The client may have closed the connection meanwhile.
        answers.eof().await.ok();
        answers.close().await.ok();
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "russh's enum: both sides' messages, open for more")]
    async fn on_request(&mut self, request: ChannelMsg) {
        match request {
            ChannelMsg::Data { data } => self.send(Input::Bytes(data)).await,
            ChannelMsg::WindowChange { col_width: columns, row_height: rows, .. } => {
                self.send(Input::Size { columns, rows }).await;
            }
            // A terminal's input has no end but the one its user types.
            ChannelMsg::Eof if !self.has_terminal => self.input = None,
            ChannelMsg::Signal { signal } => match self.signals {
                Signals::Delivered => self.group.signal(&signal),
                Signals::Dropped => {}
            },
            _ => {}
        }
    }

    /// Waits while the process has [`INPUT_QUEUE`] messages to read: then, as everywhere in russh, the whole
    /// connection waits with it.
    async fn send(&mut self, input: Input) {
        if let Some(queue) = &self.input {
            // A process that has closed its standard input is not an error of the client's.
            queue.send(input).await.ok();
        }
    }

    /// The client has closed the channel: a terminal hangs up, pipes close, and a process that survives that
    /// keeps its place until it ends.
    async fn outlive_channel(mut self, has_exited: bool) {
        self.input = None;
        self.outputs.shutdown().await;
        self.feeder.shutdown().await;
        if !has_exited && self.child.wait().await.is_ok() {
            self.group.leader_has_ended();
        }
    }
}

/// The login shell with the command, or alone.
fn command(wish: &Wish, facts: &Facts, mark: &Mark) -> Command {
    let shell = &facts.config.shell;
    let user = facts.config.users.first().map_or("", String::as_str);
    let mut command = Command::new(shell);
    match &wish.command {
        Some(line) => {
            use std::os::unix::ffi::OsStrExt;
            command.arg("-c").arg(std::ffi::OsStr::from_bytes(line));
        }
        None => {
            // A leading dash makes a login shell.
            let name =
                shell.file_name().map_or_else(|| "sh".into(), |name| name.to_string_lossy().into_owned());
            command.arg0(format!("-{name}"));
        }
    }
    command.env_clear().envs(wish.environment.iter().cloned());
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", &facts.home).env("SHELL", shell);
    command.env("USER", user).env("LOGNAME", user).env("SHLVL", "1").env(mark.variable(), mark.value());
    command.current_dir(&facts.home);
    command
}

/// Pipes, and a process group that a signal can reach as a whole.
fn in_own_group(mut command: Command) -> Command {
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn report(status: io::Result<ExitStatus>, answers: &ChannelWriteHalf<Msg>, session: &Handle) {
    use std::os::unix::process::ExitStatusExt;
    let Ok(status) = status else { return };
    // Nobody hears it if the connection has ended meanwhile.
    if let Some(code) = status.code() {
        answers.exit_status(u32::try_from(code).unwrap_or(u32::MAX)).await.ok();
    } else if let Some(signal) = status.signal() {
        let (name, has_core) = (super::process::signal_name(signal), status.core_dumped());
        session.exit_signal_request(answers.id(), name, has_core, String::new(), String::new()).await.ok();
    }
}

/// The program could not be started: a sentence, and the status sshd uses for its own failures.
async fn refuse(answers: &ChannelWriteHalf<Msg>, error: &io::Error) {
    let sentence = format!("cannot start the program: {error}\n");
    answers.extended_data_bytes(EXTENDED_DATA_STDERR, sentence).await.ok();
    answers.exit_status(255).await.ok();
    answers.close().await.ok();
}

/// Copies until the process closes its end or the client its window for good.
async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut reader = tokio::io::BufReader::with_capacity(CHUNK, &mut from);
    // A terminal reports its end as an error (EIO), a pipe as an end: both are one here.
    tokio::io::copy_buf(&mut reader, &mut to).await.ok();
}

async fn feed(mut queue: mpsc::Receiver<Input>, mut stdin: impl AsyncWrite + Unpin) {
    while let Some(input) = queue.recv().await {
        match input {
            Input::Bytes(bytes) if stdin.write_all(&bytes).await.is_ok() => {}
            Input::Bytes(_) => return,
            // A size without a terminal has no meaning.
            Input::Size { .. } => {}
        }
    }
}

async fn feed_terminal(mut queue: mpsc::Receiver<Input>, mut terminal: super::tty::TerminalWriter) {
    while let Some(input) = queue.recv().await {
        let done = match input {
            Input::Bytes(bytes) => terminal.write_all(&bytes).await,
            Input::Size { columns, rows } => terminal.resize(columns, rows),
        };
        if done.is_err() {
            return;
        }
    }
}

/// `SSH_EXTENDED_DATA_STDERR` (RFC 4254 section 5.2).
const EXTENDED_DATA_STDERR: u32 = 1;
const CHUNK: usize = 32 * 1024;
/// Messages of up to 32 KiB: 64 MiB, which no test sends to a process that does not read.
const INPUT_QUEUE: usize = 2048;
/// For output that is still on its way through the kernel when the process has ended.
const TERMINAL_DRAIN: std::time::Duration = std::time::Duration::from_millis(500);
