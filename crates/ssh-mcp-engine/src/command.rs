//! Commands: start one, move its output into its history, end it by the ladder, wait for it.

use std::{collections::VecDeque, future::poll_fn, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use ssh_mcp_core::{
    flight::Joined,
    history::Origin,
    id::SessionId,
    kind::{
        command::{Exit, Facts, Input, Machine, Outcome, Output, Step, Terminal, natural, stopped},
        login_shell::{self, LoginShell},
        pid_line::PidLine,
        tail,
    },
    lifecycle::{AutoRelease, Close, Confirmed, End, Lifecycle, SessionRef},
    owner::Owner,
    port::{
        BoxFuture,
        ssh::{
            Channel, ChannelControl, ChannelError, ChannelEvent, ChannelEvents, ChannelGone, Pty, PtySize,
            Start,
        },
    },
    quota::Quota,
    quote::Context,
    reason::Reason,
    registry::{Command, CommandSpec, Session},
    target_names, text,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    Clock, Engine, Observable, StartError, clock,
    reading::{First, Reading},
    session::while_open,
    tasks::Tasks,
};

/// What a caller wants run.
#[derive(Debug, Clone)]
pub struct Exec {
    /// Where.
    pub session: SessionId,
    /// What, for the login shell.
    pub command: String,
    /// Directory, variables and shell.
    pub context: Context,
    /// Whether on a terminal.
    pub terminal: Terminal,
    /// Longest run time; none is no limit.
    pub limit: Option<Duration>,
    /// Standard input, which is at its end after it; without any it is at its end from the start.
    pub input: Option<Bytes>,
    /// Whether it ends when nobody observes it.
    pub auto_release: AutoRelease,
    /// Wait before that, after the last lane left.
    pub grace: Duration,
    /// Bytes of output held.
    pub history: usize,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// What was waited for is over.
    Over,
    /// The patience is.
    Patience,
}

/// What a cancel found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// It ran, and has been ended.
    Done,
    /// It had ended.
    AlreadyOver,
}

/// Longest wait for a place among the server's channels where no further connection can be opened.
pub(crate) const CHANNEL_PATIENCE: Duration = Duration::from_secs(25);

/// A server that answers nothing does not hold a call for longer; a further connection has its own limit within.
const OPEN: Duration = Duration::from_secs(45);

/// The first command of a session waits so long to learn what login shell runs it; the answer does not wait.
const SHELL_PATIENCE: Duration = Duration::from_millis(300);

/// A login shell that has not answered by then is not asked again by this question.
const QUESTION: Duration = Duration::from_secs(10);

/// The terminal of a command that asks for one.
const COMMAND_PTY: PtySize = PtySize { cols: 80, rows: 24 };

impl Engine {
    /// Starts a command; the answer comes as soon as its channel is open.
    ///
    /// # Errors
    /// See [`StartError`]; then nothing runs.
    pub async fn exec(self: &Arc<Self>, owner: &Owner, ask: Exec) -> Result<Arc<Command>, StartError> {
        self.creating(|| StartError::Draining, self.start_command(owner, ask)).await
    }

    async fn start_command(self: &Arc<Self>, owner: &Owner, ask: Exec) -> Result<Arc<Command>, StartError> {
        let session = self.session(owner, ask.session).map_err(StartError::Session)?;
        let hold = SessionRef::take(&session.life).ok_or_else(|| self.ending(&session))?;
        let limit = session.commands.limit();
        let place = session.commands.take().ok_or(StartError::TooManyCommands { limit })?;
        self.ask_login_shell(&session);
        let channel = self.channel(&session).await?;

        let now = self.clock.now();
        let spec = CommandSpec {
            id: self.mint(),
            owner: owner.clone(),
            session: ask.session,
            target: session.spec.target.to_string(),
            agent: session.spec.agent.clone(),
            command: ask.command.clone(),
            started: now,
            ends: ask.limit.map(|limit| now.saturating_add(limit)),
            grace: ask.grace,
        };
        let life = Lifecycle::owned(ask.auto_release);
        let command = Arc::new(Command::new(
            spec,
            life,
            self.stream(ask.history),
            Quota::new(self.settings.lanes_per_uri),
            (hold, place),
        ));
        self.registries.commands.publish(Arc::clone(&command));
        self.list_changed(owner);
        // On an ending session either the cascade has found it, or it is refused here. Its task settles it either
        // way and starts nothing.
        let refused = session.life.confirm() == Confirmed::Ending
            && command.stop(Reason::CascadeDisconnect) == Close::Won;
        let running = Running {
            tasks: self.tasks.clone(),
            clock: self.clock,
            session: Arc::clone(&session),
            command: Arc::clone(&command),
            terminal: ask.terminal,
            control: channel.control,
        };
        self.tasks.spawn(running.run(ask, channel.events));
        if refused {
            self.registries.commands.withdraw(command.spec.id);
            self.list_changed(owner);
            return Err(self.ending(&session));
        }
        self.arm(Observable::Command(&command));
        Ok(command)
    }

