//! Forwards through the product and a real sshd: HTTP and SOCKS by curl, echoes by the hundred, pauses, refusals, ends.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;

use super::*;

const LIMIT: Duration = Duration::from_secs(60);

/// A service of this machine, which the server reaches as its own; it ends with the value.
struct Service {
    addr: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Service {
    /// Serves each connection by `serve`.
    async fn start<S, F>(at: &str, serve: S) -> Self
    where
        S: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(at).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                served.spawn(serve(socket));
            }
        });
        Self { addr, _tasks: tasks }
    }

    /// Gives back what it gets, and its end.
    async fn echo() -> Self {
        Self::start("127.0.0.1:0", async |mut socket: TcpStream| {
            let (mut reader, mut writer) = socket.split();
            if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
                writer.shutdown().await.ok();
            }
        })
        .await
    }

    /// Answers a request over HTTP with this text.
    async fn http(at: &str, text: &'static str) -> Self {
        Self::start(at, move |mut socket: TcpStream| async move {
            let mut request = Vec::new();
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                let mut bytes = [0; 1024];
                match socket.read(&mut bytes).await {
                    Ok(size) if size > 0 => request.extend_from_slice(&bytes[..size]),
                    _ => return,
                }
            }
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
            socket.write_all(format!("{head}{text}").as_bytes()).await.ok();
        })
        .await
    }

    /// Sends so many bytes, of which each says where it stands, as soon as one byte comes.
    async fn source(size: usize) -> Self {
        Self::start("127.0.0.1:0", move |mut socket: TcpStream| async move {
            if socket.read_u8().await.is_ok() {
                for at in (0..size).step_by(PIECE) {
                    if socket.write_all(&piece(at)).await.is_err() {
                        return;
                    }
                }
                socket.shutdown().await.ok();
            }
        })
        .await
    }

    fn port(&self) -> u16 {
        self.addr.port()
    }
}

const PIECE: usize = 64 << 10;

fn piece(at: usize) -> Vec<u8> {
    (at..at + PIECE).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

impl Stage {
    async fn forward(&self, mut arguments: Value) -> ToolAnswer {
        arguments["session_id"] = self.session.as_str().into();
        self.client.call("ssh_forward", arguments).await
    }

    /// A forward to a service; it is open.
    async fn forward_to(&self, service: &Service) -> ToolAnswer {
        let ask = json!({"local_port": 0, "remote_address": "127.0.0.1", "remote_port": service.port()});
        let answer = self.forward(ask).await;
        assert!(!answer.is_error, "{}", answer.text);
        answer
    }

    async fn events(&self, forward: &ToolAnswer) -> Value {
        let contents = self.client.read_resource(&uri(forward)).await.unwrap();
        serde_json::from_str(contents[0]["text"].as_str().unwrap()).unwrap()
    }

    /// Waits until the body of a forward is as wanted.
    async fn when(&self, forward: &ToolAnswer, is_wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let body = self.events(forward).await;
            if is_wanted(&body) {
                return body;
            }
            let next = format!("{}?cursor={}", uri(forward), body["last_seq"]);
            let wait = json!({"uris": [next], "timeout_secs": 60});
            let waited = self.client.call("sub_wait", wait).await;
            assert!(waited.structured["status"] != "timeout", "{body:#}");
        }
    }

    async fn close(&self, forward: &ToolAnswer, force: bool) -> ToolAnswer {
        let ask = json!({"forward_id": field(forward, "forward_id"), "force": force});
        self.client.call("ssh_forward_close", ask).await
    }
}

fn uri(forward: &ToolAnswer) -> String {
    format!("forward://{}/events", field(forward, "forward_id"))
}

fn port(forward: &ToolAnswer) -> u16 {
    forward.structured["local_port"].as_u64().unwrap_or_else(|| panic!("{}", forward.text)) as u16
}

async fn connect(forward: &ToolAnswer) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port(forward))).await.unwrap()
}

async fn curl(arguments: &[&str]) -> (i32, String) {
    let ran = Command::new("curl").args(["-sS", "--max-time", "30"]).args(arguments).output().await.unwrap();
    let said = if ran.status.success() { ran.stdout } else { ran.stderr };
    (ran.status.code().unwrap(), String::from_utf8(said).unwrap())
}

