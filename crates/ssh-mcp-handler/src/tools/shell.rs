//! The shell tools: open an interactive shell, type into it, read and await what it prints, close it.
//!
//! One drained cursor per shell says what has been given to callers; all the tools here share it:
//!
//! - `ssh_shell_read from=head` takes the oldest output that has not been drained. Repeated calls give every byte once;
//!   what fell out of the history before is counted in `truncated_since_last_read`.
//! - `ssh_shell_read from=tail` and the output of `ssh_shell_write` are the newest part. With `clear` everything up to
//!   the end counts as drained, also what was passed over: a pattern awaited next must not match output from before. A
//!   hint says how much that was and where it can still be read.
//! - `ssh_shell_wait_for` shows and drains up to the end of the match; what came behind it is there for the next call.
//!   When its time runs out it keeps back what one of its texts may begin with, which is shown and not drained, so that a
//!   text whose rest comes later is found by the next call. `pending_output_chars` counts it.
//! - `INITIAL_BUFFER` and the last output of `ssh_shell_close` drain nothing.
//! - A call that its client has called off drains nothing.
//!
//! The automatic cursors of `resources/read` are others: they belong to a client's connection.

mod close;
mod input;
mod open;
mod output;
mod transcript;
mod unread;

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use ssh_mcp_core::{
    kind::{command::Exit, shell::exit_reason},
    reason::Reason,
    registry::{Entry, Recording, Shell},
};

use self::unread::{Cut, Drain, Piece};
use super::Row;
use crate::{
    cx::Cx,
    next,
    reply::{Completeness, Shown, Text},
};

/// The shell tools, in the order of `tools/list`.
pub(crate) const ROWS: &[Row] =
    &[open::OPEN, input::WRITE, input::PRESS, output::READ, output::WAIT_FOR, close::CLOSE];

/// The rare fields of `ssh_shell_open`, which its listing leaves to `docs/tools.md`, "Arguments that are not listed".
pub(super) const UNSHOWN_BY_OPEN: &[&str] = &["auto_close"];

/// How a shell stands; open, read, write and close tell it.
#[derive(Debug, Serialize, JsonSchema)]
struct Standing {
    target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    uptime_seconds: u64,
    idle_seconds: u64,
    pending_output_chars: u64,
    auto_close: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    transcript_size_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transcript_error: Option<String>,
}

impl Standing {
    /// How it stands now.
    async fn of(cx: &Cx, shell: &Shell) -> Self {
        let pending_output_chars = unread::characters(&shell.history, &shell.drained).await;
        let end = shell.ending.get();
        let exit = end.and_then(|end| end.facts.as_ref());
        let until = end.map_or_else(|| cx.engine.clock().now(), |end| end.at);
        let (exit_code, signal) = match exit {
            Some(Exit::Status(status)) => (Some(*status), None),
            Some(Exit::Signal(name)) => (None, Some(name.clone())),
            None => (None, None),
        };
        Self {
            target: shell.spec.target.clone(),
            name: shell.spec.name.clone(),
            running: end.is_none(),
            exit_code,
            signal,
            exit_reason: end.and_then(|end| exit_reason(end.reason, exit)),
            reason: end.map(|end| end.reason.as_str()),
            uptime_seconds: until.saturating_sub(shell.spec.opened).as_secs(),
            idle_seconds: until.saturating_sub(shell.active.last()).as_secs(),
            pending_output_chars,
            auto_close: shell.spec.retention == KEPT_SHORTLY,
            transcript_size_bytes: shell.recording.as_ref().map(Recording::size),
            transcript_error: shell.recording.as_ref().and_then(Recording::fault).map(str::to_owned),
        }
    }

