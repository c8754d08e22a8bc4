//! Whole runs, by the numbers that cases have in the project. Here are those that no tool of the product can ask for; the others are
//! in `crates/ssh-mcp-mirror/tests/it/cases/`.

mod attributes;
mod data;
mod errors;
mod rules;
mod trees;
