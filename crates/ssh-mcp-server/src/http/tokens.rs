//! The tokens that let callers in: read from the operator's file or variable, or made at first start.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ssh_mcp_core::owner::Owner;
use ssh_mcp_core::settings::{Settings, Token};
use subtle::{Choice, ConstantTimeEq};

/// Every token with the owner it stands for. Empty where nobody needs one.
#[derive(Default)]
pub(super) struct Tokens {
    all: Vec<(Owner, Token)>,
}

/// Where the tokens came from, for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TokenSource {
    /// None are needed and none were given.
    Nowhere,
    /// `MCP_AUTH_TOKEN`.
    Variable,
    /// A file of the operator's.
    File(PathBuf),
    /// A file that this or an earlier start has made.
    Made(PathBuf),
}

/// Whether anybody may have to show a token although the operator gave none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Only local callers can reach the server, and they need none.
    None,
    /// It listens beyond loopback, or asks everybody.
    Token,
}

/// Why there are no tokens to go by. No variant carries one.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read token file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Others could read or replace the tokens.
    #[error("token file {} has mode {mode:04o}: others must not read or write it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A line holds no token.
    #[error("token file {}, line {line}: {problem}", path.display())]
    BadLine {
        /// The file.
        path: PathBuf,
        /// The line, from one.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The file holds no token at all.
    #[error("token file {} is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A token has to be made, and there is no place for it.
    #[error(
        "cannot keep a new token: {reason}; set MCP_AUTH_TOKEN_FILE, or SSH_MCP_STATE_DIR to a directory that can be written"
    )]
    NoPlace {
        /// What went wrong, with the path.
        reason: String,
    },
}

impl Tokens {
    /// Reads the tokens of `settings`; makes one if `need` says so and there is none.
    pub(super) fn load(settings: &Settings, need: Need) -> Result<(Self, TokenSource), TokenError> {
        if let Some(path) = &settings.auth_token_file {
            return Ok((Self::read(path)?, TokenSource::File(path.clone())));
        }
        if let Some(token) = &settings.auth_token {
            return Ok((Self { all: vec![(unnamed(), token.clone())] }, TokenSource::Variable));
        }
        match need {
            Need::None => Ok((Self::default(), TokenSource::Nowhere)),
            Need::Token => {
                let path = kept_at(settings)?;
                make(&path)?;
                Ok((Self::read(&path)?, TokenSource::Made(path)))
            }
        }
    }

    /// Whether nobody can be let in by a token.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The owner a token stands for. Takes the same time whichever token it is, and whether it is one at all.
    pub(super) fn owner(&self, shown: &str) -> Option<&Owner> {
        let mut found = None;
        for (owner, token) in &self.all {
            let same: Choice = token.reveal().as_bytes().ct_eq(shown.as_bytes());
            if bool::from(same) {
                found = Some(owner);
            }
        }
        found
    }

