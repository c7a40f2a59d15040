//! Time on a core, as the kernel's scheduler counts it: finer than ticks, and whoever waits costs nothing.

use std::fs;
use std::io;
use std::time::Duration;

/// What all threads of a process have had so far. One that ends takes its share with it.
pub(super) fn of(process: &str) -> Result<Duration, String> {
    read(process).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("there is no process {process}, or no scheduler statistics here"),
        _ => format!("/proc/{process}: {error}"),
    })
}

/// What our own process has had. The scheduler's statistics would lack the time since the last switch.
pub(super) fn ours() -> Result<Duration, String> {
    // Of rustix this call would read the vDSO, which valgrind hides.
    let clock = nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID;
    clock.now().map(Duration::from).map_err(|errno| format!("the clock of this process: {errno}"))
}

fn read(process: &str) -> io::Result<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        match fs::read_to_string(task?.path().join("schedstat")) {
            Ok(text) => nanos += on_core(&text).ok_or(io::ErrorKind::InvalidData)?,
            // It has ended since the folder was read, or between the two system calls.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Duration::from_nanos(nanos))
}

/// The first of three fields: nanoseconds on a core.
fn on_core(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_on_a_core_is_the_first_of_three_fields() {
        assert_eq!(on_core("48211031 1291 77\n"), Some(48_211_031));
        assert_eq!(on_core(""), None);
    }

    #[test]
    fn a_process_that_is_not_there_has_no_time_but_a_reason() {
        let why = of("0").expect_err("no process has this number");
        assert!(why.contains("no process 0"), "{why}");
    }

    #[test]
    fn our_own_time_grows_with_work_and_is_told_in_both_ways() {
        let before = ours().expect("we are here");
        while ours().expect("we are here") == before {
            std::hint::spin_loop();
        }
        assert!(of("self").is_ok());
    }
}
