//! The forms a value can have, apart from numbers: words, texts, lists, paths, secrets, addresses.

use std::path::{Path, PathBuf};

use super::quantity::Bounds;
use super::words::Words;
use crate::target::Secret;

/// How the text of a setting is read, bounded and shown.
pub trait Form {
    /// What it becomes.
    type Value: Clone;

    /// Reads a text that is not empty and has no white space around it.
    fn read(&self, text: &str, context: &Context<'_>) -> Result<Read<Self::Value>, Reject>;
    /// The built-in default.
    fn default_value(&self, context: &Context<'_>) -> Self::Value;
    /// Writes a value for people, secrets masked.
    fn show(&self, value: &Self::Value) -> String;
    /// The kind of value, in a word.
    fn kind(&self) -> &'static str;
    /// The built-in default as documentation shows it.
    fn default_text(&self) -> String;
    /// What is accepted, as documentation shows it.
    fn range(&self) -> String;
    /// The numbers behind [`Form::range`].
    fn bounds(&self) -> Option<Bounds> {
        None
    }
    /// The value as a number, if it is one.
    fn number(&self, _value: &Self::Value) -> Option<u64> {
        None
    }
    /// Whether texts of this form may be repeated in logs and reports.
    fn is_secret(&self) -> bool {
        false
    }
}

/// A value that was read.
pub enum Read<V> {
    /// As written.
    Exact(V),
    /// The nearest bound, because what was written lies beyond it.
    Clamped(V),
}

/// Why a text cannot be a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reject {
    /// It makes no sense; the next place of the chain is asked.
    Unreadable(&'static str),
    /// It makes sense and is never allowed; the start is refused.
    Forbidden(&'static str),
}

/// What reading one setting may depend on.
pub struct Context<'a> {
    pub(super) home: Option<&'a Path>,
    pub(super) numbers: &'a [(&'static str, u64)],
}

impl Context<'_> {
    /// The value of a numeric setting that was read before.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.numbers.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
    }

    fn expand(&self, text: &str) -> Option<PathBuf> {
        match text.strip_prefix('~') {
            Some("") => self.home.map(Path::to_path_buf),
            Some(rest) if rest.starts_with('/') => {
                self.home.map(|home| home.join(rest.trim_start_matches('/')))
            }
            Some(_) | None => Some(PathBuf::from(text)),
        }
    }
}

/// One of a few words; a switch is the words of `bool`.
pub(super) struct Choice<W>(W);

pub(super) const fn choice<W: Words>(default: W) -> Choice<W> {
    Choice(default)
}

pub(super) const fn switch(default: bool) -> Choice<bool> {
    Choice(default)
}

impl<W: Words> Form for Choice<W> {
    type Value = W;

    fn read(&self, text: &str, _: &Context<'_>) -> Result<Read<W>, Reject> {
        W::from_word(text).map(Read::Exact).ok_or(Reject::Unreadable("not one of the words"))
    }
    fn default_value(&self, _: &Context<'_>) -> W {
        self.0
    }
    fn show(&self, value: &W) -> String {
        value.word().to_owned()
    }
    fn kind(&self) -> &'static str {
        if W::WORDS.first().is_some_and(|(word, _)| *word == "true") { "switch" } else { "word" }
    }
    fn default_text(&self) -> String {
        self.0.word().to_owned()
    }
    fn range(&self) -> String {
        W::WORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")
    }
}

/// Free text, with a rule where one is given.
pub(super) struct Text {
    default: &'static str,
    kind: &'static str,
    range: &'static str,
    rule: fn(&str) -> Result<String, Reject>,
}

pub(super) const fn text(default: &'static str) -> Text {
    Text { default, kind: "text", range: "any", rule: |text| Ok(text.to_owned()) }
}

pub(super) const fn address(default: &'static str) -> Text {
    Text {
        default,
        kind: "address",
        range: "address or name",
        rule: |text| Ok(without_brackets(text).to_owned()),
    }
}

pub(super) const fn url_path(default: &'static str) -> Text {
    Text { default, kind: "path", range: "begins with `/`", rule: parse_url_path }
}

impl Form for Text {
    type Value = String;

