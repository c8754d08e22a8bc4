//! Serial ports: who may open what, what goes in and comes out, how they end.

use ssh_mcp_core::{
    id::SerialId,
    lane::{Filter, LagPolicy, Options},
    lifecycle::State,
    port::serial::{DataBits, FlowControl, LineMode, OpenError, Parity, StopBits},
    registry::{Entry as _, Serial},
    uri::Resource,
};
use ssh_mcp_testkit::serial::{FarEnd, plain};

use super::{
    lanes::{Client, is_end, payload, pull},
    *,
};
use crate::{
    CloseSerial, Drained, Missing, OpenLaneError, OpenSerial, Place, SerialError, SerialWriteError, Until,
    WaitItem, WaitOver,
};

const DEVICE: &str = "/dev/ttyUSB0";
const LINK: &str = "/dev/serial/by-id/usb-a-board";

fn ask(path: &str) -> OpenSerial {
    OpenSerial {
        path: path.to_owned(),
        mode: LineMode {
            baud: 115_200,
            data_bits: DataBits::Eight,
            stop_bits: StopBits::One,
            parity: Parity::None,
            flow: FlowControl::None,
            dtr: None,
            rts: None,
            read_timeout: ms(100),
        },
        history: 1 << 20,
        label: None,
    }
}

/// An engine with one device, and the device's far end.
fn bench() -> (Rig, FarEnd) {
    bench_with(|_| {})
}

fn bench_with(change: impl FnOnce(&mut Settings)) -> (Rig, FarEnd) {
    let rig = rig_with(ScriptedHost::new(), change);
    let far = rig.bus.plug(plain(DEVICE));
    rig.bus.link(LINK, DEVICE);
    (rig, far)
}

impl Rig {
    async fn port(&self) -> Arc<Serial> {
        self.engine.open_serial(&self.owner, ask(DEVICE)).await.unwrap()
    }

    async fn shut(&self, path: &str) -> SerialError {
        match self.engine.open_serial(&self.owner, ask(path)).await {
            Ok(serial) => panic!("{} is open", serial.spec.path),
            Err(error) => error,
        }
    }

    fn put(&self, serial: &Serial, bytes: impl Into<Bytes>) -> Result<usize, SerialWriteError> {
        self.engine.write_serial(serial, bytes.into())
    }
}

fn received(serial: &Serial) -> Vec<u8> {
    serial.history.read(0, usize::MAX).bytes
}

fn end(serial: &Serial) -> Reason {
    serial.ending.get().expect("ended").reason
}

