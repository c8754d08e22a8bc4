//! The bytes of one file from one side to the other: many requests under way, in ascending order, and a thread of its own
//! for the local file.
//!
//! What counts as moved is what the far side has acknowledged (upload) or the local file system has taken (download). Either
//! way it is a prefix without holes, so what an interruption leaves can be continued.

use std::{
    collections::VecDeque,
    fs::File,
    future::Future,
    io::{self, Read, Write},
    pin::pin,
    time::Duration,
};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use ssh_mcp_core::port::{
    BoxFuture,
    fs::{FsError, RemoteFile},
};
use tokio::{sync::mpsc, task::spawn_blocking, time::timeout};

/// How a line is kept full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Bytes of one request.
    pub chunk: u32,
    /// Requests under way.
    pub depth: usize,
    /// Nothing moves for so long: it is given up.
    pub patience: Duration,
}

/// What is waited for; none once for the patience neither that nor anything else of the service has moved.
///
/// Files share a line: on a slow one, what is asked last waits behind all that others have under way.
pub(super) async fn patient<T>(
    patience: Duration,
    pulse: impl Fn() -> u64,
    awaited: impl Future<Output = T>,
) -> Option<T> {
    let mut awaited = pin!(awaited);
    loop {
        let before = pulse();
        match timeout(patience, &mut awaited).await {
            Ok(value) => return Some(value),
            Err(_) if pulse() == before => return None,
            Err(_) => {}
        }
    }
}

/// A SHA-256 over what passes; a resumed transfer begins with that of the prefix.
pub type Hash = Option<Sha256>;

/// When what was written goes to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Behind the last byte.
    Now,
    /// When the caller says so, for many files at once.
    Later,
}

