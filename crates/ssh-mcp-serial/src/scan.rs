//! Which serial devices there are, as the kernel tells it below `/sys/class/tty`, without opening one.
//!
//! A terminal that hangs on no hardware is left out: virtual consoles, pseudo-terminals, and the nodes of built-in ports that
//! a kernel makes whether there are any or not.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use ssh_mcp_core::{
    port::serial::{Device, DeviceKind, ScanError},
    text,
};

use crate::Places;

/// The devices, by path.
pub(crate) fn devices(places: &Places) -> Result<Vec<Device>, ScanError> {
    let class = places.sys.join("class/tty");
    let entries = match fs::read_dir(&class) {
        Ok(entries) => entries,
        // A kernel without terminals, or one that does not tell.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ScanError { cause: format!("{}: {error}", class.display()) }),
    };
    let by_id = names_by_id(places);
    let mut devices: Vec<Device> = entries
        .flatten()
        .filter_map(|entry| {
            let mut device = device(places, &entry.path())?;
            let node = fs::canonicalize(&device.path).ok();
            let name = by_id.iter().find(|(_, leads_to)| Some(leads_to) == node.as_ref());
            device.by_id = name.map(|(name, _)| name.clone());
            Some(device)
        })
        .collect();
    devices.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(devices)
}

/// Names like `path` that lead somewhere, the likeliest first.
pub(crate) fn nearest(places: &Places, path: &str) -> Vec<String> {
    let devices = devices(places).unwrap_or_default();
    let mut names: Vec<String> = devices.iter().map(|device| device.path.clone()).collect();
    names.extend(devices.into_iter().filter_map(|device| device.by_id));
    text::nearest(path, names, 3)
}

/// What the kernel says of a terminal, if there is hardware behind it and a node in front.
fn device(places: &Places, entry: &Path) -> Option<Device> {
    let name = entry.file_name()?.to_str()?;
    let path = places.dev.join(name);
    let is_wireless = name.starts_with("rfcomm");
    let hardware = fs::canonicalize(entry.join("device")).ok();
    // The kernel's word for a built-in port that it found nothing behind.
    let is_empty = word(&entry.join("type")).as_deref() == Some("0");
    if (hardware.is_none() && !is_wireless) || is_empty || !path.exists() {
        return None;
    }
    let chain: Vec<&Path> = hardware.as_deref().map(|path| path.ancestors().collect()).unwrap_or_default();
    let usb = chain.iter().find(|part| part.join("idVendor").exists());
    let on = |bus: &str| chain.iter().any(|part| subsystem(part).as_deref() == Some(OsStr::new(bus)));
    let kind = match usb {
        Some(_) => DeviceKind::Usb,
        None if is_wireless || on("bluetooth") => DeviceKind::Bluetooth,
        None if on("pci") => DeviceKind::Pci,
        None if on("pnp") || on("platform") || on("amba") => DeviceKind::Builtin,
        None => DeviceKind::Unknown,
    };
    let of_usb = |file: &str| usb.and_then(|part| word(&part.join(file)));
    Some(Device {
        path: path.to_str()?.to_owned(),
        kind,
        vid: of_usb("idVendor"),
        pid: of_usb("idProduct"),
        serial_number: of_usb("serial"),
        manufacturer: of_usb("manufacturer"),
        product: of_usb("product"),
        by_id: None,
    })
}

/// The names that stay when a device is plugged in elsewhere, and what each leads to.
fn names_by_id(places: &Places) -> Vec<(String, PathBuf)> {
    let Ok(links) = fs::read_dir(places.dev.join("serial/by-id")) else { return Vec::new() };
    let mut names: Vec<_> = links
        .flatten()
        .filter_map(|link| {
            let name = link.path().to_str()?.to_owned();
            Some((name, fs::canonicalize(link.path()).ok()?))
        })
        .collect();
    names.sort();
    names
}

/// What a part of a device's path belongs to.
pub(crate) fn subsystem(part: &Path) -> Option<std::ffi::OsString> {
    let link = fs::read_link(part.join("subsystem")).ok()?;
    link.file_name().map(OsStr::to_owned)
}

