//! Links and channels of a scripted host.
//!
//! Nothing runs in the background: what is due is found out when the reader of a channel polls it.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use ssh_mcp_core::port::BoxFuture;
use ssh_mcp_core::port::forward::{Line, LineError};
use ssh_mcp_core::port::ssh::{
    Channel, ChannelControl, ChannelError, ChannelEvent, ChannelEvents, ChannelGone, Link, LinkLost, PtySize,
    Signal, Start,
};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use super::line::{ScriptedLine, Shared};
use super::process::{Happening, Next, Process, Terminal};
use super::{Host, Seen};

/// One session on a scripted host.
pub(super) struct ScriptedLink {
    pub(super) session: Arc<Session>,
}

/// What all channels of one link share.
pub(super) struct Session {
    pub(super) host: Arc<Host>,
    pub(super) id: u32,
    /// Rings whenever a channel or the link changes.
    pub(super) changed: Notify,
}

/// A channel as the host's table holds it.
pub(super) struct Entry {
    pub(super) session: u32,
    pub(super) process: Option<Process>,
    /// Closed by either side; a process may live on.
    pub(super) closed: bool,
    reader: Option<Waker>,
}

impl Entry {
    /// A place on the server stays taken until the channel is closed and the process has ended.
    pub(super) fn holds_a_place(&self, now: Instant) -> bool {
        !self.closed || self.process.as_ref().is_some_and(|process| process.is_running(now))
    }

    pub(super) fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Link for ScriptedLink {
    fn open(&self, patience: Duration) -> BoxFuture<'_, Result<Channel, ChannelError>> {
        Box::pin(async move {
            let began = Instant::now();
            loop {
                let changed = self.session.changed.notified();
                let next = match self.session.host.place(self.session.id) {
                    Place::Taken(id) => return Ok(self.session.channel(id)),
                    Place::Refused(cause) => return Err(ChannelError::Refused { cause }),
                    Place::Lost(lost) => return Err(ChannelError::Lost(lost)),
                    Place::None { free_at } => free_at,
                };
                let patient_until = began + patience;
                let until = next.map_or(patient_until, |at| at.min(patient_until));
                // Either way the table is looked at again; only the clock says whether patience is over.
                let _ = tokio::time::timeout_at(until, changed).await;
                if Instant::now() >= patient_until {
                    return Err(ChannelError::NoPlace { waited: patience });
                }
            }
        })
    }

    fn line(&self) -> BoxFuture<'_, Result<Box<dyn Line>, LineError>> {
        Box::pin(async move {
            let host = &self.session.host;
            let time = host.with(|state| state.connect_time);
            tokio::time::sleep(time).await;
            if let Some(error) = host.with(|state| state.line_failures.pop_front()) {
                return Err(error);
            }
            if let Some(lost) = host.lost(self.session.id) {
                return Err(lost.into());
            }
            host.record(Seen::LineOpened);
            let shared = Shared::new(Arc::clone(host));
            host.with(|state| state.lines.push(Arc::downgrade(&shared)));
            Ok(Box::new(ScriptedLine { shared }) as Box<dyn Line>)
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<Duration, LinkLost>> {
        Box::pin(async move {
            let behaviour = self.session.host.with(|state| state.ping);
            if let Some(time) = behaviour {
                tokio::time::sleep(time).await;
                return match self.session.host.lost(self.session.id) {
                    Some(lost) => Err(lost),
                    None => Ok(time),
                };
            }
            Err(self.lost().await)
        })
    }

    fn lost(&self) -> BoxFuture<'_, LinkLost> {
        Box::pin(async move {
            loop {
                let changed = self.session.changed.notified();
                if let Some(lost) = self.session.host.lost(self.session.id) {
                    return lost;
                }
                changed.await;
            }
        })
    }

    fn disconnect(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.session.host.record(Seen::Disconnected);
            self.session.host.lose(self.session.id, "disconnected");
        })
    }
}

impl Drop for ScriptedLink {
    fn drop(&mut self) {
        self.session.host.lose(self.session.id, "the link was dropped");
    }
}

/// What an attempt to open a channel finds.
pub(super) enum Place {
    Taken(u32),
    Refused(String),
    Lost(LinkLost),
    None { free_at: Option<Instant> },
}

impl Session {
    fn channel(self: &Arc<Self>, id: u32) -> Channel {
        let handle = Arc::new(Handle { session: Arc::clone(self), id });
        let control = ScriptedControl { handle: Arc::clone(&handle) };
        Channel {
            events: Box::new(ScriptedEvents { handle, timer: None, over: false }),
            control: Arc::new(control),
        }
    }
}

/// Both halves hold it; the last one to go closes the channel.
struct Handle {
    session: Arc<Session>,
    id: u32,
}

