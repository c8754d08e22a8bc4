//! Cases 75 to 82, 86 and 90: the handshake and the list.

use ssh_mcp_core::port::mirror::{BrokenKind, Job};

use super::server::Script;
use super::words::{
    FILTERS, Listed, NO_SUMS, REQUEST, Talk, WANTED, WANTED_NEW, data, directory, download, file, greeting,
    hard_link, hello, hello_until_names, list, root, symlink,
};
use super::{Encounter, Ground};
use crate::snapshot::Kind;
use crate::tree::is_root;

/// A download of a list, or of what is in its place.
async fn listed(ground: &Ground, job: Job, list: Vec<u8>) -> Encounter {
    ground.meets_with(job, Script::new().send(greeting()).send(list).exit(0)).await
}

/// The list is refused for a reason in which the words occur, and nothing is written.
#[track_caller]
fn assert_listed_in_vain(ground: &Ground, met: &Encounter, words: &str) {
    met.assert_refused(words);
    ground.assert_untouched();
    assert!(!met.result.as_ref().unwrap_err().touched);
}

#[tokio::test]
async fn case_75_names_that_lead_elsewhere() {
    let ground = Ground::download();
    for (name, words) in [
        (&b"../x"[..], "climbs"),
        (b"..", "climbs"),
        (b"/etc/x", "absolute"),
        (b"a/../../x", "climbs"),
        (b"a//b", "plain form"),
        (b"a/", "plain form"),
        (b"./a", "plain form"),
        (b"", "empty name"),
        (b"a\0b", "NUL"),
        (&[b'a'; 256], "too long"),
        (&[&b"a/"[..]; 2500].concat(), "too long"),
    ] {
        for entry in [file(name, 1), directory(name), symlink(name, "/")] {
            let met = listed(&ground, ground.job(), list(&[root(), directory("a"), entry])).await;
            assert_listed_in_vain(&ground, &met, words);
        }
        let mut job = ground.job();
        job.options.hard_links = true;
        let leader = Listed { flags: 0x1218, ..file("leader", 1) };
        let met = listed(&ground, job, list(&[root(), leader, hard_link(name, 1)])).await;
        assert_listed_in_vain(&ground, &met, words);
    }
    // Put together of parts that are harmless alone.
    let climber = Listed { shared: Some(1), ..file("./x", 1) };
    let met = listed(&ground, ground.job(), list(&[root(), climber])).await;
    assert_listed_in_vain(&ground, &met, "climbs");
}

#[tokio::test]
async fn case_76_names_nobody_asked_for() {
    let ground = Ground::download();
    let asked_for = |remote: &[u8]| Job { remote: remote.to_vec(), content: false, ..ground.job() };
    for entries in [
        vec![directory("d"), file("x", 1)],
        vec![file("d2", 1)],
        vec![directory("d"), symlink("d2", "/")],
        vec![root()],
        vec![file("d", 1), file("d/x", 1)],
    ] {
        let met = listed(&ground, asked_for(b"/far/d"), list(&entries)).await;
        assert_listed_in_vain(&ground, &met, "which was not asked for");
    }
    for mode in [0o100_644, 0o120_777, 0o010_644] {
        let target = (mode == 0o120_777).then(|| b"x".to_vec());
        let met = listed(&ground, ground.job(), list(&[Listed { mode, target, ..root() }])).await;
        assert_listed_in_vain(&ground, &met, "the root is no directory");
    }
    // What is in a directory is not asked for if it is not to be entered.
    for (content, entries) in
        [(true, vec![root(), file("x", 1)]), (false, vec![directory("far"), file("far/x", 1)])]
    {
        let mut job = Job { content, ..ground.job() };
        job.options.recursive = false;
        let met = listed(&ground, job, list(&entries)).await;
        assert_listed_in_vain(&ground, &met, "which was not asked for");
    }
}

/// Sends `d/x` behind entries that make `d` lead elsewhere, and the file if it is asked for.
async fn through(ground: &Ground, before: &[Listed], index: u32) -> Encounter {
    let entries = [&[root()], before, &[file("d/x", 4)]].concat();
    ground.meets(download(&entries, REQUEST, |talk| talk.whole(index, b"harm"))).await
}

