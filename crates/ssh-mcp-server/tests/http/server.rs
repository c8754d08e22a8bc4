//! A server with a handler of a few tools, to see what the front makes of a request.

#![expect(deprecated, reason = "log messages are what goes to a session's own stream without more ado")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, LoggingLevel,
    LoggingMessageNotificationParam, ServerCapabilities, ServerConfig, SubscriptionFilter,
};
use rmcp::service::{RequestContext, SubscriptionContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use ssh_mcp_core::owner::Owner;
use ssh_mcp_core::settings::{Listen, Settings};
use ssh_mcp_server::http::{self as front, Room, Running, StartError, Timing};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// What a test and its handlers share.
#[derive(Clone)]
pub(crate) struct Stage {
    /// Tells of each handler that called a tool and then ended.
    ended: mpsc::UnboundedSender<String>,
    /// Tells of each call of `wait` that has begun.
    begun: mpsc::UnboundedSender<()>,
    /// Lets calls of `wait` end.
    release: Arc<Semaphore>,
    /// Ends every `subscriptions/listen`.
    silent: CancellationToken,
}

pub(crate) struct Tiny {
    stage: Stage,
    /// What the last call said it was.
    name: std::sync::Mutex<String>,
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = self.stage.ended.send(self.name.lock().unwrap().clone());
    }
}

impl ServerHandler for Tiny {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_logging().build())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, _context: SubscriptionContext) -> Result<(), ErrorData> {
        self.stage.silent.cancelled().await;
        Ok(())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let parts = context.extensions.get::<::http::request::Parts>().unwrap();
        let owner = parts.extensions.get::<Owner>().unwrap().to_string();
        *self.name.lock().unwrap() = request.name.to_string();
        let text = match request.name.as_ref() {
            "whoami" => owner,
            "wait" => {
                self.stage.begun.send(()).unwrap();
                let released = context.ct.run_until_cancelled(self.stage.release.acquire()).await;
                released
                    .map_or("cancelled", |permit| {
                        permit.unwrap().forget();
                        "waited"
                    })
                    .to_owned()
            }
            "tell" => {
                notify(&context, "told".to_owned()).await;
                "done".to_owned()
            }
            "flood" => {
                for _ in 0..512 {
                    notify(&context, "x".repeat(64 << 10)).await;
                }
                "done".to_owned()
            }
            other => return Err(ErrorData::invalid_params(other.to_owned(), None)),
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

async fn notify(context: &RequestContext<RoleServer>, text: String) {
    let message = LoggingMessageNotificationParam::new(LoggingLevel::Info, text.into());
    let _ = context.peer.notify_logging_message(message).await;
}

pub(crate) struct Server {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) running: Running<Tiny>,
    pub(crate) settings: Arc<Settings>,
    ended: mpsc::UnboundedReceiver<String>,
    begun: mpsc::UnboundedReceiver<()>,
    release: Arc<Semaphore>,
    silent: CancellationToken,
}

impl Server {
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Waits until a handler whose last call was `name` has ended.
    pub(crate) async fn ended(&mut self, name: &str) {
        while self.ended.recv().await.unwrap() != name {}
    }

    /// Waits until a call of `wait` has begun.
    pub(crate) async fn begun(&mut self) {
        self.begun.recv().await.unwrap();
    }

    /// Lets one call of `wait` end.
    pub(crate) fn release(&self) {
        self.release.add_permits(1);
    }

    /// Lets every `subscriptions/listen` end by itself.
    pub(crate) fn silence(&self) {
        self.silent.cancel();
    }
}

pub(crate) fn loopback() -> Listen {
    Listen { host: "127.0.0.1".to_owned(), port: 0 }
}

/// Starts a server on loopback with the settings that `change` makes of the defaults.
pub(crate) async fn serve(change: impl FnOnce(&mut Settings)) -> Server {
    serve_timed(Timing::default(), change).await.unwrap_or_else(|error| panic!("{error}"))
}

/// The pace of tests that wait for something to run out.
pub(crate) fn quick() -> Timing {
    let ms = Duration::from_millis;
    Timing { turn: ms(10), keep_alive: ms(50), stall: ms(500) }
}

pub(crate) async fn serve_timed(
    timing: Timing,
    change: impl FnOnce(&mut Settings),
) -> Result<Server, StartError> {
    let mut settings = Settings { http_bind: vec![loopback()], ..Settings::default() };
    change(&mut settings);
    let settings = Arc::new(settings);
    let (ended, ended_receiver) = mpsc::unbounded_channel();
    let (begun, begun_receiver) = mpsc::unbounded_channel();
    let release = Arc::new(Semaphore::new(0));
    let silent = CancellationToken::new();
    let stage = Stage { ended, begun, release: Arc::clone(&release), silent: silent.clone() };
    let bound = front::bind(&settings).await?.with_timing(timing);
    let addresses = bound.addresses();
    let make = move |_| Tiny { stage: stage.clone(), name: std::sync::Mutex::default() };
    let running = bound.serve(make, || Room::Left);
    let (ended, begun) = (ended_receiver, begun_receiver);
    Ok(Server { addresses, running, settings, ended, begun, release, silent })
}
