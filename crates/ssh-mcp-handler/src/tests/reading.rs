//! `resources/read`: bodies, queries, cursors and `_meta` of every kind.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use ssh_mcp_core::{
    id::SessionId,
    kind::command::Terminal,
    lifecycle::AutoRelease,
    port::ssh::{Pty, PtySize},
    quote::Context,
    registry::{Command, Manner, Shell},
    settings::Settings,
};
use ssh_mcp_engine::{Ensure, Exec, OpenShell};
use ssh_mcp_testkit::host::{Script, ScriptedHost};

use super::rig::{Rig, settings};
use crate::resources::{self, Reader};

async fn started(rig: &Rig, command: &str, history: usize, limit: Option<Duration>) -> Arc<Command> {
    let session = rig.session().await.parse().unwrap();
    let ask = Exec {
        session,
        command: command.into(),
        context: Context::default(),
        terminal: Terminal::None,
        limit,
        input: None,
        auto_release: AutoRelease::Off,
        grace: Duration::ZERO,
        history,
    };
    rig.shared.engine.exec(&rig.owner, ask).await.unwrap()
}

async fn over(rig: &Rig, command: &Arc<Command>) {
    _ = rig.shared.engine.await_command(command, Duration::from_secs(600)).await;
}

async fn shell(rig: &Rig) -> Arc<Shell> {
    shell_on(rig, rig.session().await.parse().unwrap()).await
}

pub(super) async fn shell_on(rig: &Rig, session: SessionId) -> Arc<Shell> {
    let ask = OpenShell {
        session,
        pty: Pty { term: "xterm".into(), size: PtySize { cols: 80, rows: 24 } },
        context: Context::default(),
        inactivity: None,
        history: 1 << 20,
        auto_release: AutoRelease::Off,
        grace: Duration::ZERO,
        name: None,
        ensure: Ensure::No,
        retention: Duration::from_secs(3600),
        transcript: None,
    };
    rig.shared.engine.open_shell(&rig.owner, ask).await.unwrap().shell
}

fn rig(scripts: &[(&str, Script)]) -> Rig {
    let host = scripts.iter().fold(ScriptedHost::new(), |host, (key, script)| host.on(key, script.clone()));
    Rig::with(host, settings())
}

fn uri(command: &Command, query: &str) -> String {
    format!("command://{}/output{query}", command.spec.id)
}

#[tokio::test(start_paused = true)]
async fn a_command_is_read_as_blocks_or_as_a_raw_view() {
    let rig = rig(&[("build", Script::new().out("one\n").err("bad\n").out("two\n").exit(3))]);
    let command = started(&rig, "build", 1 << 20, None).await;
    over(&rig, &command).await;
    let (body, meta) = rig.read(&uri(&command, "")).unwrap();
    let nonce = &body["--- stdout [".len()..][..8];
    assert_eq!(body, format!("--- stdout [{nonce}] ---\none\ntwo\n--- stderr [{nonce}] ---\nbad\n"));
    assert_eq!(
        meta,
        json!({
            "kind": "command", "status": "completed", "reason": "completed", "exit_code": 3, "base": 0,
            "buffer_size": 12, "cursor": 12, "last_seq": 3,
        })
    );
    for (view, expected) in [("merged", "one\nbad\ntwo\n"), ("stdout", "one\ntwo\n"), ("stderr", "bad\n")] {
        let (body, meta) = rig.read(&uri(&command, &format!("?stream={view}"))).unwrap();
        assert_eq!((body.as_str(), &meta["cursor"]), (expected, &json!(12)), "{view}");
    }
    let (body, meta) = rig.read(&uri(&command, "?cursor=99")).unwrap();
    assert!(body.contains("] (empty) ---\n"), "{body}");
    assert_eq!(meta["cursor"], 12);
}

