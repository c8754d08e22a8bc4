//! The prompts, one row each, in the order of `prompts/list`.
//!
//! A recipe is read by a model, often one that knows nothing else of this server: real calls with what was given filled
//! in, what to look at in each answer, what a failure means, and what must not be left behind. `<SHELL_ID>` and the like
//! stand for identifiers that earlier steps answer with.
//!
//! News is pushed. A step that waits says both ways to it: the notification with a read, and `sub_wait` for hosts that do
//! not show notifications to the model.

use serde_json::{Value, json};
use ssh_mcp_core::{quote, text};

use super::{Argument, Given, Recipe, Row};
use crate::next::call;

pub(super) const ROWS: &[Row] = &[
    RUN_ONE_SHOT_COMMAND,
    INVESTIGATE_SESSION,
    UPLOAD_AND_VERIFY,
    INTERACTIVE_SHELL_DRIVE,
    CLEANUP_AGENT,
    PUSH_FIRST_LONG_COMMAND,
    PUSH_FIRST_INTERACTIVE_SHELL,
    PUSH_FIRST_FILE_TRANSFER,
    SUBSCRIPTION_HYGIENE_AUDIT,
    CHAOS_RESUME_AFTER_DISCONNECT,
];

const RUN_ONE_SHOT_COMMAND: Row = Row {
    name: "run_one_shot_command",
    title: "Run one command on a machine",
    description: "Connects, runs one command, shows its result and disconnects. For a machine where nothing else is to be \
                  done.",
    arguments: &[
        Argument::required("address", "The machine: host or host:port."),
        Argument::required("username", "Whom to log in as."),
        Argument::required("command", "The command line."),
    ],
    tools: &["ssh_run"],
    recipe: |given| {
        let run = call(
            "ssh_run",
            &[
                ("address", given.text("address").into()),
                ("username", given.text("username").into()),
                ("command", given.text("command").into()),
            ],
        );
        Ok(Recipe {
            aim: "Run one command on a machine and leave nothing behind.",
            steps: vec![
                format!(
                    "{run}. It connects, waits for the end and disconnects. Add password or key_path where the login \
                     needs it, and timeout_secs where the command takes long."
                ),
                "Look at the status, then at EXIT: COMPLETED means that the command ended by itself, and EXIT 0 that it \
                 succeeded. TIMEOUT means that its time limit ended it."
                    .into(),
                "Report EXIT and both outputs. A block that says truncated shows the newest part.".into(),
            ],
            if_it_fails: vec![
                LOGIN_FAILED.into(),
                "effect=unknown: the command may have run. Find out before you run it again.".into(),
            ],
            clean_up: vec![
                "DISCONNECTED: true says that nothing is left. With false an open session was used that belongs to \
                 other work; leave it."
                    .into(),
            ],
        })
    },
};

const INVESTIGATE_SESSION: Row = Row {
    name: "investigate_session",
    title: "Find out what a session is doing",
    description: "Looks at the commands and the health of a session, and ends the session if nobody needs it.",
    arguments: &[SESSION_ID],
    tools: &["ssh_commands", "ssh_sessions", "ssh_disconnect"],
    recipe: |given| {
        let session = given.text("session_id");
        let id = [("session_id", session.into())];
        let (commands, disconnect) = (call("ssh_commands", &id), call("ssh_disconnect", &id));
        let sessions = call("ssh_sessions", &[]);
        let health = read(&format!("session://{session}/health"));
        Ok(Recipe {
            aim: "Find out what a session is doing and whether it is well.",
            steps: vec![
                format!("{commands}. Look for commands that run, and for those that failed or timed out."),
                format!(
                    "{health}. Look at status, rtt_ms, active_refs (how much runs on it) and expires_at. Where you \
                     cannot read resources, {sessions} shows its health."
                ),
                format!(
                    "Report what you found. Only if nobody needs the session: {disconnect}. It also ends every \
                     command and shell on it."
                ),
            ],
            if_it_fails: vec![format!(
                "SESSION_NOT_FOUND: it has ended or is not yours. DETAIL says why it ended; {sessions} shows what lives."
            )],
            clean_up: vec!["Looking opens nothing. Leave a session that somebody still needs.".into()],
        })
    },
};

