//! The client, and whole files by the engine's rules, on a service that is slow, terse, broken or gone at every step.

use std::fs::{self, Permissions};
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use ssh_mcp_core::kind::transfer::{Failure, Resume};
use ssh_mcp_core::port::BoxFuture;
use ssh_mcp_core::port::fs::{
    Attributes, FsError, FsErrorKind, FsMount, Limits, LinkOrder, Links, Open, RemoteFs, Replaced, Synced,
};
use ssh_mcp_core::port::ssh::{ChannelEvent, LinkLost};
use ssh_mcp_engine::transfer::claims::Claims;
use ssh_mcp_engine::transfer::file::{self, Ask, Destination, Download, Fault, Outcome, Refusal, Upload};
use ssh_mcp_engine::transfer::local::Local;
use ssh_mcp_engine::transfer::remote::{Remote, VerifyMethod};
use ssh_mcp_sftp::Sftp;

use crate::openssh::pattern;
use crate::scripted::{
    ALL, ALWAYS, Behaviour, Fate, Garble, Order, ScriptedFiles, Step, Upset, packet, string,
};
use crate::transfers::NoProgram;

/// Where uploads go and downloads come from.
const THERE: &[u8] = b"/d/there";
/// Where the bytes of an upload go first.
const PART: &[u8] = b"/d/.there.ssh-mcp-part";

/// Bytes of one request, and requests under way.
const CHUNK: usize = 1000;
const DEPTH: usize = 3;

/// How a transfer ended, or did not begin.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Done(Outcome),
    Refused(FsErrorKind),
    Failed(Failure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// Both sides of a transfer.
struct Sides {
    there: ScriptedFiles,
    folder: tempfile::TempDir,
    content: Vec<u8>,
    way: Way,
}

impl Sides {
    fn new(way: Way, content: Vec<u8>) -> Self {
        let sides = Self { there: ScriptedFiles::new(), folder: tempfile::tempdir().unwrap(), content, way };
        match way {
            Way::Up => fs::write(sides.here(), &sides.content).unwrap(),
            Way::Down => sides.there.put(THERE, &sides.content),
        }
        sides
    }

    fn here(&self) -> PathBuf {
        self.folder.path().join("here")
    }

    /// What has arrived, or what of it: of a swap, the half first.
    fn arrived(&self) -> Vec<u8> {
        let here = |name: &str| fs::read(self.folder.path().join(name)).ok();
        let arrived = match self.way {
            Way::Up => self.there.content(PART).or_else(|| self.there.content(THERE)),
            Way::Down => here(".here.ssh-mcp-part").or_else(|| here("here")),
        };
        arrived.unwrap_or_default()
    }

    /// Permission bits of the source.
    fn set_mode(&self, mode: u32) {
        match self.way {
            Way::Up => fs::set_permissions(self.here(), Permissions::from_mode(mode)).unwrap(),
            Way::Down => self.there.set_mode(THERE, mode),
        }
    }

    /// Those of the destination.
    fn mode(&self) -> Option<u32> {
        let here = || Some(fs::metadata(self.here()).ok()?.permissions().mode() & 0o7777);
        match self.way {
            Way::Up => self.there.mode(THERE),
            Way::Down => here(),
        }
    }

    fn ask(&self) -> Ask {
        let (local, remote) = (self.here(), THERE.to_vec());
        Ask {
            local,
            remote,
            destination: Destination::Named,
            resume: Resume::No,
            verify: true,
            atomic: true,
            preserve: true,
        }
    }

    /// Goes all the way, on a channel that behaves like this.
    async fn go(&self, behaviour: Behaviour, ask: Ask) -> End {
        let remote = remote(&self.there, behaviour).await;
        self.go_on(&remote, ask).await
    }

    async fn go_on(&self, remote: &Remote, ask: Ask) -> End {
        let sides = &with(remote);
        let ended = within(async {
            match self.way {
                Way::Up => Ok(Upload::prepare(sides, ask).await?.run(sides, |_| {}).await),
                Way::Down => Ok(Download::prepare(sides, ask).await?.run(sides, |_| {}).await),
            }
        });
        match ended.await {
            Ok(Ok(outcome)) => End::Done(outcome),
            Ok(Err(Fault { failure, .. })) => End::Failed(failure),
            Err(Refusal::Remote { error, .. }) => End::Refused(error.kind),
            Err(refusal) => panic!("{refusal}"),
        }
    }

    /// What has arrived can be continued, and then all of it is there.
    async fn completes(&self, told: &str) {
        let arrived = self.arrived();
        assert!(self.content.starts_with(&arrived), "{told}: {} bytes that are no prefix", arrived.len());
        let end = self.go(Behaviour::default(), Ask { resume: Resume::Yes, ..self.ask() }).await;
        assert_eq!(end, DONE, "{told}");
        assert!(self.arrived() == self.content, "{told}");
        assert_eq!(self.there.complaints(), [""; 0], "{told}");
    }
}

const DONE: End =
    End::Done(Outcome { verified: Some(VerifyMethod::Sftp), source_changed: false, not_atomic: false });

async fn mount(there: &ScriptedFiles, behaviour: Behaviour) -> Result<Arc<dyn RemoteFs>, FsError> {
    within(Sftp.mount(there.channel(behaviour))).await
}

async fn remote(there: &ScriptedFiles, behaviour: Behaviour) -> Remote {
    Remote {
        files: mount(there, behaviour).await.unwrap(),
        hasher: Arc::new(NoProgram),
        chunk: Some(CHUNK as u32),
        depth: Some(DEPTH),
        patience: Duration::from_secs(60),
    }
}

/// This side, and that one.
fn with(there: &Remote) -> file::Sides {
    file::Sides {
        here: Local::unrestricted(),
        there: there.clone(),
        claims: Claims::new(Arc::default(), "host"),
        most_entries: 1000,
    }
}

/// Tells a hang from a wait.
async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("it hangs")
}

