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
use ssh_mcp_core::{
    code::Warning,
    kind::rsync::{Fault, Logged, Status},
    registry::Rsync,
    text,
};
use ssh_mcp_engine::Engine;

use super::{Effect, Key, Reach, Repeat, Row, Set, call};
use crate::{cx::rfc3339, reply::Warned};

/// The sync tools, in the order of `tools/list`.
pub(crate) const ROWS: &[Row] = &[start::ROW, cancel::ROW, stats::ROW];

/// Events from a number on, as JSON, and where to go on.
pub(crate) struct Events {
    /// Each with its number and time.
    pub(crate) shown: Vec<Value>,
    /// Where the events begin.
    pub(crate) start: u64,
    /// Where the next read goes on.
    pub(crate) next: u64,
    /// Numbers whose events are gone.
    pub(crate) gap: u64,
    /// Whether the size kept events back.
    pub(crate) more: bool,
}

/// The oldest events from `from` on, of at most so many bytes, but never none where there is one.
pub(crate) fn events(engine: &Engine, rsync: &Rsync, from: u64, max: usize) -> Events {
    let window = rsync.course.log.read(from, usize::MAX);
    let (mut shown, mut size) = (Vec::new(), 0);
    let (mut next, mut more) = (window.next, false);
    for (number, logged) in &window.events {
        let event = event(engine, *number, logged);
        size += event.to_string().len() + 1;
        if size > max && !shown.is_empty() {
            (next, more) = (*number, true);
            break;
        }
        shown.push(event);
    }
    Events { shown, start: window.start, next, gap: window.gap, more }
}

/// An event as JSON.
pub(crate) fn event(engine: &Engine, number: u64, logged: &Logged) -> Value {
    // Every event has named fields, so there is an object to add to.
    let mut event = serde_json::to_value(&logged.event).unwrap_or_else(|_| json!({}));
    if let Some(fields) = event.as_object_mut() {
        fields.insert("seq".to_owned(), number.into());
        fields.insert("ts".to_owned(), rfc3339(engine, logged.at).into());
    }
    event
}

/// What is known of a sync, as its resource shows it with these events. The status is that of before they were read, so
/// that with an end its event is among them.
pub(crate) fn body(rsync: &Rsync, status: Status, events: Vec<Value>) -> Value {
    let spec = &rsync.spec;
    json!({
        "rsync_id": spec.id, "session_id": spec.session, "transport": rsync.course.transport(),
        "direction": spec.direction.as_str(), "local_path": spec.local, "remote_path": spec.remote,
        "dry_run": spec.dry_run, "delete": spec.delete, "status": status.as_str(),
        "stats": rsync.course.stats(), "last_seq": rsync.course.log.mark().seq, "events": events,
    })
}

/// The same with its newest events, for who looks at the whole again and again.
pub(crate) fn newest(engine: &Engine, rsync: &Rsync) -> Value {
    /// Events that are looked at.
    const NEWEST: u64 = 32;
    let (status, end) = (rsync.status(), rsync.course.log.mark().end);
    body(rsync, status, events(engine, rsync, end.saturating_sub(NEWEST), usize::MAX).shown)
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
