//! Forwards: open one, take its connections, end it (`docs/forwards.md`).
//!
//! | File | Holds |
//! | --- | --- |
//! | `listener` | sockets of this machine that listen |
//! | `visit` | one connection: whom it is joined to, what is told of it |
//! | `carry` | bytes between a socket and a channel, and who is waited for |
//! | `crowd` | the connections of one forward as they see each other |
//!
//! Each forward has one task, which owns its line, its listener and its connections.

mod carry;
mod crowd;
mod listener;
mod visit;

use std::{sync::Arc, time::Duration};

use ssh_mcp_core::{
    id::SessionId,
    kind::forward::{Passage, is_exposed},
    lifecycle::{Close, Confirmed, SessionRef},
    owner::Owner,
    port::{
        forward::{Line, LineError, ListenError},
        ssh::LinkLost,
    },
    quota::Quota,
    reason::Reason,
    registry::{Closing, Forward, ForwardSpec, Session},
    target_names,
};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use self::{crowd::Crowd, listener::Listener, visit::Visit};
use crate::{Clock, Engine, StartError, session::while_open};

pub use listener::BindError;

/// What a caller wants forwarded.
#[derive(Debug, Clone)]
pub struct ForwardOrder {
    /// Where.
    pub session: SessionId,
    /// Which side listens, and where connections go. Port 0 takes any.
    pub passage: Passage,
}

/// Why there is no forward.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// As for everything that is started on a session.
    #[error(transparent)]
    Start(#[from] StartError),
    /// This machine does not listen there.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// It has no connection of its own.
    #[error(transparent)]
    Line(#[from] LineError),
    /// The server does not listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The server did not say whether it listens.
    #[error("the server did not say within {} s whether it listens", .after.as_secs_f32())]
    NoAnswer {
        /// How long was waited.
        after: Duration,
    },
}

/// What a close found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseForward {
    /// It was active, and has ended.
    Done,
    /// It had ended.
    AlreadyStopped,
}

/// Connections of a forward that is closed have so long to end by themselves.
const FAREWELL: Duration = Duration::from_secs(5);

/// What is told to end does so in this time, or is dropped.
const ENDING: Duration = Duration::from_secs(1);

/// A listener that cannot take a connection, mostly for want of file descriptors, rests for this long.
const REST: Duration = Duration::from_millis(200);

impl Engine {
    /// Opens a forward. When this answers, it takes connections.
    ///
    /// # Errors
    /// See [`ForwardError`]; then nobody listens.
    pub async fn forward(
        self: &Arc<Self>,
        owner: &Owner,
        order: ForwardOrder,
    ) -> Result<Arc<Forward>, ForwardError> {
        self.creating(|| StartError::Draining.into(), self.open_forward(owner, order)).await
    }

    async fn open_forward(
        self: &Arc<Self>,
        owner: &Owner,
        order: ForwardOrder,
    ) -> Result<Arc<Forward>, ForwardError> {
        let session = self.session(owner, order.session).map_err(StartError::Session)?;
        let hold = SessionRef::take(&session.life).ok_or_else(|| self.ending(&session))?;
        let limit = session.forwards.limit();
        let place = session.forwards.take().ok_or(StartError::TooManyForwards { limit })?;
        // A port that is taken is found out before a connection is made for it.
        let here = match &order.passage {
            Passage::Local { listen, .. } | Passage::Dynamic { listen } => {
                Some(Listener::bind(listen).await?)
            }
            Passage::Remote { .. } => None,
        };
        let line = while_open(&session, session.link.line()).await.ok_or_else(|| self.ending(&session))??;
        let line: Arc<dyn Line> = Arc::from(line);
        let (door, port) = match here {
            Some(listener) => {
                let port = listener.port();
                (Door::Here(listener), port)
            }
            None => {
                let after = self.settings.connect_timeout;
                let listening = timeout(after, line.listen(order.passage.listen()));
                let port = listening.await.map_err(|_| ForwardError::NoAnswer { after })??;
                (Door::There, port)
            }
        };

        let spec = ForwardSpec {
            id: self.mint(),
            owner: owner.clone(),
            session: session.spec.id,
            target: session.spec.target.to_string(),
            agent: session.spec.agent.clone(),
            passage: order.passage.on_port(port),
            started: self.clock.now(),
        };
        let lanes = Quota::new(self.settings.lanes_per_uri);
        let forward = Arc::new(Forward::new(spec, lanes, (hold, place)));
        self.registries.forwards.publish(Arc::clone(&forward));
        self.list_changed(owner);
        // On an ending session either the cascade has found it, or it is refused here. Its task settles it either way.
        let refused = session.life.confirm() == Confirmed::Ending
            && forward.stop(Reason::CascadeDisconnect, Closing::AtOnce) == Close::Won;
        let running = Running {
            clock: self.clock,
            session: Arc::clone(&session),
            forward: Arc::clone(&forward),
            line,
            connections: self.settings.max_forward_connections,
            reach: self.settings.connect_timeout,
        };
        self.tasks.spawn(running.run(door));
        if refused {
            self.registries.forwards.withdraw(forward.spec.id);
            self.list_changed(owner);
            return Err(self.ending(&session).into());
        }
        Ok(forward)
    }

    /// Ends a forward and waits for that: its listener at once, its connections as `closing` says.
    pub async fn close_forward(self: &Arc<Self>, forward: &Arc<Forward>, closing: Closing) -> CloseForward {
        let close = forward.stop(Reason::ManualClose, closing);
        self.forward_ended(forward).await;
        match close {
            Close::Won => CloseForward::Done,
            Close::Lost => CloseForward::AlreadyStopped,
        }
    }
}

