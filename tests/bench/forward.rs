//! Forwards against `ssh -L`: `scripts/bench forward`.
//!
//! Both lead through the same server to the same service of this program, with the cipher that the product agrees on, and
//! take turns. What is sent is not looked at: that nothing is lost is shown by the tests.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    MIB, at,
    client::McpClient,
    connect,
    files::{GIB, agreed_cipher},
    millis, ratio, row, server,
    sshd::{ClientKey, OpenSshd, User},
    stdio,
};

/// A part, once both ways are open.
type Part = fn(&Ways);

/// The parts that are wanted.
pub(crate) async fn measure(run: impl Fn(&str) -> bool) {
    let parts: [(&str, Part); 3] =
        [("forward bulk", bulk), ("forward crowd", crowd), ("forward delay", delay)];
    for (_, part) in parts.iter().filter(|(name, _)| run(name)) {
        let ways = Ways::open().await;
        tokio::task::block_in_place(|| part(&ways));
    }
}

/// The same service behind the product and behind `ssh -L`.
struct Ways {
    own: SocketAddr,
    peer: SocketAddr,
    ssh: Child,
    _server: OpenSshd,
    _client: McpClient,
}

impl Ways {
    async fn open() -> Self {
        let server = server(None);
        let cipher = agreed_cipher(&server).await;
        let service = service();
        let client = stdio(&server).await;
        let session = connect(&client, &server, &server.addr().to_string()).await;
        let ask = json!({"session_id": session, "local_port": 0, "remote_address": "127.0.0.1",
            "remote_port": service.port()});
        let answer = client.call("ssh_forward", ask).await;
        assert!(!answer.is_error, "{}", answer.text);
        let own = answer.structured["local"].as_str().unwrap().parse().unwrap();

        let peer = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut ssh = server.client(User::Tester, ClientKey::Ed25519);
        ssh.args(["-N", "-c", &cipher, "-o", "ExitOnForwardFailure=yes", "-L"]);
        ssh.arg(format!("{peer}:{service}"));
        let ssh = ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Until it listens.
        while TcpStream::connect(peer).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            thread::yield_now();
        }
        Self { own, peer, ssh, _server: server, _client: client }
    }

    /// Both in turn, the first round to warm up; the medians.
    fn medians(
        &self,
        rounds: usize,
        mut measure: impl FnMut(SocketAddr) -> Duration,
    ) -> (Duration, Duration) {
        let (mut own, mut peer) = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            let (one, other) = (measure(self.own), measure(self.peer));
            if round > 0 {
                own.push(one);
                peer.push(other);
            }
        }
        (at(&mut own, 0.5), at(&mut peer, 0.5))
    }
}

impl Drop for Ways {
    fn drop(&mut self) {
        // Our own child.
        self.ssh.kill().ok();
        self.ssh.wait().ok();
    }
}

/// Echoes, takes and answers by one byte, or sends a gibibyte, as the first byte says.
fn service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || serve(socket).ok());
        }
    });
    addr
}

fn serve(mut socket: TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut first = [0; 1];
    socket.read_exact(&mut first)?;
    let mut bytes = vec![0; CHUNK];
    match first[0] {
        b'e' => loop {
            let size = socket.read(&mut bytes)?;
            if size == 0 {
                return Ok(());
            }
            socket.write_all(&bytes[..size])?;
        },
        b't' => {
            while socket.read(&mut bytes)? > 0 {}
            socket.write_all(b"!")
        }
        _ => (0..GIB / CHUNK as u64).try_for_each(|_| socket.write_all(&bytes)),
    }
}

const CHUNK: usize = 256 << 10;

fn open(way: SocketAddr, kind: u8) -> TcpStream {
    let mut socket = TcpStream::connect(way).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.write_all(&[kind]).unwrap();
    socket
}

fn bulk(ways: &Ways) {
    let mut bytes = vec![0; CHUNK];
    let up = ways.medians(5, |way| {
        let mut socket = open(way, b't');
        let begun = Instant::now();
        for _ in 0..GIB / CHUNK as u64 {
            socket.write_all(&bytes).unwrap();
        }
        socket.shutdown(Shutdown::Write).unwrap();
        socket.read_exact(&mut [0; 1]).unwrap();
        begun.elapsed()
    });
    let down = ways.medians(5, |way| {
        let begun = Instant::now();
        let mut socket = open(way, b's');
        let mut left = GIB;
        while left > 0 {
            let size = socket.read(&mut bytes).unwrap();
            assert!(size > 0, "{left} bytes are missing");
            left -= size as u64;
        }
        begun.elapsed()
    });
    for (name, (own, peer)) in [("up", up), ("down", down)] {
        let rate = |time: Duration| format!("{:.0} MiB/s", (GIB / MIB) as f64 / time.as_secs_f64());
        let ratio = Some(peer.as_secs_f64() / own.as_secs_f64());
        row(&format!("1 GiB through a forward, {name}"), &rate(own), &rate(peer), ratio, ">= 0.9");
    }
}

/// Two hundred connections opened, each of which gets its echo.
fn crowd(ways: &Ways) {
    let (own, peer) = ways.medians(15, |way| {
        let begun = Instant::now();
        let mut sockets: Vec<TcpStream> = (0..200).map(|_| open(way, b'e')).collect();
        sockets.iter_mut().for_each(|socket| socket.write_all(b"echo").unwrap());
        sockets.iter_mut().for_each(|socket| socket.read_exact(&mut [0; 4]).unwrap());
        begun.elapsed()
    });
    row("200 connections opened and echoed", &millis(own), &millis(peer), ratio(own, peer), "<= 1.1");
}

/// One byte there and back on an open connection.
fn delay(ways: &Ways) {
    let mut own = open(ways.own, b'e');
    let mut peer = open(ways.peer, b'e');
    let trip = |socket: &mut TcpStream| {
        let begun = Instant::now();
        socket.write_all(b"x").unwrap();
        socket.read_exact(&mut [0; 1]).unwrap();
        begun.elapsed()
    };
    let (mut own_times, mut peer_times) = (Vec::new(), Vec::new());
    for round in 0..6000 {
        let (one, other) = (trip(&mut own), trip(&mut peer));
        if round >= 1000 {
            own_times.push(one);
            peer_times.push(other);
        }
    }
    for (share, name) in [(0.5, "median"), (0.95, "p95")] {
        let (own, peer) = (at(&mut own_times, share), at(&mut peer_times, share));
        row(&format!("a byte there and back, {name}"), &millis(own), &millis(peer), ratio(own, peer), "<= 1");
    }
}
