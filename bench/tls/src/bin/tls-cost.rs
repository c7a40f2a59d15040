//! Compares what TLS costs on several event loops.

use clap::Parser as _;
use finale_bench_tls::cost::{Args, run};

fn main() -> std::io::Result<()> {
    run(&Args::parse())
}
