//! What only a device of the system can show: who may have it, what it is made, how it is given back.

use std::{task::Poll, time::Duration};

use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    termios::{ControlModes, InputModes, LocalModes, OutputModes},
};
use ssh_mcp_core::port::serial::{
    DataBits, FlowControl, Line, LineEvent, LineMode, Located, OpenError, SerialBus as _, StopBits,
};
use ssh_mcp_serial::SystemBus;
use ssh_mcp_testkit::contract::serial::mode;

use crate::pty::{PATIENCE, Pty, is_there};

async fn located(path: &str) -> Located {
    SystemBus::new().locate(path).await.unwrap()
}

async fn open(path: &str, mode: &LineMode) -> Result<Line, OpenError> {
    SystemBus::new().open(&located(path).await, mode).await
}

#[tokio::test]
async fn an_open_line_is_raw_and_runs_as_asked_and_is_given_back_as_found() {
    let pty = Pty::new();
    let mut found = pty.settings();
    found.set_speed(9600).unwrap();
    found.input_modes |= InputModes::ICRNL | InputModes::IXON;
    found.local_modes |= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
    pty.set(&found);

    let asked = LineMode {
        baud: 250_000,
        stop_bits: StopBits::Two,
        flow: FlowControl::Hardware,
        read_timeout: Duration::from_secs(1),
        ..mode()
    };
    let line = open(pty.path(), &asked).await.unwrap();
    let settings = pty.settings();
    assert_eq!((settings.input_speed(), settings.output_speed()), (250_000, 250_000), "no standard rate");
    assert!(
        settings.control_modes.contains(ControlModes::CS8 | ControlModes::CSTOPB | ControlModes::CRTSCTS)
    );
    assert!(settings.control_modes.contains(ControlModes::CLOCAL | ControlModes::CREAD));
    assert!(!settings.output_modes.contains(OutputModes::OPOST));
    let cooked = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN;
    assert!(!settings.local_modes.intersects(cooked));
    let altered = InputModes::ICRNL | InputModes::IXON | InputModes::ISTRIP | InputModes::IGNPAR;
    assert!(!settings.input_modes.intersects(altered), "every byte comes as it is, one with an error too");

    line.control.close().await;
    let given = pty.settings();
    assert_eq!(given.output_speed(), 9600);
    assert_eq!(
        (given.input_modes, given.local_modes, given.control_modes),
        (found.input_modes, found.local_modes, found.control_modes)
    );
}

#[tokio::test]
async fn flow_control_by_characters_is_set_where_it_is_asked_for() {
    let pty = Pty::new();
    let _line = open(pty.path(), &LineMode { flow: FlowControl::Software, ..mode() }).await.unwrap();
    assert!(pty.settings().input_modes.contains(InputModes::IXON | InputModes::IXOFF));
}

#[tokio::test]
async fn characters_of_another_length_are_refused_where_the_driver_has_none() {
    let pty = Pty::new();
    let refused = open(pty.path(), &LineMode { data_bits: DataBits::Seven, ..mode() }).await;
    assert_eq!(refused.err(), Some(OpenError::Unsupported { setting: "data_bits=7".into() }));
}

#[tokio::test]
async fn a_device_another_process_has_locked_is_busy_and_stays_its_own() {
    let pty = Pty::new();
    let other = rustix::fs::open(pty.path(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
    let before = pty.settings();
    assert_eq!(open(pty.path(), &mode()).await.err(), Some(OpenError::Busy));
    let after = pty.settings();
    assert_eq!((before.local_modes, before.input_modes), (after.local_modes, after.input_modes));
    drop(other);
    assert!(open(pty.path(), &mode()).await.is_ok());
}

#[tokio::test]
async fn what_is_no_serial_line_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let paths =
        [file.to_str().unwrap(), folder.path().to_str().unwrap(), "/dev/null", "/dev/tty", "/dev/ptmx"];
    for path in paths.into_iter().filter(|path| is_there(path)) {
        assert_eq!(SystemBus::new().locate(path).await, Err(OpenError::NotSerial), "{path}");
    }
}

#[tokio::test]
async fn a_name_without_its_folder_and_one_that_leads_nowhere_are_no_devices() {
    for path in ["ttyUSB0", "", "/dev/null/x", "/nowhere/ttyUSB0"] {
        let located = SystemBus::new().locate(path).await;
        assert!(matches!(located, Err(OpenError::NoDevice { .. })), "{path}: {located:?}");
    }
}

#[tokio::test]
async fn a_device_that_has_become_another_one_is_not_opened() {
    let (first, second) = (Pty::new(), Pty::new());
    let (first, second) = (located(first.path()).await, located(second.path()).await);
    let mixed = Located { path: first.path, key: second.key };
    let opened = SystemBus::new().open(&mixed, &mode()).await;
    assert!(matches!(opened, Err(OpenError::NoDevice { .. })), "{opened:?}");
}

#[tokio::test]
async fn a_line_that_takes_nothing_is_closed_at_once() {
    let pty = Pty::new();
    let line = open(pty.path(), &mode()).await.unwrap();
    let stuck = line.control.send(vec![b'x'; 1 << 20].into());
    // The far end reads nothing: what a pseudo-terminal holds is taken, the rest waits.
    assert!(tokio::time::timeout(Duration::from_millis(50), stuck).await.is_err());
    tokio::time::timeout(PATIENCE, line.control.close()).await.unwrap();
    assert!(open(pty.path(), &mode()).await.is_ok());
}

#[tokio::test]
async fn an_idle_line_whose_node_is_gone_is_lost_within_a_second() {
    let pty = Pty::new();
    // A name that can go while the device stays, as the node of a device that reports nothing.
    let node = Located { path: pty.link().to_str().unwrap().to_owned(), ..located(pty.path()).await };
    let mut line = SystemBus::new().open(&node, &mode()).await.unwrap();
    let silent = std::future::poll_fn(|cx| Poll::Ready(line.events.poll_event(cx).is_pending()));
    assert!(silent.await);
    std::fs::remove_file(&node.path).unwrap();
    let event = std::future::poll_fn(|cx| line.events.poll_event(cx));
    let event = tokio::time::timeout(Duration::from_secs(1), event).await;
    assert!(matches!(event, Ok(LineEvent::Lost(_))), "{event:?}");
}
