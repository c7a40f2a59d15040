//! Compares the CPU time of two proxies, in interleaved rounds: per MiB of long streams, and per
//! conversation of 64 bytes. The proxies run on the first core; start this program on another one.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;

use clap::Parser;
use finale_load::pinned::{Pinned, median, wrong};

const MIB: usize = 1 << 20;

/// Compares the CPU time that a proxy on finale and one on tokio need.
#[derive(Parser)]
struct Args {
    /// How often each proxy is measured
    #[arg(long, default_value_t = 5, value_name = "N")]
    rounds: usize,
    /// MiB that each proxy moves per cell and round
    #[arg(long, default_value_t = 1024, value_name = "N")]
    mib: usize,
    /// Further proxies, each started as PROGRAM LISTEN BACKEND
    #[arg(long, value_name = "PROGRAM")]
    other: Vec<PathBuf>,
}

/// What is measured: a name, and the load.
const CELLS: &[(&str, Load)] = &[
    ("1 MiB", Load::Streams { pairs: 1, mib: 1 }),
    ("16 MiB", Load::Streams { pairs: 1, mib: 16 }),
    ("1 GiB", Load::Streams { pairs: 1, mib: 1024 }),
    ("50 x 1 MiB", Load::Streams { pairs: 50, mib: 1 }),
    ("50 x 16 MiB", Load::Streams { pairs: 50, mib: 16 }),
    ("64 B, new", Load::Conversations { count: 4000 }),
    ("64 B, open", Load::RoundTrips { count: 20_000, bytes: 64 }),
    ("16 KiB, open", Load::RoundTrips { count: 10_000, bytes: 16_384 }),
    ("64 KiB, open", Load::RoundTrips { count: 5_000, bytes: 65_536 }),
];

#[derive(Clone, Copy)]
enum Load {
    /// Streams of this size, this many at once.
    Streams { pairs: usize, mib: usize },
    /// Connections with 64 bytes and a half-close in each direction, one at a time.
    Conversations { count: usize },
    /// Round trips on one connection.
    RoundTrips { count: usize, bytes: usize },
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let folder = std::env::current_exe()?;
    let folder = folder.parent().expect("a program is in a folder");
    let mut proxies = vec![
        ("finale".to_owned(), folder.join("bulk-finale"), None),
        ("tokio, 64 KiB".to_owned(), folder.join("bulk-tokio"), Some("65536")),
        ("tokio".to_owned(), folder.join("bulk-tokio"), None),
    ];
    for other in &args.other {
        proxies.insert(1, (other.display().to_string(), other.clone(), None));
    }
    let mut times = vec![vec![Vec::new(); CELLS.len()]; proxies.len()];
    for _ in 0..args.rounds {
        for (cell, &(_, load)) in CELLS.iter().enumerate() {
            for ((_, program, argument), times) in proxies.iter().zip(&mut times) {
                times[cell].push(measure(program, *argument, load, args.mib)?);
            }
        }
    }
    println!("CPU time of the proxy, median of {} rounds: ms per MiB, us per conversation or round trip;", args.rounds);
    println!("in brackets the median of its ratio to the last row in the same round");
    println!("{:<16}{}", "", CELLS.iter().map(|(name, _)| format!("{name:>18}")).collect::<String>());
    let last = times.last().expect("there are proxies");
    for ((name, ..), kinds) in proxies.iter().zip(&times) {
        let cells = kinds.iter().zip(last).map(|(times, last)| {
            let ratios = times.iter().zip(last).map(|(time, last)| time / last).collect();
            format!("{:>11.3} ({:.2})", median(times.clone()), median(ratios))
        });
        println!(
            "{:<16}{}",
            name.chars().rev().take(15).collect::<String>().chars().rev().collect::<String>(),
            cells.collect::<String>()
        );
    }
    Ok(())
}

