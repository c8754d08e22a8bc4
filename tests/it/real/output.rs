//! What commands print, much of it and at once.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::*;

#[tokio::test]
async fn both_streams_the_status_and_the_signal_arrive() {
    for era in Era::BOTH {
        let Some(stage) = Stage::set_in(era, Options::default(), User::Tester, &[]).await else { return };
        let answer = stage.run("printf out; printf err >&2; exit 3").await;
        let both = (&answer.structured["stdout"], &answer.structured["stderr"]);
        assert_eq!(both, (&json!("out"), &json!("err")), "{}", answer.text);
        assert_eq!(answer.structured["exit_code"], 3);
        let killed = stage.run("kill -9 $$").await;
        assert_eq!(killed.structured["exit_signal"], "KILL", "{}", killed.text);
        assert!(killed.structured.get("exit_code").is_none());
    }
}

#[tokio::test]
async fn the_line_that_tells_the_process_group_is_never_seen() {
    for user in User::BOTH {
        let Some(stage) = Stage::set(Options::default(), user).await else { return };
        for n in 0..5 {
            for pty in [false, true] {
                let answer =
                    stage.exec(json!({"command": "echo out; echo err >&2", "pty": pty, "wait": true})).await;
                let all = format!("{}{}", answer.structured["stdout"], answer.structured["stderr"]);
                assert!(!all.contains("ssh-mcp-"), "{n}: {all}");
                let expected = if pty { ("out\r\nerr\r\n", "") } else { ("out\n", "err\n") };
                assert_eq!(answer.structured["stdout"], expected.0, "{}", answer.text);
                assert_eq!(answer.structured["stderr"], expected.1);
            }
        }
    }
}

#[tokio::test]
async fn binary_output_is_exact_by_base64() {
    let Some(stage) = Stage::set(Options::default(), User::Tester).await else { return };
    let answer = stage.run(r"i=0; while [ $i -lt 256 ]; do printf \\$(printf %o $i); i=$((i+1)); done").await;
    let uri = format!("command://{}/output?encoding=base64&stream=stdout", field(&answer, "command_id"));
    let blob = stage.client.read_resource(&uri).await.unwrap()[0]["blob"].as_str().unwrap().to_owned();
    assert_eq!(BASE64_STANDARD.decode(blob).unwrap(), (0..=255).collect::<Vec<u8>>());
}

#[tokio::test]
async fn a_history_is_bounded_and_says_what_it_dropped() {
    let Some(stage) = Stage::set(Options::default(), User::Tester).await else { return };
    let megabytes = 200_u64;
    let answer =
        stage.run(&format!("head -c {}000000 /dev/zero | tr '\\0' x; echo; echo the end", megabytes)).await;
    assert_eq!(answer.structured["exit_code"], 0, "{}", answer.text.get(..300).unwrap_or_default());
    assert_eq!(answer.structured["stdout_truncated"], true);
    let shown = answer.structured["stdout"].as_str().unwrap();
    assert!(shown.ends_with("the end\n") || shown.ends_with("the end"), "the newest part is kept");
    assert!(shown.len() <= 16_384);
    let uri =
        format!("command://{}/output?cursor=1&stream=merged&max_bytes=100", field(&answer, "command_id"));
    let content = &stage.client.read_resource(&uri).await.unwrap()[0];
    let meta = &content["_meta"];
    let total = megabytes * 1_000_000 + "\nthe end\n".len() as u64;
    let base = meta["base"].as_u64().unwrap();
    assert_eq!(base + meta["buffer_size"].as_u64().unwrap(), total, "{meta}");
    assert!(meta["buffer_size"].as_u64().unwrap() <= 10 << 20, "{meta}");
    assert_eq!(meta["truncated_since_last_read"].as_u64().unwrap(), base - 1);
}

#[tokio::test]
async fn reading_by_cursor_gives_every_byte_once() {
    let Some(stage) = Stage::set(Options::default(), User::Tester).await else { return };
    let id = stage.start(json!({"command": "seq 1 20000"})).await;
    stage.ended(&id).await;
    let mut all = String::new();
    loop {
        let uri = format!("command://{id}/output?cursor=auto&stream=stdout&max_bytes=10000");
        let content = &stage.client.read_resource(&uri).await.unwrap()[0];
        all.push_str(content["text"].as_str().unwrap());
        if content["_meta"]["more"] != true {
            break;
        }
    }
    let expected: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
    assert!(all == expected, "{} bytes instead of {}", all.len(), expected.len());
}

#[tokio::test]
async fn a_hundred_commands_run_at_once_against_a_stock_server() {
    for user in User::BOTH {
        let Some(stage) = Stage::set(Options::default(), user).await else { return };
        let mut ids = Vec::new();
        for n in 0..100 {
            ids.push(stage.start(json!({"command": format!("sleep 3; echo {n}")})).await);
        }
        let refused = stage.exec(json!({"command": "true"})).await;
        assert_eq!(refused.structured["code"], "MAX_COMMANDS_EXCEEDED", "{}", refused.text);
        for (n, id) in ids.iter().enumerate() {
            let answer = stage.ended(id).await;
            assert_eq!(answer.structured["stdout"], format!("{n}\n"), "{user:?} {}", answer.text);
        }
    }
}

