//! Lanes that fall behind: paused ones, each policy, replays, and clients that do not read.

use super::*;

#[tokio::test]
async fn a_paused_lane_changes_nothing_for_another_on_a_noisy_shell() {
    // subscriptions 13.1; a few seconds instead of its minute: nothing of a pause depends on how long it lasts.
    let Some(stage) = Stage::set_for_bytes(Era::LEGACY_2025_11, &[]).await else { return };
    let shell = stage.shell().await;
    let uri = format!("shell://{shell}/output");
    let paused = stage.open_lane(&uri, json!({"debounce_ms": 5})).await;
    let other = stage.open_lane(&uri, json!({"debounce_ms": 5})).await;
    stage.write(&shell, "while :; do echo noise; sleep 0.01; done &\n").await;
    stage.story(&other, |story| story.has("noise\r\nnoise")).await;
    let round_trip = async |mark: String| {
        stage.write(&shell, &format!("echo {mark}$((1+1))\n")).await;
        stage.story(&other, |story| story.has(&format!("{mark}2"))).await;
    };
    let before = median(async |nth| round_trip(format!("before{nth}-")).await).await;
    stage.ok("sub_pause", json!({"sub_id": paused})).await;
    // The message in flight may still come; all others wait.
    let at_pause = Story::of(&stage.client.notifications(), &paused);
    let (since, mut during) = (Instant::now(), Vec::new());
    while since.elapsed() < Duration::from_secs(2) {
        let turn = during.len();
        during.push(median(async |nth| round_trip(format!("during{turn}-{nth}-")).await).await);
    }
    let silent = Story::of(&stage.client.notifications(), &paused);
    assert!(silent.pieces.len() <= at_pause.pieces.len() + 1, "{silent:?}");
    assert!(
        during.iter().all(|trip| is_like(*trip, before)),
        "{during:?} with a paused lane, {before:?} without"
    );

    stage.ok("sub_resume", json!({"sub_id": paused})).await;
    round_trip("last".to_owned()).await;
    let (first, second) = (
        stage.story(&paused, |story| story.has("last2")).await,
        stage.story(&other, |story| story.has("last2")).await,
    );
    let same = first.bytes.len().min(second.bytes.len());
    assert_eq!(first.bytes[..same], second.bytes[..same]);
    assert_eq!((first.gap, second.gap), (0, 0));
}

/// Lines that come one by one, so that each is an event of a lane with the shortest debounce.
const LINES: u32 = 100;

/// `SSH_LANE_BUFFER`.
const QUEUE: u64 = 16;

#[tokio::test]
async fn each_policy_loses_what_it_says_and_no_more() {
    // subscriptions 13.3
    let Some(stage) = Stage::set_for_bytes(Era::LEGACY_2025_11, &[("SSH_LANE_BUFFER", "16")]).await else {
        return;
    };
    let paced = format!("for i in $(seq 101 {}); do echo $i; sleep 0.02; done", 100 + LINES);
    let rest = format!("{}; echo tail", await_gate("rest"));
    let uri = stage.start_at_gate("go", &format!("{paced}; touch ~/said; {rest}")).await;
    let whole: String = (101..=100 + LINES).map(|number| format!("{number}\n")).collect();
    let all = whole.len() as u64;

    let mut lanes = Vec::new();
    for policy in ["drop_oldest", "drop_newest", "snapshot", "block_slow"] {
        let lane = stage.open_lane(&uri, json!({"lag_policy": policy, "debounce_ms": 5})).await;
        stage.ok("sub_pause", json!({"sub_id": lane})).await;
        lanes.push(lane);
    }
    stage.go("go");
    let said = stage.server.home(User::Tester).join("said");
    until("said", async || said.exists()).await;
    let produced = format!("{uri}?cursor=0&stream=merged");
    until("all in the history", async || {
        stage.client.read_resource(&produced).await.unwrap()[0]["text"] == whole
    })
    .await;
    for lane in &lanes {
        let stats = stage.ok("sub_stats", json!({"sub_id": lane})).await;
        assert_eq!(stats.structured["queue_high_watermark"], QUEUE, "{}", stats.text);
        assert_eq!(stats.structured["events_sent"], 0, "{}", stats.text);
        stage.ok("sub_resume", json!({"sub_id": lane})).await;
    }
    // What was held comes before what is news.
    for lane in &lanes {
        stage.story(lane, |story| !story.pieces.is_empty()).await;
    }
    stage.go("rest");
    let mut stories = Vec::new();
    for lane in &lanes {
        let story = stage.whole_story(lane).await;
        assert_eq!(story.gap + story.bytes.len() as u64, all + 5, "{story:?}");
        let stats = stage.ok("sub_stats", json!({"sub_id": lane})).await.structured;
        assert_eq!(stats["lagged_drops"], story.dropped, "{stats}");
        stories.push(story);
    }
    let [oldest, newest, snapshot, block] = stories.try_into().unwrap();

    // A line is an event, unless the machine was so busy that two became one.
    for story in [&oldest, &newest] {
        assert!(story.dropped > 0 && story.dropped + QUEUE <= u64::from(LINES), "{story:?}");
        assert!(story.gap >= 4 * story.dropped, "{story:?}");
        assert_eq!((story.count("gap_bytes"), story.count("dropped")), (1, 1), "{story:?}");
        assert_eq!(story.count("snapshot"), 0);
    }
    let lost = usize::try_from(oldest.gap).unwrap();
    assert_eq!(oldest.text(), format!("{}tail\n", &whole[lost..]));
    assert!(oldest.pieces[0]["gap_bytes"].is_u64(), "{oldest:?}");

    let survived = usize::try_from(all - newest.gap).unwrap();
    assert_eq!(newest.text(), format!("{}tail\n", &whole[..survived]));
    let marked = newest.pieces.iter().find(|piece| piece["gap_bytes"].is_u64()).unwrap();
    assert_eq!(marked["text"], "tail\n", "the hole is marked where it is");

    for story in [&snapshot, &block] {
        assert_eq!(story.text(), format!("{whole}tail\n"));
        assert_eq!((story.gap, story.dropped), (0, 0));
    }
    assert_eq!((&snapshot.pieces[0]["snapshot"], block.count("snapshot")), (&json!(true), 0), "{snapshot:?}");
    let stats = stage.ok("sub_stats", json!({"sub_id": lanes[2]})).await.structured;
    assert_eq!(stats["lagged_recoveries"], 1);
}

