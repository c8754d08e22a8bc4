//! Resource URIs: the schemes as one table, and the parser and printer for them (`docs/resources.md`).
//!
//! A kind that a build leaves out (`forward` without `port_forward`) has no row in the table; its name is known all the same,
//! so that it is not mistaken for a slip of the pen.

use std::fmt;

use serde::Serialize;
use uuid::Uuid;

use crate::id::{CommandId, ForwardId, Id, RsyncId, SerialId, SessionId, ShellId, SubId, TransferId};

/// The kinds of resources, one URI scheme each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// `session://<SESSION_ID>/health`
    Session,
    /// `shell://<SHELL_ID>/output`
    Shell,
    /// `command://<COMMAND_ID>/output`
    Command,
    /// `transfer://<TRANSFER_ID>/progress`
    Transfer,
    /// `rsync://<RSYNC_ID>/progress`
    Rsync,
    /// `forward://<FORWARD_ID>/events`
    Forward,
    /// `serial://<SERIAL_ID>/output`
    Serial,
}

/// What a body is: bytes, a list of events, or one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Bytes with absolute offsets.
    Stream,
    /// Events with numbers from 0.
    Log,
    /// One JSON snapshot.
    State,
}

/// Everything the product knows about a scheme by itself.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The kind.
    pub scheme: Scheme,
    /// Scheme name, also the `kind` word on the wire.
    pub name: &'static str,
    /// Last part of the URI.
    pub channel: &'static str,
    /// What the body is.
    pub class: Class,
    /// Media type of the body.
    pub mime: &'static str,
    /// RFC 6570 template.
    pub template: &'static str,
    /// Name and title of the template.
    pub title: &'static str,
    /// What a model that has read nothing else needs to know.
    pub description: &'static str,
}

/// The table, in the order of `resources/templates/list`.
pub const TABLE: &[Row] = &[
    SHELL,
    COMMAND,
    TRANSFER,
    SESSION,
    #[cfg(feature = "port_forward")]
    FORWARD,
    SERIAL,
    RSYNC,
];

const SHELL: Row = Row {
    scheme: Scheme::Shell,
    name: "shell",
    channel: "output",
    class: Class::Stream,
    mime: "text/plain",
    template: "shell://{shell_id}/output{?cursor}",
    title: "Shell PTY output stream",
    description: "Raw terminal output of an interactive shell, oldest bytes first. cursor=auto returns what this \
                      client has not read yet; a number starts at that byte offset; without it everything held is \
                      returned. The next offset is in _meta.cursor.",
};

const COMMAND: Row = Row {
    scheme: Scheme::Command,
    name: "command",
    channel: "output",
    class: Class::Stream,
    mime: "text/plain",
    template: "command://{command_id}/output{?cursor}",
    title: "Async command output stream",
    description: "Standard output and standard error of a command in two marked blocks. cursor=auto returns what \
                      this client has not read yet; a number starts at that byte offset of both streams merged. \
                      _meta carries status, exit_code and the next cursor.",
};

const TRANSFER: Row = Row {
    scheme: Scheme::Transfer,
    name: "transfer",
    channel: "progress",
    class: Class::State,
    mime: "application/json",
    template: "transfer://{transfer_id}/progress",
    title: "SFTP transfer progress snapshot",
    description: "One JSON object: paths, direction, status, bytes moved and in all, rate, remaining seconds, and \
                      why it failed if it did. It has no cursor.",
};

const SESSION: Row = Row {
    scheme: Scheme::Session,
    name: "session",
    channel: "health",
    class: Class::State,
    mime: "application/json",
    template: "session://{session_id}/health",
    title: "SSH session health snapshot",
    description: "One JSON object: host, user, whether the connection answers, last round trip, when the session \
                      expires, and how many resources it holds. It has no cursor.",
};

const FORWARD: Row = Row {
    scheme: Scheme::Forward,
    name: "forward",
    channel: "events",
    class: Class::Log,
    mime: "application/json",
    template: "forward://{forward_id}/events{?cursor}",
    title: "Port-forward event log",
    description: "One JSON object: where a forward listens and leads, its counters of connections and bytes, and its events \
                      from the cursor on: connections that came, were joined to their target, ended or failed and why. \
                      cursor=auto gives what this client has not read yet; a number starts at that event.",
};

