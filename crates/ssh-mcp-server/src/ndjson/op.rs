//! The ops: one row for each, from which lines are read and the schema is made (`docs/daemon.md`, "Ops").
//!
//! An op names its fields as scripts like them; what its tool takes besides goes to it under the tool's own names, and the
//! tool judges it. Here only the form of a line is judged.

use serde_json::{Map, Value, json};
use ssh_mcp_core::{code::Code, text};

use super::event::{Failed, OpId};

/// One op.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) act: Act,
    /// What it takes besides the parameters of its tool.
    pub(super) fields: &'static [Field],
    /// Groups of fields of which exactly one must be there.
    pub(super) one_of: &'static [&'static [&'static str]],
}

/// What an op does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Calls this tool.
    Tool(&'static str),
    /// Opens a lane.
    Subscribe,
    /// Closes a lane.
    Unsubscribe,
    /// Reads a resource.
    Read,
    /// Ends a command, a transfer or a sync.
    Cancel,
    /// Calls whatever tool it names.
    Call,
    /// Tells what there is.
    Stats,
    /// Ends the daemon.
    Shutdown,
}

/// A field of an op.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// What the tool calls it.
    pub(super) to: &'static str,
    pub(super) kind: Kind,
    pub(super) need: Need,
}

/// What a field's value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Flag,
    /// An integer from 0.
    Count,
    /// An integer from 0, or a text with a unit.
    Quantity,
    /// One of these words, in any letter case and with either dash.
    Words(&'static [&'static str]),
    Object,
    /// `true`, or an object with options of `subscribe`.
    Options,
}

/// Whether a field must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Yes,
    No,
}

const fn field(name: &'static str, to: &'static str, kind: Kind, need: Need) -> Field {
    Field { name, to, kind, need }
}

const fn must(name: &'static str, to: &'static str) -> Field {
    field(name, to, Kind::Text, Need::Yes)
}

const fn may(name: &'static str, to: &'static str, kind: Kind) -> Field {
    field(name, to, kind, Need::No)
}

const SUBSCRIBE: Field = may("subscribe", "subscribe", Kind::Options);
const PROGRESS: Field = may("progress", "progress", Kind::Flag);
const RELEASE: Field = may("release_when_no_subs", "release_when_no_subs", Kind::Flag);
const GRACE: Field = may("grace_ms", "grace_ms", Kind::Count);
const SID: Field = must("sid", "session_id");

