//! Cases 38 to 52: what goes wrong.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ssh_mcp_core::port::mirror::{BrokenKind, FileFault, News};
use ssh_mcp_core::registry::Direction;
use tokio::sync::oneshot;

use crate::bench::{Bench, Run, files, runs};
use crate::child::{Cut, Damage};
use crate::servers::{Server, skip_aloud};
use crate::snapshot::{Kind, Snapshot, assert_same, snapshot};
use crate::tree::{Dice, Scratch, base, is_root, set_time, settle};

/// A file that arrives otherwise than it was sent so many times.
async fn damaged(server: &Server, direction: Direction, times: usize) -> (Bench, crate::bench::Outcome) {
    let bench = Bench::new(direction);
    bench.source().file("damaged", b"what the damage hits, and more".repeat(10));
    bench.source().file("other", "what nothing hits");
    settle(bench.source().0);
    let mut run = bench.run(server, "rt");
    run.setup.damage = Some(Damage { direction, pattern: b"the damage", times });
    let outcome = run.go().await;
    outcome.assert_done().await;
    (bench, outcome)
}

#[tokio::test]
async fn case_38_and_40_a_file_that_is_damaged_once_is_sent_again() {
    for (server, direction) in runs(Server::all()) {
        let (bench, outcome) = damaged(&server, direction, 1).await;
        assert!(outcome.told.failed.is_empty(), "{:?}", outcome.told.failed);
        assert_eq!(outcome.told.completed.len(), 2);
        assert!(outcome.process.ended().await.success());
        bench.assert_mirrored("rt");
    }
}

#[tokio::test]
async fn case_39_a_file_that_is_always_damaged_is_given_up() {
    for (server, direction) in runs(Server::all()) {
        let (bench, outcome) = damaged(&server, direction, usize::MAX).await;
        assert_eq!(outcome.told.failed[&b"damaged"[..]].fault, FileFault::VerifyMismatch);
        assert_eq!(outcome.told.failed.len(), 1);
        assert_eq!(files(&snapshot(bench.target().0)), [b"other".to_vec()].into());
    }
}

/// What is done to a file between the list and the look at its content.
async fn changed_after_listing(
    server: &Server,
    change: fn(&Path) -> std::io::Result<()>,
) -> (Bench, crate::bench::Outcome) {
    let bench = Bench::new(Direction::Upload);
    for name in ["a", "changed", "z"] {
        bench.source().file(name, name);
    }
    let path = bench.source().at("changed");
    let mut run = bench.run(server, "rt");
    run.on_news = Box::new(move |news| {
        if matches!(news, News::Planned { .. }) {
            change(&path).unwrap();
        }
    });
    let outcome = run.go().await;
    outcome.assert_done().await;
    assert_eq!(files(&snapshot(bench.target().0)), [b"a".to_vec(), b"z".to_vec()].into());
    (bench, outcome)
}

#[tokio::test]
async fn case_41_a_file_that_vanishes() {
    for server in Server::all() {
        let (_bench, outcome) = changed_after_listing(&server, |path| fs::remove_file(path)).await;
        assert_eq!(outcome.told.failed[&b"changed"[..]].fault, FileFault::FileNotFound);
        assert_eq!(outcome.process.ended().await.code(), Some(24));
    }
}

#[tokio::test]
async fn case_42_a_file_that_cannot_be_opened() {
    for server in Server::all() {
        let replace = |path: &Path| fs::remove_file(path).and_then(|()| symlink("a", path));
        let (_bench, outcome) = changed_after_listing(&server, replace).await;
        assert_eq!(outcome.told.failed[&b"changed"[..]].fault, FileFault::IoError);
        assert_eq!(outcome.process.ended().await.code(), Some(23));
    }
}

/// A run with a server that is somebody else.
fn as_user(bench: &Bench, server: &Server, letters: &str) -> Run {
    let mut run = bench.run(server, letters);
    run.setup.run_as = Some((12_345, 54_321));
    run.setup.server = server.copied_to(bench.scratch.path());
    run
}

#[tokio::test]
async fn case_43_and_58_what_the_server_may_not_read() {
    if !is_root() {
        return skip_aloud("only root may start a server as somebody else");
    }
    for server in Server::all() {
        let bench = Bench::new(Direction::Download);
        for name in ["open", "closed", "secret/file", "public/file"] {
            bench.source().file(name, name);
        }
        bench.source().mode("closed", 0o600);
        bench.source().mode("secret", 0o700);
        bench.target().file("too much", "");
        let run = as_user(&bench, &server, "r").with_job(|job| job.options.delete = true);
        let outcome = run.go().await;
        let done = outcome.assert_done().await;
        assert!(done.delete_skipped.is_some());
        let closed = &outcome.told.failed[&b"closed"[..]];
        assert_eq!((closed.fault, closed.planned), (FileFault::PermissionDenied, true));
        assert!(closed.detail.contains("Permission denied"), "{closed:?}");
        assert!(outcome.told.failed.contains_key(&b"secret"[..]), "{:?}", outcome.told.failed);
        let expected: [&[u8]; 3] = [b"open", b"public/file", b"too much"];
        assert_eq!(files(&snapshot(bench.target().0)), expected.map(<[u8]>::to_vec).into());
        assert_eq!(outcome.process.ended().await.code(), Some(23));
    }
}

