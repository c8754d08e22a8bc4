//! An SSH server in this process, for the quickstart demo and for the SSH adapter's contract test.
//!
//! The protocol is russh's server side, everything behind it is real: commands run through a real shell with
//! real pipes or a real PTY, get real signals, and leave real exit statuses. It listens on loopback only, with
//! keys and a password made at start, and admits nobody else. Where it has a choice it does what OpenSSH does:
//! channels beyond `MaxSessions` are refused, a place is taken until the process behind it has ended, a closed
//! channel without a PTY does not end its command, and `exit-status` does not wait for background children.
//!
//! It differs where a test or a demo must leave nothing behind: every process started through a connection is
//! killed when the connection ends, daemons included (on Linux).
//!
//! [`EmbeddedSshd`] owns the accept loop, that owns the connections, each connection its channels' tasks, and
//! each task its process. Not here: forwarding, subsystems, agents, X11; all of them are refused.

mod handler;
mod process;
mod program;
#[cfg(test)]
mod tests;
mod tty;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{HashAlg, PrivateKey, PublicKey};
use russh::{MethodKind, MethodSet, cipher, server};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::handler::Connection;

/// What the server is like; the default is one user `demo`, every login method, and sshd's ten sessions.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who may log in, all with the same password and key. Commands run as the user of this process.
    pub users: Vec<String>,
    /// The login methods offered; each is sufficient.
    pub logins: Vec<Login>,
    /// Sessions that one connection may hold, as sshd's `MaxSessions`.
    pub max_sessions: usize,
    /// The program that runs commands (with `-c`) and serves as the interactive shell.
    pub shell: PathBuf,
    /// The home directory of every user; `None` makes an empty one that lives as long as the server.
    pub home: Option<PathBuf>,
    /// What signal requests do.
    pub signals: Signals,
    /// The port on loopback; 0 takes any free one.
    pub port: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            users: vec!["demo".into()],
            logins: vec![Login::PublicKey, Login::Password, Login::KeyboardInteractive],
            max_sessions: 10,
            shell: "/bin/sh".into(),
            home: None,
            signals: Signals::Delivered,
            port: 0,
        }
    }
}

/// A login method (RFC 4252, RFC 4256).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// `publickey`, with [`EmbeddedSshd::client_key_pem`].
    PublicKey,
    /// `password`.
    Password,
    /// `keyboard-interactive`: one question for the password, then, as PAM does, one round without questions.
    KeyboardInteractive,
}

/// What the server does with a signal request (RFC 4254 section 6.9), which has no reply either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signals {
    /// The process group of the command gets the signal.
    Delivered,
    /// Nothing happens, as with OpenSSH up to 9.7 for root and with every forced command.
    Dropped,
}

/// A running server. Dropping it cuts every connection and stops listening; [`stop`](Self::stop) also waits.
#[derive(Debug)]
pub struct EmbeddedSshd {
    addr: SocketAddr,
    host_key: PublicKey,
    facts: Arc<Facts>,
    /// Dropped first of all: without it every connection closes its socket.
    running: watch::Sender<()>,
    tasks: JoinSet<()>,
}

/// What every connection needs to know.
#[derive(Debug)]
struct Facts {
    config: Config,
    password: String,
    client_key: PrivateKey,
    home: PathBuf,
    /// Keeps a home of the server's own until the last connection has ended.
    _own_home: Option<TempDir>,
}

