//! The ends of what the daemon has made: a task for each resource waits for it and tells.
//!
//! `completed` comes when every lane of the command has said its last, `closed` when everything of the session has been
//! told. Following is no observing: it keeps nothing alive.

use std::{collections::HashMap, sync::Arc, time::Duration};

use ssh_mcp_core::{
    kind::{
        command::{Exit, Status},
        transfer::Rate,
    },
    owner::Owner,
    reason::Reason,
    registry::{Command, Transfer, TransferStatus},
    sync::Mutex,
    uri::{Resource, Scheme},
};
use ssh_mcp_engine::Source;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    daemon::Daemon,
    event::{Closed, Completed, Event, OpId, ResourceClosed, TransferDone, TransferProgress},
};

/// Least time between two words about how far a transfer is.
const PROGRESS: Duration = Duration::from_millis(250);

/// What has not been told to have ended.
#[derive(Default)]
pub(super) struct Followed {
    live: Mutex<HashMap<Resource, Life>>,
    /// Rung when something is followed no longer.
    told: Notify,
}

#[derive(Debug, Clone, Default)]
struct Life {
    id: Option<OpId>,
    session: Option<Resource>,
    /// The op that ends it, and a word of when that has its reply.
    ends_by: Option<(Option<OpId>, CancellationToken)>,
    is_quiet: bool,
    is_followed: bool,
}

impl Followed {
    /// An op is about to end a resource; the end is told once the op has been answered.
    pub(super) fn ends_by(&self, resource: Resource, id: Option<OpId>, answered: CancellationToken) {
        if let Some(life) = self.live.lock().get_mut(&resource) {
            life.ends_by = Some((id, answered));
        }
    }

    /// Of a transfer that is about to be followed only the end is told.
    pub(super) fn without_progress(&self, resource: Resource) {
        if resource.scheme == Scheme::Transfer {
            self.live.lock().entry(resource).or_default().is_quiet = true;
        }
    }

    /// What is to be followed once the op that made it is answered: from here on a drain knows of it.
    pub(super) fn announce(&self, resource: Resource) {
        self.live.lock().entry(resource).or_default();
    }

    /// What is followed.
    pub(super) fn all(&self) -> Vec<Resource> {
        self.live.lock().keys().copied().collect()
    }

    fn forget(&self, resource: Resource) {
        self.live.lock().remove(&resource);
        self.told.notify_waiters();
    }

    /// Ends when nothing `is_meant` is left.
    pub(super) async fn none_left(&self, is_meant: impl Fn(Resource, Option<Resource>) -> bool) {
        loop {
            let told = self.told.notified();
            let mut told = std::pin::pin!(told);
            // Registered before the look, so that what changes in between is not missed.
            told.as_mut().enable();
            if !self.live.lock().iter().any(|(resource, life)| is_meant(*resource, life.session)) {
                return;
            }
            told.await;
        }
    }
}

/// Whether a resource is work, which a drain waits for.
pub(super) fn is_work(resource: Resource) -> bool {
    match resource.scheme {
        Scheme::Command | Scheme::Transfer | Scheme::Rsync => true,
        Scheme::Session | Scheme::Shell | Scheme::Forward | Scheme::Serial => false,
    }
}

impl Daemon {
    /// Tells of the end of a resource, once.
    pub(super) fn follow(self: &Arc<Self>, resource: Resource, id: Option<OpId>) {
        let Ok(source) = self.engine().source(&Owner::local(), resource) else {
            return self.followed.forget(resource);
        };
        let session = self.session(resource).map(Resource::from);
        {
            let mut live = self.followed.live.lock();
            let life = live.entry(resource).or_default();
            if life.is_followed {
                return;
            }
            (life.is_followed, life.id, life.session) = (true, id, session);
        }
        let daemon = Arc::clone(self);
        self.tasks.spawn(async move {
            daemon.attend(resource, &source).await;
            daemon.followed.forget(resource);
        });
    }

    async fn attend(&self, resource: Resource, source: &Source) {
        if let Source::Transfer(transfer) = source {
            self.show_progress(resource, source, transfer).await;
        }
        ended(source).await;
        if resource.scheme == Scheme::Session {
            self.followed.none_left(|_, session| session == Some(resource)).await;
        }
        self.engine().lanes_told(resource).await;
        let mut life = self.followed.live.lock().get(&resource).cloned().unwrap_or_default();
        if let Some((id, answered)) = life.ends_by.take() {
            answered.cancelled().await;
            life.id = id.or(life.id);
        }
        let Some(words) = source.end_words() else { return };
        for event in last_words(source, words.reason, life.id) {
            // Nobody hears, and that is found out elsewhere.
            _ = self.outbox.send(&event).await;
        }
    }

