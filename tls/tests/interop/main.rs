//! finale-tls with other implementations, in both roles and versions: clean ends, half-closes and
//! truncations. A program that is not installed is skipped with a line.

mod clients;
mod programs;
mod servers;
mod stage;
