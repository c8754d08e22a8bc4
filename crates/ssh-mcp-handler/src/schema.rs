//! JSON schemas as clients want them: made from the types that parse and answer, then brought into one plain form.
//!
//! schemars writes Rust's number formats, nullable optionals and one branch per documented word. Validators warn about
//! the first, models stumble over the second, and the third costs tokens; [`plain`] removes all three.

use rmcp::model::JsonObject;
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::Value;

/// The schema of what `T` is read from.
pub(crate) fn of_input<T: JsonSchema>() -> JsonObject {
    generate::<T>(SchemaSettings::draft2020_12().for_deserialize())
}

/// The schema of what `T` is written as.
pub(crate) fn of_output<T: JsonSchema>() -> JsonObject {
    generate::<T>(SchemaSettings::draft2020_12().for_serialize())
}

/// A schema of arguments as clients are shown it: without the fields of another tool's listing, and without what goes
/// without saying. Both cost tokens.
pub(crate) fn shown(input: &JsonObject, unshown: &[&[&str]]) -> JsonObject {
    let mut shown = input.clone();
    if let Some(Value::Object(properties)) = shown.get_mut("properties") {
        properties.retain(|name, _| !unshown.iter().any(|names| names.contains(&name.as_str())));
        properties.values_mut().filter_map(Value::as_object_mut).for_each(drop_obvious);
    }
    shown
}

/// What a caller does not have to be told: a count is not below zero and a size, a port or a text not nothing, a port or a
/// terminal's side fits into 16 bits, and a list that is left out is empty. A range with two ends keeps both.
fn drop_obvious(property: &mut JsonObject) {
    let is = |property: &JsonObject, key: &str, bound: u64| {
        property.get(key).and_then(Value::as_f64) == Some(bound as f64)
    };
    if is(property, "maximum", u64::from(u16::MAX)) {
        property.remove("maximum");
    }
    if is(property, "minimum", 0) || is(property, "minimum", 1) && !property.contains_key("maximum") {
        property.remove("minimum");
    }
    if is(property, "minLength", 1) {
        property.remove("minLength");
    }
    if property.get("default").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        property.remove("default");
    }
    if let Some(Value::Object(items)) = property.get_mut("items") {
        drop_obvious(items);
    }
}

/// The properties of an object schema.
pub(crate) fn properties(schema: &JsonObject) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

/// The schema of one property.
pub(crate) fn property<'a>(schema: &'a JsonObject, name: &str) -> Option<&'a JsonObject> {
    schema.get("properties")?.get(name)?.as_object()
}

/// The names an object schema requires.
pub(crate) fn required(schema: &JsonObject) -> impl Iterator<Item = &str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn generate<T: JsonSchema>(settings: SchemaSettings) -> JsonObject {
    finish(generator(settings).into_root_schema_for::<T>())
}

fn generator(settings: SchemaSettings) -> SchemaGenerator {
    let settings = settings.with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator()
}

fn finish(schema: Schema) -> JsonObject {
    let mut schema = schema.to_value();
    plain(&mut schema);
    let Value::Object(mut object) = schema else { return JsonObject::new() };
    // What a type is called and meant for in Rust is nothing to a caller.
    object.remove("title");
    object.remove("description");
    object.insert("type".into(), "object".into());
    object.entry("properties").or_insert_with(|| JsonObject::new().into());
    object
}

/// Brings a schema into the plain form, from the leaves up.
fn plain(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.values_mut().for_each(plain);
            object.remove("format");
            object.remove("$schema");
            if object.get("default").is_some_and(Value::is_null) {
                object.remove("default");
            }
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            }
            drop_null(object);
            join_words(object);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// An optional field is absent, never null.
fn drop_null(object: &mut JsonObject) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(words)) = object.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    if let Some(Value::Array(branches)) = object.get_mut("anyOf") {
        branches.retain(|branch| branch.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(only)] = branches.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            for (key, value) in only {
                object.entry(key).or_insert(value);
            }
        }
    }
}

/// An enum whose words are documented comes as one branch per word; the words alone say as much.
fn join_words(object: &mut JsonObject) {
    let Some(Value::Array(branches)) = object.get("oneOf") else { return };
    let mut words = Vec::new();
    for branch in branches {
        match (branch.get("const"), branch.get("enum")) {
            (Some(word), _) => words.push(word.clone()),
            (None, Some(Value::Array(several))) => words.extend(several.iter().cloned()),
            (None, _) => return,
        }
    }
    object.remove("oneOf");
    object.insert("type".into(), "string".into());
    object.insert("enum".into(), words.into());
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    use super::*;

    /// Not for callers.
    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Sample {
        /// How
        /// many.
        count: Option<u64>,
        word: Option<Word>,
        #[serde(default)]
        flag: bool,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Word {
        /// The first.
        One,
        /// The second.
        TwoWords,
    }

    #[test]
    fn schemas_have_no_formats_no_nulls_and_plain_words() {
        assert_eq!(
            Value::Object(of_input::<Sample>()),
            json!({
                "type": "object",
                "properties": {
                    "count": { "type": "integer", "minimum": 0, "description": "How many." },
                    "word": { "type": "string", "enum": ["one", "two_words"] },
                    "flag": { "type": "boolean", "default": false }
                }
            })
        );
    }

    #[test]
    fn what_is_shown_leaves_out_rare_fields_and_obvious_bounds() {
        let shown_as = |property: Value, expected: Value| {
            let input = json!({ "properties": { "a": property, "b": {}, "c": {} } });
            let shown = shown(input.as_object().unwrap(), &[&["b"], &["c"]]);
            assert_eq!(Value::Object(shown), json!({ "properties": { "a": expected } }));
        };
        shown_as(json!({ "minimum": 0, "maximum": 9 }), json!({ "maximum": 9 }));
        shown_as(json!({ "minimum": 1, "maximum": 9 }), json!({ "minimum": 1, "maximum": 9 }));
        shown_as(json!({ "minimum": 1, "maximum": 65_535 }), json!({}));
        shown_as(
            json!({ "minLength": 1, "maxLength": 9, "default": "" }),
            json!({ "maxLength": 9, "default": "" }),
        );
        shown_as(
            json!({ "items": { "minLength": 1 }, "minItems": 1, "default": [] }),
            json!({ "items": {}, "minItems": 1 }),
        );
        shown_as(json!({ "default": false, "minimum": 2 }), json!({ "default": false, "minimum": 2 }));
    }

    #[test]
    fn a_type_without_fields_is_still_an_object_with_properties() {
        #[derive(Deserialize, JsonSchema)]
        struct Nothing {}
        assert_eq!(Value::Object(of_input::<Nothing>()), json!({ "type": "object", "properties": {} }));
    }
}
