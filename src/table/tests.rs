use super::Table;
use super::entry::Flags;
use crate::error::Timer;
use crate::lifecycle::{Input, State, Tell};
use crate::options::Settings;
use crate::table::Due;

/// A table and a socket in it that was accepted, with whatever settings.
fn accepted(settings: Settings) -> (Table, u32) {
    let mut table = Table::new();
    let number = table.settings.intern(settings);
    let slot = table.insert(number);
    table.apply(slot, Input::Accepted);
    table.entry_mut(slot).flags.paid(Tell::Connection);
    (table, slot)
}

#[test]
fn a_stale_id_finds_nothing_though_its_place_is_used_again() {
    let (mut table, slot) = accepted(Settings::default());
    let old = table.id(slot);
    table.remove(slot);
    assert_eq!(table.find(old), None);
    let number = table.settings.intern(Settings::default());
    let again = table.insert(number);
    assert_eq!(again, slot, "the place is used again");
    assert_eq!(table.find(old), None);
    assert_eq!(table.find(table.id(again)), Some(again));
}

#[test]
fn a_place_whose_generations_are_used_up_is_retired() {
    let (mut table, slot) = accepted(Settings::default());
    table.entry_mut(slot).generation = u32::MAX;
    let last = table.id(slot);
    table.remove(slot);
    let number = table.settings.intern(Settings::default());
    assert_ne!(table.insert(number), slot);
    assert_eq!(table.find(last), None);
    assert_eq!(table.find(crate::SocketId::NONE), None);
}

#[test]
fn the_lists_give_back_what_was_put_in_once_each_and_in_order() {
    let mut table = Table::new();
    let slots: Vec<u32> = (0..4)
        .map(|_| {
            let number = table.settings.intern(Settings::default());
            table.insert(number)
        })
        .collect();
    table.push_ready(slots[1]);
    table.push_later(slots[2]);
    table.push_ready(slots[2]); // Queued already: stays where it is.
    table.push_ready(slots[1]);
    table.push_ready_front(slots[0]);
    assert_eq!((table.pop_ready(), table.pop_ready(), table.pop_ready()), (Some(slots[0]), Some(slots[1]), None));
    table.push_ready(slots[3]);
    table.begin_turn();
    assert_eq!(table.pop_ready(), Some(slots[2]), "what was put off comes before what came since");
    assert_eq!(table.pop_ready(), Some(slots[3]));
    assert!(!table.has_work());
}

#[test]
fn everything_of_a_socket_is_given_back_when_it_is_removed() {
    let (mut table, slot) = accepted(Settings { idle_ms: Some(10), ..Settings::default() });
    table.set_peer(slot, "[::1]:9".parse().expect("an address"));
    table.push(slot, b"never sent");
    table.arm(slot, 5);
    table.remove(slot);
    assert_eq!((table.len(), table.extras.len(), table.settings.len(), table.ipv6_peers.len()), (0, 0, 0, 0));
    assert!(table.wheel.is_empty());
}

#[test]
fn a_peer_address_is_kept_whatever_its_family() {
    let (mut table, slot) = accepted(Settings::default());
    assert_eq!(table.peer(slot), None);
    for text in ["1.2.3.4:5", "[1:2::3]:4", "[::9]:65535", "9.9.9.9:1"] {
        table.set_peer(slot, text.parse().expect("an address"));
        assert_eq!(table.peer(slot).map(|addr| addr.to_string()).as_deref(), Some(text));
    }
    assert_eq!(table.ipv6_peers.len(), 0, "the last one is IPv4");
}

#[test]
fn equal_settings_are_kept_once() {
    let (mut table, one) = accepted(Settings::default());
    let number = table.settings.intern(Settings::default());
    let two = table.insert(number);
    assert_eq!(table.settings.len(), 1);
    table.change_settings(two, |settings| settings.idle_ms = Some(7));
    assert_eq!(table.settings.len(), 2);
    assert_eq!((table.settings_of(one).idle_ms, table.settings_of(two).idle_ms), (None, Some(7)));
    table.change_settings(two, |settings| settings.idle_ms = None);
    assert_eq!(table.settings.len(), 1);
}