#[tokio::test(start_paused = true)]
async fn what_a_line_says_is_there_at_once_and_what_is_written_goes_out_in_order() {
    let (rig, far) = bench();
    let serial = rig.port().await;
    assert_eq!(far.mode().unwrap().framing(), "8N1");
    far.say("OK\r\n");
    far.say(vec![0, 255, 0x13]);
    rig.pass(ms(1)).await;
    assert_eq!(received(&serial), b"OK\r\n\x00\xff\x13");
    for piece in ["one ", "two ", "three"] {
        assert_eq!(rig.put(&serial, piece), Ok(piece.len()));
    }
    assert_eq!(far.hears(13).await, b"one two three");
    assert_eq!((serial.written(), serial.queue.depth()), (13, 0));
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_full_takes_nothing_of_a_write_and_everything_it_took_arrives() {
    let (rig, far) = bench();
    let serial = rig.port().await;
    far.stall();
    assert_eq!(rig.put(&serial, "a"), Ok(1));
    rig.pass(ms(1)).await;
    // One is on its way, the others wait behind it.
    for _ in 0..64 {
        assert_eq!(rig.put(&serial, "b"), Ok(1));
    }
    let began = rig.now();
    assert_eq!(rig.put(&serial, "c"), Err(SerialWriteError::Full));
    assert_eq!(rig.engine.break_serial(&serial).await, Err(SerialWriteError::Full));
    assert_eq!((rig.now(), serial.queue.depth()), (began, 64), "at once");
    far.read_on();
    assert_eq!(far.hears(65).await, [b"a".as_slice(), &[b'b'; 64]].concat());
    assert_eq!(rig.put(&serial, "c"), Ok(1));
    assert_eq!(far.hears(66).await.last(), Some(&b'c'));
}

#[tokio::test(start_paused = true)]
async fn a_break_goes_out_behind_what_waits_and_says_whether_it_did() {
    let (rig, far) = bench();
    let serial = rig.port().await;
    far.stall();
    rig.put(&serial, "x").unwrap();
    let engine = Arc::clone(&rig.engine);
    let breaking = {
        let serial = Arc::clone(&serial);
        async move { engine.break_serial(&serial).await }
    };
    let reading = async {
        rig.pass(SECOND).await;
        assert_eq!(far.breaks(), 0);
        far.read_on();
    };
    let (broke, ()) = tokio::join!(breaking, reading);
    assert_eq!((broke, far.breaks(), far.heard()), (Ok(()), 1, b"x".to_vec()));

    let mute = rig.bus.plug(plain("/dev/ttyACM0")).without_break();
    let serial = rig.engine.open_serial(&rig.owner, ask("/dev/ttyACM0")).await.unwrap();
    let refused = rig.engine.break_serial(&serial).await;
    assert!(matches!(refused, Err(SerialWriteError::Break(_))), "{refused:?}");
    rig.put(&serial, "goes on").unwrap();
    mute.hears(7).await;
}

#[tokio::test(start_paused = true)]
async fn a_device_is_open_once_under_all_its_names() {
    let (rig, _far) = bench();
    let serial = rig.port().await;
    for name in [DEVICE, LINK] {
        assert_eq!(rig.shut(name).await, SerialError::InUse { port: Some(serial.spec.id) });
    }
    // Another owner learns that it is taken, and nothing of whose it is.
    let other = Owner::token("other");
    let refused = rig.engine.open_serial(&other, ask(DEVICE)).await.err();
    assert_eq!(refused, Some(SerialError::InUse { port: None }));
    assert!(matches!(rig.engine.serial(&other, serial.spec.id), Err(Missing::Unknown { .. })));

    assert_eq!(rig.engine.close_serial(&serial).await, CloseSerial::Done);
    let again = rig.engine.open_serial(&rig.owner, ask(LINK)).await.unwrap();
    assert_ne!(again.spec.id, serial.spec.id);
    assert_eq!((again.spec.path.as_str(), again.spec.device.path.as_str()), (LINK, DEVICE));
}

#[tokio::test(start_paused = true)]
async fn of_many_who_open_a_device_at_once_one_has_it() {
    let (rig, far) = bench();
    let asks = (0..8).map(|n| {
        let (engine, owner) = (Arc::clone(&rig.engine), rig.owner.clone());
        async move { engine.open_serial(&owner, ask(if n % 2 == 0 { DEVICE } else { LINK })).await }
    });
    let tasks: Vec<_> = asks.map(spawned).collect();
    let mut opened = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(serial) => opened.push(serial),
            Err(error) => assert!(matches!(error, SerialError::InUse { .. }), "{error}"),
        }
    }
    assert_eq!(opened.len(), 1);
    assert_eq!(rig.engine.close_serial(&opened[0]).await, CloseSerial::Done);
    assert_eq!(far.closings(), 1);
}

#[expect(clippy::disallowed_methods, reason = "a test owns what it spawns")]
fn spawned<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(future)
}

#[tokio::test(start_paused = true)]
async fn what_the_system_refuses_is_told_and_leaves_the_device_to_others() {
    let (rig, _far) = bench();
    assert!(matches!(
        rig.shut("/dev/ttyUSB1").await,
        SerialError::Open(OpenError::NoDevice { nearest }) if nearest == [DEVICE]
    ));
    rig.bus.refuse(DEVICE, OpenError::Permission { group: Some("dialout".into()) });
    assert!(matches!(rig.shut(DEVICE).await, SerialError::Open(OpenError::Permission { .. })));
    rig.bus.plug(plain(DEVICE));
    let odd = OpenSerial { mode: LineMode { parity: Parity::Odd, ..ask(DEVICE).mode }, ..ask(DEVICE) };
    let refused = rig.engine.open_serial(&rig.owner, odd).await.err();
    assert_eq!(refused, Some(SerialError::Open(OpenError::Unsupported { setting: "parity=odd".into() })));
    assert!(rig.engine.registries().serials.is_empty(), "nothing is left of those");
    rig.port().await;
}

