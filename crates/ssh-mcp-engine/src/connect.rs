//! Opening sessions: reuse what is there, else try until it works or must not be tried again.

use std::{sync::Arc, time::Duration};

use ssh_mcp_core::{
    activity::Activity,
    flight::Flight,
    history::StateHistory,
    id::SessionId,
    lifecycle::{Ending, SessionLife, Touched},
    owner::Owner,
    port::{
        resolve::{ResolveError, Resolved, TargetAsk},
        ssh::{ConnectError, ConnectRequest, Connected, HostKeyStatus, Transience},
    },
    quota::{Place, Quota},
    registry::{Expiry, Health, HealthWord, Mount, Session, SessionSpec},
    retry,
    target::{Hop, HostKeyPolicy, Route, ShownKey, Target},
    target_names,
};

use crate::{Engine, session::while_open};

/// What a caller wants.
#[derive(Debug, Clone)]
pub struct Connect {
    /// Where to; may be left out when `session` is given.
    pub goal: Option<Goal>,
    /// A session the caller knows; taken if it is alive, whatever `reuse` says.
    pub session: Option<SessionId>,
    /// Time of one attempt; left out, what the configuration says of the target, else the setting.
    pub timeout: Option<Duration>,
    /// Further attempts after a transient failure.
    pub max_retries: u32,
    /// First wait between two attempts.
    pub retry_delay: Duration,
    /// Time for all attempts and waits together.
    pub overall: Option<Duration>,
    /// A label.
    pub name: Option<String>,
    /// The agent the session is made for.
    pub agent: Option<String>,
    /// Whether it ends when idle.
    pub expiry: Expiry,
    /// What to do with sessions that lead to the same place.
    pub reuse: Reuse,
    /// Host keys the user has accepted.
    pub accepted: Vec<ShownKey>,
}

/// Where to.
#[derive(Debug, Clone)]
pub enum Goal {
    /// This account on this host, straight; no configuration is read.
    Host(Box<Hop>),
    /// What the configuration makes of a target.
    Target(Box<TargetAsk>),
}

/// What to do with sessions that lead to the same account on the same host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Show them instead of connecting.
    Suggest,
    /// Take the best healthy one.
    Auto,
    /// Do not look.
    ForceNew,
}

