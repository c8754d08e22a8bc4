//! Shells: what goes in, what comes out, how they end.

use ssh_mcp_core::{
    kind::{
        command::Exit,
        input::InputQueue,
        shell::{Frame, exit_reason},
    },
    port::ssh::{Signal, Start},
    registry::Manner,
};
use ssh_mcp_testkit::host::Seen;

use super::{
    wire::{Fault, Faulty},
    *,
};
use crate::{CloseShell, ShellMatch, ShellWait, WriteError};

#[tokio::test(start_paused = true)]
async fn what_is_typed_is_run_and_what_it_prints_is_kept() {
    let rig = rig(ScriptedHost::new().on("greet", Script::prints("hello\r\n")));
    let session = rig.connect().await;
    let shell = rig.open(&session).await;
    assert_eq!(rig.engine.await_shell_bytes(&shell, 0, 2, SECOND).await, ShellWait::Bytes);
    rig.write(&shell, "gre").await;
    rig.write(&shell, "et\n").await;
    assert_eq!(rig.engine.await_shell_quiet(&shell, 2, SECOND, ms(10)).await, ShellWait::Bytes);
    assert_eq!(screen(&shell), "$ greet\r\nhello\r\n$ ");
    assert_eq!(rig.host.input(""), b"greet\n");
}

#[tokio::test(start_paused = true)]
async fn a_context_makes_it_a_command_on_a_terminal() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let context = Context { cwd: Some("/srv".into()), ..Context::default() };
    let ask = OpenShell { context, ..ask_shell(&session) };
    rig.engine.open_shell(&rig.owner, ask).await.unwrap();
    rig.open(&session).await;
    rig.pass(ms(1)).await;
    let started = rig.host.seen().into_iter().filter_map(|seen| {
        let Seen::Started { start, .. } = seen else { return None };
        Some(match start {
            Start::Exec { command, pty } => (Some(command), pty.is_some()),
            Start::Shell { .. } => (None, true),
            Start::Subsystem(_) => return None,
        })
    });
    let started: Vec<_> = started.collect();
    let line = r#"cd -- '/srv' || exit 1; exec "${SHELL:-/bin/sh}" -l"#.to_owned();
    assert_eq!(started, [(Some(line), true), (None, true)]);
}

#[tokio::test(start_paused = true)]
async fn writes_keep_their_order_and_a_resize_its_place() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let shell = rig.open(&session).await;
    let size = PtySize { cols: 132, rows: 50 };
    let write = |resize, text: &'static str| rig.engine.write_shell(&shell, resize, Bytes::from(text));
    let (one, two, three, four) =
        tokio::join!(write(None, "a"), write(Some(size), "b"), write(Some(size), ""), write(None, "c"));
    assert_eq!([one, two, three, four], [Ok(1), Ok(1), Ok(0), Ok(1)]);
    let order = rig.host.seen().into_iter().filter_map(|seen| {
        if let Seen::Input { bytes, .. } = seen {
            Some(String::from_utf8(bytes.to_vec()).unwrap())
        } else if let Seen::Resized { size, .. } = seen {
            Some(format!("{}x{}", size.cols, size.rows))
        } else {
            None
        }
    });
    let order: Vec<_> = order.collect();
    assert_eq!(order, ["a", "132x50", "b", "132x50", "c"]);
    assert_eq!(shell.size(), size);
}

#[tokio::test(start_paused = true)]
async fn a_write_larger_than_the_queue_arrives_whole() {
    let rig = rig(ScriptedHost::new().on_shell(Script::new()));
    let session = rig.connect().await;
    let shell = rig.open(&session).await;
    let bytes: Bytes = (0..5_000_001_u32).map(|n| b'a' + (n % 26) as u8).collect::<Vec<_>>().into();
    assert_eq!(rig.engine.write_shell(&shell, None, bytes.clone()).await, Ok(bytes.len()));
    assert!(rig.host.input("") == bytes);
}

