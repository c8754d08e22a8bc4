//! Servers that are none, that stop half-way, and that never come to an end: each costs a coded answer in time, and
//! nothing of it stays.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::server::{Auth, Config, Handler, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;

/// What follows the bytes a [`Relay`] lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    HangUp,
    Silence,
}

/// A way to a server on which only its first bytes come back.
struct Relay {
    addr: SocketAddr,
    /// Bytes the server has sent, over all connections.
    passed: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Relay {
    async fn start(target: SocketAddr, limit: u64, then: Then) -> Self {
        let passed = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&passed);
        let (addr, tasks) = serve(move |near| relay(near, target, limit, then, Arc::clone(&counter))).await;
        Self { addr, passed, _tasks: tasks }
    }
}

async fn relay(mut near: TcpStream, target: SocketAddr, limit: u64, then: Then, passed: Arc<AtomicU64>) {
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    let (mut from_near, mut to_near) = near.split();
    let (mut from_far, mut to_far) = far.split();
    let back = async {
        let mut left = limit;
        let mut buffer = [0; 4096];
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match from_far.read(&mut buffer[..most]).await {
                Ok(0) | Err(_) => return,
                Ok(n) => {
                    left -= n as u64;
                    passed.fetch_add(n as u64, Ordering::Relaxed);
                    if to_near.write_all(&buffer[..n]).await.is_err() {
                        return;
                    }
                }
            }
        }
        if then == Then::Silence {
            std::future::pending().await
        }
    };
    tokio::select! {
        () = back => {}
        // A client that leaves ends it, too.
        _ = tokio::io::copy(&mut from_near, &mut to_far) => {}
    }
}

/// Serves each connection by a task of its own.
async fn serve<F>(each: impl Fn(TcpStream) -> F + Send + 'static) -> (SocketAddr, JoinSet<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            connections.spawn(each(socket));
        }
    });
    (addr, tasks)
}

async fn product() -> McpClient {
    McpClient::spawn(Era::LEGACY_2025_11, &binary("ssh-mcp-stdio"), &[], &[]).await
}

/// One attempt within so many seconds; the code of its failure.
async fn attempt(client: &McpClient, mut call: Value, addr: SocketAddr, secs: u64) -> String {
    for (field, value) in [
        ("address", json!(addr.to_string())),
        ("reuse", json!("force_new")),
        ("max_retries", json!(0)),
        ("timeout_secs", json!(secs)),
    ] {
        call[field] = value;
    }
    let answer = client.call("ssh_connect", call).await;
    assert!(answer.is_error, "{}", answer.text);
    assert!(answer.text.len() < 4096, "a flood came through: {} bytes", answer.text.len());
    answer.structured["code"].as_str().unwrap().to_owned()
}

/// What the product holds: open files, and resident KiB.
fn held(client: &McpClient) -> (usize, u64) {
    let proc = format!("/proc/{}", client.pid());
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident = resident.trim().trim_end_matches(" kB").parse().unwrap();
    (std::fs::read_dir(format!("{proc}/fd")).unwrap().count(), resident)
}

/// Nothing of the attempts is left: no session, no open file, no memory to speak of.
async fn is_as_before(client: &McpClient, before: (usize, u64)) {
    let sessions = client.call("ssh_sessions", json!({})).await;
    assert_eq!(sessions.structured["count"], 0, "{}", sessions.text);
    push::until("the connections are gone", async || held(client).0 <= before.0).await;
    let (_, resident) = held(client);
    assert!(resident < before.1 + 24 * 1024, "{} KiB before, {resident} KiB now", before.1);
}

/// How many bytes a server sends until it has let us in. What the first login leaves allocated is no later one's doing.
async fn bytes_of_a_login(client: &McpClient, server: &OpenSshd, mut call: Value) -> u64 {
    let whole = Relay::start(server.addr(), u64::MAX, Then::HangUp).await;
    call["address"] = whole.addr.to_string().into();
    let answer = client.call("ssh_connect", call).await;
    assert!(!answer.is_error, "{}", answer.text);
    let bytes = whole.passed.load(Ordering::Relaxed);
    let session = json!({"session_id": field(&answer, "session_id")});
    assert!(!client.call("ssh_disconnect", session).await.is_error);
    bytes
}

#[tokio::test]
async fn a_line_that_ends_at_any_byte_of_a_login_is_a_failure_at_once() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let client = product().await;
    let call = login(&server, User::Tester, ClientKey::Ed25519);
    let bytes = bytes_of_a_login(&client, &server, call.clone()).await;
    let before = held(&client);

    const CUTS: u64 = 40;
    for cut in 0..CUTS {
        let relay = Relay::start(server.addr(), bytes * cut / CUTS, Then::HangUp).await;
        let code = attempt(&client, call.clone(), relay.addr, 30).await;
        assert_eq!(code, "CONNECTION_FAILED", "cut after {} of {bytes}", bytes * cut / CUTS);
    }
    is_as_before(&client, before).await;
}

