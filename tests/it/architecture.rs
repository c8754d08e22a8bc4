//! The rules of `docs/architecture.md` that a machine can check: who may depend on whom, where tokio may be named,
//! and that every invariant called shown is cited by a test.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The crates of the workspace and what of it each may use. A crate that is not here fails the test, so that a new
/// one forces a decision.
const WORKSPACE: &[(&str, &[&str])] = &[
    ("rsync-wire", &[]),
    ("openssh-files", &[]),
    ("ssh-mcp-core", &[]),
    ("ssh-mcp-engine", &["ssh-mcp-core"]),
    ("ssh-mcp-handler", &["ssh-mcp-core", "ssh-mcp-engine"]),
    (
        "ssh-mcp-server",
        &[
            "openssh-files",
            "ssh-mcp-core",
            "ssh-mcp-engine",
            "ssh-mcp-handler",
            "ssh-mcp-mirror",
            "ssh-mcp-serial",
            "ssh-mcp-sftp",
            "ssh-mcp-ssh",
        ],
    ),
    ("ssh-mcp-mirror", &["rsync-wire", "ssh-mcp-core"]),
    ("ssh-mcp-serial", &["ssh-mcp-core"]),
    ("ssh-mcp-sftp", &["ssh-mcp-core"]),
    ("ssh-mcp-ssh", &["openssh-files", "ssh-mcp-core"]),
    ("ssh-mcp-testkit", &["ssh-mcp-core"]),
    ("ssh-mcp-tests", &[]),
];

/// Libraries only these crates may name, other than for tests.
const CONFINED: &[(&str, &[&str])] = &[
    ("anyhow", &[]),
    ("axum", &["ssh-mcp-server"]),
    ("clap", &["ssh-mcp-server"]),
    ("rmcp", &["ssh-mcp-handler", "ssh-mcp-server"]),
    ("russh", &["ssh-mcp-ssh", "ssh-mcp-testkit"]),
    ("schemars", &["ssh-mcp-handler", "ssh-mcp-server"]),
    (
        "tokio",
        &[
            "ssh-mcp-core",
            "ssh-mcp-engine",
            "ssh-mcp-handler",
            "ssh-mcp-mirror",
            "ssh-mcp-serial",
            "ssh-mcp-server",
            "ssh-mcp-sftp",
            "ssh-mcp-ssh",
            "ssh-mcp-testkit",
        ],
    ),
    ("tokio-serial", &["ssh-mcp-serial"]),
];

/// The only files of core that may name tokio.
const TOKIO_IN_CORE: &[&str] = &["sync.rs", "port/mod.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Each package's dependencies other than for tests, by name.
fn packages() -> BTreeMap<String, Vec<Value>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let all = package["dependencies"].as_array().unwrap().iter();
            let shipped = all.filter(|dependency| dependency["kind"] != "dev").cloned().collect();
            (package["name"].as_str().unwrap().to_owned(), shipped)
        })
        .collect()
}

fn name(dependency: &Value) -> &str {
    dependency["name"].as_str().unwrap()
}

/// Every Rust file below a folder, with its text.
fn sources(below: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![below.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

#[test]
fn crates_depend_only_in_the_direction_agreed_on() {
    let packages = packages();
    let known: BTreeMap<&str, &[&str]> = WORKSPACE.iter().copied().collect();
    for (package, dependencies) in &packages {
        let allowed = known.get(package.as_str()).unwrap_or_else(|| panic!("{package} is not in the table"));
        let used = dependencies.iter().map(name).filter(|name| packages.contains_key(*name));
        let surplus: Vec<_> = used.filter(|name| !allowed.contains(name)).collect();
        assert!(surplus.is_empty(), "{package} must not depend on {surplus:?}");
    }
    assert_eq!(packages.len(), known.len(), "the table names a crate that does not exist");
}

#[test]
fn each_technology_is_known_to_its_own_crates_only() {
    for (package, dependencies) in packages() {
        for (library, allowed) in CONFINED {
            let used = dependencies.iter().any(|dependency| name(dependency) == *library);
            assert!(!used || allowed.contains(&package.as_str()), "{package} must not use {library}");
        }
    }
}

#[test]
fn core_takes_nothing_of_tokio_but_its_notifiers() {
    let packages = packages();
    let tokio = packages["ssh-mcp-core"].iter().find(|dependency| name(dependency) == "tokio").unwrap();
    assert_eq!(tokio["features"], serde_json::json!(["sync"]));
    assert_eq!(tokio["uses_default_features"], false);

    let source = root().join("crates/ssh-mcp-core/src");
    for (path, text) in sources(&source) {
        let file = path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
        let named = text.lines().any(|line| line.contains("tokio::") && !line.trim_start().starts_with("//"));
        assert!(!named || TOKIO_IN_CORE.contains(&file.as_str()), "core/src/{file} names tokio");
    }
}

#[test]
fn every_invariant_called_shown_is_cited_by_a_test() {
    let page = fs::read_to_string(root().join("docs/lifecycle.md")).unwrap();
    let shown: BTreeSet<u32> = page
        .lines()
        .filter(|line| line.contains(" [shown]"))
        .map(|line| line.split('.').next().unwrap().trim().parse().unwrap())
        .collect();
    assert!(shown.len() >= 25, "{shown:?}");

    let mut cited = BTreeSet::new();
    let all = sources(&root().join("crates")).into_iter().chain(sources(&root().join("tests")));
    for (path, text) in all {
        // Stories and tests live in files of their own; production code may cite an invariant it keeps.
        let tests_only = ["tests", "loom", "it"].iter().any(|word| {
            path.components().any(|part| part.as_os_str().to_string_lossy().trim_end_matches(".rs") == *word)
        });
        let text = match text.find("#[cfg(test)]").or_else(|| text.find("#[cfg(all(test")) {
            _ if tests_only => text.as_str(),
            Some(at) => &text[at..],
            None => continue,
        };
        for citation in text.split("lifecycle 6.").skip(1) {
            let digits: String = citation.chars().take_while(char::is_ascii_digit).collect();
            cited.extend(digits.parse::<u32>());
        }
    }
    let missing: Vec<_> = shown.difference(&cited).collect();
    assert!(missing.is_empty(), "no test cites {missing:?}");
}

#[test]
fn no_page_or_comment_cites_what_does_not_ship() {
    let root = root();
    let pages: BTreeSet<String> = fs::read_dir(root.join("docs"))
        .unwrap()
        .chain(fs::read_dir(root.join("docs/adr")).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for (path, text) in sources(&root.join("crates")).into_iter().chain(sources(&root.join("tests"))) {
        if path.ends_with(file!().rsplit('/').next().unwrap()) {
            continue;
        }
        for citation in text.split("`docs/").skip(1) {
            let Some((page, _)) = citation.split_once('`') else { continue };
            let file = page.rsplit('/').next().unwrap().split(['#', ' ', ',']).next().unwrap();
            let known = pages.contains(file) || root.join("docs").join(page).exists();
            assert!(known || file.contains('*') || file.is_empty(), "{} cites docs/{page}", path.display());
        }
    }
}
