//! `ssh_sync` of 003, over a scripted mirror.

use ssh_mcp_core::port::mirror::{BrokenKind, Devices, Done, FileFault, News, NewsDesk};
use ssh_mcp_testkit::mirror::Play;

use super::*;

fn syncing() -> Walk {
    let settings = Settings { legacy_tools: LegacyTools::V003, ..settings() };
    Walk::under(ScriptedHost::new(), settings)
}

fn fetch(more: Value) -> Value {
    let mut all = object(json!({
        "target": "ann@build", "direction": "download", "source": "/srv/site/", "destination": "/tmp/there",
    }));
    all.extend(object(more));
    all.into()
}

/// The call of the walk through all tools of 003.
pub(super) async fn with_all_that_can_be_said(walk: &Walk) {
    walk.rig.mirror.on_walk(Play::new().planned(1, 5).completed("index.html", 5));
    let more = json!({ "port": 2222, "identity_file": "/k", "known_hosts_file": "/n", "strict_host_key_checking": "yes",
        "extra_ssh_args": ["-4"], "delete": true, "compress": false, "dry_run": true, "exclude": ["*.tmp"],
        "timeout": 2.5, "extra_rsync_args": [] });
    let synced = walk.ok("ssh_sync", fetch(more)).await;
    assert_eq!(
        synced,
        json!({ "ok": true, "exit_code": 0, "direction": "download", "source": "/srv/site/", "destination": "/tmp/there",
            "stdout": "", "stderr": "", "timed_out": false, "rsync_id": synced["rsync_id"] })
    );
    let job = walk.rig.mirror.runs().pop().unwrap().job;
    let options = job.options;
    assert_eq!((job.exclude, options.devices), (vec!["*.tmp".to_owned()], Devices::Implied));
    assert_eq!(
        (options.recursive, options.delete, options.dry_run, options.compress),
        (true, true, true, false)
    );
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_complained_of_line_by_line() {
    let walk = syncing();
    let failing = |desk: &dyn NewsDesk| {
        (0..23).for_each(|_| {
            desk.tell(News::Failed {
                path: b"a/b",
                fault: FileFault::IoError,
                detail: "no space",
                planned: true,
            });
        });
    };
    let done = Done { delete_skipped: Some("a directory failed".into()), notes: Vec::new() };
    walk.rig.mirror.on_walk(Play::new().planned(23, 0).tell(failing).done(done));
    let synced = walk.ok("ssh_sync", fetch(json!({}))).await;
    let stderr = synced["stderr"].as_str().unwrap();
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!((synced["exit_code"].as_i64(), lines.len()), (Some(1), 22));
    assert_eq!(
        [lines[0], lines[20], lines[21]],
        ["rsync: a/b: no space", "rsync: and 3 more", "rsync: nothing was deleted: a directory failed"]
    );
    walk.rig.mirror.on_walk(Play::new().planned(1, 1).breaks(BrokenKind::Partial, "cut off", true));
    let broken = walk.ok("ssh_sync", fetch(json!({}))).await;
    assert_eq!((&broken["exit_code"], &broken["stderr"]), (&json!(1), &json!("rsync: cut off\n")));
}

#[tokio::test(start_paused = true)]
async fn a_time_limit_ends_it_and_flags_of_a_program_are_refused() {
    let walk = syncing();
    walk.rig.mirror.on_walk(Play::new().planned(1, 1).wait());
    let late = walk.ok("ssh_sync", fetch(json!({ "timeout": 7 }))).await;
    assert_eq!((&late["exit_code"], &late["timed_out"]), (&json!(-1), &json!(true)));
    assert_eq!(late["stderr"], "rsync: the time limit ended it\n");
    let refused = walk.fails("ssh_sync", fetch(json!({ "extra_rsync_args": ["-e", "sh"] }))).await;
    assert_eq!(refused["error_type"], "INVALID_ARGUMENT");
    assert!(refused["message"].as_str().unwrap().starts_with("extra_rsync_args must be empty"));
    // A refusal comes before any sync.
    assert_eq!(walk.rig.mirror.runs().len(), 1);
}
