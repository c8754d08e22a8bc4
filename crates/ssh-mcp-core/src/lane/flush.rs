//! When news becomes an announcement: the timing rule of `docs/subscriptions.md`, "Timing".
//!
//! Times come in, the next deadline goes out. What is announced, and to whom, is the lane's business.

use std::time::Duration;

use super::Form;

/// The longest pause of a producer that a pull lane waits for.
pub const SETTLE: Duration = Duration::from_millis(25);

/// A lane's timing, after clamping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// At most one announcement in this time, the byte threshold aside.
    pub debounce: Duration,
    /// Upper bound between data and its announcement.
    pub force: Duration,
    /// Unannounced bytes that are announced at once.
    pub bytes: Option<u64>,
    /// Interval at which a lane without news is notified all the same.
    pub keepalive: Option<Duration>,
}

/// What a lane has not announced yet.
#[derive(Debug)]
pub(super) struct Flush {
    timing: Timing,
    settle: Duration,
    /// No two announcements are nearer than this, however many bytes come. Lanes under a flood keep one beat of it, so that
    /// one wake-up of the process does for all of them.
    apart: Duration,
    pending: Option<Pending>,
    /// When the announcement before was due or, if it was late, the last step of the beat before it.
    previous: Option<Duration>,
    opened: Duration,
    by_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    first: Duration,
    last: Duration,
    bytes: u64,
}

impl Flush {
    pub(super) fn new(timing: Timing, form: Form, opened: Duration) -> Self {
        let (settle, apart) = match form {
            Form::Pull => (SETTLE.min(timing.debounce / 5), SETTLE.min(timing.debounce)),
            // The bytes come along, so a second piece costs no read.
            Form::Payload { .. } => (Duration::ZERO, Duration::ZERO),
        };
        let keepalive = timing.keepalive.filter(|_| form == Form::Pull);
        let timing = Timing { keepalive, ..timing };
        Self { timing, settle, apart, pending: None, previous: None, opened, by_bytes: 0 }
    }

    pub(super) fn timing(&self) -> Timing {
        self.timing
    }

    /// News of so many bytes, or of one change.
    pub(super) fn on_news(&mut self, now: Duration, bytes: u64) {
        let pending = self.pending.get_or_insert(Pending { first: now, last: now, bytes: 0 });
        pending.last = now;
        pending.bytes += bytes;
    }

    /// When the next announcement is due.
    pub(super) fn due(&self) -> Option<Duration> {
        let Some(pending) = self.pending else {
            let last = self.previous.unwrap_or(self.opened);
            return self.timing.keepalive.map(|interval| last + interval);
        };
        let window = self.timing.debounce.min(self.timing.force);
        if self.is_many(pending) {
            let ripe = pending.last;
            return Some(self.previous.map_or(ripe, |previous| ripe.max(self.beat(previous + self.apart))));
        }
        let ripe = (pending.last + self.settle).min(pending.first + window);
        Some(self.previous.map_or(ripe, |previous| ripe.max(previous + window)))
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    /// Until when no news can change when the next announcement is due, and none need be looked at. Each of them might have
    /// been the last before a pause: that pause is over, too, before the window is.
    pub(super) fn rests(&self) -> Option<Duration> {
        let (pending, previous) = self.pending.zip(self.previous)?;
        if self.is_many(pending) {
            return self.due();
        }
        let window = self.timing.debounce.min(self.timing.force);
        Some(previous + self.apart.min(window.saturating_sub(self.settle)))
    }

    /// What was pending has been announced.
    pub(super) fn announced(&mut self, now: Duration) {
        let is_many = self.pending.is_some_and(|pending| self.is_many(pending));
        self.by_bytes += u64::from(is_many);
        self.previous = match self.due() {
            Some(due) if is_many => Some(now.min(due.max(self.beat_before(now)))),
            _ => Some(now),
        };
        self.pending = None;
    }

    /// Whether something is unannounced.
    pub(super) fn has_news(&self) -> bool {
        self.pending.is_some()
    }

    /// What was pending needs no announcement any more.
    pub(super) fn forget(&mut self) {
        self.pending = None;
    }

    /// Announcements the byte threshold caused.
    pub(super) fn by_bytes(&self) -> u64 {
        self.by_bytes
    }

    /// The first step of the beat that is not before `at`.
    fn beat(&self, at: Duration) -> Duration {
        match self.beat_before(at) {
            before if before < at => before + self.apart,
            on => on,
        }
    }

    /// The last step of the beat that is not behind `at`.
    fn beat_before(&self, at: Duration) -> Duration {
        let past = at.as_nanos().checked_rem(self.apart.as_nanos()).unwrap_or(0);
        at - Duration::from_nanos(past as u64)
    }

    fn is_many(&self, pending: Pending) -> bool {
        self.timing.bytes.is_some_and(|bytes| pending.bytes >= bytes)
    }
}

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn timing() -> Timing {
        Timing { debounce: 200 * MS, force: 1000 * MS, bytes: Some(100), keepalive: None }
    }

