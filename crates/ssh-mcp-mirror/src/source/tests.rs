use std::{fs, io::Write, os::unix::fs::symlink};

use super::*;
use crate::tests::{ALL, is_root, needs_root, path, set_mode, set_mtime};

/// What a scan found: entries, and what was told to be unread.
type Listed = (Vec<Entry>, Vec<Vec<u8>>, Scanned);

fn scan_with(source: &Source, wanted: &Wanted<'_>) -> Result<Listed, ScanError<()>> {
    let (mut entries, mut unread) = (Vec::new(), Vec::new());
    let scanned = source.scan(wanted, &mut |found| {
        match found {
            Found::Entry(entry) => entries.push(entry),
            Found::Unread { path, .. } => unread.push(path.to_vec()),
        }
        Ok(())
    })?;
    assert_eq!(scanned.entries as usize, entries.len());
    Ok((entries, unread, scanned))
}

fn scan(source: &Source, options: &Options) -> Listed {
    scan_with(source, &wanted(options, &|_, _| true, &Effort::default())).unwrap()
}

fn wanted<'a>(
    options: &'a Options,
    takes: &'a dyn Fn(&[u8], bool) -> bool,
    effort: &'a Effort,
) -> Wanted<'a> {
    Wanted { options, algorithm: Algorithm::Xxh128, nanoseconds: true, limit: 1000, takes, effort }
}

fn names(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| str::from_utf8(&entry.name).unwrap()).collect()
}

fn tree() -> tempfile::TempDir {
    let top = tempfile::tempdir().unwrap();
    fs::create_dir_all(top.path().join("src/b/c")).unwrap();
    fs::create_dir(top.path().join("src/d")).unwrap();
    for file in ["src/a", "src/b/a", "src/b/c/x", "src/z", "beside"] {
        fs::write(top.path().join(file), file).unwrap();
    }
    symlink("nowhere", top.path().join("src/link")).unwrap();
    top
}

#[test]
fn names_are_those_of_the_top() {
    let top = tree();
    let source = top.path().join("src");
    let content = ["a", "b", "d", "link", "z", "b/a", "b/c", "b/c/x"];
    let (entries, ..) = scan(&Source::open(&source, true).unwrap(), &ALL);
    assert_eq!(names(&entries), [&["."], &content[..]].concat());
    assert_eq!(entries[0].kind, Kind::Directory(Content::Top));
    assert_eq!(entries[2].kind, Kind::Directory(Content::Listed));

    let (entries, ..) = scan(&Source::open(&source, false).unwrap(), &ALL);
    let below: Vec<String> = content.iter().map(|name| format!("src/{name}")).collect();
    assert_eq!(
        names(&entries),
        [&["src"], &below.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat()
    );
    assert_eq!(entries[0].kind, Kind::Directory(Content::Listed));

    for (name, size) in [("a", 5), ("link", 7)] {
        let (entries, ..) = scan(&Source::open(&source.join(name), false).unwrap(), &ALL);
        assert_eq!(names(&entries), [name]);
        assert_eq!(entries[0].size, size);
    }
    for content in [true, false] {
        let (entries, ..) =
            scan(&Source::open(&source, content).unwrap(), &Options { recursive: false, ..ALL });
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].kind, Kind::Directory(Content::Unlisted));
    }
    assert!(Source::open(&source.join("nothing"), true).is_err());
    assert!(Source::open(&source.join("a"), true).is_err());
    let missing = Source::open(&source.join("nothing"), false).unwrap();
    let missing = scan_with(&missing, &wanted(&ALL, &|_, _| true, &Effort::default()));
    assert!(matches!(missing, Err(ScanError::Top(_))));
}

#[test]
fn only_files_of_the_list_are_read() {
    let top = tree();
    let source = Source::open(&top.path().join("src"), false).unwrap();
    let mut cursor = source.cursor();
    let mut text = String::new();
    source.read(&mut cursor, b"src/b/c/x").unwrap().0.read_to_string(&mut text).unwrap();
    assert_eq!(text, "src/b/c/x");
    for other in ["beside", "src", "src/b", "src/link", "src/../beside", "../x", "/etc/passwd", "src/nothing"]
    {
        assert!(source.read(&mut cursor, other.as_bytes()).is_err(), "{other}");
    }
    // What has become a link since leads nowhere.
    fs::rename(top.path().join("src/d"), top.path().join("d")).unwrap();
    symlink(top.path(), top.path().join("src/d")).unwrap();
    assert!(source.read(&mut cursor, b"src/d/beside").is_err());
}

