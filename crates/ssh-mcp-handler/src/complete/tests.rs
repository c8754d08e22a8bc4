use rmcp::model::{CompletionInfo, PromptReference};
use serde_json::json;

use super::*;
use crate::tests::rig::Rig;

/// What is offered to the rig's owner while every prompt is listed.
fn offered(rig: &Rig, about: &Reference, argument: &str, typed: &str) -> CompletionInfo {
    let known = Known {
        engine: &rig.shared.engine,
        owner: &rig.owner,
        catalogue: &rig.shared.catalogue,
        is_listed: &|_| true,
        sub_ids: &|| (0..150).rev().map(|n| format!("sub-{n:03}")).collect(),
    };
    complete(&known, about, &ArgumentInfo::new(argument, typed)).completion
}

fn for_prompt(rig: &Rig, prompt: &str, argument: &str, typed: &str) -> Vec<String> {
    offered(rig, &Reference::for_prompt(prompt), argument, typed).values
}

fn for_template(rig: &Rig, template: &str, argument: &str) -> Vec<String> {
    offered(rig, &Reference::for_resource(template), argument, "").values
}

async fn connect(rig: &Rig, address: &str, agent: Option<&str>) -> String {
    let mut asked = json!({ "address": address, "username": "u", "reuse": "force_new" });
    if let Some(agent) = agent {
        asked["agent_id"] = agent.into();
    }
    rig.ok("ssh_connect", asked).await.fact("session_id")
}

#[tokio::test(start_paused = true)]
async fn what_lives_and_is_the_callers_is_offered_newest_first() {
    let rig = Rig::new();
    let first = connect(&rig, "one.example", Some("a")).await;
    let second = connect(&rig, "two.example:2222", Some("b")).await;
    let third = connect(&rig, "one.example:22", Some("a")).await;
    let ended = connect(&rig, "ended.example", Some("c")).await;
    rig.ok("ssh_disconnect", json!({ "session_id": ended })).await;
    let other = rig.as_owner("bob");
    let foreign = connect(&other, "2001:db8::1", Some("z")).await;

    assert_eq!(for_prompt(&rig, "investigate_session", "session_id", ""), [&*third, &second, &first]);
    assert_eq!(for_prompt(&rig, "cleanup_agent", "agent_id", ""), ["a", "b"]);
    assert_eq!(for_prompt(&rig, "run_one_shot_command", "address", ""), ["one.example", "two.example:2222"]);
    assert_eq!(for_template(&rig, "session://{session_id}/health", "session_id"), [third, second, first]);
    assert_eq!(for_prompt(&other, "investigate_session", "session_id", ""), [foreign]);
    assert_eq!(for_prompt(&other, "run_one_shot_command", "address", ""), ["2001:db8::1"]);
}

#[tokio::test(start_paused = true)]
async fn uris_are_of_every_kind_and_variables_of_their_own() {
    let rig = Rig::new();
    let session = connect(&rig, "h", None).await;
    let shell = rig.ok("ssh_shell_open", json!({ "session_id": session })).await.fact("shell_id");
    let newer = connect(&rig, "h", None).await;
    assert_eq!(
        for_prompt(&rig, "chaos_resume_after_disconnect", "uri", ""),
        [
            format!("session://{newer}/health"),
            format!("shell://{shell}/output"),
            format!("session://{session}/health"),
        ]
    );
    let template = "shell://{shell_id}/output{?cursor}";
    assert_eq!(for_template(&rig, template, "shell_id"), [&*shell]);
    assert_eq!(for_template(&rig, template, "cursor"), ["auto", "0"]);
    rig.ok("ssh_shell_close", json!({ "shell_id": shell })).await;
    assert_eq!(for_template(&rig, template, "shell_id"), [""; 0]);
    assert_eq!(for_prompt(&rig, "push_first_long_command", "lag_policy", ""), LAG_POLICIES);
}

#[tokio::test(start_paused = true)]
async fn what_means_nothing_is_offered_nothing() {
    let rig = Rig::new();
    connect(&rig, "h", Some("a")).await;
    for (about, argument) in [
        (Reference::for_prompt("test_prompt_with_arguments"), "session_id"),
        (Reference::for_prompt("cleanup_agent"), "session_id"),
        (Reference::for_prompt("run_one_shot_command"), "command"),
        (Reference::for_resource("session://{session_id}/health"), "cursor"),
        (Reference::for_resource("session://{session_id}/health"), ""),
        (Reference::for_resource("shell://{shell_id}/output{?cursor}"), "session_id"),
        (Reference::for_resource("shell://{shell_id}/output{?cursor}"), "?cursor"),
        (Reference::for_resource("test://template/{id}/data"), "id"),
    ] {
        let offered = offered(&rig, &about, argument, "a");
        assert_eq!(
            (offered.values.len(), offered.total, offered.has_more),
            (0, Some(0), Some(false)),
            "{about:?}"
        );
    }
    let unlisted = Known {
        engine: &rig.shared.engine,
        owner: &rig.owner,
        catalogue: &rig.shared.catalogue,
        is_listed: &|tool| tool != "ssh_disconnect_agent",
        sub_ids: &Vec::new,
    };
    let about = Reference::Prompt(PromptReference::new("cleanup_agent"));
    let result = complete(&unlisted, &about, &ArgumentInfo::new("agent_id", ""));
    assert_eq!(result.completion.values, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_are_shown_and_all_are_counted() {
    let rig = Rig::new();
    let about = Reference::for_prompt("chaos_resume_after_disconnect");
    let all = offered(&rig, &about, "sub_id", "");
    assert_eq!((all.values.len(), all.total, all.has_more), (100, Some(150), Some(true)));
    assert_eq!((&*all.values[0], &*all.values[99]), ("sub-149", "sub-050"));
    let typed = offered(&rig, &about, "sub_id", "SUB-00");
    assert_eq!((&*typed.values[0], &*typed.values[9]), ("sub-009", "sub-000"));
}

#[test]
fn the_beginning_counts_most_then_the_middle_then_edits() {
    let check = |typed: &str, candidates: &[&str], expected: &[&str]| {
        let candidates = candidates.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(ranked(typed, candidates), expected, "{typed}");
    };
    check("", &["b", "a", "c"], &["b", "a", "c"]);
    check("ab", &["xab", "aab", "b", "abz", "ABa", "axx"], &["abz", "ABa", "xab", "aab", "b", "axx"]);
    check("Kittne", &["dog", "mitten", "kitten"], &["kitten", "mitten", "dog"]);
    check("block", &LAG_POLICIES, &["block_slow", "snapshot", "drop_oldest", "drop_newest"]);
}

#[test]
fn long_texts_are_compared_by_their_beginning() {
    let long = "x".repeat(1_000_000);
    let candidates = vec!["y".to_owned(), long.clone()];
    assert_eq!(ranked(&format!("{long}{long}"), candidates), [long, "y".to_owned()]);
    assert_eq!(head(&"ä".repeat(200)).chars().count(), 128);
}
