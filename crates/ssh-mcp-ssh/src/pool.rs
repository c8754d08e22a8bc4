//! The connections of one link: one that makes the session, and further ones for channels the first has no place for.
//!
//! The decisions are those of [`Places`]; this is their driver. Every open runs in a task of the link, so a caller that
//! goes away leaves no channel behind: a late winner is closed. Further connections go the way of the first, to the very address or through the very
//! jump hosts, accept only the host key it showed, and log in by the ways that let it in (`docs/lifecycle.md`, 4).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use russh::client::Msg;
use ssh_mcp_core::port::BoxFuture;
use ssh_mcp_core::port::forward::{Line, LineError};
use ssh_mcp_core::port::ssh::{Channel, ChannelError, Link, LinkLost};
use ssh_mcp_core::target::Lendings;
use ssh_mcp_core::target_names;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::channel;
use crate::connection::{Connection, OpenError};
use crate::forward::RusshLine;
use crate::hops::Leg;
use crate::places::{Confirmation, Decision, Growth, Outlook, Places, Refusal, Retirement, RoomId};
use crate::tasks::Tasks;

/// One session: what [`Connector::connect`](ssh_mcp_core::port::ssh::Connector::connect) hands out.
pub(crate) struct RusshLink {
    pool: Arc<Pool>,
}

/// How a further connection is made.
pub(crate) struct Recipe {
    /// The host.
    pub(crate) leg: Leg,
    /// The hosts jumped over, the nearest first.
    pub(crate) below: Vec<Leg>,
    /// Time for the whole attempt.
    pub(crate) timeout: Duration,
}

/// What all channels of a link share.
pub(crate) struct Pool {
    first: Arc<Connection>,
    recipe: Recipe,
    /// What each channel begins with.
    lendings: Arc<Lendings>,
    growth: Growth,
    state: Mutex<State>,
    /// Rings when a place came free and when a connection came or went.
    changed: Notify,
    tasks: Tasks,
}

struct State {
    places: Places,
    connections: BTreeMap<RoomId, Arc<Connection>>,
    /// Why the last further connection could not be opened.
    last_failure: Option<String>,
}

impl RusshLink {
    /// A link over its first connection.
    pub(crate) fn new(first: Connection, recipe: Recipe) -> Self {
        let growth = if recipe.leg.repeats() { Growth::Possible } else { Growth::Impossible };
        let first = Arc::new(first);
        let state = State {
            places: Places::new(growth, Instant::now()),
            connections: BTreeMap::from([(RoomId::FIRST, Arc::clone(&first))]),
            last_failure: None,
        };
        let lendings = Arc::new(recipe.leg.terms.lendings.clone());
        let pool = Pool {
            first,
            recipe,
            lendings,
            growth,
            state: Mutex::new(state),
            changed: Notify::new(),
            tasks: Tasks::new(),
        };
        Self { pool: Arc::new(pool) }
    }
}

impl Link for RusshLink {
    fn open(&self, patience: Duration) -> BoxFuture<'_, Result<Channel, ChannelError>> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let pool = Arc::clone(&self.pool);
            self.pool.tasks.spawn(async move { pool.serve(patience, answer).await });
            // The task goes away unanswered only when the link ends.
            answered.await.unwrap_or_else(|_| Err(ChannelError::Lost(self.pool.first.watch.loss())))
        })
    }

    fn line(&self) -> BoxFuture<'_, Result<Box<dyn Line>, LineError>> {
        Box::pin(async move {
            let Recipe { leg, below, timeout: after } = &self.pool.recipe;
            tokio::select! {
                biased;
                lost = self.pool.first.watch.gone() => Err(lost.into()),
                opened = timeout(*after, RusshLine::open(leg, below)) => match opened {
                    Ok(line) => Ok(Box::new(line?) as Box<dyn Line>),
                    Err(_) => Err(LineError::TimedOut { after: *after }),
                },
            }
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<Duration, LinkLost>> {
        Box::pin(self.pool.first.ping())
    }

    fn lost(&self) -> BoxFuture<'_, LinkLost> {
        Box::pin(self.pool.first.watch.gone())
    }

    fn disconnect(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.pool.tasks.stop();
            let mut farewells = JoinSet::new();
            for connection in self.pool.all() {
                farewells.spawn(async move { connection.disconnect().await });
            }
            farewells.join_all().await;
            // Only now: what runs through them has said good-bye, which is on its way once a round trip is over.
            for jump in self.pool.recipe.leg.origin.jumps().iter().rev() {
                let _ = timeout(LAST_WORDS, jump.ping()).await;
                jump.disconnect().await;
            }
            self.pool.tasks.ended().await;
        })
    }
}

