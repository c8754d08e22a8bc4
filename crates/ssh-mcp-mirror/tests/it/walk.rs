//! A walk between two directories of this machine, one of them behind OpenSSH's file service on pipes.

mod far;

use std::{
    collections::BTreeMap,
    fs,
    future::pending,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, chown, symlink},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use ssh_mcp_core::{
    port::{
        fs::{FsMount, RemoteFs},
        mirror::{Broken, BrokenKind, Devices, Done, FileFault, Job, News, NewsDesk, Options, Skip},
    },
    registry::Direction,
};
use ssh_mcp_mirror::walk::walk;
use ssh_mcp_testkit::files::Shelf;
use tempfile::TempDir;
use tokio::{sync::watch, time::Instant};

use crate::{
    servers::skip_aloud,
    snapshot::{self, Times, What, snapshot},
    tree::{Dice, Plot, is_root, random, set_time},
};
use far::{Changed, Changes, SftpServer};

const WAYS: [Direction; 2] = [Direction::Upload, Direction::Download];

/// What `archive` asks for.
const ARCHIVE: Options = Options {
    recursive: true,
    delete: false,
    dry_run: false,
    compress: false,
    partial: false,
    checksum: false,
    perms: true,
    mtime: true,
    owner: true,
    group: true,
    links: true,
    hard_links: false,
    sparse: false,
    devices: Devices::Implied,
};

fn job(direction: Direction, local: &Path, remote: &[u8], options: Options) -> Job {
    Job {
        direction,
        local: local.to_owned(),
        remote: remote.to_vec(),
        content: true,
        options,
        include: Vec::new(),
        exclude: Vec::new(),
        bwlimit: None,
        list_limit: 1_000_000,
        block_len: None,
    }
}

/// Writes a file with its directories, and gives it a time that depends on its length.
fn file(root: &Path, path: &[u8], content: &[u8]) {
    Plot(root).file(path, content);
    Plot(root).time(path, 1_000_000_000 + content.len() as i64, 0);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn noise(len: usize) -> Vec<u8> {
    Dice::new(0).bytes(len)
}

/// The names of all files, with those of temporary ones.
fn names(root: &Path) -> Vec<String> {
    snapshot(root).keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

/// What a walk keeps is equal: the file service has no nanoseconds, and links keep no time.
#[track_caller]
fn assert_same(expected: &Path, found: &Path) {
    let kept = |root| {
        let mut tree = snapshot(root);
        let links = tree.values_mut().filter(|node| matches!(node.kind, snapshot::Kind::Symlink(_)));
        links.for_each(|link| link.time = (0, 0));
        tree
    };
    let what = What { times: Times::Seconds, owners: false, groups: false, ..What::ALL };
    snapshot::assert_same(&kept(expected), &kept(found), what);
}

/// Two directories and a way from one to the other.
struct Sides {
    _folder: TempDir,
    server: SftpServer,
    source: PathBuf,
    target: PathBuf,
    job: Job,
}

impl Sides {
    fn new(way: Direction) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        // Others may look on where the server is somebody else.
        set_mode(folder.path(), 0o777);
        let (source, target) = (folder.path().join("source"), folder.path().join("target"));
        let (local, remote) = match way {
            Direction::Upload => (&source, &target),
            Direction::Download => (&target, &source),
        };
        let job = job(way, local, remote.as_os_str().as_bytes(), ARCHIVE);
        let server = SftpServer::find_or_skip(folder.path())?;
        Some(Self { _folder: folder, server, source, target, job })
    }

    fn folder(&self) -> &Path {
        self._folder.path()
    }

    async fn run(&self) -> (Result<Done, Broken>, Heard) {
        let (files, _child) = self.server.start().await;
        self.run_on(files).await
    }

    async fn run_on(&self, files: Arc<dyn RemoteFs>) -> (Result<Done, Broken>, Heard) {
        let heard = Arc::<Desk>::default();
        let result = walk(files, self.job.clone(), heard.clone(), Box::pin(pending())).await;
        (result, heard.take())
    }

    /// What must succeed without a failed file.
    #[track_caller]
    fn fine(result: (Result<Done, Broken>, Heard)) -> (Done, Heard) {
        let (done, heard) = result;
        assert_eq!(heard.failed, BTreeMap::new());
        (done.unwrap(), heard)
    }
}

/// What was told of a run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Heard {
    planned: Option<(u64, u64)>,
    started: usize,
    /// Bytes that crossed the line, and bytes that did not.
    completed: BTreeMap<String, (u64, u64)>,
    skipped: BTreeMap<String, Skip>,
    /// Whether they were planned as well.
    failed: BTreeMap<String, (FileFault, bool)>,
    /// Whether nothing was done.
    deleted: BTreeMap<String, bool>,
}