#[tokio::test(start_paused = true)]
async fn a_shell_that_reads_nothing_takes_so_much_and_no_more() {
    const QUEUE: usize = InputQueue::<Frame>::FRAMES * 32 * 1024;
    // What it prints meanwhile is no sign of life.
    let mut chatty = Script::new().not_reading();
    for _ in 0..100 {
        chatty = chatty.after(ms(300)).out("still here\r\n");
    }
    let rig = rig(ScriptedHost::new().on_shell(chatty));
    let session = rig.connect().await;
    let shell = rig.open(&session).await;
    let write = |bytes: usize| rig.engine.write_shell(&shell, None, vec![b'x'; bytes].into());
    // One piece is on its way, the others wait behind it.
    for (bytes, accepted) in [(QUEUE + 100_000, QUEUE + 32 * 1024), (100_000, 0), (1, 0)] {
        let began = rig.now();
        assert_eq!(write(bytes).await, Err(WriteError::Stuck { accepted }));
        assert_eq!(rig.now() - began, 5 * SECOND);
    }
    rig.engine.close_shell(&shell, Manner::Kill, SECOND).await;
    assert_eq!(write(1).await, Err(WriteError::Closed { accepted: 0 }));
    assert_eq!(write(0).await, Err(WriteError::Closed { accepted: 0 }));
    rig.pass(ms(1)).await;
    assert_eq!(rig.host.open_channels(), 0, "the stuck input holds nothing");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_meets_the_end_says_so() {
    let rig = rig(ScriptedHost::new().on_shell(Script::runs_for(SECOND).not_reading()));
    let session = rig.connect().await;
    let shell = rig.open(&session).await;
    let sent = rig.engine.write_shell(&shell, None, Bytes::from_static(b"text")).await;
    assert_eq!(sent, Err(WriteError::Closed { accepted: 4 }));
    assert_eq!(rig.now(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_closed_shell_tells_how_it_ended() {
    use Manner::{HangUp, Kill};
    let ignoring = |signals: &[Signal]| Script::new().ignoring(signals);
    let cases = [
        (Script::new(), HangUp, 0, Some("signal-1")),
        (Script::new(), Kill, 0, Some("killed")),
        (ignoring(&[Signal::Hup]), HangUp, 2000, None),
        (ignoring(&[Signal::Hup]), Kill, 0, Some("killed")),
        (Script::new().unreached_by_signals(), Kill, 1000, None),
        (ignoring(&[Signal::Hup]).after(2900 * ms(1)).exit(4).never_closing(), HangUp, 2400, Some("exit-4")),
    ];
    for (script, manner, after, word) in cases {
        let rig = rig(ScriptedHost::new().on_shell(script));
        let session = rig.connect().await;
        let shell = rig.open(&session).await;
        rig.pass(SECOND).await;
        let began = rig.now();
        assert_eq!(rig.engine.close_shell(&shell, manner, 10 * SECOND).await, CloseShell::Done);
        assert_eq!((rig.now() - began).as_millis(), after);
        let end = shell.ending.get().unwrap();
        assert_eq!(
            (end.reason, exit_reason(end.reason, end.facts.as_ref()).as_deref()),
            (Reason::ManualClose, word)
        );
        assert_eq!(rig.engine.close_shell(&shell, manner, SECOND).await, CloseShell::AlreadyClosed);
        assert_eq!(session.shells.in_use(), 0);
        rig.pass(ms(1)).await;
        assert_eq!(rig.host.open_channels(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_waits_no_longer_than_it_is_asked_to() {
    let rig = rig(ScriptedHost::new().on_shell(Script::new().ignoring(&[Signal::Hup])));
    let session = rig.connect().await;
    let shell = rig.open(&session).await;
    rig.pass(SECOND).await;
    assert_eq!(rig.engine.close_shell(&shell, Manner::HangUp, ms(300)).await, CloseShell::Done);
    assert_eq!((rig.now(), shell.is_running()), (ms(1300), true));
    let write = rig.engine.write_shell(&shell, None, Bytes::from_static(b"x")).await;
    assert_eq!(write, Err(WriteError::Closed { accepted: 0 }), "it is going");
    assert_eq!(rig.engine.close_shell(&shell, Manner::HangUp, MINUTE).await, CloseShell::AlreadyClosed);
    assert_eq!((rig.now(), shell.is_running()), (3 * SECOND, false));
}

#[tokio::test(start_paused = true)]
async fn a_shell_that_ends_by_itself_says_why() {
    let exits = |script: Script| script.after(SECOND);
    let cases = [
        (exits(Script::new()).exit(0), Reason::Completed, Some(Exit::Status(0)), 1000),
        (exits(Script::new()).exit(3).holding_output(HOUR), Reason::Completed, Some(Exit::Status(3)), 1500),
        (
            exits(Script::new()).exit_signal("SEGV"),
            Reason::Completed,
            Some(Exit::Signal("SEGV".into())),
            1000,
        ),
        (exits(Script::new()).lose_connection(), Reason::ConnectionLost, None, 1000),
        (Script::new().refusing("shell"), Reason::Failed, None, 0),
    ];
    for (script, reason, exit, after) in cases {
        let rig = rig(ScriptedHost::new().on_shell(script));
        let session = rig.connect().await;
        let shell = rig.open(&session).await;
        assert_eq!(rig.engine.await_shell_bytes(&shell, 0, 1, HOUR).await, ShellWait::Ended);
        assert_eq!(rig.now().as_millis(), after);
        let end = shell.ending.get().unwrap();
        assert_eq!((end.reason, &end.facts), (reason, &exit));
        assert_eq!((session.shells.in_use(), session.life.snapshot().refs), (0, 0));
        rig.pass(ms(1)).await;
        assert_eq!(rig.host.open_channels(), 0);
    }
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let shell = rig.open(&session).await;
    rig.write(&shell, "exit\n").await;
    assert_eq!(rig.engine.await_shell_match(&shell, 0, &["no".into()], HOUR).await, ShellMatch::Ended);
    assert_eq!(shell_end(&shell), Reason::Completed);
}

#[tokio::test(start_paused = true)]
async fn output_that_the_exit_has_overtaken_comes_before_the_shell_ends() {
    const PACKET: usize = 32 << 10;
    let behind_the_exit = |pieces: &[(u64, usize)], held: Duration| {
        let script = Script::new().out("first").exit(3).holding_output(held);
        pieces.iter().fold(script, |script, (pause, size)| script.after(ms(*pause)).out("x".repeat(*size)))
    };
    // Pieces behind the exit, how long the terminal is held, when the shell is over, what has come by then.
    let cases = [
        (&[(400, PACKET), (1500, PACKET), (1500, PACKET)][..], 3600, 3600, 5 + 3 * PACKET),
        // A terminal gives no more than 4095 bytes at once, and a child goes on printing.
        (
            &[(400, PACKET), (1500, 4095), (200, 4095), (200, 4095)][..],
            HOUR.as_millis() as u64,
            2400,
            5 + PACKET + 3 * 4095,
        ),
        (
            &[(100, 4095), (100, 4095), (100, 4095), (300, 4095)][..],
            HOUR.as_millis() as u64,
            500,
            5 + 3 * 4095,
        ),
    ];
    for (pieces, held, over, printed) in cases {
        let rig = rig(ScriptedHost::new().on_shell(behind_the_exit(pieces, ms(held))));
        let session = rig.connect().await;
        let shell = rig.open(&session).await;
        assert_eq!(rig.engine.await_shell_bytes(&shell, 0, u64::MAX, HOUR).await, ShellWait::Ended);
        assert_eq!((rig.now(), shell.history.mark().end), (ms(over), printed as u64), "{pieces:?}");
        assert_eq!(
            (shell_end(&shell), shell.ending.get().unwrap().facts.clone()),
            (Reason::Completed, Some(Exit::Status(3)))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_shell_that_is_closed_is_not_waited_for_longer_than_5_s_whatever_comes() {
    let flood =
        |script: Script| (0..40).fold(script, |script, _| script.out("x".repeat(32 << 10)).after(ms(500)));
    let cases = [
        // The close comes before the exit and behind it.
        flood(Script::new().ignoring(&[Signal::Hup]).after(ms(1500)).exit(0)),
        flood(Script::new().exit(0)),
    ];
    for script in cases {
        let rig = rig(ScriptedHost::new().on_shell(script.never_closing()));
        let session = rig.connect().await;
        let shell = rig.open(&session).await;
        rig.pass(SECOND).await;
        assert_eq!(rig.engine.close_shell(&shell, Manner::HangUp, HOUR).await, CloseShell::Done);
        assert_eq!((rig.now(), shell_end(&shell)), (6 * SECOND, Reason::ManualClose));
    }
}

#[tokio::test(start_paused = true)]
async fn ten_shells_are_open_and_the_next_needs_a_place() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let mut shells = Vec::new();
    for _ in 0..10 {
        shells.push(rig.open(&session).await);
    }
    let refused = rig.engine.open_shell(&rig.owner, ask_shell(&session)).await.err();
    assert!(matches!(refused, Some(StartError::TooManyShells { limit: 10 })));
    for shell in &shells {
        assert_eq!(rig.engine.close_shell(shell, Manner::HangUp, SECOND).await, CloseShell::Done);
        rig.open(&session).await;
    }
    rig.host.then_refuse_channels(1);
    rig.engine
        .close_shell(&rig.engine.registries().shells.of_session(session.spec.id)[0], Manner::HangUp, SECOND)
        .await;
    assert!(rig.engine.open_shell(&rig.owner, ask_shell(&session)).await.is_err());
    assert_eq!(session.shells.in_use(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_name_belongs_to_one_open_shell_of_a_target() {
    let rig = rig(ScriptedHost::new());
    let (session, same_target) = (rig.connect().await, rig.connect().await);
    let elsewhere = Target { username: "you".into(), ..target() };
    let other = connected(rig.ask(Connect { goal: to(elsewhere), ..ask_connect(Reuse::Auto) }).await);

    let (shell, how) = rig.open_named(&session, "build", Ensure::Yes).await.unwrap();
    assert_eq!(how, Opening::Created);
    for on in [&session, &same_target] {
        let (found, how) = rig.open_named(on, "build", Ensure::Yes).await.unwrap();
        assert!(Arc::ptr_eq(&found, &shell));
        assert_eq!(how, Opening::Reused { matched_by: "name" });
        let refused = rig.open_named(on, "build", Ensure::No).await.err();
        assert!(
            matches!(refused, Some(StartError::NameInUse { name, shell: id }) if name == "build" && id == shell.spec.id)
        );
    }
    assert_eq!(rig.open_named(&other, "build", Ensure::No).await.unwrap().1, Opening::Created);
    assert_eq!(rig.open_named(&session, "test", Ensure::Yes).await.unwrap().1, Opening::Created);

    let newest = rig.open(&same_target).await;
    let ask = OpenShell { ensure: Ensure::Yes, ..ask_shell(&session) };
    let found = rig.engine.open_shell(&rig.owner, ask).await.unwrap();
    assert!(Arc::ptr_eq(&found.shell, &newest));
    assert_eq!(found.how, Opening::Reused { matched_by: "target" });

    rig.engine.close_shell(&shell, Manner::HangUp, Duration::ZERO).await;
    assert_eq!(rig.open_named(&session, "build", Ensure::No).await.unwrap().1, Opening::Created);
}

#[tokio::test(start_paused = true)]
async fn of_two_who_open_one_name_at_once_one_opens_it() {
    for ensure in [Ensure::Yes, Ensure::No] {
        let host = ScriptedHost::new();
        let rig = rig_on(host.clone(), Arc::new(Faulty(host, Fault::SlowOpen)), |_| {});
        let session = rig.connect().await;
        let open = || rig.open_named(&session, "build", ensure);
        let answers: [_; 2] = tokio::join!(open(), open()).into();
        let created = answers.iter().flatten().filter(|(_, how)| *how == Opening::Created).count();
        assert_eq!(created, 1);
        match (ensure, answers) {
            (Ensure::Yes, [Ok((one, _)), Ok((two, _))]) => assert!(Arc::ptr_eq(&one, &two)),
            (Ensure::No, [Ok(_), Err(StartError::NameInUse { .. })]) => {}
            (Ensure::No, [Err(StartError::NameInUse { .. }), Ok(_)]) => {}
            (Ensure::Yes | Ensure::No, _) => panic!("both or none"),
        }
        rig.pass(ms(1)).await;
        assert_eq!((rig.host.open_channels(), session.shells.in_use()), (1, 1));
        assert_eq!(session.life.snapshot().refs, 1);
    }
}

/// A shell that prints its output in pieces 100 ms apart.
async fn printing(pieces: &[&'static str]) -> (Rig, Arc<Shell>) {
    let mut script = Script::new();
    for piece in pieces {
        script = script.out(*piece).after(ms(100));
    }
    let rig = rig(ScriptedHost::new().on_shell(script));
    let session = rig.connect().await;
    let shell = rig.open(&session).await;
    (rig, shell)
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_bytes_ends_when_so_many_are_there() {
    let (rig, shell) = printing(&["12345", "67", "890"]).await;
    let wait = |from, min, patience| rig.engine.await_shell_bytes(&shell, from, min, patience);
    assert_eq!(wait(0, 1, SECOND).await, ShellWait::Bytes);
    assert_eq!(rig.now(), Duration::ZERO);
    assert_eq!(wait(5, 3, SECOND).await, ShellWait::Bytes);
    assert_eq!(rig.now(), ms(200));
    assert_eq!(wait(5, 3, Duration::ZERO).await, ShellWait::Bytes, "what is there needs no patience");
    assert_eq!(wait(10, 1, SECOND).await, ShellWait::Patience);
    assert_eq!(rig.now(), ms(1200));
    assert_eq!(shell.life.snapshot().observers, 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_quiet_ends_when_output_came_and_then_none() {
    let (rig, shell) = printing(&["a", "b", "c", ""]).await;
    let wait = |from, patience, quiet| rig.engine.await_shell_quiet(&shell, from, patience, quiet);
    assert_eq!(wait(0, SECOND, ms(5)).await, ShellWait::Bytes);
    assert_eq!(rig.now(), ms(5));
    assert_eq!(wait(0, SECOND, ms(150)).await, ShellWait::Bytes, "each piece begins the quiet anew");
    assert_eq!(rig.now(), ms(350));
    assert_eq!(wait(3, ms(100), ms(5)).await, ShellWait::Patience);
    assert_eq!(rig.now(), ms(450));
    assert_eq!(wait(0, ms(1), HOUR).await, ShellWait::Bytes, "the patience bounds the quiet too");
}

#[tokio::test(start_paused = true)]
async fn a_pattern_is_found_across_pieces_and_escape_sequences() {
    let (rig, shell) = printing(&["\x1b[1mlo", "gin\x1b", "[0m: ", "pass", "word"]).await;
    let wait = |from, patterns: &[&str], patience| {
        let patterns: Vec<String> = patterns.iter().map(|text| (*text).into()).collect();
        let (rig, shell) = (&rig, &shell);
        async move { rig.engine.await_shell_match(shell, from, &patterns, patience).await }
    };
    let matched = |pattern, end| ShellMatch::Matched { pattern, end };
    assert_eq!(wait(0, &["nothing", "login: "], HOUR).await, matched(1, 15));
    assert_eq!(rig.now(), ms(200));
    assert_eq!(wait(0, &["login: "], Duration::ZERO).await, matched(0, 15), "what is there matches at once");
    assert_eq!(wait(15, &["login"], ms(10)).await, ShellMatch::Patience);
    assert_eq!(wait(15, &["password", "pass"], HOUR).await, matched(1, 19));
    assert_eq!(wait(15, &["password"], HOUR).await, matched(0, 23));
    assert_eq!(wait(0, &["\x1b[0m"], HOUR).await, matched(0, 13), "as it came, too");
}

#[tokio::test(start_paused = true)]
async fn a_pattern_is_found_behind_megabytes() {
    let noise = "x\x1b[1m".repeat(400_000);
    let mut script = Script::new();
    for _ in 0..2 {
        script = script.out(noise.clone());
    }
    let rig = rig(ScriptedHost::new().on_shell(script.out("needle").out(noise)));
    let session = rig.connect().await;
    let ask = OpenShell { history: 10 << 20, ..ask_shell(&session) };
    let shell = rig.engine.open_shell(&rig.owner, ask).await.unwrap().shell;
    let found = rig.engine.await_shell_match(&shell, 0, &["needle".into()], SECOND).await;
    assert_eq!(found, ShellMatch::Matched { pattern: 0, end: 4_000_006 });
}
