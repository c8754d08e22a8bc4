use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::fs::{MetadataExt, lchown, symlink},
    path::PathBuf,
};

use proptest::prelude::*;

use super::*;
use crate::{
    source::{Found, Source, Wanted},
    tests::{ALL, Look, What, allocated, is_root, needs_root, path, set_mode, set_mtime, snapshot},
};

/// Two directories, and a run from the one to the other.
struct Run {
    top: tempfile::TempDir,
    options: Options,
    content: bool,
    protected: fn(&[u8], bool) -> bool,
    /// Bytes after which each file breaks off.
    breaks_off: Option<usize>,
}

/// What a run has told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    received: Vec<String>,
    up_to_date: Vec<(String, Skip)>,
    linked: Vec<String>,
    left_out: Vec<String>,
    deleted: Vec<String>,
    faults: Vec<(String, FileFault)>,
}

impl Told {
    fn did_nothing(&self) -> bool {
        [&self.received, &self.linked, &self.deleted].into_iter().all(Vec::is_empty) && self.faults.is_empty()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Run {
    fn new(options: Options) -> Self {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("src")).unwrap();
        fs::create_dir(top.path().join("dst")).unwrap();
        Self { top, options, content: true, protected: |_, _| false, breaks_off: None }
    }

    fn src(&self, name: &str) -> PathBuf {
        self.top.path().join("src").join(name)
    }

    fn dst(&self, name: &str) -> PathBuf {
        self.top.path().join("dst").join(name)
    }

    /// A file at the source with a time that no other has.
    fn put(&self, name: &str, content: &[u8]) {
        fs::write(self.src(name), content).unwrap();
        set_mtime(&self.src(name), 1_000_000_000 + content.len() as i64, 5);
    }

    fn list(&self, source: &Source) -> (Arc<FileList>, Settings) {
        let mut entries = Vec::new();
        let wanted = Wanted {
            options: &self.options,
            algorithm: Algorithm::Md5,
            nanoseconds: true,
            limit: u32::MAX,
            takes: &|_, _| true,
            effort: &Effort::default(),
        };
        let scanned = source.scan(&wanted, &mut |found| match found {
            Found::Entry(entry) => {
                entries.push(entry);
                Ok(())
            }
            Found::Unread { path, cause } => Err(format!("{}: {cause}", text(path))),
        });
        let scanned = scanned.unwrap();
        let list = FileList::new(entries).unwrap();
        list.check_tree().unwrap();
        (Arc::new(list), self.settings(scanned.users, scanned.groups))
    }

    fn settings(&self, users: Vec<Id>, groups: Vec<Id>) -> Settings {
        let protected = Box::new(self.protected);
        let effort = Arc::default();
        Settings { options: self.options, algorithm: Algorithm::Md5, users, groups, protected, effort }
    }

    /// From `src` to `dst`.
    fn go(&self) -> Told {
        self.mirror(&self.src(""), &self.dst(""))
    }

    fn mirror(&self, from: &Path, to: &Path) -> Told {
        let source = Source::open(from, self.content).unwrap();
        let (list, settings) = self.list(&source);
        let landing = Landing::open(list, settings, to).unwrap();
        let mut reader = source.cursor();
        self.land(&landing, &mut |name| {
            let mut content = Vec::new();
            source.read(&mut reader, name).unwrap().0.read_to_end(&mut content).unwrap();
            content
        })
    }

    fn land(&self, landing: &Arc<Landing>, content: &mut dyn FnMut(&[u8]) -> Vec<u8>) -> Told {
        let (mut told, mut cursor, mut writer) = (Told::default(), landing.cursor(), landing.cursor());
        for (index, entry) in landing.list().active() {
            let name = text(&entry.name);
            match landing.consider(&mut cursor, index, &entry) {
                Ok(Step::Done | Step::Linked) => {}
                Ok(Step::LeftOut) => told.left_out.push(name),
                Ok(Step::UpToDate(skip)) => told.up_to_date.push((name, skip)),
                Ok(Step::Needs { .. }) if self.options.dry_run => {
                    assert!(landing.receive(&mut writer, &entry).is_err());
                    told.received.push(name);
                }
                Ok(Step::Needs { .. }) => {
                    let content = content(&entry.name);
                    match (landing.receive(&mut writer, &entry), self.breaks_off) {
                        (Err(fault), _) => told.faults.push((text(&fault.path), fault.word)),
                        (Ok(mut incoming), Some(end)) => incoming.write(&content[..end]).unwrap(),
                        (Ok(mut incoming), None) => {
                            content.chunks(10_000).for_each(|chunk| incoming.write(chunk).unwrap());
                            incoming.commit(index, &entry).unwrap();
                            told.received.push(name);
                        }
                    }
                }
                Err(fault) => told.faults.push((text(&fault.path), fault.word)),
            }
        }
        landing.link_followers(&mut cursor, &mut |index, step| {
            let name = text(&landing.list().entry(index).unwrap().name);
            match step {
                Ok(Step::Linked) => told.linked.push(name),
                Ok(Step::UpToDate(skip)) => told.up_to_date.push((name, skip)),
                Ok(other) => panic!("{other:?}"),
                Err(fault) => told.faults.push((name, fault.word)),
            }
        });
        let mut faults = Vec::new();
        if self.options.delete {
            faults = landing.delete_extras(&mut cursor, &mut |path| told.deleted.push(text(path)));
        }
        faults.extend(landing.finish_directories(&mut cursor));
        told.faults.extend(faults.into_iter().map(|fault| (text(&fault.path), fault.word)));
        told
    }

    fn look(&self, name: &str) -> Look {
        snapshot(&self.dst(name)).remove(b"".as_slice()).unwrap()
    }
}

/// A list of one file, as a sender with other ids would give it.
fn one(name: &[u8], permissions: u16, uid: u32, gid: u32) -> Entry {
    Entry {
        name: name.to_vec(),
        size: 3,
        mtime: Time { seconds: 1_000, nanoseconds: 0 },
        permissions,
        kind: Kind::File { checksum: None },
        atime: None,
        uid: Some(uid),
        gid: Some(gid),
        link: Link::Single,
    }
}

fn land_one(run: &Run, entry: Entry, users: Vec<Id>) -> Told {
    let list = Arc::new(FileList::new([entry]).unwrap());
    let landing = Landing::open(list, run.settings(users, Vec::new()), &run.dst("")).unwrap();
    run.land(&landing, &mut |_| b"new".to_vec())
}

mod random {
    use super::*;

