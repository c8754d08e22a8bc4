//! Whole files over a real server, by the engine's rules: what arrives, what an interruption leaves, and what is refused.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ssh_mcp_core::kind::transfer::{Failure, Resume, hash_command, hash_of};
use ssh_mcp_core::port::BoxFuture;
use ssh_mcp_core::port::fs::RemoteFs;
use ssh_mcp_engine::transfer::claims::Claims;
use ssh_mcp_engine::transfer::file::{Ask, Destination, Download, Fault, Outcome, Refusal, Sides, Upload};
use ssh_mcp_engine::transfer::local::Local;
use ssh_mcp_engine::transfer::remote::{Range, Remote, RemoteHash, VerifyMethod};

use crate::openssh::{Bench, bytes, link, mount, pattern};
use crate::sshd::{ClientKey, User};

/// Hashes as a program on the far side would: both sides are this machine.
struct Program;

impl RemoteHash for Program {
    fn sha256(&self, path: &[u8], range: Range) -> BoxFuture<'static, Option<[u8; 32]>> {
        let len = match range {
            Range::First(len) => Some(len),
            Range::Whole(_) => None,
        };
        let line = std::str::from_utf8(path).ok().map(|path| hash_command(path, len));
        Box::pin(async move { hash_of(&Command::new("/bin/sh").args(["-c", &line?]).output().ok()?.stdout) })
    }
}

/// A host without such a program.
pub(crate) struct NoProgram;

impl RemoteHash for NoProgram {
    fn sha256(&self, _path: &[u8], _range: Range) -> BoxFuture<'static, Option<[u8; 32]>> {
        Box::pin(async { None })
    }
}

fn remote(files: &Arc<dyn RemoteFs>, hasher: Arc<dyn RemoteHash>) -> Sides {
    let there = Remote {
        files: Arc::clone(files),
        hasher,
        chunk: None,
        depth: None,
        patience: Duration::from_secs(60),
    };
    Sides {
        here: Local::unrestricted(),
        there,
        claims: Claims::new(Arc::default(), "host"),
        most_entries: 1000,
    }
}

/// The same with requests of this size, and so many of them.
fn flowing(sides: &Sides, chunk: u32, depth: usize) -> Sides {
    let there = Remote { chunk: Some(chunk), depth: Some(depth), ..sides.there.clone() };
    Sides { there, ..sides.clone() }
}

fn ask(local: &Path, remote: &Path) -> Ask {
    let (local, remote) = (local.to_owned(), bytes(remote).to_vec());
    Ask {
        local,
        remote,
        destination: Destination::Named,
        resume: Resume::No,
        verify: true,
        atomic: false,
        preserve: false,
    }
}

/// Goes all the way up; how many bytes moved.
async fn up(remote: &Sides, ask: Ask) -> Result<(Outcome, u64), Fault> {
    let mut moved = 0;
    let upload = Upload::prepare(remote, ask).await.unwrap();
    let outcome = upload.run(remote, |bytes| moved += bytes).await?;
    Ok((outcome, moved))
}

async fn down(remote: &Sides, ask: Ask) -> Result<(Outcome, u64), Fault> {
    let moved = Arc::<AtomicU64>::default();
    let counter = Arc::clone(&moved);
    let download = Download::prepare(remote, ask).await.unwrap();
    let count = move |bytes| _ = counter.fetch_add(bytes, Ordering::Relaxed);
    let outcome = download.run(remote, count).await?;
    Ok((outcome, moved.load(Ordering::Relaxed)))
}

async fn refused_up(remote: &Sides, ask: Ask) -> Refusal {
    Upload::prepare(remote, ask).await.err().expect("it is refused")
}

async fn refused_down(remote: &Sides, ask: Ask) -> Refusal {
    Download::prepare(remote, ask).await.err().expect("it is refused")
}

/// This side's own folder, and a file in it.
fn here(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("source");
    fs::write(&file, content).unwrap();
    (folder, file)
}

