//! Name lookup: the rows LK01 and following of docs/faults.md.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use finale::sim::{Faults, Reach};
use finale::{ConnectOptions, ConnectionErrorKind, EndingKind, LookupErrorKind, SocketId, TimeoutKind};

use support::alone::{alone, alone_in_a_network, shell};
use support::scene::{Scene, THERE};
use support::{PATIENCE, Transcript, What, descriptors, ms};

const SECOND: Duration = Duration::from_secs(1);
const SILENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 66));

/// From here on the system's resolver queries a name server that never answers, and knows these
/// names without it.
fn silent_name_server(hosts: &str) {
    let folder = std::env::temp_dir().join(format!("finale-lookup-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a place for files");
    for (name, text) in [("hosts", hosts), ("resolv.conf", "nameserver 127.0.0.53\n")] {
        let file = folder.join(name);
        fs::write(&file, text).expect("room for a line");
        shell(&format!("mount --bind {} /etc/{name}", file.display()));
    }
    fs::remove_dir_all(&folder).unwrap_or_else(|_| println!("{} stays", folder.display()));
    shell("nft add table ip held && nft 'add chain ip held in { type filter hook input priority 0; }'");
    shell("nft add rule ip held in udp dport 53 drop && nft add rule ip held in tcp dport 53 drop");
}

fn threads_of_the_resolver() -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux has it");
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks.flatten().map(name).filter(|name| name.starts_with("finale-lookup")).count()
}

/// Whether a query of this network is on its way to the silent name server, 127.0.0.53:53.
fn a_query_is_out() -> bool {
    let sockets = fs::read_to_string("/proc/self/net/udp").expect("Linux has it");
    sockets.lines().any(|line| line.split_whitespace().nth(2) == Some("3500007F:0035"))
}

/// Waits for an action of a thread.
#[track_caller]
fn wait_until(holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "it never holds");
        std::thread::yield_now();
    }
}

fn begin(story: &mut Transcript, target: &str, limit: Duration) -> SocketId {
    let options = ConnectOptions::default().connect_timeout(limit);
    story.reactor.connect(target, options).expect("a good target")
}

/// LK01: unknown, temporarily unknown, without an address: each is delivered with its name, and no
/// descriptor was opened for it.
#[test]
fn each_way_of_having_no_address_has_its_cause() {
    let mut scene = Scene::new();
    scene.network.name("empty", vec![]);
    scene.network.name_fails("moment", LookupErrorKind::TryAgain);
    scene.network.name_fails("broken", LookupErrorKind::Failed);
    let causes = [
        ("nobody:80", LookupErrorKind::NotFound),
        ("moment:80", LookupErrorKind::TryAgain),
        ("empty:80", LookupErrorKind::NoAddress),
        ("broken:80", LookupErrorKind::Failed),
    ];
    for (name, cause) in causes {
        scene.reactor.connect(name, ConnectOptions::default()).expect("a good target");
        scene.expect(&[&format!("error lookup failed: {cause}"), "close"]);
        assert_eq!(scene.cause(), ConnectionErrorKind::Lookup(cause));
        scene.rest();
    }
}

/// LK01: a name server that can't be reached, on a real system: temporarily unknown.
#[test]
fn a_name_server_out_of_reach_is_told_as_such() {
    alone_in_a_network("lookup::a_name_server_out_of_reach_is_told_as_such", || {
        silent_name_server("127.0.0.1 localhost\n");
        let mut story = Transcript::new();
        let client = begin(&mut story, "somebody.example:80", PATIENCE);
        assert_eq!(story.error(client).kind, ConnectionErrorKind::Lookup(LookupErrorKind::TryAgain));
        assert_eq!(story.close(client).peer, None);
        story.rest();
    });
}

/// LK02: lookups that hang delay nothing else, and each ends with its connect timeout.
#[test]
fn a_hundred_hanging_lookups_hold_nobody_up() {
    let mut scene = Scene::new();
    scene.network.name_hangs("silence");
    scene.network.name("server", vec![THERE]);
    let _listener = scene.peer.listen((THERE, 80).into()).expect("free");
    let options = ConnectOptions::default().connect_timeout(4 * SECOND);
    for _ in 0..100 {
        scene.reactor.connect("silence:80", options.clone()).expect("a good target");
    }
    scene.reactor.connect("server:80", options).expect("a good target");
    scene.run(ms(3999));
    assert_eq!(std::mem::take(&mut scene.story), ["lookup 10.0.0.2", "connect", "ready"]);
    scene.run(SECOND);
    assert_eq!(scene.story.iter().filter(|line| *line == "close").count(), 100);
    assert_eq!(scene.story.iter().filter(|line| line.starts_with("error timed out: not connected")).count(), 100);
    assert_eq!(scene.network.descriptors(), 1);
}

