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
    table.extra_mut(slot).queue.push(b"never sent");
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
        let queue = &mut table.extra_mut(slot).queue;
        queue.push(&[round; 7]);
        taken = (taken * 5 + 3) % (queue.len() + 1);
        out.extend_from_slice(&queue.pending()[..taken]);
        queue.sent(taken);
    }
    let rest = table.extra(slot).map(|extra| extra.queue.pending().to_vec()).unwrap_or_default();
    out.extend_from_slice(&rest);
    assert_eq!(out, (0..100_u8).flat_map(|round| [round; 7]).collect::<Vec<_>>());
    table.extra_mut(slot).queue.sent(rest.len());
    table.tidy_extra(slot);
    assert_eq!(table.extras.len(), 0, "an empty queue costs nothing");
}
