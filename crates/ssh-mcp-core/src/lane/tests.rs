//! Lanes in virtual time: what a client of each kind is told, and when.

use super::*;
use crate::history::{ByteHistory, Keep, LogHistory, Origin};

const MS: Duration = Duration::from_millis(1);

/// A lane on a history, and a client that takes what comes.
pub(super) struct Rig {
    pub(super) history: ByteHistory,
    pub(super) lane: Lane,
    pub(super) now: Duration,
    /// Everything delivered, with its time in ms.
    pub(super) told: Vec<(u128, Delivery)>,
    asked: bool,
}

pub(super) fn options(form: Form) -> Options {
    Options {
        form,
        start: Start::At(0),
        lifetime: Lifetime::Manual,
        linger: 2000 * MS,
        policy: LagPolicy::Snapshot,
        filter: None,
        timing: Timing { debounce: 200 * MS, force: 1000 * MS, bytes: Some(65536), keepalive: None },
        queue: 16,
        window: 1 << 20,
        block_timeout: 5000 * MS,
    }
}

pub(super) fn payload() -> Options {
    let timing = Timing { debounce: 5 * MS, ..options(Form::Pull).timing };
    Options { timing, ..options(Form::Payload { piece: 4 }) }
}

pub(super) fn filter(expression: &str) -> Option<Filter> {
    Some(Filter::compile(expression, 1024).unwrap())
}

impl Rig {
    pub(super) fn new(options: Options) -> Self {
        Self::on(ByteHistory::new(1024), options)
    }

    pub(super) fn on(history: ByteHistory, options: Options) -> Self {
        let lane = Lane::open(options, Duration::ZERO, &subject(&history));
        let mut rig = Self { history, lane, now: Duration::ZERO, told: Vec::new(), asked: false };
        rig.run_for(0);
        rig
    }

    pub(super) fn look(&mut self) -> Look {
        let look = self.lane.look(self.now, &subject(&self.history));
        self.asked |= look.asks == Asks::Now;
        look
    }

    /// One turn, if the lane has asked for one.
    pub(super) fn turn(&mut self) -> bool {
        if !std::mem::take(&mut self.asked) {
            return false;
        }
        let Some(delivery) = self.lane.take(self.now, &subject(&self.history)) else { return true };
        self.told.push((self.now.as_millis(), delivery));
        self.asked |= self.lane.sent(self.now, &subject(&self.history), Handed::Accepted) == Asks::Now;
        true
    }

