//! What lanes cost, and how soon their messages come: `scripts/bench push`.
//!
//! The far side prints the time at which it prints, so that a delay is one subtraction on one clock, for the product and for
//! its peer alike. The clients here read by themselves, one line at a time: nothing stands between a line and its time.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::{
    at, binary, login, millis, ratio, row, server,
    sshd::{ClientKey, OpenSshd, User},
    status_kib, wakeups,
};

const REVISION: &str = "2025-11-25";

/// The product on standard streams, for one client that takes bytes in notifications.
pub(crate) struct Pipes {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    line: Vec<u8>,
    calls: u64,
    _home: tempfile::TempDir,
}

impl Pipes {
    fn start(server: &OpenSshd, env: &[(&str, &str)]) -> Self {
        Self::at_home(home(server), env)
    }

    /// One that knows no server.
    pub(crate) fn at_home(home: tempfile::TempDir, env: &[(&str, &str)]) -> Self {
        let mut child = Command::new(binary("ssh-mcp-stdio"))
            .env_clear()
            .envs([("PATH", "/usr/bin:/bin"), ("RUST_LOG", "error")])
            .env("HOME", home.path())
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let output = BufReader::with_capacity(1 << 18, output);
        let mut client = Self { child, input, output, line: Vec::new(), calls: 0, _home: home };
        client.request("initialize", hello());
        client.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        client
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.input, "{message}").unwrap();
    }

    /// The next line as it is, in `self.line`.
    fn read(&mut self) {
        self.line.clear();
        assert!(self.output.read_until(b'\n', &mut self.line).unwrap() > 0, "the server ended");
    }

    /// The next line, to keep.
    pub(crate) fn line(&mut self) -> Vec<u8> {
        self.read();
        std::mem::take(&mut self.line)
    }

    /// Sends a request and reads until its answer; what is notified meanwhile is let go.
    fn request(&mut self, method: &str, params: Value) -> Value {
        self.begin(method, params);
        loop {
            self.read();
            let message: Value = serde_json::from_slice(&self.line).unwrap();
            if message["id"] == self.calls {
                assert!(message.get("error").is_none(), "{message}");
                return message["result"].clone();
            }
        }
    }

    fn begin(&mut self, method: &str, params: Value) {
        self.calls += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": self.calls, "method": method, "params": params}));
    }

    pub(crate) fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let answer = self.request("tools/call", json!({"name": tool, "arguments": arguments}));
        assert_ne!(answer["isError"], true, "{tool}: {answer}");
        answer["structuredContent"].clone()
    }

    fn connect(&mut self, server: &OpenSshd) -> String {
        let answer = self.call("ssh_connect", login(server, &server.addr().to_string()));
        text(&answer["session_id"])
    }

    /// Starts a command; the answer is its id.
    fn exec(&mut self, session: &str, command: &str) -> String {
        text(&self.call("ssh_exec", json!({"session_id": session, "command": command}))["command_id"])
    }

    /// The next notification, and when it came.
    fn notification(&mut self) -> (SystemTime, Value) {
        loop {
            self.read();
            let came = SystemTime::now();
            let message: Value = serde_json::from_slice(&self.line).unwrap();
            if message.get("method").is_some() {
                return (came, message);
            }
        }
    }

    /// Processor time so far, of the threads that live; those of this server do while it is measured.
    pub(crate) fn cpu(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let spent = threads.map(|thread| {
            let stat = fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap_or_default();
            stat.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or_default()
        });
        Duration::from_nanos(spent.sum())
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn home(server: &OpenSshd) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join(".ssh")).unwrap();
    fs::write(home.path().join(".ssh/known_hosts"), server.known_hosts()).unwrap();
    home
}

