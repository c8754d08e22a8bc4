//! What a row of the table says: an old tool's arguments and fields over those of the new tools it is made of.

use std::time::Duration;

use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use serde_json::{Value, json};
use ssh_mcp_core::{port::BoxFuture, settings::Settings};

use super::{Calls, in_order, to_object};
use crate::{failure::Failure, reply::Form, schema};

/// An old tool.
pub(crate) struct Tool {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its name for people.
    pub(crate) title: &'static str,
    /// What it does.
    pub(crate) description: &'static str,
    /// The new tools it is made of, the one that does its work first: what it does to the world and its idempotency key
    /// are those of that one.
    pub(crate) calls: &'static [&'static str],
    /// Its arguments, which go to the first of them where they do not say otherwise.
    pub(super) arguments: &'static [Argument],
    /// Further arguments of the first.
    pub(super) fixed: &'static [(&'static str, Fixed)],
    /// Makes the calls.
    pub(super) course: for<'a> fn(&'a mut Calls<'_>) -> BoxFuture<'a, Result<Told, Failure>>,
    /// Its fields, in order.
    pub(super) fields: &'static [&'static [Field]],
    /// What its text is.
    pub(super) text: Text,
    /// How its system words an outcome.
    pub(super) manner: Manner,
}

/// How a system words what became of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// 001 and 002: an error has `error`; unknown arguments are ignored.
    First,
    /// 003: `ok` says it, an error has `error_type` and `message`; unknown arguments are refused.
    Third,
}

/// What the text of an answer is.
#[derive(Clone, Copy)]
pub(super) enum Text {
    /// The whole object.
    Object,
    /// One field alone, a text as it is.
    Field(&'static str),
}

/// An argument of an old tool.
pub(super) struct Argument {
    pub(super) name: &'static str,
    /// Its name in the new call; `None` where only the course of the calls looks at it.
    pub(super) to: Option<&'static str>,
    /// The new tool it goes to, if that is not the first.
    pub(super) of: Option<&'static str>,
    pub(super) is_required: bool,
    pub(super) form: Shape,
    /// In place of what is said of the new argument.
    pub(super) says: Option<&'static str>,
}

/// What an argument looks like.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// As the new one does.
    Same,
    /// Seconds, which may have a fraction.
    Seconds(Option<f64>),
    /// A number above 0.
    Count(u64),
    /// A text that is not empty.
    Text,
    /// Such texts, one or more.
    Texts,
    /// Such texts, or none.
    AnyTexts,
    /// A flag.
    Flag(bool),
    /// One of some words.
    Words(&'static [&'static str]),
}

/// A value the table gives.
#[derive(Clone, Copy)]
pub(super) enum Fixed {
    Flag(bool),
    Count(u64),
    Word(&'static str),
}

/// So much that the operator's bounds decide.
pub(super) const ALL: Fixed = Fixed::Count(u32::MAX as u64);

pub(super) const fn required(name: &'static str) -> Argument {
    Argument { name, to: Some(name), of: None, is_required: true, form: Shape::Same, says: None }
}

pub(super) const fn optional(name: &'static str) -> Argument {
    Argument { name, to: Some(name), of: None, is_required: false, form: Shape::Same, says: None }
}

impl Argument {
    pub(super) const fn to(mut self, name: &'static str) -> Self {
        self.to = Some(name);
        self
    }

    pub(super) const fn of(mut self, tool: &'static str) -> Self {
        self.of = Some(tool);
        self
    }

    pub(super) const fn unsent(mut self) -> Self {
        self.to = None;
        self
    }

    pub(super) const fn shaped(mut self, form: Shape) -> Self {
        self.form = form;
        self
    }

    pub(super) const fn says(mut self, text: &'static str) -> Self {
        self.says = Some(text);
        self
    }

    /// Its schema, or `None` if the new tool has no such argument.
    fn schema(&self, new: &JsonObject) -> Option<Value> {
        let same = self.to.and_then(|name| schema::property(new, name));
        let mut schema = match (self.form, same, self.to) {
            (_, None, Some(_)) | (Shape::Same, None, None) => return None,
            (Shape::Same, Some(same), _) => Value::Object(same.clone()),
            (Shape::Seconds(_), ..) => json!({ "type": "number", "minimum": 0 }),
            (Shape::Count(_), ..) => json!({ "type": "integer", "minimum": 1 }),
            (Shape::Words(words), ..) => json!({ "type": "string", "enum": words }),
            (Shape::Text, ..) => json!({ "type": "string", "minLength": 1 }),
            (Shape::Texts, ..) => {
                json!({ "type": "array", "items": { "type": "string", "minLength": 1 }, "minItems": 1 })
            }
            (Shape::AnyTexts, ..) => {
                json!({ "type": "array", "items": { "type": "string", "minLength": 1 } })
            }
            (Shape::Flag(_), ..) => json!({ "type": "boolean" }),
        };
        if let Some(object) = schema.as_object_mut() {
            object.extend(self.default().map(|default| ("default".to_owned(), default)));
            object.extend(self.says.map(|text| ("description".to_owned(), text.into())));
        }
        Some(schema)
    }

