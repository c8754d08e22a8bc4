//! Lanes as tasks: opening, limits, delivery in turns, ends, clients that stall and vanish, leaks.

use std::sync::Arc;

use ssh_mcp_core::{
    history::Origin as Stream,
    id::SubId,
    kind::command::Output,
    lane::{Delivery, Filter, Form, LagPolicy, Lifetime, Options, Start, Timing},
    lifecycle::{AutoRelease, State},
    reason::Reason,
    uri::Resource,
};
use ssh_mcp_testkit::{
    host::{Script, ScriptedHost},
    mirror::Play,
    outlet::{RecordedOutlet, What},
};

use super::{HOUR, MINUTE, Rig, SECOND, ask_exec, ask_shell, facts, ms, reason, rig, rig_with};
use crate::{Engine, Exec, Inline, LaneEntry, OpenLane, OpenLaneError, OpenShell, Origin, Peer, PeerGuard};

pub(super) fn pull() -> Options {
    Options {
        form: Form::Pull,
        start: Start::At(0),
        lifetime: Lifetime::Manual,
        linger: ms(2000),
        policy: LagPolicy::Snapshot,
        filter: None,
        timing: Timing { debounce: ms(200), force: ms(1000), bytes: Some(65536), keepalive: None },
        queue: 1024,
        window: 1 << 20,
        block_timeout: ms(5000),
    }
}

pub(super) fn payload() -> Options {
    let timing = Timing { debounce: ms(5), ..pull().timing };
    Options { form: Form::Payload { piece: 32 * 1024 }, timing, ..pull() }
}

/// A client of an engine.
pub(super) struct Client {
    guard: PeerGuard,
    pub(super) outlet: RecordedOutlet,
}

impl Client {
    pub(super) fn of(engine: &Arc<Engine>) -> Self {
        Self { guard: PeerGuard::new(Arc::clone(engine)), outlet: RecordedOutlet::new() }
    }

    fn peer(&self) -> &Arc<Peer> {
        self.guard.peer()
    }
}

impl Rig {
    fn ask_lane(&self, client: &Client, resource: Resource, options: Options) -> OpenLane {
        OpenLane {
            source: self.engine.source(&self.owner, resource).unwrap(),
            uri: resource.to_string(),
            options,
            inline: Inline::NotAsked,
            origin: Origin::SubOpen,
            outlet: Arc::new(client.outlet.clone()),
            body: Arc::new(String::new),
        }
    }

    pub(super) fn try_lane(
        &self,
        client: &Client,
        resource: impl Into<Resource>,
        options: Options,
    ) -> Result<Arc<LaneEntry>, OpenLaneError> {
        let ask = self.ask_lane(client, resource.into(), options);
        self.engine.open_lane(&self.owner, client.peer(), ask)
    }

    pub(super) fn lane(
        &self,
        client: &Client,
        resource: impl Into<Resource>,
        options: Options,
    ) -> Arc<LaneEntry> {
        self.try_lane(client, resource, options).unwrap()
    }
}

pub(super) fn is_end(delivery: &Delivery) -> bool {
    matches!(delivery, Delivery::End { .. })
}

