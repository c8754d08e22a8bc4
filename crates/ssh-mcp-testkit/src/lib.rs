//! Fakes for the ports of ssh-mcp, the contract suites that keep them honest, and an embedded SSH server.
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`host`] | a scripted machine behind the SSH port, in virtual time |
//! | [`files`] | the files of a machine, in memory |
//! | [`mirror`] | a mirror that plays what a test wrote for it |
//! | [`serial`] | serial devices in memory, of which a test holds the far end |
//! | [`outlet`] | a client that records its notifications, stops reading, goes away |
//! | [`transcripts`] | a disk that is slow or full, and windows on it |
//! | [`contract`] | what every implementation of a port must do, as functions over a rig |
//! | `sshd` | a real SSH server in this process, on loopback (feature `sshd`) |
//!
//! Never shipped: a dev-dependency, and what the quickstart runs against.

pub mod contract;
pub mod files;
pub mod host;
pub mod mirror;
pub mod outlet;
pub mod serial;
#[cfg(feature = "sshd")]
pub mod sshd;
pub mod transcripts;