fn kind<T>(result: Result<T, FsError>) -> FsErrorKind {
    result.err().expect("it was done").kind
}

/// What the request is for, and so what its failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A look at what is there, which may be nothing.
    Look,
    /// Anything else before it begins.
    Before,
    /// Nothing depends on it.
    Aside,
    /// The destination is opened.
    Open,
    During,
    /// The hash of the far side.
    Verify,
}

/// The requests of a transfer of five chunks that is verified, keeps times and swaps, in their order.
const UP: &[(Step, usize, Phase)] = &[
    (Step::Stat, 0, Phase::Look),
    (Step::Statvfs, 0, Phase::Aside),
    (Step::Open, 0, Phase::Open),
    (Step::Write, 0, Phase::During),
    (Step::Write, 2, Phase::During),
    (Step::Write, 4, Phase::During),
    (Step::Fsync, 0, Phase::During),
    (Step::Fsetstat, 0, Phase::During),
    (Step::Close, 0, Phase::During),
    (Step::Open, 1, Phase::Verify),
    (Step::Fstat, 0, Phase::Verify),
    (Step::Read, 0, Phase::Verify),
    (Step::Read, 4, Phase::Verify),
    (Step::PosixRename, 0, Phase::During),
];

const DOWN: &[(Step, usize, Phase)] = &[
    (Step::Stat, 0, Phase::Before),
    (Step::Open, 0, Phase::Before),
    (Step::Fstat, 0, Phase::Before),
    (Step::Read, 0, Phase::During),
    (Step::Read, 2, Phase::During),
    (Step::Read, 4, Phase::During),
    (Step::Fstat, 1, Phase::During),
    (Step::Open, 1, Phase::Verify),
    (Step::Fstat, 2, Phase::Verify),
    (Step::Read, 5, Phase::Verify),
    (Step::Read, 9, Phase::Verify),
];

/// Whether the service goes on behind what went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Lives,
    Dies,
}

/// How a transfer ends if the request of that phase fails in that way.
fn end(phase: Phase, kind: FsErrorKind, then: Then) -> End {
    match (phase, kind, then) {
        (Phase::Look, FsErrorKind::NotFound, _) | (Phase::Aside, _, Then::Lives) => DONE,
        (Phase::Look | Phase::Before, kind, _) => End::Refused(kind),
        (Phase::Open, FsErrorKind::NotFound, _) => End::Failed(Failure::RemoteDirNotFound),
        (Phase::Verify, ..) => End::Failed(Failure::VerifyUnavailable),
        (Phase::Aside | Phase::Open | Phase::During, kind, _) => End::Failed(kind.into()),
    }
}

/// Lets one thing go wrong at every step of both ways.
async fn at_every_step(told: &str, fate: Fate, kind: FsErrorKind, then: Then) {
    for (way, steps) in [(Way::Up, UP), (Way::Down, DOWN)] {
        for &(step, nth, phase) in steps {
            let told = format!("{told} at {step:?} {nth}, {way:?}");
            let sides = Sides::new(way, pattern(4 * CHUNK + 1));
            let mut remote = remote(&sides.there, Behaviour::upset(step, nth, fate.clone())).await;
            if kind == FsErrorKind::TimedOut {
                remote.patience = Duration::from_millis(200);
            }
            let ended = sides.go_on(&remote, sides.ask()).await;
            assert_eq!(ended, end(phase, kind, then), "{told}");
            let asked = sides.there.seen().into_iter().filter(|seen| *seen == step).count();
            assert!(asked > nth, "{told}: it was not asked for");
            sides.completes(&told).await;
        }
    }
}

