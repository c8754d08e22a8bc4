//! What the built-in lists of ops have in common: a daemon that reads no lines, and the exit codes of `ssh`.

use std::sync::Arc;

use serde_json::{Map, Value};
use ssh_mcp_core::{
    kind::command::{Exit, signal_number},
    settings::Settings,
};
use tokio::{io::AsyncWrite, net::unix::pipe};
use tokio_util::sync::CancellationToken;

use super::{
    daemon::{Daemon, one, resource},
    drain::{Ended, Mode},
    event::{Event, OpId},
    leave,
    op::Op,
    outbox::{Beat, Form, Outbox},
    refs::Kind,
};
use crate::{
    EXIT_LEFT, assemble,
    flags::{LoginFlags, OutputForm},
    signals::{Signal, Signals},
};

/// No connection, no login, no channel; as `ssh` says it.
pub(super) const EXIT_NO_SSH: u8 = 255;

/// Something went wrong in this process: output was lost, or its input could not be read.
pub(super) const EXIT_FAILED: u8 = 1;

/// Bytes of output that are held for a reader that is waited for; what does not fit stays with the far side.
const HELD: usize = 2 << 20;

/// How the work came to its end.
enum Over {
    /// By itself, or not at all: with this code.
    Code(u8),
    Signal(Signal),
    /// Nobody reads what is written.
    Unheard,
}

/// Runs built-in ops to their end, and everything after them.
pub(super) async fn attend<W: Future<Output = u8>>(
    output: OutputForm,
    settings: Arc<Settings>,
    work: impl FnOnce(Arc<Daemon>) -> W,
) -> u8 {
    let Ok(mut signals) = Signals::new() else { return EXIT_FAILED };
    let form = match (output, settings.ndjson_pretty) {
        (OutputForm::Raw, _) => Form::Raw,
        (OutputForm::Ndjson, true) => Form::Pretty,
        (OutputForm::Ndjson, false) => Form::Lines,
    };
    let outbox = Outbox::new(form);
    let settings = match form {
        Form::Raw => Arc::new(Settings { command_history: HELD, shell_history: HELD, ..(*settings).clone() }),
        Form::Lines | Form::Pretty => settings,
    };
    let shared = assemble(Arc::clone(&settings));
    if form == Form::Raw {
        // Of a loss nothing could tell between these bytes.
        shared.engine().wait_for_readers();
    }
    let daemon = match Daemon::start(shared, Arc::clone(&outbox)).await {
        Ok(daemon) => daemon,
        Err(_) => return EXIT_FAILED,
    };
    let writer = {
        let outbox = Arc::clone(&outbox);
        daemon.tasks.spawn(async move { outbox.write(standard_output(), tokio::io::stderr()).await })
    };
    let done = CancellationToken::new();
    let beats = {
        let (daemon, done) = (Arc::clone(&daemon), done.clone());
        async move { _ = done.run_until_cancelled(daemon.beat(settings.heartbeat, Beat::Heartbeat)).await }
    };
    daemon.tasks.spawn(beats);
    let over = tokio::select! {
        code = work(Arc::clone(&daemon)) => Over::Code(code),
        signal = signals.next() => Over::Signal(signal),
        () = outbox.unheard() => Over::Unheard,
    };
    let is_second = matches!(over, Over::Signal(_));
    let written = async { _ = writer.await };
    let grace = daemon.engine().settings().shutdown_deadline;
    let ended = leave(&daemon, Mode::Now, grace, written, &mut signals, is_second).await;
    done.cancel();
    match (ended, over) {
        (Err(signal), _) => signal.exit_code(),
        (Ok(Ended::Late), _) => EXIT_LEFT,
        (Ok(Ended::Clean), Over::Code(0)) if form == Form::Raw && daemon.lanes.gaps() > 0 => EXIT_FAILED,
        (Ok(Ended::Clean), Over::Code(code)) => code,
        (Ok(Ended::Clean), Over::Signal(signal)) => signal.exit_code(),
        (Ok(Ended::Clean), Over::Unheard) => 0,
    }
}

/// Standard output. A pipe is written to without a thread for that, through a description of its own, for others may hold the
/// one that was given and want it to block.
fn standard_output() -> Box<dyn AsyncWrite + Send + Unpin> {
    match pipe::OpenOptions::new().open_sender("/proc/self/fd/1") {
        Ok(pipe) => Box::new(pipe),
        // No pipe, or a system without that folder.
        Err(_) => Box::new(tokio::io::stdout()),
    }
}

/// Runs a built-in op; none if it failed.
pub(super) async fn op(daemon: &Arc<Daemon>, op: Value) -> Option<Event> {
    let object = op.as_object().cloned().unwrap_or_default();
    let place = daemon.place().await;
    match Op::of(object) {
        Ok(op) => {
            let reply = Arc::clone(daemon).run(daemon.accept(op, place)).await;
            (!matches!(reply, Event::Err(_))).then_some(reply)
        }
        Err(failed) => {
            daemon.refuse(*failed, place);
            None
        }
    }
}

/// The op that logs in.
pub(super) fn connect(id: &str, login: &LoginFlags) -> Value {
    let mut op = Map::new();
    op.insert("op".into(), "connect".into());
    op.insert("id".into(), id.into());
    op.insert("target".into(), login.host.as_str().into());
    op.insert("reuse_policy".into(), login.reuse.as_deref().unwrap_or("auto").into());
    let texts = [
        ("user", &login.user),
        ("key", &login.key),
        ("password_env", &login.password_env),
        ("password_file", &login.password_file),
        ("agent_id", &login.agent_id),
        ("name", &login.name),
    ];
    op.extend(texts.into_iter().filter_map(|(name, text)| Some((name.into(), text.as_deref()?.into()))));
    op.extend(login.port.map(|port| ("port".into(), port.into())));
    Value::Object(op)
}

/// Ends the session. That has no line of its own; `closed` carries the id.
pub(super) async fn disconnect(daemon: &Arc<Daemon>, id: &str, sid: &str) {
    let Some(session) = resource(Kind::Session, sid) else { return };
    let answered = CancellationToken::new();
    answered.cancel();
    daemon.followed.ends_by(session, Some(OpId::Text(id.to_owned())), answered);
    // One that is gone already needs no disconnecting.
    _ = daemon.pipe.call("ssh_disconnect", one("session_id", sid), None).await;
}

/// Options of a lane that is written as it is: soon, and held back before it is cut.
pub(super) fn lane(is_prompt: bool, output: OutputForm) -> Map<String, Value> {
    let mut options = Map::new();
    options.insert("lifetime".into(), "auto_close".into());
    if is_prompt || output == OutputForm::Raw {
        options.insert("debounce_ms".into(), 5.into());
    }
    if output == OutputForm::Raw {
        options.insert("lag_policy".into(), "block_slow".into());
    }
    options
}

/// How a script sees the end of a process.
pub(super) fn exit_code(exit: Option<&Exit>) -> u8 {
    match exit {
        Some(Exit::Status(status)) => u8::try_from(*status).unwrap_or(EXIT_NO_SSH),
        Some(Exit::Signal(name)) => signal_number(name).map_or(EXIT_NO_SSH, |number| 128 + number),
        None => EXIT_NO_SSH,
    }
}
