//! Shells: open one, move its output into its history and its input out, wait for what it prints, end it.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use ssh_mcp_core::{
    id::SessionId,
    kind::{
        command::Exit,
        needles::{Needle, Needles},
        shell::Frame,
        tail::Tail,
    },
    lifecycle::{AutoRelease, Close, Confirmed, End, Lifecycle, SessionRef, State},
    owner::Owner,
    port::ssh::{ChannelControl, ChannelEvent, ChannelEvents, ChannelGone, Pty, PtySize, Signal, Start},
    quota::Quota,
    quote::Context,
    reason::Reason,
    registry::{Entry, Manner, Observer, Session, Shell, ShellSpec},
    target_names,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    Clock, Engine, Observable, StartError,
    reading::{First, Reading},
    tasks::Tasks,
    transcript,
};

/// What a caller wants opened.
#[derive(Debug, Clone)]
pub struct OpenShell {
    /// Where.
    pub session: SessionId,
    /// Terminal.
    pub pty: Pty,
    /// Directory, variables and program.
    pub context: Context,
    /// Time without input, output and observer after which it is closed; none is never.
    pub inactivity: Option<Duration>,
    /// Bytes of output held.
    pub history: usize,
    /// Whether it ends when nobody observes it.
    pub auto_release: AutoRelease,
    /// Wait before that, after the last lane left.
    pub grace: Duration,
    /// A label, unique among the open shells of the target.
    pub name: Option<String>,
    /// Whether an open shell will do.
    pub ensure: Ensure,
    /// How long it stays readable after it has ended by itself.
    pub retention: Duration,
    /// Whether its output goes into a transcript, and how a person is to watch that.
    pub transcript: Option<Observer>,
}

/// Whether an open shell of the same target will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensure {
    /// Open a new one.
    No,
    /// Take one of the same name, or without a name the newest of the target.
    Yes,
}

/// A shell and how it was come by.
pub struct OpenedShell {
    /// The shell.
    pub shell: Arc<Shell>,
    /// New or found.
    pub how: Opening,
}

/// How a shell was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It was opened.
    Created,
    /// It was open.
    Reused {
        /// What it was found by: `name` or `target`.
        matched_by: &'static str,
    },
}

/// How a wait for a shell's output ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShellWait {
    /// There is what was waited for.
    Bytes,
    /// The shell has ended.
    Ended,
    /// The patience has.
    Patience,
}

/// How a wait for a pattern ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShellMatch {
    /// A pattern appeared.
    Matched {
        /// Which.
        pattern: usize,
        /// The offset just behind it.
        end: u64,
    },
    /// The shell has ended without it.
    Ended,
    /// The patience has.
    Patience,
}

/// What a close found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseShell {
    /// It was open, and has been closed.
    Done,
    /// It had ended.
    AlreadyClosed,
}

/// Why input was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The shell has ended.
    #[error("the shell has ended")]
    Closed {
        /// Bytes that were taken.
        accepted: usize,
    },
    /// Nothing was taken for 5 s.
    #[error("the shell took nothing for 5 s")]
    Stuck {
        /// Bytes that were taken.
        accepted: usize,
    },
}

/// A shell that takes nothing for so long is stuck.
const STUCK: Duration = Duration::from_secs(5);

/// Input goes out in pieces of this size, so that what was taken can be told.
const PIECE: usize = 32 * 1024;

/// Output is searched in steps of this size.
const LOOK: usize = 64 * 1024;

/// How long a shell's end may take to be seen before its channel is closed.
const HANG_UP: Duration = Duration::from_secs(2);
const KILL: Duration = Duration::from_secs(1);

impl Engine {
    /// Opens a shell, or finds an open one.
    ///
    /// # Errors
    /// See [`StartError`]; then nothing runs.
    pub async fn open_shell(
        self: &Arc<Self>,
        owner: &Owner,
        ask: OpenShell,
    ) -> Result<OpenedShell, StartError> {
        self.creating(|| StartError::Draining, self.find_or_open(owner, ask)).await
    }

