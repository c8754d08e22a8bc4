//! What a shell's entry knows of its transcript: where it is, how far it is written, who can watch it.
//!
//! Up to two tasks of the engine work on it, one that writes the file and one that minds the window; each says when its
//! part is over.

use std::{path::PathBuf, sync::Arc};

use crate::{
    quote,
    sync::{AtomicBool, AtomicU32, AtomicU64, OnceCell, Ordering},
    watch::{Watch, Watchers},
};

/// How a person watches a shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observer {
    /// By following the transcript.
    Transcript,
    /// In a window of tmux, which follows it.
    Tmux,
}

/// A window that is or was open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watchable {
    /// Its name.
    pub name: String,
    /// The command that shows it.
    pub command: String,
}

/// A transcript from its making to its end.
#[derive(Debug)]
pub struct Recording {
    /// Where it is.
    pub path: PathBuf,
    size: AtomicU64,
    fault: OnceCell<String>,
    fault_is_told: AtomicBool,
    wanted: Observer,
    window: OnceCell<Result<Watchable, String>>,
    /// Tasks whose part is not over.
    parts: AtomicU32,
    watchers: Arc<Watchers>,
}

impl Observer {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transcript => "transcript",
            Self::Tmux => "tmux",
        }
    }
}

impl Recording {
    /// An empty transcript, to be watched in this way.
    pub fn new(path: PathBuf, wanted: Observer) -> Self {
        let parts = match wanted {
            Observer::Transcript => 1,
            Observer::Tmux => 2,
        };
        Self {
            path,
            size: AtomicU64::new(0),
            fault: OnceCell::new(),
            fault_is_told: AtomicBool::new(false),
            wanted,
            window: OnceCell::new(),
            parts: AtomicU32::new(parts),
            watchers: Watchers::new(),
        }
    }

    /// How a person was to watch it.
    pub fn wanted(&self) -> Observer {
        self.wanted
    }

    /// Bytes in the file.
    pub fn size(&self) -> u64 {
        // Relaxed: shown only; whoever waits for the end has the order from `parts`.
        self.size.load(Ordering::Relaxed)
    }

    /// Notes how many bytes are in the file.
    pub fn grown_to(&self, size: u64) {
        self.size.store(size, Ordering::Relaxed);
    }

    /// Notes that it could not be written on, and why. Nothing follows.
    pub fn break_off(&self, fault: String) {
        // The writing task is the only one that says so, and says it once.
        _ = self.fault.set(fault);
    }

    /// Why it is not whole, where it is not.
    pub fn fault(&self) -> Option<&str> {
        self.fault.get().map(String::as_str)
    }

    /// The same, for one caller.
    pub fn take_fault(&self) -> Option<&str> {
        self.fault().filter(|_| !self.fault_is_told.swap(true, Ordering::AcqRel))
    }

    /// Notes how the opening of the window came out.
    pub fn settle_window(&self, window: Result<Watchable, String>) {
        // One task opens it, once.
        _ = self.window.set(window);
        self.watchers.wake_all();
    }

    /// How the opening of the window came out, if one was wanted and that is known.
    pub fn window(&self) -> Option<&Result<Watchable, String>> {
        self.window.get()
    }

    /// Whether it is known how it can be watched, or too late to learn.
    pub fn is_watchable(&self) -> bool {
        match self.wanted {
            Observer::Transcript => true,
            Observer::Tmux => self.window.get().is_some() || self.is_over(),
        }
    }

    /// How a person watches it, and by which command.
    pub fn observer(&self) -> (Observer, String) {
        match self.window.get() {
            Some(Ok(window)) => (Observer::Tmux, window.command.clone()),
            Some(Err(_)) | None => {
                let path = self.path.display().to_string();
                (Observer::Transcript, format!("tail -F -n +1 {}", quote::readable(&path)))
            }
        }
    }

    /// A task has done its part.
    pub fn part_over(&self) {
        // Pairs with `is_over`: who sees the last part gone sees all it has written.
        self.parts.fetch_sub(1, Ordering::AcqRel);
        self.watchers.wake_all();
    }

    /// Whether all is written that will be, and the window gone.
    pub fn is_over(&self) -> bool {
        self.parts.load(Ordering::Acquire) == 0
    }

    /// A waiter that is woken when it becomes watchable and when a part is over.
    pub fn watch(&self) -> Watch {
        self.watchers.watch()
    }
}

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests {
    use super::*;

    #[test]
    fn a_person_gets_a_command_that_can_be_pasted() {
        let command = |path: &str| Recording::new(path.into(), Observer::Transcript).observer().1;
        assert_eq!(
            command("/var/lib/ssh-mcp/1/transcript.log"),
            "tail -F -n +1 /var/lib/ssh-mcp/1/transcript.log"
        );
        assert_eq!(command("/home/it's me/$x"), r"tail -F -n +1 '/home/it'\''s me/$x'");
    }

    #[test]
    fn a_window_that_did_not_open_leaves_the_transcript_to_watch() {
        let recording = Recording::new("/t".into(), Observer::Tmux);
        assert!(!recording.is_watchable());
        recording.settle_window(Err("no tmux".into()));
        assert!(recording.is_watchable());
        assert_eq!(recording.observer(), (Observer::Transcript, "tail -F -n +1 /t".into()));
    }

    #[test]
    fn a_fault_is_told_once_and_stays() {
        let recording = Recording::new("/t".into(), Observer::Transcript);
        assert_eq!((recording.take_fault(), recording.fault()), (None, None));
        recording.break_off("no space".into());
        assert_eq!([recording.take_fault(), recording.take_fault()], [Some("no space"), None]);
        assert_eq!(recording.fault(), Some("no space"));
    }

    #[test]
    fn it_is_over_when_every_task_is() {
        for (wanted, parts) in [(Observer::Transcript, 1), (Observer::Tmux, 2)] {
            let recording = Recording::new("/t".into(), wanted);
            for _ in 0..parts {
                assert!(!recording.is_over());
                recording.part_over();
            }
            assert!(recording.is_over());
        }
    }
}
