//! The chat.

use finale::check::{CaseResult, Endings, Program as Checked};
use finale::sim::{Network, Script};
use finale::{Event, Reactor, Socket};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::room::{Chat, options};

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

/// Three clients; `deaf` reads nothing.
#[test]
fn lines_are_told_to_all_others_and_who_reads_nothing_is_thrown_out() {
    let network = Network::new(4);
    network.set_buffers(1000, 1000);
    let [here, there] = [1, 2].map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)));
    let mut reactor = Reactor::with_net(network.host(here));
    let listener = reactor.listen((here, 80), options()).expect("a free port");
    let mut chat = Chat::default();
    let mut run = |time: u64| {
        let until = network.now() + Duration::from_millis(time);
        while let Some((mut socket, event)) = reactor.next_before(until).expect("it continues") {
            chat.handle(&mut socket, event);
        }
    };
    let people = ["anna", "bert", "deaf"].map(|name| {
        let peer = network.peer(there).connect(listener.addr).expect("begun");
        run(10);
        peer.send(format!("{name}\n").as_bytes());
        run(10);
        peer
    });
    let said = |who: usize| String::from_utf8(people[who].read()).expect("text");
    assert_eq!(said(0), "who are you?\n* bert has come\n* deaf has come\n");
    people[0].send(b"hel");
    run(10);
    people[0].send(b"lo\x07 all\n");
    run(10);
    assert_eq!(said(1), "who are you?\n* deaf has come\nanna: hello all\n");
    let mut heard = String::new();
    for _ in 0..100 {
        people[0].send(format!("{}\n", "x".repeat(1000)).as_bytes());
        run(10);
        heard.push_str(&said(1));
    }
    assert!(people[2].is_reset(), "64 KiB wait for it, and it takes nothing");
    assert_eq!(said(0), "* deaf has left\n");
    while !heard.ends_with("x\n") || heard.matches("anna: x").count() < 100 {
        run(10);
        let more = said(1);
        assert!(!more.is_empty(), "nothing more comes: {heard}");
        heard.push_str(&more);
    }
    assert!(heard.contains("* deaf has left\n"));
    people[1].finish();
    run(10);
    assert!(people[1].has_fin());
    assert_eq!((said(1).as_str(), said(0).as_str()), ("bye\n", "* bert has left\n"));
}
