//! Which tools exist for a client: the rows of this build, less what the operator left out with `SSH_MCP_TOOLSETS`.
//!
//! The one filter over names: `tools/list`, `tools/call`, HINT and NEXT lines, instructions and templates all ask here, so
//! nothing is ever named that is not listed.

use std::sync::{Arc, OnceLock};

use rmcp::model::{JsonObject, Tool};
use ssh_mcp_core::{
    code::Code,
    settings::Settings,
    text,
    uri::{self, Scheme},
};

use crate::{
    failure::Failure,
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
}

/// A listed tool.
pub(crate) struct Entry {
    /// The row.
    pub(crate) row: &'static Row,
    /// The schema of its arguments.
    pub(crate) input: Arc<JsonObject>,
}

impl Catalogue {
    /// The catalogue under these settings; names in `SSH_MCP_TOOLSETS` that mean nothing are passed over.
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        let (listed, _) = listed(&settings.toolsets);
        Self { settings, listed, entries: OnceLock::new() }
    }

    /// Whether a tool is listed.
    pub(crate) fn has(&self, tool: &str) -> bool {
        self.listed.iter().any(|row| row.name == tool)
    }

    /// The listed rows, in order.
    pub(crate) fn rows(&self) -> &[&'static Row] {
        &self.listed
    }

    /// The listed tools, in order.
    pub(crate) fn entries(&self) -> &[Entry] {
        let entry = |row: &&'static Row| Entry { row, input: Arc::new((row.call.input)(&self.settings)) };
        self.entries.get_or_init(|| self.listed.iter().map(entry).collect())
    }

    /// A tool as `tools/list` shows it; not kept, because a client asks once and the schemas of answers are large.
    pub(crate) fn shown(&self, entry: &Entry) -> Tool {
        let row = entry.row;
        let tool = Tool::new(row.name, row.description, Arc::new(schema::shown(&entry.input, row.unshown())))
            .with_title(row.title)
            .with_annotations(row.annotations());
        match self.form() {
            Form::Both => tool.with_raw_output_schema(Arc::new(reply::or_error((row.call.output)(row.name)))),
            Form::Text => tool,
        }
    }

    /// The schemes that some listed tool makes resources of, in the order of the templates.
    pub(crate) fn schemes(&self) -> impl Iterator<Item = &'static uri::Row> {
        uri::TABLE.iter().filter(|row| self.makes(row.scheme))
    }

    /// Whether some listed tool makes resources of this kind.
    pub(crate) fn makes(&self, scheme: Scheme) -> bool {
        // A session is made by whatever connects, and whatever else there is needs one.
        self.listed
            .iter()
            .any(|row| row.makes == Some(scheme) || (scheme == Scheme::Session && row.makes.is_some()))
    }

    /// Whether answers have a structured form.
    pub(crate) fn form(&self) -> Form {
        if self.settings.structured_content { Form::Both } else { Form::Text }
    }

    /// The tool of that name.
    ///
    /// # Errors
    /// [`NoTool::Unknown`] if this build has none, [`NoTool::LeftOut`] if the operator left it out.
    pub(crate) fn find(&self, name: &str) -> Result<&Entry, NoTool> {
        if let Some(entry) = self.entries().iter().find(|entry| entry.row.name == name) {
            return Ok(entry);
        }
        let row = tools::rows().find(|row| row.name == name).ok_or(NoTool::Unknown)?;
        let set = row.sets.first().map_or("all", |set| set.as_str());
        let failure =
            Failure::new(Code::FeatureDisabled, format!("{name} is left out of this server's tool sets"))
                .with_context(format!("set={set}"));
        Err(NoTool::LeftOut(row, Box::new(failure)))
    }
}

/// Why a name is no tool that can be called.
pub(crate) enum NoTool {
    /// This build has none of that name.
    Unknown,
    /// The operator left it out; what to answer.
    LeftOut(&'static Row, Box<Failure>),
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
const SETS: &[&str] = &["all", "core", "read_only", "connection", "exec", "shell", "sub"];

/// Families and prefixes of tools that other builds have; an operator's list may name them.
const OTHER_SETS: &[&str] = &["transfer", "rsync", "forward", "serial"];
const OTHER_TOOLS: &[&str] =
    &["ssh_upload", "ssh_download", "ssh_transfer_", "ssh_rsync", "ssh_forward", "serial_"];

fn is_of_another_build(name: &str) -> bool {
    OTHER_SETS.contains(&name) || OTHER_TOOLS.iter().any(|prefix| name.starts_with(prefix))
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