#[tokio::test]
async fn files_of_any_size_arrive_both_ways_and_are_verified() {
    let Some(bench) = Bench::start_or_skip().await else { return };
    for (hasher, method) in [
        (Arc::new(Program) as Arc<dyn RemoteHash>, VerifyMethod::Exec),
        (Arc::new(NoProgram), VerifyMethod::Sftp),
    ] {
        let remote = remote(&bench.files, hasher);
        for len in [0, 1, 255 * 1024, 255 * 1024 + 1, 3_000_000] {
            let content = pattern(len);
            let (folder, source) = here(&content);
            let there = bench.home.join("there");
            let (outcome, moved) = up(&remote, ask(&source, &there)).await.unwrap();
            assert_eq!((outcome.verified, moved), (Some(method), len as u64), "{len}");
            assert!(fs::read(&there).unwrap() == content, "{len}");
            let back = folder.path().join("back");
            let (outcome, moved) = down(&remote, ask(&back, &there)).await.unwrap();
            assert_eq!((outcome.verified, moved), (Some(method), len as u64), "{len}");
            assert!(fs::read(&back).unwrap() == content, "{len}");
            // A shorter one in its place leaves nothing of it.
            fs::write(&source, b"short").unwrap();
            up(&remote, ask(&source, &there)).await.unwrap();
            assert_eq!(fs::read(&there).unwrap(), b"short");
        }
    }
}

#[tokio::test]
async fn permissions_times_and_directories() {
    let Some(bench) = Bench::start_or_skip().await else { return };
    let remote = remote(&bench.files, Arc::new(Program));
    let (folder, source) = here(b"content");
    fs::set_permissions(&source, fs::Permissions::from_mode(0o4751)).unwrap();
    let then = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::options().write(true).open(&source).unwrap().set_modified(then).unwrap();

    // Below a directory under its own name; a new file has the source's bits less the umask, and never set-id.
    up(&remote, ask(&source, &bench.home)).await.unwrap();
    let there = bench.home.join("source");
    assert_eq!(fs::metadata(&there).unwrap().mode() & 0o7777, 0o751);
    let keeping = |ask: Ask| Ask { preserve: true, ..ask };
    up(&remote, keeping(ask(&source, &there))).await.unwrap();
    let kept = fs::metadata(&there).unwrap();
    assert_eq!((kept.mode() & 0o7777, kept.mtime()), (0o4751, 1_000_000_000));
    // What is there keeps its bits.
    fs::set_permissions(&there, fs::Permissions::from_mode(0o600)).unwrap();
    up(&remote, ask(&source, &there)).await.unwrap();
    assert_eq!(fs::metadata(&there).unwrap().mode() & 0o7777, 0o600);

    fs::set_permissions(&there, fs::Permissions::from_mode(0o640)).unwrap();
    let into = folder.path().join("into");
    fs::create_dir(&into).unwrap();
    down(&remote, keeping(ask(&into, &there))).await.unwrap();
    let got = fs::metadata(into.join("source")).unwrap();
    assert_eq!((got.mode() & 0o7777, got.mtime()), (0o640, fs::metadata(&there).unwrap().mtime()));
}

#[tokio::test]
async fn fifty_cuts_end_in_identical_files() {
    let Some(bench) = Bench::start_or_skip().await else { return };
    let content = pattern(4_000_000);
    let (folder, source) = here(&content);
    let (there, back) = (bench.home.join("there"), folder.path().join("back"));
    let mut files = Arc::clone(&bench.files);
    let mut session = None;
    let mut random = 12_345_u64;
    for cut in 0..50 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let remote = remote(&files, Arc::new(Program));
        let going_on = |ask: Ask| Ask { resume: Resume::Yes, ..ask };
        // Up for twenty-five cuts, then down; each tears the connection after some more bytes have moved.
        let far = 1 + (random >> 33) % 320_000;
        let moved = Arc::<AtomicU64>::default();
        let torn = Arc::new(tokio::sync::Notify::new());
        let (counter, ring) = (Arc::clone(&moved), Arc::clone(&torn));
        let count = move |bytes| {
            if counter.fetch_add(bytes, Ordering::Relaxed) + bytes >= far {
                ring.notify_one();
            }
        };
        let small = flowing(&remote, 10_000, 4);
        let run = async {
            if cut < 25 {
                let upload = Upload::prepare(&small, going_on(ask(&source, &there))).await.unwrap();
                upload.run(&small, count).await
            } else {
                let download = Download::prepare(&small, going_on(ask(&back, &there))).await.unwrap();
                download.run(&small, count).await
            }
        };
        tokio::select! {
            ended = run => assert!(ended.is_ok(), "{ended:?}"),
            () = torn.notified() => {}
        }
        if cut == 24 {
            up(&remote, going_on(ask(&source, &there))).await.unwrap();
            assert!(fs::read(&there).unwrap() == content);
        }
        if cut % 5 == 0 {
            bench.server.kill_connections();
            let again = link(&bench.server).await;
            files = mount(&*again).await.unwrap();
            session = Some(again);
        }
        let prefix = fs::read(if cut < 25 { &there } else { &back }).unwrap();
        assert!(content.starts_with(&prefix), "cut {cut}");
    }
    let remote = remote(&files, Arc::new(Program));
    let (outcome, _) = down(&remote, Ask { resume: Resume::Yes, ..ask(&back, &there) }).await.unwrap();
    assert!(outcome.verified.is_some() && fs::read(&back).unwrap() == content);
    // All there: nothing moves, and it is verified all the same.
    let (outcome, moved) = down(&remote, Ask { resume: Resume::Yes, ..ask(&back, &there) }).await.unwrap();
    assert_eq!((outcome.verified, moved), (Some(VerifyMethod::Exec), 0));
    drop(session);
}

