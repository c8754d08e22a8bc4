//! Lanes over HTTP: streams that are read and streams that are not, clients that leave and clients that vanish.

use super::site::{Site, connect, ok, open_lane, story, whole_story};
use super::*;
use crate::web::{Ending, Web};

/// Long before the sweep, on any machine.
const SOON: Duration = Duration::from_secs(10);

/// More than the sockets between a client that does not read and the product hold.
const FLOOD: u32 = 1_200_000;

#[tokio::test]
async fn a_client_that_does_not_read_its_stream_holds_up_nobody_else() {
    // subscriptions 13.2; the history holds all of it, so that this test may itself be slow.
    let Some(site) = Site::set(&[("SSH_COMMAND_MAX_BUFFER_SIZE", "64m")]).await else { return };
    let stdio = Stage::set_for_bytes(Era::LEGACY_2025_11, &[]).await.unwrap();
    let stuck = Web::in_session(&site.product, takes_bytes()).await;
    let mut unread = stuck.stream().await;
    let mut read = site.client.stream().await;
    let uri = site.start_at_gate("go", &format!("seq 1 {FLOOD}; {}", await_gate("end"))).await;
    let elsewhere = stdio.start_at_gate("go", "seq 1 100000").await;
    let slow = open_lane(&stuck, &uri, json!({})).await;
    let quick = open_lane(&site.client, &uri, json!({})).await;
    let piped = stdio.open_lane(&elsewhere, json!({})).await;
    open_gate(&site.server, "go");
    stdio.go("go");

    let whole = numbers(FLOOD);
    let heard = read.hear(|heard| Story::up_to(heard, &quick, whole.len())).await;
    assert!(heard.text() == whole, "{} bytes of {}", heard.bytes.len(), whole.len());
    let heard = stdio.whole_story(&piped).await;
    assert!(heard.text() == numbers(100_000) && heard.gap == 0);
    // Another client asks after it: its own answers may be held up by its stream.
    let stats = ok(&site.client, "sub_stats", json!({"sub_id": slow})).await;
    assert!(stats.structured["lag_bytes"].as_u64().unwrap() > 0, "it is not stuck: {}", stats.text);

    open_gate(&site.server, "end");
    let heard = whole_story(&mut unread, &slow).await;
    assert_eq!(heard.bytes.len() as u64 + heard.gap, whole.len() as u64);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_stream_is_answered_all_the_same() {
    let Some(site) = Site::set(&[("SSH_COMMAND_MAX_BUFFER_SIZE", "64m")]).await else { return };
    let stuck = Web::in_session(&site.product, takes_bytes()).await;
    let mut unread = stuck.stream().await;
    let uri = site.start_at_gate("go", &format!("seq 1 {FLOOD}; {}", await_gate("end"))).await;
    let lane = open_lane(&stuck, &uri, json!({})).await;
    let quiet = open_lane(&stuck, &site.start("sleep 100").await, json!({})).await;
    open_gate(&site.server, "go");
    site.warned(&lane, "MUX_BACKPRESSURE").await;

    // Before the stream of a client that does not read is ended, which takes half a minute.
    let asked = Instant::now();
    for _ in 0..20 {
        ok(&stuck, "sub_stats", json!({"sub_id": lane})).await;
    }
    let read = format!("{uri}?cursor=0&stream=merged&max_bytes=10");
    let read = stuck.request("resources/read", json!({"uri": read})).await.unwrap();
    assert_eq!(read["contents"][0]["text"], "1\n2\n3\n4\n5\n");
    let refused = stuck.request("resources/read", json!({"uri": "command://"})).await;
    assert!(refused.is_err(), "{refused:?}");
    ok(&stuck, "sub_close", json!({"sub_id": quiet})).await;
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());

    // And it has missed nothing.
    let whole = numbers(FLOOD);
    let heard = unread.hear(|heard| Story::up_to(heard, &lane, whole.len())).await;
    assert!(heard.text() == whole, "{} bytes of {}", heard.bytes.len(), whole.len());
    open_gate(&site.server, "end");
    whole_story(&mut unread, &lane).await;
}

