//! Lines of JSON on the standard streams: ops in, events out.

use std::process::ExitCode;

fn main() -> ExitCode {
    ssh_mcp_server::ndjson::main()
}