const SERIAL: Row = Row {
    scheme: Scheme::Serial,
    name: "serial",
    channel: "output",
    class: Class::Stream,
    mime: "text/plain",
    template: "serial://{serial_id}/output{?cursor}",
    title: "Serial port output stream",
    description: "What a serial port of the server's own machine received, oldest bytes first. cursor=auto returns what \
                      this client has not read yet; a number starts at that byte offset; encoding=base64 gives the exact \
                      bytes. The next offset is in _meta.cursor.",
};

const RSYNC: Row = Row {
    scheme: Scheme::Rsync,
    name: "rsync",
    channel: "progress",
    class: Class::Log,
    mime: "application/json",
    template: "rsync://{rsync_id}/progress{?cursor}",
    title: "Rsync progress event log",
    description: "One JSON object: paths, status and counters of a sync, and its events from the cursor on. cursor=auto \
                      gives what this client has not read yet; a number starts at that event. The last event says how \
                      it ended and stays readable.",
};

impl Scheme {
    /// The scheme's row.
    pub fn row(self) -> &'static Row {
        match self {
            Self::Shell => &SHELL,
            Self::Command => &COMMAND,
            Self::Transfer => &TRANSFER,
            Self::Session => &SESSION,
            Self::Rsync => &RSYNC,
            Self::Forward => &FORWARD,
            Self::Serial => &SERIAL,
        }
    }

    /// The scheme as a word.
    pub fn as_str(self) -> &'static str {
        self.row().name
    }
}

/// A resource, by kind and identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// The kind.
    pub scheme: Scheme,
    /// The identifier.
    pub id: Uuid,
}

impl From<SessionId> for Resource {
    fn from(id: SessionId) -> Self {
        Self { scheme: Scheme::Session, id: id.as_uuid() }
    }
}

impl From<CommandId> for Resource {
    fn from(id: CommandId) -> Self {
        Self { scheme: Scheme::Command, id: id.as_uuid() }
    }
}

impl From<ShellId> for Resource {
    fn from(id: ShellId) -> Self {
        Self { scheme: Scheme::Shell, id: id.as_uuid() }
    }
}

impl From<TransferId> for Resource {
    fn from(id: TransferId) -> Self {
        Self { scheme: Scheme::Transfer, id: id.as_uuid() }
    }
}

impl From<RsyncId> for Resource {
    fn from(id: RsyncId) -> Self {
        Self { scheme: Scheme::Rsync, id: id.as_uuid() }
    }
}

impl From<ForwardId> for Resource {
    fn from(id: ForwardId) -> Self {
        Self { scheme: Scheme::Forward, id: id.as_uuid() }
    }
}

impl From<SerialId> for Resource {
    fn from(id: SerialId) -> Self {
        Self { scheme: Scheme::Serial, id: id.as_uuid() }
    }
}

/// The canonical URI: lower case, no query.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.scheme.row();
        write!(f, "{}://{}/{}", row.name, self.id.as_hyphenated(), row.channel)
    }
}

/// A parsed URI: what is read, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri {
    /// The kind.
    pub scheme: Scheme,
    /// The identifier as written, lower-cased; any well-formed text, so that "unknown" differs from "malformed".
    pub id: String,
    /// The query.
    pub query: Query,
}

impl Uri {
    /// The resource, if the identifier is one this product could have made.
    pub fn resource(&self) -> Option<Resource> {
        (self.id.len() == 36)
            .then(|| Uuid::try_parse(&self.id).ok())
            .flatten()
            .map(|id| Resource { scheme: self.scheme, id })
    }
}

/// The query of a read, defaults filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Query {
    /// Where to start.
    pub cursor: CursorAt,
    /// Upper bound of the answer, below the server's own.
    pub max_bytes: Option<usize>,
    /// How bytes are shown.
    pub encoding: Encoding,
    /// Whether escape sequences stay in the text.
    pub escapes: Escapes,
    /// Which part of a command's output.
    pub stream: Option<Stream>,
    /// The lane to read through.
    pub lane: Option<SubId>,
}

/// Where a read starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CursorAt {
    /// At the oldest byte or event held.
    #[default]
    Base,
    /// At an absolute position.
    At(u64),
    /// Where this peer stopped.
    Auto,
}

/// How the bytes of a stream are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// As text; what is not UTF-8 becomes U+FFFD.
    #[default]
    Text,
    /// As base64, exactly.
    Base64,
}

