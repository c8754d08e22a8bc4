//! `ssh_upload` and `ssh_download`: start a transfer of files.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ssh_mcp_core::{
    code::Effect as Begun,
    kind::transfer::Resume,
    lifecycle::AutoRelease,
    registry::{Direction, Transfer, TransferStatus},
    settings::Settings,
    text,
    uri::Scheme,
};
use ssh_mcp_engine::{Order, Route};

use super::{Effect, Key, Reach, Repeat, Row, Set, call};
use crate::{
    args::Arguments,
    cx::Cx,
    failure::{self, Failure},
    next::{self, After},
    progress::{Beat, EVERY_5_S, Waiting},
    reply::{Answer, Body, Text},
    tools::process,
};

pub(super) const UPLOAD: Row = Row {
    name: "ssh_upload",
    title: "Send files",
    description: "Sends a file of the server's machine by SFTP and returns its TRANSFER_ID at once; with recursive=true \
                  a directory. resume=true goes on behind what has arrived, verify=true compares hashes. It ends by \
                  itself, by ssh_transfer_cancel or with its session; what has arrived stays.",
    effect: Effect::Destroys,
    repeat: Repeat::Counts,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Transfer, Set::Core],
    makes: Some(Scheme::Transfer),
    call: call!(upload, UploadArgs, StartBody),
};

pub(super) const DOWNLOAD: Row = Row {
    name: "ssh_download",
    title: "Fetch files",
    description: "Fetches a remote file by SFTP to the server's machine and returns its TRANSFER_ID at once; with \
                  recursive=true a directory. Options and ends are those of ssh_upload.",
    effect: Effect::Destroys,
    repeat: Repeat::Counts,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Transfer, Set::Core],
    makes: Some(Scheme::Transfer),
    call: call!(download, DownloadArgs, StartBody),
};

/// Of the arguments both have, those that the listing leaves to `ssh_upload`.
pub(crate) const UNSHOWN_BY_DOWNLOAD: &[&str] = &["timeout_secs", "release_when_no_subs"];

#[derive(Deserialize, JsonSchema)]
struct UploadArgs {
    session_id: String,
    /// The source.
    local_path: Option<String>,
    /// Several sources, into a directory.
    #[schemars(length(min = 1))]
    local_paths: Option<Vec<String>>,
    /// A directory: below it.
    #[schemars(length(min = 1))]
    remote_path: String,
    #[serde(flatten)]
    how: HowArgs,
}

#[derive(Deserialize, JsonSchema)]
struct DownloadArgs {
    session_id: String,
    /// The source.
    remote_path: Option<String>,
    /// Several sources, into a directory.
    #[schemars(length(min = 1))]
    remote_paths: Option<Vec<String>>,
    /// A directory: below it.
    #[schemars(length(min = 1))]
    local_path: String,
    #[serde(flatten)]
    how: HowArgs,
}

#[derive(Deserialize, JsonSchema)]
struct HowArgs {
    /// Go on behind what is there.
    #[serde(default)]
    resume: bool,
    /// Compare SHA-256 of both sides.
    #[serde(default)]
    verify: bool,
    /// Directories too; make missing ones.
    #[serde(default)]
    recursive: bool,
    /// Replace the destination at the end.
    #[serde(default)]
    atomic: bool,
    /// Permissions and times of the source.
    #[serde(default)]
    preserve: bool,
    /// Run-time limit; 0 is none.
    #[serde(default)]
    timeout_secs: u64,
    /// End it when nobody waits or reads.
    #[serde(default)]
    release_when_no_subs: bool,
    /// Delay before that.
    #[schemars(range(max = 3_600_000))]
    grace_ms: Option<u64>,
}

fn defaults(settings: &Settings) -> Vec<(&'static str, Value)> {
    vec![("grace_ms", json!(settings.lifecycle_grace.as_millis() as u64))]
}

impl Arguments for UploadArgs {
    fn defaults(settings: &Settings) -> Vec<(&'static str, Value)> {
        defaults(settings)
    }
}

