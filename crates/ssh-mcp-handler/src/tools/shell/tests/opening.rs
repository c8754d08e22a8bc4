//! `ssh_shell_open`.

use ssh_mcp_core::port::ssh::{Pty, PtySize, Start};
use ssh_mcp_testkit::host::Seen;

use super::*;

fn starts(rig: &Rig) -> Vec<Start> {
    let mut starts = Vec::new();
    for seen in rig.host.seen() {
        if let Seen::Started { start, .. } = seen {
            starts.push(start);
        }
    }
    starts
}

#[tokio::test(start_paused = true)]
async fn a_new_shell_says_what_it_is_and_what_it_printed_first() {
    let host = ScriptedHost::new().on_shell(Script::shell("Welcome\r\nann$ "));
    let arguments = json!({ "term": "vt100", "cols": 132, "rows": 43, "name": "work" });
    let shell = Opened::with(host, settings(), arguments).await;
    let answered = &shell.opened;
    assert_eq!(answered.header(), "SSH_SHELL_OPEN: OK");
    for line in [
        &format!("SHELL_ID: {}", shell.id),
        &format!("SESSION_ID: {}", shell.session),
        "TERM: vt100 132x43",
        "CREATED: true",
        "REUSED: false",
        "TARGET: ann@example.org:22",
        "NAME: work",
        "RUNNING: true",
        "UPTIME_SECONDS: 0",
        "IDLE_SECONDS: 0",
        "PENDING_OUTPUT_CHARS: 14",
        "AUTO_CLOSE: false",
        "INITIAL_BUFFER: Welcome\\r\\nann$ ",
    ] {
        has_line(answered, line);
    }
    assert_eq!(answered.facts["initial_buffer"], "Welcome\r\nann$ ");
    for absent in ["agent_id", "matched_by", "exit_code", "signal", "exit_reason", "reason"] {
        assert_eq!(answered.facts.get(absent), None);
    }
    assert!(answered.fact("hint").contains(&format!("shell://{}/output", shell.id)));
    assert_eq!(answered.facts["next"][2], json!(format!("ssh_shell_write(shell_id=\"{}\")", shell.id)));
    let pty = Pty { term: "vt100".into(), size: PtySize { cols: 132, rows: 43 } };
    assert_eq!(starts(&shell.rig), [Start::Shell { pty }]);
    // It was a look: the first read gives it again.
    assert_eq!(shell.unread().await, "Welcome\r\nann$ ");
}

