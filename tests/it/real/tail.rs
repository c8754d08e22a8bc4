//! `ssh-mcp-tail` against a real server: ops in, events out. Every event is held to the published schema.

mod schema;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::client::binary;
use crate::real::tmux::Tmux;
use crate::sshd::{ClientKey, LinePair, OpenSshd, Options, User, processes::wait_until};

/// Nothing a test waits for takes so long.
const LIMIT: Duration = Duration::from_secs(60);

/// One process, what it has said, and what it is asked.
struct Tail {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    events: Vec<Value>,
    _home: TempDir,
}

impl Tail {
    fn spawn(args: &[&str], env: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let mut child = Command::new(binary("ssh-mcp-tail"))
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home.path())
            .env("RUST_LOG", "warn")
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("ssh-mcp-tail starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Self { child, input, output, events: Vec::new(), _home: home }
    }

    fn daemon(env: &[(&str, &str)]) -> Self {
        Self::spawn(&["daemon"], env)
    }

    async fn write(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().expect("the input is open");
        input.write_all(bytes).await.expect("it reads");
    }

    async fn op(&mut self, op: Value) {
        self.write(format!("{op}\n").as_bytes()).await;
    }

    /// The next event, held to the schema; none at the end of output.
    async fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        let read = tokio::time::timeout(LIMIT, self.output.read_line(&mut line)).await;
        if read.unwrap_or_else(|_| panic!("nothing more: {:#?}", self.events)).expect("a line") == 0 {
            return None;
        }
        let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line.starts_with("{\"ev\":\"") && line.ends_with('\n'), "{line}");
        schema::check(&event);
        self.events.push(event.clone());
        Some(event)
    }

    /// Reads on until an event is what is looked for.
    async fn until(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("it has ended: {:#?}", self.events));
            if is_it(&event) {
                return event;
            }
        }
    }

    /// The reply to an op.
    async fn reply(&mut self, id: &str) -> Value {
        self.until(|event| event["id"] == id).await
    }

    /// Asks, and reads on until the reply.
    async fn ask(&mut self, op: Value) -> Value {
        let id = op["id"].as_str().expect("an id").to_owned();
        self.op(op).await;
        self.reply(&id).await
    }

    /// A session, under the id `c`.
    async fn connect(&mut self, server: &OpenSshd) -> String {
        let reply = self.ask(connect(server, User::Tester)).await;
        assert_eq!((&reply["ev"], &reply["status"]), (&json!("ack"), &json!("ok")), "{reply}");
        reply["sid"].as_str().expect("a session").to_owned()
    }

    /// Closes the input and reads everything.
    async fn end(mut self) -> (ExitStatus, Vec<Value>) {
        drop(self.input.take());
        while self.next().await.is_some() {}
        let status = tokio::time::timeout(LIMIT, self.child.wait()).await.expect("it ends").expect("a child");
        (status, self.events)
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let sent = std::process::Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.expect("kill starts").success());
    }

    /// Memory the process holds, in KiB.
    fn memory(&self) -> u64 {
        let pid = self.child.id().expect("it runs");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux tells");
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
    }
}

fn connect(server: &OpenSshd, user: User) -> Value {
    json!({ "op": "connect", "id": "c", "host": server.addr().to_string(), "user": user.name(),
        "key": key(server) })
}

fn key(server: &OpenSshd) -> String {
    server.client_key(ClientKey::Ed25519).to_str().expect("a path of ours").to_owned()
}

fn with_sftp() -> Options {
    Options { extra: vec!["Subsystem sftp internal-sftp".into()], ..Options::default() }
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["ev"].as_str()).collect()
}

/// The bytes of some pushes and snapshots, one after the other.
fn bytes<'a>(events: impl IntoIterator<Item = &'a Value>) -> Vec<u8> {
    let mut all = Vec::new();
    for event in events {
        match (&event["delta_b64"], &event["delta"]) {
            (Value::String(exact), _) => all.extend(STANDARD.decode(exact).expect("base64")),
            (_, Value::String(text)) => all.extend_from_slice(text.as_bytes()),
            _ => {}
        }
    }
    all
}

fn data_of<'a>(events: &'a [Value], sub_id: &'a Value) -> impl Iterator<Item = &'a Value> {
    let carries = |event: &&Value| matches!(event["ev"].as_str(), Some("push" | "snapshot"));
    events.iter().filter(carries).filter(move |event| event["sub_id"] == *sub_id)
}

fn at(events: &[Value], is_it: impl Fn(&Value) -> bool) -> usize {
    events.iter().position(is_it).unwrap_or_else(|| panic!("not there: {events:#?}"))
}

#[tokio::test]
async fn a_list_of_ops_with_references_runs_in_order() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let mut tail = Tail::daemon(&[]);
    tail.op(connect(&server, User::Tester)).await;
    tail.op(json!({ "op": "exec", "id": "e", "sid": "@c", "cmd": "echo out; echo err >&2; exit 3", "subscribe": true }))
        .await;
    tail.op(json!({ "op": "shutdown", "id": "s" })).await;
    let (status, events) = tail.end().await;
    assert_eq!(status.code(), Some(0));
    let of = |name: &str| at(&events, |event| event["ev"] == name);
    let started = &events[of("started")];
    let connected = at(&events, |event| event["ev"] == "ack" && event["id"] == "c");
    assert_eq!((&started["id"], &started["sid"]), (&json!("e"), &events[connected]["sid"]), "{events:#?}");
    assert!(connected < of("started"));
    assert!(of("started") < of("push") && of("push") < of("completed") && of("completed") < of("closed"));
    let completed = &events[of("completed")];
    assert_eq!((&completed["exit"], &completed["id"]), (&json!(3), &json!("e")));
    assert!(kinds(&events).ends_with(&["closed"]), "{events:#?}");
    for (stream, text) in [("stdout", "out\n"), ("stderr", "err\n")] {
        let part = data_of(&events, &started["sub_id"]).filter(|push| push["stream"] == stream);
        assert_eq!(String::from_utf8(bytes(part)).unwrap(), text);
    }
    let numbers: Vec<_> =
        data_of(&events, &started["sub_id"]).map(|push| push["seq_local"].clone()).collect();
    assert_eq!(numbers, (1..=numbers.len()).map(|number| json!(number)).collect::<Vec<_>>());
}

