//! The shell tools on a real engine over a scripted host, in virtual time.

mod closing;
mod input;
mod opening;
mod output;
mod transcripts;
mod wire;

use std::time::Duration;

use serde_json::{Value, json};
use ssh_mcp_core::settings::Settings;
use ssh_mcp_testkit::host::{Script, ScriptedHost};
use tokio_util::sync::CancellationToken;

use crate::{
    call::{self, Request},
    tests::rig::{Answered, Rig, completed, settings},
};

const SECOND: Duration = Duration::from_secs(1);

/// A server with one open shell.
struct Opened {
    rig: Rig,
    session: String,
    id: String,
    opened: Answered,
}

impl Opened {
    /// A shell that does what the script says.
    async fn on(script: Script) -> Self {
        Self::with(ScriptedHost::new().on_shell(script), settings(), json!({})).await
    }

    /// A shell with a prompt, which knows the lines of the host.
    async fn prompt(host: ScriptedHost) -> Self {
        Self::with(host, settings(), json!({})).await
    }

    async fn with(host: ScriptedHost, settings: Settings, arguments: Value) -> Self {
        let rig = Rig::with(host, settings);
        let session = rig.session().await;
        let opened = rig.ok("ssh_shell_open", join(json!({ "session_id": session }), arguments)).await;
        Self { id: opened.fact("shell_id"), rig, session, opened }
    }

    /// The arguments with this shell's identifier.
    fn args(&self, arguments: Value) -> Value {
        join(json!({ "shell_id": self.id }), arguments)
    }

    async fn ok(&self, tool: &str, arguments: Value) -> Answered {
        self.rig.ok(tool, self.args(arguments)).await
    }

    async fn fails(&self, tool: &str, arguments: Value) -> Answered {
        self.rig.fails(tool, self.args(arguments)).await
    }

    /// A call that the client calls off at this moment.
    async fn called_off(&self, tool: &str, arguments: Value, after: Duration) {
        let cancelled = CancellationToken::new();
        let cx = self.rig.cx(cancelled.clone());
        let arguments = self.args(arguments).as_object().unwrap().clone();
        let request = Request { tool, arguments, key: None, peer: "test" };
        let call = call::call(&cx, &self.rig.shared.keys, request);
        let (result, ()) = tokio::join!(call, async {
            tokio::time::sleep(after).await;
            cancelled.cancel();
        });
        assert_eq!(completed(result.unwrap()).is_error, Some(false));
    }

    /// What a read that drains nothing shows.
    async fn unread(&self) -> String {
        self.ok("ssh_shell_read", json!({ "clear": false })).await.fact("stdout")
    }
}

fn join(mut arguments: Value, more: Value) -> Value {
    arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    arguments
}

/// Lets virtual time pass.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[track_caller]
fn has_line(answered: &Answered, line: &str) {
    assert!(answered.text.lines().any(|text| text == line), "{line:?} in\n{}", answered.text);
}

/// The lines of the output block, without its opening line.
fn block(answered: &Answered) -> Vec<&str> {
    let lines = answered.text.lines().skip_while(|line| !line.starts_with("--- data [")).skip(1);
    lines
        .take_while(|line| !["HINT: ", "NEXT: ", "WARN: "].iter().any(|word| line.starts_with(word)))
        .collect()
}
