//! What the log says of calls, and what it never says.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex},
};

use serde_json::json;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use super::rig::Rig;

/// Keeps every line of one thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(String, Level, String)>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0 += &format!(" {}={value:?}", field.name());
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let metadata = event.metadata();
        self.0.lock().unwrap().push((metadata.target().to_owned(), *metadata.level(), line.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl Log {
    fn audit(&self, level: Level) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        let of_level = lines.iter().filter(|(target, at, _)| target == "ssh_mcp::audit" && *at == level);
        of_level.map(|(_, _, line)| line.clone()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn each_call_that_changes_something_has_one_line_and_no_secret() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let rig = Rig::new();
    // Another test may be meeting these lines of the log for the first time at this moment; tracing could then go on believing
    // that nobody listens to them.
    rig.fails("ssh_disconnect", json!({ "session_id": "nonsense" })).await;
    tracing::callsite::rebuild_interest_cache();
    log.0.lock().unwrap().clear();
    let asked = json!({
        "address": "example.org", "username": "ann", "agent_id": "a1", "password": "hunter2", "key_passphrase": "sesame",
    });
    let id = rig.ok("ssh_connect", asked).await.fact("session_id");
    rig.ok("ssh_sessions", json!({})).await;
    rig.ok("ssh_resources", json!({})).await;
    let lane = rig.ok("sub_open", json!({ "uri": format!("session://{id}/health") })).await.fact("sub_id");
    rig.ok("sub_stats", json!({ "sub_id": lane })).await;
    rig.fails("ssh_disconnect", json!({ "session_id": "nonsense" })).await;
    rig.ok("ssh_disconnect", json!({ "session_id": id })).await;

    let lines = log.audit(Level::INFO);
    let expected: [&[&str]; 4] = [
        &[
            "tool=\"ssh_connect\"",
            "peer=\"test\"",
            "host=\"example.org:22\"",
            "user=\"ann\"",
            "agent_id=\"a1\"",
            "outcome=\"ok\"",
            &id,
        ],
        &["tool=\"sub_open\"", "outcome=\"ok\"", &lane],
        &["tool=\"ssh_disconnect\"", "outcome=\"SESSION_NOT_FOUND\""],
        &["tool=\"ssh_disconnect\"", "host=\"example.org:22\"", "outcome=\"ok\"", "duration_ms=", &id],
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, parts) in lines.iter().zip(expected) {
        parts.iter().for_each(|part| assert!(line.contains(part), "{part} in {line}"));
    }
    let all = format!("{:?}", log.0.lock().unwrap());
    assert!(!all.contains("hunter2") && !all.contains("sesame"), "{all}");
}
