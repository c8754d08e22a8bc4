//! `ssh_shell_open`.

use std::{sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ssh_mcp_core::{
    code::{Code, Effect as Begun},
    id::SessionId,
    lifecycle::AutoRelease,
    port::ssh::{Pty, PtySize},
    reason::Reason,
    registry::{Entry as _, Session, Shell},
    settings::{Quantity, Settings, Unit},
    uri::Scheme,
};
use ssh_mcp_engine::{Connect, Ensure, OpenShell, OpenedShell, Opening};

use super::{
    KEPT, KEPT_SHORTLY, SETTLED, Standing, awaited_hint,
    output::WAIT_FOR,
    patience,
    transcript::{self, ObserverMode, Watching},
};
use crate::{
    args::{self, Arguments},
    cx::Cx,
    failure::Failure,
    next::{self, After},
    progress::{Beat, EVERY_5_S},
    reply::{Answer, Body, Completeness, Shown, Text},
    tools::{
        Effect, Key, Reach, Repeat, Row, Set, call,
        connect::{Afterwards, Ground, Login},
        process::ContextArgs,
    },
};

pub(super) const OPEN: Row = Row {
    name: "ssh_shell_open",
    title: "Open an interactive shell",
    description: "Opens an interactive shell on a terminal of a session; returns its SHELL_ID. Take it for \
                  programs that ask back, editors, and where directory and variables must last; for single \
                  commands take ssh_exec. It ends by ssh_shell_close, with its program or session, or \
                  after inactivity_ttl without use.",
    effect: Effect::Adds,
    repeat: Repeat::Counts,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Shell, Set::Core],
    makes: Some(Scheme::Shell),
    call: call!(open, OpenArgs, OpenBody),
};

#[derive(Deserialize, JsonSchema)]
pub(super) struct OpenArgs {
    /// Or target.
    session_id: Option<String>,
    #[serde(flatten)]
    login: Login,
    /// vt100 or ansi for consoles.
    #[serde(default = "xterm")]
    #[schemars(length(min = 1, max = 64))]
    term: String,
    #[serde(default = "eighty")]
    #[schemars(range(min = 1, max = 65_535))]
    cols: u32,
    #[serde(default = "twenty_four")]
    #[schemars(range(min = 1, max = 65_535))]
    rows: u32,
    /// Seconds; 0 is never.
    inactivity_ttl: Option<u64>,
    max_buffer_size: Option<String>,
    /// Close it when nobody waits or reads.
    #[serde(default)]
    release_when_no_subs: bool,
    /// Delay before that.
    #[schemars(range(max = 3_600_000))]
    grace_ms: Option<u64>,
    /// Unique among a host's open shells.
    #[schemars(length(min = 1, max = 128))]
    name: Option<String>,
    /// Take the host's open shell of that name, or its newest.
    #[serde(default)]
    ensure: bool,
    #[serde(flatten)]
    context: ContextArgs,
    /// Forget it 5 min after its end, not 60.
    #[serde(default)]
    auto_close: bool,
    /// Longest wait for output to pause.
    #[serde(default)]
    #[schemars(range(min = 0))]
    wait_secs: f64,
    /// Keep output in a local file.
    #[serde(default)]
    transcript: bool,
    /// For a person to watch.
    observer_mode: Option<ObserverMode>,
}

