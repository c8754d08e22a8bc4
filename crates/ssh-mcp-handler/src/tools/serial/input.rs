//! `serial_write` and `serial_press`: what goes out of a port.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ssh_mcp_core::{
    code::Code, keys::LineKey, kind::serial::PAYLOAD, registry::Serial, settings::Settings, text,
};
use ssh_mcp_engine::Source;

use super::{Effect, Key, Reach, Repeat, Row, Set, awaited_hint, call, not_written};
use crate::{
    args::{self, Arguments, Rule},
    cx::Cx,
    failure::Failure,
    next::{self, After},
    progress::{Beat, EVERY_5_S, Waiting},
    reply::{Answer, Body, Text},
    tools::sub::{Answered, ItemBody, Patterns},
};

pub(super) const WRITE: Row = Row {
    name: "serial_write",
    title: "Write to a serial port",
    description: "Queues text or bytes for a serial port exactly as given, so end a line with \\r or \\n. OK means queued. With \
                  wait_for it waits for one of these patterns in what comes back, and returns that: a command and its \
                  answer in one call.",
    effect: Effect::Destroys,
    repeat: Repeat::Counts,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Serial],
    makes: None,
    call: call!(write, WriteArgs, WriteBody),
};

pub(super) const PRESS: Row = Row {
    name: "serial_press",
    title: "Press a key on a serial port",
    description: "Sends a named key to a serial port: enter or cr, lf, crlf, esc, tab, space, backspace (08), delete (7F), \
                  ctrl_a to ctrl_z, ctrl_], arrow_up, arrow_down, arrow_left, arrow_right, or break, which holds the line \
                  low for 250 ms.",
    effect: Effect::Destroys,
    repeat: Repeat::Counts,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Serial],
    makes: None,
    call: call!(press, PressArgs, PressBody),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WriteArgs {
    serial_id: String,
    text: Option<String>,
    /// Instead of text.
    bytes_base64: Option<String>,
    /// As patterns of sub_wait.
    #[serde(default)]
    #[schemars(length(max = 16))]
    wait_for: Vec<String>,
    /// With wait_for; at most 300.
    timeout_secs: Option<u64>,
}

/// How long an answer is waited for, unless the call says otherwise.
const PATIENCE: u64 = 25;

impl Arguments for WriteArgs {
    fn defaults(_: &Settings) -> Vec<(&'static str, Value)> {
        vec![("timeout_secs", json!(PATIENCE))]
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct WriteBody {
    serial_id: String,
    bytes_sent: usize,
    /// How the wait ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    waited: Option<Answered>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<ItemBody>,
}

impl Body for WriteBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.key("SERIAL_ID", &self.serial_id);
        text.key("BYTES_SENT", self.bytes_sent);
        text.maybe("WAITED", self.waited.map(Answered::as_str));
        if let Some(item) = &self.item {
            item.write(text);
        }
    }
}

async fn write(cx: &Cx, args: WriteArgs) -> Result<Answer<WriteBody>, Failure> {
    let payload = args.payload()?;
    let patterns = match (args.wait_for.is_empty(), args.timeout_secs) {
        (true, None) => None,
        (true, Some(_)) => return Err(Failure::argument("timeout_secs is only for a call with wait_for")),
        (false, secs) => {
            let patience = Duration::from_secs(secs.unwrap_or(PATIENCE));
            Some((Patterns::compile("wait_for", args.wait_for)?, patience))
        }
    };
    let serial = cx.serial(&args.serial_id)?;
    // What comes from here on comes after the write.
    let from = serial.history.mark().end;
    let bytes_sent = match payload.is_empty() {
        true => 0,
        false => cx.engine.write_serial(&serial, payload).map_err(|error| not_written(&serial, &error))?,
    };
    let (waited, item) = match &patterns {
        None => (None, None),
        Some((patterns, patience)) => {
            let source = Source::Serial(Arc::clone(&serial));
            let (waited, item) = patterns.await_behind(cx, source, from, *patience).await;
            (Some(waited), Some(item))
        }
    };
    let body = WriteBody { serial_id: serial.spec.id.to_string(), bytes_sent, waited, item };
    Ok(await_answer(cx, &serial, patterns.is_none(), Answer::new("ok", body)))
}

