//! A user who is asked about a host key and takes time.

use std::time::Duration;

use serde_json::json;
use ssh_mcp_core::{
    port::ssh::{ConnectError, Unknown},
    target::{Address, ShownKey},
};

use super::{rig::Rig, wire::Client};

fn unknown(verdict: Unknown) -> ConnectError {
    let shown = ShownKey {
        name: "h".into(),
        address: Address { host: "h".into(), port: 22 },
        algorithm: "ssh-ed25519".into(),
        fingerprint: "SHA256:abc".into(),
    };
    ConnectError::UnknownHostKey { host: "h".into(), shown: Box::new(shown), verdict, certificate: None }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_within_a_minute_refuses() {
    let rig = Rig::new();
    rig.host.then_connect_fails(unknown(Unknown::Undecided));
    let mut client = Client::legacy_declaring(&rig, json!({ "elicitation": {} })).await;
    let started = rig.shared.engine.clock().now();
    let call = json!({ "name": "ssh_connect", "arguments": { "address": "h", "username": "u" },
        "_meta": { "progressToken": "p" } });
    let id = client.request("tools/call", call).await;
    let question = client.notification("elicitation/create").await;
    assert!(question["params"]["message"].as_str().unwrap().contains("SHA256:abc"), "{question}");
    let progress = client.notification("notifications/progress").await;
    assert_eq!(progress["params"]["message"], "waiting for the user's word on a host key");
    let withdrawn = client.notification("notifications/cancelled").await;
    assert_eq!(withdrawn["params"]["requestId"], question["id"]);
    let answer = client.answer(id).await["result"]["structuredContent"].clone();
    assert_eq!(answer["code"], "HOST_KEY_UNKNOWN", "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("did not answer within 60 s"), "{answer}");
    let took = rig.shared.engine.clock().now() - started;
    assert!((60..62).contains(&took.as_secs()), "{took:?}");
    assert!(rig.shared.engine.registries().sessions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_about_a_key_that_the_policy_refuses() {
    let rig = Rig::new();
    rig.host.then_connect_fails(unknown(Unknown::Refused));
    let mut client = Client::legacy_declaring(&rig, json!({ "elicitation": {} })).await;
    let login = json!({ "address": "h", "username": "u" });
    let answer = client.call("ssh_connect", login, json!({})).await;
    assert_eq!(answer["structuredContent"]["code"], "HOST_KEY_UNKNOWN", "{answer}");
    client.listen_for(Duration::from_secs(1)).await;
    assert!(client.notifications.is_empty(), "{:?}", client.notifications);
}
