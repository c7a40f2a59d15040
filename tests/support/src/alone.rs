//! Tests that need their own process: they count its descriptors, lower its limits, or change its
//! network.

use std::env;
use std::process::{Command, Stdio};

const INSIDE: &str = "FINALE_TEST_ALONE";
const CONNECTIONS: &str = "FINALE_TEST_CONNECTIONS";

/// Runs `body` in a process in which no other test runs: this test again, by its name. If that is
/// allowed it also gets its own network: thousands of connections in TIME_WAIT would fill the
/// kernel's table for all other tests.
pub fn alone(test: &str, body: impl FnOnce()) {
    if is_inside(test) {
        return body();
    }
    run(test, &mut if is_possible("true") { in_a_network() } else { this_program() });
}

/// As [`alone`], for a test that opens many connections. `body` gets how many it may open: `many`
/// in its own network, and otherwise `few`, with a printed line.
pub fn alone_with_connections(test: &str, many: usize, few: usize, body: impl FnOnce(usize)) {
    if is_inside(test) {
        let count = env::var(CONNECTIONS).ok().and_then(|count| count.parse().ok());
        return body(count.expect("set by the process that has started this one"));
    }
    if is_possible("true") {
        return run(test, in_a_network().env(CONNECTIONS, many.to_string()));
    }
    println!("{test}: {few} connections instead of {many}, since a network of its own needs root, unshare and ip");
    run(test, this_program().env(CONNECTIONS, few.to_string()));
}

/// As [`alone`], and always in its own network (and view of the file system), in which packets can
/// be dropped and files mounted over. If that is not allowed, prints a line and passes.
pub fn alone_in_a_network(test: &str, body: impl FnOnce()) {
    alone_in_a_network_with("nft add table ip probe", test, body);
}

/// As [`alone_in_a_network`], in a network in which this command succeeds.
pub fn alone_in_a_network_with(command: &str, test: &str, body: impl FnOnce()) {
    if is_inside(test) {
        return body();
    }
    if !is_possible(command) {
        println!("skipped: {test} needs root, unshare, ip and: {command}");
        return;
    }
    run(test, &mut in_a_network());
}

/// As [`alone`], in a process that is started by another program, as `env` with its arguments. If
/// there is no such program, prints a line and passes.
pub fn alone_under(program: &[&str], test: &str, body: impl FnOnce()) {
    if is_inside(test) {
        return body();
    }
    let mut command = Command::new(program[0]);
    command.args(&program[1..]);
    let works = command.arg("true").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        println!("skipped: {test} needs {}", program.join(" "));
        return;
    }
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).arg(this_program().get_program());
    run(test, &mut command);
}

fn this_program() -> Command {
    Command::new(env::current_exe().expect("a test knows its own program"))
}

/// This program in a network that consists of loopback alone.
fn in_a_network() -> Command {
    let mut command = Command::new("unshare");
    command.args(["-nm", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]).arg(this_program().get_program());
    command
}

/// Whether this works in a network of its own.
fn is_possible(line: &str) -> bool {
    let probe = format!("ip link set lo up && {line}");
    let mut command = Command::new("unshare");
    let status = command.args(["-nm", "sh", "-c", &probe]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn is_inside(test: &str) -> bool {
    env::var(INSIDE).is_ok_and(|inside| inside == test)
}

fn run(test: &str, command: &mut Command) {
    let output = command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, test)
        // If a test has a silent name server, its lookups end soon.
        .env("RES_OPTIONS", "timeout:1 attempts:1")
        .output()
        .expect("a program that runs once runs twice");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "alone:\n{text}");
    text.lines().filter(|line| line.starts_with("skipped: ")).for_each(|line| println!("{line}"));
    assert!(text.contains("1 passed"), "the test did not find itself by its name {test}:\n{text}");
}

/// Runs one command line, which must succeed.
pub fn shell(line: &str) {
    let output = Command::new("sh").args(["-c", line]).output().expect("a shell");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}