/// Every op.
pub(super) const OPS: &[Row] = &[
    Row {
        name: "connect",
        act: Act::Tool("ssh_connect"),
        fields: &[
            may("host", "address", Kind::Text),
            may("target", "target", Kind::Text),
            may("user", "username", Kind::Text),
            may("port", "port", Kind::Count),
            may("key", "key_path", Kind::Text),
            may("password", "password", Kind::Text),
            may("agent_id", "agent_id", Kind::Text),
            may("reuse_policy", "reuse", Kind::Words(&["suggest", "auto", "force_new"])),
        ],
        one_of: &[&["host", "target"]],
    },
    Row {
        name: "exec",
        act: Act::Tool("ssh_exec"),
        fields: &[SID, must("cmd", "command"), may("pty", "pty", Kind::Flag), RELEASE, GRACE, SUBSCRIBE],
        one_of: &[],
    },
    Row {
        name: "subscribe",
        act: Act::Subscribe,
        fields: &[
            must("uri", "uri"),
            may("lifetime", "lifetime", Kind::Text),
            GRACE,
            may("ttl_secs", "ttl_secs", Kind::Count),
            may("lag_policy", "lag_policy", Kind::Text),
            may("filter", "filter", Kind::Text),
            may("start_cursor", "start", Kind::Quantity),
            may("encoding", "encoding", Kind::Words(&["auto", "base64"])),
            may("debounce_ms", "debounce_ms", Kind::Quantity),
            may("flush_bytes", "flush_bytes", Kind::Quantity),
        ],
        one_of: &[],
    },
    Row { name: "unsubscribe", act: Act::Unsubscribe, fields: &[must("sub_id", "sub_id")], one_of: &[] },
    Row {
        name: "read",
        act: Act::Read,
        fields: &[
            must("uri", "uri"),
            may("cursor", "cursor", Kind::Count),
            may("max_bytes", "max_bytes", Kind::Count),
        ],
        one_of: &[],
    },
    Row {
        name: "shell_open",
        act: Act::Tool("ssh_shell_open"),
        fields: &[
            SID,
            may("cols", "cols", Kind::Count),
            may("rows", "rows", Kind::Count),
            may("term", "term", Kind::Text),
            RELEASE,
            may("inactivity_ttl_secs", "inactivity_ttl", Kind::Count),
            may("max_buffer_size", "max_buffer_size", Kind::Quantity),
            SUBSCRIBE,
        ],
        one_of: &[],
    },
    Row {
        name: "shell_write",
        act: Act::Tool("ssh_shell_write"),
        fields: &[
            must("shid", "shell_id"),
            may("bytes", "input", Kind::Text),
            may("bytes_b64", "input_base64", Kind::Text),
        ],
        one_of: &[&["bytes", "bytes_b64"]],
    },
    Row {
        name: "shell_key",
        act: Act::Tool("ssh_shell_press"),
        fields: &[
            must("shid", "shell_id"),
            must("key", "key"),
            may("repeat", "repeat", Kind::Count),
            may("shift", "shift", Kind::Flag),
            may("alt", "alt", Kind::Flag),
            may("ctrl", "ctrl", Kind::Flag),
        ],
        one_of: &[],
    },
    Row {
        name: "upload",
        act: Act::Tool("ssh_upload"),
        fields: &[
            SID,
            may("local", "local_path", Kind::Text),
            must("remote", "remote_path"),
            may("resume", "resume", Kind::Flag),
            may("verify", "verify", Kind::Flag),
            RELEASE,
            SUBSCRIBE,
            PROGRESS,
        ],
        one_of: &[&["local", "local_paths"]],
    },
    Row {
        name: "download",
        act: Act::Tool("ssh_download"),
        fields: &[
            SID,
            may("remote", "remote_path", Kind::Text),
            must("local", "local_path"),
            may("resume", "resume", Kind::Flag),
            may("verify", "verify", Kind::Flag),
            RELEASE,
            SUBSCRIBE,
            PROGRESS,
        ],
        one_of: &[&["remote", "remote_paths"]],
    },
    Row {
        name: "cancel",
        act: Act::Cancel,
        fields: &[
            may("cid", "command_id", Kind::Text),
            may("tid", "transfer_id", Kind::Text),
            may("rid", "rsync_id", Kind::Text),
        ],
        one_of: &[&["cid", "tid", "rid"]],
    },
    Row { name: "disconnect", act: Act::Tool("ssh_disconnect"), fields: &[SID], one_of: &[] },
    Row {
        name: "shutdown",
        act: Act::Shutdown,
        fields: &[
            may("mode", "mode", Kind::Words(&["drain", "wait", "now"])),
            may("grace_secs", "grace_secs", Kind::Count),
        ],
        one_of: &[],
    },
    Row {
        name: "call",
        act: Act::Call,
        fields: &[
            must("tool", "tool"),
            may("args", "args", Kind::Object),
            SUBSCRIBE,
            may("text", "text", Kind::Flag),
        ],
        one_of: &[],
    },
    Row { name: "stats", act: Act::Stats, fields: &[], one_of: &[] },
];

/// A line that can be run.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) id: Option<OpId>,
    pub(super) row: &'static Row,
    /// The fields of its row, as the tool calls them.
    pub(super) fields: Map<String, Value>,
    /// What else stands in the line; a tool judges it.
    pub(super) rest: Map<String, Value>,
    pub(super) key: Option<Value>,
}

