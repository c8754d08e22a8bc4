//! The rsync wire protocol, versions 30 to 32, as pure machines: bytes in, bytes out.

pub mod command;
pub mod file_list;
pub mod filter;
pub mod io_errors;
pub mod mux;
pub mod negotiate;
pub mod varint;
