//! What the kernel and the counting tools write, as numbers. Pure: text in, figures out.

use std::collections::BTreeMap;

/// Segments sent: OutSegs of the Tcp lines of /proc/net/snmp, which name their columns in one line
/// and fill them in the next.
pub(crate) fn segments_sent(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let column = names.split_whitespace().position(|name| name == "OutSegs")?;
    values.split_whitespace().nth(column)?.parse().ok()
}

/// Sockets in TIME_WAIT: `tw` in the TCP line of /proc/net/sockstat.
pub(crate) fn time_wait(sockstat: &str) -> Option<u64> {
    let mut words = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?.split_whitespace();
    words.find(|word| *word == "tw")?;
    words.next()?.parse().ok()
}

/// Resident memory in bytes: the Rss line of /proc/PID/smaps_rollup.
pub(crate) fn resident_bytes(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The cores that a process may use: `0-3,8` in /proc/PID/status.
pub(crate) fn allowed_cores(status: &str) -> Vec<u32> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse::<u32>().ok()?..=to.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// How often each system call was made: the table of `strace -c`. The column of errors is empty
/// where there were none.
pub(crate) fn system_calls(table: &str) -> BTreeMap<String, u64> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let (5 | 6, Some(name)) = (cells.len(), cells.last()) else { return None };
        let calls = cells[3].parse().ok()?;
        (*name != "total").then(|| ((*name).to_owned(), calls))
    };
    table.lines().filter_map(row).collect()
}

/// How many system calls of all kinds: the line of `perf stat -x,`.
pub(crate) fn calls_at_speed(csv: &str) -> Option<u64> {
    csv.lines().find(|line| line.contains("raw_syscalls:sys_enter"))?.split(',').next()?.parse().ok()
}

/// Instructions in user space: the totals line of callgrind's file.
pub(crate) fn instructions(callgrind: &str) -> Option<u64> {
    let of = |name| callgrind.lines().find_map(|line| line.strip_prefix(name));
    of("totals:").or_else(|| of("summary:"))?.split_whitespace().next()?.parse().ok()
}

/// How long a load took by its own clock, from the first connect to the last end: `8000 connections
/// in 0.281 s, 0 failed`.
pub(crate) fn took_ns(summary: &str) -> Option<u64> {
    let (_, rest) = summary.trim().rsplit_once(" in ")?;
    let seconds: f64 = rest.split_once(" s, ")?.0.parse().ok()?;
    (seconds > 0.0).then_some((seconds * 1e9) as u64)
}

/// The settings of the release profile in a Cargo.toml, in one line.
pub(crate) fn release_profile(manifest: &str) -> Option<String> {
    let lines = manifest.lines().skip_while(|line| *line != "[profile.release]").skip(1);
    let settings: Vec<&str> =
        lines.take_while(|line| !line.starts_with('[')).filter(|line| line.contains(" = ")).collect();
    (!settings.is_empty()).then(|| settings.join(", "))
}

/// The kernel's reports on the weaknesses of this processor, `name: report` per line, in one line:
/// those that affect it.
pub(crate) fn mitigations(answers: &[(String, String)]) -> Option<String> {
    let affected: Vec<String> = answers
        .iter()
        .filter(|(_, answer)| answer != "Not affected")
        .map(|(name, answer)| format!("{name}: {}", answer.split(';').next().unwrap_or(answer)))
        .collect();
    let free = answers.len() - affected.len();
    (!answers.is_empty()).then(|| [affected, vec![format!("not affected by {free} others")]].concat().join("; "))
}

