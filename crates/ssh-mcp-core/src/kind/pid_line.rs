//! The line that tells a command's process group: printed by the login shell, taken out before anybody sees it.
//!
//! A POSIX login shell is asked to print `<token> <pid>` on standard error before it runs the command. The shell
//! sshd starts leads a process group of its own, so that number reaches every process of the command.

use crate::quote;

/// The prefix of a command line, and the filter that takes its output out again.
#[derive(Debug)]
pub struct PidLine {
    token: String,
    state: State,
}

/// What is known of the process group.
///
/// `Searching` (bytes held back: a line that may still become the token's) -> `Found` | `GivenUp`.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Searching { held: Vec<u8>, passed: usize },
    Found(u32),
    GivenUp,
}

/// The line stands among the first bytes, unless login files write a lot to standard error.
const SEARCHED: usize = 64 * 1024;

impl PidLine {
    /// A filter for a token made of `nonce`, which remote output cannot guess.
    pub fn new(nonce: u64) -> Self {
        Self {
            token: format!("ssh-mcp-{nonce:016x}"),
            state: State::Searching { held: Vec::new(), passed: 0 },
        }
    }

    /// A filter for a command that prints no such line.
    pub fn absent() -> Self {
        Self { token: String::new(), state: State::GivenUp }
    }

    /// The command line with the prefix.
    pub fn prefix(&self, command: &str) -> String {
        format!("echo {} $$ >&2; {command}", quote::word(&self.token))
    }

    /// Whether the line is still to come.
    pub fn is_searching(&self) -> bool {
        matches!(self.state, State::Searching { .. })
    }

    /// The process group, once its line has come.
    pub fn pid(&self) -> Option<u32> {
        match self.state {
            State::Found(pid) => Some(pid),
            State::Searching { .. } | State::GivenUp => None,
        }
    }

    /// Passes bytes of the stream the line comes in; `out` gets them without the line.
    pub fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let State::Searching { held, passed } = &mut self.state else {
            out.extend_from_slice(bytes);
            return;
        };
        held.extend_from_slice(bytes);
        let mut searched = 0;
        for line in held.split_inclusive(|byte| *byte == b'\n').take_while(|line| line.ends_with(b"\n")) {
            searched += line.len();
            if let Some((before, pid)) = token_line(&self.token, line) {
                out.extend_from_slice(before);
                out.extend_from_slice(held.get(searched..).unwrap_or_default());
                self.state = State::Found(pid);
                return;
            }
            out.extend_from_slice(line);
        }
        held.drain(..searched);
        *passed += searched;
        if *passed + held.len() > SEARCHED {
            out.append(held);
            self.state = State::GivenUp;
        } else if !may_become(&self.token, held) {
            *passed += held.len();
            out.append(held);
        }
    }

    /// The stream is over: what was held back was no such line.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if let State::Searching { held, .. } = &mut self.state {
            out.append(held);
            self.state = State::GivenUp;
        }
    }
}

/// What stands before the token on its line (a message without newline), and the number behind it.
fn token_line<'a>(token: &str, line: &'a [u8]) -> Option<(&'a [u8], u32)> {
    let at = line.windows(token.len()).position(|window| window == token.as_bytes())?;
    let (before, rest) = line.split_at(at);
    let number = std::str::from_utf8(rest.get(token.len()..)?).ok()?.trim();
    number.parse().ok().map(|pid| (before, pid))
}

/// Whether an unfinished line has, or ends in the beginning of, the token.
fn may_become(token: &str, line: &[u8]) -> bool {
    let token = token.as_bytes();
    line.windows(token.len()).any(|window| window == token)
        || (1..token.len()).any(|len| token.get(..len).is_some_and(|head| line.ends_with(head)))
}

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(chunks: &[&[u8]]) -> (Vec<u8>, Option<u32>) {
        let mut line = PidLine::new(7);
        let mut out = Vec::new();
        for chunk in chunks {
            line.pass(chunk, &mut out);
        }
        line.finish(&mut out);
        (out, line.pid())
    }

    #[test]
    fn the_line_is_taken_out_and_its_number_kept() {
        assert_eq!(
            run(&[b"ssh-mcp-0000000000000007 4242\nreal error\n"]),
            (b"real error\n".to_vec(), Some(4242))
        );
        assert_eq!(
            run(&[b"ssh-mcp-0000000000000007 4242\r\n"]),
            (Vec::new(), Some(4242)),
            "through a terminal"
        );
    }

    #[test]
    fn what_login_files_print_before_it_stays() {
        let bytes = b"warning: locale\nno newline ssh-mcp-0000000000000007 9\nrest";
        assert_eq!(run(&[bytes]), (b"warning: locale\nno newline rest".to_vec(), Some(9)));
    }

    #[test]
    fn output_without_the_line_is_untouched() {
        assert_eq!(
            run(&[b"bash: syntax error\n", b"ssh-mcp-00"]),
            (b"bash: syntax error\nssh-mcp-00".to_vec(), None)
        );
    }

    #[test]
    fn a_prompt_without_newline_is_not_held_back() {
        let mut line = PidLine::new(7);
        let mut out = Vec::new();
        line.pass(b"Password: ", &mut out);
        assert_eq!(out, b"Password: ");
    }

    #[test]
    fn a_real_shell_prints_what_the_filter_expects() {
        let mut line = PidLine::new(7);
        let command = line.prefix("echo out; echo err >&2");
        let mut child = std::process::Command::new("sh");
        child.args(["-c", &command]).stdout(std::process::Stdio::piped());
        let run = child.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let pid = run.id();
        let output = run.wait_with_output().unwrap();
        let mut err = Vec::new();
        line.pass(&output.stderr, &mut err);
        assert_eq!((err.as_slice(), line.pid()), (b"err\n".as_slice(), Some(pid)));
        assert_eq!(output.stdout, b"out\n");
    }

    proptest! {
        #[test]
        fn cutting_the_stream_anywhere_changes_nothing(before in "[a-z \n]{0,20}", after in "[a-z\n-]{0,20}", cuts in proptest::collection::vec(0usize..80, 0..6)) {
            let whole = format!("{before}ssh-mcp-0000000000000007 77\n{after}").into_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts {
                chunks.push(&whole[from..cut]);
                from = cut;
            }
            chunks.push(&whole[from..]);
            let (out, pid) = run(&chunks);
            prop_assert_eq!(pid, Some(77));
            prop_assert_eq!(out, format!("{before}{after}").into_bytes());
        }
    }
}
