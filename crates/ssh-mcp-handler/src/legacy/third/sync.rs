//! `ssh_sync` of 003: a connection, a sync on it, and its end, in one call.

use std::time::Duration;

use rmcp::model::JsonObject;
use serde_json::{Value, json};

use super::{
    super::{
        Calls, WAIT, called_off, is, object,
        row::{From, Kind, Known, Manner, Shape, Text, Told, Tool, field, made, optional, required, told},
    },
    ALL, EXTRA_SSH_ARGS, HOST_KEY_CHECKING, IDENTITY_FILE, KNOWN_HOSTS_FILE, PORT, TARGET,
};
use crate::failure::Failure;

pub(super) static SYNC: Tool = Tool {
    name: "ssh_sync",
    title: "Sync a tree to or from a host",
    description: "Makes a tree on one side like one on the other, by rsync where the host has it and by SFTP elsewhere, and \
                  waits for the end. source/ is its content, source itself goes below destination. target is an alias of \
                  the SSH configuration, host, or user@host; the connection is kept for the next call. exit_code is 1 \
                  where something failed, which stderr names, and -1 where timeout ended it; what has arrived stays.",
    calls: &["ssh_rsync", CONNECT, WAITER, STATS, CANCEL],
    arguments: &[
        TARGET.of(CONNECT),
        required("direction").unsent().shaped(Shape::Words(&["upload", "download"])),
        required("source").unsent().shaped(Shape::Text),
        required("destination").unsent().shaped(Shape::Text),
        PORT.of(CONNECT),
        IDENTITY_FILE.of(CONNECT),
        KNOWN_HOSTS_FILE.of(CONNECT),
        HOST_KEY_CHECKING.of(CONNECT),
        EXTRA_SSH_ARGS.of(CONNECT),
        optional("delete").unsent().shaped(Shape::Flag(false)).says("What source does not have goes."),
        optional("compress").unsent().shaped(Shape::Flag(true)),
        optional("dry_run").unsent().shaped(Shape::Flag(false)).says("Nothing is changed."),
        optional("exclude").unsent().shaped(Shape::AnyTexts).says("As in .gitignore."),
        optional("timeout")
            .unsent()
            .shaped(Shape::Seconds(None))
            .says("Run-time limit in seconds, once connected; 0 is none."),
        optional("extra_rsync_args").unsent().shaped(Shape::AnyTexts).says("Refused: no program runs here."),
    ],
    fixed: &[],
    course: |calls| Box::pin(sync(calls)),
    fields: &[&[
        made("exit_code", Kind::Whole, |known| Some(synced(known).into())),
        field("direction", Kind::Text, From::Asked("direction")),
        field("source", Kind::Text, From::Asked("source")),
        field("destination", Kind::Text, From::Asked("destination")),
        // It has always been silent but for its complaints.
        made("stdout", Kind::Text, |_| Some("".into())),
        told("stderr", Kind::Text),
        told("timed_out", Kind::Flag),
        told("rsync_id", Kind::Text).if_any(),
    ]],
    text: Text::Object,
    manner: Manner::Third,
};

const CONNECT: &str = "ssh_connect";
const WAITER: &str = "sub_wait";
const STATS: &str = "ssh_rsync_stats";
const CANCEL: &str = "ssh_rsync_cancel";

/// Files whose failure is told one by one.
const NAMED: usize = 20;

