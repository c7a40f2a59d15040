//! The shipped reactor on the simulated network, where a whole run needs neither a clock nor a
//! real socket: random runs, endings that loopback can't show, and `finale::check::Endings`.

mod cases;
mod conditions;
mod endings;
mod every_ending;
mod fair_rules;
mod filling;
mod from_the_lab;
mod handlers;
mod pooled;
mod random_runs;
mod total_deadline;
mod whole_programs;
