//! The chain of places, the environment file, and what the command lines answer.

use std::collections::HashMap;

use super::*;
use crate::flags::{HttpFlags, StdioFlags};

/// What a process answered before work began.
struct Told {
    exit: Option<String>,
    answers: String,
    complaints: String,
    loaded: Option<Loaded>,
}

/// Runs a command line in an empty directory with the given files and variables.
fn run<F: Flags>(arguments: &[&str], variables: &[(&str, &str)], files: &[(&str, &str)]) -> Told {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    let surroundings = Surroundings {
        environment: &|name| variables.get(name).map(|text| (*text).to_owned()),
        working_dir: dir.path(),
        home: None,
    };
    let (mut answers, mut complaints) = (Vec::new(), Vec::new());
    let arguments = std::iter::once("program").chain(arguments.iter().copied()).map(OsString::from);
    let (exit, loaded) = match start_with::<F>(arguments, &surroundings, &mut answers, &mut complaints) {
        Start::Run(_, loaded) => (None, Some(loaded)),
        Start::Leave(code) => (Some(format!("{code:?}")), None),
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Told { exit, loaded, answers: text(answers), complaints: text(complaints) }
}

fn exit(code: u8) -> Option<String> {
    Some(format!("{:?}", ExitCode::from(code)))
}

fn retries<F: Flags>(arguments: &[&str], variables: &[(&str, &str)], files: &[(&str, &str)]) -> u32 {
    run::<F>(arguments, variables, files).loaded.unwrap().settings.max_retries
}

#[test]
fn the_environment_beats_the_file_and_a_flag_beats_both() {
    let file = [(".env", "SSH_MAX_RETRIES=7\nMCP_PORT=1\n"), ("other", "SSH_MAX_RETRIES=8")];
    assert_eq!(retries::<HttpFlags>(&[], &[], &file), 7);
    assert_eq!(retries::<HttpFlags>(&[], &[("SSH_MAX_RETRIES", "9")], &file), 9);
    assert_eq!(retries::<HttpFlags>(&["--env-file", "other"], &[], &file), 8);
    assert_eq!(retries::<StdioFlags>(&[], &[], &file), 3);
    assert_eq!(retries::<StdioFlags>(&["--env-file", "other"], &[], &file), 8);
    let told = run::<HttpFlags>(&["--bind", "127.0.0.1:2", "--bind", "[::1]:3"], &[("MCP_PORT", "4")], &file);
    let listen: Vec<_> = told.loaded.unwrap().settings.listen().iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["127.0.0.1:2", "[::1]:3"]);
}

#[test]
fn every_flag_of_a_setting_reaches_it() {
    let arguments = [
        ("--bind", ":1"),
        ("--path", "/x"),
        ("--auth-token-file", "/t"),
        ("--allowed-hosts", "a"),
        ("--allowed-origins", "b"),
        ("--grace-secs", "9"),
        ("--log", "warn"),
        ("--log-format", "json"),
    ];
    let mut line: Vec<&str> = arguments.iter().flat_map(|(flag, text)| [*flag, *text]).collect();
    line.push("--require-token");
    let loaded = run::<HttpFlags>(&line, &[], &[]).loaded.unwrap();
    for entry in loaded.entries.iter().filter(|entry| entry.row.flag.is_some()) {
        assert_eq!(entry.origin, Origin::Flag, "{}", entry.row.name);
    }
    let stdio = ["--grace-secs", "9", "--log", "warn", "--log-format", "json"];
    let loaded = run::<StdioFlags>(&stdio, &[], &[]).loaded.unwrap();
    for entry in loaded.entries.iter().filter(|entry| entry.row.flag.is_some()) {
        assert_eq!(entry.origin, Origin::Flag, "{}", entry.row.name);
    }
}

