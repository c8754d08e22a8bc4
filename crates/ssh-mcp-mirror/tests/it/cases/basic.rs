//! Cases 1 to 20: trees as they are.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;

use ssh_mcp_core::port::mirror::{BrokenKind, News, Skip};
use ssh_mcp_core::registry::Direction;

use rsync_wire::command::Direction as Way;

use crate::again::{behind, told};
use crate::bench::{Bench, again_on, download_as_told, files, runs, runs_of_all_ages, what};
use crate::servers::{Server, skip_aloud};
use crate::snapshot::{What, assert_same, snapshot};
use crate::tree::{Scratch, base, is_root, many, odd_names, set_time, settle};

#[tokio::test]
async fn case_01_a_few_files() {
    for (server, direction, age) in runs_of_all_ages(Server::all()) {
        let bench = Bench::new(direction);
        let source = bench.source();
        for name in ["one", "two", "below/three"] {
            source.file(name, name);
        }
        source.link("link", "below");
        settle(source.0);
        let outcome = bench.run(&server, "rlt").of_age(age).go().await;
        outcome.assert_clean().await;
        assert_eq!(outcome.told.planned, Some((3, 17)));
        assert_eq!(outcome.told.completed[&b"below/three"[..]], (11, 0));
        bench.assert_mirrored_at("rlt", age);
    }
}

#[tokio::test]
async fn case_02_all_names_and_contents() {
    let Some(client) = Server::newest_or_skip() else { return };
    for (server, direction, age) in runs_of_all_ages(Server::all()) {
        let bench = Bench::new(direction);
        base(bench.source().0);
        let reference = bench.reference(&client, "rlt", &[]);
        let outcome = bench.run(&server, "rlt").of_age(age).go().await;
        outcome.assert_clean().await;
        bench.assert_mirrored_at("rlt", age);
        assert_eq!(outcome.transferred(), reference.transferred);
        let modes = What { times: age.times(), modes: true, ..what("rlt") };
        assert_same(&reference.target, &snapshot(bench.target().0), modes);
    }
}

#[tokio::test]
async fn case_03_owners_and_devices() {
    mirrors_base_as_root("a").await;
}

#[tokio::test]
async fn case_04_hard_links() {
    mirrors_base_as_root("aH").await;
}

async fn mirrors_base_as_root(letters: &str) {
    if !is_root() {
        return skip_aloud("only root may give files away and make devices");
    }
    let Some(client) = Server::newest_or_skip() else { return };
    for (server, direction, age) in runs_of_all_ages(Server::all()) {
        let bench = Bench::new(direction);
        base(bench.source().0);
        let reference = bench.reference(&client, letters, &[]);
        let outcome = bench.run(&server, letters).of_age(age).go().await;
        outcome.assert_clean().await;
        bench.assert_mirrored_at(letters, age);
        assert_same(
            &reference.target,
            &snapshot(bench.target().0),
            What { times: age.times(), ..what(letters) },
        );
        // Of names that are one file each side may have its own in mind.
        if !letters.contains('H') {
            assert_eq!(outcome.transferred(), reference.transferred);
        }
    }
}

