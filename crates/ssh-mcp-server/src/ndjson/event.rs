//! The lines of output: one type for each event, and the schema comes from them (`docs/daemon.md`, "Events").
//!
//! A field that has no value is left out, `completed.exit` alone is null after death by a signal. Secrets have no field.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

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
        delta: String,
        /// The bytes.
        delta_b64: String,
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
        bytes: String,
        ; maybe
        bytes_b64: String,
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
        delta: String,
        delta_b64: String,
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
