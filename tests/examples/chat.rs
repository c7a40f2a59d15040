//! The chat.

use finale::check::{CaseResult, Endings, Program as Checked};
use finale::sim::{Host, Network, PeerSocket, Script};
use finale::{Event, Listener, Reactor, Socket, StopOptions};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::room::{Chat, options};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

impl Checked for Chat {
    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        Self::handle(self, socket, event);
    }

    fn at_rest(&self, _found: &CaseResult) -> Result<(), String> {
        if self.people.iter().next().is_none() { Ok(()) } else { Err(format!("somebody is left: {self:?}")) }
    }
}

#[test]
fn somebody_who_comes_says_something_and_leaves_survives_every_ending() {
    let polite = Script::new().send(b"anna\nhello\n").receive(13).finish().receive_end();
    let report = Endings::of_a_server(options(), polite).conditions(2).run(Chat::default);
    assert!(report.violation().is_none(), "{report}");
}

/// A chat in a simulated network, and its clients.
struct Room {
    network: Network,
    reactor: Reactor<Host>,
    listener: Listener,
    chat: Chat,
}

impl Room {
    fn new(buffer_bytes: usize) -> Self {
        let network = Network::new(4);
        network.set_buffers(buffer_bytes, buffer_bytes);
        let mut reactor = Reactor::with_net(network.host(HERE));
        let listener = reactor.listen((HERE, 80), options()).expect("a free port");
        Self { network, reactor, listener, chat: Chat::default() }
    }

    /// A client that has sent its name and has read what was sent to it so far.
    fn enter(&mut self, name: &str) -> PeerSocket {
        let peer = self.network.peer(THERE).connect(self.listener.addr).expect("begun");
        self.run(10);
        peer.send(format!("{name}\n").as_bytes());
        self.run(10);
        assert!(text(&peer).starts_with("who are you?\n"));
        peer
    }

    fn run(&mut self, ms: u64) {
        let until = self.network.now() + Duration::from_millis(ms);
        while let Some((mut socket, event)) = self.reactor.next_before(until).expect("it continues") {
            self.chat.handle(&mut socket, event);
            // The limit, a line, and a few words of our own.
            assert!(socket.queued_bytes() <= 34 * 1024, "{} bytes wait", socket.queued_bytes());
        }
    }
}

fn text(peer: &PeerSocket) -> String {
    String::from_utf8(peer.read()).expect("text")
}

/// Three clients; `deaf` reads nothing.
#[test]
fn lines_are_told_to_all_others_and_who_reads_nothing_is_thrown_out() {
    let mut room = Room::new(1000);
    let [anna, bert, deaf] = ["anna", "bert", "deaf"].map(|name| room.enter(name));
    assert_eq!(text(&anna), "* bert has come\n* deaf has come\n");
    assert_eq!(text(&bert), "* deaf has come\n");
    anna.send(b"hel");
    room.run(10);
    anna.send(b"lo\x07 all\n");
    room.run(10);
    assert_eq!(text(&bert), "anna: hello all\n");
    let mut heard = String::new();
    for _ in 0..100 {
        anna.send(format!("{}\n", "x".repeat(1000)).as_bytes());
        room.run(10);
        heard.push_str(&text(&bert));
    }
    let begun = room.network.elapsed();
    while heard.matches("anna: x").count() < 100 || !heard.ends_with("x\n") {
        room.run(10);
        heard.push_str(&text(&bert));
        assert!(room.network.elapsed() - begun < Duration::from_secs(10), "nothing more comes: {heard}");
    }
    assert!(!heard.contains("missed"), "one that reads gets all of it");
    assert!(!deaf.is_reset(), "it may take a while");
    while !deaf.is_reset() {
        room.run(1000);
        assert!(room.network.elapsed() < Duration::from_secs(40), "lines wait for it, and it takes nothing");
    }
    room.run(10);
    assert!(room.network.elapsed() > Duration::from_secs(30));
    assert_eq!((text(&anna).as_str(), text(&bert).as_str()), ("* deaf has left\n", "* deaf has left\n"));
    bert.finish();
    room.run(10);
    assert!(bert.has_fin());
    assert_eq!((text(&bert).as_str(), text(&anna).as_str()), ("bye\n", "* bert has left\n"));
}