#[tokio::test]
async fn case_05_a_receiver_without_rights() {
    if let Some(told) = told() {
        return download_as_told(&told).await;
    }
    if !is_root() {
        return skip_aloud("only root may start a server, or a client, as somebody else");
    }
    for (server, direction) in runs(Server::recent()) {
        let bench = Bench::new(direction);
        let source = bench.source();
        base(source.0);
        fs::remove_dir_all(source.at("nodes")).unwrap();
        // Nobody but their owner reads these. The bits of this one stay where its owner does.
        for name in ["no permissions", "set-id"] {
            fs::remove_file(source.at(name)).unwrap();
        }
        source.mode("private", 0o755);
        settle(source.0);
        let reference = bench.scratch.folder("reference");
        let server = server.copied_to(bench.scratch.path());
        for folder in [bench.target().0, &reference] {
            std::os::unix::fs::chown(folder, Some(USER.0), Some(USER.1)).unwrap();
        }
        let mut client = server.rsync.client();
        client.arg("-rlptgo").args([source.0.join(""), reference.join("")]);
        let mut client = behind(&AS_USER, &client);
        let said = client.envs(server.rsync.environment()).output().unwrap();
        assert!(said.status.success(), "{said:?}");
        match direction {
            Direction::Upload => {
                let mut run = bench.run(&server, "rlptgo");
                run.setup.run_as = Some(USER);
                run.setup.group = Some(GROUP);
                run.setup.server = server;
                run.go().await.assert_clean().await;
            }
            Direction::Download => again_on(&bench, &server, "rlptgo", &AS_USER),
        }
        let found = snapshot(bench.target().0);
        assert_same(&snapshot(&reference), &found, what("rlptgo"));
        assert_same(&snapshot(source.0), &found, What { owners: false, ..what("rlptgo") });
        assert!(found.values().all(|node| node.owner.0 == USER.0));
        // A group is kept by whoever is in it.
        assert_eq!(found[&b"owners/33"[..]].owner.1, GROUP);
        assert_eq!(found[&b"owners/2"[..]].owner.1, USER.1);
    }
}

#[tokio::test]
async fn case_06_ids_without_names() {
    if !is_root() {
        return skip_aloud("only root may give files away and make devices");
    }
    for (server, direction, age) in runs_of_all_ages(Server::all()) {
        let bench = Bench::new(direction);
        base(bench.source().0);
        let mut run = bench.run(&server, "a").of_age(age);
        run.plan.options.numeric_ids = true;
        run.go().await.assert_clean().await;
        bench.assert_mirrored_at("a", age);
    }
}

#[tokio::test]
async fn case_07_digests_instead_of_times() {
    let letters = if is_root() { "aHc" } else { "rlptHc" };
    for (server, direction, age) in runs_of_all_ages(Server::all()) {
        let bench = Bench::new(direction);
        base(bench.source().0);
        bench.run(&server, letters).of_age(age).go().await.assert_clean().await;
        bench.assert_mirrored_at(letters, age);
        for name in files(&snapshot(bench.source().0)) {
            set_time(&bench.source().at(name), 1_234_567_890, 5);
        }
        let outcome = bench.run(&server, letters).of_age(age).go().await;
        outcome.assert_clean().await;
        assert_eq!(outcome.transferred(), BTreeSet::new());
        assert!(outcome.told.skipped.values().all(|(_, why)| *why == Skip::Size));
        bench.assert_mirrored_at(letters, age);
    }
}

#[tokio::test]
async fn case_08_an_empty_directory() {
    for (server, direction) in runs(Server::all()) {
        let bench = Bench::new(direction);
        settle(bench.source().0);
        let letters = if is_root() { "a" } else { "rlpt" };
        let outcome = bench.run(&server, letters).go().await;
        outcome.assert_clean().await;
        assert_eq!(outcome.told.planned, Some((0, 0)));
        bench.assert_mirrored(letters);
    }
}

#[tokio::test]
async fn case_09_a_file_into_a_directory() {
    for (server, direction) in runs(Server::all()) {
        let bench = Bench::new(direction);
        let file = bench.source().file("a file", "content");
        set_time(&file, 1_400_000_000, 5);
        let run = bench.run(&server, "t").between(&file, bench.target().0);
        run.go().await.assert_clean().await;
        set_time(bench.source().0, 0, 0);
        set_time(bench.target().0, 0, 0);
        bench.assert_mirrored("rt");
    }
}