#[tokio::test(start_paused = true)]
async fn a_command_is_pushed_to_its_end_and_the_end_says_how() {
    let script = Script::new().out("one ").after(SECOND).out("two").after(SECOND).exit(3);
    let rig = rig(ScriptedHost::new().on("c", script));
    let (session, client) = (rig.connect().await, Client::of(&rig.engine));
    let command = rig.exec(&session, "c").await;
    let (pulled, pushed) =
        (rig.lane(&client, command.spec.id, pull()), rig.lane(&client, command.spec.id, payload()));
    rig.ended(&command).await;
    rig.pass(SECOND).await;
    assert_eq!(client.outlet.bytes_of(pushed.id), b"one two");
    let deliveries = client.outlet.of(pushed.id);
    assert_eq!(deliveries.iter().filter(|delivery| is_end(delivery)).count(), 1);
    assert!(deliveries.last().is_some_and(is_end));
    let ending = client.outlet.heard().into_iter().find_map(|heard| match heard.what {
        What::Lane { ending, .. } => ending,
        What::ListChanged => None,
    });
    assert_eq!(ending.map(|words| (words.reason, words.exit_code)), Some((Reason::Completed, Some(3))));
    assert_eq!(client.outlet.of(pulled.id), [Delivery::Updated, Delivery::Updated, Delivery::Updated]);
    assert_eq!(pulled.report().stats.events_sent, 3);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_over_is_pushed_once_and_its_lane_leaves() {
    let rig = rig(ScriptedHost::new().on("c", Script::new().out("hi").exit(0)));
    let (session, client) = (rig.connect().await, Client::of(&rig.engine));
    let command = rig.run(ask_exec(&session, "c")).await;
    let (pulled, pushed) =
        (rig.lane(&client, command.spec.id, pull()), rig.lane(&client, command.spec.id, payload()));
    rig.pass(SECOND).await;
    assert_eq!(client.outlet.bytes_of(pushed.id), b"hi");
    assert!(client.outlet.of(pushed.id).last().is_some_and(is_end));
    assert_eq!(client.outlet.of(pulled.id), [Delivery::Updated]);
    assert!(rig.engine.lane(&rig.owner, pushed.id).is_none(), "it has nothing more to say");
    assert!(rig.engine.lane(&rig.owner, pulled.id).is_some(), "it can be read for its grace");
    rig.pass(2 * SECOND).await;
    assert!(rig.engine.lanes_of(&rig.owner).is_empty());
    assert_eq!(command.lanes.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn of_a_hundred_lanes_on_one_resource_sixteen_open() {
    let rig = rig(ScriptedHost::new());
    let (session, client) = (rig.connect().await, Client::of(&rig.engine));
    let shell = rig.open(&session).await;
    let opened: Vec<_> = (0..100).map(|_| rig.try_lane(&client, shell.spec.id, pull())).collect();
    let refused =
        opened.iter().filter(|lane| matches!(lane, Err(OpenLaneError::TooManyOnResource { limit: 16 })));
    assert_eq!(refused.count(), 84);
    assert_eq!(shell.life.snapshot().observers, 16);
    for lane in opened.into_iter().flatten() {
        rig.engine.close_lane_by_call(&lane).await;
    }
    assert_eq!((rig.engine.lane_sums(&rig.owner).lanes, shell.lanes.in_use()), (0, 0));
    assert_eq!(shell.life.snapshot().state, State::Owned);
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_all_lanes_comes_behind_that_of_one_resource() {
    let rig =
        rig_with(ScriptedHost::new(), |settings| (settings.lanes_total, settings.lanes_per_uri) = (3, 2));
    let (session, client) = (rig.connect().await, Client::of(&rig.engine));
    let (one, two) = (rig.open(&session).await, rig.open(&session).await);
    let _held: Vec<_> =
        [one.spec.id, one.spec.id, two.spec.id].map(|id| rig.lane(&client, id, pull())).into();
    let refused = |id| rig.try_lane(&client, id, pull()).err();
    assert!(matches!(refused(one.spec.id), Some(OpenLaneError::TooManyOnResource { limit: 2 })));
    assert!(matches!(refused(two.spec.id), Some(OpenLaneError::TooMany { limit: 3 })));
    assert_eq!((two.lanes.in_use(), two.life.snapshot().observers), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_was_closed_on_purpose_takes_no_lane() {
    let rig = rig(ScriptedHost::new().on("c", Script::new()));
    let (session, client) = (rig.connect().await, Client::of(&rig.engine));
    let command = rig.exec(&session, "c").await;
    rig.engine.cancel(&command).await;
    let gone = rig.try_lane(&client, command.spec.id, pull()).err();
    let Some(OpenLaneError::Gone(crate::Missing::Gone { reason, .. })) = gone else { panic!("{gone:?}") };
    assert_eq!(reason, Reason::Cancelled);
    assert_eq!(command.lanes.in_use(), 0);
    assert!(rig.engine.lanes_of(&rig.owner).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_shell_that_releases_itself_ends_its_grace_after_its_last_lane() {
    let rig = rig(ScriptedHost::new());
    let (session, client) = (rig.connect().await, Client::of(&rig.engine));
    let ask = OpenShell { auto_release: AutoRelease::On, ..ask_shell(&session) };
    let shell = rig.engine.open_shell(&rig.owner, ask).await.unwrap().shell;
    let (first, second) =
        (rig.lane(&client, shell.spec.id, pull()), rig.lane(&client, shell.spec.id, pull()));
    rig.pass(60 * SECOND).await;
    rig.engine.close_lane_by_call(&first).await;
    let closed = rig.engine.close_lane_by_call(&second).await;
    assert_eq!(closed.life.unwrap().state, State::Releasing);
    assert_eq!(closed.grace, Some(2 * SECOND));
    rig.pass(ms(1500)).await;
    // A new one in time keeps it.
    let third = rig.lane(&client, shell.spec.id, pull());
    rig.pass(60 * SECOND).await;
    assert!(shell.is_running());
    rig.engine.close_lane_by_call(&third).await;
    rig.pass(3 * SECOND).await;
    assert_eq!(super::shell_end(&shell), Reason::UnsubscribeGraceElapsed);
}

#[tokio::test(start_paused = true)]
async fn an_end_from_outside_is_told_and_the_lane_leaves() {
    let rig = rig(ScriptedHost::new().on("c", Script::new().out("hi")));
    let (session, client) = (rig.connect().await, Client::of(&rig.engine));
    let command = rig.exec(&session, "c").await;
    let lane = rig.lane(&client, command.spec.id, payload());
    rig.pass(SECOND).await;
    rig.engine.cancel(&command).await;
    rig.pass(SECOND).await;
    assert!(client.outlet.of(lane.id).last().is_some_and(is_end));
    assert!(rig.engine.lane(&rig.owner, lane.id).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_lease_runs_out_and_says_so() {
    let rig = rig(ScriptedHost::new());
    let (session, client) = (rig.connect().await, Client::of(&rig.engine));
    let shell = rig.open(&session).await;
    let options = Options { lifetime: Lifetime::Lease(10 * SECOND), start: Start::Now, ..payload() };
    let lane = rig.lane(&client, shell.spec.id, options);
    rig.pass(8 * SECOND).await;
    lane.resume(rig.now());
    rig.pass(9 * SECOND).await;
    assert!(rig.engine.lane(&rig.owner, lane.id).is_some());
    rig.pass(2 * SECOND).await;
    assert!(rig.engine.lane(&rig.owner, lane.id).is_none());
    let last = client.outlet.of(lane.id).pop();
    assert!(matches!(last, Some(Delivery::Closed { reason: Reason::LifetimeLeaseExpired, .. })), "{last:?}");
    assert!(shell.is_running());
}

#[tokio::test(start_paused = true)]
async fn a_closed_lane_says_nothing_after_the_answer() {
    let rig = rig(ScriptedHost::new());
    let (session, client) = (rig.connect().await, Client::of(&rig.engine));
    let shell = rig.open(&session).await;
    let lane = rig.lane(&client, shell.spec.id, payload());
    rig.pass(SECOND).await;
    rig.engine.close_lane_by_call(&lane).await;
    let said = client.outlet.heard().len();
    let last = client.outlet.of(lane.id).pop();
    assert!(matches!(last, Some(Delivery::Closed { reason: Reason::ManualClose, .. })), "{last:?}");
    rig.write(&shell, "more\n").await;
    rig.pass(10 * SECOND).await;
    assert_eq!(client.outlet.heard().len(), said);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_client_delays_only_itself_and_catches_up() {
    let rig = rig(ScriptedHost::new());
    let (session, stalled, other) = (rig.connect().await, Client::of(&rig.engine), Client::of(&rig.engine));
    let shell = rig.open(&session).await;
    rig.pass(SECOND).await;
    let options = |policy| Options { policy, queue: 16, start: Start::Now, ..payload() };
    let lanes = [LagPolicy::Snapshot, LagPolicy::BlockSlow]
        .map(|policy| rig.lane(&stalled, shell.spec.id, options(policy)));
    let healthy = rig.lane(&other, shell.spec.id, options(LagPolicy::Snapshot));
    rig.pass(SECOND).await;
    stalled.outlet.stall();
    let began = shell.history.mark().end;
    for n in 0..100 {
        let before = tokio::time::Instant::now();
        shell.history.append(Stream::Stdout, format!("{n},").as_bytes());
        rig.pass(ms(10)).await;
        let told = other.outlet.heard().pop().unwrap();
        assert!(told.at.duration_since(before) < ms(6), "{n}");
    }
    assert_eq!(lanes[0].report().queue_depth, 0, "what a resynchronisation brings is not queued");
    assert_eq!(lanes[1].report().queue_depth, 16);
    rig.pass(6 * SECOND).await;
    stalled.outlet.read_on();
    rig.pass(SECOND).await;
    let expected = shell.history.read(began, usize::MAX).bytes;
    for lane in lanes.iter().map(|lane| lane.id).zip([&stalled, &stalled]).chain([(healthy.id, &other)]) {
        assert_eq!(lane.1.outlet.bytes_of(lane.0), expected);
    }
    assert!(lanes.iter().map(|lane| lane.notices(rig.now()).stuck).sum::<u64>() > 0);
    assert_eq!(lanes[0].report().stats.lagged_recoveries, 1);
}

#[tokio::test(start_paused = true)]
async fn who_is_waited_for_gets_what_comes_after_the_exit_too() {
    const PACKET: usize = 32 << 10;
    // Two packets behind the exit, with which there is no room, and one a second after the ten minutes nobody reads.
    let script = Script::new().out("first").exit(0).holding_output(602 * SECOND);
    let script = [100, 100, 600_800]
        .into_iter()
        .fold(script, |script, pause| script.after(ms(pause)).out("x".repeat(PACKET)));
    let rig = rig(ScriptedHost::new().on("c", script.clone()).on_shell(script));
    rig.engine.wait_for_readers();
    let (session, client) = (rig.connect().await, Client::of(&rig.engine));
    client.outlet.stall();
    let ask = Exec { limit: None, history: 4 * PACKET, ..ask_exec(&session, "c") };
    let command = rig.engine.exec(&rig.owner, ask).await.unwrap();
    let ask = OpenShell { history: 4 * PACKET, inactivity: None, ..ask_shell(&session) };
    let shell = rig.engine.open_shell(&rig.owner, ask).await.unwrap().shell;
    let all = Options { policy: LagPolicy::BlockSlow, block_timeout: HOUR, ..payload() };
    let lanes = [Resource::from(command.spec.id), shell.spec.id.into()]
        .map(|resource| rig.lane(&client, resource, all.clone()).id);
    rig.pass(600 * SECOND).await;
    for history in [&command.history, &shell.history] {
        assert!(!history.mark().ended && !history.has_room(), "{:?}", history.mark());
    }
    client.outlet.read_on();
    rig.pass(MINUTE).await;
    assert_eq!((facts(&command).exit_code(), facts(&command).output), (Some(0), Output::Ended));
    for lane in lanes {
        assert_eq!(client.outlet.bytes_of(lane).len(), 5 + 3 * PACKET);
    }
}

#[tokio::test(start_paused = true)]
async fn lanes_of_one_client_take_turns() {
    let rig = rig(ScriptedHost::new());
    let (session, client) = (rig.connect().await, Client::of(&rig.engine));
    let (noisy, quiet) = (rig.open(&session).await, rig.open(&session).await);
    rig.pass(SECOND).await;
    let options = Options { form: Form::Payload { piece: 16 }, start: Start::Now, ..payload() };
    let lanes = [noisy.spec.id, quiet.spec.id].map(|id| rig.lane(&client, id, options.clone()).id);
    client.outlet.stall();
    noisy.history.append(Stream::Stdout, &[b'n'; 16 * 50]);
    rig.pass(ms(1)).await;
    quiet.history.append(Stream::Stdout, &[b'q'; 16 * 10]);
    rig.pass(ms(1)).await;
    client.outlet.read_on();
    rig.pass(SECOND).await;
    let order: Vec<SubId> = client
        .outlet
        .heard()
        .into_iter()
        .filter_map(|heard| match heard.what {
            What::Lane { sub_id, delivery: Delivery::Piece(_), .. } => Some(sub_id),
            What::Lane { .. } | What::ListChanged => None,
        })
        .collect();
    assert_eq!(order.len(), 60);
    let last_quiet = order.iter().rposition(|lane| *lane == lanes[1]).unwrap();
    // The noisy lane has at most one message between two of the quiet one.
    assert!(last_quiet <= 20, "{last_quiet}");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_clients_that_vanish_leave_no_lane_and_no_task() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let shell = rig.open(&session).await;
    rig.pass(SECOND).await;
    let tasks = rig.engine.tasks.running();
    for _ in 0..10 {
        let clients: Vec<_> = (0..10).map(|_| Client::of(&rig.engine)).collect();
        for client in &clients {
            rig.lane(client, shell.spec.id, payload());
            let outlet = Arc::new(client.outlet.clone());
            std::mem::forget(rig.engine.watch_list(&rig.owner, client.peer(), outlet, None));
        }
        drop(clients);
        rig.pass(ms(10)).await;
        assert_eq!(rig.engine.lane_sums(&rig.owner).lanes, 0);
    }
    assert_eq!(shell.life.snapshot().state, State::Owned);
    assert_eq!(rig.engine.tasks.running(), tasks + 100, "the watches of lists that were not dropped");
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_end_was_missed_is_swept() {
    let rig = rig(ScriptedHost::new());
    let (session, client) = (rig.connect().await, Client::of(&rig.engine));
    let shell = rig.open(&session).await;
    rig.lane(&client, shell.spec.id, Options { start: Start::Now, ..pull() });
    client.outlet.leave();
    rig.pass(31 * SECOND).await;
    assert!(rig.engine.lanes_of(&rig.owner).is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_ended_client_gets_no_lane() {
    let rig = rig(ScriptedHost::new());
    let (session, client) = (rig.connect().await, Client::of(&rig.engine));
    let shell = rig.open(&session).await;
    let peer = Arc::clone(client.peer());
    let ask = rig.ask_lane(&client, shell.spec.id.into(), pull());
    drop(client);
    let refused = rig.engine.open_lane(&rig.owner, &peer, ask).err();
    assert!(matches!(refused, Some(OpenLaneError::PeerGone)), "{refused:?}");
    assert_eq!((shell.lanes.in_use(), shell.life.snapshot().observers), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn retention_waits_for_what_a_lane_is_owed_and_closes_the_others() {
    let rig =
        rig_with(ScriptedHost::new().on("c", Script::new().out("hi").after(SECOND).exit(0)), |settings| {
            settings.command_retention = 100 * SECOND;
        });
    let (session, client) = (rig.connect().await, Client::of(&rig.engine));
    let command = rig.exec(&session, "c").await;
    let (told, paused) =
        (rig.lane(&client, command.spec.id, payload()), rig.lane(&client, command.spec.id, payload()));
    paused.pause(rig.now());
    rig.ended(&command).await;
    rig.pass(300 * SECOND).await;
    assert!(rig.engine.registries().commands.entry(command.spec.id).is_some());
    assert!(rig.engine.lane(&rig.owner, told.id).is_some(), "manual lanes stay while the resource does");
    paused.resume(rig.now());
    rig.pass(10 * SECOND).await;
    assert_eq!(client.outlet.bytes_of(paused.id), b"hi");
    assert!(rig.engine.registries().commands.entry(command.spec.id).is_none());
    assert!(rig.engine.lanes_of(&rig.owner).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stop_tells_the_ends_and_closes_every_lane() {
    let rig = rig(ScriptedHost::new());
    let (session, client) = (rig.connect().await, Client::of(&rig.engine));
    let shell = rig.open(&session).await;
    let lanes = [shell.spec.id.into(), Resource::from(session.spec.id)]
        .map(|resource| rig.lane(&client, resource, Options { start: Start::Now, ..pull() }).id);
    rig.engine.shutdown().await;
    for lane in lanes {
        assert_eq!(client.outlet.of(lane), [Delivery::Updated]);
    }
    assert!(rig.engine.lanes_of(&rig.owner).is_empty());
    tokio::time::timeout(ms(1), rig.engine.silenced()).await.unwrap();
    assert_eq!(rig.engine.tasks.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_tells_when_it_is_lost() {
    let rig = rig(ScriptedHost::new());
    let (session, client) = (rig.connect().await, Client::of(&rig.engine));
    let lane = rig.lane(&client, session.spec.id, Options { start: Start::Now, ..pull() });
    rig.pass(SECOND).await;
    assert_eq!(client.outlet.of(lane.id), []);
    rig.pass(40 * SECOND).await;
    assert_eq!(client.outlet.of(lane.id), [Delivery::Updated], "a probe while somebody watches");
    rig.engine.disconnect(&rig.owner, session.spec.id).await.unwrap();
    rig.pass(SECOND).await;
    assert_eq!(client.outlet.of(lane.id).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_filter_on_a_state_sees_its_body() {
    let rig = rig(ScriptedHost::new());
    let (session, client) = (rig.connect().await, Client::of(&rig.engine));
    let watched = Arc::clone(&session);
    let filter = Some(Filter::compile("disconnected", 99).unwrap());
    let mut ask =
        rig.ask_lane(&client, session.spec.id.into(), Options { filter, start: Start::Now, ..pull() });
    ask.body = Arc::new(move || watched.health.load().word.as_str().to_owned());
    let lane = rig.engine.open_lane(&rig.owner, client.peer(), ask).unwrap();
    rig.pass(100 * SECOND).await;
    assert_eq!(client.outlet.of(lane.id), []);
    assert!(lane.report().stats.filtered_events > 0);
    rig.engine.disconnect(&rig.owner, session.spec.id).await.unwrap();
    rig.pass(SECOND).await;
    assert_eq!(client.outlet.of(lane.id), [Delivery::Updated]);
}

#[tokio::test(start_paused = true)]
async fn the_list_is_told_at_most_once_a_second_and_to_its_owner() {
    let rig = rig(ScriptedHost::new());
    let (client, stranger) = (Client::of(&rig.engine), Client::of(&rig.engine));
    let other = ssh_mcp_core::owner::Owner::token("other");
    let _watches = [
        rig.engine.watch_list(&rig.owner, client.peer(), Arc::new(client.outlet.clone()), None),
        rig.engine.watch_list(&other, stranger.peer(), Arc::new(stranger.outlet.clone()), None),
    ];
    let session = rig.connect().await;
    rig.pass(ms(100)).await;
    for _ in 0..5 {
        rig.open(&session).await;
        rig.pass(ms(50)).await;
    }
    assert_eq!(client.outlet.heard().len(), 1);
    rig.pass(2 * SECOND).await;
    assert_eq!(client.outlet.heard().len(), 2);
    assert_eq!(stranger.outlet.heard().len(), 0);
    rig.pass(60 * SECOND).await;
    assert_eq!(client.outlet.heard().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_watches_is_reported_once_for_each_time_alone() {
    let rig = rig(ScriptedHost::new());
    let (session, client) = (rig.connect().await, Client::of(&rig.engine));
    let shell = rig.open(&session).await;
    let report = || rig.engine.take_leak(shell.spec.id.into());
    rig.pass(SECOND).await;
    assert_eq!(report(), None);
    rig.pass(3 * SECOND).await;
    let leak = report().unwrap();
    assert!(leak.resource == shell.spec.id.into() && leak.age >= 2 * SECOND, "{leak:?}");
    rig.pass(60 * SECOND).await;
    assert_eq!(report(), None);
    let lane = rig.lane(&client, shell.spec.id, Options { start: Start::Now, ..pull() });
    rig.engine.close_lane_by_call(&lane).await;
    rig.pass(10 * SECOND).await;
    assert_eq!(report(), None, "naming it for the lane was a use");
    rig.pass(30 * SECOND).await;
    assert!(report().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_releases_itself_or_is_used_is_no_leak() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let ask = OpenShell { auto_release: AutoRelease::On, ..ask_shell(&session) };
    let releasing = rig.engine.open_shell(&rig.owner, ask).await.unwrap().shell;
    let used = rig.open(&session).await;
    for _ in 0..20 {
        rig.pass(SECOND).await;
        _ = rig.engine.shell(&rig.owner, used.spec.id).unwrap();
    }
    assert_eq!(rig.engine.take_leak(releasing.spec.id.into()), None);
    assert_eq!(rig.engine.take_leak(used.spec.id.into()), None);
}

#[tokio::test(start_paused = true)]
async fn the_watcher_closes_where_it_may_and_an_observer_keeps() {
    let host = ScriptedHost::new().on("c", Script::new());
    let rig = rig_with(host, |settings| settings.leak_kill = Some(20 * SECOND));
    let (session, client) = (rig.connect().await, Client::of(&rig.engine));
    let mut ask = ask_exec(&session, "c");
    ask.limit = None;
    let (alone, watched) = (rig.exec(&session, "c").await, rig.engine.exec(&rig.owner, ask).await.unwrap());
    let _lane = rig.lane(&client, watched.spec.id, pull());
    rig.pass(40 * SECOND).await;
    assert_eq!(reason(&alone), Reason::LeakKill);
    assert!(watched.ending.get().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_lane_on_a_sync_hears_of_its_end_also_when_it_comes_late() {
    let rig = rig(ScriptedHost::new());
    let (session, client) = (rig.connect().await, Client::of(&rig.engine));
    rig.mirror.on_walk(Play::new().planned(1, 1).wait().completed("a", 1));
    let rsync = rig.sync(super::syncs::down(&session)).await;
    let early = rig.lane(&client, rsync.spec.id, pull());
    rig.pass(SECOND).await;
    assert_eq!(client.outlet.of(early.id), [Delivery::Updated]);
    rig.mirror.go_on();
    rig.pass(SECOND).await;
    assert_eq!(client.outlet.of(early.id), [Delivery::Updated, Delivery::Updated]);
    let late = rig.lane(&client, rsync.spec.id, pull());
    rig.pass(SECOND).await;
    assert_eq!(client.outlet.of(late.id), [Delivery::Updated]);
    // What somebody ended takes no lanes any more.
    rig.mirror.on_walk(Play::new().planned(1, 1).after(10 * SECOND));
    let rsync = rig.sync(super::syncs::down(&session)).await;
    rig.engine.cancel_sync(&rsync).await;
    let gone = rig.try_lane(&client, rsync.spec.id, pull()).err();
    let Some(OpenLaneError::Gone(crate::Missing::Gone { reason, .. })) = gone else { panic!("{gone:?}") };
    assert_eq!(reason, Reason::Cancelled);
}
