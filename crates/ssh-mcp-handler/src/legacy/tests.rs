//! Each old tool called with every argument its row has, through the path of every `tools/call`, over a scripted host in
//! virtual time. [`Walk::complete`] fails for a row, or an argument of one, that no call here has used.

mod copies;
#[cfg(feature = "port_forward")]
mod forwards;
mod syncs;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::json;
use ssh_mcp_core::{port::ssh::ConnectError, settings::Settings};
use ssh_mcp_testkit::host::{Script, ScriptedHost};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    call::Request,
    schema,
    tests::rig::{Rig, conforms, settings},
};

const SECOND: Duration = Duration::from_secs(1);

/// A server that shows the tools of a system, and what of them has been called.
struct Walk {
    rig: Rig,
    system: LegacyTools,
    called: RefCell<BTreeMap<&'static str, BTreeSet<String>>>,
}

impl Walk {
    fn through(system: LegacyTools, host: ScriptedHost) -> Self {
        Self::under(host, Settings { legacy_tools: system, ..settings() })
    }

    fn under(host: ScriptedHost, settings: Settings) -> Self {
        let system = settings.legacy_tools;
        Self { rig: Rig::with(host, settings), system, called: RefCell::default() }
    }

    fn tool(&self, name: &str) -> &'static Tool {
        tools(self.system).unwrap().iter().find(|tool| tool.name == name).unwrap()
    }

    fn note(&self, tool: &'static Tool, arguments: &Value) {
        let names = arguments.as_object().unwrap().keys().cloned();
        self.called.borrow_mut().entry(tool.name).or_default().extend(names);
    }

    /// A call that works; what it says is what its schema promises, in both forms.
    async fn ok(&self, name: &str, arguments: Value) -> Value {
        let tool = self.tool(name);
        self.note(tool, &arguments);
        let result = self.rig.raw(name, arguments, None).await.unwrap();
        assert_eq!(result.is_error, Some(false), "{name}: {result:?}");
        let facts = result.structured_content.clone().unwrap();
        let schema = Value::Object(tool.output());
        conforms(&schema["anyOf"][0], &facts, name).unwrap();
        let text = &result.content[0].as_text().unwrap().text;
        match tool.text {
            Text::Object => {
                assert_eq!(serde_json::from_str::<Value>(text).unwrap(), facts, "{name}");
                let first = if tool.manner == Manner::Third { "ok" } else { tool.fields[0][0].name };
                assert!(text.starts_with(&format!("{{\"{first}\":")), "{text}");
            }
            Text::Field(field) => {
                let said = facts[field].as_str().map_or_else(|| facts[field].to_string(), str::to_owned);
                assert_eq!(*text, said);
            }
        }
        facts
    }

    /// A call that fails, in the words of its system.
    async fn fails(&self, name: &str, arguments: Value) -> Value {
        let result = self.rig.raw(name, arguments, None).await.unwrap();
        assert_eq!(result.is_error, Some(true), "{name}: {result:?}");
        let facts = result.structured_content.clone().unwrap();
        let tool = self.tool(name);
        conforms(&Value::Object(tool.output())["anyOf"][1], &facts, name).unwrap();
        let text = &result.content[0].as_text().unwrap().text;
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), facts, "{name}");
        let first = if tool.manner == Manner::Third { "{\"ok\":false," } else { "{\"error\":" };
        assert!(text.starts_with(first), "{text}");
        assert_eq!((&facts["tool"], &facts["status"]), (&json!(name), &json!("error")));
        facts
    }

    /// What a call of a tool whose new tools are not all here yet would send to the first of them.
    fn translated(&self, name: &str, arguments: Value) -> Value {
        let tool = self.tool(name);
        self.note(tool, &arguments);
        let mut new = self.rig.shared.catalogue.own(tool.calls[0]).unwrap().input.as_ref().clone();
        let text = json!({ "type": "string" });
        let properties = new["properties"].as_object_mut().unwrap();
        for name in [
            "target",
            "port",
            "identity_file",
            "known_hosts_file",
            "strict_host_key_checking",
            "extra_ssh_args",
            "observer_mode",
        ] {
            properties.entry(name).or_insert(text.clone());
        }
        let input = tool.input(|_| Some(&new)).expect("a tool that has a target can be offered");
        let (mut asked, ignored) = args::checked(&input, object(arguments), &[]).unwrap();
        assert!(ignored.is_empty());
        for argument in tool.arguments {
            asked.extend(
                argument
                    .default()
                    .filter(|_| !asked.contains_key(argument.name))
                    .map(|it| (argument.name.to_owned(), it)),
            );
        }
        Value::Object(tool.translate(&asked, tool.main(), &new))
    }

    /// A call of a tool of this version, which this server does not list.
    async fn own(&self, tool: &str, arguments: Value) -> Value {
        let cx = self.rig.cx(CancellationToken::new());
        let entry = cx.catalogue.own(tool).unwrap();
        let reply = call::perform(&cx, entry.row, &entry.input, object(arguments), "test").await;
        let Ok(reply) = reply else { panic!("{tool} fails") };
        reply.into_result(entry.row.name, Form::Both).structured_content.unwrap()
    }

    /// Every tool of the system, each with all its arguments, has been called.
    fn complete(&self) {
        let called = self.called.borrow();
        for tool in tools(self.system).unwrap() {
            let used = called.get(tool.name).unwrap_or_else(|| panic!("{} is called by no test", tool.name));
            for argument in tool.arguments {
                assert!(used.contains(argument.name), "no test gives {} to {}", argument.name, tool.name);
            }
        }
    }
}

