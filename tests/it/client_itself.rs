//! The test client, tested on a scripted server: a failure of the product must not be one of the client.

use std::path::Path;

use serde_json::{Value, json};

use crate::client::{Era, McpClient, RpcError, ToolAnswer, binary};

/// A shell script in the server's place; `say` prints one message, `hear` prints the line it read to stderr.
async fn scripted(era: Era, script: &str) -> McpClient {
    let script = format!(
        "say() {{ printf '%s\\n' \"$1\"; }}; hear() {{ read -r line; echo \"$line\" >&2; }}; {script}"
    );
    McpClient::spawn(era, Path::new("/bin/sh"), &["-c", &script], &[("FROM_TEST", "yes")]).await
}

#[tokio::test]
async fn a_legacy_conversation() {
    let client = scripted(
        Era::LEGACY_2025_06,
        r#"hear; say '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18"}}'; hear
        hear; say '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}'
        say '{"jsonrpc":"2.0","id":7,"method":"ping"}'; hear
        say '{"jsonrpc":"2.0","id":8,"method":"roots/list"}'; hear
        say '{"jsonrpc":"2.0","id":2,"result":{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"isError":true}}'
        hear; say '{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}'
        echo "$FROM_TEST $HOME" >&2; read -r _ || exit 3"#,
    )
    .await;
    assert_eq!(client.server()["protocolVersion"], "2025-06-18");
    let answer = client.call("t", json!({"x": 1})).await;
    assert_eq!(answer, ToolAnswer { is_error: true, text: "a\nb".into(), structured: Value::Null });
    assert_eq!(client.notification(|note| note["params"]["progress"] == 1).await, client.notifications()[0]);
    client.send_line("broken".into()).await;
    assert_eq!(client.stray(0).await["error"]["code"], -32700);

    let (home, pid) = (client.home().display().to_string(), client.pid());
    assert!(pid > 1);
    let mut client = client;
    client.close_input();
    assert_eq!(client.ended().await.code(), Some(3));
    let log = client.log();
    let lines: Vec<_> = log.lines().collect();
    let heard: Vec<Value> = lines[..5].iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(heard[0]["params"]["protocolVersion"], "2025-06-18");
    assert_eq!(heard[1]["method"], "notifications/initialized");
    assert_eq!(heard[2]["params"], json!({"name": "t", "arguments": {"x": 1}}));
    assert_eq!(heard[3], json!({"jsonrpc": "2.0", "id": 7, "result": {}}));
    assert_eq!((&heard[4]["id"], &heard[4]["error"]["code"]), (&json!(8), &json!(-32601)));
    assert_eq!(lines[5..], ["broken".to_owned(), format!("yes {home}")]);
}

#[tokio::test]
async fn a_modern_conversation_has_no_handshake_and_answers_come_in_any_order() {
    let client = scripted(
        Era::MODERN,
        r#"hear; hear
        say '{"jsonrpc":"2.0","id":2,"result":{"contents":[{"uri":"u","text":"x"}]}}'
        say '{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"bad","data":{"f":1}}}'; cat >&2"#,
    )
    .await;
    let first = client.begin("tools/call", json!({"name": "t", "arguments": {}})).await;
    assert!(first.is_open() && first.id() == 1);
    assert_eq!(client.read_resource("u").await, Ok(vec![json!({"uri": "u", "text": "x"})]));
    let error = RpcError { code: -32602, message: "bad".into(), data: json!({"f": 1}) };
    assert_eq!(first.result().await, Err(error));
    let meta: Value = serde_json::from_str(client.log().lines().next().expect("a request")).expect("JSON");
    assert_eq!(meta["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
    assert!(client.close().await.success());
}

#[tokio::test]
async fn a_server_that_is_no_server_ends_the_wait_at_once() {
    for era in Era::BOTH {
        // `echo` writes a line that is no message, and ends.
        let client = McpClient::spawn_silent(era, Path::new("/bin/echo"), &["hello"], &[]);
        assert_eq!(client.begin("ping", json!({})).await.result_or_end().await, None);
        assert!(client.log().contains("PROTOCOL ONLY") && client.log().contains("hello"));
    }
}

#[test]
fn the_products_binaries_are_found_or_built() {
    for name in ["ssh-mcp", "ssh-mcp-stdio"] {
        assert!(binary(name).is_file());
    }
}
