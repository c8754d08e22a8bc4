//! Waiting for news of several resources at once: the way for hosts that show no notification to their model.
//!
//! The same histories, cursors and filters as every lane; nothing is read here, so whoever gives the wait up has lost nothing.

use std::{future::Future, ops::Range, pin::Pin, sync::Arc, task::Poll, time::Duration};

use ssh_mcp_core::{
    history::History,
    lane::{Filter, SETTLE},
    text::Escapes,
    watch::Watch,
};

use crate::{Clock, Engine, LaneEntry, Source};

/// One resource that is waited for.
#[derive(Clone)]
pub struct WaitItem {
    /// Which one.
    pub source: Source,
    /// What counts as new.
    pub place: Place,
}

/// Where what is new begins.
#[derive(Clone)]
pub enum Place {
    /// At a position.
    Behind(u64),
    /// At the cursor of a lane, through its filter.
    Lane(Arc<LaneEntry>),
}

/// What ends a wait.
pub enum Until {
    /// Anything new, or an end.
    News,
    /// Every resource has ended.
    End,
    /// There was something new, and then nothing for so long.
    Quiet(Duration),
    /// One of the expressions matches what is new, escape sequences left out.
    Match(Vec<Filter>),
}

/// What ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitOver {
    /// Something new.
    News,
    /// Every resource has ended.
    Ended,
    /// Silence.
    Quiet,
    /// An expression matched in an item; both by number.
    Matched {
        /// The item.
        item: usize,
        /// The expression.
        pattern: usize,
    },
    /// The patience.
    Patience,
}

/// Text before what is new that a match may reach back into.
const OVERLAP: usize = 4096;

/// The runtime's timers are late by about this, which would be much of the shortest window.
const LATE: Duration = Duration::from_millis(1);

/// Bytes looked at before others get to run.
const CHUNK: u64 = 64 * 1024;

impl Engine {
    /// Waits until what was asked for has come, as a casual observer of everything named.
    pub async fn await_items(
        self: &Arc<Self>,
        items: &[WaitItem],
        until: &Until,
        patience: Duration,
    ) -> WaitOver {
        let _observers: Vec<_> =
            items.iter().filter_map(|item| self.observe(item.source.observable()?)).collect();
        let mut watches: Vec<Watch> = items.iter().map(|item| item.source.history().watch()).collect();
        let deadline = self.clock.now().saturating_add(patience);
        let mut wait = Wait::new(items, until, self.clock, self.settings.notify_debounce);
        loop {
            let look = match until {
                Until::Match(patterns) => wait.look_for(patterns).await,
                Until::News | Until::End | Until::Quiet(_) => wait.look(),
            };
            let due = match look {
                Look::Over(over) => return over,
                Look::Again(due) => due,
            };
            let now = self.clock.now();
            if now >= deadline {
                return WaitOver::Patience;
            }
            let wake = due.map_or(deadline, |due| due.min(deadline));
            tokio::select! {
                biased;
                () = any_changed(&mut watches) => {}
                () = self.clock.sleep_until(wake) => {}
            }
        }
    }
}

