//! `ssh_shell_read` and `ssh_shell_wait_for`: what comes out of a shell.

use std::{sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ssh_mcp_core::{code::Code, registry::Shell, settings::Settings};
use ssh_mcp_engine::{Observable, ShellMatch, ShellWait};

use super::{
    Output, Standing, newest, patience, skipped_hint, transcript,
    unread::{self, Drain, Piece},
    yes,
};
use crate::{
    args::{Arguments, Rule},
    cx::Cx,
    failure::Failure,
    next::{self, After},
    progress::{Beat, EVERY_5_S, EVERY_SECOND, Waiting},
    reply::{Answer, Body, Text},
    tools::{Effect, Key, Reach, Repeat, Row, Set, call},
};

pub(super) const READ: Row = Row {
    name: "ssh_shell_read",
    title: "Read what a shell printed",
    description: "Returns unread output of a shell and drains it unless clear=false. from=tail gives the \
                  newest part, and what it skips counts as read; head gives the oldest, so repeated calls \
                  give all. wait=true waits for min_bytes first. Do not call it in a loop: to wait for a \
                  prompt or word take ssh_shell_wait_for. CLOSED: it has ended.",
    effect: Effect::Adds,
    repeat: Repeat::Harmless,
    reach: Reach::Held,
    key: Key::Ignored,
    sets: &[Set::Shell, Set::Core],
    makes: None,
    call: call!(read, ReadArgs, ReadBody),
};

pub(super) const WAIT_FOR: Row = Row {
    name: "ssh_shell_wait_for",
    title: "Wait for text in a shell",
    description: "Waits until a shell prints one of several plain texts (no patterns), returns the output \
                  up to its end and drains that unless clear=false; what follows stays for the next call. \
                  Unread output counts; colours and cursor movements do not matter. Take it after input, \
                  for the prompt or an answer.",
    effect: Effect::ReadOnly,
    repeat: Repeat::Harmless,
    reach: Reach::Held,
    key: Key::Ignored,
    sets: &[Set::Shell, Set::Core],
    makes: None,
    call: call!(wait_for, WaitArgs, WaitBody),
};

#[derive(Deserialize, JsonSchema)]
pub(super) struct ReadArgs {
    shell_id: String,
    #[serde(default = "yes")]
    clear: bool,
    #[serde(default)]
    from: From,
    #[schemars(range(min = 1))]
    max_output_bytes: Option<u64>,
    #[serde(default)]
    wait: bool,
    #[serde(default = "thirty")]
    wait_timeout_secs: u64,
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    min_bytes: u64,
}

/// Which end of the unread output is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum From {
    #[default]
    Tail,
    Head,
}

impl Arguments for ReadArgs {
    fn defaults(settings: &Settings) -> Vec<(&'static str, Value)> {
        vec![("max_output_bytes", json!(settings.output_default))]
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ReadBody {
    shell_id: String,
    #[serde(flatten)]
    output: Output,
    #[serde(flatten)]
    standing: Standing,
}

impl Body for ReadBody {
    const STATUSES: &'static [&'static str] = &["open", "closed", "timeout"];

    fn write(&self, text: &mut Text) {
        text.key("SHELL_ID", &self.shell_id);
        self.output.write(text);
        self.standing.write(text);
        self.output.write_block(text);
    }
}

async fn read(cx: &Cx, args: ReadArgs) -> Result<Answer<ReadBody>, Failure> {
    let max = cx.output_bytes(args.max_output_bytes);
    if args.min_bytes > max as u64 {
        return Err(Failure::argument(format!(
            "min_bytes must be at most max_output_bytes, which is {max}; got the number {}",
            args.min_bytes
        )));
    }
    let shell = cx.shell(&args.shell_id)?;
    let _observer = cx.engine.observe(Observable::Shell(&shell));
    let drain = if args.clear { Drain::Shown } else { Drain::Nothing };
    let take = |drain| match args.from {
        From::Tail => newest(&shell, max, drain),
        From::Head => unread::take(&shell.drained, drain, |at| Piece::oldest(&shell.history, at, max)),
    };
    let (status, drain, piece) = match args.wait {
        // The status is older than the output: what is called closed shows all that came.
        false => (word(&shell), drain, take(drain)),
        true => {
            let deadline = cx.engine.clock().now() + patience(args.wait_timeout_secs as f64);
            let work = async {
                loop {
                    let status = match await_unread(cx, &shell, args.min_bytes, deadline).await {
                        ShellWait::Bytes => word(&shell),
                        ShellWait::Ended => "closed",
                        ShellWait::Patience => "timeout",
                    };
                    let piece = take(drain);
                    // Another reader can have been quicker.
                    if status != "open" || !piece.is_empty() {
                        break (status, drain, piece);
                    }
                }
            };
            let beat = || Beat {
                progress: shell.history.mark().end,
                total: None,
                message: "waiting for the shell's output".into(),
            };
            match cx.progress.while_waiting(EVERY_5_S, work, beat).await {
                Waiting::Done(done) => done,
                Waiting::Cancelled => ("timeout", Drain::Nothing, take(Drain::Nothing)),
            }
        }
    };
    let hint = skipped_hint(&shell, &piece, drain);
    let body = ReadBody {
        shell_id: shell.spec.id.to_string(),
        output: Output::new(&shell, &piece, drain),
        standing: Standing::of(cx, &shell).await,
    };
    Ok(Answer::new(status, body).with_warnings(transcript::broken(&shell)).with_hint(hint))
}

/// Waits until `min` bytes can be shown. Bytes of a character that is not complete cannot yet, and another call may take
/// what came; then the wait goes on.
async fn await_unread(cx: &Cx, shell: &Arc<Shell>, min: u64, deadline: Duration) -> ShellWait {
    let clock = cx.engine.clock();
    loop {
        let at = shell.drained.value();
        let (ready, unread) = unread::available(&shell.history, at);
        if ready >= min {
            return ShellWait::Bytes;
        }
        let held = at.max(shell.history.mark().base);
        let left = deadline.saturating_sub(clock.now());
        match cx.engine.await_shell_bytes(shell, held, min.max(unread + 1), left).await {
            ShellWait::Bytes => {}
            ended @ (ShellWait::Ended | ShellWait::Patience) => return ended,
        }
    }
}

/// The status of a shell as a read tells it.
fn word(shell: &Shell) -> &'static str {
    if shell.is_running() { "open" } else { "closed" }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct WaitArgs {
    shell_id: String,
    /// Each at most 1024 bytes.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1)))]
    patterns: Vec<String>,
    /// At most 300.
    #[serde(default = "thirty")]
    timeout_secs: u64,
    #[schemars(range(min = 1))]
    max_output_bytes: Option<u64>,
    #[serde(default = "yes")]
    clear: bool,
}

impl Arguments for WaitArgs {
    const CODES: &'static [(&'static str, Rule, Code)] = &[
        ("patterns", Rule::Present, Code::EmptyPatterns),
        ("patterns", Rule::Least, Code::EmptyPatterns),
        ("patterns", Rule::Most, Code::TooManyPatterns),
    ];

    fn defaults(settings: &Settings) -> Vec<(&'static str, Value)> {
        vec![("max_output_bytes", json!(settings.output_default))]
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct WaitBody {
    shell_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    matched_pattern: Option<String>,
    #[serde(flatten)]
    output: Output,
    pending_output_chars: u64,
}

impl Body for WaitBody {
    const STATUSES: &'static [&'static str] = &["matched", "timeout", "closed"];

    fn write(&self, text: &mut Text) {
        text.key("SHELL_ID", &self.shell_id);
        text.maybe("MATCHED_PATTERN", self.matched_pattern.as_ref());
        self.output.write(text);
        text.key("PENDING_OUTPUT_CHARS", self.pending_output_chars);
        self.output.write_block(text);
    }
}

