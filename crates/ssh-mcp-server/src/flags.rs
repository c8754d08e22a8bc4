//! The command lines of the binaries (`docs/configuration.md`, "Command lines").
//!
//! A flag that overrides a setting is handed on as text, so that settings are read in one place only.

use std::path::PathBuf;

use clap::{Args, Parser};
use ssh_mcp_core::settings::{Binary, Settings};

use crate::http;

/// The command line of one binary.
pub trait Flags: Parser {
    /// Whose command line it is.
    const BINARY: Binary;

    /// The flags that all binaries have.
    fn common(&self) -> &Common;

    /// What a flag that overrides a setting says, by its name with the dashes.
    fn text(&self, flag: &str) -> Option<String>;

    /// Looks for what would refuse the start although every setting is sound by itself.
    ///
    /// # Errors
    /// One line for people.
    fn check(_settings: &Settings) -> Result<(), String> {
        Ok(())
    }
}

/// Flags that all binaries have.
#[derive(Debug, Clone, Default, Args)]
pub struct Common {
    /// Read variables from this file; those of the environment win
    #[arg(long, value_name = "PATH")]
    pub env_file: Option<PathBuf>,
    /// Log filter: a level, or target=level pairs separated by commas
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// Form of the log lines: text or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Print every setting with value, origin and range, and leave
    #[arg(long)]
    pub print_config: bool,
    /// Print them as JSON
    #[arg(long, requires = "print_config")]
    pub json: bool,
    /// Check every setting and leave: 0 if all are sound, else 2 and a list of problems
    #[arg(long, conflicts_with = "print_config")]
    pub check_config: bool,
    /// Print what the SSH client's configuration says about this host, as ssh -G does, and leave
    #[arg(long, value_name = "HOST", conflicts_with_all = ["print_config", "check_config"])]
    pub print_target: Option<String>,
    /// Read this file for it instead of ~/.ssh/config and the system's; none reads none
    #[arg(long, value_name = "PATH", requires = "print_target")]
    pub ssh_config_file: Option<PathBuf>,
}

impl Common {
    fn text(&self, flag: &str) -> Option<String> {
        match flag {
            "--log" => self.log.clone(),
            "--log-format" => self.log_format.clone(),
            _ => None,
        }
    }
}

/// The command line of `ssh-mcp`.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "ssh-mcp", version, about = "Serves SSH to agents: the Model Context Protocol over HTTP")]
pub struct HttpFlags {
    /// Listen on HOST:PORT, :PORT or HOST; may be repeated [default: 0.0.0.0:8000]
    #[arg(long, value_name = "HOST:PORT")]
    pub bind: Vec<String>,
    /// Serve MCP at this path [default: /]
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// Take the token from this file, or several as name:token lines
    #[arg(long, value_name = "PATH")]
    pub auth_token_file: Option<PathBuf>,
    /// Ask local requests for the token too
    #[arg(long)]
    pub require_token: bool,
    /// Accept these names in Host, separated by commas
    #[arg(long, value_name = "NAMES")]
    pub allowed_hosts: Option<String>,
    /// Accept these browser origins, separated by commas
    #[arg(long, value_name = "ORIGINS")]
    pub allowed_origins: Option<String>,
    /// Deadline of an orderly stop in seconds [default: 30]
    #[arg(long, value_name = "N")]
    pub grace_secs: Option<String>,
    /// Ask the server at the configured address whether it is well, and leave: 0 if it is, else 1
    #[arg(long)]
    pub healthcheck: bool,
    /// Flags of all binaries.
    #[command(flatten)]
    pub common: Common,
}

impl Flags for HttpFlags {
    const BINARY: Binary = Binary::Http;

    fn common(&self) -> &Common {
        &self.common
    }

    fn text(&self, flag: &str) -> Option<String> {
        match flag {
            "--bind" => (!self.bind.is_empty()).then(|| self.bind.join(",")),
            "--path" => self.path.clone(),
            "--auth-token-file" => {
                self.auth_token_file.as_ref().map(|path| path.to_string_lossy().into_owned())
            }
            "--require-token" => self.require_token.then(|| "true".to_owned()),
            "--allowed-hosts" => self.allowed_hosts.clone(),
            "--allowed-origins" => self.allowed_origins.clone(),
            "--grace-secs" => self.grace_secs.clone(),
            other => self.common.text(other),
        }
    }

    fn check(settings: &Settings) -> Result<(), String> {
        http::check(settings).map_err(|error| error.to_string())
    }
}

/// The command line of `ssh-mcp-stdio`.
#[derive(Debug, Clone, Default, Parser)]
#[command(
    name = "ssh-mcp-stdio",
    version,
    about = "Serves SSH to agents: the Model Context Protocol over standard input and output"
)]
pub struct StdioFlags {
    /// Deadline of an orderly stop in seconds [default: 30]
    #[arg(long, value_name = "N")]
    pub grace_secs: Option<String>,
    /// Flags of all binaries.
    #[command(flatten)]
    pub common: Common,
}

impl Flags for StdioFlags {
    const BINARY: Binary = Binary::Stdio;

    fn common(&self) -> &Common {
        &self.common
    }

    fn text(&self, flag: &str) -> Option<String> {
        match flag {
            "--grace-secs" => self.grace_secs.clone(),
            other => self.common.text(other),
        }
    }
}
