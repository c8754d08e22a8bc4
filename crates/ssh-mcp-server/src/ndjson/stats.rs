//! Numbers of the daemon, what it says at intervals, and what nobody watches.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Map, Value};
use ssh_mcp_core::{
    code::Warning,
    lane::{LagPolicy, millis},
    owner::Owner,
    registry::TransferStatus,
    sync::Mutex,
    uri::Resource,
};

use super::{
    daemon::{Daemon, Tally},
    event::{DaemonStats, Event, Heartbeat, PROTOCOL, Warn},
    now,
    outbox::Beat,
};

/// What has become of the ops.
#[derive(Debug, Default)]
pub(super) struct Counts {
    ops: Tally,
    answered: Tally,
    refused: Mutex<BTreeMap<String, u64>>,
}

impl Counts {
    pub(super) fn note_op(&self) {
        self.ops.add();
    }

    pub(super) fn note_answer(&self) {
        self.answered.add();
    }

    pub(super) fn note_refusal(&self, code: &str) {
        *self.refused.lock().entry(code.to_owned()).or_default() += 1;
    }
}

impl Daemon {
    /// Numbers of this moment.
    pub(super) fn stats(&self) -> DaemonStats {
        let engine = self.engine();
        let registries = engine.registries();
        let sums = engine.lane_sums(&Owner::local());
        let mut policies: BTreeMap<&str, u64> =
            LagPolicy::ALL.iter().map(|policy| (policy.as_str(), 0)).collect();
        for lane in engine.lanes_of(&Owner::local()) {
            *policies.entry(lane.report().policy.as_str()).or_default() += 1;
        }
        let refused = self.counts.refused.lock().clone();
        let count = |number: usize| number as u64;
        let (highest, waits) = self.outbox.highest();
        let commands = registries.commands.all();
        let transfers = registries.transfers.all();
        DaemonStats {
            protocol: PROTOCOL,
            ts: now(engine),
            uptime_s: engine.clock().now().as_secs(),
            active_sessions: sums.sessions,
            active_subs: sums.lanes,
            active_commands: count(commands.iter().filter(|command| command.ending.get().is_none()).count()),
            active_shells: count(registries.shells.all().iter().filter(|shell| shell.is_running()).count()),
            active_transfers: count(
                transfers.iter().filter(|transfer| transfer.status() == TransferStatus::Running).count(),
            ),
            active_rsyncs: count(
                registries.rsyncs.all().iter().filter(|sync| sync.ending.get().is_none()).count(),
            ),
            active_forwards: count(
                registries.forwards.all().iter().filter(|forward| forward.ending.get().is_none()).count(),
            ),
            active_serial: count(
                registries.serials.all().iter().filter(|serial| serial.ending.get().is_none()).count(),
            ),
            events_sent_total: sums.sums.events_sent,
            bytes_sent_total: sums.sums.bytes_sent,
            lagged_drops_total: sums.sums.lagged_drops,
            lagged_recoveries_total: sums.sums.lagged_recoveries,
            ring_buffer_overflows_total: self.lanes.gaps(),
            mpsc_full_events_total: waits,
            mux_queue_depth: self.outbox.depth() + sums.waiting,
            mux_queue_high_watermark: highest,
            ops_total: self.counts.ops.sum(),
            ops_in_flight: self.counts.ops.sum().saturating_sub(self.counts.answered.sum()),
            rejected_ops_total: refused.values().sum(),
            rejected_ops_by_code: object(refused),
            subs_by_policy: object(policies),
            id: None,
        }
    }

    /// Says something at each interval, for as long as it is run.
    pub(super) async fn beat(self: Arc<Self>, every: Option<Duration>, beat: Beat) {
        let Some(every) = every else { return };
        let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
        loop {
            interval.tick().await;
            let event = match beat {
                Beat::Stats => Event::DaemonStats(Box::new(self.stats())),
                Beat::Heartbeat => Event::Heartbeat(Heartbeat {
                    ts: now(self.engine()),
                    protocol: PROTOCOL,
                    uptime_s: self.engine().clock().now().as_secs(),
                }),
            };
            self.outbox.beat(beat, &event);
        }
    }

    /// Says what nobody watches, and which lanes have lost something; for as long as it is run.
    pub(super) async fn advise(self: Arc<Self>) {
        let mut interval = tokio::time::interval(Duration::from_secs(1));
        loop {
            interval.tick().await;
            let engine = self.engine();
            let mut warnings = Vec::new();
            for resource in self.followed.all() {
                warnings.extend(engine.take_leak(resource).map(|leak| Warn {
                    age_ms: Some(millis(leak.age)),
                    severity: Some("warn".to_owned()),
                    ..warning(Warning::SubLeakRisk, leak.resource, "nobody observes it".to_owned())
                }));
            }
            for lane in engine.lanes_of(&Owner::local()) {
                let notices = lane.notices(engine.clock().now());
                for (code, number, what) in [
                    (Warning::LagDetected, notices.lost_bytes, "bytes the history no longer had"),
                    (Warning::LaneBufferFull, notices.dropped, "events its policy dropped"),
                    (Warning::LagBackpressure, notices.gave_up, "times it held the history back too long"),
                    (Warning::MuxBackpressure, notices.stuck, "times nothing was taken for 5 s"),
                ] {
                    if number > 0 {
                        let msg = format!("lane {}: {number} {what}", lane.id);
                        warnings.push(warning(code, lane.resource, msg));
                    }
                }
            }
            for warning in warnings {
                self.warn(warning).await;
            }
        }
    }
}

fn warning(code: Warning, resource: Resource, msg: String) -> Warn {
    Warn { code: code.as_str().to_owned(), msg, resource: Some(resource.to_string()), ..Warn::default() }
}

fn object(numbers: BTreeMap<impl Into<String>, u64>) -> Map<String, Value> {
    numbers.into_iter().map(|(name, number)| (name.into(), number.into())).collect()
}
