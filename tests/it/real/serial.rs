//! Serial ports of the running product, on pairs of pseudo-terminals: the product opens one end as a device, a test plays
//! the board on the other.

use std::fs::File;
use std::io::Write;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::push::{Story, UPDATED, takes_bytes};
use super::*;
use crate::sshd::LinePair;

/// A line, and the product with it open.
struct Bench {
    pair: LinePair,
    client: McpClient,
    port: String,
}

impl Bench {
    async fn set() -> Option<Self> {
        Self::set_in(Era::LEGACY_2025_11, json!({}), &[]).await
    }

    async fn set_in(era: Era, options: Value, env: &[(&str, &str)]) -> Option<Self> {
        let pair = LinePair::start_or_skip()?;
        let client = McpClient::spawn_declaring(takes_bytes(), era, &binary("ssh-mcp-stdio"), &[], env).await;
        let mut ask = json!({ "path": pair.near() });
        ask.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        let opened = client.call("serial_open", ask).await;
        assert!(!opened.is_error, "{}", opened.text);
        let port = field(&opened, "serial_id");
        Some(Self { pair, client, port })
    }

    fn uri(&self) -> String {
        format!("serial://{}/output", self.port)
    }

    async fn try_call(&self, tool: &str, mut arguments: Value) -> ToolAnswer {
        if tool.starts_with("serial_") {
            arguments["serial_id"] = self.port.as_str().into();
        }
        self.client.call(tool, arguments).await
    }

    async fn call(&self, tool: &str, arguments: Value) -> ToolAnswer {
        let answer = self.try_call(tool, arguments).await;
        assert!(!answer.is_error, "{}", answer.text);
        answer
    }

    async fn wait(&self, mut arguments: Value) -> ToolAnswer {
        arguments["uris"] = json!([self.uri()]);
        self.call("sub_wait", arguments).await
    }

    /// Everything the port still holds, exactly.
    async fn held(&self) -> Vec<u8> {
        let (mut bytes, mut cursor) = (Vec::new(), 0);
        loop {
            let uri = format!("{}?cursor={cursor}&encoding=base64", self.uri());
            let contents = self.client.read_resource(&uri).await.unwrap();
            bytes.extend(STANDARD.decode(contents[0]["blob"].as_str().unwrap()).unwrap());
            let meta = &contents[0]["_meta"];
            assert!(meta["truncated_since_last_read"].is_null(), "{meta}");
            cursor = meta["cursor"].as_u64().unwrap();
            if meta["more"] != true {
                return bytes;
            }
        }
    }
}

/// Bytes without a pattern, the same ones each time.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(count).collect()
}

/// A board with a boot loader: it can be stopped for a moment only, and has one command.
struct Board {
    line: File,
    heard: mpsc::Receiver<Vec<u8>>,
    /// How long a key can stop it.
    moment: Duration,
}

impl Board {
    /// Runs on a thread of its own until the line is gone.
    fn plug(pair: &LinePair, moment: Duration) {
        let mut board = Self { line: pair.far(), heard: pair.heard(), moment };
        std::thread::spawn(move || while board.boot().is_some() {});
    }

    fn say(&mut self, text: &str) -> Option<()> {
        self.line.write_all(text.as_bytes()).ok()
    }

    /// From power-on to the next reset; none when the line is gone.
    fn boot(&mut self) -> Option<()> {
        self.say("\r\n\x1b[1mLoader 2026.10\x1b[0m\r\nDRAM:  1 GiB\r\nHit any key to stop autoboot:  1 ")?;
        match self.heard.recv_timeout(self.moment) {
            Ok(_) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.say("\r\nStarting kernel ...\r\n[    0.000000] Booting\r\n")?;
                // A kernel has no prompt; only the magic word gets it back.
                while !self.line_of_input()?.contains("reset") {}
                return Some(());
            }
        }
        loop {
            self.say("\r\n=> ")?;
            let line = self.line_of_input()?;
            match line.trim() {
                "" => {}
                "version" => self.say("version\r\nLoader 2026.10 (board)")?,
                "reset" => return self.say("reset\r\nresetting ..."),
                other => self.say(&format!("{other}\r\nUnknown command '{other}'"))?,
            }
        }
    }

    fn line_of_input(&mut self) -> Option<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r") {
            line.extend(self.heard.recv().ok()?);
        }
        Some(String::from_utf8_lossy(&line).into_owned())
    }
}

