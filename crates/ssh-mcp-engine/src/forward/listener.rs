//! Sockets of this machine that listen.

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    task::Poll,
};

use ssh_mcp_core::{kind::forward::LOCALHOST, target::Address};
use tokio::net::{TcpListener, TcpStream, lookup_host};

/// One port, on one address or several.
pub(super) struct Listener {
    sockets: Vec<TcpListener>,
    port: u16,
}

/// Why this machine does not listen there.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody does already.
    #[error("{at} is in use")]
    InUse {
        /// Where.
        at: Address,
    },
    /// The system does not let us, or there is no such address.
    #[error("cannot listen on {at}: {cause}")]
    Failed {
        /// Where.
        at: Address,
        /// The system's words.
        cause: io::Error,
    },
}

/// Attempts to find a port that is free on all addresses.
const ATTEMPTS: usize = 16;

impl Listener {
    /// Listens; `localhost` is the loopback address of each family this machine has.
    pub(super) async fn bind(at: &Address) -> Result<Self, BindError> {
        let addresses = addresses(at).await.map_err(|cause| BindError::Failed { at: at.clone(), cause })?;
        let mut attempts = ATTEMPTS;
        loop {
            attempts -= 1;
            match bind_all(&addresses, at).await {
                // What was free for one family is taken for the other: another port will do.
                Err(BindError::InUse { .. }) if at.port == 0 && attempts > 0 => {}
                outcome => return outcome,
            }
        }
    }

    /// The port it took.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The next connection; dropping the future loses none.
    pub(super) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|cx| {
            let ready = |socket: &TcpListener| match socket.poll_accept(cx) {
                Poll::Ready(came) => Some(came),
                Poll::Pending => None,
            };
            match self.sockets.iter().find_map(ready) {
                Some(came) => Poll::Ready(came),
                None => Poll::Pending,
            }
        })
        .await
    }
}

async fn addresses(at: &Address) -> io::Result<Vec<IpAddr>> {
    if at.host.eq_ignore_ascii_case(LOCALHOST) {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let mut found: Vec<IpAddr> =
        lookup_host((at.host.as_str(), at.port)).await?.map(|address| address.ip()).collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

async fn bind_all(addresses: &[IpAddr], at: &Address) -> Result<Listener, BindError> {
    let mut listener = Listener { sockets: Vec::new(), port: at.port };
    for address in addresses {
        let socket = match TcpListener::bind((*address, listener.port)).await {
            Ok(socket) => socket,
            // A machine without one of the families has the other.
            Err(error) if is_missing(&error) && addresses.len() > 1 => continue,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let at = Address { host: address.to_string(), port: listener.port };
                return Err(BindError::InUse { at });
            }
            Err(cause) => return Err(BindError::Failed { at: at.clone(), cause }),
        };
        if listener.port == 0 {
            let bound = socket.local_addr().map_err(|cause| BindError::Failed { at: at.clone(), cause })?;
            listener.port = bound.port();
        }
        listener.sockets.push(socket);
    }
    match listener.sockets.is_empty() {
        true => Err(BindError::Failed { at: at.clone(), cause: io::ErrorKind::AddrNotAvailable.into() }),
        false => Ok(listener),
    }
}

/// Whether this machine has not the address, or not even its family, which has no kind of its own.
fn is_missing(error: &io::Error) -> bool {
    const NO_SUCH_FAMILY: i32 = if cfg!(target_os = "linux") { 97 } else { 47 };
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(NO_SUCH_FAMILY)
}
