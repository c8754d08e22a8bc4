//! The mirror through its port: cases against real rsyncs (`cases.rs` says which), scripted hostile servers, and the walk.

// `cfg(test)` tells clippy that helpers may unwrap as tests do.
#[cfg(test)]
mod again;
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
