//! Lanes as MCP opens them: `resources/subscribe`, `subscriptions/listen`, and what `sub_open` shares with them.

use std::sync::Arc;

use rmcp::model::{ErrorData, SubscriptionFilter};
use ssh_mcp_core::{
    code::Code,
    history::History,
    lane::{Form, LagPolicy, Lifetime, Options, Start, Timing},
    owner::Owner,
    port::Outlet,
    settings::Settings,
    uri::{self, Uri},
};
use ssh_mcp_engine::{
    Body, Engine, Inline, LaneEntry, Missing, OpenLane, OpenLaneError, Origin, Peer, Source,
};

use crate::{
    cx::rfc3339,
    failure::{self, Failure},
    outlet::Encodings,
    resources,
};

/// How a connection, or a request that stands alone, hears of its lanes.
#[derive(Clone)]
pub(crate) struct Push {
    /// Whom the lanes belong to.
    pub(crate) peer: Arc<Peer>,
    /// Where their messages go.
    pub(crate) outlet: Arc<dyn Outlet>,
    /// What the client takes of inline push.
    pub(crate) encodings: Option<Encodings>,
    /// Who takes the messages.
    pub(crate) taker: Taker,
}

/// Who takes a lane's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taker {
    /// A client, which has declared what it takes.
    Client,
    /// A part of this process: it is given bytes, whatever settings and options say.
    Process,
}

/// Most bytes of one message to a part of this process.
const PIECE: usize = 32 * 1024;

/// Every option of a lane at its default.
pub(crate) fn defaults(settings: &Settings) -> Options {
    Options {
        form: Form::Pull,
        start: Start::At(0),
        lifetime: Lifetime::Manual,
        linger: settings.lifecycle_grace,
        policy: settings.lag_policy,
        filter: None,
        timing: Timing {
            debounce: settings.notify_debounce,
            force: settings.notify_force,
            bytes: settings.notify_bytes,
            keepalive: settings.notify_keepalive,
        },
        queue: settings.lane_queue,
        window: settings.replay_window,
        block_timeout: settings.block_timeout,
    }
}

/// What becomes of the wish for bytes inside the notifications of a resource.
pub(crate) fn inline(settings: &Settings, wished: bool, push: &Push, source: &Source) -> (Form, Inline) {
    if let (Taker::Process, History::Bytes(_)) = (push.taker, source.history()) {
        return (Form::Payload { piece: PIECE }, Inline::NotAsked);
    }
    match (wished, settings.inline_piece, push.encodings, source.history()) {
        (true, Some(piece), Some(_), History::Bytes(_)) => (Form::Payload { piece }, Inline::Honoured),
        (true, ..) => (Form::Pull, Inline::Declined),
        (false, ..) => (Form::Pull, Inline::NotAsked),
    }
}

/// Writes the body of a state as `resources/read` shows it.
pub(crate) fn body(engine: &Arc<Engine>, source: &Source) -> Body {
    let (engine, source) = (Arc::downgrade(engine), source.clone());
    Arc::new(move || {
        let engine = engine.upgrade();
        engine.and_then(|engine| resources::state_body(&engine, &source)).unwrap_or_default()
    })
}

/// `resources/subscribe`: a lane with the defaults; a second one on the same resource is the first.
///
/// # Errors
/// Invalid params for a URI that cannot be understood or a limit, resource not found for one that leads nowhere.
pub(crate) fn subscribe(
    engine: &Arc<Engine>,
    owner: &Owner,
    push: &Push,
    text: &str,
) -> Result<(), ErrorData> {
    let uri = parse(text)?;
    if let Some(resource) = uri.resource()
        && engine.subscribed(&push.peer, resource, text).is_some()
    {
        return Ok(());
    }
    let options = |_: &Source| (defaults(engine.settings()), Inline::NotAsked);
    open(engine, owner, push, (&uri, text), Origin::Subscribe, options).map(|_| ())
}

/// `resources/unsubscribe`; what is not subscribed is none afterwards either.
///
/// # Errors
/// Invalid params for a URI that cannot be understood.
pub(crate) fn unsubscribe(engine: &Engine, peer: &Peer, text: &str) -> Result<(), ErrorData> {
    if let Some(resource) = parse(text)?.resource() {
        engine.unsubscribe(peer, resource);
    }
    Ok(())
}

