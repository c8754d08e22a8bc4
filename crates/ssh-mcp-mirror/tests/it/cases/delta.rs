//! Cases 21 to 37: files of which a part is there.

use std::fs;

use ssh_mcp_core::registry::Direction;

use rsync_wire::checksum::Algorithm;
use rsync_wire::command::InPlace;
use rsync_wire::negotiate::Compressor;

use crate::again::{again, peak, told};
use crate::bench::{Bench, Run, runs, runs_of_all_ages, with_rsync};
use crate::child::Delivery;
use crate::servers::{Age, Server};
use crate::tree::{Dice, Scratch, base, make_pairs, pairs, set_time, settle};

/// The files of which parts are there, with a run that is changed; all that can be found of them is found.
async fn mirrors_pairs(server: &Server, direction: Direction, age: Age, change: impl FnOnce(&mut Run)) {
    let bench = Bench::new(direction);
    make_pairs(bench.source().0, bench.target().0);
    settle(bench.source().0);
    let mut run = bench.run(server, "rt").of_age(age);
    change(&mut run);
    let outcome = run.go().await;
    outcome.assert_clean().await;
    bench.assert_mirrored_at("rt", age);
    for (name, new, _, percent) in pairs() {
        let (moved, kept) = outcome.told.completed[name.as_bytes()];
        assert_eq!(moved + kept, new.len() as u64, "{name}");
        assert!(kept * 100 >= percent * (moved + kept), "{name}: {moved} moved, {kept} kept");
        assert!(percent > 0 || kept == 0, "{name}: {kept} kept");
    }
}

#[tokio::test]
async fn case_21_what_is_there_is_not_sent_again() {
    for (server, direction, age) in runs_of_all_ages(Server::all()) {
        mirrors_pairs(&server, direction, age, |_| {}).await;
    }
}

#[tokio::test]
async fn case_22_each_checksum() {
    for (server, direction) in runs(Server::all()) {
        for (name, algorithm) in [("md5", Algorithm::Md5), ("xxh128", Algorithm::Xxh128)] {
            mirrors_pairs(&server, direction, Age::TODAY, |run| {
                run.setup.variables.push(("RSYNC_CHECKSUM_LIST", name.to_owned()));
            })
            .await;
            mirrors_pairs(&server, direction, Age::TODAY, |run| {
                run.plan.options.checksum_choice = Some(algorithm);
            })
            .await;
        }
    }
}

#[tokio::test]
async fn case_23_seeds() {
    for (server, direction, age) in runs_of_all_ages(Server::all()) {
        let seeds = if age == Age::TODAY { &[1, -5, -77_777, 123_456_789][..] } else { &[-77_777] };
        for seed in seeds {
            mirrors_pairs(&server, direction, age, |run| run.plan.options.checksum_seed = Some(*seed)).await;
        }
    }
}

#[tokio::test]
async fn case_24_the_old_place_of_the_seed() {
    // Without `v`, as every client that does not say `C`: so it is MD5.
    let age = Age { capabilities: Some("e.Lsfx"), ..Age::TODAY };
    for (server, direction) in runs(Server::all()) {
        mirrors_pairs(&server, direction, age, |_| {}).await;
    }
}

/// Those that are implemented.
const COMPRESSORS: [Compressor; 3] = [Compressor::Zstd, Compressor::Lz4, Compressor::Zlibx];

fn compress(run: &mut Run) {
    run.plan.options.compress = true;
    run.plan.compressors = COMPRESSORS.to_vec();
}

#[tokio::test]
async fn case_25_each_compressor() {
    for (server, direction) in runs(Server::all()) {
        for compressor in COMPRESSORS {
            mirrors_pairs(&server, direction, Age::TODAY, |run| {
                compress(run);
                run.setup.variables.push(("RSYNC_COMPRESS_LIST", compressor.name().to_owned()));
            })
            .await;
        }
    }
}

#[tokio::test]
async fn case_26_compressors_that_are_asked_for() {
    for (server, direction) in runs(Server::all()) {
        for compressor in COMPRESSORS {
            mirrors_pairs(&server, direction, Age::TODAY, |run| {
                compress(run);
                run.plan.options.compress_choice = Some(compressor);
            })
            .await;
        }
    }
}

