//! The bodies of logs, seen alike: a sync, a forward.

use serde::Serialize;
use serde_json::{Value, json};
use ssh_mcp_core::{
    history::{LogHistory, Mark},
    reason::Reason,
    registry::{Entry, Forward, ForwardStatus, Rsync},
    uri::{Resource, Scheme},
};
use ssh_mcp_engine::{Engine, Source};
use std::time::Duration;

use crate::{cx::rfc3339, tools::rsync};

/// A resource whose body is events.
#[derive(Clone, Copy)]
pub(crate) enum Log<'a> {
    /// A sync.
    Rsync(&'a Rsync),
    /// A forward.
    Forward(&'a Forward),
}

/// Events from a number on, as JSON, and where to go on.
pub(crate) struct Events {
    /// Each with its number and time.
    pub(crate) shown: Vec<Value>,
    /// Where the events begin.
    pub(crate) start: u64,
    /// Where the next read goes on.
    pub(crate) next: u64,
    /// Numbers whose events are gone.
    pub(crate) gap: u64,
    /// Whether the size kept events back.
    pub(crate) more: bool,
}

/// The newest events of a window.
pub(crate) struct Last {
    /// Those that are shown, each with its number and time, the oldest first.
    pub(crate) shown: Vec<Value>,
    /// How many there are.
    pub(crate) count: usize,
    /// Bytes of all of them.
    pub(crate) size: usize,
    /// Where they begin.
    pub(crate) first: u64,
    /// Numbers before them whose events are gone.
    pub(crate) gap: u64,
}

/// A status, and whether it is final.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Status {
    /// In one word.
    pub(crate) word: &'static str,
    /// Whether it is final.
    pub(crate) has_ended: bool,
}

impl<'a> Log<'a> {
    /// The log of a source, if it is one.
    pub(crate) fn of(source: &'a Source) -> Option<Self> {
        match source {
            Source::Rsync(rsync) => Some(Self::Rsync(rsync)),
            Source::Forward(forward) => Some(Self::Forward(forward)),
            Source::Command(_)
            | Source::Shell(_)
            | Source::Transfer(_)
            | Source::Serial(_)
            | Source::Session(_) => None,
        }
    }

    /// Which one it is.
    pub(crate) fn resource(self) -> Resource {
        match self {
            Self::Rsync(rsync) => rsync.spec.id.into(),
            Self::Forward(forward) => forward.spec.id.into(),
        }
    }

    /// Its kind.
    pub(crate) fn scheme(self) -> Scheme {
        self.resource().scheme
    }

    /// How it stands. Asked before its events are read: with an end its event is among them.
    pub(crate) fn status(self) -> Status {
        match self {
            Self::Rsync(rsync) => {
                let status = rsync.status();
                Status { word: status.as_str(), has_ended: status.has_ended() }
            }
            Self::Forward(forward) => {
                let status = forward.status();
                Status { word: status.as_str(), has_ended: status == ForwardStatus::Stopped }
            }
        }
    }

    /// Where the log stands.
    pub(crate) fn mark(self) -> Mark {
        match self {
            Self::Rsync(rsync) => rsync.course.log.mark(),
            Self::Forward(forward) => forward.traffic.log.mark(),
        }
    }

    /// Events that are held.
    pub(crate) fn held(self) -> usize {
        match self {
            Self::Rsync(rsync) => rsync.course.log.held(),
            Self::Forward(forward) => forward.traffic.log.held(),
        }
    }

    /// Why it ended.
    pub(crate) fn reason(self) -> Option<Reason> {
        match self {
            Self::Rsync(rsync) => rsync.ended().map(|(reason, _)| reason),
            Self::Forward(forward) => forward.ended().map(|(reason, _)| reason),
        }
    }

    /// The oldest events from `from` on, of at most so many bytes, but never none where there is one.
    pub(crate) fn events(self, engine: &Engine, from: u64, max: usize) -> Events {
        match self {
            Self::Rsync(rsync) => events(&rsync.course.log, from, max, |seq, logged| {
                shown(engine, seq, logged.at, &logged.event)
            }),
            Self::Forward(forward) => events(&forward.traffic.log, from, max, |seq, logged| {
                shown(engine, seq, logged.at, &logged.event)
            }),
        }
    }

