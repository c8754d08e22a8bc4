//! Syncs in virtual time: by which way they go, who ends them and how, what is told of them.

use ssh_mcp_core::{
    kind::rsync::{Event, Failure, KEPT, NoWay, Status, Transport, Way, sides},
    port::mirror::{BrokenKind, Done, News, NewsDesk, Options, Skip},
    registry::{Direction, Rsync},
};
use ssh_mcp_testkit::mirror::Play;

use super::*;
use crate::{
    Cancel, Local, Missing, Observable, Order, Route, SyncError, SyncOrder, TransferError,
    transfer::file::Refusal,
};

const VERSION: &str = "rsync  version 3.2.7  protocol version 31\n";

/// A host with an rsync that can be used.
fn modern() -> ScriptedHost {
    ScriptedHost::new().on("rsync --version", Script::prints(VERSION))
}

/// A host without any.
fn bare() -> ScriptedHost {
    ScriptedHost::new()
}

pub(super) fn down(session: &Session) -> SyncOrder {
    SyncOrder {
        session: session.spec.id,
        sides: sides("box:/srv", "/tmp/there", None).unwrap(),
        local: "/tmp/there".into(),
        here: Local::unrestricted(),
        way: Way::Auto,
        options: Options { recursive: true, ..Options::default() },
        include: Vec::new(),
        exclude: Vec::new(),
        bwlimit: None,
        limit: None,
        auto_release: AutoRelease::Off,
    }
}

fn by(way: Transport, session: &Session) -> SyncOrder {
    SyncOrder { way: Way::Only(way), ..down(session) }
}

fn skipped(desk: &dyn NewsDesk, path: &str) {
    desk.tell(News::Skipped { path: path.as_bytes(), bytes: 1, because: Skip::Mtime });
}

/// A plan, and then nothing until the test says so.
fn held() -> Play {
    Play::new().planned(2, 10).completed("a", 5).wait().completed("b", 5)
}

impl Rig {
    pub(super) async fn sync(&self, order: SyncOrder) -> Arc<Rsync> {
        self.engine.sync(&self.owner, order).await.unwrap()
    }

    async fn no_sync(&self, order: SyncOrder) -> SyncError {
        self.engine.sync(&self.owner, order).await.err().expect("it is refused")
    }

    fn probes(&self) -> usize {
        self.host.command_lines().iter().filter(|line| line.contains("rsync --version")).count()
    }
}

/// Every event of a log, and the check that exactly the last one is an end.
fn events(rsync: &Rsync) -> Vec<Event> {
    let window = rsync.course.log.read(0, usize::MAX);
    let events: Vec<Event> = window.events.iter().map(|(_, logged)| logged.event.clone()).collect();
    let is_end = |event: &Event| matches!(event, Event::SyncCompleted { .. } | Event::SessionFailed { .. });
    let ends = events.iter().filter(|event| is_end(event)).count();
    assert_eq!((window.ended, ends), (true, 1), "{events:?}");
    assert!(events.last().is_some_and(is_end));
    events
}

/// Status, reason, and the code of the last event of a sync that came to no end.
fn failed(rsync: &Rsync) -> (Status, Reason, &'static str) {
    let end = rsync.ending.get().expect("ended");
    let Some(Event::SessionFailed { code, .. }) = events(rsync).pop() else { panic!("it came to an end") };
    assert_eq!(end.facts.fault.as_ref().unwrap().failure.as_str(), code);
    (end.facts.status, end.reason, code)
}

