use ssh_mcp_core::port::ssh::{ConnectError, HostKeyReport, HostKeyStatus, Signal, Transience};
use ssh_mcp_testkit::host::Script;

use super::*;

fn arguments(command: &str, more: Value) -> Value {
    let mut arguments = json!({ "address": "example.org", "username": "ann", "command": command });
    arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    arguments
}

async fn run(world: &World, command: &str, more: Value) -> Said {
    world.call("ssh_run", arguments(command, more)).await
}

/// Sessions that are open.
async fn open_sessions(world: &World) -> Value {
    world.call("ssh_sessions", json!({})).await.facts["count"].clone()
}

#[tokio::test(start_paused = true)]
async fn one_call_connects_runs_and_leaves_nothing() {
    let world = World::new(ScriptedHost::new().on("uname", Script::new().out("Linux\n").exit(3)));
    let said = run(&world, "uname", json!({})).await;
    assert_eq!(
        said.plain(),
        "SSH_RUN: COMPLETED\nSESSION_ID: session_id\nCOMMAND_ID: command_id\nEXIT: 3\nDISCONNECTED: true\n\
         --- stdout [nonce] ---\nLinux\n--- stderr [nonce] (empty) ---"
    );
    assert_eq!(said.facts["disconnected"], true);
    assert_eq!((open_sessions(&world).await, world.host.open_channels()), (json!(0), 0));
    let again = world.call("ssh_exec_output", json!({ "command_id": said.fact("command_id") })).await;
    assert_eq!(again.fact("stdout"), "Linux\n");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_there_is_used_and_kept() {
    let world = World::new(ScriptedHost::new().on("uname", Script::exits(0)));
    let session = world.session().await;
    let said = run(&world, "uname", json!({})).await;
    assert_eq!((said.fact("session_id"), &said.facts["disconnected"]), (session, &json!(false)));
    assert!(said.facts.get("hint").is_none() && said.facts.get("next").is_none());
    assert_eq!((open_sessions(&world).await, world.host.connects()), (json!(1), 1));
}

#[tokio::test(start_paused = true)]
async fn a_session_can_be_kept_and_is_then_found_again() {
    let world = World::new(ScriptedHost::new().on("uname", Script::exits(0)));
    let said = run(&world, "uname", json!({ "disconnect_after": false, "agent_id": "a1" })).await;
    assert_eq!(said.facts["disconnected"], false);
    let session = said.fact("session_id");
    let hint = format!("REQUIRED NEXT STEP: ssh_disconnect(session_id=\"{session}\") when you are done");
    assert_eq!(said.fact("hint"), hint);
    let sessions = world.call("ssh_sessions", json!({ "agent_id": "a1" })).await;
    assert_eq!(sessions.facts["sessions"][0]["session_id"], session);
    assert_eq!(run(&world, "uname", json!({})).await.fact("session_id"), session);
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_the_command_is_ended_and_what_came_is_shown() {
    let world =
        World::new(ScriptedHost::new().on("slow", Script::new().out("so far").ignoring(&[Signal::Term])));
    let before = tokio::time::Instant::now();
    let said = run(&world, "slow", json!({})).await;
    assert_eq!(before.elapsed().as_secs(), 32, "30 s, and 2 s of the ladder");
    assert_eq!((said.status(), said.fact("stdout").as_str()), ("timeout", "so far"));
    assert_eq!((&said.facts["timed_out"], said.fact("ended_by").as_str()), (&json!(true), "kill"));
    assert_eq!((world.host.running("slow"), open_sessions(&world).await), (0, json!(0)));

    for (asked, took) in [(7, 9), (0, 302), (100_000, 302)] {
        let before = tokio::time::Instant::now();
        assert_eq!(run(&world, "slow", json!({ "timeout_secs": asked })).await.status(), "timeout");
        assert_eq!(before.elapsed().as_secs(), took, "{asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_is_a_failed_run_with_what_came() {
    let world =
        World::new(ScriptedHost::new().on("cut", Script::new().out("half").after(SECOND).lose_connection()));
    let said = run(&world, "cut", json!({})).await;
    assert_eq!((said.status(), said.fact("stdout").as_str()), ("failed", "half"));
    assert_eq!(said.facts["error"]["code"], "COMMAND_FAILED");
    assert_eq!(said.facts["disconnected"], true);
}

#[tokio::test(start_paused = true)]
async fn failures_are_those_of_connecting_and_of_starting() {
    let world =
        World::with(ScriptedHost::new().on("id", Script::exits(0)), |settings| settings.max_retries = 0);
    let failed = |transience| ConnectError::Failed { cause: "refused".into(), transience };
    for (error, code) in [
        (failed(Transience::Permanent), "CONNECTION_FAILED"),
        (failed(Transience::Transient), "CONNECTION_FAILED"),
        (
            ConnectError::Rejected { tried: vec![], offered: vec!["publickey".into()], cut_off: None },
            "AUTH_FAILED",
        ),
        (ConnectError::Key { path: "k".into(), cause: "missing".into() }, "AUTH_KEY_PARSE"),
    ] {
        world.host.then_connect_fails(error);
        let said = run(&world, "id", json!({})).await;
        assert_eq!(said.fact("code"), code);
    }
    world.host.then_refuse_channels(10);
    let said = run(&world, "id", json!({ "disconnect_after": false })).await;
    assert_eq!((said.fact("code"), said.fact("effect")), ("CHANNEL_FAILED".into(), "none".into()));
    assert_eq!(open_sessions(&world).await, 0, "an error leaves nothing behind");

    let world = World::with(ScriptedHost::new(), |settings| settings.max_sessions = Some(1));
    world.call("ssh_connect", json!({ "address": "other", "username": "ann" })).await;
    assert_eq!(run(&world, "id", json!({})).await.fact("code"), "MAX_SESSIONS_EXCEEDED");
}

#[tokio::test(start_paused = true)]
async fn a_host_key_that_was_learnt_is_told() {
    let report = HostKeyReport {
        algorithm: "ssh-ed25519".into(),
        fingerprint: "SHA256:abc".into(),
        status: HostKeyStatus::Learnt,
    };
    let world = World::new(ScriptedHost::new().with_host_key(report).on("id", Script::exits(0)));
    let said = run(&world, "id", json!({})).await;
    assert!(said.fact("hint").ends_with("ssh-ed25519 SHA256:abc"), "{}", said.text);
    assert!(said.text.contains("\nHINT: the host key was unknown"), "{}", said.text);
}

#[tokio::test(start_paused = true)]
async fn calling_it_off_ends_the_command_and_the_session() {
    let world = World::new(ScriptedHost::new().on("slow", Script::new().out("so far")));
    let off = CancellationToken::new();
    let arguments = arguments("slow", json!({ "disconnect_after": true }));
    let call = world.ask(Call { tool: "ssh_run", arguments, cancelled: off.clone(), ..Call::default() });
    let said = meanwhile(call, async {
        tokio::time::sleep(SECOND).await;
        off.cancel();
    })
    .await;
    assert_eq!((said.status(), said.fact("ended_by").as_str()), ("cancelled", "signal"));
    assert_eq!((world.host.running("slow"), open_sessions(&world).await), (0, json!(0)));
}

#[tokio::test(start_paused = true)]
async fn calling_it_off_while_connecting_leaves_nothing() {
    let world = World::new(ScriptedHost::new().with_connect_time(SECOND * 5).on("id", Script::exits(0)));
    let off = CancellationToken::new();
    let arguments = arguments("id", json!({}));
    let call = world.ask(Call { tool: "ssh_run", arguments, cancelled: off.clone(), ..Call::default() });
    let before = tokio::time::Instant::now();
    assert!(meanwhile(call, async { off.cancel() }).await.is_error);
    assert!(before.elapsed() < SECOND);
    tokio::time::sleep(SECOND * 10).await;
    assert_eq!((open_sessions(&world).await, world.host.command_lines().len()), (json!(0), 0));
}

#[tokio::test(start_paused = true)]
async fn context_terminal_and_budget_are_those_of_commands() {
    let world = World::new(ScriptedHost::new().on("dump", Script::new().err("0123456789").exit(0)));
    let more = json!({ "cwd": "/srv", "env": { "A": "1" }, "pty": true, "max_output_bytes": 3 });
    let said = run(&world, "dump", more).await;
    assert_eq!((said.fact("stdout"), said.fact("stderr")), ("789".into(), String::new()));
    let line = world.host.command_lines().into_iter().find(|line| line.contains("dump")).unwrap();
    assert!(line.ends_with("cd -- '/srv' || exit 1; export A='1'; dump"), "{line}");
}