#[tokio::test]
async fn a_boot_loader_that_can_be_stopped_for_a_moment_is_stopped() {
    let Some(bench) = Bench::set().await else { return };
    Board::plug(&bench.pair, Duration::from_secs(3));
    let met =
        bench.wait(json!({"until": "match", "patterns": ["Hit any key.*: +\\d"], "timeout_secs": 60})).await;
    assert_eq!(met.structured["status"], "matched", "{}", met.text);
    bench.call("serial_press", json!({"key": "space"})).await;
    let prompt = bench.wait(json!({"until": "match", "patterns": ["=> $"], "timeout_secs": 60})).await;
    let said = prompt.structured["items"][0]["delta"].as_str().unwrap();
    assert!(said.ends_with("=> ") && !said.contains("kernel"), "{said}");

    // A command and its answer in one call, without colours, and nothing from before.
    let ask = json!({"text": "version\r", "wait_for": ["=> $"], "timeout_secs": 60});
    let version = bench.call("serial_write", ask).await;
    assert_eq!(version.structured["waited"], "matched", "{}", version.text);
    assert_eq!(version.structured["item"]["delta"], "version\r\nLoader 2026.10 (board)\r\n=> ");

    // The next start is met by the call that causes it.
    let ask = json!({"text": "reset\r", "wait_for": ["Hit any key"], "timeout_secs": 60});
    let reset = bench.call("serial_write", ask).await;
    assert_eq!(reset.structured["waited"], "matched", "{}", reset.text);
    let stopped = json!({"text": "x", "wait_for": ["=> $", "kernel"], "timeout_secs": 60});
    let stopped = bench.call("serial_write", stopped).await;
    assert_eq!(stopped.structured["item"]["matched_pattern"], "=> $", "{}", stopped.text);

    // And one that nobody stops goes on.
    let ask = json!({"text": "reset\r", "wait_for": ["Starting kernel"], "timeout_secs": 60});
    let missed = bench.call("serial_write", ask).await;
    assert_eq!(missed.structured["waited"], "matched", "{}", missed.text);
    let ask = json!({"text": "ls\r", "wait_for": ["=> $"], "timeout_secs": 1});
    let nothing = bench.call("serial_write", ask).await;
    assert_eq!(nothing.structured["waited"], "timeout");

    let whole = bench.held().await;
    let text = String::from_utf8(whole).unwrap();
    assert_eq!(text.matches("Hit any key").count(), 3, "{text}");
    let plain = bench.client.read_resource(&format!("{}?strip_ansi=true", bench.uri())).await.unwrap();
    let plain = plain[0]["text"].as_str().unwrap();
    assert!(text.contains("\x1b[1m") && plain.contains("Loader 2026.10\r\nDRAM") && !plain.contains('\x1b'));
}

#[tokio::test]
async fn a_flood_with_sixteen_lanes_loses_nothing() {
    const RATE: usize = 4 << 20;
    // The history holds all of it, so that a lane of a slow test build is late and never without.
    let options = json!({"max_buffer_size": 64 << 20});
    let env = [("SSH_REPLAY_WINDOW_BYTES", "64m")];
    let Some(bench) = Bench::set_in(Era::LEGACY_2025_11, options, &env).await else { return };
    let mut lanes = Vec::new();
    for _ in 0..16 {
        let opened = bench.call("sub_open", json!({"uri": bench.uri(), "inline_push": true})).await;
        assert_eq!(opened.structured["inline_push_honored"], true, "{}", opened.text);
        lanes.push(field(&opened, "sub_id"));
    }
    let sent = noise(RATE);
    let saying = bench.pair.say_at(sent.clone(), RATE);
    for lane in &lanes {
        let story = bench.client.hear(|notes| Story::up_to(notes, lane, sent.len())).await;
        assert!(story.bytes == sent, "{} bytes came, {} missing", story.bytes.len(), story.gap);
        assert_eq!(story.gap, 0);
    }
    let took = saying.join().unwrap();
    assert!(bench.held().await == sent);
    // The line itself was never held up by what came behind it.
    assert!(took < Duration::from_secs(3), "4 MiB took {took:?}");
}

