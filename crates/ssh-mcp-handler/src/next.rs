//! What makes sense after an answer: the successor table of `docs/tools.md`, "Next", and the advice about streams.
//!
//! Everything goes through the [`Catalogue`]: a tool that is not listed is never named.

use std::time::Duration;

use ssh_mcp_core::{
    id::{CommandId, ForwardId, RsyncId, SerialId, SessionId, ShellId, SubId, TransferId},
    lifecycle::AutoRelease,
    uri::Resource,
};

use crate::catalogue::Catalogue;

/// Where a caller stands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum After<'a> {
    /// `ssh_connect` gave a session.
    Connected(SessionId),
    /// `ssh_connect` found sessions and connected to none; the best of them.
    Suggested(SessionId),
    /// `ssh_sessions` listed some: the newest, and an agent that owns some.
    Sessions(SessionId, Option<&'a str>),
    /// A command runs: it was just started, or is still running.
    CommandRuns(CommandId),
    /// A shell was opened.
    ShellOpened(ShellId),
    /// A shell was given input.
    ShellInput(ShellId),
    /// A pattern appeared in a shell.
    ShellMatched(ShellId),
    /// No pattern appeared in a shell in time.
    ShellQuiet(ShellId),
    /// A transfer is under way.
    TransferRuns(TransferId),
    /// A sync is under way.
    SyncRuns(RsyncId),
    /// A forward was opened.
    #[cfg_attr(not(feature = "port_forward"), expect(dead_code, reason = "of the forward tools only"))]
    ForwardOpened(ForwardId),
    /// A serial port was opened.
    SerialOpened(SerialId),
    /// A serial port was given input.
    SerialInput(SerialId),
    /// A lane was opened.
    LaneOpened(SubId),
    /// A lane was paused.
    LanePaused(SubId),
    /// A lane was looked at or changed.
    LaneSteered(SubId),
    /// A wait for several resources is over; those that go on.
    Waited(&'a [Resource]),
}

/// The calls that make sense, best first, in the form `tool(arg=value, ...)`.
pub(crate) fn next(catalogue: &Catalogue, after: After<'_>) -> Vec<String> {
    let mut items = Items { catalogue, items: Vec::new() };
    match after {
        After::Connected(session) => {
            let session = [("session_id", Value::Text(session.to_string()))];
            items.call("ssh_exec", &session);
            items.call("ssh_shell_open", &session);
            items.call("ssh_upload", &session);
            items.call("ssh_disconnect", &session);
        }
        After::Suggested(session) => {
            items.call("ssh_connect", &[("session_id", Value::Text(session.to_string()))]);
            items.call("ssh_connect", &[("reuse", Value::Text("force_new".into()))]);
        }
        After::Sessions(session, agent) => {
            items.subscribe(session);
            if let Some(agent) = agent {
                items.call("ssh_disconnect_agent", &[("agent_id", Value::Text(agent.into()))]);
            }
            items.call("ssh_disconnect", &[("session_id", Value::Text(session.to_string()))]);
        }
        After::CommandRuns(command) => {
            let id = || ("command_id", Value::Text(command.to_string()));
            items.follow(command);
            items.call("ssh_exec_output", &[id(), ("wait", Value::True)]);
            items.call("ssh_exec_cancel", &[id()]);
        }
        After::ShellOpened(shell) => {
            items.follow(shell);
            let shell = [("shell_id", Value::Text(shell.to_string()))];
            items.call("ssh_shell_write", &shell);
            items.call("ssh_shell_press", &shell);
            items.call("ssh_shell_read", &shell);
        }
        After::ShellInput(shell) => {
            let id = [("shell_id", Value::Text(shell.to_string()))];
            items.follow(shell);
            items.read(shell);
            items.call("ssh_shell_wait_for", &id);
            items.call("ssh_shell_read", &id);
        }
        After::ShellMatched(shell) => {
            items.follow(shell);
            let shell = [("shell_id", Value::Text(shell.to_string()))];
            items.call("ssh_shell_write", &shell);
            items.call("ssh_shell_press", &shell);
            items.call("ssh_shell_close", &shell);
        }
        After::ShellQuiet(shell) => {
            items.follow(shell);
            let shell = [("shell_id", Value::Text(shell.to_string()))];
            items.call("ssh_shell_wait_for", &shell);
            items.call("ssh_shell_read", &shell);
            items.call("ssh_shell_close", &shell);
        }
        After::TransferRuns(transfer) => {
            items.follow(transfer);
            let id = ("transfer_id", Value::Text(transfer.to_string()));
            items.call("ssh_transfer_progress", &[id, ("wait", Value::True)]);
        }
        After::SyncRuns(rsync) => {
            items.follow(rsync);
            let id = [("rsync_id", Value::Text(rsync.to_string()))];
            items.call("ssh_rsync_stats", &id);
            items.call("ssh_rsync_cancel", &id);
        }
        After::ForwardOpened(forward) => items.follow(forward),
        After::SerialOpened(serial) => {
            items.follow(serial);
            let serial = [("serial_id", Value::Text(serial.to_string()))];
            items.call("serial_write", &serial);
            items.call("serial_press", &serial);
            items.call("serial_close", &serial);
        }
        After::SerialInput(serial) => {
            items.follow(serial);
            items.read(serial);
        }
        After::LaneOpened(lane) => {
            let id = [("sub_id", Value::Text(lane.to_string()))];
            for tool in ["sub_pause", "sub_resume", "sub_filter", "sub_replay", "sub_stats", "sub_close"] {
                items.call(tool, &id);
            }
        }
        After::LanePaused(lane) => {
            let id = [("sub_id", Value::Text(lane.to_string()))];
            items.call("sub_resume", &id);
            items.call("sub_close", &id);
        }
        After::LaneSteered(lane) => {
            let id = [("sub_id", Value::Text(lane.to_string()))];
            items.call("sub_stats", &id);
            items.call("sub_close", &id);
        }
        After::Waited([]) => {}
        After::Waited(live) => items.wait(live),
    }
    items.items
}

/// Advice for a call that started a stream: how to hear of its bytes.
pub(crate) fn stream_hint(catalogue: &Catalogue, resource: Resource, waiter: &'static str) -> Option<String> {
    Some(format!("RECOMMENDED: {}", ways_to_follow(catalogue, resource, waiter)))
}

/// The same for one that nobody will look at again if the caller does not follow it.
pub(crate) fn follow_hint(catalogue: &Catalogue, resource: Resource) -> Option<String> {
    Some(format!("REQUIRED NEXT STEP: {}", ways_to_follow(catalogue, resource, "sub_wait")))
}

fn ways_to_follow(catalogue: &Catalogue, resource: Resource, waiter: &'static str) -> String {
    let subscribe = if catalogue.has("sub_open") { "subscribe with sub_open, or " } else { "" };
    match ["sub_wait", waiter].into_iter().find(|tool| catalogue.has(tool)) {
        Some(tool) => format!("follow {resource}: {subscribe}wait with {tool}; do not ask again and again"),
        None => format!("{subscribe}read {resource}?cursor=auto, which gives each byte once"),
    }
}

/// What keeps a resource that releases itself: it ends when nobody has observed it for `grace`.
pub(crate) fn release_hint(
    catalogue: &Catalogue,
    release: AutoRelease,
    grace: Duration,
    waiter: &'static str,
) -> Option<String> {
    let with = if catalogue.has(waiter) { format!(" with {waiter}") } else { String::new() };
    let grace = grace.as_secs_f32();
    match release {
        AutoRelease::On => {
            Some(format!("REQUIRED NEXT STEP: wait for it or read it{with} within {grace} s, or it is ended"))
        }
        AutoRelease::Off => None,
    }
}

/// A call as text, in the form `tool(arg=value, ...)`; values are JSON, so no text ends early.
pub(crate) fn call(tool: &str, arguments: &[(&str, serde_json::Value)]) -> String {
    let arguments: Vec<String> = arguments.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{tool}({})", arguments.join(", "))
}

/// A lane lasts until somebody ends it.
pub(crate) fn close_hint(catalogue: &Catalogue, lane: SubId) -> String {
    match catalogue.has("sub_close") {
        true => format!(
            "REQUIRED NEXT STEP: keep SUB_ID {lane} and end the lane with sub_close when you no longer need it"
        ),
        false => format!("REQUIRED NEXT STEP: keep SUB_ID {lane}"),
    }
}

enum Value {
    Text(String),
    Texts(Vec<String>),
    True,
}

struct Items<'a> {
    catalogue: &'a Catalogue,
    items: Vec<String>,
}

