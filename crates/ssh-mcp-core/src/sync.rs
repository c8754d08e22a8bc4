//! The one switch between real primitives and the model checker's.
//!
//! Every shared structure of this crate is written over these few types, so that `scripts/loom.sh` can run it under
//! every interleaving. `Arc` is always the standard library's: the checker's knows no trait objects, and reference
//! counts are not what is being checked. Each type offers only what both sides can do.

use std::future::Future;
pub use std::sync::atomic::Ordering;

#[cfg(all(test, ssh_mcp_loom))]
use self::model as imp;
#[cfg(not(all(test, ssh_mcp_loom)))]
use self::real as imp;

pub use imp::{AtomicBool, AtomicU32, AtomicU64};

/// A lock for critical sections of a few instructions, never held across an await.
#[derive(Debug, Default)]
pub struct Mutex<T>(imp::Lock<T>);

impl<T> Mutex<T> {
    /// A lock over `value`.
    pub fn new(value: T) -> Self {
        Self(imp::Lock::new(value))
    }

    /// Waits for the lock. A holder that panicked is no reason to fail: what these locks guard is consistent between
    /// any two statements.
    pub fn lock(&self) -> imp::LockGuard<'_, T> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A cell that is written once and then only read.
#[derive(Debug)]
pub struct OnceCell<T>(imp::Cell<T>);

impl<T> OnceCell<T> {
    /// An empty cell.
    pub fn new() -> Self {
        Self(imp::Cell::new())
    }

    /// The value, once there is one. A reader that saw it sees it ever after.
    pub fn get(&self) -> Option<&T> {
        self.0.get()
    }

    /// Writes the value; gives it back when another one was there first.
    pub fn set(&self, value: T) -> Result<(), T> {
        self.0.set(value)
    }
}

impl<T> Default for OnceCell<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Wakes the one task that waits on it; a wake-up nobody waits for is kept for the next wait.
#[derive(Debug, Default)]
pub struct Notify(imp::Bell);

impl Notify {
    /// A notifier with no wake-up pending.
    pub fn new() -> Self {
        Self(imp::Bell::new())
    }

    /// Wakes the waiter, or lets its next wait end at once. Several calls before that count as one.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Ends at the first wake-up no earlier wait has taken. Dropping the wait loses no wake-up.
    pub fn notified(&self) -> impl Future<Output = ()> + Send + '_ {
        self.0.notified()
    }
}

#[cfg(not(all(test, ssh_mcp_loom)))]
mod real {
    pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
    pub(super) use std::sync::{MutexGuard as LockGuard, OnceLock as Cell};

    pub(super) use tokio::sync::Notify as Bell;

    #[expect(clippy::disallowed_types, reason = "this is the wrapper every other file uses instead")]
    pub(super) type Lock<T> = std::sync::Mutex<T>;
}

#[cfg(test)]
#[cfg(ssh_mcp_loom)]
mod model {
    use std::{
        future::{Future, poll_fn},
        sync::OnceLock,
        task::{Poll, Waker},
    };

    pub(super) use loom::sync::MutexGuard as LockGuard;
    pub use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
    pub(super) type Lock<T> = loom::sync::Mutex<T>;

    /// The checker has no write-once cell: its lock orders the accesses, the standard cell only lends the value out.
    #[derive(Debug)]
    pub(super) struct Cell<T> {
        order: Lock<()>,
        value: OnceLock<T>,
    }

    impl<T> Cell<T> {
        pub(super) fn new() -> Self {
            Self { order: Lock::new(()), value: OnceLock::new() }
        }

        pub(super) fn get(&self) -> Option<&T> {
            let _order = self.order.lock().unwrap();
            self.value.get()
        }

        pub(super) fn set(&self, value: T) -> Result<(), T> {
            let _order = self.order.lock().unwrap();
            self.value.set(value)
        }
    }

    /// The checker's own `AtomicWaker` forgets a registration under contention and then reports false deadlocks, so
    /// the notifier is modelled by a lock over "woken" and the waker.
    #[derive(Debug, Default)]
    pub(super) struct Bell(Lock<(bool, Option<Waker>)>);

    impl Bell {
        pub(super) fn new() -> Self {
            Self::default()
        }

        pub(super) fn notify_one(&self) {
            let waker = {
                let mut bell = self.0.lock().unwrap();
                bell.0 = true;
                bell.1.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }

        pub(super) fn notified(&self) -> impl Future<Output = ()> + Send + '_ {
            poll_fn(|cx| {
                let mut bell = self.0.lock().unwrap();
                if std::mem::take(&mut bell.0) {
                    return Poll::Ready(());
                }
                bell.1 = Some(cx.waker().clone());
                Poll::Pending
            })
        }
    }
}
