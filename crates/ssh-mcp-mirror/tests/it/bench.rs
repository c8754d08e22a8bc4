//! Two folders, a run between them, and what is said of it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ssh_mcp_core::port::BoxFuture;
use ssh_mcp_core::port::mirror::{Broken, Devices, Done, FileFault, Job, News, NewsDesk, Options, Skip};
use ssh_mcp_core::port::ssh::Channel;
use ssh_mcp_core::registry::Direction;
use ssh_mcp_mirror::wire::{self, Plan};

use crate::again::{again, behind};
use crate::child::{Process, Setup};
use crate::servers::{Age, Server};
use crate::snapshot::{
    Kind, Snapshot, Times, What, assert_real_client_agrees, assert_same, real_client, snapshot,
};
use crate::tree::{Plot, Scratch};

/// Each server both ways.
pub(crate) fn runs(servers: Vec<Server>) -> impl Iterator<Item = (Server, Direction)> {
    let both = [Direction::Download, Direction::Upload];
    servers.into_iter().flat_map(move |server| both.map(|direction| (server.clone(), direction)))
}

/// Each server both ways, the newest as one of each age.
pub(crate) fn runs_of_all_ages(servers: Vec<Server>) -> impl Iterator<Item = (Server, Direction, Age)> {
    runs(servers).flat_map(|(server, direction)| {
        let ages = if server.name == "N" { Age::all().collect() } else { vec![Age::TODAY] };
        ages.into_iter().map(move |age| (server.clone(), direction, age))
    })
}

/// A folder on each side.
pub(crate) struct Bench {
    pub(crate) scratch: Scratch,
    /// Which of them is ours.
    pub(crate) direction: Direction,
    source: PathBuf,
    target: PathBuf,
}

impl Bench {
    /// Both are empty.
    pub(crate) fn new(direction: Direction) -> Self {
        Self::within(Scratch::new(), direction)
    }

    /// The same in a folder that is there.
    pub(crate) fn within(scratch: Scratch, direction: Direction) -> Self {
        let (source, target) = (scratch.folder("source"), scratch.folder("target"));
        Self { scratch, direction, source, target }
    }

    /// What is mirrored.
    pub(crate) fn source(&self) -> Plot<'_> {
        Plot(&self.source)
    }

    /// Where it goes.
    pub(crate) fn target(&self) -> Plot<'_> {
        Plot(&self.target)
    }

    /// A run of the source's content to the target, with letters of rsync.
    pub(crate) fn run(&self, server: &Server, letters: &str) -> Run {
        let (local, remote) = match self.direction {
            Direction::Upload => (&self.source, &self.target),
            Direction::Download => (&self.target, &self.source),
        };
        let job = Job {
            direction: self.direction,
            local: local.clone(),
            remote: remote.as_os_str().as_bytes().to_vec(),
            content: true,
            options: options(letters),
            include: Vec::new(),
            exclude: Vec::new(),
            bwlimit: None,
            list_limit: 1_000_000,
            block_len: None,
        };
        let setup = Setup { home: self.scratch.path().to_owned(), ..Setup::new(server) };
        Run {
            setup,
            plan: Plan::new(job).unwrap(),
            stop: Box::pin(std::future::pending()),
            on_news: Box::new(|_| {}),
        }
    }

    /// The trees are equal in what the letters keep, in our eyes and in those of the real client.
    #[track_caller]
    pub(crate) fn assert_mirrored(&self, letters: &str) {
        self.assert_mirrored_at(letters, Age::TODAY);
    }

    /// The same by a protocol that may know no more than seconds.
    #[track_caller]
    pub(crate) fn assert_mirrored_at(&self, letters: &str, age: Age) {
        let what = what(letters);
        let times = if what.times == Times::Exact { age.times() } else { what.times };
        assert_same(&snapshot(&self.source), &snapshot(&self.target), What { times, ..what });
        if let Some(client) = Server::newest_or_skip() {
            let kept: String = letters.chars().filter(|letter| !"nczS".contains(*letter)).collect();
            assert_real_client_agrees(&client, &kept, &self.source, &self.target);
        }
    }

    /// What the real client does with copies of both folders.
    pub(crate) fn reference(&self, client: &Server, letters: &str, options: &[&str]) -> Reference {
        let scratch = Scratch::new();
        let (source, target) = (scratch.copy(&self.source, "source"), scratch.copy(&self.target, "target"));
        let letters = format!("-i{letters}");
        let said = real_client(client, &[&[letters.as_str()], options].concat(), &source, &target);
        let mut reference = Reference { target: snapshot(&target), ..Reference::default() };
        for line in said.lines() {
            match line.split_once(' ') {
                Some(("*deleting", name)) => {
                    reference.deleted.insert(unescaped(name.trim_start().trim_end_matches('/')));
                }
                Some((item, name)) if item.starts_with(">f") || item.starts_with("<f") => {
                    reference.transferred.insert(unescaped(name));
                }
                Some(_) | None => {}
            }
        }
        reference
    }
}

