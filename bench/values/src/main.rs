//! Compares the CPU time per command of the two stores, in interleaved rounds. The servers run on
//! the first core; start this program on another one.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use clap::Parser;

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
            let [set, get] = Store::start(&folder.join(program), arguments)?.measure(&args)?;
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

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A running server. It ends with this value.
struct Store {
    process: Child,
    addr: SocketAddr,
}

impl Drop for Store {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Store {
    fn start(program: &Path, arguments: &[&str]) -> io::Result<Self> {
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(program).args(arguments).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut line)?;
        let addr = line.trim_end().strip_prefix("listening on ").and_then(|addr| addr.parse().ok());
        let addr = addr.ok_or_else(|| wrong(format!("{} printed {line:?}", program.display())))?;
        Ok(Self { process, addr })
    }

    /// Microseconds of CPU time per SET and per GET.
    fn measure(&self, args: &Args) -> io::Result<[f64; 2]> {
        let clients = (0..args.connections).map(|_| TcpStream::connect(self.addr));
        let clients = clients.collect::<io::Result<Vec<_>>>()?;
        clients.iter().try_for_each(|client| client.set_nodelay(true))?;
        let mut times = [0.0; 2];
        let value = |round: usize, client: usize| vec![(round * 31 + client) as u8; args.bytes];
        for (kind, time) in times.iter_mut().enumerate() {
            let before = self.cpu_ns()?;
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
            *time = (self.cpu_ns()? - before) as f64 / 1e3 / (args.commands * args.connections) as f64;
        }
        Ok(times)
    }

    /// The CPU time of the server, which has one thread.
    fn cpu_ns(&self) -> io::Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/schedstat", self.process.id()))?;
        let time = stat.split(' ').next().and_then(|time| time.parse().ok());
        time.ok_or_else(|| wrong(format!("the kernel counts no time: {stat:?}")))
    }
}

fn wrong(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
