use super::in_order;

#[test]
fn addresses_are_tried_once_each_with_families_alternating() {
    let addr = |text: &str| text.parse().expect("an address");
    let (a, b, c) = (addr("1.1.1.1:1"), addr("2.2.2.2:1"), addr("[::3]:1"));
    assert_eq!(in_order(vec![a, a, b, c]), [a, c, b]);
    assert_eq!(in_order(vec![c, a, b]), [c, a, b]);
    assert_eq!(in_order(vec![]), []);
}
