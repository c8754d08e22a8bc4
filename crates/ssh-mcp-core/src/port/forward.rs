//! A line: the connection to a host that carries one forward and nothing else.
//!
//! A channel that is not read holds up everything on its connection, and so a pause of one consumer would. On a line that
//! is meant: it is the only way to have a consumer waited for. Whom that harms is up to the line's owner.

use std::time::Duration;

use super::{
    BoxFuture,
    ssh::{Channel, ConnectError, LinkLost},
};
use crate::{kind::forward::socks::Outcome, target::Address};

/// A connection of its own to the host of a session, made the same way. Dropping it ends it.
///
/// Its channels carry bytes only: nothing is started on them, and they report data, end of file and close. Of an open
/// one the reading half may rest, which holds up the others.
pub trait Line: Send + Sync {
    /// Has the server open a connection to a place, for somebody from `origin` (RFC 4254, 7.2). Dropping the future leaves
    /// no channel behind.
    fn dial(&self, to: &Address, origin: &Address) -> BoxFuture<'_, Result<Channel, DialError>>;

    /// Has the server listen, on any port if that is 0; the answer is the port. Asked once.
    fn listen(&self, at: &Address) -> BoxFuture<'_, Result<u16, ListenError>>;

    /// The next connection that came to the server's listener; for one caller at a time. Dropping the future loses none.
    fn arrival(&self) -> BoxFuture<'_, Result<Box<dyn Arrival>, LinkLost>>;

    /// Has the server listen no more; what comes from then on is turned away.
    fn unlisten(&self) -> BoxFuture<'_, ()>;

    /// Ends when everything that was under way on the line at its beginning has been read: at once, unless a channel holds
    /// it up.
    fn moves(&self) -> BoxFuture<'_, Result<(), LinkLost>>;

    /// Resolves when the line is gone, with the cause.
    fn lost(&self) -> BoxFuture<'_, LinkLost>;

    /// Ends it, within a second. Channels still open end with [`ChannelEvent::Lost`](super::ssh::ChannelEvent::Lost).
    fn disconnect(&self) -> BoxFuture<'_, ()>;
}

/// A connection that came to the server's listener and waits to be let in. Dropping it turns it away.
pub trait Arrival: Send {
    /// From where it came, as the server says.
    fn origin(&self) -> Address;

    /// Lets it in.
    fn accept(self: Box<Self>) -> BoxFuture<'static, Channel>;

    /// Turns it away because its target cannot be reached.
    fn reject(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// Why there is no line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// What let the session in works once: codes, confirmations, keys that want to be touched.
    #[error("the login cannot be repeated without you, and a forward needs a connection of its own")]
    NotAgain,
    /// It cannot be made.
    #[error("a connection of its own cannot be opened: {0}")]
    Connect(ConnectError),
    /// It was not there in time.
    #[error("a connection of its own was not there within {} s", .after.as_secs_f32())]
    TimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// The session's connection is gone.
    #[error(transparent)]
    Lost(#[from] LinkLost),
}

/// Why the server does not go on to a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// It refuses, or cannot reach it.
    #[error("{cause}")]
    Refused {
        /// The server's words.
        cause: String,
        /// What a SOCKS client is told.
        outcome: Outcome,
    },
    /// The line is gone.
    #[error(transparent)]
    Lost(#[from] LinkLost),
}

/// Why there is no listener on the server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// It refuses; the protocol has no words for why.
    #[error("the server refuses to listen on {at}")]
    Refused {
        /// Where it was to.
        at: Address,
    },
    /// The line is gone.
    #[error(transparent)]
    Lost(#[from] LinkLost),
}
