//! What lanes say, as events: the outlet of the handler in this process (`docs/daemon.md`, "Events").
//!
//! Bytes of streams come along with a message. Of a log or a state there is only the word that it has changed; it is read
//! then, through the lane, and each of its events is one line. A lane that has not been named in a reply yet waits here, so
//! that its reply comes first.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use ssh_mcp_core::{
    history::{History, Origin},
    id::SubId,
    lane::{Delivery, Piece, Rest, Why},
    owner::Owner,
    port::{BoxFuture, Message, Outlet, OutletClosed},
    sync::{AtomicBool, AtomicU64, Mutex, Ordering},
    text,
    uri::Resource,
};
use ssh_mcp_engine::{Engine, LaneEntry, Source};
use tokio::sync::Notify;

use super::{
    event::{Base64, Event, Lagged, Push, ShellOutput, Snapshot, SubClosed, Text},
    now,
    outbox::{Form, Outbox, Stream, Unheard},
    pipe::Pipe,
};

/// The lanes of the daemon.
pub(super) struct Lanes {
    engine: Arc<Engine>,
    pipe: Arc<Pipe>,
    outbox: Arc<Outbox>,
    known: Mutex<HashMap<SubId, Arc<Mutex<Known>>>>,
    /// Calls under way that may open a lane.
    opening: AtomicU64,
    /// Rung when a lane becomes known, and when none of those calls is left.
    opened: Notify,
    gaps: AtomicU64,
    /// The lanes are those of a terminal, which says `shell_output`.
    as_shell: AtomicBool,
}

/// How bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As text, and where that is not the whole truth in base64 too.
    Auto,
    Base64,
}

/// A call that may open a lane; messages of lanes that are not known wait while there is one.
pub(super) struct Opening(Arc<Lanes>);

struct Known {
    said: Said,
    source: Source,
    encoding: Encoding,
    /// Its end was asked for by an op, whose reply tells of it.
    is_left: bool,
    /// The number of the newest change that was told, of a state.
    told: Option<u64>,
}

/// As much of the body of a log as is told.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Log {
    events: Vec<Value>,
}

/// What a lane has said.
struct Said {
    sub_id: String,
    uri: String,
    messages: u64,
    of_command: bool,
    cutter: Cutter,
}

impl Lanes {
    pub(super) fn new(engine: Arc<Engine>, pipe: Arc<Pipe>, outbox: Arc<Outbox>) -> Arc<Self> {
        Arc::new(Self {
            engine,
            pipe,
            outbox,
            known: Mutex::default(),
            opening: AtomicU64::new(0),
            opened: Notify::new(),
            gaps: AtomicU64::new(0),
            as_shell: AtomicBool::new(false),
        })
    }

    /// To be held while a call is under way that may open a lane, until the lane is [known](Self::learn).
    pub(super) fn opening(self: &Arc<Self>) -> Opening {
        self.opening.fetch_add(1, Ordering::AcqRel);
        Opening(Arc::clone(self))
    }

    /// A lane has been named in a reply: it may speak.
    pub(super) fn learn(&self, id: SubId, encoding: Encoding) -> Option<Arc<LaneEntry>> {
        // One that has closed already has nothing to say.
        let lane = self.engine.lane(&Owner::local(), id)?;
        let source = lane.source().clone();
        let known = Known {
            said: Said {
                sub_id: id.to_string(),
                uri: lane.resource.to_string(),
                messages: 0,
                of_command: matches!(source, Source::Command(_)),
                cutter: Cutter::default(),
            },
            source,
            encoding,
            is_left: false,
            told: None,
        };
        let mut lanes = self.known.lock();
        /// So many that have closed are kept before they are looked for.
        const CLOSED: usize = 64;
        if lanes.len() >= 2 * self.engine.lanes_of(&Owner::local()).len() + CLOSED {
            lanes.retain(|id, _| self.engine.lane(&Owner::local(), *id).is_some());
        }
        lanes.insert(id, Arc::new(Mutex::new(known)));
        drop(lanes);
        self.opened.notify_waiters();
        Some(lane)
    }

    /// Says that a lane without bytes is closed, if what it is on lives on; one with bytes says so itself.
    pub(super) async fn watch(self: Arc<Self>, lane: Arc<LaneEntry>) {
        if matches!(lane.source().history(), History::Bytes(_)) {
            return;
        }
        let reason = self.engine.lane_closed(&lane).await;
        let Some(known) = self.known.lock().remove(&lane.id) else { return };
        let is_left = known.lock().is_left;
        if !is_left && !lane.source().history().mark().ended {
            let (sub_id, uri) = (lane.id.to_string(), lane.resource.to_string());
            let closed = SubClosed { sub_id, uri, reason: reason.as_str().to_owned() };
            // Nobody hears, and that is found out elsewhere.
            _ = self.outbox.send(&Event::SubClosed(closed)).await;
        }
    }

