//! The way of one request: health, host, origin, token, path, then the MCP layer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::session::SessionManager;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde::Deserialize;
use serde_json::Value;
use ssh_mcp_core::owner::Owner;
use ssh_mcp_core::settings::Settings;
use ssh_mcp_core::target_names;
use ssh_mcp_handler::Gate;
use tokio_util::sync::CancellationToken;

use super::answer;
use super::authority::{Authority, HostRule, OriginRule};
use super::caller::{self, Ask, Complaints};
use super::calls::{Call, Calls};
use super::health::{Health, Room};
use super::sessions::{Place, SessionId, Sessions, Use};
use super::stream::Streams;
use super::tokens::Tokens;
use super::turnstile::Feed;
use super::{Span, Timing};

type Mcp<H> = StreamableHttpService<H, LocalSessionManager>;

/// Who may come in.
pub(super) struct Doors {
    pub(super) tokens: Tokens,
    pub(super) ask: Ask,
    pub(super) hosts: HostRule,
    pub(super) origins: OriginRule,
}

/// What all connections share.
pub(super) struct Front<H> {
    settings: Arc<Settings>,
    doors: Doors,
    complaints: Complaints,
    pub(super) health: Health,
    pub(super) calls: Arc<Calls>,
    /// Streams of notifications: what stands as long as its client likes.
    pub(super) listening: Arc<Calls>,
    room: Box<dyn Fn() -> Room + Send + Sync>,
    /// Serves sessions, and requests of clients that have none by design.
    mcp: Mcp<H>,
    /// Serves each request alone.
    plain: Mcp<H>,
    manager: Arc<LocalSessionManager>,
    sessions: Arc<Sessions>,
    streams: Streams,
    timing: Timing,
    stop: CancellationToken,
}

/// Longest wait for the whole of a request's body.
const WHOLE_BODY: std::time::Duration = std::time::Duration::from_secs(60);

impl<H: ServerHandler> Front<H> {
    pub(super) fn new(
        settings: Arc<Settings>,
        doors: Doors,
        make: impl Fn(Span) -> H + Send + Sync + 'static,
        room: Box<dyn Fn() -> Room + Send + Sync>,
        timing: Timing,
        stop: CancellationToken,
    ) -> Self {
        let mut manager = LocalSessionManager::default();
        // The SDK would end a session whose stream is open and quiet, and keep one whose client is gone.
        manager.session_config.keep_alive = None;
        let manager = Arc::new(manager);
        // Host and origin are checked here, before the token: the SDK's lists know no addresses in general.
        let config = StreamableHttpServerConfig::default()
            .disable_allowed_hosts()
            .disable_allowed_origins()
            .with_json_response(true)
            .with_sse_keep_alive(Some(timing.keep_alive))
            .with_max_request_body_bytes(settings.http_max_body)
            .with_cancellation_token(stop.clone());
        let make = Arc::new(make);
        let with = |span, config| {
            let make = Arc::clone(&make);
            StreamableHttpService::new(move || Ok(make(span)), Arc::clone(&manager), config)
        };
        Self {
            mcp: with(Span::Session, config.clone()),
            plain: with(Span::Request, config.with_legacy_session_mode(false)),
            sessions: Sessions::new(settings.max_http_sessions),
            settings,
            doors,
            complaints: Complaints::default(),
            health: Health::new(Instant::now()),
            calls: Calls::new(),
            listening: Calls::new(),
            room,
            manager,
            streams: Streams::default(),
            timing,
            stop,
        }
    }

    /// Answers one request.
    pub(super) async fn answer(&self, peer: SocketAddr, request: Request<Body>) -> Response<Body> {
        let started = Instant::now();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        if let Some(response) = self.health.answer(&method, &path, started, || self.room_left()) {
            return response;
        }
        let mut origin = None;
        let response = match self.admit(peer, &request, &mut origin) {
            Ok(owner) => self.serve(owner, request).await,
            Err(refusal) => *refusal,
        };
        let mut response = response;
        if let Some(origin) = origin {
            answer::allow_origin(response.headers_mut(), origin);
        }
        let (status, duration_ms) = (response.status().as_u16(), started.elapsed().as_millis());
        tracing::debug!(target: target_names::HTTP, %method, path, status, %duration_ms, "request");
        response
    }

    fn room_left(&self) -> Room {
        if self.sessions.has_room() { (self.room)() } else { Room::Full }
    }

