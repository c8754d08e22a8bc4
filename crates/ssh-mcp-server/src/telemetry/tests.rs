//! Lines as they are written, filters as they are read, warnings as they are joined.

use std::time::Duration;

use serde_json::{Value, json};
use time::macros::datetime;
use tracing::subscriber::with_default;
use tracing_subscriber::filter::LevelFilter;

use super::*;

std::thread_local! {
    static WRITTEN: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn keep(line: &[u8]) -> std::io::Result<()> {
    WRITTEN.with_borrow_mut(|lines| lines.push(String::from_utf8(line.to_vec()).unwrap()));
    Ok(())
}

/// The lines that `story` leads to, without their time.
fn lines(style: line::Style, filter: &str, story: impl FnOnce()) -> Vec<String> {
    with_default(subscriber(Filter::parse(filter).unwrap(), Lines::new(style, keep)), story);
    WRITTEN.take()
}

fn texts(filter: &str, story: impl FnOnce()) -> Vec<String> {
    let lines = lines(line::Style::Plain, filter, story);
    lines.iter().map(|line| line.split_once("Z ").unwrap().1.trim_end_matches('\n').to_owned()).collect()
}

#[test]
fn a_text_line_has_time_level_target_message_and_values() {
    let lines = lines(line::Style::Plain, "info", || {
        tracing::info!(target: "ssh_mcp::http", addr = %"127.0.0.1:1", count = 3, "listening");
    });
    let (time, rest) = lines[0].split_once(' ').unwrap();
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!(shape, "9999-99-99T99:99:99.999Z");
    assert_eq!(rest, "INFO  ssh_mcp::http listening addr=127.0.0.1:1 count=3\n");
}

#[test]
fn a_json_line_is_flat_and_begins_with_its_four_names() {
    let lines = lines(line::Style::Json, "info", || {
        let outer = tracing::info_span!("session", session_id = "s1", host = "h");
        let _outer = outer.enter();
        let inner = tracing::info_span!("command", session_id = "s2", command_id = tracing::field::Empty);
        inner.record("command_id", "c1");
        let _inner = inner.enter();
        tracing::warn!(target: "ssh_mcp::audit", ok = true, msg = "mine", text = "a \"b\"\n", "said {}", 7);
    });
    assert!(
        lines[0].starts_with("{\"ts\":\"20")
            && lines[0].ends_with("}\n")
            && lines[0].matches('\n').count() == 1
    );
    let order: Vec<_> =
        ["\"ts\"", "\"level\"", "\"target\"", "\"msg\"", "\"ok\""].map(|name| lines[0].find(name)).into();
    assert!(order.is_sorted() && order.iter().all(Option::is_some), "{}", lines[0]);
    let mut value: Value = serde_json::from_str(&lines[0]).unwrap();
    value.as_object_mut().unwrap().remove("ts");
    let expected = json!({
        "level": "WARN", "target": "ssh_mcp::audit", "msg": "said 7", "ok": true, "msg_": "mine", "text": "a \"b\"\n",
        "span": {"name": "command", "session_id": "s2", "host": "h", "command_id": "c1"},
    });
    assert_eq!(value, expected);
}

#[test]
fn no_value_starts_a_line_or_steers_a_terminal() {
    let written =
        texts("info", || tracing::info!(target: "ssh_mcp", v = "a\nb", e = "", q = "x=y", "m\r\n\u{1b}[2J"));
    assert_eq!(written, [r#"INFO  ssh_mcp m\r\n\u{1b}[2J v="a\nb" e="" q="x=y""#]);
}

#[test]
fn values_of_spans_follow_those_of_the_event() {
    let written = texts("info", || {
        let span = tracing::info_span!("session", session_id = "s1", peer = "p");
        let _entered = span.enter();
        tracing::info!(target: "ssh_mcp", session_id = "own", "done");
    });
    assert_eq!(written, ["INFO  ssh_mcp done session_id=own peer=p"]);
}

#[test]
fn the_sdk_stays_silent_whatever_was_asked() {
    for filter in ["trace", "info,rmcp=trace", "rmcp::transport=debug", "info,rmcp=off"] {
        let written = texts(filter, || {
            tracing::error!(target: "rmcp::service", "password");
            tracing::error!(target: "rmcp::transport::io", "password");
        });
        assert!(written.is_empty(), "{filter}");
    }
}

#[test]
fn a_filter_on_ssh_mcp_covers_every_target_of_ours() {
    let story = || {
        tracing::debug!(target: "ssh_mcp::ssh", "one");
        tracing::debug!(target: "ssh_mcp", "two");
        tracing::debug!(target: "hyper", "other");
        tracing::debug!(target: "ssh_mcp::audit", "three");
    };
    assert_eq!(texts("ssh_mcp=debug", story).len(), 3);
    assert_eq!(texts("info,ssh_mcp::audit=debug", story), ["DEBUG ssh_mcp::audit three"]);
    assert!(texts("off", story).is_empty());
}

#[test]
fn filters_that_are_refused() {
    for text in ["inof", "ssh_mcp=loud", "=debug", "info,[span]=debug", "a b=info", "a=b=info"] {
        assert!(Filter::parse(text).is_err(), "{text}");
    }
    assert_eq!(
        Filter::parse(" INFO , ssh_mcp::ssh = debug,").unwrap(),
        Filter::parse("info,ssh_mcp::ssh=debug").unwrap()
    );
    assert_eq!(Filter::info(), Filter::parse("info").unwrap());
    assert_eq!(Filter::info().into_targets().default_level(), Some(LevelFilter::INFO));
}

#[test]
fn russh_is_held_at_warnings_unless_named() {
    let takes = |filter: &str, level| Filter::parse(filter).unwrap().takes_log_record("russh::client", level);
    assert!(takes("trace", log::Level::Warn) && !takes("trace", log::Level::Info));
    assert!(takes("info", log::Level::Warn) && !takes("error", log::Level::Warn));
    assert!(takes("info,russh=debug", log::Level::Debug) && !takes("russh=trace", log::Level::Trace));
    assert!(!takes("ssh_mcp=trace", log::Level::Error) && !takes("info,russh=off", log::Level::Error));
    assert_eq!(Filter::parse("off,russh=debug").unwrap().most_for_log_records(), log::LevelFilter::Debug);
    assert_eq!(Filter::info().most_for_log_records(), log::LevelFilter::Warn);
}

fn warning(target: &str) -> Body {
    Body::new(Level::WARN, target, Fields::default(), Scope::default())
}

#[test]
fn the_same_warning_is_written_once_in_half_a_minute() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let (a, b) = (warning("a"), warning("b"));
    let mut repeats = Repeats::default();
    assert_eq!(repeats.on_warning(&a, after(0)), Verdict::Print);
    assert_eq!(repeats.on_warning(&b, after(1)), Verdict::Print);
    assert_eq!(repeats.on_warning(&a, after(2)), Verdict::HoldBack);
    assert_eq!(repeats.on_warning(&a, after(29)), Verdict::HoldBack);
    assert!(repeats.take_due(after(29)).is_empty());
    assert_eq!(repeats.take_due(after(30)), [(a.clone(), 2)]);
    assert_eq!(repeats.on_warning(&a, after(30)), Verdict::Print);
    assert!(repeats.take_due(after(60)).is_empty());
    let line = a.to_line(line::Style::Plain, datetime!(2026-01-02 03:04:05.006 UTC), Some(2));
    assert_eq!(line, "2026-01-02T03:04:05.006Z WARN  a  repeated=2\n");
}

#[test]
fn a_flood_of_one_warning_is_one_line() {
    let written = texts("info", || {
        for _ in 0..1000 {
            tracing::warn!(target: "ssh_mcp", code = "X", "again");
            tracing::info!(target: "ssh_mcp", "other");
        }
    });
    assert_eq!(written.iter().filter(|line| line.starts_with("WARN")).count(), 1);
    assert_eq!(written.len(), 1001);
}
