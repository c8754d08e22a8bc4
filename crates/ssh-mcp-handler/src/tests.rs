//! The handler on a real engine over a scripted host, in virtual time.

mod arguments;
mod asking;
mod audit;
mod connect;
mod lanes;
mod listing;
mod reading;
pub(crate) mod rig;
pub(crate) mod wire;
#[cfg(not(feature = "port_forward"))]
mod without_forwards;