fn text(facts: &Value, name: &str) -> String {
    facts[name].as_str().unwrap_or_else(|| panic!("no {name} in {facts:#}")).to_owned()
}

fn host() -> ScriptedHost {
    ScriptedHost::new()
        .on("greet", Script::new().out("hi\n").err("psst\n").exit(3))
        .on("doomed", Script::new().out("bye").exit_signal("KILL"))
        .on("long", Script::new().out("begun\n").after(400 * SECOND).out("done\n").exit(0))
        .on("endless", Script::new().out("some\n"))
}

/// What 001 and 002 have in common once there is a session.
async fn execute_and_disconnect(walk: &Walk, session: &str) {
    let run = |command: &str| json!({ "session_id": session, "command": command, "timeout_secs": 1000 });
    let greeted = walk.ok("ssh_execute", run("greet")).await;
    assert_eq!(
        (&greeted["stdout"], &greeted["stderr"], &greeted["exit_code"], greeted.get("error")),
        (&json!("hi\n"), &json!("psst\n"), &json!(3), None)
    );
    let doomed = walk.ok("ssh_execute", run("doomed")).await;
    assert_eq!((&doomed["stdout"], &doomed["exit_code"]), (&json!("bye"), &json!(-1)));
    // Longer than a wait of the new tools can be.
    let long = walk.ok("ssh_execute", run("long")).await;
    assert_eq!((&long["stdout"], &long["exit_code"]), (&json!("begun\ndone\n"), &json!(0)));
    let cut = json!({ "session_id": session, "command": "endless", "timeout_secs": 2 });
    let cut = walk.ok("ssh_execute", cut).await;
    assert_eq!(
        (&cut["stdout"], &cut["exit_code"], &cut["timed_out"]),
        (&json!("some\n"), &json!(-1), &json!(true))
    );
    assert_eq!(cut["error"], "its time limit ended the command");

    let left = walk.ok("ssh_disconnect", json!({ "session_id": session })).await;
    assert_eq!(left["message"], format!("Session {session} disconnected successfully"));
    let gone = walk.fails("ssh_disconnect", json!({ "session_id": session })).await;
    assert_eq!(
        (&gone["code"], &gone["category"], &gone["retry"]),
        (&json!("SESSION_NOT_FOUND"), &json!("RESOURCE"), &json!("no"))
    );
    assert_eq!(gone["error"], gone["reason"]);
    assert!(gone["detail"].is_string());
}

