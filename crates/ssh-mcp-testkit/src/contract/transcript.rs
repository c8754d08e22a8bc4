//! The contract of the port for transcripts (`ssh_mcp_core::port::transcript`).
//!
//! Mount it with [`transcript_contract!`](crate::transcript_contract) on a [`Rig`].
#![expect(clippy::panic, clippy::expect_used, reason = "a contract is a test: it fails by panicking")]

use std::path::Path;

use bytes::Bytes;
use ssh_mcp_core::id::ShellId;
use ssh_mcp_core::port::transcript::{NewTranscript, Transcripts, View, Window};

/// A place for transcripts and a look at it from outside.
pub trait Rig: Sync {
    /// What is under test.
    fn transcripts(&self) -> &dyn Transcripts;

    /// What a file holds, if it is there.
    fn content(&self, path: &Path) -> Option<Vec<u8>>;

    /// How many shells have left something behind.
    fn count(&self) -> usize;

    /// The names of the open windows; none where this machine has no windows.
    fn windows(&self) -> Option<Vec<String>>;
}

/// Mounts the whole suite: `transcript_contract!(#[tokio::test] rig())`; the expression is a rig.
#[macro_export]
macro_rules! transcript_contract {
    (#[$attribute:meta] $rig:expr) => {
        $crate::transcript_contract! { @each #[$attribute] $rig;
            what_is_written_is_there_in_order,
            what_was_never_used_leaves_nothing,
            an_empty_transcript_that_is_finished_stays,
            what_was_written_stays_whatever_happens,
            a_shell_has_one_transcript,
            a_window_is_there_until_it_is_closed,
            a_window_that_is_dropped_goes_too,
            windows_of_one_name_are_told_apart,
        }
    };
    (@each #[$attribute:meta] $rig:expr; $($name:ident,)+) => {
        $(
            #[$attribute]
            async fn $name() {
                $crate::contract::transcript::$name(&$rig).await;
            }
        )+
    };
}

/// Bytes come one behind the other, whatever they are, and each answer says how many there are.
pub async fn what_is_written_is_there_in_order(rig: &impl Rig) {
    let NewTranscript { path, mut file } = create(rig, shell(1)).await;
    assert!(path.is_absolute());
    let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut written = 0;
    for piece in [0..1, 1..4, 4..70_000, 70_000..100_000] {
        written += piece.len() as u64;
        let piece = all.get(piece).expect("a piece of all");
        assert_eq!(file.append(Bytes::copy_from_slice(piece)).await, Ok(written));
        assert_eq!(rig.content(&path).map(|content| content.len() as u64), Some(written), "at once");
    }
    file.finish().await;
    assert!(rig.content(&path).as_ref() == Some(&all));
}

/// A shell that could not be opened leaves neither file nor directory.
pub async fn what_was_never_used_leaves_nothing(rig: &impl Rig) {
    let new = create(rig, shell(1)).await;
    assert_eq!((rig.content(&new.path), rig.count()), (Some(Vec::new()), 1));
    drop(new.file);
    assert_eq!((rig.content(&new.path), rig.count()), (None, 0));
}

/// A shell that printed nothing has an empty transcript.
pub async fn an_empty_transcript_that_is_finished_stays(rig: &impl Rig) {
    let new = create(rig, shell(1)).await;
    new.file.finish().await;
    assert_eq!(rig.content(&new.path), Some(Vec::new()));
}

/// A transcript that is dropped in the middle keeps what it has.
pub async fn what_was_written_stays_whatever_happens(rig: &impl Rig) {
    let mut new = create(rig, shell(1)).await;
    assert_eq!(new.file.append(Bytes::from_static(b"half")).await, Ok(4));
    drop(new.file);
    assert_eq!(rig.content(&new.path), Some(b"half".to_vec()));
}

/// Shells do not share, and nothing that is there is taken over.
pub async fn a_shell_has_one_transcript(rig: &impl Rig) {
    let (mut one, mut two) = (create(rig, shell(1)).await, create(rig, shell(2)).await);
    assert!(one.path != two.path);
    assert_eq!(one.file.append(Bytes::from_static(b"one")).await, Ok(3));
    assert_eq!(two.file.append(Bytes::from_static(b"two")).await, Ok(3));
    assert!(rig.transcripts().create(shell(1)).await.is_err());
    let contents = [&one.path, &two.path].map(|path| rig.content(path));
    assert_eq!(contents, [Some(b"one".to_vec()), Some(b"two".to_vec())]);
}

/// A window is open from its opening to its closing, under the name it says.
pub async fn a_window_is_there_until_it_is_closed(rig: &impl Rig) {
    let Some(before) = rig.windows() else { return };
    let new = create(rig, shell(1)).await;
    let window = show(rig, 1, &new).await;
    let name = window.name().to_owned();
    assert!(window.command().contains(&name));
    assert_eq!((before.len(), rig.windows()), (0, Some(vec![name])));
    window.close().await;
    assert_eq!(rig.windows(), Some(Vec::new()));
}

/// A window whose shell's task was dropped does not stay.
pub async fn a_window_that_is_dropped_goes_too(rig: &impl Rig) {
    if rig.windows().is_none() {
        return;
    }
    let new = create(rig, shell(1)).await;
    drop(show(rig, 1, &new).await);
    while rig.windows().is_none_or(|windows| !windows.is_empty()) {
        tokio::task::yield_now().await;
    }
}

/// A name that is taken is no obstacle, and each closes its own.
pub async fn windows_of_one_name_are_told_apart(rig: &impl Rig) {
    if rig.windows().is_none() {
        return;
    }
    let (one, two) = (create(rig, shell(1)).await, create(rig, shell(2)).await);
    let (first, second) = (show(rig, 1, &one).await, show(rig, 2, &two).await);
    let (name, other) = (first.name().to_owned(), second.name().to_owned());
    assert!(name != other, "{name}");
    first.close().await;
    assert_eq!(rig.windows(), Some(vec![other]));
    second.close().await;
    assert_eq!(rig.windows(), Some(Vec::new()));
}

async fn create(rig: &impl Rig, shell: ShellId) -> NewTranscript {
    rig.transcripts().create(shell).await.unwrap_or_else(|error| panic!("no transcript: {error}"))
}

async fn show(rig: &impl Rig, number: u64, new: &NewTranscript) -> Box<dyn Window> {
    let view = View { shell: shell(number), path: &new.path, name: "ssh-mcp-ann@example.org:22-it's #{me}" };
    rig.transcripts().show(view).await.unwrap_or_else(|error| panic!("no window: {error}"))
}

fn shell(number: u64) -> ShellId {
    format!("01890000-0000-7000-8000-{number:012x}").parse().expect("an identifier")
}
