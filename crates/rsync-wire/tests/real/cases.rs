//! Cases that no tool of the product can ask for; the others are in `crates/ssh-mcp-mirror/tests/it/cases/`, by the same numbers.

mod data;
mod errors;
mod rules;
mod trees;