    /// The newest events from `from` on and before `until`, of at most so many bytes, but never none where there is one.
    pub(crate) fn last(self, engine: &Engine, from: u64, until: u64, max: usize) -> Last {
        match self {
            Self::Rsync(rsync) => last(&rsync.course.log, from, until, max, |seq, logged| {
                shown(engine, seq, logged.at, &logged.event)
            }),
            Self::Forward(forward) => last(&forward.traffic.log, from, until, max, |seq, logged| {
                shown(engine, seq, logged.at, &logged.event)
            }),
        }
    }

    /// What is known of it, as its resource shows it with these events.
    pub(crate) fn body(self, status: Status, events: Vec<Value>) -> Value {
        match self {
            Self::Rsync(rsync) => rsync::body(rsync, status.word, events),
            Self::Forward(forward) => forward_body(forward, status, events),
        }
    }

    /// The same with its newest events, for who looks at the whole again and again.
    pub(crate) fn newest(self, engine: &Engine) -> Value {
        /// Events that are looked at.
        const NEWEST: u64 = 32;
        let (status, end) = (self.status(), self.mark().end);
        self.body(status, self.events(engine, end.saturating_sub(NEWEST), usize::MAX).shown)
    }
}

fn events<E>(log: &LogHistory<E>, from: u64, max: usize, show: impl Fn(u64, &E) -> Value) -> Events {
    let window = log.read(from, usize::MAX);
    let (mut shown, mut size) = (Vec::new(), 0);
    let (mut next, mut more) = (window.next, false);
    for (number, event) in &window.events {
        let event = show(*number, event);
        size += event_size(&event);
        if size > max && !shown.is_empty() {
            (next, more) = (*number, true);
            break;
        }
        shown.push(event);
    }
    Events { shown, start: window.start, next, gap: window.gap, more }
}

fn last<E>(log: &LogHistory<E>, from: u64, until: u64, max: usize, show: impl Fn(u64, &E) -> Value) -> Last {
    let window = log.read(from, usize::MAX);
    let (mut shown, mut size, mut count) = (Vec::new(), 0, 0);
    for (number, event) in window.events.iter().rev().filter(|(number, _)| *number < until) {
        let event = show(*number, event);
        size += event_size(&event);
        count += 1;
        if size <= max || count == 1 {
            shown.push(event);
        }
    }
    shown.reverse();
    let first = window.events.first().map_or(until, |(number, _)| *number);
    Last { shown, count, size, first, gap: window.gap }
}

/// Bytes of an event in a list.
pub(crate) fn event_size(event: &Value) -> usize {
    event.to_string().len() + 1
}

fn shown(engine: &Engine, number: u64, at: Duration, event: &impl Serialize) -> Value {
    // Every event has named fields, so there is an object to add to.
    let mut event = serde_json::to_value(event).unwrap_or_else(|_| json!({}));
    if let Some(fields) = event.as_object_mut() {
        fields.insert("seq".to_owned(), number.into());
        fields.insert("ts".to_owned(), rfc3339(engine, at).into());
    }
    event
}

fn forward_body(forward: &Forward, status: Status, events: Vec<Value>) -> Value {
    let (spec, traffic) = (&forward.spec, &forward.traffic);
    let counts = traffic.counts();
    let mut body = json!({
        "forward_id": spec.id, "session_id": spec.session, "direction": spec.passage.facing(),
        "listener": spec.passage.listen().to_string(), "active": !status.has_ended,
        "accepted": counts.accepted, "closed": counts.closed, "failed": counts.failed,
        "open_connections": counts.open, "bytes_to_remote": traffic.bytes_to_remote(),
        "bytes_from_remote": traffic.bytes_from_remote(), "last_seq": traffic.log.mark().seq, "events": events,
    });
    if let (Some(fields), Some(to)) = (body.as_object_mut(), spec.passage.to()) {
        fields.insert("target".to_owned(), to.to_string().into());
    }
    body
}
