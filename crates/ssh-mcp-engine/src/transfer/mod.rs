//! Transfers of files between this machine and another (`docs/transfers.md`).
//!
//! | File | Holds |
//! | --- | --- |
//! | `file` | one file, with all that is looked at before and done behind its bytes |
//! | `remote` | the far side: what it has, what it can hash, what its refusals mean |
//! | `stream` | the bytes |

pub mod file;
pub mod remote;
pub mod stream;
