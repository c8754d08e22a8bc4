//! Timers and the way out: the reaper of idle sessions, inactivity, retention, memory, shutdown.
//!
//! One task looks every few seconds; what needs to be exact (grace timers, command limits) has timers of its own.

use std::{sync::Arc, time::Duration};

use ssh_mcp_core::{
    history::ByteHistory,
    id::Id as _,
    lifecycle::{Close, Expired, Reap, SessionState, Shut},
    reason::Reason,
    registry::{Closing, Command, Entry, Forward, Manner, Registry, Session, Shell},
    target_names,
    uri::Resource,
};

use crate::{Engine, leak, session::disconnected, shell};

/// How a shutdown ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Everything was closed.
    Clean,
    /// The deadline passed with so many resources and sessions left.
    Left(usize),
}

/// How often the look-around runs (`docs/lifecycle.md`, Timers), and how often under pressure of memory or of numbers.
const PERIOD: Duration = Duration::from_secs(5);
const PRESSED: Duration = Duration::from_millis(250);
const MANY: usize = 32;

/// An ended resource keeps all its output for this long, then its newest part.
const WHOLE: Duration = Duration::from_secs(60);
const NEWEST: usize = 64 * 1024;

/// Retention of what was closed on purpose.
const SHORT: Duration = Duration::from_secs(60);

pub(crate) fn start(engine: &Arc<Engine>) {
    let weak = Arc::downgrade(engine);
    engine.tasks.spawn(async move {
        let mut pause = PERIOD;
        loop {
            tokio::time::sleep(pause).await;
            let Some(engine) = weak.upgrade() else { return };
            pause = engine.look_around();
        }
    });
    leak::start(engine);
    engine.tasks.spawn(engine.lanes.run_alarm(engine.clock));
    let weak = Arc::downgrade(engine);
    let period = engine.settings.peer_sweep;
    engine.tasks.spawn(async move {
        loop {
            tokio::time::sleep(period).await;
            let Some(engine) = weak.upgrade() else { return };
            engine.sweep_peers();
        }
    });
}

impl Engine {
    /// One look at everything; the answer is when to look again.
    fn look_around(self: &Arc<Self>) -> Duration {
        let now = self.clock.now();
        for session in self.registries.sessions.all() {
            self.reap(&session, now);
            self.probe_watched(&session, now);
            session.files.end_unused(now);
        }
        for shell in self.registries.shells.all() {
            let last = shell.active.last().max(shell.read.last());
            let idle = |ttl: Duration| last.saturating_add(ttl) <= now;
            if shell.spec.inactivity.is_some_and(idle) && shell.life.expire_idle() == Expired::RunClose {
                shell.duty.give((Reason::InactivityTtlFired, Manner::HangUp));
            }
        }
        let commands = self.registries.commands.all().len();
        self.retain(now);
        let gone = commands.saturating_sub(self.registries.commands.all().len());
        let pause = self.share_memory();
        // Where many have gone at once as many follow, which are not to pile up.
        if gone >= MANY { pause.min(PRESSED) } else { pause }
    }

    /// S5: an idle session past its expiry.
    fn reap(self: &Arc<Self>, session: &Arc<Session>, now: Duration) {
        // The epoch is taken before the time is looked at: a touch in between makes the reaping void.
        let seen = session.life.snapshot();
        let due =
            session.expires().is_some_and(|at| now >= at.saturating_add(self.settings.session_idle_grace));
        if seen.state == SessionState::Idle && due && session.life.reap(seen.epoch) == Reap::Won {
            self.run_disconnect(session, Reason::InactivityTtlFired);
        }
    }

    /// Who watches a session's health is told of it as often as keepalives are sent.
    fn probe_watched(self: &Arc<Self>, session: &Arc<Session>, now: Duration) {
        let due = now >= session.health.load().checked + self.settings.keepalive_interval;
        if due && session.lanes.in_use() > 0 && session.is_open() {
            let (engine, session) = (Arc::clone(self), Arc::clone(session));
            self.tasks.spawn(async move { _ = engine.is_healthy(&session).await });
        }
    }

