//! `sub_close`, `sub_pause`, `sub_resume`, `sub_filter`, `sub_replay`: one lane, by its id.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ssh_mcp_core::{
    code::Warning,
    lane::{Changed, Replayed, millis},
    lifecycle::State,
    settings::Settings,
};

use super::{Effect, Key, Reach, Repeat, Row, Set, call, warnings};
use crate::{
    args::Arguments,
    cx::Cx,
    failure::Failure,
    next::{self, After},
    reply::{Answer, Body, Text, Warned},
};

const ON_ONE_LANE: Row = Row {
    name: "",
    title: "",
    description: "",
    effect: Effect::Adds,
    repeat: Repeat::Harmless,
    reach: Reach::Held,
    key: Key::Honoured,
    sets: &[Set::Sub],
    makes: None,
    call: call!(close, LaneArgs, CloseBody),
};

pub(super) const CLOSE: Row = Row {
    name: "sub_close",
    title: "Close a lane",
    description: "Ends a lane; nothing is sent for it afterwards. A resource that releases itself begins its grace when \
                  its last lane has gone; nothing else ends with a lane. NOT_FOUND: it was closed already.",
    effect: Effect::Destroys,
    ..ON_ONE_LANE
};

pub(super) const PAUSE: Row = Row {
    name: "sub_pause",
    title: "Pause a lane",
    description: "Stops the notifications of a lane. What comes meanwhile waits under the lane's lag policy, the end of \
                  the resource too; a lease runs on. NOOP: it was paused already.",
    call: call!(pause, LaneArgs, PauseBody),
    ..ON_ONE_LANE
};

pub(super) const RESUME: Row = Row {
    name: "sub_resume",
    title: "Resume a lane",
    description: "Goes on with a paused lane: first what has waited, then what is new. A lease begins anew, paused or \
                  not. NOOP: it was not paused.",
    call: call!(resume, LaneArgs, PauseBody),
    ..ON_ONE_LANE
};

pub(super) const FILTER: Row = Row {
    name: "sub_filter",
    title: "Change a lane's filter",
    description: "Swaps the regular expression of a lane: only lines that match it count from here on; what waits stays \
                  as it was. Linear-time syntax, at most 1024 characters; escape sequences are not seen by it. An \
                  empty one lets everything through.",
    call: call!(filter, FilterArgs, FilterBody),
    ..ON_ONE_LANE
};

pub(super) const REPLAY: Row = Row {
    name: "sub_replay",
    title: "Replay a lane",
    description: "Delivers again from a byte offset on, whatever the lane had dropped, and goes over into what is live \
                  without a hole. Without bytes inside notifications it moves the lane's cursor back and announces once. \
                  RING_BUFFER_OVERFLOW: some of it is no longer held; FROM_CURSOR is where it really begins.",
    call: call!(replay, ReplayArgs, ReplayBody),
    ..ON_ONE_LANE
};

#[derive(Debug, Deserialize, JsonSchema)]
struct LaneArgs {
    sub_id: String,
}

impl Arguments for LaneArgs {}

#[derive(Debug, Serialize, JsonSchema)]
struct CloseBody {
    sub_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lifecycle_state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grace_remaining_ms: Option<u64>,
}

impl Body for CloseBody {
    const STATUSES: &'static [&'static str] = &["ok", "not_found"];

    fn write(&self, text: &mut Text) {
        text.key("SUB_ID", &self.sub_id);
        text.maybe("URI", self.uri.as_ref());
        text.maybe("LIFECYCLE_STATE", self.lifecycle_state);
        text.maybe("GRACE_REMAINING_MS", self.grace_remaining_ms);
    }
}

async fn close(cx: &Cx, args: LaneArgs) -> Result<Answer<CloseBody>, Failure> {
    let sub_id = Cx::sub_id(&args.sub_id)?;
    let Some(lane) = cx.engine.lane(&cx.owner, sub_id) else {
        let body = CloseBody {
            sub_id: sub_id.to_string(),
            uri: None,
            lifecycle_state: None,
            grace_remaining_ms: None,
        };
        return Ok(Answer::new("not_found", body));
    };
    let told = warnings(cx, &lane);
    let closed = cx.engine.close_lane_by_call(&lane).await;
    let body = CloseBody {
        sub_id: sub_id.to_string(),
        uri: Some(closed.resource.to_string()),
        lifecycle_state: closed.life.map(|life| match life.state {
            State::Owned => "owned",
            State::Observed => "observed",
            State::Releasing => "releasing",
            State::Closed => "closed",
        }),
        grace_remaining_ms: closed.grace.map(millis),
    };
    Ok(Answer::new("ok", body).with_warnings(told))
}

#[derive(Debug, Serialize, JsonSchema)]
struct PauseBody {
    sub_id: String,
    paused: bool,
}

