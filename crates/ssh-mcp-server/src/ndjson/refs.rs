//! References: `@e1` in an op stands for what the op with the id `e1` has made (`docs/daemon.md`, "References").
//!
//! The newest op with an id counts. Those that were named lately are remembered and so many of the newest that a list of ops can
//! refer far back, and so few that a daemon can run for months.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use serde_json::{Map, Value};
use ssh_mcp_core::{
    code::Code,
    sync::{AtomicBool, Ordering},
    uri,
};
use tokio::sync::SetOnce;

use super::event::{Failed, OpId};

/// Ops that can be referred to.
const MOST: usize = 1024;

/// What an identifier names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Session,
    Command,
    Shell,
    Transfer,
    Rsync,
    Forward,
    Serial,
    Lane,
}

impl Kind {
    const ALL: [(Self, &'static str, &'static str); 8] = [
        (Self::Session, "session_id", "session"),
        (Self::Command, "command_id", "command"),
        (Self::Shell, "shell_id", "shell"),
        (Self::Transfer, "transfer_id", "transfer"),
        (Self::Rsync, "rsync_id", "rsync"),
        (Self::Forward, "forward_id", "forward"),
        (Self::Serial, "serial_id", "serial"),
        (Self::Lane, "sub_id", "lane"),
    ];

    /// The argument that holds one, or several.
    pub(super) fn of_argument(name: &str) -> Option<Self> {
        let one = name.strip_suffix('s').unwrap_or(name);
        Self::ALL.iter().find(|(_, argument, _)| *argument == one).map(|(kind, ..)| *kind)
    }

    /// The kind of a URI's scheme.
    pub(super) fn of_scheme(scheme: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, _, word)| *word == scheme).map(|(kind, ..)| *kind)
    }

    pub(super) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(.., word)| *word)
    }
}

/// What an op has made, once it has answered.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// Tells ops of one id apart.
    pub(super) serial: u64,
    /// The session it works on, if that was named.
    pub(super) session: Option<Name>,
    outcome: SetOnce<Vec<(Kind, String)>>,
    /// Whether it was referred to since this was asked last.
    is_named: AtomicBool,
}

impl Made {
    /// The op has answered; an op that failed has made nothing.
    pub(super) fn settle(&self, made: Vec<(Kind, String)>) {
        // The first answer stands.
        _ = self.outcome.set(made);
    }

    /// What it made of a kind, if it has answered.
    pub(super) fn known(&self, kind: Kind) -> Option<&str> {
        self.outcome.get()?.iter().find(|(of, _)| *of == kind).map(|(_, id)| id.as_str())
    }
}

/// How a line names something: by its identifier, or by the op that makes it.
#[derive(Debug, Clone)]
pub(super) enum Name {
    Id(String),
    Of(Arc<Made>),
}

/// The ops with an id.
#[derive(Default)]
pub(super) struct Refs {
    by_id: HashMap<String, Arc<Made>>,
    order: VecDeque<(String, u64)>,
    serial: u64,
}

impl Refs {
    /// Notes an op.
    pub(super) fn note(&mut self, id: Option<&OpId>, session: Option<Name>) -> Arc<Made> {
        self.serial += 1;
        let made = Arc::new(Made { serial: self.serial, session, ..Made::default() });
        if let Some(id) = id {
            let id = text(id);
            self.by_id.insert(id.clone(), Arc::clone(&made));
            self.order.push_back((id, self.serial));
        }
        while self.order.len() > MOST {
            let Some((id, serial)) = self.order.pop_front() else { break };
            let Some(oldest) = self.by_id.get(&id).filter(|made| made.serial == serial) else { continue };
            // Relaxed: all this happens under one lock. What is in use stays, a session above all.
            match oldest.is_named.swap(false, Ordering::Relaxed) {
                true => self.order.push_back((id, serial)),
                false => _ = self.by_id.remove(&id),
            }
        }
        made
    }

    /// What a text in the place of an identifier names; none if it refers to no op.
    pub(super) fn name(&self, text: &str) -> Option<Name> {
        match text.strip_prefix('@') {
            Some(id) => self.by_id.get(id).map(|made| {
                made.is_named.store(true, Ordering::Relaxed);
                Name::Of(Arc::clone(made))
            }),
            None => Some(Name::Id(text.to_ascii_lowercase())),
        }
    }
}

fn text(id: &OpId) -> String {
    match id {
        OpId::Text(text) => text.clone(),
        OpId::Number(number) => number.to_string(),
    }
}

/// Everything in the arguments of a tool that names something: what kind, and the text.
pub(super) fn named(arguments: &Map<String, Value>) -> Vec<(Kind, String)> {
    let mut named = Vec::new();
    walk(arguments, &mut |kind, text| {
        named.push((kind, text.clone()));
        None
    });
    named
}

/// Puts what `resolved` knows in the place of each reference.
pub(super) fn replace(arguments: &mut Map<String, Value>, resolved: &HashMap<(Kind, String), String>) {
    let mut copy = std::mem::take(arguments);
    walk_mut(&mut copy, &mut |kind, text| resolved.get(&(kind, text.clone())).cloned());
    *arguments = copy;
}

fn walk(arguments: &Map<String, Value>, visit: &mut dyn FnMut(Kind, &String) -> Option<String>) {
    walk_mut(&mut arguments.clone(), visit);
}

