//! `ssh_shell_close`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ssh_mcp_core::registry::Manner;
use ssh_mcp_engine::CloseShell;

use super::{Output, Standing, newest, patience, transcript, unread::Drain};
use crate::{
    args::Arguments,
    cx::Cx,
    failure::Failure,
    progress::{Beat, EVERY_5_S, Waiting},
    reply::{Answer, Body, Text},
    tools::{Effect, Key, Reach, Repeat, Row, Set, call},
};

pub(super) const CLOSE: Row = Row {
    name: "ssh_shell_close",
    title: "Close a shell",
    description: "Hangs a shell up, or kills it with force=true, waits up to wait_secs for its end, and \
                  returns its last unread output, readable for a minute more. What it left in the \
                  background may go on. NOOP: it had ended.",
    effect: Effect::Destroys,
    repeat: Repeat::Harmless,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Shell, Set::Core],
    makes: None,
    call: call!(close, CloseArgs, CloseBody),
};

#[derive(Deserialize, JsonSchema)]
pub(super) struct CloseArgs {
    shell_id: String,
    /// Kill it.
    #[serde(default)]
    force: bool,
    #[serde(default = "two")]
    #[schemars(range(min = 0))]
    wait_secs: f64,
}

impl Arguments for CloseArgs {}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CloseBody {
    shell_id: String,
    #[serde(flatten)]
    output: Output,
    #[serde(flatten)]
    standing: Standing,
}

impl Body for CloseBody {
    const STATUSES: &'static [&'static str] = &["ok", "noop"];

    fn write(&self, text: &mut Text) {
        text.key("SHELL_ID", &self.shell_id);
        self.output.write(text);
        self.standing.write(text);
        self.output.write_block(text);
    }
}

async fn close(cx: &Cx, args: CloseArgs) -> Result<Answer<CloseBody>, Failure> {
    let shell = cx.shell(&args.shell_id)?;
    let manner = if args.force { Manner::Kill } else { Manner::HangUp };
    let patience = match patience(args.wait_secs) {
        Duration::ZERO => Duration::ZERO,
        patience => patience + A_MOMENT,
    };
    let work = cx.engine.close_shell(&shell, manner, patience);
    let beat = || Beat { progress: 0, total: None, message: "waiting for the shell's end".into() };
    let status = match cx.progress.while_waiting(EVERY_5_S, work, beat).await {
        Waiting::Done(CloseShell::Done) | Waiting::Cancelled => "ok",
        Waiting::Done(CloseShell::AlreadyClosed) => "noop",
    };
    // A look: a repeated call shows it again, and from=head still gives what comes before it.
    let piece = newest(&shell, cx.output_bytes(None), Drain::Nothing);
    let body = CloseBody {
        shell_id: shell.spec.id.to_string(),
        output: Output::new(&shell, &piece, Drain::Nothing),
        standing: Standing::of(cx, &shell).await,
    };
    Ok(Answer::new(status, body).with_warnings(transcript::broken(&shell)))
}

/// A shell that does not heed a hang-up loses its channel after just as long as a call waits by default; a moment more,
/// and the answer tells of that end.
const A_MOMENT: Duration = Duration::from_millis(100);

fn two() -> f64 {
    2.0
}
