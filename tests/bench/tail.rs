//! What `ssh-mcp-tail` costs, and how much it carries: `scripts/bench tail`.
//!
//! The far side of a push is paced, for lanes never hold a command back: what the product cannot say in time is missing,
//! and the row says how much that is.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    MIB, Master, at, binary, millis, ratio, row, server,
    sshd::{ClientKey, OpenSshd, User},
    status_kib, timed,
};

const GIB: u64 = 1 << 30;

/// Runs the parts that are wanted.
pub(crate) fn measure(run: &impl Fn(&str) -> bool) {
    let parts: [(&str, fn()); 6] = [
        ("tail start", start),
        ("tail op", op),
        ("tail raw", raw),
        ("tail push text", || push("text", TEXT, "auto", 260)),
        ("tail push base64", || push("binary, `encoding:\"base64\"`", BINARY, "base64", 260)),
        ("tail push binary", || push("binary", BINARY, "auto", 105)),
    ];
    parts.iter().filter(|(name, _)| run(name)).for_each(|(_, measure)| measure());
}

/// The product for a user who knows the server.
fn product(server: &OpenSshd, args: &[&str]) -> (Command, tempfile::TempDir) {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir_all(home.path().join(".ssh")).unwrap();
    fs::write(home.path().join(".ssh/known_hosts"), server.known_hosts()).unwrap();
    let mut command = Command::new(binary("ssh-mcp-tail"));
    command.args(args).env_clear().envs([("PATH", "/usr/bin:/bin"), ("RUST_LOG", "error")]);
    command.env("HOME", home.path()).stdin(Stdio::null());
    (command, home)
}

/// `run` of a command.
fn product_run(server: &OpenSshd, output: &str, remote: &str) -> (Command, tempfile::TempDir) {
    let (address, key) = (server.addr().to_string(), server.client_key(ClientKey::Ed25519));
    let login = ["--user", User::Tester.name(), "--key", key.to_str().unwrap()];
    let mut args = vec!["run", "--output", output, "--host", &address];
    args.extend(login);
    args.extend(["--", remote]);
    product(server, &args)
}

fn peer_run(server: &OpenSshd, remote: &str) -> Command {
    let mut ssh = server.client(User::Tester, ClientKey::Ed25519);
    ssh.arg(remote);
    ssh
}

fn start() {
    let server = server(None);
    let (mut own, mut peer) = (Vec::new(), Vec::new());
    for round in 0..23 {
        let (command, _home) = product_run(&server, "raw", "true");
        let (took, other) = (timed(command), timed(peer_run(&server, "true")));
        if round >= 3 {
            own.push(took);
            peer.push(other);
        }
    }
    let (own, peer) = (at(&mut own, 0.5), at(&mut peer, 0.5));
    let what = "`ssh-mcp-tail run -- true` (peer: `ssh host true`)";
    row(what, &millis(own), &millis(peer), ratio(own, peer), "<= 0.55");
    let size = fs::metadata(binary("ssh-mcp-tail")).unwrap().len() as f64 / MIB as f64;
    row("size of `ssh-mcp-tail`", &format!("{size:.1} MiB"), "-", None, "-");
}

/// One daemon with a session.
struct Daemon {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    line: Vec<u8>,
    _home: tempfile::TempDir,
}