#[tokio::test(start_paused = true)]
async fn the_tools_of_001() {
    let walk = Walk::through(LegacyTools::V001, host());
    let asked = json!({
        "address": "example.org:2222", "username": "ann", "password": "secret", "key_path": "/k", "timeout_secs": 9,
        "max_retries": 1, "retry_delay_ms": 5, "compress": false, "name": "build", "persistent": true,
    });
    let connected = walk.ok("ssh_connect", asked.clone()).await;
    let session = text(&connected, "session_id");
    assert_eq!(
        (&connected["message"], &connected["authenticated"], &connected["retry_attempts"]),
        (&json!("connected to ann@example.org:2222"), &json!(true), &json!(0))
    );
    // The same again is a further session.
    walk.rig.host.then_connect_fails(ConnectError::TimedOut { after: SECOND });
    let again = walk.ok("ssh_connect", asked).await;
    assert_eq!(again["retry_attempts"], 1);
    assert_ne!(again["session_id"], connected["session_id"]);

    let listed = walk.ok("ssh_list_sessions", json!({})).await;
    assert_eq!(listed["count"], 2);
    let first = &listed["sessions"][1];
    assert_eq!(first["session_id"], session.as_str());
    assert_eq!(
        (&first["name"], &first["host"], &first["username"], &first["compression_enabled"]),
        (&json!("build"), &json!("example.org:2222"), &json!("ann"), &json!(false))
    );
    assert_eq!((&first["default_timeout_secs"], &first["retry_attempts"]), (&json!(30), &json!(0)));
    assert!(text(first, "connected_at").ends_with('Z'));

    let start =
        |command: &str, secs: u64| json!({ "session_id": session, "command": command, "timeout_secs": secs });
    let started = walk.ok("ssh_execute_async", start("endless", 1000)).await;
    let endless = text(&started, "command_id");
    assert!(text(&started, "message").contains(&endless));
    let limited = text(&walk.ok("ssh_execute_async", start("endless", 1)).await, "command_id");
    let greeted = text(&walk.ok("ssh_execute_async", start("greet", 1000)).await, "command_id");

    let read = |id: &str| json!({ "command_id": id, "wait": true, "wait_timeout_secs": 5 });
    let output = walk.ok("ssh_get_command_output", read(&greeted)).await;
    assert_eq!(
        (&output["status"], &output["stdout"], &output["stderr"], &output["exit_code"]),
        (&json!("completed"), &json!("hi\n"), &json!("psst\n"), &json!(3))
    );
    let output = walk.ok("ssh_get_command_output", read(&endless)).await;
    assert_eq!(
        (&output["status"], &output["stdout"], output.get("exit_code")),
        (&json!("running"), &json!("some\n"), None)
    );
    let output = walk.ok("ssh_get_command_output", json!({ "command_id": limited })).await;
    assert_eq!((&output["status"], output["error"].is_string()), (&json!("failed"), true));

    let cancelled = walk.ok("ssh_cancel_command", json!({ "command_id": endless })).await;
    assert_eq!((&cancelled["cancelled"], &cancelled["stdout"]), (&json!(true), &json!("some\n")));
    let over = walk.ok("ssh_cancel_command", json!({ "command_id": greeted })).await;
    assert_eq!(
        (&over["cancelled"], &over["stdout"], &over["stderr"]),
        (&json!(false), &json!("hi\n"), &json!("psst\n"))
    );
    let output = walk.ok("ssh_get_command_output", json!({ "command_id": endless })).await;
    assert_eq!(output["status"], "cancelled");

    assert_eq!(walk.ok("ssh_list_commands", json!({ "session_id": session })).await["count"], 3);
    for (status, id) in [("completed", &greeted), ("cancelled", &endless), ("failed", &limited)] {
        let listed = walk.ok("ssh_list_commands", json!({ "status": status })).await;
        assert_eq!(listed["count"], 1, "{status}");
        let listed = &listed["commands"][0];
        assert_eq!((&listed["command_id"], &listed["status"]), (&json!(id), &json!(status)));
        assert_eq!((&listed["session_id"], listed["started_at"].is_string()), (&json!(session), true));
    }
    assert_eq!(walk.ok("ssh_list_commands", json!({ "status": "running" })).await["count"], 0);

    #[cfg(feature = "port_forward")]
    forwards::of_a_session(&walk, &session).await;
    execute_and_disconnect(&walk, &session).await;
    walk.complete();
}

