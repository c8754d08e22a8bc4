//! What the product costs, as ratios against OpenSSH's own client in the same run: `scripts/bench`.
//!
//! Everything runs on loopback against a real sshd of its own, as an ordinary user whose login files cost nothing. The
//! machine's speed drifts, so product and peer take turns and medians are compared. Nothing here fails on a figure.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a program that measures stops at the first surprise"
)]

#[expect(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../it/client.rs"]
mod client;
mod config;
mod files;
mod forward;
mod mirror;
mod push;
mod serial;
#[expect(dead_code, unused_imports, reason = "shared with the tests, which use all of it")]
#[path = "../sshd/mod.rs"]
mod sshd;
mod tail;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use client::{Era, McpClient};
use serde_json::{Value, json};
use sshd::{ClientKey, OpenSshd, Options, Proxy, User};

const MIB: u64 = 1 << 20;

/// A binary of the release build; `scripts/bench` says where that is.
fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("SSH_MCP_BIN_DIR").expect("start this by scripts/bench");
    Path::new(&folder).join(name)
}

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let run = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str()));
    println!("| What | ssh-mcp | OpenSSH | ratio | target |\n| --- | --- | --- | --- | --- |");
    runtime.block_on(async {
        if run("command") {
            commands().await;
        }
        if run("parallel") {
            parallel().await;
        }
        if run("start") {
            start().await;
        }
        if run("output") {
            output(Duration::ZERO, "100 MiB of output", "<= 1.3").await;
        }
        if run("distance") {
            output(Duration::from_millis(25), "100 MiB of output at 50 ms round trip", "<= 0.5").await;
        }
        if run("memory") {
            memory().await;
        }
        if run("http") {
            http();
        }
        if run("jump") {
            jump().await;
        }
        if run("config") {
            config::resolve();
            config::judge();
        }
        files::measure(&run).await;
        mirror::measure(&run).await;
        forward::measure(&run).await;
        let lanes: [(&str, fn()); 5] = [
            ("push delay", push::delay),
            ("push crowd", push::crowd),
            ("push quiet", push::quiet),
            ("push rate", push::rate),
            ("push stalled", push::stalled),
        ];
        lanes.iter().filter(|(name, _)| run(name)).for_each(|(_, measure)| measure());
        let lines: [(&str, fn()); 2] = [("serial delay", serial::delay), ("serial flood", serial::flood)];
        lines.iter().filter(|(name, _)| run(name)).for_each(|(_, measure)| measure());
        tail::measure(&run);
    });
}

fn row(what: &str, own: &str, peer: &str, ratio: Option<f64>, target: &str) {
    let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    println!("| {what} | {own} | {peer} | {ratio} | {target} |");
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn at(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    let place = (times.len() as f64 * share) as usize;
    times.get(place.min(times.len() - 1)).copied().unwrap_or_default()
}

fn ratio(own: Duration, peer: Duration) -> Option<f64> {
    Some(own.as_secs_f64() / peer.as_secs_f64())
}

fn server(max_sessions: Option<u32>) -> OpenSshd {
    let options = Options { max_sessions, ..Options::default() };
    OpenSshd::start_or_skip(options).expect("benchmarks need a real sshd and root")
}

async fn stdio(server: &OpenSshd) -> McpClient {
    stdio_saying(server, "error").await
}

/// The product, with this much in its log.
async fn stdio_saying(server: &OpenSshd, level: &str) -> McpClient {
    let client =
        McpClient::spawn(Era::LEGACY_2025_11, &binary("ssh-mcp-stdio"), &[], &[("RUST_LOG", level)]).await;
    fs::create_dir_all(client.home().join(".ssh")).unwrap();
    fs::write(client.home().join(".ssh/known_hosts"), server.known_hosts()).unwrap();
    client
}

fn login(server: &OpenSshd, address: &str) -> Value {
    json!({"address": address, "username": User::Tester.name(),
        "key_path": server.client_key(ClientKey::Ed25519).to_str().unwrap(), "reuse": "force_new"})
}

async fn connect(client: &McpClient, server: &OpenSshd, address: &str) -> String {
    let answer = client.call("ssh_connect", login(server, address)).await;
    assert!(!answer.is_error, "{}", answer.text);
    answer.structured["session_id"].as_str().unwrap().to_owned()
}

fn timed(mut command: Command) -> Duration {
    let begun = Instant::now();
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success());
    begun.elapsed()
}

