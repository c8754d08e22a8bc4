//! The audit line: who did what on which server, one line per call that changes something (`docs/tools.md`, "What is logged").
//!
//! Never output, payload or secrets. The text of a command is logged at `debug` only.

use std::time::Duration;

use rmcp::model::JsonObject;
use serde_json::Value;
use ssh_mcp_core::{
    id::{CommandId, ForwardId, RsyncId, SessionId, ShellId, TransferId},
    target_names, text,
};

use crate::{
    cx::Cx,
    failure::Failure,
    reply::Reply,
    tools::{Effect, Row},
};

/// What is known of a call before it runs.
pub(crate) struct Audit {
    tool: &'static str,
    peer: String,
    asked: Subject,
    command: Option<String>,
}

/// What a call is about, as far as arguments or answer name it.
#[derive(Default)]
struct Subject {
    session: Option<String>,
    command: Option<String>,
    shell: Option<String>,
    transfer: Option<String>,
    rsync: Option<String>,
    forward: Option<String>,
    serial: Option<String>,
    lane: Option<String>,
    agent: Option<String>,
    /// `user@host`, where no object leads to it.
    place: Option<(String, String)>,
}

impl Audit {
    /// The line to be, for a tool that changes something.
    pub(crate) fn of(row: &Row, arguments: &JsonObject, peer: &str) -> Option<Self> {
        (row.effect != Effect::ReadOnly).then(|| Self {
            tool: row.name,
            peer: peer.to_owned(),
            asked: Subject::of(arguments),
            command: text_of(arguments, "command").map(|command| text::cut(&command, 200).into_owned()),
        })
    }

    /// Writes the line.
    pub(crate) fn log(self, cx: &Cx, outcome: &Result<Reply, Failure>, duration: Duration) {
        let Self { tool, peer, asked, command } = self;
        let (word, done) = match outcome {
            Ok(reply) => (reply.status(), Subject::of(reply.facts())),
            Err(failure) => (failure.code.as_str(), Subject::of(&failure.facts)),
        };
        let subject = done.or(asked);
        let (host, user) = subject.host_and_user(cx).unzip();
        let duration_ms = duration.as_millis() as u64;
        tracing::info!(
            target: target_names::AUDIT,
            peer,
            owner = cx.owner.as_str(),
            agent_id = subject.agent,
            tool,
            host,
            user,
            session_id = subject.session,
            command_id = subject.command,
            shell_id = subject.shell,
            transfer_id = subject.transfer,
            rsync_id = subject.rsync,
            forward_id = subject.forward,
            serial_id = subject.serial,
            sub_id = subject.lane,
            outcome = word,
            duration_ms,
            "call"
        );
        if let Some(command) = command {
            tracing::debug!(target: target_names::AUDIT, tool, command_id = subject.command, command, "command");
        }
    }
}

impl Subject {
    fn of(fields: &JsonObject) -> Self {
        let place = text_of(fields, "host").or_else(|| text_of(fields, "address"));
        Self {
            session: text_of(fields, "session_id"),
            command: text_of(fields, "command_id"),
            shell: text_of(fields, "shell_id"),
            transfer: text_of(fields, "transfer_id"),
            rsync: text_of(fields, "rsync_id"),
            forward: text_of(fields, "forward_id"),
            serial: text_of(fields, "serial_id"),
            lane: text_of(fields, "sub_id"),
            agent: text_of(fields, "agent_id"),
            place: place.zip(text_of(fields, "username")),
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            session: self.session.or(other.session),
            command: self.command.or(other.command),
            shell: self.shell.or(other.shell),
            transfer: self.transfer.or(other.transfer),
            rsync: self.rsync.or(other.rsync),
            forward: self.forward.or(other.forward),
            serial: self.serial.or(other.serial),
            lane: self.lane.or(other.lane),
            agent: self.agent.or(other.agent),
            place: self.place.or(other.place),
        }
    }

    fn host_and_user(&self, cx: &Cx) -> Option<(String, String)> {
        let registries = cx.engine.registries();
        let session = || {
            let id: SessionId = self.session.as_ref()?.parse().ok()?;
            Some(registries.sessions.entry(id)?.spec.target.to_string())
        };
        let command = || {
            let id: CommandId = self.command.as_ref()?.parse().ok()?;
            Some(registries.commands.entry(id)?.spec.target.clone())
        };
        let shell = || {
            let id: ShellId = self.shell.as_ref()?.parse().ok()?;
            Some(registries.shells.entry(id)?.spec.target.clone())
        };
        let transfer = || {
            let id: TransferId = self.transfer.as_ref()?.parse().ok()?;
            Some(registries.transfers.entry(id)?.spec.target.clone())
        };
        let rsync = || {
            let id: RsyncId = self.rsync.as_ref()?.parse().ok()?;
            Some(registries.rsyncs.entry(id)?.spec.target.clone())
        };
        let forward = || {
            let id: ForwardId = self.forward.as_ref()?.parse().ok()?;
            Some(registries.forwards.entry(id)?.spec.target.clone())
        };
        let target =
            session().or_else(command).or_else(shell).or_else(transfer).or_else(rsync).or_else(forward);
        let known = target
            .and_then(|target| target.split_once('@').map(|(user, host)| (host.to_owned(), user.to_owned())));
        known.or_else(|| self.place.clone())
    }
}

/// A short text field; what a caller makes up does not fill the log.
fn text_of(fields: &JsonObject, name: &str) -> Option<String> {
    fields.get(name).and_then(Value::as_str).map(|value| text::cut(&text::one_line(value), 200).into_owned())
}