#[tokio::test]
async fn bad_lines_are_told_and_the_good_ones_run() {
    let mut tail = Tail::daemon(&[("SSH_NDJSON_LINE_MAX", "64k")]);
    tail.ask(json!({ "op": "stats", "id": "first" })).await;
    let before = tail.memory();
    let mut lines = vec![b'a'; 2 << 20];
    lines.extend_from_slice(b"\n\xff\xfe\n[]\n{\"op\":\"nope\",\"id\":\"x\"}\n\n");
    lines.extend_from_slice(b"{\"op\":\"exec\",\"id\":7,\"sid\":\"@none\",\"cmd\":\"true\"}\n");
    tail.write(&lines).await;
    // Ops run side by side, and the numbers below are of one alone.
    tail.until(|event| event["id"] == 7).await;
    tail.op(json!({ "op": "stats", "id": "good", "lag": 1 })).await;
    let warning = tail.until(|event| event["ev"] == "warn").await;
    assert_eq!((&warning["code"], &warning["id"]), (&json!("UNKNOWN_FIELD"), &json!("good")));
    assert!(tail.memory() < before + 4 * 1024, "{} after {before}", tail.memory());
    let (status, events) = tail.end().await;
    assert_eq!(status.code(), Some(0));
    let errors: Vec<_> = events.iter().filter(|event| event["ev"] == "err").collect();
    let told: Vec<_> = errors.iter().map(|error| [&error["code"], &error["cause"], &error["id"]]).collect();
    let none = Value::Null;
    let (invalid, unresolved, long) = (json!("INVALID_OP"), json!("REF_UNRESOLVED"), json!("LINE_TOO_LONG"));
    assert_eq!(
        told[..4],
        [
            [&long, &none, &none],
            [&invalid, &json!("INVALID_UTF8"), &none],
            [&invalid, &json!("INVALID_JSON"), &none],
            [&invalid, &json!("UNKNOWN_OP"), &json!("x")],
        ]
    );
    assert_eq!(told[4], [&unresolved, &none, &json!(7)]);
    assert!(
        errors[0]["reason"].as_str().is_some_and(|text| text.contains("2097152") && text.contains("65536"))
    );
    let stats = &events[at(&events, |event| event["id"] == "good")];
    assert_eq!((&stats["ops_in_flight"], &stats["active_sessions"]), (&json!(1), &json!(0)), "{stats}");
    assert_eq!(stats["rejected_ops_by_code"]["INVALID_OP"], 3, "{stats}");
}

/// One of many commands, as far as it has been told.
#[derive(Default)]
struct Told {
    sub_id: String,
    bytes: Vec<u8>,
    has_ended: bool,
}

#[tokio::test]
async fn ten_thousand_commands_are_all_told_in_order_and_leave_no_memory_behind() {
    const MANY: usize = 10_000;
    const WARM: usize = 1_000;
    // By now what is remembered of the ended has reached its numbers.
    const FULL: usize = 5_000;
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    // What has ended is forgotten at once, not after an hour.
    let mut tail = Tail::daemon(&[("SSH_COMMAND_CLEANUP_TTL", "0"), ("RUST_LOG", "error")]);
    let session = tail.connect(&server).await;
    let mut input = tail.input.take().expect("the input is open");
    let writing = async move {
        for number in 0..MANY {
            let op = json!({ "op": "exec", "id": format!("e{number}"), "sid": session,
                "cmd": format!("echo {number}"), "subscribe": true });
            input.write_all(format!("{op}\n").as_bytes()).await.expect("it reads");
        }
        input
    };
    let reading = async {
        let mut commands = HashMap::<String, Told>::new();
        let mut ids = HashMap::<String, String>::new();
        let (mut ended, mut warm, mut full) = (0, 0, 0);
        while ended < MANY {
            let event = tail.next().await.expect("it goes on");
            // They were looked at; what is kept is what was found.
            tail.events.clear();
            let id = event["id"].as_str().unwrap_or_default().to_owned();
            match event["ev"].as_str().unwrap_or_default() {
                "started" => {
                    let sub_id = event["sub_id"].as_str().expect("a lane").to_owned();
                    ids.insert(sub_id.clone(), id.clone());
                    let twice = commands.insert(id, Told { sub_id, ..Told::default() });
                    assert!(twice.is_none(), "{event}");
                }
                "push" | "snapshot" => {
                    let of = &ids[event["sub_id"].as_str().expect("a lane")];
                    let told = commands.get_mut(of).expect("its reply came first");
                    assert!(!told.has_ended, "{event}");
                    told.bytes.extend(bytes(std::iter::once(&event)));
                }
                "completed" => {
                    let told = commands.get_mut(&id).expect("its reply came first");
                    assert_eq!(String::from_utf8_lossy(&told.bytes), format!("{}\n", &id[1..]));
                    assert!(!std::mem::replace(&mut told.has_ended, true), "{event}");
                    assert_eq!(event["exit"], 0, "{event}");
                    ids.remove(&told.sub_id);
                    ended += 1;
                    match ended {
                        WARM => warm = tail.memory(),
                        FULL => full = tail.memory(),
                        _ => {}
                    }
                }
                "heartbeat" | "daemon_stats" => {}
                other => panic!("{other}: {event}"),
            }
        }
        (warm, full, tail.memory())
    };
    let (input, (warm, full, last)) = tokio::join!(writing, reading);
    drop(input);
    let said = format!("{warm} KiB after {WARM}, {full} KiB after {FULL}, {last} KiB after {MANY}");
    assert!(last <= warm + 2 * 1024 && last <= full + 1024, "{said}");
    assert_eq!(tail.end().await.0.code(), Some(0));
}

#[tokio::test]
async fn what_is_no_text_arrives_byte_by_byte() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    for encoding in ["auto", "base64"] {
        let mut tail = Tail::daemon(&[]);
        tail.connect(&server).await;
        let cmd = "head -c 3000000 /dev/urandom > data; cat data; sha256sum < data > sum";
        let subscribe = json!({ "encoding": encoding, "lag_policy": "block-slow" });
        let started = tail
            .ask(json!({ "op": "exec", "id": "e", "sid": "@c", "cmd": cmd, "subscribe": subscribe }))
            .await;
        let (status, events) = tail.end().await;
        assert_eq!(status.code(), Some(0));
        let data = fs::read(server.home(User::Tester).join("data")).unwrap();
        let pushes: Vec<_> = data_of(&events, &started["sub_id"]).collect();
        assert!(bytes(pushes.iter().copied()) == data, "{encoding}");
        assert_eq!(pushes.last().unwrap()["cursor"], 3_000_000);
        if encoding == "base64" {
            assert!(pushes.iter().all(|push| push["delta"].is_null()));
        }
    }
}

