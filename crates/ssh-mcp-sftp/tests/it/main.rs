//! The adapter through its outer face, against OpenSSH's own file service and one that misbehaves.

// `cfg(test)` tells clippy that helpers may unwrap as tests do.
#[cfg(test)]
mod conditions;
#[cfg(test)]
mod openssh;
#[cfg(test)]
mod scripted;
#[cfg(test)]
#[path = "../../../../tests/sshd/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the fixture serves the tests of the whole product")]
mod sshd;
#[cfg(test)]
mod transfers;
