//! Transfers of files between this machine and another.

pub mod file;
pub mod stream;
