//! Which names a list may hold.

/// Why a name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NameError {
    /// It has no byte.
    #[error("empty name")]
    Empty,
    /// It has more than 4095 bytes, or a component has more than 255.
    #[error("name that is too long")]
    TooLong,
    /// It begins with `/`.
    #[error("absolute name")]
    Absolute,
    /// A component is `..`.
    #[error("name that climbs")]
    Climbs,
    /// A component is empty or `.`, and the name is not `.` alone.
    #[error("name that is not in its plain form")]
    NotPlain,
    /// It holds a NUL byte.
    #[error("name with a NUL byte")]
    Nul,
}

/// The longest name.
pub(super) const NAME_MAX: usize = 4095;
/// The longest target of a symlink.
pub(super) const TARGET_MAX: usize = 4095;
const COMPONENT_MAX: usize = 255;

/// Finds out whether a name may stand in a list.
pub(super) fn check(name: &[u8]) -> Result<(), NameError> {
    if name.len() > NAME_MAX {
        return Err(NameError::TooLong);
    }
    match name {
        [] => return Err(NameError::Empty),
        b"." => return Ok(()),
        [b'/', ..] => return Err(NameError::Absolute),
        _ if name.contains(&0) => return Err(NameError::Nul),
        _ => {}
    }
    for component in name.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => return Err(NameError::NotPlain),
            b".." => return Err(NameError::Climbs),
            _ if component.len() > COMPONENT_MAX => return Err(NameError::TooLong),
            _ => {}
        }
    }
    Ok(())
}
