use proptest::prelude::*;

use super::*;
use crate::checksum::Algorithm;
use crate::negotiate::Compressor;

fn check(options: &Options, paths: &[&str], expected: &str) {
    let paths: Vec<&[u8]> = paths.iter().map(|path| path.as_bytes()).collect();
    assert_eq!(String::from_utf8(options.to_shell(&paths).unwrap()).unwrap(), expected);
}

fn tree() -> Options {
    Options { recursion: Recursion::Recursive, links: true, times: true, ..Options::default() }
}

fn upload(upload: UploadOptions) -> Direction {
    Direction::Upload(Box::new(upload))
}

#[test]
fn commands_are_those_of_the_examples() {
    check(&tree(), &["/P/src/"], "rsync --server --sender -ltre.LsfxCIvu . /P/src/");
    let up = Options { direction: upload(UploadOptions::default()), ..tree() };
    check(&up, &["/P/dst/"], "rsync --server -ltre.LsfxCIvu . /P/dst/");
    let archive = Options {
        direction: upload(UploadOptions { delete: Some(Delete::default()), ..UploadOptions::default() }),
        hard_links: true,
        owner: true,
        group: true,
        devices: true,
        permissions: true,
        compress: true,
        ..tree()
    };
    check(&archive, &["/P/dst/"], "rsync --server -lHogDtprze.LsfxCIvu --delete . /P/dst/");
}

#[test]
fn every_option_has_its_word() {
    let everything = Options {
        recursion: Recursion::Dirs,
        atimes: true,
        checksum: true,
        dry_run: true,
        relative: true,
        whole_file: true,
        one_file_system: true,
        prune_empty_dirs: true,
        compress: true,
        compress_choice: Some(Compressor::Zlibx),
        compress_level: Some(-3),
        checksum_choice: Some(Algorithm::Md5),
        checksum_seed: Some(-1),
        numeric_ids: true,
        timeout: Some(60),
        bwlimit: Some(100),
        block_len: Some(1024),
        in_place: Some(InPlace::AppendVerify),
        ignore_errors: true,
        remove_source_files: true,
        safe_links: true,
        copy_unsafe_links: true,
        files_from: true,
        ..Options::default()
    };
    let shared = "--numeric-ids --ignore-errors --remove-source-files --safe-links --copy-unsafe-links \
        --append --append --new-compress --compress-level=-3 --checksum-seed=-1 --timeout=60 --bwlimit=100 -B1024 \
        --checksum-choice=md5";
    check(
        &everything,
        &["a", "b"],
        &format!("rsync --server --sender -ndmWUcRxze.LsfxCIvu {shared} --files-from=- --from0 . a b"),
    );

    let receiving = UploadOptions {
        delete: Some(Delete { when: DeleteWhen::Delay, excluded: true, max: Some(0) }),
        force: true,
        update: true,
        sparse: true,
        omit_dir_times: true,
        omit_link_times: true,
        keep_dirlinks: true,
        executability: true,
        backup: true,
        backup_dir: Some(b"old ones".to_vec()),
        suffix: Some(b"~".to_vec()),
        partial: Some(Partial::Dir(b".part".to_vec())),
        delay_updates: true,
        temp_dir: Some(b"/tmp".to_vec()),
        size_only: true,
        existing: true,
        ignore_existing: true,
        max_size: Some(10),
        min_size: Some(1),
        modify_window: Some(2),
        basis_dirs: vec![
            BasisDir { kind: BasisKind::Link, path: b"../1".to_vec() },
            BasisDir { kind: BasisKind::Link, path: b"../2".to_vec() },
        ],
        fsync: true,
        mkpath: true,
        log_format: Some(b"%i".to_vec()),
    };
    let everything = Options { direction: upload(receiving), ..everything };
    let own = "--delete-delay --delete-excluded --max-delete=-1 --force --delay-updates --size-only --existing \
        --ignore-existing --fsync --mkpath --partial-dir .part --backup-dir old\\ ones --temp-dir /tmp \
        --link-dest ../1 --link-dest ../2 --suffix=\\~ --log-format=%i --max-size=10 --min-size=1 \
        --modify-window=2";
    check(&everything, &["d"], &format!("rsync --server -bundKmOJWUEcRxSze.LsfxCIvu {own} {shared} . d"));
}

#[test]
fn names_from_the_client_keep_their_paths_only_on_demand() {
    let named = Options { files_from: true, ..tree() };
    check(
        &named,
        &["/P"],
        "rsync --server --sender -ltre.LsfxCIvu --files-from=- --from0 --no-relative . /P",
    );
    let relative = Options { relative: true, ..named };
    check(&relative, &["/P"], "rsync --server --sender -ltrRe.LsfxCIvu --files-from=- --from0 . /P");
}

