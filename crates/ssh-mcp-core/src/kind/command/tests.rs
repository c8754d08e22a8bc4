use super::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Drives a machine by `(now, input)`, ticking at every deadline on the way, and lists what it asked for.
fn run(terminal: Terminal, limit: Option<u64>, inputs: &[(u64, Input)], until: u64) -> Vec<(u64, Step)> {
    let mut machine = Machine::new(terminal, limit.map(ms));
    let mut done = Vec::new();
    let mut queue = inputs.iter().cloned().peekable();
    loop {
        let tick = machine.poll_timeout().filter(|at| *at <= ms(until));
        let (now, input) = match (queue.peek(), tick) {
            (Some((at, _)), Some(tick)) if tick < ms(*at) => (tick, Input::Tick),
            (Some(_), _) => {
                let (at, input) = queue.next().unwrap();
                (ms(at), input)
            }
            (None, Some(tick)) => (tick, Input::Tick),
            (None, None) => return done,
        };
        for step in machine.on(now, input) {
            // The driver answers a claim for the time limit with a stop.
            let expire = step == Step::Expire;
            done.push((now.as_millis() as u64, step));
            if expire {
                let steps = machine.on(now, Input::Stop);
                done.extend(steps.into_iter().map(|step| (now.as_millis() as u64, step)));
            }
        }
    }
}

fn exit(status: u32) -> Input {
    Input::Exit(Exit::Status(status))
}

fn killed(name: &str) -> Input {
    Input::Exit(Exit::Signal(name.into()))
}

fn settled(steps: &[(u64, Step)]) -> (u64, &Outcome) {
    steps
        .iter()
        .find_map(|(at, step)| match step {
            Step::Settle(outcome) => Some((*at, outcome)),
            Step::Claim
            | Step::Expire
            | Step::Interrupt
            | Step::Signal(_)
            | Step::KillGroup
            | Step::Close
            | Step::Leave => None,
        })
        .expect("settled")
}

#[test]
fn a_command_is_over_when_its_status_is_known_and_its_channel_closed() {
    let steps = run(Terminal::None, None, &[(5, exit(3)), (6, Input::Closed)], 10_000);
    assert_eq!(steps.first(), Some(&(5, Step::Claim)));
    let (at, outcome) = settled(&steps);
    assert_eq!((at, &outcome.exit, outcome.output), (6, &Some(Exit::Status(3)), Output::Ended));
    assert_eq!(steps.last(), Some(&(6, Step::Leave)));
}

#[test]
fn a_child_that_holds_the_output_does_not_hold_the_answer() {
    let steps = run(Terminal::None, Some(60_000), &[(5, exit(0))], 70_000);
    let (at, outcome) = settled(&steps);
    assert_eq!((at, outcome.output), (505, Output::StillOpen));
    assert_eq!(steps.last(), Some(&(60_000, Step::Leave)), "drained until the time limit");
}

#[test]
fn what_the_server_still_holds_at_the_exit_is_waited_for() {
    let exited = || {
        let mut machine = Machine::new(Terminal::None, None);
        machine.on(ms(0), exit(0));
        machine
    };
    let mut machine = exited();
    for at in [400, 1600, 3200] {
        assert!(machine.expects_output());
        machine.on_output(ms(at), 32 << 10);
        assert_eq!(machine.poll_timeout(), Some(ms(at + 2000)));
    }
    let steps = machine.on(ms(3300), Input::Closed);
    assert!(matches!(steps.as_slice(), [Step::Settle(Outcome { output: Output::Ended, .. }), Step::Leave]));

    // A child that chatters is no backlog.
    let mut machine = exited();
    machine.on_output(ms(400), 100);
    assert_eq!(machine.poll_timeout(), Some(ms(500)));

    // Nor is more than a server can have held.
    let mut machine = exited();
    machine.on_output(ms(400), 64 << 20);
    assert_eq!((machine.poll_timeout(), machine.expects_output()), (Some(ms(500)), false));
}

#[test]
fn what_a_command_printed_before_it_was_ended_is_waited_for_but_not_for_long() {
    for before in [vec![Input::Stop, killed("TERM")], vec![exit(0), Input::Stop]] {
        let mut machine = Machine::new(Terminal::None, None);
        for input in before {
            machine.on(ms(0), input);
        }
        // Who still holds the output is killed in the meantime.
        machine.on_output(ms(400), 32 << 10);
        assert_eq!((machine.expects_output(), machine.poll_timeout()), (true, Some(ms(500))));
        assert_eq!(machine.on(ms(500), Input::Tick), [Step::KillGroup]);
        for (at, until) in [(1_000, 3_000), (2_900, 4_900), (4_800, 5_000)] {
            machine.on_output(ms(at), 32 << 10);
            assert_eq!(machine.poll_timeout(), Some(ms(until)));
            assert_eq!(machine.on(ms(at), Input::NoGroup), []);
        }
        let steps = machine.on(ms(5_000), Input::Tick);
        assert!(matches!(steps.as_slice(), [Step::Close, Step::Settle(_), Step::Leave]), "{steps:?}");
    }
}

