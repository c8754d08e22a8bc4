use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::*;

#[derive(Debug, Deserialize, JsonSchema, PartialEq)]
struct Sample {
    #[schemars(length(min = 1))]
    name: String,
    #[serde(default)]
    flag: bool,
    #[schemars(range(min = 1, max = 64))]
    repeat: Option<u32>,
    word: Option<Word>,
    #[schemars(length(min = 1, max = 2))]
    items: Option<Vec<String>>,
    env: Option<BTreeMap<String, String>>,
    pause: Option<f64>,
    password: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Word {
    One,
    Two,
}

impl Arguments for Sample {
    const CODES: &'static [(&'static str, Rule, Code)] = &[("repeat", Rule::Most, Code::InvalidRepeat)];

    fn defaults(_settings: &Settings) -> Vec<(&'static str, Value)> {
        vec![("repeat", json!(7))]
    }
}

fn parsed(arguments: Value) -> Result<(Sample, Vec<Warned>), Failure> {
    let schema = input_schema::<Sample>(&Settings::default());
    parse(&schema, arguments.as_object().unwrap().clone())
}

#[track_caller]
fn refused(arguments: Value, code: Code, reason: &str) {
    let failure = parsed(arguments).unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (code, reason));
}

#[test]
fn every_broken_rule_names_field_rule_and_value() {
    let invalid = Code::InvalidArgument;
    refused(json!({}), invalid, "name is missing: it must be a text that is not empty");
    refused(json!({"name": null}), invalid, "name is missing: it must be a text that is not empty");
    refused(json!({"name": 5}), invalid, "name must be a text that is not empty; got the number 5");
    refused(json!({"name": ""}), invalid, "name must be a text that is not empty; got the text \"\"");
    refused(json!({"name": "a", "flag": "yes"}), invalid, "flag must be true or false; got the text \"yes\"");
    refused(
        json!({"name": "a", "repeat": "5"}),
        invalid,
        "repeat must be an integer from 1 to 64, written as a number; got the text \"5\"",
    );
    refused(
        json!({"name": "a", "repeat": 2.0}),
        invalid,
        "repeat must be an integer from 1 to 64, written as a number; got the number 2.0",
    );
    refused(
        json!({"name": "a", "repeat": 0}),
        invalid,
        "repeat must be an integer from 1 to 64, written as a number; got the number 0",
    );
    refused(
        json!({"name": "a", "word": "three"}),
        invalid,
        "word must be one of one, two; got the text \"three\"",
    );
    refused(
        json!({"name": "a", "items": []}),
        invalid,
        "items must be a list of 1 to 2 texts; got the list []",
    );
    refused(json!({"name": "a", "items": ["x", 1]}), invalid, "items[1] must be a text; got the number 1");
    refused(json!({"name": "a", "pause": "1"}), invalid, "pause must be a number; got the text \"1\"");
}

#[test]
fn a_field_may_have_a_code_of_its_own() {
    let reason = "repeat must be an integer from 1 to 64, written as a number; got the number 65";
    refused(json!({"name": "a", "repeat": 65}), Code::InvalidRepeat, reason);
}

#[test]
fn secrets_are_not_repeated() {
    refused(
        json!({"name": "a", "password": 4711}),
        Code::InvalidArgument,
        "password must be a text; got a number",
    );
    refused(
        json!({"name": "a", "env": {"A": 4711}}),
        Code::InvalidArgument,
        "env.A must be a text; got a number",
    );
}

#[test]
fn unknown_fields_are_ignored_with_the_nearest_name() {
    let (sample, warnings) = parsed(json!({"name": "a", "repeats": 3, "word": null})).unwrap();
    assert_eq!((sample.repeat, sample.word), (None, None));
    let [warning] = warnings.as_slice() else { panic!("one warning: {warnings:?}") };
    assert_eq!(warning.msg, "repeats is no field of this tool and was ignored; the nearest is repeat");
}

#[test]
fn a_refusal_still_tells_of_unknown_fields() {
    assert_eq!(parsed(json!({"nam": "a"})).unwrap_err().warnings.len(), 1);
}

#[test]
fn defaults_of_both_kinds_stand_in_the_schema() {
    let schema = input_schema::<Sample>(&Settings::default());
    assert_eq!(schema["properties"]["repeat"]["default"], 7);
    assert_eq!(schema["properties"]["flag"]["default"], false);
    assert_eq!(schema["required"], json!(["name"]));
}

#[test]
fn the_field_a_model_meant_is_named() {
    let exec = [
        "session_id",
        "command",
        "timeout_secs",
        "wait",
        "wait_timeout_secs",
        "input",
        "pty",
        "max_output_bytes",
    ];
    for (written, meant) in [
        ("timeout", Some("timeout_secs")),
        ("max_bytes", Some("max_output_bytes")),
        ("sessionid", Some("session_id")),
        ("cmd", None),
    ] {
        assert_eq!(nearest_field(written, &exec), meant, "{written}");
    }
}