impl Drop for RusshLink {
    fn drop(&mut self) {
        self.pool.tasks.stop();
        for connection in self.pool.all() {
            connection.watch.end_with("the session was dropped");
            connection.cut();
        }
        self.pool.recipe.leg.origin.jumps().iter().rev().for_each(|jump| jump.cut());
    }
}

/// A channel's place on its connection.
pub(crate) struct Seat {
    pool: Weak<Pool>,
    room: RoomId,
}

impl Seat {
    /// A place that nobody counts.
    pub(crate) fn uncounted() -> Self {
        Self { pool: Weak::new(), room: RoomId::FIRST }
    }

    /// Whether somebody waits for it.
    pub(crate) fn is_counted(&self) -> bool {
        self.pool.strong_count() > 0
    }

    /// The server has closed the channel; gives the place back, or back to the caller to have it confirmed.
    pub(crate) fn closed_by_server(self) -> Option<Self> {
        let pool = self.pool.upgrade()?;
        let confirmation = pool.lock().places.on_closed_by_server(self.room, Instant::now());
        match confirmation {
            Confirmation::Needed => Some(self),
            Confirmation::Unneeded => {
                pool.changed.notify_waiters();
                None
            }
        }
    }

    /// We have closed the channel.
    pub(crate) fn closed_by_us(&self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.lock().places.on_closed_by_us(self.room, Instant::now());
        }
    }

    /// The server has read our close: the place is free.
    pub(crate) fn close_confirmed(self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.lock().places.on_close_confirmed(self.room, Instant::now());
            pool.changed.notify_waiters();
        }
    }
}

/// What became of the question for a channel on one connection.
enum Asked {
    Opened(russh::Channel<Msg>),
    Elsewhere(String),
    Never(String),
    Lost,
}

impl Pool {
    /// Opens a channel for whoever waits behind `answer`.
    async fn serve(
        self: Arc<Self>,
        patience: Duration,
        mut answer: oneshot::Sender<Result<Channel, ChannelError>>,
    ) {
        let outcome = self.find(patience, &mut answer).await;
        // A channel that nobody takes any more is closed by its drop.
        drop(answer.send(outcome));
    }

    async fn find(
        self: &Arc<Self>,
        patience: Duration,
        answer: &mut oneshot::Sender<Result<Channel, ChannelError>>,
    ) -> Result<Channel, ChannelError> {
        let began = Instant::now();
        let at_last = began + A_LONG_TIME;
        let patient_until = began.checked_add(patience).unwrap_or(at_last);
        let mut bound = at_last;
        let mut refusal = None;
        loop {
            if let Some(lost) = self.first.watch.lost() {
                return Err(ChannelError::Lost(lost));
            }
            let changed = self.changed.notified();
            let decision = self.lock().places.decide(Instant::now());
            match decision {
                Decision::Ask(room) => match self.ask(room).await {
                    Asked::Opened(opened) => return Ok(self.channel(room, opened)),
                    Asked::Never(cause) => return Err(ChannelError::Refused { cause }),
                    Asked::Elsewhere(cause) => refusal = Some(cause),
                    Asked::Lost => {}
                },
                Decision::Dial => {
                    let pool = Arc::downgrade(self);
                    self.tasks.spawn(async move { grow(pool).await });
                }
                Decision::Wait { until, outlook } => {
                    // What is promised has its own time limit; patience is for what comes when it was broken.
                    if outlook == Outlook::Open {
                        bound = patient_until;
                    }
                    if Instant::now() >= bound {
                        return Err(self.no_place(patience, refusal));
                    }
                    let wake = until.map_or(bound, |until| until.min(bound));
                    tokio::select! {
                        () = changed => {}
                        () = sleep_until(wake) => {}
                        _ = self.first.watch.gone() => {}
                        () = answer.closed() => return Err(self.no_place(patience, None)),
                    }
                }
            }
        }
    }

    fn no_place(&self, waited: Duration, refusal: Option<String>) -> ChannelError {
        let failure = self.lock().last_failure.clone();
        match (self.growth, failure) {
            (Growth::Impossible, _) => ChannelError::NoPlace { waited },
            (Growth::Possible, failure) => {
                let refusal = refusal.unwrap_or_else(|| "every place is taken".to_owned());
                let cause = match failure {
                    Some(failure) => format!("{refusal}; a further connection failed: {failure}"),
                    None => refusal,
                };
                ChannelError::Refused { cause }
            }
        }
    }

