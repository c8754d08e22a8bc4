//! `ssh_shell_read` and `ssh_shell_wait_for`.

use super::*;

async fn read(shell: &Opened, arguments: Value) -> (String, String) {
    let read = shell.ok("ssh_shell_read", arguments).await;
    (read.fact("status"), read.fact("stdout"))
}

fn own(status: &str, stdout: &str) -> (String, String) {
    (status.to_owned(), stdout.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_read_drains_what_it_shows_unless_told_otherwise() {
    let shell = Opened::on(Script::new().out("one\n").after(SECOND).out("two\n")).await;
    let first = shell.ok("ssh_shell_read", json!({ "clear": false })).await;
    assert_eq!(first.header(), "SSH_SHELL_READ: OPEN");
    for line in
        ["BYTES_RETURNED: 4", "BUFFER_SIZE_AT_SNAPSHOT: 4", "CLEARED: false", "PENDING_OUTPUT_CHARS: 4"]
    {
        has_line(&first, line);
    }
    assert_eq!((block(&first), first.facts.get("next")), (vec!["one"], None));
    assert_eq!(read(&shell, json!({})).await, own("open", "one\n"));
    assert_eq!(read(&shell, json!({})).await, own("open", ""));
    pass(SECOND).await;
    let last = shell.ok("ssh_shell_read", json!({})).await;
    assert_eq!((last.fact("stdout").as_str(), &last.facts["cleared"]), ("two\n", &json!(true)));
    assert_eq!(last.facts["pending_output_chars"], 0);
}

#[tokio::test(start_paused = true)]
async fn the_tail_is_the_newest_part_and_counts_the_rest_as_drained() {
    let shell = Opened::on(Script::new().out("0123456789€")).await;
    let tail = |clear| json!({ "max_output_bytes": 5, "clear": clear });
    let look = shell.ok("ssh_shell_read", tail(false)).await;
    assert_eq!((look.fact("stdout").as_str(), &look.facts["truncated"]), ("89€", &json!(true)));
    assert_eq!(look.facts["buffer_size_at_snapshot"], 13);
    assert!(look.text.contains(" (partial, truncated: showing 5B of 13B) ---\n"), "{}", look.text);
    assert!(look.fact("hint").contains("from=head"));
    let drained = shell.ok("ssh_shell_read", tail(true)).await;
    assert_eq!(drained.fact("stdout"), "89€");
    let uri = format!("shell://{}/output?cursor=0", shell.id);
    assert!(drained.fact("hint").contains(&uri) && drained.fact("hint").contains("8B of older output"));
    assert_eq!(read(&shell, json!({ "from": "head" })).await, own("open", ""));
    assert_eq!(shell.rig.read(&uri).unwrap().0, "0123456789€");
}

#[tokio::test(start_paused = true)]
async fn repeated_reads_of_the_head_give_everything_once() {
    let all: String = (0..400).map(|n| format!("{n} äö€😀\n")).collect();
    let shell = Opened::on(Script::new().out(all.clone()).after(SECOND).out("late").exit(3)).await;
    let mut got = String::new();
    let head = || json!({ "from": "head", "max_output_bytes": 997 });
    loop {
        let read = shell.ok("ssh_shell_read", head()).await;
        let piece = read.fact("stdout");
        assert!(piece.len() <= 997);
        got.push_str(&piece);
        let pending = read.facts["pending_output_chars"].as_u64().unwrap();
        assert_eq!(pending, all.chars().count() as u64 - got.chars().count() as u64);
        assert_eq!(read.facts["truncated"], pending > 0);
        if pending == 0 {
            break;
        }
    }
    assert_eq!(got, all);
    pass(SECOND * 2).await;
    let last = shell.ok("ssh_shell_read", head()).await;
    assert_eq!((last.header(), last.fact("stdout").as_str()), ("SSH_SHELL_READ: CLOSED", "late"));
    for line in ["RUNNING: false", "EXIT: 3", "EXIT_REASON: exit-3", "UPTIME_SECONDS: 1", "IDLE_SECONDS: 0"] {
        has_line(&last, line);
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_read_ends_with_bytes_with_the_shell_or_with_its_patience() {
    let shell =
        Opened::on(Script::new().after(SECOND).out("abc").after(SECOND).out("def").after(SECOND).exit(0))
            .await;
    let began = tokio::time::Instant::now();
    let wait = |min, secs| json!({ "wait": true, "min_bytes": min, "wait_timeout_secs": secs });
    assert_eq!(read(&shell, wait(5, 1)).await, own("timeout", "abc"));
    assert_eq!(read(&shell, wait(3, 30)).await, own("open", "def"));
    assert_eq!(read(&shell, wait(1, 30)).await, own("closed", ""));
    assert_eq!(began.elapsed().as_secs(), 2);
    assert_eq!(read(&shell, wait(1, 30)).await, own("closed", ""));

    let quiet = Opened::on(Script::new()).await;
    for (secs, expected) in [(0, 0), (1000, 300)] {
        let began = tokio::time::Instant::now();
        assert_eq!(read(&quiet, wait(1, secs)).await, own("timeout", ""));
        assert_eq!(began.elapsed().as_secs(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_character_is_not_awaited_output() {
    let script = Script::new().after(SECOND).out(&b"\xe2\x82"[..]).after(SECOND).out(&b"\xac"[..]);
    let shell = Opened::on(script).await;
    pass(SECOND).await;
    assert_eq!(read(&shell, json!({})).await, own("open", ""));
    assert_eq!(read(&shell, json!({ "wait": true })).await, own("open", "€"));
}

#[tokio::test(start_paused = true)]
async fn readers_at_once_never_get_the_same_bytes() {
    let mut script = Script::new().after(SECOND);
    let all: String = (0..50).map(|n| format!("{n:04}\n")).collect();
    for line in all.lines() {
        script = script.out(format!("{line}\n")).after(SECOND / 10);
    }
    let shell = Opened::on(script.exit(0)).await;
    let reader = async || {
        let mut got = Vec::new();
        loop {
            let arguments = json!({ "wait": true, "from": "head", "max_output_bytes": 7, "min_bytes": 2 });
            let (status, piece) = read(&shell, arguments).await;
            if status == "closed" && piece.is_empty() {
                return got;
            }
            got.push(piece);
        }
    };
    let (a, b) = tokio::join!(reader(), reader());
    let mut bytes: Vec<u8> = a.concat().into_bytes();
    bytes.extend(b.concat().into_bytes());
    let mut expected = all.clone().into_bytes();
    bytes.sort_unstable();
    expected.sort_unstable();
    assert_eq!(bytes, expected);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_called_off_drains_nothing() {
    let shell = Opened::on(Script::new().out("abc")).await;
    shell.called_off("ssh_shell_read", json!({ "wait": true, "min_bytes": 100 }), SECOND).await;
    shell.called_off("ssh_shell_wait_for", json!({ "patterns": ["x"] }), SECOND).await;
    assert_eq!(shell.unread().await, "abc");
}

#[tokio::test(start_paused = true)]
async fn reads_that_break_a_rule_say_which() {
    let shell = Opened::on(Script::new()).await;
    let more = "min_bytes must be at most max_output_bytes, which is 16384; got the number 16385";
    let less = "min_bytes must be an integer of at least 1, written as a number; got the number 0";
    for (arguments, reason) in [
        (json!({ "min_bytes": 16_385 }), more),
        (json!({ "min_bytes": 0 }), less),
        (json!({ "from": "middle" }), "from must be one of tail, head; got the text \"middle\""),
    ] {
        let failed = shell.fails("ssh_shell_read", arguments).await;
        assert_eq!(
            (failed.fact("code").as_str(), failed.fact("reason").as_str()),
            ("INVALID_ARGUMENT", reason)
        );
    }
    for tool in ["ssh_shell_read", "ssh_shell_wait_for", "ssh_shell_close"] {
        let failed =
            shell.rig.as_owner("somebody else").fails(tool, shell.args(json!({ "patterns": ["x"] }))).await;
        assert_eq!(
            (failed.fact("code"), failed.fact("detail").contains(&shell.id)),
            ("SHELL_NOT_FOUND".into(), false)
        );
    }
}

async fn await_text(shell: &Opened, patterns: Value) -> Answered {
    shell.ok("ssh_shell_wait_for", json!({ "patterns": patterns, "timeout_secs": 10 })).await
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_the_first_text_that_appears_and_leaves_the_rest() {
    let script =
        Script::new().out("booting\nlogin: ").after(SECOND).out("ann\npass").after(SECOND).out("word: x");
    let shell = Opened::on(script).await;
    let at_once = await_text(&shell, json!(["nothing", "ogin:", "login"])).await;
    assert_eq!(at_once.header(), "SSH_SHELL_WAIT_FOR: MATCHED");
    // Both stand there; the one that ends first is the first.
    has_line(&at_once, "MATCHED_PATTERN: login");
    assert_eq!(
        (at_once.fact("stdout").as_str(), block(&at_once)),
        ("booting\nlogin", vec!["booting", "login"])
    );
    for line in ["BYTES_RETURNED: 13", "CLEARED: true", "PENDING_OUTPUT_CHARS: 2"] {
        has_line(&at_once, line);
    }
    let next: Vec<&str> =
        at_once.facts["next"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(
        next[0].starts_with("sub_wait(uris=[\"shell://")
            && next[2].starts_with("ssh_shell_write(")
            && next[4].starts_with("ssh_shell_close("),
        "{next:?}"
    );

    let across = await_text(&shell, json!(["password: "])).await;
    assert_eq!(across.fact("stdout"), ": ann\npassword: ");
    assert_eq!(read(&shell, json!({})).await, own("open", "x"));
    let later = shell.ok("ssh_shell_wait_for", json!({ "patterns": ["password"], "timeout_secs": 2 })).await;
    assert_eq!(later.header(), "SSH_SHELL_WAIT_FOR: TIMEOUT");
}

#[tokio::test(start_paused = true)]
async fn colours_within_a_text_do_not_hide_it() {
    let shell = Opened::on(Script::new().out("\u{1b}[1;32mall \u{1b}[0mgre\u{1b}[Ken\u{1b}[0m done")).await;
    let matched = await_text(&shell, json!(["all green"])).await;
    assert_eq!(matched.fact("stdout"), "\u{1b}[1;32mall \u{1b}[0mgre\u{1b}[Ken");
    assert_eq!(shell.unread().await, "\u{1b}[0m done");
}

#[tokio::test(start_paused = true)]
async fn a_budget_keeps_the_part_before_the_match() {
    let script = Script::new().out(format!("{}READY{}", "a".repeat(50_000), "z".repeat(50_000)));
    let shell = Opened::on(script).await;
    let arguments = json!({ "patterns": ["READY"], "max_output_bytes": 8, "clear": false });
    let look = shell.ok("ssh_shell_wait_for", arguments.clone()).await;
    assert_eq!((look.fact("stdout").as_str(), &look.facts["truncated"]), ("aaaREADY", &json!(true)));
    assert_eq!(look.facts["pending_output_chars"], 100_005);
    let drained = shell.ok("ssh_shell_wait_for", join(arguments, json!({ "clear": true }))).await;
    assert_eq!(
        (drained.fact("stdout").as_str(), &drained.facts["pending_output_chars"]),
        ("aaaREADY", &json!(50_000))
    );
    assert!(drained.fact("hint").contains("cursor=0 still has them"), "{}", drained.text);
}

#[tokio::test(start_paused = true)]
async fn a_wait_without_a_match_shows_what_came_and_why_it_ended() {
    let shell = Opened::on(Script::new().out("a\n").after(SECOND * 20).out("b\n").exit(1)).await;
    let late = await_text(&shell, json!(["z"])).await;
    assert_eq!((late.header(), late.fact("stdout").as_str()), ("SSH_SHELL_WAIT_FOR: TIMEOUT", "a\n"));
    assert_eq!(late.facts.get("matched_pattern"), None);
    assert!(late.facts["next"][2].as_str().unwrap().starts_with("ssh_shell_wait_for("));
    let ended = shell.ok("ssh_shell_wait_for", json!({ "patterns": ["z"], "timeout_secs": 60 })).await;
    assert_eq!((ended.header(), ended.fact("stdout").as_str()), ("SSH_SHELL_WAIT_FOR: CLOSED", "b\n"));
    assert_eq!(ended.facts.get("next"), None);
    // What stands there when it has ended is still found.
    let shell = Opened::on(Script::prints("result: 42")).await;
    assert_eq!(await_text(&shell, json!(["42"])).await.fact("status"), "matched");
}

#[tokio::test(start_paused = true)]
async fn a_text_that_straddles_the_end_of_a_wait_is_found_by_the_next() {
    let script = Script::new().out("x abc").after(SECOND * 2).out("def!");
    let shell = Opened::on(script).await;
    let wait = json!({ "patterns": ["zz", "cd", "abcdef"], "timeout_secs": 1 });
    let look = shell.ok("ssh_shell_wait_for", join(wait.clone(), json!({ "clear": false }))).await;
    assert_eq!((look.fact("status"), &look.facts["pending_output_chars"]), ("timeout".into(), &json!(5)));
    // The longest beginning counts, here that of the last text.
    let early = shell.ok("ssh_shell_wait_for", join(wait, json!({ "timeout_secs": 0 }))).await;
    assert_eq!((early.fact("status"), early.fact("stdout")), ("timeout".into(), "x abc".into()));
    for line in ["CLEARED: true", "PENDING_OUTPUT_CHARS: 3"] {
        has_line(&early, line);
    }
    let found = await_text(&shell, json!(["abcdef"])).await;
    assert_eq!((found.fact("status"), found.fact("stdout")), ("matched".into(), "abcdef".into()));
    assert_eq!(shell.unread().await, "!");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_ran_out_drains_what_begins_no_text() {
    for (printed, patterns, left) in [
        ("abc", json!(["bd", "x"]), ""),
        ("aab", json!(["abab"]), "ab"),
        ("aaa", json!(["aaaaa"]), "aaa"),
        ("a\u{1b}[0mb", json!(["abc"]), ""),
        ("5 \u{20ac}", json!(["\u{20ac}5"]), "\u{20ac}"),
    ] {
        let shell = Opened::on(Script::new().out(printed)).await;
        let late = shell.ok("ssh_shell_wait_for", json!({ "patterns": patterns, "timeout_secs": 1 })).await;
        assert_eq!((late.fact("status"), late.fact("stdout")), ("timeout".into(), printed.to_owned()));
        assert_eq!(late.facts["pending_output_chars"], left.chars().count(), "{patterns}");
        assert_eq!(shell.unread().await, left, "{patterns}");
    }
}

#[tokio::test(start_paused = true)]
async fn patterns_that_are_refused_have_their_codes() {
    let shell = Opened::on(Script::new()).await;
    let long = "€".repeat(342);
    for (patterns, code) in [
        (json!([]), "EMPTY_PATTERNS"),
        (json!([""]), "EMPTY_PATTERNS"),
        (json!(["x", ""]), "EMPTY_PATTERNS"),
        (Value::Null, "EMPTY_PATTERNS"),
        (json!(vec!["x"; 17]), "TOO_MANY_PATTERNS"),
        (json!(["x", long]), "PATTERN_TOO_LONG"),
        (json!("x"), "INVALID_ARGUMENT"),
        (json!(["x", 5]), "INVALID_ARGUMENT"),
    ] {
        let failed = shell.fails("ssh_shell_wait_for", json!({ "patterns": patterns })).await;
        assert_eq!(failed.fact("code"), code, "{}", failed.text);
        assert!(failed.fact("reason").starts_with("patterns"), "{}", failed.text);
    }
    let most = json!({ "patterns": vec!["€".repeat(341); 16], "timeout_secs": 0 });
    assert_eq!(shell.ok("ssh_shell_wait_for", most).await.fact("status"), "timeout");
}
