//! 001 and 002: sessions, commands that are waited for, and with 001 commands in the background.

#[cfg(feature = "port_forward")]
mod forward;

use rmcp::model::JsonObject;
use serde_json::{Value, json};

use super::{
    Calls, WAIT, called_off, is, once,
    row::{
        ALL, Argument, Field, Fixed, From, Kind, Known, Manner, Shape, Text, Told, Tool, field, made,
        optional, required, told,
    },
};
use crate::failure::Failure;

/// The tools of 001.
pub(super) const V001: &[&Tool] = &[
    &CONNECT,
    &EXECUTE,
    &EXECUTE_ASYNC,
    &COMMAND_OUTPUT,
    &LIST_COMMANDS,
    &CANCEL_COMMAND,
    #[cfg(feature = "port_forward")]
    &forward::FORWARD,
    &DISCONNECT,
    &LIST_SESSIONS,
];

/// The tools of 002.
pub(super) const V002: &[&Tool] = &[
    &CONNECT_PLAINLY,
    &EXECUTE,
    #[cfg(feature = "port_forward")]
    &forward::FORWARD,
    &DISCONNECT,
    &LIST_SESSION_IDS,
];

/// What a name of the versions between 001 and this one is called here.
pub(super) fn renamed(name: &str) -> Option<String> {
    if let Some(lanes) = name.strip_prefix("ssh_sub_") {
        return Some(format!("sub_{lanes}"));
    }
    RENAMED.iter().find(|(old, _)| *old == name).map(|(_, new)| (*new).to_owned())
}

const RENAMED: &[(&str, &str)] = &[
    ("ssh_execute_batch", "ssh_exec_batch"),
    ("ssh_get_transfer_progress", "ssh_transfer_progress"),
    ("ssh_shell_send_key", "ssh_shell_press"),
    ("ssh_subscribe", "sub_open"),
    ("ssh_unsubscribe", "sub_close"),
    ("ssh_daemon_stats", "sub_stats_all"),
    ("ssh_serial_open", "serial_open"),
    ("ssh_serial_close", "serial_close"),
    ("ssh_serial_write", "serial_write"),
    ("ssh_serial_send_key", "serial_press"),
    ("ssh_serial_list_ports", "serial_scan"),
    ("ssh_serial_list_open", "serial_active"),
];

const ADDRESS: Argument = required("address").says("host, host:port or [v6]:port.");
const USERNAME: Argument = required("username").says("Account.");

static CONNECT: Tool = Tool {
    name: "ssh_connect",
    title: "Open an SSH session",
    description: "Opens a further SSH session and returns the session_id that other calls need. Tries key, password and \
                  agent. An idle session ends by itself unless persistent=true.",
    calls: &["ssh_connect"],
    arguments: &[
        ADDRESS,
        USERNAME,
        optional("password"),
        optional("key_path"),
        optional("timeout_secs"),
        optional("max_retries"),
        optional("retry_delay_ms"),
        optional("compress"),
        optional("name"),
        optional("persistent"),
    ],
    fixed: ALWAYS_A_NEW_ONE,
    course: |calls| Box::pin(once(calls)),
    fields: CONNECTED,
    text: Text::Object,
    manner: Manner::First,
};

static CONNECT_PLAINLY: Tool = Tool {
    name: CONNECT.name,
    title: CONNECT.title,
    description: "Opens a further SSH session and returns the session_id that other calls need. Tries key, password and \
                  agent. An idle session ends by itself.",
    calls: CONNECT.calls,
    arguments: &[ADDRESS, USERNAME, optional("password"), optional("key_path")],
    fixed: ALWAYS_A_NEW_ONE,
    course: |calls| Box::pin(once(calls)),
    fields: CONNECTED,
    text: Text::Object,
    manner: Manner::First,
};

const ALWAYS_A_NEW_ONE: &[(&str, Fixed)] = &[("reuse", Fixed::Word("force_new"))];

const CONNECTED: &[&[Field]] = &[&[
    told("session_id", Kind::Text),
    made("message", Kind::Text, |known| {
        let (user, host) = (known.text("username"), known.text("host"));
        Some(format!("connected to {user}@{}", place(host, known.told("port"))).into())
    }),
    made("authenticated", Kind::Flag, |_| Some(true.into())),
    field("retry_attempts", Kind::Whole, From::Told("retry")),
]];

