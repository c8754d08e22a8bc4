//! The MCP face of ssh-mcp: tools, resources, prompts and their words, for clients of both protocol eras.
//!
//! [`Shared`] is what all connections have in common; a [`Handler`] is made for each connection (over HTTP, in the era
//! without sessions, for each request) and costs a few reference counts. This file is rmcp's trait, a few lines per method;
//! one `tools/call` is in `call`, the tools are in `tools`.
//!
//! *Invariant:* nothing that the `catalogue` does not list is named to a client.

mod args;
mod asking;
mod audit;
mod call;
mod catalogue;
mod complete;
mod cx;
mod failure;
mod idempotency;
mod instructions;
mod legacy;
mod next;
mod outlet;
mod progress;
mod prompts;
mod push;
mod reply;
mod resources;
mod schema;
mod tools;

#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        ArgumentInfo, CacheScope, CallToolRequestParams, CallToolResponse, CompleteRequestParams,
        CompleteResult, CustomRequest, CustomResult, DiscoverResult, ErrorCode, ExperimentalCapabilities,
        Extensions, GetPromptRequestParams, GetPromptResponse, Icon, Implementation, JsonObject,
        ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
        PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse, Reference,
        ServerCapabilities, ServerConfig, SubscriptionFilter, Tool,
    },
    service::{NotificationContext, RequestContext, SubscriptionContext},
};
use serde_json::{Value, json};
use ssh_mcp_core::{owner::Owner, port::Outlet, target_names, uri::Scheme};
use ssh_mcp_engine::{Engine, ListWatch, Peer, PeerGuard};

pub use catalogue::{UnknownToolset, unknown_toolsets};
pub use outlet::{Gate, Shortcut};

use crate::{
    asking::{Asking, Sealer},
    call::{Panicked, Request},
    catalogue::Catalogue,
    cx::Cx,
    idempotency::Idempotency,
    outlet::{Encodings, ListenOutlet, PeerOutlet},
    progress::Progress,
    push::{Listening, Push, Taker},
    reply::Nonce,
};

/// What all connections have in common.
pub struct Shared {
    engine: Arc<Engine>,
    catalogue: Arc<Catalogue>,
    keys: Idempotency,
    /// Seals questions that a call ends with; `None` where there are no random bytes to do it with.
    sealer: Option<Sealer>,
    config: ServerConfig,
}

impl Shared {
    /// The face of an engine, under its settings.
    pub fn new(engine: Arc<Engine>) -> Arc<Self> {
        let catalogue = Arc::new(Catalogue::new(Arc::clone(engine.settings())));
        let keys = Idempotency::new(engine.settings());
        let mut capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_resources_list_changed()
            .enable_prompts()
            .enable_completions()
            .build();
        capabilities.experimental = engine.settings().inline_piece.map(inline_capability);
        let config = ServerConfig::new(capabilities)
            .with_server_info(implementation())
            .with_instructions(instructions::instructions(&catalogue));
        Arc::new(Self { engine, catalogue, keys, sealer: Sealer::fresh(), config })
    }

    /// The engine behind it.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The tools as `tools/list` shows them.
    pub fn tools(&self) -> Vec<Tool> {
        self.catalogue.entries().iter().map(|entry| self.catalogue.shown(entry)).collect()
    }
}

/// How a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Standard input and output, or another pipe: one client for the handler's life.
    Stdio,
    /// HTTP with sessions. Requests of the era without sessions arrive here too and stand alone.
    HttpSession,
    /// HTTP without sessions: each request stands alone.
    HttpStateless,
}

/// The face shown to one connection.
///
/// Dropping it is the end of the connection; what the client started lives on under its own limits.
pub struct Handler {
    shared: Arc<Shared>,
    transport: Transport,
    shortcut: Option<Arc<dyn Shortcut>>,
    /// Takes what lanes say, in this process.
    taker: Option<Arc<dyn Outlet>>,
    /// Its drop ends the client's lanes.
    guard: PeerGuard,
    /// Tells a client of the era with `initialize` that its list has changed.
    list: OnceLock<ListWatch>,
    /// Changes of lists when a `subscriptions/listen` was last acknowledged, which comes before it is served.
    acknowledged: AtomicU64,
}

