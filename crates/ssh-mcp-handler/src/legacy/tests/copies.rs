//! `ssh_scp` of 003: files of this machine, and those of a scripted one.

use std::{fs, slice};

use super::*;
use crate::tests::rig::completed;

struct Copies {
    walk: Walk,
    here: tempfile::TempDir,
}

impl Copies {
    fn new() -> Self {
        Self::under(settings())
    }

    fn under(settings: Settings) -> Self {
        let settings = Settings { legacy_tools: LegacyTools::V003, ..settings };
        Self { walk: Walk::under(ScriptedHost::new(), settings), here: tempfile::tempdir().unwrap() }
    }

    fn here(&self, name: &str) -> String {
        self.here.path().join(name).to_str().unwrap().to_owned()
    }

    /// A file of this machine.
    fn put(&self, name: &str, content: &[u8]) -> String {
        fs::write(self.here(name), content).unwrap();
        self.here(name)
    }

    async fn up(&self, sources: &[String], destination: &str, more: Value) -> Value {
        self.walk.ok("ssh_scp", upload(sources, destination, more)).await
    }

    /// How its transfer stands.
    async fn transfer(&self, copied: &Value) -> Value {
        self.walk.own("ssh_transfer_progress", json!({ "transfer_id": copied["transfer_id"] })).await
    }

    fn now(&self) -> Duration {
        self.walk.rig.shared.engine.clock().now()
    }
}

fn upload(sources: &[String], destination: &str, more: Value) -> Value {
    let mut all = object(json!({
        "target": "ann@build", "direction": "upload", "sources": sources, "destination": destination,
    }));
    all.extend(object(more));
    all.into()
}

/// The call of the walk through all tools of 003.
pub(super) async fn up_with_all_that_can_be_said(walk: &Walk) {
    let here = tempfile::tempdir().unwrap();
    let source = here.path().join("source").to_str().unwrap().to_owned();
    fs::write(&source, b"content").unwrap();
    let more = json!({ "port": 2222, "identity_file": "/k", "known_hosts_file": "/n", "strict_host_key_checking": "yes",
        "extra_ssh_args": ["-4"], "recursive": true, "preserve_times": true, "timeout": 2.5 });
    let copied = walk.ok("ssh_scp", upload(slice::from_ref(&source), "/home/made/name", more)).await;
    assert_eq!(
        copied,
        json!({ "ok": true, "exit_code": 0, "direction": "upload", "sources": [source], "destination": "/home/made/name",
            "stdout": "", "stderr": "", "timed_out": false, "transfer_id": copied["transfer_id"] })
    );
    assert_eq!(walk.rig.files.get("/home/made/name").unwrap(), b"content");
    let sessions = walk.own("ssh_sessions", json!({})).await;
    let opened = &sessions["sessions"][0];
    assert_eq!((&opened["username"], &opened["port"]), (&json!("ann"), &json!(2222)));
}

