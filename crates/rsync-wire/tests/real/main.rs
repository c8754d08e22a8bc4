//! The crate on its own against real servers: what only it can ask for, and no tool of the product.
//!
//! [`driver`] is a client over the pipes of a child process that uses nothing but the public API. [`lists`] compares lists of
//! files in every version and form of flags, [`cases`] has whole transfers. Servers are found by variables that `scripts/test`
//! sets; where they are missing a test says so and does nothing, but in CI it fails without the newest.

#![cfg(unix)]

// `cfg(test)` tells clippy that helpers may unwrap as tests do.
#[cfg(test)]
mod cases;
#[cfg(test)]
mod driver;
#[cfg(test)]
mod lists;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod tree;
