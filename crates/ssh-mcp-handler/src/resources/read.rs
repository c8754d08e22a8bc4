//! `resources/read`: a window of a stream or a log, or a snapshot, with everything a next read needs in `_meta`.
//!
//! A read is a use of the resource and observes it for its length. Nothing here waits.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rmcp::model::{ErrorData, JsonObject, MetaObject, ReadResourceResult, ResourceContents};
use serde_json::{Value, json};
use ssh_mcp_core::{
    history::{ByteHistory, Origin, View, Window},
    id::{CommandId, ForwardId, RsyncId, SerialId, SessionId, ShellId, SubId, TransferId},
    kind::command::Status,
    lane::{Characters, Form, Ranges, Take},
    owner::Owner,
    port::Directory,
    registry::{Command, Entry, Expiry, Found, HealthWord, Session, Transfer},
    text,
    uri::{self, CursorAt, Encoding, Escapes, Resource, Scheme, Stream, Uri, UriError, UriFault},
};
use ssh_mcp_engine::{Engine, LaneEntry, Missing, Observable, Peer};

use super::log::{Events, Log};
use crate::{
    cx::rfc3339,
    failure,
    reply::{Nonce, Shown, Text},
    tools::transfer,
};

/// Who reads.
pub(crate) struct Reader<'a> {
    /// Where the resources are.
    pub(crate) engine: &'a Arc<Engine>,
    /// Whose they must be.
    pub(crate) owner: &'a Owner,
    /// Who keeps the automatic cursors; none for a request that stands alone.
    pub(crate) peer: Option<&'a Peer>,
}

/// Reads what a URI names.
///
/// # Errors
/// Invalid params for a URI or query that cannot be understood, resource not found for one that leads nowhere.
pub(crate) fn read(reader: &Reader<'_>, text: &str) -> Result<ReadResourceResult, ErrorData> {
    let uri = uri::parse(text).map_err(|error| failure::bad_uri(text, &error))?;
    let Some(resource) = uri.resource() else {
        return Err(failure::no_resource(text, reader.unknown(&uri), |at| rfc3339(reader.engine, at)));
    };
    let missing = |missing| failure::no_resource(text, missing, |at| rfc3339(reader.engine, at));
    let contents = match resource.scheme {
        Scheme::Shell => {
            let id = ShellId::from(resource.id);
            let shell = reader.engine.shell(reader.owner, id).map_err(missing)?;
            let _observer = reader.engine.observe(Observable::Shell(&shell));
            shell.active.touch(reader.engine.clock().now());
            reader.stream(text, &uri, resource, &shell.history, stream_meta(&*shell))?
        }
        Scheme::Command => {
            let id = CommandId::from(resource.id);
            let command = reader.engine.command(reader.owner, id).map_err(missing)?;
            let _observer = reader.engine.observe(Observable::Command(&command));
            reader.stream(text, &uri, resource, &command.history, command_meta(&command))?
        }
        Scheme::Transfer => {
            let id = TransferId::from(resource.id);
            let transfer = reader.engine.transfer_of(reader.owner, id).map_err(missing)?;
            let _observer = reader.engine.observe(Observable::Transfer(&transfer));
            reader.transfer(text, &transfer)
        }
        Scheme::Rsync => {
            let id = RsyncId::from(resource.id);
            let rsync = reader.engine.rsync(reader.owner, id).map_err(missing)?;
            let _observer = reader.engine.observe(Observable::Rsync(&rsync));
            reader.log(text, &uri, Log::Rsync(&rsync))?
        }
        Scheme::Forward => {
            let id = ForwardId::from(resource.id);
            let forward = reader.engine.forward_of(reader.owner, id).map_err(missing)?;
            let _observer = reader.engine.observe(Observable::Forward(&forward));
            reader.log(text, &uri, Log::Forward(&forward))?
        }
        Scheme::Serial => {
            let id = SerialId::from(resource.id);
            let serial = reader.engine.serial(reader.owner, id).map_err(missing)?;
            let _observer = reader.engine.observe(Observable::Serial(&serial));
            reader.stream(text, &uri, resource, &serial.history, stream_meta(&*serial))?
        }
        Scheme::Session => {
            let id = SessionId::from(resource.id);
            // An ended session is shown too, so the look-up that only gives open ones is for its side effect.
            _ = reader.engine.session(reader.owner, id);
            let sessions = &reader.engine.registries().sessions;
            match sessions.find(reader.owner, id, reader.engine.clock().now()) {
                Found::Here(session) => reader.snapshot(text, &session),
                Found::Gone(grave) => {
                    let nearest = sessions.nearest(reader.owner, &uri.id);
                    return Err(missing(Missing::Gone { reason: grave.reason, ended: grave.ended, nearest }));
                }
                Found::Unknown => return Err(missing(reader.unknown(&uri))),
            }
        }
    };
    Ok(ReadResourceResult::new(vec![contents]))
}