fn check_gave_back(rig: &Rig, session: &Session) {
    assert_eq!((session.life.snapshot().refs, session.transfers.in_use()), (0, 0));
    assert_eq!(rig.mirror.under_way(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_sync_ends_by_itself_and_gives_everything_back() {
    let rig = rig(modern());
    let session = rig.connect().await;
    rig.mirror.on_wire(held());
    let rsync = rig.sync(down(&session)).await;
    assert_eq!((rsync.status(), rsync.course.transport()), (Status::Running, Transport::Wire));
    assert_eq!(session.transfers.in_use(), 1);
    rig.mirror.go_on();
    rig.engine.sync_ended(&rsync).await;
    assert_eq!((rsync.status(), rsync.ending.get().unwrap().reason), (Status::Completed, Reason::Completed));
    let stats = rsync.course.stats();
    assert_eq!((stats.files_total, stats.files_done, stats.bytes_transferred), (2, 2, 10));
    let last = Event::SyncCompleted { stats, delete_skipped: None };
    assert_eq!(events(&rsync).last(), Some(&last));
    check_gave_back(&rig, &session);
    assert_eq!(rig.host.open_channels(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_job_says_what_was_asked() {
    let rig = rig_with(modern(), |settings| {
        settings.rsync_file_list_limit = 7;
        settings.rsync_block_size = Some(4096);
    });
    let session = rig.connect().await;
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().canonicalize().unwrap();
    std::fs::create_dir(here.join("inner")).unwrap();
    let source = format!("{}/inner/../inner/", here.display());
    let order = SyncOrder {
        sides: sides(&source, "", Some(Direction::Upload)).unwrap(),
        local: source.into(),
        options: Options { compress: true, ..Options::default() },
        exclude: vec!["*.o".into()],
        bwlimit: Some(9),
        ..down(&session)
    };
    rig.sync(order).await;
    let job = rig.mirror.runs().pop().unwrap().job;
    assert_eq!((job.direction, job.local, job.content), (Direction::Upload, here.join("inner"), true));
    assert_eq!((job.remote, job.list_limit, job.block_len), (Vec::new(), 7, Some(4096)));
    assert_eq!((job.options.compress, job.exclude, job.bwlimit), (true, vec!["*.o".to_owned()], Some(9)));
}

/// lifecycle 6.51
#[tokio::test(start_paused = true)]
async fn syncs_share_one_probe_and_its_answer_is_kept() {
    let host = ScriptedHost::new().on("rsync --version", Script::new().after(ms(500)).out(VERSION).exit(0));
    let rig = rig(host);
    let session = rig.connect().await;
    let (one, two) = tokio::join!(rig.sync(down(&session)), rig.sync(down(&session)));
    for rsync in [one, two, rig.sync(down(&session)).await] {
        assert_eq!(rsync.course.transport(), Transport::Wire);
    }
    assert_eq!(rig.probes(), 1);
    // Where there is no choice nobody is asked.
    let other = rig.connect().await;
    assert_eq!(rig.sync(by(Transport::Sftp, &other)).await.course.transport(), Transport::Sftp);
    assert_eq!(rig.probes(), 1);
}

/// lifecycle 6.51
#[tokio::test(start_paused = true)]
async fn a_probe_without_an_answer_counts_for_those_who_wait_and_is_not_kept() {
    let host =
        ScriptedHost::new().on("rsync --version", Script::new().after(3 * SECOND).out(VERSION).exit(0));
    let rig = rig(host);
    let session = rig.connect().await;
    let before = rig.now();
    let (one, two) = tokio::join!(rig.sync(down(&session)), rig.sync(down(&session)));
    assert!(rig.now() - before < ms(2500));
    assert_eq!((one.course.transport(), two.course.transport()), (Transport::Sftp, Transport::Sftp));
    assert_eq!((rig.probes(), session.rsync.value()), (1, None));
    let refused = rig.no_sync(by(Transport::Wire, &session)).await;
    assert!(
        matches!(&refused, SyncError::NoWay(NoWay::Unavailable(words)) if words.contains("2000 ms")),
        "{refused}"
    );
    assert_eq!(rig.probes(), 2);
    check_gave_back(&rig, &session);
}

#[tokio::test(start_paused = true)]
async fn what_only_rsync_can_do_is_refused_on_a_host_without() {
    let rig = rig(bare());
    let session = rig.connect().await;
    let links = Options { hard_links: true, ..Options::default() };
    let refused = rig.no_sync(SyncOrder { options: links, ..down(&session) }).await;
    assert!(matches!(refused, SyncError::NoWay(NoWay::FeatureMissing { option: "preserve.hardlinks", .. })));
    let refused = rig.no_sync(by(Transport::Wire, &session)).await;
    assert!(matches!(refused, SyncError::NoWay(NoWay::Unavailable(_))), "{refused}");
    assert!(rig.mirror.runs().is_empty());
    assert_eq!(rig.files.mounts(), 0);
    check_gave_back(&rig, &session);
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_refused_and_nothing_is_held() {
    let rig = rig(modern());
    let session = rig.connect().await;
    let refused = rig.no_sync(SyncOrder { exclude: vec!["[a".into()], ..down(&session) }).await;
    assert!(matches!(&refused, SyncError::Argument(why) if why.starts_with("[a:")), "{refused}");
    let delete = Options { delete: true, ..Options::default() };
    for (to, local) in [("/", "/"), ("/tmp/..", "/tmp/..")] {
        let sides = sides("box:x", to, None).unwrap();
        let order = SyncOrder { sides, local: local.into(), options: delete, ..down(&session) };
        let refused = rig.no_sync(order).await;
        assert!(matches!(&refused, SyncError::Argument(why) if why.contains("root")), "{refused}");
    }
    let missing = sides("/none/at/all", "box:x", None).unwrap();
    let refused =
        rig.no_sync(SyncOrder { sides: missing, local: "/none/at/all".into(), ..down(&session) }).await;
    assert!(matches!(refused, SyncError::Refused(Refusal::Local { .. })), "{refused}");
    let folder = tempfile::tempdir().unwrap();
    let here = Local::below(&[folder.path().to_owned()]);
    let refused = rig.no_sync(SyncOrder { here, ..down(&session) }).await;
    assert!(matches!(refused, SyncError::Refused(Refusal::Outside(_))), "{refused}");
    rig.files.set_service(false);
    let refused = rig.no_sync(by(Transport::Sftp, &session)).await;
    assert!(matches!(refused, SyncError::NoService(_)), "{refused}");
    assert!(rig.mirror.runs().is_empty());
    check_gave_back(&rig, &session);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_at_once_is_the_callers_answer() {
    let rig = rig(bare());
    let session = rig.connect().await;
    for (play, failure) in [
        (Play::new().breaks(BrokenKind::FeatureMissing, "no symlinks there", false), Failure::FeatureMissing),
        (Play::new().after(SECOND).breaks(BrokenKind::Refused, "no such source", false), Failure::Refused),
        (Play::new().breaks(BrokenKind::ListTooLarge, "too many", false), Failure::ListTooLarge),
        (Play::new().breaks(BrokenKind::Protocol, "what?", false), Failure::Protocol),
    ] {
        rig.mirror.on_walk(play);
        let refused = rig.no_sync(down(&session)).await;
        assert!(matches!(&refused, SyncError::Broken(fault) if fault.failure == failure), "{refused}");
        assert!(rig.engine.registries().rsyncs.is_empty());
    }
    check_gave_back(&rig, &session);
    // One that comes late is told as an event.
    rig.mirror.on_walk(Play::new().after(3 * SECOND).breaks(BrokenKind::Refused, "no such source", false));
    let rsync = rig.sync(down(&session)).await;
    assert_eq!(rsync.status(), Status::Probing);
    rig.engine.sync_ended(&rsync).await;
    assert_eq!(failed(&rsync), (Status::Failed, Reason::Failed, "INVALID_ARGUMENT"));
    // And so is one that comes when files have been looked at.
    rig.mirror.on_walk(Play::new().planned(1, 1).breaks(BrokenKind::Partial, "cut off", true));
    let rsync = rig.sync(down(&session)).await;
    rig.engine.sync_ended(&rsync).await;
    assert_eq!(failed(&rsync), (Status::Failed, Reason::Failed, "RSYNC_PARTIAL_TRANSFER"));
}

#[tokio::test(start_paused = true)]
async fn auto_falls_back_before_the_first_file_and_only_then() {
    let rig = rig(modern());
    let session = rig.connect().await;
    let unclean = "is your shell clean?";
    for wire in [Play::new(), Play::new().planned(2, 10)] {
        rig.mirror.on_wire(wire.breaks(BrokenKind::Protocol, unclean, false));
        rig.mirror.on_walk(Play::new().planned(2, 10).completed("a", 5).completed("b", 5));
        let rsync = rig.sync(down(&session)).await;
        rig.engine.sync_ended(&rsync).await;
        assert_eq!((rsync.status(), rsync.course.transport()), (Status::Completed, Transport::Sftp));
        assert_eq!(rsync.course.fell_back().as_deref(), Some(unclean));
        let started =
            Event::SessionStarted { transport: Transport::Sftp, files_planned: 2, bytes_planned: 10 };
        assert_eq!((events(&rsync).first(), rsync.course.stats().files_done), (Some(&started), 2));
    }
    let walks = |rig: &Rig| rig.mirror.runs().iter().filter(|run| !run.is_wire).count();
    assert_eq!(walks(&rig), 2);
    for wire in [
        Play::new().planned(1, 1).tell(|desk| skipped(desk, "a")).breaks(BrokenKind::Protocol, "x", false),
        Play::new().planned(1, 1).breaks(BrokenKind::Protocol, "x", true),
        Play::new().planned(1, 1).breaks(BrokenKind::Partial, "x", false),
    ] {
        rig.mirror.on_wire(wire);
        let rsync = rig.sync(down(&session)).await;
        rig.engine.sync_ended(&rsync).await;
        assert_eq!((rsync.status(), rsync.course.fell_back()), (Status::Failed, None));
    }
    // Who wants this way wants no other, and what no other can do is not tried by it.
    rig.mirror.on_wire(Play::new().breaks(BrokenKind::Protocol, unclean, false));
    let checksum = Options { checksum: true, ..Options::default() };
    for order in [by(Transport::Wire, &session), SyncOrder { options: checksum, ..down(&session) }] {
        let refused = rig.no_sync(order).await;
        assert!(
            matches!(&refused, SyncError::Broken(fault) if fault.failure == Failure::Protocol),
            "{refused}"
        );
    }
    assert_eq!(walks(&rig), 2);
    rig.files.end_services();
    rig.files.set_service(false);
    let refused = rig.no_sync(down(&session)).await;
    assert!(refused.to_string().starts_with("is your shell clean?; and "), "{refused}");
    check_gave_back(&rig, &session);
}

/// lifecycle 6.49
#[tokio::test(start_paused = true)]
async fn a_cancelled_sync_ends_once_and_a_second_cancel_changes_nothing() {
    let rig = rig(bare());
    let session = rig.connect().await;
    rig.mirror.on_walk(held());
    let rsync = rig.sync(down(&session)).await;
    let (one, two) = tokio::join!(rig.engine.cancel_sync(&rsync), rig.engine.cancel_sync(&rsync));
    assert_eq!((one, two), (Cancel::Done, Cancel::AlreadyOver));
    assert_eq!(failed(&rsync), (Status::Cancelled, Reason::Cancelled, "CANCELLED"));
    assert_eq!(rig.engine.cancel_sync(&rsync).await, Cancel::AlreadyOver);
    check_gave_back(&rig, &session);
    // One that does not listen is left behind, and what it still tells is nothing.
    rig.mirror.on_walk(held().deaf());
    let deaf = rig.sync(down(&session)).await;
    let before = rig.now();
    assert_eq!(rig.engine.cancel_sync(&deaf).await, Cancel::Done);
    assert_eq!(rig.now() - before, 5 * SECOND);
    check_gave_back(&rig, &session);
    rig.mirror.go_on();
    rig.pass(SECOND).await;
    assert_eq!((failed(&deaf).0, deaf.course.stats().files_done), (Status::Cancelled, 1));
}

/// lifecycle 6.49, by many rounds: whoever comes first, there is one end, and it says what the status says.
#[tokio::test(start_paused = true)]
async fn a_cancel_at_the_moment_of_the_end_is_one_or_the_other() {
    let rig = rig(bare());
    let session = rig.connect().await;
    let mut dice = Dice(0x5eed);
    let (mut cancelled, mut completed) = (0, 0);
    for round in 0..1000 {
        rig.mirror.on_walk(Play::new().planned(1, 1).after(ms(dice.roll(3))).completed("a", 1));
        let rsync = rig.sync(down(&session)).await;
        rig.pass(ms(dice.roll(3))).await;
        let cancel = rig.engine.cancel_sync(&rsync).await;
        let last = events(&rsync).pop();
        match (cancel, rsync.status()) {
            (Cancel::Done, Status::Cancelled) => {
                cancelled += 1;
                assert!(matches!(last, Some(Event::SessionFailed { code: "CANCELLED", .. })), "{round}");
            }
            (Cancel::AlreadyOver, Status::Completed) => {
                completed += 1;
                let stats = rsync.course.stats();
                assert_eq!(
                    (stats.files_done, last),
                    (1, Some(Event::SyncCompleted { stats, delete_skipped: None }))
                );
            }
            other => panic!("{round}: {other:?}"),
        }
    }
    assert!(cancelled > 100 && completed > 100, "{cancelled} {completed}");
}

#[tokio::test(start_paused = true)]
async fn a_run_time_that_is_over_fails_it() {
    let rig = rig(bare());
    let session = rig.connect().await;
    rig.mirror.on_walk(held());
    let rsync = rig.sync(SyncOrder { limit: Some(10 * SECOND), ..down(&session) }).await;
    rig.pass(9 * SECOND).await;
    assert_eq!(rsync.status(), Status::Running);
    rig.pass(2 * SECOND).await;
    assert_eq!(failed(&rsync), (Status::Failed, Reason::TimedOut, "TIMEOUT"));
    check_gave_back(&rig, &session);
}

#[tokio::test(start_paused = true)]
async fn one_that_nobody_observes_ends_if_it_is_to() {
    let rig = rig(bare());
    let session = rig.connect().await;
    rig.mirror.on_walk(held());
    let order = SyncOrder { auto_release: AutoRelease::On, ..down(&session) };
    let never = rig.sync(order.clone()).await;
    rig.pass(29 * SECOND).await;
    assert_eq!(never.status(), Status::Running);
    rig.pass(2 * SECOND).await;
    assert_eq!(failed(&never), (Status::Cancelled, Reason::NeverObserved, "CANCELLED"));
    let looked_at = rig.sync(order).await;
    drop(rig.engine.observe(Observable::Rsync(&looked_at)).unwrap());
    rig.pass(29 * SECOND).await;
    assert_eq!(looked_at.status(), Status::Running);
    rig.pass(2 * SECOND).await;
    assert_eq!(failed(&looked_at).1, Reason::UnsubscribeGraceElapsed);
    check_gave_back(&rig, &session);
}

#[tokio::test(start_paused = true)]
async fn what_ends_a_session_ends_its_syncs() {
    let rig = rig(modern());
    let session = rig.connect().await;
    rig.mirror.on_wire(held());
    let rsync = rig.sync(down(&session)).await;
    let outcome = rig.engine.disconnect(&rig.owner, session.spec.id).await.unwrap();
    assert_eq!((outcome.rsyncs_cancelled, outcome.transfers_aborted), (1, 0));
    assert_eq!(failed(&rsync), (Status::Cancelled, Reason::CascadeDisconnect, "CANCELLED"));
    rig.check_left_nothing(&session);

    let session = rig.connect().await;
    let rsync = rig.sync(down(&session)).await;
    rig.host.lose_connections("gone");
    rig.engine.sync_ended(&rsync).await;
    assert_eq!(failed(&rsync), (Status::Failed, Reason::ConnectionLost, "CONNECTION_LOST"));

    // The same where only the channel of the sync broke.
    let session = rig.connect().await;
    rig.mirror.on_wire(Play::new().planned(1, 1).breaks(BrokenKind::Lost, "the channel ended", true));
    let rsync = rig.sync(down(&session)).await;
    rig.engine.sync_ended(&rsync).await;
    assert_eq!(failed(&rsync), (Status::Failed, Reason::ConnectionLost, "CONNECTION_LOST"));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_takes_syncs_with_it() {
    let rig = rig(bare());
    let session = rig.connect().await;
    rig.mirror.on_walk(held());
    let rsync = rig.sync(down(&session)).await;
    assert_eq!(rig.engine.shutdown().await, crate::Drained::Clean);
    assert_eq!(failed(&rsync), (Status::Cancelled, Reason::ServerShutdown, "CANCELLED"));
    let late = rig.no_sync(down(&session)).await;
    assert!(matches!(late, SyncError::Start(StartError::Draining)), "{late}");
}

#[tokio::test(start_paused = true)]
async fn the_limit_counts_syncs_and_transfers_together() {
    let rig = rig_with(bare(), |settings| settings.max_transfers_per_session = 1);
    let session = rig.connect().await;
    rig.mirror.on_walk(held());
    let rsync = rig.sync(down(&session)).await;
    let refused = rig.no_sync(down(&session)).await;
    assert!(matches!(refused, SyncError::Start(StartError::TooManyTransfers { limit: 1 })), "{refused}");
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("file");
    std::fs::write(&source, "content").unwrap();
    let upload = || Order {
        session: session.spec.id,
        route: Route::Up { from: vec![source.clone()], to: b"x".to_vec() },
        here: Local::unrestricted(),
        resume: ssh_mcp_core::kind::transfer::Resume::No,
        verify: false,
        atomic: false,
        preserve: false,
        recursive: false,
        limit: None,
        auto_release: AutoRelease::Off,
        grace: 2 * SECOND,
    };
    let refused = rig.engine.transfer(&rig.owner, upload()).await.err().unwrap();
    assert!(matches!(refused, TransferError::Start(StartError::TooManyTransfers { limit: 1 })), "{refused}");
    rig.engine.cancel_sync(&rsync).await;
    rig.files.hold();
    rig.engine.transfer(&rig.owner, upload()).await.unwrap();
    let refused = rig.no_sync(down(&session)).await;
    assert!(matches!(refused, SyncError::Start(StartError::TooManyTransfers { limit: 1 })), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn the_log_of_ten_thousand_files_keeps_its_first_event_and_its_last() {
    let rig = rig(bare());
    let session = rig.connect().await;
    rig.mirror.on_walk(
        Play::new()
            .planned(10_000, 10_000)
            .tell(|desk| (0..10_000).for_each(|at| skipped(desk, &at.to_string())))
            .done(Done { delete_skipped: Some("a directory failed".into()), notes: Vec::new() }),
    );
    let rsync = rig.sync(down(&session)).await;
    rig.engine.sync_ended(&rsync).await;
    let events = events(&rsync);
    assert_eq!(events.len(), KEPT + 1);
    assert!(matches!(events.first(), Some(Event::SessionStarted { files_planned: 10_000, .. })));
    let stats = rsync.course.stats();
    assert_eq!((stats.files_done, stats.bytes_skipped), (10_000, 10_000));
    let last = Event::SyncCompleted { stats, delete_skipped: Some("a directory failed".into()) };
    assert_eq!(events.last(), Some(&last));
}

#[tokio::test(start_paused = true)]
async fn an_ended_sync_stays_readable_for_its_time() {
    let rig = rig(bare());
    let session = rig.connect().await;
    let rsync = rig.sync(down(&session)).await;
    rig.engine.sync_ended(&rsync).await;
    rig.pass(299 * SECOND).await;
    let id = rsync.spec.id;
    // Looking counts, and the time begins anew.
    assert!(rig.engine.rsync(&rig.owner, id).is_ok());
    assert!(rig.engine.rsync(&Owner::token("x"), id).is_err());
    rig.pass(290 * SECOND).await;
    assert!(rig.engine.registries().rsyncs.entry(id).is_some());
    rig.pass(20 * SECOND).await;
    let missing = rig.engine.rsync(&rig.owner, id).err();
    assert!(matches!(missing, Some(Missing::Gone { reason: Reason::Completed, .. })), "{missing:?}");
}
