//! `docs/configuration.md` says what the code does: its tables and command lines are made from the same definitions.
//!
//! `scripts/bless.sh` rewrites the generated parts; this test fails where they differ.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::path::Path;

use clap::CommandFactory;
use ssh_mcp_core::settings::{Alias, Binary, Origin, Row, Settings};
use ssh_mcp_server::flags::{HttpFlags, StdioFlags, TailFlags};

#[test]
fn the_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let parts = [
        ("settings", tables()),
        ("ssh-mcp", help::<HttpFlags>()),
        ("ssh-mcp-stdio", help::<StdioFlags>()),
        ("ssh-mcp-tail daemon", subcommand("daemon")),
        ("ssh-mcp-tail run", subcommand("run")),
        ("ssh-mcp-tail shell", subcommand("shell")),
    ];
    let fresh = parts.into_iter().fold(page.clone(), |page, (name, text)| replace(&page, name, &text));
    if std::env::var_os("SSH_MCP_BLESS").is_some() {
        std::fs::write(&path, fresh).unwrap();
    } else {
        assert!(page == fresh, "docs/configuration.md is out of date: run scripts/bless.sh");
    }
}

#[test]
fn every_setting_the_page_names_exists() {
    let page = include_str!("../../../docs/configuration.md");
    let rows = Settings::rows();
    let known = |name: &str| {
        rows.iter().any(|row| row.name == name || row.aliases.iter().any(|alias| alias.name() == name))
    };
    let words = page.split(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_');
    for name in words.filter(|word| word.starts_with("SSH_") || word.starts_with("MCP_")) {
        assert!(known(name), "{name} is no setting");
    }
}

#[test]
fn every_profile_is_sound() {
    let page = include_str!("../../../docs/configuration.md");
    let profiles: Vec<_> =
        page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(profiles.len() >= 3);
    for profile in profiles {
        let look_up = |name: &str| {
            profile.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
        };
        let outcome = Settings::resolve(
            Binary::Http,
            &|origin, name| (origin == Origin::File).then(|| look_up(name)).flatten(),
            None,
        );
        let taken = outcome.entries.iter().filter(|entry| entry.origin == Origin::File).count();
        assert_eq!((outcome.problems, taken), (Vec::new(), profile.lines().count()), "{profile}");
    }
}

/// Puts `text` between the two marks of a generated part.
fn replace(page: &str, name: &str, text: &str) -> String {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->\n"));
    let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("no mark {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("no mark {end}"));
    format!("{before}{begin}{text}{end}{after}")
}

fn tables() -> String {
    let mut text = String::new();
    let mut group = "";
    for row in Settings::rows() {
        if row.group != group {
            group = row.group;
            write!(text, "\n### {group}\n\n| Name | Kind | Default | Range | B | Also by | Meaning |\n")
                .unwrap();
            text.push_str("| --- | --- | --- | --- | --- | --- | --- |\n");
        }
        let Row { name, kind, range, meaning, .. } = &row;
        let (default, binaries, others, meaning) =
            (default(&row), binaries(&row), others(&row), notes(&row, meaning));
        writeln!(text, "| `{name}` | {kind} | {default} | {range} | {binaries} | {others} | {meaning} |")
            .unwrap();
    }
    text.push('\n');
    text
}

fn default(row: &Row) -> String {
    match row.default.as_str() {
        "" => "–".to_owned(),
        text if text.contains(' ') => text.to_owned(),
        text => format!("`{text}`"),
    }
}

fn binaries(row: &Row) -> String {
    let letter = |binary: &Binary| match binary {
        Binary::Http => 'H',
        Binary::Stdio => 'S',
        Binary::Tail => 'T',
    };
    row.binaries.iter().map(letter).collect()
}

fn others(row: &Row) -> String {
    let flag = row.flag.filter(|flag| *flag != row.name).map(|flag| format!("`{flag}`"));
    flag.into_iter().chain(row.parameter.map(str::to_owned)).collect::<Vec<_>>().join(", ")
}

fn notes(row: &Row, meaning: &str) -> String {
    let mut text = meaning.to_owned();
    for alias in &row.aliases {
        match alias {
            Alias::Also(name) => write!(text, " Also accepted: `{name}`.").unwrap(),
            Alias::Deprecated(name) => write!(text, " Old name: `{name}`.").unwrap(),
            Alias::WithUnit(name) => {
                write!(text, " Also accepted with a unit (`200ms`, `1s`): `{name}`.").unwrap();
            }
        }
    }
    if let Some(reason) = row.effect.why_unused() {
        write!(text, " **Accepted without effect**: {reason}.").unwrap();
    }
    text
}

fn help<F: CommandFactory>() -> String {
    shown(&F::command().render_help().to_string())
}

/// The help of a subcommand of `ssh-mcp-tail`.
fn subcommand(name: &str) -> String {
    let mut all = TailFlags::command();
    all.build();
    shown(&all.find_subcommand_mut(name).unwrap().render_help().to_string())
}

fn shown(help: &str) -> String {
    let lines: String = help.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    format!("```text\n{lines}```\n")
}
