//! What peers and machines do to a server: it neither ends, spins nor leaks, and continues to serve
//! when the fault is over.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use finale::{ConnectOptions, Event, ListenOptions, Reactor};
use support::alone::{alone, alone_with_connections};
use support::{PATIENCE, Transcript, What, cpu_time, descriptors, dial, ms, reset};

/// Promise: nothing leaks. Both sides of 10,000 half-closing connections in one reactor, 256 in
/// flight.
#[test]
fn ten_thousand_connections_leave_nothing_behind() {
    alone_with_connections("abuse::ten_thousand_connections_leave_nothing_behind", 10_000, 300, |count| {
        let mut reactor = Reactor::new().expect("descriptors");
        let listener = reactor.listen("127.0.0.1:0", ListenOptions::default()).expect("a port");
        let before = descriptors();
        let (mut begun, mut closed) = (0, 0);
        let mut begin = |reactor: &mut Reactor| {
            // Source addresses alternate, so that TIME_WAIT can't use up the ports.
            let source = SocketAddr::from(([127, 0, 1, (begun % 64) as u8 + 1], 0));
            reactor.connect(listener.addr, ConnectOptions::default().local_addr(source)).expect("an address");
            begun += 1;
        };
        (0..256).for_each(|_| begin(&mut reactor));
        let mut more = count - 256;
        while let Some((mut socket, event)) = reactor.next_before(Instant::now() + PATIENCE).expect("it continues") {
            let is_client = socket.listener().is_none();
            match event {
                Event::Ready => {
                    socket.write(&[b'q'; 64]).expect("open");
                    socket.end();
                }
                Event::End if !is_client => {
                    socket.write(&[b'a'; 64]).expect("half-open");
                    socket.end();
                }
                Event::Close(ending) => {
                    assert!(ending.is_acknowledged() && ending.bytes_read == 64, "{ending}");
                    closed += 1;
                    if is_client && more > 0 {
                        more -= 1;
                        begin(&mut reactor);
                    }
                    if closed == 2 * count {
                        assert!(reactor.is_empty());
                        reactor.close_listener(listener.id).expect("open");
                    }
                }
                Event::Error(failure) => panic!("{failure}"),
                _ => {}
            }
        }
        assert_eq!((closed, descriptors()), (2 * count, before - 1), "only the listener's descriptor is gone");
    });
}

/// Promise: resets at any point end their own connection and nothing else (OV03).
#[test]
fn a_storm_of_resets_leaves_a_good_client_undisturbed() {
    alone_with_connections("abuse::a_storm_of_resets_leaves_a_good_client_undisturbed", 500, 50, |count| {
        let (mut story, good, mut client) = Transcript::pair(ListenOptions::default());
        let addr = client.peer_addr().expect("connected");
        let storm = std::thread::spawn(move || {
            for round in 0..count {
                let mut peer = dial(addr);
                if round % 2 == 0 {
                    peer.write_all(&[0xff; 100]).expect("connected");
                }
                if round % 3 == 0 {
                    peer.shutdown(Shutdown::Write).expect("connected");
                }
                reset(peer);
            }
            client.write_all(b"still here?").expect("connected");
            client
        });
        let mut closed = 0;
        let mut heard = Vec::new();
        story.until(|socket, event| {
            match event {
                Event::Data(bytes) if socket.id() == good => heard.extend_from_slice(bytes),
                Event::Close(ending) => {
                    assert!(!ending.is_clean(), "{ending}");
                    closed += 1;
                }
                _ => {}
            }
            heard == b"still here?" && closed == count
        });
        story.socket(good).destroy();
        drop(storm.join().expect("no panic"));
        story.close(good);
        story.rest();
    });
}

/// Promise: out of descriptors a listener backs off, delivers one event for that, does not spin,
/// and serves all when it is over (AC01, AC02).
#[test]
fn a_server_out_of_descriptors_rests_and_then_serves_everybody() {
    alone("abuse::a_server_out_of_descriptors_rests_and_then_serves_everybody", || {
        let mut story = Transcript::new();
        let addr = story.listen(ListenOptions::default());
        let clients: Vec<TcpStream> = (0..20).map(|_| dial(addr)).collect();
        // All but five descriptors are used by something else.
        let limit = descriptors() + 64;
        lower_limit(limit);
        let mut hoard = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            hoard.push(file);
        }
        hoard.truncate(hoard.len() - 5);

        let (mut accepted, mut rests) = (Vec::new(), 0);
        let began = (Instant::now(), cpu_time());
        story.run_for(ms(1000), |socket, event| match event {
            Event::Connection => accepted.push(socket.id()),
            Event::AcceptFailed(_, error) => {
                rests += 1;
                assert!(error.to_string().contains("open files"), "{error}");
            }
            other => panic!("{other:?}"),
        });
        assert_eq!((accepted.len(), rests), (5, 1));
        let elapsed = began.0.elapsed();
        drop(hoard); // Reading the CPU time needs a descriptor.
        let used = cpu_time() - began.1;
        assert!(used < elapsed / 4, "{used:?} of processor time while resting");

        while accepted.len() < 20 {
            accepted.push(story.connection());
        }
        for mut client in clients {
            client.write_all(b"?").expect("connected");
            drop(client);
        }
        for socket in accepted {
            assert_eq!(story.until_end(socket), b"?");
            story.socket(socket).end();
            assert!(story.close(socket).is_clean());
        }
        story.rest();
    });
}