/// Where connections come in.
enum Door {
    /// On this machine.
    Here(Listener),
    /// On the server.
    There,
}

/// The task of one forward: the only one that records its end.
struct Running {
    clock: Clock,
    session: Arc<Session>,
    forward: Arc<Forward>,
    line: Arc<dyn Line>,
    /// Connections at a time.
    connections: usize,
    /// How long the target of a remote forward may take to answer.
    reach: Duration,
}

/// What happens to a forward.
enum Happening {
    Told,
    Lost(LinkLost),
    Left,
    Came(std::io::Result<visit::Guest>),
}

impl Running {
    async fn run(self, door: Door) {
        self.log_opened();
        let mut visits = JoinSet::new();
        let cut = CancellationToken::new();
        let cause = self.take_connections(&door, &mut visits, &cut).await;
        // The listener goes first: whoever comes from here on is refused.
        let was_there = matches!(door, Door::There);
        drop(door);
        if self.forward.life.close() == Close::Won {
            self.forward.duty.give((Reason::ConnectionLost, Closing::AtOnce));
        }
        // Somebody else may have won at this very moment; its order follows at once.
        let (reason, closing) = loop {
            match self.forward.duty.order() {
                Some(order) => break order,
                None => self.forward.duty.told.notified().await,
            }
        };
        if was_there {
            self.line.unlisten().await;
        }
        let over = async { while visits.join_next().await.is_some() {} };
        let patience = match closing {
            Closing::Patient => FAREWELL,
            Closing::AtOnce => Duration::ZERO,
        };
        _ = timeout(patience, over).await;
        cut.cancel();
        let over = async { while visits.join_next().await.is_some() {} };
        _ = timeout(ENDING, over).await;
        visits.shutdown().await;
        _ = timeout(2 * ENDING, self.line.disconnect()).await;
        let now = self.clock.now();
        self.session.active.touch(now);
        let cause = cause.map(|lost| lost.cause).filter(|_| reason == Reason::ConnectionLost);
        self.forward.settle(now, cause);
        self.log_closed(now);
    }

    /// Takes connections until it is told to end, or the line is gone: then the cause.
    async fn take_connections(
        &self,
        door: &Door,
        visits: &mut JoinSet<()>,
        cut: &CancellationToken,
    ) -> Option<LinkLost> {
        let crowd = Arc::new(Crowd::default());
        let mut rests_until = Duration::ZERO;
        loop {
            let takes_more = visits.len() < self.connections;
            let happening = tokio::select! {
                biased;
                () = self.forward.duty.told.notified() => Happening::Told,
                lost = self.line.lost() => Happening::Lost(lost),
                Some(_) = visits.join_next() => Happening::Left,
                came = self.next_guest(door, rests_until), if takes_more => Happening::Came(came),
            };
            match happening {
                Happening::Told => return None,
                Happening::Lost(lost) => return Some(lost),
                Happening::Left => {}
                Happening::Came(Ok(guest)) => {
                    let now = self.clock.now();
                    let conn = self.forward.traffic.accepted(now, guest.peer());
                    let visit = Visit {
                        clock: self.clock,
                        session: Arc::clone(&self.session),
                        forward: Arc::clone(&self.forward),
                        line: Arc::clone(&self.line),
                        member: crowd.join(),
                        cut: cut.clone(),
                        conn,
                        came: now,
                        reach: self.reach,
                    };
                    visits.spawn(visit.run(guest));
                }
                Happening::Came(Err(error)) => {
                    let now = self.clock.now();
                    self.forward.traffic.troubled(now, error.to_string());
                    rests_until = now + REST;
                }
            }
        }
    }

    /// The next connection; dropping the future loses none.
    async fn next_guest(&self, door: &Door, rests_until: Duration) -> std::io::Result<visit::Guest> {
        if self.clock.now() < rests_until {
            self.clock.sleep_until(rests_until).await;
        }
        match door {
            Door::Here(listener) => {
                let (socket, peer) = listener.accept().await?;
                Ok(visit::Guest::Here(socket, peer))
            }
            Door::There => match self.line.arrival().await {
                Ok(arrival) => Ok(visit::Guest::There(arrival)),
                // The loss is seen beside this.
                Err(_) => std::future::pending().await,
            },
        }
    }

    fn log_opened(&self) {
        let ForwardSpec { id, session, passage, .. } = &self.forward.spec;
        let listen = passage.listen();
        let to = passage.to().map(ToString::to_string);
        tracing::info!(
            target: target_names::FORWARD,
            forward_id = %id,
            session_id = %session,
            direction = passage.facing().as_str(),
            %listen,
            to,
            "forward opened"
        );
        if is_exposed(&listen.host) {
            tracing::warn!(
                target: target_names::FORWARD,
                code = "EXPOSED_LISTENER",
                forward_id = %id,
                %listen,
                "others than this machine reach the listener"
            );
        }
    }

    fn log_closed(&self, now: Duration) {
        let Some(end) = self.forward.ending.get() else { return };
        let traffic = &self.forward.traffic;
        tracing::info!(
            target: target_names::FORWARD,
            forward_id = %self.forward.spec.id,
            session_id = %self.forward.spec.session,
            reason = %end.reason,
            connections = traffic.counts().accepted,
            to_remote = traffic.bytes_to_remote(),
            from_remote = traffic.bytes_from_remote(),
            duration_ms = (now - self.forward.spec.started).as_millis() as u64,
            "forward closed"
        );
    }
}
