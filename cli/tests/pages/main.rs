//! Commands that print and use no network of others: lessons, states, runs on the simulated
//! network, manual pages, help, and mistakes in the arguments.

#[path = "../common/mod.rs"]
mod common;
mod lesson;
mod sim;
mod states;
mod usage;