    fn write(&self, text: &mut Text) {
        text.key("TARGET", &self.target);
        text.maybe("NAME", self.name.as_ref());
        text.key("RUNNING", self.running);
        text.maybe("EXIT", self.exit_code);
        text.maybe("SIGNAL", self.signal.as_ref());
        text.maybe("EXIT_REASON", self.exit_reason.as_ref());
        text.maybe("REASON", self.reason);
        text.key("UPTIME_SECONDS", self.uptime_seconds);
        text.key("IDLE_SECONDS", self.idle_seconds);
        text.key("PENDING_OUTPUT_CHARS", self.pending_output_chars);
        text.key("AUTO_CLOSE", self.auto_close);
        text.maybe("TRANSCRIPT_SIZE_BYTES", self.transcript_size_bytes);
        text.maybe("TRANSCRIPT_ERROR", self.transcript_error.as_ref());
    }
}

/// Output of a shell in an answer.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    stdout: String,
    bytes_returned: u64,
    buffer_size_at_snapshot: u64,
    cleared: bool,
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated_since_last_read: Option<u64>,
    #[serde(skip)]
    shown: Shown,
}

impl Output {
    fn new(shell: &Shell, piece: &Piece, drain: Drain) -> Self {
        let whole = shell.ended().is_some_and(|(reason, _)| reason != Reason::ConnectionLost);
        let completeness = if whole { Completeness::Whole } else { Completeness::Partial };
        let total = match piece.cut {
            Cut::Truncated => piece.unread,
            Cut::Nothing => piece.bytes.len() as u64,
        };
        let shown = Shown::piece(&piece.bytes, total, completeness);
        Self {
            stdout: shown.text.clone(),
            bytes_returned: piece.bytes.len() as u64,
            buffer_size_at_snapshot: piece.unread,
            cleared: drain == Drain::Shown,
            truncated: shown.is_truncated(),
            truncated_since_last_read: (piece.lost > 0).then_some(piece.lost),
            shown,
        }
    }

    fn write(&self, text: &mut Text) {
        text.key("BYTES_RETURNED", self.bytes_returned);
        text.key("BUFFER_SIZE_AT_SNAPSHOT", self.buffer_size_at_snapshot);
        text.key("CLEARED", self.cleared);
        text.maybe("TRUNCATED_SINCE_LAST_READ", self.truncated_since_last_read);
    }

    /// The block with the bytes; stands behind all keys.
    fn write_block(&self, text: &mut Text) {
        text.block("data", &self.shown);
    }
}

/// The newest output that has not been drained.
fn newest(shell: &Shell, max: usize, drain: Drain) -> Piece {
    unread::take(&shell.drained, drain, |at| Piece::newest(&shell.history, at, u64::MAX, max))
}

/// Where older output is that was drained without being shown.
fn skipped_hint(shell: &Shell, piece: &Piece, drain: Drain) -> Option<String> {
    let from = piece.start.checked_sub(piece.skipped).filter(|_| piece.skipped > 0)?;
    let skipped = ssh_mcp_core::text::human_size(piece.skipped);
    let uri = Cx::uri(Shell::SCHEME, shell.spec.id);
    Some(match drain {
        Drain::Shown => format!(
            "{skipped} of older output were passed over and count as drained; resources/read {uri}?cursor={from} \
             still has them"
        ),
        Drain::Nothing => format!("{skipped} of older output come before this; from=head gives them first"),
    })
}

/// Advice behind input: how to come by what it brings about.
fn awaited_hint(cx: &Cx, shell: &Shell) -> Option<String> {
    next::stream_hint(&cx.catalogue, shell.spec.id.into(), "ssh_shell_wait_for")
}

/// A wait in seconds as a call gives it; longer ones are cut to the cap, and what is no number of seconds has been
/// refused by the schema.
fn patience(secs: f64) -> Duration {
    Duration::try_from_secs_f64(secs.max(0.0)).unwrap_or(WAIT_CAP).min(WAIT_CAP)
}

/// Whether a flag that is on unless switched off is on.
fn yes() -> bool {
    true
}

/// Longest wait of one call; longer ones are cut to it.
const WAIT_CAP: Duration = Duration::from_secs(300);

/// Output that paused for this long is taken for complete by `wait_secs`: a program that was typed to answers within it,
/// and a model's turn takes longer.
const SETTLED: Duration = Duration::from_millis(500);

/// How long a shell that ended by itself stays readable, and with `auto_close`.
const KEPT: Duration = Duration::from_secs(3600);
const KEPT_SHORTLY: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
