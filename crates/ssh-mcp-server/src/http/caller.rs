//! Whom a request comes from: which owner its work will belong to, or nobody.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use ssh_mcp_core::owner::Owner;

use super::authority::Authority;
use super::tokens::Tokens;

/// Who must show a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Everybody.
    All,
    /// Everybody but callers on this machine.
    Remote,
}

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stranger {
    /// It shows no token.
    NoToken,
    /// It shows one that nobody has.
    WrongToken,
}

impl Stranger {
    /// The reason for the log.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::NoToken => "no token",
            Self::WrongToken => "unknown token",
        }
    }
}

/// Finds the owner of a request.
///
/// A token counts wherever it is shown, so a wrong one is never passed over in favour of being local.
pub(super) fn owner_of(
    tokens: &Tokens,
    ask: Ask,
    peer: IpAddr,
    host: &Authority,
    headers: &HeaderMap,
) -> Result<Owner, Stranger> {
    let shown = bearer(headers);
    if let Some(owner) = shown.and_then(|token| tokens.owner(token)) {
        return Ok(owner.clone());
    }
    let wrong = shown.is_some() && !tokens.is_empty();
    match ask {
        Ask::Remote if is_local(peer, host, headers) && !wrong => Ok(Owner::local()),
        Ask::Remote | Ask::All if wrong => Err(Stranger::WrongToken),
        Ask::Remote | Ask::All => Err(Stranger::NoToken),
    }
}

/// Whether a request was sent on this machine, by somebody who means this machine, and was not passed on by a proxy.
fn is_local(peer: IpAddr, host: &Authority, headers: &HeaderMap) -> bool {
    let passed_on = |name: &str| {
        name == "forwarded" || name == "x-real-ip" || name == "via" || name.starts_with("x-forwarded-")
    };
    peer.to_canonical().is_loopback()
        && host.is_loopback()
        && !headers.keys().any(|name| passed_on(name.as_str()))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Remembers who was turned away, so that the log says it once a minute and address.
#[derive(Default)]
pub(super) struct Complaints {
    last: Mutex<HashMap<IpAddr, Instant>>,
}

impl Complaints {
    /// Whether it is time to name an address again.
    pub(super) fn is_due(&self, peer: IpAddr, now: Instant) -> bool {
        // Held for a look-up only.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, at| now.saturating_duration_since(*at) < MINUTE);
        // A flood from everywhere is not told address by address.
        let due = last.len() < MOST && !last.contains_key(&peer);
        if due {
            last.insert(peer, now);
        }
        due
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const MOST: usize = 256;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn ask(
        ask: Ask,
        tokens: &str,
        peer: &str,
        host: &str,
        headers: &[(&str, &str)],
    ) -> Result<String, Stranger> {
        let tokens = if tokens.is_empty() {
            Tokens::default()
        } else {
            Tokens::parse(tokens, Path::new("t")).unwrap()
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        owner_of(&tokens, ask, peer.parse().unwrap(), &Authority::parse(host).unwrap(), &map)
            .map(|owner| owner.to_string())
    }

    const TOKENS: &str = "a:first-first-first\nb:second-second-second";
    const BEARER: (&str, &str) = ("Authorization", "Bearer second-second-second");

    #[test]
    fn local_is_peer_and_host_and_no_proxy() {
        let local = |peer, host, headers: &[_]| ask(Ask::Remote, TOKENS, peer, host, headers);
        for (peer, host) in [
            ("127.0.0.1", "localhost:1"),
            ("::1", "[::1]"),
            ("::ffff:127.0.0.1", "127.0.0.1:8000"),
            ("127.0.0.9", "127.0.0.1"),
        ] {
            assert_eq!(local(peer, host, &[]), Ok("local".to_owned()), "{peer} {host}");
        }
        assert_eq!(local("192.0.2.1", "localhost", &[]), Err(Stranger::NoToken));
        assert_eq!(local("127.0.0.1", "192.0.2.1", &[]), Err(Stranger::NoToken));
        assert_eq!(local("127.0.0.1", "name.example", &[]), Err(Stranger::NoToken));
        for name in ["Forwarded", "X-Forwarded-For", "X-Forwarded-Anything", "X-Real-IP", "Via"] {
            assert_eq!(local("127.0.0.1", "localhost", &[(name, "x")]), Err(Stranger::NoToken), "{name}");
            assert_eq!(
                local("127.0.0.1", "localhost", &[(name, ""), BEARER]),
                Ok("token:b".to_owned()),
                "{name}"
            );
        }
    }

    #[test]
    fn a_token_counts_wherever_it_is_shown() {
        assert_eq!(ask(Ask::Remote, TOKENS, "192.0.2.1", "x", &[BEARER]), Ok("token:b".to_owned()));
        assert_eq!(ask(Ask::Remote, TOKENS, "127.0.0.1", "localhost", &[BEARER]), Ok("token:b".to_owned()));
        assert_eq!(
            ask(Ask::All, TOKENS, "127.0.0.1", "localhost", &[("authorization", "bearer first-first-first")]),
            Ok("token:a".to_owned())
        );
        assert_eq!(ask(Ask::All, TOKENS, "127.0.0.1", "localhost", &[]), Err(Stranger::NoToken));
        for value in ["Bearer first", "Bearer first-first-first2", "Bearer "] {
            for who in [Ask::All, Ask::Remote] {
                assert_eq!(
                    ask(who, TOKENS, "127.0.0.1", "localhost", &[("Authorization", value)]),
                    Err(Stranger::WrongToken),
                    "{value}"
                );
            }
        }
        assert_eq!(
            ask(Ask::Remote, TOKENS, "192.0.2.1", "x", &[("Authorization", "Basic first-first-first")]),
            Err(Stranger::NoToken)
        );
    }

    #[test]
    fn without_tokens_nobody_gets_in_from_elsewhere() {
        assert_eq!(ask(Ask::Remote, "", "192.0.2.1", "x", &[BEARER]), Err(Stranger::NoToken));
        assert_eq!(ask(Ask::Remote, "", "127.0.0.1", "localhost", &[BEARER]), Ok("local".to_owned()));
    }

    #[test]
    fn an_address_is_named_once_a_minute() {
        let complaints = Complaints::default();
        let (start, one, two) = (Instant::now(), "192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        assert!(complaints.is_due(one, start) && complaints.is_due(two, start));
        assert!(!complaints.is_due(one, start + MINUTE / 2));
        assert!(complaints.is_due(one, start + MINUTE));
        let flood = (0..2 * MOST as u32).map(|n| IpAddr::from(std::net::Ipv4Addr::from(n)));
        let named = flood.filter(|peer| complaints.is_due(*peer, start + MINUTE)).count();
        assert_eq!(named, MOST - 1);
    }
}