#[tokio::test]
async fn what_cannot_be_continued_is_refused_and_untouched() {
    let Some(bench) = Bench::start_or_skip().await else { return };
    for hasher in [Arc::new(Program) as Arc<dyn RemoteHash>, Arc::new(NoProgram)] {
        let remote = remote(&bench.files, hasher);
        let going_on = |ask: Ask| Ask { resume: Resume::Yes, ..ask };
        let (_folder, source) = here(b"0123456789");
        let longer = bench.file(b"longer", b"0123456789abc");
        let other = bench.file(b"other", b"01234x");
        let equal = bench.file(b"equal", b"x123456789");
        for (there, held) in [(&other, 6), (&equal, 10)] {
            let before = fs::read(there).unwrap();
            let refusal = refused_up(&remote, going_on(ask(&source, there))).await;
            assert!(matches!(refusal, Refusal::ResumeMismatch(at) if at == held), "{refusal}");
            assert_eq!(fs::read(there).unwrap(), before);
        }
        assert!(matches!(refused_up(&remote, going_on(ask(&source, &longer))).await, Refusal::Overshoot(_)));
        // The same the other way round.
        let (_folder, mine) = here(b"01234x");
        let there = bench.file(b"there", b"0123456789");
        let refusal = refused_down(&remote, going_on(ask(&mine, &there))).await;
        assert!(matches!(refusal, Refusal::ResumeMismatch(6)), "{refusal}");
        assert_eq!(fs::read(&mine).unwrap(), b"01234x");
        assert!(matches!(refused_down(&remote, going_on(ask(&source, &other))).await, Refusal::Overshoot(_)));
    }
}

#[tokio::test]
async fn what_is_no_file_is_refused() {
    let Some(bench) = Bench::start_or_skip().await else { return };
    let remote = remote(&bench.files, Arc::new(Program));
    let (folder, source) = here(b"content");
    let missing = folder.path().join("missing");
    assert!(matches!(refused_up(&remote, ask(&missing, &bench.home)).await, Refusal::Local { .. }));
    assert!(matches!(refused_up(&remote, ask(folder.path(), &bench.home)).await, Refusal::LocalNotFile(_)));
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(matches!(refused_up(&remote, ask(&pipe, &bench.home)).await, Refusal::LocalNotFile(_)));
    let there = Path::new("/dev/null");
    assert!(matches!(refused_up(&remote, ask(&source, there)).await, Refusal::RemoteNotFile(_)));
    assert!(matches!(refused_down(&remote, ask(&missing, there)).await, Refusal::RemoteNotFile(_)));
    assert!(matches!(refused_down(&remote, ask(&missing, &bench.home)).await, Refusal::RemoteNotFile(_)));
    assert!(matches!(
        refused_down(&remote, ask(&pipe, &bench.file(b"f", b""))).await,
        Refusal::LocalNotFile(_)
    ));
    let gone = bench.home.join("gone");
    assert!(matches!(refused_down(&remote, ask(&missing, &gone)).await, Refusal::Remote { .. }));
    let nowhere = folder.path().join("no/such/folder/file");
    assert!(matches!(
        refused_down(&remote, ask(&nowhere, &bench.file(b"f", b"")),).await,
        Refusal::Local { .. }
    ));
    // A loop of links leads nowhere.
    let ring = bench.home.join("ring");
    symlink(&ring, &ring).unwrap();
    assert!(matches!(refused_down(&remote, ask(&missing, &ring)).await, Refusal::Remote { .. }));
}

