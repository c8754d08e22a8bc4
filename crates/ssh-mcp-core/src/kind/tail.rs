//! What may still come of a process's output behind its exit, and how long it is waited for.
//!
//! OpenSSH tells of an exit at once and hands over afterwards what it had read before: on a slow line up to a whole
//! window. A background child that holds the output looks the same, but for the size of what comes, and the answer must
//! not wait for it. Commands and shells have this one rule; `docs/lifecycle.md` describes it, "How a command is ended".

use std::time::Duration;

/// The output behind one exit.
///
/// The sizes tell the two apart on terminals too. One read of a terminal gives at most 4 KiB, but what a server cannot send
/// it gathers, and then sends it in the largest packets there are (32 KiB, each but the last, with OpenSSH). What is still in
/// the terminal at the exit is at most four such reads, which need no further time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    until: Duration,
    latest: Duration,
    /// How much of what comes may have been printed before the exit.
    backlog: usize,
}

impl Tail {
    /// The process was seen to exit at `now`.
    pub fn begin(now: Duration) -> Self {
        Self { until: now + GRACE, latest: Duration::MAX, backlog: BACKLOG }
    }

    /// The same where somebody asked for the end at `at`, who is not to wait for long.
    #[must_use]
    pub fn stopped(self, at: Duration) -> Self {
        let latest = at + STOP;
        Self { until: self.until.min(latest), latest: self.latest.min(latest), ..self }
    }

    /// Output has come.
    pub fn on_output(&mut self, now: Duration, size: usize) {
        self.backlog = self.backlog.saturating_sub(size);
        if self.is_expecting() && size >= PACKET {
            self.until = (now + PAUSE).min(self.latest);
        }
    }

    /// Nobody has looked for so long: what came meanwhile is not late.
    pub fn on_pause(&mut self, lasted: Duration) {
        self.until = (self.until + lasted).min(self.latest);
    }

    /// When it is over, unless more comes.
    pub fn until(&self) -> Duration {
        self.until
    }

    /// Whether output may come that was printed before the exit; it goes before a moment that has passed.
    pub fn is_expecting(&self) -> bool {
        self.backlog > 0
    }
}

/// A background child that holds the output does not hold the answer longer than this.
pub const GRACE: Duration = Duration::from_millis(500);

/// What a server can have held at the exit: the window it was given, and what is in its pipes.
const BACKLOG: usize = 17 << 20;

/// What was held comes in packets of at least this; a child that goes on printing mostly comes in smaller ones.
const PACKET: usize = 8 << 10;

/// Behind such a packet comes the next or the end, after what a lost segment or a busy machine may take.
const PAUSE: Duration = Duration::from_secs(2);

/// Whoever asks for an end, a disconnect among them, has it after this.
const STOP: Duration = Duration::from_secs(5);

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The moment a tail that began at 0 is over after output of these sizes at these milliseconds.
    fn check(output: &[(u64, usize)], until: u64) {
        let mut tail = Tail::begin(ms(0));
        for (at, size) in output {
            tail.on_output(ms(*at), *size);
        }
        assert_eq!(tail.until(), ms(until), "{output:?}");
    }

    #[test]
    fn what_the_server_held_is_waited_for_and_a_child_that_chatters_is_not() {
        check(&[], 500);
        check(&[(400, 100), (450, 4095), (480, 8191)], 500);
        check(&[(400, 32 << 10)], 2400);
        check(&[(400, 32 << 10), (1600, 8 << 10), (1700, 4095)], 3600);
    }

    #[test]
    fn a_pause_of_the_reader_is_no_pause_of_the_server() {
        let mut tail = Tail::begin(ms(0));
        tail.on_pause(ms(60_000));
        assert_eq!(tail.until(), ms(60_500));
        let mut stopped = tail.stopped(ms(100));
        stopped.on_pause(ms(60_000));
        assert_eq!(stopped.until(), ms(5_100));
    }

    #[test]
    fn more_than_a_server_can_have_held_is_not_expected() {
        check(&[(400, 64 << 20)], 500);
        let mut tail = Tail::begin(ms(0));
        let packets = (17 << 20) / (32 << 10);
        for n in 1..packets {
            tail.on_output(ms(n), 32 << 10);
            assert!(tail.is_expecting());
        }
        for n in packets..packets + 10 {
            tail.on_output(ms(n), 32 << 10);
            assert_eq!((tail.is_expecting(), tail.until()), (false, ms(packets - 1) + PAUSE));
        }
    }

    #[test]
    fn an_end_that_was_asked_for_is_not_held_up_for_long() {
        let mut tail = Tail::begin(ms(1000)).stopped(ms(500)).stopped(ms(900));
        assert_eq!(tail.until(), ms(1500));
        tail.on_output(ms(1400), 32 << 10);
        assert_eq!(tail.until(), ms(3400));
        tail.on_output(ms(3400), 32 << 10);
        assert_eq!(tail.until(), ms(5400));
        tail.on_output(ms(5400), 32 << 10);
        assert_eq!(tail.until(), ms(5500));
        assert_eq!(Tail::begin(ms(5200)).stopped(ms(0)).until(), ms(5000));
    }
}
