//! The server as tokio's users write it: one task per connection, on the current-thread runtime
//! (the others here have one thread too), without timers or any other feature that a connection
//! would pay for.
//!
//! Fair, because it takes what makes tokio fast: fat LTO, options inherited from the listener,
//! reads through `poll_read` (a short read clears the readiness, so that no read is made in vain),
//! tasks that hold no buffer while they wait, and no shutdown(2) where dropping the stream sends
//! the FIN just as well, that is, after the client's own FIN.
//!
//! `tokio-server answer BYTES | first REQUEST ANSWER | echo`

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use finale_load::answer::{PIECE_BYTES, piece};
use finale_peers::server::{Mode, announce, listen};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Long enough that something may have been closed, short enough that no client's connect times
/// out.
const REST: Duration = Duration::from_millis(10);

thread_local! {
    /// For bytes that are ignored.
    static BIN: RefCell<Vec<u8>> = RefCell::new(vec![0; PIECE_BYTES]);
}

fn main() -> io::Result<()> {
    let mode = Mode::from_args();
    let listener = listen()?;
    announce(&listener)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(accept(listener, mode))
}

async fn accept(listener: std::net::TcpListener, mode: Mode) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            // Three kinds of tasks, so that each is only as large as its own service needs.
            Ok((stream, _)) => drop(match mode {
                Mode::Answer { answer } => tokio::spawn(finish_last(stream, answer)),
                Mode::First { request, answer } => tokio::spawn(finish_first(stream, request, answer)),
                Mode::Echo => tokio::spawn(echo(stream)),
            }),
            // Usually out of descriptors; mini-redis backs off as well.
            Err(_) => tokio::time::sleep(REST).await,
        }
    }
}

async fn finish_last(mut stream: TcpStream, answer: u64) -> io::Result<()> {
    while skip(&mut stream).await? > 0 {}
    send(&mut stream, answer).await
}

async fn finish_first(mut stream: TcpStream, request: u64, answer: u64) -> io::Result<()> {
    let mut received = 0;
    while received < request {
        match skip(&mut stream).await? {
            0 => return Ok(()),
            read => received += read as u64,
        }
    }
    send(&mut stream, answer).await?;
    stream.shutdown().await?;
    while skip(&mut stream).await? > 0 {}
    Ok(())
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read]).await?,
        }
    }
}

async fn send(stream: &mut TcpStream, answer: u64) -> io::Result<()> {
    let mut sent = 0;
    while sent < answer {
        sent += stream.write(piece(sent, answer)).await? as u64;
    }
    Ok(())
}

/// Reads into a buffer that all tasks share. Returns how much was read.
async fn skip(stream: &mut TcpStream) -> io::Result<usize> {
    poll_fn(|context| {
        BIN.with_borrow_mut(|bin| {
            let mut buffer = ReadBuf::new(bin);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
            Poll::Ready(Ok(buffer.filled().len()))
        })
    })
    .await
}
