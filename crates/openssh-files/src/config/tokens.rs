//! What `%h`, `${NAME}` and `~` stand for (ssh_config(5), TOKENS and ENVIRONMENT VARIABLES).
//!
//! The order is OpenSSH's: the `~` at the beginning, then tokens and variables in one go. What they expand to is never
//! expanded once more.

use sha1::{Digest as _, Sha1};

use super::Local;

/// Why a value could not be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// A `%` at the end, or before a letter that stands for nothing here.
    #[error("unknown token in {0:?}")]
    Token(String),
    /// `${` without its brace or its name.
    #[error("unfinished variable in {0:?}")]
    Unfinished(String),
    /// The variable is not set.
    #[error("variable {0} is not set")]
    Variable(String),
    /// `~name` of somebody who has no home here.
    #[error("no home directory of {0:?}")]
    Home(String),
}

/// The tokens each kind of value knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// `HostName`.
    HostName,
    /// `ProxyCommand` and `ProxyJump`.
    Proxy,
    /// Files, agents and `Match exec`.
    All,
}

impl Known {
    const fn letters(self) -> &'static str {
        match self {
            Known::HostName => "h",
            Known::Proxy => "hknpr",
            Known::All => "CdhikLlnpru",
        }
    }
}

/// What the tokens stand for.
pub(super) struct Tokens<'a> {
    pub(super) local: &'a Local<'a>,
    /// The host to connect to.
    pub(super) host: &'a str,
    /// The host as it was asked for.
    pub(super) original: &'a str,
    pub(super) port: u16,
    pub(super) user: &'a str,
    pub(super) key_alias: Option<&'a str>,
}