    fn read(&self, text: &str, _: &Context<'_>) -> Result<Read<String>, Reject> {
        (self.rule)(text).map(Read::Exact)
    }
    fn default_value(&self, _: &Context<'_>) -> String {
        self.default.to_owned()
    }
    fn show(&self, value: &String) -> String {
        value.clone()
    }
    fn kind(&self) -> &'static str {
        self.kind
    }
    fn default_text(&self) -> String {
        self.default.to_owned()
    }
    fn range(&self) -> String {
        self.range.to_owned()
    }
}

/// Names separated by commas.
pub(super) struct List {
    default: &'static str,
}

pub(super) const fn list(default: &'static str) -> List {
    List { default }
}

impl Form for List {
    type Value = Vec<String>;

    fn read(&self, text: &str, _: &Context<'_>) -> Result<Read<Vec<String>>, Reject> {
        Ok(Read::Exact(items(text).map(str::to_owned).collect()))
    }
    fn default_value(&self, _: &Context<'_>) -> Vec<String> {
        items(self.default).map(str::to_owned).collect()
    }
    fn show(&self, value: &Vec<String>) -> String {
        value.join(",")
    }
    fn kind(&self) -> &'static str {
        "list"
    }
    fn default_text(&self) -> String {
        self.default.to_owned()
    }
    fn range(&self) -> String {
        "separated by commas".to_owned()
    }
}

/// A path; `~` and `~/` at its start are the home directory. `None` where the home directory is needed and not known.
pub(super) struct OnePath {
    default: Option<&'static str>,
}

pub(super) const fn path(default: Option<&'static str>) -> OnePath {
    OnePath { default }
}

impl Form for OnePath {
    type Value = Option<PathBuf>;

    fn read(&self, text: &str, context: &Context<'_>) -> Result<Read<Option<PathBuf>>, Reject> {
        let path = context.expand(text).ok_or(Reject::Unreadable("the home directory is not known"))?;
        Ok(Read::Exact(Some(path)))
    }
    fn default_value(&self, context: &Context<'_>) -> Option<PathBuf> {
        self.default.and_then(|default| context.expand(default))
    }
    fn show(&self, value: &Option<PathBuf>) -> String {
        value.as_ref().map_or_else(String::new, |path| path.display().to_string())
    }
    fn kind(&self) -> &'static str {
        "path"
    }
    fn default_text(&self) -> String {
        self.default.unwrap_or_default().to_owned()
    }
    fn range(&self) -> String {
        "a path".to_owned()
    }
}

/// The home directory itself, for which `~` has no meaning.
pub(super) struct Home;

pub(super) const fn home() -> Home {
    Home
}

impl Form for Home {
    type Value = Option<PathBuf>;

    fn read(&self, text: &str, _: &Context<'_>) -> Result<Read<Option<PathBuf>>, Reject> {
        Ok(Read::Exact(Some(PathBuf::from(text))))
    }
    fn default_value(&self, context: &Context<'_>) -> Option<PathBuf> {
        context.home.map(Path::to_path_buf)
    }
    fn show(&self, value: &Option<PathBuf>) -> String {
        path(None).show(value)
    }
    fn kind(&self) -> &'static str {
        "path"
    }
    fn default_text(&self) -> String {
        "that of the user database".to_owned()
    }
    fn range(&self) -> String {
        "a path".to_owned()
    }
}

/// Paths separated by commas.
pub(super) struct Paths;

pub(super) const fn paths() -> Paths {
    Paths
}

impl Form for Paths {
    type Value = Vec<PathBuf>;

    fn read(&self, text: &str, context: &Context<'_>) -> Result<Read<Vec<PathBuf>>, Reject> {
        let paths = items(text).map(|item| context.expand(item)).collect::<Option<Vec<_>>>();
        paths.map(Read::Exact).ok_or(Reject::Forbidden("the home directory is not known"))
    }
    fn default_value(&self, _: &Context<'_>) -> Vec<PathBuf> {
        Vec::new()
    }
    fn show(&self, value: &Vec<PathBuf>) -> String {
        value.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(",")
    }
    fn kind(&self) -> &'static str {
        "list of paths"
    }
    fn default_text(&self) -> String {
        String::new()
    }
    fn range(&self) -> String {
        "separated by commas".to_owned()
    }
}

/// What HTTP callers show to be let in: a secret that is long enough.
#[derive(Clone)]
pub struct Token(Secret);

impl Token {
    /// Fewest characters of a token.
    pub const MIN_CHARS: usize = 16;

