use std::time::Duration;

use ssh_mcp_core::{
    code::Warning,
    port::ssh::{LinkLost, Transience, Unknown},
    reason::Reason,
    target::{Address, Target},
};

use super::*;

fn text_of(result: &CallToolResult) -> &str {
    result.content[0].as_text().unwrap().text.as_str()
}

#[test]
fn a_failure_says_the_same_in_both_forms() {
    let failure =
        Failure::missing(Scheme::Session, "s\n9", Missing::Unknown { nearest: vec!["a".into(), "b".into()] });
    let result = failure.into_result("ssh_exec", Form::Both);
    assert_eq!(
        text_of(&result),
        "SSH_EXEC: ERROR\nREASON: [SESSION_NOT_FOUND] no session s\\n9\nDETAIL: List live sessions with ssh_sessions, \
         or connect again with ssh_connect; closest matches: a, b"
    );
    assert_eq!(
        result.structured_content.unwrap(),
        json!({
            "tool": "ssh_exec", "status": "error", "code": "SESSION_NOT_FOUND", "reason": "no session s\\n9",
            "detail": "List live sessions with ssh_sessions, or connect again with ssh_connect; closest matches: a, b",
            "category": "RESOURCE", "retry": "no",
        })
    );
    assert_eq!(result.is_error, Some(true));
}

#[test]
fn what_may_have_begun_is_not_repeated_blindly() {
    let broken = |effect| {
        let failure = Failure::new(Code::TransportError, "gone").with_effect(effect);
        let facts = failure.into_result("ssh_shell_write", Form::Both).structured_content.unwrap();
        (facts["retry"].clone(), facts["effect"].clone())
    };
    assert_eq!(broken(Effect::None), (json!("backoff"), json!("none")));
    assert_eq!(broken(Effect::Unknown), (json!("judge"), json!("unknown")));
}

#[test]
fn warnings_and_facts_ride_along() {
    let failure = Failure::argument("x")
        .with_fact("results", json!([1]))
        .with_warnings(vec![Warned::new(Warning::UnknownField, "y").with_field("z")]);
    let result = failure.into_result("t", Form::Both);
    assert!(text_of(&result).ends_with("\nWARN: UNKNOWN_FIELD y"), "{}", text_of(&result));
    let facts = result.structured_content.unwrap();
    assert_eq!((&facts["results"], &facts["warnings"][0]["field"]), (&json!([1]), &json!("z")));
}

#[test]
fn text_alone_has_no_structured_form() {
    assert_eq!(Failure::argument("x").into_result("t", Form::Text).structured_content, None);
}

fn connect(error: ConnectError) -> Failure {
    let target = Target { address: "h:22".parse().unwrap(), username: "u".into() };
    ConnectFailure::Failed { error, attempts: 4, target }.into()
}

#[test]
fn connecting_fails_with_the_code_of_its_cause() {
    let text = String::from;
    let table = [
        (
            ConnectError::Failed { cause: text("refused"), transience: Transience::Transient },
            Code::ConnectionFailed,
            "u@h:22: cannot connect: refused",
        ),
        (
            ConnectError::TimedOut { after: Duration::from_secs(3) },
            Code::ConnectionTimeout,
            "u@h:22: not connected within 3 s",
        ),
        (
            ConnectError::Rejected { tried: vec![text("password")], offered: vec![], cut_off: None },
            Code::AuthFailed,
            "u@h:22: authentication failed",
        ),
        (
            ConnectError::Key { path: text("/k"), cause: text("no such file") },
            Code::AuthKeyParse,
            "u@h:22: cannot use key file /k: no such file",
        ),
        (
            ConnectError::UnknownHostKey {
                host: text("h"),
                shown: Box::new(ShownKey {
                    name: text("h"),
                    address: Address { host: text("h"), port: 22 },
                    algorithm: text("ssh-ed25519"),
                    fingerprint: text("SHA256:x"),
                }),
                verdict: Unknown::Refused,
                certificate: None,
            },
            Code::HostKeyUnknown,
            "u@h:22: host key of h is not known",
        ),
        (
            ConnectError::ChangedHostKey {
                host: text("h"),
                algorithm: text("ssh-ed25519"),
                fingerprint: text("SHA256:x"),
                known: text("f:1"),
                forget: None,
            },
            Code::HostKeyMismatch,
            "u@h:22: host key of h has changed",
        ),
        (
            ConnectError::KnownHosts { path: text("/f"), cause: text("denied") },
            Code::HostKeyUnknown,
            "u@h:22: cannot use /f: denied",
        ),
    ];
    for (error, code, reason) in table {
        let failure = connect(error);
        assert_eq!((failure.code, failure.reason.as_str()), (code, reason));
        assert!(failure.detail().contains("attempts=4"), "{}", failure.detail());
    }
}

