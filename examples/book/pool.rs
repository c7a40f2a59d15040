//! Three requests over a pool of one connection. The server resets its first connection at the
//! second request.

use finale::sim::{Network, Script};
use finale::{ConnectOptions, Event, Pool, PoolEvent, PoolOptions, PoolReply, Reactor};

pub(crate) fn main() -> Result<(), finale::Error> {
    let network = Network::new(1);
    let server = network.peer([10, 0, 0, 2].into()).listen(([10, 0, 0, 2], 80).into()).expect("a free port");
    let once = || Script::new().receive(3).send(b"ok\n");
    let _first = server.play(once().receive(3).reset());
    server.play_each(once().receive(3).send(b"ok\n").receive(3).send(b"ok\n"));

    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let mut pool = Pool::new("10.0.0.2:80", ConnectOptions::default(), PoolOptions::default().size(1))?;
    let mut answered = 0;
    pool.request(&mut reactor.context()); // One at a time: the next follows its answer.
    while answered < 3
        && let Some((mut socket, event)) = reactor.next()?
    {
        match pool.handle(&mut socket, &event) {
            PoolEvent::Leased(ticket) if matches!(event, Event::Data(_)) => {
                answered += 1;
                println!("request {answered}: answered over {}", socket.id());
                pool.give_back(ticket, &mut socket.context());
                pool.request(&mut socket.context());
            }
            PoolEvent::Lost(_ticket, safety) => {
                println!("request {}: lost; repeat it: {safety:?}. GET is, so again", answered + 1);
                pool.request(&mut socket.context());
            }
            _ => {}
        }
        while let Some((_ticket, reply)) = pool.next_reply(&mut socket.context()) {
            if let PoolReply::Leased(id) = reply
                && let Some(mut leased) = socket.get(id)
            {
                leased.write(b"GET")?;
            }
        }
    }
    let stats = pool.stats();
    println!("connections opened: {}, lost while lent: {}", stats.started, stats.lost_leased);
    Ok(())
}
