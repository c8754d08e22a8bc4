//! Transcripts: what is in them whatever the disk does, and what becomes of windows.

use ssh_mcp_core::{
    port::transcript::{TranscriptError, WindowError},
    registry::{Manner, Observer, Recording},
};

use super::*;
use crate::{CloseShell, Drained};

fn rig_with_disk(disk: &ScriptedDisk, host: ScriptedHost) -> Rig {
    rig_keeping(disk.clone(), host.clone(), Arc::new(host), |_| {})
}

fn ask(session: &Session, observer: Observer) -> OpenShell {
    OpenShell { transcript: Some(observer), ..ask_shell(session) }
}

async fn open(rig: &Rig, ask: OpenShell) -> Arc<Shell> {
    rig.engine.open_shell(&rig.owner, ask).await.unwrap().shell
}

fn recording(shell: &Shell) -> &Recording {
    shell.recording.as_ref().expect("a transcript")
}

fn content(disk: &ScriptedDisk, shell: &Shell) -> Vec<u8> {
    disk.content(&recording(shell).path).expect("it is there")
}

/// `count` chunks of `size` bytes, one each millisecond, then the end.
fn flood(count: usize, size: usize) -> (Script, Vec<u8>) {
    let mut script = Script::new();
    let mut all = Vec::new();
    for chunk in 0..count {
        let bytes: Vec<u8> = (0..size).map(|at| b'a' + ((chunk * 7 + at) % 26) as u8).collect();
        all.extend_from_slice(&bytes);
        script = script.after(ms(1)).out(bytes);
    }
    (script.exit(0), all)
}

