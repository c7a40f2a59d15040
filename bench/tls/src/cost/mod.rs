//! What TLS costs on each event loop: CPU time of the server per handshake and per MiB, memory per
//! idle connection, instructions. The rounds are interleaved: each contestant once, then again.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};

mod environment;
mod load;
mod measure;
mod page;

pub(crate) use environment::version;

/// Compares TLS servers, and writes a page with the tables.
#[derive(Parser)]
pub struct Args {
    /// How often each server is measured
    #[arg(long, default_value_t = 31, value_name = "N")]
    pub rounds: usize,
    /// Handshakes per round
    #[arg(long, default_value_t = 300, value_name = "N")]
    pub handshakes: usize,
    /// MiB per direction and round
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub mib: u64,
    /// What is measured
    #[arg(long, value_delimiter = ',', default_values = ["time", "idle", "instructions"])]
    pub only: Vec<Part>,
    /// Only servers whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub server: String,
    /// The page to write; without it the tables are printed
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// CPU time per handshake and per MiB
    Time,
    /// Memory per idle connection
    Idle,
    /// Instructions of the server in user space, by callgrind
    Instructions,
}

/// A server that is measured.
#[derive(Clone, Copy, Debug)]
struct Contestant {
    /// Its name on the page.
    name: &'static str,
    /// The program, next to this one.
    program: &'static str,
    /// The argument before the folder.
    kind: Option<&'static str>,
    /// Whether it speaks the protocol to its end, so that its CPU time can be compared.
    complete: bool,
    /// Whether callgrind counts what it does.
    counted: bool,
}

const CONTESTANTS: &[Contestant] = &[
    Contestant::rust("bare mio, buffered", "buffered"),
    Contestant::rust("bare mio, unbuffered", "unbuffered"),
    Contestant::rust("tokio-rustls", "tokio"),
    Contestant::rust("finale-tls, hand-off", "finale"),
    Contestant::rust("finale-tls, confirmed", "finale-confirmed"),
    Contestant { name: "Node", program: "node", kind: None, complete: true, counted: false },
    Contestant { name: "uSockets, OpenSSL", program: "usockets", kind: None, complete: false, counted: false },
];

impl Contestant {
    const fn rust(name: &'static str, kind: &'static str) -> Self {
        Self { name, program: "tls-server", kind: Some(kind), complete: true, counted: true }
    }
}

/// The figures of one contestant, one per round.
#[derive(Debug, Default)]
struct Figures {
    /// Microseconds per handshake, with a byte in each direction and both close_notify.
    handshake: Vec<f64>,
    /// Milliseconds per MiB.
    download: Vec<f64>,
    /// Milliseconds per MiB.
    upload: Vec<f64>,
    /// Bytes per idle connection: of the smaller number, of the larger number, and of the latter
    /// after an exchange.
    idle: [Vec<f64>; 3],
    /// Instructions per handshake, per KiB down, per KiB up.
    instructions: Option<[f64; 3]>,
}

/// Measures, and writes the page.
///
/// # Errors
/// If a server can't be started, a connection fails, or the page can't be written.
pub fn run(args: &Args) -> io::Result<()> {
    let folder = std::env::current_exe()?;
    let programs = folder.parent().expect("a program is in a folder");
    let certificate = std::env::temp_dir().join(format!("finale-bench-tls-{}", std::process::id()));
    std::fs::create_dir_all(&certificate)?;
    let result = compare(args, programs, &certificate);
    std::fs::remove_dir_all(&certificate)?;
    result
}

fn compare(args: &Args, programs: &Path, certificate: &Path) -> io::Result<()> {
    crate::config::write_certificate(certificate)?;
    finale_load::raise_descriptor_limit()?;
    let measure = measure::Measure::new(args, programs, certificate)?;
    let present = |one: &&Contestant| programs.join(one.program).exists() && one.name.contains(&args.server);
    let contestants: Vec<_> = CONTESTANTS.iter().filter(present).collect();
    let mut figures: Vec<Figures> = contestants.iter().map(|_| Figures::default()).collect();
    let before = environment::load();
    for round in 0..args.rounds {
        for (contestant, figures) in contestants.iter().zip(&mut figures) {
            eprintln!("round {}: {}", round + 1, contestant.name);
            if args.only.contains(&Part::Time) && contestant.complete {
                measure.time(contestant, figures)?;
            }
            if args.only.contains(&Part::Idle) && round < measure::IDLE_ROUNDS {
                measure.idle(contestant, figures)?;
            }
        }
    }
    if args.only.contains(&Part::Instructions) {
        for (contestant, figures) in contestants.iter().zip(&mut figures).filter(|(one, _)| one.counted) {
            eprintln!("instructions: {}", contestant.name);
            figures.instructions = Some(measure.instructions(contestant)?);
        }
    }
    let rows: Vec<_> = contestants.into_iter().zip(figures).collect();
    let page = page::write(args, &rows, &[before, environment::load()]);
    match &args.output {
        Some(file) => std::fs::write(file, page),
        None => {
            print!("{page}");
            Ok(())
        }
    }
}
