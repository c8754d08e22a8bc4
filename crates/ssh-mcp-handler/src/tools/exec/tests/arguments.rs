use ssh_mcp_testkit::host::Script;

use super::*;

/// Calls with one argument more than are right, and expects a reason.
async fn refuse(tool: &str, right: &Value, table: &[(&str, Value, &str)]) {
    let world = World::new(ScriptedHost::new().on("", Script::new()));
    let session = world.session().await;
    for (field, value, reason) in table {
        let mut arguments = right.clone();
        if arguments.get("session_id").is_some() {
            arguments["session_id"] = json!(session);
        }
        arguments[*field] = value.clone();
        let said = world.call(tool, arguments).await;
        assert_eq!(said.facts["code"], "INVALID_ARGUMENT", "{tool} {field} {value}: {}", said.text);
        assert_eq!(said.fact("reason"), *reason, "{tool}");
        assert!(said.text.contains(&format!("\nREASON: [INVALID_ARGUMENT] {reason}\n")), "{}", said.text);
    }
    let commands = world.call("ssh_commands", json!({})).await;
    assert_eq!((&commands.facts["total"], world.host.command_lines().len()), (&json!(0), 0), "nothing ran");
}

/// What every tool that runs something refuses alike.
fn context() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("cwd", json!(1), "cwd must be a text that is not empty; got the number 1"),
        ("cwd", json!(""), "cwd must be a text that is not empty; got the text \"\""),
        ("cwd", json!("a\0"), "cwd must be a text without NUL characters; got the text \"a\\u0000\""),
        ("shell", json!(["sh"]), "shell must be a text that is not empty; got the list [\"sh\"]"),
        ("shell", json!("s\0h"), "shell must be a text without NUL characters; got the text \"s\\u0000h\""),
        ("env", json!("A=1"), "env must be an object of names and values; got a text"),
        ("env", json!({ "A": 1 }), "env.A must be a text; got a number"),
        ("env", json!({ "A": "x\0y" }), "env.A must be a text without NUL characters; got a text"),
        (
            "env",
            json!({ "1A": "s3cret" }),
            "a name in env must be letters, digits and underscores, and not begin with a digit; got \"1A\"",
        ),
        (
            "env",
            json!({ "A-B": "s3cret" }),
            "a name in env must be letters, digits and underscores, and not begin with a digit; got \"A-B\"",
        ),
        ("pty", json!("yes"), "pty must be true or false; got the text \"yes\""),
    ]
}

#[tokio::test(start_paused = true)]
async fn bad_arguments_of_ssh_exec() {
    let right = json!({ "session_id": "", "command": "x" });
    let mut table = context();
    table.extend([
        ("session_id", json!(null), "session_id is missing: it must be a text"),
        ("session_id", json!(7), "session_id must be a text; got the number 7"),
        ("command", json!(null), "command is missing: it must be a text that is not empty"),
        ("command", json!(""), "command must be a text that is not empty; got the text \"\""),
        ("command", json!(["ls"]), "command must be a text that is not empty; got the list [\"ls\"]"),
        (
            "command",
            json!("a\0b"),
            "command must be a text without NUL characters; got the text \"a\\u0000b\"",
        ),
        (
            "timeout_secs",
            json!(-1),
            "timeout_secs must be an integer from 0, written as a number; got the number -1",
        ),
        (
            "timeout_secs",
            json!("5"),
            "timeout_secs must be an integer from 0, written as a number; got the text \"5\"",
        ),
        (
            "timeout_secs",
            json!(1.5),
            "timeout_secs must be an integer from 0, written as a number; got the number 1.5",
        ),
        ("wait", json!(1), "wait must be true or false; got the number 1"),
        (
            "wait_timeout_secs",
            json!(-5),
            "wait_timeout_secs must be an integer from 0, written as a number; got the number -5",
        ),
        (
            "release_when_no_subs",
            json!("no"),
            "release_when_no_subs must be true or false; got the text \"no\"",
        ),
        (
            "grace_ms",
            json!(3_600_001),
            "grace_ms must be an integer from 0 to 3600000, written as a number; got the number 3600001",
        ),
        ("input", json!(5), "input must be a text; got a number"),
        ("input_base64", json!("*"), "input_base64 must be base64; got a text: Invalid symbol 42, offset 0."),
    ]);
    refuse("ssh_exec", &right, &table).await;
    let both = json!({ "session_id": "", "command": "x", "input": "a" });
    let reason = "input must not be given together with input_base64; got both";
    refuse("ssh_exec", &both, &[("input_base64", json!("YQ=="), reason)]).await;
}