/// Downloads a bench's source to its target by this test in another process, behind these words.
pub(crate) fn again_on(bench: &Bench, server: &Server, letters: &str, before: &[&str]) {
    // Others may not look where the test was built.
    let folder = Scratch::on_disk();
    let program = folder.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let [source, target] = [&bench.source, &bench.target].map(|path| path.to_str().unwrap());
    again(&program, &[letters, source, target], |command| with_rsync(server, behind(before, &command)));
}

/// A command for which this server is the newest.
pub(crate) fn with_rsync(server: &Server, mut command: Command) -> Command {
    command.env_remove("SSH_MCP_RSYNC").env_remove("SSH_MCP_SKIPS");
    if let Some(program) = &server.rsync.program {
        command.env("SSH_MCP_RSYNC", program);
    }
    command
}

/// The other side of [`again_on`].
pub(crate) async fn download_as_told(told: &[String]) {
    let [letters, source, target] = told else { panic!("told {told:?}") };
    let server = Server::newest_or_skip().expect("the test has it");
    let bench = Bench::new(Direction::Download);
    let run = bench
        .run(&server, letters)
        .with_job(|job| (job.local, job.remote) = (target.into(), source.clone().into_bytes()));
    run.go().await.assert_clean().await;
}

/// What the real client did.
#[derive(Debug, Default)]
pub(crate) struct Reference {
    /// The destination afterwards.
    pub(crate) target: Snapshot,
    /// Files whose data moved.
    pub(crate) transferred: BTreeSet<Vec<u8>>,
    /// What is gone.
    pub(crate) deleted: BTreeSet<Vec<u8>>,
}

