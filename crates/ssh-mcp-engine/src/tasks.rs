//! Owned spawning: every task of the engine ends with it.

use std::{future::Future, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The engine's tasks.
#[derive(Debug)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self { tracker: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// Runs a future until it is done or the engine stops.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            _ = stop.run_until_cancelled(future).await;
        });
    }

    /// Waits for all tasks, then drops those that are left.
    pub(crate) async fn join(&self, patience: Duration) {
        self.stop.cancel();
        self.tracker.close();
        _ = tokio::time::timeout(patience, self.tracker.wait()).await;
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
