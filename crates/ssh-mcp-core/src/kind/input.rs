//! Input on its way to the far side of a stream: a bounded queue between the calls that bring it and the one writer.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    sync::{AtomicU64, Mutex, Notify, Ordering},
    watch::{Watch, Watchers},
};

/// What waits to be sent: at most [`InputQueue::FRAMES`] pieces, taken in order by one writer.
///
/// Each piece has a ticket; whoever put it in waits until that many pieces have been sent.
#[derive(Debug)]
pub struct InputQueue<F> {
    waiting: Mutex<Waiting<F>>,
    sent: AtomicU64,
    /// Rung for the writer when a piece came.
    pub filled: Notify,
    senders: Arc<Watchers>,
}

#[derive(Debug)]
struct Waiting<F> {
    frames: VecDeque<F>,
    tickets: u64,
}

/// The queue has no room; the piece comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full<F>(pub F);

impl<F> InputQueue<F> {
    /// Pieces that can wait.
    pub const FRAMES: usize = 64;

    /// An empty queue.
    pub fn new() -> Self {
        Self {
            waiting: Mutex::new(Waiting { frames: VecDeque::new(), tickets: 0 }),
            sent: AtomicU64::new(0),
            filled: Notify::new(),
            senders: Watchers::new(),
        }
    }

    /// Puts a piece at the end; the answer is its ticket.
    ///
    /// # Errors
    /// If as many wait as may.
    pub fn push(&self, frame: F) -> Result<u64, Full<F>> {
        let mut waiting = self.waiting.lock();
        if waiting.frames.len() >= Self::FRAMES {
            return Err(Full(frame));
        }
        waiting.frames.push_back(frame);
        waiting.tickets += 1;
        let ticket = waiting.tickets;
        drop(waiting);
        self.filled.notify_one();
        Ok(ticket)
    }

    /// Takes the piece that has waited longest.
    pub fn pop(&self) -> Option<F> {
        self.waiting.lock().frames.pop_front()
    }

    /// How many pieces wait.
    pub fn depth(&self) -> usize {
        self.waiting.lock().frames.len()
    }

    /// Whether everything that was put in has been sent.
    pub fn is_idle(&self) -> bool {
        self.sent() == self.waiting.lock().tickets
    }

    /// Notes that the piece taken last has been sent.
    pub fn note_sent(&self) {
        self.sent.fetch_add(1, Ordering::AcqRel);
        self.senders.wake();
    }

    /// How many pieces have been sent: the ticket of the last one.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// A waiter that is woken by each piece that is sent.
    pub fn watch(&self) -> Watch {
        self.senders.watch()
    }
}

impl<F> Default for InputQueue<F> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests {
    use super::*;

    #[test]
    fn input_keeps_its_order_and_its_bound() {
        let queue = InputQueue::new();
        for n in 0..InputQueue::<usize>::FRAMES {
            assert_eq!(queue.push(n), Ok(n as u64 + 1));
        }
        assert_eq!(queue.push(99), Err(Full(99)));
        assert_eq!((queue.pop(), queue.depth()), (Some(0), 63));
        queue.note_sent();
        assert!(queue.sent() == 1 && !queue.is_idle());
        assert_eq!(queue.push(99), Ok(65));
    }
}
