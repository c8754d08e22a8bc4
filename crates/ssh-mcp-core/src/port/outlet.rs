//! The outlet: where the messages of a client's lanes go.
//!
//! What they look like on the wire is the outlet's business; when and in which order they come is not.

use super::BoxFuture;
use crate::{id::SubId, lane::Delivery, reason::Reason};

/// The way to one client, or to one of its standing requests. One message at a time.
pub trait Outlet: Send + Sync {
    /// Hands a message over; done when the transport has taken it, which may be long after if its client does not read.
    ///
    /// # Errors
    /// [`OutletClosed`] if no message will ever be taken again.
    fn deliver<'a>(&'a self, message: Message<'a>) -> BoxFuture<'a, Result<(), OutletClosed>>;

    /// Whether no message will ever be taken again, as far as that can be seen.
    fn is_closed(&self) -> bool;
}

/// One message to a client.
#[derive(Debug, Clone, Copy)]
pub enum Message<'a> {
    /// Of a lane.
    Lane {
        /// The lane.
        sub_id: SubId,
        /// Its resource, spelt as the client did.
        uri: &'a str,
        /// What it says.
        delivery: &'a Delivery,
        /// How the resource ended, with a delivery that is an end.
        ending: Option<&'a EndWords>,
    },
    /// The list of the client's resources has changed.
    ListChanged,
}

/// How a resource ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndWords {
    /// Why.
    pub reason: Reason,
    /// The exit code of a command that has one.
    pub exit_code: Option<i64>,
}

/// The client is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client is gone")]
pub struct OutletClosed;