impl Reader<'_> {
    fn unknown(&self, uri: &Uri) -> Missing {
        let directory = self.engine.registries().directory(uri.scheme);
        Missing::Unknown { nearest: directory.nearest(self.owner, &uri.id) }
    }

    /// A window of a stream.
    fn stream(
        &self,
        asked: &str,
        uri: &Uri,
        resource: Resource,
        history: &ByteHistory,
        mut meta: JsonObject,
    ) -> Result<ResourceContents, ErrorData> {
        let query = &uri.query;
        let cap = self.engine.settings().output_cap;
        let cut = Cut {
            history,
            view: query.stream.map_or(View::Merged, |stream| match stream {
                Stream::Merged => View::Merged,
                Stream::Stdout => View::Stdout,
                Stream::Stderr => View::Stderr,
            }),
            max: query.max_bytes.unwrap_or(cap).min(cap),
            encoding: query.encoding,
            escapes: query.escapes,
        };
        let lane = query.lane.map(|id| self.lane(asked, id, query.cursor, resource)).transpose()?;
        let Piece { window, more } = match (query.cursor, self.peer) {
            (CursorAt::Auto | CursorAt::Base, _) if let Some(lane) = &lane => self.through(lane, &cut),
            (CursorAt::Auto, Some(peer)) => {
                let mut claimed = None;
                let (start, _) = peer.cursor(resource).claim(|at| {
                    let piece = claimed.insert(cut.from(at));
                    (piece.window.start, piece.window.next)
                });
                // The last window that was asked for is the one that was claimed.
                claimed.unwrap_or_else(|| cut.from(start))
            }
            (CursorAt::Auto, None) => {
                meta.insert("cursor_scope".into(), "none".into());
                cut.all_held()
            }
            (CursorAt::Base, peer) => self.explicit(peer, resource, 0, cut.all_held(), &cut),
            (CursorAt::At(from), peer) => self.explicit(peer, resource, from, cut.from(from), &cut),
        };

        let mark = history.mark();
        meta.insert("last_seq".into(), mark.seq.into());
        meta.insert("cursor".into(), window.next.into());
        meta.insert("base".into(), window.base.into());
        meta.insert("buffer_size".into(), (window.end - window.base).into());
        if more {
            meta.insert("more".into(), true.into());
        }
        if window.gap > 0 {
            meta.insert("truncated_since_last_read".into(), window.gap.into());
        }
        let contents = match query.encoding {
            Encoding::Base64 => ResourceContents::blob(STANDARD.encode(&window.bytes), asked)
                .with_mime_type("application/octet-stream"),
            Encoding::Text => {
                let body = match (uri.scheme, query.stream) {
                    (Scheme::Command, None) => two_blocks(&window, query.escapes),
                    (Scheme::Command, Some(_))
                    | (
                        Scheme::Shell
                        | Scheme::Serial
                        | Scheme::Transfer
                        | Scheme::Rsync
                        | Scheme::Forward
                        | Scheme::Session,
                        _,
                    ) => shown(&window.bytes, query.escapes),
                };
                ResourceContents::text(body, asked).with_mime_type(uri.scheme.row().mime)
            }
        };
        Ok(contents.with_meta(MetaObject(meta)))
    }

    /// The lane a read names: one of the caller's, on this resource, that is read from.
    fn lane(
        &self,
        asked: &str,
        id: SubId,
        cursor: CursorAt,
        resource: Resource,
    ) -> Result<Arc<LaneEntry>, ErrorData> {
        let bad = |field, value: String, expected| {
            failure::bad_uri(asked, &UriError { kind: UriFault::BadQuery, field, value, expected })
        };
        if let CursorAt::At(at) = cursor {
            return Err(bad("cursor", at.to_string(), "auto with a sub_id; sub_replay moves a lane back"));
        }
        let lane = self.engine.lane(self.owner, id).filter(|lane| lane.resource == resource);
        match lane {
            Some(lane) if lane.form == Form::Pull => Ok(lane),
            Some(_) => {
                Err(bad("sub_id", id.to_string(), "a lane that is read from; this one brings its bytes"))
            }
            None => Err(bad("sub_id", id.to_string(), "the SUB_ID of one of your lanes on this resource")),
        }
    }

    /// What a lane has not been read yet, through its filter.
    fn through(&self, lane: &LaneEntry, cut: &Cut<'_>) -> Piece {
        let characters = match cut.encoding {
            Encoding::Base64 => Characters::Any,
            Encoding::Text => Characters::Whole,
        };
        let take = Take { max: cut.max, view: cut.view, characters };
        let mut plain = None;
        let ranges = lane.read(self.engine.clock().now(), take, |at| {
            let piece = plain.insert(cut.from(at));
            (piece.window.start, piece.window.next)
        });
        match (ranges, plain) {
            (Some(Ranges { window, more }), _) => Piece { window, more },
            (None, Some(piece)) => piece,
            // One of the two is always there.
            (None, None) => cut.all_held(),
        }
    }

    /// A read from a place the caller named: the automatic cursor follows if nothing lies between, and if the view left
    /// nothing out.
    fn explicit(
        &self,
        peer: Option<&Peer>,
        resource: Resource,
        from: u64,
        piece: Piece,
        cut: &Cut<'_>,
    ) -> Piece {
        if let (Some(peer), View::Merged) = (peer, cut.view) {
            peer.cursor(resource).advance_contiguous(from, piece.window.next);
        }
        piece
    }

    /// The events of a log from a cursor on, in its body.
    fn log(&self, asked: &str, uri: &Uri, log: Log<'_>) -> Result<ResourceContents, ErrorData> {
        let (query, resource) = (&uri.query, log.resource());
        let cap = self.engine.settings().output_cap;
        let max = query.max_bytes.unwrap_or(cap).min(cap);
        let lane = query.lane.map(|id| self.lane(asked, id, query.cursor, resource)).transpose()?;
        let mut meta = JsonObject::new();
        // Before the events: with an end its event is among them.
        let status = log.status();
        // The last window that was asked for is the one that was claimed.
        let mut claimed = None;
        let mut window = |at: u64| {
            let events = claimed.insert(log.events(self.engine, at, max));
            (events.start, events.next)
        };
        match (query.cursor, self.peer) {
            (CursorAt::Auto | CursorAt::Base, _) if let Some(lane) = &lane => {
                let take = Take { max: 1, view: View::Merged, characters: Characters::Any };
                // A log has no ranges.
                _ = lane.read(self.engine.clock().now(), take, window);
            }
            (CursorAt::Auto, Some(peer)) => _ = peer.cursor(resource).claim(window),
            (CursorAt::Auto, None) => _ = meta.insert("cursor_scope".into(), "none".into()),
            (CursorAt::Base, _) => {}
            (CursorAt::At(at), _) => _ = window(at),
        }
        // What was dropped before is not missed by who asks for all that is held.
        let events = claimed.unwrap_or_else(|| Events { gap: 0, ..log.events(self.engine, 0, max) });
        if let (CursorAt::Base | CursorAt::At(_), None, Some(peer)) = (query.cursor, &lane, self.peer) {
            let at = if let CursorAt::At(at) = query.cursor { at } else { 0 };
            peer.cursor(resource).advance_contiguous(at, events.next);
        }
        let mark = log.mark();
        meta.insert("kind".into(), log.scheme().as_str().into());
        meta.insert("status".into(), status.word.into());
        meta.insert("last_seq".into(), mark.seq.into());
        meta.insert("cursor".into(), events.next.into());
        meta.insert("base".into(), mark.base.into());
        meta.insert("buffer_size".into(), log.held().into());
        if events.more {
            meta.insert("more".into(), true.into());
        }
        if events.gap > 0 {
            meta.insert("truncated_since_last_read".into(), events.gap.into());
        }
        let reason = log.reason().filter(|_| status.has_ended);
        meta.extend(reason.map(|reason| ("reason".to_owned(), reason.as_str().into())));
        let body = log.body(status, events.shown).to_string();
        let contents = ResourceContents::text(body, asked).with_mime_type(log.scheme().row().mime);
        Ok(contents.with_meta(MetaObject(meta)))
    }

    /// How far a transfer is.
    fn transfer(&self, asked: &str, transfer: &Transfer) -> ResourceContents {
        let body = transfer::body(self.engine, transfer);
        let mut meta = JsonObject::new();
        meta.insert("kind".into(), Scheme::Transfer.as_str().into());
        for field in ["status", "last_seq"] {
            meta.insert(field.into(), body.get(field).cloned().unwrap_or_default());
        }
        if let Some((reason, _)) = transfer.ended() {
            meta.insert("reason".into(), reason.as_str().into());
        }
        ResourceContents::text(body.to_string(), asked)
            .with_mime_type(Scheme::Transfer.row().mime)
            .with_meta(MetaObject(meta))
    }

    /// A session's health.
    fn snapshot(&self, asked: &str, session: &Session) -> ResourceContents {
        let stated = session.health.read();
        let mut meta = JsonObject::new();
        meta.insert("kind".into(), Scheme::Session.as_str().into());
        meta.insert("status".into(), word(session).as_str().into());
        meta.insert("last_seq".into(), stated.seq.into());
        if let Some((reason, _)) = session.ended() {
            meta.insert("reason".into(), reason.as_str().into());
        }
        ResourceContents::text(session_body(self.engine, session).to_string(), asked)
            .with_mime_type(Scheme::Session.row().mime)
            .with_meta(MetaObject(meta))
    }
}

