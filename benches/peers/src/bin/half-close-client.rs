//! The measuring load: connect, send a request, shut down, read the answer to its end, close; so many in flight at once.
//! Blocking sockets and no event loop, so that it owes nothing to what it measures.
//!
//! `half-close-client ADDR CONNECTIONS IN_FLIGHT REQUEST_BYTES ANSWER_BYTES`

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};

use socket2::{Domain, Socket, Type};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [addr, connections, in_flight, request, answer] = args.as_slice() else {
        eprintln!("usage: half-close-client ADDR CONNECTIONS IN_FLIGHT REQUEST_BYTES ANSWER_BYTES");
        std::process::exit(2);
    };
    let addr: SocketAddr = addr.parse()?;
    let (connections, in_flight): (u64, usize) = (connections.parse()?, in_flight.parse()?);
    let (request, answer) = (vec![b'q'; request.parse()?], answer.parse::<usize>()?);

    let mut open = VecDeque::with_capacity(in_flight);
    let mut failed = 0;
    for number in 0..connections {
        if open.len() == in_flight {
            failed += u64::from(!finish(open.pop_front(), answer));
        }
        open.push_back(begin(addr, number, &request)?);
    }
    while !open.is_empty() {
        failed += u64::from(!finish(open.pop_front(), answer));
    }
    println!("{connections} connections, {failed} failed");
    std::process::exit(i32::from(failed > 0));
}

/// Source addresses rotate, so that TIME_WAIT can't exhaust the ports.
fn begin(addr: SocketAddr, number: u64, request: &[u8]) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let source = SocketAddrV4::new(Ipv4Addr::new(127, 0, 1, (number % 64) as u8 + 1), 0);
    socket.bind(&SocketAddr::V4(source).into())?;
    socket.connect(&addr.into())?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(request)?;
    stream.shutdown(Shutdown::Write)?;
    Ok(stream)
}

/// Whether the answer came whole and ended well.
fn finish(stream: Option<TcpStream>, answer: usize) -> bool {
    let mut bytes = Vec::with_capacity(answer + 1);
    let read = stream.map(|mut stream| stream.read_to_end(&mut bytes));
    matches!(read, Some(Ok(read)) if read == answer)
}
