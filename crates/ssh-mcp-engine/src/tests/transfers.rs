//! Transfers in virtual time: who ends them and how, the file service they share, what is left.

use std::path::PathBuf;

use ssh_mcp_core::{
    kind::transfer::{Failure, Resume},
    registry::{Transfer, TransferStatus},
};

use super::*;
use crate::{Cancel, Local, Missing, Observable, Order, Route, TransferError, transfer::file::Refusal};

/// A file of this machine, and its directory.
fn local(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("source");
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

fn order(session: &Session, route: Route) -> Order {
    Order {
        session: session.spec.id,
        route,
        here: Local::unrestricted(),
        resume: Resume::No,
        verify: false,
        atomic: false,
        preserve: false,
        recursive: false,
        limit: None,
        auto_release: AutoRelease::Off,
        grace: 2 * SECOND,
    }
}

fn up(session: &Session, from: &std::path::Path, to: &str) -> Order {
    order(session, Route::Up { from: vec![from.to_owned()], to: to.into() })
}

impl Rig {
    async fn start(&self, order: Order) -> Arc<Transfer> {
        self.engine.transfer(&self.owner, order).await.unwrap()
    }

    async fn refused(&self, order: Order) -> TransferError {
        self.engine.transfer(&self.owner, order).await.err().expect("it is refused")
    }

    async fn over(&self, transfer: &Arc<Transfer>) -> TransferStatus {
        assert_eq!(self.engine.await_transfer(transfer, HOUR).await, Waited::Over);
        transfer.status()
    }
}

fn transfer_end(transfer: &Transfer) -> Reason {
    transfer.ending.get().expect("ended").reason
}

#[tokio::test(start_paused = true)]
async fn a_transfer_ends_by_itself_and_gives_everything_back() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let (_folder, source) = local(&[7; 2500]);
    let transfer = rig.start(up(&session, &source, "there")).await;
    assert_eq!(rig.over(&transfer).await, TransferStatus::Completed);
    assert_eq!(transfer_end(&transfer), Reason::Completed);
    assert_eq!(rig.files.get("/home/there"), Some(vec![7; 2500]));
    assert_eq!((transfer.reached().bytes, transfer.reached().files_done), (2500, 1));
    assert_eq!((session.life.snapshot().refs, session.transfers.in_use()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn transfers_share_a_service_that_ends_when_nobody_needs_it() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let (_folder, source) = local(b"content");
    rig.files.hold();
    let one = rig.start(up(&session, &source, "one")).await;
    let two = rig.start(up(&session, &source, "two")).await;
    assert_eq!((rig.files.mounts(), rig.files.open_services()), (1, 1));
    rig.pass(55 * SECOND).await;
    rig.files.go_on();
    for transfer in [&one, &two] {
        assert_eq!(rig.over(transfer).await, TransferStatus::Completed);
    }
    // Its time begins when the last one has ended, not when it was started.
    rig.pass(50 * SECOND).await;
    assert_eq!((rig.files.mounts(), rig.files.open_services()), (1, 1));
    rig.pass(20 * SECOND).await;
    assert_eq!((rig.files.mounts(), rig.files.open_services()), (1, 0));
    let four = rig.start(up(&session, &source, "four")).await;
    assert_eq!(rig.over(&four).await, TransferStatus::Completed);
    // One that the server has ended is not used again.
    rig.files.end_services();
    let five = rig.start(up(&session, &source, "five")).await;
    assert_eq!(rig.over(&five).await, TransferStatus::Completed);
    assert_eq!(rig.files.mounts(), 3);
    rig.engine.disconnect(&rig.owner, session.spec.id).await.unwrap();
    assert_eq!(rig.files.open_services(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_stands_still_is_given_up_after_a_minute() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let (_folder, source) = local(b"content");
    rig.files.hold();
    let transfer = rig.start(up(&session, &source, "x")).await;
    rig.pass(59 * SECOND).await;
    assert_eq!(transfer.status(), TransferStatus::Running);
    rig.pass(2 * SECOND).await;
    assert_eq!(transfer.status(), TransferStatus::Failed);
    assert_eq!(transfer.ending.get().unwrap().facts.error.as_ref().unwrap().failure, Failure::Timeout);
    assert_eq!(transfer_end(&transfer), Reason::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_stands_still_is_given_up_after_a_minute_however_many_files_are_left() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let folder = tempfile::tempdir().unwrap();
    for name in 0..100 {
        std::fs::write(folder.path().join(format!("{name}")), "content").unwrap();
    }
    rig.files.hold();
    let transfer = rig.start(Order { recursive: true, ..up(&session, folder.path(), "there") }).await;
    rig.pass(59 * SECOND).await;
    assert_eq!(transfer.status(), TransferStatus::Running);
    rig.pass(2 * SECOND).await;
    assert_eq!(transfer.status(), TransferStatus::Failed);
    assert_eq!(transfer.ending.get().unwrap().facts.error.as_ref().unwrap().failure, Failure::Timeout);
    assert_eq!(transfer_end(&transfer), Reason::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_tree_with_a_file_that_failed_is_not_said_to_be_verified() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("fine"), "content").unwrap();
    let verified = Order { recursive: true, verify: true, ..up(&session, folder.path(), "there") };
    let transfer = rig.start(verified.clone()).await;
    assert_eq!(rig.over(&transfer).await, TransferStatus::Completed);
    assert!(transfer.ending.get().unwrap().facts.outcome.verified.is_some());
    std::os::unix::fs::symlink("nowhere", folder.path().join("dangling")).unwrap();
    let transfer = rig.start(verified).await;
    assert_eq!(rig.over(&transfer).await, TransferStatus::Failed);
    assert_eq!((transfer.reached().files_done, transfer.reached().files_failed), (1, 1));
    assert_eq!(transfer.ending.get().unwrap().facts.outcome.verified, None);
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_behind_others_on_a_slow_line_is_not_given_up() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let (_folder, source) = local(b"content");
    rig.files.hold();
    let transfer = rig.start(up(&session, &source, "x")).await;
    for _ in 0..10 {
        rig.pass(30 * SECOND).await;
        rig.files.beat();
    }
    assert_eq!(transfer.status(), TransferStatus::Running);
    rig.files.go_on();
    assert_eq!(rig.over(&transfer).await, TransferStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_host_without_a_service_refuses_and_is_asked_again() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let (_folder, source) = local(b"content");
    rig.files.set_service(false);
    assert!(matches!(rig.refused(up(&session, &source, "x")).await, TransferError::NoService(_)));
    // What is wrong here is found without it.
    let folder = rig.refused(up(&session, source.parent().unwrap(), "x")).await;
    assert!(matches!(folder, TransferError::Refused(Refusal::LocalNotFile(_))), "{folder}");
    assert_eq!((session.life.snapshot().refs, session.transfers.in_use()), (0, 0));
    rig.files.set_service(true);
    let transfer = rig.start(up(&session, &source, "x")).await;
    assert_eq!(rig.over(&transfer).await, TransferStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn one_that_releases_itself_is_cancelled_when_nobody_looks() {
    let rig = rig_with(ScriptedHost::new(), |settings| settings.lifecycle_own_grace = 10 * SECOND);
    let session = rig.connect().await;
    let (_folder, source) = local(&[1; 5000]);
    rig.files.hold();
    let releasing = |to| Order { auto_release: AutoRelease::On, ..up(&session, &source, to) };
    let transfer = rig.start(releasing("one")).await;
    let watched = rig.start(releasing("two")).await;
    let observer = rig.engine.observe(Observable::Transfer(&watched));
    rig.pass(11 * SECOND).await;
    assert_eq!(transfer.status(), TransferStatus::Cancelled);
    assert_eq!(transfer_end(&transfer), Reason::NeverObserved);
    assert_eq!(watched.status(), TransferStatus::Running);
    drop(observer);
    rig.pass(11 * SECOND).await;
    assert_eq!(transfer_end(&watched), Reason::UnsubscribeGraceElapsed);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_first_ends_it_and_the_others_hear_so() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let (_folder, source) = local(&[1; 5000]);
    rig.files.hold();
    let transfer = rig.start(up(&session, &source, "x")).await;
    let (one, two) =
        tokio::join!(rig.engine.cancel_transfer(&transfer), rig.engine.cancel_transfer(&transfer));
    assert_eq!((one, two), (Cancel::Done, Cancel::AlreadyOver));
    assert_eq!(transfer_end(&transfer), Reason::Cancelled);
    // The place is free again, and so is the destination.
    rig.files.go_on();
    let again = rig.start(up(&session, &source, "x")).await;
    assert_eq!(rig.over(&again).await, TransferStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_is_ended_has_told_what_failed_before() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let (folder, _source) = local(b"content");
    std::os::unix::fs::symlink("nowhere", folder.path().join("dangling")).unwrap();
    rig.files.hold();
    let tree = Order { recursive: true, limit: Some(10 * SECOND), ..up(&session, folder.path(), "there") };
    let failures = |transfer: &Transfer| {
        let failures = &transfer.ending.get().unwrap().facts.failures;
        failures.iter().map(|fault| fault.failure).collect::<Vec<_>>()
    };
    let cancelled = rig.start(tree.clone()).await;
    rig.pass(SECOND).await;
    rig.engine.cancel_transfer(&cancelled).await;
    assert_eq!(failures(&cancelled), [Failure::FileNotFound]);
    let late = rig.start(tree).await;
    rig.pass(11 * SECOND).await;
    assert_eq!(failures(&late), [Failure::Timeout, Failure::FileNotFound]);
}

#[tokio::test(start_paused = true)]
async fn whoever_hears_that_a_tree_has_ended_finds_every_destination_free() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let folder = tempfile::tempdir().unwrap();
    for name in 0..20 {
        std::fs::write(folder.path().join(format!("{name}")), "content").unwrap();
    }
    rig.files.hold();
    let transfer = rig.start(Order { recursive: true, ..up(&session, folder.path(), "there") }).await;
    rig.pass(SECOND).await;
    assert_eq!(rig.engine.written.lock().len(), 16);
    // In a task of its own, which runs before those that are told to end with the tree.
    let engine = Arc::clone(&rig.engine);
    let mut caller = tokio::task::JoinSet::new();
    caller.spawn(async move {
        engine.cancel_transfer(&transfer).await;
        engine.written.lock().len()
    });
    assert_eq!(caller.join_next().await.unwrap().unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_destination_has_one_transfer() {
    let rig = rig(ScriptedHost::new());
    let (session, other) = (rig.connect().await, rig.connect().await);
    let (folder, source) = local(&[1; 5000]);
    rig.files.put("/home/file", &[2; 100]);
    rig.files.hold();
    let _one = rig.start(up(&session, &source, "x")).await;
    // Also over another session to the same account, and by another name.
    for (session, to) in
        [(&session, "x"), (&other, "/home/x"), (&other, "~/x"), (&other, "//home/./x"), (&other, "./././x")]
    {
        let refused = rig.refused(up(session, &source, to)).await;
        assert!(matches!(refused, TransferError::Refused(Refusal::Busy(_))), "{refused}");
    }
    let down =
        |to: &str| order(&session, Route::Down { from: vec![b"file".to_vec()], to: folder.path().join(to) });
    let _two = rig.start(down("got")).await;
    let refused = rig.refused(down("./got")).await;
    assert!(matches!(refused, TransferError::Refused(Refusal::Busy(_))), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn two_sources_of_one_name_are_refused_and_not_written_over_one_another() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let ((here, one), (_two, two)) = (local(b"one"), local(b"two"));
    let route = Route::Up { from: vec![one, two], to: b"/home".to_vec() };
    let refused = rig.refused(order(&session, route)).await;
    assert!(matches!(refused, TransferError::Refused(Refusal::Twins(_))), "{refused}");
    for path in ["/home/one/x", "/home/two/x"] {
        rig.files.put(path, path.as_bytes());
    }
    let from = vec![b"one/x".to_vec(), b"two/x".to_vec()];
    let route = Route::Down { from, to: here.path().to_owned() };
    let refused = rig.refused(order(&session, route)).await;
    assert!(matches!(refused, TransferError::Refused(Refusal::Twins(_))), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn what_ends_a_session_ends_its_transfers() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let (_folder, source) = local(&[1; 5000]);
    rig.files.hold();
    let transfer = rig.start(up(&session, &source, "x")).await;
    let outcome = rig.engine.disconnect(&rig.owner, session.spec.id).await.unwrap();
    assert_eq!(outcome.transfers_aborted, 1);
    assert_eq!(
        (transfer.status(), transfer_end(&transfer)),
        (TransferStatus::Cancelled, Reason::CascadeDisconnect)
    );
    rig.check_left_nothing(&session);

    let session = rig.connect().await;
    let transfer = rig.start(up(&session, &source, "x")).await;
    rig.host.lose_connections("gone");
    assert_eq!(rig.over(&transfer).await, TransferStatus::Failed);
    let facts = &transfer.ending.get().unwrap().facts;
    assert_eq!(facts.error.as_ref().unwrap().failure, Failure::ConnectionLost);
    assert_eq!(transfer_end(&transfer), Reason::ConnectionLost);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_takes_transfers_with_it() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let (_folder, source) = local(&[1; 5000]);
    rig.files.hold();
    let transfer = rig.start(up(&session, &source, "x")).await;
    assert_eq!(rig.engine.shutdown().await, crate::Drained::Clean);
    assert_eq!(transfer_end(&transfer), Reason::ServerShutdown);
    let late = rig.refused(up(&session, &source, "y")).await;
    assert!(matches!(late, TransferError::Start(StartError::Draining)), "{late}");
}

#[tokio::test(start_paused = true)]
async fn an_ended_transfer_stays_readable_for_its_time() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let (_folder, source) = local(b"content");
    let transfer = rig.start(up(&session, &source, "x")).await;
    rig.over(&transfer).await;
    rig.pass(299 * SECOND).await;
    let id = transfer.spec.id;
    // Looking counts, and the time begins anew.
    assert!(rig.engine.transfer_of(&rig.owner, id).is_ok());
    assert!(rig.engine.transfer_of(&Owner::token("x"), id).is_err());
    rig.pass(290 * SECOND).await;
    assert!(rig.engine.registries().transfers.entry(id).is_some());
    rig.pass(20 * SECOND).await;
    let missing = rig.engine.transfer_of(&rig.owner, id).err();
    assert!(matches!(missing, Some(Missing::Gone { reason: Reason::Completed, .. })), "{missing:?}");
}

#[tokio::test(start_paused = true)]
async fn the_limit_counts_what_is_under_way() {
    let rig = rig_with(ScriptedHost::new(), |settings| settings.max_transfers_per_session = 1);
    let session = rig.connect().await;
    let (_folder, source) = local(&[1; 5000]);
    rig.files.hold();
    let transfer = rig.start(up(&session, &source, "one")).await;
    let refused = rig.refused(up(&session, &source, "two")).await;
    assert!(matches!(refused, TransferError::Start(StartError::TooManyTransfers { limit: 1 })), "{refused}");
    rig.engine.cancel_transfer(&transfer).await;
    rig.files.go_on();
    let transfer = rig.start(up(&session, &source, "two")).await;
    assert_eq!(rig.over(&transfer).await, TransferStatus::Completed);
    // A refusal holds no place.
    let missing = rig.refused(up(&session, std::path::Path::new("/none"), "x")).await;
    assert!(matches!(missing, TransferError::Refused(Refusal::Local { .. })), "{missing}");
    assert_eq!((session.life.snapshot().refs, session.transfers.in_use()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_run_time_that_is_over_fails_it() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let (_folder, source) = local(&[1; 5000]);
    rig.files.hold();
    let transfer = rig.start(Order { limit: Some(10 * SECOND), ..up(&session, &source, "x") }).await;
    rig.pass(9 * SECOND).await;
    assert_eq!(transfer.status(), TransferStatus::Running);
    rig.pass(2 * SECOND).await;
    assert_eq!(transfer.status(), TransferStatus::Failed);
    assert_eq!(transfer.ending.get().unwrap().facts.error.as_ref().unwrap().failure, Failure::Timeout);
    assert_eq!(transfer_end(&transfer), Reason::TimedOut);
}

/// Invariant 52, by many rounds: whoever looks while a resumed transfer runs never sees less than it resumed from.
#[tokio::test(start_paused = true)]
async fn a_resumed_transfer_never_shows_less_than_it_resumed_from() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let (_folder, source) = local(&[3; 20_000]);
    let mut dice = Dice(0x5eed);
    for round in 0..1000 {
        let held = dice.roll(20_000);
        rig.files.put("/home/x", &vec![3; held as usize]);
        let transfer = rig.start(Order { resume: Resume::Yes, ..up(&session, &source, "x") }).await;
        let mut watch = transfer.changes.watch();
        let mut before = held;
        loop {
            let mark = transfer.changes.mark();
            let reached = transfer.reached();
            assert!(reached.bytes >= before && reached.resumed_from == held, "{round}: {reached:?} {held}");
            assert!(reached.bytes <= 20_000, "{round}: {reached:?}");
            before = reached.bytes;
            if mark.ended {
                break;
            }
            watch.changed().await;
        }
        assert_eq!((before, transfer.status()), (20_000, TransferStatus::Completed), "{round}");
    }
}