#[tokio::test]
async fn a_consumer_that_stops_reading_loses_no_reply_and_holds_up_nothing() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let mut tail = Tail::daemon(&[("SSH_COMMAND_MAX_BUFFER_SIZE", "1m")]);
    tail.connect(&server).await;
    let cmd = "yes 0123456789abcdef | head -c 200000000; echo over > over";
    tail.ask(json!({ "op": "exec", "id": "flood", "sid": "@c", "cmd": cmd, "subscribe": true })).await;
    for number in 0..40 {
        tail.op(json!({ "op": "exec", "id": format!("e{number}"), "sid": "@c", "cmd": "true" })).await;
    }
    // Nothing is read, and the far side comes to its end all the same.
    let over = server.home(User::Tester).join("over");
    let is_over = tokio::task::spawn_blocking(move || wait_until(LIMIT, || over.exists()));
    assert!(is_over.await.expect("no panic"), "the flood is held up");
    let memory = tail.memory();
    assert!(memory < 48 * 1024, "{memory} KiB");
    let (status, events) = tail.end().await;
    assert_eq!(status.code(), Some(0));
    for number in 0..40 {
        let id = json!(format!("e{number}"));
        assert_eq!(events.iter().filter(|event| event["ev"] == "started" && event["id"] == id).count(), 1);
    }
    // By a lane that overflowed or by one that the history overtook: what is missing is told either way.
    let lost = events.iter().find(|event| event["gap_bytes"].is_u64());
    assert!(lost.is_some(), "the loss is to be seen");
    let end = at(&events, |event| event["ev"] == "completed" && event["id"] == "flood");
    assert!(events[end..].iter().all(|event| event["ev"] != "push" && event["ev"] != "snapshot"));
}

#[tokio::test]
async fn the_end_of_input_waits_for_work_and_a_signal_does_not() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let mut tail = Tail::daemon(&[]);
    tail.connect(&server).await;
    tail.op(json!({ "op": "exec", "id": "e", "sid": "@c", "cmd": "sleep 2; echo slow", "subscribe": true }))
        .await;
    let (status, events) = tail.end().await;
    assert_eq!(status.code(), Some(0));
    let completed = &events[at(&events, |event| event["ev"] == "completed")];
    assert_eq!((&completed["exit"], &completed["cancelled"]), (&json!(0), &Value::Null));

    let mut tail = Tail::daemon(&[]);
    tail.connect(&server).await;
    tail.ask(json!({ "op": "exec", "id": "e", "sid": "@c", "cmd": "sleep 600" })).await;
    let begun = std::time::Instant::now();
    tail.signal("TERM");
    let completed = tail.until(|event| event["ev"] == "completed").await;
    assert_eq!(completed["cancelled"], true, "{completed}");
    let closed = tail.until(|event| event["ev"] == "closed").await;
    assert_eq!(closed["reason"], "server_shutdown");
    let (status, _) = tail.end().await;
    assert_eq!(status.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_drain_that_hangs_ends_at_its_deadline_and_a_second_signal_at_once() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    // More than a pipe holds, and nobody reads it: it cannot be written to its end.
    let stuck = async |env: &[(&str, &str)]| {
        let over = server.home(User::Tester).join("over");
        // None was left there the first time.
        _ = fs::remove_file(&over);
        let cmd = "yes | head -c 64000000; echo > over; exec sleep 600";
        let mut tail = Tail::daemon(env);
        tail.connect(&server).await;
        tail.ask(json!({ "op": "exec", "id": "e", "sid": "@c", "cmd": cmd, "subscribe": true })).await;
        let is_over = tokio::task::spawn_blocking(move || wait_until(LIMIT, || over.exists()));
        assert!(is_over.await.expect("no panic"), "the flood is held up");
        tail
    };
    let mut tail = stuck(&[("SSH_GRACE_HARD_TIMEOUT_S", "2")]).await;
    tail.signal("TERM");
    let status = tokio::time::timeout(LIMIT, tail.child.wait()).await.expect("it ends").expect("a child");
    assert_eq!(status.code(), Some(3));

    let mut tail = stuck(&[]).await;
    // Signals that come at the same moment may count as one.
    let ended = async {
        loop {
            tail.signal("INT");
            if let Ok(status) = tokio::time::timeout(Duration::from_millis(100), tail.child.wait()).await {
                return status.expect("a child");
            }
        }
    };
    let status = tokio::time::timeout(LIMIT, ended).await.expect("it ends");
    assert_eq!(status.code(), Some(130));
}

#[tokio::test]
async fn a_closed_output_ends_it_without_a_word() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let mut tail = Tail::daemon(&[]);
    tail.connect(&server).await;
    tail.ask(json!({ "op": "exec", "id": "e", "sid": "@c", "cmd": "exec yes", "subscribe": true })).await;
    let Tail { mut child, input, output, events: _, _home } = tail;
    drop(output);
    let status = tokio::time::timeout(LIMIT, child.wait()).await.expect("it ends").expect("a child");
    assert_eq!(status.code(), Some(0));
    drop(input);
}

#[tokio::test]
async fn a_heartbeat_comes_while_a_flood_runs_and_while_nothing_happens() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let mut tail = Tail::spawn(&["daemon", "--heartbeat-secs", "1", "--stats-secs=1"], &[]);
    let quiet = tail.until(|event| event["ev"] == "heartbeat").await;
    assert_eq!(quiet["protocol"], "ssh-mcp-ndjson/1");
    tail.connect(&server).await;
    tail.ask(json!({ "op": "exec", "id": "e", "sid": "@c", "cmd": "exec yes", "subscribe": true })).await;
    tail.until(|event| event["ev"] == "push").await;
    tail.until(|event| event["ev"] == "heartbeat").await;
    let stats = tail.until(|event| event["ev"] == "daemon_stats" && event["active_commands"] == 1).await;
    assert_eq!((&stats["active_sessions"], &stats["active_subs"]), (&json!(1), &json!(1)), "{stats}");
    let reply = tail.ask(json!({ "op": "cancel", "id": "stop", "cid": "@e" })).await;
    assert_eq!(reply["ev"], "ack", "{reply}");
    let reply = tail.ask(json!({ "op": "cancel", "id": "again", "cid": "@e" })).await;
    assert_eq!(reply["noop"], true, "{reply}");
    assert_eq!(tail.end().await.0.code(), Some(0));
}