#[tokio::test]
async fn replays_while_output_comes_join_to_the_raw_history() {
    // subscriptions 13.5
    let Some(stage) = Stage::set_for_bytes(Era::LEGACY_2025_11, &[]).await else { return };
    let bursts = "for i in $(seq 60); do seq 1 2000; sleep 0.02; done";
    let uri = stage.start_at_gate("go", bursts).await;
    let lane = stage.open_lane(&uri, json!({"debounce_ms": 5})).await;
    stage.go("go");
    let raw = numbers(2000).repeat(60);
    for reached in [10_000, 100_000, 300_000] {
        let before = stage.story(&lane, |story| story.bytes.len() >= reached).await;
        assert!(raw.as_bytes().starts_with(&before.bytes));
        let answer = stage.ok("sub_replay", json!({"sub_id": lane})).await;
        let facts = &answer.structured;
        assert_eq!(
            (&facts["from_cursor"], &facts["overflow"]),
            (&json!(0), &json!(false)),
            "{}",
            answer.text
        );
        // `Story` holds it to beginning at 0 again, and to joining from there on.
        stage.story(&lane, |story| story.count("replay") > before.count("replay")).await;
    }
    let story = stage.whole_story(&lane).await;
    assert!(story.text() == raw, "{} bytes of {}", story.bytes.len(), raw.len());
    assert_eq!((story.gap, story.dropped), (0, 0));
    let again = story.pieces.iter().filter(|piece| piece["replay"] == true);
    assert_eq!(again.filter(|piece| piece["cursor_after"] == piece["len"]).count(), 3, "each begins at 0");
}

#[tokio::test]
async fn a_client_that_stops_reading_its_pipe_is_brought_up_from_the_history() {
    let env = [("SSH_COMMAND_MAX_BUFFER_SIZE", "64k"), ("SSH_LANE_BUFFER", "16")];
    let Some(stage) = Stage::set_for_bytes(Era::LEGACY_2025_11, &env).await else { return };
    // Bursts, since a lane that is looked at once has one event.
    let bursts = "for i in $(seq 40); do seq 1 5000; sleep 0.02; done; touch ~/over";
    let uri = stage.start_at_gate("go", bursts).await;
    let lane = stage.open_lane(&uri, json!({"debounce_ms": 5})).await;
    stage.client.stop_reading();
    stage.go("go");
    // The remote side is never held.
    let over = stage.server.home(User::Tester).join("over");
    until("over", async || over.exists()).await;
    stage.client.read_on();
    let story = stage.whole_story(&lane).await;
    let raw = numbers(5000).repeat(40);
    assert_eq!(story.bytes.len() as u64 + story.gap, raw.len() as u64);
    assert!(story.gap > 0 && story.count("snapshot") > 0, "it has fallen behind: {:?}", story.pieces.last());
    assert!(raw.as_bytes().ends_with(&story.bytes[story.bytes.len() - 10_000..]));
}
