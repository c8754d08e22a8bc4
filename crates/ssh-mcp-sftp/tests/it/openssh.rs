//! What the port promises, on a real server: names that are no text, many files at once, requests in flight, refusals.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ssh_mcp_core::port::fs::{
    Attributes, Content, FsError, FsErrorKind, FsMount, Kind, Limits, LinkOrder, Links, Open, RemoteFs,
    Replaced, Synced,
};
use ssh_mcp_core::port::resolve::Defaults;
use ssh_mcp_core::port::ssh::{ConnectRequest, Connector, Link};
use ssh_mcp_core::target::{Address, Credentials, Target};
use ssh_mcp_sftp::Sftp;
use ssh_mcp_ssh::RusshConnector;
use ssh_mcp_testkit::host::defaults;

use crate::sshd::{ClientKey, OpenSshd, Options, User};

/// A server, a session on it, and its files.
pub(crate) struct Bench {
    pub(crate) server: OpenSshd,
    _link: Box<dyn Link>,
    pub(crate) files: Arc<dyn RemoteFs>,
    pub(crate) home: PathBuf,
}

pub(crate) fn with_files() -> Options {
    Options { extra: vec!["Subsystem sftp internal-sftp".into()], ..Options::default() }
}

pub(crate) async fn link(server: &OpenSshd) -> Box<dyn Link> {
    let target = Target {
        address: Address { host: "127.0.0.1".to_owned(), port: server.port() },
        username: User::Tester.name().to_owned(),
    };
    let known_hosts = server.home(User::Tester).join("unused");
    let hop = Defaults { known_hosts, ..defaults() }
        .hop(target, Credentials::by_key(server.client_key(ClientKey::Ed25519)));
    let request =
        ConnectRequest { via: Vec::new(), hop, accepted: Vec::new(), timeout: Duration::from_secs(30) };
    RusshConnector::new().with_global_known_hosts(Vec::new()).connect(&request).await.unwrap().link
}

pub(crate) async fn mount(link: &dyn Link) -> Result<Arc<dyn RemoteFs>, FsError> {
    Sftp.mount(link.open(Duration::from_secs(5)).await.unwrap()).await
}

impl Bench {
    pub(crate) async fn start_or_skip() -> Option<Self> {
        let server = OpenSshd::start_or_skip(with_files())?;
        let link = link(&server).await;
        let files = mount(&*link).await.unwrap();
        let home = server.home(User::Tester);
        Some(Self { server, _link: link, files, home })
    }

    /// A file of the user's own.
    pub(crate) fn file(&self, name: &[u8], content: &[u8]) -> PathBuf {
        let path = self.home.join(std::ffi::OsStr::from_bytes(name));
        fs::write(&path, content).unwrap();
        let owner = fs::metadata(&self.home).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
        path
    }
}

pub(crate) fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

fn kind<T>(result: Result<T, FsError>) -> FsErrorKind {
    match result {
        Ok(_) => panic!("it was done"),
        Err(error) => error.kind,
    }
}

/// Bytes that repeat nowhere soon.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

const NEW: Open = Open::Write { content: Content::Truncate, permissions: 0o640 };

#[tokio::test]
async fn what_is_written_in_flight_is_read_back_in_flight() {
    let Some(bench) = Bench::start_or_skip().await else { return };
    let files = &bench.files;
    assert_eq!(files.limits(), Limits { read: 255 * 1024, write: 255 * 1024 });
    assert_eq!(files.real_path(b".").await.unwrap(), bytes(&bench.home));

    let path = bench.home.join("large");
    let content = pattern(10 << 20);
    let file = files.open(bytes(&path), NEW).await.unwrap();
    // All of it is under way before the first answer.
    let writes: Vec<_> = content
        .chunks(255 * 1024)
        .enumerate()
        .map(|(at, chunk)| file.write((at * 255 * 1024) as u64, Bytes::copy_from_slice(chunk)))
        .collect();
    for write in writes {
        write.await.unwrap();
    }
    assert_eq!(file.sync().await.unwrap(), Synced::Yes);
    assert_eq!(file.attributes().await.unwrap().size, Some(content.len() as u64));
    file.close().await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), content);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);

    let file = files.open(bytes(&path), Open::Read).await.unwrap();
    let reads: Vec<_> = (0..content.len()).step_by(100_000).map(|at| file.read(at as u64, 100_000)).collect();
    let mut read = Vec::new();
    for one in reads {
        read.extend(one.await.unwrap().concat());
    }
    assert!(read == content);
    assert!(file.read(content.len() as u64, 1).await.unwrap().is_empty(), "the end is no error");
}