#[tokio::test(start_paused = true)]
async fn the_operator_says_which_devices_may_be_opened() {
    let allow = |patterns: &[&str]| {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        bench_with(|settings| settings.allow_serial = patterns)
    };
    let (rig, _far) = allow(&["none"]);
    assert_eq!(rig.shut(DEVICE).await, SerialError::Forbidden);
    assert_eq!(rig.shut("/dev/nothing").await, SerialError::Forbidden, "nothing is told of what is there");
    assert_eq!(rig.engine.scan_serial().await, Ok((Vec::new(), 1)));

    // A link to what may be opened is as good as its name, and so is a name that may be used.
    let (rig, _far) = allow(&["/dev/ttyUSB*"]);
    rig.engine.open_serial(&rig.owner, ask(LINK)).await.unwrap();
    let (rig, _far) = allow(&["/dev/serial/by-id/usb-*"]);
    assert_eq!(rig.shut(DEVICE).await, SerialError::Forbidden);
    rig.engine.open_serial(&rig.owner, ask(LINK)).await.unwrap();
    let (rig, _far) = allow(&["/dev/ttyACM*"]);
    rig.bus.plug(plain("/dev/ttyACM0"));
    assert_eq!(rig.shut(LINK).await, SerialError::Forbidden);
    assert_eq!(rig.engine.scan_serial().await, Ok((vec![plain("/dev/ttyACM0")], 1)));
}