impl Heard {
    /// Every file that was planned has one end.
    #[track_caller]
    fn assert_sums(&self) {
        let failed = self.failed.values().filter(|(_, planned)| *planned).count();
        let ended = self.completed.len() + self.skipped.len() + failed;
        assert_eq!(self.planned.map(|(files, _)| files), Some(ended as u64), "{self:?}");
    }
}

#[derive(Default)]
struct Desk {
    heard: Mutex<Heard>,
    moved: watch::Sender<u64>,
}

impl Desk {
    fn take(&self) -> Heard {
        self.heard.lock().unwrap().clone()
    }
}

impl NewsDesk for Desk {
    fn tell(&self, news: News<'_>) {
        let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let mut heard = self.heard.lock().unwrap();
        let is_first = match news {
            News::Planned { files, bytes } => heard.planned.replace((files, bytes)).is_none(),
            News::Started { .. } => {
                heard.started += 1;
                heard.planned.is_some()
            }
            News::Moving { done, .. } => {
                self.moved.send_replace(done);
                true
            }
            News::Completed { path, transferred, skipped } => {
                heard.completed.insert(text(path), (transferred, skipped)).is_none()
            }
            News::Skipped { path, because, .. } => heard.skipped.insert(text(path), because).is_none(),
            News::Failed { path, fault, planned, .. } => {
                heard.failed.insert(text(path), (fault, planned));
                heard.planned.is_some()
            }
            News::Deleted { path, dry_run } => heard.deleted.insert(text(path), dry_run).is_none(),
        };
        assert!(is_first, "told twice, or too early: {news:?}");
    }
}

#[tokio::test]
async fn random_trees_become_equal_and_a_second_run_moves_nothing() {
    for way in WAYS {
        for seed in 0..6 {
            let Some(mut sides) = Sides::new(way) else { return };
            sides.job.options.delete = true;
            sides.job.options.partial = seed % 2 == 0;
            random(&sides.source, seed);
            if seed > 2 {
                // Something else is there before.
                random(&sides.target, seed + 100);
            }
            let (done, heard) = Sides::fine(sides.run().await);
            assert_eq!(done, Done::default());
            heard.assert_sums();
            assert_same(&sides.source, &sides.target);
            let (done, again) = Sides::fine(sides.run().await);
            assert_eq!((done, again.started, again.deleted.len()), (Done::default(), 0, 0));
            again.assert_sums();
            assert_eq!(again.planned, heard.planned);
            assert_same(&sides.source, &sides.target);
        }
    }
}

#[tokio::test]
async fn a_dry_run_leaves_both_sides_untouched() {
    for way in WAYS {
        for delete in [true, false] {
            let Some(mut sides) = Sides::new(way) else { return };
            sides.job.options = Options { delete, dry_run: true, partial: true, ..ARCHIVE };
            random(&sides.source, 11);
            let before = full_listing(sides.folder());
            // The target does not exist.
            let (_, heard) = Sides::fine(sides.run().await);
            heard.assert_sums();
            assert!(!heard.skipped.is_empty() && heard.started == 0);
            assert!(heard.skipped.values().all(|because| *because == Skip::DryRun));
            assert_eq!(full_listing(sides.folder()), before);
            // It has something else.
            random(&sides.target, 12);
            file(&sides.target, b"extra/deep/file", b"x");
            let before = full_listing(sides.folder());
            let (result, heard) = sides.run().await;
            result.unwrap();
            heard.assert_sums();
            assert_eq!(heard.deleted.get("extra/deep"), delete.then_some(&true));
            assert_eq!(full_listing(sides.folder()), before);
        }
    }
}

