//! What exists: the catalogue as clients see it, its budget and its snapshot, and the lists of resources.

use std::{path::PathBuf, sync::Arc};

use serde_json::{Value, json};
use ssh_mcp_core::{code::Code, settings::Settings};
use ssh_mcp_testkit::host::ScriptedHost;

use super::rig::{Rig, settings};
use crate::{
    catalogue::Catalogue,
    resources,
    tools::{self, Key, Reach, Repeat},
};

fn catalogue(toolsets: &str) -> Catalogue {
    let toolsets = toolsets.split(',').map(str::to_owned).collect();
    Catalogue::new(Arc::new(Settings { toolsets, ..Settings::default() }))
}

/// Bytes of `tools/list` without the output schemas, which hosts do not show to a model.
fn bytes_shown(catalogue: &Catalogue) -> usize {
    let tools: Vec<Value> = catalogue
        .entries()
        .iter()
        .map(|entry| {
            let mut tool = serde_json::to_value(catalogue.shown(entry)).unwrap();
            tool.as_object_mut().unwrap().remove("outputSchema");
            tool
        })
        .collect();
    json!({ "tools": tools }).to_string().len()
}

#[test]
fn the_catalogue_costs_few_tokens() {
    let (all, core) = (bytes_shown(&catalogue("all")), bytes_shown(&catalogue("core")));
    assert!(all <= 48 * 1024, "all: {all} bytes");
    assert!(core <= 16 * 1024, "core: {core} bytes");
}

/// Compares a generated file with what it should be; `SSH_MCP_BLESS=1` (`scripts/bless.sh`) rewrites it.
fn check_page(page: &str, expected: impl FnOnce(&str) -> String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    let expected = expected(&published);
    if ["SSH_MCP_BLESS", "BLESS"].iter().any(|name| std::env::var_os(name).is_some()) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, expected).unwrap();
        return;
    }
    assert!(published == expected, "docs/{page} is not what the code says: scripts/bless.sh rewrites it");
}

/// What `tools/list` answers under default settings.
#[test]
fn the_published_catalogue_is_this_one() {
    let catalogue = catalogue("all");
    let tools: Vec<_> = catalogue.entries().iter().map(|entry| catalogue.shown(entry)).collect();
    check_page("api/tools.json", |_| {
        serde_json::to_string_pretty(&json!({ "tools": tools })).unwrap() + "\n"
    });
}

#[test]
fn the_published_codes_are_these() {
    let word = |value: Value| value.as_str().unwrap().to_owned();
    let rows: String = Code::ALL
        .iter()
        .map(|code| {
            let (category, retry) = (word(json!(code.category())), word(json!(code.retry())));
            format!("| `{code}` | {category} | {retry} | {} | {} |\n", code.when(), code.cure())
        })
        .collect();
    let table =
        format!("| Code | Category | Retry | When | What to do |\n| --- | --- | --- | --- | --- |\n{rows}");
    check_page("errors.md", |page| {
        let (head, rest) = page.split_once("by scripts/bless.sh -->\n").unwrap();
        let (_, tail) = rest.split_once("<!-- end codes -->").unwrap();
        format!("{head}by scripts/bless.sh -->\n{table}<!-- end codes -->{tail}")
    });
}

#[test]
fn nothing_that_is_not_listed_is_named() {
    let names: Vec<&str> = tools::rows().map(|row| row.name).collect();
    let looks_like_a_tool =
        |word: &str| ["ssh_", "sub_", "serial_"].iter().any(|prefix| word.starts_with(prefix));
    // The identifier of a lane, the capability a client declares, and OpenSSH's own words.
    let fields = [
        "sub_id",
        "sub_ids",
        "serial_id",
        "ssh_inline_push",
        "ssh_config_file",
        "ssh_options",
        "extra_ssh_args",
    ];
    let names: Vec<&str> = names.into_iter().chain(fields).collect();
    for row in tools::rows() {
        let schema = Value::Object((row.call.input)(&Settings::default())).to_string();
        for word in
            format!("{} {schema}", row.description).split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        {
            assert!(!looks_like_a_tool(word) || names.contains(&word), "{} names {word}", row.name);
        }
    }
}

#[test]
fn hints_say_what_a_tool_does() {
    let catalogue = catalogue("all");
    for entry in catalogue.entries() {
        let shown = serde_json::to_value(catalogue.shown(entry)).unwrap();
        let hints = &shown["annotations"];
        let reads = hints["readOnlyHint"] == true;
        assert!(!(reads && hints["destructiveHint"] == true), "{}", entry.row.name);
        for hint in ["readOnlyHint", "destructiveHint"] {
            assert!(hints[hint].is_boolean(), "{} says nothing of {hint}", entry.row.name);
        }
        // The others only where they are not what MCP takes for granted.
        let told = |hint: &str| hints.get(hint).and_then(Value::as_bool);
        assert_eq!(told("idempotentHint"), (entry.row.repeat == Repeat::Harmless).then_some(true));
        assert_eq!(told("openWorldHint"), (entry.row.reach == Reach::Held).then_some(false));
        assert!(!reads || entry.row.key == Key::Ignored, "{}", entry.row.name);
    }
}

