//! Secrets by reference: a call names where one is, and it need not stand in the call.
//!
//! Failures name the variable or the file, never a word of what is in it.

use std::{fs::File, io::Read as _, path::Path};

use crate::{cx::Cx, failure::Failure};

/// What a variable of this process holds. Its environment is the operator's, so only local callers are let in.
pub(super) fn from_variable(cx: &Cx, field: &str, name: &str) -> Result<String, Failure> {
    if !cx.owner.is_local() {
        return Err(Failure::argument(format!("{field} is for callers on the server's machine")));
    }
    // The key to this server itself is shown to no other one.
    let found = if name == OWN_TOKEN { None } else { std::env::var(name).ok() };
    found.filter(|secret| !secret.is_empty()).ok_or_else(|| {
        Failure::argument(format!("{field} must name a variable that is set; {name:?} is not"))
    })
}

/// What a file holds, without the end of its last line.
pub(super) fn from_file(path: &Path) -> Result<String, Failure> {
    let refused = |words: String| Failure::argument(format!("password_file: {words}"));
    let unreadable = |error: std::io::Error| refused(format!("{}: {error}", path.display()));
    // Looked at before it is opened as well: opening a pipe waits for somebody to write.
    let is_file = std::fs::metadata(path).map_err(unreadable)?.is_file();
    if !is_file {
        return Err(refused(format!("{} is not a file", path.display())));
    }
    let file = File::open(path).map_err(unreadable)?;
    if let Some(mode) = open_mode(&file.metadata().map_err(unreadable)?) {
        return Err(refused(format!("Permissions {mode:04o} for '{}' are too open.", path.display())));
    }
    // Enough at once: growing would leave copies behind that nobody wipes.
    let mut secret = String::with_capacity(LONGEST as usize);
    file.take(LONGEST).read_to_string(&mut secret).map_err(unreadable)?;
    let without_end = secret.trim_end_matches(['\n', '\r']).len();
    secret.truncate(without_end);
    match secret.is_empty() {
        true => Err(refused(format!("{} is empty", path.display()))),
        false => Ok(secret),
    }
}

/// The mode of a file that group or others may touch.
#[cfg(unix)]
fn open_mode(metadata: &std::fs::Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = metadata.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

#[cfg(not(unix))]
fn open_mode(_: &std::fs::Metadata) -> Option<u32> {
    None
}

const OWN_TOKEN: &str = "MCP_AUTH_TOKEN";

/// Longer than any password.
const LONGEST: u64 = 4 << 10;

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_that_others_may_read_is_no_place_for_a_password() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "hunter2\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o600);
        assert_eq!(from_file(&path).unwrap(), "hunter2");
        for open in [0o640, 0o604, 0o620] {
            mode(open);
            let refused = from_file(&path).unwrap_err();
            assert!(refused.reason.contains(&format!("Permissions {open:04o} for")), "{}", refused.reason);
            assert!(!refused.reason.contains("hunter2"));
        }
        assert!(from_file(folder.path()).is_err());
    }
}
