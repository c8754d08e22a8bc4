//! `sub_list`, `sub_stats`, `sub_stats_all`: what lanes there are and what they have done.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ssh_mcp_core::lane::{Form, Report, millis};
use ssh_mcp_engine::{Inline, LaneEntry};

use super::{Effect, Key, Reach, Repeat, Row, Set, call, warnings};
use crate::{
    args::Arguments,
    cx::Cx,
    failure::Failure,
    next::{self, After},
    reply::{Answer, Body, Text},
};

const LOOKS: Row = Row {
    name: "",
    title: "",
    description: "",
    effect: Effect::ReadOnly,
    repeat: Repeat::Harmless,
    reach: Reach::Held,
    key: Key::Ignored,
    sets: &[Set::Sub],
    makes: None,
    call: call!(list, ListArgs, ListBody),
};

pub(super) const LIST: Row = Row {
    name: "sub_list",
    title: "List lanes",
    description: "Lists your lanes, oldest first, those of resources/subscribe and subscriptions/listen too: on what, how \
                  they are set, what they have sent and lost. Take it to find a SUB_ID again or what is left over.",
    ..LOOKS
};

pub(super) const STATS: Row = Row {
    name: "sub_stats",
    title: "Show what a lane has done",
    description: "Shows the counters of one lane: messages and bytes sent, events lost by its policy, bytes lost, how full \
                  its queue is, how far it is behind, and how it is set. lagged_drops or gap_bytes above 0 mean that \
                  something is missing.",
    call: call!(stats, StatsArgs, StatsBody),
    ..LOOKS
};

pub(super) const ALL: Row = Row {
    name: "sub_stats_all",
    title: "Show what all lanes have done",
    description: "Shows the sums of all lanes together, closed ones too, and how many live.",
    call: call!(all, AllArgs, AllBody),
    ..LOOKS
};

/// Lanes in one answer.
const MOST: usize = 500;

#[derive(Debug, Deserialize, JsonSchema)]
struct ListArgs {
    /// Only lanes on URIs that begin so.
    uri_prefix: Option<String>,
    /// Reserved.
    #[expect(
        dead_code,
        reason = "accepted for clients that send it; a caller's lanes are those of its owner"
    )]
    peer_id: Option<String>,
}

impl Arguments for ListArgs {}

#[derive(Debug, Serialize, JsonSchema)]
struct ListBody {
    subs_total: usize,
    subs: Vec<Listed>,
}

/// What a list and the statistics both say of a lane.
#[derive(Debug, Serialize, JsonSchema)]
struct Facts {
    sub_id: String,
    uri: String,
    lifetime: &'static str,
    lag_policy: &'static str,
    paused: bool,
    origin: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<String>,
    events_sent: u64,
    bytes_sent: u64,
    lagged_drops: u64,
    queue_depth: u64,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_event_at: Option<String>,
}

impl Facts {
    fn new(cx: &Cx, lane: &LaneEntry, report: Report) -> Self {
        Self {
            sub_id: lane.id.to_string(),
            uri: lane.resource.to_string(),
            lifetime: lane.lifetime.as_str(),
            lag_policy: report.policy.as_str(),
            paused: report.paused,
            origin: lane.origin.as_str(),
            filter: report.filter,
            events_sent: report.stats.events_sent,
            bytes_sent: report.stats.bytes_sent,
            lagged_drops: report.stats.lagged_drops,
            queue_depth: report.queue_depth,
            created_at: cx.rfc3339(lane.created),
            last_event_at: report.stats.last_event.map(|at| cx.rfc3339(at)),
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct Listed {
    #[serde(flatten)]
    facts: Facts,
    kind: &'static str,
    resource_id: String,
    age_s: u64,
}

impl Body for ListBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.key("SUBS_TOTAL", self.subs_total);
        if self.subs.len() < self.subs_total {
            text.key("SHOWN", self.subs.len());
        }
        for listed in &self.subs {
            text.key("SUB", listed.line());
        }
    }
}

impl Listed {
    fn new(cx: &Cx, lane: &LaneEntry) -> Self {
        Self {
            facts: Facts::new(cx, lane, lane.report()),
            kind: lane.resource.scheme.as_str(),
            resource_id: lane.resource.id.to_string(),
            age_s: cx.engine.clock().now().saturating_sub(lane.created).as_secs(),
        }
    }

