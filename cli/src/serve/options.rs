//! The arguments of `finale serve`.

use std::time::Duration;

use clap::ValueEnum;
use finale::CloseMode;

use crate::errors::Error;
use crate::tls::ServerTls;
use crate::values;

/// A server that reads to the client's FIN, answers and ends
///
/// The first line on stdout is `listening on IP:PORT`, or `listening on unix:PATH`.
///
/// SIGTERM or SIGINT stops the server: it accepts the clients that wait and no others (see also
/// --drain-delay), lets live connections end within --grace, resets the rest and exits with 0. Idle
/// clients get a FIN, at times spread over the grace. A second signal resets all at once.
///
/// SIGUSR1 prints metrics on stderr: connections, endings by kind, live sockets by state, bytes,
/// and the delay of timers. With --json they are one JSON object on one line.
///
/// SIGHUP restarts the server without refusing a client. The program at the path by which this one
/// was started is started again, with the same arguments and the same listening sockets. When the
/// new process serves, the old one stops as after SIGTERM, within --restart-grace. If the new
/// process fails, the old one continues to serve. If the terminal in which the server was started
/// is closed, SIGHUP stops the server; under nohup it does nothing.
///
/// With --tls-cert a client's end is its close_notify, and a FIN or a reset without it is an error:
/// truncated. SIGHUP reads the certificate and its key again, for the next handshakes. If they can't
/// be used, the server continues with the ones before and is not restarted.
///
/// A service manager can pass listening sockets (LISTEN_FDS, as systemd does). They replace
/// --listen. NOTIFY_SOCKET gets READY=1 when the server serves, RELOADING=1 and MAINPID= at a
/// restart, and STOPPING=1.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeOptions {
    /// What to do with a connection
    #[arg(value_enum)]
    pub(crate) service: Service,
    /// The address to listen on: an IP address and a port (port 0 takes any free port), unix:PATH,
    /// or unix:@NAME for an abstract name
    #[arg(short, long, value_name = "ADDR", default_value = "127.0.0.1:7000")]
    pub(crate) listen: String,
    /// How much `answer` sends, up to 1TiB: 64, 16KiB, 1MiB [default: 64]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    #[arg(allow_hyphen_values = true)]
    pub(crate) bytes: Option<u64>,
    /// Make `answer` finish first: it answers as soon as this many bytes have arrived (0: at
    /// once), instead of at the client's FIN. A client that finishes before gets no answer
    #[arg(long, value_name = "SIZE", value_parser = values::size, allow_hyphen_values = true)]
    pub(crate) after: Option<u64>,
    /// How to close a finished connection
    #[arg(long, value_enum, default_value_t = Closing::Confirmed)]
    pub(super) close: Closing,
    /// Reset a connection on which no byte moves for this time: 250ms, 2s, 1m. It is a reset,
    /// since a FIN would claim that the answer is complete [default: no limit]
    #[arg(long, value_name = "DUR", value_parser = values::time_limit, allow_hyphen_values = true)]
    pub(super) idle_timeout: Option<Duration>,
    /// Accept a connection only when its first bytes have arrived, or a little after this time,
    /// rounded up to seconds (TCP_DEFER_ACCEPT). For clients that send first
    #[arg(long, value_name = "DUR", value_parser = values::time_limit, allow_hyphen_values = true)]
    pub(super) defer_accept: Option<Duration>,
    /// The permissions of the file of --listen unix:PATH, octal: 660 [default: by the umask]
    #[arg(long, value_name = "MODE", value_parser = values::file_mode, allow_hyphen_values = true)]
    pub(super) unix_mode: Option<u32>,
    /// Every connection begins with a PROXY header, version 1 or 2, as a balancer sends it: take
    /// the client's address from it. A connection without one is reset
    #[arg(long)]
    pub(super) proxy_protocol: bool,
    /// Probe the machine of a silent client after this time, at most 9h, and give it up a minute
    /// later (TCP keep-alive); 0s: never
    #[arg(long, value_name = "DUR", default_value = "60s", value_parser = values::duration)]
    #[arg(allow_hyphen_values = true)]
    pub(super) keep_alive: Duration,
    /// Give a client up whose machine has not acknowledged bytes for this time, at most 24 days
    /// (TCP_USER_TIMEOUT) [default: the kernel's limit, about 15 minutes]
    #[arg(long, value_name = "DUR", value_parser = values::time_limit, allow_hyphen_values = true)]
    pub(super) user_timeout: Option<Duration>,
    /// Share the port with other servers that also set this option (SO_REUSEPORT). The kernel
    /// distributes the connections. Without it a second server on the port is refused
    #[arg(long)]
    pub(super) reuse_port: bool,
    /// The number of reactors. Each has its own thread, and all listen on one port (SO_REUSEPORT)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = values::number::<u16>(1..=256))]
    #[arg(allow_hyphen_values = true)]
    pub(super) shards: u16,
    /// How long live connections may continue after SIGTERM or SIGINT
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = values::duration)]
    #[arg(allow_hyphen_values = true)]
    pub(super) grace: Duration,
    /// The same after a restart [default: as --grace]
    #[arg(long, value_name = "DUR", value_parser = values::duration, allow_hyphen_values = true)]
    pub(super) restart_grace: Option<Duration>,
    /// Continue to accept for this time after SIGTERM or SIGINT: for a balancer that learns late
    /// that the server stops. The grace begins afterwards
    #[arg(long, value_name = "DUR", default_value = "0s", value_parser = values::duration)]
    #[arg(allow_hyphen_values = true)]
    pub(super) drain_delay: Duration,
    /// Print metrics as JSON, one object on one line
    #[arg(long)]
    pub(super) json: bool,
    /// Print the ending of each connection on stderr, and what a stop waits for. Each line of the log
    /// names its process
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Print the ladder of at most N connections per second on stderr, 1 to 10, when they end: system
    /// calls, states, events, and what the kernel says. At most 100 times N are recorded at a time.
    /// These cost some microseconds per call, the others almost nothing [without =N: 1]
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    #[arg(value_parser = values::number::<u32>(1..=10))]
    pub(crate) trace: Option<u32>,
    /// Print errors only on stderr: no warnings, no reports of a restart
    #[arg(short, long, conflicts_with_all = ["verbose", "trace"])]
    pub(crate) quiet: bool,
    /// End with this process, which has started the server
    #[arg(long, value_name = "PID", hide = true)]
    pub(super) parent: Option<i32>,
    #[command(flatten)]
    pub(super) tls: ServerTls,
}

