//! `ssh_shell_write` and `ssh_shell_press`: what goes into a shell.

use std::sync::Arc;

use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ssh_mcp_core::{
    code::{Code, Effect as Begun},
    keys::{Key as TerminalKey, Modifiers},
    port::ssh::PtySize,
    reason::Reason,
    registry::{Entry as _, Shell},
    settings::Settings,
};
use ssh_mcp_engine::{Observable, WriteError};

use super::{
    Output, SETTLED, Standing, awaited_hint, newest, patience, skipped_hint, transcript, unread::Drain,
};
use crate::{
    args::{self, Arguments, Rule},
    cx::Cx,
    failure::Failure,
    next::{self, After},
    progress::{Beat, EVERY_5_S, Waiting},
    reply::{Answer, Body, Text},
    tools::{Effect, Key, Reach, Repeat, Row, Set, call, process},
};

pub(super) const WRITE: Row = Row {
    name: "ssh_shell_write",
    title: "Type into a shell",
    description: "Sends text to a shell exactly as given, so end a line with \\n. Take ssh_shell_press for \
                  arrows, function keys and Ctrl. cols and rows resize the terminal first, also without \
                  input. Returns at once; with wait_secs waits until output pauses, returns and drains it.",
    effect: Effect::Destroys,
    repeat: Repeat::Counts,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Shell, Set::Core],
    makes: None,
    call: call!(write, WriteArgs, WriteBody),
};

pub(super) const PRESS: Row = Row {
    name: "ssh_shell_press",
    title: "Press a key in a shell",
    description: "Sends a named key to a shell: for menus and editors, tab completion, ctrl_c to \
                  interrupt, ctrl_d to end input. Arrows, home, end, paging, insert, delete and function \
                  keys take any modifier, tab takes shift, the others none. Take ssh_shell_write for text.",
    effect: Effect::Destroys,
    repeat: Repeat::Counts,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Shell, Set::Core],
    makes: None,
    call: call!(press, PressArgs, PressBody),
};

#[derive(Deserialize, JsonSchema)]
pub(super) struct WriteArgs {
    shell_id: String,
    input: Option<String>,
    /// Instead of input.
    input_base64: Option<String>,
    #[schemars(range(min = 1, max = 65_535))]
    cols: Option<u32>,
    #[schemars(range(min = 1, max = 65_535))]
    rows: Option<u32>,
    /// At most 300.
    #[serde(default)]
    #[schemars(range(min = 0))]
    wait_secs: f64,
    #[schemars(range(min = 1))]
    max_output_bytes: Option<u64>,
}

impl Arguments for WriteArgs {
    fn defaults(settings: &Settings) -> Vec<(&'static str, Value)> {
        vec![("max_output_bytes", json!(settings.output_default))]
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct WriteBody {
    shell_id: String,
    bytes_sent: usize,
    #[serde(flatten)]
    standing: Standing,
    #[serde(flatten)]
    output: Option<Output>,
}

impl Body for WriteBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.key("SHELL_ID", &self.shell_id);
        text.key("BYTES_SENT", self.bytes_sent);
        self.standing.write(text);
        if let Some(output) = &self.output {
            output.write(text);
            output.write_block(text);
        }
    }
}

