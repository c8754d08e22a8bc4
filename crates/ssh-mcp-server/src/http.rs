//! The HTTP front: MCP over streamable HTTP, for many clients and several owners.
//!
//! [`bind`] takes the sockets and the tokens, [`Bound::serve`] starts the work, [`Running`] ends it in order. What MCP says is the
//! handler's business; this module decides who may ask, whose the work is, and how long an HTTP session lives
//! (`docs/configuration.md`, "HTTP"). There is no TLS in here: a reverse proxy does that.

mod answer;
mod authority;
mod caller;
mod calls;
mod front;
mod health;
mod probe;
mod sessions;
mod stream;
mod tokens;
mod turnstile;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::ServiceExt;
use axum::extract::{ConnectInfo, Request};
use axum::serve::ListenerExt;
use rmcp::ServerHandler;
use ssh_mcp_core::settings::{Listen, Settings};
use ssh_mcp_core::target_names;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use authority::{HostRule, OriginRule};
use caller::Ask;
use front::{Doors, Front};
use tokens::{Need, TokenSource, Tokens};

pub use health::Room;
pub use probe::healthcheck;
pub use tokens::TokenError;

use crate::sources::EXIT_USAGE;

/// Why the front cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There are no tokens to go by.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// An address cannot be listened on.
    #[error("cannot listen on {listen}: {source}")]
    Bind {
        /// The address as it was configured.
        listen: Listen,
        /// The system's answer.
        source: io::Error,
    },
}

impl StartError {
    /// The exit code that tells a supervisor whether trying again makes sense.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Token(_) => EXIT_USAGE,
            Self::Bind { .. } => 1,
        }
    }
}

/// How long a handler is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// As long as an HTTP session; or for one request of a revision that has no sessions.
    Session,
    /// For one request of a client that should have a session and does without.
    Request,
}

/// How often and how patiently the front looks after its streams; the defaults are those of the product.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Between two looks.
    pub turn: Duration,
    /// Between two comments on a quiet event stream.
    pub keep_alive: Duration,
    /// A stream whose client has not read for this long is ended. Longer than `keep_alive`.
    pub stall: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            turn: Duration::from_secs(2),
            keep_alive: Duration::from_secs(15),
            stall: Duration::from_secs(30),
        }
    }
}

/// Sockets that are open and tokens that are known; nothing is answered yet.
pub struct Bound {
    settings: Arc<Settings>,
    listeners: Vec<(TcpListener, SocketAddr)>,
    tokens: Tokens,
    source: TokenSource,
    timing: Timing,
}

/// Opens the sockets of `settings` and reads or makes the tokens.
///
/// # Errors
/// See [`StartError`].
pub async fn bind(settings: &Arc<Settings>) -> Result<Bound, StartError> {
    let mut listeners = Vec::new();
    for listen in settings.listen() {
        match listen_on(&listen).await {
            Ok(opened) => listeners.extend(opened),
            Err(source) => return Err(StartError::Bind { listen, source }),
        }
    }
    let exposed = listeners.iter().any(|(_, address)| !address.ip().to_canonical().is_loopback());
    let need = if exposed || settings.require_token { Need::Token } else { Need::None };
    let (tokens, source) = Tokens::load(settings, need)?;
    Ok(Bound { settings: Arc::clone(settings), listeners, tokens, source, timing: Timing::default() })
}

/// Checks the tokens of `settings` as a start would, but makes none.
///
/// # Errors
/// A token file that cannot be used.
pub fn check(settings: &Settings) -> Result<(), TokenError> {
    Tokens::load(settings, Need::None).map(|_| ())
}

/// Listens on every address that a name stands for, all on the same port; one that works is enough.
async fn listen_on(listen: &Listen) -> io::Result<Vec<(TcpListener, SocketAddr)>> {
    let mut opened: Vec<(TcpListener, SocketAddr)> = Vec::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for mut address in tokio::net::lookup_host((listen.host.as_str(), listen.port)).await? {
        if let Some((_, first)) = opened.first() {
            address.set_port(first.port());
        }
        match TcpListener::bind(address).await.and_then(|socket| Ok((socket.local_addr()?, socket))) {
            Ok((local, socket)) => opened.push((socket, local)),
            Err(error) => failure = error,
        }
    }
    if opened.is_empty() { Err(failure) } else { Ok(opened) }
}

