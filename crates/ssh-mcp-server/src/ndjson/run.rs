//! `run`: one command, as a built-in list of ops (`docs/daemon.md`, "One command").

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use ssh_mcp_core::{
    kind::command::{Exit, Facts, Status},
    settings::Settings,
};
use tokio::io::AsyncReadExt as _;
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
    flags::{OutputForm, RunFlags},
    signals::{Signal, Signals},
};

/// No connection, no login, no channel; as `ssh` says it.
const EXIT_NO_SSH: u8 = 255;

/// The time limit ended it; as `timeout` says it.
const EXIT_TIMED_OUT: u8 = 124;

/// Longest standard input that is passed on.
const INPUT: u64 = 1024 * 1024;

/// Signals by the names SSH has for them, as Linux numbers them.
const SIGNALS: &[(&str, u8)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("ABRT", 6),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
];

/// How the command came to its end.
enum Over {
    /// By itself, or not at all: with this code.
    Code(u8),
    Signal(Signal),
    /// Nobody reads what is written.
    Unheard,
}

/// `ssh-mcp-tail run`.
pub(super) async fn run(flags: RunFlags, settings: Arc<Settings>) -> u8 {
    let Ok(mut signals) = Signals::new() else { return 1 };
    let form = match (flags.output, settings.ndjson_pretty) {
        (OutputForm::Raw, _) => Form::Raw,
        (OutputForm::Ndjson, true) => Form::Pretty,
        (OutputForm::Ndjson, false) => Form::Lines,
    };
    let outbox = Outbox::new(form);
    let daemon = match Daemon::start(assemble(Arc::clone(&settings)), Arc::clone(&outbox)).await {
        Ok(daemon) => daemon,
        Err(_) => return 1,
    };
    let writer = {
        let outbox = Arc::clone(&outbox);
        daemon.tasks.spawn(async move { outbox.write(tokio::io::stdout(), tokio::io::stderr()).await })
    };
    let done = CancellationToken::new();
    let beats = {
        let (daemon, done) = (Arc::clone(&daemon), done.clone());
        async move { _ = done.run_until_cancelled(daemon.beat(settings.heartbeat, Beat::Heartbeat)).await }
    };
    daemon.tasks.spawn(beats);
    let over = tokio::select! {
        code = command(&daemon, &flags) => Over::Code(code),
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
        (Ok(Ended::Clean), Over::Code(code)) => code,
        (Ok(Ended::Clean), Over::Signal(signal)) => signal.exit_code(),
        (Ok(Ended::Clean), Over::Unheard) => 0,
    }
}

/// Connects, runs the command and disconnects.
async fn command(daemon: &Arc<Daemon>, flags: &RunFlags) -> u8 {
    let input = match flags.stdin {
        true => match standard_input().await {
            Ok(input) => Some(input),
            Err(code) => return code,
        },
        false => None,
    };
    if op(daemon, connect(flags)).await.is_none() {
        return EXIT_NO_SSH;
    }
    let Some(Event::Started(started)) = op(daemon, exec(flags, input)).await else { return EXIT_NO_SSH };
    let code = match resource(Kind::Command, &started.cid) {
        Some(resource) => {
            let entry = daemon.engine().registries().commands.entry(resource.id.into());
            daemon.followed.none_left(|one, _| one == resource).await;
            entry.and_then(|command| command.ending.get().map(|end| exit_code(&end.facts)))
        }
        None => None,
    };
    if flags.no_auto_disconnect {
        // The session stays until the input ends.
        _ = tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await;
    }
    if let Some(session) = resource(Kind::Session, &started.sid) {
        // It has no line of its own; that the session has ended is told all the same.
        let answered = CancellationToken::new();
        answered.cancel();
        daemon.followed.ends_by(session, Some(OpId::Text("run-disconnect".into())), answered);
        _ = daemon.pipe.call("ssh_disconnect", one("session_id", &started.sid), None).await;
    }
    code.unwrap_or(EXIT_NO_SSH)
}

/// Runs a built-in op; none if it failed.
async fn op(daemon: &Arc<Daemon>, op: Value) -> Option<Event> {
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

fn connect(flags: &RunFlags) -> Value {
    let mut op = Map::new();
    op.insert("op".into(), "connect".into());
    op.insert("id".into(), "run-connect".into());
    op.insert("target".into(), flags.login.host.as_str().into());
    op.insert("reuse_policy".into(), flags.login.reuse.as_deref().unwrap_or("auto").into());
    let texts = [
        ("user", &flags.login.user),
        ("key", &flags.login.key),
        ("password_env", &flags.login.password_env),
        ("password_file", &flags.login.password_file),
        ("agent_id", &flags.login.agent_id),
        ("name", &flags.login.name),
    ];
    op.extend(texts.into_iter().filter_map(|(name, text)| Some((name.into(), text.as_deref()?.into()))));
    op.extend(flags.login.port.map(|port| ("port".into(), port.into())));
    Value::Object(op)
}

fn exec(flags: &RunFlags, input: Option<Vec<u8>>) -> Value {
    let debounce = (flags.output == OutputForm::Raw).then_some(5);
    let mut subscribe = json!({ "lifetime": "auto_close" });
    if let (Some(debounce), Some(options)) = (debounce, subscribe.as_object_mut()) {
        options.insert("debounce_ms".into(), debounce.into());
    }
    let mut op = json!({
        "op": "exec", "id": "run-exec", "sid": "@run-connect", "cmd": flags.command.join(" "), "pty": flags.pty,
        "release_when_no_subs": true, "subscribe": subscribe,
    });
    if let Some(op) = op.as_object_mut() {
        op.extend(flags.timeout_secs.map(|secs| ("timeout_secs".into(), secs.into())));
        op.extend(input.map(|input| ("input_base64".into(), STANDARD.encode(input).into())));
    }
    op
}

/// What a script sees of the command's end.
fn exit_code(facts: &Facts) -> u8 {
    match (facts.status, &facts.exit) {
        (Status::TimedOut, _) => EXIT_TIMED_OUT,
        (_, Some(Exit::Status(status))) => u8::try_from(*status).unwrap_or(EXIT_NO_SSH),
        (_, Some(Exit::Signal(name))) => {
            SIGNALS.iter().find(|(known, _)| known == name).map_or(EXIT_NO_SSH, |(_, number)| 128 + number)
        }
        (_, None) => EXIT_NO_SSH,
    }
}

/// Everything on standard input.
///
/// # Errors
/// The exit code where that is too much.
async fn standard_input() -> Result<Vec<u8>, u8> {
    let mut input = Vec::new();
    let read = tokio::io::stdin().take(INPUT + 1).read_to_end(&mut input).await;
    if read.is_ok() && input.len() as u64 <= INPUT {
        return Ok(input);
    }
    tracing::error!(
        target: ssh_mcp_core::target_names::MAIN,
        "standard input cannot be read, or is more than 1 MiB; send files with upload"
    );
    Err(1)
}