    /// What is made somewhere in a tree.
    #[derive(Debug, Clone)]
    pub(super) struct Plant {
        directory: usize,
        name: Vec<u8>,
        kind: Seed,
        mode: u32,
        mtime: (i64, u32),
        owner: (u32, u32),
    }

    #[derive(Debug, Clone)]
    enum Seed {
        Directory,
        File(Vec<u8>),
        Symlink(Vec<u8>),
        Link(usize),
        Fifo,
        Socket,
        Device(u32),
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            // Few, so that trees meet.
            4 => "[a-c]{1,2}".prop_map(String::into_bytes),
            1 => prop::collection::vec(any::<u8>().prop_filter("bytes of a name", |&byte| byte != 0 && byte != b'/'), 1..20)
                .prop_filter("names of files", |name| name != b"." && name != b".."),
            1 => "[xy]".prop_map(|letter| letter.repeat(255).into_bytes()),
        ]
    }

    fn seed() -> impl Strategy<Value = Seed> {
        prop_oneof![
            5 => Just(Seed::Directory),
            8 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Seed::File),
            1 => (1usize..5, any::<u8>()).prop_map(|(blocks, byte)| {
                Seed::File([vec![byte; 5000], vec![0; blocks * 4096], vec![byte; 10]].concat())
            }),
            2 => "[a-z./]{1,12}".prop_map(|target| Seed::Symlink(target.into_bytes())),
            3 => (0usize..30).prop_map(Seed::Link),
            1 => Just(Seed::Fifo),
            1 => Just(Seed::Socket),
            1 => any::<u16>().prop_map(|number| Seed::Device(number.into())),
        ]
    }

    /// A tree whose times are all even or all odd, so that files of two trees are never equal by their time.
    pub(super) fn tree(odd: i64) -> impl Strategy<Value = Vec<Plant>> {
        let mtime = prop_oneof![-1_000_000_000i64..-1, 0i64..2_000_000_000, 3_000_000_000i64..5_000_000_000];
        let mtime = (mtime.prop_map(move |seconds| seconds & !1 | odd), 0u32..1_000_000_000);
        let mode = prop_oneof![Just(0o000), Just(0o644), Just(0o755), 0u32..0o10000];
        let owner = (0u32..3, 0u32..3);
        let plant = (0usize..8, name(), seed(), mode, mtime, owner).prop_map(
            |(directory, name, kind, mode, mtime, owner)| Plant { directory, name, kind, mode, mtime, owner },
        );
        prop::collection::vec(plant, 0..25)
    }

    pub(super) fn plant(top: &Path, plants: &[Plant]) {
        let mut directories = vec![top.to_owned()];
        let mut files = Vec::new();
        let mut made = Vec::new();
        let root = Root::open(top).unwrap();
        for plant in plants {
            let at = path(&directories[plant.directory % directories.len()], &plant.name);
            if at.symlink_metadata().is_ok() {
                continue;
            }
            let below = at.strip_prefix(top).unwrap().as_os_str().as_encoded_bytes();
            let spot = Cursor::new(&root).at(below).unwrap();
            match &plant.kind {
                Seed::Directory => fs::create_dir(&at).map(|()| directories.push(at.clone())).unwrap(),
                Seed::File(content) => fs::write(&at, content).unwrap(),
                Seed::Symlink(target) => spot.make_symlink(target).unwrap(),
                Seed::Link(which) if !files.is_empty() => {
                    let of: &PathBuf = &files[which % files.len()];
                    fs::hard_link(of, &at).unwrap();
                }
                Seed::Device(number) if is_root() => {
                    let device = Device { major: number >> 8, minor: *number };
                    spot.make_node(FileType::CharacterDevice, device).unwrap();
                }
                Seed::Fifo | Seed::Link(_) | Seed::Device(_) => {
                    spot.make_node(FileType::Fifo, Device::default()).unwrap();
                }
                Seed::Socket => spot.make_node(FileType::Socket, Device::default()).unwrap(),
            }
            if !matches!(plant.kind, Seed::Directory) {
                files.push(at.clone());
            }
            made.push((at, plant));
        }
        for (at, plant) in made.into_iter().rev() {
            let is_directory = at.symlink_metadata().unwrap().is_dir();
            if is_root() {
                lchown(&at, Some(plant.owner.0), Some(plant.owner.1)).unwrap();
            }
            if !at.is_symlink() {
                // Others than root must be able to read what they compare.
                let mode = match (is_root(), is_directory) {
                    (true, _) => plant.mode,
                    (false, true) => plant.mode | 0o700,
                    (false, false) => plant.mode | 0o400,
                };
                set_mode(&at, mode);
            }
            set_mtime(&at, plant.mtime.0, plant.mtime.1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_becomes_any_other(
        source in random::tree(0),
        destination in random::tree(1),
        sparse in any::<bool>(),
        checksum in any::<bool>(),
        content in any::<bool>(),
    ) {
        let mut run = Run::new(Options { delete: true, sparse, checksum, ..ALL });
        random::plant(&run.src(""), &source);
        set_mtime(&run.src(""), 77, 7);
        let to = if content { run.dst("") } else { run.dst("src") };
        if !content {
            fs::create_dir(&to).unwrap();
            run.content = false;
        }
        random::plant(&to, &destination);
        let from = if content { run.src("") } else { run.top.path().join("src") };
        let before = snapshot(run.top.path());

        run.options.dry_run = true;
        let dry = run.mirror(&from, &run.dst(""));
        prop_assert_eq!(&snapshot(run.top.path()), &before);

        run.options.dry_run = false;
        let told = run.mirror(&from, &run.dst(""));
        prop_assert_eq!(&told.faults, &[]);
        prop_assert_eq!(&snapshot(&to), &snapshot(&run.src("")));
        let mut sorted = [dry.received, told.received.clone()];
        sorted.iter_mut().for_each(|names| names.sort_unstable());
        prop_assert_eq!(&sorted[0], &sorted[1]);

        let changed = || -> BTreeMap<Vec<u8>, i64> {
            let names = snapshot(&to).into_keys();
            names.map(|name| (path(&to, &name).symlink_metadata().unwrap().ctime_nsec(), name)).map(|(at, name)| (name, at)).collect()
        };
        let before = changed();
        let again = run.mirror(&from, &run.dst(""));
        prop_assert!(again.did_nothing(), "{:?}", again);
        prop_assert_eq!(changed(), before);
    }
}

#[test]
fn a_single_file_may_be_the_destination_itself() {
    let mut run = Run::new(ALL);
    run.content = false;
    run.put("file", b"content");
    symlink("gone", run.dst("dangling")).unwrap();
    let file = run.src("file");
    for (to, lands_at) in [
        ("", "file"),
        ("other", "other"),
        ("other", "other"),
        ("dangling", "dangling"),
        ("new/", "new/file"),
        ("new", "new/file"),
    ] {
        let told = run.mirror(&file, &run.dst(to));
        assert_eq!(told.faults, [], "{to}");
        assert_eq!(run.look(lands_at).what, What::File(b"content".to_vec()), "{to}");
    }
    let source = Source::open(&file, false).unwrap();
    let open = |to: &str| {
        let (list, settings) = run.list(&source);
        Landing::open(list, settings, &run.dst(to)).map(|_| ())
    };
    assert!(open("no/where").is_err() && open("no/where/").is_err() && open("other/").is_err());

    // A directory is never the destination itself, and its name is found below.
    let told = run.mirror(&run.src(""), &run.dst("made"));
    assert_eq!((told.faults, run.look("made/src/file").mtime), (vec![], (1_000_000_007, 5)));
}

#[test]
fn a_run_that_changes_nothing_makes_no_root() {
    let mut run = Run::new(Options { dry_run: true, delete: true, ..ALL });
    run.put("file", b"x");
    fs::create_dir(run.src("d")).unwrap();
    run.put("d/file", b"xx");
    fs::hard_link(run.src("file"), run.src("d/link")).unwrap();
    symlink("x", run.src("link")).unwrap();
    let told = run.mirror(&run.src(""), &run.dst("new"));
    assert_eq!((told.received.len(), told.linked.as_slice()), (2, ["d/link".to_owned()].as_slice()));
    assert_eq!((told.faults, told.deleted), (vec![], vec![]));
    assert!(!run.dst("new").exists());
    run.options.dry_run = false;
    assert_eq!(run.mirror(&run.src(""), &run.dst("new")).received.len(), 2);
    assert_eq!(snapshot(&run.dst("new")), snapshot(&run.src("")));
    // Nothing is nothing: no root is made for it.
    let nothing = Arc::new(FileList::new([] as [Entry; 0]).unwrap());
    let landing = Landing::open(nothing, run.settings(vec![], vec![]), &run.dst("never")).unwrap();
    assert_eq!(run.land(&landing, &mut |_| panic!("no file")), Told::default());
    assert!(!run.dst("never").exists());
}

#[test]
fn the_quick_check_compares_nanoseconds_that_both_have() {
    let run = Run::new(ALL);
    let all = ["equal", "second", "nanosecond", "coarse here", "coarse there", "size"];
    for name in all {
        run.put(name, b"content");
        fs::write(run.dst(name), "CONTENT").unwrap();
        set_mtime(&run.dst(name), 1_000_000_007, 5);
    }
    set_mtime(&run.dst("second"), 1_000_000_008, 5);
    set_mtime(&run.dst("nanosecond"), 1_000_000_007, 6);
    set_mtime(&run.dst("coarse here"), 1_000_000_007, 0);
    set_mtime(&run.src("coarse there"), 1_000_000_007, 0);
    fs::write(run.dst("size"), "longer than that").unwrap();
    set_mtime(&run.dst("size"), 1_000_000_007, 5);
    let told = run.go();
    assert_eq!(told.received, ["nanosecond", "second", "size"]);
    let skipped = ["coarse here", "coarse there", "equal"];
    assert_eq!(told.up_to_date, skipped.map(|name| (name.to_owned(), Skip::Mtime)));
    assert_eq!(run.look("coarse there").mtime, (1_000_000_007, 5));
}

#[test]
fn content_may_decide_instead_of_the_time() {
    let run = Run::new(Options { checksum: true, ..ALL });
    for name in ["same", "other"] {
        run.put(name, b"content");
    }
    fs::write(run.dst("same"), "content").unwrap();
    fs::write(run.dst("other"), "CONTENT").unwrap();
    set_mtime(&run.dst("other"), 1_000_000_007, 5);
    let told = run.go();
    assert_eq!(told.received, ["other"]);
    assert_eq!(told.up_to_date, [("same".to_owned(), Skip::Size)]);
    assert_eq!(snapshot(&run.dst("")), snapshot(&run.src("")));
}

#[test]
fn without_perms_files_keep_theirs() {
    let run = Run::new(Options { recursive: true, mtime: true, ..Options::default() });
    for name in ["new", "old", "changed"] {
        run.put(name, b"content");
        set_mode(&run.src(name), 0o4666);
    }
    for (name, mode) in [("new d", 0o1777), ("old d", 0o700), ("locked", 0o755)] {
        fs::create_dir(run.src(name)).unwrap();
        set_mode(&run.src(name), mode);
    }
    run.put("locked/file", b"x");
    fs::create_dir(run.dst("old d")).unwrap();
    fs::create_dir(run.dst("locked")).unwrap();
    fs::write(run.dst("old"), "content").unwrap();
    set_mtime(&run.dst("old"), 1_000_000_007, 5);
    fs::write(run.dst("changed"), "x").unwrap();
    for (name, mode) in [("old", 0o600), ("changed", 0o2601), ("old d", 0o711), ("locked", 0o500)] {
        set_mode(&run.dst(name), mode);
    }
    assert_eq!(run.go().faults, []);
    let left = !u32::from(umask());
    for (name, mode) in [
        ("new", 0o666 & left),
        ("old", 0o600),
        ("changed", 0o601),
        ("new d", 0o777 & left),
        ("old d", 0o711),
        ("locked", 0o500),
    ] {
        assert_eq!(run.look(name).mode, mode, "{name}");
    }
    assert_eq!(run.look("locked/file").what, What::File(b"x".to_vec()));
    set_mode(&run.dst("locked"), 0o700);
}

#[test]
fn without_times_none_is_set() {
    let run = Run::new(Options { mtime: false, ..ALL });
    run.put("file", b"content");
    fs::create_dir(run.src("d")).unwrap();
    symlink("x", run.src("link")).unwrap();
    for name in ["d", "link"] {
        set_mtime(&run.src(name), 1, 1);
    }
    run.go();
    for name in ["file", "d", "link"] {
        assert!(run.look(name).mtime.0 > 1_500_000_000, "{name}");
    }
}

#[test]
fn set_id_bits_stay_only_with_their_owner() {
    let run = Run::new(ALL);
    let [me, mine] = [geteuid().as_raw(), getegid().as_raw()];
    let stranger = 54_321;
    // As root everybody may own a file, so the bits stay with their owner.
    let foreign = if is_root() { 0o6755 } else { 0o0755 };
    for (uid, gid, expected) in [(me, mine, 0o6755), (stranger, stranger, foreign)] {
        let _ = fs::remove_file(run.dst("file"));
        assert_eq!(land_one(&run, one(b"file", 0o6755, uid, gid), vec![]).faults, []);
        assert_eq!(run.look("file").mode, expected);
    }
    // Whose they are is not known.
    let run = Run::new(Options { owner: false, group: false, ..ALL });
    land_one(&run, Entry { uid: None, gid: None, ..one(b"file", 0o7755, 0, 0) }, vec![]);
    assert_eq!(run.look("file").mode, 0o1755);
}

#[test]
fn owners_are_found_by_their_names() {
    if needs_root("owners by name") {
        let run = Run::new(ALL);
        let daemon = Accounts::users().named(|number| number == 1);
        let foreign = vec![Id { number: 777, name: daemon[0].name.clone() }];
        for (listed, expected) in [(777, 1), (4242, 4242), (0, 0), (u32::MAX, 0)] {
            let _ = fs::remove_file(run.dst("file"));
            let told = land_one(&run, one(b"file", 0o600, listed, 5), foreign.clone());
            assert_eq!(told.faults, []);
            assert_eq!(run.look("file").owner, (expected, 5));
        }
    }
}

#[test]
fn what_is_up_to_date_gets_its_attributes() {
    let run = Run::new(ALL);
    run.put("file", b"content");
    symlink("x", run.src("link")).unwrap();
    fs::create_dir(run.src("d")).unwrap();
    let spot = Cursor::new(&Root::open(&run.src("")).unwrap()).at(b"fifo").unwrap();
    spot.make_node(FileType::Fifo, Device::default()).unwrap();
    run.go();
    let number = |name: &str| run.dst(name).symlink_metadata().unwrap().ino();
    let names = ["file", "link", "d", "fifo"];
    let before = names.map(number);
    set_mode(&run.dst("file"), 0o600);
    set_mode(&run.dst("d"), 0o700);
    set_mode(&run.src("fifo"), 0o604);
    set_mtime(&run.dst("link"), 5, 5);
    set_mtime(&run.dst("fifo"), 5, 5);
    if is_root() {
        for name in names {
            lchown(run.dst(name), Some(7), Some(8)).unwrap();
        }
    }
    assert!(run.go().did_nothing());
    assert_eq!(snapshot(&run.dst("")), snapshot(&run.src("")));
    assert_eq!(names.map(number), before);
}

#[test]
fn kinds_that_are_not_asked_for_are_left_out() {
    let run = Run::new(ALL);
    let device = Some(Device { major: 1, minor: 3 });
    let kinds = [
        ("block", Kind::BlockDevice(device)),
        ("char", Kind::CharDevice(device)),
        ("fifo", Kind::Fifo),
        ("link", Kind::Symlink { target: Some(b"x".to_vec()) }),
        ("no target", Kind::Symlink { target: None }),
        ("socket", Kind::Socket),
    ];
    let id = geteuid().as_raw();
    let entry = |(name, kind): (&str, Kind)| Entry { kind, ..one(name.as_bytes(), 0o600, id, id) };
    let list = Arc::new(FileList::new(kinds.map(entry)).unwrap());
    let go = |options: Options| {
        let settings = Settings { options, ..run.settings(vec![], vec![]) };
        let landing = Landing::open(list.clone(), settings, &run.dst("")).unwrap();
        run.land(&landing, &mut |_| panic!("no file"))
    };
    let plain = go(Options { recursive: true, ..Options::default() });
    assert_eq!(plain.left_out, ["block", "char", "fifo", "link", "no target", "socket"]);
    assert_eq!(fs::read_dir(run.dst("")).unwrap().count(), 0);

    let implied = go(ALL);
    let devices: &[&str] = if is_root() { &[] } else { &["block", "char"] };
    assert_eq!(implied.left_out, [devices, &["no target"]].concat());
    assert_eq!(implied.faults, []);
    let asked = go(Options { devices: Devices::Asked, ..ALL });
    assert_eq!(asked.left_out, ["no target"]);
    let refused = devices.iter().map(|name| (name.to_string(), FileFault::PermissionDenied));
    assert_eq!(asked.faults, refused.collect::<Vec<_>>());
}

#[test]
fn a_directory_in_the_way_goes_only_if_it_may() {
    let mut run = Run::new(ALL);
    run.put("file", b"content");
    symlink("x", run.src("link")).unwrap();
    run.put("empty", b"");
    for name in ["file", "link"] {
        fs::create_dir_all(run.dst(name).join("deep")).unwrap();
    }
    fs::create_dir(run.dst("empty")).unwrap();
    for dry_run in [true, false] {
        run.options.dry_run = dry_run;
        let failed = ["file", "link"].map(|name| (name.to_owned(), FileFault::IoError));
        let told = run.go();
        assert_eq!(told.faults, failed);
        assert_eq!(told.received, ["empty"]);
    }
    run.options.delete = true;
    run.protected = |path, _| path == b"link/deep";
    assert_eq!(run.go().faults, [("link".to_owned(), FileFault::IoError)]);
    assert!(run.dst("link/deep").is_dir());
    run.protected = |_, _| false;
    assert_eq!(run.go().faults, []);
    assert_eq!(snapshot(&run.dst("")), snapshot(&run.src("")));
}

#[test]
fn links_that_were_planted_lead_nowhere() {
    let run = Run::new(Options { delete: true, ..ALL });
    let outside = run.top.path().join("outside");
    fs::create_dir_all(outside.join("sub")).unwrap();
    fs::write(outside.join("file"), "outside").unwrap();
    fs::write(outside.join("extra"), "outside").unwrap();
    for directory in ["d", "d/sub", "e"] {
        fs::create_dir(run.src(directory)).unwrap();
    }
    run.put("file", b"inside");
    run.put("d/file", b"inside");
    run.put("d/sub/file", b"inside");
    run.put("e/file", b"inside");
    let before = snapshot(&outside);

    // Before the run.
    symlink(&outside, run.dst("d")).unwrap();
    symlink(outside.join("file"), run.dst("file")).unwrap();
    fs::create_dir(run.dst("e")).unwrap();
    symlink(&outside, run.dst("e/extra")).unwrap();
    let told = run.go();
    assert_eq!((told.faults, told.deleted), (vec![], vec!["e/extra".to_owned()]));
    assert_eq!(snapshot(&run.dst("")), snapshot(&run.src("")));
    assert_eq!(snapshot(&outside), before);

    // Between two steps: a directory that was looked at is swapped for a link.
    let source = Source::open(&run.src(""), true).unwrap();
    let (list, settings) = run.list(&source);
    fs::remove_file(run.dst("d/sub/file")).unwrap();
    let landing = Landing::open(list.clone(), settings, &run.dst("")).unwrap();
    let mut cursor = landing.cursor();
    for (index, entry) in list.active() {
        if entry.name == b"d/sub/file" {
            fs::rename(run.dst("d"), run.dst("aside")).unwrap();
            symlink(&outside, run.dst("d")).unwrap();
            // This cursor knows the directory, a new one does not.
            if let Ok(mut incoming) = landing.receive(&mut cursor, &entry) {
                incoming.write(b"new").unwrap();
                incoming.commit(index, &entry).unwrap();
            }
            assert!(landing.receive(&mut landing.cursor(), &entry).is_err());
            assert!(landing.basis(&mut landing.cursor(), &entry).is_none());
        }
        let _ = landing.consider(&mut cursor, index, &entry);
    }
    let mut told = Vec::new();
    landing.delete_extras(&mut landing.cursor(), &mut |path| told.push(text(path)));
    assert!(!told.is_empty() && told.iter().all(|path| path.starts_with("aside")), "{told:?}");
    landing.finish_directories(&mut landing.cursor());
    assert_eq!(snapshot(&outside), before);
}

#[test]
fn extras_are_deleted_but_for_what_is_protected() {
    let mut run = Run::new(Options { delete: true, dry_run: true, ..ALL });
    for directory in ["d", "d/e"] {
        fs::create_dir(run.src(directory)).unwrap();
    }
    run.put("file", b"x");
    run.put("d/was a directory", b"xx");
    for directory in ["d/e/x/y", "d/x", "x/y", ".rsync-partial", "d/was a directory", "z/.rsync-partial"] {
        fs::create_dir_all(run.dst(directory)).unwrap();
    }
    for file in [
        "d/e/x/y/extra",
        "x/y/keep",
        "x/extra",
        "extra",
        "d/e/extra.keep",
        ".rsync-partial/file",
        ".rsync-partial2",
    ] {
        fs::write(run.dst(file), "extra").unwrap();
    }
    run.protected = |path, is_directory| path.ends_with(b"keep") && !is_directory;
    let gone = ["d/e/x/y/extra", "d/e/x/y", "d/e/x", "d/x", ".rsync-partial2", "extra", "x/extra"];
    let before = snapshot(&run.dst(""));
    let dry = run.go();
    assert_eq!(dry.deleted, gone);
    assert_eq!(snapshot(&run.dst("")), before);
    run.options.dry_run = false;
    let told = run.go();
    assert_eq!((told.deleted, told.faults), (gone.map(str::to_owned).to_vec(), vec![]));
    let left: Vec<String> = snapshot(&run.dst("")).keys().map(|path| text(path)).collect();
    assert_eq!(
        left,
        [
            "",
            ".rsync-partial",
            ".rsync-partial/file",
            "d",
            "d/e",
            "d/e/extra.keep",
            "d/was a directory",
            "file",
            "x",
            "x/y",
            "x/y/keep",
            "z",
            "z/.rsync-partial",
        ]
    );
}

#[test]
fn only_listed_content_is_deleted() {
    let mut run = Run::new(Options { delete: true, recursive: false, ..ALL });
    fs::write(run.dst("extra"), "").unwrap();
    let told = run.go();
    assert_eq!((told.deleted, told.faults), (vec![], vec![]));
    run.options.recursive = true;
    assert_eq!(run.go().deleted, ["extra"]);
    run.content = false;
    fs::write(run.dst("extra"), "").unwrap();
    assert_eq!(run.mirror(&run.src(""), &run.dst("")).deleted, [""; 0]);
}

#[test]
fn hard_links_follow_their_head() {
    let run = Run::new(ALL);
    for directory in ["a", "z"] {
        fs::create_dir(run.src(directory)).unwrap();
    }
    run.put("a/first", b"content");
    fs::hard_link(run.src("a/first"), run.src("z/second")).unwrap();
    fs::hard_link(run.src("a/first"), run.src("third")).unwrap();
    fs::create_dir(run.dst("third")).unwrap();
    let told = run.go();
    assert_eq!((told.received.len(), told.linked.len(), told.faults), (1, 2, vec![]));
    assert_eq!(snapshot(&run.dst("")), snapshot(&run.src("")));

    // A head that changed takes its followers along.
    run.put("third", b"other content");
    let told = run.go();
    assert_eq!((told.received.len(), told.linked.len(), told.faults), (1, 2, vec![]));
    assert_eq!(snapshot(&run.dst("")), snapshot(&run.src("")));

    // A follower fails alone, the head fails all of them.
    for (blocked, failed, linked) in
        [("z/second", vec!["z/second"], 1), ("third", vec!["third", "a/first", "z/second"], 0)]
    {
        fs::remove_dir_all(run.dst("")).unwrap();
        fs::create_dir_all(run.dst(blocked).join("not empty")).unwrap();
        let told = run.go();
        let names: Vec<&str> = told.faults.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, told.linked.len()), (failed, linked));
    }
}

