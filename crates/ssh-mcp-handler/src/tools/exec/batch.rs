//! `ssh_exec_batch`: several commands one after the other, with all their results.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ssh_mcp_core::{
    code::Code,
    code::Effect as Begun,
    kind::command::Status,
    registry::{Command, Session},
    settings::Settings,
    uri::Scheme,
};

use super::{
    Effect, Ending, Key, Order, Outcome, Reach, Repeat, Row, Set, call, list,
    outcome::{self, Trouble},
};
use crate::{
    args::Arguments,
    cx::Cx,
    failure::Failure,
    progress::Beat,
    reply::{Answer, Body, Text},
    tools::process::{self, ContextArgs},
};

pub(super) const ROW: Row = Row {
    name: "ssh_exec_batch",
    title: "Run commands in order",
    description: "Runs up to 16 shell commands one after the other on a session, waits for each, and shows \
                  all results. It stops at the first that fails, by a non-zero status or otherwise, unless \
                  stop_on_failure=false; HALTED says so. Each has a limit and a shell of its own: cd and \
                  variables do not carry over, give cwd and env. Take ssh_exec for what runs long or side \
                  by side.",
    effect: Effect::Destroys,
    repeat: Repeat::Counts,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Exec],
    makes: Some(Scheme::Command),
    call: call!(batch, BatchArgs, BatchBody),
};

#[derive(Deserialize, JsonSchema)]
struct BatchArgs {
    session_id: String,
    #[schemars(length(min = 1, max = 16), inner(length(min = 1)))]
    commands: Vec<String>,
    #[serde(default = "super::yes")]
    stop_on_failure: bool,
    /// Run-time limit of each, at most 300.
    #[serde(default = "super::thirty")]
    timeout_secs_per_command: u64,
    #[schemars(range(min = 1))]
    max_output_bytes_per_command: Option<u64>,
    /// stderr comes in stdout.
    #[serde(default)]
    pty: bool,
    #[serde(flatten)]
    context: ContextArgs,
}

impl Arguments for BatchArgs {
    fn defaults(settings: &Settings) -> Vec<(&'static str, Value)> {
        vec![("max_output_bytes_per_command", json!(settings.output_default))]
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct BatchBody {
    session_id: String,
    total: usize,
    executed: usize,
    results: Vec<Item>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Item {
    index: usize,
    command: String,
    /// completed, failed, timeout, cancelled or skipped; a non-zero exit_code is failed.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    command_id: Option<String>,
    #[serde(flatten)]
    outcome: Outcome,
}

impl Body for BatchBody {
    const STATUSES: &'static [&'static str] = &["ok", "halted"];

    fn write(&self, text: &mut Text) {
        text.key("SESSION_ID", &self.session_id);
        text.key("TOTAL", self.total);
        text.key("EXECUTED", self.executed);
        self.results.iter().for_each(|item| text.item(item.line()));
        for item in self.results.iter().filter(|item| item.command_id.is_some()) {
            item.outcome.write_blocks(text, &format!(" {}", item.index));
        }
    }
}

/// The answer for a command that was not reached.
const SKIPPED: &str = "skipped";

/// How far a batch has come.
struct Batch<'a> {
    session: &'a Session,
    commands: &'a [String],
    ran: Vec<Arc<Command>>,
    max_output: usize,
}

async fn batch(cx: &Cx, args: BatchArgs) -> Result<Answer<BatchBody>, Failure> {
    let BatchArgs { session_id, commands, stop_on_failure, context, pty, .. } = args;
    for (at, command) in commands.iter().enumerate() {
        process::without_nul(&format!("commands[{at}]"), command)?;
    }
    let order = Order {
        command: String::new(),
        context: context.parse()?,
        terminal: super::terminal(pty),
        limit: Some(super::waited_limit(args.timeout_secs_per_command)),
    };
    let session = cx.session(&session_id)?;
    // Held as long as the batch runs, so that no timer ends the session between two commands.
    let _hold = super::hold(cx, &session)?;

    let max_output = cx.output_bytes(args.max_output_bytes_per_command);
    let mut batch = Batch { session: &session, commands: &commands, ran: Vec::new(), max_output };
    for command in &commands {
        let order = Order { command: command.clone(), ..order.clone() };
        let (at, of) = (batch.ran.len(), commands.len());
        let beat = || Beat {
            progress: at as u64,
            total: Some(of as u64),
            message: format!("command {} of {of} runs", at + 1),
        };
        let started = super::start(cx, order.on(cx, session.spec.id), beat).await;
        let command = started.map_err(|failure| batch.failed(failure))?;
        batch.ran.push(Arc::clone(&command));
        let ending = super::finish(cx, &command, beat).await;
        if ending == Ending::CalledOff || stop_on_failure && has_failed(&command) {
            break;
        }
    }
    let status = if batch.ran.len() == commands.len() { "ok" } else { "halted" };
    let warnings: Vec<_> = batch.ran.iter().filter_map(|command| outcome::warnings(command)).collect();
    Ok(Answer::new(status, batch.into_body()).with_warnings(warnings))
}

/// Whether a command that has ended did what it should.
fn has_failed(command: &Command) -> bool {
    command
        .ending
        .get()
        .is_none_or(|end| end.facts.status != Status::Completed || end.facts.exit_code() != Some(0))
}

impl Batch<'_> {
    /// A failure to start the next command, with the results so far.
    fn failed(&self, failure: Failure) -> Failure {
        let items = self.items();
        let ran = self.ran.len();
        // The session was there when the batch began: this call lost it, and what ran may have had its effect.
        let failure = match failure.code == Code::SessionNotFound && ran > 0 {
            true => Failure::new(Code::TransportError, failure.reason),
            false => failure,
        };
        let mut failure = failure
            .with_context(format!("executed={ran} of {}", self.commands.len()))
            .with_fact("session_id", self.session.spec.id.to_string())
            .with_fact("total", self.commands.len())
            .with_fact("executed", ran)
            .with_fact("results", serde_json::to_value(&items).unwrap_or_default());
        for item in items.iter().filter(|item| item.command_id.is_some()) {
            failure = failure.with_context(item.line());
        }
        match ran {
            0 => failure,
            // What ran before has had its effect, whatever became of the next.
            1.. => failure.with_effect(Begun::Unknown),
        }
    }

