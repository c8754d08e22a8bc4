//! The daemon: what runs the ops, and gives each of them its one reply.
//!
//! It has no opinion about SSH: an op is a call of a tool over the pipe, and its reply is what the tool answered.

use std::{collections::HashMap, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use ssh_mcp_core::{
    code::Code,
    id::{CommandId, ForwardId, RsyncId, SerialId, SessionId, ShellId, TransferId},
    owner::Owner,
    registry::Entry as _,
    sync::{AtomicU64, Mutex, Ordering},
    uri::{Resource, Scheme},
};
use ssh_mcp_engine::{Engine, Keep};
use ssh_mcp_handler::{Handler, Shared, Transport};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    event::{Ack, Called, Event, Failed, OpId, Snapshot, Started, Text, Warn},
    follow::Followed,
    lanes::{Encoding, Lanes, Opening, resource_of, written},
    op::{Act, Op},
    order::{Hold, Key, Order, Ticket, spelt},
    outbox::Outbox,
    pipe::{Pipe, Told},
    refs::{self, Kind, Made, Name, Refs},
    stats::Counts,
};
use crate::stdio;

/// Ops under way at a time; beyond that no line is read.
const MOST_OPS: usize = 256;

/// Bytes of the pipe between the client in this process and the server.
const PIPE: usize = 64 * 1024;

/// Bytes of one piece of a snapshot.
const PIECE: usize = 32 * 1024;

/// One tenant, its server, and what he has under way.
pub(super) struct Daemon {
    pub(super) shared: Arc<Shared>,
    pub(super) pipe: Arc<Pipe>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) lanes: Arc<Lanes>,
    pub(super) followed: Followed,
    pub(super) counts: Counts,
    /// Its tasks; they end with the drain.
    pub(super) tasks: TaskTracker,
    /// Cancelled when the server in this process is to end.
    pub(super) stop: CancellationToken,
    places: Arc<Semaphore>,
    order: Arc<Order>,
    refs: Mutex<Refs>,
    /// Tools that make nothing, so that what they list is not theirs.
    lookers: Vec<String>,
    warned: Mutex<HashMap<(String, String), Duration>>,
}

/// An op that has its place in the order.
pub(super) struct Accepted {
    op: Op,
    made: Arc<Made>,
    names: Vec<(Kind, String, Option<Name>)>,
    ticket: Ticket,
    place: Option<OwnedSemaphorePermit>,
}

/// An op that has succeeded: its reply, and what begins once that is given.
struct Done {
    reply: Event,
    /// More of the reply.
    more: Vec<Event>,
    made: Vec<(Kind, String)>,
    lane: Option<Opened>,
    follow: Vec<Resource>,
    warnings: Vec<Warn>,
    /// What was made is not forgotten before it is followed.
    _keep: Option<Keep>,
}

/// A lane that no reply has named yet.
struct Opened {
    sub_id: String,
    uri: String,
    cursor: Option<u64>,
    encoding: Encoding,
    warnings: Vec<Warn>,
    _opening: Opening,
}

impl Daemon {
    /// A daemon whose server runs, unless it does not answer.
    ///
    /// # Errors
    /// Why it does not.
    pub(super) async fn start(shared: Arc<Shared>, outbox: Arc<Outbox>) -> Result<Arc<Self>, Failed> {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let (reader, writer) = tokio::io::split(ours);
        let (pipe, work) = Pipe::new(reader, writer);
        let lanes = Lanes::new(Arc::clone(shared.engine()), Arc::clone(&pipe), Arc::clone(&outbox));
        let stop = CancellationToken::new();
        let outlet = Arc::clone(&lanes);
        let handler = Handler::new(Arc::clone(&shared), Transport::Stdio).with_outlet(outlet);
        let (reader, writer) = tokio::io::split(theirs);
        let tasks = TaskTracker::new();
        tasks.spawn(stdio::serve(handler, reader, stdio::Output::new(writer), stop.clone()));
        tasks.spawn(work);
        pipe.greet().await?;
        let looks = |tool: &rmcp::model::Tool| {
            tool.annotations.as_ref().is_some_and(|hints| hints.read_only_hint == Some(true))
        };
        let tools = shared.tools();
        let lookers = tools.iter().filter(|tool| looks(tool)).map(|tool| tool.name.to_string());
        Ok(Arc::new(Self {
            lookers: lookers.collect(),
            shared,
            pipe,
            outbox,
            lanes,
            followed: Followed::default(),
            counts: Counts::default(),
            tasks,
            stop,
            places: Arc::new(Semaphore::new(MOST_OPS)),
            order: Arc::default(),
            refs: Mutex::default(),
            warned: Mutex::default(),
        }))
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        self.shared.engine()
    }

