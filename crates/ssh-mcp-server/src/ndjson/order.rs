//! Which op waits for which (`docs/daemon.md`, "Order").
//!
//! Each op takes a ticket in the order of the lines, for what it names. Its turn has come when the ops that claimed one of
//! these before it have answered; claims that are shared do not wait for each other. An op waits only for earlier ones, so
//! none waits for ever.

use std::{collections::HashMap, sync::Arc};

use ssh_mcp_core::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::refs::{Kind, Made, Name};

/// What is claimed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Something by itself, under its identifier or as what an op will make.
    Thing(Kind, String),
    /// The making of things on a session.
    Making(String),
}

/// Whether others may hold the claim at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    Shared,
    Alone,
}

/// Who claims what.
#[derive(Default)]
pub(super) struct Order(Mutex<Chains>);

#[derive(Default)]
struct Chains {
    by_key: HashMap<Key, Chain>,
    /// So many keys are kept before those nobody claims any more are looked for.
    swept: usize,
}

/// The newest claims on one key: those after them wait for these alone.
#[derive(Default)]
struct Chain {
    alone: Option<CancellationToken>,
    shared: Vec<CancellationToken>,
}

/// One op's place in the order; dropping it lets the next ones go.
pub(super) struct Ticket {
    order: Arc<Order>,
    before: Vec<CancellationToken>,
    keys: Vec<Key>,
    done: CancellationToken,
}

/// The text a key has for a name, so that a name is the same key before and after its op has answered.
pub(super) fn spelt(kind: Kind, name: &Name) -> String {
    match name {
        Name::Id(id) => id.clone(),
        Name::Of(made) => made.known(kind).map_or_else(|| pending(made), str::to_owned),
    }
}

fn pending(made: &Made) -> String {
    format!("@{}", made.serial)
}

impl Order {
    /// A ticket for these claims.
    pub(super) fn take(self: &Arc<Self>, claims: Vec<(Key, Hold)>) -> Ticket {
        let done = CancellationToken::new();
        let mut before = Vec::new();
        let mut chains = self.0.lock();
        chains.sweep();
        let chains = &mut chains.by_key;
        let mut keys = Vec::new();
        for (key, hold) in claims {
            let chain = chains.entry(key.clone()).or_default();
            match hold {
                Hold::Shared => {
                    before.extend(chain.alone.clone());
                    chain.shared.push(done.clone());
                }
                Hold::Alone => {
                    before.append(&mut chain.shared);
                    before.extend(chain.alone.replace(done.clone()));
                }
            }
            keys.push(key);
        }
        // One op may claim a thing twice.
        before.retain(|token| *token != done);
        Ticket { order: Arc::clone(self), before, keys, done }
    }

    /// An op has answered: what was claimed as its product is claimed under its identifier. To be called before its reply
    /// can be read.
    pub(super) fn named(&self, made: &Made, things: &[(Kind, String)]) {
        let chains = &mut self.0.lock().by_key;
        for (kind, id) in things {
            let (old, new) = (pending(made), id.to_ascii_lowercase());
            let mut keys = vec![(Key::Thing(*kind, old.clone()), Key::Thing(*kind, new.clone()))];
            if *kind == Kind::Session {
                keys.push((Key::Making(old), Key::Making(new)));
            }
            for (from, to) in keys {
                if let Some(chain) = chains.remove(&from) {
                    let at = chains.entry(to).or_default();
                    at.shared.extend(chain.shared);
                    at.alone = chain.alone.or(at.alone.take());
                }
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().by_key.len()
    }
}

impl Ticket {
    /// Cancelled once the op has been answered.
    pub(super) fn answered(&self) -> CancellationToken {
        self.done.clone()
    }

    /// Ends when its turn has come.
    pub(super) async fn turn(&self) {
        for token in &self.before {
            token.cancelled().await;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.done.cancel();
        let chains = &mut self.order.0.lock().by_key;
        // A key that was renamed meanwhile is found by the sweep.
        for key in &self.keys {
            if chains.get_mut(key).is_some_and(|chain| !chain.is_claimed()) {
                chains.remove(key);
            }
        }
    }
}

impl Chains {
    fn sweep(&mut self) {
        /// Fewer are not worth a look.
        const FEW: usize = 256;
        if self.by_key.len() >= self.swept.max(FEW) {
            self.by_key.retain(|_, chain| chain.is_claimed());
            self.swept = 2 * self.by_key.len();
        }
    }
}

impl Chain {
    /// Whether somebody still holds it; those that do not are forgotten.
    fn is_claimed(&mut self) -> bool {
        self.shared.retain(|token| !token.is_cancelled());
        self.alone = self.alone.take().filter(|token| !token.is_cancelled());
        self.alone.is_some() || !self.shared.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ndjson::refs::Refs;

    fn thing(id: &str) -> Key {
        Key::Thing(Kind::Shell, id.to_owned())
    }

    async fn may_go(ticket: &Ticket) -> bool {
        tokio::time::timeout(std::time::Duration::ZERO, ticket.turn()).await.is_ok()
    }

    #[tokio::test]
    async fn who_names_the_same_waits_and_who_shares_does_not() {
        let order = Arc::new(Order::default());
        let first = order.take(vec![(thing("a"), Hold::Alone), (thing("s"), Hold::Shared)]);
        let other = order.take(vec![(thing("b"), Hold::Alone), (thing("s"), Hold::Shared)]);
        let second = order.take(vec![(thing("a"), Hold::Alone), (thing("a"), Hold::Alone)]);
        let last = order.take(vec![(thing("s"), Hold::Alone)]);
        assert!(may_go(&first).await && may_go(&other).await);
        assert!(!may_go(&second).await && !may_go(&last).await);
        drop(first);
        assert!(may_go(&second).await && !may_go(&last).await);
        drop(other);
        assert!(may_go(&last).await);
        drop((second, last));
        assert_eq!(order.len(), 0);
    }

    #[tokio::test]
    async fn a_thing_is_the_same_before_and_after_it_has_a_name() {
        let order = Arc::new(Order::default());
        let made = Refs::default().note(None, None);
        let key = |made: &Arc<Made>| thing(&spelt(Kind::Shell, &Name::Of(Arc::clone(made))));
        let early = order.take(vec![(key(&made), Hold::Alone)]);
        let things = vec![(Kind::Shell, "real".to_owned())];
        order.named(&made, &things);
        made.settle(things);
        let late = order.take(vec![(thing("real"), Hold::Alone)]);
        assert_eq!(key(&made), thing("real"));
        assert!(!may_go(&late).await);
        drop(early);
        assert!(may_go(&late).await);
    }

    #[test]
    fn keys_that_were_renamed_do_not_pile_up() {
        let order = Arc::new(Order::default());
        let mut refs = Refs::default();
        for number in 0..2000 {
            let made = refs.note(None, None);
            let name = Name::Of(Arc::clone(&made));
            let ticket = order.take(vec![(thing(&spelt(Kind::Shell, &name)), Hold::Alone)]);
            order.named(&made, &[(Kind::Shell, format!("real{number}"))]);
            drop(ticket);
        }
        assert!(order.len() <= 256, "{}", order.len());
    }
}
