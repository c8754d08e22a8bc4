//! What a server can do with an agent it was lent, and with one it was not. OpenSSH's asks politely; this one of russh does
//! not.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::server::{Auth, Config, Handle, Handler, Session, run_stream};
use ssh_mcp_core::port::resolve::Defaults;
use ssh_mcp_core::port::ssh::{ConnectRequest, Connected, Connector, Link};
use ssh_mcp_core::target::{Address, Credentials, Lendings, Secret, Target};
use ssh_mcp_ssh::RusshConnector;
use ssh_mcp_testkit::host::defaults;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Lets everybody in and hands itself out.
struct Greedy(Option<oneshot::Sender<Handle>>);

impl Handler for Greedy {
    type Error = russh::Error;

    async fn auth_password(&mut self, _user: &str, _password: &str) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), russh::Error> {
        if let Some(out) = self.0.take() {
            let _ = out.send(session.handle());
        }
        Ok(())
    }
}

/// A session with a greedy server.
struct Bench {
    link: Box<dyn Link>,
    server: Handle,
    _folder: TempDir,
    _serving: JoinSet<()>,
}

impl Bench {
    async fn start(agent: Option<PathBuf>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (out, handle) = oneshot::channel();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let key = PrivateKey::from(Ed25519Keypair::from_seed(&[1; 32]));
            let config = Arc::new(Config { keys: vec![key], ..Config::default() });
            let (socket, _) = listener.accept().await.unwrap();
            let _ = run_stream(config, socket, Greedy(Some(out))).await.unwrap().await;
        });
        let folder = tempfile::tempdir().unwrap();
        let address = Address { host: "127.0.0.1".to_owned(), port };
        let credentials =
            Credentials { password: Some(Secret::new("x".to_owned())), ..Credentials::default() };
        let defaults = Defaults { known_hosts: folder.path().join("known_hosts"), ..defaults() };
        let mut hop = defaults.hop(Target { address, username: "u".to_owned() }, credentials);
        hop.lendings = Lendings { variables: Vec::new(), agent };
        let request = ConnectRequest { via: Vec::new(), hop, timeout: LIMIT, accepted: Vec::new() };
        let connector = RusshConnector::new().with_global_known_hosts(Vec::new());
        let Connected { link, .. } = connector.connect(&request).await.unwrap();
        Self { link, server: handle.await.unwrap(), _folder: folder, _serving: serving }
    }
}

/// An agent that says no to everything; what has come of each conversation is in the list.
async fn refuse(mut client: UnixStream, ended: Arc<Mutex<usize>>) {
    let mut length = [0; 4];
    while client.read_exact(&mut length).await.is_ok() {
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        if client.read_exact(&mut message).await.is_err() || client.write_all(&[0, 0, 0, 1, 5]).await.is_err()
        {
            break;
        }
    }
    *ended.lock().unwrap() += 1;
}

#[tokio::test]
async fn an_agent_is_lent_to_nobody_unasked() {
    let bench = Bench::start(None).await;
    assert!(bench.server.channel_open_agent().await.is_err());
    // And one that is away is told so.
    let bench = Bench::start(Some("/nonexistent/agent".into())).await;
    assert!(bench.server.channel_open_agent().await.is_err());
    assert!(bench.link.ping().await.is_ok());
}

#[tokio::test]
async fn a_lent_agent_has_a_bounded_number_of_conversations_that_end_with_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent");
    let listener = UnixListener::bind(&socket).unwrap();
    let ended = Arc::<Mutex<usize>>::default();
    let mut agent = JoinSet::new();
    let counted = Arc::clone(&ended);
    agent.spawn(async move {
        let mut conversations = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            conversations.spawn(refuse(client, Arc::clone(&counted)));
        }
    });
    let bench = Bench::start(Some(socket)).await;
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(bench.server.channel_open_agent().await.unwrap());
    }
    assert!(bench.server.channel_open_agent().await.is_err());
    // They are the agent's.
    let mut stream = open.pop().unwrap().into_stream();
    stream.write_all(&[0, 0, 0, 1, 11]).await.unwrap();
    let mut answer = [0; 5];
    timeout(LIMIT, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, [0, 0, 0, 1, 5]);
    // One that ends makes room.
    stream.shutdown().await.unwrap();
    drop(stream);
    while *ended.lock().unwrap() < 1 {
        tokio::task::yield_now().await;
    }
    let again = timeout(LIMIT, async {
        loop {
            if let Ok(channel) = bench.server.channel_open_agent().await {
                return channel;
            }
        }
    });
    open.push(again.await.unwrap());
    bench.link.disconnect().await;
    timeout(LIMIT, async {
        while *ended.lock().unwrap() < 17 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

const LIMIT: Duration = Duration::from_secs(20);
