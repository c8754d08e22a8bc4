//! The serial tools over line pairs in memory, in virtual time, through the path every `tools/call` takes.

use std::time::Duration;

use serde_json::{Value, json};
use ssh_mcp_core::{
    kind::serial::PAYLOAD,
    port::serial::{Device, DeviceKind, FlowControl, Level, OpenError, Parity, StopBits},
    settings::Settings,
};
use ssh_mcp_testkit::{
    host::ScriptedHost,
    serial::{FarEnd, plain},
};

use crate::{
    resources,
    tests::rig::{Answered, Rig, settings},
};

const DEVICE: &str = "/dev/ttyUSB0";
const SECOND: Duration = Duration::from_secs(1);

/// A machine with a board on a USB adapter.
fn bench() -> (Rig, FarEnd) {
    bench_with(settings())
}

fn bench_with(settings: Settings) -> (Rig, FarEnd) {
    let rig = Rig::with(ScriptedHost::new(), settings);
    let device = Device {
        kind: DeviceKind::Usb,
        vid: Some("0403".into()),
        pid: Some("6001".into()),
        product: Some("FT232R USB UART".into()),
        by_id: Some("/dev/serial/by-id/usb-FTDI".into()),
        ..plain(DEVICE)
    };
    let far = rig.bus.plug(device);
    rig.bus.link("/dev/serial/by-id/usb-FTDI", DEVICE);
    (rig, far)
}

async fn open(rig: &Rig) -> String {
    rig.ok("serial_open", json!({ "path": DEVICE })).await.fact("serial_id")
}