    /// What has ended is cut to its newest part, and in the end forgotten.
    fn retain(&self, now: Duration) {
        let kept = self.settings.command_retention;
        self.sweep(
            &self.registries.commands,
            now,
            |_| kept,
            |command| command.read.last(),
            |command: &Command| trim(&command.history, NEWEST),
            // What it left running holds its channel for nobody any more.
            |command| command.duty.told.notify_one(),
        );
        let shell_time = |shell: &Shell| match shell::ended_by_itself(shell) {
            true => shell.spec.retention,
            false => SHORT.min(kept),
        };
        self.sweep(
            &self.registries.shells,
            now,
            shell_time,
            |shell| shell.read.last(),
            |shell: &Shell| trim(&shell.history, NEWEST),
            |_| {},
        );
        let kept = self.settings.transfer_retention;
        self.sweep(
            &self.registries.transfers,
            now,
            |_| kept,
            |transfer| transfer.read.last(),
            |_| {},
            |_| {},
        );
        self.sweep(&self.registries.rsyncs, now, |_| kept, |rsync| rsync.read.last(), |_| {}, |_| {});
        let kept = self.settings.command_retention;
        let serials = &self.registries.serials;
        self.sweep(serials, now, |_| SHORT.min(kept), |serial| serial.read.last(), |_| {}, |_| {});
        let never_read = |_: &Session| Duration::ZERO;
        self.sweep(&self.registries.sessions, now, |_| SHORT.min(kept), never_read, |_| {}, |_| {});
        let read = |forward: &Forward| forward.read.last();
        self.sweep(&self.registries.forwards, now, |_| SHORT.min(kept), read, |_| {}, |_| {});
    }

    /// Looks at the ended entries of a registry: `cut` after a minute, buried after their time, counted from their end or
    /// their last read, whichever is later, and not before every lane has had what it is owed, nor while somebody keeps it.
    fn sweep<E: Entry>(
        &self,
        registry: &Registry<E>,
        now: Duration,
        kept: impl Fn(&E) -> Duration,
        read: impl Fn(&E) -> Duration,
        cut: impl Fn(&E),
        buried: impl Fn(&E),
    ) {
        for entry in registry.all() {
            let Some((_, ended)) = entry.ended() else { continue };
            if now >= ended + WHOLE {
                cut(&entry);
            }
            let resource = Resource { scheme: E::SCHEME, id: entry.id().as_uuid() };
            let is_over = now >= ended.max(read(&entry)).saturating_add(kept(&entry));
            // Asked after the time was taken: what is kept from here on ends later than that.
            if is_over && !self.keeps.keep(ended) && !self.is_owed(resource) {
                registry.bury(entry.id(), now);
                self.close_lanes_on(resource);
                self.list_changed(entry.owner());
                buried(&entry);
            }
        }
    }

    /// All histories together stay within their bound: ended ones go first, oldest first, then each live one is held
    /// to its fair share. The answer is when to look again.
    fn share_memory(&self) -> Duration {
        let total = self.settings.history_total;
        let commands = self.registries.commands.all();
        let shells = self.registries.shells.all();
        let serials = self.registries.serials.all();
        let histories = || {
            let of_commands = commands.iter().map(|command| (command.ended(), &command.history));
            let of_shells = shells.iter().map(|shell| (shell.ended(), &shell.history));
            let of_serials = serials.iter().map(|serial| (serial.ended(), &serial.history));
            of_commands.chain(of_shells).chain(of_serials)
        };
        let mut held: usize = histories().map(|(_, history)| history.held()).sum();
        if held <= total {
            return if held > total / 2 { PRESSED } else { PERIOD };
        }
        let mut ended: Vec<_> =
            histories().filter_map(|(ended, history)| Some((ended?.1, history))).collect();
        ended.sort_by_key(|(at, _)| *at);
        for (_, history) in ended {
            if held <= total {
                return PRESSED;
            }
            // It may have grown since the sum was taken.
            held = held.saturating_sub(history.held());
            history.trim_to(0);
        }
        let live: Vec<_> = histories().filter(|(ended, _)| ended.is_none()).collect();
        let share = total / live.len().max(1);
        for (_, history) in live {
            trim(history, share);
        }
        PRESSED
    }

