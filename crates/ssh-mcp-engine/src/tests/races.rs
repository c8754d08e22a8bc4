//! What must hold in whatever order things happen: many rounds, in virtual time with rolled delays, and on threads.

use ssh_mcp_core::{kind::command::Status, lifecycle::SessionState, registry::Entry};

use super::*;
use crate::{Cancel, Drained};

/// Status, reason and answer of a command that was cancelled while it ended.
fn check_one_end(command: &Command, cancel: Cancel) {
    let expected = match cancel {
        Cancel::Done => (Status::Cancelled, Reason::Cancelled),
        Cancel::AlreadyOver => (Status::Completed, Reason::Completed),
    };
    assert_eq!((facts(command).status, reason(command)), expected);
}

/// lifecycle 6.16, 6.17, 6.22
#[tokio::test(start_paused = true)]
async fn a_cancel_and_a_natural_end_leave_one_of_them() {
    let mut dice = Dice(17);
    let mut seen = [0; 2];
    for _ in 0..1000 {
        let (exit, close, cancel) = (dice.roll(6), dice.roll(3), dice.roll(6));
        let script = Script::new().after(ms(exit)).exit(0).holding_output(ms(close * 300));
        let rig = rig(ScriptedHost::new().on("work", script));
        let session = rig.connect().await;
        let command = rig.exec(&session, "work").await;
        rig.pass(ms(cancel)).await;
        let answer = rig.engine.cancel(&command).await;
        check_one_end(&command, answer);
        seen[usize::from(answer == Cancel::Done)] += 1;
        assert_eq!((session.commands.in_use(), session.life.snapshot().refs), (0, 0));
    }
    assert!(seen.iter().all(|count| *count > 50), "both happen: {seen:?}");
}

/// lifecycle 6.17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_and_a_natural_end_leave_one_of_them_on_threads() {
    let rig = rig(ScriptedHost::new().on("work", Script::exits(0)));
    let session = rig.connect().await;
    for _ in 0..1000 {
        let command = rig.exec(&session, "work").await;
        let canceller = {
            let (engine, command) = (Arc::clone(&rig.engine), Arc::clone(&command));
            tokio::task::JoinSet::from_iter([async move { engine.cancel(&command).await }])
        };
        rig.ended(&command).await;
        for answer in canceller.join_all().await {
            check_one_end(&command, answer);
        }
    }
    assert_eq!((session.commands.in_use(), session.life.snapshot().refs), (0, 0));
}

/// Starts commands and shells until the session or the engine refuses.
async fn create(
    engine: Arc<Engine>,
    owner: Owner,
    session: Arc<Session>,
) -> (Vec<Arc<Command>>, Vec<Arc<Shell>>) {
    let (mut commands, mut shells) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        if let Ok(command) = engine.exec(&owner, ask_exec(&session, "sleep")).await {
            commands.push(command);
        }
        if let Ok(opened) = engine.open_shell(&owner, ask_shell(&session)).await {
            shells.push(opened.shell);
        }
        tokio::task::yield_now().await;
    }
    (commands, shells)
}

/// Everything that was accepted ended in the cascade, and nothing else is left.
fn check_cascade(rig: &Rig, session: &Session, expected: Reason, made: (Vec<Arc<Command>>, Vec<Arc<Shell>>)) {
    let (commands, shells) = made;
    for command in &commands {
        assert_eq!(reason(command), expected);
    }
    for shell in &shells {
        assert_eq!(shell_end(shell), expected);
    }
    let listed = &rig.engine.registries();
    assert_eq!(
        listed.commands.of_session(session.spec.id).len(),
        commands.len(),
        "what is refused is not listed"
    );
    assert_eq!(listed.shells.of_session(session.spec.id).len(), shells.len());
    assert_eq!(session.life.snapshot().state, SessionState::Closed);
    assert_eq!((session.life.snapshot().refs, session.commands.in_use(), session.shells.in_use()), (0, 0, 0));
}

/// lifecycle 6.25
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_created_while_a_session_ends_is_in_the_cascade_or_refused() {
    let mut accepted = 0;
    for round in 0..200 {
        let rig = rig(ScriptedHost::new().on("sleep", Script::new()));
        let session = rig.connect().await;
        let mut creators = tokio::task::JoinSet::new();
        for _ in 0..2 {
            creators.spawn(create(Arc::clone(&rig.engine), rig.owner.clone(), Arc::clone(&session)));
        }
        for _ in 0..round % 20 {
            tokio::task::yield_now().await;
        }
        let ended = rig.engine.disconnect(&rig.owner, session.spec.id).await.unwrap();
        let mut made = (Vec::new(), Vec::new());
        for (commands, shells) in creators.join_all().await {
            made.0.extend(commands);
            made.1.extend(shells);
        }
        assert_eq!(
            (ended.commands_cancelled, ended.shells_closed),
            (made.0.len() as u64, made.1.len() as u64)
        );
        accepted += made.0.len() + made.1.len();
        check_cascade(&rig, &session, Reason::CascadeDisconnect, made);
    }
    assert!(accepted > 0 && accepted < 200 * 32, "some are accepted and some are not: {accepted}");
}

