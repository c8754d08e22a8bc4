//! `ssh_exec_cancel`: end a command by the ladder.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ssh_mcp_core::{code::Effect as Begun, kind::command::Status, settings::Settings};
use ssh_mcp_engine::Cancel;

use super::{Effect, Key, Outcome, Reach, Repeat, Row, Set, call, outcome};
use crate::{
    args::Arguments,
    cx::Cx,
    failure::Failure,
    progress::{EVERY_5_S, Waiting},
    reply::{Answer, Body, Text},
};

pub(super) const ROW: Row = Row {
    name: "ssh_exec_cancel",
    title: "Stop a running command",
    description: "Ends a running command and shows the newest part of its output. First Ctrl-C (on a \
                  terminal) and TERM, after 2 s KILL to its process group, at last its channel is closed; \
                  ENDED_BY says what did it. MAY_STILL_RUN: nothing showed its end. NOOP: it had ended.",
    effect: Effect::Destroys,
    repeat: Repeat::Harmless,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Exec, Set::Core],
    makes: None,
    call: call!(cancel, CancelArgs, CancelBody),
};

#[derive(Debug, Deserialize, JsonSchema)]
struct CancelArgs {
    command_id: String,
    #[schemars(range(min = 1))]
    max_output_bytes: Option<u64>,
}

impl Arguments for CancelArgs {
    fn defaults(settings: &Settings) -> Vec<(&'static str, Value)> {
        vec![("max_output_bytes", json!(settings.output_default))]
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct CancelBody {
    command_id: String,
    /// How it had ended, of a command that was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(flatten)]
    outcome: Option<Outcome>,
}

impl Body for CancelBody {
    const STATUSES: &'static [&'static str] = &["cancelled", "noop"];

    fn write(&self, text: &mut Text) {
        text.key("COMMAND_ID", &self.command_id);
        text.maybe("REASON", self.reason.map(str::to_ascii_uppercase));
        if let Some(outcome) = &self.outcome {
            outcome.write_keys(text);
            outcome.write_blocks(text, "");
        }
    }
}

async fn cancel(cx: &Cx, args: CancelArgs) -> Result<Answer<CancelBody>, Failure> {
    let command = cx.command(&args.command_id)?;
    let command_id = command.spec.id.to_string();
    let work = cx.engine.cancel(&command);
    let done = match cx.progress.while_waiting(EVERY_5_S, work, || super::beat(&command)).await {
        Waiting::Done(done) => done,
        // The ladder goes on without this call.
        Waiting::Cancelled => return Err(super::called_off(Begun::Unknown)),
    };
    Ok(match done {
        Cancel::Done => {
            let outcome = Outcome::of(&command, cx.output_bytes(args.max_output_bytes));
            let body = CancelBody { command_id, reason: None, outcome: Some(outcome) };
            Answer::new(outcome::word(Status::Cancelled), body).with_warnings(outcome::warnings(&command))
        }
        Cancel::AlreadyOver => {
            let reason = Some(outcome::word(command.status()));
            Answer::new("noop", CancelBody { command_id, reason, outcome: None })
        }
    })
}
