//! CPU time of processes: of all their threads, including those that have ended.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::time::ClockId;

/// No process has a larger number (`PID_MAX_LIMIT` in proc(5)). Some larger numbers would name
/// another clock.
const PID_MAX: u32 = 1 << 22;

/// The CPU time of a process.
pub(super) fn of(pid: u32) -> io::Result<Duration> {
    if pid > PID_MAX {
        return Err(Errno::ESRCH.into());
    }
    of_pid(pid as i32)
}

#[cfg(any(target_os = "linux", target_os = "freebsd"))]
fn of_pid(pid: i32) -> io::Result<Duration> {
    // EINVAL means that there is no such process (clock_getcpuclockid(3)).
    let clock = ClockId::pid_cpu_clock_id(nix::unistd::Pid::from_raw(pid)).map_err(|_why| Errno::ESRCH)?;
    Ok(clock.now().map_err(|_why| Errno::ESRCH)?.into())
}

#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
fn of_pid(_: i32) -> io::Result<Duration> {
    Err(Errno::ENOTSUP.into())
}

/// The CPU time of this process.
pub(super) fn ours() -> io::Result<Duration> {
    // The same call of rustix reads the vDSO, which valgrind hides.
    Ok(ClockId::CLOCK_PROCESS_CPUTIME_ID.now().map(Duration::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_does_not_exist_has_no_time_but_a_reason() {
        let why = of(u32::MAX).expect_err("no process has this number");
        assert!(why.to_string().contains("No such process"), "{why}");
        assert!(of(i32::MAX as u32).is_err() && of(PID_MAX).is_err());
    }

    #[test]
    fn our_own_time_grows_with_work_and_is_the_same_from_outside() {
        let before = of(std::process::id()).expect("we are here");
        while ours().expect("we are here") == before {
            std::hint::spin_loop();
        }
        assert!(of(std::process::id()).expect("we are here") > before);
    }

    #[test]
    fn the_time_of_a_thread_that_has_ended_counts() {
        let before = ours().expect("we are here");
        let worked = std::thread::spawn(move || {
            while ours().expect("we are here") < before + Duration::from_millis(5) {
                std::hint::spin_loop();
            }
        });
        worked.join().expect("it ends");
        assert!(of(std::process::id()).expect("we are here") >= before + Duration::from_millis(5));
    }
}
