//! Stories of a link and its server, as tables.

use super::*;

/// A server with a limit of its own, and a link that learns it.
struct Story {
    places: Places,
    now: Instant,
}

const A: RoomId = RoomId(0);
const B: RoomId = RoomId(1);

impl Story {
    fn new(growth: Growth) -> Self {
        let now = Instant::now();
        Self { places: Places::new(growth, now), now }
    }

    #[track_caller]
    fn decides(&mut self, expected: Decision) {
        assert_eq!(self.places.decide(self.now), expected);
    }

    #[track_caller]
    fn waits(&mut self, expected: Outlook) {
        let Decision::Wait { outlook, .. } = self.places.decide(self.now) else { panic!("it does not wait") };
        assert_eq!(outlook, expected);
    }

    /// So many channels opened one after the other on `room`.
    #[track_caller]
    fn holds(&mut self, room: RoomId, count: u32) {
        for _ in 0..count {
            self.decides(Decision::Ask(room));
            self.places.on_confirmed(room, self.now);
        }
    }

    #[track_caller]
    fn is_refused(&mut self, room: RoomId, tries: u32, expected: Refusal) {
        assert_eq!(self.places.on_refused(room, tries, self.now), expected);
    }

    /// A channel ends, and the server is known to know it.
    fn releases(&mut self, room: RoomId) {
        self.places.on_closed_by_us(room, self.now);
        self.places.on_close_confirmed(room, self.now);
    }