#[tokio::test(start_paused = true)]
async fn the_tools_of_002() {
    let walk = Walk::through(LegacyTools::V002, host());
    let asked = json!({ "address": "h", "username": "u", "password": "p", "key_path": "/k" });
    let session = text(&walk.ok("ssh_connect", asked).await, "session_id");
    assert_eq!(walk.ok("ssh_list_sessions", json!({})).await, json!({ "sessions": [session] }));
    #[cfg(feature = "port_forward")]
    forwards::of_a_session(&walk, &session).await;
    execute_and_disconnect(&walk, &session).await;
    walk.complete();

    // What 001 added is not there.
    let warned = json!({ "address": "h", "username": "u", "name": "n" });
    let warned = walk.ok("ssh_connect", warned).await;
    assert_eq!(
        (&warned["warnings"][0]["code"], &warned["warnings"][0]["field"]),
        (&json!("UNKNOWN_FIELD"), &json!("name"))
    );
    let unknown = walk.rig.raw("ssh_execute_async", json!({}), None).await.unwrap_err();
    assert_eq!(unknown.code.0, -32602);
}

#[tokio::test(start_paused = true)]
async fn the_tools_of_003() {
    let walk =
        Walk::through(LegacyTools::V003, ScriptedHost::new().on("say", Script::prints("0123456789\n")));
    let session = walk.own("ssh_connect", json!({ "address": "h", "username": "u" })).await;
    let open = json!({ "session_id": session["session_id"], "name": "work" });
    let shell = text(&walk.own("ssh_shell_open", open).await, "shell_id");

    let read = json!({ "session_id": shell, "wait_seconds": 0.25, "max_output_chars": 100 });
    let first = walk.ok("ssh_read_session", read.clone()).await;
    assert_eq!(
        (&first["ok"], &first["session_id"], &first["session_name"]),
        (&json!(true), &json!(shell), &json!("work"))
    );
    assert_eq!(
        (&first["target"], &first["output"], &first["running"]),
        (&json!("u@h:22"), &json!("$ "), &json!(true))
    );
    assert_eq!((&first["pending_output_chars"], &first["transcript_size_bytes"]), (&json!(0), &json!(0)));
    assert_eq!((first.get("exit_code"), first.get("exit_reason")), (None, None));
    // Nothing comes, and the wait is as long as was asked for.
    let clock = walk.rig.shared.engine.clock();
    let began = clock.now();
    assert_eq!(walk.ok("ssh_read_session", read).await["output"], "");
    assert_eq!(clock.now() - began, Duration::from_millis(250));

    let typed = json!({ "session_id": shell, "input": "say\n", "wait_seconds": 1.5, "max_output_chars": 8 });
    let began = clock.now();
    let typed = walk.ok("ssh_write_session", typed).await;
    assert_eq!(clock.now() - began, Duration::from_millis(1500));
    let pending = typed["pending_output_chars"].as_u64().unwrap();
    assert!(pending > 0 && text(&typed, "output").len() == 8, "{typed}");
    // What did not fit comes next.
    let rest = walk.ok("ssh_read_session", json!({ "session_id": shell })).await;
    assert_eq!(text(&rest, "output").chars().count() as u64, pending);
    let all = text(&typed, "output") + &text(&rest, "output");
    assert!(all.contains("0123456789") && all.ends_with("$ "), "{all:?}");

    let filters = json!({ "target": "u@h", "session_name": "work", "include_exited": false });
    let listed = walk.ok("ssh_list_sessions", filters.clone()).await;
    assert_eq!((&listed["count"], &listed["sessions"][0]["session_id"]), (&json!(1), &json!(shell)));
    assert_eq!(listed["sessions"][0]["session_name"], "work");

    let stop = json!({ "session_id": shell, "force": true, "wait_seconds": 0.5 });
    let stopped = walk.ok("ssh_stop_session", stop.clone()).await;
    assert_eq!((&stopped["was_running"], &stopped["running"]), (&json!(true), &json!(false)));
    assert_eq!(stopped["exit_reason"], "killed");
    assert_eq!(walk.ok("ssh_stop_session", stop).await["was_running"], false);
    assert_eq!(walk.ok("ssh_list_sessions", filters).await["count"], 0);
    let all = walk.ok("ssh_list_sessions", json!({ "include_exited": true })).await;
    assert_eq!((&all["count"], &all["sessions"][0]["running"]), (&json!(1), &json!(false)));
    assert_eq!(all["sessions"][0]["exit_reason"], "killed");

    let gone = walk.fails("ssh_read_session", json!({ "session_id": "nope" })).await;
    assert_eq!(
        (&gone["ok"], &gone["error_type"], &gone["message"]),
        (&json!(false), &json!("SHELL_NOT_FOUND"), &gone["reason"])
    );
    let refused = walk.fails("ssh_read_session", json!({ "session_id": shell, "wait_secs": 1 })).await;
    assert_eq!(
        (&refused["code"], &refused["message"]),
        (
            &json!("INVALID_ARGUMENT"),
            &json!("wait_secs is no argument of this tool; the nearest is wait_seconds")
        )
    );

    copies::up_with_all_that_can_be_said(&walk).await;
    syncs::with_all_that_can_be_said(&walk).await;
    #[cfg(feature = "port_forward")]
    forwards::with_all_that_can_be_said(&walk).await;
    translations(&walk);
    walk.complete();
}