fn code(answer: &ToolAnswer) -> &str {
    answer.structured["code"].as_str().unwrap_or_else(|| panic!("{}", answer.text))
}

fn errors(body: &Value) -> Vec<&Value> {
    let events = body["events"].as_array().unwrap();
    events.iter().filter(|event| event["kind"] == "error").map(|event| &event["detail"]).collect()
}

async fn stage(extra: &[&str], env: &[(&str, &str)]) -> Option<Stage> {
    let options =
        Options { extra: extra.iter().map(|line| (*line).to_owned()).collect(), ..Options::default() };
    Stage::set_in(Era::LEGACY_2025_11, options, User::Tester, env).await
}

#[tokio::test]
async fn a_web_page_behind_the_server_is_fetched_and_told_of() {
    let Some(stage) = stage(&[], &[]).await else { return };
    let web = Service::http("127.0.0.1:0", "behind the server").await;
    let forward = stage.forward_to(&web).await;
    let subscribed = stage.client.call("sub_open", json!({"uri": uri(&forward)})).await;
    assert!(!subscribed.is_error, "{}", subscribed.text);
    let (status, page) = curl(&[&format!("http://127.0.0.1:{}/", port(&forward))]).await;
    assert_eq!((status, page.as_str()), (0, "behind the server"));
    let told = |note: &Value| {
        note["method"] == "notifications/resources/updated" && note["params"]["uri"] == uri(&forward)
    };
    stage.client.notification(told).await;
    let body = stage.when(&forward, |body| body["closed"] == 1).await;
    let kinds: Vec<&str> =
        body["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["accepted", "connected", "closed"]);
    assert!(body["bytes_from_remote"].as_u64().unwrap() > 17 && body["open_connections"] == 0);

    // A target that is not there: that connection only.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let ask = json!({"local_port": 0, "remote_address": "127.0.0.1", "remote_port": nobody});
    let refused = stage.forward(ask).await;
    assert_eq!(connect(&refused).await.read(&mut [0; 1]).await.unwrap_or(0), 0);
    let body = stage.when(&refused, |body| body["failed"] == 1).await;
    assert_eq!((&errors(&body)[0]["code"], &body["active"]), (&json!("target_unreachable"), &json!(true)));
    assert!(errors(&body)[0]["message"].as_str().unwrap().contains("refused"), "{body:#}");
}

/// Sends random bytes and reads them back at the same time; whether both have one hash.
async fn echoes(socket: TcpStream, seed: u64, size: usize) -> bool {
    let (mut reader, mut writer) = socket.into_split();
    let sending = async move {
        let (mut state, mut hash) = (seed | 1, DefaultHasher::new());
        let mut left = size;
        while left > 0 {
            let chunk: Vec<u8> = (0..left.min(7919))
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state as u8
                })
                .collect();
            hash.write(&chunk);
            writer.write_all(&chunk).await.unwrap();
            left -= chunk.len();
        }
        writer.shutdown().await.unwrap();
        hash.finish()
    };
    let reading = async move {
        let mut hash = DefaultHasher::new();
        let (mut bytes, mut all, mut held) = (vec![0; 7919], 0, Vec::new());
        loop {
            let read = reader.read(&mut bytes).await.unwrap();
            held.extend_from_slice(&bytes[..read]);
            all += read;
            // As it was sent: a hash depends on where it is fed.
            while held.len() >= 7919 || read == 0 && !held.is_empty() {
                let chunk: Vec<u8> = held.drain(..held.len().min(7919)).collect();
                hash.write(&chunk);
            }
            if read == 0 {
                return (hash.finish(), all);
            }
        }
    };
    let (sent, (read, all)) = tokio::join!(sending, reading);
    (sent, size) == (read, all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_connections_at_once_keep_their_bytes() {
    let Some(stage) = stage(&[], &[]).await else { return };
    let echo = Service::echo().await;
    let forward = stage.forward_to(&echo).await;
    let mut tasks = JoinSet::new();
    for seed in 0..100_u64 {
        let socket = connect(&forward).await;
        tasks.spawn(echoes(socket, seed * 7 + 3, 200_000 + seed as usize * 1000));
    }
    assert!(tasks.join_all().await.into_iter().all(|whole| whole));
    let body = stage.when(&forward, |body| body["closed"] == 100).await;
    let bytes: u64 = (0..100).map(|n| 200_000 + n * 1000).sum();
    assert_eq!((&body["bytes_to_remote"], &body["bytes_from_remote"]), (&json!(bytes), &json!(bytes)));
    assert_eq!((&body["accepted"], &body["failed"]), (&json!(100), &json!(0)));
}

#[tokio::test]
async fn the_end_of_one_direction_leaves_the_other_open() {
    let Some(stage) = stage(&[], &[]).await else { return };
    let counter = Service::start("127.0.0.1:0", async |mut socket: TcpStream| {
        let mut all = Vec::new();
        socket.read_to_end(&mut all).await.unwrap();
        socket.write_all(format!("{} bytes", all.len()).as_bytes()).await.unwrap();
    })
    .await;
    let forward = stage.forward_to(&counter).await;
    let mut socket = connect(&forward).await;
    socket.write_all(&[7; 100_000]).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "100000 bytes");
    let body = stage.when(&forward, |body| body["closed"] == 1).await;
    assert_eq!(body["events"][2]["detail"]["reason"], "finished");
}

