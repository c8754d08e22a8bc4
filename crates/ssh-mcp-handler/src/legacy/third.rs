//! 003: what it calls sessions are shells here; commands, copies, syncs, shells and forwards name their host with each call.

mod copy;
#[cfg(feature = "port_forward")]
mod forward;
mod sync;

use rmcp::model::JsonObject;
use serde_json::{Value, json};

use super::{
    Calls, once,
    row::{
        ALL, Argument, Field, Fixed, From, Kind, Known, Manner, Shape, Text, Told, Tool, field, made,
        optional, required, told,
    },
};
use crate::failure::Failure;

/// The tools of 003.
pub(super) const V003: &[&Tool] = &[
    &EXEC,
    &copy::SCP,
    &sync::SYNC,
    &START_SESSION,
    &ENSURE_SESSION,
    &READ_SESSION,
    &WRITE_SESSION,
    &STOP_SESSION,
    &LIST_SESSIONS,
    #[cfg(feature = "port_forward")]
    &forward::FORWARD,
    #[cfg(feature = "port_forward")]
    &forward::LIST_FORWARDS,
    #[cfg(feature = "port_forward")]
    &forward::STOP_FORWARD,
];

static EXEC: Tool = Tool {
    name: "ssh_exec",
    title: "Run a command on a host",
    description: "Runs one command on a host and returns what it printed. target is an alias of the SSH configuration, \
                  host, or user@host; the connection is kept for the next call. timeout is at most 300, which is also \
                  what holds without it. exit_code is -1 where there is no status.",
    calls: &["ssh_run"],
    arguments: &[
        TARGET,
        required("command"),
        PORT,
        IDENTITY_FILE,
        KNOWN_HOSTS_FILE,
        HOST_KEY_CHECKING,
        EXTRA_SSH_ARGS,
        optional("cwd"),
        optional("env"),
        optional("shell"),
        optional("timeout")
            .to("timeout_secs")
            .shaped(Shape::Seconds(None))
            .says("Run-time limit in seconds."),
        optional("tty").to("pty"),
    ],
    fixed: &[
        ("disconnect_after", Fixed::Flag(false)),
        // As long as a call can take.
        ("timeout_secs", Fixed::Count(0)),
        ("max_output_bytes", ALL),
    ],
    course: |calls| Box::pin(once(calls)),
    fields: &[&[
        told("stdout", Kind::Text),
        told("stderr", Kind::Text),
        made("exit_code", Kind::Whole, |known| Some(known.told("exit_code").cloned().unwrap_or(json!(-1)))),
        told("timed_out", Kind::Flag),
        field("target", Kind::Text, From::Asked("target")),
        field("command", Kind::Text, From::Asked("command")),
        made("duration_seconds", Kind::Number, |known| Some(known.took.as_secs_f64().into())),
        made("error", Kind::Text, |known| known.told("error")?.get("reason").cloned()).if_any(),
    ]],
    text: Text::Object,
    manner: Manner::Third,
};

static START_SESSION: Tool = Tool {
    name: "ssh_start_session",
    title: "Start a shell on a host",
    description: "Starts an interactive shell on a host and returns its session_id. target is an alias of the SSH \
                  configuration, host, or user@host. An open shell of the same name there is an error; \
                  ssh_ensure_session takes it instead.",
    calls: &["ssh_shell_open", "ssh_shell_read"],
    arguments: STARTING,
    fixed: &[("observer_mode", Fixed::Word("transcript"))],
    course: |calls| Box::pin(start(calls)),
    fields: &[SHELL, OBSERVER],
    text: Text::Object,
    manner: Manner::Third,
};

static ENSURE_SESSION: Tool = Tool {
    name: "ssh_ensure_session",
    title: "Find or start a shell on a host",
    description: "Returns an open shell on a host, of that session_name if one is given, and starts one if there is none; \
                  created, reused and matched_by say which. Calling it again changes nothing more.",
    calls: &["ssh_shell_open", "ssh_shell_read"],
    arguments: STARTING,
    fixed: &[("observer_mode", Fixed::Word("transcript")), ("ensure", Fixed::Flag(true))],
    course: |calls| Box::pin(start(calls)),
    fields: &[
        SHELL,
        OBSERVER,
        &[
            told("created", Kind::Flag),
            told("reused", Kind::Flag),
            made("matched_by", Kind::Text, |known| match known.told("matched_by")?.as_str()? {
                "name" => Some("session_name".into()),
                other => Some(other.into()),
            })
            .if_any(),
        ],
    ],
    text: Text::Object,
    manner: Manner::Third,
};