#[tokio::test]
async fn case_27_much_that_compresses_badly_and_well() {
    if let Some(told) = told() {
        return compressed_as_told(&told).await;
    }
    let noise = Dice::new(27).bytes(50_000_000);
    for (server, direction) in runs(Server::recent()) {
        // The first of them is what a server and we agree on.
        for compressor in &COMPRESSORS[..if server.name == "N" { 3 } else { 1 }] {
            let bench = Bench::new(direction);
            bench.source().file("noise", &noise);
            bench.source().file("zeros", vec![0; 50_000_000]);
            settle(bench.source().0);
            let [source, target] = [bench.source().0, bench.target().0].map(|path| path.to_str().unwrap());
            let way = if direction == Direction::Upload { "up" } else { "down" };
            // What there is in memory here is none of the run's business.
            let program = std::env::current_exe().unwrap();
            let told = [way, compressor.name(), source, target];
            again(&program, &told, |command| with_rsync(&server, command));
            bench.assert_mirrored("rt");
        }
    }
}

/// The run of case 27, in a process that has nothing else in its memory.
async fn compressed_as_told(told: &[String]) {
    const PEAK: u64 = 40 << 20;
    let [way, compressor, source, target] = told else { panic!("told {told:?}") };
    let server = Server::newest_or_skip().expect("the test has it");
    let bench = Bench::new(if way == "up" { Direction::Upload } else { Direction::Download });
    let mut run = bench.run(&server, "rt").with_job(|job| {
        let (near, far) = if way == "up" { (source, target) } else { (target, source) };
        (job.local, job.remote) = (near.into(), far.clone().into_bytes());
    });
    compress(&mut run);
    run.plan.options.compress_choice = COMPRESSORS.into_iter().find(|one| one.name() == compressor);
    let outcome = run.go().await;
    outcome.assert_clean().await;
    let crossed = outcome.process.sent() + outcome.process.received();
    assert!(crossed < 51_500_000, "{compressor}: {crossed} bytes");
    println!("{way} {compressor}: {:?}", peak());
    assert!(peak().is_none_or(|peak| peak < PEAK), "{compressor}: {:?}", peak());
}

#[tokio::test]
async fn case_28_a_server_with_few_checksums() {
    for (server, direction) in runs(Server::recent()) {
        mirrors_pairs(&server, direction, Age::TODAY, |run| {
            run.setup.variables.push(("RSYNC_CHECKSUM_LIST", "md5 xxh64".to_owned()));
        })
        .await;
    }
}

#[tokio::test]
async fn case_29_the_other_order_of_checksums() {
    for (server, direction) in runs(Server::recent()) {
        mirrors_pairs(&server, direction, Age::TODAY, |run| run.plan.checksums.reverse()).await;
    }
}

#[tokio::test]
async fn case_30_block_lengths_of_all_sizes() {
    for (server, direction) in runs(Server::recent()) {
        let bench = Bench::new(direction);
        for length in [1, 699, 700, 701, 490_000, 490_001, 500_000, 1_000_000, 5_000_000, 30_000_000] {
            let mut content = Dice::new(length as u64).bytes(length);
            let file = bench.target().file(length.to_string(), &content);
            set_time(&file, 1_000_000_000, 0);
            content[length / 2] ^= 1;
            bench.source().file(length.to_string(), &content);
        }
        settle(bench.source().0);
        let outcome = bench.run(&server, "rt").go().await;
        outcome.assert_clean().await;
        bench.assert_mirrored("rt");
        // One block of each file differs.
        for (name, (moved, _)) in &outcome.told.completed {
            let length: u64 = std::str::from_utf8(name).unwrap().parse().unwrap();
            assert!(*moved <= length.isqrt().max(700) + 8, "{length}: {moved}");
        }
    }
}

#[tokio::test]
async fn case_31_long_files_that_are_there() {
    let Some(server) = Server::newest_or_skip() else { return };
    let bench = Bench::within(Scratch::on_disk(), Direction::Upload);
    for (name, length) in [("1 GiB", 1 << 30), ("20 GB", 20_000_000_000)] {
        bench.target().sparse(name, length, b"the end");
        set_time(&bench.target().at(name), 1_000_000_000, 0);
        let content = [&vec![0; 1_000_000][..], &Dice::new(31).bytes(1_000)].concat();
        bench.source().file(name, content);
    }
    settle(bench.source().0);
    let outcome = bench.run(&server, "rt").go().await;
    outcome.assert_clean().await;
    bench.assert_mirrored("rt");
    assert!(outcome.told.completed.values().all(|(moved, _)| *moved < 200_000), "{:?}", outcome.told);
}

#[tokio::test]
async fn case_32_a_hundred_megabytes_of_equal_blocks() {
    for server in Server::recent() {
        let bench = Bench::new(Direction::Upload);
        let blocks = b"0123456789".repeat(10_000_000);
        set_time(&bench.target().file("blocks", &blocks), 1_000_000_000, 0);
        bench.source().file("blocks", [b"shifted", &blocks[..]].concat());
        settle(bench.source().0);
        let outcome = bench.run(&server, "rt").go().await;
        outcome.assert_clean().await;
        bench.assert_mirrored("rt");
        assert!(outcome.told.completed[&b"blocks"[..]].0 < 100_000, "{:?}", outcome.told);
    }
}

