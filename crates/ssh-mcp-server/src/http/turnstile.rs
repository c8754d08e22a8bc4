//! The turnstile of a session's notifications: no more pass than its stream takes.
//!
//! The SDK holds 16 messages for a stream, and then its loop, which serves the whole session, waits for the stream to be read.
//! So fewer are let in, and whoever has more to say waits here instead. Without a stream nobody waits: the SDK keeps the
//! last 16 for the next one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ssh_mcp_core::port::BoxFuture;
use ssh_mcp_handler::Gate;
use tokio::sync::Notify;

/// Where the notifications of one session pass.
#[derive(Default)]
pub(super) struct Turnstile {
    state: Mutex<State>,
    moved: Notify,
}

#[derive(Default)]
struct State {
    /// Which stream it is that has the say; streams are counted.
    stream: u64,
    /// How many more may pass; `None` where nobody listens.
    room: Option<usize>,
}

/// A stream's word on what it takes; dropping it says that nobody listens.
pub(super) struct Feed {
    turnstile: Arc<Turnstile>,
    stream: u64,
}

/// Half of what the SDK holds: what it says on its own account finds room as well.
const MOST: usize = 8;

impl Turnstile {
    /// A stream that is about to be opened. Nothing passes until it is asked for what it holds, which may be full already.
    pub(super) fn listen(self: &Arc<Self>) -> Feed {
        let mut state = self.state();
        *state = State { stream: state.stream + 1, room: Some(0) };
        Feed { turnstile: Arc::clone(self), stream: state.stream }
    }

    /// Nobody will listen any more.
    pub(super) fn open(&self) {
        let mut state = self.state();
        *state = State { stream: state.stream + 1, room: None };
        drop(state);
        self.moved.notify_waiters();
    }

    /// Whether one may pass, which it then has.
    fn take(&self) -> bool {
        match &mut self.state().room {
            None => true,
            Some(0) => false,
            Some(room) => {
                *room -= 1;
                true
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate for Turnstile {
    fn pass(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            loop {
                let mut moved = std::pin::pin!(self.moved.notified());
                // Before the look, so that what moves in between is not missed.
                moved.as_mut().enable();
                if self.take() {
                    return;
                }
                moved.await;
            }
        })
    }
}

impl Feed {
    /// The stream has given something away.
    pub(super) fn took_one(&self) {
        // Some of it never passed here: comments, and what the SDK repeats.
        self.set(|room| room.map(|room| (room + 1).min(MOST)));
    }

    /// The stream holds nothing.
    pub(super) fn is_empty(&self) {
        self.set(|_| Some(MOST));
    }

    fn set(&self, change: impl FnOnce(Option<usize>) -> Option<usize>) {
        let mut state = self.turnstile.state();
        if state.stream == self.stream {
            state.room = change(state.room);
            drop(state);
            self.turnstile.moved.notify_waiters();
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.set(|_| None);
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    fn is_ready(future: &mut BoxFuture<'_, ()>) -> bool {
        future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// How many pass until one has to wait, of twenty.
    fn passing(turnstile: &Turnstile) -> usize {
        (0..20).take_while(|_| is_ready(&mut turnstile.pass())).count()
    }

    #[test]
    fn no_more_pass_than_a_stream_takes() {
        let turnstile = Arc::new(Turnstile::default());
        assert_eq!(passing(&turnstile), 20, "nobody listens");
        let feed = turnstile.listen();
        assert_eq!(passing(&turnstile), 0, "what it holds is not known yet");
        feed.took_one();
        assert_eq!(passing(&turnstile), 1);
        feed.is_empty();
        feed.took_one();
        assert_eq!(passing(&turnstile), MOST);
        drop(feed);
        assert_eq!(passing(&turnstile), 20);
    }

    #[test]
    fn only_the_latest_stream_has_the_say() {
        let turnstile = Arc::new(Turnstile::default());
        let (before, feed) = (turnstile.listen(), turnstile.listen());
        before.is_empty();
        drop(before);
        assert_eq!(passing(&turnstile), 0);
        turnstile.open();
        feed.is_empty();
        assert_eq!(passing(&turnstile), 20, "the session is over");
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_the_stream_is_read_or_ends() {
        let turnstile = Arc::new(Turnstile::default());
        for end in [false, true] {
            let feed = turnstile.listen();
            let mut waits = turnstile.pass();
            assert!(!is_ready(&mut waits));
            if end {
                drop(feed)
            } else {
                feed.took_one()
            }
            waits.await;
        }
    }
}
