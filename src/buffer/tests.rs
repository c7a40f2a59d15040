use super::*;

#[test]
fn whatever_a_buffer_is_made_of_it_gives_the_same_bytes() {
    let shared = Arc::new(b"bytes".to_vec());
    let all: [(Buffer, &str); 6] = [
        (b"bytes".to_vec().into(), "owned"),
        (String::from("bytes").into(), "owned"),
        ("bytes".into(), "static"),
        ((&b"bytes"[..]).into(), "static"),
        (b"bytes".into(), "static"),
        (shared.into(), "shared"),
    ];
    for (buffer, kind) in all {
        assert_eq!((buffer.as_ref(), buffer.len(), buffer.is_empty()), (&b"bytes"[..], 5, false));
        assert_eq!(format!("{buffer:?}"), format!("Buffer(5 bytes, {kind})"));
        assert_eq!(buffer.clone().as_ref(), buffer.as_ref());
    }
    assert!(Buffer::from("").is_empty());
}

#[test]
fn a_part_of_shared_bytes_is_that_part_and_no_copy() {
    let all = Arc::new(b"0123456789".to_vec());
    let parts = [
        (Buffer::shared(&all, 2..5), "234"),
        (Buffer::shared(&all, ..), "0123456789"),
        (Buffer::shared(&all, 7..), "789"),
        (Buffer::shared(&all, ..=1), "01"),
        (Buffer::shared(&all, (Bound::Excluded(7), Bound::Unbounded)), "89"),
        (Buffer::shared(&all, 10..10), ""),
    ];
    for (part, bytes) in &parts {
        assert_eq!(part.as_ref(), bytes.as_bytes());
    }
    assert_eq!(parts[0].0.as_ref().as_ptr(), all[2..].as_ptr());
    assert_eq!(Arc::strong_count(&all), 1 + parts.len());
    drop(parts);
    assert_eq!(Arc::strong_count(&all), 1);
}

#[test]
fn a_part_that_is_not_there_is_refused_like_an_index() {
    let all = Arc::new(b"0123456789".to_vec());
    let backwards = (Bound::Included(6), Bound::Excluded(5));
    let ranges: [(Bound<usize>, Bound<usize>); 5] = [
        backwards,
        (Bound::Included(5), Bound::Excluded(11)),
        (Bound::Included(0), Bound::Included(10)),
        (Bound::Included(0), Bound::Included(usize::MAX)),
        (Bound::Excluded(usize::MAX), Bound::Unbounded),
    ];
    for range in ranges {
        let part = std::panic::catch_unwind(|| Buffer::shared(&all, range));
        assert!(part.is_err(), "{range:?}");
    }
}

#[test]
fn room_that_no_byte_uses_is_given_back() {
    let mut bytes = Vec::with_capacity(10_000);
    bytes.extend_from_slice(b"few");
    let mut buffer = Buffer::from(bytes);
    buffer.shrink();
    assert!(buffer.held() < 10 && buffer.as_ref() == b"few");
}