impl Op {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it, with its `id` where that can be read.
    pub(super) fn parse(line: &[u8]) -> Result<Self, Box<Failed>> {
        let text = std::str::from_utf8(line)
            .map_err(|_| bad(None, None, Cause::Utf8, "the line is not UTF-8".into()))?;
        let Ok(Value::Object(object)) = serde_json::from_str(text) else {
            return Err(bad(None, None, Cause::Json, "the line is no JSON object".into()));
        };
        Self::of(object)
    }

    /// Reads an object.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub(super) fn of(mut object: Map<String, Value>) -> Result<Self, Box<Failed>> {
        // "Not given", as everywhere.
        object.retain(|_, value| !value.is_null());
        let id = match object.remove("id").map(id).transpose() {
            Ok(id) => id,
            Err(reason) => return Err(bad(None, None, Cause::BadField, reason)),
        };
        let row = match object.remove("op") {
            Some(Value::String(name)) => OPS.iter().find(|row| row.name == name).ok_or(name),
            Some(_) => return Err(bad(id, None, Cause::UnknownOp, "op must be a text".into())),
            None => return Err(bad(id, None, Cause::UnknownOp, "op is missing: the name of an op".into())),
        };
        let row = row.map_err(|name| {
            let names: Vec<&str> = OPS.iter().map(|row| row.name).collect();
            let mut failed = bad(id.clone(), None, Cause::UnknownOp, format!("no op {}", brief(&name)));
            let near = text::nearest(&brief(&name), names.iter().copied(), 3);
            let listed = if near.is_empty() { names } else { near };
            failed.detail = Some(format!("{} ops: {}", Code::InvalidOp.cure(), listed.join(", ")));
            failed
        })?;
        let key = object.remove("idempotency_key");
        let wrong = |cause, reason| bad(id.clone(), Some(row.name), cause, reason);
        let mut fields = Map::new();
        for field in row.fields {
            match object.remove(field.name) {
                Some(value) => {
                    let value = field.kind.read(value).map_err(|expected| {
                        wrong(Cause::BadField, format!("{} must be {expected}", field.name))
                    })?;
                    fields.insert(field.to.to_owned(), value);
                }
                None if field.need == Need::Yes => {
                    return Err(wrong(Cause::MissingField, format!("{} is missing", field.name)));
                }
                None => {}
            }
        }
        let is_there = |name: &&&str| {
            let to = row.fields.iter().find(|field| field.name == **name).map(|field| field.to);
            to.is_some_and(|to| fields.contains_key(to)) || object.contains_key(**name)
        };
        for group in row.one_of {
            match group.iter().filter(is_there).count() {
                0 => {
                    let reason = format!("{} is missing", group.join(" or "));
                    return Err(wrong(Cause::MissingField, reason));
                }
                1 => {}
                _ => {
                    let reason = format!("only one of {} can be given", group.join(", "));
                    return Err(wrong(Cause::BadField, reason));
                }
            }
        }
        let names_user = ["target", "username"].iter().any(|name| fields.contains_key(*name));
        if row.name == "connect" && !names_user {
            return Err(wrong(Cause::MissingField, "user is missing".into()));
        }
        Ok(Self { id, row, fields, rest: object, key })
    }

    /// Everything for the tool.
    pub(super) fn into_arguments(self) -> Map<String, Value> {
        let Self { mut rest, fields, .. } = self;
        // A name of the row is the op's own; that of the tool beside it is the same.
        rest.extend(fields);
        rest
    }
}