    /// What it is when a call does not say; where it looks like the new one, the new tool knows.
    pub(super) fn default(&self) -> Option<Value> {
        match self.form {
            Shape::Same
            | Shape::Words(_)
            | Shape::Seconds(None)
            | Shape::Text
            | Shape::Texts
            | Shape::AnyTexts => None,
            Shape::Flag(flag) => Some(flag.into()),
            Shape::Seconds(Some(seconds)) => Some(seconds.into()),
            Shape::Count(count) => Some(count.into()),
        }
    }
}

impl Fixed {
    pub(super) fn to_value(self) -> Value {
        match self {
            Self::Flag(flag) => flag.into(),
            Self::Count(count) => count.into(),
            Self::Word(word) => word.into(),
        }
    }
}

/// A field of an old answer.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) is_required: bool,
    pub(super) from: From,
}

/// What a field is.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Texts,
    Whole,
    Number,
    Flag,
    /// An object of these fields.
    Part(&'static [&'static [Field]]),
    /// A list of such objects.
    Parts(&'static [&'static [Field]]),
}

/// Where a field comes from.
#[derive(Clone, Copy)]
pub(super) enum From {
    /// The field of that name of the new answers.
    Told(&'static str),
    /// The argument of that name.
    Asked(&'static str),
    /// Worked out.
    Made(fn(&Known<'_>) -> Option<Value>),
}

pub(super) const fn field(name: &'static str, kind: Kind, from: From) -> Field {
    Field { name, kind, is_required: true, from }
}

/// A field of the same name.
pub(super) const fn told(name: &'static str, kind: Kind) -> Field {
    field(name, kind, From::Told(name))
}

pub(super) const fn made(name: &'static str, kind: Kind, make: fn(&Known<'_>) -> Option<Value>) -> Field {
    field(name, kind, From::Made(make))
}

impl Field {
    /// Left out where there is nothing to say.
    pub(super) const fn if_any(mut self) -> Self {
        self.is_required = false;
        self
    }
}

impl Kind {
    fn schema(self) -> Value {
        match self {
            Self::Text => json!({ "type": "string" }),
            Self::Texts => json!({ "type": "array", "items": { "type": "string" } }),
            Self::Whole => json!({ "type": "integer" }),
            Self::Number => json!({ "type": "number" }),
            Self::Flag => json!({ "type": "boolean" }),
            Self::Part(fields) => Value::Object(object_schema(fields.iter().copied().flatten())),
            Self::Parts(fields) => {
                json!({ "type": "array", "items": object_schema(fields.iter().copied().flatten()) })
            }
        }
    }
}

pub(super) fn object_schema<'a>(fields: impl Iterator<Item = &'a Field> + Clone) -> JsonObject {
    let required: Vec<&str> =
        fields.clone().filter(|field| field.is_required).map(|field| field.name).collect();
    let properties: JsonObject = fields.map(|field| (field.name.to_owned(), field.kind.schema())).collect();
    let mut schema = JsonObject::new();
    schema.insert("type".into(), "object".into());
    schema.insert("properties".into(), properties.into());
    schema.insert("required".into(), required.into());
    schema
}

/// What the new tools answered.
#[derive(Default)]
pub(super) struct Told {
    /// The first.
    pub(super) first: JsonObject,
    /// The last, which knows better; nothing where there was one call.
    pub(super) last: JsonObject,
}

/// What the fields of an answer are made of.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) settings: &'a Settings,
    pub(super) asked: &'a JsonObject,
    pub(super) first: &'a JsonObject,
    pub(super) last: &'a JsonObject,
    pub(super) took: Duration,
}

impl<'a> Known<'a> {
    pub(super) fn told(&self, name: &str) -> Option<&'a Value> {
        self.last.get(name).or_else(|| self.first.get(name))
    }

    pub(super) fn text(&self, name: &str) -> &'a str {
        self.told(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// The items of a list of the first answer, each with what is known besides.
    pub(super) fn items(&self, list: &str) -> impl Iterator<Item = Known<'a>> {
        let items = self.first.get(list).and_then(Value::as_array).into_iter().flatten();
        let known = *self;
        items.filter_map(Value::as_object).map(move |item| Known { first: item, last: item, ..known })
    }

    /// The old fields, in order.
    pub(super) fn fields(&self, fields: &[&[Field]]) -> Vec<(&'static str, Value)> {
        let fields = fields.iter().copied().flatten();
        fields
            .filter_map(|field| {
                let value = match field.from {
                    From::Told(name) => self.told(name).cloned(),
                    From::Asked(name) => self.asked.get(name).cloned(),
                    From::Made(make) => make(self),
                };
                Some((field.name, value?))
            })
            .collect()
    }

