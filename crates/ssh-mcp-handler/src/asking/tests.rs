use serde_json::{Value, json};
use ssh_mcp_core::target::Address;

use super::*;

fn key(fingerprint: &str) -> ShownKey {
    ShownKey {
        name: "[box]:2222".into(),
        address: Address { host: "box".into(), port: 2222 },
        algorithm: "ssh-ed25519".into(),
        fingerprint: fingerprint.into(),
    }
}

fn question() -> Question {
    Question { key: key("SHA256:new"), whose: "The host of ann@box:2222".into(), doubt: None }
}

fn forms() -> ClientCapabilities {
    declaring(json!({}))
}

fn declaring(elicitation: Value) -> ClientCapabilities {
    serde_json::from_value(json!({ "elicitation": elicitation })).unwrap()
}

fn object(value: Value) -> JsonObject {
    value.as_object().unwrap().clone()
}

const AT: Duration = Duration::from_secs(5);

/// A call of `ssh_connect` by the local owner.
fn seal(sealer: &Sealer) -> Seal {
    sealer.seal_for(&Owner::local(), "ssh_connect", &object(json!({ "target": "box" })), AT)
}

async fn asked(sealer: &Sealer) -> String {
    let asking = Asking::by_end(seal(sealer), Some(&forms()), None, None);
    let Answer::Later(end) = asking.ask(&question(), &[key("SHA256:first")]).await else {
        panic!("the call ends")
    };
    let requests = serde_json::to_value(end.input_requests.unwrap()).unwrap();
    let params = &requests["host_key"]["params"];
    assert_eq!(requests["host_key"]["method"], "elicitation/create");
    assert_eq!(params["requestedSchema"]["required"], json!(["trust"]));
    let message = params["message"].as_str().unwrap();
    for part in ["The host of ann@box:2222", "[box]:2222", "ssh-ed25519", "SHA256:new"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    end.request_state.unwrap()
}

/// The same call, made again with this answer.
fn again(seal: Seal, state: &str, response: Option<Value>) -> Asking {
    let responses = response.map(|response| InputResponses::from([("host_key".to_owned(), response)]));
    Asking::by_end(seal, Some(&forms()), Some(state), responses.as_ref())
}

#[tokio::test]
async fn a_yes_comes_back_with_what_was_accepted_before() {
    let sealer = Sealer::fresh().unwrap();
    let state = asked(&sealer).await;
    let yes = json!({ "action": "accept", "content": { "trust": true } });
    let asking = again(seal(&sealer), &state, Some(yes));
    asking.check().unwrap();
    assert_eq!(asking.accepted().unwrap(), [key("SHA256:first"), key("SHA256:new")]);
}

#[tokio::test]
async fn anything_but_a_yes_refuses() {
    let sealer = Sealer::fresh().unwrap();
    let state = asked(&sealer).await;
    for (response, words) in [
        (Some(json!({ "action": "accept", "content": { "trust": false } })), "does not trust"),
        (Some(json!({ "action": "accept" })), "does not trust"),
        (Some(json!({ "action": "accept", "content": { "trust": "true" } })), "does not trust"),
        (Some(json!({ "action": "decline" })), "does not trust"),
        (Some(json!({ "action": "cancel" })), "gave no answer"),
        (Some(json!({ "action": "perhaps" })), "cannot be read"),
        (Some(json!("yes")), "cannot be read"),
        (None, "no answer came"),
    ] {
        let asking = again(seal(&sealer), &state, response.clone());
        asking.check().unwrap();
        let refused = asking.accepted().unwrap_err();
        assert_eq!(refused.code, Code::HostKeyUnknown);
        assert!(refused.detail().contains(words), "{response:?}: {}", refused.detail());
        assert!(refused.detail().contains("SHA256:new"), "{}", refused.detail());
    }
}

#[tokio::test]
async fn a_state_counts_for_its_own_call_and_for_ten_minutes() {
    let sealer = Sealer::fresh().unwrap();
    let state = asked(&sealer).await;
    let yes = || Some(json!({ "action": "accept", "content": { "trust": true } }));
    let refusal = |seal: Seal, state: &str| {
        let asking = again(seal, state, yes());
        // Nothing of it is taken over.
        assert_eq!(asking.accepted().unwrap(), []);
        let refused = asking.check().unwrap_err();
        assert_eq!(refused.code, Code::InvalidArgument);
        refused.reason
    };
    let (own, target) = (Owner::local(), object(json!({ "target": "box" })));
    let foreign = [
        sealer.seal_for(&Owner::token("ann"), "ssh_connect", &target, AT),
        sealer.seal_for(&own, "ssh_run", &target, AT),
        sealer.seal_for(&own, "ssh_connect", &object(json!({ "target": "other" })), AT),
        seal(&Sealer::fresh().unwrap()),
    ];
    for seal in foreign {
        assert!(refusal(seal, &state).contains("is not what this server gave"));
    }
    for forged in ["", "x", &state.replace('.', ""), &format!("{state}A"), &state.to_uppercase()] {
        assert!(refusal(seal(&sealer), forged).contains("is not what this server gave"), "{forged}");
    }
    let late = Seal { now: AT + STATE_HOLDS, ..seal(&sealer) };
    assert!(refusal(late, &state).contains("has expired"));
    let early = Seal { now: AT + STATE_HOLDS - Duration::from_millis(1), ..seal(&sealer) };
    again(early, &state, yes()).check().unwrap();
}

#[tokio::test]
async fn only_a_client_that_shows_forms_is_asked() {
    let sealer = Sealer::fresh().unwrap();
    let url = declaring(json!({ "url": {} }));
    assert_eq!(url.elicitation.as_ref().map(|modes| modes.form.is_some()), Some(false));
    for (declared, is_asked) in [
        (None, false),
        (Some(ClientCapabilities::default()), false),
        (Some(url), false),
        (Some(forms()), true),
        (Some(declaring(json!({ "form": {} }))), true),
        (Some(declaring(json!({ "form": {}, "url": {} }))), true),
    ] {
        let asking = Asking::by_end(seal(&sealer), declared.as_ref(), None, None);
        let answer = asking.ask(&question(), &[]).await;
        assert_eq!(matches!(answer, Answer::Later(_)), is_asked, "{declared:?}");
    }
}