    /// When each of the news given as (ms, bytes) is announced, in ms.
    fn announced(timing: Timing, form: Form, news: &[(u32, u64)]) -> Vec<u128> {
        let mut flush = Flush::new(timing, form, Duration::ZERO);
        let mut told = Vec::new();
        let mut news = news.iter().map(|(at, bytes)| (*at * MS, *bytes)).peekable();
        loop {
            let next = news.peek().map(|(at, _)| *at);
            match (flush.due(), next) {
                (Some(due), next) if next.is_none_or(|at| due < at) => {
                    assert!(flush.is_due(due));
                    flush.announced(due);
                    told.push(due.as_millis());
                }
                (_, Some(at)) => {
                    let (_, bytes) = news.next().unwrap();
                    flush.on_news(at, bytes);
                }
                (_, None) => return told,
            }
        }
    }

    /// The same of a lane that rests, with the times at which it looked.
    fn announced_with_rests(timing: Timing, news: &[(u32, u64)]) -> (Vec<u128>, Vec<u128>) {
        let mut flush = Flush::new(timing, Form::Pull, Duration::ZERO);
        let (mut told, mut looks) = (Vec::new(), Vec::new());
        let mut news = news.iter().map(|(at, bytes)| (*at * MS, *bytes)).peekable();
        let mut now = Duration::ZERO;
        loop {
            let rests = flush.rests().filter(|until| now < *until);
            let heard = news.peek().filter(|_| rests.is_none()).map(|(at, _)| now.max(*at));
            let Some(next) = [flush.due(), rests, heard].into_iter().flatten().min() else {
                return (told, looks);
            };
            now = now.max(next);
            let mut bytes = 0;
            while let Some((_, more)) = news.next_if(|(at, _)| *at <= now) {
                bytes += more;
            }
            looks.push(now.as_millis());
            if bytes > 0 {
                flush.on_news(now, bytes);
            }
            if flush.is_due(now) {
                flush.announced(now);
                told.push(now.as_millis());
            }
        }
    }

    #[test]
    fn rests_change_no_announcement() {
        let many: Vec<(u32, u64)> = (0..200).map(|at| (at, 30)).collect();
        let few: Vec<(u32, u64)> = (0..200).map(|at| (at * 3, 1)).collect();
        let bursts: Vec<(u32, u64)> = (0..200).map(|at| (at * 7 % 5 + at / 5 * 60, at as u64 % 90)).collect();
        for debounce in [5, 25, 30, 40, 200, 5000] {
            let timing = Timing { debounce: debounce * MS, ..timing() };
            for news in [&many, &few, &bursts] {
                let mut news = news.clone();
                news.retain(|(_, bytes)| *bytes > 0);
                news.sort_unstable();
                let (told, _) = announced_with_rests(timing, &news);
                assert_eq!(told, announced(timing, Form::Pull, &news), "{debounce}");
            }
        }
    }