/// The tools that name a host.
fn translations(walk: &Walk) {
    let connection = json!({
        "target": "ann@build", "port": 2222, "identity_file": "/k", "known_hosts_file": "/n",
        "strict_host_key_checking": "yes", "extra_ssh_args": ["-4"], "cwd": "/srv", "env": { "A": "1" }, "shell": "bash",
    });
    let with = |more: Value| {
        let mut all = object(connection.clone());
        all.extend(object(more));
        Value::Object(all)
    };
    let run = with(json!({ "command": "make", "timeout": 1.5, "tty": true }));
    assert_eq!(
        walk.translated("ssh_exec", run),
        with(json!({ "command": "make", "timeout_secs": 2, "pty": true, "disconnect_after": false,
            "max_output_bytes": u32::MAX }))
    );
    let start = with(
        json!({ "session_name": "s", "wait_seconds": 0.5, "auto_close": true, "observer_mode": "tmux" }),
    );
    let started = json!({ "name": "s", "wait_secs": 0.5, "auto_close": true, "observer_mode": "tmux" });
    assert_eq!(walk.translated("ssh_start_session", start.clone()), with(started.clone()));
    let mut ensured = with(started);
    ensured["ensure"] = true.into();
    assert_eq!(walk.translated("ssh_ensure_session", start), ensured);
    // What is not said is as it was.
    assert_eq!(
        walk.translated("ssh_start_session", json!({ "target": "h" })),
        json!({ "target": "h", "wait_secs": 1.0, "observer_mode": "transcript" })
    );
    let known = [
        "ssh_scp",
        "ssh_read_session",
        "ssh_write_session",
        "ssh_stop_session",
        "ssh_list_sessions",
        "ssh_list_forwards",
        "ssh_stop_forward",
    ];
    let new = &walk.rig.shared.catalogue.own("ssh_run").unwrap().input;
    let takes_targets = schema::property(new, "target").is_some();
    for entry in walk.rig.shared.catalogue.entries() {
        assert!(takes_targets || known.contains(&entry.face.name()), "{}", entry.face.name());
    }
}

#[test]
fn an_old_start_is_answered_with_its_observer() {
    let told = object(json!({
        "shell_id": "s", "target": "u@h:22", "stdout": "$ ", "pending_output_chars": 0, "running": true,
        "uptime_seconds": 1, "idle_seconds": 0, "created": false, "reused": true, "matched_by": "name",
        "transcript_size_bytes": 5, "observer_mode": "tmux", "transcript_path": "/t", "tmux_session_name": "x",
        "observer_command": "tmux attach",
    }));
    let (asked, settings) = (JsonObject::new(), Settings::default());
    let known = Known { settings: &settings, asked: &asked, first: &told, last: &asked, took: SECOND };
    let tool =
        tools(LegacyTools::V003).unwrap().iter().find(|tool| tool.name == "ssh_ensure_session").unwrap();
    let mut shown = known.object(tool.fields);
    assert_eq!(
        shown["observer"],
        json!({ "mode": "tmux", "transcript_path": "/t", "tmux_started": true, "tmux_session_name": "x",
            "observer_command": "tmux attach" })
    );
    assert_eq!((&shown["matched_by"], &shown["transcript_size_bytes"]), (&json!("session_name"), &json!(5)));
    shown["ok"] = true.into();
    conforms(&Value::Object(tool.output())["anyOf"][0], &shown, "ssh_ensure_session").unwrap();
}

