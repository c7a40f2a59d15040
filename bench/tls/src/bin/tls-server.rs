//! A TLS server on one of several event loops. It prints the address that it listens on.

use clap::Parser as _;
use finale_bench_tls::server::{Args, run};

fn main() -> std::io::Result<()> {
    run(&Args::parse())
}
