//! Whether a session's login shell is a POSIX one: asked once, by a command only such a shell answers rightly.

/// What is known of a login shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginShell {
    /// It understands POSIX command lines.
    Posix,
    /// Anything else: csh, fish, a menu, a forced command, a Windows shell.
    Other,
}

/// The command line that finds it out; `nonce` keeps a forced command's output from being mistaken for an answer.
///
/// Arithmetic and default values are what csh, fish and the Windows shells do not know in this form.
pub fn question(nonce: u64) -> String {
    format!(r#"printf '%s\n' "ssh-mcp-{nonce:016x}:$((6*7)):${{ssh_mcp_unset-posix}}""#)
}

/// Reads the standard output of [`question`]; login files may have written to it before.
pub fn answer(nonce: u64, output: &[u8]) -> LoginShell {
    let expected = format!("ssh-mcp-{nonce:016x}:42:posix");
    match output.split(|byte| *byte == b'\n').any(|line| line == expected.as_bytes()) {
        true => LoginShell::Posix,
        false => LoginShell::Other,
    }
}

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests {
    use super::*;

    #[test]
    fn a_real_posix_shell_answers() {
        let output = std::process::Command::new("sh").args(["-c", &question(9)]).output().unwrap().stdout;
        assert_eq!(answer(9, &output), LoginShell::Posix);
        assert_eq!(answer(8, &output), LoginShell::Other);
    }

    #[test]
    fn noise_before_the_answer_is_no_answer_and_no_harm() {
        let mut output = b"Welcome!\n".to_vec();
        assert_eq!(answer(9, &output), LoginShell::Other);
        output.extend(b"ssh-mcp-0000000000000009:42:posix\n");
        assert_eq!(answer(9, &output), LoginShell::Posix);
    }
}