    /// An op is about to close a lane.
    pub(super) fn leave(&self, id: SubId) {
        if let Some(known) = self.known.lock().get(&id) {
            known.lock().is_left = true;
        }
    }

    /// From now on lanes say `shell_output` instead of `push`.
    pub(super) fn speak_as_shell(&self) {
        self.as_shell.store(true, Ordering::Release);
    }

    /// Times a history no longer had what a lane was to be told.
    pub(super) fn gaps(&self) -> u64 {
        self.gaps.load(Ordering::Relaxed)
    }

    /// The lane, once its reply has been given; none if no reply will name it.
    async fn known(&self, id: SubId) -> Option<Arc<Mutex<Known>>> {
        loop {
            let opened = self.opened.notified();
            let mut opened = std::pin::pin!(opened);
            // Registered before the look, so that what changes in between is not missed.
            opened.as_mut().enable();
            // The count before the lanes: a lane is known before its call is over.
            let opening = self.opening.load(Ordering::Acquire);
            if let Some(known) = self.known.lock().get(&id) {
                return Some(Arc::clone(known));
            }
            if opening == 0 {
                return None;
            }
            opened.await;
        }
    }

    async fn tell(&self, id: SubId, delivery: &Delivery) -> Result<(), Unheard> {
        let known = match delivery {
            // Its reply may never come, and it has nothing to say that a reply would not.
            Delivery::Closed { .. } => self.known.lock().remove(&id),
            Delivery::Updated | Delivery::Piece(_) | Delivery::End { .. } => self.known(id).await,
        };
        let Some(known) = known else { return Ok(()) };
        match delivery {
            Delivery::Updated => self.read(id, &known).await,
            Delivery::Piece(piece) if self.outbox.form() == Form::Raw => self.pour(piece).await,
            Delivery::End { gap, .. } if self.outbox.form() == Form::Raw => self.lack(*gap).await,
            Delivery::Piece(piece) => self.say(&known, |cutter| cutter.piece(piece)).await,
            Delivery::End { cursor, gap, dropped, .. } => {
                self.say(&known, |cutter| cutter.end(*cursor, *gap, *dropped)).await
            }
            Delivery::Closed { cursor, reason, .. } => {
                self.say(&known, |cutter| cutter.end(*cursor, 0, 0)).await?;
                let (sub_id, uri, is_left) = {
                    let known = known.lock();
                    (known.said.sub_id.clone(), known.said.uri.clone(), known.is_left)
                };
                if is_left {
                    return Ok(());
                }
                let closed = SubClosed { sub_id, uri, reason: reason.as_str().to_owned() };
                self.outbox.send(&Event::SubClosed(closed)).await
            }
        }
    }

    /// Says between raw bytes that some are missing. None are while their producer waits for them; one that was asked to end does
    /// not.
    async fn lack(&self, gap: u64) -> Result<(), Unheard> {
        if gap == 0 {
            return Ok(());
        }
        // Relaxed: a number that is shown.
        self.gaps.fetch_add(1, Ordering::Relaxed);
        let said = format!("ssh-mcp-tail: {gap} bytes are missing here, for they were not read in time\n");
        self.outbox.send_bytes(Stream::Errors, said.as_bytes()).await
    }

    /// Says the bytes of a message as they are.
    async fn pour(&self, piece: &Piece) -> Result<(), Unheard> {
        self.lack(piece.gap).await?;
        let mut left = piece.bytes.as_slice();
        for (origin, length) in &piece.runs {
            let (run, rest) = left.split_at((*length).min(left.len()));
            left = rest;
            let stream = match origin {
                Origin::Stdout => Stream::Output,
                Origin::Stderr => Stream::Errors,
            };
            self.outbox.send_bytes(stream, run).await?;
        }
        Ok(())
    }

