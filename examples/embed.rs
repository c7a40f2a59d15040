//! finale inside another event loop: that loop waits on finale's descriptor and on its own, and
//! never longer than until finale's next deadline. Here the other loop is poll(2), and its own
//! descriptor is standard input. Run it: `cargo run --release --example embed`, then connect with
//! `nc`, or type lines to send to every client.

use std::io::Read;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use finale::{Event, ListenOptions, Reactor, SocketId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut reactor = Reactor::new()?;
    let listener = reactor.listen("127.0.0.1:0", ListenOptions::default())?;
    println!("listening on {}; lines from here go to every client, end of input ends", listener.addr);
    let mut clients: Vec<SocketId> = Vec::new();
    let mut line = [0; 4096];

    loop {
        // 1. Everything that can happen without waiting.
        while let Some((mut socket, event)) = reactor.next_before(Instant::now())? {
            match event {
                Event::Connection => clients.push(socket.id()),
                Event::End => socket.end(),
                Event::Data(bytes) => println!("{}: {}", socket.id(), String::from_utf8_lossy(bytes).trim_end()),
                Event::Close(ending) => {
                    println!("{}: {ending}", socket.id());
                    clients.retain(|&client| client != socket.id());
                }
                _ => {}
            }
        }
        // 2. Wait for finale and for our own input, until finale's next deadline at most.
        let wait = reactor.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let wait = wait.map(|wait| Timespec::try_from(wait + Duration::from_millis(1))).transpose()?;
        let stdin = std::io::stdin();
        let mut fds = [PollFd::new(&reactor, PollFlags::IN), PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
        poll(&mut fds, wait.as_ref())?;
        // 3. Our own input.
        if !fds[1].revents().is_empty() {
            let bytes = stdin.lock().read(&mut line)?;
            if bytes == 0 {
                return Ok(()); // Dropping the reactor resets the remaining clients.
            }
            for &client in &clients {
                if let Some(mut socket) = reactor.socket(client)
                    && socket.write(&line[..bytes]).is_err()
                {
                    socket.destroy(); // It reads too slowly, or has ended.
                }
            }
        }
    }
}
