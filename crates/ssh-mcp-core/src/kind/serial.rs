//! What a serial port is between its opening and its end: what is put into it, which devices may be opened, and that each
//! is open once.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use super::input::InputQueue;
use crate::{
    id::SerialId,
    port::serial::{BreakError, DeviceKey},
    sync::{Mutex, OnceCell},
};

/// Bytes held of what a port received, where its opener does not say.
pub const HISTORY: usize = 1 << 20;

/// The fewest and the most an opener may ask for.
pub const HISTORY_BOUNDS: (u64, u64) = (4 << 10, 1 << 30);

/// The largest piece that is written at once.
pub const PAYLOAD: usize = 1 << 20;

/// Input of a port on its way out.
pub type WriteQueue = InputQueue<Frame>;

/// One piece of it.
#[derive(Debug, Clone)]
pub enum Frame {
    /// Bytes as they are.
    Bytes(Bytes),
    /// The line is held low for a moment; what came of that is written down before the piece counts as sent.
    Break(Arc<OnceCell<Result<(), BreakError>>>),
}

/// The devices that may be opened: patterns of paths, in which `*` and `?` stop at a slash, and `[…]` is one of some
/// characters.
#[derive(Debug, Clone, Copy)]
pub struct Allowed<'a>(&'a [String]);

impl<'a> Allowed<'a> {
    /// Those of `SSH_MCP_ALLOW_SERIAL`: without a pattern any, with the word `none` no other than the patterns beside it name.
    pub fn new(patterns: &'a [String]) -> Self {
        Self(patterns)
    }

    /// Whether none may be opened at all.
    pub fn is_none(self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|pattern| pattern.eq_ignore_ascii_case("none"))
    }

    /// Whether a device may be opened by this name.
    pub fn permits(self, path: &str) -> bool {
        // A name that goes up may lead anywhere, whatever it looks like.
        let goes_up = || path.split('/').any(|part| part == "..");
        self.0.is_empty() || (!goes_up() && self.0.iter().any(|pattern| matches(pattern, path)))
    }
}

