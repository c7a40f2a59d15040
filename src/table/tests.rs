use super::*;
use crate::lifecycle::{Input, State};

pub(super) fn table(reactor: u32) -> Table {
    Table::new(reactor, Epoch(crate::sim::Network::new(1).now()), Shared::new(Box::new(|| {})))
}

/// Sockets in state Created.
fn created(table: &mut Table, count: usize) -> Vec<u32> {
    let insert = |_| {
        let number = table.settings.intern(Settings::default());
        table.insert(number, None, Flags::NONE)
    };
    (0..count).map(insert).collect()
}

/// A table with a socket that was accepted.
fn accepted(settings: Settings) -> (Table, u32) {
    let mut table = table(7);
    let number = table.settings.intern(settings);
    let slot = table.insert(number, None, Flags::NONE);
    table.entry_mut(slot).apply(Input::Accepted);
    (table, slot)
}

fn next(table: &Table, slot: u32) -> Next {
    let (entry, settings, extra) = table.parts(slot);
    entry.next(settings, extra)
}

// --- slots and ids ---

#[test]
fn a_stale_id_finds_nothing_though_its_slot_is_used_again() {
    let (mut table, slot) = accepted(Settings::default());
    let old = table.id(slot);
    table.remove(slot);
    assert_eq!(table.find(old), None);
    assert_eq!(created(&mut table, 1), [slot], "the slot is used again");
    assert_eq!((table.find(old), table.find_here(slot, old.generation())), (None, None));
    assert_eq!(table.find(table.id(slot)), Some(slot));
    assert_eq!(table.find_here(slot, table.id(slot).generation()), Some(slot));
}

#[test]
fn an_id_of_another_reactor_or_beyond_the_table_finds_nothing() {
    let (mut one, mut other) = (table(1), table(2));
    let (ours, theirs) = (created(&mut one, 1)[0], created(&mut other, 1)[0]);
    let (our_id, their_id) = (one.id(ours), other.id(theirs));
    assert_eq!(
        (our_id.index(), our_id.generation()),
        (their_id.index(), their_id.generation()),
        "the rest is the same"
    );
    assert_eq!((one.find(our_id), one.find(their_id), other.find(our_id)), (Some(ours), None, None));
    assert_eq!((one.find(SocketId::new(1, ours + 1, 1)), one.find(SocketId::NONE)), (None, None));
}

#[test]
fn each_socket_has_a_generation_of_its_own_and_none_has_generation_0() {
    let mut table = table(1);
    let mut generations: Vec<u32> = Vec::new();
    for _ in 0..3 {
        let slots = created(&mut table, 2);
        generations.extend(slots.iter().map(|&slot| table.id(slot).generation()));
        table.remove(slots[0]);
    }
    assert_eq!(generations, [1, 2, 3, 4, 5, 6]);
    table.generation = u32::MAX - 1;
    let last = created(&mut table, 2);
    assert_eq!([last[0], last[1]].map(|slot| table.id(slot).generation()), [u32::MAX, 1], "0 is left out");
}

#[test]
fn the_vacant_slot_is_the_one_that_the_next_socket_gets() {
    let mut table = table(1);
    for len in 0..4 {
        let vacant = table.vacant();
        assert_eq!((table.vacant(), table.len()), (vacant, len), "to ask changes nothing");
        assert_eq!(created(&mut table, 1), [vacant]);
    }
    table.remove(2);
    table.remove(1);
    assert_eq!((table.len(), table.slots().collect::<Vec<_>>()), (2, vec![0, 3]));
    assert_eq!(table.vacant(), 1, "the slot that was freed last, which is still in the cache");
    assert_eq!((created(&mut table, 3), table.slots().collect::<Vec<_>>()), (vec![1, 2, 4], vec![0, 1, 2, 3, 4]));
}

