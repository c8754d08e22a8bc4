//! What an entry may leave out because the one before had it, and what a hard link takes from its leader.

use std::collections::BTreeMap;

use super::{Device, Entry, Kind, Link, Time};

/// The values of the entry before, and the leaders so far. Encoder and decoder keep the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Previous {
    pub(super) name: Vec<u8>,
    pub(super) mode: u32,
    pub(super) mtime: i64,
    pub(super) atime: i64,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) major: u32,
    /// How many entries there were, which is the next one's place in the order of transmission.
    pub(super) count: u32,
    leaders: BTreeMap<u32, Leader>,
}

/// Everything about a leader but its name.
#[derive(Debug, Clone)]
pub(super) struct Leader {
    size: u64,
    mtime: Time,
    permissions: u16,
    kind: Kind,
    atime: Option<i64>,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Leader {
    /// What follows it under another name.
    pub(super) fn follower(&self, name: Vec<u8>, place: u32) -> Entry {
        let Self { size, mtime, permissions, kind, atime, uid, gid } = self.clone();
        Entry { name, size, mtime, permissions, kind, atime, uid, gid, link: Link::Follower(place) }
    }
}

impl Previous {
    pub(super) fn leader(&self, place: u32) -> Option<&Leader> {
        self.leaders.get(&place)
    }

    /// Makes `entry` the one before.
    pub(super) fn advance(&mut self, entry: &Entry) {
        self.name.clear();
        self.name.extend_from_slice(&entry.name);
        self.mode = entry.mode();
        self.mtime = entry.mtime.seconds;
        if !entry.is_directory() {
            self.atime = entry.atime.unwrap_or(self.atime);
        }
        self.uid = entry.uid.unwrap_or(self.uid);
        self.gid = entry.gid.unwrap_or(self.gid);
        if let Kind::BlockDevice(Some(Device { major, .. })) | Kind::CharDevice(Some(Device { major, .. })) =
            entry.kind
        {
            self.major = major;
        }
        if entry.link == Link::Leader {
            let Entry { name: _, size, mtime, permissions, ref kind, atime, uid, gid, link: _ } = *entry;
            let kind = kind.clone();
            self.leaders.insert(self.count, Leader { size, mtime, permissions, kind, atime, uid, gid });
        }
        self.count += 1;
    }
}
