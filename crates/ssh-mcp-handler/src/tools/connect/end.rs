//! The tools that end sessions: one, all of an agent, or a list.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ssh_mcp_core::{code::Code, id::SessionId, text, uri::Scheme};
use ssh_mcp_engine::Missing;

use crate::{
    args::Arguments,
    cx::Cx,
    failure::Failure,
    reply::{Answer, Body, Text},
    tools::{Effect, Key, Reach, Repeat, Row, Set, call},
};

pub(super) const DISCONNECT: Row = Row {
    name: "ssh_disconnect",
    title: "End an SSH session",
    description: "Ends a session with the commands and shells that run on it. What they printed stays \
                  readable for a while. For an agent's sessions take ssh_disconnect_agent, for a list \
                  ssh_disconnect_many.",
    effect: Effect::Destroys,
    repeat: Repeat::Harmless,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Connection, Set::Core],
    makes: None,
    call: call!(disconnect, DisconnectArgs, DisconnectBody),
};

pub(super) const DISCONNECT_AGENT: Row = Row {
    name: "ssh_disconnect_agent",
    title: "End all sessions of an agent",
    description: "Ends every session that was opened with this agent_id, with all that runs on them: the \
                  safest way to clean up when work is done or has gone wrong. Counts say what was ended; \
                  an agent without sessions is no error.",
    effect: Effect::Destroys,
    repeat: Repeat::Harmless,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Connection],
    makes: None,
    call: call!(disconnect_agent, DisconnectAgentArgs, DisconnectAgentBody),
};

pub(super) const DISCONNECT_MANY: Row = Row {
    name: "ssh_disconnect_many",
    title: "End several SSH sessions",
    description: "Ends the sessions of a list, side by side, with all that runs on them. One that is \
                  unknown or already gone does not stop the others; each has a line in the answer.",
    effect: Effect::Destroys,
    repeat: Repeat::Harmless,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Connection],
    makes: None,
    call: call!(disconnect_many, DisconnectManyArgs, DisconnectManyBody),
};

#[derive(Debug, Deserialize, JsonSchema)]
struct DisconnectArgs {
    session_id: String,
}

impl Arguments for DisconnectArgs {}

#[derive(Debug, Serialize, JsonSchema)]
struct DisconnectBody {
    session_id: String,
    commands_cancelled: u64,
    shells_closed: u64,
    transfers_aborted: u64,
    rsyncs_cancelled: u64,
    forwards_closed: u64,
}

impl Body for DisconnectBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.key("SESSION_ID", &self.session_id);
        text.key("COMMANDS_CANCELLED", self.commands_cancelled);
        text.key("SHELLS_CLOSED", self.shells_closed);
        text.key("TRANSFERS_ABORTED", self.transfers_aborted);
        text.key("RSYNCS_CANCELLED", self.rsyncs_cancelled);
        text.key("FORWARDS_CLOSED", self.forwards_closed);
    }
}

async fn disconnect(cx: &Cx, args: DisconnectArgs) -> Result<Answer<DisconnectBody>, Failure> {
    let DisconnectArgs { session_id } = args;
    let id = parse(cx, &session_id)?;
    let ended = cx.engine.disconnect(&cx.owner, id).await;
    let ended = ended.map_err(|missing| Failure::missing(Scheme::Session, &session_id, missing))?;
    let body = DisconnectBody {
        session_id: id.to_string(),
        commands_cancelled: ended.commands_cancelled,
        shells_closed: ended.shells_closed,
        transfers_aborted: ended.transfers_aborted,
        rsyncs_cancelled: ended.rsyncs_cancelled,
        forwards_closed: ended.forwards_closed,
    };
    Ok(Answer::new("ok", body))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct DisconnectAgentArgs {
    /// The agent_id the sessions were opened with.
    agent_id: String,
}

impl Arguments for DisconnectAgentArgs {}

#[derive(Debug, Serialize, JsonSchema)]
struct DisconnectAgentBody {
    agent_id: String,
    sessions_closed: u64,
    commands_cancelled: u64,
    shells_closed: u64,
    transfers_aborted: u64,
    rsyncs_cancelled: u64,
    forwards_closed: u64,
}

impl Body for DisconnectAgentBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.key("AGENT_ID", &self.agent_id);
        text.key("SESSIONS", self.sessions_closed);
        text.key("COMMANDS", self.commands_cancelled);
        text.key("SHELLS", self.shells_closed);
        text.key("TRANSFERS", self.transfers_aborted);
        text.key("RSYNCS", self.rsyncs_cancelled);
        text.key("FORWARDS", self.forwards_closed);
    }
}