/// Whether a pattern fits a path from end to end.
fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<char>, Vec<char>) = (pattern.chars().collect(), path.chars().collect());
    // Where to go on when a star has to take one character more: behind the star, and in the path.
    let (mut at, mut seen, mut star) = (0, 0, None);
    while let Some(next) = path.get(seen) {
        match one(&pattern, at, *next) {
            Step::Star => {
                star = Some((at + 1, seen));
                at += 1;
            }
            Step::Fits(behind) => (at, seen) = (behind, seen + 1),
            Step::Differs => match star {
                Some((behind, from)) if path.get(from) != Some(&'/') => {
                    star = Some((behind, from + 1));
                    (at, seen) = (behind, from + 1);
                }
                Some(_) | None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|rest| *rest == '*')
}

enum Step {
    Star,
    /// Behind what fitted.
    Fits(usize),
    Differs,
}

/// What the pattern says at a place to a character.
fn one(pattern: &[char], at: usize, next: char) -> Step {
    let fits = |fits: bool, behind: usize| if fits { Step::Fits(behind) } else { Step::Differs };
    match pattern.get(at) {
        Some('*') => Step::Star,
        Some('?') => fits(next != '/', at + 1),
        Some('[') => match pattern.iter().skip(at + 2).position(|c| *c == ']') {
            Some(length) => {
                let end = at + 2 + length;
                let inside = pattern.get(at + 1..end).unwrap_or_default();
                let (negated, set) = match inside.split_first() {
                    Some(('!' | '^', rest)) if !rest.is_empty() => (true, rest),
                    Some(_) | None => (false, inside),
                };
                fits(next != '/' && is_in(set, next) != negated, end + 1)
            }
            None => fits(next == '[', at + 1),
        },
        Some(own) => fits(*own == next, at + 1),
        None => Step::Differs,
    }
}

fn is_in(set: &[char], next: char) -> bool {
    match set {
        [from, '-', to, rest @ ..] => (*from..=*to).contains(&next) || is_in(rest, next),
        [own, rest @ ..] => *own == next || is_in(rest, next),
        [] => false,
    }
}

/// The devices that are open here or being opened, each once.
#[derive(Debug, Clone, Default)]
pub struct OpenDevices(Arc<Mutex<HashMap<DeviceKey, SerialId>>>);

/// A device that nobody else of this process opens; dropping it gives it back.
#[derive(Debug)]
pub struct Claim {
    devices: OpenDevices,
    key: DeviceKey,
}

impl OpenDevices {
    /// Takes a device for a port.
    ///
    /// # Errors
    /// The port that has it.
    pub fn claim(&self, key: DeviceKey, port: SerialId) -> Result<Claim, SerialId> {
        let mut taken = self.0.lock();
        match taken.get(&key) {
            Some(other) => Err(*other),
            None => {
                taken.insert(key.clone(), port);
                Ok(Claim { devices: self.clone(), key })
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.devices.0.lock().remove(&self.key);
    }
}

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn check(patterns: &[&str], path: &str, expected: bool) {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        assert_eq!(Allowed::new(&patterns).permits(path), expected, "{patterns:?} {path}");
    }

    #[test]
    fn patterns_name_devices() {
        check(&[], "/dev/ttyUSB0", true);
        check(&["none"], "/dev/ttyUSB0", false);
        check(&["/dev/ttyUSB*"], "/dev/ttyUSB0", true);
        check(&["/dev/ttyUSB*"], "/dev/ttyUSB", true);
        check(&["/dev/ttyUSB*"], "/dev/ttyACM0", false);
        check(&["/dev/ttyUSB?", "/dev/ttyACM*"], "/dev/ttyACM10", true);
        check(&["/dev/ttyUSB?"], "/dev/ttyUSB10", false);
        check(&["/dev/*"], "/dev/serial/by-id/x", false);
        check(&["/dev/*/*/usb-*-if00"], "/dev/serial/by-id/usb-a-b-if00", true);
        check(&["/dev/ttyS[0-3]"], "/dev/ttyS3", true);
        check(&["/dev/ttyS[!0-3]"], "/dev/ttyS3", false);
        check(&["/dev/ttyS[]"], "/dev/ttyS[]", true);
        check(&["*a*b"], "aab", true);
        check(&["*a*b"], "aabc", false);
    }

    #[test]
    fn a_name_that_goes_up_fits_no_pattern() {
        check(&["/dev/serial/*/*"], "/dev/serial/../ttyS0", false);
        check(&["/dev/serial/by-id/*"], "/dev/serial/by-id/..", false);
    }

    #[test]
    fn none_is_none_only_when_it_stands_alone() {
        let none = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            Allowed::new(&words).is_none()
        };
        assert!(none(&["none"]) && none(&["None"]));
        assert!(!none(&[]) && !none(&["/dev/ttyUSB0"]));
    }

    #[test]
    fn a_device_is_taken_once_until_it_is_given_back() {
        let port = |number| SerialId::from(Uuid::from_u128(number));
        let devices = OpenDevices::default();
        let key = || DeviceKey("188:0".into());
        let claim = devices.claim(key(), port(1)).unwrap();
        assert_eq!(devices.claim(key(), port(2)).unwrap_err(), port(1));
        drop(claim);
        assert!(devices.claim(key(), port(2)).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn a_pattern_without_magic_fits_itself_and_nothing_else(path in "/[a-z/]{0,12}", other in "/[a-z/]{0,12}") {
            proptest::prop_assert_eq!(matches(&path, &other), path == other);
        }

        #[test]
        fn a_star_between_two_parts_takes_what_lies_between(
            head in "[a-z]{0,4}", middle in "[a-z]{0,6}", tail in "[a-z]{0,4}",
        ) {
            let (pattern, path) = (format!("{head}*{tail}"), format!("{head}{middle}{tail}"));
            proptest::prop_assert!(matches(&pattern, &path));
        }
    }
}
