//! The server as smol's users write it: `Async` around the standard library's sockets, one task per
//! connection on a `LocalExecutor`, and `smol::block_on`, which drives timers and I/O on the same
//! thread.
//!
//! Fair, because `Async` tries each operation before it waits for readiness (so a request that has
//! arrived already is read at once), the options are inherited from the listener, tasks hold no
//! buffer while they wait, and dropping the stream after the client's FIN sends ours, without a
//! shutdown(2) before it. `Async::new` makes each accepted socket non-blocking itself; smol offers
//! no accept that does it in the same call.
//!
//! `smol-server answer BYTES | first REQUEST ANSWER | echo`

use std::cell::RefCell;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use finale_load::answer::{PIECE_BYTES, piece};
use finale_peers::server::{Mode, announce, listen};
use smol::io::AsyncWriteExt as _;
use smol::{Async, LocalExecutor, Timer};

/// Long enough that something may have been closed, short enough that no client's connect times
/// out.
const REST: Duration = Duration::from_millis(10);

thread_local! {
    /// What one read takes; no task holds it while it waits.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; PIECE_BYTES]);
}

fn main() -> io::Result<()> {
    let mode = Mode::from_args();
    let listener = listen()?;
    announce(&listener)?;
    let executor = LocalExecutor::new();
    smol::block_on(executor.run(accept(&executor, listener, mode)))
}

async fn accept(executor: &LocalExecutor<'_>, listener: TcpListener, mode: Mode) -> io::Result<()> {
    let listener = Async::new(listener)?;
    loop {
        match listener.accept().await {
            // Three kinds of tasks, so that each is only as large as its own service needs.
            Ok((stream, _)) => match mode {
                Mode::Answer { answer } => executor.spawn(finish_last(stream, answer)).detach(),
                Mode::First { request, answer } => executor.spawn(finish_first(stream, request, answer)).detach(),
                Mode::Echo => executor.spawn(echo(stream)).detach(),
            },
            // Usually out of descriptors.
            Err(_) => drop(Timer::after(REST).await),
        }
    }
}

async fn finish_last(stream: Async<TcpStream>, answer: u64) -> io::Result<()> {
    while skip(&stream).await? > 0 {}
    send(&stream, answer).await
}

async fn finish_first(stream: Async<TcpStream>, request: u64, answer: u64) -> io::Result<()> {
    let mut received = 0;
    while received < request {
        match skip(&stream).await? {
            0 => return Ok(()),
            read => received += read as u64,
        }
    }
    send(&stream, answer).await?;
    stream.get_ref().shutdown(Shutdown::Write)?;
    while skip(&stream).await? > 0 {}
    Ok(())
}

/// The bytes are copied out of the shared buffer only if the client does not take them at once.
async fn echo(mut stream: Async<TcpStream>) -> io::Result<()> {
    loop {
        let (read, rest) = stream.read_with(exchange).await?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&rest).await?;
    }
}

/// Reads once and sends it back. Returns how much was read, and what of it could not be sent.
fn exchange(mut stream: &TcpStream) -> io::Result<(usize, Vec<u8>)> {
    BUFFER.with_borrow_mut(|buffer| {
        let read = stream.read(buffer)?;
        if read == 0 {
            return Ok((0, Vec::new()));
        }
        let sent = match stream.write(&buffer[..read]) {
            // It must not look as if the read would block: its bytes are no longer in the kernel.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            sent => sent?,
        };
        Ok((read, buffer[sent..read].to_vec()))
    })
}

async fn send(stream: &Async<TcpStream>, answer: u64) -> io::Result<()> {
    let mut sent = 0;
    while sent < answer {
        sent += stream.write_with(|mut stream| stream.write(piece(sent, answer))).await? as u64;
    }
    Ok(())
}

/// Reads into a buffer that all tasks share. Returns how much was read.
async fn skip(stream: &Async<TcpStream>) -> io::Result<usize> {
    stream.read_with(|mut stream| BUFFER.with_borrow_mut(|buffer| stream.read(buffer))).await
}
