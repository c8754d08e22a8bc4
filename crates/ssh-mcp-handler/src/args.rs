//! Arguments of a tool call: checked against the schema of the type that parses them, then parsed.
//!
//! So every mistake is told in the same words, with field, rule and value, and what `tools/list` promises is what holds.
//! Unknown fields are ignored and warned of (`docs/tools.md`, "Arguments"). Rules between fields, and everything that needs
//! more than the schema, belong to the tool.

use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ssh_mcp_core::{
    code::{Code, Warning},
    settings::Settings,
    text,
};

use crate::{failure::Failure, reply::Warned, schema};

/// The arguments of one tool. Defaults that hang on a setting are told by [`Arguments::defaults`], fixed ones by serde.
pub(crate) trait Arguments: DeserializeOwned + JsonSchema + 'static {
    /// Finer codes than `INVALID_ARGUMENT`: field, broken rule, code.
    const CODES: &'static [(&'static str, Rule, Code)] = &[];

    /// Defaults under these settings, shown in the schema.
    fn defaults(_settings: &Settings) -> Vec<(&'static str, Value)> {
        Vec::new()
    }
}

/// The rules a schema can state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A required field is there.
    Present,
    /// The value is of the right type.
    Type,
    /// The value is one of the words.
    Word,
    /// The number, or the length of a text or list, is large enough.
    Least,
    /// The number, or the length of a text or list, is small enough.
    Most,
}

/// The schema `tools/list` shows for `A`.
pub(crate) fn input_schema<A: Arguments>(settings: &Settings) -> JsonObject {
    with_defaults(schema::of_input::<A>(), A::defaults(settings))
}

fn with_defaults(mut schema: JsonObject, defaults: Vec<(&'static str, Value)>) -> JsonObject {
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for (name, default) in defaults {
            if let Some(Value::Object(property)) = properties.get_mut(name) {
                property.insert("default".into(), default);
            }
        }
    }
    schema
}

/// Checks and parses; the warnings name fields the tool does not know.
///
/// # Errors
/// The first rule that is broken; the failure carries the warnings.
pub(crate) fn parse<A: Arguments>(
    schema: &JsonObject,
    arguments: JsonObject,
) -> Result<(A, Vec<Warned>), Failure> {
    let (arguments, warnings) = checked(schema, arguments, A::CODES)?;
    match serde_json::from_value(Value::Object(arguments)) {
        Ok(args) => Ok((args, warnings)),
        Err(error) => Err(Failure::argument(error.to_string()).with_warnings(warnings)),
    }
}

/// The arguments that were given, held to a schema; the warnings name fields it does not know, unless it refuses them.
///
/// # Errors
/// The first rule that is broken; the failure carries the warnings.
pub(crate) fn checked(
    schema: &JsonObject,
    mut arguments: JsonObject,
    codes: &[(&str, Rule, Code)],
) -> Result<(JsonObject, Vec<Warned>), Failure> {
    drop_null(schema, &mut arguments);
    let unknown = unknown_fields(schema, &arguments);
    if schema.get("additionalProperties") == Some(&Value::Bool(false))
        && let Some(unknown) = unknown.first()
    {
        return Err(Failure::argument(unknown.refused()));
    }
    let warnings = unknown.into_iter().map(Unknown::ignored).collect();
    match check(schema, &arguments) {
        Ok(()) => Ok((arguments, warnings)),
        Err(Broken { field, rule, message }) => {
            let finer = codes.iter().find(|(name, broken, _)| *name == top(&field) && *broken == rule);
            let code = finer.map_or(Code::InvalidArgument, |(_, _, code)| *code);
            Err(Failure::new(code, message).with_warnings(warnings))
        }
    }
}

/// A model that writes null means "not given".
fn drop_null(schema: &JsonObject, arguments: &mut JsonObject) {
    arguments.retain(|_, value| !value.is_null());
    for (name, value) in arguments {
        if let (Some(inner), Value::Object(value)) = (schema::property(schema, name), value)
            && schema::properties(inner).next().is_some()
        {
            drop_null(inner, value);
        }
    }
}

