//! `ssh_shell_write` and `ssh_shell_press`.

use ssh_mcp_core::port::ssh::PtySize;
use ssh_mcp_testkit::host::Seen;

use super::*;

#[tokio::test(start_paused = true)]
async fn input_arrives_exactly_as_given() {
    for (arguments, expected) in [
        (json!({ "input": "ls\n" }), &b"ls\n"[..]),
        (json!({ "input": "no newline, ünïcödé \u{1b}[A" }), "no newline, ünïcödé \u{1b}[A".as_bytes()),
        (json!({ "input_base64": "AP+AfwM=" }), b"\x00\xff\x80\x7f\x03"),
        (json!({ "input_base64": "AP+AfwM" }), b"\x00\xff\x80\x7f\x03"),
    ] {
        let shell = Opened::on(Script::cat().ignoring_interrupt()).await;
        let written = shell.ok("ssh_shell_write", arguments.clone()).await;
        assert_eq!(written.header(), "SSH_SHELL_WRITE: OK");
        has_line(&written, &format!("BYTES_SENT: {}", expected.len()));
        assert_eq!(shell.rig.host.input(""), expected, "{arguments}");
        assert_eq!(written.facts.get("stdout"), None);
        assert_eq!(written.facts["running"], true);
        let hint = written.fact("hint");
        assert!(hint.contains("sub_open") && hint.contains("wait with sub_wait"), "{hint}");
        assert_eq!(
            written.facts["next"],
            json!([
                format!("sub_wait(uris=[\"shell://{}/output\"])", shell.id),
                format!("sub_open uri=shell://{}/output", shell.id),
                format!("resources/read shell://{}/output?cursor=auto", shell.id),
                format!("ssh_shell_wait_for(shell_id=\"{}\")", shell.id),
                format!("ssh_shell_read(shell_id=\"{}\")", shell.id),
            ])
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_size_comes_before_the_input() {
    let shell = Opened::on(Script::cat()).await;
    let size = |cols, rows| PtySize { cols, rows };
    shell.ok("ssh_shell_write", json!({ "input": "x", "cols": 100, "rows": 50 })).await;
    let only = shell.ok("ssh_shell_write", json!({ "input": "", "cols": 90 })).await;
    assert_eq!(only.facts["bytes_sent"], 0);
    shell.ok("ssh_shell_write", json!({ "rows": 10 })).await;
    let mut moved = Vec::new();
    for seen in shell.rig.host.seen() {
        if let Seen::Resized { size, .. } = &seen {
            moved.push(format!("{}x{}", size.cols, size.rows));
        }
        if let Seen::Input { bytes, .. } = &seen {
            moved.push(String::from_utf8_lossy(bytes).into_owned());
        }
    }
    assert_eq!(moved, ["100x50", "x", "90x50", "90x10"]);
    let entry = shell.rig.shared.engine().registries().shells.of_owner(&shell.rig.owner).remove(0);
    assert_eq!(entry.size(), size(90, 10));
}

#[tokio::test(start_paused = true)]
async fn input_that_cannot_be_sent_is_refused_without_repeating_it() {
    let shell = Opened::on(Script::cat()).await;
    for (arguments, reason) in [
        (json!({}), "input must not be empty"),
        (json!({ "input": "" }), "input must not be empty"),
        (json!({ "input_base64": "" }), "input must not be empty"),
        (json!({ "input": "secret", "input_base64": "c2VjcmV0" }), "input must not be given together"),
        (json!({ "input_base64": "secret!" }), "input_base64 must be base64; got a text"),
        (json!({ "input": 5 }), "input must be a text; got a number"),
        (json!({ "input": "x", "cols": 0 }), "cols must be an integer from 1 to 65535"),
        (json!({ "input": "x", "rows": 65_536 }), "rows must be an integer from 1 to 65535"),
        (json!({ "input": "x", "wait_secs": "1" }), "wait_secs must be a number"),
        (json!({ "input": "x", "max_output_bytes": 0 }), "max_output_bytes must be an integer"),
    ] {
        let failed = shell.fails("ssh_shell_write", arguments.clone()).await;
        assert_eq!(failed.fact("code"), "INVALID_ARGUMENT");
        assert!(failed.fact("reason").starts_with(reason), "{arguments}: {}", failed.text);
        assert!(!failed.text.contains("secret"), "{}", failed.text);
    }
    assert!(shell.rig.host.input("").is_empty());
    let unknown = shell.rig.fails("ssh_shell_write", json!({ "shell_id": "x", "input": "y" })).await;
    assert_eq!(unknown.fact("code"), "SHELL_NOT_FOUND");
    assert!(unknown.fact("detail").contains(&format!("closest matches: {}", shell.id)));
}

#[tokio::test(start_paused = true)]
async fn a_write_can_wait_until_the_output_pauses_and_drains_it() {
    let make = Script::new().out("compiling\r\n").after(SECOND / 4).out("done\r\n").exit(0);
    let shell = Opened::prompt(ScriptedHost::new().on("make", make)).await;
    let written = shell.ok("ssh_shell_write", json!({ "input": "make\n", "wait_secs": 10 })).await;
    assert_eq!(written.fact("stdout"), "$ make\r\ncompiling\r\ndone\r\n$ ");
    assert_eq!(block(&written).last(), Some(&"$ "));
    for line in
        ["CLEARED: true", "BYTES_RETURNED: 27", "BUFFER_SIZE_AT_SNAPSHOT: 27", "PENDING_OUTPUT_CHARS: 0"]
    {
        has_line(&written, line);
    }
    assert_eq!(written.facts["truncated"], false);
    assert_eq!(shell.unread().await, "");

    // The newest part is kept; what is passed over is said and can be read elsewhere.
    let cut = shell
        .ok("ssh_shell_write", json!({ "input": "make\n", "wait_secs": 10, "max_output_bytes": 8 }))
        .await;
    assert_eq!((cut.fact("stdout").as_str(), &cut.facts["truncated"]), ("done\r\n$ ", &json!(true)));
    assert!(cut.text.contains(" (partial, truncated: showing 8B of 25B) ---\n"), "{}", cut.text);
    let hint = format!(
        "17B of older output were passed over and count as drained; resources/read shell://{}/output?cursor=27 still \
         has them",
        shell.id
    );
    has_line(&cut, &format!("HINT: {hint}"));
    let (body, _) = shell.rig.read(&format!("shell://{}/output?cursor=27", shell.id)).unwrap();
    assert_eq!(body, "make\r\ncompiling\r\ndone\r\n$ ");
}

#[tokio::test(start_paused = true)]
async fn a_wait_without_output_ends_with_an_empty_block() {
    let shell = Opened::on(Script::new()).await;
    let began = tokio::time::Instant::now();
    let written = shell.ok("ssh_shell_write", json!({ "input": "x", "wait_secs": 1.5 })).await;
    assert_eq!(began.elapsed(), SECOND * 3 / 2);
    assert_eq!((written.fact("stdout"), written.facts["bytes_returned"].clone()), (String::new(), json!(0)));
    assert!(written.text.contains(" (partial, empty) ---"), "{}", written.text);
    // More than the cap is cut to it.
    let began = tokio::time::Instant::now();
    shell.ok("ssh_shell_write", json!({ "input": "x", "wait_secs": 1e300 })).await;
    assert_eq!(began.elapsed(), SECOND * 300);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_called_off_drains_nothing_and_the_input_has_gone() {
    let shell = Opened::on(Script::cat()).await;
    shell.called_off("ssh_shell_write", json!({ "input": "abc", "wait_secs": 60 }), SECOND / 10).await;
    assert_eq!(shell.rig.host.input(""), b"abc");
    assert_eq!(shell.unread().await, "abc");
}

#[tokio::test(start_paused = true)]
async fn a_wait_keeps_a_shell_that_releases_itself() {
    let arguments = json!({ "release_when_no_subs": true });
    let shell = Opened::with(ScriptedHost::new().on_shell(Script::new()), settings(), arguments).await;
    let written = shell.ok("ssh_shell_write", json!({ "input": "x", "wait_secs": 100 })).await;
    assert_eq!(written.facts["running"], true);
    pass(SECOND * 32).await;
    let read = shell.ok("ssh_shell_read", json!({})).await;
    assert_eq!(
        (read.fact("status").as_str(), read.fact("reason").as_str()),
        ("closed", "unsubscribe_grace_elapsed")
    );
}

#[tokio::test(start_paused = true)]
async fn the_input_that_ends_a_shell_shows_how_it_ended() {
    let shell = Opened::prompt(ScriptedHost::new()).await;
    let written = shell.ok("ssh_shell_write", json!({ "input": "exit\n", "wait_secs": 5 })).await;
    assert_eq!(written.fact("stdout"), "$ exit\r\n");
    for line in ["RUNNING: false", "EXIT: 0", "EXIT_REASON: clean-exit", "REASON: completed"] {
        has_line(&written, line);
    }
    assert_eq!((written.facts["exit_code"].clone(), written.facts.get("next")), (json!(0), None));

    for tool in ["ssh_shell_write", "ssh_shell_press"] {
        let more =
            if tool == "ssh_shell_write" { json!({ "input": "x" }) } else { json!({ "key": "enter" }) };
        let failed = shell.fails(tool, more).await;
        assert_eq!((failed.fact("code"), failed.fact("effect")), ("WRITE_FAILED".into(), "none".into()));
        let detail = failed.fact("detail");
        assert!(detail.contains("accepted=0") && detail.contains("reason=completed"), "{detail}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shell_that_takes_nothing_fails_after_five_seconds() {
    let shell = Opened::on(Script::new().not_reading()).await;
    let began = tokio::time::Instant::now();
    let failed = shell.fails("ssh_shell_write", json!({ "input": "abc" })).await;
    assert_eq!((began.elapsed(), failed.fact("code")), (SECOND * 5, "WRITE_FAILED".into()));
    assert!(failed.fact("detail").contains("accepted=3"), "{}", failed.text);
    assert_eq!((failed.fact("effect"), failed.fact("retry")), ("unknown".into(), "no".into()));
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_is_told_from_a_shell_that_has_ended() {
    let shell = Opened::on(Script::new().out("x").after(SECOND).lose_connection()).await;
    pass(SECOND * 2).await;
    let failed = shell.fails("ssh_shell_write", json!({ "input": "abc" })).await;
    assert_eq!((failed.fact("code"), failed.fact("effect")), ("TRANSPORT_ERROR".into(), "none".into()));
    let read = shell.ok("ssh_shell_read", json!({})).await;
    assert_eq!(
        (read.fact("exit_reason"), read.fact("reason")),
        ("ssh-connection-failed".into(), "connection_lost".into())
    );
    assert!(read.text.contains(" (partial) ---"), "{}", read.text);
}

#[tokio::test(start_paused = true)]
async fn keys_send_what_a_terminal_sends() {
    for (arguments, bytes, modifiers) in [
        (json!({ "key": "enter" }), &b"\r"[..], json!([])),
        (json!({ "key": "backspace", "repeat": 3 }), b"\x7f\x7f\x7f", json!([])),
        (json!({ "key": "ctrl_c" }), b"\x03", json!([])),
        (json!({ "key": "tab", "shift": true }), b"\x1b[Z", json!(["shift"])),
        (json!({ "key": "arrow_up", "shift": false, "repeat": 2 }), b"\x1b[A\x1b[A", json!([])),
        (
            json!({ "key": "arrow_right", "ctrl": true, "shift": true }),
            b"\x1b[1;6C",
            json!(["shift", "ctrl"]),
        ),
        (json!({ "key": "page_down", "alt": true }), b"\x1b[6;3~", json!(["alt"])),
        (json!({ "key": "f12" }), b"\x1b[24~", json!([])),
    ] {
        let shell = Opened::on(Script::new().ignoring_interrupt()).await;
        let pressed = shell.ok("ssh_shell_press", arguments.clone()).await;
        assert_eq!(pressed.header(), "SSH_SHELL_PRESS: OK");
        assert_eq!(shell.rig.host.input(""), bytes, "{arguments}");
        assert_eq!(pressed.facts["bytes_sent"], bytes.len());
        assert_eq!(pressed.facts["key"], arguments["key"]);
        assert_eq!(pressed.facts["repeat"], arguments["repeat"].as_u64().unwrap_or(1));
        assert_eq!(pressed.facts["modifiers"], modifiers);
        let words: Vec<&str> = modifiers.as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let line = pressed.text.lines().find(|line| line.starts_with("MODIFIERS: "));
        assert_eq!(line, (!words.is_empty()).then(|| format!("MODIFIERS: {}", words.join("+"))).as_deref());
        assert!(pressed.fact("hint").contains("sub_wait"));
        assert!(pressed.facts["next"][2].as_str().unwrap().starts_with("resources/read shell://"));
    }
}

#[tokio::test(start_paused = true)]
async fn keys_that_cannot_be_pressed_say_why() {
    let shell = Opened::on(Script::new()).await;
    for (arguments, code, reason) in [
        (
            json!({ "key": "enter", "shift": true }),
            "MODIFIER_NOT_ALLOWED",
            "enter takes no modifier; got shift",
        ),
        (
            json!({ "key": "tab", "shift": true, "ctrl": true }),
            "MODIFIER_NOT_ALLOWED",
            "tab takes shift only; got shift+ctrl",
        ),
        (
            json!({ "key": "enter", "repeat": 0 }),
            "INVALID_REPEAT",
            "repeat must be an integer from 1 to 64, written as a number; got the number 0",
        ),
        (
            json!({ "key": "enter", "repeat": 65 }),
            "INVALID_REPEAT",
            "repeat must be an integer from 1 to 64, written as a number; got the number 65",
        ),
        (
            json!({ "key": "enter", "repeat": 1_000_000 }),
            "INVALID_REPEAT",
            "repeat must be an integer from 1 to 64, written as a number; got the number 1000000",
        ),
    ] {
        let failed = shell.fails("ssh_shell_press", arguments).await;
        assert_eq!((failed.fact("code").as_str(), failed.fact("reason").as_str()), (code, reason));
    }
    let unknown = shell.fails("ssh_shell_press", json!({ "key": "any" })).await;
    assert_eq!(unknown.fact("code"), "INVALID_ARGUMENT");
    assert!(unknown.fact("reason").starts_with("key must be one of ctrl_a, ctrl_c"), "{}", unknown.text);
    assert!(shell.rig.host.input("").is_empty());
}
