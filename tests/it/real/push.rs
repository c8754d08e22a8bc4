//! Lanes of the running product: what its clients hear of a real server's commands and shells.
//!
//! The seven points of the contract's `subscriptions.md` 13 are here (cited where they are shown), and both eras' ways to
//! subscribe. How much is held back, and what a filter lets through, is shown on fakes in the crates.

mod lag;
mod leaks;
mod lists;
mod peers;
mod pipes;
mod site;
mod ways;
mod web;

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::*;

pub(super) const UPDATED: &str = "notifications/resources/updated";
const OUTPUT: &str = "notifications/ssh/output";

/// What a client that takes bytes in notifications declares.
pub(super) fn takes_bytes() -> Value {
    json!({"experimental": {"ssh_inline_push": {"version": "1", "encodings": ["base64", "utf8"]}}})
}

impl Stage {
    /// As [`set_in`](Self::set_in), for a client that takes bytes in notifications.
    async fn set_for_bytes(era: Era, env: &[(&str, &str)]) -> Option<Self> {
        let server = OpenSshd::start_or_skip(Options::default())?;
        let client = McpClient::spawn_declaring(takes_bytes(), era, &binary("ssh-mcp-stdio"), &[], env).await;
        let answer = client.call("ssh_connect", login(&server, User::Tester, ClientKey::Ed25519)).await;
        assert!(!answer.is_error, "{}", answer.text);
        let session = field(&answer, "session_id");
        Some(Self { server, client, session })
    }

    /// Starts a command that first waits for [`go`](Self::go); its URI.
    async fn start_at_gate(&self, gate: &str, command: &str) -> String {
        output_of(&self.start(json!({"command": format!("{}; {command}", await_gate(gate))})).await)
    }

    /// Lets a command through a gate.
    fn go(&self, gate: &str) {
        open_gate(&self.server, gate);
    }

    /// Opens a lane with bytes; its id.
    async fn open_lane(&self, uri: &str, mut options: Value) -> String {
        options["uri"] = uri.into();
        options["inline_push"] = true.into();
        let opened = self.ok("sub_open", options).await;
        assert_eq!(opened.structured["inline_push_honored"], true, "{}", opened.text);
        field(&opened, "sub_id")
    }

    async fn ok(&self, tool: &str, arguments: Value) -> ToolAnswer {
        let answer = self.client.call(tool, arguments).await;
        assert!(!answer.is_error, "{}", answer.text);
        answer
    }

    /// What a lane has said until all of it is there that `is_enough` wants.
    async fn story(&self, lane: &str, is_enough: impl Fn(&Story) -> bool) -> Story {
        self.client.hear(|notes| Some(Story::of(notes, lane)).filter(|story| is_enough(story))).await
    }

    /// What a lane has said up to its last word.
    async fn whole_story(&self, lane: &str) -> Story {
        self.client.hear(|notes| Story::closed(notes, lane)).await
    }

    /// Opens a shell whose prompt has come; its id.
    async fn shell(&self) -> String {
        let open = json!({"session_id": self.session, "env": {"PS1": "ready> "}, "shell": "/bin/sh"});
        let shell = field(&self.ok("ssh_shell_open", open).await, "shell_id");
        let prompt = json!({"shell_id": shell, "patterns": ["ready> "], "timeout_secs": 60});
        assert_eq!(self.ok("ssh_shell_wait_for", prompt).await.structured["status"], "matched");
        shell
    }

    async fn write(&self, shell: &str, input: &str) {
        self.ok("ssh_shell_write", json!({"shell_id": shell, "input": input})).await;
    }
}

/// The output of a command as a resource.
fn output_of(command: &str) -> String {
    format!("command://{command}/output")
}

/// Shell words that wait for a file in the home directory, so that a test says when output begins.
fn await_gate(gate: &str) -> String {
    format!("until [ -e ~/{gate} ]; do sleep 0.02; done")
}

fn open_gate(server: &OpenSshd, gate: &str) {
    std::fs::write(server.home(User::Tester).join(gate), "").unwrap();
}