#[tokio::test(start_paused = true)]
async fn bad_arguments_of_the_readers_and_of_cancel() {
    let max = "max_output_bytes must be an integer of at least 1, written as a number; got the number 0";
    let id = [
        ("command_id", json!(null), "command_id is missing: it must be a text"),
        ("command_id", json!({}), "command_id must be a text; got the object {}"),
        ("max_output_bytes", json!(0), max),
    ];
    refuse("ssh_exec_output", &json!({ "command_id": "x" }), &id).await;
    refuse("ssh_exec_cancel", &json!({ "command_id": "x" }), &id).await;
    let table = [
        ("wait", json!("true"), "wait must be true or false; got the text \"true\""),
        (
            "wait_timeout_secs",
            json!("9"),
            "wait_timeout_secs must be an integer from 0, written as a number; got the text \"9\"",
        ),
    ];
    refuse("ssh_exec_output", &json!({ "command_id": "x" }), &table).await;
    let words =
        "status must be one of running, completed, cancelled, failed, timed_out; got the text \"timeout\"";
    let table = [
        ("session_id", json!(1), "session_id must be a text; got the number 1"),
        ("status", json!("timeout"), words),
        (
            "max_items",
            json!(0),
            "max_items must be an integer of at least 1, written as a number; got the number 0",
        ),
    ];
    refuse("ssh_commands", &json!({}), &table).await;
}

#[tokio::test(start_paused = true)]
async fn bad_arguments_of_ssh_run() {
    let right = json!({ "address": "other", "username": "ann", "command": "x" });
    let mut table = context();
    table.extend([
        ("address", json!(null), "address is missing: it must be a text, unless target is given"),
        ("username", json!(null), "username is missing: it must be a text, because address is given"),
        ("command", json!(""), "command must be a text that is not empty; got the text \"\""),
        (
            "address",
            json!("ann@host"),
            "address must be host, host:port or [v6]:port; got the text \"ann@host\": the host has a character that is not \
             allowed",
        ),
        ("username", json!(""), "username must be the name of an account; got the text \"\""),
        ("password", json!(1), "password must be a text; got a number"),
        ("key_path", json!(1), "key_path must be a text; got the number 1"),
        ("key_passphrase", json!(1), "key_passphrase must be a text; got a number"),
        ("agent_id", json!(1), "agent_id must be a text; got the number 1"),
        ("timeout_secs", json!("1"), "timeout_secs must be an integer from 0, written as a number; got the text \"1\""),
        (
            "max_output_bytes",
            json!(-1),
            "max_output_bytes must be an integer of at least 1, written as a number; got the number -1",
        ),
        ("disconnect_after", json!("no"), "disconnect_after must be true or false; got the text \"no\""),
    ]);
    refuse("ssh_run", &right, &table).await;
}

#[tokio::test(start_paused = true)]
async fn bad_arguments_of_ssh_exec_batch() {
    let right = json!({ "session_id": "", "commands": ["x"] });
    let many: Vec<_> = (0..17).map(|n| n.to_string()).collect();
    let too_many = format!("commands must be a list of 1 to 16 texts; got the list {}", json!(many));
    let mut table = context();
    table.extend([
        ("session_id", json!(null), "session_id is missing: it must be a text"),
        ("commands", json!(null), "commands is missing: it must be a list of 1 to 16 texts"),
        ("commands", json!("ls"), "commands must be a list of 1 to 16 texts; got the text \"ls\""),
        ("commands", json!([]), "commands must be a list of 1 to 16 texts; got the list []"),
        ("commands", json!(many), too_many.as_str()),
        ("commands", json!(["a", 2]), "commands[1] must be a text that is not empty; got the number 2"),
        ("commands", json!(["a", ""]), "commands[1] must be a text that is not empty; got the text \"\""),
        (
            "commands",
            json!(["a", "b\0"]),
            "commands[1] must be a text without NUL characters; got the text \"b\\u0000\"",
        ),
        ("stop_on_failure", json!(0), "stop_on_failure must be true or false; got the number 0"),
        (
            "timeout_secs_per_command",
            json!(-1),
            "timeout_secs_per_command must be an integer from 0, written as a number; got the number -1",
        ),
        (
            "max_output_bytes_per_command",
            json!(0),
            "max_output_bytes_per_command must be an integer of at least 1, written as a number; got the number 0",
        ),
    ]);
    refuse("ssh_exec_batch", &right, &table).await;
}