#[tokio::test]
async fn names_that_are_no_text_and_many_files_at_once() {
    let Some(bench) = Bench::start_or_skip().await else { return };
    let files = &bench.files;
    let odd: &[&[u8]] = &[b"\xff\xfe", b"two\nlines", b"-rf", b"it's \"quoted\" $HOME", &[b'n'; 255]];
    for name in odd {
        let path = bench.file(name, name);
        let file = files.open(bytes(&path), Open::Read).await.unwrap();
        assert_eq!(file.read(0, 1000).await.unwrap().concat(), *name);
    }
    let mut dir = files.open_dir(bytes(&bench.home)).await.unwrap();
    let mut names = Vec::new();
    loop {
        let entries = dir.next().await.unwrap();
        if entries.is_empty() {
            break;
        }
        names.extend(entries.into_iter().map(|entry| entry.name));
    }
    assert!(odd.iter().all(|name| names.iter().any(|listed| listed == name)), "{names:?}");
    assert!(!names.iter().any(|name| name == b"." || name == b".."));

    // More than 128: handles of OpenSSH are numbers, and not text from there on.
    let path = bench.file(b"many", b"content");
    let mut open = Vec::new();
    for _ in 0..200 {
        open.push(files.open(bytes(&path), Open::Read).await.unwrap());
    }
    for file in &open {
        assert_eq!(file.read(0, 7).await.unwrap().concat(), b"content");
    }
}

#[tokio::test]
async fn what_a_path_is_and_what_can_be_changed_of_it() {
    let Some(bench) = Bench::start_or_skip().await else { return };
    let files = &bench.files;
    let path = bench.file(b"file", b"12345");
    let link = bench.home.join("link");
    symlink(&path, &link).unwrap();
    let said = files.attributes(bytes(&link), Links::Follow).await.unwrap();
    assert_eq!((said.kind(), said.size), (Some(Kind::File), Some(5)));
    let said = files.attributes(bytes(&link), Links::Stay).await.unwrap();
    assert_eq!(said.kind(), Some(Kind::Link));
    let said = files.attributes(b"/dev/null", Links::Follow).await.unwrap();
    assert_eq!(said.kind(), Some(Kind::Other));

    let change =
        Attributes { mode: Some(0o600), times: Some((1_000_000, 2_000_000)), ..Attributes::default() };
    files.set_attributes(bytes(&path), change).await.unwrap();
    let changed = fs::metadata(&path).unwrap();
    assert_eq!((changed.mode() & 0o777, changed.atime(), changed.mtime()), (0o600, 1_000_000, 2_000_000));

    let dir = bench.home.join("dir");
    files.make_dir(bytes(&dir), 0o750).await.unwrap();
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o750);
    assert_eq!(kind(files.make_dir(bytes(&dir), 0o750).await), FsErrorKind::Failed);

    let other = bench.file(b"other", b"old");
    assert_eq!(files.replace(bytes(&path), bytes(&other)).await.unwrap(), Replaced::Atomically);
    assert_eq!(fs::read(&other).unwrap(), b"12345");
    files.remove(bytes(&other)).await.unwrap();
    assert!(!other.exists());

    let space = files.space(bytes(&bench.home)).await.unwrap().unwrap();
    assert!(space.free > 0 && !space.read_only);
}

