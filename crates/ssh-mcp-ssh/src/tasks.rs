//! The tasks of one link: owned by it, ended with it.

use tokio::runtime::Handle;
use tokio_util::future::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A task group; clones are the same group.
#[derive(Clone)]
pub(crate) struct Tasks {
    runtime: Handle,
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    /// An empty group on the runtime of the caller.
    pub(crate) fn new() -> Self {
        Self { runtime: Handle::current(), stop: CancellationToken::new(), tracker: TaskTracker::new() }
    }

    /// Runs `work` until it is done or the group is stopped; the one place of this crate where a task begins.
    ///
    /// May be called from anywhere, a destructor outside of the runtime included.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        // Not an async block around it: that would hold the future twice.
        self.tracker.spawn_on(work.with_cancellation_token_owned(self.stop.clone()), &self.runtime);
    }

    /// Ends every task at its next wait, and those that begin later.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Resolves when all tasks have ended after a [`stop`](Self::stop).
    pub(crate) async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}
