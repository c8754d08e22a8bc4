//! Timers: who ends what nobody uses, what is kept and for how long, who may see it, and the way out.

use ssh_mcp_core::{
    id::{CommandId, Id},
    kind::command::Status,
    lifecycle::State,
    port::ssh::Signal,
    registry::{Entry, Manner},
    uri::{Resource, Scheme},
};

use super::{
    wire::{Fault, Faulty},
    *,
};
use crate::{Drained, Missing, Observable, Peer};

fn sleeper() -> Rig {
    rig(ScriptedHost::new().on("sleep", Script::new()).on("true", Script::exits(0)))
}

fn releasing(session: &Session) -> Exec {
    Exec { limit: None, auto_release: AutoRelease::On, ..ask_exec(session, "sleep") }
}

async fn releasing_shell(rig: &Rig, session: &Session) -> Arc<Shell> {
    let ask = OpenShell { auto_release: AutoRelease::On, inactivity: None, ..ask_shell(session) };
    rig.engine.open_shell(&rig.owner, ask).await.unwrap().shell
}

// ---- resources that release themselves

/// lifecycle 6.15
#[tokio::test(start_paused = true)]
async fn what_releases_itself_and_is_never_observed_ends_after_its_own_grace() {
    let rig = sleeper();
    let session = rig.connect().await;
    let command = rig.engine.exec(&rig.owner, releasing(&session)).await.unwrap();
    let shell = releasing_shell(&rig, &session).await;
    let kept = rig.exec(&session, "sleep").await;
    rig.pass(30 * SECOND - ms(1)).await;
    assert_eq!((command.status(), shell.is_running()), (Status::Running, true));
    rig.pass(ms(10)).await;
    assert_eq!((facts(&command).status, reason(&command)), (Status::Cancelled, Reason::NeverObserved));
    assert_eq!(shell_end(&shell), Reason::NeverObserved);
    assert_eq!(rig.host.signals("sleep"), [Signal::Term]);
    assert_eq!(kept.status(), Status::Running);
}

/// lifecycle 6.13, 6.14
#[tokio::test(start_paused = true)]
async fn an_observer_voids_the_timer_and_its_leaving_starts_a_new_one() {
    let rig = sleeper();
    let session = rig.connect().await;
    let command = rig.engine.exec(&rig.owner, releasing(&session)).await.unwrap();
    let shell = releasing_shell(&rig, &session).await;
    for _ in 0..5 {
        rig.pass(29 * SECOND).await;
        assert_eq!(rig.engine.await_command(&command, SECOND).await, Waited::Patience);
        drop(rig.engine.observe(Observable::Shell(&shell)).unwrap());
    }
    assert_eq!(command.life.snapshot().state, State::Releasing);
    rig.pass(30 * SECOND - ms(1)).await;
    assert_eq!((command.status(), shell.is_running()), (Status::Running, true));
    rig.pass(ms(10)).await;
    assert_eq!(reason(&command), Reason::UnsubscribeGraceElapsed);
    assert_eq!(shell_end(&shell), Reason::UnsubscribeGraceElapsed);
    assert!(rig.engine.observe(Observable::Shell(&shell)).is_none(), "a closed one is read without");
}

#[tokio::test(start_paused = true)]
async fn while_one_observer_is_left_no_timer_runs() {
    let rig = sleeper();
    let session = rig.connect().await;
    let shell = releasing_shell(&rig, &session).await;
    let observers = [(); 2].map(|()| rig.engine.observe(Observable::Shell(&shell)).unwrap());
    let [one, two] = observers;
    drop(one);
    rig.pass(HOUR).await;
    assert!(shell.is_running());
    drop(two);
    rig.pass(31 * SECOND).await;
    assert!(!shell.is_running());
}

#[tokio::test(start_paused = true)]
async fn input_pushes_the_end_away() {
    let rig = sleeper();
    let session = rig.connect().await;
    let shell = releasing_shell(&rig, &session).await;
    for _ in 0..5 {
        rig.pass(20 * SECOND).await;
        rig.write(&shell, "x").await;
    }
    rig.pass(30 * SECOND - ms(1)).await;
    assert!(shell.is_running());
    rig.pass(ms(10)).await;
    assert_eq!(shell_end(&shell), Reason::NeverObserved);
}

