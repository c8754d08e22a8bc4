//! How long known_hosts takes: `judge FILE HOST PORT` prints microseconds to read what is known of a host, to judge a key it
//! shows, and to learn it, as medians.
//!
//! Started by `scripts/bench`, part `config`; build it with `--release`, or the figures mean nothing.

use std::time::{Duration, Instant};

use openssh_files::known_hosts::{Hashing, HostKey, HostName, KnownHosts, Learnt, Verdict, append};

const ROUNDS: usize = 41;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(host), Some(port)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("usage: judge FILE HOST PORT".into());
    };
    let host = HostName::new(&host, port.parse()?)?;
    // Of type and length an Ed25519 key, and nobody's.
    let blob = [&[0, 0, 0, 11][..], b"ssh-ed25519", &[0, 0, 0, 32], &[7; 32]].concat();
    let key = HostKey::parse(&blob)?;
    let (mut reading, mut judging, mut learning) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let known = KnownHosts::read_about([&file], &host)?;
        reading.push(begun.elapsed());
        let begun = Instant::now();
        std::hint::black_box((known.known_key_types(&host), known.has_authority(&host)));
        let verdict = known.verdict(&host, &key);
        judging.push(begun.elapsed());
        if verdict != Verdict::Unknown {
            return Err(format!("the host is known: {verdict:?}").into());
        }
        let (folder, copy) = (tempfile::tempdir()?, "known_hosts");
        let copy = folder.path().join(copy);
        std::fs::copy(&file, &copy)?;
        let begun = Instant::now();
        let learnt = append(&copy, &host, &key, Hashing::AsFile)?;
        learning.push(begun.elapsed());
        if !matches!(learnt, Learnt::Added(_)) {
            return Err(format!("not learnt: {learnt:?}").into());
        }
    }
    let [reading, judging, learning] = [reading, judging, learning].map(|times| median(times).as_micros());
    std::io::Write::write_all(
        &mut std::io::stdout(),
        format!("{reading} {judging} {learning}\n").as_bytes(),
    )?;
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
