//! A tmux server for one test: a terminal that a program looks at.

use std::process::Command;
use std::time::Duration;

use crate::sshd::{processes::wait_until, skip_aloud};

/// A tmux server of the test's own; it ends with this.
pub(super) struct Tmux {
    dir: tempfile::TempDir,
}

impl Tmux {
    /// None after saying that this machine has no tmux.
    pub(super) fn or_skip() -> Option<Self> {
        match Command::new("tmux").arg("-V").output() {
            Ok(_) => Some(Self { dir: tempfile::tempdir().unwrap() }),
            Err(error) => {
                skip_aloud(&format!("tmux cannot be started: {error}"));
                None
            }
        }
    }

    /// Where its socket is.
    pub(super) fn dir(&self) -> &tempfile::TempDir {
        &self.dir
    }

    /// What a command of tmux says.
    pub(super) fn ask(&self, args: &[&str]) -> String {
        let mut tmux = Command::new("tmux");
        let output = tmux.args(args).env_remove("TMUX").env("TMUX_TMPDIR", self.dir.path()).output();
        String::from_utf8_lossy(&output.unwrap().stdout).trim().to_owned()
    }

    /// Names of its sessions.
    pub(super) fn sessions(&self) -> String {
        self.ask(&["list-sessions", "-F", "#{session_name}"])
    }

    /// Whether the sessions are these, now or soon.
    pub(super) async fn has(&self, sessions: &str) -> bool {
        let (dir, sessions) = (self.dir.path().to_owned(), sessions.to_owned());
        let soon = move || {
            wait_until(Duration::from_secs(10), || {
                let mut tmux = Command::new("tmux");
                tmux.args(["list-sessions", "-F", "#{session_name}"]).env_remove("TMUX");
                let output = tmux.env("TMUX_TMPDIR", &dir).output().unwrap();
                String::from_utf8_lossy(&output.stdout).trim() == sessions
            })
        };
        tokio::task::spawn_blocking(soon).await.unwrap()
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.ask(&["kill-server"]);
    }
}
