//! One server at a time, on the first core; the load runs on the core of this program.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use finale_load::pinned::{Pinned, wrong};
use rustls::ClientConfig;

use super::load::{self, Client};
use super::{Args, Contestant, Figures};

/// How many connections are idle.
pub(super) const IDLE: [usize; 2] = [1000, 4000];
/// The memory hardly differs between rounds.
pub(super) const IDLE_ROUNDS: usize = 2;
/// What each connection sends and receives before it is idle again.
pub(super) const EXCHANGE_BYTES: u64 = 64 * 1024;
/// Handshakes under callgrind: the shorter and the longer run.
const COUNTED_HANDSHAKES: [usize; 2] = [50, 250];
/// MiB under callgrind.
const COUNTED_MIB: [u64; 2] = [2, 10];

const MIB: u64 = 1 << 20;

pub(super) struct Measure<'a> {
    args: &'a Args,
    programs: &'a Path,
    certificate: &'a Path,
    config: Arc<ClientConfig>,
}

impl<'a> Measure<'a> {
    pub(super) fn new(args: &'a Args, programs: &'a Path, certificate: &'a Path) -> io::Result<Self> {
        let config = Arc::new(crate::config::client(certificate)?);
        Ok(Self { args, programs, certificate, config })
    }

    /// Its program, and the arguments.
    fn command(&self, contestant: &Contestant) -> (PathBuf, Vec<PathBuf>) {
        let folder = self.certificate.to_path_buf();
        let arguments = contestant.kind.map(PathBuf::from).into_iter().chain([folder]);
        (self.programs.join(contestant.program), arguments.collect())
    }

    fn start(&self, contestant: &Contestant) -> io::Result<Pinned> {
        let (program, arguments) = self.command(contestant);
        let server = Pinned::start(&program, arguments)?;
        // The first connections start what is lazy.
        load::handshakes(server.addr, &self.config, 20)?;
        Ok(server)
    }

    /// CPU time per handshake, and per MiB in each direction.
    pub(super) fn time(&self, contestant: &Contestant, figures: &mut Figures) -> io::Result<()> {
        let server = self.start(contestant)?;
        let timed = |work: &mut dyn FnMut() -> io::Result<()>| {
            let before = server.cpu_ns()?;
            work()?;
            Ok::<_, io::Error>((server.cpu_ns()? - before) as f64)
        };
        let count = self.args.handshakes;
        let spent = timed(&mut || load::handshakes(server.addr, &self.config, count))?;
        figures.handshake.push(spent / 1e3 / count as f64);

        let mut client = Client::open(server.addr, &self.config)?;
        let (bytes, mut piece) = (self.args.mib * MIB, load::piece());
        // The kernel's buffers grow to their size.
        client.download(8 * MIB, &mut piece)?;
        client.upload(8 * MIB, &piece)?;
        let spent = timed(&mut || client.download(bytes, &mut piece))?;
        figures.download.push(spent / 1e6 / self.args.mib as f64);
        let spent = timed(&mut || client.upload(bytes, &piece))?;
        figures.upload.push(spent / 1e6 / self.args.mib as f64);
        client.close()
    }

    /// Memory per idle connection.
    pub(super) fn idle(&self, contestant: &Contestant, figures: &mut Figures) -> io::Result<()> {
        for (at, count) in IDLE.into_iter().enumerate() {
            let (program, arguments) = self.command(contestant);
            let server = Pinned::start(&program, arguments)?;
            let mut first = Client::open(server.addr, &self.config)?;
            first.ping()?;
            let before = memory(&server)?;
            let per_connection = |now: f64| (now - before) / count as f64;
            let mut clients = Vec::new();
            for _ in 0..count {
                let mut client = Client::open(server.addr, &self.config)?;
                client.ping()?;
                clients.push(client);
            }
            figures.idle[at].push(per_connection(memory(&server)?));
            if count == IDLE[1] {
                let mut piece = load::piece();
                for client in &mut clients {
                    client.upload(EXCHANGE_BYTES, &piece)?;
                    client.download(EXCHANGE_BYTES, &mut piece)?;
                }
                figures.idle[2].push(per_connection(memory(&server)?));
            }
        }
        Ok(())
    }

    /// Instructions per handshake, per KiB of a download and per KiB of an upload: each the
    /// difference of a longer run and a shorter one.
    pub(super) fn instructions(&self, contestant: &Contestant) -> io::Result<[f64; 3]> {
        let count = |number: u64, work: &dyn Fn(&Pinned) -> io::Result<()>| {
            let file = self.certificate.join(format!("callgrind-{number}"));
            let (program, arguments) = self.command(contestant);
            let option = PathBuf::from(format!("--callgrind-out-file={}", file.display()));
            let words = ["-q".into(), "--tool=callgrind".into(), option, program].into_iter().chain(arguments);
            let server = Pinned::start(Path::new("valgrind"), words)?;
            work(&server)?;
            server.terminate()?;
            total(&std::fs::read_to_string(&file)?)
        };
        let handshakes =
            COUNTED_HANDSHAKES.map(|number| count(0, &|server| load::handshakes(server.addr, &self.config, number)));
        let stream = |mib: u64, up: bool| {
            count(1, &|server| {
                let (mut client, mut piece) = (Client::open(server.addr, &self.config)?, load::piece());
                if up {
                    client.upload(mib * MIB, &piece)?
                } else {
                    client.download(mib * MIB, &mut piece)?
                }
                client.close()
            })
        };
        let difference = |[short, long]: [io::Result<f64>; 2], unit: f64| Ok::<_, io::Error>((long? - short?) / unit);
        let kib = ((COUNTED_MIB[1] - COUNTED_MIB[0]) * 1024) as f64;
        Ok([
            difference(handshakes, (COUNTED_HANDSHAKES[1] - COUNTED_HANDSHAKES[0]) as f64)?,
            difference(COUNTED_MIB.map(|mib| stream(mib, false)), kib)?,
            difference(COUNTED_MIB.map(|mib| stream(mib, true)), kib)?,
        ])
    }
}

/// What callgrind has counted.
fn total(file: &str) -> io::Result<f64> {
    let line = file.lines().find_map(|line| line.strip_prefix("summary: ").or(line.strip_prefix("totals: ")));
    line.and_then(|number| number.trim().parse().ok()).ok_or_else(|| wrong("callgrind has no total".to_owned()))
}

/// The proportional set size of a server, in bytes.
fn memory(server: &Pinned) -> io::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", server.pid()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    Ok(kib.ok_or_else(|| wrong("the kernel counts no memory".to_owned()))? * 1024.0)
}
