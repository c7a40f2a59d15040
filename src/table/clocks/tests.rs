use super::*;
use crate::lifecycle::Input;
use crate::options::SystemOptions;
use crate::table::extra::{Connecting, Flight};

/// Settings without any time.
fn timeless() -> Settings {
    Settings { connect_ms: None, half_closed_ms: None, close_ms: None, ending_ms: None, ..Settings::default() }
}

fn idle(ms: u64, idle_direction: IdleDirection) -> Settings {
    Settings { idle_ms: Some(ms), idle_direction, ..timeless() }
}

fn half_closed(ms: u64) -> Settings {
    Settings { half_closed_ms: Some(ms), ..timeless() }
}

fn linger(ms: u64) -> Settings {
    Settings { close_ms: Some(ms), ..timeless() }
}

/// A table with one socket.
struct Scene {
    table: Table,
    slot: u32,
}

type Change<'a> = &'a dyn Fn(&mut Scene);

impl Scene {
    /// In state Created.
    fn created(settings: Settings) -> Self {
        let mut table = crate::table::tests::table(1);
        let number = table.settings.intern(settings);
        let slot = table.insert(number, None, Flags::NONE);
        Self { table, slot }
    }

    /// Accepted at tick 0, moved to a state on this path, and filed at tick 100.
    fn accepted(settings: Settings, path: &[Input]) -> Self {
        let mut scene = Self::created(settings);
        scene.entry().apply(Input::Accepted);
        scene.restart(Flags::IDLE, 0);
        path.iter().for_each(|&input| scene.apply(input));
        scene.file(100);
        scene
    }

    fn entry(&mut self) -> &mut Entry {
        self.table.entry_mut(self.slot)
    }

    fn extra(&mut self) -> &mut Extra {
        self.table.extra_mut(self.slot)
    }

    fn apply(&mut self, input: Input) {
        self.entry().apply(input);
    }

    fn file(&mut self, now: u64) {
        self.table.file(self.slot, now);
    }

    /// Files a socket to which nothing has happened: the time doesn't matter.
    #[track_caller]
    fn file_again(&mut self) {
        self.table.file(self.slot, u64::MAX / 2);
    }

    fn restart(&mut self, clocks: Flags, now: u64) {
        self.entry().flags.set(clocks, true);
        self.file(now);
    }

    /// Bytes moved, and the socket was put aside at this tick.
    fn moved(&mut self, direction: IdleDirection, now: u64) {
        let settings = self.table.settings_of(self.slot).clone();
        self.entry().moved(direction, &settings);
        self.file(now);
    }

    /// The caller has written bytes, and the kernel had no room.
    fn write(&mut self, bytes: &[u8], now: u64) {
        let was_empty = self.table.queued_bytes(self.slot) == 0;
        self.table.push(self.slot, bytes);
        self.restart(if was_empty { Flags::WRITE } else { Flags::NONE }, now);
    }

    /// The kernel has taken bytes.
    fn sent(&mut self, bytes: usize, now: u64) {
        let extra = self.entry().extra;
        self.table.extras.sent(extra, bytes);
        self.moved(IdleDirection::Write, now);
    }

    fn due(&self) -> Option<(u64, Due)> {
        self.table.deadline(self.slot)
    }
}

const HALF_CLOSED: Due = Due::Limit(TimeoutKind::HalfClosed);
const LINGER: Due = Due::Limit(TimeoutKind::Close);
const WRITE: Due = Due::Limit(TimeoutKind::Write);
const ENDING: Due = Due::Limit(TimeoutKind::Ending);

const FINISHED: &[Input] = &[Input::EndCalled, Input::FinSent];
const LINGERING: &[Input] = &[Input::EndCalled, Input::FinSent, Input::DiscardCalled];

// --- what restarts which clock ---