fn word(session: &Session) -> HealthWord {
    if session.ended().is_some() { HealthWord::Disconnected } else { session.health.load().word }
}

/// What is known of a session's health, as its resource shows it.
pub(super) fn session_body(engine: &Engine, session: &Session) -> Value {
    let spec = &session.spec;
    let stated = session.health.read();
    let health = &stated.value;
    let word = word(session);
    let mut body = json!({
        "session_id": spec.id, "host": spec.target.address.host, "port": spec.target.address.port,
        "username": spec.target.username, "healthy": word == HealthWord::Healthy, "status": word.as_str(),
        "last_health_check": rfc3339(engine, health.checked), "persistent": spec.expiry == Expiry::Never,
        "active_refs": session.life.snapshot().refs, "last_seq": stated.seq,
    });
    if let Value::Object(body) = &mut body {
        body.extend(spec.agent.clone().map(|agent| ("agent_id".to_owned(), agent.into())));
        let rtt = health.round_trip.map(|rtt| (rtt.as_secs_f64() * 1e6).round() / 1e3);
        body.extend(rtt.map(|rtt| ("rtt_ms".to_owned(), rtt.into())));
        let expires = session.expires().filter(|_| session.ended().is_none());
        body.extend(expires.map(|at| ("expires_at".to_owned(), rfc3339(engine, at).into())));
    }
    body
}