/// The content of one of the kernel's small files. What a device says of itself is held to a line.
fn word(file: &Path) -> Option<String> {
    let content = fs::read(file).ok()?;
    let said = text::remote_words(text::lossy(&content).trim());
    (!said.is_empty()).then_some(said)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::SystemBus;

    /// A root with what a kernel tells of some devices.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            for folder in ["dev", "sys/class/tty", "sys/bus"] {
                fs::create_dir_all(machine.at(folder)).unwrap();
            }
            machine
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        /// A folder of the device tree that belongs to a bus.
        fn part(&self, path: &str, bus: &str) {
            fs::create_dir_all(self.at(path)).unwrap();
            symlink(format!("/sys/bus/{bus}"), self.at(path).join("subsystem")).unwrap();
        }

        fn say(&self, file: &str, content: &str) {
            fs::write(self.at(file), content).unwrap();
        }

        /// A terminal, and the hardware it hangs on.
        fn terminal(&self, name: &str, hardware: Option<&str>) {
            fs::create_dir(self.at("sys/class/tty").join(name)).unwrap();
            fs::write(self.at("dev").join(name), "").unwrap();
            if let Some(hardware) = hardware {
                symlink(self.at(hardware), self.at("sys/class/tty").join(name).join("device")).unwrap();
            }
        }

        fn scan(&self) -> Vec<Device> {
            devices(&SystemBus::below(self.0.path()).places).unwrap()
        }

        fn names(&self) -> Vec<(String, DeviceKind)> {
            let root = self.0.path().to_str().unwrap();
            self.scan().into_iter().map(|device| (device.path.replace(root, ""), device.kind)).collect()
        }
    }

    #[test]
    fn an_adapter_on_usb_is_told_with_what_it_says_of_itself() {
        let machine = Machine::new();
        machine.part("sys/devices/pci0/usb1/1-2", "usb");
        machine.part("sys/devices/pci0/usb1/1-2/1-2:1.0", "usb");
        machine.part("sys/devices/pci0/usb1/1-2/1-2:1.0/ttyUSB0", "usb-serial");
        for (file, content) in [
            ("idVendor", "0403\n"),
            ("idProduct", "6001\n"),
            ("serial", "A9\u{1b}[31mX\n"),
            ("manufacturer", "FTDI\n"),
            ("product", "FT232R USB UART\n"),
        ] {
            machine.say(&format!("sys/devices/pci0/usb1/1-2/{file}"), content);
        }
        machine.terminal("ttyUSB0", Some("sys/devices/pci0/usb1/1-2/1-2:1.0/ttyUSB0"));
        fs::create_dir_all(machine.at("dev/serial/by-id")).unwrap();
        symlink("../../ttyUSB0", machine.at("dev/serial/by-id/usb-FTDI-if00-port0")).unwrap();
        let [device] = machine.scan().try_into().unwrap();
        let device: Device = device;
        assert!(device.path.ends_with("/dev/ttyUSB0"));
        assert_eq!(device.kind, DeviceKind::Usb);
        let said = [&device.vid, &device.pid, &device.manufacturer, &device.product];
        assert_eq!(said.map(|said| said.as_deref().unwrap()), ["0403", "6001", "FTDI", "FT232R USB UART"]);
        assert!(!device.serial_number.unwrap().contains('\u{1b}'), "no escape sequence comes from a device");
        assert!(device.by_id.unwrap().ends_with("/dev/serial/by-id/usb-FTDI-if00-port0"));
    }

    #[test]
    fn what_has_no_hardware_is_left_out() {
        let machine = Machine::new();
        machine.part("sys/devices/platform/serial8250", "platform");
        machine.part("sys/devices/pnp0/00:01", "pnp");
        machine.part("sys/devices/pci0/0000:02:00.0", "pci");
        machine.terminal("tty0", None);
        machine.terminal("console", None);
        for (name, hardware, kind) in [
            ("ttyS0", "sys/devices/pnp0/00:01", "4"),
            ("ttyS1", "sys/devices/platform/serial8250", "0"),
            ("ttyS4", "sys/devices/pci0/0000:02:00.0", "16"),
            ("ttyAMA0", "sys/devices/platform/serial8250", "32"),
        ] {
            machine.terminal(name, Some(hardware));
            machine.say(&format!("sys/class/tty/{name}/type"), kind);
        }
        machine.terminal("rfcomm0", None);
        // A terminal without a node cannot be opened.
        fs::create_dir(machine.at("sys/class/tty/ttyUSB9")).unwrap();
        let expected = [
            ("/dev/rfcomm0", DeviceKind::Bluetooth),
            ("/dev/ttyAMA0", DeviceKind::Builtin),
            ("/dev/ttyS0", DeviceKind::Builtin),
            ("/dev/ttyS4", DeviceKind::Pci),
        ];
        assert_eq!(machine.names(), expected.map(|(name, kind)| (name.to_owned(), kind)));
    }

    #[test]
    fn a_machine_that_tells_nothing_has_no_devices() {
        let nothing = tempfile::tempdir().unwrap();
        assert_eq!(devices(&SystemBus::below(nothing.path()).places), Ok(Vec::new()));
    }
}
