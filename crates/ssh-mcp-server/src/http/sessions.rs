//! The HTTP sessions of older clients: whose they are, whether somebody is there, and when they end.
//!
//! The SDK keeps a session for whoever knows its id, and either ends it although a stream is open or never; so owner and
//! end are decided here. Pure but for the lock: time comes in, ids to close go out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use ssh_mcp_core::owner::Owner;

use super::stream::Stream;
use super::turnstile::Turnstile;

/// The id of an HTTP session.
pub(super) type SessionId = Arc<str>;

/// Every live session. The lock is held for a look-up, never across a wait.
pub(super) struct Sessions {
    table: Mutex<Table>,
    most: usize,
}

#[derive(Default)]
struct Table {
    live: HashMap<SessionId, Session>,
    /// Places taken by sessions that are being opened.
    opening: usize,
    /// Ids that the MCP layer holds and nobody owns, with when they were first seen.
    strays: HashMap<SessionId, Instant>,
}

struct Session {
    owner: Owner,
    /// Requests and streams under way.
    uses: usize,
    last_use: Instant,
    /// The stream that notifications go to.
    listener: Weak<Stream>,
    /// When its present stretch of take-overs began, and how many there were.
    taken_over: (Instant, u32),
    turnstile: Arc<Turnstile>,
}

/// Streams may be taken over so often within so long. Two clients with one session, or one that opens two streams, would
/// otherwise cut each other off for ever.
const TAKE_OVERS: (u32, Duration) = (5, Duration::from_secs(10));

impl Drop for Session {
    fn drop(&mut self) {
        // A stream that nobody reads would hold up whoever ends the session's lanes.
        self.turnstile.open();
    }
}

impl Sessions {
    /// Keeps at most `most` sessions.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), most })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more would fit.
    pub(super) fn has_room(&self) -> bool {
        let table = self.table();
        table.live.len() + table.opening < self.most
    }

    /// Takes a place for a session about to be opened; `None` if there is none left.
    pub(super) fn reserve(self: &Arc<Self>) -> Option<Place> {
        let mut table = self.table();
        (table.live.len() + table.opening < self.most).then(|| {
            table.opening += 1;
            Place { sessions: Arc::clone(self) }
        })
    }

    /// Begins a use of a session by its owner; `None` if there is no such session, or it is somebody else's.
    pub(super) fn enter(self: &Arc<Self>, id: &str, owner: &Owner, now: Instant) -> Option<Use> {
        let mut table = self.table();
        let (id, _) = table.live.get_key_value(id)?;
        let id = Arc::clone(id);
        let session = table.live.get_mut(&id).filter(|session| session.owner == *owner)?;
        session.uses += 1;
        session.last_use = now;
        Some(Use { sessions: Arc::clone(self), id, turnstile: Arc::clone(&session.turnstile) })
    }

    /// Forgets a session.
    pub(super) fn remove(&self, id: &str) {
        self.table().live.remove(id);
    }

    /// Forgets every session that nobody has used for `limit` and gives their ids, to be closed.
    pub(super) fn take_idle(&self, now: Instant, limit: Duration) -> Vec<SessionId> {
        let is_idle =
            |session: &Session| session.uses == 0 && now.saturating_duration_since(session.last_use) >= limit;
        let mut table = self.table();
        table.live.extract_if(|_, session| is_idle(session)).map(|(id, _)| id).collect()
    }

    /// Forgets every session and gives their ids, to be closed.
    pub(super) fn take_all(&self) -> Vec<SessionId> {
        self.table().live.drain().map(|(id, _)| id).collect()
    }

    /// Of the ids that the MCP layer holds, those that have been no session of anybody's for a minute, to be closed.
    pub(super) fn take_strays<'a>(
        &self,
        held: impl Iterator<Item = &'a SessionId>,
        now: Instant,
    ) -> Vec<SessionId> {
        let mut table = self.table();
        let Table { live, strays, .. } = &mut *table;
        let before = std::mem::take(strays);
        let unknown = held.filter(|id| !live.contains_key(*id));
        strays.extend(unknown.map(|id| (Arc::clone(id), before.get(id).copied().unwrap_or(now))));
        let is_old = |since: &Instant| now.saturating_duration_since(*since) >= OPENING_LIMIT;
        strays.extract_if(|_, since| is_old(since)).map(|(id, _)| id).collect()
    }
}

/// A place for a session that is being opened; given back when dropped.
pub(super) struct Place {
    sessions: Arc<Sessions>,
}

impl Place {
    /// Enters the session that was opened, with its first use under way.
    pub(super) fn fill(self, id: &str, owner: Owner, now: Instant) -> Use {
        let id = SessionId::from(id);
        let turnstile = Arc::<Turnstile>::default();
        let (listener, own) = (Weak::new(), Arc::clone(&turnstile));
        let session = Session { owner, uses: 1, last_use: now, listener, taken_over: (now, 0), turnstile };
        self.sessions.table().live.insert(Arc::clone(&id), session);
        Use { sessions: Arc::clone(&self.sessions), id, turnstile: own }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.sessions.table();
        table.opening = table.opening.saturating_sub(1);
    }
}

