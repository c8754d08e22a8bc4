//! Case 64: what a server says of attributes that differ.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};

use rsync_wire::command::{Direction, Options, Recursion, UploadOptions};
use rsync_wire::file_list::{Entry, Kind};
use rsync_wire::role::ItemFlags;

use crate::driver::{Setup, Upload};
use crate::servers::Server;
use crate::tree::{Sides, file, set_time};

#[test]
fn case_64_each_change_is_told() {
    for server in Server::recent() {
        let sides = Sides::new("attributes");
        for root in [&sides.source, &sides.target] {
            for name in
                ["same", "longer", "other content", "later", "other mode", "other owner", "folder/all of it"]
            {
                file(root, name, "content");
            }
            fs::create_dir(root.join("other folder")).unwrap();
            symlink("same", root.join("link")).unwrap();
        }
        let all = sides.source.join("folder/all of it");
        file(&sides.source, "longer", "longer content");
        file(&sides.source, "folder/all of it", "longer content");
        file(&sides.source, "other content", "CONTENT");
        file(&sides.source, "new folder/new file", "content");
        symlink("same", sides.source.join("new link")).unwrap();
        fs::remove_file(sides.source.join("link")).unwrap();
        symlink("later", sides.source.join("link")).unwrap();
        for (path, mode) in [("other mode", 0o600), ("folder/all of it", 0o755), ("other folder", 0o700)] {
            fs::set_permissions(sides.source.join(path), Permissions::from_mode(mode)).unwrap();
        }
        for path in ["later", "folder", "other content"] {
            set_time(&sides.source.join(path), 1_234_567_890);
        }
        // Others give no files away.
        let is_root = lchown(&all, Some(33), Some(2)).is_ok();
        if is_root {
            lchown(sides.source.join("other owner"), Some(33), None).unwrap();
        }
        for folder in ["other folder", ""] {
            for root in [&sides.source, &sides.target] {
                set_time(&root.join(folder), 1_111_111_111);
            }
        }
        let expected = sides.said_by(&server, &["-rlptgo", "--dry-run", "--out-format=%i %n"]);
        assert!(expected.len() > 8, "{expected:?}");

        let upload = UploadOptions { log_format: Some(b"%i".to_vec()), ..UploadOptions::default() };
        let options = Options {
            direction: Direction::Upload(Box::new(upload)),
            recursion: Recursion::Recursive,
            links: true,
            permissions: true,
            times: true,
            owner: true,
            group: true,
            ..Options::default()
        };
        let sent = Upload::new(Setup::new(&server, options, &sides.target), &sides.source).go();
        sent.ended.assert_clean();
        let mut found: Vec<_> = sent
            .items
            .iter()
            .map(|(index, flags)| itemized(&sent.list.entry(*index).unwrap(), *flags))
            .collect();
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}

/// A record in the words of a client that received it.
fn itemized(entry: &Entry, flags: ItemFlags) -> String {
    let kind = match entry.kind {
        Kind::File { .. } => 'f',
        Kind::Directory(_) => 'd',
        Kind::Symlink { .. } => 'L',
        Kind::BlockDevice(_) | Kind::CharDevice(_) => 'D',
        Kind::Fifo | Kind::Socket => 'S',
    };
    let what = [(ItemFlags::TRANSFER, '>'), (ItemFlags::LOCAL, 'c')];
    let what = what.into_iter().find(|(flag, _)| flags.contains(*flag)).map_or('.', |(_, letter)| letter);
    let attributes = if flags.contains(ItemFlags::NEW) {
        "+".repeat(9)
    } else {
        let letters = [
            (ItemFlags::CHANGED, 'c'),
            (ItemFlags::SIZE, 's'),
            (ItemFlags::TIME, 't'),
            (ItemFlags::PERMISSIONS, 'p'),
            (ItemFlags::OWNER, 'o'),
            (ItemFlags::GROUP, 'g'),
        ];
        let letters = letters.map(|(flag, letter)| if flags.contains(flag) { letter } else { '.' });
        // Of times of access, lists and further attributes nothing was asked.
        letters.iter().collect::<String>() + "..."
    };
    let name = std::str::from_utf8(&entry.name).unwrap();
    let slash = if entry.is_directory() { "/" } else { "" };
    format!("{what}{kind}{attributes} {name}{slash}")
}
