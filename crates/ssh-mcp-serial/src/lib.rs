//! The serial port of ssh-mcp: the lines of this machine, by tokio-serial.
//!
//! | Module | Holds |
//! | --- | --- |
//! | `scan` | which devices there are, from what the kernel tells; none is opened |
//! | `open` | one device: how it was found, what it is made, that it is given back so |
//! | `line` | its two directions |
//!
//! Beside tokio-serial's own handle on a device there is one of ours. It was there first, so it knows the settings the device
//! was found with and can say why a device cannot be had; and as long as it is there, closing the other never waits for output
//! that nobody takes.
//!
//! What is done with the bytes is not here.

mod line;
mod open;
mod scan;

use std::path::{Path, PathBuf};

use ssh_mcp_core::port::{
    BoxFuture,
    serial::{Device, Line, LineMode, Located, OpenError, ScanError, SerialBus},
};

/// The serial devices of this machine.
#[derive(Debug, Clone)]
pub struct SystemBus {
    places: Places,
}

/// Where the system tells of its devices.
#[derive(Debug, Clone)]
struct Places {
    /// The device nodes.
    dev: PathBuf,
    /// What the kernel knows of them.
    sys: PathBuf,
    /// The names of groups.
    groups: PathBuf,
}

impl SystemBus {
    /// Those the system tells of in the usual places.
    pub fn new() -> Self {
        Self::below(Path::new("/"))
    }

    /// Those told of in the usual places below another root.
    pub fn below(root: &Path) -> Self {
        Self {
            places: Places { dev: root.join("dev"), sys: root.join("sys"), groups: root.join("etc/group") },
        }
    }
}

impl Default for SystemBus {
    fn default() -> Self {
        Self::new()
    }
}

impl SerialBus for SystemBus {
    fn scan(&self) -> BoxFuture<'_, Result<Vec<Device>, ScanError>> {
        let places = self.places.clone();
        Box::pin(async move {
            let scanned = aside(move || scan::devices(&places)).await;
            scanned.unwrap_or_else(|cause| Err(ScanError { cause }))
        })
    }

    fn locate<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Located, OpenError>> {
        let (places, path) = (self.places.clone(), path.to_owned());
        Box::pin(async move {
            let located = aside(move || open::locate(&places, &path)).await;
            located.unwrap_or_else(|cause| Err(OpenError::Failed { cause }))
        })
    }

    fn open<'a>(&'a self, device: &'a Located, mode: &'a LineMode) -> BoxFuture<'a, Result<Line, OpenError>> {
        let (places, device, mode) = (self.places.clone(), device.clone(), mode.clone());
        Box::pin(async move {
            let opened = aside(move || open::open(&places, &device, &mode).map(|held| (held, device))).await;
            let (held, device) = opened.unwrap_or_else(|cause| Err(OpenError::Failed { cause }))?;
            Ok(line::line(held, device))
        })
    }
}

/// Runs what the system may be slow about where it holds up nobody.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}
