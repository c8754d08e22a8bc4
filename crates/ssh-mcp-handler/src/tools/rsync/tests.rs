//! The sync tools over a scripted mirror, in virtual time, through the path every `tools/call` takes.

use std::time::Duration;

use serde_json::{Value, json};
use ssh_mcp_core::{
    port::mirror::{BrokenKind, Devices, Done, FileFault, News, Options},
    registry::Direction,
};
use ssh_mcp_testkit::{
    host::{Script, ScriptedHost},
    mirror::Play,
};

use crate::tests::rig::{Answered, Rig, settings};

const SECOND: Duration = Duration::from_secs(1);

/// A host with an rsync.
fn modern() -> Rig {
    let host = ScriptedHost::new()
        .on("rsync --version", Script::prints("rsync  version 3.4.1  protocol version 32\n"));
    Rig::with(host, settings())
}

fn fetch(session: &str, more: Value) -> Value {
    let mut all = json!({ "session_id": session, "src": "box:srv/site/", "dst": "/tmp/there" });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

fn failing(desk: &dyn ssh_mcp_core::port::mirror::NewsDesk) {
    let fault = FileFault::PermissionDenied;
    desk.tell(News::Failed { path: b"sub/b", fault, detail: "may not", planned: true });
}

/// One file is there, and the other two wait for the test.
fn held() -> Play {
    Play::new().planned(3, 2048).completed("a", 1024).wait().completed("c", 1024).tell(failing)
}

async fn stats(rig: &Rig, started: &Answered) -> Answered {
    rig.ok("ssh_rsync_stats", json!({ "rsync_id": started.fact("rsync_id") })).await
}

async fn ended(rig: &Rig, started: &Answered) -> Answered {
    let uri = format!("rsync://{}/progress", started.fact("rsync_id"));
    let waited = rig.loosely("sub_wait", json!({ "uris": [uri], "until": "end", "timeout_secs": 60 })).await;
    assert_eq!(waited.facts["status"], "ended", "{}", waited.text);
    waited
}

#[tokio::test(start_paused = true)]
async fn a_sync_is_started_followed_and_counted() {
    let rig = modern();
    rig.mirror.on_wire(held());
    let session = rig.session().await;
    let started =
        rig.ok("ssh_rsync", fetch(&session, json!({ "opts": { "archive": true, "delete": true } }))).await;
    let id = started.fact("rsync_id");
    let uri = format!("rsync://{id}/progress");
    assert_eq!(started.header(), "SSH_RSYNC: STARTED");
    for line in [
        "FROM: srv/site/\nTO: /tmp/there\nTRANSPORT: wire\nFILES_PLANNED: 3\nBYTES_PLANNED: 2048 (2.0KB)\nDELETE: true\n",
        &format!("HINT: REQUIRED NEXT STEP: follow {uri}"),
        &format!(
            "NEXT: sub_wait(uris=[\"{uri}\"]) | sub_open uri={uri} | ssh_rsync_stats(rsync_id=\"{id}\") | ssh_rsync_cancel(rsync_id=\"{id}\")"
        ),
    ] {
        assert!(started.text.contains(line), "{line}\n{}", started.text);
    }
    assert_eq!((&started.facts["delete"], &started.facts["dry_run"]), (&json!(true), &json!(false)));

    let running = stats(&rig, &started).await;
    assert_eq!(
        (running.fact("session_status").as_str(), running.header()),
        ("running", "SSH_RSYNC_STATS: OK")
    );
    assert!(running.text.contains("STATUS: running\n") && running.facts["next"].is_array());
    rig.mirror.go_on();
    ended(&rig, &started).await;
    let last = stats(&rig, &started).await;
    let counters = [
        "files_total",
        "files_done",
        "files_deleted",
        "files_failed",
        "bytes_total",
        "bytes_transferred",
        "bytes_skipped",
    ];
    assert_eq!(counters.map(|name| last.facts[name].as_u64().unwrap()), [3, 2, 0, 1, 2048, 2048, 0]);
    assert_eq!(last.fact("session_status"), "completed");
    assert!(last.facts.get("next").is_none());
    assert!(last.text.contains(&format!("WARN: SYNC_INCOMPLETE {uri} 1 failed")), "{}", last.text);
}

#[tokio::test(start_paused = true)]
async fn the_resource_shows_the_events_from_a_cursor_on() {
    let rig = modern();
    rig.mirror.on_wire(held());
    let started = rig.ok("ssh_rsync", fetch(&rig.session().await, json!({}))).await;
    let uri = format!("rsync://{}/progress", started.fact("rsync_id"));
    let read = |query: &str| {
        let (body, meta) = rig.read(&format!("{uri}{query}")).unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        let kinds: Vec<String> = body["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["kind"].as_str().unwrap().to_owned())
            .collect();
        (kinds, body, meta)
    };
    let (kinds, body, meta) = read("?cursor=auto");
    assert_eq!(kinds, ["session_started", "file_completed"]);
    assert_eq!(
        (
            &body["status"],
            &body["transport"],
            &body["direction"],
            &body["stats"]["files_total"],
            &body["last_seq"]
        ),
        (&json!("running"), &json!("wire"), &json!("download"), &json!(3), &json!(2))
    );
    assert_eq!(body["events"][1]["seq"], 1);
    assert!(body["events"][1]["ts"].as_str().unwrap().ends_with('Z'));
    assert_eq!(
        meta,
        json!({ "kind": "rsync", "status": "running", "last_seq": 2, "cursor": 2, "base": 0, "buffer_size": 2 })
    );
    assert!(read("?cursor=auto").0.is_empty());
    rig.mirror.go_on();
    tokio::time::sleep(SECOND).await;
    let (kinds, body, meta) = read("?cursor=auto");
    assert_eq!(kinds, ["file_completed", "file_failed", "sync_completed"]);
    assert_eq!(
        body["events"][1],
        json!({ "kind": "file_failed", "rel_path": "sub/b", "code": "PERMISSION_DENIED",
        "detail": "may not", "seq": 3, "ts": body["events"][1]["ts"] })
    );
    assert_eq!(
        (&meta["status"], &meta["reason"], &meta["cursor"]),
        (&json!("completed"), &json!("completed"), &json!(5))
    );
    assert_eq!((read("").0.len(), read("?cursor=4").0), (5, vec!["sync_completed".to_owned()]));
    let (cut, _, meta) = read("?cursor=0&max_bytes=1");
    assert_eq!(
        (cut, &meta["more"], &meta["cursor"]),
        (vec!["session_started".to_owned()], &json!(true), &json!(1))
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_brings_each_event_once_and_the_newest_of_many() {
    let rig = modern();
    let many = |desk: &dyn ssh_mcp_core::port::mirror::NewsDesk| {
        (0..1000).for_each(|_| desk.tell(News::Completed { path: b"file", transferred: 1, skipped: 0 }));
    };
    rig.mirror.on_wire(Play::new().planned(1001, 1001).completed("first", 1).wait().tell(many));
    let started = rig.ok("ssh_rsync", fetch(&rig.session().await, json!({}))).await;
    let uri = format!("rsync://{}/progress", started.fact("rsync_id"));
    let item = |waited: &Answered| {
        let item = waited.facts["items"][0].clone();
        let body: Value = serde_json::from_str(item["delta"].as_str().unwrap()).unwrap();
        (item, body)
    };
    let first = rig.loosely("sub_wait", json!({ "uris": [uri] })).await;
    let (shown, body) = item(&first);
    assert_eq!((&shown["cursor"], body["events"].as_array().unwrap().len()), (&json!(2), 2));
    rig.mirror.go_on();
    let last =
        rig.loosely("sub_wait", json!({ "uris": [uri], "until": "end", "max_output_bytes": 2000 })).await;
    let (shown, body) = item(&last);
    let events = body["events"].as_array().unwrap();
    assert_eq!((&shown["cursor"], &events.last().unwrap()["kind"]), (&json!(1003), &json!("sync_completed")));
    assert_eq!(body["left_out"]["cursor"], 2);
    assert_eq!(body["left_out"]["events"].as_u64().unwrap() as usize + events.len(), 1001);
    assert!(shown["bytes"].as_u64().unwrap() < 3000, "{}", shown["bytes"]);
    // Through a lane likewise.
    let lane = rig.loosely("sub_open", json!({ "uri": uri })).await;
    let through = rig.loosely("sub_wait", json!({ "sub_ids": [lane.fact("sub_id")] })).await;
    assert_eq!(item(&through).1["events"].as_array().unwrap().last().unwrap()["kind"], "sync_completed");
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_the_tree_wins_over_archive() {
    let rig = modern();
    let session = rig.session().await;
    let usual =
        Options { perms: true, mtime: true, owner: true, group: true, links: true, ..Options::default() };
    for (opts, expected) in [
        (json!({}), usual),
        (json!({ "archive": true }), Options { recursive: true, devices: Devices::Implied, ..usual }),
        (
            json!({ "archive": true, "recursive": false, "preserve": { "devices": false, "owner": false, "perms": null } }),
            Options { owner: false, ..usual },
        ),
        (json!({ "preserve": { "devices": true } }), Options { devices: Devices::Asked, ..usual }),
        (
            json!({ "recursive": true, "delete": true, "dry_run": true, "compress": true, "partial": true,
                "verify_checksum": true, "preserve": { "hardlinks": true, "sparse": true, "mtime": false, "group": false,
                "links": false, "perms": false } }),
            Options {
                recursive: true,
                delete: true,
                dry_run: true,
                compress: true,
                partial: true,
                checksum: true,
                hard_links: true,
                sparse: true,
                owner: true,
                ..Options::default()
            },
        ),
    ] {
        rig.ok("ssh_rsync", fetch(&session, json!({ "opts": opts }))).await;
        assert_eq!(rig.mirror.runs().pop().unwrap().job.options, expected, "{opts}");
    }
    let more = json!({ "src": "/tmp", "dst": "", "direction": "upload", "transport": "sftp", "timeout_secs": 5,
        "opts": { "exclude": ["*.o"], "include": ["keep.o"], "bwlimit_kbps": 7 } });
    let started = rig.ok("ssh_rsync", fetch(&session, more)).await;
    assert_eq!((started.fact("to").as_str(), started.fact("transport").as_str()), ("~", "sftp"));
    let run = rig.mirror.runs().pop().unwrap();
    assert_eq!((run.is_wire, run.job.direction, run.job.bwlimit), (false, Direction::Upload, Some(7)));
    assert_eq!((run.job.include, run.job.exclude), (vec!["keep.o".to_owned()], vec!["*.o".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn mistakes_are_told_by_field() {
    let rig = modern();
    let session = rig.session().await;
    for (more, reason) in [
        (json!({ "opts": { "delete": "yes" } }), "opts.delete must be true or false; got the text \"yes\""),
        (
            json!({ "opts": { "preserve": { "perms": 1 } } }),
            "opts.preserve.perms must be true or false; got the number 1",
        ),
        (json!({ "opts": { "exclude": "x" } }), "opts.exclude must be a list of texts; got the text \"x\""),
        (json!({ "transport": "ftp" }), "transport must be one of auto, wire, sftp; got the text \"ftp\""),
        (
            json!({ "dst": "other:x" }),
            "only one of src and dst may be on the remote side; a local path with a colon is written ./a:b",
        ),
        (json!({ "opts": { "exclude": ["[a"] } }), "[a: a bracket is not closed"),
        (json!({ "dst": "/", "opts": { "delete": true } }), "delete at the root of a file system is refused"),
    ] {
        let failed = rig.fails("ssh_rsync", fetch(&session, more)).await;
        assert_eq!(
            (failed.fact("code").as_str(), failed.fact("reason").as_str()),
            ("INVALID_ARGUMENT", reason)
        );
    }
    let unknown = rig
        .ok(
            "ssh_rsync",
            fetch(&session, json!({ "opts": { "dryrun": true, "preserve": { "permissions": true } } })),
        )
        .await;
    for line in [
        "WARN: UNKNOWN_FIELD opts.dryrun is no field of this tool and was ignored; the nearest is dry_run",
        "WARN: UNKNOWN_FIELD opts.preserve.permissions is no field of this tool and was ignored; the nearest is perms",
    ] {
        assert!(unknown.text.contains(line), "{}", unknown.text);
    }
    let missing = rig.fails("ssh_rsync_stats", json!({ "rsync_id": "x" })).await;
    assert_eq!(missing.fact("code"), "RSYNC_NOT_FOUND");
    let local =
        rig.fails("ssh_rsync", fetch(&session, json!({ "src": "/none/at/all", "dst": "box:x" }))).await;
    assert_eq!(local.fact("code"), "LOCAL_FILE_ERROR");
}

#[tokio::test(start_paused = true)]
async fn a_way_that_cannot_be_taken_is_an_error_of_its_own() {
    let rig = Rig::new();
    let session = rig.session().await;
    let failed = rig.fails("ssh_rsync", fetch(&session, json!({ "transport": "wire" }))).await;
    assert_eq!(failed.fact("code"), "RSYNC_UNAVAILABLE");
    let failed =
        rig.fails("ssh_rsync", fetch(&session, json!({ "opts": { "verify_checksum": true } }))).await;
    assert_eq!(failed.fact("code"), "SFTP_FEATURE_MISSING");
    assert!(failed.fact("detail").ends_with("option=verify_checksum"), "{}", failed.text);
    for (kind, code) in [
        (BrokenKind::FeatureMissing, "SFTP_FEATURE_MISSING"),
        (BrokenKind::Refused, "INVALID_ARGUMENT"),
        (BrokenKind::ListTooLarge, "RSYNC_FILE_LIST_TOO_LARGE"),
        (BrokenKind::Protocol, "RSYNC_PROTOCOL_ERROR"),
        (BrokenKind::Partial, "RSYNC_PARTIAL_TRANSFER"),
    ] {
        rig.mirror.on_walk(Play::new().breaks(kind, "in its own words", false));
        let failed = rig.fails("ssh_rsync", fetch(&session, json!({}))).await;
        assert_eq!(
            (failed.fact("code").as_str(), failed.fact("reason").as_str()),
            (code, "in its own words")
        );
    }
    let host = ScriptedHost::new().on("rsync --version", Script::prints("openrsync: protocol version 29\n"));
    let old = Rig::with(host, settings());
    let failed = old.fails("ssh_rsync", fetch(&old.session().await, json!({ "transport": "wire" }))).await;
    assert_eq!(failed.fact("code"), "RSYNC_VERSION_TOO_OLD");
    assert!(failed.fact("reason").contains("openrsync: protocol version 29"), "{}", failed.text);
}

#[tokio::test(start_paused = true)]
async fn a_fall_back_and_what_was_left_undone_are_warned_of() {
    let rig = modern();
    rig.mirror.on_wire(Play::new().breaks(BrokenKind::Protocol, "is your shell clean?", false));
    let done = Done {
        delete_skipped: Some("a directory failed".into()),
        notes: vec!["2 devices were left out".into()],
    };
    rig.mirror.on_walk(Play::new().planned(0, 0).done(done));
    let started = rig.ok("ssh_rsync", fetch(&rig.session().await, json!({}))).await;
    assert_eq!(started.fact("transport"), "sftp");
    let uri = format!("rsync://{}/progress", started.fact("rsync_id"));
    assert!(started.text.contains(&format!("WARN: WIRE_FALLBACK {uri} rsync failed")), "{}", started.text);
    assert!(started.text.contains("HINT: no file is planned: without opts.recursive"), "{}", started.text);
    ended(&rig, &started).await;
    let last = stats(&rig, &started).await;
    assert_eq!(last.fact("delete_skipped"), "a directory failed");
    for line in ["nothing was deleted: a directory failed", "2 devices were left out", "is your shell clean?"]
    {
        assert!(last.text.contains(line), "{}", last.text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sync_is_cancelled_once_and_listed_with_what_else_there_is() {
    let rig = modern();
    rig.mirror.on_wire(held());
    let session = rig.session().await;
    let started = rig.ok("ssh_rsync", fetch(&session, json!({ "release_when_no_subs": true }))).await;
    assert!(
        started.text.contains("REQUIRED NEXT STEP: wait for it or read it with ssh_rsync_stats within 30 s")
    );
    let id = started.fact("rsync_id");
    let listed = rig.loosely("ssh_resources", json!({ "kind": "rsync" })).await;
    let line =
        format!("- rsync://{id}/progress [running] Sync from ann@example.org:22: srv/site/ to /tmp/there, ");
    assert!(listed.text.contains(&line), "{}", listed.text);
    let cancelled = rig.ok("ssh_rsync_cancel", json!({ "rsync_id": id })).await;
    assert_eq!((cancelled.header(), cancelled.facts.get("noop")), ("SSH_RSYNC_CANCEL: OK", None));
    let again = rig.ok("ssh_rsync_cancel", json!({ "rsync_id": id })).await;
    assert!(again.facts["noop"] == true && again.text.contains("NOOP: true"));
    let last = stats(&rig, &started).await;
    assert_eq!(
        (last.fact("session_status").as_str(), &last.facts["error"]["code"]),
        ("cancelled", &json!("CANCELLED"))
    );
    rig.ok("ssh_rsync", fetch(&session, json!({}))).await;
    let closed = rig.ok("ssh_disconnect", json!({ "session_id": session })).await;
    assert_eq!(closed.facts["rsyncs_cancelled"], 1);
}
