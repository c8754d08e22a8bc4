//! The command lines of the binaries (`docs/configuration.md`, "Command lines").
//!
//! A flag that overrides a setting is handed on as text, so that settings are read in one place only.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
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

/// The command line of `ssh-mcp-tail`.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "ssh-mcp-tail",
    version,
    about = "Drives SSH from pipes: ops in, events out, one JSON object a line"
)]
pub struct TailFlags {
    /// What it does.
    #[command(subcommand)]
    pub command: TailCommand,
}

/// What `ssh-mcp-tail` can do.
#[derive(Debug, Clone, Subcommand)]
pub enum TailCommand {
    /// Run the ops on standard input, one JSON object a line, until it ends
    Daemon(DaemonFlags),
    /// Run one command on a host and leave with its exit code
    Run(Box<RunFlags>),
    /// Open a terminal on a host: keys go there, and what it shows comes back
    Shell(Box<ShellFlags>),
    /// Print the JSON Schema of all ops and events
    Schema(SchemaFlags),
}

/// The command line of `ssh-mcp-tail daemon`.
#[derive(Debug, Clone, Args)]
pub struct DaemonFlags {
    /// Longest line of input, such as 4m [default: 1m]
    #[arg(long, value_name = "SIZE")]
    pub line_max: Option<String>,
    /// Time between two heartbeats in seconds, 0 for none [default: 30]
    #[arg(long, value_name = "N")]
    pub heartbeat_secs: Option<String>,
    /// Time between two daemon_stats in seconds, 0 for none [default: 60]
    #[arg(long, value_name = "N")]
    pub stats_secs: Option<String>,
    /// What the end of input means for work that runs: wait for it until the deadline, without one, or not at all
    #[arg(long, value_name = "MODE", default_value = "drain", value_parser = ["drain", "wait", "now"])]
    pub on_eof: String,
    /// Deadline of an orderly stop in seconds [default: 30]
    #[arg(long, value_name = "N")]
    pub grace_secs: Option<String>,
    /// Flags of all binaries.
    #[command(flatten)]
    pub common: Common,
}

impl DaemonFlags {
    fn text(&self, flag: &str) -> Option<String> {
        let own = match flag {
            "--line-max" => &self.line_max,
            "--heartbeat-secs" => &self.heartbeat_secs,
            "--stats-secs" => &self.stats_secs,
            "--grace-secs" => &self.grace_secs,
            _ => return None,
        };
        own.clone()
    }
}

/// Who logs in where.
#[derive(Debug, Clone, Args)]
pub struct LoginFlags {
    /// host, host:port, user@host, or an alias of the SSH configuration; IPv6 in brackets
    #[arg(long, value_name = "HOST")]
    pub host: String,
    /// Log in as [default: as --host or the SSH configuration says, else this user]
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Port [default: 22]
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,
    /// Private key file
    #[arg(long, value_name = "PATH")]
    pub key: Option<String>,
    /// Variable that holds the password
    #[arg(long, value_name = "NAME")]
    pub password_env: Option<String>,
    /// File that holds the password
    #[arg(long, value_name = "PATH")]
    pub password_file: Option<String>,
    /// Name of the group of sessions
    #[arg(long, value_name = "ID")]
    pub agent_id: Option<String>,
    /// Name of the session
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Whether an open session is used again: suggest, auto or force_new [default: auto]
    #[arg(long, value_name = "HOW", value_parser = ["suggest", "auto", "force_new"])]
    pub reuse: Option<String>,
}

/// What is written to the standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputForm {
    /// Events, one JSON object a line.
    Ndjson,
    /// What the far side writes, standard output and standard error apart.
    Raw,
}

/// What the built-in lists of ops have in common.
#[derive(Debug, Clone, Args)]
pub struct BuiltInFlags {
    /// What to write: events, or what the far side writes as it is
    #[arg(long, value_name = "FORM", value_enum, default_value = "ndjson")]
    pub output: OutputForm,
    /// Time between two heartbeats in seconds, 0 for none
    #[arg(long, value_name = "N", default_value = "0")]
    pub heartbeat_secs: String,
    /// Deadline of an orderly stop in seconds [default: 30]
    #[arg(long, value_name = "N")]
    pub grace_secs: Option<String>,
}

impl BuiltInFlags {
    fn text(&self, flag: &str) -> Option<String> {
        match flag {
            "--heartbeat-secs" => Some(self.heartbeat_secs.clone()),
            "--grace-secs" => self.grace_secs.clone(),
            _ => None,
        }
    }
}

/// The command line of `ssh-mcp-tail run`.
#[derive(Debug, Clone, Args)]
pub struct RunFlags {
    /// Who logs in where.
    #[command(flatten)]
    pub login: LoginFlags,
    /// Run-time limit of the command in seconds, 0 for none [default: 180]
    #[arg(long, value_name = "N")]
    pub timeout_secs: Option<u64>,
    /// Run it on a terminal
    #[arg(long)]
    pub pty: bool,
    /// Give it what stands on standard input, at most 1 MiB; else its input is empty
    #[arg(long)]
    pub stdin: bool,
    /// Keep the session when the command has ended, until standard input ends
    #[arg(long, conflicts_with = "stdin")]
    pub no_auto_disconnect: bool,
    /// What is written, and how long it may take to end.
    #[command(flatten)]
    pub built_in: BuiltInFlags,
    /// Flags of all binaries.
    #[command(flatten)]
    pub common: Common,
    /// The command, after --; its words are joined by spaces and given to the remote shell
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// The command line of `ssh-mcp-tail shell`.
#[derive(Debug, Clone, Args)]
pub struct ShellFlags {
    /// Who logs in where.
    #[command(flatten)]
    pub login: LoginFlags,
    /// Columns [default: those of the terminal it is started in, else 80]
    #[arg(long, value_name = "N")]
    pub cols: Option<u16>,
    /// Rows [default: those of the terminal it is started in, else 24]
    #[arg(long, value_name = "N")]
    pub rows: Option<u16>,
    /// Kind of terminal, as TERM names it
    #[arg(long, value_name = "NAME", default_value = "xterm")]
    pub term: String,
    /// What is written, and how long it may take to end.
    #[command(flatten)]
    pub built_in: BuiltInFlags,
    /// Flags of all binaries.
    #[command(flatten)]
    pub common: Common,
}

/// The command line of `ssh-mcp-tail schema`.
#[derive(Debug, Clone, Args)]
pub struct SchemaFlags {
    /// Flags of all binaries.
    #[command(flatten)]
    pub common: Common,
}

impl Flags for TailFlags {
    const BINARY: Binary = Binary::Tail;

    fn common(&self) -> &Common {
        match &self.command {
            TailCommand::Daemon(flags) => &flags.common,
            TailCommand::Run(flags) => &flags.common,
            TailCommand::Shell(flags) => &flags.common,
            TailCommand::Schema(flags) => &flags.common,
        }
    }

    fn text(&self, flag: &str) -> Option<String> {
        let own = match &self.command {
            TailCommand::Daemon(flags) => flags.text(flag),
            TailCommand::Run(flags) => flags.built_in.text(flag),
            TailCommand::Shell(flags) => flags.built_in.text(flag),
            TailCommand::Schema(_) => None,
        };
        own.or_else(|| self.common().text(flag))
    }
}
