//! Which connection of a link the next channel goes to, as a machine without I/O.
//!
//! Servers take so many channels on one connection (`MaxSessions` of OpenSSH, 10 by default) and so many new
//! connections at a time (`MaxStartups`). Neither number is announced, so both are learnt from refusals:
//!
//! | A channel is refused while … | Means | Answer |
//! | --- | --- | --- |
//! | fewer are held than have worked before | the server has not seen our last close yet | again, shortly |
//! | … and still after a second | processes we cannot see hold places | what is held now is the limit for a while |
//! | as many are held as ever worked | the limit | another connection |
//! | none ever worked | the server takes no channels | a refusal |
//!
//! A place is free only once the server has read our close, which a ping behind it tells. Where a place is about to
//! come free, it is waited for; else further connections are opened, one at a time. A limit that was learnt is
//! doubted after a minute by one probe, so a wrong guess does not last.
//!
//! *Invariant:* for each room `held` channels are open on the wire, `leaving` of them closed but not known to be so to
//! the server, and `asking` requests for one are on their way; every [`Decision::Ask`] is answered by exactly one of `on_confirmed`, `on_given_up` or a final [`Refusal`].

use std::time::Duration;

use tokio::time::Instant;

/// A connection of the link, by the order in which they were opened; 0 is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RoomId(u32);

impl RoomId {
    /// The connection whose loss is the loss of the link.
    pub(crate) const FIRST: Self = Self(0);
}

/// The rooms of one link.
#[derive(Debug)]
pub(crate) struct Places {
    rooms: Vec<Room>,
    next: u32,
    growth: Growth,
    dial: Dial,
    /// Further connections in a row that were of no use.
    failures: u32,
}

/// Whether further connections can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Growth {
    Possible,
    /// The credentials work once.
    Impossible,
}

/// What to do for a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Ask this connection; a place on it is reserved.
    Ask(RoomId),
    /// Open a further connection; nobody else does.
    Dial,
    /// Look again when something has changed, or at this time.
    Wait { until: Option<Instant>, outlook: Outlook },
}

/// What is to be hoped for while waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// A further connection is being opened or a place is about to come free: both take their own limited time.
    Promised,
    /// That some channel ends.
    Open,
}

/// What a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The same connection, shortly; the place stays reserved.
    Again,
    /// This connection is full.
    Elsewhere,
    /// A further connection on which nothing ever worked; it is out of the table and to be closed.
    Barren,
    /// This server takes no channels.
    Never,
}

/// Whether it must be found out that the server has read our close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confirmation {
    Needed,
    Unneeded,
}

#[derive(Debug)]
struct Room {
    id: RoomId,
    held: u32,
    asking: u32,
    leaving: u32,
    left_last: Instant,
    peak: u32,
    limit: Option<Limit>,
    empty_since: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Limit {
    places: u32,
    doubted_from: Instant,
}

/// Where the next further connection stands.
///
/// `Idle` -> `UnderWay` -> `Idle`, or after a failure `Resting` -> `UnderWay`.
#[derive(Debug, Clone, Copy)]
enum Dial {
    Idle,
    UnderWay,
    Resting(Instant),
}

impl Places {
    /// One connection, with nothing on it.
    pub(crate) fn new(growth: Growth, now: Instant) -> Self {
        let mut places = Self { rooms: Vec::new(), next: 0, growth, dial: Dial::Idle, failures: 0 };
        places.add(now);
        places
    }

