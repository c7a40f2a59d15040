//! A request for a large answer whose answer is small: there is no middle of it.

mod lines;

use std::time::Duration;

use finale_probe::{CaseReport, Verdict, probe};

#[test]
fn no_case_reports_what_it_could_not_try_with_a_small_answer() {
    let mut options = lines::options();
    options.big_request = Some(b"big\n".to_vec());
    (options.timeout, options.runs) = (Duration::from_millis(500), 2);
    options.cases = ["slow-reader", "late-input", "never-read", "reset-mid-answer", "vanish"].map(str::to_owned).into();
    let report = probe(&lines::serve().to_string(), &options, |_| {}).expect("it is served");
    let [slow_reader, late_input, never_read, mid_answer, vanish] = &report.cases[..] else { panic!("{report}") };
    let words = "the answer has 6 bytes, and kernels take up to 8388608 without a reader; give a request with a larger \
                 one (--big-request)";
    for case in [never_read, mid_answer] {
        assert_eq!((case.verdict, case.summary.as_str()), (Verdict::Skip, words), "{}", case.id);
    }
    assert!(slow_reader.verdict == Verdict::Pass && slow_reader.summary.ends_with(words), "{slow_reader:?}");
    let tried = |case: &CaseReport, what: &str| case.seen.keys().any(|variant| variant.starts_with(what));
    assert!(!tried(late_input, "big answer"), "{late_input:?}");
    assert!(!tried(vanish, "in the middle of an answer"), "{vanish:?}");
}