#[tokio::test]
async fn a_lane_that_blocks_and_never_reads_costs_nobody_time_or_memory() {
    // subscriptions 13.4
    const BUFFER: u64 = 1 << 20;
    let env = [("SSH_COMMAND_MAX_BUFFER_SIZE", "1m"), ("SSH_BP_BLOCK_TIMEOUT_MS", "1000")];
    let Some(site) = Site::set(&env).await else { return };
    // The same without anybody who watches, so that what is measured is what a stuck client adds.
    let unwatched = site.start(&format!("seq 1 {FLOOD}")).await;
    site.ended(&unwatched).await;

    let session = connect(&site.server, &site.client).await;
    let open = json!({"session_id": session, "shell": "/bin/sh"});
    let shell = field(&ok(&site.client, "ssh_shell_open", open.clone()).await, "shell_id");
    let mut stream = site.client.stream().await;
    let own = open_lane(&site.client, &format!("shell://{shell}/output"), json!({"debounce_ms": 5})).await;
    let mut round_trip = async |mark: String| {
        let write = json!({"shell_id": shell, "input": format!("echo {mark}$((1+1))\n")});
        ok(&site.client, "ssh_shell_write", write).await;
        story(&mut stream, &own, |story| story.has(&format!("{mark}2"))).await;
    };

    let stuck = Web::in_session(&site.product, takes_bytes()).await;
    let mut unread = stuck.stream().await;
    let flood = format!("seq 1 {FLOOD}; {}", await_gate("end"));
    let whole = numbers(FLOOD);
    let uri = site.start_at_gate("go", &flood).await;
    let lane = open_lane(&stuck, &uri, json!({"lag_policy": "block_slow", "debounce_ms": 5})).await;
    // What sockets take in would pass for reading, so they are filled first, until the product says that nothing goes out.
    let filler = field(&ok(&site.client, "ssh_shell_open", open).await, "shell_id");
    let fills = open_lane(&stuck, &format!("shell://{filler}/output"), json!({})).await;
    let fill = json!({"shell_id": filler, "input": format!("seq 1 {FLOOD}\n")});
    ok(&site.client, "ssh_shell_write", fill).await;
    site.warned(&fills, "MUX_BACKPRESSURE").await;

    let before = median(async |nth| round_trip(format!("before{nth}-")).await).await;
    let memory = site.memory("VmRSS");
    open_gate(&site.server, "go");
    // From then on the lane no longer holds the history back.
    site.warned(&lane, "LAG_BACKPRESSURE").await;
    let during = median(async |nth| round_trip(format!("during{nth}-")).await).await;
    assert!(is_like(during, before), "{during:?} with a stuck client, {before:?} without");
    until("all in the history", async || {
        let stats = ok(&site.client, "sub_stats", json!({"sub_id": lane})).await.structured;
        let [cursor, lag] = ["cursor", "lag_bytes"].map(|field| stats[field].as_u64().unwrap());
        assert_eq!(cursor, 0, "it is not stuck: {stats}");
        lag == whole.len() as u64
    })
    .await;
    let added = site.memory("VmHWM").saturating_sub(memory);
    assert!(added <= 2 * BUFFER + (8 << 20), "{added} bytes more");

    open_gate(&site.server, "end");
    let heard = whole_story(&mut unread, &lane).await;
    assert_eq!(heard.bytes.len() as u64 + heard.gap, whole.len() as u64);
    assert!(heard.gap > 0 && heard.count("snapshot") > 0, "{:?}", heard.pieces.last());
    assert!(whole.as_bytes().ends_with(&heard.bytes[heard.bytes.len() - 100_000..]));
    let stats = ok(&site.client, "sub_stats", json!({"sub_id": lane})).await;
    assert_eq!(stats.structured["gap_bytes"], heard.gap, "{}", stats.text);
}

