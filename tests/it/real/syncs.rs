//! Syncs through the product: by rsync's protocol where the far side has it, by SFTP where it has not.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::sshd::{Proxy, Rsync, processes::wait_until};

/// A stage whose server has a file service and, if wanted, an rsync; the home directory there, and a directory here.
struct Yard {
    stage: Stage,
    there: PathBuf,
    here: tempfile::TempDir,
    rsync: Option<Rsync>,
}

impl Yard {
    async fn with_rsync() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let rsync = Rsync::copied_or_skip(folder.path())?;
        Self::set(rsync.for_sshd(), folder, Some(rsync)).await
    }

    async fn without_rsync() -> Option<Self> {
        let nowhere = vec!["SetEnv SHLVL=1 PATH=/nowhere".to_owned()];
        Self::set(nowhere, tempfile::tempdir().unwrap(), None).await
    }

    /// With a script in front of the rsync: `next "$@"` is the rsync itself.
    async fn with_script(script: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let rsync = Rsync::copied_or_skip(folder.path())?;
        let front = folder.path().join("front");
        fs::create_dir(&front).unwrap();
        let next = "next() { PATH=${PATH#*:} exec rsync \"$@\"; }";
        fs::write(front.join("rsync"), format!("#!/bin/sh\n{next}\n{script}\n")).unwrap();
        fs::set_permissions(front.join("rsync"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut lines = rsync.for_sshd();
        for line in &mut lines {
            let rest = line.split_once(" PATH=").map_or("/usr/bin:/bin", |(_, rest)| rest);
            *line = format!("SetEnv SHLVL=1 PATH={}:{rest}", front.display());
        }
        Self::set(lines, folder, Some(rsync)).await
    }

    async fn set(extra: Vec<String>, here: tempfile::TempDir, rsync: Option<Rsync>) -> Option<Self> {
        Self::set_in(Era::LEGACY_2025_11, extra, here, rsync).await
    }

    async fn set_in(
        era: Era,
        mut extra: Vec<String>,
        here: tempfile::TempDir,
        rsync: Option<Rsync>,
    ) -> Option<Self> {
        extra.push("Subsystem sftp internal-sftp".to_owned());
        let options = Options { extra, ..Options::default() };
        let stage = Stage::set_in(era, options, User::Tester, &[]).await?;
        let there = stage.server.home(User::Tester);
        Some(Self { stage, there, here, rsync })
    }

    fn here(&self, name: &str) -> PathBuf {
        self.here.path().join(name)
    }

    /// The directory on the far side that the user may write to.
    fn make_there(&self, name: &str) -> PathBuf {
        let path = self.there.join(name);
        fs::create_dir_all(&path).unwrap();
        let owner = fs::metadata(&self.there).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
        path
    }

    async fn call(&self, tool: &str, mut arguments: Value) -> ToolAnswer {
        if tool == "ssh_rsync" {
            arguments["session_id"] = self.stage.session.as_str().into();
        }
        self.stage.client.call(tool, arguments).await
    }

    /// Starts a sync that can be started.
    async fn start(&self, arguments: Value) -> ToolAnswer {
        let answer = self.call("ssh_rsync", arguments).await;
        assert!(!answer.is_error, "{}", answer.text);
        answer
    }

    /// Syncs to the end; the answer is that of the statistics.
    async fn sync(&self, arguments: Value) -> Value {
        let id = field(&self.start(arguments).await, "rsync_id");
        self.ended(&id).await
    }

    async fn ended(&self, id: &str) -> Value {
        loop {
            let uris = json!({"uris": [format!("rsync://{id}/progress")], "timeout_secs": 60});
            let waited = self.call("sub_wait", uris).await;
            assert!(!waited.is_error, "{}", waited.text);
            let stats = self.call("ssh_rsync_stats", json!({"rsync_id": id})).await;
            if !["pending", "probing", "running"].contains(&field(&stats, "session_status").as_str()) {
                return stats.structured;
            }
        }
    }

    async fn body(&self, id: &str) -> Value {
        let contents = self.stage.client.read_resource(&format!("rsync://{id}/progress")).await.unwrap();
        serde_json::from_str(contents[0]["text"].as_str().unwrap()).unwrap()
    }

    /// A tree of a few files, directories and a link.
    fn make_tree(&self, root: &Path) {
        for folder in ["empty", "sub/deep"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for (name, len) in [("large", 3_000_000), ("none", 0), ("sub/a b", 10), ("sub/deep/-x\n", 70_000)] {
            let content: Vec<u8> = (0..len).map(|at: usize| (at * at / 7) as u8).collect();
            fs::write(root.join(name), content).unwrap();
        }
        symlink("../large", root.join("sub/link")).unwrap();
        fs::set_permissions(root.join("none"), fs::Permissions::from_mode(0o640)).unwrap();
    }
}

/// Every path below a directory: type and permissions, content or target, time of what is no directory.
fn tree(root: &Path) -> Vec<(PathBuf, u32, Vec<u8>, i64)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(path) = open.pop() {
        let facts = fs::symlink_metadata(&path).unwrap();
        let content = if facts.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else if facts.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            fs::read(&path).unwrap()
        };
        let time = if facts.is_file() { facts.mtime() } else { 0 };
        found.push((path.strip_prefix(root).unwrap().to_owned(), facts.mode(), content, time));
    }
    found.sort();
    found
}

fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (tree(a), tree(b));
    let differs: Vec<_> = a.iter().zip(&b).filter(|(a, b)| a != b).map(|(a, b)| (&a.0, &b.0)).collect();
    assert!(differs.is_empty() && a.len() == b.len(), "{differs:?}, {} and {} entries", a.len(), b.len());
}

#[tokio::test]
async fn a_tree_goes_up_and_comes_back_and_then_nothing_is_left_to_do() {
    let Some(yard) = Yard::with_rsync().await else { return };
    let source = yard.here("source");
    yard.make_tree(&source);
    let far = yard.make_there("far");
    let up = json!({"src": format!("{}/", source.display()), "dst": "there:far", "opts": {"archive": true}});
    let started = yard.start(up.clone()).await;
    assert!(started.text.starts_with("SSH_RSYNC: STARTED\nRSYNC_ID: "), "{}", started.text);
    assert!(started.text.contains("\nTRANSPORT: wire\n"), "{}", started.text);
    let id = field(&started, "rsync_id");
    let stats = yard.ended(&id).await;
    assert_eq!((&stats["session_status"], &stats["files_done"]), (&json!("completed"), &json!(4)), "{stats}");
    assert_eq!(stats["bytes_transferred"], 3_070_010, "{stats}");
    assert_same(&source, &far);

    // Every file has begun and ended once, between the first event and the last.
    let body = yard.body(&id).await;
    let kinds: Vec<&str> =
        body["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!((kinds.first(), kinds.last()), (Some(&"session_started"), Some(&"sync_completed")), "{body}");
    let count = |kind: &str| kinds.iter().filter(|one| **one == kind).count();
    assert_eq!((count("file_started"), count("file_completed")), (4, 4), "{body}");

    let again = yard.sync(up).await;
    assert_eq!(
        (&again["bytes_transferred"], &again["bytes_skipped"]),
        (&json!(0), &json!(3_070_010)),
        "{again}"
    );
    // The real client finds nothing left to do either.
    let mut client = yard.rsync.as_ref().unwrap().client();
    client.args(["-rlptinc", "--delete"]).arg(source.join("")).arg(far.join(""));
    let left = client.output().unwrap();
    assert!(left.status.success() && left.stdout.is_empty(), "{left:?}");
    let down = json!({"src": "there:far/", "dst": yard.here("back"), "opts": {"archive": true}});
    let stats = yard.sync(down.clone()).await;
    assert_eq!(stats["session_status"], "completed", "{stats}");
    assert_same(&source, &yard.here("back"));
    let again = yard.sync(down).await;
    assert_eq!(again["bytes_transferred"], 0, "{again}");

    // A byte in the middle costs a block, not the file.
    let mut content = fs::read(source.join("large")).unwrap();
    content[1_500_000] ^= 1;
    fs::write(source.join("large"), content).unwrap();
    // Within one second rsync takes two files of one size for equal.
    let later = fs::File::options().write(true).open(source.join("large")).unwrap();
    later.set_modified(std::time::SystemTime::now() + Duration::from_secs(10)).unwrap();
    let up = json!({"src": format!("{}/", source.display()), "dst": "there:far", "opts": {"archive": true}});
    let stats = yard.sync(up).await;
    assert!(stats["bytes_transferred"].as_u64().unwrap() < 10_000, "{stats}");
    assert_same(&source, &far);
}

/// What crosses the line is counted there, not by the product.
#[tokio::test]
async fn a_changed_mebibyte_of_a_large_file_costs_little_more_than_itself() {
    const MIB: u64 = 1 << 20;
    let Some(mut yard) = Yard::with_rsync().await else { return };
    let far = yard.make_there("there");
    fs::create_dir(yard.here("here")).unwrap();
    let make = |path: &Path, changed: u8| {
        let mut file = fs::File::create(path).unwrap();
        for block in 0..128 * MIB / 4096 {
            file.seek(SeekFrom::Start(block * 4096)).unwrap();
            file.write_all(&block.to_le_bytes()).unwrap();
        }
        let noise: Vec<u8> = (0..MIB).map(|at| ((at * at) >> 3) as u8 ^ changed).collect();
        file.seek(SeekFrom::Start(77 * MIB + 5)).unwrap();
        file.write_all(&noise).unwrap();
    };
    let proxy = Proxy::start(yard.stage.server.addr(), Duration::ZERO);
    let mut call = login(&yard.stage.server, User::Tester, ClientKey::Ed25519);
    call["address"] = proxy.addr().to_string().into();
    yard.stage.session = field(&yard.stage.client.call("ssh_connect", call).await, "session_id");
    let ways = [("upload", yard.here("here"), far.clone()), ("download", far, yard.here("here"))];
    for (round, (direction, source, target)) in (1..).zip(ways) {
        make(&source.join("file"), round);
        make(&target.join("file"), 0xff);
        for folder in [&source, &target] {
            let owner = fs::metadata(folder).unwrap();
            chown(folder.join("file"), Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        let older = fs::File::options().write(true).open(target.join("file")).unwrap();
        older.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let before = proxy.bytes();
        let stats = yard
            .sync(json!({"src": source.join(""), "dst": target, "direction": direction, "opts": {"archive": true}}))
            .await;
        assert_eq!(stats["session_status"], "completed", "{stats}");
        let passed = proxy.bytes() - before;
        assert!((MIB..2 * MIB).contains(&passed), "{direction}: {passed} bytes");
        assert_same(&source, &target);
    }
}

#[tokio::test]
async fn what_the_source_has_not_goes_but_for_what_is_excluded() {
    let Some(yard) = Yard::with_rsync().await else { return };
    let source = yard.here("source");
    yard.make_tree(&source);
    for direction in ["upload", "download"] {
        let (from, to) = match direction {
            "upload" => (source.clone(), yard.make_there("far")),
            _ => (yard.there.join("far"), yard.here("back")),
        };
        fs::create_dir_all(to.join("extra/folder")).unwrap();
        for name in ["extra/folder/file", "extra.keep", "extra/own.keep"] {
            fs::write(to.join(name), "x").unwrap();
        }
        if direction == "upload" {
            let owner = fs::metadata(&yard.there).unwrap();
            for path in ["extra", "extra/folder"] {
                chown(to.join(path), Some(owner.uid()), Some(owner.gid())).unwrap();
            }
        }
        let ask = |dry_run: bool| {
            let opts = json!({"archive": true, "delete": true, "exclude": ["*.keep"], "dry_run": dry_run});
            json!({"src": format!("{}/", from.display()), "dst": to, "direction": direction, "opts": opts})
        };
        let before = tree(&to);
        let planned = yard.sync(ask(true)).await;
        assert_eq!(planned["session_status"], "completed", "{planned}");
        assert!(tree(&to) == before, "{direction}: a dry run changes nothing");
        let stats = yard.sync(ask(false)).await;
        assert_eq!(stats["session_status"], "completed", "{stats}");
        assert_eq!(stats["files_deleted"], planned["files_deleted"], "{direction} {stats}");
        assert!(!to.join("extra/folder").exists() && to.join("extra.keep").exists());
        assert!(to.join("extra/own.keep").exists(), "{direction}: what is excluded keeps its directory");
    }
}

#[tokio::test]
async fn a_host_without_rsync_is_synced_by_sftp() {
    let Some(yard) = Yard::without_rsync().await else { return };
    let source = yard.here("source");
    yard.make_tree(&source);
    let far = yard.make_there("far");
    let src = format!("{}/", source.display());
    let up = json!({"src": src, "dst": "there:far", "opts": {"archive": true}});
    let started = yard.start(up.clone()).await;
    assert_eq!(field(&started, "transport"), "sftp", "{}", started.text);
    let stats = yard.ended(&field(&started, "rsync_id")).await;
    assert_eq!(
        (&stats["session_status"], &stats["files_failed"]),
        (&json!("completed"), &json!(0)),
        "{stats}"
    );
    assert_same(&source, &far);
    let again = yard.sync(up).await;
    assert_eq!(again["bytes_transferred"], 0, "{again}");
    let down = json!({"src": "there:far/", "dst": yard.here("back"), "opts": {"archive": true}});
    let stats = yard.sync(down).await;
    assert_eq!(stats["session_status"], "completed", "{stats}");
    assert_same(&source, &yard.here("back"));

    for (transport, opts, code) in [
        ("wire", json!({"archive": true}), "RSYNC_UNAVAILABLE"),
        ("auto", json!({"archive": true, "preserve": {"hardlinks": true}}), "SFTP_FEATURE_MISSING"),
        ("sftp", json!({"archive": true, "verify_checksum": true}), "SFTP_FEATURE_MISSING"),
    ] {
        let ask = json!({"src": src, "dst": "there:nowhere", "transport": transport, "opts": opts});
        let refused = yard.call("ssh_rsync", ask).await;
        assert!(refused.is_error, "{}", refused.text);
        assert_eq!(field(&refused, "code"), code, "{}", refused.text);
    }
    assert!(!yard.there.join("nowhere").exists());
}

#[tokio::test]
async fn a_sync_that_is_ended_leaves_no_half_file() {
    let Some(yard) = Yard::with_rsync().await else { return };
    let far = yard.make_there("far");
    let large = fs::File::create(far.join("large")).unwrap();
    large.set_len(3 << 30).unwrap();
    let back = yard.here("back");
    let ask = json!({"src": "there:far/", "dst": back, "opts": {"archive": true, "bwlimit_kbps": 4096}});
    let begun = async || {
        let id = field(&yard.start(ask.clone()).await, "rsync_id");
        loop {
            let uris = json!({"uris": [format!("rsync://{id}/progress")], "timeout_secs": 60});
            yard.call("sub_wait", uris).await;
            let body = yard.body(&id).await;
            let events = body["events"].as_array().unwrap();
            if events.iter().any(|event| event["kind"] == "file_progress") {
                return id;
            }
        }
    };
    let id = begun().await;
    let cancelled = yard.call("ssh_rsync_cancel", json!({"rsync_id": id})).await;
    assert!(!cancelled.is_error, "{}", cancelled.text);
    let stats = yard.ended(&id).await;
    assert_eq!(stats["session_status"], "cancelled", "{stats}");
    let last = yard.body(&id).await["events"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["kind"], &last["code"]), (&json!("session_failed"), &json!("CANCELLED")), "{last}");
    assert_eq!(fs::read_dir(&back).unwrap().count(), 0, "the temporary file is gone");
    let again = yard.call("ssh_rsync_cancel", json!({"rsync_id": id})).await;
    assert_eq!(again.structured["noop"], true, "{}", again.text);

    let mut limited = ask.clone();
    limited["timeout_secs"] = json!(1);
    let stats = yard.sync(limited).await;
    assert_eq!(stats["session_status"], "failed", "{stats}");

    // The connection goes, and the sync with it.
    let id = begun().await;
    yard.stage.server.kill_connections();
    let stats = yard.ended(&id).await;
    assert_eq!(stats["session_status"], "failed", "{stats}");
    let last = yard.body(&id).await["events"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["code"], "CONNECTION_LOST", "{last}");
    assert_eq!(fs::read_dir(&back).unwrap().count(), 0);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_before_anything_is_touched() {
    let Some(yard) = Yard::with_rsync().await else { return };
    fs::create_dir(yard.here("source")).unwrap();
    let local = yard.here("source");
    for (ask, words) in [
        (json!({"src": "there:missing/", "dst": yard.here("back")}), "missing"),
        (json!({"src": local, "dst": local}), "remote"),
        (json!({"src": local, "dst": "there:far", "opts": {"exclude": ["[z"]}}), "[z"),
        (json!({"src": local, "dst": "there:/", "opts": {"recursive": true, "delete": true}}), "root"),
        (json!({"src": local, "dst": "there:", "opts": {"recursive": true, "delete": true}}), "login"),
    ] {
        let refused = yard.call("ssh_rsync", ask.clone()).await;
        assert!(refused.is_error, "{ask} {}", refused.text);
        assert_eq!(field(&refused, "code"), "INVALID_ARGUMENT", "{ask} {}", refused.text);
        assert!(refused.text.contains(words), "{ask} {}", refused.text);
    }
    assert!(!yard.here("back").exists());
    let lost = yard.call("ssh_rsync_stats", json!({"rsync_id": uuid_of_nothing()})).await;
    assert_eq!(field(&lost, "code"), "RSYNC_NOT_FOUND", "{}", lost.text);
}

fn uuid_of_nothing() -> &'static str {
    "01890000-0000-7000-8000-000000000000"
}

#[tokio::test]
async fn an_rsync_that_breaks_gives_way_to_the_file_service() {
    let broken = "[ \"$1\" = --version ] && next \"$@\"; echo this is no rsync; exit 1";
    let Some(yard) = Yard::with_script(broken).await else { return };
    let source = yard.here("source");
    yard.make_tree(&source);
    let far = yard.make_there("far");
    let src = format!("{}/", source.display());
    let ask = json!({"src": src, "dst": "there:far", "opts": {"archive": true}});
    let started = yard.start(ask).await;
    let id = field(&started, "rsync_id");
    let stats = yard.ended(&id).await;
    assert_eq!(
        (&stats["session_status"], &stats["transport"]),
        (&json!("completed"), &json!("sftp")),
        "{stats}"
    );
    let stats = yard.call("ssh_rsync_stats", json!({"rsync_id": id})).await;
    assert!(stats.text.contains("WARN: WIRE_FALLBACK"), "{}", stats.text);
    assert!(stats.text.contains("this is no rsync"), "{}", stats.text);
    assert_same(&source, &far);

    let ask = json!({"src": src, "dst": "there:far", "transport": "wire", "opts": {"archive": true}});
    let refused = yard.call("ssh_rsync", ask).await;
    assert_eq!(field(&refused, "code"), "RSYNC_PROTOCOL_ERROR", "{}", refused.text);
    assert!(refused.text.contains("this is no rsync"), "{}", refused.text);
}

#[tokio::test]
async fn an_rsync_that_is_too_old_or_of_another_kind_is_not_spoken_to() {
    let versions = ["openrsync: protocol version 29\\n", "rsync  version 3.1.3  protocol version 31\\n"];
    for version in versions {
        let other = format!("[ \"$1\" = --version ] && printf '{version}' && exit; echo started >&2; exit 9");
        let Some(yard) = Yard::with_script(&other).await else { return };
        let source = yard.here("source");
        yard.make_tree(&source);
        let far = yard.make_there("far");
        let src = format!("{}/", source.display());
        let wire = json!({"src": src, "dst": "there:far", "transport": "wire", "opts": {"archive": true}});
        let refused = yard.call("ssh_rsync", wire).await;
        assert_eq!(field(&refused, "code"), "RSYNC_VERSION_TOO_OLD", "{}", refused.text);
        assert_eq!(fs::read_dir(&far).unwrap().count(), 0);

        let started = yard.start(json!({"src": src, "dst": "there:far", "opts": {"archive": true}})).await;
        let stats = yard.ended(&field(&started, "rsync_id")).await;
        assert_eq!(
            (&stats["session_status"], &stats["transport"]),
            (&json!("completed"), &json!("sftp")),
            "{stats}"
        );
        assert_same(&source, &far);
    }
}

#[tokio::test]
async fn what_the_session_compresses_rsync_does_not() {
    let telling = "echo \"$*\" >>\"$HOME/told\"; next \"$@\"";
    let Some(yard) = Yard::with_script(telling).await else { return };
    let source = yard.here("source");
    yard.make_tree(&source);
    let mut plain = login(&yard.stage.server, User::Tester, ClientKey::Ed25519);
    plain["compress"] = false.into();
    plain["reuse"] = "force_new".into();
    let mut compressed = plain.clone();
    compressed["compress"] = true.into();
    for (login, folder) in [(plain, "plain"), (compressed, "compressed")] {
        let connected = yard.stage.client.call("ssh_connect", login).await;
        assert!(!connected.is_error, "{}", connected.text);
        assert_eq!(connected.structured["compression_enabled"], folder == "compressed", "{}", connected.text);
        let far = yard.make_there(folder);
        let ask = json!({"session_id": field(&connected, "session_id"), "src": format!("{}/", source.display()),
            "dst": format!("there:{folder}"), "opts": {"archive": true, "compress": true}});
        let started = yard.stage.client.call("ssh_rsync", ask).await;
        assert!(!started.is_error, "{}", started.text);
        let stats = yard.ended(&field(&started, "rsync_id")).await;
        assert_eq!(stats["session_status"], "completed", "{stats}");
        assert_same(&source, &far);
        let told = fs::read_to_string(yard.there.join("told")).unwrap();
        let server = told.lines().rfind(|line| line.starts_with("--server")).unwrap();
        let letters =
            server.split(' ').find(|word| word.starts_with('-') && !word.starts_with("--")).unwrap();
        let (letters, _capabilities) = letters.split_once('e').unwrap();
        assert_eq!(letters.contains('z'), folder == "plain", "{server}");
    }
}

const UPDATED: &str = "notifications/resources/updated";

#[tokio::test]
async fn the_events_of_a_sync_are_pushed_in_both_eras() {
    for era in Era::BOTH {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let Some(rsync) = Rsync::copied_or_skip(folder.path()) else { return };
        let yard = Yard::set_in(era, rsync.for_sshd(), folder, Some(rsync)).await;
        let Some(yard) = yard else { return };
        let far = yard.make_there("far");
        fs::File::create(far.join("large")).unwrap().set_len(1 << 30).unwrap();
        let ask = json!({"src": "there:far/", "dst": yard.here("back"), "opts": {"archive": true}});
        let id = field(&yard.start(ask).await, "rsync_id");
        let uri = format!("rsync://{id}/progress");
        let client = &yard.stage.client;
        match era == Era::MODERN {
            true => {
                let filter = json!({"notifications": {"resourceSubscriptions": [uri]}});
                client.begin("subscriptions/listen", filter).await;
            }
            false => _ = client.request("resources/subscribe", json!({"uri": uri})).await.unwrap(),
        }
        let told = |notes: &[Value]| {
            notes.iter().filter(|note| note["method"] == UPDATED && note["params"]["uri"] == uri).count()
        };
        let mut heard = 0;
        let body = loop {
            heard = client.hear(|notes| Some(told(notes)).filter(|told| *told > heard)).await;
            let body = yard.body(&id).await;
            if body["status"] != "running" {
                break body;
            }
        };
        assert_eq!(body["status"], "completed", "{body}");
        assert!(heard > 1, "told {heard} times");
        assert_eq!(fs::metadata(yard.here("back/large")).unwrap().len(), 1 << 30);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_nobody_watches_any_more_ends_if_it_was_told_so() {
    let Some(yard) = Yard::with_rsync().await else { return };
    let far = yard.make_there("far");
    fs::File::create(far.join("large")).unwrap().set_len(3 << 30).unwrap();
    let back = yard.here("back");
    let started = yard
        .start(json!({"src": "there:far/", "dst": back, "release_when_no_subs": true,
            "opts": {"archive": true, "bwlimit_kbps": 4096}}))
        .await;
    let id = field(&started, "rsync_id");
    let uri = format!("rsync://{id}/progress");
    let opened = yard.call("sub_open", json!({"uri": uri})).await;
    assert!(!opened.is_error, "{}", opened.text);
    while fs::read_dir(&back).map_or(0, Iterator::count) == 0 {
        yard.body(&id).await;
    }
    let closed = yard.call("sub_close", json!({"sub_id": opened.structured["sub_id"]})).await;
    assert!(!closed.is_error, "{}", closed.text);
    // Whoever reads watches, so its temporary file is looked at instead.
    let files = || fs::read_dir(&back).map_or(0, Iterator::count);
    let is_gone = tokio::task::block_in_place(|| wait_until(Duration::from_secs(30), || files() == 0));
    assert!(is_gone, "it goes on");
    // The file goes first, and its end is told a moment later.
    let stats = yard.ended(&id).await;
    assert_eq!(stats["session_status"], "cancelled", "{stats}");
}
