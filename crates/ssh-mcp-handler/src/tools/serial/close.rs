//! `serial_close`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ssh_mcp_engine::CloseSerial;

use super::{Effect, Key, Reach, Repeat, Row, Set, call};
use crate::{
    args::Arguments,
    cx::Cx,
    failure::Failure,
    reply::{Answer, Body, Text},
};

pub(super) const ROW: Row = Row {
    name: "serial_close",
    title: "Close a serial port",
    description: "Closes a serial port and gives the device back as it was found. What waits to be written has a second to go \
                  out. What was received is readable for a minute more. NOOP: it is not open.",
    effect: Effect::Destroys,
    repeat: Repeat::Harmless,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Serial],
    makes: None,
    call: call!(close, CloseArgs, CloseBody),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CloseArgs {
    serial_id: String,
}

impl Arguments for CloseArgs {}

#[derive(Debug, Serialize, JsonSchema)]
struct CloseBody {
    serial_id: String,
}

impl Body for CloseBody {
    const STATUSES: &'static [&'static str] = &["ok", "noop"];

    fn write(&self, text: &mut Text) {
        text.key("SERIAL_ID", &self.serial_id);
    }
}

async fn close(cx: &Cx, args: CloseArgs) -> Result<Answer<CloseBody>, Failure> {
    let status = match cx.serial(&args.serial_id) {
        Ok(serial) => match cx.engine.close_serial(&serial).await {
            CloseSerial::Done => "ok",
            CloseSerial::AlreadyClosed => "noop",
        },
        // What is not there is not open.
        Err(_) => "noop",
    };
    Ok(Answer::new(status, CloseBody { serial_id: args.serial_id }))
}