impl Body for PauseBody {
    const STATUSES: &'static [&'static str] = &["ok", "noop"];

    fn write(&self, text: &mut Text) {
        text.key("SUB_ID", &self.sub_id);
        text.key("STATE", if self.paused { "paused" } else { "resumed" });
    }
}

async fn pause(cx: &Cx, args: LaneArgs) -> Result<Answer<PauseBody>, Failure> {
    let lane = cx.lane(&args.sub_id)?;
    let changed = lane.pause(cx.engine.clock().now());
    let body = PauseBody { sub_id: lane.id.to_string(), paused: true };
    let next = next::next(&cx.catalogue, After::LanePaused(lane.id));
    Ok(Answer::new(status(changed), body).with_warnings(warnings(cx, &lane)).with_next(next))
}

async fn resume(cx: &Cx, args: LaneArgs) -> Result<Answer<PauseBody>, Failure> {
    let lane = cx.lane(&args.sub_id)?;
    let changed = lane.resume(cx.engine.clock().now());
    let body = PauseBody { sub_id: lane.id.to_string(), paused: false };
    let next = next::next(&cx.catalogue, After::LaneSteered(lane.id));
    Ok(Answer::new(status(changed), body).with_warnings(warnings(cx, &lane)).with_next(next))
}

fn status(changed: Changed) -> &'static str {
    match changed {
        Changed::Yes => "ok",
        Changed::No => "noop",
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct FilterArgs {
    sub_id: String,
    /// Empty lets everything through.
    regex: String,
}

impl Arguments for FilterArgs {}

#[derive(Debug, Serialize, JsonSchema)]
struct FilterBody {
    sub_id: String,
    filter: String,
}

impl Body for FilterBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.key("SUB_ID", &self.sub_id);
        text.key("FILTER", &self.filter);
    }
}

async fn filter(cx: &Cx, args: FilterArgs) -> Result<Answer<FilterBody>, Failure> {
    let lane = cx.lane(&args.sub_id)?;
    let filter = (!args.regex.is_empty()).then(|| super::filter(cx, "regex", &args.regex)).transpose()?;
    let word =
        filter.as_ref().map_or_else(|| "none".to_owned(), |filter| format!("regex:{}", filter.as_str()));
    lane.set_filter(cx.engine.clock().now(), filter);
    let body = FilterBody { sub_id: lane.id.to_string(), filter: word };
    let next = next::next(&cx.catalogue, After::LaneSteered(lane.id));
    Ok(Answer::new("ok", body).with_warnings(warnings(cx, &lane)).with_next(next))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct ReplayArgs {
    sub_id: String,
    /// 0 is the oldest held.
    #[serde(default)]
    from_cursor: u64,
    /// Newest bytes at most.
    #[schemars(range(min = 1))]
    bytes: Option<u64>,
}

impl Arguments for ReplayArgs {
    fn defaults(settings: &Settings) -> Vec<(&'static str, Value)> {
        vec![("bytes", json!(settings.replay_window))]
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct ReplayBody {
    sub_id: String,
    from_cursor: u64,
    bytes: u64,
    /// Bytes asked for that are gone, or lie before the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap_bytes: Option<u64>,
    /// Whether some of what was asked for is no longer held.
    overflow: bool,
}

impl Body for ReplayBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.key("SUB_ID", &self.sub_id);
        text.key("FROM_CURSOR", self.from_cursor);
        text.key("BYTES", self.bytes);
        text.maybe("GAP_BYTES", self.gap_bytes);
    }
}

async fn replay(cx: &Cx, args: ReplayArgs) -> Result<Answer<ReplayBody>, Failure> {
    let lane = cx.lane(&args.sub_id)?;
    let window = args.bytes.unwrap_or(cx.settings().replay_window);
    let replayed = lane.replay(cx.engine.clock().now(), args.from_cursor, window);
    let Replayed { start, bytes, gap, gone } = replayed.map_err(|end| {
        let reason =
            format!("from_cursor must be at most {end}, the end; got the number {}", args.from_cursor);
        Failure::argument(reason)
    })?;
    // From 0 means from the oldest held, of which nothing is missing.
    let overflow = gone > 0 && args.from_cursor > 0;
    let warned = overflow.then(|| {
        let msg = format!("{gone} bytes are no longer held; it begins at {start}");
        Warned::new(Warning::RingBufferOverflow, msg).with_resource(lane.resource)
    });
    let gap_bytes = (args.from_cursor > 0 && gap > 0).then_some(gap);
    let body = ReplayBody { sub_id: lane.id.to_string(), from_cursor: start, bytes, gap_bytes, overflow };
    let next = next::next(&cx.catalogue, After::LaneSteered(lane.id));
    let told = warned.into_iter().chain(warnings(cx, &lane));
    Ok(Answer::new("ok", body).with_warnings(told).with_next(next))
}
