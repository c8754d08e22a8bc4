//! The line of a forward: a connection made as the session's was, which carries that forward and nothing else.
//!
//! Over jump hosts it has connections of its own all the way: an unread channel holds up everything below it.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::ChannelOpenFailure;
use russh::client::Msg;
use ssh_mcp_core::kind::forward::socks::Outcome;
use ssh_mcp_core::port::BoxFuture;
use ssh_mcp_core::port::forward::{Arrival, DialError, Line, LineError, ListenError};
use ssh_mcp_core::port::ssh::{Channel, LinkLost};
use ssh_mcp_core::target::{Address, Lendings};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::channel;
use crate::connection::Connection;
use crate::guests::{Door, Guest, Guests};
use crate::hops::Leg;
use crate::pool::Seat;
use crate::tasks::Tasks;

/// One line.
pub(crate) struct RusshLine {
    connection: Arc<Connection>,
    /// What it runs through, the nearest first.
    below: Vec<Arc<Connection>>,
    door: Door,
    guests: Mutex<mpsc::Receiver<Guest>>,
    /// What the server was asked to listen on, and the port it took.
    listener: Mutex<Option<(Address, u32)>>,
    tasks: Tasks,
}

impl RusshLine {
    /// Goes all the way again. Dropping the future ends what was opened.
    pub(crate) async fn open(leg: &Leg, below: &[Leg]) -> Result<Self, LineError> {
        if !below.iter().chain([leg]).all(Leg::repeats) {
            return Err(LineError::NotAgain);
        }
        let mut jumps: Vec<Arc<Connection>> = Vec::new();
        for jump in below {
            let last = jumps.last().map(Arc::as_ref);
            let connection = jump.again_over(last, None).await.map_err(LineError::Connect)?;
            jumps.push(Arc::new(connection));
        }
        let (guests, door, waiting) = Guests::new();
        let last = jumps.last().map(Arc::as_ref);
        let connection = leg.again_over(last, Some(guests)).await.map_err(LineError::Connect)?;
        Ok(Self {
            connection: Arc::new(connection),
            below: jumps,
            door,
            guests: Mutex::new(waiting),
            listener: Mutex::new(None),
            tasks: Tasks::new(),
        })
    }

    /// The next guest that came to the listener. Others are turned away: their drop says so to the server.
    async fn guest(&self) -> Option<Guest> {
        loop {
            let next = poll_fn(|cx| self.guests.lock().unwrap_or_else(PoisonError::into_inner).poll_recv(cx));
            let guest = next.await?;
            let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
            if listener.as_ref().is_some_and(|(_, port)| *port == guest.port) {
                return Some(guest);
            }
        }
    }
}

impl Line for RusshLine {
    fn dial(&self, to: &Address, origin: &Address) -> BoxFuture<'_, Result<Channel, DialError>> {
        let (to, origin) = (to.clone(), origin.clone());
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let (connection, tasks) = (Arc::clone(&self.connection), self.tasks.clone());
            self.tasks.spawn(async move {
                let dialled = dial(&connection, &to, &origin).await;
                // A channel that nobody takes any more is closed by its drop.
                drop(answer.send(dialled.map(|opened| wrap(opened, connection, tasks))));
            });
            // The task goes away unanswered only when the line ends.
            answered.await.unwrap_or_else(|_| Err(DialError::Lost(self.connection.watch.loss())))
        })
    }

    fn listen(&self, at: &Address) -> BoxFuture<'_, Result<u16, ListenError>> {
        let at = at.clone();
        Box::pin(async move {
            // A guest may stand there before we have heard that the server listens.
            self.door.open();
            match self.connection.handle.tcpip_forward(at.host.clone(), at.port.into()).await {
                Ok(port) => {
                    // Only who left the choice to the server is told.
                    let port = if at.port == 0 { u16::try_from(port).unwrap_or_default() } else { at.port };
                    let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
                    *listener = Some((at, port.into()));
                    Ok(port)
                }
                Err(russh::Error::RequestDenied) => {
                    self.door.shut();
                    Err(ListenError::Refused { at })
                }
                Err(_) => Err(ListenError::Lost(self.connection.watch.gone().await)),
            }
        })
    }

    fn arrival(&self) -> BoxFuture<'_, Result<Box<dyn Arrival>, LinkLost>> {
        Box::pin(async move {
            match self.guest().await {
                Some(guest) => Ok(Box::new(Knocking {
                    guest,
                    connection: Arc::clone(&self.connection),
                    tasks: self.tasks.clone(),
                }) as Box<dyn Arrival>),
                // russh's task held the other end.
                None => Err(self.connection.watch.gone().await),
            }
        })
    }

    fn unlisten(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.door.shut();
            let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some((at, port)) = listener {
                // A server that does not answer is asked no more: it stops when the line ends.
                let cancel = self.connection.handle.cancel_tcpip_forward(at.host, port);
                let _ = timeout(LAST_WORDS, cancel).await;
            }
            let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
            while guests.try_recv().is_ok() {}
        })
    }

    fn moves(&self) -> BoxFuture<'_, Result<(), LinkLost>> {
        Box::pin(async move { self.connection.ping().await.map(drop) })
    }

    fn lost(&self) -> BoxFuture<'_, LinkLost> {
        Box::pin(self.connection.watch.gone())
    }

    fn disconnect(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.tasks.stop();
            self.connection.disconnect().await;
            for jump in self.below.iter().rev() {
                jump.disconnect().await;
            }
            self.tasks.ended().await;
        })
    }
}