    /// Asks one connection for a channel until it is clear whether it has a place.
    async fn ask(&self, room: RoomId) -> Asked {
        let Some(connection) = self.connection(room) else {
            self.lock().places.on_lost(room);
            return Asked::Lost;
        };
        let mut since = None;
        for tries in 1.. {
            let words = match connection.open_session().await {
                Ok(channel) => {
                    self.lock().places.on_confirmed(room, Instant::now());
                    return Asked::Opened(channel);
                }
                Err(OpenError::Refused(words)) => words,
                Err(OpenError::Lost) => {
                    self.lose(room);
                    return Asked::Lost;
                }
            };
            let now = Instant::now();
            let mut refusal = self.lock().places.on_refused(room, tries, now);
            if refusal == Refusal::Again && now.duration_since(*since.get_or_insert(now)) >= TRANSIENT {
                refusal = self.lock().places.on_given_up(room, now);
            }
            match refusal {
                Refusal::Again => sleep(AGAIN.saturating_mul(tries).min(AGAIN_AT_MOST)).await,
                Refusal::Never => return Asked::Never(words),
                Refusal::Elsewhere => {
                    tracing::debug!(target: target_names::SSH, %words, "a connection is full");
                    self.changed.notify_waiters();
                    return Asked::Elsewhere(words);
                }
                Refusal::Barren => {
                    tracing::debug!(target: target_names::SSH, %words, "a further connection takes no channel");
                    self.lock().last_failure = Some(words.clone());
                    self.lose(room);
                    self.tasks.spawn(async move { connection.disconnect().await });
                    return Asked::Elsewhere(words);
                }
            }
        }
        Asked::Lost
    }

    fn channel(self: &Arc<Self>, room: RoomId, opened: russh::Channel<Msg>) -> Channel {
        let seat = Seat { pool: Arc::downgrade(self), room };
        let lendings = Arc::clone(&self.lendings);
        match self.connection(room) {
            Some(connection) => channel::wrap(opened, connection, seat, lendings, self.tasks.clone()),
            // Lost in this very moment: the channel will say so itself.
            None => channel::wrap(opened, Arc::clone(&self.first), seat, lendings, self.tasks.clone()),
        }
    }

    fn lose(&self, room: RoomId) {
        let mut state = self.lock();
        state.places.on_lost(room);
        state.connections.remove(&room);
        drop(state);
        self.changed.notify_waiters();
    }

    fn connection(&self, room: RoomId) -> Option<Arc<Connection>> {
        self.lock().connections.get(&room).cloned()
    }

    fn all(&self) -> Vec<Arc<Connection>> {
        self.lock().connections.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens one further connection and stays with it until it goes.
///
/// Holds the pool only weakly while it stays: the pool owns the task.
async fn grow(weak: Weak<Pool>) {
    let Some(pool) = weak.upgrade() else { return };
    let dialled = timeout(pool.recipe.timeout, pool.recipe.leg.again()).await;
    let connection = match dialled {
        Ok(Ok(connection)) => Arc::new(connection),
        failure => {
            let cause = match failure {
                Ok(Err(error)) => error.to_string(),
                Ok(Ok(_)) | Err(_) => "it took too long".to_owned(),
            };
            tracing::debug!(target: target_names::SSH, %cause, "a further connection cannot be opened");
            let mut state = pool.lock();
            state.places.on_dial_failed(Instant::now());
            state.last_failure = Some(cause);
            drop(state);
            pool.changed.notify_waiters();
            return;
        }
    };
    let room = {
        let mut state = pool.lock();
        let room = state.places.on_dialled(Instant::now());
        state.connections.insert(room, Arc::clone(&connection));
        state.last_failure = None;
        room
    };
    tracing::debug!(target: target_names::SSH, "opened a further connection");
    pool.changed.notify_waiters();
    drop(pool);

    loop {
        let Some(pool) = weak.upgrade() else { return };
        let retirement = pool.lock().places.retire(room, Instant::now());
        match retirement {
            Some(Retirement::LookAgain(at)) => {
                drop(pool);
                tokio::select! {
                    lost = connection.watch.gone() => {
                        tracing::debug!(target: target_names::SSH, %lost, "lost a further connection");
                        return weak.upgrade().map_or((), |pool| pool.lose(room));
                    }
                    () = sleep_until(at) => {}
                }
            }
            Some(Retirement::Now) => {
                pool.lose(room);
                tracing::debug!(target: target_names::SSH, "closed an idle further connection");
                return connection.disconnect().await;
            }
            None => return,
        }
    }
}

/// A refused channel that ought to work is asked for again after this time, growing with each try.
const AGAIN: Duration = Duration::from_millis(5);
const AGAIN_AT_MOST: Duration = Duration::from_millis(40);
/// … for this long.
const TRANSIENT: Duration = Duration::from_secs(1);
/// How long a jump host may take to pass a good-bye on.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// What is promised comes or fails long before.
const A_LONG_TIME: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
