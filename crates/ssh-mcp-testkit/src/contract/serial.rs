//! The contract of the serial port (`ssh_mcp_core::port::serial`).
//!
//! Mount it with [`serial_contract!`](crate::serial_contract) on a [`Rig`].
#![expect(clippy::panic, clippy::expect_used, reason = "a contract is a test: it fails by panicking")]

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use ssh_mcp_core::port::{
    BoxFuture,
    serial::{
        DataBits, FlowControl, Level, Line, LineEvent, LineMode, Located, OpenError, Parity, SerialBus,
        StopBits,
    },
};

/// A machine with one device that has neither control lines nor parity, and a hand on the device's far end.
pub trait Rig: Sync {
    /// What is under test.
    fn bus(&self) -> &dyn SerialBus;

    /// The device's own name.
    fn path(&self) -> String;

    /// Another name of it.
    fn link(&self) -> String;

    /// Sends from the far end; resolves when all of it is on its way.
    fn say(&self, bytes: Bytes) -> BoxFuture<'_, ()>;

    /// Waits until the far end was sent so many bytes more, and gives them.
    fn hear(&self, count: usize) -> BoxFuture<'_, Vec<u8>>;

    /// Takes the device away.
    fn unplug(&self);
}

/// Mounts the whole suite: `serial_contract!(#[tokio::test] rig())`; the expression is a rig.
#[macro_export]
macro_rules! serial_contract {
    (#[$attribute:meta] $rig:expr) => {
        $crate::serial_contract! { @each #[$attribute] $rig;
            every_byte_goes_through_both_ways,
            a_flood_arrives_whole_while_another_leaves,
            a_device_is_open_once,
            a_closed_device_can_be_opened_again,
            names_of_one_device_lead_to_it,
            what_is_not_there_is_told_with_what_is,
            what_the_driver_does_not_do_is_refused_and_leaves_the_device_free,
            a_device_that_is_taken_away_is_told_of_once,
            a_break_is_sent,
            a_line_that_is_dropped_is_free,
            a_scan_leaves_devices_alone,
        }
    };
    (@each #[$attribute:meta] $rig:expr; $($name:ident,)+) => {
        $(
            #[$attribute]
            async fn $name() {
                $crate::contract::serial::$name(&$rig).await;
            }
        )+
    };
}

/// No byte means anything to a line.
pub async fn every_byte_goes_through_both_ways(rig: &impl Rig) {
    let mut line = open(rig).await;
    let all: Bytes = (0..=255).collect::<Vec<u8>>().into();
    rig.say(all.clone()).await;
    assert!(received(&mut line, 256).await == all);
    assert_eq!(line.control.send(all.clone()).await, Ok(()));
    assert!(rig.hear(256).await == all);
}

/// Neither direction loses anything or waits for the other.
pub async fn a_flood_arrives_whole_while_another_leaves(rig: &impl Rig) {
    const SIZE: usize = 300_000;
    let mut line = open(rig).await;
    let (there, back) = (noise(SIZE, 1), noise(SIZE, 2));
    let sending = line.control.send(there.clone());
    let ((), sent, heard, came) =
        tokio::join!(rig.say(back.clone()), sending, rig.hear(SIZE), received(&mut line, SIZE));
    assert_eq!(sent, Ok(()));
    assert!(heard == there && came == back);
}

/// Who has a device has it alone.
pub async fn a_device_is_open_once(rig: &impl Rig) {
    let _line = open(rig).await;
    let again = rig.bus().open(&located(rig, &rig.path()).await, &mode()).await;
    assert_eq!(again.err(), Some(OpenError::Busy));
    let by_link = rig.bus().open(&located(rig, &rig.link()).await, &mode()).await;
    assert_eq!(by_link.err(), Some(OpenError::Busy));
}

/// A close gives the device back, and a second one does nothing to whoever has it then.
pub async fn a_closed_device_can_be_opened_again(rig: &impl Rig) {
    let first = open(rig).await;
    first.control.close().await;
    let mut second = open(rig).await;
    first.control.close().await;
    assert!(first.control.send(Bytes::from_static(b"x")).await.is_err());
    assert!(first.control.send_break().await.is_err());
    rig.say(Bytes::from_static(b"still")).await;
    assert_eq!(received(&mut second, 5).await, b"still");
}

