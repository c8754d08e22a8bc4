use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use serde_json::json;
use ssh_mcp_core::settings::Settings;

use super::*;
use crate::catalogue::Catalogue;

/// Every tool of every build.
fn every(_: &str) -> bool {
    true
}

fn catalogue(toolsets: &str) -> Catalogue {
    let toolsets = toolsets.split(',').map(str::to_owned).collect();
    Catalogue::new(Arc::new(Settings { toolsets, ..Settings::default() }))
}

fn sample(argument: &str) -> &'static str {
    match argument {
        "session_id" => "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
        "address" => "build.example.org:2222",
        "username" => "ann",
        "command" => "make all",
        "local_path" => "/home/ann/a.tar",
        "remote_path" => "/srv/a.tar",
        "prompt_pattern" => "ann> ",
        "agent_id" => "agent-7",
        "lag_policy" => "drop_oldest",
        "script" => "cd /srv\nls",
        "verify" => "false",
        "uri_prefix" => "shell://",
        "stale_threshold_secs" => "345",
        "uri" => "shell://0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5c/output",
        "from_cursor" => "4711",
        "sub_id" => "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5d",
        other => panic!("no sample of {other}"),
    }
}

fn samples(row: &Row, keep: impl Fn(&Argument) -> bool) -> JsonObject {
    let kept = row.arguments.iter().filter(|argument| keep(argument));
    kept.map(|argument| (argument.name.to_owned(), sample(argument.name).into())).collect()
}

/// The message of a prompt while every tool is listed.
fn text(name: &str, arguments: &JsonObject) -> String {
    let result = serde_json::to_value(get(&every, name, arguments).unwrap()).unwrap();
    let [message] = result["messages"].as_array().unwrap().as_slice() else { panic!("{result}") };
    assert_eq!((&message["role"], &message["content"]["type"]), (&json!("user"), &json!("text")));
    message["content"]["text"].as_str().unwrap().to_owned()
}

fn object(value: Value) -> JsonObject {
    value.as_object().unwrap().clone()
}

/// Both messages of a row: all arguments given, and only those required.
fn texts(row: &Row) -> [String; 2] {
    let all = samples(row, |_| true);
    [text(row.name, &all), text(row.name, &samples(row, |argument| argument.need == Need::Required))]
}

/// The words of a text that look like tools.
fn tools_named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let is_tool = |word: &&str| word.starts_with("ssh_") || (word.starts_with("sub_") && *word != "sub_id");
    words.filter(is_tool).collect()
}

/// The calls of a text: tool and names of arguments. Good for values without commas between quotes.
fn calls(text: &str) -> Vec<(&str, Vec<&str>)> {
    let mut calls = Vec::new();
    for (at, _) in text.match_indices('(') {
        let tool = text[..at].rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap();
        let inside = text[at + 1..].split(')').next().unwrap();
        if tools_named(tool).contains(tool) {
            let names = inside.split(", ").filter_map(|argument| argument.split_once('='));
            calls.push((tool, names.map(|(name, _)| name).collect()));
        }
    }
    calls
}

#[test]
fn there_are_ten_in_this_order_and_each_explains_itself() {
    let prompts = list(&every);
    let names: Vec<_> = prompts.iter().map(|prompt| prompt.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "run_one_shot_command",
            "investigate_session",
            "upload_and_verify",
            "interactive_shell_drive",
            "cleanup_agent",
            "push_first_long_command",
            "push_first_interactive_shell",
            "push_first_file_transfer",
            "subscription_hygiene_audit",
            "chaos_resume_after_disconnect",
        ]
    );
    for prompt in &prompts {
        let full = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        assert!(full(&prompt.title) && full(&prompt.description), "{}", prompt.name);
        for argument in prompt.arguments.as_ref().unwrap() {
            assert!(full(&argument.description) && argument.required.is_some(), "{}", argument.name);
        }
    }
}

#[test]
fn a_recipe_names_the_tools_of_its_row_and_no_other() {
    for row in recipes::ROWS {
        let texts = texts(row);
        let named: BTreeSet<_> = texts.iter().flat_map(|text| tools_named(text)).collect();
        assert_eq!(named, row.tools.iter().copied().collect(), "{}", row.name);
    }
}

