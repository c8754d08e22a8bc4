//! `ssh_shell_close`.

use ssh_mcp_core::port::ssh::Signal;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_close_hangs_up_or_kills_and_shows_the_last_output() {
    for (arguments, signal, code) in
        [(json!({}), Signal::Hup, "signal-1"), (json!({ "force": true }), Signal::Kill, "killed")]
    {
        let shell = Opened::on(Script::new().out("last words\n")).await;
        let closed = shell.ok("ssh_shell_close", arguments).await;
        assert_eq!(closed.header(), "SSH_SHELL_CLOSE: OK");
        assert_eq!(shell.rig.host.signals(""), [signal]);
        for line in
            ["RUNNING: false", "REASON: manual_close", &format!("EXIT_REASON: {code}"), "CLEARED: false"]
        {
            has_line(&closed, line);
        }
        assert_eq!((block(&closed), closed.facts.get("next")), (vec!["last words"], None));
        assert_eq!(shell.rig.host.open_channels(), 0);

        // It stays for a minute, and whoever repeats the call is told the same.
        let again = shell.ok("ssh_shell_close", json!({})).await;
        assert_eq!(
            (again.header(), again.fact("stdout").as_str()),
            ("SSH_SHELL_CLOSE: NOOP", "last words\n")
        );
        let read = shell.ok("ssh_shell_read", json!({})).await;
        assert_eq!((read.fact("status").as_str(), read.fact("stdout").as_str()), ("closed", "last words\n"));
        pass(SECOND * 70).await;
        assert_eq!(shell.fails("ssh_shell_close", json!({})).await.fact("code"), "SHELL_NOT_FOUND");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shell_that_ignores_the_hang_up_loses_its_channel() {
    let shell = Opened::on(Script::new().ignoring(&[Signal::Hup])).await;
    let began = tokio::time::Instant::now();
    let closed = shell.ok("ssh_shell_close", json!({})).await;
    assert_eq!((began.elapsed().as_secs(), &closed.facts["running"]), (2, &json!(false)));
    assert_eq!(closed.facts.get("exit_reason"), None);
    assert_eq!((closed.fact("reason").as_str(), shell.rig.host.open_channels()), ("manual_close", 0));
}

#[tokio::test(start_paused = true)]
async fn a_close_that_does_not_wait_says_that_it_still_runs() {
    let shell = Opened::on(Script::new().ignoring(&[Signal::Hup])).await;
    let began = tokio::time::Instant::now();
    let closed = shell.ok("ssh_shell_close", json!({ "wait_secs": 0 })).await;
    assert_eq!((began.elapsed(), closed.fact("status").as_str()), (Duration::ZERO, "ok"));
    assert_eq!(closed.facts["running"], true);
    pass(SECOND * 3).await;
    let read = shell.ok("ssh_shell_read", json!({})).await;
    assert_eq!((read.fact("status").as_str(), read.fact("reason").as_str()), ("closed", "manual_close"));
}

#[tokio::test(start_paused = true)]
async fn a_shell_that_ended_by_itself_is_not_closed_again() {
    let shell = Opened::on(Script::new().out("bye").exit_signal("SEGV")).await;
    let closed = shell.ok("ssh_shell_close", json!({})).await;
    assert_eq!(closed.header(), "SSH_SHELL_CLOSE: NOOP");
    for line in ["SIGNAL: SEGV", "EXIT_REASON: signal-11", "REASON: completed"] {
        has_line(&closed, line);
    }
    assert_eq!((closed.fact("signal").as_str(), closed.facts.get("exit_code")), ("SEGV", None));
    assert!(shell.rig.host.signals("").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_called_off_closes_all_the_same() {
    let shell = Opened::on(Script::new().ignoring(&[Signal::Hup])).await;
    shell.called_off("ssh_shell_close", json!({ "wait_secs": 100 }), SECOND).await;
    pass(SECOND * 2).await;
    assert_eq!(shell.rig.host.open_channels(), 0);
}
