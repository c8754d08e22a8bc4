//! How commands run and end by themselves.

use ssh_mcp_core::{
    kind::{
        command::{Exit, Output, Status},
        login_shell::LoginShell,
    },
    port::ssh::{ChannelError, Start},
};
use ssh_mcp_testkit::host::Seen;

use super::{
    wire::{Fault, Faulty},
    *,
};

#[tokio::test(start_paused = true)]
async fn a_command_ends_with_its_status_and_all_its_output() {
    let script = Script::new().out("a").err("b").after(SECOND).out("c").exit(3);
    let rig = rig(ScriptedHost::new().on("work", script));
    let session = rig.connect().await;
    let command = rig.run(ask_exec(&session, "work")).await;
    let facts = facts(&command);
    assert_eq!((facts.status, facts.exit_code(), facts.ended_by), (Status::Completed, Some(3), None));
    assert_eq!((reason(&command), facts.output), (Reason::Completed, Output::Ended));
    assert_eq!((output(&command), stderr(&command)), ("abc".into(), "b".into()));
    assert!(command.history.mark().ended);
    assert_eq!(session.commands.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn ends_without_a_status() {
    let cases = [
        (Script::new().exit_signal("SEGV"), Status::Completed, Reason::Completed, None),
        (Script::new().refusing("exec"), Status::Failed, Reason::Failed, None),
        (Script::new().after(SECOND).lose_connection(), Status::Failed, Reason::ConnectionLost, None),
    ];
    for (script, status, why, code) in cases {
        let rig = rig(ScriptedHost::new().on("work", script));
        let session = rig.connect().await;
        let command = rig.run(ask_exec(&session, "work")).await;
        let facts = facts(&command);
        assert_eq!((facts.status, reason(&command), facts.exit_code()), (status, why, code));
        assert_eq!(facts.exit_signal(), (why == Reason::Completed).then_some("SEGV"));
        assert_eq!(facts.fault.is_some(), status == Status::Failed);
        rig.pass(ms(1)).await;
        assert_eq!((session.commands.in_use(), rig.host.open_channels()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_closed_unused_is_replaced() {
    for closed in [1, 2, u32::MAX] {
        let host = ScriptedHost::new().on("work", Script::new().out("a").exit(3));
        let rig = rig_on(host.clone(), Arc::new(Faulty(host, Fault::ClosesUnused(closed))), |_| {});
        let session = rig.connect().await;
        let command = rig.run(ask_exec(&session, "work")).await;
        let runs = rig.host.command_lines().iter().filter(|line| line.contains("work")).count();
        let facts = facts(&command);
        if closed == u32::MAX {
            assert_eq!((facts.exit_code().is_some_and(|code| code >= 0), runs), (false, 0));
        } else {
            assert_eq!((facts.exit_code(), output(&command).as_str(), runs), (Some(3), "a", 1), "{closed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn output_that_the_exit_has_overtaken_comes_before_the_end() {
    let packet = || "x".repeat(32 << 10);
    let script = Script::new().out("first").exit(0);
    let pauses = [400, 1500, 1500, 1500, 1500];
    let script = pauses.iter().fold(script, |script, pause| script.after(ms(*pause)).out(packet()));
    let rig = rig(ScriptedHost::new().on("over a slow line", script.holding_output(7 * SECOND)));
    let session = rig.connect().await;
    let command = rig.exec(&session, "over a slow line").await;
    rig.ended(&command).await;
    let facts = facts(&command);
    assert_eq!((facts.exit_code(), facts.output), (Some(0), Output::Ended));
    assert_eq!(output(&command).len(), 5 + 5 * (32 << 10));
}

#[tokio::test(start_paused = true)]
async fn a_background_child_does_not_hold_the_answer_and_its_output_is_kept() {
    let script = Script::new().exit(0).after(10 * SECOND).out("late").after(MINUTE).out("too late");
    let rig = rig(ScriptedHost::new().on("server &", script.holding_output(HOUR)));
    let session = rig.connect().await;
    let command = rig.exec(&session, "server &").await;
    let began = rig.now();
    let ask = ask_exec(&session, "server & ");
    let limited = rig.engine.exec(&rig.owner, Exec { limit: Some(20 * SECOND), ..ask }).await.unwrap();
    rig.ended(&command).await;
    rig.ended(&limited).await;
    assert!(rig.now() - began <= ms(501));
    for command in [&command, &limited] {
        let facts = facts(command);
        assert_eq!((facts.status, facts.output), (Status::Completed, Output::StillOpen));
        assert_eq!((facts.exit_code(), output(command)), (Some(0), String::new()));
    }
    assert_eq!(session.commands.in_use(), 0, "what drains takes no place");
    rig.pass(15 * SECOND).await;
    assert_eq!(output(&command), "late");
    rig.pass(2 * MINUTE).await;
    assert_eq!((output(&command), output(&limited)), ("latetoo late".into(), "late".into()));
    assert_eq!(rig.host.open_channels(), 1, "the time limit ended the draining of one");

    rig.engine.disconnect(&rig.owner, session.spec.id).await.unwrap();
    rig.check_left_nothing(&session);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_command_gives_its_channel_back() {
    let script = Script::new().exit(0).holding_output(1000 * HOUR);
    let rig = rig(ScriptedHost::new().on("server &", script));
    let session = connected(rig.ask(Connect { expiry: Expiry::Never, ..ask_connect(Reuse::Auto) }).await);
    let command = rig.run(Exec { limit: None, ..ask_exec(&session, "server &") }).await;
    rig.pass(HOUR - MINUTE).await;
    assert_eq!(rig.host.open_channels(), 1);
    drop(command);
    rig.pass(2 * MINUTE).await;
    assert_eq!(rig.host.open_channels(), 0);
}

#[tokio::test(start_paused = true)]
async fn standard_input_is_at_its_end_from_the_start_or_after_the_input() {
    for (input, terminal, expected) in
        [(None, Terminal::None, ""), (Some("text"), Terminal::None, "text"), (Some(""), Terminal::None, "")]
    {
        let rig = rig(ScriptedHost::new().on("cat", Script::cat()));
        let session = rig.connect().await;
        let input = input.map(|text| Bytes::from_static(text.as_bytes()));
        let command = rig.run(Exec { input, terminal, ..ask_exec(&session, "cat") }).await;
        assert_eq!((output(&command).as_str(), facts(&command).exit_code()), (expected, Some(0)));
    }
}

#[tokio::test(start_paused = true)]
async fn on_a_terminal_input_ends_by_a_character() {
    // Behind an unfinished line the first one only hands the line over.
    for (input, expected) in [(None, "\x04"), (Some("line\n"), "line\n\x04"), (Some("part"), "part\x04\x04")]
    {
        let rig = rig(ScriptedHost::new().on("read", Script::runs_for(SECOND)));
        let session = rig.connect().await;
        let input = input.map(|text| Bytes::from_static(text.as_bytes()));
        rig.run(Exec { input, terminal: Terminal::Pty, ..ask_exec(&session, "read") }).await;
        assert_eq!(String::from_utf8(rig.host.input("read")).unwrap(), expected);
        let finished =
            rig.host.seen().iter().filter(|seen| matches!(seen, Seen::InputFinished { .. })).count();
        assert_eq!(finished, 1, "only that of the probe");
    }
}

#[tokio::test(start_paused = true)]
async fn a_program_that_does_not_read_still_has_its_output_drained() {
    let script = Script::new().out("one").after(SECOND).out("two").after(SECOND).exit(0).not_reading();
    let rig = rig(ScriptedHost::new().on("work", script));
    let session = rig.connect().await;
    let input = Some(Bytes::from(vec![b'x'; 8 << 20]));
    let command = rig.run(Exec { input, ..ask_exec(&session, "work") }).await;
    assert_eq!((output(&command).as_str(), facts(&command).exit_code()), ("onetwo", Some(0)));
    rig.pass(ms(1)).await;
    assert_eq!(rig.host.open_channels(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_channel_is_an_answer_and_leaves_nothing() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    rig.run(ask_exec(&session, "true")).await;
    let before = rig.engine.registries().commands.len();
    rig.host.then_refuse_channels(1);
    let refused = rig.engine.exec(&rig.owner, ask_exec(&session, "true")).await;
    assert!(matches!(refused, Err(StartError::Channel(ChannelError::Refused { .. }))));
    assert_eq!((session.commands.in_use(), session.life.snapshot().refs), (0, 0));
    assert_eq!(rig.engine.registries().commands.len(), before);
    assert!(session.is_open());
}

#[tokio::test(start_paused = true)]
async fn where_places_are_few_a_command_waits_for_one_and_no_longer_than_its_patience() {
    let rig = rig(ScriptedHost::new().on("sleep", Script::runs_for(10 * SECOND)).with_places(1));
    let session = rig.connect().await;
    rig.exec(&session, "sleep 1").await;
    rig.exec(&session, "sleep 2").await;
    assert!(rig.now() >= 10 * SECOND);
    rig.ended(&rig.engine.registries().commands.of_session(session.spec.id)[0]).await;

    let busy = self::rig(ScriptedHost::new().on("sleep", Script::new()).with_places(1));
    let session = busy.connect().await;
    busy.exec(&session, "sleep 1").await;
    let refused = busy.engine.exec(&busy.owner, ask_exec(&session, "sleep 2")).await;
    assert!(matches!(refused, Err(StartError::Channel(ChannelError::NoPlace { .. }))));
    assert_eq!(busy.now(), 25 * SECOND);
    assert_eq!(session.commands.in_use(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_commands_run_and_the_next_has_to_wait_its_turn() {
    let rig = rig(ScriptedHost::new().on("sleep", Script::runs_for(10 * SECOND)));
    let session = rig.connect().await;
    let mut commands = Vec::new();
    for _ in 0..100 {
        commands.push(rig.exec(&session, "sleep 10").await);
    }
    let refused = rig.engine.exec(&rig.owner, ask_exec(&session, "sleep 10")).await;
    assert!(matches!(refused, Err(StartError::TooManyCommands { limit: 100 })));
    for command in &commands {
        rig.ended(command).await;
        // Who knows of an end can count on the place.
        let next = rig.engine.exec(&rig.owner, ask_exec(&session, "sleep 10")).await;
        assert!(next.is_ok());
    }
    rig.pass(MINUTE).await;
    assert_eq!((session.commands.in_use(), session.life.snapshot().refs), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_answer_does_not_wait_for_the_probe_and_the_command_waits_a_moment() {
    // The probe's answer takes this long; the command is started when it is there, at the latest after 300 ms.
    for (probe, started, with_line) in [(0, 0, true), (100, 100, true), (5_000, 300, false)] {
        let asked = Script::new().after(ms(probe));
        let host = ScriptedHost::new()
            .on_match(move |line| {
                let (_, token) = line.split_once(":$((6*7))")?.0.rsplit_once('"')?;
                Some(asked.clone().out(format!("{token}:42:posix\n")).exit(0))
            })
            .on("work", Script::runs_for(10 * SECOND));
        let rig = rig(host);
        let session = rig.connect().await;
        let command = rig.exec(&session, "work").await;
        assert_eq!(rig.now(), Duration::ZERO, "the answer is there at once");
        rig.pass(ms(started + 1)).await;
        let lines = rig.host.command_lines();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1], if with_line { lines[1].clone() } else { "work".into() });
        assert_eq!(lines[1].contains("$$"), with_line);
        rig.ended(&command).await;
        assert_eq!(facts(&command).pid.is_some(), with_line);
        let after = (rig.now() - 10 * SECOND).as_millis() as u64;
        assert!(after >= started && after <= started + 1, "{after}");
    }
}

/// lifecycle 6.51
#[tokio::test(start_paused = true)]
async fn the_probe_runs_once_and_a_failed_one_is_asked_again() {
    let rig = rig(ScriptedHost::new().on("work", Script::exits(0)));
    let probes = |rig: &Rig| rig.host.command_lines().iter().filter(|line| line.contains("$((6*7))")).count();
    let session = rig.connect().await;
    for _ in 0..2 {
        let ask = || rig.engine.exec(&rig.owner, ask_exec(&session, "work"));
        let (one, two, three) = tokio::join!(ask(), ask(), ask());
        for command in [one, two, three] {
            let command = command.unwrap();
            rig.ended(&command).await;
            assert!(facts(&command).pid.is_some());
        }
    }
    assert_eq!((probes(&rig), session.login_shell.value()), (1, Some(LoginShell::Posix)));

    // A host that is too slow to answer is no foreign one.
    let slow = self::rig(ScriptedHost::new().on("$((6*7))", Script::new()).on("work", Script::exits(0)));
    let session = slow.connect().await;
    for asked in 1..=3 {
        slow.run(ask_exec(&session, "work")).await;
        slow.pass(11 * SECOND).await;
        assert_eq!((probes(&slow), session.login_shell.value()), (asked, None));
        assert_eq!(slow.host.open_channels(), 0, "nobody listens to the old question");
    }

    // The places are all taken, so the first probe gets no channel.
    let busy = self::rig(ScriptedHost::new().on("work", Script::exits(0)).with_places(1));
    let session = busy.connect().await;
    let first = busy.run(ask_exec(&session, "work")).await;
    assert_eq!((probes(&busy), facts(&first).pid, session.login_shell.value()), (0, None, None));
}

#[tokio::test(start_paused = true)]
async fn other_login_shells_get_the_command_as_it_is() {
    let rig = rig(ScriptedHost::new().with_foreign_shell().on("work", Script::exits(0)));
    let session = rig.connect().await;
    for _ in 0..2 {
        let command = rig.run(ask_exec(&session, "work")).await;
        assert_eq!(facts(&command).pid, None);
    }
    assert_eq!(session.login_shell.value(), Some(LoginShell::Other));
    assert_eq!(rig.host.command_lines()[1..], ["work", "work"]);
}

#[tokio::test(start_paused = true)]
async fn an_exit_that_overtakes_the_answer_does_not_spoil_the_probe() {
    let host = ScriptedHost::new().on("work", Script::prints("out"));
    let rig = rig_on(host.clone(), Arc::new(Faulty(host, Fault::ExitFirst)), |_| {});
    let session = rig.connect().await;
    let command = rig.run(ask_exec(&session, "work")).await;
    assert_eq!(session.login_shell.value(), Some(LoginShell::Posix));
    assert_eq!(output(&command), "out");
    assert_eq!(facts(&command).exit, Some(Exit::Status(0)));
}

#[tokio::test(start_paused = true)]
async fn the_line_with_the_process_group_is_never_seen() {
    for terminal in [Terminal::None, Terminal::Pty] {
        let script = Script::new().err("warning\n").out("out\n").exit(0);
        let host = ScriptedHost::new().on("work", script);
        let rig = rig_on(host.clone(), Arc::new(Faulty(host, Fault::Crumbs)), |_| {});
        let session = rig.connect().await;
        let command = rig.run(Exec { terminal, ..ask_exec(&session, "work") }).await;
        assert_eq!(output(&command), "warning\nout\n");
        let expected = if terminal == Terminal::Pty { "" } else { "warning\n" };
        assert_eq!(stderr(&command), expected);
        assert!(facts(&command).pid.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_on_a_terminal_gets_one() {
    let rig = rig(ScriptedHost::new().on("work", Script::exits(0)));
    let session = rig.connect().await;
    rig.run(Exec { terminal: Terminal::Pty, ..ask_exec(&session, "work") }).await;
    let pty = rig.host.seen().into_iter().find_map(|seen| {
        let Seen::Started { start: Start::Exec { pty, command }, .. } = seen else { return None };
        pty.filter(|_| command.contains("work"))
    });
    assert_eq!(pty.unwrap().size, PtySize { cols: 80, rows: 24 });
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_runs_out_or_is_dropped_ends_the_wait_only() {
    let rig = rig(ScriptedHost::new().on("sleep", Script::runs_for(MINUTE)));
    let session = rig.connect().await;
    let command = rig.exec(&session, "sleep 60").await;
    assert_eq!(rig.engine.await_command(&command, SECOND).await, Waited::Patience);
    let wait = rig.engine.await_command(&command, HOUR);
    assert!(tokio::time::timeout(SECOND, wait).await.is_err());
    assert_eq!(command.life.snapshot().observers, 0);
    assert_eq!(command.status(), Status::Running);
    rig.ended(&command).await;
    assert_eq!(facts(&command).exit_code(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_command_without_limit_runs_as_long_as_it_likes() {
    let rig = rig(ScriptedHost::new().on("sleep", Script::runs_for(48 * HOUR)));
    let session = rig.connect().await;
    let command = rig.exec(&session, "sleep").await;
    let free =
        rig.engine.exec(&rig.owner, Exec { limit: None, ..ask_exec(&session, "sleep") }).await.unwrap();
    rig.pass(49 * HOUR).await;
    assert_eq!((command.status(), free.status()), (Status::TimedOut, Status::Completed));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_does_not_hold_the_call() {
    let host = ScriptedHost::new();
    let rig = rig_on(host.clone(), Arc::new(Faulty(host, Fault::NoOpen)), |_| {});
    let session = rig.connect_for("a").await;
    let before = rig.engine.clock().now();
    let refused = rig.engine.exec(&rig.owner, ask_exec(&session, "true")).await;
    assert!(matches!(refused, Err(StartError::Channel(ChannelError::Refused { .. }))));
    assert!(rig.engine.clock().now() - before < MINUTE, "hosts of models give up after a minute");
    assert_eq!(session.commands.in_use(), 0);
}
