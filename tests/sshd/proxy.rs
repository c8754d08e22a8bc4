//! A TCP hop on loopback that behaves like a network: it takes time, is narrow, goes silent, and breaks.
//!
//! It runs on a thread and a runtime of its own, so that synchronous tests and tests on a single-threaded
//! runtime can use it alike.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A running proxy; dropping it closes its port and every connection through it.
pub(crate) struct Proxy {
    addr: SocketAddr,
    orders: Option<watch::Sender<Orders>>,
    counts: Arc<Counts>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What has passed.
#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    bytes: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Orders {
    traffic: Traffic,
    /// Connections of an earlier generation than this are closed.
    generation: u64,
}

/// A stretch of network.
#[derive(Debug, Clone, Copy)]
struct Line {
    delay: Duration,
    bytes_per_second: f64,
    /// What it holds before its source has to wait.
    chunks_in_flight: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Traffic {
    Flowing,
    Frozen,
}

impl Proxy {
    /// A proxy in front of `target` that holds every byte back for `one_way_delay` (25 ms make a round trip of 50).
    pub(crate) fn start(target: SocketAddr, one_way_delay: Duration) -> Self {
        let line = Line {
            delay: one_way_delay,
            bytes_per_second: f64::INFINITY,
            chunks_in_flight: CHUNKS_IN_FLIGHT,
        };
        Self::over(line, target)
    }

    /// A proxy in front of `target` that lets so many bytes a second through, and holds hardly any itself: who sends
    /// more has to wait.
    pub(crate) fn narrow(target: SocketAddr, bytes_per_second: f64) -> Self {
        Self::over(Line { delay: Duration::ZERO, bytes_per_second, chunks_in_flight: 1 }, target)
    }

    fn over(line: Line, target: SocketAddr) -> Self {
        let (orders, seen) = watch::channel(Orders { traffic: Traffic::Flowing, generation: 0 });
        let counts = Arc::new(Counts::default());
        let listener =
            std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        listener.set_nonblocking(true).expect("a socket of ours");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let counted = Arc::clone(&counts);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a runtime with I/O");
                serve(listener, target, line, seen, counted).await;
            });
        });
        Self { addr, orders: Some(orders), counts, thread: Some(thread) }
    }

    /// Where clients connect.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// Bytes that have passed, both ways together.
    pub(crate) fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::Relaxed)
    }

    /// Stops forwarding and keeps every socket open: what a pulled cable looks like.
    pub(crate) fn freeze(&self) {
        self.order(|orders| orders.traffic = Traffic::Frozen);
    }

    /// Goes on forwarding, first what was held back.
    pub(crate) fn thaw(&self) {
        self.order(|orders| orders.traffic = Traffic::Flowing);
    }

    /// Closes every connection on both sides; new ones are served.
    pub(crate) fn cut(&self) {
        self.order(|orders| orders.generation += 1);
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        self.orders.as_ref().expect("the proxy runs").send_modify(change);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Without a sender the thread ends, and its runtime takes all connections with it.
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the proxy does not panic");
        }
    }
}

async fn serve(
    listener: TcpListener,
    target: SocketAddr,
    line: Line,
    mut orders: watch::Receiver<Orders>,
    counts: Arc<Counts>,
) {
    let mut connections = JoinSet::new();
    loop {
        let client = tokio::select! {
            client = listener.accept() => client,
            changed = orders.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        if let Ok((client, _)) = client {
            counts.accepted.fetch_add(1, Ordering::Relaxed);
            connections.spawn(connection(client, target, line, orders.clone(), Arc::clone(&counts)));
        }
        while connections.try_join_next().is_some() {}
    }
}

/// One client: two directions, until both have ended or the connection is cut.
async fn connection(
    client: TcpStream,
    target: SocketAddr,
    line: Line,
    mut orders: watch::Receiver<Orders>,
    counts: Arc<Counts>,
) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    for socket in [&client, &server] {
        // The delay is ours to set, not Nagle's.
        socket.set_nodelay(true).expect("a socket of ours");
    }
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    let born = orders.borrow().generation;
    let up = direction(client_reads, server_writes, line, orders.clone(), &counts);
    let down = direction(server_reads, client_writes, line, orders.clone(), &counts);
    tokio::select! {
        // Both at their end, or one of them broken.
        _ = async { tokio::try_join!(up, down) } => {}
        _ = orders.wait_for(|orders| orders.generation > born) => {}
    }
}

/// Moves bytes one way, each chunk leaving as long after it came as the line takes, until the source ends.
async fn direction(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    line: Line,
    mut orders: watch::Receiver<Orders>,
    counts: &Counts,
) -> io::Result<()> {
    let (on_its_way, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(line.chunks_in_flight);
    let receive = async move {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            if from.read_buf(&mut chunk).await? == 0
                || on_its_way.send((Instant::now() + line.delay, chunk)).await.is_err()
            {
                return Ok(());
            }
        }
    };
    let send = async move {
        let mut free = Instant::now();
        while let Some((when, chunk)) = due.recv().await {
            let when = when.max(free);
            free = when + Duration::from_secs_f64(chunk.len() as f64 / line.bytes_per_second);
            tokio::time::sleep_until(when).await;
            orders.wait_for(|orders| orders.traffic == Traffic::Flowing).await.map_err(io::Error::other)?;
            to.write_all(&chunk).await?;
            counts.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        to.shutdown().await
    };
    tokio::try_join!(receive, send).map(|((), ())| ())
}

const CHUNK: usize = 64 * 1024;
/// 64 MiB: more than any window the tests open, so that the delay and not this buffer decides.
const CHUNKS_IN_FLIGHT: usize = 1024;
