//! The names of users and groups on this side.
//!
//! They are read from the two files that every Unix has; names that only a directory service knows go by number.

use std::{collections::HashMap, fs};

use rsync_wire::file_list::Id;

/// Users, or groups.
#[derive(Debug, Default)]
pub(crate) struct Accounts(Vec<Id>);

impl Accounts {
    /// The users of this machine. None, if they cannot be read.
    pub(crate) fn users() -> Self {
        Self::parse(&fs::read("/etc/passwd").unwrap_or_default())
    }

    /// The groups of this machine. None, if they cannot be read.
    pub(crate) fn groups() -> Self {
        Self::parse(&fs::read("/etc/group").unwrap_or_default())
    }

    fn parse(text: &[u8]) -> Self {
        let line = |line: &[u8]| {
            let mut fields = line.split(|&byte| byte == b':');
            let (name, _password, number) = (fields.next()?, fields.next()?, fields.next()?);
            let number = str::from_utf8(number).ok()?.parse().ok()?;
            (1..=255).contains(&name.len()).then(|| Id { number, name: name.to_vec() })
        };
        Self(text.split(|&byte| byte == b'\n').filter_map(line).collect())
    }

    /// These numbers with their names, as far as they have any.
    pub(crate) fn named(self, wanted: impl Fn(u32) -> bool) -> Vec<Id> {
        let mut ids: Vec<Id> = self.0.into_iter().filter(|id| wanted(id.number)).collect();
        // Of several names the first counts, and the sort is stable.
        ids.sort_by_key(|id| id.number);
        ids.dedup_by_key(|id| id.number);
        ids
    }

    /// What the sender's numbers are here, for those whose name has another number here. Root is root.
    pub(crate) fn translate(&self, senders: &[Id]) -> HashMap<u32, u32> {
        let mut numbers = HashMap::new();
        for id in &self.0 {
            numbers.entry(id.name.as_slice()).or_insert(id.number);
        }
        let renamed = senders.iter().filter(|id| id.number != 0);
        renamed.filter_map(|id| Some((id.number, *numbers.get(id.name.as_slice())?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32, name: &str) -> Id {
        Id { number, name: name.into() }
    }

    #[test]
    fn names_are_read_and_translated() {
        let text = b"root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/:\nanna:x:1000:1:::\n# no account\n:x:7:\nbo:x:70000:\n";
        let users = Accounts::parse(text);
        let there = [id(0, "bo"), id(5, "bo"), id(6, "ann"), id(8, "nobody else"), id(9, "root")];
        assert_eq!(users.translate(&there), HashMap::from([(5, 70_000), (6, 1000), (9, 0)]));
        assert_eq!(users.named(|number| number != 70_000), [id(0, "root"), id(1000, "ann")]);
    }
}
