//! Stories of lanes and turns under every interleaving; the numbers are those of `docs/lifecycle.md` part 6.
//!
//! A producer appends and the driver of the lane looks at once; the mux takes what has asked and hands it on; somebody
//! else changes the lane meanwhile. One byte is one event, and byte `n` of a stream is the letter `n`. Time stands still.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use loom::{future::block_on, thread};

use super::{
    Asks, Changed, Closing, Delivery, Filter, Form, Handed, LagPolicy, Lane, Lifetime, Options, Parting,
    Start, Stats, Subject, Timing, Totals, Turns, Why,
};
use crate::{
    history::{ByteHistory, History, Origin},
    lifecycle::{AutoRelease, Lifecycle, Observed, Released},
    quota::{Place, Quota},
    reason::Reason,
    sync::{AtomicBool, Mutex, Ordering},
};

const NOW: Duration = Duration::from_secs(1);

/// One lane, what it is on, and the turns of its client.
struct Play {
    history: ByteHistory,
    lane: Lane,
    turns: Turns<()>,
}

/// Bytes at once, one event in the queue.
fn options(policy: LagPolicy) -> Options {
    Options {
        form: Form::Payload { piece: 8 },
        start: Start::At(0),
        lifetime: Lifetime::Manual,
        linger: Duration::ZERO,
        policy,
        filter: None,
        timing: Timing { debounce: Duration::ZERO, force: Duration::ZERO, bytes: None, keepalive: None },
        queue: 1,
        window: 100,
        block_timeout: NOW,
    }
}

fn subject(history: &ByteHistory) -> Subject<'_> {
    Subject { history: History::Bytes(history), body: &String::new, parting: Parting::Stay }
}

impl Play {
    fn new(limit: usize, options: Options) -> Arc<Self> {
        let history = ByteHistory::new(limit);
        let lane = Lane::open(options, NOW, &subject(&history));
        Arc::new(Self { history, lane, turns: Turns::new() })
    }

    fn look(&self) {
        if self.lane.look(NOW, &subject(&self.history)).asks == Asks::Now {
            self.turns.ask(());
        }
    }

    /// Each byte is an event.
    fn append(&self, bytes: &[u8]) {
        for byte in bytes {
            self.history.append(Origin::Stdout, &[*byte]);
            self.look();
        }
    }

    fn finish(&self) {
        self.history.finish();
        self.look();
    }

    /// One turn of the mux. A lane that has nothing to say rings for its driver.
    fn turn(&self) -> Option<Delivery> {
        block_on(self.turns.next());
        let delivery = self.lane.take(NOW, &subject(&self.history));
        if delivery.is_none() {
            self.look();
        } else if self.lane.sent(NOW, &subject(&self.history), Handed::Accepted) == Asks::Now {
            self.turns.ask(());
        }
        delivery
    }

    /// The mux until it has told the end; a deadlock would be the failure.
    fn until_the_end(&self) -> Vec<Delivery> {
        let mut told = Vec::new();
        while !matches!(told.last(), Some(Delivery::End { .. })) {
            told.extend(self.turn());
        }
        told
    }

    /// The mux until nobody asks.
    fn rest(&self) -> Vec<Delivery> {
        self.look();
        let mut told = Vec::new();
        while !self.turns.is_empty() {
            told.extend(self.turn());
        }
        told
    }
}

fn spawn<A, T>(shared: &Arc<A>, act: impl FnOnce(&A) -> T + 'static) -> thread::JoinHandle<T>
where
    A: Send + Sync + 'static,
    T: 'static,
{
    let shared = Arc::clone(shared);
    thread::spawn(move || act(&shared))
}

/// Runs a story whose threads are interrupted at most `bound` times, where all orders would be too many.
fn bounded(bound: usize, story: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(bound));
    model.check(story);
}

