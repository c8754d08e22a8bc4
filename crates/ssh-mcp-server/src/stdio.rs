//! The stdio front: one client on the standard streams, one JSON-RPC message a line.
//!
//! The SDK's own line transport writes; reading is done here, because a line that is no JSON must be answered, a client
//! that only sends must be held back, and the end of input must end the process without waiting for calls that wait
//! (`docs/architecture.md`, "Fronts"). Standard output carries protocol only.

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use rmcp::{
    ServerHandler, ServiceExt as _,
    model::{
        ClientNotification, ClientRequest, ErrorCode, ErrorData, JsonRpcMessage, RequestId,
        ServerNotification,
    },
    service::{RoleServer, RxJsonRpcMessage, TxJsonRpcMessage},
    transport::{Transport, async_rw::AsyncRwTransport},
};
use ssh_mcp_core::{port::BoxFuture, sync::Mutex, target_names};
use ssh_mcp_handler::Shortcut;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, BufReader, Empty},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

/// A client that has so many calls open is read no further until one is answered.
const MOST_CALLS: usize = 256;

/// The longest line; a message of that size fits over HTTP as well.
const LONGEST_LINE: usize = 16 * 1024 * 1024;

/// Calls that are running when the input ends have this long.
const LAST_CALLS: Duration = Duration::from_secs(2);

/// Serves one client until its input ends, nobody reads the output any more, or `stop` is cancelled; then running calls
/// get 2 s.
pub async fn serve<H, R, W>(handler: H, reader: R, output: Arc<Output<W>>, stop: CancellationToken)
where
    H: ServerHandler,
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let calls = Arc::new(Calls::default());
    let lines = Lines {
        reader: BufReader::new(reader),
        line: Vec::new(),
        skipping: false,
        greeted: false,
        output,
        calls: Arc::clone(&calls),
        stop: stop.clone(),
    };
    let service = async {
        match handler.serve(lines).await {
            Ok(service) => _ = service.waiting().await,
            // A client that goes away before its first request is no failure.
            Err(error) => tracing::debug!(target: target_names::MAIN, %error, "no session"),
        }
    };
    let last_call = async {
        calls.input_ended.cancelled().await;
        _ = tokio::time::timeout(LAST_CALLS, calls.all_answered()).await;
    };
    tokio::select! {
        () = service => {}
        () = last_call => {}
    }
}

/// Where lines go, whole and one after the other: the SDK's messages, and notifications that do not pass through it.
pub struct Output<W: AsyncWrite> {
    transport: Mutex<Option<AsyncRwTransport<RoleServer, Empty, W>>>,
    /// Cancelled once a line could not be written: nobody hears, and none ever will.
    unheard: CancellationToken,
}

impl<W: AsyncWrite + Send + Unpin + 'static> Output<W> {
    /// An output that is open.
    pub fn new(writer: W) -> Arc<Self> {
        let transport = AsyncRwTransport::new_server(tokio::io::empty(), writer);
        Arc::new(Self { transport: Mutex::new(Some(transport)), unheard: CancellationToken::new() })
    }

    fn write(&self, item: TxJsonRpcMessage<RoleServer>) -> BoxFuture<'static, io::Result<()>> {
        // The lock is held for making the future, which waits for its turn by itself.
        match &mut *self.transport.lock() {
            Some(transport) => {
                let (sent, unheard) = (transport.send(item), self.unheard.clone());
                Box::pin(async move { sent.await.inspect_err(|_| unheard.cancel()) })
            }
            None => Box::pin(std::future::ready(Err(io::ErrorKind::NotConnected.into()))),
        }
    }

    /// Nothing is written any more, once the line that is being written is.
    async fn close(&self) -> io::Result<()> {
        let transport = self.transport.lock().take();
        match transport {
            Some(mut transport) => transport.close().await,
            None => Ok(()),
        }
    }
}

impl<W: AsyncWrite + Send + Unpin + 'static> Shortcut for Output<W> {
    fn send(&self, notification: ServerNotification) -> BoxFuture<'static, io::Result<()>> {
        self.write(JsonRpcMessage::notification(notification))
    }
}

/// The requests that wait for their answer.
#[derive(Default)]
struct Calls {
    open: Mutex<HashSet<RequestId>>,
    /// Those that stand as long as their client likes: nobody waits for their answer.
    standing: Mutex<HashSet<RequestId>>,
    answered: Notify,
    input_ended: CancellationToken,
}

impl Calls {
    /// Notes a request; a second one with the identifier of an open one is refused.
    fn begin(&self, id: &RequestId, request: &ClientRequest) -> bool {
        if self.standing.lock().contains(id) || self.open.lock().contains(id) {
            return false;
        }
        let stands = matches!(request, ClientRequest::SubscriptionsListenRequest(_));
        let requests = if stands { &self.standing } else { &self.open };
        requests.lock().insert(id.clone())
    }

    fn end(&self, id: &RequestId) {
        self.standing.lock().remove(id);
        self.open.lock().remove(id);
        self.answered.notify_waiters();
    }

    fn count(&self) -> usize {
        self.open.lock().len()
    }

    async fn below(&self, limit: usize) {
        loop {
            let answered = self.answered.notified();
            tokio::pin!(answered);
            // Registered before the look, so that an answer in between is not missed.
            answered.as_mut().enable();
            if self.count() < limit {
                return;
            }
            answered.await;
        }
    }

    async fn all_answered(&self) {
        self.below(1).await;
    }
}