#[tokio::test]
async fn bytes_of_every_value_go_both_ways_as_they_are() {
    let Some(bench) = Bench::set().await else { return };
    let heard = bench.pair.heard();
    let sent = noise(300_000);
    bench.call("serial_write", json!({"bytes_base64": STANDARD.encode(&sent)})).await;
    let mut got = Vec::new();
    while got.len() < sent.len() {
        got.extend(heard.recv_timeout(crate::client::LIMIT).expect("the line goes on"));
    }
    assert!(got == sent);
    bench.pair.say(&(0..=255).collect::<Vec<u8>>());
    bench.wait(json!({"until": "quiet", "quiet_ms": 100})).await;
    assert_eq!(bench.held().await, (0..=255).collect::<Vec<u8>>());
    let active = bench.client.call("serial_active", json!({})).await;
    let port = &active.structured["ports"][0];
    assert_eq!((&port["rx_bytes"], &port["tx_bytes"]), (&json!(256), &json!(300_000)), "{}", active.text);
}

#[tokio::test]
async fn a_line_that_is_unplugged_is_told_of_within_a_second_with_its_last_words() {
    for era in Era::BOTH {
        let Some(mut bench) = Bench::set_in(era, json!({}), &[]).await else { return };
        let lane = bench.call("sub_open", json!({"uri": bench.uri(), "inline_push": true})).await;
        let lane = field(&lane, "sub_id");
        bench.pair.say(b"last words");
        bench.wait(json!({"until": "match", "patterns": ["last words"]})).await;
        let uri = bench.uri();
        let wait =
            json!({"name": "sub_wait", "arguments": {"uris": [uri], "until": "end", "timeout_secs": 60}});
        let waiting = bench.client.begin("tools/call", wait).await;
        let pulled = Instant::now();
        bench.pair.unplug();
        let ended = ToolAnswer::parse(&waiting.result().await.unwrap());
        let took = pulled.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
        let item = &ended.structured["items"][0];
        assert_eq!((&item["status"], &item["reason"]), (&json!("closed"), &json!("connection_lost")));
        let story = bench.client.hear(|notes| Story::closed(notes, &lane)).await;
        assert_eq!((story.bytes.as_slice(), story.gap), (b"last words".as_slice(), 0));
        assert_eq!(bench.held().await, b"last words");
        let write = bench.try_call("serial_write", json!({"text": "x"})).await;
        assert_eq!(write.structured["code"], "SERIAL_NOT_FOUND", "{}", write.text);
        assert!(field(&write, "detail").contains("reason=connection_lost"), "{}", write.text);
        assert_eq!(bench.client.call("serial_active", json!({})).await.structured["total"], 0);
    }
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_what_it_took_arrives() {
    let Some(bench) = Bench::set().await else { return };
    // Nobody reads the far end: what the line holds is taken, then the queue fills.
    let mut taken = Vec::new();
    let refused = loop {
        let piece = format!("{:>7}\n", taken.len()).repeat(2048);
        let answer = bench.try_call("serial_write", json!({"text": piece})).await;
        if answer.is_error {
            break answer;
        }
        taken.push(piece);
        assert!(taken.len() < 1000, "the queue has no end");
    };
    assert_eq!(refused.structured["code"], "SERIAL_BACKPRESSURE", "{}", refused.text);
    assert_eq!(refused.structured["retry"], "backoff");
    let active = bench.client.call("serial_active", json!({})).await;
    assert_eq!(active.structured["ports"][0]["queue_depth"], 64, "{}", active.text);
    let heard = bench.pair.heard();
    let (mut got, all) = (Vec::new(), taken.concat());
    while got.len() < all.len() {
        got.extend(heard.recv_timeout(crate::client::LIMIT).expect("the line goes on"));
    }
    assert!(got == all.as_bytes(), "in order, and nothing of what was refused");
    bench.call("serial_write", json!({"text": "again"})).await;
}

#[tokio::test]
async fn a_device_is_open_once_and_another_process_keeps_its_own() {
    let Some(bench) = Bench::set().await else { return };
    let device = std::fs::canonicalize(bench.pair.near()).unwrap();
    for name in [bench.pair.near(), device.to_str().unwrap().to_owned()] {
        let again = bench.client.call("serial_open", json!({"path": name})).await;
        assert_eq!(again.structured["code"], "SERIAL_ERROR", "{}", again.text);
        assert!(field(&again, "detail").contains(&format!("serial_id={}", bench.port)), "{}", again.text);
    }
    let second = McpClient::spawn(Era::LEGACY_2025_11, &binary("ssh-mcp-stdio"), &[], &[]).await;
    let other = second.call("serial_open", json!({"path": bench.pair.near()})).await;
    assert!(other.is_error && other.text.contains("in use by another process"), "{}", other.text);
    bench.pair.say(b"still here");
    bench.wait(json!({"until": "match", "patterns": ["still here"]})).await;

    // Given back, it is the other's for the asking.
    bench.call("serial_close", json!({})).await;
    let opened = second.call("serial_open", json!({"path": bench.pair.near()})).await;
    assert!(!opened.is_error, "{}", opened.text);
    assert!(second.close().await.success());
}

#[tokio::test]
async fn settings_are_as_asked_while_a_port_is_open_and_as_found_when_the_product_is_gone() {
    let Some(pair) = LinePair::start_or_skip() else { return };
    let stty = |arguments: &[&str]| {
        let said = Command::new("stty").arg("-F").arg(pair.near()).args(arguments).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap()
    };
    stty(&["19200", "echo", "icanon"]);
    let found = || (stty(&["-g"]), stty(&["speed"]));
    let before = found();
    let client = McpClient::spawn(Era::LEGACY_2025_11, &binary("ssh-mcp-stdio"), &[], &[]).await;
    let opened = client.call("serial_open", json!({"path": pair.near(), "baud_rate": 921_600})).await;
    assert!(!opened.is_error, "{}", opened.text);
    // The other end of the pair is not locked; whoever is root may look at this one too.
    if std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        let now = stty(&["-a"]);
        assert!(now.contains("-echo ") && now.contains("-icanon") && now.contains("-opost"), "{now}");
    }
    assert!(client.close().await.success(), "an end of input is an end of everything");
    assert_eq!(found(), before);
}