    /// Takes a token; `None` if it is too short to be safe or has white space or control characters in it.
    pub fn parse(text: &str) -> Option<Self> {
        let sound = text.chars().count() >= Self::MIN_CHARS
            && !text.chars().any(|c| c.is_whitespace() || c.is_control());
        sound.then(|| Self(Secret::new(text.to_owned())))
    }

    /// The secret itself, for comparing.
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }
}

/// A token; never shown.
pub(super) struct Masked;

pub(super) const fn secret() -> Masked {
    Masked
}

impl Form for Masked {
    type Value = Option<Token>;

    fn read(&self, text: &str, _: &Context<'_>) -> Result<Read<Option<Token>>, Reject> {
        let token = Token::parse(text)
            .ok_or(Reject::Unreadable("shorter than 16 characters, or with white space in it"))?;
        Ok(Read::Exact(Some(token)))
    }
    fn default_value(&self, _: &Context<'_>) -> Option<Token> {
        None
    }
    fn show(&self, value: &Option<Token>) -> String {
        if value.is_some() { MASK.to_owned() } else { String::new() }
    }
    fn kind(&self) -> &'static str {
        "secret"
    }
    fn default_text(&self) -> String {
        "made at first start where one is needed".to_owned()
    }
    fn range(&self) -> String {
        format!("≥ {} characters", Token::MIN_CHARS)
    }
    fn is_secret(&self) -> bool {
        true
    }
}

/// One place to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Address or name, an IPv6 address without brackets.
    pub host: String,
    /// Port; 0 takes any free one.
    pub port: u16,
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Listen addresses separated by commas: `HOST:PORT`, `:PORT`, `HOST`, IPv6 in brackets where a port follows.
pub struct Bind {
    host: &'static str,
    port: u16,
}

pub(super) const fn bind(host: &'static str, port: u16) -> Bind {
    Bind { host, port }
}

impl Bind {
    fn parse(&self, text: &str) -> Option<Listen> {
        let is_bare_ipv6 = text.parse::<std::net::Ipv6Addr>().is_ok();
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !is_bare_ipv6 && !port.ends_with(']') => (host, port.parse().ok()?),
            Some(_) | None => (text, self.port),
        };
        let bracketed = host.starts_with('[');
        let host = without_brackets(host);
        let sound = if bracketed || host.contains(':') {
            host.parse::<std::net::Ipv6Addr>().is_ok()
        } else {
            !host.contains(|c: char| c.is_whitespace() || "/[]@".contains(c))
        };
        let host = if host.is_empty() && !bracketed { self.host } else { host };
        sound.then(|| Listen { host: host.to_owned(), port })
    }
}

impl Form for Bind {
    type Value = Vec<Listen>;

    fn read(&self, text: &str, _: &Context<'_>) -> Result<Read<Vec<Listen>>, Reject> {
        let all = items(text).map(|item| self.parse(item)).collect::<Option<Vec<_>>>();
        all.map(Read::Exact).ok_or(Reject::Unreadable("not HOST:PORT, :PORT or HOST"))
    }
    fn default_value(&self, _: &Context<'_>) -> Vec<Listen> {
        Vec::new()
    }
    fn show(&self, value: &Vec<Listen>) -> String {
        value.iter().map(Listen::to_string).collect::<Vec<_>>().join(",")
    }
    fn kind(&self) -> &'static str {
        "list of addresses"
    }
    fn default_text(&self) -> String {
        String::new()
    }
    fn range(&self) -> String {
        "`HOST:PORT`, `:PORT`, `HOST`, `[ADDRESS]:PORT`".to_owned()
    }
}

/// What stands in place of a secret.
pub(super) const MASK: &str = "********";

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Normalises the path at which MCP is served: a trailing slash makes no difference.
fn parse_url_path(text: &str) -> Result<String, Reject> {
    let path = text.trim_end_matches('/');
    if !text.starts_with('/')
        || text.contains(|c: char| c.is_whitespace() || c.is_control() || "?#{}*".contains(c))
    {
        return Err(Reject::Unreadable("not a path that begins with / and has no query"));
    }
    match path {
        "/healthz" | "/readyz" | "/metrics" => {
            Err(Reject::Forbidden("this path belongs to health and metrics"))
        }
        "" => Ok("/".to_owned()),
        path => Ok(path.to_owned()),
    }
}
