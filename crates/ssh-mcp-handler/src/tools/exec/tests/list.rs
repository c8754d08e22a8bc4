use ssh_mcp_testkit::host::Script;

use super::*;

#[tokio::test(start_paused = true)]
async fn commands_are_listed_newest_first_with_their_state() {
    let world = World::new(ScriptedHost::new().on("long", Script::new()).on("short", Script::exits(3)));
    let empty = world.call("ssh_commands", json!({})).await;
    assert_eq!(empty.text, "SSH_COMMANDS: OK\nCOUNT: 0");
    assert_eq!(
        empty.facts,
        json!({ "tool": "ssh_commands", "status": "ok", "commands": [], "count": 0, "total": 0 })
    );

    let session = world.session().await;
    let long = world.started(&session, "long\nline").await;
    let short = world.started(&session, "short").await;
    world.call("ssh_exec_output", json!({ "command_id": short, "wait": true })).await;
    let said = world.call("ssh_commands", json!({})).await;
    let lines: Vec<_> = said.text.lines().collect();
    assert_eq!(lines[1], "COUNT: 2");
    assert!(lines[2].starts_with(&format!("- {short} [COMPLETED] {session}: short (")), "{}", said.text);
    assert!(lines[3].starts_with(&format!("- {long} [RUNNING] {session}: long\\nline (")), "{}", said.text);
    assert_eq!(
        lines[4],
        format!(
            "NEXT: sub_wait(uris=[\"command://{long}/output\"]) | sub_open uri=command://{long}/output | \
             ssh_exec_output(command_id=\"{long}\", wait=true) | ssh_exec_cancel(command_id=\"{long}\")"
        )
    );
    let first = &said.facts["commands"][1];
    assert_eq!((first["command"].as_str(), first["status"].as_str()), (Some("long\nline"), Some("running")));
    let started = first["started_at"].as_str().unwrap();
    assert!(lines[3].ends_with(&format!("({})", &started[11..19])), "{} {started}", lines[3]);
}

#[tokio::test(start_paused = true)]
async fn lists_are_narrowed_and_cut() {
    let world = World::new(
        ScriptedHost::new()
            .on("long", Script::new())
            .on("ok", Script::exits(0))
            .on("refused", Script::new().refusing("exec")),
    );
    let (a, b) = (world.session().await, world.session().await);
    for command in ["ok", "refused", "long 1", "long 2", "long 3"] {
        world.started(&a, command).await;
    }
    let cancelled = world.started(&b, "long 4").await;
    world.call("ssh_exec_cancel", json!({ "command_id": cancelled })).await;
    world
        .call("ssh_exec", json!({ "session_id": b, "command": "long 5", "timeout_secs": 1, "wait": true }))
        .await;

    for (filter, expected) in [
        (json!({}), 7),
        (json!({ "session_id": a }), 5),
        (json!({ "session_id": b.to_ascii_uppercase() }), 2),
        (json!({ "session_id": "nothing" }), 0),
        (json!({ "status": "running" }), 3),
        (json!({ "status": "completed" }), 1),
        (json!({ "status": "failed" }), 1),
        (json!({ "status": "cancelled" }), 1),
        (json!({ "status": "timed_out" }), 1),
        (json!({ "status": "running", "session_id": b }), 0),
    ] {
        let said = world.call("ssh_commands", filter.clone()).await;
        assert_eq!(
            (&said.facts["count"], &said.facts["total"]),
            (&json!(expected), &json!(expected)),
            "{filter}"
        );
        assert_eq!(said.text.contains("NEXT:"), said.text.contains("[RUNNING]"), "{filter}");
    }
    let said = world.call("ssh_commands", json!({ "max_items": 2 })).await;
    assert!(said.text.contains("\nCOUNT: 2 (showing 2 of 7)\n"), "{}", said.text);
    assert_eq!((&said.facts["count"], &said.facts["total"]), (&json!(2), &json!(7)));
    assert!(said.text.contains("[TIMED_OUT]"), "{}", said.text);

    let owner = Owner::token("eve");
    let said = world.ask(Call { tool: "ssh_commands", owner, ..Call::default() }).await;
    assert_eq!(said.facts["total"], 0);
}

#[tokio::test(start_paused = true)]
async fn the_cap_of_lists_holds() {
    let host = ScriptedHost::new().on("long", Script::new());
    let world = World::with(host, |settings| (settings.list_default, settings.list_cap) = (1, 2));
    let session = world.session().await;
    for _ in 0..3 {
        world.started(&session, "long").await;
    }
    assert_eq!(world.call("ssh_commands", json!({})).await.facts["count"], 1);
    assert_eq!(world.call("ssh_commands", json!({ "max_items": 100 })).await.facts["count"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_long_command_is_short_in_the_text_and_whole_in_the_structure() {
    let world = World::new(ScriptedHost::new().on("echo", Script::exits(0)));
    let session = world.session().await;
    let command = format!("echo {}", "x".repeat(5000));
    world.started(&session, &command).await;
    let said = world.call("ssh_commands", json!({})).await;
    assert!(said.text.len() < 700, "{}", said.text.len());
    assert_eq!(said.facts["commands"][0]["command"], command);
}