#[test]
fn a_leader_that_is_a_duplicate_is_replaced_by_a_follower() {
    let run = Run::new(ALL);
    let leader = Entry { link: Link::Leader, ..one(b"b", 0o600, 0, 0) };
    let follower = |name: &[u8]| Entry { name: name.to_vec(), link: Link::Follower(1), ..leader.clone() };
    let entries = vec![one(b"b", 0o600, 0, 0), leader.clone(), follower(b"c"), follower(b"a")];
    let list = Arc::new(FileList::new(entries).unwrap());
    let landing = Landing::open(list, run.settings(vec![], vec![]), &run.dst("")).unwrap();
    let told = run.land(&landing, &mut |_| b"new".to_vec());
    assert_eq!((told.received, told.linked), (vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]));
    let number = |name: &str| run.dst(name).metadata().unwrap().ino();
    assert!(number("a") == number("c") && number("a") != number("b"));
}

#[test]
fn what_arrived_is_kept_for_the_next_run() {
    let mut run = Run::new(Options { partial: true, ..ALL });
    fs::create_dir(run.src("d")).unwrap();
    run.put("d/file", &b"0123456789".repeat(100_000));
    fs::create_dir(run.dst("d")).unwrap();
    fs::write(run.dst("d/file"), "old").unwrap();
    run.breaks_off = Some(300_000);
    for sparse in [false, true] {
        run.options.sparse = sparse;
        run.go();
        let kept = fs::read(run.dst("d/.rsync-partial/file")).unwrap();
        assert_eq!(kept, b"0123456789".repeat(30_000));
        assert_eq!(fs::read(run.dst("d/file")).unwrap(), b"old");
        assert_eq!(fs::read_dir(run.dst("d")).unwrap().count(), 2);
    }
    // Nothing that arrived is nothing to keep: what was kept before stays.
    run.breaks_off = Some(0);
    run.go();

    let source = Source::open(&run.src(""), true).unwrap();
    let (list, settings) = run.list(&source);
    let landing = Landing::open(list.clone(), settings, &run.dst("")).unwrap();
    let mut cursor = landing.cursor();
    let (index, entry) = list.active().find(|(_, entry)| entry.name == b"d/file").unwrap();
    let step = landing.consider(&mut cursor, index, &entry).unwrap();
    let Step::Needs { basis: Some(basis), is_new: false } = step else { panic!("{step:?}") };
    assert_eq!((basis.len, basis.is_partial), (300_000, true));

    run.breaks_off = None;
    assert_eq!(run.go().received, ["d/file"]);
    assert_eq!(snapshot(&run.dst("")), snapshot(&run.src("")));
}