/// Of what is open or closed: shells and serial ports.
fn stream_meta<E: Entry>(entry: &E) -> JsonObject {
    let ended = entry.ended();
    let mut meta = JsonObject::new();
    meta.insert("kind".into(), E::SCHEME.as_str().into());
    meta.insert("status".into(), if ended.is_some() { "closed" } else { "open" }.into());
    meta.extend(ended.map(|(reason, _)| ("reason".to_owned(), reason.as_str().into())));
    meta
}

fn command_meta(command: &Command) -> JsonObject {
    let mut meta = JsonObject::new();
    meta.insert("kind".into(), Scheme::Command.as_str().into());
    meta.insert("status".into(), command.status().as_str().into());
    if let Some(end) = command.ending.get() {
        meta.insert("reason".into(), end.reason.as_str().into());
        meta.extend(end.facts.exit_code().map(|code| ("exit_code".to_owned(), code.into())));
        if end.facts.status == Status::TimedOut {
            meta.insert("timed_out".into(), true.into());
        }
    }
    meta
}

/// Both streams of a window, in the form of the tools' output blocks.
fn two_blocks(window: &Window, escapes: Escapes) -> String {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut rest = window.bytes.as_slice();
    for (origin, length) in &window.runs {
        let (run, behind) = rest.split_at(rest.len().min(*length));
        rest = behind;
        match origin {
            Origin::Stdout => stdout.extend_from_slice(run),
            Origin::Stderr => stderr.extend_from_slice(run),
        }
    }
    let mut text = Text::bare(Nonce::fresh());
    text.block("stdout", &Shown::whole(shown(&stdout, escapes)));
    text.block("stderr", &Shown::whole(shown(&stderr, escapes)));
    text.into_string()
}

