//! Transfers of files between this machine and another.

pub mod stream;
