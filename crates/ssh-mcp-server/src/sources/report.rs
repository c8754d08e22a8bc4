//! What `--print-config` prints.

use serde::Serialize;
use ssh_mcp_core::settings::{Binary, Entry};

/// Every setting with value, origin and range, as a table or as JSON; secrets are masked in the entries.
pub(super) fn report(binary: Binary, entries: &[Entry], as_json: bool) -> String {
    if as_json { json(binary, entries) } else { table(entries) }
}

fn json(binary: Binary, entries: &[Entry]) -> String {
    #[derive(Serialize)]
    struct Report<'a> {
        version: &'static str,
        binary: Binary,
        settings: &'a [Entry],
    }
    let report = Report { version: env!("CARGO_PKG_VERSION"), binary, settings: entries };
    let mut text = serde_json::to_string_pretty(&report).unwrap_or_default();
    text.push('\n');
    text
}

fn table(entries: &[Entry]) -> String {
    let width =
        |text: fn(&Entry) -> &str| entries.iter().map(|entry| text(entry).chars().count()).max().unwrap_or(0);
    let (names, values) = (width(|entry| entry.row.name), width(shown));
    let mut text = String::new();
    for entry in entries {
        let (name, value, origin, range) =
            (entry.row.name, shown(entry), entry.origin.to_string(), &entry.row.range);
        text.push_str(&format!("{name:names$}  {value:values$}  {origin:11}  {range}\n"));
    }
    text
}

fn shown(entry: &Entry) -> &str {
    if entry.value.is_empty() { "-" } else { &entry.value }
}
