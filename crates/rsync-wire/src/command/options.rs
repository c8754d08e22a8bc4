//! What a server is told, as letters and long options.

use super::CommandError;
use crate::checksum::Algorithm;
use crate::negotiate::Compressor;

/// What a server is told. Options that the client acts on alone are not here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Which way files go.
    pub direction: Direction,
    /// Which directories' content is listed.
    pub recursion: Recursion,
    /// `l`: symlinks with their targets.
    pub links: bool,
    /// `p`: permissions.
    pub permissions: bool,
    /// `t`: times of modification.
    pub times: bool,
    /// `U`: times of access; servers before 3.2 refuse it.
    pub atimes: bool,
    /// `g`: groups.
    pub group: bool,
    /// `o`: owners.
    pub owner: bool,
    /// `D`: devices, fifos, sockets.
    pub devices: bool,
    /// `H`: hard links.
    pub hard_links: bool,
    /// `c`: files are compared by digests.
    pub checksum: bool,
    /// `n`: nothing is changed.
    pub dry_run: bool,
    /// `R`: names keep the whole path.
    pub relative: bool,
    /// `W`: no deltas.
    pub whole_file: bool,
    /// `x`: other file systems are not entered.
    pub one_file_system: bool,
    /// `m`: directories that are empty are left out.
    pub prune_empty_dirs: bool,
    /// `z`: literal data is compressed.
    pub compress: bool,
    /// The compressor, instead of a negotiated one. zlib and zlibx need a server from 3.1.1 on, others one from 3.2.0 on.
    pub compress_choice: Option<Compressor>,
    /// How hard the compressor of the sending side tries, in its own numbers.
    pub compress_level: Option<i32>,
    /// The checksum, instead of a negotiated one; for servers from 3.1.3 on.
    pub checksum_choice: Option<Algorithm>,
    /// The seed, instead of one the server chooses.
    pub checksum_seed: Option<i32>,
    /// No names of ids.
    pub numeric_ids: bool,
    /// Seconds of silence after which the server gives up.
    pub timeout: Option<u32>,
    /// The most KiB a second the server writes.
    pub bwlimit: Option<u32>,
    /// `-B`: the length of blocks, instead of one that fits the file.
    pub block_len: Option<u32>,
    /// Files are written in their place.
    pub in_place: Option<InPlace>,
    /// Errors do not keep from deleting.
    pub ignore_errors: bool,
    /// What arrived is removed where it came from.
    pub remove_source_files: bool,
    /// Symlinks that lead out of the tree are left out.
    pub safe_links: bool,
    /// Symlinks that lead out of the tree are followed.
    pub copy_unsafe_links: bool,
    /// `--files-from`: of the path that is named, only what [`put_names`](super::put_names) says is listed. For downloads; the
    /// list of an upload says itself what is wanted.
    pub files_from: bool,
}

/// Which way files go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Direction {
    /// From the server.
    #[default]
    Download,
    /// To the server, with what only a receiving side is told.
    Upload(Box<UploadOptions>),
}

/// Which directories' content is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Recursion {
    /// None; directories are left out.
    #[default]
    None,
    /// `d`: that of the directories named.
    Dirs,
    /// `r`: that of all.
    Recursive,
}

/// How files are written in their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InPlace {
    /// `--inplace`.
    Update,
    /// `--append`: what is there is taken to be right.
    Append,
    /// `--append` twice: the digest covers what is there.
    AppendVerify,
}

/// What only a receiving server is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UploadOptions {
    /// Files that the client has not are deleted.
    pub delete: Option<Delete>,
    /// `--force`: a directory gives way to a file even if it is not empty.
    pub force: bool,
    /// `u`: newer files stay.
    pub update: bool,
    /// `S`: runs of zeros become holes.
    pub sparse: bool,
    /// `O`: directories keep their times.
    pub omit_dir_times: bool,
    /// `J`: symlinks keep their times; servers before 3.1 refuse it.
    pub omit_link_times: bool,
    /// `K`: a symlink to a directory is taken for one.
    pub keep_dirlinks: bool,
    /// `E`: executability.
    pub executability: bool,
    /// `b`: what is replaced is kept.
    pub backup: bool,
    /// Where what is replaced is kept.
    pub backup_dir: Option<Vec<u8>>,
    /// What is added to the name of what is replaced.
    pub suffix: Option<Vec<u8>>,
    /// What becomes of files that arrived in part.
    pub partial: Option<Partial>,
    /// Files take their places at the end.
    pub delay_updates: bool,
    /// Where files are written before they take their places.
    pub temp_dir: Option<Vec<u8>>,
    /// Files of equal size are equal.
    pub size_only: bool,
    /// Files that are not there are not made.
    pub existing: bool,
    /// Files that are there are left alone.
    pub ignore_existing: bool,
    /// Files of more bytes than this are left out.
    pub max_size: Option<u64>,
    /// Files of fewer bytes than this are left out.
    pub min_size: Option<u64>,
    /// Times that differ by up to so many seconds are equal.
    pub modify_window: Option<u32>,
    /// Other directories to look for files in.
    pub basis_dirs: Vec<BasisDir>,
    /// Each file is made durable; servers before 3.2.4 refuse it.
    pub fsync: bool,
    /// The destination's missing parents are made; servers before 3.2.3 refuse it.
    pub mkpath: bool,
    /// `--log-format`: `%i` makes servers report what they changed.
    pub log_format: Option<Vec<u8>>,
}