#[tokio::test]
async fn a_server_that_falls_silent_at_any_byte_of_a_login_is_given_up_in_time() {
    let options = Options { max_startups: Some("100:1:200".into()), ..Options::default() };
    let Some(server) = OpenSshd::start_or_skip(options) else { return };
    let client = product().await;
    let call = login(&server, User::Tester, ClientKey::Ed25519);
    let bytes = bytes_of_a_login(&client, &server, call.clone()).await;
    let before = held(&client);

    const STEPS: u64 = 24;
    let waiting = (0..STEPS).map(async |step| {
        let limit = bytes * step / STEPS;
        let relay = Relay::start(server.addr(), limit, Then::Silence).await;
        let code = attempt(&client, call.clone(), relay.addr, 2).await;
        assert_eq!(code, "CONNECTION_TIMEOUT", "silent after {limit} of {bytes}");
    });
    together(waiting).await;
    is_as_before(&client, before).await;
}

async fn together(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        futures.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// Speaks this, then hangs up once the client has.
async fn speaks(words: Vec<u8>, rounds: usize) -> (SocketAddr, JoinSet<()>) {
    let words = Arc::new(words);
    serve(move |mut socket| {
        let words = Arc::clone(&words);
        async move {
            for _ in 0..rounds {
                if socket.write_all(&words).await.is_err() {
                    return;
                }
            }
            // Whatever the client says is read, so that the end is no reset.
            let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
        }
    })
    .await
}

#[tokio::test]
async fn what_is_no_ssh_server_is_told_apart_and_costs_nothing() {
    let client = product().await;
    let call = json!({"username": "tester", "password": "never sent"});
    let line = |text: &str| text.as_bytes().to_vec();
    let greeting = b"SSH-2.0-Hostile\r\n";
    let packet = |length: u32, body: &[u8]| [greeting, &length.to_be_bytes()[..], body].concat();
    let endless = usize::MAX;
    let servers = [
        ("version 1", line("SSH-1.5-old\r\n"), 1),
        ("a web server", line("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"), 1),
        ("lines without an end", line("welcome to this host\r\n"), endless),
        ("one line without an end", line("welcome "), endless),
        ("noise", (0..=255).collect(), endless),
        ("zeros", vec![0; 4096], endless),
        ("a packet of 4 GiB", packet(u32::MAX, &[0; 64]), 1),
        ("an empty packet", packet(0, &[0; 64]), 1),
        ("padding longer than its packet", packet(12, &[255; 12]), 1),
        ("a message nobody knows", packet(12, &[10, 250, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 1),
        ("a key exchange of nothing", packet(12, &[10, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 1),
    ];
    let before = held(&client);
    for (what, words, rounds) in servers {
        let (addr, _tasks) = speaks(words, rounds).await;
        let code = attempt(&client, call.clone(), addr, 2).await;
        // Who waits for more than came is told so by the time limit.
        let is_either = ["CONNECTION_FAILED", "CONNECTION_TIMEOUT"].contains(&code.as_str());
        assert!(is_either, "{what}: {code}");
    }
    is_as_before(&client, before).await;
}

/// Asks for ever, in this manner.
#[derive(Clone)]
struct Asker {
    /// Prompts of one round.
    prompts: usize,
    rounds: Arc<AtomicU64>,
}

impl Handler for Asker {
    type Error = russh::Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, russh::Error> {
        Ok(Some("Read all of this first. ".repeat(1000)))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _user: &str,
        _submethods: &str,
        _answers: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        self.rounds.fetch_add(1, Ordering::Relaxed);
        let prompts = (0..self.prompts).map(|_| ("And the next one: ".into(), false)).collect::<Vec<_>>();
        Ok(Auth::Partial { name: "".into(), instructions: "".into(), prompts: prompts.into() })
    }
}

#[tokio::test]
async fn a_server_that_asks_for_ever_is_left() {
    let client = product().await;
    for prompts in [0, 1, 100] {
        let asker = Asker { prompts, rounds: Arc::default() };
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]));
        let methods = russh::MethodSet::from(&[russh::MethodKind::KeyboardInteractive][..]);
        let config = Arc::new(Config { keys: vec![key], methods, ..Config::default() });
        let (to_serve, rounds) = (asker.clone(), Arc::clone(&asker.rounds));
        let (addr, _tasks) = serve(move |socket| {
            let (config, asker) = (Arc::clone(&config), to_serve.clone());
            async move {
                if let Ok(running) = russh::server::run_stream(config, socket, asker).await {
                    let _ = running.await;
                }
            }
        })
        .await;
        let before = held(&client);
        let call = json!({"username": "tester", "password": "asked for"});
        assert_eq!(attempt(&client, call, addr, 20).await, "AUTH_FAILED", "{prompts} prompts");
        let rounds = rounds.load(Ordering::Relaxed);
        assert!(rounds <= 64, "answered {rounds} rounds of {prompts} prompts");
        is_as_before(&client, before).await;
    }
}
