//! The connection tools: open, find and end sessions.
//!
//! What two sessions have in common, how attempts are repeated and what a disconnect ends is the engine's business; here
//! arguments become a [`Connect`] and sessions become answers. `ssh_run` shares [`Login`].

mod end;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ssh_mcp_core::{
    code::{Code, Effect as Begun},
    port::ssh::{ConnectError, HostKeyStatus},
    registry::{Expiry, HealthWord, Session},
    settings::Settings,
    sync::Mutex,
    target::{Address, Compression, Credentials, Secret, Target},
    text,
    uri::Scheme,
};
use ssh_mcp_engine::{Connect, ConnectAnswer, Reuse};

use super::{Effect, Key, Reach, Repeat, Row, Set, call};
use crate::{
    args::{self, Arguments},
    cx::Cx,
    failure::Failure,
    next::{self, After},
    progress::{Beat, EVERY_5_S, Waiting},
    reply::{Answer, Body, Text},
};

/// The connection tools, in the order of `tools/list`.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "ssh_connect",
        title: "Open or reuse an SSH session",
        description: "Opens an SSH session and returns the SESSION_ID that other calls need; many commands and shells run \
                      on one session. First shows sessions you have to the same user and host; reuse=auto takes the \
                      best of them, force_new always connects. Tries key, password and agent. Give agent_id so that \
                      one call can end everything. An idle session ends at EXPIRES_AT unless persistent=true.",
        effect: Effect::Adds,
        repeat: Repeat::Harmless,
        reach: Reach::Remote,
        key: Key::Honoured,
        sets: &[Set::Connection, Set::Core],
        makes: Some(Scheme::Session),
        call: call!(connect, ConnectArgs, ConnectBody),
    },
    end::DISCONNECT,
    end::DISCONNECT_AGENT,
    end::DISCONNECT_MANY,
    Row {
        name: "ssh_sessions",
        title: "List SSH sessions",
        description: "Lists your open sessions, newest first, after a keepalive round trip to each; dead ones are closed \
                      and left out. Take it to find a SESSION_ID again or to see what is still open; it runs nothing \
                      on the hosts.",
        effect: Effect::ReadOnly,
        repeat: Repeat::Harmless,
        reach: Reach::Remote,
        key: Key::Ignored,
        sets: &[Set::Connection, Set::Core],
        makes: None,
        call: call!(sessions, SessionsArgs, SessionsBody),
    },
];