    /// Says what a cutter makes of a message.
    async fn say(
        &self,
        known: &Mutex<Known>,
        cut: impl FnOnce(&mut Cutter) -> Vec<Cut>,
    ) -> Result<(), Unheard> {
        let cuts = {
            let mut known = known.lock();
            known.said.cutter.whole = match known.encoding {
                Encoding::Auto => Whole::Characters,
                Encoding::Base64 => Whole::Bytes,
            };
            cut(&mut known.said.cutter)
        };
        for cut in cuts {
            if cut.gap > 0 {
                // Relaxed: a number that is shown.
                self.gaps.fetch_add(1, Ordering::Relaxed);
            }
            if self.as_shell.load(Ordering::Acquire) && !cut.bytes.is_empty() {
                if cut.gap > 0 {
                    let lost = known.lock().lagged(0, cut.gap);
                    self.outbox.send(&lost).await?;
                }
                let (bytes, bytes_b64) = written(cut.bytes.into(), Encoding::Auto);
                let shid = known.lock().source.resource().id.as_hyphenated().to_string();
                let shown = ShellOutput { shid, bytes: bytes.unwrap_or_default(), bytes_b64 };
                self.outbox.send(&Event::ShellOutput(shown)).await?;
                continue;
            }
            let event = known.lock().event(cut, &self.engine);
            self.outbox.send(&event).await?;
        }
        Ok(())
    }

    /// A log or a state has changed: reads what is new.
    async fn read(&self, id: SubId, known: &Mutex<Known>) -> Result<(), Unheard> {
        let (uri, is_log) = {
            let known = known.lock();
            let is_log = matches!(known.source.history(), History::Log(_));
            (known.said.uri.clone(), is_log)
        };
        let asked = if is_log { format!("{uri}?sub_id={id}&cursor=auto") } else { uri };
        loop {
            // Gone, or the server is; either way there is nothing to tell.
            let Ok(content) = self.pipe.read(&asked).await else { return Ok(()) };
            let cursor = content.meta.next();
            let body = content.text.unwrap_or_default();
            let deltas: Vec<String> = match is_log {
                true => {
                    let log: Log = serde_json::from_str(&body).unwrap_or_default();
                    log.events.iter().map(Value::to_string).collect()
                }
                false => {
                    let is_new = known.lock().told.replace(cursor) != Some(cursor);
                    is_new.then_some(body).into_iter().collect()
                }
            };
            let mut gap = content.meta.truncated_since_last_read;
            for delta in deltas {
                let push = {
                    let mut known = known.lock();
                    let gap_bytes = gap.take();
                    Push { delta: Some(Text(delta.into())), gap_bytes, ..known.push(cursor, &self.engine) }
                };
                self.outbox.send(&Event::Push(push)).await?;
            }
            if !content.meta.more {
                return Ok(());
            }
        }
    }
}

impl Outlet for Lanes {
    fn deliver<'a>(&'a self, message: Message<'a>) -> BoxFuture<'a, Result<(), OutletClosed>> {
        Box::pin(async move {
            match message {
                Message::Lane { sub_id, delivery, .. } => {
                    self.tell(sub_id, delivery).await.map_err(|Unheard| OutletClosed)
                }
                Message::ListChanged => Ok(()),
            }
        })
    }

    fn is_closed(&self) -> bool {
        self.outbox.is_unheard()
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.opening.fetch_sub(1, Ordering::AcqRel);
        self.0.opened.notify_waiters();
    }
}

impl Known {
    /// A push without its data.
    fn push(&mut self, cursor: u64, engine: &Engine) -> Push {
        self.said.messages += 1;
        Push {
            sub_id: self.said.sub_id.clone(),
            uri: self.said.uri.clone(),
            seq_local: self.said.messages,
            seq_global: self.source.history().mark().seq,
            cursor,
            ts: now(engine),
            ..Push::default()
        }
    }

    fn lagged(&mut self, dropped: u64, gap: u64) -> Event {
        self.said.messages += 1;
        let Said { sub_id, uri, messages, .. } = &self.said;
        Event::Lagged(Lagged {
            sub_id: sub_id.clone(),
            uri: uri.clone(),
            seq_local: *messages,
            dropped,
            gap_bytes: (gap > 0).then_some(gap),
        })
    }

    fn event(&mut self, cut: Cut, engine: &Engine) -> Event {
        if cut.dropped > 0 || cut.bytes.is_empty() {
            return self.lagged(cut.dropped, cut.gap);
        }
        let gap_bytes = (cut.gap > 0).then_some(cut.gap);
        let (delta, delta_b64) = written(cut.bytes.into(), self.encoding);
        let stream = self.said.of_command.then_some(match cut.origin {
            Origin::Stdout => "stdout",
            Origin::Stderr => "stderr",
        });
        let push = self.push(cut.cursor, engine);
        match cut.why {
            Why::News | Why::Replay => {
                let replay = (cut.why == Why::Replay).then_some(true);
                Event::Push(Push { delta, delta_b64, stream, replay, gap_bytes, ..push })
            }
            Why::Snapshot => Event::Snapshot(Snapshot {
                cursor: cut.cursor,
                id: None,
                sub_id: Some(push.sub_id),
                uri: Some(push.uri),
                seq_local: Some(push.seq_local),
                delta,
                delta_b64,
                stream,
                gap_bytes,
                more: (cut.rest == Rest::Follows).then_some(true),
                status: None,
            }),
        }
    }
}