    /// Lets a request in, or says why not; `origin` becomes that of a page that may see the answer.
    fn admit(
        &self,
        peer: SocketAddr,
        request: &Request<Body>,
        origin: &mut Option<HeaderValue>,
    ) -> Result<Owner, Refusal> {
        let headers = request.headers();
        let Some(host) = Authority::of(request.uri(), headers) else {
            return Err(answer::text(
                StatusCode::BAD_REQUEST,
                "the Host header is missing or makes no sense\n",
            )
            .into());
        };
        if !self.doors.hosts.accepts(&host) {
            self.complain(peer, "host is not served", &host.to_string());
            return Err(answer::text(
                StatusCode::FORBIDDEN,
                "this host name is not served; see MCP_ALLOWED_HOSTS\n",
            )
            .into());
        }
        if let Some(named) = headers.get(ORIGIN) {
            if !named.to_str().is_ok_and(|named| self.doors.origins.accepts(named, &host)) {
                self.complain(peer, "origin is not served", &String::from_utf8_lossy(named.as_bytes()));
                return Err(answer::text(
                    StatusCode::FORBIDDEN,
                    "this origin is not served; see MCP_ALLOWED_ORIGINS\n",
                )
                .into());
            }
            *origin = Some(named.clone());
            // A browser asks without credentials, so this comes before the token.
            if request.method() == Method::OPTIONS {
                return Err(answer::preflight().into());
            }
        }
        let owner = caller::owner_of(&self.doors.tokens, self.doors.ask, peer.ip(), &host, headers).map_err(
            |why| {
                self.complain(peer, why.reason(), "");
                Refusal::from(answer::unauthorized())
            },
        )?;
        if self.health.is_stopping() {
            return Err(answer::unavailable("the server is stopping\n").into());
        }
        if !self.serves(request.uri().path()) {
            return Err(answer::text(StatusCode::NOT_FOUND, "nothing here\n").into());
        }
        Ok(owner)
    }

    /// Says that somebody was turned away, once a minute and address.
    fn complain(&self, peer: SocketAddr, reason: &'static str, named: &str) {
        let peer = peer.ip().to_canonical();
        if self.complaints.is_due(peer, Instant::now()) {
            tracing::warn!(target: target_names::AUTH, %peer, reason, named, "request refused");
        }
    }

    /// Whether MCP is served at a path; a slash at the end makes no difference.
    fn serves(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        match self.settings.http_path.as_str() {
            "/" => matches!(path, "" | "/mcp" | "/sse"),
            own => path == own,
        }
    }

    /// Hands a request to the MCP layer.
    async fn serve(&self, owner: Owner, request: Request<Body>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let is_post = parts.method == Method::POST;
        let (body, asked) = match is_post {
            true => match self.read(&parts.headers, body).await {
                Ok(read) => read,
                Err(refusal) => return *refusal,
            },
            false => (Bytes::new(), Asked::default()),
        };
        if self.settings.stateless_post && accepts_anything(&parts.headers) {
            parts.headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        }
        let entered = match self.enter(&mut parts.headers, &asked, &owner) {
            Ok(entered) => entered,
            Err(refusal) => return *refusal,
        };
        let mcp = match &entered {
            Entered::Nothing if is_post && self.settings.stateless_post => &self.plain,
            Entered::Nothing | Entered::Modern | Entered::Opening(_) | Entered::Session(..) => &self.mcp,
        };
        let feed = match &entered {
            Entered::Session(id, used) => {
                parts.extensions.insert::<Arc<dyn Gate>>(Arc::clone(used.turnstile()) as _);
                match self.attend(id, used, &parts).await {
                    Ok(feed) => feed,
                    Err(refusal) => return *refusal,
                }
            }
            Entered::Nothing | Entered::Modern | Entered::Opening(_) => None,
        };
        let stands = !is_post || asked.method.as_deref() == Some("subscriptions/listen");
        let call = if stands { self.listening.begin() } else { self.calls.begin() };
        let deletes = parts.method == Method::DELETE;
        parts.extensions.insert(owner.clone());
        let mut response = mcp.handle(Request::from_parts(parts, Full::new(body))).await;
        if deletes && response.status() == StatusCode::ACCEPTED {
            // The session has ended by now, and the Python SDK logs a failure at the word of one that is yet to end.
            *response.status_mut() = StatusCode::NO_CONTENT;
        }
        let used = match entered {
            Entered::Nothing | Entered::Modern => None,
            Entered::Opening(place) => {
                session_of(response.headers()).map(|id| place.fill(&id, owner, Instant::now()))
            }
            Entered::Session(id, used) => {
                if deletes && response.status().is_success() || response.status() == StatusCode::NOT_FOUND {
                    self.sessions.remove(&id);
                }
                Some(used)
            }
        };
        self.finish(response, is_post, &asked, feed, used, call)
    }

