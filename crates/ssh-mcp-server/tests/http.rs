//! The rules of the HTTP front over real sockets on loopback (`docs/configuration.md`, "HTTP").

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![expect(clippy::disallowed_methods, reason = "a test's own channels hold a few messages")]

#[path = "http/client.rs"]
mod client;
#[path = "http/server.rs"]
mod server;

use std::time::Duration;

use client::{Answer, Ask, ask, call, initialize, raw, rpc};
use server::{Server, loopback, quick, serve, serve_timed};
use ssh_mcp_core::settings::{Listen, Settings, Token};
use ssh_mcp_server::http::StartError;
use tokio::io::AsyncWriteExt;

const TOKEN: &str = "planted-token-planted";

fn with_token(settings: &mut Settings) {
    settings.auth_token = Token::parse(TOKEN);
}

fn bearer(ask: Ask, token: &str) -> Ask {
    ask.with("Authorization", &format!("Bearer {token}"))
}

/// Opens a session and gives its id.
async fn session(server: &Server, ask: Ask) -> String {
    let answer = ask.send(server.address()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.header("mcp-session-id").expect("a session").to_owned()
}

fn within(ask: Ask, session: &str) -> Ask {
    ask.with("Mcp-Session-Id", session)
}

/// A session that has said all its greetings.
async fn ready_session(server: &Server) -> String {
    let id = session(server, initialize()).await;
    let greeting = raw(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    assert_eq!(within(greeting, &id).send(server.address()).await.status, 202);
    id
}

async fn status(server: &Server, ask: Ask) -> u16 {
    ask.send(server.address()).await.status
}

#[tokio::test]
async fn a_plain_call_needs_no_session() {
    let server = serve(|_| {}).await;
    let answer = call("whoami").send(server.address()).await;
    assert_eq!((answer.status, answer.said().as_str()), (200, "local"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    for ask in [call("whoami").without("Accept"), call("whoami").with("Accept", "*/*")] {
        assert_eq!(ask.send(server.address()).await.said(), "local");
    }
    assert_eq!(status(&server, call("whoami").with("Accept", "text/html")).await, 406);
    let refused = serve(|settings| settings.stateless_post = false).await;
    assert_eq!(status(&refused, call("whoami")).await, 400);
    assert_eq!(status(&refused, call("whoami").without("Accept")).await, 406);
}

#[tokio::test]
async fn a_client_of_the_newest_revision_needs_no_session_whatever_the_setting() {
    let meta = r#"{"name":"whoami","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}"#;
    let ask = rpc("tools/call", meta)
        .with("MCP-Protocol-Version", "2026-07-28")
        .with("Mcp-Method", "tools/call")
        .with("Mcp-Name", "whoami");
    for stateless_post in [true, false] {
        let server = serve(|settings| settings.stateless_post = stateless_post).await;
        for ask in [ask.clone(), within(ask.clone(), "stray")] {
            let answer = ask.send(server.address()).await;
            assert_eq!((answer.status, answer.said().as_str()), (200, "local"), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn a_session_lives_from_initialize_to_delete() {
    let mut server = serve(|_| {}).await;
    let id = ready_session(&server).await;
    let answer = within(call("whoami"), &id).send(server.address()).await;
    assert_eq!((answer.header("content-type"), answer.said().as_str()), (Some("text/event-stream"), "local"));
    assert_eq!(status(&server, within(ask("DELETE", "/"), &id)).await, 204);
    server.ended("whoami").await;
    for gone in [call("whoami"), ask("GET", "/"), ask("DELETE", "/")] {
        assert_eq!(status(&server, within(gone, &id)).await, 404);
    }
    assert_eq!(status(&server, ask("GET", "/")).await, 400);
    // A revision that has no handshake cannot be asked for by one.
    let named = initialize().with("MCP-Protocol-Version", "2025-06-18");
    assert!(!session(&server, named).await.is_empty());
}

#[tokio::test]
async fn mcp_is_served_at_its_path_and_its_aliases() {
    let server = serve(|_| {}).await;
    for path in ["/", "/mcp", "/sse", "/mcp/", "/sse/", "/?x=1"] {
        assert_eq!(call("whoami").at(path).send(server.address()).await.said(), "local", "{path}");
    }
    for path in ["/other", "/mcp/more", "/metrics", "/.well-known/oauth-protected-resource"] {
        assert_eq!(status(&server, call("whoami").at(path)).await, 404, "{path}");
    }
    let id = ready_session(&server).await;
    assert_eq!(
        within(ask("GET", "/sse"), &id).open(server.address()).await.header("content-type"),
        Some("text/event-stream")
    );
    let own = serve(|settings| settings.http_path = "/own".to_owned()).await;
    for (path, expected) in
        [("/own", 200), ("/own/", 200), ("/", 404), ("/mcp", 404), ("/sse", 404), ("/healthz", 405)]
    {
        assert_eq!(status(&own, call("whoami").at(path)).await, expected, "{path}");
    }
}

#[tokio::test]
async fn a_foreign_host_name_is_refused() {
    let server = serve(|settings| settings.allowed_hosts = vec!["mcp.example".to_owned()]).await;
    for (host, expected) in [
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("localhost:1", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]", 200),
        // Accepted as hosts, but not local: the token is missing.
        ("mcp.example", 401),
        ("192.0.2.1:8000", 401),
        ("a b", 400),
    ] {
        assert_eq!(status(&server, call("whoami").with("Host", host)).await, expected, "{host}");
    }
    assert_eq!(status(&server, call("whoami").without("Host")).await, 400);
    let open = serve(|settings| settings.allowed_hosts = vec!["*".to_owned()]).await;
    assert_eq!(status(&open, call("whoami").with("Host", "evil.example")).await, 401);
}

#[tokio::test]
async fn a_foreign_origin_is_refused_and_an_accepted_one_may_read() {
    let server = serve(|settings| settings.allowed_origins = vec!["https://app.example".to_owned()]).await;
    for origin in ["https://app.example", "http://localhost:3000", "http://localhost"] {
        let answer = initialize().with("Origin", origin).send(server.address()).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some(origin)));
        assert!(answer.header("access-control-expose-headers").unwrap().contains("Mcp-Session-Id"));
        let preflight =
            ask("OPTIONS", "/").with("Origin", origin).with("Access-Control-Request-Method", "POST");
        let answer = preflight.send(server.address()).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, Some(origin)));
        assert!(answer.header("access-control-allow-headers").unwrap().contains("Authorization"));
    }
    for origin in ["https://evil.example", "null", "https://app.example.evil", "http://app.example"] {
        for ask in [call("whoami"), ask("OPTIONS", "/")] {
            let answer = ask.with("Origin", origin).send(server.address()).await;
            assert_eq!(
                (answer.status, answer.header("access-control-allow-origin")),
                (403, None),
                "{origin}"
            );
        }
    }
}

#[tokio::test]
async fn behind_every_address_a_token_is_needed_from_elsewhere() {
    let everywhere = Listen { host: "0.0.0.0".to_owned(), port: 0 };
    let server = serve(|settings| {
        settings.http_bind = vec![everywhere];
        with_token(settings);
    })
    .await;
    let address = (std::net::Ipv4Addr::LOCALHOST, server.address().port()).into();
    let remote = call("whoami").with("Host", "192.0.2.1:8000");
    let refused = remote.send(address).await;
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(bearer(remote.clone(), TOKEN).send(address).await.said(), "token:default");
    assert_eq!(bearer(remote, "planted-token-plantee").send(address).await.status, 401);
    assert_eq!(call("whoami").send(address).await.said(), "local");
}

#[tokio::test]
async fn what_a_proxy_passes_on_is_not_local() {
    let server = serve(with_token).await;
    for name in ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "X-Forwarded-Proto"] {
        let passed_on = call("whoami").with(name, "192.0.2.7");
        assert_eq!(status(&server, passed_on.clone()).await, 401, "{name}");
        assert_eq!(bearer(passed_on, TOKEN).send(server.address()).await.said(), "token:default");
    }
}

#[tokio::test]
async fn the_operator_may_ask_everybody_for_the_token() {
    let server = serve(|settings| {
        with_token(settings);
        settings.require_token = true;
    })
    .await;
    assert_eq!(status(&server, call("whoami")).await, 401);
    assert_eq!(bearer(call("whoami"), TOKEN).send(server.address()).await.said(), "token:default");
    // Nothing of the MCP layer is reached, and health needs no token.
    for (ask, expected) in [
        (raw("nonsense"), 401),
        (ask("GET", "/other"), 401),
        (ask("GET", "/healthz"), 200),
        (ask("GET", "/readyz"), 200),
    ] {
        assert_eq!(status(&server, ask).await, expected);
    }
}

#[tokio::test]
async fn a_token_is_made_where_one_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(|settings| {
        settings.require_token = true;
        settings.state_dir = Some(dir.path().join("state"));
    })
    .await;
    let token = std::fs::read_to_string(dir.path().join("state/http-token")).unwrap();
    assert_eq!(bearer(call("whoami"), token.trim()).send(server.address()).await.said(), "token:default");
    let unwritable = serve_timed(quick(), |settings| {
        settings.require_token = true;
        settings.state_dir = Some("/dev/null/state".into());
    });
    let error = unwritable.await.err().unwrap();
    assert!(matches!(error, StartError::Token(_)) && error.exit_code() == 2);
    assert!(error.to_string().contains("MCP_AUTH_TOKEN_FILE"));
}

fn two_tokens(dir: &tempfile::TempDir) -> impl FnOnce(&mut Settings) {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.path().join("tokens");
    std::fs::write(&path, "ann:ann-ann-ann-ann-ann\nbob:bob-bob-bob-bob-bob\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    move |settings| settings.auth_token_file = Some(path)
}

const ANN: &str = "ann-ann-ann-ann-ann";
const BOB: &str = "bob-bob-bob-bob-bob";

#[tokio::test]
async fn a_session_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(two_tokens(&dir)).await;
    assert_eq!(bearer(call("whoami"), ANN).send(server.address()).await.said(), "token:ann");
    assert_eq!(bearer(call("whoami"), BOB).send(server.address()).await.said(), "token:bob");
    let id = session(&server, bearer(initialize(), ANN)).await;
    for other in [within(bearer(call("whoami"), BOB), &id), within(call("whoami"), &id)] {
        assert_eq!(status(&server, other).await, 404);
    }
    for other in [ask("GET", "/"), ask("DELETE", "/")] {
        assert_eq!(status(&server, within(bearer(other, BOB), &id)).await, 404);
    }
    assert_eq!(within(bearer(call("whoami"), ANN), &id).send(server.address()).await.said(), "token:ann");
}

#[tokio::test]
async fn a_token_file_that_others_can_read_refuses_the_start() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let change = two_tokens(&dir);
    std::fs::set_permissions(dir.path().join("tokens"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = serve_timed(quick(), change).await.err().unwrap();
    assert_eq!(error.exit_code(), 2);
    assert!(!error.to_string().contains("ann-"));
}

#[tokio::test]
async fn a_body_above_the_limit_is_413() {
    let limit = 64 << 10;
    let server = serve(|settings| settings.http_max_body = limit).await;
    let padded = |length: usize| {
        let bare = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"whoami"}}"#;
        format!("{bare}{}", " ".repeat(length - bare.len()))
    };
    assert_eq!(raw(&padded(limit)).send(server.address()).await.said(), "local");
    assert_eq!(status(&server, raw(&padded(limit + 1))).await, 413);
    // It is refused by what it announces, without waiting for it.
    assert_eq!(status(&server, raw("").with("Content-Length", "99999999999")).await, 413);
    // A body that announces nothing is cut off where the limit is.
    let mut socket = raw("").with("Transfer-Encoding", "chunked").abandon(server.address()).await;
    let chunk = format!("{:x}\r\n{}\r\n", limit + 1, padded(limit + 1));
    socket.write_all(chunk.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut socket, &mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 413");
}

#[tokio::test]
async fn what_is_no_message_gets_a_json_rpc_error() {
    let server = serve(|_| {}).await;
    let code = async |body: &str| {
        let answer = raw(body).send(server.address()).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (400, Some("application/json")),
            "{answer:?}"
        );
        let json = answer.json();
        (json["error"]["code"].as_i64().unwrap(), json["id"].clone())
    };
    assert_eq!(code("").await, (-32700, serde_json::Value::Null));
    assert_eq!(code("{\"jsonrpc\":").await.0, -32700);
    assert_eq!(code("nonsense").await.0, -32700);
    assert_eq!(code("[]").await.0, -32600);
    assert_eq!(code("7").await.0, -32600);
    assert_eq!(code(r#"{"method":7}"#).await.0, -32600);
    assert_eq!(code(r#"{"id":9}"#).await, (-32600, 9.into()));
    assert_eq!(status(&server, call("whoami").with("Content-Type", "text/plain")).await, 415);
    // The server goes on.
    assert_eq!(call("whoami").send(server.address()).await.said(), "local");
}

#[tokio::test]
async fn there_are_only_so_many_sessions() {
    let server = serve(|settings| settings.max_http_sessions = 2).await;
    let first = session(&server, initialize()).await;
    session(&server, initialize()).await;
    let refused = initialize().send(server.address()).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    assert_eq!(status(&server, ask("GET", "/readyz")).await, 503);
    // Work that needs no session goes on, and a place that is given back is taken.
    assert_eq!(call("whoami").send(server.address()).await.said(), "local");
    assert_eq!(status(&server, within(ask("DELETE", "/"), &first)).await, 204);
    assert_eq!(status(&server, ask("GET", "/readyz")).await, 200);
    session(&server, initialize()).await;
}

#[tokio::test]
async fn a_session_that_nobody_uses_is_dropped_and_one_with_an_open_stream_is_not() {
    let idle = |settings: &mut Settings| settings.http_session_idle = Duration::from_secs(1);
    let mut server = serve_timed(quick(), idle).await.ok().unwrap();
    let (watched, forgotten) = (ready_session(&server).await, ready_session(&server).await);
    let stream = within(ask("GET", "/"), &watched).open(server.address()).await;
    assert_eq!(within(call("whoami"), &forgotten).send(server.address()).await.said(), "local");
    server.ended("whoami").await;
    assert_eq!(status(&server, within(call("whoami"), &forgotten)).await, 404);
    assert_eq!(within(call("tell"), &watched).send(server.address()).await.said(), "done");
    drop(stream);
    server.ended("tell").await;
    assert_eq!(status(&server, within(call("whoami"), &watched)).await, 404);
}

#[tokio::test]
async fn a_new_stream_takes_the_place_of_the_one_before() {
    let server = serve(|_| {}).await;
    let id = ready_session(&server).await;
    let mut first = within(ask("GET", "/"), &id).open(server.address()).await;
    let mut second = within(ask("GET", "/mcp"), &id).open(server.address()).await;
    assert!(!first.has("told").await, "the first stream ends without a word");
    assert_eq!(within(call("tell"), &id).send(server.address()).await.said(), "done");
    assert!(second.has("told").await);
}

#[tokio::test]
async fn a_client_that_does_not_read_blocks_its_session_for_a_moment_only() {
    let server = serve_timed(quick(), |_| {}).await.ok().unwrap();
    let id = ready_session(&server).await;
    let deaf = within(ask("GET", "/"), &id).abandon(server.address()).await;
    // More than the sockets hold: without an end of that stream it would never come through.
    assert_eq!(within(call("flood"), &id).send(server.address()).await.said(), "done");
    drop(deaf);
    assert_eq!(within(call("whoami"), &id).send(server.address()).await.said(), "local");
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_no_call_behind() {
    let mut server = serve(|_| {}).await;
    let gone = call("wait").abandon(server.address()).await;
    server.begun().await;
    drop(gone);
    server.ended("wait").await;
    server.running.calls_done().await;
}

#[tokio::test]
async fn health_says_that_the_server_is_well_and_nothing_else() {
    let server = serve(|_| {}).await;
    let stranger = |path| ask("GET", path).with("Host", "evil.example").with("X-Forwarded-For", "192.0.2.1");
    let health = stranger("/healthz").send(server.address()).await;
    let json = health.json();
    assert_eq!((health.status, &json["status"]), (200, &"ok".into()));
    let mut names: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["status", "uptime_s", "version"]);
    assert_eq!(stranger("/readyz").send(server.address()).await.status, 200);
    for path in ["/healthz", "/readyz"] {
        let head = ask("HEAD", path).send(server.address()).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        assert_eq!(status(&server, ask("POST", path)).await, 405);
    }
}

#[tokio::test]
async fn the_health_check_asks_the_configured_address() {
    let server = serve(|_| {}).await;
    let mut settings = (*server.settings).clone();
    settings.http_bind = vec![Listen { host: "0.0.0.0".to_owned(), port: server.address().port() }];
    let check = |settings: Settings| {
        tokio::task::spawn_blocking(move || ssh_mcp_server::http::healthcheck(&settings))
    };
    assert!(check(settings.clone()).await.unwrap().is_ok());
    server.running.close().await;
    assert!(check(settings).await.unwrap().is_err());
}

#[tokio::test]
async fn every_address_is_listened_on() {
    let both = vec![loopback(), loopback()];
    let server = serve(|settings| settings.http_bind = both).await;
    assert_eq!(server.addresses.len(), 2);
    for address in &server.addresses {
        assert_eq!(call("whoami").send(*address).await.said(), "local");
    }
    let taken = Listen { host: "127.0.0.1".to_owned(), port: server.address().port() };
    let error = serve_timed(quick(), |settings| settings.http_bind = vec![taken]).await.err().unwrap();
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains(&server.address().to_string()));
}

#[tokio::test]
async fn a_stop_lets_calls_end_and_takes_no_new_ones() {
    let mut server = serve(|_| {}).await;
    let address = server.address();
    let id = ready_session(&server).await;
    let mut stream = within(ask("GET", "/"), &id).open(address).await;
    let mut calls = tokio::task::JoinSet::new();
    calls.spawn(async move { call("wait").send(address).await });
    server.begun().await;
    server.running.refuse_new();
    for refused in [call("whoami"), within(call("whoami"), &id), initialize()] {
        let answer = refused.send(address).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    }
    assert_eq!(status(&server, ask("GET", "/readyz")).await, 503);
    assert_eq!(status(&server, ask("GET", "/healthz")).await, 200);
    server.release();
    let answer: Answer = calls.join_next().await.unwrap().unwrap();
    assert_eq!(answer.said(), "waited");
    server.running.calls_done().await;
    server.running.close().await;
    assert!(!stream.has("never said").await);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn what_was_said_before_a_stop_is_heard() {
    let server = serve(|_| {}).await;
    let meta = r#"{"notifications":{},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}"#;
    let listen = rpc("subscriptions/listen", meta)
        .with("MCP-Protocol-Version", "2026-07-28")
        .with("Mcp-Method", "subscriptions/listen");
    let mut stream = listen.open(server.address()).await;
    assert!(stream.has("acknowledged").await);
    // The answer of the listen is on its way, no more than that.
    server.silence();
    server.running.close().await;
    assert!(stream.has(r#""result""#).await);
}

#[tokio::test]
async fn a_stop_is_not_held_up_by_a_connection() {
    let server = serve(|_| {}).await;
    let idle = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let half = ask("POST", "/").with("Content-Length", "10").abandon(server.address()).await;
    let id = ready_session(&server).await;
    let deaf = within(ask("GET", "/"), &id).abandon(server.address()).await;
    server.running.close().await;
    drop((idle, half, deaf));
}

/// Collects every line that the product would log.
#[derive(Clone, Default)]
struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_token_and_no_session_id_is_logged() {
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::layer::SubscriberExt;
    let lines = Lines::default();
    let writer = lines.clone();
    let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).with_ansi(false);
    let ours = Targets::new().with_target("ssh_mcp", LevelFilter::TRACE);
    // The runtime of a test has one thread, so this covers every task of the server.
    let _log = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer).with(ours));
    let server = serve(|settings| {
        with_token(settings);
        settings.require_token = true;
    })
    .await;
    let id = session(&server, bearer(initialize(), TOKEN)).await;
    assert_eq!(status(&server, within(bearer(call("whoami"), TOKEN), &id)).await, 200);
    for stranger in [call("whoami"), bearer(call("whoami"), "wrong-planted-token-wrong")] {
        assert_eq!(status(&server, stranger).await, 401);
    }
    server.running.close().await;
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("listening") && log.contains("auth=\"all\""), "{log}");
    // One line for the two strangers of one address.
    assert_eq!(log.matches("request refused").count(), 1, "{log}");
    assert!(!log.contains("planted") && !log.contains(&id), "{log}");
}