/// LK02: on a real system: few threads, each lookup ended by its timeout, and a known name after
/// them gets its result.
#[test]
fn real_hanging_lookups_need_few_threads_and_end_with_their_time() {
    alone_in_a_network("lookup::real_hanging_lookups_need_few_threads_and_end_with_their_time", || {
        silent_name_server("127.0.0.1 localhost\n");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound");
        let mut story = Transcript::new();
        let began = Instant::now();
        let hanging: Vec<_> = (0..10).map(|_| begin(&mut story, "silence.example:80", ms(300))).collect();
        let known = begin(&mut story, &format!("localhost:{}", addr.port()), 2 * PATIENCE);
        story.turn();
        let other = story.reactor.connect(addr, ConnectOptions::default()).expect("an address");
        story.connected(other); // The loop continues.
        for client in hanging {
            assert_eq!(story.error(client).kind, ConnectionErrorKind::TimedOut(TimeoutKind::Connect));
            assert!(began.elapsed() >= ms(300), "after {:?}", began.elapsed());
            story.close(client);
        }
        assert!((1..=4).contains(&threads_of_the_resolver()), "{}", threads_of_the_resolver());
        story.connected(known); // When those before it were given up by the system.
        for client in [known, other] {
            story.socket(client).destroy();
            story.close(client);
        }
        story.rest();
    });
}

/// LK02: one thread for lookups that follow each other, and four for any number at once.
#[test]
fn a_thread_is_started_only_if_all_others_are_busy_and_there_are_four_at_most() {
    alone("lookup::a_thread_is_started_only_if_all_others_are_busy_and_there_are_four_at_most", || {
        let threads = || fs::read_dir("/proc/self/task").expect("Linux has it").count();
        let mut story = Transcript::new();
        let (open, gate) = channel::<()>();
        let gate = Mutex::new(gate);
        story.reactor.set_resolver(move |host, _| {
            if host == "slow" {
                let _ = gate.lock().expect("whole").recv();
            }
            Err(LookupErrorKind::NotFound)
        });
        let before = threads();
        for _ in 0..3 {
            let client = begin(&mut story, "nobody:80", PATIENCE);
            assert_eq!(story.error(client).kind, ConnectionErrorKind::Lookup(LookupErrorKind::NotFound));
            story.close(client);
            assert_eq!(threads() - before, 1);
        }
        let slow: Vec<_> = (0..10).map(|_| begin(&mut story, "slow:80", PATIENCE)).collect();
        story.turn();
        assert_eq!(threads() - before, 4);
        drop(open);
        for client in slow {
            story.error(client);
            story.close(client);
        }
        story.rest();
        drop(story);
        wait_until(|| threads() == before);
    });
}

/// LK03: destroyed while its name is looked up: `close` at once. The late result finds nothing,
/// although the slot was reused.
#[test]
fn a_late_answer_finds_nobody() {
    let mut scene = Scene::new();
    scene.network.set_faults(Faults { lookup_delay: 2 * SECOND, ..Faults::none() });
    scene.network.name("server", vec![THERE]);
    scene.network.name_hangs("silence");
    let listener = scene.peer.listen((THERE, 80).into()).expect("free");
    let first = scene.reactor.connect("server:80", ConnectOptions::default()).expect("a good target");
    scene.run(Duration::ZERO);
    let begun = scene.network.elapsed();
    scene.reactor.socket(first).expect("it lives").destroy();
    scene.run(Duration::ZERO);
    scene.run(Duration::ZERO); // A `close` is delivered in the turn after.
    assert_eq!((std::mem::take(&mut scene.story), scene.network.elapsed()), (vec!["close".to_owned()], begun));
    assert_eq!(scene.how(), &EndingKind::Destroyed);
    let second = scene.reactor.connect("silence:80", ConnectOptions::default()).expect("a good target");
    assert_eq!(second.index(), first.index());
    scene.run(5 * SECOND);
    assert!(scene.story.is_empty() && listener.accept().is_none() && scene.network.descriptors() == 0);
    scene.reactor.socket(second).expect("it lives").destroy();
    scene.expect(&["close"]);
    scene.rest();
}

