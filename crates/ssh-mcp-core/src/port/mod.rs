//! Ports: what the engine needs from the outside world, as traits an adapter implements.
//!
//! Object-safe, with one boxed future per operation and none per byte. Each port has a contract suite in the
//! testkit that both its fake and its real adapter pass.

mod directory;
pub mod forward;
pub mod fs;
pub mod mirror;
mod outlet;
pub mod resolve;
pub mod serial;
pub mod ssh;
pub mod transcript;

use std::pin::Pin;

pub use directory::{Directory, Glimpse};
pub use outlet::{EndWords, Message, Outlet, OutletClosed};

/// A future that can be sent between threads, as object-safe traits return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