#[tokio::test]
async fn case_10_a_file_to_a_new_name() {
    for (server, direction) in runs(Server::all()) {
        let bench = Bench::new(direction);
        let file = bench.source().file("a file", "content");
        let run = bench.run(&server, "t").between(&file, &bench.target().at("new name"));
        run.go().await.assert_clean().await;
        assert_eq!(fs::read(bench.target().at("new name")).unwrap(), b"content");
        assert_eq!(snapshot(bench.target().0).len(), 2);
    }
}

#[tokio::test]
async fn case_11_a_directory_by_its_name() {
    for (server, direction) in runs(Server::all()) {
        let bench = Bench::new(direction);
        bench.source().file("top/below/a file", "content");
        let run = bench.run(&server, "r").between(&bench.source().at("top"), bench.target().0);
        run.go().await.assert_clean().await;
        bench.assert_mirrored("r");
    }
}

#[tokio::test]
async fn case_13_twelve_of_forty_thousand() {
    const CHANGED: [usize; 12] = [0, 3, 250, 251, 252, 253, 254, 255, 600, 33_500, 33_501, 39_999];
    let mut bench = Bench::new(Direction::Upload);
    many(bench.source().0, 40_000);
    many(bench.target().0, 40_000);
    let changed = CHANGED.map(|place| format!("{place:05}"));
    for name in &changed {
        bench.source().file(name, name);
    }
    settle(bench.source().0);
    for (server, direction) in runs(Server::all()) {
        bench.direction = direction;
        let outcome = bench.run(&server, "rt").go().await;
        outcome.assert_clean().await;
        assert_eq!(outcome.told.planned, Some((40_000, 60)));
        assert_eq!(outcome.transferred(), changed.iter().map(|name| name.clone().into_bytes()).collect());
        bench.assert_mirrored("rt");
        for name in &changed {
            bench.target().file(name, "");
        }
    }
}

#[tokio::test]
async fn case_14_names_of_all_bytes_in_their_order() {
    for (server, direction) in runs(Server::recent()) {
        for seed in 0..4 {
            let bench = Bench::new(direction);
            odd_names(bench.source().0, 2_500, seed);
            settle(bench.source().0);
            bench.run(&server, "rt").go().await.assert_clean().await;
            bench.assert_mirrored("rt");
            for name in files(&snapshot(bench.target().0)) {
                assert_eq!(fs::read(bench.target().at(&name)).unwrap(), name);
            }
        }
    }
}

#[tokio::test]
async fn case_15_names_that_are_nearly_the_same() {
    for (server, direction, age) in runs_of_all_ages(Server::recent()) {
        let bench = Bench::new(direction);
        let source = bench.source();
        for length in 1..20 {
            source.file(&b"aaaaaaaaaaaaaaaaaaaa"[..length], length.to_string());
            source.file(&b"AAAAAAAAAAAAAAAAAAAA"[..length], length.to_string());
            source.file(&b"aAaAaAaAaAaAaAaAaAaA"[..length * 2 % 20 + 1], length.to_string());
        }
        let long = [[b'x'; 200], [b'y'; 200]].join(&b'/');
        for end in ["", "a", "b", "aa", "ab"] {
            source.file([&long[..], b"/z", end.as_bytes()].concat(), end);
        }
        // One byte less, as many, and one more than a shared beginning can be long.
        for length in [254, 255, 256, 257] {
            let path = [&long[..], b"/"].concat();
            let path = [&path[..length.min(path.len()) - 2], b"-"].concat();
            source.file([&path[..], b"1"].concat(), "1");
            source.file([&path[..], b"2"].concat(), "2");
        }
        settle(source.0);
        bench.run(&server, "rt").of_age(age).go().await.assert_clean().await;
        bench.assert_mirrored_at("rt", age);
    }
}

/// Longer than any number of 32 bits.
const FIVE_GIBIBYTES: u64 = (5 << 30) + 7;

