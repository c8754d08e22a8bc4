//! `ssh_exec_output`: how a command stands and what it printed, after waiting for its end if asked to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ssh_mcp_core::{kind::command::Status, settings::Settings};
use ssh_mcp_engine::Observable;

use super::{Effect, Key, Outcome, Reach, Repeat, Row, Set, call, outcome};
use crate::{
    args::Arguments,
    cx::Cx,
    failure::Failure,
    next::{self, After},
    reply::{Answer, Body, Text},
};

pub(super) const ROW: Row = Row {
    name: "ssh_exec_output",
    title: "Read or await a command's output",
    description: "Shows how a command stands and the newest part of its stdout and stderr. wait=true waits \
                  for its end: take that instead of polling. RUNNING: the wait ran out, it goes on. \
                  TIMEOUT: its own limit ended it. Works for an hour after the end.",
    effect: Effect::ReadOnly,
    repeat: Repeat::Harmless,
    reach: Reach::Held,
    key: Key::Ignored,
    sets: &[Set::Exec, Set::Core],
    makes: None,
    call: call!(read, OutputArgs, OutputBody),
};

#[derive(Debug, Deserialize, JsonSchema)]
struct OutputArgs {
    command_id: String,
    /// Wait for its end.
    #[serde(default)]
    wait: bool,
    #[serde(default = "super::thirty")]
    wait_timeout_secs: u64,
    #[schemars(range(min = 1))]
    max_output_bytes: Option<u64>,
}

impl Arguments for OutputArgs {
    fn defaults(settings: &Settings) -> Vec<(&'static str, Value)> {
        vec![("max_output_bytes", json!(settings.output_default))]
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct OutputBody {
    command_id: String,
    #[serde(flatten)]
    outcome: Outcome,
}

impl Body for OutputBody {
    const STATUSES: &'static [&'static str] = &["running", "completed", "timeout", "cancelled", "failed"];

    fn write(&self, text: &mut Text) {
        text.key("COMMAND_ID", &self.command_id);
        self.outcome.write_keys(text);
        self.outcome.write_blocks(text, "");
    }
}

async fn read(cx: &Cx, args: OutputArgs) -> Result<Answer<OutputBody>, Failure> {
    let command = cx.command(&args.command_id)?;
    // Who reads counts as an observer as long as the call runs, so that polling keeps a command that releases itself.
    let _observer = cx.engine.observe(Observable::Command(&command));
    if args.wait {
        // Called off or out of patience: the answer is how it stands now.
        _ = super::wait(cx, &command, super::patience(args.wait_timeout_secs)).await;
    }
    let outcome = Outcome::of(&command, cx.output_bytes(args.max_output_bytes));
    let status = outcome.status;
    let answer =
        Answer::new(outcome::word(status), OutputBody { command_id: command.spec.id.to_string(), outcome });
    Ok(match status {
        Status::Running => answer.with_next(next::next(&cx.catalogue, After::CommandRuns(command.spec.id))),
        Status::Completed | Status::Failed | Status::Cancelled | Status::TimedOut => {
            answer.with_warnings(outcome::warnings(&command))
        }
    })
}
