use ssh_mcp_testkit::host::Script;

use super::*;

async fn batch(world: &World, commands: &[&str], more: Value) -> Said {
    let session = world.session().await;
    let mut arguments = json!({ "session_id": session, "commands": commands });
    arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.call("ssh_exec_batch", arguments).await
}

fn host() -> ScriptedHost {
    ScriptedHost::new()
        .on("good", Script::prints("fine\n"))
        .on("bad", Script::new().err("no\n").exit(2))
        .on("slow", Script::new().out("so far").after(SECOND * 3600).exit(0))
        .on("killed", Script::new().exit_signal("KILL"))
        .on("refused", Script::new().refusing("exec"))
        .on("cut", Script::new().out("half").after(SECOND).lose_connection())
}

/// The words of all results.
fn words(said: &Said) -> Vec<&str> {
    said.facts["results"].as_array().unwrap().iter().map(|item| item["status"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn all_run_in_order_and_all_are_shown() {
    let world = World::new(host());
    let said = batch(&world, &["good", "good 2"], json!({})).await;
    let id = |n: usize| said.facts["results"][n]["command_id"].as_str().unwrap().to_owned();
    assert_eq!(
        said.plain().replace(&id(0), "first").replace(&id(1), "second"),
        "SSH_EXEC_BATCH: OK\nSESSION_ID: session_id\nTOTAL: 2\nEXECUTED: 2\n\
         - [0] good: COMPLETED exit=0 command_id=first\n- [1] good 2: COMPLETED exit=0 command_id=second\n\
         --- stdout 0 [nonce] ---\nfine\n--- stderr 0 [nonce] (empty) ---\n\
         --- stdout 1 [nonce] ---\nfine\n--- stderr 1 [nonce] (empty) ---"
    );
    assert_eq!(
        said.facts["results"][1],
        json!({
            "index": 1, "command": "good 2", "status": "completed", "command_id": id(1), "exit_code": 0,
            "stdout": "fine\n", "stderr": "", "stdout_truncated": false, "stderr_truncated": false,
            "timed_out": false,
        })
    );
    let lines = world.host.command_lines();
    let mine: Vec<_> = lines.iter().filter(|line| line.contains("good")).collect();
    assert!(mine[0].ends_with("; good") && mine[1].ends_with("; good 2"), "{mine:?}");
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_halts_the_rest() {
    let world = World::new(host());
    let said = batch(&world, &["good", "bad", "good", "good"], json!({})).await;
    assert_eq!(said.status(), "halted");
    assert_eq!((&said.facts["total"], &said.facts["executed"]), (&json!(4), &json!(2)));
    assert_eq!(words(&said), ["completed", "failed", "skipped", "skipped"]);
    let failed = &said.facts["results"][1];
    assert_eq!((&failed["exit_code"], failed["stderr"].as_str()), (&json!(2), Some("no\n")));
    assert_eq!(failed["error"]["code"], "REMOTE_CMD_FAILED");
    let skipped = &said.facts["results"][2];
    assert_eq!((skipped["stdout"].as_str(), skipped.get("command_id")), (Some(""), None));
    assert!(said.text.contains("\n- [1] bad: FAILED exit=2 command_id="), "{}", said.text);
    assert!(
        said.text.contains("\n- [2] good: SKIPPED\n- [3] good: SKIPPED\n--- stdout 0 ["),
        "{}",
        said.text
    );
    assert!(!said.text.contains("--- stdout 2"), "{}", said.text);
}

#[tokio::test(start_paused = true)]
async fn a_batch_may_go_on_past_failures_of_every_kind() {
    let world = World::new(host());
    let commands = ["bad", "killed", "slow", "refused", "good"];
    let more =
        json!({ "stop_on_failure": false, "timeout_secs_per_command": 2, "max_output_bytes_per_command": 3 });
    let said = batch(&world, &commands, more).await;
    assert_eq!((said.status(), &said.facts["executed"]), ("ok", &json!(5)));
    assert_eq!(words(&said), ["failed", "failed", "timeout", "failed", "completed"]);
    let results = &said.facts["results"];
    assert_eq!((&results[1]["exit_signal"], results[1].get("exit_code")), (&json!("KILL"), None));
    assert_eq!((&results[2]["timed_out"], &results[2]["ended_by"]), (&json!(true), &json!("signal")));
    assert_eq!((&results[2]["stdout"], &results[2]["stdout_truncated"]), (&json!("far"), &json!(true)));
    assert_eq!(results[3]["error"]["code"], "CHANNEL_FAILED");
    assert!(said.text.contains("\n- [1] killed: FAILED signal=KILL command_id="), "{}", said.text);
    assert!(
        said.text.contains("\n- [2] slow: TIMEOUT signal=TERM ended_by=signal command_id="),
        "{}",
        said.text
    );
    assert!(
        said.text.contains("\n- [3] refused: FAILED [CHANNEL_FAILED] the server refused"),
        "{}",
        said.text
    );
}

#[tokio::test(start_paused = true)]
async fn every_failure_halts() {
    for failing in ["bad", "killed", "slow", "refused"] {
        let world = World::new(host());
        let said = batch(&world, &[failing, "good"], json!({})).await;
        assert_eq!((said.status(), words(&said)[1]), ("halted", "skipped"), "{failing}");
        let world = World::new(host());
        let said = batch(&world, &["good", failing], json!({})).await;
        assert_eq!(said.status(), "ok", "all ran: {failing}");
    }
}

#[tokio::test(start_paused = true)]
async fn limits_are_thirty_seconds_each_and_capped() {
    for (more, seconds) in [
        (json!({}), 60),
        (json!({ "timeout_secs_per_command": 5 }), 10),
        (json!({ "timeout_secs_per_command": 1000 }), 600),
        (json!({ "timeout_secs_per_command": 0 }), 600),
    ] {
        let world = World::new(host());
        let mut more = more;
        more["stop_on_failure"] = json!(false);
        let before = tokio::time::Instant::now();
        let said = batch(&world, &["slow", "slow"], more).await;
        assert_eq!(words(&said), ["timeout", "timeout"]);
        assert_eq!(before.elapsed().as_secs(), seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_breaks_halts_or_fails_with_the_results_so_far() {
    let world = World::new(host());
    let said = batch(&world, &["good", "cut", "good"], json!({})).await;
    assert_eq!((said.status(), words(&said)), ("halted", vec!["completed", "failed", "skipped"]));
    assert_eq!(said.facts["results"][1]["error"]["code"], "COMMAND_FAILED");
    assert!(said.text.contains("\n- [1] cut: FAILED [COMMAND_FAILED] connection lost"), "{}", said.text);

    let world = World::new(host());
    let said = batch(&world, &["good", "cut", "good"], json!({ "stop_on_failure": false })).await;
    // This call lost the session; only the next one finds none.
    assert_eq!((said.fact("code"), said.fact("effect")), ("TRANSPORT_ERROR".into(), "unknown".into()));
    assert_eq!(words(&said), ["completed", "failed", "skipped"]);
    assert_eq!((&said.facts["total"], &said.facts["executed"]), (&json!(3), &json!(2)));
    let detail = said.fact("detail");
    assert!(detail.contains("; executed=2 of 3; [0] good: COMPLETED exit=0 command_id="), "{detail}");

    // With a channel refused in the middle the session is well, and what ran has had its effect.
    let refusing = host();
    let world = World::new(refusing.clone().on_match(move |line| {
        line.contains("last").then(|| {
            refusing.then_refuse_channels(10);
            Script::exits(0)
        })
    }));
    let said = batch(&world, &["last", "good"], json!({})).await;
    assert_eq!((said.fact("code"), said.fact("effect")), ("CHANNEL_FAILED".into(), "unknown".into()));
    assert_eq!((said.fact("retry"), words(&said)), ("judge".into(), vec!["completed", "skipped"]));
}

#[tokio::test(start_paused = true)]
async fn calling_it_off_ends_the_command_and_starts_no_other() {
    let world = World::new(host());
    let session = world.session().await;
    let off = CancellationToken::new();
    let arguments = json!({ "session_id": session, "commands": ["good", "slow", "good"] });
    let call =
        world.ask(Call { tool: "ssh_exec_batch", arguments, cancelled: off.clone(), ..Call::default() });
    let said = meanwhile(call, async {
        tokio::time::sleep(SECOND).await;
        off.cancel();
    })
    .await;
    assert_eq!((said.status(), words(&said)), ("halted", vec!["completed", "cancelled", "skipped"]));
    assert_eq!(world.host.running("slow"), 0);
    let list = world.call("ssh_commands", json!({ "status": "running" })).await;
    assert_eq!(list.facts["count"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_batch_holds_its_session_and_a_disconnect_ends_both() {
    let host = host();
    let world = World::with(host, |settings| settings.inactivity_timeout = Some(SECOND));
    let said = batch(&world, &["slow", "slow", "good"], json!({ "stop_on_failure": false })).await;
    assert_eq!(words(&said), ["timeout", "timeout", "completed"], "idle time does not count meanwhile");

    let world = World::new(self::host());
    let session = world.session().await;
    let arguments = json!({ "session_id": session, "commands": ["slow", "good"] });
    let call = world.call("ssh_exec_batch", arguments);
    let before = tokio::time::Instant::now();
    let said = meanwhile(call, async {
        world.call("ssh_disconnect", json!({ "session_id": session })).await;
    })
    .await;
    assert_eq!((said.status(), words(&said)), ("halted", vec!["cancelled", "skipped"]));
    assert!(before.elapsed() < SECOND, "the disconnect does not wait for the batch, nor the batch for it");
}
