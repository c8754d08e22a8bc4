//! What a client that receives does.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rsync_wire::apply::Apply;
use rsync_wire::checksum::{Digest, Hasher};
use rsync_wire::command::{InPlace, put_names};
use rsync_wire::file_list::{Entry, FileList, Item, Kind, ListDecoder, ListLimits};
use rsync_wire::filter::{Excluded, Rule, ServerRole, put_filter_list};
use rsync_wire::mux::Notice;
use rsync_wire::role::{Arrival, Expected, Generator, ItemFlags, Receiver};
use rsync_wire::sums::{Strength, SumHead, SumWriter};
use rsync_wire::token::Token;

use super::{Ended, Framing, Session, Setup};
use crate::tree::place;

/// A download that has not begun.
pub(crate) struct Download<'a> {
    pub(crate) setup: Setup<'a>,
    target: PathBuf,
    pub(crate) rules: Vec<Rule>,
    /// What becomes of excluded files, which rules for a side depend on.
    pub(crate) excluded: Excluded,
    /// The names that are wanted, with `--files-from`.
    pub(crate) names: Vec<&'a [u8]>,
    /// Whether a file that is in its place is told to have arrived, by its name.
    pub(crate) confirm: Box<dyn FnMut(&str) -> Confirmed + 'a>,
    /// What is done between the list and the first request.
    pub(crate) before_requests: Box<dyn FnOnce(&mut Session) + 'a>,
}

/// Whether the server is told that a file has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confirmed {
    Yes,
    No,
}

/// What became of a download.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) ended: Ended,
    pub(crate) list: FileList,
    /// Files that were asked for.
    pub(crate) asked: Vec<String>,
    /// Files that arrived wrong the first time.
    pub(crate) redone: Vec<String>,
    /// Bytes that came, and that were there.
    pub(crate) literal: u64,
    pub(crate) matched: u64,
}

impl<'a> Download<'a> {
    /// Into a folder.
    pub(crate) fn new(setup: Setup<'a>, target: &Path) -> Self {
        Self {
            setup,
            target: target.to_owned(),
            rules: Vec::new(),
            excluded: Excluded::Kept,
            names: Vec::new(),
            confirm: Box::new(|_| Confirmed::No),
            before_requests: Box::new(|_| {}),
        }
    }

    /// Does it, to the server's end.
    pub(crate) fn go(mut self) -> Got {
        let mut session = Session::start(self.setup);
        let mut said = Vec::new();
        put_filter_list(&mut said, &self.rules, ServerRole::Sender, self.excluded).unwrap();
        session.out.put_data(&said);
        if session.options.files_from {
            put_names(&mut session.out, session.agreed.protocol, &self.names).unwrap();
        }
        let list = read_list(&mut session);
        (self.before_requests)(&mut session);
        let mut run = Run {
            generator: Generator::new(session.terms()),
            session,
            list,
            target: self.target,
            open: HashMap::new(),
            asked: Vec::new(),
            redone: Vec::new(),
            moved: Moved::default(),
        };
        run.request_all();
        run.receive(&mut self.confirm);
        let Run { session, list, asked, redone, moved: Moved { literal, matched }, .. } = run;
        Got { ended: session.end(), list, asked, redone, literal, matched }
    }
}

/// The list to its end; there is nothing behind it before something is asked for.
fn read_list(session: &mut Session) -> FileList {
    let mut decoder = ListDecoder::new(session.options.to_layout(&session.agreed), ListLimits::default());
    let mut entries = Vec::new();
    while !decoder.is_ended() {
        let data = session.read_more();
        let mut data = &data[..];
        while let Some(item) = decoder.next_item(&mut data).unwrap() {
            match item {
                Item::Entry(entry) => entries.push(entry),
                Item::End(end) => session.verdict.on_errors(end.errors),
            }
        }
        assert!(data.is_empty(), "the server waits for requests");
    }
    let list = FileList::new(entries).unwrap();
    list.check_tree().unwrap();
    list
}

