//! Kernel pipes and buffers of the program on the real network: what delays others, what dies, what a
//! slow reader takes.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use finale::{
    Backpressure, ConnectOptions, ConnectionErrorKind, EndingKind, Event, ListenOptions, PeerEnd, Pipes, Reactor,
    SocketId, TimeoutKind, UnixAddr,
};

use support::{PATIENCE, Transcript, dial, dial_narrow, ms, pattern, reset};

use crate::real_floods::Writers;

/// Two connections of one reactor, a source and a sink, with the ends of their peers.
struct Pair {
    story: Transcript,
    source: SocketId,
    sink: SocketId,
    from: TcpStream,
    to: TcpStream,
    forwarded: u64,
}

impl Pair {
    fn new(options: ListenOptions) -> Self {
        let mut story = Transcript::new();
        let addr = story.listen(options);
        let from = dial(addr);
        let source = story.connection();
        let to = dial_narrow(addr);
        let sink = story.connection();
        from.set_nonblocking(true).expect("open");
        story.socket(source).splice_next();
        Self { story, source, sink, from, to, forwarded: 0 }
    }

    /// Moves what comes until the sink is full.
    fn fill_sink(&mut self) {
        let (source, sink, from) = (self.source, self.sink, &self.from);
        let (mut is_full, mut forwarded, began) = (false, 0, Instant::now());
        while !is_full {
            assert!(began.elapsed() < PATIENCE, "{forwarded}");
            let _ = (&*from).write(&[b'x'; 100_000]);
            self.story.run_for(ms(1), |socket, event| match event {
                Event::Spliced(count) if socket.id() == source => {
                    is_full |= socket.forward(sink).expect("it is open") == Backpressure::Full;
                    forwarded += *count as u64;
                    if is_full {
                        socket.hold();
                    }
                    socket.splice_next();
                }
                Event::Data(bytes) if socket.id() == source => {
                    is_full |= socket.get(sink).expect("open").write(bytes).expect("open") == Backpressure::Full;
                    forwarded += bytes.len() as u64;
                    socket.splice_next();
                }
                _ => {}
            });
        }
        self.forwarded = forwarded;
    }
}

#[test]
fn a_sink_that_dies_with_kernel_pipes_is_an_error_at_once_and_its_counts_are_right() {
    let mut pair = Pair::new(ListenOptions::default());
    pair.fill_sink();
    let died = Instant::now();
    let Pair { mut story, sink, to, forwarded, .. } = pair;
    reset(to);
    let mut ending = None;
    while ending.is_none() {
        story.until(|socket, event| {
            if let Event::Close(told) = event
                && socket.id() == sink
            {
                ending = Some((*told).clone());
            }
            true
        });
    }
    let ending = ending.expect("closed");
    assert!(died.elapsed() < PATIENCE / 2, "{:?}", died.elapsed());
    assert!(matches!(&ending.kind, EndingKind::Failed(error) if error.kind == ConnectionErrorKind::Reset), "{ending}");
    assert_eq!(ending.bytes_written + ending.bytes_unsent, forwarded, "{ending}");
}

#[test]
fn a_held_source_that_dies_is_noticed_at_once() {
    let mut pair = Pair::new(ListenOptions::default().half_closed_timeout(None));
    pair.fill_sink();
    let _ = (&pair.from).write(&[b'x'; 100_000]);
    let Pair { mut story, source, from, .. } = pair;
    let died = Instant::now();
    reset(from);
    story.until(|socket, event| {
        assert_eq!((socket.id(), event), (source, &Event::PeerEnded(PeerEnd::Reset)));
        true
    });
    assert!(died.elapsed() < PATIENCE / 2, "{:?}", died.elapsed());
}

#[test]
fn the_write_timeout_of_a_sink_with_kernel_pipes_is_neither_early_nor_late() {
    let began = Instant::now();
    let mut pair = Pair::new(ListenOptions::default().write_timeout(ms(700)));
    pair.fill_sink();
    let (sink, mut struck) = (pair.sink, None);
    while struck.is_none() {
        pair.story.until(|socket, event| {
            if let Event::Error(failure) = event {
                assert_eq!(socket.id(), sink);
                assert_eq!(failure.kind, ConnectionErrorKind::TimedOut(TimeoutKind::Write));
                struck = Some(began.elapsed());
            }
            true
        });
    }
    // Nothing can wait before the beginning. That it isn't late to the millisecond is a matter of the
    // simulated network: here other programs may have the processors.
    assert!(struck.is_some_and(|after| (ms(700)..PATIENCE).contains(&after)), "{struck:?}");
}

/// It takes a little of what our kernel and the pipes hold, and is alive.
#[test]
fn a_slow_reader_of_kernel_pipes_is_not_cut_by_the_write_timeout() {
    let mut pair = Pair::new(ListenOptions::default().write_timeout(ms(700)).high_water_mark(1 << 20));
    pair.fill_sink();
    let began = Instant::now();
    let mut buffer = [0; 20_000];
    while began.elapsed() < ms(3500) {
        let _ = pair.to.read(&mut buffer).expect("it lives");
        let sink = pair.sink;
        pair.story.run_for(ms(100), |socket, event| {
            assert!(socket.id() != sink || !matches!(event, Event::Error(_) | Event::Close(_)), "{event}");
        });
    }
}

/// Accepts this many streams, and reads them until the flag is set.
fn read_on(backend: TcpListener, streams: usize, stop: &Arc<AtomicBool>) {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        for _ in 0..streams {
            let Ok((mut stream, _)) = backend.accept() else { return };
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 20];
                while !stop.load(Ordering::Relaxed) && stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
            });
        }
    });
}

