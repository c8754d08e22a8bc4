//! ssh-mcp-server
pub mod flags;
pub mod signals;
pub mod sources;
pub mod telemetry;