    /// Where the next channel goes. The oldest connection with room is filled first, so that the others come free.
    pub(crate) fn decide(&mut self, now: Instant) -> Decision {
        if let Some(room) = self.rooms.iter_mut().find(|room| room.has_place()) {
            room.asking += 1;
            return Decision::Ask(room.id);
        }
        if let Some(room) = self.rooms.iter_mut().find(|room| room.is_doubtful(now)) {
            room.asking += 1;
            if let Some(limit) = &mut room.limit {
                limit.doubted_from = now + DOUBT;
            }
            return Decision::Ask(room.id);
        }
        let leave =
            self.rooms.iter().filter(|room| room.leaving > 0).map(|room| room.left_last + LEAVE).max();
        if let Some(until) = leave.filter(|until| *until > now) {
            return Decision::Wait { until: Some(until), outlook: Outlook::Promised };
        }
        let mut until = self.rooms.iter().filter_map(|room| Some(room.limit?.doubted_from)).min();
        let outlook = match (self.growth, self.dial) {
            (Growth::Impossible, _) => Outlook::Open,
            (Growth::Possible, Dial::UnderWay) => Outlook::Promised,
            (Growth::Possible, Dial::Resting(rested)) if rested > now => {
                until = Some(until.map_or(rested, |doubt| doubt.min(rested)));
                Outlook::Open
            }
            (Growth::Possible, Dial::Resting(_) | Dial::Idle) => {
                self.dial = Dial::UnderWay;
                return Decision::Dial;
            }
        };
        // A room that is doubtful but being asked already would make this a busy loop.
        let until = until.map(|until| until.max(now + SHORTLY));
        Decision::Wait { until, outlook }
    }

    /// The channel is open.
    pub(crate) fn on_confirmed(&mut self, id: RoomId, now: Instant) {
        if let Some(room) = self.room(id) {
            room.asking = room.asking.saturating_sub(1);
            room.held += 1;
            room.peak = room.peak.max(room.held);
            if let Some(limit) = &mut room.limit
                && room.held > limit.places
            {
                // It was too low; who knows by how much.
                *limit = Limit { places: room.held, doubted_from: now };
            }
            if id != RoomId::FIRST {
                self.failures = 0;
            }
        }
    }

    /// The channel was refused, for the `tries`-th time in a row.
    pub(crate) fn on_refused(&mut self, id: RoomId, tries: u32, now: Instant) -> Refusal {
        let Some(room) = self.room(id) else { return Refusal::Elsewhere };
        let works = room.limit.map_or(room.peak, |limit| limit.places);
        if room.held < works {
            room.limit.get_or_insert(Limit { places: works, doubted_from: now + DOUBT });
            return Refusal::Again;
        }
        if room.peak == 0 && room.limit.is_none() {
            // Others that were asked for before may be on their way in.
            if room.asking > 1 && tries <= 1 {
                return Refusal::Again;
            }
            room.settle(now);
            return match id {
                RoomId::FIRST => Refusal::Never,
                _ => self.discard(id, now),
            };
        }
        room.limit = Some(Limit { places: room.held, doubted_from: now + DOUBT });
        room.settle(now);
        Refusal::Elsewhere
    }

    /// The connection went on refusing what ought to work.
    pub(crate) fn on_given_up(&mut self, id: RoomId, now: Instant) -> Refusal {
        let Some(room) = self.room(id) else { return Refusal::Elsewhere };
        room.limit = Some(Limit { places: room.held, doubted_from: now + SHORT_DOUBT });
        room.settle(now);
        match room.peak {
            0 if id != RoomId::FIRST => self.discard(id, now),
            _ => Refusal::Elsewhere,
        }
    }

    /// The server has closed a channel, and our answer is on its way. Only for the last place of a room it matters
    /// when that arrives.
    pub(crate) fn on_closed_by_server(&mut self, id: RoomId, now: Instant) -> Confirmation {
        let Some(room) = self.room(id) else { return Confirmation::Unneeded };
        if room.has_place() {
            room.held = room.held.saturating_sub(1);
            room.touch(now);
            return Confirmation::Unneeded;
        }
        self.on_closed_by_us(id, now);
        Confirmation::Needed
    }

    /// We have closed a channel; [`on_close_confirmed`](Self::on_close_confirmed) follows.
    pub(crate) fn on_closed_by_us(&mut self, id: RoomId, now: Instant) {
        if let Some(room) = self.room(id) {
            room.leaving += 1;
            room.left_last = now;
        }
    }

