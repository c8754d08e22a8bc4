//! Far sides of a walk: OpenSSH's file service on pipes, and what a test changes of a file service.

use std::{
    future::poll_fn,
    path::{Path, PathBuf},
    pin::Pin,
    process::Stdio,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use crate::servers::skip_aloud;
use bytes::{Buf as _, Bytes};
use ssh_mcp_core::{
    history::Origin,
    port::{
        BoxFuture,
        fs::{
            Attributes, Entry, FsError, FsMount, Limits, LinkOrder, Links, Open, RemoteDir, RemoteFile,
            RemoteFs, Replaced, Space, Synced,
        },
        ssh::{Channel, ChannelControl, ChannelEvent, ChannelEvents, ChannelGone, PtySize, Signal, Start},
    },
};
use ssh_mcp_sftp::Sftp;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Instant, sleep_until},
};

/// OpenSSH's file service.
pub(super) struct SftpServer {
    program: PathBuf,
    /// The login directory.
    pub(super) home: PathBuf,
    /// What else it is told.
    pub(super) options: Vec<&'static str>,
    /// Who it runs as, if not as the test.
    pub(super) user: Option<u32>,
}

impl SftpServer {
    pub(super) fn find_or_skip(home: &Path) -> Option<Self> {
        let beside = |sshd: std::ffi::OsString| {
            Some(Path::new(&sshd).parent()?.parent()?.join("lib/openssh/sftp-server"))
        };
        let unpacked = std::env::var_os("SSH_MCP_SSHD").and_then(beside);
        let installed =
            ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server"];
        let programs = unpacked.into_iter().chain(installed.map(PathBuf::from));
        let Some(program) = programs.into_iter().find(|program| program.exists()) else {
            assert!(std::env::var_os("CI").is_none(), "in CI there must be an sftp-server");
            skip_aloud("this machine has no sftp-server");
            return None;
        };
        Some(Self { program, home: home.to_owned(), options: Vec::new(), user: None })
    }

    /// Starts it. The process ends with the pipes, or when the test says so.
    pub(super) async fn start(&self) -> (Arc<dyn RemoteFs>, Arc<Mutex<Child>>) {
        let mut command = match self.user {
            None => Command::new(&self.program),
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", &user.to_string(), "--regid", &user.to_string(), "--clear-groups"]);
                command.arg(&self.program);
                command
            }
        };
        command.args(&self.options).current_dir(&self.home).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let child = Arc::new(Mutex::new(child));
        let control = Pipe(Arc::new(Mutex::new(input)));
        let channel = Channel {
            events: Box::new(Output { output, _child: Some(child.clone()) }),
            control: Arc::new(control),
        };
        (Sftp.mount(channel).await.unwrap(), child)
    }
}

/// A channel on which nothing ever happens.
pub(super) fn idle_channel() -> Channel {
    Channel {
        events: Box::new(Output { output: None, _child: None }),
        control: Arc::new(Pipe(Input::default())),
    }
}

type Input = Arc<Mutex<Option<ChildStdin>>>;

struct Pipe(Input);

impl ChannelControl for Pipe {
    fn start(&self, start: Start) -> BoxFuture<'static, Result<(), ChannelGone>> {
        assert_eq!(start, Start::Subsystem("sftp"));
        Box::pin(async { Ok(()) })
    }

    fn send(&self, mut bytes: Bytes) -> BoxFuture<'static, Result<(), ChannelGone>> {
        let input = self.0.clone();
        Box::pin(async move {
            while !bytes.is_empty() {
                let write = poll_fn(|cx| match input.lock().unwrap().as_mut() {
                    Some(input) => Pin::new(input).poll_write(cx, &bytes).map_err(|_| ChannelGone),
                    None => Poll::Ready(Err(ChannelGone)),
                });
                let written = write.await?;
                bytes.advance(written);
            }
            Ok(())
        })
    }

    fn finish_input(&self) -> BoxFuture<'static, Result<(), ChannelGone>> {
        Box::pin(async { Ok(()) })
    }

    fn signal(&self, _signal: Signal) -> BoxFuture<'static, Result<(), ChannelGone>> {
        Box::pin(async { Err(ChannelGone) })
    }

    fn resize(&self, _size: PtySize) -> BoxFuture<'static, Result<(), ChannelGone>> {
        Box::pin(async { Err(ChannelGone) })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.0.lock().unwrap().take();
        Box::pin(async {})
    }
}

struct Output {
    output: Option<ChildStdout>,
    /// The process ends with the channel.
    _child: Option<Arc<Mutex<Child>>>,
}

impl ChannelEvents for Output {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ChannelEvent> {
        let Some(output) = &mut self.output else { return Poll::Pending };
        let mut bytes = vec![0; 64 * 1024];
        let mut buffer = ReadBuf::new(&mut bytes);
        let read = ready!(Pin::new(output).poll_read(cx, &mut buffer));
        let read = if read.is_ok() { buffer.filled() } else { &[] };
        if read.is_empty() {
            self.output = None;
            return Poll::Ready(ChannelEvent::Closed);
        }
        Poll::Ready(ChannelEvent::Data(Origin::Stdout, Bytes::copy_from_slice(read)))
    }
}

