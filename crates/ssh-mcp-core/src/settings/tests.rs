//! The table test of `docs/configuration.md`, made from the rows, and the rules of the chain.

use std::collections::BTreeMap;

use super::*;

/// Resolves from a list of `(origin, name, text)`.
fn resolve(binary: Binary, given: &[(Origin, &str, &str)]) -> Outcome {
    let given: BTreeMap<(Origin, &str), &str> =
        given.iter().map(|(origin, name, text)| ((*origin, *name), *text)).collect();
    Settings::resolve(
        binary,
        &|origin, name| given.get(&(origin, name)).map(|text| (*text).to_owned()),
        Some(PathBuf::from("/home/somebody")),
    )
}

/// One variable, for a program that reads it.
fn environment(name: &str, text: &str) -> Outcome {
    let rows = Settings::rows();
    let reads = |row: &&Row| row.name == name || row.aliases.iter().any(|alias| alias.name() == name);
    let binary = rows.iter().find(reads).and_then(|row| row.binaries.first());
    resolve(binary.copied().unwrap_or(Binary::Http), &[(Origin::Environment, name, text)])
}

fn entry<'a>(outcome: &'a Outcome, name: &str) -> &'a Entry {
    outcome.entries.iter().find(|entry| entry.row.name == name).unwrap()
}

/// Problems of one text, those apart that only say that nothing reads the setting.
fn complaints(outcome: &Outcome) -> Vec<&Problem> {
    outcome.problems.iter().filter(|problem| !matches!(problem, Problem::Unused { .. })).collect()
}

/// What a number looks like in the text of a setting, without any unit.
fn bare(unit: Unit, number: u64) -> String {
    match unit {
        Unit::Seconds => (number / 1000).to_string(),
        Unit::Count | Unit::Millis | Unit::Bytes => number.to_string(),
    }
}

#[test]
fn every_row_has_a_default_that_is_used_without_a_word() {
    let (http, tail) = (resolve(Binary::Http, &[]), resolve(Binary::Tail, &[]));
    assert!(http.problems.is_empty() && tail.problems.is_empty());
    for entry in http.entries.iter().chain(&tail.entries) {
        assert_eq!((entry.origin, &entry.raw), (Origin::Default, &None), "{}", entry.row.name);
        assert!(!entry.row.meaning.is_empty() && entry.row.meaning.ends_with('.'), "{}", entry.row.name);
        if entry.row.bounds.is_some() {
            assert_eq!(entry.value, entry.row.default, "{}", entry.row.name);
        }
    }
}

#[test]
fn every_number_keeps_its_bounds() {
    for row in Settings::rows() {
        let Some(Bounds { unit, min, max, zero }) = row.bounds else { continue };
        let set = |text: &str| {
            let outcome = environment(row.name, text);
            let clean = complaints(&outcome).is_empty();
            let entry = entry(&outcome, row.name);
            assert_eq!(entry.origin, Origin::Environment, "{}={text}", row.name);
            (entry.value.clone(), clean)
        };
        // A row capped by another one ends at that one's default.
        let max = if row.range.contains('`') { number_of(&row.range, unit) } else { max };
        let show = |number: u64| match zero {
            Some(meaning) if number == 0 => format!("0 ({meaning})"),
            Some(_) | None => unit.show(number),
        };
        assert_eq!(set(&bare(unit, min)), (show(min), true), "{} at its lower bound", row.name);
        let below = if min == 0 {
            "-1".to_owned()
        } else {
            bare(unit, min - if unit == Unit::Seconds { 1000 } else { 1 })
        };
        let below_is_zero = zero.is_some() && below == "0";
        assert_eq!(
            set(&below),
            (show(if below_is_zero { 0 } else { min }), below_is_zero),
            "{} below",
            row.name
        );
        if let Some(meaning) = zero {
            assert_eq!(set("0"), (format!("0 ({meaning})"), true), "{} at zero", row.name);
            assert_eq!(set("-1"), (format!("0 ({meaning})"), false), "{} below zero", row.name);
        }
        if max < u64::MAX {
            assert_eq!(set(&bare(unit, max)), (show(max), true), "{} at its upper bound", row.name);
            let above = bare(unit, max + if unit == Unit::Seconds { 1000 } else { 1 });
            assert_eq!(set(&above), (show(max), false), "{} above", row.name);
        }
        let (_, clean) = set("99999999999999999999999");
        assert!(!clean, "{} far above", row.name);
    }
}