/// Why bytes stopped.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The local file.
    #[error("{0}")]
    Local(#[from] io::Error),
    /// The remote file.
    #[error("{0}")]
    Remote(#[from] FsError),
    /// Nothing moved for the patience.
    #[error("nothing moved for {} s", .0.as_secs())]
    Stalled(Duration),
}

/// Chunks between the thread of the local file and the line: enough that neither waits for the other's next step.
const AHEAD: usize = 4;

/// Sends `source`, whose position is `from`, up to `end`, to the same position; what was added to it meanwhile is not sent.
/// An `end` of 0 is that of a file that does not say how long it is, and then all of it is. `moved` hears of every piece.
pub async fn upload(
    source: File,
    to: &dyn RemoteFile,
    (from, end): (u64, u64),
    flow: Flow,
    hash: Hash,
    mut moved: impl FnMut(u64),
) -> Result<Hash, StreamError> {
    let (read, mut chunks) = mpsc::channel(AHEAD);
    let expected = (end > 0).then(|| end.saturating_sub(from));
    let reading = spawn_blocking(move || read_ahead(source, expected, flow.chunk, &read, hash));
    let mut under_way: UnderWay<()> = VecDeque::new();
    let mut offset = from;
    let mut has_more = true;
    while has_more || !under_way.is_empty() {
        let step = async {
            tokio::select! {
                biased;
                written = first(&mut under_way) => written.map(Step::Moved),
                chunk = chunks.recv(), if has_more && under_way.len() < flow.depth => Ok(Step::Read(chunk)),
            }
        };
        let step = patient(flow.patience, || to.pulse(), step).await;
        match step.ok_or(StreamError::Stalled(flow.patience))?? {
            Step::Moved(((), len)) => moved(len),
            Step::Read(Some(chunk)) => {
                let len = chunk.len() as u64;
                under_way.push_back((len, to.write(offset, chunk)));
                offset += len;
            }
            Step::Read(None) => has_more = false,
        }
    }
    joined(reading).await
}

/// Fetches `from` to `end` and appends it to `target`, whose position is `from`. Returns what was there: less than that if
/// the file has become shorter. `moved` hears of every piece, in the thread of the local file.
pub async fn download(
    source: &dyn RemoteFile,
    target: File,
    (from, end): (u64, u64),
    flow: Flow,
    hash: Hash,
    flush: Flush,
    moved: impl FnMut(u64) + Send + 'static,
) -> Result<(u64, Hash), StreamError> {
    let (fetched, pieces) = mpsc::channel(AHEAD);
    let writing = spawn_blocking(move || write_behind(target, pieces, hash, flush, moved));
    let mut fetch = Fetch::new(source, (from, end), flow);
    let ended = loop {
        let pieces = match fetch.next().await {
            Ok(Some(pieces)) => pieces,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        // The disk here, which has nothing to do with the service.
        let taken = timeout(flow.patience, fetched.send(pieces)).await;
        if taken.map_err(|_| StreamError::Stalled(flow.patience))?.is_err() {
            // The thread has ended early, and its result says why.
            break Ok(());
        }
    };
    drop(fetched);
    // Also where no more comes: what goes on from here must not meet a thread that still writes.
    let written = joined(writing).await;
    ended?;
    Ok((fetch.reached, written?))
}

/// The hash of a file's first `len` bytes, fetched for nothing else.
pub async fn read_back(source: &dyn RemoteFile, len: u64, flow: Flow) -> Result<Sha256, StreamError> {
    let mut fetch = Fetch::new(source, (0, len), flow);
    let mut hash = Sha256::new();
    while let Some(pieces) = fetch.next().await? {
        pieces.iter().for_each(|piece| hash.update(piece));
    }
    Ok(hash)
}

/// A range of a remote file, in order, with many requests under way.
struct Fetch<'a> {
    source: &'a dyn RemoteFile,
    flow: Flow,
    asked: u64,
    end: u64,
    /// Handed out up to here.
    reached: u64,
    under_way: UnderWay<Vec<Bytes>>,
}

impl<'a> Fetch<'a> {
    fn new(source: &'a dyn RemoteFile, (from, end): (u64, u64), flow: Flow) -> Self {
        Self { source, flow, asked: from, end, reached: from, under_way: VecDeque::new() }
    }

    /// The next bytes; none at the end, which may come early.
    async fn next(&mut self) -> Result<Option<Vec<Bytes>>, StreamError> {
        while self.asked < self.end && self.under_way.len() < self.flow.depth {
            let len = u64::from(self.flow.chunk).min(self.end - self.asked);
            self.under_way.push_back((len, self.read(self.asked, len)));
            self.asked += len;
        }
        if self.under_way.is_empty() {
            return Ok(None);
        }
        let pulse = || self.source.pulse();
        let step = patient(self.flow.patience, pulse, first(&mut self.under_way)).await;
        let (pieces, len) = step.ok_or(StreamError::Stalled(self.flow.patience))??;
        let got: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if got == 0 {
            // The file ends here; what was asked for behind it does not exist.
            self.under_way.clear();
            self.end = self.reached;
            return Ok(None);
        }
        self.reached += got;
        if got < len {
            self.under_way.push_front((len - got, self.read(self.reached, len - got)));
        }
        Ok(Some(pieces))
    }

    fn read(&self, offset: u64, len: u64) -> BoxFuture<'static, Result<Vec<Bytes>, FsError>> {
        self.source.read(offset, u32::try_from(len).unwrap_or(u32::MAX))
    }
}

