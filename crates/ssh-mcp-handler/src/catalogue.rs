//! Which tools exist for a client: the rows of this build, less what the operator left out with `SSH_MCP_TOOLSETS`.
//!
//! The one filter over names: `tools/list`, `tools/call`, HINT and NEXT lines, instructions and templates all ask here, so
//! nothing is ever named that is not listed.

use std::sync::{Arc, OnceLock};

use rmcp::model::{CallToolResult, JsonObject, Tool};
use ssh_mcp_core::{
    code::Code,
    settings::Settings,
    text,
    uri::{self, Scheme},
};

use crate::{
    failure::Failure,
    legacy,
    reply::{self, Form},
    schema,
    tools::{self, Effect, Row, Set},
};

/// The tools that are listed.
pub(crate) struct Catalogue {
    settings: Arc<Settings>,
    listed: Vec<&'static Row>,
    /// Made at the first request that needs them, so that a start costs nothing.
    entries: OnceLock<Vec<Entry>>,
    /// The tools that are shown in place of those, if the operator wants an older system's.
    old: OnceLock<Vec<Entry>>,
}

/// A tool that can be called.
pub(crate) struct Entry {
    /// What a client sees of it.
    pub(crate) face: Face,
    /// The row behind it: what it does to the world, and whether it honours an idempotency key.
    pub(crate) row: &'static Row,
    /// The schema of its arguments.
    pub(crate) input: Arc<JsonObject>,
}

/// What a client sees of a tool.
#[derive(Clone, Copy)]
pub(crate) enum Face {
    /// The tool itself.
    New(&'static Row),
    /// A tool of an older system.
    Old(&'static legacy::Tool),
}

impl Face {
    /// The name it is called by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::New(row) => row.name,
            Self::Old(tool) => tool.name,
        }
    }

    /// What it is said to do.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::New(row) => row.description,
            Self::Old(tool) => tool.description,
        }
    }

    /// Its name for people.
    fn title(self) -> &'static str {
        match self {
            Self::New(row) => row.title,
            Self::Old(tool) => tool.title,
        }
    }

    /// The arguments it takes and its list leaves out.
    fn unshown(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::New(row) => row.unshown(),
            Self::Old(_) => &[],
        }
    }

    /// The schema of its answers.
    fn output(self) -> JsonObject {
        match self {
            Self::New(row) => reply::or_error((row.call.output)(row.name)),
            Self::Old(tool) => tool.output(),
        }
    }

    /// A failure in its own words.
    pub(crate) fn error(self, failure: Failure, form: Form) -> CallToolResult {
        match self {
            Self::New(row) => failure.into_result(row.name, form),
            Self::Old(tool) => tool.error(failure, form),
        }
    }
}

impl Catalogue {
    /// The catalogue under these settings; names in `SSH_MCP_TOOLSETS` that mean nothing are passed over.
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        let (listed, _) = listed(&settings.toolsets);
        Self { settings, listed, entries: OnceLock::new(), old: OnceLock::new() }
    }

    /// Whether a tool of this version is listed.
    pub(crate) fn has(&self, tool: &str) -> bool {
        !self.is_legacy() && self.listed.iter().any(|row| row.name == tool)
    }

    /// How many tools are listed.
    pub(crate) fn count(&self) -> usize {
        if self.is_legacy() { self.entries().len() } else { self.listed.len() }
    }

    /// Whether an older system's tools are listed in place of this version's.
    pub(crate) fn is_legacy(&self) -> bool {
        legacy::tools(self.settings.legacy_tools).is_some()
    }

    /// The listed tools, in order.
    pub(crate) fn entries(&self) -> &[Entry] {
        let Some(tools) = legacy::tools(self.settings.legacy_tools) else { return self.own_entries() };
        self.old.get_or_init(|| {
            let entry = |tool: &&'static legacy::Tool| {
                let calls: Option<Vec<&Entry>> = tool.calls.iter().map(|name| self.own(name)).collect();
                let first = *calls?.first()?;
                let input = Arc::new(tool.input(|name| self.own(name).map(|entry| &*entry.input))?);
                Some(Entry { face: Face::Old(tool), row: first.row, input })
            };
            tools.iter().filter_map(entry).collect()
        })
    }

    /// A tool of this version that the operator has not left out, listed or not.
    pub(crate) fn own(&self, name: &str) -> Option<&Entry> {
        self.own_entries().iter().find(|entry| entry.row.name == name)
    }

    fn own_entries(&self) -> &[Entry] {
        let entry = |row: &&'static Row| Entry {
            face: Face::New(row),
            row,
            input: Arc::new((row.call.input)(&self.settings)),
        };
        self.entries.get_or_init(|| self.listed.iter().map(entry).collect())
    }

    /// A tool as `tools/list` shows it; not kept, because a client asks once and the schemas of answers are large.
    pub(crate) fn shown(&self, entry: &Entry) -> Tool {
        let input = Arc::new(schema::shown(&entry.input, entry.face.unshown()));
        let tool = Tool::new(entry.face.name(), entry.face.description(), input)
            .with_annotations(entry.row.annotations());
        let tool = tool.with_title(entry.face.title());
        match self.form() {
            Form::Both => tool.with_raw_output_schema(Arc::new(entry.face.output())),
            Form::Text => tool,
        }
    }

    /// The schemes that some listed tool makes resources of, in the order of the templates.
    pub(crate) fn schemes(&self) -> impl Iterator<Item = &'static uri::Row> {
        uri::TABLE.iter().filter(|row| self.makes(row.scheme))
    }

    /// Whether some listed tool makes resources of this kind.
    pub(crate) fn makes(&self, scheme: Scheme) -> bool {
        // A session is made by whatever connects, and whatever else there is needs one, serial ports aside.
        let needs_session = |made: Option<Scheme>| made.is_some_and(|made| made != Scheme::Serial);
        self.listed
            .iter()
            .any(|row| row.makes == Some(scheme) || (scheme == Scheme::Session && needs_session(row.makes)))
    }

    /// Whether answers have a structured form.
    pub(crate) fn form(&self) -> Form {
        if self.settings.structured_content { Form::Both } else { Form::Text }
    }

    /// The tool of that name.
    ///
    /// # Errors
    /// [`NoTool::Unknown`] if there is none, [`NoTool::Absent`] if another build has it, [`NoTool::LeftOut`] if the operator
    /// left it out.
    pub(crate) fn find(&self, name: &str) -> Result<&Entry, NoTool> {
        if let Some(entry) = self.entries().iter().find(|entry| entry.face.name() == name) {
            return Ok(entry);
        }
        let row = |name: &str| tools::rows().find(|row| row.name == name);
        let (face, row) = match legacy::tools(self.settings.legacy_tools) {
            None => row(name).map(|row| (Face::New(row), row)).ok_or_else(|| absent(name))?,
            Some(old) => {
                let since = legacy::renamed(self.settings.legacy_tools, name);
                if let Some(entry) = since.and_then(|name| self.own(&name)) {
                    return Ok(entry);
                }
                let tool = old.iter().find(|tool| tool.name == name).ok_or_else(|| absent(name))?;
                let missing =
                    tool.calls.iter().find(|name| self.own(name).is_none()).ok_or(NoTool::Unknown)?;
                (Face::Old(tool), row(missing).ok_or(NoTool::Unknown)?)
            }
        };
        let set = row.sets.first().map_or("all", |set| set.as_str());
        let failure =
            Failure::new(Code::FeatureDisabled, format!("{name} is left out of this server's tool sets"))
                .with_context(format!("set={set}"));
        Err(NoTool::LeftOut(face, Box::new(failure)))
    }
}

