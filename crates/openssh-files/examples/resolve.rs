//! How long a configuration takes: `resolve FILE HOST` prints microseconds to read it and to resolve the host, as medians.
//!
//! Started by `scripts/bench`, part `config`; build it with `--release`, or the figures mean nothing.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use openssh_files::config::{Config, Local, Overrides, Owner, Source, Whose};

const ROUNDS: usize = 101;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(host)) = (arguments.next(), arguments.next()) else {
        return Err("usage: resolve FILE HOST".into());
    };
    let path = PathBuf::from(file);
    let sources = [Source { path: path.clone(), whose: Whose::Own, may_be_missing: false }];
    let owner = Owner { uid: owner(&path)?, private_group: None };
    let local = Local {
        home: "/home/me",
        user: "me",
        uid: 1000,
        host_name: "box.example",
        environment: &|_| None,
        home_of: &|_| None,
        exec: &|_| Ok(false),
    };
    let (mut reading, mut resolving) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let config = Config::load(&sources, local.home, local.home_of, &owner)?;
        reading.push(begun.elapsed());
        let begun = Instant::now();
        std::hint::black_box(config.resolve(&host, &Overrides::default(), &local)?);
        resolving.push(begun.elapsed());
    }
    let line = format!("{} {}\n", median(reading).as_micros(), median(resolving).as_micros());
    std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes())?;
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(unix)]
fn owner(path: &std::path::Path) -> std::io::Result<u32> {
    Ok(std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(path)?))
}

#[cfg(not(unix))]
fn owner(_: &std::path::Path) -> std::io::Result<u32> {
    Ok(0)
}
