//! The client in this process: JSON-RPC requests over a pipe in memory, each with its answer.
//!
//! What lanes say does not come by here but through the outlet of the handler ([`super::lanes`]).

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use ssh_mcp_core::{
    code::Code,
    sync::{AtomicU64, Mutex, Ordering},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

use super::event::{Failed, Warn};

/// The server's end is reached by calls.
pub(super) struct Pipe {
    open: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    next: AtomicU64,
    lines: mpsc::Sender<String>,
    /// Cancelled when the server answers no more.
    dead: CancellationToken,
}

/// What a tool answered.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The structured form, without what every answer has.
    pub(super) data: Map<String, Value>,
    pub(super) status: String,
    pub(super) text: String,
    pub(super) warnings: Vec<Warn>,
}

/// What a read of a resource answered.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Content {
    pub(super) text: Option<String>,
    pub(super) blob: Option<String>,
    #[serde(rename = "_meta", default)]
    pub(super) meta: Meta,
}

/// What stands beside a content.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Meta {
    cursor: Option<u64>,
    last_seq: Option<u64>,
    pub(super) more: bool,
    pub(super) truncated_since_last_read: Option<u64>,
    pub(super) status: Option<String>,
}

impl Meta {
    /// Where the next read would start.
    pub(super) fn next(&self) -> u64 {
        self.cursor.or(self.last_seq).unwrap_or(0)
    }
}

