//! The SSH port by russh: connections, logins, host keys, channels.
//!
//! In reading order:
//!
//! | Module | Holds |
//! | --- | --- |
//! | `dial`, `line` | TCP: every address of a name, and a socket that can be cut |
//! | `host_key`, `handler` | whom we talk to, and what russh calls us for |
//! | `connection` | one connection: what is agreed on, how it ends |
//! | `algorithms` | what a configuration can choose from |
//! | `key_file`, `auth` | logging in |
//! | `places`, `pool` | the connections of one link, and which one a channel goes to |
//! | `channel` | one channel |
//! | `tasks`, `error` | who owns what runs; russh's words in ours |
//!
//! No type of russh leaves this crate. Not here: retries (the engine's), ssh_config, jump hosts, SFTP.

mod algorithms;
mod auth;
mod channel;
mod connection;
mod dial;
mod error;
mod handler;
mod host_key;
mod key_file;
mod line;
mod places;
mod pool;
mod tasks;

pub use algorithms::offer;

use std::path::PathBuf;

use ssh_mcp_core::port::BoxFuture;
use ssh_mcp_core::port::ssh::{ConnectError, ConnectRequest, Connected, Connector, Transience};
use ssh_mcp_core::target_names;
use tokio::time::timeout;

use crate::connection::{Connection, Terms, Zlib};
use crate::host_key::Trust;
use crate::pool::{Recipe, RusshLink};

/// Connects by russh; needs a tokio runtime with its I/O and time drivers.
#[derive(Debug, Clone)]
pub struct RusshConnector {
    global_known_hosts: Vec<PathBuf>,
}

impl RusshConnector {
    /// A connector that reads the system's `ssh_known_hosts` files besides the one of each request.
    pub fn new() -> Self {
        Self { global_known_hosts: host_key::global_files() }
    }

    /// Reads these files in place of the system's (`GlobalKnownHostsFile`, ssh_config(5)).
    pub fn with_global_known_hosts(mut self, files: Vec<PathBuf>) -> Self {
        self.global_known_hosts = files;
        self
    }

    async fn attempt(&self, request: &ConnectRequest) -> Result<Connected, ConnectError> {
        let ConnectRequest { target, credentials, .. } = request;
        let trust = Trust::from_files(request, &self.global_known_hosts).await?;
        let key = async {
            match &credentials.key_path {
                Some(path) => {
                    key_file::load(path.clone(), credentials.key_passphrase.clone()).await.map(Some)
                }
                None => Ok(None),
            }
        };
        // A key that cannot be used is said at once, whether or not the host can be reached.
        let (key, dialled) =
            tokio::try_join!(key, async { Ok(dial::dial(&target.address, request.timeout).await) })?;
        let dialled = dialled?;
        tracing::debug!(target: target_names::SSH, host = %dialled.reached, "connected");

        let zlib = Zlib::decide(request.compression, dialled.took);
        let terms = Terms { keepalive: request.keepalive, zlib };
        let mut connection = Connection::establish(dialled.socket, &terms, trust).await?;
        let ways = auth::log_in(&mut connection, &target.username, credentials, key).await?;
        let Some((host_key, report)) = connection.watch.shown().cloned() else {
            return Err(error::failed("no host key was shown", Transience::Permanent));
        };
        let compressed = connection.watch.is_compressed();
        let auth_method = ways.last().map_or("none", auth::Way::method);
        let recipe = Recipe {
            reached: dialled.reached,
            host_key,
            username: target.username.clone(),
            ways,
            terms,
            timeout: request.timeout,
        };
        Ok(Connected {
            link: Box::new(RusshLink::new(connection, recipe)),
            host_key: report,
            auth_method,
            compressed,
        })
    }
}

impl Default for RusshConnector {
    fn default() -> Self {
        Self::new()
    }
}

impl Connector for RusshConnector {
    fn connect<'a>(&'a self, request: &'a ConnectRequest) -> BoxFuture<'a, Result<Connected, ConnectError>> {
        Box::pin(async move {
            timeout(request.timeout, self.attempt(request))
                .await
                .unwrap_or(Err(ConnectError::TimedOut { after: request.timeout }))
        })
    }
}
