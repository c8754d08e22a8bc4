//! The rules of a forward that need no socket: which side listens, what a SOCKS client wants, for whom how much is held
//! back, what is told of its connections (`docs/forwards.md`).

mod patience;
pub mod socks;
mod traffic;

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests;

use std::{fmt, net::IpAddr};

use serde::Serialize;

pub use patience::{HELD_AT_MOST, Patience, allowance};
pub use traffic::{Carried, Counts, Event, KEPT, Logged, Parting, Peer, Stop, Target, Traffic, Trouble, Why};

use crate::target::Address;

/// Which side listens, and where each connection goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passage {
    /// This side listens; the SSH server goes on to one place.
    Local {
        /// Where connections come in.
        listen: Address,
        /// Where they go, as the server reaches it.
        to: Address,
    },
    /// The SSH server listens; this side goes on to one place.
    Remote {
        /// Where connections come in, on the server.
        listen: Address,
        /// Where they go, as this side reaches it.
        to: Address,
    },
    /// This side listens; each client says by SOCKS where the SSH server is to go on to.
    Dynamic {
        /// Where connections come in.
        listen: Address,
    },
}

/// A passage in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Facing {
    /// [`Passage::Local`]
    Local,
    /// [`Passage::Remote`]
    Remote,
    /// [`Passage::Dynamic`]
    Dynamic,
}

impl Facing {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Dynamic => "dynamic",
        }
    }
}

impl Passage {
    /// In one word.
    pub fn facing(&self) -> Facing {
        match self {
            Self::Local { .. } => Facing::Local,
            Self::Remote { .. } => Facing::Remote,
            Self::Dynamic { .. } => Facing::Dynamic,
        }
    }

    /// Where connections come in.
    pub fn listen(&self) -> &Address {
        match self {
            Self::Local { listen, .. } | Self::Remote { listen, .. } | Self::Dynamic { listen } => listen,
        }
    }

    /// Where they go, if that is one place.
    pub fn to(&self) -> Option<&Address> {
        match self {
            Self::Local { to, .. } | Self::Remote { to, .. } => Some(to),
            Self::Dynamic { .. } => None,
        }
    }

    /// The port of this machine that belongs to it: the one it listens on, or for a remote one the one it goes to.
    pub fn local_port(&self) -> u16 {
        match self {
            Self::Local { listen, .. } | Self::Dynamic { listen } => listen.port,
            Self::Remote { to, .. } => to.port,
        }
    }

    /// The same, listening on the port that was really taken.
    pub fn on_port(mut self, port: u16) -> Self {
        match &mut self {
            Self::Local { listen, .. } | Self::Remote { listen, .. } | Self::Dynamic { listen } => {
                listen.port = port;
            }
        }
        self
    }
}

/// `127.0.0.1:8080 to db:5432`, with the side that listens.
impl fmt::Display for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { listen, to } => write!(f, "{listen} to {to}"),
            Self::Remote { listen, to } => write!(f, "{listen} on the server to {to} here"),
            Self::Dynamic { listen } => write!(f, "{listen} by SOCKS"),
        }
    }
}

/// Whether others than this machine reach a listener on that address. What is no address and not `localhost` is taken
/// for exposed: who listens there is asked.
pub fn is_exposed(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => !address.is_loopback(),
        Err(_) => !host.eq_ignore_ascii_case(LOCALHOST),
    }
}

/// The name that stands for the loopback addresses of both families.
pub const LOCALHOST: &str = "localhost";