#[tokio::test(start_paused = true)]
async fn directory_variables_and_program_go_into_the_command_line() {
    let host = ScriptedHost::new().on("exec", Script::shell("% "));
    let arguments = json!({ "cwd": "~/src", "env": { "B": "it's", "A": "1" }, "shell": "zsh" });
    let shell = Opened::with(host, settings(), arguments).await;
    let Some(Start::Exec { command, pty }) = starts(&shell.rig).pop() else { panic!("no exec") };
    assert_eq!(command, r#"cd -- "$HOME"'/src' || exit 1; export A='1'; export B='it'\''s'; exec 'zsh' -i"#);
    assert_eq!(pty, Some(Pty { term: "xterm".into(), size: PtySize { cols: 80, rows: 24 } }));
}

#[tokio::test(start_paused = true)]
async fn the_first_output_is_a_look_of_a_moment_and_keeps_the_head() {
    let long = format!("{}€ and more", "x".repeat(4095));
    let shell = Opened::on(Script::new().out(long.clone())).await;
    assert_eq!(shell.opened.fact("initial_buffer"), "x".repeat(4095));

    let late = || {
        Script::new().after(SECOND).out("first ").after(SECOND / 5).out("second").after(SECOND).out("third")
    };
    let shell = Opened::on(late()).await;
    assert_eq!(shell.opened.facts.get("initial_buffer"), None);
    let shell =
        Opened::with(ScriptedHost::new().on_shell(late()), settings(), json!({ "wait_secs": 5 })).await;
    assert_eq!(shell.opened.fact("initial_buffer"), "first second");
    let shell =
        Opened::with(ScriptedHost::new().on_shell(late()), settings(), json!({ "wait_secs": 0.5 })).await;
    assert_eq!(shell.opened.facts.get("initial_buffer"), None);

    let settings = Settings { shell_peek: None, ..settings() };
    let shell = Opened::with(ScriptedHost::new(), settings, json!({})).await;
    assert_eq!(shell.opened.facts.get("initial_buffer"), None);
}

#[tokio::test(start_paused = true)]
async fn a_named_shell_is_found_again_or_stands_in_the_way() {
    let shell = Opened::with(ScriptedHost::new(), settings(), json!({ "name": "work" })).await;
    let rig = &shell.rig;
    let open = |more| join(json!({ "session_id": shell.session }), more);

    let taken = rig.fails("ssh_shell_open", open(json!({ "name": "work" }))).await;
    assert_eq!((taken.fact("code"), taken.fact("shell_id")), ("NAME_IN_USE".into(), shell.id.clone()));
    assert!(taken.fact("detail").contains(&format!("shell_id={}", shell.id)));

    // From another session to the same place, with a terminal of its own, which is not looked at.
    let elsewhere = rig.session().await;
    let asked = json!({ "session_id": elsewhere, "name": "work", "ensure": true, "cols": 10, "cwd": "/tmp" });
    let again = rig.ok("ssh_shell_open", asked).await;
    assert_eq!(again.header(), "SSH_SHELL_OPEN: REUSED");
    assert_eq!((again.fact("shell_id"), again.fact("session_id")), (shell.id.clone(), shell.session.clone()));
    has_line(&again, "TERM: xterm 80x24");
    has_line(&again, "MATCHED_BY: name");
    assert_eq!((&again.facts["created"], &again.facts["reused"]), (&json!(false), &json!(true)));
    assert_eq!(again.facts.get("initial_buffer"), None);
    assert_eq!(again.facts["pending_output_chars"], 2);

    let other = rig.ok("ssh_shell_open", open(json!({ "name": "logs", "ensure": true }))).await;
    assert_eq!((other.header(), other.fact("name")), ("SSH_SHELL_OPEN: OK", "logs".into()));
    let newest = rig.ok("ssh_shell_open", open(json!({ "ensure": true }))).await;
    assert_eq!(
        (newest.fact("shell_id"), newest.fact("matched_by")),
        (other.fact("shell_id"), "target".into())
    );

    // A name is free again when its shell has ended.
    shell.ok("ssh_shell_close", json!({})).await;
    let fresh = rig.ok("ssh_shell_open", open(json!({ "name": "work", "ensure": true }))).await;
    assert_eq!(fresh.facts["created"], true);
    assert_eq!(starts(rig).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn limits_and_refusals_have_their_codes() {
    let settings = Settings { max_shells_per_session: 1, ..settings() };
    let shell = Opened::with(ScriptedHost::new(), settings, json!({})).await;
    let open = json!({ "session_id": shell.session });
    let full = shell.rig.fails("ssh_shell_open", open).await;
    assert_eq!(full.fact("code"), "MAX_SHELLS_EXCEEDED");
    assert!(full.fact("detail").contains("limit=1"));

    let unknown = shell.rig.fails("ssh_shell_open", json!({ "session_id": "nonsense" })).await;
    assert_eq!(unknown.fact("code"), "SESSION_NOT_FOUND");
    assert!(unknown.fact("detail").contains(&format!("closest matches: {}", shell.session)));

    let rig = Rig::with(
        ScriptedHost::new().on_shell(Script::new().refusing("pty-req")),
        crate::tests::rig::settings(),
    );
    let open = json!({ "session_id": rig.session().await });
    let refused = rig.fails("ssh_shell_open", open.clone()).await;
    assert_eq!(refused.fact("code"), "CHANNEL_FAILED");
    assert!(refused.fact("detail").contains("effect=none"));
    rig.host.lose_connections("cable cut");
    let lost = rig.fails("ssh_shell_open", open).await;
    assert_eq!(
        lost.facts["category"],
        if lost.fact("code") == "SESSION_NOT_FOUND" { "RESOURCE" } else { "TRANSPORT" }
    );
}

#[tokio::test(start_paused = true)]
async fn values_that_more_than_the_schema_refuses_name_field_rule_and_value() {
    let rig = Rig::new();
    let session = rig.session().await;
    let reason = async |field: &str, value: Value| {
        let arguments = join(json!({ "session_id": session }), json!({ field: value }));
        let failed = rig.fails("ssh_shell_open", arguments).await;
        assert_eq!(failed.fact("code"), "INVALID_ARGUMENT");
        failed.fact("reason")
    };
    for size in ["1k", "2g", "10x", "-1m", "", "m"] {
        assert_eq!(
            reason("max_buffer_size", json!(size)).await,
            format!(
                "max_buffer_size must be a size from 4k to 1g, such as 512k or 10m; got the text {size:?}"
            )
        );
    }
    let term = "term must be the name of a terminal type, without spaces; got the text \"a b\"";
    assert_eq!(reason("term", json!("a b")).await, term);
    assert_eq!(
        reason("env", json!({ "1A": "secret" })).await,
        "a name in env must be letters, digits and underscores, and not begin with a digit; got \"1A\""
    );
    assert!(reason("cwd", json!("a\u{0}")).await.starts_with("cwd must be a text without NUL"));
    assert_eq!(
        reason("wait_secs", json!(-0.5)).await,
        "wait_secs must be a number from 0; got the number -0.5"
    );
    assert!(starts(&rig).is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_history_holds_what_max_buffer_size_says() {
    let script = || Script::new().out("x".repeat(6000)).out("end");
    for (size, held) in [("4k", 4096), ("4KB", 4096), ("5_000", 5000), ("1g", 6003)] {
        let host = ScriptedHost::new().on_shell(script());
        let shell = Opened::with(host, settings(), json!({ "max_buffer_size": size })).await;
        let read = shell.ok("ssh_shell_read", json!({ "from": "head" })).await;
        assert_eq!(read.facts["bytes_returned"], held, "{size}");
        let lost = (held < 6003).then(|| json!(6003 - held));
        assert_eq!(read.facts.get("truncated_since_last_read"), lost.as_ref(), "{size}");
        assert!(read.fact("stdout").ends_with("end"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_unused_shell_is_closed_after_its_own_time_or_never() {
    for (ttl, after, expected) in [
        (json!({ "inactivity_ttl": 5 }), 11, Some("inactivity_ttl_fired")),
        (json!({ "inactivity_ttl": 0 }), 100_000, None),
        (json!({ "inactivity_ttl": u64::MAX }), 100_000, None),
        (json!({}), 606, Some("inactivity_ttl_fired")),
        (json!({}), 595, None),
        (json!({ "release_when_no_subs": true }), 32, Some("never_observed")),
    ] {
        let shell = Opened::with(ScriptedHost::new(), settings(), ttl.clone()).await;
        // The session stays whatever becomes of the shell.
        pass(Duration::from_secs(after)).await;
        let read = shell.ok("ssh_shell_read", json!({})).await;
        assert_eq!(read.facts.get("reason"), expected.map(Value::from).as_ref(), "{ttl} {after}");
        assert_eq!(read.facts["running"], expected.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_shell_that_releases_itself_says_what_keeps_it() {
    let hint = "\nHINT: REQUIRED NEXT STEP: wait for it or read it with ssh_shell_wait_for within 30 s";
    for release in [true, false] {
        let arguments = json!({ "release_when_no_subs": release });
        let shell = Opened::with(ScriptedHost::new(), settings(), arguments).await;
        assert_eq!(shell.opened.text.contains(hint), release, "{}", shell.opened.text);
        // What its opener chose holds for who finds it as well.
        let open = json!({ "session_id": shell.session, "ensure": true, "release_when_no_subs": !release });
        let again = shell.rig.ok("ssh_shell_open", open).await;
        assert_eq!((again.fact("status"), again.text.contains(hint)), ("reused".into(), release));
    }
}

#[tokio::test(start_paused = true)]
async fn an_ended_shell_is_kept_for_an_hour_or_five_minutes() {
    for (arguments, kept) in [(json!({}), 3600), (json!({ "auto_close": true }), 300)] {
        let host = ScriptedHost::new().on_shell(Script::prints("bye"));
        let shell = Opened::with(host, settings(), arguments.clone()).await;
        assert_eq!(shell.opened.facts["auto_close"], kept == 300);
        pass(Duration::from_secs(kept - 10)).await;
        let shells = &shell.rig.shared.engine().registries().shells;
        assert_eq!(shells.of_owner(&shell.rig.owner).len(), 1, "{kept}");
        pass(Duration::from_secs(20)).await;
        assert_eq!(shells.of_owner(&shell.rig.owner).len(), 0, "{kept}");
        let gone = shell.fails("ssh_shell_read", json!({})).await;
        assert_eq!(gone.fact("code"), "SHELL_NOT_FOUND");
        assert!(gone.fact("detail").contains("reason=completed"), "{}", gone.text);
    }
}

#[test]
fn defaults_follow_the_settings() {
    let settings = Settings {
        shell_inactivity: None,
        shell_history: 5 << 20,
        lifecycle_grace: Duration::from_millis(1500),
        ..settings()
    };
    let row = super::super::ROWS[0].call.input;
    let default = |name: &str| row(&settings)["properties"][name]["default"].clone();
    assert_eq!(default("inactivity_ttl"), 0);
    assert_eq!(default("max_buffer_size"), "5m");
    assert_eq!(default("grace_ms"), 1500);
    assert_eq!((default("term"), default("cols"), default("rows")), (json!("xterm"), json!(80), json!(24)));
    assert_eq!((default("ensure"), default("wait_secs")), (json!(false), json!(0.0)));
}