#[tokio::test]
async fn socks_goes_where_each_client_says() {
    let Some(stage) = stage(&[], &[]).await else { return };
    let web = Service::http("127.0.0.1:0", "by socks").await;
    let answer = stage.forward(json!({"local_port": 0, "direction": "dynamic"})).await;
    let proxy = format!("127.0.0.1:{}", port(&answer));
    let four = format!("http://127.0.0.1:{}/", web.port());
    let named = format!("http://localhost:{}/", web.port());
    for (how, url) in
        [("--socks5-hostname", &named), ("--socks5", &four), ("--socks4", &four), ("--socks4a", &named)]
    {
        assert_eq!(curl(&[how, &proxy, url]).await, (0, "by socks".to_owned()), "{how} {url}");
    }
    if TcpListener::bind("[::1]:0").await.is_ok() {
        let six = Service::http("[::1]:0", "by six").await;
        let url = format!("http://[::1]:{}/", six.port());
        assert_eq!(curl(&["--socks5", &proxy, &url]).await, (0, "by six".to_owned()));
    }
    // The name is looked up by the server, and what cannot be reached is told to the client.
    let (status, said) = curl(&["--socks5-hostname", &proxy, "http://nowhere.invalid/"]).await;
    assert_eq!(status, 97, "{said}");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (status, said) = curl(&["--socks5-hostname", &proxy, &format!("http://127.0.0.1:{nobody}/")]).await;
    assert!(status == 97 && said.contains("(5)"), "{status} {said}");
    let body = stage.when(&answer, |body| body["failed"] == 2).await;
    let connected = body["events"].as_array().unwrap().iter().find(|event| event["kind"] == "connected");
    assert_eq!(connected.unwrap()["detail"]["target"], format!("localhost:{}", web.port()));
    assert_eq!(errors(&body)[0]["target"], "nowhere.invalid:80");
}

