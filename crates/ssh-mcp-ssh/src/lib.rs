//! The SSH port by russh: connections, logins, host keys, channels.
//!
//! In reading order:
//!
//! | Module | Holds |
//! | --- | --- |
//! | `resolve` | what ssh_config says about a target |
//! | `dial`, `program`, `line` | TCP: every address of a name; a program in its place; a socket that can be cut |
//! | `host_key`, `handler` | whom we talk to, and what russh calls us for |
//! | `connection` | one connection: what is agreed on, how it ends |
//! | `algorithms` | what a configuration can choose from |
//! | `key_file`, `agent`, `identities`, `questions`, `auth` | logging in: what there is, what comes first, the dialogue |
//! | `hops` | all of this for each host on the way |
//! | `places`, `pool` | the connections of one link, and which one a channel goes to |
//! | `forward`, `guests` | the connection of a forward, and who comes to its listener |
//! | `channel` | one channel |
//! | `tasks`, `error` | who owns what runs; russh's words in ours |
//!
//! No type of russh leaves this crate. Not here: retries (the engine's), SFTP.

mod agent;
mod algorithms;
mod auth;
mod channel;
mod connection;
mod dial;
mod error;
mod forward;
mod guests;
mod handler;
mod hops;
mod host_key;
mod identities;
mod key_file;
mod line;
mod places;
mod pool;
mod program;
mod questions;
mod resolve;
mod tasks;

pub use algorithms::offer;

pub use resolve::{LocalUser, LookUp, run_in_shell, usual_sources};

use std::path::PathBuf;
use std::sync::Arc;

use ssh_mcp_core::port::BoxFuture;
use ssh_mcp_core::port::resolve::{ResolveError, Resolved, TargetAsk};
use ssh_mcp_core::port::ssh::{ConnectError, ConnectRequest, Connected, Connector};
use tokio::time::timeout;

use crate::hops::Reached;
use crate::pool::{Recipe, RusshLink};

/// Connects by russh; needs a tokio runtime with its I/O and time drivers.
#[derive(Debug, Clone)]
pub struct RusshConnector {
    global_known_hosts: Vec<PathBuf>,
    user: Option<Arc<LocalUser>>,
}

impl RusshConnector {
    /// A connector that reads the system's `ssh_known_hosts` files besides the one of each request.
    pub fn new() -> Self {
        Self { global_known_hosts: host_key::global_files(), user: None }
    }

    /// Reads these files in place of the system's (`GlobalKnownHostsFile`, ssh_config(5)).
    pub fn with_global_known_hosts(mut self, files: Vec<PathBuf>) -> Self {
        self.global_known_hosts = files;
        self
    }

    /// Resolves targets for this user; without one, targets cannot be resolved.
    pub fn for_user(mut self, user: LocalUser) -> Self {
        self.user = Some(Arc::new(user));
        self
    }

    async fn attempt(&self, request: &ConnectRequest) -> Result<Connected, ConnectError> {
        let Reached { connection, report, leg, below } =
            hops::reach(request, &self.global_known_hosts).await?;
        let compressed = connection.watch.is_compressed();
        let auth_method = leg.ways.last().map_or("none", auth::Way::method);
        let recipe = Recipe { leg, below, timeout: request.timeout };
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
    fn resolve<'a>(&'a self, ask: &'a TargetAsk) -> BoxFuture<'a, Result<Resolved, ResolveError>> {
        Box::pin(async move {
            let Some(user) = self.user.clone() else {
                return Err(ResolveError::Config("whose configuration to read is not known".to_owned()));
            };
            let ask = ask.clone();
            tokio::task::spawn_blocking(move || resolve::resolve(&ask, &user))
                .await
                .unwrap_or_else(|panic| Err(ResolveError::Config(panic.to_string())))
        })
    }

    fn connect<'a>(&'a self, request: &'a ConnectRequest) -> BoxFuture<'a, Result<Connected, ConnectError>> {
        Box::pin(async move {
            timeout(request.timeout, self.attempt(request))
                .await
                .unwrap_or(Err(ConnectError::TimedOut { after: request.timeout }))
        })
    }
}
