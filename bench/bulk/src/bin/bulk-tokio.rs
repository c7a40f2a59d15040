//! The proxy on tokio: `copy_bidirectional` in one task per client, on the current-thread runtime.
//!
//! Fair, because that is the function that its documentation names for a proxy, and TCP_NODELAY is
//! set on both sides as in finale's default. `bulk-tokio LISTEN BACKEND [BUFFER_BYTES]`: the size
//! of the two buffers of a client, 8 KiB as in `copy_bidirectional` if it is left out.

use std::io;
use std::net::SocketAddr;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let addr = |at: usize| words.get(at).and_then(|word| word.parse::<SocketAddr>().ok());
    let (Some(front), Some(back)) = (addr(0), addr(1)) else {
        eprintln!("usage: bulk-tokio LISTEN BACKEND [BUFFER_BYTES]");
        std::process::exit(2)
    };
    let buffer_bytes = words.get(2).and_then(|word| word.parse().ok()).unwrap_or(8 * 1024);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(front).await?;
        println!("listening on {}", listener.local_addr()?);
        loop {
            let (client, _) = listener.accept().await?;
            tokio::task::spawn_local(serve(client, back, buffer_bytes));
        }
    })
}

async fn serve(mut client: TcpStream, back: SocketAddr, buffer_bytes: usize) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut backend = TcpStream::connect(back).await?;
    backend.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut client, &mut backend, buffer_bytes, buffer_bytes).await?;
    Ok(())
}
