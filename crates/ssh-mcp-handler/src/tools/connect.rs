//! The connection tools: open, find and end sessions.
//!
//! What two sessions have in common, how attempts are repeated and what a disconnect ends is the engine's business; here
//! arguments become a [`Connect`] and sessions become answers. `ssh_run` and
//! `ssh_shell_open` share [`Login`] and [`Ground`].

mod end;
mod ground;
mod list;
mod login;
mod secrets;
mod trust;

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
    registry::{Expiry, Session},
    settings::Settings,
    sync::Mutex,
    target::Compression,
    text,
    uri::Scheme,
};
use ssh_mcp_engine::{Connect, ConnectAnswer, Reuse};

pub(super) use ground::{After as Afterwards, Ground};
use list::{SessionEntry, leak_hint, place};
pub(super) use login::{Login, UNSHOWN_BY_CONNECT, UNSHOWN_BY_RUN, UNSHOWN_BY_SHELL};

use super::{Effect, Key, Reach, Repeat, Row, Set, call};
use crate::{
    args::Arguments,
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
        description: "Opens an SSH session; many commands and shells run on its SESSION_ID. Where one to the \
                      same user and host is open, reuse=suggest shows it and connects nothing, auto takes it, \
                      force_new connects anew. Tries key, password and agent. It ends by ssh_disconnect or, \
                      when idle, at EXPIRES_AT.",
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
    list::SESSIONS,
];

/// No `Debug`: it holds secrets.
#[derive(Deserialize, JsonSchema)]
struct ConnectArgs {
    #[serde(flatten)]
    login: Login,
    session_id: Option<String>,
    /// For one attempt.
    #[schemars(range(min = 1, max = 3600))]
    timeout_secs: Option<u64>,
    /// After transient failures.
    #[schemars(range(max = 100))]
    max_retries: Option<u32>,
    /// The first; doubles.
    #[schemars(range(max = 10_000))]
    retry_delay_ms: Option<u64>,
    compress: Option<bool>,
    name: Option<String>,
    /// Never end it when idle.
    #[serde(default)]
    persistent: bool,
    /// Your name for its group, which one call can end.
    agent_id: Option<String>,
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
            _ if cx.asking.is_open() => trust::doing(cx).to_owned(),
            0 => trust::doing(cx).to_owned(),
            attempts => format!("attempt {attempts} failed: {}; trying again", last.lock()),
        };
        Beat { progress: u64::from(attempts), total: None, message }
    };
    let work = trust::connect(cx, ask, &note);
    match cx.progress.while_waiting(EVERY_5_S, work, beat).await {
        Waiting::Done(answer) => Ok(connected(cx, answer?)),
        // The attempt has been dropped with the wait, and with it whatever it had opened.
        Waiting::Cancelled => Err(Failure::new(Code::ConnectionFailed, "the client called the request off")
            .with_effect(Begun::None)),
    }
}

impl ConnectArgs {
    fn into_connect(self, cx: &Cx) -> Result<Connect, Failure> {
        let compression = match self.compress {
            Some(true) => Some(Compression::On),
            Some(false) => Some(Compression::Off),
            None => None,
        };
        let mut ask = self.login.into_connect(cx, compression)?;
        if ask.goal.is_none() {
            let Some(id) = &self.session_id else {
                return Err(Failure::argument(
                    "address is missing: it must be a text, unless target or session_id is given",
                ));
            };
            // Nothing could be done with a dead session, so a wrong identifier is told as everywhere else.
            cx.session(id)?;
        }
        ask.session = self.session_id.and_then(|id| id.trim().parse().ok());
        // Naming what would be anyway, or less, is not asking for more time.
        let usual = cx.settings().connect_timeout;
        let more_time = self.timeout_secs.is_some_and(|secs| Duration::from_secs(secs) > usual);
        let more_attempts = self.max_retries.is_some_and(|retries| retries > ask.max_retries);
        ask.timeout = self.timeout_secs.map(Duration::from_secs);
        ask.max_retries = self.max_retries.unwrap_or(ask.max_retries);
        ask.retry_delay = self.retry_delay_ms.map_or(ask.retry_delay, Duration::from_millis);
        ask.overall = ask.overall.filter(|_| !more_time && !more_attempts);
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
