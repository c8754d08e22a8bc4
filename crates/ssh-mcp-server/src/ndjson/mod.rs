//! `ssh-mcp-tail`: ops in, events out, one JSON object a line (`docs/daemon.md`).
//!
//! ```text
//!   stdin ── line ── op ── order, refs ── daemon ── pipe ──> the handler, as a client sees it
//!   stdout <── outbox <── replies ────────┘  └── follow: ends of what was made
//!                  ^───── lanes <── the handler's outlet: what lanes say
//! ```
//!
//! | File | Holds |
//! | --- | --- |
//! | `line`, `op`, `event`, `schema` | lines as bytes, ops, events, and the schema of both |
//! | `refs`, `order` | what an op refers to, and which op waits for which |
//! | `pipe` | the client in this process |
//! | `outbox` | what waits for standard output, and its writer |
//! | `daemon`, `follow`, `lanes`, `stats` | replies; ends; what lanes say; numbers |
//! | `drain` | the way out |
//! | `builtin`, `run`, `shell` | one command, and one terminal, as built-in lists of ops |
//!
//! *Invariant:* what an op does on the far side is decided by its tool alone; nothing here knows SSH.

mod builtin;
mod daemon;
mod drain;
mod event;
mod follow;
mod lanes;
mod line;
mod op;
mod order;
mod outbox;
mod pipe;
mod refs;
mod run;
mod schema;
mod shell;
mod stats;

use std::{io::Write as _, process::ExitCode, sync::Arc, time::Duration};

use ssh_mcp_core::{
    code::Code,
    settings::{Binary, Settings},
    target_names,
};
use ssh_mcp_engine::Engine;
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};
use tokio_util::sync::CancellationToken;

use self::{
    daemon::Daemon,
    drain::{Ended, Mode},
    event::{Ack, Event, Failed},
    line::{Line, Lines},
    op::{Act, Op},
    outbox::{Beat, Form, Outbox},
};
use crate::{
    EXIT_LEFT, assemble,
    flags::{DaemonFlags, TailCommand, TailFlags},
    signals::{Signal, Signals},
    sources::{self, Start},
};