#[test]
fn text_alone_publishes_no_output_schema() {
    let catalogue = Catalogue::new(Arc::new(Settings { structured_content: false, ..Settings::default() }));
    assert!(catalogue.entries().iter().all(|entry| catalogue.shown(entry).output_schema.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_tool_left_out_cannot_be_called_and_is_not_named() {
    let toolsets = vec!["all".into(), "-ssh_disconnect".into()];
    let rig = Rig::with(ScriptedHost::new(), Settings { toolsets, ..settings() });
    let connected = rig.ok("ssh_connect", json!({ "address": "h", "username": "u" })).await;
    assert!(!connected.text.contains("ssh_disconnect("), "{}", connected.text);
    let answered = rig.fails("ssh_disconnect", json!({ "session_id": "x" })).await;
    assert_eq!(answered.fact("code"), "FEATURE_DISABLED");
    assert!(answered.fact("detail").contains("set=connection"), "{}", answered.fact("detail"));
    assert_eq!(rig.raw("ssh_unheard_of", json!({}), None).await.unwrap_err().code.0, -32602);
}

#[test]
fn templates_stand_for_what_can_be_made() {
    let names = |toolsets: &str| -> Vec<String> {
        resources::templates(&catalogue(toolsets)).into_iter().map(|template| template.uri_template).collect()
    };
    assert!(names("all").contains(&"session://{session_id}/health".to_owned()));
    assert_eq!(names("read_only"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn pages_of_resources_go_on_while_entries_come_and_go() {
    let rig = Rig::with(ScriptedHost::new(), Settings { list_default: 2, ..settings() });
    let mut sessions = Vec::new();
    for _ in 0..5 {
        sessions.push(rig.session().await);
    }
    rig.as_owner("bob").session().await;
    let page = |cursor: Option<&str>| resources::list(&rig.shared.engine, &rig.owner, cursor).unwrap();
    let uris = |page: &rmcp::model::ListResourcesResult| -> Vec<String> {
        page.resources.iter().map(|resource| resource.uri.clone()).collect()
    };
    let uri = |at: usize| format!("session://{}/health", sessions[at]);

    let first = page(None);
    assert_eq!(uris(&first), [uri(4), uri(3)]);
    rig.session().await;
    let second = page(first.next_cursor.as_deref());
    assert_eq!(uris(&second), [uri(2), uri(1)]);
    let third = page(second.next_cursor.as_deref());
    assert_eq!((uris(&third), third.next_cursor), (vec![uri(0)], None));

    for cursor in ["", "x", "AAAA", "c2hlbGwvMQ"] {
        let error = resources::list(&rig.shared.engine, &rig.owner, Some(cursor)).unwrap_err();
        assert_eq!((error.code.0, &error.data.unwrap()["field"]), (-32602, &json!("cursor")), "{cursor}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_listed_session_has_its_label_and_its_type() {
    let rig = Rig::new();
    rig.ok("ssh_connect", json!({ "address": "h", "username": "u", "name": "build" })).await;
    let listed = resources::list(&rig.shared.engine, &rig.owner, None).unwrap();
    let entry = serde_json::to_value(&listed.resources[0]).unwrap();
    assert!(entry["name"].as_str().unwrap().ends_with("(build)"), "{entry}");
    assert_eq!(
        (&entry["title"], &entry["mimeType"]),
        (&json!("Session build on u@h:22"), &json!("application/json"))
    );
    assert_eq!(entry["description"], "SSH session u@h:22, healthy");
}

#[tokio::test(start_paused = true)]
async fn resources_are_found_by_what_is_known_of_them() {
    let rig = Rig::new();
    assert_eq!(rig.ok("ssh_resources", json!({})).await.text, "SSH_RESOURCES: OK\nCOUNT: 0");
    let asked = json!({ "address": "one.example", "username": "u", "name": "a", "agent_id": "x" });
    let one = rig.ok("ssh_connect", asked).await.fact("session_id");
    rig.ok("ssh_connect", json!({ "address": "two.example", "username": "u" })).await;
    for filter in [
        json!({ "session_id": one.to_uppercase() }),
        json!({ "agent_id": "x" }),
        json!({ "name": "a" }),
        json!({ "target": "one.example" }),
        json!({ "target": "u@one.example:22", "kind": "session" }),
    ] {
        let answered = rig.ok("ssh_resources", filter.clone()).await;
        assert_eq!(answered.facts["total"], 1, "{filter}");
        assert_eq!(answered.facts["resources"][0]["id"], one, "{filter}");
    }
    assert_eq!(rig.ok("ssh_resources", json!({ "kind": "shell" })).await.facts["total"], 0);
    rig.ok("ssh_disconnect", json!({ "session_id": one })).await;
    assert_eq!(rig.ok("ssh_resources", json!({})).await.facts["total"], 1);
    let all = rig.ok("ssh_resources", json!({ "include_ended": true, "max_items": 1 })).await;
    assert_eq!((&all.facts["count"], &all.facts["total"]), (&json!(1), &json!(2)));
    let ended = rig.ok("ssh_resources", json!({ "include_ended": true, "name": "a" })).await;
    assert_eq!(ended.facts["resources"][0]["reason"], "manual_close");
}
