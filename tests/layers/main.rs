//! What is built on the public API of the reactor: pipes, pools, shards and inboxes.

mod dead_pipe;
mod kernel_pipes;
mod pipe;
mod pool;
mod pool_edges;
mod pool_herd;
mod pool_leases;
mod pool_losses;
mod pool_random;
mod pool_scene;
mod pool_unused;
mod shards;
mod silent_pipe;
mod splice;
