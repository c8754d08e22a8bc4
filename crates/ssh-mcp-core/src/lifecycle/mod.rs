//! Who lives, who watches, who ends what: the machines of `docs/lifecycle.md`.
//!
//! Read `word` first: the packed word and its one compare-exchange loop. On it stand the life of a resource
//! ([`Lifecycle`], with the write-once [`Ending`] beside it), the life of a session ([`SessionLife`], held by
//! [`SessionRef`] values), and the [`Gate`] that a shutdown shuts.
//!
//! *Invariant:* only the winner of a transition acts, and nobody acts on a state read earlier.

mod gate;
mod resource;
mod session;
mod word;

#[cfg(test)]
#[cfg(ssh_mcp_loom)]
mod loom;
#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests;

pub use gate::{Gate, Pass, Shut};
pub use resource::{
    AutoRelease, Close, End, Ending, Expired, Leak, Lifecycle, Observed, Released, Report, Snapshot, State,
};
pub use session::{
    Confirmed, Disconnect, GivenBack, Reap, SessionLife, SessionRef, SessionSnapshot, SessionState, Taken,
    Touched,
};
pub use word::Epoch;