#[tokio::test(start_paused = true)]
async fn one_source_takes_the_name_several_go_into_a_directory() {
    let copies = Copies::new();
    let files = &copies.walk.rig.files;
    let (one, two) = (copies.put("one", b"1"), copies.put("two", b"22"));
    copies.up(slice::from_ref(&one), "new", json!({})).await;
    assert_eq!(files.get("/home/new").unwrap(), b"1");
    files.make_dir("/home/into");
    copies.up(&[one, two], "into", json!({})).await;
    assert_eq!(files.get("/home/into/one").unwrap(), b"1");
    assert_eq!(files.get("/home/into/two").unwrap(), b"22");

    let back = |sources: Value, to: &str| json!({ "target": "ann@build", "direction": "download", "sources": sources, "destination": copies.here(to) });
    let copied = copies.walk.ok("ssh_scp", back(json!(["new"]), "back")).await;
    assert_eq!((&copied["exit_code"], &copied["direction"]), (&json!(0), &json!("download")));
    assert_eq!(fs::read(copies.here("back")).unwrap(), b"1");
    fs::create_dir(copies.here("all")).unwrap();
    copies.walk.ok("ssh_scp", back(json!(["into/one", "/home/into/two"]), "all")).await;
    assert_eq!(fs::read(copies.here("all/one")).unwrap(), b"1");
    assert_eq!(fs::read(copies.here("all/two")).unwrap(), b"22");
    // The connection of the first call served all of them.
    assert_eq!(copies.walk.rig.host.connects(), 1);
    assert_eq!(copies.walk.own("ssh_sessions", json!({})).await["count"], 1);
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_complained_of_line_by_line() {
    let copies = Copies::new();
    let files = &copies.walk.rig.files;
    fs::create_dir(copies.here("tree")).unwrap();
    files.make_dir("/home/tree");
    // Directories there stand where files are to go.
    for at in 0..23 {
        copies.put(&format!("tree/{at:02}"), b"x");
        if at > 0 {
            files.make_dir(&format!("/home/tree/{at:02}"));
        }
    }
    let copied = copies.up(&[copies.here("tree")], "/home", json!({ "recursive": true })).await;
    assert_eq!((&copied["exit_code"], &copied["timed_out"]), (&json!(1), &json!(false)));
    let stderr = text(&copied, "stderr");
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!((lines.len(), lines[20]), (21, "scp: and 2 more"), "{stderr}");
    // Many are under way at a time, so their order is open.
    let named: BTreeSet<String> =
        (1..23).map(|at| format!("scp: /home/tree/{at:02} is no regular file")).collect();
    let told: BTreeSet<String> = lines[..20].iter().map(|line| (*line).to_owned()).collect();
    assert!(told.len() == 20 && told.is_subset(&named), "{stderr}");
    // The others arrived.
    assert_eq!(files.get("/home/tree/00").unwrap(), b"x");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_stalls_has_failed_and_one_out_of_time_was_cut_off() {
    let copies = Copies::new();
    let source = [copies.put("source", &[7; 5000])];
    copies.walk.rig.files.hold();
    let stalled = copies.up(&source, "stalled", json!({ "timeout": 0 })).await;
    assert_eq!((&stalled["exit_code"], &stalled["timed_out"]), (&json!(1), &json!(false)));
    let stderr = text(&stalled, "stderr");
    let ended = copies.transfer(&stalled).await;
    assert_eq!(ended["error"]["code"], "TIMEOUT");
    assert_eq!(stderr, format!("scp: {}\n", text(&ended["error"], "reason")));

    let began = copies.now();
    let cut = copies.up(&source, "cut", json!({ "timeout": 1.25 })).await;
    // Timers have whole milliseconds.
    let took = copies.now() - began;
    assert!(took >= Duration::from_millis(1250) && took <= Duration::from_millis(1252), "{took:?}");
    assert_eq!((&cut["exit_code"], &cut["timed_out"]), (&json!(-1), &json!(true)));
    assert_eq!(cut["stderr"], "scp: the time limit ended it\n");
    assert_eq!(copies.transfer(&cut).await["status"], "cancelled");
}

#[tokio::test(start_paused = true)]
async fn a_look_that_takes_all_the_time_is_out_of_time_too() {
    let copies = Copies::new();
    let source = [copies.put("source", b"x")];
    copies.walk.rig.files.hold_looks();
    let cut = copies.up(&source, "to", json!({ "timeout": 3 })).await;
    assert_eq!(
        (&cut["exit_code"], &cut["timed_out"], cut.get("transfer_id")),
        (&json!(-1), &json!(true), None)
    );
    assert_eq!(cut["stderr"], "scp: the time limit ended it\n");
    copies.walk.rig.files.go_on();
    assert_eq!(copies.up(&source, "to", json!({ "timeout": 3 })).await["exit_code"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_copy_longer_than_a_wait_of_the_new_tools_is_waited_for() {
    let copies = Copies::new();
    fs::create_dir(copies.here("tree")).unwrap();
    (0..400).for_each(|at| _ = copies.put(&format!("tree/{at}"), b"x"));
    let files = &copies.walk.rig.files;
    files.hold();
    let began = copies.now();
    let tree = [copies.here("tree")];
    let (copied, ()) = tokio::join!(copies.up(&tree, "to", json!({ "recursive": true })), async {
        // At most 16 files move at a time, so this often a few rounds are left behind 300 s; and nothing stalls.
        for _ in 0..7 {
            tokio::time::sleep(50 * SECOND).await;
            files.go_on();
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            files.hold();
        }
        files.go_on();
    });
    assert_eq!((&copied["exit_code"], &copied["stderr"]), (&json!(0), &json!("")));
    assert!(copies.now() - began > WAIT);
    assert_eq!(files.get("/home/to/399").unwrap(), b"x");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_somebody_ends_has_no_status() {
    let copies = Copies::new();
    let source = [copies.put("source", &[7; 5000])];
    copies.walk.rig.files.hold();
    let (copied, ()) = tokio::join!(copies.up(&source, "to", json!({})), async {
        tokio::time::sleep(SECOND).await;
        let sessions = copies.walk.own("ssh_sessions", json!({})).await;
        let session = json!({ "session_id": sessions["sessions"][0]["session_id"] });
        copies.walk.own("ssh_disconnect", session).await;
    });
    assert_eq!((&copied["exit_code"], &copied["timed_out"]), (&json!(-1), &json!(false)));
    assert_eq!(copied["stderr"], "scp: it was cancelled\n");
}

#[tokio::test(start_paused = true)]
async fn who_calls_a_copy_off_ends_it() {
    let copies = Copies::new();
    let walk = &copies.walk;
    let source = [copies.put("source", &[7; 5000])];
    walk.rig.files.hold();
    let cancelled = CancellationToken::new();
    let cx = walk.rig.cx(cancelled.clone());
    let arguments = object(upload(&source, "to", json!({})));
    let request = Request { tool: "ssh_scp", arguments, key: None, peer: "test" };
    let (result, ()) = tokio::join!(call::call(&cx, &walk.rig.shared.keys, request), async {
        tokio::time::sleep(SECOND).await;
        cancelled.cancel();
    });
    let result = completed(result.unwrap()).structured_content.unwrap();
    assert_eq!((&result["ok"], &result["effect"]), (&json!(false), &json!("unknown")));
    let transfers = walk.own("ssh_resources", json!({ "kind": "transfer", "include_ended": true })).await;
    assert_eq!((&transfers["count"], &transfers["resources"][0]["status"]), (&json!(1), &json!("cancelled")));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_cannot_begin_is_an_error() {
    let copies = Copies::new();
    let walk = &copies.walk;
    let source = [copies.put("source", b"x")];
    let missing = walk.fails("ssh_scp", upload(&[copies.here("none")], "to", json!({}))).await;
    assert_eq!((&missing["ok"], &missing["error_type"]), (&json!(false), &json!("LOCAL_FILE_ERROR")));
    fs::create_dir(copies.here("dir")).unwrap();
    let directory = walk.fails("ssh_scp", upload(&[copies.here("dir")], "to", json!({}))).await;
    assert_eq!(directory["error_type"], "LOCAL_NOT_FILE");
    let two = [source[0].clone(), source[0].clone()];
    let several = walk.fails("ssh_scp", upload(&two, "/home/none", json!({}))).await;
    assert_eq!(several["error_type"], "SFTP_ERROR");
    assert!(text(&several, "message").contains("/home/none"), "{several}");
    walk.rig.files.set_service(false);
    walk.rig.files.end_services();
    let no_service = walk.fails("ssh_scp", upload(&source, "to", json!({}))).await;
    assert_eq!(no_service["error_type"], "SFTP_OPEN_FAILED");
    let rejected = ConnectError::Rejected { tried: Vec::new(), offered: Vec::new(), cut_off: None };
    walk.rig.host.then_connect_fails(rejected);
    let elsewhere = upload(&source, "to", json!({ "target": "other" }));
    assert_eq!(walk.fails("ssh_scp", elsewhere).await["error_type"], "AUTH_FAILED");

    for (more, reason) in [
        (json!({ "direction": "sideways" }), "direction must be one of upload, download; got"),
        (json!({ "sources": [] }), "sources must be "),
        (json!({ "sources": ["a", ""] }), "sources[1] must be a text"),
        (json!({ "destination": "" }), "destination must be a text"),
        (json!({ "timeout": -1 }), "timeout must be a number"),
        (json!({ "session_id": "s" }), "session_id is no argument of this tool"),
    ] {
        let refused = walk.fails("ssh_scp", upload(&source, "to", more)).await;
        assert_eq!(refused["error_type"], "INVALID_ARGUMENT");
        assert!(text(&refused, "message").starts_with(reason), "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_as_grave_as_an_upload_and_has_its_key() {
    let copies = Copies::new();
    let catalogue = &copies.walk.rig.shared.catalogue;
    let entry = catalogue.entries().iter().find(|entry| entry.face.name() == "ssh_scp").unwrap();
    let hints = catalogue.shown(entry).annotations.unwrap();
    assert_eq!(
        (hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint),
        (Some(false), Some(true), None)
    );

    let asked = upload(&[copies.put("source", b"first")], "to", json!({}));
    let call = || copies.walk.rig.raw("ssh_scp", asked.clone(), Some(json!("k")));
    let first = call().await.unwrap();
    copies.put("source", b"second");
    assert_eq!(call().await.unwrap(), first);
    assert_eq!(copies.walk.rig.files.get("/home/to").unwrap(), b"first");
}

#[tokio::test(start_paused = true)]
async fn copies_need_both_directions_and_the_way_there() {
    for left_out in ["-ssh_download", "-ssh_connect", "-ssh_transfer_cancel"] {
        let toolsets = vec!["all".into(), left_out.into()];
        let copies = Copies::under(Settings { toolsets, ..settings() });
        let failed = copies.walk.fails("ssh_scp", upload(&["s".into()], "to", json!({}))).await;
        assert_eq!(failed["code"], "FEATURE_DISABLED", "{left_out}");
    }
}