    pub(super) fn object(&self, fields: &[&[Field]]) -> Value {
        self.fields(fields).into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl Tool {
    pub(super) fn fields(&self) -> impl Iterator<Item = &'static Field> + Clone + use<> {
        let fields = self.fields;
        fields.iter().copied().flatten()
    }

    /// The new tool that does its work.
    pub(super) fn main(&self) -> &'static str {
        self.calls.first().copied().unwrap_or_default()
    }

    /// The schema of its arguments over those of the new tools, which `new` knows by name; `None` if those cannot do what
    /// this one must.
    pub(crate) fn input<'a>(&self, new: impl Fn(&str) -> Option<&'a JsonObject>) -> Option<JsonObject> {
        let mut properties = JsonObject::new();
        let mut required: Vec<Value> = Vec::new();
        for argument in self.arguments {
            match argument.schema(new(argument.of.unwrap_or(self.main()))?) {
                Some(schema) => _ = properties.insert(argument.name.to_owned(), schema),
                None if argument.is_required => return None,
                None => continue,
            }
            if argument.is_required {
                required.push(argument.name.into());
            }
        }
        let mut schema = JsonObject::new();
        schema.insert("type".into(), "object".into());
        schema.insert("properties".into(), properties.into());
        if !required.is_empty() {
            schema.insert("required".into(), required.into());
        }
        if self.manner == Manner::Third {
            schema.insert("additionalProperties".into(), false.into());
        }
        Some(schema)
    }

    /// The schema of its answers.
    pub(crate) fn output(&self) -> JsonObject {
        let mut success = object_schema(self.fields());
        let text = || json!({ "type": "string" });
        let warnings = json!({ "type": "array", "items": { "type": "object" } });
        let mut error = json!({ "tool": text(), "status": { "type": "string", "const": "error" }, "code": text(),
            "reason": text(), "detail": text(), "category": text(), "retry": text(), "effect": text(), "warnings": warnings });
        let mut always = vec!["tool", "status", "code", "reason", "category", "retry"];
        if let Some(Value::Object(properties)) = success.get_mut("properties") {
            properties.insert("warnings".into(), warnings);
            if self.manner == Manner::Third {
                properties.insert("ok".into(), json!({ "type": "boolean", "const": true }));
            }
        }
        if let (Manner::Third, Some(Value::Array(required))) = (self.manner, success.get_mut("required")) {
            required.insert(0, "ok".into());
        }
        let old = match self.manner {
            Manner::First => json!({ "error": text() }),
            Manner::Third => {
                json!({ "ok": { "type": "boolean", "const": false }, "error_type": text(), "message": text() })
            }
        };
        if let (Some(properties), Value::Object(old)) = (error.as_object_mut(), &old) {
            always.extend(old.keys().map(String::as_str));
            properties.extend(old.clone());
        }
        let error = json!({ "type": "object", "properties": error, "required": always });
        let mut schema = JsonObject::new();
        schema.insert("type".into(), "object".into());
        schema.insert("anyOf".into(), json!([success, error]));
        schema
    }

    /// A failure in the words of its system: the old field first, then what every error of ours says.
    pub(crate) fn error(&'static self, failure: Failure, form: Form) -> CallToolResult {
        let code = failure.code.to_string();
        let result = failure.into_result(self.name, Form::Both);
        let ours = match result.structured_content {
            Some(Value::Object(ours)) => ours,
            Some(_) | None => JsonObject::new(),
        };
        let reason = ours.get("reason").cloned().unwrap_or_default();
        let mut fields: Vec<(&str, Value)> = match self.manner {
            Manner::First => vec![("error", reason)],
            Manner::Third => vec![("ok", false.into()), ("error_type", code.into()), ("message", reason)],
        };
        fields.extend(ours.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let mut result = CallToolResult::error(vec![ContentBlock::text(in_order(&fields))]);
        result.structured_content = (form == Form::Both).then(|| to_object(fields));
        result
    }

    /// The arguments of the call of a new tool. `new` is the schema of that tool.
    pub(super) fn translate(&self, asked: &JsonObject, tool: &str, new: &JsonObject) -> JsonObject {
        let fixed = if tool == self.main() { self.fixed } else { &[] };
        let fixed = fixed.iter().map(|(name, value)| ((*name).to_owned(), value.to_value()));
        // What a new tool does not know yet it does not have to be told.
        let mut arguments: JsonObject =
            fixed.filter(|(name, _)| schema::property(new, name).is_some()).collect();
        for argument in self.arguments.iter().filter(|it| it.of.unwrap_or(self.main()) == tool) {
            let (Some(to), Some(value)) = (argument.to, asked.get(argument.name)) else { continue };
            let kind = schema::property(new, to).and_then(|property| property.get("type"));
            let whole = kind.is_some_and(|kind| kind == "integer");
            let value = match value.as_f64() {
                // A fraction of a second more does no harm, and one less would.
                Some(seconds) if whole && !value.is_u64() => json!(seconds.ceil() as u64),
                Some(_) | None => value.clone(),
            };
            arguments.insert(to.to_owned(), value);
        }
        arguments
    }
}