    /// A place for one more op. Cancel-safe.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Ends when every op has its reply, and that is written.
    pub(super) async fn all_answered(&self) {
        // Whoever has all places knows that nobody else has one.
        _ = self.places.acquire_many(MOST_OPS as u32).await;
    }

    /// Gives an op its place in the order. Lines are to come here one after the other.
    pub(super) fn accept(&self, op: Op, place: Option<OwnedSemaphorePermit>) -> Accepted {
        self.counts.note_op();
        let mut refs = self.refs.lock();
        let named = match op.row.act {
            Act::Call => {
                op.fields.get("args").and_then(Value::as_object).map(refs::named).unwrap_or_default()
            }
            Act::Tool(_)
            | Act::Subscribe
            | Act::Unsubscribe
            | Act::Read
            | Act::Cancel
            | Act::Stats
            | Act::Shutdown => refs::named(&op.fields),
        };
        let names: Vec<_> =
            named.into_iter().map(|(kind, text)| (kind, text.clone(), refs.name(&text))).collect();
        let session = names.iter().find(|(kind, ..)| *kind == Kind::Session);
        let session = session.and_then(|(.., name)| name.clone());
        let claims = self.claims(&op, &names);
        let made = refs.note(op.id.as_ref(), session);
        // In the order of the lines, because the lock is held.
        let ticket = self.order.take(claims);
        Accepted { op, made, names, ticket, place }
    }

    /// What an op claims (`docs/daemon.md`, "Order").
    fn claims(&self, op: &Op, names: &[(Kind, String, Option<Name>)]) -> Vec<(Key, Hold)> {
        let ends_session = op.row.act == Act::Tool("ssh_disconnect");
        let mut claims = Vec::new();
        for (kind, _, name) in names {
            let Some(name) = name else { continue };
            let key = spelt(*kind, name);
            if *kind != Kind::Session {
                let session = self.session_of(*kind, name);
                claims.extend(session.map(|session| (Key::Thing(Kind::Session, session), Hold::Shared)));
                claims.push((Key::Thing(*kind, key), Hold::Alone));
                continue;
            }
            if ends_session {
                claims.push((Key::Thing(Kind::Session, key), Hold::Alone));
                continue;
            }
            if self.makes(op) {
                claims.push((Key::Making(key.clone()), Hold::Alone));
            }
            claims.push((Key::Thing(Kind::Session, key), Hold::Shared));
        }
        claims
    }

    /// Whether an op may make something.
    fn makes(&self, op: &Op) -> bool {
        match op.row.act {
            Act::Tool(_) => true,
            Act::Call => {
                op.fields.get("tool").and_then(Value::as_str).is_some_and(|tool| !self.only_looks(tool))
            }
            Act::Subscribe | Act::Unsubscribe | Act::Read | Act::Cancel | Act::Stats | Act::Shutdown => false,
        }
    }

    fn only_looks(&self, tool: &str) -> bool {
        self.lookers.iter().any(|looker| looker == tool)
    }

    /// The session something is on, as a key spells it.
    fn session_of(&self, kind: Kind, name: &Name) -> Option<String> {
        match name {
            Name::Of(made) if made.known(kind).is_none() => {
                made.session.as_ref().map(|session| spelt(Kind::Session, session))
            }
            Name::Of(_) | Name::Id(_) => {
                let session = self.session(resource(kind, &spelt(kind, name))?)?;
                Some(session.to_string())
            }
        }
    }

