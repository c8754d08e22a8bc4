//! The description of one setting, and the macro that makes struct, reader and description from one table.

use serde::Serialize;

use super::form::Form;
use super::quantity::Bounds;

/// A program of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Binary {
    /// `ssh-mcp`, MCP over HTTP.
    Http,
    /// `ssh-mcp-stdio`, MCP over standard input and output.
    Stdio,
    /// `ssh-mcp-tail`, lines of JSON for other programs.
    Tail,
}

/// Whether a setting does something, and if not, why it is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It is read.
    Used,
    /// No external program is started.
    NoPrograms,
    /// Wake-ups merge, so there is no queue to size.
    NoCapacity,
    /// Lanes wait for a client's turn with what they have, so nothing waits behind it.
    NoOutbox,
}

impl Effect {
    /// Why nothing reads the setting, or `None` if something does.
    pub fn why_unused(self) -> Option<&'static str> {
        match self {
            Self::Used => None,
            Self::NoPrograms => Some("no external program is used"),
            Self::NoCapacity => Some("there is no queue of that kind"),
            Self::NoOutbox => Some("one message waits behind a client, the rest in its lanes"),
        }
    }
}

/// Another name under which a setting is accepted; the main name wins where both are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Alias {
    /// Equally good.
    Also(&'static str),
    /// Accepted with a line in the log.
    Deprecated(&'static str),
    /// Equally good, but its number must say its unit.
    WithUnit(&'static str),
}

impl Alias {
    /// The name itself.
    pub fn name(self) -> &'static str {
        match self {
            Self::Also(name) | Self::Deprecated(name) | Self::WithUnit(name) => name,
        }
    }
}

/// One setting as documentation and tests see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Name of the environment variable, or of the flag where there is no variable.
    pub name: &'static str,
    /// Chapter of the documentation.
    pub group: &'static str,
    /// What it means, in a sentence or two.
    pub meaning: &'static str,
    /// Programs that read it.
    pub binaries: &'static [Binary],
    /// Flag that overrides it.
    pub flag: Option<&'static str>,
    /// Tool parameter that overrides it.
    pub parameter: Option<&'static str>,
    /// Other names.
    pub aliases: Vec<Alias>,
    /// Whether something reads it.
    pub effect: Effect,
    /// Kind of value, in a word.
    pub kind: &'static str,
    /// Built-in default as it would be written.
    pub default: String,
    /// What is accepted.
    pub range: String,
    /// The numbers behind `range`, where there are any.
    #[serde(skip)]
    pub bounds: Option<Bounds>,
}

/// A row of the table with its typed form.
pub(super) struct Spec<F> {
    pub(super) row: Row,
    pub(super) form: F,
}

impl<F: Form> Spec<F> {
    pub(super) fn new(
        group: &'static str,
        meaning: &'static str,
        name: &'static str,
        binaries: &'static [Binary],
        form: F,
    ) -> Self {
        let row = Row {
            name,
            group,
            meaning: meaning.trim(),
            binaries,
            flag: None,
            parameter: None,
            aliases: Vec::new(),
            effect: Effect::Used,
            kind: form.kind(),
            default: form.default_text(),
            range: form.range(),
            bounds: form.bounds(),
        };
        Self { row, form }
    }

    pub(super) fn parameter(mut self, parameter: &'static str) -> Self {
        self.row.parameter = Some(parameter);
        self
    }

    pub(super) fn flag(mut self, flag: &'static str) -> Self {
        self.row.flag = Some(flag);
        self
    }

    pub(super) fn or(mut self, name: &'static str) -> Self {
        self.row.aliases.push(Alias::Also(name));
        self
    }

    pub(super) fn deprecated(mut self, name: &'static str) -> Self {
        self.row.aliases.push(Alias::Deprecated(name));
        self
    }

    pub(super) fn with_unit(mut self, name: &'static str) -> Self {
        self.row.aliases.push(Alias::WithUnit(name));
        self
    }

    pub(super) fn unused(mut self, effect: Effect) -> Self {
        self.row.effect = effect;
        self
    }
}

pub(super) const H: &[Binary] = &[Binary::Http];
pub(super) const T: &[Binary] = &[Binary::Tail];
pub(super) const HS: &[Binary] = &[Binary::Http, Binary::Stdio];
pub(super) const HST: &[Binary] = &[Binary::Http, Binary::Stdio, Binary::Tail];

/// Makes `Settings`, its reader and the list of rows from one table, so that none of them can miss a row.
macro_rules! settings {
    ($($group:literal: $(
        $(#[doc = $meaning:literal])+
        $field:ident: $type:ty = $binaries:ident, $name:literal, $form:expr, $(.$attribute:ident($argument:expr))*;
    )+)+) => {
        /// All settings of one process, resolved; made once at start and shared.
        #[derive(Clone)]
        pub struct Settings {$($(
            $(#[doc = $meaning])+
            pub $field: $type,
        )+)+}

        impl Settings {
            fn read(reader: &mut reader::Reader<'_>) -> Self {
                $($(
                    let $field: $type = reader.take(
                        Spec::new($group, concat!($($meaning),+), $name, $binaries, $form)
                            $(.$attribute($argument))*,
                    );
                )+)+
                Self { $($($field),+),+ }
            }
        }
    };
}
pub(super) use settings;
