//! The read side of the registries: seven kinds seen alike by listing, suggestions and URI lookup.

use std::time::Duration;

use uuid::Uuid;

use crate::{kind::forward::Passage, owner::Owner, reason::Reason, uri::Scheme};

/// How outsiders look into a registry without knowing the kind of its entries.
pub trait Directory: Send + Sync {
    /// The scheme of the kind.
    fn scheme(&self) -> Scheme;

    /// The owner's entries, live and retained, newest first.
    fn glimpses(&self, owner: &Owner) -> Vec<Glimpse>;

    /// Up to three live identifiers of the owner nearest to `id` by edit distance, ties in alphabetical order.
    fn nearest(&self, owner: &Owner, id: &str) -> Vec<String>;
}

/// What a listing says about an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glimpse {
    /// The entry's identifier.
    pub id: Uuid,
    /// The session it runs on; for a session itself, its own identifier.
    pub session: Option<Uuid>,
    /// The agent it was made for.
    pub agent: Option<String>,
    /// Its label.
    pub name: Option<String>,
    /// `user@host:port` of the session.
    pub target: String,
    /// The state in the words of `docs/resources.md`.
    pub status: &'static str,
    /// Kind-specific line: geometry, command line.
    pub description: String,
    /// When it was made, since the engine's start.
    pub created: Duration,
    /// When it ended, since the engine's start.
    pub ended: Option<Duration>,
    /// Why it ended.
    pub reason: Option<Reason>,
    /// Last input, output or read, since the engine's start.
    pub active: Duration,
    /// Lanes and calls observing it.
    pub observers: u32,
    /// Bytes it ever produced; for sessions zero.
    pub bytes: u64,
    /// Bytes held now.
    pub held: usize,
    /// Of a forward: which side listens, and where it leads.
    pub passage: Option<Passage>,
}