#[tokio::test]
async fn ten_clients_that_vanish_leave_no_lane() {
    // subscriptions 13.7
    let Some(site) = Site::set(&[]).await else { return };
    let uri = site.start("sleep 100").await;
    let filter = json!({"resourceSubscriptions": [uri]});
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(Web::modern(&site.product, takes_bytes()).listen(filter.clone()).await);
    }
    until("all there", async || ok(&site.client, "sub_list", json!({})).await.structured["subs_total"] == 10)
        .await;
    let vanished = Instant::now();
    drop(streams);
    site.no_lane_left(vanished, Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_hundred_listens_that_vanish_at_any_moment_leave_no_lane() {
    let Some(site) = Site::set(&[("SSH_MAX_SUBS_PER_URI", "128")]).await else { return };
    let uri = site.start("while :; do echo noise; sleep 0.01; done").await;
    // A lane that speaks is also missed by whom it speaks to; one that is silent is not.
    let silent = site.start("sleep 100").await;
    let filter = json!({"resourceSubscriptions": [uri, silent], "resourcesListChanged": true});
    let mut streams = Vec::new();
    for nth in 0..100 {
        let client = Web::modern(&site.product, takes_bytes());
        match nth % 4 {
            0 => client.listen_and_vanish(filter.clone()).await,
            1 => drop(client.listen(filter.clone()).await),
            2 => streams.push(client.listen(filter.clone()).await),
            _ => {
                let mut events = client.listen(filter.clone()).await;
                story(&mut events, &uri, |story| story.has("noise")).await;
                streams.push(events);
            }
        }
    }
    let vanished = Instant::now();
    drop(streams);
    site.no_lane_left(vanished, SOON).await;
    // Another client of the same owner sees none either, and the places are free.
    let other = Web::modern(&site.product, takes_bytes());
    assert_eq!(ok(&other, "sub_list", json!({})).await.structured["subs_total"], 0);
    let listed = ok(&other, "ssh_resources", json!({"kind": "command"})).await;
    for resource in listed.structured["resources"].as_array().unwrap() {
        assert_eq!(resource["observers"], 0, "{}", listed.text);
    }
}

#[tokio::test]
async fn a_signal_ends_every_stream_in_order() {
    let Some(mut site) = Site::set(&[]).await else { return };
    let uri = site.start("echo here; sleep 100").await;
    let mut stream = site.client.stream().await;
    let lane = open_lane(&site.client, &uri, json!({})).await;
    let filter = json!({"resourceSubscriptions": [uri]});
    let mut pushed = Web::modern(&site.product, takes_bytes()).listen(filter.clone()).await;
    let mut told = Web::modern(&site.product, json!({})).listen(filter).await;
    story(&mut stream, &lane, |story| story.has("here")).await;
    story(&mut pushed, &uri, |story| story.has("here")).await;
    told.notification(|note| note["params"]["uri"] == uri.as_str()).await;

    site.product.signal("TERM");
    let (heard, ending) = stream.rest().await;
    let last = Story::of(&heard, &lane).pieces.last().cloned().unwrap();
    assert_eq!((&last["closed"], ending), (&json!(true), Ending::Clean), "{heard:?}");
    let (heard, ending) = pushed.rest().await;
    let last = Story::of(&heard, &uri).pieces.last().cloned().unwrap();
    assert_eq!((&last["closed"], ending), (&json!(true), Ending::Clean), "{heard:?}");
    assert!(pushed.answer().await.is_ok(), "{heard:?}");
    let (heard, ending) = told.rest().await;
    assert_eq!(ending, Ending::Clean);
    assert!(told.answer().await.is_ok(), "{heard:?}");
    assert_eq!(site.product.wait().code(), Some(0));
}

#[tokio::test]
async fn a_request_that_stands_alone_is_told_how_to_subscribe() {
    let Some(site) = Site::set(&[]).await else { return };
    let uri = site.start("sleep 100").await;
    for client in [Web::plain(&site.product), Web::modern(&site.product, takes_bytes())] {
        let refused = client.call("sub_open", json!({"uri": uri})).await;
        assert_eq!(refused.structured["code"], "INVALID_ARGUMENT", "{}", refused.text);
        let detail = field(&refused, "detail");
        assert!(detail.contains("subscriptions/listen"), "{detail}");
    }
    assert_eq!(ok(&site.client, "sub_list", json!({})).await.structured["subs_total"], 0);
}

#[tokio::test]
async fn an_http_session_is_notified_on_its_stream_and_its_lanes_end_with_it() {
    let Some(site) = Site::set(&[]).await else { return };
    let uri = site.start_at_gate("go", "echo here; sleep 100").await;
    let client = Web::in_session(&site.product, json!({})).await;
    let mut stream = client.stream().await;
    client.request("resources/subscribe", json!({"uri": uri})).await.unwrap();
    ok(&client, "sub_open", json!({"uri": uri})).await;
    open_gate(&site.server, "go");
    stream
        .hear(|heard| {
            let told = heard.iter().filter(|note| note["method"] == UPDATED && note["params"]["uri"] == uri);
            (told.count() == 2).then_some(())
        })
        .await;
    let read = client
        .request("resources/read", json!({"uri": format!("{uri}?cursor=auto&stream=merged")}))
        .await
        .unwrap();
    assert_eq!(read["contents"][0]["text"], "here\n");
    assert_eq!(ok(&site.client, "sub_list", json!({})).await.structured["subs_total"], 2);
    let left = Instant::now();
    client.leave().await;
    site.no_lane_left(left, SOON).await;
    assert_eq!(stream.rest().await.1, Ending::Clean);
}

#[tokio::test]
async fn a_stream_of_notifications_is_resumed_and_that_of_an_answered_call_is_not() {
    let Some(site) = Site::set(&[]).await else { return };
    let mut stream = site.client.stream().await;
    let told = |uri: String| move |note: &Value| note["params"]["uri"] == uri.as_str();
    let lane = async || {
        let uri = site.start("echo here; sleep 100").await;
        site.client.request("resources/subscribe", json!({"uri": uri})).await.unwrap();
        uri
    };
    // The SDKs of the 1.x lines take a call that was answered with an error for one that was not answered.
    for (method, params, is_answered) in [
        ("resources/read", json!({"uri": "command://"}), false),
        ("tools/call", json!({"name": "ssh_sessions", "arguments": {}}), true),
    ] {
        let mut call = site.client.post(method, params).await;
        assert_eq!(call.answer().await.is_ok(), is_answered);
        assert_eq!(call.rest().await.1, Ending::Clean);
        assert!(call.last_event.contains('/'), "{}", call.last_event);
        assert_eq!(site.client.resume(&call.last_event).await.status, 405);
    }
    stream.notification(told(lane().await)).await;

    // Its client was cut off, and hears what was said meanwhile.
    let last = stream.last_event.clone();
    stream.hang_up().await;
    let mut resumed = site.client.resume(&last).await;
    assert_eq!(resumed.status, 200);
    resumed.notification(told(lane().await)).await;
    // The server may not have noticed, because the connection only fell silent: whoever resumes goes on all the same.
    let mut again = site.client.resume(&resumed.last_event.clone()).await;
    assert_eq!(again.status, 200);
    assert_eq!(resumed.rest().await.1, Ending::Clean);
    again.notification(told(lane().await)).await;
    // A new one takes its place as well.
    let mut anew = site.client.stream().await;
    assert_eq!(again.rest().await.1, Ending::Clean);
    anew.notification(told(lane().await)).await;
    site.client.leave().await;
}
