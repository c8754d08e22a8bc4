//! One session channel as the port has it, around russh's, whose habits it makes up for:
//!
//! - russh's channel sends nothing when it is dropped; this one closes.
//! - After our own close russh never reports anything; here the events end with `Closed`.
//! - `Success` and `Failure` carry no name; they are counted against the requests that were sent.
//! - A send that is dropped half-way may have taken window for bytes that never leave; what has its window is sent.
//!
//! The reading half polls russh's buffer directly, without a task of its own.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use ssh_mcp_core::history::Origin;
use ssh_mcp_core::port::BoxFuture;
use ssh_mcp_core::port::ssh::{
    Channel, ChannelControl, ChannelEvent, ChannelEvents, ChannelGone, Pty, PtySize, Signal, Start,
};
use ssh_mcp_core::target::Lendings;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::connection::Connection;
use crate::pool::Seat;
use crate::tasks::Tasks;

/// The port's channel around russh's.
pub(crate) fn wrap(
    opened: russh::Channel<Msg>,
    connection: Arc<Connection>,
    seat: Seat,
    lendings: Arc<Lendings>,
    tasks: Tasks,
) -> Channel {
    let (read, write) = opened.split();
    let shared = Arc::new(Shared {
        write: Arc::new(write),
        connection,
        lendings,
        tasks,
        over: CancellationToken::new(),
        seat: Mutex::new(Some(seat)),
        awaited: Mutex::new(VecDeque::new()),
    });
    let over = Box::pin(shared.over.clone().cancelled_owned());
    let events = Events { read, shared: Arc::clone(&shared), over, ended: Ended::No };
    Channel { events: Box::new(events), control: Arc::new(Control { shared }) }
}

/// Both halves hold it; its drop closes the channel.
struct Shared {
    write: Arc<ChannelWriteHalf<Msg>>,
    connection: Arc<Connection>,
    /// What a program is given.
    lendings: Arc<Lendings>,
    tasks: Tasks,
    /// Set once, when either side has closed the channel or the connection is gone.
    over: CancellationToken,
    /// Here until the server has seen the end of the channel.
    seat: Mutex<Option<Seat>>,
    /// Requests whose answers are still to come, oldest first.
    awaited: Mutex<VecDeque<&'static str>>,
}

impl Shared {
    /// The server has closed; russh has answered it.
    fn on_closed(&self) {
        self.over.cancel();
        if let Some(seat) = self.take_seat()
            && let Some(seat) = seat.closed_by_server()
        {
            let connection = Arc::clone(&self.connection);
            self.tasks.spawn(async move { confirm(&connection, seat).await });
        }
    }

    /// Closes from our side, once.
    fn close(&self) {
        self.over.cancel();
        let Some(seat) = self.take_seat() else { return };
        seat.closed_by_us();
        let (write, connection) = (Arc::clone(&self.write), Arc::clone(&self.connection));
        self.tasks.spawn(async move {
            if write.close().await.is_ok() && seat.is_counted() {
                confirm(&connection, seat).await;
            }
        });
    }

    fn take_seat(&self) -> Option<Seat> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn await_answer(&self, request: &'static str) {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner).push_back(request);
    }

    fn answered(&self) -> Option<&'static str> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn check(&self) -> Result<(), ChannelGone> {
        if self.over.is_cancelled() { Err(ChannelGone) } else { Ok(()) }
    }
}

/// russh does not tell when the server has closed in turn; an answer to a ping behind the close tells that it was read.
async fn confirm(connection: &Connection, seat: Seat) {
    if connection.ping().await.is_ok() {
        seat.close_confirmed();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

/// The reading half.
struct Events {
    read: ChannelReadHalf,
    shared: Arc<Shared>,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: Ended,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    No,
    Yes,
}

impl ChannelEvents for Events {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ChannelEvent> {
        if self.ended == Ended::Yes {
            return Poll::Pending;
        }
        loop {
            // A fresh future each time: a queue keeps the waker, so nothing is lost when it goes.
            match pin!(self.read.wait()).poll(cx) {
                Poll::Ready(Some(message)) => {
                    let Some(event) = translate(message, &self.shared) else { continue };
                    if event == ChannelEvent::Closed {
                        self.ended = Ended::Yes;
                        self.shared.on_closed();
                    }
                    return Poll::Ready(event);
                }
                Poll::Ready(None) => {
                    self.ended = Ended::Yes;
                    self.shared.over.cancel();
                    // russh drops its channels last, so the cause stands already.
                    return Poll::Ready(ChannelEvent::Lost(self.shared.connection.watch.loss()));
                }
                Poll::Pending => {}
            }
            if self.over.as_mut().poll(cx).is_ready() {
                self.ended = Ended::Yes;
                return Poll::Ready(ChannelEvent::Closed);
            }
            return Poll::Pending;
        }
    }
}

/// What a message of russh means; `None` for those that mean nothing here.
fn translate(message: ChannelMsg, shared: &Shared) -> Option<ChannelEvent> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum, and half of it is the server's side")]
    match message {
        ChannelMsg::Data { data } => Some(ChannelEvent::Data(Origin::Stdout, data)),
        ChannelMsg::ExtendedData { data, .. } => Some(ChannelEvent::Data(Origin::Stderr, data)),
        ChannelMsg::Eof => Some(ChannelEvent::Eof),
        ChannelMsg::Close => Some(ChannelEvent::Closed),
        ChannelMsg::ExitStatus { exit_status } => Some(ChannelEvent::ExitStatus(exit_status)),
        ChannelMsg::ExitSignal { signal_name, .. } => {
            Some(ChannelEvent::ExitSignal { name: signal_text(&signal_name).to_owned() })
        }
        ChannelMsg::Success => match shared.answered() {
            // A terminal alone is no program yet.
            Some(PTY_REQUEST) | None => None,
            Some(_) => Some(ChannelEvent::Started),
        },
        ChannelMsg::Failure => shared.answered().map(|request| ChannelEvent::Refused { request }),
        _ => None,
    }
}

fn signal_text(signal: &Sig) -> &str {
    match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => name,
    }
}

