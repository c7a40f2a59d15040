//! One connection, from its address to its ending, on real sockets where Linux can show it.

mod addresses;
mod connecting;
mod endings;
mod held_back_ack;
mod lookups;
mod paused;
mod racing;
mod slow_readers;
mod timers;
mod unix;
mod writing;
