//! Tests of the whole product: its structure, and its binaries against real servers and clients.
//!
//! One integration binary, because linking one is dear. What a file tests stands in its first line.

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod client;
#[cfg(test)]
mod client_itself;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod http;
#[cfg(test)]
mod print_target;
#[cfg(test)]
mod real;
#[cfg(test)]
#[path = "../sshd/mod.rs"]
mod sshd;
#[cfg(test)]
mod web;