/// All that can be seen of files without opening them, but for times of access.
fn full_listing(root: &Path) -> Vec<(PathBuf, u64, u32, u64, i64, i64, i64)> {
    let mut all = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let is = fs::symlink_metadata(&path).unwrap();
        if is.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        all.push((path, is.ino(), is.mode(), is.size(), is.mtime(), is.mtime_nsec(), is.ctime_nsec()));
    }
    all.sort();
    all
}

#[tokio::test]
async fn what_is_filtered_is_neither_sent_nor_deleted() {
    for way in WAYS {
        for content in [true, false] {
            let Some(mut sides) = Sides::new(way) else { return };
            sides.job.content = content;
            sides.job.options.delete = true;
            sides.job.include = vec!["build/keep/*.txt".into()];
            sides.job.exclude = vec!["*.o".into(), "build/".into(), "/top".into()];
            for path in ["a.c", "a.o", "build/x", "build/keep/a.txt", "build/keep/b", "sub/top", "top"] {
                file(&sides.source, path.as_bytes(), path.as_bytes());
            }
            // Without a slash behind the source its name is part of all paths, but of no pattern.
            let target = if content { sides.target.clone() } else { sides.target.join("source") };
            for path in ["b.o", "b.c", "build/y", "build/keep/c.txt", "old/d.o", "old/d.c", "older/e.c"] {
                file(&target, path.as_bytes(), b"");
            }
            let (_, heard) = Sides::fine(sides.run().await);
            heard.assert_sums();
            let files = |names: Vec<String>| names.into_iter().filter(|name| target.join(name).is_file());
            let expected = ["a.c", "b.o", "build/keep/a.txt", "build/y", "old/d.o", "sub/top"]
                .map(str::to_owned)
                .to_vec();
            assert_eq!(files(names(&target)).collect::<Vec<_>>(), expected, "{way:?} {content}");
            assert!(!target.join("older").exists());
            let below = |name: &str| if content { name.to_owned() } else { format!("source/{name}") };
            let deleted = ["b.c", "build/keep/c.txt", "old/d.c", "older", "older/e.c"].map(below);
            assert_eq!(heard.deleted.keys().cloned().collect::<Vec<_>>(), deleted, "{way:?} {content}");
        }
    }
}

#[tokio::test]
async fn an_interrupted_file_is_continued_where_it_ended() {
    let content = noise(2_000_000);
    for way in WAYS {
        let Some(mut sides) = Sides::new(way) else { return };
        sides.job.options.partial = true;
        file(&sides.source, b"d/large", &content);
        file(&sides.source, b"d/small", b"small");
        file(&sides.target, b"d/.rsync-partial/large", &content[..1_200_000]);
        set_time(&sides.target.join("d/.rsync-partial/large"), 1_500_000_000, 0);
        let (_, heard) = Sides::fine(sides.run().await);
        assert_eq!(heard.completed["d/large"], (800_000, 1_200_000));
        assert_same(&sides.source, &sides.target);

        // One that is longer than the source, and one that is older than it.
        for (len, time) in [(2_000_001, 1_500_000_000), (1_200_000, 1_000_000_000)] {
            fs::remove_file(sides.target.join("d/large")).unwrap();
            file(&sides.target, b"d/.rsync-partial/large", &vec![1; len]);
            set_time(&sides.target.join("d/.rsync-partial/large"), time, 0);
            let (_, heard) = Sides::fine(sides.run().await);
            assert_eq!(heard.completed["d/large"], (2_000_000, 0));
            assert_same(&sides.source, &sides.target);
        }
    }
}

/// Runs slowly, and ends by `stop` once the first bytes have moved.
async fn stopped(sides: &Sides) -> (Result<Done, Broken>, Heard) {
    let (files, _child) = sides.server.start().await;
    let desk = Arc::<Desk>::default();
    let mut moved = desk.moved.subscribe();
    let stop = async move { _ = moved.wait_for(|bytes| *bytes > 0).await };
    let result = walk(files, sides.job.clone(), desk.clone(), Box::pin(stop)).await;
    (result, desk.take())
}