/// What is asked for, apart from its terminal.
enum Program {
    Command(String),
    LoginShell,
    Subsystem(&'static str),
}

/// The asking half.
struct Control {
    shared: Arc<Shared>,
}

impl ChannelControl for Control {
    fn start(&self, start: Start) -> BoxFuture<'static, Result<(), ChannelGone>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            shared.check()?;
            let (pty, program) = match start {
                Start::Exec { command, pty } => (pty, Program::Command(command)),
                Start::Shell { pty } => (Some(pty), Program::LoginShell),
                Start::Subsystem(name) => (None, Program::Subsystem(name)),
            };
            // Everything is sent before anything is answered: one round trip in all. What is lent is asked for without an
            // answer, because a program runs as well without it.
            let Lendings { variables, agent } = &*shared.lendings;
            if agent.is_some() {
                shared.write.agent_forward(false).await.map_err(|_| ChannelGone)?;
            }
            for (name, value) in variables {
                shared.write.set_env(false, name, value).await.map_err(|_| ChannelGone)?;
            }
            if let Some(Pty { term, size }) = pty {
                shared.await_answer(PTY_REQUEST);
                let asked = shared.write.request_pty(true, &term, size.cols, size.rows, 0, 0, &[]);
                asked.await.map_err(|_| ChannelGone)?;
            }
            let asked = match program {
                Program::Command(command) => {
                    shared.await_answer("exec");
                    shared.write.exec(true, command).await
                }
                Program::LoginShell => {
                    shared.await_answer("shell");
                    shared.write.request_shell(true).await
                }
                Program::Subsystem(name) => {
                    shared.await_answer("subsystem");
                    shared.write.request_subsystem(true, name).await
                }
            };
            asked.map_err(|_| ChannelGone)
        })
    }

    fn send(&self, bytes: Bytes) -> BoxFuture<'static, Result<(), ChannelGone>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let mut rest = bytes;
            while !rest.is_empty() {
                shared.check()?;
                let piece = rest.split_to(rest.len().min(PIECE));
                let sending = Sending::new(&shared, piece);
                tokio::select! {
                    biased;
                    sent = sending => sent?,
                    () = shared.over.cancelled() => return Err(ChannelGone),
                }
            }
            Ok(())
        })
    }

    fn finish_input(&self) -> BoxFuture<'static, Result<(), ChannelGone>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            shared.check()?;
            shared.write.eof().await.map_err(|_| ChannelGone)
        })
    }

    fn signal(&self, signal: Signal) -> BoxFuture<'static, Result<(), ChannelGone>> {
        let shared = Arc::clone(&self.shared);
        let signal = match signal {
            Signal::Hup => Sig::HUP,
            Signal::Term => Sig::TERM,
            Signal::Kill => Sig::KILL,
        };
        Box::pin(async move {
            shared.check()?;
            shared.write.signal(signal).await.map_err(|_| ChannelGone)
        })
    }

    fn resize(&self, size: PtySize) -> BoxFuture<'static, Result<(), ChannelGone>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            shared.check()?;
            shared.write.window_change(size.cols, size.rows, 0, 0).await.map_err(|_| ChannelGone)
        })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.close() })
    }
}

/// Sends one piece, and may be dropped at any time.
///
/// russh first takes window for the piece and then waits for room in the queue of its task. Dropped between the two, the
/// window would be lost for good, so from there on the piece is sent by a task of the link.
struct Sending {
    step: Option<BoxFuture<'static, Result<(), russh::Error>>>,
    write: Arc<ChannelWriteHalf<Msg>>,
    tasks: Tasks,
    waits_for: WaitsFor,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    Window,
    Queue,
}

impl Sending {
    fn new(shared: &Shared, piece: Bytes) -> Self {
        let write = Arc::clone(&shared.write);
        let step = {
            let write = Arc::clone(&write);
            Box::pin(async move { write.data_bytes(piece).await })
        };
        Self { step: Some(step), write, tasks: shared.tasks.clone(), waits_for: WaitsFor::Window }
    }

    /// Whether the far side has granted window that nobody has taken.
    fn has_window(&self, cx: &mut Context<'_>) -> bool {
        matches!(pin!(self.write.writable_packet_size()).poll(cx), Poll::Ready(size) if size > 0)
    }
}

impl Future for Sending {
    type Output = Result<(), ChannelGone>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Window that is there now is taken by the poll below: this channel has one sender at a time.
        let had_window = self.waits_for == WaitsFor::Queue || self.has_window(cx);
        let Some(step) = self.step.as_mut() else { return Poll::Pending };
        match step.as_mut().poll(cx) {
            Poll::Ready(sent) => {
                self.step = None;
                Poll::Ready(sent.map_err(|_| ChannelGone))
            }
            Poll::Pending => {
                self.waits_for = if had_window { WaitsFor::Queue } else { WaitsFor::Window };
                Poll::Pending
            }
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if self.waits_for == WaitsFor::Queue
            && let Some(step) = self.step.take()
        {
            self.tasks.spawn(async move {
                // The connection is gone if this fails; the channel's events say so.
                let _ = step.await;
            });
        }
    }
}

const PTY_REQUEST: &str = "pty-req";

/// russh's packets carry at most so much; a piece is the unit in which a send can be given up.
const PIECE: usize = 32 * 1024;
