//! `ssh_resources`: everything that lives or is retained, of every kind, in one list.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ssh_mcp_core::{
    kind::forward::Passage,
    port::Glimpse,
    reason::Reason,
    settings::Settings,
    text,
    uri::{Resource, Scheme},
};

use super::{Effect, Key, Reach, Repeat, Row, Set, call};
use crate::{
    args::Arguments,
    cx::Cx,
    failure::Failure,
    reply::{Answer, Body, Text},
};

/// The listing tool.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "ssh_resources",
    title: "List sessions and what runs on them",
    description: "Lists everything this server holds for you, of every kind, newest first: sessions, shells, commands, transfers, syncs, forwards and serial ports, \
                  each with its URI, state, age and how much it printed or moved. Take it to find something again whose id you \
                  no longer have, by session, agent, target or name; it looks at nothing remote. include_ended also \
                  shows what has ended and can still be read. For sessions with a health check take ssh_sessions.",
    effect: Effect::ReadOnly,
    repeat: Repeat::Harmless,
    reach: Reach::Held,
    key: Key::Ignored,
    sets: &[Set::Connection],
    makes: None,
    call: call!(list, ListArgs, ListBody),
}];

#[derive(Debug, Deserialize, JsonSchema)]
struct ListArgs {
    /// Only this kind.
    kind: Option<Kind>,
    /// Only what runs on this session.
    session_id: Option<String>,
    /// Only what this agent made.
    agent_id: Option<String>,
    /// Only this host: user@host:port, or a part of it.
    target: Option<String>,
    /// Only what has this label.
    name: Option<String>,
    /// Also what has ended and is still readable.
    #[serde(default)]
    include_ended: bool,
    #[schemars(range(min = 1))]
    max_items: Option<u64>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Session,
    Shell,
    Command,
    Transfer,
    Rsync,
    Forward,
    Serial,
}

impl Arguments for ListArgs {
    fn defaults(settings: &Settings) -> Vec<(&'static str, Value)> {
        vec![("max_items", json!(settings.list_default))]
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct ListBody {
    resources: Vec<Listed>,
    count: usize,
    total: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Listed {
    uri: String,
    kind: &'static str,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<String>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    target: String,
    description: String,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    observers: u32,
    bytes: u64,
    uptime_seconds: u64,
    idle_seconds: u64,
    #[serde(flatten)]
    passage: Option<Leads>,
}

/// Of a forward: which side listens, and where it leads.
#[derive(Debug, Serialize, JsonSchema)]
struct Leads {
    direction: &'static str,
    bind_address: String,
    local_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_port: Option<u16>,
}

impl From<&Passage> for Leads {
    fn from(passage: &Passage) -> Self {
        let remote_port = match passage {
            Passage::Local { to, .. } => Some(to.port),
            Passage::Remote { listen, .. } => Some(listen.port),
            Passage::Dynamic { .. } => None,
        };
        Self {
            direction: passage.facing().as_str(),
            bind_address: passage.listen().host.clone(),
            local_port: passage.local_port(),
            remote_address: passage.to().map(|to| to.host.clone()),
            remote_port,
        }
    }
}

impl Body for ListBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.count(self.count, self.total);
        for listed in &self.resources {
            text.item(format_args!("{} [{}] {}", listed.uri, listed.status, listed.line()));
        }
    }
}

impl Listed {
    fn new(cx: &Cx, scheme: Scheme, glimpse: Glimpse) -> Self {
        let now = cx.engine.clock().now();
        let until = glimpse.ended.unwrap_or(now);
        Self {
            uri: Resource { scheme, id: glimpse.id }.to_string(),
            kind: scheme.as_str(),
            id: glimpse.id.to_string(),
            session_id: glimpse.session.map(|id| id.to_string()),
            agent_id: glimpse.agent,
            status: glimpse.status,
            name: glimpse.name,
            target: glimpse.target,
            description: glimpse.description,
            created_at: cx.rfc3339(glimpse.created),
            ended_at: glimpse.ended.map(|at| cx.rfc3339(at)),
            reason: glimpse.reason.map(Reason::as_str),
            observers: glimpse.observers,
            bytes: glimpse.bytes,
            uptime_seconds: seconds_between(glimpse.created, until),
            idle_seconds: seconds_between(glimpse.active, until),
            passage: glimpse.passage.as_ref().map(Leads::from),
        }
    }

