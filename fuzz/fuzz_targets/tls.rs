//! Bytes as a peer of a TLS stream and a program: the scripts of `tls/tests/streams/arbitrary.rs`,
//! guided by coverage instead of random.

#![no_main]
#![allow(dead_code, unused_imports, unreachable_pub)]

#[path = "../../tls/tests/streams/arbitrary.rs"]
mod arbitrary;
#[path = "../../tls/tests/streams/constant.rs"]
mod constant;
#[path = "../../tls/tests/streams/forge.rs"]
mod forge;
#[path = "../../tls/tests/streams/scene.rs"]
mod scene;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| arbitrary::play(data));
