//! The zoo: small servers, each with one fault, and correct ones, some of which look suspicious.
//!
//!     zoo list                 the servers
//!     zoo serve NAME [PORT]    serves one of them, to try the probe on it
//!     zoo table [RUNS [NAME]]  probes all of them, or those whose name contains NAME, with all cases
//!     zoo show NAME [CASE..]   probes one of them, and prints what was found
//!     zoo page                 prints docs/zoo.md

mod answers;
mod bulk;
mod control;
mod correct;
mod deadlines;
mod deaths;
mod endings;
mod keeper;
mod kept;
mod odd;
mod punctual;
mod reading;
mod stops;
mod talkers;
mod tls;

use std::net::TcpListener;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["list"] => {
            for server in keeper::all() {
                println!("{:<24}{}", server.name, server.about);
            }
            ExitCode::SUCCESS
        }
        ["page"] => {
            print!("{}", keeper::page());
            ExitCode::SUCCESS
        }
        ["serve", name] => serve(name, "0"),
        ["serve", name, port] => serve(name, port),
        ["show", name, ref ids @ ..] => show(name, ids),
        ["table"] => table(1, ""),
        ["table", runs] => table(runs.parse().unwrap_or(1), ""),
        ["table", runs, name] => table(runs.parse().unwrap_or(1), name),
        _ => {
            eprintln!(
                "usage: zoo list | zoo serve NAME [PORT] | zoo show NAME [CASE..] | zoo table [RUNS [NAME]] | zoo page"
            );
            ExitCode::from(2)
        }
    }
}

fn serve(name: &str, port: &str) -> ExitCode {
    let Some(server) = keeper::all().into_iter().find(|server| server.name == name) else {
        eprintln!("there is no server {name}; see zoo list");
        return ExitCode::from(2);
    };
    match TcpListener::bind(format!("127.0.0.1:{port}")) {
        Ok(listener) => {
            if let Ok(addr) = listener.local_addr() {
                println!("{addr}");
            }
            (server.run)(listener);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("can't listen on port {port}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn show(name: &str, ids: &[&str]) -> ExitCode {
    let Some(server) = keeper::all().into_iter().find(|server| server.name == name) else {
        eprintln!("there is no server {name}; see zoo list");
        return ExitCode::from(2);
    };
    let report = keeper::probe_with(&server, ids);
    println!("{:?}\n{:?}", report.path, report.baseline);
    for case in &report.cases {
        let mark = if keeper::is_expected(&server, case.id, case.verdict) { "" } else { "  (unexpected)" };
        println!("{:<5}{:<24}{:>6} ms  {}{mark}", case.verdict, case.id, case.ms, case.summary);
        for (variant, seen) in &case.seen {
            println!("       {variant}: {seen}");
        }
        println!("       {:?}", case.bystander);
    }
    ExitCode::SUCCESS
}

/// Each server times each case. A cell is the worst verdict of all runs; its expectation, if
/// another, follows it.
fn table(runs: u32, name: &str) -> ExitCode {
    let ids: Vec<&str> = finale_probe::cases().map(|case| case.id).collect();
    let mut unexpected = 0;
    for server in keeper::all().into_iter().filter(|server| server.name.contains(name)) {
        let reports = keeper::probe_often(&server, runs);
        let mut cells = Vec::new();
        for id in &ids {
            let verdicts = reports.iter().flat_map(|report| &report.cases).filter(|case| case.id == *id);
            let verdicts: Vec<_> = verdicts.map(|case| case.verdict).collect();
            unexpected += verdicts.iter().filter(|verdict| !keeper::is_expected(&server, id, **verdict)).count();
            let (least, most) = (verdicts.iter().min(), verdicts.iter().max());
            let cell = most.map_or_else(String::new, |most| most.to_string());
            let varies = if least == most { "" } else { "?" };
            cells.push(format!("{id}={cell}{varies}"));
        }
        println!("{:<24}{}", server.name, cells.join(" "));
    }
    println!("{unexpected} unexpected verdicts");
    ExitCode::from(u8::from(unexpected > 0))
}
