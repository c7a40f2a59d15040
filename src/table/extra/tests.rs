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
    let connecting = || Connecting {
        target: addr.into(),
        system: SystemOptions::default(),
        local: None,
        addrs: Vec::new(),
        told: 0,
        tried: 0,
        failed: Vec::new(),
        attempt_due: None,
        first_failure: None,
    };
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
