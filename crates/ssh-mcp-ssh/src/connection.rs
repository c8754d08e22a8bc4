//! One SSH connection: russh's handle, what is known of it, and the switch that ends it.
//!
//! A connection is owned by the pool of its link; channels hold it only to speak on it.

use std::sync::Arc;
use std::time::Duration;

use openssh_files::config::AlgorithmKind;
use russh::client::{Config, Handle, Msg};
use russh::{Disconnect, Preferred, SshId, cipher, compression};
use ssh_mcp_core::port::ssh::{ConnectError, LinkLost};
use ssh_mcp_core::target::{Algorithms, Compression, Keepalive, Lendings};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::agent::Lending;
use crate::guests::Guests;
use crate::handler::{Client, Watch};
use crate::host_key::Trust;
use crate::line::{Line, Socket};
use crate::tasks::Tasks;
use crate::{algorithms, error};

/// A connection after its key exchange.
pub(crate) struct Connection {
    /// russh's end of it.
    pub(crate) handle: Handle<Client>,
    /// What is known of it.
    pub(crate) watch: Arc<Watch>,
    cut: CancellationToken,
    /// russh's task does not end with its handle: the line is cut under it.
    _cut_on_drop: DropGuard,
}

/// Why a channel was not opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The server refused; its words.
    Refused(String),
    /// The connection is gone.
    Lost,
}

/// What is agreed on before the key exchange.
pub(crate) struct Terms {
    /// Keepalives, and with them how long a write may be stuck.
    pub(crate) keepalive: Keepalive,
    /// Whether zlib is offered.
    pub(crate) zlib: Zlib,
    /// What is offered where the usual does not serve.
    pub(crate) algorithms: Algorithms,
    /// What the other side is lent.
    pub(crate) lendings: Lendings,
    /// How long it took to get a socket, which may be no time at all.
    pub(crate) took: Duration,
}

/// Whether zlib is offered on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zlib {
    Offered,
    Off,
}

impl Zlib {
    /// On a fast line zlib is the bottleneck, on a slow one it saves round trips.
    pub(crate) fn decide(wanted: Compression, connect_time: Duration) -> Self {
        match wanted {
            Compression::On => Self::Offered,
            Compression::Off => Self::Off,
            Compression::Auto if connect_time >= SLOW_LINE => Self::Offered,
            Compression::Auto => Self::Off,
        }
    }
}

impl Connection {
    /// Exchanges keys and checks the host key. Dropping the future ends the connection.
    pub(crate) async fn establish(
        socket: Socket,
        terms: &Terms,
        trust: Trust,
        guests: Option<Guests>,
    ) -> Result<Self, ConnectError> {
        let watch = Arc::<Watch>::default();
        let cut = CancellationToken::new();
        let cut_on_drop = cut.clone().drop_guard();
        let patience = terms.keepalive.interval.saturating_mul(terms.keepalive.max.max(1));
        let mut line = Line::new(socket, cut.clone(), patience);
        let began = Instant::now();
        line.greet(IDENTIFICATION).await.map_err(|error| error::from_russh(&error.into()))?;
        let config = config(terms, &trust, window(terms.took + began.elapsed()));
        // Ended by the cut, which the line passes on to every channel.
        let agent = terms.lendings.agent.clone().map(|socket| Lending::new(socket, Tasks::new()));
        let client = Client::new(trust, Arc::clone(&watch), agent, guests);
        let handle = russh::client::connect_stream(config, line, client).await?;
        if let Some(binding) = handle.agent_session_binding() {
            watch.bind(binding.clone());
        }
        Ok(Self { handle, watch, cut, _cut_on_drop: cut_on_drop })
    }

    /// Opens a session channel: one round trip. Must not be dropped half-way, or the channel is lost to everybody.
    pub(crate) async fn open_session(&self) -> Result<russh::Channel<Msg>, OpenError> {
        match self.handle.channel_open_session().await {
            Ok(channel) => Ok(channel),
            Err(russh::Error::ChannelOpenFailure(reason)) => {
                Err(OpenError::Refused(self.watch.last_refusal().unwrap_or_else(|| format!("{reason:?}"))))
            }
            Err(_) => {
                // russh's task lets go of the line a moment after it stops listening to us.
                self.cut();
                self.watch.gone().await;
                Err(OpenError::Lost)
            }
        }
    }

    /// A round trip through the server's packet loop: whatever was sent before has been read when it is over.
    pub(crate) async fn ping(&self) -> Result<Duration, LinkLost> {
        let began = Instant::now();
        tokio::select! {
            // russh reports a lost reply as an answer, so the loss is looked at first.
            biased;
            lost = self.watch.gone() => Err(lost),
            answered = self.handle.send_ping() => match answered {
                Ok(()) if !self.handle.is_closed() => Ok(began.elapsed()),
                Ok(()) | Err(_) => Err(self.watch.gone().await),
            },
        }
    }

    /// Says good-bye and ends the connection, within a second.
    pub(crate) async fn disconnect(&self) {
        self.watch.end_with("disconnected");
        let farewell = async {
            // A failure means that there is nobody left to say it to.
            let _ = self.handle.disconnect(Disconnect::ByApplication, "", "en").await;
            self.watch.gone().await;
        };
        let _ = timeout(FAREWELL, farewell).await;
        self.cut();
        self.watch.gone().await;
    }

    /// Ends the connection at once, without a word.
    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }
}

