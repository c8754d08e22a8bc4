//! The connection tools, from the outside.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use ssh_mcp_core::{
    port::{
        BoxFuture,
        resolve::{ResolveError, Resolved, TargetAsk},
        ssh::{ConnectError, ConnectRequest, Connected, Connector, HostKeyReport, HostKeyStatus, Transience},
    },
    settings::Settings,
};
use ssh_mcp_testkit::host::{ScriptedHost, Seen};
use tokio_util::sync::CancellationToken;

use super::rig::{Rig, completed, settings};
use crate::call::{self, Request};

fn to_example() -> Value {
    json!({ "address": "example.org:2222", "username": "ann" })
}

fn with(mut arguments: Value, more: Value) -> Value {
    arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    arguments
}

fn refused() -> ConnectError {
    ConnectError::Failed { cause: "refused".into(), transience: Transience::Transient }
}

#[tokio::test(start_paused = true)]
async fn a_new_session_says_where_it_leads_and_what_comes_next() {
    let key = HostKeyReport {
        algorithm: "ssh-ed25519".into(),
        fingerprint: "SHA256:abc".into(),
        status: HostKeyStatus::Learnt,
    };
    let rig = Rig::with(ScriptedHost::new().with_host_key(key), settings());
    let asked = with(to_example(), json!({ "agent_id": "a1", "name": "build" }));
    let answered = rig.ok("ssh_connect", asked).await;
    assert_eq!(answered.header(), "SSH_CONNECT: OK");
    let id = answered.fact("session_id");
    for line in [
        &format!("SESSION_ID: {id}"),
        "HOST: ann@example.org:2222",
        "AGENT_ID: a1",
        "NAME: build",
        "RETRY: 0",
        "HOST_KEY: ssh-ed25519 SHA256:abc learnt",
        "PERSISTENT: false",
    ] {
        assert!(answered.text.lines().any(|text| text == line), "{line} in\n{}", answered.text);
    }
    assert_eq!(answered.facts["host_key"]["status"], "learnt");
    assert!(answered.fact("hint").contains("host key was unknown"));
    assert!(answered.fact("expires_at").ends_with('Z'));
    let next = answered.facts["next"].as_array().unwrap();
    assert_eq!(next.last().unwrap(), &json!(format!("ssh_disconnect(session_id=\"{id}\")")));
    assert_eq!(rig.host.seen()[0], Seen::Connected { target: "ann@example.org:2222".into() });
}

#[tokio::test(start_paused = true)]
async fn a_persistent_session_has_no_expiry() {
    let rig = Rig::new();
    let answered = rig.ok("ssh_connect", with(to_example(), json!({ "persistent": true }))).await;
    assert!(answered.text.contains("PERSISTENT: true\n"), "{}", answered.text);
    assert_eq!(answered.facts.get("expires_at"), None);
}

