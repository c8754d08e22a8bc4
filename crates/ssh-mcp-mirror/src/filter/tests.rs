use std::{
    cell::Cell,
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, OpenOptions},
    io::Write,
    os::unix::ffi::OsStrExt,
    path::Path,
    process::Command,
};

use proptest::{prelude::*, test_runner::TestRunner};

use super::*;

fn filter(include: &[&str], exclude: &[&str]) -> Filter {
    let owned = |patterns: &[&str]| patterns.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    Filter::new(&owned(include), &owned(exclude)).unwrap()
}

/// What a pattern matches; a directory's name ends with a slash here.
#[track_caller]
fn check(pattern: &str, matched: &[&str], others: &[&str]) {
    let filter = filter(&[], &[pattern]);
    let takes = |path: &&&str| {
        let name = path.strip_suffix('/');
        filter.takes(name.unwrap_or(path).as_bytes(), name.is_some())
    };
    assert_eq!(matched.iter().filter(takes).collect::<Vec<_>>(), [&""; 0], "{pattern} matches these");
    assert_eq!(others.iter().filter(takes).count(), others.len(), "{pattern} matches none of {others:?}");
}

#[test]
fn what_patterns_match() {
    check("a", &["a", "a/", "b/a", "b/c/a"], &["ab", "ba", "b/ab"]);
    check("/a", &["a", "a/"], &["b/a"]);
    check("a/", &["a/", "b/a/"], &["a", "b/a"]);
    check("b/a", &["b/a"], &["a", "c/b/a", "b/a/c"]);
    check("*.o", &["a.o", ".o", "b/a.o"], &["a.oo", "a.o/b", "o"]);
    check("/*.o", &["a.o"], &["b/a.o"]);
    check("a?c", &["abc", "a.c"], &["ac", "abbc"]);
    check("/a?c", &["abc"], &["a/c"]);
    check("/a*c", &["ac", "abbbc"], &["a/c", "ab/bc"]);
    check("a*b*c", &["abc", "aXbYbZc"], &["acb", "ab"]);
    check("**/a", &["a", "b/a", "b/c/a"], &["ab"]);
    check("a/**", &["a/b", "a/b/c", "a/b/"], &["a", "a/", "b/a"]);
    check("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["ab", "a/xb", "x/a/b"]);
    check("**/a/**/b/**", &["a/b/c", "x/a/y/b/z/z"], &["a/b", "b/a/c"]);
    check("**", &["a", "a/b"], &[]);
    check("a**b", &["ab", "aXb"], &["aX/b"]);
    check("/a**b", &["ab"], &["a/b"]);
    check("[ab]c", &["ac", "bc", "x/ac"], &["cc", "abc"]);
    check("[!ab]c", &["cc"], &["ac", "bc"]);
    check("x[^a-c]", &["xd"], &["xa", "xb"]);
    check("[]a-]", &["]", "a", "-"], &["b", "a-]"]);
    check("[a\\]-]", &["a", "]", "-"], &["\\"]);
    check("[[:digit:]_]", &["1", "_"], &["a", ":", "["]);
    check("{a,b}", &["{a,b}"], &["a", "b"]);
    check("\\*", &["*"], &["a", "\\*"]);
    check("\\a\\\\", &["a\\"], &["a"]);
    check("!a", &["!a"], &["a"]);
    check("#a", &["#a"], &["a"]);
    check(" a ", &[" a "], &["a"]);
    check("é", &["é"], &["e"]);
}

#[test]
fn names_that_are_no_text_match_byte_by_byte() {
    let by = filter(&[], &["a?b", "x*"]);
    assert!(!by.takes(b"a\xffb", false) && !by.takes(b"x\xfe\nz", false));
    assert!(by.takes(b"a\xff\xffb", false));
}

#[test]
fn includes_win_and_what_nothing_matches_is_taken() {
    let by = filter(&["keep.o", "/only/"], &["*.o", "only"]);
    assert!(by.takes(b"keep.o", false) && by.takes(b"d/keep.o", false) && by.takes(b"x", false));
    assert!(!by.takes(b"a.o", false));
    assert!(by.takes(b"only", true) && !by.takes(b"only", false) && !by.takes(b"d/only", true));
}

#[test]
fn on_the_way_to_an_include_only_that_is_taken() {
    let by = filter(&["build/out/*.txt", "build/all/"], &["build/"]);
    for (path, is_directory) in
        [("build", true), ("build/out", true), ("build/out/a.txt", false), ("build/all", true)]
    {
        assert!(by.takes(path.as_bytes(), is_directory), "{path}");
    }
    // What an include takes is taken with what is in it.
    assert!(by.takes(b"build/all/x", false) && by.takes(b"build/all/d/x", false));
    for (path, is_directory) in
        [("build/a.txt", false), ("build/other", true), ("build/out/a.o", false), ("build/out", false)]
    {
        assert!(!by.takes(path.as_bytes(), is_directory), "{path}");
    }
    // No wildcard and no depth opens a way.
    for include in ["b*/out", "**/build/out", "out", "build/"] {
        assert_eq!(filter(&[include], &["/build"]).takes(b"build", true), include == "build/", "{include}");
    }
    // A way is no way where nothing is left out.
    let by = filter(&["build/out"], &["*.o"]);
    assert!(by.takes(b"build/x", false) && by.takes(b"build/out", true) && !by.takes(b"build/x.o", false));
}

#[test]
fn patterns_that_are_refused() {
    for pattern in ["", "/", "a//b", "a/../b", "./a", "[a", "a[", "[z-a]", "[[:odd:]]", "a\\", "a\0"] {
        let refused = Filter::new(&[], &["fine".to_owned(), pattern.to_owned()]).unwrap_err();
        assert!(refused.contains(&format!("{pattern:?}")), "{refused}");
    }
}

/// Rules as text, and whether they are exact.
fn rules(include: &[&str], exclude: &[&str], top: Option<&[u8]>) -> (Vec<String>, bool) {
    let Rules { rules, exact } = filter(include, exclude).to_rules(top);
    let text = |rule: Rule| String::from_utf8(rule.to_text().unwrap()).unwrap();
    (rules.into_iter().map(text).collect(), exact)
}

#[test]
fn rules_of_rsync() {
    let check = |include: &[&str], exclude: &[&str], expected: &[&str]| {
        assert_eq!(
            rules(include, exclude, None),
            (expected.iter().map(|one| (*one).to_owned()).collect(), true)
        );
    };
    check(&[], &["*.o", "/a", "b/", "c/d"], &["- *.o", "- /a", "- b/", "- /c/d"]);
    check(&["a"], &[], &[]);
    check(&[], &["a/**/b"], &["- /a/**/b", "- /a/b"]);
    check(&[], &["a\\b", "a\\*", "\\\\*"], &["- ab", "- a\\*", "- \\\\*"]);
    check(&["/b/c"], &["b"], &["+ /b/c", "+ /b/", "- /b/*", "- b"]);
    check(&["/b/c"], &["x"], &["+ /b/c", "+ /b/", "- x"]);
    let top = rules(&["/a"], &["*", "**/x/y"], Some(b"s[1]"));
    let expected = ["+ /s\\[1]", "+ /s\\[1]/a", "- *", "- /s\\[1]/**/x/y", "- /s\\[1]/x/y"];
    assert_eq!(top, (expected.map(str::to_owned).to_vec(), true));
}

#[test]
fn what_rsync_cannot_say_leaves_out_nothing_there() {
    let deep = "a/**/b/**/c/**/d/**/e";
    assert_eq!(rules(&[], &[deep, "x"], None), (vec!["- x".to_owned()], false));
    assert_eq!(rules(&[deep], &["x"], None), (Vec::new(), false));
}

/// A command that is rsync; none after saying why there is none.
fn rsync_or_skip() -> Option<Command> {
    let program = std::env::var_os("SSH_MCP_RSYNC");
    let mut rsync = Command::new(program.clone().unwrap_or_else(|| "rsync".into()));
    if let Some(program) = program {
        // Unpacked and not installed: what it is linked to lies beside it.
        let folder = Path::new(&program).parent().unwrap();
        let libraries = fs::read_dir(folder.with_file_name("lib")).into_iter().flatten();
        let libraries = libraries.map(|folder| folder.unwrap().path());
        rsync.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap());
    }
    if rsync.arg("--version").output().is_ok_and(|said| said.status.success()) {
        let mut again = Command::new(rsync.get_program());
        again.envs(rsync.get_envs().filter_map(|(name, value)| Some((name, value?))));
        return Some(again);
    }
    assert!(std::env::var_os("CI").is_none(), "in CI there must be an rsync");
    eprintln!("SKIPPED: this machine has no rsync");
    if let Some(path) = std::env::var_os("SSH_MCP_SKIPS") {
        let mut skips = OpenOptions::new().append(true).create(true).open(path).unwrap();
        skips.write_all(b"ssh_mcp_mirror::filter: this machine has no rsync\n").unwrap();
    }
    None
}