#[tokio::test]
async fn links_owners_and_directories_that_go() {
    let Some(bench) = Bench::start_or_skip().await else { return };
    let files = &bench.files;
    let link = bench.home.join("link");
    files.make_link(bytes(&link), b"not/there\xff", LinkOrder::TargetFirst).await.unwrap();
    assert_eq!(fs::read_link(&link).unwrap().as_os_str().as_bytes(), b"not/there\xff");
    assert_eq!(files.read_link(bytes(&link)).await.unwrap(), b"not/there\xff");
    assert_eq!(kind(files.make_link(bytes(&link), b"x", LinkOrder::TargetFirst).await), FsErrorKind::Failed);
    // The same link, for a server of the other kind.
    let other = bench.home.join("other");
    files.make_link(b"target", bytes(&other), LinkOrder::PathFirst).await.unwrap();
    assert_eq!(files.read_link(bytes(&other)).await.unwrap(), b"target");

    let path = bench.file(b"file", b"");
    assert_ne!(kind(files.read_link(bytes(&path)).await), FsErrorKind::NotFound);
    let home = fs::metadata(&bench.home).unwrap();
    let owner = Some((home.uid(), home.gid()));
    assert_eq!(files.attributes(bytes(&path), Links::Stay).await.unwrap().owner, owner);
    files.set_attributes(bytes(&path), Attributes { owner, ..Attributes::default() }).await.unwrap();

    let dir = bench.home.join("dir");
    files.make_dir(bytes(&dir), 0o755).await.unwrap();
    fs::write(dir.join("in"), "").unwrap();
    assert_eq!(kind(files.remove_dir(bytes(&dir)).await), FsErrorKind::Failed);
    assert_eq!(kind(files.remove_dir(bytes(&path)).await), FsErrorKind::NotFound);
    fs::remove_file(dir.join("in")).unwrap();
    files.remove_dir(bytes(&dir)).await.unwrap();
    assert!(!dir.exists());
}

#[tokio::test]
async fn refusals_have_their_kind() {
    let Some(bench) = Bench::start_or_skip().await else { return };
    let files = &bench.files;
    let missing = bench.home.join("missing");
    assert_eq!(kind(files.open(bytes(&missing), Open::Read).await), FsErrorKind::NotFound);
    assert_eq!(kind(files.attributes(bytes(&missing), Links::Follow).await), FsErrorKind::NotFound);
    assert_eq!(kind(files.remove(bytes(&missing)).await), FsErrorKind::NotFound);
    assert_eq!(kind(files.open_dir(bytes(&missing)).await.map(drop)), FsErrorKind::NotFound);
    let secret = bench.file(b"secret", b"");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o0)).unwrap();
    assert_eq!(kind(files.open(bytes(&secret), Open::Read).await), FsErrorKind::Denied);
    assert_eq!(kind(files.open(b"/no/way/here", NEW).await), FsErrorKind::NotFound);

    // The end of the service ends every call that waits.
    bench.server.kill_connections();
    assert_eq!(kind(files.attributes(b"/", Links::Follow).await), FsErrorKind::Gone);
    assert!(files.is_gone());
}

#[tokio::test]
async fn a_server_without_the_service_and_one_that_talks_instead() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let refused = mount(&*link(&server).await).await.err().unwrap();
    assert_eq!(
        (refused.kind, refused.cause.as_str()),
        (FsErrorKind::Gone, "the server has no SFTP subsystem")
    );

    let talks =
        Options { extra: vec!["Subsystem sftp /bin/echo Welcome to this host".into()], ..Options::default() };
    let Some(server) = OpenSshd::start_or_skip(talks) else { return };
    let refused = mount(&*link(&server).await).await.err().unwrap();
    assert_eq!(refused.kind, FsErrorKind::Protocol);
    assert!(refused.cause.contains("Welcome to this host"), "{refused}");
}

#[tokio::test]
async fn an_answer_nobody_waits_for_leaves_no_file_open() {
    let Some(bench) = Bench::start_or_skip().await else { return };
    let path = bench.file(b"file", b"");
    // sshd's limit of open files is far below this.
    for _ in 0..3000 {
        drop(bench.files.open(bytes(&path), Open::Read));
    }
    assert_eq!(bench.files.open(bytes(&path), Open::Read).await.unwrap().read(0, 1).await.unwrap().len(), 0);
}