async fn wait_for(cx: &Cx, args: WaitArgs) -> Result<Answer<WaitBody>, Failure> {
    if let Some((at, long)) =
        args.patterns.iter().enumerate().find(|(_, pattern)| pattern.len() > LONGEST_PATTERN)
    {
        return Err(Failure::new(
            Code::PatternTooLong,
            format!("patterns[{at}] must be at most {LONGEST_PATTERN} bytes; got {}", long.len()),
        ));
    }
    let shell = cx.shell(&args.shell_id)?;
    let max = cx.output_bytes(args.max_output_bytes);
    let timeout = patience(args.timeout_secs as f64);
    let clock = cx.engine.clock();
    let began = clock.now();
    let work = cx.engine.await_shell_match(&shell, shell.drained.value(), &args.patterns, timeout);
    let beat = || Beat {
        progress: clock.now().saturating_sub(began).as_secs(),
        total: Some(timeout.as_secs()),
        message: "waiting for the shell to print one of the texts".into(),
    };
    let waited = match cx.progress.while_waiting(EVERY_SECOND, work, beat).await {
        Waiting::Done(waited) => Some(waited),
        Waiting::Cancelled => None,
    };
    let drain = if args.clear && waited.is_some() { Drain::Shown } else { Drain::Nothing };
    let id = shell.spec.id;
    let (status, matched, until, next) = match waited {
        Some(ShellMatch::Matched { pattern, end }) => (
            "matched",
            args.patterns.get(pattern).cloned(),
            end,
            next::next(&cx.catalogue, After::ShellMatched(id)),
        ),
        Some(ShellMatch::Ended) => ("closed", None, u64::MAX, Vec::new()),
        Some(ShellMatch::Patience) | None => {
            ("timeout", None, u64::MAX, next::next(&cx.catalogue, After::ShellQuiet(id)))
        }
    };
    // Only a text that can still go on is kept back: a shell that has ended prints nothing more.
    let kept_back: &[String] = if status == "timeout" { &args.patterns } else { &[] };
    let piece = unread::take(&shell.drained, drain, |at| {
        Piece::newest(&shell.history, at, until, max).keeping_back(kept_back)
    });
    let hint = skipped_hint(&shell, &piece, drain);
    let body = WaitBody {
        shell_id: id.to_string(),
        matched_pattern: matched,
        output: Output::new(&shell, &piece, drain),
        pending_output_chars: unread::characters(&shell.history, &shell.drained).await,
    };
    Ok(Answer::new(status, body).with_warnings(transcript::broken(&shell)).with_hint(hint).with_next(next))
}

/// Bytes of one pattern.
const LONGEST_PATTERN: usize = 1024;

fn thirty() -> u64 {
    30
}

fn one() -> u64 {
    1
}
