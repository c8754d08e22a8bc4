//! Calls under way, so that a stop can wait for them.

use std::sync::Arc;

use tokio::sync::watch;

/// The number of calls under way.
pub(super) struct Calls {
    running: watch::Sender<usize>,
}

impl Calls {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { running: watch::Sender::new(0) })
    }

    /// Counts a call until its guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Call {
        self.running.send_modify(|running| *running += 1);
        Call { calls: Arc::clone(self) }
    }

    /// Waits until no call is under way.
    pub(super) async fn idle(&self) {
        // The sender is ours, so waiting cannot fail.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }
}

/// A call under way.
pub(super) struct Call {
    calls: Arc<Calls>,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.calls.running.send_modify(|running| *running = running.saturating_sub(1));
    }
}
