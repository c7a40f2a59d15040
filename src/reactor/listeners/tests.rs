use super::*;

/// How many connections each of the next batches has.
fn batches(batch: &mut Batch, count: usize) -> Vec<usize> {
    (0..count).map(|_| 1 + (0..100).take_while(|_| !batch.accepted()).count()).collect()
}

/// This many listeners, of which none has a client.
fn listeners(count: usize) -> Listeners {
    let mut listeners = Listeners::new(1);
    for _ in 0..count {
        let id = listeners.new_id();
        listeners.entries.insert(Entry::new(id, 0, &ListenOptions::default()));
    }
    listeners
}

#[test]
fn a_batch_doubles_up_to_the_connections_between_two_polls() {
    let mut batch = Batch { size: 1, left: 1, singles: 0 };
    assert_eq!(batches(&mut batch, 7), [1, 2, 4, 8, 16, 16, 16]);
}

#[test]
fn after_an_accept_without_a_client_batches_of_one_precede_a_larger_one() {
    let mut batch = Batch { size: 16, left: 7, singles: 0 };
    batch.was_vain();
    let singles = vec![1; 1 + SINGLES as usize];
    assert_eq!(batches(&mut batch, 67), [singles.as_slice(), &[2, 4]].concat());
}

#[test]
fn listeners_with_clients_take_turns() {
    let mut listeners = listeners(3);
    listeners.ready(0);
    assert_eq!([listeners.next_ready(), listeners.next_ready()], [Some(0), Some(0)]);
    listeners.ready(1);
    assert_eq!([(); 4].map(|()| listeners.next_ready()), [0, 1, 0, 1].map(Some));
    listeners.ready(2);
    assert_eq!([(); 6].map(|()| listeners.next_ready()), [0, 1, 2, 0, 1, 2].map(Some));
    listeners.served(2);
    assert_eq!([(); 2].map(|()| listeners.next_ready()), [0, 1].map(Some));
}

#[test]
fn a_listener_whose_descriptor_is_closed_is_not_open() {
    let mut listeners = listeners(2);
    listeners.close(0);
    assert_eq!([0, 1].map(|listener| listeners.is_open(listener)), [false, true]);
}
