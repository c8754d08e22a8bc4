//! Histories: what a resource has produced, kept in bounds and read by position (`docs/lifecycle.md` 6.1 to 6.10).
//!
//! Three classes: bytes of a stream ([`ByteHistory`]), events of a log ([`LogHistory`]), one snapshot that changes
//! ([`StateHistory`]). Positions are absolute and never renumbered: `base` is the oldest one held, `end` is one past
//! the newest, and dropping old data only raises `base`. A history is owned by its resource's entry; one task
//! appends, anybody reads by reference, and nobody who reads delays the one who appends.
//!
//! *Invariant:* what a wake-up announces is visible before the wake-up; a reader that sees the end recorded can read
//! everything that came before it.
//!
//! Who reads from where, in which pieces and how they are shown is not here.

mod log;
mod ring;
mod segment;
mod state;

#[cfg(test)]
#[cfg(ssh_mcp_loom)]
mod loom;
#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests;

use std::fmt;

pub use log::{Keep, LogHistory, LogWindow};
pub use ring::{ByteHistory, Floor, Tail, Window};
pub use segment::{Origin, View};
pub use state::{StateHistory, Stated};

use crate::watch::Watch;

/// Where a history stands, all of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Oldest position held. A state has one position: its sequence number.
    pub base: u64,
    /// One past the newest position.
    pub end: u64,
    /// Chunks, events or changes recorded so far.
    pub seq: u64,
    /// Whether the end of the resource has been recorded.
    pub ended: bool,
}

/// What all classes have in common: a mark that moves, and waiters that hear of it.
pub trait Marked: Send + Sync {
    /// Where it stands.
    fn mark(&self) -> Mark;

    /// A waiter that is woken by each change, and by the end.
    fn watch(&self) -> Watch;
}

/// The history of any resource, by class: bytes are read as ranges, logs and states through their own kind.
#[derive(Clone, Copy)]
pub enum History<'a> {
    /// Shells, commands, serial ports.
    Bytes(&'a ByteHistory),
    /// Forwards, syncs.
    Log(&'a dyn Marked),
    /// Transfers, sessions.
    State(&'a dyn Marked),
}

impl History<'_> {
    /// Where it stands.
    pub fn mark(&self) -> Mark {
        match self {
            History::Bytes(bytes) => bytes.mark(),
            History::Log(marked) | History::State(marked) => marked.mark(),
        }
    }

    /// A waiter that is woken by each change, and by the end.
    pub fn watch(&self) -> Watch {
        match self {
            History::Bytes(bytes) => bytes.watch(),
            History::Log(marked) | History::State(marked) => marked.watch(),
        }
    }
}

impl fmt::Debug for History<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = match self {
            History::Bytes(_) => "Bytes",
            History::Log(_) => "Log",
            History::State(_) => "State",
        };
        f.debug_tuple(class).field(&self.mark()).finish()
    }
}