/// Short lines, long ones, and a long name before each.
#[test]
fn a_flood_slows_its_sender_down_and_no_other_client_loses_a_line_or_its_connection() {
    let long = "n".repeat(1000);
    for (name, line, count) in
        [("mallory", String::new(), 8000), ("m", "x".repeat(1000), 400), (&long, String::new(), 8000)]
    {
        let mut room = Room::new(64 << 10);
        let readers: Vec<PeerSocket> = (0..8).map(|number| room.enter(&format!("user{number}"))).collect();
        let flooder = room.enter(name);
        room.run(10);
        let come = format!("* {} has come\n", name.chars().take(32).collect::<String>());
        assert!(readers.iter().all(|reader| text(reader).ends_with(&come)), "a long name is cut");
        let (mut lines, mut bytes, mut is_heard) = (vec![0; readers.len()], 0, false);
        flooder.send(format!("{line}\n").repeat(count).as_bytes());
        let begun = room.network.elapsed();
        room.run(100);
        readers[0].send(b"excuse me\n");
        while lines.iter().any(|lines| *lines < count) {
            room.run(50);
            for (reader, lines) in readers.iter().zip(&mut lines) {
                let heard = text(reader);
                assert!(!reader.is_reset() && !heard.contains("missed"), "{heard}");
                is_heard |= heard.contains("user0: excuse me\n");
                *lines += heard.matches(": ").count();
                bytes += heard.len();
            }
            let time = room.network.elapsed() - begun;
            assert!(is_heard || time < Duration::from_millis(200), "others are heard during the flood");
            let allowed = readers.len() * (18 * 1024 + time.as_millis() as usize * 18);
            assert!(bytes < allowed, "{bytes} bytes after {time:?}");
        }
        let seconds = (room.network.elapsed() - begun).as_secs();
        let slowest = bytes / readers.len() / 14_000;
        assert!(seconds as usize <= slowest, "{seconds} s for {bytes} bytes");
        flooder.finish();
        room.run(10);
        assert!(flooder.has_fin() && text(&flooder).ends_with("bye\n"), "its end comes after its lines");
    }
}

#[test]
fn a_client_that_reads_too_slowly_learns_how_many_lines_it_has_missed_and_stays() {
    let mut room = Room::new(1000);
    let [anna, bert, slow] = ["anna", "bert", "slow"].map(|name| room.enter(name));
    let (mut of_bert, mut of_slow) = (String::new(), String::new());
    for round in 0..2000 {
        if round < 100 {
            anna.send(format!("{}\n", "x".repeat(1000)).as_bytes());
        }
        room.run(20);
        of_bert.push_str(&text(&bert));
        // A sip now and then.
        if round % 50 == 49 {
            of_slow.push_str(&text(&slow));
        }
    }
    assert_eq!(of_bert.matches("anna: ").count(), 100);
    assert!(!slow.is_reset());
    let missed: usize = of_slow
        .lines()
        .filter_map(|line| line.strip_prefix("* you have missed ")?.strip_suffix(" lines")?.parse::<usize>().ok())
        .sum();
    assert!(missed > 0, "{of_slow}");
    assert_eq!(of_slow.matches("anna: ").count() + missed, 100, "each line is received or counted");
}

#[test]
fn the_end_of_the_chat_is_announced_to_everybody() {
    let mut room = Room::new(1000);
    let [anna, bert] = ["anna", "bert"].map(|name| room.enter(name));
    text(&anna);
    room.chat.close(&mut room.reactor.context());
    room.reactor.stop_listener(room.listener.id, StopOptions::default()).expect("open");
    room.run(10);
    for peer in [anna, bert] {
        assert_eq!((text(&peer).as_str(), peer.has_fin()), ("* the chat has ended\n", true));
        peer.finish();
    }
    room.run(100);
    assert!(room.reactor.is_empty());
}