/// A request or stream of a session under way; its end is the session's last use.
pub(super) struct Use {
    sessions: Arc<Sessions>,
    id: SessionId,
    turnstile: Arc<Turnstile>,
}

impl Use {
    /// Where the session's notifications pass.
    pub(super) fn turnstile(&self) -> &Arc<Turnstile> {
        &self.turnstile
    }

    /// Makes `stream` the one that notifications go to, and gives the one it replaces.
    pub(super) fn listen_on(&self, stream: &Arc<Stream>) -> Option<Arc<Stream>> {
        let mut table = self.sessions.table();
        let session = table.live.get_mut(&self.id)?;
        std::mem::replace(&mut session.listener, Arc::downgrade(stream)).upgrade()
    }

    /// Whether the open stream gives way to one that resumes it.
    pub(super) fn may_take_over(&self, now: Instant) -> bool {
        let mut table = self.sessions.table();
        let Some(session) = table.live.get_mut(&self.id) else { return false };
        let (most, stretch) = TAKE_OVERS;
        let (began, count) = &mut session.taken_over;
        if now.saturating_duration_since(*began) >= stretch {
            (*began, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= most
    }

    /// The stream that notifications go to, if it is open.
    pub(super) fn listener(&self) -> Option<Arc<Stream>> {
        let listener = self.sessions.table().live.get(&self.id)?.listener.upgrade();
        listener.filter(|stream| stream.is_open())
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let now = Instant::now();
        if let Some(session) = self.sessions.table().live.get_mut(&self.id) {
            session.uses = session.uses.saturating_sub(1);
            session.last_use = session.last_use.max(now);
        }
    }
}

/// Longer than any client takes to open a session.
const OPENING_LIMIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn open(sessions: &Arc<Sessions>, id: &str, owner: &str) -> Use {
        sessions.reserve().unwrap().fill(id, Owner::token(owner), Instant::now())
    }

    #[test]
    fn a_session_is_its_owners_alone() {
        let sessions = Sessions::new(9);
        drop(open(&sessions, "s", "a"));
        let now = Instant::now();
        assert!(sessions.enter("s", &Owner::token("a"), now).is_some());
        assert!(sessions.enter("s", &Owner::token("b"), now).is_none());
        assert!(sessions.enter("s", &Owner::local(), now).is_none());
        assert!(sessions.enter("other", &Owner::token("a"), now).is_none());
        sessions.remove("s");
        assert!(sessions.enter("s", &Owner::token("a"), now).is_none());
    }

    #[test]
    fn streams_that_cut_each_other_off_come_to_rest() {
        let sessions = Sessions::new(1);
        let used = open(&sessions, "s", "a");
        let now = Instant::now();
        let taken = || (0..9).filter(|_| used.may_take_over(now)).count();
        assert_eq!((taken(), taken()), (5, 0));
        assert!(
            used.may_take_over(now + Duration::from_secs(10)),
            "later it is somebody who was cut off again"
        );
    }

    #[test]
    fn places_are_counted_from_the_first_moment_and_given_back() {
        let sessions = Sessions::new(2);
        let _one = open(&sessions, "1", "a");
        let place = sessions.reserve();
        assert!(place.is_some() && sessions.reserve().is_none() && !sessions.has_room());
        drop(place);
        assert!(sessions.has_room());
        let _two = open(&sessions, "2", "a");
        assert!(sessions.reserve().is_none());
        sessions.remove("1");
        assert!(sessions.reserve().is_some());
    }

    #[test]
    fn a_session_in_use_is_never_idle() {
        let sessions = Sessions::new(9);
        let limit = Duration::from_secs(60);
        let first = open(&sessions, "s", "a");
        let later = Instant::now() + 10 * limit;
        assert!(sessions.take_idle(later, limit).is_empty());
        let second = sessions.enter("s", &Owner::token("a"), later).unwrap();
        drop(first);
        assert!(sessions.take_idle(later + 10 * limit, limit).is_empty());
        drop(second);
        assert!(sessions.take_idle(later + limit / 2, limit).is_empty());
        assert_eq!(sessions.take_idle(later + limit, limit), [SessionId::from("s")]);
        assert!(sessions.take_idle(later + limit, limit).is_empty());
    }

    #[test]
    fn a_session_that_nobody_came_to_own_is_found_after_a_minute() {
        let sessions = Sessions::new(9);
        let _use = open(&sessions, "known", "a");
        let held = ["known", "stray", "late"].map(SessionId::from);
        let start = Instant::now();
        assert!(sessions.take_strays(held.iter(), start).is_empty());
        assert!(sessions.take_strays(held.iter(), start + OPENING_LIMIT / 2).is_empty());
        let _late = open(&sessions, "late", "a");
        assert_eq!(sessions.take_strays(held.iter(), start + OPENING_LIMIT), [SessionId::from("stray")]);
        assert!(sessions.take_strays([].iter(), start + OPENING_LIMIT).is_empty());
        // One that came back counts anew.
        assert!(sessions.take_strays(held.iter(), start + 2 * OPENING_LIMIT).is_empty());
    }
}