/// What came of it.
pub enum ConnectAnswer {
    /// A new session.
    Connected {
        /// The session.
        session: Arc<Session>,
        /// Attempts before the one that worked.
        retries: u32,
        /// Dead sessions that were found and dropped.
        replaced: u64,
    },
    /// A session that was there.
    Reused {
        /// The session.
        session: Arc<Session>,
        /// Dead sessions that were found and dropped.
        replaced: u64,
    },
    /// Sessions the caller may want instead; nothing was connected.
    Suggested {
        /// Best first.
        matches: Vec<Arc<Session>>,
    },
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailure {
    /// As many sessions are open as may be.
    #[error("{limit} sessions are open")]
    TooManySessions {
        /// How many may be.
        limit: u32,
    },
    /// The server is stopping.
    #[error("the server is stopping")]
    Draining,
    /// The named session is dead and no address was given.
    #[error("the session is gone and no address was given")]
    NoTarget,
    /// The target leads nowhere.
    #[error(transparent)]
    Unresolved(#[from] ResolveError),
    /// No attempt worked.
    #[error("{error}")]
    Failed {
        /// The last failure.
        error: ConnectError,
        /// How many attempts were made.
        attempts: u32,
        /// Where to.
        target: Target,
    },
}

/// Called after each failed attempt with its number, from 1.
pub type Progress<'a> = &'a (dyn Fn(u32, &ConnectError) + Send + Sync);

impl Engine {
    /// Opens or finds a session. Dropping the future gives the attempt up.
    ///
    /// # Errors
    /// See [`ConnectFailure`]; nothing is left behind.
    pub async fn connect(
        self: &Arc<Self>,
        owner: &Owner,
        ask: Connect,
        progress: Progress<'_>,
    ) -> Result<ConnectAnswer, ConnectFailure> {
        self.creating(|| ConnectFailure::Draining, self.reuse_or_open(owner, ask, progress)).await
    }

    async fn reuse_or_open(
        self: &Arc<Self>,
        owner: &Owner,
        ask: Connect,
        progress: Progress<'_>,
    ) -> Result<ConnectAnswer, ConnectFailure> {
        let deadline = ask.overall.map(|overall| self.clock.now().saturating_add(overall));
        let mut replaced = 0;
        if let Some(id) = ask.session
            && let Ok(session) = self.session(owner, id)
        {
            if self.is_healthy(&session).await && self.touch(&session) == Touched::Kept {
                return Ok(ConnectAnswer::Reused { session, replaced });
            }
            replaced += self.drop_dead(&mut vec![session]);
        }
        let way = match &ask.goal {
            None => return Err(ConnectFailure::NoTarget),
            Some(Goal::Host(hop)) => Resolved { via: Vec::new(), hop: (**hop).clone(), timeout: None },
            Some(Goal::Target(target)) => self.ports.connector.resolve(target).await?,
        };
        match ask.reuse {
            Reuse::ForceNew => {}
            Reuse::Suggest => {
                let mut matches = self.probed_matches(owner, &way, &ask).await;
                matches.retain(|session| session.is_open());
                if !matches.is_empty() {
                    return Ok(ConnectAnswer::Suggested { matches });
                }
            }
            Reuse::Auto => {
                let mut matches = self.probed_matches(owner, &way, &ask).await;
                replaced += self.drop_dead(&mut matches);
                let healthy = |session: &Arc<Session>| session.health.load().word == HealthWord::Healthy;
                if let Some(session) =
                    matches.into_iter().find(|one| healthy(one) && self.touch(one) == Touched::Kept)
                {
                    return Ok(ConnectAnswer::Reused { session, replaced });
                }
            }
        }
        let limit = self.sessions.limit();
        let place = self.sessions.take().ok_or(ConnectFailure::TooManySessions { limit })?;
        let (connected, retries) = self.attempt(&ask, &way, deadline, progress).await?;
        let session = self.open(owner, ask, &way, connected, place);
        Ok(ConnectAnswer::Connected { session, retries, replaced })
    }

    /// Open sessions to the same place, those of the same agent first, newest first, each with fresh news of its
    /// health.
    async fn probed_matches(
        self: &Arc<Self>,
        owner: &Owner,
        way: &Resolved,
        ask: &Connect,
    ) -> Vec<Arc<Session>> {
        let agent = ask.agent.as_deref();
        // A host nobody checked will not do for a call that wants it checked.
        let trusted = |session: &Session| {
            way.hop.host_keys.policy == HostKeyPolicy::DangerAcceptAny
                || session.spec.host_key.status != HostKeyStatus::Unchecked
        };
        let mut matches = self.registries.sessions.of_owner(owner);
        let route = route(way);
        matches.retain(|session| {
            session.spec.target == way.hop.target
                && session.spec.route == route
                && session.is_open()
                && trusted(session)
        });
        matches.sort_by_key(|session| agent.is_none() || session.spec.agent.as_deref() != agent);
        self.probe_each(&matches).await;
        matches
    }

    async fn attempt(
        &self,
        ask: &Connect,
        way: &Resolved,
        deadline: Option<Duration>,
        progress: Progress<'_>,
    ) -> Result<(Connected, u32), ConnectFailure> {
        let timeout = ask.timeout.or(way.timeout).unwrap_or(self.settings.connect_timeout);
        let target = &way.hop.target;
        let mut waits = retry::waits(ask.retry_delay, ask.max_retries, self.mint.seed());
        let mut attempts = 0;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_sub(self.clock.now()));
            let request = ConnectRequest {
                via: way.via.clone(),
                hop: way.hop.clone(),
                timeout: left.map_or(timeout, |left| left.min(timeout)),
                accepted: ask.accepted.clone(),
            };
            let error = match self.ports.connector.connect(&request).await {
                Ok(connected) => return Ok((connected, attempts)),
                Err(error) => error,
            };
            attempts += 1;
            progress(attempts, &error);
            let failed = |error| ConnectFailure::Failed { error, attempts, target: target.clone() };
            if transience(&error) == Transience::Permanent {
                return Err(failed(error));
            }
            let Some(wait) = waits.next() else { return Err(failed(error)) };
            // A wait that would use up the time that is left is not begun.
            if deadline.is_some_and(|deadline| self.clock.now() + wait >= deadline) {
                return Err(failed(error));
            }
            tracing::debug!(target: target_names::SSH, host = %target.address, attempts, %error, "connect failed, waiting");
            tokio::time::sleep(wait).await;
        }
    }

