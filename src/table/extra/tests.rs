use super::*;
use crate::error::ConnectionErrorKind;

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn an_extra_is_found_by_its_own_number_and_by_no_other() {
    let mut extras = Extras::default();
    let (mut one, mut two) = (NIL, NIL);
    assert_eq!(extras.push(&mut one, b"one"), 3);
    assert_eq!(extras.push(&mut two, b"and two"), 7);
    assert_eq!(extras.push(&mut one, b"!"), 4);
    let len = |extras: &Extras, index| extras.get(index).map(|extra| extra.queue.len());
    assert_eq!((len(&extras, one), len(&extras, two), len(&extras, NIL)), (Some(4), Some(7), None));
    extras.sent(one, 1);
    assert_eq!(len(&extras, one), Some(3));
    extras.release(NIL);
    extras.release(one);
    assert_eq!((len(&extras, two), extras.len()), (Some(7), 1));
    let mut three = NIL;
    assert_eq!((extras.push(&mut three, b"as new"), three), (6, one), "its number is used again, and it is empty");
}

#[test]
fn an_extra_is_given_back_only_when_nothing_at_all_is_in_it() {
    let connecting = || Connecting::new(addr(1).into(), SystemOptions::default(), None, None);
    let fills: [&dyn Fn(&mut Extra); 11] = [
        &|extra| _ = extra.queue.push(b"x", &mut Spares::default()),
        &|extra| extra.limit_since = Some(0),
        &|extra| extra.grace_since = Some(0),
        &|extra| extra.deadline = Some(Deadline::In(0)),
        &|extra| extra.ending_at = Some(0),
        &|extra| extra.retry_at = Some(Deadline::At(0)),
        &|extra| extra.failure = Some(ConnectionError::of(ConnectionErrorKind::Reset)),
        &|extra| extra.void_bytes = 1,
        &|extra| extra.connecting = Some(Box::new(connecting())),
        &|extra| extra.nodelay = Some(false),
        &|extra| extra.keep_alive = Some(None),
    ];
    for (number, fill) in fills.iter().enumerate() {
        let mut extras = Extras::default();
        let mut index = NIL;
        fill(extras.get_or_make(&mut index));
        extras.release_if_empty(&mut index);
        assert_eq!(extras.len(), 1, "something is in it: {number}");
        *extras.get_or_make(&mut index) = Extra::default();
        extras.release_if_empty(&mut index);
        assert_eq!((extras.len(), index), (0, NIL));
        extras.release_if_empty(&mut index);
    }
}

#[test]
fn a_write_clock_keeps_no_extra_without_bytes_and_the_next_connection_does_not_inherit_it() {
    let mut extras = Extras::default();
    let mut index = NIL;
    extras.get_or_make(&mut index).write_since = Some(7);
    extras.release_if_empty(&mut index);
    assert_eq!((extras.len(), index), (0, NIL));
    assert_eq!(extras.get_or_make(&mut index).write_since, None);
}

#[test]
fn an_established_connection_leaves_its_connecting_to_the_next_one_which_knows_nothing_of_it() {
    let mut extras = Extras::default();
    let mut index = NIL;
    let begin = |extras: &mut Extras, port, local, delay_ms| {
        extras.connecting(Connecting::new(addr(port).into(), SystemOptions::default(), local, delay_ms))
    };
    let mut connecting = begin(&mut extras, 1, Some(addr(2)), Some(250));
    connecting.addrs.extend([addr(1), addr(3)]);
    (connecting.delivered, connecting.tried, connecting.attempt_due) = (2, 2, Some(7));
    connecting.in_flight.push(Flight { slot: 3, addr: 1 });
    connecting.failed.push((0, ConnectionError::of(ConnectionErrorKind::Refused)));
    let place = std::ptr::from_ref(&*connecting);
    extras.get_or_make(&mut index).connecting = Some(connecting);
    extras.connected(index);
    assert!(extras.get(index).is_some_and(|extra| extra.connecting.is_none()));
    let next = begin(&mut extras, 4, None, None);
    assert_eq!(std::ptr::from_ref(&*next), place);
    assert!(next.addrs.is_empty() && next.in_flight.is_empty() && next.failed.is_empty());
    assert!(next.addrs.capacity() >= 2, "the list keeps its room");
    assert_eq!((next.delivered, next.tried, next.attempt_due, next.delay_ms, next.local), (0, 0, None, None, None));
    extras.connected(NIL);
}

#[test]
fn an_extra_that_has_nothing_to_write_holds_no_chunk() {
    let mut extras = Extras::default();
    let (mut writer, mut silent) = (NIL, NIL);
    extras.push(&mut writer, b"answer");
    extras.get_or_make(&mut writer).nodelay = Some(true);
    extras.sent(writer, 6);
    extras.get_or_make(&mut silent).limit_since = Some(7);
    let mut next = NIL;
    extras.push(&mut next, b"next");
    assert_eq!(extras.spares.0.len(), 0, "the one chunk serves the socket that writes");
    extras.sent(next, 4);
    assert_eq!(extras.spares.0.len(), 1);
}

#[test]
fn what_can_leave_no_more_is_counted_and_its_chunks_are_used_again() {
    let mut extras = Extras::default();
    let mut index = NIL;
    for (written, all) in [(5, 5), (7, 12)] {
        extras.push(&mut index, &[0; 7][..written]);
        extras.void(index);
        let extra = extras.get(index).expect("it is counted there");
        assert_eq!((extra.queue.len(), extra.has_bytes(), extra.void_bytes), (0, false, all));
        assert_eq!(extras.spares.0.len(), 1);
    }
    extras.void(NIL);
}
