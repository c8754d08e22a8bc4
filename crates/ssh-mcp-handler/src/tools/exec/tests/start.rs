use ssh_mcp_core::port::ssh::{ConnectError, Pty, PtySize, Signal, Start, Transience};
use ssh_mcp_testkit::host::{Script, Seen};

use super::*;

async fn exec(world: &World, session: &str, command: &str, more: Value) -> Said {
    let mut arguments = json!({ "session_id": session, "command": command });
    arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.call("ssh_exec", arguments).await
}

#[tokio::test(start_paused = true)]
async fn a_started_command_is_named_at_once_and_says_when_its_limit_ends_it() {
    let world = World::new(ScriptedHost::new().on("make", Script::new()));
    let session = world.session().await;
    let said = exec(&world, &session, "make", json!({})).await;
    let command = said.fact("command_id");
    assert_eq!(
        said.plain(),
        "SSH_EXEC: STARTED\nCOMMAND_ID: command_id\nSESSION_ID: session_id\nSTARTED_AT: started_at\nENDS_AT: ends_at\n\
         HINT: RECOMMENDED: follow command://command_id/output: subscribe with sub_open, or wait with sub_wait; do \
         not ask again and again\n\
         NEXT: sub_wait(uris=[\"command://command_id/output\"]) | sub_open uri=command://command_id/output | \
         ssh_exec_output(command_id=\"command_id\", wait=true) | ssh_exec_cancel(command_id=\"command_id\")"
    );
    assert_eq!(said.facts["next"][3], json!(format!("ssh_exec_cancel(command_id=\"{command}\")")));
    let since = |said: &Said, name: &str| said.fact(name).split_once('T').unwrap().1.to_owned();
    assert_ne!(since(&said, "started_at"), since(&said, "ends_at"));
    assert!(said.facts.get("stdout").is_none(), "{}", said.facts);

    let other = exec(&world, &session, "make", json!({ "timeout_secs": 0 })).await;
    assert!(!other.text.contains("ENDS_AT") && other.facts.get("ends_at").is_none());
    let other = exec(&world, &session, "make", json!({ "timeout_secs": u64::MAX })).await;
    assert!(other.facts.get("ends_at").is_none(), "a limit no date can show is none");
}

#[tokio::test(start_paused = true)]
async fn a_session_of_an_agent_names_it() {
    let world = World::new(ScriptedHost::new().on("id", Script::exits(0)));
    let connect = json!({ "address": "example.org", "username": "ann", "agent_id": "a1" });
    let session = world.call("ssh_connect", connect).await.fact("session_id");
    let said = exec(&world, &session, "id", json!({})).await;
    assert_eq!(said.fact("agent_id"), "a1");
}