#[tokio::test(start_paused = true)]
async fn old_names_stand_in_place_of_the_new_ones() {
    for system in [LegacyTools::V001, LegacyTools::V002, LegacyTools::V003] {
        let rig = Rig::with(ScriptedHost::new(), Settings { legacy_tools: system, ..settings() });
        let listed: Vec<&str> =
            rig.shared.catalogue.entries().iter().map(|entry| entry.face.name()).collect();
        assert!(!listed.is_empty());
        for entry in rig.shared.catalogue.entries() {
            let tool = rig.shared.catalogue.shown(entry);
            assert!(tool.title.is_some() && tool.annotations.is_some() && tool.output_schema.is_some());
            let description = tool.description.unwrap();
            assert!(description.chars().count() <= 600, "{}", tool.name);
            // Nothing is named that is not listed.
            let shown = format!("{description} {}", Value::Object(tool.input_schema.as_ref().clone()));
            for word in shown.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
                assert!(
                    !word.starts_with("ssh_") && !word.starts_with("sub_") || listed.contains(&word),
                    "{}: {word}",
                    tool.name
                );
            }
        }
        for new in ["ssh_run", "sub_list", "ssh_shell_open"] {
            assert_eq!(rig.raw(new, json!({}), None).await.unwrap_err().code.0, -32602, "{new}");
            assert!(!rig.shared.catalogue.has(new));
        }
        assert!(crate::instructions::instructions(&rig.shared.catalogue).contains("older system"));
    }
}

