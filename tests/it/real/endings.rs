//! How commands end, as an ordinary user and as root, with and without a terminal.

use std::time::Duration;

use super::*;
use crate::sshd::{Proxy, processes};

/// After the answer no process of the group lives for longer than this.
const GONE: Duration = Duration::from_secs(5);

/// Command lines whose processes resist in different ways; `MARK` stands for a number no other process has.
const STUBBORN: &[&str] = &[
    "sh -c 'sleep MARK | cat'",
    "trap '' TERM; sleep MARK",
    "sleep MARK & wait",
    "trap '' TERM HUP INT; (sleep MARK) & wait; sleep MARK",
];

fn mark(n: usize) -> String {
    // An argument of `sleep` that can be searched for: seconds, and a fraction of our own.
    format!("300.{}{n:02}", std::process::id())
}

async fn no_process_of(mark: &str) {
    let gone = {
        let mark = mark.to_owned();
        tokio::task::spawn_blocking(move || {
            processes::wait_until(GONE, || processes::processes_matching(&mark).is_empty())
        })
    };
    assert!(gone.await.unwrap(), "still there: {:?}", processes::processes_matching(mark));
}

#[tokio::test]
async fn a_cancel_ends_every_process_of_the_command() {
    for user in User::BOTH {
        let Some(stage) = Stage::set(Options::default(), user).await else { return };
        for (n, command) in STUBBORN.iter().enumerate() {
            for pty in [false, true] {
                let mark = mark(n * 10 + usize::from(pty) + if user == User::Root { 50 } else { 0 });
                let command = command.replace("MARK", &mark);
                let id = stage.start(json!({"command": command, "pty": pty})).await;
                let seen = mark.clone();
                let started = move || !processes::processes_matching(&seen).is_empty();
                assert!(
                    tokio::task::spawn_blocking(move || processes::wait_until(GONE, started)).await.unwrap()
                );
                let answer = stage.client.call("ssh_exec_cancel", json!({"command_id": id})).await;
                assert_eq!(answer.structured["status"], "cancelled", "{}", answer.text);
                let by = answer.structured["ended_by"].as_str().unwrap_or_default();
                assert!(
                    ["interrupt", "signal", "kill"].contains(&by),
                    "{user:?} pty={pty} {command}: {}",
                    answer.text
                );
                no_process_of(&mark).await;
                let again = stage.client.call("ssh_exec_cancel", json!({"command_id": id})).await;
                assert_eq!(again.structured["status"], "noop", "{}", again.text);
            }
        }
    }
}

#[tokio::test]
async fn a_time_limit_keeps_what_was_printed() {
    for user in User::BOTH {
        let Some(stage) = Stage::set(Options::default(), user).await else { return };
        let mark = mark(if user == User::Root { 98 } else { 99 });
        let id = stage
            .start(json!({"command": format!("echo before; sleep {mark}; echo after"), "timeout_secs": 1}))
            .await;
        let answer = stage.ended(&id).await;
        assert_eq!(answer.structured["status"], "timeout", "{}", answer.text);
        assert_eq!(answer.structured["timed_out"], true);
        assert_eq!(answer.structured["stdout"].as_str().unwrap().trim(), "before");
        no_process_of(&mark).await;
    }
}

#[tokio::test]
async fn a_wait_that_is_cancelled_or_runs_out_leaves_the_command_alone() {
    let Some(stage) = Stage::set(Options::default(), User::Tester).await else { return };
    let id = stage.start(json!({"command": "read -t 3 line < <(sleep 2; echo x); echo done"})).await;
    let wait = json!({"name": "ssh_exec_output", "arguments": {"command_id": id, "wait": true}});
    let pending = stage.client.begin("tools/call", wait).await;
    stage.client.notify("notifications/cancelled", json!({"requestId": pending.id()})).await;
    let patience = json!({"command_id": id, "wait": true, "wait_timeout_secs": 1});
    let running = stage.client.call("ssh_exec_output", patience).await;
    assert_eq!(running.structured["status"], "running", "{}", running.text);
    let answer = stage.ended(&id).await;
    assert_eq!(answer.structured["stdout"].as_str().unwrap().trim(), "done", "{}", answer.text);
}

