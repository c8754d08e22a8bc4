//! Peers: one client connection each, with its automatic cursors, its lanes and its turns.
//!
//! A [`PeerGuard`] is held by whatever serves the connection; its drop is the end of the peer. What a client started lives
//! on under its own limits; its lanes do not.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use ssh_mcp_core::{
    cursor::Cursor,
    id::SubId,
    lane::{Members, Turns},
    owner::Owner,
    port::{Message, Outlet},
    sync::{AtomicBool, AtomicU64, Mutex, Notify, Ordering},
    uri::Resource,
    watch::Watchers,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::{Engine, lanes::LaneEntry};

/// One client connection.
#[derive(Default)]
pub struct Peer {
    // Identifiers sort by age, so the first entry is the oldest resource.
    cursors: Mutex<BTreeMap<Uuid, Arc<Cursor>>>,
    pub(crate) lanes: Members<SubId, Arc<LaneEntry>>,
    pub(crate) turns: Turns<Turn>,
    /// Whether its mux runs.
    speaks: AtomicBool,
}

/// Ends a peer when it is dropped.
pub struct PeerGuard {
    engine: Arc<Engine>,
    peer: Arc<Peer>,
}

/// Who waits for a turn.
pub(crate) enum Turn {
    Lane(Arc<LaneEntry>),
    List(Arc<ListTeller>),
}

/// Tells one client that its list of resources has changed; dropping it ends that.
pub struct ListWatch(#[expect(dead_code, reason = "held for its drop")] DropGuard);

/// The word that a list has changed, on its way to one client.
pub(crate) struct ListTeller {
    outlet: Arc<dyn Outlet>,
    told: Notify,
}

/// How often the list of each owner has changed.
#[derive(Default)]
pub(crate) struct Lists {
    changes: AtomicU64,
    by_owner: Mutex<HashMap<Owner, Arc<List>>>,
}

#[derive(Default)]
struct List {
    changes: AtomicU64,
    watchers: Arc<Watchers>,
}

/// Least time between two words about a list.
const LIST_PAUSE: Duration = Duration::from_secs(1);

impl Peer {
    /// More resources than this are not remembered; the oldest go first.
    const MOST: usize = 4096;

    /// A connection that has read nothing yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The automatic cursor of a resource.
    pub fn cursor(&self, resource: Resource) -> Arc<Cursor> {
        let mut cursors = self.cursors.lock();
        let cursor = Arc::clone(cursors.entry(resource.id).or_insert_with(|| Arc::new(Cursor::new())));
        if cursors.len() > Self::MOST {
            cursors.pop_first();
        }
        cursor
    }
}

impl PeerGuard {
    /// A peer of this engine, for a connection that has just been made.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine, peer: Peer::new() }
    }

    /// The peer.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }
}

impl Drop for PeerGuard {
    fn drop(&mut self) {
        self.engine.end_peer(&self.peer);
    }
}

impl Engine {
    /// Ends a peer: its lanes close, and nothing is sent to it any more. Ending it again does nothing.
    pub(crate) fn end_peer(&self, peer: &Peer) {
        let lanes = peer.lanes.end();
        peer.turns.end();
        for lane in lanes {
            self.close_silently(&lane);
        }
    }

    /// How often lists have changed, of all owners.
    pub fn list_changes(&self) -> u64 {
        self.lists.changes.load(Ordering::Acquire)
    }

    /// Tells a client at most once a second that its list of resources has changed, for as long as the answer is held.
    ///
    /// Where some list may have changed since [`list_changes`](Self::list_changes) was `since`, it is told at once.
    pub fn watch_list(
        self: &Arc<Self>,
        owner: &Owner,
        peer: &Arc<Peer>,
        outlet: Arc<dyn Outlet>,
        since: Option<u64>,
    ) -> ListWatch {
        let list = self.lists.of(owner);
        let teller = Arc::new(ListTeller { outlet, told: Notify::new() });
        self.start_mux(peer);
        let ended = CancellationToken::new();
        let (until, peer) = (ended.clone(), Arc::clone(peer));
        let mut watch = list.watchers.watch();
        let mut told = Some(list.changes.load(Ordering::Acquire));
        if since.is_some_and(|since| since != self.list_changes()) {
            told = None;
        }
        let work = async move {
            loop {
                let changes = Some(list.changes.load(Ordering::Acquire));
                if changes == told {
                    watch.changed().await;
                    continue;
                }
                told = changes;
                peer.turns.ask(Turn::List(Arc::clone(&teller)));
                teller.told.notified().await;
                tokio::time::sleep(LIST_PAUSE).await;
            }
        };
        self.tasks.spawn(async move { _ = until.run_until_cancelled(work).await });
        ListWatch(ended.drop_guard())
    }

    /// An entry has come into an owner's list, or left it.
    pub(crate) fn list_changed(&self, owner: &Owner) {
        let list = self.lists.of(owner);
        list.changes.fetch_add(1, Ordering::AcqRel);
        self.lists.changes.fetch_add(1, Ordering::AcqRel);
        list.watchers.wake();
    }

    /// Starts the mux of a peer, unless it runs.
    pub(crate) fn start_mux(self: &Arc<Self>, peer: &Arc<Peer>) {
        if !peer.speaks.swap(true, Ordering::AcqRel) {
            self.tasks.spawn(crate::lanes::mux(Arc::clone(peer), self.clock, Arc::downgrade(self)));
        }
    }
}

impl ListTeller {
    pub(crate) async fn tell(&self) {
        // A client that is gone hears nothing; its watch ends with it.
        _ = self.outlet.deliver(Message::ListChanged).await;
        self.told.notify_one();
    }
}

impl Lists {
    fn of(&self, owner: &Owner) -> Arc<List> {
        Arc::clone(self.by_owner.lock().entry(owner.clone()).or_default())
    }
}
