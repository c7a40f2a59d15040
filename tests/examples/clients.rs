//! The clients of the guides.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::time::Duration;

use finale::sim::{Network, PeerListener, Reach, Script};
use finale::{PoolOptions, Reactor, RetrySafety};

use super::pooled::Client;
use super::program::{Program, command, output, printed};
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
fn a_pool_that_is_closed_ends_its_connections_and_waits_for_no_server_that_does_not() {
    let network = Network::new(1);
    let listener = network.peer(THERE).listen(SocketAddr::from((THERE, 80))).expect("a free port");
    let polite = listener.play(Script::new().receive(2).send(b"A\n").receive_end().finish());
    let silent = listener.play(Script::new().receive(2).send(b"B\n"));
    let mut reactor = Reactor::with_net(network.host(HERE));
    let mut client = Client::new("10.0.0.2:80", PoolOptions::default().size(2).seed(1)).expect("good options");
    for line in ["a", "b"] {
        client.request(&mut reactor.context(), line.to_owned());
    }
    while let Some((mut socket, event)) = reactor.next().expect("it continues") {
        client.handle(&mut socket, &event);
        if client.results.len() == 2 {
            client.close(&mut reactor.context());
        }
    }
    assert!(polite.has_end() && !polite.is_reset(), "{:?}", polite.transcript());
    assert!(silent.has_end(), "{:?}", silent.transcript());
    assert!(network.elapsed() < Duration::from_secs(3), "{:?}", network.elapsed());
}

/// A read that blocks in the loop of the reactor would stop it until the next line.
#[test]
fn a_pool_answers_while_its_input_pauses_and_ends_its_connections_in_order() {
    let mut server = Program::start("lines", &["127.0.0.1:0"]);
    let mut pool = command("pool");
    pool.arg(server.addr.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut pool = pool.spawn().expect("it is built");
    let (mut input, out) = (pool.stdin.take().expect("piped"), pool.stdout.take().expect("piped"));
    let (sender, printed) = channel();
    std::thread::spawn(move || BufReader::new(out).lines().try_for_each(|line| sender.send(line.expect("UTF-8"))));
    for line in ["one", "two"] {
        writeln!(input, "{line}").expect("it reads");
        // The limit ends a test that would hang, and measures nothing.
        let answer = printed.recv_timeout(Duration::from_secs(60));
        if answer.is_err() {
            pool.kill().expect("it runs");
        }
        assert_eq!(answer.as_deref(), Ok(format!("{line}: {}", line.to_uppercase()).as_str()));
    }
    drop(input);
    assert!(pool.wait().expect("it ends").success());
    // Each used connection has a line, and one of them has answered at least.
    server.terminate();
    let log: Vec<String> = server.reader().lines().map(|line| line.expect("UTF-8")).collect();
    assert!(!log.is_empty() && log.iter().all(|line| line.contains(": clean")), "{log:?}");
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
