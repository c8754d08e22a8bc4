//! A certificate authority, and user keys that no server admits by themselves.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::keys::keygen;
use super::layout;

/// An authority with keys of its own, in a folder of its own.
pub(crate) struct Authority {
    dir: TempDir,
}

impl Authority {
    /// A new one.
    pub(crate) fn new() -> Self {
        let authority = Self { dir: layout::temporary_directory() };
        authority.key("authority", "ed25519");
        authority
    }

    /// Where its keys and certificates lie.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// What `TrustedUserCAKeys` names.
    pub(crate) fn public_key(&self) -> PathBuf {
        self.dir.path().join("authority.pub")
    }

    /// A new user key of this kind.
    pub(crate) fn key(&self, name: &str, kind: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        keygen(&["-t", kind, "-N", ""], &path);
        path
    }

    /// Writes `KEY-cert.pub`; principals and validity are those of `ssh-keygen -n` and `-V`.
    pub(crate) fn certify(&self, key: &Path, principals: &str, validity: &str) {
        let output = Command::new("ssh-keygen")
            .args(["-q", "-I", "ssh-mcp-test", "-n", principals, "-V", validity, "-s"])
            .arg(self.dir.path().join("authority"))
            .arg(key.with_extension("pub"))
            .stdin(Stdio::null())
            .output()
            .expect("ssh-keygen starts");
        assert!(output.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&output.stderr));
    }
}