/// No `Debug`: it holds secrets.
#[derive(Deserialize, JsonSchema)]
struct ConnectArgs {
    /// host, host:port or [v6]:port; needed unless session_id is given.
    address: Option<String>,
    /// Account; needed with address.
    username: Option<String>,
    /// Password.
    password: Option<String>,
    /// Private key file on the server's machine.
    key_path: Option<String>,
    /// For an encrypted key file.
    key_passphrase: Option<String>,
    /// A known session, used if alive.
    session_id: Option<String>,
    /// Seconds for one attempt.
    #[schemars(range(min = 1, max = 3600))]
    timeout_secs: Option<u64>,
    /// Further attempts after transient failures.
    #[schemars(range(max = 100))]
    max_retries: Option<u32>,
    /// First wait between attempts; doubles.
    #[schemars(range(max = 10_000))]
    retry_delay_ms: Option<u64>,
    /// Left out, it follows from the line.
    compress: Option<bool>,
    /// A label.
    name: Option<String>,
    /// Never end it when idle.
    #[serde(default)]
    persistent: bool,
    /// Your name for the group it belongs to.
    agent_id: Option<String>,
    /// About sessions to the same user and host.
    #[serde(default)]
    reuse: ReuseWord,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ReuseWord {
    #[default]
    Suggest,
    Auto,
    ForceNew,
}

impl Arguments for ConnectArgs {
    fn defaults(settings: &Settings) -> Vec<(&'static str, Value)> {
        vec![
            ("timeout_secs", json!(settings.connect_timeout.as_secs())),
            ("max_retries", json!(settings.max_retries)),
            ("retry_delay_ms", json!(settings.retry_delay.as_millis() as u64)),
        ]
    }
}

/// Who logs in where, with what: the arguments `ssh_connect` and `ssh_run` share.
#[derive(Default)]
pub(super) struct Login {
    /// `host`, `host:port` or `[v6]:port`.
    pub(super) address: Option<String>,
    /// The account.
    pub(super) username: Option<String>,
    /// A password.
    pub(super) password: Option<String>,
    /// A private key file.
    pub(super) key_path: Option<String>,
    /// What opens it.
    pub(super) key_passphrase: Option<String>,
}

impl Login {
    /// What the engine is asked, everything else as the settings have it: reuse is automatic, no session is named, and
    /// all attempts together end within 50 s.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` naming the field.
    pub(super) fn into_connect(self, cx: &Cx) -> Result<Connect, Failure> {
        let target = self.target()?;
        let settings = cx.settings();
        let key_path = match &self.key_path {
            Some(path) => Some(cx.local_file("key_path", path)?),
            None => None,
        };
        Ok(Connect {
            target,
            session: None,
            credentials: Credentials {
                key_path,
                key_passphrase: self.key_passphrase.map(Secret::new),
                password: self.password.map(Secret::new),
                agent_socket: settings.auth_sock.clone(),
            },
            timeout: settings.connect_timeout,
            max_retries: settings.max_retries,
            retry_delay: settings.retry_delay,
            overall: Some(OVERALL),
            compression: settings.compression,
            host_key_policy: settings.host_key_checking.policy(),
            known_hosts: settings.known_hosts.clone().unwrap_or_default(),
            name: None,
            agent: None,
            expiry: settings.inactivity_timeout.map_or(Expiry::Never, Expiry::After),
            reuse: Reuse::Auto,
        })
    }

    /// The target, or none where neither part is given.
    fn target(&self) -> Result<Option<Target>, Failure> {
        let missing = |field, other| {
            Err(Failure::argument(format!("{field} is missing: it must be a text, because {other} is given")))
        };
        let (address, username) = match (&self.address, &self.username) {
            (None, None) => return Ok(None),
            (Some(_), None) => return missing("username", "address"),
            (None, Some(_)) => return missing("address", "username"),
            (Some(address), Some(username)) => (address, username),
        };
        let shown = |field, text: &String| args::shown(field, &Value::from(text.as_str()));
        let parsed: Address = address.parse().map_err(|error| {
            let shown = shown("address", address);
            Failure::argument(format!("address must be host, host:port or [v6]:port; got {shown}: {error}"))
        })?;
        if username.is_empty() || username.chars().any(char::is_control) {
            let shown = shown("username", username);
            return Err(Failure::argument(format!("username must be the name of an account; got {shown}")));
        }
        Ok(Some(Target { address: parsed, username: username.clone() }))
    }
}

/// All attempts and waits of a call that names neither `timeout_secs` nor `max_retries`: hosts give up on a call after a
/// minute.
const OVERALL: Duration = Duration::from_secs(50);

#[derive(Debug, Default, Serialize, JsonSchema)]
struct ConnectBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compression_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    persistent: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_key: Option<HostKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matches: Option<Vec<SessionEntry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct HostKey {
    #[serde(rename = "type")]
    algorithm: String,
    fingerprint: String,
    status: &'static str,
}

/// A session as lists show it.
#[derive(Debug, Serialize, JsonSchema)]
struct SessionEntry {
    session_id: String,
    host: String,
    port: u16,
    username: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    connected_at: String,
    healthy: bool,
    compression_enabled: bool,
    persistent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

impl Body for ConnectBody {
    const STATUSES: &'static [&'static str] = &["ok", "reused", "suggested"];

