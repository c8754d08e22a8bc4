//! The port for the serial lines of this machine: which devices there are, opening one, its two directions.
//!
//! A line belongs to the process, not to a session. What is received comes as events that one reader polls; nothing is
//! gathered on the way, so a byte is an event as soon as the driver gives it.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use serde::Serialize;

use super::BoxFuture;

/// The serial devices of this machine.
pub trait SerialBus: Send + Sync {
    /// The devices that have hardware behind them, by path. No device is opened for that.
    fn scan(&self) -> BoxFuture<'_, Result<Vec<Device>, ScanError>>;

    /// The device a path leads to, whatever other names it has. It is not opened.
    fn locate<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Located, OpenError>>;

    /// Opens a device for this process alone: raw, without becoming the controlling terminal, never waiting for a carrier.
    ///
    /// A setting the driver does not take, or takes and does not keep, is an error, and the device is closed again. The
    /// settings it had come back when the line is closed.
    fn open<'a>(&'a self, device: &'a Located, mode: &'a LineMode) -> BoxFuture<'a, Result<Line, OpenError>>;
}

/// A device of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Where it is.
    pub path: String,
    /// What it hangs on.
    pub kind: DeviceKind,
    /// Of USB: the vendor, as four hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vid: Option<String>,
    /// Of USB: the product, as four hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<String>,
    /// Of USB: what tells it from others of its make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// Of USB: who made it, in the device's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// Of USB: what it is, in the device's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// A name that stays when it is plugged in elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_id: Option<String>,
}

/// What a device hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// An adapter or a board on USB.
    Usb,
    /// A card.
    Pci,
    /// A wireless line.
    Bluetooth,
    /// The machine's own.
    Builtin,
    /// The system does not say.
    Unknown,
}

impl DeviceKind {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Usb => "usb",
            Self::Pci => "pci",
            Self::Bluetooth => "bluetooth",
            Self::Builtin => "builtin",
            Self::Unknown => "unknown",
        }
    }
}

/// A device, found by one of its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Its own name, links followed.
    pub path: String,
    /// What makes it this device and no other; equal for all its names.
    pub key: DeviceKey,
}

/// What makes a device this one and no other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeviceKey(pub String);

/// How a line is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineMode {
    /// Bits in a second.
    pub baud: u32,
    /// Bits in a character.
    pub data_bits: DataBits,
    /// The pause behind a character.
    pub stop_bits: StopBits,
    /// The bit that checks a character.
    pub parity: Parity,
    /// How the receiver holds the sender back.
    pub flow: FlowControl,
    /// What the DTR line becomes; none leaves it to the driver.
    pub dtr: Option<Level>,
    /// What the RTS line becomes; none leaves it to the driver.
    pub rts: Option<Level>,
    /// How long a read of the system may wait, where the system needs to know; nothing is held back for so long.
    pub read_timeout: Duration,
}

impl LineMode {
    /// Data bits, parity and stop bits in three characters, such as `8N1`.
    pub fn framing(&self) -> String {
        let parity = match self.parity {
            Parity::None => 'N',
            Parity::Odd => 'O',
            Parity::Even => 'E',
        };
        format!("{}{parity}{}", self.data_bits.count(), self.stop_bits.as_str())
    }
}

/// Bits in a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataBits {
    /// Baudot.
    Five,
    /// Rare.
    Six,
    /// ASCII.
    Seven,
    /// Bytes.
    Eight,
}

impl DataBits {
    /// The number, if a character can have so many.
    pub fn from_count(count: u8) -> Option<Self> {
        [Self::Five, Self::Six, Self::Seven, Self::Eight].into_iter().find(|bits| bits.count() == count)
    }

    /// How many.
    pub fn count(self) -> u8 {
        match self {
            Self::Five => 5,
            Self::Six => 6,
            Self::Seven => 7,
            Self::Eight => 8,
        }
    }
}

/// The pause behind a character, in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopBits {
    /// One.
    One,
    /// Two.
    Two,
}

impl StopBits {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::One => "1",
            Self::Two => "2",
        }
    }
}

/// The bit that checks a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parity {
    /// There is none.
    None,
    /// It makes the number of ones odd.
    Odd,
    /// It makes the number of ones even.
    Even,
}

impl Parity {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Odd => "odd",
            Self::Even => "even",
        }
    }
}

/// How the receiver holds the sender back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowControl {
    /// It does not.
    None,
    /// By the characters XON and XOFF, which then are no data.
    Software,
    /// By the lines RTS and CTS.
    Hardware,
}

impl FlowControl {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Software => "software",
            Self::Hardware => "hardware",
        }
    }
}

/// The state of a control line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Asserted.
    High,
    /// Not asserted.
    Low,
}

/// The devices could not be listed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot list serial devices: {cause}")]
pub struct ScanError {
    /// The system's words.
    pub cause: String,
}

/// Why a device was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Nothing is there.
    #[error("no such device")]
    NoDevice {
        /// Names of devices that are there, the likeliest first.
        nearest: Vec<String>,
    },
    /// The user of this process may not use it.
    #[error("permission denied")]
    Permission {
        /// The group that may.
        group: Option<String>,
    },
    /// Another process has it.
    #[error("in use by another process")]
    Busy,
    /// There is something else.
    #[error("not a serial device")]
    NotSerial,
    /// The driver does not do what was asked for.
    #[error("the driver does not take {setting}")]
    Unsupported {
        /// What was asked for: `parity=even`.
        setting: String,
    },
    /// Anything else.
    #[error("{cause}")]
    Failed {
        /// The system's words.
        cause: String,
    },
}

/// An open line: its events for one reader, its control for anybody.
pub struct Line {
    /// What is received.
    pub events: Box<dyn LineEvents>,
    /// What can be asked of it.
    pub control: Arc<dyn SerialLine>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}

/// The receiving half.
pub trait LineEvents: Send {
    /// The next event; after [`LineEvent::Lost`] it stays pending. A device that is taken away is told within a second, also on
    /// a line on which nothing is received.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LineEvent>;
}

/// What a line reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineEvent {
    /// Received as it is: every byte is data.
    Data(Bytes),
    /// The device is gone; everything received has been reported.
    Lost(LineLost),
}

/// The device is gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line lost: {cause}")]
pub struct LineLost {
    /// The system's words.
    pub cause: String,
}

/// The sending half.
pub trait SerialLine: Send + Sync {
    /// Sends bytes; resolves when the driver has taken all of them. One at a time is the caller's duty. Dropped half-way, some
    /// of them have been sent.
    fn send(&self, bytes: Bytes) -> BoxFuture<'static, Result<(), LineLost>>;

    /// Holds the line low for a quarter of a second, behind everything the driver has taken.
    fn send_break(&self) -> BoxFuture<'static, Result<(), BreakError>>;

    /// Gives the device back as it was found. What the driver has not sent by now is dropped. A second call does nothing.
    fn close(&self) -> BoxFuture<'static, ()>;
}

/// No break was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no break was sent: {cause}")]
pub struct BreakError {
    /// The system's words.
    pub cause: String,
}
