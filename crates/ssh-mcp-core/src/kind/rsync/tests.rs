use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    port::mirror::{FileFault, News, Skip},
    registry::Direction,
};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn kinds(course: &Course) -> Vec<String> {
    let word = |event: &Event| format!("{event:?}").split([' ', '{']).next().unwrap_or_default().to_owned();
    course.log.read(0, usize::MAX).events.iter().map(|(_, logged)| word(&logged.event)).collect()
}

fn planned(files: u64, bytes: u64) -> News<'static> {
    News::Planned { files, bytes }
}

fn skipped(path: &[u8]) -> News<'_> {
    News::Skipped { path, bytes: 5, because: Skip::Mtime }
}

#[test]
fn versions_are_read_from_what_hosts_print() {
    let usable = |version: &str, protocol| Probe::Usable { version: version.to_owned(), protocol };
    for (line, expected) in [
        ("rsync  version 3.2.7  protocol version 31\nCopyright", usable("3.2.7", 31)),
        ("rsync  version v3.4.1dev  protocol version 32\n", usable("v3.4.1dev", 32)),
        ("Welcome to box\nrsync  version 3.2.0  protocol version 31", usable("3.2.0", 31)),
        ("rsync  version 4.0.0  protocol version 33", usable("4.0.0", 33)),
    ] {
        assert_eq!(probe(line.as_bytes(), b""), expected, "{line}");
    }
    for line in [
        "rsync  version 3.1.3  protocol version 31",
        "rsync  version 3.2.0  protocol version 30",
        "rsync  version x  protocol version 31",
    ] {
        assert_eq!(probe(line.as_bytes(), b""), Probe::TooOld { found: line.to_owned() });
    }
    let other = "openrsync: protocol version 29";
    let other_found = Probe::Other { found: other.to_owned() };
    assert_eq!(probe(format!("{other}\nrsync version 2.6.9 compatible\n").as_bytes(), b""), other_found);
    let missing = |words: &str| Probe::Missing { words: words.to_owned() };
    assert_eq!(probe(b"", b"\nsh: rsync: not found\n"), missing("sh: rsync: not found"));
    assert_eq!(
        probe(b"This service allows sftp connections only.\n", b""),
        missing("This service allows sftp connections only.")
    );
    assert_eq!(probe(b"\xff", b""), missing("\u{fffd}"));
    assert_eq!(probe(b"", b""), missing("it says nothing"));
}

#[test]
fn a_label_marks_the_far_side() {
    let ok = |src: &str, dst: &str| sides(src, dst, None).unwrap();
    let up = ok("/a/b", "host:/c");
    assert_eq!((up.direction, up.local.as_str(), up.remote.as_str()), (Direction::Upload, "/a/b", "/c"));
    let down = ok("me@box:rel/", "here");
    assert_eq!(
        (down.direction, down.local.as_str(), down.remote.as_str()),
        (Direction::Download, "here", "rel/")
    );
    assert!(down.content && !up.content);
    assert_eq!(ok("./a:b", "h:").remote, "");
    // A drive is no label, and a letter is one where no slash follows.
    assert_eq!(ok("C:\\data", "box:/x").local, "C:\\data");
    assert_eq!(ok("c:/data", "box:/x").direction, Direction::Upload);
    assert_eq!(ok("c:data", "/x").direction, Direction::Download);
    // A second colon belongs to the path.
    assert_eq!(ok("a", "box:x:y").remote, "x:y");
    assert_eq!(sides("a", "b", None), Err(SidesError::BothLocal));
    assert_eq!(sides("a/b:c", ":b", None), Err(SidesError::BothLocal));
    assert_eq!(sides("x:a", "y:b", None), Err(SidesError::BothRemote));
    assert_eq!(sides("", "y:b", None), Err(SidesError::Nowhere));
    let directed = sides("x:a", "y:b", Some(Direction::Download)).unwrap();
    assert_eq!((directed.remote.as_str(), directed.local.as_str()), ("x:a", "y:b"));
}

#[test]
fn a_source_without_a_name_of_its_own_is_its_content() {
    for (source, content) in
        [("a", false), ("a/", true), ("a/.", true), (".", true), ("..", true), ("/", true), ("a/.b", false)]
    {
        assert_eq!(sides(source, "x:y", None).unwrap().content, content, "{source}");
    }
    assert!(sides("box:", "y", None).unwrap().content);
}

#[test]
fn nothing_is_deleted_at_a_root_or_an_empty_path() {
    let up = |to: &str| sides("a", to, Some(Direction::Upload)).unwrap().no_delete();
    let down = |to: &str| sides("a", to, Some(Direction::Download)).unwrap().no_delete();
    for root in ["/", "//", "/.", "/..", "/a/..", "C:/", "C:\\", "/C:/", "/c:", "C:\\x\\.."] {
        assert!(up(root).is_some() && down(root).is_some(), "{root}");
    }
    for fine in ["/a", "a", ".", "~", "C:\\x", "/a/../b", "a/.."] {
        assert!(up(fine).is_none() && down(fine).is_none(), "{fine}");
    }
    assert!(up("").unwrap().contains("login directory"));
}

