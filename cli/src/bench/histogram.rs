//! A histogram as text: the compressed V2 form of HdrHistogram in base64, which the tools of other
//! languages read, too. The values are nanoseconds.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|why| D::Error::custom(format!("the histogram can't be read: {why}")))
}
