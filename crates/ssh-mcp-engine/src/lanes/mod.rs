//! Lanes as tasks: opening and closing them, the driver of each, and the mux of each client.
//!
//! What a lane says and when is core's [`Lane`]; here is what it is on, whom it belongs to, and who looks at it. A driver
//! waits for its history and its deadlines; the mux of a client hands out turns and waits for the transport, alone.

mod alarm;
mod driver;
mod mux;
mod source;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use ssh_mcp_core::{
    history::{History, Mark},
    id::SubId,
    lane::{
        Changed, Closing, Filter, Form, Lane, Lifetime, Options, Parting, Ranges, Replayed, Report, Subject,
        Sums, Take, Totals,
    },
    lifecycle::{Snapshot, State},
    owner::Owner,
    port::{EndWords, Outlet},
    quota::{Place, Quota},
    reason::Reason,
    sync::{Mutex, Notify, OnceCell},
    target_names,
    uri::Resource,
};

use crate::{Clock, Engine, Missing, Peer, observe::LaneObserver};
use alarm::Alarm;
pub(crate) use mux::mux;
use source::Admitted;
pub use source::Source;

/// One lane and everything around it.
pub struct LaneEntry {
    /// Its identifier.
    pub id: SubId,
    /// Whom it belongs to.
    pub owner: Owner,
    /// What it is on.
    pub resource: Resource,
    /// How it was opened.
    pub origin: Origin,
    /// When it was opened, since the engine's start.
    pub created: Duration,
    /// When it closes by itself.
    pub lifetime: Lifetime,
    /// What its messages are.
    pub form: Form,
    /// What the client wanted of inline push.
    pub inline: Inline,
    pub(crate) lane: Lane,
    source: Source,
    /// Whether the resource had ended before the lane came.
    late: Late,
    /// The URI as the client spelt it last.
    spelling: Mutex<Arc<str>>,
    body: Body,
    pub(crate) outlet: Arc<dyn Outlet>,
    peer: Arc<Peer>,
    hold: Mutex<Option<Hold>>,
    /// Rung when the last word of a closed lane has been said.
    said: Notify,
    closed: OnceCell<Reason>,
}

/// What a live lane takes up.
struct Hold {
    _observer: Option<LaneObserver>,
    _of_resource: Place,
    _of_all: Place,
}

/// Writes the body of a state, for a filter.
pub type Body = Arc<dyn Fn() -> String + Send + Sync>;

/// How a lane was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// By the tool.
    SubOpen,
    /// By `resources/subscribe`.
    Subscribe,
    /// By `subscriptions/listen`.
    Listen,
}

impl Origin {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SubOpen => "sub_open",
            Self::Subscribe => "resources/subscribe",
            Self::Listen => "subscriptions/listen",
        }
    }
}

/// What a client wanted of inline push, and what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inline {
    /// It did not ask.
    NotAsked,
    /// It asked, and the bytes come along.
    Honoured,
    /// It asked, and they do not.
    Declined,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    Yes,
    No,
}

/// What a caller wants opened.
pub struct OpenLane {
    /// On what; from [`Engine::source`].
    pub source: Source,
    /// The URI as the client spelt it.
    pub uri: String,
    /// How it behaves.
    pub options: Options,
    /// What the client wanted of inline push.
    pub inline: Inline,
    /// How it is opened.
    pub origin: Origin,
    /// Where its messages go.
    pub outlet: Arc<dyn Outlet>,
    /// Writes the body of a state.
    pub body: Body,
}

/// Why no lane was opened; then nothing is left of the attempt.
#[derive(Debug, thiserror::Error)]
pub enum OpenLaneError {
    /// The resource has as many lanes as it may.
    #[error("the resource has {limit} lanes")]
    TooManyOnResource {
        /// How many it may.
        limit: u32,
    },
    /// There are as many lanes as there may be.
    #[error("there are {limit} lanes")]
    TooMany {
        /// How many there may be.
        limit: u32,
    },
    /// The resource can no longer be observed.
    #[error("the resource has ended")]
    Gone(Missing),
    /// The client is gone.
    #[error("the client is gone")]
    PeerGone,
    /// The server is stopping.
    #[error("the server is stopping")]
    Draining,
}