    async fn find_or_open(
        self: &Arc<Self>,
        owner: &Owner,
        ask: OpenShell,
    ) -> Result<OpenedShell, StartError> {
        let session = self.session(owner, ask.session).map_err(StartError::Session)?;
        if let Some(found) = self.open_match(&session, &ask)? {
            return Ok(found);
        }
        let hold = SessionRef::take(&session.life).ok_or_else(|| self.ending(&session))?;
        let limit = session.shells.limit();
        let place = session.shells.take().ok_or(StartError::TooManyShells { limit })?;
        let id = self.mint();
        let transcript = match ask.transcript {
            Some(_) => Some(self.ports.transcripts.create(id).await?),
            None => None,
        };
        let channel = self.channel(&session).await?;

        let spec = ShellSpec {
            id,
            owner: owner.clone(),
            session: ask.session,
            target: session.spec.target.to_string(),
            agent: session.spec.agent.clone(),
            name: ask.name.clone(),
            term: ask.pty.term.clone(),
            opened: self.clock.now(),
            inactivity: ask.inactivity,
            grace: ask.grace,
            retention: ask.retention,
        };
        let life = Lifecycle::owned(ask.auto_release);
        let shell = Arc::new(Shell::new(
            spec,
            ask.pty.size,
            life,
            self.stream(ask.history),
            transcript::recording(transcript.as_ref(), ask.transcript),
            Quota::new(self.settings.lanes_per_uri),
            (hold, place),
        ));
        {
            // Two calls with one name may both have come this far; the second finds the first.
            let _names = self.names.lock();
            if let Some(found) = self.open_match(&session, &ask)? {
                return Ok(found);
            }
            self.registries.shells.publish(Arc::clone(&shell));
            self.list_changed(owner);
        }
        // On an ending session either the cascade has found it, or it is refused here. Its task settles it either
        // way and starts nothing.
        let refused = session.life.confirm() == Confirmed::Ending
            && shell.stop(Reason::CascadeDisconnect, Manner::HangUp) == Close::Won;
        let start = match ask.context.interactive() {
            Some(command) => Start::Exec { command, pty: Some(ask.pty) },
            None => Start::Shell { pty: ask.pty },
        };
        let running = Running {
            tasks: self.tasks.clone(),
            clock: self.clock,
            session: Arc::clone(&session),
            shell: Arc::clone(&shell),
            control: channel.control,
        };
        self.tasks.spawn(running.run(start, channel.events));
        if refused {
            self.registries.shells.withdraw(shell.spec.id);
            self.list_changed(owner);
            return Err(self.ending(&session));
        }
        if let Some(new) = transcript {
            transcript::begin(&self.tasks, &self.ports.transcripts, &shell, new.file);
        }
        self.arm(Observable::Shell(&shell));
        Ok(OpenedShell { shell, how: Opening::Created })
    }

    /// An open shell that stands in the way of a name, or that will do.
    fn open_match(&self, session: &Session, ask: &OpenShell) -> Result<Option<OpenedShell>, StartError> {
        if ask.name.is_none() && ask.ensure == Ensure::No {
            return Ok(None);
        }
        let target = session.spec.target.to_string();
        let open = self.registries.shells.of_owner(&session.spec.owner).into_iter();
        let mut open =
            open.filter(|shell| shell.life.snapshot().state != State::Closed && shell.spec.target == target);
        let found = open.find(|shell| ask.name.is_none() || shell.spec.name == ask.name);
        match (found, &ask.name, ask.ensure) {
            (None, _, _) => Ok(None),
            (Some(shell), name, Ensure::Yes) => {
                shell.read.touch(self.clock.now());
                self.touch_session(shell.spec.session);
                let matched_by = if name.is_some() { "name" } else { "target" };
                Ok(Some(OpenedShell { shell, how: Opening::Reused { matched_by } }))
            }
            (Some(shell), Some(name), Ensure::No) => {
                Err(StartError::NameInUse { name: name.clone(), shell: shell.spec.id })
            }
            (Some(_), None, Ensure::No) => Ok(None),
        }
    }