#[tokio::test]
async fn a_status_at_any_step_is_a_failure_of_its_kind_and_leaves_a_prefix() {
    for (code, words, kind) in [
        (2, "No such file", FsErrorKind::NotFound),
        (3, "Permission denied", FsErrorKind::Denied),
        (4, "Failure", FsErrorKind::Failed),
        (4, "", FsErrorKind::Failed),
        (4, "write: No space left on device", FsErrorKind::NoSpace),
        (4, "Disk quota exceeded", FsErrorKind::NoSpace),
        (4, "Read-only file system", FsErrorKind::ReadOnly),
        (5, "Bad message", FsErrorKind::Protocol),
        (6, "No connection", FsErrorKind::Gone),
        (7, "Connection lost", FsErrorKind::Gone),
        (8, "Operation unsupported", FsErrorKind::Unsupported),
        (4_000_000_000, "what no draft has", FsErrorKind::Failed),
    ] {
        at_every_step(&format!("{code} {words}"), Fate::Status(code, words), kind, Then::Lives).await;
    }
}

#[tokio::test]
async fn a_service_that_ends_at_any_step_is_a_lost_connection() {
    let lost = ChannelEvent::Lost(LinkLost { cause: "reset".to_owned() });
    for event in [ChannelEvent::Closed, ChannelEvent::ExitStatus(255), ChannelEvent::Eof, lost] {
        at_every_step(&format!("{event:?}"), Fate::End(event), FsErrorKind::Gone, Then::Dies).await;
    }
}

// In real time: a paused clock stands still while the thread of the file waits.
#[tokio::test]
async fn a_server_that_never_answers_is_given_up_at_any_step() {
    at_every_step("silence", Fate::Silence, FsErrorKind::TimedOut, Then::Lives).await;
}

#[tokio::test]
async fn what_is_no_answer_is_a_breach_at_any_step() {
    let garbled: [(&str, Garble, Then); 7] = [
        ("another number", |answer| edited(answer, 5, &[0xee; 4]), Then::Dies),
        ("a type there is none of", |answer| edited(answer, 4, &[77]), Then::Dies),
        ("a request", |answer| edited(answer, 4, &[3]), Then::Dies),
        ("4 GiB", |answer| edited(answer, 0, &[0xff; 4]), Then::Dies),
        ("no number", |answer| string(&answer[4..7]), Then::Dies),
        ("half a status", |answer| string(&[&[101], &answer[5..11]].concat()), Then::Dies),
        // Well-formed, and an answer to a question nobody asked.
        ("names", |answer| packet(number(answer), (104, vec![0; 4])), Then::Lives),
    ];
    for (told, garble, then) in garbled {
        at_every_step(told, Fate::Garbled(garble), FsErrorKind::Protocol, then).await;
    }
    let text = |_: &[u8]| b"Broadcast message: going down\n".to_vec();
    at_every_step("text", Fate::Garbled(text), FsErrorKind::Protocol, Then::Dies).await;
}

fn edited(answer: &[u8], at: usize, by: &[u8]) -> Vec<u8> {
    let mut answer = answer.to_vec();
    answer[at..at + by.len()].copy_from_slice(by);
    answer
}

fn number(answer: &[u8]) -> u32 {
    u32::from_be_bytes(*answer[5..].first_chunk().unwrap())
}

/// All that a well-behaved server may choose.
fn well_behaved() -> impl Strategy<Value = Behaviour> {
    let upto = |most: usize| prop_oneof![Just(usize::MAX), 1..most];
    let limits = prop_oneof![
        Just([256 * 1024, 255 * 1024, 255 * 1024, 0]),
        Just([0, 0, 0, 0]),
        (700_u64..2000, 700_u64..2000).prop_map(|(read, write)| [256 * 1024, read, write, 0]),
    ];
    let extensions = select(vec![ALL, &ALL[..3], &[]]);
    let order = select(vec![Order::Asked, Order::Any]);
    (any::<u64>(), order, upto(300), upto(2 * CHUNK), limits, extensions).prop_map(
        |(seed, order, pieces, most_read, limits, extensions)| Behaviour {
            seed,
            order,
            pieces,
            most_read,
            limits,
            extensions,
            ..Behaviour::default()
        },
    )
}

