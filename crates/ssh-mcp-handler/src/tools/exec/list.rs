//! `ssh_commands`: the commands that run or can still be read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ssh_mcp_core::{kind::command::Status, registry::Command, settings::Settings, text};

use super::{Effect, Key, Reach, Repeat, Row, Set, call};
use crate::{
    args::Arguments,
    cx::Cx,
    failure::Failure,
    next::{self, After},
    reply::{Answer, Body, Text},
};

pub(super) const ROW: Row = Row {
    name: "ssh_commands",
    title: "List commands",
    description: "Lists your commands, newest first: those that run, and those that have ended and can \
                  still be read. Take it to find a COMMAND_ID again or what still runs; for output take \
                  ssh_exec_output. It looks at nothing remote.",
    effect: Effect::ReadOnly,
    repeat: Repeat::Harmless,
    reach: Reach::Held,
    key: Key::Ignored,
    sets: &[Set::Exec],
    makes: None,
    call: call!(commands, CommandsArgs, CommandsBody),
};

#[derive(Debug, Deserialize, JsonSchema)]
struct CommandsArgs {
    /// Only those of this session.
    session_id: Option<String>,
    status: Option<StatusWord>,
    #[schemars(range(min = 1))]
    max_items: Option<u64>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum StatusWord {
    Running,
    Completed,
    Cancelled,
    Failed,
    TimedOut,
}

impl From<StatusWord> for Status {
    fn from(word: StatusWord) -> Self {
        match word {
            StatusWord::Running => Self::Running,
            StatusWord::Completed => Self::Completed,
            StatusWord::Cancelled => Self::Cancelled,
            StatusWord::Failed => Self::Failed,
            StatusWord::TimedOut => Self::TimedOut,
        }
    }
}

impl Arguments for CommandsArgs {
    fn defaults(settings: &Settings) -> Vec<(&'static str, Value)> {
        vec![("max_items", json!(settings.list_default))]
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct CommandsBody {
    commands: Vec<Listed>,
    count: usize,
    total: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Listed {
    command_id: String,
    session_id: String,
    command: String,
    status: &'static str,
    started_at: String,
    #[serde(skip)]
    time: String,
}

impl Body for CommandsBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.count(self.count, self.total);
        for Listed { command_id, session_id, command, status, time, .. } in &self.commands {
            let status = status.to_ascii_uppercase();
            text.item(format_args!("{command_id} [{status}] {session_id}: {} ({time})", short(command)));
        }
    }
}

/// A command as lists show it: its beginning, on one line.
pub(super) fn short(command: &str) -> String {
    const SHORT: usize = 200;
    text::cut(&text::one_line(text::cut(command, SHORT).as_ref()), SHORT).into_owned()
}

async fn commands(cx: &Cx, args: CommandsArgs) -> Result<Answer<CommandsBody>, Failure> {
    let mut found = cx.engine.registries().commands.of_owner(&cx.owner);
    if let Some(asked) = &args.session_id {
        found.retain(|command| command.spec.session.to_string().eq_ignore_ascii_case(asked.trim()));
    }
    if let Some(asked) = args.status.map(Status::from) {
        found.retain(|command| command.status() == asked);
    }
    let shown = found.get(..cx.list_items(args.max_items)).unwrap_or(&found);
    let commands: Vec<Listed> = shown.iter().map(|command| listed(cx, command)).collect();
    let running = shown.iter().zip(&commands).find(|(_, listed)| listed.status == Status::Running.as_str());
    let next = running.map(|(command, _)| next::next(&cx.catalogue, After::CommandRuns(command.spec.id)));
    let leaks: Vec<_> = shown.iter().filter_map(|command| cx.leak(command.spec.id.into())).collect();
    let body = CommandsBody { count: commands.len(), total: found.len(), commands };
    Ok(Answer::new("ok", body).with_warnings(leaks).with_next(next.unwrap_or_default()))
}

fn listed(cx: &Cx, command: &Command) -> Listed {
    let spec = &command.spec;
    Listed {
        command_id: spec.id.to_string(),
        session_id: spec.session.to_string(),
        command: spec.command.clone(),
        status: command.status().as_str(),
        started_at: cx.rfc3339(spec.started),
        time: cx.clock_time(spec.started),
    }
}
