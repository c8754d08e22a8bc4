//! Waiting for several resources at once.

use std::{sync::Arc, time::Duration};

use ssh_mcp_core::{history::Origin as Stream, lane::Filter, registry::Shell, uri::Resource};
use ssh_mcp_testkit::host::ScriptedHost;

use super::{Rig, SECOND, ms, rig};
use crate::{Place, Until, WaitItem, WaitOver};

impl Rig {
    fn item(&self, resource: impl Into<Resource>, from: u64) -> WaitItem {
        WaitItem {
            source: self.engine.source(&self.owner, resource.into()).unwrap(),
            place: Place::Behind(from),
        }
    }

    /// Two shells that have said what they say at the start, and what comes from then on.
    async fn two_shells(&self) -> ([Arc<Shell>; 2], [WaitItem; 2]) {
        let session = self.connect().await;
        let shells = [self.open(&session).await, self.open(&session).await];
        self.pass(SECOND).await;
        let items = shells.each_ref().map(|shell| self.item(shell.spec.id, shell.history.mark().end));
        (shells, items)
    }

    /// What ends a wait of ten seconds, and after how long.
    async fn wait(&self, items: &[WaitItem], until: Until) -> (WaitOver, Duration) {
        let began = self.now();
        let over = self.engine.await_items(items, &until, 10 * SECOND).await;
        (over, self.now() - began)
    }
}

fn say_after(rig: &Rig, shell: &Arc<Shell>, delay: Duration, words: &'static [&'static str]) {
    let shell = Arc::clone(shell);
    rig.engine.tasks.spawn(async move {
        for word in words {
            tokio::time::sleep(delay).await;
            shell.history.append(Stream::Stdout, word.as_bytes());
        }
    });
}

fn expressions(patterns: &[&str]) -> Until {
    Until::Match(patterns.iter().map(|pattern| Filter::compile(pattern, 1024).unwrap()).collect())
}

#[tokio::test(start_paused = true)]
async fn news_is_collected_until_the_producer_pauses() {
    let rig = rig(ScriptedHost::new());
    let ([one, two], items) = rig.two_shells().await;
    say_after(&rig, &two, ms(100), &["a"]);
    say_after(&rig, &one, ms(60), &["b", "c"]);
    assert_eq!(rig.wait(&items, Until::News).await, (WaitOver::News, ms(60 + 25)));
    // What is there already is no reason to wait.
    assert_eq!(rig.wait(&items, Until::News).await, (WaitOver::News, ms(0)));
}

#[tokio::test(start_paused = true)]
async fn silence_counts_from_the_last_news() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let shell = rig.open(&session).await;
    rig.pass(SECOND).await;
    let items = [rig.item(shell.spec.id, shell.history.mark().end)];
    say_after(&rig, &shell, ms(100), &["a", "b", "c"]);
    assert_eq!(rig.wait(&items, Until::Quiet(ms(200))).await, (WaitOver::Quiet, ms(500)));
    let items = [rig.item(shell.spec.id, shell.history.mark().end)];
    assert_eq!(rig.wait(&items, Until::Quiet(ms(200))).await, (WaitOver::Patience, 10 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_match_sees_text_without_escapes_however_it_is_cut() {
    let rig = rig(ScriptedHost::new());
    let ([_, two], items) = rig.two_shells().await;
    say_after(&rig, &two, ms(50), &["lo\x1b[1", "mgin", ": "]);
    let until = expressions(&["^password", "^login: $"]);
    assert_eq!(rig.wait(&items, until).await, (WaitOver::Matched { item: 1, pattern: 1 }, ms(150)));
    assert_eq!(rig.wait(&items, expressions(&["nothing"])).await.0, WaitOver::Patience);
}

#[tokio::test(start_paused = true)]
async fn a_match_behind_much_text_is_found() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let shell = rig.open(&session).await;
    rig.pass(SECOND).await;
    let items = [rig.item(shell.spec.id, 0)];
    for n in 0..40_000 {
        shell.history.append(Stream::Stdout, format!("line {n}\r\n").as_bytes());
    }
    let until = expressions(&["^line 39999$"]);
    assert_eq!(rig.wait(&items, until).await.0, WaitOver::Matched { item: 0, pattern: 0 });
}

#[tokio::test(start_paused = true)]
async fn an_end_ends_every_wait() {
    let rig = rig(ScriptedHost::new());
    let ([one, two], items) = rig.two_shells().await;
    _ = one.stop(ssh_mcp_core::reason::Reason::ManualClose, ssh_mcp_core::registry::Manner::Kill);
    rig.pass(SECOND).await;
    assert_eq!(rig.wait(&items, Until::News).await, (WaitOver::News, ms(0)));
    assert_eq!(rig.wait(&items, Until::End).await.0, WaitOver::Patience);
    _ = two.stop(ssh_mcp_core::reason::Reason::ManualClose, ssh_mcp_core::registry::Manner::Kill);
    rig.pass(SECOND).await;
    for until in [Until::News, Until::End, Until::Quiet(ms(50)), expressions(&["x{9}"])] {
        assert_eq!(rig.wait(&items, until).await, (WaitOver::Ended, ms(0)));
    }
}
