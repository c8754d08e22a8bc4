//! Who a request says it is for (`Host`) and where a browser says it comes from (`Origin`).
//!
//! A page of somebody else's can make a browser send requests to any address, but only under its own name: a rebinding attack
//! always carries a foreign name, never an address. So addresses are accepted and names have to be known.

use std::fmt;
use std::net::IpAddr;

use http::header::HOST;
use http::{HeaderMap, Uri};

/// A host with the port behind it, as `Host` and `Origin` have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority {
    host: Host,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    /// Lower case, without the dot that may end it.
    Name(String),
}

impl Authority {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, behind) = rest.split_once(']')?;
                (host, if behind.is_empty() { None } else { Some(behind.strip_prefix(':')?) })
            }
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            None | Some("") => None,
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some(port.parse().ok()?),
            Some(_) => return None,
        };
        let host = match host.parse::<IpAddr>() {
            Ok(address) => Host::Address(address.to_canonical()),
            Err(_) if text.starts_with('[') => return None,
            Err(_) => Host::Name(parse_name(host)?),
        };
        Some(Self { host, port })
    }

    /// The authority a request is for; `None` if it names none, several, or one that makes no sense.
    pub(super) fn of(uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        let mut named = headers.get_all(HOST).iter();
        let host = Self::parse(named.next()?.to_str().ok()?)?;
        let sole = named.next().is_none();
        // An absolute target says it once more, and saying something else is a trick.
        let agreed =
            uri.authority().is_none_or(|authority| Self::parse(authority.as_str()).as_ref() == Some(&host));
        (sole && agreed).then_some(host)
    }

    /// Whether this machine alone can be meant.
    pub(super) fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Address(address) => address.is_loopback(),
            Host::Name(name) => name == "localhost" || name.ends_with(".localhost"),
        }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]")?,
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}")?,
            Host::Name(name) => f.write_str(name)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn parse_name(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let sound = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    sound.then(|| name.to_ascii_lowercase())
}

/// Which `Host` is accepted.
#[derive(Debug, Default)]
pub(super) struct HostRule {
    any: bool,
    listed: Vec<Authority>,
}

impl HostRule {
    /// Takes the operator's list and the machine's own name; the second part are entries that make no sense.
    pub(super) fn new(list: &[String], own_name: Option<&str>) -> (Self, Vec<String>) {
        let mut rule = Self { any: list.iter().any(|entry| entry == "*"), listed: Vec::new() };
        let mut bad = Vec::new();
        for entry in list.iter().filter(|entry| *entry != "*") {
            match Authority::parse(entry) {
                Some(authority) => rule.listed.push(authority),
                None => bad.push(entry.clone()),
            }
        }
        let short = own_name.and_then(|name| name.split('.').next());
        rule.listed.extend([own_name, short].into_iter().flatten().filter_map(Authority::parse));
        (rule, bad)
    }

    /// Loopback names, addresses, and what is listed; an entry without a port accepts every port.
    pub(super) fn accepts(&self, host: &Authority) -> bool {
        self.any
            || host.is_loopback()
            || matches!(host.host, Host::Address(_))
            || self
                .listed
                .iter()
                .any(|entry| entry.host == host.host && (entry.port.is_none() || entry.port == host.port))
    }
}

/// Which `Origin` is accepted.
#[derive(Debug, Default)]
pub(super) struct OriginRule {
    listed: Vec<Listed>,
}

#[derive(Debug)]
enum Listed {
    Null,
    Tuple { scheme: String, host: Host, port: AllowedPort },
}

#[derive(Debug)]
enum AllowedPort {
    Any,
    Exactly(u16),
}

impl OriginRule {
    /// Takes the operator's list; the second part are entries that make no sense.
    pub(super) fn new(list: &[String]) -> (Self, Vec<String>) {
        let mut rule = Self::default();
        let mut bad = Vec::new();
        for entry in list {
            match Listed::parse(entry) {
                Some(listed) => rule.listed.push(listed),
                None => bad.push(entry.clone()),
            }
        }
        (rule, bad)
    }

    /// Loopback origins, the server's own origin as the request names it, and what is listed.
    pub(super) fn accepts(&self, origin: &str, host: &Authority) -> bool {
        if origin == "null" {
            return self.listed.iter().any(|listed| matches!(listed, Listed::Null));
        }
        let Some((scheme, authority)) = parse_origin(origin) else { return false };
        let Some(port) = authority.port.or(default_port(&scheme)) else { return false };
        let own = authority.host == host.host && host.port.or(default_port(&scheme)) == Some(port);
        own || authority.is_loopback()
            || self.listed.iter().any(|listed| listed.covers(&scheme, &authority.host, port))
    }
}

impl Listed {
    fn parse(entry: &str) -> Option<Self> {
        if entry == "null" {
            return Some(Self::Null);
        }
        let (entry, any) = entry.strip_suffix(":*").map_or((entry, false), |entry| (entry, true));
        let (scheme, Authority { host, port }) = parse_origin(entry.trim_end_matches('/'))?;
        let port = match any {
            true => AllowedPort::Any,
            false => AllowedPort::Exactly(port.or(default_port(&scheme))?),
        };
        Some(Self::Tuple { scheme, host, port })
    }

