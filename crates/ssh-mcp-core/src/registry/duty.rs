//! What the task that runs a resource is told, and what it holds for it.

use crate::{
    lifecycle::SessionRef,
    quota::Place,
    sync::{Mutex, Notify, OnceCell},
};

/// The order to end a resource, given once by whoever won its word, and what goes back when it has ended.
pub struct Duty<O> {
    order: OnceCell<O>,
    /// Rung for the task when the order was given.
    pub told: Notify,
    /// The hold on the session and the place among what runs there; gone once the resource has ended.
    hold: Mutex<Option<(SessionRef, Place)>>,
}

impl<O: Copy> Duty<O> {
    /// The duty of a task that begins.
    pub fn new(hold: (SessionRef, Place)) -> Self {
        Self { order: OnceCell::new(), told: Notify::new(), hold: Mutex::new(Some(hold)) }
    }

    /// Orders the end. The word is the caller's already.
    pub fn give(&self, order: O) {
        // The word has one winner, so the cell is empty.
        _ = self.order.set(order);
        self.told.notify_one();
    }

    /// The order, once it was given.
    pub fn order(&self) -> Option<O> {
        self.order.get().copied()
    }

    /// Gives session and place back; the second call does nothing.
    pub fn let_go(&self) {
        let hold = self.hold.lock().take();
        // The reference goes last: who sees the session without references finds every place free.
        if let Some((reference, place)) = hold {
            drop(place);
            drop(reference);
        }
    }
}