#[tokio::test]
async fn five_hundred_commands_in_a_row_with_nine_channels_held() {
    let Some(stage) = Stage::set(Options::default(), User::Tester).await else { return };
    for _ in 0..9 {
        stage.start(json!({"command": "sleep 300", "timeout_secs": 0})).await;
    }
    for n in 0..500 {
        let answer = stage.run(&format!("echo {n}")).await;
        assert_eq!(answer.structured["stdout"], format!("{n}\n"), "{}", answer.text);
    }
}

#[tokio::test]
async fn ten_shells_and_no_eleventh() {
    for user in User::BOTH {
        let Some(stage) = Stage::set(Options::default(), user).await else { return };
        for _ in 0..10 {
            let opened = stage.client.call("ssh_shell_open", json!({"session_id": stage.session})).await;
            assert!(!opened.is_error, "{}", opened.text);
        }
        let refused = stage.client.call("ssh_shell_open", json!({"session_id": stage.session})).await;
        assert_eq!(refused.structured["code"], "MAX_SHELLS_EXCEEDED", "{}", refused.text);
        // Commands go through a further connection.
        assert_eq!(stage.run("echo still").await.structured["stdout"], "still\n");
    }
}

#[tokio::test]
async fn directory_variables_and_shell_of_a_command() {
    let Some(stage) = Stage::set(Options::default(), User::Tester).await else { return };
    let call = json!({"command": "pwd; echo \"$A|$B\"; echo $0", "cwd": "/usr/lib", "shell": "bash",
        "env": {"A": "it's \"q\" $HOME", "B": "two\nlines"}, "wait": true});
    let answer = stage.exec(call).await;
    assert_eq!(
        answer.structured["stdout"], "/usr/lib\nit's \"q\" $HOME|two\nlines\nbash\n",
        "{}",
        answer.text
    );
    let missing = stage.exec(json!({"command": "echo ran", "cwd": "/does/not/exist", "wait": true})).await;
    assert_eq!(missing.structured["exit_code"], 1, "{}", missing.text);
    assert_eq!(missing.structured["stdout"], "");
    let home = stage.exec(json!({"command": "pwd", "cwd": "~", "wait": true})).await;
    assert_eq!(
        home.structured["stdout"].as_str().unwrap().trim(),
        stage.server.home(User::Tester).to_str().unwrap()
    );
}

#[tokio::test]
async fn one_call_runs_a_command_and_leaves_no_session() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let client = McpClient::spawn(Era::MODERN, &binary("ssh-mcp-stdio"), &[], &[]).await;
    let mut call = login(&server, User::Tester, ClientKey::Ed25519);
    call["command"] = "echo hi; exit 4".into();
    let answer = client.call("ssh_run", call.clone()).await;
    assert_eq!(answer.structured["status"], "completed", "{}", answer.text);
    assert_eq!(
        (&answer.structured["exit_code"], &answer.structured["disconnected"]),
        (&json!(4), &json!(true))
    );
    assert!(server.wait_for_log("Disconnected from user tester", Duration::from_secs(10)));

    call["command"] = "echo before; sleep 100".into();
    call["timeout_secs"] = 1.into();
    let limited = client.call("ssh_run", call).await;
    assert_eq!(limited.structured["status"], "timeout", "{}", limited.text);
    assert_eq!(limited.structured["stdout"], "before\n");
}

#[tokio::test]
async fn a_batch_stops_at_the_first_failure() {
    let Some(stage) = Stage::set(Options::default(), User::Tester).await else { return };
    let batch = json!({"session_id": stage.session, "commands": ["echo one", "false", "echo three"]});
    let answer = stage.client.call("ssh_exec_batch", batch).await;
    assert_eq!(answer.structured["status"], "halted", "{}", answer.text);
    let results = answer.structured["results"].as_array().unwrap();
    let statuses: Vec<_> = results.iter().map(|result| result["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["completed", "failed", "skipped"]);
}

#[tokio::test]
async fn a_login_shell_that_is_no_posix_shell_gets_the_command_as_it_is() {
    let script = tempfile::tempdir().unwrap();
    let shell = script.path().join("odd-shell");
    std::fs::write(&shell, "#!/bin/sh\n# Called as `odd-shell -c COMMAND`: shows it instead of running it.\nprintf 'odd:%s\\n' \"$2\"\n")
        .unwrap();
    std::os::unix::fs::chown(script.path(), None, None).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&shell, mode).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(script.path(), mode).unwrap();
    let options = Options { login_shell: shell, ..Options::default() };
    let Some(stage) = Stage::set(options, User::Tester).await else { return };
    for _ in 0..3 {
        assert_eq!(stage.run("echo hi").await.structured["stdout"], "odd:echo hi\n");
    }
}