#[test]
fn each_state_has_the_limit_that_belongs_to_it() {
    let settings = Settings { idle_ms: Some(50), ..Settings::default() };
    let (mut table, slot) = accepted(settings);
    table.arm(slot, 100);
    assert_eq!(table.deadline(slot), Some((150, Due::Idle)), "open: the idle time alone");
    table.entry_mut(slot).flags.set(Flags::IDLE_TOLD, true);
    assert_eq!(table.deadline(slot), None, "a silence is told once");
    table.entry_mut(slot).flags.set(Flags::READ_CLOSED, true);
    assert_eq!(table.deadline(slot), Some((300_100, Due::Limit(Timer::HalfClosed))), "their FIN is known, not read");
    table.apply(slot, Input::Fin);
    assert_eq!(table.deadline(slot), Some((300_100, Due::Limit(Timer::HalfClosed))));
    table.apply(slot, Input::EndCalled);
    assert_eq!(table.deadline(slot), Some((30_100, Due::Limit(Timer::Linger))), "flushing: linger");
    table.apply(slot, Input::FinSent);
    assert_eq!(table.entry(slot).state, State::Closing);
    assert_eq!(table.deadline(slot), Some((30_100, Due::Limit(Timer::Linger))));
    table.apply(slot, Input::Acknowledged);
    assert_eq!(table.deadline(slot), None, "no timer outlives the connection");
}

#[test]
fn a_write_queue_gives_out_what_was_put_in_whatever_the_kernel_takes() {
    let (mut table, slot) = accepted(Settings::default());
    let mut out = Vec::new();
    let mut taken = 1;
    for round in 0..100_u8 {
        let waiting = table.push(slot, &[round; 7]);
        taken = (taken * 5 + 3) % (waiting + 1);
        let single = table.extra(slot).and_then(|extra| extra.queue.single());
        out.extend_from_slice(&single.expect("small writes are one piece")[..taken]);
        table.sent(slot, taken);
    }
    let rest = table.extra(slot).and_then(|extra| extra.queue.single()).map(<[u8]>::to_vec).unwrap_or_default();
    out.extend_from_slice(&rest);
    assert_eq!(out, (0..100_u8).flat_map(|round| [round; 7]).collect::<Vec<_>>());
    table.sent(slot, rest.len());
    table.tidy_extra(slot);
    assert_eq!(table.extras.len(), 0, "an empty queue costs nothing");
}

/// Sockets in state Created.
fn created(table: &mut Table, count: usize) -> Vec<u32> {
    let insert = |_| {
        let number = table.settings.intern(Settings::default());
        table.insert(number)
    };
    (0..count).map(insert).collect()
}

#[test]
fn each_of_the_queues_is_work_by_itself_and_is_counted() {
    let mut table = Table::new();
    let slots = created(&mut table, 3);
    assert!(!table.has_work());
    table.push_later(slots[0]);
    assert_eq!((table.has_work(), table.ready_len(), table.closes_len()), (true, 0, 0));
    table.begin_turn();
    assert_eq!((table.has_work(), table.ready_len(), table.closes_len()), (true, 1, 0));
    for (close, len) in [(slots[2], 1), (slots[1], 2), (slots[2], 2)] {
        table.push_close(close);
        assert_eq!(table.closes_len(), len);
    }
    table.push_ready_front(slots[2]); // Queued already.
    assert_eq!((table.pop_ready(), table.pop_ready()), (Some(slots[0]), None));
    assert_eq!((table.has_work(), table.ready_len()), (true, 0));
    assert_eq!((table.pop_close(), table.pop_close(), table.pop_close()), (Some(slots[2]), Some(slots[1]), None));
    assert!(!table.has_work());
    table.push_close(slots[2]);
    table.push_later(slots[0]);
    table.push_ready(slots[1]);
    table.push_later(slots[1]); // Queued already.
    assert!(table.has_work());
    table.begin_turn();
    assert_eq!((table.ready_len(), table.closes_len()), (2, 1));
    assert_eq!(
        (table.pop_ready(), table.pop_ready(), table.pop_close()),
        (Some(slots[0]), Some(slots[1]), Some(slots[2]))
    );
}

#[test]
fn the_vacant_place_is_the_one_that_the_next_socket_gets() {
    let mut table = Table::new();
    for len in 0..4 {
        let vacant = table.vacant();
        assert_eq!((table.vacant(), table.len()), (vacant, len), "asking changes nothing");
        assert_eq!(created(&mut table, 1), [vacant]);
    }
    table.remove(2);
    table.remove(1);
    assert_eq!((table.len(), table.slots().collect::<Vec<_>>()), (2, vec![0, 3]));
    assert_eq!(table.vacant(), 1, "the place freed last, which is still in the cache");
    let mut again = created(&mut table, 3);
    again.sort_unstable();
    assert_eq!((again, table.slots().collect::<Vec<_>>()), (vec![1, 2, 4], vec![0, 1, 2, 3, 4]));
}