    /// What a request has to do with the session's stream of notifications: one that opens it is to feed the turnstile.
    async fn attend(&self, id: &str, used: &Use, parts: &Parts) -> Result<Option<Feed>, Refusal> {
        if parts.method != Method::GET {
            return Ok(None);
        }
        let accepts = parts.headers.get(ACCEPT).and_then(|kinds| kinds.to_str().ok()).unwrap_or_default();
        if !accepts.contains("text/event-stream") {
            // The SDK refuses it, and it must cost nobody's stream.
            return Ok(None);
        }
        let resumed = parts.headers.get("last-event-id").and_then(|event| event.to_str().ok());
        match resumed {
            // A new stream takes the place of the one before, which the SDK would go on feeding instead.
            None => _ = used.listener().inspect(|before| before.end()),
            // Of the stream of a call that is over nothing is left. The SDK would answer with a stream that ends at once, and a
            // client that takes its call for unanswered would come back for ever, or open another stream of notifications.
            Some(event) if event.contains(CALL_MARK) => {
                let resumed = self.manager.resume(&id.into(), event.to_owned()).await;
                return match resumed {
                    Ok(_) => Ok(None),
                    Err(_) => Err(answer::method_not_allowed("POST, DELETE").into()),
                };
            }
            // Who resumes a stream has lost it, whatever this side has noticed of that: a connection that fell silent looks open
            // for minutes. Beside one that is open the SDK would open another, on which nothing is ever said.
            Some(_) => match used.listener() {
                Some(before) if used.may_take_over(Instant::now()) => before.end(),
                Some(_) => return Ok(None),
                None => {}
            },
        }
        Ok(Some(used.turnstile().listen()))
    }

    /// Reads a body up to the limit and looks at what it asks for.
    async fn read(&self, headers: &HeaderMap, body: Body) -> Result<(Bytes, Asked), Refusal> {
        let limit = self.settings.http_max_body;
        let too_large = || -> Refusal {
            answer::text(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large; see MCP_MAX_BODY\n").into()
        };
        let announced =
            headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > limit as u64) {
            return Err(too_large());
        }
        let body = match tokio::time::timeout(WHOLE_BODY, Limited::new(body, limit).collect()).await {
            Ok(body) => body,
            Err(_) => {
                return Err(answer::text(
                    StatusCode::REQUEST_TIMEOUT,
                    "the request did not come to its end\n",
                )
                .into());
            }
        };
        let body = match body {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(too_large()),
            Err(_) => return Err(answer::text(StatusCode::BAD_REQUEST, "the request ended early\n").into()),
        };
        if !is_json(headers) {
            // Refused by the MCP layer with its own words.
            return Ok((body, Asked::default()));
        }
        match serde_json::from_slice::<Asked>(&body) {
            Ok(asked) => Ok((body, asked)),
            Err(error) if error.is_data() => Err(answer::rpc_error(
                INVALID_REQUEST,
                "the request is not one JSON-RPC message",
                &Value::Null,
            )
            .into()),
            Err(error) => Err(answer::rpc_error(
                PARSE_ERROR,
                &format!("the request is not JSON: {error}"),
                &Value::Null,
            )
            .into()),
        }
    }

    /// Finds the session that a request belongs to, or a place for the one it opens.
    fn enter(&self, headers: &mut HeaderMap, asked: &Asked, owner: &Owner) -> Result<Entered, Refusal> {
        let initializes = asked.method.as_deref() == Some("initialize");
        let discovers = asked.method.as_deref() == Some("server/discover");
        if discovers || is_modern(headers) && !initializes {
            // These revisions have no sessions, whatever a client sends along; only the others have a handshake.
            headers.remove(SESSION_HEADER);
            return Ok(Entered::Modern);
        }
        match session_of(headers) {
            Some(id) => match self.sessions.enter(&id, owner, Instant::now()) {
                Some(used) => Ok(Entered::Session(id, used)),
                None => Err(answer::text(StatusCode::NOT_FOUND, "no such session\n").into()),
            },
            None if initializes => match self.sessions.reserve() {
                Some(place) => Ok(Entered::Opening(place)),
                None => Err(answer::unavailable("too many sessions; see MCP_MAX_HTTP_SESSIONS\n").into()),
            },
            None => Ok(Entered::Nothing),
        }
    }