/// A name as it is, of one the real client printed with `\#` and three octal digits for each byte it would not print.
fn unescaped(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.strip_prefix(b"#").and_then(|after| after.get(..3));
        let code = code.filter(|_| *first == b'\\').and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[4..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// The options of a job that rsync's letters stand for.
fn options(letters: &str) -> Options {
    let letters = letters.replace('a', "rlptgo") + if letters.contains('a') { "d" } else { "" };
    let has = |letter| letters.contains(letter);
    Options {
        recursive: has('r'),
        dry_run: has('n'),
        compress: has('z'),
        checksum: has('c'),
        perms: has('p'),
        mtime: has('t'),
        owner: has('o'),
        group: has('g'),
        links: has('l'),
        hard_links: has('H'),
        sparse: has('S'),
        devices: match (has('D'), has('d')) {
            (true, _) => Devices::Asked,
            (false, true) => Devices::Implied,
            (false, false) => Devices::No,
        },
        delete: false,
        partial: false,
    }
}

/// What the letters keep.
pub(crate) fn what(letters: &str) -> What {
    let has = |letter| letters.contains(letter) || (letters.contains('a') && "rlptgoD".contains(letter));
    What {
        modes: has('p'),
        times: if has('t') { Times::Exact } else { Times::Ignored },
        owners: has('o') && crate::tree::is_root(),
        links: has('l'),
        others: has('D'),
        groups: has('H'),
    }
}

/// A run that has not begun.
pub(crate) struct Run {
    pub(crate) setup: Setup,
    pub(crate) plan: Plan,
    pub(crate) stop: BoxFuture<'static, ()>,
    /// Told what is told.
    pub(crate) on_news: Box<dyn Fn(&News<'_>) + Send + Sync>,
}

impl Run {
    /// A run of another job.
    pub(crate) fn with_job(mut self, change: impl FnOnce(&mut Job)) -> Self {
        change(&mut self.plan.job);
        self.plan = Plan::new(self.plan.job).unwrap();
        self
    }

    /// A run of something in its own right, and not for its content.
    pub(crate) fn between(self, source: &Path, target: &Path) -> Self {
        self.with_job(|job| {
            let (local, far) = match job.direction {
                Direction::Upload => (source, target),
                Direction::Download => (target, source),
            };
            (job.local, job.remote, job.content) = (local.to_owned(), remote(far), false);
        })
    }

    /// With a server, and a client, of another age.
    pub(crate) fn of_age(mut self, age: Age) -> Self {
        self.plan.newest = age.protocol;
        self.setup.age = age;
        self
    }

    /// Runs to the end, with a server on this machine.
    pub(crate) async fn go(self) -> Outcome {
        let (channel, process) = self.setup.clone().open();
        let (result, told) = self.go_on(channel).await;
        Outcome { result, told, process }
    }

    /// Runs to the end on a channel.
    pub(crate) async fn go_on(self, channel: Channel) -> (Result<Done, Broken>, Told) {
        // Shown when the test fails.
        let direction = self.plan.job.direction;
        println!("{} {:?} {direction:?}", self.setup.server.name, self.setup.age);
        let desk = Arc::new(Desk { told: Mutex::default(), on_news: self.on_news });
        let news: Arc<dyn NewsDesk> = Arc::clone(&desk) as _;
        let run = wire::run(channel, self.plan, news, self.stop);
        let result = tokio::time::timeout(PATIENCE, run).await.expect("a run ends");
        let told = std::mem::take(&mut *desk.told.lock().unwrap());
        (result, told)
    }
}

/// What became of a run.
pub(crate) struct Outcome {
    pub(crate) result: Result<Done, Broken>,
    pub(crate) told: Told,
    pub(crate) process: Process,
}

impl Outcome {
    /// Nothing failed, nobody complained, and all is accounted for.
    pub(crate) async fn assert_clean(&self) {
        let done = self.assert_done().await;
        assert_eq!((done.delete_skipped.as_ref(), &done.notes[..]), (None, &[][..]));
        assert!(self.told.failed.is_empty(), "{:?}", self.told.failed);
        let status = self.process.ended().await;
        assert!(status.success(), "{status:?}");
        assert_eq!(self.process.stderr(), "");
        let bytes: u64 = self.told.completed.values().map(|(moved, kept)| moved + kept).sum();
        let bytes = bytes + self.told.skipped.values().map(|(bytes, _)| bytes).sum::<u64>();
        assert_eq!(self.told.planned.map(|(_, bytes)| bytes), Some(bytes));
    }

    /// It came to its end, also if files failed: all output is taken, and each planned file has become something.
    pub(crate) async fn assert_done(&self) -> &Done {
        let done = self.result.as_ref().unwrap_or_else(|broken| panic!("{broken:?}"));
        self.process.ended().await;
        assert!(self.process.is_drained(), "output is left");
        assert_eq!(self.told.complaints, Vec::<String>::new());
        let failed = self.told.failed.values().filter(|failed| failed.planned).count();
        let ended = self.told.completed.len() + self.told.skipped.len() + failed;
        assert_eq!(self.told.planned.map(|(files, _)| files), Some(ended as u64));
        done
    }

    /// Why it came to no end.
    pub(crate) async fn broken(&self) -> &Broken {
        let Err(broken) = &self.result else { panic!("it came to its end") };
        self.process.ended().await;
        broken
    }

    /// The files whose data moved.
    pub(crate) fn transferred(&self) -> BTreeSet<Vec<u8>> {
        self.told.completed.keys().cloned().collect()
    }
}

/// What was told, by path.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Files and bytes.
    pub(crate) planned: Option<(u64, u64)>,
    /// The bytes of each file under way, and how many are there.
    pub(crate) moving: BTreeMap<Vec<u8>, (u64, u64)>,
    /// Bytes that were sent, and that were there.
    pub(crate) completed: BTreeMap<Vec<u8>, (u64, u64)>,
    /// Bytes, and why.
    pub(crate) skipped: BTreeMap<Vec<u8>, (u64, Skip)>,
    pub(crate) failed: BTreeMap<Vec<u8>, Failed>,
    /// Each with whether nothing was done.
    pub(crate) deleted: BTreeMap<Vec<u8>, bool>,
    /// News that do not go together.
    complaints: Vec<String>,
}

/// A file that failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) fault: FileFault,
    pub(crate) detail: String,
    pub(crate) planned: bool,
}

struct Desk {
    told: Mutex<Told>,
    on_news: Box<dyn Fn(&News<'_>) + Send + Sync>,
}

impl NewsDesk for Desk {
    fn tell(&self, news: News<'_>) {
        (self.on_news)(&news);
        self.told.lock().unwrap().add(&news);
    }
}

impl Told {
    fn add(&mut self, news: &News<'_>) {
        if !self.is_in_order(news) {
            self.complaints.push(format!("{news:?}"));
        }
        match *news {
            News::Planned { files, bytes } => self.planned = Some((files, bytes)),
            News::Started { path, total } => drop(self.moving.insert(path.to_vec(), (total, 0))),
            News::Moving { path, done, total } => drop(self.moving.insert(path.to_vec(), (total, done))),
            News::Completed { path, transferred, skipped } => {
                self.completed.insert(path.to_vec(), (transferred, skipped));
            }
            News::Skipped { path, bytes, because } => {
                self.skipped.insert(path.to_vec(), (bytes, because));
            }
            News::Failed { path, fault, detail, planned } => {
                let failed = Failed { fault, detail: detail.to_owned(), planned };
                self.failed.insert(path.to_vec(), failed);
            }
            News::Deleted { path, dry_run } => drop(self.deleted.insert(path.to_vec(), dry_run)),
        }
    }

    /// The plan comes first and once, a file ends once, and what is under way grows up to its length.
    fn is_in_order(&self, news: &News<'_>) -> bool {
        let is_new = |path: &[u8]| {
            !self.completed.contains_key(path)
                && !self.skipped.contains_key(path)
                && !self.failed.contains_key(path)
        };
        let is_planned = self.planned.is_some();
        match *news {
            News::Planned { .. } => !is_planned,
            News::Started { path, .. } => is_planned && is_new(path),
            News::Moving { path, done, total } => {
                let before = self.moving.get(path);
                before.is_some_and(|(length, before)| *length == total && *before <= done) && done <= total
            }
            // A link to a file that is there needs no data.
            News::Completed { path, transferred, .. } => {
                is_planned && is_new(path) && (transferred == 0 || self.moving.contains_key(path))
            }
            News::Skipped { path, .. } => is_planned && is_new(path),
            // What a server says of a file it was sent comes when all is over.
            News::Failed { path, detail, planned, .. } => {
                (!planned || is_new(path)) && !detail.is_empty() && !detail.contains('\n')
            }
            News::Deleted { path, .. } => !self.deleted.contains_key(path) && !path.ends_with(b"/"),
        }
    }
}

/// Regular files of a tree.
pub(crate) fn files(tree: &Snapshot) -> BTreeSet<Vec<u8>> {
    let files = tree.iter().filter(|(_, node)| matches!(node.kind, Kind::File(..)));
    files.map(|(name, _)| name.clone()).collect()
}

/// The path as one of a job.
pub(crate) fn remote(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(200);
