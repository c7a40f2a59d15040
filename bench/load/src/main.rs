//! The clients for measuring. Each prints one line that ends in `N failed`, and exits with 1 if any did.
//!
//! `load half-close ADDR CONNECTIONS IN_FLIGHT REQUEST ANSWER [client|server]`: the last is the
//! side that finishes first
//! `load echo ADDR CONNECTIONS ROUNDS BYTES`
//! `load idle ADDR COUNT`: prints `holding COUNT`, and ends when its stdin ends

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use finale_load::echo::{Echo, LARGEST_BYTES};
use finale_load::half_close::{First, HalfClose};
use finale_load::idle::Idle;
use finale_load::{Summary, raise_descriptor_limit};

const USAGE: &str = "usage: load half-close ADDR CONNECTIONS IN_FLIGHT REQUEST ANSWER [client|server]
       load echo ADDR CONNECTIONS ROUNDS BYTES    (up to 65536 bytes)
       load idle ADDR COUNT                       (until stdin ends)";

enum Load {
    HalfClose(HalfClose),
    Echo(Echo),
    Idle { addr: std::net::SocketAddr, count: u64 },
}

fn main() -> io::Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(load) = parse(&args.iter().map(String::as_str).collect::<Vec<_>>()) else {
        eprintln!("{USAGE}");
        return Ok(ExitCode::from(2));
    };
    raise_descriptor_limit()?;
    let summary = match load {
        Load::HalfClose(load) => load.run(),
        Load::Echo(load) => load.run(),
        Load::Idle { addr, count } => hold(Idle::open(addr, count))?,
    };
    if let Some(why) = &summary.why {
        eprintln!("{why}");
    }
    println!("{summary}");
    Ok(ExitCode::from(u8::from(summary.failed > 0)))
}

fn parse(args: &[&str]) -> Option<Load> {
    let load = match args {
        ["half-close", addr, connections, in_flight, request, answer, first @ ..] => Load::HalfClose(HalfClose {
            addr: addr.parse().ok()?,
            connections: connections.parse().ok()?,
            in_flight: in_flight.parse().ok().filter(|in_flight| *in_flight > 0)?,
            request: request.parse().ok()?,
            answer: answer.parse().ok()?,
            first: match first {
                [] | ["client"] => First::Client,
                ["server"] => First::Server,
                _ => return None,
            },
        }),
        ["echo", addr, connections, rounds, bytes] => Load::Echo(Echo {
            addr: addr.parse().ok()?,
            connections: connections.parse().ok()?,
            rounds: rounds.parse().ok()?,
            bytes: bytes.parse().ok().filter(|bytes| *bytes <= LARGEST_BYTES)?,
        }),
        ["idle", addr, count] => Load::Idle { addr: addr.parse().ok()?, count: count.parse().ok()? },
        _ => return None,
    };
    Some(load)
}

fn hold(idle: Idle) -> io::Result<Summary> {
    let mut out = io::stdout().lock();
    writeln!(out, "holding {}", idle.len())?;
    out.flush()?;
    io::stdin().lock().read_to_end(&mut Vec::new())?;
    Ok(idle.leave())
}
