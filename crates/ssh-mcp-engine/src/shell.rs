//! Shells: open one, move its output into its history and its input out, wait for what it prints, end it.

use std::{future::poll_fn, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use ssh_mcp_core::{
    history::{ByteHistory, Mark},
    id::SessionId,
    kind::{
        command::Exit,
        shell::{Frame, Full},
    },
    lifecycle::{AutoRelease, Close, Confirmed, End, Lifecycle, SessionRef},
    owner::Owner,
    port::ssh::{Channel, ChannelControl, ChannelEvent, Pty, PtySize, Signal, Start},
    quote::Context,
    reason::Reason,
    registry::{Entry, Manner, Session, Shell, ShellSpec},
    target_names, text,
};

use crate::{Engine, Observable, StartError};

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
        let _pass = self.gate.enter().ok_or(StartError::Draining)?;
        let session = self.session(owner, ask.session).map_err(StartError::Session)?;
        if let Some(found) = self.open_match(&session, &ask)? {
            return Ok(found);
        }
        let id = session.spec.id;
        let missing = || StartError::Session(self.unknown(&self.registries.sessions, owner, id));
        let hold = SessionRef::take(&session.life).ok_or_else(missing)?;
        let limit = session.shells.limit();
        let place = session.shells.take().ok_or(StartError::TooManyShells { limit })?;
        let channel = self.channel(&session).await?;

        let spec = ShellSpec {
            id: self.mint(),
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
        let shell =
            Arc::new(Shell::new(spec, ask.pty.size, life, ByteHistory::new(ask.history), (hold, place)));
        {
            // Two calls with one name may both have come this far; the second finds the first.
            let _names = self.names.lock();
            if let Some(found) = self.open_match(&session, &ask)? {
                return Ok(found);
            }
            self.registries.shells.publish(Arc::clone(&shell));
        }
        let confirmed = session.life.confirm();
        if confirmed == Confirmed::Ending {
            _ = shell.stop(Reason::CascadeDisconnect, Manner::HangUp);
        }
        tracing::info!(target: target_names::MAIN, shell_id = %shell.spec.id, session_id = %session.spec.id, "shell opened");
        let start = match ask.context.interactive() {
            Some(command) => Start::Exec { command, pty: Some(ask.pty) },
            None => Start::Shell { pty: ask.pty },
        };
        self.tasks.spawn(write(Arc::clone(&shell), Arc::clone(&channel.control), start));
        self.tasks.spawn(run(Arc::clone(self), session, Arc::clone(&shell), channel));
        if confirmed == Confirmed::Ending {
            return Err(missing());
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
        let mut open = open.filter(|shell| {
            shell.is_running() && shell.stop_order().is_none() && shell.spec.target == target
        });
        let found = open.find(|shell| ask.name.is_none() || shell.spec.name == ask.name);
        match (found, &ask.name, ask.ensure) {
            (None, _, _) => Ok(None),
            (Some(shell), name, Ensure::Yes) => {
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
        shell.active.touch(self.clock.now());
        self.postpone(Observable::Shell(shell));
        let mut watch = shell.input.watch();
        let mut ended = shell.history.watch();
        let mut accepted = 0;
        let mut left = bytes;
        let mut resize = resize.map(Frame::Resize);
        let mut last_ticket = 0;
        loop {
            // Fill the queue as far as it goes, then wait for it to move.
            let full = loop {
                let frame = match resize.take() {
                    Some(frame) => frame,
                    None if left.is_empty() => break false,
                    None => Frame::Bytes(left.slice(..left.len().min(PIECE))),
                };
                let size = match &frame {
                    Frame::Bytes(bytes) => bytes.len(),
                    Frame::Resize(_) => 0,
                };
                match shell.input.push(frame) {
                    Ok(ticket) => {
                        last_ticket = ticket;
                        left = left.slice(size..);
                        accepted += size;
                    }
                    Err(Full(Frame::Resize(size))) => {
                        resize = Some(Frame::Resize(size));
                        break true;
                    }
                    Err(Full(Frame::Bytes(_))) => break true,
                }
            };
            if !full && shell.input.sent() >= last_ticket {
                shell.active.touch(self.clock.now());
                return Ok(accepted);
            }
            if !shell.is_running() {
                return Err(WriteError::Closed { accepted });
            }
            tokio::select! {
                () = watch.changed() => {}
                () = ended.changed() => {}
                () = tokio::time::sleep(STUCK) => return Err(WriteError::Stuck { accepted }),
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
        let wanted = from.saturating_add(min);
        self.await_shell(
            shell,
            patience,
            |mark| (mark.end >= wanted).then_some(ShellWait::Bytes),
            ShellWait::Ended,
        )
        .await
        .unwrap_or(ShellWait::Patience)
    }

    /// Waits until output has come behind `from` and then none for `quiet`, as a casual observer.
    pub async fn await_shell_quiet(
        self: &Arc<Self>,
        shell: &Arc<Shell>,
        from: u64,
        patience: Duration,
        quiet: Duration,
    ) -> ShellWait {
        let _observer = self.observe(Observable::Shell(shell));
        let deadline = self.clock.now() + patience;
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
        let longest = patterns.iter().map(String::len).max().unwrap_or_default();
        let mut seen = from;
        let look = |_: Mark| {
            // What was searched before is searched again as far as a pattern may straddle the border: its own
            // length, and room for the escape sequences between its characters.
            let start = seen.saturating_sub((longest * 8 + 256) as u64).max(from);
            let window = shell.history.read(start, usize::MAX);
            seen = window.next;
            first_match(&window.bytes, patterns)
                .map(|(pattern, end)| ShellMatch::Matched { pattern, end: window.start + end as u64 })
        };
        self.await_shell(shell, patience, look, ShellMatch::Ended).await.unwrap_or(ShellMatch::Patience)
    }

    /// Looks at each change until the look finds something, the shell has ended, or the patience is over.
    async fn await_shell<T>(
        self: &Arc<Self>,
        shell: &Arc<Shell>,
        patience: Duration,
        mut look: impl FnMut(Mark) -> Option<T>,
        ended: T,
    ) -> Option<T> {
        let _observer = self.observe(Observable::Shell(shell));
        let mut watch = shell.history.watch();
        let deadline = pin!(self.clock.sleep_until(self.clock.now().saturating_add(patience)));
        let mut deadline = deadline;
        loop {
            let mark = shell.history.mark();
            if let Some(found) = look(mark) {
                return Some(found);
            }
            if mark.ended {
                return Some(ended);
            }
            tokio::select! {
                () = watch.changed() => {}
                () = &mut deadline => return None,
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
        _ = tokio::time::timeout(patience, self.shell_ended(shell)).await;
        match close {
            Close::Won => CloseShell::Done,
            Close::Lost => CloseShell::AlreadyClosed,
        }
    }

    /// Resolves when the end is recorded.
    pub(crate) async fn shell_ended(&self, shell: &Shell) {
        let mut watch = shell.history.watch();
        while shell.ending.get().is_none() {
            watch.changed().await;
        }
    }
}

/// The first of the patterns in the bytes, raw or without escape sequences, and the place just behind it.
fn first_match(bytes: &[u8], patterns: &[String]) -> Option<(usize, usize)> {
    let plain = text::strip_escapes_mapped(bytes);
    let plain_bytes: Vec<u8> = plain.iter().map(|(_, byte)| *byte).collect();
    let found = patterns.iter().enumerate().filter_map(|(n, pattern)| {
        let raw = find(bytes, pattern.as_bytes());
        let stripped = find(&plain_bytes, pattern.as_bytes())
            .and_then(|end| plain.get(end.checked_sub(1)?))
            .map(|(at, _)| at + 1);
        raw.into_iter().chain(stripped).min().map(|end| (end, n))
    });
    found.min().map(|(end, n)| (n, end))
}

/// The place just behind the first occurrence.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len().max(1)).position(|window| window == needle).map(|at| at + needle.len())
}

/// The writing task of a shell: starts it, then sends its input piece by piece.
async fn write(shell: Arc<Shell>, control: Arc<dyn ChannelControl>, start: Start) {
    if control.start(start).await.is_err() {
        return;
    }
    loop {
        while let Some(frame) = shell.input.pop() {
            let sent = match frame {
                Frame::Bytes(bytes) => control.send(bytes).await,
                Frame::Resize(size) => {
                    shell.resized(size);
                    control.resize(size).await
                }
            };
            if sent.is_err() {
                return;
            }
            shell.input.note_sent();
        }
        let mut ended = shell.history.watch();
        if !shell.is_running() {
            return;
        }
        tokio::select! {
            () = shell.input.filled.notified() => {}
            () = ended.changed() => {}
        }
    }
}

/// What the reading task was woken by.
enum Event {
    Channel(ChannelEvent),
    Stopped,
    Deadline,
}

/// The reading task of a shell: the only one that appends to its history and records its end.
async fn run(engine: Arc<Engine>, session: Arc<Session>, shell: Arc<Shell>, mut channel: Channel) {
    let mut exit = None;
    let mut order: Option<(Reason, Manner)> = None;
    let mut deadline = pin!(tokio::time::sleep(Duration::ZERO));
    let mut armed = false;
    let reason = loop {
        let event = tokio::select! {
            biased;
            () = shell.stopped.notified(), if order.is_none() => Event::Stopped,
            () = deadline.as_mut(), if armed => Event::Deadline,
            event = poll_fn(|cx| channel.events.poll_event(cx)) => Event::Channel(event),
        };
        match event {
            Event::Stopped => {
                order = shell.stop_order();
                let (signal, patience) = match order {
                    Some((_, Manner::Kill)) => (Signal::Kill, KILL),
                    Some((_, Manner::HangUp)) | None => (Signal::Hup, HANG_UP),
                };
                let request = channel.control.signal(signal);
                engine.tasks.spawn(async move {
                    _ = request.await;
                });
                deadline.as_mut().reset(tokio::time::Instant::now() + patience);
                armed = true;
            }
            // Closing the channel takes the terminal away, which the kernel tells the foreground processes.
            Event::Deadline => {
                let close = channel.control.close();
                engine.tasks.spawn(close);
                break Reason::RemoteClosed;
            }
            Event::Channel(ChannelEvent::Data(origin, bytes)) => {
                shell.history.append(origin, &bytes);
                let now = engine.clock.now();
                shell.active.touch(now);
                session.active.touch(now);
            }
            Event::Channel(ChannelEvent::Started | ChannelEvent::Eof) => {}
            Event::Channel(ChannelEvent::ExitStatus(status)) => {
                exit = Some(Exit::Status(status));
                // What the shell left in the background may hold the terminal.
                deadline.as_mut().reset(tokio::time::Instant::now() + Duration::from_millis(500));
                armed = true;
            }
            Event::Channel(ChannelEvent::ExitSignal { name }) => {
                exit = Some(Exit::Signal(name));
                deadline.as_mut().reset(tokio::time::Instant::now() + Duration::from_millis(500));
                armed = true;
            }
            Event::Channel(ChannelEvent::Refused { .. }) => break Reason::Failed,
            Event::Channel(ChannelEvent::Closed) => break Reason::RemoteClosed,
            Event::Channel(ChannelEvent::Lost(_)) => break Reason::ConnectionLost,
        }
    };
    // The natural end competes with a stop that came in this very moment; the winner's reason counts.
    let reason = match shell.life.close() {
        Close::Won => reason,
        Close::Lost => shell.stop_order().map_or(reason, |(reason, _)| reason),
    };
    let now = engine.clock.now();
    _ = shell.ending.record(End { reason, facts: exit, at: now });
    session.active.touch(now);
    shell.let_go();
    shell.history.finish();
    tracing::info!(
        target: target_names::MAIN,
        shell_id = %shell.spec.id,
        session_id = %session.spec.id,
        %reason,
        duration_ms = (now - shell.spec.opened).as_millis() as u64,
        "shell closed"
    );
}

/// Whether a retained shell ended by itself, so that it is kept for long.
pub(crate) fn ended_by_itself(shell: &Shell) -> bool {
    shell.ended().is_some_and(|(reason, _)| {
        matches!(reason, Reason::Completed | Reason::Failed | Reason::RemoteClosed | Reason::ConnectionLost)
    })
}