    /// Makes the MCP layer's answer ours: streams are watched, a shape error is a JSON-RPC error.
    fn finish(
        &self,
        response: Response<http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>>,
        is_post: bool,
        asked: &Asked,
        feed: Option<Feed>,
        used: Option<Use>,
        call: Call,
    ) -> Response<Body> {
        if is_post && response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE && asked.was_json {
            let id = asked.id.clone().unwrap_or_default();
            return answer::rpc_error(INVALID_REQUEST, "the request is not a message of this protocol", &id);
        }
        let (parts, body) = response.into_parts();
        let is_stream = parts
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if !is_stream {
            return Response::from_parts(parts, Body::new(body));
        }
        let used = used.map(Arc::new);
        let listens = feed.is_some();
        let (stream, watched) = self.streams.watch(body, feed, (used.clone(), call), Instant::now());
        if listens && let Some(before) = used.and_then(|used| used.listen_on(&stream)) {
            before.end();
        }
        Response::from_parts(parts, Body::new(watched))
    }

    /// Looks after streams and sessions until the front stops.
    pub(super) async fn look_after(&self) {
        let mut turns = tokio::time::interval(self.timing.turn);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.stop.run_until_cancelled(turns.tick()).await.is_some() {
            let now = Instant::now();
            self.health.turn(now);
            let ended = self.streams.end_stalled(now, self.timing.stall);
            if ended > 0 {
                tracing::info!(target: target_names::HTTP, streams = ended, reason = "client does not read", "streams ended");
            }
            let idle = self.sessions.take_idle(now, self.settings.http_session_idle);
            if !idle.is_empty() {
                tracing::info!(target: target_names::HTTP, sessions = idle.len(), reason = "idle", "sessions ended");
            }
            self.close_all(idle).await;
            let strays = self.take_strays(now).await;
            self.close_all(strays).await;
        }
    }

    /// Sessions of the MCP layer that belong to nobody: their client went away while they were being opened.
    async fn take_strays(&self, now: Instant) -> Vec<SessionId> {
        let live = self.manager.sessions.read().await;
        self.sessions.take_strays(live.keys(), now)
    }

    async fn close_all(&self, ids: Vec<SessionId>) {
        for id in ids {
            // It may have ended by itself.
            let _ = self.manager.close_session(&id).await;
        }
    }

    /// Ends every session.
    pub(super) async fn end_sessions(&self) {
        self.close_all(self.sessions.take_all()).await;
    }
}

/// An answer that keeps a request from going on. In a box, because most requests do go on.
type Refusal = Box<Response<Body>>;

/// What a request found on its way in.
enum Entered {
    /// It has no session and opens none, although its revision has them.
    Nothing,
    /// It is of a revision without sessions.
    Modern,
    /// It opens one.
    Opening(Place),
    /// It belongs to one.
    Session(String, Use),
}

/// What is looked at before the MCP layer reads a message.
#[derive(Default, Deserialize)]
struct Asked {
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    id: Option<Value>,
    #[serde(skip, default = "yes")]
    was_json: bool,
}

fn yes() -> bool {
    true
}

fn session_of(headers: &HeaderMap) -> Option<String> {
    headers.get(SESSION_HEADER)?.to_str().ok().map(str::to_owned)
}

/// Whether a request names a revision without sessions.
fn is_modern(headers: &HeaderMap) -> bool {
    headers.get("mcp-protocol-version").is_some_and(|version| version.as_bytes() >= FIRST_MODERN)
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

/// Whether a client leaves the form of the answer open.
fn accepts_anything(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).is_none_or(|accept| accept.as_bytes().trim_ascii() == b"*/*")
}

/// What the SDK's event ids of a call's stream have, and those of the stream of notifications have not.
const CALL_MARK: char = '/';
const SESSION_HEADER: &str = "mcp-session-id";
/// The first revision of MCP without sessions.
const FIRST_MODERN: &[u8] = b"2026-07-28";
const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