fn walk_mut(arguments: &mut Map<String, Value>, visit: &mut dyn FnMut(Kind, &String) -> Option<String>) {
    for (name, value) in arguments {
        let kind = Kind::of_argument(name);
        match (kind, value) {
            (Some(kind), Value::String(id)) => {
                if let Some(real) = visit(kind, id) {
                    *id = real;
                }
            }
            (Some(kind), Value::Array(ids)) => {
                for id in ids {
                    if let Value::String(id) = id
                        && let Some(real) = visit(kind, id)
                    {
                        *id = real;
                    }
                }
            }
            (None, Value::String(text)) if name == "uri" => {
                if let Some((kind, place)) = place(text)
                    && let Some(id) = text.get(place.clone()).map(str::to_owned)
                    && let Some(real) = visit(kind, &id)
                {
                    text.replace_range(place, &real);
                }
            }
            (None, Value::Object(inner)) => walk_mut(inner, visit),
            (None, Value::Array(items)) => {
                for item in items {
                    if let Value::Object(inner) = item {
                        walk_mut(inner, visit);
                    }
                }
            }
            (_, _) => {}
        }
    }
}

/// The place of the identifier in a URI of a kind of ours. A reference may hold any character but a slash.
fn place(text: &str) -> Option<(Kind, std::ops::Range<usize>)> {
    let (scheme, rest) = text.split_once("://")?;
    let row = uri::TABLE.iter().find(|row| row.name.eq_ignore_ascii_case(scheme))?;
    let start = scheme.len() + "://".len();
    // The channel is the last part, so an id with a slash in it is found all the same.
    let end = rest.rfind(&format!("/{}", row.channel)).unwrap_or(rest.len());
    Some((Kind::of_scheme(row.name)?, start..start + end))
}

/// Waits until everything that is referred to has answered, and puts the identifiers in place.
///
/// # Errors
/// `REF_UNRESOLVED` for the first reference that leads to none.
pub(super) async fn resolve(
    arguments: &mut Map<String, Value>,
    names: &[(Kind, String, Option<Name>)],
) -> Result<(), Box<Failed>> {
    let mut resolved = HashMap::new();
    for (kind, text, name) in names {
        let made = match name {
            Some(Name::Id(_)) => continue,
            Some(Name::Of(made)) => made,
            None => return Err(unresolved(text, "no op has that id")),
        };
        let outcome = made.outcome.wait().await;
        match (made.known(*kind), outcome.is_empty()) {
            (Some(id), _) => _ = resolved.insert((*kind, text.clone()), id.to_owned()),
            (None, true) => return Err(unresolved(text, "that op failed or has made nothing")),
            (None, false) => {
                return Err(unresolved(text, &format!("that op has made no {}", kind.as_str())));
            }
        }
    }
    replace(arguments, &resolved);
    Ok(())
}

fn unresolved(text: &str, why: &str) -> Box<Failed> {
    let shown = ssh_mcp_core::text::one_line(text);
    let shown = ssh_mcp_core::text::cut(&shown, 80);
    Box::new(Failed::of(Code::RefUnresolved, format!("{shown} leads nowhere: {why}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const REAL: &str = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    fn names(refs: &Refs, arguments: &Map<String, Value>) -> Vec<(Kind, String, Option<Name>)> {
        named(arguments).into_iter().map(|(kind, text)| (kind, text.clone(), refs.name(&text))).collect()
    }

    #[tokio::test]
    async fn references_stand_wherever_an_identifier_does() {
        let mut refs = Refs::default();
        refs.note(Some(&OpId::Text("e/1".into())), None).settle(vec![(Kind::Command, REAL.into())]);
        refs.note(Some(&OpId::Number(7.into())), None).settle(vec![(Kind::Session, REAL.into())]);
        let mut arguments = object(json!({
            "session_id": "@7", "command_ids": ["@e/1", "x"], "uri": "command://@e/1/output?cursor=3",
            "items": [{ "command_id": "@e/1" }], "command": "echo @7", "agent_id": "@7",
        }));
        let names = names(&refs, &arguments);
        resolve(&mut arguments, &names).await.unwrap();
        assert_eq!(
            Value::Object(arguments),
            json!({
                "session_id": REAL, "command_ids": [REAL, "x"],
                "uri": format!("command://{REAL}/output?cursor=3"),
                "items": [{ "command_id": REAL }], "command": "echo @7", "agent_id": "@7",
            })
        );
    }

    #[tokio::test]
    async fn the_newest_op_counts_and_what_leads_nowhere_is_told() {
        let mut refs = Refs::default();
        let id = OpId::Text("a".into());
        refs.note(Some(&id), None).settle(vec![(Kind::Session, "old".into())]);
        refs.note(Some(&id), None).settle(vec![(Kind::Session, REAL.into())]);
        refs.note(Some(&OpId::Text("failed".into())), None).settle(Vec::new());
        for (arguments, expected) in [
            (json!({ "session_id": "@a" }), Ok(())),
            (json!({ "shell_id": "@a" }), Err("@a leads nowhere: that op has made no shell")),
            (
                json!({ "session_id": "@failed" }),
                Err("@failed leads nowhere: that op failed or has made nothing"),
            ),
            (json!({ "session_id": "@b" }), Err("@b leads nowhere: no op has that id")),
        ] {
            let mut arguments = object(arguments);
            let names = names(&refs, &arguments);
            let resolved = resolve(&mut arguments, &names).await;
            assert_eq!(resolved.map_err(|failed| failed.reason), expected.map_err(str::to_owned));
        }
    }

    #[test]
    fn the_oldest_that_nobody_names_are_forgotten() {
        let mut refs = Refs::default();
        for number in 0..3 * MOST as u64 {
            refs.note(Some(&OpId::Number(number.into())), None);
            assert!(refs.name("@1").is_some() || number == 0);
        }
        assert!(refs.name("@0").is_none() && refs.name(&format!("@{}", 3 * MOST - 1)).is_some());
        assert_eq!(refs.by_id.len(), MOST);
    }
}
