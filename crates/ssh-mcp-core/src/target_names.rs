//! The log targets that stay stable, so that a filter written today works tomorrow (`docs/configuration.md`, log filter).
//!
//! Events name their target explicitly; the paths of modules are nobody's promise. Core itself logs nothing.

/// Everything that has no target of its own; a filter on it covers all the others.
pub const MAIN: &str = "ssh_mcp";
/// Connections, channels, host keys.
pub const SSH: &str = "ssh_mcp::ssh";
/// Logging in, on both sides.
pub const AUTH: &str = "ssh_mcp::auth";
/// Syncs of trees.
pub const RSYNC: &str = "ssh_mcp::rsync";
/// Forwards.
pub const FORWARD: &str = "ssh_mcp::forward";
/// Serial ports.
pub const SERIAL: &str = "ssh_mcp::serial";
/// States of resources and sessions, timers, reapers.
pub const LIFECYCLE: &str = "ssh_mcp::lifecycle";
/// Lanes that open and close.
pub const SUBSCRIPTION: &str = "ssh_mcp::subscription";
/// The HTTP front.
pub const HTTP: &str = "ssh_mcp::http";
/// One line per tool call that changes something.
pub const AUDIT: &str = "ssh_mcp::audit";
