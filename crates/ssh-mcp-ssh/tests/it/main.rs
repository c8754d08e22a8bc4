//! The adapter through its outer face: the contract of its port, and a real OpenSSH.

// `cfg(test)` on each module tells clippy that helpers may unwrap as tests do.
#[cfg(test)]
mod contract;
#[cfg(test)]
mod lending;
#[cfg(test)]
mod openssh;
#[cfg(test)]
mod questions;
#[cfg(test)]
mod secrets;
#[cfg(test)]
#[path = "../../../../tests/sshd/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the fixture serves the tests of the whole product")]
mod sshd;
