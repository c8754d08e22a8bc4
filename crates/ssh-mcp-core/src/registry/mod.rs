//! Registries: where the entries of each kind are found while they live and are retained.
//!
//! One concrete type over a concurrent index; nobody outside sees which (`docs/adr/0004-index.md`). The index only
//! publishes and withdraws entries whose life their word decides, so a stale hit is harmless. Identifiers that have
//! left are remembered for a while, so that a late caller learns why instead of "unknown".

mod command;
mod duty;
mod forward;
mod recording;
mod rsync;
mod serial;
mod session;
mod shell;
mod transfer;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use dashmap::DashMap;
use uuid::Uuid;

pub use command::{Command, CommandSpec};
pub use duty::Duty;
pub use forward::{Closing, Forward, ForwardEnd, ForwardSpec, ForwardStatus};
pub use recording::{Observer, Recording, Watchable};
pub use rsync::{Rsync, RsyncFacts, RsyncSpec};
pub use serial::{Serial, SerialSpec};
pub use session::{Cascade, Expiry, Health, HealthWord, Mount, Session, SessionSpec};
pub use shell::{Manner, Shell, ShellSpec};
pub use transfer::{Direction, Transfer, TransferFacts, TransferSpec, TransferStatus};

use crate::{
    id::{Id, SessionId},
    owner::Owner,
    port::{Directory, Glimpse},
    reason::Reason,
    sync::{AtomicBool, Mutex, Ordering},
    text,
    uri::Scheme,
};

/// What a registry must know of its entries.
pub trait Entry: Send + Sync + 'static {
    /// The identifier's type.
    type Id: Id;

    /// The scheme of the kind.
    const SCHEME: Scheme;

    /// The entry's identifier.
    fn id(&self) -> Self::Id;

    /// Whom it belongs to.
    fn owner(&self) -> &Owner;

    /// The session it runs on; for a session itself, its own identifier. A serial port runs on none.
    fn session_id(&self) -> Option<SessionId>;

    /// What a listing says about it.
    fn glimpse(&self) -> Glimpse;

    /// Why and when it ended, if it has.
    fn ended(&self) -> Option<(Reason, Duration)>;
}

/// Whether the leak watcher has something to say about an entry; whoever shows the entry next says it, once.
#[derive(Debug, Default)]
pub struct LeakReport(AtomicBool);

impl LeakReport {
    /// The report is made.
    pub fn make(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Takes the report: true for one caller.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

/// All entries of one kind.
pub struct Registry<E: Entry> {
    live: DashMap<E::Id, Arc<E>>,
    graves: Mutex<Graves>,
}

/// What is remembered of an entry that has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grave {
    /// Why it ended.
    pub reason: Reason,
    /// When it ended, since the engine's start.
    pub ended: Duration,
    owner: Owner,
    forgotten: Duration,
}

#[derive(Default)]
struct Graves {
    by_id: HashMap<Uuid, Grave>,
    oldest_first: VecDeque<Uuid>,
}

/// The outcome of a look-up.
pub enum Found<E> {
    /// It is here, live or retained.
    Here(Arc<E>),
    /// It has left.
    Gone(Grave),
    /// It was never seen, is forgotten, or belongs to somebody else.
    Unknown,
}

/// How long an identifier is remembered after its entry left, and how many at most (`docs/lifecycle.md`, Timers).
pub const REMEMBERED: (Duration, usize) = (Duration::from_secs(600), 4096);

impl<E: Entry> Default for Registry<E> {
    fn default() -> Self {
        Self { live: DashMap::new(), graves: Mutex::default() }
    }
}

impl<E: Entry> Registry<E> {
    /// Publishes an entry. Its owner's word must be confirmed afterwards (`docs/architecture.md`, "Publish, then confirm").
    pub fn publish(&self, entry: Arc<E>) {
        self.live.insert(entry.id(), entry);
    }

    /// Withdraws an entry whose remote artefact never came to be; nothing is remembered of it.
    pub fn withdraw(&self, id: E::Id) {
        self.live.remove(&id);
    }

