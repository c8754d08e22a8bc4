//! Which names of a list are meant, and what the root of the tree is called in it: the same for both ways.

use rsync_wire::filter::Rule;
use ssh_mcp_core::{
    port::mirror::{Broken, BrokenKind, Job},
    registry::Direction,
};

use crate::{
    filter::{Filter, Rules},
    landing::PARTIAL,
};

/// Which names of a list are meant.
#[derive(Debug)]
pub(crate) struct Meant {
    filter: Filter,
    /// What the root of the tree is called in the list, if it is there by name.
    top: Option<Vec<u8>>,
    /// What waits for its next transfer is not.
    leaves_partial: bool,
}

impl Meant {
    /// What a job means.
    ///
    /// # Errors
    /// A pattern is none.
    pub(crate) fn by(job: &Job) -> Result<Self, Broken> {
        let filter = Filter::new(&job.include, &job.exclude).map_err(|detail| Broken {
            kind: BrokenKind::Refused,
            detail,
            touched: false,
        })?;
        Ok(Self { filter, top: top(job).map(<[u8]>::to_vec), leaves_partial: job.options.partial })
    }

    /// What the root of the tree is called in the list; none if the source stands for its content.
    pub(crate) fn top(&self) -> Option<&[u8]> {
        self.top.as_deref()
    }

    /// All of them.
    pub(crate) fn is_everything(&self) -> bool {
        self.filter.takes_all() && !self.leaves_partial
    }

    /// Whether a name is, if the directories above it are.
    pub(crate) fn takes(&self, name: &[u8], is_directory: bool) -> bool {
        let Some(path) = below(name, self.top()) else { return true };
        !(self.leaves_partial && is_partial(path, is_directory)) && self.filter.takes(path, is_directory)
    }

    /// Whether something stays at the destination though the source does not have it.
    pub(crate) fn protects(&self, name: &[u8], is_directory: bool) -> bool {
        is_partial(name, is_directory) || !self.takes(name, is_directory)
    }

    /// The same for a server that makes the list, or deletes.
    pub(crate) fn to_rules(&self) -> Rules {
        let mut rules = self.filter.to_rules(self.top());
        if self.leaves_partial {
            rules.rules.push(Rule::of_partial_dir(PARTIAL));
        }
        rules
    }
}

/// A name of the list as a path below the top; none for the top itself.
pub(crate) fn below<'a>(name: &'a [u8], top: Option<&[u8]>) -> Option<&'a [u8]> {
    match top {
        None => Some(name).filter(|name| *name != b"."),
        Some(top) => name.strip_prefix(top)?.strip_prefix(b"/"),
    }
}

/// A source whose last name says nothing stands for its content too.
fn top(job: &Job) -> Option<&[u8]> {
    let path = match job.direction {
        Direction::Upload => job.local.as_os_str().as_encoded_bytes(),
        Direction::Download => job.remote.as_slice(),
    };
    let path = path.iter().rposition(|byte| *byte != b'/').and_then(|end| path.get(..=end));
    let name = path.map(last_name).unwrap_or_default();
    Some(name).filter(|name| !job.content && !matches!(*name, b"" | b"." | b".." | b"~"))
}

/// A directory in which interrupted files wait.
fn is_partial(path: &[u8], is_directory: bool) -> bool {
    is_directory && last_name(path) == PARTIAL
}

/// The last component of a path.
pub(crate) fn last_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}
