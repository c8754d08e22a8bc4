//! Who comes to the listener of a forward on the server (`forwarded-tcpip`, RFC 4254, 7.2).
//!
//! russh's task announces each and goes on at once; whether it is let in is decided by who takes it out of the queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use russh::Channel;
use russh::client::{ChannelOpenHandle, Msg};
use ssh_mcp_core::target::Address;
use tokio::sync::mpsc;

/// A connection that waits to be let in.
pub(crate) struct Guest {
    pub(crate) channel: Channel<Msg>,
    pub(crate) reply: ChannelOpenHandle,
    /// From where it came.
    pub(crate) origin: Address,
    /// The port it came to.
    pub(crate) port: u32,
}

/// The door as russh's task sees it.
pub(crate) struct Guests {
    queue: mpsc::Sender<Guest>,
    door: Door,
}

/// Whether guests are expected at all; clones are the same door.
#[derive(Clone, Default)]
pub(crate) struct Door(Arc<AtomicBool>);

impl Guests {
    /// A door that is shut, and the queue behind it.
    pub(crate) fn new() -> (Self, Door, mpsc::Receiver<Guest>) {
        let (queue, waiting) = mpsc::channel(BACKLOG);
        let door = Door::default();
        (Self { queue, door: door.clone() }, door, waiting)
    }

    /// Puts a guest in the queue; who is not expected, or one too many, is given back.
    pub(crate) fn announce(&self, guest: Guest) -> Result<(), Box<Guest>> {
        if !self.door.0.load(Ordering::Acquire) {
            return Err(Box::new(guest));
        }
        self.queue.try_send(guest).map_err(|refused| Box::new(refused.into_inner()))
    }
}

impl Door {
    /// Guests are expected from now on.
    pub(crate) fn open(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// They are not any more.
    pub(crate) fn shut(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// As many wait as at a listener of this machine.
const BACKLOG: usize = 128;