#[tokio::test]
async fn case_77_a_link_that_stands_where_a_directory_should() {
    // Only the link: what is in it is in no directory.
    for target in ["../bait", "/", "."] {
        let ground = Ground::download();
        let met = through(&ground, &[symlink("d", target)], 2).await;
        assert_listed_in_vain(&ground, &met, "in no directory");
    }
    // Link and directory of one name, in either order: the directory is used, and the link never is.
    for entries in [[symlink("d", "../bait"), directory("d")], [directory("d"), symlink("d", "../bait")]] {
        let ground = Ground::download();
        through(&ground, &entries, 3).await.assert_done();
        assert_eq!(ground.kind("d"), Some(Kind::Directory));
        assert_eq!(ground.content("d/x").as_deref(), Some(&b"harm"[..]));
    }
    // A link that is there already gives way to the directory.
    let ground = Ground::download();
    ground.here().link("d", "../bait");
    through(&ground, &[directory("d")], 2).await.assert_done();
    assert_eq!(ground.kind("d"), Some(Kind::Directory));
    assert_eq!(ground.content("d/x").as_deref(), Some(&b"harm"[..]));
}

#[tokio::test]
async fn case_77_nothing_is_deleted_behind_a_link() {
    for is_dry in [false, true] {
        let ground = Ground::download();
        let mut job = ground.job();
        (job.options.delete, job.options.dry_run) = (true, is_dry);
        let script = download(&[root(), directory("out"), directory("out/inner")], 0, |talk| talk);
        let met = ground.meets_with(job, script).await;
        met.assert_done();
        let deleted: Vec<_> = met.told.iter().filter(|told| told.starts_with("Deleted")).collect();
        assert_eq!(deleted, ["Deleted secret"]);
    }
}

#[tokio::test]
async fn case_77_nothing_is_laid_aside_behind_a_link() {
    const NAME: &str = ".rsync-partial";
    for is_listed in [false, true] {
        let ground = Ground::download();
        let mut job = ground.job();
        job.options.partial = true;
        let mut entries = vec![root(), file("a", 100_000)];
        if is_listed {
            entries.push(symlink(NAME, "../bait"));
        } else {
            ground.here().link(NAME, "../bait");
        }
        let index = entries.len() as u32 - 1;
        let literal = vec![b'x'; 50_000];
        let begun =
            Talk::default().say(|talk| talk.record(index, WANTED_NEW).head(NO_SUMS).literal(&literal));
        // The client excludes the directory by a rule.
        let asked = FILTERS + 4 + "-p .rsync-partial/".len() + REQUEST + 1;
        let script = Script::new().send(greeting()).send(list(&entries)).until(asked).send(begun);
        let met = ground.meets_with(job, script).await;
        met.assert_broken(BrokenKind::Partial, "the stream ended early");
        assert_eq!(ground.kind(NAME), Some(Kind::Symlink(b"../bait".to_vec())));
        assert_eq!(ground.content("a"), None);
    }
}

#[tokio::test]
async fn case_77_a_file_takes_the_place_of_a_link_and_not_of_what_it_leads_to() {
    let ground = Ground::download();
    let answer = |talk: Talk| talk.record(1, WANTED).head(NO_SUMS).literal(b"harm").end(b"harm");
    ground.meets(download(&[root(), file("secret", 4)], REQUEST, answer)).await.assert_done();
    assert_eq!(ground.content("secret").as_deref(), Some(&b"harm"[..]));
}

#[tokio::test]
async fn case_78_entries_without_a_parent() {
    let ground = Ground::download();
    for entries in [
        vec![root(), file("d/x", 1)],
        vec![root(), directory("d"), file("d/e/x", 1)],
        vec![root(), file("d", 1), file("d/x", 1)],
        vec![root(), directory("out/inner")],
    ] {
        let met = listed(&ground, ground.job(), list(&entries)).await;
        assert_listed_in_vain(&ground, &met, "in no directory");
    }
}

