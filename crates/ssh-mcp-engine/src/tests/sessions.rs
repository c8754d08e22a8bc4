//! Opening sessions, finding them again, losing and ending them.

use ssh_mcp_core::{
    kind::command::Status,
    lifecycle::SessionState,
    port::ssh::{ConnectError, HostKeyReport, HostKeyStatus, Signal, Start, Transience, Unknown},
    registry::{Entry, HealthWord},
};
use ssh_mcp_testkit::host::Seen;

use super::{wire::Fleet, *};
use crate::{AgentDisconnected, Disconnected, Missing};

/// What a connect came to, by the numbers of the sessions it knew before.
#[derive(Debug, PartialEq)]
enum Came {
    New { retries: u32, replaced: u64 },
    Reused { which: usize, replaced: u64 },
    Suggested(Vec<usize>),
    TooMany(u32),
    NoTarget,
    Unresolved,
    Failed { attempts: u32 },
    Draining,
}

async fn came(rig: &Rig, known: &[Arc<Session>], ask: Connect) -> Came {
    let which = |session: &Arc<Session>| known.iter().position(|known| Arc::ptr_eq(known, session)).unwrap();
    match rig.ask(ask).await {
        Ok(ConnectAnswer::Connected { retries, replaced, .. }) => Came::New { retries, replaced },
        Ok(ConnectAnswer::Reused { session, replaced }) => Came::Reused { which: which(&session), replaced },
        Ok(ConnectAnswer::Suggested { matches }) => Came::Suggested(matches.iter().map(which).collect()),
        Err(ConnectFailure::TooManySessions { limit }) => Came::TooMany(limit),
        Err(ConnectFailure::NoTarget) => Came::NoTarget,
        Err(ConnectFailure::Unresolved(_)) => Came::Unresolved,
        Err(ConnectFailure::Failed { attempts, .. }) => Came::Failed { attempts },
        Err(ConnectFailure::Draining) => Came::Draining,
    }
}

fn of_agent(reuse: Reuse, agent: &str) -> Connect {
    Connect { agent: Some(agent.into()), ..ask_connect(reuse) }
}

fn elsewhere(reuse: Reuse) -> Connect {
    let target = Target { username: "you".into(), ..target() };
    Connect { goal: to(target), ..ask_connect(reuse) }
}

const NEW: Came = Came::New { retries: 0, replaced: 0 };

#[tokio::test(start_paused = true)]
async fn sessions_to_the_same_account_are_ranked_by_agent_then_age() {
    let rig = rig(ScriptedHost::new());
    assert_eq!(came(&rig, &[], ask_connect(Reuse::Suggest)).await, NEW, "nothing to suggest");
    let first = rig.engine.registries().sessions.all().remove(0);
    let known = [first, rig.connect_for("a").await, rig.connect_for("b").await];

    assert_eq!(came(&rig, &known, ask_connect(Reuse::Suggest)).await, Came::Suggested(vec![2, 1, 0]));
    assert_eq!(came(&rig, &known, of_agent(Reuse::Suggest, "a")).await, Came::Suggested(vec![1, 2, 0]));
    assert_eq!(came(&rig, &known, of_agent(Reuse::Suggest, "c")).await, Came::Suggested(vec![2, 1, 0]));
    let reused = |which| Came::Reused { which, replaced: 0 };
    assert_eq!(came(&rig, &known, ask_connect(Reuse::Auto)).await, reused(2));
    assert_eq!(came(&rig, &known, of_agent(Reuse::Auto, "a")).await, reused(1));

    assert_eq!(rig.host.connects(), 3);
    assert_eq!(came(&rig, &known, elsewhere(Reuse::Suggest)).await, NEW, "another account is another place");
    assert_eq!(came(&rig, &known, elsewhere(Reuse::ForceNew)).await, NEW, "it does not look");
    assert_eq!(rig.engine.healthy_sessions_of_agents(&rig.owner), [("a".into(), 1), ("b".into(), 1)]);
}