    /// The session a resource is on.
    pub(super) fn session(&self, resource: Resource) -> Option<SessionId> {
        let registries = self.engine().registries();
        match resource.scheme {
            Scheme::Command => registries.commands.entry(resource.id.into())?.session_id(),
            Scheme::Shell => registries.shells.entry(resource.id.into())?.session_id(),
            Scheme::Transfer => registries.transfers.entry(resource.id.into())?.session_id(),
            Scheme::Rsync => registries.rsyncs.entry(resource.id.into())?.session_id(),
            Scheme::Forward => registries.forwards.entry(resource.id.into())?.session_id(),
            Scheme::Serial | Scheme::Session => None,
        }
    }

    /// Refuses a line.
    pub(super) fn refuse(&self, failed: Failed, place: Option<OwnedSemaphorePermit>) {
        self.counts.note_refusal(&failed.code);
        self.outbox.reply(&Event::Err(Box::new(failed)), place);
    }

    /// Runs an op to its reply; gives the same back.
    pub(super) async fn run(self: Arc<Self>, accepted: Accepted) -> Event {
        let Accepted { op, made, names, ticket, place } = accepted;
        let (id, name) = (op.id.clone(), op.row.name);
        let done = self.answer(op, &names, &ticket).await;
        self.counts.note_answer();
        let reply = match done {
            Err(mut failed) => {
                made.settle(Vec::new());
                failed.id = id;
                failed.op = Some(name.to_owned());
                self.refuse((*failed).clone(), place);
                Event::Err(failed)
            }
            Ok(done) => {
                self.order.named(&made, &done.made);
                made.settle(done.made);
                // Once the reply is written the op is over for a drain.
                done.follow.iter().for_each(|resource| self.followed.announce(*resource));
                self.outbox.reply(&done.reply, place);
                done.more.iter().for_each(|event| self.outbox.reply(event, None));
                let lane_warnings = done.lane.into_iter().flat_map(|lane| self.may_speak(lane));
                let warnings: Vec<Warn> = lane_warnings.chain(done.warnings).collect();
                for resource in done.follow {
                    self.follow(resource, id.clone());
                }
                for warning in warnings {
                    self.warn(Warn { id: id.clone(), ..warning }).await;
                }
                done.reply
            }
        };
        drop(ticket);
        reply
    }

    fn may_speak(&self, lane: Opened) -> Vec<Warn> {
        if let Ok(id) = lane.sub_id.parse()
            && let Some(known) = self.lanes.learn(id, lane.encoding)
        {
            self.tasks.spawn(Arc::clone(&self.lanes).watch(known));
        }
        lane.warnings
    }

    /// Says advice, at most one of a kind for each resource and second.
    pub(super) async fn warn(&self, warning: Warn) {
        const ONCE: Duration = Duration::from_secs(1);
        let now = self.engine().clock().now();
        {
            let mut warned = self.warned.lock();
            warned.retain(|_, at| now < *at + ONCE);
            let kind = (warning.code.clone(), warning.resource.clone().unwrap_or_default());
            // What is about an op alone is about that op.
            if warning.resource.is_some() && warned.insert(kind, now).is_some() {
                return;
            }
        }
        // Nobody hears, and that is found out elsewhere.
        _ = self.outbox.send(&Event::Warn(Box::new(warning))).await;
    }

    async fn answer(
        self: &Arc<Self>,
        mut op: Op,
        names: &[(Kind, String, Option<Name>)],
        ticket: &Ticket,
    ) -> Result<Done, Box<Failed>> {
        ticket.turn().await;
        if op.row.act == Act::Call {
            if let Some(Value::Object(arguments)) = op.fields.get_mut("args") {
                refs::resolve(arguments, names).await?;
            }
        } else {
            refs::resolve(&mut op.fields, names).await?;
        }
        let keep = self.makes(&op).then(|| self.engine().keep_ended());
        let done = match op.row.act {
            Act::Tool(tool) => self.tool(tool, op, ticket).await,
            Act::Subscribe => self.subscribe(op).await,
            Act::Unsubscribe => self.unsubscribe(op).await,
            Act::Read => self.read(op).await,
            Act::Cancel => self.cancel(op).await,
            Act::Call => self.call(op).await,
            Act::Stats => {
                let (id, warnings) = (op.id.clone(), unknown(&op));
                let mut stats = self.stats();
                stats.id = id;
                Ok(Done { warnings, ..Done::new(Event::DaemonStats(Box::new(stats))) })
            }
            // It has its reply when it is read.
            Act::Shutdown => Ok(Done::new(Event::Ack(Box::new(Ack { id: op.id, ..Ack::default() })))),
        };
        done.map(|done| Done { _keep: keep, ..done })
    }

