//! How many lanes there may be, and how they end with their client.

use super::*;

const TOTAL: &str = "lanes_total";

#[tokio::test]
async fn of_a_hundred_simultaneous_opens_exactly_sixteen_succeed() {
    // subscriptions 13.6
    let Some(stage) = Stage::set(Options::default(), User::Tester).await else { return };
    let uri = output_of(&stage.start(json!({"command": "sleep 100"})).await);
    let call = |tool: &str, arguments: Value| {
        stage.client.begin("tools/call", json!({"name": tool, "arguments": arguments}))
    };
    for _ in 0..3 {
        let mut opening = Vec::new();
        for _ in 0..100 {
            opening.push(call("sub_open", json!({"uri": uri})).await);
        }
        let mut opened = Vec::new();
        for open in opening {
            let answer = ToolAnswer::parse(&open.result().await.unwrap());
            match answer.is_error {
                false => opened.push(field(&answer, "sub_id")),
                true => assert_eq!(field(&answer, "code"), "MAX_SUBS_PER_URI_EXCEEDED", "{}", answer.text),
            }
        }
        assert_eq!(opened.len(), 16);
        assert_eq!(stage.ok("sub_stats_all", json!({})).await.structured[TOTAL], 16);
        let mut closing = Vec::new();
        for lane in opened {
            closing.push(call("sub_close", json!({"sub_id": lane})).await);
        }
        for close in closing {
            let answer = ToolAnswer::parse(&close.result().await.unwrap());
            assert_eq!(answer.structured["status"], "ok", "{}", answer.text);
        }
        assert_eq!(stage.ok("sub_stats_all", json!({})).await.structured[TOTAL], 0);
    }
}

#[tokio::test]
async fn the_end_of_input_ends_a_listen_and_the_process_at_once() {
    let Some(mut stage) = Stage::set_in(Era::MODERN, Options::default(), User::Tester, &[]).await else {
        return;
    };
    let uri = output_of(&stage.start(json!({"command": "echo here; sleep 100"})).await);
    let filter = json!({"resourceSubscriptions": [uri], "resourcesListChanged": true});
    let listen = stage.client.begin("subscriptions/listen", json!({"notifications": filter})).await;
    stage.client.notification(|note| note["params"]["uri"] == uri.as_str()).await;
    assert!(listen.is_open());
    let closed = Instant::now();
    stage.client.close_input();
    let status = stage.client.ended().await;
    let took = closed.elapsed();
    assert_eq!(status.code(), Some(0), "{}", stage.client.log());
    // A call that is being worked on would have 2 s; a listen is none.
    assert!(took < Duration::from_millis(1500), "{took:?}");
}
