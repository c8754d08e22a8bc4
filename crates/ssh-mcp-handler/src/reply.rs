//! A tool's success: one value, shown as a text block and as structured content (`docs/tools.md`, "Answers").
//!
//! A tool makes an [`Answer`] around its [`Body`]. The body says what stands in the text through [`Text`]; header, advisory
//! lines and the fields that every answer has are added here. Errors are in [`crate::failure`].

mod shown;

use std::fmt::{Display, Write as _};

use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use ssh_mcp_core::{code::Warning, lane::millis, text};
use ssh_mcp_engine::Unobserved;

use crate::schema;

pub(crate) use shown::{Completeness, Shown};

/// What one tool answers: its structured fields, and how they read as text.
///
/// Absent optionals are left out of both forms: `#[serde(skip_serializing_if = "Option::is_none")]`.
pub(crate) trait Body: Serialize + JsonSchema + Send {
    /// The words `status` can have, in lower case.
    const STATUSES: &'static [&'static str];

    /// Writes the keys, lines and output blocks.
    fn write(&self, text: &mut Text);
}

/// A success with its advice.
#[derive(Debug)]
pub(crate) struct Answer<B> {
    /// One of the body's statuses, in lower case.
    pub(crate) status: &'static str,
    /// The facts.
    pub(crate) body: B,
    /// What went differently than asked.
    pub(crate) warnings: Vec<Warned>,
    /// Advice, one line each.
    pub(crate) hints: Vec<String>,
    /// Calls that make sense now, best first; from [`crate::next`].
    pub(crate) next: Vec<String>,
}

/// A warning on a success.
#[derive(Debug, Clone)]
pub(crate) struct Warned {
    /// Which one.
    pub(crate) code: Warning,
    /// URI of what it is about.
    pub(crate) resource: Option<String>,
    /// The argument it is about.
    pub(crate) field: Option<String>,
    /// One line.
    pub(crate) msg: String,
    /// Structured facts besides.
    pub(crate) facts: JsonObject,
}

impl<B: Body> Answer<B> {
    /// A success without advice.
    pub(crate) fn new(status: &'static str, body: B) -> Self {
        Self { status, body, warnings: Vec::new(), hints: Vec::new(), next: Vec::new() }
    }

    /// With calls that make sense now.
    pub(crate) fn with_next(mut self, next: Vec<String>) -> Self {
        self.next = next;
        self
    }

    /// With a line of advice, if there is one.
    pub(crate) fn with_hint(mut self, hint: Option<String>) -> Self {
        self.hints.extend(hint);
        self
    }

    /// With warnings.
    pub(crate) fn with_warnings(mut self, warnings: impl IntoIterator<Item = Warned>) -> Self {
        self.warnings.extend(warnings);
        self
    }

    /// Both forms, without the name of the tool.
    pub(crate) fn into_reply(self, nonce: Nonce, unknown_fields: Vec<Warned>) -> Reply {
        let Self { status, body, warnings, hints, next } = self;
        let mut text = Text { nonce, out: String::new() };
        body.write(&mut text);
        let facts = match serde_json::to_value(&body) {
            Ok(Value::Object(facts)) => facts,
            // A body is a struct with text keys; nothing else is written by the derive.
            Ok(_) | Err(_) => JsonObject::new(),
        };
        let warnings = unknown_fields.into_iter().chain(warnings).collect();
        Reply { status, text: text.out, facts, warnings, hints, next }
    }
}

impl Warned {
    /// A warning about the call as a whole.
    pub(crate) fn new(code: Warning, msg: impl Into<String>) -> Self {
        Self { code, resource: None, field: None, msg: msg.into(), facts: JsonObject::new() }
    }

    /// About a resource.
    pub(crate) fn with_resource(mut self, uri: impl Display) -> Self {
        self.resource = Some(uri.to_string());
        self
    }

