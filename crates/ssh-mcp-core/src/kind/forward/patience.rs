//! How long a consumer that pauses is waited for.
//!
//! All connections of a forward share one connection to the server, whose data comes in one queue: what one of them
//! does not take holds up what is behind it. Alone, a consumer may pause for as long as it likes. With others beside it,
//! what comes for it is held for it, and only once that is full and somebody else has been held up for [`HELD_AT_MOST`]
//! it has to go. Its own sending is such another, but for that: what lets it send on stands behind what comes for it, and
//! who sends all before reading anything would wait for itself.

use std::time::Duration;

/// Bytes that are held for one consumer, beside how many others, and whether its own sending waits.
pub fn allowance(siblings: usize, sends: bool) -> usize {
    match (siblings, sends) {
        (0, false) => 1 << 20,
        (0, true) | (1.., _) => 16 << 20,
    }
}

/// Nobody is held up by another for longer.
pub const HELD_AT_MOST: Duration = Duration::from_secs(5);

/// What is known of one consumer's pause.
///
/// ```text
/// Moving -> Holding      its allowance is used up, and a sibling could take something
/// Holding -> Moving      it took something, or no sibling waits
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Patience {
    /// It holds nobody up.
    #[default]
    Moving,
    /// It may hold others up, since then.
    Holding(Duration),
}

impl Patience {
    /// Looks at a consumer for which `held` bytes wait, beside `siblings` others of which `waiting` could take something.
    /// The answer is when it has to be looked at again.
    pub fn on_look(
        &mut self,
        now: Duration,
        held: usize,
        siblings: usize,
        waiting: usize,
    ) -> Option<Duration> {
        let holds_up = siblings > 0 && waiting > 0 && held >= allowance(siblings, false);
        *self = match (*self, holds_up) {
            (Self::Moving, true) => Self::Holding(now),
            (Self::Holding(since), true) => Self::Holding(since),
            (Self::Moving | Self::Holding(_), false) => Self::Moving,
        };
        self.deadline()
    }

    /// The line was seen to move: whatever is behind this consumer came through.
    pub fn on_line_moved(&mut self, now: Duration) -> Option<Duration> {
        if let Self::Holding(since) = self {
            *since = now;
        }
        self.deadline()
    }

    /// Whether it has held others up for too long.
    pub fn is_over(&self, now: Duration) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline)
    }

    fn deadline(&self) -> Option<Duration> {
        match self {
            Self::Moving => None,
            Self::Holding(since) => Some(*since + HELD_AT_MOST),
        }
    }
}
