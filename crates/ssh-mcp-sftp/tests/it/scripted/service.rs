//! What requests do to the files, and messages as bytes. Meant to be read beside the draft, so numbers stand as it has them.

use bytes::{Buf, BufMut, Bytes};

use super::{FSYNC, File, LIMITS, Line, Open, POSIX_RENAME, STATVFS, Step};

/// What a request is answered with: a type and what follows its number.
pub(super) type Said = (u8, Vec<u8>);

/// A status.
pub(super) struct No(pub(super) u32, pub(super) &'static str);

const MISSING: No = No(2, "No such file");
const FAILURE: No = No(4, "Failure");
const BAD: No = No(5, "Bad message");

impl Line {
    pub(super) fn serve(&mut self, step: Step, mut body: Bytes) -> Result<Said, No> {
        let done = Ok(status(0, "Success"));
        match step {
            Step::Init => Err(BAD),
            Step::Open => {
                let (path, flags) = (take(&mut body), body.get_u32());
                let mode = attributes(&mut body).1.unwrap_or(0o666);
                let (create, truncate) = (flags & 8 != 0, flags & 16 != 0);
                let mut disk = self.disk();
                if disk.directories.contains(&*path) {
                    return Err(FAILURE);
                }
                if !disk.files.contains_key(&*path) && (!create || !disk.directories.contains(parent(&path)))
                {
                    return Err(MISSING);
                }
                let new = || File { content: Vec::new(), mode, times: (1, 2) };
                let file = disk.files.entry(path.to_vec()).or_insert_with(new);
                if truncate {
                    file.content.clear();
                }
                drop(disk);
                Ok(self.handle(Open::File(path.to_vec())))
            }
            Step::Opendir => {
                let path = take(&mut body);
                let disk = self.disk();
                if !disk.directories.contains(&*path) {
                    return Err(MISSING);
                }
                let below = disk.files.keys().chain(&disk.directories);
                let below = below.filter(|other| other.len() > 1 && parent(other) == &*path);
                let below = below.filter_map(|other| other.rsplit(|byte| *byte == b'/').next());
                let names = [&b"."[..], b".."].into_iter().chain(below).map(<[u8]>::to_vec).collect();
                drop(disk);
                Ok(self.handle(Open::Directory(names)))
            }
            Step::Readdir => {
                let handle = take(&mut body);
                let most = self.behaviour.names_at_once;
                let Some(Open::Directory(names)) = self.handles.get_mut(&handle) else { return Err(BAD) };
                let some: Vec<_> = names.drain(..most.min(names.len())).collect();
                if some.is_empty() {
                    return Err(No(1, "End of file"));
                }
                Ok(listed(&some))
            }
            Step::Close => match self.handles.remove(&take(&mut body)) {
                Some(_) => done,
                None => Err(self.unknown_handle()),
            },
            Step::Read => {
                let path = self.opened(&mut body)?;
                let (offset, len) = (body.get_u64(), body.get_u32() as usize);
                if len as u64 > self.most(1) {
                    self.complain(format!("a read of {len} bytes"));
                }
                let most = self.behaviour.most_read.min(len);
                let mut disk = self.disk();
                disk.longest.0 = disk.longest.0.max(len);
                let content = &disk.files.get(&path).ok_or(MISSING)?.content;
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
                match &content[from..content.len().min(from.saturating_add(most))] {
                    [] => Err(No(1, "End of file")),
                    piece => Ok((103, string(piece))),
                }
            }
            Step::Write => {
                let path = self.opened(&mut body)?;
                let (offset, data) = (body.get_u64() as usize, take(&mut body));
                if data.len() as u64 > self.most(2) {
                    self.complain(format!("a write of {} bytes", data.len()));
                }
                let mut disk = self.disk();
                disk.longest.1 = disk.longest.1.max(data.len());
                let content = &mut disk.files.get_mut(&path).ok_or(MISSING)?.content;
                content.resize(content.len().max(offset + data.len()), 0);
                content[offset..offset + data.len()].copy_from_slice(&data);
                done
            }
            Step::Stat => {
                let path = take(&mut body);
                self.said_of(&path)
            }
            Step::Fstat => {
                let path = self.opened(&mut body)?;
                self.said_of(&path)
            }
            Step::Setstat | Step::Fsetstat => {
                let path =
                    if step == Step::Setstat { take(&mut body).to_vec() } else { self.opened(&mut body)? };
                let (size, mode, times) = attributes(&mut body);
                let mut disk = self.disk();
                let file = disk.files.get_mut(&path).ok_or(MISSING)?;
                file.content.resize(size.map_or(file.content.len(), |size| size as usize), 0);
                file.mode = mode.unwrap_or(file.mode);
                file.times = times.unwrap_or(file.times);
                done
            }
            Step::Remove => match self.disk().files.remove(&*take(&mut body)) {
                Some(_) => done,
                None => Err(MISSING),
            },
            Step::Mkdir => match self.disk().directories.insert(take(&mut body).to_vec()) {
                true => done,
                false => Err(FAILURE),
            },
            Step::Rmdir => match self.disk().directories.remove(&*take(&mut body)) {
                true => done,
                false => Err(MISSING),
            },
            // The link's own path first, as the draft has it.
            Step::Symlink => {
                let (path, target) = (take(&mut body), take(&mut body));
                self.disk().links.insert(path.to_vec(), target.to_vec());
                done
            }
            Step::Readlink => match self.disk().links.get(&*take(&mut body)) {
                Some(target) => Ok(listed(std::slice::from_ref(target))),
                None => Err(MISSING),
            },
            Step::Realpath => {
                let path = take(&mut body);
                Ok(listed(&[if path == "." { b"/d".to_vec() } else { path.to_vec() }]))
            }
            Step::Rename | Step::PosixRename => {
                let (from, to) = (take(&mut body), take(&mut body));
                let mut disk = self.disk();
                // The plain one is that of the draft: never onto what is there.
                if step == Step::Rename && disk.files.contains_key(&*to) {
                    return Err(FAILURE);
                }
                let file = disk.files.remove(&*from).ok_or(MISSING)?;
                disk.files.insert(to.to_vec(), file);
                done
            }
            Step::Fsync => self.opened(&mut body).and(done),
            Step::Statvfs => {
                // Blocks of a byte, 1 TiB of them.
                let (free, numbers) = (1_u64 << 40, [1, 1, 1 << 41]);
                let numbers = numbers.into_iter().chain([free, free, 9, 9, 9, 7, 0, 255]);
                Ok((201, numbers.flat_map(u64::to_be_bytes).collect()))
            }
            Step::Limits => Ok((201, self.behaviour.limits.into_iter().flat_map(u64::to_be_bytes).collect())),
        }
    }

    fn unknown_handle(&self) -> No {
        self.complain("a handle that is not open".to_owned());
        BAD
    }

    /// Handles are no text, as those of OpenSSH are not.
    fn handle(&mut self, open: Open) -> Said {
        self.handle += 1;
        let handle = Bytes::from([&b"\xff\x00"[..], &self.handle.to_be_bytes()].concat());
        self.handles.insert(handle.clone(), open);
        (102, string(&handle))
    }

    fn opened(&mut self, body: &mut Bytes) -> Result<Vec<u8>, No> {
        match self.handles.get(&take(body)) {
            Some(Open::File(path)) => Ok(path.clone()),
            Some(Open::Directory(_)) | None => Err(self.unknown_handle()),
        }
    }

    fn said_of(&self, path: &[u8]) -> Result<Said, No> {
        let disk = self.disk();
        if disk.directories.contains(path) {
            return Ok((105, [&4_u32.to_be_bytes()[..], &0o040_755_u32.to_be_bytes()].concat()));
        }
        let file = disk.files.get(path).ok_or(MISSING)?;
        let mut said = vec![0, 0, 0, 0xc];
        if self.behaviour.says_sizes {
            said[3] |= 1;
            said.put_u64(file.content.len() as u64);
        }
        said.put_u32(0o100_000 | file.mode);
        said.put_u32(file.times.0);
        said.put_u32(file.times.1);
        Ok((105, said))
    }
}

pub(super) fn step(kind: u8, body: &mut Bytes) -> Step {
    match kind {
        1 => Step::Init,
        3 => Step::Open,
        4 => Step::Close,
        5 => Step::Read,
        6 => Step::Write,
        7 | 17 => Step::Stat,
        8 => Step::Fstat,
        9 => Step::Setstat,
        10 => Step::Fsetstat,
        11 => Step::Opendir,
        12 => Step::Readdir,
        13 => Step::Remove,
        14 => Step::Mkdir,
        15 => Step::Rmdir,
        16 => Step::Realpath,
        18 => Step::Rename,
        19 => Step::Readlink,
        20 => Step::Symlink,
        200 => match std::str::from_utf8(&take(body)) {
            Ok(POSIX_RENAME) => Step::PosixRename,
            Ok(FSYNC) => Step::Fsync,
            Ok(STATVFS) => Step::Statvfs,
            Ok(LIMITS) => Step::Limits,
            other => panic!("extension {other:?}"),
        },
        other => panic!("request {other}"),
    }
}

fn take(body: &mut Bytes) -> Bytes {
    let length = body.get_u32() as usize;
    body.split_to(length)
}

/// Size, mode and times, where they are given.
fn attributes(body: &mut Bytes) -> (Option<u64>, Option<u32>, Option<(u32, u32)>) {
    let flags = body.get_u32();
    let size = (flags & 1 != 0).then(|| body.get_u64());
    let mode = (flags & 4 != 0).then(|| body.get_u32());
    (size, mode, (flags & 8 != 0).then(|| (body.get_u32(), body.get_u32())))
}

fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        None | Some(0) => b"/",
        Some(at) => &path[..at],
    }
}

pub(crate) fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text].concat()
}

pub(super) fn status(code: u32, words: &str) -> Said {
    (101, [&code.to_be_bytes()[..], &string(words.as_bytes()), &string(b"en")].concat())
}

fn listed(names: &[Vec<u8>]) -> Said {
    let mut said = (names.len() as u32).to_be_bytes().to_vec();
    for name in names {
        said.extend([string(name), string(b"-rw-r--r--"), 0_u32.to_be_bytes().to_vec()].concat());
    }
    (104, said)
}

pub(crate) fn packet(id: u32, (kind, body): Said) -> Vec<u8> {
    string(&[&[kind][..], &id.to_be_bytes(), &body].concat())
}