/// Every lane.
pub(crate) struct Lanes {
    by_id: Mutex<BTreeMap<SubId, Arc<LaneEntry>>>,
    all: Arc<Quota>,
    totals: Mutex<HashMap<Owner, Arc<Totals>>>,
    /// Rung whenever a lane was heard or closed, for [`Engine::lanes_told`].
    pub(crate) heard: tokio::sync::Notify,
    alarm: Arc<Alarm>,
}

impl Lanes {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            by_id: Mutex::default(),
            all: Quota::new(limit),
            totals: Mutex::default(),
            heard: tokio::sync::Notify::new(),
            alarm: Arc::default(),
        }
    }

    /// The task that rings lanes at their deadlines.
    pub(crate) fn run_alarm(&self, clock: Clock) -> impl Future<Output = ()> + Send + use<> {
        alarm::run(Arc::clone(&self.alarm), clock)
    }

    /// What the owner's closed lanes have done.
    fn totals(&self, owner: &Owner) -> Arc<Totals> {
        Arc::clone(self.totals.lock().entry(owner.clone()).or_default())
    }

    fn snapshot(&self) -> Vec<Arc<LaneEntry>> {
        self.by_id.lock().values().cloned().collect()
    }
}

/// What all lanes have done together.
#[derive(Debug, Clone, Copy)]
pub struct LaneSums {
    /// Over all lanes there ever were.
    pub sums: Sums,
    /// Lanes that live.
    pub lanes: u64,
    /// Events that wait in the fullest of them.
    pub queue_depth_max: u64,
    /// Lanes that wait for a turn.
    pub waiting: u64,
    /// Sessions that are open.
    pub sessions: u64,
}

/// What closing a lane found.
#[derive(Debug, Clone)]
pub struct LaneClosed {
    /// On what it was.
    pub resource: Resource,
    /// The life of the resource afterwards; none for a session.
    pub life: Option<Snapshot>,
    /// Time until a resource that releases itself ends.
    pub grace: Option<Duration>,
}

/// The last word of a lane that is closed by a call has this long to be said.
const FAREWELL: Duration = Duration::from_millis(250);

impl Engine {
    /// What a lane or a wait can be on.
    ///
    /// # Errors
    /// Unknown, of another owner, or past its retention.
    pub fn source(&self, owner: &Owner, resource: Resource) -> Result<Source, Missing> {
        Source::find(self, owner, resource)
    }

