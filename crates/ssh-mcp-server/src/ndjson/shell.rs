//! `shell`: one terminal on a host, as a built-in list of ops (`docs/daemon.md`, "A terminal").

use std::{io::IsTerminal as _, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde_json::{Map, Value, json};
use ssh_mcp_core::{owner::Owner, settings::Settings, uri::Resource};
use tokio::{
    io::AsyncReadExt as _,
    signal::unix::{SignalKind, signal},
};

use super::{
    builtin::{self, EXIT_FAILED, EXIT_NO_SSH, op},
    daemon::{Daemon, one, resource},
    event::Event,
    refs::Kind,
};
use crate::flags::ShellFlags;

/// Once its input has ended, a shell that says nothing for so long is closed.
const IDLE: Duration = Duration::from_millis(500);

/// What a terminal takes for the end of its input (Ctrl-D).
const END_OF_FILE: &[u8] = b"\x04";

/// Bytes of input that are sent at once.
const INPUT: usize = 16 * 1024;

/// Why the conversation is over.
enum Over {
    /// The shell has ended.
    Ended,
    /// Nobody has anything more to say to it.
    Quiet,
}

/// `ssh-mcp-tail shell`.
pub(super) async fn shell(flags: ShellFlags, settings: Arc<Settings>) -> u8 {
    builtin::attend(flags.built_in.output, settings, async |daemon| converse(&daemon, &flags).await).await
}

/// Connects, opens a shell, passes on what is typed, and disconnects.
async fn converse(daemon: &Arc<Daemon>, flags: &ShellFlags) -> u8 {
    let Some(Event::Ack(login)) = op(daemon, builtin::connect("shell-connect", &flags.login)).await else {
        return EXIT_NO_SSH;
    };
    daemon.lanes.speak_as_shell();
    let Ok(mut resized) = signal(SignalKind::window_change()) else { return EXIT_FAILED };
    let Some(Event::Ack(opened)) = op(daemon, open(flags)).await else { return EXIT_NO_SSH };
    let shid = opened.shid.clone().unwrap_or_default();
    let Some(shell) = resource(Kind::Shell, &shid) else { return EXIT_FAILED };
    let entry = daemon.engine().registries().shells.entry(shell.id.into());
    let raw = RawMode::enter();
    let resizing = async {
        loop {
            resized.recv().await;
            if let Some((cols, rows)) = terminal_size() {
                let mut size = one("shell_id", &shid);
                size.extend([("cols".to_owned(), cols.into()), ("rows".to_owned(), rows.into())]);
                // A shell that is gone has no size.
                _ = daemon.pipe.call("ssh_shell_write", size, None).await;
            }
        }
    };
    let over = tokio::select! {
        () = daemon.followed.none_left(|one, _| one == shell) => Over::Ended,
        () = resizing => Over::Ended,
        () = async {
            type_on(daemon, &shid).await;
            idle(daemon, shell).await;
        } => Over::Quiet,
    };
    let code = match over {
        Over::Ended => entry
            .and_then(|shell| shell.ending.get().map(|end| builtin::exit_code(end.facts.as_ref())))
            .unwrap_or(EXIT_NO_SSH),
        Over::Quiet => {
            // What has ended meanwhile needs no closing.
            _ = daemon.pipe.call("ssh_shell_close", one("shell_id", &shid), None).await;
            daemon.followed.none_left(|one, _| one == shell).await;
            0
        }
    };
    drop(raw);
    builtin::disconnect(daemon, "shell-disconnect", &login.sid.unwrap_or_default()).await;
    code
}

fn open(flags: &ShellFlags) -> Value {
    let own = if std::io::stdout().is_terminal() { terminal_size() } else { None };
    let (cols, rows) = own.unwrap_or((80, 24));
    json!({
        "op": "shell_open", "id": "shell-open", "sid": "@shell-connect", "cols": flags.cols.unwrap_or(cols),
        "rows": flags.rows.unwrap_or(rows), "term": flags.term, "subscribe": builtin::lane(true, flags.built_in.output),
    })
}

/// Columns and rows of the terminal that is written to.
fn terminal_size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// Passes on what is typed until that ends, and then says that it has.
async fn type_on(daemon: &Arc<Daemon>, shid: &str) {
    let send = async |bytes: &[u8]| {
        let mut input: Map<String, Value> = one("shell_id", shid);
        input.insert("input_base64".to_owned(), STANDARD.encode(bytes).into());
        daemon.pipe.call("ssh_shell_write", input, None).await.is_ok()
    };
    let mut input = tokio::io::stdin();
    let mut bytes = vec![0; INPUT];
    while let Ok(length @ 1..) = input.read(&mut bytes).await {
        if !send(bytes.get(..length).unwrap_or_default()).await {
            return;
        }
    }
    send(END_OF_FILE).await;
}

/// Ends once a shell has said nothing for a while, and everything before that was written.
async fn idle(daemon: &Arc<Daemon>, shell: Resource) {
    let Ok(source) = daemon.engine().source(&Owner::local(), shell) else { return };
    let mut watch = source.history().watch();
    loop {
        // What waits for its reader holds up what comes behind it.
        daemon.engine().lanes_caught_up(&Owner::local()).await;
        if tokio::time::timeout(IDLE, watch.changed()).await.is_err() {
            return;
        }
    }
}

/// The terminal on standard input passes on every key, until this is dropped.
struct RawMode(Termios);

impl RawMode {
    /// None where standard input is no terminal.
    fn enter() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