// ---- inactivity

#[tokio::test(start_paused = true)]
async fn a_shell_without_input_output_and_observer_is_closed() {
    let rig = rig(ScriptedHost::new().on("tick", Script::prints("tock\r\n")));
    let session = rig.connect().await;
    let open = async |inactivity| {
        let ask = OpenShell { inactivity, ..ask_shell(&session) };
        rig.engine.open_shell(&rig.owner, ask).await.unwrap().shell
    };
    let (idle, used, observed, eternal) =
        (open(Some(MINUTE)).await, open(Some(MINUTE)).await, open(Some(MINUTE)).await, open(None).await);
    let observer = rig.engine.observe(Observable::Shell(&observed));
    rig.pass(50 * SECOND).await;
    rig.write(&used, "tick\n").await;
    rig.pass(9 * SECOND).await;
    assert!(idle.is_running());
    rig.pass(6 * SECOND).await;
    assert_eq!(shell_end(&idle), Reason::InactivityTtlFired);
    rig.pass(44 * SECOND).await;
    assert!(used.is_running());
    rig.pass(7 * SECOND).await;
    assert!(!used.is_running());
    rig.pass(HOUR).await;
    drop(observer);
    rig.pass(50 * SECOND).await;
    assert!(observed.is_running(), "its time begins when the observer leaves");
    rig.pass(15 * SECOND).await;
    assert!(!observed.is_running());
    assert!(eternal.is_running());
}

// ---- sessions

