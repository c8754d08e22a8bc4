//! Cases 45, 51 and 57: what goes wrong at the client.

use std::time::Duration;

use rsync_wire::command::{Delete, Direction, Options, Recursion, UploadOptions};
use rsync_wire::io_errors::IoErrors;
use rsync_wire::role::ExitCode;

use crate::driver::{Answer, Download, Setup, Upload};
use crate::servers::Server;
use crate::tree::{Sides, assert_mirrored, file, names, noise};

fn upload(upload: UploadOptions) -> Options {
    let direction = Direction::Upload(Box::new(upload));
    Options { direction, recursion: Recursion::Recursive, times: true, ..Options::default() }
}

#[test]
fn case_45_a_source_that_cannot_be_read_to_its_end() {
    for server in Server::recent() {
        for after in [0, 50_000] {
            let sides = Sides::new("failing");
            for name in ["a", "failing", "z"] {
                file(&sides.source, name, noise(45, 100_000));
            }
            file(&sides.target, "failing", "what was there");
            let setup = Setup::new(&server, upload(UploadOptions::default()), &sides.target);
            let mut run = Upload::new(setup, &sides.source);
            run.answer =
                Box::new(move |name| if name == "failing" { Answer::Failing(after) } else { Answer::File });
            let sent = run.go();
            sent.assert_partial();
            assert_eq!(sent.ended.remote, ExitCode::PARTIAL);
            // The stream is intact: what follows arrives, and the file is asked for once more.
            assert_eq!(sent.asked_in(0), ["a", "failing", "z"]);
            assert_eq!(sent.asked_in(1), ["failing"]);
            assert_eq!(names(&sides.target), ["a", "failing", "z"]);
            assert_eq!(std::fs::read(sides.target.join("failing")).unwrap(), b"what was there");
            assert_eq!(std::fs::read(sides.target.join("z")).unwrap(), noise(45, 100_000));
        }
    }
}

/// All runs at the same time, because each takes as long as its silence.
#[test]
fn case_51_a_client_that_is_silent_for_longer_than_the_timeout() {
    let Some(client) = Server::newest_or_skip() else { return };
    std::thread::scope(|scope| {
        for (place, server) in Server::all().into_iter().enumerate() {
            for keep_alive in [None, Some(Duration::from_secs(1))] {
                let client = &client;
                let server = server.clone();
                scope.spawn(move || {
                    let sides = Sides::new(&format!("silent-{place}-{}", keep_alive.is_some()));
                    file(&sides.source, "file", noise(51, 100_000));
                    let options = Options {
                        recursion: Recursion::Recursive,
                        times: true,
                        timeout: Some(2),
                        ..Options::default()
                    };
                    let mut download =
                        Download::new(Setup::new(&server, options, &sides.source), &sides.target);
                    download.before_requests = Box::new(move |session| {
                        // Three times what the server may bear; it has to say at least as often that it is there.
                        let heard = session.idle(Duration::from_secs(6), keep_alive);
                        assert!(heard >= 3, "heard {heard} times");
                    });
                    download.go().ended.assert_clean();
                    assert_mirrored(client, &sides.source, &sides.target);
                });
            }
        }
    });
}

#[test]
fn case_57_nothing_goes_after_an_error_of_the_source_but_on_demand() {
    for server in Server::all() {
        for (ignore_errors, remote, expected) in
            [(false, ExitCode::PARTIAL, &["file", "too much"][..]), (true, ExitCode::OK, &["file"])]
        {
            let sides = Sides::new("errors");
            file(&sides.source, "file", "file");
            file(&sides.target, "too much", "");
            let delete = UploadOptions { delete: Some(Delete::default()), ..UploadOptions::default() };
            let options = Options { ignore_errors, ..upload(delete) };
            let mut run = Upload::new(Setup::new(&server, options, &sides.target), &sides.source);
            run.errors = IoErrors::GENERAL;
            let sent = run.go();
            sent.assert_partial();
            assert_eq!(sent.ended.remote, remote);
            assert_eq!(names(&sides.target), expected);
        }
    }
}
