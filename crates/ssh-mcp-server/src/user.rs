//! Who runs this process and on which machine, as an SSH client has to know it.
//!
//! The names of users and groups are read from the system's files, where they are in any machine that has more than the
//! superuser; where they come from elsewhere, the environment says who the user is.

use std::io;
use std::path::{Path, PathBuf};

use openssh_files::config::{Local, Owner};
use ssh_mcp_ssh::LocalUser;

use crate::sources::{self, Surroundings};

/// Who runs this process.
pub(crate) struct User {
    pub(crate) home: String,
    name: String,
    uid: u32,
    host_name: String,
    private_group: Option<u32>,
    accounts: Accounts,
}

impl User {
    pub(crate) fn of_this_process(surroundings: &Surroundings<'_>) -> User {
        Self::new(surroundings.environment, surroundings.home.clone())
    }

    /// `home` is the settings' word about the home directory.
    pub(crate) fn new(environment: &dyn Fn(&str) -> Option<String>, home: Option<PathBuf>) -> User {
        let accounts = Accounts::read(Path::new("/etc/passwd"), Path::new("/etc/group"));
        let uid = rustix::process::getuid().as_raw();
        let account = accounts.users.iter().find(|account| account.uid == uid);
        let variable = |name| environment(name).filter(|text| !text.is_empty());
        let home = home.or_else(|| account.map(|account| PathBuf::from(&account.home)));
        let name = account.map(|account| account.name.clone());
        User {
            home: home.unwrap_or_else(|| PathBuf::from("/")).to_string_lossy().into_owned(),
            name: name
                .or_else(|| variable("LOGNAME"))
                .or_else(|| variable("USER"))
                .unwrap_or_else(|| uid.to_string()),
            uid,
            host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            private_group: account.and_then(|account| accounts.private_group(account)),
            accounts,
        }
    }

    /// Whose configuration files are read.
    pub(crate) fn owner(&self) -> Owner {
        Owner { uid: self.uid, private_group: self.private_group }
    }

    /// The home directory of somebody.
    pub(crate) fn home_of(&self, name: &str) -> Option<String> {
        let account = self.accounts.users.iter().find(|account| account.name == name);
        account.map(|account| account.home.clone())
    }

    pub(crate) fn as_local<'a>(
        &'a self,
        environment: &'a dyn Fn(&str) -> Option<String>,
        home_of: &'a dyn Fn(&str) -> Option<String>,
        exec: &'a dyn Fn(&str) -> io::Result<bool>,
    ) -> Local<'a> {
        let User { home, name, uid, host_name, .. } = self;
        Local { home, user: name, uid: *uid, host_name, environment, home_of, exec }
    }

    /// What a connector has to know, with the environment of this process.
    pub(crate) fn into_connecting(self) -> LocalUser {
        LocalUser {
            home: self.home.clone(),
            name: self.name.clone(),
            uid: self.uid,
            host_name: self.host_name.clone(),
            owner: self.owner(),
            home_of: Box::new(move |name| self.home_of(name)),
            environment: Box::new(sources::environment),
            variables: Box::new(|| {
                std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
            }),
        }
    }
}

#[derive(Default)]
struct Accounts {
    users: Vec<Account>,
    /// Id and further members of each group.
    groups: Vec<(u32, Vec<String>)>,
}

struct Account {
    name: String,
    uid: u32,
    group: u32,
    home: String,
}

impl Accounts {
    fn read(users: &Path, groups: &Path) -> Accounts {
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        Accounts::parse(&text(users), &text(groups))
    }

    fn parse(users: &str, groups: &str) -> Accounts {
        let account = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let uid = fields.nth(1)?.parse().ok()?;
            let group = fields.next()?.parse().ok()?;
            let home = fields.nth(1)?.to_owned();
            Some(Account { name, uid, group, home })
        };
        let group = |line: &str| {
            let mut fields = line.split(':').skip(2);
            let id = fields.next()?.parse().ok()?;
            let members = fields.next()?.split(',').filter(|name| !name.is_empty());
            Some((id, members.map(str::to_owned).collect()))
        };
        Accounts {
            users: users.lines().filter_map(account).collect(),
            groups: groups.lines().filter_map(group).collect(),
        }
    }

    /// The user's first group, if nobody else is in it.
    fn private_group(&self, account: &Account) -> Option<u32> {
        let is_mine = |name: &String| *name == account.name;
        let is_shared = self.users.iter().any(|other| other.group == account.group && !is_mine(&other.name));
        let (id, members) = self.groups.iter().find(|(id, _)| *id == account.group)?;
        (!is_shared && members.iter().all(is_mine)).then_some(*id)
    }
}

#[cfg(test)]
mod tests {
    use super::Accounts;

    #[test]
    fn a_group_is_private_if_nobody_else_is_in_it() {
        let users = "root:x:0:0:root:/root:/bin/sh\nann:x:1:10::/home/ann:/bin/sh\nbob:x:2:20::/home/bob:\n\
            cid:x:3:30::/home/cid:\ndee:x:4:30::/home/dee:\neve:x:5:50::/home/eve:\n\nbroken\n";
        let groups = "root:x:0:\nann:x:10:ann\nbob:x:20:ann,bob\nstaff:x:30:\nbroken:x\n";
        let accounts = Accounts::parse(users, groups);
        let private: Vec<_> = accounts
            .users
            .iter()
            .map(|account| (account.home.as_str(), accounts.private_group(account)))
            .collect();
        assert_eq!(
            private,
            [
                ("/root", Some(0)),
                ("/home/ann", Some(10)),
                ("/home/bob", None),
                ("/home/cid", None),
                ("/home/dee", None),
                ("/home/eve", None),
            ]
        );
    }
}