    /// Opens a lane, all or nothing.
    ///
    /// # Errors
    /// See [`OpenLaneError`].
    pub fn open_lane(
        self: &Arc<Self>,
        owner: &Owner,
        peer: &Arc<Peer>,
        ask: OpenLane,
    ) -> Result<Arc<LaneEntry>, OpenLaneError> {
        let OpenLane { source, uri, options, inline, origin, outlet, body } = ask;
        let _pass = self.gate.enter().ok_or(OpenLaneError::Draining)?;
        let of_resource = source.places();
        let limit = of_resource.limit();
        let of_resource = of_resource.take().ok_or(OpenLaneError::TooManyOnResource { limit })?;
        let limit = self.lanes.all.limit();
        let of_all = self.lanes.all.take().ok_or(OpenLaneError::TooMany { limit })?;
        let (observer, late) = match source.admit(self) {
            Admitted::Live(observer) => (observer, Late::No),
            Admitted::Late => (None, Late::Yes),
            Admitted::Gone(missing) => return Err(OpenLaneError::Gone(missing)),
        };
        let now = self.clock.now();
        let (lifetime, form) = (options.lifetime, options.form);
        let lane = Lane::open(options, now, &subject(&source, late, &body));
        let entry = Arc::new(LaneEntry {
            id: self.mint(),
            owner: owner.clone(),
            resource: source.resource(),
            origin,
            created: now,
            lifetime,
            form,
            inline,
            lane,
            source,
            late,
            spelling: Mutex::new(uri.into()),
            body,
            outlet,
            peer: Arc::clone(peer),
            hold: Mutex::new(Some(Hold { _observer: observer, _of_resource: of_resource, _of_all: of_all })),
            said: Notify::new(),
            closed: OnceCell::new(),
        });
        // Publish, then confirm: who ends the peer takes its members, and who came too late undoes itself.
        self.lanes.by_id.lock().insert(entry.id, Arc::clone(&entry));
        if peer.lanes.join(entry.id, Arc::clone(&entry)).is_err() {
            _ = self.close_lane(&entry, Reason::PeerGone);
            return Err(OpenLaneError::PeerGone);
        }
        tracing::debug!(
            target: target_names::SUBSCRIPTION,
            sub_id = %entry.id,
            uri = %entry.resource,
            origin = entry.origin.as_str(),
            "lane opened"
        );
        self.start_mux(peer);
        self.tasks.spawn(driver::drive(
            Arc::clone(&entry),
            self.clock,
            Arc::clone(&self.lanes.alarm),
            Arc::downgrade(self),
        ));
        Ok(entry)
    }

    /// The lane that `resources/subscribe` made for this client on a resource, under its new spelling.
    pub fn subscribed(&self, peer: &Peer, resource: Resource, uri: &str) -> Option<Arc<LaneEntry>> {
        let lane = subscription(peer, resource)?;
        *lane.spelling.lock() = uri.into();
        Some(lane)
    }

    /// Closes the lane that `resources/subscribe` made for this client on a resource, if there is one.
    pub fn unsubscribe(&self, peer: &Peer, resource: Resource) {
        if let Some(lane) = subscription(peer, resource) {
            _ = self.close_lane(&lane, Reason::ManualClose);
        }
    }

    /// A lane of the owner.
    pub fn lane(&self, owner: &Owner, id: SubId) -> Option<Arc<LaneEntry>> {
        self.lanes.by_id.lock().get(&id).filter(|lane| lane.owner == *owner).cloned()
    }

    /// The owner's lanes, oldest first.
    pub fn lanes_of(&self, owner: &Owner) -> Vec<Arc<LaneEntry>> {
        let mut lanes = self.lanes.snapshot();
        lanes.retain(|lane| lane.owner == *owner);
        lanes
    }

    /// What the owner's lanes that live have done, and all that closed.
    pub fn lane_sums(&self, owner: &Owner) -> LaneSums {
        let lanes = self.lanes_of(owner);
        let reports: Vec<Report> = lanes.iter().map(|lane| lane.report()).collect();
        let sessions = self.registries.sessions.of_owner(owner);
        let mut peers: Vec<&Arc<Peer>> = lanes.iter().map(|lane| &lane.peer).collect();
        peers.sort_unstable_by_key(|peer| Arc::as_ptr(peer));
        peers.dedup_by_key(|peer| Arc::as_ptr(peer));
        LaneSums {
            sums: self.lanes.totals(owner).with(reports.iter().map(|report| &report.stats)),
            lanes: lanes.len() as u64,
            queue_depth_max: reports.iter().map(|report| report.queue_depth).max().unwrap_or(0),
            waiting: peers.iter().map(|peer| peer.turns.len() as u64).sum(),
            sessions: sessions.iter().filter(|session| session.is_open()).count() as u64,
        }
    }

