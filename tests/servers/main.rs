//! What a server needs around its connections, and what peers and machines do to it.

mod abuse;
mod farewells;
mod listeners;
