use std::{fs, io::Write, os::unix::fs::symlink, path::PathBuf};

use super::*;
use crate::tests::{needs_root, path, set_mode, set_mtime, snapshot};

struct Tree {
    top: tempfile::TempDir,
    root: Arc<Root>,
    cursor: Cursor,
}

impl Tree {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        let root = Root::open(top.path()).unwrap();
        let cursor = Cursor::new(&root);
        Self { top, root, cursor }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }
}

/// Does everything that changes something at a path, and tells what of it was done.
fn change_all(cursor: &mut Cursor, path: &[u8]) -> Vec<&'static str> {
    type Change = fn(&mut Cursor, &[u8]) -> io::Result<()>;
    let changes: [(&str, Change); 10] = [
        ("directory", |cursor, path| cursor.at(path)?.make_directory(0o755)),
        ("symlink", |cursor, path| cursor.at(path)?.make_symlink(b"nowhere")),
        ("node", |cursor, path| cursor.at(path)?.make_node(FileType::Fifo, Device::default())),
        ("temporary", |cursor, path| {
            let spot = cursor.at(path)?;
            let mut temporary = spot.temporary_file()?;
            temporary.made.write_all(b"new")?;
            temporary.place(&spot)
        }),
        ("link", |cursor, path| {
            let spot = cursor.at(path)?;
            spot.link_to(&spot.beside(b"another"))
        }),
        ("owner", |cursor, path| cursor.at(path)?.set_owner(Some(rustix::process::geteuid().as_raw()), None)),
        ("permissions", |cursor, path| cursor.at(path)?.set_permissions(0o640)),
        ("mtime", |cursor, path| cursor.at(path)?.set_mtime(Time { seconds: 1, nanoseconds: 2 })),
        ("remove", |cursor, path| cursor.at(path)?.remove()),
        ("remove directory", |cursor, path| cursor.at(path)?.remove_directory()),
    ];
    let done = |&(name, change): &(&'static str, Change)| change(cursor, path).is_ok().then_some(name);
    changes.iter().filter_map(done).collect()
}

