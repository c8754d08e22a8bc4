//! `ssh_rsync_cancel`: end a sync.

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
    name: "ssh_rsync_cancel",
    title: "Stop a sync",
    description: "Ends a sync that is under way. Files that are there stay; the half of one is kept with opts.partial only. \
                  noop: it had ended already.",
    effect: Effect::Destroys,
    repeat: Repeat::Harmless,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Rsync],
    makes: None,
    call: call!(cancel, CancelArgs, CancelBody),
};

#[derive(Debug, Deserialize, JsonSchema)]
struct CancelArgs {
    rsync_id: String,
}

impl Arguments for CancelArgs {}

#[derive(Debug, Serialize, JsonSchema)]
struct CancelBody {
    rsync_id: String,
    /// It had ended already.
    #[serde(skip_serializing_if = "Option::is_none")]
    noop: Option<bool>,
}

impl Body for CancelBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.key("RSYNC_ID", &self.rsync_id);
        text.maybe("NOOP", self.noop);
    }
}

async fn cancel(cx: &Cx, args: CancelArgs) -> Result<Answer<CancelBody>, Failure> {
    let rsync = cx.rsync(&args.rsync_id)?;
    let noop = match cx.engine.cancel_sync(&rsync).await {
        Cancel::Done => None,
        Cancel::AlreadyOver => Some(true),
    };
    Ok(Answer::new("ok", CancelBody { rsync_id: rsync.spec.id.to_string(), noop }))
}