async fn write(cx: &Cx, args: WriteArgs) -> Result<Answer<WriteBody>, Failure> {
    let input = process::input(args.input, args.input_base64, usize::MAX)?.unwrap_or_default();
    if input.is_empty() && args.cols.is_none() && args.rows.is_none() {
        return Err(Failure::argument(
            "input must not be empty unless cols or rows is given, or input_base64 takes its place; got nothing to send",
        ));
    }
    let shell = cx.shell(&args.shell_id)?;
    let before = shell.history.mark().end;
    let now = shell.size();
    let resize = (args.cols.is_some() || args.rows.is_some())
        .then(|| PtySize { cols: args.cols.unwrap_or(now.cols), rows: args.rows.unwrap_or(now.rows) });
    let bytes_sent = send(cx, &shell, resize, input).await?;

    let wait = patience(args.wait_secs);
    let mut hint = None;
    let output = match wait.is_zero() {
        true => None,
        false => {
            let _observer = cx.engine.observe(Observable::Shell(&shell));
            let work = cx.engine.await_shell_quiet(&shell, before, wait, SETTLED);
            let beat = || Beat {
                progress: shell.history.mark().end.saturating_sub(before),
                total: None,
                message: "waiting for the shell's output".into(),
            };
            let drain = match cx.progress.while_waiting(EVERY_5_S, work, beat).await {
                Waiting::Done(_) => Drain::Shown,
                Waiting::Cancelled => Drain::Nothing,
            };
            let piece = newest(&shell, cx.output_bytes(args.max_output_bytes), drain);
            hint = skipped_hint(&shell, &piece, drain);
            Some(Output::new(&shell, &piece, drain))
        }
    };
    let standing = Standing::of(cx, &shell).await;
    let running = standing.running;
    let body = WriteBody { shell_id: shell.spec.id.to_string(), bytes_sent, standing, output };
    let answer = Answer::new("ok", body).with_warnings(transcript::broken(&shell)).with_hint(hint);
    Ok(if running { await_answer(cx, &shell, answer) } else { answer })
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct PressArgs {
    shell_id: String,
    #[schemars(schema_with = "key_names")]
    key: String,
    #[serde(default)]
    shift: bool,
    #[serde(default)]
    alt: bool,
    #[serde(default)]
    ctrl: bool,
    #[serde(default = "once")]
    #[schemars(range(min = 1, max = 64))]
    repeat: u8,
}

impl Arguments for PressArgs {
    const CODES: &'static [(&'static str, Rule, Code)] =
        &[("repeat", Rule::Least, Code::InvalidRepeat), ("repeat", Rule::Most, Code::InvalidRepeat)];
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PressBody {
    shell_id: String,
    key: &'static str,
    modifiers: Vec<&'static str>,
    repeat: u8,
    bytes_sent: usize,
}

impl Body for PressBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.key("SHELL_ID", &self.shell_id);
        text.key("KEY", self.key);
        text.maybe("MODIFIERS", (!self.modifiers.is_empty()).then(|| self.modifiers.join("+")));
        text.key("REPEAT", self.repeat);
        text.key("BYTES_SENT", self.bytes_sent);
    }
}

async fn press(cx: &Cx, args: PressArgs) -> Result<Answer<PressBody>, Failure> {
    let key = TerminalKey::parse(&args.key).ok_or_else(|| {
        // The schema lists the names, so this is never seen.
        Failure::argument(format!(
            "key must be the name of a key; got {}",
            args::shown("key", &Value::from(args.key.as_str()))
        ))
    })?;
    let modifiers = Modifiers { shift: args.shift, alt: args.alt, ctrl: args.ctrl };
    let once = key.bytes(modifiers).map_err(|refused| {
        Failure::new(Code::ModifierNotAllowed, format!("{refused}; got {}", modifiers.words().join("+")))
    })?;
    let shell = cx.shell(&args.shell_id)?;
    let bytes = Bytes::from(once.repeat(usize::from(args.repeat)));
    let body = PressBody {
        shell_id: shell.spec.id.to_string(),
        key: key.name(),
        modifiers: modifiers.words(),
        repeat: args.repeat,
        bytes_sent: send(cx, &shell, None, bytes).await?,
    };
    Ok(await_answer(cx, &shell, Answer::new("ok", body).with_warnings(transcript::broken(&shell))))
}

/// Sends input. A client that calls the request off does not stop it: bytes half sent would be worse.
async fn send(cx: &Cx, shell: &Arc<Shell>, resize: Option<PtySize>, bytes: Bytes) -> Result<usize, Failure> {
    cx.engine.write_shell(shell, resize, bytes).await.map_err(|error| {
        let failure = match (error, shell.ended()) {
            (WriteError::Closed { accepted }, Some((Reason::ConnectionLost, _))) => {
                let begun = if accepted == 0 { Begun::None } else { Begun::Unknown };
                Failure::new(Code::TransportError, "the connection under the shell broke")
                    .with_context(format!("accepted={accepted}"))
                    .with_effect(begun)
            }
            (error, _) => Failure::from(error),
        };
        match shell.ended() {
            Some((reason, _)) => failure.with_context(format!("reason={reason}")),
            None => failure,
        }
    })
}

/// What an answer to input advises: the output is awaited, not asked for again and again.
fn await_answer<B: Body>(cx: &Cx, shell: &Shell, answer: Answer<B>) -> Answer<B> {
    let next = next::next(&cx.catalogue, After::ShellInput(shell.spec.id));
    answer.with_hint(awaited_hint(cx, shell)).with_next(next)
}

fn key_names(_: &mut SchemaGenerator) -> Schema {
    let names: Vec<&str> = TerminalKey::names().collect();
    json_schema!({ "type": "string", "enum": names })
}

fn once() -> u8 {
    1
}
