//! Ends TLS streams in every way, and writes what programs report about that.

use clap::Parser as _;
use finale_bench_tls::endings::{Args, run};

fn main() -> std::io::Result<()> {
    run(Args::parse())
}
