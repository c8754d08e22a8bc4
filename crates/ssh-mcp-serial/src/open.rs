//! One device: found by a name, opened for this process alone, made what was asked for, given back as it was found.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
    sync::Arc,
};

use rustix::{
    fd::OwnedFd,
    fs::{FlockOperation, Mode, OFlags, flock, fstat, major, minor},
    io::Errno,
    termios::{
        ControlModes, InputModes, OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr,
    },
};
use ssh_mcp_core::{
    port::serial::{DataBits, DeviceKey, FlowControl, Level, LineMode, Located, OpenError, Parity, StopBits},
    text,
};
use tokio_serial::{SerialPort as _, SerialStream};

use crate::{Places, scan};

/// A device that is open. Dropped, the device is as it was found; what it has not sent is lost.
pub(crate) struct Held {
    // Before our own handle: the other one's closing is then not the last, and waits for nothing.
    pub(crate) stream: SerialStream,
    pub(crate) found: Found,
}

/// Our own handle on a device, and the settings it had.
pub(crate) struct Found {
    pub(crate) handle: Arc<OwnedFd>,
    settings: Termios,
}

impl Drop for Found {
    fn drop(&mut self) {
        // A device that is gone has no settings; whoever opens it next makes his own.
        _ = tcflush(&self.handle, QueueSelector::OFlush);
        _ = tcsetattr(&self.handle, OptionalActions::Now, &self.settings);
    }
}

/// The device a path leads to.
pub(crate) fn locate(places: &Places, path: &str) -> Result<Located, OpenError> {
    let missing = || OpenError::NoDevice { nearest: scan::nearest(places, path) };
    // Where this process happens to run says nothing about devices.
    if !Path::new(path).is_absolute() {
        return Err(missing());
    }
    let own = fs::canonicalize(path).and_then(|own| fs::metadata(&own).map(|facts| (own, facts)));
    let (own, facts) = own.map_err(|error| {
        if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
            missing()
        } else if error.kind() == ErrorKind::PermissionDenied {
            OpenError::Permission { group: None }
        } else {
            OpenError::Failed { cause: error.to_string() }
        }
    })?;
    if !facts.file_type().is_char_device() || !is_serial(places, facts.rdev()) {
        return Err(OpenError::NotSerial);
    }
    let own = own.to_str().ok_or(OpenError::NotSerial)?.to_owned();
    Ok(Located { path: own, key: key(facts.rdev()) })
}

/// What makes a device this one: its number, whatever its nodes are called.
fn key(device: u64) -> DeviceKey {
    DeviceKey(format!("{}:{}", major(device), minor(device)))
}

/// Whether a device that is still there has the number it had.
pub(crate) fn is_there(device: &Located) -> bool {
    fs::metadata(&device.path)
        .is_ok_and(|facts| facts.file_type().is_char_device() && key(facts.rdev()) == device.key)
}

/// Whether a character device is a serial line. It is not opened to find out: some devices act on that alone.
fn is_serial(places: &Places, device: u64) -> bool {
    let (major, minor) = (major(device), minor(device));
    let is_console = (major == 4 && minor < 64) || (major == 5 && minor < 3);
    let is_pseudo_terminal = (136..=143).contains(&major);
    let told = places.sys.join("dev/char");
    let is_terminal = || match told.exists() {
        true => scan::subsystem(&told.join(format!("{major}:{minor}"))).is_some_and(|class| class == "tty"),
        // A kernel that tells nothing; the settings it has or has not will say.
        false => true,
    };
    !is_console && (is_pseudo_terminal || is_terminal())
}

/// Opens a device and makes it what `mode` says.
pub(crate) fn open(places: &Places, device: &Located, mode: &LineMode) -> Result<Held, OpenError> {
    let found = take(places, device)?;
    let builder = tokio_serial::new(&device.path, mode.baud)
        .data_bits(match mode.data_bits {
            DataBits::Five => tokio_serial::DataBits::Five,
            DataBits::Six => tokio_serial::DataBits::Six,
            DataBits::Seven => tokio_serial::DataBits::Seven,
            DataBits::Eight => tokio_serial::DataBits::Eight,
        })
        .stop_bits(match mode.stop_bits {
            StopBits::One => tokio_serial::StopBits::One,
            StopBits::Two => tokio_serial::StopBits::Two,
        })
        .parity(match mode.parity {
            Parity::None => tokio_serial::Parity::None,
            Parity::Odd => tokio_serial::Parity::Odd,
            Parity::Even => tokio_serial::Parity::Even,
        })
        .flow_control(match mode.flow {
            FlowControl::None => tokio_serial::FlowControl::None,
            FlowControl::Software => tokio_serial::FlowControl::Software,
            FlowControl::Hardware => tokio_serial::FlowControl::Hardware,
        })
        .timeout(mode.read_timeout);
    let stream = SerialStream::open(&builder).map_err(|error| match error.kind() {
        // The library's word for a device that somebody else has.
        tokio_serial::ErrorKind::NoDevice => OpenError::Busy,
        tokio_serial::ErrorKind::InvalidInput => {
            OpenError::Unsupported { setting: format!("baud_rate={}", mode.baud) }
        }
        tokio_serial::ErrorKind::Io(_) | tokio_serial::ErrorKind::Unknown => {
            OpenError::Failed { cause: text::remote_words(&error.to_string()) }
        }
    })?;
    let mut held = Held { stream, found };
    held.pass_everything_on()?;
    held.check(mode)?;
    held.set_levels(mode)?;
    Ok(held)
}