#[tokio::test]
async fn a_run_that_is_stopped_leaves_nothing_unfinished() {
    for way in WAYS {
        for partial in [false, true] {
            let Some(mut sides) = Sides::new(way) else { return };
            sides.job.options = Options { delete: true, partial, ..ARCHIVE };
            sides.job.bwlimit = Some(200);
            let content = noise(3_000_000);
            for name in ["one", "two", "three"] {
                file(&sides.source, name.as_bytes(), &content);
            }
            file(&sides.target, b"extra", b"");
            let (result, heard) = stopped(&sides).await;
            let broken = result.unwrap_err();
            assert_eq!((broken.kind, broken.touched), (BrokenKind::Stopped, true));
            assert_eq!(heard.deleted.len(), 0);
            let left = names(&sides.target);
            if !partial {
                assert_eq!(left, ["", "extra"], "{way:?}");
                continue;
            }
            // Their beginnings are there, and are used.
            let kept: Vec<_> = left.iter().filter(|name| name.starts_with(".rsync-partial/")).collect();
            assert_eq!(kept.len(), 3, "{way:?} {left:?}");
            sides.job.bwlimit = None;
            let (_, heard) = Sides::fine(sides.run().await);
            assert!(heard.completed.values().any(|(_, skipped)| *skipped > 0), "{way:?} {heard:?}");
            assert_same(&sides.source, &sides.target);
        }
    }
}

#[tokio::test]
async fn data_goes_no_faster_than_allowed() {
    for way in WAYS {
        let Some(mut sides) = Sides::new(way) else { return };
        (0..4).for_each(|at| file(&sides.source, format!("{at}").as_bytes(), &noise(15 * 1024)));
        sides.job.bwlimit = Some(100);
        let began = Instant::now();
        Sides::fine(sides.run().await);
        assert!(began.elapsed() >= Duration::from_millis(500), "{way:?} {:?}", began.elapsed());
        assert_same(&sides.source, &sides.target);
    }
}

#[tokio::test]
async fn a_service_that_ends_is_a_lost_connection() {
    for way in WAYS {
        let Some(mut sides) = Sides::new(way) else { return };
        sides.job.bwlimit = Some(200);
        file(&sides.source, b"large", &noise(3_000_000));
        let (files, child) = sides.server.start().await;
        let desk = Arc::<Desk>::default();
        let mut moved = desk.moved.subscribe();
        let killed = async {
            moved.wait_for(|bytes| *bytes > 0).await.unwrap();
            child.lock().unwrap().start_kill().unwrap();
        };
        let run = walk(files, sides.job.clone(), desk.clone(), Box::pin(pending()));
        let (result, ()) = tokio::join!(run, killed);
        assert_eq!(result.unwrap_err().kind, BrokenKind::Lost, "{way:?}");
        if way == Direction::Download {
            assert_eq!(names(&sides.target), [""]);
        }
    }
}

#[tokio::test]
async fn a_server_without_extensions_is_enough() {
    const NONE: &str = "posix-rename,statvfs,fstatvfs,hardlink,fsync,lsetstat,limits,expand-path,copy-data,\
                        home-directory,users-groups-by-id";
    for way in WAYS {
        let Some(mut sides) = Sides::new(way) else { return };
        sides.server.options = vec!["-P", NONE];
        sides.job.options.delete = true;
        random(&sides.source, 21);
        random(&sides.target, 22);
        Sides::fine(sides.run().await);
        assert_same(&sides.source, &sides.target);
    }
}

#[tokio::test]
async fn a_server_with_the_other_order_of_links_gets_links_too() {
    let Some(sides) = Sides::new(Direction::Upload) else { return };
    file(&sides.source, b"file", b"");
    symlink("file", sides.source.join("link")).unwrap();
    symlink("/nowhere/at/all", sides.source.join("other")).unwrap();
    let (files, _child) = sides.server.start().await;
    let files = Changed::new(files, Changes { swaps_links: true, ..Changes::default() });
    Sides::fine(sides.run_on(files).await);
    assert_same(&sides.source, &sides.target);
    assert_eq!(names(sides.folder()).len(), 9, "nothing is left of the probe: {:?}", names(sides.folder()));
}