#[tokio::test]
async fn case_44_what_the_server_may_not_write() {
    if !is_root() {
        return skip_aloud("only root may start a server as somebody else");
    }
    for server in Server::all() {
        let bench = Bench::new(Direction::Upload);
        bench.source().file("one", "one");
        bench.source().file("below/two", "two");
        bench.target().directory("below");
        bench.target().own("below", 12_345, 54_321);
        let outcome = as_user(&bench, &server, "r").go().await;
        outcome.assert_done().await;
        assert_eq!(outcome.told.failed[&b"one"[..]].fault, FileFault::PermissionDenied);
        assert_eq!(outcome.told.failed.len(), 1);
        assert_eq!(files(&snapshot(bench.target().0)), [b"below/two".to_vec()].into());
    }
}

/// A run that comes to no end because of what becomes of its command line.
async fn breaks(server: &Server, direction: Direction, command: fn(String) -> String, words: &str) {
    let bench = Bench::new(direction);
    bench.source().file("a file", "content");
    let mut run = bench.run(server, "r");
    run.setup.command = Arc::new(command);
    let outcome = run.go().await;
    let broken = outcome.broken().await;
    assert_eq!((broken.kind, broken.touched), (BrokenKind::Protocol, false), "{broken}");
    assert!(broken.detail.contains(words), "{broken}");
    assert_eq!(snapshot(bench.target().0).len(), 1);
}

#[tokio::test]
async fn case_46_an_option_the_server_does_not_know() {
    for (server, direction) in runs(Server::all()) {
        let command = |line: String| line.replacen(" . ", " --no-such-option . ", 1);
        breaks(&server, direction, command, "--no-such-option: unknown option").await;
    }
}

#[tokio::test]
async fn case_47_no_rsync_and_a_shell_that_talks() {
    for (server, direction) in runs(Server::recent()) {
        breaks(&server, direction, |line| format!("no-such-{line}"), "code 127").await;
        breaks(&server, direction, |line| format!("echo Welcome to this host; {line}"), "Welcome").await;
        breaks(&server, direction, |_| "exit 1".to_owned(), "code 1").await;
    }
}

/// Each file that is there is one of the source's or one that was there before.
#[track_caller]
fn assert_whole_files(source: &Snapshot, before: &Snapshot, after: &Snapshot) {
    for (name, node) in after.iter().filter(|(_, node)| matches!(node.kind, Kind::File(..))) {
        let is_one_of = |tree: &Snapshot| tree.get(name).is_some_and(|known| known.kind == node.kind);
        assert!(is_one_of(source) || is_one_of(before), "{} is a part", name.escape_ascii());
    }
}

/// A tree of which some is there.
fn half_there(direction: Direction) -> Bench {
    let bench = Bench::new(direction);
    base(bench.source().0);
    bench.target().file("random", Dice::new(48).bytes(100_000));
    bench.target().file("repetitive", "not this");
    bench
}

#[tokio::test]
async fn case_48_a_server_that_is_killed_and_a_connection_that_is_lost() {
    let cuts = [
        Cut::Killed(0),
        Cut::Lost(3),
        Cut::Killed(4),
        Cut::Killed(20),
        Cut::Lost(300),
        Cut::Killed(3_000),
        Cut::Lost(7_000),
        Cut::Killed(50_000),
    ];
    for (server, direction) in runs(Server::recent()) {
        for cut in cuts {
            let bench = half_there(direction);
            let (source, before) = (snapshot(bench.source().0), snapshot(bench.target().0));
            let mut run = bench.run(&server, "rlt");
            run.setup.cut = Some(cut);
            let outcome = run.go().await;
            let there = snapshot(bench.target().0);
            // In an upload there is less to read than the last of them allow.
            if outcome.result.is_err() || direction == Direction::Download {
                let broken = outcome.broken().await;
                assert!(matches!(cut, Cut::Killed(_)) || broken.kind == BrokenKind::Lost, "{broken:?}");
            }
            let again = bench.run(&server, "rlt").go().await;
            again.assert_clean().await;
            // What a server that is killed leaves behind is not ours to remove.
            if direction == Direction::Download {
                assert_whole_files(&source, &before, &there);
                bench.assert_mirrored("rlt");
            }
        }
    }
}

