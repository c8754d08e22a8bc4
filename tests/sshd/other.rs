//! SSH servers of other people, which behave otherwise than OpenSSH's does: one run like [`OpenSshd`](super::OpenSshd),
//! in namespaces of its own and ended on drop.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::{BIND_ATTEMPTS, ClientKey, Log, Options, Running, User, free_port, keys, layout, skip_aloud};

/// Whose server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Dropbear, of small systems: both users, with a login shell.
    Dropbear,
    /// AsyncSSH, in Python, with the script beside this file: any user name, and every command runs as root.
    AsyncSsh,
}

impl Kind {
    /// Both of them.
    pub(crate) const BOTH: [Self; 2] = [Self::Dropbear, Self::AsyncSsh];

    /// The variable that names the program: dropbear itself, and a Python that has AsyncSSH. `scripts/test` sets both.
    fn variable(self) -> &'static str {
        match self {
            Self::Dropbear => "SSH_MCP_DROPBEAR",
            Self::AsyncSsh => "SSH_MCP_ASYNCSSH",
        }
    }
}

/// A running server.
pub(crate) struct OtherSshd {
    dir: TempDir,
    port: u16,
    password: String,
    log: Arc<Log>,
    running: Option<Running>,
}

impl OtherSshd {
    /// A server, or `None` after saying why this machine cannot run one (a failure in CI).
    pub(crate) fn start_or_skip(kind: Kind) -> Option<Self> {
        let program = layout::find_sshd().and_then(|_| {
            let named = std::env::var_os(kind.variable()).map(PathBuf::from);
            named.ok_or_else(|| format!("{} is not set (`scripts/test` fetches {kind:?})", kind.variable()))
        });
        match program {
            Ok(program) => Some(Self::start(kind, &program)),
            Err(reason) => {
                skip_aloud(&reason);
                None
            }
        }
    }

    fn start(kind: Kind, program: &Path) -> Self {
        let dir = layout::temporary_directory();
        let password = layout::random_password();
        layout::write_users(dir.path(), &password, &Options::default());
        let log = Arc::<Log>::default();
        for _ in 0..BIND_ATTEMPTS {
            let port = free_port();
            let (command, ready) = match kind {
                Kind::Dropbear => (dropbear(dir.path(), program, port), "Not backgrounding"),
                Kind::AsyncSsh => (asyncssh(dir.path(), program, port, &password), "listening"),
            };
            let (running, is_listening) = Running::start(dir.path(), &log, program, &command, ready);
            if is_listening {
                return Self { dir, port, password, log, running: Some(running) };
            }
            running.stop();
        }
        panic!("{kind:?} did not start:\n{}", log.snapshot().join("\n"));
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The password of both users.
    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// A client key that logs in, unless it is the stranger's.
    pub(crate) fn client_key(&self, key: ClientKey) -> PathBuf {
        keys::client_key(self.dir.path(), key)
    }
}

impl Drop for OtherSshd {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
        if std::thread::panicking() {
            eprintln!("--- the other server said:\n{}\n---", self.log.snapshot().join("\n"));
        }
    }
}

fn dropbear(dir: &Path, program: &Path, port: u16) -> Vec<OsString> {
    let key = dir.join("host_dropbear");
    if !key.exists() {
        let keygen = program.ancestors().nth(2).expect("…/sbin/dropbear").join("bin/dropbearkey");
        let mut made = Command::new(keygen);
        made.args(["-t", "ed25519", "-f"]).arg(&key).envs(layout::library_path(program));
        assert!(made.output().expect("dropbearkey starts").status.success());
    }
    let address = format!("{}:{port}", Ipv4Addr::LOCALHOST);
    let pid_file = dir.join("dropbear.pid");
    let mut command =
        vec![program.into(), "-F".into(), "-E".into(), "-m".into(), "-p".into(), address.into()];
    command.extend(["-r".into(), key.into(), "-P".into(), OsString::from(pid_file)]);
    command
}

fn asyncssh(dir: &Path, python: &Path, port: u16, password: &str) -> Vec<OsString> {
    let script = dir.join("asyncssh_server.py");
    fs::write(&script, include_str!("asyncssh_server.py")).expect("the temporary directory is writable");
    let keys = layout::home(dir, User::Tester).join(".ssh/authorized_keys");
    [python.into(), script.into(), port.to_string().into(), keys.into(), password.into()].into()
}
