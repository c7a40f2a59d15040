use super::*;

#[test]
fn addresses_are_tried_once_each_with_families_alternating() {
    let addr = |text: &str| text.parse().expect("an address");
    let (a, b, c) = (addr("1.1.1.1:1"), addr("2.2.2.2:1"), addr("[::3]:1"));
    assert_eq!(in_order(vec![a, a, b, c]), [a, c, b]);
    assert_eq!(in_order(vec![c, a, b]), [c, a, b]);
    assert_eq!(in_order(vec![]), []);
}

#[test]
fn an_attempt_waits_for_what_passes_and_for_a_descriptor_only_if_there_are_other_addresses() {
    for (errno, alone, in_a_race) in [
        (Errno::NOMEM, true, true),
        (Errno::NOBUFS, true, true),
        (Errno::AGAIN, true, true),
        (Errno::MFILE, false, true),
        (Errno::NFILE, false, true),
        (Errno::CONNREFUSED, false, false),
        (Errno::ADDRNOTAVAIL, false, false),
    ] {
        let waits = [false, true].map(|is_race| has_to_wait(&errno.into(), is_race));
        assert_eq!(waits, [alone, in_a_race], "{errno:?}");
    }
}