#[tokio::test]
async fn failures_say_which_they_are() {
    let Some(bench) = Bench::start_or_skip().await else { return };
    let remote = remote(&bench.files, Arc::new(Program));
    let (_folder, source) = here(&pattern(10_000_000));
    let failure = async |there: &Path| up(&remote, ask(&source, there)).await.unwrap_err().failure;
    assert_eq!(failure(&bench.home.join("no/such/folder")).await, Failure::RemoteDirNotFound);
    let closed = bench.home.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    assert_eq!(failure(&closed.join("file")).await, Failure::PermissionDenied);

    // Small and read-only file systems, in the server's own namespace.
    let mounts = "mkdir /run/full /run/closed && mount -t tmpfs -o size=8m,mode=777 tmpfs /run/full && \
                  mount -t tmpfs -o ro,size=8m tmpfs /run/closed";
    let mut ssh = bench.server.client(User::Root, ClientKey::Ed25519);
    assert!(ssh.arg(mounts).status().unwrap().success());
    assert_eq!(failure(Path::new("/run/full/file")).await, Failure::DiskFull);
    assert_eq!(failure(Path::new("/run/closed/file")).await, Failure::ReadOnlyFs);
    // It fills up while the bytes come: the server only says that it failed.
    let (_folder, source) = here(&pattern(5_000_000));
    let small = flowing(&remote, 100_000, 1);
    let upload = Upload::prepare(&small, ask(&source, Path::new("/run/full/late"))).await.unwrap();
    let mut fill = Some(bench.server.client(User::Root, ClientKey::Ed25519));
    let fault = upload
        .run(&small, |_| {
            if let Some(mut fill) = fill.take() {
                let filled = fill.arg("head -c 7m /dev/zero >/run/full/other; rm -f /run/full/file").status();
                assert!(filled.unwrap().success());
            }
        })
        .await
        .unwrap_err();
    assert_eq!(fault.failure, Failure::DiskFull, "{fault}");
}

#[tokio::test]
async fn a_source_that_is_written_meanwhile_is_told() {
    let Some(bench) = Bench::start_or_skip().await else { return };
    let remote = remote(&bench.files, Arc::new(Program));
    for verify in [false, true] {
        let (_folder, source) = here(&pattern(1_000_000));
        let there = bench.home.join("there");
        let upload = Upload::prepare(&remote, Ask { verify, ..ask(&source, &there) }).await.unwrap();
        let mut grown = false;
        let ended = upload
            .run(&remote, |_| {
                if !std::mem::replace(&mut grown, true) {
                    fs::write(&source, b"another").unwrap();
                }
            })
            .await;
        match verify {
            false => assert!(ended.unwrap().source_changed),
            true => assert_eq!(ended.unwrap_err().failure, Failure::VerifyMismatch),
        }
    }
}

#[tokio::test]
async fn a_file_takes_another_s_place_at_once() {
    let Some(bench) = Bench::start_or_skip().await else { return };
    let remote = remote(&bench.files, Arc::new(Program));
    let content = pattern(2_000_000);
    let (folder, source) = here(&content);
    let there = bench.file(b"page.html", b"the old one");
    let part = bench.home.join(".page.html.ssh-mcp-part");
    let swapping = |ask: Ask| Ask { atomic: true, ..ask };

    // Given up half-way: the old one stands, and the half is there to be continued.
    let small = flowing(&remote, 10_000, 2);
    let upload = Upload::prepare(&small, swapping(ask(&source, &there))).await.unwrap();
    let torn = tokio::sync::Notify::new();
    tokio::select! {
        ended = upload.run(&small, |_| torn.notify_one()) => panic!("{ended:?}"),
        () = torn.notified() => {}
    }
    assert_eq!(fs::read(&there).unwrap(), b"the old one");
    let held = fs::metadata(&part).unwrap().len();
    assert!(held > 0);
    let going_on = Ask { resume: Resume::Yes, ..swapping(ask(&source, &there)) };
    let (outcome, moved) = up(&remote, going_on).await.unwrap();
    assert!(moved < content.len() as u64 && !outcome.not_atomic);
    assert!(fs::read(&there).unwrap() == content && !part.exists());

    let back = folder.path().join("back");
    fs::write(&back, b"the old one").unwrap();
    down(&remote, swapping(ask(&back, &there))).await.unwrap();
    assert!(fs::read(&back).unwrap() == content);
    assert!(!folder.path().join(".back.ssh-mcp-part").exists());
}