impl Arguments for DownloadArgs {
    fn defaults(settings: &Settings) -> Vec<(&'static str, Value)> {
        defaults(settings)
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct StartBody {
    transfer_id: String,
    session_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<String>,
    from: String,
    to: String,
    size_bytes: u64,
    /// Bytes that were there already.
    resumed_from: u64,
    /// Of several files or a directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<u64>,
}

impl Body for StartBody {
    const STATUSES: &'static [&'static str] = &["started"];

    fn write(&self, text: &mut Text) {
        text.key("TRANSFER_ID", &self.transfer_id);
        text.key("SESSION_ID", &self.session_id);
        text.maybe("AGENT_ID", self.agent_id.as_ref());
        text.key("FROM", &self.from);
        text.key("TO", &self.to);
        text.maybe("FILES", self.files);
        text.key("SIZE", format_args!("{} ({} bytes)", text::human_size(self.size_bytes), self.size_bytes));
        text.key("BYTES", self.size_bytes);
        text.maybe("RESUMED_FROM", (self.resumed_from > 0).then_some(self.resumed_from));
    }
}

async fn upload(cx: &Cx, args: UploadArgs) -> Result<Answer<StartBody>, Failure> {
    let UploadArgs { session_id, local_path, local_paths, remote_path, how } = args;
    let from = sources("local_path", local_path, local_paths)?;
    process::without_nul("remote_path", &remote_path)?;
    let from = from.iter().map(|path| cx.local_path("local_path", path)).collect::<Result<Vec<_>, _>>()?;
    start(cx, &session_id, Route::Up { from, to: remote_path.into_bytes() }, how).await
}

async fn download(cx: &Cx, args: DownloadArgs) -> Result<Answer<StartBody>, Failure> {
    let DownloadArgs { session_id, remote_path, remote_paths, local_path, how } = args;
    let from = sources("remote_path", remote_path, remote_paths)?;
    let to: PathBuf = cx.local_path("local_path", &local_path)?;
    let from = from.into_iter().map(String::into_bytes).collect();
    start(cx, &session_id, Route::Down { from, to }, how).await
}

/// Exactly one of the two ways to name sources.
fn sources(field: &str, one: Option<String>, several: Option<Vec<String>>) -> Result<Vec<String>, Failure> {
    let sources = match (one, several) {
        (Some(one), None) => vec![one],
        (None, Some(several)) => several,
        (None, None) => return Err(Failure::argument(format!("{field} is missing: the source"))),
        (Some(_), Some(_)) => {
            return Err(Failure::argument(format!("give either {field} or {field}s, not both")));
        }
    };
    for source in &sources {
        if source.is_empty() {
            return Err(Failure::argument(format!("{field} must not be empty")));
        }
        process::without_nul(field, source)?;
    }
    Ok(sources)
}

async fn start(cx: &Cx, session_id: &str, route: Route, how: HowArgs) -> Result<Answer<StartBody>, Failure> {
    let direction = match &route {
        Route::Up { .. } => Direction::Upload,
        Route::Down { .. } => Direction::Download,
    };
    let order = Order {
        session: cx.session(session_id)?.spec.id,
        route,
        here: cx.open_files(),
        resume: if how.resume { Resume::Yes } else { Resume::No },
        verify: how.verify,
        atomic: how.atomic,
        preserve: how.preserve,
        recursive: how.recursive,
        limit: (how.timeout_secs > 0).then(|| Duration::from_secs(how.timeout_secs)),
        auto_release: if how.release_when_no_subs { AutoRelease::On } else { AutoRelease::Off },
        grace: how.grace_ms.map_or(cx.settings().lifecycle_grace, Duration::from_millis),
    };
    let looking = || Beat { progress: 0, total: None, message: "looking at both sides".to_owned() };
    let starting = cx.engine.transfer(&cx.owner, order);
    let transfer = match cx.progress.while_waiting(EVERY_5_S, starting, looking).await {
        Waiting::Done(started) => started.map_err(|error| failure::transfer(error, direction))?,
        Waiting::Cancelled => return Err(super::super::exec::called_off(Begun::None)),
    };
    let id = transfer.spec.id;
    // Also of one that has ended meanwhile: how it ended is not said here.
    let answer = Answer::new("started", StartBody::new(&transfer))
        .with_next(next::next(&cx.catalogue, After::TransferRuns(id)));
    Ok(match transfer.status() {
        TransferStatus::Running => {
            let waiter = super::progress::ROW.name;
            let release = transfer.life.snapshot().auto_release;
            let own_grace = cx.settings().lifecycle_own_grace;
            answer
                .with_hint(next::stream_hint(&cx.catalogue, id.into(), waiter))
                .with_hint(next::release_hint(&cx.catalogue, release, own_grace, waiter))
        }
        TransferStatus::Completed | TransferStatus::Failed | TransferStatus::Cancelled => answer,
    })
}

impl StartBody {
    fn new(transfer: &Transfer) -> Self {
        let spec = &transfer.spec;
        let (from, to) = match spec.direction {
            Direction::Upload => (&spec.local, &spec.remote),
            Direction::Download => (&spec.remote, &spec.local),
        };
        Self {
            transfer_id: spec.id.to_string(),
            session_id: spec.session.to_string(),
            agent_id: spec.agent.clone(),
            from: from.clone(),
            to: to.clone(),
            size_bytes: spec.total,
            resumed_from: transfer.reached().resumed_from,
            files: spec.files,
        }
    }
}