/// What is different about a file service.
#[derive(Clone, Default)]
pub(super) struct Changes {
    /// It wants the names of a link in the other order.
    pub(super) swaps_links: bool,
    /// Each listing has this entry as well.
    pub(super) lists: Option<&'static [u8]>,
    /// Each answer takes so long.
    pub(super) delay: Duration,
}

/// A file service that differs from another.
pub(super) struct Changed {
    files: Arc<dyn RemoteFs>,
    changes: Changes,
}

impl Changed {
    pub(super) fn new(files: Arc<dyn RemoteFs>, changes: Changes) -> Arc<Self> {
        Arc::new(Self { files, changes })
    }

    fn late<T: Send + 'static>(&self, answer: BoxFuture<'static, T>) -> BoxFuture<'static, T> {
        late(self.changes.delay, answer)
    }
}

fn late<T: Send + 'static>(delay: Duration, answer: BoxFuture<'static, T>) -> BoxFuture<'static, T> {
    // It begins when the request is made.
    let over = Instant::now() + delay;
    Box::pin(async move {
        let answer = answer.await;
        sleep_until(over).await;
        answer
    })
}

type Answer<T> = BoxFuture<'static, Result<T, FsError>>;

impl RemoteFs for Changed {
    fn limits(&self) -> Limits {
        self.files.limits()
    }

    fn round_trip(&self) -> Duration {
        self.files.round_trip()
    }

    fn is_gone(&self) -> bool {
        self.files.is_gone()
    }

    fn pulse(&self) -> u64 {
        self.files.pulse()
    }

    fn real_path(&self, path: &[u8]) -> Answer<Vec<u8>> {
        self.late(self.files.real_path(path))
    }

    fn attributes(&self, path: &[u8], links: Links) -> Answer<Attributes> {
        self.late(self.files.attributes(path, links))
    }

    fn set_attributes(&self, path: &[u8], attributes: Attributes) -> Answer<()> {
        self.late(self.files.set_attributes(path, attributes))
    }

    fn open(&self, path: &[u8], how: Open) -> Answer<Box<dyn RemoteFile>> {
        let (opened, delay) = (self.files.open(path, how), self.changes.delay);
        self.late(Box::pin(async move {
            let file: Box<dyn RemoteFile> = Box::new(ChangedFile { file: opened.await?, delay });
            Ok(file)
        }))
    }

    fn open_dir(&self, path: &[u8]) -> Answer<Box<dyn RemoteDir>> {
        let (opened, lists) = (self.files.open_dir(path), self.changes.lists);
        self.late(Box::pin(async move {
            let directory: Box<dyn RemoteDir> = Box::new(ChangedDir { directory: opened.await?, lists });
            Ok(directory)
        }))
    }

    fn make_dir(&self, path: &[u8], permissions: u32) -> Answer<()> {
        self.late(self.files.make_dir(path, permissions))
    }

    fn remove(&self, path: &[u8]) -> Answer<()> {
        self.late(self.files.remove(path))
    }

    fn remove_dir(&self, path: &[u8]) -> Answer<()> {
        self.late(self.files.remove_dir(path))
    }

    fn make_link(&self, path: &[u8], target: &[u8], order: LinkOrder) -> Answer<()> {
        let order = match (order, self.changes.swaps_links) {
            (order, false) => order,
            (LinkOrder::TargetFirst, true) => LinkOrder::PathFirst,
            (LinkOrder::PathFirst, true) => LinkOrder::TargetFirst,
        };
        self.late(self.files.make_link(path, target, order))
    }

    fn read_link(&self, path: &[u8]) -> Answer<Vec<u8>> {
        self.late(self.files.read_link(path))
    }

    fn replace(&self, from: &[u8], to: &[u8]) -> Answer<Replaced> {
        self.late(self.files.replace(from, to))
    }

    fn space(&self, path: &[u8]) -> Answer<Option<Space>> {
        self.late(self.files.space(path))
    }
}

struct ChangedFile {
    file: Box<dyn RemoteFile>,
    delay: Duration,
}

impl RemoteFile for ChangedFile {
    fn read(&self, offset: u64, len: u32) -> Answer<Vec<Bytes>> {
        late(self.delay, self.file.read(offset, len))
    }

    fn write(&self, offset: u64, data: Bytes) -> Answer<()> {
        late(self.delay, self.file.write(offset, data))
    }

    fn attributes(&self) -> Answer<Attributes> {
        late(self.delay, self.file.attributes())
    }

    fn set_attributes(&self, attributes: Attributes) -> Answer<()> {
        late(self.delay, self.file.set_attributes(attributes))
    }

    fn sync(&self) -> Answer<Synced> {
        late(self.delay, self.file.sync())
    }

    fn pulse(&self) -> u64 {
        self.file.pulse()
    }

    fn close(self: Box<Self>) -> Answer<()> {
        late(self.delay, self.file.close())
    }
}

struct ChangedDir {
    directory: Box<dyn RemoteDir>,
    lists: Option<&'static [u8]>,
}

impl RemoteDir for ChangedDir {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Entry>, FsError>> {
        Box::pin(async {
            let mut entries = self.directory.next().await?;
            let attributes = Attributes { mode: Some(0o100_644), size: Some(1), ..Attributes::default() };
            entries.extend(self.lists.take().map(|name| Entry { name: name.to_vec(), attributes }));
            Ok(entries)
        })
    }
}
