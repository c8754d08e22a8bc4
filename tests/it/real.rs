//! The product against a real OpenSSH server, over stdio: what only a real server can show.
//!
//! Each test owns its server and its child process. Users: root, because most servers are used as root, and an
//! ordinary one, because sshd treats root specially.

mod asking;
mod certificates;
mod endings;
mod forwards;
mod hostile;
mod legacy;
mod logins;
mod others;
mod output;
mod push;
mod serial;
mod shells;
mod syncs;
mod tail;
mod targets;
mod tmux;
mod transfers;
mod variants;
mod ways_in;

use serde_json::{Value, json};

use crate::client::{Era, McpClient, ToolAnswer, binary};
use crate::sshd::{ClientKey, OpenSshd, Options, User};

/// A server, the product, and one open session.
struct Stage {
    server: OpenSshd,
    client: McpClient,
    session: String,
}

impl Stage {
    /// None after saying why this machine cannot run a real server.
    async fn set(options: Options, user: User) -> Option<Self> {
        Self::set_in(Era::LEGACY_2025_11, options, user, &[]).await
    }

    async fn set_in(era: Era, options: Options, user: User, env: &[(&str, &str)]) -> Option<Self> {
        let server = OpenSshd::start_or_skip(options)?;
        let client = McpClient::spawn(era, &binary("ssh-mcp-stdio"), &[], env).await;
        let answer = client.call("ssh_connect", login(&server, user, ClientKey::Ed25519)).await;
        assert!(!answer.is_error, "{}", answer.text);
        let session = field(&answer, "session_id");
        Some(Self { server, client, session })
    }

    /// Runs a command and waits for its end.
    async fn run(&self, command: &str) -> ToolAnswer {
        let answer = self.exec(json!({"command": command, "wait": true, "wait_timeout_secs": 60})).await;
        assert!(!answer.is_error, "{}", answer.text);
        answer
    }

    /// `ssh_exec` on the session with further arguments.
    async fn exec(&self, mut arguments: Value) -> ToolAnswer {
        arguments["session_id"] = self.session.as_str().into();
        self.client.call("ssh_exec", arguments).await
    }

    /// Starts a command and gives its id.
    async fn start(&self, arguments: Value) -> String {
        let answer = self.exec(arguments).await;
        assert!(!answer.is_error, "{}", answer.text);
        field(&answer, "command_id")
    }

    /// Waits for a command's end.
    async fn ended(&self, command: &str) -> ToolAnswer {
        let wait = json!({"command_id": command, "wait": true, "wait_timeout_secs": 120});
        self.client.call("ssh_exec_output", wait).await
    }
}

fn login(server: &OpenSshd, user: User, key: ClientKey) -> Value {
    json!({"address": server.addr().to_string(), "username": user.name(),
        "key_path": server.client_key(key).to_str().unwrap()})
}

fn field(answer: &ToolAnswer, name: &str) -> String {
    answer.structured[name].as_str().unwrap_or_else(|| panic!("no {name}: {}", answer.text)).to_owned()
}
