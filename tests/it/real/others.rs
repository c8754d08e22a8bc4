//! Servers that are not OpenSSH: the everyday work on each of them.

use std::path::Path;

use super::*;
use crate::sshd::other::{Kind, OtherSshd};

async fn connected(server: &OtherSshd, login: Value) -> (McpClient, String) {
    let client = McpClient::spawn(Era::MODERN, &binary("ssh-mcp-stdio"), &[], &[]).await;
    let mut call = json!({"address": server.addr().to_string()});
    call.as_object_mut().unwrap().extend(login.as_object().unwrap().clone());
    let answer = client.call("ssh_connect", call).await;
    assert!(!answer.is_error, "{}", answer.text);
    let session = field(&answer, "session_id");
    (client, session)
}

fn by_key(user: &str, key: &Path) -> Value {
    json!({"username": user, "key_path": key.to_str().unwrap()})
}

#[tokio::test]
async fn commands_run_on_other_servers_as_on_opensshs() {
    for kind in Kind::BOTH {
        let Some(server) = OtherSshd::start_or_skip(kind) else { return };
        let key = server.client_key(ClientKey::Ed25519);
        let (client, session) = connected(&server, by_key("tester", &key)).await;
        let run = async |arguments: Value| {
            let mut call = json!({"session_id": session, "wait": true});
            call.as_object_mut().unwrap().extend(arguments.as_object().unwrap().clone());
            let answer = client.call("ssh_exec", call).await;
            assert!(!answer.is_error, "{kind:?}: {}", answer.text);
            answer.structured
        };
        let said = run(json!({"command": "echo out; echo err >&2; exit 7"})).await;
        assert_eq!((&said["stdout"], &said["stderr"]), (&json!("out\n"), &json!("err\n")), "{kind:?} {said}");
        assert_eq!(said["exit_code"], 7, "{kind:?}");
        // What it reads and how it is called.
        let said =
            run(json!({"command": "cat; echo $COLOUR in $PWD", "env": {"COLOUR": "red"}, "cwd": "/tmp"}))
                .await;
        assert_eq!(said["stdout"], "red in /tmp\n", "{kind:?}");
        let said = run(json!({"command": "kill -TERM $$"})).await;
        assert_eq!(said["exit_signal"], "TERM", "{kind:?}: {said}");
        // More than any window, and to the byte.
        let said = run(json!({"command": "seq 400000; sleep 0"})).await;
        assert!(said["stdout"].as_str().unwrap().ends_with("\n400000\n"), "{kind:?}");

        let many: Vec<Value> =
            (0..20).map(|_| json!({"session_id": session, "command": "sleep 0.2; echo done"})).collect();
        let mut commands = Vec::new();
        for call in many {
            let answer = client.call("ssh_exec", call).await;
            assert!(!answer.is_error, "{kind:?}: {}", answer.text);
            commands.push(field(&answer, "command_id"));
        }
        for command in commands {
            let answer = client.call("ssh_exec_output", json!({"command_id": command, "wait": true})).await;
            assert_eq!(answer.structured["stdout"], "done\n", "{kind:?}: {}", answer.text);
        }

        let endless = client.call("ssh_exec", json!({"session_id": session, "command": "sleep 1000"})).await;
        let cancelled = json!({"command_id": field(&endless, "command_id")});
        let answer = client.call("ssh_exec_cancel", cancelled).await;
        assert!(!answer.is_error, "{kind:?}: {}", answer.text);
    }
}

#[tokio::test]
async fn shells_work_on_other_servers() {
    for kind in Kind::BOTH {
        let Some(server) = OtherSshd::start_or_skip(kind) else { return };
        let key = server.client_key(ClientKey::Ed25519);
        let (client, session) = connected(&server, by_key("tester", &key)).await;
        let shell = client.call("ssh_shell_open", json!({"session_id": session})).await;
        assert!(!shell.is_error, "{kind:?}: {}", shell.text);
        let shell = field(&shell, "shell_id");
        let write = json!({"shell_id": shell, "input": "x=4; echo $((x + 38))-here\n"});
        assert!(!client.call("ssh_shell_write", write).await.is_error, "{kind:?}");
        let wait = json!({"shell_id": shell, "patterns": ["42-here"], "timeout_secs": 20});
        let found = client.call("ssh_shell_wait_for", wait).await;
        assert_eq!(found.structured["status"], "matched", "{kind:?}: {}", found.text);
        assert!(!client.call("ssh_shell_close", json!({"shell_id": shell})).await.is_error, "{kind:?}");
    }
}

#[tokio::test]
async fn passwords_log_in_on_other_servers_and_strangers_do_not() {
    for kind in Kind::BOTH {
        let Some(server) = OtherSshd::start_or_skip(kind) else { return };
        let login = json!({"username": "tester", "password": server.password()});
        let (client, _) = connected(&server, login).await;
        let address = server.addr().to_string();
        let wrong =
            json!({"address": address, "username": "tester", "password": "wrong", "reuse": "force_new"});
        let stranger = server.client_key(ClientKey::Stranger);
        let mut unknown = by_key("tester", &stranger);
        unknown["address"] = address.into();
        unknown["reuse"] = "force_new".into();
        for call in [wrong, unknown] {
            let refused = client.call("ssh_connect", call).await;
            assert_eq!(refused.structured["code"], "AUTH_FAILED", "{kind:?}: {}", refused.text);
        }
    }
}

#[tokio::test]
async fn a_flood_of_banners_is_read_past() {
    let Some(server) = OtherSshd::start_or_skip(Kind::AsyncSsh) else { return };
    let key = server.client_key(ClientKey::Ed25519);
    // 7 MB of them before the login goes on.
    let (client, session) = connected(&server, by_key("banners", &key)).await;
    let call = json!({"session_id": session, "command": "echo in", "wait": true});
    let answer = client.call("ssh_exec", call).await;
    assert_eq!(answer.structured["stdout"], "in\n", "{}", answer.text);
    let status = std::fs::read_to_string(format!("/proc/{}/status", client.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 64 * 1024, "{peak} KiB at the most");
}

#[tokio::test]
async fn what_a_server_asks_besides_the_password_is_left_open() {
    let Some(server) = OtherSshd::start_or_skip(Kind::AsyncSsh) else { return };
    // It asks for the password and a colour in one round, and for nothing in the next.
    let login = json!({"username": "asked", "password": server.password()});
    let (client, session) = connected(&server, login).await;
    let call = json!({"session_id": session, "command": "echo in", "wait": true});
    assert_eq!(client.call("ssh_exec", call).await.structured["stdout"], "in\n");
}