#[test]
fn bytes_in_restart_the_idle_time_and_the_limit() {
    let mut scene = Scene::accepted(idle(50, IdleDirection::Both), &[]);
    scene.moved(IdleDirection::Read, 120);
    assert_eq!(scene.due(), Some((170, Due::Idle)));
    for path in [FINISHED, &[Input::ErrorSeen]] {
        let mut scene = Scene::accepted(half_closed(50), path);
        scene.moved(IdleDirection::Read, 120);
        assert_eq!(scene.due(), Some((170, HALF_CLOSED)), "{path:?}");
    }
}

#[test]
fn bytes_in_do_not_put_off_the_limit_while_our_side_flushes_or_lingers() {
    for path in [&[Input::EndCalled], LINGERING] {
        let mut scene = Scene::accepted(linger(50), path);
        scene.moved(IdleDirection::Read, 120);
        assert_eq!(scene.due(), Some((150, LINGER)), "{path:?}");
        scene.moved(IdleDirection::Write, 130);
        assert_eq!(scene.due(), Some((180, LINGER)), "{path:?}: bytes out do");
    }
    let mut scene = Scene::accepted(idle(50, IdleDirection::Both), &[Input::EndCalled]);
    scene.moved(IdleDirection::Read, 120);
    assert_eq!(scene.due(), Some((170, Due::Idle)), "the silence is broken");
}

#[test]
fn bytes_out_restart_all_clocks() {
    for (settings, path, due) in [
        (idle(50, IdleDirection::Both), &[][..], Due::Idle),
        (half_closed(50), &[Input::Fin], HALF_CLOSED),
        (linger(50), &[Input::Fin, Input::EndCalled], LINGER),
        (Settings { write_ms: Some(50), ..timeless() }, &[], WRITE),
        (Settings { grace_ms: Some(50), ..timeless() }, &[], Due::Grace),
    ] {
        let mut scene = Scene::accepted(settings, path);
        scene.write(b"two", 100);
        scene.sent(if due == Due::Grace { 3 } else { 1 }, 120);
        assert_eq!(scene.due(), Some((170, due)));
    }
}

#[test]
fn a_new_state_restarts_the_limit_and_no_other_clock() {
    let mut scene = Scene::accepted(Settings { idle_ms: Some(190), half_closed_ms: Some(50), ..timeless() }, &[]);
    scene.apply(Input::Fin);
    scene.file(120);
    assert_eq!(scene.due(), Some((170, HALF_CLOSED)));
    scene.table.change_settings(scene.slot, |settings| settings.half_closed_ms = None);
    assert_eq!(scene.due(), Some((190, Due::Idle)), "it counts from tick 0");

    let mut scene = Scene::accepted(Settings { write_ms: Some(50), ..timeless() }, &[]);
    scene.write(b"x", 110);
    scene.apply(Input::Fin);
    scene.file(120);
    assert_eq!(scene.due(), Some((160, WRITE)));

    let mut scene = Scene::accepted(Settings { grace_ms: Some(50), ..timeless() }, &[]);
    scene.restart(Flags::GRACE, 110);
    scene.apply(Input::ErrorSeen);
    scene.file(120);
    assert_eq!(scene.due(), Some((160, Due::Grace)));

    let mut scene = Scene::accepted(linger(50), &[Input::EndCalled]);
    scene.apply(Input::EndCalled);
    scene.file_again();
    assert_eq!(scene.due(), Some((150, LINGER)), "the state is the same");
}

#[test]
fn the_limit_of_connecting_is_one_for_all_its_states() {
    let mut scene = Scene::created(Settings { connect_ms: Some(50), ..timeless() });
    scene.restart(Flags::LIMIT, 100);
    for input in [Input::LookupStarted, Input::Resolved, Input::NextAddress] {
        scene.apply(input);
        scene.file_again();
        assert_eq!(scene.due(), Some((150, Due::Limit(TimeoutKind::Connect))), "{input:?}");
    }
    scene.apply(Input::Established);
    scene.file(120);
    assert_eq!((scene.due(), scene.table.extras.len()), (None, 0), "it is connected");
}