    fn covers(&self, wanted_scheme: &str, wanted_host: &Host, wanted_port: u16) -> bool {
        match self {
            Self::Null => false,
            Self::Tuple { scheme, host, port } => {
                let port = match port {
                    AllowedPort::Any => true,
                    AllowedPort::Exactly(port) => *port == wanted_port,
                };
                scheme == wanted_scheme && host == wanted_host && port
            }
        }
    }
}

fn parse_origin(origin: &str) -> Option<(String, Authority)> {
    let (scheme, authority) = origin.split_once("://")?;
    Some((scheme.to_ascii_lowercase(), Authority::parse(authority)?))
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(text: &str) -> Authority {
        Authority::parse(text).unwrap()
    }

    #[test]
    fn authorities_are_read_and_written() {
        for text in
            ["example.org", "example.org:8000", "127.0.0.1:1", "[::1]:65535", "[2001:db8::1]", "a_b-c.d"]
        {
            assert_eq!(authority(text).to_string(), text);
        }
        assert_eq!(authority("Example.ORG.:80"), authority("example.org:80"));
        assert_eq!(authority("[::ffff:127.0.0.1]"), authority("127.0.0.1"));
        assert_eq!(authority("host:"), authority("host"));
        for text in [
            "",
            ":80",
            "a b",
            "user@host",
            "[::1",
            "[::1]80",
            "[host]",
            "host:x",
            "host:70000",
            "host:+1",
            "a/b",
            "::1",
        ] {
            assert_eq!(Authority::parse(text), None, "{text}");
        }
    }

    #[test]
    fn loopback_has_several_names() {
        for text in [
            "localhost",
            "LOCALHOST.:1",
            "a.localhost",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(authority(text).is_loopback(), "{text}");
        }
        for text in ["0.0.0.0", "192.0.2.1", "[::]", "localhost.example", "notlocalhost", "127.0.0.1.example"]
        {
            assert!(!authority(text).is_loopback(), "{text}");
        }
    }

    #[test]
    fn a_request_names_one_authority() {
        let of = |uri: &str, hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, host.parse().unwrap());
            }
            Authority::of(&uri.parse().unwrap(), &headers).map(|authority| authority.to_string())
        };
        assert_eq!(of("/", &["a:1"]).as_deref(), Some("a:1"));
        assert_eq!(of("http://a:1/", &["a:1"]).as_deref(), Some("a:1"));
        assert_eq!(of("http://b/", &["a:1"]), None);
        assert_eq!(of("/", &["a:1", "a:1"]), None);
        assert_eq!(of("/", &[]), None);
        assert_eq!(of("/", &["a b"]), None);
    }

    #[test]
    fn hosts_that_are_accepted() {
        let list = ["mcp.example.org", "other.example:8443", "b@d"].map(str::to_owned);
        let (rule, bad) = HostRule::new(&list, Some("Box.lan"));
        assert_eq!(bad, ["b@d"]);
        for text in [
            "localhost:1",
            "192.0.2.1:8000",
            "[2001:db8::1]",
            "mcp.example.org:1",
            "other.example:8443",
            "box.lan",
            "box:8000",
        ] {
            assert!(rule.accepts(&authority(text)), "{text}");
        }
        for text in ["evil.example", "other.example", "other.example:1", "lan", "mcp.example.org.evil"] {
            assert!(!rule.accepts(&authority(text)), "{text}");
        }
        let (rule, _) = HostRule::new(&["*".to_owned()], None);
        assert!(rule.accepts(&authority("evil.example")));
    }

    #[test]
    fn origins_that_are_accepted() {
        let list =
            ["https://app.example", "http://dev.example:*", "http://c.example:81/", "null", "nonsense"]
                .map(str::to_owned);
        let (rule, bad) = OriginRule::new(&list);
        assert_eq!(bad, ["nonsense"]);
        let accepts = |origin: &str, host: &str| rule.accepts(origin, &authority(host));
        for origin in [
            "https://app.example",
            "https://APP.example:443",
            "http://dev.example:9",
            "http://c.example:81",
            "null",
        ] {
            assert!(accepts(origin, "x.example"), "{origin}");
        }
        for origin in ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:1", "http://a.localhost"] {
            assert!(accepts(origin, "x.example"), "{origin}");
        }
        assert!(
            accepts("http://x.example:8000", "x.example:8000") && accepts("https://x.example", "x.example")
        );
        for origin in [
            "http://app.example",
            "https://app.example:444",
            "http://x.example:8001",
            "http://evil",
            "",
            "app.example",
            "ftp://x.example",
        ] {
            assert!(!accepts(origin, "x.example:8000"), "{origin}");
        }
        let (rule, _) = OriginRule::new(&[]);
        assert!(!rule.accepts("null", &authority("localhost")));
    }
}