#[test]
fn calls_use_arguments_the_tools_have() {
    let catalogue = catalogue("all");
    for row in recipes::ROWS {
        for text in texts(row) {
            for (tool, names) in calls(&text) {
                let Ok(entry) = catalogue.find(tool) else { continue };
                for name in names {
                    let known = crate::schema::property(&entry.input, name).is_some();
                    assert!(known, "{}: {tool} has no {name}", row.name);
                }
            }
        }
    }
}

#[test]
fn every_argument_shows_in_its_recipe() {
    for row in recipes::ROWS {
        let [text, _] = texts(row);
        for argument in row.arguments {
            for line in sample(argument.name).lines() {
                assert!(text.contains(line), "{} without {}:\n{text}", row.name, argument.name);
            }
        }
    }
}

#[test]
fn a_prompt_is_listed_only_with_all_its_tools() {
    for row in recipes::ROWS {
        for missing in row.tools {
            let is_listed = |tool: &str| tool != *missing;
            assert!(list(&is_listed).iter().all(|prompt| prompt.name != row.name), "{missing}");
            let error = get(&is_listed, row.name, &samples(row, |_| true)).unwrap_err();
            assert_eq!((error.code.0, &error.data.unwrap()["field"]), (-32602, &json!("name")));
        }
    }
}

#[test]
fn what_this_build_lists_it_can_fill_and_names_nothing_else() {
    for toolsets in ["all", "core", "read_only", "connection", "exec,connection", "all,-ssh_disconnect"] {
        let catalogue = catalogue(toolsets);
        let is_listed = |tool: &str| catalogue.has(tool);
        for prompt in list(&is_listed) {
            let row = recipes::ROWS.iter().find(|row| row.name == prompt.name).unwrap();
            assert!(get(&is_listed, row.name, &samples(row, |_| true)).is_ok(), "{toolsets}: {}", row.name);
            for text in texts(row) {
                assert!(tools_named(&text).into_iter().all(is_listed), "{toolsets}: {text}");
            }
        }
    }
    let listed = list(&|tool| catalogue("all").has(tool));
    assert!(listed.iter().any(|prompt| prompt.name == "run_one_shot_command"));
}

#[test]
fn arguments_that_are_refused_are_named() {
    let refused = |name: &str, arguments: Value, field: &str| {
        let error = get(&every, name, &object(arguments.clone())).unwrap_err();
        let data = error.data.unwrap();
        assert_eq!((error.code.0, &data["field"]), (-32602, &json!(field)), "{name} {arguments}");
        data["expected"].as_str().unwrap().to_owned()
    };
    refused("run", json!({}), "name");
    refused("cleanup_agent", json!({}), "agent_id");
    refused("cleanup_agent", json!({ "agent_id": null }), "agent_id");
    refused("cleanup_agent", json!({ "agent_id": "" }), "agent_id");
    refused("cleanup_agent", json!({ "agent_id": ["a"] }), "agent_id");
    refused("run_one_shot_command", json!({ "address": "h", "command": "id" }), "username");
    for number in ["-1", "+1", "1.5", "x", " ", "18446744073709551616"] {
        let audit = json!({ "stale_threshold_secs": number });
        refused("subscription_hygiene_audit", audit, "stale_threshold_secs");
        refused("chaos_resume_after_disconnect", json!({ "uri": "u", "from_cursor": number }), "from_cursor");
    }
    refused("subscription_hygiene_audit", json!({ "stale_threshold_secs": 5 }), "stale_threshold_secs");
    let transfer = json!({ "session_id": "s", "local_path": "a", "remote_path": "b", "verify": "maybe" });
    refused("push_first_file_transfer", transfer, "verify");
    let command = json!({ "session_id": "s", "command": "c", "lag_policy": "drop" });
    assert_eq!(
        refused("push_first_long_command", command, "lag_policy"),
        "one of snapshot, block_slow, drop_oldest, drop_newest"
    );
}

