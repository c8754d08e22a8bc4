//! Lanes as clients of both eras meet them: tools, subscriptions, notifications, reads, waits.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use ssh_mcp_core::history::Origin;
use ssh_mcp_testkit::host::{Script, ScriptedHost};

use super::{
    rig::{Answered, Rig, settings},
    wire::{Client, LIST},
};

const SECOND: Duration = Duration::from_secs(1);
const UPDATED: &str = "notifications/resources/updated";
const OUTPUT: &str = "notifications/ssh/output";

/// A server with one session on which some commands exist.
struct World {
    rig: Rig,
    session: String,
}

impl World {
    async fn new() -> Self {
        Self::with(settings()).await
    }

    async fn with(settings: ssh_mcp_core::settings::Settings) -> Self {
        let host = ScriptedHost::new()
            .on("hi", Script::new().out("hi\n").exit(0))
            .on(
                "slow",
                Script::new()
                    .after(SECOND)
                    .out("a1\nb1\n")
                    .after(SECOND)
                    .out("a2\nlogin: ")
                    .after(SECOND)
                    .exit(3),
            )
            .on("silent", Script::new());
        let rig = Rig::with(host, settings);
        let session = rig.session().await;
        Self { rig, session }
    }

    /// Starts a command; its URI.
    async fn start(&self, command: &str) -> String {
        let asked = json!({ "session_id": self.session, "command": command });
        let started = self.rig.ok("ssh_exec", asked).await;
        format!("command://{}/output", started.fact("command_id"))
    }

    /// A command that is over.
    async fn over(&self) -> String {
        let uri = self.start("hi").await;
        pass(SECOND).await;
        uri
    }

    async fn open(&self, arguments: Value) -> Answered {
        self.rig.ok("sub_open", arguments).await
    }

    async fn refused(&self, tool: &str, arguments: Value) -> (String, String) {
        let failed = self.rig.fails(tool, arguments).await;
        (failed.fact("code"), failed.fact("reason"))
    }