#[tokio::test]
async fn a_shell_is_written_to_and_heard() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let mut tail = Tail::daemon(&[]);
    let sid = tail.connect(&server).await;
    let subscribe = json!({ "debounce_ms": 5 });
    let opened = tail
        .ask(json!({ "op": "shell_open", "id": "sh", "sid": sid, "cols": 100, "subscribe": subscribe }))
        .await;
    let (shid, sub_id) = (opened["shid"].clone(), opened["sub_id"].clone());
    assert_eq!(opened["uri"], format!("shell://{}/output", shid.as_str().unwrap()), "{opened}");
    // One after the other, in the order of the lines.
    for number in 0..20 {
        tail.op(json!({ "op": "shell_write", "id": format!("w{number}"), "shid": "@sh",
            "bytes": format!("echo [{number}]; ") }))
            .await;
    }
    // One line with everything, so that no echo of a later one stands in what is printed.
    tail.op(
        json!({ "op": "shell_write", "id": "bye", "shid": shid, "bytes_b64": STANDARD.encode("exit 5") }),
    )
    .await;
    tail.op(json!({ "op": "shell_key", "id": "k", "shid": "@sh", "key": "enter" })).await;
    let closed = tail.until(|event| event["ev"] == "resource_closed").await;
    assert_eq!((&closed["uri"], &closed["exit"], &closed["id"]), (&opened["uri"], &json!(5), &json!("sh")));
    // The shell may be gone before the one who pressed the key has been told so.
    if !tail.events.iter().any(|event| event["id"] == "k") {
        tail.reply("k").await;
    }
    let told = String::from_utf8(bytes(data_of(&tail.events, &sub_id))).unwrap();
    let printed: String = (0..20).map(|number| format!("[{number}]\r\n")).collect();
    assert!(told.contains(&printed), "{told}");
    let written = tail.events.iter().filter(|event| event["bytes_sent"].is_u64()).count();
    assert_eq!(written, 22);
    let gone = tail.ask(json!({ "op": "shell_write", "id": "late", "shid": shid, "bytes": "x" })).await;
    assert_eq!((&gone["ev"], &gone["op"]), (&json!("err"), &json!("shell_write")), "{gone}");
    tail.op(json!({ "op": "disconnect", "id": "d", "sid": "@c" })).await;
    let reply = tail.reply("d").await;
    assert_eq!((&reply["ev"], &reply["sid"]), (&json!("ack"), &json!(sid)), "{reply}");
    let closed = tail.until(|event| event["ev"] == "closed").await;
    assert_eq!((&closed["id"], &closed["reason"]), (&json!("d"), &json!("manual_close")));
    assert_eq!(tail.end().await.0.code(), Some(0));
}

#[tokio::test]
async fn files_are_moved_and_told_of() {
    let Some(server) = OpenSshd::start_or_skip(with_sftp()) else { return };
    let here = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| here.path().join(name);
    let text = |path: PathBuf| path.to_str().expect("a path of ours").to_owned();
    fs::write(path("up"), vec![b'x'; 3_000_000]).unwrap();
    let mut tail = Tail::daemon(&[]);
    tail.connect(&server).await;
    let up = json!({ "op": "upload", "id": "up", "sid": "@c", "local": text(path("up")), "remote": "there",
        "subscribe": true });
    let started = tail.ask(up).await;
    assert_eq!((&started["total"], &started["resumed_from"]), (&json!(3_000_000), &json!(0)), "{started}");
    let done = tail.until(|event| event["ev"] == "transfer_done").await;
    assert_eq!(
        (&done["id"], &done["status"], &done["bytes"]),
        (&json!("up"), &json!("completed"), &json!(3_000_000))
    );
    // Its lane tells whole bodies.
    let body = data_of(&tail.events, &started["sub_id"]).last().expect("a push")["delta"].clone();
    let body: Value = serde_json::from_str(body.as_str().unwrap()).expect("JSON");
    assert_eq!((&body["status"], &body["transfer_id"]), (&json!("completed"), &started["tid"]));
    let down = json!({ "op": "download", "id": "down", "sid": "@c", "remote": "there", "local": text(path("down")),
        "progress": false });
    tail.ask(down).await;
    let done = tail.until(|event| event["ev"] == "transfer_done").await;
    assert_eq!((&done["status"], &done["id"]), (&json!("completed"), &json!("down")));
    assert!(fs::read(path("down")).unwrap() == fs::read(path("up")).unwrap());
    let missing =
        json!({ "op": "upload", "id": "no", "sid": "@c", "local": text(path("none")), "remote": "x" });
    let reply = tail.ask(missing).await;
    assert_eq!(
        (&reply["code"], &reply["category"]),
        (&json!("LOCAL_FILE_ERROR"), &json!("REMOTE")),
        "{reply}"
    );
    assert_eq!(tail.end().await.0.code(), Some(0));
}

#[tokio::test]
async fn lanes_and_reads_of_what_is_there() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let mut tail = Tail::daemon(&[]);
    tail.connect(&server).await;
    let cmd = "printf 'one\\ntwo\\n'; cat > /dev/null; seq 30000";
    tail.ask(json!({ "op": "exec", "id": "e", "sid": "@c", "cmd": cmd })).await;
    tail.until(|event| event["ev"] == "completed").await;
    let lane =
        tail.ask(json!({ "op": "subscribe", "id": "l", "uri": "command://@e/output", "filter": "^t" })).await;
    assert_eq!(lane["ev"], "ack", "{lane}");
    let push = tail.until(|event| event["ev"] == "push").await;
    assert_eq!((&push["delta"], &push["sub_id"]), (&json!("two\n"), &lane["sub_id"]));
    let read =
        tail.ask(json!({ "op": "read", "id": "r", "uri": "command://@e/output", "max_bytes": 4 })).await;
    assert_eq!(
        (&read["ev"], &read["delta"], &read["cursor"]),
        (&json!("snapshot"), &json!("one\n"), &json!(4))
    );
    assert_eq!((&read["more"], &read["status"]), (&json!(true), &json!("completed")));
    // A long answer comes in pieces, the last of which says that nothing follows.
    tail.op(json!({ "op": "read", "id": "all", "uri": "command://@e/output" })).await;
    let last = tail.until(|event| event["id"] == "all" && event["more"].is_null()).await;
    let pieces: Vec<_> = tail.events.iter().filter(|event| event["id"] == "all").collect();
    assert!(pieces.len() > 2 && bytes(pieces).len() as u64 == last["cursor"].as_u64().unwrap());
    let session = tail.ask(json!({ "op": "read", "id": "s", "uri": "session://@c/health" })).await;
    assert!(session["delta"].as_str().is_some_and(|body| body.starts_with('{')), "{session}");
    let listed = tail.ask(json!({ "op": "call", "id": "ls", "tool": "sub_list" })).await;
    assert_eq!((&listed["ev"], &listed["tool"]), (&json!("result"), &json!("sub_list")), "{listed}");
    let gone = tail
        .ask(json!({ "op": "unsubscribe", "id": "u", "sub_id": "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b" }))
        .await;
    assert_eq!(gone["code"], "SUB_NOT_FOUND", "{gone}");
    for (id, op, code) in [
        (
            "b1",
            json!({ "op": "subscribe", "uri": "command://@e/output", "lifetime": "soon" }),
            "INVALID_LIFETIME",
        ),
        (
            "b2",
            json!({ "op": "subscribe", "uri": "command://@e/output", "lag_policy": "x" }),
            "INVALID_LAG_POLICY",
        ),
        ("b3", json!({ "op": "subscribe", "uri": "command://@c/output" }), "REF_UNRESOLVED"),
        ("b4", json!({ "op": "read", "uri": "nowhere" }), "INVALID_ARGUMENT"),
        ("b5", json!({ "op": "call", "tool": "no_tool" }), "INVALID_ARGUMENT"),
        ("b6", json!({ "op": "exec", "sid": "x", "cmd": "true" }), "SESSION_NOT_FOUND"),
        (
            "b7",
            json!({ "op": "exec", "sid": "@c", "cmd": "true", "subscribe": { "encoding": 1 } }),
            "INVALID_OP",
        ),
    ] {
        let mut op = op;
        op["id"] = id.into();
        let reply = tail.ask(op).await;
        assert_eq!((&reply["ev"], &reply["code"]), (&json!("err"), &json!(code)), "{reply}");
    }
    let closed = tail
        .ask(json!({ "op": "call", "id": "x", "tool": "sub_open",
        "args": { "uri": "session://@c/health", "lifetime": "manual" } }))
        .await;
    assert!(closed["sub_id"].is_string(), "{closed}");
    assert_eq!(tail.end().await.0.code(), Some(0));
}