/// The default of the setting that a range names.
fn number_of(range: &str, unit: Unit) -> u64 {
    let name = range.split('`').nth(1).unwrap();
    let rows = Settings::rows();
    let text = &rows.iter().find(|row| row.name == name).unwrap().default;
    (0..=40).map(|shift| 1_u64 << shift).chain([10_000]).find(|number| unit.show(*number) == *text).unwrap()
}

#[test]
fn what_cannot_be_read_leaves_the_default_and_warns() {
    for row in Settings::rows() {
        let bad = match row.kind {
            "number" | "seconds" | "milliseconds" | "size" | "word" | "switch" | "secret" => "banana",
            "list of addresses" => continue, // a flag only, see `a_bad_flag_refuses_the_start`
            "path" if row.range.starts_with("begins") => "banana",
            "path" | "list of paths" | "list" | "text" | "address" => continue, // every text is one
            other => panic!("{}: no unreadable text known for {other}", row.name),
        };
        let outcome = environment(row.name, bad);
        let complaints = complaints(&outcome);
        let [problem @ Problem::Unreadable { name, origin: Origin::Environment, .. }] = complaints.as_slice()
        else {
            panic!("{}: {complaints:?}", row.name)
        };
        assert_eq!((*name, problem.severity()), (row.name, Severity::Warning));
        assert_eq!(entry(&outcome, row.name).origin, Origin::Default, "{}", row.name);
    }
}

#[test]
fn every_word_is_read_in_any_case() {
    for row in Settings::rows().iter().filter(|row| matches!(row.kind, "word" | "switch")) {
        for word in row.range.split(", ") {
            for text in [word.to_owned(), word.to_uppercase(), word.replace('-', "_"), format!("  {word}\t")]
            {
                let outcome = environment(row.name, &text);
                assert!(complaints(&outcome).is_empty(), "{}={text}", row.name);
                assert_eq!(entry(&outcome, row.name).origin, Origin::Environment);
            }
        }
    }
}

#[test]
fn a_flag_beats_the_environment_beats_the_file() {
    // One setting of each kind that has a flag.
    let http = Binary::Http;
    for (binary, variable, flag, texts) in [
        (http, "SSH_GRACE_HARD_TIMEOUT_S", "--grace-secs", ["1s", "2s", "3s"]),
        (http, "SSH_MCP_LOG_FORMAT", "--log-format", ["json", "text", "json"]),
        (http, "RUST_LOG", "--log", ["debug", "warn", "error"]),
        (http, "MCP_HTTP_PATH", "--path", ["/a", "/b", "/c"]),
        (http, "MCP_ALLOWED_HOSTS", "--allowed-hosts", ["a", "b", "c"]),
        (http, "MCP_AUTH_TOKEN_FILE", "--auth-token-file", ["/a", "/b", "/c"]),
        (http, "MCP_REQUIRE_TOKEN", "--require-token", ["true", "false", "true"]),
        (Binary::Tail, "SSH_NDJSON_LINE_MAX", "--line-max", ["2k", "3k", "4k"]),
        (Binary::Tail, "SSH_HEARTBEAT_INTERVAL_S", "--heartbeat-secs", ["1s", "2s", "3s"]),
    ] {
        let all = [
            (Origin::Flag, flag, texts[0]),
            (Origin::Environment, variable, texts[1]),
            (Origin::File, variable, texts[2]),
        ];
        for first in 0..all.len() {
            let outcome = resolve(binary, &all[first..]);
            let entry = entry(&outcome, variable);
            assert_eq!((entry.value.as_str(), entry.origin), (texts[first], all[first].0), "{variable}");
        }
    }
    // Kinds without a flag.
    for (variable, texts) in [
        ("MCP_MAX_BODY", ["1m", "2m"]),
        ("SSH_MAX_RETRIES", ["1", "2"]),
        ("SSH_RETRY_DELAY_MS", ["1ms", "2ms"]),
    ] {
        let outcome = resolve(
            Binary::Http,
            &[(Origin::Environment, variable, texts[0]), (Origin::File, variable, texts[1])],
        );
        assert_eq!(entry(&outcome, variable).value, texts[0]);
    }
}