#[tokio::test(start_paused = true)]
async fn auto_drops_dead_sessions_counts_them_and_takes_the_best_that_lives() {
    let hosts = [(); 3].map(|()| ScriptedHost::new());
    let rig = rig_on(hosts[0].clone(), Fleet::new(hosts.clone()), |_| {});
    let known = [rig.connect().await, rig.connect().await, rig.connect().await];
    hosts[1].then_ping(None);
    hosts[2].then_ping(None);

    let began = rig.now();
    assert_eq!(
        came(&rig, &known, ask_connect(Reuse::Suggest)).await,
        Came::Suggested(vec![2, 1, 0]),
        "what is suggested says whether it is healthy"
    );
    let health = known.each_ref().map(|session| session.health.load().word);
    assert_eq!(health, [HealthWord::Healthy, HealthWord::Unhealthy, HealthWord::Unhealthy]);
    assert_eq!(came(&rig, &known, ask_connect(Reuse::Auto)).await, Came::Reused { which: 0, replaced: 2 });
    assert!(rig.now() - began <= 10 * SECOND, "all are asked at once");
    assert_eq!(known.each_ref().map(|session| session.is_open()), [true, false, false]);

    hosts[0].then_ping(None);
    hosts[1].then_ping(Some(ms(1)));
    assert_eq!(came(&rig, &known, ask_connect(Reuse::Auto)).await, Came::New { retries: 0, replaced: 1 });
}

#[tokio::test(start_paused = true)]
async fn a_session_named_in_the_call_is_taken_if_it_lives() {
    let rig = rig(ScriptedHost::new());
    let known = [rig.connect().await, rig.connect().await];
    let naming = |ask: Connect| Connect { session: Some(known[0].spec.id), ..ask };
    for reuse in [Reuse::Suggest, Reuse::Auto, Reuse::ForceNew] {
        let ask = Connect { goal: None, ..naming(ask_connect(reuse)) };
        assert_eq!(came(&rig, &known, ask).await, Came::Reused { which: 0, replaced: 0 });
    }
    rig.engine.disconnect(&rig.owner, known[0].spec.id).await.unwrap();
    let nowhere = Connect { goal: None, ..naming(ask_connect(Reuse::Auto)) };
    assert_eq!(came(&rig, &known, nowhere).await, Came::NoTarget);
    assert_eq!(came(&rig, &known, naming(ask_connect(Reuse::Suggest))).await, Came::Suggested(vec![1]));

    let named = Connect { session: Some(known[1].spec.id), ..ask_connect(Reuse::Auto) };
    rig.host.then_ping(None);
    assert_eq!(came(&rig, &known, named).await, Came::New { retries: 0, replaced: 1 });
    assert!(!known[1].is_open());
}

fn refused() -> ConnectError {
    ConnectError::Failed { cause: "refused".into(), transience: Transience::Transient }
}

fn permanent() -> Vec<ConnectError> {
    vec![
        ConnectError::Failed { cause: "no such host".into(), transience: Transience::Permanent },
        ConnectError::Rejected { tried: vec![], offered: vec![], cut_off: None },
        ConnectError::Key { path: "key".into(), cause: "missing".into() },
        ConnectError::UnknownHostKey {
            host: "box".into(),
            shown: Box::new(ShownKey {
                name: "box".into(),
                address: Address { host: "box".into(), port: 22 },
                algorithm: "a".into(),
                fingerprint: "f".into(),
            }),
            verdict: Unknown::Undecided,
            certificate: None,
        },
        ConnectError::ChangedHostKey {
            host: "box".into(),
            algorithm: "a".into(),
            fingerprint: "f".into(),
            known: "k".into(),
            forget: None,
        },
        ConnectError::KnownHosts { path: "p".into(), cause: "c".into() },
    ]
}

#[tokio::test(start_paused = true)]
async fn only_transient_failures_are_tried_again() {
    for error in permanent() {
        let rig = rig(ScriptedHost::new());
        rig.host.then_connect_fails(error);
        assert_eq!(came(&rig, &[], ask_connect(Reuse::Auto)).await, Came::Failed { attempts: 1 });
    }
    for (failures, expected) in
        [(3, Came::New { retries: 3, replaced: 0 }), (4, Came::Failed { attempts: 4 })]
    {
        let rig = rig(ScriptedHost::new());
        for _ in 0..failures {
            rig.host.then_connect_fails(refused());
        }
        assert_eq!(came(&rig, &[], ask_connect(Reuse::Auto)).await, expected);
        // One second, two, four, each with jitter.
        assert!((7 * SECOND..=14 * SECOND).contains(&rig.now()), "{:?}", rig.now());
    }
    let rig = rig(ScriptedHost::new());
    rig.host.then_connect_fails(refused());
    rig.host.then_connect_fails(permanent().swap_remove(1));
    assert_eq!(came(&rig, &[], ask_connect(Reuse::Auto)).await, Came::Failed { attempts: 2 });
}

