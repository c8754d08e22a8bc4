//! Serial ports: open a device, move what it receives into its history and what is written out, close it.
//!
//! A port belongs to the process. It runs on no session, and nothing but a close, the device's end or a shutdown ends it.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use ssh_mcp_core::{
    history::{ByteHistory, Origin},
    id::SerialId,
    kind::{
        input::{Full, InputQueue},
        serial::{Allowed, Frame},
    },
    lifecycle::{Close, End, State},
    owner::Owner,
    port::serial::{
        BreakError, Device, Line, LineEvent, LineEvents, LineLost, LineMode, OpenError, ScanError, SerialLine,
    },
    quota::Quota,
    reason::Reason,
    registry::{Serial, SerialSpec},
    sync::OnceCell,
    target_names,
};
use tokio::{sync::oneshot, time::Sleep};
use tokio_util::sync::CancellationToken;

use crate::{Clock, Engine, Missing, tasks::Tasks};

/// A device a caller wants opened.
#[derive(Debug, Clone)]
pub struct OpenSerial {
    /// One of its names.
    pub path: String,
    /// How it is to be run.
    pub mode: LineMode,
    /// Bytes held of what it receives.
    pub history: usize,
    /// A label.
    pub label: Option<String>,
}

/// Why no port was opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SerialError {
    /// The operator does not let it be opened.
    #[error("this server may not open it")]
    Forbidden,
    /// It is open here.
    #[error("it is already open here")]
    InUse {
        /// The port that has it, if it is the caller's.
        port: Option<SerialId>,
    },
    /// The system refused.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The server is stopping.
    #[error("the server is stopping")]
    Draining,
}

/// Why nothing was taken to be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SerialWriteError {
    /// The port is closed.
    #[error("the port is closed")]
    Closed,
    /// As much waits as may.
    #[error("{} writes wait already", InputQueue::<Frame>::FRAMES)]
    Full,
    /// The driver sends no breaks.
    #[error(transparent)]
    Break(#[from] BreakError),
}

/// What a close found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseSerial {
    /// It was open, and has been closed.
    Done,
    /// It had ended.
    AlreadyClosed,
}

/// A close lets what waits be written for this long.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// A driver that does not give a device back within this time does so unseen.
const GIVING_BACK: Duration = Duration::from_secs(5);

/// Bytes go to the driver in pieces of this size, so that what was written can be told.
const PIECE: usize = 4096;

/// What a device has said by its end is read, but not for ever.
const LAST_WORDS: usize = 1 << 20;

impl Engine {
    /// The devices that may be opened, and how many the operator keeps back.
    ///
    /// # Errors
    /// See [`ScanError`].
    pub async fn scan_serial(&self) -> Result<(Vec<Device>, usize), ScanError> {
        let allowed = Allowed::new(&self.settings.allow_serial);
        let mut devices = self.ports.serial.scan().await?;
        let all = devices.len();
        devices.retain(|device| {
            allowed.permits(&device.path)
                || device.by_id.as_deref().is_some_and(|by_id| allowed.permits(by_id))
        });
        let kept_back = all - devices.len();
        Ok((devices, kept_back))
    }

    /// Opens a device.
    ///
    /// # Errors
    /// See [`SerialError`]; then the device is as it was.
    pub async fn open_serial(
        self: &Arc<Self>,
        owner: &Owner,
        ask: OpenSerial,
    ) -> Result<Arc<Serial>, SerialError> {
        self.creating(|| SerialError::Draining, self.open_device(owner, ask)).await
    }

    async fn open_device(
        self: &Arc<Self>,
        owner: &Owner,
        ask: OpenSerial,
    ) -> Result<Arc<Serial>, SerialError> {
        let allowed = Allowed::new(&self.settings.allow_serial);
        let by_name = allowed.permits(&ask.path);
        let located = self.ports.serial.locate(&ask.path).await;
        // Where nothing may be opened nothing is told either.
        let by_device = located.as_ref().is_ok_and(|device| allowed.permits(&device.path));
        if !by_name && !by_device {
            return Err(SerialError::Forbidden);
        }
        let device = located?;
        let id = self.mint();
        let claim = self.devices.claim(device.key.clone(), id).map_err(|port| {
            let is_own = |port: &SerialId| {
                self.registries.serials.entry(*port).is_some_and(|serial| serial.spec.owner == *owner)
            };
            SerialError::InUse { port: Some(port).filter(is_own) }
        })?;
        let Line { events, control } = self.ports.serial.open(&device, &ask.mode).await?;
        let spec = SerialSpec {
            id,
            owner: owner.clone(),
            path: ask.path,
            device,
            mode: ask.mode,
            label: ask.label,
            opened: self.clock.now(),
        };
        let lanes = Quota::new(self.settings.lanes_per_uri);
        let serial = Arc::new(Serial::new(spec, ByteHistory::new(ask.history), lanes, claim));
        self.registries.serials.publish(Arc::clone(&serial));
        self.list_changed(owner);
        let running =
            Running { tasks: self.tasks.clone(), clock: self.clock, serial: Arc::clone(&serial), control };
        self.tasks.spawn(running.run(events));
        Ok(serial)
    }

