//! What the server wrote to its standard error.
//!
//! Servers from 3.2.3 on say there, and only there, which single files failed and why. Lines are read for that alone: what a
//! run came to is decided by codes.

use std::collections::BTreeMap;

use rsync_wire::role::ExitCode;
use ssh_mcp_core::{
    port::mirror::{FileFault, News, NewsDesk},
    text,
};

/// The newest words, within bounds.
#[derive(Debug, Default)]
pub(super) struct Words {
    bytes: Vec<u8>,
}

/// Bytes that are kept.
const KEPT: usize = 256 << 10;

/// Bytes of it that are shown as a whole.
const SHOWN: usize = 1024;

impl Words {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > 2 * KEPT {
            self.bytes.drain(..self.bytes.len() - KEPT);
        }
    }

    /// The last words, in one line.
    pub(super) fn text(&self) -> String {
        let from = self.bytes.len().saturating_sub(SHOWN);
        one_line(self.bytes.get(from..).unwrap_or_default())
    }

    /// Tells of each file that failed on the far side: those it refused to send, and those its words name. `root` is what the
    /// words call the root of the tree.
    pub(super) fn tell_failures(
        &self,
        refused: &[Vec<u8>],
        code: ExitCode,
        root: &[u8],
        news: &dyn NewsDesk,
    ) {
        let lines = self.bytes.split(|byte| *byte == b'\n');
        let mut said: BTreeMap<Vec<u8>, String> =
            lines.filter_map(|line| Some((relative(named(line)?, root), one_line(line)))).collect();
        for path in refused {
            // A source that is a single file is called by its whole path.
            let detail = said.remove(path).or_else(|| said.remove(&b""[..]));
            let fault = match (&detail, code) {
                (Some(detail), _) => fault(detail),
                (None, ExitCode::VANISHED) => FileFault::FileNotFound,
                (None, _) => FileFault::IoError,
            };
            let detail = detail.as_deref().unwrap_or("the far side cannot send it");
            news.tell(News::Failed { path, fault, detail, planned: true });
        }
        if code != ExitCode::OK {
            for (path, detail) in &said {
                news.tell(News::Failed { path, fault: fault(detail), detail, planned: false });
            }
        }
    }
}

fn one_line(bytes: &[u8]) -> String {
    text::one_line(String::from_utf8_lossy(bytes).trim()).into_owned()
}

/// The path in a line such as `rsync: [receiver] mkstemp "/x/.y.AbCdEf" failed: Permission denied (13)`.
fn named(line: &[u8]) -> Option<&[u8]> {
    if let Some(line) = line.strip_prefix(b"ERROR: ") {
        let end = line.windows(UNVERIFIED.len()).position(|window| window == UNVERIFIED)?;
        return line.get(..end);
    }
    let line = line.strip_prefix(b"rsync: ")?;
    let start = line.iter().position(|byte| *byte == b'"')? + 1;
    let end = line.iter().rposition(|byte| *byte == b'"')?;
    line.get(start..end).filter(|name| !name.is_empty())
}

/// The path below the root; of a temporary file, that of the file it is for.
fn relative(path: &[u8], root: &[u8]) -> Vec<u8> {
    let root = root.strip_suffix(b"/").unwrap_or(root);
    let below = path.strip_prefix(root).and_then(|rest| rest.strip_prefix(b"/")).unwrap_or(path);
    let at = below.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (directory, name) = below.split_at(at);
    let named = name.strip_prefix(b".").and_then(|name| name.split_last_chunk::<7>());
    let name = match named {
        Some((named, [b'.', random @ ..])) if random.iter().all(u8::is_ascii_alphanumeric) => named,
        Some(_) | None => name,
    };
    [directory, name].concat()
}

/// What a server says of a file that arrived wrong twice.
const UNVERIFIED: &[u8] = b" failed verification -- update discarded";

fn fault(line: &str) -> FileFault {
    match line {
        _ if line.starts_with("ERROR: ") => FileFault::VerifyMismatch,
        _ if line.contains("Permission denied") || line.contains("Operation not permitted") => {
            FileFault::PermissionDenied
        }
        _ if line.contains("No such file") || line.contains("vanished") => FileFault::FileNotFound,
        _ => FileFault::IoError,
    }
}