/// Syncs and waits for the end, which the time limit or a client that calls the request off brings about: nothing else of
/// 003 could end a sync.
async fn sync(calls: &mut Calls<'_>) -> Result<Told, Failure> {
    if calls.asked.get("extra_rsync_args").and_then(Value::as_array).is_some_and(|args| !args.is_empty()) {
        return Err(Failure::argument(
            "extra_rsync_args must be empty: this server runs no rsync of its own; delete, compress, dry_run and exclude \
             have arguments, archive is always on",
        ));
    }
    let mut login = calls.arguments(CONNECT)?;
    login.insert("reuse".into(), "auto".into());
    let session = calls.then(CONNECT, login.into()).await?.remove("session_id");
    let cx = calls.cx;
    let now = || cx.engine.clock().now();
    let limit = calls.seconds("timeout");
    let deadline = now().saturating_add(if limit.is_zero() { Duration::MAX } else { limit });
    let left = || deadline.saturating_sub(now());

    let asked = |name: &str| calls.asked.get(name).cloned();
    let order = json!({ "session_id": session, "direction": asked("direction"), "src": asked("source"),
        "dst": asked("destination"), "opts": { "archive": true, "delete": asked("delete"),
        "compress": asked("compress"), "dry_run": asked("dry_run"), "exclude": asked("exclude") } });
    let first = calls.then("ssh_rsync", order).await?;
    let id = json!({ "rsync_id": first.get("rsync_id") });
    let uri = format!(
        "rsync://{}/progress?cursor=0",
        first.get("rsync_id").and_then(Value::as_str).unwrap_or_default()
    );
    let wait = json!({ "uris": [uri], "until": "end", "timeout_secs": WAIT.as_secs(), "max_output_bytes": ALL.to_value() });
    let mut cut = false;
    let events = loop {
        let waited = calls.then_within(left(), WAITER, wait.clone()).await?;
        if is(&waited, "ended") {
            break newest_events(&waited);
        }
        if left().is_zero() || calls.is_called_off() {
            // It may have ended by itself at the last moment.
            cut = !calls.then(CANCEL, id.clone()).await?.contains_key("noop");
            if calls.is_called_off() {
                return Err(called_off());
            }
        }
    };
    let mut last = calls.then(STATS, id).await?;
    last.insert("timed_out".into(), cut.into());
    let stderr = complaints(&last, &events, cut);
    last.insert("stderr".into(), stderr.into());
    Ok(Told { first, last })
}

/// The events that a wait has shown, which are the newest.
fn newest_events(waited: &JsonObject) -> Vec<JsonObject> {
    let delta = waited.get("items").and_then(|items| items.get(0)?.get("delta")?.as_str());
    let mut body: Value = delta.and_then(|delta| serde_json::from_str(delta).ok()).unwrap_or_default();
    match body.get_mut("events").map(Value::take) {
        Some(Value::Array(events)) => events.into_iter().map(object).collect(),
        Some(_) | None => Vec::new(),
    }
}

/// The exit status of a sync; what was cut off has none.
fn synced(known: &Known<'_>) -> i64 {
    let failed = known.told("files_failed").and_then(Value::as_u64).unwrap_or_default();
    match known.text("session_status") {
        "completed" => i64::from(failed > 0),
        "failed" => 1,
        _ => -1,
    }
}

/// What a sync complains of, a line each.
fn complaints(last: &JsonObject, events: &[JsonObject], cut: bool) -> String {
    let text = |object: &JsonObject, name: &str| {
        object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let failed = events.iter().filter(|event| text(event, "kind") == "file_failed");
    let mut lines: Vec<String> = failed
        .take(NAMED)
        .map(|event| format!("{}: {}", text(event, "rel_path"), text(event, "detail")))
        .collect();
    let all = last.get("files_failed").and_then(Value::as_u64).unwrap_or_default();
    let unnamed = all.saturating_sub(lines.len() as u64);
    lines.extend((unnamed > 0).then(|| format!("and {unnamed} more")));
    let error = last.get("error").and_then(Value::as_object).map(|error| text(error, "detail"));
    lines.extend(if cut { Some("the time limit ended it".to_owned()) } else { error });
    lines.extend(
        last.get("delete_skipped").and_then(Value::as_str).map(|why| format!("nothing was deleted: {why}")),
    );
    lines.iter().map(|line| format!("rsync: {line}\n")).collect()
}
