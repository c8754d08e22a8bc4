//! An `ssh-agent` of the test's own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A running `ssh-agent`; it ends when this is dropped or the test process dies.
pub(crate) struct Agent {
    dir: TempDir,
    supervisor: Child,
}

impl Agent {
    /// An agent without keys.
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("ssh-mcp-agent-").tempdir().expect("a temporary directory");
        let mut supervisor = Command::new("sh")
            .args(["-c", SUPERVISE, "sh"])
            .arg(socket(&dir))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh starts");
        // The agent prints how to reach it once it listens.
        let mut first = String::new();
        let stdout = supervisor.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut first).expect("the agent says where it listens");
        assert!(first.starts_with("SSH_AUTH_SOCK="), "ssh-agent said {first:?}");
        Self { dir, supervisor }
    }

    /// What `SSH_AUTH_SOCK` is set to.
    pub(crate) fn socket(&self) -> PathBuf {
        socket(&self.dir)
    }

    /// Loads a key, with its pass phrase if it has one.
    pub(crate) fn add(&self, key: &Path, passphrase: Option<&str>) {
        let output = Command::new("ssh-add")
            .arg("-q")
            .arg(key)
            .env("SSH_AUTH_SOCK", self.socket())
            .envs(askpass(self.dir.path(), passphrase.unwrap_or_default()))
            .stdin(Stdio::null())
            .output()
            .expect("ssh-add starts");
        assert!(output.status.success(), "ssh-add: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        self.supervisor.wait().expect("the supervisor is our child");
    }
}

/// The environment with which OpenSSH's programs take `secret` as the answer to every question.
pub(crate) fn askpass(dir: &Path, secret: &str) -> [(&'static str, PathBuf); 3] {
    use std::os::unix::fs::PermissionsExt;
    let program = dir.join("askpass");
    std::fs::write(&program, "#!/bin/sh\nprintf '%s\\n' \"$SSH_MCP_TEST_SECRET\"\n").expect("a new file");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).expect("our own file");
    [
        ("SSH_ASKPASS", program),
        ("SSH_ASKPASS_REQUIRE", "force".into()),
        ("SSH_MCP_TEST_SECRET", secret.into()),
    ]
}

fn socket(dir: &TempDir) -> PathBuf {
    dir.path().join("agent.sock")
}

/// Ends the agent when standard input ends, which it does too when the test process is killed.
const SUPERVISE: &str = "setpriv --pdeathsig TERM ssh-agent -D -a \"$1\" </dev/null & agent=$!; \
    exec 1>/dev/null; read -r _; kill -TERM \"$agent\"; wait \"$agent\"; :";
