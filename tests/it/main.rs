//! it

#[cfg(test)]
mod client;
#[cfg(test)]
mod client_itself;
#[cfg(test)]
mod fixture;
#[cfg(test)]
#[path = "../sshd/mod.rs"]
mod sshd;
