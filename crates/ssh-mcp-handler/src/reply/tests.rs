use ssh_mcp_core::history::{ByteHistory, Origin, View};

use super::*;

#[derive(Serialize, JsonSchema)]
struct Sample {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip)]
    stdout: Option<Shown>,
}

impl Body for Sample {
    const STATUSES: &'static [&'static str] = &["done"];

    fn write(&self, text: &mut Text) {
        text.key("SAMPLE_ID", &self.id);
        text.maybe("NAME", self.name.as_ref());
        self.stdout.iter().for_each(|stdout| text.block("stdout", stdout));
    }
}

fn sample(name: Option<&str>, stdout: Option<Shown>) -> Answer<Sample> {
    Answer::new("done", Sample { id: "s1".into(), name: name.map(Into::into), stdout })
}

fn text_of(result: &CallToolResult) -> &str {
    result.content[0].as_text().unwrap().text.as_str()
}

#[test]
fn header_keys_blocks_and_advice_stand_in_order() {
    let warning = Warned::new(Warning::MayStillRun, "pid 7").with_resource("command://x/output");
    let answer = sample(Some("a\tb\r\nc"), Some(Shown::whole("out\n".into())))
        .with_next(vec!["one(a=1)".into(), "two".into()])
        .with_hint(Some("look".into()))
        .with_warnings([warning]);
    let result = answer.into_reply(Nonce::known(0x9f03), Vec::new()).into_result("ssh_sample", Form::Both);
    assert_eq!(
        text_of(&result),
        "SSH_SAMPLE: DONE\nSAMPLE_ID: s1\nNAME: a\\tb\\r\\nc\n--- stdout [00009f03] ---\nout\n\
         WARN: MAY_STILL_RUN command://x/output pid 7\nHINT: look\nNEXT: one(a=1) | two"
    );
    assert_eq!(
        result.structured_content.unwrap(),
        json!({
            "tool": "ssh_sample", "status": "done", "id": "s1", "name": "a\tb\r\nc", "hint": "look",
            "next": ["one(a=1)", "two"],
            "warnings": [{ "code": "MAY_STILL_RUN", "category": "POLICY", "retry": "warn",
                "resource": "command://x/output", "msg": "pid 7" }],
        })
    );
    assert_eq!(result.is_error, Some(false));
}

#[test]
fn what_is_absent_stands_in_neither_form() {
    let result =
        sample(None, None).into_reply(Nonce::known(1), Vec::new()).into_result("ssh_sample", Form::Both);
    assert_eq!(text_of(&result), "SSH_SAMPLE: DONE\nSAMPLE_ID: s1");
    assert_eq!(
        result.structured_content.unwrap(),
        json!({ "tool": "ssh_sample", "status": "done", "id": "s1" })
    );
}

#[test]
fn text_alone_has_no_structured_form() {
    let result =
        sample(None, None).into_reply(Nonce::known(1), Vec::new()).into_result("ssh_sample", Form::Text);
    assert_eq!(result.structured_content, None);
}

#[test]
fn output_schemas_have_the_fields_of_every_answer() {
    let schema = output_schema::<Sample>("ssh_sample");
    assert_eq!(schema["required"], json!(["tool", "status", "id"]));
    assert_eq!(schema["properties"]["status"]["enum"], json!(["done"]));
    assert_eq!(schema["properties"]["tool"]["const"], "ssh_sample");
    assert_eq!(schema["properties"]["name"], json!({ "type": "string" }));
}

fn history(bytes: &[u8]) -> ByteHistory {
    let history = ByteHistory::new(1 << 20);
    history.append(Origin::Stdout, bytes);
    history
}

#[track_caller]
fn block(shown: &Shown, expected: &str) {
    let mut text = Text::bare(Nonce::known(0xab));
    text.block("data", shown);
    assert_eq!(text.into_string(), expected);
}

#[test]
fn blocks_say_what_is_missing() {
    let full = history(b"one\ntwo\n");
    let whole = Completeness::Whole;
    block(&Shown::newest(&full, View::Stdout, 100, whole), "--- data [000000ab] ---\none\ntwo\n");
    block(&Shown::newest(&full, View::Stderr, 100, whole), "--- data [000000ab] (empty) ---\n");
    let partial = Completeness::Partial;
    block(&Shown::newest(&full, View::Stderr, 100, partial), "--- data [000000ab] (partial, empty) ---\n");
    block(
        &Shown::newest(&full, View::Stdout, 4, partial),
        "--- data [000000ab] (partial, truncated: showing 4B of 8B) ---\ntwo\n",
    );
    block(
        &Shown::oldest(b"one two", 3, whole),
        "--- data [000000ab] (truncated: showing 3B of 7B) ---\none\n",
    );
}

#[test]
fn one_trailing_newline_goes_and_the_others_stay() {
    block(&Shown::whole("\n".into()), "--- data [000000ab] ---\n\n");
    block(&Shown::whole("a\n\n".into()), "--- data [000000ab] ---\na\n\n");
    block(&Shown::whole("a".into()), "--- data [000000ab] ---\na\n");
}

#[test]
fn a_cut_stands_at_a_character() {
    let umlauts = history("äöü".as_bytes());
    assert_eq!(Shown::newest(&umlauts, View::Stdout, 3, Completeness::Whole).text, "ü");
    assert_eq!(Shown::oldest("äöü".as_bytes(), 3, Completeness::Whole).text, "ä");
}

#[test]
fn half_a_character_waits_for_its_rest_while_the_stream_is_open() {
    let open = history(&"aä".as_bytes()[..2]);
    assert_eq!(Shown::newest(&open, View::Stdout, 9, Completeness::Partial).text, "a");
    open.finish();
    assert_eq!(Shown::newest(&open, View::Stdout, 9, Completeness::Whole).text, "a\u{fffd}");
}

#[test]
fn nonces_differ() {
    let two = [Nonce::fresh().to_string(), Nonce::fresh().to_string()];
    assert!(two[0] != two[1] && two.iter().all(|nonce| nonce.len() == 8), "{two:?}");
}