#[test]
fn a_reserved_slot_is_no_socket_and_no_socket_gets_it_until_it_is_given_back() {
    let mut table = table(1);
    let socket = created(&mut table, 1)[0];
    let reserved = table.reserve();
    assert_eq!((table.len(), table.outgoing, table.reserved), (1, 1, 1));
    assert_eq!(table.slots().collect::<Vec<_>>(), [socket]);
    let next = created(&mut table, 1)[0];
    assert!(next != reserved && table.audit().is_ok());
    assert_eq!((table.find_here(reserved, 0), table.find(SocketId::new(1, reserved, 0))), (None, None));
    table.unreserve(reserved);
    assert_eq!((table.len(), table.reserved, table.vacant()), (2, 0, reserved));
    assert_eq!(table.slots().collect::<Vec<_>>(), [socket, next]);
}

#[test]
fn only_sockets_that_no_listener_accepted_are_outgoing() {
    let mut table = table(1);
    let listener = Some(crate::id::ListenerId::new(1, 0, 1));
    let slots = [None, listener, listener].map(|listener| {
        let number = table.settings.intern(Settings { listener, ..Settings::default() });
        table.insert(number, None, Flags::NONE)
    });
    assert_eq!((table.len(), table.outgoing), (3, 1));
    table.remove(slots[1]);
    assert_eq!((table.len(), table.outgoing), (2, 1));
    table.remove(slots[0]);
    assert_eq!((table.len(), table.outgoing), (1, 0));
}

#[test]
fn an_entry_is_a_cache_line_also_in_the_table_which_grows_once() {
    let mut table = table(1);
    created(&mut table, FEW);
    assert!(table.entries.capacity() < MANY, "a program with few connections pays for few");
    created(&mut table, 1);
    let capacity = table.entries.capacity();
    assert_eq!(capacity, MANY);
    created(&mut table, MANY - FEW - 1);
    assert_eq!(table.entries.capacity(), capacity);
    let address = |slot| std::ptr::from_ref(table.entry(slot)).addr();
    assert_eq!(address(1) - address(0), 64);
}

#[test]
fn everything_of_a_socket_is_given_back_when_it_is_removed() {
    let (mut table, slot) = accepted(Settings { idle_ms: Some(10), ..Settings::default() });
    table.set_peer(slot, "[::1]:9".parse().expect("an address"));
    table.push(slot, b"never sent");
    table.entry_mut(slot).flags.set(Flags::IDLE, true);
    table.file(slot, 5);
    table.wheel.cancel(&mut table.entries, slot);
    table.remove(slot);
    assert_eq!((table.len(), table.extras.len(), table.settings.len(), table.extras.ipv6_peers.len()), (0, 0, 0, 0));
}

// --- the lists ---

#[test]
fn a_socket_that_is_woken_is_ready_once_and_the_one_at_hand_is_only_marked() {
    let mut table = table(1);
    let slots = created(&mut table, 2);
    table.at_hand = slots[1];
    for slot in [slots[0], slots[1], slots[0]] {
        table.wake(slot);
        assert!(table.entry(slot).flags.has(Flags::SOON));
    }
    assert!(!table.entry(slots[1]).flags.has(Flags::QUEUED), "it is served next without a list");
    assert_eq!((table.pop_ready(), table.pop_ready(), table.has_work()), (Some(slots[0]), None, false));
}

#[test]
fn a_socket_that_gets_a_kernel_pipe_is_the_next_to_be_served() {
    let mut table = table(1);
    let slots = created(&mut table, 3);
    slots.iter().for_each(|slot| table.entry_mut(*slot).state = State::Open);
    table.at_hand = slots[0];
    table.wake(slots[1]);
    table.push_spliced(slots[2], Box::new(KernelPipe::in_memory(vec![1])));
    assert_eq!([table.pop_ready(), table.pop_ready()], [Some(slots[2]), Some(slots[1])], "its pipe is free soon");
}