/// What was told: each position from one on, delivered or lost, in order, and the end last.
#[derive(Debug, Default)]
struct Account {
    text: String,
    gaps: Vec<u64>,
    dropped: u64,
    at: u64,
    ended: bool,
}

impl Account {
    fn of(from: u64, told: &[Delivery]) -> Self {
        let mut account = Self { at: from, ..Self::default() };
        for delivery in told {
            assert!(!account.ended, "{delivery:?} after the end");
            match delivery {
                Delivery::Piece(piece) => {
                    let start = account.pass(piece.gap, piece.dropped);
                    account.at = start + piece.bytes.len() as u64;
                    assert_eq!(account.at, piece.cursor_after);
                    let letters = (start..account.at).map(|at| b'a' + u8::try_from(at).unwrap());
                    assert!(piece.bytes.iter().copied().eq(letters), "{piece:?}");
                    account.text += std::str::from_utf8(&piece.bytes).unwrap();
                }
                Delivery::End { cursor, gap, dropped, .. } => {
                    account.at = account.pass(*gap, *dropped);
                    assert_eq!(account.at, *cursor);
                    account.ended = true;
                }
                Delivery::Updated | Delivery::Closed { .. } => panic!("{delivery:?}"),
            }
        }
        account
    }

    fn pass(&mut self, gap: u64, dropped: u64) -> u64 {
        self.gaps.extend(Some(gap).filter(|gap| *gap > 0));
        self.dropped += dropped;
        self.at + gap
    }
}

/// A queue of one with its event, and more of them while the mux takes one message or two.
fn overflow(
    policy: LagPolicy,
    limit: usize,
    more: &'static [u8],
    check: impl Fn(&Play, &Account) + Send + Sync + 'static,
) {
    loom::model(move || {
        let play = Play::new(limit, options(policy));
        play.append(b"a");
        let producer = spawn(&play, move |play| play.append(more));
        let mut told = Vec::from_iter(play.turn());
        if !play.turns.is_empty() {
            told.extend(play.turn());
        }
        producer.join().unwrap();
        play.finish();
        told.extend(play.rest());
        let account = Account::of(0, &told);
        assert_eq!((account.at, account.ended), (1 + more.len() as u64, true));
        check(&play, &account);
    });
}

/// lifecycle 6.29
#[test]
fn a_full_queue_that_drops_its_oldest_accounts_for_each_event() {
    overflow(LagPolicy::DropOldest, 8, b"bcd", |play, account| {
        assert_eq!(account.text.len() as u64 + account.dropped, 4);
        assert_eq!(account.gaps.iter().sum::<u64>(), account.dropped);
        assert_eq!(play.lane.report().stats.lagged_drops, account.dropped);
        assert!(account.text.ends_with('d'), "the newest survives: {account:?}");
    });
}

/// lifecycle 6.30
#[test]
fn a_full_queue_that_drops_its_newest_accounts_for_each_event() {
    overflow(LagPolicy::DropNewest, 8, b"bcd", |play, account| {
        assert_eq!(account.text.len() as u64 + account.dropped, 4);
        assert_eq!(account.gaps.iter().sum::<u64>(), account.dropped);
        assert_eq!(play.lane.report().stats.lagged_drops, account.dropped);
        assert!(account.text.starts_with('a'), "the oldest survives: {account:?}");
    });
}

/// lifecycle 6.31
#[test]
fn a_full_queue_that_resynchronises_delivers_the_history() {
    overflow(LagPolicy::Snapshot, 8, b"bcd", |play, account| {
        assert_eq!(account.text, "abcd");
        assert_eq!(play.lane.report().stats.lagged_drops, 0);
    });
}

/// lifecycle 6.31: of a history that does not reach back.
#[test]
fn a_full_queue_that_resynchronises_marks_what_the_history_lost() {
    overflow(LagPolicy::Snapshot, 2, b"bcd", |play, account| {
        assert!(account.gaps.len() <= 1, "{account:?}");
        assert_eq!(play.lane.report().stats.gap_bytes, account.gaps.iter().sum());
    });
}