    async fn show_progress(&self, resource: Resource, source: &Source, transfer: &Transfer) {
        let life = self.followed.live.lock().get(&resource).cloned().unwrap_or_default();
        if life.is_quiet {
            return;
        }
        let mut told = None;
        let mut watch = source.history().watch();
        while !source.history().mark().ended {
            let reached = transfer.reached();
            if told.replace(reached.bytes) != Some(reached.bytes) && reached.moved() > 0 {
                let now = self.engine().clock().now();
                let rate = transfer.rate.lock().bytes_per_sec(now, reached.moved());
                let left = transfer.spec.total.saturating_sub(reached.bytes);
                let progress = TransferProgress {
                    tid: transfer.spec.id.to_string(),
                    bytes: reached.bytes,
                    total: transfer.spec.total,
                    id: life.id.clone(),
                    rate: Some(rate),
                    eta_secs: Rate::eta_secs(rate, left),
                };
                if self.outbox.send(&Event::TransferProgress(progress)).await.is_err() {
                    return;
                }
            }
            if tokio::time::timeout(PROGRESS, ended(source)).await.is_ok() {
                return;
            }
            if told == Some(transfer.reached().bytes) {
                watch.changed().await;
            }
        }
    }
}

/// Ends with a resource.
async fn ended(source: &Source) {
    let mut watch = source.history().watch();
    while !(source.history().mark().ended && source.end_words().is_some()) {
        watch.changed().await;
    }
}

/// What is told of an end.
fn last_words(source: &Source, reason: Reason, id: Option<OpId>) -> Vec<Event> {
    let word = reason.as_str().to_owned();
    let uri = source.resource().to_string();
    let closed = |exit: Option<i64>, signal: Option<String>| {
        let (uri, reason, id) = (uri.clone(), word.clone(), id.clone());
        Event::ResourceClosed(ResourceClosed { uri, reason, id, exit, signal })
    };
    // A cancelled one says so itself.
    let is_foreign = !reason.is_own_end() && reason != Reason::Cancelled;
    match source {
        Source::Command(command) => {
            let first = completed(command, reason, id.clone());
            [first].into_iter().chain(is_foreign.then(|| closed(None, None))).collect()
        }
        Source::Transfer(transfer) => {
            let first = transfer_done(transfer, id.clone());
            [first].into_iter().chain(is_foreign.then(|| closed(None, None))).collect()
        }
        Source::Rsync(_) | Source::Forward(_) | Source::Serial(_) => vec![closed(None, None)],
        Source::Shell(shell) => {
            let exit = shell.ending.get().and_then(|end| end.facts.clone());
            vec![match exit {
                Some(Exit::Status(status)) => closed(Some(i64::from(status)), None),
                Some(Exit::Signal(signal)) => closed(None, Some(signal)),
                None => closed(None, None),
            }]
        }
        Source::Session(session) => {
            vec![Event::Closed(Closed { sid: session.spec.id.to_string(), reason: word, id: id.clone() })]
        }
    }
}

fn completed(command: &Command, reason: Reason, id: Option<OpId>) -> Event {
    let mut completed = Completed {
        cid: command.spec.id.to_string(),
        id,
        reason: Some(reason.as_str().to_owned()),
        ..Completed::default()
    };
    if let Some(end) = command.ending.get() {
        completed.exit = end.facts.exit_code();
        completed.signal = end.facts.exit_signal().map(str::to_owned);
        completed.cancelled = (end.facts.status == Status::Cancelled).then_some(true);
        completed.timed_out = (end.facts.status == Status::TimedOut).then_some(true);
        completed.duration_ms = Some(ssh_mcp_core::lane::millis(end.at.saturating_sub(command.spec.started)));
    }
    Event::Completed(completed)
}

fn transfer_done(transfer: &Transfer, id: Option<OpId>) -> Event {
    let reached = transfer.reached();
    let facts = transfer.ending.get().map(|end| &end.facts);
    let fault = facts.and_then(|facts| facts.error.as_ref().or_else(|| facts.failures.first()));
    let has_failed = transfer.status() == TransferStatus::Failed;
    Event::TransferDone(TransferDone {
        tid: transfer.spec.id.to_string(),
        status: transfer.status().as_str().to_owned(),
        bytes: reached.bytes,
        total: transfer.spec.total,
        resumed_from: reached.resumed_from,
        id,
        verified: facts.and_then(|facts| facts.outcome.verified).map(|_| true),
        code: fault.filter(|_| has_failed).map(|fault| fault.failure.as_str().to_owned()),
        reason: fault.filter(|_| has_failed).map(|fault| ssh_mcp_core::text::remote_words(&fault.reason)),
    })
}
