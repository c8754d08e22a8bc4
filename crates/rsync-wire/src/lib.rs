//! The rsync wire protocol, versions 30 to 32, as pure machines: bytes in, bytes out.
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`varint`] | numbers, short strings and file indexes |
//! | [`mux`] | frames, and the messages between them |
//! | [`command`], [`negotiate`] | how a server is started, and what both sides agree on |
//! | [`filter`] | which files are meant |
//! | [`file_list`], [`io_errors`] | what files there are, in which order, and what of them could not be read |
//! | [`checksum`], [`sums`] | hashes of blocks and of whole files |
//! | [`delta`], [`token`], [`apply`] | which blocks a file shares with an older one, how that is sent, and the file put together |
//!
//! The layouts are in `docs/rsync-wire.md` and `docs/rsync-wire-delta.md`. Who does what when, the roles of sender, generator and
//! receiver, is not here yet.

pub mod apply;
pub mod checksum;
pub mod command;
pub mod delta;
pub mod file_list;
pub mod filter;
pub mod io_errors;
pub mod mux;
pub mod negotiate;
pub mod sums;
pub mod token;
pub mod varint;