/// Promise: a connect without a descriptor is an error that `next` delivers, and the next one works
/// (FD01).
#[test]
fn a_client_out_of_descriptors_is_told_and_can_try_again() {
    alone("abuse::a_client_out_of_descriptors_is_told_and_can_try_again", || {
        let mut story = Transcript::new();
        let addr = story.listen(ListenOptions::default());
        lower_limit(descriptors() + 20);
        let mut hoard = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            hoard.push(file);
        }
        let client = story.reactor.connect(addr, ConnectOptions::default()).expect("delivered later");
        assert!(matches!(story.next(client), What::Lookup(_)));
        assert_eq!(story.error(client).kind, finale::ConnectionErrorKind::OutOfResources);
        story.close(client);
        drop(hoard);
        let client = story.reactor.connect(addr, ConnectOptions::default()).expect("an address");
        story.connected(client);
        let server = story.connection();
        for socket in [client, server] {
            story.socket(socket).destroy();
            story.next(socket);
        }
        while !story.reactor.is_empty() {
            story.turn();
        }
    });
}

/// Sets the soft limit on descriptors of this process.
fn lower_limit(descriptors: usize) {
    let pid = std::process::id();
    support::alone::shell(&format!("prlimit --pid {pid} --nofile={descriptors}:"));
}

/// Promise: peers that neither read nor close cost their queue for a limited time, and do not block
/// the loop (OV01, OV02).
#[test]
fn peers_that_never_read_and_never_close_are_ended_by_timers() {
    alone_with_connections("abuse::peers_that_never_read_and_never_close_are_ended_by_timers", 50, 10, |count| {
        let mut story = Transcript::new();
        let addr = story.listen(
            ListenOptions::default().send_buffer_size(32 * 1024).close_timeout(ms(300)).half_closed_timeout(ms(300)),
        );
        let peers: Vec<TcpStream> = (0..count).map(|_| support::dial_narrow(addr)).collect();
        let mut closed = 0;
        let began = cpu_time();
        story.until(|socket, event| {
            match event {
                Event::Connection => {
                    socket.write(&vec![0; 1 << 20]).expect("below the limit");
                    socket.end();
                }
                Event::Close(ending) => {
                    assert!(ending.had_error() && ending.bytes_unsent > 0, "{ending}");
                    closed += 1;
                }
                _ => {}
            }
            closed == count
        });
        assert!(cpu_time() - began < Duration::from_secs(2), "waiting for them is asleep");
        drop(peers);
        story.rest();
    });
}

/// Promise: garbage is data. No byte that a peer sends has a meaning for the reactor.
#[test]
fn garbage_is_told_as_data_to_the_byte() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    let garbage: Vec<u8> = (0..300_000_u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
    let sent = garbage.clone();
    let sender = std::thread::spawn(move || {
        peer.write_all(&sent).expect("it is read");
        peer.shutdown(Shutdown::Write).expect("connected");
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).expect("a clean end");
    });
    assert!(story.until_end(socket) == garbage);
    story.socket(socket).end();
    assert!(story.close(socket).is_clean());
    sender.join().expect("no panic");
    story.rest();
}

/// A peer that does a few random things and ends in a random way.
fn random_peer(addr: SocketAddr, mut random: u64) {
    // xorshift64
    let mut below = |limit: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % limit
    };
    let mut peer = if below(4) == 0 { support::dial_narrow(addr) } else { dial(addr) };
    peer.set_nonblocking(true).expect("a socket");
    let mut bytes = vec![0; 100_000];
    for _ in 0..below(6) {
        let length = below(100_000) as usize;
        // Any result is right: refused, short, broken.
        let _ = match below(5) {
            0 => socket2::SockRef::from(&peer).send_out_of_band(b"!"),
            1 => peer.shutdown(Shutdown::Write).map(|()| 0),
            2 => peer.write(&bytes[..length]),
            3 => peer.write(&bytes[..length % 10]),
            _ => peer.read(&mut bytes[..length]),
        };
    }
    match below(3) {
        0 => reset(peer),
        1 => drop(peer),
        _ => {
            // An orderly end: it finishes, and reads what still arrives.
            peer.set_nonblocking(false).expect("a socket");
            let _ = peer.shutdown(Shutdown::Write);
            let _ = peer.read_to_end(&mut bytes);
        }
    }
}

/// Promise: whatever peers do, each socket delivers its events in the order of the grammar, one
/// `close` last, and none is left over (OV03). The server echoes, with back-pressure, and sometimes
/// destroys in the middle.
#[test]
fn whatever_peers_do_every_socket_closes_once() {
    alone_with_connections("abuse::whatever_peers_do_every_socket_closes_once", 400, 40, |count| {
        let seed =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
        println!("seed {seed}");
        let mut story = Transcript::new();
        let options = ListenOptions::default().notify_peer_ended(true).high_water_mark(20_000).close_timeout(ms(500));
        let addr = story.listen(options.half_closed_timeout(ms(500)).receive_buffer_size(32 * 1024));
        let peers = [1, 2].map(|thread| {
            std::thread::spawn(move || {
                for peer in 0..count as u64 / 2 {
                    random_peer(addr, (seed ^ (thread << 40)).wrapping_add(peer * 0x9E37_79B9) | 1);
                }
            })
        });
        let (mut closed, mut events) = (0, 0);
        story.until(|socket, event| {
            events += 1;
            match event {
                Event::Data(bytes) => {
                    // It may have been reset meanwhile, which the error reports.
                    if socket.write(bytes) == Ok(finale::Backpressure::Full) {
                        socket.pause();
                    }
                    if events % 97 == 0 {
                        socket.destroy();
                    }
                }
                Event::Drain => socket.resume(),
                Event::End => socket.end(),
                Event::PeerEnded(_) => assert!(socket.peer_ended()),
                Event::Close(_) => closed += 1,
                _ => {}
            }
            closed == count
        });
        for peer in peers {
            peer.join().expect("no panic");
        }
        assert_eq!(story.lives(), count);
        story.rest();
    });
}
