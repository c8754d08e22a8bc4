//! `sub_wait`: news of several resources in one blocking call, for hosts that show no notification to their model.
//!
//! Waiting takes nothing. What is shown is claimed afterwards, from the automatic cursor of the connection, an explicit
//! one, or through a lane, so that each byte is shown once and none is passed over.

mod claim;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ssh_mcp_core::{
    history::History,
    lane::{Filter, Form, millis},
    settings::Settings,
    uri::{self, CursorAt, Resource, Uri},
};
use ssh_mcp_engine::{Place, Source, Until, WaitItem, WaitOver};

use super::{Effect, Key, Reach, Repeat, Row, Set, bad_filter, call};
use crate::{
    args::{Arguments, shown},
    cx::Cx,
    failure::Failure,
    next::{self, After},
    progress::{Beat, EVERY_5_S, Waiting},
    push,
    reply::{Answer, Body, Shown, Text},
};
use claim::{Claim, shares};

pub(super) const ROW: Row = Row {
    name: "sub_wait",
    title: "Wait for news",
    description: "Waits until one of several resources has news and returns it, each byte once: the way to \
                  follow commands and shells without polling. TIMEOUT: nothing was taken; call again. What \
                  max_output_bytes leaves out of the middle says which cursor fetches it.",
    effect: Effect::ReadOnly,
    repeat: Repeat::Counts,
    reach: Reach::Held,
    key: Key::Ignored,
    sets: &[Set::Sub, Set::Core],
    makes: None,
    call: call!(wait, WaitArgs, WaitBody),
};

#[derive(Debug, Deserialize, JsonSchema)]
struct WaitArgs {
    /// Resource URIs; ?cursor=N starts there.
    #[serde(default)]
    #[schemars(length(max = 16))]
    uris: Vec<String>,
    /// Lanes, with their filter.
    #[serde(default)]
    #[schemars(length(max = 16))]
    sub_ids: Vec<String>,
    until: Option<UntilWord>,
    /// Regular expressions for match.
    #[serde(default)]
    #[schemars(length(max = 16))]
    patterns: Vec<String>,
    /// Silence for quiet.
    #[serde(default = "five_hundred")]
    quiet_ms: u64,
    /// At most 300.
    #[serde(default = "twenty_five")]
    timeout_secs: u64,
    #[schemars(range(min = 1))]
    max_output_bytes: Option<u64>,
    #[serde(default = "yes")]
    strip_ansi: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum UntilWord {
    News,
    End,
    Quiet,
    Match,
}

fn five_hundred() -> u64 {
    500
}

fn twenty_five() -> u64 {
    25
}

fn yes() -> bool {
    true
}

impl Arguments for WaitArgs {
    fn defaults(settings: &Settings) -> Vec<(&'static str, Value)> {
        vec![("until", json!("news")), ("max_output_bytes", json!(settings.output_default))]
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct WaitBody {
    waited_ms: u64,
    items: Vec<ItemBody>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ItemBody {
    uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_id: Option<String>,
    kind: &'static str,
    status: &'static str,
    delta: String,
    cursor: u64,
    more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matched_pattern: Option<String>,
    /// Bytes shown.
    bytes: u64,
    /// Bytes that were new.
    total: u64,
}

impl Body for WaitBody {
    const STATUSES: &'static [&'static str] = &["news", "ended", "quiet", "matched", "timeout"];

    fn write(&self, text: &mut Text) {
        text.key("WAITED_MS", self.waited_ms);
        for item in &self.items {
            text.item(item.line());
        }
        for (at, item) in self.items.iter().enumerate().filter(|(_, item)| !item.delta.is_empty()) {
            let name = if self.items.len() == 1 { "data".to_owned() } else { format!("data {at}") };
            text.block(&name, &Shown::whole(item.delta.clone()));
        }
    }
}

impl ItemBody {
    /// The item as the only one of an answer.
    pub(crate) fn write(&self, text: &mut Text) {
        text.item(self.line());
        if !self.delta.is_empty() {
            text.block("data", &Shown::whole(self.delta.clone()));
        }
    }

    fn line(&self) -> String {
        let mut line = format!(
            "{} [{}] {} cursor={} bytes={} total={}",
            self.uri, self.status, self.kind, self.cursor, self.bytes, self.total
        );
        line.extend(self.sub_id.iter().map(|id| format!(" sub_id={id}")));
        line.extend(self.gap_bytes.iter().map(|gap| format!(" gap={gap}")));
        line.extend(self.exit_code.iter().map(|code| format!(" exit={code}")));
        line.extend(self.reason.iter().map(|reason| format!(" reason={reason}")));
        line.extend(self.matched_pattern.iter().map(|pattern| format!(" matched={pattern}")));
        if self.more {
            line.push_str(" more=true");
        }
        line
    }
}

/// What the answer to something is known by, for a call that asks and waits in one.
pub(crate) struct Patterns {
    texts: Vec<String>,
    until: Until,
}

/// How a wait for an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answered {
    /// A pattern appeared.
    Matched,
    /// The resource has ended without one.
    Ended,
    /// The time has.
    Timeout,
}

impl Answered {
    /// The word on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Ended => "ended",
            Self::Timeout => "timeout",
        }
    }
}