    /// The facts that stand behind URI and status.
    fn line(&self) -> String {
        let mut parts = vec![self.description.clone()];
        parts.extend(self.name.as_ref().map(|name| format!("name: {name}")));
        parts.extend(self.agent_id.as_ref().map(|agent| format!("agent: {agent}")));
        parts.push(format!("created: {}", self.created_at));
        if let (Some(at), Some(reason)) = (&self.ended_at, self.reason) {
            parts.push(format!("ended: {at} {reason}"));
        }
        parts.extend(self.passage.as_ref().map(|leads| format!("direction: {}", leads.direction)));
        parts.push(format!("observers: {}", self.observers));
        let moves =
            [Scheme::Transfer, Scheme::Rsync, Scheme::Forward].map(Scheme::as_str).contains(&self.kind);
        let bytes = match self.kind {
            _ if moves => "moved",
            kind if kind == Scheme::Serial.as_str() => "received",
            _ => "printed",
        };
        parts.push(format!("{bytes}: {}", text::human_size(self.bytes)));
        parts.push(format!("up: {} s", self.uptime_seconds));
        parts.push(format!("idle: {} s", self.idle_seconds));
        parts.join(", ")
    }
}

async fn list(cx: &Cx, args: ListArgs) -> Result<Answer<ListBody>, Failure> {
    let wanted = |glimpse: &Glimpse| {
        let is = |asked: &Option<String>, value: Option<&str>| {
            asked.as_deref().is_none_or(|asked| value == Some(asked))
        };
        let session = glimpse.session.map(|id| id.to_string());
        (args.include_ended || glimpse.ended.is_none())
            && args.session_id.as_deref().is_none_or(|asked| {
                session.as_deref().is_some_and(|session| session.eq_ignore_ascii_case(asked.trim()))
            })
            && is(&args.agent_id, glimpse.agent.as_deref())
            && is(&args.name, glimpse.name.as_deref())
            && args.target.as_deref().is_none_or(|asked| leads_to(&glimpse.target, asked.trim()))
    };
    let most = cx.list_items(args.max_items);
    let mut total = 0;
    let mut resources = Vec::new();
    let mut leaks = Vec::new();
    for directory in cx.engine.registries().directories() {
        let scheme = directory.scheme();
        if args.kind.is_some_and(|kind| Scheme::from(kind) != scheme) {
            continue;
        }
        for glimpse in directory.glimpses(&cx.owner).into_iter().filter(wanted) {
            total += 1;
            if resources.len() < most {
                leaks.extend(cx.leak(Resource { scheme, id: glimpse.id }));
                resources.push(Listed::new(cx, scheme, glimpse));
            }
        }
    }
    Ok(Answer::new("ok", ListBody { count: resources.len(), total, resources }).with_warnings(leaks))
}

/// Whether `asked` is the target or one of its parts: host, host with port, or user and host.
fn leads_to(target: &str, asked: &str) -> bool {
    let place = target.split_once('@').map_or(target, |(_, place)| place);
    let without_port =
        |text: &str| text.rsplit_once(':').map_or(text.to_owned(), |(host, _)| host.to_owned());
    [target.to_owned(), place.to_owned(), without_port(target), without_port(place)]
        .iter()
        .any(|part| part.eq_ignore_ascii_case(asked))
}

fn seconds_between(from: Duration, to: Duration) -> u64 {
    to.saturating_sub(from).as_secs()
}

impl From<Kind> for Scheme {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Session => Self::Session,
            Kind::Shell => Self::Shell,
            Kind::Command => Self::Command,
            Kind::Transfer => Self::Transfer,
            Kind::Rsync => Self::Rsync,
            Kind::Forward => Self::Forward,
            Kind::Serial => Self::Serial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_found_by_any_of_their_parts() {
        for asked in ["ann@example.org:22", "example.org", "EXAMPLE.org:22", "ann@example.org"] {
            assert!(leads_to("ann@example.org:22", asked), "{asked}");
        }
        for asked in ["", "ann", "example", "example.org:2222", "bob@example.org"] {
            assert!(!leads_to("ann@example.org:22", asked), "{asked}");
        }
    }
}