#[tokio::test]
async fn case_33_ten_megabytes_that_are_new() {
    for (server, direction) in runs(Server::all()) {
        let bench = Bench::new(direction);
        bench.source().file("new", Dice::new(33).bytes(10_000_000));
        settle(bench.source().0);
        bench.run(&server, "rt").go().await.assert_clean().await;
        bench.assert_mirrored("rt");
    }
}

#[tokio::test]
async fn case_34_output_byte_by_byte() {
    for (server, direction) in runs(Server::all()) {
        let bench = Bench::new(direction);
        base(bench.source().0);
        for name in ["random", "repetitive", "zeros"] {
            fs::remove_file(bench.source().at(name)).unwrap();
        }
        settle(bench.source().0);
        let mut run = bench.run(&server, "rlt");
        run.setup.delivery = Delivery::ByteByByte;
        run.go().await.assert_clean().await;
        bench.assert_mirrored("rlt");
    }
}

#[tokio::test]
async fn case_35_whole_files_and_blocks_of_a_given_length() {
    for (server, direction) in runs(Server::recent()) {
        for block_len in [1024, 131_072] {
            let bench = Bench::new(direction);
            make_pairs(bench.source().0, bench.target().0);
            settle(bench.source().0);
            let run = bench.run(&server, "rt").with_job(|job| job.block_len = Some(block_len));
            run.go().await.assert_clean().await;
            bench.assert_mirrored("rt");

            // A byte that differs costs a block.
            let bench = Bench::new(direction);
            let mut content = Dice::new(35).bytes(1_000_000);
            bench.source().file("file", &content);
            content[500_000] ^= 1;
            set_time(&bench.target().file("file", &content), 1_000_000_000, 0);
            settle(bench.source().0);
            let run = bench.run(&server, "rt").with_job(|job| job.block_len = Some(block_len));
            let outcome = run.go().await;
            outcome.assert_clean().await;
            assert_eq!(outcome.told.completed[&b"file"[..]].0, u64::from(block_len), "{direction:?}");
        }
        // In a download that is ours to say, and we do not.
        if direction == Direction::Upload {
            let bench = Bench::new(direction);
            make_pairs(bench.source().0, bench.target().0);
            settle(bench.source().0);
            let mut run = bench.run(&server, "rt");
            run.plan.options.whole_file = true;
            let outcome = run.go().await;
            outcome.assert_clean().await;
            assert!(outcome.told.completed.values().all(|(_, kept)| *kept == 0));
            bench.assert_mirrored("rt");
        }
    }
}

#[tokio::test]
async fn case_36_files_that_are_written_in_their_place() {
    for server in Server::all() {
        let bench = Bench::new(Direction::Upload);
        let old = Dice::new(36).bytes(1_500_000);
        let new = [&old[1_000_000..], &old[..300_000], &old[300_000..1_000_000]].concat();
        set_time(&bench.target().file("moved", &old), 1_000_000_000, 0);
        bench.source().file("moved", &new);
        settle(bench.source().0);
        let mut run = bench.run(&server, "rt");
        run.plan.options.in_place = Some(InPlace::Update);
        let outcome = run.go().await;
        outcome.assert_clean().await;
        bench.assert_mirrored("rt");
        // What was moved back is overwritten before it is wanted.
        let (moved, kept) = outcome.told.completed[&b"moved"[..]];
        assert!(moved > 900_000 && kept > 450_000, "{moved} moved, {kept} kept");
    }
}

#[tokio::test]
async fn case_37_what_lies_behind_a_prefix() {
    for server in Server::all() {
        for in_place in [InPlace::Append, InPlace::AppendVerify] {
            for is_prefix in [true, false] {
                let bench = Bench::new(Direction::Upload);
                let content = Dice::new(37).bytes(500_000);
                bench.source().file("file", &content);
                let mut there = content[..123_457].to_vec();
                there[100] ^= u8::from(!is_prefix);
                bench.target().file("file", &there);
                settle(bench.source().0);
                let mut run = bench.run(&server, "rt");
                run.plan.options.in_place = Some(in_place);
                let outcome = run.go().await;
                outcome.assert_done().await;
                assert!(outcome.told.failed.is_empty(), "{:?}", outcome.told.failed);
                if is_prefix {
                    assert_eq!(outcome.told.completed[&b"file"[..]].0, 500_000 - 123_457);
                }
                if is_prefix || in_place == InPlace::AppendVerify {
                    bench.assert_mirrored("rt");
                } else {
                    let expected = [&there[..], &content[there.len()..]].concat();
                    assert_eq!(fs::read(bench.target().at("file")).unwrap(), expected);
                }
            }
        }
    }
}
