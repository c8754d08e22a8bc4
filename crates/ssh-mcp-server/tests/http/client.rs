//! A client that speaks just enough HTTP/1.1 to send any request, a wrong one too.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A request under construction. It names `localhost` and accepts what MCP asks clients to accept.
#[derive(Clone)]
pub(crate) struct Ask {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

pub(crate) fn ask(method: &'static str, path: &str) -> Ask {
    let ask = Ask { method, path: path.to_owned(), headers: Vec::new(), body: Vec::new() };
    ask.with("Host", "localhost")
        .with("Accept", "application/json, text/event-stream")
        .with("Connection", "close")
}

/// A JSON-RPC request by POST.
pub(crate) fn rpc(method: &str, params: &str) -> Ask {
    raw(&format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{params}}}"#))
}

/// A call of a tool without arguments.
pub(crate) fn call(tool: &str) -> Ask {
    rpc("tools/call", &format!(r#"{{"name":"{tool}"}}"#))
}

pub(crate) fn initialize() -> Ask {
    let client = r#""capabilities":{},"clientInfo":{"name":"test","version":"1"}"#;
    rpc("initialize", &format!(r#"{{"protocolVersion":"2025-06-18",{client}}}"#))
}

/// A POST with this body.
pub(crate) fn raw(body: &str) -> Ask {
    let mut ask = ask("POST", "/").with("Content-Type", "application/json");
    ask.body = body.as_bytes().to_vec();
    ask
}

impl Ask {
    /// Sets a header.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    pub(crate) fn at(mut self, path: &str) -> Self {
        self.path = path.to_owned();
        self
    }

    fn head(&self) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        let chosen =
            self.headers.iter().any(|(name, _)| name == "Content-Length" || name == "Transfer-Encoding");
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !chosen && self.method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head + "\r\n"
    }

    /// Sends it and reads the head of the answer.
    pub(crate) async fn open(&self, address: SocketAddr) -> Open {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(&[self.head().as_bytes(), &self.body].concat()).await.unwrap();
        let mut open = Open { socket: BufReader::new(socket), status: 0, headers: Vec::new() };
        let first = open.line().await.expect("an answer");
        open.status = first.split(' ').nth(1).unwrap().parse().unwrap();
        while let Some((name, value)) = open.line().await.unwrap().split_once(": ") {
            open.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        open
    }

    /// Sends it and reads the answer to its end.
    pub(crate) async fn send(&self, address: SocketAddr) -> Answer {
        let mut open = self.open(address).await;
        let mut body = String::new();
        if self.method != "HEAD" {
            match open.header("content-length").map(str::to_owned) {
                Some(length) => {
                    let mut bytes = vec![0; length.parse().unwrap()];
                    open.socket.read_exact(&mut bytes).await.unwrap();
                    body = String::from_utf8(bytes).unwrap();
                }
                None => {
                    while let Some(line) = open.line().await {
                        body.push_str(&line);
                        body.push('\n');
                    }
                }
            }
        }
        Answer { status: open.status, headers: open.headers, body }
    }

    /// Sends it and goes away without reading.
    pub(crate) async fn abandon(&self, address: SocketAddr) -> TcpStream {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(&[self.head().as_bytes(), &self.body].concat()).await.unwrap();
        socket
    }
}

/// An answer whose body is still coming.
pub(crate) struct Open {
    socket: BufReader<TcpStream>,
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
}

impl Open {
    /// The next line, of the body as it is on the wire; `None` at the end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.socket.read_line(&mut line).await.unwrap_or(0);
        (read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Reads on until a line has `text` in it; `false` if the body ends before.
    pub(crate) async fn has(&mut self, text: &str) -> bool {
        while let Some(line) = self.line().await {
            if line.contains(text) {
                return true;
            }
        }
        false
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A whole answer; a chunked body has the lengths of its chunks in it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON, taken out of its event where it is one.
    pub(crate) fn json(&self) -> serde_json::Value {
        let event =
            self.body.lines().rfind(|line| line.starts_with("data: {")).map(|line| &line["data: ".len()..]);
        serde_json::from_str(event.unwrap_or(&self.body)).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The text of a tool's answer.
    pub(crate) fn said(&self) -> String {
        let json = self.json();
        json["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {json}")).to_owned()
    }
}