#[test]
fn the_way_follows_the_wish_and_the_host() {
    let usable = Probe::Usable { version: "3.2.7".into(), protocol: 31 };
    let old = Probe::TooOld { found: "rsync  version 3.1.0".into() };
    let other = Probe::Other { found: "openrsync".into() };
    let missing = Probe::Missing { words: "not found".into() };
    let plain = Options::default();
    let (auto, wire, sftp) = (Way::Auto, Way::Only(Transport::Wire), Way::Only(Transport::Sftp));
    for (way, probe, expected) in [
        (auto, &usable, Ok(Transport::Wire)),
        (auto, &old, Ok(Transport::Sftp)),
        (auto, &other, Ok(Transport::Sftp)),
        (auto, &missing, Ok(Transport::Sftp)),
        (wire, &usable, Ok(Transport::Wire)),
        (wire, &old, Err(NoWay::TooOld("rsync  version 3.1.0".into()))),
        (wire, &other, Err(NoWay::TooOld("openrsync".into()))),
        (wire, &missing, Err(NoWay::Unavailable("not found".into()))),
        (sftp, &usable, Ok(Transport::Sftp)),
        (sftp, &missing, Ok(Transport::Sftp)),
    ] {
        assert_eq!(choose(way, probe, &plain), expected, "{way:?} {probe:?}");
    }
    for (options, option) in [
        (Options { hard_links: true, ..plain }, "preserve.hardlinks"),
        (Options { checksum: true, ..plain }, "verify_checksum"),
        (Options { devices: Devices::Asked, ..plain }, "preserve.devices"),
    ] {
        assert_eq!(choose(auto, &usable, &options), Ok(Transport::Wire));
        assert_eq!(choose(sftp, &usable, &options), Err(NoWay::FeatureMissing { option, because: None }));
        let refused = choose(auto, &missing, &options).unwrap_err();
        assert!(
            refused.to_string().contains(option) && refused.to_string().contains("not found"),
            "{refused}"
        );
    }
    let implied = Options { devices: Devices::Implied, ..plain };
    assert_eq!(choose(sftp, &usable, &implied), Ok(Transport::Sftp));
}

#[test]
fn each_file_counts_once() {
    let course = Course::new(Transport::Sftp, false);
    assert_eq!(course.status(), Status::Pending);
    course.begin();
    assert_eq!(course.status(), Status::Probing);
    course.tell(ms(1), planned(4, 100));
    assert_eq!(course.status(), Status::Running);
    course.tell(ms(2), News::Started { path: b"a", total: 60 });
    course.tell(ms(3), News::Moving { path: b"a", done: 30, total: 60 });
    course.tell(ms(4), News::Completed { path: b"a", transferred: 50, skipped: 10 });
    course.tell(ms(5), skipped(b"b"));
    let failed =
        |planned| News::Failed { path: b"c\xff", fault: FileFault::IoError, detail: "no\nway", planned };
    course.tell(ms(6), failed(true));
    course.tell(ms(7), failed(false));
    course.tell(ms(8), News::Skipped { path: b"d", bytes: 35, because: Skip::DryRun });
    course.tell(ms(9), News::Deleted { path: b"e", dry_run: true });
    course.tell(ms(10), News::Deleted { path: b"f", dry_run: false });
    let expected = Stats {
        files_total: 4,
        files_done: 3,
        bytes_total: 100,
        bytes_transferred: 50,
        bytes_skipped: 50,
        files_deleted: 2,
        files_failed: 2,
    };
    assert_eq!(course.stats(), expected);
    let events = course.log.read(0, usize::MAX).events;
    let told: Vec<&Event> = events.iter().map(|(_, logged)| &logged.event).collect();
    assert_eq!(
        *told[0],
        Event::SessionStarted { transport: Transport::Sftp, files_planned: 4, bytes_planned: 100 }
    );
    assert_eq!(
        *told[4],
        Event::FileFailed { rel_path: "c\u{fffd}".into(), code: "IO_ERROR", detail: "no\\nway".into() }
    );
    assert_eq!(*told[7], Event::FileSkipped { rel_path: "e".into(), reason: "dry_run" });
    assert_eq!(told.len(), 8, "a deletion is counted and not told");
    course.close(ms(11));
    course.tell(ms(12), skipped(b"late"));
    course.finish(ms(13), None, Some("a directory failed"));
    assert_eq!(course.stats(), expected);
    let last = course.log.read(8, usize::MAX);
    let completed =
        Event::SyncCompleted { stats: expected, delete_skipped: Some("a directory failed".into()) };
    assert_eq!((last.ended, &last.events[0].1.event), (true, &completed));
}