const UPLOAD_AND_VERIFY: Row = Row {
    name: "upload_and_verify",
    title: "Upload a file and verify it",
    description: "Uploads a file, waits for its end and compares the hashes of both sides.",
    arguments: &[SESSION_ID, LOCAL_PATH, REMOTE_PATH],
    tools: &["ssh_upload", "ssh_transfer_progress", "ssh_exec"],
    recipe: |given| {
        let progress =
            call("ssh_transfer_progress", &[("transfer_id", "<TRANSFER_ID>".into()), ("wait", true.into())]);
        Ok(Recipe {
            aim: "Upload a file and make sure that it arrived whole.",
            steps: vec![
                format!("{}. Keep its TRANSFER_ID.", upload(given, true)),
                format!(
                    "{progress}. It waits by itself; call it again while it says RUNNING. COMPLETED means that the \
                     file is there, and verified that both sides have the same SHA-256."
                ),
                format!("{}. {HASH}", remote_hash(given)),
            ],
            if_it_fails: transfer_failed(),
            clean_up: vec![partial_file(given), "A transfer that has ended needs no closing.".into()],
        })
    },
};

const INTERACTIVE_SHELL_DRIVE: Row = Row {
    name: "interactive_shell_drive",
    title: "Drive an interactive shell",
    description: "Opens a shell, waits for its prompt, types, and waits for the prompt again. The pattern is a plain \
                  substring, not a regex.",
    arguments: &[
        SESSION_ID,
        PROMPT_PATTERN,
        Argument::optional("command", "The first line to type; without it the model decides."),
    ],
    tools: &[
        "ssh_shell_open",
        "sub_open",
        "sub_wait",
        "ssh_shell_wait_for",
        "ssh_shell_write",
        "ssh_shell_press",
        "sub_close",
        "ssh_shell_close",
    ],
    recipe: |given| {
        let open = call("ssh_shell_open", &[("session_id", given.text("session_id").into())]);
        let wait = call(
            "ssh_shell_wait_for",
            &[("shell_id", "<SHELL_ID>".into()), ("patterns", json!([given.text("prompt_pattern")]))],
        );
        let write = shell_line(given.get("command").unwrap_or("<LINE>"));
        Ok(Recipe {
            aim: "Drive a program that asks, one line at a time.",
            steps: vec![
                format!("{open}. Keep its SHELL_ID."),
                format!("{}. Keep its SUB_ID. {}", sub_open(SHELL_URI, "snapshot"), stream_news(SHELL_URI)),
                format!(
                    "{wait}. The pattern is a plain substring, not a regex: no anchors and no escapes. MATCHED means \
                     that the shell waits for input."
                ),
                format!("{write}. The \\n at its end is the Enter key; without it nothing runs."),
                "Wait for the pattern again, as in step 3: the answer has what the line printed. Go on with step 4 \
                 for each further line."
                    .into(),
            ],
            if_it_fails: vec![
                "TIMEOUT: the pattern did not appear. Look at the output: answer what it asks, wait again if it still \
                 works, or wait for the prompt it really shows."
                    .into(),
                format!("A line that does not end: {}.", press_ctrl_c()),
                SHELL_ENDED.into(),
            ],
            clean_up: vec![sub_close(), shell_close()],
        })
    },
};

