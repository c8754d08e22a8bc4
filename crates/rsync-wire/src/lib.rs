//! The rsync wire protocol, versions 30 to 32, as pure machines: bytes in, bytes out.

pub mod apply;
pub mod checksum;
pub mod delta;
pub mod sums;
pub mod token;
