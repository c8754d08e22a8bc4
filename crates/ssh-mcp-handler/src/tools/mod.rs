//! The catalogue's rows: every tool of this build, one row each, in the order of `tools/list`.
//!
//! A row lives beside its tool: `tools/<family>.rs` holds arguments, reply, function and row of each tool together. Which
//! rows are listed is decided by [`crate::catalogue`].

pub(crate) mod connect;
pub(crate) mod exec;
#[cfg(feature = "port_forward")]
pub(crate) mod forward;
mod process;
pub(crate) mod resources;
pub(crate) mod rsync;
pub(crate) mod serial;
pub(crate) mod shell;
pub(crate) mod sub;
pub(crate) mod transfer;

use rmcp::model::{JsonObject, ToolAnnotations};
use ssh_mcp_core::{port::BoxFuture, settings::Settings, uri::Scheme};

pub(crate) use process::without_nul;

use crate::{cx::Cx, failure::Failure, reply::Reply};

/// Every tool, in the order of `tools/list`.
pub(crate) fn rows() -> impl Iterator<Item = &'static Row> {
    let families = [
        connect::ROWS,
        exec::ROWS,
        shell::ROWS,
        transfer::ROWS,
        rsync::ROWS,
        #[cfg(feature = "port_forward")]
        forward::ROWS,
        sub::ROWS,
        serial::ROWS,
        resources::ROWS,
    ];
    families.into_iter().flatten()
}

/// Tools that other builds have: the name, the feature that has it.
pub(crate) const ABSENT: &[(&str, &str)] = &[
    #[cfg(not(feature = "port_forward"))]
    ("ssh_forward", "port_forward"),
    #[cfg(not(feature = "port_forward"))]
    ("ssh_forward_close", "port_forward"),
];

/// Everything the product knows about a tool by itself.
pub(crate) struct Row {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its name for people.
    pub(crate) title: &'static str,
    /// What it does, when to take it, what it starts and how that ends; at most 600 characters.
    pub(crate) description: &'static str,
    /// What it does to the world.
    pub(crate) effect: Effect,
    /// Whether a second call with the same arguments changes nothing more.
    pub(crate) repeat: Repeat,
    /// Whether it talks to another machine.
    pub(crate) reach: Reach,
    /// Whether it honours an idempotency key.
    pub(crate) key: Key,
    /// The sets it belongs to, its family first; `all` and `read_only` follow from the row.
    pub(crate) sets: &'static [Set],
    /// The kind of resource it starts.
    pub(crate) makes: Option<Scheme>,
    /// Its schemas and its function.
    pub(crate) call: Call,
}

impl Row {
    /// Fields the tool takes that its listing leaves to another tool's, or to `docs/tools.md` alone.
    pub(crate) fn unshown(&self) -> &'static [&'static [&'static str]] {
        match self.name {
            "ssh_connect" => &[connect::UNSHOWN_BY_CONNECT],
            "ssh_exec" => &[process::UNSHOWN],
            "ssh_run" => &[connect::UNSHOWN_BY_RUN, process::UNSHOWN],
            "ssh_exec_batch" => &[process::UNSHOWN],
            "ssh_shell_open" => &[connect::UNSHOWN_BY_SHELL, process::UNSHOWN, shell::UNSHOWN_BY_OPEN],
            "ssh_shell_write" => &[process::UNSHOWN],
            "ssh_forward" => &[connect::UNSHOWN_BY_SHELL, &["remote_host"]],
            "ssh_upload" => &[process::UNSHOWN],
            "ssh_download" => &[process::UNSHOWN, transfer::UNSHOWN_BY_DOWNLOAD],
            _ => &[],
        }
    }
}

/// What a tool does to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It only looks.
    ReadOnly,
    /// It adds.
    Adds,
    /// It may destroy.
    Destroys,
}

/// Whether repeating a call changes anything more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It does not.
    Harmless,
    /// It does.
    Counts,
}

/// How far a tool reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// To another machine.
    Remote,
    /// Only what this server holds.
    Held,
}

/// Whether a tool honours an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// It does.
    Honoured,
    /// It only reads, so there is nothing to protect.
    Ignored,
}

/// The named sets of `SSH_MCP_TOOLSETS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    /// Sessions and lists.
    Connection,
    /// Commands.
    Exec,
    /// Interactive shells.
    Shell,
    /// Transfers of files.
    Transfer,
    /// Syncs of trees.
    Rsync,
    /// Forwards of connections.
    #[cfg_attr(not(feature = "port_forward"), expect(dead_code, reason = "of the forward tools only"))]
    Forward,
    /// Lanes.
    Sub,
    /// Serial ports.
    Serial,
    /// What most work needs.
    Core,
}

impl Set {
    /// The name in the setting.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Exec => "exec",
            Self::Shell => "shell",
            Self::Transfer => "transfer",
            Self::Rsync => "rsync",
            Self::Forward => "forward",
            Self::Sub => "sub",
            Self::Serial => "serial",
            Self::Core => "core",
        }
    }
}

impl Row {
    /// The hints of MCP's `ToolAnnotations`: what hosts ask before they let a tool run always, the others where they are
    /// not what MCP takes for granted (not idempotent, open world). The title stands on the tool itself.
    pub(crate) fn annotations(&self) -> ToolAnnotations {
        let mut hints = ToolAnnotations::new()
            .read_only(self.effect == Effect::ReadOnly)
            .destructive(self.effect == Effect::Destroys);
        hints.idempotent_hint = (self.repeat == Repeat::Harmless).then_some(true);
        hints.open_world_hint = (self.reach == Reach::Held).then_some(false);
        hints
    }
}

/// A tool's schemas and function, without its types.
pub(crate) struct Call {
    /// The schema of its arguments under these settings.
    pub(crate) input: fn(&Settings) -> JsonObject,
    /// The schema of its success.
    pub(crate) output: fn(&str) -> JsonObject,
    /// Checks and parses the arguments by the schema, and runs.
    pub(crate) run: for<'a> fn(&'a Cx, &'a JsonObject, JsonObject) -> BoxFuture<'a, Result<Reply, Failure>>,
}

/// The [`Call`] of `async fn $function(&Cx, $arguments) -> Result<Answer<$body>, Failure>`.
macro_rules! call {
    ($function:path, $arguments:ty, $body:ty) => {
        $crate::tools::Call {
            input: $crate::args::input_schema::<$arguments>,
            output: $crate::reply::output_schema::<$body>,
            run: |cx, schema, arguments| {
                Box::pin(async move {
                    let (arguments, warnings) = $crate::args::parse::<$arguments>(schema, arguments)?;
                    match $function(cx, arguments).await {
                        Ok(answer) => Ok(answer.into_reply($crate::reply::Nonce::fresh(), warnings)),
                        Err(failure) => Err(failure.with_warnings(warnings)),
                    }
                })
            },
        }
    };
}
pub(crate) use call;
