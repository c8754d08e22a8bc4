//! Serial devices in memory: a line pair each, of which a test holds the far end.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use ssh_mcp_core::{
    port::{
        BoxFuture,
        serial::{
            BreakError, Device, DeviceKey, Line, LineEvent, LineEvents, LineLost, LineMode, Located,
            OpenError, Parity, ScanError, SerialBus, SerialLine,
        },
    },
    sync::Mutex,
    text,
};
use tokio::sync::watch;

/// The devices; clones are the same machine. Without one there is nothing to open.
#[derive(Clone, Default)]
pub struct ScriptedBus {
    state: Arc<Mutex<Bus>>,
}

#[derive(Default)]
struct Bus {
    devices: HashMap<String, Plugged>,
    links: HashMap<String, String>,
    plugged: u64,
}

struct Plugged {
    key: DeviceKey,
    device: Device,
    far: FarEnd,
    refusal: Option<OpenError>,
}

/// The far end of a line; clones are the same one.
#[derive(Clone)]
pub struct FarEnd {
    wire: Arc<Mutex<Wire>>,
    /// Rung when this side did something.
    near: watch::Sender<u64>,
    /// Whether the far end takes what is sent.
    reads: watch::Sender<bool>,
}

#[derive(Default)]
struct Wire {
    said: VecDeque<Bytes>,
    heard: Vec<u8>,
    breaks: usize,
    /// Which opening it is, and how it is run.
    open: Option<(u64, LineMode)>,
    openings: u64,
    lost: Option<String>,
    has_control_lines: bool,
    refuses_break: bool,
    closings: usize,
    reader: Option<Waker>,
}

impl ScriptedBus {
    /// A machine without serial devices.
    pub fn new() -> Self {
        Self::default()
    }

    /// Plugs a device in. It is as a pseudo-terminal: it has no control lines and no parity.
    pub fn plug(&self, device: Device) -> FarEnd {
        let far =
            FarEnd { wire: Arc::default(), near: watch::Sender::new(0), reads: watch::Sender::new(true) };
        let mut state = self.state.lock();
        state.plugged += 1;
        let key = DeviceKey(format!("far:{}", state.plugged));
        let plugged = Plugged { key, far: far.clone(), refusal: None, device };
        state.devices.insert(plugged.device.path.clone(), plugged);
        far
    }

    /// Gives a device a further name.
    pub fn link(&self, name: &str, path: &str) {
        self.state.lock().links.insert(name.to_owned(), path.to_owned());
    }

    /// Whoever opens it is told this.
    pub fn refuse(&self, path: &str, with: OpenError) {
        if let Some(plugged) = self.state.lock().devices.get_mut(path) {
            plugged.refusal = Some(with);
        }
    }

    /// Takes a device away: its line is lost, and its node is gone.
    pub fn unplug(&self, path: &str) {
        let plugged = self.state.lock().devices.remove(path);
        if let Some(plugged) = plugged {
            plugged.far.leave("the device is gone");
        }
    }

    fn missing(&self, path: &str) -> OpenError {
        let state = self.state.lock();
        OpenError::NoDevice { nearest: text::nearest(path, state.devices.keys().cloned(), 3) }
    }
}

impl FarEnd {
    /// With control lines, parity and characters of any length.
    pub fn with_control_lines(self) -> Self {
        self.wire.lock().has_control_lines = true;
        self
    }

    /// Its driver sends no break.
    pub fn without_break(self) -> Self {
        self.wire.lock().refuses_break = true;
        self
    }