#[tokio::test]
async fn what_sftp_or_its_server_cannot_is_refused_before_any_change() {
    let check = async |way, options: Options, server: Vec<&'static str>, expected: &str| {
        let Some(mut sides) = Sides::new(way) else { return };
        file(&sides.source, b"file", b"content");
        symlink("file", sides.source.join("link")).unwrap();
        sides.job.options = options;
        sides.server.options = server;
        let before = snapshot(sides.folder()).into_keys().collect::<Vec<_>>();
        let (result, heard) = sides.run().await;
        let broken = result.unwrap_err();
        assert_eq!((broken.kind, broken.touched), (BrokenKind::FeatureMissing, false), "{broken}");
        assert!(broken.detail.contains(expected), "{broken}");
        assert_eq!(heard, Heard::default());
        assert_eq!(snapshot(sides.folder()).into_keys().collect::<Vec<_>>(), before);
    };
    for way in WAYS {
        check(way, Options { hard_links: true, ..ARCHIVE }, vec![], "hard links").await;
        check(way, Options { checksum: true, ..ARCHIVE }, vec![], "checksums").await;
        check(way, Options { devices: Devices::Asked, ..ARCHIVE }, vec![], "devices").await;
    }
    check(Direction::Upload, ARCHIVE, vec!["-P", "symlink"], "symbolic links").await;
    check(Direction::Upload, ARCHIVE, vec!["-P", "fsetstat"], "permissions").await;
    let times = Options { perms: false, ..ARCHIVE };
    check(Direction::Upload, times, vec!["-P", "fsetstat"], "times").await;
}

#[tokio::test]
async fn what_the_server_cannot_matters_only_where_it_is_needed() {
    for way in WAYS {
        let Some(mut sides) = Sides::new(way) else { return };
        file(&sides.source, b"file", b"content");
        symlink("file", sides.source.join("link")).unwrap();
        sides.server.options = vec!["-P", "symlink,fsetstat,setstat"];
        sides.job.options = Options { perms: false, mtime: false, links: false, ..ARCHIVE };
        Sides::fine(sides.run().await);
        assert_eq!(names(&sides.target), ["", "file"]);
        // Nothing is tried out in a run that changes nothing.
        sides.job.options = Options { dry_run: true, ..ARCHIVE };
        let (_, heard) = Sides::fine(sides.run().await);
        heard.assert_sums();
    }
}

#[tokio::test]
async fn devices_that_are_only_implied_are_left_out_and_said() {
    for way in WAYS {
        let Some(sides) = Sides::new(way) else { return };
        file(&sides.source, b"file", b"content");
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, sides.source.join("pipe"), fifo, 0o644.into(), 0).unwrap();
        let (done, _) = Sides::fine(sides.run().await);
        assert_eq!(done.notes.len(), 1);
        assert!(done.notes[0].contains("pipes and sockets (1)"), "{:?}", done.notes);
        assert_eq!(names(&sides.target), ["", "file"]);
    }
}

#[tokio::test]
async fn an_unreadable_directory_of_the_source_deletes_nothing() {
    let Some(mut sides) = Sides::new(Direction::Download) else { return };
    file(&sides.source, b"shut/in", b"");
    file(&sides.source, b"file", b"");
    file(&sides.target, b"shut/kept", b"");
    file(&sides.target, b"kept", b"");
    set_mode(&sides.source.join("shut"), 0o000);
    sides.server.user = is_root().then_some(1000);
    sides.job.options.delete = true;
    let (result, heard) = sides.run().await;
    heard.assert_sums();
    assert_eq!(heard.failed, BTreeMap::from([("shut".to_owned(), (FileFault::PermissionDenied, false))]));
    assert_eq!(result.unwrap().delete_skipped.as_deref(), Some("the source could not be read completely"));
    [&sides.source, &sides.target].into_iter().for_each(|side| set_mode(&side.join("shut"), 0o700));
    assert_eq!(names(&sides.target), ["", "file", "kept", "shut", "shut/kept"]);
}

