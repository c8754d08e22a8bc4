//! The two forms of a log line.
//!
//! *Invariant:* one event is one line, whatever characters its values have.

use std::fmt::{self, Write};

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tracing::Level;
use tracing::field::{Field, Visit};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Coloured,
    Json,
}

/// Values of an event or a span, in the order they were recorded; a later value of the same name replaces the first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Fields {
    message: String,
    values: Vec<(&'static str, Value)>,
}

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        if field.name() == "message" {
            self.message = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        } else {
            put(&mut self.values, field.name(), value);
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }
    fn record_error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        self.set(field, text.into());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }
}

/// The spans around an event: the name of the innermost one and the values of all.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Scope {
    name: &'static str,
    values: Vec<(&'static str, Value)>,
}

impl Scope {
    /// Goes one span further in.
    pub(super) fn enter(&mut self, name: &'static str, fields: Option<&Fields>) {
        self.name = name;
        for (field, value) in fields.into_iter().flat_map(|fields| &fields.values) {
            put(&mut self.values, field, value.clone());
        }
    }
}

/// An event without its time: what makes two of them the same.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Body {
    level: Level,
    target: String,
    fields: Fields,
    scope: Scope,
}

impl Body {
    pub(super) fn new(level: Level, target: &str, fields: Fields, scope: Scope) -> Self {
        Self { level, target: target.to_owned(), fields, scope }
    }

    /// Writes the line with its end; `repeated` says how many like it were not written.
    pub(super) fn to_line(&self, style: Style, now: OffsetDateTime, repeated: Option<u32>) -> String {
        let time = now.format(TIME).unwrap_or_default();
        let mut line = match style {
            Style::Json => self.to_json(&time, repeated),
            Style::Plain => self.to_text(&time, repeated, ["", "", ""]),
            Style::Coloured => self.to_text(&time, repeated, [colour_of(self.level), DIM, RESET]),
        };
        line.push('\n');
        line
    }

    fn to_json(&self, time: &str, repeated: Option<u32>) -> String {
        let mut line = String::with_capacity(160);
        let mut open = '{';
        let mut pair = |line: &mut String, name: &str, value: &Value| {
            let _ = write!(line, "{open}{}:{value}", Value::from(name));
            open = ',';
        };
        pair(&mut line, "ts", &time.into());
        pair(&mut line, "level", &self.level.as_str().into());
        pair(&mut line, "target", &self.target.as_str().into());
        pair(&mut line, "msg", &self.fields.message.as_str().into());
        for (name, value) in &self.fields.values {
            match *name {
                "ts" | "level" | "target" | "msg" | "span" | "repeated" => {
                    pair(&mut line, &format!("{name}_"), value)
                }
                name => pair(&mut line, name, value),
            }
        }
        if let Some(repeated) = repeated {
            pair(&mut line, "repeated", &repeated.into());
        }
        if !self.scope.name.is_empty() {
            let name = ("name".to_owned(), self.scope.name.into());
            let values = self.scope.values.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
            pair(&mut line, "span", &Value::Object(std::iter::once(name).chain(values).collect()));
        }
        line.push('}');
        line
    }

    fn to_text(&self, time: &str, repeated: Option<u32>, [colour, dim, reset]: [&str; 3]) -> String {
        let mut line = String::with_capacity(160);
        let _ =
            write!(line, "{dim}{time}{reset} {colour}{:5}{reset} {dim}{}{reset} ", self.level, self.target);
        push_visible(&mut line, &self.fields.message);
        let outer = self
            .scope
            .values
            .iter()
            .filter(|(name, _)| !self.fields.values.iter().any(|(own, _)| own == name));
        for (name, value) in self.fields.values.iter().chain(outer) {
            let _ = write!(line, " {dim}{name}={reset}");
            push_value(&mut line, value);
        }
        if let Some(repeated) = repeated {
            let _ = write!(line, " {dim}repeated={reset}{repeated}");
        }
        line
    }
}

fn put(values: &mut Vec<(&'static str, Value)>, name: &'static str, value: Value) {
    match values.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = value,
        None => values.push((name, value)),
    }
}

/// A value that would be taken for several, or for nothing, stands in quotes.
fn push_value(line: &mut String, value: &Value) {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '\\' | '=');
    match value.as_str() {
        Some(text) if !text.is_empty() && text.chars().all(plain) => line.push_str(text),
        Some(text) => {
            line.push('"');
            push_visible(line, &text.replace('\\', "\\\\").replace('"', "\\\""));
            line.push('"');
        }
        None => {
            let _ = write!(line, "{value}");
        }
    }
}

/// A message keeps its spaces and quotes but cannot start a new line or steer a terminal.
fn push_visible(line: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
}

fn colour_of(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