impl Handler {
    /// A handler for a connection that has just been made.
    pub fn new(shared: Arc<Shared>, transport: Transport) -> Self {
        let guard = PeerGuard::new(Arc::clone(&shared.engine));
        let acknowledged = AtomicU64::new(u64::MAX);
        Self { shared, transport, shortcut: None, taker: None, guard, list: OnceLock::new(), acknowledged }
    }

    /// The same, whose notifications take a shorter way.
    pub fn with_shortcut(mut self, shortcut: Arc<dyn Shortcut>) -> Self {
        self.shortcut = Some(shortcut);
        self
    }

    /// The same, whose lanes speak to a part of this process: with bytes, and not by notifications.
    pub fn with_outlet(mut self, taker: Arc<dyn Outlet>) -> Self {
        self.taker = Some(taker);
        self
    }

    /// Who keeps the automatic cursors of a request, if anybody outlives it.
    fn peer(&self, context: &RequestContext<RoleServer>) -> Option<&Arc<Peer>> {
        match self.transport {
            Transport::Stdio => Some(self.guard.peer()),
            Transport::HttpSession if !is_modern(context) => Some(self.guard.peer()),
            Transport::HttpSession | Transport::HttpStateless => None,
        }
    }

    /// How the client hears of lanes it opens with a call, if anybody outlives it.
    fn push(&self, context: &RequestContext<RoleServer>) -> Option<Push> {
        let peer = Arc::clone(self.peer(context)?);
        let encodings = Encodings::declared(context.client_capabilities().as_ref());
        let outlet = self.outlet(&context.peer, &context.extensions, encodings);
        let taker = if self.taker.is_some() { Taker::Process } else { Taker::Client };
        Some(Push { peer, outlet, encodings, taker })
    }

    fn outlet(
        &self,
        peer: &rmcp::Peer<RoleServer>,
        request: &Extensions,
        encodings: Option<Encodings>,
    ) -> Arc<dyn Outlet> {
        if let Some(taker) = &self.taker {
            return Arc::clone(taker);
        }
        Arc::new(PeerOutlet {
            peer: peer.clone(),
            shortcut: self.shortcut.clone(),
            gate: of_front(request),
            encodings: encodings.unwrap_or(Encodings::Base64),
        })
    }

    /// How the client of a call can be asked for a decision.
    fn asking(&self, context: &RequestContext<RoleServer>, call: &CallToolRequestParams) -> Asking {
        let declared = context.client_capabilities();
        if is_modern(context) {
            let Some(sealer) = &self.shared.sealer else { return Asking::nobody() };
            let none = JsonObject::new();
            let arguments = call.arguments.as_ref().unwrap_or(&none);
            let now = self.shared.engine.clock().now();
            let seal = sealer.seal_for(&owner(&context.extensions), &call.name, arguments, now);
            let (state, responses) = (call.request_state.as_deref(), call.input_responses.as_ref());
            return Asking::by_end(seal, declared.as_ref(), state, responses);
        }
        match self.transport {
            Transport::Stdio | Transport::HttpSession => Asking::by_request(&context.peer, declared.as_ref()),
            // Where the answer would go there is nobody.
            Transport::HttpStateless => Asking::nobody(),
        }
    }

    /// The connection's name in the log: never a whole session id.
    fn label(&self, context: &RequestContext<RoleServer>) -> String {
        let parts = context.extensions.get::<http::request::Parts>();
        let session = parts.and_then(|parts| parts.headers.get("mcp-session-id")?.to_str().ok());
        match (self.transport, session) {
            (Transport::Stdio, _) => "stdio".to_owned(),
            (Transport::HttpSession | Transport::HttpStateless, Some(id)) => id.chars().take(8).collect(),
            (Transport::HttpSession | Transport::HttpStateless, None) => "http".to_owned(),
        }
    }
}