/// A download under way.
struct Run {
    session: Session,
    generator: Generator,
    list: FileList,
    target: PathBuf,
    /// Requests that are not answered.
    open: HashMap<u32, Expected>,
    asked: Vec<String>,
    redone: Vec<String>,
    moved: Moved,
}

/// Bytes that came, and that were there.
#[derive(Debug, Default)]
struct Moved {
    literal: u64,
    matched: u64,
}

impl Run {
    /// Makes directories, and asks for the files that differ.
    fn request_all(&mut self) {
        let entries: Vec<_> = self.list.active().collect();
        for (index, entry) in entries {
            match entry.kind {
                Kind::Directory(_) if self.session.options.dry_run => {}
                Kind::Directory(_) => fs::create_dir_all(place(&self.target, &entry.name)).unwrap(),
                Kind::File { .. } if !self.is_there(&entry) => self.request(index, &entry, Strength::Sized),
                Kind::File { .. }
                | Kind::Symlink { .. }
                | Kind::BlockDevice(_)
                | Kind::CharDevice(_)
                | Kind::Fifo
                | Kind::Socket => {}
            }
        }
        self.say(|generator, said| generator.end_phase(said));
    }

    fn is_there(&self, entry: &Entry) -> bool {
        let Ok(is) = fs::metadata(place(&self.target, &entry.name)) else { return false };
        match self.session.options.in_place {
            Some(InPlace::Append | InPlace::AppendVerify) => is.len() >= entry.size,
            Some(InPlace::Update) | None => (is.len(), is.mtime()) == (entry.size, entry.mtime.seconds),
        }
    }

    fn request(&mut self, index: u32, entry: &Entry, strength: Strength) {
        let basis = fs::read(place(&self.target, &entry.name)).unwrap_or_default();
        let is_appended =
            matches!(self.session.options.in_place, Some(InPlace::Append | InPlace::AppendVerify));
        let options = &self.session.options;
        let head = match strength {
            Strength::Full if is_appended => SumHead::NONE,
            Strength::Full | Strength::Sized => SumHead::for_basis(
                basis.len() as u64,
                options.block_len,
                strength,
                self.session.agreed.checksum,
            )
            .unwrap(),
        };
        let mut said = Vec::new();
        let expected = self.generator.request(index, ItemFlags::default(), head, &mut said).unwrap();
        if !is_appended && !options.dry_run {
            let mut sums = SumWriter::new(head, self.generator.block_hash());
            sums.push(&basis, &mut said).unwrap();
            sums.finish().unwrap();
        }
        self.session.out.put_data(&said);
        self.open.insert(index, expected);
        self.asked.push(String::from_utf8(entry.name.clone()).unwrap());
    }

    fn say(&mut self, what: impl FnOnce(&mut Generator, &mut Vec<u8>)) {
        let mut said = Vec::new();
        what(&mut self.generator, &mut said);
        self.session.out.put_data(&said);
    }

