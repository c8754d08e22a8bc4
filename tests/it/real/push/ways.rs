//! Every way to subscribe, in both eras: what comes, how often, and what it says.

use super::*;

const LIST: &str = "notifications/resources/list_changed";

/// A lane that only announces leaves so soon after the end.
const SOON: (&str, &str) = ("SSH_LIFECYCLE_GRACE_MS", "200");

/// A command that printed `hi` and ended 100 ms ago.
async fn over(stage: &Stage) -> String {
    let command = stage.start(json!({"command": "echo hi"})).await;
    stage.ended(&command).await;
    // The time passes elsewhere.
    stage.run("sleep 0.1").await;
    output_of(&command)
}

/// Waits until every lane has left: from then on nothing can come.
async fn all_left(stage: &Stage) {
    until("without lanes", async || stage.ok("sub_list", json!({})).await.structured["subs_total"] == 0)
        .await;
}

/// How often a resource was announced.
fn announced(stage: &Stage, uri: &str) -> usize {
    let notes = stage.client.notifications();
    notes.iter().filter(|note| note["method"] == UPDATED && note["params"]["uri"] == uri).count()
}

async fn contents(stage: &Stage, uri: &str) -> (String, Value) {
    let read = stage.client.read_resource(&format!("{uri}?cursor=0&stream=merged")).await.unwrap();
    (read[0]["text"].as_str().unwrap().to_owned(), read[0]["_meta"].clone())
}

async fn says_hi_and_ended(stage: &Stage, uri: &str) {
    let (text, meta) = contents(stage, uri).await;
    assert_eq!((text.as_str(), &meta["status"]), ("hi\n", &json!("completed")));
}

fn tells_hi_and_the_end(story: &Story) {
    let last = story.pieces.last().unwrap();
    assert_eq!(story.text(), "hi\n");
    assert_eq!((&last["reason"], &last["exit_code"]), (&json!("completed"), &json!(0)));
    assert_eq!((story.count("closed"), story.gap), (1, 0));
}

#[tokio::test]
async fn an_old_client_that_comes_late_is_told_once_on_every_way() {
    let Some(stage) = Stage::set_for_bytes(Era::LEGACY_2025_11, &[SOON]).await else { return };
    let (subscribed, opened, pushed, waited) =
        (over(&stage).await, over(&stage).await, over(&stage).await, over(&stage).await);
    stage.client.request("resources/subscribe", json!({"uri": subscribed})).await.unwrap();
    stage.ok("sub_open", json!({"uri": opened})).await;
    let lane = stage.open_lane(&pushed, json!({})).await;
    for uri in [&subscribed, &opened] {
        stage.client.notification(|note| note["params"]["uri"] == uri.as_str()).await;
        says_hi_and_ended(&stage, uri).await;
    }
    stage.whole_story(&lane).await;
    all_left(&stage).await;
    assert_eq!((announced(&stage, &subscribed), announced(&stage, &opened)), (1, 1));
    assert_eq!(announced(&stage, &pushed), 0, "bytes are no announcement");
    tells_hi_and_the_end(&Story::of(&stage.client.notifications(), &lane));

    let wait = || stage.ok("sub_wait", json!({"uris": [waited], "timeout_secs": 1}));
    let first = wait().await;
    let item = &first.structured["items"][0];
    assert_eq!((&item["delta"], &item["exit_code"]), (&json!("hi\n"), &json!(0)), "{}", first.text);
    assert_eq!((&first.structured["status"], &item["reason"]), (&json!("ended"), &json!("completed")));
    let again = wait().await;
    assert_eq!(again.structured["items"][0]["delta"], "", "{}", again.text);
}

#[tokio::test]
async fn a_new_client_that_comes_late_is_told_once_on_its_listen() {
    for takes in [false, true] {
        let stage = match takes {
            false => Stage::set_in(Era::MODERN, Options::default(), User::Tester, &[SOON]).await,
            true => Stage::set_for_bytes(Era::MODERN, &[SOON]).await,
        };
        let Some(stage) = stage else { return };
        let uri = over(&stage).await;
        let filter = json!({"resourceSubscriptions": [uri]});
        let listen = stage.client.begin("subscriptions/listen", json!({"notifications": filter})).await;
        let told = stage.client.notification(|note| note["params"]["uri"] == uri.as_str()).await;
        assert_eq!(told["method"], UPDATED);
        assert!(told["params"]["_meta"]["ssh-mcp/sub_id"].is_string(), "{told}");
        if takes {
            stage.whole_story(&uri).await;
        }
        all_left(&stage).await;
        let story = Story::of(&stage.client.notifications(), &uri);
        if takes {
            tells_hi_and_the_end(&story);
        } else {
            assert_eq!((story.pieces.len(), announced(&stage, &uri)), (0, 1));
        }
        says_hi_and_ended(&stage, &uri).await;
        assert!(listen.is_open(), "the request stands although its lanes are gone");
    }
}

#[tokio::test]
async fn a_list_that_changes_is_told_in_both_eras() {
    for era in Era::BOTH {
        let Some(stage) = Stage::set_in(era, Options::default(), User::Tester, &[]).await else { return };
        if era == Era::MODERN {
            let listen = json!({"notifications": {"resourcesListChanged": true}});
            let id = stage.client.begin("subscriptions/listen", listen).await.id();
            let acknowledged = "notifications/subscriptions/acknowledged";
            stage.client.notification(|note| note["method"] == acknowledged).await;
            let before = changes(&stage).len();
            stage.start(json!({"command": "sleep 100"})).await;
            stage.client.hear(|notes| (of_list(notes).len() > before).then_some(())).await;
            let said = changes(&stage);
            let request = &said.last().unwrap()["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"];
            assert_eq!(request, id);
        } else {
            // Connecting has told of the session.
            stage.client.notification(|note| note["method"] == LIST).await;
            let before = changes(&stage).len();
            stage.start(json!({"command": "sleep 100"})).await;
            stage.client.hear(|notes| (of_list(notes).len() > before).then_some(())).await;
        }
    }
}

fn of_list(notes: &[Value]) -> Vec<Value> {
    notes.iter().filter(|note| note["method"] == LIST).cloned().collect()
}

fn changes(stage: &Stage) -> Vec<Value> {
    of_list(&stage.client.notifications())
}

#[tokio::test]
async fn what_is_written_to_a_shell_shows_without_a_read() {
    let Some(stage) = Stage::set_for_bytes(Era::LEGACY_2025_11, &[]).await else { return };
    let shell = stage.shell().await;
    let lane = stage.open_lane(&format!("shell://{shell}/output"), json!({})).await;
    stage.story(&lane, |story| story.has("ready> ")).await;
    stage.write(&shell, "echo x$((1+1))y\n").await;
    let story = stage.story(&lane, |story| story.has("x2y")).await;
    assert!(story.pieces.iter().all(|piece| piece["encoding"] == "utf8"), "{story:?}");
    assert_eq!(story.gap, 0);
}
