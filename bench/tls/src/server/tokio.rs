//! tokio-rustls as its users write it: one task per connection, on the current-thread runtime.
//!
//! Fair, because tasks read into one buffer of the thread and hold none while they wait, and
//! nothing has a timer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::service::{PIECE_BYTES, Service};

/// Long enough that something may have been closed, short enough that no client's connect times
/// out.
const REST: Duration = Duration::from_millis(10);

thread_local! {
    /// Plaintext of all connections.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; PIECE_BYTES]);
}

pub(super) fn run(listener: std::net::TcpListener, config: Arc<ServerConfig>) -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(accept(listener, config))
}

async fn accept(listener: std::net::TcpListener, config: Arc<ServerConfig>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let acceptor = TlsAcceptor::from(config);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(acceptor.clone(), stream))),
            // Usually out of descriptors.
            Err(_) => tokio::time::sleep(REST).await,
        }
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut service = Service::default();
    while receive(&mut stream, &mut service).await? > 0 {
        while !service.piece().is_empty() {
            let taken = stream.write(service.piece()).await?;
            service.sent(taken);
        }
        stream.flush().await?;
    }
    stream.shutdown().await
}

/// Reads into the buffer that all tasks share. Returns how much was read.
async fn receive(stream: &mut TlsStream<TcpStream>, service: &mut Service) -> io::Result<usize> {
    poll_fn(|context| {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
            service.receive(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    })
    .await
}