    /// Waits for a command's end as a casual observer. Dropping the future ends the wait only.
    pub async fn await_command(self: &Arc<Self>, command: &Arc<Command>, patience: Duration) -> Waited {
        let _observer = self.observe(Observable::Command(command));
        match tokio::time::timeout(patience, self.command_ended(command)).await {
            Ok(()) => Waited::Over,
            Err(_) => Waited::Patience,
        }
    }

    /// Ends a command by the ladder and waits for that.
    pub async fn cancel(self: &Arc<Self>, command: &Arc<Command>) -> Cancel {
        let close = command.stop(Reason::Cancelled);
        // Also a caller that lost the race waits, so that what it then shows is final.
        self.command_ended(command).await;
        match close {
            Close::Won => Cancel::Done,
            Close::Lost => Cancel::AlreadyOver,
        }
    }

    /// Resolves when the end is recorded.
    pub(crate) async fn command_ended(&self, command: &Command) {
        let mut watch = command.history.watch();
        // The history's mark is the last thing that is set: place and reference have been given back.
        while !command.history.mark().ended {
            watch.changed().await;
        }
    }

    /// Opens a channel; a session whose connection turns out dead is closed on the way, and one that ends meanwhile
    /// is not waited for.
    pub(crate) async fn channel(self: &Arc<Self>, session: &Arc<Session>) -> Result<Channel, StartError> {
        let open = tokio::time::timeout(OPEN, session.link.open(CHANNEL_PATIENCE));
        let opened = while_open(session, open).await;
        // The end of a call is a use too: the session's time begins when nothing holds it any more.
        session.active.touch(self.clock.now());
        let opened = opened.ok_or_else(|| self.ending(session))?.unwrap_or_else(|_| {
            Err(ChannelError::Refused { cause: format!("no answer within {} s", OPEN.as_secs()) })
        });
        if let Err(ChannelError::Lost(lost)) = &opened {
            // Whoever else ends it at this moment has won.
            _ = self.lose(session, &lost.cause);
        }
        Ok(opened?)
    }

    /// The refusal of a session that takes nothing new.
    pub(crate) fn ending(&self, session: &Session) -> StartError {
        StartError::Session(self.unknown(&self.registries.sessions, &session.spec.owner, session.spec.id))
    }

    /// Asks, once per session, whether the login shell is a POSIX one; nobody waits for it here.
    fn ask_login_shell(self: &Arc<Self>, session: &Arc<Session>) {
        let Joined::Run(run) = session.login_shell.join() else { return };
        let session = Arc::clone(session);
        self.tasks.spawn(async move {
            let nonce = clock::random();
            let question = login_shell::question(nonce);
            // A failure is not kept: dropping the run lets the next command ask again.
            if let Some(output) = collect(&session, question, Duration::ZERO).await {
                run.complete(login_shell::answer(nonce, &output));
            }
        });
    }
}

/// Runs a command of the product's own, which may take its time, and takes its standard output; none if it was not seen
/// to end within the limit.
pub(crate) async fn collect_within(session: &Session, command: String, limit: Duration) -> Option<Vec<u8>> {
    said_within(session, command, limit).await.map(|said| said.output)
}

/// What a command of the product's own printed.
#[derive(Default)]
pub(crate) struct Said {
    /// On its standard output.
    pub(crate) output: Vec<u8>,
    /// On its standard error.
    pub(crate) errors: Vec<u8>,
}

/// The same with what it says on standard error.
pub(crate) async fn said_within(session: &Session, command: String, limit: Duration) -> Option<Said> {
    output_of(session, command, CHANNEL_PATIENCE, limit).await
}

/// The same for a short one.
async fn collect(session: &Session, command: String, patience: Duration) -> Option<Vec<u8>> {
    output_of(session, command, patience, QUESTION).await.map(|said| said.output)
}

