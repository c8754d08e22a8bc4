//! The mirror through its port, against real rsyncs: the cases of the project's sheet `rsync-wire-cases`, by their numbers.

// `cfg(test)` tells clippy that helpers may unwrap as tests do.
#[cfg(test)]
mod bench;
#[cfg(test)]
mod cases;
#[cfg(test)]
mod child;
#[cfg(test)]
mod ground;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod snapshot;
#[cfg(test)]
#[path = "../../../../tests/sshd/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the fixture serves the tests of the whole product")]
mod sshd;
#[cfg(test)]
mod tree;
#[cfg(test)]
mod walk;
