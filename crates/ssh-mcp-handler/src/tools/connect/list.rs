//! `ssh_sessions`, and how a session is shown wherever several are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ssh_mcp_core::{
    registry::{Expiry, HealthWord, Session},
    settings::Settings,
    target::{Address, Target},
};

use crate::{
    args::Arguments,
    cx::Cx,
    failure::Failure,
    next::{self, After},
    reply::{Answer, Body, Text},
    tools::{Effect, Key, Reach, Repeat, Row, Set, call},
};

pub(super) const SESSIONS: Row = Row {
    name: "ssh_sessions",
    title: "List SSH sessions",
    description: "Lists your open sessions, newest first, after a keepalive to each (no command); dead \
                  ones are closed and left out. Take it to find a SESSION_ID again or what is still open.",
    effect: Effect::ReadOnly,
    repeat: Repeat::Harmless,
    reach: Reach::Remote,
    key: Key::Ignored,
    sets: &[Set::Connection, Set::Core],
    makes: None,
    call: call!(sessions, SessionsArgs, SessionsBody),
};

#[derive(Debug, Deserialize, JsonSchema)]
struct SessionsArgs {
    /// Only this agent's.
    agent_id: Option<String>,
    #[schemars(range(min = 1))]
    max_items: Option<u64>,
}

impl Arguments for SessionsArgs {
    fn defaults(settings: &Settings) -> Vec<(&'static str, Value)> {
        vec![("max_items", json!(settings.list_default))]
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct SessionsBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id_filter: Option<String>,
    sessions: Vec<SessionEntry>,
    count: usize,
    total: usize,
}

impl Body for SessionsBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.maybe("AGENT_ID_FILTER", self.agent_id_filter.as_ref());
        text.count(self.count, self.total);
        self.sessions.iter().for_each(|entry| text.item(entry.line()));
    }
}

async fn sessions(cx: &Cx, args: SessionsArgs) -> Result<Answer<SessionsBody>, Failure> {
    let alive = cx.engine.probe(&cx.owner, args.agent_id.as_deref()).await;
    let shown = alive.get(..cx.list_items(args.max_items)).unwrap_or(&alive);
    let agent = alive.iter().find_map(|session| session.spec.agent.as_deref());
    let next = alive.first().map(|newest| next::next(&cx.catalogue, After::Sessions(newest.spec.id, agent)));
    let body = SessionsBody {
        agent_id_filter: args.agent_id,
        sessions: shown.iter().map(|session| SessionEntry::new(cx, session)).collect(),
        count: shown.len(),
        total: alive.len(),
    };
    let leaks = cx.leaks_on(shown);
    Ok(Answer::new("ok", body)
        .with_warnings(leaks)
        .with_hint(leak_hint(cx))
        .with_next(next.unwrap_or_default()))
}

/// A session as lists show it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SessionEntry {
    pub(super) session_id: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) username: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) agent_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) connected_at: String,
    pub(super) healthy: bool,
    pub(super) compression_enabled: bool,
    pub(super) persistent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<String>,
}

impl SessionEntry {
    pub(super) fn new(cx: &Cx, session: &Session) -> Self {
        let spec = &session.spec;
        Self {
            session_id: spec.id.to_string(),
            host: spec.target.address.host.clone(),
            port: spec.target.address.port,
            username: spec.target.username.clone(),
            agent_id: spec.agent.clone(),
            name: spec.name.clone(),
            connected_at: cx.rfc3339(spec.connected),
            healthy: session.is_open() && session.health.load().word == HealthWord::Healthy,
            compression_enabled: spec.compressed,
            persistent: spec.expiry == Expiry::Never,
            expires_at: session.expires().map(|at| cx.rfc3339(at)),
        }
    }

    pub(super) fn place(&self) -> String {
        place(&self.host, self.port, &self.username)
    }

    pub(super) fn compression(&self) -> &'static str {
        if self.compression_enabled { "on" } else { "off" }
    }

    /// The entry on one line.
    pub(super) fn line(&self) -> String {
        let mut facts = Vec::new();
        facts.extend(self.agent_id.as_ref().map(|agent| format!("agent: {agent}")));
        facts.extend(self.name.as_ref().map(|name| format!("name: {name}")));
        facts.push(format!("connected: {}", self.connected_at));
        facts.push(format!("compression: {}", self.compression()));
        facts.push(match &self.expires_at {
            Some(at) => format!("expires: {at}"),
            None => "persistent".to_owned(),
        });
        facts.push(if self.healthy { "healthy" } else { "unhealthy" }.to_owned());
        format!("{} {} [{}]", self.session_id, self.place(), facts.join(", "))
    }
}

/// An agent with more healthy sessions than this has probably forgotten some.
const MANY_SESSIONS: usize = 5;

/// Advice for an agent that owns suspiciously many sessions.
pub(super) fn leak_hint(cx: &Cx) -> Option<String> {
    const ENDS_THEM: &str = "ssh_disconnect_agent";
    let (agent, count) = cx
        .engine
        .healthy_sessions_of_agents(&cx.owner)
        .into_iter()
        .filter(|(_, count)| *count > MANY_SESSIONS)
        .max_by_key(|(_, count)| *count)?;
    let how = if cx.catalogue.has(ENDS_THEM) { format!(" with {ENDS_THEM}") } else { String::new() };
    Some(format!(
        "RECOMMENDED: agent {agent} owns {count} healthy sessions; end them{how} when its work is done"
    ))
}

pub(super) fn place(host: &str, port: u16, username: &str) -> String {
    Target { address: Address { host: host.to_owned(), port }, username: username.to_owned() }.to_string()
}