static READ_SESSION: Tool = Tool {
    name: "ssh_read_session",
    title: "Read what a shell printed",
    description: "Waits up to wait_seconds for output of a shell and returns the oldest that was not returned yet; \
                  pending_output_chars says how much is left for the next call.",
    calls: &["ssh_shell_read"],
    arguments: &[
        SESSION_ID,
        optional("wait_seconds").to("wait_timeout_secs").shaped(Shape::Seconds(Some(1.0))).says(WAITING),
        MAX_OUTPUT_CHARS,
    ],
    // A look, and a wait for it; what is there is taken by the second call.
    fixed: &[
        ("wait", Fixed::Flag(true)),
        ("clear", Fixed::Flag(false)),
        ("max_output_bytes", Fixed::Count(1)),
    ],
    course: |calls| Box::pin(read(calls)),
    fields: &[SHELL],
    text: Text::Object,
    manner: Manner::Third,
};

static WRITE_SESSION: Tool = Tool {
    name: "ssh_write_session",
    title: "Type into a shell",
    description: "Sends input to a shell exactly as given, so end a line with \\n; waits wait_seconds and returns the \
                  oldest output that was not returned yet. pending_output_chars says how much is left.",
    calls: &["ssh_shell_write", "sub_wait", "ssh_shell_read"],
    arguments: &[
        SESSION_ID,
        required("input"),
        optional("wait_seconds").unsent().shaped(Shape::Seconds(Some(1.0))).says(WAITING),
        MAX_OUTPUT_CHARS,
    ],
    fixed: &[],
    course: |calls| Box::pin(write(calls)),
    fields: &[SHELL],
    text: Text::Object,
    manner: Manner::Third,
};

static STOP_SESSION: Tool = Tool {
    name: "ssh_stop_session",
    title: "End a shell",
    description: "Ends a shell as when its terminal is hung up, with force=true by a kill, waits up to wait_seconds for \
                  its end and returns its last output. was_running is false if it had ended already.",
    calls: &["ssh_shell_close"],
    arguments: &[
        SESSION_ID,
        optional("force"),
        optional("wait_seconds").to("wait_secs").shaped(Shape::Seconds(Some(2.0))).says(WAITING),
    ],
    fixed: &[],
    course: |calls| Box::pin(once(calls)),
    fields: &[
        SHELL,
        &[made("was_running", Kind::Flag, |known| Some((known.first.get("status")? != "noop").into()))],
    ],
    text: Text::Object,
    manner: Manner::Third,
};

static LIST_SESSIONS: Tool = Tool {
    name: "ssh_list_sessions",
    title: "List shells",
    description: "Lists the open shells, newest first, by host or name if asked to; include_exited also shows those that \
                  have ended and can still be read.",
    calls: &["ssh_resources", "ssh_shell_read"],
    arguments: &[
        optional("target"),
        optional("session_name").to("name"),
        optional("include_exited").to("include_ended"),
    ],
    fixed: &[("kind", Fixed::Word("shell")), ("max_items", ALL)],
    course: |calls| Box::pin(list(calls)),
    fields: &[&[
        made("sessions", Kind::Parts(&[SHELL]), |known| {
            Some(known.items("resources").map(|shell| shell.object(&[SHELL])).collect())
        }),
        made("count", Kind::Whole, |known| Some(known.items("resources").count().into())),
    ]],
    text: Text::Object,
    manner: Manner::Third,
};

const TARGET: Argument = required("target");
const PORT: Argument = optional("port");
const IDENTITY_FILE: Argument = optional("identity_file");
const KNOWN_HOSTS_FILE: Argument = optional("known_hosts_file");
const HOST_KEY_CHECKING: Argument = optional("strict_host_key_checking");
const EXTRA_SSH_ARGS: Argument = optional("extra_ssh_args");

const SESSION_ID: Argument = required("session_id").to("shell_id");
const MAX_OUTPUT_CHARS: Argument =
    optional("max_output_chars").unsent().shaped(Shape::Count(CHARACTERS)).says("Most characters of output.");
const WAITING: &str = "Longest wait in seconds; at most 300.";

/// Characters of output where a call does not say.
const CHARACTERS: u64 = 65_536;