    /// Sends bytes; whoever has the line open receives them.
    pub fn say(&self, bytes: impl Into<Bytes>) {
        let reader = {
            let mut wire = self.wire.lock();
            wire.said.push_back(bytes.into());
            wire.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Everything it was sent.
    pub fn heard(&self) -> Vec<u8> {
        self.wire.lock().heard.clone()
    }

    /// Waits until it was sent so many bytes.
    pub async fn hears(&self, count: usize) -> Vec<u8> {
        self.until(|wire| wire.heard.len() >= count).await;
        self.heard()
    }

    /// Breaks it saw.
    pub fn breaks(&self) -> usize {
        self.wire.lock().breaks
    }

    /// It takes nothing more until [`read_on`](Self::read_on): what is sent does not get through.
    pub fn stall(&self) {
        self.reads.send_replace(false);
    }

    /// It takes what is sent again.
    pub fn read_on(&self) {
        self.reads.send_replace(true);
    }

    /// How the line is run, while it is open.
    pub fn mode(&self) -> Option<LineMode> {
        self.wire.lock().open.as_ref().map(|(_, mode)| mode.clone())
    }

    /// How often the line was closed.
    pub fn closings(&self) -> usize {
        self.wire.lock().closings
    }

    /// Its node stays, but the line is lost with these words.
    pub fn leave(&self, cause: &str) {
        let reader = {
            let mut wire = self.wire.lock();
            wire.lost = Some(cause.to_owned());
            wire.reader.take()
        };
        // Whoever waits to get something through is told too.
        self.reads.send_modify(|_| {});
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    async fn until(&self, met: impl Fn(&Wire) -> bool) {
        let mut near = self.near.subscribe();
        // The sender is ours, so waiting cannot fail.
        _ = near.wait_for(|_| met(&self.wire.lock())).await;
    }

    fn note(&self) {
        self.near.send_modify(|count| *count += 1);
    }

    /// One that has been closed says nothing about whoever has the device now.
    fn close(&self, opening: u64) {
        let mut wire = self.wire.lock();
        if wire.is_open(opening) {
            wire.open = None;
            wire.closings += 1;
        }
        drop(wire);
        self.note();
    }
}

impl Wire {
    fn is_open(&self, opening: u64) -> bool {
        self.open.as_ref().is_some_and(|(number, _)| *number == opening)
    }
}

impl SerialBus for ScriptedBus {
    fn scan(&self) -> BoxFuture<'_, Result<Vec<Device>, ScanError>> {
        let mut devices: Vec<Device> =
            self.state.lock().devices.values().map(|plugged| plugged.device.clone()).collect();
        devices.sort_by(|one, other| one.path.cmp(&other.path));
        Box::pin(async move { Ok(devices) })
    }

    fn locate<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Located, OpenError>> {
        let found = {
            let state = self.state.lock();
            let own = state.links.get(path).map_or(path, String::as_str);
            state.devices.get(own).map(|plugged| Located { path: own.to_owned(), key: plugged.key.clone() })
        };
        Box::pin(async move { found.ok_or_else(|| self.missing(path)) })
    }

    fn open<'a>(&'a self, device: &'a Located, mode: &'a LineMode) -> BoxFuture<'a, Result<Line, OpenError>> {
        Box::pin(async move {
            let found = {
                let state = self.state.lock();
                state.devices.get(&device.path).map(|plugged| (plugged.refusal.clone(), plugged.far.clone()))
            };
            let (refusal, far) = found.ok_or_else(|| self.missing(&device.path))?;
            if let Some(refusal) = refusal {
                return Err(refusal);
            }
            let mut wire = far.wire.lock();
            if wire.open.is_some() {
                return Err(OpenError::Busy);
            }
            let unsupported = |setting: &str| Err(OpenError::Unsupported { setting: setting.to_owned() });
            match (wire.has_control_lines, mode.parity, mode.dtr, mode.rts) {
                (true, ..) | (false, Parity::None, None, None) => {}
                (false, Parity::None, Some(_), _) => return unsupported("initial_dtr"),
                (false, Parity::None, None, Some(_)) => return unsupported("initial_rts"),
                (false, parity @ (Parity::Odd | Parity::Even), ..) => {
                    return unsupported(&format!("parity={}", parity.as_str()));
                }
            }
            wire.openings += 1;
            let opening = wire.openings;
            wire.open = Some((opening, mode.clone()));
            drop(wire);
            Ok(Line {
                events: Box::new(Receiving { far: far.clone(), opening, is_over: false }),
                control: Arc::new(Sending { far, opening }),
            })
        })
    }
}

struct Receiving {
    far: FarEnd,
    opening: u64,
    is_over: bool,
}

impl LineEvents for Receiving {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LineEvent> {
        let mut wire = self.far.wire.lock();
        let (false, true) = (self.is_over, wire.is_open(self.opening)) else { return Poll::Pending };
        if let Some(bytes) = wire.said.pop_front() {
            return Poll::Ready(LineEvent::Data(bytes));
        }
        if let Some(cause) = wire.lost.clone() {
            drop(wire);
            self.is_over = true;
            return Poll::Ready(LineEvent::Lost(LineLost { cause }));
        }
        wire.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

struct Sending {
    far: FarEnd,
    opening: u64,
}

impl SerialLine for Sending {
    fn send(&self, bytes: Bytes) -> BoxFuture<'static, Result<(), LineLost>> {
        let (far, opening) = (self.far.clone(), self.opening);
        Box::pin(async move {
            let mut reads = far.reads.subscribe();
            let gone = || far.wire.lock().lost.clone();
            // The sender is ours, so waiting cannot fail.
            _ = reads.wait_for(|reads| *reads || gone().is_some()).await;
            if let Some(cause) = gone() {
                return Err(LineLost { cause });
            }
            {
                let mut wire = far.wire.lock();
                if !wire.is_open(opening) {
                    return Err(LineLost { cause: "the line is closed".to_owned() });
                }
                wire.heard.extend_from_slice(&bytes);
            }
            far.note();
            Ok(())
        })
    }

    fn send_break(&self) -> BoxFuture<'static, Result<(), BreakError>> {
        let (far, opening) = (self.far.clone(), self.opening);
        Box::pin(async move {
            let mut wire = far.wire.lock();
            let cause = if wire.refuses_break { "not supported" } else { "the line is closed" };
            if wire.refuses_break || !wire.is_open(opening) {
                return Err(BreakError { cause: cause.to_owned() });
            }
            wire.breaks += 1;
            Ok(())
        })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let (far, opening) = (self.far.clone(), self.opening);
        Box::pin(async move { far.close(opening) })
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.far.close(self.opening);
    }
}

/// A device of which nothing is known but where it is.
pub fn plain(path: &str) -> Device {
    Device {
        path: path.to_owned(),
        kind: ssh_mcp_core::port::serial::DeviceKind::Unknown,
        vid: None,
        pid: None,
        serial_number: None,
        manufacturer: None,
        product: None,
        by_id: None,
    }
}