/// lifecycle 6.28
#[tokio::test(start_paused = true)]
async fn an_idle_session_ends_a_grace_after_its_expiry_unless_it_is_used() {
    let rig = sleeper();
    let (idle, used, eternal) = (
        rig.connect().await,
        rig.connect().await,
        connected(rig.ask(Connect { expiry: Expiry::Never, ..ask_connect(Reuse::ForceNew) }).await),
    );
    assert_eq!((idle.expires(), eternal.expires()), (Some(300 * SECOND), None));
    rig.pass(299 * SECOND).await;
    rig.engine.session(&rig.owner, used.spec.id).unwrap();
    rig.pass(5 * SECOND).await;
    assert!(idle.is_open(), "the grace is not over");
    rig.pass(7 * SECOND).await;
    assert_eq!(idle.ended().unwrap().0, Reason::InactivityTtlFired);
    assert_eq!([used.is_open(), eternal.is_open()], [true, true]);
    rig.pass(300 * SECOND).await;
    assert_eq!([used.is_open(), eternal.is_open()], [false, true]);
    rig.check_left_nothing(&idle);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_held_never_expires_and_its_time_begins_with_the_end() {
    let rig = sleeper();
    let session = rig.connect().await;
    let shell = rig
        .engine
        .open_shell(&rig.owner, OpenShell { inactivity: None, ..ask_shell(&session) })
        .await
        .unwrap()
        .shell;
    rig.pass(HOUR).await;
    assert!(session.is_open());
    rig.engine.close_shell(&shell, Manner::HangUp, SECOND).await;
    assert_eq!(session.expires(), Some(rig.now() + 300 * SECOND));
    rig.pass(299 * SECOND).await;
    assert!(session.is_open());
    rig.pass(12 * SECOND).await;
    assert!(!session.is_open());
}

#[tokio::test(start_paused = true)]
async fn every_call_that_names_a_session_or_what_runs_on_it_is_a_use() {
    type Use = for<'a> fn(
        &'a Rig,
        &'a Session,
        &'a Command,
        &'a Shell,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>>;
    let uses: [(&str, Use); 5] = [
        ("session", |rig, session, _, _| {
            Box::pin(async { rig.engine.session(&rig.owner, session.spec.id).map(|_| ()).unwrap() })
        }),
        ("command", |rig, _, command, _| {
            Box::pin(async { rig.engine.command(&rig.owner, command.spec.id).map(|_| ()).unwrap() })
        }),
        ("shell", |rig, _, _, shell| {
            Box::pin(async { rig.engine.shell(&rig.owner, shell.spec.id).map(|_| ()).unwrap() })
        }),
        ("reuse", |rig, _, _, _| {
            Box::pin(async { rig.ask(ask_connect(Reuse::Auto)).await.map(|_| ()).unwrap() })
        }),
        ("exec", |rig, session, _, _| {
            Box::pin(async {
                rig.run(ask_exec(session, "true")).await;
            })
        }),
    ];
    for (name, act) in uses {
        let rig = sleeper();
        let session = rig.connect().await;
        let command = rig.run(ask_exec(&session, "true")).await;
        let shell = rig.open(&session).await;
        rig.engine.close_shell(&shell, Manner::HangUp, SECOND).await;
        rig.pass(50 * SECOND).await;
        act(&rig, &session, &command, &shell).await;
        let left = session.expires().unwrap() - rig.now();
        assert!(left >= 300 * SECOND - ms(2), "{name}: {left:?}");
    }
    let rig = sleeper();
    let session = rig.connect().await;
    rig.pass(50 * SECOND).await;
    rig.engine.probe(&rig.owner, None).await;
    rig.ask(ask_connect(Reuse::Suggest)).await.unwrap();
    assert_eq!(session.expires(), Some(300 * SECOND), "to be listed is no use");
}

// ---- what is kept

#[tokio::test(start_paused = true)]
async fn an_ended_command_is_kept_whole_then_its_newest_part_then_its_reason() {
    let text = "x".repeat(100_000) + "end";
    let rig = rig(ScriptedHost::new().on("work", Script::prints(text)));
    let session = rig.connect().await;
    let command = rig.run(ask_exec(&session, "work")).await;
    let (id, ended) = (command.spec.id, rig.now());
    rig.pass(59 * SECOND).await;
    assert_eq!(command.history.held(), 100_003);
    rig.pass(6 * SECOND).await;
    assert_eq!(command.history.held(), 64 * 1024);
    assert!(output(&command).ends_with("xend"));
    assert_eq!(command.history.mark().end, 100_003, "offsets stay what they were");

    rig.pass(ended + HOUR - SECOND - rig.now()).await;
    let read = rig.now();
    assert!(rig.engine.command(&rig.owner, id).is_ok());
    rig.pass(HOUR - SECOND).await;
    assert!(rig.engine.registries().commands.entry(id).is_some(), "counted from its last read");
    rig.pass(7 * SECOND).await;
    let gone = rig.engine.command(&rig.owner, id).err().unwrap();
    assert!(
        matches!(gone, Missing::Gone { reason: Reason::Completed, ended: at, .. } if at == ended),
        "{gone:?} {read:?}"
    );
    rig.pass(601 * SECOND).await;
    assert!(matches!(rig.engine.command(&rig.owner, id), Err(Missing::Unknown { .. })));
}

#[tokio::test(start_paused = true)]
async fn later_output_is_no_read() {
    let mut script = Script::new().exit(0).holding_output(1000 * HOUR);
    for _ in 0..200 {
        script = script.after(MINUTE).out("still here\n");
    }
    let rig = rig(ScriptedHost::new().on("server &", script));
    let session = connected(rig.ask(Connect { expiry: Expiry::Never, ..ask_connect(Reuse::Auto) }).await);
    let command = rig.run(Exec { limit: None, ..ask_exec(&session, "server &") }).await;
    rig.pass(HOUR + 10 * SECOND).await;
    assert!(matches!(rig.engine.command(&rig.owner, command.spec.id), Err(Missing::Gone { .. })));
    assert_eq!(rig.host.open_channels(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_keeps_is_not_forgotten_however_short_its_time() {
    let rig = rig_with(ScriptedHost::new().on("true", Script::exits(0)), |settings| {
        settings.command_retention = Duration::ZERO;
    });
    let session = rig.connect().await;
    let run = async || rig.run(ask_exec(&session, "true")).await.spec.id;
    let is_here = |id| rig.engine.registries().commands.entry(id).is_some();
    let before = run().await;
    rig.pass(ms(1)).await;
    let keeps = [rig.engine.keep_ended(), rig.engine.keep_ended()];
    let after = run().await;
    rig.pass(MINUTE).await;
    assert_eq!((is_here(before), is_here(after)), (false, true));
    let [one, two] = keeps;
    drop(one);
    rig.pass(MINUTE).await;
    assert!(is_here(after));
    drop(two);
    rig.pass(10 * SECOND).await;
    assert!(!is_here(after));
}

#[tokio::test(start_paused = true)]
async fn shells_and_sessions_are_kept_by_how_they_ended() {
    let rig = rig(ScriptedHost::new().on_shell(Script::shell("$ ")));
    let session = connected(rig.ask(Connect { expiry: Expiry::Never, ..ask_connect(Reuse::Auto) }).await);
    let (exited, brief, closed) = (
        rig.open(&session).await,
        rig.engine
            .open_shell(&rig.owner, OpenShell { retention: 300 * SECOND, ..ask_shell(&session) })
            .await
            .unwrap()
            .shell,
        rig.open(&session).await,
    );
    rig.write(&exited, "exit\n").await;
    rig.write(&brief, "exit\n").await;
    rig.engine.close_shell(&closed, Manner::HangUp, SECOND).await;
    let read = rig.open(&session).await;
    rig.engine.close_shell(&read, Manner::HangUp, SECOND).await;
    let other = rig.connect().await;
    rig.engine.disconnect(&rig.owner, other.spec.id).await.unwrap();
    let here = |rig: &Rig| {
        let shells = &rig.engine.registries().shells;
        let [a, b, c] = [&exited, &brief, &closed].map(|shell| shells.entry(shell.spec.id).is_some());
        (a, b, c, rig.engine.registries().sessions.entry(other.spec.id).is_some())
    };
    for (wait, expected) in [
        (58 * SECOND, (true, true, true, true)),
        (8 * SECOND, (true, true, false, false)),
        (230 * SECOND, (true, true, false, false)),
        (10 * SECOND, (true, false, false, false)),
        (3280 * SECOND, (true, false, false, false)),
        (20 * SECOND, (false, false, false, false)),
    ] {
        rig.pass(wait).await;
        // Less than a minute passes from one look to the next only in the beginning.
        let looked_up = rig.engine.shell(&rig.owner, read.spec.id).is_ok();
        assert_eq!(looked_up, rig.now() < 100 * SECOND);
        assert_eq!(here(&rig), expected, "{:?}", rig.now());
    }
}

#[tokio::test(start_paused = true)]
async fn all_histories_together_stay_within_their_bound() {
    const MIB: usize = 1 << 20;
    let megabytes = |n: usize| Script::prints(vec![b'x'; n * MIB]);
    let flood = Script::new().out(vec![b'x'; 12 * MIB]).after(MINUTE).exit(0);
    let host = ScriptedHost::new().on("small", megabytes(2)).on("big", megabytes(6)).on("flood", flood);
    let rig = rig_with(host, |settings| settings.history_total = 16 * MIB);
    let session = rig.connect().await;
    let ask = |command| Exec { history: 16 * MIB, ..ask_exec(&session, command) };
    let mut ended = Vec::new();
    for command in ["big", "big", "small", "small"] {
        ended.push(rig.run(ask(command)).await);
        rig.pass(ms(10)).await;
    }
    let held = |commands: &[Arc<Command>]| {
        commands.iter().map(|command| command.history.held() / MIB).collect::<Vec<_>>()
    };
    rig.pass(6 * SECOND).await;
    assert_eq!(held(&ended), [6, 6, 2, 2], "all fits");
    let one = rig.engine.exec(&rig.owner, ask("flood")).await.unwrap();
    rig.pass(SECOND).await;
    assert_eq!(
        (held(&ended), held(std::slice::from_ref(&one))),
        (vec![0, 0, 2, 2], vec![12]),
        "the oldest of the ended first"
    );
    let two = rig.engine.exec(&rig.owner, ask("flood")).await.unwrap();
    rig.pass(SECOND).await;
    assert_eq!((held(&ended), held(&[one, two])), (vec![0, 0, 0, 0], vec![8, 8]), "then a fair share each");
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_another_owner_does_not_exist() {
    let rig = sleeper();
    let session = rig.connect_for("a").await;
    let command = rig.exec(&session, "sleep").await;
    let (shell, _) = rig.open_named(&session, "build", Ensure::No).await.unwrap();
    let stranger = Rig {
        host: rig.host.clone(),
        files: rig.files.clone(),
        mirror: rig.mirror.clone(),
        bus: rig.bus.clone(),
        engine: Arc::clone(&rig.engine),
        owner: Owner::token("x"),
    };
    let unknown = |missing: Option<Missing>| assert_eq!(missing, Some(Missing::Unknown { nearest: vec![] }));
    unknown(stranger.engine.session(&stranger.owner, session.spec.id).err());
    unknown(stranger.engine.command(&stranger.owner, command.spec.id).err());
    unknown(stranger.engine.shell(&stranger.owner, shell.spec.id).err());
    unknown(stranger.engine.disconnect(&stranger.owner, session.spec.id).await.err());
    let exec = stranger.engine.exec(&stranger.owner, ask_exec(&session, "sleep")).await;
    assert!(matches!(exec, Err(StartError::Session(Missing::Unknown { .. }))));
    assert!(stranger.engine.open_shell(&stranger.owner, ask_shell(&session)).await.is_err());
    assert_eq!(stranger.engine.disconnect_agent(&stranger.owner, "a").await.sessions_closed, 0);
    assert_eq!(stranger.engine.healthy_sessions_of_agents(&stranger.owner), []);
    let named = Connect { session: Some(session.spec.id), ..ask_connect(Reuse::Auto) };
    let own = connected(stranger.ask(named).await);
    assert_eq!(stranger.open_named(&own, "build", Ensure::Yes).await.unwrap().1, Opening::Created);
    assert!(session.is_open());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_identifier_gets_the_nearest_live_ones() {
    let rig = sleeper();
    let session = rig.connect().await;
    let command = rig.exec(&session, "sleep").await;
    rig.run(ask_exec(&session, "true")).await;
    let unknown = rig.engine.command(&rig.owner, CommandId::from(session.spec.id.as_uuid())).err().unwrap();
    assert_eq!(unknown, Missing::Unknown { nearest: vec![command.spec.id.to_string()] });
}

#[tokio::test(start_paused = true)]
async fn a_peer_remembers_how_far_it_has_read_what_is_newest() {
    let rig = sleeper();
    let peer = Peer::new();
    let resource = |id: CommandId| Resource { scheme: Scheme::Command, id: id.as_uuid() };
    let ids: Vec<CommandId> = (0..5000).map(|_| rig.engine.mint()).collect();
    for id in &ids {
        peer.cursor(resource(*id)).advance_contiguous(0, 7);
    }
    let known = ids.iter().map(|id| peer.cursor(resource(*id)).value());
    assert_eq!(known.rev().take(4096).filter(|at| *at == 7).count(), 4096);
    assert_eq!(peer.cursor(resource(ids[0])).value(), 0, "the oldest made room");
    assert_eq!(Peer::new().cursor(resource(ids[4999])).value(), 0, "each peer has its own");
}

// ---- the way out

/// lifecycle 6.53
#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_everything_and_lets_nothing_in() {
    let rig = sleeper();
    let session = rig.connect().await;
    let command = rig.exec(&session, "sleep").await;
    let shell = rig.open(&session).await;
    rig.pass(SECOND).await;
    let (one, two) = tokio::join!(rig.engine.shutdown(), rig.engine.shutdown());
    assert_eq!([one, two], [Drained::Clean, Drained::Clean]);
    assert!(rig.now() < 6 * SECOND && rig.engine.is_draining());
    assert_eq!(
        [reason(&command), shell_end(&shell), session.ended().unwrap().0],
        [Reason::ServerShutdown; 3]
    );
    rig.check_left_nothing(&session);
    assert!(matches!(rig.ask(ask_connect(Reuse::Suggest)).await, Err(ConnectFailure::Draining)));
    let exec = rig.engine.exec(&rig.owner, ask_exec(&session, "sleep")).await;
    assert!(matches!(exec, Err(StartError::Draining)));
    let shell = rig.engine.open_shell(&rig.owner, ask_shell(&session)).await;
    assert!(matches!(shell, Err(StartError::Draining)));
    assert_eq!(rig.engine.tasks.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_no_call_that_is_still_trying() {
    let rig = rig(ScriptedHost::new().on("sleep", Script::new()).with_places(1));
    let session = rig.connect().await;
    rig.exec(&session, "sleep").await;
    let rig = Rig { host: rig.host.clone().with_connect_time(HOUR), ..rig };
    let unbound = Connect { overall: None, ..ask_connect(Reuse::ForceNew) };
    let stop = async {
        tokio::time::sleep(SECOND).await;
        rig.engine.shutdown().await
    };
    let (connect, exec, drained) =
        tokio::join!(rig.ask(unbound), rig.engine.exec(&rig.owner, ask_exec(&session, "sleep")), stop);
    assert!(matches!(connect, Err(ConnectFailure::Draining)));
    assert!(matches!(exec, Err(StartError::Draining)));
    assert_eq!(drained, Drained::Clean);
    assert!(rig.now() < 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_leaves_in_time_and_says_how_much_it_left() {
    let stubborn = Script::new().unreached_by_signals();
    let host = ScriptedHost::new().with_foreign_shell().on("sleep", stubborn.clone()).on_shell(stubborn);
    let rig = rig_with(host, |settings| settings.shutdown_deadline = SECOND);
    let session = rig.connect().await;
    rig.exec(&session, "sleep").await;
    rig.open(&session).await;
    rig.pass(SECOND).await;
    assert_eq!(rig.engine.shutdown().await, Drained::Left(3));
    assert_eq!(rig.now(), 2 * SECOND);
    assert_eq!(rig.engine.tasks.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_never_answers_holds_nobody_up() {
    let host = ScriptedHost::new().on("sleep", Script::new());
    let rig = rig_on(host.clone(), Arc::new(Faulty(host, Fault::NoGoodbye)), |_| {});
    let (one, two) = (rig.connect().await, rig.connect().await);
    rig.exec(&one, "sleep").await;
    rig.pass(SECOND).await;
    rig.engine.disconnect(&rig.owner, one.spec.id).await.unwrap();
    assert!(rig.now() <= 6 * SECOND + ms(500), "{:?}", rig.now());
    assert_eq!(rig.engine.shutdown().await, Drained::Clean);
    assert!(rig.now() <= 12 * SECOND);
    assert!(!two.is_open());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_engine_ends_its_tasks() {
    let rig = sleeper();
    let session = rig.connect().await;
    let command = rig.engine.exec(&rig.owner, releasing(&session)).await.unwrap();
    let shell = releasing_shell(&rig, &session).await;
    rig.pass(SECOND).await;
    let (tasks, engine) = (rig.engine.tasks.clone(), Arc::downgrade(&rig.engine));
    assert!(tasks.running() > 0);
    drop(rig);
    assert!(engine.upgrade().is_none(), "no task holds it");
    tokio::time::sleep(ms(1)).await;
    assert_eq!(tasks.running(), 0);
    drop((session, command, shell));
}

#[test]
fn an_observer_may_outlive_the_runtime() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let observer = runtime.block_on(async {
        let rig = sleeper();
        let session = rig.connect().await;
        let command = rig.engine.exec(&rig.owner, releasing(&session)).await.unwrap();
        rig.engine.observe(Observable::Command(&command)).unwrap()
    });
    drop(runtime);
    drop(observer);
}
