//! What a wait takes and how much of it is shown.
//!
//! Everything new is taken at once, so that nobody else gets it; of what does not fit the budget the beginning and the end
//! are shown, and a line between them says how to fetch the rest.

use serde_json::{Value, json};
use ssh_mcp_core::{
    history::{ByteHistory, History, View, Window},
    lane::{Characters, Ranges, Take},
    text,
};
use ssh_mcp_engine::Place;

use super::{From, Item, ItemBody};
use crate::{
    cx::Cx,
    resources::{self, Last, Log, LogStatus, event_size},
};

impl Item {
    /// Takes everything new; what is taken here nobody else gets. No more than `budget` bytes of it will be shown.
    pub(super) fn claim(&self, cx: &Cx, budget: usize) -> Claim {
        let source = self.source();
        let resource = source.resource();
        if let Some(log) = Log::of(source) {
            return self.claim_events(cx, log, budget);
        }
        let History::Bytes(bytes) = source.history() else {
            let seq = source.history().mark().seq;
            let (before, after) = match (self.from, &cx.push) {
                (From::Auto, Some(push)) => push.peer.cursor(resource).claim(|at| (at, seq)),
                (From::Explicit(at), _) => (at, seq),
                (From::Lane | From::Auto, _) => self.through_lane(cx, |at| (at, seq)),
            };
            return Claim::State { changed: after > before, seq };
        };
        match (self.from, &cx.push, &self.wait.place) {
            (From::Auto, Some(push), _) => {
                let cursor = push.peer.cursor(resource);
                let before = cursor.value();
                let (start, end) = cursor.claim(|at| whole(bytes, at));
                Claim::Span { start, end, gap: start.saturating_sub(before) }
            }
            (From::Explicit(at), push, _) => {
                let (start, end) = whole(bytes, at);
                if let Some(push) = push {
                    push.peer.cursor(resource).advance_contiguous(at, end);
                }
                // From 0 means from the oldest held, of which nothing is missing.
                Claim::Span { start, end, gap: if at == 0 { 0 } else { start.saturating_sub(at) } }
            }
            (From::Lane | From::Auto, _, Place::Lane(lane)) => {
                let take = Take { max: cx.settings().output_cap, view: VIEW, characters: Characters::Whole };
                let mut span = None;
                let ranges = lane.read(cx.engine.clock().now(), take, |at| {
                    let (start, end) = whole(bytes, at);
                    span = Some(Claim::Span { start, end, gap: start.saturating_sub(at) });
                    (start, end)
                });
                match (ranges, span) {
                    (Some(ranges), _) => Claim::Ranges(ranges),
                    (None, Some(span)) => span,
                    (None, None) => Claim::Span { start: 0, end: 0, gap: 0 },
                }
            }
            (From::Lane | From::Auto, _, Place::Behind(at)) => {
                let (start, end) = whole(bytes, *at);
                Claim::Span { start, end, gap: start.saturating_sub(*at) }
            }
        }
    }

    /// The events of a log from where this caller stands to the newest.
    fn claim_events(&self, cx: &Cx, log: Log<'_>, budget: usize) -> Claim {
        let (status, end) = (log.status(), log.mark().end);
        let window = |at: u64| (at, end);
        let (from, next) = match (self.from, &cx.push) {
            (From::Auto, Some(push)) => push.peer.cursor(log.resource()).claim(window),
            (From::Explicit(at), push) => {
                if let Some(push) = push {
                    push.peer.cursor(log.resource()).advance_contiguous(at, end);
                }
                window(at)
            }
            (From::Lane | From::Auto, _) => self.through_lane(cx, window),
        };
        let last = log.last(&cx.engine, from, next, budget);
        // From 0 means from the oldest held, of which nothing is missing.
        let gap = if from == 0 { 0 } else { last.gap };
        Claim::Events { status, last, next, gap }
    }

    fn through_lane(&self, cx: &Cx, window: impl Fn(u64) -> (u64, u64)) -> (u64, u64) {
        let Place::Lane(lane) = &self.wait.place else { return window(0) };
        let take = Take { max: 1, view: VIEW, characters: Characters::Any };
        let mut taken = (0, 0);
        // A state has no ranges.
        _ = lane.read(cx.engine.clock().now(), take, |at| {
            taken = window(at);
            taken
        });
        taken
    }
}

