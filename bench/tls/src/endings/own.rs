//! The programs in Rust that are compared: a client and a server each, which print what they
//! report.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use finale::{ConnectOptions, Event, ListenOptions, Reactor, Stream as _};
use finale_tls::Tls;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::behaviour::{ANSWER, REQUEST};
use crate::config::other;

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn report(result: io::Result<String>) -> io::Result<()> {
    let words = result.unwrap_or_else(|error| format!("error ({:?}: {error})", error.kind()));
    let mut out = io::stdout().lock();
    writeln!(out, "\nreport: {words}")
}

/// A client on tokio-rustls.
pub(super) fn tokio_client(addr: SocketAddr, folder: &Path, half_close: bool) -> io::Result<()> {
    let connector = TlsConnector::from(Arc::new(crate::config::client(folder)?));
    let conversation = async {
        let stream = TcpStream::connect(addr).await?;
        let name = ServerName::try_from("localhost").map_err(other)?;
        let mut stream = connector.connect(name, stream).await?;
        stream.write_all(REQUEST).await?;
        stream.flush().await?;
        if half_close {
            stream.shutdown().await?;
        }
        read_to_end(&mut stream).await
    };
    report(runtime()?.block_on(conversation))
}

/// A server on tokio-rustls for one connection.
pub(super) fn tokio_server(folder: &Path) -> io::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(crate::config::server(folder)?));
    let conversation = async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on {}", listener.local_addr()?);
        let (stream, _) = listener.accept().await?;
        let mut stream = acceptor.accept(stream).await?;
        let words = read_to_end(&mut stream).await?;
        let answer = async {
            stream.write_all(ANSWER.as_bytes()).await?;
            stream.shutdown().await
        };
        Ok(match answer.await {
            Ok(()) => words,
            Err(error) => format!("{words}, then for the answer: {error}"),
        })
    };
    report(runtime()?.block_on(conversation))
}

async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut buffer = vec![0; 65_536];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok("read returned 0".to_owned()),
            read => io::stdout().write_all(&buffer[..read])?,
        }
    }
}

/// A client on finale-tls.
pub(super) fn finale_client(addr: SocketAddr, folder: &Path, half_close: bool) -> io::Result<()> {
    let config = Arc::new(crate::config::client(folder)?);
    let name = ServerName::try_from("localhost").map_err(other)?;
    let (mut reactor, mut tls) = (Reactor::new().map_err(other)?, Tls::new());
    tls.connect(&mut reactor.context(), addr, ConnectOptions::default(), &config, name).map_err(other)?;
    converse(reactor, tls, &Role::Client { half_close })
}

/// A server on finale-tls for one connection.
pub(super) fn finale_server(folder: &Path) -> io::Result<()> {
    let config = Arc::new(crate::config::server(folder)?);
    let (mut reactor, mut tls) = (Reactor::new().map_err(other)?, Tls::new());
    let listener = reactor.listen("127.0.0.1:0", ListenOptions::default()).map_err(other)?;
    tls.accept_on(listener.id, &config).map_err(other)?;
    println!("listening on {}", listener.addr);
    converse(reactor, tls, &Role::Server)
}

enum Role {
    Client { half_close: bool },
    Server,
}

/// What happened so far. It is printed after each event, and the last line counts.
#[derive(Default)]
struct Events(Vec<String>);

impl Events {
    fn note(&mut self, event: String) -> io::Result<()> {
        self.0.push(event);
        report(Ok(self.0.join(", ")))
    }
}

/// Runs until the connection is closed.
fn converse(mut reactor: Reactor, mut tls: Tls, role: &Role) -> io::Result<()> {
    let mut seen = Events::default();
    while let Some((mut socket, event)) = reactor.next().map_err(other)? {
        let mut events = tls.handle(&mut socket, event);
        while let Some((mut socket, event)) = events.next() {
            match event {
                Event::Ready => {
                    if let Role::Client { half_close } = role {
                        drop(socket.write(REQUEST));
                        half_close.then(|| socket.end());
                    }
                }
                Event::Data(bytes) => io::stdout().write_all(bytes)?,
                Event::End => {
                    seen.note("end".to_owned())?;
                    if matches!(role, Role::Server) {
                        drop(socket.write(ANSWER.as_bytes()));
                    }
                    socket.end();
                }
                Event::Error(error) => seen.note(format!("error ({error})"))?,
                Event::Close(ending) => return seen.note(format!("close ({ending})")),
                _ => {}
            }
        }
    }
    Ok(())
}
