//! A client of `ssh-mcp` over HTTP/1.1: requests of each kind, and event streams that are read, left unread, or dropped.
//!
//! Not an SDK, for the reasons of `client.rs`. One connection for each request; [`Events`] holds one open.

use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

use crate::client::{LIMIT, RpcError, ToolAnswer, client_info, result_of};
use crate::http::Product;

/// What a client's requests have in common.
enum Kind {
    /// They belong to an HTTP session of the era with `initialize`.
    Session(String),
    /// They stand alone, each with its `_meta`.
    Modern,
    /// They stand alone, without a handshake.
    Plain,
}

/// One client.
pub(crate) struct Web {
    address: String,
    kind: Kind,
    capabilities: Value,
    next_id: AtomicI64,
}

impl Web {
    /// A client that opens a session and declares these capabilities.
    pub(crate) async fn in_session(product: &Product, capabilities: Value) -> Self {
        let mut client = Self::new(product, Kind::Plain, json!({}));
        let hello =
            json!({"protocolVersion": LEGACY, "capabilities": capabilities, "clientInfo": client_info()});
        let mut events = client.post("initialize", hello).await;
        let session = events.header("mcp-session-id").expect("a session").to_owned();
        events.answer().await.expect("the server shakes hands");
        client.kind = Kind::Session(session);
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(client.send("POST", "", Some(&initialized)).await.status, 202);
        client
    }

    /// A client of the era without sessions.
    pub(crate) fn modern(product: &Product, capabilities: Value) -> Self {
        Self::new(product, Kind::Modern, capabilities)
    }

    /// A client that posts and knows nothing else.
    pub(crate) fn plain(product: &Product) -> Self {
        Self::new(product, Kind::Plain, json!({}))
    }

    fn new(product: &Product, kind: Kind, capabilities: Value) -> Self {
        Self { address: product.address().to_owned(), kind, capabilities, next_id: AtomicI64::new(1) }
    }

    /// Calls a tool; a JSON-RPC error instead of an answer is a failed test.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> ToolAnswer {
        let result = self.request("tools/call", json!({"name": tool, "arguments": arguments})).await;
        ToolAnswer::parse(&result.unwrap_or_else(|error| panic!("{tool} {arguments}: {error:?}")))
    }

    /// Sends a request and waits for its result.
    pub(crate) async fn request(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.post(method, params).await.answer().await
    }

    /// The stream of the session's notifications.
    pub(crate) async fn stream(&self) -> Events {
        let events = self.send("GET", "", None).await;
        assert_eq!(events.status, 200);
        events
    }

    /// What is said of a stream after one of its events.
    pub(crate) async fn resume(&self, event: &str) -> Events {
        self.send("GET", &format!("last-event-id: {event}\r\n"), None).await
    }

    /// `subscriptions/listen`, acknowledged.
    pub(crate) async fn listen(&self, notifications: Value) -> Events {
        let mut events = self.post("subscriptions/listen", json!({"notifications": notifications})).await;
        assert_eq!(events.status, 200);
        events.hear(|heard| heard.iter().find(|said| said["method"] == ACKNOWLEDGED).map(|_| ())).await;
        events
    }

    /// Sends `subscriptions/listen` and goes away without reading.
    pub(crate) async fn listen_and_vanish(&self, notifications: Value) {
        let (headers, body) = self.message("subscriptions/listen", json!({"notifications": notifications}));
        drop(self.write("POST", &headers, Some(&body)).await);
    }

    /// Ends the session.
    pub(crate) async fn leave(&self) {
        assert!((200..300).contains(&self.send("DELETE", "", None).await.status));
    }

    /// Sends a request; its answer is still coming.
    pub(crate) async fn post(&self, method: &str, params: Value) -> Events {
        let (headers, body) = self.message(method, params);
        self.send("POST", &headers, Some(&body)).await
    }

    /// Answers a request of the server.
    pub(crate) async fn reply(&self, request: &Value, result: Value) {
        let reply = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
        assert_eq!(self.send("POST", "", Some(&reply)).await.status, 202);
    }

    /// A request, and the headers that repeat what is in it.
    fn message(&self, method: &str, mut params: Value) -> (String, Value) {
        let mut headers = String::new();
        if let Kind::Modern = self.kind {
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = MODERN.into();
            params["_meta"]["io.modelcontextprotocol/clientInfo"] = client_info();
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = self.capabilities.clone();
            headers = format!("mcp-method: {method}\r\n");
            let name = params["name"].as_str().or(params["uri"].as_str());
            headers.extend(name.map(|name| format!("mcp-name: {name}\r\n")));
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        (headers, json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
    }

    async fn send(&self, verb: &str, headers: &str, body: Option<&Value>) -> Events {
        let socket = self.write(verb, headers, body).await;
        let id = body.map_or(Value::Null, |body| body["id"].clone());
        Events::open(socket, id).await
    }

    async fn write(&self, verb: &str, headers: &str, body: Option<&Value>) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        // A client that does not read is to be noticed after kilobytes, not after what the kernel likes to keep.
        socket.set_recv_buffer_size(32 << 10).unwrap();
        let mut socket = socket.connect(self.address.parse().unwrap()).await.unwrap();
        let own = match &self.kind {
            Kind::Session(id) => format!("mcp-session-id: {id}\r\nmcp-protocol-version: {LEGACY}\r\n"),
            Kind::Modern => format!("mcp-protocol-version: {MODERN}\r\n"),
            Kind::Plain => String::new(),
        };
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{verb} /mcp HTTP/1.1\r\nhost: {}\r\n{own}{headers}connection: close\r\ncontent-type: application/json\r\n\
             accept: {}\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            if verb == "GET" { "text/event-stream" } else { "application/json, text/event-stream" },
            body.len()
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        socket
    }
}

