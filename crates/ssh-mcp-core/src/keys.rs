//! Named keys and the bytes they send: of a terminal in xterm's encoding (ECMA-48 sequences, `1;<modifier>` form), and of a
//! serial line as a plain terminal on its far end would send them.

/// A key by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(&'static Row);

/// Modifiers held while a key is pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Modifiers {
    /// Shift.
    pub shift: bool,
    /// Alt, called Meta by some.
    pub alt: bool,
    /// Control.
    pub ctrl: bool,
}

/// The key does not take these modifiers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} takes {allowed}")]
pub struct ModifierNotAllowed {
    /// The key.
    pub key: &'static str,
    /// What it takes, for a person.
    pub allowed: &'static str,
}

impl Key {
    /// The key of that name.
    pub fn parse(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.name == name).map(Self)
    }

    /// Every name, in the order of the catalogue.
    pub fn names() -> impl Iterator<Item = &'static str> {
        TABLE.iter().map(|row| row.name)
    }

    /// The name.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// The bytes the key sends.
    ///
    /// # Errors
    /// If the key does not take one of the modifiers.
    pub fn bytes(self, modifiers: Modifiers) -> Result<Vec<u8>, ModifierNotAllowed> {
        let refuse = |allowed| Err(ModifierNotAllowed { key: self.0.name, allowed });
        let plain = modifiers == Modifiers::default();
        match self.0.form {
            Form::Bytes(bytes) if plain => Ok(bytes.to_vec()),
            Form::Bytes(_) => refuse("no modifier"),
            Form::Tab if plain => Ok(b"\t".to_vec()),
            Form::Tab if modifiers == (Modifiers { shift: true, ..Modifiers::default() }) => {
                Ok(b"\x1b[Z".to_vec())
            }
            Form::Tab => refuse("shift only"),
            Form::Letter { letter, lead } if plain => Ok(format!("\x1b{lead}{letter}").into_bytes()),
            Form::Letter { letter, .. } => {
                Ok(format!("\x1b[1;{}{letter}", modifiers.parameter()).into_bytes())
            }
            Form::Number(number) if plain => Ok(format!("\x1b[{number}~").into_bytes()),
            Form::Number(number) => Ok(format!("\x1b[{number};{}~", modifiers.parameter()).into_bytes()),
        }
    }
}

impl Modifiers {
    /// The words of the modifiers held, in the order shift, alt, ctrl.
    pub fn words(self) -> Vec<&'static str> {
        let all = [(self.shift, "shift"), (self.alt, "alt"), (self.ctrl, "ctrl")];
        all.into_iter().filter(|(held, _)| *held).map(|(_, word)| word).collect()
    }

    /// xterm's parameter: one more than the sum of shift 1, alt 2 and control 4.
    fn parameter(self) -> u8 {
        1 + u8::from(self.shift) + 2 * u8::from(self.alt) + 4 * u8::from(self.ctrl)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    name: &'static str,
    form: Form,
}

#[derive(Debug, PartialEq, Eq)]
enum Form {
    /// Fixed bytes, no modifier.
    Bytes(&'static [u8]),
    /// Tab: shift makes it back-tab.
    Tab,
    /// `ESC <lead> <letter>`, with modifiers `ESC [ 1 ; m <letter>`.
    Letter { letter: char, lead: char },
    /// `ESC [ <number> ~`, with modifiers `ESC [ <number> ; m ~`.
    Number(u8),
}

const fn bytes(name: &'static str, bytes: &'static [u8]) -> Row {
    Row { name, form: Form::Bytes(bytes) }
}

const fn csi(name: &'static str, letter: char) -> Row {
    Row { name, form: Form::Letter { letter, lead: '[' } }
}

const fn ss3(name: &'static str, letter: char) -> Row {
    Row { name, form: Form::Letter { letter, lead: 'O' } }
}

const fn number(name: &'static str, number: u8) -> Row {
    Row { name, form: Form::Number(number) }
}

const TABLE: &[Row] = &[
    bytes("ctrl_a", b"\x01"),
    bytes("ctrl_c", b"\x03"),
    bytes("ctrl_d", b"\x04"),
    bytes("ctrl_e", b"\x05"),
    bytes("ctrl_k", b"\x0b"),
    bytes("ctrl_l", b"\x0c"),
    bytes("ctrl_r", b"\x12"),
    bytes("ctrl_u", b"\x15"),
    bytes("ctrl_w", b"\x17"),
    bytes("ctrl_z", b"\x1a"),
    bytes("enter", b"\r"),
    Row { name: "tab", form: Form::Tab },
    bytes("escape", b"\x1b"),
    bytes("backspace", b"\x7f"),
    bytes("space", b" "),
    number("delete", 3),
    csi("arrow_up", 'A'),
    csi("arrow_down", 'B'),
    csi("arrow_left", 'D'),
    csi("arrow_right", 'C'),
    csi("home", 'H'),
    csi("end", 'F'),
    number("page_up", 5),
    number("page_down", 6),
    number("insert", 2),
    ss3("f1", 'P'),
    ss3("f2", 'Q'),
    ss3("f3", 'R'),
    ss3("f4", 'S'),
    number("f5", 15),
    number("f6", 17),
    number("f7", 18),
    number("f8", 19),
    number("f9", 20),
    number("f10", 21),
    number("f11", 23),
    number("f12", 24),
];

/// A key on a serial line, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineKey {
    /// One that sends bytes.
    Bytes(&'static str, &'static [u8]),
    /// The line is held low.
    Break,
}