/// Of what a client wants to listen to, what this server can tell: URIs that name a resource, and its list.
pub(crate) fn accepted(requested: &SubscriptionFilter) -> SubscriptionFilter {
    let mut accepted = SubscriptionFilter::new();
    accepted.resources_list_changed = requested.resources_list_changed;
    let uris = requested.resource_subscriptions.iter().flatten();
    let named = uris.filter(|uri| uri::parse(uri).is_ok());
    accepted.resource_subscriptions = Some(named.cloned().collect());
    accepted
}

/// The lanes of one `subscriptions/listen`, all or none; dropping them closes them.
pub(crate) struct Listening {
    engine: Arc<Engine>,
    lanes: Vec<Arc<LaneEntry>>,
}

impl Listening {
    /// A lane for each URI. Bytes come along for a client that takes them: a listen has no options to ask with.
    ///
    /// # Errors
    /// Those of the first lane that cannot be opened.
    pub(crate) fn open(
        engine: &Arc<Engine>,
        owner: &Owner,
        push: &Push,
        uris: &[String],
    ) -> Result<Self, ErrorData> {
        let mut listening = Self { engine: Arc::clone(engine), lanes: Vec::new() };
        for text in uris {
            let uri = parse(text)?;
            let options = |source: &Source| {
                let (form, inline) = inline(engine.settings(), push.encodings.is_some(), push, source);
                (Options { form, ..defaults(engine.settings()) }, inline)
            };
            listening.lanes.push(open(engine, owner, push, (&uri, text), Origin::Listen, options)?);
        }
        Ok(listening)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        for lane in &self.lanes {
            self.engine.close_silently(lane);
        }
    }
}

fn parse(text: &str) -> Result<Uri, ErrorData> {
    uri::parse(text).map_err(|error| failure::bad_uri(text, &error))
}

fn open(
    engine: &Arc<Engine>,
    owner: &Owner,
    push: &Push,
    (uri, text): (&Uri, &str),
    origin: Origin,
    options: impl FnOnce(&Source) -> (Options, Inline),
) -> Result<Arc<LaneEntry>, ErrorData> {
    let no_resource = |missing| failure::no_resource(text, missing, |at| rfc3339(engine, at));
    let source = match uri.resource() {
        Some(resource) => engine.source(owner, resource).map_err(no_resource)?,
        None => return Err(no_resource(unknown(engine, owner, uri))),
    };
    let (options, inline) = options(&source);
    let body = body(engine, &source);
    let outlet = Arc::clone(&push.outlet);
    let ask = OpenLane { source, uri: text.to_owned(), options, inline, origin, outlet, body };
    engine.open_lane(owner, &push.peer, ask).map_err(|error| match error {
        OpenLaneError::Gone(missing) => no_resource(missing),
        error @ (OpenLaneError::TooManyOnResource { .. }
        | OpenLaneError::TooMany { .. }
        | OpenLaneError::PeerGone
        | OpenLaneError::Draining) => failure::refused(text, &Failure::from(error)),
    })
}

/// A well-formed id that is none this product could have made.
pub(crate) fn unknown(engine: &Engine, owner: &Owner, uri: &Uri) -> Missing {
    Missing::Unknown { nearest: engine.registries().directory(uri.scheme).nearest(owner, &uri.id) }
}

impl From<OpenLaneError> for Failure {
    fn from(error: OpenLaneError) -> Self {
        match error {
            OpenLaneError::TooManyOnResource { limit } => {
                Self::new(Code::MaxSubsPerUriExceeded, format!("the resource has {limit} lanes"))
                    .with_context(format!("limit={limit}"))
            }
            OpenLaneError::TooMany { limit } => {
                Self::new(Code::MaxSubsTotalExceeded, format!("there are {limit} lanes"))
                    .with_context(format!("limit={limit}"))
            }
            OpenLaneError::Gone(missing) => Self::no_resource(missing),
            OpenLaneError::PeerGone | OpenLaneError::Draining => {
                Self::new(Code::TransportError, "the connection or the server is coming to its end")
            }
        }
    }
}

/// A word for a policy, in any letter case and with either dash.
pub(crate) fn lag_policy(word: &str) -> Option<LagPolicy> {
    let word = word.trim().to_ascii_lowercase().replace('-', "_");
    LagPolicy::ALL.into_iter().find(|policy| policy.as_str() == word)
}
