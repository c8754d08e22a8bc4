//! `serial_open`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use ssh_mcp_core::{
    kind::serial::{HISTORY, HISTORY_BOUNDS},
    port::serial::{DataBits, FlowControl, Level, LineMode, Parity, StopBits},
    uri::{Resource, Scheme},
};
use ssh_mcp_engine::OpenSerial;

use super::{Effect, Key, Reach, Repeat, Row, Set, awaited_hint, call, not_opened};
use crate::{
    args::{self, Arguments},
    cx::Cx,
    failure::Failure,
    next::{self, After},
    reply::{Answer, Body, Text},
};

pub(super) const ROW: Row = Row {
    name: "serial_open",
    title: "Open a serial port",
    description: "Opens a serial device of this server's own machine, alone and raw, and returns its SERIAL_ID; needs no SSH \
                  session. What it receives is read, awaited and pushed like any output. It ends with serial_close or when \
                  the device is unplugged.",
    effect: Effect::Adds,
    repeat: Repeat::Counts,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Serial],
    makes: Some(Scheme::Serial),
    call: call!(open, OpenArgs, OpenBody),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OpenArgs {
    /// /dev/ttyUSB0; serial_scan finds it.
    path: String,
    #[serde(default = "usual_rate")]
    #[schemars(range(min = 50, max = 12_000_000))]
    baud_rate: u32,
    #[serde(default = "eight")]
    #[schemars(range(min = 5, max = 8))]
    data_bits: u8,
    #[serde(default)]
    stop_bits: StopWord,
    #[serde(default)]
    parity: ParityWord,
    #[serde(default)]
    flow_control: FlowWord,
    /// At most 60000.
    #[serde(default = "hundred")]
    #[schemars(range(min = 1, max = 60_000))]
    read_timeout_ms: u64,
    /// Bytes held; 0 is 1 MiB.
    #[serde(default)]
    max_buffer_size: u64,
    /// Left alone unless given.
    initial_dtr: Option<bool>,
    initial_rts: Option<bool>,
    #[schemars(length(min = 1, max = 128))]
    label: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
enum StopWord {
    #[default]
    #[serde(rename = "1")]
    One,
    #[serde(rename = "2")]
    Two,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
enum ParityWord {
    #[default]
    #[serde(rename = "none")]
    None,
    #[serde(rename = "odd")]
    Odd,
    #[serde(rename = "even")]
    Even,
    N,
    O,
    E,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
enum FlowWord {
    #[default]
    #[serde(rename = "none")]
    None,
    #[serde(rename = "software")]
    Software,
    #[serde(rename = "hardware")]
    Hardware,
    #[serde(rename = "xon/xoff")]
    XonXoff,
    #[serde(rename = "rts/cts")]
    RtsCts,
}

impl Arguments for OpenArgs {}

#[derive(Debug, Serialize, JsonSchema)]
struct OpenBody {
    serial_id: String,
    path: String,
    baud_rate: u32,
    data_bits: u8,
    stop_bits: &'static str,
    parity: &'static str,
    flow_control: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    uri: String,
    #[serde(skip)]
    framing: String,
}

impl Body for OpenBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.key("SERIAL_ID", &self.serial_id);
        text.key("PATH", &self.path);
        text.key("BAUD", self.baud_rate);
        text.key("FRAMING", &self.framing);
        text.key("FLOW", self.flow_control);
        text.maybe("LABEL", self.label.as_ref());
        text.key("URI", &self.uri);
    }
}

async fn open(cx: &Cx, args: OpenArgs) -> Result<Answer<OpenBody>, Failure> {
    let ask = args.into_ask()?;
    let path = ask.path.clone();
    let opened = cx.engine.open_serial(&cx.owner, ask).await;
    let serial = opened.map_err(|error| not_opened(&path, error))?;
    let mode = &serial.spec.mode;
    let body = OpenBody {
        serial_id: serial.spec.id.to_string(),
        path,
        baud_rate: mode.baud,
        data_bits: mode.data_bits.count(),
        stop_bits: mode.stop_bits.as_str(),
        parity: mode.parity.as_str(),
        flow_control: mode.flow.as_str(),
        label: serial.spec.label.clone(),
        uri: Resource::from(serial.spec.id).to_string(),
        framing: mode.framing(),
    };
    let next = next::next(&cx.catalogue, After::SerialOpened(serial.spec.id));
    Ok(Answer::new("ok", body).with_hint(awaited_hint(cx, &serial)).with_next(next))
}

impl OpenArgs {
    fn into_ask(self) -> Result<OpenSerial, Failure> {
        crate::tools::without_nul("path", &self.path)?;
        let bad = |field: &str, wanted: String, got: Value| {
            Failure::argument(format!("{field} must be {wanted}; got {}", args::shown(field, &got)))
        };
        // The schema has the bounds; this is the one step into what has none but them.
        let data_bits = DataBits::from_count(self.data_bits)
            .ok_or_else(|| bad("data_bits", "from 5 to 8".to_owned(), self.data_bits.into()))?;
        let (least, most) = HISTORY_BOUNDS;
        let history = match self.max_buffer_size {
            0 => HISTORY,
            size if (least..=most).contains(&size) => usize::try_from(size).unwrap_or(usize::MAX),
            size => return Err(bad("max_buffer_size", format!("0 or from {least} to {most}"), size.into())),
        };
        let level = |asserted: bool| if asserted { Level::High } else { Level::Low };
        let mode = LineMode {
            baud: self.baud_rate,
            data_bits,
            stop_bits: match self.stop_bits {
                StopWord::One => StopBits::One,
                StopWord::Two => StopBits::Two,
            },
            parity: match self.parity {
                ParityWord::None | ParityWord::N => Parity::None,
                ParityWord::Odd | ParityWord::O => Parity::Odd,
                ParityWord::Even | ParityWord::E => Parity::Even,
            },
            flow: match self.flow_control {
                FlowWord::None => FlowControl::None,
                FlowWord::Software | FlowWord::XonXoff => FlowControl::Software,
                FlowWord::Hardware | FlowWord::RtsCts => FlowControl::Hardware,
            },
            dtr: self.initial_dtr.map(level),
            rts: self.initial_rts.map(level),
            read_timeout: Duration::from_millis(self.read_timeout_ms),
        };
        Ok(OpenSerial { path: self.path, mode, history, label: self.label })
    }
}

fn usual_rate() -> u32 {
    115_200
}

fn eight() -> u8 {
    8
}

fn hundred() -> u64 {
    100
}