#[test]
fn a_server_that_closes_without_a_status_ends_the_command() {
    let steps = run(Terminal::None, None, &[(5, Input::Closed)], 10_000);
    let (_, outcome) = settled(&steps);
    assert_eq!(natural(outcome), (Status::Completed, Reason::RemoteClosed));
}

#[test]
fn the_ladder_without_terminal_is_term_kill_group_close() {
    let steps = run(Terminal::None, None, &[(0, Input::Stop)], 10_000);
    let expected = [
        (0, Step::Signal(Signal::Term)),
        (2_000, Step::Signal(Signal::Kill)),
        (3_000, Step::KillGroup),
        (4_000, Step::Close),
    ];
    assert_eq!(steps[..4], expected);
    assert_eq!(settled(&steps).1.ended_by, Some(EndedBy::Close));
}

#[test]
fn the_ladder_on_a_terminal_begins_with_the_interrupt() {
    let steps = run(Terminal::Pty, None, &[(0, Input::Stop)], 10_000);
    assert_eq!(steps[..2], [(0, Step::Interrupt), (250, Step::Signal(Signal::Term))]);
    assert_eq!(settled(&steps).0, 4_250);
}

#[test]
fn what_ended_a_command_is_the_rung_in_force_when_its_end_was_seen() {
    for (at, by) in
        [(100, EndedBy::Interrupt), (300, EndedBy::Signal), (2_300, EndedBy::Kill), (3_300, EndedBy::Kill)]
    {
        let steps =
            run(Terminal::Pty, None, &[(0, Input::Stop), (at, killed("X")), (at + 1, Input::Closed)], 10_000);
        assert_eq!(settled(&steps).1.ended_by, Some(by), "{at}");
    }
}

#[test]
fn survivors_of_the_group_are_swept_after_the_leader_died() {
    let steps = run(Terminal::None, None, &[(0, Input::Stop), (10, killed("TERM"))], 10_000);
    assert!(steps.contains(&(510, Step::KillGroup)), "{steps:?}");
    let (at, outcome) = settled(&steps);
    assert_eq!((at, outcome.ended_by), (1_510, Some(EndedBy::Signal)));
}

#[test]
fn the_time_limit_is_claimed_once_and_climbs_the_same_ladder() {
    let steps = run(Terminal::None, Some(1_000), &[(1_100, killed("TERM")), (1_101, Input::Closed)], 10_000);
    assert_eq!(steps[..2], [(1_000, Step::Expire), (1_000, Step::Signal(Signal::Term))]);
    assert_eq!(settled(&steps).1.ended_by, Some(EndedBy::Signal));
}

#[test]
fn a_stop_that_meets_a_known_exit_ends_nothing() {
    let steps = run(Terminal::None, None, &[(5, exit(0)), (6, Input::Stop), (7, Input::Closed)], 10_000);
    assert_eq!(settled(&steps).1.ended_by, None);
    assert!(!steps.iter().any(|(_, step)| matches!(step, Step::Signal(_))));
}

#[test]
fn a_stop_that_meets_a_known_exit_still_sweeps_what_holds_the_output() {
    let steps = run(Terminal::None, None, &[(5, exit(0)), (6, Input::Stop)], 10_000);
    assert!(steps.contains(&(505, Step::KillGroup)), "{steps:?}");
    let (at, outcome) = settled(&steps);
    assert_eq!((at, outcome.ended_by, outcome.output), (1_505, None, Output::Ended));
    assert_eq!(steps.last(), Some(&(1_505, Step::Leave)), "nothing is left draining");
}

#[test]
fn a_lost_connection_settles_in_every_phase() {
    for before in
        [vec![], vec![(0, Input::Stop)], vec![(0, exit(1))], vec![(0, Input::Stop), (1, killed("TERM"))]]
    {
        let mut inputs = before.clone();
        inputs.push((2, Input::Lost("reset".into())));
        let steps = run(Terminal::None, None, &inputs, 10_000);
        assert_eq!(steps.last(), Some(&(2, Step::Leave)), "{before:?}");
        settled(&steps);
    }
}

#[test]
fn exit_codes_as_tools_show_them() {
    let end =
        |status, exit| Facts { status, exit, ended_by: None, fault: None, output: Output::Ended, pid: None };
    assert_eq!(end(Status::Completed, Some(Exit::Status(255))).exit_code(), Some(255));
    assert_eq!(end(Status::Completed, Some(Exit::Signal("KILL".into()))).exit_code(), None);
    assert_eq!(end(Status::Completed, None).exit_code(), Some(-1));
    assert_eq!(end(Status::Failed, None).exit_code(), None);
}