/// Bytes as text, and in base64 where the text is not all.
pub(super) fn written(bytes: Bytes, encoding: Encoding) -> (Option<Text>, Option<Base64>) {
    match (encoding, std::str::from_utf8(&bytes)) {
        (Encoding::Auto, Ok(_)) => (Some(Text(bytes)), None),
        (Encoding::Auto, Err(_)) => (Some(Text(bytes.clone())), Some(Base64(bytes))),
        (Encoding::Base64, _) => (None, Some(Base64(bytes))),
    }
}

/// What one message of a lane becomes: pieces of one stream that end between characters.
#[derive(Debug, Default)]
struct Cutter {
    whole: Whole,
    /// The beginning of a character, and where it came from.
    held: Vec<u8>,
    origin: Option<Origin>,
    why: Option<Why>,
    /// Where what was cut ends, without what is held.
    at: u64,
    /// What is missing before what comes next.
    gap: u64,
}

/// What is never cut in two.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Whole {
    #[default]
    Characters,
    Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Cut {
    bytes: Vec<u8>,
    origin: Origin,
    why: Why,
    cursor: u64,
    gap: u64,
    dropped: u64,
    rest: Rest,
}

impl Cutter {
    fn piece(&mut self, piece: &Piece) -> Vec<Cut> {
        let start = piece.cursor_after - piece.bytes.len() as u64;
        let mut cuts = Vec::new();
        let goes_on = start == self.at + self.held.len() as u64 && self.why == Some(piece.why);
        if piece.gap > 0 || piece.dropped > 0 || !goes_on {
            cuts.extend(self.give_up());
        }
        self.why = Some(piece.why);
        self.at = start - self.held.len() as u64;
        self.lose(&mut cuts, piece.gap, piece.dropped);
        let mut left = piece.bytes.as_slice();
        let all = [(Origin::Stdout, piece.bytes.len())];
        let runs = if piece.runs.is_empty() { &all[..] } else { &piece.runs };
        for (number, (origin, length)) in runs.iter().enumerate() {
            let (run, rest) = left.split_at((*length).min(left.len()));
            left = rest;
            if self.origin != Some(*origin) {
                cuts.extend(self.give_up());
            }
            self.origin = Some(*origin);
            let mut bytes = std::mem::take(&mut self.held);
            bytes.extend_from_slice(run);
            if self.whole == Whole::Characters {
                self.held = bytes.split_off(bytes.len() - text::incomplete_suffix(&bytes));
            }
            let is_last = number + 1 == runs.len();
            cuts.extend(self.cut(bytes, if is_last { piece.rest } else { Rest::Follows }));
        }
        cuts
    }

    /// Nothing follows.
    fn end(&mut self, cursor: u64, gap: u64, dropped: u64) -> Vec<Cut> {
        let mut cuts: Vec<Cut> = self.give_up().into_iter().collect();
        self.lose(&mut cuts, gap, dropped);
        if self.gap > 0 {
            let (gap, origin) = (std::mem::take(&mut self.gap), Origin::Stdout);
            cuts.push(Cut {
                bytes: Vec::new(),
                origin,
                why: Why::News,
                cursor,
                gap,
                dropped: 0,
                rest: Rest::Nothing,
            });
        }
        cuts
    }

    /// Events the policy dropped are told by themselves, bytes that are gone with what comes after them.
    fn lose(&mut self, cuts: &mut Vec<Cut>, gap: u64, dropped: u64) {
        self.gap += gap;
        if dropped > 0 {
            let (gap, origin) = (std::mem::take(&mut self.gap), Origin::Stdout);
            let (cursor, why) = (self.at, Why::News);
            cuts.push(Cut { bytes: Vec::new(), origin, why, cursor, gap, dropped, rest: Rest::Nothing });
        }
    }

    /// The rest of a character will not come.
    fn give_up(&mut self) -> Option<Cut> {
        let held = std::mem::take(&mut self.held);
        self.cut(held, Rest::Nothing)
    }

