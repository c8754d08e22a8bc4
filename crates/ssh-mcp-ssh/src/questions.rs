//! Questions of keyboard-interactive logins (RFC 4256), and which of them a password answers: without I/O.

use russh::client::Prompt;
use ssh_mcp_core::target::Secret;

use crate::auth::Repeat;

/// Whether questions stay without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gaps {
    None,
    Some,
}

/// The answers to one list of prompts. Hidden prompts for the password get it; so does the very first, whatever its words,
/// if it is the only one. To the rest there is no answer, nor to any if there is no password to give: saying nothing ends
/// this method and leaves the others open.
pub(crate) fn answers(
    prompts: &[Prompt],
    password: Option<&Secret>,
    answered: &mut Answered,
) -> (Vec<String>, Gaps) {
    let mut gaps = Gaps::None;
    let is_first = *answered == Answered::No;
    let answers = prompts.iter().map(|prompt| {
        let asked = asked_for(&prompt.prompt);
        let is_alone = prompts.len() == 1 && is_first;
        let is_for_it = !prompt.echo && (asked == Asked::Password || is_alone) && !wants_new(&prompt.prompt);
        let Some(password) = password.filter(|_| is_for_it) else {
            gaps = Gaps::Some;
            return String::new();
        };
        *answered = answered.and(asked);
        password.reveal().to_owned()
    });
    (answers.collect(), gaps)
}

/// What the password was the answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    No,
    Asked(Asked),
}

/// What a hidden prompt wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Password,
    SomethingElse,
}

impl Answered {
    /// One more answer: all of them have to be good a second time.
    fn and(self, asked: Asked) -> Self {
        match self {
            Self::Asked(Asked::SomethingElse) => self,
            Self::Asked(Asked::Password) | Self::No => Self::Asked(asked),
        }
    }

    /// Whether the same answers lead in again.
    pub(crate) fn repeat(self) -> Repeat {
        match self {
            Self::Asked(Asked::Password) => Repeat::Possible,
            // Let in without a question means that somebody confirmed it elsewhere.
            Self::Asked(Asked::SomethingElse) | Self::No => Repeat::Impossible,
        }
    }
}

/// Whether a prompt asks for the password rather than for a code that works once.
fn asked_for(prompt: &str) -> Asked {
    let prompt = prompt.to_lowercase();
    let names = |words: &[&str]| words.iter().any(|word| prompt.contains(word));
    if names(&CODES) || !names(&PASSWORDS) { Asked::SomethingElse } else { Asked::Password }
}

/// Whether a prompt wants a password that is to be set: the old one is no answer.
fn wants_new(prompt: &str) -> bool {
    let prompt = prompt.to_lowercase();
    ["new password", "new unix password", "retype"].iter().any(|words| prompt.contains(words))
}

/// Words in prompts for codes that work once, some of which speak of a "one-time password" as well.
const CODES: [&str; 8] = ["one-time", "one time", "otp", "oath", "code", "token", "challenge", "passcode"];

/// "Password" as PAM's translations have it.
const PASSWORDS: [&str; 18] = [
    "password",
    "passwort",
    "kennwort",
    "mot de passe",
    "contraseña",
    "senha",
    "parola",
    "wachtwoord",
    "lösenord",
    "adgangskode",
    "passord",
    "salasana",
    "hasło",
    "heslo",
    "пароль",
    "密码",
    "密碼",
    "パスワード",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(prompt: &str, expected: Asked) {
        assert_eq!(asked_for(prompt), expected, "{prompt}");
    }

    #[test]
    fn prompts_of_pam_and_friends() {
        check("Password: ", Asked::Password);
        check("ada@host's password:", Asked::Password);
        check("Passwort: ", Asked::Password);
        check("パスワード:", Asked::Password);
        check("One-time password (OATH) for `ada': ", Asked::SomethingElse);
        check("Verification code: ", Asked::SomethingElse);
        check("Enter PASSCODE: ", Asked::SomethingElse);
        check("", Asked::SomethingElse);
    }

    #[track_caller]
    fn check_answers(prompts: &[(&str, bool)], expected: &[&str], gaps: Gaps, after: Answered) {
        let prompts: Vec<Prompt> =
            prompts.iter().map(|(text, echo)| Prompt { prompt: (*text).to_owned(), echo: *echo }).collect();
        let mut answered = Answered::No;
        let given = answers(&prompts, Some(&Secret::new("x".to_owned())), &mut answered);
        assert_eq!(
            (given.0, given.1, answered),
            (expected.iter().map(|s| (*s).to_owned()).collect(), gaps, after)
        );
    }

    #[test]
    fn hidden_prompts_for_the_password_get_it() {
        let (password, code) = (Answered::Asked(Asked::Password), Answered::Asked(Asked::SomethingElse));
        check_answers(&[], &[], Gaps::None, Answered::No);
        check_answers(&[("Password: ", false)], &["x"], Gaps::None, password);
        check_answers(&[("Tell me: ", false)], &["x"], Gaps::None, code);
        check_answers(&[("Password: ", true)], &[""], Gaps::Some, Answered::No);
        let both = [("Password: ", false), ("Verification code: ", false)];
        check_answers(&both, &["x", ""], Gaps::Some, password);
        check_answers(&[("New password: ", false)], &[""], Gaps::Some, Answered::No);
        let twice = [("Password: ", false), ("Domain password: ", false)];
        check_answers(&twice, &["x", "x"], Gaps::None, password);
    }
}
