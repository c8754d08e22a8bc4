//! The flags before an entry, in both forms.

use super::Layout;
use crate::varint::{ReadError, Reader, put_varint};

pub(super) const TOP_DIRECTORY: u32 = 1 << 0;
pub(super) const SAME_MODE: u32 = 1 << 1;
/// Classic form: a second byte follows. Varint form: filler, so that the flags are not 0.
pub(super) const EXTENDED: u32 = 1 << 2;
pub(super) const SAME_UID: u32 = 1 << 3;
pub(super) const SAME_GID: u32 = 1 << 4;
pub(super) const SHARED_NAME: u32 = 1 << 5;
pub(super) const LONG_NAME: u32 = 1 << 6;
pub(super) const SAME_MTIME: u32 = 1 << 7;
/// Of a device.
pub(super) const SAME_MAJOR: u32 = 1 << 8;
/// Of a directory.
pub(super) const NO_CONTENT: u32 = 1 << 8;
pub(super) const HARD_LINKED: u32 = 1 << 9;
pub(super) const FIRST_LINK: u32 = 1 << 12;
pub(super) const NANOSECONDS: u32 = 1 << 13;
pub(super) const SAME_ATIME: u32 = 1 << 14;

const KNOWN: u32 = TOP_DIRECTORY
    | SAME_MODE
    | EXTENDED
    | SAME_UID
    | SAME_GID
    | SHARED_NAME
    | LONG_NAME
    | SAME_MTIME
    | SAME_MAJOR
    | HARD_LINKED
    | FIRST_LINK
    | NANOSECONDS
    | SAME_ATIME;

/// What the flags announce.
pub(super) enum Head {
    Entry(u32),
    /// The end of the list, with the sender's errors.
    End(i32),
}

pub(super) fn read(input: &mut Reader<'_>, layout: &Layout) -> Result<Head, ReadError> {
    if layout.flags.has_varint_flags() {
        return Ok(match input.varint()? {
            0 => Head::End(input.varint()?),
            flags => Head::Entry(flags.cast_unsigned()),
        });
    }
    let low = u32::from(input.byte()?);
    let flags = if low & EXTENDED == 0 { low } else { low | (u32::from(input.byte()?) << 8) };
    Ok(match flags {
        0 => Head::End(0),
        CLASSIC_END if layout.has_safe_end() => Head::End(input.varint()?),
        flags => Head::Entry(flags),
    })
}

/// Flags that announce fields the layout does not have.
pub(super) fn unexpected(flags: u32, layout: &Layout) -> u32 {
    let mut allowed = KNOWN;
    if !layout.hard_links {
        allowed &= !HARD_LINKED;
    }
    if !layout.has_nanoseconds() {
        allowed &= !NANOSECONDS;
    }
    flags & !allowed
}

pub(super) fn put(out: &mut Vec<u8>, flags: u32, is_directory: bool, layout: &Layout) {
    if layout.flags.has_varint_flags() {
        put_varint(out, if flags == 0 { EXTENDED } else { flags }.cast_signed());
        return;
    }
    // A top directory is a directory: on anything else the bit has no meaning and serves as filler.
    let flags = if flags == 0 && !is_directory { TOP_DIRECTORY } else { flags };
    if flags == 0 || flags > 0xff {
        let [low, high, ..] = (flags | EXTENDED).to_le_bytes();
        out.extend_from_slice(&[low, high]);
    } else {
        out.push(flags as u8);
    }
}

pub(super) fn put_end(out: &mut Vec<u8>, errors: i32, layout: &Layout) {
    if layout.flags.has_varint_flags() {
        out.push(0);
        put_varint(out, errors);
    } else if errors != 0 && layout.has_safe_end() {
        let [low, high, ..] = CLASSIC_END.to_le_bytes();
        out.extend_from_slice(&[low, high]);
        put_varint(out, errors);
    } else {
        out.push(0);
    }
}

const CLASSIC_END: u32 = FIRST_LINK | EXTENDED;