#[tokio::test(start_paused = true)]
async fn automatic_reads_give_each_byte_once_and_never_twice() {
    let rig = rig(&[("count", Script::new().out("aaaa").out("bbbb").out("cccc").exit(0))]);
    let command = started(&rig, "count", 1 << 20, None).await;
    over(&rig, &command).await;
    let auto = |more: &str| rig.read(&uri(&command, &format!("?cursor=auto&stream=merged{more}"))).unwrap();

    let (body, meta) = auto("&max_bytes=5");
    assert_eq!((body.as_str(), &meta["cursor"], &meta["more"]), ("aaaab", &json!(5), &json!(true)));
    // A look ahead skips nothing, and a read from before it moves the cursor on.
    assert_eq!(rig.read(&uri(&command, "?cursor=9&stream=merged")).unwrap().0, "ccc");
    assert_eq!(auto("&max_bytes=2").0, "bb");
    assert_eq!(rig.read(&uri(&command, "?cursor=2&max_bytes=8&stream=merged")).unwrap().0, "aabbbbcc");
    let (body, meta) = auto("");
    assert_eq!((body.as_str(), meta.get("more")), ("cc", None));
    assert_eq!(auto("").0, "");
    // Another connection has a cursor of its own.
    let other = Rig {
        host: rig.host.clone(),
        files: rig.files.clone(),
        mirror: rig.mirror.clone(),
        bus: rig.bus.clone(),
        shared: Arc::clone(&rig.shared),
        owner: rig.owner.clone(),
        peer: ssh_mcp_engine::Peer::new(),
        outlet: ssh_mcp_testkit::outlet::RecordedOutlet::new(),
    };
    assert_eq!(other.read(&uri(&command, "?cursor=auto&stream=merged")).unwrap().0, "aaaabbbbcccc");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_stands_alone_reads_from_the_beginning_and_says_so() {
    let rig = rig(&[("count", Script::prints("aaaa"))]);
    let command = started(&rig, "count", 1 << 20, None).await;
    over(&rig, &command).await;
    let reader = Reader { engine: &rig.shared.engine, owner: &rig.owner, peer: None };
    for _ in 0..2 {
        let result = resources::read(&reader, &uri(&command, "?cursor=auto&stream=merged")).unwrap();
        let contents = serde_json::to_value(&result.contents[0]).unwrap();
        assert_eq!((&contents["text"], &contents["_meta"]["cursor_scope"]), (&json!("aaaa"), &json!("none")));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_dropped_is_counted() {
    let rig = rig(&[("flood", Script::new().out("x".repeat(4096)).out("y".repeat(96)).exit(0))]);
    let command = started(&rig, "flood", 4096, None).await;
    over(&rig, &command).await;
    let (body, meta) = rig.read(&uri(&command, "?stream=merged&cursor=10&max_bytes=4")).unwrap();
    assert_eq!(
        (body.as_str(), &meta["truncated_since_last_read"], &meta["base"]),
        ("xxxx", &json!(86), &json!(96))
    );
    let (_, meta) = rig.read(&uri(&command, "?stream=merged&cursor=0&max_bytes=4")).unwrap();
    assert_eq!((meta.get("truncated_since_last_read"), &meta["buffer_size"]), (None, &json!(4096)));
}

#[tokio::test(start_paused = true)]
async fn bytes_come_as_they_are_or_without_escapes() {
    let rig = rig(&[("draw", Script::new().out(&b"\x1b[1mbold\x1b[0m \xff"[..]).exit(0))]);
    let command = started(&rig, "draw", 1 << 20, None).await;
    over(&rig, &command).await;
    let (body, _) = rig.read(&uri(&command, "?encoding=base64")).unwrap();
    assert_eq!(STANDARD.decode(body).unwrap(), b"\x1b[1mbold\x1b[0m \xff");
    let (body, meta) = rig.read(&uri(&command, "?stream=stdout&strip_ansi=true")).unwrap();
    assert_eq!((body.as_str(), &meta["cursor"]), ("bold \u{fffd}", &json!(14)));
}

#[tokio::test(start_paused = true)]
async fn a_running_and_a_timed_out_command_say_what_they_are() {
    let rig = rig(&[("slow", Script::new().out("so far"))]);
    let command = started(&rig, "slow", 1 << 20, Some(Duration::from_secs(5))).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (_, meta) = rig.read(&uri(&command, "")).unwrap();
    assert_eq!((&meta["status"], meta.get("reason")), (&json!("running"), None));
    over(&rig, &command).await;
    let (_, meta) = rig.read(&uri(&command, "")).unwrap();
    assert_eq!(
        (&meta["status"], &meta["reason"], &meta["timed_out"]),
        (&json!("timed_out"), &json!("timed_out"), &json!(true))
    );
}

#[tokio::test(start_paused = true)]
async fn a_shell_is_read_while_open_and_after() {
    let rig = Rig::new();
    let shell = shell(&rig).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let uri = format!("shell://{}/output", shell.spec.id);
    let (body, meta) = rig.read(&uri).unwrap();
    assert_eq!((body.as_str(), &meta["kind"], &meta["status"]), ("$ ", &json!("shell"), &json!("open")));
    _ = rig.shared.engine.close_shell(&shell, Manner::HangUp, Duration::from_secs(5)).await;
    let (_, meta) = rig.read(&uri).unwrap();
    assert_eq!((&meta["status"], &meta["reason"]), (&json!("closed"), &json!("manual_close")));
}

#[tokio::test(start_paused = true)]
async fn a_session_shows_its_health_and_its_end() {
    let rig = Rig::new();
    let asked = json!({ "address": "example.org", "username": "ann", "agent_id": "a1" });
    let id = rig.ok("ssh_connect", asked).await.fact("session_id");
    let uri = format!("session://{id}/health");
    let (body, meta) = rig.read(&uri).unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    for (field, expected) in [
        ("session_id", json!(id)),
        ("host", json!("example.org")),
        ("port", json!(22)),
        ("username", json!("ann")),
        ("agent_id", json!("a1")),
        ("healthy", json!(true)),
        ("status", json!("healthy")),
        ("persistent", json!(false)),
        ("active_refs", json!(0)),
    ] {
        assert_eq!(body[field], expected, "{field}");
    }
    assert!(body["expires_at"].is_string() && body["last_health_check"].is_string(), "{body}");
    assert_eq!(
        (&meta["kind"], &meta["status"], meta.get("cursor")),
        (&json!("session"), &json!("healthy"), None)
    );

    rig.ok("ssh_disconnect", json!({ "session_id": id })).await;
    let (body, meta) = rig.read(&uri).unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["healthy"], &body["status"]), (&json!(false), &json!("disconnected")));
    assert_eq!((&meta["reason"], body.get("expires_at")), (&json!("manual_close"), None));
}

#[tokio::test(start_paused = true)]
async fn reading_is_a_use_and_keeps_an_idle_session() {
    let rig = Rig::new();
    let id = rig.session().await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(200)).await;
        let (_, meta) = rig.read(&format!("session://{id}/health")).unwrap();
        assert_eq!(meta["status"], "healthy");
    }
    tokio::time::sleep(Duration::from_secs(330)).await;
    let (_, meta) = rig.read(&format!("session://{id}/health")).unwrap();
    assert_eq!(meta["status"], "disconnected");
}