/// The CPU time of a proxy under a load.
fn measure(program: &Path, argument: Option<&str>, load: Load, total_mib: usize) -> io::Result<f64> {
    let backend = TcpListener::bind("127.0.0.1:0")?;
    let back = backend.local_addr()?.to_string();
    let proxy = Pinned::start(program, ["127.0.0.1:0", &back].into_iter().chain(argument))?;
    let (per, unit) = match load {
        Load::Streams { mib, .. } => ((total_mib / mib).max(1) * mib, 1e6),
        Load::Conversations { count } | Load::RoundTrips { count, .. } => (count, 1e3),
    };
    // The first connection starts what is lazy.
    conversation(&backend, proxy.addr, 1, 64)?;
    let before = proxy.cpu_ns()?;
    match load {
        Load::Streams { pairs, mib } => streams(&backend, proxy.addr, pairs, mib, per / mib)?,
        Load::Conversations { count } => (0..count).try_for_each(|_| conversation(&backend, proxy.addr, 1, 64))?,
        Load::RoundTrips { count, bytes } => conversation(&backend, proxy.addr, count, bytes)?,
    }
    Ok((proxy.cpu_ns()? - before) as f64 / unit / per as f64)
}

/// Sends `count` streams, `pairs` at once, and reads them at the other side of the proxy.
fn streams(backend: &TcpListener, proxy: SocketAddr, pairs: usize, mib: usize, count: usize) -> io::Result<()> {
    let pieces = vec![0x5a_u8; 256 * 1024];
    let send = |streams: usize| -> io::Result<()> {
        for _ in 0..streams {
            let mut client = TcpStream::connect(proxy)?;
            (0..mib * MIB / pieces.len()).try_for_each(|_| client.write_all(&pieces))?;
            client.shutdown(Shutdown::Write)?;
            // The end of the other direction: the backend has everything.
            client
                .read_exact(&mut [0; 1])
                .map_or_else(|error| expect_end(&error), |()| Err(wrong("a byte".to_owned())))?;
        }
        Ok(())
    };
    let receive = |mut stream: TcpStream| -> io::Result<()> {
        let (mut buffer, mut received) = (vec![0; 256 * 1024], 0);
        loop {
            match stream.read(&mut buffer)? {
                0 => break,
                bytes => received += bytes,
            }
        }
        if received == mib * MIB { Ok(()) } else { Err(wrong(format!("{received} bytes of {mib} MiB"))) }
    };
    thread::scope(|scope| {
        let senders: Vec<_> =
            (0..pairs).map(|pair| (count + pair) / pairs).map(|streams| scope.spawn(move || send(streams))).collect();
        let accept = || backend.accept().map(|(stream, _)| scope.spawn(move || receive(stream)));
        let receivers = (0..count).map(|_| accept()).collect::<io::Result<Vec<_>>>()?;
        let mut threads = senders.into_iter().chain(receivers);
        threads.try_for_each(|thread| thread.join().map_err(|_| wrong("a panic".to_owned()))?)
    })
}

fn expect_end(error: &io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::UnexpectedEof { Ok(()) } else { Err(wrong(error.to_string())) }
}

/// Round trips on one connection, and the two half-closes.
fn conversation(backend: &TcpListener, proxy: SocketAddr, rounds: usize, size: usize) -> io::Result<()> {
    let (message, mut bytes) = (vec![1; size], vec![0; size]);
    let mut client = TcpStream::connect(proxy)?;
    client.set_nodelay(true)?;
    client.write_all(&message)?;
    let (mut server, _) = backend.accept()?;
    server.set_nodelay(true)?;
    for round in 0..rounds {
        if round > 0 {
            client.write_all(&message)?;
        }
        server.read_exact(&mut bytes)?;
        server.write_all(&bytes)?;
        client.read_exact(&mut bytes)?;
    }
    client.shutdown(Shutdown::Write)?;
    let at_end = |mut stream: &TcpStream| match stream.read(&mut [0; 1])? {
        0 => Ok(()),
        _ => Err(wrong("a byte too many".to_owned())),
    };
    at_end(&server)?;
    drop(server);
    at_end(&client)
}