static EXECUTE: Tool = Tool {
    name: "ssh_execute",
    title: "Run a command and wait",
    description: "Runs a command on a session, waits for its end and returns what it printed. exit_code is -1 where there \
                  is no status: a signal or the time limit ended it, or the connection broke.",
    calls: &["ssh_exec", "ssh_exec_output"],
    arguments: &[required("session_id"), required("command"), optional("timeout_secs")],
    fixed: &[],
    course: |calls| Box::pin(execute(calls)),
    fields: &[&[
        told("stdout", Kind::Text),
        told("stderr", Kind::Text),
        made("exit_code", Kind::Whole, |known| Some(known.told("exit_code").cloned().unwrap_or(json!(-1)))),
        made("error", Kind::Text, trouble).if_any(),
        told("timed_out", Kind::Flag),
        told("command_id", Kind::Text),
    ]],
    text: Text::Object,
    manner: Manner::First,
};

static EXECUTE_ASYNC: Tool = Tool {
    name: "ssh_execute_async",
    title: "Start a command",
    description: "Starts a command on a session and returns its command_id at once; many run side by side. Read it with \
                  ssh_get_command_output, end it with ssh_cancel_command.",
    calls: &["ssh_exec"],
    arguments: &[required("session_id"), required("command"), optional("timeout_secs")],
    fixed: &[],
    course: |calls| Box::pin(once(calls)),
    fields: &[&[
        told("command_id", Kind::Text),
        made("message", Kind::Text, |known| {
            Some(
                format!("command {} started; ssh_get_command_output reads it", known.text("command_id"))
                    .into(),
            )
        }),
    ]],
    text: Text::Object,
    manner: Manner::First,
};

static COMMAND_OUTPUT: Tool = Tool {
    name: "ssh_get_command_output",
    title: "Read or await a command's output",
    description: "Shows how a command stands and what it printed, with wait=true after waiting for its end. A wait that \
                  runs out answers running; what its own time limit ended has failed.",
    calls: &["ssh_exec_output"],
    arguments: &[required("command_id"), optional("wait"), optional("wait_timeout_secs")],
    fixed: &[("max_output_bytes", ALL)],
    course: |calls| Box::pin(once(calls)),
    fields: &[&[
        made("status", Kind::Text, |known| Some(status(known).into())),
        told("stdout", Kind::Text),
        told("stderr", Kind::Text),
        told("exit_code", Kind::Whole).if_any(),
        made("error", Kind::Text, trouble).if_any(),
        told("timed_out", Kind::Flag),
        told("command_id", Kind::Text),
    ]],
    text: Text::Object,
    manner: Manner::First,
};

static LIST_COMMANDS: Tool = Tool {
    name: "ssh_list_commands",
    title: "List commands",
    description: "Lists commands, newest first: those that run, and those that have ended and can still be read. Narrow it \
                  by session or by status.",
    calls: &["ssh_commands"],
    arguments: &[
        optional("session_id"),
        // Told apart here: the new tool has a status more.
        optional("status").unsent().shaped(Shape::Words(&["running", "completed", "cancelled", "failed"])),
    ],
    fixed: &[("max_items", ALL)],
    course: |calls| Box::pin(once(calls)),
    fields: &[&[
        made("commands", Kind::Parts(LISTED_COMMAND), |known| {
            Some(commands(known).map(|command| command.object(LISTED_COMMAND)).collect())
        }),
        made("count", Kind::Whole, |known| Some(commands(known).count().into())),
    ]],
    text: Text::Object,
    manner: Manner::First,
};

const LISTED_COMMAND: &[&[Field]] = &[&[
    told("command_id", Kind::Text),
    told("session_id", Kind::Text),
    told("command", Kind::Text),
    made("status", Kind::Text, |known| Some(status(known).into())),
    told("started_at", Kind::Text),
]];

static CANCEL_COMMAND: Tool = Tool {
    name: "ssh_cancel_command",
    title: "Stop a running command",
    description: "Ends a running command and returns what it printed. cancelled is false if it had ended already.",
    calls: &["ssh_exec_cancel", "ssh_exec_output"],
    arguments: &[required("command_id")],
    fixed: &[("max_output_bytes", ALL)],
    course: |calls| Box::pin(cancel(calls)),
    fields: &[&[
        made("cancelled", Kind::Flag, |known| Some((known.first.get("status")? == "cancelled").into())),
        told("stdout", Kind::Text),
        told("stderr", Kind::Text),
        told("command_id", Kind::Text),
    ]],
    text: Text::Object,
    manner: Manner::First,
};

