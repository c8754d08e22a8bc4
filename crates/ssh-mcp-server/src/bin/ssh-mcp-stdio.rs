//! The MCP server on standard input and output.

use std::process::ExitCode;

fn main() -> ExitCode {
    ssh_mcp_server::stdio_main()
}
