//! Transfers of files between this machine and another (`docs/transfers.md`).
//!
//! | File | Holds |
//! | --- | --- |
//! | `run` | a transfer as callers see it: started, watched, ended |
//! | `tree` | several files and directories: what there is, and in which order it goes |
//! | `file` | one file, with all that is looked at before and done behind its bytes |
//! | `claims` | which destinations are written to |
//! | `local` | this side: what of it is open |
//! | `remote` | the far side: what it has, what it can hash, what its refusals mean |
//! | `stream` | the bytes |

pub mod claims;
pub mod file;
pub mod local;
pub mod remote;
pub(crate) mod run;
pub mod stream;
mod tree;
