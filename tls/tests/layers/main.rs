//! `Pipes`, `Pool` and `Shards` of the library over TLS.

mod ends;
mod pipes;
mod pool;
mod shards;
mod stop;