/// Whether a request is of the era without `initialize`.
fn is_modern(context: &RequestContext<RoleServer>) -> bool {
    context.protocol_version().is_some_and(|version| !version.has_initialize())
}

/// Whom a request belongs to: whom the HTTP front found out, else the owner on this machine.
fn owner(request: &Extensions) -> Owner {
    of_front(request).unwrap_or_else(Owner::local)
}

/// What the HTTP front has put to a request.
fn of_front<T: Clone + Send + Sync + 'static>(request: &Extensions) -> Option<T> {
    request.get::<http::request::Parts>()?.extensions.get::<T>().cloned()
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        self.shared.config.clone()
    }

    async fn discover(&self, _context: RequestContext<RoleServer>) -> Result<DiscoverResult, ErrorData> {
        let versions: Vec<ProtocolVersion> = Cow::into_owned(self.supported_protocol_versions());
        let mut result = DiscoverResult::from_server_info(versions, self.get_info());
        (result.ttl_ms, result.cache_scope) = (UNCHANGING_MS, CacheScope::Public);
        Ok(result)
    }

    #[expect(deprecated, reason = "clients of the era with `initialize` send it")]
    async fn set_level(
        &self,
        _request: rmcp::model::SetLevelRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        match is_modern(&context) {
            true => Err(ErrorData::method_not_found::<rmcp::model::SetLevelRequestMethod>()),
            // No log is sent to clients, so any level is kept to.
            false => Ok(()),
        }
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        let outlet = self.outlet(&context.peer, &context.extensions, None);
        let owner = owner(&context.extensions);
        let watch = self.shared.engine.watch_list(&owner, self.guard.peer(), outlet, None);
        // A client that says it twice is told once.
        _ = self.list.set(watch);
    }

    async fn subscribe(
        &self,
        request: rmcp::model::SubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        guarded("resources/subscribe", async {
            let push = self.push(&context).ok_or_else(|| {
                failure::bad_params("session", "one: without it nothing outlives this request to be notified")
            })?;
            push::subscribe(&self.shared.engine, &owner(&context.extensions), &push, &request.uri)
        })
        .await
    }

    async fn unsubscribe(
        &self,
        request: rmcp::model::UnsubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        guarded("resources/unsubscribe", async {
            match self.peer(&context) {
                Some(peer) => push::unsubscribe(&self.shared.engine, peer, &request.uri),
                None => Ok(()),
            }
        })
        .await
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        // The acknowledgement leaves before the request is served: what changes in between must not be missed.
        self.acknowledged.fetch_min(self.shared.engine.list_changes(), Ordering::AcqRel);
        Some(push::accepted(requested))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        guarded("subscriptions/listen", async {
            let engine = &self.shared.engine;
            let request = context.request_context();
            let owner = owner(&request.extensions);
            let encodings = Encodings::declared(request.client_capabilities().as_ref());
            let outlet: Arc<dyn Outlet> = Arc::new(ListenOutlet {
                sink: context.sink().clone(),
                encodings: encodings.unwrap_or(Encodings::Base64),
                ended: request.ct.clone(),
            });
            let peer = Arc::clone(self.guard.peer());
            let push = Push { peer, outlet, encodings, taker: Taker::Client };
            let since = self.acknowledged.swap(u64::MAX, Ordering::AcqRel);
            let accepted = context.accepted();
            let _list = accepted
                .resources_list_changed
                .filter(|wanted| *wanted)
                .map(|_| engine.watch_list(&owner, &push.peer, Arc::clone(&push.outlet), Some(since)));
            let uris = accepted.resource_subscriptions.as_deref().unwrap_or_default();
            let _lanes = Listening::open(engine, &owner, &push, uris)?;
            tokio::select! {
                () = context.cancelled() => {}
                // The answer is the end of the stream, after the last word of each lane.
                () = engine.silenced() => {}
            }
            Ok(())
        })
        .await
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        only_page(request)?;
        let result =
            ListPromptsResult::with_all_items(prompts::list(&|tool| self.shared.catalogue.has(tool)));
        Ok(result.with_ttl_ms(UNCHANGING_MS).with_cache_scope(CacheScope::Public))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        guarded("prompts/get", async {
            let arguments = request.arguments.unwrap_or_default();
            let is_listed = |tool: &str| self.shared.catalogue.has(tool);
            Ok(prompts::get(&is_listed, &request.name, &arguments)?.into())
        })
        .await
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        guarded("completion/complete", async {
            let known = complete::Known {
                engine: &self.shared.engine,
                owner: &owner(&context.extensions),
                catalogue: &self.shared.catalogue,
                is_listed: &|tool| self.shared.catalogue.has(tool),
                sub_ids: &|| {
                    let lanes = self.shared.engine.lanes_of(&owner(&context.extensions));
                    lanes.iter().rev().map(|lane| lane.id.to_string()).collect()
                },
            };
            Ok(complete::complete(&known, &request.r#ref, &request.argument))
        })
        .await
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        only_page(request)?;
        let result = ListToolsResult::with_all_items(self.shared.tools());
        Ok(result.with_ttl_ms(UNCHANGING_MS).with_cache_scope(CacheScope::Public))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        // The SDK wants the schema of the arguments, at each call.
        let entry = self.shared.catalogue.find(name).ok()?;
        Some(Tool::new(entry.face.name(), entry.face.description(), Arc::clone(&entry.input)))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let token = context.meta.get_progress_token().map(|token| (token, context.peer.clone()));
        let cx = Cx {
            engine: Arc::clone(&self.shared.engine),
            catalogue: Arc::clone(&self.shared.catalogue),
            owner: owner(&context.extensions),
            push: self.push(&context),
            progress: Progress::new(token, context.ct.clone()),
            asking: self.asking(&context, &request),
        };
        let key = context.meta.get("idempotency_key");
        let key = key.or_else(|| request.meta.as_ref()?.get("idempotency_key"));
        let request = Request {
            tool: &request.name,
            arguments: request.arguments.unwrap_or_default(),
            key,
            peer: &self.label(&context),
        };
        call::call(&cx, &self.shared.keys, request).await
    }

    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        Err(unreadable(&request, &context))
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let cursor = request.and_then(|request| request.cursor);
        guarded("resources/list", async {
            let result =
                resources::list(&self.shared.engine, &owner(&context.extensions), cursor.as_deref())?;
            Ok(result.with_ttl_ms(0).with_cache_scope(CacheScope::Private))
        })
        .await
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        only_page(request)?;
        let result =
            ListResourceTemplatesResult::with_all_items(resources::templates(&self.shared.catalogue));
        Ok(result.with_ttl_ms(UNCHANGING_MS).with_cache_scope(CacheScope::Public))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        guarded("resources/read", async {
            let reader = resources::Reader {
                engine: &self.shared.engine,
                owner: &owner(&context.extensions),
                peer: self.peer(&context).map(Arc::as_ref),
            };
            let mut result = resources::read(&reader, &request.uri)?;
            (result.ttl_ms, result.cache_scope) = (Some(0), Some(CacheScope::Private));
            Ok(result.into())
        })
        .await
    }
}

