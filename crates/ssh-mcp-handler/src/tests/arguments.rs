//! What every tool says to every kind of bad argument, from the schemas themselves.

use serde_json::{Value, json};

use super::rig::Rig;
use crate::schema;

/// A value the schema of a field accepts.
fn good(property: &Value) -> Value {
    let least = property["minimum"].as_u64().or(property["minLength"].as_u64()).unwrap_or(1);
    match property["type"].as_str() {
        Some("integer" | "number") => json!(least.max(1)),
        Some("boolean") => json!(true),
        Some("array") => json!([good(&property["items"])]),
        Some("object") => json!({}),
        _ => match property["enum"].as_array().and_then(|words| words.first()) {
            Some(word) => word.clone(),
            None => json!("x".repeat(least as usize)),
        },
    }
}

/// Values the schema of a field refuses.
fn bad(property: &Value) -> Vec<Value> {
    let mut values = match property["type"].as_str() {
        Some("integer") => vec![json!("5"), json!(2.5), json!(2.0), json!(true), json!([])],
        Some("number") => vec![json!("0.5"), json!([]), json!({})],
        Some("boolean") => vec![json!("true"), json!(1)],
        Some("array") => vec![json!("x"), json!([{}]), json!({})],
        Some("object") => match property["properties"].as_object() {
            None => vec![json!("A=b"), json!([]), json!({ "A": 1 })],
            Some(inner) => {
                let inside = inner.iter().flat_map(|(name, property)| {
                    bad(property).into_iter().map(move |value| json!({ name.as_str(): value }))
                });
                [json!("A=b"), json!([])].into_iter().chain(inside).collect()
            }
        },
        // Numbers and texts alike: the tool itself looks at it.
        None => vec![],
        _ => vec![json!(5), json!(false), json!(["x"]), json!({})],
    };
    if property["enum"].is_array() {
        values.push(json!("no such word"));
    }
    let beside = |key: &str, by: i64| property[key].as_i64().map(|bound| bound + by);
    values.extend(beside("minimum", -1).map(|below| json!(below)));
    values.extend(beside("maximum", 1).map(|above| json!(above)));
    values.extend(beside("minLength", -1).map(|below| json!("x".repeat(below as usize))));
    values.extend(beside("maxLength", 1).map(|above| json!("x".repeat(above as usize))));
    let list = |count: i64| json!(vec![good(&property["items"]); count as usize]);
    values.extend(beside("minItems", -1).map(list));
    values.extend(beside("maxItems", 1).map(list));
    values
}

#[tokio::test(start_paused = true)]
async fn every_bad_value_of_every_field_names_the_field_and_changes_nothing() {
    let rig = Rig::new();
    for entry in rig.shared.catalogue.entries() {
        let tool = entry.row.name;
        let fields = || schema::properties(&entry.input);
        let required: Vec<&str> = schema::required(&entry.input).collect();
        let whole: Value = fields()
            .filter(|(name, _)| required.contains(&name.as_str()))
            .map(|(n, p)| (n.clone(), good(p)))
            .collect();
        for name in &required {
            let mut without = whole.clone();
            without.as_object_mut().unwrap().remove(*name);
            let answered = rig.fails(tool, without).await;
            assert_eq!(answered.facts["category"], "STATE", "{tool}.{name}: {}", answered.text);
            assert!(answered.fact("reason").contains(name), "{tool}.{name}: {}", answered.text);
        }
        for (name, property) in fields() {
            for value in bad(property) {
                let mut arguments = whole.clone();
                arguments[name.as_str()] = value.clone();
                let answered = rig.fails(tool, arguments).await;
                assert_eq!(answered.facts["category"], "STATE", "{tool}.{name}={value}: {}", answered.text);
                let reason = answered.fact("reason");
                assert!(reason.starts_with(name.as_str()), "{tool}.{name}={value}: {reason}");
                assert!(reason.contains("must be"), "{tool}.{name}={value}: {reason}");
            }
        }
    }
    assert_eq!(rig.host.connects(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_field_is_ignored_and_told_with_the_nearest() {
    let rig = Rig::new();
    let answered = rig.ok("ssh_sessions", json!({ "max_item": 3 })).await;
    let line =
        "WARN: UNKNOWN_FIELD max_item is no field of this tool and was ignored; the nearest is max_items";
    assert!(answered.text.contains(line), "{}", answered.text);
    let warning = &answered.facts["warnings"][0];
    assert_eq!((&warning["code"], &warning["field"]), (&json!("UNKNOWN_FIELD"), &json!("max_item")));
}

#[test]
fn schemas_are_plain() {
    fn walk(value: &Value, path: &str) {
        if let Value::Object(fields) = value {
            for forbidden in ["format", "anyOf", "oneOf", "allOf", "$ref", "$schema", "$defs"] {
                assert!(!fields.contains_key(forbidden), "{path} has {forbidden}");
            }
            assert!(!fields.get("type").is_some_and(Value::is_array), "{path} has several types");
            fields.iter().for_each(|(name, field)| walk(field, &format!("{path}.{name}")));
        }
    }
    let settings = ssh_mcp_core::settings::Settings::default();
    for row in crate::tools::rows() {
        let input = Value::Object((row.call.input)(&settings));
        assert_eq!(input["type"], "object", "{}", row.name);
        walk(&input, row.name);
        for (name, property) in schema::properties(&(row.call.input)(&settings)) {
            let description = property["description"].as_str().unwrap_or_default();
            assert!(description.len() <= 120, "{}.{name}: {description}", row.name);
        }
        walk(&Value::Object((row.call.output)(row.name)), row.name);
    }
}
