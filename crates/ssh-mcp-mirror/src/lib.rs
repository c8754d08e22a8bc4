//! The mirror port: trees made equal by rsync's wire protocol, or by a walk over the file port.
//!
//! | File | Holds |
//! | --- | --- |
//! | `effort` | whether a run goes on, and that it does |
//! | `filter` | which names are meant: one matcher for both ways and both directions |
//! | `meant` | which names of a list are meant, and what its root is called there |
//! | `local` | the tree on this side; no link is followed below its root |
//! | `source` | this side read: its list, its files |
//! | `accounts` | what users and groups are called on this side |
//! | `landing` | this side written: what each entry of a list asks for, and what is deleted |
//! | `wire` | rsync's protocol on a channel; the only place that awaits for it |
//! | `walk` | the file port, file by file |

mod accounts;
pub mod effort;
mod filter;
pub mod landing;
pub mod local;
mod meant;
pub mod source;
pub mod walk;
pub mod wire;

#[cfg(test)]
mod tests;

use std::{io, sync::Arc};

use ssh_mcp_core::port::{
    BoxFuture,
    fs::RemoteFs,
    mirror::{Broken, Done, FileFault, Job, Mirror, NewsDesk},
    ssh::Channel,
};

/// Both ways of mirroring.
#[derive(Debug, Clone, Copy, Default)]
pub struct BothWays;

impl Mirror for BothWays {
    fn wire(
        &self,
        channel: Channel,
        job: Job,
        news: Arc<dyn NewsDesk>,
        stop: BoxFuture<'static, ()>,
    ) -> BoxFuture<'static, Result<Done, Broken>> {
        Box::pin(async move { wire::run(channel, wire::Plan::new(job)?, news, stop).await })
    }

    fn walk(
        &self,
        files: Arc<dyn RemoteFs>,
        job: Job,
        news: Arc<dyn NewsDesk>,
        stop: BoxFuture<'static, ()>,
    ) -> BoxFuture<'static, Result<Done, Broken>> {
        Box::pin(walk::walk(files, job, news, stop))
    }

    fn check_patterns(&self, include: &[String], exclude: &[String]) -> Result<(), String> {
        filter::Filter::new(include, exclude).map(|_| ())
    }
}

/// What the system's words amount to.
fn fault_of(cause: &io::Error) -> FileFault {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the standard library's list grows")]
    match cause.kind() {
        io::ErrorKind::PermissionDenied => FileFault::PermissionDenied,
        io::ErrorKind::NotFound => FileFault::FileNotFound,
        _ => FileFault::IoError,
    }
}