    fn line(&self) -> String {
        let Facts { sub_id, uri, lag_policy, paused, origin, lifetime, created_at, .. } = &self.facts;
        let Facts { events_sent, bytes_sent, lagged_drops, queue_depth, .. } = &self.facts;
        let (kind, age) = (self.kind, self.age_s);
        let mut line = format!(
            "{sub_id} {kind} {uri} lag={lag_policy} paused={paused} origin={origin} lifetime={lifetime} \
             events={events_sent} bytes={bytes_sent} drops={lagged_drops} queue={queue_depth} created={created_at} \
             age={age}s"
        );
        line.extend(self.facts.last_event_at.iter().map(|at| format!(" last={at}")));
        line.extend(self.facts.filter.iter().map(|filter| format!(" filter={filter}")));
        line
    }
}

async fn list(cx: &Cx, args: ListArgs) -> Result<Answer<ListBody>, Failure> {
    let mut lanes = cx.engine.lanes_of(&cx.owner);
    if let Some(prefix) = &args.uri_prefix {
        let prefix = prefix.trim().to_ascii_lowercase();
        lanes.retain(|lane| lane.resource.to_string().starts_with(&prefix));
    }
    let shown = lanes.get(..MOST).unwrap_or(&lanes);
    let told = shown.iter().flat_map(|lane| warnings(cx, lane)).collect::<Vec<_>>();
    let next = lanes.first().map(|lane| next::next(&cx.catalogue, After::LaneSteered(lane.id)));
    let body =
        ListBody { subs_total: lanes.len(), subs: shown.iter().map(|lane| Listed::new(cx, lane)).collect() };
    Ok(Answer::new("ok", body).with_warnings(told).with_next(next.unwrap_or_default()))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct StatsArgs {
    sub_id: String,
}

impl Arguments for StatsArgs {}

#[derive(Debug, Serialize, JsonSchema)]
struct StatsBody {
    #[serde(flatten)]
    facts: Facts,
    lagged_recoveries: u64,
    gap_bytes: u64,
    queue_high_watermark: u64,
    block_total_ms: u64,
    byte_triggered_flushes: u64,
    filtered_events: u64,
    cursor: u64,
    lag_bytes: u64,
    effective_debounce_ms: u64,
    effective_flush_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    inline_push: bool,
    inline_push_honored: bool,
    inline_events_sent: u64,
    inline_bytes_sent: u64,
    inline_events_failed: u64,
}

impl Body for StatsBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.key("SUB_ID", &self.facts.sub_id);
        text.key("URI", &self.facts.uri);
        text.key("LIFETIME", self.facts.lifetime);
        text.key("LAG_POLICY", self.facts.lag_policy);
        text.key("PAUSED", self.facts.paused);
        text.key("ORIGIN", self.facts.origin);
        text.maybe("FILTER", self.facts.filter.as_ref());
        for (name, count) in [
            ("EVENTS_SENT", self.facts.events_sent),
            ("BYTES_SENT", self.facts.bytes_sent),
            ("LAGGED_DROPS", self.facts.lagged_drops),
            ("LAGGED_RECOVERIES", self.lagged_recoveries),
            ("GAP_BYTES", self.gap_bytes),
            ("QUEUE_DEPTH", self.facts.queue_depth),
            ("QUEUE_HIGH_WATERMARK", self.queue_high_watermark),
            ("BLOCK_TOTAL_MS", self.block_total_ms),
            ("BYTE_TRIGGERED_FLUSHES", self.byte_triggered_flushes),
            ("FILTERED_EVENTS", self.filtered_events),
            ("CURSOR", self.cursor),
            ("LAG_BYTES", self.lag_bytes),
            ("EFFECTIVE_DEBOUNCE_MS", self.effective_debounce_ms),
            ("EFFECTIVE_FLUSH_BYTES", self.effective_flush_bytes),
        ] {
            text.key(name, count);
        }
        text.key("CREATED_AT", &self.facts.created_at);
        text.maybe("LAST_EVENT_AT", self.facts.last_event_at.as_ref());
        text.maybe("EXPIRES_AT", self.expires_at.as_ref());
        text.key("INLINE_PUSH", self.inline_push);
        text.key("INLINE_PUSH_HONORED", self.inline_push_honored);
        text.key("INLINE_EVENTS_SENT", self.inline_events_sent);
        text.key("INLINE_BYTES_SENT", self.inline_bytes_sent);
        text.key("INLINE_EVENTS_FAILED", self.inline_events_failed);
    }
}