    fn write(&self, text: &mut Text) {
        match self.matches.as_deref() {
            None => {}
            Some([only]) => {
                text.key("EXISTING_SESSION_ID", &only.session_id);
                text.key("HOST", only.place());
                text.maybe("AGENT_ID", only.agent_id.as_ref());
                text.maybe("NAME", only.name.as_ref());
                text.key("CONNECTED_AT", &only.connected_at);
                text.key("HEALTHY", only.healthy);
                text.key("COMPRESSION", only.compression());
                text.key("PERSISTENT", only.persistent);
                text.maybe("EXPIRES_AT", only.expires_at.as_ref());
            }
            Some(several) => {
                text.key("MATCHES", several.len());
                several.iter().for_each(|entry| text.item(entry.line()));
            }
        }
        text.maybe("SESSION_ID", self.session_id.as_ref());
        if let (Some(host), Some(port), Some(username)) = (&self.host, self.port, &self.username) {
            text.key("HOST", place(host, port, username));
        }
        text.maybe("AGENT_ID", self.agent_id.as_ref());
        text.maybe("NAME", self.name.as_ref());
        text.maybe("RETRY", self.retry);
        text.maybe("COMPRESSION", self.compression_enabled.map(|on| if on { "on" } else { "off" }));
        if let Some(HostKey { algorithm, fingerprint, status }) = &self.host_key {
            text.key("HOST_KEY", format_args!("{algorithm} {fingerprint} {status}"));
        }
        text.maybe("PERSISTENT", self.persistent);
        text.maybe("EXPIRES_AT", self.expires_at.as_ref());
        text.maybe("REPLACED", self.replaced);
    }
}

impl SessionEntry {
    fn new(cx: &Cx, session: &Session) -> Self {
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

    fn place(&self) -> String {
        place(&self.host, self.port, &self.username)
    }

    fn compression(&self) -> &'static str {
        if self.compression_enabled { "on" } else { "off" }
    }