impl Arguments for OpenArgs {
    fn defaults(settings: &Settings) -> Vec<(&'static str, Value)> {
        vec![
            ("inactivity_ttl", json!(settings.shell_inactivity.to_number() / 1000)),
            ("max_buffer_size", json!(Unit::Bytes.show(settings.shell_history as u64))),
            ("grace_ms", json!(settings.lifecycle_grace.to_number())),
        ]
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct OpenBody {
    session_id: String,
    shell_id: String,
    term: String,
    cols: u32,
    rows: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<String>,
    created: bool,
    reused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    matched_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initial_buffer: Option<String>,
    #[serde(flatten)]
    standing: Standing,
    #[serde(flatten)]
    watching: Option<Watching>,
}

impl Body for OpenBody {
    const STATUSES: &'static [&'static str] = &["ok", "reused"];

    fn write(&self, text: &mut Text) {
        text.key("SHELL_ID", &self.shell_id);
        text.key("SESSION_ID", &self.session_id);
        text.key("TERM", format_args!("{} {}x{}", self.term, self.cols, self.rows));
        text.maybe("AGENT_ID", self.agent_id.as_ref());
        text.key("CREATED", self.created);
        text.key("REUSED", self.reused);
        text.maybe("MATCHED_BY", self.matched_by);
        self.standing.write(text);
        if let Some(watching) = &self.watching {
            watching.write(text);
        }
        text.maybe("INITIAL_BUFFER", self.initial_buffer.as_ref());
    }
}

async fn open(cx: &Cx, args: OpenArgs) -> Result<Answer<OpenBody>, Failure> {
    let wait = patience(args.wait_secs);
    let (on, ask) = args.into_open(cx)?;
    let ground = match on {
        On::Session(session) => Ground { session, ours: false },
        On::Host(connect) => Ground::find(cx, *connect).await?,
    };
    let ask = ask(ground.session.spec.id);
    let OpenedShell { shell, how } = match cx.engine.open_shell(&cx.owner, ask).await {
        Ok(opened) => opened,
        Err(error) => {
            // An error leaves nothing behind.
            ground.leave(cx, Afterwards::Disconnect).await;
            return Err(error.into());
        }
    };
    let (status, matched_by) = match how {
        Opening::Created => ("ok", None),
        Opening::Reused { matched_by } => ("reused", Some(matched_by)),
    };
    let initial_buffer = async {
        match how {
            Opening::Created => first_output(cx, &shell, wait).await,
            Opening::Reused { .. } => None,
        }
    };
    let (initial_buffer, ()) = tokio::join!(initial_buffer, cx.engine.watchable(&shell));
    if let Some((Reason::Failed, _)) = shell.ended() {
        ground.leave(cx, Afterwards::Disconnect).await;
        return Err(Failure::new(Code::ChannelFailed, "the server refused a terminal or a program on it")
            .with_effect(Begun::None));
    }
    let PtySize { cols, rows } = shell.size();
    let body = OpenBody {
        session_id: shell.spec.session.to_string(),
        shell_id: shell.spec.id.to_string(),
        term: shell.spec.term.clone(),
        cols,
        rows,
        agent_id: shell.spec.agent.clone(),
        created: how == Opening::Created,
        reused: how != Opening::Created,
        matched_by,
        initial_buffer,
        standing: Standing::of(cx, &shell).await,
        watching: Watching::of(&shell),
    };
    let warnings =
        transcript::broken(&shell).into_iter().chain(body.watching.as_ref().and_then(Watching::warning));
    let warnings: Vec<_> = warnings.collect();
    if !body.standing.running {
        return Ok(Answer::new(status, body).with_warnings(warnings));
    }
    let next = next::next(&cx.catalogue, After::ShellOpened(shell.spec.id));
    // A shell that was found keeps what its opener chose, so the shell is asked and not the call.
    let release = shell.life.snapshot().auto_release;
    let grace = cx.settings().lifecycle_own_grace;
    Ok(Answer::new(status, body)
        .with_warnings(warnings)
        .with_hint(ground.learnt_hint())
        .with_hint(awaited_hint(cx, &shell))
        .with_hint(next::release_hint(&cx.catalogue, release, grace, WAIT_FOR.name))
        .with_next(next))
}

/// What a shell is to be opened on.
enum On {
    Session(Arc<Session>),
    Host(Box<Connect>),
}

impl OpenArgs {
    /// Where, and what to ask once the session there is known.
    fn into_open(self, cx: &Cx) -> Result<(On, impl FnOnce(SessionId) -> OpenShell), Failure> {
        let settings = cx.settings();
        if !self.term.chars().all(|c| c.is_ascii_graphic()) {
            let shown = args::shown("term", &Value::from(self.term));
            return Err(Failure::argument(format!(
                "term must be the name of a terminal type, without spaces; got {shown}"
            )));
        }
        let history = match self.max_buffer_size {
            Some(text) => buffer_size(&text)?,
            None => settings.shell_history,
        };
        let context = self.context.parse()?;
        let on = match (&self.session_id, self.login.names_a_host()) {
            (Some(_), true) => {
                return Err(Failure::argument("session_id and a host are both given: give one of them"));
            }
            (Some(id), false) => On::Session(cx.session(id)?),
            (None, true) => On::Host(Box::new(self.login.into_connect(cx, None)?)),
            (None, false) => {
                return Err(Failure::argument(
                    "session_id is missing: it must be a text, unless target is given",
                ));
            }
        };
        let inactivity = match self.inactivity_ttl {
            Some(secs) => Option::from_number(secs.saturating_mul(1000)),
            None => settings.shell_inactivity,
        };
        let grace = self.grace_ms.map_or(settings.lifecycle_grace, Duration::from_millis);
        let ask = move |session| OpenShell {
            session,
            pty: Pty { term: self.term, size: PtySize { cols: self.cols, rows: self.rows } },
            context,
            inactivity,
            history,
            auto_release: match self.release_when_no_subs {
                true => AutoRelease::On,
                false => AutoRelease::Off,
            },
            grace,
            name: self.name,
            ensure: if self.ensure { Ensure::Yes } else { Ensure::No },
            retention: if self.auto_close { KEPT_SHORTLY } else { KEPT },
            transcript: transcript::wanted(self.transcript, self.observer_mode),
        };
        Ok((on, ask))
    }
}

/// A history's size as a call gives it, within the bounds of the setting it overrides.
fn buffer_size(text: &str) -> Result<usize, Failure> {
    let rows = Settings::rows();
    let bounds = rows.iter().find(|row| row.name == BUFFER_SETTING).and_then(|row| row.bounds);
    let (min, max) = bounds.map_or((0, u64::MAX), |bounds| (bounds.min, bounds.max));
    match Unit::Bytes.read(text.trim()) {
        Some(size) if (min..=max).contains(&size) => Ok(usize::from_number(size)),
        Some(_) | None => {
            let shown = args::shown("max_buffer_size", &Value::from(text));
            let (min, max) = (Unit::Bytes.show(min), Unit::Bytes.show(max));
            Err(Failure::argument(format!(
                "max_buffer_size must be a size from {min} to {max}, such as 512k or 10m; got {shown}"
            )))
        }
    }
}

/// The setting `max_buffer_size` overrides; its bounds are the parameter's.
const BUFFER_SETTING: &str = "SSH_SHELL_MAX_BUFFER_SIZE";

/// The beginning of what a new shell prints: after a moment that the settings give, or as long as the call is willing to
/// wait. It is a look, nothing is drained.
async fn first_output(cx: &Cx, shell: &Arc<Shell>, wait: Duration) -> Option<String> {
    let settings = cx.settings();
    let (patience, quiet) = match (wait.is_zero(), settings.shell_peek) {
        (true, None) => return None,
        (true, Some(peek)) => (peek, settings.shell_peek_quiet),
        (false, _) => (wait, SETTLED),
    };
    let waited = cx.engine.await_shell_quiet(shell, 0, patience, quiet);
    let beat = || Beat { progress: 0, total: None, message: "waiting for the shell's first output".into() };
    // However the wait ends, the answer says what there is.
    _ = cx.progress.while_waiting(EVERY_5_S, waited, beat).await;
    let max = settings.shell_peek_bytes;
    // One byte more, so that a character at the border is cut off whole.
    let window = shell.history.read(0, max + 1);
    let shown = Shown::oldest(&window.bytes, max, Completeness::Partial);
    (!shown.text.is_empty()).then_some(shown.text)
}

fn xterm() -> String {
    "xterm".into()
}

fn eighty() -> u32 {
    80
}

fn twenty_four() -> u32 {
    24
}