#[test]
fn what_is_left_out_or_empty_has_its_default() {
    let with = |policy: Value| {
        text(
            "push_first_long_command",
            &object(json!({ "session_id": "s", "command": "c", "lag_policy": policy })),
        )
    };
    for (policy, meant) in [
        (Value::Null, "snapshot"),
        (json!(""), "snapshot"),
        (json!("block_slow"), "block_slow"),
        (json!(" Drop-Newest "), "drop_newest"),
    ] {
        assert!(with(policy).contains(&format!(r#"lag_policy="{meant}""#)), "{meant}");
    }
    assert!(text("subscription_hygiene_audit", &object(json!({ "unheard_of": "x" }))).contains(" 60 s "));
    assert!(
        text("chaos_resume_after_disconnect", &object(json!({ "uri": "u://x" }))).contains("from_cursor=0)")
    );
    let transfer = json!({ "session_id": "s", "local_path": "a", "remote_path": "b" });
    assert!(text("push_first_file_transfer", &object(transfer)).contains("verify=true"));
}

#[test]
fn texts_are_escaped_as_json_and_as_shell_words() {
    let run = object(json!({ "address": "h", "username": "u", "command": "echo \"a\"\nb)" }));
    let text_of_run = text("run_one_shot_command", &run);
    assert!(
        text_of_run.contains(r#"1. ssh_run(address="h", username="u", command="echo \"a\"\nb)"). "#),
        "{text_of_run}"
    );
    let upload = object(json!({ "session_id": "s", "local_path": "a", "remote_path": "~/it's" }));
    let text_of_upload = text("upload_and_verify", &upload);
    assert!(
        text_of_upload.contains(r#"command="sha256sum -- \"$HOME\"'/it'\\''s'", wait=true)"#),
        "{text_of_upload}"
    );
    let investigate = text("investigate_session", &object(json!({ "session_id": "a\nb" })));
    assert!(investigate.contains(r"resources/read session://a\nb/health. "), "{investigate}");
}

#[test]
fn a_shell_recipe_types_each_line_and_calls_the_pattern_a_plain_substring() {
    let script = json!({ "session_id": "s", "prompt_pattern": "$ ", "script": "cd /srv\r\nls" });
    let typed = text("push_first_interactive_shell", &object(script));
    for line in ["cd /srv", "ls"] {
        let call = format!(r#"   - ssh_shell_write(shell_id="<SHELL_ID>", input="{line}\n")"#);
        assert!(typed.contains(&call), "{typed}");
    }
    for name in ["interactive_shell_drive", "push_first_interactive_shell"] {
        let without = text(name, &object(json!({ "session_id": "s", "prompt_pattern": "$ " })));
        assert!(without.contains(r#"input="<LINE>\n")"#), "{without}");
        assert!(without.contains("a plain substring, not a regex"), "{without}");
    }
}

#[test]
fn what_is_pushed_can_also_be_waited_for_and_is_closed() {
    for row in recipes::ROWS.iter().filter(|row| row.tools.contains(&"sub_open")) {
        for text in texts(row) {
            let places =
                ["sub_open(uri=", "sub_wait(uris=[", "\nClean up:\n", "sub_close(sub_id=\"<SUB_ID>\")"]
                    .map(|call| text.find(call).unwrap_or_else(|| panic!("{} has no {call}", row.name)));
            assert!(places.is_sorted(), "{}: {places:?}", row.name);
        }
    }
}

#[test]
fn a_resume_connects_only_where_it_is_told_to_and_starts_at_the_cursor() {
    let resumed = |more: Value| {
        let mut arguments = object(json!({ "uri": "shell://x/output?cursor=auto" }));
        arguments.extend(object(more));
        text("chaos_resume_after_disconnect", &arguments)
    };
    let bare = resumed(json!({ "from_cursor": "9" }));
    assert!(!bare.contains("ssh_connect("), "{bare}");
    assert!(bare.contains(r#"sub_wait(uris=["shell://x/output?cursor=9"])"#), "{bare}");
    let full = resumed(json!({ "address": "h", "agent_id": "a", "sub_id": "l" }));
    let connect = r#"ssh_connect(address="h", username="<USERNAME>", reuse="auto", agent_id="a")"#;
    let order = [connect, r#"If "l" is still there"#, r#"sub_open(uri="shell://x/output""#, "sub_replay("]
        .map(|step| full.find(step).unwrap_or_else(|| panic!("no {step} in {full}")));
    assert!(order.is_sorted(), "{full}");
}

#[test]
fn the_page_describes_each_prompt_and_argument() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/prompts.md");
    let page = std::fs::read_to_string(page).unwrap();
    for row in recipes::ROWS {
        let start = format!("| `{}` |", row.name);
        let line =
            page.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no {}", row.name));
        for Argument { name, need, .. } in row.arguments {
            let shown = if *need == Need::Required { format!("`{name}`*") } else { format!("`{name}`") };
            assert!(line.contains(&shown), "{}: {shown}", row.name);
        }
    }
}
