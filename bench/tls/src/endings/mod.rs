//! What programs report about how a TLS stream ended: a table of what a peer does, and what each
//! program says about it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

mod behaviour;
mod case;
mod own;
mod page;
mod peer;
mod program;
mod records;
mod run;
mod short;

/// Ends TLS streams in every way, and writes what programs report about that.
#[derive(Parser)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs all cases, and writes the page
    Run {
        /// The page to write; without it, it is printed
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Only programs whose name contains this
        #[arg(long, value_name = "TEXT", default_value = "")]
        program: String,
        /// Only behaviours whose words contain this
        #[arg(long, value_name = "TEXT", default_value = "")]
        behaviour: String,
    },
    /// A client that is compared
    #[command(hide = true)]
    Client {
        library: Library,
        addr: SocketAddr,
        folder: PathBuf,
        #[arg(long)]
        half_close: bool,
    },
    /// A server that is compared, for one connection
    #[command(hide = true)]
    Server { library: Library, folder: PathBuf },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Library {
    Tokio,
    Finale,
}

/// Runs a command.
///
/// # Errors
/// If the system can't do it.
pub fn run(args: Args) -> io::Result<()> {
    match args.command {
        Command::Run { output, program, behaviour } => run::run(output.as_deref(), &program, &behaviour),
        Command::Client { library: Library::Tokio, addr, folder, half_close } => {
            own::tokio_client(addr, &folder, half_close)
        }
        Command::Client { library: Library::Finale, addr, folder, half_close } => {
            own::finale_client(addr, &folder, half_close)
        }
        Command::Server { library: Library::Tokio, folder } => own::tokio_server(&folder),
        Command::Server { library: Library::Finale, folder } => own::finale_server(&folder),
    }
}