impl Bound {
    /// The addresses in use, with the ports that the system chose.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|(_, address)| *address).collect()
    }

    /// Looks after streams at another pace.
    pub fn with_timing(self, timing: Timing) -> Self {
        Self { timing, ..self }
    }

    /// Starts answering. `make` makes a handler for each HTTP session and for each request without one; the owner of a request
    /// is among the extensions of its HTTP parts. `room` says whether one more SSH session would find a place.
    pub fn serve<H: ServerHandler>(
        self,
        make: impl Fn(Span) -> H + Send + Sync + 'static,
        room: impl Fn() -> Room + Send + Sync + 'static,
    ) -> Running<H> {
        let Self { settings, listeners, tokens, source, timing } = self;
        let own_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let (hosts, bad_hosts) = HostRule::new(&settings.allowed_hosts, Some(&own_name));
        let (origins, bad_origins) = OriginRule::new(&settings.allowed_origins);
        for (name, entry) in bad_hosts
            .iter()
            .map(|e| ("MCP_ALLOWED_HOSTS", e))
            .chain(bad_origins.iter().map(|e| ("MCP_ALLOWED_ORIGINS", e)))
        {
            tracing::warn!(target: target_names::HTTP, name, entry, "entry makes no sense and is ignored");
        }
        let ask = if settings.require_token { Ask::All } else { Ask::Remote };
        log_start(&settings, &listeners, &tokens, &source);
        let stop = CancellationToken::new();
        let doors = Doors { tokens, ask, hosts, origins };
        let front = Arc::new(Front::new(settings, doors, make, Box::new(room), timing, stop.clone()));
        let mut tasks = JoinSet::new();
        for (listener, address) in listeners {
            let front = Arc::clone(&front);
            let service = tower::service_fn(move |request: Request| {
                let front = Arc::clone(&front);
                async move {
                    let peer =
                        request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer);
                    Ok::<_, std::convert::Infallible>(front.answer(peer.unwrap_or(address), request).await)
                }
            });
            // Without it an event waits for the acknowledgement of the one before: 40 ms a call.
            let listener = listener.tap_io(|socket| {
                let _ = socket.set_nodelay(true);
                watch_for_silence(socket);
            });
            let make = service.into_make_service_with_connect_info::<SocketAddr>();
            let served = axum::serve(listener, make).with_graceful_shutdown(stop.clone().cancelled_owned());
            tasks.spawn(async move {
                // It has no way to fail.
                let _ = served.await;
            });
        }
        let look_after = Arc::clone(&front);
        tasks.spawn(async move { look_after.look_after().await });
        Running { front, tasks, stop }
    }
}

/// Lets the system find out clients that went away without a word, within two minutes.
fn watch_for_silence(socket: &tokio::net::TcpStream) {
    use rustix::net::sockopt;
    // A system that refuses one of these keeps its own times.
    let _ = sockopt::set_socket_keepalive(socket, true);
    let _ = sockopt::set_tcp_keepidle(socket, Duration::from_secs(60));
    let _ = sockopt::set_tcp_keepintvl(socket, Duration::from_secs(15));
    let _ = sockopt::set_tcp_keepcnt(socket, 4);
}

/// The one line that says where the server is, and who must show a token. It names the file of a token, never the token.
fn log_start(
    settings: &Settings,
    listeners: &[(TcpListener, SocketAddr)],
    tokens: &Tokens,
    source: &TokenSource,
) {
    let addr = listeners.iter().map(|(_, address)| address.to_string()).collect::<Vec<_>>().join(",");
    let auth = match (settings.require_token, tokens.is_empty()) {
        (true, _) => "all",
        (false, true) => "none",
        (false, false) => "remote",
    };
    let features = if cfg!(feature = "aws-lc-rs") { "aws-lc-rs" } else { "ring" };
    let (path, version) = (&settings.http_path, env!("CARGO_PKG_VERSION"));
    match source {
        TokenSource::Nowhere | TokenSource::Variable => {}
        TokenSource::File(file) | TokenSource::Made(file) => {
            tracing::info!(target: target_names::AUTH, file = %file.display(), "token file");
        }
    }
    tracing::info!(target: target_names::HTTP, addr, path, version, features, auth, "listening");
}

/// The front at work. Dropping it aborts what it runs.
pub struct Running<H> {
    front: Arc<Front<H>>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl<H: ServerHandler> Running<H> {
    /// Takes no new work: readiness is off, and every new request is answered 503. Requests under way go on.
    pub fn refuse_new(&self) {
        self.front.health.stop();
    }

    /// Waits until no call is under way; streams of notifications are not calls.
    pub async fn calls_done(&self) {
        self.front.calls.idle().await;
    }

    /// Ends every stream and session, then the sockets. A client that does not let go of its connection is left behind after
    /// a moment.
    pub async fn close(mut self) {
        self.refuse_new();
        self.front.end_sessions().await;
        // What was said last is still on its way, and the SDK drops what a stream holds when it is told to stop.
        _ = tokio::time::timeout(LAST_WORDS, self.front.listening.idle()).await;
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(LET_GO, ended).await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}

/// How long streams that come to their end have to be read to it.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long clients have to let go of their connections.
const LET_GO: Duration = Duration::from_secs(1);
