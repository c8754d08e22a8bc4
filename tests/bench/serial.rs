//! What serial ports cost, and how soon what they receive is there: `scripts/bench serial`. Needs socat, whose pair of
//! pseudo-terminals stands for a line, and is part of every figure.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::{MIB, at, millis, push::Pipes, row, sshd::LinePair};

/// The product with a line open, and its URI.
fn open(env: &[(&str, &str)]) -> (LinePair, Pipes, String) {
    let pair = LinePair::start_or_skip().expect("this part needs socat");
    let mut client = Pipes::at_home(tempfile::tempdir().unwrap(), env);
    let opened = client.call("serial_open", json!({"path": pair.near()}));
    let uri = opened["uri"].as_str().unwrap().to_owned();
    (pair, client, uri)
}

/// From a byte on the far end to the answer of the `sub_wait` that waited for it.
pub(crate) fn delay() {
    for (debounce, what, targets) in [
        ("200", "at default settings", ["<= 30 ms", "-"]),
        ("5", "with `SSH_NOTIFY_DEBOUNCE_MS=5`", ["<= 6 ms", "-"]),
    ] {
        let (pair, mut client, uri) = open(&[("SSH_NOTIFY_DEBOUNCE_MS", debounce)]);
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

/// Sixteen lanes with bytes on a line that receives 4 MiB a second, everything at its default.
pub(crate) fn flood() {
    const RATE: usize = 4 << 20;
    const SECONDS: usize = 5;
    let (pair, mut client, uri) = open(&[]);
    for _ in 0..16 {
        let opened = client.call("sub_open", json!({"uri": uri, "inline_push": true}));
        assert_eq!(opened["inline_push_honored"], true, "{opened}");
    }
    let sent: Vec<u8> = (0..RATE * SECONDS).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let before = client.cpu();
    let begun = Instant::now();
    let saying = pair.say_at(sent.clone(), RATE);
    let (mut came, mut lost, mut ended) = (0_usize, 0_u64, 0);
    while ended < 16 {
        let (_, note) = client.notification();
        let piece = &note["params"];
        if note["method"] != "notifications/ssh/output" {
            continue;
        }
        let bytes = match piece["text"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => STANDARD.decode(piece["bytes_b64"].as_str().unwrap()).unwrap(),
        };
        let after = piece["cursor_after"].as_u64().unwrap() as usize;
        assert!(bytes == sent[after - bytes.len()..after], "other bytes than were sent");
        came += bytes.len();
        lost += piece["gap_bytes"].as_u64().unwrap_or(0);
        ended += usize::from(after == sent.len());
    }
    let took = begun.elapsed();
    let said = saying.join().unwrap();
    let cpu = client.cpu() - before;
    let size = (RATE * SECONDS) as u64 / MIB;
    let rate = (RATE * SECONDS) as f64 / said.as_secs_f64() / MIB as f64;
    assert_eq!(came as u64 + lost, 16 * (RATE * SECONDS) as u64);
    row(
        &format!("{size} MiB at {rate:.1} MiB/s through a line with 16 lanes: bytes missing"),
        &lost.to_string(),
        "-",
        None,
        "0",
    );
    row("from its first byte to the last of the last lane", &millis(took), "-", None, "-");
    let share = cpu.as_secs_f64() / took.as_secs_f64() * 100.0;
    row("processor time of that", &format!("{share:.0} % of one core"), "-", None, "-");
}
