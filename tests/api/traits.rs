//! The traits of the public types: what may cross threads, what can be compared and parsed.

use finale::lifecycle::{Coverage, State};
use finale::sim::Fault;
use finale::{
    BoundAddr, Buffer, ConnectOptions, ConnectionError, Ending, Error, Event, Inbox, ListenOptions, Metrics, Pipes,
    Pool, PoolOptions, Reactor, SendError, Sender, Shard, ShardStopper, Shards, SocketInfo, SocketMap, Sockets,
    StopOptions, Target, UnixAddr, Waker,
};

#[test]
fn values_are_send_and_sync_and_what_belongs_to_one_thread_is_send() {
    // `Socket` and `Context` borrow a reactor. A reactor and an inbox belong to one thread at a time.
    fn is_both<T: Send + Sync>() {}
    fn is_send<T: Send>() {}
    is_both::<(Shards, ShardStopper, Waker, Sender<Vec<u8>>)>();
    is_both::<(Pool, PoolOptions, Pipes, SocketMap<String>, SocketInfo, Sockets)>();
    is_both::<(ListenOptions, ConnectOptions, StopOptions, Target, BoundAddr, UnixAddr, Buffer)>();
    is_both::<(Event<'static>, Ending, ConnectionError, Error, SendError<Vec<u8>>, Metrics)>();
    is_both::<(State, Coverage)>();
    is_send::<(Reactor, Shard, Inbox<Vec<u8>>)>();
}

#[test]
fn a_printed_target_can_be_parsed_again() {
    for text in ["127.0.0.1:80", "[::1]:80", "example.org:443", "unix:/run/finale.sock", "unix:@name"] {
        let target: Target = text.parse().expect("an address");
        assert_eq!(target.to_string(), text);
        assert_eq!(Target::try_from(text), Ok(target));
    }
    assert!(matches!("nowhere".parse::<Target>(), Err(Error::InvalidAddress(_))));
}

#[test]
fn a_printed_fault_can_be_parsed_again() {
    for &fault in Fault::ALL {
        assert_eq!(fault.to_string().parse(), Ok(fault));
    }
}

#[test]
fn options_and_metrics_that_were_set_alike_are_equal() {
    assert_eq!(ListenOptions::default().backlog(7), ListenOptions::default().backlog(7));
    assert_ne!(ListenOptions::default().backlog(7), ListenOptions::default());
    assert_ne!(ConnectOptions::default().write_limit(1), ConnectOptions::default());
    assert_ne!(PoolOptions::default().size(1), PoolOptions::default().size(2));
    let reactors = [(); 2].map(|()| Reactor::new().expect("descriptors"));
    assert_eq!(reactors[0].metrics(), reactors[1].metrics());
}

#[test]
fn the_table_of_sockets_gives_its_rows_away() {
    let mut reactor = Reactor::new().expect("descriptors");
    let id = reactor.connect("127.0.0.1:1", ConnectOptions::default()).expect("an address");
    let rows: Vec<SocketInfo> = reactor.sockets().into_iter().collect();
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [id]);
}