/// What a value is, for a message; secrets are only named by their type.
pub(crate) fn shown(field: &str, value: &Value) -> String {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "the flag",
        Value::Number(_) => "the number",
        Value::String(_) => "the text",
        Value::Array(_) => "the list",
        Value::Object(_) => "the object",
    };
    match SECRET.contains(&top(field)) {
        true => kind.replace("the ", "a "),
        false if value.is_null() => kind.to_owned(),
        false => format!("{kind} {}", text::cut(&text::one_line(&value.to_string()), 80)),
    }
}

/// Fields whose value is never repeated in an answer.
const SECRET: &[&str] =
    &["password", "key_passphrase", "env", "input", "input_base64", "data", "data_base64"];

/// A field that a schema does not have.
struct Unknown<'a> {
    shown: String,
    nearest: Option<&'a str>,
    /// The tool takes no arguments at all.
    takes_none: bool,
}

impl Unknown<'_> {
    fn ignored(self) -> Warned {
        let shown = &self.shown;
        let msg = match (self.nearest, self.takes_none) {
            (Some(nearest), _) => {
                format!("{shown} is no field of this tool and was ignored; the nearest is {nearest}")
            }
            (None, false) => format!("{shown} is no field of this tool and was ignored"),
            (None, true) => format!("{shown} was ignored: this tool takes no arguments"),
        };
        Warned::new(Warning::UnknownField, msg).with_field(self.shown)
    }

    fn refused(&self) -> String {
        let shown = &self.shown;
        match self.nearest {
            Some(nearest) => format!("{shown} is no argument of this tool; the nearest is {nearest}"),
            None => format!("{shown} is no argument of this tool"),
        }
    }
}

fn unknown_fields<'a>(schema: &'a JsonObject, arguments: &JsonObject) -> Vec<Unknown<'a>> {
    let mut unknown = Vec::new();
    find_unknown("", schema, arguments, &mut unknown);
    unknown
}

/// Those of an object and of the objects in it; `path` stands before their names.
fn find_unknown<'a>(
    path: &str,
    schema: &'a JsonObject,
    arguments: &JsonObject,
    unknown: &mut Vec<Unknown<'a>>,
) {
    let known: Vec<&str> = schema::properties(schema).map(|(name, _)| name.as_str()).collect();
    for (name, value) in arguments {
        match (schema::property(schema, name), value) {
            (None, _) => unknown.push(Unknown {
                shown: format!("{path}{}", text::cut(&text::one_line(name), 80)),
                nearest: nearest_field(name, &known),
                takes_none: known.is_empty(),
            }),
            (Some(inner), Value::Object(value)) if schema::properties(inner).next().is_some() => {
                find_unknown(&format!("{path}{name}."), inner, value, unknown);
            }
            (Some(_), _) => {}
        }
    }
}

/// The field a caller most likely meant: one that holds the word or is held by it, else one with most words in common,
/// else the nearest by edits, unless that means writing the word anew.
fn nearest_field<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let common =
        |field: &str| field.split('_').filter(|word| name.split('_').any(|own| own == *word)).count();
    let rank = |field: &&str| {
        let held = field.contains(name) || name.contains(*field);
        (!held, std::cmp::Reverse(common(field)), text::distance(name, field))
    };
    let nearest = known.iter().copied().min_by_key(rank)?;
    let (not_held, common, distance) = rank(&nearest);
    (!not_held || common.0 > 0 || distance < name.chars().count()).then_some(nearest)
}

struct Broken {
    field: String,
    rule: Rule,
    message: String,
}

fn check(schema: &JsonObject, arguments: &JsonObject) -> Result<(), Broken> {
    for name in schema::required(schema) {
        if !arguments.contains_key(name) {
            let wanted = schema::property(schema, name).map_or_else(String::new, wanted);
            let message = format!("{name} is missing: it must be {wanted}");
            return Err(Broken { field: name.to_owned(), rule: Rule::Present, message });
        }
    }
    for (name, value) in arguments {
        if let Some(property) = schema::property(schema, name) {
            check_value(name, property, value)?;
        }
    }
    Ok(())
}