const CLEANUP_AGENT: Row = Row {
    name: "cleanup_agent",
    title: "End everything of an agent",
    description: "Disconnects every session of an agent, with all commands and shells on them.",
    arguments: &[Argument::required("agent_id", "The agent_id that was given to ssh_connect.")],
    tools: &["ssh_sessions", "ssh_disconnect_agent"],
    recipe: |given| {
        let agent = [("agent_id", given.text("agent_id").into())];
        let (sessions, end) = (call("ssh_sessions", &agent), call("ssh_disconnect_agent", &agent));
        Ok(Recipe {
            aim: "End everything that an agent left on other machines.",
            steps: vec![
                format!("{sessions}. These sessions end, with all that runs on them."),
                format!("{end}. Look at SESSIONS and COMMANDS: so many were ended."),
                format!("{sessions}. COUNT must be 0."),
            ],
            if_it_fails: vec![
                "Call it again: repeating it is safe. SESSIONS: 0 at once means that the agent has none; look at the \
                 spelling of its name."
                    .into(),
            ],
            clean_up: vec!["Nothing else: this is the clean-up.".into()],
        })
    },
};

const PUSH_FIRST_LONG_COMMAND: Row = Row {
    name: "push_first_long_command",
    title: "Run a long command and follow it",
    description: "Starts a command, receives its output while it runs, and closes the subscription when it has ended.",
    arguments: &[
        SESSION_ID,
        Argument::required("command", "The command line."),
        Argument::optional(
            "lag_policy",
            "If the reader falls behind: snapshot (the default), block_slow, drop_oldest or drop_newest.",
        ),
    ],
    tools: &["ssh_exec", "sub_open", "sub_wait", "sub_close", "ssh_exec_cancel"],
    recipe: |given| {
        let exec = call(
            "ssh_exec",
            &[("session_id", given.text("session_id").into()), ("command", given.text("command").into())],
        );
        let cancel = call("ssh_exec_cancel", &[("command_id", "<COMMAND_ID>".into())]);
        Ok(Recipe {
            aim: "Run a long command and follow its output without asking again and again.",
            steps: vec![
                format!(
                    "{exec}. It returns at once; keep its COMMAND_ID. Add timeout_secs if the command may take long; \
                     0 is no limit."
                ),
                format!("{}. Keep its SUB_ID.", sub_open(COMMAND_URI, given.lag_policy()?)),
                format!("{} Go on until its status is no longer running.", stream_news(COMMAND_URI)),
                "Report exit_code and what matters of the output.".into(),
            ],
            if_it_fails: vec![
                format!("RESOURCE_GONE from sub_open: it has ended already. {} has its output.", read(COMMAND_URI)),
                "timed_out: the time limit ended the command. Run it again with a longer one only if that is safe."
                    .into(),
                "truncated_since_last_read or gap_bytes: so many bytes came faster than they were read and are gone."
                    .into(),
                format!("To stop it: {cancel}."),
            ],
            clean_up: vec![sub_close()],
        })
    },
};

const PUSH_FIRST_INTERACTIVE_SHELL: Row = Row {
    name: "push_first_interactive_shell",
    title: "Run a script in a shell and follow it",
    description: "Opens a shell that ends when nobody follows it, types a script line by line, and closes everything.",
    arguments: &[
        SESSION_ID,
        PROMPT_PATTERN,
        Argument::optional("script", "The lines to type; without it the model decides."),
    ],
    tools: &[
        "ssh_shell_open",
        "sub_open",
        "sub_wait",
        "ssh_shell_write",
        "ssh_shell_press",
        "sub_close",
        "ssh_shell_close",
    ],
    recipe: |given| {
        let open = call(
            "ssh_shell_open",
            &[("session_id", given.text("session_id").into()), ("release_when_no_subs", true.into())],
        );
        let pattern = Value::from(given.text("prompt_pattern"));
        let script = given.get("script").unwrap_or("<LINE>");
        let lines: String = script.lines().map(|line| format!("\n   - {}", shell_line(line))).collect();
        Ok(Recipe {
            aim: "Type a script into a shell and follow what it prints.",
            steps: vec![
                format!("{open}. Keep its SHELL_ID. It ends by itself while nobody follows it, so go on at once."),
                format!("{}. Keep its SUB_ID.", sub_open(SHELL_URI, "snapshot")),
                format!(
                    "{} Go on until the new output contains {pattern}: a plain substring, not a regex. Then the shell waits \
                     for input.",
                    stream_news(SHELL_URI)
                ),
                format!(
                    "Type one line after the other. The \\n at its end is the Enter key. After each wait for the \
                     prompt as in step 3, and look at what the line printed before you type the next.{lines}"
                ),
            ],
            if_it_fails: vec![
                "The prompt does not come: look at the output. Answer what it asks, or wait on if it still works."
                    .into(),
                format!("A line that does not end: {}.", press_ctrl_c()),
                SHELL_ENDED.into(),
            ],
            clean_up: vec![shell_close(), sub_close()],
        })
    },
};