#[tokio::test(start_paused = true)]
async fn a_close_lets_the_last_writes_out_and_frees_the_device() {
    let (rig, far) = bench();
    let serial = rig.port().await;
    rig.put(&serial, "reset\r").unwrap();
    assert_eq!(rig.engine.close_serial(&serial).await, CloseSerial::Done);
    assert_eq!((far.heard(), far.mode(), far.closings()), (b"reset\r".to_vec(), None, 1));
    assert_eq!((end(&serial), serial.life.snapshot().state), (Reason::ManualClose, State::Closed));
    assert_eq!(rig.put(&serial, "x"), Err(SerialWriteError::Closed));
    assert_eq!(rig.engine.break_serial(&serial).await, Err(SerialWriteError::Closed));
    assert_eq!(rig.engine.close_serial(&serial).await, CloseSerial::AlreadyClosed);
    assert_eq!(far.closings(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_close_waits_a_second_for_a_line_that_takes_nothing_and_hears_what_it_says_meanwhile() {
    let (rig, far) = bench();
    let serial = rig.port().await;
    far.stall();
    rig.put(&serial, "stuck").unwrap();
    rig.pass(ms(1)).await;
    let began = rig.now();
    let says = async {
        rig.pass(ms(500)).await;
        far.say("still here");
    };
    let (closed, ()) = tokio::join!(rig.engine.close_serial(&serial), says);
    assert_eq!((closed, rig.now() - began), (CloseSerial::Done, SECOND));
    assert_eq!(received(&serial), b"still here");
    rig.pass(SECOND).await;
    far.read_on();
    rig.pass(SECOND).await;
    assert_eq!(far.heard(), b"", "the writer went with the port");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_goes_away_ends_its_port_with_what_it_said_last() {
    let (rig, far) = bench();
    let (serial, client) = (rig.port().await, Client::of(&rig.engine));
    let lane = rig.lane(&client, serial.spec.id, payload());
    far.say("last words");
    rig.bus.unplug(DEVICE);
    rig.pass(ms(100)).await;
    assert_eq!((received(&serial), end(&serial)), (b"last words".to_vec(), Reason::ConnectionLost));
    assert_eq!(serial.ending.get().unwrap().facts.as_ref().unwrap().cause, "the device is gone");
    assert_eq!(client.outlet.bytes_of(lane.id), b"last words");
    assert!(client.outlet.of(lane.id).last().is_some_and(is_end), "every lane gets the end");
    assert_eq!(rig.put(&serial, "x"), Err(SerialWriteError::Closed));
    let late = rig.try_lane(&client, serial.spec.id, pull()).err();
    assert!(
        matches!(late, Some(OpenLaneError::Gone(Missing::Gone { reason: Reason::ConnectionLost, .. }))),
        "{late:?}"
    );
    // What comes back is another port.
    rig.bus.plug(plain(DEVICE));
    assert_ne!(rig.port().await.spec.id, serial.spec.id);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_ends_the_port_after_what_was_said() {
    let (rig, far) = bench();
    let serial = rig.port().await;
    far.stall();
    rig.put(&serial, "x").unwrap();
    rig.put(&serial, "never sent").unwrap();
    rig.pass(ms(1)).await;
    far.say("one more");
    far.leave("input/output error");
    rig.pass(ms(1)).await;
    assert_eq!((end(&serial), received(&serial)), (Reason::ConnectionLost, b"one more".to_vec()));
    assert_eq!(serial.ending.get().unwrap().facts.as_ref().unwrap().cause, "input/output error");
}

#[tokio::test(start_paused = true)]
async fn an_ended_port_is_readable_for_a_minute_and_then_gone_with_its_reason() {
    let (rig, far) = bench();
    let serial = rig.port().await;
    far.say("bytes");
    rig.pass(ms(1)).await;
    rig.engine.close_serial(&serial).await;
    rig.pass(50 * SECOND).await;
    assert_eq!(received(&rig.engine.serial(&rig.owner, serial.spec.id).unwrap()), b"bytes");
    // Counted from the last look.
    rig.pass(50 * SECOND).await;
    assert!(rig.engine.serial(&rig.owner, serial.spec.id).is_ok());
    rig.pass(70 * SECOND).await;
    let gone = rig.engine.serial(&rig.owner, serial.spec.id).err();
    assert!(matches!(gone, Some(Missing::Gone { reason: Reason::ManualClose, .. })), "{gone:?}");
}

#[tokio::test(start_paused = true)]
async fn a_port_outlives_sessions_and_ends_with_the_server() {
    let (rig, far) = bench();
    let serial = rig.port().await;
    let session = rig.connect().await;
    rig.engine.disconnect(&rig.owner, session.spec.id).await.unwrap();
    rig.pass(HOUR).await;
    assert!(serial.is_open(), "nothing but a close ends it");
    rig.put(&serial, "bye").unwrap();
    assert_eq!(rig.engine.shutdown().await, Drained::Clean);
    assert_eq!((end(&serial), far.heard(), far.mode()), (Reason::ServerShutdown, b"bye".to_vec(), None));
    assert_eq!(rig.shut(DEVICE).await, SerialError::Draining);
}

#[tokio::test(start_paused = true)]
async fn sixteen_lanes_lose_nothing_of_a_flood() {
    let (rig, far) = bench();
    let serial = rig.port().await;
    let clients: Vec<_> = (0..16).map(|_| Client::of(&rig.engine)).collect();
    let policies = [LagPolicy::Snapshot, LagPolicy::BlockSlow];
    let lanes: Vec<_> = clients
        .iter()
        .zip(policies.into_iter().cycle())
        .map(|(client, policy)| rig.lane(client, serial.spec.id, Options { policy, ..payload() }).id)
        .collect();
    // 921,600 baud for ten seconds, as a driver hands it over.
    let mut dice = Dice(7);
    let mut sent = Vec::new();
    for _ in 0..10_000 {
        let piece: Vec<u8> = (0..92).map(|_| dice.roll(256) as u8).collect();
        sent.extend_from_slice(&piece);
        far.say(piece);
        rig.pass(ms(1)).await;
    }
    rig.pass(SECOND).await;
    for (client, lane) in clients.iter().zip(lanes) {
        assert!(client.outlet.bytes_of(lane) == sent);
    }
}

#[tokio::test(start_paused = true)]
async fn a_prompt_is_announced_after_the_settle_time_and_a_pushed_byte_at_once() {
    let (rig, far) = bench();
    let (serial, pulling, pushed) = (rig.port().await, Client::of(&rig.engine), Client::of(&rig.engine));
    rig.lane(&pulling, serial.spec.id, pull());
    rig.lane(&pushed, serial.spec.id, payload());
    rig.pass(SECOND).await;
    let began = tokio::time::Instant::now();
    far.say("=> ");
    rig.pass(SECOND).await;
    let delay = |client: &Client| client.outlet.heard().first().unwrap().at.duration_since(began);
    assert!((ms(25)..ms(30)).contains(&delay(&pulling)), "{:?}", delay(&pulling));
    assert!(delay(&pushed) <= ms(6), "{:?}", delay(&pushed));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_a_pattern_appears() {
    let (rig, far) = bench();
    let serial = rig.port().await;
    far.say("U-Boot 2026\r\nHit any k");
    let source = rig.engine.source(&rig.owner, Resource::from(serial.spec.id)).unwrap();
    let items = [WaitItem { source, place: Place::Behind(0) }];
    let until = Until::Match(vec![Filter::compile("Hit any key", 1024).unwrap()]);
    let says = async {
        rig.pass(SECOND).await;
        far.say("\x1b[1mey\x1b[0m to stop autoboot: 3");
    };
    let (over, ()) = tokio::join!(rig.engine.await_items(&items, &until, MINUTE), says);
    assert_eq!(over, WaitOver::Matched { item: 0, pattern: 0 });
    assert_eq!(rig.now(), SECOND);
    assert_eq!(serial.life.snapshot().observers, 0);
}

#[tokio::test(start_paused = true)]
async fn a_port_nobody_watches_is_reported_once_and_ended_where_that_is_wanted() {
    let (rig, _far) = bench_with(|settings| settings.leak_kill = Some(60 * SECOND));
    let serial = rig.port().await;
    rig.pass(4 * SECOND).await;
    let resource = Resource::from(serial.spec.id);
    assert_eq!(rig.engine.take_leak(resource).map(|leak| leak.resource), Some(resource));
    assert_eq!(rig.engine.take_leak(resource), None);
    // Use counts.
    rig.engine.serial(&rig.owner, serial.spec.id).unwrap();
    rig.pass(50 * SECOND).await;
    assert!(serial.is_open());
    rig.pass(20 * SECOND).await;
    assert_eq!(end(&serial), Reason::LeakKill);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_bytes_go_first() {
    let (rig, far) = bench();
    let small = OpenSerial { history: 4096, ..ask(DEVICE) };
    let serial = rig.engine.open_serial(&rig.owner, small).await.unwrap();
    for n in 0..1000_u32 {
        far.say(format!("{n:09}\n"));
    }
    rig.pass(ms(1)).await;
    let mark = serial.history.mark();
    assert_eq!((mark.end, mark.end - mark.base), (10_000, 4096));
    assert!(received(&serial).ends_with(b"000000999\n"));
}

#[tokio::test(start_paused = true)]
async fn a_listing_tells_of_it() {
    let (rig, _far) = bench();
    let named = OpenSerial { label: Some("board".into()), ..ask(DEVICE) };
    let serial = rig.engine.open_serial(&rig.owner, named).await.unwrap();
    let glimpse = serial.glimpse();
    assert_eq!(glimpse.description, "Serial port /dev/ttyUSB0, 115200 baud 8N1");
    assert_eq!((glimpse.session, glimpse.status, glimpse.name.as_deref()), (None, "open", Some("board")));
    assert_eq!(SerialId::from(glimpse.id), serial.spec.id);
}

/// Explicit closes and the device's own end meet in every order: one of them ends the port, with its reason and what belongs to it,
/// and the device is given back once (lifecycle 6.16, lifecycle 6.17).
#[tokio::test(start_paused = true)]
async fn closes_and_the_devices_end_at_once_end_a_port_once() {
    let rig = bench().0;
    let mut dice = Dice(11);
    let mut reasons = Vec::new();
    for _ in 0..300 {
        let far = rig.bus.plug(plain(DEVICE));
        let serial = rig.port().await;
        rig.put(&serial, "x").unwrap();
        let mut pause = || ms(dice.roll(3));
        let close = |after: Duration| {
            let (engine, serial) = (Arc::clone(&rig.engine), Arc::clone(&serial));
            async move {
                tokio::time::sleep(after).await;
                engine.close_serial(&serial).await
            }
        };
        let leave = {
            let (far, after) = (far.clone(), pause());
            async move {
                tokio::time::sleep(after).await;
                far.leave("gone");
            }
        };
        let (closes, leaves) = ([pause(), pause()].map(|after| spawned(close(after))), spawned(leave));
        let mut done = 0;
        for close in closes {
            done += usize::from(close.await.unwrap() == CloseSerial::Done);
        }
        leaves.await.unwrap();
        let end = serial.ending.get().unwrap();
        let by_hand = usize::from(end.reason == Reason::ManualClose);
        assert_eq!((done, end.facts.is_some()), (by_hand, by_hand == 0), "{}", end.reason);
        assert_eq!((far.closings(), far.mode()), (1, None));
        reasons.push(end.reason);
    }
    assert!(reasons.contains(&Reason::ManualClose) && reasons.contains(&Reason::ConnectionLost));
}

/// What is being opened while the server stops is closed or was never opened (lifecycle 6.53).
#[tokio::test(start_paused = true)]
async fn an_opening_meets_a_shutdown_and_leaves_nothing() {
    let mut dice = Dice(5);
    for _ in 0..50 {
        let (rig, far) = bench();
        let (engine, owner, after) = (Arc::clone(&rig.engine), rig.owner.clone(), ms(dice.roll(2)));
        let opening = spawned(async move {
            tokio::time::sleep(after).await;
            engine.open_serial(&owner, ask(DEVICE)).await
        });
        rig.pass(ms(dice.roll(2))).await;
        assert_eq!(rig.engine.shutdown().await, Drained::Clean);
        match opening.await.unwrap() {
            Ok(serial) => assert_eq!(end(&serial), Reason::ServerShutdown),
            Err(error) => assert_eq!(error, SerialError::Draining),
        }
        assert_eq!(far.mode(), None);
    }
}
