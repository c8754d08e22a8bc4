//! `ssh_rsync_stats`: how a sync stands.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ssh_mcp_core::{kind::rsync::Stats, registry::Rsync};
use ssh_mcp_engine::Observable;

use super::{Effect, Key, Reach, Repeat, Row, Set, call};
use crate::{
    args::Arguments,
    cx::Cx,
    failure::Failure,
    next::{self, After},
    reply::{Answer, Body, Text},
};

pub(super) const ROW: Row = Row {
    name: "ssh_rsync_stats",
    title: "Counters of a sync",
    description: "Shows status and counters of a sync, and why it failed if it did. It does not wait: follow the rsync:// \
                  URI with sub_wait rather than asking again and again. completed with FILES_FAILED above 0: single \
                  files failed.",
    effect: Effect::ReadOnly,
    repeat: Repeat::Harmless,
    reach: Reach::Held,
    key: Key::Ignored,
    sets: &[Set::Rsync],
    makes: None,
    call: call!(stats, StatsArgs, StatsBody),
};

#[derive(Debug, Deserialize, JsonSchema)]
struct StatsArgs {
    rsync_id: String,
}

impl Arguments for StatsArgs {}

#[derive(Debug, Serialize, JsonSchema)]
struct StatsBody {
    rsync_id: String,
    session_status: &'static str,
    transport: &'static str,
    files_total: u64,
    files_done: u64,
    files_deleted: u64,
    files_failed: u64,
    bytes_total: u64,
    bytes_transferred: u64,
    bytes_skipped: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Error>,
    /// Why nothing was deleted though that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    delete_skipped: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Error {
    code: &'static str,
    detail: String,
}

impl Body for StatsBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.key("RSYNC_ID", &self.rsync_id);
        text.key("STATUS", self.session_status);
        text.key("TRANSPORT", self.transport);
        text.key("FILES_TOTAL", self.files_total);
        text.key("FILES_DONE", self.files_done);
        text.key("FILES_DELETED", self.files_deleted);
        text.key("FILES_FAILED", self.files_failed);
        text.key("BYTES_TOTAL", self.bytes_total);
        text.key("BYTES_TRANSFERRED", self.bytes_transferred);
        text.key("BYTES_SKIPPED", self.bytes_skipped);
        if let Some(Error { code, detail }) = &self.error {
            text.key("REASON", format_args!("[{code}] {detail}"));
        }
        text.maybe("DELETE_SKIPPED", self.delete_skipped.as_ref());
    }
}

async fn stats(cx: &Cx, args: StatsArgs) -> Result<Answer<StatsBody>, Failure> {
    let rsync = cx.rsync(&args.rsync_id)?;
    // Who looks counts as an observer as long as the call runs, so that polling keeps one that releases itself.
    let _observer = cx.engine.observe(Observable::Rsync(&rsync));
    // The end is looked at first: what is shown as ended is final.
    let status = rsync.status();
    let answer =
        Answer::new("ok", StatsBody::new(&rsync, status.as_str())).with_warnings(super::warnings(&rsync));
    Ok(match status.has_ended() {
        true => answer,
        false => answer.with_next(next::next(&cx.catalogue, After::SyncRuns(rsync.spec.id))),
    })
}

impl StatsBody {
    fn new(rsync: &Rsync, session_status: &'static str) -> Self {
        let Stats {
            files_total,
            files_done,
            bytes_total,
            bytes_transferred,
            bytes_skipped,
            files_deleted,
            files_failed,
        } = rsync.course.stats();
        Self {
            rsync_id: rsync.spec.id.to_string(),
            session_status,
            transport: rsync.course.transport().as_str(),
            files_total,
            files_done,
            files_deleted,
            files_failed,
            bytes_total,
            bytes_transferred,
            bytes_skipped,
            error: super::fault(rsync)
                .map(|fault| Error { code: fault.failure.as_str(), detail: fault.detail.clone() }),
            delete_skipped: rsync.ending.get().and_then(|end| end.facts.done.delete_skipped.clone()),
        }
    }
}