#[test]
fn a_root_is_opened_or_made() {
    let tree = Tree::new();
    let new = tree.path("new");
    assert_eq!(Root::open(&new).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(Root::open_or_make(&new).unwrap().1);
    assert!(!Root::open_or_make(&new).unwrap().1);
    assert!(Root::open_or_make(&tree.path("no/where")).is_err());
    fs::write(tree.path("file"), "").unwrap();
    assert!(Root::open_or_make(&tree.path("file")).is_err());
    assert!(Root::open_or_make("/".as_ref()).is_ok_and(|(_, is_new)| !is_new));
}

#[test]
fn files_are_looked_at() {
    let mut tree = Tree::new();
    fs::create_dir(tree.path("d")).unwrap();
    fs::write(tree.path("d/file"), "content").unwrap();
    fs::hard_link(tree.path("d/file"), tree.path("d/same")).unwrap();
    symlink("d/file", tree.path("link")).unwrap();
    for (seconds, nanoseconds) in [(-1_000_000_001, 999_999_999), (0, 0), (5_000_000_000, 1)] {
        set_mtime(&tree.path("d/file"), seconds, nanoseconds);
        let there = tree.cursor.find(b"d/same").unwrap().unwrap();
        assert_eq!((there.kind, there.size, there.names), (FileType::RegularFile, 7, 2));
        assert_eq!(there.mtime, Time { seconds, nanoseconds });
        tree.cursor.at(b"link").unwrap().set_mtime(there.mtime).unwrap();
        assert_eq!(tree.cursor.find(b"link").unwrap().unwrap().mtime, there.mtime);
    }
    let (file, same) = (tree.cursor.find(b"d/file").unwrap(), tree.cursor.find(b"d/same").unwrap());
    assert_eq!(file, same);
    assert_eq!(tree.cursor.find(b"link").unwrap().unwrap().kind, FileType::Symlink);
    assert_eq!(tree.cursor.at(b"link").unwrap().read_link().unwrap(), b"d/file");
    for nothing in ["x", "x/y", "d/file/x", "link/x"] {
        assert_eq!(tree.cursor.find(nothing.as_bytes()).unwrap(), None, "{nothing}");
    }
    assert_eq!(tree.cursor.at(b".").unwrap().names().unwrap(), [b"d".to_vec(), b"link".to_vec()]);
    assert_eq!(tree.cursor.at(b"d").unwrap().names().unwrap(), [b"file".to_vec(), b"same".to_vec()]);
    assert!(Cursor::nowhere().find(b".").unwrap().is_none());
}

#[test]
fn only_regular_files_are_opened() {
    let mut tree = Tree::new();
    fs::write(tree.path("file"), "content").unwrap();
    fs::create_dir(tree.path("d")).unwrap();
    symlink("file", tree.path("link")).unwrap();
    tree.cursor.at(b"fifo").unwrap().make_node(FileType::Fifo, Device::default()).unwrap();
    tree.cursor.at(b"socket").unwrap().make_node(FileType::Socket, Device::default()).unwrap();
    assert_eq!(tree.cursor.at(b"file").unwrap().open().unwrap().1.size, 7);
    for other in ["d", "link", "fifo", "socket", "nothing", "."] {
        assert!(tree.cursor.at(other.as_bytes()).unwrap().open().is_err(), "{other}");
    }
}

#[test]
fn paths_that_are_none_of_a_list_are_refused() {
    let mut tree = Tree::new();
    fs::create_dir(tree.path("d")).unwrap();
    for name in
        ["", "/", "/etc", "..", "../x", "d/..", "d/../../x", "./d", "d/.", "d//x", "d/", "a\0b", "d/a\0b/c"]
    {
        let refused = tree.cursor.at(name.as_bytes()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{name:?}");
    }
}

#[test]
fn no_link_is_followed() {
    let (mut tree, outside) = (Tree::new(), tempfile::tempdir().unwrap());
    fs::create_dir(outside.path().join("d")).unwrap();
    fs::write(outside.path().join("file"), "outside").unwrap();
    set_mode(&outside.path().join("file"), 0o600);
    let before = snapshot(outside.path());
    symlink(outside.path(), tree.path("link")).unwrap();
    symlink(tree.path("real"), tree.path("inner")).unwrap();
    fs::create_dir(tree.path("real")).unwrap();
    for way in [b"link".as_slice(), b"link/d", b"inner"] {
        assert!(tree.root.enter(way).is_err());
        assert!(tree.root.enter_by_steps(way).is_err());
    }
    for at in ["link/file", "link/new", "link/d/new", "inner/new"] {
        assert_eq!(change_all(&mut tree.cursor, at.as_bytes()), [""; 0], "{at}");
        assert!(tree.cursor.at(at.as_bytes()).and_then(|spot| spot.open()).is_err());
    }
    assert!(tree.cursor.at(b"link").unwrap().names().is_err());
    assert_eq!(snapshot(outside.path()), before);

    // At the end of a path the link itself is meant.
    symlink(outside.path().join("file"), tree.path("last")).unwrap();
    assert!(tree.cursor.at(b"last").unwrap().set_permissions(0o777).is_err());
    assert_eq!(
        change_all(&mut tree.cursor, b"last"),
        ["temporary", "link", "owner", "permissions", "mtime", "remove"]
    );
    assert_eq!(snapshot(outside.path()), before);
}

#[test]
fn steps_lead_where_one_call_leads() {
    let tree = Tree::new();
    fs::create_dir_all(tree.path("a/b/c")).unwrap();
    for way in [b"a".as_slice(), b"a/b", b"a/b/c"] {
        let [once, by_steps] = [tree.root.enter(way), tree.root.enter_by_steps(way)]
            .map(|open| rustix::fs::fstat(open.unwrap()));
        assert_eq!(once.unwrap().st_ino, by_steps.unwrap().st_ino);
    }
}

#[test]
fn a_directory_that_was_replaced_is_opened_anew() {
    let mut tree = Tree::new();
    let mut other = Cursor::new(&tree.root);
    fs::create_dir(tree.path("d")).unwrap();
    tree.cursor.at(b"d/a").unwrap().make_symlink(b"x").unwrap();
    assert!(other.find(b"d/a").unwrap().is_some());

    assert!(other.remove_tree(b"d", &|_, _| false, false, &mut |_| {}).unwrap());
    assert_eq!(tree.cursor.find(b"d/a").unwrap(), None);
    other.at(b"d").unwrap().make_directory(0o755).unwrap();
    tree.cursor.at(b"d/c").unwrap().make_symlink(b"x").unwrap();
    assert!(tree.path("d/c").is_symlink());
}

#[test]
fn a_link_that_is_swapped_in_leads_nowhere() {
    let (mut tree, outside) = (Tree::new(), tempfile::tempdir().unwrap());
    fs::create_dir(tree.path("d")).unwrap();
    fs::write(tree.path("d/file"), "").unwrap();
    assert!(tree.cursor.find(b"d/file").unwrap().is_some());
    fs::rename(tree.path("d"), tree.path("aside")).unwrap();
    symlink(outside.path(), tree.path("d")).unwrap();
    change_all(&mut tree.cursor, b"d/new");
    change_all(&mut Cursor::new(&tree.root), b"d/new");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn temporary_files_are_private_and_go() {
    let mut tree = Tree::new();
    let long = [b'n'; 255];
    let wide = "\u{1f600}".repeat(63);
    for name in [b"x".as_slice(), &long, wide.as_bytes(), b"\xff\n\x80", &[0x80; 255]] {
        let spot = tree.cursor.at(name).unwrap();
        let mut temporary = spot.temporary_file().unwrap();
        temporary.made.write_all(b"content").unwrap();
        let beside = temporary.spot().name.to_vec();
        assert!(beside.len() <= 255 && beside.starts_with(b".") && beside.ends_with(b".ssh-mcp"));
        assert_eq!(str::from_utf8(name).is_ok(), str::from_utf8(&beside).is_ok());
        let there = path(tree.top.path(), &beside);
        assert_eq!(snapshot(&there)[b"".as_slice()].mode, 0o600);
        drop(temporary);
        assert!(!there.exists());

        let mut temporary = spot.temporary_file().unwrap();
        temporary.made.write_all(b"content").unwrap();
        temporary.place(&spot).unwrap();
        drop(temporary);
        assert_eq!(fs::read(path(tree.top.path(), name)).unwrap(), b"content");
    }
    assert_eq!(tree.cursor.at(b".").unwrap().names().unwrap().len(), 5);
    assert!(tree.cursor.at(b"no/where").and_then(|spot| spot.temporary_file()).is_err());
}

#[test]
fn a_name_that_is_taken_is_not_used() {
    let mut tree = Tree::new();
    let tried = std::cell::Cell::new(0);
    let made = tree.cursor.at(b"x").unwrap().make_beside(|spot| {
        tried.set(tried.get() + 1);
        if tried.get() < 3 { Err(io::ErrorKind::AlreadyExists.into()) } else { spot.make_symlink(b"y") }
    });
    assert!(made.is_ok());
    assert_eq!(tried.get(), 3);
    let never =
        tree.cursor.at(b"x").unwrap().make_beside(|_| Err::<(), _>(io::ErrorKind::AlreadyExists.into()));
    assert_eq!(never.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn attributes_are_set_by_name_and_by_handle() {
    let mut tree = Tree::new();
    fs::write(tree.path("file"), "").unwrap();
    let (file, _) = tree.cursor.at(b"file").unwrap().open().unwrap();
    let spot = tree.cursor.at(b"file").unwrap();
    let objects: [&dyn Attributes; 2] = [&file, &spot];
    for object in objects {
        for permissions in [0o000, 0o1777, 0o640] {
            object.set_permissions(permissions).unwrap();
            assert_eq!(object.stat().unwrap().permissions, permissions);
        }
        for mtime in [Time { seconds: -7, nanoseconds: 5 }, Time { seconds: 1 << 32, nanoseconds: 0 }] {
            object.set_mtime(mtime).unwrap();
            assert_eq!(object.stat().unwrap().mtime, mtime);
        }
        object.set_owner(None, None).unwrap();
    }
    if needs_root("owners") {
        for (object, id) in objects.into_iter().zip([1, 2]) {
            object.set_owner(Some(id), Some(id + 10)).unwrap();
            let there = object.stat().unwrap();
            assert_eq!((there.uid, there.gid), (id, id + 10));
        }
    }
}

#[test]
fn devices_are_made() {
    if needs_root("devices") {
        let mut tree = Tree::new();
        for (name, kind) in [(b"b", FileType::BlockDevice), (b"c", FileType::CharacterDevice)] {
            let device = Device { major: 300, minor: 70_000 };
            tree.cursor.at(name).unwrap().make_node(kind, device).unwrap();
            let there = tree.cursor.find(name).unwrap().unwrap();
            assert_eq!((there.kind, there.device, there.permissions), (kind, device, 0o600));
        }
    }
}

#[test]
fn a_tree_is_removed_but_for_what_is_kept() {
    let (mut tree, outside) = (Tree::new(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("file"), "").unwrap();
    for directory in ["d/a/b", "d/c", "d/e/f", "d/locked/x"] {
        fs::create_dir_all(tree.path(directory)).unwrap();
        fs::write(tree.path(directory).join("file"), "").unwrap();
    }
    symlink(outside.path(), tree.path("d/c/link")).unwrap();
    set_mode(&tree.path("d/locked/x"), 0o500);
    set_mode(&tree.path("d/locked"), 0o000);
    let keeps = |path: &[u8], is_directory: bool| path == b"d/a/b/file" || (path == b"d/e/f" && is_directory);
    let remove = |tree: &mut Tree, dry_run| {
        let mut told = Vec::new();
        let told_one = &mut |path: &[u8]| told.push(String::from_utf8(path.to_vec()).unwrap());
        let is_gone = tree.cursor.remove_tree(b"d", &keeps, dry_run, told_one).unwrap();
        (is_gone, told)
    };
    if crate::tests::is_root() {
        let before = snapshot(tree.top.path());
        assert_eq!(remove(&mut tree, true).1.len(), 6);
        assert_eq!(snapshot(tree.top.path()), before);
    }
    let (is_gone, told) = remove(&mut tree, false);
    assert!(!is_gone);
    assert_eq!(told, ["d/locked/x/file", "d/locked/x", "d/locked", "d/c/link", "d/c/file", "d/c",]);
    let left: Vec<Vec<u8>> = snapshot(&tree.path("d")).into_keys().collect();
    assert_eq!(
        left,
        ["", "a", "a/b", "a/b/file", "e", "e/f", "e/f/file"].map(|path| path.as_bytes().to_vec())
    );
    assert!(outside.path().join("file").exists());
    assert!(tree.cursor.remove_tree(b"nothing", &keeps, false, &mut |_| {}).unwrap());
}