/// A client that sends a byte and waits for it, again and again: the longest wait, in events of the
/// reactor. A time would also count that other programs have the processors.
struct Asking {
    client: TcpStream,
    waits: Option<usize>,
    worst: usize,
}

impl Asking {
    fn look(&mut self) {
        if self.waits.is_none() && self.client.write(b"?").is_ok_and(|count| count == 1) {
            self.waits = Some(0);
        }
        if self.client.read(&mut [0; 10]).is_ok_and(|count| count > 0) {
            self.worst = self.worst.max(self.waits.take().unwrap_or_default());
        }
    }
}

/// A proxy whose streams never stop, buffers that are filled without a pause, and an echo beside
/// them.
#[test]
fn endless_streams_through_kernel_pipes_or_buffers_delay_neither_a_timer_nor_another_client() {
    const LEN: usize = 300_000;
    let tick = ms(20);
    for streams in [1, 8] {
        let backend = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (back, stop) = (backend.local_addr().expect("bound"), Arc::new(AtomicBool::new(false)));
        read_on(backend, streams, &stop);
        let mut reactor = Reactor::new().expect("epoll");
        let [front, fills, echo] =
            [(); 3].map(|()| reactor.listen("127.0.0.1:0", ListenOptions::default()).expect("a free port"));
        let _writers = [front, fills].map(|listener| Writers::new(listener.addr.ip().expect("IP"), streams));
        let mut asking = Asking { client: dial(echo.addr), waits: None, worst: 0 };
        asking.client.set_nonblocking(true).expect("open");
        let (mut pipes, mut late, mut worst_late, mut spliced, mut filled) = (Pipes::new(), 0, 0, 0, 0);
        let (began, mut due) = (Instant::now(), Instant::now() + tick);
        reactor.set_timer(tick);
        while began.elapsed() < ms(1500) || spliced < 100 || filled < 20 {
            assert!(began.elapsed() < PATIENCE, "{spliced} spliced, {filled} filled");
            asking.look();
            let Some((mut socket, event)) = reactor.next_before(Instant::now() + ms(1)).expect("it continues") else {
                continue;
            };
            asking.waits = asking.waits.map(|events| events + 1);
            late += usize::from(Instant::now() > due);
            spliced += usize::from(matches!(event, Event::Spliced(_)));
            if pipes.handle(&mut socket, &event) {
                continue;
            }
            match event {
                Event::Connection if socket.listener() == Some(front.id) => {
                    let id = socket.id();
                    let backend = reactor.connect(back, ConnectOptions::default()).expect("an address");
                    pipes.join(&mut reactor.context(), id, backend).expect("TCP");
                }
                Event::Connection if socket.listener() == Some(fills.id) => {
                    socket.fill(Vec::new(), LEN).expect("it can be read");
                }
                Event::Filled => {
                    filled += 1;
                    drop(socket.take_filled());
                    socket.fill(Vec::new(), LEN).expect("it can be read");
                }
                Event::Data(bytes) => _ = socket.write(bytes).expect("open"),
                Event::Timer(_) => {
                    worst_late = worst_late.max(late);
                    late = 0;
                    due = Instant::now() + tick;
                    socket.set_timer(tick);
                }
                _ => {}
            }
        }
        stop.store(true, Ordering::Relaxed);
        let worst = asking.worst.max(worst_late).max(late);
        assert!(worst < 300, "{streams} streams: an answer after {} events, a timer after {worst_late}", asking.worst);
    }
}

/// Its peer reads in bursts, so the queue is full again and again: no edge for room is lost.
#[test]
fn a_long_stream_into_a_unix_socket_arrives_whole_and_none_of_its_edges_is_lost() {
    let path = std::env::temp_dir().join(format!("finale-real-pipes-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let backend = std::os::unix::net::UnixListener::bind(&path).expect("a free name");
    let mut reactor = Reactor::new().expect("epoll");
    let front = reactor.listen("127.0.0.1:0", ListenOptions::default()).expect("a free port").addr;
    let stream = pattern(12_000_000);
    let sent = stream.clone();
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = backend.accept().expect("the proxy connects");
        let (mut all, mut buffer) = (Vec::new(), vec![0; 700_001]);
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return all,
                Ok(count) => all.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            }
            if all.len() % 5 == 0 {
                support::work_for(ms(3));
            }
        }
    });
    let writer = std::thread::spawn(move || dial(front).write_all(&sent).expect("it is read"));
    let (mut pipes, mut closes, mut spliced) = (Pipes::new().allow_unix_sinks(true), 0, 0);
    let guard = Instant::now() + 3 * PATIENCE;
    while closes < 2 {
        let (mut socket, event) = reactor.next_before(guard).expect("it continues").expect("it ends in time");
        spliced += usize::from(matches!(event, Event::Spliced(_)));
        if pipes.handle(&mut socket, &event) {
            continue;
        }
        match event {
            Event::Connection => {
                let id = socket.id();
                let target = UnixAddr::path(&path);
                let backend = reactor.connect(target, ConnectOptions::default()).expect("an address");
                pipes.join(&mut reactor.context(), id, backend).expect("permitted");
            }
            Event::Close(_) => closes += 1,
            _ => {}
        }
    }
    writer.join().expect("no panic");
    assert!(reader.join().expect("no panic") == stream && spliced > 10, "{spliced}");
    let _ = std::fs::remove_file(&path);
}