#[test]
fn entries_say_what_files_are() {
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join(name);
    fs::write(at("file"), "content").unwrap();
    set_mode(&at("file"), 0o4751);
    set_mtime(&at("file"), -5, 17);
    fs::hard_link(at("file"), at("same")).unwrap();
    symlink("file", at("link")).unwrap();
    let source = Source::open(top.path(), true).unwrap();
    source.cursor().at(b"fifo").unwrap().make_node(FileType::Fifo, Default::default()).unwrap();
    source.cursor().at(b"socket").unwrap().make_node(FileType::Socket, Default::default()).unwrap();

    let (entries, _, scanned) = scan(&source, &Options { checksum: true, ..ALL });
    assert_eq!(names(&entries), [".", "fifo", "file", "link", "same", "socket"]);
    let [uid, gid] = [rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()];
    let file = Entry {
        name: b"file".to_vec(),
        size: 7,
        mtime: Time { seconds: -5, nanoseconds: 17 },
        permissions: 0o4751,
        kind: Kind::File { checksum: Some(Algorithm::Xxh128.digest(b"content").as_bytes().to_vec()) },
        atime: None,
        uid: Some(uid),
        gid: Some(gid),
        link: Link::Leader,
    };
    assert_eq!(entries[2], file);
    assert_eq!(entries[4], Entry { name: b"same".to_vec(), link: Link::Follower(2), ..file });
    assert_eq!(entries[1].kind, Kind::Fifo);
    assert_eq!(entries[3].kind, Kind::Symlink { target: Some(b"file".to_vec()) });
    assert_eq!(entries[5].kind, Kind::Socket);
    assert_eq!(scanned.errors, IoErrors::NONE);
    if is_root() {
        let root = [Id { number: 0, name: b"root".to_vec() }];
        assert_eq!(scanned.users, root);
        assert_eq!(scanned.groups.len(), 1);
    }

    let (entries, _, scanned) = scan(&source, &Options { recursive: true, ..Options::default() });
    assert_eq!(names(&entries), [".", "file", "same"]);
    let plain = &entries[1];
    assert_eq!((plain.uid, plain.gid, plain.link), (None, None, Link::Single));
    assert_eq!(plain.kind, Kind::File { checksum: None });
    assert_eq!((scanned.users, scanned.groups), (Vec::new(), Vec::new()));

    let (options, effort) = (ALL, Effort::default());
    let coarse = Wanted { nanoseconds: false, ..wanted(&options, &|_, _| true, &effort) };
    assert_eq!(scan_with(&source, &coarse).unwrap().0[2].mtime, Time { seconds: -5, nanoseconds: 0 });
}

#[test]
fn devices_are_listed() {
    if needs_root("devices") {
        let top = tempfile::tempdir().unwrap();
        let source = Source::open(top.path(), false).unwrap();
        let name = top.path().file_name().unwrap().as_encoded_bytes();
        let device = rsync_wire::file_list::Device { major: 8, minor: 300 };
        let mut cursor = source.cursor();
        let path = join(name, b"device");
        cursor.at(&path).unwrap().make_node(FileType::BlockDevice, device).unwrap();
        let (entries, ..) = scan(&source, &ALL);
        assert_eq!(entries[1].kind, Kind::BlockDevice(Some(device)));
    }
}

#[test]
fn what_is_not_taken_is_not_entered() {
    let top = tree();
    let source = Source::open(&top.path().join("src"), true).unwrap();
    let asked = std::cell::RefCell::new(Vec::new());
    let takes = |path: &[u8], is_directory: bool| {
        asked.borrow_mut().push((String::from_utf8(path.to_vec()).unwrap(), is_directory));
        path != b"b" && path != b"z"
    };
    let (entries, ..) = scan_with(&source, &wanted(&ALL, &takes, &Effort::default())).unwrap();
    assert_eq!(names(&entries), [".", "a", "d", "link"]);
    let all = [("a", false), ("b", true), ("d", true), ("link", false), ("z", false)];
    assert_eq!(asked.into_inner(), all.map(|(path, is_directory)| (path.to_owned(), is_directory)));
}

#[test]
fn a_scan_ends_early() {
    let top = tree();
    let source = Source::open(&top.path().join("src"), true).unwrap();
    let effort = Effort::default();
    let all = wanted(&ALL, &|_, _| true, &effort);
    assert_eq!(scan_with(&source, &Wanted { limit: 9, ..all }).unwrap().0.len(), 9);
    assert!(matches!(scan_with(&source, &Wanted { limit: 8, ..all }), Err(ScanError::TooLarge(8))));
    let mut count = 0;
    let refused = source.scan(&all, &mut |_| {
        count += 1;
        if count == 3 { Err("enough") } else { Ok(()) }
    });
    assert!(matches!(refused, Err(ScanError::Caller("enough"))));
    assert_eq!(count, 3);
    let stopped = source.scan(&all, &mut |_| {
        effort.end();
        Ok::<(), ()>(())
    });
    assert!(matches!(stopped, Err(ScanError::Stopped)));
    // Reading a file for its digest is no reason to go on.
    let by_content = Options { checksum: true, ..ALL };
    let file = Source::open(&top.path().join("beside"), false).unwrap();
    let stopped = scan_with(&file, &Wanted { options: &by_content, ..all });
    assert!(matches!(stopped, Err(ScanError::Stopped)));
}

