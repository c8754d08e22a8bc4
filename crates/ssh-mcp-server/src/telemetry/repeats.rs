//! Joining warnings that say the same thing over and over.

use std::time::{Duration, Instant};

use super::line::Body;

/// The warnings of the last half minute. There are few different ones, so a list is searched.
#[derive(Default)]
pub(super) struct Repeats {
    seen: Vec<Seen>,
}

struct Seen {
    body: Body,
    since: Instant,
    held_back: u32,
}

/// What becomes of a warning.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is written.
    Print,
    /// It is counted.
    HoldBack,
}

impl Repeats {
    /// Takes a warning: the first of its kind is written, those that follow within the window are counted.
    pub(super) fn on_warning(&mut self, body: &Body, now: Instant) -> Verdict {
        if let Some(seen) = self.seen.iter_mut().find(|seen| seen.body == *body) {
            seen.held_back = seen.held_back.saturating_add(1);
            return Verdict::HoldBack;
        }
        if self.seen.len() < MOST {
            self.seen.push(Seen { body: body.clone(), since: now, held_back: 0 });
        }
        Verdict::Print
    }

    /// Gives the warnings whose window is over and that were held back, with their count, and forgets them.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(Body, u32)> {
        let mut due = Vec::new();
        self.seen.retain_mut(|seen| {
            let over = now.saturating_duration_since(seen.since) >= WINDOW;
            if over && seen.held_back > 0 {
                due.push((seen.body.clone(), seen.held_back));
            }
            !over
        });
        due
    }
}

const WINDOW: Duration = Duration::from_secs(30);
const MOST: usize = 64;
