//! A client on pipes that goes away in the middle of a flood, in each way that is.

use super::*;
use crate::sshd::processes::{processes_matching, wait_until};

/// A command that writes more than a pipe and a lane hold, says so, and then runs on; `mark` is in its command line.
fn flood(mark: &str) -> String {
    format!("for i in $(seq 40); do seq 1 5000; sleep 0.02; done; touch ~/over; sleep {mark}")
}

impl Stage {
    /// Starts a flood and follows it until it is on its way.
    async fn in_a_flood(&self, mark: &str) {
        let uri = self.start_at_gate("go", &flood(mark)).await;
        let lane = self.open_lane(&uri, json!({"debounce_ms": 5})).await;
        self.go("go");
        self.story(&lane, |story| story.bytes.len() > 10_000).await;
    }

    /// Waits for the end of the process, which must leave in order and nothing behind.
    async fn leaves_in_order(&mut self, mark: &str) {
        let status = self.client.ended().await;
        let log = self.client.log();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
        assert!(log.contains("stopped"), "{log}");
        assert!(wait_until(crate::client::LIMIT, || processes_matching(mark).is_empty()));
    }
}

/// Waits until the pipe to a client that does not read is full, and in it a line that is not whole.
async fn fill(stage: &Stage) {
    stage.client.stop_reading();
    let over = stage.server.home(User::Tester).join("over");
    until("over", async || over.exists()).await;
}

#[tokio::test]
async fn a_client_that_dies_in_the_middle_of_a_line_is_no_failure() {
    // Without somebody who hears there is nothing to serve, even if something holds the input open.
    for input in ["closed", "open"] {
        let Some(mut stage) = Stage::set_for_bytes(Era::LEGACY_2025_11, &[]).await else { return };
        let mark = format!("298.1{}{}", std::process::id(), input.len());
        stage.in_a_flood(&mark).await;
        fill(&stage).await;
        stage.client.hang_up();
        if input == "closed" {
            stage.client.close_input();
        }
        stage.leaves_in_order(&mark).await;
    }
}

#[tokio::test]
async fn a_client_that_closes_its_input_in_a_flood_gets_whole_lines_to_the_end() {
    for pipe in ["read", "full"] {
        let Some(mut stage) = Stage::set_for_bytes(Era::LEGACY_2025_11, &[]).await else { return };
        let mark = format!("298.2{}{}", std::process::id(), pipe.len());
        stage.in_a_flood(&mark).await;
        if pipe == "full" {
            fill(&stage).await;
        }
        stage.client.close_input();
        stage.client.read_on();
        stage.leaves_in_order(&mark).await;
        // What is no line of the protocol, or has no end, is complained of there.
        let log = stage.client.log();
        assert!(!log.contains("PROTOCOL ONLY"), "{log}");
        let heard = stage.client.notifications();
        let first = heard.iter().find(|note| note["method"] == OUTPUT).unwrap();
        let story = Story::of(&heard, first["params"]["uri"].as_str().unwrap());
        let raw = numbers(5000).repeat(40);
        assert!(raw.as_bytes().starts_with(&story.bytes) && story.gap == 0, "{} bytes", story.bytes.len());
    }
}