const PUSH_FIRST_FILE_TRANSFER: Row = Row {
    name: "push_first_file_transfer",
    title: "Upload a file and follow its progress",
    description: "Starts an upload, receives its progress, and compares the hashes at its end.",
    arguments: &[
        SESSION_ID,
        LOCAL_PATH,
        REMOTE_PATH,
        Argument::optional(
            "verify",
            "Whether to compare SHA-256 hashes at the end: true (the default) or false.",
        ),
    ],
    tools: &["ssh_upload", "sub_open", "sub_wait", "ssh_exec", "sub_close"],
    recipe: |given| {
        let verify = given.flag("verify", true)?;
        let mut steps = vec![
            format!("{}. It returns at once; keep its TRANSFER_ID.", upload(given, verify)),
            format!("{}. Keep its SUB_ID.", sub_open(TRANSFER_URI, "snapshot")),
            format!(
                "{} Go on until its status is no longer running; bytes_transferred of total_bytes says how far it is. \
                 completed means that the file is there.",
                news(&read(TRANSFER_URI), TRANSFER_URI)
            ),
        ];
        if verify {
            steps.push(format!("{}. {HASH}", remote_hash(given)));
        }
        Ok(Recipe {
            aim: "Upload a file and follow its progress without asking again and again.",
            steps,
            if_it_fails: transfer_failed(),
            clean_up: vec![sub_close(), partial_file(given)],
        })
    },
};

const SUBSCRIPTION_HYGIENE_AUDIT: Row = Row {
    name: "subscription_hygiene_audit",
    title: "Close subscriptions nobody needs",
    description: "Lists the open subscriptions, closes those that are stale, and looks for losses.",
    arguments: &[
        Argument::optional("uri_prefix", "Only subscriptions whose URI begins so, such as shell://."),
        Argument::optional("agent_id", "Only subscriptions to what this agent made."),
        Argument::optional(
            "stale_threshold_secs",
            "Seconds without an event that make one stale; 60 by default.",
        ),
    ],
    tools: &["sub_list", "ssh_resources", "sub_close", "sub_stats_all"],
    recipe: |given| {
        let stale = given.number("stale_threshold_secs", 60)?;
        let prefix: Vec<(&str, Value)> =
            given.get("uri_prefix").map(|prefix| ("uri_prefix", prefix.into())).into_iter().collect();
        let mut resources = vec![("include_ended", true.into())];
        let mut whose = "";
        if let Some(agent) = given.get("agent_id") {
            resources.push(("agent_id", agent.into()));
            whose = " Leave alone what is subscribed to other URIs than these.";
        }
        let (subs, resources) = (call("sub_list", &prefix), call("ssh_resources", &resources));
        Ok(Recipe {
            aim: "Close the subscriptions that nobody needs and see whether any lost something.",
            steps: vec![
                format!("{subs}. For each look at uri, created_at, last_event_at and lagged_drops."),
                format!("{resources}. It says which of their resources have ended.{whose}"),
                format!(
                    "Stale is what had no event for {stale} s (last_event_at, else created_at). A quiet resource that \
                     somebody still waits for is not: it stays. For each other stale one: {}.",
                    call("sub_close", &[("sub_id", "<SUB_ID>".into())])
                ),
                format!(
                    "{}. lagged_drops_total above 0: some reader lost events; follow that URI again with lag_policy \
                     snapshot or block_slow.",
                    call("sub_stats_all", &[])
                ),
            ],
            if_it_fails: vec!["NOT_FOUND from sub_close is no failure: it was closed already.".into()],
            clean_up: vec![format!("{subs} once more: only what somebody waits for is left.")],
        })
    },
};

