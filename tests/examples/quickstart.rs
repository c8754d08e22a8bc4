//! The main job, end to end, on a server of our own: what `scripts/quickstart` shows.
//!
//! Starts the embedded SSH server on loopback and the real `ssh-mcp-stdio` as a child, and speaks MCP to it the way a
//! host does. Every line below `->` is a tool call, every line below `<-` the text a model would read.

#![expect(clippy::indexing_slicing, reason = "a field that JSON does not have is null")]

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use ssh_mcp_testkit::sshd::{Config, EmbeddedSshd};

#[tokio::main]
#[expect(clippy::print_stdout, reason = "a demonstration on a terminal")]
async fn main() -> anyhow::Result<()> {
    let server = EmbeddedSshd::start(Config::default()).await?;
    println!("An SSH server of our own listens on {} (loopback, throw-away keys).", server.addr());
    let home = tempfile::tempdir()?;
    let mut host = Host::start(&home)?;
    println!("ssh-mcp-stdio runs as process {}, as a child of this program.\n", host.child.id());

    let login = json!({"address": server.addr().to_string(), "username": server.user(), "password": server.password(),
        "name": "quickstart", "agent_id": "quickstart"});
    let session = host.call("Open a session", "ssh_connect", login)?;
    let session = text(&session, "session_id")?;

    let uname = json!({"session_id": session, "command": "uname -sr; echo 'and an error' >&2", "wait": true});
    host.call("Run a command and wait for it", "ssh_exec", uname)?;

    let slow = json!({"session_id": session, "command": "for n in 1 2 3; do echo step $n; sleep 0.2; done"});
    let command = host.call("Start a command in the background", "ssh_exec", slow)?;
    let command = text(&command, "command_id")?;
    let uri = format!("command://{command}/output");
    let mut printed = String::new();
    loop {
        let purpose = "... and be told as soon as it prints something, each byte once";
        let news = host.call(purpose, "sub_wait", json!({"uris": [uri]}))?;
        printed += news["items"][0]["delta"].as_str().context("a wait shows what is new")?;
        if news["status"] == "ended" {
            break;
        }
    }
    ensure!(printed == "step 1\nstep 2\nstep 3\n");

    let open = json!({"session_id": session, "env": {"PS1": "$ "}, "shell": "/bin/sh"});
    let shell = host.call("Open an interactive shell", "ssh_shell_open", open)?;
    let shell = text(&shell, "shell_id")?;
    host.call(
        "Type into it",
        "ssh_shell_write",
        json!({"shell_id": shell, "input": "echo $((6 * 7)) is the answer\n"}),
    )?;
    let wait = json!({"shell_id": shell, "patterns": ["42 is the answer"], "timeout_secs": 10});
    let matched = host.call("... and wait for what it says", "ssh_shell_wait_for", wait)?;
    ensure!(matched["status"] == "matched");
    host.call("Close the shell", "ssh_shell_close", json!({"shell_id": shell}))?;

    host.call("Leave nothing behind", "ssh_disconnect_agent", json!({"agent_id": "quickstart"}))?;
    host.finish()?;
    server.stop().await;
    println!("Done: the session is closed, the server has ended, nothing is left.");
    Ok(())
}

/// The part an MCP host plays.
struct Host {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    id: u64,
}

impl Host {
    fn start(home: &tempfile::TempDir) -> anyhow::Result<Self> {
        let program = binary()?;
        let mut child = Command::new(&program)
            .env_clear()
            .env("HOME", home.path())
            .env("RUST_LOG", "warn")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let input = child.stdin.take().context("stdin is piped")?;
        let output = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut host = Self { child, input, output, id: 0 };
        let client = json!({"name": "quickstart", "version": "1"});
        let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
        host.request("initialize", hello)?;
        host.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))?;
        Ok(host)
    }

    /// Calls a tool and shows both sides of it.
    #[expect(clippy::print_stdout, reason = "a demonstration on a terminal")]
    fn call(&mut self, purpose: &str, tool: &str, arguments: Value) -> anyhow::Result<Value> {
        let mut shown = arguments.clone();
        if let Some(password) = shown.get_mut("password") {
            *password = "***".into();
        }
        println!("{purpose}\n-> {tool} {shown}");
        let result = self.request("tools/call", json!({"name": tool, "arguments": arguments}))?;
        let answer = result["content"][0]["text"].as_str().context("every answer has a text")?;
        println!("<- {}\n", answer.replace('\n', "\n   "));
        ensure!(result["isError"] != true, "{tool} failed");
        Ok(result["structuredContent"].clone())
    }

    fn request(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        self.id += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": self.id, "method": method, "params": params}))?;
        let mut line = String::new();
        loop {
            line.clear();
            ensure!(self.output.read_line(&mut line)? > 0, "the server ended");
            let mut message: Value = serde_json::from_str(&line)?;
            if message["id"] == self.id {
                match message.get_mut("result") {
                    Some(result) => return Ok(result.take()),
                    None => bail!("{method}: {}", message["error"]),
                }
            }
        }
    }

    fn send(&mut self, message: &Value) -> anyhow::Result<()> {
        writeln!(self.input, "{message}")?;
        Ok(self.input.flush()?)
    }

    /// Ends the input, which ends the server.
    fn finish(self) -> anyhow::Result<()> {
        let Self { mut child, input, output, .. } = self;
        drop(input);
        drop(output);
        let status = child.wait()?;
        ensure!(status.success(), "the server left with {status}");
        Ok(())
    }
}

/// The binary beside this example's folder.
fn binary() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.ancestors().nth(2).context("an example lies in the profile's folder")?;
    Ok(folder.join("ssh-mcp-stdio"))
}

fn text(answer: &Value, field: &str) -> anyhow::Result<String> {
    Ok(answer[field].as_str().with_context(|| format!("the answer has no {field}"))?.to_owned())
}