/// One device has one key, whatever it is called.
pub async fn names_of_one_device_lead_to_it(rig: &impl Rig) {
    let (own, link) = (located(rig, &rig.path()).await, located(rig, &rig.link()).await);
    assert_eq!((own.path.as_str(), &own), (rig.path().as_str(), &link));
}

/// A path that leads nowhere is no device.
pub async fn what_is_not_there_is_told_with_what_is(rig: &impl Rig) {
    let missing = format!("{}-not", rig.path());
    match rig.bus().locate(&missing).await {
        Err(OpenError::NoDevice { .. }) => {}
        other => panic!("{other:?}"),
    }
}

/// What was asked for and is not there is an error; the device is not kept.
pub async fn what_the_driver_does_not_do_is_refused_and_leaves_the_device_free(rig: &impl Rig) {
    let device = located(rig, &rig.path()).await;
    let asks = [
        LineMode { parity: Parity::Even, ..mode() },
        LineMode { dtr: Some(Level::High), ..mode() },
        LineMode { rts: Some(Level::Low), ..mode() },
    ];
    for ask in asks {
        match rig.bus().open(&device, &ask).await {
            Err(OpenError::Unsupported { .. }) => {}
            other => panic!("{ask:?}: {other:?}"),
        }
    }
    open(rig).await.control.close().await;
}

/// What was received comes first, then the end, within a second; then nothing.
pub async fn a_device_that_is_taken_away_is_told_of_once(rig: &impl Rig) {
    let mut line = open(rig).await;
    rig.say(Bytes::from_static(b"last words")).await;
    assert_eq!(received(&mut line, 10).await, b"last words");
    rig.unplug();
    let event = tokio::time::timeout(Duration::from_secs(1), next(&mut line)).await;
    match event {
        Ok(LineEvent::Lost(lost)) => assert!(!lost.cause.is_empty()),
        other => panic!("{other:?}"),
    }
    assert!(line.control.send(Bytes::from_static(b"x")).await.is_err());
    let silence = poll_fn(|cx| std::task::Poll::Ready(line.events.poll_event(cx).is_pending())).await;
    assert!(silence);
    line.control.close().await;
}

/// A driver that has breaks sends one.
pub async fn a_break_is_sent(rig: &impl Rig) {
    let line = open(rig).await;
    assert_eq!(line.control.send_break().await, Ok(()));
}

/// Nothing has to be closed by hand.
pub async fn a_line_that_is_dropped_is_free(rig: &impl Rig) {
    drop(open(rig).await);
    drop(open(rig).await);
}

/// A device is listed whether it is open or not, and looking changes nothing.
pub async fn a_scan_leaves_devices_alone(rig: &impl Rig) {
    let mut line = open(rig).await;
    let before = rig.bus().scan().await;
    assert!(before.is_ok(), "{before:?}");
    assert_eq!(rig.bus().scan().await, before);
    rig.say(Bytes::from_static(b"here")).await;
    assert_eq!(received(&mut line, 4).await, b"here");
}

/// What a caller gets who asks for nothing particular.
pub fn mode() -> LineMode {
    LineMode {
        baud: 115_200,
        data_bits: DataBits::Eight,
        stop_bits: StopBits::One,
        parity: Parity::None,
        flow: FlowControl::None,
        dtr: None,
        rts: None,
        read_timeout: Duration::from_millis(100),
    }
}

async fn located(rig: &impl Rig, path: &str) -> Located {
    rig.bus().locate(path).await.unwrap_or_else(|error| panic!("{path}: {error}"))
}

async fn open(rig: &impl Rig) -> Line {
    let device = located(rig, &rig.path()).await;
    rig.bus().open(&device, &mode()).await.unwrap_or_else(|error| panic!("{}: {error}", device.path))
}

async fn next(line: &mut Line) -> LineEvent {
    poll_fn(|cx| line.events.poll_event(cx)).await
}

/// The next bytes, so many of them.
async fn received(line: &mut Line, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        match next(line).await {
            LineEvent::Data(data) => bytes.extend_from_slice(&data),
            LineEvent::Lost(lost) => panic!("{lost} after {} of {count} bytes", bytes.len()),
        }
    }
    assert_eq!(bytes.len(), count);
    bytes
}

/// Bytes without a pattern, the same ones each time.
fn noise(count: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state & 0xff).expect("a byte")
    });
    bytes.take(count).collect::<Vec<_>>().into()
}