impl Items<'_> {
    fn call(&mut self, tool: &'static str, arguments: &[(&str, Value)]) {
        if !self.catalogue.has(tool) {
            return;
        }
        let arguments: Vec<(&str, serde_json::Value)> = arguments
            .iter()
            .map(|(name, value)| match value {
                Value::Text(text) => (*name, text.as_str().into()),
                Value::Texts(texts) => (*name, texts.clone().into()),
                Value::True => (*name, true.into()),
            })
            .collect();
        self.items.push(call(tool, &arguments));
    }

    /// Both ways to hear of a stream, the one that works on every host first.
    fn follow(&mut self, resource: impl Into<Resource>) {
        let resource = resource.into();
        self.wait(&[resource]);
        self.subscribe(resource);
    }

    fn wait(&mut self, resources: &[Resource]) {
        let uris = resources.iter().map(Resource::to_string).collect();
        self.call("sub_wait", &[("uris", Value::Texts(uris))]);
    }

    fn subscribe(&mut self, resource: impl Into<Resource>) {
        if self.catalogue.has("sub_open") {
            self.items.push(format!("sub_open uri={}", resource.into()));
        }
    }

    fn read(&mut self, resource: impl Into<Resource>) {
        self.items.push(format!("resources/read {}?cursor=auto", resource.into()));
    }
}
