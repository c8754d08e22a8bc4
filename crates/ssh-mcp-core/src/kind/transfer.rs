//! The rules of a transfer that need no file: where it begins, how it is said to fail, how fast it is, and by what name a
//! half of it goes (`docs/transfers.md`).

use std::{collections::VecDeque, io, time::Duration};

use crate::{
    port::fs::{FsErrorKind, Kind},
    quote,
    sync::{AtomicU64, Ordering},
};

/// Where the bytes begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// All of them; what was there goes.
    Fresh,
    /// Behind those that are there.
    Continue {
        /// How many that are.
        from: u64,
    },
    /// They are all there.
    Complete,
}

/// The destination is longer than the source: continuing it would leave a mixture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the destination has {destination} bytes, the source {source_len}")]
pub struct Overshoot {
    /// Bytes of the destination.
    pub destination: u64,
    /// Bytes of the source.
    pub source_len: u64,
}

/// Whether a transfer goes on where another ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// It does, by the length of the destination alone.
    Yes,
    /// It begins anew.
    No,
}

impl Plan {
    /// What is to be done with a destination of that length.
    ///
    /// # Errors
    /// [`Overshoot`] if it is longer than the source and is to be continued; then nothing is touched.
    pub fn decide(resume: Resume, destination: u64, source_len: u64) -> Result<Self, Overshoot> {
        match (resume, destination) {
            (Resume::No, _) | (Resume::Yes, 0) => Ok(Self::Fresh),
            (Resume::Yes, from) if from < source_len => Ok(Self::Continue { from }),
            (Resume::Yes, from) if from == source_len => Ok(Self::Complete),
            (Resume::Yes, _) => Err(Overshoot { destination, source_len }),
        }
    }

    /// Bytes that need not be moved.
    pub fn resumed_from(self, source_len: u64) -> u64 {
        match self {
            Self::Fresh => 0,
            Self::Continue { from } => from,
            Self::Complete => source_len,
        }
    }
}

/// Why a transfer failed, in the words of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The source is not there any more, or the destination cannot be made.
    FileNotFound,
    /// The directory of the destination is not there.
    RemoteDirNotFound,
    /// The user may not.
    PermissionDenied,
    /// Disk or quota is full.
    DiskFull,
    /// The file system takes no writes.
    ReadOnlyFs,
    /// The connection or the file service ended.
    ConnectionLost,
    /// The server broke the protocol, or lacks what is needed.
    SftpProtocol,
    /// Nothing moved or was answered for too long.
    Timeout,
    /// Anything else.
    IoError,
    /// Both sides have all bytes, and not the same.
    VerifyMismatch,
    /// The hash of one side could not be had.
    VerifyUnavailable,
}

impl Failure {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FileNotFound => "FILE_NOT_FOUND",
            Self::RemoteDirNotFound => "REMOTE_DIR_NOT_FOUND",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::DiskFull => "DISK_FULL",
            Self::ReadOnlyFs => "READ_ONLY_FS",
            Self::ConnectionLost => "CONNECTION_LOST",
            Self::SftpProtocol => "SFTP_PROTOCOL",
            Self::Timeout => "TIMEOUT",
            Self::IoError => "IO_ERROR",
            Self::VerifyMismatch => "VERIFY_MISMATCH",
            Self::VerifyUnavailable => "VERIFY_UNAVAILABLE",
        }
    }
}

impl From<FsErrorKind> for Failure {
    fn from(kind: FsErrorKind) -> Self {
        match kind {
            FsErrorKind::NotFound => Self::FileNotFound,
            FsErrorKind::Denied => Self::PermissionDenied,
            FsErrorKind::NoSpace => Self::DiskFull,
            FsErrorKind::ReadOnly => Self::ReadOnlyFs,
            FsErrorKind::Unsupported | FsErrorKind::Protocol => Self::SftpProtocol,
            FsErrorKind::Gone => Self::ConnectionLost,
            FsErrorKind::TimedOut => Self::Timeout,
            FsErrorKind::Failed => Self::IoError,
        }
    }
}

