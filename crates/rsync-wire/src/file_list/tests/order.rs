//! The order of a list.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::sort::Path;
use super::*;

/// A file, or a directory if the name ends with a slash.
fn named(name: &str) -> Entry {
    match name.strip_suffix('/') {
        Some(name) => entry(name, 0o040_755, 0, 0),
        None if name == "." => entry(name, 0o040_755, 0, 0),
        None => entry(name, 0o100_644, 0, 0),
    }
}

/// The key the order is defined by.
fn key(entry: &Entry) -> Vec<(u8, Vec<u8>)> {
    if entry.name == b"." && entry.is_directory() {
        return Vec::new();
    }
    let parts: Vec<&[u8]> = entry.name.split(|&byte| byte == b'/').collect();
    let last = parts.len() - 1;
    let component = |(at, part): (usize, &&[u8])| {
        if at == last && !entry.is_directory() { (0, part.to_vec()) } else { (1, [part, &b"/"[..]].concat()) }
    };
    parts.iter().enumerate().map(component).collect()
}

#[test]
fn the_order_is_that_of_the_example() {
    let ordered = [
        ".",
        "foo",
        "zz",
        "foo!/",
        "foo!/x",
        "foo-bar/",
        "foo-bar/x",
        "foo.d/",
        "foo.d/x",
        "foo0/",
        "foo0/y",
        "foo0/sub/",
        "foo0/sub/z",
    ]
    .map(named);
    let mut shuffled = ordered.to_vec();
    shuffled.reverse();
    shuffled.swap(2, 7);
    let list = FileList::new(&shuffled).unwrap();
    assert_eq!(list.active().map(|(_, entry)| entry).collect::<Vec<_>>(), ordered);
    for (place, entry) in (0..).zip(&shuffled) {
        assert_eq!(list.entry(list.index_of_sent(place).unwrap()).as_ref(), Some(entry));
    }
    assert_eq!(list.index_of_sent(13), None);
    assert_eq!(list.entry(13), None);
    assert_eq!(list.check_tree(), Ok(()));
    assert_eq!((list.len(), list.is_empty()), (13, false));
}

#[test]
fn one_of_a_name_is_active() {
    let check = |names: &[&str], active: &[u32]| {
        let list = FileList::new(names.iter().map(|name| named(name))).unwrap();
        assert_eq!(list.active().map(|(index, _)| index).collect::<Vec<_>>(), active, "{names:?}");
        assert!((0..20).all(|index| list.is_active(index) == active.contains(&index)));
    };
    check(&["a", "b", "a"], &[0, 2]);
    check(&["a/", "a", "a", "b"], &[2, 3]);
    check(&["a/", "a/", "a/x", "a/x"], &[0, 2]);
    check(&[".", "."], &[0]);
    check(&[], &[]);

    let mut first = named("a");
    first.size = 1;
    let list = FileList::new([first, named("a")]).unwrap();
    assert_eq!(list.entry(0).unwrap().size, 1, "the order is stable");
}

#[test]
fn entries_outside_of_a_directory_are_found() {
    let check = |names: &[&str], expected| {
        let list = FileList::new(names.iter().map(|name| named(name))).unwrap();
        assert_eq!(list.check_tree(), expected, "{names:?}");
    };
    check(&["a/", "a/b/", "a/b/c"], Ok(()));
    check(&["x"], Ok(()));
    check(&["a/b"], Err(TreeError::Orphan(0)));
    check(&["a", "a/b"], Err(TreeError::Orphan(1)));
    check(&["a", "a/", "a/b"], Ok(()));
}

fn compare(a: &Entry, b: &Entry) -> Ordering {
    sort::compare(&Path::of(&a.name, a.is_directory()), &Path::of(&b.name, b.is_directory()))
}

fn any_named() -> impl Strategy<Value = Entry> {
    let component = prop::collection::vec(prop::sample::select(&b"a!-.0\x01\xff"[..]), 1..3);
    (prop::collection::vec(component, 1..4), any::<bool>()).prop_map(|(parts, is_directory)| {
        let mut entry = named(if is_directory { "d/" } else { "f" });
        entry.name = parts.join(&b'/');
        entry
    })
}

proptest! {
    #[test]
    fn the_order_is_that_of_its_key(a in any_named(), b in any_named(), c in any_named()) {
        prop_assert_eq!(compare(&a, &b), key(&a).cmp(&key(&b)));
        prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        prop_assert_eq!(compare(&a, &a), Ordering::Equal);
        if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
            prop_assert!(compare(&a, &c).is_le());
        }
        let same = (&a.name, a.is_directory()) == (&b.name, b.is_directory());
        prop_assert!(same == compare(&a, &b).is_eq() || (a.name == b"." || b.name == b"."));
    }

    #[test]
    fn each_name_is_active_once(entries in prop::collection::vec(any_named(), 0..60)) {
        let list = FileList::new(&entries).unwrap();
        let mut names: Vec<_> = list.active().map(|(_, entry)| entry.name).collect();
        names.sort();
        let mut expected: Vec<_> = entries.iter().map(|entry| entry.name.clone()).collect();
        expected.sort();
        expected.dedup();
        prop_assert_eq!(names, expected);
        for (_, one) in list.active() {
            let has_directory = entries.iter().any(|entry| entry.name == one.name && entry.is_directory());
            prop_assert_eq!(one.is_directory(), has_directory);
        }
        for (place, entry) in (0..).zip(&entries) {
            prop_assert_eq!(list.entry(list.index_of_sent(place).unwrap()), Some(entry.clone()));
        }
    }
}