/// LK03: the same with a real lookup that ends late.
#[test]
fn a_real_late_answer_finds_nobody() {
    alone_in_a_network("lookup::a_real_late_answer_finds_nobody", || {
        silent_name_server("127.0.0.1 localhost\n");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut story = Transcript::new();
        let first = begin(&mut story, "silence.example:80", PATIENCE);
        story.turn();
        let began = Instant::now();
        story.socket(first).destroy();
        assert_eq!(story.close(first).kind, EndingKind::Destroyed);
        assert!(began.elapsed() < ms(800), "the lookup takes a second");
        story.turn();
        let second = story.reactor.connect(listener.local_addr().expect("bound"), ConnectOptions::default());
        let second = second.expect("an address");
        assert_eq!(second.index(), first.index());
        story.connected(second);
        story.silence(ms(1500)); // The result has arrived.
        story.socket(second).destroy();
        story.close(second);
        story.rest();
    });
}

/// LK04: the first address is silent or refuses, the second works: each looked up once, one
/// `connect`.
#[test]
fn the_second_address_is_reached_in_its_time() {
    for reach in [Reach::BlackHole, Reach::Unreachable, Reach::NoRoute, Reach::Open] {
        let mut scene = Scene::new();
        scene.network.set_reach(SILENT, reach);
        scene.network.name("service", vec![SILENT, THERE]);
        let listener = scene.peer.listen(SocketAddr::new(THERE, 80)).expect("a free port");
        let options = ConnectOptions::default().connect_timeout(8 * SECOND);
        scene.reactor.connect("service:80", options).expect("a good target");
        if reach == Reach::BlackHole {
            scene.run(ms(249));
            assert_eq!(std::mem::take(&mut scene.story), ["lookup 10.0.0.66", "lookup 10.0.0.2"], "it is alone");
            scene.run(ms(11));
            assert_eq!(scene.story, ["connect", "ready"], "the second joins after 250 ms");
        } else {
            scene.run(ms(100));
            let at_once = ["lookup 10.0.0.66", "lookup 10.0.0.2", "connect", "ready"];
            assert_eq!(scene.story, at_once, "the second is tried at once");
        }
        assert!(listener.accept().is_some() && listener.accept().is_none());
        assert_eq!(scene.network.descriptors(), 1);
    }
}

/// LK04: on a real system: a name with two addresses, where a filter makes the first silent, or the
/// first has no listener.
#[test]
fn the_second_real_address_is_reached_in_its_time() {
    alone_in_a_network("lookup::the_second_real_address_is_reached_in_its_time", || {
        silent_name_server("127.0.0.2 two.example\n127.0.0.3 two.example\n");
        let before = descriptors();
        for silent in [false, true] {
            let mut story = Transcript::new();
            let listener = TcpListener::bind("127.0.0.3:0").expect("a port");
            let port = listener.local_addr().expect("bound").port();
            if silent {
                shell(&format!("nft add rule ip held in ip daddr 127.0.0.2 tcp dport {port} drop"));
            }
            let began = Instant::now();
            let client = begin(&mut story, &format!("two.example:{port}"), 2 * SECOND);
            let (mut first, mut second) = (story.next(client), story.next(client));
            if first != What::Lookup([127, 0, 0, 2].into()) {
                std::mem::swap(&mut first, &mut second);
                println!("the system prefers the second");
            }
            assert_eq!((first, second), (What::Lookup([127, 0, 0, 2].into()), What::Lookup([127, 0, 0, 3].into())));
            story.expect(client, What::Connect);
            story.expect(client, What::Ready);
            assert!(!silent || began.elapsed() >= ms(240), "a quarter of a second is the first one's");
            assert!(began.elapsed() < SECOND, "not longer");
            story.socket(client).destroy();
            story.close(client);
            story.rest();
        }
        wait_until(|| descriptors() == before); // The resolver's threads end by themselves.
    });
}

/// LK04: on a real system: a name with an address of each family, one of which a filter drops.
#[test]
fn a_family_that_a_filter_drops_costs_a_quarter_of_a_second() {
    alone_in_a_network("lookup::a_family_that_a_filter_drops_costs_a_quarter_of_a_second", || {
        silent_name_server("::1 both.example\n127.0.0.1 both.example\n");
        shell("nft add table inet families && nft 'add chain inet families in { type filter hook input priority 0; }'");
        for (dropped, left) in [
            ("ip6 daddr ::1", IpAddr::from([127, 0, 0, 1])),
            ("ip daddr 127.0.0.1", "::1".parse().expect("an address")),
        ] {
            let listener = TcpListener::bind("[::]:0").expect("a port of both families");
            let port = listener.local_addr().expect("bound").port();
            shell(&format!("nft add rule inet families in {dropped} tcp dport {port} drop"));
            let (mut story, began) = (Transcript::new(), Instant::now());
            let client = begin(&mut story, &format!("both.example:{port}"), PATIENCE);
            story.connected(client);
            assert!(began.elapsed() < SECOND, "after {:?}", began.elapsed());
            assert_eq!(story.socket(client).peer_addr(), Some(SocketAddr::new(left, port)));
            story.socket(client).destroy();
            story.close(client);
            story.rest();
        }
    });
}