/// Ends when any of them does.
async fn any_changed(watches: &mut [Watch]) {
    let mut changed: Vec<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = Vec::new();
    for watch in watches {
        changed.push(Box::pin(watch.changed()));
    }
    std::future::poll_fn(|cx| match changed.iter_mut().any(|one| one.as_mut().poll(cx).is_ready()) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// What one look found.
enum Look {
    Over(WaitOver),
    /// Nothing yet; what comes next does so at the latest then.
    Again(Option<Duration>),
}

/// A wait and what it has seen.
struct Wait<'a> {
    items: &'a [WaitItem],
    until: &'a Until,
    clock: Clock,
    /// News is collected for no longer than this, or until the producer pauses.
    window: Duration,
    seen: Vec<Seen>,
    first: Option<Duration>,
    last: Duration,
    /// What was new before the wait began needs no collecting.
    begun: bool,
}

/// How far one item has been looked at.
#[derive(Default)]
struct Seen {
    /// Positions before it are known.
    end: u64,
    text: Vec<u8>,
    escapes: Escapes,
}

impl<'a> Wait<'a> {
    fn new(items: &'a [WaitItem], until: &'a Until, clock: Clock, window: Duration) -> Self {
        let seen = items.iter().map(|_| Seen::default()).collect();
        Self { items, until, clock, window, seen, first: None, last: Duration::ZERO, begun: false }
    }

    fn look(&mut self) -> Look {
        let now = self.clock.now();
        for at in 0..self.items.len() {
            if !self.fresh(at, now).is_empty() {
                self.first.get_or_insert(now);
                self.last = now;
            }
        }
        let at_once = !std::mem::replace(&mut self.begun, true);
        if self.all_ended() {
            return Look::Over(WaitOver::Ended);
        }
        let any_ended = self.items.iter().any(|item| item.source.history().mark().ended);
        let due = match (self.until, self.first) {
            (Until::News, _) if any_ended => now,
            (Until::News, Some(_)) if at_once => now,
            (Until::News, Some(first)) => (self.last + SETTLE).min(first + self.window.saturating_sub(LATE)),
            (Until::Quiet(pause), Some(_)) => self.last + *pause,
            (Until::News | Until::Quiet(_), None) | (Until::End | Until::Match(_), _) => {
                return Look::Again(None);
            }
        };
        match (now >= due, self.until) {
            (true, Until::Quiet(_)) => Look::Over(WaitOver::Quiet),
            (true, _) => Look::Over(WaitOver::News),
            (false, _) => Look::Again(Some(due)),
        }
    }

    async fn look_for(&mut self, patterns: &[Filter]) -> Look {
        // Looked at first: what is there when something has ended is all there will be.
        let ended = self.all_ended();
        for item in 0..self.items.len() {
            for range in self.fresh(item, self.clock.now()) {
                let mut from = range.start;
                while from < range.end {
                    let until = range.end.min(from + CHUNK);
                    if let Some(pattern) = self.search(item, from..until, patterns) {
                        return Look::Over(WaitOver::Matched { item, pattern });
                    }
                    from = until;
                    tokio::task::yield_now().await;
                }
            }
        }
        if ended { Look::Over(WaitOver::Ended) } else { Look::Again(None) }
    }

    fn search(&mut self, item: usize, range: Range<u64>, patterns: &[Filter]) -> Option<usize> {
        let (Some(item), Some(seen)) = (self.items.get(item), self.seen.get_mut(item)) else { return None };
        let History::Bytes(bytes) = item.source.history() else { return None };
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let window = bytes.read(range.start, length);
        let escapes = &mut seen.escapes;
        seen.text.extend(window.bytes.iter().copied().filter(|byte| escapes.is_text(*byte)));
        let found = patterns.iter().position(|pattern| pattern.matches(&seen.text));
        if seen.text.len() > OVERLAP {
            // From the beginning of a line where there is one, so that its anchor stays true.
            let keep = seen.text.len() - OVERLAP;
            let line =
                seen.text.iter().skip(keep).position(|byte| *byte == b'\n').map_or(keep, |at| keep + at + 1);
            seen.text.drain(..line);
        }
        found
    }

    /// What is new since the last look, and known from here on.
    fn fresh(&mut self, at: usize, now: Duration) -> Vec<Range<u64>> {
        let (Some(item), Some(seen)) = (self.items.get(at), self.seen.get_mut(at)) else { return Vec::new() };
        let ranges = match &item.place {
            Place::Behind(from) => {
                let from = (*from).max(seen.end);
                let end = item.source.history().mark().end;
                Some(from..end).filter(|range| !range.is_empty()).into_iter().collect()
            }
            Place::Lane(lane) => lane.waiting(now, seen.end),
        };
        seen.end = ranges.last().map_or(seen.end, |last| last.end);
        ranges
    }

    fn all_ended(&self) -> bool {
        self.items.iter().all(|item| item.source.history().mark().ended)
    }
}
