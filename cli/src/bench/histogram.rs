//! A histogram as text: the compressed V2 form of HdrHistogram in base64, which the tools of other
//! languages read, too. The values are nanoseconds.
//!
//! Invariant: text that is read costs no more memory than the largest histogram. hdrhistogram would
//! allocate whatever length the text has in its header.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize as _, Serialize as _};

pub(super) fn serialize<S: serde::Serializer>(histogram: &Histogram<u64>, to: S) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).map_err(S::Error::custom)?;
    STANDARD.encode(bytes).serialize(to)
}

pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Histogram<u64>, D::Error> {
    let text = String::deserialize(from)?;
    let bytes = STANDARD.decode(text).map_err(|why| D::Error::custom(format!("the histogram is not base64: {why}")))?;
    let failed = |why: String| D::Error::custom(format!("the histogram can't be read: {why}"));
    let plain = inflate(&bytes).map_err(failed)?;
    Deserializer::new().deserialize(&mut plain.as_slice()).map_err(|why| failed(why.to_string()))
}

/// Marks the compressed V2 form, whose cookie and length are followed by a zlib stream.
const COMPRESSED: [u8; 4] = [0x1c, 0x84, 0x93, 0x14];
/// The cookie, the length of the counts, and the parameters.
const HEADER_BYTES: usize = 40;
/// The counts of ours have at most 300 KiB. Those of the widest range with five digits have 62 MB.
const LARGEST_BYTES: u64 = 64 << 20;

/// The V2 form, if it is as long as its header says.
fn inflate(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let stream = bytes.strip_prefix(&COMPRESSED).and_then(|rest| rest.get(4..));
    let stream = stream.ok_or("it is not the compressed V2 form of HdrHistogram")?;
    let mut plain = Vec::new();
    let inflated = ZlibDecoder::new(stream).take(LARGEST_BYTES).read_to_end(&mut plain);
    inflated.map_err(|why| why.to_string())?;
    let counts = plain.get(4..8).and_then(|length| Some(u32::from_be_bytes(length.try_into().ok()?)));
    match counts {
        Some(counts) if plain.len().checked_sub(HEADER_BYTES) == Some(counts as usize) => Ok(plain),
        _ => Err("it is cut off, or too large".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    struct Text(#[serde(with = "super")] Histogram<u64>);

    /// A histogram of three values, with these bytes in its header at this offset.
    fn changed(offset: usize, bytes: &[u8]) -> Result<Text, serde_json::Error> {
        let mut histogram = Histogram::new(3).expect("three digits are valid");
        (1..=3_u64).for_each(|value| histogram.record(value * 1_000_000).expect("it grows"));
        let text = serde_json::to_value(Text(histogram)).expect("it is text");
        let packed = STANDARD.decode(text.as_str().expect("it is text")).expect("it is base64");
        let mut plain = inflate(&packed).expect("it is ours");
        plain[offset..offset + bytes.len()].copy_from_slice(bytes);
        serde_json::from_value(packed_again(&plain))
    }

    fn packed_again(plain: &[u8]) -> Value {
        let mut stream = Vec::new();
        let mut deflated = flate2::read::ZlibEncoder::new(plain, flate2::Compression::fast());
        deflated.read_to_end(&mut stream).expect("memory can be read");
        let length = u32::try_from(stream.len()).expect("it is short").to_be_bytes();
        json!(STANDARD.encode([COMPRESSED.as_slice(), &length, &stream].concat()))
    }

    #[test]
    fn a_length_in_the_header_allocates_nothing_and_a_large_stream_is_cut_off() {
        assert_eq!(changed(0, &[]).expect("it is unchanged").0.len(), 3);
        let refused = |read: Result<Text, serde_json::Error>| {
            let why = read.expect_err("it is refused").to_string();
            assert!(why.contains("cut off, or too large"), "{why}");
        };
        for length in [0, 1, 1 << 31, u32::MAX] {
            refused(changed(4, &length.to_be_bytes()));
        }
        refused(serde_json::from_value(packed_again(&vec![0; (LARGEST_BYTES + 1) as usize])));
        refused(serde_json::from_value(packed_again(&[])));
    }

    #[test]
    fn another_form_and_parameters_that_can_not_be_are_refused() {
        let other = serde_json::from_value::<Text>(json!("AAAAAAAA")).expect_err("it is none").to_string();
        assert!(other.contains("the histogram can't be read: it is not the compressed V2 form"), "{other}");
        for (offset, bytes) in [(0, [0; 8]), (8, [255; 8]), (16, [0; 8]), (24, [0; 8]), (32, [0; 8])] {
            assert!(changed(offset, &bytes).is_err(), "{offset}");
        }
    }
}