    fn read(path: &Path) -> Result<Self, TokenError> {
        let unreadable = |source| TokenError::Unreadable { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
        // Its group may read it: that is how a supervisor hands a root-owned file to a service.
        if mode & 0o027 != 0 {
            return Err(TokenError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(unreadable)?;
        Self::parse(&text, path)
    }

    /// One token alone, or one `name:token` per line; empty lines and `#` comments are skipped.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, TokenError> {
        let lines = text
            .lines()
            .map(str::trim)
            .enumerate()
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let lines: Vec<_> = lines.collect();
        let mut tokens = Self::default();
        for (number, line) in &lines {
            let bad = |problem| TokenError::BadLine { path: path.to_owned(), line: number + 1, problem };
            let (owner, secret) = match line.split_once(':') {
                Some((name, secret)) if is_name(name.trim()) => (Owner::token(name.trim()), secret.trim()),
                Some(_) => {
                    return Err(bad("the name is not made of letters, digits, dot, dash and underscore"));
                }
                None if lines.len() == 1 => (unnamed(), *line),
                None => return Err(bad("several tokens need names: name:token")),
            };
            let token = Token::parse(secret)
                .ok_or_else(|| bad("the token is shorter than 16 characters or has white space in it"))?;
            if tokens.all.iter().any(|(known, _)| *known == owner) {
                return Err(bad("the name stands on an earlier line"));
            }
            if tokens.owner(secret).is_some() {
                return Err(bad("the token stands on an earlier line"));
            }
            tokens.all.push((owner, token));
        }
        if tokens.is_empty() { Err(TokenError::Empty { path: path.to_owned() }) } else { Ok(tokens) }
    }
}

/// The owner of a token without a name.
fn unnamed() -> Owner {
    Owner::token("default")
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn kept_at(settings: &Settings) -> Result<PathBuf, TokenError> {
    let no_home = || TokenError::NoPlace { reason: "the home directory is not known".to_owned() };
    Ok(settings.state_dir.as_ref().ok_or_else(no_home)?.join("http-token"))
}

/// Makes the file with a new token unless there is one. Of two first starts at once one wins, and both read its token.
fn make(path: &Path) -> Result<(), TokenError> {
    if path.exists() {
        return Ok(());
    }
    let failed =
        |at: &Path, error: io::Error| TokenError::NoPlace { reason: format!("{}: {error}", at.display()) };
    let mut random = [0_u8; 40];
    getrandom::fill(&mut random).map_err(|error| TokenError::NoPlace { reason: error.to_string() })?;
    let (secret, suffix) = random.split_at(32);
    let dir = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| failed(dir, error))?;
    // Written whole under another name first, so that nobody ever reads half a token.
    let fresh = path.with_extension(URL_SAFE_NO_PAD.encode(suffix));
    let mut options = OpenOptions::new();
    let written = options.write(true).create_new(true).mode(0o600).open(&fresh).and_then(|mut file| {
        writeln!(file, "{}", URL_SAFE_NO_PAD.encode(secret))?;
        file.sync_all()
    });
    let linked = written.and_then(|()| fs::hard_link(&fresh, path));
    let _ = fs::remove_file(&fresh);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(path, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const FIRST: &str = "first-first-first";
    const SECOND: &str = "second-second-second";

    fn parse(text: &str) -> Result<Vec<String>, String> {
        let tokens = Tokens::parse(text, Path::new("tokens")).map_err(|error| error.to_string())?;
        Ok(tokens.all.iter().map(|(owner, token)| format!("{owner}={}", token.reveal())).collect())
    }

    #[test]
    fn a_file_holds_one_token_or_several_with_names() {
        assert_eq!(parse(&format!("{FIRST}\n")).unwrap(), [format!("token:default={FIRST}")]);
        assert_eq!(
            parse(&format!("# mine\n\n a : {FIRST} \nb:{SECOND}")).unwrap(),
            [format!("token:a={FIRST}"), format!("token:b={SECOND}")]
        );
        for text in [
            "",
            "# nothing\n",
            "tooshort",
            "a:tooshort",
            "a b:first-first-first",
            ":first-first-first",
            "a:first first first",
            "first-first-first\nsecond-second-second",
            "a:first-first-first\na:second-second-second",
            "a:first-first-first\nb:first-first-first",
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                !error.contains("first") && !error.contains("second") && !error.contains("tooshort"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_token_is_found_whole_or_not_at_all() {
        let tokens = Tokens::parse(&format!("a:{FIRST}\nb:{SECOND}"), Path::new("tokens")).unwrap();
        assert_eq!(tokens.owner(FIRST), Some(&Owner::token("a")));
        assert_eq!(tokens.owner(SECOND), Some(&Owner::token("b")));
        for text in ["", "first", "first-first-first ", "FIRST-FIRST-FIRST", "first-first-firstt"] {
            assert_eq!(tokens.owner(text), None);
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, FIRST).unwrap();
        let settings = Settings { auth_token_file: Some(path.clone()), ..Settings::default() };
        let with_mode = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Tokens::load(&settings, Need::None)
                .map(|(tokens, source)| (tokens.owner(FIRST).is_some(), source))
        };
        for mode in [0o600, 0o400, 0o640, 0o440] {
            assert_eq!(with_mode(mode).unwrap(), (true, TokenSource::File(path.clone())));
        }
        for mode in [0o644, 0o604, 0o602, 0o660, 0o666] {
            let error = with_mode(mode).unwrap_err();
            assert!(
                matches!(error, TokenError::Exposed { .. }) && error.to_string().contains("token"),
                "{mode:o}"
            );
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(Tokens::load(&settings, Need::Token), Err(TokenError::Unreadable { .. })));
    }

    #[test]
    fn the_first_start_makes_a_token_and_the_next_one_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("a/b");
        let settings = Settings { state_dir: Some(state_dir.clone()), ..Settings::default() };
        let (none, source) = Tokens::load(&settings, Need::None).unwrap();
        assert!(none.is_empty() && source == TokenSource::Nowhere && !state_dir.exists());
        let (first, source) = Tokens::load(&settings, Need::Token).unwrap();
        let path = state_dir.join("http-token");
        assert_eq!(source, TokenSource::Made(path.clone()));
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!((text.trim().len(), URL_SAFE_NO_PAD.decode(text.trim()).unwrap().len()), (43, 32));
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&path), mode(&state_dir)), (0o600, 0o700));
        assert_eq!(fs::read_dir(&state_dir).unwrap().count(), 1);
        assert_eq!(first.owner(text.trim()), Some(&unnamed()));
        let (second, _) = Tokens::load(&settings, Need::Token).unwrap();
        assert_eq!(second.owner(text.trim()), Some(&unnamed()));
    }

    #[test]
    fn no_place_for_a_token_names_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        for state_dir in [None, Some(file.join("below"))] {
            let settings = Settings { state_dir, ..Settings::default() };
            let error = Tokens::load(&settings, Need::Token).err().unwrap().to_string();
            assert!(error.contains("MCP_AUTH_TOKEN_FILE"), "{error}");
        }
    }
}
