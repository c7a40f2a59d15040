//! Made by `finale lab` from this script:
//!
//!            0 us  client set deadline 1m
//!        10000 us  client connect
//!        20000 us  client write 5 + server end
//!        30000 us  wait 1s
//!      1030000 us  network cut
//!      1040000 us  client pause
//!      1050000 us  client end
//!
//! What the server does in it is left to the server of the test.
//! A scripted client can't do this, so it is left out: client set deadline 1m; network cut.

use std::time::Duration;

use finale::sim::{Network, Script};
use finale::{Event, ListenOptions, Reactor};

#[test]
fn the_server_meets_the_client_of_the_lab() -> Result<(), finale::Error> {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let listener = reactor.listen("10.0.0.1:80", ListenOptions::default())?;
    let client = Script::new()
        .wait(Duration::from_micros(10000))
        .send(&[b'x'; 5])
        .wait(Duration::from_micros(1020000))
        .stop_reading()
        .wait(Duration::from_micros(10000))
        .finish();
    network.peer([10, 0, 0, 2].into()).play(listener.addr, client).expect("there is a route");

    // Put your server here. This one reads everything, answers at the end, and finishes.
    let mut endings = Vec::new();
    let until = reactor.now() + Duration::from_secs(24 * 60 * 60);
    while let Some((mut socket, event)) = reactor.next_before(until)? {
        match event {
            Event::End => {
                socket.write(b"answer")?;
                socket.end();
            }
            Event::Close(ending) => {
                endings.push(ending.to_string());
                reactor.close_listener(listener.id)?;
            }
            _ => {}
        }
    }
    assert_eq!(
        endings,
        ["clean and acknowledged; the peer finished first, TIME_WAIT is the peer's; 5 bytes read, 6 written"]
    );
    Ok(())
}