#[tokio::test(start_paused = true)]
async fn attempts_and_waits_together_stay_within_the_time_of_the_call() {
    let rig = rig(ScriptedHost::new().with_connect_time(HOUR));
    assert_eq!(came(&rig, &[], ask_connect(Reuse::Auto)).await, Came::Failed { attempts: 2 });
    assert_eq!(rig.now(), 50 * SECOND, "the second attempt gets what is left");

    let began = rig.now();
    let unbound = Connect { overall: None, ..ask_connect(Reuse::Auto) };
    assert_eq!(came(&rig, &[], unbound).await, Came::Failed { attempts: 4 });
    assert!(rig.now() - began >= 127 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn each_failed_attempt_is_reported_with_its_number() {
    let rig = rig(ScriptedHost::new());
    rig.host.then_connect_fails(refused());
    rig.host.then_connect_fails(refused());
    let (told, mut heard) = tokio::sync::mpsc::channel(8);
    let progress = move |attempt: u32, error: &ConnectError| told.try_send((attempt, error.clone())).unwrap();
    rig.engine.connect(&rig.owner, ask_connect(Reuse::ForceNew), &progress).await.unwrap();
    drop(progress);
    assert_eq!([heard.recv().await, heard.recv().await], [Some((1, refused())), Some((2, refused()))]);
    assert_eq!(heard.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_place_among_the_sessions_comes_back_whatever_happens() {
    let rig = rig_with(ScriptedHost::new(), |settings| settings.max_sessions = Some(1));
    rig.host.then_connect_fails(permanent().swap_remove(0));
    assert_eq!(came(&rig, &[], ask_connect(Reuse::Auto)).await, Came::Failed { attempts: 1 });

    let session = rig.connect().await;
    assert_eq!(came(&rig, &[], ask_connect(Reuse::ForceNew)).await, Came::TooMany(1));
    rig.engine.disconnect(&rig.owner, session.spec.id).await.unwrap();

    let session = rig.connect().await;
    rig.host.lose_connections("reset");
    rig.pass(ms(1)).await;
    assert!(!session.is_open());
    assert_eq!(came(&rig, &[], ask_connect(Reuse::ForceNew)).await, NEW);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_connect_leaves_nothing() {
    let host = ScriptedHost::new().with_connect_time(10 * SECOND);
    let rig = rig_with(host, |settings| settings.max_sessions = Some(1));
    for time in [ms(0), ms(1), 5 * SECOND] {
        let call = rig.ask(ask_connect(Reuse::ForceNew));
        assert!(tokio::time::timeout(time, call).await.is_err());
    }
    assert!(rig.engine.registries().sessions.is_empty());
    assert_eq!(came(&rig, &[], ask_connect(Reuse::ForceNew)).await, NEW);
}

fn signal(seen: Seen) -> Option<Signal> {
    if let Seen::Signal { signal, .. } = seen { Some(signal) } else { None }
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_ends_commands_and_shells_and_then_the_transport() {
    let rig = rig(ScriptedHost::new().on("sleep", Script::new()));
    let session = rig.connect().await;
    let commands = [rig.exec(&session, "sleep 1").await, rig.exec(&session, "sleep 2").await];
    let shell = rig.open(&session).await;
    rig.pass(SECOND).await;

    let outcome = rig.engine.disconnect(&rig.owner, session.spec.id).await.unwrap();
    assert_eq!(
        outcome,
        Disconnected {
            commands_cancelled: 2,
            shells_closed: 1,
            transfers_aborted: 0,
            rsyncs_cancelled: 0,
            forwards_closed: 0
        }
    );
    for command in &commands {
        assert_eq!(reason(command), Reason::CascadeDisconnect);
    }
    assert_eq!(shell_end(&shell), Reason::CascadeDisconnect);
    assert_eq!(session.ended().unwrap().0, Reason::ManualClose);
    assert_eq!(session.health.read().value.word, HealthWord::Disconnected);
    assert!(session.health.mark().ended);
    rig.check_left_nothing(&session);

    let order = rig.host.seen().into_iter().filter_map(|seen| {
        let goodbye = (seen == Seen::Disconnected).then(|| "goodbye".to_owned());
        goodbye.or_else(|| signal(seen).map(|signal| format!("{signal:?}")))
    });
    let order: Vec<_> = order.collect();
    assert_eq!(order, ["Term", "Term", "Hup", "goodbye"]);
    let again = rig.engine.disconnect(&rig.owner, session.spec.id).await;
    assert!(matches!(again, Err(Missing::Gone { reason: Reason::ManualClose, .. })));
}

/// lifecycle 6.26
#[tokio::test(start_paused = true)]
async fn two_who_disconnect_learn_the_same() {
    let rig = rig(ScriptedHost::new().on("sleep", Script::new().ignoring(&[Signal::Term])));
    let session = rig.connect().await;
    let command = rig.exec(&session, "sleep 1").await;
    rig.pass(SECOND).await;
    let id = session.spec.id;
    let late = async {
        tokio::time::sleep(SECOND).await;
        rig.engine.disconnect(&rig.owner, id).await
    };
    let (one, two) = tokio::join!(rig.engine.disconnect(&rig.owner, id), late);
    assert_eq!(
        one,
        Ok(Disconnected {
            commands_cancelled: 1,
            shells_closed: 0,
            transfers_aborted: 0,
            rsyncs_cancelled: 0,
            forwards_closed: 0,
        })
    );
    assert_eq!(one, two);
    assert_eq!(reason(&command), Reason::CascadeDisconnect);
    let goodbyes = rig.host.seen().into_iter().filter(|seen| *seen == Seen::Disconnected).count();
    assert_eq!(goodbyes, 1);
    rig.check_left_nothing(&session);
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_goes_on_when_its_caller_leaves() {
    let rig = rig(ScriptedHost::new().on("sleep", Script::new().ignoring(&[Signal::Term])));
    let session = rig.connect().await;
    rig.exec(&session, "sleep 1").await;
    rig.pass(SECOND).await;
    let call = rig.engine.disconnect(&rig.owner, session.spec.id);
    assert!(tokio::time::timeout(ms(10), call).await.is_err());
    assert_eq!(session.life.snapshot().state, SessionState::Releasing);
    assert!(matches!(rig.engine.session(&rig.owner, session.spec.id), Err(Missing::Unknown { .. })));
    rig.pass(5 * SECOND).await;
    rig.check_left_nothing(&session);
    assert!(rig.engine.session(&rig.owner, session.spec.id).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_channel_is_refused_when_its_session_ends() {
    let rig = rig(ScriptedHost::new().on("sleep", Script::new()).with_places(1));
    let session = rig.connect().await;
    rig.exec(&session, "sleep 1").await;
    let began = rig.now();
    let (waiting, _) = tokio::join!(rig.engine.exec(&rig.owner, ask_exec(&session, "sleep 2")), async {
        tokio::time::sleep(SECOND).await;
        rig.engine.disconnect(&rig.owner, session.spec.id).await
    });
    assert!(matches!(waiting, Err(StartError::Session(_))));
    assert!(rig.now() - began < 5 * SECOND);
    rig.check_left_nothing(&session);
}

#[tokio::test(start_paused = true)]
async fn all_sessions_of_an_agent_end_together() {
    let rig = rig(ScriptedHost::new().on("sleep", Script::new()));
    let sessions = [rig.connect_for("a").await, rig.connect_for("a").await, rig.connect_for("b").await];
    for session in &sessions {
        rig.exec(session, "sleep 1").await;
        rig.open(session).await;
    }
    rig.pass(SECOND).await;
    let nobody = rig.engine.disconnect_agent(&rig.owner, "nobody").await;
    assert_eq!(nobody, AgentDisconnected::default());
    let outcome = rig.engine.disconnect_agent(&rig.owner, "a").await;
    assert_eq!(
        outcome,
        AgentDisconnected {
            sessions_closed: 2,
            commands_cancelled: 2,
            shells_closed: 2,
            transfers_aborted: 0,
            rsyncs_cancelled: 0,
            forwards_closed: 0,
        }
    );
    assert_eq!(sessions.each_ref().map(|session| session.is_open()), [false, false, true]);
    assert_eq!(rig.engine.disconnect_agent(&rig.owner, "a").await, AgentDisconnected::default());
}

#[tokio::test(start_paused = true)]
async fn a_probe_leaves_out_and_closes_what_does_not_answer() {
    let hosts = [ScriptedHost::new(), ScriptedHost::new().on("sleep", Script::new())];
    let rig = rig_on(hosts[1].clone(), Fleet::new(hosts.clone()), |_| {});
    let (alive, dead) = (rig.connect_for("a").await, rig.connect_for("a").await);
    hosts[1].then_ping(None);
    assert_eq!(rig.engine.probe(&rig.owner, Some("b")).await.len(), 0);
    assert_eq!(rig.engine.probe(&Owner::token("x"), None).await.len(), 0);
    let found = rig.engine.probe(&rig.owner, Some("a")).await;
    assert!(found.len() == 1 && Arc::ptr_eq(&found[0], &alive));
    assert!(alive.health.load().round_trip.is_some());
    rig.check_left_nothing(&dead);
    assert_eq!(dead.ended().unwrap().0, Reason::ConnectionLost);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_on_a_session_in_use_closes_nothing() {
    // On a slow line the answer to a keepalive stands behind the output that is on its way.
    let rig = rig(ScriptedHost::new().on("sleep", Script::new()));
    let session = rig.connect_for("a").await;
    let command = rig.exec(&session, "sleep 1").await;
    rig.host.then_ping(None);
    let found = rig.engine.probe(&rig.owner, Some("a")).await;
    assert!(found.len() == 1 && Arc::ptr_eq(&found[0], &session));
    assert_eq!(session.health.load().word, HealthWord::Unhealthy);
    assert_eq!(command.status(), Status::Running);
    // It does not serve a call that asks for a healthy one either.
    rig.host.then_ping(Some(ms(1)));
    assert_eq!(rig.engine.probe(&rig.owner, Some("a")).await.len(), 1);
    assert_eq!(session.health.load().word, HealthWord::Healthy);
}

/// lifecycle 6.27
#[tokio::test(start_paused = true)]
async fn a_lost_connection_closes_everything_once_also_during_a_disconnect() {
    for (disconnecting, expected) in [(false, Reason::ConnectionLost), (true, Reason::CascadeDisconnect)] {
        let stubborn = Script::new().ignoring(&[Signal::Term, Signal::Hup]);
        let rig = rig(ScriptedHost::new().on("sleep", stubborn.clone()).on_shell(stubborn));
        let session = rig.connect().await;
        let command = rig.exec(&session, "sleep 1").await;
        let shell = rig.open(&session).await;
        rig.pass(SECOND).await;
        if disconnecting {
            let call = rig.engine.disconnect(&rig.owner, session.spec.id);
            assert!(tokio::time::timeout(ms(10), call).await.is_err());
        }
        rig.host.lose_connections("reset");
        rig.pass(ms(10)).await;
        assert_eq!((reason(&command), shell_end(&shell)), (expected, expected));
        rig.check_left_nothing(&session);
        assert!(matches!(rig.engine.session(&rig.owner, session.spec.id), Err(Missing::Gone { .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_finds_the_connection_dead_closes_the_session() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    // Before the engine's own task has noticed.
    rig.host.lose_connections("reset");
    let refused = rig.engine.exec(&rig.owner, ask_exec(&session, "true")).await;
    assert!(matches!(refused, Err(StartError::Channel(_) | StartError::Session(_))));
    assert!(!session.is_open());
    let again = rig.engine.exec(&rig.owner, ask_exec(&session, "true")).await;
    assert!(matches!(again, Err(StartError::Session(Missing::Gone { reason: Reason::ConnectionLost, .. }))));
    rig.check_left_nothing(&session);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_never_used_runs_nothing_on_the_far_side() {
    let rig = rig(ScriptedHost::new());
    rig.connect().await;
    rig.engine.probe(&rig.owner, None).await;
    rig.pass(MINUTE).await;
    assert!(
        !rig.host.seen().iter().any(|seen| matches!(seen, Seen::Started { start: Start::Exec { .. }, .. }))
    );
}

#[tokio::test(start_paused = true)]
async fn a_host_nobody_checked_does_not_serve_a_call_that_wants_it_checked() {
    let unchecked = HostKeyReport {
        algorithm: "ssh-ed25519".into(),
        fingerprint: "SHA256:x".into(),
        status: HostKeyStatus::Unchecked,
    };
    let rig = rig(ScriptedHost::new().with_host_key(unchecked));
    let session = rig.connect_for("a").await;
    let policy = |host_key_policy| {
        let mut hop = defaults().hop(target(), Credentials::default());
        hop.host_keys.policy = host_key_policy;
        Connect { goal: Some(Goal::Host(Box::new(hop))), ..of_agent(Reuse::Auto, "a") }
    };
    let came = |ask| came(&rig, std::slice::from_ref(&session), ask);
    let any = came(policy(HostKeyPolicy::DangerAcceptAny)).await;
    assert_eq!(any, Came::Reused { which: 0, replaced: 0 });
    for wanting in [HostKeyPolicy::Strict, HostKeyPolicy::AcceptNew] {
        assert_eq!(came(policy(wanting)).await, Came::New { retries: 0, replaced: 0 });
    }
}