    /// Takes what comes, to the end of the dialogue.
    fn receive(&mut self, confirm: &mut dyn FnMut(&str) -> Confirmed) {
        // Frames that are longer than the server's need all of its data, and it says all of it only to one that says all, too.
        let is_all_said = self.session.framing != Framing::AsMade;
        if is_all_said {
            self.say(|generator, said| generator.end_requests(said));
            self.say(|generator, said| generator.goodbye(said));
            self.session.read_to_end();
        }
        let mut receiver = Receiver::new(self.session.terms()).unwrap();
        let mut file = None;
        let (mut wrong, mut phase) = (Vec::new(), 0);
        let mut is_finished = false;
        while !is_finished {
            let data = self.session.read_more();
            let mut data = &data[..];
            loop {
                let taken = receiver.next_arrival(data, &mut |index| self.open.remove(&index)).unwrap();
                data = &data[taken.used..];
                match taken.arrival {
                    None => break,
                    Some(Arrival::Begin { .. }) if self.session.options.dry_run => {}
                    Some(Arrival::Begin { index, head }) => {
                        let entry = self.list.entry(index).unwrap();
                        file = Some(Landing::begin(&self.session, &self.target, entry, head, phase));
                    }
                    Some(Arrival::Token(token)) => file.as_mut().unwrap().token(token, &mut self.moved),
                    Some(Arrival::End { index, digest }) => {
                        let landing = file.take().unwrap();
                        let name = String::from_utf8(landing.entry.name.clone()).unwrap();
                        if landing.end(digest) {
                            if confirm(&name) == Confirmed::Yes {
                                self.session.out.put_notice(Notice::Success(index));
                            }
                        } else {
                            assert_eq!(phase, 0, "{name} is wrong again");
                            self.redone.push(name);
                            wrong.push(index);
                        }
                    }
                    Some(Arrival::PhaseEnded(ended)) => {
                        phase = ended;
                        if phase == 1 && !is_all_said {
                            for index in std::mem::take(&mut wrong) {
                                let entry = self.list.entry(index).unwrap();
                                self.request(index, &entry, Strength::Full);
                            }
                            self.say(|generator, said| generator.end_requests(said));
                        }
                    }
                    Some(Arrival::Finished(_)) => is_finished = true,
                }
            }
            assert!(data.is_empty(), "something follows the end");
        }
        assert!(self.open.is_empty() && wrong.is_empty(), "something is missing");
        if !is_all_said {
            self.say(|generator, said| generator.goodbye(said));
            self.session.flush();
        }
    }
}

/// A file that arrives.
struct Landing {
    entry: Entry,
    path: PathBuf,
    apply: Apply,
    /// Where blocks of the basis are, and where the file is written: in place the same.
    basis: Option<File>,
    file: File,
    /// Where it goes on.
    at: u64,
    is_in_place: bool,
}

impl Landing {
    fn begin(session: &Session, target: &Path, entry: Entry, head: SumHead, phase: u8) -> Self {
        let path = place(target, &entry.name);
        let in_place = session.options.in_place;
        let algorithm = session.agreed.checksum;
        let is_appended = matches!(in_place, Some(InPlace::Append | InPlace::AppendVerify)) && phase == 0;
        let (apply, at) = if is_appended {
            let at = head.basis_len();
            let mut hasher = Hasher::new(algorithm);
            if in_place == Some(InPlace::AppendVerify) && at > 0 {
                hasher.update(&fs::read(&path).unwrap());
            }
            (Apply::append(at, hasher, LIMIT), at)
        } else {
            (Apply::new(head, algorithm, LIMIT), 0)
        };
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(if in_place.is_some() { path.clone() } else { beside(&path) }).unwrap();
        Self { entry, basis: File::open(&path).ok(), path, apply, file, at, is_in_place: in_place.is_some() }
    }

    fn token(&mut self, token: Token<'_>, moved: &mut Moved) {
        let (basis, file, at) = (&self.basis, &self.file, self.at);
        let mut written = 0;
        let read_at = |offset, block: &mut [u8]| basis.as_ref().unwrap().read_exact_at(block, offset);
        let write = |bytes: &[u8]| {
            written = bytes.len() as u64;
            file.write_all_at(bytes, at)
        };
        self.apply.token(token, read_at, write).unwrap();
        self.at += written;
        match token {
            Token::Literal(_) => moved.literal += written,
            Token::Match(_) => moved.matched += written,
            Token::End => {}
        }
    }

    /// Whether it is what was sent.
    fn end(self, digest: Digest) -> bool {
        let applied = self.apply.finish();
        self.file.set_len(applied.len).unwrap();
        let is_right = applied.digest == digest;
        if is_right {
            let since = Duration::from_secs(self.entry.mtime.seconds.cast_unsigned());
            self.file.set_modified(UNIX_EPOCH + since).unwrap();
        }
        match (self.is_in_place, is_right) {
            (true, _) => {}
            (false, true) => fs::rename(beside(&self.path), &self.path).unwrap(),
            (false, false) => fs::remove_file(beside(&self.path)).unwrap(),
        }
        is_right
    }
}

/// Where a file is before it is in its place.
fn beside(path: &Path) -> PathBuf {
    path.with_file_name(".arriving")
}

/// No file of a test is longer.
const LIMIT: u64 = 1 << 30;
