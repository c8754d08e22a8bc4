//! Unknown host keys that the user decides about, in both eras and over both transports.

use std::fs;
use std::path::Path;

use super::*;
use crate::client::{RpcError, UserSays};
use crate::http::Product;
use crate::sshd::HostKey;
use crate::web::Web;

/// The product with a client that shows forms, and an alias `box` whose key is asked about.
async fn product(era: Era, server: &OpenSshd, env: &[(&str, &str)]) -> McpClient {
    let client = declaring(json!({"elicitation": {}}), era, env).await;
    configure(client.home(), &block("box", server, "StrictHostKeyChecking ask"));
    client
}

async fn declaring(capabilities: Value, era: Era, env: &[(&str, &str)]) -> McpClient {
    McpClient::spawn_declaring(capabilities, era, &binary("ssh-mcp-stdio"), &[], env).await
}

fn configure(home: &Path, config: &str) {
    fs::create_dir_all(home.join(".ssh")).unwrap();
    fs::write(home.join(".ssh/config"), config).unwrap();
}

fn block(alias: &str, server: &OpenSshd, more: &str) -> String {
    let key = server.client_key(ClientKey::Ed25519);
    let (port, key) = (server.port(), key.display());
    format!("Host {alias}\n HostName 127.0.0.1\n Port {port}\n User tester\n IdentityFile {key}\n {more}\n")
}

fn known(client: &McpClient) -> String {
    fs::read_to_string(client.home().join(".ssh/known_hosts")).unwrap_or_default()
}

fn yes() -> Value {
    json!({"action": "accept", "content": {"trust": true}})
}

fn no() -> Value {
    json!({"action": "decline"})
}

/// A call whose every question the user answers so; the answer, and the forms that were shown.
async fn call(
    client: &McpClient,
    era: Era,
    tool: &str,
    arguments: Value,
    says: Value,
) -> (ToolAnswer, Vec<Value>) {
    let params = json!({"name": tool, "arguments": arguments});
    if let Era::Legacy(_) = era {
        client.answer_questions(UserSays::This(says));
        let before = client.questions();
        let answer = ToolAnswer::parse(&client.request("tools/call", params).await.unwrap());
        let mut forms = Vec::new();
        for nth in before..client.questions() {
            forms.push(client.question(nth).await["params"].clone());
        }
        return (answer, forms);
    }
    let mut forms = Vec::new();
    let mut next = params.clone();
    loop {
        let result = client.request("tools/call", next).await.unwrap();
        if result["resultType"] != "input_required" {
            return (ToolAnswer::parse(&result), forms);
        }
        forms.push(question(&result));
        next = again(&params, &result, says.clone());
    }
}

/// The form of a call that ended with a question.
fn question(result: &Value) -> Value {
    let request = &result["inputRequests"]["host_key"];
    assert_eq!(request["method"], "elicitation/create", "{result}");
    request["params"].clone()
}

/// The same call with what the user says.
fn again(params: &Value, result: &Value, says: Value) -> Value {
    let mut params = params.clone();
    params["requestState"] = result["requestState"].clone();
    params["inputResponses"] = json!({"host_key": says});
    params
}

#[track_caller]
fn refused(answer: &ToolAnswer, code: &str, words: &str) {
    assert!(answer.is_error, "{}", answer.text);
    assert_eq!(answer.structured["code"], code, "{}", answer.text);
    assert!(answer.text.contains(words), "{words}: {}", answer.text);
}