/// How a receiving server deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Delete {
    /// When.
    pub when: DeleteWhen,
    /// `--delete-excluded`: excluded files too.
    pub excluded: bool,
    /// The most deletions in a run.
    pub max: Option<u32>,
}

/// When a receiving server deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum DeleteWhen {
    /// As the server likes.
    #[default]
    Any,
    /// Before the transfer.
    Before,
    /// In each directory when its turn comes.
    During,
    /// Found during the transfer, deleted after it.
    Delay,
    /// After the transfer.
    After,
}

/// What becomes of files that arrived in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Partial {
    /// They take their places.
    InPlace,
    /// They are kept in this directory.
    Dir(Vec<u8>),
}

/// Another directory to look for files in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasisDir {
    /// What is done with a file found there.
    pub kind: BasisKind,
    /// The directory.
    pub path: Vec<u8>,
}

/// What is done with a file found in another directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BasisKind {
    /// It is linked.
    Link,
    /// It is copied.
    Copy,
    /// It is taken as being there.
    Compare,
}

impl Options {
    /// The client begins its framed data with a filter list, even if it has no rule.
    #[must_use]
    pub fn is_filter_list_sent(&self) -> bool {
        match &self.direction {
            Direction::Download => true,
            Direction::Upload(upload) => upload.delete.is_some() || self.prune_empty_dirs,
        }
    }

    /// The option letters, in the order rsync's own client has.
    pub(super) fn letters(&self) -> String {
        let none = UploadOptions::default();
        let upload = match &self.direction {
            Direction::Download => &none,
            Direction::Upload(upload) => upload,
        };
        let letters = [
            (upload.backup, 'b'),
            (upload.update, 'u'),
            (self.dry_run, 'n'),
            (self.links, 'l'),
            (self.recursion == Recursion::Dirs, 'd'),
            (upload.keep_dirlinks, 'K'),
            (self.prune_empty_dirs, 'm'),
            (upload.omit_dir_times, 'O'),
            (upload.omit_link_times, 'J'),
            (self.whole_file, 'W'),
            (self.hard_links, 'H'),
            (self.owner, 'o'),
            (self.group, 'g'),
            (self.devices, 'D'),
            (self.times, 't'),
            (self.atimes, 'U'),
            (self.permissions, 'p'),
            (upload.executability, 'E'),
            (self.recursion == Recursion::Recursive, 'r'),
            (self.checksum, 'c'),
            (self.relative, 'R'),
            (self.one_file_system, 'x'),
            (upload.sparse, 'S'),
            (self.compress, 'z'),
        ];
        letters.into_iter().filter_map(|(is_on, letter)| is_on.then_some(letter)).collect()
    }

