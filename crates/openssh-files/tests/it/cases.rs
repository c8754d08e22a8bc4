//! One table of files and verdicts, for our reader and for OpenSSH itself.
//!
//! The server always shows the key `{E}`. In the texts `{E}`, `{F}`, `{R}`, `{C}` are type and base64 of that Ed25519 key,
//! another Ed25519 key, an RSA and an ECDSA key; `{e}`, `{r}`, `{c}` are base64 alone; `{H}` and `{P}` are the hashed names
//! of `host.example` and `[host.example]:2222`.

use openssh_files::known_hosts::HostKey;

use crate::keys;

/// The client is asked for this host unless a case says otherwise.
pub(crate) const HOST: &str = "host.example";

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Content of the user's file.
    pub(crate) user: &'static str,
    /// Content of the global file.
    pub(crate) global: &'static str,
    pub(crate) query: Query,
    pub(crate) expected: Expected,
    /// Where we differ from OpenSSH on purpose: what it says.
    pub(crate) openssh: Option<Expected>,
}

pub(crate) enum Query {
    Port(u16),
    Host(&'static str),
    Alias(&'static str),
}

/// The number is the line, counted through the user's file and on into the global one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Match(usize),
    Unknown,
    Changed(usize),
    OtherTypes(usize),
    Revoked(usize),
}

/// The keys that stand for the letters of the templates.
pub(crate) struct Keys {
    pub(crate) shown: HostKey,
    pub(crate) other: HostKey,
    pub(crate) rsa: HostKey,
    pub(crate) ecdsa: HostKey,
}

impl Keys {
    pub(crate) fn fill(&self, template: &str) -> String {
        let Keys { shown, other, rsa, ecdsa } = self;
        template
            .replace("{E}", &keys::fields(shown))
            .replace("{F}", &keys::fields(other))
            .replace("{R}", &keys::fields(rsa))
            .replace("{C}", &keys::fields(ecdsa))
            .replace("{e}", &keys::base64(shown))
            .replace("{r}", &keys::base64(rsa))
            .replace("{c}", &keys::base64(ecdsa))
            .replace("{H}", "|1|UW3fXuloaffYSBKnotr4kZm1fEQ=|iE5SUxf7TeQtuLyTvnL+PJFptHM=")
            .replace("{P}", "|1|j1k/lyip7GN5pU5glwRaGR8scFw=|OXWkAiYFN0ql5YgWrr0Pw6KSNNU=")
    }
}

use Expected::{Changed, Match, OtherTypes, Revoked, Unknown};
use Query::{Alias, Host, Port};

const fn case(name: &'static str, query: Query, user: &'static str, expected: Expected) -> Case {
    Case { name, user, global: "", query, expected, openssh: None }
}

const fn two_files(name: &'static str, user: &'static str, global: &'static str, expected: Expected) -> Case {
    Case { name, user, global, query: Port(22), expected, openssh: None }
}

pub(crate) const CASES: &[Case] = &[
    // Names.
    case("plain", Port(22), "host.example {E}\n", Match(1)),
    case("another host", Port(22), "other.example {E}\n", Unknown),
    case("empty file", Port(22), "", Unknown),
    case("list", Port(22), "other,host.example,192.0.2.1 {E}\n", Match(1)),
    case("list with an empty item", Port(22), "other,,host.example {E}\n", Match(1)),
    case("list broken by a space", Port(22), "other, host.example {E}\n", Unknown),
    case("upper case in the file", Port(22), "HOST.Example {E}\n", Match(1)),
    case("upper case in the query", Host("HOST.example"), "host.example {E}\n", Match(1)),
    case("alias", Alias("cluster"), "cluster {E}\n", Match(1)),
    case("alias in upper case", Alias("CLUSTER"), "Cluster {E}\n", Match(1)),
    case("alias hides the host", Alias("cluster"), "host.example {E}\n", Unknown),
    case("alias takes no port", Alias("cluster"), "[cluster]:2222 {E}\n", Unknown),
    // Patterns.
    case("star", Port(22), "*.example {E}\n", Match(1)),
    case("star alone", Port(22), "* {E}\n", Match(1)),
    case("star needs the rest", Port(22), "*.test {E}\n", Unknown),
    case("question mark", Port(22), "h?st.ex* {E}\n", Match(1)),
    case("question mark takes one", Port(22), "?host.example {E}\n", Unknown),
    case("negation last", Port(22), "*,!host.example {E}\n", Unknown),
    case("negation first", Port(22), "!host.example,* {E}\n", Unknown),
    case("negation of another", Port(22), "!other.example,* {E}\n", Match(1)),
    case("negated pattern", Port(22), "!host.*,* {E}\n", Unknown),
    case("negation alone matches nobody", Port(22), "!other {E}\n", Unknown),
    case("negation holds for its line only", Port(22), "!host.example,* {F}\n*.example {E}\n", Match(2)),
    case("no escapes", Port(22), "h\\ost.example {E}\n", Unknown),
    case("pattern with another key", Port(22), "*.example {F}\n", Changed(1)),
    // Ports.
    case("port", Port(2222), "[host.example]:2222 {E}\n", Match(1)),
    case("port of another", Port(2222), "[host.example]:2200 {E}\n", Unknown),
    case("port form is not for port 22", Port(22), "[host.example]:2222 {E}\n", Unknown),
    case("port 22 written out", Port(22), "[host.example]:22 {E}\n", Unknown),
    case("bare name serves every port", Port(2222), "host.example {E}\n", Match(1)),
    case("bare name with another key says nothing", Port(2222), "host.example {F}\n", Unknown),
    case("bare name revokes for every port", Port(2222), "@revoked host.example {E}\n", Revoked(1)),
    case("port form comes first", Port(2222), "[host.example]:2222 {F}\nhost.example {E}\n", Changed(1)),
    case("star in brackets", Port(2222), "[*]:2222 {E}\n", Match(1)),
    case("star with port", Port(2222), "*:2222 {E}\n", Match(1)),
    // Hashed names.
    case("hashed", Port(22), "{H} {E}\n", Match(1)),
    case("hashed, upper case in the query", Host("HOST.example"), "{H} {E}\n", Match(1)),
    case("hashed with port", Port(2222), "{P} {E}\n", Match(1)),
    case("hashed bare name serves every port", Port(2222), "{H} {E}\n", Match(1)),
    case("hashed with another key", Port(22), "{H} {F}\n", Changed(1)),
    case("hashed and revoked", Port(22), "@revoked {H} {E}\n", Revoked(1)),
    case("hash in a list", Port(22), "{H},other {E}\n", Unknown),
    case("hash behind a name", Port(22), "other,{H} {E}\n", Unknown),
    case("negated hash", Port(22), "!{H} {E}\n", Unknown),
    case("broken hash", Port(22), "|1|abc|def {E}\nhost.example {E}\n", Match(2)),
    case("unknown hash", Port(22), "|2|abc|def {E}\n", Unknown),
    // Blanks, ends of lines, comments.
    case("leading blanks and tabs", Port(22), "\t  host.example\t\t{E}\n", Match(1)),
    case("carriage returns", Port(22), "\r\nhost.example {E}\r\n", Match(2)),
    case("no final newline", Port(22), "host.example {E}", Match(1)),
    case("comment behind the key", Port(22), "host.example {E} root@host # since May\n", Match(1)),
    case("comment behind a tab", Port(22), "host.example {E}\troot@host\n", Match(1)),
    case("comments and blank lines count", Port(22), "# one\n\n   # three\nhost.example {E}\n", Match(4)),
    case("commented out", Port(22), "#host.example {E}\n", Unknown),
    case("commented out behind blanks", Port(22), "  # host.example {E}\n", Unknown),
    // Several keys.
    case("old and current key", Port(22), "host.example {F}\nhost.example {E}\n", Match(2)),
    case("current and old key", Port(22), "host.example {E}\nhost.example {F}\n", Match(1)),
    case("other type first", Port(22), "host.example {C}\nhost.example {E}\n", Match(2)),
    case("another key", Port(22), "host.example {F}\n", Changed(1)),
    case("another key and another type", Port(22), "host.example {R}\nhost.example {F}\n", Changed(2)),
    case("another type only", Port(22), "host.example {R}\n", OtherTypes(1)),
    case("two other types", Port(22), "\nhost.example {C}\nhost.example {R}\n", OtherTypes(2)),
    // Lines that cannot be read hide nothing.
    case("unknown type", Port(22), "host.example ssh-nope AAAA\nhost.example {E}\n", Match(2)),
    case("unknown type alone", Port(22), "host.example ssh-nope AAAAC3NzaC1ub3Bl\n", Unknown),
    case("broken base64", Port(22), "host.example ssh-ed25519 !!!!\nhost.example {E}\n", Match(2)),
    case("too much padding", Port(22), "host.example {E}=\n", Unknown),
    case("key with a tail", Port(22), "host.example ssh-ed25519 {e}AAAA\n", Unknown),
    case("truncated key", Port(22), "host.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAA\n", Unknown),
    case("type and key at odds", Port(22), "host.example ssh-rsa {e}\n", Unknown),
    case("type in upper case", Port(22), "host.example SSH-ED25519 {e}\n", Unknown),
    case("short type", Port(22), "host.example ED25519 {e}\n", Unknown),
    case("name of a signature scheme", Port(22), "host.example rsa-sha2-512 {r}\n", OtherTypes(1)),
    case("names alone", Port(22), "host.example\nhost.example {E}\n", Match(2)),
    case("protocol 1", Port(22), "host.example 1024 35 1234567890123456789\n", Unknown),
    case("comment instead of a key", Port(22), "host.example # {E}\n", Unknown),
    // Markers.
    case("revoked", Port(22), "@revoked host.example {E}\n", Revoked(1)),
    case("revoked, then listed", Port(22), "@revoked * {E}\nhost.example {E}\n", Revoked(1)),
    case("listed, then revoked", Port(22), "host.example {E}\n@revoked host.example {E}\n", Revoked(2)),
    case("revoked for another host", Port(22), "@revoked other {E}\nhost.example {E}\n", Match(2)),
    case("another key revoked", Port(22), "@revoked * {F}\nhost.example {E}\n", Match(2)),
    case("another key revoked, none listed", Port(22), "@revoked * {F}\n", Unknown),
    case("revoked behind blanks", Port(22), "  @revoked   * {E}\nhost.example {E}\n", Revoked(1)),
    Case {
        name: "revoked behind a tab",
        user: "@revoked\t*\t{E}\nhost.example {E}\n",
        global: "",
        query: Port(22),
        expected: Revoked(1),
        // It drops the line; we rather keep a revocation that somebody meant.
        openssh: Some(Match(2)),
    },
    case("marker in another case", Port(22), "@REVOKED * {E}\nhost.example {E}\n", Match(2)),
    case("two markers", Port(22), "@revoked @cert-authority * {E}\nhost.example {E}\n", Match(2)),
    case("unknown marker", Port(22), "@trusted host.example {E}\n", Unknown),
    case("authority is no host key", Port(22), "@cert-authority * {E}\n", Unknown),
    case("authority does not pin", Port(22), "@cert-authority * {F}\n", Unknown),
    case("authority beside the key", Port(22), "@cert-authority * {F}\nhost.example {E}\n", Match(2)),
    // Two files.
    two_files("known globally", "", "host.example {E}\n", Match(2)),
    two_files("known globally, another key here", "host.example {F}\n", "host.example {E}\n", Match(3)),
    two_files("known here, another key globally", "host.example {E}\n", "host.example {F}\n", Match(1)),
    two_files("revoked globally", "host.example {E}\n", "@revoked * {E}\n", Revoked(3)),
    two_files("revoked here", "@revoked * {E}\n", "host.example {E}\n", Revoked(1)),
    two_files("another key globally", "", "host.example {F}\n", Changed(2)),
];
