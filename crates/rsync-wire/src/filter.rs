//! Filter rules as a client writes them.
//!
//! The list goes at the start of the client's framed data: always if the server sends; if it receives, only if it was told to
//! delete or to leave out empty directories. [`Options::is_filter_list_sent`](crate::command::Options::is_filter_list_sent) says which. A server
//! applies every rule it is given, whichever side the rule names, so the client sends only those that are meant for it. The
//! layout is in `docs/rsync-wire.md`, *Filter list*. Which names a pattern matches is not decided here.

use crate::varint::put_int32;

/// A rule: the first whose pattern matches a name decides about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What becomes of a name that matches.
    pub action: Action,
    /// Whom the rule is for.
    pub side: Side,
    /// What else is said about the rule.
    pub modifiers: Modifiers,
    /// The pattern. One that ends with `/` is about directories only.
    pub pattern: Vec<u8>,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The name is left out.
    Exclude,
    /// The name is taken.
    Include,
}

/// Whom a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// No side is named: for both, unless excluded files are deleted, which makes it a rule for the sender.
    Unnamed,
    /// The sender: *hide* and *show*.
    Sender,
    /// The receiving side: *protect* and *risk*.
    Receiver,
    /// Both are named.
    Both,
}

/// What else is said about a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Modifiers {
    /// `/`: the pattern is compared with the absolute path.
    pub absolute: bool,
    /// `!`: names that do not match are meant.
    pub negated: bool,
    /// `p`: does not hold inside of a directory that is being deleted.
    pub perishable: bool,
}

/// Which part the server has in a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerRole {
    /// It sends: a download.
    Sender,
    /// It receives: an upload.
    Receiver,
}

/// What becomes of excluded files at the receiving side when others are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Excluded {
    /// They stay.
    Kept,
    /// They are deleted as well (`--delete-excluded`).
    Deleted,
}

/// Why a rule cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The pattern has no byte.
    #[error("filter rule without a pattern")]
    NoPattern,
    /// The pattern has a NUL byte.
    #[error("filter rule with a NUL byte")]
    Nul,
    /// The text is longer than [`RULE_MAX`].
    #[error("filter rule of {0} bytes")]
    TooLong(usize),
}

/// The longest text of a rule, in bytes.
pub const RULE_MAX: usize = 5119;

impl Rule {
    /// A rule without side and modifiers.
    #[must_use]
    pub fn new(action: Action, pattern: impl Into<Vec<u8>>) -> Self {
        Self { action, side: Side::Unnamed, modifiers: Modifiers::default(), pattern: pattern.into() }
    }

    /// The rule by which partial files in a directory of their own stay where they are.
    #[must_use]
    pub fn of_partial_dir(name: &[u8]) -> Self {
        let modifiers = Modifiers { perishable: true, ..Modifiers::default() };
        Self { modifiers, ..Self::new(Action::Exclude, [name, b"/"].concat()) }
    }

    /// The rule concerns a server in this role and is to be sent to it.
    #[must_use]
    pub fn is_for(&self, server: ServerRole, excluded: Excluded) -> bool {
        match (self.side, excluded, server) {
            (Side::Both, _, _) | (Side::Unnamed, Excluded::Kept, _) => true,
            (Side::Sender, _, role) | (Side::Unnamed, Excluded::Deleted, role) => role == ServerRole::Sender,
            (Side::Receiver, _, role) => role == ServerRole::Receiver,
        }
    }

    /// The rule as text: operator, modifiers, blank, pattern.
    ///
    /// # Errors
    /// The pattern is none, or the text is too long.
    pub fn to_text(&self) -> Result<Vec<u8>, FilterError> {
        if self.pattern.is_empty() {
            return Err(FilterError::NoPattern);
        }
        if self.pattern.contains(&0) {
            return Err(FilterError::Nul);
        }
        let Modifiers { absolute, negated, perishable } = self.modifiers;
        let is_sender = matches!(self.side, Side::Sender | Side::Both);
        let is_receiver = matches!(self.side, Side::Receiver | Side::Both);
        let mut text = vec![match self.action {
            Action::Exclude => b'-',
            Action::Include => b'+',
        }];
        for (is_said, letter) in
            [(absolute, b'/'), (negated, b'!'), (is_sender, b's'), (is_receiver, b'r'), (perishable, b'p')]
        {
            if is_said {
                text.push(letter);
            }
        }
        text.push(b' ');
        text.extend_from_slice(&self.pattern);
        if text.len() > RULE_MAX { Err(FilterError::TooLong(text.len())) } else { Ok(text) }
    }
}

