//! Whether the server is well and takes work.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use http::{Method, Response, StatusCode};
use serde_json::json;

use super::answer;

/// What `/healthz` and `/readyz` know.
pub(super) struct Health {
    started: Instant,
    /// When the runtime last ran its timer, in milliseconds since the start.
    last_turn: AtomicU64,
    stopping: AtomicBool,
}

/// Whether one more session would find a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It would.
    Left,
    /// It would not.
    Full,
}

impl Health {
    pub(super) fn new(now: Instant) -> Self {
        Self { started: now, last_turn: AtomicU64::new(0), stopping: AtomicBool::new(false) }
    }

    /// Notes that the runtime's timer runs.
    pub(super) fn turn(&self, now: Instant) {
        self.last_turn.store(self.since_start(now), Ordering::Relaxed);
    }

    /// From here on no work is taken.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Pairs with [`Health::stop`].
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn since_start(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// Answers a path of health; `None` for every other path.
    pub(super) fn answer(
        &self,
        method: &Method,
        path: &str,
        now: Instant,
        room: impl FnOnce() -> Room,
    ) -> Option<Response<Body>> {
        let (well, body) = match path {
            "/healthz" => {
                let turned = self.since_start(now).saturating_sub(self.last_turn.load(Ordering::Relaxed));
                let well = u128::from(turned) < STUCK.as_millis();
                let uptime_s = now.saturating_duration_since(self.started).as_secs();
                let status = if well { "ok" } else { "stuck" };
                (well, json!({"status": status, "version": env!("CARGO_PKG_VERSION"), "uptime_s": uptime_s}))
            }
            "/readyz" => {
                let status = match (self.is_stopping(), room()) {
                    (true, Room::Left | Room::Full) => "stopping",
                    (false, Room::Full) => "full",
                    (false, Room::Left) => "ready",
                };
                (status == "ready", json!({"status": status}))
            }
            _ => return None,
        };
        if *method != Method::GET && *method != Method::HEAD {
            return Some(answer::method_not_allowed("GET, HEAD"));
        }
        Some(answer::json(if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body))
    }
}

const STUCK: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_does_not_turn_is_not_well() {
        let start = Instant::now();
        let health = Health::new(start);
        let status = |now| health.answer(&Method::GET, "/healthz", now, || Room::Full).unwrap().status();
        assert_eq!(status(start + STUCK / 2), StatusCode::OK);
        assert_eq!(status(start + STUCK), StatusCode::SERVICE_UNAVAILABLE);
        health.turn(start + STUCK);
        assert_eq!(status(start + STUCK), StatusCode::OK);
        health.stop();
        assert_eq!(status(start + STUCK), StatusCode::OK);
    }

    #[test]
    fn ready_is_neither_full_nor_stopping() {
        let health = Health::new(Instant::now());
        let status =
            |room| health.answer(&Method::HEAD, "/readyz", Instant::now(), || room).unwrap().status();
        assert_eq!(
            (status(Room::Left), status(Room::Full)),
            (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE)
        );
        health.stop();
        assert_eq!(status(Room::Left), StatusCode::SERVICE_UNAVAILABLE);
        assert!(health.answer(&Method::GET, "/other", Instant::now(), || Room::Left).is_none());
    }
}