/// LK05: all addresses fail, each in its way: one error, which names them all, and no descriptor is
/// left open.
#[test]
fn an_error_names_every_address_with_its_reason() {
    let mut scene = Scene::new();
    let addr = |last: u8| IpAddr::from([10, 0, 1, last]);
    for (last, reach) in [(1, Reach::NoRoute), (2, Reach::BlackHole), (3, Reach::Unreachable), (4, Reach::Prohibited)] {
        scene.network.set_reach(addr(last), reach);
    }
    scene.network.name("service", (1..=5).map(addr).collect());
    let options = ConnectOptions::default().connect_timeout(20 * SECOND);
    scene.reactor.connect("service:80", options).expect("a good target");
    scene.run(20 * SECOND);
    assert_eq!(scene.story.len(), 5 + 2, "{:?}", scene.story);
    let EndingKind::Failed(failure) = scene.how() else { panic!("it has failed") };
    let causes: Vec<ConnectionErrorKind> = failure.attempts.iter().map(|attempt| attempt.kind).collect();
    let silent = ConnectionErrorKind::TimedOut(TimeoutKind::Connect);
    assert_eq!(
        causes,
        [
            ConnectionErrorKind::Unreachable,
            ConnectionErrorKind::Unreachable,
            ConnectionErrorKind::Unreachable,
            ConnectionErrorKind::Refused,
            silent
        ],
        "as they failed"
    );
    scene.story.clear();
    scene.rest();
}

/// LK05: on a real system: refused, silent, and no route.
#[test]
fn a_real_error_names_every_address_with_its_reason() {
    alone_in_a_network("lookup::a_real_error_names_every_address_with_its_reason", || {
        silent_name_server("127.0.0.2 three.example\n127.0.0.3 three.example\n10.9.9.9 three.example\n");
        shell("nft add rule ip held in ip daddr 127.0.0.3 tcp dport 9 drop");
        let mut story = Transcript::new();
        let before = descriptors();
        let client = begin(&mut story, "three.example:9", 3 * SECOND);
        for _ in 0..3 {
            assert!(matches!(story.next(client), What::Lookup(_)));
        }
        let failure = story.error(client);
        let mut causes: Vec<_> = failure.attempts.iter().map(|attempt| (attempt.addr.ip(), attempt.kind)).collect();
        causes.sort_by_key(|(ip, _)| *ip);
        let ways = [
            ConnectionErrorKind::Unreachable,
            ConnectionErrorKind::Refused,
            ConnectionErrorKind::TimedOut(TimeoutKind::Connect),
        ];
        let ips = [[10, 9, 9, 9], [127, 0, 0, 2], [127, 0, 0, 3]].map(IpAddr::from);
        assert_eq!(causes, ips.into_iter().zip(ways).collect::<Vec<_>>());
        story.close(client);
        assert_eq!(descriptors(), before);
        story.rest();
    });
}

/// LK06: a reactor that is dropped while a lookup hangs.
#[test]
fn a_reactor_can_be_dropped_while_a_lookup_hangs() {
    let mut scene = Scene::new();
    scene.network.name_hangs("silence");
    scene.reactor.connect("silence:80", ConnectOptions::default()).expect("a good target");
    scene.run(ms(10));
    let network = scene.network.clone();
    drop(scene);
    assert_eq!((network.descriptors(), network.open_connections()), (0, 0));
}

/// LK06: on a real system: neither the drop nor the end of the process waits for the thread.
#[test]
fn neither_a_reactor_nor_a_process_waits_for_a_hanging_lookup() {
    alone_in_a_network("lookup::neither_a_reactor_nor_a_process_waits_for_a_hanging_lookup", || {
        silent_name_server("127.0.0.1 localhost\n");
        let mut story = Transcript::new();
        begin(&mut story, "silence.example:80", PATIENCE);
        story.turn();
        // A thread that has not begun a lookup would end at once.
        wait_until(a_query_is_out);
        assert_eq!(threads_of_the_resolver(), 1);
        let began = Instant::now();
        drop(story);
        assert!(began.elapsed() < ms(500), "after {:?}", began.elapsed());
        assert_eq!(threads_of_the_resolver(), 1, "it hangs on by itself");
    });
}
