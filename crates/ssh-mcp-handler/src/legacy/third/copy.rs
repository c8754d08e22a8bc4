//! `ssh_scp` of 003: a connection, a transfer on it, and its end, in one call.

use std::time::Duration;

use rmcp::model::JsonObject;
use serde_json::{Value, json};

use super::{
    super::{
        Calls, WAIT, called_off, is, object,
        row::{From, Kind, Known, Manner, Shape, Text, Told, Tool, field, made, optional, required, told},
    },
    EXTRA_SSH_ARGS, HOST_KEY_CHECKING, IDENTITY_FILE, KNOWN_HOSTS_FILE, PORT, TARGET,
};
use crate::failure::Failure;

pub(super) static SCP: Tool = Tool {
    name: "ssh_scp",
    title: "Copy files to or from a host",
    description: "Copies files between the server's machine and a host and waits for the end. Several sources go into a \
                  directory; directories need recursive=true; wildcards are not expanded. target is an alias of the SSH \
                  configuration, host, or user@host; the connection is kept for the next call. exit_code is 1 where \
                  something failed, which stderr names, and -1 where timeout ended it; what has arrived stays.",
    calls: &["ssh_upload", "ssh_download", CONNECT, PROGRESS, "ssh_transfer_cancel"],
    arguments: &[
        TARGET.of(CONNECT),
        required("direction").unsent().shaped(Shape::Words(&["upload", "download"])),
        required("sources").unsent().shaped(Shape::Texts),
        required("destination").unsent().shaped(Shape::Text).says("A directory: below it."),
        PORT.of(CONNECT),
        IDENTITY_FILE.of(CONNECT),
        KNOWN_HOSTS_FILE.of(CONNECT),
        HOST_KEY_CHECKING.of(CONNECT),
        EXTRA_SSH_ARGS.of(CONNECT),
        optional("recursive"),
        optional("preserve_times").to("preserve"),
        optional("timeout")
            .unsent()
            .shaped(Shape::Seconds(None))
            .says("Run-time limit in seconds, once connected; 0 is none."),
    ],
    fixed: &[],
    course: |calls| Box::pin(copy(calls)),
    fields: &[&[
        made("exit_code", Kind::Whole, |known| Some(copied(known).into())),
        field("direction", Kind::Text, From::Asked("direction")),
        field("sources", Kind::Texts, From::Asked("sources")),
        field("destination", Kind::Text, From::Asked("destination")),
        // It has always been silent but for its complaints.
        made("stdout", Kind::Text, |_| Some("".into())),
        made("stderr", Kind::Text, |known| Some(complaints(known).into())),
        told("timed_out", Kind::Flag),
        told("transfer_id", Kind::Text).if_any(),
    ]],
    text: Text::Object,
    manner: Manner::Third,
};

const CONNECT: &str = "ssh_connect";
const PROGRESS: &str = "ssh_transfer_progress";

/// Copies and waits for the end, which the time limit or a client that calls the request off brings about: nothing else of
/// 003 could end a transfer.
async fn copy(calls: &mut Calls<'_>) -> Result<Told, Failure> {
    let mut login = calls.arguments(CONNECT)?;
    login.insert("reuse".into(), "auto".into());
    let session = calls.then(CONNECT, login.into()).await?.remove("session_id");
    let cx = calls.cx;
    let now = || cx.engine.clock().now();
    let limit = calls.seconds("timeout");
    let deadline = now().saturating_add(if limit.is_zero() { Duration::MAX } else { limit });
    let left = || deadline.saturating_sub(now());

    let (tool, order) = order(calls, session)?;
    let first = match calls.then_within(left(), tool, order).await {
        Ok(started) => started,
        // Looking at both sides took all the time there was.
        Err(_) if left().is_zero() && !calls.is_called_off() => {
            return Ok(over(JsonObject::new(), JsonObject::new(), true));
        }
        Err(failure) => return Err(failure),
    };
    let id = json!({ "transfer_id": first.get("transfer_id") });
    loop {
        let mut wait = object(id.clone());
        wait.extend([("wait".into(), true.into()), ("wait_timeout_secs".into(), WAIT.as_secs().into())]);
        let last = calls.then_within(left(), PROGRESS, wait.into()).await?;
        if !is(&last, "running") {
            return Ok(over(first, last, false));
        }
        if !left().is_zero() && !calls.is_called_off() {
            continue;
        }
        let cancelled = calls.then("ssh_transfer_cancel", id.clone()).await?;
        if calls.is_called_off() {
            return Err(called_off());
        }
        // It may have ended by itself at the last moment.
        let last = calls.then(PROGRESS, id).await?;
        return Ok(over(first, last, is(&cancelled, "cancelled")));
    }
}

/// The call that starts a copy. The options of both directions have the same names.
fn order(calls: &Calls<'_>, session: Option<Value>) -> Result<(&'static str, Value), Failure> {
    let mut order = calls.arguments(calls.tool.main())?;
    let asked = |name: &str| calls.asked.get(name).cloned().unwrap_or_default();
    let (tool, from, to) = match asked("direction") == "download" {
        true => ("ssh_download", "remote_path", "local_path"),
        false => ("ssh_upload", "local_path", "remote_path"),
    };
    // One alone need not go into a directory.
    let alone = calls.asked.get("sources").and_then(Value::as_array).filter(|sources| sources.len() == 1);
    _ = match alone.and_then(|sources| sources.first()) {
        Some(one) => order.insert(from.into(), one.clone()),
        None => order.insert(format!("{from}s"), asked("sources")),
    };
    order.insert(to.into(), asked("destination"));
    order.insert("session_id".into(), session.unwrap_or_default());
    Ok((tool, order.into()))
}

fn over(first: JsonObject, mut last: JsonObject, timed_out: bool) -> Told {
    last.insert("timed_out".into(), timed_out.into());
    Told { first, last }
}

/// The exit status of a copy; what was cut off has none.
fn copied(known: &Known<'_>) -> i64 {
    match known.text("status") {
        "completed" => 0,
        "failed" => 1,
        _ => -1,
    }
}

/// What a copy complains of, a line each.
fn complaints(known: &Known<'_>) -> String {
    let files = known.last.get("files");
    let of_files = files.and_then(|files| files.get("errors")?.as_array());
    let listed = of_files.map_or_else(
        || known.last.get("error").into_iter().collect(),
        |list| list.iter().collect::<Vec<_>>(),
    );
    let failed = files.and_then(|files| files.get("files_failed")?.as_u64()).unwrap_or_default();
    let unlisted = failed.saturating_sub(listed.len() as u64);
    let reasons = listed.iter().filter_map(|error| error.get("reason")?.as_str()).map(str::to_owned);
    let rest = (unlisted > 0).then(|| format!("and {unlisted} more"));
    let cut = (copied(known) < 0).then(|| match known.told("timed_out") == Some(&json!(true)) {
        true => "the time limit ended it".to_owned(),
        false => "it was cancelled".to_owned(),
    });
    reasons.chain(rest).chain(cut).map(|line| format!("scp: {line}\n")).collect()
}