#[tokio::test]
async fn case_48_a_run_that_is_stopped() {
    for (server, direction) in runs(Server::recent()) {
        for moment in 0..4 {
            let bench = half_there(direction);
            let (source, before) = (snapshot(bench.source().0), snapshot(bench.target().0));
            let (stop, stopped) = oneshot::channel::<()>();
            let stop = Mutex::new((0, Some(stop)));
            // So slow that it is under way for long.
            let mut run = bench.run(&server, "rlt").with_job(|job| job.bwlimit = Some(500));
            run.stop = Box::pin(async { stopped.await.unwrap_or(()) });
            run.on_news = Box::new(move |news| {
                let mut stop = stop.lock().unwrap();
                let is_counted = match news {
                    News::Planned { .. } | News::Started { .. } => true,
                    News::Moving { .. }
                    | News::Completed { .. }
                    | News::Skipped { .. }
                    | News::Failed { .. }
                    | News::Deleted { .. } => false,
                };
                stop.0 += u32::from(is_counted);
                if stop.0 > moment * 10
                    && let Some(stop) = stop.1.take()
                {
                    // It may have ended.
                    stop.send(()).ok();
                }
            });
            let outcome = run.go().await;
            assert_eq!(outcome.broken().await.kind, BrokenKind::Stopped);
            assert_whole_files(&source, &before, &snapshot(bench.target().0));
        }
    }
}

#[tokio::test]
async fn case_49_a_tree_onto_a_file() {
    for (server, direction) in runs(Server::all()) {
        let bench = Bench::new(direction);
        bench.source().file("one", "one");
        bench.source().file("two", "two");
        let file = bench.target().file("a file", "content");
        let run = bench.run(&server, "r").with_job(|job| match direction {
            Direction::Upload => job.remote = crate::bench::remote(&file),
            Direction::Download => job.local = file.clone(),
        });
        let outcome = run.go().await;
        let broken = outcome.broken().await;
        assert!(!broken.touched, "{broken:?}");
        assert_eq!(fs::read(&file).unwrap(), b"content");
    }
}

/// A small file system of its own, for as long as it lives.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount_or_skip(path: &Path) -> Option<Self> {
        let mut mount = std::process::Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=1m", "small"]).arg(path).output().unwrap();
        if mounted.status.success() {
            return Some(Self(path.to_owned()));
        }
        skip_aloud(&format!("nothing can be mounted: {}", String::from_utf8_lossy(&mounted.stderr).trim()));
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[tokio::test]
async fn case_50_a_disk_that_is_full() {
    for (server, direction) in runs(Server::newest_or_skip().into_iter().collect()) {
        let bench = Bench::within(Scratch::new(), direction);
        let Some(_disk) = SmallDisk::mount_or_skip(bench.target().0) else { return };
        bench.source().file("small", Dice::new(1).bytes(10_000));
        bench.source().file("large", Dice::new(2).bytes(4_000_000));
        bench.target().file("large", "what was there");
        set_time(&bench.target().at("large"), 1_000_000_000, 0);
        let (source, before) = (snapshot(bench.source().0), snapshot(bench.target().0));
        let outcome = bench.run(&server, "rt").go().await;
        let is_told = match &outcome.result {
            Ok(_) => outcome.told.failed[&b"large"[..]].fault == FileFault::IoError,
            Err(broken) => broken.kind == BrokenKind::Partial,
        };
        assert!(is_told, "{:?} {:?}", outcome.result, outcome.told.failed);
        outcome.process.ended().await;
        assert_whole_files(&source, &before, &snapshot(bench.target().0));
        assert_eq!(fs::read(bench.target().at("large")).unwrap(), b"what was there");
    }
}

#[tokio::test]
async fn case_52_a_server_that_stops_talking_can_be_left() {
    let Some(server) = Server::newest_or_skip() else { return };
    let bench = Bench::new(Direction::Download);
    bench.source().file("a file", Dice::new(52).bytes(1_000_000));
    let before = snapshot(bench.target().0);
    let mut run = bench.run(&server, "rt");
    // The server freezes itself instead of ending, and says who it is.
    let told = bench.scratch.path().join("frozen");
    let who = told.display().to_string();
    run.setup.command = Arc::new(move |line| format!("echo $$ >'{who}'; kill -STOP $$; {line}"));
    run.stop = Box::pin(async move {
        let is_frozen = || {
            let pid = fs::read_to_string(&told).unwrap_or_default();
            let facts = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            facts.rsplit(") ").next().is_some_and(|facts| facts.starts_with('T'))
        };
        while !is_frozen() {
            tokio::task::yield_now().await;
        }
    });
    let outcome = run.go().await;
    assert_eq!(outcome.broken().await.kind, BrokenKind::Stopped);
    assert_same(&before, &snapshot(bench.target().0), crate::snapshot::What::ALL);
}