#[tokio::test]
async fn a_background_child_does_not_hold_the_answer() {
    for user in User::BOTH {
        let Some(stage) = Stage::set(Options::default(), user).await else { return };
        let answer = stage.run("(sleep 1; echo late) & echo started").await;
        assert_eq!(answer.structured["status"], "completed");
        assert_eq!(answer.structured["exit_code"], 0);
        assert!(answer.text.contains("WARN: OUTPUT_STILL_OPEN"), "{}", answer.text);
        let command = field(&answer, "command_id");
        // Later bytes still reach the history.
        let mut seen = String::new();
        while !seen.contains("late") {
            let uri = format!("command://{command}/output?stream=merged");
            seen = stage.client.read_resource(&uri).await.unwrap()[0]["text"].as_str().unwrap().to_owned();
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_command_that_reads_its_input_meets_the_end() {
    let Some(stage) = Stage::set(Options::default(), User::Tester).await else { return };
    assert_eq!(stage.run("cat; echo end").await.structured["stdout"], "end\n");
    let fed = stage.exec(json!({"command": "cat; echo end", "input": "a\nb\n", "wait": true})).await;
    assert_eq!(fed.structured["stdout"], "a\nb\nend\n", "{}", fed.text);
    let on_terminal =
        stage.exec(json!({"command": "cat >/dev/null; echo end", "pty": true, "wait": true})).await;
    assert!(on_terminal.structured["stdout"].as_str().unwrap().contains("end"), "{}", on_terminal.text);
}

#[tokio::test]
async fn a_server_that_stops_fails_its_commands_and_says_so() {
    let Some(mut stage) = Stage::set(Options::default(), User::Tester).await else { return };
    let id = stage.start(json!({"command": "echo before; sleep 60"})).await;
    let uri = format!("command://{id}/output?stream=merged");
    while stage.client.read_resource(&uri).await.unwrap()[0]["text"] != "before\n" {
        tokio::task::yield_now().await;
    }
    stage.server.stop();
    let answer = stage.ended(&id).await;
    assert_eq!(answer.structured["status"], "failed", "{}", answer.text);
    assert!(answer.text.contains("COMMAND_FAILED"), "{}", answer.text);
    assert_eq!(answer.structured["stdout"].as_str().unwrap().trim(), "before");
    let next = stage.exec(json!({"command": "true"})).await;
    assert_eq!(next.structured["code"], "SESSION_NOT_FOUND", "{}", next.text);
}

#[tokio::test]
async fn a_network_that_swallows_everything_is_found_out_by_keepalives() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let proxy = Proxy::start(server.addr(), Duration::ZERO);
    let env = [("SSH_KEEPALIVE_INTERVAL_S", "5"), ("SSH_KEEPALIVE_MAX", "2")];
    let client = McpClient::spawn(Era::LEGACY_2025_11, &binary("ssh-mcp-stdio"), &[], &env).await;
    let mut call = login(&server, User::Tester, ClientKey::Ed25519);
    call["address"] = proxy.addr().to_string().into();
    let session = field(&client.call("ssh_connect", call).await, "session_id");
    let start = json!({"session_id": session, "command": "sleep 120"});
    let command = field(&client.call("ssh_exec", start).await, "command_id");
    proxy.freeze();
    let wait = json!({"command_id": command, "wait": true, "wait_timeout_secs": 60});
    let answer = client.call("ssh_exec_output", wait).await;
    assert_eq!(answer.structured["status"], "failed", "{}", answer.text);
}

#[tokio::test]
async fn the_end_of_input_leaves_nothing_behind() {
    for user in User::BOTH {
        let Some(stage) = Stage::set(Options::default(), user).await else { return };
        let mark = mark(if user == User::Root { 96 } else { 97 });
        stage.start(json!({"command": format!("sleep {mark}")})).await;
        let Stage { server: _server, client, .. } = stage;
        let status = client.close().await;
        assert_eq!(status.code(), Some(0));
        no_process_of(&mark).await;
    }
}