#[tokio::test]
async fn a_key_is_learnt_after_a_yes_and_asked_about_once() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let fingerprint = server.host_key_fingerprint(HostKey::Ed25519);
    for era in Era::BOTH {
        let client = product(era, &server, &[]).await;
        let to_box = json!({"target": "box", "reuse": "force_new"});
        for (says, words) in [
            (no(), "does not trust the key"),
            (json!({"action": "accept", "content": {"trust": false}}), "does not trust the key"),
            (json!({"action": "cancel"}), "gave no answer"),
        ] {
            let (answer, forms) = call(&client, era, "ssh_connect", to_box.clone(), says).await;
            refused(&answer, "HOST_KEY_UNKNOWN", words);
            assert!(answer.text.contains(&fingerprint), "{}", answer.text);
            assert_eq!((forms.len(), known(&client).as_str()), (1, ""));
        }
        let (answer, forms) = call(&client, era, "ssh_connect", to_box.clone(), yes()).await;
        assert!(!answer.is_error, "{}", answer.text);
        assert_eq!(answer.structured["host_key"]["status"], "learnt", "{}", answer.text);
        let [form] = forms.as_slice() else { panic!("{forms:?}") };
        let message = form["message"].as_str().unwrap();
        for part in [&format!("[127.0.0.1]:{}", server.port()), "ssh-ed25519", &fingerprint] {
            assert!(message.contains(part), "{part} in {message}");
        }
        assert_eq!(form["requestedSchema"]["properties"]["trust"]["type"], "boolean");
        assert_eq!(known(&client).lines().count(), 1);
        let (answer, forms) = call(&client, era, "ssh_connect", to_box, no()).await;
        assert!(!answer.is_error && forms.is_empty(), "{} {forms:?}", answer.text);
        assert_eq!(answer.structured["host_key"]["status"], "known");
    }
}

#[tokio::test]
async fn every_tool_that_connects_asks() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    for era in Era::BOTH {
        for (tool, more) in [("ssh_run", json!({"command": "id -un"})), ("ssh_shell_open", json!({}))] {
            for where_to in [json!({"target": "box"}), login(&server, User::Tester, ClientKey::Ed25519)] {
                let client = product(era, &server, &[("SSH_STRICT_HOST_KEY_CHECKING", "ask")]).await;
                let mut arguments = where_to;
                arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                let (answer, forms) = call(&client, era, tool, arguments.clone(), no()).await;
                refused(&answer, "HOST_KEY_UNKNOWN", "does not trust the key");
                assert_eq!(forms.len(), 1);
                let (answer, forms) = call(&client, era, tool, arguments, yes()).await;
                assert!(!answer.is_error, "{}", answer.text);
                assert_eq!((forms.len(), known(&client).lines().count()), (1, 1));
            }
        }
    }
}

#[tokio::test]
async fn a_changed_or_revoked_key_is_not_asked_about() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let line = server.known_hosts();
    let (name, key) = line.trim().split_once(' ').unwrap();
    let stranger = fs::read_to_string(server.client_key(ClientKey::Stranger).with_extension("pub")).unwrap();
    for era in Era::BOTH {
        let client = product(era, &server, &[]).await;
        let file = client.home().join(".ssh/known_hosts");
        for entry in [format!("{name} {stranger}"), format!("@revoked * {key}\n")] {
            fs::write(&file, &entry).unwrap();
            let to_box = json!({"target": "box"});
            let (answer, forms) = call(&client, era, "ssh_connect", to_box, yes()).await;
            refused(&answer, "HOST_KEY_MISMATCH", "known_hosts:1");
            assert!(forms.is_empty(), "{forms:?}");
            assert_eq!(fs::read_to_string(&file).unwrap(), entry);
        }
    }
}

#[tokio::test]
async fn who_cannot_be_asked_is_refused_with_the_fingerprint() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    for era in Era::BOTH {
        for capabilities in [json!({}), json!({"elicitation": {"url": {}}})] {
            let client = declaring(capabilities, era, &[]).await;
            configure(client.home(), &block("box", &server, ""));
            let asking = json!({"target": "box", "strict_host_key_checking": "ask"});
            let (answer, forms) = call(&client, era, "ssh_connect", asking, yes()).await;
            refused(&answer, "HOST_KEY_UNKNOWN", "cannot be asked");
            assert!(answer.text.contains(&server.host_key_fingerprint(HostKey::Ed25519)), "{}", answer.text);
            assert!(forms.is_empty() && known(&client).is_empty());
        }
    }
}