#[test]
fn what_arrived_goes_if_it_is_not_kept() {
    let mut run = Run::new(ALL);
    run.put("file", b"0123456789");
    run.breaks_off = Some(5);
    run.go();
    assert_eq!(fs::read_dir(run.dst("")).unwrap().count(), 0);
    // A link in the place of the directory is not followed.
    run.options.partial = true;
    let outside = run.top.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, run.dst(".rsync-partial")).unwrap();
    run.go();
    run.breaks_off = None;
    fs::write(outside.join("file"), "stays").unwrap();
    run.go();
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"stays");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read(run.dst("file")).unwrap(), b"0123456789");
}

#[test]
fn a_basis_is_what_can_be_read() {
    let run = Run::new(ALL);
    let landing = Landing::open(
        Arc::new(FileList::new([] as [Entry; 0]).unwrap()),
        run.settings(vec![], vec![]),
        &run.dst(""),
    )
    .unwrap();
    for (name, content) in [("file", "content"), ("empty", "")] {
        fs::write(run.dst(name), content).unwrap();
    }
    symlink("file", run.dst("link")).unwrap();
    let mut cursor = landing.cursor();
    for (name, expected) in [("file", Some(7)), ("empty", None), ("link", None), ("nothing", None)] {
        let basis = landing.basis(&mut cursor, &one(name.as_bytes(), 0, 0, 0));
        assert_eq!(basis.map(|basis| basis.len), expected, "{name}");
    }
}