    /// An op with a tool of its own.
    async fn tool(
        self: &Arc<Self>,
        tool: &'static str,
        mut op: Op,
        ticket: &Ticket,
    ) -> Result<Done, Box<Failed>> {
        let (id, key) = (op.id.clone(), op.key.take());
        let options = lane_options(op.fields.remove("subscribe"))?;
        let shows_progress = op.fields.remove("progress") != Some(Value::Bool(false));
        match tool {
            "ssh_connect" => {
                let own = || self.engine().mint::<SessionId>().to_string().into();
                op.fields.entry("agent_id").or_insert_with(own);
            }
            "ssh_shell_open" => {
                if let Some(size) = op.fields.get_mut("max_buffer_size").filter(|size| size.is_number()) {
                    *size = size.to_string().into();
                }
            }
            "ssh_disconnect" => {
                let session = op.fields.get("session_id").and_then(Value::as_str);
                if let Some(resource) = session.and_then(|session| resource(Kind::Session, session)) {
                    self.followed.ends_by(resource, id.clone(), ticket.answered());
                }
            }
            _ => {}
        }
        let arguments = op.into_arguments();
        let given = refs::named(&arguments);
        let told = self.pipe.call(tool, arguments, key.as_ref()).await?;
        let mut made = ids(&told.data);
        made.retain(|thing| !given.contains(thing));
        let main =
            made.iter().find(|(kind, _)| *kind != Kind::Session).and_then(|(kind, id)| resource(*kind, id));
        let mut warnings = told.warnings.clone();
        let lane = match (options, main) {
            (Some(options), Some(main)) => match self.open_lane(main.to_string(), options).await {
                Ok(lane) => Some(lane),
                // What was made is there all the same.
                Err(failed) => {
                    warnings.push(Warn {
                        code: failed.code,
                        msg: format!("no lane: {}", failed.reason),
                        resource: Some(main.to_string()),
                        ..Warn::default()
                    });
                    None
                }
            },
            (Some(_) | None, _) => None,
        };
        let sub_id = lane.as_ref().map(|lane| lane.sub_id.clone());
        let reply =
            if tool == "ssh_exec" { started(id, &told, sub_id) } else { acked(id, &told, main, sub_id) };
        let lane_name = lane.as_ref().map(|lane| (Kind::Lane, lane.sub_id.clone()));
        let follow = self.new_resources(tool, &told.data, &given);
        if !shows_progress {
            follow.iter().for_each(|resource| self.followed.without_progress(*resource));
        }
        let made = made.into_iter().chain(suggested(&told.data)).chain(lane_name).collect();
        Ok(Done { made, lane, follow, warnings, ..Done::new(reply) })
    }

    async fn subscribe(self: &Arc<Self>, op: Op) -> Result<Done, Box<Failed>> {
        let id = op.id.clone();
        let mut options = op.into_arguments();
        let uri = match options.remove("uri") {
            Some(Value::String(uri)) => uri,
            _ => String::new(),
        };
        let lane = self.open_lane(uri, options).await?;
        let ack = Ack {
            id,
            sub_id: Some(lane.sub_id.clone()),
            uri: Some(lane.uri.clone()),
            cursor: lane.cursor,
            ..Ack::default()
        };
        let made = vec![(Kind::Lane, lane.sub_id.clone())];
        Ok(Done { made, lane: Some(lane), ..Done::new(Event::Ack(Box::new(ack))) })
    }