/// A request the SDK could not read: of a method it knows, the parameters have another shape.
fn unreadable(request: &CustomRequest, context: &RequestContext<RoleServer>) -> ErrorData {
    let params = request.params.as_ref();
    let field = |name: &str| params.and_then(|params| params.get(name));
    let is_text = |name: &str| field(name).is_some_and(Value::is_string);
    let (name, expected) = match request.method.as_str() {
        "tools/call" if !is_text("name") => ("name", "a text: the name of a tool"),
        "tools/call" => ("arguments", "an object"),
        "resources/read" => ("uri", "a text: the URI of a resource"),
        // Here and below: the other era has no such method.
        "resources/subscribe" | "resources/unsubscribe" if !is_modern(context) => {
            ("uri", "a text: the URI of a resource")
        }
        "subscriptions/listen" if is_modern(context) => {
            ("notifications", "an object: resourceSubscriptions, resourcesListChanged")
        }
        "prompts/get" if !is_text("name") => ("name", "a text: the name of a prompt"),
        "prompts/get" => ("arguments", "an object of names and texts"),
        "completion/complete" if !is::<Reference>(field("ref")) => {
            ("ref", "an object: type ref/prompt with a name, or type ref/resource with a uri")
        }
        "completion/complete" if !is::<ArgumentInfo>(field("argument")) => {
            ("argument", "an object with the texts name and value")
        }
        "completion/complete" => ("context", "an object whose arguments are names and texts"),
        "initialize" if !is_modern(context) => ("params", "protocolVersion, capabilities and clientInfo"),
        method => {
            let method = ssh_mcp_core::text::cut(method, 80).into_owned();
            return ErrorData::new(ErrorCode::METHOD_NOT_FOUND, method, None);
        }
    };
    failure::bad_params(name, expected)
}

