//! Remote files by SFTP version 3, the file port of the product.
//!
//! A client of its own because no crate does all of this: handles and names as bytes, as many requests under way as the
//! line needs, no time limit that counts queueing, and data that is not copied on its way (`docs/adr/0014-sftp.md`).
//!
//! | File | Holds |
//! | --- | --- |
//! | `wire` | messages as bytes, in and out |
//! | `client` | requests and their answers over one channel |
//! | `fs` | the port's methods as requests |

mod client;
mod fs;
mod wire;

use std::sync::Arc;

use ssh_mcp_core::port::{
    BoxFuture,
    fs::{FsError, FsMount, RemoteFs},
    ssh::Channel,
};

/// Mounts by SFTP.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sftp;

impl FsMount for Sftp {
    fn mount(&self, channel: Channel) -> BoxFuture<'static, Result<Arc<dyn RemoteFs>, FsError>> {
        Box::pin(async move {
            let files: Arc<dyn RemoteFs> = Arc::new(fs::Files::open(channel).await?);
            Ok(files)
        })
    }
}
