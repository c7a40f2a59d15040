use super::*;
use crate::error::Cause;

#[test]
fn an_extra_is_found_by_its_own_number_and_by_no_other() {
    let mut extras = Extras::default();
    let (mut one, mut two) = (NIL, NIL);
    assert_eq!(extras.push(&mut one, b"one"), 3);
    assert_eq!(extras.push(&mut two, b"and two"), 7);
    assert_eq!(extras.push(&mut one, b"!"), 4);
    let len = |extras: &Extras, index| extras.get(index).map(|extra| extra.queue.len());
    assert_eq!((len(&extras, one), len(&extras, two), len(&extras, NIL)), (Some(4), Some(7), None));
    assert_eq!(extras.sent(one, 1).queue.len(), 3);
    extras.release(NIL);
    extras.release(one);
    assert_eq!((len(&extras, two), extras.len()), (Some(7), 1));
    let mut three = NIL;
    assert_eq!((extras.push(&mut three, b"as new"), three), (6, one), "the place is used again, and empty");
}

#[test]
fn an_extra_is_given_back_only_when_nothing_at_all_is_in_it() {
    let addr = SocketAddr::from(([127, 0, 0, 1], 1));
    let connecting = || Connecting::new(addr.into(), SystemOptions::default(), None, None);
    let fills: [&dyn Fn(&mut Extra); 5] = [
        &|extra| extra.queue.push(b"x", &mut Spares::default()),
        &|extra| extra.failure = Some(Failure::of(Cause::Reset)),
        &|extra| extra.connecting = Some(Box::new(connecting())),
        &|extra| extra.nodelay = Some(false),
        &|extra| extra.keep_alive = Some(None),
    ];
    for fill in fills {
        let mut extras = Extras::default();
        let mut index = NIL;
        fill(extras.get_or_make(&mut index));
        extras.release_if_empty(&mut index);
        assert_eq!(extras.len(), 1, "something is in it");
        *extras.get_or_make(&mut index) = Extra::default();
        extras.release_if_empty(&mut index);
        assert_eq!((extras.len(), index), (0, NIL));
        extras.release_if_empty(&mut index);
    }
}

#[test]
fn the_way_of_an_established_connection_is_the_next_ones_and_knows_nothing_of_it() {
    let addr = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let mut extras = Extras::default();
    let mut index = NIL;
    let mut way = extras.connecting(addr(1).into(), SystemOptions::default(), Some(addr(2)), Some(250));
    way.addrs.extend([addr(1), addr(3)]);
    (way.told, way.tried, way.attempt_due) = (2, 2, Some(7));
    way.racers.push(Racer { place: 3, addr: 1 });
    way.failed.push(Attempt { addr: addr(1), cause: Cause::Refused });
    way.first_failure = Some(Failure::of(Cause::Refused));
    let place = std::ptr::from_ref(&*way);
    extras.get_or_make(&mut index).connecting = Some(way);
    extras.connected(index);
    assert!(extras.get(index).is_some_and(|extra| extra.connecting.is_none()));
    let next = extras.connecting(addr(4).into(), SystemOptions::default(), None, None);
    assert_eq!(std::ptr::from_ref(&*next), place);
    assert!(next.addrs.is_empty() && next.racers.is_empty() && next.failed.is_empty() && next.addrs.capacity() >= 2);
    assert_eq!((next.told, next.tried, next.attempt_due, next.delay_ms, next.local), (0, 0, None, None, None));
    assert!(next.first_failure.is_none());
    extras.connected(NIL);
}

#[test]
fn an_extra_that_has_nothing_to_write_holds_no_chunk() {
    let mut extras = Extras::default();
    let (mut writer, mut silent) = (NIL, NIL);
    extras.push(&mut writer, b"answer");
    extras.get_or_make(&mut writer).nodelay = Some(true);
    extras.sent(writer, 6);
    extras.get_or_make(&mut silent).limit_from = Some(7);
    let mut next = NIL;
    extras.push(&mut next, b"next");
    assert_eq!(extras.spares.len(), 0, "the one chunk there is serves who writes");
    extras.sent(next, 4);
    assert_eq!(extras.spares.len(), 1);
}
