//! Stories of lanes and turns under every interleaving; the numbers are those of `docs/lifecycle.md` part 6.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use loom::thread;

use super::Turns;

/// lifecycle 6.44
#[test]
fn who_asks_while_the_mux_goes_to_sleep_gets_a_turn() {
    loom::model(|| {
        let turns = Arc::new(Turns::new());
        let asker = thread::spawn({
            let turns = Arc::clone(&turns);
            move || turns.ask(1)
        });
        assert_eq!(loom::future::block_on(turns.next()), Some(1));
        asker.join().unwrap();
        let mut next = pin!(turns.next());
        assert_eq!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending);
    });
}