/// Of the tools that make a shell.
const STARTING: &[Argument] = &[
    TARGET,
    optional("session_name").to("name"),
    PORT,
    IDENTITY_FILE,
    KNOWN_HOSTS_FILE,
    HOST_KEY_CHECKING,
    EXTRA_SSH_ARGS,
    optional("cwd"),
    optional("env"),
    optional("shell"),
    optional("wait_seconds").to("wait_secs").shaped(Shape::Seconds(Some(1.0))).says(WAITING),
    optional("auto_close"),
    optional("observer_mode"),
];

/// How a shell stands and what it printed.
const SHELL: &[Field] = &[
    field("session_id", Kind::Text, From::Told("shell_id")),
    field("session_name", Kind::Text, From::Told("name")).if_any(),
    told("target", Kind::Text),
    field("output", Kind::Text, From::Told("stdout")),
    told("pending_output_chars", Kind::Whole),
    told("running", Kind::Flag),
    told("exit_code", Kind::Whole).if_any(),
    told("exit_reason", Kind::Text).if_any(),
    told("uptime_seconds", Kind::Number),
    told("idle_seconds", Kind::Number),
    made("transcript_size_bytes", Kind::Whole, |known| {
        Some(known.told("transcript_size_bytes").cloned().unwrap_or(json!(0)))
    }),
];

/// How a person can watch a shell.
const OBSERVER: &[Field] = &[made("observer", Kind::Part(&[OBSERVED]), |known| {
    known.told("observer_mode")?;
    Some(known.object(&[OBSERVED]))
})
.if_any()];

const OBSERVED: &[Field] = &[
    field("mode", Kind::Text, From::Told("observer_mode")),
    told("transcript_path", Kind::Text),
    made("tmux_started", Kind::Flag, |known: &Known<'_>| {
        Some(known.told("tmux_session_name").is_some().into())
    }),
    told("tmux_session_name", Kind::Text).if_any(),
    told("observer_command", Kind::Text),
];

/// What a new shell prints counts as returned, as everything that is returned does.
async fn start(calls: &mut Calls<'_>) -> Result<Told, Failure> {
    let first = calls.first().await?;
    let last = take(calls, &first).await?;
    Ok(Told { first, last })
}

async fn read(calls: &mut Calls<'_>) -> Result<Told, Failure> {
    let wait = calls.seconds("wait_seconds");
    let first = calls.first_within(wait).await?;
    let last = take(calls, &first).await?;
    Ok(Told { first, last })
}

/// The wait of `ssh_shell_write` itself would drain the newest output and pass over the older, which 003 keeps for the
/// next call.
async fn write(calls: &mut Calls<'_>) -> Result<Told, Failure> {
    let first = calls.first().await?;
    let wait = calls.seconds("wait_seconds");
    if !wait.is_zero() {
        let id = first.get("shell_id").and_then(Value::as_str).unwrap_or_default();
        let end = json!({ "uris": [format!("shell://{id}/output?cursor=0")], "until": "end",
            "timeout_secs": wait.as_secs_f64().ceil() as u64, "max_output_bytes": 1 });
        calls.then_within(wait, "sub_wait", end).await?;
    }
    let last = take(calls, &first).await?;
    Ok(Told { first, last })
}

/// Each shell with how it stands, which the list does not say.
async fn list(calls: &mut Calls<'_>) -> Result<Told, Failure> {
    let mut first = calls.first().await?;
    let shells = match first.remove("resources") {
        Some(Value::Array(shells)) => shells,
        Some(_) | None => Vec::new(),
    };
    let mut listed = Vec::new();
    for shell in shells {
        let look = json!({ "shell_id": shell.get("id"), "clear": false, "max_output_bytes": 1 });
        // One that has been forgotten since is no more.
        let (Value::Object(mut shell), Ok(stands)) = (shell, calls.then("ssh_shell_read", look).await) else {
            continue;
        };
        shell.extend(stands);
        // A list returns no output.
        shell.insert("stdout".into(), "".into());
        listed.push(Value::Object(shell));
    }
    first.insert("resources".into(), listed.into());
    Ok(Told { first, last: JsonObject::new() })
}

/// Takes the oldest output of a shell; for nobody nothing is taken.
async fn take(calls: &mut Calls<'_>, shell: &JsonObject) -> Result<JsonObject, Failure> {
    // As many bytes hold no more characters.
    let most = calls.asked.get("max_output_chars").and_then(Value::as_u64).unwrap_or(CHARACTERS);
    let clear = !calls.is_called_off();
    let read = json!({ "shell_id": shell.get("shell_id"), "from": "head", "clear": clear, "max_output_bytes": most });
    calls.then("ssh_shell_read", read).await
}
