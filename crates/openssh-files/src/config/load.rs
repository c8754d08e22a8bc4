//! Reading configuration files, and whatever they include.
//!
//! Everything that can be wrong with a line is found here, also in blocks for other hosts, so that a file is either sound
//! or refused. The only thing left for later is what depends on the host: tokens, and programs to run.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::condition::Condition;
use super::problem::Problem;
use super::rights::{Owner, RightsError, refuse_foreign_hands};
use super::setting::{self, Setting};
use super::{Block, Config, Content, Item, ReadFile, glob, words};
use crate::Location;

/// A file to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// Whose it is.
    pub whose: Whose,
    /// True if it need not exist, like `~/.ssh/config`.
    pub may_be_missing: bool,
}

/// Whose file it is: decides what it may say, and where its relative includes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The user's own: may run programs, includes from `~/.ssh`. Refused if others may write it.
    Own,
    /// The system's: may name a `ProxyCommand`, runs nothing by `Match exec`, includes from `/etc/ssh`.
    System,
    /// One that somebody else chose, who may not run programs here: read like an own one, but a `ProxyCommand` or `Match
    /// exec` that would take effect is an error.
    Foreign,
}

/// Why configuration files were not read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The system refused to open or read it.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, pipe or socket.
    #[error("{} is not a file", .0.display())]
    NotAFile(PathBuf),
    /// Longer than 16 MiB.
    #[error("{} is larger than {FILE_MAX} bytes", .0.display())]
    TooLarge(PathBuf),
    /// Somebody else's hands were, or could be, in it.
    #[error(transparent)]
    Rights(#[from] RightsError),
    /// A line cannot be honoured.
    #[error("{at}: {problem}")]
    Line {
        /// Where it stands.
        at: Location,
        /// What is wrong with it.
        problem: Problem,
    },
}

impl Config {
    /// Reads these files, the strongest first.
    ///
    /// `home` is the user's home directory, for includes; `home_of` knows those of others. `owner` is who may own files that
    /// are not the system's.
    pub fn load(
        sources: &[Source],
        home: &str,
        home_of: &dyn Fn(&str) -> Option<String>,
        owner: &Owner,
    ) -> Result<Config, LoadError> {
        Self::load_following(sources, home, home_of, owner, Includes::Followed)
    }

    /// The same, without what the files include: for somebody who may read these files and no others.
    pub fn load_alone(
        sources: &[Source],
        home: &str,
        home_of: &dyn Fn(&str) -> Option<String>,
        owner: &Owner,
    ) -> Result<Config, LoadError> {
        Self::load_following(sources, home, home_of, owner, Includes::Refused)
    }

    fn load_following(
        sources: &[Source],
        home: &str,
        home_of: &dyn Fn(&str) -> Option<String>,
        owner: &Owner,
        includes: Includes,
    ) -> Result<Config, LoadError> {
        let place = Some(Place { home, home_of, owner, includes });
        let mut loader = Loader { place, files: 0, mentions_final: false };
        let mut config = Config::default();
        for Source { path, whose, may_be_missing } in sources {
            match loader.read(path, *whose) {
                Ok(text) => config.files.push(loader.parse(path, *whose, &text, 0)?),
                Err(LoadError::Io { source, .. })
                    if *may_be_missing && source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        config.mentions_final = loader.mentions_final;
        Ok(config)
    }

    /// Reads the text of an own file; `path` is only what errors will name. `Include` lines name nothing.
    pub fn parse(path: impl AsRef<Path>, text: &[u8]) -> Result<Config, LoadError> {
        let mut loader = Loader { place: None, files: 0, mentions_final: false };
        let file = loader.parse(path.as_ref(), Whose::Own, text, 0)?;
        Ok(Config { files: vec![file], mentions_final: loader.mentions_final })
    }
}

/// Where included files are, and whose they may be.
struct Place<'a> {
    home: &'a str,
    home_of: &'a dyn Fn(&str) -> Option<String>,
    owner: &'a Owner,
    includes: Includes,
}

/// Whether one file may lead to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Includes {
    Followed,
    Refused,
}

struct Loader<'a> {
    /// `None` where only a text is read.
    place: Option<Place<'a>>,
    files: usize,
    mentions_final: bool,
}

