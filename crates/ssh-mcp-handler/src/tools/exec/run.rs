//! `ssh_run`: connect, run one command, disconnect, in one call.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ssh_mcp_core::{
    registry::{Command, Session},
    settings::Settings,
    uri::Scheme,
};
use ssh_mcp_engine::Connect;

use super::{Effect, Key, Order, Outcome, Reach, Repeat, Row, Set, call, outcome};
use crate::{
    args::Arguments,
    cx::Cx,
    failure::Failure,
    progress::Beat,
    reply::{Answer, Body, Text},
    tools::{
        connect::{Afterwards, Ground, Login},
        process::{self, ContextArgs},
    },
};

pub(super) const ROW: Row = Row {
    name: "ssh_run",
    title: "Connect, run one command, disconnect",
    description: "Connects, or takes your session to the same user and host, runs one shell command, \
                  waits, shows the output, and ends a session it opened unless disconnect_after=false. The \
                  expensive last choice: connecting takes up to two seconds. For several commands take \
                  ssh_connect and ssh_exec. TIMEOUT: timeout_secs ended it.",
    effect: Effect::Destroys,
    repeat: Repeat::Counts,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Exec, Set::Core],
    makes: Some(Scheme::Command),
    call: call!(run, RunArgs, RunBody),
};

#[derive(Deserialize, JsonSchema)]
struct RunArgs {
    #[serde(flatten)]
    login: Login,
    /// Your name for its group.
    agent_id: Option<String>,
    #[schemars(length(min = 1))]
    command: String,
    #[serde(flatten)]
    context: ContextArgs,
    /// stderr comes in stdout.
    #[serde(default)]
    pty: bool,
    /// Run-time limit, at most 300.
    #[serde(default = "super::thirty")]
    timeout_secs: u64,
    #[schemars(range(min = 1))]
    max_output_bytes: Option<u64>,
    #[serde(default = "super::yes")]
    disconnect_after: bool,
}

impl Arguments for RunArgs {
    fn defaults(settings: &Settings) -> Vec<(&'static str, Value)> {
        vec![("max_output_bytes", json!(settings.output_default))]
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct RunBody {
    session_id: String,
    command_id: String,
    /// Whether the session has been ended.
    disconnected: bool,
    #[serde(flatten)]
    outcome: Outcome,
}

impl Body for RunBody {
    const STATUSES: &'static [&'static str] = &["completed", "timeout", "failed", "cancelled"];

    fn write(&self, text: &mut Text) {
        text.key("SESSION_ID", &self.session_id);
        text.key("COMMAND_ID", &self.command_id);
        self.outcome.write_keys(text);
        text.key("DISCONNECTED", self.disconnected);
        self.outcome.write_blocks(text, "");
    }
}

async fn run(cx: &Cx, args: RunArgs) -> Result<Answer<RunBody>, Failure> {
    let max_output = cx.output_bytes(args.max_output_bytes);
    let after = if args.disconnect_after { Afterwards::Disconnect } else { Afterwards::Keep };
    let (connect, order) = args.parse(cx)?;
    let ground = Ground::find(cx, connect).await?;
    let session = &ground.session;
    let command = match work(cx, session, order).await {
        Ok(command) => command,
        Err(failure) => {
            // An error leaves nothing behind.
            ground.leave(cx, Afterwards::Disconnect).await;
            return Err(failure);
        }
    };
    ground.leave(cx, after).await;

    let outcome = Outcome::of(&command, max_output);
    let status = outcome.status;
    let body = RunBody {
        session_id: session.spec.id.to_string(),
        command_id: command.spec.id.to_string(),
        disconnected: !session.is_open(),
        outcome,
    };
    let kept = (ground.ours && !body.disconnected).then(|| kept_hint(cx, session));
    Ok(Answer::new(outcome::word(status), body)
        .with_warnings(outcome::warnings(&command))
        .with_hint(ground.learnt_hint())
        .with_hint(kept.flatten()))
}

/// Runs the command to its end, which a client that calls the request off brings about.
async fn work(cx: &Cx, session: &Session, order: Order) -> Result<Arc<Command>, Failure> {
    let id = session.spec.id;
    // Held as long as the call works on it, so that no timer ends it in between.
    let _hold = super::hold(cx, session)?;
    let beat = || Beat { progress: 0, total: None, message: "starting the command".to_owned() };
    let command = super::start(cx, order.on(cx, id), beat).await?;
    // Called off or not: the answer shows how the command ended.
    _ = super::finish(cx, &command, || super::beat(&command)).await;
    Ok(command)
}

/// A session that was kept is the caller's to end.
fn kept_hint(cx: &Cx, session: &Session) -> Option<String> {
    const ENDS_IT: &str = "ssh_disconnect";
    let id = session.spec.id;
    cx.catalogue
        .has(ENDS_IT)
        .then(|| format!("REQUIRED NEXT STEP: {ENDS_IT}(session_id=\"{id}\") when you are done"))
}

impl RunArgs {
    fn parse(self, cx: &Cx) -> Result<(Connect, Order), Failure> {
        if !self.login.names_a_host() {
            return Err(Failure::argument("address is missing: it must be a text, unless target is given"));
        }
        let connect = Connect { agent: self.agent_id, ..self.login.into_connect(cx, None)? };
        process::without_nul("command", &self.command)?;
        let order = Order {
            command: self.command,
            context: self.context.parse()?,
            terminal: super::terminal(self.pty),
            limit: Some(super::waited_limit(self.timeout_secs)),
        };
        Ok((connect, order))
    }
}
