//! Files up and down through the product, one and many, whole and in parts.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

fn with_files() -> Options {
    Options { extra: vec!["Subsystem sftp internal-sftp".into()], ..Options::default() }
}

/// A stage whose server has a file service, the home directory there, and a directory here.
struct Depot {
    stage: Stage,
    there: PathBuf,
    here: tempfile::TempDir,
}

impl Depot {
    async fn set(env: &[(&str, &str)]) -> Option<Self> {
        Self::set_with(with_files(), env).await
    }

    async fn set_with(options: Options, env: &[(&str, &str)]) -> Option<Self> {
        let stage = Stage::set_in(Era::LEGACY_2025_11, options, User::Tester, env).await?;
        let there = stage.server.home(User::Tester);
        Some(Self { stage, there, here: tempfile::tempdir().unwrap() })
    }

    fn here(&self, name: &str) -> PathBuf {
        self.here.path().join(name)
    }

    /// A directory on the far side that the user may write to.
    fn make_there(&self, name: &str) -> PathBuf {
        let path = self.there.join(name);
        fs::create_dir_all(&path).unwrap();
        self.give(&path);
        path
    }

    fn give(&self, path: &Path) {
        let owner = fs::metadata(&self.there).unwrap();
        chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }

    async fn call(&self, tool: &str, mut arguments: Value) -> ToolAnswer {
        arguments["session_id"] = self.stage.session.as_str().into();
        self.stage.client.call(tool, arguments).await
    }

    /// Starts a transfer that can be started.
    async fn start(&self, tool: &str, arguments: Value) -> ToolAnswer {
        let answer = self.call(tool, arguments).await;
        assert!(!answer.is_error, "{}", answer.text);
        answer
    }

    /// Starts a transfer and waits for its end.
    async fn transfer(&self, tool: &str, arguments: Value) -> ToolAnswer {
        let started = self.start(tool, arguments).await;
        self.ended(&field(&started, "transfer_id")).await
    }

    async fn ended(&self, id: &str) -> ToolAnswer {
        let wait = json!({"transfer_id": id, "wait": true, "wait_timeout_secs": 120});
        self.stage.client.call("ssh_transfer_progress", wait).await
    }

    /// The code with which a call is refused.
    async fn refused(&self, tool: &str, arguments: Value) -> String {
        let answer = self.call(tool, arguments).await;
        assert!(answer.is_error, "{}", answer.text);
        field(&answer, "code")
    }

    async fn body(&self, id: &str) -> Value {
        let uri = format!("transfer://{id}/progress");
        let contents = self.stage.client.read_resource(&uri).await.unwrap();
        serde_json::from_str(contents[0]["text"].as_str().unwrap()).unwrap()
    }
}

/// Bytes that are nowhere the same for long.
fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    next.flatten().take(len).collect()
}

fn completed(answer: &ToolAnswer) {
    assert_eq!(answer.structured["status"], "completed", "{}", answer.text);
}