impl Handle {
    fn close(&self) {
        let host = &self.session.host;
        let was_open = host.channel(self.id, |entry| {
            let was_open = !entry.closed;
            entry.closed = true;
            entry.wake();
            was_open
        });
        if was_open {
            host.record(Seen::Closed { channel: self.id });
            self.session.changed.notify_waiters();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

struct ScriptedEvents {
    handle: Arc<Handle>,
    timer: Option<Pin<Box<Sleep>>>,
    over: bool,
}

impl ChannelEvents for ScriptedEvents {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ChannelEvent> {
        if self.over {
            return Poll::Pending;
        }
        let session = &self.handle.session;
        loop {
            let now = Instant::now();
            if let Some(lost) = session.host.lost(session.id) {
                self.over = true;
                return Poll::Ready(ChannelEvent::Lost(lost));
            }
            let (next, closed) = session.host.channel(self.handle.id, |entry| {
                entry.reader = Some(cx.waker().clone());
                (entry.process.as_mut().map_or(Next::Never, |process| process.poll(now)), entry.closed)
            });
            match next {
                Next::Now(Happening::Event(event)) => {
                    if event == ChannelEvent::Closed {
                        self.over = true;
                        session.host.channel(self.handle.id, |entry| entry.closed = true);
                        session.changed.notify_waiters();
                    }
                    return Poll::Ready(event);
                }
                Next::Now(Happening::LoseConnection) => {
                    session.host.lose(session.id, "connection reset by the script");
                }
                Next::At(_) | Next::Never if closed => {
                    self.over = true;
                    return Poll::Ready(ChannelEvent::Closed);
                }
                Next::Never => return Poll::Pending,
                Next::At(at) => {
                    let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
                    if timer.deadline() != at {
                        timer.as_mut().reset(at);
                    }
                    match timer.as_mut().poll(cx) {
                        Poll::Ready(()) => self.timer = None,
                        Poll::Pending => return Poll::Pending,
                    }
                }
            }
        }
    }
}

struct ScriptedControl {
    handle: Arc<Handle>,
}

impl ScriptedControl {
    /// Does something to the channel unless it is closed.
    fn act(
        &self,
        seen: impl FnOnce(u32) -> Seen + Send + 'static,
        act: impl FnOnce(&Host, u32) + Send + 'static,
    ) -> BoxFuture<'static, Result<(), ChannelGone>> {
        let handle = Arc::clone(&self.handle);
        Box::pin(async move {
            handle.check()?;
            let host = &handle.session.host;
            host.record(seen(handle.id));
            act(host, handle.id);
            host.channel(handle.id, Entry::wake);
            // A signal may have ended what somebody waits to send to, or a place may have come free.
            handle.session.changed.notify_waiters();
            Ok(())
        })
    }
}

impl Handle {
    fn check(&self) -> Result<(), ChannelGone> {
        let host = &self.session.host;
        let gone = host.lost(self.session.id).is_some() || host.channel(self.id, |entry| entry.closed);
        if gone { Err(ChannelGone) } else { Ok(()) }
    }
}

impl ChannelControl for ScriptedControl {
    fn start(&self, start: Start) -> BoxFuture<'static, Result<(), ChannelGone>> {
        let seen = start.clone();
        self.act(|channel| Seen::Started { channel, start: seen }, |host, id| host.start(id, start))
    }

    fn send(&self, bytes: Bytes) -> BoxFuture<'static, Result<(), ChannelGone>> {
        let handle = Arc::clone(&self.handle);
        Box::pin(async move {
            loop {
                let changed = handle.session.changed.notified();
                handle.check()?;
                let host = &handle.session.host;
                let is_stuck =
                    |entry: &mut Entry| entry.process.as_ref().is_some_and(Process::takes_no_input);
                if !host.channel(handle.id, is_stuck) {
                    host.record(Seen::Input { channel: handle.id, bytes: bytes.clone() });
                    host.input(handle.id, &bytes);
                    host.channel(handle.id, Entry::wake);
                    return Ok(());
                }
                changed.await;
            }
        })
    }

    fn finish_input(&self) -> BoxFuture<'static, Result<(), ChannelGone>> {
        self.act(
            |channel| Seen::InputFinished { channel },
            |host, id| {
                let now = Instant::now();
                host.channel(id, |entry| {
                    if let Some(process) = &mut entry.process {
                        process.on_input_end(now);
                    }
                });
            },
        )
    }

    fn signal(&self, signal: Signal) -> BoxFuture<'static, Result<(), ChannelGone>> {
        self.act(
            move |channel| Seen::Signal { channel, signal },
            move |host, id| {
                let now = Instant::now();
                host.channel(id, |entry| {
                    if let Some(process) = &mut entry.process {
                        process.on_signal(signal, now);
                    }
                });
            },
        )
    }

    fn resize(&self, size: PtySize) -> BoxFuture<'static, Result<(), ChannelGone>> {
        self.act(move |channel| Seen::Resized { channel, size }, |_, _| {})
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let handle = Arc::clone(&self.handle);
        Box::pin(async move { handle.close() })
    }
}

impl Entry {
    pub(super) fn open(session: u32) -> Self {
        Self { session, process: None, closed: false, reader: None }
    }

    /// Whether `start` asks for a terminal.
    pub(super) fn terminal(start: &Start) -> Terminal {
        match start {
            Start::Exec { pty: None, .. } | Start::Subsystem(_) => Terminal::Pipes,
            Start::Exec { pty: Some(_), .. } | Start::Shell { .. } => Terminal::Pty,
        }
    }
}

/// Sessions by id, for what reaches across them.
pub(super) type Sessions = Vec<Weak<Session>>;