#[test]
fn what_the_caller_can_compare_stands_in_the_detail() {
    let failure = connect(ConnectError::Rejected {
        tried: vec!["password".into()],
        offered: vec!["publickey".into()],
        cut_off: None,
    });
    assert!(failure.detail().contains("; tried: password; the server takes: publickey; attempts=4"));
    for (words, told) in [
        (
            "Too many authentication failures",
            "its MaxAuthTries): Too many authentication failures; name the right key",
        ),
        ("gone fishing", "; the server ended the login: gone fishing; attempts=4"),
    ] {
        let cut_off = Some(words.to_owned());
        let failure = connect(ConnectError::Rejected { tried: vec![], offered: vec![], cut_off });
        assert!(failure.detail().contains(told), "{}", failure.detail());
    }
    let failure = connect(ConnectError::ChangedHostKey {
        host: "h".into(),
        algorithm: "ssh-ed25519".into(),
        fingerprint: "SHA256:x".into(),
        known: "f:1 ssh-rsa SHA256:y".into(),
        forget: None,
    });
    assert!(failure.detail().contains("; the host shows ssh-ed25519 SHA256:x; known: f:1 ssh-rsa SHA256:y"));
}

#[test]
fn starting_fails_with_the_code_of_its_cause() {
    let lost = || ChannelError::Lost(LinkLost { cause: "eof".into() });
    let shell = uuid::Uuid::nil().into();
    let gone =
        || Missing::Gone { reason: Reason::ManualClose, ended: Duration::ZERO, nearest: vec!["n".into()] };
    let table: [(StartError, Code); 7] = [
        (StartError::Session(gone()), Code::SessionNotFound),
        (StartError::TooManyCommands { limit: 9 }, Code::MaxCommandsExceeded),
        (StartError::TooManyShells { limit: 9 }, Code::MaxShellsExceeded),
        (StartError::Channel(ChannelError::Refused { cause: "no".into() }), Code::ChannelFailed),
        (StartError::Channel(lost()), Code::TransportError),
        (StartError::NameInUse { name: "x".into(), shell }, Code::NameInUse),
        (StartError::Draining, Code::TransportError),
    ];
    for (error, code) in table {
        assert_eq!(Failure::from(error).code, code);
    }
    assert_eq!(Failure::from(StartError::Session(gone())).suggestions, ["n"]);
    assert!(Failure::from(StartError::TooManyShells { limit: 9 }).detail().contains("limit=9"));
}

#[test]
fn a_file_that_cannot_be_looked_at_has_the_code_of_its_cause() {
    use ssh_mcp_core::port::fs::FsError;
    for (kind, direction, code) in [
        (FsErrorKind::Denied, Direction::Upload, Code::SftpError),
        (FsErrorKind::Denied, Direction::Download, Code::RemoteMetadataError),
        (FsErrorKind::TimedOut, Direction::Upload, Code::Timeout),
        (FsErrorKind::TimedOut, Direction::Download, Code::Timeout),
    ] {
        let error = FsError { kind, cause: "no".to_owned() };
        let refusal = Refusal::Remote { path: "x".to_owned(), error };
        assert_eq!(transfer(TransferError::Refused(refusal), direction).code, code, "{kind:?} {direction:?}");
    }
}

#[test]
fn limits_and_bytes_taken_stand_in_the_detail() {
    assert!(Failure::from(ConnectFailure::TooManySessions { limit: 3 }).detail().contains("limit=3"));
    let stuck = Failure::from(WriteError::Stuck { accepted: 17 });
    assert!(stuck.detail().contains("accepted=17; effect=unknown"), "{}", stuck.detail());
    let closed = Failure::from(WriteError::Closed { accepted: 0 });
    assert!(closed.detail().contains("effect=none"), "{}", closed.detail());
}

#[test]
fn resource_errors_carry_what_a_host_needs() {
    let error = bad_uri("ftp://x/output", &ssh_mcp_core::uri::parse("ftp://x/output").unwrap_err());
    assert_eq!(error.code.0, -32602);
    let data = error.data.unwrap();
    assert_eq!((&data["kind"], &data["field"]), (&json!("bad_scheme"), &json!("scheme")));
    assert_eq!(data["uri"], "ftp://x/output");

    let error = no_resource("shell://x/output", Missing::Unknown { nearest: vec![] }, |_| String::new());
    assert_eq!(error.code.0, -32002);
    assert_eq!(error.data.unwrap()["code"], "RESOURCE_NOT_FOUND");

    let gone = Missing::Gone { reason: Reason::TimedOut, ended: Duration::ZERO, nearest: vec!["n".into()] };
    let data = no_resource("shell://x/output", gone, |at| format!("{}s", at.as_secs())).data.unwrap();
    assert_eq!((&data["code"], &data["uri"]), (&json!("RESOURCE_GONE"), &json!("shell://x/output")));
    assert!(data["detail"].as_str().unwrap().contains("reason=timed_out; ended=0s; closest matches: n"));
}
