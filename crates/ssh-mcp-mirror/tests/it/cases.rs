//! Cases by their numbers: 1 to 74 are whole runs against real servers, and here are those that a job can ask for. The others are in
//! `crates/rsync-wire/tests/real/cases/`: 12, 20, 45, 51, 56, 59, 60, 68, 69 and 70, the frames of 34, the downloads of 36 and 37,
//! the errors that are ignored in 57, the rules of 61 as a server sees them, and what a server says of attributes in 64. What a
//! hostile server does, 75 to 90, is in `hostile.rs`.

mod basic;
mod delta;
mod errors;
mod random;
mod special;
mod ssh;
