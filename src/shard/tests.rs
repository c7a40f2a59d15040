//! Threads that can't be started, and ends of shards in a known order.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel};

use super::*;

/// Two reactors without a listener, as shards.
fn two() -> (Vec<Shard>, ShardStopper) {
    Shard::group(vec![Reactor::new().expect("descriptors"), Reactor::new().expect("descriptors")])
}

/// Two shards, each of which ends at its message.
fn that_end_one_by_one(end: fn(&Shard) -> Result<(), Error>) -> (Shards, [std::sync::mpsc::Sender<()>; 2]) {
    let (shards, stopper) = two();
    let (to_first, first) = channel();
    let (to_second, second) = channel();
    let program = move |shard: Shard, wait: Receiver<()>| {
        let _ = wait.recv();
        end(&shard)
    };
    let shards = Shards::run(shards.into_iter().zip([first, second]).collect(), stopper, program);
    (shards.expect("two threads"), [to_first, to_second])
}

/// Waits until this many have ended whose results were not returned.
fn wait_for_ends(shards: &Shards, count: usize) {
    let places = shards.ends.places.lock().expect("no panic holds it");
    drop(shards.ends.added.wait_while(places, |places| places.len() < count).expect("no panic holds it"));
}

/// The second thread needs more memory than there is.
#[test]
fn a_thread_that_cannot_be_started_leaves_no_shard_running() {
    let (shards, stopper) = two();
    let has_ended = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&has_ended);
    let program = Arc::new(move |mut shard: Shard, ()| {
        while shard.next()?.is_some() {}
        ended.store(true, Ordering::Release);
        Ok(())
    });
    let mut started = Shards { stopper, threads: Vec::new(), ends: Arc::default() };
    let mut shards = shards.into_iter();
    let mut begin = |thread: thread::Builder| {
        let shard = shards.next().expect("two shards");
        started.begin(thread, (shard, ()), Arc::clone(&program))
    };
    assert_eq!(begin(thread::Builder::new()), Ok(()));
    let refused = begin(thread::Builder::new().stack_size(1 << 60));
    assert!(matches!(refused, Err(Error::System { call: "pthread_create", .. })), "{refused:?}");
    assert!(!has_ended.load(Ordering::Acquire), "the first one runs");
    drop(started);
    assert!(has_ended.load(Ordering::Acquire), "its end was waited for");
}

#[test]
fn a_join_returns_the_first_error_and_the_first_panic() {
    let fails = |shard: &Shard| Err(if shard.index() == 1 { Error::WriteAfterEnd } else { Error::ReactorGone });
    let panics = |shard: &Shard| -> Result<(), Error> { panic!("{}", shard.index()) };
    for (end, panic) in [(fails as fn(&Shard) -> Result<(), Error>, None), (panics, Some("1"))] {
        let (shards, [to_first, to_second]) = that_end_one_by_one(end);
        for (count, to_end) in [(1, to_second), (2, to_first)] {
            drop(to_end);
            wait_for_ends(&shards, count);
        }
        let joined = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shards.join()));
        match joined {
            Ok(result) => assert_eq!((result, panic), (Err(Error::WriteAfterEnd), None)),
            Err(payload) => assert_eq!(payload.downcast_ref::<String>().map(String::as_str), panic),
        }
    }
}

/// Its limits would be replaced by those of the default.
#[test]
fn neither_a_join_nor_a_drop_replaces_a_stop_that_the_program_has_requested() {
    for end in [|shards: Shards| assert_eq!(shards.join(), Ok(())), drop] {
        let (shards, senders) = that_end_one_by_one(|_| Ok(()));
        let stopper = shards.stopper().clone();
        stopper.stop(StopOptions::default().limit(None));
        drop(senders);
        end(shards);
        assert_eq!(stopper.last_stop.count.load(Ordering::Acquire), 1);
    }
}

#[test]
fn a_reactor_is_woken_for_a_shard_that_has_ended_already() {
    let (mut shards, [to_first, to_second]) = that_end_one_by_one(|_| Ok(()));
    drop(to_first);
    wait_for_ends(&shards, 1);
    let mut control = Reactor::new().expect("descriptors");
    shards.wake_at_end(control.waker());
    let (_, event) = control.next_before(control.now()).expect("it continues").expect("a wake");
    assert_eq!(event, Event::Woken);
    assert!(matches!(shards.try_wait(), Some((0, ShardEnd::Returned))));
    drop(to_second);
}

#[test]
fn a_shard_is_stopping_once_the_shards_were_stopped_and_not_before() {
    let (shards, stopper) = two();
    assert!(!stopper.is_stopping() && shards.iter().all(|shard| !shard.is_stopping()));
    stopper.stop(StopOptions::default());
    assert!(stopper.is_stopping() && shards.iter().all(Shard::is_stopping));
}

/// The second one ends only if it is stopped.
#[test]
fn a_join_stops_the_others_when_one_has_ended() {
    let (shards, stopper) = two();
    let program = |mut shard: Shard, ends: bool| {
        while !ends && shard.next()?.is_some() {}
        Ok(())
    };
    let parts = shards.into_iter().zip([true, false]).collect();
    assert_eq!(Shards::run(parts, stopper, program).expect("two threads").join(), Ok(()));
}
