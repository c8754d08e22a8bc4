//! What the task that runs a resource is told, and what it holds for it.

use crate::{
    lifecycle::SessionRef,
    quota::Place,
    sync::{Mutex, Notify, OnceCell},
};

/// The order to end a resource, given once by whoever won its word, and what goes back when it has ended.
pub struct Duty<O, H = Hold> {
    order: OnceCell<O>,
    /// Rung for the task when the order was given.
    pub told: Notify,
    /// Gone once the resource has ended.
    hold: Mutex<Option<H>>,
}

/// What a resource of a session holds. The reference goes last: who sees the session without references finds every place
/// free.
pub struct Hold {
    _place: Place,
    _reference: SessionRef,
}

impl<O: Copy> Duty<O> {
    /// The duty of a task on a session that begins.
    pub fn new((reference, place): (SessionRef, Place)) -> Self {
        Self::holding(Hold { _place: place, _reference: reference })
    }
}

impl<O: Copy, H> Duty<O, H> {
    /// The duty of a task that begins and holds this.
    pub fn holding(hold: H) -> Self {
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

    /// Gives back what is held; the second call does nothing.
    pub fn let_go(&self) {
        let hold = self.hold.lock().take();
        // Outside the lock: what goes back may wake others.
        drop(hold);
    }
}