#[tokio::test]
async fn a_remote_forward_is_used_from_the_servers_side() {
    let Some(stage) = stage(&[], &[]).await else { return };
    let web = Service::http("127.0.0.1:0", "from here").await;
    let ask = json!({"direction": "remote", "local_port": web.port(), "remote_port": 0});
    let forward = stage.forward(ask).await;
    assert!(!forward.is_error, "{}", forward.text);
    let far = forward.structured["remote_port"].as_u64().unwrap();
    assert!(far > 0 && field(&forward, "remote") == format!("127.0.0.1:{far}"), "{}", forward.text);
    let ran = stage.run(&format!("curl -sS --max-time 30 http://127.0.0.1:{far}/")).await;
    assert_eq!(ran.structured["stdout"], "from here", "{}", ran.text);
    let body = stage.when(&forward, |body| body["closed"] == 1).await;
    assert!(body["events"][0]["detail"]["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{body:#}");
    // Closed, the server listens no more.
    let closed = stage.close(&forward, false).await;
    assert_eq!(closed.structured["status"], "closed", "{}", closed.text);
    let ran = stage.run(&format!("curl -sS --max-time 30 http://127.0.0.1:{far}/; echo $?")).await;
    assert_eq!(ran.structured["stdout"], "7\n", "{}", ran.text);
}

#[tokio::test]
async fn what_the_server_forbids_is_said_with_a_hint() {
    let Some(stage) = stage(&["AllowTcpForwarding no"], &[]).await else { return };
    let refused = stage.forward(json!({"direction": "remote", "local_port": 9, "remote_port": 0})).await;
    assert_eq!(code(&refused), "FORWARD_FAILED", "{}", refused.text);
    assert!(refused.text.contains("AllowTcpForwarding") && refused.text.contains("GatewayPorts"));
    let web = Service::http("127.0.0.1:0", "not to be had").await;
    let forward = stage.forward_to(&web).await;
    assert_eq!(connect(&forward).await.read(&mut [0; 1]).await.unwrap_or(0), 0);
    let body = stage.when(&forward, |body| body["failed"] == 1).await;
    assert_eq!(errors(&body)[0]["code"], "target_unreachable");
    let dynamic = stage.forward(json!({"local_port": 0, "direction": "dynamic"})).await;
    let proxy = format!("127.0.0.1:{}", port(&dynamic));
    let (status, said) = curl(&["--socks5", &proxy, &format!("http://127.0.0.1:{}/", web.port())]).await;
    assert!(status == 97 && said.contains("(2)"), "{status} {said}");
}

#[tokio::test]
async fn ports_limits_and_listeners_that_others_reach() {
    let env = [("SSH_MAX_FORWARDS_PER_SESSION", "2"), ("SSH_MAX_FORWARD_CONNECTIONS", "2")];
    let Some(stage) = stage(&[], &env).await else { return };
    let echo = Service::echo().await;
    let taken =
        stage.forward(json!({"local_port": echo.port(), "remote_address": "127.0.0.1", "remote_port": 9}));
    let taken = taken.await;
    assert_eq!(code(&taken), "PORT_IN_USE", "{}", taken.text);
    let exposed = json!({"local_port": 0, "remote_address": "127.0.0.1", "remote_port": echo.port(),
        "bind_address": "0.0.0.0"});
    let exposed = stage.forward(exposed).await;
    assert!(exposed.text.contains("WARN: EXPOSED_LISTENER"), "{}", exposed.text);
    let forward = stage.forward_to(&echo).await;
    assert!(!forward.text.contains("WARN:"), "{}", forward.text);
    let many = stage.forward(json!({"local_port": 0, "direction": "dynamic"})).await;
    assert_eq!(code(&many), "MAX_FORWARDS_EXCEEDED", "{}", many.text);

    // The third connection is let in when one leaves.
    let mut first = connect(&forward).await;
    let _second = connect(&forward).await;
    stage.when(&forward, |body| body["open_connections"] == 2).await;
    let third = connect(&forward).await;
    first.write_all(b"x").await.unwrap();
    first.read_exact(&mut [0; 1]).await.unwrap();
    assert_eq!(stage.events(&forward).await["accepted"], 2);
    drop(first);
    assert!(echoes(third, 5, 50_000).await);
    assert_eq!(stage.events(&forward).await["accepted"], 3);
}

/// Reads to the end; how many bytes, and whether each stands where it should.
async fn read_all(socket: &mut TcpStream) -> (usize, bool) {
    let (mut all, mut whole, mut bytes) = (0, true, vec![0; PIECE]);
    loop {
        let mut filled = 0;
        while filled < PIECE {
            match socket.read(&mut bytes[filled..]).await.unwrap() {
                0 => break,
                read => filled += read,
            }
        }
        whole &= bytes[..filled] == piece(all)[..filled];
        all += filled;
        if filled < PIECE {
            return (all, whole);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_pauses_loses_nothing_and_holds_no_shell_up() {
    let Some(stage) = stage(&[], &[]).await else { return };
    let size = 96 << 20;
    let source = Service::source(size).await;
    let forward = stage.forward_to(&source).await;
    let mut paused = connect(&forward).await;
    paused.write_all(b"x").await.unwrap();
    stage.when(&forward, |body| body["bytes_to_remote"] == 1).await;
    // What moves, moves until everything on the way is full.
    let mut before = 1;
    loop {
        let ran = stage.run("sleep 0.5; echo free").await;
        assert_eq!(ran.structured["stdout"], "free\n", "{}", ran.text);
        let now = stage.events(&forward).await["bytes_from_remote"].as_u64().unwrap();
        if now == before {
            break;
        }
        before = now;
    }
    assert!(before < size as u64, "it pauses");
    assert_eq!(read_all(&mut paused).await, (size, true));
    stage.when(&forward, |body| body["bytes_from_remote"] == size).await;
}

/// What lets a client send on stands behind what comes for it: to be read, though the client itself does not read yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sends_everything_before_it_reads_is_not_stuck() {
    const DOWN: usize = 8 << 20;
    const UP: usize = 32 << 20;
    let Some(stage) = stage(&[], &[]).await else { return };
    // Both directions at once, and neither for the other's sake.
    let service = Service::start("127.0.0.1:0", |mut socket: TcpStream| async move {
        let (mut reader, mut writer) = socket.split();
        let mut taken = Vec::new();
        let send = async {
            for at in (0..DOWN).step_by(PIECE) {
                writer.write_all(&piece(at)).await?;
            }
            Ok(())
        };
        if tokio::try_join!(send, reader.read_to_end(&mut taken)).is_ok() && taken.len() == UP {
            writer.write_all(b"all").await.ok();
            writer.shutdown().await.ok();
        }
    })
    .await;
    let forward = stage.forward_to(&service).await;
    let talk = async {
        let mut socket = connect(&forward).await;
        socket.write_all(&vec![7; UP]).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut got = Vec::new();
        socket.read_to_end(&mut got).await.unwrap();
        got
    };
    let got = tokio::time::timeout(LIMIT, talk).await.expect("nobody waits for himself");
    assert_eq!((got.len(), &got[DOWN..]), (DOWN + 3, &b"all"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_holds_others_up_is_reset() {
    let Some(stage) = stage(&[], &[]).await else { return };
    let source = Service::source(256 << 20).await;
    let forward = stage.forward_to(&source).await;
    let mut slow = connect(&forward).await;
    slow.write_all(b"x").await.unwrap();
    let mut other = connect(&forward).await;
    let body = stage.when(&forward, |body| body["failed"] == 1).await;
    assert_eq!(errors(&body)[0]["code"], "slow_consumer");
    let mut rest = Vec::new();
    let end = tokio::time::timeout(LIMIT, slow.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    // The other one gets everything that it is owed.
    other.write_all(b"x").await.unwrap();
    let mut bytes = vec![0; PIECE];
    for n in 0..64 {
        other.read_exact(&mut bytes).await.unwrap();
        assert!(bytes == piece(n * PIECE), "piece {n}");
    }
}

#[tokio::test]
async fn a_killed_session_ends_its_forwards() {
    let Some(stage) = stage(&[], &[]).await else { return };
    let echo = Service::echo().await;
    let forward = stage.forward_to(&echo).await;
    let mut socket = connect(&forward).await;
    socket.write_all(b"x").await.unwrap();
    socket.read_exact(&mut [0; 1]).await.unwrap();
    stage.server.kill_connections();
    let body = stage.when(&forward, |body| body["active"] == false).await;
    let last = body["events"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["kind"], &last["detail"]["reason"]), (&json!("stopped"), &json!("connection_lost")));
    assert!(tokio::time::timeout(LIMIT, socket.read(&mut [0; 1])).await.unwrap().is_err(), "it is reset");
    assert!(TcpStream::connect(("127.0.0.1", port(&forward))).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn a_forward_is_closed_patiently_or_by_force() {
    let Some(stage) = stage(&[], &[]).await else { return };
    let echo = Service::echo().await;
    let forward = stage.forward_to(&echo).await;
    let mut open = connect(&forward).await;
    open.write_all(b"x").await.unwrap();
    open.read_exact(&mut [0; 1]).await.unwrap();
    let closing = stage.close(&forward, false);
    let leaving = async {
        while TcpStream::connect(("127.0.0.1", port(&forward))).await.is_ok() {}
        // The listener is gone, and who is there goes on.
        open.write_all(b"y").await.unwrap();
        let mut answer = [0; 1];
        open.read_exact(&mut answer).await.unwrap();
        open.shutdown().await.unwrap();
        answer
    };
    let (closed, answer) = tokio::join!(closing, leaving);
    assert_eq!((closed.structured["status"].as_str(), &answer), (Some("closed"), b"y"), "{}", closed.text);
    assert_eq!(stage.close(&forward, false).await.structured["status"], "noop");

    let forward = stage.forward_to(&echo).await;
    let mut open = connect(&forward).await;
    open.write_all(b"x").await.unwrap();
    open.read_exact(&mut [0; 1]).await.unwrap();
    let ask = json!({"local_port": port(&forward), "force": true});
    let closed = stage.client.call("ssh_forward_close", ask).await;
    assert_eq!(closed.structured["bytes_to_remote"], 1, "{}", closed.text);
    assert!(open.read(&mut [0; 1]).await.is_err(), "it is reset");
    // The session is as it was.
    assert_eq!(stage.run("echo on").await.structured["stdout"], "on\n");
}

#[tokio::test]
async fn over_a_jump_host_a_forward_has_connections_of_its_own_all_the_way() {
    let Some(jump) = OpenSshd::start_or_skip(Options::default()) else { return };
    let Some(last) = OpenSshd::start_or_skip(Options::default()) else { return };
    let config = targets::block("jump", &jump, "") + &targets::block("last", &last, "ProxyJump jump");
    let client = targets::product(&config, &[]).await;
    let size = 64 << 20;
    let source = Service::source(size).await;
    let ask = json!({"target": "last", "local_port": 0, "remote_address": "127.0.0.1", "remote_port": source.port()});
    let forward = client.call("ssh_forward", ask).await;
    assert!(!forward.is_error, "{}", forward.text);
    let logins = |server: &OpenSshd| {
        let is_login = |line: &&String| line.starts_with("Accepted ") && line.contains(" for ");
        server.logs().iter().filter(is_login).count()
    };
    assert_eq!((logins(&jump), logins(&last)), (2, 2));
    let mut paused = connect(&forward).await;
    paused.write_all(b"x").await.unwrap();
    for _ in 0..4 {
        let ask = json!({"session_id": field(&forward, "session_id"), "command": "sleep 0.3; echo free", "wait": true});
        let ran = client.call("ssh_exec", ask).await;
        assert_eq!(ran.structured["stdout"], "free\n", "{}", ran.text);
    }
    assert_eq!(read_all(&mut paused).await, (size, true));
}

#[tokio::test]
async fn the_old_names_forward_too() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let echo = Service::echo().await;
    let old = async |system: &str| {
        let env = [("SSH_MCP_LEGACY_TOOLS", system)];
        McpClient::spawn(Era::LEGACY_2025_11, &binary("ssh-mcp-stdio"), &[], &env).await
    };
    for system in ["001", "002"] {
        let client = old(system).await;
        let connected = client.call("ssh_connect", login(&server, User::Tester, ClientKey::Ed25519)).await;
        let ask = json!({"session_id": field(&connected, "session_id"), "local_port": 0,
            "remote_address": "127.0.0.1", "remote_port": echo.port()});
        let forward = client.call("ssh_forward", ask).await;
        assert_eq!(forward.structured["active"], true, "{}", forward.text);
        let socket = TcpStream::connect(field(&forward, "local_address")).await.unwrap();
        assert!(echoes(socket, 9, 100_000).await);
    }
    let client = old("003").await;
    let ask = json!({"target": "tester@127.0.0.1", "port": server.port(),
        "identity_file": server.client_key(ClientKey::Ed25519).to_str().unwrap(), "direction": "local",
        "local_port": 0, "remote_host": "127.0.0.1", "remote_port": echo.port()});
    let forward = client.call("ssh_forward", ask).await;
    assert_eq!(forward.structured["running"], true, "{}", forward.text);
    assert!(echoes(connect(&forward).await, 11, 100_000).await);
    let listed = client.call("ssh_list_forwards", json!({})).await;
    assert_eq!(listed.structured["forwards"][0]["local_port"], port(&forward), "{}", listed.text);
    let stop = json!({"forward_id": field(&forward, "forward_id")});
    let stopped = client.call("ssh_stop_forward", stop).await;
    assert_eq!(stopped.structured["was_running"], true, "{}", stopped.text);
    assert_eq!(client.call("ssh_list_forwards", json!({})).await.structured["count"], 0);
}