/// Every path below a directory, with what is there: none of a directory.
fn tree(root: &Path) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            if path.is_dir() {
                found.push((name, None));
                open.push(path);
            } else {
                found.push((name, Some(fs::read(&path).unwrap())));
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_file_goes_up_and_comes_back_whole_and_says_how() {
    let Some(depot) = Depot::set(&[]).await else { return };
    let content = pattern(3_000_000);
    fs::write(depot.here("source"), &content).unwrap();
    let local = depot.here("source");
    let up = json!({"local_path": local, "remote_path": "there.bin", "verify": true});
    let started = depot.start("ssh_upload", up).await;
    let to = depot.there.join("there.bin");
    assert!(started.text.starts_with("SSH_UPLOAD: STARTED\nTRANSFER_ID: "), "{}", started.text);
    assert!(started.text.contains("SIZE: 2.9MB (3000000 bytes)"), "{}", started.text);
    assert_eq!(started.structured["to"], to.to_str().unwrap(), "{}", started.text);
    assert_eq!(
        (&started.structured["size_bytes"], &started.structured["resumed_from"]),
        (&json!(3_000_000), &json!(0))
    );
    let id = field(&started, "transfer_id");
    assert!(
        started.text.contains(&format!("NEXT: sub_wait(uris=[\"transfer://{id}/progress\"])")),
        "{}",
        started.text
    );
    let ended = depot.ended(&id).await;
    completed(&ended);
    assert!(ended.text.contains("PROGRESS: 100% (3000000/3000000 bytes)"), "{}", ended.text);
    assert_eq!(
        (&ended.structured["verified"], &ended.structured["verify_method"]),
        (&json!(true), &json!("exec"))
    );
    assert!(fs::read(&to).unwrap() == content);

    let body = depot.body(&id).await;
    assert_eq!(body["status"], "completed", "{body}");
    assert_eq!((&body["bytes_transferred"], &body["total_bytes"]), (&json!(3_000_000), &json!(3_000_000)));
    assert_eq!((&body["direction"], &body["verified"]), (&json!("upload"), &json!(true)));

    let down = json!({"remote_path": "~/there.bin", "local_path": depot.here("back"), "verify": true});
    completed(&depot.transfer("ssh_download", down).await);
    assert!(fs::read(depot.here("back")).unwrap() == content);
    // Below a directory under its own name.
    let down = json!({"remote_path": to, "local_path": depot.here.path()});
    completed(&depot.transfer("ssh_download", down).await);
    assert!(fs::read(depot.here("there.bin")).unwrap() == content);
}

#[tokio::test]
async fn what_has_arrived_is_not_sent_again() {
    let Some(depot) = Depot::set(&[]).await else { return };
    let content = pattern(1_000_000);
    fs::write(depot.here("source"), &content).unwrap();
    let there = depot.there.join("there");
    fs::write(&there, &content[..400_000]).unwrap();
    depot.give(&there);
    let ask =
        json!({"local_path": depot.here("source"), "remote_path": there, "resume": true, "verify": true});
    let started = depot.start("ssh_upload", ask.clone()).await;
    assert_eq!(started.structured["resumed_from"], 400_000, "{}", started.text);
    completed(&depot.ended(&field(&started, "transfer_id")).await);
    assert!(fs::read(&there).unwrap() == content);

    // All of it is there: it has ended when the answer comes.
    let started = depot.start("ssh_upload", ask.clone()).await;
    assert!(started.text.contains("ssh_transfer_progress("), "{}", started.text);
    let body = depot.body(&field(&started, "transfer_id")).await;
    assert_eq!(body["status"], "completed", "{body}");
    let bytes = ["bytes_transferred", "resumed_from", "total_bytes"].map(|name| body[name].as_u64());
    assert_eq!(bytes, [Some(1_000_000); 3]);

    let mut other = content.clone();
    other[10] ^= 1;
    fs::write(&there, &other[..400_000]).unwrap();
    assert_eq!(depot.refused("ssh_upload", ask.clone()).await, "RESUME_MISMATCH");
    assert!(fs::read(&there).unwrap() == other[..400_000]);
    fs::write(&there, pattern(1_000_001)).unwrap();
    assert_eq!(depot.refused("ssh_upload", ask).await, "RESUME_OVERSHOOT");
    let down = json!({"remote_path": there, "local_path": depot.here("source"), "resume": true});
    let started = depot.start("ssh_download", down).await;
    assert_eq!(started.structured["resumed_from"], 1_000_000, "{}", started.text);
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let Some(depot) = Depot::set(&[]).await else { return };
    let source = depot.here("source");
    fs::write(&source, "content").unwrap();
    for (tool, arguments, code) in [
        ("ssh_upload", json!({"local_path": depot.here("none"), "remote_path": "x"}), "LOCAL_FILE_ERROR"),
        ("ssh_upload", json!({"local_path": depot.here.path(), "remote_path": "x"}), "LOCAL_NOT_FILE"),
        ("ssh_upload", json!({"local_path": "/dev/null", "remote_path": "x"}), "LOCAL_NOT_FILE"),
        ("ssh_upload", json!({"remote_path": "x"}), "INVALID_ARGUMENT"),
        (
            "ssh_upload",
            json!({"local_path": source, "local_paths": [source], "remote_path": "x"}),
            "INVALID_ARGUMENT",
        ),
        ("ssh_upload", json!({"local_path": source, "remote_path": "/dev/null"}), "SFTP_ERROR"),
        ("ssh_upload", json!({"local_paths": [source, source], "remote_path": "no-dir"}), "SFTP_ERROR"),
        (
            "ssh_download",
            json!({"remote_path": "none", "local_path": depot.here("x")}),
            "REMOTE_METADATA_ERROR",
        ),
        ("ssh_download", json!({"remote_path": ".", "local_path": depot.here("x")}), "SFTP_ERROR"),
        ("ssh_download", json!({"remote_path": "/dev/null", "local_path": depot.here("x")}), "SFTP_ERROR"),
        (
            "ssh_download",
            json!({"remote_path": "/etc/passwd", "local_path": depot.here("no/dir")}),
            "LOCAL_FILE_ERROR",
        ),
    ] {
        assert_eq!(depot.refused(tool, arguments.clone()).await, code, "{tool} {arguments}");
    }
    // What only shows once it has begun is told by the transfer.
    let no_folder = json!({"local_path": source, "remote_path": "no/such/dir/x"});
    let ended = depot.transfer("ssh_upload", no_folder).await;
    assert_eq!(ended.structured["status"], "failed", "{}", ended.text);
    assert_eq!(ended.structured["error"]["code"], "REMOTE_DIR_NOT_FOUND");
    assert!(ended.text.contains("REASON: [REMOTE_DIR_NOT_FOUND] "), "{}", ended.text);
    let forbidden = json!({"local_path": source, "remote_path": "/etc/ssh-mcp-test"});
    let ended = depot.transfer("ssh_upload", forbidden).await;
    assert_eq!(ended.structured["error"]["code"], "PERMISSION_DENIED", "{}", ended.text);
    let unknown = json!({"transfer_id": depot.stage.session});
    let answer = depot.stage.client.call("ssh_transfer_progress", unknown).await;
    assert_eq!(field(&answer, "code"), "TRANSFER_NOT_FOUND");
}

#[tokio::test]
async fn a_server_without_files_says_so() {
    let Some(depot) = Depot::set_with(Options::default(), &[]).await else { return };
    fs::write(depot.here("source"), "content").unwrap();
    let ask = json!({"local_path": depot.here("source"), "remote_path": "x"});
    assert_eq!(depot.refused("ssh_upload", ask).await, "SFTP_OPEN_FAILED");
}

#[tokio::test]
async fn a_tree_goes_up_and_comes_back_with_every_name_and_mode() {
    let Some(depot) = Depot::set(&[]).await else { return };
    let root = depot.here("root");
    let odd = [
        b"plain".as_slice(),
        b"with space",
        b"-rf",
        b"it's \"quoted\" $HOME",
        b"two\nlines",
        b"not-utf8-\xff\xfe",
        &[b'n'; 255],
    ];
    for folder in ["", "a", "a/b", "empty", "z"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for (at, name) in odd.iter().enumerate() {
        for folder in ["", "a/b"] {
            let path = root.join(folder).join(std::ffi::OsStr::from_bytes(name));
            fs::write(&path, pattern(at * 100_000)).unwrap();
        }
    }
    fs::set_permissions(root.join("plain"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(root.join("z"), fs::Permissions::from_mode(0o550)).unwrap();
    // Loops and twins: entered once.
    symlink("..", root.join("a/up")).unwrap();
    symlink("plain", root.join("link")).unwrap();

    let up =
        json!({"local_path": root, "remote_path": "new/deeper/copy", "recursive": true, "preserve": true});
    let started = depot.start("ssh_upload", up).await;
    assert_eq!(started.structured["files"], 15, "{}", started.text);
    let ended = depot.ended(&field(&started, "transfer_id")).await;
    completed(&ended);
    assert_eq!(ended.structured["files"]["files_done"], 15, "{}", ended.text);
    let copy = depot.there.join("new/deeper/copy");
    let mut expected = tree_without_links(&root);
    expected.push((b"link".to_vec(), Some(pattern(0))));
    expected.sort();
    assert!(tree(&copy) == expected);
    assert_eq!(fs::metadata(copy.join("plain")).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(fs::metadata(copy.join("z")).unwrap().mode() & 0o7777, 0o550);
    assert_eq!(
        fs::metadata(copy.join("plain")).unwrap().mtime(),
        fs::metadata(root.join("plain")).unwrap().mtime()
    );

    let back = depot.here("back");
    fs::create_dir(&back).unwrap();
    let down = json!({"remote_path": copy, "local_path": back, "recursive": true, "preserve": true});
    completed(&depot.transfer("ssh_download", down).await);
    assert!(tree(&back.join("copy")) == expected);
    assert_eq!(fs::metadata(back.join("copy/z")).unwrap().mode() & 0o7777, 0o550);

    // Once more: what is complete is counted as done, and nothing moves.
    let again = json!({"remote_path": copy, "local_path": back, "recursive": true, "resume": true});
    let ended = depot.transfer("ssh_download", again).await;
    completed(&ended);
    let total = expected.iter().filter_map(|(_, content)| Some(content.as_ref()?.len() as u64)).sum::<u64>();
    assert_eq!(ended.structured["bytes_transferred"], total, "{}", ended.text);
}

fn tree_without_links(root: &Path) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let is_link = |name: &[u8]| name == b"link" || name.starts_with(b"a/up");
    let mut open = vec![PathBuf::new()];
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(root.join(&folder)).unwrap() {
            let name = folder.join(entry.unwrap().file_name());
            if is_link(name.as_os_str().as_bytes()) {
                continue;
            }
            let path = root.join(&name);
            let content = (!path.is_dir()).then(|| fs::read(&path).unwrap());
            if content.is_none() {
                open.push(name.clone());
            }
            found.push((name.as_os_str().as_bytes().to_vec(), content));
        }
    }
    found
}

#[tokio::test]
async fn two_thousand_small_files_both_ways() {
    let Some(depot) = Depot::set(&[]).await else { return };
    let root = depot.here("many");
    for folder in 0..20 {
        fs::create_dir_all(root.join(format!("{folder}"))).unwrap();
        for file in 0..100 {
            let content = pattern(4096 + folder * 100 + file);
            fs::write(root.join(format!("{folder}/{file}")), content).unwrap();
        }
    }
    let up = json!({"local_path": root, "remote_path": "many", "recursive": true});
    let ended = depot.transfer("ssh_upload", up).await;
    completed(&ended);
    assert_eq!(
        ended.structured["files"],
        json!({"files_total": 2000, "files_done": 2000, "files_failed": 0})
    );
    assert!(tree(&depot.there.join("many")) == tree(&root));
    let down = json!({"remote_path": "many", "local_path": depot.here("back"), "recursive": true});
    completed(&depot.transfer("ssh_download", down).await);
    assert!(tree(&depot.here("back")) == tree(&root));
}

#[tokio::test]
async fn what_fails_in_a_tree_is_told_and_the_rest_arrives() {
    let Some(depot) = Depot::set(&[]).await else { return };
    let root = depot.here("root");
    fs::create_dir_all(root.join("fine")).unwrap();
    fs::write(root.join("fine/one"), "one").unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(root.join("pipe")).status().unwrap();
    assert!(pipe.success());
    let up = json!({"local_path": root, "remote_path": "root", "recursive": true});
    let ended = depot.transfer("ssh_upload", up).await;
    assert_eq!(ended.structured["status"], "failed", "{}", ended.text);
    let files = &ended.structured["files"];
    assert_eq!((&files["files_done"], &files["files_failed"]), (&json!(1), &json!(2)), "{}", ended.text);
    let codes: Vec<&Value> = files["errors"].as_array().unwrap().iter().map(|error| &error["code"]).collect();
    assert_eq!(codes, [&json!("FILE_NOT_FOUND"), &json!("IO_ERROR")], "{}", ended.text);
    assert_eq!(fs::read(depot.there.join("root/fine/one")).unwrap(), b"one");

    // On the far side, what the user may not read.
    let secret = depot.there.join("root/fine/secret");
    fs::write(&secret, "root's").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let down = json!({"remote_path": "root", "local_path": depot.here("back"), "recursive": true});
    let ended = depot.transfer("ssh_download", down).await;
    assert_eq!(ended.structured["files"]["errors"][0]["code"], "PERMISSION_DENIED", "{}", ended.text);
    assert_eq!(fs::read(depot.here("back/fine/one")).unwrap(), b"one");
}

#[tokio::test]
async fn several_sources_go_into_one_directory() {
    let Some(depot) = Depot::set(&[]).await else { return };
    for name in ["one", "two"] {
        fs::write(depot.here(name), name).unwrap();
    }
    depot.make_there("into");
    let sources = [depot.here("one"), depot.here("two")];
    completed(&depot.transfer("ssh_upload", json!({"local_paths": sources, "remote_path": "into"})).await);
    assert_eq!(fs::read(depot.there.join("into/two")).unwrap(), b"two");
    let down = json!({"remote_paths": ["into/one", "into/two"], "local_path": depot.here("got/"), "recursive": true});
    completed(&depot.transfer("ssh_download", down).await);
    assert_eq!(fs::read(depot.here("got/one")).unwrap(), b"one");
}

/// A file large enough to be found under way.
fn large(depot: &Depot) -> PathBuf {
    sparse(depot, LARGE)
}

const LARGE: u64 = 1 << 30;

/// It costs no disk here, and all its bytes move.
fn sparse(depot: &Depot, len: u64) -> PathBuf {
    let path = depot.here("large");
    fs::File::create(&path).unwrap().set_len(len).unwrap();
    path
}

#[tokio::test]
async fn a_sparse_file_of_3_gib_arrives_whole_and_is_followed() {
    let Some(depot) = Depot::set(&[]).await else { return };
    let source = sparse(&depot, 3 << 30);
    let started = depot
        .start("ssh_upload", json!({"local_path": source, "remote_path": "large", "verify": true}))
        .await;
    let id = field(&started, "transfer_id");
    let uri = format!("transfer://{id}/progress");
    let mut last = 0;
    loop {
        let news = depot.stage.client.call("sub_wait", json!({"uris": [uri], "timeout_secs": 60})).await;
        assert!(!news.is_error, "{}", news.text);
        let delta = news.structured["items"][0]["delta"].as_str().unwrap();
        let body: Value = serde_json::from_str(delta).unwrap_or_else(|_| panic!("{}", news.text));
        let bytes = body["bytes_transferred"].as_u64().unwrap();
        assert!(bytes >= last, "{last} {body}");
        last = bytes;
        if body["status"] != "running" {
            assert_eq!(body["status"], "completed", "{body}");
            break;
        }
        if bytes > 0 {
            assert!(body["bytes_per_sec"].as_u64().unwrap() > 0, "{body}");
        }
    }
    assert_eq!(last, 3 << 30);
    assert_eq!(fs::metadata(depot.there.join("large")).unwrap().len(), 3 << 30);
}

#[tokio::test]
async fn a_transfer_that_is_cancelled_leaves_what_has_arrived() {
    let Some(depot) = Depot::set(&[]).await else { return };
    let source = large(&depot);
    let ask = json!({"local_path": source, "remote_path": "large"});
    let started = depot.start("ssh_upload", ask.clone()).await;
    let id = field(&started, "transfer_id");
    // The same destination is taken, from another transfer as well.
    assert_eq!(depot.refused("ssh_upload", ask).await, "INVALID_ARGUMENT");
    let uri = format!("transfer://{id}/progress");
    depot.stage.client.call("sub_wait", json!({"uris": [uri], "timeout_secs": 30})).await;
    let cancelled = depot.stage.client.call("ssh_transfer_cancel", json!({"transfer_id": id})).await;
    assert_eq!(cancelled.structured["status"], "cancelled", "{}", cancelled.text);
    assert_eq!(cancelled.structured["total_bytes"], LARGE);
    let again = depot.stage.client.call("ssh_transfer_cancel", json!({"transfer_id": id})).await;
    assert_eq!(again.structured["status"], "noop", "{}", again.text);
    let arrived = fs::metadata(depot.there.join("large")).unwrap().len();
    assert!(arrived < LARGE && arrived >= cancelled.structured["bytes_transferred"].as_u64().unwrap());

    // A disconnect takes what is under way with it.
    let started = depot.start("ssh_upload", json!({"local_path": source, "remote_path": "other"})).await;
    let gone = depot.call("ssh_disconnect", json!({})).await;
    assert_eq!(gone.structured["transfers_aborted"], 1, "{}", gone.text);
    let ended = depot.ended(&field(&started, "transfer_id")).await;
    assert_eq!(ended.structured["status"], "cancelled", "{}", ended.text);
}

#[tokio::test]
async fn a_connection_that_breaks_fails_the_transfer_and_the_next_goes_on_behind_it() {
    let Some(depot) = Depot::set(&[]).await else { return };
    let source = large(&depot);
    let started = depot.start("ssh_upload", json!({"local_path": source, "remote_path": "large"})).await;
    let id = field(&started, "transfer_id");
    let uri = format!("transfer://{id}/progress");
    depot.stage.client.call("sub_wait", json!({"uris": [uri], "timeout_secs": 30})).await;
    depot.stage.server.kill_connections();
    let ended = depot.ended(&id).await;
    assert_eq!(ended.structured["status"], "failed", "{}", ended.text);
    assert_eq!(ended.structured["error"]["code"], "CONNECTION_LOST", "{}", ended.text);

    let login = login(&depot.stage.server, User::Tester, ClientKey::Ed25519);
    let session = depot.stage.client.call("ssh_connect", login).await;
    let ask = json!({"session_id": field(&session, "session_id"), "local_path": source, "remote_path": "large",
        "resume": true});
    let started = depot.stage.client.call("ssh_upload", ask).await;
    assert!(started.structured["resumed_from"].as_u64().unwrap() > 0, "{}", started.text);
    completed(&depot.ended(&field(&started, "transfer_id")).await);
    assert_eq!(fs::metadata(depot.there.join("large")).unwrap().len(), LARGE);
}

#[tokio::test]
async fn transfers_share_one_channel_and_find_a_place_on_a_full_connection() {
    let mut options = with_files();
    options.extra.push("MaxSessions 2".into());
    let Some(depot) = Depot::set_with(options, &[]).await else { return };
    // Both places of the connection are taken.
    for _ in 0..2 {
        depot.stage.start(json!({"command": "sleep 600"})).await;
    }
    fs::write(depot.here("source"), "content").unwrap();
    for name in ["one", "two", "three"] {
        completed(
            &depot
                .transfer("ssh_upload", json!({"local_path": depot.here("source"), "remote_path": name}))
                .await,
        );
    }
    let said = "Starting session: subsystem 'sftp'";
    assert!(depot.stage.server.wait_for_log(said, Duration::from_secs(5)));
    let started = depot.stage.server.logs().iter().filter(|line| line.contains(said)).count();
    assert_eq!(started, 1);
}

#[tokio::test]
async fn the_limit_of_transfers_holds() {
    let Some(depot) = Depot::set(&[("SSH_MAX_TRANSFERS_PER_SESSION", "1")]).await else { return };
    let source = large(&depot);
    let started = depot.start("ssh_upload", json!({"local_path": source, "remote_path": "one"})).await;
    let second = depot.call("ssh_upload", json!({"local_path": source, "remote_path": "two"})).await;
    assert_eq!(field(&second, "code"), "MAX_TRANSFERS_EXCEEDED", "{}", second.text);
    let id = field(&started, "transfer_id");
    depot.stage.client.call("ssh_transfer_cancel", json!({"transfer_id": id})).await;
    // A run time that is over is a failure that can be continued.
    let ask = json!({"local_path": source, "remote_path": "two", "timeout_secs": 1});
    let ended = depot.transfer("ssh_upload", ask).await;
    assert_eq!(ended.structured["error"]["code"], "TIMEOUT", "{}", ended.text);
}

#[tokio::test]
async fn only_what_the_operator_opened_is_read_and_written() {
    let open = tempfile::tempdir().unwrap();
    let root = open.path().canonicalize().unwrap();
    let Some(depot) = Depot::set(&[("SSH_MCP_ALLOW_LOCAL_PATHS", root.to_str().unwrap())]).await else {
        return;
    };
    fs::write(root.join("fine"), "fine").unwrap();
    fs::create_dir(root.join("sub")).unwrap();
    fs::write(depot.here("secret"), "secret").unwrap();
    symlink(depot.here("secret"), root.join("link")).unwrap();
    symlink(depot.here.path(), root.join("door")).unwrap();
    for path in [
        depot.here("secret"),
        root.join("link"),
        root.join("door/secret"),
        root.join("..").join(depot.here.path().file_name().unwrap()).join("secret"),
        root.join("sub/../../etc/passwd"),
        depot.here("no-such-file"),
    ] {
        let up = json!({"local_path": path, "remote_path": "got"});
        assert_eq!(depot.refused("ssh_upload", up).await, "INVALID_ARGUMENT", "{}", path.display());
    }
    completed(
        &depot
            .transfer("ssh_upload", json!({"local_path": root.join("sub/../fine"), "remote_path": "got"}))
            .await,
    );
    for path in [depot.here("new"), root.join("door/new"), root.join("link"), root.join("sub/../../new")] {
        let down = json!({"remote_path": "got", "local_path": path});
        assert_eq!(depot.refused("ssh_download", down).await, "INVALID_ARGUMENT", "{}", path.display());
    }
    assert_eq!(fs::read(depot.here("secret")).unwrap(), b"secret");
    completed(
        &depot.transfer("ssh_download", json!({"remote_path": "got", "local_path": root.join("sub")})).await,
    );
    assert_eq!(fs::read(root.join("sub/got")).unwrap(), b"fine");
    // In a tree, what leads outside is one that fails.
    let up = json!({"local_path": root, "remote_path": "tree", "recursive": true});
    let ended = depot.transfer("ssh_upload", up).await;
    assert_eq!(ended.structured["files"]["files_failed"], 2, "{}", ended.text);
    assert!(!depot.there.join("tree/link").exists() && !depot.there.join("tree/door").exists());
    assert_eq!(fs::read(depot.there.join("tree/fine")).unwrap(), b"fine");
}

#[tokio::test]
async fn a_destination_is_replaced_at_once_or_not_at_all() {
    let Some(depot) = Depot::set(&[]).await else { return };
    let folder = depot.make_there("web");
    let page = folder.join("page");
    fs::write(&page, "old").unwrap();
    depot.give(&page);
    let source = large(&depot);
    let ask = json!({"local_path": source, "remote_path": page, "atomic": true, "resume": true});
    let started = depot.start("ssh_upload", ask.clone()).await;
    let id = field(&started, "transfer_id");
    let uri = format!("transfer://{id}/progress");
    depot.stage.client.call("sub_wait", json!({"uris": [uri], "timeout_secs": 30})).await;
    depot.stage.client.call("ssh_transfer_cancel", json!({"transfer_id": id})).await;
    assert_eq!(fs::read(&page).unwrap(), b"old");
    let started = depot.start("ssh_upload", ask).await;
    assert!(started.structured["resumed_from"].as_u64().unwrap() > 0, "{}", started.text);
    completed(&depot.ended(&field(&started, "transfer_id")).await);
    assert_eq!(fs::metadata(&page).unwrap().len(), LARGE);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no half is left");
}

const UPDATED: &str = "notifications/resources/updated";

#[tokio::test]
async fn progress_is_pushed_in_both_eras_and_a_late_subscriber_hears_of_the_end_once() {
    for era in Era::BOTH {
        let Some(stage) = Stage::set_in(era, with_files(), User::Tester, &[]).await else { return };
        let there = stage.server.home(User::Tester);
        let depot = Depot { stage, there, here: tempfile::tempdir().unwrap() };
        let source = large(&depot);
        let started = depot.start("ssh_upload", json!({"local_path": source, "remote_path": "large"})).await;
        let id = field(&started, "transfer_id");
        let uri = format!("transfer://{id}/progress");
        let client = &depot.stage.client;
        let subscribe = async |uri: &str| match era == Era::MODERN {
            true => {
                let filter = json!({"notifications": {"resourceSubscriptions": [uri]}});
                client.begin("subscriptions/listen", filter).await;
            }
            false => _ = client.request("resources/subscribe", json!({"uri": uri})).await.unwrap(),
        };
        let told = |notes: &[Value], uri: &str| {
            notes.iter().filter(|note| note["method"] == UPDATED && note["params"]["uri"] == uri).count()
        };
        subscribe(&uri).await;
        let mut last = 0;
        let mut heard = 0;
        loop {
            heard = client.hear(|notes| Some(told(notes, &uri)).filter(|told| *told > heard)).await;
            let body = depot.body(&id).await;
            let bytes = body["bytes_transferred"].as_u64().unwrap();
            assert!(bytes >= last, "{last} {body}");
            last = bytes;
            if body["status"] != "running" {
                assert_eq!((&body["status"], bytes), (&json!("completed"), LARGE), "{body}");
                break;
            }
        }
        assert!(heard > 2, "told {heard} times");

        // By another spelling, so that what it is told is its own.
        let late = format!("{uri}?lane=late");
        let opened = client.call("sub_open", json!({"uri": late})).await;
        assert!(!opened.is_error, "{}", opened.text);
        client.hear(|notes| Some(told(notes, &late)).filter(|told| *told == 1)).await;
        let lanes = async || client.call("sub_list", json!({})).await.structured["subs_total"].clone();
        assert!(lanes().await.is_u64());
        // What else was to come stands before this answer.
        assert_eq!(told(&client.notifications(), &late), 1);
    }
}