/// Our own handle on a device nobody else uses.
fn take(places: &Places, device: &Located) -> Result<Found, OpenError> {
    let missing = || OpenError::NoDevice { nearest: scan::nearest(places, &device.path) };
    let failed = |error: Errno| match error {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => missing(),
        Errno::ACCESS | Errno::PERM => OpenError::Permission { group: group_of(places, device) },
        Errno::BUSY | Errno::WOULDBLOCK => OpenError::Busy,
        Errno::NOTTY | Errno::ISDIR => OpenError::NotSerial,
        // A node with nothing behind it.
        Errno::IO => missing(),
        error => OpenError::Failed { cause: error.to_string() },
    };
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let handle = rustix::fs::open(&device.path, flags, Mode::empty()).map_err(failed)?;
    let is_it = fstat(&handle).is_ok_and(|facts| key(facts.st_rdev) == device.key);
    if !is_it {
        return Err(missing());
    }
    // Asked on this handle first: the library takes the device's exclusive use before it asks, and when it is refused it
    // gives that back, whosoever it was.
    flock(&handle, FlockOperation::NonBlockingLockExclusive).map_err(failed)?;
    flock(&handle, FlockOperation::Unlock).map_err(failed)?;
    let settings = tcgetattr(&handle).map_err(failed)?;
    Ok(Found { handle: Arc::new(handle), settings })
}

impl Held {
    /// A character with an error is a character: the library would have them dropped, or made zero.
    fn pass_everything_on(&self) -> Result<(), OpenError> {
        let failed = |error: Errno| OpenError::Failed { cause: error.to_string() };
        let mut settings = self.settings_now()?;
        settings.input_modes.remove(InputModes::IGNPAR | InputModes::INPCK | InputModes::PARMRK);
        tcsetattr(&self.found.handle, OptionalActions::Now, &settings).map_err(failed)
    }

    /// Whether the driver kept what it was told; some take what they cannot do in silence.
    fn check(&self, mode: &LineMode) -> Result<(), OpenError> {
        let settings = self.settings_now()?;
        let control = settings.control_modes;
        let unsupported = |setting: String| Err(OpenError::Unsupported { setting });
        let size = match control & ControlModes::CSIZE {
            ControlModes::CS5 => 5,
            ControlModes::CS6 => 6,
            ControlModes::CS7 => 7,
            _ => 8,
        };
        if size != mode.data_bits.count() {
            return unsupported(format!("data_bits={}", mode.data_bits.count()));
        }
        let parity = match (control.contains(ControlModes::PARENB), control.contains(ControlModes::PARODD)) {
            (false, _) => Parity::None,
            (true, false) => Parity::Even,
            (true, true) => Parity::Odd,
        };
        if parity != mode.parity {
            return unsupported(format!("parity={}", mode.parity.as_str()));
        }
        if control.contains(ControlModes::CSTOPB) != (mode.stop_bits == StopBits::Two) {
            return unsupported(format!("stop_bits={}", mode.stop_bits.as_str()));
        }
        if control.contains(ControlModes::CRTSCTS) != (mode.flow == FlowControl::Hardware) {
            return unsupported(format!("flow_control={}", mode.flow.as_str()));
        }
        // A driver divides a clock, so it says what came nearest. Beyond this no receiver is in step any more.
        let (asked, got) = (u64::from(mode.baud), u64::from(settings.output_speed()));
        if asked.abs_diff(got) * 100 > asked * 3 {
            return unsupported(format!("baud_rate={asked}"));
        }
        Ok(())
    }

    fn set_levels(&mut self, mode: &LineMode) -> Result<(), OpenError> {
        let refused = |name: &str, level: Level| {
            let setting = format!("{name}={}", level == Level::High);
            move |_| OpenError::Unsupported { setting }
        };
        if let Some(level) = mode.dtr {
            let set = self.stream.write_data_terminal_ready(level == Level::High);
            set.map_err(refused("initial_dtr", level))?;
        }
        if let Some(level) = mode.rts {
            let set = self.stream.write_request_to_send(level == Level::High);
            set.map_err(refused("initial_rts", level))?;
        }
        Ok(())
    }

    fn settings_now(&self) -> Result<Termios, OpenError> {
        tcgetattr(&self.found.handle).map_err(|error| OpenError::Failed { cause: error.to_string() })
    }
}

/// The group a device belongs to, by name.
fn group_of(places: &Places, device: &Located) -> Option<String> {
    let group = fs::metadata(&device.path).ok()?.gid().to_string();
    let groups = fs::read_to_string(&places.groups).ok()?;
    let named = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number == group).then(|| name.to_owned())
    });
    Some(named.unwrap_or(group))
}
