//! Tests that need a process of their own: they count its descriptors, lower its limits, or change its network.

use std::env;
use std::process::{Command, Stdio};

const INSIDE: &str = "FINALE_TEST_ALONE";

/// Runs `body` in a process in which no other test runs: this test again, by its name.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    if is_inside(test) {
        return body();
    }
    let this = env::current_exe().expect("a test knows its own program");
    run(test, Command::new(this));
}

/// Likewise, in a network of its own, in which only loopback exists and packets can be dropped. Where that is not
/// allowed, says so and passes.
pub(crate) fn alone_in_a_network(test: &str, body: impl FnOnce()) {
    if is_inside(test) {
        shell("ip link set lo up");
        return body();
    }
    let probe = "unshare -n sh -c 'ip link set lo up && nft add table ip probe'";
    let possible = Command::new("sh").args(["-c", probe]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !possible.is_ok_and(|status| status.success()) {
        println!("skipped: {test} needs root, unshare, ip and nft");
        return;
    }
    let mut command = Command::new("unshare");
    command.arg("-n").arg(env::current_exe().expect("a test knows its own program"));
    run(test, command);
}

fn is_inside(test: &str) -> bool {
    env::var(INSIDE).is_ok_and(|inside| inside == test)
}

fn run(test: &str, mut command: Command) {
    let output = command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, test)
        .output()
        .expect("a program that runs once runs twice");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "alone:\n{text}");
    assert!(text.contains("1 passed"), "the test did not find itself by its name {test}:\n{text}");
}

/// Runs one command line, which must succeed.
pub(crate) fn shell(line: &str) {
    let output = Command::new("sh").args(["-c", line]).output().expect("a shell");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}
