//! `sub_open`: a lane on a resource.

use std::{sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ssh_mcp_core::{
    code::{Code, Warning},
    lane::{Lifetime, Options, Start, millis},
    settings::{Settings, Unit},
    uri,
};
use ssh_mcp_engine::{Inline, LaneEntry, OpenLane, Origin};

use super::{Effect, Key, Reach, Repeat, Row, Set, call};
use crate::{
    args::{Arguments, shown},
    cx::Cx,
    failure::Failure,
    next::{self, After},
    push,
    reply::{Answer, Body, Text, Warned},
};

pub(super) const ROW: Row = Row {
    name: "sub_open",
    title: "Subscribe to a resource",
    description: "Opens a lane: from now on this client is notified when the resource at uri has news, and told once when \
                  it ends; what is already held counts as news. Read with resources/read uri?cursor=auto, or through \
                  the lane with ?sub_id= to have its filter apply. Take sub_wait instead where notifications are not \
                  shown to you. Keep the SUB_ID: sub_close ends the lane, and so do its lifetime, the end of this \
                  connection and that of the resource's retention. It ends nothing else.",
    effect: Effect::Adds,
    repeat: Repeat::Counts,
    reach: Reach::Held,
    key: Key::Honoured,
    sets: &[Set::Sub],
    makes: None,
    call: call!(open, OpenArgs, OpenBody),
};

#[derive(Debug, Deserialize, JsonSchema)]
struct OpenArgs {
    /// Any resource URI; a query is ignored.
    uri: String,
    /// manual, auto_close or lease.
    #[serde(default = "manual")]
    lifetime: String,
    /// auto_close: time between the delivered end and the lane's own.
    #[schemars(range(max = 3_600_000))]
    grace_ms: Option<u64>,
    /// lease: 1 to 86400; sub_resume renews it.
    #[serde(default = "sixty")]
    ttl_secs: i64,
    /// When it lags: snapshot catches up, block_slow holds the history back, drop_oldest, drop_newest lose.
    lag_policy: Option<String>,
    /// A regular expression; only lines that match count.
    filter: Option<String>,
    /// A byte offset, or "now".
    start: Option<Value>,
    /// Least time between two notifications, 5 to 5000; a number or a text such as 25ms.
    debounce_ms: Option<Value>,
    /// Unannounced bytes that are announced at once; 0 is off; a number or a text such as 16k.
    flush_bytes: Option<Value>,
    /// Bytes inside the notifications, for clients that declared ssh_inline_push; others still read.
    inline_push: Option<bool>,
}

fn manual() -> String {
    "manual".to_owned()
}

fn sixty() -> i64 {
    60
}

impl Arguments for OpenArgs {
    fn defaults(settings: &Settings) -> Vec<(&'static str, Value)> {
        vec![
            ("grace_ms", json!(millis(settings.lifecycle_grace))),
            ("lag_policy", json!(settings.lag_policy.as_str())),
            ("start", json!(0)),
            ("inline_push", json!(settings.inline_push)),
        ]
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct OpenBody {
    sub_id: String,
    uri: String,
    lifetime: &'static str,
    lag_policy: &'static str,
    grace_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_secs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<String>,
    cursor: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    inline_push: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inline_push_honored: Option<bool>,
}

impl Body for OpenBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.key("SUB_ID", &self.sub_id);
        text.key("URI", &self.uri);
        text.key("LIFETIME", self.lifetime);
        text.key("LAG_POLICY", self.lag_policy);
        text.key("GRACE_MS", self.grace_ms);
        text.maybe("TTL_SECS", self.ttl_secs);
        text.maybe("FILTER", self.filter.as_ref());
        text.key("CURSOR", self.cursor);
        let word = |flag| if flag { "yes" } else { "no" };
        text.maybe("INLINE_PUSH", self.inline_push.map(word));
        text.maybe("INLINE_PUSH_HONORED", self.inline_push_honored.map(word));
    }
}

async fn open(cx: &Cx, args: OpenArgs) -> Result<Answer<OpenBody>, Failure> {
    let settings = cx.settings();
    let uri = uri::parse(&args.uri)
        .map_err(|error| Failure::uri("uri", &shown("uri", &json!(args.uri)), &error))?;
    let source = match uri.resource() {
        Some(resource) => cx.engine.source(&cx.owner, resource).map_err(Failure::no_resource)?,
        None => return Err(Failure::no_resource(push::unknown(&cx.engine, &cx.owner, &uri))),
    };
    let (mut options, warnings) = args.options(settings)?;
    options.filter = match args.filter.as_deref() {
        None | Some("") => None,
        Some(expression) => Some(super::filter(cx, "filter", expression)?),
    };
    let push = cx.push.as_ref().ok_or_else(|| {
        Failure::argument("this request has no connection that outlives it, so nothing could be told")
            .with_context("subscribe with subscriptions/listen, whose stream carries the notifications")
    })?;
    let wished = args.inline_push.unwrap_or(settings.inline_push);
    let (form, inline) = push::inline(settings, wished, push, &source);
    options.form = form;
    let body = push::body(&cx.engine, &source);
    let grace = options.linger;
    let lane = cx.engine.open_lane(
        &cx.owner,
        &push.peer,
        OpenLane {
            source,
            uri: args.uri,
            options,
            inline,
            origin: Origin::SubOpen,
            outlet: Arc::clone(&push.outlet),
            body,
        },
    )?;
    let hints = [Some(next::close_hint(&cx.catalogue, lane.id)), declined(cx, &lane)];
    let answer = Answer::new("ok", OpenBody::new(&lane, grace)).with_warnings(warnings);
    let answer = hints.into_iter().fold(answer, Answer::with_hint);
    Ok(answer.with_next(next::next(&cx.catalogue, After::LaneOpened(lane.id))))
}

/// Why bytes do not come along although they were asked for.
fn declined(cx: &Cx, lane: &LaneEntry) -> Option<String> {
    if lane.inline != Inline::Declined {
        return None;
    }
    let why = match (cx.settings().inline_piece, cx.push.as_ref().and_then(|push| push.encodings)) {
        (None, _) => "the operator switched inline push off",
        (Some(_), None) => "this client has not declared experimental.ssh_inline_push",
        (Some(_), Some(_)) => "this kind of resource has no bytes",
    };
    Some(format!("RECOMMENDED: read on notification, since {why}"))
}

impl OpenArgs {
    /// Everything but the filter and the form. Timing beyond its bounds is held to them, with a warning.
    fn options(&self, settings: &Settings) -> Result<(Options, Vec<Warned>), Failure> {
        let mut options = push::defaults(settings);
        options.linger = self.grace_ms.map_or(options.linger, Duration::from_millis);
        options.lifetime = match word(&self.lifetime).as_str() {
            "manual" => Lifetime::Manual,
            "auto_close" => Lifetime::AutoClose(options.linger),
            "lease" => Lifetime::Lease(self.ttl()?),
            _ => {
                let got = shown("lifetime", &json!(self.lifetime));
                let reason = format!("lifetime must be one of manual, auto_close, lease; got {got}");
                return Err(Failure::new(Code::InvalidLifetime, reason));
            }
        };
        if let Some(policy) = &self.lag_policy {
            options.policy = push::lag_policy(policy).ok_or_else(|| {
                let got = shown("lag_policy", &json!(policy));
                let words = "snapshot, block_slow, drop_oldest, drop_newest";
                Failure::new(Code::InvalidLagPolicy, format!("lag_policy must be one of {words}; got {got}"))
            })?;
        }
        options.start = match &self.start {
            None => Start::At(0),
            Some(start) => parse_start(start)?,
        };
        let mut warnings = Vec::new();
        if let Some(value) = &self.debounce_ms {
            let asked = quantity("debounce_ms", value, Unit::Millis)?;
            let held = asked.clamp(5, 5000);
            warnings.extend(clamped("debounce_ms", asked, held));
            options.timing.debounce = Duration::from_millis(held);
        }
        if let Some(value) = &self.flush_bytes {
            let asked = quantity("flush_bytes", value, Unit::Bytes)?;
            let held = if asked == 0 { 0 } else { asked.clamp(1 << 10, 1 << 20) };
            warnings.extend(clamped("flush_bytes", asked, held));
            options.timing.bytes = (held > 0).then_some(held);
        }
        Ok((options, warnings))
    }

    fn ttl(&self) -> Result<Duration, Failure> {
        let secs = u64::try_from(self.ttl_secs).ok().filter(|secs| (1..=86_400).contains(secs));
        secs.map(Duration::from_secs).ok_or_else(|| {
            let reason =
                format!("ttl_secs must be an integer from 1 to 86400; got the number {}", self.ttl_secs);
            Failure::new(Code::InvalidLifetime, reason)
        })
    }
}

fn word(text: &str) -> String {
    text.trim().to_ascii_lowercase().replace('-', "_")
}

fn parse_start(value: &Value) -> Result<Start, Failure> {
    let number = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
    match (number, value.as_str().map(word).as_deref()) {
        (Some(at), _) => Ok(Start::At(at)),
        (None, Some("now")) => Ok(Start::Now),
        (None, _) => {
            let got = shown("start", value);
            Err(Failure::argument(format!("start must be a byte offset from 0, or \"now\"; got {got}")))
        }
    }
}

/// A number, or a text with a unit.
fn quantity(field: &str, value: &Value, unit: Unit) -> Result<u64, Failure> {
    let number = value.as_u64().or_else(|| unit.read(value.as_str()?.trim()));
    number.ok_or_else(|| {
        let example = if unit == Unit::Bytes { "16k" } else { "25ms" };
        let got = shown(field, value);
        Failure::argument(format!(
            "{field} must be an integer from 0, or a text such as {example}; got {got}"
        ))
    })
}

fn clamped(field: &'static str, asked: u64, held: u64) -> Option<Warned> {
    (asked != held).then(|| {
        Warned::new(Warning::NotifyOverrideClamped, format!("{field} is held to {held}; asked was {asked}"))
            .with_field(field)
    })
}

impl OpenBody {
    fn new(lane: &LaneEntry, grace: Duration) -> Self {
        let report = lane.report();
        let asked = lane.inline != Inline::NotAsked;
        Self {
            sub_id: lane.id.to_string(),
            uri: lane.resource.to_string(),
            lifetime: lane.lifetime.as_str(),
            lag_policy: report.policy.as_str(),
            grace_ms: millis(grace),
            ttl_secs: match lane.lifetime {
                Lifetime::Lease(ttl) => Some(ttl.as_secs()),
                Lifetime::Manual | Lifetime::AutoClose(_) => None,
            },
            filter: report.filter,
            cursor: report.cursor,
            inline_push: asked.then_some(true),
            inline_push_honored: asked.then(|| lane.inline == Inline::Honoured),
        }
    }
}