    /// The server has read our close.
    pub(crate) fn on_close_confirmed(&mut self, id: RoomId, now: Instant) {
        if let Some(room) = self.room(id) {
            room.leaving = room.leaving.saturating_sub(1);
            room.held = room.held.saturating_sub(1);
            room.touch(now);
        }
    }

    /// The further connection stands.
    pub(crate) fn on_dialled(&mut self, now: Instant) -> RoomId {
        self.dial = Dial::Idle;
        self.add(now)
    }

    /// The further connection could not be opened; each failure in a row doubles the rest before the next attempt.
    pub(crate) fn on_dial_failed(&mut self, now: Instant) {
        self.count_failure();
        self.rest(now);
    }

    /// The connection is gone, and with it what was on it.
    pub(crate) fn on_lost(&mut self, id: RoomId) {
        self.rooms.retain(|room| room.id != id);
    }

    /// Takes a further connection out if it has had no channel for a minute; else when to look again, or `None` if it
    /// is gone already.
    pub(crate) fn retire(&mut self, id: RoomId, now: Instant) -> Option<Retirement> {
        let room = self.room(id)?;
        if !room.is_empty() {
            return Some(Retirement::LookAgain(now + IDLE));
        }
        let due = room.empty_since + IDLE;
        if due > now {
            return Some(Retirement::LookAgain(due));
        }
        self.on_lost(id);
        Some(Retirement::Now)
    }

    /// Takes a further connection out that was of no use.
    fn discard(&mut self, id: RoomId, now: Instant) -> Refusal {
        self.on_lost(id);
        self.count_failure();
        if matches!(self.dial, Dial::Idle) {
            self.rest(now);
        }
        Refusal::Barren
    }

    fn count_failure(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    fn rest(&mut self, now: Instant) {
        let doublings = self.failures.saturating_sub(1).min(6);
        self.dial = Dial::Resting(now + FIRST_REST.saturating_mul(1 << doublings));
    }

    fn add(&mut self, now: Instant) -> RoomId {
        let id = RoomId(self.next);
        self.next = self.next.saturating_add(1);
        // The limit is the server's, so it is the same on each connection.
        let limit = self.rooms.iter().filter_map(|room| room.limit).max_by_key(|limit| limit.places);
        let limit = limit.filter(|limit| limit.places > 0);
        self.rooms.push(Room {
            id,
            held: 0,
            asking: 0,
            leaving: 0,
            left_last: now,
            peak: 0,
            limit,
            empty_since: now,
        });
        id
    }

    fn room(&mut self, id: RoomId) -> Option<&mut Room> {
        self.rooms.iter_mut().find(|room| room.id == id)
    }
}

/// Whether a further connection is still wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retirement {
    /// It is out of the table; close it.
    Now,
    /// Not yet.
    LookAgain(Instant),
}

impl Room {
    fn has_place(&self) -> bool {
        self.limit.is_none_or(|limit| self.held + self.asking < limit.places)
    }

    fn is_doubtful(&self, now: Instant) -> bool {
        self.asking == 0 && self.limit.is_some_and(|limit| limit.doubted_from <= now)
    }

    fn is_empty(&self) -> bool {
        self.held == 0 && self.asking == 0
    }

    /// One request is answered for good.
    fn settle(&mut self, now: Instant) {
        self.asking = self.asking.saturating_sub(1);
        self.touch(now);
    }

    fn touch(&mut self, now: Instant) {
        if self.is_empty() {
            self.empty_since = now;
        }
    }
}

/// A further connection without a channel is closed after this time.
const IDLE: Duration = Duration::from_secs(60);
/// A limit is believed for this long.
const DOUBT: Duration = Duration::from_secs(60);
/// A limit that stems from places we cannot see is believed for this long.
const SHORT_DOUBT: Duration = Duration::from_secs(10);
/// A close that is not confirmed in this time is not waited for any longer.
const LEAVE: Duration = Duration::from_secs(1);
const FIRST_REST: Duration = Duration::from_millis(100);
const SHORTLY: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests;
