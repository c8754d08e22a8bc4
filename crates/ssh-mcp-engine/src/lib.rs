//! ssh-mcp-engine
