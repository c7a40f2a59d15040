//! The store on tokio: one task per connection, on the current-thread runtime.
//!
//! Fair, because it copies no value in user space: a read goes into the memory in which the value
//! stays (`BytesMut` is split, not copied), and an answer is one vectored write of the head and the
//! shared value. `values-tokio READ_BYTES` chooses the memory that is free before a command is read:
//! with 4,096, as in mini-redis, a connection is small and a value needs two reads; with more than a
//! value it needs one, and each connection has that memory.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use bytes::{Buf as _, Bytes, BytesMut};
use finale_peers::server::{announce, listen};
use finale_values::{Command, LINE_BYTES};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

type Values = Rc<RefCell<HashMap<Vec<u8>, Bytes>>>;

fn main() -> io::Result<()> {
    let read_bytes = std::env::args().nth(1).and_then(|bytes| bytes.parse().ok()).unwrap_or(4096);
    let listener = listen()?;
    announce(&listener)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::from_std(listener)?;
        let values = Values::default();
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::task::spawn_local(serve(stream, Rc::clone(&values), read_bytes));
        }
    })
}

async fn serve(mut stream: TcpStream, values: Values, read_bytes: usize) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(read_bytes);
    loop {
        let Some(end) = buffer.iter().position(|byte| *byte == b'\n') else {
            if buffer.len() > LINE_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
            buffer.reserve(read_bytes.saturating_sub(buffer.len()));
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let line = buffer.split_to(end + 1);
        match Command::parse(&line[..end]) {
            Some(Command::Set { name, bytes }) => {
                buffer.reserve(bytes.saturating_sub(buffer.len()));
                while buffer.len() < bytes {
                    if stream.read_buf(&mut buffer).await? == 0 {
                        return Ok(());
                    }
                }
                values.borrow_mut().insert(name.to_vec(), buffer.split_to(bytes).freeze());
                stream.write_all(b"OK\n").await?;
            }
            Some(Command::Get { name }) => {
                let Some(value) = values.borrow().get(name).cloned() else {
                    return Err(io::ErrorKind::NotFound.into());
                };
                let head = Bytes::from(format!("{}\n", value.len()));
                stream.write_all_buf(&mut head.chain(value)).await?;
            }
            None => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