#[test]
fn what_a_socket_needs_next_puts_it_into_its_list() {
    let mut table = table(1);
    let slots = created(&mut table, 6);
    for (slot, next) in [Next::Now, Next::Deliver, Next::Later, Next::Close, Next::Wait].into_iter().enumerate() {
        assert_eq!(table.has_work(), slot > 0);
        table.put(slots[slot], next);
        assert_eq!(table.entry(slots[slot]).flags.has(Flags::QUEUED), next != Next::Wait);
    }
    assert_eq!((table.ready.len(), !table.later.is_empty(), table.closes.len()), (2, true, 1));
    assert_eq!(table.pop_ready(), Some(slots[1]), "its event belongs directly after its last");
    table.put(slots[5], Next::Now);
    table.ready.append(&mut table.later);
    assert!(table.later.is_empty());
    let ready = [0, 5, 2].map(|slot| Some(slots[slot]));
    assert_eq!([(); 3].map(|()| table.pop_ready()), ready, "what was put off comes after what is ready");
    assert_eq!((table.pop_ready(), table.has_work()), (None, true));
    assert_eq!((table.pop_close(), table.pop_close(), table.has_work()), (Some(slots[3]), None, false));
}

#[test]
fn sockets_that_need_the_same_are_served_in_the_order_in_which_they_came() {
    for next in [Next::Now, Next::Later, Next::Close] {
        let mut table = table(1);
        let slots = created(&mut table, 3);
        slots.iter().for_each(|&slot| table.put(slot, next));
        table.ready.append(&mut table.later);
        let served = [(); 3].map(|()| table.pop_ready().or_else(|| table.pop_close()));
        assert_eq!(served.into_iter().flatten().collect::<Vec<_>>(), slots, "{next:?}");
    }
}

#[test]
fn a_socket_in_a_list_stays_there_whatever_it_needs_meanwhile() {
    for next in [Next::Deliver, Next::Now, Next::Later, Next::Close] {
        let mut table = table(1);
        let slot = created(&mut table, 1)[0];
        table.put(slot, next);
        let lengths = |table: &Table| (table.ready.len(), !table.later.is_empty(), table.closes.len());
        let before = lengths(&table);
        for again in [Next::Deliver, Next::Now, Next::Later, Next::Close, Next::Wait] {
            table.put(slot, again);
            table.wake(slot);
            assert_eq!(lengths(&table), before, "{next:?}, then {again:?}");
        }
        table.ready.append(&mut table.later);
        assert_eq!([table.pop_ready(), table.pop_close()].iter().flatten().count(), 1);
        assert!(!table.entry(slot).flags.has(Flags::QUEUED) && !table.has_work());
    }
}

#[test]
fn a_socket_that_waited_for_its_turn_needs_its_step_now() {
    let (mut table, slot) = accepted(Settings::default());
    table.entry_mut(slot).flags.take_pending(crate::lifecycle::Emits::Connection);
    table.entry_mut(slot).flags.set(Flags::READABLE, true);
    let need = next(&table, slot);
    assert_eq!(need, Next::Later);
    table.put(slot, need);
    table.ready.append(&mut table.later);
    assert_eq!((table.pop_ready(), next(&table, slot)), (Some(slot), Next::Now));
}

#[test]
fn a_retry_makes_a_connection_ready_again_and_starts_an_attempt_with_nothing() {
    let unregistered = Flags::READABLE | Flags::WRITABLE | Flags::ERROR;
    for (state, ready) in [
        (State::Connecting, Flags::NONE),
        (State::Open, unregistered),
        (State::Closing, unregistered | Flags::HANGUP),
        (State::Broken, unregistered | Flags::HANGUP),
    ] {
        let (mut table, slot) = accepted(Settings::default());
        table.entry_mut(slot).state = state;
        table.entry_mut(slot).flags = Flags::NONE;
        table.extra_mut(slot).retry_later();
        assert_eq!(next(&table, slot), Next::Wait);
        table.retry(slot, 20);
        assert_eq!((table.entry(slot).flags, next(&table, slot)), (ready | Flags::SOON, Next::Now));
        table.tidy(slot);
        assert_eq!(table.extras.len(), 0);
    }
}

