//! The clients of the guides.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use finale::sim::{Network, PeerListener, Reach, Script};
use finale::{PoolOptions, Reactor, RetrySafety};

use super::pooled::Client;
use super::program::{Program, output, printed};
use super::retries::{Failed, Limits, ask, safety};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

/// A network whose server plays one script for each connection, in order.
fn server(scripts: &[Script]) -> (Network, PeerListener) {
    let network = Network::new(1);
    let listener = network.peer(THERE).listen(SocketAddr::from((THERE, 80))).expect("a free port");
    for script in scripts {
        let _ = listener.play(script.clone());
    }
    (network, listener)
}

fn answers() -> Script {
    Script::new().receive(6).send(b"HELLO\n").receive_end().finish()
}

fn asked(network: &Network, limits: &Limits) -> Result<String, Failed> {
    ask(&mut Reactor::with_net(network.host(HERE)), "10.0.0.2:80", "hello", limits)
}

#[test]
fn a_request_that_is_idempotent_is_repeated_after_a_reset_and_another_is_not() {
    let (network, _listener) = server(&[Script::new().receive(6).reset(), answers()]);
    let limits = Limits { is_idempotent: true, ..Limits::default() };
    assert_eq!(asked(&network, &limits).expect("an answer"), "HELLO");

    let (network, _listener) = server(&[Script::new().receive(6).reset(), answers()]);
    let Err(Failed::Attempt { ending, attempts }) = asked(&network, &Limits::default()) else { panic!("no failure") };
    assert_eq!((attempts, safety(&ending)), (1, RetrySafety::IfIdempotent));
}

#[test]
fn half_an_answer_is_no_answer_and_is_never_repeated() {
    let (network, _listener) = server(&[Script::new().receive(6).send(b"HEL").finish().receive_end(), answers()]);
    let limits = Limits { is_idempotent: true, ..Limits::default() };
    let Err(Failed::Attempt { ending, attempts }) = asked(&network, &limits) else { panic!("no failure") };
    assert!(ending.is_clean(), "the connection ended in order, and the answer is cut: {ending}");
    assert_eq!((attempts, safety(&ending)), (1, RetrySafety::Unsafe));
}

#[test]
fn a_server_that_never_answers_costs_no_more_than_the_limit() {
    for reach in [Reach::BlackHole, Reach::Open] {
        let (network, _listener) = server(&[Script::new().stop_reading(), Script::new(), Script::new(), Script::new()]);
        network.set_reach(THERE, reach);
        let limits = Limits { attempts: 10, is_idempotent: true, ..Limits::default() };
        let Err(Failed::Attempt { attempts, .. }) = asked(&network, &limits) else { panic!("no failure") };
        assert_eq!(attempts, 4, "three of 3 s, and what is left of 10 s");
        assert!(network.elapsed() <= limits.total + Duration::from_millis(10), "{:?}", network.elapsed());
    }
}

/// Requests over a pool of one connection, and their results.
fn pooled(network: &Network, lines: &[&str]) -> Vec<Result<String, String>> {
    let mut reactor = Reactor::with_net(network.host(HERE));
    let mut client = Client::new("10.0.0.2:80", PoolOptions::default().size(1).seed(1)).expect("good options");
    for line in lines {
        client.request(&mut reactor.context(), (*line).to_owned());
    }
    while client.results.len() < lines.len()
        && let Some((mut socket, event)) = reactor.next().expect("it continues")
    {
        client.handle(&mut socket, &event);
    }
    client.results.drain(..).map(|(_, result)| result).collect()
}

#[test]
fn a_pool_repeats_what_was_lost_before_its_answer_and_nothing_else() {
    let serves =
        |answers: &[&[u8]]| answers.iter().fold(Script::new(), |script, answer| script.receive(2).send(answer));
    let (network, _listener) = server(&[
        serves(&[b"A\n"]).receive(2).reset(),
        serves(&[b"B\n", b"C"]).finish().receive_end(),
        serves(&[b"D\n"]),
    ]);
    let results = pooled(&network, &["a", "b", "c", "d"]);
    assert_eq!(
        results,
        [Ok("A".into()), Ok("B".into()), Err("lost in the middle of the answer".into()), Ok("D".into())]
    );
}

#[test]
fn a_pool_without_a_server_gives_up_in_time_and_says_why() {
    let network = Network::new(1);
    let why = "no connection in time: refused: nothing listens there [10.0.0.2:80]";
    assert_eq!(pooled(&network, &["a"]), [Err(why.into())]);
    assert!(network.elapsed() <= Duration::from_millis(10_100), "{:?}", network.elapsed());
}

#[test]
fn both_clients_work_with_the_line_server() {
    let server = Program::start("lines", &["127.0.0.1:0"]);
    let addr = server.addr.to_string();
    assert_eq!(printed("request", &[&addr, "hello"], ""), "HELLO\n");
    let lines: String = (0..500).map(|number| format!("line {number}\n")).collect();
    let mut printed: Vec<String> = printed("pool", &[&addr], &lines).lines().map(str::to_owned).collect();
    printed.sort();
    let mut expected: Vec<String> = (0..500).map(|number| format!("line {number}: LINE {number}")).collect();
    expected.sort();
    assert_eq!(printed, expected);
    let (_held, dead) = support::dead_port();
    let failed = output("request", &[&dead.to_string(), "hello"], "");
    assert!(!failed.status.success());
    assert!(String::from_utf8_lossy(&failed.stderr).contains("no answer in 3 attempts"), "{failed:?}");
}
