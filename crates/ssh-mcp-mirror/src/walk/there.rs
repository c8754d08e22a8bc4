//! The destination of an upload, and what is there before it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use rsync_wire::file_list::{Content, Entry, FileList, Kind};
use ssh_mcp_core::port::{
    fs::{FsErrorKind, Links},
    mirror::{Broken, BrokenKind},
};

use super::{
    Run, broken,
    far::{self, Found, Visit, far_path, parent_of},
    remote_fault,
};
use crate::landing::Fault;

/// The destination, and what is there.
pub(super) struct There {
    /// The path of `.`.
    pub(super) base: Vec<u8>,
    /// The path of the only file, if the destination is that file and no directory.
    exact: Option<Vec<u8>>,
    /// The root has to be made.
    pub(super) is_new: bool,
    pub(super) found: HashMap<Vec<u8>, Found>,
    pub(super) unread: Vec<Fault>,
}

impl There {
    pub(super) async fn find(run: &Arc<Run>, list: &FileList) -> Result<Self, Broken> {
        let (files, remote) = (&*run.files, &run.job.remote);
        let refused =
            |why: &str| broken(BrokenKind::Refused, &format!("{}: {why}", String::from_utf8_lossy(remote)));
        let base = match far::absolute(files, remote).await {
            Ok(base) => base,
            Err(error) => {
                run.check().await?;
                return Err(refused(&error.cause));
            }
        };
        let root = look(run, &base, Links::Follow).await?;
        let is_directory = root.as_ref().is_some_and(Found::is_directory);
        let single = list.entry(0).filter(|entry| list.len() == 1 && !entry.is_directory());
        let mut there = Self { base, exact: None, is_new: false, found: HashMap::new(), unread: Vec::new() };
        match (single, root) {
            (Some(entry), _) if !is_directory && !remote.ends_with(b"/") => {
                // It may be a link, which is replaced as one.
                let found = look(run, &there.base, Links::Stay).await?;
                there.found.extend(found.map(|found| (entry.name.clone(), found)));
                there.exact = Some(there.base.clone());
                return Ok(there);
            }
            (_, Some(_)) if !is_directory => return Err(refused("it is no directory")),
            (_, Some(root)) => _ = there.found.insert(b".".to_vec(), root),
            (_, None) => {
                let above = look(run, parent_of(&there.base), Links::Follow).await?;
                if above.is_none_or(|above| !above.is_directory()) {
                    return Err(refused("the directory above it is missing"));
                }
                there.is_new = true;
                return Ok(there);
            }
        }
        let top = run.meant.top().unwrap_or(b".");
        if top != b"." {
            let found = look(run, &far_path(&there.base, top), Links::Stay).await?;
            there.found.extend(found.map(|found| (top.to_vec(), found)));
        }
        there.list(run, top, list).await?;
        Ok(there)
    }

    /// Lists the directories that the source has too.
    async fn list(&mut self, run: &Arc<Run>, top: &[u8], list: &FileList) -> Result<(), Broken> {
        let is_entered =
            |entry: &Entry| matches!(entry.kind, Kind::Directory(Content::Top | Content::Listed));
        let entered: HashSet<Vec<u8>> =
            list.active().map(|(_, entry)| entry).filter(is_entered).map(|entry| entry.name).collect();
        if !entered.contains(top) || !self.found.get(top).is_some_and(Found::is_directory) {
            return Ok(());
        }
        let mut visit = |path: &[u8], found: &Found| match found.is_directory() && entered.contains(path) {
            true => Visit::Enter,
            false => Visit::Take,
        };
        let listing = far::list(run, &self.base, top, &mut visit).await?;
        self.found.extend(listing.found);
        self.unread = listing.unread.iter().map(|(path, error)| remote_fault(path, error)).collect();
        Ok(())
    }

    /// Where an entry of the list goes.
    pub(super) fn path(&self, name: &[u8]) -> Vec<u8> {
        self.exact.clone().unwrap_or_else(|| far_path(&self.base, name))
    }
}

/// What is at a path, if anything.
pub(super) async fn look(run: &Run, path: &[u8], links: Links) -> Result<Option<Found>, Broken> {
    match far::look(&*run.files, path, links).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind == FsErrorKind::NotFound => Ok(None),
        Err(error) => {
            run.check().await?;
            let detail = format!("{}: {error}", String::from_utf8_lossy(path));
            Err(broken(BrokenKind::Refused, &detail))
        }
    }
}
