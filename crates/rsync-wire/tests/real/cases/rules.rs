//! Cases 56, 60 and 61: rules of a filter, and for whom they are.

use std::fs;

use rsync_wire::command::{Delete, Direction, Options, Recursion, UploadOptions};
use rsync_wire::filter::{Action, Excluded, Rule, ServerRole, Side};

use crate::driver::{Download, Setup, Upload};
use crate::servers::Server;
use crate::tree::{Contents, Sides, contents, file};

/// A rule that is tried, and how the real client is told of it.
#[derive(Clone, Copy)]
struct Tried {
    text: &'static str,
    action: Action,
    side: Side,
    pattern: &'static str,
}

impl Tried {
    fn rule(&self) -> Rule {
        Rule { side: self.side, ..Rule::new(self.action, self.pattern) }
    }

    /// What its pattern says of a name; the patterns here are names and endings, which is all that the client is asked about.
    fn matches(&self, name: &str) -> bool {
        let last = name.rsplit('/').next().unwrap();
        match self.pattern.strip_prefix('*') {
            Some(end) => last.ends_with(end),
            None => last == self.pattern.trim_end_matches('/'),
        }
    }
}

/// What becomes of a tree by deletion and these rules, when our side does by itself what the server is not told.
fn mirrored(
    server: &Server,
    sides: &Sides,
    direction: Direction,
    tried: &[Tried],
    excluded: Excluded,
) -> Contents {
    let rules: Vec<_> = tried.iter().map(Tried::rule).collect();
    // The part of the client is the one that a server in that role would have.
    let is_left_out = |role: ServerRole, name: &str| {
        let first = tried.iter().find(|one| one.rule().is_for(role, excluded) && one.matches(name));
        first.is_some_and(|one| one.action == Action::Exclude)
    };
    let parts = |name: &str| name.match_indices('/').map(|(at, _)| name[..at].to_owned()).collect::<Vec<_>>();
    let options = Options { direction, recursion: Recursion::Recursive, times: true, ..Options::default() };
    match options.direction {
        Direction::Upload(_) => {
            let mut upload = Upload::new(Setup::new(server, options, &sides.target), &sides.source);
            upload.rules = rules;
            upload.entries.retain(|entry| {
                let name = std::str::from_utf8(&entry.name).unwrap();
                let is_hidden = |name: &str| is_left_out(ServerRole::Sender, name);
                !is_hidden(name) && !parts(name).iter().any(|part| is_hidden(part))
            });
            upload.go().ended.assert_clean();
        }
        Direction::Download => {
            let mut download = Download::new(Setup::new(server, options, &sides.source), &sides.target);
            download.rules = rules;
            download.excluded = excluded;
            let got = download.go();
            got.ended.assert_clean();
            for name in contents(&sides.target).into_keys().rev() {
                let path = sides.target.join(&name);
                if got.list.find(name.as_bytes()).is_none() && !is_left_out(ServerRole::Receiver, &name) {
                    // What is left in a folder keeps it.
                    let _ = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
                }
            }
        }
    }
    contents(&sides.target)
}

/// Both ways, with the result of the real client.
fn check(name: &str, tried: &[Tried], excluded: Excluded, files: &dyn Fn(&Sides), options: &[&str]) {
    let filters: Vec<_> = tried.iter().map(|one| format!("--filter={}", one.text)).collect();
    let options: Vec<_> = ["-rt", "--delete"]
        .into_iter()
        .chain(options.iter().copied())
        .chain(filters.iter().map(String::as_str))
        .collect();
    for server in Server::recent() {
        let delete = Delete { excluded: excluded == Excluded::Deleted, ..Delete::default() };
        let upload = UploadOptions { delete: Some(delete), ..UploadOptions::default() };
        for direction in [Direction::Download, Direction::Upload(Box::new(upload))] {
            let sides = Sides::new(name);
            files(&sides);
            let reference = sides.reference(&server, &options);
            println!("{direction:?}");
            assert_eq!(mirrored(&server, &sides, direction, tried, excluded), reference);
        }
    }
}

const KEEP: Tried =
    Tried { text: "- *.keep", action: Action::Exclude, side: Side::Unnamed, pattern: "*.keep" };

/// Both have files that the rule is about, and some that it is not about.
fn with_kept(sides: &Sides) {
    for name in ["file", "below/file", "source.keep"] {
        file(&sides.source, name, name);
    }
    for name in ["target.keep", "below/target.keep", "gone/target.keep", "gone/file"] {
        file(&sides.target, name, name);
    }
}

#[test]
fn case_56_excluded_files_go_as_well() {
    check("excluded", &[KEEP], Excluded::Deleted, &with_kept, &["--delete-excluded"]);
}

#[test]
fn case_55_excluded_files_stay() {
    check("kept", &[KEEP], Excluded::Kept, &with_kept, &[]);
}

#[test]
fn case_60_rules_for_one_side() {
    let rule = |text, side, pattern| Tried { text, action: Action::Exclude, side, pattern };
    let tried = [
        rule("-s a", Side::Sender, "a"),
        rule("H sub/", Side::Sender, "sub/"),
        rule("-r b", Side::Receiver, "b"),
    ];
    // Each name is on both sides, on the source's alone, and on the target's alone.
    check(
        "sides",
        &tried,
        Excluded::Kept,
        &|sides| {
            for (folder, sides) in [
                ("both", &[&sides.source, &sides.target][..]),
                ("from", &[&sides.source]),
                ("to", &[&sides.target]),
            ] {
                for side in sides {
                    file(side, &format!("{folder}/file"), side.to_str().unwrap());
                    for name in ["a", "b", "sub/file"] {
                        file(side, &format!("{folder}/{name}"), name);
                    }
                }
            }
        },
        &[],
    );
}

#[test]
fn case_61_rules_that_a_server_applies() {
    let rule = |text, action, pattern| Tried { text, action, side: Side::Unnamed, pattern };
    let (exclude, include) = (Action::Exclude, Action::Include);
    for tried in [
        &[rule("- /a.c", exclude, "/a.c")][..],
        &[rule("- *.o", exclude, "*.o")],
        &[rule("- build/", exclude, "build/")],
        &[rule("- /build/", exclude, "/build/")],
        &[rule("- sub/**/log", exclude, "sub/**/log")],
        &[rule("- sub/***", exclude, "sub/***")],
        &[rule("- [ab].?", exclude, "[ab].?")],
        &[rule("+ */", include, "*/"), rule("+ *.c", include, "*.c"), rule("- *", exclude, "*")],
        &[rule("+ a.o", include, "a.o"), rule("- *.o", exclude, "*.o")],
    ] {
        let filters: Vec<_> = tried.iter().map(|one| format!("--filter={}", one.text)).collect();
        for server in Server::recent() {
            let sides = Sides::new("patterns");
            for name in [
                "Makefile",
                "a.c",
                "a.o",
                "sub/b.c",
                "sub/b.o",
                "sub/deep/c.c",
                "sub/deep/build/log",
                "build/x",
            ] {
                file(&sides.source, name, name);
            }
            let options = ["-rt"].into_iter().chain(filters.iter().map(String::as_str));
            let reference = sides.reference(&server, &options.collect::<Vec<_>>());
            assert_ne!(reference, contents(&sides.source), "the rules leave something out");
            let options = Options { recursion: Recursion::Recursive, times: true, ..Options::default() };
            let mut download = Download::new(Setup::new(&server, options, &sides.source), &sides.target);
            download.rules = tried.iter().map(Tried::rule).collect();
            download.go().ended.assert_clean();
            assert_eq!(contents(&sides.target), reference, "{filters:?}");
        }
    }
}