/// OpenSSH's client through a master connection of its own.
struct Master {
    socket: tempfile::TempDir,
}

impl Master {
    fn start(server: &OpenSshd) -> Self {
        let master = Self { socket: tempfile::tempdir().unwrap() };
        let mut command = server.client(User::Tester, ClientKey::Ed25519);
        command.args(["-M", "-S"]).arg(master.path()).args(["-o", "ControlPersist=yes", "true"]);
        timed(command);
        master
    }

    fn path(&self) -> PathBuf {
        self.socket.path().join("s")
    }

    fn client(&self, server: &OpenSshd, command: &str) -> Command {
        let mut client = server.client(User::Tester, ClientKey::Ed25519);
        client.arg("-S").arg(self.path()).arg(command);
        client
    }

    fn stop(&self, server: &OpenSshd) {
        let mut command = server.client(User::Tester, ClientKey::Ed25519);
        command.arg("-S").arg(self.path()).args(["-O", "exit"]);
        timed(command);
    }
}

async fn commands() {
    let server = server(None);
    let client = stdio(&server).await;
    let session = connect(&client, &server, &server.addr().to_string()).await;
    let master = Master::start(&server);
    let call = json!({"session_id": session, "command": "true", "wait": true});
    let (mut own, mut peer) = (Vec::new(), Vec::new());
    for round in 0..220 {
        let begun = Instant::now();
        let answer = client.call("ssh_exec", call.clone()).await;
        let took = begun.elapsed();
        assert_eq!(answer.structured["exit_code"], 0, "{}", answer.text);
        let other = timed(master.client(&server, "true"));
        // The first rounds warm both sides up.
        if round >= 20 {
            own.push(took);
            peer.push(other);
        }
    }
    for (share, name, target) in [(0.5, "median", "<= 0.4"), (0.95, "p95", "<= 0.6")] {
        let (own, peer) = (at(&mut own, share), at(&mut peer, share));
        let what = format!("`true` on an open session, {name} (peer: ControlMaster)");
        row(&what, &millis(own), &millis(peer), ratio(own, peer), target);
    }
    master.stop(&server);
}

async fn many(client: &McpClient, session: &str, command: &str) -> Duration {
    let begun = Instant::now();
    let call =
        json!({"name": "ssh_exec", "arguments": {"session_id": session, "command": command, "wait": true}});
    let mut pending = Vec::new();
    for _ in 0..20 {
        pending.push(client.begin("tools/call", call.clone()).await);
    }
    for call in pending {
        let answer = call.result().await.unwrap();
        assert_eq!(answer["structuredContent"]["exit_code"], 0, "{answer}");
    }
    begun.elapsed()
}