#[tokio::test]
async fn case_79_numbers_that_cannot_be() {
    let ground = Ground::download();
    for (entry, words) in [
        (Listed { shared: Some(2), ..file("x", 1) }, "shares 2 bytes of a name of 1"),
        (Listed { shared: Some(255), ..file("x", 1) }, "shares 255 bytes"),
        (Listed { nanoseconds: Some(1_000_000_000), ..file("x", 1) }, "nanoseconds out of range"),
        (Listed { nanoseconds: Some(-1), ..file("x", 1) }, "nanoseconds out of range"),
        (file("x", -1), "size out of range"),
        (file("x", i64::MIN), "size out of range"),
        (Listed { length: Some(-1), ..file("x", 1) }, "too long"),
        (Listed { length: Some(i32::MAX), ..file("x", 1) }, "too long"),
        (Listed { length: Some(4096), ..file("x", 1) }, "too long"),
        (Listed { mode: 0, ..file("x", 1) }, "no type of file"),
        (Listed { mode: 0o150_644, ..file("x", 1) }, "no type of file"),
        (Listed { mode: -1, ..file("x", 1) }, "no type of file"),
        (Listed { mode: 0o200_000, ..file("x", 1) }, "no type of file"),
        (Listed { flags: 0x218, ..file("x", 1) }, "unexpected flags 0x200"),
        (Listed { flags: 0x418, ..file("x", 1) }, "unexpected flags 0x400"),
        (Listed { flags: i32::MIN | 0x18, ..file("x", 1) }, "unexpected flags"),
        (symlink("x", ""), "target out of range"),
        (symlink("x", [b'a'; 4096]), "target out of range"),
        (symlink("x", "a\0b"), "target out of range"),
    ] {
        let met = listed(&ground, ground.job(), list(&[root(), entry])).await;
        assert_listed_in_vain(&ground, &met, words);
    }
}

#[tokio::test]
async fn case_79_numbers_at_their_limits_are_borne() {
    let ground = Ground::download();
    let sizes = ["a", "b", "c", "d"].map(|name| file(name, i64::MAX));
    let times = [i64::MIN, i64::MAX].map(|mtime| Listed { mtime, ..directory(format!("at {mtime}")) });
    let entries = [&[root()], &sizes[..], &times[..]].concat();
    let met = ground
        .meets(Script::new().send(greeting()).send(list(&entries)).until(FILTERS + 4 * REQUEST).exit(0))
        .await;
    met.assert_broken(BrokenKind::Protocol, "the stream ended early");
    assert!(met.told.contains(&format!("Planned 4 {}", u64::MAX)), "{:?}", met.told);
}

#[tokio::test]
async fn case_80_hard_links_that_lead_nowhere() {
    let ground = Ground::download();
    let mut job = ground.job();
    job.options.hard_links = true;
    let leader = Listed { flags: 0x1218, ..file("leader", 1) };
    for (entries, words) in [
        (vec![leader.clone(), hard_link("x", 7)], "entry 7, which leads none"),
        (vec![leader.clone(), hard_link("x", -1)], "entry -1, which leads none"),
        (vec![leader.clone(), hard_link("x", 2)], "entry 2, which leads none"),
        (vec![file("leader", 1), hard_link("x", 1)], "entry 1, which leads none"),
        (vec![directory("d"), hard_link("x", 1)], "entry 1, which leads none"),
        (vec![Listed { flags: 0x1218, ..directory("d") }], "directory that is a hard link"),
        (vec![leader.clone(), hard_link("x", 1), hard_link("y", 2)], "entry 2, which leads none"),
        (vec![leader.clone(), hard_link(".", 1)], "the root is no directory"),
        (vec![leader, hard_link("x/y", 1)], "in no directory"),
    ] {
        let met = listed(&ground, job.clone(), list(&[&[root()], &entries[..]].concat())).await;
        assert_listed_in_vain(&ground, &met, words);
    }
}

#[tokio::test]
async fn case_80_hard_links_of_a_link_are_no_links_of_its_target() {
    let ground = Ground::download();
    let mut job = ground.job();
    job.options.hard_links = true;
    let leader = Listed { flags: 0x1218, ..symlink("a", "../bait/secret") };
    let script = download(&[root(), leader, hard_link("b", 1)], 0, |talk| talk);
    ground.meets_with(job, script).await.assert_done();
    assert_eq!(ground.kind("b"), Some(Kind::Symlink(b"../bait/secret".to_vec())));
}

