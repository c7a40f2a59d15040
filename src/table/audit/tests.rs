//! Each rule is broken once on purpose, to prove that the audit detects it.

use super::*;
use crate::lifecycle::Input;
use crate::options::Settings;
use crate::table::Next;
use crate::table::extra::Deadline;

/// Three sockets in different situations: two of them queued, one with a timer, one with an extra
/// and an IPv6 peer. A fourth slot is reserved.
fn table() -> (Table, [u32; 4]) {
    let mut table = crate::table::tests::table(1);
    let slots = [(); 3].map(|()| {
        let number = table.settings.intern(Settings { idle_ms: Some(50), ..Settings::default() });
        let slot = table.insert(number, None, Flags::NONE);
        table.entry_mut(slot).apply(Input::Accepted);
        table.entry_mut(slot).flags.set(Flags::IDLE, true);
        slot
    });
    table.put(slots[0], Next::Now);
    table.put(slots[1], Next::Later);
    table.push(slots[1], b"waits");
    table.set_peer(slots[1], "[::1]:9".parse().expect("an address"));
    table.file(slots[2], 100);
    let reserved = table.reserve();
    (table, [slots[0], slots[1], slots[2], reserved])
}

/// What the audit reports for a table that was broken like this.
#[track_caller]
fn complaint(break_it: impl FnOnce(&mut Table, [u32; 4])) -> String {
    let (mut table, slots) = table();
    assert_eq!(table.audit(), Ok(()), "it was whole");
    break_it(&mut table, slots);
    table.audit().expect_err("it is broken")
}

#[test]
fn a_table_that_keeps_its_rules_is_not_complained_about_and_not_changed() {
    let (mut table, slots) = table();
    assert_eq!((table.audit(), table.audit()), (Ok(()), Ok(())));
    table.put(slots[2], Next::Close);
    assert_eq!(table.audit(), Ok(()));
    assert_eq!((table.ready.len(), table.closes.len(), table.len()), (1, 1, 3));
    assert_eq!(crate::table::tests::table(1).audit(), Ok(()), "nor is an empty one");
}

#[test]
fn a_wrong_count_is_found() {
    assert_eq!(complaint(|table, _| table.reserved += 1), "3 slots are used, and 2 are counted");
    assert_eq!(complaint(|table, _| table.outgoing += 1), "3 sockets have no listener, and 4 are counted");
}

#[test]
fn bytes_in_a_kernel_pipe_that_no_step_would_deliver_are_found() {
    let pipe = || Some(Box::new(crate::kernel_pipe::KernelPipe::in_memory(vec![1])));
    let text = complaint(|table, slots| table.extra_mut(slots[1]).spliced = pipe());
    assert_eq!(text, format!("socket {} has bytes in a pipe, and will not deliver them", 1));
}

#[test]
fn a_list_that_does_not_fit_the_marks_is_found() {
    let text = complaint(|table, _| table.ready.clear());
    assert_eq!(text, "the sockets [0, 1] are marked as queued, and [1] are in a list");
    let text = complaint(|table, slots| table.entry_mut(slots[1]).flags.set(Flags::QUEUED, false));
    assert_eq!(text, "the sockets [0] are marked as queued, and [0, 1] are in a list");
    let text = complaint(|table, slots| table.later.push_back(slots[3]));
    assert_eq!(text, "the sockets [0, 1] are marked as queued, and [0, 1, 3] are in a list");
    let text = complaint(|table, slots| table.ready[0] = slots[2]);
    assert_eq!(text, "the sockets [0, 1] are marked as queued, and [1, 2] are in a list");
    let text = complaint(|table, slots| table.closes.push_back(slots[1]));
    assert_eq!(text, "the sockets [0, 1] are marked as queued, and [0, 1, 1] are in a list");
}

#[test]
fn what_belongs_to_no_socket_is_found() {
    let text = complaint(|table, slots| table.entry_mut(slots[1]).extra = NIL);
    assert_eq!(text, "0 sockets have an extra, and 1 are counted");
    let text = complaint(|table, slots| table.entry_mut(slots[1]).flags.set(Flags::IPV6, false));
    assert_eq!(text, "0 peers are IPv6, and 1 are counted");
    let text = complaint(|table, _| table.extras.at_hand_bytes.push(0));
    assert_eq!(text, "bytes were written to a socket that is not at hand");
}

#[test]
fn what_only_a_socket_has_is_found_in_a_reserved_slot() {
    let of_reserved = |text: String| assert!(text.starts_with("slot 3 is reserved, and has something"), "{text}");
    of_reserved(complaint(|table, slots| table.entry_mut(slots[3]).extra = 0));
    of_reserved(complaint(|table, slots| table.entry_mut(slots[3]).flags.set(Flags::READABLE, true)));
    of_reserved(complaint(|table, slots| table.wheel.file(&mut table.entries, slots[3], 100)));
}

#[test]
fn a_timer_is_filed_for_the_deadline_or_earlier_and_not_without_one() {
    let (mut table, slots) = table();
    let timer = slots[2];
    assert_eq!(table.audit_timer(timer), Ok(()), "filed for its deadline");
    table.entry_mut(timer).set_idle_since(140);
    assert_eq!(table.audit_timer(timer), Ok(()), "filed for an earlier one: it is moved when it comes up");
    table.entry_mut(timer).set_idle_since(90);
    assert!(table.audit_timer(timer).is_err(), "filed too late");
    table.entry_mut(timer).stop_idle_clock();
    assert!(table.audit_timer(timer).is_err(), "filed for nothing");
    table.refile(timer);
    assert_eq!(table.audit_timer(timer), Ok(()), "no deadline, no timer");
    table.entry_mut(timer).set_idle_since(100);
    assert!(table.audit_timer(timer).is_err(), "a deadline without a timer");
    table.refile(timer);
    table.extra_mut(timer).deadline = Some(Deadline::In(1000));
    assert!(table.audit_timer(timer).is_err(), "a deadline that does not count yet");
    table.extra_mut(timer).deadline = Some(Deadline::At(1000));
    assert_eq!(table.audit_timer(timer), Ok(()), "a later one");
    table.extra_mut(timer).retry_later();
    assert!(table.audit_timer(timer).is_err(), "a retry that does not count yet");
}