#[tokio::test]
async fn case_16_a_file_of_five_gibibytes() {
    for (server, direction) in runs(Server::recent()) {
        let bench = Bench::within(Scratch::on_disk(), direction);
        bench.source().sparse("long", FIVE_GIBIBYTES, b"the end");
        let outcome = bench.run(&server, "rtn").go().await;
        outcome.assert_clean().await;
        assert_eq!(outcome.told.planned, Some((1, FIVE_GIBIBYTES)));
        assert_eq!(outcome.told.skipped[&b"long"[..]], (FIVE_GIBIBYTES, Skip::DryRun));
    }
}

#[tokio::test]
#[ignore = "moves 20 GiB, which takes five minutes without optimisation"]
async fn case_16_a_file_of_five_gibibytes_that_is_moved() {
    for (server, direction) in runs(Server::recent()) {
        let bench = Bench::within(Scratch::on_disk(), direction);
        let source = bench.source().sparse("long", FIVE_GIBIBYTES, b"the end");
        let outcome = bench.run(&server, "rtS").go().await;
        outcome.assert_clean().await;
        assert_eq!(outcome.told.completed[&b"long"[..]], (FIVE_GIBIBYTES, 0));
        let same =
            std::process::Command::new("cmp").args([source, bench.target().at("long")]).status().unwrap();
        assert!(same.success());
    }
}

#[tokio::test]
async fn case_17_files_that_change_on_their_way() {
    for server in Server::recent() {
        let bench = Bench::new(Direction::Upload);
        for name in ["grows", "shrinks", "is replaced"] {
            bench.source().file(name, name.repeat(100_000));
        }
        let root = bench.source().0.to_owned();
        let mut run = bench.run(&server, "rt");
        run.on_news = Box::new(move |news| {
            let News::Started { path, .. } = *news else { return };
            let path = root.join(std::str::from_utf8(path).unwrap());
            let mut file = fs::File::options().append(true).open(&path).unwrap();
            if path.ends_with("grows") {
                file.write_all(b"more").unwrap();
            } else if path.ends_with("shrinks") {
                file.set_len(5).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
                fs::write(&path, "another").unwrap();
            }
        });
        run.go().await.assert_done().await;
        settle(bench.source().0);
        bench.run(&server, "rt").go().await.assert_clean().await;
        bench.assert_mirrored("rt");
    }
}

#[tokio::test]
async fn case_18_a_source_that_is_not_there() {
    for server in Server::all() {
        let bench = Bench::new(Direction::Download);
        let run = bench.run(&server, "r").between(&bench.source().at("missing"), &bench.target().at("new"));
        let outcome = run.go().await;
        let broken = outcome.broken().await;
        assert_eq!((broken.kind, broken.touched), (BrokenKind::Refused, false), "{broken}");
        assert!(broken.detail.contains("No such file or directory"), "{broken}");
        assert_eq!(snapshot(bench.target().0).len(), 1);
    }
}

#[tokio::test]
async fn case_19_a_destination_without_a_parent() {
    for server in Server::all() {
        let bench = Bench::new(Direction::Upload);
        bench.source().file("a file", "content");
        let deep = bench.target().at("missing/below");
        let run = || bench.run(&server, "r").with_job(|job| job.remote = crate::bench::remote(&deep));
        let outcome = run().go().await;
        let broken = outcome.broken().await;
        assert!(!broken.touched && broken.detail.contains("code 11"), "{broken:?}");
        assert_eq!(snapshot(bench.target().0).len(), 1);
        let mut run = run();
        let Way::Upload(upload) = &mut run.plan.options.direction else { unreachable!() };
        upload.mkpath = true;
        run.go().await.assert_clean().await;
        assert_same(&snapshot(bench.source().0), &snapshot(&deep), what("r"));
    }
}

/// Nobody in particular.
const USER: (u32, u32) = (12_345, 54_321);
/// Another group that it is in.
const GROUP: u32 = 33;
const AS_USER: [&str; 7] = ["setpriv", "--reuid", "12345", "--regid", "54321", "--groups", "33"];
