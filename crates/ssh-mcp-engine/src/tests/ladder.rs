//! How commands are ended: by the ladder, whoever asks for it.

use ssh_mcp_core::{
    kind::command::{EndedBy, Exit, Output, Status},
    port::ssh::Signal::{self, Kill, Term},
};

use super::{
    wire::{Fault, Faulty},
    *,
};
use crate::{Cancel, Drained};

/// A program that has to be ended, and what the ladder makes of it.
struct Case {
    name: &'static str,
    host: fn(ScriptedHost) -> ScriptedHost,
    script: fn(Script) -> Script,
    terminal: Terminal,
    ended_by: EndedBy,
    after: u64,
    signals: &'static [Signal],
    survives: bool,
}

const CASES: [Case; 11] = [
    Case { name: "obedient", ..PLAIN },
    Case {
        name: "ignores TERM",
        script: |s| s.ignoring(&[Term]),
        ended_by: EndedBy::Kill,
        after: 2000,
        signals: &[Term, Kill],
        ..PLAIN
    },
    Case {
        name: "no signal reaches it",
        script: Script::unreached_by_signals,
        ended_by: EndedBy::Kill,
        after: 3000,
        signals: &[Term, Kill],
        ..PLAIN
    },
    Case {
        name: "nothing reaches it, group unknown",
        host: ScriptedHost::with_foreign_shell,
        script: Script::unreached_by_signals,
        ended_by: EndedBy::Close,
        after: 3000,
        signals: &[Term, Kill],
        survives: true,
        ..PLAIN
    },
    Case {
        name: "nothing ends it",
        script: |s| s.unreached_by_signals().ignoring(&[Kill]),
        ended_by: EndedBy::Close,
        after: 4000,
        signals: &[Term, Kill],
        survives: true,
        ..PLAIN
    },
    Case { name: "a child holds its output", script: Script::never_closing, after: 1500, ..PLAIN },
    Case {
        name: "a child holds its output, group unknown",
        host: ScriptedHost::with_foreign_shell,
        script: Script::never_closing,
        after: 500,
        ..PLAIN
    },
    Case { name: "interrupted", ended_by: EndedBy::Interrupt, signals: &[], ..PTY },
    Case { name: "ignores the interrupt", script: Script::ignoring_interrupt, after: 250, ..PTY },
    Case {
        name: "ignores interrupt and TERM",
        script: |s| s.ignoring_interrupt().ignoring(&[Term]),
        ended_by: EndedBy::Kill,
        after: 2250,
        signals: &[Term, Kill],
        ..PTY
    },
    Case {
        name: "reached by nothing on a terminal",
        script: |s| s.ignoring_interrupt().unreached_by_signals(),
        ended_by: EndedBy::Kill,
        after: 3250,
        signals: &[Term, Kill],
        ..PTY
    },
];

const PLAIN: Case = Case {
    name: "",
    host: |host| host,
    script: |script| script,
    terminal: Terminal::None,
    ended_by: EndedBy::Signal,
    after: 0,
    signals: &[Term],
    survives: false,
};

const PTY: Case = Case { terminal: Terminal::Pty, ..PLAIN };

impl Case {
    /// The command runs and has printed something.
    async fn begin(&self, limit: Duration) -> (Rig, Arc<Session>, Arc<Command>) {
        let script = (self.script)(Script::new().out("so far"));
        let rig = rig((self.host)(ScriptedHost::new()).on("work", script));
        let session = rig.connect().await;
        let ask = Exec { terminal: self.terminal, limit: Some(limit), ..ask_exec(&session, "work") };
        let command = rig.engine.exec(&rig.owner, ask).await.unwrap();
        rig.pass(SECOND).await;
        (rig, session, command)
    }