static DISCONNECT: Tool = Tool {
    name: "ssh_disconnect",
    title: "End an SSH session",
    description: "Ends a session and all that runs on it.",
    calls: &["ssh_disconnect"],
    arguments: &[required("session_id")],
    fixed: &[],
    course: |calls| Box::pin(once(calls)),
    fields: &[&[made("message", Kind::Text, |known| {
        Some(format!("Session {} disconnected successfully", known.text("session_id")).into())
    })]],
    text: Text::Field("message"),
    manner: Manner::First,
};

static LIST_SESSIONS: Tool = Tool {
    name: "ssh_list_sessions",
    title: "List SSH sessions",
    description: "Lists the open sessions, newest first; dead ones are closed and left out.",
    calls: &["ssh_sessions"],
    arguments: &[],
    fixed: &[("max_items", ALL)],
    course: |calls| Box::pin(once(calls)),
    fields: &[&[
        made("sessions", Kind::Parts(LISTED_SESSION), |known| {
            Some(known.items("sessions").map(|session| session.object(LISTED_SESSION)).collect())
        }),
        told("count", Kind::Whole),
    ]],
    text: Text::Object,
    manner: Manner::First,
};

const LISTED_SESSION: &[&[Field]] = &[&[
    told("session_id", Kind::Text),
    told("name", Kind::Text).if_any(),
    made("host", Kind::Text, |known| Some(place(known.text("host"), known.told("port")).into())),
    told("username", Kind::Text),
    told("connected_at", Kind::Text),
    // A session remembers neither the limit of the call that opened it nor how often that tried.
    made("default_timeout_secs", Kind::Whole, |known| Some(known.settings.connect_timeout.as_secs().into())),
    made("retry_attempts", Kind::Whole, |_| Some(0.into())),
    told("compression_enabled", Kind::Flag),
]];

static LIST_SESSION_IDS: Tool = Tool {
    name: LIST_SESSIONS.name,
    title: LIST_SESSIONS.title,
    description: "Lists the ids of the open sessions, newest first; dead ones are closed and left out.",
    calls: LIST_SESSIONS.calls,
    arguments: &[],
    fixed: &[("max_items", ALL)],
    course: |calls| Box::pin(once(calls)),
    fields: &[&[made("sessions", Kind::Texts, |known| {
        Some(
            known
                .items("sessions")
                .map(|session| session.text("session_id").into())
                .collect::<Vec<Value>>()
                .into(),
        )
    })]],
    text: Text::Field("sessions"),
    manner: Manner::First,
};

/// Waits as long as the command takes: a wait of the new tools has an end, the old one had none.
async fn execute(calls: &mut Calls<'_>) -> Result<Told, Failure> {
    let first = calls.first().await?;
    loop {
        let wait = json!({ "command_id": first.get("command_id"), "wait": true, "wait_timeout_secs": WAIT.as_secs(),
            "max_output_bytes": ALL.to_value() });
        let last = calls.then("ssh_exec_output", wait).await?;
        if is(&last, "running") && calls.is_called_off() {
            return Err(called_off());
        }
        if !is(&last, "running") {
            return Ok(Told { first, last });
        }
    }
}

/// What had ended already is shown all the same.
async fn cancel(calls: &mut Calls<'_>) -> Result<Told, Failure> {
    let first = calls.first().await?;
    let last = match is(&first, "noop") {
        false => JsonObject::new(),
        true => {
            let read = json!({ "command_id": first.get("command_id"), "max_output_bytes": ALL.to_value() });
            calls.then("ssh_exec_output", read).await?
        }
    };
    Ok(Told { first, last })
}

/// The status of a command in the four words of 001.
fn status(known: &Known<'_>) -> &'static str {
    match known.text("status") {
        "running" => "running",
        "completed" => "completed",
        "cancelled" => "cancelled",
        _ => "failed",
    }
}

/// Why a command has no exit status.
fn trouble(known: &Known<'_>) -> Option<Value> {
    match known.told("error") {
        Some(error) => error.get("reason").cloned(),
        None => known.told("timed_out")?.as_bool()?.then(|| "its time limit ended the command".into()),
    }
}

/// The commands of a list that stand as asked.
fn commands<'a>(known: &Known<'a>) -> impl Iterator<Item = Known<'a>> {
    let wanted = known.asked.get("status").and_then(Value::as_str);
    known.items("commands").filter(move |command| wanted.is_none_or(|wanted| status(command) == wanted))
}

/// `host:port`, an IPv6 address in brackets.
fn place(host: &str, port: Option<&Value>) -> String {
    let port = port.and_then(Value::as_u64).unwrap_or_default();
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}