/// Lengths about the borders of chunks and of what is under way at a time.
fn length() -> impl Strategy<Value = usize> {
    let chunks = select(vec![0, 1, 2, DEPTH, 2 * DEPTH]);
    (chunks, 0_usize..3).prop_map(|(chunks, off)| (chunks * CHUNK + off).saturating_sub(1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn files_arrive_whole_however_the_server_answers(
        behaviour in well_behaved(),
        length in length(),
        held in prop_oneof![Just(0.0), 0.0..1.0],
        way in select(vec![Way::Up, Way::Down]),
        atomic: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let sides = Sides::new(way, pattern(length));
        let held = &sides.content[..(length as f64 * held) as usize];
        match (way, atomic) {
            (Way::Up, false) => sides.there.put(THERE, held),
            (Way::Up, true) => sides.there.put(PART, held),
            (Way::Down, false) => fs::write(sides.here(), held).unwrap(),
            (Way::Down, true) => fs::write(sides.folder.path().join(".here.ssh-mcp-part"), held).unwrap(),
        }
        let swaps_at_once = behaviour.extensions == ALL || behaviour.extensions == &ALL[..3];
        let not_atomic = way == Way::Up && atomic && !swaps_at_once;
        let ask = Ask { atomic, resume: Resume::Yes, ..sides.ask() };
        let ended = runtime.block_on(sides.go(behaviour, ask));
        let verified = Some(VerifyMethod::Sftp);
        prop_assert_eq!(ended, End::Done(Outcome { verified, not_atomic, source_changed: false }));
        prop_assert!(sides.arrived() == sides.content);
        prop_assert_eq!(sides.there.complaints(), [""; 0]);
        prop_assert!(!sides.there.seen().is_empty());
    }
}

#[tokio::test]
async fn a_transfer_that_fails_has_closed_what_it_opened() {
    for (way, steps) in [(Way::Up, UP), (Way::Down, DOWN)] {
        for &(step, nth, _) in steps.iter().filter(|(step, ..)| *step != Step::Close) {
            let sides = Sides::new(way, pattern(4 * CHUNK + 1));
            let behaviour = Behaviour::upset(step, nth, Fate::Status(4, "Failure"));
            let remote = remote(&sides.there, behaviour).await;
            let ended = sides.go_on(&remote, sides.ask()).await;
            assert!(step == Step::Statvfs || !matches!(ended, End::Done(_)), "{step:?} {nth}");
            // Requests are served in their order: whatever was to be closed is, by the time of this answer.
            within(remote.files.real_path(b".")).await.unwrap();
            assert_eq!(sides.there.handles(), 0, "{step:?} {nth}, {way:?}");
        }
    }
}

#[tokio::test]
async fn what_goes_wrong_with_the_hash_of_a_prefix_refuses_and_touches_nothing() {
    let denied = (Fate::Status(3, "Permission denied"), FsErrorKind::Denied);
    let closed = (Fate::End(ChannelEvent::Closed), FsErrorKind::Gone);
    let silent = (Fate::Silence, FsErrorKind::TimedOut);
    let steps = [(Step::Open, 0, 1), (Step::Read, 0, 0), (Step::Read, 1, 1)];
    for (fate, kind) in [denied, closed, silent] {
        for (way, (step, up, down)) in
            [Way::Up, Way::Down].into_iter().flat_map(|way| steps.map(|step| (way, step)))
        {
            let nth = if way == Way::Up { up } else { down };
            let sides = Sides::new(way, pattern(4 * CHUNK));
            let held = &sides.content[..CHUNK + 1];
            match way {
                Way::Up => sides.there.put(PART, held),
                Way::Down => fs::write(sides.folder.path().join(".here.ssh-mcp-part"), held).unwrap(),
            }
            let mut remote = remote(&sides.there, Behaviour::upset(step, nth, fate.clone())).await;
            if kind == FsErrorKind::TimedOut {
                remote.patience = Duration::from_millis(200);
            }
            let ended = sides.go_on(&remote, Ask { resume: Resume::Yes, ..sides.ask() }).await;
            assert_eq!(ended, End::Refused(kind), "{step:?} {nth}, {way:?}");
            assert_eq!(sides.arrived(), held, "{step:?} {nth}, {way:?}");
        }
    }
}

#[tokio::test]
async fn a_read_only_source_can_be_continued_and_is_read_only_at_the_end() {
    for (way, step) in [(Way::Up, Step::Write), (Way::Down, Step::Read)] {
        let sides = Sides::new(way, pattern(10_000));
        sides.set_mode(0o444);
        let ask = || Ask { atomic: false, preserve: false, ..sides.ask() };
        let torn = Behaviour::upset(step, 5, Fate::Status(4, "Failure"));
        assert_eq!(sides.go(torn, ask()).await, End::Failed(Failure::IoError));
        assert_eq!(sides.mode().map(|mode| mode & 0o700), Some(0o600), "{way:?}");
        let going_on = Ask { resume: Resume::Yes, ..ask() };
        assert_eq!(sides.go(Behaviour::default(), going_on).await, DONE);

        let sides = Sides::new(way, pattern(10_000));
        sides.set_mode(0o444);
        let ask = Ask { atomic: false, preserve: false, ..sides.ask() };
        assert_eq!(sides.go(Behaviour::default(), ask).await, DONE);
        assert_eq!(sides.mode().map(|mode| mode & 0o700), Some(0o400), "{way:?}");
    }
}

#[tokio::test]
async fn what_takes_another_s_place_has_its_permissions() {
    for way in [Way::Up, Way::Down] {
        let sides = Sides::new(way, pattern(10_000));
        match way {
            Way::Up => {
                sides.there.put(THERE, b"the old one");
                sides.there.set_mode(THERE, 0o600);
            }
            Way::Down => {
                fs::write(sides.here(), b"the old one").unwrap();
                fs::set_permissions(sides.here(), Permissions::from_mode(0o600)).unwrap();
            }
        }
        let ask = Ask { preserve: false, ..sides.ask() };
        assert_eq!(sides.go(Behaviour::default(), ask).await, DONE);
        assert!(sides.arrived() == sides.content);
        assert_eq!(sides.mode(), Some(0o600), "{way:?}");
    }
}

#[tokio::test]
async fn what_is_no_file_is_not_replaced_either() {
    let sides = Sides::new(Way::Down, pattern(10_000));
    let _socket = UnixListener::bind(sides.here()).unwrap();
    let both = with(&remote(&sides.there, Behaviour::default()).await);
    for atomic in [false, true] {
        let refused = Download::prepare(&both, Ask { atomic, ..sides.ask() }).await.err();
        assert!(matches!(refused, Some(Refusal::LocalNotFile(_))), "{atomic}: {refused:?}");
    }
}

#[tokio::test]
async fn room_is_what_is_free_and_what_the_destination_gives_up() {
    // 100 bytes are free.
    let full: Garble = |answer| edited(answer, 41, &100_u64.to_be_bytes());
    for (len, atomic, end) in [
        (10_050, false, DONE),
        (10_150, false, End::Failed(Failure::DiskFull)),
        (10_050, true, End::Failed(Failure::DiskFull)),
    ] {
        let sides = Sides::new(Way::Up, pattern(len));
        sides.there.put(THERE, &[0; 10_000]);
        let behaviour = Behaviour::upset(Step::Statvfs, ALWAYS, Fate::Garbled(full));
        assert_eq!(sides.go(behaviour, Ask { atomic, ..sides.ask() }).await, end, "{len} {atomic}");
    }
}

#[tokio::test]
async fn a_source_older_than_1970_has_not_changed() {
    let sides = Sides::new(Way::Up, pattern(10_000));
    let then = std::time::SystemTime::UNIX_EPOCH - Duration::from_millis(1500);
    fs::File::options().write(true).open(sides.here()).unwrap().set_modified(then).unwrap();
    assert_eq!(sides.go(Behaviour::default(), sides.ask()).await, DONE);
}

#[tokio::test]
async fn a_destination_is_taken_as_long_as_a_thread_writes_to_it() {
    let sides = Sides::new(Way::Down, pattern(10_000));
    let both = with(&remote(&sides.there, Behaviour::default()).await);
    let download = Download::prepare(&both, sides.ask()).await.unwrap();
    let begun = Arc::new(tokio::sync::Notify::new());
    let (go_on, stuck) = std::sync::mpsc::channel::<()>();
    let told = Arc::clone(&begun);
    let moved = move |_| {
        told.notify_one();
        // Until the other end is gone.
        _ = stuck.recv();
    };
    tokio::select! {
        ended = download.run(&both, moved) => panic!("{ended:?}"),
        () = begun.notified() => {}
    }
    let refused = Download::prepare(&both, sides.ask()).await.err();
    assert!(matches!(refused, Some(Refusal::Busy(_))), "{refused:?}");
    drop(go_on);
    within(async {
        while Download::prepare(&both, sides.ask()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn short_reads_are_continued_in_any_order() {
    for most_read in [1, 7, CHUNK - 1] {
        let sides = Sides::new(Way::Down, pattern(3 * CHUNK + 7));
        let behaviour = Behaviour { most_read, order: Order::Any, ..Behaviour::default() };
        let ended = sides.go(behaviour, Ask { verify: false, ..sides.ask() }).await;
        let unverified = Outcome { verified: None, source_changed: false, not_atomic: false };
        assert_eq!(ended, End::Done(unverified));
        assert!(sides.arrived() == sides.content);
        let reads = sides.there.seen().into_iter().filter(|step| *step == Step::Read).count();
        assert!(reads >= sides.content.len() / most_read, "{reads} reads of at most {most_read} bytes");
    }
}

#[tokio::test]
async fn a_server_without_extensions_is_asked_for_none() {
    let sides = Sides::new(Way::Up, pattern(100_000));
    let behaviour = Behaviour { extensions: &[], ..Behaviour::default() };
    let remote = Remote { chunk: None, depth: None, ..remote(&sides.there, behaviour).await };
    sides.there.put(THERE, b"the old one");
    let ended = sides.go_on(&remote, sides.ask()).await;
    let outcome = Outcome { verified: Some(VerifyMethod::Sftp), source_changed: false, not_atomic: true };
    assert_eq!(ended, End::Done(outcome));
    assert_eq!(sides.there.content(THERE), Some(sides.content.clone()));
    assert_eq!(sides.there.content(PART), None);
    assert_eq!(sides.there.longest(), (32 * 1024, 32 * 1024));
    assert_eq!(remote.files.space(b"/d").await.unwrap(), None);
    let file = remote.files.open(THERE, Open::Read).await.unwrap();
    assert_eq!(file.sync().await.unwrap(), Synced::Unsupported);
    let extended = [Step::PosixRename, Step::Fsync, Step::Statvfs, Step::Limits];
    let seen = sides.there.seen();
    assert!(!seen.iter().any(|step| extended.contains(step)), "{seen:?}");
    assert_eq!(sides.there.complaints(), [""; 0]);
}

#[tokio::test]
async fn nothing_longer_than_the_server_takes_is_sent() {
    let refused = Behaviour::upset(Step::Limits, 0, Fate::Status(4, "Failure")).upset;
    for (limits, upset, read, write) in [
        ([256 * 1024, 5, 7, 0], None, 5, 7),
        ([256 * 1024, 1 << 40, 1 << 40, 0], None, 255 * 1024, 255 * 1024),
        ([256 * 1024, 0, 0, 0], None, 255 * 1024, 255 * 1024),
        // It minds the length of a message alone, and what stands around the data counts.
        ([34_000, 0, 0, 0], None, 34_000 - 1024, 34_000 - 1024),
        ([34_000, 1 << 20, 255 * 1024, 0], None, 34_000 - 1024, 34_000 - 1024),
        // It knows the question, and not the answer.
        ([256 * 1024, 32 * 1024, 32 * 1024, 0], refused, 32 * 1024, 32 * 1024),
    ] {
        let sides = Sides::new(Way::Up, pattern(if read < 100 { 300 } else { 300_000 }));
        let behaviour = Behaviour { limits, upset, ..Behaviour::default() };
        let remote = Remote { chunk: None, depth: None, ..remote(&sides.there, behaviour).await };
        assert_eq!(remote.files.limits(), Limits { read, write });
        assert_eq!(sides.go_on(&remote, sides.ask()).await, DONE);
        assert_eq!(sides.there.longest(), (read as usize, write as usize));
        assert_eq!(sides.there.complaints(), [""; 0]);
    }
}

#[tokio::test]
async fn what_goes_wrong_in_the_greeting_has_its_kind() {
    let mounted =
        async |step, fate| kind(mount(&ScriptedFiles::new(), Behaviour::upset(step, 0, fate)).await);
    let garbled: [Garble; 7] = [
        |_| b"Last login: Mon Jul 27\r\n".to_vec(),
        |answer| edited(answer, 0, &[0xff; 4]),
        |answer| edited(answer, 4, &[77]),
        |answer| string(&answer[4..7]),
        |answer| string(&[&[101], &answer[5..11]].concat()),
        // Extensions: a name longer than the message, and one without data.
        |_| packet(3, (2, b"\xff\xff\xff\xffx".to_vec())),
        |_| packet(3, (2, b"\0\0\0\x01x".to_vec())),
    ];
    for step in [Step::Init, Step::Limits] {
        for (at, garble) in garbled.into_iter().enumerate() {
            let ended = mounted(step, Fate::Garbled(garble)).await;
            assert_eq!(ended, FsErrorKind::Protocol, "{step:?} {at}");
        }
        for event in [ChannelEvent::Closed, ChannelEvent::Refused { request: "subsystem" }] {
            assert_eq!(mounted(step, Fate::End(event)).await, FsErrorKind::Gone, "{step:?}");
        }
    }
    let twice: Garble = |answer| [answer, answer].concat();
    assert_eq!(mounted(Step::Init, Fate::Garbled(twice)).await, FsErrorKind::Protocol);
}

// Nobody but the caller knows how long a login may take.
#[tokio::test(start_paused = true)]
async fn a_greeting_that_is_not_answered_can_be_given_up() {
    let there = ScriptedFiles::new();
    let mounting = Sftp.mount(there.channel(Behaviour::upset(Step::Init, 0, Fate::Silence)));
    assert!(tokio::time::timeout(Duration::from_secs(60), mounting).await.is_err());
    // The task that was ended goes when it is next seen to.
    tokio::task::yield_now().await;
    assert_eq!((there.seen(), there.channels()), (vec![Step::Init], 0));
}

#[tokio::test]
async fn a_length_that_is_claimed_takes_no_memory() {
    let claims: [(Step, Garble); 5] = [
        // A handle, data, names, attributes of attributes, words: each as long as 32 bits allow.
        (Step::Open, |answer| edited(answer, 9, &[0xff; 4])),
        (Step::Read, |answer| edited(answer, 9, &[0xff; 4])),
        (Step::Readdir, |answer| edited(answer, 9, &[0xff; 4])),
        (Step::Readdir, |answer| edited(answer, 13, &[0xff; 4])),
        (Step::Fstat, |answer| packet(number(answer), (105, [&[0x80, 0, 0, 0], &[0xff; 4][..]].concat()))),
    ];
    for (step, garble) in claims {
        let there = ScriptedFiles::new();
        there.put(THERE, b"content");
        let files = mount(&there, Behaviour::upset(step, 0, Fate::Garbled(garble))).await.unwrap();
        let peak = peak_kib();
        let asked = async {
            let file = files.open(THERE, Open::Read).await?;
            file.read(0, 7).await?;
            file.attributes().await?;
            files.open_dir(b"/d").await?.next().await
        };
        assert_eq!(kind(within(asked).await), FsErrorKind::Protocol, "{step:?}");
        assert!(files.is_gone());
        assert!(peak_kib() - peak < 1 << 20, "{step:?}: {} KiB", peak_kib() - peak);
    }
}

/// The most address space this process has had; what is reserved and not touched counts.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmPeak:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_answer_that_comes_twice_is_a_breach() {
    let there = ScriptedFiles::new();
    let twice = Fate::Garbled(|answer| [answer, answer].concat());
    let files = mount(&there, Behaviour::upset(Step::Stat, 0, twice)).await.unwrap();
    within(files.attributes(b"/d", Links::Follow)).await.unwrap();
    assert_eq!(kind(within(files.real_path(b".")).await), FsErrorKind::Protocol);
    assert!(files.is_gone());
}

#[tokio::test]
async fn every_request_has_the_kind_of_its_status() {
    type Ask = fn(&dyn RemoteFs) -> BoxFuture<'_, Result<(), FsError>>;
    let all: [(Step, &'static [&'static str], Ask); 12] = [
        (Step::Realpath, ALL, |files| Box::pin(async { files.real_path(b".").await.map(drop) })),
        (Step::Stat, ALL, |files| Box::pin(async { files.attributes(THERE, Links::Stay).await.map(drop) })),
        (Step::Setstat, ALL, |files| files.set_attributes(THERE, Attributes::default())),
        (Step::Mkdir, ALL, |files| files.make_dir(b"/d/new", 0o755)),
        (Step::Remove, ALL, |files| files.remove(THERE)),
        (Step::Rmdir, ALL, |files| files.remove_dir(b"/d")),
        (Step::Symlink, ALL, |files| files.make_link(b"/d/new", b"target", LinkOrder::PathFirst)),
        (Step::Readlink, ALL, |files| {
            Box::pin(async {
                files.make_link(b"/d/link", b"target", LinkOrder::PathFirst).await?;
                assert_eq!(files.read_link(b"/d/link").await?, b"target");
                Ok(())
            })
        }),
        (Step::Opendir, ALL, |files| Box::pin(async { files.open_dir(b"/d").await.map(drop) })),
        (Step::Readdir, ALL, |files| Box::pin(async { files.open_dir(b"/d").await?.next().await.map(drop) })),
        (Step::Statvfs, ALL, |files| Box::pin(async { files.space(b"/d").await.map(drop) })),
        (Step::Rename, &[], |files| Box::pin(async { files.replace(THERE, b"/d/new").await.map(drop) })),
    ];
    for (step, extensions, ask) in all {
        for (code, expected) in
            [(3, FsErrorKind::Denied), (4, FsErrorKind::Failed), (8, FsErrorKind::Unsupported)]
        {
            let there = ScriptedFiles::new();
            there.put(THERE, b"content");
            let behaviour = Behaviour { extensions, ..Behaviour::upset(step, 0, Fate::Status(code, "")) };
            let files = mount(&there, behaviour).await.unwrap();
            assert_eq!(kind(within(ask(&*files)).await), expected, "{step:?}");
            // And it is that request alone.
            assert_eq!(within(ask(&*files)).await, Ok(()), "{step:?}");
        }
    }
}

#[tokio::test]
async fn a_swap_in_two_steps_needs_nothing_at_its_place_and_stops_where_that_stays() {
    let there = ScriptedFiles::new();
    let plain = Behaviour { extensions: &[], ..Behaviour::default() };
    let files = mount(&there, plain.clone()).await.unwrap();
    for old in [None, Some(b"old")] {
        there.put(PART, b"new");
        old.iter().for_each(|old| there.put(THERE, *old));
        assert_eq!(within(files.replace(PART, THERE)).await, Ok(Replaced::InTwoSteps));
        assert_eq!((there.content(THERE), there.content(PART)), (Some(b"new".to_vec()), None));
    }
    there.put(PART, b"newer");
    let denied = Upset { step: Step::Remove, nth: 0, fate: Fate::Status(3, "Permission denied") };
    let files = mount(&there, Behaviour { upset: Some(denied), ..plain }).await.unwrap();
    assert_eq!(kind(within(files.replace(PART, THERE)).await), FsErrorKind::Denied);
    assert_eq!(there.content(THERE), Some(b"new".to_vec()));
}

#[tokio::test]
async fn a_listing_is_complete_however_few_names_come_at_a_time() {
    let there = ScriptedFiles::new();
    let names: Vec<_> = (0..9).map(|at| format!("file-{at}").into_bytes()).collect();
    names.iter().for_each(|name| there.put(&[b"/d/", &name[..]].concat(), b""));
    for names_at_once in [1, 2, 4, usize::MAX] {
        let files = mount(&there, Behaviour { names_at_once, ..Behaviour::default() }).await.unwrap();
        let mut dir = files.open_dir(b"/d").await.unwrap();
        let mut listed = Vec::new();
        loop {
            match within(dir.next()).await.unwrap() {
                some if some.is_empty() => break,
                some => listed.extend(some.into_iter().map(|entry| entry.name)),
            }
        }
        assert_eq!(listed, names, "{names_at_once} at a time");
    }
}

#[tokio::test]
async fn a_listing_of_nothing_without_end_is_a_breach() {
    let nothing: Garble = |answer| packet(number(answer), (104, vec![0; 4]));
    let only_itself: Garble = |answer| {
        let entry = [string(b"."), string(b""), vec![0; 4]].concat();
        packet(number(answer), (104, [&[0, 0, 0, 1], &entry[..]].concat()))
    };
    for said in [nothing, only_itself] {
        let there = ScriptedFiles::new();
        let files =
            mount(&there, Behaviour::upset(Step::Readdir, ALWAYS, Fate::Garbled(said))).await.unwrap();
        let mut dir = files.open_dir(b"/d").await.unwrap();
        assert_eq!(kind(within(dir.next()).await), FsErrorKind::Protocol);
        let asked = there.seen().into_iter().filter(|step| *step == Step::Readdir).count();
        assert!(asked <= 4, "{asked} times");
    }
}

#[tokio::test]
async fn more_data_than_was_asked_for_is_a_breach_and_is_not_written() {
    // As long as it says, and one byte longer than the question.
    let longer: Garble = |answer| {
        let data = [&answer[13..], b"x"].concat();
        packet(number(answer), (103, string(&data)))
    };
    for nth in [0, 2, 4] {
        let sides = Sides::new(Way::Down, pattern(4 * CHUNK + 1));
        let behaviour = Behaviour::upset(Step::Read, nth, Fate::Garbled(longer));
        let ended = sides.go(behaviour, Ask { verify: false, ..sides.ask() }).await;
        assert_eq!(ended, End::Failed(Failure::SftpProtocol), "{nth}");
        sides.completes("longer").await;
    }
}

#[tokio::test]
async fn nothing_is_written_or_counted_behind_the_end_of_a_download() {
    for fate in [Fate::Status(4, "Failure"), Fate::End(ChannelEvent::Closed)] {
        let sides = Sides::new(Way::Down, pattern(4 * CHUNK + 1));
        let remote = remote(&sides.there, Behaviour::upset(Step::Read, 4, fate)).await;
        let download = Download::prepare(&with(&remote), sides.ask()).await.unwrap();
        let counted = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&counted);
        let count = move |bytes| _ = counter.fetch_add(bytes, Ordering::Relaxed);
        within(download.run(&with(&remote), count)).await.unwrap_err();
        assert_eq!(Arc::strong_count(&counted), 1, "the thread of the file goes on");
        assert_eq!(counted.load(Ordering::Relaxed), sides.arrived().len() as u64);
    }
}

#[tokio::test]
async fn a_file_of_unknown_length_is_not_taken_for_an_empty_one() {
    let go = async |way| {
        let sides = Sides::new(way, pattern(4 * CHUNK + 1));
        (
            sides.go(Behaviour { says_sizes: false, ..Behaviour::default() }, sides.ask()).await,
            sides.arrived(),
        )
    };
    assert_eq!(go(Way::Down).await, (End::Refused(FsErrorKind::Unsupported), Vec::new()));
    // A hash needs no length: what is read back is read to its end.
    assert_eq!(go(Way::Up).await, (DONE, pattern(4 * CHUNK + 1)));
}

#[tokio::test]
async fn whoever_waits_is_told_when_the_service_is_dropped() {
    let there = ScriptedFiles::new();
    let files = mount(&there, Behaviour::upset(Step::Stat, 0, Fate::Silence)).await.unwrap();
    let asked = files.attributes(b"/d", Links::Follow);
    drop(files);
    assert_eq!(kind(within(asked).await), FsErrorKind::Gone);
    // The task that was ended goes when it is next seen to.
    tokio::task::yield_now().await;
    assert_eq!(there.channels(), 0);
}