/// lifecycle 6.53
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_created_while_the_engine_stops_is_ended_or_refused() {
    for round in 0..200 {
        let rig = rig(ScriptedHost::new().on("sleep", Script::new()));
        let session = rig.connect().await;
        let mut creators = tokio::task::JoinSet::new();
        for _ in 0..2 {
            creators.spawn(create(Arc::clone(&rig.engine), rig.owner.clone(), Arc::clone(&session)));
        }
        let mut connects = tokio::task::JoinSet::new();
        for _ in 0..3 {
            let (engine, owner) = (Arc::clone(&rig.engine), rig.owner.clone());
            connects.spawn(async move {
                engine.connect(&owner, ask_connect(Reuse::ForceNew), &|_, _| {}).await.is_ok()
            });
        }
        for _ in 0..round % 20 {
            tokio::task::yield_now().await;
        }
        assert_eq!(rig.engine.shutdown().await, Drained::Clean);
        let opened = connects.join_all().await.into_iter().filter(|opened| *opened).count();
        let mut made = (Vec::new(), Vec::new());
        for (commands, shells) in creators.join_all().await {
            made.0.extend(commands);
            made.1.extend(shells);
        }
        check_cascade(&rig, &session, Reason::ServerShutdown, made);
        let sessions = rig.engine.registries().sessions.all();
        assert_eq!(sessions.len(), opened + 1);
        assert!(sessions.iter().all(|session| session.ended().is_some()));
        assert_eq!(rig.engine.tasks.running(), 0);
    }
}

/// lifecycle 6.27
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lost_while_it_is_used_and_ended_closes_everything_once() {
    for round in 0..200 {
        let rig = rig(ScriptedHost::new().on("sleep", Script::new()));
        let session = rig.connect().await;
        let mut creators = tokio::task::JoinSet::new();
        creators.spawn(create(Arc::clone(&rig.engine), rig.owner.clone(), Arc::clone(&session)));
        let host = rig.host.clone();
        let mut breaker = tokio::task::JoinSet::new();
        breaker.spawn(async move {
            for _ in 0..round % 20 {
                tokio::task::yield_now().await;
            }
            host.lose_connections("reset");
        });
        _ = rig.engine.disconnect(&rig.owner, session.spec.id).await;
        breaker.join_all().await;
        for (commands, shells) in creators.join_all().await {
            for command in commands {
                rig.ended(&command).await;
            }
            for shell in shells {
                shell.over().await;
            }
        }
        let life = session.life.snapshot();
        assert_eq!((life.state, life.refs), (SessionState::Closed, 0));
        // Who loses a connection swaps the word first and records the end behind it.
        let mut watch = session.health.watch();
        while !session.health.mark().ended {
            watch.changed().await;
        }
        assert!(session.ended().is_some());
    }
}

/// lifecycle 6.24, 6.28
#[tokio::test(start_paused = true)]
async fn a_command_at_the_deadline_of_its_session_is_accepted_or_refused_as_a_whole() {
    let mut dice = Dice(23);
    let mut seen = [0; 2];
    for _ in 0..300 {
        let rig = rig(ScriptedHost::new().on("sleep", Script::new()));
        rig.pass(ms(dice.roll(5000))).await;
        let session = rig.connect().await;
        // The reaper looks every 5 s; it wins somewhere between 305 and 310 s.
        rig.pass(305 * SECOND + ms(dice.roll(5100))).await;
        let exec = rig.engine.exec(&rig.owner, ask_exec(&session, "sleep")).await;
        seen[usize::from(exec.is_ok())] += 1;
        rig.pass(20 * SECOND).await;
        match exec {
            Ok(command) => {
                assert!(session.is_open());
                assert_eq!(command.status(), Status::Running);
            }
            Err(StartError::Session(_)) => rig.check_left_nothing(&session),
            Err(other) => panic!("{other}"),
        }
    }
    assert!(seen.iter().all(|count| *count > 30), "both happen: {seen:?}");
}
