//! The forward tools over a scripted host and sockets of this machine, through the path every `tools/call` takes.

use std::time::Duration;

use serde_json::{Value, json};
use ssh_mcp_core::{
    kind::forward::socks::Outcome,
    port::{
        forward::LineError,
        ssh::{ConnectError, Transience},
    },
    settings::Settings,
};
use ssh_mcp_testkit::host::{ANY_PORT, ScriptedHost};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::tests::rig::{Answered, Rig, settings};

fn local(session: &str, more: Value) -> Value {
    let mut all =
        json!({ "session_id": session, "local_port": 0, "remote_address": "db", "remote_port": 5432 });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

/// The port a forward listens on here.
fn port(opened: &Answered) -> u16 {
    opened.facts["local_port"].as_u64().unwrap().try_into().unwrap()
}

fn uri(opened: &Answered) -> String {
    format!("forward://{}/events", opened.fact("forward_id"))
}

fn body(rig: &Rig, uri: &str) -> (Value, Value) {
    let (text, meta) = rig.read(uri).unwrap();
    (serde_json::from_str(&text).unwrap(), meta)
}

fn kinds(body: &Value) -> Vec<&str> {
    body["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_forward_is_opened_used_read_and_closed() {
    let rig = Rig::new();
    let session = rig.session().await;
    let opened = rig.ok("ssh_forward", local(&session, json!({}))).await;
    let (id, uri, port) = (opened.fact("forward_id"), uri(&opened), port(&opened));
    assert_eq!(opened.header(), "SSH_FORWARD: OK");
    for line in [
        &format!(
            "FORWARD_ID: {id}\nSESSION_ID: {session}\nDIRECTION: local\nLOCAL: 127.0.0.1:{port}\nREMOTE: db:5432\n"
        ),
        "ACTIVE: true\n",
        &format!("HINT: RECOMMENDED: follow {uri}"),
        &format!("NEXT: sub_wait(uris=[\"{uri}\"]) | sub_open uri={uri}"),
    ] {
        assert!(opened.text.contains(line), "{line}\n{}", opened.text);
    }
    assert!(!opened.text.contains("WARN:"), "{}", opened.text);

    let (empty, meta) = body(&rig, &uri);
    assert_eq!((kinds(&empty), &empty["active"], &meta["status"]), (vec![], &json!(true), &json!("active")));
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let far = rig.host.far_end().await;
    client.write_all(b"question").await.unwrap();
    far.receive().await.unwrap();
    far.send("yes").await;
    client.read_exact(&mut [0; 3]).await.unwrap();
    client.shutdown().await.unwrap();
    far.finish();
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    far.closed().await;

    let waited = rig.loosely("sub_wait", json!({ "uris": [uri], "timeout_secs": 5 })).await;
    assert_eq!(waited.facts["status"], "news", "{}", waited.text);
    let (read, meta) = body(&rig, &format!("{uri}?cursor=0"));
    assert_eq!(kinds(&read), ["accepted", "connected", "closed"]);
    let expected = json!({ "forward_id": id, "session_id": session, "direction": "local",
        "listener": format!("127.0.0.1:{port}"), "target": "db:5432", "active": true, "accepted": 1, "closed": 1,
        "failed": 0, "open_connections": 0, "bytes_to_remote": 8, "bytes_from_remote": 3, "last_seq": 3,
        "events": read["events"] });
    assert_eq!(read, expected);
    let event = &read["events"][2];
    assert_eq!((&event["conn"], &event["seq"]), (&json!(1), &json!(2)));
    assert!(event["ts"].is_string() && event["detail"]["duration_ms"].is_u64());
    assert_eq!(event["detail"]["reason"], "finished");
    assert_eq!(
        (&meta["cursor"], &meta["buffer_size"], &meta["kind"]),
        (&json!(3), &json!(3), &json!("forward"))
    );
    let (rest, _) = body(&rig, &format!("{uri}?cursor=2"));
    assert_eq!(kinds(&rest), ["closed"]);

    let closed = rig.ok("ssh_forward_close", json!({ "forward_id": id })).await;
    assert_eq!(closed.header(), "SSH_FORWARD_CLOSE: CLOSED");
    let facts = json!({ "tool": "ssh_forward_close", "status": "closed", "forward_id": id, "connections_total": 1,
        "bytes_to_remote": 8, "bytes_from_remote": 3 });
    assert_eq!(closed.facts, facts);
    assert_eq!(
        rig.ok("ssh_forward_close", json!({ "forward_id": id })).await.header(),
        "SSH_FORWARD_CLOSE: NOOP"
    );
    let (last, meta) = body(&rig, &uri);
    assert_eq!(
        (&last["active"], &meta["status"], &meta["reason"]),
        (&json!(false), &json!("stopped"), &json!("manual_close"))
    );
    assert_eq!(kinds(&last).last(), Some(&"stopped"));
    let gone = rig.fails("sub_open", json!({ "uri": uri })).await;
    assert_eq!(gone.fact("code"), "RESOURCE_GONE");
}

#[tokio::test(start_paused = true)]
async fn events_reach_a_wait_as_they_come() {
    let rig = Rig::new();
    let session = rig.session().await;
    let opened = rig.ok("ssh_forward", local(&session, json!({}))).await;
    rig.host.then_refuse_dial("Connection refused", Outcome::ConnectionRefused);
    let wait = rig.loosely("sub_wait", json!({ "uris": [uri(&opened)], "timeout_secs": 60 }));
    let visit = async {
        let mut client = TcpStream::connect(("127.0.0.1", port(&opened))).await.unwrap();
        client.read(&mut [0; 1]).await.unwrap_or(0)
    };
    let (waited, nothing) = tokio::join!(wait, visit);
    assert_eq!((waited.facts["status"].as_str(), nothing), (Some("news"), 0), "{}", waited.text);
    let delta: Value = serde_json::from_str(waited.facts["items"][0]["delta"].as_str().unwrap()).unwrap();
    assert_eq!(kinds(&delta), ["accepted", "error"]);
    let detail =
        json!({ "code": "target_unreachable", "message": "Connection refused", "target": "db:5432" });
    assert_eq!(delta["events"][1]["detail"], detail);
    assert_eq!((&delta["failed"], &delta["open_connections"]), (&json!(1), &json!(0)));
}

#[tokio::test(start_paused = true)]
async fn what_there_is_is_listed_with_where_it_leads() {
    let rig = Rig::new();
    let session = rig.session().await;
    let opened = rig.ok("ssh_forward", local(&session, json!({}))).await;
    let dynamic = json!({ "session_id": session, "local_port": 0, "direction": "dynamic" });
    let dynamic = rig.ok("ssh_forward", dynamic).await;
    let remote =
        json!({ "session_id": session, "direction": "remote", "local_port": 3000, "remote_port": 0 });
    let remote = rig.ok("ssh_forward", remote).await;
    assert_eq!(
        (remote.fact("local"), remote.fact("remote")),
        ("127.0.0.1:3000".into(), format!("127.0.0.1:{ANY_PORT}"))
    );
    assert!(dynamic.facts.get("remote").is_none(), "{}", dynamic.text);

    let listed = rig.loosely("ssh_resources", json!({ "kind": "forward" })).await;
    let facts = |n: usize| {
        let entry = &listed.facts["resources"][n];
        ["direction", "bind_address", "local_port", "remote_address", "remote_port"]
            .map(|name| entry[name].clone())
    };
    assert_eq!(listed.facts["count"], 3);
    assert_eq!(
        facts(0),
        [json!("remote"), json!("127.0.0.1"), json!(3000), json!("127.0.0.1"), json!(ANY_PORT)]
    );
    assert_eq!(
        facts(1),
        [json!("dynamic"), json!("127.0.0.1"), json!(port(&dynamic)), Value::Null, Value::Null]
    );
    assert_eq!(
        facts(2),
        [json!("local"), json!("127.0.0.1"), json!(port(&opened)), json!("db"), json!(5432)]
    );
    let page = crate::resources::list(&rig.shared.engine, &rig.owner, None).unwrap();
    let uris: Vec<&str> = page.resources.iter().map(|listed| listed.uri.as_str()).collect();
    assert_eq!(uris.last(), Some(&uri(&opened).as_str()));
    let templates = crate::resources::templates(&rig.shared.catalogue);
    assert_eq!(templates[4].uri_template, "forward://{forward_id}/events{?cursor}");

    // To others nothing of it exists.
    let other = rig.as_owner("bob");
    assert_eq!(other.ok("ssh_resources", json!({ "kind": "forward" })).await.facts["count"], 0);
    let refused = other.fails("ssh_forward_close", json!({ "local_port": 3000 })).await;
    assert_eq!(refused.fact("code"), "FORWARD_PORT_NOT_FOUND");
    let ended = rig.ok("ssh_disconnect", json!({ "session_id": session })).await;
    assert_eq!(ended.facts["forwards_closed"], 3);
    assert!(rig.host.listening().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_port_that_several_have_does_not_say_which() {
    let rig = Rig::new();
    let session = rig.session().await;
    let remote =
        json!({ "session_id": session, "direction": "remote", "local_port": 3000, "remote_port": 0 });
    let first = rig.ok("ssh_forward", remote.clone()).await.fact("forward_id");
    let second = rig.ok("ssh_forward", remote).await.fact("forward_id");
    let refused = rig.fails("ssh_forward_close", json!({ "local_port": 3000 })).await;
    assert_eq!(refused.fact("code"), "INVALID_ARGUMENT");
    assert!(refused.fact("detail").contains(&first) && refused.fact("detail").contains(&second));
    rig.ok("ssh_forward_close", json!({ "forward_id": first, "force": true })).await;
    assert_eq!(rig.ok("ssh_forward_close", json!({ "local_port": 3000 })).await.fact("forward_id"), second);
    assert_eq!(rig.ok("ssh_forward_close", json!({ "local_port": 3000 })).await.facts["status"], "noop");
    let unknown = rig.fails("ssh_forward_close", json!({ "local_port": 3001 })).await;
    assert_eq!(unknown.fact("code"), "FORWARD_PORT_NOT_FOUND");
    let unknown = rig.fails("ssh_forward_close", json!({ "forward_id": session })).await;
    assert_eq!(unknown.fact("code"), "FORWARD_NOT_FOUND");
    for asked in [json!({}), json!({ "forward_id": second, "local_port": 3000 })] {
        assert_eq!(rig.fails("ssh_forward_close", asked).await.fact("code"), "INVALID_ARGUMENT");
    }
}

#[tokio::test(start_paused = true)]
async fn arguments_that_make_no_sense_are_refused_before_anything_is_opened() {
    let rig = Rig::new();
    let session = rig.session().await;
    let on = |more: Value| {
        let mut all = json!({ "session_id": session, "local_port": 0 });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    for (arguments, said) in [
        (on(json!({})), "remote_address is missing"),
        (on(json!({ "remote_address": "db" })), "remote_port is missing"),
        (
            on(json!({ "remote_address": "db", "remote_port": 0 })),
            "remote_port must be an integer from 1 to 65535",
        ),
        (on(json!({ "remote_address": "db", "remote_port": 65_536 })), "remote_port"),
        (on(json!({ "remote_address": "db:5432", "remote_port": 1, "remote_host": "db" })), "both given"),
        (on(json!({ "remote_address": "a b", "remote_port": 1 })), "remote_address must be a host name"),
        (on(json!({ "remote_address": "", "remote_port": 1 })), "remote_address must be a host name"),
        (
            on(json!({ "remote_address": "db", "remote_port": 1, "bind_address": "x\ny" })),
            "bind_address must be",
        ),
        (on(json!({ "direction": "dynamic", "remote_port": 1 })), "have no place where direction is dynamic"),
        (
            on(json!({ "direction": "dynamic", "remote_host": "db" })),
            "have no place where direction is dynamic",
        ),
        (
            on(json!({ "direction": "remote", "remote_port": 1 })),
            "local_port must be an integer from 1 to 65535",
        ),
        (on(json!({ "direction": "remote", "local_port": 1 })), "remote_port is missing"),
        (on(json!({ "direction": "sideways" })), "direction must be one of local, remote, dynamic"),
        (json!({ "local_port": 0, "direction": "dynamic" }), "session_id is missing"),
        (on(json!({ "direction": "dynamic", "target": "box" })), "session_id and a host are both given"),
    ] {
        let refused = rig.fails("ssh_forward", arguments).await;
        assert_eq!(refused.fact("code"), "INVALID_ARGUMENT");
        assert!(refused.fact("reason").contains(said), "{said}\n{}", refused.text);
    }
    assert_eq!(rig.host.open_lines(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_stands_in_the_way_is_told_with_its_cure() {
    let settings = Settings { max_forwards_per_session: 1, ..settings() };
    let rig = Rig::with(ScriptedHost::new(), settings);
    let session = rig.session().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let refused = rig.fails("ssh_forward", local(&session, json!({ "local_port": port }))).await;
    assert_eq!(refused.fact("code"), "PORT_IN_USE");
    assert!(refused.fact("detail").contains(&format!("port={port}")), "{}", refused.text);
    assert_eq!(
        (refused.fact("category"), refused.fact("retry"), refused.fact("effect")),
        ("TRANSPORT".into(), "after".into(), "none".into())
    );

    let elsewhere = local(&session, json!({ "bind_address": "192.0.2.1" }));
    assert_eq!(rig.fails("ssh_forward", elsewhere).await.fact("code"), "FORWARD_FAILED");
    rig.host.then_refuse_listening();
    let remote = json!({ "session_id": session, "direction": "remote", "local_port": 1, "remote_port": 80 });
    let refused = rig.fails("ssh_forward", remote).await;
    assert_eq!(refused.fact("code"), "FORWARD_FAILED");
    assert!(
        refused.fact("detail").contains("AllowTcpForwarding")
            && refused.fact("detail").contains("GatewayPorts")
    );
    let reset = ConnectError::Failed { cause: "reset".into(), transience: Transience::Transient };
    for (error, code) in [
        (LineError::NotAgain, "FORWARD_FAILED"),
        (LineError::Connect(reset), "FORWARD_FAILED"),
        (LineError::TimedOut { after: Duration::from_secs(30) }, "TIMEOUT"),
    ] {
        rig.host.then_refuse_line(error);
        assert_eq!(rig.fails("ssh_forward", local(&session, json!({}))).await.fact("code"), code);
    }
    rig.ok("ssh_forward", local(&session, json!({}))).await;
    let refused = rig.fails("ssh_forward", local(&session, json!({}))).await;
    assert_eq!(
        (refused.fact("code"), refused.fact("detail").contains("limit=1")),
        ("MAX_FORWARDS_EXCEEDED".into(), true)
    );
    let refused = rig.fails("ssh_forward", local("nobody", json!({}))).await;
    assert_eq!(refused.fact("code"), "SESSION_NOT_FOUND");
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_others_reach_is_warned_of() {
    let rig = Rig::new();
    let session = rig.session().await;
    for (bind, exposed) in [("0.0.0.0", true), ("localhost", false), ("127.0.0.2", false)] {
        let opened = rig.loosely("ssh_forward", local(&session, json!({ "bind_address": bind }))).await;
        assert_eq!(opened.text.contains("WARN: EXPOSED_LISTENER"), exposed, "{}", opened.text);
        if exposed {
            assert_eq!(opened.facts["warnings"][0]["code"], "EXPOSED_LISTENER");
            assert_eq!(opened.facts["warnings"][0]["resource"], uri(&opened));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_in_place_of_a_session_opens_one_or_takes_one() {
    let rig = Rig::new();
    let dynamic = json!({ "target": "ann@example.org", "local_port": 0, "direction": "dynamic" });
    let first = rig.ok("ssh_forward", dynamic.clone()).await;
    let second = rig.ok("ssh_forward", dynamic.clone()).await;
    assert_eq!(first.fact("session_id"), second.fact("session_id"));
    assert_eq!(rig.host.connects(), 1);
    // What comes to nothing leaves no session.
    rig.ok("ssh_disconnect", json!({ "session_id": first.fact("session_id") })).await;
    rig.host.then_refuse_line(LineError::NotAgain);
    rig.fails("ssh_forward", dynamic).await;
    assert_eq!(rig.ok("ssh_resources", json!({ "kind": "session" })).await.facts["count"], 0);
}
