//! The forwards of 003: they name their host, are listed apart from shells, and are stopped at once.

use serde_json::Value;

use super::{
    super::{
        once,
        row::{Field, Fixed, From, Kind, Manner, Shape, Text, Tool, field, made, optional, required, told},
    },
    ALL, EXTRA_SSH_ARGS, HOST_KEY_CHECKING, IDENTITY_FILE, KNOWN_HOSTS_FILE, PORT, TARGET,
};

pub(super) static FORWARD: Tool = Tool {
    name: "ssh_forward",
    title: "Forward a TCP port",
    description: "Opens a forward and returns its forward_id. local: local_port here leads to remote_host:remote_port as the \
                  host reaches it. remote: remote_port of the host leads to local_port here, on remote_host as seen from \
                  here. target is an alias of the SSH configuration, host, or user@host. It lasts until ssh_stop_forward.",
    calls: &["ssh_forward"],
    arguments: &[
        TARGET,
        required("direction").shaped(Shape::Words(&["local", "remote"])),
        required("local_port"),
        required("remote_host").to("remote_address"),
        required("remote_port"),
        PORT,
        IDENTITY_FILE,
        KNOWN_HOSTS_FILE,
        HOST_KEY_CHECKING,
        EXTRA_SSH_ARGS,
        optional("bind_address"),
    ],
    fixed: &[],
    course: |calls| Box::pin(once(calls)),
    fields: &[LEADS, &[told("running", Kind::Flag), told("started_at", Kind::Text)]],
    text: Text::Object,
    manner: Manner::Third,
};

pub(super) static LIST_FORWARDS: Tool = Tool {
    name: "ssh_list_forwards",
    title: "List forwards",
    description: "Lists the forwards that are open, newest first, by host if asked to; include_stopped also shows those that \
                  ended a short while ago.",
    calls: &["ssh_resources"],
    arguments: &[optional("target"), optional("include_stopped").to("include_ended")],
    fixed: &[("kind", Fixed::Word("forward")), ("max_items", ALL)],
    course: |calls| Box::pin(once(calls)),
    fields: &[&[
        made("forwards", Kind::Parts(&[LEADS, LISTED]), |known| {
            Some(known.items("resources").map(|forward| forward.object(&[LEADS, LISTED])).collect())
        }),
        made("count", Kind::Whole, |known| Some(known.items("resources").count().into())),
    ]],
    text: Text::Object,
    manner: Manner::Third,
};

pub(super) static STOP_FORWARD: Tool = Tool {
    name: "ssh_stop_forward",
    title: "Stop a forward",
    description: "Ends a forward with all its connections. was_running is false if it had ended already.",
    calls: &["ssh_forward_close"],
    arguments: &[required("forward_id")],
    fixed: &[("force", Fixed::Flag(true))],
    course: |calls| Box::pin(once(calls)),
    fields: &[&[
        told("forward_id", Kind::Text),
        made("was_running", Kind::Flag, |known| Some((known.first.get("status")? != "noop").into())),
    ]],
    text: Text::Object,
    manner: Manner::Third,
};

/// Where a forward leads.
const LEADS: &[Field] = &[
    made("forward_id", Kind::Text, |known| known.told("forward_id").or_else(|| known.told("id")).cloned()),
    told("direction", Kind::Text),
    told("target", Kind::Text),
    told("local_port", Kind::Whole),
    field("remote_host", Kind::Text, From::Told("remote_address")),
    told("remote_port", Kind::Whole),
    told("bind_address", Kind::Text),
];

/// How one of a list stands.
const LISTED: &[Field] = &[
    made("running", Kind::Flag, |known| Some(Value::from(known.told("ended_at").is_none()))),
    field("started_at", Kind::Text, From::Told("created_at")),
    field("stopped_at", Kind::Text, From::Told("ended_at")).if_any(),
];