fn hello() -> Value {
    let inline = json!({"version": "1", "encodings": ["base64", "utf8"]});
    json!({"protocolVersion": REVISION, "clientInfo": {"name": "bench", "version": "1"},
        "capabilities": {"experimental": {"ssh_inline_push": inline}}})
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn uri(command: &str) -> String {
    format!("command://{command}/output")
}

/// A program that prints the time, in microseconds since 1970, after each pause.
fn stamps(pause: Duration) -> String {
    let pause = pause.as_micros();
    format!(
        "exec perl -MTime::HiRes=time,usleep -e '$| = 1; while (1) {{ usleep {pause}; printf \"%.0f\\n\", time * 1e6 }}'"
    )
}

/// How long ago the lines of `printed` were printed.
fn delays(came: SystemTime, printed: &str, delays: &mut Vec<Duration>) {
    let came = came.duration_since(UNIX_EPOCH).unwrap();
    for line in printed.lines() {
        let printed = Duration::from_micros(line.parse().unwrap_or_else(|_| panic!("no time: {printed:?}")));
        delays.push(came.saturating_sub(printed));
    }
}

/// The delays of so many lines that a lane tells of.
fn told(client: &mut Pipes, session: &str, pause: Duration, lane: &Value, lines: usize) -> Vec<Duration> {
    let command = client.exec(session, &stamps(pause));
    let mut ask = lane.clone();
    ask["uri"] = uri(&command).into();
    client.call("sub_open", ask);
    let read = json!({"uri": format!("{}?cursor=auto&stream=stdout", uri(&command))});
    let mut found = Vec::new();
    while found.len() < lines + WARM_UP {
        let (came, message) = client.notification();
        let bytes = match message["method"].as_str() {
            Some("notifications/resources/updated") => {
                text(&client.request("resources/read", read.clone())["contents"][0]["text"])
            }
            Some("notifications/ssh/output") => text(&message["params"]["text"]),
            _ => continue,
        };
        delays(came, &bytes, &mut found);
    }
    client.call("ssh_exec_cancel", json!({"command_id": command}));
    found.split_off(WARM_UP)
}

/// The same of OpenSSH's client, which prints them to a pipe.
fn printed(server: &OpenSshd, pause: Duration, lines: usize) -> Vec<Duration> {
    let mut ssh = server.client(User::Tester, ClientKey::Ed25519);
    let mut child = ssh.arg(stamps(pause)).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut found = Vec::new();
    while found.len() < lines + WARM_UP {
        let mut line = String::new();
        assert!(output.read_line(&mut line).unwrap() > 0, "ssh ended");
        delays(SystemTime::now(), &line, &mut found);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    found.split_off(WARM_UP)
}

/// The first lines of a command meet caches that are cold.
const WARM_UP: usize = 3;

/// Everything that is started meanwhile, and this program, goes before whatever else the machine has to do. One delay in a
/// hundred would else tell of that: `ssh` to a pipe has the same.
struct First(bool);

impl First {
    fn begin() -> Self {
        let first = Self(Self::schedule("--fifo", "10"));
        if !first.0 {
            eprintln!("no right to a real-time priority (chrt): the p99 are those of the machine");
        }
        first
    }

    fn schedule(policy: &str, priority: &str) -> bool {
        let mut chrt = Command::new("chrt");
        chrt.args([policy, "--all-tasks", "--pid", priority, &std::process::id().to_string()]);
        chrt.status().is_ok_and(|status| status.success())
    }
}

impl Drop for First {
    fn drop(&mut self) {
        if self.0 {
            Self::schedule("--other", "0");
        }
    }
}

/// From the write on the far side to the message here.
pub(crate) fn delay() {
    let _first = First::begin();
    const SLOW: Duration = Duration::from_millis(300);
    const FAST: Duration = Duration::from_millis(20);
    let server = server(None);
    let mut client = Pipes::start(&server, &[]);
    let session = client.connect(&server);
    let lanes = [
        ("announcement", SLOW, 40, json!({}), "<= 28 ms"),
        ("bytes", SLOW, 40, json!({"inline_push": true}), "<= 2 ms"),
        ("bytes, `debounce_ms` 5", FAST, 200, json!({"inline_push": true, "debounce_ms": 5}), "<= 2 ms"),
    ];
    for (what, pause, lines, lane, target) in lanes {
        let (mut own, mut peer) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            own.extend(told(&mut client, &session, pause, &lane, lines));
            peer.extend(printed(&server, pause, lines));
        }
        let median = at(&mut own, 0.5);
        let far = format!("<= {}", millis(3 * median));
        for (share, name, target) in [(0.5, "median", target), (0.99, "p99", far.as_str())] {
            let (own, peer) = (at(&mut own, share), at(&mut peer, share));
            let what = format!("remote write to {what}, {name} (peer: `ssh` to a pipe)");
            row(&what, &millis(own), &millis(peer), ratio(own, peer), target);
        }
    }
}

/// Processor time for 512 MiB at 100 MiB/s, with lanes and without.
pub(crate) fn crowd() {
    const PACED: &str = "exec perl -MTime::HiRes=time,sleep -e '$b = \"x\" x (1 << 20); sleep 0.5; $t = time; \
        for (1 .. 512) { syswrite STDOUT, $b; $t += 0.01; $d = $t - time; sleep $d if $d > 0 }'";
    let server = server(None);
    let mut client = Pipes::start(&server, &[]);
    let session = client.connect(&server);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        for (lanes, times) in [(0, &mut without), (16, &mut with)] {
            let command = client.exec(&session, PACED);
            for _ in 0..lanes {
                client.call("sub_open", json!({"uri": uri(&command)}));
            }
            let before = client.cpu();
            let wait =
                json!({"uris": [uri(&command)], "until": "end", "timeout_secs": 60, "max_output_bytes": 1});
            client.call("sub_wait", wait);
            times.push(client.cpu() - before);
        }
    }
    let (with, without) = (at(&mut with, 0.5), at(&mut without, 0.5));
    let what = "processor time for 512 MiB at 100 MiB/s, 16 announcing lanes (peer: itself without lanes)";
    row(what, &millis(with), &millis(without), ratio(with, without), "<= 1.25");
}

