//! Living with sessions and ending them: probes, the cascade, the transport.

use std::{collections::BTreeMap, future::Future, pin::pin, sync::Arc, time::Duration};

use ssh_mcp_core::{
    id::SessionId,
    lifecycle::{Close, Disconnect, End, SessionRef, SessionState},
    owner::Owner,
    reason::Reason,
    registry::{Cascade, Closing, Entry, Health, HealthWord, Manner, Session},
    target_names,
};

use crate::{Engine, Missing};

/// What a disconnect ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Disconnected {
    /// Commands that were running.
    pub commands_cancelled: u64,
    /// Shells that were open.
    pub shells_closed: u64,
    /// Transfers that were under way.
    pub transfers_aborted: u64,
    /// Syncs that were under way.
    pub rsyncs_cancelled: u64,
    /// Forwards that were open.
    pub forwards_closed: u64,
}

/// What the disconnect of an agent's sessions ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AgentDisconnected {
    /// Sessions.
    pub sessions_closed: u64,
    /// Commands that were running.
    pub commands_cancelled: u64,
    /// Shells that were open.
    pub shells_closed: u64,
    /// Transfers that were under way.
    pub transfers_aborted: u64,
    /// Syncs that were under way.
    pub rsyncs_cancelled: u64,
    /// Forwards that were open.
    pub forwards_closed: u64,
}

/// A keepalive that has no answer by then has none.
const PROBE: Duration = Duration::from_secs(5);

/// Resources of a session that is disconnected have this long to end, then the transport is cut
/// (`docs/lifecycle.md`, S8).
const CASCADE: Duration = Duration::from_secs(5);

impl Engine {
    /// Ends a session and everything on it; of several callers each learns the outcome.
    ///
    /// # Errors
    /// If the session is unknown, of another owner, or has ended.
    pub async fn disconnect(self: &Arc<Self>, owner: &Owner, id: SessionId) -> Result<Disconnected, Missing> {
        let session = self.look_up(&self.registries.sessions, owner, id)?;
        match self.begin_disconnect(&session, Reason::ManualClose) {
            Disconnect::Won | Disconnect::AlreadyReleasing => {}
            Disconnect::AlreadyClosed => {
                let (reason, ended) = session.ended().unwrap_or((Reason::ConnectionLost, self.clock.now()));
                return Err(self.gone(&self.registries.sessions, owner, id, reason, ended));
            }
        }
        let cascade = disconnected(&session).await;
        Ok(Disconnected {
            commands_cancelled: cascade.commands,
            shells_closed: cascade.shells,
            transfers_aborted: cascade.transfers,
            rsyncs_cancelled: cascade.rsyncs,
            forwards_closed: cascade.forwards,
        })
    }

    /// Ends all sessions of an agent; of an unknown agent, none.
    pub async fn disconnect_agent(self: &Arc<Self>, owner: &Owner, agent: &str) -> AgentDisconnected {
        let mut sessions = self.registries.sessions.of_owner(owner);
        sessions.retain(|session| session.spec.agent.as_deref() == Some(agent));
        // All begin at once, then each is waited for.
        sessions.retain(|session| {
            self.begin_disconnect(session, Reason::ManualClose) != Disconnect::AlreadyClosed
        });
        let mut total = AgentDisconnected::default();
        for session in &sessions {
            let cascade = disconnected(session).await;
            total.sessions_closed += 1;
            total.commands_cancelled += cascade.commands;
            total.shells_closed += cascade.shells;
            total.transfers_aborted += cascade.transfers;
            total.rsyncs_cancelled += cascade.rsyncs;
            total.forwards_closed += cascade.forwards;
        }
        total
    }

    /// Probes the owner's open sessions by a keepalive each, all at once; dead ones are closed and left out.
    pub async fn probe(self: &Arc<Self>, owner: &Owner, agent: Option<&str>) -> Vec<Arc<Session>> {
        let mut sessions = self.registries.sessions.of_owner(owner);
        sessions.retain(|session| {
            session.is_open() && (agent.is_none() || session.spec.agent.as_deref() == agent)
        });
        self.probe_each(&sessions).await;
        self.drop_dead(&mut sessions);
        sessions
    }

    /// A keepalive to each, all at once; what came of it is in the sessions' health.
    pub(crate) async fn probe_each(self: &Arc<Self>, sessions: &[Arc<Session>]) {
        let mut probes = tokio::task::JoinSet::new();
        for session in sessions {
            let (engine, session) = (Arc::clone(self), Arc::clone(session));
            probes.spawn(async move { engine.is_healthy(&session).await });
        }
        while probes.join_next().await.is_some() {}
    }

    /// Closes what is dead among sessions that were open before they were probed, and leaves it out; the answer is
    /// how many those were.
    ///
    /// A late answer on a session in use is no death: it stands behind the output on its way. Keepalives decide there.
    pub(crate) fn drop_dead(self: &Arc<Self>, sessions: &mut Vec<Arc<Session>>) -> u64 {
        let before = sessions.len();
        for session in sessions.iter() {
            let late = session.health.load().word == HealthWord::Unhealthy;
            if late && session.life.snapshot().state == SessionState::Idle {
                // Whoever else ends it at this moment has won.
                _ = self.lose(session, "no answer to a keepalive");
            }
        }
        sessions.retain(|session| session.is_open());
        (before - sessions.len()) as u64
    }

    /// How many open sessions each agent of the owner has, by name.
    pub fn healthy_sessions_of_agents(&self, owner: &Owner) -> Vec<(String, usize)> {
        let mut agents: BTreeMap<String, usize> = BTreeMap::new();
        for session in self.registries.sessions.of_owner(owner) {
            let healthy = session.health.load().word == HealthWord::Healthy;
            if let (Some(agent), true, true) = (&session.spec.agent, healthy, session.is_open()) {
                *agents.entry(agent.clone()).or_default() += 1;
            }
        }
        agents.into_iter().collect()
    }

