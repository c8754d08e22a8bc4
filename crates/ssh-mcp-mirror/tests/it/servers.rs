//! The rsyncs that `scripts/test` unpacks, and how a new one plays an old one.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rsync_wire::negotiate::Protocol;

use crate::snapshot::Times;
use crate::sshd::Rsync;

/// An rsync on this machine, by its age.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// N is the newest there is, D Debian 12's, O Debian 11's.
    pub(crate) name: &'static str,
    pub(crate) rsync: Rsync,
}

impl Server {
    /// The newest, or none after saying so; a failure in CI.
    pub(crate) fn newest_or_skip() -> Option<Self> {
        Self::find("N", "SSH_MCP_RSYNC").or_else(|| {
            skip_aloud("this machine has no rsync");
            assert!(std::env::var_os("CI").is_none(), "in CI there must be an rsync");
            None
        })
    }

    /// The newest and Debian 12's, as far as they are there.
    pub(crate) fn recent() -> Vec<Self> {
        Self::newest_or_skip().into_iter().chain(Self::older_or_skip("D", "SSH_MCP_RSYNC_D")).collect()
    }

    /// All three, as far as they are there.
    pub(crate) fn all() -> Vec<Self> {
        Self::recent().into_iter().chain(Self::older_or_skip("O", "SSH_MCP_RSYNC_O")).collect()
    }

    fn older_or_skip(name: &'static str, variable: &str) -> Option<Self> {
        std::env::var_os(variable).and_then(|_| Self::find(name, variable)).or_else(|| {
            skip_aloud(&format!("{variable} names no rsync"));
            None
        })
    }

    fn find(name: &'static str, variable: &str) -> Option<Self> {
        Some(Self { name, rsync: Rsync::named_by(variable)? })
    }

    /// The same program where every user may run it.
    pub(crate) fn copied_to(&self, folder: &Path) -> Self {
        Self { name: self.name, rsync: self.rsync.copied_to(folder) }
    }

    /// A copy of the script that restricts it to a folder, if it was unpacked with it.
    pub(crate) fn restriction_in(&self, folder: &Path) -> Option<PathBuf> {
        let program = self.rsync.program.as_ref()?;
        let Ok(script) = fs::read_to_string(program.with_file_name("rrsync")) else {
            skip_aloud("there is no rrsync");
            return None;
        };
        let copy = folder.join("rrsync");
        // It knows the program by its place when it is installed.
        fs::write(&copy, script.replace("/usr/bin/rsync", program.to_str().unwrap())).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        Some(copy)
    }
}

/// A version and the words of a client of that age: what makes a new server an old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Age {
    /// The version that is offered.
    pub(crate) protocol: Protocol,
    /// What is said of the client's abilities; nothing is said if there is none.
    pub(crate) capabilities: Option<&'static str>,
}

impl Age {
    /// What the product says.
    pub(crate) const TODAY: Self = Self { protocol: Protocol::V32, capabilities: Some(TODAYS_CAPABILITIES) };

    /// Each version with each word.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [Protocol::V32, Protocol::V31, Protocol::V30].into_iter().flat_map(|protocol| {
            // As today's, as 3.1.3's, as 3.0.9's, and none.
            let words = [Some(TODAYS_CAPABILITIES), Some("e.LsfxC"), Some("e.Lf"), None];
            words.map(move |capabilities| Self { protocol, capabilities })
        })
    }

    /// How exactly this age keeps times.
    pub(crate) fn times(self) -> Times {
        if self.protocol == Protocol::V30 { Times::Seconds } else { Times::Exact }
    }

    /// The command line with these words instead of the product's.
    pub(crate) fn applied_to(self, command: &str) -> String {
        command.replacen(TODAYS_CAPABILITIES, self.capabilities.unwrap_or_default(), 1)
    }
}

/// Says on standard error, and in the file `SSH_MCP_SKIPS` names, what was not tried.
pub(crate) fn skip_aloud(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(path) = std::env::var_os("SSH_MCP_SKIPS") {
        let mut skips = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        // One write, because tests skip at the same time.
        skips.write_all(format!("ssh_mcp_mirror::{test}: {reason}\n").as_bytes()).unwrap();
    }
}

const TODAYS_CAPABILITIES: &str = "e.LsfxCIvu";
