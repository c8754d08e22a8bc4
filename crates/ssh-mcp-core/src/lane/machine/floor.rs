//! How a lane under `block_slow` holds the history back, and when it gives up.

use std::time::Duration;

use super::{End, Machine, Taken};
use crate::history::{ByteHistory, Mark};

impl Machine {
    /// A lane that blocks holds the history back within two bounds: the history's own, and a time.
    pub(super) fn mind_the_floor(&mut self, now: Duration, mark: &Mark, bytes: &ByteHistory) {
        if self.floor.is_none() || !self.may_hold_back() {
            self.unblock(now);
            return;
        }
        // A message on its way is the transport's; the bounds are about those that wait.
        let taken = match &self.taken {
            Some(Taken::Piece { event, generation, .. }) if *generation == self.generation => event.range.end,
            _ => self.needed,
        };
        let is_beyond = mark.end.saturating_sub(taken) > bytes.limit();
        match (self.blocked, is_beyond) {
            (None, true) => self.blocked = Some(now),
            (Some(_), false) => self.unblock(now),
            (None, false) | (Some(_), true) => {}
        }
        let too_long = self.blocked.is_some_and(|since| now >= since + self.block_timeout);
        if too_long || is_beyond && mark.base > taken {
            self.notices.gave_up += 1;
            self.lift_floor(now);
            self.fall_behind(self.queue.len() as u64);
        }
    }

    fn unblock(&mut self, now: Duration) {
        if let Some(since) = self.blocked.take() {
            self.stats.blocked += now.saturating_sub(since);
        }
    }

    pub(super) fn lift_floor(&mut self, now: Duration) {
        self.unblock(now);
        if let Some(floor) = &self.floor {
            floor.lift();
        }
    }

    pub(super) fn move_floor(&self) {
        match &self.floor {
            Some(floor) if self.may_hold_back() => floor.move_to(self.needed),
            Some(floor) => floor.lift(),
            None => {}
        }
    }

    fn may_hold_back(&self) -> bool {
        let is_at_end = match self.end {
            End::Open => false,
            End::Coming(at) | End::Delivered(at, _) => self.needed >= at,
        };
        !self.paused && self.behind.is_none() && !is_at_end
    }
}
