//! The forward of 001 and 002.

use super::{Kind, Manner, Text, Tool, field, once, required, told};
use crate::legacy::row::From;

pub(super) static FORWARD: Tool = Tool {
    name: "ssh_forward",
    title: "Forward a TCP port",
    description: "Has a port of this machine lead to remote_address:remote_port as the server of a session reaches it. \
                  local_port 0 takes any free one, which local_address names. It lasts as long as the session.",
    calls: &["ssh_forward"],
    arguments: &[
        required("session_id"),
        required("local_port"),
        required("remote_address"),
        required("remote_port"),
    ],
    fixed: &[],
    course: |calls| Box::pin(once(calls)),
    fields: &[&[
        field("local_address", Kind::Text, From::Told("local")),
        field("remote_address", Kind::Text, From::Told("remote")),
        told("active", Kind::Flag),
        told("forward_id", Kind::Text),
    ]],
    text: Text::Object,
    manner: Manner::First,
};