    /// One round trip of a keepalive, recorded in the session's health; a session that is ending is not healthy.
    pub(crate) async fn is_healthy(self: &Arc<Self>, session: &Arc<Session>) -> bool {
        let Some(_hold) = SessionRef::take(&session.life) else { return false };
        let ping = tokio::time::timeout(PROBE, session.link.ping());
        let Some(answer) = while_open(session, ping).await else { return false };
        let now = self.clock.now();
        let health = match answer {
            Ok(Ok(round_trip)) => {
                Health { word: HealthWord::Healthy, checked: now, round_trip: Some(round_trip) }
            }
            Ok(Err(lost)) => {
                _ = self.lose(session, &lost.cause);
                return false;
            }
            Err(_) => Health { word: HealthWord::Unhealthy, checked: now, round_trip: None },
        };
        let word = health.word;
        session.health.record(health);
        word == HealthWord::Healthy
    }

    /// S5, S6: the winner's duty runs in a task, so that a caller that goes away leaves nothing half done.
    pub(crate) fn begin_disconnect(self: &Arc<Self>, session: &Arc<Session>, reason: Reason) -> Disconnect {
        let disconnect = session.life.begin_disconnect();
        if disconnect == Disconnect::Won {
            self.run_disconnect(session, reason);
        }
        disconnect
    }

    /// The duty of whoever moved a session to *Releasing*.
    pub(crate) fn run_disconnect(self: &Arc<Self>, session: &Arc<Session>, reason: Reason) {
        let (engine, session) = (Arc::clone(self), Arc::clone(session));
        self.tasks.spawn(async move {
            let deadline = engine.clock.now() + CASCADE;
            let shutdown = reason == Reason::ServerShutdown;
            let cascade_reason = if shutdown { reason } else { Reason::CascadeDisconnect };
            let cascade = engine.cascade(&session, cascade_reason);
            _ = tokio::time::timeout(CASCADE, drained(&session)).await;
            let left = deadline.saturating_sub(engine.clock.now()).max(Duration::from_millis(250));
            _ = tokio::time::timeout(left, session.link.disconnect()).await;
            engine.close(&session, reason, cascade);
            session.life.finish();
        });
    }

    /// S7: the transport is gone, and with it all that ran on it.
    pub(crate) fn lose(self: &Arc<Self>, session: &Arc<Session>, cause: &str) -> Disconnect {
        let lost = session.life.lose_transport();
        if lost != Disconnect::Won {
            return lost;
        }
        tracing::debug!(target: target_names::SSH, session_id = %session.spec.id, cause, "connection lost");
        let cascade = self.cascade(session, Reason::ConnectionLost);
        self.close(session, Reason::ConnectionLost, cascade);
        let session = Arc::clone(session);
        self.tasks.spawn(async move {
            _ = tokio::time::timeout(CASCADE, session.link.disconnect()).await;
        });
        lost
    }

    /// Asks everything on the session to end; a resource that is listed later finds the word closed by itself.
    fn cascade(&self, session: &Session, reason: Reason) -> Cascade {
        let mut cascade = Cascade::default();
        for command in self.registries.commands.of_session(session.spec.id) {
            cascade.commands += u64::from(command.stop(reason) == Close::Won);
        }
        for shell in self.registries.shells.of_session(session.spec.id) {
            cascade.shells += u64::from(shell.stop(reason, Manner::HangUp) == Close::Won);
        }
        for transfer in self.registries.transfers.of_session(session.spec.id) {
            cascade.transfers += u64::from(transfer.stop(reason) == Close::Won);
        }
        for rsync in self.registries.rsyncs.of_session(session.spec.id) {
            cascade.rsyncs += u64::from(rsync.stop(reason) == Close::Won);
        }
        for forward in self.registries.forwards.of_session(session.spec.id) {
            cascade.forwards += u64::from(forward.stop(reason, Closing::AtOnce) == Close::Won);
        }
        cascade
    }

    /// Records the end of a session whose word is won.
    fn close(&self, session: &Session, reason: Reason, cascade: Cascade) {
        let now = self.clock.now();
        session.place.lock().take();
        session.files.end();
        _ = session.ending.record(End { reason, facts: cascade, at: now });
        session.health.finish(Health { word: HealthWord::Disconnected, checked: now, round_trip: None });
        let spec = &session.spec;
        tracing::info!(
            target: target_names::SSH,
            session_id = %spec.id,
            host = %spec.target.address,
            user = %spec.target.username,
            %reason,
            duration_ms = (now - spec.connected).as_millis() as u64,
            "session closed"
        );
    }
}

/// Waits until a session that is being disconnected is over; what ended with it.
pub(crate) async fn disconnected(session: &Session) -> Cascade {
    let mut watch = session.life.watch();
    while session.life.snapshot().state != SessionState::Closed {
        watch.changed().await;
    }
    // The end is recorded before the word says so.
    session.ending.get().map(|end| end.facts).unwrap_or_default()
}

/// Waits until nothing holds a session that takes nothing new.
async fn drained(session: &Session) {
    let mut watch = session.life.watch();
    while session.life.snapshot().refs > 0 {
        watch.changed().await;
    }
}

/// Waits for an answer of a session's link, but not longer than the session is open.
pub(crate) async fn while_open<T>(session: &Session, answer: impl Future<Output = T>) -> Option<T> {
    let mut watch = session.life.watch();
    let mut answer = pin!(answer);
    while session.is_open() {
        tokio::select! {
            biased;
            answer = &mut answer => return Some(answer),
            () = watch.changed() => {}
        }
    }
    None
}
