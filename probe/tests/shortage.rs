//! A machine of the probe that can open no further connection once the server was stopped.

mod lines;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use finale_probe::{Progress, Stop, Verdict, probe};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Alone in its process, whose limit of descriptors it changes.
#[test]
fn a_server_is_stopped_once_also_if_this_machine_can_not_see_what_follows() {
    let (limit, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("each process has one");
    let allow = move |descriptors| setrlimit(Resource::RLIMIT_NOFILE, descriptors, most).expect("it is lower");
    let stops = Arc::new(AtomicUsize::new(0));
    let mut options = lines::options();
    options.timeout = Duration::from_secs(2);
    options.cases = finale_probe::cases().map(|case| case.id.to_owned()).filter(|id| id.starts_with("stop-")).collect();
    let counted = stops.clone();
    options.stop = Some(Stop::call(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        allow(3);
    }));
    let report = probe(&lines::serve().to_string(), &options, |progress| {
        if let Progress::Case(..) = progress {
            allow(limit);
        }
    });
    let report = report.expect("it is served");
    assert_eq!(stops.load(Ordering::SeqCst), 1, "the process that it would stop now may be another one");
    for case in report.cases {
        assert_eq!((case.verdict, case.option_failed), (Verdict::Skip, false), "{case:?}");
        assert!(case.summary.contains("this machine can open no further connection"), "{case:?}");
    }
}