#[test]
fn an_id_from_another_reactor_finds_no_free_place() {
    let mut table = Table::new();
    let vacant = table.vacant();
    assert_eq!(table.find(table.id(vacant)), None);
    created(&mut table, 1);
    assert_eq!(table.find(table.id(vacant)), Some(vacant));
    assert_eq!(table.find(crate::SocketId::new(vacant + 1, 1)), None, "beyond the table");
}

#[test]
fn a_step_answers_from_which_state_it_was_and_a_new_state_counts_its_limit_anew() {
    let (mut table, slot) = accepted(Settings::default());
    table.entry_mut(slot).flags.set(Flags::TOUCHED, false);
    assert_eq!(table.apply(slot, Input::Data), State::Open);
    assert!(!table.entry(slot).flags.has(Flags::TOUCHED), "the state is the same");
    assert_eq!(table.apply(slot, Input::EndCalled), State::Open);
    assert!(table.entry(slot).state == State::Flushing && table.entry(slot).flags.has(Flags::TOUCHED));
    table.entry_mut(slot).flags.set(Flags::TOUCHED, false);
    assert_eq!(table.apply(slot, Input::EndCalled), State::Flushing, "it changes nothing");
    assert!(table.entry(slot).state == State::Flushing && !table.entry(slot).flags.has(Flags::TOUCHED));
}

#[test]
fn of_the_idle_time_and_the_limit_the_nearer_counts_and_at_one_tick_the_limit() {
    for (idle_ms, expected) in
        [(9, Due::Idle), (10, Due::Limit(Timer::HalfClosed)), (11, Due::Limit(Timer::HalfClosed))]
    {
        let settings = Settings { idle_ms: Some(idle_ms), half_closed_ms: Some(10), ..Settings::default() };
        let (mut table, slot) = accepted(settings);
        table.apply(slot, Input::Fin);
        table.arm(slot, 100);
        assert_eq!(table.deadline(slot), Some((100 + idle_ms.min(10), expected)));
    }
}

#[test]
fn while_we_flush_only_what_the_kernel_takes_puts_the_limit_off() {
    let (mut table, slot) = accepted(Settings { linger_ms: Some(50), ..Settings::default() });
    table.arm(slot, 90);
    assert!(table.extra(slot).is_none(), "nobody flushes");
    table.apply(slot, Input::EndCalled);
    table.arm(slot, 100);
    assert_eq!(table.deadline(slot), Some((150, Due::Limit(Timer::Linger))));
    table.arm(slot, 120);
    assert_eq!(table.deadline(slot), Some((150, Due::Limit(Timer::Linger))), "bytes of the peer put nothing off");
    table.extra_mut(slot).flushed = None;
    table.arm(slot, 130);
    assert_eq!(table.deadline(slot), Some((180, Due::Limit(Timer::Linger))), "the kernel took something");
    table.apply(slot, Input::FinSent);
    table.arm(slot, 140);
    assert_eq!(table.deadline(slot), Some((300_140, Due::Limit(Timer::HalfClosed))), "and has it all");
}

#[test]
fn the_next_address_joins_before_the_limit_of_them_all_and_not_behind_it() {
    let mut table = Table::new();
    let slot = created(&mut table, 1)[0];
    table.apply(slot, Input::Resolved);
    table.arm(slot, 100);
    let limit = Some((30_100, Due::Limit(Timer::Connect)));
    assert_eq!(table.deadline(slot), limit);
    let connecting = |attempt_due| super::extra::Connecting {
        target: std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
        system: crate::options::SystemOptions::default(),
        local: None,
        addrs: Vec::new(),
        told: 0,
        tried: 1,
        racers: Vec::new(),
        failed: Vec::new(),
        attempt_due,
        delay_ms: Some(600),
        first_failure: None,
    };
    table.extra_mut(slot).connecting = Some(Box::new(connecting(Some(700))));
    assert_eq!(table.deadline(slot), limit, "no attempt is under way");
    table.entry_mut(slot).flags.set(Flags::ATTEMPT, true);
    assert_eq!(table.deadline(slot), Some((700, Due::Attempt)));
    table.extra_mut(slot).connecting = Some(Box::new(connecting(None)));
    assert_eq!(table.deadline(slot), limit, "no address is left");
    table.extra_mut(slot).connecting = Some(Box::new(connecting(Some(30_200))));
    assert_eq!(table.deadline(slot), limit, "it would be too late");
}

