//! `ssh_transfer_progress`: how a transfer stands, after waiting for its end if asked to.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ssh_mcp_core::{
    kind::transfer::Fault,
    registry::{Direction, Transfer, TransferStatus},
    text,
};
use ssh_mcp_engine::Observable;

use super::{Effect, Key, Reach, Repeat, Row, Set, Standing, call};
use crate::{
    args::Arguments,
    cx::Cx,
    failure::Failure,
    next::{self, After},
    progress::EVERY_5_S,
    reply::{Answer, Body, Text},
};

pub(super) const ROW: Row = Row {
    name: "ssh_transfer_progress",
    title: "Look at or await a transfer",
    description: "Shows how far a transfer is. wait=true waits for its end first: take that rather than asking again and \
                  again. RUNNING: the wait ran out, the transfer goes on. FAILED says why; resume=true goes on from there.",
    effect: Effect::ReadOnly,
    repeat: Repeat::Harmless,
    reach: Reach::Held,
    key: Key::Ignored,
    sets: &[Set::Transfer, Set::Core],
    makes: None,
    call: call!(progress, ProgressArgs, ProgressBody),
};

#[derive(Debug, Deserialize, JsonSchema)]
struct ProgressArgs {
    transfer_id: String,
    #[serde(default)]
    wait: bool,
    #[serde(default = "thirty")]
    wait_timeout_secs: u64,
}

fn thirty() -> u64 {
    30
}

impl Arguments for ProgressArgs {}

#[derive(Debug, Serialize, JsonSchema)]
struct ProgressBody {
    transfer_id: String,
    direction: &'static str,
    progress_percent: u8,
    bytes_transferred: u64,
    total_bytes: u64,
    bytes_per_sec: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_secs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Files>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verify_method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Error>,
}

/// The files of a transfer of several.
#[derive(Debug, Serialize, JsonSchema)]
struct Files {
    files_total: u64,
    files_done: u64,
    files_failed: u64,
    /// The first ones that failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Error>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Error {
    code: &'static str,
    reason: String,
}

impl From<&Fault> for Error {
    fn from(fault: &Fault) -> Self {
        Self { code: fault.failure.as_str(), reason: text::remote_words(&fault.reason) }
    }
}

impl Body for ProgressBody {
    const STATUSES: &'static [&'static str] = &["running", "completed", "failed", "cancelled"];

    fn write(&self, text: &mut Text) {
        text.key("TRANSFER_ID", &self.transfer_id);
        text.key("DIRECTION", self.direction.to_ascii_uppercase());
        text.key(
            "PROGRESS",
            format_args!(
                "{}% ({}/{} bytes)",
                self.progress_percent, self.bytes_transferred, self.total_bytes
            ),
        );
        if let Some(eta) = self.eta_secs {
            text.key("RATE", format_args!("{}/s", text::human_size(self.bytes_per_sec)));
            text.key("ETA", format_args!("{eta} s"));
        }
        if let Some(files) = &self.files {
            text.key("FILES", format_args!("{}/{}", files.files_done, files.files_total));
            text.maybe("FILES_FAILED", (files.files_failed > 0).then_some(files.files_failed));
        }
        text.maybe("VERIFIED", self.verify_method);
        if let Some(Error { code, reason }) = &self.error {
            text.key("REASON", format_args!("[{code}] {reason}"));
        }
        for Error { code, reason } in self.files.iter().flat_map(|files| &files.errors) {
            text.item(format_args!("[{code}] {reason}"));
        }
    }
}

async fn progress(cx: &Cx, args: ProgressArgs) -> Result<Answer<ProgressBody>, Failure> {
    let transfer = cx.transfer(&args.transfer_id)?;
    // Who looks counts as an observer as long as the call runs, so that polling keeps one that releases itself.
    let _observer = cx.engine.observe(Observable::Transfer(&transfer));
    if args.wait {
        let patience = Duration::from_secs(args.wait_timeout_secs.min(300));
        let work = cx.engine.await_transfer(&transfer, patience);
        // Called off or out of patience: the answer is how it stands now.
        _ = cx.progress.while_waiting(EVERY_5_S, work, || super::beat(&transfer)).await;
    }
    let standing = Standing::of(&cx.engine, &transfer);
    let status = standing.status;
    let answer = Answer::new(status.as_str(), ProgressBody::new(&transfer, &standing));
    Ok(match status {
        TransferStatus::Running => {
            answer.with_next(next::next(&cx.catalogue, After::TransferRuns(transfer.spec.id)))
        }
        TransferStatus::Completed | TransferStatus::Failed | TransferStatus::Cancelled => {
            answer.with_warnings(super::warnings(&transfer))
        }
    })
}

impl ProgressBody {
    fn new(transfer: &Transfer, standing: &Standing) -> Self {
        let spec = &transfer.spec;
        let end = transfer.ending.get().map(|end| &end.facts);
        let verified = end.and_then(|end| end.outcome.verified);
        let files = spec.files.map(|files| Files {
            files_total: files,
            files_done: standing.reached.files_done,
            files_failed: standing.reached.files_failed,
            errors: end.map(|end| end.failures.iter().map(Error::from).collect()).unwrap_or_default(),
        });
        Self {
            transfer_id: spec.id.to_string(),
            direction: match spec.direction {
                Direction::Upload => "upload",
                Direction::Download => "download",
            },
            progress_percent: standing.percent(spec.total),
            bytes_transferred: standing.reached.bytes,
            total_bytes: spec.total,
            bytes_per_sec: standing.bytes_per_sec,
            eta_secs: standing.eta_secs,
            files,
            verified: verified.map(|_| true),
            verify_method: verified.map(|method| method.as_str()),
            error: end.and_then(|end| end.error.as_ref()).map(Error::from),
        }
    }
}