fn shown(bytes: &[u8], escapes: Escapes) -> String {
    match escapes {
        Escapes::Keep => text::lossy(bytes).into_owned(),
        Escapes::Strip => text::lossy(&text::strip_escapes(bytes)).into_owned(),
    }
}

/// How a stream is cut into windows.
struct Cut<'a> {
    history: &'a ByteHistory,
    view: View,
    max: usize,
    encoding: Encoding,
    escapes: Escapes,
}

/// A window, and whether the answer's size is what ended it.
struct Piece {
    window: Window,
    more: bool,
}

/// Bytes of an unfinished character, or escape sequence, left for the next read at most.
const HELD_BACK: usize = 4096;

impl Cut<'_> {
    /// The oldest window from a place on. As text it ends at a character, and without escape sequences at the end of one,
    /// as long as more can come.
    fn from(&self, from: u64) -> Piece {
        let window = self.history.read_origin(self.view, from, self.max);
        let more = window.next < window.end;
        let unfinished = match self.encoding {
            Encoding::Base64 => 0,
            Encoding::Text => self.unfinished(&window),
        };
        match unfinished {
            // Such a window would never be left.
            all if all > 0 && all == window.bytes.len() && more => self.grown(from, window),
            unfinished => Piece { window: window.without_last(unfinished), more },
        }
    }

    /// All that is held; what was dropped before is not missed.
    fn all_held(&self) -> Piece {
        let Piece { window, more } = self.from(0);
        Piece { window: Window { gap: 0, ..window }, more }
    }

    /// A full window that holds nothing but the beginning of a character or sequence: the smallest larger one that holds
    /// its end too.
    fn grown(&self, from: u64, full: Window) -> Piece {
        for size in full.bytes.len() + 1..=HELD_BACK {
            let window = self.history.read_origin(self.view, from, size);
            let more = window.next < window.end;
            let whole = self.unfinished(&window) == 0;
            if whole || window.bytes.len() < size {
                let unfinished = if whole { 0 } else { window.bytes.len() };
                return Piece { window: window.without_last(unfinished), more };
            }
        }
        // No sequence is that long: it is text after all.
        Piece { more: full.next < full.end, window: full }
    }

    /// Bytes at the end that only make sense with what follows.
    fn unfinished(&self, window: &Window) -> usize {
        if window.ended && window.next == window.end {
            return 0;
        }
        let Some((_, last)) = window.runs.last() else { return 0 };
        let run = window.bytes.get(window.bytes.len().saturating_sub(*last)..).unwrap_or_default();
        let character = text::incomplete_suffix(run);
        let sequence = match self.escapes {
            Escapes::Keep => 0,
            Escapes::Strip => unfinished_escape(run),
        };
        let unfinished = character.max(sequence);
        if unfinished > 0 && !self.ends_the_window(window, unfinished) { 0 } else { unfinished }
    }

    /// Whether the last `count` bytes of the view are also the last of the stream up to the window's end, so that the
    /// window can end before them.
    fn ends_the_window(&self, window: &Window, count: usize) -> bool {
        let count_wide = count as u64;
        self.view == View::Merged || {
            let merged = self.history.read(window.next.saturating_sub(count_wide), count);
            merged.start + count_wide == window.next
                && merged.runs.iter().all(|(origin, _)| self.view.shows(*origin))
        }
    }
}

/// Length of an escape sequence that is not finished at the end, or 0.
fn unfinished_escape(bytes: &[u8]) -> usize {
    let Some(start) = bytes.iter().rposition(|byte| *byte == 0x1b) else { return 0 };
    let tail = bytes.get(start..).unwrap_or_default();
    if tail.len() > HELD_BACK {
        return 0;
    }
    // Behind a finished sequence a further byte is text; inside one it is swallowed.
    let probe = [tail, b"\0"].concat();
    if text::strip_escapes(&probe).is_empty() { tail.len() } else { 0 }
}

#[cfg(test)]
mod tests;
