//! Compares the CPU time per command of the two stores, in interleaved rounds. The servers run on
//! the first core; start this program on another one.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

use clap::Parser;
use finale_load::pinned::{Pinned, median, wrong};

/// The contestants: a name, the program, its arguments.
const STORES: &[(&str, &str, &[&str])] = &[
    ("finale, 4 KiB", "values-finale", &["4096"]),
    ("finale, 64 KiB", "values-finale", &["65536"]),
    ("tokio, 4 KiB", "values-tokio", &["4096"]),
    ("tokio, 128 KiB", "values-tokio", &["131072"]),
];

/// Compares the CPU time that a store on finale and one on tokio need per command.
#[derive(Parser)]
struct Args {
    /// How often each store is measured
    #[arg(long, default_value_t = 9, value_name = "N")]
    rounds: usize,
    /// Bytes of a value
    #[arg(long, default_value_t = 65_536, value_name = "N")]
    bytes: usize,
    /// Connections, each with one command in flight
    #[arg(long, default_value_t = 16, value_name = "N")]
    connections: usize,
    /// Commands of each kind per connection and round
    #[arg(long, default_value_t = 500, value_name = "N")]
    commands: usize,
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let folder = std::env::current_exe()?;
    let folder = folder.parent().expect("a program is in a folder");
    let mut times = vec![[Vec::new(), Vec::new()]; STORES.len()];
    for _ in 0..args.rounds {
        for (&(_, program, arguments), [sets, gets]) in STORES.iter().zip(&mut times) {
            let [set, get] = measure(&Pinned::start(&folder.join(program), arguments)?, &args)?;
            sets.push(set);
            gets.push(get);
        }
    }
    println!("CPU time of the server per command with {} bytes, median of {} rounds;", args.bytes, args.rounds);
    println!("in brackets the median of its ratio to the last row in the same round");
    println!("{:<16}{:>18}{:>18}", "", "SET", "GET");
    let last = times.last().expect("there are stores");
    for (&(name, ..), kinds) in STORES.iter().zip(&times) {
        let cells = kinds.iter().zip(last).map(|(times, last)| {
            let ratios = times.iter().zip(last).map(|(time, last)| time / last).collect();
            format!("{:>9.2} us ({:.2})", median(times.clone()), median(ratios))
        });
        println!("{name:<16}{}", cells.collect::<String>());
    }
    Ok(())
}

/// Microseconds of CPU time per SET and per GET.
fn measure(store: &Pinned, args: &Args) -> io::Result<[f64; 2]> {
    let clients = (0..args.connections).map(|_| TcpStream::connect(store.addr));
    let clients = clients.collect::<io::Result<Vec<_>>>()?;
    clients.iter().try_for_each(|client| client.set_nodelay(true))?;
    let mut times = [0.0; 2];
    let value = |round: usize, client: usize| vec![(round * 31 + client) as u8; args.bytes];
    for (kind, time) in times.iter_mut().enumerate() {
        let before = store.cpu_ns()?;
        for round in 0..args.commands {
            for (number, mut client) in clients.iter().enumerate() {
                let mut request = match kind {
                    0 => format!("SET value{number} {}\n", args.bytes).into_bytes(),
                    _ => format!("GET value{number}\n").into_bytes(),
                };
                if kind == 0 {
                    request.extend(value(round, number));
                }
                client.write_all(&request)?;
            }
            for (number, mut client) in clients.iter().enumerate() {
                let mut expected = b"OK\n".to_vec();
                if kind == 1 {
                    expected = format!("{}\n", args.bytes).into_bytes();
                    expected.extend(value(args.commands - 1, number));
                }
                let mut answer = vec![0; expected.len()];
                client.read_exact(&mut answer)?;
                (answer == expected).then_some(()).ok_or_else(|| wrong("a wrong answer".to_owned()))?;
            }
        }
        *time = (store.cpu_ns()? - before) as f64 / 1e3 / (args.commands * args.connections) as f64;
    }
    Ok(times)
}
