//! The command tools: start commands, wait for them, read them, list them, end them.
//!
//! A file per tool; `outcome.rs` is how an answer shows a command, whichever tool it comes from. When a command ends and by
//! which means is decided by the engine; here arguments become [`Exec`] and commands become answers.

mod batch;
mod cancel;
mod list;
mod outcome;
mod output;
mod run;
mod start;

use std::{sync::Arc, time::Duration};

use ssh_mcp_core::{
    code::{Code, Effect as Begun},
    history::View,
    id::SessionId,
    kind::command::Terminal,
    lifecycle::{AutoRelease, SessionRef},
    quote::Context,
    registry::{Command, Session},
    text,
    uri::Scheme,
};
use ssh_mcp_engine::{Exec, Missing, Waited};

use outcome::Outcome;

use super::{Effect, Key, Reach, Repeat, Row, Set, call};
use crate::{
    cx::Cx,
    failure::Failure,
    progress::{Beat, EVERY_5_S, Waiting},
};

/// The command tools, in the order of `tools/list`.
pub(crate) const ROWS: &[Row] = &[start::ROW, output::ROW, list::ROW, cancel::ROW, run::ROW, batch::ROW];

/// Longest wait of one call; longer ones are cut to it.
const WAIT_CAP: Duration = Duration::from_secs(300);

/// A limit beyond this is none: no date could show its end.
const LONGEST_LIMIT: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Longest wait a call may ask for.
fn patience(secs: u64) -> Duration {
    Duration::from_secs(secs).min(WAIT_CAP)
}

/// The default of waits and of the limits of commands a call waits for, in seconds.
fn thirty() -> u64 {
    30
}

/// The default of what is on unless switched off.
fn yes() -> bool {
    true
}

/// The run time of a command nobody waits for; 0 is none.
fn limit(secs: Option<u64>, default: Option<Duration>) -> Option<Duration> {
    let limit = secs.map_or(default, |secs| (secs > 0).then(|| Duration::from_secs(secs)));
    limit.filter(|limit| *limit <= LONGEST_LIMIT)
}

/// The run time of a command a call waits for; 0 is the longest such a call may take.
fn waited_limit(secs: u64) -> Duration {
    match secs {
        0 => WAIT_CAP,
        secs => patience(secs),
    }
}

/// A command as every tool has it: what to run, and how.
#[derive(Clone)]
struct Order {
    command: String,
    context: Context,
    terminal: Terminal,
    limit: Option<Duration>,
}

impl Order {
    /// The order on a session: without input, and kept until it ends.
    fn on(self, cx: &Cx, session: SessionId) -> Exec {
        let Self { command, context, terminal, limit } = self;
        let settings = cx.settings();
        Exec {
            session,
            command,
            context,
            terminal,
            limit,
            input: None,
            auto_release: AutoRelease::Off,
            grace: settings.lifecycle_grace,
            history: settings.command_history,
        }
    }
}

fn terminal(pty: bool) -> Terminal {
    if pty { Terminal::Pty } else { Terminal::None }
}

/// Holds a session for the length of a call. To be dropped before the session is ended, which waits for it.
fn hold(cx: &Cx, session: &Session) -> Result<SessionRef, Failure> {
    SessionRef::take(&session.life).ok_or_else(|| {
        let id = session.spec.id.to_string();
        let nearest = cx.nearest(&cx.engine.registries().sessions, &id);
        Failure::missing(Scheme::Session, &id, Missing::Unknown { nearest })
    })
}

/// Starts a command; a client that calls the request off before anything runs starts nothing.
async fn start(cx: &Cx, ask: Exec, beat: impl Fn() -> Beat) -> Result<Arc<Command>, Failure> {
    match cx.progress.while_waiting(EVERY_5_S, cx.engine.exec(&cx.owner, ask), beat).await {
        Waiting::Done(started) => Ok(started?),
        Waiting::Cancelled => Err(called_off(Begun::None)),
    }
}

/// Waits for a command's end; the command does not hear of the client's change of mind.
async fn wait(cx: &Cx, command: &Arc<Command>, patience: Duration) -> Waiting<Waited> {
    cx.progress.while_waiting(EVERY_5_S, cx.engine.await_command(command, patience), || beat(command)).await
}

/// Waits for the end of a command that lives for this call alone: a client that calls the request off ends it too.
async fn finish(cx: &Cx, command: &Arc<Command>, beat: impl Fn() -> Beat) -> Ending {
    let ended = async { while cx.engine.await_command(command, WAIT_CAP).await == Waited::Patience {} };
    match cx.progress.while_waiting(EVERY_5_S, ended, beat).await {
        Waiting::Done(()) => Ending::Own,
        Waiting::Cancelled => {
            cx.engine.cancel(command).await;
            Ending::CalledOff
        }
    }
}

/// Who ended the wait for a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The command has ended, one way or another.
    Own,
    /// The client called the request off.
    CalledOff,
}

/// How far a command is: what it printed.
fn beat(command: &Command) -> Beat {
    let bytes = command.history.total(View::Stdout);
    let message = format!("command still running, {} on stdout", text::human_size(bytes));
    Beat { progress: bytes, total: None, message }
}

/// Nobody reads this answer; as an error it is not kept for a replay either.
pub(crate) fn called_off(begun: Begun) -> Failure {
    Failure::new(Code::ChannelFailed, "the client called the request off").with_effect(begun)
}

#[cfg(test)]
mod tests;