#[test]
fn a_deadline_that_has_waited_for_a_repetition_waits_for_no_other_until_its_clock_restarts() {
    let (mut table, slot) = accepted(Settings { half_closed_ms: Some(10), ..Settings::default() });
    table.entry_mut(slot).state = State::PeerFinished;
    let after = |table: &mut Table, tick: u64| {
        table.file(slot, tick);
        table.deadline(slot).map(|(due, _)| due)
    };
    table.entry_mut(slot).flags = Flags::LIMIT;
    assert_eq!(after(&mut table, 100), Some(110));
    table.extra_mut(slot).retry_later();
    assert_eq!(after(&mut table, 105), Some(125), "the deadline passes meanwhile");
    table.retry(slot, 125);
    table.tidy(slot);
    assert_eq!(after(&mut table, 126), Some(110), "the call has succeeded");
    table.extra_mut(slot).retry_later();
    assert_eq!(after(&mut table, 127), Some(110), "another has failed");
    table.entry_mut(slot).flags = Flags::LIMIT;
    assert_eq!(after(&mut table, 128), Some(147), "it waits again, since it begins again");
}

// --- what waits to be written ---

/// An open socket that is at hand and has room in the kernel.
fn at_hand() -> (Table, u32) {
    let (mut table, slot) = accepted(Settings::default());
    table.entry_mut(slot).flags.set(Flags::WRITABLE, true);
    table.at_hand = slot;
    (table, slot)
}

/// What waits in the queue, if it is one piece.
fn queued(table: &Table, slot: u32) -> &[u8] {
    table.extra(slot).and_then(|extra| extra.queue.single()).unwrap_or_default()
}

#[test]
fn what_is_written_to_the_socket_at_hand_needs_no_queue_and_is_counted_as_if_it_had_one() {
    let (mut table, slot) = at_hand();
    assert_eq!((table.push(slot, b"seven b"), table.push_given(slot, b"ytes".to_vec().into())), (7, 11));
    assert_eq!((table.extras.at_hand_bytes.as_slice(), table.extras.len()), (&b"seven bytes"[..], 0));
    assert_eq!((table.queued_bytes(slot), table.extra(slot).map_or(0, Extra::unsent_bytes)), (11, 0));
    let other = created(&mut table, 1)[0];
    assert_eq!((table.push(other, b"x"), table.queued_bytes(other)), (1, 1), "any other has a queue");
    assert_eq!(table.extras.at_hand_bytes.len(), 11);
}

