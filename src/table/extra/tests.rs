use super::*;
use crate::error::Cause;

/// The room in the buffer of a new extra.
fn room(extras: &mut Extras) -> usize {
    let mut index = NIL;
    extras.get_or_make(&mut index).queue.bytes.capacity()
}

/// Gives back an extra whose queue has held so many bytes.
fn use_up(extras: &mut Extras, bytes: usize) {
    let mut index = NIL;
    let queue = &mut extras.get_or_make(&mut index).queue;
    queue.bytes = Vec::with_capacity(bytes);
    queue.push(&vec![7; bytes]);
    extras.release(index);
}

#[test]
fn the_buffer_of_a_queue_is_used_again_and_comes_back_empty() {
    let mut extras = Extras::default();
    use_up(&mut extras, SPARE_BYTES);
    let mut index = NIL;
    let queue = &extras.get_or_make(&mut index).queue;
    assert_eq!((queue.bytes.capacity(), queue.len()), (SPARE_BYTES, 0));
    assert_eq!(room(&mut extras), 0, "there was only one");
}

#[test]
fn what_is_kept_in_reserve_is_a_mebibyte_at_the_most() {
    assert_eq!(SPARES * SPARE_BYTES, 1 << 20);
    let mut extras = Extras::default();
    use_up(&mut extras, SPARE_BYTES + 1);
    use_up(&mut extras, 0);
    assert_eq!(extras.spares.len(), 0, "neither the large ones nor those that are none");
    let mut indices = [NIL; SPARES + 2];
    for index in &mut indices {
        extras.get_or_make(index).queue.push(b"x");
    }
    for (released, index) in indices.into_iter().enumerate() {
        assert_eq!(extras.spares.len(), released.min(SPARES));
        extras.release(index);
    }
    assert_eq!((extras.spares.len(), extras.len()), (SPARES, 0));
}

#[test]
fn an_extra_is_found_by_its_own_number_and_by_no_other() {
    let mut extras = Extras::default();
    let (mut one, mut two) = (NIL, NIL);
    extras.get_or_make(&mut one).queue.push(b"one");
    extras.get_or_make(&mut two).queue.push(b"and two");
    extras.get_or_make(&mut one).queue.push(b"!");
    let len = |extras: &Extras, index| extras.get(index).map(|extra| extra.queue.len());
    assert_eq!((len(&extras, one), len(&extras, two), len(&extras, NIL)), (Some(4), Some(7), None));
    extras.release(NIL);
    extras.release(one);
    assert_eq!((len(&extras, one), len(&extras, two), extras.len()), (None, Some(7), 1));
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
        &|extra| extra.queue.push(b"x"),
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
fn a_byte_that_waits_is_moved_once_at_the_most_and_what_was_sent_is_dropped() {
    let mut queue = WriteQueue::default();
    queue.push(&[1; 100]);
    queue.sent(49);
    queue.push(&[2; 10]);
    assert_eq!(queue.bytes.len(), 110, "more waits than was sent: moving would cost more than it frees");
    queue.sent(12);
    queue.push(&[3; 1]);
    assert_eq!((queue.bytes.len(), queue.sent, queue.len()), (50, 0, 50));
    assert_eq!(queue.pending(), [vec![1; 39], vec![2; 10], vec![3; 1]].concat());
    queue.sent(50);
    assert_eq!((queue.bytes.len(), queue.sent, queue.len()), (0, 0, 0), "sent to the end, it begins anew");
}
