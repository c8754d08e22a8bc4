//! What serial ports cost, and how soon what they receive is there: `scripts/bench serial`. Needs socat, whose pair of
//! pseudo-terminals stands for a line, and is part of every figure.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{MIB, at, millis, push::Pipes, row, sshd::LinePair};

/// The product with a line open, and its URI.
fn open(history: u64, env: &[(&str, &str)]) -> (LinePair, Pipes, String) {
    let pair = LinePair::start_or_skip().expect("this part needs socat");
    let mut client = Pipes::at_home(tempfile::tempdir().unwrap(), env);
    let opened = client.call("serial_open", json!({"path": pair.near(), "max_buffer_size": history}));
    let uri = opened["uri"].as_str().unwrap().to_owned();
    (pair, client, uri)
}

/// From a byte on the far end to the answer of the `sub_wait` that waited for it.
pub(crate) fn delay() {
    for (debounce, what, targets) in [
        ("200", "at default settings", ["<= 30 ms", "-"]),
        ("5", "with `SSH_NOTIFY_DEBOUNCE_MS=5`", ["<= 6 ms", "-"]),
    ] {
        let (pair, mut client, uri) = open(0, &[("SSH_NOTIFY_DEBOUNCE_MS", debounce)]);
        let mut times = Vec::new();
        for round in 0..220 {
            let said = saying_later(&pair);
            let waited = client.call("sub_wait", json!({"uris": [uri]}));
            let took = said.join().unwrap().elapsed();
            assert_eq!(waited["items"][0]["delta"], "x", "{waited}");
            if round >= 20 {
                times.push(took);
            }
        }
        for ((share, name), target) in [(0.5, "median"), (0.95, "p95")].into_iter().zip(targets) {
            let what = format!("a byte on a line to the answer of `sub_wait`, {what}, {name}");
            row(&what, &millis(at(&mut times, share)), "-", None, target);
        }
    }
}

/// Sends a byte once the call before it is under way; the answer is when.
fn saying_later(pair: &LinePair) -> std::thread::JoinHandle<Instant> {
    let mut far = pair.far();
    std::thread::spawn(move || {
        #[expect(clippy::disallowed_methods, reason = "a measurement paces itself by the clock")]
        std::thread::sleep(Duration::from_millis(20));
        let now = Instant::now();
        std::io::Write::write_all(&mut far, b"x").unwrap();
        now
    })
}

/// Sixteen lanes with bytes on a line that receives 4 MiB a second: with everything at its default, where a lane that is late by
/// more than the history is told what it missed, and with a history that holds all of it.
pub(crate) fn flood() {
    flood_into(0, &[], "default history");
    flood_into(64 * MIB, &[("SSH_REPLAY_WINDOW_BYTES", "64m")], "history and replay window of 64 MiB");
}

fn flood_into(history: u64, env: &[(&str, &str)], what: &str) {
    const RATE: usize = 4 << 20;
    const SECONDS: usize = 3;
    let (pair, mut client, uri) = open(history, env);
    for _ in 0..16 {
        let opened = client.call("sub_open", json!({"uri": uri, "inline_push": true}));
        assert_eq!(opened["inline_push_honored"], true, "{opened}");
    }
    let sent: Vec<u8> = (0..RATE * SECONDS).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let before = client.cpu();
    let begun = Instant::now();
    let saying = pair.say_at(sent.clone(), RATE);
    // Read as they come and looked at afterwards: what is measured is the product, not how fast this program reads JSON.
    let last = format!("\"cursor_after\":{}", sent.len());
    let (mut notes, mut ended) = (Vec::new(), 0);
    while ended < 16 {
        let line = client.line();
        let tail = String::from_utf8_lossy(&line[line.len().saturating_sub(300)..]);
        ended += usize::from(tail.contains(&last));
        notes.push(line);
    }
    let took = begun.elapsed();
    let said = saying.join().unwrap();
    let cpu = client.cpu() - before;
    let (mut came, mut lost) = (0_usize, 0_u64);
    for note in notes {
        let note: Value = serde_json::from_slice(&note).unwrap();
        let piece = &note["params"];
        if note["method"] != "notifications/ssh/output" {
            continue;
        }
        let bytes = match piece["text"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => STANDARD.decode(piece["bytes_b64"].as_str().unwrap()).unwrap(),
        };
        let after = usize::try_from(piece["cursor_after"].as_u64().unwrap()).unwrap();
        assert!(bytes == sent[after - bytes.len()..after], "other bytes than were sent");
        came += bytes.len();
        lost += piece["gap_bytes"].as_u64().unwrap_or(0);
    }
    let size = (RATE * SECONDS) as u64 / MIB;
    let rate = (RATE * SECONDS) as f64 / said.as_secs_f64() / MIB as f64;
    assert_eq!(came as u64 + lost, 16 * (RATE * SECONDS) as u64);
    row(
        &format!("{size} MiB at {rate:.1} MiB/s through a line with 16 lanes, {what}: bytes missing"),
        &lost.to_string(),
        "-",
        None,
        "0",
    );
    row("from its first byte to the last of the last lane", &millis(took), "-", None, "-");
    let share = cpu.as_secs_f64() / took.as_secs_f64() * 100.0;
    row("processor time of that", &format!("{share:.0} % of one core"), "-", None, "-");
}
