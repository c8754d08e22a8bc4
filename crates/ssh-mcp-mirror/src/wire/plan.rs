//! A job as options of rsync.

use std::sync::Arc;

use rsync_wire::{
    checksum::Algorithm,
    command::{Delete, DeleteWhen, Direction as Way, Options, Partial, Recursion, UploadOptions},
    filter::{Action, Rule},
    negotiate::{Compressor, Offer, Protocol},
};
use ssh_mcp_core::{
    port::mirror::{Broken, BrokenKind, Devices, Job},
    registry::Direction,
};

use crate::{
    filter::{Filter, Rules},
    landing::PARTIAL,
};

/// A job, and how rsync is to do it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is to be done.
    pub job: Job,
    /// What the server is told.
    pub options: Options,
    /// The newest protocol that is spoken.
    pub newest: Protocol,
    /// The checksums that are spoken, best first.
    pub checksums: Vec<Algorithm>,
    /// The compressors that are spoken, best first.
    pub compressors: Vec<Compressor>,
    /// What is meant.
    pub(super) meant: Arc<Meant>,
    /// The same as the server is told.
    pub(super) rules: Vec<Rule>,
    /// Why nothing is deleted.
    pub(super) delete_skipped: Option<String>,
}

impl Plan {
    /// How a job is done if nobody says otherwise.
    ///
    /// # Errors
    /// A pattern is none.
    pub fn new(mut job: Job) -> Result<Self, Broken> {
        let filter = Filter::new(&job.include, &job.exclude).map_err(refused)?;
        let Rules { mut rules, exact } = filter.to_rules(top_of(&job));
        let mut delete_skipped = None;
        if job.options.delete && job.direction == Direction::Upload && !exact {
            // The server deletes, and cannot be told of everything that stays.
            job.options.delete = false;
            delete_skipped =
                Some("rsync has no rule for one of the patterns, which may protect something".to_owned());
        }
        if !job.options.recursive && is_content(&job) {
            rules.push(Rule::new(Action::Exclude, "/*"));
        }
        if job.options.partial {
            rules.push(Rule::of_partial_dir(PARTIAL));
        }
        let top = top_of(&job).map(<[u8]>::to_vec);
        let meant = Meant { filter, top, leaves_partial: job.options.partial };
        let wanted = job.options;
        let direction = match job.direction {
            Direction::Download => Way::Download,
            Direction::Upload => Way::Upload(Box::new(UploadOptions {
                delete: wanted.delete.then_some(Delete { when: DeleteWhen::After, ..Delete::default() }),
                partial: wanted.partial.then(|| Partial::Dir(PARTIAL.to_vec())),
                sparse: wanted.sparse,
                ..UploadOptions::default()
            })),
        };
        let bwlimit = match job.direction {
            Direction::Download => job.bwlimit.map(|kib| u32::try_from(kib).unwrap_or(u32::MAX)),
            Direction::Upload => None,
        };
        let options = Options {
            direction,
            recursion: if wanted.recursive { Recursion::Recursive } else { Recursion::Dirs },
            links: wanted.links,
            permissions: wanted.perms,
            times: wanted.mtime,
            group: wanted.group,
            owner: wanted.owner,
            devices: wanted.devices != Devices::No,
            hard_links: wanted.hard_links,
            checksum: wanted.checksum,
            dry_run: wanted.dry_run,
            compress: wanted.compress,
            bwlimit,
            ..Options::default()
        };
        Ok(Self {
            job,
            options,
            newest: Protocol::V32,
            checksums: vec![Algorithm::Xxh128, Algorithm::Md5],
            compressors: vec![Compressor::Zstd, Compressor::Lz4, Compressor::Zlibx],
            meant: Arc::new(meant),
            rules,
            delete_skipped,
        })
    }

    /// The command line that starts the server.
    pub(super) fn command(&self) -> Result<String, Broken> {
        let path = self.remote_path();
        let command = self.options.to_shell(&[&path]).map_err(|error| refused(error.to_string()))?;
        String::from_utf8(command).map_err(|_| refused("the remote path is no text".to_owned()))
    }

    /// What both sides agree on begins with this.
    pub(super) fn offer(&self) -> Offer {
        self.options.to_offer(self.newest, &self.checksums, &self.compressors)
    }

    /// The path as the server is told it. It starts in the login directory, so that is not named.
    fn remote_path(&self) -> Vec<u8> {
        let mut path = match self.job.remote.as_slice() {
            b"~" => Vec::new(),
            path => path.strip_prefix(b"~/").unwrap_or(path).to_vec(),
        };
        if self.job.direction == Direction::Download && is_content(&self.job) && !path.ends_with(b"/") {
            if path.is_empty() {
                path.push(b'.');
            }
            path.push(b'/');
        }
        path
    }
}

/// Which names of a list are meant.
#[derive(Debug)]
pub(super) struct Meant {
    filter: Filter,
    /// What the root of the tree is called in the list, if it is there by name.
    top: Option<Vec<u8>>,
    /// What waits for its next transfer is not.
    leaves_partial: bool,
}

impl Meant {
    pub(super) fn top(&self) -> Option<&[u8]> {
        self.top.as_deref()
    }

    /// All of them.
    pub(super) fn is_everything(&self) -> bool {
        self.filter.takes_all() && !self.leaves_partial
    }

    /// Whether a name is, if the directories above it are.
    pub(super) fn takes(&self, name: &[u8], is_directory: bool) -> bool {
        let Some(path) = below(name, self.top()) else { return true };
        let is_partial = || path.rsplit(|byte| *byte == b'/').next() == Some(PARTIAL);
        !(self.leaves_partial && is_directory && is_partial()) && self.filter.takes(path, is_directory)
    }
}

/// A name of the list as a path below the top; none for the top itself.
pub(super) fn below<'a>(name: &'a [u8], top: Option<&[u8]>) -> Option<&'a [u8]> {
    match top {
        None => Some(name).filter(|name| *name != b"."),
        Some(top) => name.strip_prefix(top)?.strip_prefix(b"/"),
    }
}

/// Whether the source stands for its content; so does one whose name says nothing.
fn is_content(job: &Job) -> bool {
    job.content || matches!(last(job), b"" | b"." | b".." | b"~")
}

fn top_of(job: &Job) -> Option<&[u8]> {
    Some(last(job)).filter(|_| !is_content(job))
}

/// The last component of the source.
fn last(job: &Job) -> &[u8] {
    let path = match job.direction {
        Direction::Upload => job.local.as_os_str().as_encoded_bytes(),
        Direction::Download => job.remote.as_slice(),
    };
    let path = path.iter().rposition(|byte| *byte != b'/').and_then(|end| path.get(..=end));
    path.and_then(|path| path.rsplit(|byte| *byte == b'/').next()).unwrap_or_default()
}

fn refused(detail: String) -> Broken {
    Broken { kind: BrokenKind::Refused, detail, touched: false }
}