impl Patterns {
    /// Patterns as `sub_wait` takes them, from the argument `field`.
    ///
    /// # Errors
    /// `FILTER_INVALID` for the first that is none.
    pub(crate) fn compile(field: &str, texts: Vec<String>) -> Result<Self, Failure> {
        let until = Until::Match(compiled(field, &texts)?);
        Ok(Self { texts, until })
    }

    /// Waits until one of them appears behind a place, and shows what came, whether one did or not.
    pub(crate) async fn await_behind(
        &self,
        cx: &Cx,
        source: Source,
        from: u64,
        patience: Duration,
    ) -> (Answered, ItemBody) {
        let patience = patience.min(LONGEST);
        let clock = cx.engine.clock();
        let began = clock.now();
        let item = Item { wait: WaitItem { source, place: Place::Behind(from) }, from: From::Explicit(from) };
        let beat = || Beat {
            progress: clock.now().saturating_sub(began).as_secs(),
            total: Some(patience.as_secs()),
            message: "waiting for an answer".into(),
        };
        let work = cx.engine.await_items(std::slice::from_ref(&item.wait), &self.until, patience);
        let over = match cx.progress.while_waiting(EVERY_5_S, work, beat).await {
            Waiting::Done(over) => over,
            // Nobody reads the answer, so nothing is taken for it.
            Waiting::Cancelled => return (Answered::Timeout, item.untouched()),
        };
        let budget = cx.output_bytes(None);
        let claim = item.claim(cx, budget);
        let mut body = item.untouched();
        claim.show(cx, &item, budget, true, &mut body).await;
        let answered = match over {
            WaitOver::Matched { pattern, .. } => {
                body.matched_pattern = self.texts.get(pattern).cloned();
                Answered::Matched
            }
            WaitOver::Ended => Answered::Ended,
            WaitOver::News | WaitOver::Quiet | WaitOver::Patience => Answered::Timeout,
        };
        (answered, body)
    }
}

fn compiled(field: &str, patterns: &[String]) -> Result<Vec<Filter>, Failure> {
    let compile = |(at, pattern): (usize, &String)| {
        Filter::compile(pattern, LONGEST_PATTERN)
            .map_err(|error| bad_filter(&format!("{field}[{at}]"), &error))
    };
    patterns.iter().enumerate().map(compile).collect()
}

/// One resource of the call, and where what is new begins.
struct Item {
    wait: WaitItem,
    from: From,
}

/// What is claimed, and of whom.
#[derive(Debug, Clone, Copy)]
enum From {
    /// The connection's automatic cursor.
    Auto,
    /// A place the caller named.
    Explicit(u64),
    /// The lane of the item.
    Lane,
}

async fn wait(cx: &Cx, args: WaitArgs) -> Result<Answer<WaitBody>, Failure> {
    let items = args.items(cx)?;
    let until = args.until()?;
    let patience = Duration::from_secs(args.timeout_secs).min(LONGEST);
    let clock = cx.engine.clock();
    let began = clock.now();
    let elapsed = || clock.now().saturating_sub(began);
    let waits: Vec<WaitItem> = items.iter().map(|item| item.wait.clone()).collect();
    let beat = || Beat {
        progress: elapsed().as_secs(),
        total: Some(patience.as_secs()),
        message: "waiting for news".into(),
    };
    let work = cx.engine.await_items(&waits, &until, patience);
    let over = match cx.progress.while_waiting(EVERY_5_S, work, beat).await {
        Waiting::Done(over) => over,
        Waiting::Cancelled => WaitOver::Patience,
    };
    let budget = cx.output_bytes(args.max_output_bytes);
    let bodies = match over {
        WaitOver::Patience => items.iter().map(Item::untouched).collect(),
        WaitOver::News | WaitOver::Ended | WaitOver::Quiet | WaitOver::Matched { .. } => {
            args.claim(cx, &items, over, budget).await
        }
    };
    let status = match over {
        WaitOver::News => "news",
        WaitOver::Ended => "ended",
        WaitOver::Quiet => "quiet",
        WaitOver::Matched { .. } => "matched",
        WaitOver::Patience => "timeout",
    };
    let answer = Answer::new(status, WaitBody { waited_ms: millis(elapsed()), items: bodies });
    Ok(match over {
        WaitOver::Ended => answer,
        WaitOver::News | WaitOver::Quiet | WaitOver::Matched { .. } | WaitOver::Patience => {
            let live: Vec<Resource> =
                items.iter().filter(|item| !item.has_ended()).map(Item::resource).collect();
            answer.with_next(next::next(&cx.catalogue, After::Waited(&live)))
        }
    })
}

/// Longest wait of one call.
const LONGEST: Duration = Duration::from_secs(300);

/// Longest expression.
const LONGEST_PATTERN: usize = 1024;

