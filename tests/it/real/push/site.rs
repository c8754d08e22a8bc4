//! The ground of the tests over HTTP: a server, the product, and a client with a session on both.

use super::*;
use crate::http::Product;
use crate::web::{Events, Web};

/// A server, the product over HTTP, and one client that has a session on it.
pub(super) struct Site {
    pub(super) server: OpenSshd,
    pub(super) product: Product,
    pub(super) client: Web,
    pub(super) session: String,
}

impl Site {
    pub(super) async fn set(env: &[(&str, &str)]) -> Option<Self> {
        let server = OpenSshd::start_or_skip(Options::default())?;
        let product = Product::start(&[], env);
        let client = Web::in_session(&product, takes_bytes()).await;
        let session = connect(&server, &client).await;
        Some(Self { server, product, client, session })
    }

    /// Starts a command; its URI.
    pub(super) async fn start(&self, command: &str) -> String {
        let exec = json!({"session_id": self.session, "command": command});
        output_of(&field(&ok(&self.client, "ssh_exec", exec).await, "command_id"))
    }

    /// Starts a command that first waits for a gate.
    pub(super) async fn start_at_gate(&self, gate: &str, command: &str) -> String {
        self.start(&format!("{}; {command}", await_gate(gate))).await
    }

    pub(super) async fn ended(&self, uri: &str) {
        let command = uri.trim_start_matches("command://").trim_end_matches("/output");
        let wait =
            json!({"command_id": command, "wait": true, "wait_timeout_secs": 120, "max_output_bytes": 1});
        let answer = ok(&self.client, "ssh_exec_output", wait).await;
        assert_eq!(answer.structured["status"], "completed", "{}", answer.text);
    }

    /// Waits until an answer about a lane warns so.
    pub(super) async fn warned(&self, lane: &str, code: &str) {
        until(code, async || {
            let stats = ok(&self.client, "sub_stats", json!({"sub_id": lane})).await;
            stats.structured["warnings"].to_string().contains(code)
        })
        .await;
    }

    /// The memory of the product, in bytes: `VmRSS`, or `VmHWM` for the most ever.
    pub(super) fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.product.pid())).unwrap();
        let line = status.lines().find_map(|read| read.strip_prefix(line)).unwrap();
        let kib: u64 = line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().unwrap();
        kib << 10
    }

    /// Waits until there is no lane, which must be soon after `since`: the sweep of what was missed comes every 30 s.
    pub(super) async fn no_lane_left(&self, since: Instant, within: Duration) {
        let mut asked = since;
        until("without lanes", async || {
            asked = Instant::now();
            ok(&self.client, "sub_list", json!({})).await.structured["subs_total"] == 0
        })
        .await;
        assert!(asked - since < within, "{:?}", asked - since);
    }
}

pub(super) async fn connect(server: &OpenSshd, client: &Web) -> String {
    let mut login = login(server, User::Tester, ClientKey::Ed25519);
    login["reuse"] = "force_new".into();
    field(&ok(client, "ssh_connect", login).await, "session_id")
}

pub(super) async fn ok(client: &Web, tool: &str, arguments: Value) -> ToolAnswer {
    let answer = client.call(tool, arguments).await;
    assert!(!answer.is_error, "{}", answer.text);
    answer
}

pub(super) async fn open_lane(client: &Web, uri: &str, mut options: Value) -> String {
    options["uri"] = uri.into();
    options["inline_push"] = true.into();
    field(&ok(client, "sub_open", options).await, "sub_id")
}

/// What a lane has said up to its last word.
pub(super) async fn whole_story(events: &mut Events, whose: &str) -> Story {
    events.hear(|heard| Story::closed(heard, whose)).await
}

pub(super) async fn story(events: &mut Events, whose: &str, is_enough: impl Fn(&Story) -> bool) -> Story {
    events.hear(|heard| Some(Story::of(heard, whose)).filter(|story| is_enough(story))).await
}