#[tokio::test]
async fn each_hop_asks_for_itself() {
    let Some(gate) = OpenSshd::start_or_skip(Options::default()) else { return };
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let ask = "StrictHostKeyChecking ask";
    let config = block("gate", &gate, ask) + &block("box", &server, &format!("{ask}\n ProxyJump gate"));
    for era in Era::BOTH {
        let client = product(era, &server, &[]).await;
        configure(client.home(), &config);
        let (answer, forms) = call(&client, era, "ssh_connect", json!({"target": "box"}), yes()).await;
        assert!(!answer.is_error, "{}", answer.text);
        let said: Vec<_> = forms.iter().map(|form| form["message"].as_str().unwrap()).collect();
        let [first, second] = said.as_slice() else { panic!("{forms:?}") };
        assert!(first.starts_with("The jump host tester@127.0.0.1"), "{first}");
        assert!(first.contains(&gate.host_key_fingerprint(HostKey::Ed25519)), "{first}");
        assert!(second.contains(&server.host_key_fingerprint(HostKey::Ed25519)), "{second}");
        assert_eq!(known(&client).lines().count(), 2);
    }
}

#[tokio::test]
async fn a_state_is_good_for_its_own_call_and_key() {
    let Some(mut server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let client = product(Era::MODERN, &server, &[]).await;
    let params = json!({"name": "ssh_connect", "arguments": {"target": "box"}});
    let asked = client.request("tools/call", params.clone()).await.unwrap();
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    let answer = async |params: Value| -> Result<ToolAnswer, RpcError> {
        Ok(ToolAnswer::parse(&client.request("tools/call", params).await?))
    };

    let mut other_arguments = again(&params, &asked, yes());
    other_arguments["arguments"] = json!({"target": "box", "name": "other"});
    let mut other_tool = again(&params, &asked, yes());
    other_tool["name"] = "ssh_shell_open".into();
    let mut forged = again(&params, &asked, yes());
    forged["requestState"] = "rs1.AAAA.AAAA".into();
    for foreign in [other_arguments, other_tool, forged] {
        refused(&answer(foreign).await.unwrap(), "INVALID_ARGUMENT", "requestState");
    }
    assert_eq!(known(&client), "");
    // Nothing came with the state.
    let mut silent = again(&params, &asked, yes());
    silent.as_object_mut().unwrap().remove("inputResponses");
    refused(&answer(silent).await.unwrap(), "HOST_KEY_UNKNOWN", "no answer came");

    // Between question and answer the host has changed its key.
    server.restart_with_new_host_key();
    let late = answer(again(&params, &asked, yes())).await.unwrap();
    refused(&late, "HOST_KEY_MISMATCH", "was accepted");
    assert_eq!(known(&client), "");
}

#[tokio::test]
async fn both_kinds_of_http_client_are_asked() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let files = tempfile::tempdir().unwrap();
    let known = files.path().join("known");
    let env = [("SSH_STRICT_HOST_KEY_CHECKING", "ask"), ("SSH_MCP_KNOWN_HOSTS", known.to_str().unwrap())];
    let product = Product::start(&[], &env);
    let call = json!({"name": "ssh_connect", "arguments": login(&server, User::Tester, ClientKey::Ed25519)});

    let web = Web::in_session(&product, json!({"elicitation": {}})).await;
    let mut events = web.post("tools/call", call.clone()).await;
    let is_question = |said: &Value| said["method"] == "elicitation/create";
    let asked = events.hear(|heard| heard.iter().find(|said| is_question(said)).cloned()).await;
    web.reply(&asked, no()).await;
    refused(&ToolAnswer::parse(&events.answer().await.unwrap()), "HOST_KEY_UNKNOWN", "does not trust");
    let mut events = web.post("tools/call", call.clone()).await;
    let asked = events.hear(|heard| heard.iter().find(|said| is_question(said)).cloned()).await;
    web.reply(&asked, yes()).await;
    let answer = ToolAnswer::parse(&events.answer().await.unwrap());
    assert!(!answer.is_error, "{}", answer.text);
    fs::remove_file(&known).unwrap();

    // Where no answer could come back nobody is asked.
    let mut new = call;
    new["arguments"]["reuse"] = "force_new".into();
    let alone = Web::plain(&product).request("tools/call", new.clone()).await.unwrap();
    refused(&ToolAnswer::parse(&alone), "HOST_KEY_UNKNOWN", "cannot be asked");

    let web = Web::modern(&product, json!({"elicitation": {"form": {}}}));
    let asked = web.request("tools/call", new.clone()).await.unwrap();
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    assert!(!known.exists());
    let answer = ToolAnswer::parse(&web.request("tools/call", again(&new, &asked, yes())).await.unwrap());
    assert_eq!(answer.structured["host_key"]["status"], "learnt", "{}", answer.text);
    assert!(known.exists());
}