#[tokio::test]
async fn a_source_that_cannot_be_listed_completely_deletes_nothing_there() {
    let Some(mut sides) = Sides::new(Direction::Upload) else { return };
    file(&sides.source, b"file", b"");
    file(&sides.target, b"kept", b"");
    // Deeper than any path may be.
    let mut open = rustix::fs::open(&sides.source, rustix::fs::OFlags::DIRECTORY, 0o0.into()).unwrap();
    for _ in 0..17 {
        let name = "d".repeat(255);
        rustix::fs::mkdirat(&open, &name, 0o755.into()).unwrap();
        open = rustix::fs::openat(&open, &name, rustix::fs::OFlags::DIRECTORY, 0o0.into()).unwrap();
    }
    sides.job.options.delete = true;
    let (result, heard) = sides.run().await;
    heard.assert_sums();
    assert!(result.unwrap().delete_skipped.is_some());
    assert_eq!(heard.deleted, BTreeMap::new());
    assert!(sides.target.join("kept").exists() && sides.target.join("file").exists());
}

#[tokio::test]
async fn a_missing_source_or_parent_is_refused() {
    for way in WAYS {
        for content in [true, false] {
            let Some(mut sides) = Sides::new(way) else { return };
            sides.job.options.delete = true;
            sides.job.content = content;
            file(&sides.target, b"kept", b"");
            let (result, heard) = sides.run().await;
            assert_eq!(result.unwrap_err().kind, BrokenKind::Refused, "{way:?} {content}");
            assert_eq!((heard, names(&sides.target).len()), (Heard::default(), 2));

            file(&sides.source, b"file", b"");
            match way {
                Direction::Upload => sides.job.remote.extend_from_slice(b"/not/there"),
                Direction::Download => sides.job.local.push("not/there"),
            }
            let (result, _) = sides.run().await;
            assert_eq!(result.unwrap_err().kind, BrokenKind::Refused, "{way:?} {content}");
            assert_eq!(names(&sides.target), ["", "kept"]);
        }
    }
}

#[tokio::test]
async fn a_single_file_goes_into_a_directory_or_takes_a_name() {
    for way in WAYS {
        let Some(mut sides) = Sides::new(way) else { return };
        file(sides.folder(), b"source", b"content");
        sides.job.content = false;
        // A name that is free, the same again, the same with another content.
        Sides::fine(sides.run().await);
        assert_eq!(fs::read(&sides.target).unwrap(), b"content");
        let (_, heard) = Sides::fine(sides.run().await);
        assert_eq!(heard.skipped["source"], Skip::Mtime);
        fs::write(&sides.source, b"other").unwrap();
        Sides::fine(sides.run().await);
        assert_eq!(fs::read(&sides.target).unwrap(), b"other");
        // A directory.
        fs::remove_file(&sides.target).unwrap();
        fs::create_dir(&sides.target).unwrap();
        Sides::fine(sides.run().await);
        assert_eq!(fs::read(sides.target.join("source")).unwrap(), b"other");
        // One that is to be made.
        fs::remove_dir_all(&sides.target).unwrap();
        match way {
            Direction::Upload => sides.job.remote.push(b'/'),
            Direction::Download => sides.job.local.as_mut_os_string().push("/"),
        }
        Sides::fine(sides.run().await);
        assert_eq!(fs::read(sides.target.join("source")).unwrap(), b"other");
    }
}

#[tokio::test]
async fn relative_paths_start_at_the_login_directory() {
    for way in WAYS {
        for before in ["", "~/"] {
            let Some(mut sides) = Sides::new(way) else { return };
            file(&sides.source, b"file", b"content");
            let name = if way == Direction::Upload { "target" } else { "source" };
            sides.job.remote = format!("{before}{name}/").into_bytes();
            Sides::fine(sides.run().await);
            assert_same(&sides.source, &sides.target);
        }
    }
}

#[tokio::test]
async fn without_recursion_a_directory_is_only_itself() {
    for way in WAYS {
        let Some(mut sides) = Sides::new(way) else { return };
        file(&sides.source, b"file", b"content");
        set_mode(&sides.source, 0o750);
        sides.job.content = false;
        sides.job.options = Options { recursive: false, delete: true, ..ARCHIVE };
        file(&sides.target, b"source/kept", b"");
        Sides::fine(sides.run().await);
        assert_eq!(names(&sides.target), ["", "source", "source/kept"]);
        assert_eq!(fs::metadata(sides.target.join("source")).unwrap().permissions().mode() & 0o777, 0o750);
    }
}