#[test]
fn the_write_timeout_counts_from_the_first_byte_that_waits() {
    let mut scene = Scene::accepted(Settings { write_ms: Some(50), ..timeless() }, &[]);
    assert_eq!(scene.due(), None, "nothing waits");
    scene.write(b"first", 120);
    scene.write(b"second", 140);
    assert_eq!(scene.due(), Some((170, WRITE)));
    scene.moved(IdleDirection::Read, 150);
    assert_eq!(scene.due(), Some((170, WRITE)), "what the peer sends does not help");
    scene.sent(11, 160);
    assert_eq!(scene.due(), None, "all is with the kernel");
    scene.write(b"third", 300);
    assert_eq!(scene.due(), Some((350, WRITE)));
    scene.apply(Input::EndCalled);
    scene.file(310);
    assert_eq!(scene.due(), None, "from here on the limit of closing counts");
}

#[test]
fn a_write_starts_the_write_timeout_if_nothing_waits_whether_it_is_queued_or_at_hand() {
    for is_at_hand in [false, true] {
        let mut scene = Scene::accepted(Settings { write_ms: Some(50), ..timeless() }, &[]);
        if is_at_hand {
            scene.table.at_hand = scene.slot;
        }
        for now in [120, 140] {
            scene.entry().flags.set(Flags::WRITABLE, true);
            let host = crate::sim::Network::new(1).host([10, 0, 0, 1].into());
            let context = crate::socket::Context { table: &mut scene.table, net: &host };
            let written = crate::socket::Socket::new(context, scene.slot).write(b"x");
            assert_eq!(written, Ok(crate::socket::Backpressure::Room));
            scene.table.spill(scene.slot);
            scene.table.at_hand = NIL;
            scene.file(now);
            // While there may be room, the step of a queued socket comes first.
            scene.entry().flags.set(Flags::WRITABLE, false);
            assert_eq!(scene.due(), Some((170, WRITE)), "at hand: {is_at_hand}");
        }
    }
}

#[test]
fn the_idle_time_of_one_direction_is_put_off_by_bytes_of_that_direction_alone() {
    for (idle_direction, of_read, of_write) in
        [(IdleDirection::Both, 120, 130), (IdleDirection::Read, 120, 120), (IdleDirection::Write, 0, 130)]
    {
        let mut scene = Scene::accepted(idle(200, idle_direction), &[]);
        scene.moved(IdleDirection::Read, 120);
        assert_eq!(scene.due(), Some((of_read + 200, Due::Idle)), "{idle_direction:?}");
        scene.moved(IdleDirection::Write, 130);
        assert_eq!(scene.due(), Some((of_write + 200, Due::Idle)), "{idle_direction:?}");
    }
}

#[test]
fn a_silence_that_was_delivered_counts_no_more_until_bytes_move() {
    let mut scene = Scene::accepted(idle(50, IdleDirection::Both), &[]);
    scene.entry().stop_idle_clock();
    scene.file_again();
    assert_eq!((scene.due(), scene.table.wheel.is_empty()), (None, true));
    scene.restart(Flags::LIMIT, 120);
    assert_eq!(scene.due(), None, "a new state moves no byte");
    scene.table.peer_took(scene.slot, 140);
    assert_eq!(scene.due(), None, "nor does the peer's kernel what it took for a silence to come");
    scene.moved(IdleDirection::Read, 150);
    assert_eq!(scene.due(), Some((200, Due::Idle)));
}

#[test]
fn what_the_peer_takes_counts_as_if_it_were_written_then_unless_it_was_taken_at_once() {
    for (settings, path, due) in [
        (idle(50, IdleDirection::Both), &[][..], Due::Idle),
        (idle(50, IdleDirection::Write), &[], Due::Idle),
        (half_closed(50), &[Input::Fin], HALF_CLOSED),
        (linger(50), LINGERING, LINGER),
        (Settings { write_ms: Some(50), ..timeless() }, &[], WRITE),
        (Settings { grace_ms: Some(50), ..timeless() }, &[], Due::Grace),
    ] {
        for (at, since) in [(90, 100), (100 + AT_ONCE_TICKS, 100), (101 + AT_ONCE_TICKS, 101 + AT_ONCE_TICKS)] {
            let mut scene = Scene::accepted(settings.clone(), path);
            scene.restart(Flags::CLOCKS, 100);
            if due == WRITE {
                scene.write(b"x", 100);
            }
            scene.table.peer_took(scene.slot, at);
            assert_eq!(scene.due(), Some((since + 50, due)), "taken at {at}");
        }
    }
    let mut scene = Scene::accepted(idle(50, IdleDirection::Read), &[]);
    scene.table.peer_took(scene.slot, 200);
    assert_eq!(scene.due(), Some((50, Due::Idle)), "the peer has sent nothing");
}