#[tokio::test]
async fn a_question_takes_no_sessions_place_and_ends_with_its_call() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let env = [("SSH_MAX_SESSIONS", "1")];
    let client = product(Era::LEGACY_2025_11, &server, &env).await;
    client.answer_questions(UserSays::Nothing);
    let to_box = |more: Value| {
        let mut arguments = json!({"target": "box", "reuse": "force_new"});
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"name": "ssh_connect", "arguments": arguments})
    };
    let waiting = client.begin("tools/call", to_box(json!({}))).await;
    let first = client.question(0).await;
    // Meanwhile others connect.
    let other = client.home().join("other");
    fs::write(&other, server.known_hosts()).unwrap();
    let elsewhere = to_box(json!({"known_hosts_file": other.to_str().unwrap()}));
    let connected = ToolAnswer::parse(&client.request("tools/call", elsewhere).await.unwrap());
    assert!(!connected.is_error, "{}", connected.text);
    // The place is taken now, so the answer comes too late.
    let reply = json!({"jsonrpc": "2.0", "id": first["id"], "result": yes()});
    client.send_line(reply.to_string()).await;
    let answer = ToolAnswer::parse(&waiting.result().await.unwrap());
    refused(&answer, "MAX_SESSIONS_EXCEEDED", "1 sessions are open");
    let ended = json!({"session_id": field(&connected, "session_id")});
    assert!(!client.call("ssh_disconnect", ended).await.is_error);

    // A call that is called off while the user thinks: what is said afterwards counts for nothing.
    let given_up = client.begin("tools/call", to_box(json!({}))).await;
    let second = client.question(1).await;
    client.notify("notifications/cancelled", json!({"requestId": given_up.id()})).await;
    let reply = json!({"jsonrpc": "2.0", "id": second["id"], "result": yes()});
    client.send_line(reply.to_string()).await;
    assert_eq!(client.call("ssh_sessions", json!({})).await.structured["count"], 0);
    assert_eq!(known(&client), "");
}

#[tokio::test]
async fn an_idempotency_key_is_kept_for_the_answer() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    for era in Era::BOTH {
        let client = product(era, &server, &[]).await;
        client.answer_questions(UserSays::This(yes()));
        let params = json!({"name": "ssh_connect", "arguments": {"target": "box", "reuse": "force_new"},
            "_meta": {"idempotency_key": "k1"}});
        let mut result = client.request("tools/call", params.clone()).await.unwrap();
        if let Era::Modern(_) = era {
            assert_eq!(result["resultType"], "input_required", "{result}");
            result = client.request("tools/call", again(&params, &result, yes())).await.unwrap();
        }
        let first = ToolAnswer::parse(&result);
        assert!(!first.is_error, "{}", first.text);
        let replayed = ToolAnswer::parse(&client.request("tools/call", params).await.unwrap());
        assert_eq!(first, replayed);
        assert_eq!(client.call("ssh_sessions", json!({})).await.structured["count"], 1);
    }
}
