//! Which of two paths is on the far side, and what a path says by how it is written.

use crate::registry::Direction;

/// The two sides of a sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sides {
    /// Which one is the source.
    pub direction: Direction,
    /// The path on this side.
    pub local: String,
    /// The path on the far side, without its label; empty is the login directory.
    pub remote: String,
    /// Whether the source stands for its content, and not for itself.
    pub content: bool,
}

/// Paths that name no two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SidesError {
    /// Neither has a label.
    #[error(
        "one of src and dst must be on the remote side, written label:path (any label of more than one letter before / or \\), or give direction"
    )]
    BothLocal,
    /// Both have one.
    #[error("only one of src and dst may be on the remote side; a local path with a colon is written ./a:b")]
    BothRemote,
    /// The local one is empty.
    #[error("the local path must not be empty")]
    Nowhere,
}

/// Tells the sides of a sync apart: by their labels, or by the direction, and then they have none.
///
/// # Errors
/// [`SidesError`].
pub fn sides(src: &str, dst: &str, direction: Option<Direction>) -> Result<Sides, SidesError> {
    let (direction, src, dst) = match direction {
        Some(direction) => (direction, src, dst),
        None => match (behind_label(src), behind_label(dst)) {
            (None, Some(dst)) => (Direction::Upload, src, dst),
            (Some(src), None) => (Direction::Download, src, dst),
            (None, None) => return Err(SidesError::BothLocal),
            (Some(_), Some(_)) => return Err(SidesError::BothRemote),
        },
    };
    let (local, remote) = match direction {
        Direction::Upload => (src, dst),
        Direction::Download => (dst, src),
    };
    if local.is_empty() {
        return Err(SidesError::Nowhere);
    }
    Ok(Sides { direction, local: local.to_owned(), remote: remote.to_owned(), content: is_content(src) })
}

/// What stands behind a label, if there is one: text and a colon before any slash. One letter, a colon and a slash are a
/// drive of Windows.
fn behind_label(path: &str) -> Option<&str> {
    let (label, behind) = path.split_once(':')?;
    let is_drive = label.len() == 1
        && label.starts_with(|c: char| c.is_ascii_alphabetic())
        && behind.starts_with(['/', '\\']);
    (!label.is_empty() && !label.contains(['/', '\\']) && !is_drive).then_some(behind)
}

/// A source that ends in a slash, or in no name of its own, stands for what is in it.
fn is_content(source: &str) -> bool {
    matches!(source.rsplit('/').next(), None | Some("" | "." | ".."))
}

impl Sides {
    /// Why nothing may be deleted at this destination, as far as its path says it.
    pub fn no_delete(&self) -> Option<&'static str> {
        let destination = match self.direction {
            Direction::Upload if self.remote.is_empty() => {
                return Some(
                    "delete with the login directory as an empty path is refused: write the path out",
                );
            }
            Direction::Upload => &self.remote,
            Direction::Download => &self.local,
        };
        is_root(destination).then_some("delete at the root of a file system is refused")
    }
}

/// Whether a path is the root of all, or of a drive, however it is written.
fn is_root(path: &str) -> bool {
    let rest = match path.trim_start_matches('/').split_once(':') {
        Some((drive, rest)) if drive.len() == 1 => rest,
        Some(_) | None => path,
    };
    let is_absolute = rest.starts_with(['/', '\\']) || (rest.is_empty() && !path.is_empty());
    let mut depth = 0_u32;
    for part in rest.split(['/', '\\']) {
        match part {
            "" | "." => {}
            ".." => depth = depth.saturating_sub(1),
            _ => depth += 1,
        }
    }
    is_absolute && depth == 0
}
