//! `ssh_forward_close`: end a forward.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ssh_mcp_core::{
    code::Code,
    registry::{Closing, Entry as _, Forward},
};
use ssh_mcp_engine::CloseForward;

use super::{Effect, Key, Reach, Repeat, Row, Set, call};
use crate::{
    args::Arguments,
    cx::Cx,
    failure::Failure,
    reply::{Answer, Body, Text},
};

pub(super) const ROW: Row = Row {
    name: "ssh_forward_close",
    title: "Close a forward",
    description: "Ends a forward, named by its id or by the local port it has. Its listener closes at once; open \
                  connections get up to 5 s to end, none with force.",
    effect: Effect::Destroys,
    repeat: Repeat::Harmless,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Forward],
    makes: None,
    call: call!(close, CloseArgs, CloseBody),
};

#[derive(Debug, Deserialize, JsonSchema)]
struct CloseArgs {
    /// Or local_port.
    forward_id: Option<String>,
    local_port: Option<u16>,
    #[serde(default)]
    force: bool,
}

impl Arguments for CloseArgs {}

#[derive(Debug, Serialize, JsonSchema)]
struct CloseBody {
    forward_id: String,
    connections_total: u64,
    bytes_to_remote: u64,
    bytes_from_remote: u64,
}

impl Body for CloseBody {
    const STATUSES: &'static [&'static str] = &["closed", "noop"];

    fn write(&self, text: &mut Text) {
        text.key("FORWARD_ID", &self.forward_id);
        text.key("CONNECTIONS_TOTAL", self.connections_total);
        text.key("BYTES_TO_REMOTE", self.bytes_to_remote);
        text.key("BYTES_FROM_REMOTE", self.bytes_from_remote);
    }
}

async fn close(cx: &Cx, args: CloseArgs) -> Result<Answer<CloseBody>, Failure> {
    let CloseArgs { forward_id, local_port, force } = args;
    let forward = match (forward_id, local_port) {
        (Some(id), None) => cx.forward(&id)?,
        (None, Some(port)) => on_port(cx, port)?,
        (Some(_), Some(_)) | (None, None) => {
            return Err(Failure::argument("give exactly one of forward_id and local_port"));
        }
    };
    let closing = if force { Closing::AtOnce } else { Closing::Patient };
    let status = match cx.engine.close_forward(&forward, closing).await {
        CloseForward::Done => "closed",
        CloseForward::AlreadyStopped => "noop",
    };
    let body = CloseBody {
        forward_id: forward.spec.id.to_string(),
        connections_total: forward.traffic.counts().accepted,
        bytes_to_remote: forward.traffic.bytes_to_remote(),
        bytes_from_remote: forward.traffic.bytes_from_remote(),
    };
    Ok(Answer::new(status, body))
}

/// The one forward that has this local port; one that has ended only where none is active.
fn on_port(cx: &Cx, port: u16) -> Result<Arc<Forward>, Failure> {
    let mut having = cx.engine.registries().forwards.of_owner(&cx.owner);
    having.retain(|forward| forward.spec.passage.local_port() == port);
    let (active, ended): (Vec<_>, Vec<_>) = having.into_iter().partition(|forward| forward.ended().is_none());
    match active.as_slice() {
        // The newest of those comes first.
        [] => ended.into_iter().next().ok_or_else(|| {
            Failure::new(Code::ForwardPortNotFound, format!("no forward has the local port {port}"))
        }),
        [one] => Ok(Arc::clone(one)),
        several => {
            let ids: Vec<String> = several.iter().map(|forward| forward.spec.id.to_string()).collect();
            let reason = format!("local_port {port} belongs to {} forwards: give the forward_id", ids.len());
            Err(Failure::argument(reason).with_suggestions(ids))
        }
    }
}