    /// About an argument.
    pub(crate) fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// About a resource nobody observes.
    pub(crate) fn leak(leak: Unobserved) -> Self {
        let (kind, age_ms) = (leak.resource.scheme.as_str(), millis(leak.age));
        let mut warned = Self::new(Warning::SubLeakRisk, format!("age_ms={age_ms} severity=warn"));
        warned.facts.insert("kind".into(), kind.into());
        warned.facts.insert("age_ms".into(), age_ms.into());
        warned.facts.insert("severity".into(), "warn".into());
        warned.with_resource(leak.resource)
    }

    /// The structured form.
    pub(crate) fn to_value(&self) -> Value {
        let mut value = json!({
            "code": self.code.as_str(), "category": "POLICY", "retry": self.code.retry(), "msg": self.msg,
        });
        if let Some(object) = value.as_object_mut() {
            object.extend(self.resource.clone().map(|uri| ("resource".to_owned(), uri.into())));
            object.extend(self.field.clone().map(|field| ("field".to_owned(), field.into())));
            object.extend(self.facts.clone());
        }
        value
    }

    /// The line in the text block.
    pub(crate) fn to_line(&self) -> String {
        let msg = text::one_line(&self.msg);
        match &self.resource {
            Some(uri) => format!("WARN: {} {uri} {msg}\n", self.code.as_str()),
            None => format!("WARN: {} {msg}\n", self.code.as_str()),
        }
    }
}

/// A success in both forms; what is left is the tool's name.
pub(crate) struct Reply {
    status: &'static str,
    text: String,
    facts: JsonObject,
    warnings: Vec<Warned>,
    hints: Vec<String>,
    next: Vec<String>,
}

/// Whether answers have a structured form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Text alone; the tools publish no output schema.
    Text,
    /// Both.
    Both,
}

impl Reply {
    /// The facts, for the audit line.
    pub(crate) fn facts(&self) -> &JsonObject {
        &self.facts
    }

    /// The status, in lower case.
    pub(crate) fn status(&self) -> &'static str {
        self.status
    }

    /// The answer as MCP carries it.
    pub(crate) fn into_result(self, tool: &'static str, form: Form) -> CallToolResult {
        let Self { status, text, mut facts, warnings, hints, next } = self;
        let mut block = format!("{}: {}\n{text}", tool.to_ascii_uppercase(), status.to_ascii_uppercase());
        warnings.iter().for_each(|warning| block.push_str(&warning.to_line()));
        for hint in &hints {
            _ = writeln!(block, "HINT: {}", text::one_line(hint));
        }
        if !next.is_empty() {
            _ = writeln!(block, "NEXT: {}", next.join(" | "));
        }
        block.truncate(block.trim_end_matches('\n').len());

        facts.insert("tool".into(), tool.into());
        facts.insert("status".into(), status.into());
        if !warnings.is_empty() {
            facts.insert("warnings".into(), warnings.iter().map(Warned::to_value).collect());
        }
        if !hints.is_empty() {
            facts.insert("hint".into(), hints.join("\n").into());
        }
        if !next.is_empty() {
            facts.insert("next".into(), next.into());
        }
        let mut result = CallToolResult::success(vec![ContentBlock::text(block)]);
        result.structured_content = (form == Form::Both).then_some(Value::Object(facts));
        result
    }
}

/// The schema of a tool's success, with the fields every answer has.
pub(crate) fn output_schema<B: Body>(tool: &str) -> JsonObject {
    with_common_fields(schema::of_output::<B>(), tool, B::STATUSES)
}