#[test]
fn what_is_unread_is_told() {
    let top = tree();
    let at = |name: &str| top.path().join("src").join(name);
    let source = Source::open(&at(""), true).unwrap();
    let effort = Effort::default();

    // A file that goes before its directory is listed to its end.
    let takes = |path: &[u8], _: bool| {
        if path == b"b/a" {
            fs::remove_file(at("b/c/x")).unwrap();
            fs::remove_dir(at("b/c")).unwrap();
        }
        true
    };
    let (entries, unread, scanned) = scan_with(&source, &wanted(&ALL, &takes, &effort)).unwrap();
    assert_eq!(names(&entries), [".", "a", "b", "d", "link", "z", "b/a"]);
    assert_eq!((unread, scanned.errors), (vec![b"b/c".to_vec()], IoErrors::VANISHED));

    // A directory that is there but cannot be listed, as it has become a file.
    let takes = |path: &[u8], _: bool| {
        if path == b"z" {
            fs::remove_dir(at("d")).unwrap();
            fs::write(at("d"), "").unwrap();
        }
        true
    };
    let (entries, unread, scanned) = scan_with(&source, &wanted(&ALL, &takes, &effort)).unwrap();
    assert_eq!(entries[3].kind, Kind::Directory(Content::Listed));
    assert_eq!((unread, scanned.errors), (vec![b"d".to_vec()], IoErrors::GENERAL));
}

#[test]
fn what_may_not_be_read_is_told() {
    if is_root() {
        println!("skipped, root may read everything");
        return;
    }
    let top = tree();
    let at = |name: &str| top.path().join("src").join(name);
    set_mode(&at("a"), 0o000);
    set_mode(&at("b"), 0o000);
    let source = Source::open(&at(""), true).unwrap();
    let (entries, unread, scanned) = scan(&source, &ALL);
    assert_eq!(names(&entries), [".", "a", "b", "d", "link", "z"]);
    assert_eq!((unread, scanned.errors), (vec![b"b".to_vec()], IoErrors::GENERAL));
    let (entries, unread, _) = scan(&source, &Options { checksum: true, ..ALL });
    assert_eq!(names(&entries), [".", "b", "d", "link", "z"]);
    assert_eq!(unread, [b"a".to_vec(), b"b".to_vec()]);
    let locked = Source::open(&at("b"), true).unwrap();
    let locked = scan_with(&locked, &wanted(&ALL, &|_, _| true, &Effort::default()));
    assert!(matches!(locked, Err(ScanError::Top(_))));
    set_mode(&at("b"), 0o700);
}

#[test]
fn paths_beyond_what_a_list_takes_are_unread() {
    let top = tempfile::tempdir().unwrap();
    let source = Source::open(top.path(), true).unwrap();
    let part = [b'p'; 255];
    let mut directory = source.cursor();
    let mut deep = part.to_vec();
    while deep.len() + 256 <= PATH_LEN {
        directory.at(&deep).unwrap().make_directory(0o700).unwrap();
        deep = join(&deep, &part);
    }
    directory.at(&deep).unwrap().make_directory(0o700).unwrap();
    assert_eq!(deep.len(), PATH_LEN);
    let (entries, unread, scanned) = scan(&source, &ALL);
    assert_eq!((entries.len(), entries[16].name.len()), (17, PATH_LEN));
    assert_eq!((unread.len(), scanned.errors), (0, IoErrors::NONE));

    let deeper = join(&deep, b"x");
    directory.at(&deeper).unwrap().make_symlink(b"y").unwrap();
    let (entries, unread, scanned) = scan(&source, &ALL);
    assert_eq!((entries.len(), unread, scanned.errors), (17, vec![deeper], IoErrors::GENERAL));
}

#[test]
fn strange_names_are_listed() {
    let top = tempfile::tempdir().unwrap();
    let strange = [b"\n \\'\"*".to_vec(), b"-rf".to_vec(), vec![0xc3; 255], b"\xff\xfe".to_vec()];
    for name in &strange {
        File::create(path(top.path(), name)).unwrap().write_all(name).unwrap();
    }
    let source = Source::open(top.path(), true).unwrap();
    let (entries, ..) = scan(&source, &ALL);
    let found: Vec<&[u8]> = entries[1..].iter().map(|entry| entry.name.as_slice()).collect();
    assert_eq!(found, strange);
    let mut cursor = source.cursor();
    for name in strange {
        let mut content = Vec::new();
        source.read(&mut cursor, &name).unwrap().0.read_to_end(&mut content).unwrap();
        assert_eq!(content, name);
    }
}
