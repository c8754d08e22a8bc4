//! Attacks on memory, in a process of their own, whose peak is what the system says it was.

use std::time::Duration;

use ssh_mcp_core::port::BoxFuture;

use crate::again::{again, peak, told};

use super::Ground;
use super::server::{Heard, Script};
use super::words::{
    FILTERS, NO_SUMS, REQUEST, Talk, WANTED, WANTED_NEW, data, file, frame, frame_of, greeting, list, root,
    symlink,
};

/// All attacks together. A list of 100,000 entries is allowed in them.
const PEAK: u64 = 128 << 20;

#[tokio::test]
async fn attacks_on_memory() {
    if told().is_some() {
        return attack().await;
    }
    again(&std::env::current_exe().unwrap(), &[], |command| command);
}

async fn attack() {
    let began = peak();
    for (name, script) in attacks() {
        let ground = if name.starts_with("upload") { Ground::upload() } else { Ground::download() };
        let mut wanted = ground.job();
        wanted.list_limit = 100_000;
        // Some attacks go on for as long as they may.
        let stop = |heard: &Heard| -> BoxFuture<'static, ()> {
            let silence = heard.silence();
            Box::pin(async { drop(tokio::time::timeout(Duration::from_secs(3), silence).await) })
        };
        let met = ground.meets_until(wanted, script, stop).await;
        let kind = met.result.expect_err("an attack is found out, or stopped").kind;
        println!("{name}: {kind:?}, {:?} after {began:?}", peak());
        assert!(peak().is_none_or(|peak| peak < PEAK), "{name}: {:?}", peak());
    }
}

fn attacks() -> Vec<(&'static str, Script)> {
    let begun = || Script::new().send(greeting());
    let one = begun().send(list(&[root(), file("a", 4)])).until(FILTERS + REQUEST + 1);
    let ask = |head: [i32; 4]| Talk::default().say(|talk| talk.record(2, WANTED).head(head));
    let answer = Talk::default().say(|talk| talk.record(1, WANTED_NEW).head(NO_SUMS));
    let literal = data([&i32::MAX.to_le_bytes()[..], &[0; 1000]].concat());
    // Each is answered, so that the client soon waits for a server that does not read.
    let records = data([0xfe, 0, 0, 0, 0x20].repeat(100_000));
    let first = Talk::default().say(|talk| talk.record(1, 0x2000));
    let nobody_listens = begun().deaf().send(first).repeat(records.clone(), 4);
    vec![
        ("entries", begun().repeat(data(file("x", 1).bytes().repeat(1000)), 100_000)),
        ("long entries", begun().repeat(data(symlink("x", [b'y'; 4095]).bytes().repeat(4)), 3000).silence()),
        (
            "an entry in single bytes",
            begun().send(data([0x58, 0xff])).repeat([1, 0, 0, 7, 0xff], 100).silence(),
        ),
        ("a long text", begun().send(frame_of(2, 0xff_ffff, &vec![b'x'; 1 << 20]))),
        ("texts", begun().repeat(frame(1, &vec![b'x'; 60_000]), 3000).silence()),
        (
            "errors",
            begun().repeat([], 1).complain(vec![b'x'; 1 << 20]).complain(vec![b'y'; 1 << 20]).silence(),
        ),
        ("a long literal", one.clone().send(answer.clone()).send(literal).silence()),
        ("upload: many sums", begun().send(ask([i32::MAX, 700, 16, 0]))),
        ("upload: sums that do not come", begun().send(ask([1 << 26, 1, 4, 0])).silence()),
        ("upload: answers that nobody takes", nobody_listens.clone().repeat(records.clone(), 1000)),
        ("upload: single bytes that nobody can take", nobody_listens.repeat([0], u64::MAX)),
    ]
}