/// What a server does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    /// Read to the FIN, then send `Processed: ` and the trimmed text in upper case. Requests of
    /// more than 1 MiB are reset
    Upper,
    /// Read to the FIN, then send --bytes bytes: one line of 64 bytes, repeated
    Answer,
    /// Send back what arrives, as fast as the client reads it
    Echo,
    /// Read, and send nothing
    Discard,
}

/// How a server closes a finished connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Closing {
    /// When the client's kernel has acknowledged the FIN, and so every byte
    Confirmed,
    /// At once. The kernel delivers the rest, and the result is unknown
    HandOff,
}

impl From<Closing> for CloseMode {
    fn from(closing: Closing) -> Self {
        match closing {
            Closing::Confirmed => Self::Confirmed,
            Closing::HandOff => Self::HandOff,
        }
    }
}

impl ServeOptions {
    /// Whether the options fit together.
    pub(super) fn check(&self) -> Result<(), Error> {
        let of_answer = [("--after", self.after), ("--bytes", self.bytes)];
        let given = of_answer.into_iter().find(|(_, value)| value.is_some() && self.service != Service::Answer);
        if let Some((option, _)) = given {
            let name = values::name(self.service);
            return Err(Error::usage(format!("{option} works with `serve answer`, not with `serve {name}`")));
        }
        if self.defer_accept.is_some() && self.after == Some(0) {
            return Err(Error::usage(
                "--defer-accept waits for the client's first bytes, and with --after 0 the client may wait for ours; \
                 leave one of them out",
            ));
        }
        Ok(())
    }
}