#[tokio::test]
async fn devices_nobody_asked_for_are_not_made() {
    if !is_root() {
        return crate::servers::skip_aloud("only root can make devices");
    }
    let ground = Ground::download();
    let entries = [
        root(),
        Listed { mode: 0o020_666, ..file("null", 0) },
        Listed { mode: 0o010_666, ..file("fifo", 0) },
    ];
    ground.meets(download(&entries, 0, |talk| talk)).await.assert_done();
    assert_eq!((ground.kind("null"), ground.kind("fifo")), (None, None));
}

#[tokio::test]
async fn case_81_and_82_handshakes_that_are_none() {
    let names = |length: [u8; 2], names: &[u8]| [&hello_until_names()[..], &length, names].concat();
    let version = |version: i32| [&version.to_le_bytes()[..], &greeting()[4..]].concat();
    for (bytes, words) in [
        ([&32_i32.to_le_bytes()[..], &[0x81, 0xff]].concat(), "lists in pieces"),
        (version(19), "is your shell clean?"),
        (version(41), "is your shell clean?"),
        (version(-1), "is your shell clean?"),
        (version(29), "protocol 29"),
        (b"Welcome to this machine!\r\n\x1b[31mYou have mail.\n".to_vec(), "Welcome to this machine!\\r\\n"),
        (b"\n".repeat(100_000), "is your shell clean?"),
        (names([0xff, 0xff], &[b'x'; 32767]), "malformed handshake"),
        (names([0x81, 0x00], &[b' '; 256]), "malformed handshake"),
        (names([0x80, 0xff], &[b'\n'; 255]), "no common checksum"),
        (names([0, 0], b""), "no common checksum"),
        (hello(&["md4 none sha1"]), "no common checksum"),
        ([&32_i32.to_le_bytes()[..], &[0xf8, 0xff]].concat(), "malformed handshake"),
    ] {
        for ground in [Ground::download(), Ground::upload()] {
            let met = ground.meets(Script::new().send(bytes.clone()).exit(0)).await;
            assert_listed_in_vain(&ground, &met, words);
        }
    }
}

#[tokio::test]
async fn case_86_numbers_that_have_no_end() {
    let ground = Ground::download();
    for (bytes, words) in [
        (vec![0xf8, 1, 2, 3, 4, 5], "malformed file list"),
        (vec![0xff; 9], "malformed file list"),
        // An entry whose size, or time, takes more than nine bytes.
        ([&[0x18, 1, b'x'][..], &[0xff; 20]].concat(), "size out of range"),
        ([&[0x18, 1, b'x', 0, 0, 0][..], &[0xff; 20]].concat(), "malformed file list"),
    ] {
        let met = listed(&ground, ground.job(), data(&bytes)).await;
        assert_listed_in_vain(&ground, &met, words);
    }
    for (bytes, words) in [
        (vec![0xff, 0xff], "malformed record"),
        (vec![0xff, 0x01], "unexpected file index ListsEnd"),
        (vec![0xff, 0x02], "unexpected file index Statistics"),
        (vec![0xff, 0x63], "malformed record"),
        (vec![0xff, 0xfe, 0x7f, 0xff], "unexpected file index Directory"),
        (vec![0xfe, 0xff, 0xff, 0xff, 0xff, 0, 0x60], "unexpected file index File(2147483647)"),
    ] {
        let met = listed(&ground, ground.job(), [list(&[root()]), data(&bytes)].concat()).await;
        met.assert_refused(words);
    }
    // The last index there is, and the one behind it.
    let ground = Ground::upload();
    let bytes = [0xfe, 0xff, 0xff, 0xff, 0xff, 0, 0x60, 1, 0, 0x60];
    let met = ground.meets(Script::new().send(greeting()).send(data(bytes)).exit(0)).await;
    met.assert_refused("unexpected file index File(2147483647)");
}

#[tokio::test]
async fn case_90_a_list_without_end_is_stopped() {
    let ground = Ground::download();
    // The same entry again, and one that is not the same.
    for entries in
        [data(file("x", 1).bytes().repeat(1000)), data(symlink("y", [b'y'; 4095]).bytes().repeat(100))]
    {
        let script = Script::new().send(greeting()).repeat(entries, 100_000);
        let met = ground.meets(script).await;
        met.assert_broken(BrokenKind::ListTooLarge, "too many");
        ground.assert_untouched();
    }
}
