//! A client that takes notifications: it records them, and can stop reading or go away.

use std::{sync::Arc, time::Duration};

use ssh_mcp_core::{
    id::SubId,
    lane::{Delivery, Piece},
    port::{BoxFuture, EndWords, Message, Outlet, OutletClosed},
    sync::Mutex,
};
use tokio::{sync::watch, time::Instant};

/// The recorder; clones are the same client.
#[derive(Clone)]
pub struct RecordedOutlet {
    heard: Arc<Mutex<Vec<Heard>>>,
    state: watch::Sender<State>,
    changes: watch::Sender<usize>,
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// When it was taken.
    pub at: Instant,
    /// What it was.
    pub what: What,
}

/// What a message was.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// Of a lane.
    Lane {
        /// The lane.
        sub_id: SubId,
        /// The URI in it.
        uri: String,
        /// What it said.
        delivery: Delivery,
        /// How the resource ended.
        ending: Option<EndWords>,
    },
    /// The list has changed.
    ListChanged,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reads,
    Stalls,
    Gone,
}

impl RecordedOutlet {
    /// A client that reads.
    pub fn new() -> Self {
        let (state, changes) = (watch::Sender::new(State::Reads), watch::Sender::new(0));
        Self { heard: Arc::default(), state, changes }
    }

    /// It reads no more until [`read_on`](Self::read_on).
    pub fn stall(&self) {
        self.state.send_replace(State::Stalls);
    }

    /// It reads again.
    pub fn read_on(&self) {
        self.state.send_replace(State::Reads);
    }

    /// It goes away.
    pub fn leave(&self) {
        self.state.send_replace(State::Gone);
    }

    /// Everything it has taken.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().clone()
    }

    /// The messages of one lane.
    pub fn of(&self, lane: SubId) -> Vec<Delivery> {
        let heard = self.heard();
        let of_lane = heard.into_iter().filter_map(|heard| match heard.what {
            What::Lane { sub_id, delivery, .. } => (sub_id == lane).then_some(delivery),
            What::ListChanged => None,
        });
        of_lane.collect()
    }

    /// The bytes one lane brought, in order.
    pub fn bytes_of(&self, lane: SubId) -> Vec<u8> {
        let pieces = self.of(lane).into_iter().filter_map(|delivery| match delivery {
            Delivery::Piece(Piece { bytes, .. }) => Some(bytes),
            Delivery::Updated | Delivery::End { .. } | Delivery::Closed { .. } => None,
        });
        pieces.flatten().collect()
    }

    /// Waits until it has taken so many messages, or gives up.
    pub async fn has_heard(&self, count: usize, patience: Duration) -> bool {
        let mut changes = self.changes.subscribe();
        let heard = changes.wait_for(|heard| *heard >= count);
        tokio::time::timeout(patience, heard).await.is_ok()
    }
}

impl Default for RecordedOutlet {
    fn default() -> Self {
        Self::new()
    }
}

impl Outlet for RecordedOutlet {
    fn deliver<'a>(&'a self, message: Message<'a>) -> BoxFuture<'a, Result<(), OutletClosed>> {
        Box::pin(async move {
            let mut state = self.state.subscribe();
            // The sender is ours, so waiting cannot fail.
            let is_gone =
                state.wait_for(|state| *state != State::Stalls).await.map(|state| *state == State::Gone);
            if is_gone.unwrap_or(true) {
                return Err(OutletClosed);
            }
            let what = match message {
                Message::Lane { sub_id, uri, delivery, ending } => What::Lane {
                    sub_id,
                    uri: uri.to_owned(),
                    delivery: delivery.clone(),
                    ending: ending.copied(),
                },
                Message::ListChanged => What::ListChanged,
            };
            let count = {
                let mut heard = self.heard.lock();
                heard.push(Heard { at: Instant::now(), what });
                heard.len()
            };
            self.changes.send_replace(count);
            Ok(())
        })
    }

    fn is_closed(&self) -> bool {
        *self.state.borrow() == State::Gone
    }
}
