//! `completion/complete`: values for the arguments of prompts and for the variables of templates (`docs/prompts.md`).
//!
//! Offered is what lives and belongs to the caller. To be offered is no use of a session or a resource, so a person who
//! types keeps nothing alive.

use std::{cmp::Reverse, collections::HashSet};

use rmcp::model::{ArgumentInfo, CompleteResult, CompletionInfo, Reference};
use ssh_mcp_core::{
    owner::Owner,
    port::{Directory, Glimpse},
    registry::{Entry, Session},
    target::Address,
    text,
    uri::{Resource, Scheme},
};
use ssh_mcp_engine::Engine;

use crate::{
    catalogue::Catalogue,
    prompts::{self, LAG_POLICIES},
};

/// Where values come from.
pub(crate) struct Known<'a> {
    /// Sessions and resources.
    pub(crate) engine: &'a Engine,
    /// Whose they must be.
    pub(crate) owner: &'a Owner,
    /// The templates.
    pub(crate) catalogue: &'a Catalogue,
    /// Which tools are listed, and by that which prompts.
    pub(crate) is_listed: &'a dyn Fn(&str) -> bool,
    /// The caller's lanes, newest first.
    pub(crate) sub_ids: &'a dyn Fn() -> Vec<String>,
}

/// The values for an argument, best first; none for a reference or an argument that means nothing here.
pub(crate) fn complete(known: &Known<'_>, about: &Reference, argument: &ArgumentInfo) -> CompleteResult {
    let candidates = match (about.as_prompt_name(), about.as_resource_uri()) {
        (Some(prompt), _) if prompts::has_argument(known.is_listed, prompt, &argument.name) => {
            known.argument(&argument.name)
        }
        (None, Some(template)) => known.variable(template, &argument.name),
        (Some(_) | None, _) => Vec::new(),
    };
    let mut values = ranked(&argument.value, candidates);
    let total = values.len();
    values.truncate(CompletionInfo::MAX_VALUES);
    let more = values.len() < total;
    let total = u32::try_from(total).unwrap_or(u32::MAX);
    // Refused are only lists that have not been cut.
    CompleteResult::new(CompletionInfo::with_pagination(values, Some(total), more).unwrap_or_default())
}

impl Known<'_> {
    /// What an argument of a prompt may be, newest first.
    fn argument(&self, name: &str) -> Vec<String> {
        match name {
            "session_id" => self.ids(Scheme::Session),
            "agent_id" => self.of_sessions(|session| session.spec.agent.clone()),
            "address" => self.of_sessions(|session| Some(shortest(&session.spec.target.address))),
            "uri" => self.uris(),
            "sub_id" => (self.sub_ids)(),
            "lag_policy" => LAG_POLICIES.map(str::to_owned).into(),
            _ => Vec::new(),
        }
    }

    /// What a variable of a listed template may be, newest first.
    fn variable(&self, template: &str, name: &str) -> Vec<String> {
        let Some(row) = self.catalogue.schemes().find(|row| row.template == template) else {
            return Vec::new();
        };
        let has = |variable: &str| row.template.contains(variable);
        match name {
            "cursor" if has("{?cursor}") => vec!["auto".to_owned(), "0".to_owned()],
            name if has(&format!("{{{name}}}")) => self.ids(row.scheme),
            _ => Vec::new(),
        }
    }

    fn ids(&self, scheme: Scheme) -> Vec<String> {
        let directory = self.engine.registries().directory(scheme);
        self.live(directory).map(|glimpse| glimpse.id.to_string()).collect()
    }

    fn uris(&self) -> Vec<String> {
        let mut resources: Vec<Resource> = Vec::new();
        for directory in self.engine.registries().directories() {
            let scheme = directory.scheme();
            resources.extend(self.live(directory).map(|glimpse| Resource { scheme, id: glimpse.id }));
        }
        // Identifiers sort by age, also those of different kinds.
        resources.sort_unstable_by_key(|resource| Reverse(resource.id));
        resources.iter().map(Resource::to_string).collect()
    }

    fn live(&self, directory: &dyn Directory) -> impl Iterator<Item = Glimpse> + use<> {
        directory.glimpses(self.owner).into_iter().filter(|glimpse| glimpse.ended.is_none())
    }

    /// What the live sessions say, each value once.
    fn of_sessions(&self, value: impl Fn(&Session) -> Option<String>) -> Vec<String> {
        let sessions = self.engine.registries().sessions.of_owner(self.owner);
        let live = sessions.iter().filter(|session| session.ended().is_none());
        let mut seen = HashSet::new();
        live.filter_map(|session| value(session)).filter(|value| seen.insert(value.clone())).collect()
    }
}

/// An address as a person writes it: the port only where it says something.
fn shortest(address: &Address) -> String {
    if address.port == 22 { address.host.clone() } else { address.to_string() }
}

/// Candidates that begin with the text, then those that hold it, then the others by edits; letter case does not count.
///
/// The sort is stable: inside a rank the candidates stay newest first.
fn ranked(typed: &str, mut candidates: Vec<String>) -> Vec<String> {
    if typed.is_empty() {
        return candidates;
    }
    let typed = typed.to_lowercase();
    let typed_head = head(&typed);
    candidates.sort_by_cached_key(|candidate| {
        let candidate = candidate.to_lowercase();
        match candidate.find(&typed) {
            Some(0) => Rank::Prefix,
            Some(_) => Rank::Inside,
            None => Rank::Edits(text::distance(typed_head, head(&candidate))),
        }
    });
    candidates
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Prefix,
    Inside,
    Edits(usize),
}

/// What counts of a text whose edits are counted: the cost is the product of both lengths, and a client sets one of them.
fn head(text: &str) -> &str {
    text.char_indices().nth(128).and_then(|(at, _)| text.get(..at)).unwrap_or(text)
}

#[cfg(test)]
mod tests;