#[tokio::test]
async fn what_is_in_the_way_gives_way() {
    for way in WAYS {
        let Some(mut sides) = Sides::new(way) else { return };
        file(&sides.source, b"file", b"content");
        file(&sides.source, b"dir/file", b"content");
        symlink("file", sides.source.join("link")).unwrap();
        file(&sides.target, b"file/full", b"");
        fs::create_dir(sides.target.join("link")).unwrap();
        symlink("..", sides.target.join("dir")).unwrap();
        // A directory that is full stays, unless what the source does not have is to go.
        let (result, heard) = sides.run().await;
        result.unwrap();
        heard.assert_sums();
        assert_eq!(
            heard.failed,
            BTreeMap::from([("file".to_owned(), (FileFault::IoError, true))]),
            "{way:?}"
        );
        assert!(sides.target.join("file/full").exists());
        assert!(!sides.folder().join("file").exists(), "a link led out of the tree");
        sides.job.options.delete = true;
        let (_, heard) = Sides::fine(sides.run().await);
        heard.assert_sums();
        assert_same(&sides.source, &sides.target);
    }
}

#[tokio::test]
async fn attributes_are_kept_only_where_that_is_asked() {
    for way in WAYS {
        let Some(mut sides) = Sides::new(way) else { return };
        sides.job.options = Options { perms: false, mtime: false, ..ARCHIVE };
        file(&sides.source, b"new", b"content");
        file(&sides.source, b"old", b"content");
        file(&sides.target, b"old", b"");
        set_mode(&sides.source.join("new"), 0o751);
        set_mode(&sides.source.join("old"), 0o751);
        set_mode(&sides.target.join("old"), 0o604);
        Sides::fine(sides.run().await);
        let is = |name: &str| fs::metadata(sides.target.join(name)).unwrap();
        assert_eq!(is("old").permissions().mode() & 0o777, 0o604);
        assert_eq!(is("new").permissions().mode() & 0o777 & !0o22, 0o751);
        assert!(is("new").mtime() > 1_500_000_000);
        // A mode that differs is set, though the data is up to date.
        sides.job.options = ARCHIVE;
        set_time(&sides.target.join("old"), 1_000_000_007, 0);
        let (_, heard) = Sides::fine(sides.run().await);
        assert_eq!(heard.skipped.get("old"), Some(&Skip::Mtime));
        assert_same(&sides.source, &sides.target);
    }
}

#[tokio::test]
async fn owners_are_set_by_a_privileged_receiver_and_let_be_by_another() {
    if !is_root() {
        skip_aloud("giving files away needs root");
        return;
    }
    for (way, owner) in WAYS.into_iter().flat_map(|way| [(way, true), (way, false)]) {
        let Some(mut sides) = Sides::new(way) else { return };
        sides.job.options.owner = owner;
        file(&sides.source, b"dir/file", b"content");
        file(&sides.source, b"dir/program", b"content");
        chown(sides.source.join("dir/program"), Some(1234), Some(4321)).unwrap();
        chown(sides.source.join("dir"), Some(1234), Some(4321)).unwrap();
        set_mode(&sides.source.join("dir/program"), if owner { 0o6755 } else { 0o755 });
        Sides::fine(sides.run().await);
        assert_same(&sides.source, &sides.target);
        let owned = ["dir", "dir/program", "dir/file"].map(|name| {
            let is = fs::metadata(sides.target.join(name)).unwrap();
            (is.uid(), is.gid())
        });
        let user = if owner { 1234 } else { 0 };
        assert_eq!(owned, [(user, 4321), (user, 4321), (0, 0)], "{way:?}");
    }
    let Some(mut sides) = Sides::new(Direction::Upload) else { return };
    sides.server.user = Some(1000);
    file(&sides.source, b"program", b"content");
    set_mode(&sides.source.join("program"), 0o4755);
    Sides::fine(sides.run().await);
    let is = fs::metadata(sides.target.join("program")).unwrap();
    assert_eq!((is.uid(), is.mode() & 0o7777), (1000, 0o755), "who runs it is not who it was given to");
}