/// Both outputs of a command, in the order of arrival.
const VIEW: View = View::Merged;

/// Everything from a place on, but for a character that is not complete yet.
fn whole(bytes: &ByteHistory, at: u64) -> (u64, u64) {
    let mark = bytes.mark();
    let start = at.clamp(mark.base, mark.end.max(mark.base));
    let tail = bytes.read(mark.end.saturating_sub(3).max(start), 3);
    let held = usize::try_from(mark.end.saturating_sub(tail.start)).unwrap_or(usize::MAX);
    let partial = match mark.ended {
        true => 0,
        false => text::incomplete_suffix(tail.bytes.get(..held).unwrap_or(&tail.bytes)),
    };
    (start, mark.end - partial as u64)
}

/// What an item takes.
pub(super) enum Claim {
    /// Everything between two positions.
    Span { start: u64, end: u64, gap: u64 },
    /// What the filter of a lane let through.
    Ranges(Ranges),
    /// Events of a log.
    Events { status: LogStatus, last: Last, next: u64, gap: u64 },
    /// A state, and whether it is another one.
    State { changed: bool, seq: u64 },
}

impl Claim {
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Span { start, end, .. } => {
                usize::try_from(end.saturating_sub(*start)).unwrap_or(usize::MAX)
            }
            Self::Ranges(ranges) => ranges.window.bytes.len(),
            Self::Events { last, .. } => last.size,
            Self::State { .. } => 0,
        }
    }

    pub(super) async fn show(&self, cx: &Cx, item: &Item, share: usize, strip: bool, body: &mut ItemBody) {
        let size = self.size();
        body.total = size as u64;
        body.more = false;
        match self {
            Self::State { changed, seq } => {
                body.cursor = *seq;
                let is_news = *changed || item.has_ended();
                if let Some(state) = resources::state_body(&cx.engine, item.source()).filter(|_| is_news) {
                    body.delta = state;
                    body.bytes = body.delta.len() as u64;
                    body.total = body.bytes;
                }
            }
            Self::Events { status, last: Last { shown: newest, count, first, .. }, next, gap } => {
                body.cursor = *next;
                body.gap_bytes = (*gap > 0).then_some(*gap);
                let Some(log) = Log::of(item.source()) else { return };
                if newest.is_empty() && !item.has_ended() {
                    return;
                }
                // The newest matter most; the last one is shown whatever it takes.
                let mut left = share;
                let fits = |event: &&Value| {
                    let size = event_size(event);
                    let fits = size <= left;
                    left = left.saturating_sub(size);
                    fits
                };
                let shown = newest.iter().rev().take_while(fits).count().max(1).min(newest.len());
                let events = newest.get(newest.len() - shown..).unwrap_or_default().to_vec();
                let mut delta = log.body(*status, events);
                if let (true, Some(fields)) = (*count > shown, delta.as_object_mut()) {
                    let left_out = json!({ "events": count - shown, "cursor": first });
                    fields.insert("left_out".to_owned(), left_out);
                }
                body.delta = delta.to_string();
                body.bytes = body.delta.len() as u64;
            }
            Self::Ranges(Ranges { window, more }) => {
                body.cursor = window.next;
                body.more = *more;
                body.gap_bytes = (window.gap > 0).then_some(window.gap);
                let (head, tail) = split(size, share);
                let left = window.bytes.get(head..size - tail).unwrap_or_default();
                let left = Left { lines: newlines(left), from: window.start, until: window.next };
                let head = window.bytes.get(..head).unwrap_or_default();
                let tail = window.bytes.get(size - tail..).unwrap_or_default();
                body.put(head, tail, size, strip, left);
            }
            Self::Span { start, end, gap } => {
                body.cursor = *end;
                body.gap_bytes = (*gap > 0).then_some(*gap);
                let History::Bytes(bytes) = item.source().history() else { return };
                let (head, tail) = split(size, share);
                let first = bytes.read(*start, head);
                let last = bytes.read(end.saturating_sub(tail as u64), tail);
                let (head, tail) = (shortened(first, *end), shortened(last, *end));
                let (from, until) = (start + head.len() as u64, end - tail.len() as u64);
                let lines =
                    if size > head.len() + tail.len() { lines_between(bytes, from, until).await } else { 0 };
                body.put(&head, &tail, size, strip, Left { lines, from, until });
            }
        }
    }
}