    /// Time passes; the driver looks when it said it would, and turns are handed out at once.
    pub(super) fn run_for(&mut self, ms: u32) {
        let until = self.now + ms * MS;
        for _ in 0..10_000 {
            let look = self.look();
            if self.turn() {
                continue;
            }
            match look.wake.filter(|wake| *wake <= until && look.over.is_none()) {
                Some(wake) => self.now = wake.max(self.now),
                None => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("it never comes to rest");
    }

    /// Time passes, and no turn is handed out.
    pub(super) fn stall_for(&mut self, ms: u32) {
        let until = self.now + ms * MS;
        for _ in 0..10_000 {
            let look = self.look();
            match look.wake.filter(|wake| *wake <= until && look.over.is_none()) {
                Some(wake) => self.now = wake.max(self.now),
                None => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("it never comes to rest");
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.history.append(Origin::Stdout, bytes);
    }

    /// What was delivered as bytes, holes as `<gap>`.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (_, delivery) in &self.told {
            match delivery {
                Delivery::Piece(piece) => {
                    if piece.gap > 0 {
                        text.push_str(&format!("<{}>", piece.gap));
                    }
                    text.push_str(&String::from_utf8_lossy(&piece.bytes));
                }
                Delivery::End { gap, .. } => {
                    if *gap > 0 {
                        text.push_str(&format!("<{gap}>"));
                    }
                    text.push('$');
                }
                Delivery::Closed { .. } => text.push('!'),
                Delivery::Updated => text.push('*'),
            }
        }
        text
    }

    pub(super) fn times(&self) -> Vec<u128> {
        self.told.iter().map(|(at, _)| *at).collect()
    }

    pub(super) fn read(&mut self, max: usize) -> String {
        let take = Take { max, view: crate::history::View::Merged, characters: Characters::Whole };
        let mut plain = None;
        let ranges = self.lane.read(self.now, &subject(&self.history), take, |at| {
            let window = self.history.read(at, max);
            let place = (window.start, window.next);
            plain = Some(window);
            place
        });
        let window = ranges.map(|ranges| ranges.window).or(plain).unwrap();
        String::from_utf8_lossy(&window.bytes).into_owned()
    }
}

pub(super) fn subject(history: &ByteHistory) -> Subject<'_> {
    Subject { history: History::Bytes(history), body: &String::new, parting: Parting::Stay }
}

#[test]
fn a_pull_lane_announces_a_short_command_once_and_then_its_end() {
    let mut rig = Rig::new(options(Form::Pull));
    rig.append(b"hi");
    rig.run_for(100);
    assert_eq!(rig.times(), [25]);
    rig.history.finish();
    rig.run_for(100);
    assert_eq!((rig.text(), rig.times()), ("**".into(), vec![25, 100]));
    rig.run_for(10_000);
    assert_eq!(rig.told.len(), 2);
}

#[test]
fn a_lane_that_comes_late_is_told_of_what_is_held() {
    let history = ByteHistory::new(64);
    history.append(Origin::Stdout, b"hi");
    let mut rig = Rig::on(history, options(Form::Pull));
    rig.run_for(1000);
    assert_eq!(rig.times(), [25]);

    let history = ByteHistory::new(64);
    history.append(Origin::Stdout, b"hi");
    history.finish();
    let mut rig = Rig::on(history, payload());
    rig.run_for(1000);
    assert_eq!((rig.text(), rig.times()), ("hi$".into(), vec![0, 0]));
}

#[test]
fn bytes_come_at_once_in_pieces_between_characters() {
    let mut rig = Rig::new(payload());
    rig.append("abcä€x".as_bytes());
    rig.run_for(0);
    assert_eq!(rig.text(), "abcä€x");
    let pieces: Vec<_> = rig
        .told
        .iter()
        .map(|(_, delivery)| {
            let Delivery::Piece(piece) = delivery else { panic!("{delivery:?}") };
            (piece.seq, piece.cursor_after, piece.rest)
        })
        .collect();
    assert_eq!(pieces, [(0, 3, Rest::Follows), (1, 5, Rest::Follows), (2, 9, Rest::Nothing)]);
}

/// A queue of 16, 100 events of one byte while paused, then the end.
fn paused(policy: LagPolicy) -> Rig {
    let mut rig = Rig::new(Options { policy, ..payload() });
    assert_eq!(rig.lane.pause(rig.now), Changed::Yes);
    for n in 0..100_u8 {
        rig.append(&[b'0' + n % 10]);
        rig.run_for(10);
    }
    assert!(rig.told.is_empty());
    assert_eq!(rig.lane.resume(rig.now), Changed::Yes);
    rig
}

fn digits(range: Range<usize>) -> String {
    range.map(|n| char::from(b'0' + (n % 10) as u8)).collect()
}

#[test]
fn a_full_queue_drops_its_oldest() {
    let mut rig = paused(LagPolicy::DropOldest);
    rig.run_for(0);
    assert_eq!(rig.text(), format!("<84>{}", digits(84..100)));
    let stats = rig.lane.report().stats;
    assert_eq!((stats.lagged_drops, stats.queue_high_watermark, stats.lagged_recoveries), (84, 16, 0));
    assert_eq!(rig.lane.notices(rig.now).dropped, 84);
}

#[test]
fn a_full_queue_drops_its_newest() {
    let mut rig = paused(LagPolicy::DropNewest);
    rig.run_for(0);
    assert_eq!(rig.text(), digits(0..16));
    rig.append(b"x");
    rig.run_for(10);
    assert_eq!(rig.text(), format!("{}<84>x", digits(0..16)));
    assert_eq!(rig.lane.report().stats.lagged_drops, 84);
}

#[test]
fn a_full_queue_is_brought_up_from_the_history() {
    let mut rig = paused(LagPolicy::Snapshot);
    rig.run_for(0);
    assert_eq!(rig.text(), digits(0..100));
    assert!(
        rig.told
            .iter()
            .all(|(_, delivery)| matches!(delivery, Delivery::Piece(piece) if piece.why == Why::Snapshot))
    );
    let stats = rig.lane.report().stats;
    assert_eq!((stats.lagged_drops, stats.lagged_recoveries, stats.gap_bytes), (0, 1, 0));
    rig.append(b"x");
    rig.run_for(10);
    assert!(matches!(&rig.told.last().unwrap().1, Delivery::Piece(piece) if piece.why == Why::News));
}

#[test]
fn a_lane_that_blocks_loses_nothing() {
    let mut rig = paused(LagPolicy::BlockSlow);
    rig.run_for(0);
    assert_eq!(rig.text(), digits(0..100));
    let stats = rig.lane.report().stats;
    assert_eq!((stats.lagged_drops, stats.lagged_recoveries, stats.queue_high_watermark), (0, 0, 16));
}

#[test]
fn a_resynchronisation_says_what_the_history_no_longer_had() {
    let mut rig = Rig::on(ByteHistory::new(8), payload());
    assert_eq!(rig.lane.pause(rig.now), Changed::Yes);
    for n in 0..100_u8 {
        rig.append(&[b'0' + n % 10]);
        rig.run_for(10);
    }
    rig.lane.resume(rig.now);
    rig.run_for(0);
    assert_eq!(rig.text(), format!("<92>{}", digits(92..100)));
    let stats = rig.lane.report().stats;
    assert_eq!((stats.gap_bytes, stats.lagged_recoveries), (92, 1));
    assert_eq!(rig.lane.notices(rig.now).lost_bytes, 92);
}

#[test]
fn a_lane_that_blocks_holds_the_history_back_for_a_time() {
    let mut rig = Rig::on(ByteHistory::new(16), Options { policy: LagPolicy::BlockSlow, ..payload() });
    for n in 0..30_u8 {
        rig.append(&[b'0' + n % 10]);
        rig.stall_for(10);
    }
    assert_eq!(rig.history.mark().base, 0, "fourteen bytes beyond its limit");
    rig.stall_for(4500);
    assert_eq!(rig.lane.notices(rig.now).gave_up, 0);
    rig.stall_for(1000);
    assert_eq!(rig.lane.notices(rig.now).gave_up, 1);
    rig.append(b"x");
    assert_eq!(rig.history.mark().base, 15);
    rig.run_for(0);
    assert_eq!(rig.text(), format!("<15>{}x", digits(15..30)));
    let stats = rig.lane.report().stats;
    assert_eq!((stats.gap_bytes, stats.lagged_recoveries), (15, 1));
    assert_eq!(stats.blocked, 5000 * MS);
}

#[test]
fn a_lane_that_blocks_lets_go_at_twice_the_limit_when_paused_and_when_closed() {
    let mut rig = Rig::on(ByteHistory::new(16), Options { policy: LagPolicy::BlockSlow, ..payload() });
    rig.append(&[b'a'; 40]);
    assert_eq!(rig.history.mark().base, 8);
    rig.stall_for(1);
    assert_eq!(rig.lane.notices(rig.now).gave_up, 1);

    for let_go in [
        |rig: &Rig| _ = rig.lane.pause(rig.now),
        |rig: &Rig| _ = rig.lane.close(rig.now, Reason::ManualClose),
    ] {
        let mut rig = Rig::on(ByteHistory::new(16), Options { policy: LagPolicy::BlockSlow, ..payload() });
        rig.append(&[b'a'; 20]);
        rig.stall_for(1);
        let_go(&rig);
        rig.append(b"b");
        assert_eq!(rig.history.mark().base, 5);
    }
}

#[test]
fn a_filter_lets_lines_through_and_a_prompt_after_a_second() {
    let mut rig = Rig::new(Options { filter: filter("a"), ..payload() });
    rig.append(b"a1\nb\na2\nla");
    rig.run_for(900);
    assert_eq!(rig.text(), "a1\na2\n");
    rig.run_for(200);
    assert_eq!((rig.text(), *rig.times().last().unwrap()), ("a1\na2\nla".into(), 1000));
    assert_eq!(rig.lane.report().stats.filtered_events, 1);
    rig.append(b"b\nxa");
    rig.run_for(0);
    rig.history.finish();
    rig.run_for(0);
    assert_eq!(rig.text(), "a1\na2\nlaxa$");
}

#[test]
fn a_filtered_pull_lane_is_woken_and_read_by_matching_lines_only() {
    let mut rig = Rig::new(Options { filter: filter("a"), ..options(Form::Pull) });
    rig.append(b"b\nb\n");
    rig.run_for(1000);
    assert!(rig.told.is_empty());
    rig.append(b"a1\nb\na2\nb\n");
    rig.run_for(1000);
    assert_eq!(rig.told.len(), 1);
    assert_eq!(rig.read(4), "a1\na");
    assert_eq!(rig.read(9), "2\n");
    assert_eq!((rig.read(9), rig.lane.report().cursor), (String::new(), 14));
}

#[test]
fn a_pull_lane_with_more_matches_than_its_queue_holds_loses_none() {
    let mut rig = Rig::new(Options { filter: filter("a"), ..options(Form::Pull) });
    let lines: String = (0..60).map(|n| format!("a{n}\nb\n")).collect();
    rig.append(lines.as_bytes());
    rig.run_for(1000);
    let expected: String = (0..60).map(|n| format!("a{n}\n")).collect();
    assert_eq!(rig.read(1000), expected);
}

#[test]
fn a_swap_of_filters_leaves_what_waits_as_it_was() {
    let mut rig = Rig::new(options(Form::Pull));
    rig.append(b"one\ntwo\n");
    rig.run_for(1000);
    rig.lane.set_filter(rig.now, &subject(&rig.history), filter("o"));
    rig.append(b"three\nfour\n");
    rig.run_for(1000);
    rig.lane.set_filter(rig.now, &subject(&rig.history), None);
    rig.append(b"five\n");
    rig.run_for(1000);
    assert_eq!(rig.read(100), "one\ntwo\nfour\nfive\n");
    rig.append(b"six\n");
    rig.run_for(1000);
    assert_eq!(rig.read(100), "six\n");
}

#[test]
fn a_replay_goes_over_into_what_is_live() {
    let mut rig = Rig::new(payload());
    rig.append(b"0123456789");
    rig.run_for(10);
    let replayed = rig.lane.replay(rig.now, &subject(&rig.history), 2, 6).unwrap();
    assert_eq!(replayed, Replayed { start: 4, bytes: 6, gap: 2, gone: 0 });
    rig.append(b"ab");
    rig.run_for(10);
    assert_eq!(rig.text(), "0123456789456789ab");
    assert_eq!(rig.lane.replay(rig.now, &subject(&rig.history), 13, 6), Err(Beyond { end: 12 }));
}

#[test]
fn a_replay_of_what_has_ended_ends_again() {
    let mut rig = Rig::new(payload());
    rig.append(b"ab");
    rig.history.finish();
    rig.run_for(10);
    rig.lane.replay(rig.now, &subject(&rig.history), 0, 100).unwrap();
    rig.run_for(10);
    assert_eq!(rig.text(), "ab$ab$");
}

#[test]
fn lifetimes() {
    let over = |options: Options, ms: u32| {
        let mut rig = Rig::new(options);
        rig.history.finish();
        rig.run_for(0);
        rig.now = ms * MS;
        rig.look().over
    };
    let lease = Options { lifetime: Lifetime::Lease(1000 * MS), ..options(Form::Pull) };
    assert_eq!(over(lease.clone(), 999), None);
    assert_eq!(over(lease.clone(), 1000), Some(Reason::LifetimeLeaseExpired));
    let closes = Options { lifetime: Lifetime::AutoClose(500 * MS), ..options(Form::Pull) };
    assert_eq!(over(closes.clone(), 499), None);
    assert_eq!(over(closes, 500), Some(Reason::AutoClose));
    assert_eq!(over(options(Form::Pull), 1_000_000), None);

    let mut rig = Rig::new(lease);
    rig.now = 900 * MS;
    assert_eq!(rig.lane.resume(rig.now), Changed::No);
    rig.now = 1899 * MS;
    assert_eq!(rig.look().over, None);
}

#[test]
fn a_closed_lane_has_one_last_word_unless_it_is_withheld() {
    let mut rig = Rig::new(payload());
    rig.append(b"ab");
    _ = rig.look();
    assert_eq!(rig.lane.close(rig.now, Reason::ManualClose), Closing::Won);
    assert_eq!(rig.lane.close(rig.now, Reason::PeerGone), Closing::Lost);
    rig.run_for(1000);
    assert_eq!(rig.text(), "!");

    let mut rig = Rig::new(payload());
    assert_eq!(rig.lane.close(rig.now, Reason::ManualClose), Closing::Won);
    rig.lane.withhold_farewell();
    rig.run_for(1000);
    assert_eq!(rig.text(), "");
}

#[test]
fn a_refused_message_is_sent_again() {
    let mut rig = Rig::new(payload());
    rig.append(b"ab");
    _ = rig.look();
    let first = rig.lane.take(rig.now, &subject(&rig.history)).unwrap();
    assert_eq!(rig.lane.sent(rig.now, &subject(&rig.history), Handed::Refused), Asks::Now);
    assert_eq!(rig.lane.take(rig.now, &subject(&rig.history)).unwrap(), first);
    assert_eq!(rig.lane.report().stats.inline_events_failed, 1);
}

#[test]
fn a_producer_that_never_rests_does_not_hide_the_end() {
    let mut rig = Rig::new(payload());
    rig.append(b"ab");
    rig.history.finish();
    _ = rig.look();
    rig.append(b"cd");
    rig.run_for(1000);
    assert_eq!(rig.text(), "ab$");
}

#[test]
fn a_swap_of_filters_hides_no_news() {
    let mut rig = Rig::new(options(Form::Pull));
    rig.append(b"a\n");
    rig.run_for(10);
    rig.lane.set_filter(rig.now, &subject(&rig.history), filter("b"));
    rig.run_for(1000);
    assert_eq!(rig.times(), [25]);
}

#[test]
fn what_follows_a_swap_is_read_however_the_reads_are_cut() {
    let mut rig = Rig::new(Options { filter: filter("a"), ..options(Form::Pull) });
    rig.append(b"a1\na2\n");
    rig.run_for(1000);
    rig.lane.set_filter(rig.now, &subject(&rig.history), None);
    assert_eq!(rig.read(2), "a1");
    rig.append(b"b\n");
    rig.run_for(1000);
    assert_eq!(rig.read(100), "\na2\nb\n");
}

#[test]
fn what_a_filter_kept_back_does_not_come_after_the_swap() {
    let mut rig = Rig::new(Options { filter: filter("a"), ..options(Form::Pull) });
    rig.append(b"a\n");
    rig.run_for(1000);
    assert_eq!(rig.read(100), "a\n");
    rig.append(b"b1\n");
    rig.run_for(1000);
    rig.lane.set_filter(rig.now, &subject(&rig.history), None);
    assert_eq!(rig.read(100), "");
    rig.append(b"b2\n");
    rig.run_for(1000);
    assert_eq!(rig.read(100), "b2\n");
}

#[test]
fn a_filtered_lane_is_woken_by_each_match_though_nobody_reads_through_it() {
    let mut rig = Rig::new(Options { filter: filter("a"), ..options(Form::Pull) });
    let mut lines = String::new();
    for n in 0..60 {
        let line = format!("a{n}\n");
        rig.append(format!("{line}b\n").as_bytes());
        rig.run_for(1000);
        lines.push_str(&line);
    }
    assert_eq!(rig.told.len(), 60);
    assert_eq!(rig.lane.report().stats.filtered_events, 60);
    assert_eq!(rig.read(20) + &rig.read(1000), lines);
    rig.run_for(1000);
    assert_eq!(rig.told.len(), 60);
}

#[test]
fn a_swap_reaches_back_to_the_matches_that_found_no_room() {
    let mut rig = Rig::new(Options { filter: filter("a"), ..options(Form::Pull) });
    for _ in 0..20 {
        rig.append(b"a\nb\n");
        rig.run_for(1000);
    }
    rig.lane.set_filter(rig.now, &subject(&rig.history), None);
    assert_eq!(rig.read(1000), "a\n".repeat(16) + &"a\nb\n".repeat(4));
}

#[test]
fn a_read_through_a_lane_that_is_sent_bytes_takes_nothing_from_it() {
    let mut rig = Rig::new(Options { filter: filter("a"), ..payload() });
    rig.lane.pause(rig.now);
    rig.append(b"a\n");
    rig.run_for(100);
    _ = rig.read(100);
    rig.lane.resume(rig.now);
    rig.run_for(100);
    assert_eq!(rig.text(), "a\n");
}

#[test]
fn a_lane_on_a_log_announces_whatever_its_form() {
    let log = LogHistory::new(8, Keep::Newest);
    let subject = || Subject { history: History::Log(&log), body: &String::new, parting: Parting::Stay };
    let lane = Lane::open(payload(), Duration::ZERO, &subject());
    log.append(()).unwrap();
    assert_eq!(lane.look(Duration::ZERO, &subject()).asks, Asks::Now);
    assert_eq!(lane.take(Duration::ZERO, &subject()), Some(Delivery::Updated));
    assert_eq!(lane.sent(Duration::ZERO, &subject(), Handed::Accepted), Asks::No);
}

/// A message taken, then twenty events, then the message refused.
fn refused(options: Options) -> Rig {
    let mut rig = Rig::new(options);
    rig.append(b"ab");
    _ = rig.look();
    rig.lane.take(rig.now, &subject(&rig.history)).unwrap();
    for n in 0..20_u8 {
        rig.append(&[b'0' + n % 10]);
        rig.stall_for(10);
    }
    assert_eq!(rig.lane.sent(rig.now, &subject(&rig.history), Handed::Refused), Asks::Now);
    rig.asked = true;
    let stats = rig.lane.report();
    assert!(stats.queue_depth <= stats.stats.queue_high_watermark);
    rig.run_for(10);
    rig
}

#[test]
fn a_message_refused_by_a_lane_that_fell_behind_meanwhile_is_not_lost() {
    for policy in [LagPolicy::Snapshot, LagPolicy::BlockSlow] {
        let rig = refused(Options { policy, ..payload() });
        assert_eq!(rig.text(), format!("ab{}", digits(0..20)));
    }
    let rig = refused(Options { policy: LagPolicy::DropOldest, ..payload() });
    assert_eq!(rig.text(), format!("ab<4>{}", digits(4..20)));
}

#[test]
fn a_message_in_flight_is_still_held_back() {
    let mut rig = Rig::on(ByteHistory::new(8), Options { policy: LagPolicy::BlockSlow, ..payload() });
    rig.append(b"01234567");
    _ = rig.look();
    rig.lane.take(rig.now, &subject(&rig.history)).unwrap();
    rig.append(b"89abcdef");
    rig.asked = rig.lane.sent(rig.now, &subject(&rig.history), Handed::Refused) == Asks::Now;
    rig.run_for(10);
    assert_eq!(rig.text(), "0123456789abcdef");
    assert_eq!(rig.history.mark().base, 0);
}

#[test]
fn an_end_that_is_refused_keeps_the_hole_before_it() {
    let mut rig = Rig::new(Options { policy: LagPolicy::DropNewest, ..payload() });
    rig.lane.pause(rig.now);
    for n in 0..20_u8 {
        rig.append(&[b'0' + n % 10]);
        rig.run_for(10);
    }
    rig.history.finish();
    rig.lane.resume(rig.now);
    for _ in 0..4 {
        _ = rig.look();
        assert!(rig.turn());
    }
    let end = rig.lane.take(rig.now, &subject(&rig.history));
    assert_eq!(end, Some(Delivery::End { seq: 4, cursor: 20, gap: 4, dropped: 4 }));
    rig.asked = rig.lane.sent(rig.now, &subject(&rig.history), Handed::Refused) == Asks::Now;
    rig.run_for(10);
    assert_eq!(rig.text(), format!("{}<4>$", digits(0..16)));
    assert_eq!(rig.lane.report().cursor, 20);
}

#[test]
fn a_gap_nobody_was_told_of_is_not_forgotten_when_the_lane_falls_behind_again() {
    let mut rig = Rig::on(ByteHistory::new(8), Options { filter: filter("a"), ..payload() });
    for _ in 0..20 {
        rig.append(b"a\n");
        rig.stall_for(10);
    }
    rig.append(b"b\nb\nb\nb\n");
    rig.run_for(10);
    assert_eq!(rig.text(), "");
    for _ in 0..20 {
        rig.append(b"a\n");
        rig.stall_for(10);
    }
    rig.run_for(10);
    assert_eq!(rig.text(), "<80>a\na\na\na\n");
    assert_eq!(rig.lane.report().stats.gap_bytes, 80);
}

#[test]
fn what_a_read_finds_gone_is_counted() {
    let mut rig = Rig::on(ByteHistory::new(8), options(Form::Pull));
    rig.append(&[b'x'; 20]);
    rig.run_for(10);
    assert_eq!(rig.read(100), "xxxxxxxx");
    assert_eq!(rig.lane.report().stats.gap_bytes, 12);
}

#[test]
fn lines_that_do_not_count_hold_nothing_back() {
    let options = Options { policy: LagPolicy::BlockSlow, filter: filter("a"), ..payload() };
    let mut rig = Rig::on(ByteHistory::new(16), options);
    for _ in 0..20 {
        rig.append(b"b\n");
        rig.run_for(1000);
    }
    assert_eq!(rig.history.mark().base, 24);
    assert_eq!(rig.lane.report().cursor, 40);
    assert_eq!(rig.lane.notices(rig.now), Notices::default());
}

#[test]
fn a_lane_that_has_given_up_or_ended_holds_nothing_when_it_is_resumed() {
    let mut rig = Rig::on(ByteHistory::new(16), Options { policy: LagPolicy::BlockSlow, ..payload() });
    rig.append(&[b'x'; 20]);
    rig.stall_for(6000);
    rig.lane.pause(rig.now);
    rig.lane.resume(rig.now);
    rig.append(b"y");
    assert_eq!(rig.history.mark().base, 5);

    let mut rig = Rig::on(ByteHistory::new(16), Options { policy: LagPolicy::BlockSlow, ..payload() });
    rig.append(b"ab");
    rig.history.finish();
    rig.run_for(10);
    rig.lane.pause(rig.now);
    rig.lane.resume(rig.now);
    rig.append(&[b'x'; 38]);
    assert_eq!(rig.history.mark().base, 24);
    rig.run_for(10_000);
    assert_eq!((rig.text(), rig.lane.notices(rig.now)), ("ab$".into(), Notices::default()));
}

#[test]
fn a_lane_that_gives_up_with_lines_unseen_comes_to_rest() {
    let options = Options { policy: LagPolicy::BlockSlow, filter: filter("a"), ..payload() };
    let mut rig = Rig::on(ByteHistory::new(300 * 1024), options);
    rig.append(b"a\n");
    rig.append(&b"b\n".repeat(295 * 1024));
    _ = rig.look();
    rig.now = 5000 * MS;
    rig.stall_for(1000);
    assert_eq!(rig.lane.notices(rig.now).gave_up, 1);
}

#[test]
fn a_lane_closed_while_its_end_is_on_the_way_says_no_more() {
    let mut rig = Rig::new(payload());
    rig.history.finish();
    _ = rig.look();
    let end = rig.lane.take(rig.now, &subject(&rig.history));
    assert!(matches!(end, Some(Delivery::End { .. })));
    assert_eq!(rig.lane.close(rig.now, Reason::ManualClose), Closing::Won);
    assert_eq!(rig.lane.sent(rig.now, &subject(&rig.history), Handed::Accepted), Asks::No);
    rig.run_for(10);
    assert_eq!(rig.text(), "");
}

#[test]
fn a_replay_is_announced_though_the_end_was_on_the_way() {
    let mut rig = Rig::new(options(Form::Pull));
    rig.append(b"ab");
    rig.history.finish();
    _ = rig.look();
    assert_eq!(rig.lane.take(rig.now, &subject(&rig.history)), Some(Delivery::Updated));
    rig.lane.replay(rig.now, &subject(&rig.history), 0, 100).unwrap();
    rig.asked = rig.lane.sent(rig.now, &subject(&rig.history), Handed::Accepted) == Asks::Now;
    rig.run_for(1000);
    assert_eq!(rig.told.len(), 1);
}

#[test]
fn a_depth_is_never_above_its_high_water_mark() {
    let mut rig = Rig::new(options(Form::Pull));
    rig.history.finish();
    _ = rig.look();
    let report = rig.lane.report();
    assert_eq!((report.queue_depth, report.stats.queue_high_watermark), (1, 1));
}

#[test]
fn the_rest_of_a_line_that_was_begun_comes_after_a_resynchronisation() {
    let mut rig = Rig::new(Options { filter: filter("a"), ..payload() });
    rig.append(b"a12345\n");
    _ = rig.look();
    assert!(rig.turn());
    for _ in 0..20 {
        rig.append(b"b\na\n");
        rig.stall_for(10);
    }
    rig.run_for(10);
    assert_eq!(rig.text(), format!("a12345\n{}", "a\n".repeat(20)));
    assert_eq!(rig.lane.report().stats.lagged_recoveries, 1);
}

#[test]
fn a_lane_that_blocks_does_not_wait_for_bytes_behind_the_end() {
    let mut rig = Rig::on(ByteHistory::new(1), Options { policy: LagPolicy::BlockSlow, ..payload() });
    rig.history.finish();
    _ = rig.look();
    rig.append(b"ab");
    rig.append(b"c");
    assert_eq!(rig.history.mark().base, 2);
    rig.run_for(10);
    assert_eq!(rig.text(), "$");
    let replayed = rig.lane.replay(rig.now, &subject(&rig.history), 0, 100).unwrap();
    assert_eq!(replayed, Replayed { start: 0, bytes: 0, gap: 0, gone: 0 });
    assert_eq!(rig.lane.replay(rig.now, &subject(&rig.history), 1, 100), Err(Beyond { end: 0 }));
}

#[test]
fn refusals_do_not_make_a_queue_grow() {
    let mut rig = Rig::new(Options { policy: LagPolicy::DropOldest, queue: 2, ..payload() });
    for _ in 0..20 {
        rig.append(b"0123456789");
        rig.stall_for(10);
        rig.lane.take(rig.now, &subject(&rig.history)).unwrap();
        rig.append(b"0123456789");
        rig.stall_for(10);
        rig.asked = rig.lane.sent(rig.now, &subject(&rig.history), Handed::Refused) == Asks::Now;
    }
    assert!(rig.lane.report().queue_depth <= 3);
}

#[test]
fn a_message_on_its_way_does_not_use_up_the_time_of_a_lane_that_blocks() {
    let mut rig = Rig::on(ByteHistory::new(8), Options { policy: LagPolicy::BlockSlow, ..payload() });
    rig.append(b"01234567");
    _ = rig.look();
    rig.lane.take(rig.now, &subject(&rig.history)).unwrap();
    rig.append(b"89ab");
    rig.stall_for(6000);
    assert_eq!(rig.lane.notices(rig.now).gave_up, 0);
}