/// What of a tree is taken: paths, those of directories with a slash behind.
fn taken(filter: &Filter, root: &Path, below: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let is_directory = entry.file_type().unwrap().is_dir();
        if !filter.takes(path.as_bytes(), is_directory) {
            continue;
        }
        if is_directory {
            taken(filter, root, &path, found);
        }
        found.insert(if is_directory { path + "/" } else { path });
    }
}

fn names() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "ab", "a.c", "a]", "-", "*", "\\a", "é"]).prop_map(str::to_owned)
}

fn patterns() -> impl Strategy<Value = Vec<String>> {
    let parts = prop::sample::select(vec![
        "a",
        "b",
        "ab",
        "*",
        "**",
        "?",
        "?b",
        "a*",
        "*.c",
        "[ab]",
        "[!a]",
        "[a-c]*",
        "[]-]",
        "\\*",
        "\\\\a",
        "a\\]",
        "[^b-z]?",
        "[[:alpha:]]",
    ]);
    let pattern = (any::<bool>(), prop::collection::vec(parts, 1..4), any::<bool>()).prop_map(
        |(is_anchored, parts, is_directory)| {
            let edge = |is_there: bool| if is_there { "/" } else { "" };
            format!("{}{}{}", edge(is_anchored), parts.join("/"), edge(is_directory))
        },
    );
    prop::collection::vec(pattern, 0..3)
}