#[tokio::test]
async fn the_operator_says_which_devices_may_be_opened() {
    let Some(pair) = LinePair::start_or_skip() else { return };
    let device = std::fs::canonicalize(pair.near()).unwrap().to_str().unwrap().to_owned();
    let forbidden = [("none", 0), ("/dev/ttyUSB*,/dev/ttyACM?", 0), ("/dev/pts/*", 2)];
    for (patterns, allowed) in forbidden {
        let env = [("SSH_MCP_ALLOW_SERIAL", patterns)];
        let client = McpClient::spawn(Era::LEGACY_2025_11, &binary("ssh-mcp-stdio"), &[], &env).await;
        let mut opened = 0;
        for name in [pair.near(), device.clone()] {
            let answer = client.call("serial_open", json!({"path": name})).await;
            if answer.is_error {
                assert_eq!(answer.structured["code"], "SERIAL_ERROR", "{}", answer.text);
                assert!(answer.text.contains("SSH_MCP_ALLOW_SERIAL"), "{}", answer.text);
            } else {
                opened += 1;
                client.call("serial_close", json!({"serial_id": field(&answer, "serial_id")})).await;
            }
        }
        assert_eq!(opened, allowed, "{patterns}");
    }
}

#[tokio::test]
async fn what_is_no_serial_line_is_told_apart() {
    let Some(bench) = Bench::set().await else { return };
    let refused = async |path: &str, more: Value| {
        let mut ask = json!({"path": path});
        ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = bench.client.call("serial_open", ask).await;
        assert_eq!(answer.structured["code"], "SERIAL_ERROR", "{}", answer.text);
        answer.text
    };
    assert!(refused("/dev/ttyNONE0", json!({})).await.contains("no such device"));
    assert!(refused("/dev/null", json!({})).await.contains("not a serial device"));
    // A pseudo-terminal has neither control lines nor parity; that is said only where they are asked for.
    let Some(other) = LinePair::start_or_skip() else { return };
    for more in [json!({"parity": "even"}), json!({"initial_dtr": true}), json!({"data_bits": 7})] {
        assert!(refused(&other.near(), more).await.contains("does not take"));
    }
    let opened =
        bench.client.call("serial_open", json!({"path": other.near(), "baud_rate": 1_843_200})).await;
    assert!(!opened.is_error, "nothing is left of those: {}", opened.text);
    let broke = json!({"serial_id": field(&opened, "serial_id"), "key": "break"});
    assert!(!bench.client.call("serial_press", broke).await.is_error);
    let scanned = bench.client.call("serial_scan", json!({})).await;
    assert!(!scanned.is_error, "{}", scanned.text);
}

