//! The forwards of 001, 002 and 003.

use super::*;

/// The call of the walk through all tools of 001 or 002.
pub(super) async fn of_a_session(walk: &Walk, session: &str) {
    let asked =
        json!({ "session_id": session, "local_port": 0, "remote_address": "db", "remote_port": 5432 });
    let opened = walk.ok("ssh_forward", asked).await;
    assert_eq!((&opened["remote_address"], &opened["active"]), (&json!("db:5432"), &json!(true)));
    assert!(text(&opened, "local_address").starts_with("127.0.0.1:"));
}

/// The call of the walk through all tools of 003.
pub(super) async fn with_all_that_can_be_said(walk: &Walk) {
    let asked = json!({
        "target": "ann@build", "direction": "local", "local_port": 0, "remote_host": "db", "remote_port": 5432, "port": 2222,
        "identity_file": "/k", "known_hosts_file": "/n", "strict_host_key_checking": "yes", "extra_ssh_args": ["-4"],
        "bind_address": "localhost",
    });
    let opened = walk.ok("ssh_forward", asked).await;
    let id = text(&opened, "forward_id");
    assert_eq!((&opened["direction"], &opened["running"]), (&json!("local"), &json!(true)));
    assert_eq!(
        (&opened["remote_host"], &opened["remote_port"], &opened["bind_address"]),
        (&json!("db"), &json!(5432), &json!("localhost"))
    );
    let served = json!({
        "target": "ann@build", "direction": "remote", "local_port": 3000, "remote_host": "127.0.0.1", "remote_port": 8080,
    });
    let served = walk.ok("ssh_forward", served).await;
    assert_eq!((&served["local_port"], &served["remote_port"]), (&json!(3000), &json!(8080)));
    assert_eq!(walk.rig.host.listening().pop().unwrap().to_string(), "127.0.0.1:8080");

    let listed = walk.ok("ssh_list_forwards", json!({ "target": "build", "include_stopped": false })).await;
    assert_eq!((&listed["count"], &listed["forwards"][1]["forward_id"]), (&json!(2), &json!(id)));
    for field in
        ["direction", "local_port", "remote_host", "remote_port", "bind_address", "running", "started_at"]
    {
        assert_eq!(listed["forwards"][1][field], opened[field], "{field}");
    }
    let stopped = walk.ok("ssh_stop_forward", json!({ "forward_id": id })).await;
    assert_eq!(stopped["was_running"], true);
    assert_eq!(walk.ok("ssh_stop_forward", json!({ "forward_id": id })).await["was_running"], false);
    assert_eq!(walk.ok("ssh_list_forwards", json!({})).await["count"], 1);
    let all = walk.ok("ssh_list_forwards", json!({ "include_stopped": true })).await;
    assert_eq!((&all["count"], &all["forwards"][1]["running"]), (&json!(2), &json!(false)));
    assert!(text(&all["forwards"][1], "stopped_at").ends_with('Z'));
    let gone = walk.fails("ssh_stop_forward", json!({ "forward_id": "x" })).await;
    assert_eq!(gone["error_type"], "FORWARD_NOT_FOUND");
}