    fn check(&self, rig: &Rig, session: &Session, command: &Command, took: Duration, status: Status) {
        let facts = facts(command);
        assert_eq!((facts.status, facts.ended_by), (status, Some(self.ended_by)), "{}", self.name);
        let took = took.as_millis() as u64;
        assert!((self.after..=self.after + 2).contains(&took), "{}: {took}", self.name);
        assert_eq!(rig.host.signals("work"), self.signals, "{}", self.name);
        assert_eq!(rig.host.running("work"), usize::from(self.survives), "{}", self.name);
        assert_eq!((output(command).as_str(), facts.output), ("so far", Output::Ended), "{}", self.name);
        assert_eq!(session.commands.in_use(), 0, "{}", self.name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_climbs_until_an_end_is_seen() {
    for case in CASES {
        let (rig, session, command) = case.begin(HOUR).await;
        let began = rig.now();
        assert_eq!(rig.engine.cancel(&command).await, Cancel::Done);
        case.check(&rig, &session, &command, rig.now() - began, Status::Cancelled);
        assert_eq!(reason(&command), Reason::Cancelled);
        assert_eq!(rig.engine.cancel(&command).await, Cancel::AlreadyOver);
        rig.pass(ms(5)).await;
        assert_eq!(rig.host.open_channels(), 0, "{}", case.name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_limit_climbs_the_same_ladder() {
    for case in CASES {
        let (rig, session, command) = case.begin(10 * SECOND).await;
        rig.ended(&command).await;
        case.check(&rig, &session, &command, rig.now() - 10 * SECOND, Status::TimedOut);
        assert_eq!(reason(&command), Reason::TimedOut);
    }
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_climbs_the_same_ladder() {
    for case in CASES {
        let (rig, session, command) = case.begin(HOUR).await;
        let began = rig.now();
        let ended = rig.engine.disconnect(&rig.owner, session.spec.id).await.unwrap();
        assert_eq!(ended.commands_cancelled, 1);
        case.check(&rig, &session, &command, rig.now() - began, Status::Cancelled);
        rig.check_left_nothing(&session);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_climbs_the_same_ladder() {
    for case in CASES {
        let (rig, session, command) = case.begin(HOUR).await;
        let began = rig.now();
        assert_eq!(rig.engine.shutdown().await, Drained::Clean);
        case.check(&rig, &session, &command, rig.now() - began, Status::Cancelled);
        assert_eq!(reason(&command), Reason::ServerShutdown);
        rig.check_left_nothing(&session);
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_group_that_is_known_is_told() {
    let group_known: Vec<bool> = {
        let mut known = Vec::new();
        for case in CASES {
            let (rig, _, command) = case.begin(HOUR).await;
            rig.engine.cancel(&command).await;
            known.push(facts(&command).pid.is_some());
        }
        known
    };
    let expected = CASES.map(|case| !case.name.contains("group unknown"));
    assert_eq!(group_known, expected);
}

#[tokio::test(start_paused = true)]
async fn an_exit_that_is_seen_is_kept_with_what_ended_it() {
    for (script, exit) in [
        (Script::new(), Exit::Signal("TERM".into())),
        (Script::new().ignoring(&[Term]).after(3 * SECOND).exit(7), Exit::Status(7)),
    ] {
        let rig = rig(ScriptedHost::new().on("work", script));
        let session = rig.connect().await;
        let command = rig.exec(&session, "work").await;
        rig.pass(2 * SECOND).await;
        rig.engine.cancel(&command).await;
        assert_eq!(facts(&command).exit, Some(exit));
        assert_eq!(facts(&command).ended_by, Some(EndedBy::Signal));
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_cancelled_before_it_was_started_never_runs() {
    // The login shell is still being asked.
    let rig = rig(ScriptedHost::new().on("$((6*7))", Script::runs_for(MINUTE)).on("work", Script::new()));
    let session = rig.connect().await;
    let command = rig.exec(&session, "work").await;
    rig.pass(ms(100)).await;
    assert_eq!(rig.engine.cancel(&command).await, Cancel::Done);
    assert_eq!(rig.now(), ms(100));
    assert_eq!((facts(&command).status, facts(&command).ended_by), (Status::Cancelled, None));
    rig.pass(SECOND).await;
    assert!(!rig.host.command_lines().contains(&"work".into()));
    assert_eq!((rig.host.open_channels(), session.commands.in_use()), (1, 0), "that of the probe");
}

#[tokio::test(start_paused = true)]
async fn input_that_still_waits_is_given_up() {
    let host = ScriptedHost::new().on("work", Script::new().ignoring_interrupt().never_closing());
    let rig = rig_on(host.clone(), Arc::new(Faulty(host, Fault::SlowInput)), |_| {});
    let session = rig.connect().await;
    let input = Some(Bytes::from_static(b"for nobody"));
    let ask = Exec { input, terminal: Terminal::Pty, ..ask_exec(&session, "work") };
    let command = rig.engine.exec(&rig.owner, ask).await.unwrap();
    rig.pass(ms(100)).await;
    rig.engine.cancel(&command).await;
    assert_eq!(facts(&command).ended_by, Some(EndedBy::Signal));
    assert!(rig.now() > SECOND, "it was open long enough to be written to");
    assert_eq!(rig.host.input("work"), b"\x03");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_comes_after_the_exit_finds_it_over() {
    let rig = rig(ScriptedHost::new().on("server &", Script::exits(0).holding_output(HOUR)));
    let session = rig.connect().await;
    let command = rig.exec(&session, "server &").await;
    rig.pass(ms(100)).await;
    assert_eq!(command.status(), Status::Running, "its output may still end");
    assert_eq!(rig.engine.cancel(&command).await, Cancel::AlreadyOver);
    assert_eq!((facts(&command).status, reason(&command)), (Status::Completed, Reason::Completed));
}

#[tokio::test(start_paused = true)]
async fn a_cancel_whose_caller_leaves_goes_on() {
    let rig = rig(ScriptedHost::new().on("work", Script::new().ignoring(&[Term])));
    let session = rig.connect().await;
    let command = rig.exec(&session, "work").await;
    rig.pass(SECOND).await;
    assert!(tokio::time::timeout(ms(10), rig.engine.cancel(&command)).await.is_err());
    rig.ended(&command).await;
    assert_eq!((facts(&command).status, rig.now()), (Status::Cancelled, 3 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn output_that_the_exit_of_a_cancelled_command_has_overtaken_is_kept() {
    let packet = || "x".repeat(32 << 10);
    let script = Script::new().ignoring(&[Term]).after(ms(1300)).exit(0);
    let script = script.after(ms(400)).out(packet()).after(ms(1500)).out(packet());
    let rig = rig(ScriptedHost::new().on("over a slow line", script.holding_output(2 * SECOND)));
    let session = rig.connect().await;
    let command = rig.exec(&session, "over a slow line").await;
    rig.pass(SECOND).await;
    assert_eq!(rig.engine.cancel(&command).await, Cancel::Done);
    assert_eq!((rig.now(), output(&command).len()), (ms(3300), 2 * (32 << 10)));
}