#[test]
fn zeros_become_holes() {
    let mut run = Run::new(Options { sparse: true, ..ALL });
    let zeros = vec![0; 1 << 20];
    let content = [b"begin", zeros.as_slice(), b"middle", &zeros].concat();
    run.put("ends with a hole", &content);
    run.put("begins with one", &[zeros.as_slice(), b"end"].concat());
    run.put("only zeros", &zeros[..100_000]);
    assert_eq!(run.go().received.len(), 3);
    assert_eq!(snapshot(&run.dst("")), snapshot(&run.src("")));
    for (name, most) in [("ends with a hole", 65_536), ("begins with one", 65_536), ("only zeros", 4096)] {
        assert!(allocated(&run.dst(name)) <= most, "{name}: {}", allocated(&run.dst(name)));
    }
    run.options.sparse = false;
    fs::remove_file(run.dst("only zeros")).unwrap();
    run.go();
    assert!(allocated(&run.dst("only zeros")) >= 100_000);
}

#[test]
fn others_see_no_file_that_is_half_written() {
    let run = Run::new(ALL);
    let entry = one(b"file", 0o644, 0, 0);
    let list = Arc::new(FileList::new([entry.clone()]).unwrap());
    let landing = Landing::open(list, run.settings(vec![], vec![]), &run.dst("")).unwrap();
    let mut incoming = landing.receive(&mut landing.cursor(), &entry).unwrap();
    incoming.write(&[1; BUFFER + 1]).unwrap();
    let there = snapshot(&run.dst(""));
    let (name, look) = there.iter().find(|(name, _)| !name.is_empty()).unwrap();
    assert!(name.starts_with(b".file.") && name.ends_with(b".ssh-mcp"));
    assert_eq!((look.mode, there.len()), (0o600, 2));
    // What has become a directory meanwhile is not replaced.
    fs::create_dir(run.dst("file")).unwrap();
    let fault = incoming.commit(0, &entry).unwrap_err();
    assert_eq!((fault.path.as_slice(), fault.word), (b"file".as_slice(), FileFault::IoError));
    assert_eq!(snapshot(&run.dst("")).len(), 2);
}

#[test]
fn faults_have_one_word() {
    for (errno, word) in [
        (Errno::NOENT, FileFault::FileNotFound),
        (Errno::ACCESS, FileFault::PermissionDenied),
        (Errno::PERM, FileFault::PermissionDenied),
        (Errno::NOSPC, FileFault::IoError),
    ] {
        assert_eq!(Fault::new(b"x", &errno.into()).word, word);
    }
    if is_root() {
        println!("skipped, root may write everywhere");
    } else {
        let mut run = Run::new(ALL);
        run.put("file", b"content");
        symlink("x", run.src("link")).unwrap();
        run.content = false;
        set_mode(&run.dst(""), 0o500);
        let told = run.mirror(&run.src(""), &run.dst(""));
        let [denied, missing] = [FileFault::PermissionDenied, FileFault::FileNotFound];
        let names = [("src", denied), ("src/file", missing), ("src/link", missing)];
        assert_eq!(told.faults, names.map(|(name, word)| (name.to_owned(), word)));
    }
}