/// Whether terminal escape sequences stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Escapes {
    /// They stay.
    #[default]
    Keep,
    /// They are left out of the text.
    Strip,
}

/// A raw view of a command's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Both, in the order of arrival.
    Merged,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A URI that cannot be understood; `kind` is the word on the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is not usable: {value}")]
pub struct UriError {
    /// Which rule is broken.
    pub kind: UriFault,
    /// Which part of the URI.
    pub field: &'static str,
    /// What stands there.
    pub value: String,
    /// What should.
    pub expected: &'static str,
}

/// The rules a URI can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UriFault {
    /// No such scheme, or no URI at all.
    BadScheme,
    /// No identifier, or one with characters no identifier has.
    MissingId,
    /// The last part is not the one of the scheme.
    BadSubPath,
    /// `cursor` is neither `auto` nor a number.
    BadCursor,
    /// Another query value is unusable.
    BadQuery,
    /// This build leaves the scheme out.
    FeatureDisabled,
}

/// Reads a resource URI.
///
/// # Errors
/// The first rule that is broken, from left to right.
pub fn parse(text: &str) -> Result<Uri, UriError> {
    let (location, query) = text.split_once('?').map_or((text, ""), |(location, query)| (location, query));
    let bad_scheme =
        || fault(UriFault::BadScheme, "scheme", text, "one of the schemes of resources/templates/list");
    let (scheme, rest) = location.split_once("://").ok_or_else(bad_scheme)?;
    let row = TABLE.iter().find(|row| row.name.eq_ignore_ascii_case(scheme)).ok_or_else(|| match FORWARD
        .name
        .eq_ignore_ascii_case(scheme)
    {
        true => fault(
            UriFault::FeatureDisabled,
            "scheme",
            scheme,
            "one that this build serves: it has no forwards",
        ),
        false => bad_scheme(),
    })?;

    let (id, channel) = rest.split_once('/').map_or((rest, ""), |(id, channel)| (id, channel));
    let id_char = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
    if id.is_empty() || id.len() > 128 || !id.chars().all(id_char) {
        return Err(fault(UriFault::MissingId, "id", id, "1 to 128 letters, digits, '-', '_', '.' or '~'"));
    }
    if channel != row.channel {
        return Err(fault(UriFault::BadSubPath, "path", channel, row.channel));
    }
    Ok(Uri {
        scheme: row.scheme,
        id: id.to_ascii_lowercase(),
        query: parse_query(query, row.class, row.scheme)?,
    })
}

/// Reads a query; unknown keys and keys that do not apply to the class are ignored, the first of a repeated key counts.
fn parse_query(text: &str, class: Class, scheme: Scheme) -> Result<Query, UriError> {
    let mut query = Query::default();
    let mut seen: Vec<&str> = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        // Only keys of ours are remembered: a query of a million others must not cost a look at each for each.
        if !KEYS.contains(&key) || seen.contains(&key) {
            continue;
        }
        seen.push(key);
        let bad = |field, expected| Err(fault(UriFault::BadQuery, field, value, expected));
        match key {
            "cursor" if class != Class::State => {
                query.cursor = match value {
                    "auto" => CursorAt::Auto,
                    "0" => CursorAt::Base,
                    digits => match parse_u64(digits) {
                        Some(at) => CursorAt::At(at),
                        None => {
                            return Err(fault(
                                UriFault::BadCursor,
                                "cursor",
                                value,
                                "auto or a number from 0",
                            ));
                        }
                    },
                }
            }
            "max_bytes" if class != Class::State => match parse_u64(value).filter(|bytes| *bytes > 0) {
                Some(bytes) => query.max_bytes = Some(usize::try_from(bytes).unwrap_or(usize::MAX)),
                None => return bad("max_bytes", "a number from 1"),
            },
            "encoding" if class == Class::Stream => match value {
                "base64" => query.encoding = Encoding::Base64,
                _ => return bad("encoding", "base64"),
            },
            "strip_ansi" if class == Class::Stream => match value {
                "true" => query.escapes = Escapes::Strip,
                "false" => query.escapes = Escapes::Keep,
                _ => return bad("strip_ansi", "true"),
            },
            "stream" if scheme == Scheme::Command => {
                query.stream = Some(match value {
                    "merged" => Stream::Merged,
                    "stdout" => Stream::Stdout,
                    "stderr" => Stream::Stderr,
                    _ => return bad("stream", "merged, stdout or stderr"),
                })
            }
            "sub_id" if class != Class::State => match value.parse() {
                Ok(lane) => query.lane = Some(lane),
                Err(_) => return bad("sub_id", "the SUB_ID of one of your lanes"),
            },
            _ => {}
        }
    }
    Ok(query)
}

