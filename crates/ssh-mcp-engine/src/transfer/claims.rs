//! What transfers are writing to: two onto one destination would leave a mixture.

use std::{collections::HashSet, os::unix::ffi::OsStrExt, path::Path, sync::Arc};

use ssh_mcp_core::sync::Mutex;

use super::{file::Refusal, remote::shown};

/// The destinations that are written to, seen from the session to one account of one host.
#[derive(Clone)]
pub struct Claims {
    taken: Arc<Taken>,
    target: Arc<str>,
}

/// The destinations of all transfers.
pub type Taken = Mutex<HashSet<Written>>;

/// A file: on which account of which host, or here, and where.
pub type Written = (Option<Arc<str>>, Vec<u8>);

/// A destination that is nobody else's; dropping it gives it back.
pub struct Claim {
    taken: Arc<Taken>,
    destination: Written,
}

impl Claims {
    /// Those of transfers with `target`, among all that are `taken`.
    pub fn new(taken: Arc<Taken>, target: &str) -> Self {
        Self { taken, target: target.into() }
    }

    /// Takes a file of the far side.
    pub(super) fn remote(&self, path: &[u8]) -> Result<Claim, Refusal> {
        self.take((Some(Arc::clone(&self.target)), plain(path)))
    }

    /// Takes a file of this side.
    pub(super) fn local(&self, path: &Path) -> Result<Claim, Refusal> {
        self.take((None, path.as_os_str().as_bytes().to_vec()))
    }

    fn take(&self, destination: Written) -> Result<Claim, Refusal> {
        match self.taken.lock().insert(destination.clone()) {
            true => Ok(Claim { taken: Arc::clone(&self.taken), destination }),
            false => Err(Refusal::Busy(shown(&destination.1))),
        }
    }
}

/// The path without what says nothing. What `..` and links say only the far side knows.
fn plain(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.flat_map(|part| [b"/", part].concat()).collect()
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.taken.lock().remove(&self.destination);
    }
}