    #[test]
    fn a_lane_that_rests_looks_thrice_for_each_announcement() {
        let news: Vec<(u32, u64)> = (0..1000).map(|at| (at, 100)).collect();
        let (told, looks) = announced_with_rests(timing(), &news);
        assert_eq!(told.len(), 41);
        assert!(looks.len() < 3 * told.len(), "{looks:?}");
    }

    #[test]
    fn a_pause_of_the_producer_ends_the_waiting() {
        assert_eq!(announced(timing(), Form::Pull, &[(0, 1)]), [25]);
        assert_eq!(announced(timing(), Form::Pull, &[(0, 1), (20, 1), (40, 1)]), [65]);
    }

    #[test]
    fn a_producer_that_never_pauses_is_announced_once_per_window() {
        let news: Vec<(u32, u64)> = (0..60).map(|n| (n * 10, 1)).collect();
        // Each window begins with the first news behind the announcement before.
        assert_eq!(announced(timing(), Form::Pull, &news), [200, 410, 615]);
    }

    #[test]
    fn many_bytes_are_announced_at_once_but_not_in_a_row() {
        assert_eq!(announced(timing(), Form::Pull, &[(0, 100), (1, 100), (2, 100)]), [0, 25]);
        let payload = Form::Payload { piece: 1 };
        assert_eq!(announced(timing(), payload, &[(0, 100), (1, 100), (2, 100)]), [0, 1, 2]);
    }

    #[test]
    fn lanes_under_a_flood_keep_one_beat() {
        let flood = |from: u32| (from..200).map(|at| (at, 100)).collect::<Vec<_>>();
        let early = announced(timing(), Form::Pull, &flood(3));
        assert_eq!(early, [3, 50, 75, 100, 125, 150, 175, 200]);
        let late = announced(timing(), Form::Pull, &flood(61));
        assert_eq!(late, [61, 100, 125, 150, 175, 200]);
    }

    #[test]
    fn a_late_announcement_does_not_shift_the_beat() {
        let mut flush = Flush::new(timing(), Form::Pull, Duration::ZERO);
        // Each is told as many milliseconds after it was due.
        for (news, due, late) in [(0, 0, 0), (1, 25, 3), (30, 50, 24), (75, 75, 60), (140, 150, 0)] {
            flush.on_news(news * MS, 100);
            assert_eq!(flush.due(), Some(due * MS));
            flush.announced((due + late) * MS);
        }
    }

    #[test]
    fn bytes_that_come_along_wait_for_no_pause() {
        let short = Timing { debounce: 5 * MS, ..timing() };
        let payload = Form::Payload { piece: 1 };
        assert_eq!(announced(short, payload, &[(0, 1), (1, 1), (20, 1)]), [0, 5, 20]);
    }

    #[test]
    fn a_long_window_ends_where_the_server_says() {
        let long = Timing { debounce: 5000 * MS, bytes: None, ..timing() };
        let news: Vec<(u32, u64)> = (0..120).map(|n| (n * 10, 1)).collect();
        assert_eq!(announced(long, Form::Pull, &news), [1000, 2000]);
    }

    #[test]
    fn a_keepalive_goes_by_the_announcement_before() {
        let timing = Timing { keepalive: Some(5000 * MS), ..timing() };
        let mut flush = Flush::new(timing, Form::Pull, Duration::ZERO);
        assert_eq!(flush.due(), Some(5000 * MS));
        flush.on_news(3000 * MS, 1);
        assert_eq!(flush.due(), Some(3025 * MS));
        flush.announced(3025 * MS);
        assert_eq!(flush.due(), Some(8025 * MS));
        assert_eq!(Flush::new(timing, Form::Payload { piece: 1 }, Duration::ZERO).due(), None);
    }
}