impl Drop for RusshLine {
    fn drop(&mut self) {
        self.tasks.stop();
        self.connection.watch.end_with("the line was dropped");
        self.connection.cut();
        self.below.iter().rev().for_each(|jump| jump.cut());
    }
}

/// A guest at the door.
struct Knocking {
    guest: Guest,
    connection: Arc<Connection>,
    tasks: Tasks,
}

impl Arrival for Knocking {
    fn origin(&self) -> Address {
        self.guest.origin.clone()
    }

    fn accept(self: Box<Self>) -> BoxFuture<'static, Channel> {
        Box::pin(async move {
            let Self { guest, connection, tasks } = *self;
            guest.reply.accept().await;
            wrap(guest.channel, connection, tasks)
        })
    }

    fn reject(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.guest.reply.reject(ChannelOpenFailure::ConnectFailed).await })
    }
}

fn wrap(opened: russh::Channel<Msg>, connection: Arc<Connection>, tasks: Tasks) -> Channel {
    channel::wrap(opened, connection, Seat::uncounted(), Arc::new(Lendings::default()), tasks)
}

async fn dial(
    connection: &Connection,
    to: &Address,
    origin: &Address,
) -> Result<russh::Channel<Msg>, DialError> {
    let opening = connection.handle.channel_open_direct_tcpip(
        &to.host,
        to.port.into(),
        &origin.host,
        origin.port.into(),
    );
    let failure = match opening.await {
        Ok(opened) => return Ok(opened),
        Err(failure) => failure,
    };
    let russh::Error::ChannelOpenFailure(reason) = failure else {
        return Err(DialError::Lost(connection.watch.gone().await));
    };
    let cause = connection.watch.last_refusal().unwrap_or_else(|| format!("{reason:?}"));
    let outcome = outcome(reason, &cause);
    Err(DialError::Refused { cause, outcome })
}

/// What a SOCKS client is told. The protocol has one word for all that goes wrong behind the server, so its text, which
/// is that of the server's system, has to do.
fn outcome(reason: ChannelOpenFailure, words: &str) -> Outcome {
    let words = words.to_lowercase();
    match reason {
        ChannelOpenFailure::AdministrativelyProhibited => Outcome::Prohibited,
        ChannelOpenFailure::ConnectFailed if words.contains("refused") => Outcome::ConnectionRefused,
        ChannelOpenFailure::ConnectFailed if words.contains("network is unreachable") => {
            Outcome::NetworkUnreachable
        }
        ChannelOpenFailure::ConnectFailed => Outcome::HostUnreachable,
        ChannelOpenFailure::UnknownChannelType
        | ChannelOpenFailure::ResourceShortage
        | ChannelOpenFailure::Other { .. } => Outcome::Failed,
    }
}

/// How long the server may take to stop listening.
const LAST_WORDS: Duration = Duration::from_millis(500);