async fn stats(cx: &Cx, args: StatsArgs) -> Result<Answer<StatsBody>, Failure> {
    let lane = cx.lane(&args.sub_id)?;
    let report = lane.report();
    let stats = report.stats;
    let body = StatsBody {
        lagged_recoveries: stats.lagged_recoveries,
        gap_bytes: stats.gap_bytes,
        queue_high_watermark: stats.queue_high_watermark,
        block_total_ms: millis(stats.blocked),
        byte_triggered_flushes: stats.byte_triggered_flushes,
        filtered_events: stats.filtered_events,
        cursor: report.cursor,
        lag_bytes: lane.lag(report.cursor),
        effective_debounce_ms: millis(report.debounce),
        effective_flush_bytes: report.bytes.unwrap_or(0),
        expires_at: report.expires.map(|at| cx.rfc3339(at)),
        inline_push: lane.inline != Inline::NotAsked,
        inline_push_honored: matches!(lane.form, Form::Payload { .. }),
        inline_events_sent: stats.inline_events_sent,
        inline_bytes_sent: stats.inline_bytes_sent,
        inline_events_failed: stats.inline_events_failed,
        facts: Facts::new(cx, &lane, report),
    };
    let next = next::next(&cx.catalogue, After::LaneSteered(lane.id));
    Ok(Answer::new("ok", body).with_warnings(warnings(cx, &lane)).with_next(next))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct AllArgs {}

impl Arguments for AllArgs {}

#[derive(Debug, Serialize, JsonSchema)]
struct AllBody {
    lanes_total: u64,
    events_sent_total: u64,
    bytes_sent_total: u64,
    lagged_drops_total: u64,
    lagged_recoveries_total: u64,
    queue_depth_max: u64,
    queue_high_watermark_max: u64,
    block_total_ms_total: u64,
    mux_queue_depth: u64,
    active_sessions: u64,
    active_subs: u64,
}

impl Body for AllBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        for (name, count) in [
            ("LANES_TOTAL", self.lanes_total),
            ("EVENTS_SENT_TOTAL", self.events_sent_total),
            ("BYTES_SENT_TOTAL", self.bytes_sent_total),
            ("LAGGED_DROPS_TOTAL", self.lagged_drops_total),
            ("LAGGED_RECOVERIES_TOTAL", self.lagged_recoveries_total),
            ("QUEUE_DEPTH_MAX", self.queue_depth_max),
            ("QUEUE_HIGH_WATERMARK_MAX", self.queue_high_watermark_max),
            ("BLOCK_TOTAL_MS_TOTAL", self.block_total_ms_total),
            ("MUX_QUEUE_DEPTH", self.mux_queue_depth),
            ("ACTIVE_SESSIONS", self.active_sessions),
            ("ACTIVE_SUBS", self.active_subs),
        ] {
            text.key(name, count);
        }
    }
}

async fn all(cx: &Cx, _args: AllArgs) -> Result<Answer<AllBody>, Failure> {
    let all = cx.engine.lane_sums(&cx.owner);
    let sums = all.sums;
    Ok(Answer::new(
        "ok",
        AllBody {
            lanes_total: all.lanes,
            events_sent_total: sums.events_sent,
            bytes_sent_total: sums.bytes_sent,
            lagged_drops_total: sums.lagged_drops,
            lagged_recoveries_total: sums.lagged_recoveries,
            queue_depth_max: all.queue_depth_max,
            queue_high_watermark_max: sums.queue_high_watermark,
            block_total_ms_total: sums.blocked_ms,
            mux_queue_depth: all.waiting,
            active_sessions: all.sessions,
            active_subs: all.lanes,
        },
    ))
}
