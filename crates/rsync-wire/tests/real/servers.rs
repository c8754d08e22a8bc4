//! The rsyncs of this machine, and how a new one plays an old one.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rsync_wire::negotiate::Protocol;

/// An rsync.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// N is the newest there is, D Debian 12's, O Debian 11's.
    pub(crate) name: &'static str,
    /// The newest version it speaks.
    pub(crate) newest: Protocol,
    /// The program, if it is none that the shell finds by itself.
    program: Option<PathBuf>,
}

impl Server {
    /// The one `SSH_MCP_RSYNC` names, else the machine's; none after saying so, a failure in CI.
    pub(crate) fn newest_or_skip() -> Option<Self> {
        let program = std::env::var_os("SSH_MCP_RSYNC").map(PathBuf::from);
        let newest = Self { name: "N", newest: Protocol::V32, program };
        let said = newest.client().arg("--version").output();
        if said.is_ok_and(|said| said.status.success()) {
            return Some(newest);
        }
        assert!(std::env::var_os("CI").is_none(), "in CI there must be an rsync");
        skip_aloud("this machine has no rsync");
        None
    }

    /// The newest and Debian 12's, as far as they are there.
    pub(crate) fn recent() -> Vec<Self> {
        let debian_12 = Self::older_or_skip("D", Protocol::V32, "SSH_MCP_RSYNC_D");
        Self::newest_or_skip().into_iter().chain(debian_12).collect()
    }

    /// All three, as far as they are there.
    pub(crate) fn all() -> Vec<Self> {
        let debian_11 = Self::older_or_skip("O", Protocol::V31, "SSH_MCP_RSYNC_O");
        Self::recent().into_iter().chain(debian_11).collect()
    }

    fn older_or_skip(name: &'static str, newest: Protocol, variable: &str) -> Option<Self> {
        let program = std::env::var_os(variable).map(PathBuf::from);
        if program.is_none() {
            skip_aloud(&format!("{variable} names no rsync"));
        }
        Some(Self { name, newest, program: Some(program?) })
    }

    /// A command that finds it as `rsync`.
    pub(crate) fn shell(&self, line: OsString) -> Command {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(line);
        self.put_environment(&mut shell);
        shell
    }

    /// The program as a client of its own.
    pub(crate) fn client(&self) -> Command {
        let mut client = Command::new(self.program.as_deref().unwrap_or(Path::new("rsync")));
        self.put_environment(&mut client);
        client
    }

    /// Unpacked and not installed: what it is linked to lies beside it.
    fn put_environment(&self, command: &mut Command) {
        let Some(prefix) = self.program.as_ref().and_then(|program| program.ancestors().nth(3)) else {
            return;
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = [prefix.join("usr/bin")].into_iter().chain(std::env::split_paths(&path));
        let libraries = ["usr/lib", "lib"].map(|part| fs::read_dir(prefix.join(part)));
        let libraries = libraries.into_iter().flatten().flatten().map(|folder| folder.unwrap().path());
        command.env("PATH", std::env::join_paths(path).unwrap());
        command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap());
    }
}

/// A version and the words of a client of that age: what makes a new server an old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Age {
    /// The version that is offered.
    pub(crate) protocol: Protocol,
    /// What is said of the client's abilities; nothing is said if there is none.
    capabilities: Option<&'static str>,
}

impl Age {
    /// What the crate says.
    pub(crate) const TODAY: Self = Self { protocol: Protocol::V32, capabilities: Some(TODAYS_CAPABILITIES) };

    /// Each version with each word: as today's, as 3.1.3's, as 3.0.9's, and none.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let words = [Some(TODAYS_CAPABILITIES), Some("e.LsfxC"), Some("e.Lf"), None];
        [Protocol::V32, Protocol::V31, Protocol::V30]
            .into_iter()
            .flat_map(move |protocol| words.map(|capabilities| Self { protocol, capabilities }))
    }

    /// Each server as it is, and the newest as one of each age.
    pub(crate) fn of(server: &Server) -> Vec<Self> {
        if server.name == "N" { Self::all().collect() } else { vec![Self::TODAY] }
    }

    /// The words of the command line with these abilities instead of the crate's.
    pub(crate) fn applied_to(self, words: &[u8]) -> Vec<u8> {
        let words = String::from_utf8(words.to_vec()).unwrap();
        words.replacen(TODAYS_CAPABILITIES, self.capabilities.unwrap_or_default(), 1).into_bytes()
    }
}

/// Says on standard error, and in the file `SSH_MCP_SKIPS` names, what was not tried.
fn skip_aloud(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(path) = std::env::var_os("SSH_MCP_SKIPS") {
        let mut skips = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        // One write, because tests skip at the same time.
        skips.write_all(format!("rsync_wire::{test}: {reason}\n").as_bytes()).unwrap();
    }
}

const TODAYS_CAPABILITIES: &str = "e.LsfxCIvu";