impl EmbeddedSshd {
    /// Starts listening, with a new host key, client key and password.
    ///
    /// # Errors
    /// The port cannot be bound, or the machine has no randomness or no room for a home directory.
    pub async fn start(config: Config) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, config.port)).await?;
        let addr = listener.local_addr()?;
        let (host_key, client_key) = (throw_away_key()?, throw_away_key()?);
        let (home, own_home) = match &config.home {
            Some(home) => (home.clone(), None),
            None => {
                let own = tempfile::Builder::new().prefix("ssh-mcp-home-").tempdir()?;
                (own.path().to_owned(), Some(own))
            }
        };
        let facts =
            Arc::new(Facts { password: random_hex()?, client_key, home, _own_home: own_home, config });
        let public = host_key.public_key().clone();
        let russh = Arc::new(russh_config(host_key, &facts.config));
        let (running, seen) = watch::channel(());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, russh, Arc::clone(&facts), seen));
        Ok(Self { addr, host_key: public, facts, running, tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The host key's fingerprint, `SHA256:` and base64, as `ssh-keygen -l` prints it.
    #[must_use]
    pub fn host_key_fingerprint(&self) -> String {
        self.host_key.fingerprint(HashAlg::Sha256).to_string()
    }

    /// The line of a `known_hosts` file that trusts this server (sshd(8)), with its line end.
    #[must_use]
    pub fn known_hosts_line(&self) -> String {
        use russh::keys::PublicKeyBase64;
        let (ip, port) = (self.addr.ip(), self.addr.port());
        format!("[{ip}]:{port} {} {}\n", self.host_key.algorithm(), self.host_key.public_key_base64())
    }

    /// The first user of the configuration.
    #[must_use]
    pub fn user(&self) -> &str {
        self.facts.config.users.first().map_or("", String::as_str)
    }

    /// The password of every user.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.facts.password
    }

    /// The private ed25519 key that every user admits, without a pass phrase, in OpenSSH's format.
    ///
    /// # Errors
    /// The key cannot be encoded, which no generated key comes to.
    pub fn client_key_pem(&self) -> io::Result<String> {
        let pem = self.facts.client_key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
        Ok(pem.to_string())
    }

    /// The home directory of every user.
    #[must_use]
    pub fn home(&self) -> &std::path::Path {
        &self.facts.home
    }

    /// Cuts every connection, stops listening, and returns when their processes have been killed.
    pub async fn stop(mut self) {
        drop(self.running);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Serves connections until the server is dropped, and then waits for them to have ended.
async fn accept(
    listener: TcpListener,
    config: Arc<server::Config>,
    facts: Arc<Facts>,
    mut running: watch::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => Some(accepted),
            _ = running.changed() => None,
        };
        match accepted {
            Some(Ok((socket, _))) => {
                connections.spawn(serve(socket, Arc::clone(&config), Arc::clone(&facts), running.clone()));
            }
            // A client that was gone before it was accepted.
            Some(Err(_)) => {}
            None => break,
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// One connection. russh runs its session in a task that only the end of the socket ends, so the socket has a
/// second handle here.
async fn serve(
    socket: TcpStream,
    config: Arc<server::Config>,
    facts: Arc<Facts>,
    mut running: watch::Receiver<()>,
) {
    let Ok((socket, hook)) = with_hook(socket) else { return };
    let session = async {
        if let Ok(session) = server::run_stream(config, socket, Connection::new(facts)).await {
            // How a client leaves is its own affair.
            session.await.ok();
        }
    };
    let mut session = std::pin::pin!(session);
    tokio::select! {
        () = &mut session => return,
        _ = running.changed() => {}
    }
    drop(hook);
    session.await;
}

/// Shuts the socket down when dropped, however the task that holds it ends.
struct Hook(std::net::TcpStream);

impl Drop for Hook {
    fn drop(&mut self) {
        // It may have been closed by the other side already.
        self.0.shutdown(std::net::Shutdown::Both).ok();
    }
}

fn with_hook(socket: TcpStream) -> io::Result<(TcpStream, Hook)> {
    // Without this each round trip waits for the client's delayed acknowledgement.
    socket.set_nodelay(true)?;
    let socket = socket.into_std()?;
    let hook = Hook(socket.try_clone()?);
    Ok((TcpStream::from_std(socket)?, hook))
}

fn russh_config(host_key: PrivateKey, config: &Config) -> server::Config {
    server::Config {
        methods: methods(config),
        // Nobody measures a demo's answers to guess its password.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: 6,
        keys: vec![host_key],
        inactivity_timeout: None,
        preferred: russh::Preferred {
            cipher: vec![
                cipher::AES_128_GCM,
                cipher::AES_256_GCM,
                cipher::CHACHA20_POLY1305,
                cipher::AES_256_CTR,
                cipher::AES_192_CTR,
                cipher::AES_128_CTR,
            ]
            .into(),
            ..russh::Preferred::default()
        },
        ..server::Config::default()
    }
}

/// The login methods in russh's words.
fn methods(config: &Config) -> MethodSet {
    let methods: Vec<_> = config
        .logins
        .iter()
        .map(|login| match login {
            Login::PublicKey => MethodKind::PublicKey,
            Login::Password => MethodKind::Password,
            Login::KeyboardInteractive => MethodKind::KeyboardInteractive,
        })
        .collect();
    MethodSet::from(methods.as_slice())
}

fn throw_away_key() -> io::Result<PrivateKey> {
    let mut seed = [0_u8; 32];
    getrandom::fill(&mut seed)?;
    Ok(PrivateKey::from(Ed25519Keypair::from_seed(&seed)))
}

fn random_hex() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
