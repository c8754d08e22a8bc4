//! The sync tools: make two trees equal, look at the counters, end it.
//!
//! What is done and how is decided by the engine; here arguments become a [`SyncOrder`](ssh_mcp_engine::SyncOrder), and an
//! [`Rsync`] becomes an answer or the body of its resource.

mod cancel;
mod start;
mod stats;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};
use ssh_mcp_core::{code::Warning, kind::rsync::Fault, registry::Rsync, text};

use super::{Effect, Key, Reach, Repeat, Row, Set, call};
use crate::reply::Warned;

/// The sync tools, in the order of `tools/list`.
pub(crate) const ROWS: &[Row] = &[start::ROW, cancel::ROW, stats::ROW];

/// What is known of a sync, as its resource shows it with these events.
pub(crate) fn body(rsync: &Rsync, status: &str, events: Vec<Value>) -> Value {
    let spec = &rsync.spec;
    json!({
        "rsync_id": spec.id, "session_id": spec.session, "transport": rsync.course.transport(),
        "direction": spec.direction.as_str(), "local_path": spec.local, "remote_path": spec.remote,
        "dry_run": spec.dry_run, "delete": spec.delete, "status": status,
        "stats": rsync.course.stats(), "last_seq": rsync.course.log.mark().seq, "events": events,
    })
}

/// Why a sync came to no end.
fn fault(rsync: &Rsync) -> Option<&Fault> {
    rsync.ending.get()?.facts.fault.as_ref()
}

/// What went differently than a caller would expect.
fn warnings(rsync: &Rsync) -> Vec<Warned> {
    let fell_back = rsync.course.fell_back().map(|words| {
        let words = text::remote_words(&words);
        Warned::new(Warning::WireFallback, format!("rsync failed, the file service took over: {words}"))
    });
    let incomplete = |msg: String| Warned::new(Warning::SyncIncomplete, msg);
    let done = rsync.ending.get().map(|end| &end.facts.done);
    let failed = rsync.course.stats().files_failed;
    let failed =
        (failed > 0).then(|| incomplete(format!("{failed} failed; file_failed events say which and why")));
    let kept = done.and_then(|done| done.delete_skipped.as_ref());
    let kept = kept.map(|why| incomplete(format!("nothing was deleted: {}", text::remote_words(why))));
    let notes =
        done.into_iter().flat_map(|done| &done.notes).map(|note| incomplete(text::remote_words(note)));
    let all = fell_back.into_iter().chain(failed).chain(kept).chain(notes);
    all.map(|warned| warned.with_resource(ssh_mcp_core::uri::Resource::from(rsync.spec.id))).collect()
}