#[test]
fn a_bad_text_asks_the_next_place() {
    let outcome = resolve(
        Binary::Http,
        &[(Origin::Environment, "SSH_MAX_RETRIES", "many"), (Origin::File, "SSH_MAX_RETRIES", "7")],
    );
    assert_eq!(outcome.settings.max_retries, 7);
    assert_eq!(outcome.problems[0].to_string(), "SSH_MAX_RETRIES=many: not a whole number");
    assert_eq!(outcome.problems[0].used(), Some("7"));
}

#[test]
fn a_bad_flag_refuses_the_start() {
    for (flag, text) in [
        ("--grace-secs", "soon"),
        ("--grace-secs", "0"),
        ("--log-format", "xml"),
        ("--path", "nowhere"),
        ("--bind", "localhost:http"),
        ("--bind", "[::1:80"),
        ("--bind", "a b:80"),
    ] {
        let outcome = resolve(Binary::Http, &[(Origin::Flag, flag, text)]);
        let severities: Vec<_> = outcome.problems.iter().map(Problem::severity).collect();
        assert_eq!(severities, [Severity::Error], "{flag} {text}");
    }
}

#[test]
fn paths_of_health_and_metrics_are_never_served() {
    for path in ["/healthz", "/readyz/", "/metrics"] {
        assert_eq!(environment("MCP_HTTP_PATH", path).problems[0].severity(), Severity::Error, "{path}");
    }
    assert_eq!(environment("MCP_HTTP_PATH", "/mcp/").settings.http_path, "/mcp");
    assert_eq!(environment("MCP_HTTP_PATH", "/").settings.http_path, "/");
}

#[test]
fn compression_is_not_a_banana() {
    let outcome = environment("SSH_COMPRESSION", "banana");
    assert_eq!(outcome.settings.compression, Compression::Auto);
    assert_eq!(outcome.problems[0].severity(), Severity::Warning);
    assert_eq!(environment("SSH_COMPRESSION", "ON").settings.compression, Compression::On);
    assert_eq!(environment("SSH_COMPRESSION", "0").settings.compression, Compression::Off);
}

#[test]
fn sizes_have_one_factor_everywhere() {
    for row in Settings::rows().iter().filter(|row| row.kind == "size") {
        let values = ["64k", "64K", "64kb", "64KiB", "65536", "65_536", "65536b"]
            .map(|text| environment(row.name, text));
        for outcome in &values {
            assert_eq!(entry(outcome, row.name).value, entry(&values[0], row.name).value, "{}", row.name);
        }
    }
    assert_eq!(environment("SSH_HISTORY_TOTAL_MAX", "1t").settings.history_total, 64 << 30);
    assert_eq!(environment("SSH_HISTORY_TOTAL_MAX", "1GiB").settings.history_total, 1 << 30);
}