impl Daemon {
    fn start(server: &OpenSshd) -> Self {
        let (mut command, home) = product(server, &["daemon"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let output = BufReader::with_capacity(1 << 18, output);
        let mut daemon = Self { child, input, output, line: Vec::new(), _home: home };
        let key = server.client_key(ClientKey::Ed25519);
        daemon.op(&json!({"op": "connect", "id": "c", "host": server.addr().to_string(),
            "user": User::Tester.name(), "key": key.to_str().unwrap()}));
        daemon.until(b"{\"ev\":\"ack\"");
        daemon
    }

    fn op(&mut self, op: &Value) {
        writeln!(self.input, "{op}").unwrap();
    }

    /// Reads to the first line that begins so.
    fn until(&mut self, beginning: &[u8]) {
        while !self.read().starts_with(beginning) {}
    }

    fn read(&mut self) -> &[u8] {
        self.line.clear();
        assert!(self.output.read_until(b'\n', &mut self.line).unwrap() > 0, "the daemon ended");
        assert!(!self.line.starts_with(b"{\"ev\":\"err\""), "{}", String::from_utf8_lossy(&self.line));
        &self.line
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// From a line in to the end of its command.
fn op() {
    let server = server(None);
    let mut daemon = Daemon::start(&server);
    let master = Master::start(&server);
    let (mut own, mut peer) = (Vec::new(), Vec::new());
    for round in 0..220 {
        let begun = Instant::now();
        daemon.op(&json!({"op": "exec", "id": "e", "sid": "@c", "cmd": "true"}));
        daemon.until(b"{\"ev\":\"completed\"");
        let took = begun.elapsed();
        let other = timed(master.client(&server, "true"));
        if round >= 20 {
            own.push(took);
            peer.push(other);
        }
    }
    for (share, name, target) in [(0.5, "median", "<= 0.4"), (0.95, "p95", "-")] {
        let (own, peer) = (at(&mut own, share), at(&mut peer, share));
        let what = format!("op `exec` of `true` to its `completed`, {name} (peer: ControlMaster)");
        row(&what, &millis(own), &millis(peer), ratio(own, peer), target);
    }
    master.stop(&server);
}

/// How long the output of a command takes to come, all of it, and the most memory that the process took for it.
fn drained(command: &mut Command) -> (Duration, u64) {
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let (mut buffer, mut came, mut memory) = (vec![0; 1 << 18], 0, 0);
    while came < GIB {
        let read = output.read(&mut buffer).unwrap();
        assert!(read > 0, "{came} bytes came");
        came += read as u64;
        // It still holds more than the pipe does, so it is there.
        if memory == 0 && came >= GIB - 8 * MIB {
            memory = status_kib(child.id(), "VmHWM");
        }
    }
    let took = begun.elapsed();
    assert!(child.wait().unwrap().success());
    (took, memory)
}

fn raw() {
    let server = server(None);
    let remote = format!("head -c {GIB} /dev/zero");
    let (mut own, mut peer, mut most) = (Vec::new(), Vec::new(), 0);
    for round in 0..6 {
        let (mut command, _home) = product_run(&server, "raw", &remote);
        let (took, memory) = drained(&mut command);
        let (other, _) = drained(&mut peer_run(&server, &remote));
        if round >= 1 {
            own.push(took);
            peer.push(other);
        }
        most = most.max(memory);
    }
    let (own, peer) = (at(&mut own, 0.5), at(&mut peer, 0.5));
    let rate = |time: Duration| format!("{:.0} MiB/s", (GIB / MIB) as f64 / time.as_secs_f64());
    let what = "1 GiB by `run --output raw` (peer: `ssh`)";
    row(what, &rate(own), &rate(peer), ratio(peer, own), ">= 0.9");
    row("memory that takes at most", &mebibytes(most), "-", None, "<= 32 MiB");
}

fn mebibytes(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}

/// Lines of text, and bytes that are no UTF-8, as expressions of Python.
const TEXT: &str = "(b'%063d\\n' * 16384) % tuple(range(16384))";
const BINARY: &str = "bytes(i * 167 % 256 for i in range(1 << 20))";

/// A gibibyte of a kind, at a rate just above the target.
fn push(what: &str, block: &str, encoding: &str, pace: u32) {
    let server = server(None);
    let mut daemon = Daemon::start(&server);
    daemon.op(&json!({"op": "exec", "id": "e", "sid": "@c", "cmd": paced(block, pace),
        "subscribe": {"encoding": encoding}}));
    daemon.until(b"{\"ev\":\"started\"");
    let (mut begun, mut missing, mut came) = (None, 0, 0);
    loop {
        let line = daemon.read();
        if line.starts_with(b"{\"ev\":\"completed\"") {
            break;
        }
        begun.get_or_insert_with(Instant::now);
        // The data stands behind everything else.
        let head = &line[..line.len().min(400)];
        missing += number(head, "\"gap_bytes\":");
        came = came.max(number(head, "\"cursor\":"));
    }
    let took = begun.unwrap().elapsed();
    assert_eq!(came, GIB);
    let rate = format!("{:.0} MiB/s", ((came - missing) / MIB) as f64 / took.as_secs_f64());
    let target = format!(">= {} MiB/s", pace / 50 * 50);
    row(&format!("push of 1 GiB of {what}, sent at {pace} MiB/s"), &rate, "-", None, &target);
    row("bytes missing of that", &missing.to_string(), "-", None, "0");
    let most = mebibytes(status_kib(daemon.child.id(), "VmHWM"));
    row("memory that takes at most", &most, "-", None, "<= 32 MiB");
}

/// A program of the far side that writes a gibibyte at so many MiB a second.
fn paced(block: &str, pace: u32) -> String {
    format!(
        "python3 -c \"import sys,time\nblock={block}\nbegun=time.monotonic()\nfor n in range(1024):\n \
         sys.stdout.buffer.write(block)\n time.sleep(max(0,begun+n/{pace}-time.monotonic()))\""
    )
}

/// The number behind a word, or 0.
fn number(text: &[u8], word: &str) -> u64 {
    let text = String::from_utf8_lossy(text);
    let Some((_, rest)) = text.split_once(word) else { return 0 };
    rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}
