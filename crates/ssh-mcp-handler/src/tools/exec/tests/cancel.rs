use ssh_mcp_core::port::ssh::Signal;
use ssh_mcp_testkit::host::Script;

use super::*;

/// A running command and what a cancel says of it.
async fn cancelled(script: Script, pty: bool) -> (World, Said) {
    let world = World::new(ScriptedHost::new().on("work", script));
    let session = world.session().await;
    let arguments = json!({ "session_id": session, "command": "work", "pty": pty });
    let command = world.call("ssh_exec", arguments).await.fact("command_id");
    tokio::time::sleep(SECOND).await;
    let said = world.call("ssh_exec_cancel", json!({ "command_id": command })).await;
    (world, said)
}

#[tokio::test(start_paused = true)]
async fn what_came_is_shown_and_what_ended_it() {
    let (world, said) = cancelled(Script::new().out("so far\n"), false).await;
    assert_eq!(
        said.plain(),
        "SSH_EXEC_CANCEL: CANCELLED\nCOMMAND_ID: command_id\nEXIT_SIGNAL: TERM\nENDED_BY: signal\n\
         --- stdout [nonce] (partial) ---\nso far\n--- stderr [nonce] (partial, empty) ---"
    );
    assert_eq!(said.facts["stdout_truncated"], false);
    assert!(said.facts.get("next").is_none() && said.facts.get("reason").is_none());
    assert_eq!(world.host.running("work"), 0);
}

#[tokio::test(start_paused = true)]
async fn the_rung_that_worked_is_named() {
    let ended_by = |said: &Said| said.fact("ended_by");
    let (_, said) = cancelled(Script::new(), true).await;
    assert_eq!(ended_by(&said), "interrupt");
    let (_, said) = cancelled(Script::new().ignoring(&[Signal::Term]), false).await;
    assert_eq!((ended_by(&said), said.fact("exit_signal")), ("kill".to_owned(), "KILL".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn what_nothing_was_seen_to_end_may_still_run() {
    let immortal = || Script::new().unreached_by_signals().ignoring(&[Signal::Term, Signal::Kill]);
    let (world, said) = cancelled(immortal(), false).await;
    assert_eq!((said.status(), said.fact("ended_by").as_str()), ("cancelled", "close"));
    let warning = &said.facts["warnings"][0];
    assert_eq!(warning["code"], "MAY_STILL_RUN");
    let msg = warning["msg"].as_str().unwrap();
    assert!(msg.contains("pid 40") && msg.contains("kill -KILL -- -40"), "{msg}");
    let line = format!("\nWARN: MAY_STILL_RUN {} {msg}", warning["resource"].as_str().unwrap());
    assert!(said.text.ends_with(&line), "{}", said.text);
    assert_eq!(world.host.running("work"), 1);

    let world = World::new(ScriptedHost::new().with_foreign_shell().on("work", immortal()));
    let session = world.session().await;
    let arguments = json!({ "session_id": session, "command": "work", "wait": true, "timeout_secs": 1 });
    let said = world.call("ssh_exec", arguments).await;
    assert_eq!(said.status(), "timeout");
    assert!(
        said.text.contains("\nWARN: MAY_STILL_RUN ") && said.text.contains("its pid is not known"),
        "{}",
        said.text
    );
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_left_as_it_is() {
    let world = World::new(
        ScriptedHost::new()
            .on("work", Script::exits(1))
            .on("slow", Script::new())
            .on("no", Script::new().refusing("exec")),
    );
    let session = world.session().await;
    for (command, limit, word) in [("work", 9, "completed"), ("slow", 1, "timeout"), ("no", 9, "failed")] {
        let arguments =
            json!({ "session_id": session, "command": command, "wait": true, "timeout_secs": limit });
        let id = world.call("ssh_exec", arguments).await.fact("command_id");
        let said = world.call("ssh_exec_cancel", json!({ "command_id": id })).await;
        let shown = word.to_ascii_uppercase();
        assert_eq!(said.plain(), format!("SSH_EXEC_CANCEL: NOOP\nCOMMAND_ID: command_id\nREASON: {shown}"));
        assert_eq!(
            said.facts,
            json!({ "tool": "ssh_exec_cancel", "status": "noop", "command_id": id, "reason": word })
        );
    }
    let said = world.call("ssh_exec_cancel", json!({ "command_id": "?" })).await;
    assert_eq!(said.fact("code"), "COMMAND_NOT_FOUND");
}

#[tokio::test(start_paused = true)]
async fn of_two_cancels_one_ends_it_and_both_answer_when_it_is_over() {
    let world = World::new(ScriptedHost::new().on("work", Script::new().ignoring(&[Signal::Term])));
    let session = world.session().await;
    let command = world.started(&session, "work").await;
    let ask = || world.call("ssh_exec_cancel", json!({ "command_id": command }));
    let (one, two) = tokio::join!(ask(), ask());
    let mut words = [one.status().to_owned(), two.status().to_owned()];
    words.sort_unstable();
    assert_eq!(words, ["cancelled", "noop"]);
    let noop = if one.status() == "noop" { one } else { two };
    assert_eq!(noop.fact("reason"), "cancelled");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_is_called_off_still_ends_the_command() {
    let world = World::new(ScriptedHost::new().on("work", Script::new().ignoring(&[Signal::Term])));
    let session = world.session().await;
    let command = world.started(&session, "work").await;
    tokio::time::sleep(SECOND).await;
    let off = CancellationToken::new();
    let arguments = json!({ "command_id": command });
    let call =
        world.ask(Call { tool: "ssh_exec_cancel", arguments, cancelled: off.clone(), ..Call::default() });
    assert!(meanwhile(call, async { off.cancel() }).await.is_error);
    let said = world.call("ssh_exec_output", json!({ "command_id": command, "wait": true })).await;
    assert_eq!((said.status(), said.fact("ended_by").as_str()), ("cancelled", "kill"));
}

#[tokio::test(start_paused = true)]
async fn the_output_of_a_cancel_has_its_budget() {
    let world = World::new(ScriptedHost::new().on("work", Script::new().out("0123456789")));
    let session = world.session().await;
    let command = world.started(&session, "work").await;
    tokio::time::sleep(SECOND).await;
    let said = world.call("ssh_exec_cancel", json!({ "command_id": command, "max_output_bytes": 4 })).await;
    assert_eq!((said.fact("stdout").as_str(), &said.facts["stdout_truncated"]), ("6789", &json!(true)));
    assert!(said.text.contains("] (partial, truncated: showing 4B of 10B) ---\n6789"), "{}", said.text);
}
