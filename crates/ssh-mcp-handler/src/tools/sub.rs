//! The lane tools: open a lane, steer it, see what it did, and wait for news without one.
//!
//! What a lane says and when is the engine's; how its messages look is [`crate::outlet`]'s. The order of checks of
//! `sub_open` is that of `docs/subscriptions.md`, "Opening".

mod open;
mod stats;
mod steer;
mod wait;

use ssh_mcp_core::{
    code::{Code, Warning},
    lane::{Filter, FilterError, Notices},
    text,
};
use ssh_mcp_engine::LaneEntry;
pub(crate) use wait::{Answered, ItemBody, Patterns};

use super::{Effect, Key, Reach, Repeat, Row, Set, call};
use crate::{cx::Cx, failure::Failure, reply::Warned};

/// The lane tools, in the order of `tools/list`.
pub(crate) const ROWS: &[Row] = &[
    open::ROW,
    steer::CLOSE,
    steer::PAUSE,
    steer::RESUME,
    steer::FILTER,
    steer::REPLAY,
    stats::LIST,
    stats::STATS,
    stats::ALL,
    wait::ROW,
];

/// An expression as a filter, or what is wrong with it.
fn filter(cx: &Cx, field: &str, expression: &str) -> Result<Filter, Failure> {
    Filter::compile(expression, cx.settings().filter_length).map_err(|error| bad_filter(field, &error))
}

fn bad_filter(field: &str, error: &FilterError) -> Failure {
    Failure::new(Code::FilterInvalid, format!("{field}: {}", text::one_line(&error.to_string())))
}

/// What the consumer of a lane should know and has not been told.
fn warnings(cx: &Cx, lane: &LaneEntry) -> Vec<Warned> {
    let Notices { lost_bytes, dropped, gave_up, stuck } = lane.notices(cx.engine.clock().now());
    let told = [
        (
            lost_bytes,
            Warning::LagDetected,
            "bytes were gone before the lane had them; read faster or raise the buffer",
        ),
        (dropped, Warning::LaneBufferFull, "events were dropped; take snapshot or raise SSH_LANE_BUFFER"),
        (
            gave_up,
            Warning::LagBackpressure,
            "times the history waited no longer; read faster or raise SSH_BP_BLOCK_TIMEOUT_MS",
        ),
        (
            stuck,
            Warning::MuxBackpressure,
            "times the client took nothing for 5 s; it must read its notifications",
        ),
    ];
    let told = told.into_iter().filter(|(count, ..)| *count > 0);
    told.map(|(count, code, msg)| Warned::new(code, format!("{count} {msg}")).with_resource(lane.resource))
        .collect()
}
