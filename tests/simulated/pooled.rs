//! A program that keeps connections to its server in a pool, against every ending: the second client
//! is served over the connection of the first one.

use std::collections::HashMap;
use std::time::Duration;

use super::handlers::{addr, broken, good};
use finale::check::{Endings, Program, Rule};
use finale::sim::{Host, Script};
use finale::{
    ConnectOptions, Context, Error, Event, ListenOptions, Pool, PoolEvent, PoolOptions, PoolReply, Reactor, Socket,
    SocketId, Ticket,
};

/// Sends each client's question of three bytes to a server, and its answer of three bytes back.
struct Gateway {
    pool: Pool,
    /// The client of each request.
    clients: HashMap<Ticket, SocketId>,
    /// It sends a question again whose connection was lost.
    retries: bool,
}

impl Gateway {
    fn new(retries: bool) -> Self {
        let connect = ConnectOptions::default().connect_timeout(Duration::from_secs(1));
        let second = Duration::from_secs(1);
        let options = PoolOptions::default().size(1).wait_limit(5 * second).back_off(second / 10, second);
        Self { pool: Pool::new("10.0.0.2:7", connect, options).expect("an address"), clients: HashMap::new(), retries }
    }

    fn request(&mut self, client: SocketId, context: &mut Context<'_>) {
        let ticket = self.pool.request(context);
        self.clients.insert(ticket, client);
    }

    fn start(&mut self, context: &mut Context<'_>) {
        while let Some((ticket, reply)) = self.pool.next_reply(context) {
            let PoolReply::Leased(id) = reply else {
                self.fail(ticket, context);
                continue;
            };
            if let Some(mut socket) = context.socket(id) {
                let _ = socket.write(b"ask");
                socket.set_deadline(Duration::from_secs(2));
            }
        }
    }

    fn lost(&mut self, ticket: Ticket, context: &mut Context<'_>) {
        match self.clients.get(&ticket).copied().filter(|_| self.retries) {
            Some(client) => self.request(client, context),
            None => self.fail(ticket, context),
        }
    }

    fn fail(&mut self, ticket: Ticket, context: &mut Context<'_>) {
        if let Some(client) = self.clients.remove(&ticket)
            && let Some(mut client) = context.socket(client)
        {
            client.destroy();
        }
    }
}

impl Program for Gateway {
    fn begin(&mut self, reactor: &mut Reactor<Host>) -> Result<(), Error> {
        let listen = ListenOptions::default().deadline(Duration::from_secs(20));
        reactor.listen("10.0.0.1:80", listen).map(drop)
    }

    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        match (self.pool.handle(socket, &event), event) {
            (PoolEvent::Leased(ticket), Event::Data(_)) if socket.bytes_read().is_multiple_of(3) => {
                if let Some(client) = self.clients.remove(&ticket)
                    && let Some(mut client) = socket.get(client)
                {
                    let _ = client.write(b"yes");
                    client.end();
                }
                self.pool.give_back(ticket, &mut socket.context());
            }
            (PoolEvent::Leased(ticket), Event::End) => {
                self.pool.discard(ticket, &mut socket.context());
                self.lost(ticket, &mut socket.context());
            }
            (PoolEvent::Lost(ticket, _), _) => self.lost(ticket, &mut socket.context()),
            (PoolEvent::Foreign, Event::Data(_)) if socket.bytes_read() == 3 => {
                self.request(socket.id(), &mut socket.context());
            }
            (PoolEvent::Foreign, Event::End) if socket.bytes_read() < 3 => socket.end(),
            _ => {}
        }
        self.start(&mut socket.context());
    }

    fn stop(&mut self, reactor: &mut Reactor<Host>) {
        self.pool.close(&mut reactor.context());
    }
}

fn endings(server: Script) -> Endings {
    let client = Script::new().send(b"ask").receive(3).finish().receive_end();
    Endings::of_a_program().client(addr("10.0.0.1:80"), client).server(addr("10.0.0.2:7"), server)
}

fn exchange(script: Script) -> Script {
    script.receive(3).send(b"yes")
}

#[test]
fn a_server_of_a_pool_has_an_exchange_for_each_client_or_there_is_only_one() {
    let both = exchange(exchange(Script::new())).receive_end().finish();
    good(&endings(both), || Gateway::new(true));
    let one = exchange(Script::new()).receive_end().finish();
    good(&endings(one).no_second_client(), || Gateway::new(false));
}

#[test]
fn a_script_that_is_too_short_for_a_pool_and_a_cut_that_hits_the_second_client_have_a_hint() {
    let one = exchange(Script::new()).receive_end().finish();
    let (case, rule, what) = broken(&endings(one), || Gateway::new(true));
    assert_eq!((case.seed(), rule), (0, Rule::Progress), "{what}");
    let hint = "with 6 bytes \"askask\" received; its script receives 3 bytes: a pool serves the second client over";
    assert!(what.contains(hint), "{what}");

    let both = exchange(exchange(Script::new())).receive_end().finish();
    let (_, rule, what) = broken(&endings(both), || Gateway::new(false));
    assert_eq!(rule, Rule::Isolation, "{what}");
    assert!(what.contains("; it came while the connection that is cut was open, as a pool keeps it"), "{what}");
}

/// The connection to the server is one socket from the first client to the second one.
#[test]
fn each_line_of_a_transcript_names_its_socket() {
    let both = exchange(exchange(Script::new())).receive_end().finish();
    let report = endings(both).replay(0, || Gateway::new(true));
    let text = report.transcript().to_string();
    let reads = text.lines().filter_map(|line| line.split_once("| socket ")?.1.split_once(": data, 3 bytes"));
    let names: Vec<&str> = reads.map(|(name, _)| name).collect();
    assert!(matches!(names[..], [_, first, _, second] if first == second), "{text}");
}
