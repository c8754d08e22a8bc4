//! Cases 53 to 74: deleting, patterns, and options out of the common.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use ssh_mcp_core::port::mirror::Skip;
use ssh_mcp_core::registry::Direction;

use rsync_wire::command::{
    BasisDir, BasisKind, DeleteWhen, Direction as Way, Options, Partial, UploadOptions,
};

use crate::again::told;
use crate::bench::{Bench, again_on, download_as_told, files, runs, runs_of_all_ages, what};
use crate::child::Cut;
use crate::servers::Server;
use crate::snapshot::{What, assert_same, snapshot};
use crate::tree::{Dice, Scratch, base, is_root, make_pairs, pairs, set_time, settle};

fn upload(options: &mut Options) -> &mut UploadOptions {
    match &mut options.direction {
        Way::Upload(upload) => upload,
        Way::Download => unreachable!("this is no upload"),
    }
}

/// A tree and another that has more: files, links, and directories with something in them.
fn with_extras(direction: Direction) -> Bench {
    let bench = Bench::new(direction);
    for name in ["kept", "below/kept", "below/deeper/kept"] {
        bench.source().file(name, name);
        bench.target().file(name, name);
    }
    settle(bench.source().0);
    for name in
        ["extra", "below/extra", "below/deeper/extra", "gone/below/extra", "gone/extra", "foo-bar/x", "foo"]
    {
        bench.target().file(name, "");
    }
    bench.target().link("link", "kept");
    bench.target().link("gone/link to directory", "../below");
    bench.target().directory("empty");
    bench
}

#[tokio::test]
async fn case_53_and_54_what_the_source_has_not_goes() {
    let Some(client) = Server::newest_or_skip() else { return };
    for (server, direction) in runs(Server::all()) {
        let moments =
            [DeleteWhen::After, DeleteWhen::Any, DeleteWhen::Before, DeleteWhen::During, DeleteWhen::Delay];
        for moment in moments {
            let bench = with_extras(direction);
            let reference = bench.reference(&client, "rlt", &["--delete"]);
            let mut run = bench.run(&server, "rlt").with_job(|job| job.options.delete = true);
            if direction == Direction::Upload {
                upload(&mut run.plan.options).delete.as_mut().unwrap().when = moment;
            } else if moment != DeleteWhen::After {
                continue;
            }
            let outcome = run.go().await;
            outcome.assert_clean().await;
            bench.assert_mirrored("rlt");
            let deleted: BTreeSet<_> = outcome.told.deleted.keys().cloned().collect();
            assert_eq!(deleted, reference.deleted);
            assert!(outcome.told.deleted.values().all(|is_dry| !is_dry));
        }
    }
}

#[tokio::test]
async fn case_55_what_a_pattern_leaves_out_stays() {
    let Some(client) = Server::newest_or_skip() else { return };
    for (server, direction) in runs(Server::all()) {
        let bench = with_extras(direction);
        for name in ["a.keep", "gone/a.keep", "below/a.keep"] {
            bench.target().file(name, "kept");
        }
        bench.source().file("b.keep", "left out");
        settle(bench.source().0);
        let reference = bench.reference(&client, "rlt", &["--delete", "--exclude=*.keep"]);
        let run = bench.run(&server, "rlt").with_job(|job| {
            job.options.delete = true;
            job.exclude.push("*.keep".to_owned());
        });
        let outcome = run.go().await;
        outcome.assert_done().await;
        assert!(outcome.told.failed.is_empty(), "{:?}", outcome.told.failed);
        // What is left in a directory keeps it, and that changes its time.
        let what = What { times: crate::snapshot::Times::Ignored, ..what("rlt") };
        assert_same(&reference.target, &snapshot(bench.target().0), what);
        assert!(files(&snapshot(bench.target().0)).contains(&b"gone/a.keep"[..]));
        let deleted: BTreeSet<_> = outcome.told.deleted.keys().cloned().collect();
        assert_eq!(deleted, reference.deleted);
    }
}