impl From<io::ErrorKind> for Failure {
    fn from(kind: io::ErrorKind) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the standard library's list grows")]
        match kind {
            io::ErrorKind::NotFound => Self::FileNotFound,
            io::ErrorKind::PermissionDenied => Self::PermissionDenied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::DiskFull
            }
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnlyFs,
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::IoError,
        }
    }
}

/// Why a file could not be transferred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Fault {
    /// In one word.
    pub failure: Failure,
    /// One line, the path first.
    pub reason: String,
}

/// What is worth saying of a transfer that succeeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How the hashes were compared.
    pub verified: Option<VerifyMethod>,
    /// The source was written while it was read.
    pub source_changed: bool,
    /// For a moment there was no destination.
    pub not_atomic: bool,
}

impl Outcome {
    /// That of one more file of the same transfer.
    pub fn merge(&mut self, other: Self) {
        self.verified = other.verified.or(self.verified);
        self.source_changed |= other.source_changed;
        self.not_atomic |= other.not_atomic;
    }
}

/// Who hashed the far side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyMethod {
    /// A program there.
    Exec,
    /// Its bytes were read back and hashed here.
    Sftp,
}

impl VerifyMethod {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Sftp => "sftp",
        }
    }
}

/// How far a transfer is; whoever moves bytes adds, anybody reads.
///
/// *Invariant (`docs/lifecycle.md` 6.52):* no reader sees fewer bytes than need not be moved.
#[derive(Debug, Default)]
pub struct Progress {
    resumed: AtomicU64,
    moved: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
}

/// How far a transfer is, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    /// Bytes that are at the destination, moved now or before.
    pub bytes: u64,
    /// Of those, the ones that had not to be moved.
    pub resumed_from: u64,
    /// Files that are there whole.
    pub files_done: u64,
    /// Files that could not be transferred.
    pub files_failed: u64,
}

impl Reached {
    /// Bytes that were moved now.
    pub fn moved(&self) -> u64 {
        self.bytes - self.resumed_from
    }
}

impl Progress {
    /// A transfer of which that many bytes need not be moved.
    pub fn from(resumed: u64) -> Self {
        Self { resumed: AtomicU64::new(resumed), ..Self::default() }
    }

    /// A file was begun of which that many bytes need not be moved.
    pub fn resume(&self, bytes: u64) {
        self.resumed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many more bytes are there.
    pub fn add(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
    }

    /// One more file is there whole.
    pub fn file_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// One more file could not be transferred.
    pub fn file_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// How far it is.
    pub fn read(&self) -> Reached {
        // Both parts of the sum come from one look each, so it cannot be less than either.
        let resumed_from = self.resumed.load(Ordering::Relaxed);
        Reached {
            bytes: resumed_from + self.moved.load(Ordering::Relaxed),
            resumed_from,
            files_done: self.done.load(Ordering::Relaxed),
            files_failed: self.failed.load(Ordering::Relaxed),
        }
    }
}

/// How fast bytes moved over the last [`WINDOW`].
#[derive(Debug, Default)]
pub struct Rate {
    /// When how many had been moved; one for each [`STEP`], oldest first, the first one as old as the window.
    samples: VecDeque<(Duration, u64)>,
}

/// The time a rate is the mean of.
pub const WINDOW: Duration = Duration::from_secs(5);

/// A rate is noted this often; it is also how often a body says something new.
pub const STEP: Duration = Duration::from_millis(250);

impl Rate {
    /// The rate of something that begins now.
    pub fn since(now: Duration) -> Self {
        Self { samples: VecDeque::from([(now, 0)]) }
    }

    /// That many have been moved by now.
    pub fn note(&mut self, now: Duration, moved: u64) {
        if self.samples.back().is_some_and(|(before, _)| now < *before + STEP) {
            return;
        }
        self.samples.push_back((now, moved));
        while self.samples.get(1).is_some_and(|(second, _)| *second + WINDOW <= now) {
            self.samples.pop_front();
        }
    }