impl Kind {
    /// The value as the tool takes it.
    fn read(self, value: Value) -> Result<Value, String> {
        let fits = match self {
            Self::Text => value.is_string(),
            Self::Flag => value.is_boolean(),
            Self::Count => value.is_u64(),
            Self::Quantity => value.is_u64() || value.is_string(),
            Self::Object => value.is_object(),
            Self::Options => value.is_object() || value.is_boolean(),
            Self::Words(words) => {
                let given = value.as_str().map(|word| word.to_ascii_lowercase().replace('-', "_"));
                let known = words.iter().find(|word| given.as_deref() == Some(**word));
                return known
                    .map(|word| Value::from(*word))
                    .ok_or_else(|| format!("one of {}", words.join(", ")));
            }
        };
        if fits { Ok(value) } else { Err(self.expected().to_owned()) }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Text | Self::Words(_) => "a text",
            Self::Flag => "true or false",
            Self::Count => "an integer from 0",
            Self::Quantity => "an integer from 0 or a text",
            Self::Object => "an object",
            Self::Options => "true or an object of options",
        }
    }

    fn schema(self) -> Value {
        match self {
            Self::Text => json!({ "type": "string" }),
            Self::Flag => json!({ "type": "boolean" }),
            Self::Count => json!({ "type": "integer", "minimum": 0 }),
            Self::Quantity => json!({ "type": ["integer", "string"] }),
            Self::Words(words) => json!({ "type": "string", "enum": words }),
            Self::Object => json!({ "type": "object" }),
            Self::Options => json!({ "type": ["boolean", "object"] }),
        }
    }
}

/// The schema of a line of input.
pub(super) fn schema() -> Value {
    let op = |row: &Row| {
        let mut properties = Map::new();
        properties.insert("op".into(), json!({ "const": row.name }));
        properties.insert("id".into(), json!({ "$ref": "#/$defs/OpId" }));
        properties.insert("idempotency_key".into(), json!({ "type": "string" }));
        properties.extend(row.fields.iter().map(|field| (field.name.to_owned(), field.kind.schema())));
        let needed = row.fields.iter().filter(|field| field.need == Need::Yes).map(|field| field.name);
        let required: Vec<&str> = ["op"].into_iter().chain(needed).collect();
        json!({ "type": "object", "properties": properties, "required": required })
    };
    json!({ "oneOf": OPS.iter().map(op).collect::<Vec<_>>() })
}

/// What can be wrong with the form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Utf8,
    Json,
    UnknownOp,
    MissingField,
    BadField,
}

impl Cause {
    fn as_str(self) -> &'static str {
        match self {
            Self::Utf8 => "INVALID_UTF8",
            Self::Json => "INVALID_JSON",
            Self::UnknownOp => "UNKNOWN_OP",
            Self::MissingField => "MISSING_FIELD",
            Self::BadField => "BAD_FIELD",
        }
    }
}

fn bad(id: Option<OpId>, op: Option<&str>, cause: Cause, reason: String) -> Box<Failed> {
    let mut failed = Failed::of(Code::InvalidOp, reason);
    failed.id = id;
    failed.op = op.map(str::to_owned);
    failed.cause = Some(cause.as_str().to_owned());
    Box::new(failed)
}

impl Failed {
    /// A failure that no tool told.
    pub(super) fn of(code: Code, reason: impl Into<String>) -> Self {
        let word =
            |value: Result<Value, _>| value.ok().and_then(|word: Value| word.as_str().map(str::to_owned));
        Self {
            code: code.as_str().to_owned(),
            reason: reason.into(),
            detail: Some(code.cure().to_owned()),
            category: word(serde_json::to_value(code.category())),
            retry: word(serde_json::to_value(code.retry())),
            ..Self::default()
        }
    }
}

fn id(value: Value) -> Result<OpId, String> {
    match value {
        Value::String(text) if (1..=256).contains(&text.len()) => Ok(OpId::Text(text)),
        Value::Number(number) if number.is_i64() || number.is_u64() => Ok(OpId::Number(number)),
        Value::String(_)
        | Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::Array(_)
        | Value::Object(_) => Err("id must be a text of 1 to 256 bytes or an integer".to_owned()),
    }
}

