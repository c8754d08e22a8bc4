//! An rsync for the far side, and as a client: the one that was unpacked for the tests, or that of the machine.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::skip_aloud;

/// An rsync that every user may run.
pub(crate) struct Rsync {
    /// Where the program and its libraries are, if it is not that of the machine.
    places: Option<(PathBuf, OsString)>,
}

impl Rsync {
    /// None after saying why there is none. Where it was unpacked only root may look, so it is copied to `folder`.
    pub(crate) fn copied_or_skip(folder: &Path) -> Option<Self> {
        let Some(program) = std::env::var_os("SSH_MCP_RSYNC").map(PathBuf::from) else {
            let found = Command::new("rsync").arg("--version").output();
            if found.is_ok_and(|found| found.status.success()) {
                return Some(Self { places: None });
            }
            assert!(std::env::var_os("CI").is_none(), "in CI there must be an rsync");
            skip_aloud("this machine has no rsync");
            return None;
        };
        let copy = folder.join("rsync");
        let prefix = program.ancestors().nth(3).unwrap();
        assert!(Command::new("cp").arg("-r").arg(prefix).arg(&copy).status().unwrap().success());
        let libraries = ["usr/lib", "lib"].map(|part| fs::read_dir(copy.join(part)));
        let libraries = libraries.into_iter().flatten().flatten().map(|folder| folder.unwrap().path());
        Some(Self { places: Some((copy.join("usr/bin"), std::env::join_paths(libraries).unwrap())) })
    }

    /// The line of `sshd_config` that lets commands find it. The first such line counts, so it has what the fixture's has.
    pub(crate) fn for_sshd(&self) -> Vec<String> {
        let line = |(path, libraries): &(PathBuf, OsString)| {
            let libraries = libraries.to_str().unwrap();
            format!("SetEnv SHLVL=1 PATH={}:/usr/bin:/bin LD_LIBRARY_PATH={libraries}", path.display())
        };
        self.places.iter().map(line).collect()
    }

    /// The program as a client.
    pub(crate) fn client(&self) -> Command {
        let Some((path, libraries)) = &self.places else { return Command::new("rsync") };
        let mut command = Command::new(path.join("rsync"));
        command.env("LD_LIBRARY_PATH", libraries);
        command
    }
}
