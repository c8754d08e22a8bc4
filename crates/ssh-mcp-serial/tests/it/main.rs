//! The adapter on pseudo-terminals of this machine, whose far end a test holds.

// `cfg(test)` tells clippy that helpers may unwrap as tests do.
#[cfg(test)]
mod contract;
#[cfg(test)]
mod device;
#[cfg(test)]
mod pty;
