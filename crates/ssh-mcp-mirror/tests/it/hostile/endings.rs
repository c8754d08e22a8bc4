//! Servers that do not end, or never begin.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ssh_mcp_core::port::mirror::{Broken, BrokenKind, Done, News, NewsDesk};
use ssh_mcp_core::port::ssh::{ChannelEvent, LinkLost};
use ssh_mcp_mirror::wire::{self, Plan};
use tokio::sync::mpsc;
use tokio::time::{Instant, advance};

use super::server::{Heard, Script};
use super::words::{download, file, frame, good_upload, greeting, list, root};
use super::{Desk, Ground};

/// A run in virtual time, which goes on by a minute whenever the server is silent; and how long it took.
async fn in_virtual_time(ground: &Ground, script: Script) -> (Result<Done, Broken>, Heard, Duration) {
    let (channel, heard) = script.open();
    let news = Arc::new(Desk::default());
    let plan = Plan::new(ground.job()).unwrap();
    let run = wire::run(channel, plan, news, Box::pin(std::future::pending()));
    tokio::pin!(run);
    let began = Instant::now();
    let silence = heard.silence();
    tokio::select! {
        result = &mut run => return (result, heard, began.elapsed()),
        () = silence => {}
    }
    loop {
        tokio::select! {
            biased;
            result = &mut run => {
                ground.assert_contained();
                return (result, heard, began.elapsed());
            }
            // The thread that ends is waited for in real time.
            () = advance(Duration::from_secs(60)), if !heard.is_closed() => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_is_given_up_after_ten_minutes() {
    for (ground, script) in [
        (Ground::download(), Script::new()),
        (Ground::download(), Script::new().send(greeting())),
        (Ground::download(), Script::new().send(greeting()).send(list(&[root()]))),
        (Ground::upload(), Script::new().send(greeting())),
    ] {
        let (result, heard, took) = in_virtual_time(&ground, script.silence().rude()).await;
        let broken = result.unwrap_err();
        assert_eq!((broken.kind, &broken.detail[..]), (BrokenKind::Partial, "nothing moved for 600 s"));
        assert!(took >= Duration::from_secs(600), "{took:?}");
        // Whoever waits sleeps.
        assert!(heard.polls() < 100, "{} polls", heard.polls());
    }
}

/// Holds the thread of a run at each file that needs nothing, until it is let go on.
struct Gate {
    arrived: mpsc::Sender<()>,
    go_on: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl NewsDesk for Gate {
    fn tell(&self, news: News<'_>) {
        if let News::Skipped { .. } = news {
            // Whoever has gone lets everybody pass.
            _ = self.arrived.blocking_send(());
            _ = self.go_on.lock().unwrap().recv();
        }
    }
}

/// As with the digests of many files: nothing crosses the line, and yet the run goes on.
#[tokio::test(start_paused = true)]
async fn a_silent_line_is_no_silence_while_this_side_works() {
    const STEP: Duration = Duration::from_secs(400);
    let ground = Ground::download();
    let names = ["a", "b", "c", "d"];
    for name in names {
        ground.here().file(name, "");
        ground.here().time(name, file(name, 0).mtime, 0);
    }
    let listed: Vec<_> = [root()].into_iter().chain(names.map(|name| file(name, 0))).collect();
    let (channel, heard) = Script::new().send(greeting()).send(list(&listed)).silence().rude().open();
    let (arrived, mut arrivals) = mpsc::channel(1);
    let (go_on, gate) = std::sync::mpsc::channel();
    let gate = Arc::new(Gate { arrived, go_on: Mutex::new(gate) });
    let run = wire::run(channel, Plan::new(ground.job()).unwrap(), gate, Box::pin(std::future::pending()));
    tokio::pin!(run);
    let began = Instant::now();
    for name in names {
        tokio::select! {
            biased;
            result = &mut run => panic!("given up at {name}: {result:?}"),
            _ = arrivals.recv() => {}
        }
        advance(STEP).await;
        go_on.send(()).unwrap();
    }
    let result = loop {
        tokio::select! {
            biased;
            result = &mut run => break result,
            () = advance(Duration::from_secs(60)), if !heard.is_closed() => {}
        }
    };
    assert_eq!(result.unwrap_err().detail, "nothing moved for 600 s");
    assert!(began.elapsed() >= STEP * 4, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_end_after_its_last_word_is_given_up() {
    for (ground, script) in
        [(Ground::download(), download(&[root()], 0, |talk| talk)), (Ground::upload(), good_upload())]
    {
        let (result, _, took) = in_virtual_time(&ground, script.staying()).await;
        assert_eq!(result.unwrap_err().detail, "nothing moved for 600 s");
        assert!(took >= Duration::from_secs(600), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_found_out_has_five_seconds_to_end() {
    for script in [
        Script::new().send(b"who is there?".to_vec()).silence().rude(),
        Script::new().send(b"who is there?".to_vec()).event(ChannelEvent::ExitStatus(1)).silence().rude(),
    ] {
        let ground = Ground::download();
        let began = Instant::now();
        let met = ground.meets(script).await;
        met.assert_refused("is your shell clean?");
        assert_eq!(began.elapsed().as_secs(), 5);
        assert!(met.heard.is_closed());
    }
}

#[tokio::test]
async fn a_server_that_goes_on_talking_when_it_was_found_out_is_cut_off() {
    let ground = Ground::download();
    let script = Script::new().repeat(b"who is there?\n".to_vec(), u64::MAX).rude();
    let met = ground.meets(script).await;
    met.assert_refused("is your shell clean?");
    assert!(met.heard.is_closed());
}

#[tokio::test]
async fn a_server_that_talks_for_ever_is_stopped() {
    for words in [frame(0, b""), frame(2, b"still here"), vec![0, 0, 0, 7, 0]] {
        for ground in [Ground::download(), Ground::upload()] {
            let script = Script::new().send(greeting()).repeat(words.repeat(100), 1000);
            let met = ground.meets_until(ground.job(), script.silence(), Heard::silence).await;
            let broken = met.result.unwrap_err();
            assert!(matches!(broken.kind, BrokenKind::Stopped | BrokenKind::Protocol), "{broken:?}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_lost_says_so() {
    for ground in [Ground::download(), Ground::upload()] {
        let lost = ChannelEvent::Lost(LinkLost { cause: "cut by the test".to_owned() });
        let met = ground.meets(Script::new().send(greeting()).event(lost)).await;
        met.assert_broken(BrokenKind::Lost, "cut by the test");
    }
}
