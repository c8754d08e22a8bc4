//! The mux of one client: one turn after the other, one message at a time.
//!
//! It waits for the client's transport and for nothing else, and nobody but the client's own lanes waits for it
//! (`docs/adr/0010-lanes.md`).

use std::{
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};

use ssh_mcp_core::{
    lane::{Asks, Delivery, Handed},
    port::Message,
};

use super::LaneEntry;
use crate::{Clock, Engine, Peer, peers::Turn};

/// A client that takes nothing for so long is told so once it asks.
const STUCK: Duration = Duration::from_secs(5);

pub(crate) async fn mux(peer: Arc<Peer>, clock: Clock, engine: Weak<Engine>) {
    while let Some(turn) = peer.turns.next().await {
        match turn {
            Turn::List(teller) => teller.tell().await,
            Turn::Lane(lane) => {
                if let Some(handed) = speak(&lane, clock).await {
                    let asks = lane.lane.sent(clock.now(), &lane.subject(), handed);
                    if handed == Handed::Refused {
                        if let Some(engine) = engine.upgrade() {
                            engine.close_silently(&lane);
                        }
                    } else if asks == Asks::Now {
                        peer.turns.ask(Turn::Lane(Arc::clone(&lane)));
                    }
                    lane.said.notify_one();
                    if let Some(engine) = engine.upgrade() {
                        engine.lanes.heard.notify_waiters();
                    }
                }
            }
        }
    }
}

/// The one message of a turn; none if the lane has nothing to say after all.
async fn speak(lane: &LaneEntry, clock: Clock) -> Option<Handed> {
    let delivery = lane.lane.take(clock.now(), &lane.subject())?;
    let ending = match &delivery {
        Delivery::End { .. } => lane.end_words(),
        Delivery::Updated | Delivery::Piece(_) | Delivery::Closed { .. } => None,
    };
    let uri = lane.uri();
    let message = Message::Lane { sub_id: lane.id, uri: &uri, delivery: &delivery, ending: ending.as_ref() };
    let mut delivered = pin!(lane.outlet.deliver(message));
    let outcome = match tokio::time::timeout(STUCK, delivered.as_mut()).await {
        Ok(outcome) => outcome,
        Err(_) => {
            lane.lane.note_stuck();
            delivered.await
        }
    };
    Some(if outcome.is_ok() { Handed::Accepted } else { Handed::Refused })
}