#[test]
fn secluded_words_go_round_the_shell() {
    let options = Options { timeout: Some(5), ..tree() };
    let paths: [&[u8]; 5] = [b"my dir/", b"-x", b"", b"*?[]\\", b"\\"];
    let secluded = options.to_secluded(&paths).unwrap();
    assert_eq!(secluded.shell, b"rsync --server --sender -sltre.LsfxCIvu");
    let words =
        b"rsync\0--server\0--sender\0-ltre.LsfxCIvu\0--timeout=5\0.\0my dir/\0./-x\0.\0\\*\\?\\[]\\\\\0\\\0\0";
    assert_eq!(secluded.words, words);
    let up = Options { direction: upload(UploadOptions::default()), ..tree() };
    assert_eq!(up.to_secluded(&[b"a"]).unwrap().shell, b"rsync --server -sltre.LsfxCIvu");
    for (paths, expected) in [
        (&[][..], CommandError::Paths(0)),
        (&[&b"a\0b"[..]], CommandError::Nul),
        (&[b"a[b"], CommandError::Wildcard),
    ] {
        assert_eq!(up.to_secluded(paths), Err(expected));
    }
}

#[test]
fn paths_are_never_options_nor_lost() {
    check(
        &tree(),
        &["-rf", "", "--", "~", "*"],
        "rsync --server --sender -ltre.LsfxCIvu . ./-rf . ./-- \\~ \\*",
    );
    let up = Options { direction: upload(UploadOptions::default()), ..tree() };
    assert_eq!(tree().to_words(&[]), Err(CommandError::Paths(0)));
    assert_eq!(up.to_words(&[]), Err(CommandError::Paths(0)));
    assert_eq!(up.to_words(&[b"a", b"b"]), Err(CommandError::Paths(2)));
    assert_eq!(up.to_words(&[b"a\0"]), Err(CommandError::Nul));
    let temp_dir = Some(Vec::new());
    let up = Options { direction: upload(UploadOptions { temp_dir, ..UploadOptions::default() }), ..tree() };
    assert_eq!(up.to_words(&[b"a"]), Err(CommandError::EmptyValue("--temp-dir")));
}

#[test]
fn a_filter_list_is_expected_when_it_is_sent() {
    let check = |options: &Options, expected| assert_eq!(options.is_filter_list_sent(), expected);
    check(&tree(), true);
    let up = Options { direction: upload(UploadOptions::default()), ..tree() };
    check(&up, false);
    check(&Options { prune_empty_dirs: true, ..up }, true);
    let delete = UploadOptions { delete: Some(Delete::default()), ..UploadOptions::default() };
    check(&Options { direction: upload(delete), ..tree() }, true);
}

#[test]
fn words_are_quoted_by_backslashes() {
    let check = |word: &str, expected: &str| assert_eq!(quote(word.as_bytes()), expected.as_bytes());
    check("my dir/", "my\\ dir/");
    check("a_-./=,:@%+Z9\u{e9}", "a_-./=,:@%+Z9\u{e9}");
    check("a\nb", "a'\n'b");
    check("", "''");
    check("$`\"'\\*?[]{}~#!&;|<>()^", "\\$\\`\\\"\\'\\\\\\*\\?\\[\\]\\{\\}\\~\\#\\!\\&\\;\\|\\<\\>\\(\\)\\^");
}

#[test]
fn what_is_passed_is_not_negotiated() {
    let offer =
        |options: &Options| options.to_offer(Protocol::V31, &[Algorithm::Xxh128], &[Compressor::Zstd]);
    let expected = Offer {
        newest: Protocol::V31,
        checksum: Choice::Negotiated(vec![Algorithm::Xxh128]),
        compressor: Some(Choice::Negotiated(vec![Compressor::Zstd])),
    };
    let compressed = Options { compress: true, ..Options::default() };
    assert_eq!(offer(&compressed), expected);
    assert_eq!(offer(&Options::default()), Offer { compressor: None, ..expected });
    let passed = Options {
        checksum_choice: Some(Algorithm::Md5),
        compress_choice: Some(Compressor::Zlib),
        ..compressed
    };
    let expected = Offer {
        newest: Protocol::V31,
        checksum: Choice::Passed(Algorithm::Md5),
        compressor: Some(Choice::Passed(Compressor::Zlib)),
    };
    assert_eq!(offer(&passed), expected);
}

#[cfg(unix)]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Asks the shell of this machine, many words at once.
    #[test]
    fn a_shell_yields_the_bytes(words in prop::collection::vec(prop::collection::vec(1..=0xff_u8, 0..20), 1..40)) {
        use std::os::unix::ffi::OsStringExt;
        let mut script = b"printf '%s\\0'".to_vec();
        for word in &words {
            script.push(b' ');
            script.extend(quote(word));
        }
        let script = std::ffi::OsString::from_vec(script);
        let output = std::process::Command::new("sh").arg("-c").arg(script).env("LC_ALL", "C").output().unwrap();
        let expected: Vec<u8> = words.iter().flat_map(|word| [word.as_slice(), b"\0"].concat()).collect();
        prop_assert_eq!(output.stdout, expected);
    }
}