#[test]
fn an_environment_file_is_read_as_a_shell_would() {
    let check = |line: &str, expected: Option<&str>| {
        let (file, bad) = EnvFile::parse(line);
        assert_eq!((file.text("A").as_deref(), bad.is_empty()), (expected, expected.is_some()), "{line}");
    };
    check("A=b", Some("b"));
    check("  export A = b c  ", Some("b c"));
    check("export\tA=b", Some("b"));
    check("A=b # comment", Some("b"));
    check("A=b#c", Some("b#c"));
    check("A=# comment", Some(""));
    check("A='b # \"c\"' # d", Some("b # \"c\""));
    check(r#"A="b\n\"c\" \\ \x é"  "#, Some("b\n\"c\" \\ \\x é"));
    check("A=", Some(""));
    check("A=b=c", Some("b=c"));
    check("A=1\r\nA=2\r\n", Some("2"));
    check("\u{feff}A=b", Some("b"));
    check("A='b", None);
    check("A=\"b", None);
    check("A=\"b\\", None);
    check("A='b'c", None);
    check("A", None);
    check("1A=b", None);
    check("A B=c", None);
}

#[test]
fn comments_and_empty_lines_say_nothing() {
    let (file, bad) = EnvFile::parse("# A=1\n\n   \n\t# B=2\nC=3\nnonsense\n");
    assert_eq!((file.text("C").as_deref(), file.text("A"), bad), (Some("3"), None, vec![6]));
}

#[test]
fn a_missing_file_is_an_error_only_where_it_was_named() {
    let told = run::<HttpFlags>(&["--env-file", "missing"], &[], &[]);
    assert_eq!(told.exit, exit(2));
    assert!(told.complaints.contains("missing") && told.answers.is_empty());
    assert!(run::<HttpFlags>(&[], &[], &[]).loaded.unwrap().findings.is_empty());
}

#[test]
fn strict_configuration_refuses_what_is_otherwise_a_warning() {
    let banana = [("SSH_COMPRESSION", "banana"), ("SSH_MAX_RETRIES", "101")];
    let loaded = run::<StdioFlags>(&[], &banana, &[]).loaded.unwrap();
    let texts: Vec<_> = loaded.findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "SSH_MAX_RETRIES=101: outside 0 … 100; using 100",
            "SSH_COMPRESSION=banana: not one of the words; using auto"
        ]
    );
    let strict = [("SSH_MCP_STRICT_CONFIG", "true"), banana[0], banana[1]];
    let told = run::<StdioFlags>(&[], &strict, &[]);
    assert_eq!((told.exit, told.complaints.lines().count(), told.answers.as_str()), (exit(2), 2, ""));
    assert!(!told.complaints.contains("using"), "{}", told.complaints);
    // Old names and settings without effect are no mistakes.
    let old = [
        ("SSH_MCP_STRICT_CONFIG", "true"),
        ("SSH_MCP_SSH_BIN", "ssh"),
        ("SSH_SHELL_INACTIVITY_TTL_SECS", "9"),
    ];
    assert_eq!(run::<StdioFlags>(&[], &old, &[]).loaded.unwrap().findings.len(), 2);
    assert_eq!(run::<HttpFlags>(&[], &[strict[0]], &[(".env", "nonsense")]).exit, exit(2));
}

#[test]
fn check_config_lists_problems_and_leaves() {
    assert_eq!(run::<StdioFlags>(&["--check-config"], &[], &[]).exit, exit(0));
    let told = run::<StdioFlags>(&["--check-config"], &[("SSH_COMPRESSION", "banana")], &[]);
    assert_eq!((told.exit, told.answers.as_str()), (exit(2), ""));
    assert!(told.complaints.contains("SSH_COMPRESSION=banana"));
    assert_eq!(run::<StdioFlags>(&["--check-config"], &[("SSH_MCP_SSH_BIN", "ssh")], &[]).exit, exit(0));
}

#[test]
fn check_config_looks_into_the_token_file() {
    let check = |name| run::<HttpFlags>(&["--check-config"], &[("MCP_AUTH_TOKEN_FILE", name)], &[]);
    let missing = check("/nowhere/token");
    assert_eq!(missing.exit, exit(2));
    assert!(missing.complaints.contains("/nowhere/token"));
}