async fn parallel() {
    let wide = server(Some(64));
    let client = stdio(&wide).await;
    let session = connect(&client, &wide, &wide.addr().to_string()).await;
    let master = Master::start(&wide);
    let (mut own, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..15 {
        own.push(many(&client, &session, "true").await);
        let begun = Instant::now();
        let mut children: Vec<_> = (0..20)
            .map(|_| {
                master.client(&wide, "true").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            })
            .collect();
        assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
        peer.push(begun.elapsed());
    }
    let (own, peer) = (at(&mut own, 0.5), at(&mut peer, 0.5));
    row("20 × `true` at once, MaxSessions 64", &millis(own), &millis(peer), ratio(own, peer), "<= 1.0");
    master.stop(&wide);

    let stock = server(None);
    let client = stdio(&stock).await;
    let session = connect(&client, &stock, &stock.addr().to_string()).await;
    let took = many(&client, &session, "sleep 1").await;
    row("20 × `sleep 1` at once, stock MaxSessions 10", &millis(took), "-", None, "<= 1600 ms");
}

async fn start() {
    let server = server(None);
    let (mut greeted, mut own, mut peer) = (Vec::new(), Vec::new(), Vec::new());
    let mut call = login(&server, &server.addr().to_string());
    call["command"] = "true".into();
    for round in 0..23 {
        let begun = Instant::now();
        let client = stdio(&server).await;
        let hello = begun.elapsed();
        let answer = client.call("ssh_run", call.clone()).await;
        let took = begun.elapsed();
        assert_eq!(answer.structured["exit_code"], 0, "{}", answer.text);
        drop(client);
        let mut ssh = server.client(User::Tester, ClientKey::Ed25519);
        ssh.arg("true");
        let other = timed(ssh);
        if round >= 3 {
            greeted.push(hello);
            own.push(took);
            peer.push(other);
        }
    }
    let (own, peer) = (at(&mut own, 0.5), at(&mut peer, 0.5));
    row("fresh process, connect and `true`", &millis(own), &millis(peer), ratio(own, peer), "<= 0.55");
    row("start to `initialize` answered", &millis(at(&mut greeted, 0.5)), "-", None, "<= 5 ms");
}

/// Three hosts to jump over: a connection to the fourth, and `true` there.
async fn jump() {
    let servers = [(); 4].map(|()| server(None));
    let [.., last] = &servers;
    let folder = tempfile::tempdir().unwrap();
    let known = folder.path().join("known_hosts");
    fs::write(&known, servers.iter().map(OpenSshd::known_hosts).collect::<String>()).unwrap();
    let mut text = String::new();
    for (server, name) in servers.iter().zip(["one", "two", "three", "last"]) {
        let key = server.client_key(ClientKey::Ed25519);
        text += &format!(
            "Host {name}\n HostName 127.0.0.1\n Port {}\n User tester\n IdentityFile {}\n",
            server.port(),
            key.display()
        );
    }
    text += &format!(
        "Host last\n ProxyJump one,two,three\nHost *\n IdentitiesOnly yes\n UserKnownHostsFile {}\n",
        known.display()
    );
    let config = folder.path().join("config");
    fs::write(&config, text).unwrap();

    let client = stdio(last).await;
    let call = json!({"target": "last", "command": "true", "ssh_config_file": config.to_str().unwrap()});
    let (mut own, mut peer) = (Vec::new(), Vec::new());
    for round in 0..23 {
        let begun = Instant::now();
        let answer = client.call("ssh_run", call.clone()).await;
        let took = begun.elapsed();
        assert_eq!(answer.structured["exit_code"], 0, "{}", answer.text);
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(&config).args(["-o", "BatchMode=yes", "last", "true"]).stdin(Stdio::null());
        let other = timed(ssh);
        if round >= 3 {
            own.push(took);
            peer.push(other);
        }
    }
    let (own, peer) = (at(&mut own, 0.5), at(&mut peer, 0.5));
    let what = "connect over three hosts and `true` (peer: `ssh -J`)";
    row(what, &millis(own), &millis(peer), ratio(own, peer), "<= 1");
}

async fn output(delay: Duration, what: &str, target: &str) {
    let server = server(None);
    let proxy = Proxy::start(server.addr(), delay);
    let address = match delay.is_zero() {
        true => server.addr(),
        false => proxy.addr(),
    };
    let client = stdio(&server).await;
    // Known by the server's own address only; the proxy's is learnt.
    let session = connect(&client, &server, &address.to_string()).await;
    let command = format!("head -c {} /dev/zero", 100 * MIB);
    let (mut own, mut peer) = (Vec::new(), Vec::new());
    let mut peak = 0;
    for round in 0..5 {
        let begun = Instant::now();
        let call = json!({"session_id": session, "command": command, "wait": true, "wait_timeout_secs": 120});
        let answer = client.call("ssh_exec", call).await;
        own.push(begun.elapsed());
        // Of one command: the histories of the others stay, as they should, and add up.
        if round == 0 {
            peak = status_kib(client.pid(), "VmHWM");
        }
        assert_eq!(answer.structured["exit_code"], 0, "{}", answer.text.get(..300).unwrap_or_default());
        let mut ssh = server.client(User::Tester, ClientKey::Ed25519);
        // The first value of a keyword counts: the port given here comes after the fixture's, so it is replaced.
        if !delay.is_zero() {
            ssh = through(&server, address.port());
        }
        ssh.arg(&command);
        peer.push(timed(ssh));
    }
    let (own, peer) = (at(&mut own, 0.5), at(&mut peer, 0.5));
    row(what, &millis(own), &millis(peer), ratio(own, peer), target);
    if delay.is_zero() {
        row(
            "highest memory while one command prints that",
            &format!("{:.1} MiB", peak as f64 / 1024.0),
            "-",
            None,
            "<= 48 MiB",
        );
    }
}

/// OpenSSH's client through the proxy's port; the host key is the same, so it is known under an alias.
fn through(server: &OpenSshd, port: u16) -> Command {
    let direct = server.client(User::Tester, ClientKey::Ed25519);
    let mut command = Command::new("ssh");
    command.args(["-o", &format!("HostKeyAlias=[127.0.0.1]:{}", server.port()), "-p", &port.to_string()]);
    command.args(direct.get_args());
    command.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null());
    command
}