/// A name as an error shows it.
fn brief(name: &str) -> String {
    text::cut(&text::one_line(name), 80).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Cause and reason of a line that is refused.
    fn refused(line: &[u8]) -> (String, String, Option<OpId>) {
        let failed = Op::parse(line).expect_err("the line is refused");
        assert_eq!(failed.code, "INVALID_OP");
        (failed.cause.clone().unwrap_or_default(), failed.reason.clone(), failed.id.clone())
    }

    #[test]
    fn lines_that_are_refused_say_why() {
        for (line, cause, reason) in [
            (&b"\xff"[..], "INVALID_UTF8", "the line is not UTF-8"),
            (b"[]", "INVALID_JSON", "the line is no JSON object"),
            (b"{", "INVALID_JSON", "the line is no JSON object"),
            (b"{}", "UNKNOWN_OP", "op is missing: the name of an op"),
            (br#"{"op":1}"#, "UNKNOWN_OP", "op must be a text"),
            (br#"{"op":"Exec"}"#, "UNKNOWN_OP", "no op Exec"),
            (br#"{"op":"exec","sid":"s"}"#, "MISSING_FIELD", "cmd is missing"),
            (br#"{"op":"exec","sid":null,"cmd":"x"}"#, "MISSING_FIELD", "sid is missing"),
            (br#"{"op":"exec","sid":1,"cmd":"x"}"#, "BAD_FIELD", "sid must be a text"),
            (br#"{"op":"stats","id":""}"#, "BAD_FIELD", "id must be a text of 1 to 256 bytes or an integer"),
            (br#"{"op":"stats","id":1.5}"#, "BAD_FIELD", "id must be a text of 1 to 256 bytes or an integer"),
            (br#"{"op":"read","uri":"u","cursor":1.5}"#, "BAD_FIELD", "cursor must be an integer from 0"),
            (br#"{"op":"cancel"}"#, "MISSING_FIELD", "cid or tid or rid is missing"),
            (
                br#"{"op":"cancel","cid":"a","tid":"b"}"#,
                "BAD_FIELD",
                "only one of cid, tid, rid can be given",
            ),
            (br#"{"op":"connect","host":"h"}"#, "MISSING_FIELD", "user is missing"),
            (br#"{"op":"connect","user":"u"}"#, "MISSING_FIELD", "host or target is missing"),
            (br#"{"op":"shutdown","mode":"soon"}"#, "BAD_FIELD", "mode must be one of drain, wait, now"),
        ] {
            let (told, why, _) = refused(line);
            assert_eq!((told.as_str(), why.as_str()), (cause, reason), "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn the_id_is_told_where_it_can_be_read() {
        assert_eq!(refused(br#"{"op":"nope","id":"x"}"#).2, Some(OpId::Text("x".into())));
        assert_eq!(refused(br#"{"op":"exec","id":7}"#).2, Some(OpId::Number(7.into())));
        let detail = Op::parse(br#"{"op":"exce"}"#).expect_err("refused").detail.clone().unwrap();
        assert!(detail.contains("exec"), "{detail}");
    }

    #[test]
    fn an_op_speaks_to_its_tool_in_the_tools_words() {
        let line = br#"{"op":"connect","id":"c","host":"h","user":"u","key":"/k","reuse_policy":"FORCE-NEW",
            "timeout_secs":5,"port":null,"user":"last","idempotency_key":"k"}"#;
        let op = Op::parse(line).unwrap();
        assert_eq!((op.id.clone(), op.key.clone()), (Some(OpId::Text("c".into())), Some(json!("k"))));
        let expected = json!({ "address": "h", "username": "last", "key_path": "/k", "reuse": "force_new",
            "timeout_secs": 5 });
        assert_eq!(Value::Object(op.into_arguments()), expected);
    }

    proptest! {
        #[test]
        fn no_line_ends_the_reading(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Err(failed) = Op::parse(&line) {
                prop_assert_eq!(&failed.code, "INVALID_OP");
                prop_assert!(failed.cause.is_some());
            }
        }

        #[test]
        fn an_id_comes_back_as_it_was(id in "[a-z@\"\\\\ä ]{1,40}", number in any::<i64>()) {
            for id in [json!(id), json!(number)] {
                let line = json!({ "op": "stats", "id": id }).to_string();
                let op = Op::parse(line.as_bytes()).expect("an op");
                prop_assert_eq!(serde_json::to_value(op.id).expect("an id"), id);
            }
        }
    }
}