/// An answer that is still coming; dropping it closes its connection.
pub(crate) struct Events {
    socket: BufReader<TcpStream>,
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    /// The request's id.
    id: Value,
    /// What has come of an event that is not complete.
    partial: String,
    /// The id of the last event that had one.
    pub(crate) last_event: String,
    /// Everything said so far.
    heard: Vec<Value>,
}

/// How an answer came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As HTTP wants it.
    Clean,
    /// The connection was cut.
    Cut,
}

impl Events {
    async fn open(socket: TcpStream, id: Value) -> Self {
        let (headers, heard) = (Vec::new(), Vec::new());
        let (socket, partial, last_event) = (BufReader::new(socket), String::new(), String::new());
        let mut events = Self { socket, status: 0, headers, id, partial, last_event, heard };
        events.status = events.line().await.split(' ').nth(1).expect("a status line").parse().unwrap();
        while let Some((name, value)) = events.line().await.split_once(": ") {
            events.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        events
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Waits until `look` finds in everything said so far what it looks for.
    pub(crate) async fn hear<T>(&mut self, look: impl Fn(&[Value]) -> Option<T>) -> T {
        let found = tokio::time::timeout(LIMIT, async {
            loop {
                if let Some(found) = look(&self.heard) {
                    return found;
                }
                if let Err(ending) = self.more().await {
                    panic!("{ending:?} after {:?}", self.heard);
                }
            }
        });
        found.await.expect("nothing of the kind came")
    }

    /// Waits for a notification that `is_wanted`.
    pub(crate) async fn notification(&mut self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        self.hear(|heard| heard.iter().find(|note| is_wanted(note)).cloned()).await
    }

    /// Reads to the end; everything that was said, and how it ended.
    pub(crate) async fn rest(&mut self) -> (Vec<Value>, Ending) {
        let ending = tokio::time::timeout(LIMIT, async {
            loop {
                if let Err(ending) = self.more().await {
                    return ending;
                }
            }
        });
        let ending = ending.await.expect("an end");
        (self.heard.clone(), ending)
    }

    /// Says that nothing more is wanted, and waits until the server has let go of the connection too.
    pub(crate) async fn hang_up(mut self) {
        self.socket.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let let_go = tokio::time::timeout(LIMIT, self.socket.read_to_end(&mut rest)).await;
        // Whichever way it does.
        _ = let_go.expect("the server lets go");
    }

    /// Waits for the answer of the request.
    pub(crate) async fn answer(&mut self) -> Result<Value, RpcError> {
        let id = self.id.clone();
        self.hear(|heard| heard.iter().find(|said| said["id"] == id).map(result_of)).await
    }

    /// Takes in what comes next.
    async fn more(&mut self) -> Result<(), Ending> {
        let is_chunked = self.header("transfer-encoding") == Some("chunked");
        let size = match is_chunked {
            true => usize::from_str_radix(&self.line().await, 16).map_err(|_| Ending::Cut)?,
            false => {
                let at = self.headers.iter().position(|(name, _)| name == "content-length");
                at.map_or(0, |at| self.headers.remove(at).1.parse().unwrap())
            }
        };
        if size == 0 {
            return Err(Ending::Clean);
        }
        let mut bytes = vec![0; size];
        self.socket.read_exact(&mut bytes).await.map_err(|_| Ending::Cut)?;
        if is_chunked {
            self.line().await;
        }
        self.partial.push_str(&String::from_utf8(bytes).expect("an event is not cut within a character"));
        if self.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
            while let Some((event, rest)) = self.partial.split_once("\n\n") {
                let id = event.lines().find_map(|line| line.strip_prefix("id:"));
                self.last_event = id.map_or(std::mem::take(&mut self.last_event), |id| id.trim().to_owned());
                let data: String = event.lines().filter_map(|line| line.strip_prefix("data:")).collect();
                // Comments keep the stream alive, and an event without data tells where to resume.
                self.heard.extend(serde_json::from_str::<Value>(&data).ok());
                self.partial = rest.to_owned();
            }
        } else {
            self.heard.push(serde_json::from_str(&self.partial).expect("one JSON body"));
        }
        Ok(())
    }

    /// A line of the protocol around the body; empty at the end.
    async fn line(&mut self) -> String {
        let mut line = String::new();
        // A connection that was reset has ended too.
        _ = tokio::time::timeout(LIMIT, self.socket.read_line(&mut line)).await.expect("the server goes on");
        line.trim_end().to_owned()
    }
}

const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