#[test]
fn bytes_wait_at_hand_only_if_they_could_leave_at_once() {
    type Change<'a> = &'a dyn Fn(&mut Table, u32);
    let cases: [(&str, Change<'_>); 4] = [
        ("there is no room", &|table, slot| table.entry_mut(slot).flags.set(Flags::WRITABLE, false)),
        ("it is not connected yet", &|table, slot| table.entry_mut(slot).state = State::Connecting),
        ("others wait before them", &|table, slot| {
            table.push_queue(slot, b"others");
        }),
        ("another socket is at hand", &|table, _| table.at_hand = NIL),
    ];
    for (why, change) in cases {
        let (mut table, slot) = at_hand();
        change(&mut table, slot);
        table.push(slot, b"bytes");
        assert_eq!((table.extras.at_hand_bytes.len(), queued(&table, slot).ends_with(b"bytes")), (0, true), "{why}");
    }
    for (more, at_hand_bytes) in [(1, AT_HAND_BYTES), (2, 0)] {
        let (mut table, slot) = at_hand();
        table.push(slot, &[0; AT_HAND_BYTES - 1]);
        assert_eq!(table.push(slot, &[0; 2][..more]), AT_HAND_BYTES - 1 + more);
        assert_eq!(table.extras.at_hand_bytes.len(), at_hand_bytes, "{more} more");
    }
}

#[test]
fn bytes_that_do_not_leave_at_once_go_to_the_queue_in_order_and_start_the_write_clock() {
    let (mut table, slot) = at_hand();
    table.spill(slot);
    assert!(!table.entry(slot).flags.has(Flags::WRITE), "nothing waits");
    table.push(slot, b"first ");
    table.spill(NIL);
    assert_eq!(table.extras.at_hand_bytes.len(), 6, "they belong to another socket");
    let large = vec![b'2'; COPY_BELOW_BYTES];
    assert_eq!(table.push_given(slot, large.clone().into()), 6 + large.len());
    assert!(table.extras.at_hand_bytes.is_empty() && table.entry(slot).flags.has(Flags::WRITE));
    assert_eq!(table.push(slot, b" third"), 12 + large.len(), "what follows waits there, too");
    let mut pieces = [std::io::IoSlice::new(&[]); queue::PIECES];
    let (count, _) = table.extra(slot).expect("a queue").queue.gather(&mut pieces, usize::MAX);
    let all: Vec<u8> = pieces[..count].iter().flat_map(|piece| piece.to_vec()).collect();
    assert_eq!(all, [&b"first "[..], &large, b" third"].concat());
}

#[test]
fn a_write_queue_gives_out_what_was_put_in_whatever_the_kernel_takes() {
    let (mut table, slot) = accepted(Settings::default());
    let (mut out, mut taken) = (Vec::new(), 1);
    for round in 0..100_u8 {
        let waiting = table.push(slot, &[round; 7]);
        taken = (taken * 5 + 3) % (waiting + 1);
        out.extend_from_slice(&queued(&table, slot)[..taken]);
        let extra = table.entry(slot).extra;
        table.extras.sent(extra, taken);
    }
    let rest = queued(&table, slot).to_vec();
    out.extend_from_slice(&rest);
    assert_eq!(out, (0..100_u8).flat_map(|round| [round; 7]).collect::<Vec<_>>());
    let extra = table.entry(slot).extra;
    table.tidy(slot);
    assert_eq!(table.extras.len(), 1, "what is not empty stays");
    table.extras.sent(extra, rest.len());
    table.tidy(slot);
    assert_eq!(table.extras.len(), 0, "an empty queue costs nothing");
}

#[test]
fn bytes_that_can_leave_no_more_are_unsent_and_wait_for_nothing() {
    let (mut table, slot) = at_hand();
    table.at_hand = NIL;
    table.push(slot, b"lost");
    let extra = table.entry(slot).extra;
    table.extras.void(extra);
    table.push(slot, b"more");
    assert_eq!((table.queued_bytes(slot), table.extra(slot).map_or(0, Extra::unsent_bytes)), (4, 8));
}

// --- settings and peers ---

#[test]
fn a_peer_address_is_kept_whatever_its_family() {
    let (mut table, slot) = accepted(Settings::default());
    assert_eq!(table.peer(slot), None);
    for text in ["1.2.3.4:5", "[1:2::3]:4", "[::9]:65535", "9.9.9.9:1"] {
        table.set_peer(slot, text.parse().expect("an address"));
        assert_eq!(table.peer(slot).map(|addr| addr.to_string()).as_deref(), Some(text));
    }
    assert_eq!(table.extras.ipv6_peers.len(), 0, "the last one is IPv4");
}

#[test]
fn equal_settings_are_kept_once() {
    let (mut table, one) = accepted(Settings::default());
    let number = table.settings.intern(Settings::default());
    let two = table.insert(number, None, Flags::NONE);
    assert_eq!(table.settings.len(), 1);
    table.change_settings(two, |settings| settings.idle_ms = Some(7));
    assert_eq!(table.settings.len(), 2);
    assert_eq!((table.settings_of(one).idle_ms, table.settings_of(two).idle_ms), (None, Some(7)));
    table.change_settings(two, |settings| settings.idle_ms = None);
    assert_eq!(table.settings.len(), 1);
}

#[test]
fn settings_live_as_long_as_something_holds_them() {
    let mut pool = SettingsPool::default();
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