impl WriteArgs {
    fn payload(&self) -> Result<Bytes, Failure> {
        let payload = match (&self.text, &self.bytes_base64) {
            (Some(text), None) => Bytes::copy_from_slice(text.as_bytes()),
            (None, Some(encoded)) => STANDARD
                .decode(encoded)
                .map_err(|error| {
                    Failure::argument(format!("bytes_base64 must be base64 as in RFC 4648: {error}"))
                })?
                .into(),
            (None, None) => return Err(Failure::argument("text or bytes_base64 must be given")),
            (Some(_), Some(_)) => {
                return Err(Failure::argument("text and bytes_base64 are both given: give one of them"));
            }
        };
        match payload.len() <= PAYLOAD {
            true => Ok(payload),
            false => Err(Failure::argument(format!(
                "a write holds at most {PAYLOAD} bytes; got {}: send it in parts",
                payload.len()
            ))),
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PressArgs {
    serial_id: String,
    key: String,
    #[serde(default = "once")]
    #[schemars(range(min = 1, max = 64))]
    repeat: u32,
}

impl Arguments for PressArgs {
    const CODES: &'static [(&'static str, Rule, Code)] =
        &[("repeat", Rule::Least, Code::InvalidRepeat), ("repeat", Rule::Most, Code::InvalidRepeat)];
}

#[derive(Debug, Serialize, JsonSchema)]
struct PressBody {
    serial_id: String,
    key: &'static str,
    repeat: u32,
    bytes_sent: usize,
}

impl Body for PressBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.key("SERIAL_ID", &self.serial_id);
        text.key("KEY", self.key);
        text.key("REPEAT", self.repeat);
        text.key("BYTES_SENT", self.bytes_sent);
    }
}

async fn press(cx: &Cx, args: PressArgs) -> Result<Answer<PressBody>, Failure> {
    let key = LineKey::parse(args.key.trim()).ok_or_else(|| {
        let nearest = text::nearest(&args.key.to_ascii_lowercase(), LineKey::names(), 3);
        Failure::argument(format!(
            "key must be the name of a key; got {}",
            args::shown("key", &Value::from(args.key.as_str()))
        ))
        .with_suggestions(nearest.into_iter().map(str::to_owned).collect())
    })?;
    let serial = cx.serial(&args.serial_id)?;
    let failed = |error| not_written(&serial, &error);
    let (repeat, bytes_sent) = match key {
        LineKey::Bytes(_, once) => {
            let bytes = Bytes::from(once.repeat(args.repeat as usize));
            (args.repeat, cx.engine.write_serial(&serial, bytes).map_err(failed)?)
        }
        LineKey::Break => {
            let work = cx.engine.break_serial(&serial);
            let beat = || Beat { progress: 0, total: None, message: "waiting for the break".into() };
            match cx.progress.while_waiting(EVERY_5_S, work, beat).await {
                Waiting::Done(sent) => sent.map_err(failed)?,
                // It goes out all the same; nobody reads the answer.
                Waiting::Cancelled => {}
            }
            (1, 0)
        }
    };
    let body = PressBody { serial_id: serial.spec.id.to_string(), key: key.name(), repeat, bytes_sent };
    Ok(await_answer(cx, &serial, true, Answer::new("ok", body)))
}

/// What an answer to input advises, unless it brings what came back.
fn await_answer<B: Body>(cx: &Cx, serial: &Serial, awaits: bool, answer: Answer<B>) -> Answer<B> {
    let next = next::next(&cx.catalogue, After::SerialInput(serial.spec.id));
    answer.with_hint(awaited_hint(cx, serial).filter(|_| awaits)).with_next(next)
}

fn once() -> u32 {
    1
}
