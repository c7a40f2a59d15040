//! Each rule is broken once, on purpose: an audit that finds nothing must be able to find something.

use super::*;
use crate::lifecycle::Input;
use crate::options::Settings;

/// Three sockets with a bit of everything: two of them queued, one with a timer, one with an extra and an IPv6 peer. A
/// fourth place is free.
fn table() -> (Table, [u32; 4]) {
    let mut table = Table::new();
    let slots = [(); 4].map(|()| {
        let number = table.settings.intern(Settings { idle_ms: Some(50), ..Settings::default() });
        let slot = table.insert(number);
        table.apply(slot, Input::Accepted);
        slot
    });
    table.remove(slots[3]);
    table.push_ready(slots[0]);
    table.push_ready(slots[1]);
    table.push(slots[1], b"waits");
    table.set_peer(slots[1], "[::1]:9".parse().expect("an address"));
    table.arm(slots[2], 100);
    (table, slots)
}

/// The complaint about a table that was broken like this.
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
    table.push_later(slots[2]);
    assert_eq!(table.audit(), Ok(()));
    assert_eq!((table.ready_len(), table.len()), (2, 3));
    assert_eq!(Table::new().audit(), Ok(()), "nor is an empty one");
}

#[test]
fn a_wrong_count_is_found() {
    assert_eq!(complaint(|table, _| table.len += 1), "3 places are used and 4 are counted");
}

#[test]
fn a_list_that_lies_is_found() {
    let text = complaint(|table, _| table.ready = List::new());
    assert_eq!(text, "socket 0 is queued: true, and in a list: false");
    let text = complaint(|table, slots| table.entry_mut(slots[1]).flags.set(Flags::QUEUED, false));
    assert_eq!(text, "socket 1 is queued: false, and in a list: true");
    let text = complaint(|table, slots| table.later.push_back(&mut table.entries.0, slots[3]));
    assert_eq!(text, "the list later has place 3, which is free or listed twice");
    let text = complaint(|table, slots| table.closes.push_back(&mut table.entries.0, slots[1]));
    assert_eq!(text, "the list closes has place 1, which is free or listed twice");
    let text = complaint(|table, slots| table.entry_mut(slots[0]).link = NIL);
    assert_eq!(text, "the list ready has 1 of 2 members");
}

#[test]
fn what_a_free_place_has_kept_is_found() {
    let text = complaint(|table, slots| table.wheel.file(&mut table.entries, slots[3], 7));
    assert_eq!(text, "place 3 is free and has a timer");
    let text = complaint(|table, slots| table.entry_mut(slots[1]).extra = NIL);
    assert_eq!(text, "0 sockets have an extra, and 1 extras are kept");
    let text = complaint(|table, slots| table.entry_mut(slots[1]).flags.set(Flags::IPV6, false));
    assert_eq!(text, "0 sockets have an IPv6 peer, and 1 are kept");
}

#[test]
fn a_timer_is_filed_for_the_deadline_or_earlier_and_not_without_one() {
    let (mut table, slots) = table();
    let timer = slots[2];
    assert_eq!(table.audit_timer(timer), Ok(()), "filed for its deadline");
    table.entry_mut(timer).touch(140);
    assert_eq!(table.audit_timer(timer), Ok(()), "filed for an earlier one: it is moved when it comes up");
    table.entry_mut(timer).touch(90);
    assert!(table.audit_timer(timer).is_err(), "filed too late");
    table.entry_mut(timer).flags.set(Flags::IDLE_TOLD, true);
    assert!(table.audit_timer(timer).is_err(), "filed for nothing");
    table.disarm(timer);
    assert_eq!(table.audit_timer(timer), Ok(()), "no deadline, no timer");
    table.entry_mut(timer).flags.set(Flags::IDLE_TOLD, false);
    assert!(table.audit_timer(timer).is_err(), "a deadline that nobody watches");
}