/// What was left out of the middle.
struct Left {
    lines: u64,
    from: u64,
    until: u64,
}

impl ItemBody {
    /// Head and tail at whole characters, with a line between them where something was left out.
    fn put(&mut self, head: &[u8], tail: &[u8], size: usize, strip: bool, left: Left) {
        let is_cut = head.len() + tail.len() < size;
        let head = if is_cut {
            head.get(..head.len() - text::incomplete_suffix(head)).unwrap_or(head)
        } else {
            head
        };
        let tail = if is_cut { tail.get(text::orphaned_prefix(tail)..).unwrap_or(tail) } else { tail };
        self.bytes = (head.len() + tail.len()) as u64;
        let clean = |bytes: &[u8]| match strip {
            true => text::lossy(&text::strip_escapes(bytes)).into_owned(),
            false => text::lossy(bytes).into_owned(),
        };
        self.delta = clean(head);
        if is_cut {
            let bytes = size as u64 - self.bytes;
            let Left { lines, from, until } = left;
            if !self.delta.is_empty() && !self.delta.ends_with('\n') {
                self.delta.push('\n');
            }
            self.delta.push_str(&format!(
                "[... {bytes} bytes, {lines} lines left out: resources/read {}?cursor={from} up to {until} ...]\n",
                self.uri
            ));
        }
        self.delta.push_str(&clean(tail));
    }
}

/// Bytes of the window that lie before `end`: a history that dropped bytes meanwhile gives some from further on.
fn shortened(window: Window, end: u64) -> Vec<u8> {
    let within = usize::try_from(end.saturating_sub(window.start)).unwrap_or(usize::MAX);
    let mut bytes = window.bytes;
    bytes.truncate(within);
    bytes
}

/// How many bytes from the beginning and from the end are shown: the newest matter most.
fn split(size: usize, share: usize) -> (usize, usize) {
    if size <= share {
        return (size, 0);
    }
    let head = share / 4;
    (head, share - head)
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

async fn lines_between(bytes: &ByteHistory, from: u64, until: u64) -> u64 {
    const CHUNK: u64 = 256 * 1024;
    let (mut at, mut lines) = (from, 0);
    while at < until {
        let window = bytes.read(at, usize::try_from(CHUNK.min(until - at)).unwrap_or(usize::MAX));
        if window.next <= at || window.start >= until {
            break;
        }
        lines += newlines(&window.bytes);
        at = window.next;
        // A history can be a gigabyte; others want to run too.
        tokio::task::yield_now().await;
    }
    lines
}

/// A budget shared fairly: nobody gets more than it needs, and what is left over goes to the others.
pub(super) fn shares(budget: usize, sizes: impl Iterator<Item = usize>) -> Vec<usize> {
    let sizes: Vec<usize> = sizes.collect();
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|at| sizes.get(*at).copied().unwrap_or_default());
    let mut shares = vec![0; sizes.len()];
    let (mut left, mut count) = (budget, sizes.len());
    for at in order {
        let fair = left / count.max(1);
        let share = sizes.get(at).copied().unwrap_or_default().min(fair);
        if let Some(place) = shares.get_mut(at) {
            *place = share;
        }
        left -= share;
        count -= 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_shared_fairly() {
        assert_eq!(shares(100, [10, 500, 40].into_iter()), [10, 50, 40]);
        assert_eq!(shares(90, [500, 500, 500].into_iter()), [30, 30, 30]);
        assert_eq!(shares(10, [1, 1].into_iter()), [1, 1]);
        assert_eq!(shares(10, std::iter::empty()), [0_usize; 0]);
    }

    #[test]
    fn a_cut_keeps_both_ends_and_the_newest_part_is_larger() {
        assert_eq!(split(10, 10), (10, 0));
        assert_eq!(split(100, 40), (10, 30));
    }
}
