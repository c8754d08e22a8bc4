//! The leak watcher: once a second it looks for what nobody observes and nothing will end
//! (`docs/subscriptions.md`, "What nobody watches").

use std::{sync::Arc, time::Duration};

use ssh_mcp_core::{
    lifecycle::{AutoRelease, Expired, Leak, Lifecycle, Report, State},
    reason::Reason,
    registry::{Command, Forward, LeakReport, Registries, Rsync, Serial, Shell, Transfer},
    target_names,
    uri::{Resource, Scheme},
};

use crate::{Engine, observe::Watched};

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(1);

/// A call that read or wrote counts as an observer for this long.
const USED: Duration = Duration::from_secs(30);

/// One resource nobody observes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unobserved {
    /// Which one.
    pub resource: Resource,
    /// For how long.
    pub age: Duration,
}

pub(crate) fn start(engine: &Arc<Engine>) {
    let weak = Arc::downgrade(engine);
    engine.tasks.spawn(async move {
        loop {
            tokio::time::sleep(PERIOD).await;
            let Some(engine) = weak.upgrade() else { return };
            engine.look_for_leaks();
        }
    });
}

impl Engine {
    fn look_for_leaks(&self) {
        let now = self.clock.now();
        for command in self.registries.commands.all() {
            self.look_at(now, Subject::of_command(&command), || Watched::Command(Arc::clone(&command)));
        }
        for shell in self.registries.shells.all() {
            self.look_at(now, Subject::of_shell(&shell), || Watched::Shell(Arc::clone(&shell)));
        }
        for transfer in self.registries.transfers.all() {
            self.look_at(now, Subject::of_transfer(&transfer), || Watched::Transfer(Arc::clone(&transfer)));
        }
        for rsync in self.registries.rsyncs.all() {
            self.look_at(now, Subject::of_rsync(&rsync), || Watched::Rsync(Arc::clone(&rsync)));
        }
        for forward in self.registries.forwards.all() {
            self.look_at(now, Subject::of_forward(&forward), || Watched::Forward(Arc::clone(&forward)));
        }
        for serial in self.registries.serials.all() {
            self.look_at(now, Subject::of_serial(&serial), || Watched::Serial(Arc::clone(&serial)));
        }
    }

    fn look_at(&self, now: Duration, subject: Subject<'_>, watched: impl FnOnce() -> Watched) {
        // The epoch is taken before the times are looked at: an observer in between makes the outcome void.
        let seen = subject.life.snapshot();
        if seen.state != State::Owned || seen.auto_release == AutoRelease::On || subject.has_ended {
            return;
        }
        let kills =
            self.settings.leak_kill.is_some_and(|limit| now >= subject.last_use().saturating_add(limit));
        if kills && subject.life.expire_leak(seen.epoch) == Expired::RunClose {
            tracing::warn!(target: target_names::LIFECYCLE, uri = %subject.resource, "ended: nobody observed or used it");
            return watched().grant_stop(Reason::LeakKill);
        }
        if now >= subject.alone_since() + self.settings.leak_warn
            && subject.life.report_leak(seen.epoch) == Report::Due
        {
            subject.report.make();
        }
    }

    /// The report about a resource that is due, for whoever shows it; given once.
    pub fn take_leak(&self, resource: Resource) -> Option<Unobserved> {
        let Registries { commands, shells, transfers, rsyncs, forwards, serials, .. } = &self.registries;
        let now = self.clock.now();
        match resource.scheme {
            Scheme::Command => Subject::of_command(&*commands.entry(resource.id.into())?).take_report(now),
            Scheme::Shell => Subject::of_shell(&*shells.entry(resource.id.into())?).take_report(now),
            Scheme::Transfer => Subject::of_transfer(&*transfers.entry(resource.id.into())?).take_report(now),
            Scheme::Rsync => Subject::of_rsync(&*rsyncs.entry(resource.id.into())?).take_report(now),
            Scheme::Forward => Subject::of_forward(&*forwards.entry(resource.id.into())?).take_report(now),
            Scheme::Serial => Subject::of_serial(&*serials.entry(resource.id.into())?).take_report(now),
            Scheme::Session => None,
        }
    }
}

/// What the watcher needs to know of a resource.
struct Subject<'a> {
    resource: Resource,
    life: &'a Lifecycle,
    report: &'a LeakReport,
    has_ended: bool,
    created: Duration,
    /// When its last lane left.
    unwatched: Duration,
    /// When a call last read or wrote.
    used: Duration,
}

impl<'a> Subject<'a> {
    fn of_command(command: &'a Command) -> Self {
        Self {
            resource: command.spec.id.into(),
            life: &command.life,
            report: &command.leak,
            has_ended: command.ending.get().is_some(),
            created: command.spec.started,
            unwatched: command.unwatched.last(),
            used: command.read.last(),
        }
    }

    fn of_shell(shell: &'a Shell) -> Self {
        Self {
            resource: shell.spec.id.into(),
            life: &shell.life,
            report: &shell.leak,
            has_ended: shell.ending.get().is_some(),
            created: shell.spec.opened,
            unwatched: shell.unwatched.last(),
            used: shell.read.last(),
        }
    }

    fn of_transfer(transfer: &'a Transfer) -> Self {
        Self {
            resource: transfer.spec.id.into(),
            life: &transfer.life,
            report: &transfer.leak,
            has_ended: transfer.ending.get().is_some(),
            created: transfer.spec.started,
            unwatched: transfer.unwatched.last(),
            used: transfer.read.last(),
        }
    }

    fn of_rsync(rsync: &'a Rsync) -> Self {
        Self {
            resource: rsync.spec.id.into(),
            life: &rsync.life,
            report: &rsync.leak,
            has_ended: rsync.ending.get().is_some(),
            created: rsync.spec.started,
            unwatched: rsync.unwatched.last(),
            used: rsync.read.last(),
        }
    }

    fn of_forward(forward: &'a Forward) -> Self {
        Self {
            resource: forward.spec.id.into(),
            life: &forward.life,
            report: &forward.leak,
            has_ended: forward.ending.get().is_some(),
            created: forward.spec.started,
            unwatched: forward.unwatched.last(),
            // What goes through it is input.
            used: forward.read.last().max(forward.active.last()),
        }
    }

    fn of_serial(serial: &'a Serial) -> Self {
        Self {
            resource: serial.spec.id.into(),
            life: &serial.life,
            report: &serial.leak,
            has_ended: serial.ending.get().is_some(),
            created: serial.spec.opened,
            unwatched: serial.unwatched.last(),
            used: serial.read.last(),
        }
    }

    fn last_use(&self) -> Duration {
        self.unwatched.max(self.used)
    }

    /// Since when nobody has observed it; the use of a call counts for a while.
    fn alone_since(&self) -> Duration {
        // Times of use are whole milliseconds, and begin with that of the creation.
        let was_used = self.used.as_millis() > self.created.as_millis();
        if was_used { self.unwatched.max(self.used + USED) } else { self.unwatched }
    }

    fn take_report(&self, now: Duration) -> Option<Unobserved> {
        let seen = self.life.snapshot();
        let stands = seen.state == State::Owned && seen.leak == Leak::Reported;
        (self.report.take() && stands)
            .then(|| Unobserved { resource: self.resource, age: now.saturating_sub(self.alone_since()) })
    }
}