/// The standard streams as a transport.
struct Lines<R, W: AsyncWrite> {
    reader: BufReader<R>,
    /// What has been read of a line; kept here, because reading may be dropped half-way.
    line: Vec<u8>,
    /// The rest of a line that was too long.
    skipping: bool,
    /// Whether a request has come; before it the SDK takes nothing else.
    greeted: bool,
    output: Arc<Output<W>>,
    calls: Arc<Calls>,
    stop: CancellationToken,
}

/// What one line turned out to be.
enum Line {
    Message(Box<RxJsonRpcMessage<RoleServer>>),
    Fault(ErrorData, Option<RequestId>),
    Nothing,
}

impl<R, W> Lines<R, W>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    /// The next line that is not empty, in `self.line`; `Ok(false)` at the end of input.
    async fn read_line(&mut self) -> io::Result<bool> {
        loop {
            let available = self.reader.fill_buf().await?;
            if available.is_empty() {
                // A last line without its end is a line all the same.
                return Ok(self.skipping || !self.line.trim_ascii().is_empty());
            }
            let newline = available.iter().position(|byte| *byte == b'\n');
            let part = newline.map_or(available, |at| available.get(..at).unwrap_or_default());
            if self.line.len() + part.len() > LONGEST_LINE {
                self.line = Vec::new();
                self.skipping = true;
            } else if !self.skipping {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(newline.is_some());
            self.reader.consume(used);
            if newline.is_some() && (self.skipping || !self.line.trim_ascii().is_empty()) {
                return Ok(true);
            }
            if newline.is_some() {
                self.line.clear();
            }
        }
    }

    /// Takes the line that has been read apart.
    fn take_line(&mut self) -> Line {
        if std::mem::take(&mut self.skipping) {
            let text = format!("a line may be at most {LONGEST_LINE} bytes long");
            return Line::Fault(ErrorData::invalid_request(text, None), None);
        }
        let line = std::mem::take(&mut self.line);
        let text = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&line).trim_ascii();
        let parsed = match serde_json::from_slice(text) {
            Ok(message) => Line::Message(Box::new(message)),
            Err(_) => fault(text),
        };
        // The buffer is kept unless one long line has made it large.
        if line.capacity() <= 64 * 1024 {
            self.line = line;
            self.line.clear();
        }
        parsed
    }
}

/// Why a line is no message, and to which request that is an answer.
fn fault(text: &[u8]) -> Line {
    let value: serde_json::Value = match serde_json::from_slice(text) {
        Ok(value) => value,
        Err(error) => {
            let text = format!("not JSON: {error}");
            return Line::Fault(ErrorData::new(ErrorCode::PARSE_ERROR, text, None), None);
        }
    };
    let id = value.get("id").and_then(|id| serde_json::from_value(id.clone()).ok());
    match (&id, value.get("method")) {
        // A notification nobody here understands is nobody's business.
        (None, Some(_)) => Line::Nothing,
        _ => Line::Fault(ErrorData::invalid_request("not a JSON-RPC message of MCP", None), id),
    }
}

impl<R, W> Transport<RoleServer> for Lines<R, W>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    type Error = io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let answered = match &item {
            JsonRpcMessage::Response(response) => Some(response.id.clone()),
            JsonRpcMessage::Error(error) => error.id.clone(),
            JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => None,
        };
        let calls = Arc::clone(&self.calls);
        let sent = self.output.write(item);
        async move {
            let outcome = sent.await;
            if let Some(id) = answered {
                calls.end(&id);
            }
            outcome
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            let (stop, unheard) = (self.stop.clone(), self.output.unheard.clone());
            let calls = Arc::clone(&self.calls);
            let ready = async {
                calls.below(MOST_CALLS).await;
                self.read_line().await
            };
            match stop.run_until_cancelled(unheard.run_until_cancelled(ready)).await {
                Some(Some(Ok(true))) => {}
                Some(Some(Ok(false) | Err(_)) | None) | None => {
                    self.calls.input_ended.cancel();
                    return None;
                }
            }
            let (error, id) = match self.take_line() {
                Line::Message(message) => match *message {
                    JsonRpcMessage::Request(request) => {
                        self.greeted = true;
                        if self.calls.begin(&request.id, &request.request) {
                            return Some(JsonRpcMessage::Request(request));
                        }
                        (ErrorData::invalid_request("a call with this id is open", None), Some(request.id))
                    }
                    message if self.greeted => {
                        // The SDK answers no request that was cancelled.
                        if let Some(id) = cancelled(&message) {
                            self.calls.end(&id);
                        }
                        return Some(message);
                    }
                    JsonRpcMessage::Response(_)
                    | JsonRpcMessage::Notification(_)
                    | JsonRpcMessage::Error(_) => continue,
                },
                Line::Nothing => continue,
                Line::Fault(error, id) => (error, id),
            };
            // Not `self.send`: an answer to a line that was no call ends no call.
            if self.output.write(JsonRpcMessage::error(error, id)).await.is_err() {
                self.calls.input_ended.cancel();
                return None;
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.output.close().await
    }
}

/// The request a message cancels.
fn cancelled(message: &RxJsonRpcMessage<RoleServer>) -> Option<RequestId> {
    let JsonRpcMessage::Notification(notification) = message else { return None };
    let ClientNotification::CancelledNotification(cancelled) = &notification.notification else {
        return None;
    };
    cancelled.params.request_id.clone()
}

#[cfg(test)]
mod tests;
