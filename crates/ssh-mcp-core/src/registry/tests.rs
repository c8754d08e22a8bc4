use super::*;
use crate::{
    history::ByteHistory,
    id::CommandId,
    kind::command::{Facts, Output, Status},
    lifecycle::{AutoRelease, End, Lifecycle, SessionLife, SessionRef},
    quota::Quota,
};

const DAY: Duration = Duration::from_secs(86_400);

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(0x0190_a1b2_c3d4_7e5f_8a9b_0000_0000_0000 + n)
}

fn command(n: u128, owner: &Owner) -> Arc<Command> {
    let life = Arc::new(SessionLife::new());
    let hold = (SessionRef::take(&life).unwrap(), Quota::unlimited().take().unwrap());
    let spec = CommandSpec {
        id: CommandId::from(uuid(n)),
        owner: owner.clone(),
        session: SessionId::from(uuid(0)),
        target: "u@h:22".into(),
        agent: None,
        command: "true".into(),
        started: Duration::ZERO,
        ends: None,
        grace: Duration::ZERO,
    };
    Arc::new(Command::new(
        spec,
        Lifecycle::owned(AutoRelease::Off),
        ByteHistory::new(4096),
        Quota::new(9),
        hold,
    ))
}

fn end(command: &Command) {
    let facts = Facts {
        status: Status::Completed,
        exit: None,
        ended_by: None,
        fault: None,
        output: Output::Ended,
        pid: None,
    };
    command.ending.record(End { reason: Reason::Completed, facts, at: Duration::from_secs(1) }).unwrap();
}

#[test]
fn what_belongs_to_another_owner_does_not_exist() {
    let registry = Registry::default();
    let (mine, theirs) = (Owner::local(), Owner::token("x"));
    registry.publish(command(1, &mine));
    let id = CommandId::from(uuid(1));
    assert!(matches!(registry.find(&mine, id, Duration::ZERO), Found::Here(_)));
    assert!(matches!(registry.find(&theirs, id, Duration::ZERO), Found::Unknown));
    assert_eq!(registry.nearest(&theirs, &id.to_string()), Vec::<String>::new());
    end(&registry.entry(id).unwrap());
    registry.bury(id, Duration::ZERO);
    assert!(matches!(registry.find(&theirs, id, Duration::ZERO), Found::Unknown));
    assert!(
        matches!(registry.find(&mine, id, Duration::ZERO), Found::Gone(grave) if grave.reason == Reason::Completed)
    );
}

#[test]
fn the_dead_are_remembered_for_a_while_and_not_without_bound() {
    let registry = Registry::default();
    let owner = Owner::local();
    for n in 0..=REMEMBERED.1 as u128 {
        let command = command(n, &owner);
        end(&command);
        registry.publish(command);
        registry.bury(CommandId::from(uuid(n)), Duration::ZERO);
    }
    let find = |n, now| registry.find(&owner, CommandId::from(uuid(n)), now);
    assert!(matches!(find(0, Duration::ZERO), Found::Unknown), "the oldest made room");
    assert!(matches!(find(1, Duration::ZERO), Found::Gone(_)));
    assert!(matches!(find(1, DAY), Found::Unknown), "forgotten");
}

#[test]
fn suggestions_are_live_entries_nearest_first() {
    let registry = Registry::default();
    let owner = Owner::local();
    for n in 1..=5 {
        registry.publish(command(n, &owner));
    }
    end(&registry.entry(CommandId::from(uuid(4))).unwrap());
    let wanted = uuid(4).to_string();
    let expected: Vec<String> = [1, 2, 3].map(|n| uuid(n).to_string()).to_vec();
    assert_eq!(registry.nearest(&owner, &wanted), expected);
}
