//! Attributes on the far side: which of them differ, and how they are set.

use std::{collections::HashSet, sync::Mutex};

use rsync_wire::file_list::Entry;
use ssh_mcp_core::port::{
    BoxFuture,
    fs::{Attributes, FsError, Kind},
    mirror::Options,
};

use super::{far::Found, lock};

/// What is to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    owner: Option<(u32, u32)>,
    mode: Option<u32>,
    time: Option<u32>,
    /// Owner and group are as wanted already.
    is_owned: bool,
    is_directory: bool,
}

/// What changes depend on in a run.
pub(super) struct Changes {
    options: Options,
    /// Owners that the server has refused to set.
    refused: Mutex<HashSet<(u32, u32)>>,
}

/// Bits that let a file run as its owner or group.
const SET_ID: u16 = 0o6000;

/// A time as SFTP has it.
pub(super) fn seconds(entry: &Entry) -> u32 {
    u32::try_from(entry.mtime.seconds.max(0)).unwrap_or(u32::MAX)
}

impl Change {
    pub(super) fn is_none(&self) -> bool {
        self.owner.is_none() && self.mode.is_none() && self.time.is_none()
    }
}

impl Changes {
    pub(super) fn new(options: Options) -> Self {
        Self { options, refused: Mutex::default() }
    }

    /// What differs of something that is there; all that a change of its content may have changed, if that was `touched`.
    pub(super) fn of(&self, entry: &Entry, found: &Found, touched: bool) -> Change {
        let Options { perms, mtime, .. } = self.options;
        let Attributes { owner: there, times, .. } = found.attributes;
        let wanted = if perms { entry.permissions } else { found.permissions() };
        let is_other_time = times.is_none_or(|(_, changed)| changed != seconds(entry));
        let owner = self.owner(entry, there);
        // Some permissions go with a change of the owner.
        let sets_mode = touched || wanted != found.permissions() || (owner.is_some() && wanted & SET_ID != 0);
        Change {
            owner,
            mode: sets_mode.then_some(u32::from(wanted)),
            time: (mtime && (touched || is_other_time)).then(|| seconds(entry)),
            is_owned: is_owned(entry, there),
            is_directory: entry.is_directory(),
        }
    }

    /// What something new gets, which may take the place of something. Who owns it is of interest where only one of owner and
    /// group [is wanted](wants_half).
    pub(super) fn of_new(
        &self,
        entry: &Entry,
        replaced: Option<&Found>,
        owner: Option<(u32, u32)>,
    ) -> Change {
        let Options { perms, mtime, .. } = self.options;
        let mode = match (perms, replaced.filter(|found| found.kind() == Kind::File)) {
            (true, _) => Some(entry.permissions),
            // Like a write by somebody else, new data takes these rights from a file.
            (false, Some(found)) => Some(found.permissions() & !SET_ID),
            (false, None) => None,
        };
        Change {
            owner: self.owner(entry, owner),
            mode: mode.map(u32::from),
            time: mtime.then(|| seconds(entry)),
            is_owned: is_owned(entry, owner),
            is_directory: entry.is_directory(),
        }
    }

    /// Asks for a change, the owner first: with it a file loses rights. Refused owners are no failure. The answer is awaited by
    /// what this resolves to.
    pub(super) async fn ask<'a>(
        &'a self,
        change: Change,
        ask: &(dyn Fn(Attributes) -> BoxFuture<'static, Result<(), FsError>> + Sync),
    ) -> BoxFuture<'a, Result<(), FsError>> {
        let Change { owner, mode, time, is_owned, is_directory } = change;
        let mut owned =
            owner.map(|owner| (owner, ask(Attributes { owner: Some(owner), ..Attributes::default() })));
        let mut rest = Attributes { mode, times: time.map(|time| (time, time)), ..Attributes::default() };
        if let Some(mode) = mode.filter(|mode| !is_directory && mode & u32::from(SET_ID) != 0) {
            // Who runs it must be who it was given to.
            let is_owned = match owned.take() {
                Some((owner, asked)) => self.is_allowed(owner, asked.await),
                None => is_owned,
            };
            rest.mode = Some(if is_owned { mode } else { mode & !u32::from(SET_ID) });
        }
        let set = (rest != Attributes::default()).then(|| ask(rest));
        Box::pin(async move {
            if let Some((owner, asked)) = owned {
                self.is_allowed(owner, asked.await);
            }
            match set {
                Some(set) => set.await,
                None => Ok(()),
            }
        })
    }

    /// The owner and group to ask for; none, if nothing is wanted, all is as wanted, or the server has refused it.
    fn owner(&self, entry: &Entry, there: Option<(u32, u32)>) -> Option<(u32, u32)> {
        if entry.uid.is_none() && entry.gid.is_none() {
            return None;
        }
        let user = entry.uid.or(there.map(|(user, _)| user))?;
        let group = entry.gid.or(there.map(|(_, group)| group))?;
        let wanted = (user, group);
        (there != Some(wanted) && !lock(&self.refused).contains(&wanted)).then_some(wanted)
    }

    fn is_allowed(&self, owner: (u32, u32), answer: Result<(), FsError>) -> bool {
        if answer.is_err() {
            lock(&self.refused).insert(owner);
        }
        answer.is_ok()
    }
}

/// Whether only one of owner and group is wanted: SFTP sets both or none, so the other has to be what it is.
pub(super) fn wants_half(entry: &Entry) -> bool {
    entry.uid.is_some() != entry.gid.is_some()
}

fn is_owned(entry: &Entry, there: Option<(u32, u32)>) -> bool {
    entry.uid.zip(entry.gid).is_some_and(|wanted| there == Some(wanted))
}