    /// Adds bytes to a command's output.
    fn say(&self, uri: &str, text: &str) {
        let id = uri.trim_start_matches("command://").trim_end_matches("/output");
        let engine = self.rig.shared.engine();
        let command = engine.command(&self.rig.owner, id.parse().unwrap()).unwrap();
        command.history.append(Origin::Stdout, text.as_bytes());
    }
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

fn sub_id(answered: &Answered) -> String {
    answered.fact("sub_id")
}

#[tokio::test(start_paused = true)]
async fn an_opened_lane_says_how_it_is_set_and_what_to_do() {
    let world = World::new().await;
    let uri = world.start("silent").await;
    let asked = json!({ "uri": format!("{}?cursor=7", uri.replace("command", "COMMAND")), "lifetime": "Lease",
        "ttl_secs": 90, "lag_policy": "Block-Slow", "filter": "a.c", "debounce_ms": "50ms", "flush_bytes": "16k" });
    let opened = world.open(asked).await;
    let id = sub_id(&opened);
    let head = format!(
        "SUB_OPEN: OK\nSUB_ID: {id}\nURI: {uri}\nLIFETIME: lease\nLAG_POLICY: block_slow\nGRACE_MS: 2000\n\
        TTL_SECS: 90\nFILTER: a.c\nCURSOR: 0\nHINT: REQUIRED NEXT STEP: keep SUB_ID {id}"
    );
    assert!(opened.text.starts_with(&head), "{}", opened.text);
    assert!(
        opened.text.contains(&format!("NEXT: sub_pause(sub_id=\"{id}\") | sub_resume(")),
        "{}",
        opened.text
    );
    let stats = world.rig.ok("sub_stats", json!({ "sub_id": id.to_uppercase() })).await;
    assert_eq!(
        (&stats.facts["effective_debounce_ms"], &stats.facts["effective_flush_bytes"]),
        (&json!(50), &json!(16384))
    );
    assert!(stats.facts["expires_at"].is_string());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_opened_has_its_code_and_the_first_fault_wins() {
    let world = World::new().await;
    let uri = world.start("silent").await;
    let gone = world.start("silent").await;
    let id = gone.trim_start_matches("command://").trim_end_matches("/output").to_owned();
    world.rig.ok("ssh_exec_cancel", json!({ "command_id": id })).await;
    let unknown = "command://0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b/output";
    let huge = "(x{1000}){1000}";
    for (arguments, code) in [
        (json!({ "uri": "ftp://x/output", "lifetime": "x" }), "INVALID_ARGUMENT"),
        (json!({ "uri": unknown, "lifetime": "x", "filter": "(" }), "RESOURCE_NOT_FOUND"),
        (json!({ "uri": "command://nonsense/output" }), "RESOURCE_NOT_FOUND"),
        (json!({ "uri": uri, "lifetime": "x", "lag_policy": "x", "filter": "(" }), "INVALID_LIFETIME"),
        (json!({ "uri": uri, "lifetime": "lease", "ttl_secs": 0 }), "INVALID_LIFETIME"),
        (json!({ "uri": uri, "lifetime": "lease", "ttl_secs": -1 }), "INVALID_LIFETIME"),
        (json!({ "uri": uri, "lifetime": "lease", "ttl_secs": 86_401 }), "INVALID_LIFETIME"),
        (json!({ "uri": uri, "lag_policy": "x", "filter": "(" }), "INVALID_LAG_POLICY"),
        (json!({ "uri": uri, "start": -1, "filter": "(" }), "INVALID_ARGUMENT"),
        (json!({ "uri": uri, "start": "then" }), "INVALID_ARGUMENT"),
        (json!({ "uri": uri, "debounce_ms": "soon" }), "INVALID_ARGUMENT"),
        (json!({ "uri": uri, "flush_bytes": -1 }), "INVALID_ARGUMENT"),
        (json!({ "uri": uri, "filter": "(" }), "FILTER_INVALID"),
        (json!({ "uri": uri, "filter": "(?=x)" }), "FILTER_INVALID"),
        (json!({ "uri": uri, "filter": huge }), "FILTER_INVALID"),
        (json!({ "uri": uri, "filter": "x".repeat(1025) }), "FILTER_INVALID"),
        (json!({ "uri": gone, "filter": "(" }), "FILTER_INVALID"),
        (json!({ "uri": gone }), "RESOURCE_GONE"),
    ] {
        let (found, reason) = world.refused("sub_open", arguments.clone()).await;
        assert_eq!(found, code, "{arguments}: {reason}");
    }
    let all = world.rig.ok("sub_stats_all", json!({})).await;
    assert_eq!((&all.facts["lanes_total"], &all.facts["events_sent_total"]), (&json!(0), &json!(0)));
}

#[tokio::test(start_paused = true)]
async fn limits_are_told_with_their_number() {
    let world =
        World::with(ssh_mcp_core::settings::Settings { lanes_per_uri: 2, lanes_total: 3, ..settings() })
            .await;
    let (one, two) = (world.start("silent").await, world.start("silent").await);
    for uri in [&one, &one, &two] {
        world.open(json!({ "uri": uri })).await;
    }
    let full = world.rig.fails("sub_open", json!({ "uri": one })).await;
    assert_eq!(full.fact("code"), "MAX_SUBS_PER_URI_EXCEEDED");
    assert!(full.fact("detail").contains("limit=2"));
    assert_eq!(world.refused("sub_open", json!({ "uri": two })).await.0, "MAX_SUBS_TOTAL_EXCEEDED");
    assert_eq!(world.rig.ok("sub_stats_all", json!({})).await.facts["lanes_total"], 3);
}

#[tokio::test(start_paused = true)]
async fn timing_out_of_range_is_held_to_its_bounds_and_told() {
    let world = World::new().await;
    let uri = world.start("silent").await;
    let opened = world.open(json!({ "uri": uri, "debounce_ms": 1, "flush_bytes": "9m" })).await;
    let codes: Vec<&str> = opened.facts["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|warned| warned["code"].as_str())
        .collect();
    assert_eq!(codes, ["NOTIFY_OVERRIDE_CLAMPED"; 2]);
    let stats = world.rig.ok("sub_stats", json!({ "sub_id": sub_id(&opened) })).await;
    assert_eq!(
        (&stats.facts["effective_debounce_ms"], &stats.facts["effective_flush_bytes"]),
        (&json!(5), &json!(1 << 20))
    );
    let off = world.open(json!({ "uri": uri, "flush_bytes": 0 })).await;
    let stats = world.rig.ok("sub_stats", json!({ "sub_id": sub_id(&off) })).await;
    assert_eq!(stats.facts["effective_flush_bytes"], 0);
}

#[tokio::test(start_paused = true)]
async fn lanes_are_their_owners_and_close_once() {
    let world = World::new().await;
    let uri = world.start("silent").await;
    let id = sub_id(&world.open(json!({ "uri": uri })).await);
    let stranger = world.rig.as_owner("other");
    for tool in ["sub_pause", "sub_resume", "sub_stats", "sub_replay"] {
        assert_eq!(
            stranger.fails(tool, json!({ "sub_id": id })).await.fact("code"),
            "SUB_NOT_FOUND",
            "{tool}"
        );
    }
    assert_eq!(
        stranger.fails("sub_filter", json!({ "sub_id": id, "regex": "" })).await.fact("code"),
        "SUB_NOT_FOUND"
    );
    assert_eq!(stranger.ok("sub_list", json!({})).await.facts["subs_total"], 0);
    assert_eq!(stranger.ok("sub_close", json!({ "sub_id": id })).await.header(), "SUB_CLOSE: NOT_FOUND");
    assert_eq!(stranger.ok("sub_stats_all", json!({})).await.facts["lanes_total"], 0);

    let mut typo = id.clone();
    typo.replace_range(35.., if id.ends_with('0') { "1" } else { "0" });
    let failed = world.rig.fails("sub_pause", json!({ "sub_id": typo })).await;
    assert!(failed.fact("detail").contains(&id), "{}", failed.text);
    assert_eq!(world.refused("sub_pause", json!({ "sub_id": "x" })).await.0, "INVALID_ARGUMENT");
    assert_eq!(world.refused("sub_close", json!({ "sub_id": "x" })).await.0, "INVALID_ARGUMENT");

    let closed = world.rig.ok("sub_close", json!({ "sub_id": id })).await;
    assert_eq!(closed.text, format!("SUB_CLOSE: OK\nSUB_ID: {id}\nURI: {uri}\nLIFECYCLE_STATE: owned"));
    assert_eq!(world.rig.ok("sub_close", json!({ "sub_id": id })).await.header(), "SUB_CLOSE: NOT_FOUND");
}

#[tokio::test(start_paused = true)]
async fn a_lane_is_paused_resumed_filtered_and_replayed() {
    let world = World::new().await;
    let uri = world.start("silent").await;
    let id = sub_id(&world.open(json!({ "uri": uri })).await);
    let steer = |tool: &'static str| world.rig.ok(tool, json!({ "sub_id": id }));
    assert_eq!(steer("sub_resume").await.header(), "SUB_RESUME: NOOP");
    assert_eq!(steer("sub_pause").await.text.lines().nth(2), Some("STATE: paused"));
    assert_eq!(steer("sub_pause").await.header(), "SUB_PAUSE: NOOP");
    world.say(&uri, "a1\nb1\n");
    pass(SECOND).await;
    assert_eq!(world.rig.outlet.heard().len(), 0);
    assert_eq!(steer("sub_resume").await.header(), "SUB_RESUME: OK");
    pass(SECOND).await;
    assert_eq!(world.rig.outlet.heard().len(), 1);

    let swapped = world.rig.ok("sub_filter", json!({ "sub_id": id, "regex": "a" })).await;
    assert_eq!(swapped.fact("filter"), "regex:a");
    assert_eq!(world.refused("sub_filter", json!({ "sub_id": id, "regex": "(" })).await.0, "FILTER_INVALID");
    world.say(&uri, "a2\nb2\n");
    pass(SECOND).await;
    let through = format!("{uri}?sub_id={id}&cursor=auto&stream=merged");
    let (body, meta) = world.rig.read(&through).unwrap();
    assert_eq!((body.as_str(), &meta["cursor"]), ("a1\nb1\na2\n", &json!(12)));
    let cleared = world.rig.ok("sub_filter", json!({ "sub_id": id, "regex": "" })).await;
    assert_eq!(cleared.fact("filter"), "none");

    let replayed = world.rig.ok("sub_replay", json!({ "sub_id": id, "from_cursor": 3 })).await;
    assert_eq!((&replayed.facts["from_cursor"], &replayed.facts["bytes"]), (&json!(3), &json!(9)));
    assert_eq!(world.rig.read(&through).unwrap().0, "b1\na2\nb2\n");
    let beyond = world.refused("sub_replay", json!({ "sub_id": id, "from_cursor": 13 })).await;
    assert_eq!(beyond.0, "INVALID_ARGUMENT");
    assert!(beyond.1.contains("at most 12"), "{}", beyond.1);
}

#[tokio::test(start_paused = true)]
async fn a_replay_of_what_is_gone_says_where_it_begins() {
    let world = World::with(ssh_mcp_core::settings::Settings { command_history: 4096, ..settings() }).await;
    let uri = world.start("silent").await;
    let id = sub_id(&world.open(json!({ "uri": uri })).await);
    world.say(&uri, &"x".repeat(5000));
    let replayed = world.rig.ok("sub_replay", json!({ "sub_id": id, "from_cursor": 10 })).await;
    assert_eq!((&replayed.facts["from_cursor"], &replayed.facts["overflow"]), (&json!(904), &json!(true)));
    assert!(replayed.text.contains("WARN: RING_BUFFER_OVERFLOW"), "{}", replayed.text);
    let whole = world.rig.ok("sub_replay", json!({ "sub_id": id })).await;
    assert_eq!(whole.facts["overflow"], false);
}

#[tokio::test(start_paused = true)]
async fn reads_through_a_lane_that_make_no_sense_are_refused() {
    let world = World::new().await;
    let (uri, other) = (world.start("silent").await, world.start("silent").await);
    let id = sub_id(&world.open(json!({ "uri": uri })).await);
    let pushed = sub_id(&world.open(json!({ "uri": uri, "inline_push": true })).await);
    for bad in [
        format!("{uri}?sub_id=x"),
        format!("{uri}?sub_id=0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"),
        format!("{other}?sub_id={id}"),
        format!("{uri}?sub_id={id}&cursor=3"),
        format!("{uri}?sub_id={pushed}"),
    ] {
        let data = world.rig.read(&bad).unwrap_err().data.unwrap();
        assert_eq!(data["kind"], "bad_query", "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn inline_push_is_a_wish_and_the_answer_says_what_became_of_it() {
    let world = World::new().await;
    let uri = world.start("silent").await;
    let honoured = world.open(json!({ "uri": uri, "inline_push": true })).await;
    assert!(honoured.text.contains("INLINE_PUSH: yes\nINLINE_PUSH_HONORED: yes\n"), "{}", honoured.text);
    let session = format!("session://{}/health", world.session);
    let declined = world.open(json!({ "uri": session, "inline_push": true })).await;
    assert_eq!(
        (&declined.facts["inline_push"], &declined.facts["inline_push_honored"]),
        (&json!(true), &json!(false))
    );
    assert!(declined.fact("hint").contains("has no bytes"), "{}", declined.text);
    let silent = world.open(json!({ "uri": uri })).await;
    assert!(!silent.text.contains("INLINE_PUSH"), "{}", silent.text);
    assert_eq!(silent.facts.get("inline_push"), None);
}

#[tokio::test(start_paused = true)]
async fn a_list_shows_every_lane_and_how_it_came() {
    let world = World::new().await;
    let (uri, other) = (world.start("silent").await, world.start("silent").await);
    world.open(json!({ "uri": uri, "filter": "a" })).await;
    world.open(json!({ "uri": format!("session://{}/health", world.session) })).await;
    crate::push::subscribe(world.rig.shared.engine(), &world.rig.owner, &world.rig.push(), &other).unwrap();
    let listed = world.rig.ok("sub_list", json!({})).await;
    let origins: Vec<&str> =
        listed.facts["subs"].as_array().unwrap().iter().filter_map(|sub| sub["origin"].as_str()).collect();
    assert_eq!(origins, ["sub_open", "sub_open", "resources/subscribe"]);
    assert!(listed.text.starts_with("SUB_LIST: OK\nSUBS_TOTAL: 3\nSUB: "), "{}", listed.text);
    let commands = world.rig.ok("sub_list", json!({ "uri_prefix": "Command://" })).await;
    assert_eq!(commands.facts["subs_total"], 2);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_watches_is_warned_of_once() {
    let world = World::new().await;
    let uri = world.start("silent").await;
    let opened = world.rig.ok("ssh_shell_open", json!({ "session_id": world.session })).await;
    let shell = format!("shell://{}/output", opened.fact("shell_id"));
    pass(4 * SECOND).await;
    let commands = world.rig.loosely("ssh_commands", json!({})).await;
    assert!(commands.text.contains(&format!("WARN: SUB_LEAK_RISK {uri} age_ms=")), "{}", commands.text);
    assert!(commands.text.contains(" severity=warn"));
    let warning = &commands.facts["warnings"][0];
    assert_eq!(
        (&warning["code"], &warning["resource"], &warning["kind"]),
        (&json!("SUB_LEAK_RISK"), &json!(uri), &json!("command"))
    );
    assert!(warning["age_ms"].as_u64().unwrap() >= 2000 && warning["severity"] == "warn", "{warning}");
    let resources = world.rig.ok("ssh_resources", json!({})).await;
    let about: Vec<&Value> =
        resources.facts["warnings"].as_array().unwrap().iter().map(|warned| &warned["resource"]).collect();
    assert_eq!(about, [&json!(shell)]);
    assert!(world.rig.ok("ssh_resources", json!({})).await.facts.get("warnings").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_wait_brings_each_byte_once_and_the_end() {
    let world = World::new().await;
    let uri = world.start("slow").await;
    let wait = || world.rig.ok("sub_wait", json!({ "uris": [uri] }));
    let first = wait().await;
    assert_eq!(
        (first.header(), first.facts["items"][0]["delta"].as_str()),
        ("SUB_WAIT: NEWS", Some("a1\nb1\n"))
    );
    assert!(first.text.contains(&format!("NEXT: sub_wait(uris=[\"{uri}\"])")), "{}", first.text);
    let second = wait().await;
    assert_eq!(second.facts["items"][0]["delta"], "a2\nlogin: ");
    let last = wait().await;
    let item = &last.facts["items"][0];
    assert_eq!(
        (last.header(), &item["delta"], &item["exit_code"]),
        ("SUB_WAIT: ENDED", &json!(""), &json!(3))
    );
    assert_eq!(
        (&item["status"], &item["reason"], &item["cursor"]),
        (&json!("completed"), &json!("completed"), &json!(16))
    );
    assert!(last.facts.get("next").is_none());
    // The same cursor as every other read of this client.
    assert_eq!(world.rig.read(&format!("{uri}?cursor=auto&stream=merged")).unwrap().0, "");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_runs_out_takes_nothing() {
    let world = World::new().await;
    let uri = world.start("slow").await;
    let asked = json!({ "uris": [uri], "until": "end", "timeout_secs": 2 });
    let out = world.rig.ok("sub_wait", asked).await;
    let item = &out.facts["items"][0];
    assert_eq!((out.header(), &item["delta"], &item["total"]), ("SUB_WAIT: TIMEOUT", &json!(""), &json!(6)));
    let ended = world.rig.ok("sub_wait", json!({ "uris": [uri], "until": "end" })).await;
    assert_eq!(
        (ended.header(), &ended.facts["items"][0]["delta"]),
        ("SUB_WAIT: ENDED", &json!("a1\nb1\na2\nlogin: "))
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_until_silence_or_a_match() {
    let world = World::new().await;
    let (uri, other) = (world.start("slow").await, world.start("silent").await);
    let quiet = world.rig.ok("sub_wait", json!({ "uris": [uri], "until": "quiet", "quiet_ms": 300 })).await;
    assert_eq!((quiet.header(), &quiet.facts["items"][0]["delta"]), ("SUB_WAIT: QUIET", &json!("a1\nb1\n")));
    let asked = json!({ "uris": [other, uri], "patterns": ["^nothing", "^login: $"] });
    let matched = world.rig.ok("sub_wait", asked).await;
    let item = &matched.facts["items"][1];
    assert_eq!((matched.header(), &item["matched_pattern"]), ("SUB_WAIT: MATCHED", &json!("^login: $")));
    assert_eq!((&item["delta"], &matched.facts["items"][0]["delta"]), (&json!("a2\nlogin: "), &json!("")));
}

#[tokio::test(start_paused = true)]
async fn a_budget_folds_the_middle_and_names_the_cursors_that_fetch_it() {
    let world = World::new().await;
    let (uri, small) = (world.start("silent").await, world.start("silent").await);
    let lines: String = (0..1000).map(|n| format!("line {n:04}\n")).collect();
    world.say(&uri, &lines);
    world.say(&small, "tiny");
    let waited = world.rig.ok("sub_wait", json!({ "uris": [uri, small], "max_output_bytes": 404 })).await;
    let item = &waited.facts["items"][0];
    let delta = item["delta"].as_str().unwrap();
    assert_eq!(
        (&item["bytes"], &item["total"], &item["cursor"]),
        (&json!(400), &json!(10_000), &json!(10_000))
    );
    assert!(delta.starts_with("line 0000\n") && delta.ends_with("line 0999\n"), "{delta}");
    assert!(delta.contains("[... 9600 bytes, 960 lines left out: resources/read "), "{delta}");
    assert_eq!(waited.facts["items"][1]["delta"], "tiny");
    let (from, until) =
        delta.split_once("?cursor=").unwrap().1.split_once(" ...]").unwrap().0.split_once(" up to ").unwrap();
    let (from, until): (usize, usize) = (from.parse().unwrap(), until.parse().unwrap());
    let uri = format!("{uri}?cursor={from}&max_bytes={}&stream=merged", until - from);
    let (body, _) = world.rig.read(&uri).unwrap();
    let shown = delta
        .split_once("[...")
        .map(|(head, rest)| (head.len(), rest.split_once("...]\n").unwrap().1))
        .unwrap();
    assert_eq!(format!("{}{body}{}", &lines[..shown.0], shown.1), lines);
}

#[tokio::test(start_paused = true)]
async fn a_wait_through_a_lane_sees_what_its_filter_lets_through() {
    let world = World::new().await;
    let uri = world.start("slow").await;
    let id = sub_id(&world.open(json!({ "uri": uri, "filter": "^a" })).await);
    let wait = || world.rig.ok("sub_wait", json!({ "sub_ids": [id] }));
    let first = wait().await;
    assert_eq!(
        (&first.facts["items"][0]["delta"], &first.facts["items"][0]["sub_id"]),
        (&json!("a1\n"), &json!(id))
    );
    assert_eq!(wait().await.facts["items"][0]["delta"], "a2\n");
    assert_eq!(wait().await.header(), "SUB_WAIT: ENDED");
}

#[tokio::test(start_paused = true)]
async fn waits_that_make_no_sense_are_refused() {
    let world = World::new().await;
    let uri = world.start("silent").await;
    for (arguments, code) in [
        (json!({}), "INVALID_ARGUMENT"),
        (json!({ "uris": [] }), "INVALID_ARGUMENT"),
        (json!({ "uris": vec![uri.clone(); 17] }), "INVALID_ARGUMENT"),
        (json!({ "uris": ["x"] }), "INVALID_ARGUMENT"),
        (json!({ "uris": [uri], "until": "match" }), "INVALID_ARGUMENT"),
        (json!({ "uris": [uri], "until": "news", "patterns": ["x"] }), "INVALID_ARGUMENT"),
        (json!({ "uris": [uri], "patterns": ["("] }), "FILTER_INVALID"),
        (json!({ "uris": ["command://0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b/output"] }), "RESOURCE_NOT_FOUND"),
        (json!({ "sub_ids": ["0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"] }), "SUB_NOT_FOUND"),
    ] {
        assert_eq!(world.refused("sub_wait", arguments.clone()).await.0, code, "{arguments}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_state_is_waited_for_and_shown() {
    let world = World::new().await;
    let uri = format!("session://{}/health", world.session);
    let out = world.rig.ok("sub_wait", json!({ "uris": [uri], "timeout_secs": 1 })).await;
    assert_eq!(out.header(), "SUB_WAIT: TIMEOUT");
    world.rig.ok("ssh_sessions", json!({})).await;
    let news = world.rig.ok("sub_wait", json!({ "uris": [uri] })).await;
    let delta: Value = serde_json::from_str(news.facts["items"][0]["delta"].as_str().unwrap()).unwrap();
    assert_eq!((news.header(), &delta["healthy"]), ("SUB_WAIT: NEWS", &json!(true)));
    let out = world.rig.ok("sub_wait", json!({ "uris": [uri], "timeout_secs": 1 })).await;
    assert_eq!(out.header(), "SUB_WAIT: TIMEOUT");
}

#[tokio::test(start_paused = true)]
async fn an_old_client_subscribes_is_notified_and_reads() {
    let world = World::new().await;
    let (mut client, _) = Client::legacy(&world.rig, "2025-06-18").await;
    let uri = world.over().await;
    assert_eq!(client.ask("resources/subscribe", json!({ "uri": uri })).await["result"], json!({}));
    assert_eq!(client.notification(UPDATED).await["params"], json!({ "uri": uri }));
    let read =
        client.ask("resources/read", json!({ "uri": format!("{uri}?cursor=auto&stream=merged") })).await;
    let contents = &read["result"]["contents"][0];
    assert_eq!((&contents["text"], &contents["_meta"]["status"]), (&json!("hi\n"), &json!("completed")));
    client.listen_for(10 * SECOND).await;
    assert_eq!(client.notifications, [Value::Null; 0], "the end came with it");

    let live = world.start("slow").await;
    for spelling in [live.clone(), format!("{live}?x=1")] {
        client.ask("resources/subscribe", json!({ "uri": spelling })).await;
    }
    assert_eq!(world.rig.ok("sub_list", json!({ "uri_prefix": live })).await.facts["subs_total"], 1);
    assert_eq!(client.notification(UPDATED).await["params"]["uri"], format!("{live}?x=1"));
    assert_eq!(client.ask("resources/unsubscribe", json!({ "uri": live })).await["result"], json!({}));
    assert_eq!(client.ask("resources/unsubscribe", json!({ "uri": live })).await["result"], json!({}));
    client.listen_for(10 * SECOND).await;
    assert_eq!(client.notifications, [Value::Null; 0]);

    for (uri, code) in [("command://0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b/output", -32002), ("x", -32602)] {
        assert_eq!(
            client.ask("resources/subscribe", json!({ "uri": uri })).await["error"]["code"],
            code,
            "{uri}"
        );
    }
    let listen = json!({ "notifications": { "resourceSubscriptions": [live] } });
    assert_eq!(client.ask("subscriptions/listen", listen).await["error"]["code"], -32601);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_at_the_limit_is_refused_by_its_code() {
    let world = World::with(ssh_mcp_core::settings::Settings { lanes_per_uri: 1, ..settings() }).await;
    let (mut client, _) = Client::legacy(&world.rig, "2025-11-25").await;
    let uri = world.start("silent").await;
    world.open(json!({ "uri": uri })).await;
    let refused = client.ask("resources/subscribe", json!({ "uri": uri })).await;
    assert_eq!(
        (&refused["error"]["code"], &refused["error"]["data"]["code"]),
        (&json!(-32602), &json!("MAX_SUBS_PER_URI_EXCEEDED"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_client_listens_and_its_lanes_end_with_the_request() {
    let world = World::new().await;
    let mut client = Client::modern(&world.rig);
    let (over, live) = (world.over().await, world.start("slow").await);
    let filter = json!({ "resourceSubscriptions": [over, live, "nonsense"], "resourcesListChanged": true });
    let id = client.request("subscriptions/listen", json!({ "notifications": filter })).await;
    let ack = client.notification("notifications/subscriptions/acknowledged").await;
    assert_eq!(ack["params"]["notifications"]["resourceSubscriptions"], json!([over, live]));
    let mut told: Vec<String> = Vec::new();
    for _ in 0..3 {
        let params = client.notification(UPDATED).await["params"].clone();
        assert_eq!(params["_meta"]["io.modelcontextprotocol/subscriptionId"], json!(id));
        assert!(params["_meta"]["ssh-mcp/sub_id"].is_string(), "{params}");
        told.push(params["uri"].as_str().unwrap().to_owned());
    }
    assert_eq!(told, [over.as_str(), live.as_str(), live.as_str()]);
    world.start("hi").await;
    assert_eq!(
        client.notification(LIST).await["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"],
        json!(id)
    );
    assert_eq!(world.rig.ok("sub_list", json!({ "uri_prefix": live })).await.facts["subs_total"], 1);
    client
        .send(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id } }))
        .await;
    client.listen_for(SECOND).await;
    assert_eq!(world.rig.ok("sub_list", json!({})).await.facts["subs_total"], 0);
    assert_eq!(client.ask("resources/subscribe", json!({ "uri": live })).await["error"]["code"], -32601);
}

#[tokio::test(start_paused = true)]
async fn a_listen_opens_all_its_lanes_or_none() {
    let world = World::new().await;
    let mut client = Client::modern(&world.rig);
    let live = world.start("silent").await;
    let unknown = "command://0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b/output";
    let filter = json!({ "resourceSubscriptions": [live, unknown] });
    let failed = client.ask("subscriptions/listen", json!({ "notifications": filter })).await;
    assert_eq!(
        (&failed["error"]["code"], &failed["error"]["data"]["code"]),
        (&json!(-32602), &json!("RESOURCE_NOT_FOUND"))
    );
    assert_eq!(failed["error"]["data"]["uri"], unknown);
    assert_eq!(world.rig.ok("sub_list", json!({})).await.facts["subs_total"], 0);
}

/// The bytes of pieces in the order of `seq`, and the last piece.
fn joined(pieces: &[Value]) -> (Vec<u8>, Value) {
    let mut bytes = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        assert_eq!(piece["seq"], json!(at));
        let part = match piece["encoding"].as_str() {
            Some("utf8") => piece["text"].as_str().unwrap().as_bytes().to_vec(),
            _ => STANDARD.decode(piece["bytes_b64"].as_str().unwrap()).unwrap(),
        };
        assert_eq!(piece["len"], json!(part.len()));
        bytes.extend(part);
        assert_eq!(piece["cursor_after"], json!(bytes.len()));
    }
    (bytes, pieces.last().unwrap().clone())
}

#[tokio::test(start_paused = true)]
async fn bytes_come_inside_the_notifications_of_an_old_client() {
    let world = World::new().await;
    let mut client = Client::legacy_inline(&world.rig).await;
    let uri = world.start("slow").await;
    let opened = client.call("sub_open", json!({ "uri": uri, "inline_push": true }), json!({})).await;
    assert_eq!(opened["structuredContent"]["inline_push_honored"], true);
    let mut pieces = Vec::new();
    while pieces.last().is_none_or(|piece: &Value| piece.get("closed").is_none()) {
        pieces.push(client.notification(OUTPUT).await["params"].clone());
    }
    let (bytes, last) = joined(&pieces);
    assert_eq!(bytes, b"a1\nb1\na2\nlogin: ");
    assert_eq!(
        (&last["reason"], &last["exit_code"], &last["uri"]),
        (&json!("completed"), &json!(3), &json!(uri))
    );
    client.listen_for(SECOND).await;
    assert_eq!(client.notifications, [Value::Null; 0], "no announcement besides");
}

#[tokio::test(start_paused = true)]
async fn bytes_come_inside_the_listen_of_a_new_client() {
    let world = World::new().await;
    let mut client = Client::modern_inline(&world.rig);
    let uri = world.start("slow").await;
    let filter = json!({ "resourceSubscriptions": [uri] });
    client.request("subscriptions/listen", json!({ "notifications": filter })).await;
    let mut pieces = Vec::new();
    while pieces.last().is_none_or(|piece: &Value| piece.get("closed").is_none()) {
        let params = client.notification(UPDATED).await["params"].clone();
        assert_eq!(params["uri"], uri);
        pieces.push(params["_meta"]["ssh-mcp/output"].clone());
    }
    assert_eq!(joined(&pieces).0, b"a1\nb1\na2\nlogin: ");
}

#[tokio::test(start_paused = true)]
async fn a_client_without_the_capability_reads_and_is_told_why() {
    let world = World::new().await;
    let (mut client, _) = Client::legacy(&world.rig, "2025-11-25").await;
    let uri = world.start("silent").await;
    let opened = client.call("sub_open", json!({ "uri": uri, "inline_push": true }), json!({})).await;
    assert_eq!(opened["structuredContent"]["inline_push_honored"], false);
    let hint = opened["structuredContent"]["hint"].as_str().unwrap();
    assert!(hint.contains("has not declared experimental.ssh_inline_push"), "{hint}");
    world.say(&uri, "x");
    assert_eq!(client.notification(UPDATED).await["params"]["uri"], uri);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_connection_is_that_of_its_lanes() {
    let world = World::new().await;
    let uri = world.start("silent").await;
    let (mut client, _) = Client::legacy(&world.rig, "2025-11-25").await;
    client.ask("resources/subscribe", json!({ "uri": uri })).await;
    client.call("sub_open", json!({ "uri": uri }), json!({})).await;
    assert_eq!(world.rig.ok("sub_list", json!({})).await.facts["subs_total"], 2);
    drop(client);
    pass(Duration::from_millis(10)).await;
    assert_eq!(world.rig.ok("sub_list", json!({})).await.facts["subs_total"], 0);
    assert_eq!(
        world.rig.ok("ssh_resources", json!({ "kind": "session" })).await.facts["count"],
        1,
        "sessions live on"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_stands_alone_is_shown_the_way_to_subscribe() {
    let world = World::new().await;
    let uri = world.start("silent").await;
    let mut client = Client::over_http_alone(&world.rig);
    let refused = client.call("sub_open", json!({ "uri": uri }), json!({})).await;
    assert_eq!(refused["structuredContent"]["code"], "INVALID_ARGUMENT");
    assert!(
        refused["structuredContent"]["detail"].as_str().unwrap().contains("subscriptions/listen"),
        "{refused}"
    );
    world.say(&uri, "all");
    let waited = client.call("sub_wait", json!({ "uris": [uri] }), json!({})).await;
    let item = &waited["structuredContent"]["items"][0];
    assert_eq!((&item["delta"], &item["cursor"]), (&json!("all"), &json!(3)));
    let asked = json!({ "uris": [format!("{uri}?cursor=3")], "timeout_secs": 1 });
    assert_eq!(client.call("sub_wait", asked, json!({})).await["structuredContent"]["status"], "timeout");
}
