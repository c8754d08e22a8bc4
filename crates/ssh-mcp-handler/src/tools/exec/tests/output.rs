use ssh_mcp_testkit::host::Script;

use super::*;

/// A world with a command that has printed this and ended.
async fn printed(script: Script) -> (World, String) {
    let world = World::new(ScriptedHost::new().on("dump", script));
    let session = world.session().await;
    let command = world.started(&session, "dump").await;
    world.call("ssh_exec_output", json!({ "command_id": command, "wait": true })).await;
    (world, command)
}

async fn read(world: &World, command: &str, max: Value) -> Said {
    world.call("ssh_exec_output", json!({ "command_id": command, "max_output_bytes": max })).await
}

#[tokio::test(start_paused = true)]
async fn an_ended_command_is_shown_whole_and_can_be_read_again() {
    let (world, command) = printed(Script::new().out("one\ntwo\n").exit(0)).await;
    for _ in 0..2 {
        let said = read(&world, &command, Value::Null).await;
        assert_eq!(
            said.plain(),
            "SSH_EXEC_OUTPUT: COMPLETED\nCOMMAND_ID: command_id\nEXIT: 0\n--- stdout [nonce] ---\none\ntwo\n\
             --- stderr [nonce] (empty) ---"
        );
        assert_eq!(
            said.facts,
            json!({
                "tool": "ssh_exec_output", "status": "completed", "command_id": command, "exit_code": 0,
                "stdout": "one\ntwo\n", "stderr": "", "stdout_truncated": false, "stderr_truncated": false,
                "timed_out": false,
            })
        );
        tokio::time::sleep(SECOND * 3000).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_newest_bytes_are_shown_to_the_byte() {
    let text: String = (0..20_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    let (world, command) = printed(Script::new().out(text.clone()).err("x".repeat(5)).exit(0)).await;
    let tail = |bytes: usize| &text[text.len() - bytes..];
    for (max, shown, truncated) in [
        (Value::Null, 16_384, true),
        (json!(1), 1, true),
        (json!(19_999), 19_999, true),
        (json!(20_000), 20_000, false),
        (json!(20_001), 20_000, false),
    ] {
        let said = read(&world, &command, max.clone()).await;
        assert_eq!(said.fact("stdout"), tail(shown), "{max}");
        assert_eq!(said.facts["stdout_truncated"], truncated, "{max}");
        assert_eq!(said.facts["stderr_truncated"], max == json!(1), "{max}");
    }
    let said = read(&world, &command, Value::Null).await;
    assert!(said.text.contains("] (truncated: showing 16.0KB of 19.5KB) ---\n"), "{}", &said.text[..200]);
    assert!(said.text.contains("--- stderr ["), "each stream has its own budget");
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_held_to_its_cap() {
    let (world, command) = printed(Script::new().out("z".repeat((1 << 20) + 10)).exit(0)).await;
    let said = read(&world, &command, json!(u64::MAX)).await;
    assert_eq!(said.fact("stdout").len(), 1 << 20);
    assert_eq!(said.facts["stdout_truncated"], true);
}

#[tokio::test(start_paused = true)]
async fn a_cut_goes_through_no_character_and_binary_output_is_text() {
    let (world, command) = printed(Script::new().out("aäöü").exit(0)).await;
    assert_eq!(read(&world, &command, json!(3)).await.fact("stdout"), "ü");
    assert_eq!(read(&world, &command, json!(4)).await.fact("stdout"), "öü");
    let (world, command) = printed(Script::new().out(&b"\xff\xfe\x00ok"[..]).exit(0)).await;
    assert_eq!(read(&world, &command, Value::Null).await.fact("stdout"), "\u{fffd}\u{fffd}\0ok");
}

#[tokio::test(start_paused = true)]
async fn a_running_command_is_partial_and_names_what_comes_next() {
    let world =
        World::new(ScriptedHost::new().on("slow", Script::new().err("hm\n").after(SECOND * 100).exit(0)));
    let session = world.session().await;
    let command = world.started(&session, "slow").await;
    tokio::time::sleep(SECOND).await;
    let said = world.call("ssh_exec_output", json!({ "command_id": command })).await;
    assert_eq!(
        said.plain(),
        "SSH_EXEC_OUTPUT: RUNNING\nCOMMAND_ID: command_id\n--- stdout [nonce] (partial, empty) ---\n\
         --- stderr [nonce] (partial) ---\nhm\n\
         NEXT: sub_wait(uris=[\"command://command_id/output\"]) | sub_open uri=command://command_id/output | \
         ssh_exec_output(command_id=\"command_id\", wait=true) | ssh_exec_cancel(command_id=\"command_id\")"
    );
    let before = tokio::time::Instant::now();
    let wait = json!({ "command_id": command, "wait": true, "wait_timeout_secs": 7 });
    assert_eq!(world.call("ssh_exec_output", wait).await.status(), "running");
    assert_eq!(before.elapsed().as_secs(), 7);
    let wait = json!({ "command_id": command, "wait": true, "wait_timeout_secs": 1000 });
    assert_eq!(world.call("ssh_exec_output", wait).await.status(), "completed");
    assert_eq!(before.elapsed().as_secs(), 99);
}

#[tokio::test(start_paused = true)]
async fn a_wait_called_off_is_only_a_wait() {
    let world = World::new(ScriptedHost::new().on("slow", Script::new()));
    let session = world.session().await;
    let command = world.started(&session, "slow").await;
    let cancelled = CancellationToken::new();
    let arguments = json!({ "command_id": command, "wait": true });
    let call = world.ask(Call {
        tool: "ssh_exec_output",
        arguments,
        cancelled: cancelled.clone(),
        ..Call::default()
    });
    assert_eq!(meanwhile(call, async { cancelled.cancel() }).await.status(), "running");
    assert_eq!((world.host.running("slow"), world.host.signals("slow")), (1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_is_a_cancel_and_what_came_can_still_be_read() {
    let world = World::new(ScriptedHost::new().on("slow", Script::new().out("so far")));
    let session = world.session().await;
    let command = world.started(&session, "slow").await;
    tokio::time::sleep(SECOND).await;
    world.call("ssh_disconnect", json!({ "session_id": session })).await;
    let said = world.call("ssh_exec_output", json!({ "command_id": command, "wait": true })).await;
    assert_eq!((said.status(), said.fact("stdout").as_str()), ("cancelled", "so far"));
    assert_eq!(said.fact("ended_by"), "signal");
}

#[tokio::test(start_paused = true)]
async fn commands_are_gone_an_hour_after_the_last_read_and_were_never_there_for_others() {
    let (world, command) = printed(Script::exits(0)).await;
    let arguments = json!({ "command_id": command });
    let owner = Owner::token("eve");
    let said = world.ask(Call { tool: "ssh_exec_output", arguments, owner, ..Call::default() }).await;
    assert_eq!(said.fact("code"), "COMMAND_NOT_FOUND");
    assert!(!said.text.contains("reason="), "{}", said.text);

    tokio::time::sleep(SECOND * 3620).await;
    let said = read(&world, &command, Value::Null).await;
    assert_eq!(said.fact("code"), "COMMAND_NOT_FOUND");
    assert!(said.fact("detail").contains("reason=completed"), "{}", said.text);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_id_suggests_the_nearest_that_live() {
    let world = World::new(ScriptedHost::new().on("live", Script::new()).on("over", Script::exits(0)));
    let session = world.session().await;
    let over = world.started(&session, "over").await;
    world.call("ssh_exec_output", json!({ "command_id": over, "wait": true })).await;
    let live = world.started(&session, "live").await;
    for unknown in ["no uuid", &live.replace(&live[30..], "ffffff")] {
        let said = read(&world, unknown, Value::Null).await;
        assert_eq!(said.fact("code"), "COMMAND_NOT_FOUND");
        assert!(said.fact("detail").ends_with(&format!("; closest matches: {live}")), "{}", said.text);
    }
}