    /// Opens a lane; it is silent until a reply has named it.
    async fn open_lane(&self, uri: String, mut options: Map<String, Value>) -> Result<Opened, Box<Failed>> {
        let encoding = match options.remove("encoding") {
            Some(word) if word == "base64" => Encoding::Base64,
            Some(_) | None => Encoding::Auto,
        };
        options.insert("uri".into(), uri.into());
        let opening = self.lanes.opening();
        let told = self.pipe.call("sub_open", options, None).await?;
        let text = |name: &str| told.data.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Opened {
            sub_id: text("sub_id"),
            uri: text("uri"),
            cursor: told.data.get("cursor").and_then(Value::as_u64),
            encoding,
            warnings: told.warnings,
            _opening: opening,
        })
    }

    async fn unsubscribe(&self, op: Op) -> Result<Done, Box<Failed>> {
        let id = op.id.clone();
        let arguments = op.into_arguments();
        let sub_id = arguments.get("sub_id").and_then(Value::as_str).unwrap_or_default().to_owned();
        if let Ok(lane) = sub_id.parse() {
            self.lanes.leave(lane);
        }
        let told = self.pipe.call("sub_close", arguments, None).await?;
        if told.status == "not_found" {
            return Err(Box::new(Failed::of(Code::SubNotFound, format!("no lane {sub_id}"))));
        }
        let ack = Ack { id, sub_id: Some(sub_id), ..Ack::default() };
        Ok(Done { warnings: told.warnings, ..Done::new(Event::Ack(Box::new(ack))) })
    }

    async fn read(&self, op: Op) -> Result<Done, Box<Failed>> {
        let (id, warnings) = (op.id.clone(), unknown(&op));
        let uri = op.fields.get("uri").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut asked = uri.clone();
        let mut ask = |name: &str, value: &str| {
            asked.push(if asked.contains('?') { '&' } else { '?' });
            asked.push_str(&format!("{name}={value}"));
        };
        for name in ["cursor", "max_bytes"] {
            if let Some(value) = op.fields.get(name) {
                ask(name, &value.to_string());
            }
        }
        // Ignored where there are no bytes.
        ask("encoding", "base64");
        let content = self.pipe.read(&asked).await?;
        let (meta, text) = (content.meta, content.text);
        let end = meta.next();
        let plain = Snapshot {
            cursor: end,
            id,
            uri: Some(resource_of(&uri).map_or(uri, |resource| resource.to_string())),
            status: meta.status,
            more: meta.more.then_some(true),
            ..Snapshot::default()
        };
        let mut gap_bytes = meta.truncated_since_last_read;
        let bytes = content.blob.and_then(|blob| STANDARD.decode(blob).ok());
        let mut pieces = Vec::new();
        match bytes {
            None => {
                let delta = text.map(|text| Text(text.into()));
                pieces.push(Snapshot { delta, gap_bytes, ..plain });
            }
            Some(bytes) if bytes.is_empty() => {
                pieces.push(Snapshot { delta: Some(Text::default()), gap_bytes, ..plain });
            }
            Some(bytes) => {
                let mut left = bytes.as_slice();
                while !left.is_empty() {
                    let mut size = left.len().min(PIECE);
                    if size < left.len() {
                        let cut = left.get(..size).map_or(0, ssh_mcp_core::text::incomplete_suffix);
                        size -= cut;
                    }
                    let (piece, rest) = left.split_at(size);
                    left = rest;
                    let (delta, delta_b64) = written(Bytes::copy_from_slice(piece), Encoding::Auto);
                    let cursor = end - left.len() as u64;
                    let more = if left.is_empty() { plain.more } else { Some(true) };
                    let gap_bytes = gap_bytes.take();
                    pieces.push(Snapshot { cursor, delta, delta_b64, gap_bytes, more, ..plain.clone() });
                }
            }
        }
        let mut pieces = pieces.into_iter().map(Event::Snapshot);
        let first = pieces.next().unwrap_or_else(|| Event::Snapshot(Snapshot::default()));
        Ok(Done { more: pieces.collect(), warnings, ..Done::new(first) })
    }

    async fn cancel(&self, mut op: Op) -> Result<Done, Box<Failed>> {
        let (id, key) = (op.id.clone(), op.key.take());
        let tool = match op.fields.keys().next().map(String::as_str) {
            Some("transfer_id") => "ssh_transfer_cancel",
            Some("rsync_id") => "ssh_rsync_cancel",
            Some(_) | None => "ssh_exec_cancel",
        };
        let told = self.pipe.call(tool, op.into_arguments(), key.as_ref()).await?;
        let text = |name: &str| told.data.get(name).and_then(Value::as_str).map(str::to_owned);
        let ack = Ack {
            id,
            cid: text("command_id"),
            tid: text("transfer_id"),
            rid: text("rsync_id"),
            noop: (told.status == "noop").then_some(true),
            ..Ack::default()
        };
        Ok(Done { warnings: told.warnings, ..Done::new(Event::Ack(Box::new(ack))) })
    }

    async fn call(self: &Arc<Self>, mut op: Op) -> Result<Done, Box<Failed>> {
        let (id, key) = (op.id.clone(), op.key.take());
        let warnings = unknown(&op);
        let tool = op.fields.get("tool").and_then(Value::as_str).unwrap_or_default().to_owned();
        let shows_text = op.fields.get("text") == Some(&Value::Bool(true));
        let options = lane_options(op.fields.remove("subscribe"))?;
        let mut arguments = match op.fields.remove("args") {
            Some(Value::Object(arguments)) => arguments,
            _ => Map::new(),
        };
        let given = refs::named(&arguments);
        let opening = (tool == "sub_open").then(|| self.lanes.opening());
        let encoding = match arguments.get("encoding").filter(|_| opening.is_some()) {
            Some(word) if word == "base64" => Encoding::Base64,
            Some(_) | None => Encoding::Auto,
        };
        if opening.is_some() {
            arguments.remove("encoding");
        }
        let Told { data, status, text, warnings: told } =
            self.pipe.call(&tool, arguments, key.as_ref()).await?;
        let field = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut made = ids(&data);
        made.retain(|thing| !given.contains(thing));
        let mut warnings: Vec<Warn> = warnings.into_iter().chain(told).collect();
        let main =
            made.iter().find(|(kind, _)| *kind != Kind::Session).and_then(|(kind, id)| resource(*kind, id));
        let lane = match (opening, options, main) {
            (Some(opening), ..) => Some(Opened {
                sub_id: field("sub_id"),
                uri: field("uri"),
                cursor: None,
                encoding,
                warnings: Vec::new(),
                _opening: opening,
            }),
            (None, Some(options), Some(main)) => match self.open_lane(main.to_string(), options).await {
                Ok(lane) => Some(lane),
                Err(failed) => {
                    let msg = format!("no lane: {}", failed.reason);
                    let resource = Some(main.to_string());
                    warnings.push(Warn { code: failed.code, msg, resource, ..Warn::default() });
                    None
                }
            },
            (None, Some(_) | None, _) => None,
        };
        let sub_id = lane.as_ref().map(|lane| lane.sub_id.clone());
        made.extend(sub_id.clone().map(|sub_id| (Kind::Lane, sub_id)));
        let follow = self.new_resources(&tool, &data, &given);
        let text = shows_text.then_some(text);
        let reply = Event::Result(Box::new(Called { tool, status, data, id, text, sub_id }));
        Ok(Done { made, lane, follow, warnings, ..Done::new(reply) })
    }

    /// What a tool has made, as far as its answer names it and it is still known. What it was given is another op's, which may
    /// not have come to following it yet.
    fn new_resources(
        &self,
        tool: &str,
        data: &Map<String, Value>,
        given: &[(Kind, String)],
    ) -> Vec<Resource> {
        if self.only_looks(tool) {
            return Vec::new();
        }
        let named = refs::named(data).into_iter().filter(|thing| !given.contains(thing));
        let named = named.filter_map(|(kind, id)| resource(kind, &id));
        named.filter(|resource| self.engine().source(&Owner::local(), *resource).is_ok()).collect()
    }
}

