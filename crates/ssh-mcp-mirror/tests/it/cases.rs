//! The cases, by their numbers.
//!
//! Not here: 12, 20, 56, 60, 68, 69 and 70, which no job can ask for; 51, whose timeout no server is told; 45, because no disk
//! of a test's fails half-way.

mod basic;
mod delta;
mod errors;
mod special;
mod ssh;