/// Appends the rules that are for the server, and the end of the list.
///
/// # Errors
/// A rule that is for the server cannot be sent; nothing was written.
pub fn put_filter_list(
    out: &mut Vec<u8>,
    rules: &[Rule],
    server: ServerRole,
    excluded: Excluded,
) -> Result<(), FilterError> {
    let mut list = Vec::new();
    for rule in rules.iter().filter(|rule| rule.is_for(server, excluded)) {
        let text = rule.to_text()?;
        put_int32(&mut list, text.len() as i32);
        list.extend_from_slice(&text);
    }
    put_int32(&mut list, 0);
    out.append(&mut list);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(rule: &Rule) -> String {
        String::from_utf8(rule.to_text().unwrap()).unwrap()
    }

    fn sided(side: Side) -> Rule {
        Rule { side, ..Rule::new(Action::Exclude, "x") }
    }

    #[test]
    fn a_list_is_that_of_the_example() {
        let check = |rules: &[Rule], expected: &[u8]| {
            let mut out = b"before".to_vec();
            put_filter_list(&mut out, rules, ServerRole::Sender, Excluded::Kept).unwrap();
            assert_eq!(out, [b"before", expected].concat());
        };
        check(&[], &[0; 4]);
        check(&[Rule::new(Action::Exclude, "keep")], b"\x06\0\0\0- keep\0\0\0\0");
        let rules = [Rule::new(Action::Include, "a/"), sided(Side::Receiver), sided(Side::Sender)];
        check(&rules, b"\x04\0\0\0+ a/\x04\0\0\0-s x\0\0\0\0");
    }

    #[test]
    fn modifiers_stand_before_the_blank() {
        assert_eq!(text(&sided(Side::Sender)), "-s x");
        assert_eq!(text(&sided(Side::Receiver)), "-r x");
        assert_eq!(text(&sided(Side::Both)), "-sr x");
        assert_eq!(text(&Rule::of_partial_dir(b".part")), "-p .part/");
        let modifiers = Modifiers { absolute: true, negated: true, perishable: true };
        assert_eq!(text(&Rule { modifiers, ..Rule::new(Action::Include, " y ") }), "+/!p  y ");
    }

    #[test]
    fn a_server_is_sent_only_the_rules_for_it() {
        use Excluded::{Deleted, Kept};
        use ServerRole::{Receiver, Sender};
        for (side, expected) in [
            (Side::Unnamed, [true, true, true, false]),
            (Side::Sender, [true, true, false, false]),
            (Side::Receiver, [false, false, true, true]),
            (Side::Both, [true, true, true, true]),
        ] {
            let cases = [(Sender, Kept), (Sender, Deleted), (Receiver, Kept), (Receiver, Deleted)];
            let found = cases.map(|(server, excluded)| sided(side).is_for(server, excluded));
            assert_eq!(found, expected, "{side:?}");
        }
    }

    #[test]
    fn rules_that_cannot_be_sent() {
        let check = |pattern: Vec<u8>, expected: Result<(), FilterError>| {
            let rules = [Rule::new(Action::Exclude, "a"), Rule::new(Action::Exclude, pattern)];
            let mut out = Vec::new();
            let found = put_filter_list(&mut out, &rules, ServerRole::Receiver, Excluded::Kept);
            assert_eq!(found, expected);
            assert_eq!(out.is_empty(), expected.is_err(), "a failed call writes nothing");
        };
        check(Vec::new(), Err(FilterError::NoPattern));
        check(b"a\0".to_vec(), Err(FilterError::Nul));
        check(vec![b'x'; RULE_MAX - 2], Ok(()));
        check(vec![b'x'; RULE_MAX - 1], Err(FilterError::TooLong(RULE_MAX + 1)));
    }
}