/// A name this build has no tool for.
fn absent(name: &str) -> NoTool {
    match tools::ABSENT.iter().find(|(absent, _)| *absent == name) {
        None => NoTool::Unknown,
        Some((_, feature)) => {
            let failure = Failure::new(Code::FeatureDisabled, format!("this build has no {name}"));
            NoTool::Absent(Box::new(failure.with_context(format!("feature={feature}"))))
        }
    }
}

/// Why a name is no tool that can be called.
pub(crate) enum NoTool {
    /// Nothing has that name.
    Unknown,
    /// Another build has it; what to answer.
    Absent(Box<Failure>),
    /// The operator left it out; what to answer, as what.
    LeftOut(Face, Box<Failure>),
}

/// A word in `SSH_MCP_TOOLSETS` that names neither a set nor a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownToolset {
    /// The word.
    pub word: String,
    /// The nearest word that would mean something.
    pub nearest: Option<String>,
}

impl std::fmt::Display for UnknownToolset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is neither a tool set nor a tool", text::one_line(&self.word))?;
        match &self.nearest {
            Some(nearest) => write!(f, "; the nearest is {nearest}"),
            None => Ok(()),
        }
    }
}

/// What is wrong with a value of `SSH_MCP_TOOLSETS`; such words are passed over when the server runs.
pub fn unknown_toolsets(toolsets: &[String]) -> Vec<UnknownToolset> {
    listed(toolsets).1
}

/// The tools a list of words leaves, in catalogue order: words put in, words with `-` in front take out, from left to
/// right. A list that only takes out starts from everything.
fn listed(toolsets: &[String]) -> (Vec<&'static Row>, Vec<UnknownToolset>) {
    let words = toolsets.iter().map(|word| word.trim().to_ascii_lowercase().replace(' ', ""));
    let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
    let mut unknown = Vec::new();
    let from_all = words.iter().all(|word| word.starts_with('-'));
    let mut kept: Vec<(&'static Row, Membership)> =
        tools::rows().map(|row| (row, if from_all { Membership::In } else { Membership::Out })).collect();
    for word in &words {
        let (name, membership) = match word.strip_prefix('-') {
            Some(name) => (name, Membership::Out),
            None => (word.as_str(), Membership::In),
        };
        let mut meant = false;
        for (row, now) in &mut kept {
            if belongs(row, name) {
                *now = membership;
                meant = true;
            }
        }
        if !meant && !SETS.contains(&name) && !is_of_another_build(name) {
            let known = SETS.iter().copied().chain(tools::rows().map(|row| row.name));
            let nearest = text::nearest(name, known, 1).first().map(|nearest| (*nearest).to_owned());
            unknown.push(UnknownToolset { word: word.clone(), nearest });
        }
    }
    let kept = kept.into_iter().filter(|(_, membership)| *membership == Membership::In);
    (kept.map(|(row, _)| row).collect(), unknown)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Membership {
    In,
    Out,
}

/// The sets that tools of this build belong to.
const SETS: &[&str] = &[
    "all",
    "core",
    "read_only",
    "connection",
    "exec",
    "shell",
    "transfer",
    "rsync",
    #[cfg(feature = "port_forward")]
    "forward",
    "sub",
    "serial",
];

/// Families of tools that other builds have; an operator's list may name them.
const OTHER_SETS: &[&str] = &["forward"];

fn is_of_another_build(name: &str) -> bool {
    OTHER_SETS.contains(&name) || tools::ABSENT.iter().any(|(absent, _)| *absent == name)
}

fn belongs(row: &Row, name: &str) -> bool {
    match name {
        "all" => true,
        "read_only" => row.effect == Effect::ReadOnly,
        name => row.name == name || row.sets.iter().copied().map(Set::as_str).any(|set| set == name),
    }
}

#[cfg(test)]
mod tests;