    /// Bytes a second by now.
    pub fn bytes_per_sec(&self, now: Duration, moved: u64) -> u64 {
        let Some((since, before)) = self.samples.front() else { return 0 };
        let took = now.saturating_sub(*since).as_secs_f64();
        if took <= 0.0 {
            return 0;
        }
        (moved.saturating_sub(*before) as f64 / took) as u64
    }

    /// Seconds that what is left will take at this rate; none while nothing moves.
    pub fn eta_secs(rate: u64, left: u64) -> Option<u64> {
        (rate > 0).then(|| left.div_ceil(rate))
    }
}

/// The path a source goes to: below a destination that is a directory or ends in `/`, else there itself.
pub fn destination(path: &[u8], is: Option<Kind>, name: &[u8]) -> Vec<u8> {
    let ends_in_slash = path.ends_with(b"/");
    match is {
        Some(Kind::Directory) | None if ends_in_slash => [path, name].concat(),
        Some(Kind::Directory) => [path, b"/", name].concat(),
        Some(Kind::File | Kind::Link | Kind::Other) | None => path.to_vec(),
    }
}

/// The longest name a file may have on most file systems.
const LONGEST_NAME: usize = 255;

/// The name of the half of a file that is to take the place of `name` at the end.
pub fn part_name(name: &[u8]) -> Vec<u8> {
    const SUFFIX: &[u8] = b".ssh-mcp-part";
    let whole = [b".", name, SUFFIX].concat();
    if whole.len() <= LONGEST_NAME {
        return whole;
    }
    // Two long names with one beginning must not share a half.
    let mark = format!("-{:08x}", fnv(name));
    let room = LONGEST_NAME.saturating_sub(1 + mark.len() + SUFFIX.len());
    [b".", name.get(..room).unwrap_or(name), mark.as_bytes(), SUFFIX].concat()
}

/// FNV-1a with 32 bits: the same in every version of the product, so that a later one finds the half.
fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Bytes of one request under way at a time, at most.
const IN_FLIGHT: u64 = 8 << 20;

/// How many requests of `chunk` bytes keep a line of that round trip full.
pub fn depth(round_trip: Duration, chunk: u32) -> usize {
    /// A line nearer than this needs no more than keeps both ends busy.
    const NEAR: Duration = Duration::from_millis(5);
    let bytes = if round_trip < NEAR { IN_FLIGHT / 4 } else { IN_FLIGHT };
    usize::try_from(bytes.div_ceil(u64::from(chunk.max(1)))).unwrap_or(usize::MAX).clamp(2, 256)
}

/// What a host prints that has none of the programs.
const NO_PROGRAM: &str = "no-sha256-program";

/// What a host said about the hash of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hashed {
    /// The hash.
    Sha256([u8; 32]),
    /// It has no program for it.
    NoProgram,
    /// A program did not give one.
    Failed,
}

/// A command line for a POSIX shell that prints the SHA-256 of a file, or of its first `len` bytes, by the first program
/// that is there; `openssl` is three times as fast as the others.
pub fn hash_command(path: &str, len: Option<u64>) -> String {
    let file = quote::word(path);
    let input = match len {
        None => format!("\"$@\" <{file}"),
        Some(len) => format!("head -c {len} <{file} | \"$@\""),
    };
    let tools = ["openssl dgst -sha256", "sha256sum", "shasum -a 256", "sha256 -q", "busybox sha256sum"];
    let choice = tools.map(|tool| {
        let program = tool.split(' ').next().unwrap_or(tool);
        format!("if command -v {program} >/dev/null 2>&1; then set -- {tool}; el")
    });
    format!("{}se echo {NO_PROGRAM}; exit 127; fi; {input}", choice.concat())
}