/// A thousand lanes that have nothing to say.
#[expect(clippy::disallowed_methods, reason = "what happens in a time is what is measured")]
pub(crate) fn quiet() {
    const WATCHED: Duration = Duration::from_secs(10);
    let server = server(Some(128));
    let mut client = Pipes::start(&server, &[("SSH_MAX_COMMANDS_PER_SESSION", "128")]);
    let session = client.connect(&server);
    let commands: Vec<String> = (0..100).map(|_| client.exec(&session, "exec sleep 1000")).collect();
    let pid = client.child.id();
    let watch = |client: &Pipes| {
        sleep(Duration::from_secs(2));
        let (cpu, woken) = (client.cpu(), wakeups(pid));
        sleep(WATCHED);
        (client.cpu() - cpu, wakeups(pid) - woken, status_kib(pid, "VmRSS"))
    };
    let (cpu, woken, size) = watch(&client);
    for command in &commands {
        for _ in 0..10 {
            client.call("sub_open", json!({"uri": uri(command)}));
        }
    }
    let (cpu_with, woken_with, size_with) = watch(&client);
    let what = "processor time in 10 s, 1,000 quiet lanes on 100 resources (peer: itself without lanes)";
    row(what, &millis(cpu_with), &millis(cpu), None, "none measurable");
    let rate = |count: u64| format!("{:.1}", count as f64 / WATCHED.as_secs_f64());
    row("wake-ups a second, the same", &rate(woken_with), &rate(woken), None, "no more");
    let each = size_with.saturating_sub(size) as f64 / 1000.0;
    row("memory per quiet lane", &format!("{each:.1} KiB"), "-", None, "<= 4 KiB");
}

/// Bytes in pieces of 1 KiB over one pipe.
pub(crate) fn rate() {
    const PIECES: u64 = 10 * 1024;
    let server = server(None);
    let mut client = Pipes::start(&server, &[("SSH_INLINE_PUSH_MAX_BYTES_PER_NOTIFY", "1k")]);
    let session = client.connect(&server);
    let kinds = [
        ("text", "yes 'a line of output as programs print it'"),
        ("base64", "yes \"$(printf 'a line of \\377output as programs print it')\""),
    ];
    for (what, lines) in kinds {
        let command = client.exec(&session, &format!("{lines} | head -c {}", PIECES * 1024));
        client.call("sub_wait", json!({"uris": [uri(&command)], "until": "end", "max_output_bytes": 1}));
        let mut rates: Vec<u64> = (0..9).map(|_| deliver(&mut client, &command, PIECES)).collect();
        rates.sort_unstable();
        let shown = format!("{} /s", rates[rates.len() / 2]);
        row(&format!("notifications of 1 KiB, {what}"), &shown, "-", None, ">= 50000 /s");
    }
}

/// Opens a lane on a command that has ended; the answer is how many notifications a second come.
fn deliver(client: &mut Pipes, command: &str, pieces: u64) -> u64 {
    let ask = json!({"uri": uri(command), "inline_push": true});
    client.begin("tools/call", json!({"name": "sub_open", "arguments": ask}));
    let mut begun = None;
    loop {
        client.read();
        let begun = begun.get_or_insert_with(Instant::now);
        // Whatever is as long as that is a piece, and not looked at: this must not be what takes the time.
        let is_short = client.line.len() < 1024;
        if is_short && String::from_utf8_lossy(&client.line).contains(r#""closed":true"#) {
            return (pieces as f64 / begun.elapsed().as_secs_f64()) as u64;
        }
    }
}