#[test]
fn durations_take_a_unit() {
    let check = |name: &str, text: &str, expected: &str| {
        let outcome = environment(name, text);
        assert_eq!(entry(&outcome, name).value, expected, "{name}={text}");
    };
    check("SSH_CONNECT_TIMEOUT", "90", "90s");
    check("SSH_CONNECT_TIMEOUT", "1500ms", "1500ms");
    check("SSH_CONNECT_TIMEOUT", "5m", "300s");
    check("SSH_CONNECT_TIMEOUT", "1h", "3600s");
    check("SSH_CONNECT_TIMEOUT", "1H", "3600s");
    check("SSH_RETRY_DELAY_MS", "2s", "2000ms");
    check("SSH_RETRY_DELAY_MS", "250", "250ms");
    check("SSH_COMMAND_TIMEOUT", "0", "0 (no limit)");
    assert_eq!(environment("SSH_COMMAND_TIMEOUT", "0").settings.command_timeout, None);
    for text in ["1.5s", "s", "1 s", "_1", "1_", "1d", "+1", "0x10", "1kb", "--1"] {
        assert_eq!(
            entry(&environment("SSH_CONNECT_TIMEOUT", text), "SSH_CONNECT_TIMEOUT").origin,
            Origin::Default,
            "{text}"
        );
    }
}

#[test]
fn the_longest_time_can_be_added_to_now() {
    let outcome = environment("SSH_COMMAND_TIMEOUT", "18446744073709551615");
    assert!(std::time::UNIX_EPOCH.checked_add(outcome.settings.command_timeout.unwrap()).is_some());
}

#[test]
fn empty_is_not_set() {
    for text in ["", "   ", "\t"] {
        let outcome = environment("SSH_MAX_RETRIES", text);
        assert_eq!(entry(&outcome, "SSH_MAX_RETRIES").origin, Origin::Default);
        assert!(outcome.problems.is_empty());
    }
}

#[test]
fn what_one_answer_may_hold_is_capped_by_the_cap() {
    let outcome = resolve(
        Binary::Stdio,
        &[
            (Origin::Environment, "SSH_MCP_OUTPUT_MAX_BYTES_CAP", "2k"),
            (Origin::Environment, "SSH_MCP_LIST_MAX_ITEMS_CAP", "20"),
            (Origin::Environment, "SSH_MCP_LIST_MAX_ITEMS", "21"),
        ],
    );
    assert_eq!((outcome.settings.output_default, outcome.settings.list_default), (2048, 20));
    // The default follows silently; what somebody asked for does not.
    let named: Vec<_> = outcome.problems.iter().map(ToString::to_string).collect();
    assert_eq!(named, ["SSH_MCP_LIST_MAX_ITEMS=21: outside 1 … `SSH_MCP_LIST_MAX_ITEMS_CAP`"]);
}

#[test]
fn other_names_are_accepted_and_the_main_one_wins() {
    let old = environment("SSH_SHELL_INACTIVITY_TTL_SECS", "60");
    assert_eq!(old.settings.shell_inactivity, Some(Duration::from_mins(1)));
    assert_eq!(old.problems[0].severity(), Severity::Notice);
    assert!(environment("SSH_SHELL_MAX_BUFFER", "64k").problems.is_empty());
    let both = resolve(
        Binary::Http,
        &[
            (Origin::Environment, "SSH_SHELL_MAX_BUFFER", "64k"),
            (Origin::Environment, "SSH_SHELL_MAX_BUFFER_SIZE", "32k"),
        ],
    );
    assert_eq!(both.settings.shell_history, 32 << 10);
}

#[test]
fn a_setting_that_nothing_reads_says_so() {
    for row in Settings::rows().iter().filter(|row| row.effect != Effect::Used) {
        let outcome = environment(row.name, "64");
        let [problem @ Problem::Unused { name, .. }] = outcome.problems.as_slice() else {
            panic!("{}: {:?}", row.name, outcome.problems)
        };
        assert_eq!((*name, problem.severity()), (row.name, Severity::Notice));
        assert_eq!(entry(&outcome, row.name).value, "64");
    }
}