#[derive(Deserialize)]
struct Contents {
    contents: Vec<Content>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CallResult {
    #[serde(default)]
    content: Vec<Content>,
    #[serde(default)]
    structured_content: Map<String, Value>,
    #[serde(default)]
    is_error: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Warning {
    code: String,
    msg: String,
    resource: Option<String>,
    age_ms: Option<u64>,
    severity: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    id: Option<u64>,
    result: Option<Value>,
    error: Option<RpcError>,
}

#[derive(Deserialize)]
struct RpcError {
    code: i64,
    message: String,
    #[serde(default)]
    data: ErrorFacts,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorFacts {
    code: Option<String>,
    category: Option<String>,
    retry: Option<String>,
    detail: Option<String>,
}

impl Pipe {
    /// A client at one end of a pipe, and what has to run for it.
    pub(super) fn new<R, W>(reader: R, writer: W) -> (Arc<Self>, impl Future<Output = ()>)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let (lines, queue) = mpsc::channel(64);
        let pipe = Arc::new(Self {
            open: Mutex::default(),
            next: AtomicU64::new(1),
            lines,
            dead: CancellationToken::new(),
        });
        let work = Arc::clone(&pipe).run(reader, writer, queue);
        (pipe, work)
    }

    async fn run(
        self: Arc<Self>,
        reader: impl AsyncRead + Unpin,
        mut writer: impl AsyncWrite + Unpin,
        mut queue: mpsc::Receiver<String>,
    ) {
        let writing = async {
            while let Some(line) = queue.recv().await {
                if writer.write_all(line.as_bytes()).await.is_err() {
                    return;
                }
            }
        };
        let reading = async {
            let mut lines = BufReader::new(reader).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                // What is no answer is a notification, which the outlet has told already.
                let Ok(answer) = serde_json::from_str::<Answer>(&line) else { continue };
                let waiter = answer.id.and_then(|id| self.open.lock().remove(&id));
                if let Some(waiter) = waiter {
                    // A caller that is gone does not need it.
                    _ = waiter.send(answer);
                }
            }
        };
        tokio::select! {
            () = writing => {}
            () = reading => {}
        }
        self.dead.cancel();
        // Their callers find out.
        self.open.lock().clear();
    }

    /// Ends when the server answers no more.
    pub(super) async fn dead(&self) {
        self.dead.cancelled().await;
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// If the server does not.
    pub(super) async fn greet(&self) -> Result<(), Failed> {
        let client = json!({ "name": "ssh-mcp-tail", "version": env!("CARGO_PKG_VERSION") });
        let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
        self.request::<Value>("initialize", hello).await?;
        let note = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        self.lines.send(format!("{note}\n")).await.map_err(|_| gone())
    }

    /// Calls a tool.
    ///
    /// # Errors
    /// Those of the tool, or of the call itself.
    pub(super) async fn call(
        &self,
        tool: &str,
        arguments: Map<String, Value>,
        key: Option<&Value>,
    ) -> Result<Told, Box<Failed>> {
        let mut params = json!({ "name": tool, "arguments": arguments });
        if let (Some(key), Some(params)) = (key, params.as_object_mut()) {
            params.insert("_meta".into(), json!({ "idempotency_key": key }));
        }
        let result: CallResult = self.request("tools/call", params).await?;
        let text = result.content.into_iter().find_map(|content| content.text).unwrap_or_default();
        let mut data = result.structured_content;
        let mut take = |name: &str| match data.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        if result.is_error {
            return Err(Box::new(Failed {
                code: take("code").unwrap_or_else(|| Code::InternalError.as_str().to_owned()),
                reason: take("reason").unwrap_or(text),
                detail: take("detail"),
                category: take("category"),
                retry: take("retry"),
                ..Failed::default()
            }));
        }
        let status = take("status").unwrap_or_default();
        let warnings = match data.remove("warnings") {
            Some(warnings) => serde_json::from_value::<Vec<Warning>>(warnings).unwrap_or_default(),
            None => Vec::new(),
        };
        let warnings = warnings.into_iter().map(Warn::from).collect();
        // Advice for models.
        ["tool", "hint", "next"].iter().for_each(|name| _ = data.remove(*name));
        Ok(Told { data, status, text, warnings })
    }

    /// Reads a resource: its one content.
    ///
    /// # Errors
    /// Those of the read.
    pub(super) async fn read(&self, uri: &str) -> Result<Content, Box<Failed>> {
        let result: Contents = self.request("resources/read", json!({ "uri": uri })).await?;
        Ok(result.contents.into_iter().next().unwrap_or_default())
    }

    async fn request<T: DeserializeOwned>(&self, method: &str, params: Value) -> Result<T, Box<Failed>> {
        // Relaxed: a number nobody else has.
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.open.lock().insert(id, answer);
        let line = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let sent = self.lines.send(format!("{line}\n")).await;
        // The reader clears what is open once, after it said so.
        if sent.is_err() || self.dead.is_cancelled() {
            self.open.lock().remove(&id);
            return Err(Box::new(gone()));
        }
        match answered.await {
            Ok(Answer { error: Some(error), .. }) => Err(Box::new(refused(error))),
            Ok(Answer { result, .. }) => {
                serde_json::from_value(result.unwrap_or_default()).map_err(|error| {
                    Box::new(Failed::of(Code::InternalError, format!("an answer to {method}: {error}")))
                })
            }
            Err(_) => Err(Box::new(gone())),
        }
    }
}

fn gone() -> Failed {
    Failed::of(Code::TransportError, "the server is shutting down")
}

impl From<Warning> for Warn {
    fn from(warning: Warning) -> Self {
        let Warning { code, msg, resource, age_ms, severity } = warning;
        Self { code, msg, id: None, resource, age_ms, severity }
    }
}

/// A JSON-RPC error in the words of a tool's.
fn refused(error: RpcError) -> Failed {
    /// Invalid params, and method not found.
    const CALLER: [i64; 2] = [-32602, -32601];
    let code = if CALLER.contains(&error.code) { Code::InvalidArgument } else { Code::InternalError };
    let plain = Failed::of(code, error.message);
    let ErrorFacts { code, category, retry, detail } = error.data;
    match code {
        None => plain,
        Some(code) => Failed {
            code,
            category: category.or(plain.category),
            retry: retry.or(plain.retry),
            detail: detail.or(plain.detail),
            ..plain
        },
    }
}

impl From<Box<Failed>> for Failed {
    fn from(failed: Box<Failed>) -> Self {
        *failed
    }
}
