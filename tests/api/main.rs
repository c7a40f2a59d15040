//! The public interface as a whole: arbitrary calls, what a handler can do, the numbers that a
//! reactor keeps, and the optional features.

mod arbitrary_calls;
mod features;
mod handlers;
mod metrics;