#[test]
fn a_real_rsync_takes_what_the_filter_takes() {
    let Some(found) = rsync_or_skip() else { return };
    let paths = prop::collection::vec(prop::collection::vec(names(), 1..4), 1..14);
    let exact = Cell::new(0);
    TestRunner::new(ProptestConfig::with_cases(100))
        .run(&(paths, patterns(), patterns(), any::<bool>()), |(paths, include, exclude, by_name)| {
            let folder = tempfile::tempdir().unwrap();
            let (root, empty) = (folder.path().join("ab"), folder.path().join("empty"));
            fs::create_dir(&root).unwrap();
            fs::create_dir(&empty).unwrap();
            for path in paths {
                let (file, folders) = path.split_last().unwrap();
                let folders = root.join(folders.join("/"));
                // Where a file is in the way there is one name less.
                if fs::create_dir_all(&folders).is_ok() && !folders.join(file).is_dir() {
                    fs::write(folders.join(file), "").unwrap();
                }
            }
            let filter = Filter::new(&include, &exclude).unwrap();
            let rules = filter.to_rules(by_name.then_some(b"ab"));
            let mut rsync = Command::new(found.get_program());
            rsync.envs(found.get_envs().filter_map(|(name, value)| Some((name, value?))));
            rsync.args(["-rn", "-8", "--out-format=%n"]);
            for rule in &rules.rules {
                let rule = [b"--filter=", rule.to_text().unwrap().as_slice()].concat();
                rsync.arg(OsStr::from_bytes(&rule));
            }
            let source = if by_name { root.clone() } else { root.join("") };
            let said = rsync.arg(source).arg(&empty).output().unwrap();
            prop_assert!(said.status.success(), "{said:?}");
            let said = String::from_utf8(said.stdout).unwrap();
            let below = |line: &str| {
                if by_name { line.strip_prefix("ab/").unwrap().to_owned() } else { line.to_owned() }
            };
            let listed: BTreeSet<String> =
                said.lines().map(below).filter(|line| !line.is_empty() && line != "./").collect();
            let mut ours = BTreeSet::new();
            taken(&filter, &root, "", &mut ours);
            if rules.exact {
                exact.set(exact.get() + 1);
                prop_assert_eq!(listed, ours, "{:?}", rules);
            } else {
                prop_assert!(listed.is_superset(&ours), "{:?}", rules);
            }
            Ok(())
        })
        .unwrap();
    assert!(exact.get() > 50, "{} of the cases were exact", exact.get());
}
