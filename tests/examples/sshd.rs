//! The testkit's SSH server as a process, for programs that are not Rust: `scripts/clients` starts it.
//!
//! Prints one JSON line `{address, user, password, host_key_fingerprint}` and serves until its standard input ends.
//! Loopback, throw-away keys and a home directory of its own, as in the quickstart.

use std::io::Write;

use serde_json::json;
use ssh_mcp_testkit::sshd::{Config, EmbeddedSshd};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = EmbeddedSshd::start(Config::default()).await?;
    let facts = json!({
        "address": server.addr().to_string(),
        "user": server.user(),
        "password": server.password(),
        "host_key_fingerprint": server.host_key_fingerprint(),
    });
    let mut out = std::io::stdout();
    writeln!(out, "{facts}")?;
    out.flush()?;
    // Off the runtime's own threads, which serve; whatever is written to us is ignored.
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    server.stop().await;
    Ok(())
}