#[tokio::test(start_paused = true)]
async fn names_between_001_and_this_version_are_taken_with_001_alone() {
    let walk = Walk::through(LegacyTools::V001, host());
    let session =
        walk.ok("ssh_connect", json!({ "address": "h", "username": "u" })).await["session_id"].clone();
    let batch = json!({ "session_id": session, "commands": ["greet"] });
    let answer = walk.rig.raw("ssh_execute_batch", batch, None).await.unwrap();
    assert_eq!(answer.structured_content.unwrap()["tool"], "ssh_exec_batch");
    let uri = format!("session://{}/health", session.as_str().unwrap());
    let lane = walk.rig.raw("ssh_subscribe", json!({ "uri": uri }), None).await.unwrap();
    let lane = lane.structured_content.unwrap()["sub_id"].clone();
    for (old, new) in [("ssh_sub_stats", "sub_stats"), ("ssh_unsubscribe", "sub_close")] {
        let answer = walk.rig.raw(old, json!({ "sub_id": lane }), None).await.unwrap();
        assert_eq!(answer.structured_content.unwrap()["tool"], new);
    }
    let answer = walk.rig.raw("ssh_daemon_stats", json!({}), None).await.unwrap();
    assert_eq!(answer.is_error, Some(false));
    let key =
        walk.rig.raw("ssh_shell_send_key", json!({ "shell_id": "x", "key": "enter" }), None).await.unwrap();
    assert_eq!(key.structured_content.unwrap()["code"], "SHELL_NOT_FOUND");
    let progress = json!({ "transfer_id": "x" });
    let progress = walk.rig.raw("ssh_get_transfer_progress", progress, None).await.unwrap();
    assert_eq!(progress.structured_content.unwrap()["code"], "TRANSFER_NOT_FOUND");
    let opened = walk.rig.raw("ssh_serial_open", json!({ "path": "/dev/none" }), None).await.unwrap();
    assert_eq!(opened.structured_content.unwrap()["code"], "SERIAL_ERROR");
    for (old, new) in [("ssh_serial_list_ports", "serial_scan"), ("ssh_serial_list_open", "serial_active")] {
        let answer = walk.rig.raw(old, json!({}), None).await.unwrap();
        assert_eq!(answer.structured_content.unwrap()["tool"], new);
    }
    assert!(walk.rig.shared.catalogue.entries().iter().all(|entry| entry.face.name() != "ssh_execute_batch"));

    let other = Walk::through(LegacyTools::V002, host());
    assert!(other.rig.raw("ssh_execute_batch", json!({}), None).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn bad_arguments_are_told_by_their_old_names() {
    let walk = Walk::through(LegacyTools::V001, host());
    let missing = walk.fails("ssh_connect", json!({ "username": "u" })).await;
    assert_eq!(
        (&missing["code"], &missing["error"]),
        (&json!("INVALID_ARGUMENT"), &json!("address is missing: it must be a text"))
    );
    let wrong = walk.fails("ssh_list_commands", json!({ "status": "timed_out" })).await;
    assert!(text(&wrong, "error").starts_with("status must be one of running, completed"), "{wrong}");
    walk.rig.host.then_connect_fails(ConnectError::TimedOut { after: SECOND });
    let late = json!({ "address": "h", "username": "u", "max_retries": 0 });
    let late = walk.fails("ssh_connect", late).await;
    assert_eq!((&late["code"], &late["effect"]), (&json!("CONNECTION_TIMEOUT"), &json!("none")));

    let walk = Walk::through(LegacyTools::V003, host());
    let wrong = walk.fails("ssh_stop_session", json!({ "session_id": "s", "wait_seconds": -1 })).await;
    assert_eq!((&wrong["error_type"], &wrong["ok"]), (&json!("INVALID_ARGUMENT"), &json!(false)));
    assert!(text(&wrong, "message").starts_with("wait_seconds must be a number"), "{wrong}");
}

#[tokio::test(start_paused = true)]
async fn an_old_call_has_a_key_as_well() {
    let walk = Walk::through(LegacyTools::V001, host());
    let asked = json!({ "address": "h", "username": "u" });
    let call = |arguments: Value| walk.rig.raw("ssh_connect", arguments, Some(json!("k")));
    let first = call(asked.clone()).await.unwrap();
    assert_eq!(call(asked).await.unwrap(), first);
    assert_eq!(walk.rig.host.connects(), 1);
    let other = call(json!({ "address": "other", "username": "u" })).await.unwrap();
    let facts = other.structured_content.unwrap();
    assert_eq!((&facts["code"], facts["error"].is_string()), (&json!("IDEMPOTENCY_KEY_MISMATCH"), true));
}

#[tokio::test(start_paused = true)]
async fn what_the_operator_left_out_is_not_listed_and_says_so() {
    let toolsets = vec!["all".into(), "-ssh_exec_output".into()];
    let walk = Walk::under(host(), Settings { toolsets, legacy_tools: LegacyTools::V001, ..settings() });
    let listed: Vec<&str> =
        walk.rig.shared.catalogue.entries().iter().map(|entry| entry.face.name()).collect();
    assert!(listed.contains(&"ssh_execute_async") && !listed.contains(&"ssh_execute"), "{listed:?}");
    let left_out = walk.fails("ssh_execute", json!({ "session_id": "s", "command": "c" })).await;
    assert_eq!(left_out["code"], "FEATURE_DISABLED");
}

#[tokio::test(start_paused = true)]
async fn text_alone_is_the_same_object() {
    let settings = Settings { structured_content: false, legacy_tools: LegacyTools::V001, ..settings() };
    let walk = Walk::under(host(), settings);
    let asked = json!({ "address": "h", "username": "u" });
    let result = walk.rig.raw("ssh_connect", asked, None).await.unwrap();
    assert_eq!(result.structured_content, None);
    let facts: Value = serde_json::from_str(&result.content[0].as_text().unwrap().text).unwrap();
    assert_eq!(facts["authenticated"], true);
    assert!(
        walk.rig.shared.catalogue.entries().iter().all(|entry| walk
            .rig
            .shared
            .catalogue
            .shown(entry)
            .output_schema
            .is_none())
    );
}

#[tokio::test(start_paused = true)]
async fn who_calls_a_read_off_takes_nothing() {
    let walk = Walk::through(
        LegacyTools::V003,
        ScriptedHost::new().on_shell(Script::new().after(5 * SECOND).out("late")),
    );
    let session = walk.own("ssh_connect", json!({ "address": "h", "username": "u" })).await;
    let shell =
        walk.own("ssh_shell_open", json!({ "session_id": session["session_id"] })).await["shell_id"].clone();
    let cancelled = CancellationToken::new();
    let cx = walk.rig.cx(cancelled.clone());
    let arguments = object(json!({ "session_id": shell, "input": "x", "wait_seconds": 20 }));
    let request = Request { tool: "ssh_write_session", arguments, key: None, peer: "test" };
    let (result, ()) = tokio::join!(call::call(&cx, &walk.rig.shared.keys, request), async {
        tokio::time::sleep(10 * SECOND).await;
        cancelled.cancel();
    });
    assert!(result.is_ok());
    let read = walk.ok("ssh_read_session", json!({ "session_id": shell })).await;
    assert_eq!(read["output"], "late");
}