#[tokio::test(start_paused = true)]
async fn sessions_to_the_same_place_are_suggested_taken_or_passed_over() {
    let rig = Rig::new();
    let first = rig.ok("ssh_connect", to_example()).await.fact("session_id");

    let one = rig.ok("ssh_connect", to_example()).await;
    assert_eq!(one.header(), "SSH_CONNECT: SUGGESTED");
    assert!(one.text.contains(&format!("EXISTING_SESSION_ID: {first}\n")), "{}", one.text);
    assert_eq!(
        (one.facts["count"].clone(), one.facts["matches"][0]["session_id"].clone()),
        (json!(1), json!(first))
    );
    assert!(one.fact("hint").contains("force_new"));
    let next = json!([format!("ssh_connect(session_id=\"{first}\")"), "ssh_connect(reuse=\"force_new\")"]);
    assert_eq!(one.facts["next"], next);

    let auto = rig.ok("ssh_connect", with(to_example(), json!({ "reuse": "auto" }))).await;
    assert_eq!((auto.header(), auto.fact("session_id")), ("SSH_CONNECT: REUSED", first.clone()));
    assert_eq!(auto.facts.get("retry"), None);

    let second = rig.ok("ssh_connect", with(to_example(), json!({ "reuse": "force_new" }))).await;
    assert_ne!(second.fact("session_id"), first);
    let two = rig.ok("ssh_connect", to_example()).await;
    assert!(two.text.contains("MATCHES: 2\n- "), "{}", two.text);

    let named = rig.ok("ssh_connect", json!({ "session_id": first })).await;
    assert_eq!((named.header(), named.fact("session_id")), ("SSH_CONNECT: REUSED", first));
    assert_eq!(rig.host.connects(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dead_session_needs_an_address_to_connect_anew() {
    let rig = Rig::new();
    let id = rig.session().await;
    rig.ok("ssh_disconnect", json!({ "session_id": id })).await;
    let answered = rig.fails("ssh_connect", json!({ "session_id": id })).await;
    assert_eq!(answered.fact("code"), "SESSION_NOT_FOUND");
    let answered = rig.ok("ssh_connect", with(to_example(), json!({ "session_id": id }))).await;
    assert_eq!(answered.header(), "SSH_CONNECT: OK");
    assert_ne!(answered.fact("session_id"), id);
}

#[tokio::test(start_paused = true)]
async fn rules_between_fields_name_the_field() {
    let rig = Rig::new();
    let table = [
        (json!({}), "address is missing"),
        (json!({ "address": "h" }), "username is missing"),
        (json!({ "username": "u" }), "address is missing"),
        (
            json!({ "address": "user@h", "username": "u" }),
            "address must be host, host:port or [v6]:port; got the text",
        ),
        (json!({ "address": "h:0", "username": "u" }), "address must be"),
        (json!({ "address": "h", "username": "" }), "username must be"),
        (json!({ "address": "h", "username": "a\nb" }), "username must be"),
    ];
    for (arguments, reason) in table {
        let answered = rig.fails("ssh_connect", arguments.clone()).await;
        assert_eq!(answered.fact("code"), "INVALID_ARGUMENT", "{arguments}");
        assert!(answered.fact("reason").starts_with(reason), "{arguments}: {}", answered.fact("reason"));
    }
    let answered = rig.fails("ssh_connect", json!({ "session_id": "nonsense" })).await;
    assert_eq!(answered.fact("code"), "SESSION_NOT_FOUND");
}

#[tokio::test(start_paused = true)]
async fn transient_failures_are_repeated_and_counted() {
    let rig = Rig::new();
    rig.host.then_connect_fails(refused());
    rig.host.then_connect_fails(refused());
    let answered = rig.ok("ssh_connect", to_example()).await;
    assert_eq!(answered.facts["retry"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_stays_says_how_often_it_was_tried() {
    let rig = Rig::new();
    for _ in 0..4 {
        rig.host.then_connect_fails(refused());
    }
    let answered = rig.fails("ssh_connect", to_example()).await;
    assert_eq!(answered.fact("code"), "CONNECTION_FAILED");
    assert!(answered.fact("detail").contains("attempts=4"), "{}", answered.fact("detail"));
    assert_eq!((answered.fact("retry"), answered.fact("effect")), ("backoff".into(), "none".into()));
}

#[tokio::test(start_paused = true)]
async fn all_attempts_together_end_before_a_host_gives_up() {
    let host = ScriptedHost::new().with_connect_time(Duration::from_secs(29));
    let rig = Rig::with(host, settings());
    (0..4).for_each(|_| rig.host.then_connect_fails(refused()));
    let started = rig.shared.engine.clock().now();
    rig.fails("ssh_connect", to_example()).await;
    let took = rig.shared.engine.clock().now() - started;
    assert!(took <= Duration::from_secs(50), "{took:?}");

    for (named, more) in
        [(json!({ "max_retries": 3, "timeout_secs": 30 }), false), (json!({ "max_retries": 4 }), true)]
    {
        (0..5).for_each(|_| rig.host.then_connect_fails(refused()));
        let started = rig.shared.engine.clock().now();
        rig.fails("ssh_connect", with(to_example(), named.clone())).await;
        let took = rig.shared.engine.clock().now() - started;
        assert_eq!(
            took > Duration::from_secs(50),
            more,
            "a call that asks for more gets more: {named} {took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_called_off_stops_connecting() {
    let rig = Rig::with(ScriptedHost::new().with_connect_time(Duration::from_secs(20)), settings());
    let cancelled = CancellationToken::new();
    let cx = rig.cx(cancelled.clone());
    let arguments = to_example().as_object().unwrap().clone();
    let request = Request { tool: "ssh_connect", arguments, key: None, peer: "test" };
    let work = call::call(&cx, &rig.shared.keys, request);
    let (result, ()) = tokio::join!(work, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cancelled.cancel();
    });
    assert_eq!(completed(result.unwrap()).is_error, Some(true));
    assert!(rig.shared.engine.clock().now() < Duration::from_secs(2));
    assert!(rig.shared.engine.registries().sessions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn secrets_are_nowhere_in_an_answer() {
    let rig = Rig::new();
    rig.host.then_connect_fails(ConnectError::Rejected {
        tried: vec!["password".into()],
        offered: vec![],
        cut_off: None,
    });
    let secrets = json!({ "password": "hunter2hunter2", "key_passphrase": "opensesame" });
    let failed = rig.fails("ssh_connect", with(to_example(), secrets.clone())).await;
    assert_eq!(failed.fact("code"), "AUTH_FAILED");
    let worked = rig.ok("ssh_connect", with(to_example(), secrets)).await;
    for answered in [failed, worked] {
        let all = format!("{}{}", answered.text, answered.facts);
        assert!(!all.contains("hunter2") && !all.contains("opensesame"), "{all}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_with_many_sessions_is_reminded() {
    let rig = Rig::new();
    for _ in 0..5 {
        rig.ok("ssh_connect", with(to_example(), json!({ "agent_id": "a1", "reuse": "force_new" }))).await;
    }
    assert_eq!(rig.ok("ssh_sessions", json!({})).await.facts.get("hint"), None);
    rig.ok("ssh_connect", with(to_example(), json!({ "agent_id": "a1", "reuse": "force_new" }))).await;
    for answered in [rig.ok("ssh_sessions", json!({})).await, rig.ok("ssh_connect", to_example()).await] {
        let hint = answered.fact("hint");
        assert!(hint.contains("agent a1 owns 6 healthy sessions"), "{hint}");
        assert!(hint.contains("ssh_disconnect_agent"), "{hint}");
    }
}

#[tokio::test(start_paused = true)]
async fn lists_are_capped_and_say_so() {
    let rig = Rig::new();
    assert_eq!(rig.ok("ssh_sessions", json!({})).await.text, "SSH_SESSIONS: OK\nCOUNT: 0");
    for agent in ["a1", "a1", "a2"] {
        rig.ok("ssh_connect", with(to_example(), json!({ "agent_id": agent, "reuse": "force_new" }))).await;
    }
    let answered = rig.ok("ssh_sessions", json!({ "max_items": 2 })).await;
    assert!(answered.text.contains("COUNT: 2 (showing 2 of 3)\n- "), "{}", answered.text);
    assert_eq!((&answered.facts["count"], &answered.facts["total"]), (&json!(2), &json!(3)));
    let next: Vec<&str> =
        answered.facts["next"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(next[0].starts_with("sub_open uri=session://"), "{next:?}");
    assert_eq!(next[1], "ssh_disconnect_agent(agent_id=\"a2\")");
    let answered = rig.ok("ssh_sessions", json!({ "agent_id": "a2" })).await;
    assert_eq!((answered.fact("agent_id_filter"), &answered.facts["total"]), ("a2".into(), &json!(1)));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_answers_no_keepalive_is_dropped_from_the_list() {
    let rig = Rig::new();
    let id = rig.session().await;
    rig.host.then_ping(None);
    assert_eq!(rig.ok("ssh_sessions", json!({})).await.facts["total"], 0);
    let answered = rig.fails("ssh_disconnect", json!({ "session_id": id })).await;
    assert_eq!(answered.fact("code"), "SESSION_NOT_FOUND");
    assert!(answered.fact("detail").contains("reason=connection_lost"), "{}", answered.fact("detail"));
}

#[tokio::test(start_paused = true)]
async fn sessions_end_alone_by_agent_or_by_list() {
    let rig = Rig::new();
    let (one, two, three) = (rig.session().await, rig.session().await, rig.session().await);
    let answered = rig.ok("ssh_disconnect", json!({ "session_id": one.to_uppercase() })).await;
    assert_eq!((answered.header(), answered.fact("session_id")), ("SSH_DISCONNECT: OK", one.clone()));

    let answered = rig.ok("ssh_disconnect_many", json!({ "session_ids": [two, one, "x", three] })).await;
    assert_eq!((&answered.facts["disconnected"], &answered.facts["failed"]), (&json!(2), &json!(2)));
    let words: Vec<_> = answered.facts["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["status"].as_str().unwrap())
        .collect();
    assert_eq!(words, ["ok", "error", "error", "ok"]);
    assert!(
        answered.text.contains(&format!("- {two}: ok\n- {one}: error [SESSION_NOT_FOUND]")),
        "{}",
        answered.text
    );

    rig.ok("ssh_connect", with(to_example(), json!({ "agent_id": "a1" }))).await;
    let answered = rig.ok("ssh_disconnect_agent", json!({ "agent_id": "a1" })).await;
    assert_eq!(answered.facts["sessions_closed"], 1);
    let answered = rig.ok("ssh_disconnect_agent", json!({ "agent_id": "a1" })).await;
    assert_eq!(answered.facts["sessions_closed"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_id_is_told_with_the_nearest_of_the_callers_own() {
    let rig = Rig::new();
    let other = rig.as_owner("bob");
    let (mine, theirs) = (rig.session().await, other.session().await);
    let mut wrong = mine.clone();
    wrong.replace_range(35.., if mine.ends_with('0') { "1" } else { "0" });
    for id in [wrong.as_str(), &theirs, "nonsense"] {
        let answered = rig.fails("ssh_disconnect", json!({ "session_id": id })).await;
        assert_eq!(answered.fact("code"), "SESSION_NOT_FOUND");
        let detail = answered.fact("detail");
        assert!(
            detail.contains(&format!("closest matches: {mine}")) && !detail.contains(&theirs),
            "{detail}"
        );
    }
    assert_eq!(other.ok("ssh_sessions", json!({})).await.facts["total"], 1);
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_sessions_names_itself() {
    let rig = Rig::with(ScriptedHost::new(), Settings { max_sessions: Some(1), ..settings() });
    rig.session().await;
    let answered = rig.fails("ssh_connect", with(to_example(), json!({ "reuse": "force_new" }))).await;
    assert_eq!(
        (answered.fact("code"), answered.fact("retry")),
        ("MAX_SESSIONS_EXCEEDED".into(), "after".into())
    );
    assert!(answered.fact("detail").contains("limit=1"), "{}", answered.fact("detail"));
}

#[tokio::test(start_paused = true)]
async fn remote_owners_name_files_only_where_the_operator_allows_it() {
    let open = tempfile::tempdir().unwrap();
    let closed = tempfile::tempdir().unwrap();
    let file = |place: &tempfile::TempDir| {
        let path = place.path().join("key");
        std::fs::write(&path, "k").unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (inside, outside) = (file(&open), file(&closed));
    let link = open.path().join("link");
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    let settings = Settings { allow_local_paths: vec![open.path().to_owned()], ..settings() };
    let local = Rig::with(ScriptedHost::new(), settings);
    let remote = local.as_owner("bob");
    let asked = |path: &str| with(to_example(), json!({ "key_path": path, "reuse": "force_new" }));

    local.ok("ssh_connect", asked(&outside)).await;
    remote.ok("ssh_connect", asked(&inside)).await;
    let escape = format!("{}/../key", open.path().display());
    for path in [outside.as_str(), link.to_str().unwrap(), &escape, "/no/such/file", "~/.ssh/id_ed25519"] {
        let answered = remote.fails("ssh_connect", asked(path)).await;
        assert_eq!(answered.fact("code"), "INVALID_ARGUMENT", "{path}");
        assert!(
            answered.fact("reason").starts_with("key_path must lie below"),
            "{}",
            answered.fact("reason")
        );
    }
    let nothing_open = Rig::new().as_owner("bob");
    assert_eq!(nothing_open.fails("ssh_connect", asked(&inside)).await.fact("code"), "INVALID_ARGUMENT");
}

#[tokio::test(start_paused = true)]
async fn one_key_connects_once() {
    let rig = Rig::new();
    let key = || Some(json!("k1"));
    let first = rig.raw("ssh_connect", to_example(), key()).await.unwrap();
    let again = rig.raw("ssh_connect", to_example(), key()).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(rig.host.connects(), 1);
    let other = rig.raw("ssh_connect", with(to_example(), json!({ "name": "x" })), key()).await.unwrap();
    assert_eq!(other.structured_content.unwrap()["code"], "IDEMPOTENCY_KEY_MISMATCH");
    let long = rig.raw("ssh_connect", to_example(), Some(json!("k".repeat(257)))).await.unwrap();
    assert_eq!(long.structured_content.unwrap()["code"], "IDEMPOTENCY_KEY_TOO_LONG");
    let odd = rig.raw("ssh_connect", to_example(), Some(json!(5))).await.unwrap();
    assert_eq!(odd.structured_content.unwrap()["code"], "INVALID_ARGUMENT");
    // Empty counts as none, and what only reads has no need of one.
    let empty =
        rig.raw("ssh_connect", with(to_example(), json!({ "reuse": "force_new" })), Some(json!(""))).await;
    assert_eq!(empty.unwrap().is_error, Some(false));
    let read = rig.raw("ssh_sessions", json!({}), Some(json!("k".repeat(257)))).await;
    assert_eq!(read.unwrap().is_error, Some(false));
}

#[tokio::test(start_paused = true)]
async fn two_calls_with_one_key_at_once_connect_once() {
    let rig = Rig::with(ScriptedHost::new().with_connect_time(Duration::from_secs(1)), settings());
    let call = || rig.raw("ssh_connect", to_example(), Some(json!("k1")));
    let (one, two) = tokio::join!(call(), call());
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(rig.host.connects(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_target_serves_all_tools_that_need_a_host() {
    let rig = Rig::new();
    let connected = rig.ok("ssh_connect", json!({ "target": "me@example.org:2222" })).await;
    let session = connected.fact("session_id");
    assert!(connected.text.contains("HOST: me@example.org:2222"), "{}", connected.text);
    // Both take the session that is there.
    let target = json!({ "target": "example.org", "username": "me", "port": 2222 });
    let with = |field: &str, value: &str| {
        let mut call = target.clone();
        call[field] = value.into();
        call
    };
    let ran = rig.ok("ssh_run", with("command", "true")).await;
    assert_eq!(ran.fact("session_id"), session);
    let opened = rig.ok("ssh_shell_open", target.clone()).await;
    assert_eq!(opened.fact("session_id"), session);
    assert_eq!(rig.host.connects(), 1);
}

#[tokio::test(start_paused = true)]
async fn there_is_one_way_to_say_where() {
    let rig = Rig::new();
    for (tool, call, words) in [
        ("ssh_connect", json!({ "target": "h", "address": "h" }), "target and address are both given"),
        ("ssh_connect", json!({ "address": "h", "username": "u", "port": 2 }), "target is missing"),
        (
            "ssh_connect",
            json!({ "target": "h", "proxy_jump": 7 }),
            "proxy_jump must be a text or a list of texts",
        ),
        ("ssh_connect", json!({ "target": "a b" }), "a b: "),
        (
            "ssh_connect",
            json!({ "target": "h", "password": "x", "password_env": "HOME" }),
            "give one of password",
        ),
        (
            "ssh_run",
            json!({ "target": "h", "command": "true", "password_env": "NOT_SET_ANYWHERE" }),
            "that is set",
        ),
        ("ssh_connect", json!({ "target": "h", "key_passphrase_env": "MCP_AUTH_TOKEN" }), "that is set"),
        (
            "ssh_shell_open",
            json!({ "target": "h", "session_id": "x" }),
            "session_id and a host are both given",
        ),
        ("ssh_shell_open", json!({}), "session_id is missing"),
        ("ssh_run", json!({ "command": "true" }), "address is missing"),
    ] {
        let refused = rig.fails(tool, call.clone()).await;
        assert_eq!(refused.fact("code"), "INVALID_ARGUMENT", "{call}");
        assert!(refused.text.contains(words), "{call}: {}", refused.text);
    }
    assert_eq!(rig.host.connects(), 0);
}

#[tokio::test(start_paused = true)]
async fn callers_from_elsewhere_name_no_variables_and_only_opened_files() {
    let rig = Rig::new().as_owner("ann");
    for (field, value) in [
        ("password_env", "HOME"),
        ("key_passphrase_env", "HOME"),
        ("password_file", "/etc/passwd"),
        ("identity_file", "/etc/passwd"),
        ("known_hosts_file", "/etc/passwd"),
        ("ssh_config_file", "/etc/passwd"),
    ] {
        let refused = rig.fails("ssh_connect", json!({ "target": "h", field: value })).await;
        assert_eq!(refused.fact("code"), "INVALID_ARGUMENT", "{field}");
        assert!(refused.text.contains(field), "{}", refused.text);
    }
    assert_eq!(rig.host.connects(), 0);
}

/// A connector with a bug.
struct Broken;

impl Connector for Broken {
    fn resolve<'a>(&'a self, ask: &'a TargetAsk) -> BoxFuture<'a, Result<Resolved, ResolveError>> {
        Box::pin(async move { ssh_mcp_testkit::host::plainly(ask) })
    }

    fn connect<'a>(&'a self, _request: &'a ConnectRequest) -> BoxFuture<'a, Result<Connected, ConnectError>> {
        Box::pin(async { panic!("a bug of ours") })
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_answer_with_a_correlation() {
    let rig = Rig::over(Arc::new(Broken), ScriptedHost::new(), settings());
    let answered = rig.fails("ssh_connect", to_example()).await;
    assert_eq!(
        (answered.fact("code"), answered.fact("category")),
        ("INTERNAL_ERROR".into(), "INTERNAL".into())
    );
    let correlation = answered.fact("correlation");
    assert!(
        correlation.len() == 8 && answered.text.contains(&format!("correlation={correlation}")),
        "{}",
        answered.text
    );
}