async fn output_of(session: &Session, command: String, patience: Duration, limit: Duration) -> Option<Said> {
    // Also on a session that is being disconnected: its commands are ended by this.
    let mut channel = session.link.open(patience).await.ok()?;
    channel.control.start(Start::Exec { command, pty: None }).await.ok()?;
    channel.control.finish_input().await.ok()?;
    let mut said = Said::default();
    // The exit may overtake output, and a child of the login files may keep the channel open.
    let mut grace = pin!(tokio::time::sleep(limit));
    let (mut has_begun, mut has_exited) = (false, false);
    loop {
        let event = tokio::select! {
            biased;
            event = poll_fn(|cx| channel.events.poll_event(cx)) => event,
            () = grace.as_mut() => return has_exited.then_some(said),
        };
        match event {
            ChannelEvent::Data(origin, bytes) => {
                let text = match origin {
                    Origin::Stdout => &mut said.output,
                    Origin::Stderr => &mut said.errors,
                };
                if text.len() < 64 * 1024 {
                    text.extend_from_slice(&bytes);
                }
            }
            ChannelEvent::Started => has_begun = true,
            ChannelEvent::Eof => {}
            ChannelEvent::ExitStatus(_) | ChannelEvent::ExitSignal { .. } => {
                has_exited = true;
                grace.as_mut().reset(Instant::now() + tail::GRACE);
            }
            ChannelEvent::Closed => return has_begun.then_some(said),
            ChannelEvent::Refused { .. } | ChannelEvent::Lost(_) => return None,
        }
    }
}

/// The task of one command: the only one that appends to its history and records its end.
struct Running {
    tasks: Tasks,
    clock: Clock,
    session: Arc<Session>,
    command: Arc<Command>,
    terminal: Terminal,
    control: Arc<dyn ChannelControl>,
}

/// What the task was woken by.
enum Event {
    Channel(ChannelEvent),
    Stopped,
    Deadline,
}

impl Running {
    async fn run(mut self, ask: Exec, events: Box<dyn ChannelEvents>) {
        let mut reading = Reading::new(self.clock, events);
        let (mut pid_line, channel) = tokio::select! {
            biased;
            () = self.command.duty.told.notified() => {
                // Asked to end before anything was started, so nothing is.
                self.tasks.spawn(self.control.close());
                let nothing = Outcome { exit: None, ended_by: None, fault: None, output: Output::Ended };
                return self.settle(nothing, &mut PidLine::absent());
            }
            ready = self.ready(&mut reading) => ready,
        };
        let mut ended = match channel {
            Ok(None) => None,
            Ok(Some(another)) => {
                self.control = another.control;
                reading.turn_to(another.events);
                None
            }
            Err(end) => Some(end),
        };
        tracing::info!(
            target: target_names::MAIN,
            command_id = %self.command.spec.id,
            session_id = %self.session.spec.id,
            "command started"
        );
        tracing::debug!(
            target: target_names::MAIN,
            command_id = %self.command.spec.id,
            text = %text::cut(&text::one_line(&ask.command), 200),
            "command"
        );
        let mut machine = Machine::new(ask.terminal, self.command.spec.ends);
        let input = CancellationToken::new();
        let _no_longer_than_this = input.clone().drop_guard();
        if ended.is_none() {
            self.start(ask, &pid_line, input.clone());
        }
        // Whether the machine has heard of the stop.
        let mut told = false;
        loop {
            // Once it is to end, no reader is waited for.
            let instead = if told { None } else { self.room(&mut machine).await };
            let first = if machine.expects_output() { First::Event } else { First::Deadline };
            let event = match instead {
                Some(event) => event,
                None => tokio::select! {
                    biased;
                    // A stop comes before output too.
                    () = self.command.duty.told.notified(), if !told => Event::Stopped,
                    event = next(&mut ended, &mut reading, machine.poll_timeout(), first) => event,
                },
            };
            let news = match event {
                Event::Stopped => {
                    told = true;
                    // What is still to be written must not stand before the interrupt character.
                    input.cancel();
                    Input::Stop
                }
                Event::Deadline => Input::Tick,
                Event::Channel(ChannelEvent::Data(origin, bytes)) => {
                    self.take(&mut pid_line, origin, &bytes);
                    machine.on_output(self.clock.now(), bytes.len());
                    continue;
                }
                Event::Channel(ChannelEvent::Started | ChannelEvent::Eof) => continue,
                Event::Channel(ChannelEvent::ExitStatus(status)) => Input::Exit(Exit::Status(status)),
                Event::Channel(ChannelEvent::ExitSignal { name }) => Input::Exit(Exit::Signal(name)),
                Event::Channel(ChannelEvent::Refused { request }) => Input::Refused(request),
                Event::Channel(ChannelEvent::Closed) => Input::Closed,
                Event::Channel(ChannelEvent::Lost(lost)) => Input::Lost(lost.cause),
            };
            let now = self.clock.now();
            let mut steps: VecDeque<Step> = machine.on(now, news).into();
            while let Some(step) = steps.pop_front() {
                match step {
                    Step::Claim => {
                        if self.command.life.close() == Close::Lost && !told {
                            // Somebody else has won; the reason follows at once, and settling needs it.
                            self.command.duty.told.notified().await;
                            told = true;
                            steps.extend(machine.on(now, Input::Stop));
                        }
                    }
                    Step::Expire => _ = self.command.stop(Reason::TimedOut),
                    Step::Interrupt => self.ask(self.control.send(Bytes::from_static(b"\x03"))),
                    Step::Signal(signal) => self.ask(self.control.signal(signal)),
                    Step::KillGroup => match pid_line.pid() {
                        Some(pid) => self.tasks.spawn(kill_group(Arc::clone(&self.session), pid)),
                        None => steps.extend(machine.on(now, Input::NoGroup)),
                    },
                    Step::Close => self.tasks.spawn(self.control.close()),
                    Step::Settle(outcome) => self.settle(outcome, &mut pid_line),
                    Step::Leave => return,
                }
            }
        }
    }

