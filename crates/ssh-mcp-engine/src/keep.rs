//! What keeps the ended: whoever makes something and looks at it afterwards finds it, however short its retention is.

use std::{sync::Arc, time::Duration};

use ssh_mcp_core::sync::Mutex;

use crate::Engine;

/// The moments from which on nothing that ends is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Keeps {
    since: Mutex<Vec<Duration>>,
}

/// Until it is dropped, nothing is forgotten that has ended after it was taken.
#[derive(Debug)]
pub struct Keep {
    all: Arc<Keeps>,
    since: Duration,
}

impl Engine {
    /// Keeps what ends from now on.
    pub fn keep_ended(&self) -> Keep {
        let (all, since) = (Arc::clone(&self.keeps), self.clock.now());
        all.since.lock().push(since);
        Keep { all, since }
    }
}

impl Keeps {
    /// Whether something that ended then is kept.
    pub(crate) fn keep(&self, ended: Duration) -> bool {
        self.since.lock().iter().any(|since| ended >= *since)
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        let mut all = self.all.since.lock();
        if let Some(at) = all.iter().position(|since| *since == self.since) {
            all.swap_remove(at);
        }
    }
}