    fn into_body(self) -> BatchBody {
        BatchBody {
            session_id: self.session.spec.id.to_string(),
            total: self.commands.len(),
            executed: self.ran.len(),
            results: self.items(),
        }
    }

    fn items(&self) -> Vec<Item> {
        let commands = self.commands.iter().enumerate();
        commands.map(|(index, text)| Item::new(index, text, self.ran.get(index), self.max_output)).collect()
    }
}

impl Item {
    fn new(index: usize, text: &str, ran: Option<&Arc<Command>>, max_output: usize) -> Self {
        let mut outcome = ran.map_or_else(Outcome::nothing, |command| Outcome::of(command, max_output));
        let status = match ran {
            None => SKIPPED,
            Some(command) if outcome.status == Status::Completed && has_failed(command) => {
                outcome.error = Some(Trouble::of_exit(outcome.exit_code, outcome.exit_signal.as_deref()));
                outcome::word(Status::Failed)
            }
            Some(_) => outcome::word(outcome.status),
        };
        let command_id = ran.map(|command| command.spec.id.to_string());
        Self { index, command: text.to_owned(), status, command_id, outcome }
    }

    /// The entry on one line.
    fn line(&self) -> String {
        let Self { index, command, status, command_id, outcome } = self;
        let Outcome { exit_code, exit_signal, ended_by, error, .. } = outcome;
        let mut parts = vec![format!("[{index}] {}: {}", list::short(command), status.to_ascii_uppercase())];
        parts.extend(exit_code.map(|code| format!("exit={code}")));
        parts.extend(exit_signal.as_ref().map(|signal| format!("signal={signal}")));
        parts.extend(ended_by.map(|by| format!("ended_by={by}")));
        // An exit speaks for itself.
        let told = exit_code.is_some() || exit_signal.is_some();
        parts.extend(
            error.as_ref().filter(|_| !told).map(|error| format!("[{}] {}", error.code, error.reason)),
        );
        parts.extend(command_id.as_ref().map(|id| format!("command_id={id}")));
        parts.join(" ")
    }
}
