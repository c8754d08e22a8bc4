//! `--healthcheck`: asks the server of the same settings whether it is well, for containers without a client.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use ssh_mcp_core::settings::{Listen, Settings};

/// Asks `/healthz` at the first address the settings name.
///
/// # Errors
/// If nobody answers within a few seconds, or the answer is not 200.
pub fn healthcheck(settings: &Settings) -> io::Result<()> {
    let listen = settings.listen();
    let first = listen.first().ok_or_else(|| io::Error::other("no listen address"))?;
    let mut failure = io::Error::other("the listen address names no machine");
    for address in reachable(first)? {
        match ask(address) {
            Ok(()) => return Ok(()),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Where a server that listens there can be asked from this machine.
fn reachable(listen: &Listen) -> io::Result<Vec<SocketAddr>> {
    let at = |mut address: SocketAddr| {
        match address {
            SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            SocketAddr::V4(_) | SocketAddr::V6(_) => {}
        }
        address
    };
    Ok((listen.host.as_str(), listen.port).to_socket_addrs()?.map(at).collect())
}

fn ask(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut status = [0_u8; 12];
    stream.read_exact(&mut status)?;
    if &status == b"HTTP/1.1 200" { Ok(()) } else { Err(io::Error::other("the server is not well")) }
}

const LIMIT: Duration = Duration::from_secs(3);