fn status_kib(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Voluntary context switches of all threads: how often the process woke up.
fn wakeups(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let count = |path: &Path| -> u64 {
        let status = fs::read_to_string(path.join("status")).unwrap_or_default();
        let line =
            status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|count| count.parse().ok()).unwrap_or_default()
    };
    tasks.map(|task| count(&task.unwrap().path())).sum()
}

async fn memory() {
    let server = server(None);
    let client = stdio(&server).await;
    client.request("tools/list", json!({})).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = status_kib(client.pid(), "VmRSS");
    row("idle memory, stdio", &format!("{:.1} MiB", idle as f64 / 1024.0), "-", None, "<= 8 MiB");
    let before = wakeups(client.pid());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let rate = (wakeups(client.pid()) - before) as f64 / 10.0;
    row("wake-ups a second, idle", &format!("{rate:.1}"), "-", None, "<= 10");

    connect(&client, &server, &server.addr().to_string()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let one = status_kib(client.pid(), "VmRSS");
    for _ in 0..20 {
        connect(&client, &server, &server.addr().to_string()).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let each = (status_kib(client.pid(), "VmRSS").saturating_sub(one)) as f64 / 20.0;
    row("per further idle session", &format!("{each:.0} KiB"), "-", None, "<= 120 KiB");
    for (name, target) in [("ssh-mcp-stdio", "<= 8 MiB"), ("ssh-mcp", "<= 10 MiB")] {
        let size = fs::metadata(binary(name)).unwrap().len() as f64 / MIB as f64;
        row(&format!("size of `{name}`"), &format!("{size:.1} MiB"), "-", None, target);
    }
}

fn http() {
    let state = tempfile::tempdir().unwrap();
    let mut server = Command::new(binary("ssh-mcp"))
        .args(["--bind", "127.0.0.1:0"])
        .env_clear()
        .env("HOME", state.path())
        .env("RUST_LOG", "info,ssh_mcp::audit=off")
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(server.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the server ended");
    }
    let address = line.split("addr=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_nodelay(true).unwrap();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "ssh_resources", "arguments": {}}})
    .to_string();
    let request = format!(
        "POST /mcp HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut times = Vec::new();
    for round in 0..2_200 {
        let begun = Instant::now();
        stream.write_all(request.as_bytes()).unwrap();
        read_response(&mut reader);
        if round >= 200 {
            times.push(begun.elapsed());
        }
    }
    let median = at(&mut times, 0.5);
    let shown = format!("{} µs", median.as_micros());
    row("HTTP: `ssh_resources`, nothing live, kept connection", &shown, "-", None, "<= 150 µs");
    let idle = status_kib(server.id(), "VmRSS");
    row(
        "memory after 2,200 calls, HTTP",
        &format!("{:.1} MiB", idle as f64 / 1024.0),
        "-",
        None,
        "<= 10 MiB idle",
    );
    server.kill().unwrap();
    server.wait().unwrap();
}

/// Reads one response with a length or in chunks.
fn read_response(reader: &mut impl BufRead) {
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the server hung up");
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        assert!(!line.starts_with("http/1.1 4"), "{line}");
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        chunked |= line == "transfer-encoding: chunked";
    }
    loop {
        if chunked {
            let mut size = String::new();
            reader.read_line(&mut size).unwrap();
            length = usize::from_str_radix(size.trim(), 16).unwrap() + 2;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        if !chunked || length == 2 {
            return;
        }
    }
}