impl LineKey {
    /// The key of that name, in any letter case.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let named = |key: &&(&'static str, &'static [u8])| key.0 == name;
        match LINE_TABLE.iter().find(named) {
            Some((name, bytes)) => Some(Self::Bytes(name, bytes)),
            None if name == BREAK => Some(Self::Break),
            None => None,
        }
    }

    /// Every name.
    pub fn names() -> impl Iterator<Item = &'static str> {
        LINE_TABLE.iter().map(|(name, _)| *name).chain([BREAK])
    }

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes(name, _) => name,
            Self::Break => BREAK,
        }
    }
}

const BREAK: &str = "break";

/// Backspace is BS here and DEL has a name of its own: firmware tells them apart.
const LINE_TABLE: &[(&str, &[u8])] = &[
    ("enter", b"\r"),
    ("cr", b"\r"),
    ("lf", b"\n"),
    ("crlf", b"\r\n"),
    ("esc", b"\x1b"),
    ("tab", b"\t"),
    ("space", b" "),
    ("backspace", b"\x08"),
    ("delete", b"\x7f"),
    ("arrow_up", b"\x1b[A"),
    ("arrow_down", b"\x1b[B"),
    ("arrow_right", b"\x1b[C"),
    ("arrow_left", b"\x1b[D"),
    ("ctrl_]", b"\x1d"),
    ("ctrl_a", b"\x01"),
    ("ctrl_b", b"\x02"),
    ("ctrl_c", b"\x03"),
    ("ctrl_d", b"\x04"),
    ("ctrl_e", b"\x05"),
    ("ctrl_f", b"\x06"),
    ("ctrl_g", b"\x07"),
    ("ctrl_h", b"\x08"),
    ("ctrl_i", b"\x09"),
    ("ctrl_j", b"\x0a"),
    ("ctrl_k", b"\x0b"),
    ("ctrl_l", b"\x0c"),
    ("ctrl_m", b"\x0d"),
    ("ctrl_n", b"\x0e"),
    ("ctrl_o", b"\x0f"),
    ("ctrl_p", b"\x10"),
    ("ctrl_q", b"\x11"),
    ("ctrl_r", b"\x12"),
    ("ctrl_s", b"\x13"),
    ("ctrl_t", b"\x14"),
    ("ctrl_u", b"\x15"),
    ("ctrl_v", b"\x16"),
    ("ctrl_w", b"\x17"),
    ("ctrl_x", b"\x18"),
    ("ctrl_y", b"\x19"),
    ("ctrl_z", b"\x1a"),
];

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_serial_line() {
        let bytes = |name: &str| match LineKey::parse(name) {
            Some(LineKey::Bytes(_, bytes)) => Some(bytes),
            Some(LineKey::Break) | None => None,
        };
        assert_eq!(bytes("Enter"), Some(b"\r".as_slice()));
        assert_eq!(bytes("CRLF"), Some(b"\r\n".as_slice()));
        assert_eq!(
            (bytes("backspace"), bytes("delete")),
            (Some(b"\x08".as_slice()), Some(b"\x7f".as_slice()))
        );
        assert_eq!(
            (bytes("arrow_up"), bytes("arrow_left")),
            (Some(b"\x1b[A".as_slice()), Some(b"\x1b[D".as_slice()))
        );
        assert_eq!(bytes("ctrl_]"), Some(b"\x1d".as_slice()));
        for (number, letter) in (1..).zip('a'..='z') {
            assert_eq!(bytes(&format!("CTRL_{letter}")), Some([number].as_slice()), "{letter}");
        }
        assert_eq!(LineKey::parse("Break"), Some(LineKey::Break));
        assert_eq!(LineKey::parse("f1"), None);
        let names: std::collections::HashSet<_> = LineKey::names().collect();
        assert_eq!(names.len(), LINE_TABLE.len() + 1);
    }

    const NONE: Modifiers = Modifiers { shift: false, alt: false, ctrl: false };

    fn check(name: &str, modifiers: Modifiers, expected: Option<&[u8]>) {
        let bytes = Key::parse(name).unwrap().bytes(modifiers).ok();
        assert_eq!(bytes.as_deref(), expected, "{name} {modifiers:?}");
    }

    #[test]
    fn keys_without_modifiers() {
        check("enter", NONE, Some(b"\r"));
        check("backspace", NONE, Some(b"\x7f"));
        check("ctrl_c", NONE, Some(b"\x03"));
        check("arrow_up", NONE, Some(b"\x1b[A"));
        check("home", NONE, Some(b"\x1b[H"));
        check("delete", NONE, Some(b"\x1b[3~"));
        check("f1", NONE, Some(b"\x1bOP"));
        check("f5", NONE, Some(b"\x1b[15~"));
        check("f12", NONE, Some(b"\x1b[24~"));
    }

    #[test]
    fn modified_keys_take_the_parameter_form() {
        check("arrow_right", Modifiers { ctrl: true, ..NONE }, Some(b"\x1b[1;5C"));
        check("f1", Modifiers { shift: true, ..NONE }, Some(b"\x1b[1;2P"));
        check("page_up", Modifiers { shift: true, alt: true, ctrl: true }, Some(b"\x1b[5;8~"));
        check("tab", Modifiers { shift: true, ..NONE }, Some(b"\x1b[Z"));
    }

    #[test]
    fn keys_that_take_no_or_only_some_modifiers() {
        check("tab", Modifiers { ctrl: true, ..NONE }, None);
        check("enter", Modifiers { shift: true, ..NONE }, None);
        check("ctrl_c", Modifiers { alt: true, ..NONE }, None);
    }

    #[test]
    fn names_are_unique_and_unknown_ones_are_refused() {
        let names: std::collections::HashSet<_> = Key::names().collect();
        assert_eq!(names.len(), 37);
        assert_eq!(Key::parse("Enter"), None);
    }
}
