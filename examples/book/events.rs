//! Every event of two connections, with the time of the simulated network.

use std::time::Duration;

use finale::sim::{Network, Script};
use finale::{Event, ListenOptions, Reactor};

const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn main() -> Result<(), finale::Error> {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let options = ListenOptions::default().idle_timeout(2 * SECOND).notify_peer_ended(true);
    let listener = reactor.listen("10.0.0.1:80", options)?;

    // One client rests before it reads its answer. The other one sends, and resets.
    let rests = Script::new().send(b"request").stop_reading().wait(3 * SECOND).read_on().receive(4 << 20);
    let rests = rests.send(b"thanks").finish().receive_end();
    let resets = Script::new().wait(10 * SECOND).send(b"half a req").wait(SECOND).reset();
    let _plays = [rests, resets].map(|script| network.peer([10, 0, 0, 2].into()).play(listener.addr, script));

    let mut closed = 0;
    while closed < 2
        && let Some((mut socket, event)) = reactor.next()?
    {
        println!("{:>7.3} s  {}  {event}", network.elapsed().as_secs_f64(), socket.id());
        match event {
            Event::Data(b"request") => drop(socket.write_owned(vec![b'x'; 4 << 20])?),
            Event::End => socket.end(),
            Event::Close(_) => closed += 1,
            _ => {}
        }
    }
    Ok(())
}
