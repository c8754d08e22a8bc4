//! ssh_config(5): what the client's configuration says about a host.
//!
//! [`Config`] is read once, from the user's and the system's file and whatever they include, and then asked about as many
//! hosts as one likes. [`Overrides`] are what a call lays before the files, [`Local`] is what must be known of this machine
//! and its user, [`Resolved`] is the answer. Nothing here opens a connection, looks a name up or runs a program: programs
//! that `Match exec` names are run by a function the caller brings.
//!
//! Which of ssh_config's keywords are honoured, where this reader is stricter or more lenient than OpenSSH, and what is
//! missing (canonical names by DNS, above all) is in `docs/ssh_config.md`.
//!
//! | Module | Holds |
//! | --- | --- |
//! | `load`, `glob` | files, what they include, who may own them |
//! | `words`, `setting`, `condition` | one line: its words, what it sets, whom its block is for |
//! | `resolve`, `options`, `tokens` | which lines count, in which order, and what `%h` and `~` stand for |
//! | `resolved` | the answer, also in the form of `ssh -G` |
//! | `target`, `overrides` | how hosts are written, and what a call lays before the files |
//!
//! ```
//! use openssh_files::config::{Config, Local, Overrides, Proxy, Target};
//!
//! let config = Config::parse("config", b"
//!     Host db*
//!         HostName %h.example
//!         ProxyJump bastion
//!     Match host *.example user root
//!         IdentityFile ~/.ssh/root@%h
//! ")?;
//! let local = Local {
//!     home: "/home/me",
//!     user: "me",
//!     uid: 1000,
//!     host_name: "laptop",
//!     environment: &|_| None,
//!     home_of: &|_| None,
//!     exec: &|_| Ok(false),
//! };
//! let target = Target::parse("root@db1:2222")?;
//! let mut call = Overrides::default();
//! call.target(&target);
//! call.arguments(["-C", "-o", "ConnectTimeout=5"])?;
//! let resolved = config.resolve(&target.host, &call, &local)?;
//! assert_eq!(resolved.host_name, "db1.example");
//! assert_eq!(resolved.port, 2222);
//! assert_eq!(resolved.identity_files[0].path.as_deref(), Ok("/home/me/.ssh/root@db1.example"));
//! assert_eq!(resolved.proxy, Proxy::Jump(vec![Target::parse("bastion")?]));
//! assert!(call.arguments(["-L", "8080:localhost:80"]).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::path::PathBuf;
use std::sync::Arc;

mod condition;
mod glob;
mod load;
mod options;
mod overrides;
mod problem;
mod resolve;
mod resolved;
mod rights;
mod setting;
mod target;
mod tokens;
mod words;

pub use load::{LoadError, Source, Whose};
pub use overrides::{OverrideError, Overrides};
pub use problem::Problem;
pub use resolve::ResolveError;
pub use resolved::{
    ForwardAgent, HostKeyChecking, IdentityAgent, KeyFile, Offer, Proxy, PubkeyAuthentication, Resolved,
};
pub use rights::{Owner, RightsError, TooOpenError, refuse_foreign_eyes, refuse_foreign_hands};
pub use setting::{AddressFamily, AlgorithmKind, AlgorithmList, Operation};
pub use target::{Target, TargetError};
pub use tokens::ExpandError;

use crate::Location;
use condition::Condition;
use setting::Setting;

/// Configuration files as they were read: the user's, then the system's.
#[derive(Debug, Default)]
pub struct Config {
    files: Vec<ReadFile>,
    /// Some line asks for a second pass, whether or not it is ever looked at.
    mentions_final: bool,
}

/// What must be known of this machine and its user.
#[derive(Clone, Copy)]
pub struct Local<'a> {
    /// The user's home directory: `~` and `%d`.
    pub home: &'a str,
    /// The user's name: `%u`, and the name to log in by where nothing else is said.
    pub user: &'a str,
    /// The user's numeric id: `%i`.
    pub uid: u32,
    /// The machine's name, with its domain if it has one: `%l`, and up to the first dot `%L`.
    pub host_name: &'a str,
    /// Looks a variable up: `${NAME}`.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Looks somebody's home directory up: `~name`.
    pub home_of: &'a dyn Fn(&str) -> Option<String>,
    /// Runs a command line of `Match exec` in the user's shell and says whether it ended with 0.
    pub exec: &'a dyn Fn(&str) -> std::io::Result<bool>,
}

/// One file, cut into blocks.
#[derive(Debug)]
struct ReadFile {
    path: Arc<std::path::Path>,
    whose: Whose,
    blocks: Vec<Block>,
}

/// A `Host` or `Match` line and what stands below it.
#[derive(Debug)]
struct Block {
    /// `None` above the first such line.
    condition: Option<Condition>,
    line: usize,
    items: Vec<Item>,
}

/// A line below a `Host` or `Match` line.
#[derive(Debug)]
struct Item {
    line: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Set(Setting),
    Include(Vec<ReadFile>),
}

impl ReadFile {
    fn at(&self, line: usize) -> Location {
        Location { file: PathBuf::from(&*self.path), line }
    }
}

impl std::fmt::Debug for Local<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Local { home, user, uid, host_name, .. } = self;
        f.debug_struct("Local")
            .field("home", home)
            .field("user", user)
            .field("uid", uid)
            .field("host_name", host_name)
            .finish_non_exhaustive()
    }
}
