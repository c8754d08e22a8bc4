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

use crate::{filter::Rules, landing::PARTIAL, meant::Meant};

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
        let meant = Meant::by(&job)?;
        let Rules { mut rules, exact } = meant.to_rules();
        let mut delete_skipped = None;
        if job.options.delete && job.direction == Direction::Upload && !exact {
            // The server deletes, and cannot be told of everything that stays.
            job.options.delete = false;
            delete_skipped =
                Some("rsync has no rule for one of the patterns, which may protect something".to_owned());
        }
        if !job.options.recursive && meant.top().is_none() {
            rules.push(Rule::new(Action::Exclude, "/*"));
        }
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
        // Who receives cuts the blocks.
        let block_len = match job.direction {
            Direction::Download => None,
            Direction::Upload => job.block_len,
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
            block_len,
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
        if self.job.direction == Direction::Download && self.meant.top().is_none() && !path.ends_with(b"/") {
            if path.is_empty() {
                path.push(b'.');
            }
            path.push(b'/');
        }
        path
    }
}

fn refused(detail: String) -> Broken {
    Broken { kind: BrokenKind::Refused, detail, touched: false }
}
