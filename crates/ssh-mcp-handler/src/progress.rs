//! Progress of a waiting call: told when the request carries a token, best effort, never falling.
//!
//! What is told, and how often, belongs to the tool; sending it and the rules of MCP about it are here.

use std::{
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rmcp::{
    RoleServer,
    model::{ProgressNotificationParam, ProgressToken},
    service::Peer,
};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// Period of most waiting calls.
pub(crate) const EVERY_5_S: Duration = Duration::from_secs(5);
/// Period of `ssh_shell_wait_for`.
pub(crate) const EVERY_SECOND: Duration = Duration::from_secs(1);

/// One report.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Beat {
    /// How far it is.
    pub(crate) progress: u64,
    /// How far it can get, if that is known.
    pub(crate) total: Option<u64>,
    /// One line for a person.
    pub(crate) message: String,
}

/// What became of work that a client waited for.
#[derive(Debug)]
pub(crate) enum Waiting<T> {
    /// It is done.
    Done(T),
    /// The client has called the request off; nothing that is answered now is read.
    Cancelled,
}

/// Where the progress of one request goes, and how its client calls it off.
pub(crate) struct Progress {
    to: Option<(ProgressToken, Peer<RoleServer>)>,
    cancelled: CancellationToken,
    /// The highest progress told.
    told: AtomicU64,
}

impl Progress {
    /// Progress of a request; without a token none is told.
    pub(crate) fn new(to: Option<(ProgressToken, Peer<RoleServer>)>, cancelled: CancellationToken) -> Self {
        Self { to, cancelled, told: AtomicU64::new(0) }
    }

    /// The same progress for a part of the request that may be given up before the request is: also when `enough` is
    /// cancelled, which is to be a [`child`](Self::child) of the request's own.
    pub(crate) fn until(&self, enough: CancellationToken) -> Self {
        // Relaxed: as in `tell`.
        let told = AtomicU64::new(self.told.load(Ordering::Relaxed));
        Self { to: self.to.clone(), cancelled: enough, told }
    }

    /// Is cancelled with the request, and can be cancelled before it.
    pub(crate) fn child(&self) -> CancellationToken {
        self.cancelled.child_token()
    }

    /// Whether the client has called the request off.
    pub(crate) fn is_called_off(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    /// Waits for `work` and tells of it every `period`. When the client calls the request off, `work` is dropped: whoever
    /// wants it to go on hands in a wait, not the work itself.
    pub(crate) async fn while_waiting<T>(
        &self,
        period: Duration,
        work: impl Future<Output = T>,
        beat: impl Fn() -> Beat,
    ) -> Waiting<T> {
        enum Event<T> {
            Done(T),
            Cancelled,
            Due,
        }
        let mut work = pin!(work);
        let mut ticks = tokio::time::interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                biased;
                done = &mut work => Event::Done(done),
                () = self.cancelled.cancelled() => Event::Cancelled,
                _ = ticks.tick(), if self.to.is_some() => Event::Due,
            };
            match event {
                Event::Done(done) => return Waiting::Done(done),
                Event::Cancelled => return Waiting::Cancelled,
                // A client that does not read its notifications delays its own answer by no more than a period.
                Event::Due => _ = tokio::time::timeout(period, self.tell(beat())).await,
            }
        }
    }

    async fn tell(&self, beat: Beat) {
        let Some((token, peer)) = &self.to else { return };
        // Relaxed: one task tells, the value publishes nothing else.
        let progress = self.told.fetch_max(beat.progress, Ordering::Relaxed).max(beat.progress);
        let mut param =
            ProgressNotificationParam::new(token.clone(), progress as f64).with_message(beat.message);
        if let Some(total) = beat.total {
            param = param.with_total(total.max(progress) as f64);
        }
        // A transport that has closed hears nothing more; the call ends with it.
        _ = peer.notify_progress(param).await;
    }
}
