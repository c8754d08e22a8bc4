//! The JSON Schema of all lines, made of the types that read and write them; `docs/api/ssh-mcp-ndjson.schema.json` is it.

use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use super::{
    event::{Event, PROTOCOL},
    op,
};

/// The schema of every line that is read or written.
pub(super) fn schema() -> Value {
    let mut generator = SchemaGenerator::default();
    let event = generator.subschema_for::<Event>();
    let mut definitions: Map<String, Value> = generator.take_definitions(true).into_iter().collect();
    // Where the events stand is the generator's choice.
    if event.as_value().get("$ref").is_none() {
        definitions.insert("Event".into(), event.to_value());
    }
    definitions.insert("Op".into(), op::schema());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": PROTOCOL,
        "description": "A line of input is an Op, a line of output an Event. Unknown events and fields are to be ignored.",
        "anyOf": [{ "$ref": "#/$defs/Op" }, { "$ref": "#/$defs/Event" }],
        "$defs": definitions,
    })
}

/// The same as text, as `ssh-mcp-tail schema` prints it.
pub(super) fn text() -> String {
    format!("{:#}\n", schema())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schema_is_that_of_the_types() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api/ssh-mcp-ndjson.schema.json");
        if std::env::var_os("SSH_MCP_BLESS").is_some() {
            std::fs::write(path, text()).unwrap();
        }
        let published = std::fs::read_to_string(path).unwrap_or_default();
        assert!(published == text(), "run scripts/bless.sh and look at what has changed");
    }

    #[test]
    fn every_op_and_every_event_is_in_it() {
        let schema = schema();
        let ops = schema["$defs"]["Op"]["oneOf"].as_array().unwrap();
        let names: Vec<_> = ops.iter().map(|op| op["properties"]["op"]["const"].as_str().unwrap()).collect();
        let expected: Vec<_> = op::OPS.iter().map(|row| row.name).collect();
        assert_eq!(names, expected);
        let text = schema["$defs"]["Event"].to_string();
        for event in ["ack", "err", "started", "push", "completed", "closed", "heartbeat", "daemon_stats"] {
            assert!(text.contains(&format!("\"const\":\"{event}\"")), "{event}: {text}");
        }
    }
}