    fn cut(&mut self, bytes: Vec<u8>, rest: Rest) -> Option<Cut> {
        if bytes.is_empty() {
            return None;
        }
        self.at += bytes.len() as u64;
        Some(Cut {
            bytes,
            origin: self.origin.unwrap_or(Origin::Stdout),
            why: self.why.unwrap_or(Why::News),
            cursor: self.at,
            gap: std::mem::take(&mut self.gap),
            dropped: 0,
            rest,
        })
    }
}

/// The resource a lane of the daemon is on, by its URI.
pub(super) fn resource_of(uri: &str) -> Option<Resource> {
    ssh_mcp_core::uri::parse(uri).ok()?.resource()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(end: u64, bytes: &[u8], runs: &[(Origin, usize)]) -> Piece {
        Piece {
            seq: 0,
            cursor_after: end,
            bytes: bytes.to_vec(),
            runs: runs.to_vec(),
            rest: Rest::Nothing,
            why: Why::News,
            gap: 0,
            dropped: 0,
        }
    }

    fn shown(cuts: &[Cut]) -> Vec<(&[u8], Origin, u64)> {
        cuts.iter().map(|cut| (&cut.bytes[..], cut.origin, cut.cursor)).collect()
    }

    #[test]
    fn half_a_character_waits_for_its_other_half() {
        let mut cutter = Cutter::default();
        let cuts = cutter.piece(&piece(2, b"a\xc3", &[]));
        assert_eq!(shown(&cuts), [(&b"a"[..], Origin::Stdout, 1)]);
        let cuts = cutter.piece(&piece(4, b"\xa4b", &[]));
        assert_eq!(shown(&cuts), [("äb".as_bytes(), Origin::Stdout, 4)]);
        assert_eq!(cutter.piece(&piece(5, b"\xc3", &[])), []);
        assert_eq!(shown(&cutter.end(5, 0, 0)), [(&b"\xc3"[..], Origin::Stdout, 5)]);
    }

    #[test]
    fn a_piece_is_cut_where_the_stream_changes() {
        let mut cutter = Cutter::default();
        let runs = [(Origin::Stdout, 2), (Origin::Stderr, 1), (Origin::Stdout, 1)];
        let cuts = cutter.piece(&piece(4, b"o\xc3eo", &runs));
        let expected = [
            (&b"o"[..], Origin::Stdout, 1),
            (b"\xc3", Origin::Stdout, 2),
            (b"e", Origin::Stderr, 3),
            (b"o", Origin::Stdout, 4),
        ];
        assert_eq!(shown(&cuts), expected);
    }

    #[test]
    fn losses_are_told_where_they_are() {
        let mut cutter = Cutter::default();
        let lost = Piece { gap: 6, ..piece(10, b"four", &[]) };
        assert_eq!(cutter.piece(&lost)[0].gap, 6);
        let dropped = Piece { gap: 5, dropped: 2, ..piece(19, b"four", &[]) };
        let cuts = cutter.piece(&dropped);
        assert_eq!((cuts[0].dropped, cuts[0].gap, cuts[0].bytes.len()), (2, 5, 0));
        assert_eq!((cuts[1].dropped, cuts[1].gap), (0, 0));
        assert_eq!(cutter.end(25, 6, 0)[0].gap, 6);
    }

    proptest! {
        #[test]
        fn what_is_cut_is_what_came(
            pieces in proptest::collection::vec(proptest::collection::vec((any::<u8>(), any::<bool>()), 1..8), 1..12),
        ) {
            let mut cutter = Cutter::default();
            let (mut came, mut cuts) = (Vec::new(), Vec::new());
            for bytes in pieces {
                let mut runs: Vec<(Origin, usize)> = Vec::new();
                for (byte, is_error) in bytes {
                    let origin = if is_error { Origin::Stderr } else { Origin::Stdout };
                    came.push((byte, origin));
                    match runs.last_mut() {
                        Some((last, length)) if *last == origin => *length += 1,
                        _ => runs.push((origin, 1)),
                    }
                }
                let length: usize = runs.iter().map(|(_, length)| length).sum();
                let bytes: Vec<u8> = came[came.len() - length..].iter().map(|(byte, _)| *byte).collect();
                cuts.extend(cutter.piece(&piece(came.len() as u64, &bytes, &runs)));
            }
            cuts.extend(cutter.end(came.len() as u64, 0, 0));
            let mut told = Vec::new();
            for cut in cuts {
                prop_assert!(!cut.bytes.is_empty());
                told.extend(cut.bytes.iter().map(|byte| (*byte, cut.origin)));
                prop_assert_eq!(cut.cursor, told.len() as u64);
            }
            prop_assert_eq!(told, came);
        }
    }
}
