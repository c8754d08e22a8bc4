//! `ssh_transfer_cancel`: end a transfer; what has arrived stays.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ssh_mcp_engine::Cancel;

use super::{Effect, Key, Reach, Repeat, Row, Set, call};
use crate::{
    args::Arguments,
    cx::Cx,
    failure::Failure,
    reply::{Answer, Body, Text},
};

pub(super) const ROW: Row = Row {
    name: "ssh_transfer_cancel",
    title: "Stop a transfer",
    description: "Ends a transfer that is under way. What has arrived stays: the same call with resume=true goes on behind \
                  it. NOOP: it had ended already.",
    effect: Effect::Destroys,
    repeat: Repeat::Harmless,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Transfer],
    makes: None,
    call: call!(cancel, CancelArgs, CancelBody),
};

#[derive(Debug, Deserialize, JsonSchema)]
struct CancelArgs {
    transfer_id: String,
}

impl Arguments for CancelArgs {}

#[derive(Debug, Serialize, JsonSchema)]
struct CancelBody {
    transfer_id: String,
    bytes_transferred: u64,
    total_bytes: u64,
    /// How it had ended, of a transfer that was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl Body for CancelBody {
    const STATUSES: &'static [&'static str] = &["cancelled", "noop"];

    fn write(&self, text: &mut Text) {
        text.key("TRANSFER_ID", &self.transfer_id);
        text.key("BYTES", format_args!("{} of {}", self.bytes_transferred, self.total_bytes));
        text.maybe("REASON", self.reason.map(str::to_ascii_uppercase));
    }
}

async fn cancel(cx: &Cx, args: CancelArgs) -> Result<Answer<CancelBody>, Failure> {
    let transfer = cx.transfer(&args.transfer_id)?;
    let (status, reason) = match cx.engine.cancel_transfer(&transfer).await {
        Cancel::Done => ("cancelled", None),
        Cancel::AlreadyOver => ("noop", Some(transfer.status().as_str())),
    };
    let body = CancelBody {
        transfer_id: transfer.spec.id.to_string(),
        bytes_transferred: transfer.reached().bytes,
        total_bytes: transfer.spec.total,
        reason,
    };
    Ok(Answer::new(status, body))
}