    /// A port of the owner, open or retained.
    ///
    /// # Errors
    /// Unknown, of another owner, or past its retention.
    pub fn serial(&self, owner: &Owner, id: SerialId) -> Result<Arc<Serial>, Missing> {
        let serial = self.look_up(&self.registries.serials, owner, id)?;
        serial.read.touch(self.clock.now());
        Ok(serial)
    }

    /// Takes bytes to be written behind everything that waits, all or nothing. Waits for nothing.
    ///
    /// # Errors
    /// See [`SerialWriteError`]; then nothing was taken.
    pub fn write_serial(&self, serial: &Serial, bytes: Bytes) -> Result<usize, SerialWriteError> {
        let size = bytes.len();
        self.queue(serial, Frame::Bytes(bytes))?;
        Ok(size)
    }

    /// Sends a break behind everything that waits, and waits for it.
    ///
    /// # Errors
    /// See [`SerialWriteError`].
    pub async fn break_serial(&self, serial: &Serial) -> Result<(), SerialWriteError> {
        let outcome = Arc::new(OnceCell::new());
        let mut sent = serial.queue.watch();
        let mut ended = serial.history.watch();
        self.queue(serial, Frame::Break(Arc::clone(&outcome)))?;
        loop {
            if let Some(outcome) = outcome.get() {
                return Ok(outcome.clone()?);
            }
            if serial.history.mark().ended {
                return Err(SerialWriteError::Closed);
            }
            tokio::select! {
                () = sent.changed() => {}
                () = ended.changed() => {}
            }
        }
    }

    fn queue(&self, serial: &Serial, frame: Frame) -> Result<(), SerialWriteError> {
        if serial.life.snapshot().state == State::Closed {
            return Err(SerialWriteError::Closed);
        }
        serial.active.touch(self.clock.now());
        match serial.queue.push(frame) {
            Ok(_) => Ok(()),
            Err(Full(_)) => Err(SerialWriteError::Full),
        }
    }

    /// Closes a port, and waits until its device is free.
    pub async fn close_serial(&self, serial: &Serial) -> CloseSerial {
        let close = serial.stop(Reason::ManualClose);
        serial.over().await;
        match close {
            Close::Won => CloseSerial::Done,
            Close::Lost => CloseSerial::AlreadyClosed,
        }
    }
}

/// The reading task of a port: the only one that appends to its history and records its end.
struct Running {
    tasks: Tasks,
    clock: Clock,
    serial: Arc<Serial>,
    control: Arc<dyn SerialLine>,
}

/// What the reading task was woken by.
enum Event {
    Received(LineEvent),
    Stopped,
    /// On the way to the end: something was written, or the time for it is over.
    Written,
    /// The device takes nothing more; or nobody writes to it any more.
    Deaf(Option<LineLost>),
}