    fn passes(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn a_refusal_at_the_height_ever_reached_is_the_limit_and_leads_to_a_further_connection() {
    let mut story = Story::new(Growth::Possible);
    story.holds(A, 10);
    story.decides(Decision::Ask(A));
    story.is_refused(A, 1, Refusal::Elsewhere);
    story.decides(Decision::Dial);
    story.waits(Outlook::Promised);
    assert_eq!(story.places.on_dialled(story.now), B);
    // The second connection is taken to have the same limit as the first.
    story.holds(B, 10);
    story.decides(Decision::Dial);
}

#[test]
fn a_refusal_below_it_is_the_server_being_slow() {
    let mut story = Story::new(Growth::Possible);
    story.holds(A, 10);
    story.releases(A);
    story.decides(Decision::Ask(A));
    story.is_refused(A, 1, Refusal::Again);
    story.is_refused(A, 2, Refusal::Again);
    story.places.on_confirmed(A, story.now);
    story.decides(Decision::Dial);
}

#[test]
fn while_one_asks_again_its_place_is_nobody_elses() {
    let mut story = Story::new(Growth::Possible);
    story.holds(A, 10);
    story.releases(A);
    story.decides(Decision::Ask(A));
    story.is_refused(A, 1, Refusal::Again);
    story.decides(Decision::Dial);
}

#[test]
fn places_nobody_sees_lower_the_limit_for_a_while() {
    let mut story = Story::new(Growth::Possible);
    story.holds(A, 10);
    story.releases(A);
    story.decides(Decision::Ask(A));
    story.is_refused(A, 1, Refusal::Again);
    assert_eq!(story.places.on_given_up(A, story.now), Refusal::Elsewhere);
    story.decides(Decision::Dial);
    story.places.on_dial_failed(story.now);
    story.waits(Outlook::Open);
    story.passes(SHORT_DOUBT);
    story.decides(Decision::Ask(A));
    story.places.on_confirmed(A, story.now);
    // It worked, so there may be more.
    story.decides(Decision::Ask(A));
    story.is_refused(A, 1, Refusal::Elsewhere);
}

#[test]
fn a_channel_that_ends_makes_room_at_once() {
    let mut story = Story::new(Growth::Impossible);
    story.holds(A, 3);
    story.decides(Decision::Ask(A));
    story.is_refused(A, 1, Refusal::Elsewhere);
    story.waits(Outlook::Open);
    story.releases(A);
    story.decides(Decision::Ask(A));
}

#[test]
fn a_server_without_channels_says_so_once() {
    let mut story = Story::new(Growth::Possible);
    story.decides(Decision::Ask(A));
    story.is_refused(A, 1, Refusal::Never);
}

#[test]
fn a_refusal_that_overtakes_a_confirmation_is_not_believed() {
    let mut story = Story::new(Growth::Possible);
    story.decides(Decision::Ask(A));
    story.decides(Decision::Ask(A));
    story.is_refused(A, 1, Refusal::Again);
    story.places.on_confirmed(A, story.now);
    story.is_refused(A, 2, Refusal::Elsewhere);
}

#[test]
fn a_limit_guessed_too_low_grows_with_what_works() {
    let mut story = Story::new(Growth::Possible);
    for _ in 0..3 {
        story.decides(Decision::Ask(A));
    }
    story.places.on_confirmed(A, story.now);
    story.is_refused(A, 1, Refusal::Elsewhere);
    story.places.on_confirmed(A, story.now);
    // One above the guess has worked: one probe at a time finds the rest.
    story.decides(Decision::Ask(A));
    story.decides(Decision::Dial);
}

#[test]
fn failed_dials_rest_longer_each_time_and_forget_it_after_a_success() {
    let mut story = Story::new(Growth::Possible);
    story.holds(A, 1);
    story.decides(Decision::Ask(A));
    story.is_refused(A, 1, Refusal::Elsewhere);
    for rest in [100, 200, 400] {
        story.decides(Decision::Dial);
        story.places.on_dial_failed(story.now);
        story.passes(Duration::from_millis(rest - 1));
        story.waits(Outlook::Open);
        story.passes(Duration::from_millis(1));
    }
    story.decides(Decision::Dial);
    story.places.on_dialled(story.now);
    story.holds(B, 1);
    story.decides(Decision::Dial);
    story.places.on_dial_failed(story.now);
    story.passes(FIRST_REST);
    story.decides(Decision::Dial);
}

#[test]
fn credentials_that_work_once_wait() {
    let mut story = Story::new(Growth::Impossible);
    story.holds(A, 10);
    story.decides(Decision::Ask(A));
    story.is_refused(A, 1, Refusal::Elsewhere);
    story.waits(Outlook::Open);
    story.passes(DOUBT);
    // Once a minute the limit is doubted.
    story.decides(Decision::Ask(A));
    story.is_refused(A, 1, Refusal::Elsewhere);
    story.waits(Outlook::Open);
}

#[test]
fn a_further_connection_retires_after_a_minute_without_a_channel() {
    let mut story = Story::new(Growth::Possible);
    story.holds(A, 1);
    story.decides(Decision::Ask(A));
    story.is_refused(A, 1, Refusal::Elsewhere);
    story.decides(Decision::Dial);
    story.places.on_dialled(story.now);
    story.holds(B, 1);
    story.passes(IDLE * 3);
    assert_eq!(story.places.retire(B, story.now), Some(Retirement::LookAgain(story.now + IDLE)));
    story.releases(B);
    let due = story.now + IDLE;
    assert_eq!(story.places.retire(B, story.now), Some(Retirement::LookAgain(due)));
    story.passes(IDLE);
    assert_eq!(story.places.retire(B, story.now), Some(Retirement::Now));
    assert_eq!(story.places.retire(B, story.now), None);
}

#[test]
fn a_lost_connection_takes_its_places_along() {
    let mut story = Story::new(Growth::Possible);
    story.holds(A, 1);
    story.decides(Decision::Ask(A));
    story.is_refused(A, 1, Refusal::Elsewhere);
    story.decides(Decision::Dial);
    story.places.on_dialled(story.now);
    story.holds(B, 1);
    story.places.on_lost(B);
    story.releases(B);
    story.decides(Decision::Dial);
}

#[test]
fn the_last_place_is_free_only_when_the_server_knows() {
    let mut story = Story::new(Growth::Possible);
    story.holds(A, 2);
    // No limit is known, so it does not matter.
    assert_eq!(story.places.on_closed_by_server(A, story.now), Confirmation::Unneeded);
    story.holds(A, 1);
    story.decides(Decision::Ask(A));
    story.is_refused(A, 1, Refusal::Elsewhere);
    assert_eq!(story.places.on_closed_by_server(A, story.now), Confirmation::Needed);
    story.waits(Outlook::Promised);
    story.places.on_close_confirmed(A, story.now);
    story.decides(Decision::Ask(A));
}

#[test]
fn a_close_that_is_not_confirmed_is_not_waited_for_long() {
    let mut story = Story::new(Growth::Possible);
    story.holds(A, 2);
    story.decides(Decision::Ask(A));
    story.is_refused(A, 1, Refusal::Elsewhere);
    story.places.on_closed_by_us(A, story.now);
    story.waits(Outlook::Promised);
    story.passes(LEAVE);
    story.decides(Decision::Dial);
}

#[test]
fn further_connections_that_take_nothing_are_not_piled_up() {
    let mut story = Story::new(Growth::Possible);
    story.holds(A, 1);
    story.decides(Decision::Ask(A));
    story.is_refused(A, 1, Refusal::Elsewhere);
    for rest in [100, 200, 400] {
        story.decides(Decision::Dial);
        let further = story.places.on_dialled(story.now);
        story.decides(Decision::Ask(further));
        // The limit it was expected to have makes the first refusals look transient.
        story.is_refused(further, 1, Refusal::Again);
        assert_eq!(story.places.on_given_up(further, story.now), Refusal::Barren);
        assert_eq!(story.places.retire(further, story.now), None);
        story.passes(Duration::from_millis(rest - 1));
        story.waits(Outlook::Open);
        story.passes(Duration::from_millis(1));
    }
}
