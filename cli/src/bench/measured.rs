//! The result of a run, from which the page and the JSON object are made.

use std::time::Duration;

use super::load::Plan;
use super::tally::Tally;

/// The load, and what it has cost.
pub(super) struct Measured<'a> {
    pub(super) plan: &'a Plan,
    pub(super) rate: Option<u32>,
    pub(super) tally: &'a Tally,
    /// How our own server was started.
    pub(super) server: Option<&'a str>,
    /// Per connection, or why it is unknown.
    pub(super) server_cpu: Result<Duration, String>,
    pub(super) client_cpu: Result<Duration, String>,
}