#[test]
fn paths_begin_at_home() {
    let known_hosts = |text| environment("SSH_MCP_KNOWN_HOSTS", text).settings.known_hosts;
    assert_eq!(Settings::default().known_hosts, None);
    assert_eq!(
        resolve(Binary::Stdio, &[]).settings.known_hosts,
        Some("/home/somebody/.ssh/known_hosts".into())
    );
    assert_eq!(known_hosts("~/k"), Some("/home/somebody/k".into()));
    assert_eq!(known_hosts("~"), Some("/home/somebody".into()));
    assert_eq!(known_hosts("/~/k"), Some("/~/k".into()));
    assert_eq!(known_hosts("~other/k"), Some("~other/k".into()));
    let other = resolve(
        Binary::Http,
        &[
            (Origin::Environment, "USERPROFILE", "/u"),
            (Origin::Environment, "SSH_MCP_ALLOW_LOCAL_PATHS", "~/a, /b ,,"),
        ],
    );
    assert_eq!(other.settings.home, Some("/u".into()));
    assert_eq!(other.settings.allow_local_paths, [PathBuf::from("/u/a"), PathBuf::from("/b")]);
    assert!(other.problems.is_empty());
}

#[test]
fn a_restriction_that_cannot_be_read_is_not_dropped() {
    let sources = |_, name: &str| (name == "SSH_MCP_ALLOW_LOCAL_PATHS").then(|| "~/a".to_owned());
    let outcome = Settings::resolve(Binary::Stdio, &sources, None);
    assert_eq!(outcome.problems[0].severity(), Severity::Error);
}

#[test]
fn listen_addresses_as_people_write_them() {
    let listen = |text: &str| {
        let outcome = resolve(
            Binary::Http,
            &[
                (Origin::Flag, "--bind", text),
                (Origin::Environment, "MCP_HOST", "192.0.2.9"),
                (Origin::Environment, "MCP_PORT", "9"),
            ],
        );
        outcome.settings.listen().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(listen("0.0.0.0:8000"), "0.0.0.0:8000");
    assert_eq!(listen(":81"), "0.0.0.0:81");
    assert_eq!(listen("localhost"), "localhost:8000");
    assert_eq!(listen("[::]:8000"), "[::]:8000");
    assert_eq!(listen("[::1]"), "[::1]:8000");
    assert_eq!(listen("::1"), "[::1]:8000");
    assert_eq!(listen("127.0.0.1:0,[::1]:0"), "127.0.0.1:0 [::1]:0");
    assert_eq!(listen(""), "192.0.2.9:9");
    assert_eq!(environment("MCP_HOST", "[::1]").settings.listen()[0].to_string(), "[::1]:8000");
}

#[test]
fn stdio_reads_nothing_of_http() {
    let outcome = resolve(
        Binary::Stdio,
        &[(Origin::Environment, "MCP_PORT", "banana"), (Origin::Environment, "MCP_HTTP_PATH", "/metrics")],
    );
    assert!(outcome.problems.is_empty());
    assert!(outcome.entries.iter().all(|entry| !entry.row.name.starts_with("MCP_")));
}

#[test]
fn a_token_is_masked_wherever_it_stands() {
    let planted = "plantedplantedplanted";
    let outcome = environment("MCP_AUTH_TOKEN", planted);
    assert_eq!(outcome.settings.auth_token.as_ref().unwrap().reveal(), planted);
    let short = environment("MCP_AUTH_TOKEN", "planted");
    assert!(short.settings.auth_token.is_none());
    for outcome in [outcome, short] {
        let entry = entry(&outcome, "MCP_AUTH_TOKEN");
        assert!(!format!("{entry:?}").contains("planted"));
        assert!(outcome.problems.iter().all(|problem| !format!("{problem} {problem:?}").contains("planted")));
    }
}

#[test]
fn names_of_rows_are_their_own() {
    let mut names: Vec<&str> = Vec::new();
    for row in &Settings::rows() {
        names.push(row.name);
        names.extend(row.aliases.iter().map(|alias| alias.name()));
        names.extend(row.flag.filter(|flag| *flag != row.name));
    }
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}
