//! Documents that are made from the code and must not drift: `docs/errors.md`, `docs/tools.md`, `docs/api/tools.json`.
//!
//! `scripts/bless.sh` rewrites them.

use std::{fmt::Write as _, fs, path::Path};

use serde_json::{Value, json};
use ssh_mcp_core::code::{Category, Code, Warning};

use crate::client::{Era, McpClient, binary};

/// Compares a document with what the code says, or rewrites it.
fn check(page: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    if std::env::var_os("SSH_MCP_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        return fs::write(&path, text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "docs/{page} is out of date; run scripts/bless.sh");
}

#[test]
fn the_page_of_errors_is_up_to_date() {
    let mut page = String::from(ERRORS_HEAD);
    for (category, blame) in CATEGORIES {
        let word = json!(category);
        write!(
            page,
            "\n### {}\n\n{blame}\n\n| Code | Retry | When | Cure |\n| --- | --- | --- | --- |\n",
            word.as_str().unwrap()
        )
        .unwrap();
        for code in Code::ALL.iter().filter(|code| code.category() == *category) {
            let retry = json!(code.retry());
            writeln!(
                page,
                "| `{code}` | `{}` | {} | {} |",
                retry.as_str().unwrap(),
                code.when(),
                code.cure()
            )
            .unwrap();
        }
    }
    page.push_str("\n## Warnings\n\nLines `WARN:` and `warnings[]` of an answer that is no error.\n\n");
    for warning in Warning::ALL {
        writeln!(page, "- `{}`", warning.as_str()).unwrap();
    }
    page.push_str(ERRORS_TAIL);
    check("errors.md", &page);
}

#[tokio::test]
async fn the_pages_of_tools_are_up_to_date() {
    let client = McpClient::spawn(Era::LEGACY_2025_11, &binary("ssh-mcp-stdio"), &[], &[]).await;
    let listed = client.request("tools/list", json!({})).await.unwrap();
    let tools = listed["tools"].as_array().unwrap();
    check("api/tools.json", &format!("{}\n", serde_json::to_string_pretty(tools).unwrap()));

    let mut page = String::from(TOOLS_HEAD);
    for tool in tools {
        let name = tool["name"].as_str().unwrap();
        let hints = &tool["annotations"];
        let hint = |key: &str, word: &'static str| (hints[key] == true).then_some(word);
        let words = [
            hint("readOnlyHint", "read-only"),
            hint("destructiveHint", "destructive"),
            hint("idempotentHint", "idempotent"),
            hint("openWorldHint", "open-world"),
        ];
        let words: Vec<_> = words.into_iter().flatten().collect();
        write!(page, "\n## {name}\n\n{}\n\n*{}*\n", tool["description"].as_str().unwrap(), words.join(", "))
            .unwrap();
        let required = tool["inputSchema"]["required"].as_array().cloned().unwrap_or_default();
        let Some(properties) = tool["inputSchema"]["properties"].as_object().filter(|all| !all.is_empty())
        else {
            continue;
        };
        page.push_str("\n| Argument | Type | Default | Meaning |\n| --- | --- | --- | --- |\n");
        for (argument, schema) in properties {
            let default = match schema.get("default") {
                Some(default) => format!("`{default}`"),
                None if required.contains(&Value::from(argument.as_str())) => "required".into(),
                None => String::new(),
            };
            let meaning =
                schema["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
            writeln!(page, "| `{argument}` | {} | {default} | {meaning} |", form(schema)).unwrap();
        }
    }
    check("tools.md", &page);
}

/// The type of an argument in a few words.
fn form(schema: &Value) -> String {
    if let Some(words) = schema["enum"].as_array() {
        return words
            .iter()
            .map(|word| format!("`{}`", word.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(" ");
    }
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", form(&schema["items"])),
        Some(word) => word.to_owned(),
        None => "any".to_owned(),
    }
}

const CATEGORIES: &[(Category, &str)] = &[
    (Category::Auth, "Credentials or the host's identity. Never retried unchanged."),
    (
        Category::Transport,
        "Network, SSH connection, local sockets. Retried with exponential backoff, at most 10 s apart.",
    ),
    (Category::Resource, "The thing addressed does not exist, or does no more. Recreate it."),
    (Category::Policy, "A limit stands in the way. Free or change something first."),
    (Category::State, "The request itself. Correct it; use a new idempotency key."),
    (Category::Internal, "A bug. Report it with the log."),
];

const ERRORS_HEAD: &str = "\
# Errors

Made from the code (`crates/ssh-mcp-core/src/code.rs`) by `scripts/bless.sh`.

A tool that fails answers `isError: true` with a text and a structured form that carry the same facts:

```
TOOL_NAME: ERROR
REASON: [CODE] short reason with the concrete subject
DETAIL: cure; what is particular; closest matches: a, b, c
```

`structuredContent` has `tool`, `status`, `code`, `reason`, `detail`, `category`, `retry`, and `effect` (`none`, `unknown`) where a call
that changes something met a broken connection. What a far side said is one line of at most 300 characters.

A non-zero exit status of a command is a result, not an error; a wait that runs out is a status, not an error. An answer with
an error is never replayed under an idempotency key. An error leaves nothing behind: no session, place or channel.

`retry` is the finer word and wins over the category: `no` (will fail again), `backoff` (may succeed in a moment), `after` (change
or free something first), `judge` (depends on the detail).

## Codes
";

const ERRORS_TAIL: &str = "
## JSON-RPC

| Situation | Code | `data` |
| --- | --- | --- |
| resource URI or query that cannot be understood | -32602 | `kind`, `field`, `value`, `expected` |
| unknown resource | -32002, or -32602 for clients of 2026-07-28 | `code`, `category`, `retry`, `detail`, `uri` |
| list cursor or parameters of the wrong shape | -32602 | `field`, `expected` |
| unknown tool, unknown method | -32602, -32601 | |
| a bug | -32603 | `code`, `correlation` |
";

const TOOLS_HEAD: &str = "\
# Tools

Made from the code by `scripts/bless.sh`; the schemas themselves are in [`api/tools.json`](api/tools.json).

Every answer has a text for the model and the same facts as `structuredContent`. Ids end in `_ID`; `NEXT` names the calls that
usually follow. `max_output_bytes` above the server's cap is lowered to it; output that is too long keeps its newest part.
Unknown arguments are ignored and named in a `WARN: UNKNOWN_FIELD` line. Calls that change something honour
`_meta.idempotency_key` (1 to 256 bytes): the same key with the same arguments replays the first answer for five minutes.
";
