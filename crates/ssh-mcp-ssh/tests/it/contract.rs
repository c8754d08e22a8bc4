//! The adapter keeps the contract of the SSH port, on russh's own server in this process and on a real OpenSSH.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use ssh_mcp_core::port::resolve::Defaults;
use ssh_mcp_core::port::ssh::{ConnectRequest, Connector};
use ssh_mcp_core::target::{Address, Compression, Credentials, Secret, Target};
use ssh_mcp_ssh::RusshConnector;
use ssh_mcp_testkit::contract::ssh::Rig;
use ssh_mcp_testkit::host::defaults;
use ssh_mcp_testkit::sshd::{Config, EmbeddedSshd};
use tempfile::TempDir;

use crate::sshd;

mod on_the_embedded_server {
    use super::*;

    ssh_mcp_testkit::ssh_contract!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        Some(EmbeddedRig::start().await)
    );
}

mod on_openssh_as_an_ordinary_user {
    use super::*;

    ssh_mcp_testkit::ssh_contract!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        OpenSshRig::start_or_skip()
    );
}

/// russh's server with ten sessions a connection, as a stock sshd has.
struct EmbeddedRig {
    connector: RusshConnector,
    request: ConnectRequest,
    refusing: ConnectRequest,
    server: Mutex<Option<EmbeddedSshd>>,
    _refusing_server: EmbeddedSshd,
    _folder: TempDir,
}

impl EmbeddedRig {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = EmbeddedSshd::start(Config::default()).await.unwrap();
        let refusing = EmbeddedSshd::start(Config { max_sessions: 0, ..Config::default() }).await.unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, server.client_key_pem().unwrap()).unwrap();
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let known_hosts = folder.path().join("known_hosts");
        let by_key = Credentials::by_key(key);
        let password = Secret::new(refusing.password().to_owned());
        let by_password = Credentials { password: Some(password), ..Credentials::default() };
        Self {
            connector: RusshConnector::new().with_global_known_hosts(Vec::new()),
            request: request(server.addr().port(), server.user(), by_key, known_hosts.clone()),
            refusing: request(refusing.addr().port(), refusing.user(), by_password, known_hosts),
            server: Mutex::new(Some(server)),
            _refusing_server: refusing,
            _folder: folder,
        }
    }
}

impl Rig for EmbeddedRig {
    fn connector(&self) -> &dyn Connector {
        &self.connector
    }

    fn request(&self) -> ConnectRequest {
        self.request.clone()
    }

    fn refusing_request(&self) -> Option<ConnectRequest> {
        Some(self.refusing.clone())
    }

    fn break_connections(&self) {
        drop(self.server.lock().unwrap().take());
    }
}

/// A stock sshd (`MaxSessions 10`, `MaxStartups 10:30:100`), as a user whom signals reach on every version.
struct OpenSshRig {
    connector: RusshConnector,
    server: sshd::OpenSshd,
    refusing: Mutex<Option<sshd::OpenSshd>>,
    folder: TempDir,
}

impl OpenSshRig {
    fn start_or_skip() -> Option<Self> {
        Some(Self {
            connector: RusshConnector::new().with_global_known_hosts(Vec::new()),
            server: sshd::OpenSshd::start_or_skip(sshd::Options::default())?,
            refusing: Mutex::new(None),
            folder: tempfile::tempdir().unwrap(),
        })
    }

    fn request_to(&self, server: &sshd::OpenSshd) -> ConnectRequest {
        let key = server.client_key(sshd::ClientKey::Ed25519);
        let by_key = Credentials::by_key(key);
        request(server.port(), sshd::User::Tester.name(), by_key, self.folder.path().join("known_hosts"))
    }
}

impl Rig for OpenSshRig {
    fn connector(&self) -> &dyn Connector {
        &self.connector
    }

    fn request(&self) -> ConnectRequest {
        self.request_to(&self.server)
    }

    fn refusing_request(&self) -> Option<ConnectRequest> {
        let options = sshd::Options { max_sessions: Some(0), ..sshd::Options::default() };
        let server = sshd::OpenSshd::start_or_skip(options)?;
        let request = self.request_to(&server);
        *self.refusing.lock().unwrap() = Some(server);
        Some(request)
    }

    fn break_connections(&self) {
        self.server.kill_connections();
    }
}

fn request(port: u16, user: &str, credentials: Credentials, known_hosts: PathBuf) -> ConnectRequest {
    let defaults = Defaults { known_hosts, compression: Compression::Auto, ..defaults() };
    let hop = defaults.hop(
        Target { address: Address { host: "127.0.0.1".to_owned(), port }, username: user.to_owned() },
        credentials,
    );
    ConnectRequest { via: Vec::new(), hop, timeout: Duration::from_secs(30), accepted: Vec::new() }
}