/// `ssh-mcp-tail`.
pub fn main() -> ExitCode {
    crate::forbid_core_dumps();
    let (flags, loaded) = match sources::start::<TailFlags>() {
        Start::Run(flags, loaded) => (flags, loaded),
        Start::Leave(code) => return code,
    };
    match flags.command {
        TailCommand::Schema(_) => match std::io::stdout().write_all(schema::text().as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        TailCommand::Daemon(flags) => crate::run(loaded, Binary::Tail, |settings| serve(flags, settings)),
        TailCommand::Run(flags) => crate::run(loaded, Binary::Tail, |settings| run::run(*flags, settings)),
        TailCommand::Shell(flags) => {
            crate::run(loaded, Binary::Tail, |settings| shell::shell(*flags, settings))
        }
    }
}

/// Why the daemon comes to its end.
enum Stop {
    /// Nothing more will be read.
    EndOfInput,
    Op(Mode, Option<Duration>),
    Signal,
    /// Nobody reads what is written.
    Unheard,
    /// The server in this process has gone.
    Dead,
}

async fn serve(flags: DaemonFlags, settings: Arc<Settings>) -> u8 {
    let Ok(mut signals) = Signals::new() else { return 1 };
    let form = if settings.ndjson_pretty { Form::Pretty } else { Form::Lines };
    if form == Form::Pretty {
        tracing::warn!(target: target_names::MAIN, "SSH_NDJSON_PRETTY: events take several lines, for eyes only");
    }
    let (reader, writer) = rmcp::transport::stdio_pipes();
    let outbox = Outbox::new(form);
    let daemon = match Daemon::start(assemble(Arc::clone(&settings)), Arc::clone(&outbox)).await {
        Ok(daemon) => daemon,
        Err(failed) => {
            tracing::error!(target: target_names::MAIN, "{}", failed.reason);
            return 1;
        }
    };
    tracing::info!(target: target_names::MAIN, version = env!("CARGO_PKG_VERSION"), "serving lines of JSON");
    let done = CancellationToken::new();
    let until = |work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
        let done = done.clone();
        async move { _ = done.run_until_cancelled(work).await }
    };
    daemon.tasks.spawn(until(Box::pin(Arc::clone(&daemon).beat(settings.heartbeat, Beat::Heartbeat))));
    daemon.tasks.spawn(until(Box::pin(Arc::clone(&daemon).beat(settings.daemon_stats, Beat::Stats))));
    daemon.tasks.spawn(until(Box::pin(Arc::clone(&daemon).advise())));
    let written = {
        let outbox = Arc::clone(&outbox);
        daemon.tasks.spawn(async move { outbox.write(writer, tokio::io::sink()).await })
    };
    let mut lines = Lines::new(reader, settings.line_max);
    let stop = loop {
        let event = tokio::select! {
            biased;
            _ = signals.next() => Err(Stop::Signal),
            () = outbox.unheard() => Err(Stop::Unheard),
            () = daemon.pipe.dead() => Err(Stop::Dead),
            // Cancel-safe: a place that was had is given back with it, and what was read of a line is kept.
            read = async { (daemon.place().await, lines.next().await) } => Ok(read),
        };
        let (place, line) = match event {
            Err(stop) => break stop,
            Ok((place, Ok(line))) => (place, line),
            Ok((_, Err(_))) => break Stop::EndOfInput,
        };
        let op = match line {
            Line::End => break Stop::EndOfInput,
            Line::Whole(line) => Op::parse(&line).map_err(|failed| *failed),
            Line::TooLong(seen) => {
                let reason = format!("a line of {seen} bytes; at most {} are taken", settings.line_max);
                Err(Failed::of(Code::LineTooLong, reason))
            }
        };
        match op {
            Err(failed) => daemon.refuse(failed, place),
            Ok(op) if op.row.act == Act::Shutdown => {
                let text = |name: &str| op.fields.get(name).and_then(|value| value.as_str());
                let mode = Mode::of(text("mode").unwrap_or("drain"));
                let grace =
                    op.fields.get("grace_secs").and_then(|secs| secs.as_u64()).map(Duration::from_secs);
                outbox.reply(&Event::Ack(Box::new(Ack { id: op.id, ..Ack::default() })), place);
                break Stop::Op(mode, grace);
            }
            Ok(op) => {
                let accepted = daemon.accept(op, place);
                let daemon = Arc::clone(&daemon);
                daemon.clone().tasks.spawn(async move { _ = daemon.run(accepted).await });
            }
        }
    };
    drop(lines);
    let grace = settings.shutdown_deadline;
    let (mode, grace, why) = match &stop {
        Stop::EndOfInput => (Mode::of(&flags.on_eof), grace, "the input has ended"),
        Stop::Op(mode, own) => (*mode, own.unwrap_or(grace), "shutdown was asked for"),
        Stop::Signal => (Mode::Now, grace, "a signal came"),
        Stop::Unheard => (Mode::Now, grace, "nobody reads the output"),
        Stop::Dead => (Mode::Now, grace, "the server in this process has gone"),
    };
    tracing::info!(target: target_names::MAIN, why, "stopping");
    let is_second = matches!(stop, Stop::Signal);
    let written = async { _ = written.await };
    let ended = leave(&daemon, mode, grace, written, &mut signals, is_second).await;
    done.cancel();
    match (ended, stop) {
        (Err(signal), _) => signal.exit_code(),
        (Ok(Ended::Late), _) => EXIT_LEFT,
        (Ok(Ended::Clean), Stop::Dead) => 1,
        (Ok(Ended::Clean), _) => 0,
    }
}

/// Drains. A first signal makes it hurry, a second one ends it at once.
async fn leave(
    daemon: &Arc<Daemon>,
    mode: Mode,
    grace: Duration,
    written: impl Future<Output = ()>,
    signals: &mut Signals,
    mut had_signal: bool,
) -> Result<Ended, Signal> {
    let hurry = CancellationToken::new();
    let drain = daemon.drain(mode, grace, &hurry, written);
    let mut drain = std::pin::pin!(drain);
    loop {
        tokio::select! {
            ended = &mut drain => return Ok(ended),
            signal = signals.next() => {
                if had_signal {
                    return Err(signal);
                }
                had_signal = true;
                hurry.cancel();
            }
        }
    }
}

/// The time, as events tell it.
fn now(engine: &Engine) -> String {
    const FORM: &[BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let now = engine.clock().wall(engine.clock().now());
    OffsetDateTime::from(now).format(FORM).unwrap_or_default()
}