/// Requests that have been sent, oldest first, each with the bytes it is about.
type UnderWay<T> = VecDeque<(u64, BoxFuture<'static, Result<T, FsError>>)>;

/// What an upload waits for next.
enum Step {
    Moved(((), u64)),
    Read(Option<Bytes>),
}

/// The answer to the oldest request, and how many bytes it was about; never, if there is none.
async fn first<T>(under_way: &mut UnderWay<T>) -> Result<(T, u64), FsError> {
    let Some((len, oldest)) = under_way.front_mut() else { return std::future::pending().await };
    let len = *len;
    let answer = oldest.await;
    under_way.pop_front();
    Ok((answer?, len))
}

async fn joined<T>(
    thread: impl Future<Output = Result<io::Result<T>, tokio::task::JoinError>>,
) -> Result<T, StreamError> {
    thread.await.map_err(io::Error::other)?.map_err(StreamError::Local)
}

fn read_ahead(
    source: File,
    mut left: Option<u64>,
    chunk: u32,
    to: &mpsc::Sender<Bytes>,
    mut hash: Hash,
) -> io::Result<Hash> {
    loop {
        let most = left.unwrap_or(u64::MAX).min(u64::from(chunk));
        let room = left.map_or(0, |left| left.min(most));
        let mut piece = Vec::with_capacity(usize::try_from(room).unwrap_or(usize::MAX));
        let len = (&source).take(most).read_to_end(&mut piece)?;
        if let Some(hash) = &mut hash {
            hash.update(&piece);
        }
        left = left.map(|left| left.saturating_sub(len as u64));
        // Nobody listens any more: the transfer is over.
        if len == 0 || to.blocking_send(piece.into()).is_err() {
            return Ok(hash);
        }
    }
}

fn write_behind(
    mut target: File,
    mut pieces: mpsc::Receiver<Vec<Bytes>>,
    mut hash: Hash,
    flush: Flush,
    mut moved: impl FnMut(u64),
) -> io::Result<Hash> {
    while let Some(pieces) = pieces.blocking_recv() {
        for piece in pieces {
            target.write_all(&piece)?;
            if let Some(hash) = &mut hash {
                hash.update(&piece);
            }
            moved(piece.len() as u64);
        }
    }
    if flush == Flush::Now {
        target.sync_data()?;
    }
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Seek, SeekFrom},
        sync::{
            Arc, Mutex,
            atomic::{AtomicU64, Ordering},
        },
    };

    use ssh_mcp_core::port::fs::{Attributes, FsErrorKind, Synced};

    use super::*;

    /// A remote file in memory, and how badly it behaves.
    #[derive(Default)]
    struct Memory {
        content: Arc<Mutex<Vec<u8>>>,
        /// Reads give at most so many bytes.
        short: Option<usize>,
        /// Requests that touch this position fail.
        fails_at: Option<u64>,
        /// Requests that touch this position are never answered.
        hangs_at: Option<u64>,
        /// Most requests that were under way at once.
        busiest: Arc<AtomicU64>,
        busy: Arc<AtomicU64>,
    }

    impl Memory {
        fn of(content: &[u8]) -> Self {
            Self { content: Arc::new(Mutex::new(content.to_vec())), ..Self::default() }
        }

        /// The fate of a request for this range; the requests before it are answered later than those behind it.
        fn fate(&self, offset: u64, len: usize) -> BoxFuture<'static, Result<(), FsError>> {
            let is_in = |at: Option<u64>| at.is_some_and(|at| (offset..offset + len as u64).contains(&at));
            let (fails, hangs) = (is_in(self.fails_at), is_in(self.hangs_at));
            let busy = self.busy.fetch_add(1, Ordering::Relaxed) + 1;
            self.busiest.fetch_max(busy, Ordering::Relaxed);
            let over = Arc::clone(&self.busy);
            Box::pin(async move {
                tokio::task::yield_now().await;
                over.fetch_sub(1, Ordering::Relaxed);
                if hangs {
                    std::future::pending::<()>().await;
                }
                let refusal = FsError { kind: FsErrorKind::Denied, cause: "no".to_owned() };
                if fails { Err(refusal) } else { Ok(()) }
            })
        }
    }

    impl RemoteFile for Memory {
        fn read(&self, offset: u64, len: u32) -> BoxFuture<'static, Result<Vec<Bytes>, FsError>> {
            let content = self.content.lock().unwrap();
            let from = content.len().min(offset as usize);
            let most = self.short.unwrap_or(usize::MAX).min(len as usize);
            let piece = content[from..content.len().min(from + most)].to_vec();
            let fate = self.fate(offset, len as usize);
            Box::pin(async move {
                fate.await?;
                let (one, two) = piece.split_at(piece.len() / 2);
                Ok([one, two]
                    .into_iter()
                    .filter(|part| !part.is_empty())
                    .map(Bytes::copy_from_slice)
                    .collect())
            })
        }

        fn write(&self, offset: u64, data: Bytes) -> BoxFuture<'static, Result<(), FsError>> {
            let content = Arc::clone(&self.content);
            let fate = self.fate(offset, data.len());
            Box::pin(async move {
                fate.await?;
                let mut content = content.lock().unwrap();
                assert_eq!(content.len() as u64, offset, "a hole, or out of order");
                content.extend_from_slice(&data);
                Ok(())
            })
        }

        fn attributes(&self) -> BoxFuture<'static, Result<Attributes, FsError>> {
            Box::pin(async { Ok(Attributes::default()) })
        }

        fn set_attributes(&self, _attributes: Attributes) -> BoxFuture<'static, Result<(), FsError>> {
            Box::pin(async { Ok(()) })
        }

        fn sync(&self) -> BoxFuture<'static, Result<Synced, FsError>> {
            Box::pin(async { Ok(Synced::Unsupported) })
        }

        fn pulse(&self) -> u64 {
            0
        }

        fn close(self: Box<Self>) -> BoxFuture<'static, Result<(), FsError>> {
            Box::pin(async { Ok(()) })
        }
    }

    const FLOW: Flow = Flow { chunk: 1000, depth: 8, patience: Duration::from_secs(60) };

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 + at / 256) as u8).collect()
    }

    fn local(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file
    }

    fn digest(bytes: &[u8]) -> Vec<u8> {
        Sha256::digest(bytes).to_vec()
    }

    #[tokio::test]
    async fn an_upload_arrives_whole_and_in_order() {
        for len in [0, 1, 999, 1000, 1001, 123_456] {
            let content = content(len);
            let remote = Memory::default();
            let mut counted = 0;
            let hash = Some(Sha256::new());
            let hash =
                upload(local(&content), &remote, (0, len as u64), FLOW, hash, |bytes| counted += bytes)
                    .await
                    .unwrap();
            assert_eq!((*remote.content.lock().unwrap()).as_slice(), content, "{len}");
            assert_eq!((counted, hash.unwrap().finalize().to_vec()), (len as u64, digest(&content)));
            assert!(remote.busiest.load(Ordering::Relaxed) <= FLOW.depth as u64);
        }
    }

    #[tokio::test]
    async fn an_upload_goes_on_where_another_ended() {
        let content = content(10_500);
        let remote = Memory::of(&content[..3333]);
        let mut file = local(&content);
        file.seek(SeekFrom::Start(3333)).unwrap();
        let prefix = Some(Sha256::new_with_prefix(&content[..3333]));
        let hash = upload(file, &remote, (3333, 10_500), FLOW, prefix, |_| {}).await.unwrap();
        assert_eq!((*remote.content.lock().unwrap()).as_slice(), content);
        assert_eq!(hash.unwrap().finalize().to_vec(), digest(&content));
    }

    #[tokio::test]
    async fn an_upload_that_fails_has_left_a_prefix_and_counted_no_more() {
        let content = content(50_000);
        let remote = Memory { fails_at: Some(20_500), ..Memory::default() };
        let mut counted = 0;
        let error = upload(local(&content), &remote, (0, 50_000), FLOW, None, |bytes| counted += bytes)
            .await
            .unwrap_err();
        assert!(matches!(error, StreamError::Remote(FsError { kind: FsErrorKind::Denied, .. })), "{error}");
        let arrived = remote.content.lock().unwrap().clone();
        assert!(content.starts_with(&arrived) && counted == 20_000 && arrived.len() == 20_000);
    }

    #[tokio::test]
    async fn what_is_added_to_a_source_meanwhile_is_not_sent() {
        let content = content(5500);
        for (from, end, sent) in [(0, 3000, 3000), (2500, 3000, 3000), (3000, 3000, 3000), (0, 0, 5500)] {
            let remote = Memory::of(&content[..from as usize]);
            let mut file = local(&content);
            file.seek(SeekFrom::Start(from)).unwrap();
            let mut counted = from;
            upload(file, &remote, (from, end), FLOW, None, |bytes| counted += bytes).await.unwrap();
            assert_eq!(counted, sent, "{from} {end}");
            assert_eq!((*remote.content.lock().unwrap()).as_slice(), &content[..sent as usize]);
        }
    }

    /// What a download of that much of `remote` makes of a file.
    async fn fetched(
        remote: &Memory,
        (from, end): (u64, u64),
        held: &[u8],
        flow: Flow,
    ) -> (Result<u64, StreamError>, Vec<u8>, u64) {
        let mut target = tempfile::tempfile().unwrap();
        target.write_all(held).unwrap();
        let counted = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&counted);
        let moved = move |bytes| _ = counter.fetch_add(bytes, Ordering::Relaxed);
        let result =
            download(remote, target.try_clone().unwrap(), (from, end), flow, None, Flush::Now, moved).await;
        let mut bytes = Vec::new();
        target.seek(SeekFrom::Start(0)).unwrap();
        target.read_to_end(&mut bytes).unwrap();
        (result.map(|(reached, _)| reached), bytes, counted.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_download_arrives_whole_however_short_the_answers_are() {
        for len in [0, 1, 1000, 1001, 54_321] {
            for short in [None, Some(1000), Some(333)] {
                let content = content(len);
                let remote = Memory { short, ..Memory::of(&content) };
                let (reached, bytes, counted) = fetched(&remote, (0, len as u64), b"", FLOW).await;
                assert_eq!((reached.unwrap(), counted), (len as u64, len as u64));
                assert!(bytes == content, "{len} {short:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_download_goes_on_where_another_ended_and_stops_where_the_file_does() {
        let content = content(10_500);
        let (reached, bytes, counted) =
            fetched(&Memory::of(&content), (3333, 10_500), &content[..3333], FLOW).await;
        assert_eq!((reached.unwrap(), bytes == content, counted), (10_500, true, 10_500 - 3333));
        // It was longer when its size was asked for.
        let (reached, bytes, _) = fetched(&Memory::of(&content), (0, 20_000), b"", FLOW).await;
        assert_eq!((reached.unwrap(), bytes == content), (10_500, true));
    }

    #[tokio::test]
    async fn a_download_that_fails_has_written_a_prefix() {
        let content = content(50_000);
        let remote = Memory { fails_at: Some(20_500), ..Memory::of(&content) };
        let (result, bytes, _) = fetched(&remote, (0, 50_000), b"", FLOW).await;
        assert!(matches!(result, Err(StreamError::Remote(_))));
        assert!(content.starts_with(&bytes));
    }

    // In real time: a paused clock stands still while the thread of the file waits.
    #[tokio::test]
    async fn a_server_that_stops_answering_is_given_up() {
        let content = content(50_000);
        let flow = Flow { patience: Duration::from_millis(50), ..FLOW };
        let remote = Memory { hangs_at: Some(20_500), ..Memory::of(&content) };
        let (result, ..) = fetched(&remote, (0, 50_000), b"", flow).await;
        assert!(matches!(result, Err(StreamError::Stalled(_))));
        let remote = Memory { hangs_at: Some(20_500), ..Memory::default() };
        let result = upload(local(&content), &remote, (0, content.len() as u64), flow, None, |_| {}).await;
        assert!(matches!(result, Err(StreamError::Stalled(_))));
    }
}