#[tokio::test]
async fn a_lane_whose_lease_is_over_says_so_whatever_it_is_on() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let mut tail = Tail::daemon(&[]);
    tail.connect(&server).await;
    tail.ask(json!({ "op": "exec", "id": "e", "sid": "@c", "cmd": "sleep 600" })).await;
    let forward = json!({ "op": "call", "id": "f", "tool": "ssh_forward",
        "args": { "session_id": "@c", "local_port": 0, "remote_address": "127.0.0.1", "remote_port": server.addr().port() } });
    let forward = tail.ask(forward).await;
    let id = forward["data"]["forward_id"].as_str().unwrap_or_else(|| panic!("{forward}"));
    let events = format!("forward://{id}/events");
    // Bytes, a state and a log.
    for uri in ["command://@e/output", "session://@c/health", &events] {
        let opened = tail
            .ask(json!({ "op": "subscribe", "id": uri, "uri": uri, "lifetime": "lease", "ttl_secs": 1 }))
            .await;
        assert_eq!(opened["ev"], "ack", "{opened}");
        let closed = tail.until(|event| event["ev"] == "sub_closed").await;
        assert_eq!((&closed["sub_id"], &closed["uri"]), (&opened["sub_id"], &opened["uri"]));
        assert_eq!(closed["reason"], "lifetime_lease_expired", "{closed}");
    }
    // One that is closed by an op has said all in the reply.
    let opened = tail.ask(json!({ "op": "subscribe", "id": "s", "uri": events })).await;
    let left = tail.ask(json!({ "op": "unsubscribe", "id": "u", "sub_id": opened["sub_id"] })).await;
    assert_eq!(left["ev"], "ack", "{left}");
    tail.op(json!({ "op": "shutdown", "id": "x", "mode": "now" })).await;
    let (status, events) = tail.end().await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(kinds(&events).iter().filter(|kind| **kind == "sub_closed").count(), 3, "{events:#?}");
}

#[tokio::test]
async fn no_secret_is_said() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let mut tail = Tail::spawn(&["daemon", "--log", "debug"], &[]);
    let secret = "correct-horse-battery";
    let op = json!({ "op": "connect", "id": "c", "host": server.addr().to_string(), "user": "tester",
        "password": secret, "max_retries": 0 });
    let reply = tail.ask(op).await;
    assert_eq!(reply["code"], "AUTH_FAILED", "{reply}");
    let reply =
        tail.ask(json!({ "op": "connect", "id": "d", "host": "h", "user": "u", "password": [secret] })).await;
    assert_eq!(reply["cause"], "BAD_FIELD", "{reply}");
    let (_, events) = tail.end().await;
    assert!(!format!("{events:?}").contains(secret));
}

/// `ssh-mcp-tail run` on the server, with these flags before the command.
fn run(server: &OpenSshd, flags: &[&str], command: &str) -> Tail {
    let (host, key) = (server.addr().to_string(), key(server));
    let mut args = vec!["run", "--host", &host, "--user", "tester", "--key", &key];
    args.extend_from_slice(flags);
    args.extend_from_slice(&["--", command]);
    Tail::spawn(&args, &[])
}

#[tokio::test]
async fn run_says_five_lines_and_leaves_with_the_commands_code() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let (status, events) = run(&server, &[], "echo hello").end().await;
    assert_eq!(kinds(&events), ["ack", "started", "push", "completed", "closed"], "{events:#?}");
    let ids: Vec<_> = events.iter().map(|event| event["id"].as_str().unwrap_or_default()).collect();
    assert_eq!(ids, ["run-connect", "run-exec", "", "run-exec", "run-disconnect"]);
    assert_eq!(status.code(), Some(0));
    for (command, code) in [("exit 7", 7), ("kill -9 $$", 137), ("exit 255", 255)] {
        assert_eq!(run(&server, &[], command).end().await.0.code(), Some(code), "{command}");
    }
    assert_eq!(run(&server, &["--timeout-secs", "1"], "sleep 60").end().await.0.code(), Some(124));
    let mut server = server;
    server.stop();
    let (status, events) = run(&server, &[], "true").end().await;
    assert_eq!(status.code(), Some(255));
    assert_eq!(events.last().map(|last| &last["code"]), Some(&json!("CONNECTION_FAILED")), "{events:?}");
}

#[tokio::test]
async fn run_takes_the_place_of_ssh_in_a_script() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let (host, key) = (server.addr().to_string(), key(&server));
    let home = tempfile::tempdir().expect("a temporary directory");
    let output = |flags: &[&str], command: &str, input: &str| {
        let mut program = Command::new(binary("ssh-mcp-tail"));
        program.args(["run", "--host", &host, "--user", "tester", "--key", &key, "--output", "raw"]);
        program.args(flags).args(["--", command]).env("HOME", home.path()).env("RUST_LOG", "error");
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = program.spawn().expect("ssh-mcp-tail starts");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let input = input.to_owned();
        async move {
            // It may have closed its input.
            _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
            tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("it ends").expect("a child")
        }
    };
    let told = output(&[], "echo out; echo err >&2; cat; exit 4", "not read").await;
    assert_eq!(
        (&told.stdout[..], &told.stderr[..], told.status.code()),
        (&b"out\n"[..], &b"err\n"[..], Some(4))
    );
    let told = output(&["--stdin"], "tr a-z A-Z", "passed on").await;
    assert_eq!((&told.stdout[..], told.status.code()), (&b"PASSED ON"[..], Some(0)));
    let told = output(&[], "head -c 20000000 /dev/zero", "").await;
    assert_eq!((told.stdout.len(), told.status.code()), (20_000_000, Some(0)));
}

