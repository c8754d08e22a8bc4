//! The MCP server over HTTP.

use std::process::ExitCode;

fn main() -> ExitCode {
    ssh_mcp_server::http_main()
}