    /// Sends input, and before it the terminal's new size; waits until all of it has been taken.
    ///
    /// # Errors
    /// If the shell has ended or takes nothing.
    pub async fn write_shell(
        self: &Arc<Self>,
        shell: &Arc<Shell>,
        resize: Option<PtySize>,
        bytes: Bytes,
    ) -> Result<usize, WriteError> {
        let mut moved = shell.input.watch();
        let mut ended = shell.history.watch();
        if shell.life.snapshot().state == State::Closed {
            return Err(WriteError::Closed { accepted: 0 });
        }
        shell.active.touch(self.clock.now());
        self.postpone(Observable::Shell(shell));
        let size = bytes.len();
        let mut left = bytes;
        let mut resize = resize;
        let mut ticket = 0;
        let mut sent = shell.input.sent();
        let mut stuck = pin!(tokio::time::sleep(STUCK));
        loop {
            // The queue is filled as far as it goes; then it has to move.
            while let Some(frame) = next_frame(resize, &left) {
                let Ok(own) = shell.input.push(frame) else { break };
                ticket = own;
                if resize.take().is_none() {
                    left = left.slice(left.len().min(PIECE)..);
                }
            }
            let accepted = size - left.len();
            if resize.is_none() && left.is_empty() && shell.input.sent() >= ticket {
                shell.active.touch(self.clock.now());
                return Ok(accepted);
            }
            if !shell.is_running() {
                return Err(WriteError::Closed { accepted });
            }
            tokio::select! {
                () = moved.changed() => {}
                () = ended.changed() => {}
                () = stuck.as_mut() => {}
            }
            // What the shell prints is no sign that it reads.
            if shell.input.sent() > sent {
                sent = shell.input.sent();
                stuck.as_mut().reset(Instant::now() + STUCK);
            } else if stuck.is_elapsed() {
                return Err(WriteError::Stuck { accepted });
            }
        }
    }

    /// Waits until `min` bytes lie behind `from`, as a casual observer.
    pub async fn await_shell_bytes(
        self: &Arc<Self>,
        shell: &Arc<Shell>,
        from: u64,
        min: u64,
        patience: Duration,
    ) -> ShellWait {
        let _observer = self.observe(Observable::Shell(shell));
        let wanted = from.saturating_add(min);
        let mut watch = shell.history.watch();
        let mut patience = pin!(tokio::time::sleep(patience));
        loop {
            let mark = shell.history.mark();
            if mark.end >= wanted {
                return ShellWait::Bytes;
            }
            if mark.ended {
                return ShellWait::Ended;
            }
            tokio::select! {
                () = watch.changed() => {}
                () = &mut patience => return ShellWait::Patience,
            }
        }
    }

    /// Waits until output has come behind `from` and then none for `quiet`.
    ///
    /// Whoever opens a shell looks at its first output this way, which is no observation yet; other callers hold an
    /// observer of their own.
    pub async fn await_shell_quiet(
        &self,
        shell: &Arc<Shell>,
        from: u64,
        patience: Duration,
        quiet: Duration,
    ) -> ShellWait {
        let deadline = self.clock.now().saturating_add(patience);
        let mut watch = shell.history.watch();
        loop {
            let mark = shell.history.mark();
            if mark.ended {
                return ShellWait::Ended;
            }
            let left = deadline.saturating_sub(self.clock.now());
            let (pause, then) = match mark.end > from {
                true => (quiet.min(left), ShellWait::Bytes),
                false => (left, ShellWait::Patience),
            };
            tokio::select! {
                () = watch.changed() => {}
                () = tokio::time::sleep(pause) => return then,
            }
        }
    }

