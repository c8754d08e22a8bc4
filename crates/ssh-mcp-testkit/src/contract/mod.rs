//! What every implementation of a port must do.
//!
//! Each suite is a set of functions over a rig: the fake mounts them in the testkit's own tests, the real adapter in its
//! `tests/contract.rs`. A promise that only one of them keeps is not part of the port.

pub mod serial;
pub mod ssh;
pub mod transcript;