    /// Takes an ended entry out and remembers its identifier.
    pub fn bury(&self, id: E::Id, now: Duration) {
        let Some((_, entry)) = self.live.remove(&id) else { return };
        let Some((reason, ended)) = entry.ended() else { return };
        let grave = Grave { reason, ended, owner: entry.owner().clone(), forgotten: now + REMEMBERED.0 };
        let mut graves = self.graves.lock();
        graves.by_id.insert(id.as_uuid(), grave);
        graves.oldest_first.push_back(id.as_uuid());
        while let Some(oldest) = graves.oldest_first.front().copied() {
            let over = graves.oldest_first.len() > REMEMBERED.1;
            let stale = graves.by_id.get(&oldest).is_none_or(|grave| grave.forgotten <= now);
            if !over && !stale {
                break;
            }
            graves.oldest_first.pop_front();
            graves.by_id.remove(&oldest);
        }
    }

    /// Looks an identifier up for an owner.
    pub fn find(&self, owner: &Owner, id: E::Id, now: Duration) -> Found<E> {
        let here = self.live.get(&id).map(|entry| Arc::clone(entry.value()));
        match here {
            Some(entry) if entry.owner() == owner => Found::Here(entry),
            Some(_) => Found::Unknown,
            None => match self.graves.lock().by_id.get(&id.as_uuid()) {
                Some(grave) if grave.owner == *owner && grave.forgotten > now => Found::Gone(grave.clone()),
                Some(_) | None => Found::Unknown,
            },
        }
    }

    /// The entry of that identifier, whoever owns it.
    pub fn entry(&self, id: E::Id) -> Option<Arc<E>> {
        self.live.get(&id).map(|entry| Arc::clone(entry.value()))
    }

    /// Every entry, in no order.
    pub fn all(&self) -> Vec<Arc<E>> {
        self.live.iter().map(|entry| Arc::clone(entry.value())).collect()
    }

    /// The owner's entries, newest first.
    pub fn of_owner(&self, owner: &Owner) -> Vec<Arc<E>> {
        let mut entries = self.all();
        entries.retain(|entry| entry.owner() == owner);
        entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.id()));
        entries
    }

    /// The entries of a session, newest first.
    pub fn of_session(&self, session: SessionId) -> Vec<Arc<E>> {
        let mut entries = self.all();
        entries.retain(|entry| entry.session_id() == Some(session));
        entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.id()));
        entries
    }

    /// How many entries there are, live and retained.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there is no entry at all.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }
}

impl<E: Entry> Directory for Registry<E> {
    fn scheme(&self) -> Scheme {
        E::SCHEME
    }

    fn glimpses(&self, owner: &Owner) -> Vec<Glimpse> {
        self.of_owner(owner).iter().map(|entry| entry.glimpse()).collect()
    }

    fn nearest(&self, owner: &Owner, id: &str) -> Vec<String> {
        let live = self.of_owner(owner).into_iter().filter(|entry| entry.ended().is_none());
        text::nearest(id, live.map(|entry| entry.id().to_string()), 3)
    }
}

/// Every registry, one per kind.
#[derive(Default)]
pub struct Registries {
    /// SSH sessions.
    pub sessions: Registry<Session>,
    /// Commands.
    pub commands: Registry<Command>,
    /// Shells.
    pub shells: Registry<Shell>,
    /// Transfers of files.
    pub transfers: Registry<Transfer>,
    /// Syncs of two trees.
    pub rsyncs: Registry<Rsync>,
    /// Forwards of TCP connections.
    pub forwards: Registry<Forward>,
    /// Serial ports.
    pub serials: Registry<Serial>,
}

impl Registries {
    /// The registries in the order of `resources/list`.
    pub fn directories(&self) -> [&dyn Directory; 7] {
        [
            &self.sessions,
            &self.shells,
            &self.commands,
            &self.transfers,
            &self.rsyncs,
            &self.forwards,
            &self.serials,
        ]
    }

    /// The registry of a scheme.
    pub fn directory(&self, scheme: Scheme) -> &dyn Directory {
        match scheme {
            Scheme::Session => &self.sessions,
            Scheme::Shell => &self.shells,
            Scheme::Command => &self.commands,
            Scheme::Transfer => &self.transfers,
            Scheme::Rsync => &self.rsyncs,
            Scheme::Forward => &self.forwards,
            Scheme::Serial => &self.serials,
        }
    }
}

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests;
