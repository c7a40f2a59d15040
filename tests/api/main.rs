//! The public interface as a whole: arbitrary calls, what a handler can do, the metrics of a
//! reactor, the traits of the public types, and the optional features.

mod arbitrary_calls;
mod features;
mod handlers;
mod metrics;
mod sockets;
mod traits;