    /// Closes a lane by a call and lets it say its last word.
    pub async fn close_lane_by_call(&self, entry: &Arc<LaneEntry>) -> LaneClosed {
        if self.close_lane(entry, Reason::ManualClose) == Closing::Won {
            let said = async {
                while entry.lane.owes_farewell() {
                    entry.said.notified().await;
                }
            };
            _ = tokio::time::timeout(FAREWELL, said).await;
            entry.lane.withhold_farewell();
        }
        let life = entry.source.life();
        let releasing = life.is_some_and(|life| life.state == State::Releasing);
        LaneClosed { resource: entry.resource, life, grace: entry.source.grace().filter(|_| releasing) }
    }

    /// Closes a lane whose request has ended: nobody is there to hear a last word.
    pub fn close_silently(&self, entry: &Arc<LaneEntry>) {
        _ = self.close_lane(entry, Reason::PeerGone);
        entry.lane.withhold_farewell();
    }

    /// Closes a lane; the winner gives back all that it took up.
    pub(crate) fn close_lane(&self, entry: &Arc<LaneEntry>, reason: Reason) -> Closing {
        let closing = entry.lane.close(self.clock.now(), reason);
        if closing == Closing::Won {
            // Only the winner gets here.
            _ = entry.closed.set(reason);
            self.lanes.by_id.lock().remove(&entry.id);
            entry.peer.lanes.leave(&entry.id);
            self.lanes.totals(&entry.owner).add(&entry.lane.report().stats);
            let hold = entry.hold.lock().take();
            drop(hold);
            self.lanes.heard.notify_waiters();
            tracing::debug!(target: target_names::SUBSCRIPTION, sub_id = %entry.id, %reason, "lane closed");
        }
        closing
    }

    /// Closes the lanes whose client's end was missed.
    pub(crate) fn sweep_peers(&self) {
        for lane in self.lanes.snapshot() {
            if lane.outlet.is_closed() || lane.peer.lanes.has_ended() {
                self.close_silently(&lane);
            }
        }
    }

    /// Whether a lane on the resource has not delivered everything.
    pub(crate) fn is_owed(&self, resource: Resource) -> bool {
        self.lanes.by_id.lock().values().any(|lane| lane.resource == resource && lane.lane.is_owed())
    }

    /// Ends once every lane on a resource that has ended has been told so, or is closed.
    pub async fn lanes_told(&self, resource: Resource) {
        self.heard(|| !self.is_owed(resource)).await;
    }

    /// Ends once a lane is closed, with why.
    pub async fn lane_closed(&self, entry: &LaneEntry) -> Reason {
        self.heard(|| entry.closed.get().is_some()).await;
        entry.closed.get().copied().unwrap_or(Reason::ManualClose)
    }

    /// Ends once each of the owner's lanes has delivered what there was when this was called; those that are paused stay
    /// behind.
    pub async fn lanes_caught_up(&self, owner: &Owner) {
        let marks: Vec<_> =
            self.lanes_of(owner).into_iter().map(|lane| (lane.source.history().mark(), lane)).collect();
        let behind = |mark: &Mark, lane: &LaneEntry| {
            let report = lane.report();
            let has_more = matches!(lane.form, Form::Payload { .. }) && report.cursor < mark.end;
            let waits = has_more || report.queue_depth > 0 || (mark.ended && lane.lane.is_owed());
            waits && !report.paused && !lane.lane.is_closed() && !lane.outlet.is_closed()
        };
        self.heard(|| !marks.iter().any(|(mark, lane)| behind(mark, lane))).await;
    }

    /// Waits for something that only changes when a lane is heard or closed.
    async fn heard(&self, is_so: impl Fn() -> bool) {
        loop {
            let heard = self.lanes.heard.notified();
            let mut heard = std::pin::pin!(heard);
            // Registered before the look, so that what changes in between is not missed.
            heard.as_mut().enable();
            if is_so() {
                return;
            }
            heard.await;
        }
    }

    /// Closes the lanes on a resource whose retention is over.
    pub(crate) fn close_lanes_on(&self, resource: Resource) {
        let mut lanes = self.lanes.snapshot();
        lanes.retain(|lane| lane.resource == resource);
        for lane in lanes {
            _ = self.close_lane(&lane, Reason::RetentionOver);
        }
    }