#[tokio::test(start_paused = true)]
async fn a_transcript_has_every_byte_and_stays() {
    let disk = ScriptedDisk::new();
    let rig = rig_with_disk(&disk, ScriptedHost::new().on("greet", Script::prints("hello\r\n")));
    let session = rig.connect().await;
    let shell = open(&rig, ask(&session, Observer::Transcript)).await;
    rig.write(&shell, "greet\n").await;
    rig.pass(SECOND).await;
    assert_eq!(content(&disk, &shell), b"$ greet\r\nhello\r\n$ ");
    assert_eq!((recording(&shell).size(), recording(&shell).is_over()), (18, false));
    assert_eq!(rig.engine.close_shell(&shell, Manner::HangUp, SECOND).await, CloseShell::Done);
    let path = ScriptedDisk::path(shell.spec.id);
    assert_eq!((content(&disk, &shell), disk.is_finished(&path)), (screen(&shell).into_bytes(), true));
    // Long after the shell is forgotten.
    rig.pass(HOUR).await;
    assert!(disk.content(&path).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_shell_without_a_transcript_touches_no_disk() {
    let disk = ScriptedDisk::new();
    let rig = rig_with_disk(&disk, ScriptedHost::new());
    let session = rig.connect().await;
    let shell = rig.open(&session).await;
    rig.pass(SECOND).await;
    assert!(shell.recording.is_none());
    assert_eq!((disk.count(), disk.windows().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_disk_delays_nobody_and_the_history_bridges_it() {
    let disk = ScriptedDisk::new().with_pace(200 * ms(1));
    let (script, all) = flood(100, 1000);
    let rig = rig_with_disk(&disk, ScriptedHost::new().on_shell(script));
    let session = rig.connect().await;
    let shell = open(&rig, ask(&session, Observer::Transcript)).await;
    shell.over().await;
    assert_eq!(rig.now(), ms(100), "the shell ended when it would have without");
    rig.engine.transcript_over(&shell).await;
    assert!(content(&disk, &shell) == all);
}

#[tokio::test(start_paused = true)]
async fn what_the_history_lost_before_it_was_written_is_marked() {
    const HISTORY: usize = 20_000;
    let disk = ScriptedDisk::new().with_pace(50 * ms(1));
    let (script, all) = flood(100, 1000);
    let rig = rig_with_disk(&disk, ScriptedHost::new().on_shell(script));
    let session = rig.connect().await;
    let shell = open(&rig, OpenShell { history: HISTORY, ..ask(&session, Observer::Transcript) }).await;
    rig.engine.transcript_over(&shell).await;
    let written = String::from_utf8(content(&disk, &shell)).unwrap();
    let mut at = 0;
    let mut gaps = 0;
    for line in written.split("\r\n") {
        if let Some(rest) = line.strip_prefix("[ssh-mcp: ") {
            let missing: usize = rest.strip_suffix(" bytes are missing here]").unwrap().parse().unwrap();
            assert!(missing > 0);
            at += missing;
            gaps += 1;
        } else {
            assert!(line.as_bytes() == &all[at..at + line.len()], "at {at}");
            at += line.len();
        }
    }
    assert_eq!(at, all.len());
    assert!(gaps > 0);
    assert_eq!(recording(&shell).size(), written.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_breaks_the_transcript_and_not_the_shell() {
    let disk = ScriptedDisk::new().with_room(10);
    let rig = rig_with_disk(&disk, ScriptedHost::new().on("greet", Script::prints("hello\r\n")));
    let session = rig.connect().await;
    let shell = open(&rig, ask(&session, Observer::Transcript)).await;
    rig.write(&shell, "greet\n").await;
    rig.pass(SECOND).await;
    assert_eq!(screen(&shell), "$ greet\r\nhello\r\n$ ");
    assert_eq!((content(&disk, &shell).len(), recording(&shell).size()), (10, 10));
    assert_eq!(recording(&shell).fault(), Some("cannot write: no space left on the disk"));
    // Room that comes later would leave a hole that nothing tells of.
    disk.make_room();
    rig.write(&shell, "greet\n").await;
    rig.pass(SECOND).await;
    assert_eq!((content(&disk, &shell).len(), shell.is_running()), (10, true));
    assert_eq!(rig.engine.close_shell(&shell, Manner::HangUp, SECOND).await, CloseShell::Done);
}

#[tokio::test(start_paused = true)]
async fn without_a_transcript_that_was_asked_for_nothing_is_opened() {
    let refused = TranscriptError::Failed { path: "/disk".into(), cause: "read-only".into() };
    let disk = ScriptedDisk::new().refusing(refused.clone());
    let rig = rig_with_disk(&disk, ScriptedHost::new());
    let session = rig.connect().await;
    let opened = rig.engine.open_shell(&rig.owner, ask(&session, Observer::Tmux)).await;
    assert!(matches!(opened, Err(StartError::Transcript(error)) if error == refused));
    assert_eq!((session.shells.in_use(), rig.host.open_channels(), disk.windows().len()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_shell_that_is_not_opened_leaves_no_transcript() {
    let disk = ScriptedDisk::new();
    let rig = rig_with_disk(&disk, ScriptedHost::new());
    let session = rig.connect().await;
    rig.host.then_refuse_channels(usize::MAX);
    let refused = rig.engine.open_shell(&rig.owner, ask(&session, Observer::Transcript)).await;
    assert!(matches!(refused, Err(StartError::Channel(_))));
    assert_eq!(disk.count(), 0);

    // The channel is there, but no terminal on it.
    let rig = rig_with_disk(&disk, ScriptedHost::new().on_shell(Script::new().refusing("shell")));
    let session = rig.connect().await;
    let shell = open(&rig, ask(&session, Observer::Tmux)).await;
    rig.engine.transcript_over(&shell).await;
    assert_eq!((shell_end(&shell), disk.count(), disk.windows().len()), (Reason::Failed, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn two_openings_of_one_name_share_the_transcript_of_the_first() {
    let disk = ScriptedDisk::new();
    let rig = rig_with_disk(&disk, ScriptedHost::new());
    let session = rig.connect().await;
    let named =
        || OpenShell { name: Some("build".into()), ensure: Ensure::Yes, ..ask(&session, Observer::Tmux) };
    let open = || rig.engine.open_shell(&rig.owner, named());
    let (one, two) = tokio::join!(open(), open());
    let (one, two) = (one.unwrap().shell, two.unwrap().shell);
    rig.engine.watchable(&one).await;
    assert!(Arc::ptr_eq(&one, &two));
    assert_eq!((disk.count(), disk.windows()), (1, vec!["ssh-mcp-me@box:22-build".into()]));
}

#[tokio::test(start_paused = true)]
async fn a_window_is_there_as_long_as_the_shell() {
    let ways: [(&str, Reason); 4] = [
        ("close", Reason::ManualClose),
        ("exit", Reason::Completed),
        ("loss", Reason::ConnectionLost),
        ("disconnect", Reason::CascadeDisconnect),
    ];
    for (way, reason) in ways {
        let disk = ScriptedDisk::new();
        let script = if way == "exit" { Script::new().after(2 * SECOND).exit(0) } else { Script::new() };
        let rig = rig_with_disk(&disk, ScriptedHost::new().on_shell(script));
        let session = rig.connect().await;
        let shell = open(&rig, ask(&session, Observer::Tmux)).await;
        rig.engine.watchable(&shell).await;
        let window = recording(&shell).window().unwrap().clone().unwrap();
        assert_eq!(window.name, format!("ssh-mcp-me@box:22-{}", shell.spec.id));
        assert_eq!(recording(&shell).observer(), (Observer::Tmux, window.command));
        rig.pass(SECOND).await;
        assert_eq!(disk.windows(), std::slice::from_ref(&window.name));
        match way {
            "close" => _ = rig.engine.close_shell(&shell, Manner::Kill, SECOND).await,
            "loss" => rig.host.lose_connections("gone"),
            "disconnect" => _ = rig.engine.disconnect(&rig.owner, session.spec.id).await,
            _ => {}
        }
        rig.engine.transcript_over(&shell).await;
        assert_eq!((shell_end(&shell), disk.windows().len()), (reason, 0), "{way}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_window_the_transcript_is_written_all_the_same() {
    let error = WindowError::NoProgram { program: "tmux".into(), cause: "not found".into() };
    let disk = ScriptedDisk::new().without_windows(error);
    let rig = rig_with_disk(&disk, ScriptedHost::new());
    let session = rig.connect().await;
    let shell = open(&rig, ask(&session, Observer::Tmux)).await;
    rig.engine.watchable(&shell).await;
    assert_eq!(recording(&shell).window(), Some(&Err("cannot start tmux: not found".into())));
    rig.pass(SECOND).await;
    assert_eq!(content(&disk, &shell), b"$ ");
    rig.engine.close_shell(&shell, Manner::HangUp, SECOND).await;
    assert!(recording(&shell).is_over());
}

#[tokio::test(start_paused = true)]
async fn a_window_that_opens_after_the_shell_has_ended_is_closed() {
    let disk = ScriptedDisk::new().with_window_time(3 * SECOND);
    let rig = rig_with_disk(&disk, ScriptedHost::new());
    let session = rig.connect().await;
    let shell = open(&rig, ask(&session, Observer::Tmux)).await;
    rig.engine.close_shell(&shell, Manner::Kill, SECOND).await;
    assert!(!shell.is_running() && !recording(&shell).is_over());
    rig.engine.transcript_over(&shell).await;
    assert_eq!((rig.now(), disk.windows().len()), (3 * SECOND, 0));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_transcripts_and_windows() {
    let disk = ScriptedDisk::new().with_pace(3 * SECOND);
    let rig = rig_with_disk(&disk, ScriptedHost::new());
    let session = rig.connect().await;
    let shell = open(&rig, ask(&session, Observer::Tmux)).await;
    rig.write(&shell, "unknown\n").await;
    assert_eq!(rig.engine.shutdown().await, Drained::Clean);
    assert!(content(&disk, &shell) == screen(&shell).into_bytes() && !screen(&shell).is_empty());
    assert!(disk.is_finished(&recording(&shell).path));
    assert_eq!(disk.windows().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_is_left_at_the_deadline() {
    let disk = ScriptedDisk::new().with_pace(24 * HOUR);
    let rig = rig_with_disk(&disk, ScriptedHost::new());
    let session = rig.connect().await;
    let shell = open(&rig, ask(&session, Observer::Tmux)).await;
    rig.pass(SECOND).await;
    assert_eq!(rig.engine.shutdown().await, Drained::Left(1));
    // The tasks are gone, and with them the window.
    assert!(recording(&shell).is_over());
    assert_eq!(disk.windows().len(), 0);
}
