//! What a test looks up about the machine's processes, and the one way tests wait for them.
//!
//! Read from `/proc`, so it sees every process below a test server too, by its id outside the namespace.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Live processes with `marker` in their command line or environment, without this one and its ancestors.
///
/// A zombie has neither any more, so it is not counted: it is dead, only unreported.
pub(crate) fn processes_matching(marker: &str) -> Vec<u32> {
    let mut own = vec![std::process::id()];
    while let Some(parent) = own.last().and_then(|pid| parent_of(*pid)).filter(|pid| *pid > 0) {
        own.push(parent);
    }
    all().filter(|pid| !own.contains(pid) && mentions(*pid, marker.as_bytes())).collect()
}

/// Asks `is_done` every few milliseconds until it says yes; false when `limit` passes first.
///
/// For what sends no signal (the end of somebody else's process); everything else has a better way to wait.
pub(crate) fn wait_until(limit: Duration, mut is_done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    // A channel nobody sends on: its time-out is the pause.
    let (_keep, never) = mpsc::channel::<()>();
    loop {
        if is_done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        assert_eq!(never.recv_timeout(PAUSE), Err(mpsc::RecvTimeoutError::Timeout));
    }
}

/// The direct children of a process.
pub(super) fn children_of(pid: u32) -> Vec<u32> {
    all().filter(|child| parent_of(*child) == Some(pid)).collect()
}

/// The command line with its arguments separated by spaces; empty for a zombie or a process that is gone.
pub(crate) fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// The id, out here, of the process that is `inner` in the PID namespace of `member`.
pub(super) fn pid_outside(member: u32, inner: u32) -> Option<u32> {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let home = namespace(member)?;
    all().find(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let innermost = ids.and_then(|ids| ids.split_whitespace().last()?.parse().ok());
        innermost == Some(inner) && namespace(*pid).as_ref() == Some(&home)
    })
}

/// Kills these processes, which the caller has started or found below a server of its own.
pub(crate) fn kill(pids: &[u32]) {
    if pids.is_empty() {
        return;
    }
    // One of them may end by itself before its turn: that is no failure.
    let status = Command::new("sh")
        .args(["-c", "for pid; do kill -KILL \"$pid\"; done; :", "sh"])
        .args(pids.iter().map(u32::to_string))
        .stderr(Stdio::null())
        .status();
    assert!(status.expect("sh starts").success());
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name is in parentheses and may contain anything, so count from its end: state, parent.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn mentions(pid: u32, marker: &[u8]) -> bool {
    let folder = format!("/proc/{pid}");
    ["cmdline", "environ"].iter().any(|file| {
        let bytes = fs::read(Path::new(&folder).join(file)).unwrap_or_default();
        bytes.windows(marker.len()).any(|window| window == marker)
    })
}

const PAUSE: Duration = Duration::from_millis(5);