#[test]
fn progress_is_told_four_times_a_second_and_the_newest_stays() {
    let course = Course::new(Transport::Wire, false);
    course.tell(ms(0), planned(1, 10_000));
    course.tell(ms(0), News::Started { path: b"a", total: 10_000 });
    for tick in 1..=1000 {
        course.tell(ms(tick), News::Moving { path: b"a", done: tick * 10, total: 10_000 });
    }
    assert_eq!(kinds(&course), ["SessionStarted", "FileStarted", "FileProgress", "SyncProgress"]);
    let window = course.log.read(0, usize::MAX);
    // Two of the start, and four of each kind.
    assert_eq!(window.end, 10);
    let newest = |at: usize| window.events[at].1.event.clone();
    assert_eq!(
        newest(2),
        Event::FileProgress { rel_path: "a".into(), bytes_done: 10_000, bytes_total: 10_000 }
    );
    let expected =
        Event::SyncProgress { files_done: 0, files_total: 1, bytes_done: 10_000, bytes_total: 10_000 };
    assert_eq!(newest(3), expected);
    // A file that fails takes back what it had moved, but nobody is told of less.
    course.tell(ms(1300), News::Failed { path: b"a", fault: FileFault::IoError, detail: "", planned: true });
    assert_eq!(course.log.read(11, 9).events[0].1.event, expected);
}

#[test]
fn the_first_event_and_the_last_outlive_ten_thousand_files() {
    let course = Course::new(Transport::Wire, false);
    course.tell(ms(0), planned(10_000, 50_000));
    for _ in 0..10_000 {
        course.tell(ms(0), skipped(b"x"));
    }
    course.close(ms(1));
    course.finish(ms(1), None, None);
    let kinds = kinds(&course);
    assert_eq!(
        (kinds.len(), kinds[0].as_str(), kinds[KEPT].as_str()),
        (KEPT + 1, "SessionStarted", "SyncCompleted")
    );
}

#[test]
fn another_way_is_taken_only_while_nothing_but_the_plan_was_told() {
    let course = Course::new(Transport::Wire, true);
    course.begin();
    course.tell(ms(0), planned(2, 9));
    assert!(course.log.read(0, 9).events.is_empty());
    assert!(course.fall_back(Transport::Sftp, "is your shell clean?".into()));
    assert_eq!(
        (course.transport(), course.fell_back().as_deref()),
        (Transport::Sftp, Some("is your shell clean?"))
    );
    assert!(!course.fall_back(Transport::Sftp, "again".into()));
    course.tell(ms(1), planned(2, 9));
    let first = Event::SessionStarted { transport: Transport::Sftp, files_planned: 2, bytes_planned: 9 };
    assert_eq!(course.log.read(0, 9).events[0].1.event, first);

    let late = Course::new(Transport::Wire, true);
    late.tell(ms(0), planned(1, 5));
    late.tell(ms(0), skipped(b"a"));
    assert!(!late.fall_back(Transport::Sftp, "words".into()));
    assert_eq!(kinds(&late), ["SessionStarted", "FileSkipped"]);

    // One that ends without a file has said how it began.
    let empty = Course::new(Transport::Wire, true);
    empty.tell(ms(0), planned(0, 0));
    empty.close(ms(1));
    empty.finish(ms(1), None, None);
    assert_eq!(kinds(&empty), ["SessionStarted", "SyncCompleted"]);
}

#[test]
fn what_is_told_of_an_end_is_no_longer_than_a_kibibyte() {
    let fault = Fault::new(Failure::Protocol, "ü".repeat(1000));
    assert_eq!(fault.detail.len(), 1024);
    assert_eq!(Fault::new(Failure::Protocol, format!("x{}", "ü".repeat(1000))).detail.len(), 1023);
}

proptest! {
    /// lifecycle 6.50
    #[test]
    fn whatever_is_told_no_counter_falls(steps in prop::collection::vec((0_u8..6, 0_u8..3, 0_u64..50), 1..200)) {
        let course = Course::new(Transport::Wire, false);
        let mut before = course.stats();
        for (at, (what, path, count)) in steps.into_iter().enumerate() {
            let path = &[path][..];
            course.tell(ms(at as u64 * 100), match what {
                0 => planned(count, count),
                1 => News::Started { path, total: count },
                2 => News::Moving { path, done: count, total: count },
                3 => News::Completed { path, transferred: count, skipped: 1 },
                4 => News::Failed { path, fault: FileFault::IoError, detail: "", planned: count % 2 == 0 },
                _ => News::Deleted { path, dry_run: count % 2 == 0 },
            });
            let now = course.stats();
            prop_assert!(now.files_done <= now.files_total);
            let counters = |stats: Stats| [
                stats.files_total, stats.files_done, stats.bytes_total, stats.bytes_transferred,
                stats.bytes_skipped, stats.files_deleted, stats.files_failed,
            ];
            prop_assert!(counters(before).iter().zip(counters(now)).all(|(before, now)| *before <= now));
            before = now;
        }
    }

    #[test]
    fn any_paths_and_any_words_are_read(src in ".{0,30}", dst in ".{0,30}", output in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(sides) = sides(&src, &dst, None) {
            let whole = match sides.direction {
                Direction::Upload => &dst,
                Direction::Download => &src,
            };
            let behind = format!(":{}", sides.remote);
            prop_assert!(whole.ends_with(&behind));
        }
        let read = probe(&output, &output);
        prop_assert_eq!(&read, &probe(&output, &output));
    }
}