    /// The entry on one line.
    fn line(&self) -> String {
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

async fn connect(cx: &Cx, args: ConnectArgs) -> Result<Answer<ConnectBody>, Failure> {
    let ask = args.into_connect(cx)?;
    let failed = AtomicU32::new(0);
    let last = Mutex::new(String::new());
    let note = |attempt: u32, error: &ConnectError| {
        // Relaxed: shown only.
        failed.store(attempt, Ordering::Relaxed);
        *last.lock() = text::remote_words(&error.to_string());
    };
    let beat = || {
        let attempts = failed.load(Ordering::Relaxed);
        let message = match attempts {
            0 => "connecting".to_owned(),
            attempts => format!("attempt {attempts} failed: {}; trying again", last.lock()),
        };
        Beat { progress: u64::from(attempts), total: None, message }
    };
    let work = cx.engine.connect(&cx.owner, ask, &note);
    match cx.progress.while_waiting(EVERY_5_S, work, beat).await {
        Waiting::Done(answer) => Ok(connected(cx, answer?)),
        // The attempt has been dropped with the wait, and with it whatever it had opened.
        Waiting::Cancelled => Err(Failure::new(Code::ConnectionFailed, "the client called the request off")
            .with_effect(Begun::None)),
    }
}

impl ConnectArgs {
    fn into_connect(self, cx: &Cx) -> Result<Connect, Failure> {
        let named_time = self.timeout_secs.is_some() || self.max_retries.is_some();
        let login = Login {
            address: self.address,
            username: self.username,
            password: self.password,
            key_path: self.key_path,
            key_passphrase: self.key_passphrase,
        };
        let mut ask = login.into_connect(cx)?;
        if ask.target.is_none() {
            let Some(id) = &self.session_id else {
                return Err(Failure::argument(
                    "address is missing: it must be a text, unless session_id is given",
                ));
            };
            // Nothing could be done with a dead session, so a wrong identifier is told as everywhere else.
            cx.session(id)?;
        }
        ask.session = self.session_id.and_then(|id| id.trim().parse().ok());
        ask.timeout = self.timeout_secs.map_or(ask.timeout, Duration::from_secs);
        ask.max_retries = self.max_retries.unwrap_or(ask.max_retries);
        ask.retry_delay = self.retry_delay_ms.map_or(ask.retry_delay, Duration::from_millis);
        ask.overall = ask.overall.filter(|_| !named_time);
        ask.compression = match self.compress {
            Some(true) => Compression::On,
            Some(false) => Compression::Off,
            None => ask.compression,
        };
        ask.name = self.name;
        ask.agent = self.agent_id;
        ask.expiry = if self.persistent { Expiry::Never } else { ask.expiry };
        ask.reuse = match self.reuse {
            ReuseWord::Suggest => Reuse::Suggest,
            ReuseWord::Auto => Reuse::Auto,
            ReuseWord::ForceNew => Reuse::ForceNew,
        };
        Ok(ask)
    }
}

fn connected(cx: &Cx, answer: ConnectAnswer) -> Answer<ConnectBody> {
    match answer {
        ConnectAnswer::Connected { session, retries, replaced } => {
            let body = ConnectBody { retry: Some(retries), ..session_body(cx, &session, replaced) };
            let learnt = (session.spec.host_key.status == HostKeyStatus::Learnt).then(|| {
                "the host key was unknown and has been added to the known hosts; compare its fingerprint if you can"
                    .to_owned()
            });
            Answer::new("ok", body)
                .with_hint(learnt)
                .with_next(next::next(&cx.catalogue, After::Connected(session.spec.id)))
        }
        ConnectAnswer::Reused { session, replaced } => {
            Answer::new("reused", session_body(cx, &session, replaced))
                .with_next(next::next(&cx.catalogue, After::Connected(session.spec.id)))
        }
        ConnectAnswer::Suggested { matches } => suggested(cx, &matches),
    }
}

fn session_body(cx: &Cx, session: &Session, replaced: u64) -> ConnectBody {
    let entry = SessionEntry::new(cx, session);
    let key = &session.spec.host_key;
    ConnectBody {
        session_id: Some(entry.session_id),
        host: Some(entry.host),
        port: Some(entry.port),
        username: Some(entry.username),
        agent_id: entry.agent_id,
        name: entry.name,
        compression_enabled: Some(entry.compression_enabled),
        persistent: Some(entry.persistent),
        expires_at: entry.expires_at,
        replaced: (replaced > 0).then_some(replaced),
        host_key: Some(HostKey {
            algorithm: key.algorithm.clone(),
            fingerprint: key.fingerprint.clone(),
            status: match key.status {
                HostKeyStatus::Known => "known",
                HostKeyStatus::Learnt => "learnt",
                HostKeyStatus::Unchecked => "unchecked",
            },
        }),
        ..ConnectBody::default()
    }
}

fn suggested(cx: &Cx, matches: &[Arc<Session>]) -> Answer<ConnectBody> {
    let entries: Vec<_> = matches.iter().map(|session| SessionEntry::new(cx, session)).collect();
    let body = ConnectBody { count: Some(entries.len()), matches: Some(entries), ..ConnectBody::default() };
    let advice = "nothing was connected: call ssh_connect with the session_id of a match, or with \
                  reuse=\"force_new\" for a further session";
    let next = matches.first().map(|best| next::next(&cx.catalogue, After::Suggested(best.spec.id)));
    Answer::new("suggested", body)
        .with_hint(Some(advice.to_owned()))
        .with_hint(leak_hint(cx))
        .with_next(next.unwrap_or_default())
}

#[derive(Debug, Deserialize, JsonSchema)]
struct SessionsArgs {
    /// Only the sessions of this agent.
    agent_id: Option<String>,
    /// Most entries in the answer.
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
    Ok(Answer::new("ok", body).with_hint(leak_hint(cx)).with_next(next.unwrap_or_default()))
}

/// An agent with more healthy sessions than this has probably forgotten some.
const MANY_SESSIONS: usize = 5;

/// Advice for an agent that owns suspiciously many sessions.
fn leak_hint(cx: &Cx) -> Option<String> {
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

fn place(host: &str, port: u16, username: &str) -> String {
    Target { address: Address { host: host.to_owned(), port }, username: username.to_owned() }.to_string()
}