/// What one lane, or all on one resource, has said with bytes, in order.
#[derive(Debug, Default, Clone)]
pub(super) struct Story {
    /// The messages.
    pieces: Vec<Value>,
    /// Their bytes.
    pub(super) bytes: Vec<u8>,
    /// Bytes that are missing by their own word, before the first and between them.
    pub(super) gap: u64,
    /// Events that are missing by their own word.
    dropped: u64,
}

impl Story {
    /// Out of notifications of either era, those of this `SUB_ID` or URI.
    ///
    /// Panics if they are not numbered from 0 or do not join; only a replay may go back.
    fn of(notes: &[Value], whose: &str) -> Self {
        let mut story = Self::default();
        let mut at = 0;
        for note in notes {
            let Some(piece) = piece_of(note, whose) else { continue };
            assert_eq!(piece["seq"], story.pieces.len(), "{piece}");
            let bytes = bytes_of(piece);
            let gap = piece["gap_bytes"].as_u64().unwrap_or(0);
            let after = piece["cursor_after"].as_u64().unwrap();
            if piece["replay"] == true && after - (bytes.len() as u64) < at {
                at = after - bytes.len() as u64;
                story.bytes.truncate(usize::try_from(at).unwrap());
            }
            at += gap + bytes.len() as u64;
            assert_eq!(after, at, "{piece}");
            story.bytes.extend(bytes);
            story.gap += gap;
            story.dropped += piece["dropped"].as_u64().unwrap_or(0);
            story.pieces.push(piece.clone());
        }
        story
    }

    /// As [`of`](Self::of) once a lane has come to a place.
    pub(super) fn up_to(notes: &[Value], whose: &str, place: usize) -> Option<Self> {
        let last = notes.iter().rev().find_map(|note| piece_of(note, whose))?;
        (last["cursor_after"] == place).then(|| Self::of(notes, whose))
    }

    fn has(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.bytes).contains(text)
    }

    /// As [`of`](Self::of) once the last word is there: joining all that came for each message that comes takes long.
    pub(super) fn closed(notes: &[Value], whose: &str) -> Option<Self> {
        let last = notes.iter().rev().find_map(|note| piece_of(note, whose))?;
        (last["closed"] == true).then(|| Self::of(notes, whose))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// How many messages have a field.
    fn count(&self, field: &str) -> usize {
        self.pieces.iter().filter(|piece| !piece[field].is_null()).count()
    }
}

/// What a notification carries for this `SUB_ID` or URI.
fn piece_of<'a>(note: &'a Value, whose: &str) -> Option<&'a Value> {
    let piece = match note["method"].as_str()? {
        OUTPUT => &note["params"],
        UPDATED => &note["params"]["_meta"]["ssh-mcp/output"],
        _ => return None,
    };
    (piece["sub_id"] == whose || piece["uri"] == whose).then_some(piece)
}

fn bytes_of(piece: &Value) -> Vec<u8> {
    let bytes = match piece["encoding"].as_str() {
        Some("utf8") => piece["text"].as_str().unwrap().as_bytes().to_vec(),
        _ => STANDARD.decode(piece["bytes_b64"].as_str().unwrap()).unwrap(),
    };
    assert_eq!(piece["len"], bytes.len(), "{piece}");
    bytes
}

/// What `seq 1 LAST` prints.
fn numbers(last: u32) -> String {
    (1..=last).map(|number| format!("{number}\n")).collect()
}

/// Asks until the answer is yes, for what no notification tells.
pub(super) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let asking = async {
        let mut pause = tokio::time::interval(Duration::from_millis(10));
        while !is_so().await {
            pause.tick().await;
        }
    };
    tokio::time::timeout(crate::client::LIMIT, asking).await.unwrap_or_else(|_| panic!("never {what}"));
}

/// The median time that `one` takes.
async fn median(mut one: impl AsyncFnMut(usize)) -> Duration {
    let mut times = Vec::new();
    for nth in 0..15 {
        let start = Instant::now();
        one(nth).await;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

/// Of the same order of magnitude, on a machine that does other things as well.
fn is_like(later: Duration, before: Duration) -> bool {
    later <= 10 * before + Duration::from_millis(250)
}
