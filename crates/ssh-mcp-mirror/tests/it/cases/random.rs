//! Random trees, and files that one client leaves half and the other goes on with: our runs beside those of the real client.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use ssh_mcp_core::registry::Direction;

use crate::bench::{Bench, runs};
use crate::child::Cut;
use crate::servers::Server;
use crate::snapshot::{What, assert_same, real_client, snapshot};
use crate::sshd::processes::wait_until;
use crate::tree::{Dice, is_root, random, settle, walk};

/// Further names of some files, and other owners where that is possible.
fn link_and_own_some(root: &Path, seed: u64) {
    let mut dice = Dice::new(seed);
    let paths = walk(root);
    let folders: Vec<_> = paths.iter().filter(|path| path.is_dir() && !path.is_symlink()).collect();
    for (at, path) in paths.iter().enumerate().filter(|(_, path)| path.is_file() && !path.is_symlink()) {
        if dice.below(4) == 0 {
            fs::hard_link(path, folders[dice.below(folders.len())].join(format!("other name {at}"))).unwrap();
        }
        if dice.below(4) == 0 && is_root() {
            chown(path, Some([1, 33, 12_345][dice.below(3)]), Some([1, 54_321][dice.below(2)])).unwrap();
        }
    }
    settle(root);
}

#[tokio::test]
async fn random_trees_become_what_the_real_client_makes_of_them() {
    let Some(client) = Server::newest_or_skip() else { return };
    let letters = if is_root() { "aH" } else { "rlptH" };
    for (server, direction) in runs(Server::all()) {
        for seed in 0..6 {
            let bench = Bench::new(direction);
            random(bench.source().0, seed);
            link_and_own_some(bench.source().0, seed);
            if seed % 2 == 1 {
                // Something else is there before.
                random(bench.target().0, seed + 100);
                link_and_own_some(bench.target().0, seed + 100);
            }
            let reference = bench.reference(&client, letters, &["--delete"]);
            let run = || bench.run(&server, letters).with_job(|job| job.options.delete = true);
            let outcome = run().go().await;
            outcome.assert_clean().await;
            bench.assert_mirrored(letters);
            assert_same(&reference.target, &snapshot(bench.target().0), What::ALL);
            let again = run().go().await;
            again.assert_clean().await;
            assert!(again.told.completed.is_empty() && again.told.deleted.is_empty(), "seed {seed}");
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of files that the real client says it sent or received.
fn literal(said: &str) -> u64 {
    let line = said.lines().find_map(|line| line.strip_prefix("Literal data: ")).unwrap();
    line.split(' ').next().unwrap().replace(',', "").parse().unwrap()
}

#[tokio::test]
async fn the_real_client_goes_on_with_what_we_left() {
    let Some(client) = Server::newest_or_skip() else { return };
    for server in Server::all() {
        let bench = Bench::new(Direction::Download);
        bench.source().file("below/file", Dice::new(5).bytes(1_000_000));
        settle(bench.source().0);
        let mut run = bench.run(&server, "rt").with_job(|job| job.options.partial = true);
        run.setup.cut = Some(Cut::Killed(500_000));
        assert!(run.go().await.broken().await.touched);
        let partial = ["-rt", "--partial-dir=.rsync-partial", "--no-whole-file", "--stats"];
        let said = real_client(&client, &partial, bench.source().0, bench.target().0);
        assert!((1..700_000).contains(&literal(&said)), "{said}");
        bench.assert_mirrored("rt");
    }
}

#[tokio::test]
async fn we_go_on_with_what_the_real_client_left() {
    const LENGTH: usize = 4_000_000;
    let Some(client) = Server::newest_or_skip() else { return };
    for (server, direction) in runs(Server::all()) {
        let bench = Bench::new(direction);
        bench.source().file("below/file", Dice::new(6).bytes(LENGTH));
        settle(bench.source().0);
        let mut real = client.rsync.client();
        // So slow that it does not end before it is told to.
        real.args(["-rt", "--partial-dir=.rsync-partial", "--bwlimit=1000"]);
        real.arg(bench.source().0.join("")).arg(bench.target().0).stdout(Stdio::null()).stderr(Stdio::null());
        let mut real = real.process_group(0).spawn().unwrap();
        let below = bench.target().at("below");
        let is_half = || {
            let mut files = fs::read_dir(&below).into_iter().flatten().flatten();
            files.any(|file| file.metadata().is_ok_and(|it| it.len() > 500_000))
        };
        assert!(wait_until(PATIENCE, is_half));
        // As a terminal does.
        let group = Pid::from_raw(real.id().cast_signed()).unwrap();
        kill_process_group(group, Signal::INT).unwrap();
        assert!(!real.wait().unwrap().success());
        // A child of the client puts it there, for which nobody waits.
        let partial = below.join(".rsync-partial/file");
        assert!(wait_until(PATIENCE, || partial.exists()));
        let left = fs::metadata(partial).unwrap().len();
        assert!((500_000..LENGTH as u64).contains(&left), "{left}");

        let outcome = bench.run(&server, "rt").with_job(|job| job.options.partial = true).go().await;
        outcome.assert_clean().await;
        assert_eq!(outcome.transferred(), BTreeSet::from([b"below/file".to_vec()]));
        let (moved, kept) = outcome.told.completed[&b"below/file"[..]];
        assert!(
            kept >= left - 10_000 && moved + kept == LENGTH as u64,
            "{moved} moved, {kept} kept of {left}"
        );
        bench.assert_mirrored("rt");
    }
}