#[tokio::test]
async fn forwards_serial_ports_and_syncs_are_reached_by_call() {
    let Some(server) = OpenSshd::start_or_skip(with_sftp()) else { return };
    let Some(line) = LinePair::start_or_skip() else { return };
    let here = tempfile::tempdir().expect("a temporary directory");
    fs::write(here.path().join("file"), "synced").unwrap();
    let mut tail = Tail::daemon(&[]);
    tail.connect(&server).await;

    // To a service of this machine: the server itself, which greets whoever comes.
    let args = json!({ "session_id": "@c", "local_port": 0, "remote_address": "127.0.0.1",
        "remote_port": server.addr().port() });
    let forward = tail
        .ask(json!({ "op": "call", "id": "f", "tool": "ssh_forward", "args": args, "subscribe": true }))
        .await;
    assert_eq!((&forward["ev"], &forward["tool"]), (&json!("result"), &json!("ssh_forward")), "{forward}");
    let port = forward["data"]["local_port"].as_u64().expect("a port") as u16;
    let mut through = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut greeting = [0; 4];
    through.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"SSH-");
    let told = tail.until(|event| event["ev"] == "push" && event["sub_id"] == forward["sub_id"]).await;
    let body: Value = serde_json::from_str(told["delta"].as_str().expect("text")).expect("JSON");
    assert!(body.is_object(), "{body}");
    let close = json!({ "forward_id": "@f" });
    tail.op(json!({ "op": "call", "id": "fc", "tool": "ssh_forward_close", "args": close })).await;
    let closed = tail.until(|event| event["ev"] == "resource_closed").await;
    let uri = format!("forward://{}/events", forward["data"]["forward_id"].as_str().unwrap());
    assert_eq!((&closed["uri"], &closed["id"]), (&json!(uri), &json!("f")), "{closed}");

    let args = json!({ "path": line.near() });
    let serial = tail
        .ask(json!({ "op": "call", "id": "s", "tool": "serial_open", "args": args, "subscribe": { "debounce_ms": 5 } }))
        .await;
    assert_eq!(serial["ev"], "result", "{serial}");
    line.say(b"boot\xff\n");
    let told = tail.until(|event| event["ev"] == "push" && event["sub_id"] == serial["sub_id"]).await;
    assert_eq!((bytes([&told]), &told["stream"]), (b"boot\xff\n".to_vec(), &Value::Null), "{told}");
    let close = json!({ "serial_id": "@s" });
    tail.op(json!({ "op": "call", "id": "sc", "tool": "serial_close", "args": close })).await;
    let closed = tail.until(|event| event["ev"] == "resource_closed").await;
    assert_eq!(closed["id"], "s", "{closed}");

    let args = json!({ "session_id": "@c", "direction": "upload", "src": here.path().join(""), "dst": "there",
        "opts": { "archive": true } });
    let sync = tail
        .ask(json!({ "op": "call", "id": "r", "tool": "ssh_rsync", "args": args, "subscribe": true }))
        .await;
    assert_eq!(sync["ev"], "result", "{sync}");
    let closed = tail.until(|event| event["ev"] == "resource_closed").await;
    assert_eq!((&closed["id"], &closed["reason"]), (&json!("r"), &json!("completed")), "{closed}");
    assert!(data_of(&tail.events, &sync["sub_id"]).next().is_some());
    assert_eq!(fs::read_to_string(server.home(User::Tester).join("there/file")).unwrap(), "synced");
    assert_eq!(tail.end().await.0.code(), Some(0));
}

#[tokio::test]
async fn a_session_stays_until_the_input_ends_if_that_is_asked_for() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let mut tail = run(&server, &["--no-auto-disconnect", "--heartbeat-secs", "1"], "exit 4");
    tail.until(|event| event["ev"] == "completed").await;
    // The interval has passed, and the session is still there.
    let after = tail.until(|event| event["ev"] == "heartbeat" || event["ev"] == "closed").await;
    assert_eq!(after["ev"], "heartbeat");
    let (status, events) = tail.end().await;
    assert_eq!((status.code(), kinds(&events).last()), (Some(4), Some(&"closed")), "{events:#?}");
}

#[tokio::test]
async fn a_drain_that_waits_has_no_deadline() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let mut tail = Tail::spawn(&["daemon", "--on-eof", "wait", "--grace-secs", "1"], &[]);
    tail.connect(&server).await;
    tail.op(json!({ "op": "exec", "id": "e", "sid": "@c", "cmd": "sleep 3; exit 6" })).await;
    let (status, events) = tail.end().await;
    assert_eq!(status.code(), Some(0));
    let completed = &events[at(&events, |event| event["ev"] == "completed")];
    assert_eq!(completed["exit"], 6, "{completed}");

    // The grace an op names is the one that counts.
    let mut tail = Tail::daemon(&[]);
    tail.connect(&server).await;
    tail.op(json!({ "op": "exec", "id": "e", "sid": "@c", "cmd": "sleep 600" })).await;
    tail.op(json!({ "op": "shutdown", "id": "s", "grace_secs": 2 })).await;
    let (status, events) = tail.end().await;
    assert_eq!(status.code(), Some(0));
    let completed = &events[at(&events, |event| event["ev"] == "completed")];
    assert_eq!(completed["cancelled"], true, "{completed}");
}

/// The process that wrote its number into a file of the tester's home, once it has done so.
fn written_pid(server: &OpenSshd) -> u32 {
    let (file, mut pid) = (server.home(User::Tester).join("pid"), None);
    let is_there = wait_until(LIMIT, || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        pid = text.ends_with('\n').then(|| text.trim().parse().expect("a number"));
        pid.is_some()
    });
    assert!(is_there, "nothing has started");
    fs::remove_file(file).expect("it is there");
    pid.unwrap_or_default()
}