    /// Waits until one of `patterns` appears behind `from`, with or without its escape sequences.
    pub async fn await_shell_match(
        self: &Arc<Self>,
        shell: &Arc<Shell>,
        from: u64,
        patterns: &[String],
        patience: Duration,
    ) -> ShellMatch {
        let _observer = self.observe(Observable::Shell(shell));
        let mut watch = shell.history.watch();
        let mut patience = pin!(tokio::time::sleep(patience));
        let mut needles = Needles::new(patterns);
        let mut seen = from;
        loop {
            let window = shell.history.read(seen, LOOK);
            seen = window.next;
            if let Some(Needle { pattern, end }) = needles.look(window.start, &window.bytes) {
                return ShellMatch::Matched { pattern, end };
            }
            if window.next < window.end {
                // There is more to look at; others want to run too.
                tokio::task::yield_now().await;
                continue;
            }
            if window.ended {
                return ShellMatch::Ended;
            }
            tokio::select! {
                () = watch.changed() => {}
                () = &mut patience => return ShellMatch::Patience,
            }
        }
    }

    /// Ends a shell and waits up to `patience` for what its end brings.
    pub async fn close_shell(
        self: &Arc<Self>,
        shell: &Arc<Shell>,
        manner: Manner,
        patience: Duration,
    ) -> CloseShell {
        let close = shell.stop(Reason::ManualClose, manner);
        let settled = async {
            shell.over().await;
            self.transcript_over(shell).await;
        };
        _ = tokio::time::timeout(patience, settled).await;
        match close {
            Close::Won => CloseShell::Done,
            Close::Lost => CloseShell::AlreadyClosed,
        }
    }
}

/// What is to be queued next: a new size stands before the bytes.
fn next_frame(resize: Option<PtySize>, left: &Bytes) -> Option<Frame> {
    let piece = || Frame::Bytes(left.slice(..left.len().min(PIECE)));
    resize.map(Frame::Resize).or_else(|| (!left.is_empty()).then(piece))
}

/// The reading task of a shell: the only one that appends to its history and records its end.
struct Running {
    tasks: Tasks,
    clock: Clock,
    session: Arc<Session>,
    shell: Arc<Shell>,
    control: Arc<dyn ChannelControl>,
}

/// When a shell was told to end, and how long that may take to be seen.
#[derive(Debug, Clone, Copy)]
struct Told {
    at: Duration,
    patience: Duration,
}

/// What the reading task was woken by.
enum Event {
    Channel(ChannelEvent),
    Stopped,
    Deadline,
}