#[tokio::test]
async fn case_57_nothing_goes_if_the_source_was_not_read_whole() {
    for server in Server::all() {
        let bench = with_extras(Direction::Upload);
        make_too_deep(bench.source().0);
        let outcome = bench.run(&server, "rlt").with_job(|job| job.options.delete = true).go().await;
        let done = outcome.assert_done().await;
        assert!(done.delete_skipped.is_some());
        assert_eq!(outcome.told.deleted.len(), 0);
        assert!(bench.target().at("gone/below/extra").exists());
    }
}

/// Directories in each other until a path is longer than any list can have it.
fn make_too_deep(root: &Path) {
    let mut folder = fs::File::open(root).unwrap();
    let name = "deep".repeat(60);
    for _ in 0..18 {
        rustix::fs::mkdirat(&folder, &name, rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY;
        folder = rustix::fs::openat(&folder, &name, flags, rustix::fs::Mode::empty()).unwrap().into();
    }
}

/// What is taken of a tree, with patterns of what is taken in spite of others and of what is left out.
const PATTERNS: [(&[&str], &[&str], &[&str]); 10] = [
    (&[], &["*.o"], &["Makefile", "a.c", "sub/b.c", "sub/deep/c.c", "sub/deep/build/log", "build/x"]),
    (
        &[],
        &["/a.c"],
        &["Makefile", "a.o", "sub/b.c", "sub/b.o", "sub/deep/c.c", "sub/deep/build/log", "build/x"],
    ),
    (&[], &["build/"], &["Makefile", "a.c", "a.o", "sub/b.c", "sub/b.o", "sub/deep/c.c"]),
    (
        &[],
        &["/build/"],
        &["Makefile", "a.c", "a.o", "sub/b.c", "sub/b.o", "sub/deep/c.c", "sub/deep/build/log"],
    ),
    (&[], &["sub/**/log"], &["Makefile", "a.c", "a.o", "sub/b.c", "sub/b.o", "sub/deep/c.c", "build/x"]),
    (
        &["a.o"],
        &["*.o"],
        &["Makefile", "a.c", "a.o", "sub/b.c", "sub/deep/c.c", "sub/deep/build/log", "build/x"],
    ),
    (&["sub/deep/c.c"], &["sub/"], &["Makefile", "a.c", "a.o", "sub/deep/c.c", "build/x"]),
    (&["*.c"], &["*"], &["a.c"]),
    (&[], &["[ab].?"], &["Makefile", "sub/deep/c.c", "sub/deep/build/log", "build/x"]),
    (&[], &["*/*"], &["Makefile", "a.c", "a.o"]),
];

#[tokio::test]
async fn case_61_patterns() {
    for (server, direction) in runs(Server::recent()) {
        for (include, exclude, expected) in PATTERNS {
            let bench = Bench::new(direction);
            for name in [
                "Makefile",
                "a.c",
                "a.o",
                "sub/b.c",
                "sub/b.o",
                "sub/deep/c.c",
                "sub/deep/build/log",
                "build/x",
            ] {
                bench.source().file(name, name);
            }
            let run = bench.run(&server, "r").with_job(|job| {
                job.include = include.iter().map(ToString::to_string).collect();
                job.exclude = exclude.iter().map(ToString::to_string).collect();
            });
            run.go().await.assert_clean().await;
            let expected = expected.iter().map(|name| name.as_bytes().to_vec()).collect();
            assert_eq!(files(&snapshot(bench.target().0)), expected, "{include:?} {exclude:?}");
        }
    }
}

#[tokio::test]
async fn case_62_nothing_is_changed() {
    let Some(client) = Server::newest_or_skip() else { return };
    let letters = if is_root() { "aHn" } else { "rlptHn" };
    for (server, direction) in runs(Server::all()) {
        for delete in [false, true] {
            let bench = with_extras(direction);
            base(bench.source().0);
            let before = snapshot(bench.target().0);
            let options: &[&str] = if delete { &["--delete"] } else { &[] };
            let reference = bench.reference(&client, letters, options);
            let run = bench.run(&server, letters).with_job(|job| job.options.delete = delete);
            let outcome = run.go().await;
            outcome.assert_clean().await;
            assert_same(&before, &snapshot(bench.target().0), What::ALL);
            assert_eq!(outcome.transferred(), BTreeSet::new());
            let skipped = outcome.told.skipped.iter();
            let would: BTreeSet<_> =
                skipped.filter(|(_, (_, why))| *why == Skip::DryRun).map(|(name, _)| name.clone()).collect();
            // Of names that are one file each side may have its own in mind.
            let source = snapshot(bench.source().0);
            let one_file = |name: &Vec<u8>| source[name].group.is_none();
            let single = |names: &BTreeSet<Vec<u8>>| -> BTreeSet<_> {
                names.iter().filter(|name| one_file(name)).cloned().collect()
            };
            assert_eq!(single(&would), single(&reference.transferred));
            let deleted: BTreeSet<_> = outcome.told.deleted.keys().cloned().collect();
            assert_eq!(deleted, reference.deleted);
            assert!(outcome.told.deleted.values().all(|is_dry| *is_dry));
        }
    }
}

#[tokio::test]
async fn case_63_a_second_run_has_nothing_to_do() {
    let letters = if is_root() { "aH" } else { "rlptH" };
    for (server, direction, age) in runs_of_all_ages(Server::all()) {
        let bench = Bench::new(direction);
        base(bench.source().0);
        bench.run(&server, letters).of_age(age).go().await.assert_clean().await;
        let before = snapshot(bench.target().0);
        let outcome = bench.run(&server, letters).of_age(age).go().await;
        outcome.assert_clean().await;
        assert_eq!(outcome.transferred(), BTreeSet::new());
        assert!(outcome.told.skipped.values().all(|(_, why)| *why == Skip::Mtime));
        assert_same(&before, &snapshot(bench.target().0), What::ALL);
    }
}

#[tokio::test]
async fn case_64_attributes_that_changed() {
    let Some(client) = Server::newest_or_skip() else { return };
    let letters = if is_root() { "a" } else { "rlpt" };
    for (server, direction) in runs(Server::all()) {
        let bench = Bench::new(direction);
        base(bench.source().0);
        bench.run(&server, letters).go().await.assert_clean().await;
        let source = bench.source();
        source.time("foo", 1_300_000_000, 0);
        source.mode("random", 0o600);
        source.mode("foo.d", 0o711);
        source.time("nothing in it", 1_300_000_001, 5);
        source.time("links to file", 1_300_000_002, 0);
        source.file("one byte", "y");
        source.time("one byte", 1_300_000_003, 0);
        if is_root() {
            source.own("zeros", 2, 33);
            source.own("links to nothing", 2, 33);
            source.own("names", 33, 2);
        }
        settle(source.0);
        let reference = bench.reference(&client, letters, &[]);
        let outcome = bench.run(&server, letters).go().await;
        outcome.assert_clean().await;
        bench.assert_mirrored(letters);
        assert_eq!(outcome.transferred(), reference.transferred);
        assert_same(&reference.target, &snapshot(bench.target().0), what(letters));
    }
}

#[tokio::test]
async fn case_65_a_server_that_reports_each_change() {
    for server in Server::all() {
        for format in ["%i", "%i%I"] {
            let bench = Bench::new(Direction::Upload);
            base(bench.source().0);
            for _ in 0..2 {
                let mut run = bench.run(&server, "rlt");
                upload(&mut run.plan.options).log_format = Some(format.into());
                run.go().await.assert_clean().await;
                bench.assert_mirrored("rlt");
            }
        }
    }
}

#[tokio::test]
async fn case_66_parts_of_files_are_gone_on_with() {
    for (server, direction) in runs(Server::all()) {
        let bench = Bench::new(direction);
        let content = Dice::new(66).bytes(1_000_000);
        bench.source().file("below/file", &content);
        bench.source().file("stale", "content");
        settle(bench.source().0);
        bench.target().file("below/.rsync-partial/file", &content[..700_000]);
        bench.target().file(".rsync-partial/stale", "what is of no use");
        let outcome = bench.run(&server, "rt").with_job(|job| job.options.partial = true).go().await;
        outcome.assert_clean().await;
        bench.assert_mirrored("rt");
        let (moved, kept) = outcome.told.completed[&b"below/file"[..]];
        assert!(moved < 310_000 && kept > 690_000, "{moved} moved, {kept} kept");
    }
}

#[tokio::test]
async fn case_66_parts_of_files_are_kept() {
    for server in Server::all() {
        let bench = Bench::new(Direction::Download);
        bench.source().file("file", Dice::new(66).bytes(1_000_000));
        settle(bench.source().0);
        let partial = || bench.run(&server, "rt").with_job(|job| job.options.partial = true);
        let mut run = partial();
        run.setup.cut = Some(Cut::Killed(500_000));
        let outcome = run.go().await;
        assert!(outcome.broken().await.touched);
        assert!(!bench.target().at("file").exists());
        let outcome = partial().go().await;
        outcome.assert_clean().await;
        bench.assert_mirrored("rt");
        let (moved, kept) = outcome.told.completed[&b"file"[..]];
        assert!(moved < 700_000 && kept > 300_000, "{moved} moved, {kept} kept");
    }
}

#[tokio::test]
async fn case_67_other_places_to_look_in_and_to_put_things() {
    for server in Server::all() {
        let pairs_with = |change: &dyn Fn(&Bench, &mut UploadOptions)| {
            let bench = Bench::new(Direction::Upload);
            make_pairs(bench.source().0, bench.target().0);
            settle(bench.source().0);
            let mut run = bench.run(&server, "rt");
            change(&bench, upload(&mut run.plan.options));
            (bench, run)
        };
        let (bench, run) = pairs_with(&|_, options| options.delay_updates = true);
        run.go().await.assert_clean().await;
        bench.assert_mirrored("rt");

        let (bench, run) = pairs_with(&|_, options| options.partial = Some(Partial::Dir(b".pd".to_vec())));
        run.go().await.assert_clean().await;
        bench.assert_mirrored("rt");

        let (bench, run) = pairs_with(&|bench, options| {
            options.backup = true;
            options.backup_dir = Some(crate::bench::remote(&bench.scratch.path().join("backup")));
        });
        run.go().await.assert_clean().await;
        bench.assert_mirrored("rt");
        for (name, _, old, _) in pairs() {
            assert_eq!(fs::read(bench.scratch.path().join("backup").join(name)).unwrap(), old);
        }

        for kind in [BasisKind::Link, BasisKind::Copy, BasisKind::Compare] {
            let (bench, run) = pairs_with(&|bench, options| {
                let other = bench.scratch.path().join("other");
                fs::rename(bench.target().0, &other).unwrap();
                // Some are there as they should be.
                for name in ["moved", "short"] {
                    fs::copy(bench.source().at(name), other.join(name)).unwrap();
                    let facts = fs::metadata(bench.source().at(name)).unwrap();
                    set_time(&other.join(name), facts.mtime(), facts.mtime_nsec());
                }
                options.basis_dirs.push(BasisDir { kind, path: crate::bench::remote(&other) });
            });
            let outcome = run.go().await;
            outcome.assert_done().await;
            let expected = files(&snapshot(bench.source().0)).len();
            let found = files(&snapshot(bench.target().0)).len();
            if kind == BasisKind::Compare {
                assert_eq!(found, expected - 2);
            } else {
                bench.assert_mirrored("rt");
            }
            let (_, kept) = outcome.told.completed[&b"longer by a byte"[..]];
            assert!(kept > 490_000, "{kind:?}: {kept} kept");
        }

        let bench = Bench::new(Direction::Upload);
        let content = Dice::new(67).bytes(300_000);
        bench.source().file("file-2.tar", &content);
        set_time(&bench.target().file("file-1.tar", &content[..299_000]), 1_000_000_000, 0);
        settle(bench.source().0);
        let mut run = bench.run(&server, "rt");
        run.setup = run.setup.with_option("--fuzzy");
        let outcome = run.go().await;
        outcome.assert_clean().await;
        let (_, kept) = outcome.told.completed[&b"file-2.tar"[..]];
        assert!(kept > 290_000, "{kept} kept");
        assert_eq!(fs::read(bench.target().at("file-2.tar")).unwrap(), content);
    }
}

#[tokio::test]
async fn case_71_a_server_that_is_restricted_to_a_folder() {
    for (server, direction) in runs(Server::recent()) {
        let bench = Bench::new(direction);
        let Some(restriction) = server.restriction_in(bench.scratch.path()) else { continue };
        let there = bench.scratch.folder("there");
        base(bench.source().0);
        let (own, remote) = match direction {
            Direction::Upload => (bench.target().0, b"my new dir".to_vec()),
            Direction::Download => (bench.source().0, b"my dir".to_vec()),
        };
        fs::rename(own, there.join(std::str::from_utf8(&remote).unwrap())).unwrap();
        std::os::unix::fs::symlink(there.join(std::str::from_utf8(&remote).unwrap()), own).unwrap();
        let mut run = bench.run(&server, "rlt").with_job(|job| job.remote = remote);
        run.setup.command = Arc::new(move |line| {
            let line = line.replace('\'', "'\\''");
            format!("SSH_ORIGINAL_COMMAND='{line}' {} '{}'", restriction.display(), there.display())
        });
        run.go().await.assert_clean().await;
        let seen = |path: &Path| snapshot(&fs::canonicalize(path).unwrap());
        assert_same(&seen(bench.source().0), &seen(bench.target().0), what("rlt"));
    }
}

#[tokio::test]
async fn case_72_every_byte_in_a_path() {
    for (server, direction) in runs(Server::all()) {
        let bench = Bench::new(direction);
        let bytes: Vec<u8> = (1..=127).filter(|byte| *byte != b'/').collect();
        let odd = [&bytes[..], "\u{e4}\u{20ac}\u{1f600}".as_bytes()].concat();
        let (near, far) = match direction {
            Direction::Upload => (bench.source().at("top"), bench.target().at(&odd)),
            Direction::Download => (bench.target().at("top"), bench.source().at(&odd)),
        };
        let (from, to) = if direction == Direction::Upload { (&near, &far) } else { (&far, &near) };
        fs::create_dir(from).unwrap();
        fs::write(from.join("a file"), "content").unwrap();
        let run = bench.run(&server, "rt").with_job(|job| {
            (job.local, job.remote) = (near.clone(), crate::bench::remote(&far));
        });
        run.go().await.assert_clean().await;
        assert_eq!(fs::read(to.join("a file")).unwrap(), b"content");
    }
}

#[tokio::test]
async fn case_73_modes_that_are_not_kept() {
    if let Some(told) = told() {
        return download_as_told(&told).await;
    }
    for (server, direction) in runs(Server::recent()) {
        for (umask, expected) in [("022", 0o744), ("077", 0o700)] {
            let bench = Bench::new(direction);
            bench.source().file("new", "new");
            bench.source().file("there", "there");
            bench.source().mode("new", 0o4766);
            bench.source().mode("there", 0o777);
            bench.target().file("there", "was there");
            bench.target().mode("there", 0o604);
            match direction {
                Direction::Upload => {
                    let mut run = bench.run(&server, "rlt");
                    run.setup.command = Arc::new(move |line| format!("umask {umask}; {line}"));
                    run.go().await.assert_clean().await;
                }
                Direction::Download => {
                    let line = format!("umask {umask}; exec \"$@\"");
                    again_on(&bench, &server, "rlt", &["sh", "-c", &line, "sh"]);
                }
            }
            let found = snapshot(bench.target().0);
            assert_eq!(found[&b"new"[..]].mode, expected);
            assert_eq!(found[&b"there"[..]].mode, 0o604);
        }
    }
}

#[tokio::test]
async fn case_74_holes() {
    for (server, direction) in runs(Server::recent()) {
        let bench = Bench::within(Scratch::new(), direction);
        let end = Dice::new(74).bytes(5_000);
        bench.source().sparse("sparse", 50_000_000, &end);
        bench.source().file("zeros", vec![0; 10_000_000]);
        settle(bench.source().0);
        bench.run(&server, "rtS").go().await.assert_clean().await;
        bench.assert_mirrored("rt");
        for name in ["sparse", "zeros"] {
            let blocks = fs::metadata(bench.target().at(name)).unwrap().blocks();
            assert!(blocks < 2_000, "{name}: {blocks} blocks");
        }
    }
}