impl Done {
    fn new(reply: Event) -> Self {
        let (more, made, follow, warnings) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { reply, more, made, lane: None, follow, warnings, _keep: None }
    }
}

/// Options of a lane that comes with what an op makes: it closes with the end, and is in nobody's way.
fn lane_options(given: Option<Value>) -> Result<Option<Map<String, Value>>, Box<Failed>> {
    let mut options = match given {
        None | Some(Value::Bool(false)) => return Ok(None),
        Some(Value::Object(options)) => options,
        Some(_) => Map::new(),
    };
    options.entry("lifetime").or_insert_with(|| "auto_close".into());
    options.entry("grace_ms").or_insert_with(|| 0.into());
    options.insert("op".into(), "subscribe".into());
    // It is not known before the thing is made.
    options.insert("uri".into(), "".into());
    let mut options = Op::of(options)?.into_arguments();
    options.remove("uri");
    Ok(Some(options))
}

/// Fields that an op without a tool does not know.
fn unknown(op: &Op) -> Vec<Warn> {
    let warn = |name: &String| Warn {
        code: ssh_mcp_core::code::Warning::UnknownField.as_str().to_owned(),
        msg: format!("{} is no field of {} and was ignored", ssh_mcp_core::text::cut(name, 80), op.row.name),
        ..Warn::default()
    };
    op.rest.keys().map(warn).collect()
}

