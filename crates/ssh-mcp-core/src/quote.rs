//! Command lines for a POSIX shell: quoting, and the context a command runs in.

use std::fmt::Write as _;

/// A word in single quotes, safe from every expansion (POSIX shell, 2.2.2).
pub fn word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A word for a person to read and paste: quoted only where a shell would take it apart.
pub fn readable(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+:,./-".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { word(text) }
}

/// A path as a word; a leading `~` alone or before `/` stays the home directory.
pub fn path(text: &str) -> String {
    match text.strip_prefix('~') {
        Some("") => "\"$HOME\"".to_owned(),
        Some(rest) if rest.starts_with('/') => format!("\"$HOME\"{}", word(rest)),
        Some(_) | None => word(text),
    }
}

/// Where and with what a command runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    /// Working directory.
    pub cwd: Option<String>,
    /// Variables, in the order they are exported.
    pub env: Vec<(EnvName, String)>,
    /// The program that runs the command in place of the login shell.
    pub shell: Option<String>,
}

/// The name of an environment variable: a letter or underscore, then letters, digits and underscores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvName(String);

impl EnvName {
    /// The name, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut chars = text.chars();
        let head = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        (head && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')).then(|| Self(text.to_owned()))
    }
}

impl Context {
    /// The command line for a command.
    pub fn command(&self, command: &str) -> String {
        let mut line = self.setup();
        match &self.shell {
            Some(shell) => _ = write!(line, "exec {} -c {}", word(shell), word(command)),
            None => line.push_str(command),
        }
        line
    }

    /// The command line for an interactive shell; `None` where the login shell as it is will do.
    pub fn interactive(&self) -> Option<String> {
        if *self == Self::default() {
            return None;
        }
        let mut line = self.setup();
        match &self.shell {
            Some(shell) => _ = write!(line, "exec {} -i", word(shell)),
            None => line.push_str("exec \"${SHELL:-/bin/sh}\" -l"),
        }
        Some(line)
    }

    /// Directory and variables; a missing directory ends the line with status 1 and the shell's own words.
    fn setup(&self) -> String {
        let mut line = String::new();
        if let Some(cwd) = &self.cwd {
            _ = write!(line, "cd -- {} || exit 1; ", path(cwd));
        }
        for (EnvName(name), value) in &self.env {
            _ = write!(line, "export {name}={}; ", word(value));
        }
        line
    }
}

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests {
    use super::*;

    fn env(name: &str, value: &str) -> (EnvName, String) {
        (EnvName::parse(name).unwrap(), value.to_owned())
    }

    #[test]
    fn words_survive_a_real_shell() {
        for text in [
            "",
            "a b",
            "it's",
            "$HOME `id` \\ \"x\"",
            "line\nbreak",
            "-n",
            "*",
            "~",
            "ünïcödé",
            "'; rm -rf /; '",
        ] {
            let printed = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", word(text))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(printed.stdout).unwrap(), text);
        }
    }

    #[test]
    fn a_context_stands_before_the_command() {
        let context = Context { cwd: Some("~/a b".into()), env: vec![env("A", "it's")], shell: None };
        assert_eq!(
            context.command("make; id"),
            r#"cd -- "$HOME"'/a b' || exit 1; export A='it'\''s'; make; id"#
        );
        let context = Context { shell: Some("bash".into()), ..Context::default() };
        assert_eq!(context.command("echo 'x'"), r"exec 'bash' -c 'echo '\''x'\'''");
    }

    #[test]
    fn an_interactive_shell_without_context_is_the_login_shell() {
        assert_eq!(Context::default().interactive(), None);
        let context = Context { shell: Some("zsh".into()), ..Context::default() };
        assert_eq!(context.interactive().unwrap(), "exec 'zsh' -i");
        let context = Context { cwd: Some("/srv".into()), ..Context::default() };
        assert_eq!(context.interactive().unwrap(), r#"cd -- '/srv' || exit 1; exec "${SHELL:-/bin/sh}" -l"#);
    }

    #[test]
    fn names_of_variables() {
        for good in ["A", "_", "a1_B"] {
            assert!(EnvName::parse(good).is_some(), "{good}");
        }
        for bad in ["", "1A", "A-B", "A B", "A=B", "ä", "A\0"] {
            assert!(EnvName::parse(bad).is_none(), "{bad}");
        }
    }
}