/// Every key a query may have in some class.
const KEYS: [&str; 6] = ["cursor", "max_bytes", "encoding", "strip_ansi", "stream", "sub_id"];

/// Decimal digits only: no sign, no white space.
fn parse_u64(digits: &str) -> Option<u64> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

fn fault(kind: UriFault, field: &'static str, value: &str, expected: &'static str) -> UriError {
    UriError { kind, field, value: value.chars().take(200).collect(), expected }
}

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests {
    use super::*;

    const ID: &str = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";

    fn refused(text: &str, kind: UriFault) {
        assert_eq!(parse(text).map_err(|error| error.kind), Err(kind), "{text}");
    }

    #[test]
    fn uris_that_are_refused() {
        for text in ["", "x", "ftp://s1/output", "modem://s1/output", "shell:/s1/output", "://s1/output"] {
            refused(text, UriFault::BadScheme);
        }
        for text in ["shell:///output", "shell://", "shell://a b/output", "shell://ä/output"] {
            refused(text, UriFault::MissingId);
        }
        refused(&format!("shell://{}/output", "a".repeat(129)), UriFault::MissingId);
        for text in
            ["shell://s1/progress", "shell://s1", "shell://s1/", "shell://s1/output/", "session://s1/output"]
        {
            refused(text, UriFault::BadSubPath);
        }
        for cursor in ["-1", "+1", "x", "", "18446744073709551616", " 1", "1.0"] {
            refused(&format!("shell://s1/output?cursor={cursor}"), UriFault::BadCursor);
        }
        for query in ["max_bytes=0", "encoding=hex", "strip_ansi=1", "sub_id=x", "stream=both"] {
            refused(&format!("command://s1/output?{query}"), UriFault::BadQuery);
        }
    }

    #[test]
    fn a_scheme_that_is_left_out_is_no_slip_of_the_pen() {
        let uri = format!("Forward://{ID}/events?cursor=3");
        match cfg!(feature = "port_forward") {
            true => assert_eq!(
                parse(&uri).unwrap().resource().unwrap().to_string(),
                format!("forward://{ID}/events")
            ),
            false => refused(&uri, UriFault::FeatureDisabled),
        }
    }

    #[test]
    fn scheme_and_identifier_ignore_letter_case() {
        let uri = parse(&format!("Shell://{}/output", ID.to_uppercase())).unwrap();
        assert_eq!(uri.resource().unwrap().to_string(), format!("shell://{ID}/output"));
    }

    #[test]
    fn a_well_formed_identifier_that_is_no_uuid_is_unknown_rather_than_malformed() {
        assert_eq!(parse("shell://fwd-1/output").unwrap().resource(), None);
    }

    #[test]
    fn queries_in_any_order_first_of_a_repeated_key_unknown_ones_ignored() {
        let uri = parse(&format!("command://{ID}/output?x=1&max_bytes=9&cursor=7&cursor=auto&stream=stderr"))
            .unwrap();
        let expected = Query {
            cursor: CursorAt::At(7),
            max_bytes: Some(9),
            stream: Some(Stream::Stderr),
            ..Query::default()
        };
        assert_eq!(uri.query, expected);
    }

    #[test]
    fn a_million_unknown_keys_are_passed_over() {
        let keys: String = (0..1_000_000).map(|n| format!("&{n:x}")).collect();
        assert_eq!(parse(&format!("shell://{ID}/output?{keys}")).unwrap().query, Query::default());
    }

    #[test]
    fn a_state_resource_has_no_cursor_to_get_wrong() {
        assert_eq!(parse(&format!("session://{ID}/health?cursor=nonsense")).unwrap().query, Query::default());
    }

    #[test]
    fn every_row_stands_where_its_scheme_says() {
        for row in TABLE {
            assert_eq!(row.scheme.as_str(), row.name);
            assert!(row.template.starts_with(&format!("{}://{{", row.name)), "{}", row.template);
        }
    }
}