/// What such a command printed.
pub fn hashed(output: &[u8]) -> Hashed {
    match hash_of(output) {
        Some(hash) => Hashed::Sha256(hash),
        None if output.trim_ascii() == NO_PROGRAM.as_bytes() => Hashed::NoProgram,
        None => Hashed::Failed,
    }
}

/// The hash in it, whatever stands around it.
pub fn hash_of(output: &[u8]) -> Option<[u8; 32]> {
    let words = output.split(|byte| !byte.is_ascii_hexdigit());
    let digits = words.into_iter().find(|word| word.len() == 64)?;
    let mut hash = [0; 32];
    for (place, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *place = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
#[cfg(ssh_mcp_loom)]
mod loom {
    //! Stories of a transfer's progress under every interleaving.

    use std::sync::Arc;

    use ::loom::thread;

    use super::Progress;

    /// lifecycle 6.52: who watches a resumed transfer from its start never sees fewer bytes than it resumed from, nor a step back.
    #[test]
    fn a_resumed_transfer_shows_no_less_than_it_resumed_from() {
        ::loom::model(|| {
            let progress = Arc::new(Progress::from(10));
            let moving = Arc::clone(&progress);
            let mover = thread::spawn(move || {
                moving.add(3);
                // A further file of the same transfer, of which some is there already.
                moving.resume(5);
                moving.add(2);
            });
            let mut before = progress.read();
            assert!(before.bytes >= before.resumed_from && before.resumed_from >= 10, "{before:?}");
            for _ in 0..2 {
                let now = progress.read();
                assert!(now.bytes >= now.resumed_from, "{now:?}");
                assert!(
                    now.bytes >= before.bytes && now.resumed_from >= before.resumed_from,
                    "{now:?} {before:?}"
                );
                before = now;
            }
            mover.join().unwrap();
            assert_eq!((progress.read().bytes, progress.read().resumed_from), (20, 15));
        });
    }
}

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests {
    use std::{io::Write, process::Command};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_destination_decides_where_the_bytes_begin() {
        assert_eq!(Plan::decide(Resume::No, 7, 5), Ok(Plan::Fresh));
        assert_eq!(Plan::decide(Resume::Yes, 0, 5), Ok(Plan::Fresh));
        assert_eq!(Plan::decide(Resume::Yes, 0, 0), Ok(Plan::Fresh));
        assert_eq!(Plan::decide(Resume::Yes, 4, 5), Ok(Plan::Continue { from: 4 }));
        assert_eq!(Plan::decide(Resume::Yes, 5, 5), Ok(Plan::Complete));
        assert_eq!(Plan::decide(Resume::Yes, 6, 5), Err(Overshoot { destination: 6, source_len: 5 }));
        assert_eq!(Plan::Complete.resumed_from(5), 5);
    }

    #[test]
    fn a_rate_is_that_of_the_last_five_seconds() {
        let mut rate = Rate::default();
        let at = Duration::from_millis;
        assert_eq!(rate.bytes_per_sec(at(0), 0), 0);
        for tick in 0..40 {
            rate.note(at(tick * 100), tick * 100);
        }
        assert_eq!(rate.bytes_per_sec(at(4000), 4000), 1000);
        // Then nothing moves: about half of it a while later, and none at last.
        for tick in 40..65 {
            rate.note(at(tick * 100), 4000);
        }
        assert!((480..540).contains(&rate.bytes_per_sec(at(6500), 4000)));
        for tick in 65..100 {
            rate.note(at(tick * 100), 4000);
        }
        assert_eq!(rate.bytes_per_sec(at(10_000), 4000), 0);
        assert!(rate.samples.len() < 30);
        assert_eq!(
            (Rate::eta_secs(0, 5), Rate::eta_secs(2, 5), Rate::eta_secs(9, 0)),
            (None, Some(3), Some(0))
        );
    }

    #[test]
    fn a_source_goes_below_a_directory() {
        let dir = Some(Kind::Directory);
        assert_eq!(destination(b"/srv", dir, b"a"), b"/srv/a");
        assert_eq!(destination(b"/srv/", dir, b"a"), b"/srv/a");
        assert_eq!(destination(b"/srv/new/", None, b"a"), b"/srv/new/a");
        assert_eq!(destination(b"/srv/new", None, b"a"), b"/srv/new");
        assert_eq!(destination(b"/srv/old", Some(Kind::File), b"a"), b"/srv/old");
        assert_eq!(destination(b"/", dir, b"\xff"), b"/\xff");
    }

    #[test]
    fn a_half_has_a_name_of_its_own() {
        assert_eq!(part_name(b"page.html"), b".page.html.ssh-mcp-part");
        let (one, two) = ([b'n'; 255], [[b'n'; 254].as_slice(), b"m"].concat());
        assert_eq!(part_name(&one).len(), 255);
        assert_ne!(part_name(&one), part_name(&two));
    }

    #[test]
    fn far_lines_have_more_under_way() {
        let depth = |millis, chunk| depth(Duration::from_millis(millis), chunk);
        assert_eq!((depth(0, 255 << 10), depth(50, 255 << 10), depth(50, 32 << 10)), (9, 33, 256));
        assert_eq!(depth(0, u32::MAX), 2);
    }

    fn shell(line: &str, path: &str) -> Vec<u8> {
        Command::new("/bin/sh").env_clear().env("PATH", path).args(["-c", line]).output().unwrap().stdout
    }

    /// Of `abc` and of `abcd`, as FIPS 180-4 has the first.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn hex(hash: [u8; 32]) -> String {
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_shell_hashes_files_of_any_name() {
        let dir = std::env::temp_dir().join(format!("ssh-mcp-hash-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for name in ["plain", "-rf", "it's \"q\" $HOME", "two\nlines", "\\back"] {
            let path = dir.join(name);
            std::fs::File::create(&path).unwrap().write_all(b"abc").unwrap();
            let said = shell(&hash_command(path.to_str().unwrap(), None), "/usr/bin:/bin");
            assert_eq!(hash_of(&said).map(hex).as_deref(), Some(ABC), "{name:?}");
            std::fs::write(&path, b"abcdef").unwrap();
            let said = shell(&hash_command(path.to_str().unwrap(), Some(3)), "/usr/bin:/bin");
            assert_eq!(hash_of(&said).map(hex).as_deref(), Some(ABC), "{name:?}");
        }
        // Without any of the programs it says nothing.
        assert_eq!(hashed(&shell(&hash_command("/dev/null", None), "/nowhere")), Hashed::NoProgram);
        assert_eq!(hashed(&shell(&hash_command("/nowhere/x", None), "/usr/bin:/bin")), Hashed::Failed);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_hash_is_found_in_what_any_of_the_programs_prints() {
        for line in ["SHA2-256(stdin)= {}\n", "SHA256(/a b)= {}", "{}  -\n", "\\{}  /a\\nb", "{}\n"] {
            assert_eq!(hash_of(line.replace("{}", ABC).as_bytes()).map(hex).as_deref(), Some(ABC), "{line}");
        }
        assert_eq!(hash_of(b"sha256sum: no such file"), None);
        assert_eq!(hash_of(format!("{ABC}00").as_bytes()), None);
    }

    proptest! {
        #[test]
        fn nothing_moved_is_ever_counted_twice(
            steps in prop::collection::vec((1_u64..2000, 0_u64..10_000), 1..60),
        ) {
            let (mut rate, mut now, mut moved) = (Rate::default(), Duration::ZERO, 0);
            let mut peak = 0;
            rate.note(now, 0);
            for (millis, bytes) in steps {
                now += Duration::from_millis(millis);
                moved += bytes;
                peak = peak.max(bytes * 1000 / millis);
                prop_assert!(rate.bytes_per_sec(now, moved) <= peak + 1);
                rate.note(now, moved);
            }
        }
    }
}
