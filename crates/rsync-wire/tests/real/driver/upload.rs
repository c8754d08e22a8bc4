//! What a client that sends does.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rsync_wire::checksum::Digest;
use rsync_wire::command::{Direction, InPlace};
use rsync_wire::delta::{Op, Search};
use rsync_wire::file_list::{Entry, FileList, ListEncoder};
use rsync_wire::filter::{Excluded, Rule, ServerRole, put_filter_list};
use rsync_wire::io_errors::IoErrors;
use rsync_wire::role::{Ask, ExitCode, ItemFlags, Request, Sender};

use super::{Ended, Session, Setup};
use crate::tree::{list, place};

/// An upload that has not begun.
pub(crate) struct Upload<'a> {
    pub(crate) setup: Setup<'a>,
    root: PathBuf,
    /// What is listed; at first all there is.
    pub(crate) entries: Vec<Entry>,
    /// What went wrong while the list was made.
    pub(crate) errors: IoErrors,
    pub(crate) rules: Vec<Rule>,
    /// What becomes of a request, by the name of the file.
    pub(crate) answer: Box<dyn FnMut(&str) -> Answer + 'a>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The file is sent.
    File,
    /// So many bytes are sent before reading fails.
    Failing(usize),
    /// The file is not sent.
    Refused(IoErrors),
}

/// What became of an upload.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) ended: Ended,
    pub(crate) list: FileList,
    /// The indexes of the files that were asked for, each with how many phases had ended.
    pub(crate) asked: Vec<(u8, u32)>,
    /// All that was said of entries.
    pub(crate) items: Vec<(u32, ItemFlags)>,
    /// Bytes that were sent, and that were there.
    pub(crate) literal: u64,
    pub(crate) matched: u64,
}

impl<'a> Upload<'a> {
    /// The content of a folder.
    pub(crate) fn new(setup: Setup<'a>, root: &Path) -> Self {
        let entries = list(root, &setup.options, setup.age.protocol);
        Self {
            setup,
            root: root.to_owned(),
            entries,
            errors: IoErrors::NONE,
            rules: Vec::new(),
            answer: Box::new(|_| Answer::File),
        }
    }

    /// Does it, to the server's end.
    pub(crate) fn go(mut self) -> Sent {
        let mut session = Session::start(self.setup);
        let Direction::Upload(upload) = &session.options.direction else { unreachable!("this is an upload") };
        let excluded = if upload.delete.is_some_and(|delete| delete.excluded) {
            Excluded::Deleted
        } else {
            Excluded::Kept
        };
        let mut said = Vec::new();
        if session.options.is_filter_list_sent() {
            put_filter_list(&mut said, &self.rules, ServerRole::Receiver, excluded).unwrap();
        }
        let mut encoder = ListEncoder::new(session.options.to_layout(&session.agreed));
        for entry in &self.entries {
            encoder.put_entry(&mut said, entry).unwrap();
        }
        encoder.put_end(&mut said, self.errors, &[], &[]).unwrap();
        session.verdict.on_errors(self.errors);
        session.out.put_data(&said);

        let list = FileList::new(&self.entries).unwrap();
        let mut sender = Sender::new(session.terms(), &list, None).unwrap();
        let (mut asked, mut items, mut phase, mut work) = (Vec::new(), Vec::new(), 0, (0, 0));
        while !sender.is_finished() {
            let data = session.read_more();
            let mut input = &data[..];
            while let Some(ask) = sender.next_ask(&mut input, &mut session.out).unwrap() {
                match ask {
                    Ask::File(request) => {
                        let index = request.index;
                        items.push((index, request.record.flags));
                        let name = list.entry(index).unwrap().name;
                        let answer = (self.answer)(std::str::from_utf8(&name).unwrap());
                        let content = fs::read(place(&self.root, &name)).unwrap();
                        let done = answer_with(answer, &content, *request, &mut sender, &mut session);
                        work = (work.0 + done.0, work.1 + done.1);
                        asked.push((phase, index));
                    }
                    Ask::Item { index, record } => {
                        items.push((index, record.flags));
                        if record.flags.contains(ItemFlags::TRANSFER) {
                            // In a dry run.
                            asked.push((phase, index));
                        }
                    }
                    Ask::Finished => {}
                    Ask::PhaseEnded(ended) => phase = ended,
                }
            }
            assert!(input.is_empty(), "something follows the end");
        }
        let (literal, matched) = work;
        Sent { ended: session.end(), list, asked, items, literal, matched }
    }
}

/// Answers a request; bytes that were sent, and that were there.
fn answer_with(
    answer: Answer,
    content: &[u8],
    request: Request,
    sender: &mut Sender,
    session: &mut Session,
) -> (u64, u64) {
    let algorithm = session.agreed.checksum;
    let from = request.append_from as usize;
    let (content, digest): (_, Digest) = match answer {
        Answer::Refused(errors) => {
            session.verdict.on_errors(errors);
            sender.refuse(&request, errors, &mut session.out);
            return (0, 0);
        }
        Answer::Failing(after) => {
            session.verdict.on_errors(IoErrors::GENERAL);
            sender.add_errors(IoErrors::GENERAL);
            (&content[from..after], algorithm.digest(&content[..after]).spoilt())
        }
        Answer::File if session.options.in_place == Some(InPlace::Append) => {
            (&content[from..], algorithm.digest(&content[from..]))
        }
        Answer::File => (&content[from..], algorithm.digest(content)),
    };
    sender.begin(&request, &mut session.out).unwrap();
    let mut search = Search::new(request.sums, sender.block_hash(), request.basis);
    search.push(content);
    search.finish();
    while let Some(op) = search.next_op() {
        match op {
            Op::Literal(bytes) => sender.literal(bytes, &mut session.out).unwrap(),
            Op::Match(block) => sender.matched(block, &mut session.out).unwrap(),
        }
    }
    sender.end(digest, &mut session.out).unwrap();
    (search.work().literal, search.work().matched)
}

impl Sent {
    /// The names of the files that were asked for after so many phases.
    pub(crate) fn asked_in(&self, phase: u8) -> Vec<String> {
        let indexes = self.asked.iter().filter(|(after, _)| *after == phase);
        indexes.map(|(_, index)| String::from_utf8(self.list.entry(*index).unwrap().name).unwrap()).collect()
    }

    /// Removes the files that are told to have arrived, if they are still those that were listed.
    pub(crate) fn remove_arrived(&self, root: &Path) {
        for index in self.ended.arrived() {
            let entry = self.list.entry(index).unwrap();
            let path = place(root, &entry.name);
            let is = fs::symlink_metadata(&path).unwrap();
            if (is.len(), is.mtime()) == (entry.size, entry.mtime.seconds) {
                fs::remove_file(path).unwrap();
            }
        }
    }

    /// Files failed, and nothing else did.
    #[track_caller]
    pub(crate) fn assert_partial(&self) {
        assert_eq!((self.ended.code, self.ended.unread), (ExitCode::PARTIAL, 0), "{:?}", self.ended);
    }
}