    fn open(
        self: &Arc<Self>,
        owner: &Owner,
        ask: Connect,
        way: &Resolved,
        connected: Connected,
        place: Place,
    ) -> Arc<Session> {
        let now = self.clock.now();
        let Connected { link, host_key, auth_method, compressed } = connected;
        let session = Arc::new(Session {
            spec: SessionSpec {
                id: self.mint(),
                owner: owner.clone(),
                target: way.hop.target.clone(),
                route: route(way),
                agent: ask.agent,
                name: ask.name,
                expiry: ask.expiry,
                connected: now,
                host_key,
                auth_method,
                compressed,
            },
            life: Arc::new(SessionLife::new()),
            link,
            active: Activity::new(now),
            health: StateHistory::new(Health { word: HealthWord::Healthy, checked: now, round_trip: None }),
            commands: Quota::new(self.settings.max_commands_per_session),
            shells: Quota::new(self.settings.max_shells_per_session),
            transfers: Quota::new(self.settings.max_transfers_per_session),
            forwards: Quota::new(self.settings.max_forwards_per_session),
            lanes: Quota::new(self.settings.lanes_per_uri),
            files: Mount::new(now),
            login_shell: Flight::new(),
            rsync: Flight::new(),
            ending: Ending::new(),
            place: ssh_mcp_core::sync::Mutex::new(Some(place)),
        });
        self.registries.sessions.publish(Arc::clone(&session));
        self.list_changed(owner);
        let spec = &session.spec;
        tracing::info!(
            target: target_names::SSH,
            session_id = %spec.id,
            host = %spec.target.address,
            user = %spec.target.username,
            method = spec.auth_method,
            "session opened"
        );
        self.watch_link(&session);
        session
    }

    /// Ends a session when its first connection is gone.
    fn watch_link(self: &Arc<Self>, session: &Arc<Session>) {
        let engine = Arc::downgrade(self);
        let session = Arc::clone(session);
        self.tasks.spawn(async move {
            if let Some(lost) = while_open(&session, session.link.lost()).await
                && let Some(engine) = engine.upgrade()
            {
                // Whoever else ends it at this moment has won.
                _ = engine.lose(&session, &lost.cause);
            }
        });
    }
}

fn route(way: &Resolved) -> Route {
    Route {
        via: way.via.iter().map(|hop| hop.target.clone()).collect(),
        host_key_name: way.hop.host_key_name.clone(),
        program: way
            .via
            .first()
            .unwrap_or(&way.hop)
            .wire
            .program
            .as_ref()
            .map(|program| program.line.clone()),
        lendings: way.hop.lendings.clone(),
    }
}

fn transience(error: &ConnectError) -> Transience {
    match error {
        ConnectError::Failed { transience, .. } => *transience,
        ConnectError::TimedOut { .. } => Transience::Transient,
        ConnectError::Jump { error, .. } => transience(error),
        ConnectError::Rejected { .. }
        | ConnectError::Key { .. }
        | ConnectError::UnknownHostKey { .. }
        | ConnectError::ChangedHostKey { .. }
        | ConnectError::KnownHosts { .. } => Transience::Permanent,
    }
}