fn check_value(field: &str, schema: &JsonObject, value: &Value) -> Result<(), Broken> {
    let broken = |rule| {
        let message = format!("{field} must be {}; got {}", wanted(schema), shown(field, value));
        Err(Broken { field: field.to_owned(), rule, message })
    };
    let fits = match schema.get("type").and_then(Value::as_str) {
        Some("string") => value.is_string(),
        // 2.0 is no integer here: what looks like a measurement is not silently taken for a count.
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some(_) | None => true,
    };
    if !fits {
        return broken(Rule::Type);
    }
    if let Some(Value::Array(words)) = schema.get("enum")
        && !words.contains(value)
    {
        return broken(Rule::Word);
    }
    let (size, least, most) = match value {
        Value::Number(number) => (number.as_f64(), "minimum", "maximum"),
        Value::String(text) => (Some(text.chars().count() as f64), "minLength", "maxLength"),
        Value::Array(items) => (Some(items.len() as f64), "minItems", "maxItems"),
        Value::Null | Value::Bool(_) | Value::Object(_) => (None, "", ""),
    };
    if let Some(size) = size {
        if bound(schema, least).is_some_and(|least| size < least) {
            return broken(Rule::Least);
        }
        if bound(schema, most).is_some_and(|most| size > most) {
            return broken(Rule::Most);
        }
    }
    if let Value::Object(map) = value {
        for (name, value) in map {
            if let Some(property) = schema::property(schema, name) {
                check_value(&format!("{field}.{name}"), property, value)?;
            }
        }
    }
    match (value, schema.get("items"), schema.get("additionalProperties")) {
        (Value::Array(items), Some(Value::Object(item_schema)), _) => items
            .iter()
            .enumerate()
            .try_for_each(|(at, item)| check_value(&format!("{field}[{at}]"), item_schema, item)),
        (Value::Object(map), _, Some(Value::Object(value_schema))) => map
            .iter()
            .try_for_each(|(name, item)| check_value(&format!("{field}.{name}"), value_schema, item)),
        _ => Ok(()),
    }
}

/// What a schema asks for, in words that follow "must be".
fn wanted(schema: &JsonObject) -> String {
    if let Some(Value::Array(words)) = schema.get("enum") {
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        return format!("one of {}", words.join(", "));
    }
    let range = |least, most| match (bound(schema, least), bound(schema, most)) {
        (Some(least), Some(most)) => format!(" from {least} to {most}"),
        (Some(least), None) if least > 0.0 => format!(" of at least {least}"),
        (Some(least), None) => format!(" from {least}"),
        (None, Some(most)) => format!(" up to {most}"),
        (None, None) => String::new(),
    };
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => match (bound(schema, "minLength"), bound(schema, "maxLength")) {
            (None, None) => "a text".to_owned(),
            (Some(least), None) if least <= 1.0 => "a text that is not empty".to_owned(),
            _ => format!("a text of{} characters", range("minLength", "maxLength").replace(" of", "")),
        },
        Some("integer") => format!("an integer{}, written as a number", range("minimum", "maximum")),
        Some("number") => format!("a number{}", range("minimum", "maximum")),
        Some("boolean") => "true or false".to_owned(),
        Some("array") => {
            let item = schema.get("items").and_then(|items| items.get("type")).and_then(Value::as_str);
            let items = if item == Some("string") { "texts" } else { "values" };
            match range("minItems", "maxItems") {
                range if range.is_empty() => format!("a list of {items}"),
                range => format!("a list of{} {items}", range.replace(" from", "").replace(" of", "")),
            }
        }
        Some("object") => "an object of names and values".to_owned(),
        Some(_) | None => "another value".to_owned(),
    }
}

fn bound(schema: &JsonObject, key: &str) -> Option<f64> {
    schema.get(key).and_then(Value::as_f64)
}

/// The name of the argument a path begins with.
fn top(field: &str) -> &str {
    field.split(['[', '.']).next().unwrap_or(field)
}

#[cfg(test)]
mod tests;