impl Running {
    async fn run(self, start: Start, events: Box<dyn ChannelEvents>) {
        let Self { tasks, clock, session, shell, control } = self;
        let writing = CancellationToken::new();
        let _no_longer_than_this = writing.clone().drop_guard();
        let started = shell.duty.order().is_none();
        if started {
            tracing::info!(
                target: target_names::MAIN,
                shell_id = %shell.spec.id,
                session_id = %session.spec.id,
                "shell opened"
            );
            let write = write(Arc::clone(&shell), Arc::clone(&control), start);
            tasks.spawn(async move { _ = writing.run_until_cancelled(write).await });
        }
        // The exit, and the output behind it.
        let mut exited: Option<(Exit, Tail)> = None;
        let mut told: Option<Told> = None;
        let tail = |told: Option<Told>| {
            let tail = Tail::begin(clock.now());
            told.map_or(tail, |told| tail.stopped(told.at))
        };
        let mut reading = Reading::new(clock, events);
        let reason = loop {
            // Once it is to end, no reader is waited for.
            let instead = match told.is_some() || shell.history.has_room() {
                true => None,
                false => {
                    let since = clock.now();
                    let instead = tokio::select! {
                        biased;
                        () = shell.history.room() => None,
                        () = shell.duty.told.notified() => Some(Event::Stopped),
                    };
                    if let Some((_, tail)) = &mut exited {
                        tail.on_pause(clock.now().saturating_sub(since));
                    }
                    instead
                }
            };
            let (deadline, first) = match (&exited, told) {
                (Some((_, tail)), _) if tail.is_expecting() => (Some(tail.until()), First::Event),
                (Some((_, tail)), _) => (Some(tail.until()), First::Deadline),
                (None, Some(told)) => (Some(told.at + told.patience), First::Deadline),
                (None, None) => (None, First::Deadline),
            };
            let event = match instead {
                Some(event) => event,
                None => tokio::select! {
                    biased;
                    // A stop comes before output, so that a flood cannot hold it up.
                    () = shell.duty.told.notified(), if told.is_none() => Event::Stopped,
                    event = reading.next(deadline, first) => event.map_or(Event::Deadline, Event::Channel),
                },
            };
            match event {
                // Asked to end before anything was started, so nothing is.
                Event::Stopped if !started => break Reason::Failed,
                Event::Stopped => {
                    let at = clock.now();
                    let (signal, patience) = match shell.duty.order() {
                        Some((_, Manner::Kill)) => (Signal::Kill, KILL),
                        Some((_, Manner::HangUp)) | None => (Signal::Hup, HANG_UP),
                    };
                    told = Some(Told { at, patience });
                    match &mut exited {
                        // Nothing is left that could be told.
                        Some((_, tail)) => *tail = tail.stopped(at),
                        None => {
                            let request = control.signal(signal);
                            tasks.spawn(async move { _ = request.await });
                        }
                    }
                }
                // Closing the channel takes the terminal away, which the kernel tells the foreground processes.
                Event::Deadline => break Reason::RemoteClosed,
                Event::Channel(ChannelEvent::Data(origin, bytes)) => {
                    shell.history.append(origin, &bytes);
                    let now = clock.now();
                    shell.active.touch(now);
                    session.active.touch(now);
                    if let Some((_, tail)) = &mut exited {
                        tail.on_output(now, bytes.len());
                    }
                }
                Event::Channel(ChannelEvent::Started | ChannelEvent::Eof) => {}
                Event::Channel(ChannelEvent::ExitStatus(status)) => {
                    exited = Some((Exit::Status(status), tail(told)));
                }
                Event::Channel(ChannelEvent::ExitSignal { name }) => {
                    exited = Some((Exit::Signal(name), tail(told)));
                }
                Event::Channel(ChannelEvent::Refused { .. }) => break Reason::Failed,
                Event::Channel(ChannelEvent::Closed) => break Reason::RemoteClosed,
                Event::Channel(ChannelEvent::Lost(_)) => break Reason::ConnectionLost,
            }
        };
        tasks.spawn(control.close());
        let exit = exited.map(|(exit, _)| exit);
        // The natural end competes with a stop that came in this very moment; the winner's reason counts.
        let reason = match (shell.life.close(), reason, &exit) {
            (Close::Lost, ..) => {
                if shell.duty.order().is_none() {
                    // The winner's order follows at once.
                    shell.duty.told.notified().await;
                }
                shell.duty.order().map_or(reason, |(reason, _)| reason)
            }
            (Close::Won, Reason::RemoteClosed, Some(_)) => Reason::Completed,
            (Close::Won, ..) => reason,
        };
        let now = clock.now();
        tracing::info!(
            target: target_names::MAIN,
            shell_id = %shell.spec.id,
            session_id = %session.spec.id,
            %reason,
            duration_ms = (now - shell.spec.opened).as_millis() as u64,
            "shell closed"
        );
        // The task is the only one that records, and it does so once.
        _ = shell.ending.record(End { reason, facts: exit, at: now });
        session.active.touch(now);
        shell.duty.let_go();
        shell.history.finish();
    }
}

/// The writing task of a shell: starts it, then sends its input piece by piece.
async fn write(shell: Arc<Shell>, control: Arc<dyn ChannelControl>, start: Start) -> Result<(), ChannelGone> {
    control.start(start).await?;
    loop {
        while let Some(frame) = shell.input.pop() {
            match frame {
                Frame::Bytes(bytes) => control.send(bytes).await?,
                Frame::Resize(size) => {
                    control.resize(size).await?;
                    shell.resized(size);
                }
            }
            shell.input.note_sent();
        }
        shell.input.filled.notified().await;
    }
}

/// Whether a retained shell ended by itself, so that it is kept for long.
pub(crate) fn ended_by_itself(shell: &Shell) -> bool {
    shell.ended().is_some_and(|(reason, _)| reason.is_own_end())
}