    /// Waits for the readers that are to be waited for; the answer is what came first instead.
    async fn room(&self, machine: &mut Machine) -> Option<Event> {
        if self.command.history.has_room() {
            return None;
        }
        let since = self.clock.now();
        let over = async {
            match machine.limit() {
                Some(at) => self.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let instead = tokio::select! {
            biased;
            () = self.command.history.room() => None,
            () = self.command.duty.told.notified() => Some(Event::Stopped),
            () = over => Some(Event::Deadline),
        };
        machine.on_pause(self.clock.now().saturating_sub(since));
        instead
    }

    /// The first command of a session waits a moment for the probe of its login shell.
    async fn pid_line(&self) -> PidLine {
        let verdict = match self.session.login_shell.join() {
            Joined::Ready(verdict) => Some(verdict),
            Joined::Wait(wait) => tokio::time::timeout(SHELL_PATIENCE, wait.outcome()).await.ok().flatten(),
            // The probe has failed; dropping this run lets the next command ask again.
            Joined::Run(_) => None,
        };
        match verdict {
            Some(LoginShell::Posix) => PidLine::new(clock::random()),
            Some(LoginShell::Other) | None => PidLine::absent(),
        }
    }

    /// Waits until the command can begin. A channel that the server has closed meanwhile is replaced, once: nothing has been
    /// asked of it, so nothing runs. The error is the end that nothing could be done about.
    async fn ready(&self, reading: &mut Reading) -> (PidLine, Result<Option<Channel>, ChannelEvent>) {
        let pid_line = self.pid_line().await;
        match reading.end_so_far().await {
            None => return (pid_line, Ok(None)),
            Some(lost @ ChannelEvent::Lost(_)) => return (pid_line, Err(lost)),
            Some(_) => {}
        }
        tracing::debug!(
            target: target_names::SSH,
            command_id = %self.command.spec.id,
            "the server closed a channel before anything was asked of it"
        );
        let left = self.command.spec.ends.map_or(OPEN, |ends| ends.saturating_sub(self.clock.now()));
        let opened = tokio::time::timeout(left.min(OPEN), self.session.link.open(CHANNEL_PATIENCE)).await;
        let channel = match opened {
            Ok(Ok(channel)) => Ok(Some(channel)),
            Ok(Err(ChannelError::Lost(lost))) => Err(ChannelEvent::Lost(lost)),
            Ok(Err(ChannelError::Refused { .. } | ChannelError::NoPlace { .. })) | Err(_) => {
                Err(ChannelEvent::Refused { request: "exec" })
            }
        };
        (pid_line, channel)
    }

    /// Starts the command and writes its input, which is then at its end.
    ///
    /// In a task of its own: a program that does not read must not keep this one from draining the channel.
    fn start(&self, ask: Exec, pid_line: &PidLine, stopped: CancellationToken) {
        let line = ask.context.command(&ask.command);
        let command = if pid_line.is_searching() { pid_line.prefix(&line) } else { line };
        let pty = match ask.terminal {
            Terminal::Pty => Some(Pty { term: "xterm".into(), size: COMMAND_PTY }),
            Terminal::None => None,
        };
        let control = Arc::clone(&self.control);
        self.tasks.spawn(async move {
            // A channel that is gone reports that by an event of its own.
            if control.start(Start::Exec { command, pty }).await.is_ok() {
                _ = stopped.run_until_cancelled(write_all(&*control, ask.input, ask.terminal)).await;
            }
        });
    }

    /// A request beside the reading: waiting for it here could stop the very loop that has to send it.
    fn ask(&self, request: BoxFuture<'static, Result<(), ChannelGone>>) {
        self.tasks.spawn(async move {
            _ = request.await;
        });
    }

    /// Output goes into the history, but for the line that tells the process group.
    fn take(&self, pid_line: &mut PidLine, origin: Origin, bytes: &[u8]) {
        // On a terminal everything is standard output, the line too.
        if pid_line.is_searching() && (origin == Origin::Stderr || self.terminal == Terminal::Pty) {
            let mut rest = Vec::with_capacity(bytes.len());
            pid_line.pass(bytes, &mut rest);
            self.command.history.append(origin, &rest);
        } else {
            self.command.history.append(origin, bytes);
        }
        let now = self.clock.now();
        self.command.active.touch(now);
        self.session.active.touch(now);
    }

    /// Records the end, wakes who waits, gives session and place back.
    fn settle(&self, outcome: Outcome, pid_line: &mut PidLine) {
        let mut rest = Vec::new();
        pid_line.finish(&mut rest);
        let origin = if self.terminal == Terminal::Pty { Origin::Stdout } else { Origin::Stderr };
        self.command.history.append(origin, &rest);

        let (status, reason) = match self.command.duty.order() {
            Some(reason) => (stopped(reason), reason),
            None => natural(&outcome),
        };
        let now = self.clock.now();
        let Outcome { exit, ended_by, fault, output } = outcome;
        let facts = Facts { status, exit, ended_by, fault, output, pid: pid_line.pid() };
        tracing::info!(
            target: target_names::MAIN,
            command_id = %self.command.spec.id,
            session_id = %self.command.spec.session,
            %reason,
            exit_code = facts.exit_code(),
            duration_ms = (now - self.command.spec.started).as_millis() as u64,
            "command ended"
        );
        // The task is the only one that records, and it settles once.
        _ = self.command.ending.record(End { reason, facts, at: now });
        self.session.active.touch(now);
        self.command.duty.let_go();
        self.command.history.finish();
    }
}

/// What comes next: an end that is known already, else what the channel says or the deadline.
async fn next(
    ended: &mut Option<ChannelEvent>,
    reading: &mut Reading,
    deadline: Option<Duration>,
    first: First,
) -> Event {
    match ended.take() {
        Some(end) => Event::Channel(end),
        None => reading.next(deadline, first).await.map_or(Event::Deadline, Event::Channel),
    }
}

/// Kills a process group by a command of its own, for servers that drop signal requests.
///
/// It may wait for a channel as long as the ladder waits for its success.
async fn kill_group(session: Arc<Session>, pid: u32) {
    _ = collect(&session, format!("kill -KILL -- -{pid}"), Duration::from_secs(1)).await;
}

/// Writes the input of a command and ends it.
async fn write_all(
    control: &dyn ChannelControl,
    input: Option<Bytes>,
    terminal: Terminal,
) -> Result<(), ChannelGone> {
    let whole_lines = input.as_ref().is_none_or(|input| input.ends_with(b"\n"));
    if let Some(input) = input {
        control.send(input).await?;
    }
    match terminal {
        Terminal::None => control.finish_input().await,
        // A terminal ends its input by a character; behind an unfinished line the first only flushes it.
        Terminal::Pty if whole_lines => control.send(Bytes::from_static(b"\x04")).await,
        Terminal::Pty => control.send(Bytes::from_static(b"\x04\x04")).await,
    }
}