/// Not generic: compiled once, not once for each tool.
fn with_common_fields(mut schema: JsonObject, tool: &str, statuses: &[&str]) -> JsonObject {
    let common = [
        ("tool", json!({ "type": "string", "const": tool })),
        ("status", json!({ "type": "string", "enum": statuses })),
        ("hint", json!({ "type": "string" })),
        ("next", json!({ "type": "array", "items": { "type": "string" } })),
        (
            "warnings",
            json!({ "type": "array", "items": { "type": "object", "required": ["code", "msg"], "properties": {
                "code": { "type": "string" }, "category": { "type": "string" }, "retry": { "type": "string" },
                "msg": { "type": "string" }, "resource": { "type": "string" }, "field": { "type": "string" },
                "kind": { "type": "string" }, "age_ms": { "type": "integer" }, "severity": { "type": "string" },
            } } }),
        ),
    ];
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.extend(common.map(|(name, value)| (name.to_owned(), value)));
    }
    let required = schema.entry("required").or_insert_with(|| json!([]));
    if let Value::Array(names) = required {
        names.splice(0..0, ["tool".into(), "status".into()]);
    }
    schema
}

/// The schema a tool publishes: its success, or an error in place of it.
///
/// Errors must be in it because there are clients that hold them to it too, whatever `isError` says (the 1.x line of the
/// TypeScript SDK), and would show a schema that does not fit instead of what went wrong.
pub(crate) fn or_error(success: JsonObject) -> JsonObject {
    let text = || json!({ "type": "string" });
    let error = json!({
        "type": "object",
        "properties": {
            "tool": text(), "status": { "type": "string", "const": "error" }, "code": text(), "reason": text(),
            "detail": text(), "category": text(), "retry": text(), "effect": text(),
        },
        "required": ["tool", "status", "code", "reason", "category", "retry"],
    });
    let mut schema = JsonObject::new();
    schema.insert("type".into(), "object".into());
    schema.insert("anyOf".into(), json!([success, error]));
    schema
}

/// Eight hexadecimal digits that remote output cannot know, one per answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nonce(u32);

impl Nonce {
    /// A fresh one.
    pub(crate) fn fresh() -> Self {
        let mut bytes = [0; 4];
        match getrandom::fill(&mut bytes) {
            Ok(()) => Self(u32::from_ne_bytes(bytes)),
            // Without random bytes a per-process hash seed is what is left; a delimiter needs no more.
            Err(_) => {
                let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8);
                Self((seed >> 32) as u32)
            }
        }
    }

    /// A known one, for tests.
    #[cfg(test)]
    pub(crate) fn known(value: u32) -> Self {
        Self(value)
    }
}

impl Display for Nonce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The text block of one answer, between its header and its advisory lines.
pub(crate) struct Text {
    nonce: Nonce,
    out: String,
}

impl Text {
    /// A block for a resource body, which has no header.
    pub(crate) fn bare(nonce: Nonce) -> Self {
        Self { nonce, out: String::new() }
    }

    /// What was written.
    pub(crate) fn into_string(self) -> String {
        self.out
    }

    /// `KEY: value` on one line.
    pub(crate) fn key(&mut self, key: &str, value: impl Display) {
        _ = writeln!(self.out, "{key}: {}", text::one_line(&value.to_string()));
    }

    /// The same, if there is a value.
    pub(crate) fn maybe(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.key(key, value);
        }
    }

    /// How many items follow, of how many there are.
    pub(crate) fn count(&mut self, shown: usize, total: usize) {
        _ = match shown < total {
            true => writeln!(self.out, "COUNT: {shown} (showing {shown} of {total})"),
            false => writeln!(self.out, "COUNT: {shown}"),
        };
    }

    /// One item of a list.
    pub(crate) fn item(&mut self, line: impl Display) {
        _ = writeln!(self.out, "- {}", text::one_line(&line.to_string()));
    }

    /// An output block. It has no closing line: it runs to the next line with the same nonce, or to the advice.
    pub(crate) fn block(&mut self, name: &str, shown: &Shown) {
        let annotations = shown.annotations();
        let annotations = if annotations.is_empty() { annotations } else { format!(" ({annotations})") };
        _ = writeln!(self.out, "--- {name} [{}]{annotations} ---", self.nonce);
        if !shown.text.is_empty() {
            _ = writeln!(self.out, "{}", shown.text.strip_suffix('\n').unwrap_or(&shown.text));
        }
    }
}

#[cfg(test)]
mod tests;
