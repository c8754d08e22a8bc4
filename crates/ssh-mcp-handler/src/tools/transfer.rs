//! The transfer tools: send and fetch files, look at a transfer, end it.
//!
//! What may be transferred and how is decided by the engine; here arguments become an [`Order`], and a [`Transfer`]
//! becomes an answer or the body of its resource.

mod cancel;
mod progress;
mod start;

use serde_json::{Value, json};
use ssh_mcp_core::{
    code::Warning,
    kind::transfer::{Rate, Reached},
    registry::{Entry, Transfer, TransferStatus},
    text,
};
use ssh_mcp_engine::Engine;

pub(crate) use start::UNSHOWN_BY_DOWNLOAD;

use super::{Effect, Key, Reach, Repeat, Row, Set, call};
use crate::{progress::Beat, reply::Warned};

/// The transfer tools, in the order of `tools/list`.
pub(crate) const ROWS: &[Row] = &[start::UPLOAD, start::DOWNLOAD, progress::ROW, cancel::ROW];

/// How far a transfer is, as everything that shows it needs it.
struct Standing {
    status: TransferStatus,
    reached: Reached,
    bytes_per_sec: u64,
    eta_secs: Option<u64>,
}

impl Standing {
    fn of(engine: &Engine, transfer: &Transfer) -> Self {
        // The end is looked at first: what is shown as ended is final.
        let status = transfer.status();
        let reached = transfer.reached();
        let at = transfer.ended().map_or_else(|| engine.clock().now(), |(_, at)| at);
        let bytes_per_sec = transfer.rate.lock().bytes_per_sec(at, reached.moved());
        let left = transfer.spec.total.saturating_sub(reached.bytes);
        let eta_secs = match status {
            TransferStatus::Running => Rate::eta_secs(bytes_per_sec, left),
            TransferStatus::Completed | TransferStatus::Failed | TransferStatus::Cancelled => None,
        };
        Self { status, reached, bytes_per_sec, eta_secs }
    }

    /// Whole percent; what is not all there is not 100.
    fn percent(&self, total: u64) -> u8 {
        let part = u128::from(self.reached.bytes) * 100;
        match part.checked_div(u128::from(total)) {
            Some(percent) if self.reached.bytes < total => u8::try_from(percent.min(99)).unwrap_or(99),
            Some(_) => 100,
            None if self.status == TransferStatus::Completed => 100,
            None => 0,
        }
    }
}

/// What is known of a transfer, as its resource shows it.
pub(crate) fn body(engine: &Engine, transfer: &Transfer) -> Value {
    let spec = &transfer.spec;
    // Taken first: what is shown is at least as new.
    let seq = transfer.changes.mark().seq;
    let standing = Standing::of(engine, transfer);
    let mut body = json!({
        "transfer_id": spec.id, "session_id": spec.session, "direction": spec.direction.as_str(),
        "local_path": spec.local, "remote_path": spec.remote, "status": standing.status.as_str(),
        "bytes_transferred": standing.reached.bytes, "total_bytes": spec.total,
        "resumed_from": standing.reached.resumed_from, "bytes_per_sec": standing.bytes_per_sec,
        "last_seq": seq,
    });
    let mut add = |name: &str, value: Option<Value>| {
        if let (Some(object), Some(value)) = (body.as_object_mut(), value) {
            object.insert(name.to_owned(), value);
        }
    };
    add("eta_secs", standing.eta_secs.map(Value::from));
    if let Some(files) = spec.files {
        add("files_total", Some(files.into()));
        add("files_done", Some(standing.reached.files_done.into()));
        add("files_failed", Some(standing.reached.files_failed.into()));
    }
    if let Some(end) = transfer.ending.get() {
        let fault = |fault: &ssh_mcp_core::kind::transfer::Fault| json!({ "code": fault.failure.as_str(), "reason": text::remote_words(&fault.reason) });
        add("error", end.facts.error.as_ref().map(fault));
        let failures: Vec<Value> = end.facts.failures.iter().map(fault).collect();
        add("errors", (spec.files.is_some() && !failures.is_empty()).then(|| failures.into()));
        let verified = end.facts.outcome.verified;
        add("verified", verified.map(|_| true.into()));
        add("verify_method", verified.map(|method| method.as_str().into()));
    }
    body
}

/// What went differently than a caller would expect.
fn warnings(transfer: &Transfer) -> Vec<Warned> {
    let Some(end) = transfer.ending.get() else { return Vec::new() };
    let outcome = end.facts.outcome;
    let changed = outcome.source_changed.then(|| {
        Warned::new(Warning::SourceChanged, "the source was written while it was read; transfer it again")
    });
    let not_atomic = outcome.not_atomic.then(|| {
        Warned::new(
            Warning::NotAtomic,
            "the server cannot replace a file at once; for a moment there was none",
        )
    });
    changed.into_iter().chain(not_atomic).collect()
}

/// How far a transfer is, for a progress notification.
fn beat(transfer: &Transfer) -> Beat {
    let bytes = transfer.reached().bytes;
    let total = transfer.spec.total;
    let message = format!("transfer running, {} of {}", text::human_size(bytes), text::human_size(total));
    Beat { progress: bytes, total: Some(total), message }
}
