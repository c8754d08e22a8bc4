//! MCP resources: what lives or is retained, listed in pages, described by templates, read by cursor
//! (`docs/resources.md`).
//!
//! Bodies and their `_meta` are in [`read`]. Announcing changes is not here.

mod log;
mod read;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rmcp::model::{ErrorData, ListResourcesResult, Resource as Listed, ResourceTemplate};
use ssh_mcp_core::{
    id::{self, SessionId},
    owner::Owner,
    port::Glimpse,
    text,
    uri::{Class, Resource, Scheme},
};
use ssh_mcp_engine::{Engine, Source};
use uuid::Uuid;

use crate::{catalogue::Catalogue, failure, tools::transfer};

pub(crate) use log::{Last, Log, Status as LogStatus, event_size};
pub(crate) use read::{Reader, read};

/// The templates of the kinds some listed tool makes.
pub(crate) fn templates(catalogue: &Catalogue) -> Vec<ResourceTemplate> {
    catalogue
        .schemes()
        .map(|row| {
            ResourceTemplate::new(row.template, row.title)
                .with_title(row.title)
                .with_description(row.description)
                .with_mime_type(row.mime)
        })
        .collect()
}

/// One page of the owner's resources: sessions, shells, commands, transfers, syncs, forwards, serial ports, each kind newest first.
///
/// # Errors
/// Invalid params for a cursor this server did not make.
pub(crate) fn list(
    engine: &Engine,
    owner: &Owner,
    cursor: Option<&str>,
) -> Result<ListResourcesResult, ErrorData> {
    let after = match cursor {
        Some(cursor) => Some(Place::decode(cursor).ok_or_else(|| {
            failure::bad_params("cursor", "the nextCursor of an earlier resources/list answer")
        })?),
        None => None,
    };
    let page = engine.settings().list_default;
    let mut resources = Vec::new();
    let mut last = None;
    let mut more = false;
    let directories = engine.registries().directories();
    let from = after
        .as_ref()
        .and_then(|place| directories.iter().position(|directory| directory.scheme() == place.scheme))
        .unwrap_or(0);
    for directory in directories.into_iter().skip(from) {
        let scheme = directory.scheme();
        for glimpse in directory.glimpses(owner) {
            // Newest first: what comes later on is older than the place.
            if after.as_ref().is_some_and(|place| place.scheme == scheme && glimpse.id >= place.id) {
                continue;
            }
            if resources.len() == page {
                more = true;
                break;
            }
            last = Some(Place { scheme, id: glimpse.id });
            resources.push(entry(engine, scheme, &glimpse));
        }
    }
    let mut result = ListResourcesResult::with_all_items(resources);
    result.next_cursor = last.filter(|_| more).map(|place| place.encode());
    Ok(result)
}

/// The last entry of a page. It stays a place in the order while entries come and go.
struct Place {
    scheme: Scheme,
    id: Uuid,
}

impl Place {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}/{}", self.scheme.as_str(), self.id.as_simple()))
    }

    fn decode(cursor: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        let (scheme, id) = text.split_once('/')?;
        let row = ssh_mcp_core::uri::TABLE.iter().find(|row| row.name == scheme)?;
        Some(Self { scheme: row.scheme, id: Uuid::try_parse(id).ok()? })
    }
}

/// The body of a state resource, as `resources/read` shows it, and of a log with its newest events; none of a stream.
pub(crate) fn state_body(engine: &Engine, source: &Source) -> Option<String> {
    match source {
        Source::Session(session) => Some(read::session_body(engine, session).to_string()),
        Source::Transfer(transfer) => Some(transfer::body(engine, transfer).to_string()),
        Source::Command(_) | Source::Shell(_) | Source::Rsync(_) | Source::Forward(_) | Source::Serial(_) => {
            Log::of(source).map(|log| log.newest(engine).to_string())
        }
    }
}

fn entry(engine: &Engine, scheme: Scheme, glimpse: &Glimpse) -> Listed {
    let row = scheme.row();
    let short = |uuid: Uuid| id::short(SessionId::from(uuid));
    let kind = match scheme {
        Scheme::Session => "Session",
        Scheme::Shell => "Shell",
        Scheme::Command => "Command",
        Scheme::Transfer => "Transfer",
        Scheme::Rsync => "Sync",
        Scheme::Forward => "Forward",
        Scheme::Serial => "Serial port",
    };
    let label = |session: Uuid| {
        let entry = engine.registries().sessions.entry(session.into());
        entry.and_then(|entry| entry.spec.name.clone()).unwrap_or_else(|| short(session))
    };
    let own = short(glimpse.id);
    let name = match (scheme, glimpse.session, &glimpse.name) {
        (Scheme::Session, _, Some(name)) => format!("{kind} {own} ({name})"),
        (Scheme::Serial, _, Some(name)) => format!("{kind} {own} ({name})"),
        (Scheme::Session | Scheme::Serial, _, None)
        | (Scheme::Shell | Scheme::Command | Scheme::Transfer | Scheme::Rsync | Scheme::Forward, None, _) => {
            format!("{kind} {own}")
        }
        (
            Scheme::Shell | Scheme::Command | Scheme::Transfer | Scheme::Rsync | Scheme::Forward,
            Some(session),
            _,
        ) => {
            format!("{kind} {own} (session {})", label(session))
        }
    };
    let title = match &glimpse.name {
        Some(name) => format!("{kind} {name} on {}", glimpse.target),
        None => format!("{kind} on {}", glimpse.target),
    };
    let description = text::one_line(&glimpse.description).into_owned();
    let listed = Listed::new(Resource { scheme, id: glimpse.id }.to_string(), text::one_line(&name))
        .with_title(text::one_line(&title))
        .with_description(format!("{description}, {}", glimpse.status))
        .with_mime_type(row.mime);
    match row.class {
        Class::Stream => listed.with_size(glimpse.held as u64),
        Class::Log | Class::State => listed,
    }
}