    /// Ends everything within the deadline; nothing is created any more once this has begun.
    pub async fn shutdown(self: &Arc<Self>) -> Drained {
        let deadline = self.settings.shutdown_deadline;
        let first = self.gate.shut() == Shut::First;
        _ = tokio::time::timeout(deadline, async {
            if first {
                tracing::info!(target: target_names::MAIN, "draining");
            }
            self.draining.cancel();
            self.gate.emptied().await;
            self.end_everything().await;
            self.close_all_lanes().await;
        })
        .await;
        self.silent.cancel();
        let left = self.live();
        self.tasks.join(Duration::from_millis(250)).await;
        match left {
            0 => Drained::Clean,
            left => Drained::Left(left),
        }
    }

    /// R14 on everything, then S6.
    async fn end_everything(self: &Arc<Self>) {
        let sessions = self.registries.sessions.all();
        let mut commands = 0_u64;
        for command in self.registries.commands.all() {
            commands += u64::from(command.stop(Reason::ServerShutdown) == Close::Won);
        }
        let mut shells = 0_u64;
        for shell in self.registries.shells.all() {
            shells += u64::from(shell.stop(Reason::ServerShutdown, Manner::HangUp) == Close::Won);
        }
        let mut transfers = 0_u64;
        for transfer in self.registries.transfers.all() {
            transfers += u64::from(transfer.stop(Reason::ServerShutdown) == Close::Won);
        }
        let mut rsyncs = 0_u64;
        for rsync in self.registries.rsyncs.all() {
            rsyncs += u64::from(rsync.stop(Reason::ServerShutdown) == Close::Won);
        }
        let mut forwards = 0_u64;
        for forward in self.registries.forwards.all() {
            forwards += u64::from(forward.stop(Reason::ServerShutdown, Closing::AtOnce) == Close::Won);
        }
        let mut serials = 0_u64;
        for serial in self.registries.serials.all() {
            serials += u64::from(serial.stop(Reason::ServerShutdown) == Close::Won);
        }
        let held = sessions.len();
        tracing::info!(

            target: target_names::MAIN,
            commands,
            shells,
            transfers,
            rsyncs,
            serials,
            forwards, sessions = held,
            "closing"

        );
        for session in &sessions {
            _ = self.begin_disconnect(session, Reason::ServerShutdown);
        }
        for session in &sessions {
            disconnected(session).await;
        }
        // Those of a connection that broke are ending by themselves.
        for command in self.registries.commands.all() {
            self.command_ended(&command).await;
        }
        for transfer in self.registries.transfers.all() {
            self.transfer_ended(&transfer).await;
        }
        for rsync in self.registries.rsyncs.all() {
            self.sync_ended(&rsync).await;
        }
        for forward in self.registries.forwards.all() {
            self.forward_ended(&forward).await;
        }
        for serial in self.registries.serials.all() {
            serial.over().await;
        }
        for shell in self.registries.shells.all() {
            shell.over().await;
            self.transcript_over(&shell).await;
        }
    }

    fn live(&self) -> usize {
        let sessions = self.registries.sessions.all().iter().filter(|entry| entry.ended().is_none()).count();
        let commands = self.registries.commands.all().iter().filter(|entry| entry.ended().is_none()).count();
        let is_live = |shell: &Arc<Shell>| {
            let is_written = shell.recording.as_ref().is_none_or(|recording| recording.is_over());
            shell.ended().is_none() || !is_written
        };
        let shells = self.registries.shells.all().iter().filter(|shell| is_live(shell)).count();
        let transfers =
            self.registries.transfers.all().iter().filter(|entry| entry.ended().is_none()).count();
        let rsyncs = self.registries.rsyncs.all().iter().filter(|entry| entry.ended().is_none()).count();
        let forwards = self.registries.forwards.all().iter().filter(|entry| entry.ended().is_none()).count();
        let serials = self.registries.serials.all().iter().filter(|entry| entry.ended().is_none()).count();
        sessions + commands + shells + transfers + rsyncs + forwards + serials
    }
}

/// Holds a history to its newest bytes; one that has no more is left alone.
fn trim(history: &ByteHistory, newest: usize) {
    if history.held() > newest {
        history.trim_to(newest);
    }
}
