//! `run`: one command, as a built-in list of ops (`docs/daemon.md`, "One command").

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use ssh_mcp_core::{
    kind::command::{Facts, Status},
    settings::Settings,
};
use tokio::io::AsyncReadExt as _;

use super::{
    builtin::{self, EXIT_FAILED, EXIT_NO_SSH, op},
    daemon::{Daemon, resource},
    event::Event,
    refs::Kind,
};
use crate::flags::RunFlags;

/// The time limit ended it; as `timeout` says it.
const EXIT_TIMED_OUT: u8 = 124;

/// Longest standard input that is passed on.
const INPUT: u64 = 1024 * 1024;

/// `ssh-mcp-tail run`.
pub(super) async fn run(flags: RunFlags, settings: Arc<Settings>) -> u8 {
    builtin::attend(flags.built_in.output, settings, async |daemon| command(&daemon, &flags).await).await
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
    if op(daemon, builtin::connect("run-connect", &flags.login)).await.is_none() {
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
    builtin::disconnect(daemon, "run-disconnect", &started.sid).await;
    code.unwrap_or(EXIT_NO_SSH)
}

fn exec(flags: &RunFlags, input: Option<Vec<u8>>) -> Value {
    let mut op = json!({
        "op": "exec", "id": "run-exec", "sid": "@run-connect", "cmd": flags.command.join(" "), "pty": flags.pty,
        "release_when_no_subs": true, "subscribe": builtin::lane(false, flags.built_in.output),
    });
    if let Some(op) = op.as_object_mut() {
        op.extend(flags.timeout_secs.map(|secs| ("timeout_secs".into(), secs.into())));
        op.extend(input.map(|input| ("input_base64".into(), STANDARD.encode(input).into())));
    }
    op
}

/// What a script sees of the command's end.
fn exit_code(facts: &Facts) -> u8 {
    match facts.status {
        Status::TimedOut => EXIT_TIMED_OUT,
        Status::Running | Status::Completed | Status::Failed | Status::Cancelled => {
            builtin::exit_code(facts.exit.as_ref())
        }
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
    Err(EXIT_FAILED)
}
