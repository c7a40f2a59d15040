//! Runs all cases: the programs of one behaviour at the same time.

use std::io;
use std::path::Path;
use std::thread;

use finale_load::pinned::wrong;

use super::behaviour::{self, Behaviour, Certificate};
use super::case::{Folders, Outcome, with_client, with_server};
use super::page;
use super::program::{self, Program};
use crate::config::{other, write_certificate};

type Case = fn(&Behaviour, &Program, &Folders<'_>) -> io::Result<Outcome>;

/// A table of the page: a row per behaviour, a column per program.
pub(super) struct Table {
    pub(super) title: &'static str,
    pub(super) programs: Vec<&'static Program>,
    pub(super) rows: Vec<(&'static Behaviour, Vec<Option<Outcome>>)>,
}

pub(super) fn run(output: Option<&Path>, program: &str, behaviour: &str) -> io::Result<()> {
    let folder = std::env::temp_dir().join(format!("finale-tls-endings-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let tables = tables(&folder, program, behaviour);
    std::fs::remove_dir_all(&folder)?;
    let page = page::write(&tables?);
    match output {
        Some(file) => std::fs::write(file, page),
        None => {
            print!("{page}");
            Ok(())
        }
    }
}

fn tables(folder: &Path, program: &str, behaviour: &str) -> io::Result<Vec<Table>> {
    let folders = Folders(folder);
    certificates(&folders)?;
    let all: [(&str, &'static [Behaviour], &'static [Program], Case); 3] = [
        ("A server ends", behaviour::SERVERS, program::CLIENTS, with_client),
        ("A server of HTTP ends", behaviour::HTTP, program::HTTP_CLIENTS, with_client),
        ("A client ends", behaviour::CLIENTS, program::SERVERS, with_server),
    ];
    let tables = all.into_iter().map(|(title, behaviours, programs, case)| {
        let programs: Vec<_> = programs.iter().filter(|one| one.name.contains(program) && page::has(one)).collect();
        let chosen = behaviours.iter().filter(|one| one.words.contains(behaviour));
        let rows = chosen.map(|behaviour| {
            eprintln!("{title}: {}", behaviour.words);
            Ok((behaviour, row(behaviour, &programs, &folders, case)?))
        });
        let rows = rows.collect::<io::Result<Vec<_>>>()?;
        Ok(Table { title, programs, rows })
    });
    let tables = tables.collect::<io::Result<Vec<Table>>>()?;
    Ok(tables.into_iter().filter(|table| !table.programs.is_empty() && !table.rows.is_empty()).collect())
}

fn row(
    behaviour: &Behaviour,
    programs: &[&'static Program],
    folders: &Folders<'_>,
    case: Case,
) -> io::Result<Vec<Option<Outcome>>> {
    thread::scope(|scope| {
        let one = |program: &'static Program| {
            let possible = !behaviour.half_close || program.half_closes.is_ok();
            possible.then(|| scope.spawn(move || case(behaviour, program, folders)))
        };
        let threads: Vec<_> = programs.iter().map(|program| (program.name, one(program))).collect();
        let outcome = |(name, thread): (&str, Option<thread::ScopedJoinHandle<'_, io::Result<Outcome>>>)| {
            let Some(thread) = thread else { return Ok(None) };
            let outcome = thread.join().map_err(|_| wrong("a panic".to_owned()))?;
            outcome.map(Some).map_err(|error| wrong(format!("{}, {name}: {error}", behaviour.words)))
        };
        threads.into_iter().map(outcome).collect()
    })
}

/// Writes a certificate of each kind.
fn certificates(folders: &Folders<'_>) -> io::Result<()> {
    for kind in [Certificate::Trusted, Certificate::Unknown, Certificate::Expired, Certificate::OtherName] {
        let folder = folders.of(kind);
        std::fs::create_dir_all(&folder)?;
        if kind == Certificate::Trusted {
            write_certificate(&folder)?;
            continue;
        }
        let name = if kind == Certificate::OtherName { "other.example" } else { "localhost" };
        let mut params = rcgen::CertificateParams::new([name.to_owned()]).map_err(other)?;
        // The trusted one has another subject, so that this one is not taken for it.
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("{kind:?}"));
        if kind == Certificate::Expired {
            params.not_before = rcgen::date_time_ymd(2019, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let key = rcgen::KeyPair::generate().map_err(other)?;
        let cert = params.self_signed(&key).map_err(other)?;
        std::fs::write(folder.join(crate::config::FILES[0]), cert.pem())?;
        std::fs::write(folder.join(crate::config::FILES[1]), key.serialize_pem())?;
    }
    Ok(())
}
