//! The bytes under a connection as russh sees them: it can be cut at once, and it does not wait for ever to be written to.
//!
//! russh looks at its keepalives only between writes. A peer that stops reading while we send would go unnoticed
//! until TCP itself gives up, a quarter of an hour later; so a write that makes no progress ends the connection here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use russh::ChannelStream;
use russh::client::Msg;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::program::Ends;

/// What carries the bytes.
pub(crate) enum Socket {
    /// TCP, straight to the host.
    Tcp(TcpStream),
    /// A channel through the connection to another host.
    Channel(Box<ChannelStream<Msg>>),
    /// A program of this machine.
    Program(Box<Ends>),
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => {
                let before = buffer.filled().len();
                let read = Pin::new(&mut *socket).poll_read(cx, buffer);
                if SMALL.contains(&buffer.filled().len().saturating_sub(before)) {
                    acknowledge_now(socket);
                }
                read
            }
            Self::Channel(channel) => Pin::new(channel).poll_read(cx, buffer),
            Self::Program(ends) => Pin::new(&mut ends.output).poll_read(cx, buffer),
        }
    }
}

impl Socket {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Channel(channel) => Pin::new(channel).poll_write(cx, bytes),
            Self::Program(ends) => Pin::new(&mut ends.input).poll_write(cx, bytes),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Self::Channel(channel) => Pin::new(channel).poll_flush(cx),
            Self::Program(ends) => Pin::new(&mut ends.input).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Channel(channel) => Pin::new(channel).poll_shutdown(cx),
            Self::Program(ends) => Pin::new(&mut ends.input).poll_shutdown(cx),
        }
    }
}

/// A socket with a switch and a limit for stuck writes.
pub(crate) struct Line {
    /// Holds the one byte that was looked at.
    socket: BufReader<Socket>,
    /// Bytes that are said already and left out when russh says them.
    said: usize,
    cut: CancellationToken,
    is_cut: Pin<Box<WaitForCancellationFutureOwned>>,
    patience: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Line {
    /// `cut` ends it at once; a write without progress for `patience` ends it as well.
    pub(crate) fn new(socket: Socket, cut: CancellationToken, patience: Duration) -> Self {
        let is_cut = Box::pin(cut.clone().cancelled_owned());
        Self { socket: BufReader::with_capacity(1, socket), said: 0, cut, is_cut, patience, stuck: None }
    }

    /// Says the line that a client begins with, and ends when the server has begun to say his.
    pub(crate) async fn greet(&mut self, identification: &str) -> io::Result<()> {
        let line = format!("{identification}\r\n");
        self.write_all(line.as_bytes()).await?;
        self.flush().await?;
        self.said = line.len();
        // Nothing at all is for russh to find out.
        self.socket.fill_buf().await.map(|_| ())
    }

    fn poll_progress<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(&mut Socket, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        // The reading side, in the same task, has left its waker with the switch.
        if self.cut.is_cancelled() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if let Poll::Ready(done) = write(self.socket.get_mut(), cx) {
            self.stuck = None;
            return Poll::Ready(done);
        }
        let patience = self.patience;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        match stuck.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut this.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.said > 0 {
            let again = this.said.min(bytes.len());
            this.said -= again;
            return Poll::Ready(Ok(again));
        }
        this.poll_progress(cx, |socket, cx| socket.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_progress(cx, |socket, cx| socket.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().socket.get_mut().poll_shutdown(cx)
    }
}

/// Sends the acknowledgement that is due instead of waiting for something to send along with it.
///
/// sshd leaves Nagle's algorithm on until the first program runs, and simpler servers leave it on for good: their
/// second small packet waits for the acknowledgement of the first, which the system holds back for 40 ms.
#[cfg(target_os = "linux")]
fn acknowledge_now(socket: &TcpStream) {
    // Nothing depends on it but time.
    let _ = socket.set_quickack(true);
}

/// Elsewhere the system cannot be told.
#[cfg(not(target_os = "linux"))]
fn acknowledge_now(_: &TcpStream) {}

/// The body of a packet that is part of a dialogue. russh reads the four bytes of the length on their own, and the
/// packets of bulk data are larger.
const SMALL: std::ops::RangeInclusive<usize> = 5..=4096;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_cut_ends_a_read_that_waits() {
        let (near, _far) = pair().await;
        let cut = CancellationToken::new();
        let mut line = Line::new(Socket::Tcp(near), cut.clone(), Duration::from_secs(60));
        let reading = async { line.read_u8().await };
        let (read, ()) = tokio::join!(reading, async { cut.cancel() });
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn what_a_client_begins_with_is_said_once_and_nothing_of_the_answer_is_lost() {
        let (near, mut far) = pair().await;
        let mut line = Line::new(Socket::Tcp(near), CancellationToken::new(), Duration::from_secs(60));
        let server = async {
            let mut heard = [0; 11];
            far.read_exact(&mut heard).await.unwrap();
            far.write_all(b"SSH-2.0-b\r\n").await.unwrap();
            far.read_exact(&mut heard[..4]).await.unwrap();
            far.shutdown().await.unwrap();
            heard
        };
        let client = async {
            line.greet("SSH-2.0-a").await.unwrap();
            // In pieces, as a writer may.
            line.write_all(b"SSH-2.0-").await.unwrap();
            line.write_all(b"a\r\nmore").await.unwrap();
            let mut heard = String::new();
            line.read_to_string(&mut heard).await.unwrap();
            heard
        };
        let (heard, answer) = tokio::join!(server, client);
        assert_eq!(&heard, b"more2.0-a\r\n");
        assert_eq!(answer, "SSH-2.0-b\r\n");
    }

    #[tokio::test]
    async fn a_peer_that_reads_nothing_ends_the_line() {
        let (near, _far) = pair().await;
        let mut line = Line::new(Socket::Tcp(near), CancellationToken::new(), Duration::from_millis(20));
        let flood = vec![0; 64 << 20];
        assert_eq!(line.write_all(&flood).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