#[test]
fn print_config_shows_value_origin_and_range_and_no_secret() {
    let planted = "plantedplantedplanted";
    let variables = [("MCP_AUTH_TOKEN", planted), ("SSH_MAX_RETRIES", "5")];
    let told = run::<HttpFlags>(&["--print-config"], &variables, &[]);
    let line = told.answers.lines().find(|line| line.starts_with("SSH_MAX_RETRIES ")).unwrap();
    assert_eq!(
        line.split_whitespace().collect::<Vec<_>>(),
        ["SSH_MAX_RETRIES", "5", "environment", "0", "…", "100"]
    );
    let json = run::<HttpFlags>(&["--print-config", "--json"], &variables, &[]);
    assert_eq!((&told.exit, &json.exit), (&exit(0), &exit(0)));
    let value: serde_json::Value = serde_json::from_str(&json.answers).unwrap();
    let settings = value["settings"].as_array().unwrap();
    let retries = settings.iter().find(|entry| entry["name"] == "SSH_MAX_RETRIES").unwrap();
    assert_eq!(
        (&retries["value"], &retries["origin"], &retries["raw"]),
        (&"5".into(), &"environment".into(), &"5".into())
    );
    assert_eq!(settings.len(), told.answers.lines().count());
    for text in [told.answers, told.complaints, json.answers, json.complaints] {
        assert!(!text.contains("planted"));
    }
    let told = run::<StdioFlags>(&["--print-config"], &[("SSH_MAX_RETRIES", "many")], &[]);
    assert!(told.complaints.contains("SSH_MAX_RETRIES=many") && !told.answers.contains("many"));
}

#[test]
fn command_lines_that_are_refused() {
    for line in [
        &["--unknown"][..],
        &["--json"],
        &["stray"],
        &["--grace-secs", "soon"],
        &["--log-format", "xml"],
        &["--env-file"],
    ] {
        let told = run::<HttpFlags>(line, &[], &[]);
        assert_eq!((told.exit, told.answers.as_str()), (exit(2), ""), "{line:?}");
        assert!(!told.complaints.is_empty());
    }
    assert_eq!(run::<StdioFlags>(&["--bind", ":1"], &[], &[]).exit, exit(2));
}

#[test]
fn help_and_version_answer_and_leave() {
    for (flag, word) in
        [("--help", "--bind"), ("-h", "--bind"), ("--version", "ssh-mcp "), ("-V", "ssh-mcp ")]
    {
        let told = run::<HttpFlags>(&[flag], &[("SSH_MCP_STRICT_CONFIG", "true"), ("MCP_PORT", "x")], &[]);
        assert_eq!((told.exit, told.complaints.as_str()), (exit(0), ""));
        assert!(told.answers.contains(word), "{flag}");
    }
    let version = run::<StdioFlags>(&["--version"], &[], &[]).answers;
    assert_eq!(version, concat!("ssh-mcp-stdio ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn colour_is_given_up_where_nobody_wants_it() {
    let colour = |text| run::<StdioFlags>(&[], &[("NO_COLOR", text)], &[]).loaded.unwrap().colour;
    assert_eq!((colour("1"), colour("")), (Colour::Never, Colour::Auto));
}

#[test]
fn a_tool_set_that_does_not_exist_is_told_and_under_strict_configuration_refused() {
    let variables = [("SSH_MCP_TOOLSETS", "core,shel")];
    let loaded = run::<StdioFlags>(&[], &variables, &[]).loaded.unwrap();
    assert!(loaded.findings.iter().any(|finding| finding.text.contains("shel")), "{:?}", loaded.findings);
    assert_eq!(run::<StdioFlags>(&["--check-config"], &variables, &[]).exit, exit(2));
    let strict = [("SSH_MCP_TOOLSETS", "core,shel"), ("SSH_MCP_STRICT_CONFIG", "true")];
    assert_eq!(run::<HttpFlags>(&[], &strict, &[]).exit, exit(2));
}