/// Waits until a process of the far side cannot write any more.
fn wait_until_held(server: &OpenSshd, pid: u32) {
    let mut before = None;
    let is_held = wait_until(LIMIT, || {
        let host = server.host_pid(pid).expect("it was held up before it was through");
        let io = fs::read_to_string(format!("/proc/{host}/io")).unwrap_or_default();
        let written = io.lines().find(|line| line.starts_with("wchar")).map(str::to_owned);
        written.is_some() && std::mem::replace(&mut before, written.clone()) == written
    });
    assert!(is_held, "nothing holds it up");
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_output_waits_for_who_reads_it() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    // More than the way there holds.
    let expected: String = (1..=10_000_000).map(|number| format!("{number}\n")).collect();
    let raw = ["--output", "raw"];
    let command = run(&server, &raw, "echo $$ > pid; exec seq 10000000");
    let mut terminal = shell(&server, &raw);
    tokio::task::block_in_place(|| wait_until_held(&server, written_pid(&server)));
    terminal.write(b"stty -onlcr; echo $$ > pid; exec seq 10000000\n").await;
    tokio::task::block_in_place(|| wait_until_held(&server, written_pid(&server)));
    for (mut tail, is_shell) in [(command, false), (terminal, true)] {
        let mut came = Vec::new();
        let read = tokio::time::timeout(LIMIT, tail.output.read_to_end(&mut came)).await;
        read.expect("it ends").expect("bytes");
        assert!(came.ends_with(expected.as_bytes()), "{} bytes of {}", came.len(), expected.len());
        assert!(is_shell || came.len() == expected.len(), "{} bytes", came.len());
        assert_eq!(tail.end().await.0.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_limit_does_not_wait_for_who_reads() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let (host, key) = (server.addr().to_string(), key(&server));
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut program = Command::new(binary("ssh-mcp-tail"));
    program.args(["run", "--host", &host, "--user", "tester", "--key", &key, "--output", "raw"]);
    program.args(["--timeout-secs", "3", "--", "echo $$ > pid; exec yes"]);
    program.env("HOME", home.path()).env("RUST_LOG", "error");
    program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = program.spawn().expect("ssh-mcp-tail starts");
    tokio::task::block_in_place(|| {
        let pid = written_pid(&server);
        wait_until_held(&server, pid);
        assert!(wait_until(LIMIT, || server.host_pid(pid).is_none()), "it is held up for good");
    });
    let told =
        tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("it ends").expect("a child");
    assert_eq!(told.status.code(), Some(124));
    assert!(told.stdout.starts_with(b"y\ny\n"));
    // More was on its way than is held for a reader, and nobody was waited for any more.
    let said = String::from_utf8(told.stderr).unwrap();
    assert!(said.contains(" bytes are missing here, "), "{said}");
}

/// What stands in the fences of the recipes, with the name of the user that is there.
fn recipes(fence: &str) -> Vec<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/daemon.md")).unwrap();
    let (_, recipes) = page.split_once("## Recipes").expect("they are there");
    let fence = format!("```{fence}\n");
    let texts = recipes.split(&fence).skip(1).map(|block| block.split("```").next().unwrap_or_default());
    texts.map(|text| text.replace("deploy", User::Tester.name())).collect()
}

/// A line of the output of a recipe.
async fn line(output: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    let read = tokio::time::timeout(LIMIT, output.read_line(&mut line)).await;
    assert!(read.expect("it goes on").expect("a line") > 0, "it has ended");
    line
}

#[tokio::test]
async fn the_recipes_of_the_documentation_work() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let home = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir(home.path().join(".ssh")).unwrap();
    let config =
        format!("Host web1\nHostName 127.0.0.1\nPort {}\nIdentityFile {}\n", server.port(), key(&server));
    fs::write(home.path().join(".ssh/config"), config).unwrap();
    fs::write(home.path().join("ops.ndjson"), recipes("json").concat()).unwrap();
    fs::write(server.home(User::Tester).join("app.log"), "INFO all is well\nERROR it is not\n").unwrap();
    let programs = binary("ssh-mcp-tail").parent().expect("a folder").to_owned();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let start = |recipe: &str| {
        let mut shell = Command::new("bash");
        shell.args(["-c", recipe]).current_dir(home.path()).env_clear().env("PATH", &path);
        shell.env("HOME", home.path()).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut shell = shell.process_group(0).spawn().expect("bash starts");
        let output = BufReader::new(shell.stdout.take().expect("stdout is piped"));
        (shell, output)
    };
    let blocks = recipes("sh");
    let [watch, list, talk] = blocks.as_slice() else { panic!("three recipes: {blocks:#?}") };

    let (mut shell, mut output) = start(watch);
    assert_eq!(line(&mut output).await, "ERROR it is not\n");
    let group = format!("-{}", shell.id().expect("it runs"));
    let killed = std::process::Command::new("kill").args(["-TERM", "--", &group]).status();
    assert!(killed.expect("kill starts").success());
    _ = shell.wait().await;

    let (_shell, mut output) = start(list);
    let mut failed = String::new();
    let read = tokio::time::timeout(LIMIT, output.read_to_string(&mut failed)).await;
    read.expect("it ends").expect("text");
    let failed: Vec<Value> = failed.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let mut ids: Vec<_> = failed.iter().map(|event| event["id"].as_str().expect("an id")).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["build", "test"], "{failed:#?}");
    let audit = fs::read_to_string(home.path().join("audit.ndjson")).unwrap();
    assert!(audit.starts_with("{\"ev\":\"ack\"") && audit.contains("{\"ev\":\"closed\""), "{audit}");

    let (mut shell, mut output) = start(talk);
    let load = line(&mut output).await;
    assert!(load.contains('/') && load.ends_with("\\n\"\n"), "{load}");
    assert_eq!(line(&mut output).await, "0\n");
    assert!(line(&mut output).await.starts_with('"'));
    let status = tokio::time::timeout(LIMIT, shell.wait()).await.expect("it ends").expect("a child");
    assert!(status.success());
}

/// `ssh-mcp-tail shell` on the server.
fn shell(server: &OpenSshd, flags: &[&str]) -> Tail {
    let (host, key) = (server.addr().to_string(), key(server));
    let mut args = vec!["shell", "--host", &host, "--user", "tester", "--key", &key];
    args.extend_from_slice(flags);
    Tail::spawn(&args, &[])
}

fn shown(events: &[Value]) -> String {
    let outputs = events.iter().filter(|event| event["ev"] == "shell_output");
    outputs.filter_map(|event| event["bytes"].as_str()).collect()
}

#[tokio::test]
async fn a_shell_on_a_pipe_says_what_it_shows_and_leaves_with_its_code() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let mut tail = shell(&server, &["--cols", "91", "--rows=17"]);
    tail.write(b"stty size; printf '\\303\\244\\377\\n'; exit 5\n").await;
    while tail.next().await.is_some() {}
    let (status, events) = tail.end().await;
    assert_eq!(status.code(), Some(5));
    assert!(shown(&events).contains("17 91\r\n") && shown(&events).contains("ä\u{fffd}"), "{events:#?}");
    let odd = events.iter().find(|event| event["bytes_b64"].is_string()).expect("bytes that are no text");
    let exact = STANDARD.decode(odd["bytes_b64"].as_str().unwrap()).unwrap();
    assert!(exact.windows(3).any(|bytes| bytes == b"\xc3\xa4\xff"));
    assert!(kinds(&events).starts_with(&["ack", "ack", "shell_output"]), "{events:#?}");
    assert!(kinds(&events).ends_with(&["resource_closed", "closed"]), "{events:#?}");
    assert!(!kinds(&events).contains(&"push"));
}

#[tokio::test]
async fn a_shell_whose_input_ends_is_told_so_and_closed_if_it_stays() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    // One that listens ends by itself, one that does not is closed.
    for input in ["echo o''ne\n", "echo o''ne; exec sleep 600\n"] {
        let mut tail = shell(&server, &[]);
        tail.write(input.as_bytes()).await;
        let (status, events) = tail.end().await;
        assert_eq!(status.code(), Some(0), "{input}");
        assert!(shown(&events).contains("one\r\n"), "{events:#?}");
        assert!(kinds(&events).ends_with(&["resource_closed", "closed"]), "{events:#?}");
    }
}

