//! From a target as a caller writes it to the hops of a connection: what `ssh HOST` would make of it.
//!
//! Part of the SSH port. Which files are read, and in which order what they say holds, is the adapter's business.

use std::{path::PathBuf, time::Duration};

use crate::target::{
    Algorithms, Compression, Credentials, Family, Hop, HostKeyPolicy, HostKeys, Keepalive, Lendings, Secret,
    Target, Wire,
};

/// A target, and what a call says about it; what it leaves open the configuration says, then [`Defaults`].
#[derive(Debug, Clone)]
pub struct TargetAsk {
    /// An alias of the configuration, `host`, `user@host`, `host:port` or `ssh://user@host:port`.
    pub target: String,
    /// Whom to log in as.
    pub username: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// Private key files, taken as they are; each must be usable.
    pub identity_files: Vec<PathBuf>,
    /// Opens key files that are encrypted.
    pub key_passphrase: Option<Secret>,
    /// For the last host only: the hosts before it are none of its business.
    pub password: Option<Secret>,
    /// What is read.
    pub config: ConfigFiles,
    /// The user's `known_hosts`.
    pub known_hosts_file: Option<PathBuf>,
    /// How unknown host keys are met; never less than the operator wants.
    pub host_key_policy: Option<HostKeyPolicy>,
    /// Hosts to jump over, separated by commas, or `none`.
    pub proxy_jump: Option<String>,
    /// Whether zlib is offered.
    pub compression: Option<Compression>,
    /// Whether programs there may ask the agent.
    pub forwarding: Option<Forwarding>,
    /// Keywords of ssh_config(5) and their values.
    pub options: Vec<(String, String)>,
    /// Arguments of ssh(1).
    pub arguments: Vec<String>,
    /// Who asks.
    pub asker: Asker,
    /// What holds where neither the call nor the configuration says anything.
    pub defaults: Defaults,
}

/// Which configuration files are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigFiles {
    /// `~/.ssh/config`, then the system's.
    Usual,
    /// None.
    None,
    /// This one alone.
    Only(PathBuf),
}

/// Whether the agent is lent to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// Who asks for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// The user of this machine: may name any file.
    Local,
    /// Somebody else: files stand only where they have been checked, which is not among options and arguments.
    Foreign,
}

/// The operator's settings.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// The agent.
    pub agent_socket: Option<PathBuf>,
    /// How unknown host keys are met.
    pub host_key_policy: HostKeyPolicy,
    /// The user's `known_hosts`.
    pub known_hosts: PathBuf,
    /// Whether zlib is offered.
    pub compression: Compression,
    /// How a dead peer is found out.
    pub keepalive: Keepalive,
}

impl Defaults {
    /// Straight to a host, under the operator's settings alone.
    pub fn hop(&self, target: Target, credentials: Credentials) -> Hop {
        Hop {
            target,
            host_key_name: None,
            credentials,
            host_keys: HostKeys {
                policy: self.host_key_policy,
                user_files: vec![self.known_hosts.clone()],
                global_files: None,
                hashed: None,
            },
            wire: Wire {
                compression: self.compression,
                keepalive: self.keepalive,
                family: Family::Any,
                bind_address: None,
                program: None,
                algorithms: Algorithms::default(),
            },
            lendings: Lendings::default(),
        }
    }
}

/// Where a target leads.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Hosts to jump over, the nearest first.
    pub via: Vec<Hop>,
    /// Where to.
    pub hop: Hop,
    /// Time for one attempt, where the configuration says one.
    pub timeout: Option<Duration>,
}

/// Why a target leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The call says something that cannot be.
    #[error("{0}")]
    Call(String),
    /// An option or argument that is not for calls; its name.
    #[error("{0} is not for calls")]
    Blocked(String),
    /// A configuration file cannot be read or honoured; names file and line.
    #[error("{0}")]
    Config(String),
}