#[tokio::test]
async fn a_prompt_is_announced_at_once() {
    let Some(bench) = Bench::set().await else { return };
    let announced = |count: usize| {
        move |notes: &[Value]| {
            (notes.iter().filter(|note| note["method"] == UPDATED).count() >= count).then_some(())
        }
    };
    bench.client.request("resources/subscribe", json!({"uri": bench.uri()})).await.unwrap();
    let mut delays = Vec::new();
    for nth in 0..5 {
        let begun = Instant::now();
        bench.pair.say(b"\r\n=> ");
        bench.client.hear(announced(nth + 1)).await;
        delays.push(begun.elapsed());
        let contents = bench.client.read_resource(&format!("{}?cursor=auto", bench.uri())).await.unwrap();
        assert_eq!(contents[0]["text"], "\r\n=> ");
        // The next one is a prompt after a pause, as prompts are.
        let quiet = json!({"uris": [bench.uri()], "timeout_secs": 1});
        assert_eq!(bench.client.call("sub_wait", quiet).await.structured["status"], "timeout");
    }
    delays.sort_unstable();
    assert!(delays[2] < Duration::from_millis(100), "{delays:?}");
}

#[tokio::test]
async fn nothing_but_the_protocol_is_on_standard_output_and_a_port_ends_with_its_client() {
    let pair = LinePair::start_or_skip();
    let Some(pair) = pair else { return };
    let env = [("RUST_LOG", "trace")];
    let client = McpClient::spawn(Era::LEGACY_2025_11, &binary("ssh-mcp-stdio"), &[], &env).await;
    let opened = client.call("serial_open", json!({"path": pair.near()})).await;
    let id = field(&opened, "serial_id");
    pair.say(b"secret words of a board");
    let uri = format!("serial://{id}/output");
    client.call("sub_wait", json!({"uris": [uri]})).await;
    client.call("serial_write", json!({"serial_id": id, "text": "secret password\r"})).await;
    let log = client.log();
    assert!(log.contains("serial port opened") && log.contains(&id), "{log}");
    assert!(!log.contains("secret"), "what goes over a line is in no log");
    assert!(!log.contains("STANDARD OUTPUT CARRIES PROTOCOL ONLY"), "{log}");
    assert!(client.close().await.success());
}
