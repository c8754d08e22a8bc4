//! Holds events to the published schema: as much of JSON Schema as that file uses.

use std::sync::OnceLock;

use serde_json::Value;

/// Panics unless the event is one of the schema's, with every field as it says and none it does not know.
pub(super) fn check(event: &Value) {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    let schema = SCHEMA.get_or_init(|| {
        let text = include_str!("../../../../docs/api/ssh-mcp-ndjson.schema.json");
        serde_json::from_str(text).expect("the schema is JSON")
    });
    let is_event = |one: &&Value| kind(schema, one).is_some_and(|kind| event["ev"] == *kind);
    let events = schema["$defs"]["Event"]["oneOf"].as_array().expect("events");
    let one = events.iter().find(is_event).unwrap_or_else(|| panic!("no such event: {event}"));
    let known: Vec<&str> = parts(schema, one).flat_map(|part| names(&part["properties"])).collect();
    for name in names(event) {
        assert!(known.contains(&name), "{name} is not in the schema: {event}");
    }
    for part in parts(schema, one) {
        if let Err(why) = fits(schema, part, event) {
            panic!("{why}: {event}");
        }
    }
}

/// A schema and the one it refers to beside its own properties.
fn parts<'a>(schema: &'a Value, one: &'a Value) -> impl Iterator<Item = &'a Value> {
    [one].into_iter().chain(target(schema, one))
}

fn target<'a>(schema: &'a Value, one: &Value) -> Option<&'a Value> {
    let name = one["$ref"].as_str()?.strip_prefix("#/$defs/")?;
    Some(&schema["$defs"][name])
}

fn kind<'a>(schema: &'a Value, one: &'a Value) -> Option<&'a Value> {
    parts(schema, one).find_map(|part| part["properties"]["ev"].get("const"))
}

fn names(object: &Value) -> impl Iterator<Item = &str> {
    object.as_object().into_iter().flat_map(|object| object.keys()).map(String::as_str)
}

fn fits(schema: &Value, rule: &Value, value: &Value) -> Result<(), String> {
    if let Some(target) = target(schema, rule) {
        fits(schema, target, value)?;
    }
    if let Some(expected) = rule.get("const").filter(|expected| *expected != value) {
        return Err(format!("{value} is not {expected}"));
    }
    let types: Vec<&str> = match &rule["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|name| is_of(name, value)) {
        return Err(format!("{value} is none of {types:?}"));
    }
    if let Some(ways) = rule["anyOf"].as_array()
        && !ways.iter().any(|way| fits(schema, way, value).is_ok())
    {
        return Err(format!("{value} fits none of the ways"));
    }
    for required in rule["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(required).is_none() {
            return Err(format!("{required} is missing"));
        }
    }
    for name in names(&rule["properties"]) {
        if let Some(inner) = value.get(name) {
            fits(schema, &rule["properties"][name], inner).map_err(|why| format!("{name}: {why}"))?;
        }
    }
    Ok(())
}

fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type"),
    }
}
