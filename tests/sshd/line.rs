//! A serial line that is none: two pseudo-terminals that socat joins. The product has one end, a test the other.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::processes::wait_until;
use super::rsync::environment_of;
use super::skip_aloud;

/// The pair; dropping it takes the line away.
pub(crate) struct LinePair {
    socat: Child,
    folder: tempfile::TempDir,
    far: File,
    /// Without it the near end would be gone when the product closes it, for good.
    _near: File,
}

/// `O_NOCTTY`, as Linux has it on what this runs on.
const NO_CONTROLLING_TERMINAL: i32 = 0o400;

impl LinePair {
    /// None after saying why this machine cannot have one; a failure in CI.
    pub(crate) fn start_or_skip() -> Option<Self> {
        let unpacked = std::env::var_os("SSH_MCP_SOCAT").map(PathBuf::from);
        let socat = || {
            let mut command = Command::new(unpacked.as_deref().unwrap_or(Path::new("socat")));
            command.envs(unpacked.as_deref().map(environment_of).unwrap_or_default()).stdin(Stdio::null());
            command
        };
        if !socat().arg("-V").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
            skip_aloud("this machine has no socat");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary directory");
        let end = |name: &str| format!("pty,rawer,link={}", folder.path().join(name).display());
        let mut socat =
            socat().arg("-b65536").arg(end("near")).arg(end("far")).spawn().expect("socat starts");
        let has_both = || ["near", "far"].iter().all(|name| folder.path().join(name).exists());
        let came = wait_until(Duration::from_secs(20), has_both);
        if !came {
            socat.kill().ok();
            socat.wait().ok();
        }
        assert!(came, "socat makes two lines");
        let open = |name: &str| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(NO_CONTROLLING_TERMINAL);
            options.open(folder.path().join(name)).expect("both ends can be opened")
        };
        let (near, far) = (open("near"), open("far"));
        Some(Self { socat, folder, far, _near: near })
    }

    /// The end for the product, by a name that is a link.
    pub(crate) fn near(&self) -> String {
        self.folder.path().join("near").to_str().expect("a path of text").to_owned()
    }

    /// The other end.
    pub(crate) fn far(&self) -> File {
        self.far.try_clone().expect("a descriptor more")
    }

    /// Sends bytes; waits where the line takes no more.
    pub(crate) fn say(&self, bytes: &[u8]) {
        (&self.far).write_all(bytes).expect("the line takes them");
    }

    /// Sends bytes at a rate, on a thread of its own.
    pub(crate) fn say_at(&self, bytes: Vec<u8>, rate: usize) -> std::thread::JoinHandle<Duration> {
        let mut far = self.far();
        std::thread::spawn(move || {
            let begun = Instant::now();
            // A channel nobody sends on: its time-out is the pause.
            let (_keep, never) = mpsc::channel::<()>();
            for (nth, piece) in bytes.chunks(rate / 64).enumerate() {
                let due = Duration::from_secs(1) * u32::try_from(nth).expect("not for so long") / 64;
                if let Some(early) = due.checked_sub(begun.elapsed()) {
                    assert_eq!(never.recv_timeout(early), Err(mpsc::RecvTimeoutError::Timeout));
                }
                far.write_all(piece).expect("the line takes them");
            }
            begun.elapsed()
        })
    }

    /// What comes out of the far end, piece by piece, until the line is gone.
    pub(crate) fn heard(&self) -> mpsc::Receiver<Vec<u8>> {
        let mut far = self.far();
        let (heard, hears) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(read @ 1..) = far.read(&mut buffer) {
                if heard.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        hears
    }

    /// Takes the line away, as a plug that is pulled.
    pub(crate) fn unplug(&mut self) {
        self.socat.kill().ok();
        self.socat.wait().ok();
    }
}

impl Drop for LinePair {
    fn drop(&mut self) {
        self.unplug();
    }
}