/// A client over HTTP that does not read its stream, and one that does.
pub(crate) fn stalled() {
    let server = server(None);
    let product = Http::start(&server);
    let (reader, sleeper) = (product.session(), product.session());
    let connected = product.call(&reader, "ssh_connect", login(&server, &server.addr().to_string()));
    let session = text(&connected["session_id"]);
    let exec = |command: &str| {
        let ask = json!({"session_id": session, "command": command});
        text(&product.call(&reader, "ssh_exec", ask)["command_id"])
    };
    let flood = exec("while :; do head -c 2M /dev/zero; sleep 0.1; done");
    let slow = exec(&stamps(Duration::from_millis(20)));
    let mut events = product.events(&reader);
    let lane = json!({"uri": uri(&slow), "inline_push": true, "debounce_ms": 5, "start": "now"});
    product.call(&reader, "sub_open", lane);
    let mut listen = || {
        let mut found = Vec::new();
        while found.len() < 400 {
            let mut line = String::new();
            assert!(events.read_line(&mut line).unwrap() > 0, "the stream ended");
            let came = SystemTime::now();
            let message =
                line.strip_prefix("data:").and_then(|data| serde_json::from_str::<Value>(data).ok());
            if let Some(message) = message.filter(|message| message["method"] == "notifications/ssh/output") {
                delays(came, message["params"]["text"].as_str().unwrap(), &mut found);
            }
        }
        found
    };
    // By then the history of the fast command is full.
    let mut before = listen();
    let size = status_kib(product.child.id(), "VmRSS");
    for _ in 0..4 {
        let opened = product.call(&sleeper, "sub_open", json!({"uri": uri(&flood), "inline_push": true}));
        assert_eq!(opened["inline_push_honored"], true, "{opened}");
    }
    // Last, because a session whose stream is full is not answered either.
    let _unread = product.events(&sleeper);
    let mut during = listen();
    let grown = status_kib(product.child.id(), "VmRSS").saturating_sub(size);
    let shown = format!("{:.1} MiB", grown as f64 / 1024.0);
    row("growth while a client does not read, HTTP", &shown, "-", None, "<= 8 MiB");
    for (share, name) in [(0.5, "median"), (0.99, "p99")] {
        let (before, during) = (at(&mut before, share), at(&mut during, share));
        let what = format!("remote write to bytes at another client, {name} (peer: before)");
        row(&what, &millis(during), &millis(before), ratio(during, before), "within noise");
    }
}

/// The product over HTTP.
struct Http {
    child: Child,
    address: String,
    _home: tempfile::TempDir,
}

impl Http {
    fn start(server: &OpenSshd) -> Self {
        let home = home(server);
        let mut child = Command::new(binary("ssh-mcp"))
            .args(["--bind", "127.0.0.1:0"])
            .env_clear()
            .env("HOME", home.path())
            .env("RUST_LOG", "info,ssh_mcp::audit=off")
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains(" listening ") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the server ended");
        }
        let address = line.split("addr=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        Self { child, address, _home: home }
    }

    /// Sends a request whose connection is for it alone.
    fn open(&self, method: &str, session: Option<&str>, body: &str) -> BufReader<TcpStream> {
        let session = session.map(|id| format!("mcp-session-id: {id}\r\n")).unwrap_or_default();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "{method} /mcp HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{session}mcp-protocol-version: {REVISION}\r\n\
             content-type: application/json\r\naccept: application/json, text/event-stream\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        BufReader::new(stream)
    }

    /// A request and the whole of its answer.
    fn post(&self, session: Option<&str>, message: &Value) -> String {
        let mut answer = String::new();
        self.open("POST", session, &message.to_string()).read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
        answer
    }

    fn session(&self) -> String {
        let answer =
            self.post(None, &json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello()}));
        let id =
            answer.split("mcp-session-id: ").nth(1).and_then(|rest| rest.lines().next()).unwrap().to_owned();
        self.post(Some(&id), &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        id
    }

    fn call(&self, session: &str, tool: &str, arguments: Value) -> Value {
        let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call",
            "params": {"name": tool, "arguments": arguments}});
        let answer = self.post(Some(session), &call);
        let found = answer.lines().find_map(|line| {
            let line = line.strip_prefix("data:").unwrap_or(line);
            serde_json::from_str::<Value>(line).ok().filter(|message| message["id"] == 2)
        });
        let found = found.unwrap_or_else(|| panic!("{tool}: {answer}"));
        assert!(found["result"]["isError"] != true && found.get("error").is_none(), "{tool}: {found}");
        found["result"]["structuredContent"].clone()
    }

    /// The stream of a session's notifications.
    fn events(&self, session: &str) -> BufReader<TcpStream> {
        self.open("GET", Some(session), "")
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