// --- what counts, and from when ---

#[test]
fn each_state_has_one_limit_or_none() {
    let settings = Settings { connect_ms: Some(1), half_closed_ms: Some(2), close_ms: Some(3), ..timeless() };
    for &state in State::ALL {
        for (read_closed, peer_finished) in [(false, false), (true, false), (false, true)] {
            let settings = Settings { peer_finished, ..settings.clone() };
            let mut scene = Scene::created(settings.clone());
            scene.entry().state = state;
            scene.entry().flags.set(Flags::READ_CLOSED, read_closed);
            let limit = match (state, read_closed || peer_finished) {
                (State::Created | State::Resolving | State::Connecting, _) => Some((1, TimeoutKind::Connect)),
                (State::Open, true) | (State::LocalFinished | State::PeerFinished | State::Broken, _) => {
                    Some((2, TimeoutKind::HalfClosed))
                }
                (State::Flushing | State::LastFlush | State::Lingering | State::Closing, _) => {
                    Some((3, TimeoutKind::Close))
                }
                _ => None,
            };
            let entry = scene.entry();
            assert_eq!(entry.limit(&settings), limit, "{state:?}, their end is known: {read_closed}");
            assert_eq!(entry.limit(&timeless()), None, "without a time there is no limit");
            let may_idle = state.is_connected() && !matches!(state, State::Lingering | State::Closing);
            assert_eq!(entry.may_idle(), may_idle, "{state:?}");
        }
    }
}

#[test]
fn the_ending_timeout_counts_from_when_one_side_has_ended_and_nothing_puts_it_off() {
    let settings = Settings { ending_ms: Some(500), ..timeless() };
    let begins: [Change<'_>; 5] = [
        &|scene| scene.entry().flags.set(Flags::READ_CLOSED, true),
        &|scene| scene.apply(Input::Fin),
        &|scene| scene.apply(Input::EndCalled),
        &|scene| scene.apply(Input::ErrorSeen),
        &|scene| scene.table.peer_finished(scene.slot, 120),
    ];
    for begin in &begins {
        let mut scene = Scene::accepted(settings.clone(), &[]);
        assert_eq!(scene.due(), None, "no side has ended");
        begin(&mut scene);
        scene.file(120);
        for (now, direction) in [(130, IdleDirection::Read), (140, IdleDirection::Write)] {
            scene.moved(direction, now);
            scene.table.peer_took(scene.slot, now + 100);
            assert_eq!(scene.due(), Some((620, ENDING)));
        }
    }
    let mut scene = Scene::accepted(settings.clone(), &[]);
    begins[0](&mut scene);
    scene.file(120);
    scene.entry().flags.set(Flags::READ_CLOSED, false);
    scene.moved(IdleDirection::Read, 130);
    assert_eq!(scene.due(), None, "the peer has not ended after all");
    let mut scene = Scene::accepted(settings, &[]);
    for (now, input) in [Input::EndCalled, Input::FinSent, Input::DiscardCalled, Input::Fin].into_iter().enumerate() {
        scene.apply(input);
        scene.file(200 + now as u64);
        assert_eq!(scene.due(), Some((700, ENDING)), "{input:?}");
    }
}