#[tokio::test]
async fn a_shell_that_dies_or_is_cut_off_leaves_with_the_code_of_that() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    // The parent of a login shell is the server's process for the connection.
    for (input, code, reason) in
        [("kill -KILL $$\n", 137, "completed"), ("kill -KILL $PPID\n", 255, "connection_lost")]
    {
        let mut tail = shell(&server, &[]);
        tail.write(input.as_bytes()).await;
        while tail.next().await.is_some() {}
        let (status, events) = tail.end().await;
        assert_eq!(status.code(), Some(code), "{input} {events:#?}");
        let closed = &events[at(&events, |event| event["ev"] == "resource_closed")];
        assert_eq!(closed["reason"], reason, "{closed}");
        assert!(kinds(&events).ends_with(&["resource_closed", "closed"]), "{events:#?}");
    }
}

#[tokio::test]
async fn run_takes_a_password_from_a_variable_or_a_file_and_says_it_nowhere() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("password");
    fs::write(&file, format!("{}\n", server.password())).unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let (host, file) = (server.addr().to_string(), file.to_str().expect("a path of ours").to_owned());
    for way in [["--password-env", "HOST_PASSWORD"], ["--password-file", &file]] {
        let args = [&["run", "--host", &host, "--user", "tester"], &way[..], &["--", "echo in"]].concat();
        let (status, events) = Tail::spawn(&args, &[("HOST_PASSWORD", server.password())]).end().await;
        assert_eq!(status.code(), Some(0), "{events:#?}");
        assert!(!format!("{events:?}").contains(server.password()));
    }
}

#[tokio::test]
async fn events_for_eyes_are_the_same_events() {
    let mut tail = Tail::daemon(&[("SSH_NDJSON_PRETTY", "1")]);
    tail.op(json!({ "op": "stats", "id": "s" })).await;
    drop(tail.input.take());
    let mut text = String::new();
    let read = tokio::time::timeout(LIMIT, tail.output.read_to_string(&mut text)).await;
    read.expect("it ends").expect("text");
    assert!(text.starts_with("{\n  \"ev\": \"daemon_stats\",\n"), "{text}");
    let events: Vec<Value> =
        serde_json::Deserializer::from_str(&text).into_iter().map(|event| event.expect(&text)).collect();
    assert_eq!(kinds(&events), ["daemon_stats"]);
    events.iter().for_each(schema::check);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_on_a_terminal_is_that_terminal_and_gives_it_back() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let Some(tmux) = Tmux::or_skip() else { return };
    let home = tempfile::tempdir().expect("a temporary directory");
    let program = format!(
        "HOME={} RUST_LOG=error {} shell --host {} --user tester --key {} --output raw",
        home.path().display(),
        binary("ssh-mcp-tail").display(),
        server.addr(),
        key(&server)
    );
    let both = format!("{program}; echo code=$?; stty -a; {program}; echo code=$?; stty -a; exec cat");
    tmux.ask(&[
        "-f",
        "/dev/null",
        "new-session",
        "-d",
        "-s",
        "t",
        "-x",
        "100",
        "-y",
        "30",
        "sh",
        "-c",
        &both,
    ]);
    let screen = || tmux.ask(&["capture-pane", "-p", "-J", "-S", "-", "-t", "t"]);
    let shows = |text: &str| {
        assert!(wait_until(LIMIT, || screen().contains(text)), "{text} is not shown: {}", screen());
    };
    let type_in = |text: &str| tmux.ask(&["send-keys", "-t", "t", "-l", text]);
    let press = |key: &str| tmux.ask(&["send-keys", "-t", "t", key]);
    let line = |text: &str| {
        type_in(text);
        press("Enter");
    };
    let pane = || tmux.ask(&["display-message", "-p", "-t", "t", "#{pane_height}x#{pane_width}"]);
    tokio::task::block_in_place(|| {
        // The far side has the size of this side, also when that changes.
        line("stty size | tr ' ' x");
        shows(&format!("\n{}\n", pane()));
        tmux.ask(&["resize-window", "-t", "t", "-x", "77", "-y", "22"]);
        line("until [ \"$(stty size)\" = '22 77' ]; do sleep 0.05; done; echo small''er");
        shows("\nsmaller\n");
        assert!(pane().starts_with("22x77"), "{}", pane());
        // Keys are the far side's, those that would end a program here among them.
        line("sleep 600");
        shows("sleep 600");
        press("C-c");
        line("echo al''ive");
        shows("\nalive\n");
        line("exit 3");
        shows("code=3");
        shows(" icanon");
        // A signal that ends it gives the terminal back too.
        line("echo ag''ain");
        shows("\nagain\n");
        let of_pane = tmux.ask(&["display-message", "-p", "-t", "t", "#{pane_pid}"]);
        let children = fs::read_to_string(format!("/proc/{of_pane}/task/{of_pane}/children")).unwrap();
        let killed = std::process::Command::new("kill").args(["-TERM", children.trim()]).status();
        assert!(killed.expect("kill starts").success());
        shows("code=143");
        assert!(wait_until(LIMIT, || screen().matches(" icanon").count() == 2), "{}", screen());
    });
    assert!(!screen().contains("-icanon"), "{}", screen());
}

#[tokio::test]
async fn run_ends_the_command_when_nobody_reads() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let mut tail = run(&server, &["--output", "raw"], "echo $$ > pid; while sleep 0.1; do echo x; done");
    let mut one = [0; 1];
    tail.output.read_exact(&mut one).await.expect("a byte");
    let Tail { mut child, input, output, events: _, _home } = tail;
    drop((input, output));
    let status = tokio::time::timeout(LIMIT, child.wait()).await.expect("it ends").expect("a child");
    assert_eq!(status.code(), Some(0));
    let pid: u32 = fs::read_to_string(server.home(User::Tester).join("pid")).unwrap().trim().parse().unwrap();
    let gone =
        tokio::task::spawn_blocking(move || (wait_until(LIMIT, || server.host_pid(pid).is_none()), server));
    assert!(gone.await.expect("no panic").0, "the command lives on");
}

#[tokio::test]
async fn usage_errors_say_nothing_on_standard_output() {
    for (args, code) in [
        (&[][..], 2),
        (&["nope"], 2),
        (&["daemon", "--nope"], 2),
        (&["daemon", "--on-eof", "later"], 2),
        (&["run", "--host", "h"], 2),
        (&["run", "--", "true"], 2),
    ] {
        let output =
            std::process::Command::new(binary("ssh-mcp-tail")).args(args).output().expect("it starts");
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
    for args in [&["--help"][..], &["--version"], &["run", "-h"], &["schema"]] {
        let output =
            std::process::Command::new(binary("ssh-mcp-tail")).args(args).output().expect("it starts");
        assert!(output.status.success() && !output.stdout.is_empty(), "{args:?}");
    }
}