#[tokio::test]
async fn a_list_that_is_too_long_ends_the_run() {
    for way in WAYS {
        for (source, target) in [(20, 0), (1, 20)] {
            let Some(mut sides) = Sides::new(way) else { return };
            (0..source).for_each(|at| file(&sides.source, format!("s{at}").as_bytes(), b""));
            (0..target).for_each(|at| file(&sides.target, format!("t{at}").as_bytes(), b""));
            sides.job.list_limit = 10;
            let (result, _) = sides.run().await;
            let is_listed = source > 10 || way == Direction::Upload;
            assert_eq!(result.err().map(|broken| broken.kind), is_listed.then_some(BrokenKind::ListTooLarge));
        }
    }
}

#[tokio::test]
async fn names_that_lead_elsewhere_end_the_run() {
    for way in WAYS {
        for name in [&b"../out"[..], b"/out", b"a/b", b"", b"nul\0", b".."] {
            let Some(sides) = Sides::new(way) else { return };
            file(&sides.source, b"file", b"");
            fs::create_dir(&sides.target).unwrap();
            let (files, _child) = sides.server.start().await;
            let files = Changed::new(files, Changes { lists: Some(name), ..Changes::default() });
            let (result, _) = sides.run_on(files).await;
            assert_eq!(result.unwrap_err().kind, BrokenKind::Protocol, "{way:?} {name:?}");
            assert_eq!(names(sides.folder()), ["", "source", "source/file", "target"]);
        }
    }
}

#[tokio::test]
async fn an_unreadable_file_fails_alone() {
    let Some(mut sides) = Sides::new(Direction::Download) else { return };
    sides.server.user = is_root().then_some(1000);
    file(&sides.source, b"shut", b"content");
    file(&sides.source, b"open", b"content");
    set_mode(&sides.source.join("shut"), 0o000);
    let (result, heard) = sides.run().await;
    result.unwrap();
    heard.assert_sums();
    assert_eq!(heard.failed, BTreeMap::from([("shut".to_owned(), (FileFault::PermissionDenied, true))]));
    assert_eq!(names(&sides.target), ["", "open"]);
}

/// A machine in memory, for what is a matter of time, and a job that uploads to it.
async fn shelf(local: &Path, changes: Changes) -> (Shelf, Arc<Changed>, Job) {
    let shelf = Shelf::new();
    let files = Changed::new(shelf.mount(far::idle_channel()).await.unwrap(), changes);
    let options = Options { recursive: true, ..Options::default() };
    let job = job(Direction::Upload, local, b"/home/new", options);
    (shelf, files, job)
}

#[tokio::test(start_paused = true)]
async fn a_small_new_file_costs_three_round_trips() {
    const FILES: usize = 160;
    const TRIP: Duration = Duration::from_secs(1);
    let here = tempfile::tempdir().unwrap();
    (0..FILES).for_each(|at| file(here.path(), format!("{at}").as_bytes(), b"content"));
    let (shelf, files, job) = shelf(here.path(), Changes { delay: TRIP, ..Changes::default() }).await;
    let began = Instant::now();
    let desk = Arc::<Desk>::default();
    walk(files, job, desk.clone(), Box::pin(pending())).await.unwrap();
    desk.take().assert_sums();
    assert_eq!(shelf.get("/home/new/7").as_deref(), Some(&b"content"[..]));
    // Sixteen at a time, and a few trips for the destination.
    assert!(began.elapsed() <= TRIP * (3 * FILES / 16 + 6) as u32, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_far_side_that_says_nothing_for_ten_minutes_is_given_up() {
    let here = tempfile::tempdir().unwrap();
    file(here.path(), b"file", b"content");
    let (shelf, files, job) = shelf(here.path(), Changes::default()).await;
    shelf.hold();
    let began = Instant::now();
    let result = walk(files, job, Arc::<Desk>::default(), Box::pin(pending())).await;
    assert_eq!(result.unwrap_err().kind, BrokenKind::Partial);
    assert!(began.elapsed() >= Duration::from_secs(600) && began.elapsed() < Duration::from_secs(640));
}
