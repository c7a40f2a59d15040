//! The programs of the book in docs/book. Each file is complete, and here they are one program, so
//! that they are linked once. Run one: `cargo run --example book -- first`.

mod backpressure;
mod events;
mod first;
mod half_open;
mod limits;
mod mistakes;
mod misuse;
mod pool;
mod unread;
mod ways;

use std::process::ExitCode;

type Main = fn() -> Result<(), finale::Error>;

const PROGRAMS: &[(&str, Main)] = &[
    ("backpressure", backpressure::main),
    ("events", events::main),
    ("first", first::main),
    ("half_open", half_open::main),
    ("limits", limits::main),
    ("mistakes", mistakes::main),
    ("misuse", misuse::main),
    ("pool", pool::main),
    ("unread", unread::main),
    ("ways", ways::main),
];

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let Some((_, main)) = PROGRAMS.iter().find(|(known, _)| *known == name) else {
        let names: Vec<_> = PROGRAMS.iter().map(|(name, _)| *name).collect();
        eprintln!("book: which program? {}", names.join(", "));
        return ExitCode::from(2);
    };
    match main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
