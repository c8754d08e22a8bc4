//! Owned spawning: every task of the engine ends with it.

use std::{future::Future, time::Duration};

use tokio::runtime::Handle;
use tokio_util::{future::FutureExt, sync::CancellationToken, task::TaskTracker};

/// The way to spawn tasks of the engine; clones are the same group.
///
/// *Invariant:* a task holds what it works on and a clone of this, never the engine itself for longer than a step, so
/// that dropping the engine ends its tasks.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    /// Kept, because a guard that is dropped anywhere may have to start a timer.
    runtime: Handle,
}

impl Tasks {
    /// A group on the runtime of the caller.
    pub(crate) fn new() -> Self {
        Self { tracker: TaskTracker::new(), stop: CancellationToken::new(), runtime: Handle::current() }
    }

    /// Runs a future until it is done or the engine stops.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        // Not an async block around it: that would hold the future twice, and there is one for each lane and command.
        let task = future.with_cancellation_token_owned(self.stop.clone());
        self.tracker.spawn_on(task, &self.runtime);
    }

    /// Drops whatever runs and will be spawned.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Stops and waits until every task is gone.
    pub(crate) async fn join(&self, patience: Duration) {
        self.stop();
        self.tracker.close();
        _ = tokio::time::timeout(patience, self.tracker.wait()).await;
    }

    #[cfg(test)]
    pub(crate) fn running(&self) -> usize {
        self.tracker.len()
    }
}
