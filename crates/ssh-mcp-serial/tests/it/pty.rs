//! A pseudo-terminal: the device is its terminal side, the test holds the other.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, Termios, tcgetattr, tcsetattr},
};
use ssh_mcp_core::sync::Mutex;

/// The far end.
pub(crate) struct Pty {
    far: Mutex<Option<Arc<File>>>,
    path: String,
    folder: tempfile::TempDir,
}

impl Pty {
    pub(crate) fn new() -> Self {
        let far = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&far).unwrap();
        unlockpt(&far).unwrap();
        let path = ptsname(&far, Vec::new()).unwrap().into_string().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(&path, folder.path().join("line")).unwrap();
        Self { far: Mutex::new(Some(Arc::new(far.into()))), path, folder }
    }

    /// Its device.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Another name of it.
    pub(crate) fn link(&self) -> PathBuf {
        self.folder.path().join("line")
    }

    /// The settings of the device, as its far end sees them.
    pub(crate) fn settings(&self) -> Termios {
        tcgetattr(&*self.far()).unwrap()
    }

    pub(crate) fn set(&self, settings: &Termios) {
        tcsetattr(&*self.far(), OptionalActions::Now, settings).unwrap();
    }

    pub(crate) async fn say(&self, bytes: Bytes) {
        let far = self.far();
        tokio::task::spawn_blocking(move || (&*far).write_all(&bytes).unwrap()).await.unwrap();
    }

    pub(crate) async fn hear(&self, count: usize) -> Vec<u8> {
        let far = self.far();
        let heard = tokio::task::spawn_blocking(move || {
            let mut heard = vec![0; count];
            (&*far).read_exact(&mut heard).unwrap();
            heard
        });
        heard.await.unwrap()
    }

    /// The far end goes away.
    pub(crate) fn unplug(&self) {
        drop(self.far.lock().take());
    }

    fn far(&self) -> Arc<File> {
        self.far.lock().clone().expect("plugged in")
    }
}

/// Whether a path leads to somewhere.
pub(crate) fn is_there(path: &str) -> bool {
    Path::new(path).exists()
}

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