async fn refused(rig: &Rig, tool: &str, arguments: Value) -> (String, String, String) {
    let failed = rig.fails(tool, arguments).await;
    (failed.fact("code"), failed.fact("reason"), failed.fact("detail"))
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn an_opened_port_says_how_it_runs_and_what_to_do() {
    let (rig, far) = bench();
    let opened = rig.ok("serial_open", json!({ "path": DEVICE, "label": "board" })).await;
    let id = opened.fact("serial_id");
    let uri = format!("serial://{id}/output");
    assert_eq!(
        opened.text,
        format!(
            "SERIAL_OPEN: OK\nSERIAL_ID: {id}\nPATH: {DEVICE}\nBAUD: 115200\nFRAMING: 8N1\nFLOW: none\nLABEL: board\n\
            URI: {uri}\nHINT: RECOMMENDED: follow {uri}: subscribe with sub_open, or wait with sub_wait; do not ask again and \
            again\nNEXT: sub_wait(uris=[\"{uri}\"]) | sub_open uri={uri} | serial_write(serial_id=\"{id}\") | \
            serial_press(serial_id=\"{id}\") | serial_close(serial_id=\"{id}\")"
        )
    );
    let mode = far.mode().unwrap();
    assert_eq!((mode.dtr, mode.rts, mode.read_timeout), (None, None, Duration::from_millis(100)));
}

#[tokio::test(start_paused = true)]
async fn every_setting_reaches_the_line_under_both_of_its_names() {
    let (rig, _) = bench();
    let far = rig.bus.plug(plain("/dev/ttyACM0")).with_control_lines();
    let asked = json!({ "path": "/dev/ttyACM0", "baud_rate": 921_600, "data_bits": 7, "stop_bits": "2",
        "parity": "E", "flow_control": "rts/cts", "read_timeout_ms": 5, "max_buffer_size": 4096,
        "initial_dtr": true, "initial_rts": false });
    // Its text says 7E2.
    let opened = rig.loosely("serial_open", asked).await;
    assert!(opened.text.contains("\nBAUD: 921600\nFRAMING: 7E2\nFLOW: hardware\n"), "{}", opened.text);
    assert_eq!((opened.fact("parity"), opened.fact("stop_bits")), ("even".into(), "2".into()));
    let mode = far.mode().unwrap();
    assert_eq!(
        (mode.parity, mode.stop_bits, mode.flow),
        (Parity::Even, StopBits::Two, FlowControl::Hardware)
    );
    assert_eq!((mode.dtr, mode.rts), (Some(Level::High), Some(Level::Low)));
    rig.ok("serial_close", json!({ "serial_id": opened.fact("serial_id") })).await;
    for (parity, framing) in [("none", "8N1"), ("N", "8N1"), ("odd", "8O1"), ("O", "8O1"), ("even", "8E1")] {
        let opened = rig.loosely("serial_open", json!({ "path": "/dev/ttyACM0", "parity": parity })).await;
        assert_eq!(far.mode().unwrap().framing(), framing, "{parity}");
        rig.ok("serial_close", json!({ "serial_id": opened.fact("serial_id") })).await;
    }
    for (flow, is) in [("software", FlowControl::Software), ("xon/xoff", FlowControl::Software)] {
        let opened =
            rig.loosely("serial_open", json!({ "path": "/dev/ttyACM0", "flow_control": flow })).await;
        assert_eq!(far.mode().unwrap().flow, is);
        rig.ok("serial_close", json!({ "serial_id": opened.fact("serial_id") })).await;
    }
}

#[tokio::test(start_paused = true)]
async fn arguments_that_make_no_line_are_refused_before_the_device_is_touched() {
    let (rig, far) = bench();
    for more in [
        json!({ "baud_rate": 0 }),
        json!({ "baud_rate": 12_000_001 }),
        json!({ "data_bits": 9 }),
        json!({ "stop_bits": "1.5" }),
        json!({ "parity": "mark" }),
        json!({ "flow_control": "dtr" }),
        json!({ "read_timeout_ms": 0 }),
        json!({ "max_buffer_size": 100 }),
        json!({ "label": "" }),
        json!({ "baudrate": 9600 }),
        json!({ "path": "/dev/tty\u{0}USB0" }),
        json!({ "path": null }),
    ] {
        let mut asked = json!({ "path": DEVICE });
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (code, reason, _) = refused(&rig, "serial_open", asked).await;
        assert_eq!(code, "INVALID_ARGUMENT", "{more}: {reason}");
    }
    let (_, reason, _) = refused(&rig, "serial_open", json!({ "path": DEVICE, "baudrate": 9600 })).await;
    assert!(reason.contains("the nearest is baud_rate"), "{reason}");
    assert_eq!(far.mode(), None);
}

#[tokio::test(start_paused = true)]
async fn each_reason_a_device_is_not_opened_for_is_told_apart() {
    let (rig, _far) = bench();
    let asked = || json!({ "path": DEVICE });
    let (code, reason, detail) = refused(&rig, "serial_open", json!({ "path": "/dev/ttyUSB1" })).await;
    assert_eq!((code.as_str(), reason.as_str()), ("SERIAL_ERROR", "/dev/ttyUSB1: no such device"));
    assert!(detail.ends_with("closest matches: /dev/ttyUSB0"), "{detail}");
    for (error, said) in [
        (OpenError::Permission { group: Some("dialout".into()) }, "belongs to the group dialout"),
        (OpenError::Busy, "in use by another process"),
        (OpenError::NotSerial, "not a serial device"),
        (OpenError::Unsupported { setting: "parity=even".into() }, "setting: parity=even"),
        (OpenError::Failed { cause: "input/output error".into() }, "input/output error"),
    ] {
        rig.bus.refuse(DEVICE, error);
        let (code, reason, detail) = refused(&rig, "serial_open", asked()).await;
        assert!(code == "SERIAL_ERROR" && format!("{reason} {detail}").contains(said), "{reason} {detail}");
    }
    rig.bus.plug(plain(DEVICE));
    let id = open(&rig).await;
    let again = rig.fails("serial_open", json!({ "path": "/dev/serial/by-id/usb-FTDI" })).await;
    assert!(again.fact("detail").contains(&format!("serial_id={id}")), "{}", again.text);
    assert_eq!(again.fact("serial_id"), id);
    let other = rig.as_owner("bob").fails("serial_open", asked()).await;
    assert!(!other.text.contains(&id) && other.text.contains("already open here"), "{}", other.text);
}

#[tokio::test(start_paused = true)]
async fn an_operator_can_forbid_serial_ports() {
    let allow = |patterns: &[&str]| {
        let patterns = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        bench_with(Settings { allow_serial: patterns, ..settings() })
    };
    let (rig, _far) = allow(&["none"]);
    for (tool, asked) in [("serial_open", json!({ "path": DEVICE })), ("serial_scan", json!({}))] {
        let (code, _, detail) = refused(&rig, tool, asked).await;
        assert!(code == "SERIAL_ERROR" && detail.contains("SSH_MCP_ALLOW_SERIAL"), "{tool}: {detail}");
    }
    let (rig, _far) = allow(&["/dev/ttyACM*"]);
    let scanned = rig.ok("serial_scan", json!({})).await;
    assert_eq!(scanned.facts["total"], 0);
    assert!(scanned.text.contains("HINT: 1 devices are not listed"), "{}", scanned.text);
}

#[tokio::test(start_paused = true)]
async fn what_is_written_goes_out_as_given() {
    let (rig, far) = bench();
    let id = open(&rig).await;
    let wrote = rig.ok("serial_write", json!({ "serial_id": id, "text": "ä\r" })).await;
    let uri = format!("serial://{id}/output");
    assert_eq!(wrote.facts["bytes_sent"], 3);
    assert!(wrote.text.contains(&format!("| resources/read {uri}?cursor=auto")), "{}", wrote.text);
    rig.ok("serial_write", json!({ "serial_id": id, "bytes_base64": "AP8T" })).await;
    assert_eq!(far.hears(6).await, b"\xc3\xa4\r\x00\xff\x13");
    rig.ok("serial_write", json!({ "serial_id": id, "text": "" })).await;
    for asked in [
        json!({}),
        json!({ "text": "x", "bytes_base64": "eA==" }),
        json!({ "bytes_base64": "AP8" }),
        json!({ "bytes_base64": "AP_-" }),
        json!({ "text": "x", "newline": true }),
        json!({ "text": "x", "timeout_secs": 3 }),
        json!({ "text": "x".repeat(PAYLOAD + 1) }),
    ] {
        let mut asked = asked;
        asked["serial_id"] = id.as_str().into();
        let (code, reason, _) = refused(&rig, "serial_write", asked).await;
        assert_eq!(code, "INVALID_ARGUMENT", "{reason}");
    }
    assert_eq!(far.heard().len(), 6);
    rig.ok("serial_write", json!({ "serial_id": id, "text": "x".repeat(PAYLOAD) })).await;
    far.hears(6 + PAYLOAD).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_says_so_at_once() {
    let (rig, far) = bench();
    let id = open(&rig).await;
    far.stall();
    let write = || json!({ "serial_id": id, "text": "x" });
    rig.ok("serial_write", write()).await;
    pass(Duration::from_millis(1)).await;
    for _ in 0..64 {
        rig.ok("serial_write", write()).await;
    }
    let full = rig.fails("serial_write", write()).await;
    assert_eq!((full.fact("code"), full.fact("retry")), ("SERIAL_BACKPRESSURE".into(), "backoff".into()));
    assert!(full.fact("detail").contains("limit=64"));
    let (code, ..) = refused(&rig, "serial_press", json!({ "serial_id": id, "key": "enter" })).await;
    assert_eq!(code, "SERIAL_BACKPRESSURE");
    far.read_on();
    assert_eq!(far.hears(65).await.len(), 65);
}

/// Says something a while after it was sent so many bytes.
fn answers(far: &FarEnd, after: usize, said: &'static str) -> impl Future<Output = ()> {
    let far = far.clone();
    async move {
        far.hears(after).await;
        pass(SECOND).await;
        far.say(said);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_and_its_answer_are_one_call() {
    let (rig, far) = bench();
    let id = open(&rig).await;
    far.say("=> from before\n");
    pass(SECOND).await;
    let asked =
        json!({ "serial_id": id, "text": "version\r", "wait_for": ["never", "=> $"], "timeout_secs": 9 });
    let (wrote, ()) =
        tokio::join!(rig.ok("serial_write", asked), answers(&far, 8, "version\r\nU-Boot\r\n\x1b[1m=> "));
    assert_eq!((wrote.fact("waited"), &wrote.facts["bytes_sent"]), ("matched".into(), &json!(8)));
    let item = &wrote.facts["item"];
    assert_eq!(item["delta"], "version\r\nU-Boot\r\n=> ", "what came after the write, without colours");
    assert_eq!((&item["matched_pattern"], &item["kind"]), (&json!("=> $"), &json!("serial")));
    assert_eq!(item["uri"], format!("serial://{id}/output"));

    // What was there before the write is not its answer, and what was shown on request is not lost to others.
    let (all, _) = rig.read(&format!("serial://{id}/output?cursor=auto&strip_ansi=true")).unwrap();
    assert!(all.starts_with("=> from before\nversion\r\n") && all.ends_with("=> "), "{all}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_in_time_shows_what_did() {
    let (rig, far) = bench();
    let id = open(&rig).await;
    let asked = json!({ "serial_id": id, "text": "x\r", "wait_for": ["=> "], "timeout_secs": 3 });
    let began = tokio::time::Instant::now();
    let (wrote, ()) =
        tokio::join!(rig.ok("serial_write", asked), answers(&far, 2, "Unknown command 'x'\r\n"));
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert_eq!(wrote.fact("waited"), "timeout");
    assert_eq!(wrote.facts["item"]["delta"], "Unknown command 'x'\r\n");
    assert!(wrote.facts["item"].get("matched_pattern").is_none());

    let asked = json!({ "serial_id": id, "text": "y", "wait_for": ["("] });
    let (code, reason, _) = refused(&rig, "serial_write", asked).await;
    assert!(code == "FILTER_INVALID" && reason.starts_with("wait_for[0]"), "{reason}");
    assert_eq!(far.heard(), b"x\r", "nothing was sent");

    let asked = json!({ "serial_id": id, "text": "z", "wait_for": ["=> "] });
    let leaves = async {
        far.hears(3).await;
        far.say("oops");
        rig.bus.unplug(DEVICE);
    };
    let (wrote, ()) = tokio::join!(rig.ok("serial_write", asked), leaves);
    assert_eq!((wrote.fact("waited"), &wrote.facts["item"]["delta"]), ("ended".into(), &json!("oops")));
    assert_eq!(wrote.facts["item"]["reason"], "connection_lost");
}

#[tokio::test(start_paused = true)]
async fn keys_by_name_in_any_letter_case() {
    let (rig, far) = bench();
    let id = open(&rig).await;
    let press = |key: &str, repeat: u64| json!({ "serial_id": id, "key": key, "repeat": repeat });
    let pressed = rig.ok("serial_press", press("Ctrl_C", 3)).await;
    assert_eq!((pressed.fact("key"), &pressed.facts["bytes_sent"]), ("ctrl_c".into(), &json!(3)));
    rig.ok("serial_press", press("CRLF", 1)).await;
    assert_eq!(far.hears(5).await, b"\x03\x03\x03\r\n");
    let broke = rig.ok("serial_press", press("break", 9)).await;
    assert_eq!((far.breaks(), &broke.facts["repeat"], &broke.facts["bytes_sent"]), (1, &json!(1), &json!(0)));
    let unknown = rig.fails("serial_press", press("escape", 1)).await;
    assert_eq!(unknown.fact("code"), "INVALID_ARGUMENT");
    assert!(unknown.fact("detail").contains("esc"), "{}", unknown.text);
    for repeat in [0, 65] {
        assert_eq!(refused(&rig, "serial_press", press("enter", repeat)).await.0, "INVALID_REPEAT");
    }
    rig.bus.plug(plain("/dev/ttyACM0")).without_break();
    let mute = rig.ok("serial_open", json!({ "path": "/dev/ttyACM0" })).await.fact("serial_id");
    let (code, ..) = refused(&rig, "serial_press", json!({ "serial_id": mute, "key": "break" })).await;
    assert_eq!(code, "SERIAL_ERROR");
}

#[tokio::test(start_paused = true)]
async fn a_port_is_closed_once_and_closing_what_is_not_open_is_no_fault() {
    let (rig, _far) = bench();
    let id = open(&rig).await;
    let close = || json!({ "serial_id": id });
    assert_eq!(rig.ok("serial_close", close()).await.header(), "SERIAL_CLOSE: OK");
    assert_eq!(rig.ok("serial_close", close()).await.header(), "SERIAL_CLOSE: NOOP");
    assert_eq!(rig.ok("serial_close", json!({ "serial_id": "x" })).await.header(), "SERIAL_CLOSE: NOOP");
    let (code, _, detail) = refused(&rig, "serial_write", json!({ "serial_id": id, "text": "x" })).await;
    assert!(code == "SERIAL_NOT_FOUND" && detail.contains("reason=manual_close"), "{detail}");
    let (code, _, detail) = refused(&rig, "serial_press", json!({ "serial_id": "x", "key": "cr" })).await;
    assert_eq!((code.as_str(), detail.contains("reason=")), ("SERIAL_NOT_FOUND", false));
    let other = rig.as_owner("bob");
    let mine = open(&rig).await;
    assert_eq!(
        other.ok("serial_close", json!({ "serial_id": mine })).await.header(),
        "SERIAL_CLOSE: NOOP",
        "what belongs to another does not exist"
    );
    assert_eq!(rig.ok("serial_active", json!({})).await.facts["total"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_goes_away_leaves_its_words_and_the_systems() {
    let (rig, far) = bench();
    let id = open(&rig).await;
    far.say("kernel panic\r\n");
    far.leave("input/output error");
    pass(SECOND).await;
    let (code, _, detail) = refused(&rig, "serial_write", json!({ "serial_id": id, "text": "x" })).await;
    assert_eq!(code, "SERIAL_NOT_FOUND");
    assert!(detail.contains("reason=connection_lost; input/output error"), "{detail}");
    let (text, meta) = rig.read(&format!("serial://{id}/output")).unwrap();
    assert_eq!(text, "kernel panic\r\n");
    assert_eq!((&meta["kind"], &meta["status"]), (&json!("serial"), &json!("closed")));
    assert_eq!(meta["reason"], "connection_lost");
    assert_eq!(rig.ok("serial_active", json!({})).await.facts["total"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_scan_tells_what_there_is_and_who_has_it() {
    let (rig, _far) = bench();
    rig.bus.plug(plain("/dev/ttyS0"));
    let id = open(&rig).await;
    let scanned = rig.ok("serial_scan", json!({})).await;
    assert_eq!(scanned.facts["paths"], json!(["/dev/ttyS0", DEVICE]));
    let line = format!(
        "PORT: {DEVICE} usb 0403:6001 FT232R USB UART by_id=/dev/serial/by-id/usb-FTDI in_use_by={id}"
    );
    assert_eq!(scanned.text, format!("SERIAL_SCAN: OK\nTOTAL: 2\nPORT: /dev/ttyS0 unknown\n{line}"));
    let others = rig.as_owner("bob").ok("serial_scan", json!({})).await;
    assert!(others.facts["ports"][1].get("in_use_by").is_none());
    for tool in ["serial_scan", "serial_active"] {
        assert_eq!(refused(&rig, tool, json!({ "all": true })).await.0, "INVALID_ARGUMENT");
    }
    let bare = Rig::new();
    assert_eq!(bare.ok("serial_scan", json!({})).await.text, "SERIAL_SCAN: OK\nTOTAL: 0");
}

#[tokio::test(start_paused = true)]
async fn open_ports_are_listed_with_what_went_through_and_what_nobody_watches() {
    let (rig, far) = bench();
    assert_eq!(rig.ok("serial_active", json!({})).await.text, "SERIAL_ACTIVE: OK\nTOTAL: 0");
    let id = rig.ok("serial_open", json!({ "path": DEVICE, "label": "board" })).await.fact("serial_id");
    far.say("12345");
    pass(5 * SECOND).await;
    let listed = rig.ok("serial_active", json!({})).await;
    let port = &listed.facts["ports"][0];
    assert_eq!(
        (&port["serial_id"], &port["rx_bytes"], &port["tx_bytes"]),
        (&json!(id), &json!(5), &json!(0))
    );
    assert_eq!((&port["framing"], &port["queue_depth"]), (&json!("8N1"), &json!(0)));
    let warned = &listed.facts["warnings"][0];
    assert_eq!((&warned["code"], &warned["kind"]), (&json!("SUB_LEAK_RISK"), &json!("serial")));
    assert!(listed.text.contains(&format!("WARN: SUB_LEAK_RISK serial://{id}/output age_ms=")));
    assert!(rig.ok("serial_active", json!({})).await.facts.get("warnings").is_none(), "once");
    rig.ok("sub_open", json!({ "uri": format!("serial://{id}/output") })).await;
    assert_eq!(rig.ok("serial_active", json!({})).await.facts["ports"][0]["subscribers"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_port_is_a_resource_like_any() {
    let (rig, far) = bench();
    let opened = rig.ok("serial_open", json!({ "path": DEVICE, "label": "board" })).await;
    let (id, uri) = (opened.fact("serial_id"), opened.fact("uri"));
    far.say("\x1b[32mok\x1b[0m \u{fffd}".as_bytes().to_vec());
    pass(SECOND).await;
    let read = |query: &str| rig.read(&format!("{uri}{query}")).unwrap();
    assert_eq!(read("?strip_ansi=true").0, "ok \u{fffd}");
    assert_eq!(read("?encoding=base64").0, "G1szMm1vaxtbMG0g77+9");
    let (_, meta) = read("");
    assert_eq!((&meta["status"], &meta["cursor"], &meta["base"]), (&json!("open"), &json!(15), &json!(0)));

    let listed = resources::list(&rig.shared.engine, &rig.owner, None).unwrap();
    let entry = serde_json::to_value(&listed.resources[0]).unwrap();
    assert_eq!((&entry["uri"], &entry["size"]), (&json!(uri), &json!(15)));
    assert_eq!(entry["title"], "Serial port board on /dev/ttyUSB0");
    assert_eq!(entry["description"], "Serial port /dev/ttyUSB0, 115200 baud 8N1, open");
    assert!(entry["name"].as_str().unwrap().ends_with("(board)"), "{entry}");
    let found = rig.ok("ssh_resources", json!({ "kind": "serial", "target": DEVICE })).await;
    assert_eq!(found.facts["resources"][0]["id"], id);
    assert!(found.text.contains("received: 15B"), "{}", found.text);
}

#[tokio::test(start_paused = true)]
async fn waits_and_lanes_work_on_ports() {
    let (rig, far) = bench();
    let id = open(&rig).await;
    let uri = format!("serial://{id}/output");
    let wait = json!({ "uris": [uri], "until": "match", "patterns": ["Hit any key"], "timeout_secs": 60 });
    let boots = async {
        pass(2 * SECOND).await;
        far.say("DRAM: 1 GiB\r\nHit any key to stop autoboot: 3");
    };
    let (waited, ()) = tokio::join!(rig.ok("sub_wait", wait), boots);
    assert_eq!(waited.header(), "SUB_WAIT: MATCHED");
    assert_eq!(waited.facts["items"][0]["matched_pattern"], "Hit any key");

    let lane = rig.ok("sub_open", json!({ "uri": uri, "inline_push": true, "debounce_ms": 5 })).await;
    assert_eq!(lane.facts["inline_push_honored"], true);
    pass(SECOND).await;
    far.say("=> ");
    pass(Duration::from_millis(10)).await;
    let bytes = rig.outlet.bytes_of(lane.fact("sub_id").parse().unwrap());
    assert!(bytes.ends_with(b"=> "), "{bytes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_repeated_with_its_key_writes_once() {
    let (rig, far) = bench();
    let id = open(&rig).await;
    let write = || rig.raw("serial_write", json!({ "serial_id": id, "text": "once" }), Some(json!("k")));
    let first: Answered = Answered::of(&write().await.unwrap());
    assert_eq!(Answered::of(&write().await.unwrap()).text, first.text);
    pass(SECOND).await;
    assert_eq!(far.heard(), b"once");
}