const CHAOS_RESUME_AFTER_DISCONNECT: Row = Row {
    name: "chaos_resume_after_disconnect",
    title: "Go on after a lost connection",
    description: "Connects again where needed, subscribes again to a resource, and gets what it printed meanwhile.",
    arguments: &[
        Argument::required("uri", "The resource that was followed."),
        Argument::optional(
            "from_cursor",
            "The first byte that is missing; 0, the default, is all that is held.",
        ),
        Argument::optional("address", "The machine, to connect again: host or host:port."),
        Argument::optional("username", "Whom to log in as."),
        Argument::optional("agent_id", "The agent the session belongs to."),
        Argument::optional("sub_id", "The subscription that was lost."),
    ],
    tools: &["ssh_connect", "ssh_resources", "sub_list", "sub_open", "sub_replay", "sub_wait", "sub_close"],
    recipe: |given| {
        // A query of the URI says where some earlier read began.
        let uri = given.text("uri").split('?').next().unwrap_or_default();
        let from = given.number("from_cursor", 0)?;
        let from_there = format!("{uri}?cursor={from}");
        let agent = given.get("agent_id").map(|agent| ("agent_id", agent.into()));
        let mut steps = Vec::new();
        let mut if_it_fails = Vec::new();
        if let Some(address) = given.get("address") {
            let mut arguments = vec![
                ("address", address.into()),
                ("username", given.get("username").unwrap_or("<USERNAME>").into()),
                ("reuse", "auto".into()),
            ];
            arguments.extend(agent.clone());
            steps.push(format!(
                "{}. It takes the session if that still lives, and connects anew if not. What ran on a session that \
                 is lost has ended; connecting does not bring it back.",
                call("ssh_connect", &arguments)
            ));
            if_it_fails.push(LOGIN_FAILED.to_owned());
        }
        let mut resources = vec![("include_ended", true.into())];
        resources.extend(agent);
        steps.push(format!(
            "{}. Find {}: does it live, has it ended and can still be read, or is it gone?",
            call("ssh_resources", &resources),
            text::one_line(uri)
        ));
        if let Some(sub_id) = given.get("sub_id") {
            steps.push(format!(
                "{}. If {} is still there take it as the SUB_ID and leave out the next step.",
                call("sub_list", &[("uri_prefix", uri.into())]),
                Value::from(sub_id)
            ));
        }
        let replay = call("sub_replay", &[("sub_id", "<SUB_ID>".into()), ("from_cursor", from.into())]);
        steps.push(format!("{}. Keep its SUB_ID.", sub_open(uri, "snapshot")));
        steps.push(format!(
            "{replay}. FROM_CURSOR says where it really starts; RING_BUFFER_OVERFLOW means that what was before it \
             is gone."
        ));
        steps.push(format!(
            "{} Each answer's cursor is where the next one starts: put it in the place of {from}.",
            news(&read(&from_there), &from_there)
        ));
        if_it_fails.extend([
            format!("RESOURCE_GONE: it cannot be followed any more. {} has what is still held.", read(&from_there)),
            "RESOURCE_NOT_FOUND: its output is no longer kept. Start the work again only if it may run twice.".into(),
            "INVALID_ARGUMENT from sub_replay: the cursor lies beyond the end, so nothing is missing.".into(),
        ]);
        Ok(Recipe {
            aim: "Go on after a lost connection, from the first byte that is missing.",
            steps,
            if_it_fails,
            clean_up: vec![sub_close()],
        })
    },
};