#[tokio::test(start_paused = true)]
async fn fields_no_tool_knows_are_warned_of_with_the_nearest() {
    let world = World::new(ScriptedHost::new().on("x", Script::new()));
    let session = world.session().await;
    let arguments = json!({ "session_id": session, "command": "x", "timeout": 5, "cmd": "y" });
    let said = world.call("ssh_exec", arguments).await;
    assert_eq!(said.status(), "started");
    let fields: Vec<_> = said.facts["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|warning| warning["field"].as_str().unwrap())
        .collect();
    assert_eq!(fields, ["cmd", "timeout"]);
    assert!(
        said.text.contains("\nWARN: UNKNOWN_FIELD timeout is no field of this tool and was ignored;"),
        "{}",
        said.text
    );
}

#[test]
fn schemas_name_every_parameter_with_its_default() {
    let settings = Settings::default();
    let shown = |tool: &str| {
        let row = super::super::ROWS.iter().find(|row| row.name == tool).unwrap();
        let schema = (row.call.input)(&settings);
        let required = schema.get("required").cloned().unwrap_or_default();
        let properties = schema["properties"].as_object().unwrap().iter();
        let defaults: Vec<_> = properties
            .map(|(name, schema)| match schema.get("default") {
                Some(default) => format!("{name}={default}"),
                None if required.as_array().is_some_and(|names| names.contains(&json!(name))) => {
                    format!("{name}!")
                }
                None => name.clone(),
            })
            .collect();
        let mut defaults = defaults;
        defaults.sort_unstable();
        defaults.join(" ")
    };
    assert_eq!(
        shown("ssh_exec"),
        "command! cwd env grace_ms=2000 input input_base64 pty=false release_when_no_subs=false session_id! shell \
         timeout_secs=180 wait=false wait_timeout_secs=30"
    );
    assert_eq!(
        shown("ssh_exec_output"),
        "command_id! max_output_bytes=16384 wait=false wait_timeout_secs=30"
    );
    assert_eq!(shown("ssh_commands"), "max_items=500 session_id status");
    assert_eq!(shown("ssh_exec_cancel"), "command_id! max_output_bytes=16384");
    assert_eq!(
        shown("ssh_run"),
        "address agent_id command! cwd disconnect_after=true env extra_ssh_args forward_agent identity_file key_passphrase key_passphrase_env key_path \
         known_hosts_file max_output_bytes=16384 password password_env password_file port proxy_jump pty=false shell ssh_config_file ssh_options \
         strict_host_key_checking target timeout_secs=30 username"
    );
    assert_eq!(
        shown("ssh_exec_batch"),
        "commands! cwd env max_output_bytes_per_command=16384 pty=false session_id! shell stop_on_failure=true \
         timeout_secs_per_command=30"
    );
}

#[test]
fn annotations_are_those_of_the_catalogue() {
    let annotated: Vec<_> = super::super::ROWS
        .iter()
        .map(|row| {
            let hints = row.annotations();
            let hint = |hint: bool| if hint { 'T' } else { 'F' };
            let letters: String = [
                hints.read_only_hint.unwrap(),
                hints.destructive_hint.unwrap(),
                // What MCP takes for granted is not said.
                hints.idempotent_hint.unwrap_or(false),
                hints.open_world_hint.unwrap_or(true),
                row.key == crate::tools::Key::Honoured,
            ]
            .map(hint)
            .iter()
            .collect();
            (row.name, letters)
        })
        .collect();
    let expected = [
        ("ssh_exec", "FTFTT"),
        ("ssh_exec_output", "TFTFF"),
        ("ssh_commands", "TFTFF"),
        ("ssh_exec_cancel", "FTTTT"),
        ("ssh_run", "FTFTT"),
        ("ssh_exec_batch", "FTFTT"),
    ];
    assert_eq!(annotated, expected.map(|(name, letters)| (name, letters.to_owned())));
}