#[test]
fn the_grace_of_a_stop_counts_while_our_side_is_open_and_the_peer_waits_for_nothing() {
    let settings = Settings { grace_ms: Some(50), ..timeless() };
    let cases: [(&str, &[Input], Change<'_>, bool); 10] = [
        ("nothing was ever sent", &[], &|_| {}, true),
        ("their half is closed: it waits for the rest of its answer", &[Input::Fin], &|_| {}, false),
        ("the program reads on later", &[], &|scene| scene.entry().flags.set(Flags::PAUSED, true), false),
        ("it may wait for an answer", &[], &|scene| scene.entry().heard_last = true, false),
        ("its answer has not left", &[], &|scene| scene.write(b"x", 110), false),
        ("our side is about to end", &[], &|scene| scene.entry().flags.set(Flags::END, true), false),
        ("our side ends", &[Input::EndCalled], &|_| {}, false),
        ("our side has ended", FINISHED, &|_| {}, false),
        ("nothing can be answered", &[Input::ErrorSeen], &|scene| scene.entry().heard_last = true, true),
        ("it is over", &[Input::Reset], &|_| {}, false),
    ];
    for (why, path, change, counts) in cases {
        let mut scene = Scene::accepted(settings.clone(), path);
        change(&mut scene);
        scene.restart(Flags::GRACE, 120);
        assert_eq!(scene.due(), counts.then_some((170, Due::Grace)), "{why}");
    }
    let mut scene = Scene::accepted(settings, &[]);
    scene.moved(IdleDirection::Read, 120);
    assert_eq!(scene.due(), None, "a question");
    scene.moved(IdleDirection::Write, 140);
    assert_eq!(scene.due(), Some((190, Due::Grace)), "and its answer");
}

#[test]
fn what_counts_from_the_next_look_at_the_clock_begins_with_it_and_only_once() {
    let mut scene = Scene::accepted(timeless(), &[]);
    scene.extra().deadline = Some(Deadline::In(50));
    assert_eq!(scene.due(), None, "it does not count yet");
    scene.file(120);
    assert_eq!(scene.due(), Some((170, Due::Limit(TimeoutKind::Deadline))));
    scene.table.extra_mut(scene.slot).retry_later();
    scene.file(130);
    assert_eq!(scene.due(), Some((150, Due::Retry)));
    scene.table.retry(scene.slot, 150);
    scene.moved(IdleDirection::Write, 140);
    assert_eq!(scene.due(), Some((170, Due::Limit(TimeoutKind::Deadline))), "whatever moves");
    scene.extra().deadline = None;
    scene.table.tidy(scene.slot);
    scene.file_again();
    assert_eq!((scene.due(), scene.table.extras.len(), scene.table.wheel.is_empty()), (None, 0, true));
}

// --- which deadline is the nearest ---

/// Every kind of deadline is due, at tick 200.
fn with_everything_due(bytes: &[u8]) -> Scene {
    let every = Some(100);
    let settings = Settings {
        idle_ms: every,
        half_closed_ms: every,
        write_ms: every,
        ending_ms: every,
        grace_ms: every,
        ..timeless()
    };
    let mut scene = Scene::accepted(settings, &[]);
    scene.entry().flags.set(Flags::READ_CLOSED, true);
    if !bytes.is_empty() {
        scene.table.push(scene.slot, bytes);
    }
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let mut connecting = Box::new(Connecting::new(addr.into(), SystemOptions::default(), None, Some(1)));
    connecting.attempt_due = Some(200);
    connecting.in_flight.push(Flight { slot: scene.slot, addr: 0 });
    let extra = scene.extra();
    (extra.connecting, extra.deadline, extra.retry_at) =
        (Some(connecting), Some(Deadline::At(200)), Some(Deadline::At(200)));
    scene.restart(Flags::CLOCKS, 100);
    scene
}

/// Removes this reason.
fn without(scene: &mut Scene, due: Due) {
    let slot = scene.slot;
    match due {
        Due::Limit(TimeoutKind::HalfClosed) => {
            scene.table.change_settings(slot, |settings| settings.half_closed_ms = None)
        }
        Due::Limit(TimeoutKind::Write) => scene.extra().write_since = None,
        Due::Limit(TimeoutKind::Ending) => scene.extra().ending_at = None,
        Due::Limit(_) => scene.extra().deadline = None,
        Due::Attempt => scene.extra().connecting = None,
        Due::Retry => scene.extra().retry_at = None,
        Due::Grace => scene.table.change_settings(slot, |settings| settings.grace_ms = None),
        Due::Idle => scene.entry().stop_idle_clock(),
    }
}

#[test]
fn of_the_deadlines_of_one_tick_those_that_end_the_socket_come_first_and_its_silence_last() {
    let deadline = Due::Limit(TimeoutKind::Deadline);
    for (bytes, order) in [
        // Those that something could postpone come after the call that lacked memory.
        (&b"x"[..], [deadline, ENDING, Due::Attempt, Due::Retry, HALF_CLOSED, WRITE, Due::Idle]),
        (&[], [deadline, ENDING, Due::Attempt, Due::Retry, HALF_CLOSED, Due::Grace, Due::Idle]),
    ] {
        let mut scene = with_everything_due(bytes);
        for due in order {
            assert_eq!(scene.due(), Some((200, due)));
            without(&mut scene, due);
        }
        assert_eq!(scene.due(), None);
    }
}

#[test]
fn a_socket_that_is_over_has_no_deadline_whatever_it_waited_for() {
    let mut scene = with_everything_due(b"x");
    scene.apply(Input::Reset);
    scene.file(150);
    assert_eq!((scene.due(), scene.table.wheel.is_empty()), (None, true));
}

#[test]
fn of_two_deadlines_the_nearer_one_counts() {
    for (idle_ms, due) in [(9, Due::Idle), (10, HALF_CLOSED), (11, HALF_CLOSED)] {
        let mut scene = Scene::accepted(Settings { idle_ms: Some(idle_ms), ..half_closed(10) }, &[Input::Fin]);
        scene.restart(Flags::CLOCKS, 100);
        assert_eq!(scene.due(), Some((100 + idle_ms.min(10), due)));
    }
}

#[test]
fn a_deadline_that_bytes_can_put_off_names_their_direction_and_its_clock() {
    let ways = |due: Due, settings: &Settings| {
        [IdleDirection::Read, IdleDirection::Write].map(|way| due.is_for(way, settings))
    };
    let timers = [
        (TimeoutKind::Connect, false, false, Flags::NONE),
        (TimeoutKind::Deadline, false, false, Flags::NONE),
        (TimeoutKind::Ending, false, false, Flags::NONE),
        (TimeoutKind::HalfClosed, true, true, Flags::LIMIT),
        (TimeoutKind::Close, false, true, Flags::LIMIT),
        (TimeoutKind::Write, false, true, Flags::WRITE),
    ];
    let limits = timers.map(|(timer, reading, writing, clock)| (Due::Limit(timer), reading, writing, clock));
    let others = [
        (Due::Attempt, false, false, Flags::NONE),
        (Due::Retry, false, false, Flags::NONE),
        (Due::Grace, true, true, Flags::GRACE),
    ];
    for (due, reading, writing, clock) in limits.into_iter().chain(others) {
        for settings in [IdleDirection::Both, IdleDirection::Read, IdleDirection::Write]
            .map(|idle_direction| idle(1, idle_direction))
        {
            assert_eq!(ways(due, &settings), [reading, writing], "{due:?}");
            assert_eq!(due.clock(), clock, "{due:?}");
        }
    }
    for (idle_direction, reading, writing) in
        [(IdleDirection::Both, true, true), (IdleDirection::Read, true, false), (IdleDirection::Write, false, true)]
    {
        let settings = idle(1, idle_direction);
        assert_eq!(ways(Due::Idle, &settings), [reading, writing]);
        assert_eq!(Due::Idle.clock(), Flags::IDLE);
    }
}

// --- what is filed ---

#[test]
fn a_socket_without_a_deadline_costs_neither_a_look_at_the_clock_nor_a_timer_nor_an_extra() {
    let mut scene = Scene::accepted(timeless(), &[]);
    scene.entry().flags.set(Flags::CLOCKS, true);
    scene.file_again();
    assert!(!scene.entry().flags.has(Flags::CLOCKS) && scene.table.wheel.is_empty());
    let mut scene = Scene::accepted(idle(50, IdleDirection::Both), &[]);
    scene.restart(Flags::CLOCKS, 120);
    assert_eq!((scene.table.extras.len(), scene.table.wheel.len()), (0, 1), "the idle time is in the entry");
    scene.table.change_settings(scene.slot, |settings| settings.idle_ms = None);
    scene.file_again();
    assert!(scene.table.wheel.is_empty(), "the time was taken back");
    let mut scene = Scene::accepted(idle(50, IdleDirection::Both), &[]);
    scene.table.change_settings(scene.slot, |settings| settings.idle_ms = None);
    scene.table.file_later(scene.slot);
    assert!(scene.table.wheel.is_empty() && scene.table.unfiled.is_empty(), "nor when it is put aside");
}

#[test]
fn a_socket_that_is_put_aside_has_its_nearest_deadline_filed_whatever_its_times_are() {
    let paths: [&[Input]; 7] = [
        &[],
        &[Input::Fin],
        &[Input::EndCalled],
        FINISHED,
        LINGERING,
        &[Input::ErrorSeen],
        &[Input::Fin, Input::EndCalled],
    ];
    let time = |bits: u32, bit: u32| (bits >> bit & 1 == 1).then_some(60 - u64::from(bit));
    for bits in 0..1_u32 << 6 {
        let [idle_ms, write_ms, half_closed_ms, close_ms, ending_ms, grace_ms] =
            [0, 1, 2, 3, 4, 5].map(|bit| time(bits, bit));
        let settings = Settings { idle_ms, write_ms, half_closed_ms, close_ms, ending_ms, grace_ms, ..timeless() };
        for path in paths {
            for (read_closed, bytes) in [(false, &b""[..]), (true, b""), (false, b"x"), (true, b"x")] {
                // It has nothing but its entry before it gets them.
                let mut scene = Scene::accepted(timeless(), &[]);
                scene.table.change_settings(scene.slot, |own| own.clone_from(&settings));
                path.iter().for_each(|&input| scene.apply(input));
                scene.entry().flags.set(Flags::READ_CLOSED | Flags::LIMIT, read_closed);
                if !bytes.is_empty() {
                    scene.table.push(scene.slot, bytes);
                }
                scene.entry().flags.set(Flags::CLOCKS, true);
                scene.table.file_later(scene.slot);
                scene.table.file_all(100);
                let (entry, settings, extra) = scene.table.parts(scene.slot);
                let times = [
                    entry.limit(settings).map(|(ms, _)| ms),
                    entry.grace(settings, extra),
                    entry.write_limit(settings, extra),
                    settings.ending_ms.filter(|_| entry.is_ending(settings)),
                    settings.idle_ms.filter(|_| entry.may_idle()),
                ];
                let nearest = times.into_iter().flatten().min().map(|ms| 100 + ms);
                let due = scene.due().map(|(due, _)| due);
                assert_eq!(due, nearest, "{path:?}, {read_closed}, {bytes:?}: {settings:?}");
                assert_eq!(scene.table.audit_timer(scene.slot), Ok(()));
                assert!(!scene.entry().flags.has(Flags::CLOCKS));
            }
        }
    }
}

#[test]
fn the_wheel_gives_a_socket_out_at_its_deadline_and_not_before() {
    let mut scene = Scene::accepted(idle(50, IdleDirection::Both), &[]);
    let mut budget = 100;
    scene.moved(IdleDirection::Read, 120);
    assert_eq!(scene.table.pop_due(169, &mut budget), None);
    assert_eq!(scene.table.pop_due(170, &mut budget), Some(scene.slot));
    assert!(scene.table.wheel.is_empty());
    scene.table.refile(scene.slot);
    assert_eq!(scene.table.pop_due(170, &mut budget), None, "once in a pass");
    assert_eq!(scene.table.pop_due(170, &mut budget), Some(scene.slot), "it is still due");
}
