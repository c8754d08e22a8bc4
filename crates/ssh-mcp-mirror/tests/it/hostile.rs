//! Cases 75 to 90: a server that means harm. However it goes about it, a run ends, says why in one line, and has touched
//! nothing but its destination.

mod download;
mod endings;
mod listing;
mod memory;
mod server;
mod sweeps;
mod upload;
mod words;

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ssh_mcp_core::port::BoxFuture;
use ssh_mcp_core::port::mirror::{Broken, BrokenKind, Devices, Done, Job, News, NewsDesk, Options};
use ssh_mcp_core::registry::Direction;
use ssh_mcp_mirror::wire::{self, Plan};

use crate::snapshot::{Kind, Snapshot, snapshot};
use crate::tree::{Plot, Scratch};
use server::{Heard, Script};

/// A folder to be mirrored to or from, and beside it what nobody may touch.
struct Ground {
    scratch: Scratch,
    direction: Direction,
    here: PathBuf,
    before: Snapshot,
    /// What is emptied when data begins to come.
    emptied: Option<PathBuf>,
}

impl Ground {
    /// With links that lead out of the folder.
    fn new(direction: Direction) -> Self {
        let scratch = Scratch::new();
        let (here, bait) = (scratch.folder("here"), scratch.folder("bait"));
        Plot(&bait).file("secret", SECRET);
        Plot(&bait).file("inner/secret", SECRET);
        Plot(&here).link("out", "../bait");
        Plot(&here).link("secret", "../bait/secret");
        let before = snapshot(scratch.path());
        Self { scratch, direction, here, before, emptied: None }
    }

    /// To be downloaded into.
    fn download() -> Self {
        Self::new(Direction::Download)
    }

    /// With two files to be uploaded: `new`, and `old`, of which the server may say that it has something.
    fn upload() -> Self {
        let mut ground = Self::new(Direction::Upload);
        ground.here().file("new", "what is new");
        ground.here().file("old", "x".repeat(2000));
        ground.here().directory("sub");
        ground.before = snapshot(ground.scratch.path());
        ground
    }

    fn here(&self) -> Plot<'_> {
        Plot(&self.here)
    }

    /// The job `-rlt` of the folder's content.
    fn job(&self) -> Job {
        Job {
            direction: self.direction,
            local: self.here.clone(),
            remote: b"/far".to_vec(),
            content: true,
            options: Options {
                recursive: true,
                mtime: true,
                links: true,
                devices: Devices::No,
                ..Options::default()
            },
            include: Vec::new(),
            exclude: Vec::new(),
            bwlimit: None,
            list_limit: 1000,
            block_len: None,
        }
    }

    /// A run of the usual job.
    async fn meets(&self, script: Script) -> Encounter {
        self.meets_with(self.job(), script).await
    }

    /// A run of another job.
    async fn meets_with(&self, job: Job, script: Script) -> Encounter {
        self.meets_until(job, script, |_| Box::pin(std::future::pending())).await
    }

    /// A run that may be stopped. However it ends, that is soon, and it leaves everything outside the folder alone.
    async fn meets_until(
        &self,
        job: Job,
        script: Script,
        stop: impl FnOnce(&Heard) -> BoxFuture<'static, ()>,
    ) -> Encounter {
        let (channel, heard) = script.open();
        let desk = Arc::new(Desk { emptied: self.emptied.clone(), ..Desk::default() });
        let run = wire::run(channel, Plan::new(job).unwrap(), Arc::clone(&desk) as _, stop(&heard));
        let result = tokio::time::timeout(PATIENCE, run).await.expect("a run ends");
        self.assert_contained();
        let told = std::mem::take(&mut *desk.told.lock().unwrap());
        Encounter { result, told, heard }
    }

    /// Nothing has changed but in the folder, and there is nothing half done in it.
    #[track_caller]
    fn assert_contained(&self) {
        let outside = |tree: &Snapshot| -> Snapshot {
            let outside = tree.iter().filter(|(name, _)| !name.starts_with(b"here"));
            outside.map(|(name, node)| (name.clone(), node.clone())).collect()
        };
        let now = snapshot(self.scratch.path());
        assert_eq!(outside(&now), outside(&self.before));
        let left: Vec<_> = now.keys().filter(|name| name.ends_with(b".ssh-mcp")).collect();
        assert!(left.is_empty(), "temporary files are left: {left:?}");
    }

    /// Nothing at all has changed.
    #[track_caller]
    fn assert_untouched(&self) {
        assert_eq!(snapshot(self.scratch.path()), self.before);
    }

    /// The content of a file of the folder; none if there is no file of its own.
    fn content(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.here().at(name);
        fs::symlink_metadata(&path).is_ok_and(|facts| facts.is_file()).then(|| fs::read(path).unwrap())
    }

    /// What is in the folder under a name.
    fn kind(&self, name: &str) -> Option<Kind> {
        snapshot(&self.here).remove(name.as_bytes()).map(|node| node.kind)
    }
}

/// What became of a run.
struct Encounter {
    result: Result<Done, Broken>,
    told: Vec<String>,
    heard: Heard,
}

impl Encounter {
    /// It came to no end, for a reason in which these words occur.
    #[track_caller]
    fn assert_broken(&self, kind: BrokenKind, words: &str) {
        let broken = self.result.as_ref().expect_err("the server is found out");
        assert_eq!(broken.kind, kind, "{broken:?}");
        let detail = &broken.detail;
        assert!(detail.contains(words), "{detail:?} does not say {words:?}");
        assert!(!detail.contains(char::is_control) && detail.len() < LINE, "{detail:?} is not one line");
        assert!(!self.told.iter().any(|told| told.contains(char::is_control)), "{:?}", self.told);
    }

    /// The server said what no server says.
    #[track_caller]
    fn assert_refused(&self, words: &str) {
        self.assert_broken(BrokenKind::Protocol, words);
    }

    #[track_caller]
    fn assert_done(&self) {
        assert_eq!(self.result, Ok(Done::default()), "{:?}", self.told);
        assert!(!self.told.iter().any(|told| told.starts_with("Failed")), "{:?}", self.told);
    }
}

/// Notes what is told, a line each.
#[derive(Default)]
struct Desk {
    told: Mutex<Vec<String>>,
    emptied: Option<PathBuf>,
}

impl NewsDesk for Desk {
    fn tell(&self, news: News<'_>) {
        if let (News::Started { .. }, Some(path)) = (news, &self.emptied) {
            fs::write(path, "").unwrap();
        }
        self.told.lock().unwrap().push(match news {
            News::Failed { path, detail, .. } => format!("Failed {}: {detail}", path.escape_ascii()),
            News::Started { path, .. } => format!("Started {}", path.escape_ascii()),
            News::Completed { path, .. } => format!("Completed {}", path.escape_ascii()),
            News::Skipped { path, .. } => format!("Skipped {}", path.escape_ascii()),
            News::Deleted { path, .. } => format!("Deleted {}", path.escape_ascii()),
            News::Planned { files, bytes } => format!("Planned {files} {bytes}"),
            News::Moving { .. } => return,
        });
    }
}

const SECRET: &str = "what nobody may see";

/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(100);

/// The longest line that says why a run came to no end.
const LINE: usize = 8 << 10;
