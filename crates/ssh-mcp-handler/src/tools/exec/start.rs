//! `ssh_exec`: start a command, and wait for it if asked to.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ssh_mcp_core::{
    kind::command::Status, lifecycle::AutoRelease, registry::Command, settings::Settings, uri::Scheme,
};
use ssh_mcp_engine::Exec;

use super::{Effect, Key, Order, Outcome, Reach, Repeat, Row, Set, call, outcome};
use crate::{
    args::Arguments,
    cx::Cx,
    failure::Failure,
    next::{self, After},
    progress::Beat,
    reply::{Answer, Body, Text},
    tools::process::{self, ContextArgs},
};

pub(super) const ROW: Row = Row {
    name: "ssh_exec",
    title: "Start a command",
    description: "Starts a shell command on a session and returns its COMMAND_ID at once; many run side by \
                  side. wait=true waits for the end and shows the output: best for quick commands. Take \
                  ssh_exec_batch for steps in order, ssh_shell_open for what asks questions. It ends by \
                  itself, at ENDS_AT, by ssh_exec_cancel or with its session.",
    effect: Effect::Destroys,
    repeat: Repeat::Counts,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Exec, Set::Core],
    makes: Some(Scheme::Command),
    call: call!(exec, ExecArgs, ExecBody),
};

/// Longest standard input of a command.
const INPUT: usize = 1024 * 1024;

#[derive(Deserialize, JsonSchema)]
struct ExecArgs {
    session_id: String,
    #[schemars(length(min = 1))]
    command: String,
    /// Run-time limit; 0 is none.
    timeout_secs: Option<u64>,
    /// stderr comes in stdout.
    #[serde(default)]
    pty: bool,
    /// Standard input, else empty; at most 1 MiB.
    input: Option<String>,
    /// Instead of input.
    input_base64: Option<String>,
    #[serde(flatten)]
    context: ContextArgs,
    #[serde(default)]
    wait: bool,
    #[serde(default = "super::thirty")]
    wait_timeout_secs: u64,
    /// End it when nobody waits or reads.
    #[serde(default)]
    release_when_no_subs: bool,
    /// Delay before that.
    #[schemars(range(max = 3_600_000))]
    grace_ms: Option<u64>,
}

impl Arguments for ExecArgs {
    fn defaults(settings: &Settings) -> Vec<(&'static str, Value)> {
        vec![
            ("timeout_secs", json!(settings.command_timeout.map_or(0, |limit| limit.as_secs()))),
            ("grace_ms", json!(settings.lifecycle_grace.as_millis() as u64)),
        ]
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct ExecBody {
    command_id: String,
    session_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<String>,
    started_at: String,
    /// When its time limit ends it, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<String>,
    #[serde(flatten)]
    outcome: Option<Outcome>,
}

impl Body for ExecBody {
    const STATUSES: &'static [&'static str] =
        &["started", "running", "completed", "timeout", "cancelled", "failed"];

    fn write(&self, text: &mut Text) {
        text.key("COMMAND_ID", &self.command_id);
        text.key("SESSION_ID", &self.session_id);
        text.maybe("AGENT_ID", self.agent_id.as_ref());
        text.key("STARTED_AT", &self.started_at);
        text.maybe("ENDS_AT", self.ends_at.as_ref());
        if let Some(outcome) = &self.outcome {
            outcome.write_keys(text);
            outcome.write_blocks(text, "");
        }
    }
}

async fn exec(cx: &Cx, args: ExecArgs) -> Result<Answer<ExecBody>, Failure> {
    let patience = args.wait.then(|| super::patience(args.wait_timeout_secs));
    let ask = args.parse(cx)?;
    let starting = || Beat { progress: 0, total: None, message: "starting the command".to_owned() };
    let command = super::start(cx, ask, starting).await?;
    let outcome = match patience {
        None => None,
        Some(patience) => {
            // Called off or out of patience: either way the command runs on.
            _ = super::wait(cx, &command, patience).await;
            Some(Outcome::of(&command, cx.output_bytes(None)))
        }
    };
    let status = outcome.as_ref().map(|outcome| outcome.status);
    let body = ExecBody::new(cx, &command, status, outcome);
    Ok(match status {
        Some(Status::Running) => running(cx, Answer::new("running", body), &command),
        None => running(cx, Answer::new("started", body), &command),
        Some(status @ (Status::Completed | Status::Failed | Status::Cancelled | Status::TimedOut)) => {
            Answer::new(outcome::word(status), body).with_warnings(outcome::warnings(&command))
        }
    })
}

/// What to do about a command that runs.
fn running(cx: &Cx, answer: Answer<ExecBody>, command: &Command) -> Answer<ExecBody> {
    let id = command.spec.id;
    let waiter = super::output::ROW.name;
    // A wait that ran out has left the command as alone as one that was never begun.
    let release = command.life.snapshot().auto_release;
    answer
        .with_hint(next::stream_hint(&cx.catalogue, id.into(), waiter))
        .with_hint(next::release_hint(&cx.catalogue, release, cx.settings().lifecycle_own_grace, waiter))
        .with_next(next::next(&cx.catalogue, After::CommandRuns(id)))
}

impl ExecArgs {
    fn parse(self, cx: &Cx) -> Result<Exec, Failure> {
        let context = self.context.parse()?;
        process::without_nul("command", &self.command)?;
        let input = process::input(self.input, self.input_base64, INPUT)?;
        let session = cx.session(&self.session_id)?.spec.id;
        let order = Order {
            command: self.command,
            context,
            terminal: super::terminal(self.pty),
            limit: super::limit(self.timeout_secs, cx.settings().command_timeout),
        };
        let plain = order.on(cx, session);
        Ok(Exec {
            input,
            auto_release: if self.release_when_no_subs { AutoRelease::On } else { AutoRelease::Off },
            grace: self.grace_ms.map_or(plain.grace, Duration::from_millis),
            ..plain
        })
    }
}

impl ExecBody {
    fn new(cx: &Cx, command: &Command, status: Option<Status>, outcome: Option<Outcome>) -> Self {
        let spec = &command.spec;
        let runs = status.is_none_or(|status| status == Status::Running);
        Self {
            command_id: spec.id.to_string(),
            session_id: spec.session.to_string(),
            agent_id: spec.agent.clone(),
            started_at: cx.rfc3339(spec.started),
            ends_at: spec.ends.filter(|_| runs).map(|at| cx.rfc3339(at)),
            outcome,
        }
    }
}