/// lifecycle 6.32
#[test]
fn a_lane_that_blocks_loses_nothing_within_its_bounds() {
    overflow(LagPolicy::BlockSlow, 2, b"bcd", |play, account| {
        assert_eq!(account.text, "abcd");
        assert_eq!(play.lane.notices(NOW).gave_up, 0);
    });
}

/// lifecycle 6.32: at the bound of bytes.
#[test]
fn a_lane_that_blocks_beyond_its_bytes_falls_back_once() {
    overflow(LagPolicy::BlockSlow, 1, b"bc", |play, account| {
        // A message that is taken as its bytes are trimmed carries the gap by itself.
        assert!(account.gaps.len() <= 1, "{account:?}");
        assert!(play.lane.notices(NOW).gave_up <= 1);
    });
}

/// A flag that is up once a call has returned.
#[derive(Default)]
struct Returned(AtomicBool);

impl Returned {
    fn note(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_noted(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// lifecycle 6.32: at the bound of time.
#[test]
fn at_its_time_a_lane_that_blocks_has_its_message_or_falls_back() {
    loom::model(|| {
        let play = Play::new(2, options(LagPolicy::BlockSlow));
        play.append(b"abc");
        assert_eq!(play.history.mark().base, 0);
        let shared = Arc::new((Arc::clone(&play), Returned::default()));
        let driver = spawn(&shared, |(play, looked)| {
            let look = play.lane.look(NOW + NOW, &subject(&play.history));
            assert_eq!(look.asks, Asks::No);
            looked.note();
        });
        let was_late = shared.1.is_noted();
        let told = play.turn().unwrap();
        driver.join().unwrap();
        let Delivery::Piece(piece) = told else { panic!("{told:?}") };
        let fell_back = piece.why == Why::Snapshot;
        assert!(fell_back || !was_late);
        assert_eq!(play.lane.notices(NOW).gave_up, u64::from(fell_back));
        assert_eq!(piece.gap, 0);
        play.finish();
        assert_eq!(Account::of(piece.cursor_after, &play.rest()).at, 3);
    });
}

/// lifecycle 6.33
#[test]
fn nothing_is_taken_after_pause_returned_and_resume_loses_nothing() {
    loom::model(|| {
        let play = Play::new(8, Options { form: Form::Payload { piece: 1 }, ..options(LagPolicy::Snapshot) });
        play.append(b"ab");
        let shared = Arc::new((Arc::clone(&play), Returned::default()));
        let mux = spawn(&shared, |(play, paused)| {
            let mut told = Vec::new();
            for _ in 0..2 {
                let was_paused = paused.is_noted();
                let delivery = if play.turns.is_empty() { None } else { play.turn() };
                assert!(delivery.is_none() || !was_paused, "{delivery:?}");
                told.extend(delivery);
            }
            told
        });
        assert_eq!(play.lane.pause(NOW), Changed::Yes);
        shared.1.note();
        play.append(b"c");
        let mut told = mux.join().unwrap();
        assert_eq!(play.lane.resume(NOW), Changed::Yes);
        play.finish();
        told.extend(play.rest());
        let account = Account::of(0, &told);
        assert_eq!((account.text.as_str(), account.ended), ("abc", true));
    });
}

/// lifecycle 6.34
#[test]
fn a_lane_that_is_paused_or_closed_holds_nothing_back() {
    for let_go in [|lane: &Lane| _ = lane.pause(NOW), |lane: &Lane| _ = lane.close(NOW, Reason::ManualClose)]
    {
        loom::model(move || {
            let play =
                Play::new(1, Options { form: Form::Payload { piece: 1 }, ..options(LagPolicy::BlockSlow) });
            play.append(b"ab");
            assert_eq!(play.history.mark().base, 0);
            let mux = spawn(&play, |play| _ = play.turn());
            let producer = spawn(&play, |play| play.append(b"c"));
            let_go(&play.lane);
            mux.join().unwrap();
            producer.join().unwrap();
            play.append(b"d");
            assert_eq!(play.history.mark().base, 3);
        });
    }
}

/// lifecycle 6.35
#[test]
fn each_line_is_judged_by_the_old_filter_or_the_new_one() {
    let [old, new] = ["a", "b"].map(|text| Filter::compile(text, 9).unwrap());
    loom::model(move || {
        let options = Options { filter: Some(old.clone()), queue: 4, ..options(LagPolicy::DropOldest) };
        let play = Play::new(16, options);
        let producer = spawn(&play, |play| {
            for line in [b"a\n".as_slice(), b"ab\n", b"b\n"] {
                play.history.append(Origin::Stdout, line);
                play.look();
            }
        });
        play.lane.set_filter(NOW, &subject(&play.history), Some(new.clone()));
        producer.join().unwrap();
        play.history.append(Origin::Stdout, b"ab\n");
        let mut text = String::new();
        for delivery in play.rest() {
            let Delivery::Piece(piece) = delivery else { panic!("{delivery:?}") };
            text += std::str::from_utf8(&piece.bytes).unwrap();
        }
        // By how many lines the swap came later.
        let expected = ["ab\nb\nab\n", "a\nab\nb\nab\n", "a\nab\nb\nab\n", "a\nab\nab\n"];
        assert!(expected.contains(&text.as_str()), "{text:?}");
    });
}

/// lifecycle 6.36
#[test]
fn nothing_is_taken_after_close_returned_and_one_of_two_closers_counts() {
    loom::model(|| {
        let play = Play::new(8, options(LagPolicy::Snapshot));
        play.append(b"a");
        let life = Lifecycle::owned(AutoRelease::Off);
        assert_eq!(life.observe(), Observed::Accepted);
        let shared = Arc::new((Arc::clone(&play), Returned::default(), life));
        let close = |(play, closed, life): &(Arc<Play>, Returned, Lifecycle)| {
            let won = play.lane.close(NOW, Reason::ManualClose) == Closing::Won;
            closed.note();
            if won {
                play.lane.withhold_farewell();
                assert_eq!(life.release(), Released::Nothing);
            }
            won
        };
        let mux = spawn(&shared, |(play, closed, _)| {
            let was_closed = closed.is_noted();
            match play.turn() {
                Some(Delivery::Piece(_)) => assert!(!was_closed),
                Some(Delivery::Closed { .. }) | None => {}
                Some(other) => panic!("{other:?}"),
            }
        });
        let other = spawn(&shared, close);
        let won = close(&shared);
        assert_ne!(other.join().unwrap(), won);
        mux.join().unwrap();
        assert_eq!(play.rest(), []);
        assert_eq!(shared.2.snapshot().observers, 0);
    });
}

/// lifecycle 6.37: a lane and the place it takes up, which its closer gives back.
#[test]
fn a_close_and_an_open_at_the_limit_neither_exceed_nor_lose_a_place() {
    loom::model(|| {
        let places = Quota::new(1);
        let lane = Lane::open(options(LagPolicy::Snapshot), NOW, &subject(&ByteHistory::new(8)));
        let held: Mutex<Option<Place>> = Mutex::new(places.take());
        let shared = Arc::new((lane, held));
        let close = |(lane, held): &(Lane, Mutex<Option<Place>>)| {
            if lane.close(NOW, Reason::ManualClose) == Closing::Won {
                drop(held.lock().take());
            }
        };
        let opener = thread::spawn({
            let places = Arc::clone(&places);
            move || places.take()
        });
        let other = spawn(&shared, close);
        close(&shared);
        assert!(places.in_use() <= 1);
        other.join().unwrap();
        let opened = opener.join().unwrap();
        assert_eq!(places.in_use(), u32::from(opened.is_some()));
        assert_eq!(places.take().is_some(), opened.is_none());
    });
}

/// lifecycle 6.39
#[test]
fn a_replay_goes_over_into_what_is_appended_meanwhile() {
    loom::model(|| {
        let play = Play::new(8, options(LagPolicy::Snapshot));
        play.append(b"ab");
        assert_eq!(Account::of(0, &play.rest()).text, "ab");
        play.append(b"c");
        let producer = spawn(&play, |play| play.append(b"d"));
        let mux = spawn(&play, Play::turn);
        let replayed = play.lane.replay(NOW, &subject(&play.history), 0, 100).unwrap();
        assert_eq!(replayed.start, 0);
        producer.join().unwrap();
        let mut told = Vec::from_iter(mux.join().unwrap());
        play.finish();
        told.extend(play.rest());
        let begins = |delivery: &Delivery| match delivery {
            Delivery::Piece(piece) => piece.cursor_after == piece.bytes.len() as u64,
            _ => false,
        };
        let (before, after) = told.split_at(told.iter().position(begins).unwrap());
        Account::of(2, before);
        let account = Account::of(0, after);
        assert_eq!((account.text.as_str(), account.ended), ("abcd", true));
    });
}

/// lifecycle 6.40
#[test]
fn the_end_comes_once_and_last_whatever_else_happens() {
    type Act = fn(&Play);
    let overflows: Act = |play| play.append(b"bc");
    let pauses: Act = |play| {
        assert_eq!(play.lane.pause(NOW), Changed::Yes);
        assert_eq!(play.lane.resume(NOW), Changed::Yes);
        play.look();
    };
    let swaps: Act = |play| {
        play.lane.set_filter(NOW, &subject(&play.history), None);
        play.look();
    };
    let any_line = Filter::compile("", 9).unwrap();
    let acts = LagPolicy::ALL.map(|policy| (options(policy), overflows)).into_iter().chain([
        (options(LagPolicy::Snapshot), pauses),
        (Options { filter: Some(any_line), ..options(LagPolicy::Snapshot) }, swaps),
    ]);
    for (options, act) in acts {
        bounded(2, move || {
            let play = Play::new(8, options.clone());
            play.append(b"a");
            let other = spawn(&play, act);
            let finisher = spawn(&play, Play::finish);
            let mut told = play.until_the_end();
            other.join().unwrap();
            finisher.join().unwrap();
            told.extend(play.rest());
            assert!(Account::of(0, &told).ended);
        });
    }
}

/// lifecycle 6.41
#[test]
fn a_high_water_mark_of_several_is_the_highest() {
    loom::model(|| {
        let totals = Arc::new(Totals::default());
        let of = |mark| Stats { queue_high_watermark: mark, events_sent: 1, ..Stats::default() };
        let other = spawn(&totals, move |totals| totals.add(&of(3)));
        totals.add(&of(2));
        other.join().unwrap();
        let sums = totals.with([of(1)].iter());
        assert_eq!((sums.queue_high_watermark, sums.events_sent), (3, 3));
    });
}

/// Two lanes of one client, on histories of their own.
struct Pair {
    plays: [Arc<Play>; 2],
    turns: Turns<usize>,
}

impl Pair {
    /// Each has two messages ready; the first has asked first.
    fn ready() -> Arc<Self> {
        let plays = [(); 2].map(|()| {
            Play::new(
                8,
                Options { form: Form::Payload { piece: 1 }, queue: 4, ..options(LagPolicy::Snapshot) },
            )
        });
        let pair = Arc::new(Self { plays, turns: Turns::new() });
        pair.append(0, b"ab");
        pair.append(1, b"ab");
        pair
    }

    fn append(&self, which: usize, bytes: &[u8]) {
        let Play { history, lane, .. } = &*self.plays[which];
        history.append(Origin::Stdout, bytes);
        if lane.look(NOW, &subject(history)).asks == Asks::Now {
            self.turns.ask(which);
        }
    }

    /// Whose turn it was, and what it said.
    fn turn(&self) -> (usize, Option<Delivery>) {
        let which = block_on(self.turns.next()).unwrap();
        let Play { history, lane, .. } = &*self.plays[which];
        let delivery = lane.take(NOW, &subject(history));
        if delivery.is_some() && lane.sent(NOW, &subject(history), Handed::Accepted) == Asks::Now {
            self.turns.ask(which);
        }
        (which, delivery)
    }
}

/// lifecycle 6.42
#[test]
fn two_lanes_that_are_ready_take_turns() {
    loom::model(|| {
        let pair = Pair::ready();
        let producer = spawn(&pair, |pair| pair.append(0, b"c"));
        let order = [(); 5].map(|()| pair.turn().0);
        assert_eq!(order, [0, 1, 0, 1, 0]);
        producer.join().unwrap();
        assert!(pair.turns.is_empty());
    });
}

/// lifecycle 6.43
#[test]
fn no_turn_goes_to_a_lane_that_left_and_none_that_came_is_forgotten() {
    bounded(4, || {
        let plays = [(); 2].map(|()| Play::new(8, options(LagPolicy::Snapshot)));
        let pair = Arc::new(Pair { plays, turns: Turns::new() });
        pair.append(0, b"a");
        let shared = Arc::new((Arc::clone(&pair), Returned::default()));
        let leaver = spawn(&shared, |(pair, left)| {
            assert_eq!(pair.plays[0].lane.close(NOW, Reason::ManualClose), Closing::Won);
            pair.plays[0].lane.withhold_farewell();
            left.note();
        });
        let comer = spawn(&pair, |pair| pair.append(1, b"b"));
        // Deadlock would be the failure.
        loop {
            let had_left = shared.1.is_noted();
            match pair.turn() {
                (0, delivery) => assert!(delivery.is_none() || !had_left, "{delivery:?}"),
                (_, delivery) => break assert!(matches!(delivery, Some(Delivery::Piece(_))), "{delivery:?}"),
            }
        }
        leaver.join().unwrap();
        comer.join().unwrap();
    });
}

/// lifecycle 6.44
#[test]
fn who_asks_while_the_mux_goes_to_sleep_gets_a_turn() {
    loom::model(|| {
        let turns = Arc::new(Turns::new());
        let asker = spawn(&turns, |turns| turns.ask(1));
        assert_eq!(block_on(turns.next()), Some(1));
        asker.join().unwrap();
        let mut next = pin!(turns.next());
        assert_eq!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending);
    });
}

/// lifecycle 6.44: a lane that becomes ready.
#[test]
fn a_lane_that_becomes_ready_wakes_the_mux() {
    loom::model(|| {
        let play = Play::new(8, options(LagPolicy::Snapshot));
        let producer = spawn(&play, |play| play.append(b"a"));
        assert_eq!(Account::of(0, &Vec::from_iter(play.turn())).text, "a");
        producer.join().unwrap();
    });
}

/// lifecycle 6.45: one message fills the outbox; while it is on its way the others wait in the queue for turns.
#[test]
fn when_the_outbox_drains_lanes_go_on_in_the_order_they_asked() {
    loom::model(|| {
        let turns = Arc::new(Turns::new());
        turns.ask(0);
        assert_eq!(block_on(turns.next()), Some(0));
        let asker = spawn(&turns, |turns| {
            turns.ask(1);
            turns.ask(2);
        });
        // The message has gone out; its lane has more.
        turns.ask(0);
        let order = [(); 3].map(|()| block_on(turns.next()).unwrap());
        asker.join().unwrap();
        assert!([[0, 1, 2], [1, 0, 2], [1, 2, 0]].contains(&order), "{order:?}");
        assert!(turns.is_empty());
    });
}