#[test]
fn a_connected_socket_has_a_timer_exactly_if_it_has_a_deadline() {
    let times = [None, Some(5)];
    for (idle_ms, half_closed_ms, linger_ms) in
        times.into_iter().flat_map(|a| times.into_iter().flat_map(move |b| times.map(|c| (a, b, c))))
    {
        for path in [&[][..], &[Input::Fin], &[Input::EndCalled], &[Input::EndCalled, Input::FinSent]] {
            for flags in [Flags::NONE, Flags::IDLE_TOLD, Flags::READ_CLOSED, Flags::DISCARD] {
                let settings = Settings { idle_ms, half_closed_ms, linger_ms, ..Settings::default() };
                let (mut table, slot) = accepted(settings);
                for &input in path {
                    table.apply(slot, input);
                }
                table.entry_mut(slot).flags.set(flags, true);
                assert_eq!(table.has_timer(slot), table.deadline(slot).is_some(), "{path:?} {flags:?}");
            }
        }
    }
}

#[test]
fn the_wheel_holds_a_socket_for_its_nearest_deadline_until_it_is_disarmed() {
    let (mut table, slot) = accepted(Settings { idle_ms: Some(50), ..Settings::default() });
    let other = created(&mut table, 1)[0];
    table.arm(slot, 100);
    table.arm(other, 0);
    let mut budget = 100;
    assert_eq!(table.pop_due(149, &mut budget), None);
    assert_eq!(table.pop_due(150, &mut budget), Some(slot));
    table.entry_mut(slot).flags.set(Flags::IDLE_TOLD, true);
    table.refile(slot);
    assert_eq!(table.pop_due(20_000, &mut budget), None, "a silence is told once");
    table.entry_mut(slot).flags.set(Flags::IDLE_TOLD, false);
    table.arm(slot, 20_000);
    table.entry_mut(slot).flags.set(Flags::IDLE_TOLD, true);
    table.refile(slot);
    assert_eq!(table.pop_due(20_050, &mut budget), None, "without a deadline it leaves the wheel");
    table.disarm(other);
    assert_eq!((table.pop_due(60_000, &mut budget), table.wheel.is_empty()), (None, true));
}

#[test]
fn settings_live_as_long_as_somebody_holds_them() {
    let mut pool = super::settings::SettingsPool::default();
    let with = |limit_bytes| Settings { limit_bytes, ..Settings::default() };
    let numbers: Vec<u32> = (1..=4).map(|bytes| pool.intern(with(bytes))).collect();
    assert_eq!(pool.intern(with(3)), numbers[2]);
    pool.hold(numbers[2]);
    for left in [3, 2, 1] {
        assert_eq!((pool.len(), pool.get(numbers[2]).limit_bytes), (4, 3), "{left} hold it");
        pool.release(numbers[2]);
    }
    assert_eq!((pool.len(), pool.get(numbers[3]).limit_bytes), (3, 4));
    let again = pool.intern(with(3));
    assert_eq!((pool.len(), pool.get(again).limit_bytes), (4, 3));
}

#[test]
fn what_waits_in_the_queue_is_counted() {
    let (mut table, slot) = accepted(Settings::default());
    assert_eq!(table.queued_bytes(slot), 0);
    table.push(slot, b"seven b");
    table.sent(slot, 2);
    assert_eq!(table.queued_bytes(slot), 5);
    table.tidy_extra(slot);
    assert_eq!(table.queued_bytes(slot), 5, "what is not empty stays");
}

thread_local! {
    /// The lines of this thread's log while it listens.
    static LOG: std::cell::RefCell<Option<Vec<String>>> = const { std::cell::RefCell::new(None) };
}

/// Keeps what is logged on threads that listen; every other thread goes on in silence.
struct Listening;

impl log::Log for Listening {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        LOG.with_borrow(Option::is_some)
    }

    fn log(&self, record: &log::Record<'_>) {
        LOG.with_borrow_mut(|lines| lines.as_mut().map(|lines| lines.push(record.args().to_string())));
    }

    fn flush(&self) {}
}

#[test]
fn each_step_is_a_line_in_the_log_with_the_events_that_it_tells() {
    log::set_logger(&Listening).expect("no other test sets one");
    log::set_max_level(log::LevelFilter::Debug);
    let (mut table, slot) = accepted(Settings::default());
    LOG.set(Some(Vec::new()));
    table.apply(slot, Input::Fin);
    table.set_peer(slot, "1.2.3.4:5".parse().expect("an address"));
    table.apply(slot, Input::EndCalled);
    table.apply(slot, Input::EndCalled); // Changes nothing, says nothing.
    let lines = LOG.take().unwrap_or_default();
    assert_eq!(
        lines,
        ["socket 0.1 -: Open -- Fin -> Ended [end]", "socket 0.1 1.2.3.4:5: Ended -- EndCalled -> LastFlush []"]
    );
}