#[tokio::test(start_paused = true)]
async fn waiting_shows_the_end_and_the_output() {
    let world = World::new(
        ScriptedHost::new()
            .on("build", Script::new().out("made\n").err("warned\n").after(SECOND).exit(2))
            .on("die", Script::new().exit_signal("SEGV")),
    );
    let session = world.session().await;
    let said = exec(&world, &session, "build", json!({ "wait": true })).await;
    assert_eq!(
        said.plain(),
        "SSH_EXEC: COMPLETED\nCOMMAND_ID: command_id\nSESSION_ID: session_id\nSTARTED_AT: started_at\nEXIT: 2\n\
         --- stdout [nonce] ---\nmade\n--- stderr [nonce] ---\nwarned"
    );
    let Value::Object(mut facts) = said.facts else { panic!() };
    for name in ["command_id", "session_id", "started_at"] {
        assert!(facts.remove(name).is_some());
    }
    assert_eq!(
        Value::Object(facts),
        json!({
            "tool": "ssh_exec", "status": "completed", "exit_code": 2, "stdout": "made\n", "stderr": "warned\n",
            "stdout_truncated": false, "stderr_truncated": false, "timed_out": false,
        })
    );
    let said = exec(&world, &session, "die", json!({ "wait": true })).await;
    assert_eq!((said.status(), said.fact("exit_signal").as_str()), ("completed", "SEGV"));
    assert!(said.facts.get("exit_code").is_none());
    assert!(said.text.contains("--- stdout [") && said.text.contains("] (empty) ---"), "{}", said.text);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_runs_out_leaves_the_command_running() {
    let world =
        World::new(ScriptedHost::new().on("slow", Script::new().out("so far").after(SECOND * 60).exit(0)));
    let session = world.session().await;
    let before = tokio::time::Instant::now();
    let said = exec(&world, &session, "slow", json!({ "wait": true })).await;
    assert_eq!(before.elapsed().as_secs(), 30);
    assert_eq!((said.status(), said.fact("stdout").as_str()), ("running", "so far"));
    assert!(said.text.contains("ENDS_AT: ") && said.text.contains(" | ssh_exec_output("), "{}", said.text);
    assert!(said.text.contains("] (partial) ---\nso far\n"), "{}", said.text);
    assert_eq!(world.host.running("slow"), 1);
    assert_eq!(world.host.signals("slow"), []);

    let wait = json!({ "command_id": said.fact("command_id"), "wait": true, "wait_timeout_secs": 60 });
    assert_eq!(world.call("ssh_exec_output", wait).await.status(), "completed");
}

#[tokio::test(start_paused = true)]
async fn no_wait_is_longer_than_its_cap() {
    let world = World::new(ScriptedHost::new().on("slow", Script::new()));
    let session = world.session().await;
    let before = tokio::time::Instant::now();
    let more = json!({ "wait": true, "wait_timeout_secs": 100_000, "timeout_secs": 0 });
    assert_eq!(exec(&world, &session, "slow", more).await.status(), "running");
    assert_eq!(before.elapsed().as_secs(), 300);
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_ends_a_command_and_keeps_its_output() {
    let world = World::new(ScriptedHost::new().on("slow", Script::new().out("so far\n")));
    let session = world.session().await;
    let said = exec(&world, &session, "slow", json!({ "wait": true, "timeout_secs": 5 })).await;
    assert_eq!((said.status(), said.fact("ended_by").as_str()), ("timeout", "signal"));
    assert_eq!((&said.facts["timed_out"], said.fact("stdout").as_str()), (&json!(true), "so far\n"));
    assert_eq!(said.fact("exit_signal"), "TERM");
    assert!(said.facts.get("next").is_none() && said.facts.get("ends_at").is_none());
    assert!(
        said.text.contains("--- stdout [") && said.text.contains("] (partial) ---\nso far\n"),
        "{}",
        said.text
    );
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_and_a_refusal_are_told_in_the_answer() {
    let world = World::new(
        ScriptedHost::new()
            .on("cut", Script::new().out("half").after(SECOND).lose_connection())
            .on("forbidden", Script::new().refusing("exec")),
    );
    let session = world.session().await;
    let said = exec(&world, &session, "forbidden", json!({ "wait": true })).await;
    assert_eq!(said.status(), "failed");
    let error = &said.facts["error"];
    assert_eq!((error["code"].as_str(), error["retry"].as_str()), (Some("CHANNEL_FAILED"), Some("backoff")));
    assert!(
        said.text.contains("REASON: [CHANNEL_FAILED] the server refused the exec request\nDETAIL: Close"),
        "{}",
        said.text
    );

    let said = exec(&world, &session, "cut", json!({ "wait": true })).await;
    assert_eq!((said.status(), said.fact("stdout").as_str()), ("failed", "half"));
    let error = &said.facts["error"];
    assert_eq!(
        (error["code"].as_str(), error["category"].as_str()),
        (Some("COMMAND_FAILED"), Some("TRANSPORT"))
    );
    assert_eq!(error["retry"], "judge");
    assert!(error["detail"].as_str().unwrap().ends_with("; effect=unknown"), "{error}");
    assert!(said.text.contains("\nREASON: [COMMAND_FAILED] connection lost"), "{}", said.text);

    let said = exec(&world, &session, "cut", json!({})).await;
    assert_eq!(said.fact("code"), "SESSION_NOT_FOUND");
}

#[tokio::test(start_paused = true)]
async fn a_child_that_holds_the_output_is_warned_of() {
    let script = Script::new().out("started\n").exit(0).holding_output(SECOND * 60);
    let world = World::new(ScriptedHost::new().on("server &", script));
    let session = world.session().await;
    let before = tokio::time::Instant::now();
    let said = exec(&world, &session, "server &", json!({ "wait": true })).await;
    assert!(before.elapsed() < SECOND);
    assert_eq!((said.status(), &said.facts["exit_code"]), ("completed", &json!(0)));
    let uri = format!("command://{}/output", said.fact("command_id"));
    assert_eq!(said.facts["warnings"][0]["code"], "OUTPUT_STILL_OPEN");
    assert_eq!(said.facts["warnings"][0]["resource"], uri);
    assert!(said.text.contains(&format!("\nWARN: OUTPUT_STILL_OPEN {uri} ")), "{}", said.text);
}

#[tokio::test(start_paused = true)]
async fn input_context_and_terminal_reach_the_host() {
    let world =
        World::new(ScriptedHost::new().on("cat", Script::cat()).on("tty", Script::new().err("e").exit(0)));
    let session = world.session().await;
    let said = exec(&world, &session, "cat", json!({ "wait": true, "input": "läuft\n" })).await;
    assert_eq!((said.status(), said.fact("stdout").as_str()), ("completed", "läuft\n"));
    let said = exec(&world, &session, "cat", json!({ "wait": true, "input_base64": "AP8=" })).await;
    assert_eq!(said.fact("stdout"), "\0\u{fffd}");
    let said = exec(&world, &session, "cat", json!({ "wait": true })).await;
    assert_eq!((said.status(), said.fact("stdout").as_str()), ("completed", ""));

    let more = json!({ "cwd": "/srv", "env": { "B": "2", "A": "it's" }, "shell": "bash", "wait": true });
    exec(&world, &session, "cat", more).await;
    let line = world.host.command_lines().pop().unwrap();
    assert!(
        line.ends_with(r"cd -- '/srv' || exit 1; export A='it'\''s'; export B='2'; exec 'bash' -c 'cat'"),
        "{line}"
    );

    let said = exec(&world, &session, "tty", json!({ "wait": true, "pty": true })).await;
    assert_eq!((said.fact("stdout"), said.fact("stderr")), ("e".to_owned(), String::new()));
    let pty = Some(Pty { term: "xterm".into(), size: PtySize { cols: 80, rows: 24 } });
    let seen = world.host.seen();
    let asked = |seen: &&Seen| matches!(seen, Seen::Started { start: Start::Exec { pty: got, .. }, .. } if *got == pty);
    assert_eq!(seen.iter().filter(asked).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_mebibyte_of_input_is_taken_and_one_byte_more_is_not() {
    let world = World::new(ScriptedHost::new().on("cat", Script::cat()));
    let session = world.session().await;
    let most = "x".repeat(1 << 20);
    let said = exec(&world, &session, "cat", json!({ "wait": true, "input": most })).await;
    assert_eq!(said.facts["stdout_truncated"], true);
    assert_eq!(world.host.input("cat").len(), 1 << 20);
    let said = exec(&world, &session, "cat", json!({ "input": most + "y" })).await;
    assert_eq!(said.fact("reason"), "input must be at most 1048576 bytes; got 1048577");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_releases_itself_lives_as_long_as_somebody_reads() {
    let world = World::new(ScriptedHost::new().on("watch", Script::new()));
    let session = world.session().await;
    let said = exec(&world, &session, "watch", json!({ "release_when_no_subs": true })).await;
    assert!(
        said.text
            .contains("\nHINT: REQUIRED NEXT STEP: wait for it or read it with ssh_exec_output within 30 s"),
        "{}",
        said.text
    );
    let read = json!({ "command_id": said.fact("command_id") });
    for _ in 0..4 {
        tokio::time::sleep(SECOND * 20).await;
        assert_eq!(world.call("ssh_exec_output", read.clone()).await.status(), "running");
    }
    tokio::time::sleep(SECOND * 40).await;
    let said = world.call("ssh_exec_output", read).await;
    assert_eq!((said.status(), said.fact("ended_by").as_str()), ("cancelled", "signal"));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_ran_out_says_what_keeps_a_command_that_releases_itself() {
    let world = World::new(ScriptedHost::new().on("watch", Script::new()));
    let session = world.session().await;
    for (release, hinted) in [(true, true), (false, false)] {
        let more = json!({ "wait": true, "wait_timeout_secs": 1, "release_when_no_subs": release });
        let said = exec(&world, &session, "watch", more).await;
        assert_eq!(said.status(), "running");
        let hint = "\nHINT: REQUIRED NEXT STEP: wait for it or read it with ssh_exec_output within 30 s";
        assert_eq!(said.text.contains(hint), hinted, "{}", said.text);
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_started_says_why_and_leaves_nothing() {
    let host = ScriptedHost::new().on("long", Script::new());
    let world = World::with(host, |settings| settings.max_commands_per_session = 1);
    let session = world.session().await;

    world.host.then_refuse_channels(10);
    let said = exec(&world, &session, "long", json!({})).await;
    assert_eq!((said.fact("code"), said.fact("effect")), ("CHANNEL_FAILED".into(), "none".into()));
    assert!(said.text.starts_with("SSH_EXEC: ERROR\nREASON: [CHANNEL_FAILED] "), "{}", said.text);
    world.host.then_refuse_channels(0);

    world.started(&session, "long").await;
    let said = exec(&world, &session, "long", json!({})).await;
    assert_eq!(said.fact("code"), "MAX_COMMANDS_EXCEEDED");
    assert!(said.fact("detail").ends_with("; limit=1"), "{}", said.text);

    let said = exec(&world, "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", "long", json!({})).await;
    assert_eq!(said.fact("code"), "SESSION_NOT_FOUND");
    assert!(said.fact("detail").ends_with(&format!("closest matches: {session}")), "{}", said.text);
    let list = world.call("ssh_commands", json!({})).await;
    assert_eq!(list.facts["count"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_connection_is_a_transport_error_and_then_no_session() {
    let world = World::new(ScriptedHost::new());
    let session = world.session().await;
    world
        .host
        .then_connect_fails(ConnectError::Failed { cause: "x".into(), transience: Transience::Permanent });
    world.host.lose_connections("pulled");
    let said = exec(&world, &session, "id", json!({})).await;
    let code = said.fact("code");
    assert!(["TRANSPORT_ERROR", "SESSION_NOT_FOUND"].contains(&code.as_str()), "{code}");
    assert_eq!(exec(&world, &session, "id", json!({})).await.fact("code"), "SESSION_NOT_FOUND");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_calls_its_wait_off_does_not_end_the_command() {
    let world = World::new(ScriptedHost::new().on("slow", Script::new()));
    let session = world.session().await;
    let cancelled = CancellationToken::new();
    let arguments = json!({ "session_id": session, "command": "slow", "wait": true });
    let call =
        world.ask(Call { tool: "ssh_exec", arguments, cancelled: cancelled.clone(), ..Call::default() });
    let said = meanwhile(call, async { cancelled.cancel() }).await;
    assert_eq!(said.status(), "running");
    tokio::time::sleep(SECOND * 20).await;
    assert_eq!((world.host.running("slow"), world.host.signals("slow")), (1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_called_off_starts_nothing() {
    let world = World::new(ScriptedHost::new().with_places(1).on("long", Script::new()));
    let session = world.session().await;
    world.started(&session, "long").await;
    let cancelled = CancellationToken::new();
    let arguments = json!({ "session_id": session, "command": "long 2" });
    let call =
        world.ask(Call { tool: "ssh_exec", arguments, cancelled: cancelled.clone(), ..Call::default() });
    let said = meanwhile(call, async { cancelled.cancel() }).await;
    assert!(said.is_error);
    assert_eq!(world.call("ssh_commands", json!({})).await.facts["count"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_call_with_a_key_runs_once() {
    let world = World::new(ScriptedHost::new().on("once", Script::prints("1\n")));
    let session = world.session().await;
    let ask = |command: &str| Call {
        tool: "ssh_exec",
        arguments: json!({ "session_id": session, "command": command, "wait": true }),
        key: Some("k1"),
        ..Call::default()
    };
    let first = world.ask(ask("once")).await;
    let again = world.ask(ask("once")).await;
    assert_eq!((first.text, first.facts), (again.text, again.facts));
    let runs = world.host.command_lines().iter().filter(|line| line.contains("once")).count();
    assert_eq!(runs, 1);
    assert_eq!(world.ask(ask("once more")).await.fact("code"), "IDEMPOTENCY_KEY_MISMATCH");

    // Failures are not kept: a retry is meant to retry.
    world.host.then_refuse_channels(10);
    let refused = Call { key: Some("k2"), ..ask("once") };
    assert!(world.ask(refused).await.is_error);
    world.host.then_refuse_channels(0);
    assert_eq!(world.ask(Call { key: Some("k2"), ..ask("once") }).await.status(), "completed");
}

#[tokio::test(start_paused = true)]
async fn only_listed_tools_are_named_and_text_may_stand_alone() {
    let host = ScriptedHost::new().on("id", Script::new());
    let world = World::with(host, |settings| {
        settings.toolsets = vec!["all".into(), "-ssh_exec_output".into(), "-ssh_exec_cancel".into()];
        settings.structured_content = false;
    });
    let said = world.call("ssh_connect", json!({ "address": "example.org", "username": "ann" })).await;
    let session = said.text.lines().find_map(|line| line.strip_prefix("SESSION_ID: ")).unwrap().to_owned();
    let said = exec(&world, &session, "id", json!({ "release_when_no_subs": true })).await;
    assert!(said.facts.is_null());
    assert!(said.text.starts_with("SSH_EXEC: STARTED\nCOMMAND_ID: "), "{}", said.text);
    assert!(
        !said.text.contains("ssh_exec_output") && !said.text.contains("ssh_exec_cancel"),
        "{}",
        said.text
    );
}

#[tokio::test(start_paused = true)]
async fn signals_that_are_dropped_are_followed_by_the_group_kill() {
    let world = World::new(ScriptedHost::new().on("deaf", Script::new().unreached_by_signals()));
    let session = world.session().await;
    // The line with the pid is there from the second command on at the latest.
    world.started(&session, "true").await;
    let said = exec(&world, &session, "deaf", json!({ "wait": true, "timeout_secs": 1 })).await;
    assert_eq!((said.status(), said.fact("ended_by").as_str()), ("timeout", "kill"));
    assert_eq!(world.host.signals("deaf"), [Signal::Term, Signal::Kill]);
    assert_eq!(world.host.running("deaf"), 0);
}