    /// The server stops: what has ended is told, then every lane closes.
    pub(crate) async fn close_all_lanes(&self) {
        const LAST_WORDS: Duration = Duration::from_millis(500);
        let told = async {
            for lane in self.lanes.snapshot() {
                while lane.lane.is_owed() && lane.source.history().mark().ended && !lane.outlet.is_closed() {
                    lane.said.notified().await;
                }
            }
        };
        _ = tokio::time::timeout(LAST_WORDS, told).await;
        let lanes = self.lanes.snapshot();
        for lane in &lanes {
            _ = self.close_lane(lane, Reason::ServerShutdown);
        }
        let farewells = async {
            for lane in &lanes {
                while lane.lane.owes_farewell() && !lane.outlet.is_closed() {
                    lane.said.notified().await;
                }
            }
        };
        _ = tokio::time::timeout(FAREWELL, farewells).await;
    }
}

impl LaneEntry {
    /// Its counters and how it is set.
    pub fn report(&self) -> Report {
        self.lane.report()
    }

    /// What its consumer should know and has not been told.
    pub fn notices(&self, now: Duration) -> ssh_mcp_core::lane::Notices {
        self.lane.notices(now)
    }

    /// The URI as the client spelt it last.
    pub fn uri(&self) -> Arc<str> {
        Arc::clone(&self.spelling.lock())
    }

    /// What it is on.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Whether it belongs to this client.
    pub fn is_of(&self, peer: &Arc<Peer>) -> bool {
        Arc::ptr_eq(&self.peer, peer)
    }

    /// How far it is behind the end of its resource.
    pub fn lag(&self, cursor: u64) -> u64 {
        match self.source.history() {
            History::Bytes(bytes) => bytes.mark().end.saturating_sub(cursor),
            History::Log(_) | History::State(_) => 0,
        }
    }

    /// Stops its deliveries.
    pub fn pause(&self, now: Duration) -> Changed {
        self.lane.pause(now)
    }

    /// Goes on with them.
    pub fn resume(&self, now: Duration) -> Changed {
        self.lane.resume(now)
    }

    /// Swaps its filter.
    pub fn set_filter(&self, now: Duration, filter: Option<Filter>) {
        self.lane.set_filter(now, &self.subject(), filter);
    }

    /// Delivers again.
    ///
    /// # Errors
    /// If there is nothing at `from` yet; the answer is the end.
    pub fn replay(&self, now: Duration, from: u64, window: u64) -> Result<Replayed, u64> {
        self.lane.replay(now, &self.subject(), from, window).map_err(|beyond| beyond.end)
    }

    /// Reads through it; see [`Lane::read`].
    pub fn read(&self, now: Duration, take: Take, plain: impl FnOnce(u64) -> (u64, u64)) -> Option<Ranges> {
        self.lane.read(now, &self.subject(), take, plain)
    }

    /// What a read through it would return, behind a position.
    pub(crate) fn waiting(&self, now: Duration, behind: u64) -> Vec<Range<u64>> {
        self.lane.waiting(now, &self.subject(), behind)
    }

    fn subject(&self) -> Subject<'_> {
        subject(&self.source, self.late, &self.body)
    }

    /// How its resource ended, once that is known.
    fn end_words(&self) -> Option<EndWords> {
        self.source.end_words()
    }
}

fn subject<'a>(source: &'a Source, late: Late, body: &'a Body) -> Subject<'a> {
    let parting = match late {
        Late::Yes => Parting::Leave,
        Late::No => source.parting(),
    };
    Subject { history: source.history(), body: &**body, parting }
}

fn subscription(peer: &Peer, resource: Resource) -> Option<Arc<LaneEntry>> {
    peer.lanes.find(|lane| lane.origin == Origin::Subscribe && lane.resource == resource)
}
