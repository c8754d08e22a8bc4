//! From an address to a TCP connection: every address of the name in turn, as OpenSSH does.
//!
//! Not here: what is spoken on the connection (`connection.rs`).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ssh_mcp_core::port::ssh::{ConnectError, Transience};
use ssh_mcp_core::target::{Address, Family, Wire};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use crate::error;

/// A TCP connection, and what it took.
pub(crate) struct Dialled {
    /// The socket, with Nagle's algorithm off.
    pub(crate) socket: TcpStream,
    /// The address that answered.
    pub(crate) reached: SocketAddr,
    /// Time from the first packet to the connection: about one round trip.
    pub(crate) took: Duration,
}

/// Connects to the first address of the name that answers. The last one may take as long as it likes: the caller has a
/// limit for the whole attempt, of which `limit` is what all addresses share.
pub(crate) async fn dial(address: &Address, wire: &Wire, limit: Duration) -> Result<Dialled, ConnectError> {
    let found = tokio::net::lookup_host((address.host.as_str(), address.port))
        .await
        .map_err(|error| error::from_io(&address.host, &error))?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for found in found {
        // The resolver names an address once per socket type it knows.
        if !addresses.contains(&found) && is_of(wire.family, found) {
            addresses.push(found);
        }
    }
    let mut last = error::failed(format!("{}: no address", address.host), Transience::Permanent);
    // An address that swallows packets must not use up the time of those behind it.
    let share = limit / addresses.len().try_into().unwrap_or(u32::MAX).max(1);
    for (behind, reached) in addresses.iter().rev().enumerate().rev() {
        let dialled = match behind {
            0 => dial_address(*reached, wire.bind_address.as_deref()).await,
            _ => timeout(share, dial_address(*reached, wire.bind_address.as_deref())).await.unwrap_or_else(
                |_| Err(error::from_io(&reached.to_string(), &io::ErrorKind::TimedOut.into())),
            ),
        };
        match dialled {
            Ok(dialled) => return Ok(dialled),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Connects to this very address, from `bind` if it is given.
pub(crate) async fn dial_address(reached: SocketAddr, bind: Option<&str>) -> Result<Dialled, ConnectError> {
    let from = match bind {
        Some(bind) => Some(local_address(bind, reached).await?),
        None => None,
    };
    let began = Instant::now();
    let failed = |error| error::from_io(&reached.to_string(), &error);
    let socket = match from {
        None => TcpStream::connect(reached).await,
        Some(from) => {
            let socket = if reached.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
            let socket = socket.map_err(failed)?;
            socket.bind(from).map_err(|error| error::from_io(&format!("from {from}"), &error))?;
            socket.connect(reached).await
        }
    };
    let socket = socket.map_err(failed)?;
    // Without it every small packet waits for a delayed acknowledgement: 44 ms a command instead of 2.
    socket.set_nodelay(true).map_err(failed)?;
    Ok(Dialled { socket, reached, took: began.elapsed() })
}

/// The address a name of this machine stands for, of the kind that is to be reached.
async fn local_address(bind: &str, reached: SocketAddr) -> Result<SocketAddr, ConnectError> {
    let mut found = tokio::net::lookup_host((bind, 0))
        .await
        .map_err(|error| error::from_io(&format!("from {bind}"), &error))?;
    found.find(|address| address.is_ipv4() == reached.is_ipv4()).ok_or_else(|| {
        error::failed(format!("from {bind}: no address to reach {reached}"), Transience::Permanent)
    })
}

fn is_of(family: Family, address: SocketAddr) -> bool {
    match family {
        Family::Any => true,
        Family::V4 => address.is_ipv4(),
        Family::V6 => address.is_ipv6(),
    }
}

#[cfg(test)]
mod tests {
    use ssh_mcp_core::target::{Credentials, Target};
    use ssh_mcp_testkit::host::defaults;
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn wire() -> Wire {
        let target = Target { address: Address { host: "h".into(), port: 22 }, username: "u".into() };
        defaults().hop(target, Credentials::default()).wire
    }

    #[tokio::test]
    async fn only_addresses_of_the_wanted_kind_are_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = Address { host: "127.0.0.1".into(), port };
        for (family, is_reached) in [(Family::V4, true), (Family::V6, false)] {
            assert_eq!(dial(&address, &Wire { family, ..wire() }, LIMIT).await.is_ok(), is_reached);
        }
    }

    #[tokio::test]
    async fn a_bind_address_is_where_the_connection_comes_from() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = Address { host: "127.0.0.1".into(), port };
        let from = |bind: &str| Wire { bind_address: Some(bind.to_owned()), ..wire() };
        let dialled = dial(&address, &from("127.0.0.1"), LIMIT).await.unwrap();
        assert!(dialled.socket.local_addr().unwrap().ip().is_loopback());
        assert!(dial(&address, &from("192.0.2.1"), LIMIT).await.is_err());
    }

    #[tokio::test]
    async fn a_name_with_several_addresses_is_tried_through() {
        // `localhost` is ::1 and 127.0.0.1 on most machines; only the latter listens.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dialled = dial(&Address { host: "localhost".into(), port }, &wire(), LIMIT).await.unwrap();
        assert_eq!(dialled.reached, listener.local_addr().unwrap());
        assert!(dialled.socket.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_closed_port_is_transient_and_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let refused = dial(&Address { host: "127.0.0.1".into(), port }, &wire(), LIMIT).await.err();
        let Some(ConnectError::Failed { cause, transience: Transience::Transient }) = refused else {
            panic!("{refused:?}");
        };
        assert!(cause.starts_with(&format!("127.0.0.1:{port}: ")), "{cause}");
    }
}