impl WaitArgs {
    fn items(&self, cx: &Cx) -> Result<Vec<Item>, Failure> {
        if self.uris.is_empty() && self.sub_ids.is_empty() {
            return Err(Failure::argument(
                "uris or sub_ids must name at least one resource or lane; both are empty",
            ));
        }
        let mut items = Vec::new();
        for (at, text) in self.uris.iter().enumerate() {
            let uri = uri::parse(text).map_err(|error| {
                Failure::uri(&format!("uris[{at}]"), &shown("uris", &json!(text)), &error)
            })?;
            items.push(Item::of_uri(cx, text, &uri)?);
        }
        for id in &self.sub_ids {
            let lane = cx.lane(id)?;
            if lane.form != Form::Pull {
                let got = shown("sub_ids", &json!(id));
                return Err(Failure::argument(format!(
                    "sub_ids must be lanes that are read from; this one brings its bytes: {got}"
                )));
            }
            let wait = WaitItem { source: lane.source().clone(), place: Place::Lane(lane) };
            items.push(Item { wait, from: From::Lane });
        }
        Ok(items)
    }

    fn until(&self) -> Result<Until, Failure> {
        let word =
            self.until.unwrap_or(if self.patterns.is_empty() { UntilWord::News } else { UntilWord::Match });
        match (word, self.patterns.is_empty()) {
            (UntilWord::Match, true) => {
                Err(Failure::argument("patterns must hold 1 to 16 texts with until=match"))
            }
            (UntilWord::News | UntilWord::End | UntilWord::Quiet, false) => {
                Err(Failure::argument("patterns are only for until=match"))
            }
            (UntilWord::News, true) => Ok(Until::News),
            (UntilWord::End, true) => Ok(Until::End),
            (UntilWord::Quiet, true) => {
                Ok(Until::Quiet(Duration::from_millis(self.quiet_ms.clamp(10, 60_000))))
            }
            (UntilWord::Match, false) => Ok(Until::Match(compiled("patterns", &self.patterns)?)),
        }
    }

    /// Takes what is new of every item and shows it within the budget.
    async fn claim(&self, cx: &Cx, items: &[Item], over: WaitOver, budget: usize) -> Vec<ItemBody> {
        let claims: Vec<Claim> = items.iter().map(|item| item.claim(cx, budget)).collect();
        let shares = shares(budget, claims.iter().map(Claim::size));
        let mut bodies = Vec::new();
        for ((at, item), (claim, share)) in items.iter().enumerate().zip(claims.iter().zip(shares)) {
            let mut body = item.untouched();
            claim.show(cx, item, share, self.strip_ansi, &mut body).await;
            if let WaitOver::Matched { item, pattern } = over
                && item == at
            {
                body.matched_pattern = self.patterns.get(pattern).cloned();
            }
            bodies.push(body);
        }
        bodies
    }
}

impl Item {
    fn of_uri(cx: &Cx, text: &str, uri: &Uri) -> Result<Self, Failure> {
        let source = match uri.resource() {
            Some(resource) => cx.engine.source(&cx.owner, resource).map_err(Failure::no_resource)?,
            None => return Err(Failure::no_resource(push::unknown(&cx.engine, &cx.owner, uri))),
        };
        let query = text.split_once('?').map_or("", |(_, query)| query);
        let names_zero = query.split('&').any(|pair| pair == "cursor=0");
        let (from, behind) = match (uri.query.cursor, &cx.push) {
            (CursorAt::At(at), _) => (From::Explicit(at), at),
            (CursorAt::Base, _) if names_zero => (From::Explicit(0), 0),
            (CursorAt::Base | CursorAt::Auto, Some(push)) => {
                (From::Auto, push.peer.cursor(source.resource()).value())
            }
            // Nobody remembers what this caller has read: everything held is new.
            (CursorAt::Base | CursorAt::Auto, None) => (From::Explicit(0), 0),
        };
        Ok(Self { wait: WaitItem { source, place: Place::Behind(behind) }, from })
    }

    fn source(&self) -> &Source {
        &self.wait.source
    }

    fn resource(&self) -> Resource {
        self.source().resource()
    }

    fn has_ended(&self) -> bool {
        self.source().history().mark().ended
    }

    /// The item without what is new; of that only the size is told.
    fn untouched(&self) -> ItemBody {
        let source = self.source();
        let resource = source.resource();
        let end = source.end_words().filter(|_| self.has_ended());
        let mark = source.history().mark();
        let (cursor, sub_id) = match &self.wait.place {
            Place::Behind(at) => (*at, None),
            Place::Lane(lane) => (lane.report().cursor, Some(lane.id.to_string())),
        };
        let total = match source.history() {
            History::Bytes(_) => mark.end.saturating_sub(cursor.max(mark.base)),
            History::Log(_) | History::State(_) => 0,
        };
        ItemBody {
            uri: resource.to_string(),
            sub_id,
            kind: resource.scheme.as_str(),
            status: source.status(),
            delta: String::new(),
            cursor,
            more: total > 0,
            gap_bytes: None,
            exit_code: end.and_then(|words| words.exit_code),
            reason: end.map(|words| words.reason.as_str()),
            matched_pattern: None,
            bytes: 0,
            total,
        }
    }
}