#[tokio::test(start_paused = true)]
async fn uris_that_lead_nowhere_say_why() {
    let rig = Rig::new();
    let id = rig.session().await;
    let check = |uri: &str, number: i32, field: &str, expected: &str| {
        let error = rig.read(uri).unwrap_err();
        let data = error.data.unwrap();
        assert_eq!((error.code.0, data[field].as_str()), (number, Some(expected)), "{uri}: {data}");
        data
    };
    check("http://x/y", -32602, "kind", "bad_scheme");
    check("shell:///output", -32602, "kind", "missing_id");
    check(&format!("session://{id}/output"), -32602, "kind", "bad_sub_path");
    check("shell://x/output?cursor=-1", -32602, "kind", "bad_cursor");
    check("shell://x/output?max_bytes=0", -32602, "kind", "bad_query");
    check("shell://x/output", -32002, "code", "RESOURCE_NOT_FOUND");
    let wrong = format!("session://{}/health", "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b");
    let data = check(&wrong, -32002, "code", "RESOURCE_NOT_FOUND");
    assert!(data["detail"].as_str().unwrap().contains(&format!("closest matches: {id}")), "{data}");

    let mine = format!("session://{id}/health");
    assert_eq!(rig.as_owner("bob").read(&mine).unwrap_err().code.0, -32002);
    rig.ok("ssh_disconnect", json!({ "session_id": id })).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let data = check(&mine, -32002, "code", "RESOURCE_GONE");
    assert!(data["detail"].as_str().unwrap().contains("reason=manual_close"), "{data}");
}

#[tokio::test(start_paused = true)]
async fn no_answer_is_larger_than_the_cap() {
    let host = ScriptedHost::new().on("flood", Script::prints("x".repeat(5000)));
    let rig = Rig::with(host, Settings { output_cap: 1024, ..settings() });
    let command = started(&rig, "flood", 1 << 20, None).await;
    over(&rig, &command).await;
    for query in ["?stream=merged", "?stream=merged&max_bytes=999999999"] {
        let (body, meta) = rig.read(&uri(&command, query)).unwrap();
        assert_eq!((body.len(), &meta["more"], &meta["cursor"]), (1024, &json!(true), &json!(1024)));
    }
}