impl Tokens<'_> {
    /// A file or socket: `~`, tokens, variables.
    pub(super) fn file(&self, text: &str) -> Result<String, ExpandError> {
        self.percent(&tilde(text, self.local)?, Known::All, Variables::Expanded)
    }

    /// Tokens alone.
    pub(super) fn text(&self, text: &str, known: Known) -> Result<String, ExpandError> {
        self.percent(text, known, Variables::Kept)
    }

    fn percent(&self, text: &str, known: Known, variables: Variables) -> Result<String, ExpandError> {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(['%', '$']) {
            let (before, behind) = rest.split_at_checked(at).unwrap_or((rest, ""));
            expanded.push_str(before);
            if let Some(name) = behind.strip_prefix("${").filter(|_| variables == Variables::Expanded) {
                let unfinished = || ExpandError::Unfinished(text.to_owned());
                let (name, behind) = name.split_once('}').ok_or_else(unfinished)?;
                if name.is_empty() {
                    return Err(unfinished());
                }
                let value = (self.local.environment)(name);
                expanded.push_str(&value.ok_or_else(|| ExpandError::Variable(name.to_owned()))?);
                rest = behind;
            } else if let Some(token) = behind.strip_prefix('%') {
                let mut characters = token.chars();
                match characters.next() {
                    Some('%') => expanded.push('%'),
                    Some(letter) if known.letters().contains(letter) => self.push(letter, &mut expanded),
                    Some(_) | None => return Err(ExpandError::Token(text.to_owned())),
                }
                rest = characters.as_str();
            } else {
                expanded.push('$');
                rest = behind.get(1..).unwrap_or_default();
            }
        }
        expanded.push_str(rest);
        Ok(expanded)
    }

    fn push(&self, letter: char, expanded: &mut String) {
        let Local { home, user, uid, host_name, .. } = *self.local;
        match letter {
            'C' => expanded.push_str(&self.hash()),
            'd' => expanded.push_str(home),
            'h' => expanded.push_str(self.host),
            'i' => expanded.push_str(&uid.to_string()),
            'k' => expanded.push_str(self.key_alias.unwrap_or(self.original)),
            'L' => expanded.push_str(host_name.split('.').next().unwrap_or_default()),
            'l' => expanded.push_str(host_name),
            'n' => expanded.push_str(self.original),
            'p' => expanded.push_str(&self.port.to_string()),
            'r' => expanded.push_str(self.user),
            'u' => expanded.push_str(user),
            // `Known` lists no other letter.
            _ => {}
        }
    }

    /// `%C`: one word for where a connection goes from and to.
    fn hash(&self) -> String {
        let port = self.port.to_string();
        let parts = [self.local.host_name, self.host, &port, self.user];
        let digest = parts.iter().fold(Sha1::new(), |hash, part| hash.chain_update(part)).finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Whether `${NAME}` means anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variables {
    Expanded,
    Kept,
}

/// `text` with the home directory in place of a leading `~` or `~name`.
fn tilde(text: &str, local: &Local<'_>) -> Result<String, ExpandError> {
    let Some(behind) = text.strip_prefix('~') else { return Ok(text.to_owned()) };
    let (name, path) = behind.split_once('/').unwrap_or((behind, ""));
    let home = match name {
        "" => local.home.to_owned(),
        name => (local.home_of)(name).ok_or_else(|| ExpandError::Home(name.to_owned()))?,
    };
    Ok(format!("{}/{path}", home.trim_end_matches('/')))
}

/// Looks for tokens that mean nothing, where only the text is known yet.
pub(super) fn check(text: &str, known: Known) -> Result<(), ExpandError> {
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '%'
            && !characters.next().is_some_and(|next| next == '%' || known.letters().contains(next))
        {
            return Err(ExpandError::Token(text.to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{ExpandError, Known, Tokens};
    use crate::config::Local;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, ExpandError>) {
        let environment = |name: &str| match name {
            "TILDE" => Some("~".to_owned()),
            "TOKEN" => Some("%h".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let local = Local {
            home: "/home/me",
            user: "me",
            uid: 1000,
            host_name: "box.example",
            environment: &environment,
            home_of: &|name| (name == "you").then(|| "/home/you".to_owned()),
            exec: &|_| Ok(false),
        };
        let tokens = Tokens {
            local: &local,
            host: "db.example",
            original: "DB",
            port: 2222,
            user: "root",
            key_alias: Some("alias"),
        };
        assert_eq!(tokens.file(text), expected.map(str::to_owned), "{text:?}");
    }

    #[test]
    fn everything_expands_once_and_from_the_left() {
        check("~/%h/%n", Ok("/home/me/db.example/DB"));
        check("~", Ok("/home/me/"));
        check("~you/x", Ok("/home/you/x"));
        check("a/~", Ok("a/~"));
        check("%d %i %k %L %l %p %r %u %%h", Ok("/home/me 1000 alias box box.example 2222 root me %h"));
        check("${TILDE}/${TOKEN}${EMPTY}", Ok("~/%h"));
        check("$TILDE a$", Ok("$TILDE a$"));
        // Of "box.exampledb.example2222root".
        check("%C", Ok("5a98786869b6e57a904b63b7f162c88720a53a57"));
    }

    #[test]
    fn what_stands_for_nothing_is_an_error() {
        check("%z", Err(ExpandError::Token("%z".to_owned())));
        check("a%", Err(ExpandError::Token("a%".to_owned())));
        check("${NOPE}", Err(ExpandError::Variable("NOPE".to_owned())));
        check("${}", Err(ExpandError::Unfinished("${}".to_owned())));
        check("${A", Err(ExpandError::Unfinished("${A".to_owned())));
        check("~nobody/x", Err(ExpandError::Home("nobody".to_owned())));
        check("~%u/x", Err(ExpandError::Home("%u".to_owned())));
    }

    #[test]
    fn a_check_without_values_finds_the_same_tokens() {
        assert!(super::check("%h %n %%", Known::All).is_ok());
        assert!(super::check("%j", Known::All).is_err());
        assert!(super::check("%n", Known::HostName).is_err());
        assert!(super::check("%", Known::Proxy).is_err());
    }
}