async fn disconnect_agent(
    cx: &Cx,
    args: DisconnectAgentArgs,
) -> Result<Answer<DisconnectAgentBody>, Failure> {
    let ended = cx.engine.disconnect_agent(&cx.owner, &args.agent_id).await;
    let body = DisconnectAgentBody {
        agent_id: args.agent_id,
        sessions_closed: ended.sessions_closed,
        commands_cancelled: ended.commands_cancelled,
        shells_closed: ended.shells_closed,
        transfers_aborted: ended.transfers_aborted,
        rsyncs_cancelled: ended.rsyncs_cancelled,
        forwards_closed: ended.forwards_closed,
    };
    Ok(Answer::new("ok", body))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct DisconnectManyArgs {
    #[schemars(length(min = 1, max = 64))]
    session_ids: Vec<String>,
}

impl Arguments for DisconnectManyArgs {}

#[derive(Debug, Serialize, JsonSchema)]
struct DisconnectManyBody {
    results: Vec<EndedOne>,
    disconnected: u64,
    failed: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct EndedOne {
    session_id: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Body for DisconnectManyBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.key("DISCONNECTED", self.disconnected);
        text.key("FAILED", self.failed);
        for EndedOne { session_id, status, code, reason } in &self.results {
            match (code, reason) {
                (Some(code), Some(reason)) => {
                    text.item(format_args!("{session_id}: {status} [{code}] {reason}"))
                }
                _ => text.item(format_args!("{session_id}: {status}")),
            }
        }
    }
}

async fn disconnect_many(cx: &Cx, args: DisconnectManyArgs) -> Result<Answer<DisconnectManyBody>, Failure> {
    let mut work = tokio::task::JoinSet::new();
    let mut ended: Vec<Result<(), Failure>> = Vec::with_capacity(args.session_ids.len());
    for (at, id) in args.session_ids.iter().enumerate() {
        match parse(cx, id) {
            Err(failure) => ended.push(Err(failure)),
            Ok(session) => {
                let (engine, owner) = (Arc::clone(&cx.engine), cx.owner.clone());
                work.spawn(async move { (at, engine.disconnect(&owner, session).await) });
                // Replaced when the work is done; a task that panicked leaves it as it is.
                ended.push(Err(Failure::new(Code::InternalError, "the disconnect failed unexpectedly")));
            }
        }
    }
    while let Some(done) = work.join_next().await {
        if let Ok((at, outcome)) = done
            && let (Some(slot), Some(id)) = (ended.get_mut(at), args.session_ids.get(at))
        {
            *slot = match outcome {
                Ok(_) => Ok(()),
                Err(missing) => Err(Failure::missing(Scheme::Session, id, missing)),
            };
        }
    }
    let mut seen = std::collections::HashSet::new();
    let results: Vec<EndedOne> = args
        .session_ids
        .iter()
        .zip(ended)
        // Named twice, a session is ended and counted once.
        .filter(|(id, _)| seen.insert(id.trim().to_ascii_lowercase()))
        .map(|(id, ended)| {
            let session_id = text::cut(id.trim(), 80).to_ascii_lowercase();
            match ended {
                Ok(()) => EndedOne { session_id, status: "ok", code: None, reason: None },
                Err(Failure { code, reason, .. }) => {
                    EndedOne { session_id, status: "error", code: Some(code.as_str()), reason: Some(reason) }
                }
            }
        })
        .collect();
    let disconnected = results.iter().filter(|one| one.code.is_none()).count() as u64;
    let failed = results.len() as u64 - disconnected;
    Ok(Answer::new("ok", DisconnectManyBody { results, disconnected, failed }))
}

/// The identifier; text that is none is as unknown as a wrong one.
fn parse(cx: &Cx, id: &str) -> Result<SessionId, Failure> {
    id.trim().parse().map_err(|_| {
        let nearest = cx.nearest(&cx.engine.registries().sessions, id);
        Failure::missing(Scheme::Session, id, Missing::Unknown { nearest })
    })
}
