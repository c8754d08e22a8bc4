//! The list of resources over HTTP, in both eras: that it has changed is told, and not too often.

use super::site::{Site, ok};
use super::*;
use crate::web::{Ending, Events, Web};

const LIST: &str = "notifications/resources/list_changed";

/// The least time between two words about a list.
const PAUSE: Duration = Duration::from_secs(1);

fn told(heard: &[Value]) -> usize {
    heard.iter().filter(|note| note["method"] == LIST).count()
}

async fn told_to(events: &mut Events, times: usize) {
    events.hear(|heard| (told(heard) == times).then_some(())).await;
}

#[tokio::test]
async fn what_comes_into_a_list_and_leaves_it_is_told_over_http() {
    // What has ended leaves the list at once.
    let Some(site) = Site::set(&[("SSH_COMMAND_CLEANUP_TTL", "0")]).await else { return };
    let mut stream = site.client.stream().await;
    // The session has come into the list.
    told_to(&mut stream, 1).await;
    let modern = Web::modern(&site.product, json!({}));
    let mut listen = modern.listen(json!({"resourcesListChanged": true})).await;
    let other = json!({"resourceSubscriptions": [format!("session://{}/health", site.session)]});
    let mut deaf = modern.listen(other).await;

    let uri = site.start_at_gate("go", "true").await;
    told_to(&mut stream, 2).await;
    told_to(&mut listen, 1).await;
    let listed = modern.request("resources/list", json!({})).await.unwrap();
    assert!(listed.to_string().contains(&uri), "{listed}");
    open_gate(&site.server, "go");
    told_to(&mut stream, 3).await;
    told_to(&mut listen, 2).await;
    let listed = modern.request("resources/list", json!({})).await.unwrap();
    assert!(!listed.to_string().contains(&uri), "{listed}");

    // A listen that did not ask for it is not told, to its end.
    site.product.signal("TERM");
    let (heard, ending) = deaf.rest().await;
    assert_eq!((told(&heard), ending), (0, Ending::Clean), "{heard:?}");
}

#[tokio::test]
async fn a_list_that_changes_all_the_time_is_told_once_a_second_over_http() {
    let Some(site) = Site::set(&[]).await else { return };
    let mut stream = site.client.stream().await;
    told_to(&mut stream, 1).await;
    let modern = Web::modern(&site.product, json!({}));
    let began = Instant::now();
    let mut listen = modern.listen(json!({"resourcesListChanged": true})).await;
    let mut changes = 0;
    while began.elapsed() < 3 * PAUSE {
        let run = json!({"session_id": site.session, "command": "true", "wait": true});
        ok(&site.client, "ssh_exec", run).await;
        changes += 1;
    }
    assert!(changes > 8, "{changes} commands say nothing about how often a list is told");
    site.product.signal("TERM");
    for (events, before) in [(&mut stream, 1), (&mut listen, 0)] {
        let (heard, ending) = events.rest().await;
        let times = told(&heard) - before;
        // One at once, and one for each pause that has passed.
        let most = began.elapsed().as_secs() + 1;
        assert!(times >= 2 && times as u64 <= most, "{times} times, {most} at the most");
        assert_eq!(ending, Ending::Clean);
    }
}