impl Running {
    async fn run(self, mut events: Box<dyn LineEvents>) {
        let Self { tasks, clock, serial, control } = self;
        let SerialSpec { id, path, .. } = &serial.spec;
        tracing::info!(target: target_names::SERIAL, serial_id = %id, ?path, "serial port opened");
        let receive = |bytes: &Bytes| {
            serial.history.append(Origin::Stdout, bytes);
            serial.active.touch(clock.now());
        };
        let writing = CancellationToken::new();
        let _no_longer_than_this = writing.clone().drop_guard();
        let (deaf, mut is_deaf) = oneshot::channel();
        let write = write(Arc::clone(&serial), clock, Arc::clone(&control));
        tasks.spawn(async move {
            if let Some(lost) = writing.run_until_cancelled_owned(write).await {
                // Whoever closes the port has stopped listening.
                _ = deaf.send(lost);
            }
        });
        // Set once somebody closes it: when what waits must have been written.
        let mut closing: Option<Pin<Box<Sleep>>> = None;
        let mut sent = serial.queue.watch();
        let mut writes = true;
        let lost = loop {
            if closing.is_some() && serial.queue.is_idle() {
                break None;
            }
            let last_writes = async {
                match &mut closing {
                    None => std::future::pending().await,
                    Some(until) => tokio::select! {
                        () = sent.changed() => {}
                        () = until => {}
                    },
                }
            };
            let event = tokio::select! {
                biased;
                // A stop comes before input, so that a flood cannot hold it up.
                () = serial.duty.told.notified() => Event::Stopped,
                () = last_writes => Event::Written,
                lost = &mut is_deaf, if writes => Event::Deaf(lost.ok()),
                event = poll_fn(|cx| events.poll_event(cx)) => Event::Received(event),
            };
            match event {
                Event::Received(LineEvent::Data(bytes)) => receive(&bytes),
                Event::Received(LineEvent::Lost(lost)) => break Some(lost),
                Event::Deaf(Some(lost)) => break Some(lost),
                // The engine drops its tasks, one by one.
                Event::Deaf(None) => writes = false,
                Event::Stopped => closing = Some(Box::pin(tokio::time::sleep(LAST_WRITES))),
                Event::Written if closing.as_ref().is_some_and(|until| until.is_elapsed()) => break None,
                Event::Written => {}
            }
        };
        // What it has said is there to be read at once, or not at all.
        let mut left = LAST_WORDS;
        while left > 0
            && let Some(bytes) = said(&mut events).await
        {
            receive(&bytes);
            left = left.saturating_sub(bytes.len());
        }
        let reason = if lost.is_some() { Reason::ConnectionLost } else { Reason::ManualClose };
        // The device's end competes with a stop that came in this very moment; the winner's reason counts.
        let reason = match serial.life.close() {
            Close::Won => reason,
            Close::Lost => {
                if serial.duty.order().is_none() {
                    // The winner's order follows at once.
                    serial.duty.told.notified().await;
                }
                serial.duty.order().unwrap_or(reason)
            }
        };
        let (told, given_back) = oneshot::channel();
        let giving = Arc::clone(&serial);
        tasks.spawn(async move {
            control.close().await;
            giving.duty.let_go();
            // Nobody waits any more where it took too long.
            _ = told.send(());
        });
        _ = tokio::time::timeout(GIVING_BACK, given_back).await;
        let now = clock.now();
        tracing::info!(
            target: target_names::SERIAL,
            serial_id = %serial.spec.id,
            %reason,
            duration_ms = (now - serial.spec.opened).as_millis() as u64,
            "serial port closed"
        );
        // The task is the only one that records, and it does so once.
        let facts = lost.filter(|_| reason == Reason::ConnectionLost);
        _ = serial.ending.record(End { reason, facts, at: now });
        serial.history.finish();
    }
}

/// The writing half: one piece at a time, in order. It ends when the device takes nothing more.
async fn write(serial: Arc<Serial>, clock: Clock, control: Arc<dyn SerialLine>) -> LineLost {
    loop {
        while let Some(frame) = serial.queue.pop() {
            match frame {
                Frame::Bytes(mut bytes) => {
                    while !bytes.is_empty() {
                        let piece = bytes.split_to(bytes.len().min(PIECE));
                        let size = piece.len();
                        if let Err(lost) = control.send(piece).await {
                            return lost;
                        }
                        serial.note_written(size);
                        serial.active.touch(clock.now());
                    }
                }
                Frame::Break(outcome) => {
                    // Written by this task alone, once.
                    _ = outcome.set(control.send_break().await);
                }
            }
            serial.queue.note_sent();
        }
        serial.queue.filled.notified().await;
    }
}

/// What a line has said and nobody has read yet.
async fn said(events: &mut Box<dyn LineEvents>) -> Option<Bytes> {
    poll_fn(|cx| {
        Poll::Ready(match events.poll_event(cx) {
            Poll::Ready(LineEvent::Data(bytes)) => Some(bytes),
            Poll::Ready(LineEvent::Lost(_)) | Poll::Pending => None,
        })
    })
    .await
}
