//! The driver of one lane: it looks when the history moves, when a deadline comes, and when it is rung.

use std::sync::{Arc, Weak};

use ssh_mcp_core::{lane::Asks, watch::Heeds};

use super::{LaneEntry, alarm::Alarm};
use crate::{Clock, Engine, peers::Turn};

pub(super) async fn drive(entry: Arc<LaneEntry>, clock: Clock, alarm: Arc<Alarm>, engine: Weak<Engine>) {
    let mut watch = entry.source.history().watch();
    let mut deadline = alarm.of(&entry);
    loop {
        watch.heed(Heeds::Everything);
        let now = clock.now();
        let look = entry.lane.look(now, &entry.subject());
        if look.asks == Asks::Now {
            entry.peer.turns.ask(Turn::Lane(Arc::clone(&entry)));
        }
        if let Some(reason) = look.over {
            let Some(engine) = engine.upgrade() else { return };
            // Whoever else closes it at this moment has won.
            _ = engine.close_lane(&entry, reason);
            continue;
        }
        if entry.lane.is_closed() {
            return;
        }
        if look.wake.is_some_and(|wake| wake <= now) {
            // There is more to look at; others want to run too.
            tokio::task::yield_now().await;
            continue;
        }
        deadline.set(look.wake);
        watch.heed(look.heeds);
        tokio::select! {
            biased;
            () = watch.changed() => {}
            () = entry.lane.rung() => {}
        }
    }
}
