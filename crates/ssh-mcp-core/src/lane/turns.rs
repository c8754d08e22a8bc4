//! Turns: who speaks next to one client, first come, first served (`docs/subscriptions.md`, "Fairness").
//!
//! One queue per peer. Whoever has something to say asks for a turn; the peer's mux hands out one turn after the other, and
//! a turn is one message. Who asks while it waits does not wait twice: that is the asker's to see to.

use std::collections::VecDeque;

use crate::sync::{Mutex, Notify};

/// The queue for turns at one client.
#[derive(Debug)]
pub struct Turns<T> {
    waiting: Mutex<Waiting<T>>,
    /// Rung for the mux.
    asked: Notify,
}

#[derive(Debug)]
struct Waiting<T> {
    queue: VecDeque<T>,
    ended: bool,
}

impl<T> Turns<T> {
    /// A queue nobody waits in.
    pub fn new() -> Self {
        let waiting = Waiting { queue: VecDeque::new(), ended: false };
        Self { waiting: Mutex::new(waiting), asked: Notify::new() }
    }

    /// Asks for a turn, behind everybody who has asked. After the end nobody gets one.
    pub fn ask(&self, who: T) {
        {
            let mut waiting = self.waiting.lock();
            if waiting.ended {
                return;
            }
            waiting.queue.push_back(who);
        }
        self.asked.notify_one();
    }

    /// Whose turn it is; waits while nobody asks. None when there are no turns any more.
    pub async fn next(&self) -> Option<T> {
        loop {
            {
                let mut waiting = self.waiting.lock();
                if waiting.ended {
                    return None;
                }
                if let Some(next) = waiting.queue.pop_front() {
                    return Some(next);
                }
            }
            self.asked.notified().await;
        }
    }

    /// There are no turns any more; those who wait are let go.
    pub fn end(&self) {
        let gone = {
            let mut waiting = self.waiting.lock();
            waiting.ended = true;
            std::mem::take(&mut waiting.queue)
        };
        self.asked.notify_one();
        drop(gone);
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.lock().queue.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self::new()
    }
}