const SESSION_ID: Argument = Argument::required("session_id", "The session, as ssh_connect answered it.");
const PROMPT_PATTERN: Argument = Argument::required(
    "prompt_pattern",
    "What the prompt ends with, such as \"$ \": a plain substring, not a regex.",
);
const LOCAL_PATH: Argument = Argument::required("local_path", "The file on the machine this server runs on.");
const REMOTE_PATH: Argument = Argument::required("remote_path", "Where it goes on the other machine.");

const SHELL_URI: &str = "shell://<SHELL_ID>/output";
const COMMAND_URI: &str = "command://<COMMAND_ID>/output";
const TRANSFER_URI: &str = "transfer://<TRANSFER_ID>/progress";

const LOGIN_FAILED: &str = "AUTH_FAILED or HOST_KEY_UNKNOWN: do not repeat it unchanged. Ask the person; DETAIL says \
                            what is missing.";
const SHELL_ENDED: &str =
    "The shell has ended: its exit code says how. Open another if the work is not done.";
const HASH: &str = "Compare its SHA-256 with that of the local file.";

fn read(uri: &str) -> String {
    format!("resources/read {}", text::one_line(uri))
}

/// How news of a resource arrives: by notification and this read, or by a wait for this URI.
fn news(read: &str, uri: &str) -> String {
    let wait = call("sub_wait", &[("uris", json!([uri]))]);
    format!(
        "At each notification about it: {read}. If your host shows you no notifications, call {wait} instead: it blocks \
         until there is news and returns the bytes; after TIMEOUT nothing is lost, call it again."
    )
}

/// The same for a stream, of which each read takes what is new.
fn stream_news(uri: &str) -> String {
    news(&read(&format!("{uri}?cursor=auto")), uri)
}

fn sub_open(uri: &str, lag_policy: &str) -> String {
    call("sub_open", &[("uri", uri.into()), ("lag_policy", lag_policy.into())])
}

fn sub_close() -> String {
    format!("{}, also after a failure.", call("sub_close", &[("sub_id", "<SUB_ID>".into())]))
}

fn shell_line(line: &str) -> String {
    call("ssh_shell_write", &[("shell_id", "<SHELL_ID>".into()), ("input", format!("{line}\n").into())])
}

fn press_ctrl_c() -> String {
    call("ssh_shell_press", &[("shell_id", "<SHELL_ID>".into()), ("key", "ctrl_c".into())])
}

fn shell_close() -> String {
    format!("{}.", call("ssh_shell_close", &[("shell_id", "<SHELL_ID>".into())]))
}

fn upload(given: &Given<'_>, verify: bool) -> String {
    call(
        "ssh_upload",
        &[
            ("session_id", given.text("session_id").into()),
            ("local_path", given.text("local_path").into()),
            ("remote_path", given.text("remote_path").into()),
            ("verify", verify.into()),
        ],
    )
}

fn remote_hash(given: &Given<'_>) -> String {
    let command = format!("sha256sum -- {}", quote::path(given.text("remote_path")));
    call(
        "ssh_exec",
        &[
            ("session_id", given.text("session_id").into()),
            ("command", command.into()),
            ("wait", true.into()),
        ],
    )
}

fn transfer_failed() -> Vec<String> {
    vec![
        "CONNECTION_LOST or TIMEOUT: the same ssh_upload with resume=true goes on behind what is there."
            .into(),
        "VERIFY_MISMATCH, or hashes that differ: upload again without resume.".into(),
        "PERMISSION_DENIED, DISK_FULL, REMOTE_DIR_NOT_FOUND: correct the path or make room first.".into(),
    ]
}

fn partial_file(given: &Given<'_>) -> String {
    format!(
        "After a failure a part of the file may be left at {}: resume it or delete it.",
        Value::from(given.text("remote_path"))
    )
}
