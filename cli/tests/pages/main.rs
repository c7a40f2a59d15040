//! Commands that only print: lessons, states, runs on the simulated network, manual pages, help, and
//! mistakes in the arguments. Also the layers of the source, and the output that the book shows.

#[path = "../common/mod.rs"]
mod common;

mod book;
mod layers;
mod lesson;
mod sim;
mod states;
mod trace;
mod usage;