    /// Adds the long options.
    pub(super) fn put_long(&self, words: &mut Vec<Vec<u8>>) -> Result<(), CommandError> {
        if let Direction::Upload(upload) = &self.direction {
            upload.put_long(words)?;
        }
        put_flags(
            words,
            &[
                (self.numeric_ids, "--numeric-ids"),
                (self.ignore_errors, "--ignore-errors"),
                (self.remove_source_files, "--remove-source-files"),
                (self.safe_links, "--safe-links"),
                (self.copy_unsafe_links, "--copy-unsafe-links"),
            ],
        );
        let in_place: &[&str] = match self.in_place {
            None => &[],
            Some(InPlace::Update) => &["--inplace"],
            Some(InPlace::Append) => &["--append"],
            Some(InPlace::AppendVerify) => &["--append", "--append"],
        };
        words.extend(in_place.iter().map(|word| word.as_bytes().to_vec()));
        match self.compress_choice {
            None => {}
            // Older servers know these two by options of their own.
            Some(Compressor::Zlibx) => words.push(b"--new-compress".to_vec()),
            Some(Compressor::Zlib) => words.push(b"--old-compress".to_vec()),
            Some(choice @ (Compressor::Zstd | Compressor::Lz4)) => {
                put_value(words, "--compress-choice", choice.name());
            }
        }
        for (option, value) in [
            ("--compress-level", self.compress_level.map(i64::from)),
            ("--checksum-seed", self.checksum_seed.map(i64::from)),
            ("--timeout", self.timeout.map(i64::from)),
            ("--bwlimit", self.bwlimit.map(i64::from)),
        ] {
            if let Some(value) = value {
                put_value(words, option, value);
            }
        }
        if let Some(len) = self.block_len {
            words.push(format!("-B{len}").into_bytes());
        }
        if let Some(choice) = self.checksum_choice {
            put_value(words, "--checksum-choice", choice.name());
        }
        if self.files_from && self.direction == Direction::Download {
            // With names from the client a server keeps whole paths, unless it is told not to.
            put_flags(
                words,
                &[(true, "--files-from=-"), (true, "--from0"), (!self.relative, "--no-relative")],
            );
        }
        Ok(())
    }
}

impl UploadOptions {
    fn put_long(&self, words: &mut Vec<Vec<u8>>) -> Result<(), CommandError> {
        if let Some(delete) = self.delete {
            words.push(match delete.when {
                DeleteWhen::Any => b"--delete".to_vec(),
                DeleteWhen::Before => b"--delete-before".to_vec(),
                DeleteWhen::During => b"--delete-during".to_vec(),
                DeleteWhen::Delay => b"--delete-delay".to_vec(),
                DeleteWhen::After => b"--delete-after".to_vec(),
            });
            put_flags(words, &[(delete.excluded, "--delete-excluded")]);
            match delete.max {
                None => {}
                // None at all is -1 to a server.
                Some(0) => put_value(words, "--max-delete", -1),
                Some(max) => put_value(words, "--max-delete", max),
            }
        }
        put_flags(
            words,
            &[
                (self.force, "--force"),
                (self.partial == Some(Partial::InPlace), "--partial"),
                (self.delay_updates, "--delay-updates"),
                (self.size_only, "--size-only"),
                (self.existing, "--existing"),
                (self.ignore_existing, "--ignore-existing"),
                (self.fsync, "--fsync"),
                (self.mkpath, "--mkpath"),
            ],
        );
        if let Some(Partial::Dir(path)) = &self.partial {
            put_path(words, "--partial-dir", path)?;
        }
        for (option, path) in [("--backup-dir", &self.backup_dir), ("--temp-dir", &self.temp_dir)] {
            if let Some(path) = path {
                put_path(words, option, path)?;
            }
        }
        for BasisDir { kind, path } in &self.basis_dirs {
            let option = match kind {
                BasisKind::Link => "--link-dest",
                BasisKind::Copy => "--copy-dest",
                BasisKind::Compare => "--compare-dest",
            };
            put_path(words, option, path)?;
        }
        for (option, bytes) in [("--suffix=", &self.suffix), ("--log-format=", &self.log_format)] {
            if let Some(bytes) = bytes {
                words.push([option.as_bytes(), bytes].concat());
            }
        }
        for (option, value) in [
            ("--max-size", self.max_size),
            ("--min-size", self.min_size),
            ("--modify-window", self.modify_window.map(u64::from)),
        ] {
            if let Some(value) = value {
                put_value(words, option, value);
            }
        }
        Ok(())
    }
}

fn put_flags(words: &mut Vec<Vec<u8>>, flags: &[(bool, &str)]) {
    words.extend(flags.iter().filter(|(is_on, _)| *is_on).map(|(_, word)| word.as_bytes().to_vec()));
}

fn put_value(words: &mut Vec<Vec<u8>>, option: &str, value: impl std::fmt::Display) {
    words.push(format!("{option}={value}").into_bytes());
}

/// A path takes a word of its own.
fn put_path(words: &mut Vec<Vec<u8>>, option: &'static str, path: &[u8]) -> Result<(), CommandError> {
    if path.is_empty() {
        return Err(CommandError::EmptyValue(option));
    }
    words.extend([option.as_bytes().to_vec(), path.to_vec()]);
    Ok(())
}
