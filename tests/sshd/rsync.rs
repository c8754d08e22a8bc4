//! An rsync for the far side, and as a client: one that was unpacked for the tests, or that of the machine.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::skip_aloud;

/// An rsync on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Rsync {
    /// The program, if it is none that the shell finds by itself.
    pub(crate) program: Option<PathBuf>,
}

impl Rsync {
    /// The one that a variable names, or else the machine's, if it runs.
    pub(crate) fn named_by(variable: &str) -> Option<Self> {
        let rsync = Self { program: std::env::var_os(variable).map(PathBuf::from) };
        let said = rsync.client().arg("--version").output();
        said.is_ok_and(|said| said.status.success()).then_some(rsync)
    }

    /// The newest where every user may run it, or none after saying so; a failure in CI.
    pub(crate) fn copied_or_skip(folder: &Path) -> Option<Self> {
        let newest = Self::named_by("SSH_MCP_RSYNC");
        if newest.is_none() {
            skip_aloud("this machine has no rsync");
        }
        newest.map(|newest| newest.copied_to(folder))
    }

    /// The same program in a folder: where it was unpacked only root may look.
    pub(crate) fn copied_to(&self, folder: &Path) -> Self {
        let Some(prefix) = self.prefix() else { return self.clone() };
        let copy = folder.join("for-everybody");
        if !copy.exists() {
            let copied = Command::new("cp").arg("-r").arg(prefix).arg(&copy).status().unwrap();
            assert!(copied.success());
        }
        Self { program: Some(copy.join("usr/bin/rsync")) }
    }

    /// Where the program lies, and what it is linked to, for a shell that is to find them.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        self.program.as_deref().map(environment_of).unwrap_or_default()
    }

    /// The line of `sshd_config` that lets commands find it. The first such line counts, so it has what the fixture's has.
    pub(crate) fn for_sshd(&self) -> Vec<String> {
        let environment = self.environment().into_iter();
        let environment = environment.map(|(name, value)| format!(" {name}={}", value.display()));
        vec![format!("SetEnv SHLVL=1{}", environment.collect::<String>())]
    }

    /// The program as a client.
    pub(crate) fn client(&self) -> Command {
        let mut command = Command::new(self.program.as_deref().unwrap_or(Path::new("rsync")));
        command.envs(self.environment());
        command
    }

    /// Where it was unpacked.
    fn prefix(&self) -> Option<&Path> {
        self.program.as_ref()?.ancestors().nth(3)
    }
}

/// What makes a program findable that was unpacked and not installed, and what it is linked to.
pub(super) fn environment_of(program: &Path) -> Vec<(&'static str, OsString)> {
    let Some(prefix) = program.ancestors().nth(3) else { return Vec::new() };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = [prefix.join("usr/bin")].into_iter().chain(std::env::split_paths(&path));
    let libraries = ["usr/lib", "lib"].map(|part| fs::read_dir(prefix.join(part)));
    let libraries = libraries.into_iter().flatten().flatten().map(|folder| folder.unwrap().path());
    vec![
        ("PATH", std::env::join_paths(path).unwrap()),
        ("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap()),
    ]
}
