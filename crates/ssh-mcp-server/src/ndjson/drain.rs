//! The way out, step by step (`docs/daemon.md`, "Ending").

use std::{sync::Arc, time::Duration};

use ssh_mcp_core::{
    code::Warning,
    owner::Owner,
    target_names,
    uri::{Resource, Scheme},
};
use ssh_mcp_engine::Drained;
use tokio_util::sync::CancellationToken;

use super::{
    daemon::{Daemon, one},
    event::{Event, Warn},
    follow::is_work,
};

/// Whether work that runs is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Until the deadline.
    Drain,
    /// As long as it takes.
    Wait,
    /// Not at all.
    Now,
}

impl Mode {
    pub(super) fn of(word: &str) -> Self {
        match word {
            "wait" => Self::Wait,
            "now" => Self::Now,
            _ => Self::Drain,
        }
    }
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Clean,
    /// The deadline passed with something left.
    Late,
}

/// Ops that are under way when everything is to end now have this long.
const LAST_OPS: Duration = Duration::from_secs(2);

/// What is written after the deadline has this long.
const LAST_LINES: Duration = Duration::from_secs(1);

impl Daemon {
    /// Ends everything in order. Cancelling `hurry` makes it [`Mode::Now`]; `written` ends when the writer has.
    pub(super) async fn drain(
        self: &Arc<Self>,
        mode: Mode,
        grace: Duration,
        hurry: &CancellationToken,
        written: impl Future<Output = ()>,
    ) -> Ended {
        let mut written = std::pin::pin!(written);
        if mode == Mode::Now {
            hurry.cancel();
        }
        let ended = async {
            if mode == Mode::Wait {
                self.work_done(hurry).await;
                return tokio::time::timeout(grace, self.end(written.as_mut())).await;
            }
            tokio::time::timeout(grace, async {
                let late = tokio::time::sleep(grace.saturating_sub(self.reserve(grace)));
                tokio::select! {
                    () = self.work_done(hurry) => {}
                    // What is left is cancelled in time to be told of.
                    () = late => {}
                }
                self.end(written.as_mut()).await
            })
            .await
        }
        .await;
        match ended {
            Ok(Drained::Clean) => Ended::Clean,
            Ok(Drained::Left(left)) => {
                tracing::warn!(target: target_names::MAIN, left, "the deadline passed; leaving");
                Ended::Late
            }
            Err(_) => {
                let warning = Warn {
                    code: Warning::GraceHardTimeout.as_str().to_owned(),
                    msg: format!("{} s have passed; what is left is given up", grace.as_secs()),
                    ..Warn::default()
                };
                // Not as an event: there may be no room for one.
                self.outbox.reply(&Event::Warn(Box::new(warning)), None);
                self.outbox.close();
                _ = tokio::time::timeout(LAST_LINES, written).await;
                tracing::warn!(target: target_names::MAIN, "the deadline passed; leaving");
                Ended::Late
            }
        }
    }

    /// What the end itself may need of the time there is.
    fn reserve(&self, grace: Duration) -> Duration {
        (grace / 4).min(Duration::from_secs(5))
    }

    /// Every op has its reply, and the work is done; not waited for once there is a hurry.
    async fn work_done(&self, hurry: &CancellationToken) {
        if hurry.run_until_cancelled(self.all_answered()).await.is_none() {
            _ = tokio::time::timeout(LAST_OPS, self.all_answered()).await;
        }
        hurry.run_until_cancelled(self.followed.none_left(|resource, _| is_work(resource))).await;
    }

    /// Ends what is left, tells of it, and writes everything.
    async fn end(self: &Arc<Self>, written: impl Future<Output = ()>) -> Drained {
        let cancels: Vec<_> = self.followed.all().into_iter().filter(|one| is_work(*one)).collect();
        let cancels = cancels.into_iter().map(|resource| self.cancel_work(resource));
        all(cancels).await;
        self.engine().lanes_caught_up(&Owner::local()).await;
        let lanes = self.engine().lanes_of(&Owner::local());
        for lane in &lanes {
            self.lanes.leave(lane.id);
        }
        all(lanes.iter().map(|lane| async { _ = self.engine().close_lane_by_call(lane).await })).await;
        self.followed.none_left(|resource, _| is_work(resource)).await;
        let drained = self.engine().shutdown().await;
        self.followed.none_left(|_, _| true).await;
        self.stop.cancel();
        self.outbox.close();
        written.await;
        drained
    }

    async fn cancel_work(&self, resource: Resource) {
        let id = resource.id.as_hyphenated();
        let (tool, arguments) = match resource.scheme {
            Scheme::Command => ("ssh_exec_cancel", one("command_id", id)),
            Scheme::Transfer => ("ssh_transfer_cancel", one("transfer_id", id)),
            Scheme::Rsync => ("ssh_rsync_cancel", one("rsync_id", id)),
            Scheme::Session | Scheme::Shell | Scheme::Forward | Scheme::Serial => return,
        };
        // What has ended meanwhile needs no cancelling.
        _ = self.pipe.call(tool, arguments, None).await;
    }
}

/// Runs them side by side.
async fn all(futures: impl Iterator<Item: Future<Output = ()>>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        futures.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