fn config(terms: &Terms, trust: &Trust, window_size: u32) -> Arc<Config> {
    let compression: &'static [compression::Name] = match terms.zlib {
        Zlib::Offered => &[compression::ZLIB_LEGACY, compression::NONE],
        Zlib::Off => &[compression::NONE],
    };
    let usual = Preferred::default();
    let Algorithms { kex, ciphers: named_ciphers, macs, host_keys } = &terms.algorithms;
    let (keys, certificates) = trust.preferred(host_keys.as_deref());
    // What russh would offer leaves out what OpenSSH's client offers, and with it servers that have nothing else.
    let kex = named_or_usual::<russh::kex::Name>(kex.as_deref(), AlgorithmKind::Kex);
    // Not algorithms but what is announced beside them.
    let is_marker = |name: &&russh::kex::Name| !algorithms::is_kex(name.as_ref());
    let markers = usual.kex.iter().filter(is_marker).copied();
    let preferred = Preferred {
        key: keys.into(),
        kex: kex.into_iter().chain(markers).collect(),
        mac: named_or_usual(macs.as_deref(), AlgorithmKind::Macs).into(),
        host_key_certificates: certificates.into(),
        cipher: named_ciphers.as_deref().map_or_else(|| ciphers().into(), |names| named(names).into()),
        compression: compression.into(),
    };
    Arc::new(Config {
        client_id: SshId::Standard(IDENTIFICATION.into()),
        window_size,
        preferred,
        // A session may be silent as long as it likes; keepalives find out dead peers.
        inactivity_timeout: None,
        keepalive_interval: Some(terms.keepalive.interval),
        // russh counts an interval more than it is told, and takes 0 for "never".
        keepalive_max: usize::try_from(terms.keepalive.max.saturating_sub(1).max(1)).unwrap_or(usize::MAX),
        ..Config::default()
    })
}

/// The names of a configuration, else those that are offered unasked.
fn named_or_usual<N: for<'a> TryFrom<&'a str>>(names: Option<&[String]>, kind: AlgorithmKind) -> Vec<N> {
    match names {
        Some(names) => named(names),
        None => algorithms::offer(kind).default.iter().filter_map(|name| N::try_from(name).ok()).collect(),
    }
}

/// Names this build knows, in their order.
fn named<'a, N: TryFrom<&'a str>>(names: &'a [String]) -> Vec<N> {
    names.iter().filter_map(|name| N::try_from(name).ok()).collect()
}

/// AES first where the processor has instructions for it, else it costs twice what ChaCha20 does.
fn ciphers() -> &'static [cipher::Name] {
    if has_aes_instructions() {
        &[
            cipher::AES_128_GCM,
            cipher::AES_256_GCM,
            cipher::CHACHA20_POLY1305,
            cipher::AES_256_CTR,
            cipher::AES_192_CTR,
            cipher::AES_128_CTR,
        ]
    } else {
        &[
            cipher::CHACHA20_POLY1305,
            cipher::AES_128_GCM,
            cipher::AES_256_GCM,
            cipher::AES_256_CTR,
            cipher::AES_192_CTR,
            cipher::AES_128_CTR,
        ]
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
fn has_aes_instructions() -> bool {
    std::arch::is_x86_feature_detected!("aes")
}

#[cfg(target_arch = "aarch64")]
fn has_aes_instructions() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
fn has_aes_instructions() -> bool {
    false
}

/// The line a client begins with (RFC 4253, 4.2).
const IDENTIFICATION: &str = concat!("SSH-2.0-ssh_mcp_", env!("CARGO_PKG_VERSION"));

/// How much a server may send ahead on a channel, a bound and not memory set aside: 16 MiB on all but short ways, with
/// which russh, which grants half a window at a time, gets 145 MiB/s at a round trip of 50 ms (2 MiB give 20).
///
/// The server's first word comes a round trip after we began, or later. On a short way a large window is of no use and
/// costs: OpenSSH reads ahead what it may send, and copies it to and fro (`docs/adr/0019-window.md`).
fn window(greeted: Duration) -> u32 {
    let bytes = u128::from(MOST_AHEAD) * greeted.as_micros() / LONG_WAY.as_micros();
    u32::try_from(bytes).unwrap_or(u32::MAX).clamp(LEAST_AHEAD, MOST_AHEAD)
}

const LONG_WAY: Duration = Duration::from_millis(25);
/// As `ssh` grants.
const LEAST_AHEAD: u32 = 2 << 20;
const MOST_AHEAD: u32 = 16 << 20;
const SLOW_LINE: Duration = Duration::from_millis(10);
const FAREWELL: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4253, 4.2: neither a blank nor a minus sign behind the version of the protocol; 255 characters in all.
    #[test]
    fn a_client_begins_with_a_line_that_may_be_said() {
        let software = IDENTIFICATION.strip_prefix("SSH-2.0-").unwrap();
        assert!(software.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'-'), "{software}");
        assert!(IDENTIFICATION.len() <= 253);
    }

    #[test]
    fn the_longer_the_way_the_more_may_be_under_way() {
        let windows = [0, 1, 5, 10, 25, 10_000, u64::MAX].map(|ms| window(Duration::from_millis(ms)));
        assert_eq!(windows.map(|size| size >> 20), [2, 2, 3, 6, 16, 16, 16]);
    }

    #[test]
    fn zlib_is_for_slow_lines_unless_somebody_knows_better() {
        let fast = Duration::from_millis(9);
        assert_eq!(Zlib::decide(Compression::Auto, fast), Zlib::Off);
        assert_eq!(Zlib::decide(Compression::Auto, SLOW_LINE), Zlib::Offered);
        assert_eq!(Zlib::decide(Compression::On, fast), Zlib::Offered);
        assert_eq!(Zlib::decide(Compression::Off, Duration::from_secs(1)), Zlib::Off);
    }
}