/// Whether a field is there and can be read as a `T`.
fn is<T: serde::de::DeserializeOwned>(field: Option<&Value>) -> bool {
    field.is_some_and(|value| serde_json::from_value::<T>(value.clone()).is_ok())
}

/// How long a client may keep what only a new start of the server changes, in milliseconds.
const UNCHANGING_MS: u64 = 3_600_000;

/// What fits on one page has no other.
fn only_page(request: Option<PaginatedRequestParams>) -> Result<(), ErrorData> {
    match request.and_then(|request| request.cursor) {
        Some(_) => Err(failure::bad_params("cursor", "left out: the list has one page")),
        None => Ok(()),
    }
}

/// Work outside a tool call whose panic is answered rather than left to the client's patience.
async fn guarded<T>(
    what: &'static str,
    work: impl Future<Output = Result<T, ErrorData>>,
) -> Result<T, ErrorData> {
    call::unwinding(work).await.unwrap_or_else(|Panicked| {
        let correlation = Nonce::fresh().to_string();
        tracing::error!(target: target_names::MAIN, what, correlation, "a request panicked");
        Err(failure::internal(&correlation))
    })
}

/// What the server says of bytes inside notifications.
fn inline_capability(piece: usize) -> ExperimentalCapabilities {
    let schemes = [Scheme::Shell, Scheme::Command, Scheme::Serial].map(Scheme::as_str);
    let says = json!({ "version": "1", "max_bytes_per_notify": piece, "schemes": schemes });
    let says = says.as_object().cloned().unwrap_or_default();
    ExperimentalCapabilities::from([(outlet::CAPABILITY.to_owned(), says)])
}

/// Who this server is.
fn implementation() -> Implementation {
    let implementation = Implementation::new("ssh-mcp", env!("CARGO_PKG_VERSION"))
        .with_title("SSH for agents")
        .with_description("Sessions, commands, interactive shells and files on other machines over SSH, and serial ports of this one.")
        .with_icons(vec![Icon::new(ICON).with_mime_type("image/svg+xml").with_sizes(vec!["any".to_owned()])]);
    match WEBSITE {
        "" => implementation,
        website => implementation.with_website_url(website),
    }
}

/// Where the product is described, as the manifest says.
const WEBSITE: &str = env!("CARGO_PKG_REPOSITORY");

/// A prompt in a window; a URI has no spaces.
const ICON: &str = "data:image/svg+xml,%3Csvg%20xmlns='http://www.w3.org/2000/svg'%20viewBox='0%200%2024%2024'%20\
fill='none'%20stroke='%23178'%20stroke-width='2'%3E%3Crect%20x='2'%20y='4'%20width='20'%20height='16'%20rx='2'/%3E\
%3Cpath%20d='m6%209%203%203-3%203m6%200h5'/%3E%3C/svg%3E";
