//! The MCP face of ssh-mcp: tools, resources and their words.

mod args;
mod catalogue;
mod cx;
mod failure;
mod next;
mod progress;
mod reply;
mod schema;
mod tools;

pub use catalogue::{UnknownToolset, unknown_toolsets};