/// The identifiers at the top of an answer.
fn ids(data: &Map<String, Value>) -> Vec<(Kind, String)> {
    let id = |(name, value): (&String, &Value)| {
        let kind = Kind::of_argument(name)?;
        Some((kind, value.as_str()?.to_owned()))
    };
    data.iter().filter_map(id).collect()
}

/// The session that `connect` suggests: a pipe cannot be asked, so the newest one it is.
fn suggested(data: &Map<String, Value>) -> Option<(Kind, String)> {
    let newest = data.get("matches")?.as_array()?.first()?;
    Some((Kind::Session, newest.get("session_id")?.as_str()?.to_owned()))
}

/// The resource of a kind with an identifier, if it can be one.
pub(super) fn resource(kind: Kind, id: &str) -> Option<Resource> {
    Some(match kind {
        Kind::Session => id.parse::<SessionId>().ok()?.into(),
        Kind::Command => id.parse::<CommandId>().ok()?.into(),
        Kind::Shell => id.parse::<ShellId>().ok()?.into(),
        Kind::Transfer => id.parse::<TransferId>().ok()?.into(),
        Kind::Rsync => id.parse::<RsyncId>().ok()?.into(),
        Kind::Forward => id.parse::<ForwardId>().ok()?.into(),
        Kind::Serial => id.parse::<SerialId>().ok()?.into(),
        Kind::Lane => return None,
    })
}

fn started(id: Option<OpId>, told: &Told, sub_id: Option<String>) -> Event {
    let text = |name: &str| told.data.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let cid = text("command_id");
    let uri = resource(Kind::Command, &cid).map(|resource| resource.to_string());
    Event::Started(Started { cid, sid: text("session_id"), id, uri, sub_id })
}

fn acked(id: Option<OpId>, told: &Told, main: Option<Resource>, sub_id: Option<String>) -> Event {
    let data = &told.data;
    let text = |name: &str| data.get(name).and_then(Value::as_str).map(str::to_owned);
    let number = |name: &str| data.get(name).and_then(Value::as_u64);
    let makes = main.is_some() || data.contains_key("host") || data.contains_key("matches");
    Event::Ack(Box::new(Ack {
        id,
        sid: text("session_id").or_else(|| suggested(data).map(|(_, id)| id)),
        shid: text("shell_id"),
        tid: text("transfer_id"),
        sub_id,
        uri: main.map(|main| main.to_string()),
        status: (makes && number("size_bytes").is_none()).then(|| told.status.clone()),
        bytes_sent: number("bytes_sent"),
        total: number("size_bytes"),
        resumed_from: number("resumed_from"),
        files: number("files"),
        initial_buffer: text("initial_buffer"),
        host: text("host"),
        port: number("port"),
        username: text("username"),
        agent_id: text("agent_id"),
        name: text("name"),
        matches: data.get("matches").cloned(),
        commands_cancelled: number("commands_cancelled"),
        shells_closed: number("shells_closed"),
        transfers_aborted: number("transfers_aborted"),
        rsyncs_cancelled: number("rsyncs_cancelled"),
        ..Ack::default()
    }))
}

/// What the ends of resources and the drain call over the pipe.
pub(super) fn one(name: &str, id: impl ToString) -> Map<String, Value> {
    let mut arguments = Map::new();
    arguments.insert(name.to_owned(), json!(id.to_string()));
    arguments
}

/// A number that only grows and is shown.
#[derive(Debug, Default)]
pub(super) struct Tally(AtomicU64);

impl Tally {
    pub(super) fn add(&self) {
        // Relaxed here and below: it publishes nothing else.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sum(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