/// The version of a package in a Cargo.lock.
pub(crate) fn locked_version(lock: &str, package: &str) -> Option<String> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name).skip(1);
    Some(lines.next()?.strip_prefix("version = \"")?.trim_end_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_found_by_the_name_of_their_column() {
        let snmp = "Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: RtoAlgorithm MaxConn InSegs OutSegs RetransSegs\n\
                    Tcp: 1 -1 900 1234 5\nUdp: InDatagrams\nUdp: 3\n";
        assert_eq!(segments_sent(snmp), Some(1234));
        assert_eq!(segments_sent("Tcp: InSegs\nTcp: 9\n"), None);
    }

    #[test]
    fn time_wait_is_taken_from_the_line_of_tcp() {
        let sockstat = "sockets: used 7\nTCP: inuse 3 orphan 0 tw 14000 alloc 4 mem 230\nUDP: inuse 0 mem 0\n";
        assert_eq!(time_wait(sockstat), Some(14_000));
        assert_eq!(time_wait("sockets: used 7\n"), None);
    }

    #[test]
    fn resident_memory_is_told_in_kib() {
        let rollup =
            "5581-7ffd ---p 00000000 00:00 0 [rollup]\nRss:                2048 kB\nPss:                 900 kB\n";
        assert_eq!(resident_bytes(rollup), Some(2 << 20));
    }

    #[test]
    fn cores_are_ranges_and_single_numbers() {
        assert_eq!(allowed_cores("Name:\tx\nCpus_allowed_list:\t0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(allowed_cores("Cpus_allowed_list:\t1\n"), [1]);
        assert!(allowed_cores("Name:\tx\n").is_empty());
    }

    #[test]
    fn the_kernels_own_count_is_read_and_a_count_that_is_none_is_not() {
        let text = "# started on Wed\n\n168977,,raw_syscalls:sys_enter,1208529962,100.00,,\n";
        assert_eq!(calls_at_speed(text), Some(168_977));
        assert_eq!(calls_at_speed("<not counted>,,raw_syscalls:sys_enter,0,100.00,,\n"), None);
    }

    #[test]
    fn a_table_of_system_calls_is_read_with_and_without_errors() {
        let table = "strace: Process 7 attached\n% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ----------------\n \
                     60.00    0.000600           1       500           close\n \
                     40.00    0.000400           2       200        14 accept4\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     100.00    0.001000           1       700        14 total\n";
        let calls = system_calls(table);
        assert_eq!(calls.len(), 2, "{calls:?}");
        assert_eq!((calls["close"], calls["accept4"]), (500, 200));
    }

    #[test]
    fn instructions_are_the_total_and_not_a_part() {
        let file = "version: 1\ncreator: callgrind\nevents: Ir\nsummary: 11\n\nfn=(1) main\n12 400\ntotals: 918273\n";
        assert_eq!(instructions(file), Some(918_273));
        assert_eq!(instructions("events: Ir\nsummary: 11\n"), Some(11));
        assert_eq!(instructions("events: Ir\n"), None);
    }

    #[test]
    fn a_load_tells_how_long_it_took() {
        assert_eq!(took_ns("8000 connections in 0.281 s, 0 failed\n"), Some(281_000_000));
        assert_eq!(took_ns("64 connections, 64000 round trips in 1.500 s, 0 failed\n"), Some(1_500_000_000));
        assert_eq!(took_ns("{\"failed\": 0, \"in_flight\": 256}"), None);
    }

    #[test]
    fn a_release_profile_ends_where_the_next_table_begins() {
        let manifest =
            "[a]\nx = 1\n\n[profile.release]\nlto = \"fat\"\n# why\ncodegen-units = 1\n\n[profile.bench]\ny = 2\n";
        assert_eq!(release_profile(manifest).unwrap(), "lto = \"fat\", codegen-units = 1");
        assert_eq!(release_profile("[a]\nx = 1\n"), None);
    }

    #[test]
    fn weaknesses_are_told_where_the_processor_has_them() {
        let answer = |name: &str, answer: &str| (name.to_owned(), answer.to_owned());
        let answers = [answer("mds", "Not affected"), answer("spectre_v2", "Mitigation: Retpolines; STIBP: disabled")];
        assert_eq!(mitigations(&answers).unwrap(), "spectre_v2: Mitigation: Retpolines; not affected by 1 others");
        assert_eq!(mitigations(&[]), None);
    }

    #[test]
    fn a_locked_version_is_that_of_the_package_asked_for() {
        let lock = "[[package]]\nname = \"mio-extra\"\nversion = \"9.9.9\"\n\n[[package]]\nname = \"mio\"\nversion = \"1.2.3\"\n";
        assert_eq!(locked_version(lock, "mio").as_deref(), Some("1.2.3"));
        assert_eq!(locked_version(lock, "tokio"), None);
    }
}