impl Loader<'_> {
    fn parse(&mut self, path: &Path, whose: Whose, text: &[u8], depth: usize) -> Result<ReadFile, LoadError> {
        let mut file = ReadFile { path: Arc::from(path), whose, blocks: Vec::new() };
        let mut block = Block { condition: None, line: 0, items: Vec::new() };
        for (line, text) in (1..).zip(text.split(|&byte| byte == b'\n')) {
            let refuse = |problem| LoadError::Line { at: file.at(line), problem };
            let Some(text) = words::content(text) else { continue };
            let (keyword, rest) = text.and_then(words::keyword).map_err(refuse)?;
            let condition = match keyword.as_str() {
                "host" => Condition::parse_host(rest).map_err(refuse)?,
                "match" => {
                    let (condition, mentions_final) = Condition::parse_match(rest).map_err(refuse)?;
                    self.mentions_final |= mentions_final;
                    condition
                }
                "include" => {
                    let patterns = setting::many("Include", rest).map_err(refuse)?;
                    let files = self.include(&patterns, &file, line, depth)?;
                    block.items.push(Item { line, content: Content::Include(files) });
                    continue;
                }
                other => {
                    if let Some(setting) = Setting::parse(other, rest).map_err(refuse)? {
                        block.items.push(Item { line, content: Content::Set(setting) });
                    }
                    continue;
                }
            };
            let begun = Block { condition: Some(condition), line, items: Vec::new() };
            file.blocks.push(std::mem::replace(&mut block, begun));
        }
        file.blocks.push(block);
        Ok(file)
    }

    fn include(
        &mut self,
        patterns: &[String],
        parent: &ReadFile,
        line: usize,
        depth: usize,
    ) -> Result<Vec<ReadFile>, LoadError> {
        let refuse = |problem| LoadError::Line { at: parent.at(line), problem };
        if depth >= DEPTH_MAX {
            return Err(refuse(Problem::TooDeep));
        }
        if self.place.as_ref().is_some_and(|place| place.includes == Includes::Refused) {
            return Err(refuse(Problem::FilesOnly("Include")));
        }
        let mut files = Vec::new();
        for pattern in patterns {
            let Some(pattern) = self.absolute(pattern, parent.whose).map_err(refuse)? else { continue };
            for path in glob::expand(&pattern) {
                if path.is_dir() {
                    continue;
                }
                self.files += 1;
                if self.files > FILES_MAX {
                    return Err(refuse(Problem::TooManyIncludes));
                }
                match self.read(&path, parent.whose) {
                    Ok(text) => files.push(self.parse(&path, parent.whose, &text, depth + 1)?),
                    // Gone since it was found, or a link that leads nowhere.
                    Err(LoadError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(files)
    }

    /// The pattern from the root on; `None` where it names nothing.
    fn absolute(&self, pattern: &str, whose: Whose) -> Result<Option<String>, Problem> {
        let Some(Place { home, home_of, .. }) = self.place else { return Ok(None) };
        if let Some(behind) = pattern.strip_prefix('~') {
            let (name, path) = behind.split_once('/').unwrap_or((behind, ""));
            let home = match (whose, name) {
                (Whose::System, _) => return Err(Problem::IncludeOfAHome),
                (Whose::Own | Whose::Foreign, "") => Some(home.to_owned()),
                (Whose::Own | Whose::Foreign, name) => home_of(name),
            };
            return Ok(home.map(|home| format!("{}/{path}", literal(&home))));
        }
        Ok(Some(match whose {
            _ if pattern.starts_with('/') => pattern.to_owned(),
            Whose::System => format!("/etc/ssh/{pattern}"),
            Whose::Own | Whose::Foreign => format!("{}/.ssh/{pattern}", literal(home)),
        }))
    }

    fn read(&self, path: &Path, whose: Whose) -> Result<Vec<u8>, LoadError> {
        let io_error = |source| LoadError::Io { path: path.to_owned(), source };
        // Looked at before it is opened: opening a pipe nobody writes to would wait for ever.
        if crate::cannot_hold_lines(&std::fs::metadata(path).map_err(io_error)?) {
            return Err(LoadError::NotAFile(path.to_owned()));
        }
        let file = File::open(path).map_err(io_error)?;
        if let (Some(place), Whose::Own | Whose::Foreign) = (&self.place, whose) {
            refuse_foreign_hands(path, &file.metadata().map_err(io_error)?, place.owner)?;
        }
        let mut text = Vec::new();
        let length = file.take(FILE_MAX + 1).read_to_end(&mut text).map_err(io_error)?;
        match u64::try_from(length).is_ok_and(|length| length <= FILE_MAX) {
            true => Ok(text),
            false => Err(LoadError::TooLarge(path.to_owned())),
        }
    }
}

/// A path as a pattern for itself.
fn literal(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for character in path.trim_end_matches('/').chars() {
        if matches!(character, '*' | '?' | '[' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

/// Includes within includes.
pub(super) const DEPTH_MAX: usize = 16;

/// Included files in all: depth alone would let two lines ask for 2^16 of them.
pub(super) const FILES_MAX: usize = 4096;

/// A bound on memory, far above any real file.
const FILE_MAX: u64 = 16 << 20;
