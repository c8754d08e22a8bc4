//! The lines of output: one type for each event, and the schema comes from them (`docs/daemon.md`, "Events").
//!
//! A field that has no value is left out, `completed.exit` alone is null after death by a signal. Secrets have no field.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Number, Value};
use ssh_mcp_core::text;

/// What `heartbeat` and `daemon_stats` call the form of these lines.
pub(super) const PROTOCOL: &str = "ssh-mcp-ndjson/1";

/// The `id` of an op, as it was given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum OpId {
    /// A text of 1 to 256 bytes.
    Text(String),
    /// An integer.
    Number(#[schemars(with = "i64")] Number),
}

/// Bytes that are said as text.
#[derive(Debug, Clone, Default, PartialEq, JsonSchema)]
#[schemars(transparent, inline)]
pub(super) struct Text(#[schemars(with = "String")] pub(super) Bytes);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text::lossy(&self.0))
    }
}

/// Bytes that are said in base64 (RFC 4648, section 4).
#[derive(Debug, Clone, Default, PartialEq, JsonSchema)]
#[schemars(transparent, inline)]
pub(super) struct Base64(#[schemars(with = "String")] pub(super) Bytes);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

/// A struct whose fields behind `maybe` are left out where they have no value.
macro_rules! event {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)* $(; maybe $($(#[$maybe_doc:meta])* $maybe:ident: $of:ty,)*)?
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
        pub(super) struct $name {
            $($(#[$field_doc])* pub(super) $field: $type,)*
            $($($(#[$maybe_doc])* #[serde(skip_serializing_if = "Option::is_none")] pub(super) $maybe: Option<$of>,)*)?
        }
    };
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "ev", rename_all = "snake_case")]
pub(super) enum Event {
    /// An op has succeeded.
    Ack(Box<Ack>),
    /// An op has failed, or a line was no op.
    Err(Box<Failed>),
    /// A command runs: the reply of `exec`.
    Started(Started),
    /// What `call` answers.
    Result(Box<Called>),
    /// New data on a lane.
    Push(Push),
    /// What the terminal of `shell` shows.
    ShellOutput(ShellOutput),
    /// A lane is brought up from the history, or the answer of `read`.
    Snapshot(Snapshot),
    /// A lane has lost events exactly here.
    Lagged(Lagged),
    /// A command has ended.
    Completed(Completed),
    /// How far a transfer is.
    TransferProgress(TransferProgress),
    /// A transfer has ended.
    TransferDone(TransferDone),
    /// Advice.
    Warn(Box<Warn>),
    /// A session has ended.
    Closed(Closed),
    /// A resource of another kind has ended.
    ResourceClosed(ResourceClosed),
    /// A lane has ended while its resource lives on.
    SubClosed(SubClosed),
    /// The daemon lives.
    Heartbeat(Heartbeat),
    /// What the daemon holds and has done.
    DaemonStats(Box<DaemonStats>),
}

impl Event {
    /// The line that says it. The data of a lane stands last and is written here, not by way of strings of its own, for there
    /// may be a lot of it.
    pub(super) fn line(mut self) -> Vec<u8> {
        let data = if let Self::Push(Push { delta, delta_b64, .. })
        | Self::Snapshot(Snapshot { delta, delta_b64, .. }) = &mut self
        {
            (delta.take(), delta_b64.take())
        } else {
            (None, None)
        };
        let size = |bytes: Option<&Bytes>| bytes.map_or(0, Bytes::len);
        let (text, exact) = (data.0.as_ref().map(|text| &text.0), data.1.as_ref().map(|exact| &exact.0));
        let mut line = Vec::with_capacity(512 + size(text) * 9 / 8 + size(exact) * 3 / 2);
        // Texts, numbers and values of JSON cannot fail to be written into memory.
        _ = serde_json::to_writer(&mut line, &self);
        // More fields follow.
        line.pop();
        if let Some(bytes) = text {
            line.extend_from_slice(b",\"delta\":");
            text::push_json_string(&mut line, bytes);
        }
        if let Some(bytes) = exact {
            line.extend_from_slice(b",\"delta_b64\":\"");
            let begin = line.len();
            line.resize(begin + bytes.len().div_ceil(3) * 4, b'=');
            // There is room for all of it.
            _ = STANDARD.encode_slice(bytes, line.get_mut(begin..).unwrap_or_default());
            line.push(b'"');
        }
        line.extend_from_slice(b"}\n");
        line
    }
}

event! {
    /// What an op has made, and what it says besides.
    Ack {
        ; maybe
        id: OpId,
        sid: String,
        cid: String,
        shid: String,
        tid: String,
        rid: String,
        sub_id: String,
        uri: String,
        /// Of `connect`: ok, reused or suggested; of `shell_open`: ok or reused.
        status: String,
        /// What was to be ended had ended.
        noop: bool,
        /// Where a lane begins.
        cursor: u64,
        bytes_sent: u64,
        total: u64,
        resumed_from: u64,
        files: u64,
        initial_buffer: String,
        host: String,
        port: u64,
        username: String,
        agent_id: String,
        name: String,
        /// Sessions that `connect` could use instead, newest first.
        matches: Value,
        commands_cancelled: u64,
        shells_closed: u64,
        transfers_aborted: u64,
        rsyncs_cancelled: u64,
    }
}

event! {
    /// Why an op failed.
    Failed {
        /// A code of the table of errors.
        code: String,
        /// What happened, one sentence.
        reason: String,
        ; maybe
        id: OpId,
        /// What to do.
        detail: String,
        category: String,
        retry: String,
        /// Of INVALID_OP: what is wrong with the line.
        cause: String,
        op: String,
    }
}

event! {
    /// A command that runs.
    Started {
        cid: String,
        sid: String,
        ; maybe
        id: OpId,
        uri: String,
        sub_id: String,
    }
}

event! {
    /// What a tool answered.
    Called {
        tool: String,
        status: String,
        data: Map<String, Value>,
        ; maybe
        id: OpId,
        text: String,
        sub_id: String,
    }
}

event! {
    /// New data on a lane.
    Push {
        sub_id: String,
        uri: String,
        /// Number of the message in its lane, from 1.
        seq_local: u64,
        /// Number of the newest change of the resource.
        seq_global: u64,
        /// Where a read would go on.
        cursor: u64,
        ts: String,
        ; maybe
        /// The data as text; what is no UTF-8 is U+FFFD, and then `delta_b64` has the bytes.
        delta: Text,
        /// The bytes.
        delta_b64: Base64,
        /// Of a command: stdout or stderr.
        stream: &'static str,
        replay: bool,
        /// Bytes that are missing before these.
        gap_bytes: u64,
    }
}

event! {
    /// What a terminal shows.
    ShellOutput {
        shid: String,
        /// As text; what is no UTF-8 is U+FFFD, and then `bytes_b64` has the bytes.
        bytes: Text,
        ; maybe
        /// The bytes.
        bytes_b64: Base64,
    }
}

event! {
    /// Data of the history.
    Snapshot {
        cursor: u64,
        ; maybe
        id: OpId,
        sub_id: String,
        uri: String,
        seq_local: u64,
        /// As in `push`.
        delta: Text,
        /// As in `push`.
        delta_b64: Base64,
        stream: &'static str,
        gap_bytes: u64,
        /// More of the same follows, or is held.
        more: bool,
        status: String,
    }
}

event! {
    /// A loss.
    Lagged {
        sub_id: String,
        uri: String,
        seq_local: u64,
        /// How many events.
        dropped: u64,
        ; maybe
        gap_bytes: u64,
    }
}

event! {
    /// The end of a command.
    Completed {
        cid: String,
        /// Null after death by a signal.
        exit: Option<i64>,
        ; maybe
        id: OpId,
        cancelled: bool,
        signal: String,
        timed_out: bool,
        reason: String,
        duration_ms: u64,
    }
}

event! {
    /// A transfer that runs.
    TransferProgress {
        tid: String,
        bytes: u64,
        total: u64,
        ; maybe
        id: OpId,
        /// Bytes a second.
        rate: u64,
        eta_secs: u64,
    }
}

event! {
    /// A transfer that has ended.
    TransferDone {
        tid: String,
        /// completed, failed or cancelled.
        status: String,
        bytes: u64,
        total: u64,
        resumed_from: u64,
        ; maybe
        id: OpId,
        verified: bool,
        code: String,
        reason: String,
    }
}

event! {
    /// Advice.
    Warn {
        code: String,
        msg: String,
        ; maybe
        id: OpId,
        resource: String,
        age_ms: u64,
        severity: String,
    }
}

event! {
    /// The end of a session.
    Closed {
        sid: String,
        reason: String,
        ; maybe
        id: OpId,
    }
}

event! {
    /// The end of a resource.
    ResourceClosed {
        uri: String,
        reason: String,
        ; maybe
        id: OpId,
        exit: i64,
        signal: String,
    }
}

event! {
    /// The end of a lane.
    SubClosed {
        sub_id: String,
        uri: String,
        reason: String,
    }
}

event! {
    /// A sign of life.
    Heartbeat {
        ts: String,
        protocol: &'static str,
        uptime_s: u64,
    }
}

event! {
    /// Numbers of this moment.
    DaemonStats {
        protocol: &'static str,
        ts: String,
        uptime_s: u64,
        active_sessions: u64,
        active_subs: u64,
        active_commands: u64,
        active_shells: u64,
        active_transfers: u64,
        active_rsyncs: u64,
        active_forwards: u64,
        active_serial: u64,
        events_sent_total: u64,
        bytes_sent_total: u64,
        lagged_drops_total: u64,
        lagged_recoveries_total: u64,
        /// Times the history no longer had what a lane was to be told.
        ring_buffer_overflows_total: u64,
        /// Times an event had to wait for room before the writer.
        mpsc_full_events_total: u64,
        /// Lines that wait for the writer, and lanes that wait for a turn.
        mux_queue_depth: u64,
        mux_queue_high_watermark: u64,
        ops_total: u64,
        ops_in_flight: u64,
        rejected_ops_total: u64,
        rejected_ops_by_code: Map<String, Value>,
        subs_by_policy: Map<String, Value>,
        ; maybe
        id: OpId,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_line_says_what_any_other_writer_would_say(bytes in proptest::collection::vec(any::<u8>(), 0..100), parts in 0..4) {
            let bytes = Bytes::from(bytes);
            let delta = (parts & 1 == 1).then(|| Text(bytes.clone()));
            let delta_b64 = (parts & 2 == 2).then(|| Base64(bytes.clone()));
            let push = Push { uri: "command://x".to_owned(), delta, delta_b64, replay: Some(true), ..Push::default() };
            let event = Event::Push(push);
            let line = String::from_utf8(event.clone().line()).unwrap();
            let is_one = line.starts_with("{\"ev\":\"push\",") && line.ends_with("}\n");
            prop_assert!(is_one, "{}", line);
            prop_assert_eq!(line.matches('\n').count(), 1);
            let said: Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(said, serde_json::to_value(&event).unwrap());
        }
    }
}
