//! What nobody watches: warned of once, and ended on its host where the operator has said so.

use super::*;
use crate::sshd::processes::{processes_matching, wait_until};

/// Whoever shows a resource says what the leak watcher has to say about it.
const SHOWING: [&str; 3] = ["ssh_commands", "ssh_sessions", "ssh_resources"];

/// The warnings of an answer about a resource, in its text and for programs.
fn warnings(answer: &ToolAnswer, uri: &str) -> usize {
    let listed = answer.structured["warnings"].as_array().cloned().unwrap_or_default();
    let about = |warned: &&Value| warned["code"] == "SUB_LEAK_RISK" && warned["resource"] == uri;
    let line = format!("WARN: SUB_LEAK_RISK {uri} age_ms=");
    let (listed, said) = (listed.iter().filter(about).count(), answer.text.matches(&line).count());
    assert_eq!(listed, said, "{}", answer.text);
    said
}

#[tokio::test]
async fn what_nobody_watches_is_warned_of_once_by_whoever_shows_it_next() {
    let env = [("SSH_SUB_LEAK_RISK_WARN_S", "1")];
    let Some(stage) = Stage::set_in(Era::LEGACY_2025_11, Options::default(), User::Tester, &env).await else {
        return;
    };
    let shown = async |tool: &str| stage.ok(tool, json!({})).await;
    let warned = async |tool: &str, uri: &str| {
        until("warned", async || warnings(&shown(tool).await, uri) == 1).await;
        for again in SHOWING {
            assert_eq!(warnings(&shown(again).await, uri), 0, "{tool}, then {again}");
        }
    };
    for tool in SHOWING {
        let uri = output_of(&stage.start(json!({"command": "sleep 100"})).await);
        warned(tool, &uri).await;
    }
}

#[tokio::test]
async fn what_nobody_watches_ends_on_its_host_where_the_operator_says_so() {
    let env = [("SSH_SUB_LEAK_RISK_KILL_S", "1")];
    let Some(stage) = Stage::set_in(Era::LEGACY_2025_11, Options::default(), User::Tester, &env).await else {
        return;
    };
    let mark = |nth: u32| format!("299.{nth}{}", std::process::id());
    // Something that does not end at the first word, in the foreground and behind it.
    let stubborn = |nth: u32| {
        let mark = mark(nth);
        format!("trap '' TERM; sleep {mark} & sleep {mark}; wait")
    };
    let runs = |nth: u32| wait_until(crate::client::LIMIT, || !processes_matching(&mark(nth)).is_empty());
    let ends = |nth: u32| wait_until(crate::client::LIMIT, || processes_matching(&mark(nth)).is_empty());

    let watched = output_of(&stage.start(json!({"command": stubborn(0)})).await);
    let opened = stage.ok("sub_open", json!({"uri": watched})).await;
    let shell = stage.shell().await;
    let kept = format!("shell://{shell}/output");
    stage.ok("sub_open", json!({"uri": kept})).await;
    stage.write(&shell, &format!("sleep {}\n", mark(1))).await;
    assert!(runs(0) && runs(1));

    let alone = output_of(&stage.start(json!({"command": stubborn(2)})).await);
    let open = json!({"session_id": stage.session, "shell": "/bin/sh"});
    let lonely = field(&stage.ok("ssh_shell_open", open).await, "shell_id");
    stage.write(&lonely, &format!("sleep {}\n", mark(3))).await;
    // They ended only if they had begun; a machine that was too slow for that has shown nothing wrong.
    assert!(ends(2) && ends(3));
    // A list is no read.
    let lonely = format!("shell://{lonely}/output");
    let reasons = async || {
        let listed = stage.ok("ssh_resources", json!({"include_ended": true})).await.structured;
        let listed = listed["resources"].as_array().unwrap().clone();
        move |uri: &str| listed.iter().find(|listed| listed["uri"] == uri).unwrap()["reason"].clone()
    };
    until("both ended", async || {
        let reason = reasons().await;
        reason(&alone) == "leak_kill" && reason(&lonely) == "leak_kill"
    })
    .await;
    let read = stage.client.read_resource(&format!("{alone}?cursor=0&stream=merged")).await.unwrap();
    assert_eq!(read[0]["_meta"]["reason"], "leak_kill", "{read:?}");

    // They were there first, and are still.
    let reason = reasons().await;
    assert_eq!((reason(&watched), reason(&kept)), (Value::Null, Value::Null));
    assert!(!processes_matching(&mark(0)).is_empty() && !processes_matching(&mark(1)).is_empty());
    // Until their observer leaves.
    stage.ok("sub_close", json!({"sub_id": field(&opened, "sub_id")})).await;
    assert!(ends(0));
    assert!(!processes_matching(&mark(1)).is_empty());
}
